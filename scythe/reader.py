"""Reads results: typed frames of one run, one version or all of them. Writes nothing, runs nothing."""

from __future__ import annotations

import datetime as dt
import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from scythe import layout
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.errors import NotFoundError, RunError
from scythe.generations import generations
from scythe.layout import RunKey
from scythe.parts import stored_parts
from scythe.plan import RunPlan
from scythe.results import RunResult, read_result
from scythe.runs import (
    ExperimentRun,
    experiment_names,
    folder_name,
    latest_of,
    load_run,
    name_of,
    resolve_run,
    resolve_version,
    run_folders,
    status_of,
    version_names,
    versions_of,
)
from scythe.settings import engine_settings, storage
from scythe.tables import catalog_of
from scythe_catalog.objects import Objects
from scythe_catalog.scan import scan as scan_table
from scythe_catalog.schema import TableSchema, clashes, united
from scythe_catalog.schema import kinds as k

if TYPE_CHECKING:
    from scythe_catalog.tables import Catalog, Table

ALL = "all"
_PARTITION_COLUMNS = ("version", "run_datetime")
_NUMBERS = (k.Int, k.Float, k.Decimal, k.Bool)


def read(
    experiment: Any,
    version: Any = None,
    *,
    table: str = "scalars",
    run: Any = None,
    columns: Sequence[str] | None = None,
) -> pl.DataFrame:
    """The rows of a table as a Polars frame, typed by the models, ordered by `run_datetime` and `sort_index`.

    Args:
        experiment: A name (with or without `scythe_experiment_`) or the registered function.
        version: `"v1.2.0"`, a SemVer, None for the latest, or `"all"`.
        table: `scalars`, `errors`, `tasks`, `result_file_refs` or the name of a dataframe.
        run: None for the version's latest finished run, `"all"`, or one run, finished or not: its folder's name, its
            datetime, or the ExperimentRun that `allocate` gave.
        columns: These columns only, in this order.

    Returns:
        Inputs and outputs as columns; with `"all"` also `version` and `run_datetime`.

    Raises:
        NotFoundError: an experiment, version, run, table or column that is not there; the message lists what is.
    """
    frame = scan(experiment, version, table=table, run=run, columns=columns)
    if ALL in (version, run) and columns is None:
        frame = frame.sort("run_datetime", "sort_index", maintain_order=True)
    return frame.collect()


def scan(
    experiment: Any,
    version: Any = None,
    *,
    table: str = "scalars",
    run: Any = None,
    columns: Sequence[str] | None = None,
) -> pl.LazyFrame:
    """The same as `read`, as a lazy frame: only the files of the runs that are asked for are ever opened."""
    objects, name = storage(), name_of(experiment)
    catalog = catalog_of(objects, engine_settings().catalog)
    if ALL in (version, run):
        return _scan_many(catalog, objects, name, version, table, run, columns)
    key, result = _one_run(objects, name, version, run)
    return _scan_run(catalog, objects, key, result, table, columns)


def files(experiment: Any, version: Any = None, *, run: Any = None) -> pl.DataFrame:
    """The table of file references: inputs, and one column per file output; values are URIs.

    Raises:
        NotFoundError: as `read`; also where the experiment has no file outputs.
    """
    return read(experiment, version, table="result_file_refs", run=run)


def rows(
    experiment: Any, version: Any = None, *, run: Any = None
) -> Iterator[tuple[ExperimentInputSpec, ExperimentOutputSpec]]:
    """Typed (input, output) pairs of a finished run, ordered by `sort_index`, a batch in memory at a time.

    The experiment must be registered here, for its models; its dataframes are tables of their own.

    Raises:
        NotFoundError: as `read`; also where the experiment is not registered.
        RunError: the run was made with another schema than the models have now.
    """
    from scythe.pairs import pairs
    from scythe.registry import experiment_of

    found = experiment_of(experiment)
    objects = storage()
    key, result = _one_run(objects, name_of(experiment), version, run)
    if result is None:
        raise RunError(
            f"the run {key.path} is not finished: read its rows so far with scythe.read(..., run={key.folder!r})"
        )
    return pairs(objects, found, result)


