"""What one range of inputs comes to: rows, failures, files, frames and times, collected while it runs.

Calls the function, one input after the other, and turns what it returned into Arrow tables. Reads no
inputs, knows no processes, commits nothing.
"""

from __future__ import annotations

import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import ValidationError

from scythe import dataframes
from scythe.base import ExperimentInputSpec
from scythe.errors import DataError, FetchError, OutputError
from scythe.fetch import fetch_all
from scythe.layout import ID_LEVELS, leaf_run_prefix
from scythe.levels import running_on
from scythe.outputs import OutputFiles
from scythe.plan import RunPlan
from scythe.registry import Experiment
from scythe.schemas import ERROR_COLUMNS, TASK_COLUMNS, ExperimentSchemas
from scythe_catalog.compute import pc
from scythe_catalog.schema import (
    Problem,
    TableSchema,
    check_bounds,
    column_to_arrow,
    columns_to_arrow,
    iterate_models,
)
from scythe_catalog.schema.convert import MISFIT

#: Told the number of the input within its range and the try that is about to run; -1 after it.
Mark = Callable[[int, int], None]

#: Rows of `specs.pq`, in ascending order.
Positions = range | np.ndarray


@dataclass(frozen=True)
class Work:
    """What is to be run: one experiment, in one run, by one worker."""

    plan: RunPlan
    experiment: Experiment
    schemas: ExperimentSchemas
    call: Callable[..., Any]
    worker: str


@dataclass(frozen=True)
class Failure:
    """Why an input has no results."""

    kind: str
    message: str
    traceback: str
    attempts: int

    @classmethod
    def of(cls, error: BaseException, attempts: int) -> Failure:
        """The failure that an exception is."""
        kind = type(error)
        name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        # The frames of Scythe's own machinery, above the user's function, say nothing to the user.
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__]
        text = "".join([*traceback.format_list(frames), *traceback.format_exception_only(error)])
        head = "Traceback (most recent call last):\n" if frames else ""
        try:
            message = str(error)
        except Exception:  # noqa: BLE001 - the code of the user's exception may fail too
            message = "its message cannot be shown: __str__ raises"
        return cls(name, message, head + text, attempts)


@dataclass
class ChunkResult:
    """The rows that a range of inputs came to, as Arrow tables by table name.

    A user's dataframe may come in several tables of different schemas; every other name has one table at most.
    """

    rows: int = 0
    errors: int = 0
    tables: list[tuple[str, pa.Table]] = field(default_factory=list[tuple[str, pa.Table]])

    @property
    def first(self) -> int | None:
        """The `sort_index` of one of its inputs, None where there is none."""
        tasks = next((table for name, table in self.tables if name == "tasks"), None)
        return tasks.column("sort_index")[0].as_py() if tasks is not None and tasks.num_rows else None


