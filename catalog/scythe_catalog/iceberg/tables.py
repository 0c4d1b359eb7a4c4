"""One table: evolved, committed to exactly once, kept short of snapshots.

A commit either adds data files under a key that is never committed twice, or replaces one partition;
both are one snapshot, and both may race with other processes. Reading is `scan`'s.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import random
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from scythe_catalog.errors import CatalogError, CommitConflict, SchemaError
from scythe_catalog.iceberg.datafile import DataFile, field_ids
from scythe_catalog.iceberg.partition import Held, Partition, data_file, files_of, held, swap
from scythe_catalog.iceberg.upkeep import OLD_SECONDS, unneeded
from scythe_catalog.schema.compare import Difference, clashes, compare, mixed_meanings, mixed_units, united
from scythe_catalog.schema.table_schema import SCHEMA_KEY, TableSchema
from scythe_catalog.storage.objects import Found, Objects

if TYPE_CHECKING:
    import pyiceberg.table
    from pyiceberg.table import Transaction

    from scythe_catalog.iceberg.folder_catalog import FolderCatalog

LEDGER = "scythe.committed."
#: Property: the names that columns had (files keep them), and those that they have.
_RENAMED = "scythe.renamed"
_KEPT_SNAPSHOTS, _MANY_SNAPSHOTS = 5, 20
_PATIENCE_SECONDS = 300.0
_QUEUE_SECONDS = 5.0
#: A table over a network that was loaded so shortly ago is not loaded anew for a first try: whoever was faster makes that fail.
_FRESH_SECONDS = 1.0


@dataclass(frozen=True)
class Table:
    """One Iceberg table as it was when it was loaded; every commit starts from a load that is not a second old."""

    iceberg: pyiceberg.table.Table
    #: When that was (time.monotonic).
    loaded: float = field(default_factory=time.monotonic, compare=False)

    @property
    def schema(self) -> TableSchema:
        """The logical schema of its rows, without the partition columns."""
        stored = self.iceberg.properties.get(SCHEMA_KEY)
        if stored is None:
            raise CatalogError(f"{'.'.join(self.iceberg.name())} was not made by Scythe: it lacks {SCHEMA_KEY}")
        return TableSchema.from_json(json.loads(stored))

    @property
    def renamed(self) -> dict[str, str]:
        """The names that columns had before -> those that they have now."""
        return json.loads(self.iceberg.properties.get(_RENAMED, "{}"))

    @property
    def ids(self) -> dict[str, int]:
        """Column path -> field id, for writers of data files; a column that was renamed has its former names, too."""
        ids = field_ids(self.iceberg.schema())
        former = {
            old + path[len(new) :]: i
            for old, new in self.renamed.items()
            for path, i in ids.items()
            if path == new or path.startswith(f"{new}.")
        }
        return {**former, **ids}

    def can_hold(self, schema: TableSchema) -> bool:
        """Whether the table can be widened so that it holds rows of `schema`, under whichever names its columns had, of its units and meanings."""
        try:
            named = schema.renamed(self.renamed)
            both = (self.schema, named)
            return not (clashes(*both) or mixed_units(both) or mixed_meanings(both))
        except SchemaError:
            return False

    def difference(self, schema: TableSchema) -> Difference:
        """What changed from the columns of the table to these."""
        return compare(self.schema, schema.renamed(self.renamed))

    def under_new_names(self, names: Mapping[str, str]) -> Table:
        """The table with columns renamed (old name -> new name); files that it has, and files to come, may have the former name.

        Raises:
            CatalogError: it has a column of a new name already.
        """
        if not _renaming(self, names):
            return self

        def change(table: pyiceberg.table.Table, tx: Transaction) -> bool:
            renaming = _renaming(Table(table), names)
            if renaming is None:
                return False
            there, told, schema = renaming
            if there:
                with tx.update_schema() as update:
                    for old, new in there.items():
                        update.rename_column(old, new)
            tx.set_properties({_RENAMED: json.dumps(told), SCHEMA_KEY: json.dumps(schema.to_json())})
            return True

        return self._commit(change)

    def widened(self, schema: TableSchema, properties: Mapping[str, str] | None = None) -> Table:
        """The table with what `schema` adds to it; unchanged where it adds nothing."""

        from scythe_catalog.iceberg.types import iceberg_schema

        if united(self.schema, schema.renamed(self.renamed)) == self.schema and not _untold(self.iceberg, properties):
            return self

        def change(table: pyiceberg.table.Table, tx: Transaction) -> bool:
            current, added = Table(table).schema, schema.renamed(Table(table).renamed)
            clash = clashes(current, added)
            if clash:
                raise CatalogError(f"{'.'.join(table.name())} cannot hold the new columns:\n  " + "\n  ".join(clash))
            wide = united(current, added)
            told = _untold(table, properties)
            if wide != current:
                with tx.update_schema() as update:
                    update.union_by_name(iceberg_schema(wide))
                    for column in wide:
                        if column.nullable and column.name in current and not current[column.name].nullable:
                            update.make_column_optional(column.name)
                told[SCHEMA_KEY] = json.dumps(wide.to_json())
            if told:
                tx.set_properties(told)
            return bool(told)

        return self._commit(change)

    def narrowed(self, before: Table, properties: Mapping[str, str]) -> Table:
        """The table with the columns, and the names, that it had before, unless somebody has committed since it was loaded."""
        known, schema = self.iceberg.metadata_location, before.schema

        def change(table: pyiceberg.table.Table, tx: Transaction) -> bool:
            if table.metadata_location != known:
                return False
            now = Table(table)
            back = {new: old for old, new in now.renamed.items() if old in schema and new not in schema}
            with tx.update_schema() as update:
                for column in now.schema:
                    if column.name in back:
                        update.rename_column(column.name, back[column.name])
                    elif column.name not in schema:
                        update.delete_column(column.name)
            named = {_RENAMED: json.dumps(before.renamed)} if now.renamed != before.renamed else {}
            tx.set_properties({SCHEMA_KEY: json.dumps(schema.to_json()), **named, **properties})
            return True

        return self._commit(change)

    def append(self, files: Iterable[DataFile], partition: Partition, *, key: str) -> Table:
        """Adds data files in one snapshot, exactly once for each key, whoever races and however often it is called."""
        return self.append_each({key: list(files)}, partition)

    def append_each(
        self,
        files: Mapping[str, Sequence[DataFile]],
        partition: Partition,
        *,
        wanted: Callable[[], bool] = lambda: True,
    ) -> Table:
        """`append` for the files of many keys, in one snapshot together.

        Nothing is added where they are not `wanted` any more, which is asked of the table as it is when it is committed to.
        """

        def change(table: pyiceberg.table.Table, tx: Transaction) -> bool:
            new = {key: added for key, added in files.items() if added and LEDGER + key not in table.properties}
            if not new or not wanted():
                return False
            swap(tx, (), [data_file(table, file, partition) for added in new.values() for file in added])
            tx.set_properties({LEDGER + key: "1" for key in new})
            return True

        return self._commit(change)

    def replace(self, files: Iterable[DataFile], partition: Partition, *, forget: str = "") -> Table:
        """Makes these files all that the partition holds, in one snapshot; repeating it changes nothing.

        Keys of `append` that start with `forget` are dropped from the ledger.
        """
        wanted = {file.uri: file for file in files}

        def change(table: pyiceberg.table.Table, tx: Transaction) -> bool:
            present = files_of(table, partition)
            done = [k for k in table.properties if forget and k.startswith(LEDGER + forget)]
            gone = [file for uri, file in present.items() if uri not in wanted]
            new = [data_file(table, file, partition) for uri, file in wanted.items() if uri not in present]
            swap(tx, gone, new)
            if done:
                tx.remove_properties(*done)
            return bool(gone or new or done)

        return self._commit(change)

    def named_files(self) -> set[str]:
        """URIs of the data files that any snapshot of the table names."""
        found: set[str] = set()
        seen: set[str] = set()
        for snapshot in self.iceberg.metadata.snapshots:
            for manifest in snapshot.manifests(self.iceberg.io):
                if manifest.manifest_path not in seen:
                    seen.add(manifest.manifest_path)
                    entries = manifest.fetch_manifest_entry(self.iceberg.io, discard_deleted=True)
                    found |= {entry.data_file.file_path for entry in entries}
        return found

    def tidy(self, now: float, *, dry_run: bool = False) -> list[Found]:
        """Removes the metadata files that neither the table nor a snapshot of it names, and that are old by the store's time; gives them."""
        gone = unneeded(self.iceberg, now)
        if not dry_run:
            Objects.at(self.iceberg.location()).delete([found.key for found in gone])
        return gone

    def files(self, partition: Partition) -> list[str]:
        """URIs of the data files of a partition.

        Raises:
            CatalogError: a file of the catalog is gone.
        """
        with self._read():
            return sorted(files_of(self.iceberg, partition))

    @property
    def plain_names(self) -> dict[int, str]:
        """Field id -> name of the columns that hold no other values within them."""
        from pyiceberg.types import PrimitiveType

        return {f.field_id: f.name for f in self.iceberg.schema().fields if isinstance(f.field_type, PrimitiveType)}

    def held(self) -> dict[tuple[Any, ...], Held]:
        """What the table holds, by the values of each partition.

        Raises:
            CatalogError: a file of the catalog is gone.
        """
        with self._read():
            return held(self.iceberg, self.plain_names)

    @contextlib.contextmanager
    def _read(self) -> Generator[None]:
        """While the catalog's own files are read, which name those that hold rows."""
        try:
            yield
        except FileNotFoundError as error:
            raise CatalogError(
                f"a file of the catalog is gone, of the table {'.'.join(self.iceberg.name())} ({error}): "
                "make the catalog anew with `scythe rebuild`"
            ) from error

    def _commit(self, change: Callable[[pyiceberg.table.Table, Transaction], bool]) -> Table:
        """Loads, changes and commits, again and again until no other committer was faster."""
        from obstore.exceptions import BaseError
        from pyiceberg.exceptions import CommitFailedException, ValidationException

        table = copy.copy(self.iceberg)  # PyIceberg's changes when it is loaded anew, or committed to
        # In a folder the load is cheap, and is done when the queue is over.
        remote = Objects.at(table.location()).folder is None
        fresh = remote and time.monotonic() - self.loaded < _FRESH_SECONDS
        # The newest version is not looked for before a first try: where there is one, that fails.
        quick = _folder_catalog(table) if remote and not fresh else None
        deadline = time.monotonic() + _PATIENCE_SECONDS
        pause = 0.01
        while True:
            with _queue(table.location()):
                began = time.time()
                table = table if fresh else quick.hinted_table(table.name()) if quick else table.refresh()
                sure, fresh, quick = quick is None, False, None
                tx, base = _transaction()(table), table.metadata_location
                try:
                    if not change(table, tx):
                        if not sure:
                            continue
                        _mend_hint(table)
                        return Table(table)
                    expired = _expire(table, tx)
                    if (
                        time.time() - began > OLD_SECONDS / 2
                    ):  # its machine has slept: what it wrote may be removed by now
                        raise CommitFailedException("it took too long")
                    committed = tx.commit_transaction()
                    if expired:
                        with contextlib.suppress(OSError, BaseError, CatalogError):  # it can be done the next time
                            Table(committed).tidy(time.time())
                    return Table(committed)
                except (CatalogError, SchemaError):
                    if sure:
                        raise
                except (CommitFailedException, ValidationException, ValueError) as error:
                    # What a change refers to (a snapshot, say) may be gone since the load: no error of its own then.
                    if isinstance(error, ValueError) and table.refresh().metadata_location == base:
                        raise
                    if time.monotonic() > deadline:
                        raise CommitConflict(f"no commit to {'.'.join(table.name())} went through: {error}") from error
            time.sleep(random.uniform(0, pause))
            pause = min(pause * 1.6, 1.0)