def list_experiments() -> pl.DataFrame:
    """One row an experiment: `name`, latest `version`, number of `versions` and `runs`, `run_datetime` of the latest run."""
    objects = storage()
    found: list[tuple[str, str, int, int, dt.datetime | None]] = []
    for name in experiment_names(objects):
        versions = version_names(objects, name)
        folders = [f for v in versions for f in run_folders(objects, name, str(v))]
        latest = layout.moment_of(max(folders)) if folders else None
        found.append((name, latest_of(objects, name, versions), len(versions), len(folders), latest))
    schema = {
        "name": pl.String, "version": pl.String, "versions": pl.Int64, "runs": pl.Int64,
        "run_datetime": pl.Datetime("us", "UTC"),
    }  # fmt: skip
    return pl.DataFrame(found, schema=schema, orient="row")


def list_runs(experiment: Any) -> pl.DataFrame:
    """One row a run: `name, version, run_datetime, run` (its folder)`, status, inputs, rows, errors, seconds`.

    Raises:
        NotFoundError: there is no such experiment.
    """
    objects, name = storage(), name_of(experiment)
    found: list[tuple[Any, ...]] = []
    for version in versions_of(objects, name):
        for folder in run_folders(objects, name, str(version)):
            key = RunKey(name, str(version), folder)
            if objects.exists(key.manifest):
                found.append((name, str(version), key.moment, folder, *_counts(objects, key)))
    schema = {
        "name": pl.String, "version": pl.String, "run_datetime": pl.Datetime("us", "UTC"), "run": pl.String,
        "status": pl.String, "inputs": pl.Int64, "rows": pl.Int64, "errors": pl.Int64, "seconds": pl.Float64,
    }  # fmt: skip
    return pl.DataFrame(found, schema=schema, orient="row")


def _counts(objects: Objects, key: RunKey) -> tuple[str, int, int, int, float | None]:
    status = status_of(objects, key)
    result = read_result(objects, key)
    if result is not None:
        return status, result.inputs, result.rows, result.errors, result.seconds
    parts = stored_parts(RunPlan.load(objects, key))
    inputs = load_run(objects, key).inputs
    return status, inputs, sum(p.rows for p in parts), sum(p.errors for p in parts), None


# --- one run ----------------------------------------------------------------------------------------


def _one_run(objects: Objects, name: str, version: Any, run: Any) -> tuple[RunKey, RunResult | None]:
    if run is not None:
        if version is None:
            version = run.version if isinstance(run, ExperimentRun) else _version_of_run(objects, name, run)
        key = resolve_run(objects, name, version, run)
        return key, read_result(objects, key)
    named = resolve_version(objects, name, version)
    folders = run_folders(objects, name, named)
    for folder in reversed(folders):
        key = RunKey(name, named, folder)
        result = read_result(objects, key)
        if result is not None:
            return key, result
    keys = [key for f in folders[-10:] if objects.exists((key := RunKey(name, named, f)).manifest)]
    states = ", ".join(f"{key.folder} ({status_of(objects, key)})" for key in keys) or "none"
    raise NotFoundError(
        f"{name} {named} has no finished run; its runs: {states}. Name one with run= to read what it has so far"
    )


def _version_of_run(objects: Objects, name: str, run: Any) -> str | None:
    """The latest version that has a run of this name."""
    folder = folder_name(run)
    for version in reversed(version_names(objects, name)):
        if objects.exists(RunKey(name, str(version), folder).manifest):
            return str(version)
    return None


def _scan_run(
    catalog: Catalog, objects: Objects, key: RunKey, result: RunResult | None, table: str, columns: Sequence[str] | None
) -> pl.LazyFrame:
    if result is not None:
        known = {name: (found.catalog_table, found.columns) for name, found in result.tables.items()}
    else:
        tables = RunPlan.load(objects, key).tables
        known = {name: (planned.catalog_table, list(planned.schema.names)) for name, planned in tables.items()}
    if table not in known:
        later = "" if result is not None else "; dataframes can be read when the run is finished"
        raise NotFoundError(f"{key.path} has no table {table!r}; it has {', '.join(sorted(known))}{later}")
    opened = catalog.table(key.experiment, known[table][0])
    names = known[table][1]
    frame = scan_table(opened, key.partition, columns=_chosen(columns, names, table))
    if result is None:
        frame = scan_table(opened, key.partition, columns=names).sort("sort_index", maintain_order=True)
        frame = frame.select(_chosen(columns, names, table))
    return frame


