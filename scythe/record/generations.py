"""Generations of a table: which table of the catalog holds a version's rows, found, widened or opened anew.

All versions of one major number share a generation, and so do majors between which nothing broke. A version whose
columns its generation cannot hold (another line of versions has typed them otherwise since) gets one of its own: what
one line has stored never binds another. Which table a generation belongs to is told by a property of it, not by its name.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping

from scythe.define.renames import Renames
from scythe.define.schemas import PARTITION
from scythe.errors import CatalogError, StorageError
from scythe.names import CATALOG
from scythe.record.format import FORMAT, FORMAT_KEY, check_format
from scythe.record.layout import RunKey
from scythe.record.manifest import renames_now, renames_until
from scythe.record.versions import SemVer
from scythe_catalog.iceberg.catalog import Catalog
from scythe_catalog.iceberg.tables import Table
from scythe_catalog.names import folded
from scythe_catalog.schema import Severity, TableSchema
from scythe_catalog.storage.objects import Objects

_TABLE = "scythe.table"
_MAJORS = "scythe.majors"
_FORMAT = f"scythe.{FORMAT_KEY}"
#: The names of later generations before there was a property for it; they began with the second.
_NUMBERED = re.compile(r"(.+)_g([2-9]|[1-9]\d+)")
_TRIES = 5
#: Names below a namespace of the folder catalog that are no table's.
_TAKEN = frozenset({"namespace.json"})


def catalog_of(objects: Objects, name: str | None = None) -> Catalog:
    """The catalog of a root; `name` is one of PyIceberg's own configuration (`SCYTHE_CATALOG`)."""
    return Catalog(objects.uri(CATALOG), name)


def check_place(catalog: Catalog, experiment: str) -> None:
    """Nothing where the tables of an experiment are where they were made: else none takes or loses rows.

    Raises:
        CatalogError: the root was moved or copied, and its catalog has not been made anew.
    """
    for name in catalog.tables(experiment):
        catalog.table(experiment, name)


