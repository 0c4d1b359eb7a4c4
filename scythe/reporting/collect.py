"""The facts of a run, from its tables and records. Reads and aggregates; draws nothing, writes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl
from polars import selectors as cs

from scythe.errors import InputError, NotFoundError, ReadError
from scythe.gather.error_kinds import ErrorKinds, alike
from scythe.gather.status import Counts, Look, counts_of, look_at
from scythe.names import ID_LEVELS
from scythe.record.manifest import label_of, read_manifest
from scythe.reporting.bands import bands
from scythe.reporting.facts import Band, Failures, Indices, Kind, Picture, Relations, RunFacts, Spread, Times, Variable
from scythe.reporting.failures import failures
from scythe.reporting.gallery import image_columns, pictures
from scythe.reporting.origin import numbers_of, origin_of
from scythe.reporting.relations import relations
from scythe.reporting.spreads import NOTHING, SAME, Axis, aligned, laid_out, shortened, shown
from scythe.reporting.tables import MOST_CELLS, MOST_ROWS, READ_FAILURES, Tables, variables, variables_of
from scythe.reporting.times import machine, seconds_spread
from scythe.runs.failing import in_common
from scythe.runs.run import ExperimentRun
from scythe.sampling.sensitivity import is_plan, of_run
from scythe_catalog.schema import TableSchema

MOST_COLUMNS, MOST_SPREADS = 80, 40
_MOST_FRAMES, _MOST_FRAME_ROWS = 6, 3_000_000
_MOST_ERRORS, _MOST_KINDS = 20_000, 12
_OF_A_KIND = ("exception_type", "exception_message", "traceback")
_SLOWEST, _SLOWEST_INPUTS = 8, 4
_MOST_FILES = 2_000
_MOST_NAMED = 20
_PLAIN = (pl.Boolean, pl.String, pl.Date, pl.Datetime, pl.Duration, pl.Time, pl.Enum, pl.Categorical)

Schemas = Mapping[str, TableSchema]


def facts_of(run: ExperimentRun) -> RunFacts:
    """All that a report tells of a run, finished or not.

    Raises:
        NotFoundError: it was deleted.
    """
    look, counts = counts_of(run.objects, run.key, look_at(run.objects, run.key))
    if look.status == "deleted":
        raise NotFoundError(f"there is no run {run.experiment_id} any more: it was deleted")
    tables = Tables(run, look.result)
    manifest = _manifest(run)
    schemas = tables.schemas() if look.status != "allocating" else {}
    values, indices = _values(tables, *variables(schemas)), _indices(run, manifest, tables)
    tasks = _tasks(tables, schemas)
    seconds = seconds_spread(tasks) if tasks is not None and tasks.height else None
    return RunFacts(
        run.experiment,
        run.version,
        run.key.folder,
        look.status,
        look.problem,
        label_of(manifest)[0],
        numbers_of(counts, run.inputs, seconds),
        _drawn(tables, values.inputs, "inputs"),
        _drawn(tables, values.outputs, "outputs"),
        values.relations,
        _failures(tables, values, counts, look),
        _times(tables, tasks, seconds, schemas),
        _bands(tables, schemas),
        _pictures(tables, schemas),
        origin_of(run, look, manifest),
        tuple(tables.notes),
        indices,
    )


def beside(one: RunFacts, other: RunFacts) -> RunFacts:
    """The facts of a run that is shown beside another: histograms of the same variable have one axis."""
    return replace(one, inputs=aligned(one.inputs, other.inputs), outputs=aligned(one.outputs, other.outputs))


def _manifest(run: ExperimentRun) -> Mapping[str, Any]:
    try:
        return read_manifest(run.objects, run.key)
    except READ_FAILURES:  # the run's status tells
        return {}


def _indices(run: ExperimentRun, manifest: Mapping[str, Any], tables: Tables) -> Indices | None:
    if not is_plan(manifest.get("sampled")):
        return None
    try:
        found = of_run(run.objects, run.key)
    except (ReadError, InputError) as error:
        tables.note("relations", f"No sensitivity analysis: {error}.")
        return None
    rows = found.with_columns(
        cs.float().map_batches(lambda s: pl.Series([_index(v) for v in s], dtype=pl.String))
    ).rows()
    return Indices(tuple(found.columns), tuple(rows))


def _index(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


# --- inputs and outputs -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Values:
    """The values of a run, laid out."""

    inputs: tuple[Spread, ...] = ()
    outputs: tuple[Spread, ...] = ()
    relations: Relations = field(default_factory=Relations)
    #: The inputs that differ, of all rows, and which of these failed.
    axes: tuple[Axis, ...] = ()
    failed: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))


def _values(tables: Tables, inputs: Sequence[Variable], outputs: Sequence[Variable]) -> _Values:
    if not (inputs or outputs):
        return _Values()
    inputs, outputs = _first(tables, inputs, "inputs"), _first(tables, outputs, "outputs")
    most = min(MOST_ROWS, MOST_CELLS // max(1, len(inputs) + len(outputs)))
    names = [v.name for v in inputs]
    good, rows = tables.sampled("scalars", ["sort_index", *names, *(v.name for v in outputs)], most, "inputs")
    share = good.height / rows if rows else 1.0
    bad, errors = tables.sampled("errors", ["sort_index", *names], most, "inputs")
    if errors and rows and errors * share < bad.height:  # both are thinned alike, so that shares stay what they are
        bad = bad.sample(max(1, round(errors * share)), seed=0)
    if good.height < rows or bad.height < errors:
        drawn = f"{good.height + bad.height:,} of {rows + errors:,} rows"
        for section in ("inputs", "outputs", "relations"):
            tables.note(section, f"Drawn from {drawn}, chosen at random.")
    both = pl.concat([good.select(names), bad.select(names)], how="vertical_relaxed") if names else pl.DataFrame()
    laid_in = [laid_out(v, both[v.name]) for v in inputs]
    laid_out_ = [laid_out(v, good[v.name]) for v in outputs]
    axes = tuple(axis for _, axis in laid_in if axis is not None)
    of_good = [replace(a, places=a.places[: good.height], values=a.values[: good.height]) for a in axes]
    failed = np.arange(both.height) >= good.height
    undrawn = [s.variable.name for s, axis in (*laid_in, *laid_out_) if axis is None and s.told not in (SAME, NOTHING)]
    if undrawn and axes:
        tables.note("relations", f"Not among them, as above: {_listed(undrawn)}.")
    found = relations(of_good, [axis for _, axis in laid_out_ if axis is not None])
    return _Values(tuple(s for s, _ in laid_in), tuple(s for s, _ in laid_out_), found, axes, failed)


def _first(tables: Tables, given: Sequence[Variable], section: str) -> Sequence[Variable]:
    """As many variables as are looked at."""
    if len(given) > MOST_COLUMNS:
        tables.note(section, f"The first {MOST_COLUMNS} of {len(given)} are looked at.")
    return given[:MOST_COLUMNS]


def _drawn(tables: Tables, spreads: tuple[Spread, ...], section: str) -> tuple[Spread, ...]:
    """As many histograms as are shown."""
    if len(spreads) > MOST_SPREADS:
        left = [s.variable.name for s in spreads[MOST_SPREADS:]]
        tables.note(section, f"{len(left)} more are left out: {_listed(left)}.")
    return spreads[:MOST_SPREADS]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_MOST_NAMED]) + (", …" if len(names) > _MOST_NAMED else "")


# --- failures ---------------------------------------------------------------------------------------------


def _failures(tables: Tables, values: _Values, counts: Counts, look: Look) -> Failures | None:
    count = counts.errors or 0
    if not count:
        return None
    kinds = _kinds(tables, look, [axis.variable.name for axis in values.axes])
    if len(kinds) > _MOST_KINDS:
        tables.note("failures", f"{len(kinds) - _MOST_KINDS:,} rarer kinds are left out: `scythe errors` lists all.")
    return failures(values.axes, values.failed, kinds[:_MOST_KINDS], count, counts.inputs or count)


def _kinds(tables: Tables, look: Look, inputs: Sequence[str]) -> tuple[Kind, ...]:
    """The kinds of errors, as the result tells them; of a run without one, and of those of before, from its rows."""
    kinds = look.result.error_kinds if look.result is not None else []
    frame, all_ = tables.sampled("errors", ["sort_index", *inputs, *_OF_A_KIND], _MOST_ERRORS, "failures")
    rows = frame.to_arrow()
    if not kinds:
        counted = ErrorKinds()
        counted.add(rows)
        kinds = counted.all()
        if frame.height < all_:
            tables.note("failures", f"Kinds are those of {frame.height:,} of the errors, chosen at random.")
    common: dict[int, tuple[str, ...]] = {}
    if 0 < frame.height == all_:
        with suppress(*READ_FAILURES):  # the section of outputs says what cannot be read
            good = tables.frame("scalars", inputs)
            for kind in kinds[:_MOST_KINDS]:
                common[kind.first] = tuple(in_common(pl.DataFrame(alike(rows, kind.first)), good, inputs))
    return tuple(Kind(k.name, k.message, k.place, k.count, k.first, common.get(k.first, ())) for k in kinds)


# --- times ------------------------------------------------------------------------------------------------


def _tasks(tables: Tables, schemas: Schemas) -> pl.DataFrame | None:
    if "tasks" not in schemas:
        return None
    told = tables.result.tables.get("tasks") if tables.result is not None else None
    known = told.columns if told is not None else schemas["tasks"].names
    wanted = [
        n for n in ("sort_index", "seconds", "worker", "start", "attempts", "attempt", "reused_from") if n in known
    ]
    return tables.collected("tasks", wanted, "times")


def _times(tables: Tables, tasks: pl.DataFrame | None, seconds: Spread | None, schemas: Schemas) -> Times | None:
    if tasks is None or seconds is None:
        return None
    slowest = tasks.top_k(_SLOWEST, by="seconds").sort("seconds", descending=True)
    inputs, _ = variables(dict(schemas))
    plain = [v for v in inputs if _is_plain(schemas["errors"][v.name].kind.polars())][:_SLOWEST_INPUTS]
    files = frozenset(v.name for v in plain if schemas["errors"][v.name].kind.is_file)
    values = _inputs_of(tables, slowest["sort_index"], [v.name for v in plain], files)
    rows: list[tuple[str, ...]] = []
    for row in slowest.iter_rows(named=True):
        given = values.get(row["sort_index"], ("–",) * len(plain))
        rows.append((str(row["sort_index"]), shown(row["seconds"]), str(row["attempts"]), *given))
    named = (f"{v.name} [{v.unit}]" if v.unit else v.name for v in plain)
    return Times(seconds, ("input", "seconds", "tries", *named), tuple(rows), machine(tasks))


def _is_plain(given: pl.DataType | type[pl.DataType]) -> bool:
    dtype = given if isinstance(given, pl.DataType) else given()
    return dtype.is_numeric() or isinstance(dtype, _PLAIN)


def _inputs_of(tables: Tables, keys: pl.Series, names: list[str], files: frozenset[str]) -> dict[int, tuple[str, ...]]:
    """The values of a few inputs, as texts, by their `sort_index`; of files the name alone."""
    found: dict[int, tuple[str, ...]] = {}
    for table in ("scalars", "errors"):
        with suppress(*READ_FAILURES):  # the section of inputs says so
            frame = tables.frame(table, ["sort_index", *names]).filter(pl.col("sort_index").is_in(keys.implode()))
            named = [pl.col(name).str.split("/").list.last() if name in files else pl.col(name) for name in names]
            found |= {row[0]: tuple(map(_cell, row[1:])) for row in frame.select("sort_index", *named).collect().rows()}
    return found


def _cell(value: Any) -> str:
    if isinstance(value, float) and np.isfinite(value):
        return shown(value)
    return "–" if value is None else shortened(str(value))


# --- dataframes and files ---------------------------------------------------------------------------------


def _bands(tables: Tables, schemas: Schemas) -> tuple[Band, ...]:
    found = tables.dataframes()
    levels = set(ID_LEVELS) | (set(schemas["errors"].names) if "errors" in schemas else set())
    if len(found) > _MOST_FRAMES:
        tables.note("dataframes", f"Left out: {', '.join(list(found)[_MOST_FRAMES:])}.")
    drawn: list[Band] = []
    for name, schema in list(found.items())[:_MOST_FRAMES]:
        flat = variables_of(c for c in schema if c.name not in levels and _is_plain(c.kind.polars()))
        frame = _frame(tables, name, [v.name for v in flat]) if len(flat) > 1 else pl.DataFrame()
        if frame is None:  # which is noted
            continue
        one = bands(name, frame, flat)
        drawn += one
        if not one:
            tables.note("dataframes", f"{name}: no numbers over a first column that differs.")
        elif len(one) < sum(schema[v.name].kind.polars().is_numeric() for v in flat[1:]):
            tables.note("dataframes", f"{name}: the first {len(one)} columns that can be drawn.")
    return tuple(drawn)


def _frame(tables: Tables, name: str, columns: list[str]) -> pl.DataFrame | None:
    """Columns of a dataframe, of some inputs only where there are many rows: curves stay whole."""
    assert tables.result is not None
    rows = tables.result.tables[name].rows
    with tables.noting("dataframes", f"The dataframe {name}"):
        if rows <= _MOST_FRAME_ROWS:
            return tables.frame(name, columns).collect()
        share = _MOST_FRAME_ROWS / rows
        frame = tables.frame(name, ["sort_index", *columns])
        kept = frame.filter(pl.col("sort_index").hash(17) % 10_000 < share * 10_000).collect()
        inputs = kept["sort_index"].n_unique()
        tables.note("dataframes", f"{name}: drawn from {kept.height:,} of {rows:,} rows, those of {inputs:,} inputs.")
        return kept.select(columns)
    return None


def _pictures(tables: Tables, schemas: Schemas) -> tuple[Picture, ...]:
    if "result_file_refs" not in schemas:
        return ()
    levels = set(schemas["errors"].names)
    names = [n for n in schemas["result_file_refs"].names if n not in levels]
    rows = tables.collected("result_file_refs", ["sort_index", *names], "files", _MOST_FILES)
    if rows is None:
        return ()
    found, unread = pictures(tables.run.objects, rows, image_columns(rows))
    if unread:
        tables.note("files", f"{unread} of the first images could not be read.")
    return found
