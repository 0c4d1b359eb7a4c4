"""The catalog that is a folder: PyIceberg's catalog interface on create-if-absent, and nothing else.

Layout of a table (Iceberg's own for file-system tables, so that DuckDB and Spark open it by its folder):

    <warehouse>/<namespace>/<table>/metadata/v<N>.metadata.json   each created if absent: the commit
    <warehouse>/<namespace>/<table>/metadata/version-hint.text    a hint only; readers probe onwards

A commit is the creation of version N+1: of two racers exactly one succeeds, on a disk as in a bucket.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
from typing import Any, cast

from obstore.exceptions import BaseError
from pyiceberg.catalog import MetastoreCatalog, PropertiesUpdateSummary
from pyiceberg.catalog.noop import NoopCatalog
from pyiceberg.exceptions import (
    CommitFailedException,
    NamespaceAlreadyExistsError,
    NamespaceNotEmptyError,
    NoSuchNamespaceError,
    NoSuchTableError,
    TableAlreadyExistsError,
    ValidationError,
)
from pyiceberg.io import load_file_io
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.serializers import FromByteStream
from pyiceberg.table import CommitTableResponse, Table
from pyiceberg.table.metadata import TableMetadata, new_table_metadata
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER, SortOrder
from pyiceberg.table.update import AssertCreate, TableRequirement, TableUpdate
from pyiceberg.typedef import EMPTY_DICT, Identifier, Properties

from scythe_catalog.errors import damaged
from scythe_catalog.iceberg.fileio import IMPLEMENTATION
from scythe_catalog.storage.objects import Objects

_VERSION = re.compile(r"v(\d+)\.metadata\.json")
_HINT = "version-hint.text"
_NAMESPACE = "namespace.json"


class FolderCatalog(MetastoreCatalog, NoopCatalog):
    """An Iceberg catalog in `properties["warehouse"]`, a `file://` or `s3://` URI."""

    def __init__(self, name: str, **properties: str) -> None:
        super().__init__(name, **{"py-io-impl": IMPLEMENTATION, **properties})
        self.objects = Objects.at(properties["warehouse"])
        #: Key of a hint -> the version that it named when it was read or written last, and its tag.
        self._seen: dict[str, tuple[int, str]] = {}

    # --- tables -----------------------------------------------------------------------------------

    def create_table(
        self,
        identifier: str | Identifier,
        schema: Any,
        location: str | None = None,
        partition_spec: PartitionSpec = UNPARTITIONED_PARTITION_SPEC,
        sort_order: SortOrder = UNSORTED_SORT_ORDER,
        properties: Properties = EMPTY_DICT,
    ) -> Table:
        namespace, name = self.identifier_to_database_and_table(identifier)
        if location and location.rstrip("/") != self._location(namespace, name):
            raise ValueError(
                f"a table of a folder catalog lies at {self._location(namespace, name)}, not at {location}"
            )
        converted: Schema = self._convert_schema_if_needed(schema)
        metadata = new_table_metadata(
            location=self._location(namespace, name),
            schema=converted,
            partition_spec=partition_spec,
            sort_order=sort_order,
            properties=properties,
        )
        if not self._publish(namespace, name, 1, metadata):
            raise TableAlreadyExistsError(f"table {namespace}.{name} exists already in {self.objects.root}")
        return self.load_table(identifier)

    def load_table(self, identifier: str | Identifier) -> Table:
        namespace, name = self.identifier_to_database_and_table(identifier, NoSuchTableError)
        return self._opened(namespace, name, *self._latest(namespace, name))

    def hinted_table(self, identifier: str | Identifier) -> Table:
        """A table as the hint has it, for a commit: where there is a newer version, its commit fails.

        Raises:
            NoSuchTableError: there is no table of this name.
        """
        namespace, name = self.identifier_to_database_and_table(identifier, NoSuchTableError)
        return self._opened(namespace, name, *(self._as_hinted(namespace, name) or self._latest(namespace, name)))

    def _opened(self, namespace: str, name: str, version: int, raw: bytes) -> Table:
        try:
            metadata = FromByteStream.table_metadata(cast(Any, io.BytesIO(raw)))
        except (ValueError, ValidationError) as error:
            raise damaged(self._location(namespace, name), error) from error
        location = self.objects.uri(self._key(namespace, name, f"v{version}.metadata.json"))
        file_io = load_file_io({**self.properties, **metadata.properties}, location)
        return Table((namespace, name), metadata, location, file_io, self)

    def table_here(self, identifier: str | Identifier) -> Table:
        """A table as it is; one that was moved without its root as it is to be: where it lies, without a history.

        What is committed to the latter is the first that the table holds in its new place. Its columns keep their ids.

        Raises:
            NoSuchTableError: there is no table of this name.
        """
        return self._here(self.load_table(identifier))

    def _here(self, table: Table) -> Table:
        location = self._location(*self.identifier_to_database_and_table(table.name()))
        if table.metadata.location == location:
            return table
        forgotten: dict[str, Any] = {"snapshots": [], "snapshot_log": [], "metadata_log": [], "refs": {}}
        forgotten |= {"current_snapshot_id": None, "statistics": [], "partition_statistics": []}
        metadata = table.metadata.model_copy(update={"location": location, **forgotten})
        return Table(table.name(), metadata, table.metadata_location, table.io, self)

    def commit_table(
        self, table: Table, requirements: tuple[TableRequirement, ...], updates: tuple[TableUpdate, ...]
    ) -> CommitTableResponse:
        namespace, name = self.identifier_to_database_and_table(table.name(), NoSuchTableError)
        # It is not loaded anew: of whoever was faster the next version is there.
        is_new = any(isinstance(requirement, AssertCreate) for requirement in requirements)
        current = None if is_new else self._here(table)
        staged = self._update_and_stage_table(current, table.name(), requirements, updates)
        if current is not None and staged.metadata == current.metadata:
            return _response(current.metadata, current.metadata_location)
        version = 1 + (self._version_of(current.metadata_location) if current else 0)
        if not self._publish(namespace, name, version, staged.metadata):
            raise CommitFailedException(f"version {version} of {namespace}.{name} was committed by another writer")
        location = self.objects.uri(self._key(namespace, name, f"v{version}.metadata.json"))
        return _response(staged.metadata, location)

    def drop_table(self, identifier: str | Identifier) -> None:
        namespace, name = self.identifier_to_database_and_table(identifier, NoSuchTableError)
        self._latest(namespace, name)
        self.objects.delete_folder(f"{namespace}/{name}/metadata")

    def list_tables(self, namespace: str | Identifier) -> list[Identifier]:
        folder = self.identifier_to_database(namespace, NoSuchNamespaceError)
        names = self.objects.folders(folder)
        there = self.objects.each(lambda name: self._is_table(folder, name), names)
        return [(folder, name) for name, is_table in zip(names, there, strict=True) if is_table]

    def _is_table(self, namespace: str, name: str) -> bool:
        # Asked by name, not listed: the folder of a table that was committed to often holds thousands of files.
        return any(self.objects.exists(self._key(namespace, name, f)) for f in (_HINT, "v1.metadata.json"))

    def register_table(self, identifier: str | Identifier, metadata_location: str, overwrite: bool = False) -> Table:
        raise NotImplementedError("a folder catalog holds only the tables in its own folder")

    def rename_table(self, from_identifier: str | Identifier, to_identifier: str | Identifier) -> Table:
        raise NotImplementedError("a table of a folder catalog is named by its folder and cannot be renamed")

    # --- namespaces -------------------------------------------------------------------------------

    def create_namespace(self, namespace: str | Identifier, properties: Properties = EMPTY_DICT) -> None:
        folder = self.identifier_to_database(namespace)
        if not self.objects.create(f"{folder}/{_NAMESPACE}", json.dumps(dict(properties)).encode()):
            raise NamespaceAlreadyExistsError(f"namespace {folder} exists already")

    def drop_namespace(self, namespace: str | Identifier) -> None:
        folder = self.identifier_to_database(namespace, NoSuchNamespaceError)
        if self.list_tables(namespace):
            raise NamespaceNotEmptyError(f"namespace {folder} still holds tables")
        self.load_namespace_properties(namespace)
        self.objects.delete([f"{folder}/{_NAMESPACE}"])

    def list_namespaces(self, namespace: str | Identifier = ()) -> list[Identifier]:
        return [] if namespace else [(name,) for name in self.objects.folders()]

    def load_namespace_properties(self, namespace: str | Identifier) -> Properties:
        folder = self.identifier_to_database(namespace, NoSuchNamespaceError)
        try:
            return json.loads(self.objects.read(f"{folder}/{_NAMESPACE}"))
        except FileNotFoundError as error:
            raise NoSuchNamespaceError(f"there is no namespace {folder} in {self.objects.root}") from error

    def update_namespace_properties(
        self, namespace: str | Identifier, removals: set[str] | None = None, updates: Properties = EMPTY_DICT
    ) -> PropertiesUpdateSummary:
        folder = self.identifier_to_database(namespace, NoSuchNamespaceError)
        current = self.load_namespace_properties(namespace)
        summary, properties = self._get_updated_props_and_update_summary(current, removals, updates)
        self.objects.write(f"{folder}/{_NAMESPACE}", json.dumps(properties).encode())
        return summary

    # --- views: there are none ----------------------------------------------------------------------

    def list_views(self, namespace: str | Identifier) -> list[Identifier]:
        return []

    def view_exists(self, identifier: str | Identifier) -> bool:
        return False

    # --- versions -----------------------------------------------------------------------------------

    def _location(self, namespace: str, name: str) -> str:
        return self.objects.uri(f"{namespace}/{name}")

    @staticmethod
    def _key(namespace: str, name: str, file: str) -> str:
        return f"{namespace}/{name}/metadata/{file}"

    @staticmethod
    def _version_of(location: str) -> int:
        match = _VERSION.search(location)
        if match is None:
            raise ValueError(f"{location} is not the metadata file of a folder catalog's table")
        return int(match[1])

    def _latest(self, namespace: str, name: str) -> tuple[int, bytes]:
        """The newest version and its bytes: from the hint onwards until there is no next. Writes nothing."""
        version, raw = self._as_hinted(namespace, name) or (0, None)
        if raw is None:
            version = self._listed(namespace, name)
            raw = self._read_version(namespace, name, version) if version else None
        if raw is None:
            raise NoSuchTableError(f"there is no table {namespace}.{name} in {self.objects.root}")
        while (newer := self._read_version(namespace, name, version + 1)) is not None:
            version, raw = version + 1, newer
        return version, raw

    def _as_hinted(self, namespace: str, name: str) -> tuple[int, bytes] | None:
        version = self._hinted(namespace, name)
        raw = self._read_version(namespace, name, version) if version else None
        return None if raw is None else (version, raw)

    def mend_hint(self, table: Table) -> None:
        """Raises the hint where a committer died before it could: readers that trust it would see an old table."""
        namespace, name = self.identifier_to_database_and_table(table.name(), NoSuchTableError)
        with contextlib.suppress(OSError, BaseError):
            self._raise_hint(namespace, name, self._version_of(table.metadata_location))

    def _read_version(self, namespace: str, name: str, version: int) -> bytes | None:
        try:
            return self.objects.read(self._key(namespace, name, f"v{version}.metadata.json"))
        except FileNotFoundError:
            return None

    def _hinted(self, namespace: str, name: str) -> int:
        key = self._key(namespace, name, _HINT)
        self._seen.pop(key, None)
        try:
            text, tag = self.objects.read_tagged(key)
            version = int(text)
        except (FileNotFoundError, ValueError):
            return 0
        if tag is not None:
            self._seen[key] = version, tag
        return version

    def _listed(self, namespace: str, name: str) -> int:
        files = self.objects.files(f"{namespace}/{name}/metadata")
        return max((int(m[1]) for f in files if (m := _VERSION.fullmatch(f))), default=0)

    def _publish(self, namespace: str, name: str, version: int, metadata: TableMetadata) -> bool:
        raw = metadata.model_dump_json(exclude_none=True).encode()
        key = self._key(namespace, name, f"v{version}.metadata.json")
        if not self.objects.create(key, raw):
            return False
        if self.objects.heeds_tags(key, raw) and self._hint_moved(namespace, name, version):
            return True
        hinted = self._hinted(namespace, name)
        if hinted > version and self._came_late(namespace, name, version):
            return False
        if not hinted and version > 1 and self._was_dropped(namespace, name, version):
            return False
        self._raise_hint(namespace, name, version, hinted)
        return True

    def _hint_moved(self, namespace: str, name: str, version: int) -> bool:
        """Raises the hint where it is still an older one that was seen before the commit: all is as it was then.

        Who raises it so writes over no newer hint, and need not look for one afterwards.
        """
        key = self._key(namespace, name, _HINT)
        hinted, tag = self._seen.pop(key, (version, ""))
        moved = self.objects.replace(key, str(version).encode(), tag) if hinted < version else None
        if moved is not None:
            self._seen[key] = version, moved
        return moved is not None

    def _came_late(self, namespace: str, name: str, version: int) -> bool:
        """Whether a version that was just created, behind the one that is hinted at, had been there before: it is taken back.

        Old versions are removed after a day; a committer that has slept for as long finds the name of its own free.
        """
        if self.objects.exists(self._key(namespace, name, f"v{version + 1}.metadata.json")):
            return False
        self.objects.delete([self._key(namespace, name, f"v{version}.metadata.json")])
        return True

    def _was_dropped(self, namespace: str, name: str, version: int) -> bool:
        """Whether nothing was left of the table that a version was just made of: it is taken back."""
        if self.objects.exists(self._key(namespace, name, f"v{version - 1}.metadata.json")):
            return False
        self.objects.delete([self._key(namespace, name, f"v{version}.metadata.json")])
        return True

    def _raise_hint(self, namespace: str, name: str, version: int, hinted: int | None = None) -> None:
        """Whoever may have written an older hint after a newer one looks whether there is a next version, and writes again."""
        hinted = self._hinted(namespace, name) if hinted is None else hinted
        while hinted < version:
            self.objects.write(self._key(namespace, name, _HINT), str(version).encode())
            hinted = version
            while self.objects.exists(self._key(namespace, name, f"v{version + 1}.metadata.json")):
                version += 1


def _response(metadata: TableMetadata, location: str) -> CommitTableResponse:
    return CommitTableResponse.model_validate({"metadata": metadata, "metadata-location": location})
