"""The engine for a debugger: the caller's process, the caller's thread, exceptions with their own traceback."""

from __future__ import annotations

import time
from collections.abc import Iterable

from scythe.define.experiment import Experiment
from scythe.engines.engine import Engine, FinishedRef, Launch
from scythe.engines.pool.chunks import ChunkQueue
from scythe.gather.collect import Collector
from scythe.leaf.leaf import ChunkError, Leaf
from scythe.record.lease import Lease
from scythe.record.plan import RunPlan
from scythe.record.provenance import record


class InlineEngine(Engine):
    """This process, this thread."""

    name = "inline"

    def start(self, work: Launch) -> FinishedRef:
        return _run(work.plan, work.experiment, work.open_ranges, show=work.show)


def _run(plan: RunPlan, experiment: Experiment, open_ranges: Iterable[tuple[int, int]], *, show: bool) -> FinishedRef:
    """Runs the open inputs to their end and gathers the run.

    Raises:
        Exception: the first that the function raises, after it was recorded as an error row.
        RunCancelled: the run was cancelled meanwhile; it stops before its next input.
        Superseded: another process has taken up the run, because this one stood still.
    """

    def taken(number: int) -> None:
        record(plan.objects, plan.key, experiment, InlineEngine.name, number)

    with Lease(plan.objects, plan.key, InlineEngine.name, taken=taken) as lease, Leaf(plan, experiment) as leaf:
        collector = Collector(plan, experiment, lease.number, show=show)
        chunks = ChunkQueue(open_ranges, 1, plan.chunk)
        stopped: ChunkError | None = None
        try:
            while (work := chunks.next()) is not None:
                began = time.perf_counter()
                collector.add(leaf.run(work.rows, raise_errors=True, stopped=lambda: lease.is_over))
                lease.check()
                chunks.measured(work.size, time.perf_counter() - began)
        except ChunkError as error:
            stopped = error
        except BaseException as error:
            collector.keep(error)
            raise
        if stopped is not None:
            collector.add(stopped.result)
            collector.keep(stopped.error)
            raise stopped.error  # outside of the handler: what it was raised from stays as it is
        return FinishedRef(collector.finish())
