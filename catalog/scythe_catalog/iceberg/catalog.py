"""Catalogs: the tables of one warehouse by name, opened, created and dropped; what is done to one is `tables`'."""

from __future__ import annotations

import contextlib
import json
import threading
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from scythe_catalog.errors import CatalogAway, CatalogError, TableNotFound
from scythe_catalog.iceberg.place import are_one
from scythe_catalog.iceberg.reached import asked_again, is_away
from scythe_catalog.iceberg.tables import Table, called
from scythe_catalog.loading import uncollected
from scythe_catalog.schema.table_schema import SCHEMA_KEY, Column, TableSchema
from scythe_catalog.storage.objects import Objects

if TYPE_CHECKING:
    import pyiceberg.catalog

_PROPERTIES = {
    "format-version": "2",
    "commit.retry.num-retries": "0",  # PyIceberg's own retry adds a batch twice when two committers race on it
    "commit.manifest-merge.enabled": "true",
    "commit.manifest.min-count-to-merge": "20",
    "commit.manifest.target-size-bytes": str(32 * 1024),
    "write.update.isolation-level": "snapshot",
    "write.delete.isolation-level": "snapshot",
    "write.metadata.previous-versions-max": "5",
}


@dataclass(frozen=True)
class Catalog:
    """The tables of one warehouse: a folder catalog, or any catalog that PyIceberg's configuration names."""

    warehouse: str
    name: str | None = None

    @property
    def iceberg(self) -> pyiceberg.catalog.Catalog:
        """The PyIceberg catalog behind it."""
        return _iceberg_catalog(self.warehouse, self.name)

    def table(self, namespace: str, name: str) -> Table:
        """An existing table.

        Raises:
            TableNotFound: there is none of this name.
            CatalogError: its folder has been moved; or, in a configured catalog, it is that of another root.
        """
        from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError

        try:
            table = self.iceberg.load_table((namespace, name))
        except (NoSuchTableError, NoSuchNamespaceError) as error:
            raise TableNotFound(f"there is no table {namespace}.{name} in {self.warehouse}") from error
        if self.name is None and not table.location().startswith(f"{self.warehouse}/"):
            made = table.location().removesuffix(f"/{namespace}/{name}")
            if are_one(made, self.warehouse):
                raise CatalogError(
                    f"{self.warehouse} is {made} by another name, by which another process has just used it for the first time: call again"
                )
            raise CatalogError(
                f"the table {namespace}.{name} was made in {table.location()} and has been moved to {self.warehouse}: "
                "make the catalog anew with `scythe rebuild`"
            )
        self.check_own(table.location(), namespace, name)
        return Table(called(table, namespace, name))

    def check_own(self, location: str, namespace: str, name: str) -> None:
        """Nothing where a table that is there lies below this warehouse, or where a server of its own has put it.

        Raises:
            CatalogError: it is that of another root, whose rows would be taken for this one's, or dropped.
        """
        made = location.removesuffix(f"/{namespace}/{name}")
        folder = self.warehouse.rpartition("/")[2]
        if made in (self.warehouse, location) or made.rpartition("/")[2] != folder or are_one(made, self.warehouse):
            return
        other, this = (place.removesuffix(f"/{folder}") for place in (made, self.warehouse))
        raise CatalogError(
            f"the table {namespace}.{name} of the catalog {self.name!r} is that of the root {other}, and this root is {this}: a catalog serves "
            f"one root. Give this one a catalog of its own (SCYTHE_CATALOG). Where {this} has taken the other's place, remove {made} first, "
            "then `scythe rebuild`"
        )

    def namespaces(self) -> list[str]:
        """Names of the namespaces, sorted."""
        return sorted(".".join(identifier) for identifier in self.iceberg.list_namespaces())

    def tables(self, namespace: str) -> list[str]:
        """Names of the tables of a namespace, sorted; empty where there is none."""
        from pyiceberg.exceptions import NoSuchNamespaceError

        try:
            return sorted(identifier[-1] for identifier in self.iceberg.list_tables((namespace,)))
        except NoSuchNamespaceError:
            return []

    def ensure(
        self,
        namespace: str,
        name: str,
        schema: TableSchema,
        partition: Iterable[Column],
        properties: Mapping[str, str] | None = None,
    ) -> Table:
        """The table, created or widened so that it holds rows of `schema`; callers may race.

        Raises:
            CatalogError: the table is there with a schema that this one breaks.
        """
        partition = tuple(partition)
        try:
            table = self.table(namespace, name)
        except TableNotFound:
            created = self.create(namespace, name, schema, partition, properties or {})
            if created is not None:
                return created
            table = self.table(namespace, name)
        return table.widened(schema, properties or {})

    def create(
        self,
        namespace: str,
        name: str,
        schema: TableSchema,
        partition: Iterable[Column],
        properties: Mapping[str, str],
    ) -> Table | None:
        """A new table, None where there is one of this name already; of several callers one makes it."""
        from pyiceberg.exceptions import NamespaceAlreadyExistsError, TableAlreadyExistsError
        from pyiceberg.partitioning import PartitionField, PartitionSpec
        from pyiceberg.transforms import IdentityTransform

        from scythe_catalog.iceberg.types import iceberg_schema

        if not self.iceberg.namespace_exists((namespace,)):
            with contextlib.suppress(NamespaceAlreadyExistsError):
                self.iceberg.create_namespace((namespace,))
        columns = tuple(partition)
        optional = tuple(Column(c.name, c.kind, True, c.doc) for c in columns)
        iceberg = iceberg_schema(schema.plus(optional))
        fields = [
            PartitionField(iceberg.find_field(c.name).field_id, 1000 + i, IdentityTransform(), c.name)
            for i, c in enumerate(columns)
        ]
        described = {**_PROPERTIES, **properties, SCHEMA_KEY: json.dumps(schema.to_json())}
        location = Objects.at(self.warehouse).uri(f"{namespace}/{name}")
        try:
            created = self.iceberg.create_table(
                (namespace, name), iceberg, location, PartitionSpec(*fields), properties=described
            )
        except TableAlreadyExistsError:
            return None
        return Table(called(created, namespace, name))

    def drop(self, namespace: str, name: str) -> None:
        """Forgets a table; its data files stay. Nothing happens where there is none."""
        from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError

        with contextlib.suppress(NoSuchTableError, NoSuchNamespaceError):
            self.iceberg.drop_table((namespace, name))


