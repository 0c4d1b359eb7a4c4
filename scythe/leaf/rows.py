"""What one chunk of inputs comes to: rows, failures, files, frames and times, collected while it runs.

Turns what the function returned into Arrow tables. Reads no inputs, calls no function, commits nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import ValidationError

from scythe.base import ExperimentInputSpec
from scythe.define import features
from scythe.define.bookkeeping import ErrorRow, LogRow, TaskRow, table_by_column, table_of
from scythe.define.schemas import LOGS, check_result
from scythe.errors import DataError, OutputError
from scythe.leaf import dataframes
from scythe.leaf.call import Tried, Work
from scythe.leaf.failures import Failure
from scythe.leaf.kept import picker
from scythe.leaf.outputs import OutputFiles, Place
from scythe.names import ID_LEVELS
from scythe.record.layout import leaf_run_prefix
from scythe_catalog.compute import pc
from scythe_catalog.memo import cached_property
from scythe_catalog.schema import Problem, TableSchema, check_bounds, column_to_arrow, columns_to_arrow
from scythe_catalog.schema import kinds as k
from scythe_catalog.schema.convert import MISFIT


@dataclass
class ChunkResult:
    """The rows that a chunk of inputs came to, as Arrow tables by table name.

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

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickled as it is, a slice of a table takes all rows of the table with it.
        return _loaded, (self.rows, self.errors, [(name, _as_stream(table)) for name, table in self.tables])


