"""A leaf whose workers were lost again and again: the input that takes them down is found, and costs itself alone.

Its inputs run a few at a time, and which is written down before they begin: what stands there when the leaf comes to the
next worker was running when the last one was lost. Those inputs run with nothing beside them on their worker; one that
is lost with it then is an error row. A worker that hands its work back leaves no note.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from obstore.exceptions import BaseError

from scythe.engines.hatchet.tasks import LeafInput
from scythe.engines.hatchet.worker.loading import Loaded
from scythe.engines.hatchet.worker.stopping import Stopping
from scythe.engines.hatchet.worker.threads import in_thread
from scythe.engines.pool.server import Server
from scythe.errors import WorkerCrashed
from scythe.gather.payload import Packed
from scythe.leaf.failures import Failure
from scythe.leaf.leaf import Leaf
from scythe.record.format import dump, parse_as

#: A leaf that was moved so often is watched: to write down what runs costs a request each time.
MOVES = 2
#: Its inputs are begun in so many steps.
_STEPS = 64
#: The engine moves a task ten times in all: no input may take more of them than this by itself.
_MOST_LOST = 3


@dataclass(frozen=True)
class Begun:
    """The inputs that a try of the leaf had begun and not brought to an end, by their rows in `specs.pq`."""

    rows: list[int]
    #: Nothing else ran on the worker.
    alone: bool
    host: str
    #: [s since 1970]
    since: float


class CarefulLeaf:
    """One more try of a leaf."""

    def __init__(
        self,
        payload: LeafInput,
        loaded: Loaded,
        server: Server,
        stopping: Stopping,
        log: Callable[[logging.LogRecord], None],
        tries: int,
    ) -> None:
        """`tries` counts the earlier ones."""
        self._loaded, self._server, self._stopping, self._log, self._tries = loaded, server, stopping, log, tries
        self._run = loaded.prepared
        self._objects = self._run.plan.objects
        self._rows = [int(row) for row in loaded.attempt.rows(range(*payload.inputs))]
        self._notes = f"{self._run.plan.key.begun(loaded.attempt.number)}/{'-'.join(map(str, payload.inputs))}"

    async def run(self) -> list[Packed]:
        """What the leaf returns."""
        lost = await in_thread(self._lost)
        packed: list[Packed] = []
        for rows in _steps(self._rows, lost):
            packed += await self._step(rows)
        alone: dict[int, list[Begun]] = defaultdict(list)
        for begun in lost:
            if begun.alone:
                alone[begun.rows[0]].append(begun)
        most = max(1, min(self._run.experiment.options.retries, _MOST_LOST))
        for row in sorted({begun.rows[0] for begun in lost if len(begun.rows) == 1}):
            if len(alone[row]) >= most:
                packed.append(await in_thread(lambda row=row: self._error(row, alone[row])))
            else:
                packed += await self._step([row], alone=True)
        return await in_thread(lambda: self._run.packing.repack(packed))

    async def _step(self, rows: Sequence[int], *, alone: bool = False) -> list[Packed]:
        """Runs some inputs, one after the other."""

        def note() -> None:
            begun = Begun([*rows], alone, socket.gethostname(), time.time())
            self._objects.write(self._note(self._tries), dump(asdict(begun)))

        if not alone:
            await in_thread(note)
        task = self._server.submit(self._run, np.array(rows, np.int64), self._log, alone=note if alone else None)
        try:
            return await self._stopping.unless(asyncio.wrap_future(task.future))
        except BaseException:
            self._server.cancel(task)
            raise
        finally:
            with contextlib.suppress(OSError, BaseError):  # at worst it is run alone once more
                await in_thread(lambda: self._objects.delete([self._note(self._tries)]))

    def _lost(self) -> list[Begun]:
        """What earlier tries had begun when their workers were lost, the first first."""
        notes = [self._note(number) for number in range(self._tries)]
        there = {*self._objects.files(self._notes)}
        found = [note for note in notes if note.rpartition("/")[2] in there]
        return [parse_as(Begun, raw, note) for note, raw in zip(found, self._objects.read_all(found), strict=True)]

    def _note(self, number: int) -> str:
        return f"{self._notes}/{number:06d}.json"

    def _error(self, row: int, lost: Sequence[Begun]) -> Packed:
        """The error row of an input that is not run again."""
        hosts = ", ".join(dict.fromkeys(begun.host for begun in lost))
        often = f"{len(lost)} times, " if len(lost) > 1 else ""
        error = WorkerCrashed(
            f"its worker was lost again and again, {often}while nothing else ran on it ({hosts}): the machine or container "
            "may be out of memory"
        )
        with Leaf(self._run.plan, self._run.experiment) as leaf:
            failed = leaf.failed(row, Failure.of(error, self._tries), 0.0, lost[-1].since, lost[-1].host)
            return self._run.packing.pack(failed)


def _steps(rows: Sequence[int], lost: Sequence[Begun]) -> Iterator[Sequence[int]]:
    """Those inputs that need not run alone: some at a time, and one at a time those of which one was running."""
    among = {row for begun in lost if len(begun.rows) > 1 for row in begun.rows}
    suspects = {begun.rows[0] for begun in lost if len(begun.rows) == 1}
    innocent = [row for row in rows if row not in among and row not in suspects]
    size = math.ceil(len(rows) / _STEPS)
    for start in range(0, len(innocent), size):
        yield innocent[start : start + size]
    for row in sorted(among - suspects):
        yield [row]


__all__ = ["MOVES", "CarefulLeaf"]
