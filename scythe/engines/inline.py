"""The engine for a debugger: the caller's process, the caller's thread, exceptions with their own traceback."""

from __future__ import annotations

import time

from scythe.engines.ended import done, stop_when_ended
from scythe.engines.engine import Engine, FinishedRef, Launch
from scythe.engines.pool.chunks import ChunkQueue
from scythe.errors import RunError
from scythe.gather.collect import Collector
from scythe.leaf.leaf import ChunkError, Leaf
from scythe.record.lease import Lease
from scythe.record.provenance import record


class InlineEngine(Engine):
    """This process, this thread."""

    name = "inline"
    runs_code = "loaded"

    def start(self, work: Launch) -> FinishedRef:
        """Runs the open inputs to their end and gathers the run.

        Raises:
            Exception: the first that the function raises, after it was recorded as an error row.
            RunCancelled: the run was cancelled meanwhile; it stops before its next input.
            Superseded: another process has taken up the run, because this one stood still.
        """
        this = object()
        stop_when_ended(this)
        try:
            return self._worked(work)
        finally:
            done(this)

    def _worked(self, work: Launch) -> FinishedRef:
        plan, experiment = work.plan, work.experiment

        def taken(number: int) -> None:
            record(plan.objects, plan.key, experiment, InlineEngine.name, number, work.code, work.stored)

        with (
            Lease(plan.objects, plan.key, InlineEngine.name, taken=taken, after=work.after) as lease,
            Leaf(plan, experiment) as leaf,
        ):
            collector = Collector(plan, experiment, lease.number, show=work.show)
            chunks = ChunkQueue(work.open_ranges, 1, plan.chunk)
            stopped: ChunkError | None = None
            try:
                while (chunk := chunks.next()) is not None:
                    began = time.perf_counter()
                    collector.add(leaf.run(chunk.rows, raise_errors=True, stopped=lambda: lease.is_over))
                    lease.check()
                    chunks.measured(chunk.size, time.perf_counter() - began)
            except ChunkError as error:
                stopped = error
            except BaseException as error:
                collector.keep(error)
                raise
            if stopped is not None:
                collector.add(stopped.result)
                collector.keep(stopped.error)
                if isinstance(stopped.error, SystemExit):  # which would end the program without a word
                    raise RunError(
                        f"the function ended the program: sys.exit({stopped.error.code!r}). The input is recorded as an error; go on with the "
                        f'others by: scythe resume "{plan.key.path}"'
                    ) from stopped.error
                raise stopped.error  # outside of the handler: what it was raised from stays as it is
            return FinishedRef(collector.finish())
