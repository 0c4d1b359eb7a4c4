"""Makes the catalog of a root say what its runs' folders say: after a copy, a move or a download, or where it was lost.

Nothing is dropped: each table gets what it should hold in one commit, and until then readers go by the runs' own files. A
damaged run is named and passed over; what the catalog holds of it stays. Can be repeated, and interrupted, at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from scythe.errors import RunDamaged, ScytheError, TableNotFound
from scythe.gather.dataframe_rule import record_dataframe
from scythe.gather.final import whole_parts
from scythe.gather.parts import Part, record_shown, stored_parts
from scythe.gather.publish import ON_ITS_WAY, Gathered, name_anew, new_gather, publish, record
from scythe.gather.status import status_of
from scythe.names import CATALOG, RESERVED_TABLES
from scythe.record import layout
from scythe.record.find import experiment_names, run_keys
from scythe.record.format import dump
from scythe.record.generations import Generations, catalog_of
from scythe.record.layout import RunKey
from scythe.record.manifest import read_manifest, schemas_of_version
from scythe.record.plan import RunPlan, TablePlan
from scythe.record.reserve import restore
from scythe.record.results import RunResult, TableResult, check_not_lost, read_result
from scythe.runs.moved import came_later, follow, rewrite
from scythe.settings import engine_settings
from scythe_catalog.iceberg.catalog import Catalog
from scythe_catalog.iceberg.datafile import (
    DataFile,
    FieldIds,
    read_description,
    stored_field_ids,
    stored_schema,
    with_field_ids,
)
from scythe_catalog.iceberg.partition import partition_values
from scythe_catalog.iceberg.remake import Wanted, remake
from scythe_catalog.iceberg.tables import Table
from scythe_catalog.schema import TableSchema
from scythe_catalog.storage.objects import Objects


def rebuild(objects: Objects, said: Callable[[str], None] = lambda _: None) -> int:
    """Makes the catalog of every experiment of the root say what its runs say; how many they are.

    Args:
        objects: The root.
        said: Told a line about each run.

    Raises:
        RunDamaged: some runs cannot be read: they are named; all others are in the catalog.
    """
    catalog = catalog_of(objects, engine_settings().catalog)
    count, damaged = 0, dict[str, str]()
    for experiment in sorted({*experiment_names(objects), *_known(objects, catalog)}):
        root = _Experiment(objects, catalog, experiment)
        root.rebuild(said)
        count += len(root.runs)
        damaged |= root.damaged
    if damaged:
        named = "\n".join(f"  {run}: {what}" for run, what in damaged.items())
        raise RunDamaged(
            f"{len(damaged)} of {count + len(damaged)} runs cannot be read, and the catalog shows of them what it did:\n{named}\n"
            "Restore their files and rebuild again, or delete them; the others are in the catalog"
        )
    return count


def take_in(objects: Objects, catalog: Catalog, keys: Iterable[RunKey]) -> None:
    """Makes runs of a root whose files have just come there runs of it: names, references, catalog and `final/` follow.

    All other runs stay as they are. Can be repeated, and interrupted, at any time.

    Raises:
        RunDamaged: one cannot be read.
    """
    given = list(keys)
    for experiment in sorted({key.experiment for key in given}):
        root = _Experiment(objects, catalog, experiment)
        root.take_in([key for key in given if key.experiment == experiment])


def _known(objects: Objects, catalog: Catalog) -> list[str]:
    """The experiments that Scythe has a record of, those without a run included."""
    recorded = {name for name in objects.folders(CATALOG) if not name.startswith((".", "_"))}
    return [name for name in catalog.namespaces() if name in recorded]


@dataclass
class _Run:
    """One run, as its folder tells of it."""

    key: RunKey
    plan: RunPlan
    result: RunResult | None
    parts: list[Part] = field(default_factory=list[Part])

    @classmethod
    def of(cls, objects: Objects, key: RunKey) -> _Run:
        plan, result = RunPlan.load(objects, key), read_result(objects, key)
        if result is None:
            check_not_lost(objects, key)
        return cls(key, plan, result, [] if result is not None else stored_parts(plan))

    @property
    def files(self) -> list[str]:
        """Its Parquet files with rows."""
        if self.result is not None:
            return [table.key for table in self.result.tables.values()]
        return [file.key for part in self.parts for file in part.files]


class _Experiment:
    """The runs of one experiment, on their way into the catalog."""

    def __init__(self, objects: Objects, catalog: Catalog, name: str) -> None:
        self.objects, self.catalog, self.name = objects, catalog, name
        self.runs: dict[RunKey, _Run] = {}
        #: Run -> what is wrong with it.
        self.damaged: dict[str, str] = {}

    def rebuild(self, said: Callable[[str], None]) -> None:
        for key in _keys(self.objects, self.name):
            try:
                self._take_in(key)
            except (ScytheError, FileNotFoundError, pa.ArrowException, OSError) as error:
                self.damaged[key.path] = str(error)
        for name in self.catalog.tables(self.name):
            try:
                remake(self.catalog, self.name, name, lambda t, present, name=name: self._wanted(t, name, present))
            except TableNotFound:
                continue
        for run in list(self.runs.values()):
            try:
                if self.objects.exists(run.key.manifest):  # else it was deleted meanwhile
                    self._ensure(run)
                    said(f"{run.key.path}: {status_of(self.objects, run.key)}")
            except (ScytheError, FileNotFoundError, pa.ArrowException) as error:
                if self.objects.exists(run.key.manifest):
                    self.damaged[run.key.path] = str(error)

    def take_in(self, keys: Sequence[RunKey]) -> None:
        for key in sorted(keys, key=lambda key: key.folder):
            self._take_in(key)
        if all(run.result is not None for run in self.runs.values()):
            for run in self.runs.values():
                self._ensure(run)
            return
        self.rebuild(lambda _: None)  # what the catalog shows of a run that goes on is known of all runs together
        damaged = {key: self.damaged[key.path] for key in keys if key.path in self.damaged}
        for key, what in damaged.items():
            raise RunDamaged(f"{key.path} cannot be read: {what}")

    def _take_in(self, key: RunKey) -> None:
        """Reserves a run's name again, makes its references true, and has readers go by its own files for now."""
        objects = self.objects
        restore(objects, key, read_manifest(objects, key))
        schemas = schemas_of_version(objects, key.experiment, key.version)
        if schemas is not None:
            objects.create(layout.version_record(key.experiment, key.version), dump(schemas))
        run = _Run.of(objects, key)
        for file in run.files:
            stored_schema(objects, file)  # one that is gone or damaged is told here
        if run.result is not None and came_later(objects, key, run.files):
            name_anew(objects, key)
            run = _Run.of(objects, key)
        follow(objects, key, run.files)
        if run.result is not None:
            objects.write(key.unpublished(ON_ITS_WAY), b"")
        self.runs[key] = _Run.of(objects, key)

    def _wanted(self, table: Table, name: str, present: Mapping[str, tuple[Any, ...]]) -> Wanted:
        """What a table should hold, by the runs as they are now; what it holds of damaged ones stays."""
        files: dict[str, tuple[DataFile, Mapping[str, Any]]] = {}
        keys: set[str] = set()
        unread = {_values(table, key): key.partition for key in _keys(self.objects, self.name) if key not in self.runs}
        for uri, values in present.items():
            if values in unread:
                files[uri] = (DataFile(uri, 0, 0), unread[values])
        for key in self.runs:
            try:
                run = _Run.of(self.objects, key)
            except (ScytheError, FileNotFoundError):
                continue  # deleted meanwhile
            _record_shown(self.objects, run)
            for part, file in _files_in(self.objects, run, name, table):
                files[file.uri] = (file, key.partition)
                keys |= {f"{key.path}/{part}"} if part else set()
        return Wanted(files, frozenset(keys))

    def _ensure(self, run: _Run) -> None:
        """Sees that each table of a run stands where its records say, or lets it stand where it can."""
        generations = Generations(self.catalog, self.name, self.objects)
        generations.rename(generations.renames(run.key.version))
        if run.result is None:
            self._planned_anew(run, generations)
            return
        result, before = run.result, Gathered.of(self.objects, run.result, run.key)
        files = dict(before.files)
        tables: dict[str, TableResult] = {}
        gather, targets = new_gather(run.key, result.attempt, result.tables)
        for name, found in result.tables.items():
            stored = stored_schema(self.objects, found.key)
            table = self._standing(generations, run.key, name, found.catalog_table, stored)
            target = found.key
            if not _has_ids(stored, table.ids):
                target = targets[name]
                rewrite(self.objects, found.key, target, stored, table.ids)
            elif not _tells_all(files[name], table, stored):  # an early Scythe passed renamed columns over
                target = targets[name]
                self.objects.link(found.key, target)
            if target != found.key or files[name].bytes != self.objects.size(target):
                files[name] = read_description(self.objects, target, table.iceberg.schema())
            catalog_table = table.iceberg.name()[-1]
            tables[name] = found.model_copy(
                update={"catalog_table": catalog_table, "key": target, "bytes": files[name].bytes}
            )
            if name not in RESERVED_TABLES:
                record_dataframe(self.objects, run.key, name, TableSchema.from_arrow(stored))
        now = read_result(self.objects, run.key)
        if now is None or now.gather != result.gather:
            return  # a retry has ended meanwhile, and has published what it came to
        if tables != result.tables:
            passed = before.followed(result.gather)
            result = result.model_copy(update={"tables": tables, "gather": gather})
            record(self.objects, run.key, result, Gathered(files, same_rows=passed))
        pending = [run.key.unpublished(ON_ITS_WAY), run.key.unpublished(gather)]
        publish(self.objects, self.catalog, run.key, result, Gathered(files), pending)

    def _standing(self, generations: Generations, key: RunKey, name: str, recorded: str, stored: pa.Schema) -> Table:
        """The table of the catalog that holds a table of a run: the recorded one if it is there, else one that can."""
        schema = TableSchema.from_arrow(stored)
        try:
            table = self.catalog.table(self.name, recorded)
            if table.can_hold(schema) and {*schema.renamed(table.renamed).names} <= {*table.schema.names}:
                return table.widened(schema)  # what was taken in before may be of an earlier version
        except TableNotFound:
            pass  # the catalog was lost, wholly or in part
        return generations.open(key, name, schema)

    def _planned_anew(self, run: _Run, generations: Generations) -> None:
        """The plan of an unfinished run with tables that are there; what it has finished is shown."""
        tables: dict[str, TablePlan] = {}
        for name, planned in run.plan.tables.items():
            try:
                table = self.catalog.table(self.name, planned.catalog_table)
                same = planned.ids.items() <= table.ids.items() and table.can_hold(planned.schema)
            except TableNotFound:
                table, same = None, False
            if table is None or not same:
                table = generations.open(run.key, name, planned.schema)
            table = table.widened(planned.schema)
            tables[name] = TablePlan(table.iceberg.name()[-1], planned.columns, table.ids)
        plan = replace(run.plan, tables=tables)
        if tables != run.plan.tables:
            self.objects.write(run.key.plan, plan.to_json())
        _record_shown(self.objects, run)
        for name, planned in tables.items():
            table = self.catalog.table(self.name, planned.catalog_table)
            there = {*table.files(run.key.partition)}  # nothing in a table that was just made
            for part in whole_parts(plan, run.parts):
                for file in (f for f in part.files if f.table == name and self.objects.uri(f.key) not in there):
                    stored = stored_schema(self.objects, file.key)
                    if not _has_ids(stored, planned.ids):
                        rewrite(self.objects, file.key, file.key, stored, planned.ids)
                    described = read_description(self.objects, file.key)
                    # One that has ended meanwhile has published what it came to.
                    table.append_each(
                        {f"{run.key.path}/{part.name}": [described]},
                        run.key.partition,
                        wanted=lambda: read_result(self.objects, run.key) is None,
                    )