def _renaming(table: Table, names: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str], TableSchema] | None:
    """Which columns of a table get new names, the former names that it has then, and its schema; None where nothing is to be done."""
    schema, former = table.schema, table.renamed
    there = {old: new for old, new in names.items() if old in schema}
    try:
        after = schema.renamed(there)
    except SchemaError as error:
        raise CatalogError(f"{'.'.join(table.iceberg.name())}: {error}") from error
    told = {old: there.get(new, new) for old, new in former.items()} | there
    # Of a column that came under its new name: runs of versions before may be allocated still.
    told |= {old: new for old, new in names.items() if new in after and old not in after and old not in told}
    told = {old: new for old, new in told.items() if old not in after}
    return (there, told, after) if there or told != former else None


def _untold(table: pyiceberg.table.Table, properties: Mapping[str, str] | None) -> dict[str, str]:
    """Those properties that a table does not have."""
    return {k: v for k, v in (properties or {}).items() if table.properties.get(k) != v}


@functools.cache
def _transaction() -> type[Transaction]:
    """A transaction of PyIceberg's that makes its metadata once a change: it would at every look, twenty times a commit."""
    from pyiceberg.table import Transaction
    from pyiceberg.table.metadata import TableMetadata

    class Transacted(Transaction):
        _made: tuple[object, TableMetadata] | None = None

        @property
        def table_metadata(self) -> TableMetadata:
            if self._made is None or self._made[0] is not self._updates:
                self._made = self._updates, super().table_metadata
            return self._made[1]

    return Transacted