class Chunk:
    """What is collected while the inputs of one range are run."""

    def __init__(self, work: Work, rows: pa.Table) -> None:
        self.work, self.rows = work, rows
        self.values: list[tuple[Any, ...] | None] = [None] * rows.num_rows
        self.pick = _picker(work.schemas.output.schema.names)
        self.failures: dict[int, Failure] = {}
        self.frames: list[tuple[int, str, Any]] = []
        self.features: list[dict[str, Any]] = []
        self.tasks: list[tuple[int, float, str, float]] = []
        self.files = OutputFiles(work.plan, work.schemas.file_outputs)
        #: Of the input that is running: its file references as they were given, and why one cannot be had.
        self.given: dict[str, str | None] = {}
        self.unfetched: FetchError | None = None
        #: Which try of it this is, among those of this process.
        self.tries = 1

    def specs(self) -> Iterator[ExperimentInputSpec]:
        """The inputs as models, one at a time, with local copies of their files."""
        work = self.work
        specs: Iterator[ExperimentInputSpec] = iterate_models(self.rows, work.schemas.input)
        names = work.schemas.file_inputs
        if not (names and work.experiment.options.auto_fetch_files):
            yield from specs
            return
        columns = [self.rows.column(name).to_pylist() for name in names]
        fetched = fetch_all(uri for column in columns for uri in column if uri is not None)
        for spec, *values in zip(specs, *columns, strict=True):
            self.given = dict(zip(names, values, strict=True))
            self.unfetched = None
            for name, uri in self.given.items():
                found = fetched[uri] if uri is not None else None
                if isinstance(found, FetchError):
                    self.unfetched = FetchError(f"{name}: {found}")
                else:
                    vars(spec)[name] = found
            yield spec

    def run(self, i: int, spec: ExperimentInputSpec, mark: Mark | None, before: int) -> None:
        """Tries one input, and again after an exception, as often as its experiment says."""
        tries = max(1, self.work.experiment.options.retries + 1 - before)
        began, clock = time.time(), time.perf_counter
        started, attempt = clock(), 0
        for attempt in range(1, tries + 1):
            self.tries = attempt
            try:
                self.once(i, spec, mark)
            except BaseException as error:  # noqa: BLE001 - whatever the function raises (SystemExit too) becomes a row
                if attempt == tries:
                    self.failures[i] = Failure.of(error, before + attempt)
            else:
                break
        self.tasks.append((before + attempt, clock() - started, self.work.worker, began))

    def attempt(self, i: int, spec: ExperimentInputSpec, mark: Mark | None, before: int) -> BaseException | None:
        """Tries one input once; what it raised."""
        began, started = time.time(), time.perf_counter()
        raised: BaseException | None = None
        try:
            self.once(i, spec, mark)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - handed to the caller of `allocate` as it is
            self.failures[i] = Failure.of(error, before + 1)
            raised = error
        self.tasks.append((before + 1, time.perf_counter() - started, self.work.worker, began))
        return raised

    def once(self, i: int, spec: ExperimentInputSpec, mark: Mark | None) -> None:
        """Calls the function and takes over what it returned."""
        experiment = self.work.experiment
        if self.unfetched is not None:
            raise self.unfetched
        token = running_on.set((spec, self.given)) if self.given else None
        folder: tempfile.TemporaryDirectory[str] | None = None
        try:
            if experiment.wants_tempdir:
                folder = tempfile.TemporaryDirectory(prefix="scythe-", ignore_cleanup_errors=True)
                tempdir = Path(folder.name)
                if experiment.options.local_file_location == "copied-to-tempdir" and self.given:
                    spec = self.copied(spec, tempdir)
                output = self.timed(mark, i, spec, tempdir=tempdir)
            else:
                output = self.timed(mark, i, spec)
            self.take(i, spec, output, Path(folder.name) if folder else None)
        finally:
            if folder is not None:
                folder.cleanup()
            if token is not None:
                running_on.reset(token)

    def timed(self, mark: Mark | None, i: int, spec: ExperimentInputSpec, **more: Any) -> Any:
        """Calls the function between two marks, so that its time can be limited from outside."""
        if mark is None:
            return self.work.call(spec, **more)
        mark(i, self.tries)
        try:
            return self.work.call(spec, **more)
        finally:
            mark(-1, 0)

    def copied(self, spec: ExperimentInputSpec, tempdir: Path) -> ExperimentInputSpec:
        """The spec with its files copied into the input's own folder."""
        import shutil

        spec = spec.model_copy()
        for name in self.work.schemas.file_inputs:
            source = vars(spec)[name]
            if isinstance(source, Path):
                folder = tempdir / "inputs" / name
                folder.mkdir(parents=True)
                vars(spec)[name] = Path(shutil.copy(source, folder))
        running_on.set((spec, running_on.get()[1]))  # pyright: ignore[reportOptionalSubscript]
        return spec

    def take(self, i: int, spec: ExperimentInputSpec, output: Any, tempdir: Path | None) -> None:
        """Checks what the function returned, moves its files, and keeps the rest for `result`."""
        model = self.work.experiment.output_model
        if not isinstance(output, model):
            raise OutputError(
                f"the function returned {type(output).__name__}, not {model.__name__}: check its return statement"
            )
        frames = dataframes.prepare(output.dataframes) if output.dataframes else []
        for name, frame in frames:
            dataframes.check_clashes(name, frame, self.work.schemas.levels.names)
        if self.work.schemas.computed:
            self.features_of(i, spec)
        if self.files.names:
            output = self.files.take(i, output, self.run_id(i), tempdir)
        self.frames += [(i, name, frame) for name, frame in frames]
        self.values[i] = self.pick(vars(output))

    def features_of(self, i: int, spec: ExperimentInputSpec) -> None:
        """Keeps the computed features of an input, which were evaluated once at allocation for their types."""
        found = dict(spec.computed_features)
        names = [c.name for c in self.work.schemas.computed]
        if set(found) - set(names):
            raise OutputError(
                f"computed_features gave {sorted(set(found) - set(names))}, which the first inputs did not"
            )
        while len(self.features) <= i:
            self.features.append({})
        self.features[i] = found

    def run_id(self, i: int) -> str:
        """What the output files of an input are named by."""
        return run_ids(self.work.plan.key.path, self.rows.column("sort_index").slice(i, 1))[0].as_py()

    # --- rows ---------------------------------------------------------------------------------------

    def result(self, upto: int) -> ChunkResult:
        """All rows of the range, outputs that break their own model turned into error rows."""
        schemas = self.work.schemas
        inputs = self.with_features(self.rows.slice(0, upto))
        while True:
            good = [i for i in range(upto) if i not in self.failures]
            table, what = None, schemas.output.model.__name__
            try:
                if good:
                    values = self.values[:upto] if len(good) == upto else [self.values[i] for i in good]
                    columns = list(zip(*values, strict=True))  # pyright: ignore[reportArgumentType]
                    table = columns_to_arrow(columns, schemas.output.schema, what=what)
                    check_bounds(table, schemas.output.schema, what=what)
                break
            except (DataError, *MISFIT, ValidationError) as error:
                self.fail_misfits(error, good)
        result = ChunkResult(len(good), len(self.failures))
        if table is not None:
            base = inputs if len(good) == upto else inputs.take(pa.array(good))
            scalars = side_by_side(schemas.tables["scalars"], base, table)
            result.tables.append(("scalars", scalars))
            if "result_file_refs" in schemas.tables:
                refs = side_by_side(schemas.tables["result_file_refs"], base, table)
                result.tables.append(("result_file_refs", refs))
        if self.failures:
            result.tables.append(("errors", self.error_rows(inputs)))
        result.tables.append(("tasks", self.task_rows(inputs)))
        frames = [f for f in self.frames if f[0] not in self.failures]
        if frames:
            result.tables += dataframes.stack(frames, inputs.select(list(schemas.levels.names)))
        self.files.flush(keep=set(good))
        return result

    def fail_misfits(self, error: Exception, good: Sequence[int]) -> None:
        """Turns the inputs that an error names into failures; all of them where it names none."""
        problems = [p for p in getattr(error, "problems", ()) if isinstance(p, Problem)]
        named = {r for p in problems for r in p.rows}
        for r in named or range(len(good)):
            rule = "; ".join(f"{p.column}: {p.rule}" for p in problems if r in p.rows) or str(error)
            i = good[r]
            attempts = self.tasks[i][0]
            self.failures[i] = Failure.of(OutputError(f"the output breaks its own model: {rule}"), attempts)

    def with_features(self, inputs: pa.Table) -> pa.Table:
        """The input rows with their computed features."""
        for column in self.work.schemas.computed:
            values = [f.get(column.name) for f in self.features[: inputs.num_rows]]
            values += [None] * (inputs.num_rows - len(values))
            try:
                array = column_to_arrow(column, values)
            except DataError as error:
                bad = {r for p in error.problems if isinstance(p, Problem) for r in p.rows}
                for i in bad - set(self.failures):
                    failure = OutputError(
                        f"computed feature {column.name!r} must be {column.kind.describe()}, got {values[i]!r}"
                    )
                    self.failures[i] = Failure.of(failure, self.tasks[i][0])
                array = column_to_arrow(column, [None if i in bad else v for i, v in enumerate(values)])
            inputs = inputs.append_column(column.arrow, array)
        return inputs

    def error_rows(self, inputs: pa.Table) -> pa.Table:
        order = sorted(self.failures)
        found = [self.failures[i] for i in order]
        columns = [
            pa.array([f.kind for f in found], pa.string()),
            pa.array([_clean(f.message) for f in found], pa.string()),
            pa.array([_clean(f.traceback) for f in found], pa.string()),
            pa.array([f.attempts for f in found], pa.int64()),
        ]
        errors = pa.table(columns, names=[c.name for c in ERROR_COLUMNS])
        return side_by_side(self.work.schemas.tables["errors"], inputs.take(pa.array(order)), errors)

    def task_rows(self, inputs: pa.Table) -> pa.Table:
        attempts, seconds, workers, starts = zip(*self.tasks, strict=True) if self.tasks else ((), (), (), ())
        moments = pa.array([int(s * 1e6) for s in starts], pa.int64()).cast(pa.timestamp("us", "UTC"))
        columns = [
            pa.array(attempts, pa.int64()),
            pa.array(seconds, pa.float64()),
            pa.array(workers, pa.string()),
            moments,
        ]
        tasks = pa.table(columns, names=[c.name for c in TASK_COLUMNS])
        return side_by_side(self.work.schemas.tables["tasks"], inputs.select(list(ID_LEVELS)), tasks)


