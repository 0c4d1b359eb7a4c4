"""What differs between two runs: models, code, packages, and for equal inputs the outputs. Writes nothing."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import polars as pl
import pyarrow as pa

from scythe.errors import NotFoundError, RunDamaged, RunError
from scythe.gather.run_files import scan_result
from scythe.leaf.input_files import contents_of
from scythe.names import ID_LEVELS, RESERVED_TABLES
from scythe.record.manifest import read_manifest, renames_now, schemas_of_run
from scythe.record.results import RunResult
from scythe.remote.forks import check_fork
from scythe.reuse.identity import without_maps
from scythe.runs.run import ExperimentRun
from scythe_catalog.schema import Change, Difference, Severity, TableSchema, compare

#: Numbers that stand beside each other for no more than an order of summation differ by less [relative].
_NOISE = 1e-9


@dataclass(frozen=True)
class Comparison:
    """What differs between a run and another one."""

    one: str
    other: str
    inputs: Difference
    outputs: Difference
    #: What made them: what, in the one, in the other; only what differs.
    made_by: list[tuple[str, str, str]]
    #: Inputs of equal values: in both, in the one alone, in the other alone.
    both: int
    only_one: int
    only_other: int
    #: Of the inputs in both: how many failed in the one alone, in the other alone.
    failed_one: int
    failed_other: int
    #: A row an output of both: `output, equal, changed, largest` (difference), `relative` (largest, of the greater value).
    values: pl.DataFrame
    #: Outputs that are not compared: fields with files, and dataframes.
    left_out: tuple[str, ...] = ()


def compare_runs(one: ExperimentRun, other: ExperimentRun) -> Comparison:
    """What differs between two finished runs.

    Raises:
        RunError: one of them is not finished.
        NotFoundError: their experiments have no input in common.
    """
    check_fork()
    first, second = _Side.of(one), _Side.of(other)
    keys = [name for name in first.shared("input", second) if name not in ID_LEVELS]
    if not keys:
        raise NotFoundError(f"{one.experiment_id} and {other.experiment_id} have no input field in common")
    a, b = first.rows(keys), second.rows(keys)
    for name in keys:
        left, right = _alike(a[name], b[name])
        a, b = a.with_columns(left.alias(name)), b.with_columns(right.alias(name))
    joined = a.join(b, on=[*keys, "_nth"], how="inner", nulls_equal=True, suffix="_other")
    outputs = first.shared("output", second)
    good = joined.filter(~pl.col("_failed") & ~pl.col("_failed_other"))
    rows = [_changed(good, name) for name in outputs]
    schema = {
        "output": pl.String,
        "equal": pl.Int64,
        "changed": pl.Int64,
        "largest": pl.Float64,
        "relative": pl.Float64,
    }
    return Comparison(
        one.experiment_id,
        other.experiment_id,
        first.difference("input", second),
        first.difference("output", second),
        [
            (what, first.made_by.get(what, "-"), second.made_by.get(what, "-"))
            for what in sorted(first.made_by.keys() | second.made_by.keys())
            if first.made_by.get(what) != second.made_by.get(what)
        ],
        joined.height,
        a.height - joined.height,
        b.height - joined.height,
        joined.filter(pl.col("_failed") & ~pl.col("_failed_other")).height,
        joined.filter(~pl.col("_failed") & pl.col("_failed_other")).height,
        pl.DataFrame(rows, schema=schema, orient="row"),
        tuple(sorted({*first.others(), *second.others()})),
    )


@dataclass(frozen=True)
class _Side:
    """One of the two."""

    run: ExperimentRun
    result: RunResult
    #: By the names that fields have now.
    schemas: Mapping[str, TableSchema]
    #: Name that a field has now -> name that it has in this run, where that is another.
    former: Mapping[str, str]
    made_by: Mapping[str, str]
    #: Former name -> name of columns, until now.
    renamed: Mapping[str, str]

    @classmethod
    def of(cls, run: ExperimentRun) -> _Side:
        result = run.result
        if result is None:
            raise RunError(
                f"{run.experiment_id} is {run.status}: compare when it is finished; `scythe resume` goes on with one that has stopped"
            )
        with _whole(run):
            schemas, renamed = (
                schemas_of_run(run.objects, run.key),
                renames_now(run.objects, run.key.experiment).columns,
            )
        if schemas is None:
            raise RunError(f"{run.experiment_id} does not tell its models: it was made by an early version of Scythe")
        told = {side: TableSchema.from_json(schemas[side]) for side in ("input", "output")}
        former = {renamed[name]: name for own in told.values() for name in own.names if name in renamed}
        by_now = {side: own.renamed(renamed) for side, own in told.items()}
        return cls(run, result, by_now, former, _made_by(run), renamed)

    def difference(self, side: str, other: _Side) -> Difference:
        """What became of a model, in the other run."""
        one, now = self.schemas[side], other.schemas[side]
        names = [(name, self.former.get(name, name), other.former.get(name, name)) for name in one.names if name in now]
        renamed = [
            Change(name, f"renamed from {before} to {after}", Severity.ADDITIVE)
            for name, before, after in names
            if before != after
        ]
        return Difference(tuple(renamed)) + compare(one, now)

    def shared(self, side: str, other: _Side) -> list[str]:
        """Fields of a model that both have among their scalars."""
        there = self._scalars() & other._scalars()
        return [n for n in self.schemas[side].names if n in other.schemas[side] and n in there]

    def _scalars(self) -> set[str]:
        return {self.renamed.get(name, name) for name in self.result.tables["scalars"].columns}

    def others(self) -> list[str]:
        """Outputs that are no scalars."""
        files = [column.name for column in self.schemas["output"] if column.kind.is_file]
        return [*files, *(name for name in self.result.tables if name not in RESERVED_TABLES)]

    def rows(self, keys: list[str]) -> pl.DataFrame:
        """All inputs with what they came to; files by what is in them, and equal inputs by their place among their equals."""
        objects = self.run.objects
        with _whole(self.run):
            scalars, errors = (
                scan_result(objects, self.result.tables[name], self.renamed).collect() for name in ("scalars", "errors")
            )
        outputs = [name for name in self.schemas["output"].names if name in scalars.columns]
        rows = pl.concat(
            [
                scalars.select("sort_index", *keys, *outputs).with_columns(pl.lit(False).alias("_failed")),
                errors.select("sort_index", *keys).with_columns(pl.lit(True).alias("_failed")),
            ],
            how="diagonal_relaxed",
        ).sort("sort_index")
        contents = contents_of(objects, self.run.key)
        files = [c.name for c in self.schemas["input"] if c.kind.is_file and c.name in keys]
        rows = rows.with_columns(pl.col(files).replace(contents)) if contents and files else rows
        rows = rows.with_columns(without_maps(values) for values in rows)
        return rows.with_columns(pl.int_range(pl.len()).over(keys).alias("_nth"))


@contextmanager
def _whole(run: ExperimentRun) -> Generator[None]:
    """Where a file of a run is read."""
    try:
        yield
    except (pa.ArrowException, pl.exceptions.PolarsError, FileNotFoundError) as error:
        reason = str(error).splitlines()[0]
        raise RunDamaged(f"a file of {run.experiment_id} is gone or damaged: {reason}") from error


def _made_by(run: ExperimentRun) -> dict[str, str]:
    manifest = read_manifest(run.objects, run.key)
    packages = manifest.get("packages") or {}
    last = run.attempts[-1].provenance if run.attempts else None
    found = {"python": manifest.get("python"), "engine": manifest.get("engine"), "seed": manifest.get("seed")}
    found |= {"commit": last.described, "code": last.code and last.code[:12]} if last is not None else {}
    return {what: str(value) for what, value in {**packages, **found}.items() if value is not None}


def _changed(rows: pl.DataFrame, name: str) -> tuple[str, int, int, float | None, float | None]:
    """How many values of an output differ, and by how much at most."""
    one, other = rows[name], rows[f"{name}_other"]
    if one.dtype.is_numeric() and other.dtype.is_numeric():
        x, y = one.cast(pl.Float64), other.cast(pl.Float64)
        greater = pl.max_horizontal(pl.col("x").abs(), pl.col("y").abs())
        pair = pl.DataFrame({"x": x, "y": y}).with_columns(
            (pl.col("x") - pl.col("y")).abs().alias("by"), greater.alias("of")
        )
        near = pl.col("by").is_finite() & (pl.col("by") <= _NOISE * pl.col("of"))
        alike = pl.col("x").eq_missing(pl.col("y")) | near.fill_null(False)
        if not (one.dtype.is_float() or other.dtype.is_float()):  # exact ones have no noise
            one, other = (v.cast(pl.Int128) if v.dtype.is_integer() else v for v in _alike(one, other))
            alike, pair = pl.lit(one.eq_missing(other)), pair.with_columns(by=(one - other).abs().cast(pl.Float64))
        changed = pair.filter(~alike)
        largest = changed.filter(pl.col("by").is_finite())
        relative = largest.select((pl.col("by") / pl.col("of")).max()).item()
        return name, pair.height - changed.height, changed.height, largest["by"].max(), relative  # pyright: ignore[reportReturnType]
    one, other = _alike(one, other)
    equal = int(one.eq_missing(other).sum())
    return name, equal, rows.height - equal, None, None


def _alike(one: pl.Series, other: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Both in one type: a field may have changed its type from one run to the other. What has no type in common is text."""
    if one.dtype == other.dtype:
        return one, other
    try:
        dtype = pl.concat([frame.to_frame("x").head(0) for frame in (one, other)], how="vertical_relaxed").dtypes[0]
        return one.cast(dtype), other.cast(dtype)
    except pl.exceptions.PolarsError:
        return tuple(  # pyright: ignore[reportReturnType]
            pl.Series([None if v is None else str(v) for v in values.to_list()], dtype=pl.String)
            for values in (one, other)
        )


def told(found: Comparison) -> Iterator[str]:
    """The comparison in lines."""
    yield f"{found.one}\n{found.other}"
    if found.one == found.other:
        yield "both are the same run: name an earlier one in full (`scythe runs` lists them)"
    for side, difference in (("inputs", found.inputs), ("outputs", found.outputs)):
        if difference.changes:
            yield f"\nModel of {side}\n{difference}"
    if found.made_by:
        yield "\nMade by"
        width = max(len(what) for what, _, _ in found.made_by)
        yield from (f"  {what:<{width}}  {one} -> {other}" for what, one, other in found.made_by)
    yield (
        f"\nInputs\n  {found.both:,} of equal values, {found.only_one:,} in the first alone, "
        f"{found.only_other:,} in the second alone"
    )
    if found.failed_one or found.failed_other:
        yield f"  failed in the first alone: {found.failed_one:,}; in the second alone: {found.failed_other:,}"


__all__ = ["Comparison", "compare_runs", "told"]