def _chosen(columns: Sequence[str] | None, names: list[str], table: str) -> list[str]:
    if columns is None:
        return names
    for name in columns:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise NotFoundError(f"the table {table!r} has no column {name!r}{hint}; it has {', '.join(names)}")
    return list(columns)


# --- many runs --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Wanted:
    """Which rows of a table are asked for: all of them, or those of these runs."""

    keys: tuple[RunKey, ...] | None

    def filter(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        if self.keys is None:
            return frame
        any_of = pl.lit(False)
        for key in self.keys:
            any_of |= (pl.col("version") == key.version) & (pl.col("run_datetime") == key.moment)
        return frame.filter(any_of)


def _scan_many(
    catalog: Catalog, objects: Objects, name: str, version: Any, table: str, run: Any, columns: Sequence[str] | None
) -> pl.LazyFrame:
    versions_of(objects, name)
    wanted = _wanted(objects, name, version, run)
    opened = [catalog.table(name, g) for g in generations(catalog.tables(name), table)]
    if not opened:
        known = [t for t in catalog.tables(name) if "_g" not in t]
        raise NotFoundError(f"{name!r} has no table {table!r}; it has {', '.join(known)}")
    schema = opened[0].schema
    for other in opened[1:]:
        schema = united(schema, other.schema)
    unlike = _unlike([generation.schema for generation in opened])
    partition = {} if version == ALL else {"version": resolve_version(objects, name, version)}
    frames: list[pl.LazyFrame] = []
    for generation in opened:
        frame = scan_table(generation, partition, keep=_PARTITION_COLUMNS)
        frames.append(wanted.filter(frame).with_columns(_unified(generation, schema, unlike)))
    joined = pl.concat(frames, how="diagonal_relaxed") if len(frames) > 1 else frames[0]
    names = [*schema.names, *_PARTITION_COLUMNS]
    return joined.select(_chosen(columns, names, table))


def _wanted(objects: Objects, name: str, version: Any, run: Any) -> _Wanted:
    if run == ALL:
        return _Wanted(None)
    keys: list[RunKey] = []
    for named in version_names(objects, name):
        folders = run_folders(objects, name, str(named))
        if run is not None:
            folders = [f for f in folders if f == folder_name(run)]
        for folder in reversed(folders):
            key = RunKey(name, str(named), folder)
            if run is not None or objects.exists(key.result):
                keys.append(key)
                break
    if not keys:
        raise NotFoundError(
            f"{name!r} has no finished run" if run is None else f"{name!r} has no run {folder_name(run)}"
        )
    return _Wanted(tuple(keys))


def _unlike(schemas: list[TableSchema]) -> set[str]:
    """The columns whose types in two generations have nothing in common: they are united as text."""
    found: set[str] = set()
    for i, one in enumerate(schemas):
        for other in schemas[i + 1 :]:
            for column in other:
                if column.name in one and clashes(one.select([column.name]), other.select([column.name])):
                    numbers = isinstance(column.kind, _NUMBERS) and isinstance(one[column.name].kind, _NUMBERS)
                    found |= set() if numbers else {column.name}
    return found


def _unified(table: Table, schema: TableSchema, unlike: set[str]) -> list[pl.Expr]:
    """Casts that bring a generation's columns to the types that all generations share."""
    casts: list[pl.Expr] = []
    for column in table.schema:
        target = schema[column.name].kind
        if column.name in unlike:
            casts.append(pl.col(column.name).cast(pl.String))
        elif isinstance(column.kind, k.Category):
            casts.append(pl.col(column.name).cast(target.polars() if isinstance(target, k.Category) else pl.String))
    return casts