class Generations:
    """The tables of one experiment in a catalog, by the table of a run that they hold."""

    def __init__(self, catalog: Catalog, experiment: str, objects: Objects, renames: Renames | None = None) -> None:
        """`renames` are those until the version that is opened; else they are read from the version's record."""
        self.catalog, self.experiment, self._objects = catalog, experiment, objects
        self._given, self._recorded = renames, dict[str, Renames]()
        #: What was changed: each table, by its name, before (None: it is new) and after.
        self._changed: dict[str, tuple[Table | None, Table]] = {}
        self._names: list[str] | None = None

    def names(self) -> list[str]:
        """The names of all tables in the catalog, sorted; as they were when they were first asked for, or one was made since."""
        if self._names is None:
            self._names = self.catalog.tables(self.experiment)
        return self._names

    def of(self, table: str) -> list[Table]:
        """The generations of a table, oldest first."""
        return self._among(self.names(), table)

    def tables(self) -> list[str]:
        """The tables that there are generations of, sorted."""
        return sorted({owner for owner, _ in self.all()})

    def all(self) -> Iterator[tuple[str, Table]]:
        """Every generation, behind the table that it belongs to."""
        names = self.names()
        for name in names:
            opened = self.catalog.table(self.experiment, name)
            yield self._owner(opened, name, names), opened

    def _among(self, names: list[str], table: str) -> list[Table]:
        found: list[tuple[int, str, Table]] = []
        for name in names:
            if name == table or name.startswith(f"{table}_"):
                opened = self.catalog.table(self.experiment, name)
                if self._owner(opened, name, names) == table:
                    found.append((_number(name, table), name, opened))
        return [opened for _, _, opened in sorted(found, key=lambda f: f[:2])]

    def _owner(self, table: Table, name: str, names: Iterable[str]) -> str:
        """The table that a generation belongs to."""
        properties = table.iceberg.properties
        if _TABLE in properties:
            check_format({FORMAT_KEY: int(properties.get(_FORMAT, FORMAT))}, f"the table {self.experiment}.{name}")
            return properties[_TABLE]
        match = _NUMBERED.fullmatch(name)
        if match is None or match[1] not in names or old_records(self._objects, self.experiment, name):
            return name  # a dataframe of this very name was recorded: the name is no number
        return match[1]

    def open(self, key: RunKey, table: str, schema: TableSchema) -> Table:
        """The generation that holds the rows of a run's version; callers may race.

        Raises:
            CatalogError: the catalog does not take it.
        """
        major, renames = SemVer.parse(key.version).major, self.renames(key.version).of(table)
        for _ in range(_TRIES - 1):
            with contextlib.suppress(CatalogError):
                return self._followed(table, self._named(self._open(table, schema, major, renames), renames))
            self._names = None
        return self._followed(table, self._named(self._open(table, schema, major, renames), renames))

    def _followed(self, owner: str, table: Table) -> Table:
        """The table, with the names that its fields have got in a version that was allocated while it was made.

        Who renames fields records that first, and then renames those of all tables that are there: it has not seen this one.
        """
        if self._changed.get(table.iceberg.name()[-1], (table,))[0] is not None:
            return table
        return self._named(table, renames_now(self._objects, self.experiment).of(owner))

    def renames(self, version: str) -> Renames:
        """What was renamed until a version."""
        if self._given is not None:
            return self._given
        if version not in self._recorded:
            self._recorded[version] = renames_until(self._objects, self.experiment, version)
        return self._recorded[version]

    def rename(self, renames: Renames) -> None:
        """Gives the columns of all tables the names that they have since; files keep the former ones.

        Raises:
            CatalogError: a table has a column of such a name already.
        """
        if renames.columns:
            for owner, table in self.all():
                self._named(table, renames.of(owner))

    def _named(self, table: Table, names: Mapping[str, str]) -> Table:
        return self._noted(table, table.under_new_names(names))

    def _open(self, table: str, schema: TableSchema, major: int, renames: Mapping[str, str]) -> Table:
        names = self.names()
        opened = self._among(names, table)
        for generation in reversed(opened):
            if major in _majors(generation):
                # Where a catalog was lost, one may have been made by a version that does not know of them.
                named = self._named(generation, renames)
                if named.can_hold(schema):
                    return self._noted(named, named.widened(schema))
        if not any(major in _majors(g) for g in opened) and opened:
            newest = self._named(opened[-1], renames)
            if newest.can_hold(schema) and newest.difference(schema).severity is not Severity.BREAKING:
                majors = json.dumps(sorted({*_majors(newest), major}))
                return self._noted(newest, newest.widened(schema, {_MAJORS: majors}))
        properties = {_TABLE: table, _MAJORS: json.dumps([major]), _FORMAT: str(FORMAT)}
        taken = {*map(folded, names), *_TAKEN}
        name = next(free for free in _candidates(table, len(opened) + 1) if folded(free) not in taken)
        self._names = None
        made = self.catalog.create(self.experiment, name, schema, PARTITION, properties)
        if made is None:
            raise CatalogError(f"the table {self.experiment}.{name} was made by another process meanwhile")
        return self._noted(None, made)

    def _noted(self, before: Table | None, after: Table) -> Table:
        if before is None or before.iceberg.metadata_location != after.iceberg.metadata_location:
            name = after.iceberg.name()[-1]
            self._changed[name] = (self._changed[name][0] if name in self._changed else before, after)
        return after

    def undo(self, *, alone: bool) -> None:
        """Takes back what was changed, where nobody has committed since: an allocation has failed.

        A new table is dropped only where nobody else can have seen it (`alone`).
        """
        for before, after in self._changed.values():
            if before is not None:
                after.narrowed(before, {_MAJORS: json.dumps(_majors(before))})
            elif alone:
                self.catalog.drop(self.experiment, after.iceberg.name()[-1])
        self._changed.clear()


def _candidates(table: str, number: int) -> Iterator[str]:
    """Names for the next generation of a table, the plain one first."""
    if number == 1:
        yield table
    yield from (f"{table}_g{n}" for n in itertools.count(max(number, 2)))


def _number(name: str, table: str) -> int:
    match = _NUMBERED.fullmatch(name)
    return int(match[2]) if match is not None and match[1] == table else 1


def _majors(table: Table) -> list[int]:
    return json.loads(table.iceberg.properties.get(_MAJORS, "[]"))


def old_records(objects: Objects, experiment: str, table: str) -> list[str]:
    """The files, one a version, in which earlier versions of Scythe recorded the columns of a dataframe."""
    try:
        return objects.files(f"{CATALOG}/{experiment}/_versions/{table}")
    except StorageError:  # a version's own record has this very name
        return []