@contextlib.contextmanager
def _queue(location: str) -> Generator[None]:
    """Lets the committers of one machine go one after the other, so that none builds a commit in vain.

    It only saves work: where it does not hold (other machines, a disk without locks) the catalog's
    own atomic step decides, as ever.
    """
    folder = Objects.at(location).folder
    if folder is None:
        yield
        return
    from filelock import FileLock, Timeout

    lock = FileLock(folder / "metadata" / ".commit.lock")
    try:
        lock.acquire(timeout=_QUEUE_SECONDS)
    except (Timeout, OSError, NotImplementedError):
        yield
        return
    try:
        yield
    finally:
        lock.release()


def called(table: pyiceberg.table.Table, namespace: str, name: str) -> pyiceberg.table.Table:
    """The table under the name that it was asked for by: SQL catalogs split theirs at dots, and strip what is between."""
    table._identifier = (namespace, name)  # pyright: ignore[reportPrivateUsage]
    return table


def _mend_hint(table: pyiceberg.table.Table) -> None:
    """Commits raise a folder catalog's hint, and so do those that find nothing to do; reading never writes."""
    catalog = _folder_catalog(table)
    if catalog is not None:
        catalog.mend_hint(table)


def _folder_catalog(table: pyiceberg.table.Table) -> FolderCatalog | None:
    from scythe_catalog.iceberg.folder_catalog import FolderCatalog

    return table.catalog if isinstance(table.catalog, FolderCatalog) else None


def _expire(table: pyiceberg.table.Table, tx: Transaction) -> bool:
    """Drops all but the newest snapshots from the metadata, now and then, so that commits keep their price; whether it did."""
    from pyiceberg.table.update.snapshot import ExpireSnapshots

    snapshots = sorted(table.metadata.snapshots, key=lambda s: s.sequence_number or 0)
    if len(snapshots) > _MANY_SNAPSHOTS:
        ExpireSnapshots(tx).by_ids([s.snapshot_id for s in snapshots[:-_KEPT_SNAPSHOTS]]).commit()
        return True
    return False
