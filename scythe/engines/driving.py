"""Drives a pool of this machine through open inputs: chunks go out, and their rows, or error rows, come back to a collector.

Starts no process, and knows nothing of who else works on the run.
"""

from __future__ import annotations

from collections.abc import Callable

from scythe.define.code import Code
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
        code: Code,
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
        self._job = pool_job(plan, experiment, code, attempt=collector.attempt)
        #: The chunks on their way, each by the number of its object.
        self._given: dict[int, Chunk] = {}
        pool.prepare(self._job)

    @property
    def is_busy(self) -> bool:
        """Whether anything is open or on its way."""
        return bool(self.chunks.remaining or self._given)

    @property
    def given_rows(self) -> list[int]:
        """The rows that processes have and that have not come back."""
        return [int(row) for chunk in self._given.values() for row in chunk.rows]

    @property
    def lowest(self) -> int | None:
        """The first of the rows that have not come back; None where all have."""
        waiting = [int(chunk.rows[0]) for chunk in self._given.values()]
        queued = self.chunks.lowest
        return min([*waiting, *([queued] if queued is not None else [])], default=None)

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
            work = self.chunks.next(self._collector.limit.allowed(sum(chunk.size for chunk in self._given.values())))
            if work is None:
                return
            self._job = kept_up(self._job, self._plan)
            self._before(work)
            self._pool.submit(work, self._job)
            self._given[id(work)] = work

    def _heard(self, event: Event) -> None:
        match event:
            case Done(work, result, seconds):
                del self._given[id(work)]
                self.chunks.measured(work.size, seconds)
                self._collector.add(*result)
            case Renewed(work, done, result, again, seconds):
                del self._given[id(work)]
                self._given |= {id(chunk): chunk for chunk in again}
                if result is not None:
                    self.chunks.measured(done, seconds)
                    self._collector.add(*result)
            case Died():
                del self._given[id(event.chunk)]
                what = after(event, self._experiment.options.retries)
                self.chunks.give_back(*what.again)
                if what.lost is not None:
                    self._collector.add(error_row(self._leaf, event, what))
            case Broken(_, error):
                if isinstance(error, RunError):
                    raise error
                raise RunError(
                    f"the run {self._plan.key.path} is interrupted: {error}; what was finished is kept: resume it"
                )
            case Logged(_, record):
                relay(record)


__all__ = ["Driver"]
