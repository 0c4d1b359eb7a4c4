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
import threading
import time
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
from scythe.gather.payload import Payload
from scythe.leaf.failures import Failure
from scythe.leaf.leaf import Leaf
from scythe.record.format import dump, parse_as
from scythe_catalog.storage.objects import Objects

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


class _Note:
    """What is begun, as it stands in the run's folder: never once it was taken back, whoever is about to write it."""

    def __init__(self, objects: Objects, key: str, rows: Sequence[int], *, alone: bool) -> None:
        self._objects, self._key, self._rows, self._alone = objects, key, [*rows], alone
        self._writing, self._is_over = threading.Lock(), False

    def write(self) -> None:
        """Writes it down, right before the inputs begin."""
        with self._writing:
            if not self._is_over:
                begun = Begun(self._rows, self._alone, socket.gethostname(), time.time())
                self._objects.write(self._key, dump(asdict(begun)))

    def take_back(self) -> None:
        """The inputs do not run any more, and nobody was lost with them."""
        with self._writing:
            self._is_over = True
            self._objects.delete([self._key])


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

    async def run(self) -> list[Payload]:
        """What the leaf returns. Suspects come first: should their worker be lost again, nothing else is."""
        lost = await in_thread(self._lost)
        packed: list[Payload] = []
        most = max(1, min(self._run.experiment.options.retries, _MOST_LOST))
        for row in sorted({begun.rows[0] for begun in lost if len(begun.rows) == 1}):
            own = [begun for begun in lost if row in begun.rows]
            if sum(begun.alone for begun in own) >= most:
                packed.append(await in_thread(lambda row=row, own=own: self._error(row, own)))
            else:
                packed += await self._step([row], alone=True)
        for rows in _steps(self._rows, lost):
            packed += await self._step(rows)
        return await in_thread(lambda: self._run.payloads.merged(packed))

    async def _step(self, rows: Sequence[int], *, alone: bool = False) -> list[Payload]:
        """Runs some inputs, one after the other."""
        note = _Note(self._objects, self._note(self._tries), rows, alone=alone)
        try:
            if not alone:
                await in_thread(note.write)
            then = note.write if alone else None
            task = self._server.submit(self._run, np.array(rows, np.int64), self._log, alone=then)
            try:
                return await self._stopping.unless(asyncio.wrap_future(task.future))
            except BaseException:
                self._server.cancel(task)
                raise
        finally:
            with contextlib.suppress(OSError, BaseError):  # at worst it is run alone once more
                await in_thread(note.take_back)

    def _lost(self) -> list[Begun]:
        """What earlier tries had begun when their workers were lost, the first first."""
        notes = [self._note(number) for number in range(self._tries)]
        there, found = {*self._objects.files(self._notes)}, list[Begun]()
        for note in [note for note in notes if note.rpartition("/")[2] in there]:
            with contextlib.suppress(FileNotFoundError):  # a worker that was only taken for lost has taken it back
                found.append(parse_as(Begun, self._objects.read(note), note))
        return found

    def _note(self, number: int) -> str:
        return f"{self._notes}/{number:06d}.json"

    def _error(self, row: int, lost: Sequence[Begun]) -> Payload:
        """The error row of an input that is not run again."""
        hosts, alone = ", ".join(dict.fromkeys(begun.host for begun in lost)), sum(begun.alone for begun in lost)
        error = WorkerCrashed(
            f"its worker was lost {len(lost)} times while it ran ({hosts}), {alone} of them with nothing beside it: the machine or "
            "container may be out of memory"
        )
        with Leaf(self._run.plan, self._run.experiment) as leaf:
            failed = leaf.failed(row, Failure.of(error, len(lost)), 0.0, lost[-1].since, lost[-1].host)
            return self._run.payloads.encode(failed)


def _steps(rows: Sequence[int], lost: Sequence[Begun]) -> Iterator[Sequence[int]]:
    """Those inputs that need not run alone: some at a time, and one at a time those of which one was running."""
    among = {row for begun in lost if len(begun.rows) > 1 for row in begun.rows}
    suspects = {begun.rows[0] for begun in lost if len(begun.rows) == 1}
    innocent = [row for row in rows if row not in among and row not in suspects]
    size = math.ceil(len(rows) / _STEPS)
    for row in sorted(among - suspects):
        yield [row]
    for start in range(0, len(innocent), size):
        yield innocent[start : start + size]


__all__ = ["MOVES", "CarefulLeaf"]
