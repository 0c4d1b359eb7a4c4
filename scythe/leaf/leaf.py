"""The leaf: runs an experiment's function over a chunk of a run's inputs, Arrow in, Arrow out.

One input that fails becomes a row of `errors`; its neighbours go on. The same code runs in the
caller's process (inline), in a worker process (local), and under a Hatchet task.
Never commits, never writes a table: it returns rows, and moves output files into the run.
"""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scythe.define.bookkeeping import LogRow
from scythe.define.experiment import Experiment
from scythe.leaf.call import Calls, Tell, Tried, Work
from scythe.leaf.failures import Failure
from scythe.leaf.input_files import InputFiles
from scythe.leaf.printed import Printed
from scythe.leaf.renewal import Life, Spent
from scythe.leaf.rows import ChunkBuilder, ChunkResult, run_ids
from scythe.leaf.surroundings import Surroundings
from scythe.record.format import reading
from scythe.record.plan import Positions, RunPlan
from scythe.seeds import running_with
from scythe_catalog.memo import cached_property


class Leaf:
    """One experiment in one run, ready to be called on chunks of its inputs."""

    def __init__(self, plan: RunPlan, experiment: Experiment, call: Callable[..., Any] | None = None) -> None:
        """`call` is what the experiment is bound to already: a process makes one instance of a class, not one a run."""
        self.plan, self.experiment = plan, experiment
        self.schemas = plan.schemas(experiment)
        self._call = call
        self._specs: tuple[int, pa.Table] | None = None
        self._surroundings: Surroundings | None = None
        self._files = InputFiles(plan)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if "specs_file" in self.__dict__:
            self._stream.close()

    # --- inputs -------------------------------------------------------------------------------------

    @cached_property
    def specs_file(self) -> pq.ParquetFile:
        """The run's `specs.pq`, open until the leaf's context ends."""
        with reading(self.plan.objects, self.plan.key.specs, stays=True):
            self._stream = self.plan.objects.reader(self.plan.key.specs)
            return pq.ParquetFile(self._stream)

    @cached_property
    def row_groups(self) -> list[int]:
        """The first row of each row group, and behind them the number of rows."""
        starts, metadata = [0], self.specs_file.metadata
        for i in range(metadata.num_row_groups):
            starts.append(starts[-1] + metadata.row_group(i).num_rows)
        return starts

    def inputs(self, rows: Positions) -> pa.Table:
        """These rows of `specs.pq`, given in ascending order, with the identifiers of this run."""
        if isinstance(rows, range) and rows.step == 1:
            return self._identified(self._slices(rows.start, rows.stop))
        wanted = np.asarray(rows, np.int64)
        edges = np.searchsorted(wanted, self.row_groups)
        tables = [
            self._group(group).take(pa.array(wanted[low:high] - self.row_groups[group]))
            for group, (low, high) in enumerate(itertools.pairwise(edges))
            if low < high
        ]
        return self._identified(pa.concat_tables(tables))

    def _slices(self, start: int, stop: int) -> pa.Table:
        starts = self.row_groups
        tables: list[pa.Table] = []
        for group in range(len(starts) - 1):
            low, high = max(start, starts[group]), min(stop, starts[group + 1])
            if low < high:
                tables.append(self._group(group).slice(low - starts[group], high - low))
        return pa.concat_tables(tables) if tables else self.specs_file.schema_arrow.empty_table()

    def _group(self, group: int) -> pa.Table:
        if self._specs is None or self._specs[0] != group:
            with reading(self.plan.objects, self.plan.key.specs, stays=True):
                self._specs = (group, self.specs_file.read_row_group(group))
        return self._specs[1]

    def _identified(self, rows: pa.Table) -> pa.Table:
        if not self.experiment.options.inject_workflow_run_id:
            return rows
        for name, values in (
            ("workflow_run_id", run_ids(self.plan.key.path, rows.column("sort_index"))),
            ("root_workflow_run_id", pa.repeat(pa.scalar(self.plan.workflow_run_id, pa.string()), rows.num_rows)),
        ):
            i = rows.schema.get_field_index(name)
            rows = rows.set_column(i, rows.schema.field(i), values)
        return rows

    @cached_property
    def _work(self) -> Work:
        """What is called, made when it is needed: a process that only tells of failures makes no instance."""
        return self._work_of(self._call or self.experiment.bind())

    def _work_of(self, call: Callable[..., Any]) -> Work:
        return Work(self.plan, self.experiment, self.schemas, call, f"{socket.gethostname()}:{os.getpid()}")

    # --- running ------------------------------------------------------------------------------------

    def run(
        self,
        rows: Positions,
        *,
        attempts_before: int = 0,
        tell: Tell | None = None,
        raise_errors: bool = False,
        life: Life | None = None,
        printed: Printed | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> ChunkResult:
        """Calls the function on each input of a chunk.

        `tell` is told which input of the chunk and which try it is right before its function starts, and -1 after.
        With `raise_errors` the first exception ends the chunk: its row is in `errors`, and it is
        raised by the caller from `ChunkError`; it ends as well before an input where `stopped` says so.
        With the `life` of a worker process, raises Spent where a fresh process has to go on; what it has `printed` is kept.
        """
        chunk = ChunkBuilder(self._work, self.inputs(rows))
        around = self.surroundings(trusting=not raise_errors)
        calls = Calls(self._work, chunk.rows, chunk.take, around, chunk.before, life, self._files, printed)
        with (
            calls,
            chunk.files.dropped_on_errors(),
            running_with(self.plan.draws_from),
            around.kept(),
            self._work.fetched.within(),
        ):
            if not raise_errors:
                try:
                    calls.run_all(tell, attempts_before, chunk.keep, chunk.forget)
                except Spent as spent:
                    if life is not None:
                        life.make_room()
                    chunk.forget(spent.at)
                    spent.result = chunk.result(upto=spent.at) if spent.at else None
                    raise
                return chunk.result(upto=len(rows))
            for i, spec in enumerate(calls.specs()):
                if stopped():
                    return chunk.result(upto=i)
                tried = calls.attempt(i, spec, tell, attempts_before)
                chunk.keep(i, tried)
                if tried.raised is not None:
                    raise ChunkError(chunk.result(upto=i + 1), tried.raised)
        return chunk.result(upto=len(rows))

    def surroundings(self, *, trusting: bool) -> Surroundings:
        """What this process was like before it ran the first input."""
        if self._surroundings is None:
            self._surroundings = Surroundings(trusting=trusting)
        return self._surroundings

    def failed(
        self, row: int, failure: Failure, seconds: float, began: float, worker: str, printed: LogRow | None = None
    ) -> ChunkResult:
        """The result of an input whose process died or was killed."""
        chunk = ChunkBuilder(self._work_of(self.experiment.target), self.inputs(range(row, row + 1)))
        chunk.keep(0, Tried(failure.attempts, seconds, began, failure, printed=printed))
        chunk.worker = worker
        return chunk.result(upto=1)


class ChunkError(Exception):
    """An exception of the user's function, and the rows up to it."""

    def __init__(self, result: ChunkResult, error: BaseException) -> None:
        super().__init__(type(error).__name__)
        self.result, self.error = result, error
