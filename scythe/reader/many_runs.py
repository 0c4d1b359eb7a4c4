"""Reads many runs at once: the generations of a table united by the names of their columns. Writes nothing.

What is shown is what the runs hold that are there: a run that was deleted has no say in columns or types.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from scythe.errors import NotFoundError, ReadError, RunDamaged, TableNotFound
from scythe.gather.publish import deleted_of, unpublished
from scythe.gather.run_files import scan_result, schema_of_result
from scythe.gather.status import check_manifest, check_unfinished
from scythe.names import RESERVED_TABLES
from scythe.reader.choices import as_told, has_choices, may_be_choices
from scythe.reader.shown import check_gone, check_shown, finished_elsewhere
from scythe.reader.united import brought_together, check_alike
from scythe.record.find import find_run, listed, resolve_version, run_keys, versions_of
from scythe.record.generations import Generations
from scythe.record.layout import RunKey
from scythe.record.manifest import recorded_schemas, renames_now, schemas_of_run
from scythe.record.results import RunResult, finished_result
from scythe.record.versions import SemVer
from scythe_catalog.iceberg.scan import scan as scan_table
from scythe_catalog.schema import TableSchema
from scythe_catalog.storage.objects import Objects

if TYPE_CHECKING:
    from scythe_catalog.iceberg.catalog import Catalog
    from scythe_catalog.iceberg.partition import Held
    from scythe_catalog.iceberg.tables import Table

ALL = "all"
PARTITION_COLUMNS = ("version", "run_datetime")


def is_all(asked: Any) -> bool:
    """Whether a version or a run is `"all"`."""
    return isinstance(asked, str) and asked == ALL


def truth(option: str, given: object) -> bool:
    """What was given for an option that is True or False, by NumPy, too: any text would count as True.

    Raises:
        ReadError: it is neither.
    """
    if not isinstance(given, bool | np.bool_):
        raise ReadError(f"{option}={given!r}: it is True or False")
    return bool(given)


def wanted_runs(objects: Objects, name: str, version: Any, run: Any) -> list[RunKey]:
    """The runs that are asked for where a version or a run is `"all"`, lowest version first, oldest first within each.

    Raises:
        NotFoundError: there is none.
        RunDamaged: one that may be the latest of its version has lost its manifest or its result.
    """
    versions = versions_of(objects, name)
    if run is not None and not is_all(run):
        return [find_run(objects, name, None, run)]
    if not is_all(version):
        versions = [SemVer.parse(resolve_version(objects, name, version))]
    keys = run_keys(objects, name, versions)
    if is_all(run):
        return keys
    finished = objects.each(lambda key: objects.exists(key.result) and objects.exists(key.manifest), keys)
    latest = {key.version: key for key, is_finished in zip(keys, finished, strict=True) if is_finished}
    behind = dict[str, list[RunKey]]()
    for key in keys:  # in their order
        behind[key.version] = [] if latest.get(key.version) == key else [*behind.get(key.version, ()), key]
    objects.each(partial(check_unfinished, objects), chain.from_iterable(behind.values()))
    if not latest:
        raise NotFoundError(f"{name!r} has no finished run")
    return list(latest.values())


def finished_runs(objects: Objects, name: str, version: Any, run: Any) -> list[tuple[RunKey, RunResult]]:
    """Those of the runs that are asked for that are finished, in the order of their datetimes.

    Raises:
        NotFoundError: none is.
        RunDamaged: one has lost its manifest or its result, or that is damaged.
    """

    def result_of(key: RunKey) -> RunResult | None:
        result = finished_result(objects, key)
        if result is None:
            check_manifest(objects, key)
        return result

    keys = sorted(wanted_runs(objects, name, version, run), key=lambda key: key.folder)
    results = objects.each(result_of, keys)
    found = [(key, result) for key, result in zip(keys, results, strict=True) if result is not None]
    if not found:
        looked_at = {key.version for key in keys}
        which = f"{name} {keys[0].version}" if len(looked_at) == 1 else name
        elsewhere = finished_elsewhere(objects, name, looked_at)
        raise NotFoundError(f"{which} has no finished run; its runs: {listed([key.path for key in keys])}{elsewhere}")
    return found


def scan_many(
    catalog: Catalog,
    objects: Objects,
    name: str,
    version: Any,
    table: str,
    run: Any,
    columns: Sequence[str] | None = None,
) -> tuple[pl.LazyFrame, Mapping[str, str]]:
    """All rows of a table of the runs that are asked for, in no order, with `version` and `run_datetime` behind them.

    Beside it the former names of its columns -> their names.

    Raises:
        NotFoundError: there is no such run, or no such table.
        TableNotFound: the catalog has lost all of them.
        ReadError: one of `columns` (of all, without them) has one unit in some runs, and another in others.
        RunDamaged: a run's folder was removed, and the catalog still shows its rows; or it has others of a run than its result tells of.
    """
    keys = wanted_runs(objects, name, version, run)
    generations = Generations(catalog, name, objects)
    opened = generations.of(table)
    hidden = tuple(unpublished(objects, name))
    renamed: dict[str, str] = {}
    for one in opened:
        renamed |= one.renamed
    if hidden:
        renamed |= renames_now(objects, name).of(table)
    own = [found for key in hidden if key in keys and (found := _Own.of(objects, key, table, renamed)) is not None]
    if not (opened or own):
        if not (known := generations.tables()):
            raise TableNotFound(f"the catalog has no table of {name!r}: make it anew with `scythe rebuild`")
        raise NotFoundError(f"{name!r} has no table {table!r}; it has {listed(known)}")
    partition = {} if is_all(version) else {"version": resolve_version(objects, name, version)}
    there = {(key.version, key.moment) for key in run_keys(objects, name)}
    holds = [one.held() for one in opened]
    deleted: list[RunKey] = []
    if run is None or is_all(run):
        folders = there | {(key.version, key.moment) for key in hidden}
        gone = {of: one.files for holding in holds for of, one in holding.items() if of not in folders}
        # Rows of theirs came into the catalog after the deletion, by one who died before he could take them out again.
        deleted = deleted_of(objects, name, gone)
        gone = {of: files for of, files in gone.items() if of not in {(key.version, key.moment) for key in deleted}}
        check_gone(objects, name, gone, None if is_all(run) else keys)
    asked_of = None if is_all(run) and not deleted else tuple(keys)  # files of a deleted run cannot be opened
    versions = {key.version for key in keys}
    of_versions = {of for of in there if of[0] in versions}  # others do not change what these are read as
    has_rows = any(of_versions & holding.keys() for holding in holds)
    every = of_versions if has_rows else there
    held = [_part(one, holding, every, asked_of, hidden) for one, holding in zip(opened, holds, strict=True)]
    shown: dict[tuple[str, dt.datetime], list[str]] = defaultdict(list)
    for part in held:
        for one, files in part.shown.items():
            shown[one].extend(files)
    check_shown(catalog, objects, [key for key in keys if key not in hidden], table, shown)
    parts: list[_Part | _Own] = [*([part for part in held if part.rows] or held), *own]
    if not has_rows:
        latest = own or _latest(objects, keys, table, renames_now(objects, name).of(table))
        parts = [*(latest or held)]
    asked = [renamed.get(column, column) for column in columns] if columns is not None else None
    check_alike([part.schema for part in parts if isinstance(part, _Own) or part.versions & versions], asked)
    schema, casts = brought_together([part.schema for part in parts], asked)
    frames = [part.scan(partition).with_columns(own) for part, own in zip(parts, casts, strict=True)]
    joined = pl.concat(frames, how="diagonal_relaxed") if len(frames) > 1 else frames[0]
    if may_be_choices(schema):
        joined = as_told(joined, schema, _told(objects, keys, table, renamed))
    return joined.select([*schema.names, *PARTITION_COLUMNS]), renamed


def _told(objects: Objects, keys: Sequence[RunKey], table: str, renamed: Mapping[str, str]) -> list[TableSchema]:
    """The columns of a table by the models of some runs, as these were recorded, oldest first; nothing where those of one are not.

    Runs of one version may have choices in another order: where it has any, each run is asked, else its version.
    """
    sides = ("input", "output") if table in RESERVED_TABLES else ("input",)

    def columns(record: Mapping[str, Any]) -> TableSchema:
        return TableSchema(tuple(c for side in sides for c in TableSchema.from_json(record[side])))

    def schemas(key: RunKey) -> Mapping[str, Any] | None:
        with contextlib.suppress(OSError, RunDamaged):  # it is being allocated, or damaged
            return schemas_of_run(objects, key)

    versions = sorted({key.version for key in keys}, key=SemVer.parse)
    records = objects.each(lambda version: recorded_schemas(objects, keys[0].experiment, version), versions)
    if any(record is None for record in records):
        return []
    of_version = dict(zip(versions, (columns(record) for record in records if record), strict=True))
    if any(has_choices(schema) for schema in of_version.values()):
        ordered = sorted(keys, key=lambda key: (SemVer.parse(key.version), key.folder))
        found = objects.each(schemas, ordered)
        told = [columns(one) if one else of_version[key.version] for key, one in zip(ordered, found, strict=True)]
    else:
        told = list(of_version.values())
    return [one.renamed(renamed) for one in told]


def partition_of(key: RunKey) -> dict[str, pl.Expr]:
    """What tells the rows of a run from those of others, by its column."""
    moment = pl.lit(key.moment).cast(pl.Datetime("us", "UTC"))
    return dict(zip(PARTITION_COLUMNS, (pl.lit(key.version), moment), strict=True))


@dataclass(frozen=True)
class _Part:
    """What of one generation of a table is asked for."""

    table: Table
    #: The columns that the runs in question hold.
    schema: TableSchema
    #: Whether there is any row of them.
    rows: bool
    #: The runs in question; None for all of them.
    keys: tuple[RunKey, ...] | None
    #: Those that the catalog may not show as they are.
    hidden: tuple[RunKey, ...]
    #: The runs in question that have rows here, and the files that hold these.
    shown: Mapping[tuple[str, dt.datetime], Sequence[str]]

    @property
    def versions(self) -> frozenset[str]:
        """Their versions."""
        return frozenset(version for version, _ in self.shown)

    def scan(self, partition: Mapping[str, Any]) -> pl.LazyFrame:
        frame = scan_table(self.table, partition, columns=self.schema.names, keep=PARTITION_COLUMNS)
        if self.hidden:
            frame = frame.filter(~_of(self.hidden))
        return frame if self.keys is None else frame.filter(_of(self.keys))


@dataclass(frozen=True)
class _Own:
    """A table of a run whose own files are read, because the catalog may not show them yet."""

    frame: pl.LazyFrame
    schema: TableSchema

    @classmethod
    def of(cls, objects: Objects, key: RunKey, table: str, renamed: Mapping[str, str]) -> _Own | None:
        result = finished_result(objects, key)
        if result is None or table not in result.tables:
            return None
        found = result.tables[table]
        frame, schema = scan_result(objects, found, renamed), schema_of_result(objects, found)
        return cls(frame.with_columns(**partition_of(key)), schema.renamed(renamed))

    def scan(self, _: Mapping[str, Any]) -> pl.LazyFrame:
        return self.frame


def _latest(objects: Objects, keys: Sequence[RunKey], table: str, renamed: Mapping[str, str]) -> list[_Own]:
    """A table of the latest of some runs that is finished, which has no rows; nothing where it has no such table."""
    for key in reversed(keys):
        if finished_result(objects, key) is not None:
            found = _Own.of(objects, key, table, renamed)
            return [found] if found is not None else []
    return []


def _of(keys: Sequence[RunKey]) -> pl.Expr:
    """Whether a row is of one of these runs."""
    any_of = pl.lit(False)
    for key in keys:
        any_of |= (pl.col("version") == key.version) & (pl.col("run_datetime") == key.moment)
    return any_of


def _part(
    table: Table,
    held: Mapping[tuple[str, dt.datetime], Held],
    there: Collection[tuple[str, dt.datetime]],
    keys: tuple[RunKey, ...] | None,
    hidden: tuple[RunKey, ...],
) -> _Part:
    """A generation as the runs that are there make it; `keys` are those whose rows are asked for, None where all are."""
    of_runs = {run: one for run, one in held.items() if run in there}
    columns = frozenset[str]().union(*(one.columns for one in of_runs.values()))
    schema = table.schema
    kept = schema.select([n for n in schema.names if n in columns]) if of_runs else schema
    return _Part(table, kept, bool(of_runs), keys, hidden, {run: one.files for run, one in of_runs.items()})
