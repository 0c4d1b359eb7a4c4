"""Drives a pool of this machine through open inputs: chunks go out, and their rows, or error rows, come back to a collector.

Starts no process, and knows nothing of who else works on the run.
"""

from __future__ import annotations

from collections.abc import Callable

from scythe.define.experiment import Experiment
from scythe.engines.pool.chunks import ChunkQueue
from scythe.engines.pool.crashes import after, error_row
from scythe.engines.pool.job import kept_up, pool_job
from scythe.engines.pool.logs import relay
from scythe.engines.pool.pool import Broken, Chunk, Died, Done, Event, Logged, Pool, Renewed
from scythe.errors import RunError
from scythe.gather.collect import Collector
from scythe.leaf.leaf import Leaf
from scythe.record.plan import RunPlan


class Driver:
    """The work of one process on a run: what is out, what is back, and what is to be run again."""

    def __init__(
        self,
        plan: RunPlan,
        experiment: Experiment,
        collector: Collector,
        pool: Pool,
        chunks: ChunkQueue,
        leaf: Leaf,
        *,
        before: Callable[[Chunk], None] = lambda _: None,
    ) -> None:
        """`before` is told of each chunk before a process gets it."""
        self.chunks, self._plan, self._experiment = chunks, plan, experiment
        self._collector, self._pool, self._leaf, self._before = collector, pool, leaf, before
        self._job = pool_job(plan, experiment, attempt=collector.attempt)
        self._in_flight = self._out = 0  # chunks and inputs on their way
        pool.prepare(self._job)

    @property
    def is_busy(self) -> bool:
        """Whether anything is open or on its way."""
        return bool(self.chunks.remaining or self._in_flight)

    def step(self, seconds: float) -> None:
        """Gives out what the processes take, and waits at most so long for what comes back.

        Raises:
            RunError: processes cannot be started, or work outside of the user's function failed.
            StorageError: the root cannot be reached or written.
            TooManyErrors: more inputs failed than the run may have.
        """
        self._give_out()
        for event in self._pool.poll(seconds):
            self._heard(event)

    def _give_out(self) -> None:
        for _ in range(self._pool.hungry(self.chunks.depth)):
            work = self.chunks.next(self._collector.limit.allowed(self._out))
            if work is None:
                return
            self._job = kept_up(self._job, self._plan)
            self._before(work)
            self._pool.submit(work, self._job)
            self._in_flight, self._out = self._in_flight + 1, self._out + work.size

    def _heard(self, event: Event) -> None:
        match event:
            case Done(work, result, seconds):
                self._in_flight, self._out = self._in_flight - 1, self._out - work.size
                self.chunks.measured(work.size, seconds)
                self._collector.add(*result)
            case Renewed(_, done, result, again, seconds):
                self._in_flight, self._out = self._in_flight + len(again) - 1, self._out - done
                if result is not None:
                    self.chunks.measured(done, seconds)
                    self._collector.add(*result)
            case Died():
                self._in_flight, self._out = self._in_flight - 1, self._out - event.chunk.size
                what = after(event, self._experiment.options.retries)
                self.chunks.give_back(*what.again)
                if what.lost is not None:
                    self._collector.add(error_row(self._leaf, event, what.lost, what.attempts))
            case Broken(_, error):
                if isinstance(error, RunError):
                    raise error
                raise RunError(
                    f"the run {self._plan.key.path} is interrupted: {error}; what was finished is kept: resume it"
                )
            case Logged(_, record):
                relay(record)


__all__ = ["Driver"]