def _picker(names: Sequence[str]) -> Callable[[dict[str, Any]], tuple[Any, ...]]:
    """Takes these values of a dict as a tuple."""
    if len(names) > 1:
        return itemgetter(*names)
    return lambda values: tuple(values[name] for name in names)


def _clean(text: str) -> str:
    """Text that Arrow takes: a message may hold anything."""
    return text.encode("utf-8", "backslashreplace").decode()


def run_ids(experiment_id: str, sort_index: pa.ChunkedArray) -> pa.ChunkedArray:
    """`workflow_run_id` of each row: what `scythe.layout.leaf_run_id` gives, for a column."""
    digits = pc.utf8_lpad(sort_index.cast(pa.string()), 12, "0")
    return pc.binary_join_element_wise(pa.scalar(leaf_run_prefix(experiment_id)), digits, "")


def side_by_side(schema: TableSchema, *tables: pa.Table) -> pa.Table:
    """The columns of a schema, each from the table that has it; a column that none has is null."""
    rows = tables[0].num_rows
    columns: list[pa.ChunkedArray | pa.Array] = []
    for column in schema:
        source = next((t for t in tables if column.name in t.column_names), None)
        columns.append(pa.nulls(rows, column.kind.storage) if source is None else source.column(column.name))
    return pa.table(columns, schema=schema.arrow)
