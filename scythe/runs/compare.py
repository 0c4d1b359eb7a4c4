"""What differs between two runs: models, code, packages, and for equal inputs the outputs. Writes nothing."""

from __future__ import annotations

import operator
import re
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import polars as pl
import pyarrow as pa

from scythe.errors import NotFoundError, RunDamaged, RunError
from scythe.gather.run_files import scan_result, schema_of_result
from scythe.leaf.input_files import contents_of
from scythe.names import ID_LEVELS, RESERVED_TABLES
from scythe.record.manifest import read_manifest, renames_now, schemas_of_run
from scythe.record.results import RunResult
from scythe.remote.forks import check_fork
from scythe.reuse.identity import with_sorted_json, without_maps
from scythe.runs.run import ExperimentRun
from scythe.runs.sameness import as_keys, exact, same
from scythe_catalog.schema import Change, Difference, Severity, TableSchema, compare, mixed_meanings, mixed_units
from scythe_catalog.schema.kinds import Json

#: What inputs hold beyond the fields of their model, in a form that equal ones share; and which one an input is among its equals.
_EXTRAS, _NTH = "_extras", "_nth"


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
    #: Fields that are in one unit here and in another there, or have a category that means something else, and both: by values alone
    #: nothing can be said of them.
    units: tuple[str, ...] = ()


def compare_runs(one: ExperimentRun, other: ExperimentRun) -> Comparison:
    """What differs between two finished runs.

    Raises:
        RunError: one of them is not finished.
        RunDamaged: a file of one of them is damaged or gone.
        NotFoundError: their experiments have no input in common.
    """
    check_fork()
    first, second = _Side.of(one), _Side.of(other)
    keys = [name for name in first.shared("input", second) if name not in ID_LEVELS]
    if not keys:
        raise NotFoundError(f"{one.experiment_id} and {other.experiment_id} have no input field in common")
    a, b = first.rows(keys), second.rows(keys)
    for name in keys:
        left, right = as_keys(a[name], b[name])
        a, b = a.with_columns(left.alias(name)), b.with_columns(right.alias(name))
    keys.append(_EXTRAS)
    a, b = (rows.with_columns(pl.int_range(pl.len()).over(keys).alias(_NTH)) for rows in (a, b))
    told: dict[str, str] = {}
    for both in [(first.schemas[side], second.schemas[side]) for side in ("input", "output")]:
        told |= {name: f"[{'], ['.join(units)}]" for name, units in mixed_units(both).items()} | mixed_meanings(both)
    unlike = {re.split(r"[.\[]", path)[0] for path in told}
    others = b.head(0) if unlike & {*keys} else b  # inputs of another unit are no equal ones
    joined = a.join(others, on=[*keys, _NTH], how="inner", nulls_equal=True, suffix="_other")
    outputs = [name for name in first.shared("output", second) if name not in unlike]
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
        tuple(f"{name} ({how})" for name, how in told.items()),
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
            if (problem := run.problem) is not None and run.status == "damaged":
                raise RunDamaged(problem)
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
        """All inputs with what they came to, in their order; files by what is in them."""
        objects = self.run.objects
        with _whole(self.run):
            scalars, errors = (
                scan_result(objects, self.result.tables[name], self.renamed).collect() for name in ("scalars", "errors")
            )
        outputs = [name for name in self.schemas["output"].names if name in scalars.columns]
        extras = self._extras()
        of_inputs = [pl.col("sort_index"), *map(pl.col, keys), extras.cast(pl.String).alias(_EXTRAS)]
        rows = pl.concat(
            [
                scalars.select(*of_inputs, *outputs).with_columns(pl.lit(False).alias("_failed")),
                errors.select(of_inputs).with_columns(pl.lit(True).alias("_failed")),
            ],
            how="diagonal_relaxed",
        ).sort("sort_index")
        rows = rows.with_columns(with_sorted_json(rows[_EXTRAS]))
        contents = contents_of(objects, self.run.key)
        files = [c.name for c in self.schemas["input"] if c.kind.is_file and c.name in keys]
        rows = rows.with_columns(pl.col(files).replace(contents)) if contents and files else rows
        return rows.with_columns(without_maps(values) for values in rows)

    def _extras(self) -> pl.Expr:
        """What inputs hold beyond their model's fields; null where they hold no more."""
        fields = {name for schema in self.schemas.values() for name in schema.names}
        table = schema_of_result(self.run.objects, self.result.tables["scalars"])
        names = [c.name for c in table if isinstance(c.kind, Json) and self.renamed.get(c.name, c.name) not in fields]
        return pl.col(names[0]) if names else pl.lit(None)


@contextmanager
def _whole(run: ExperimentRun) -> Generator[None]:
    """Where a file of a run is read."""
    try:
        yield
    except (pa.ArrowException, pl.exceptions.PolarsError, FileNotFoundError) as error:
        reason = str(error).splitlines()[0]
        raise RunDamaged(f"a file of {run.experiment_id} is gone or damaged: {reason}") from error


def _made_by(run: ExperimentRun) -> dict[str, str]:
    with _whole(run):
        manifest = read_manifest(run.objects, run.key)
    packages = manifest.get("packages") or {}
    last = run.attempts[-1].provenance if run.attempts else None
    found = {"python": manifest.get("python"), "engine": manifest.get("engine"), "seed": manifest.get("seed")}
    found |= {"commit": last.described, "code": last.code and last.code[:12]} if last is not None else {}
    return {what: str(value) for what, value in {**packages, **found}.items() if value is not None}


def _changed(rows: pl.DataFrame, name: str) -> tuple[str, int, int, float | None, float | None]:
    """How many values of an output differ, and by how much at most."""
    one, other = rows[name], rows[f"{name}_other"]
    unlike = ~same(one, other)
    changed = int(unlike.sum())
    if not (one.dtype.is_numeric() and other.dtype.is_numeric()):
        return name, rows.height - changed, changed, None, None
    is_exact = not (one.dtype.is_float() or other.dtype.is_float())
    x, y = one.filter(unlike), other.filter(unlike)
    by = (operator.sub(*exact(x, y)) if is_exact else x.cast(pl.Float64) - y.cast(pl.Float64)).abs()
    pair = pl.DataFrame({"by": by.cast(pl.Float64), "x": x.cast(pl.Float64), "y": y.cast(pl.Float64)})
    largest = pair.filter(pl.col("by").is_finite())
    of = pl.max_horizontal(pl.col("x").abs(), pl.col("y").abs())
    relative = largest.select((pl.col("by") / of).max()).item()
    return name, rows.height - changed, changed, largest["by"].max(), relative  # pyright: ignore[reportReturnType]


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