def _as_stream(table: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue()


def _loaded(rows: int, errors: int, streams: list[tuple[str, pa.Buffer]]) -> ChunkResult:
    return ChunkResult(rows, errors, [(name, pa.ipc.open_stream(stream).read_all()) for name, stream in streams])


class ChunkBuilder:
    """Collects what the inputs of one chunk come to while they run, and makes it a `ChunkResult`."""

    def __init__(self, work: Work, rows: pa.Table) -> None:
        self.work, self.rows = work, rows
        self.values: list[tuple[Any, ...] | None] = [None] * rows.num_rows
        self.pick = picker(work.schemas.output)
        self.failures: dict[int, Failure] = {}
        self.frames: list[tuple[int, str, Any]] = []
        #: Computed features that `specs.pq` does not hold, by input.
        self.features: dict[int, dict[str, Any]] = {}
        unknown = any(c.name not in rows.column_names for c in work.schemas.computed)
        self.tried: list[Tried] = []
        self.worker = work.worker
        self.printed: dict[int, LogRow] = {}
        self.files = OutputFiles(work.plan, work.schemas.file_outputs)
        self._columns, self._files = work.schemas.output.schema.names, frozenset(self.files.names)
        #: What is done right before the function is called.
        self.before = self.features_of if unknown else None

    def keep(self, i: int, tried: Tried) -> None:
        """Keeps how an input was run, and why it failed if it did."""
        if tried.failure is not None:
            self.failures[i] = tried.failure
        if tried.printed is not None:
            self.printed[i] = tried.printed
        self.tried.append(tried)

    def forget(self, start: int) -> None:
        """Drops what was kept of the inputs from this one on: they are run again."""
        del self.tried[start:]
        self.features = {i: found for i, found in self.features.items() if i < start}
        self.failures = {i: failure for i, failure in self.failures.items() if i < start}
        self.printed = {i: row for i, row in self.printed.items() if i < start}
        self.frames = [frame for frame in self.frames if frame[0] < start]
        self.files.forget(start)

    def take(self, i: int, spec: ExperimentInputSpec, output: Any, place: Place) -> None:
        """Checks what the function returned, moves its files, and keeps the rest for `result`."""
        check_result(output, self.work.experiment.output_model)
        frames = dataframes.prepare(output.dataframes) if output.dataframes else ()
        for name, frame in frames:
            dataframes.check_clashes(name, frame, self.work.schemas.levels.names)
        values = self.pick(output)  # computed fields may open its files, which are gone afterwards
        if self.files.names:
            taken = vars(self.files.take(i, output, self.run_ids[i], place))
            values = tuple(
                [
                    taken[name] if name in self._files else value
                    for name, value in zip(self._columns, values, strict=True)
                ]
            )
        self.values[i] = values
        for name, frame in frames:
            self.frames.append((i, name, frame))

    def features_of(self, i: int, spec: ExperimentInputSpec) -> None:
        """Keeps the computed features of an input."""
        if i not in self.features:
            self.features[i] = features.evaluate(spec, self.work.schemas.computed)

    @cached_property
    def run_ids(self) -> list[str]:
        """What the output files of each input are named by."""
        return run_ids(self.work.plan.key.path, self.rows.column("sort_index")).to_pylist()

    # --- rows ---------------------------------------------------------------------------------------

    def result(self, upto: int) -> ChunkResult:
        """All rows of the chunk, outputs that break their own model turned into error rows."""
        schemas = self.work.schemas
        inputs = self.with_features(self.rows.slice(0, upto))
        levels = inputs.select(list(schemas.levels.names))
        groups = dataframes.grouped(f for f in self.frames if f[0] not in self.failures)
        for i, reason in dataframes.contradictions(groups, levels, _unlike(schemas.levels) if groups else ()).items():
            self.failures[i] = Failure.of(OutputError(reason), self.tried[i].attempts)
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
        if (apart := self.files.flush(keep=set(good))) and table is not None:
            table = _renamed(table, self.files.names, apart)
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
        if self.printed:
            result.tables.append(("logs", self.log_rows(inputs)))
        result.tables += dataframes.stack(groups, levels, self.failures)
        return result

    def fail_misfits(self, error: Exception, good: Sequence[int]) -> None:
        """Turns the inputs that an error names into failures; all of them where it names none."""
        problems = [p for p in getattr(error, "problems", ()) if isinstance(p, Problem)]
        named = {r for p in problems for r in p.rows}
        for r in named or range(len(good)):
            i = good[r]
            # Of itself: what is told of many rows together shows the value of the first.
            own = self._problems_of(i) if len(named) > 1 else ()
            rule = "; ".join(f"{p.column}: {p.rule}" for p in own or [p for p in problems if r in p.rows]) or str(error)
            attempts = self.tried[i].attempts
            self.failures[i] = Failure.of(OutputError(f"the output breaks its own model: {rule}"), attempts)

    def _problems_of(self, i: int) -> Sequence[Problem]:
        """What is wrong with the values of one input."""
        schemas = self.work.schemas
        try:
            table = columns_to_arrow([[value] for value in self.values[i] or ()], schemas.output.schema, what="")
            check_bounds(table, schemas.output.schema, what="")
        except (DataError, *MISFIT, ValidationError) as error:
            return [p for p in getattr(error, "problems", ()) if isinstance(p, Problem)]
        return ()

    def with_features(self, inputs: pa.Table) -> pa.Table:
        """The input rows with their computed features."""
        for column in self.work.schemas.computed:
            if column.name not in inputs.column_names:
                values = [self.features.get(i, {}).get(column.name) for i in range(inputs.num_rows)]
                inputs = inputs.append_column(column.arrow, column_to_arrow(column, values))
        return inputs

    def error_rows(self, inputs: pa.Table) -> pa.Table:
        order = sorted(self.failures)
        found = [self.failures[i] for i in order]
        errors = table_of(
            ErrorRow, [ErrorRow(f.kind, _clean(f.message), _clean(f.traceback), f.attempts) for f in found]
        )
        return side_by_side(self.work.schemas.tables["errors"], inputs.take(pa.array(order)), errors)

    def log_rows(self, inputs: pa.Table) -> pa.Table:
        order = sorted(self.printed)
        logs = table_of(LogRow, [self.printed[i] for i in order])
        return side_by_side(LOGS, inputs.take(pa.array(order)).select(list(ID_LEVELS)), logs)

    def task_rows(self, inputs: pa.Table) -> pa.Table:
        attempts, seconds, began, *_ = zip(*self.tried, strict=True) if self.tried else ((), (), ())
        start = (np.array(began, np.float64) * 1e6).astype(np.int64)
        worker = [self.worker] * len(self.tried)
        tasks = table_by_column(TaskRow, {"attempts": attempts, "seconds": seconds, "worker": worker, "start": start})
        return side_by_side(self.work.schemas.tables["tasks"], inputs.select(list(ID_LEVELS)), tasks)


def _unlike(levels: TableSchema) -> set[str]:
    """The levels that a function has in another form than the table: identifiers, files, durations, members of an Enum."""

    def is_unlike(kind: k.Kind) -> bool:
        members = kind.python or () if isinstance(kind, k.Category) else ()
        return kind.is_file or isinstance(kind, k.Duration) or not all(isinstance(m.value, str) for m in members)

    return {c.name for c in levels if c.name != "sort_index" and (c.name in ID_LEVELS or is_unlike(c.kind))}


def _renamed(table: pa.Table, columns: Sequence[str], names: Mapping[str, str]) -> pa.Table:
    """A table with other texts in some columns, by what they were."""
    before, after = pa.array(list(names)), pa.array(list(names.values()))
    for column in columns:
        values = table.column(column)
        found = pc.take(after, pc.index_in(values, value_set=before.cast(values.type))).cast(values.type)
        table = table.set_column(table.column_names.index(column), table.field(column), pc.coalesce(found, values))
    return table


def _clean(text: str) -> str:
    """Text that Arrow takes: a message may hold anything."""
    return text.encode("utf-8", "backslashreplace").decode()


def run_ids(experiment_id: str, sort_index: pa.ChunkedArray) -> pa.ChunkedArray:
    """`workflow_run_id` of each row: the same over retries, in the form of a UUID."""
    digits = pc.utf8_lpad(sort_index.cast(pa.string()), 12, "0")
    return pc.binary_join_element_wise(pa.scalar(leaf_run_prefix(experiment_id)), digits, "")


def side_by_side(schema: TableSchema, *tables: pa.Table) -> pa.Table:
    """The columns of a schema, each from the table that has it; a column that none has is null."""
    rows = tables[0].num_rows
    known = {name: column for t in reversed(tables) for name, column in zip(t.column_names, t.columns, strict=True)}
    columns = [known[c.name] if c.name in known else pa.nulls(rows, c.kind.storage) for c in schema]
    return pa.table(columns, schema=schema.arrow)