def _keys(objects: Objects, experiment: str) -> list[RunKey]:
    """All runs, in the order in which they were made: so tables evolve as they did."""
    there = (key for key in run_keys(objects, experiment) if objects.exists(key.manifest))
    return sorted(there, key=lambda key: key.folder)


def _files_in(objects: Objects, run: _Run, name: str, table: Table) -> list[tuple[str, DataFile]]:
    """The files of a run that lie in a table of the catalog, each behind the part that it is of (none: the result's)."""
    if run.result is not None:
        files = Gathered.of(objects, run.result, run.key).files
        held = [n for n, t in run.result.tables.items() if t.catalog_table == name and files[n].rows]
        return [
            ("", _sized(objects, files[n]))
            for n in held
            if _has_ids(stored_schema(objects, run.result.tables[n].key), table.ids)
        ]
    found: list[tuple[str, DataFile]] = []
    for part in whole_parts(run.plan, run.parts):
        for file in part.files:
            planned = run.plan.tables.get(file.table)
            if planned is not None and planned.catalog_table == name and planned.ids.items() <= table.ids.items():
                found.append((part.name, read_description(objects, file.key)))
    return found


def _record_shown(objects: Objects, run: _Run) -> None:
    """Records which files of a run that goes on the catalog is about to be given."""
    if run.parts:
        shown = [file for part in run.parts for file in part.files if file.table in run.plan.tables]
        record_shown(objects, run.key, shown, f"{run.parts[0].name}-{ON_ITS_WAY}")


def _sized(objects: Objects, file: DataFile) -> DataFile:
    """The file with its size as it is: one whose references followed the root is another."""
    return replace(file, bytes=objects.size(objects.key(file.uri)))


def _values(table: Table, key: RunKey) -> tuple[Any, ...]:
    return partition_values(table.iceberg, key.partition)


def _tells_all(file: DataFile, table: Table, stored: pa.Schema) -> bool:
    """Whether what was recorded of a file tells of all its plain columns that the table has: readers take others for empty."""
    told = file.statistics.get("value_counts")
    return told is None or (table.plain_names.keys() & {*stored_field_ids(stored).values()}) <= {*map(int, told)}


def _has_ids(stored: pa.Schema, ids: FieldIds) -> bool:
    """Whether a file's columns have the field ids of their table."""
    return stored_field_ids(stored) == stored_field_ids(with_field_ids(stored, ids))
