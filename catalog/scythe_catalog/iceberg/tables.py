"""One table: evolved, committed to exactly once, kept short of snapshots.

A commit either adds data files under a key that is never committed twice, or replaces one partition;
both are one snapshot, and both may race with other processes. Reading is `scan`'s.
"""

from __future__ import annotations

import contextlib
import copy
import datetime as dt
import functools
import json
import random
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from scythe_catalog.errors import CatalogError, CommitConflict
from scythe_catalog.iceberg.datafile import DataFile, field_ids
from scythe_catalog.iceberg.partition import EPOCH, Partition, data_file, files_of, swap
from scythe_catalog.iceberg.upkeep import OLD_SECONDS, unneeded
from scythe_catalog.schema.compare import clashes, united
from scythe_catalog.schema.table_schema import SCHEMA_KEY, TableSchema
from scythe_catalog.storage.objects import Found, Objects

if TYPE_CHECKING:
    import pyiceberg.table
    from pyiceberg.table import Transaction

LEDGER = "scythe.committed."
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
    def ids(self) -> dict[str, int]:
        """Column path -> field id, for writers of data files."""
        return field_ids(self.iceberg.schema())

    def can_hold(self, schema: TableSchema) -> bool:
        """Whether the table can be widened so that it holds rows of `schema`."""
        return not clashes(self.schema, schema)

    def widened(self, schema: TableSchema, properties: Mapping[str, str] | None = None) -> Table:
        """The table with what `schema` adds to it; unchanged where it adds nothing."""

        from scythe_catalog.iceberg.types import iceberg_schema

        if united(self.schema, schema) == self.schema and not _untold(self.iceberg, properties):
            return self

        def change(table: pyiceberg.table.Table, tx: Transaction) -> bool:
            current = Table(table).schema
            clash = clashes(current, schema)
            if clash:
                raise CatalogError(f"{'.'.join(table.name())} cannot hold the new columns:\n  " + "\n  ".join(clash))
            wide = united(current, schema)
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

    def narrowed(self, schema: TableSchema, properties: Mapping[str, str]) -> Table:
        """The table with the columns of `schema` alone, unless somebody has committed since it was loaded."""
        known = self.iceberg.metadata_location

        def change(table: pyiceberg.table.Table, tx: Transaction) -> bool:
            if table.metadata_location != known:
                return False
            with tx.update_schema() as update:
                for column in Table(table).schema:
                    if column.name not in schema:
                        update.delete_column(column.name)
            tx.set_properties({SCHEMA_KEY: json.dumps(schema.to_json()), **properties})
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
        """URIs of the data files of a partition."""
        return sorted(files_of(self.iceberg, partition))

    def held(self) -> dict[tuple[Any, ...], frozenset[str]]:
        """What the table holds: the values of each partition, and the columns that hold anything there.

        A file tells which plain columns it has; of one that does not tell (the rows so far of a run that goes on), and
        of nested columns, all count as held.
        """
        from pyiceberg.types import PrimitiveType

        schema = self.iceberg.schema()
        plain = {f.field_id: f.name for f in schema.fields if isinstance(f.field_type, PrimitiveType)}
        every = frozenset(f.name for f in schema.fields)
        nested = every - set(plain.values())
        found: dict[tuple[Any, ...], frozenset[str]] = {}
        for file in files_of(self.iceberg, {}).values():
            columns = nested | {plain[i] for i in file.value_counts if i in plain} if file.value_counts else every
            values = tuple(self._partition_values(file.partition))
            found[values] = found.get(values, frozenset()) | columns
        return found

    def _partition_values(self, record: Any) -> Iterable[Any]:
        from pyiceberg.types import TimestamptzType

        schema = self.iceberg.schema()
        for i, part in enumerate(self.iceberg.spec().fields):
            instant = isinstance(schema.find_field(part.source_id).field_type, TimestamptzType)
            yield EPOCH + dt.timedelta(microseconds=record[i]) if instant else record[i]

    def _commit(self, change: Callable[[pyiceberg.table.Table, Transaction], bool]) -> Table:
        """Loads, changes and commits, again and again until no other committer was faster."""
        from obstore.exceptions import BaseError
        from pyiceberg.exceptions import CommitFailedException, ValidationException

        table = copy.copy(self.iceberg)  # PyIceberg's changes when it is loaded anew, or committed to
        # In a folder the load is cheap, and is done when the queue is over.
        remote = Objects.at(table.location()).folder is None
        fresh = remote and time.monotonic() - self.loaded < _FRESH_SECONDS
        deadline = time.monotonic() + _PATIENCE_SECONDS
        pause = 0.01
        while True:
            with _queue(table.location()):
                began = time.time()
                table = table if fresh else table.refresh()
                fresh = False
                tx, base = _transaction()(table), table.metadata_location
                try:
                    if not change(table, tx):
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
                except (CommitFailedException, ValidationException, ValueError) as error:
                    # What a change refers to (a snapshot, say) may be gone since the load: no error of its own then.
                    if isinstance(error, ValueError) and table.refresh().metadata_location == base:
                        raise
                    if time.monotonic() > deadline:
                        raise CommitConflict(f"no commit to {'.'.join(table.name())} went through: {error}") from error
            time.sleep(random.uniform(0, pause))
            pause = min(pause * 1.6, 1.0)


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
    from scythe_catalog.iceberg.folder_catalog import FolderCatalog

    if isinstance(table.catalog, FolderCatalog):
        table.catalog.mend_hint(table)


def _expire(table: pyiceberg.table.Table, tx: Transaction) -> bool:
    """Drops all but the newest snapshots from the metadata, now and then, so that commits keep their price; whether it did."""
    from pyiceberg.table.update.snapshot import ExpireSnapshots

    snapshots = sorted(table.metadata.snapshots, key=lambda s: s.sequence_number or 0)
    if len(snapshots) > _MANY_SNAPSHOTS:
        ExpireSnapshots(tx).by_ids([s.snapshot_id for s in snapshots[:-_KEPT_SNAPSHOTS]]).commit()
        return True
    return False