@lru_cache(maxsize=64)
def _iceberg_catalog(warehouse: str, name: str | None) -> pyiceberg.catalog.Catalog:
    if name is not None:
        return _configured_catalog(name)
    with uncollected():
        from scythe_catalog.iceberg.folder_catalog import FolderCatalog

    return FolderCatalog("folder", warehouse=warehouse)


def _configured_catalog(name: str) -> pyiceberg.catalog.Catalog:
    """A catalog of PyIceberg's configuration; its metadata take the road of the data, with boto3's settings.

    Raises:
        CatalogError: its settings are missing or wrong.
        StorageError: its server or database cannot be reached.
    """
    with uncollected():
        from pyiceberg.catalog import load_catalog
        from pyiceberg.io import PY_IO_IMPL
        from pyiceberg.utils.config import Config

        from scythe_catalog.iceberg.fileio import IMPLEMENTATION

    try:
        settings = {PY_IO_IMPL: IMPLEMENTATION, "pool_pre_ping": "true"}
        if (uri := (Config().get_catalog_config(name) or {}).get("uri")) is not None:
            settings["uri"] = _with_an_end(str(uri))
        catalog = load_catalog(name, **settings)
        engine = getattr(catalog, "engine", None)
        if engine is not None:  # a database's connections are closed with the catalog, but never by a forked process
            weakref.finalize(catalog, engine.dispose).atexit = False
        return asked_again(catalog)
    except Exception as error:
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        if isinstance(error, OSError) or is_away(error):
            raise CatalogAway(f"the catalog {name!r} cannot be reached: {why}") from error
        variable = name.upper().replace("-", "_")
        raise CatalogError(
            f"the catalog {name!r} cannot be opened: {why}. Its settings are those of PyIceberg: "
            f"`.pyiceberg.yaml`, or PYICEBERG_CATALOG__{variable}__TYPE, __URI and so on"
        ) from error


#: By these libpq gives a connection up whose other end is gone without a word [s; the last one ms].
_ENDS = {
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}


def _with_an_end(uri: str) -> str:
    """The address of a Postgres with the times after which a connection that stands still is given up, where it has none of its own."""
    if not uri.startswith(("postgresql:", "postgresql+psycopg2:", "postgresql+psycopg:")):
        return uri
    from sqlalchemy import make_url

    url = make_url(uri)
    return url.update_query_dict({**_ENDS, **url.query}).render_as_string(hide_password=False)


def start_threads() -> None:
    """Starts the threads that PyIceberg would start when it commits: some Pythons start none at their end."""
    from pyiceberg.utils.concurrent import ExecutorFactory

    pool = ExecutorFactory.get_or_create()
    most: int = pool._max_workers  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    together = threading.Barrier(most + 1)
    for _ in range(most):
        pool.submit(together.wait)
    together.wait()
