"""The children of a scatter node: triggered under keys, awaited all at once, and triggered again where they were lost.

A node that is moved to another worker triggers the same children under the same keys, and the engine
gives it those that it has.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from hatchet_sdk.clients.rest.models.v1_task_status import V1TaskStatus
from pydantic import BaseModel

from scythe.engines.hatchet.connection import connect
from scythe.engines.hatchet.errors import CameToNothing, ReturnedNothing, is_of_the_network
from scythe.engines.hatchet.fleet import cancel_runs, exists, why_nothing
from scythe.errors import ScytheError, WorkerCrashed

#: What a child came to: what it returned, or the exception that it failed with.
Outcome = dict[str, Any] | BaseException


_BULK = 500
#: When nothing has come for so long, a node makes sure that its children are there.
_SILENCE_SECONDS = 10.0
_LOOK_THREADS = 32
#: After so long the engine is asked again for a run, where the stream over which it tells has failed.
_AGAIN_SECONDS = 3.0
#: After so long it is looked again whether the engine lists how a run ended.
_LISTED_SECONDS = 0.2
#: So many children are looked at, to see whether any has begun.
_LOOKED_AT = 8


@dataclass(frozen=True)
class Child:
    """A child as it is asked for."""

    key: str
    payload: BaseModel | dict[str, Any]
    #: What its parent knows it by.
    tag: Any = None


class Children:
    """The runs that a node waits for."""

    def __init__(self, carried: dict[str, str]) -> None:
        self._carried = carried
        #: Those that have not come in: reference -> what listens for it, child.
        self._watches: dict[Any, tuple[asyncio.Task[None], Child]] = {}
        self._arrived: asyncio.Queue[tuple[Any, Outcome]] = asyncio.Queue()
        #: Those of which nothing is known but that they were asked for: reference -> task.
        self._unconfirmed: dict[Any, Any] = {}
        self._heard = time.monotonic()
        self._arrived_at = time.monotonic()
        #: Why the first that came to nothing has: many do together, and one is asked for.
        self._asked_why: asyncio.Task[CameToNothing | WorkerCrashed] | None = None

    def __len__(self) -> int:
        """How many have not come in."""
        return len(self._watches)

    async def trigger(self, task: Any, children: Iterable[Child]) -> None:
        """Triggers runs of a task; those that an earlier try of the node has triggered are found again."""
        asked = list(children)
        for start in range(0, len(asked), _BULK):
            block = asked[start : start + _BULK]
            wanted = [
                task.create_bulk_run_item(input=c.payload, child_key=c.key, additional_metadata=self._carried)
                for c in block
            ]
            refs = await task.aio_run_many(wanted, wait_for_result=False)
            for ref, child in zip(refs, block, strict=True):
                self._watches[ref] = asyncio.ensure_future(self._watch(ref)), child
                self._unconfirmed[ref] = task

    async def arrived(self, timeout: float) -> list[tuple[Any, Outcome]]:
        """The tags and outcomes of the children that have come in, after at most this many seconds of waiting."""
        try:
            found = [await asyncio.wait_for(self._arrived.get(), timeout)]
        except TimeoutError:
            if self._unconfirmed and time.monotonic() - self._heard > _SILENCE_SECONDS:
                await self._replace_lost()
                self._heard = time.monotonic()
            return []
        while not self._arrived.empty():
            found.append(self._arrived.get_nowait())
        self._heard = self._arrived_at = time.monotonic()
        return [
            (self._drop(ref), outcome) for ref, outcome in found if ref in self._watches
        ]  # else it was dropped since

    async def any_runs(self) -> bool:
        """Whether one of the first has begun."""
        return V1TaskStatus.RUNNING in await self._states(_LOOKED_AT)

    async def all_queue(self) -> bool:
        """Whether every one that has not come in still waits for a slot, and nothing has come for a while."""
        if not self._watches or time.monotonic() - self._arrived_at < _SILENCE_SECONDS:
            return False
        return set(await self._states()) == {V1TaskStatus.QUEUED}

    async def _states(self, most: int | None = None) -> list[Any]:
        """What the engine says of those that have not come in, of `most` of them; an exception where it cannot be asked."""
        runs = [ref.workflow_run_id for ref in list(self._watches)[:most]]
        return await asyncio.gather(*map(connect().runs.aio_get_status, runs), return_exceptions=True)

    def leave(self) -> None:
        """Waits for none of them any more."""
        for watch, _ in self._watches.values():
            watch.cancel()

    async def cancel(self) -> None:
        """Cancels those that have not come in."""
        await cancel_runs([ref.workflow_run_id for ref in self._watches])

    async def drop(self) -> None:
        """Cancels those that have not come in, and waits for them no more."""
        await self.cancel()
        for ref in list(self._watches):
            self._drop(ref)

    async def _watch(self, ref: Any) -> None:
        while True:
            try:
                outcome = await ref.aio_result()
            except Exception as error:  # noqa: BLE001 - the node raises it where it takes the outcome
                if is_of_the_network(error):
                    await asyncio.sleep(_AGAIN_SECONDS)
                    continue
                outcome = error
            self._arrived.put_nowait((ref, outcome or await self._nothing(ref.workflow_run_id)))
            return

    async def _nothing(self, run_id: str) -> ScytheError:
        until = time.monotonic() + _SILENCE_SECONDS
        state: Any = None
        while time.monotonic() < until:  # what the engine lists lags behind what it tells
            with contextlib.suppress(Exception):  # an engine that cannot be asked knows no better
                state = await connect().runs.aio_get_status(run_id)
            if state not in (None, V1TaskStatus.QUEUED, V1TaskStatus.RUNNING):
                break
            await asyncio.sleep(_LISTED_SECONDS)
        return ReturnedNothing("it returned nothing") if state is V1TaskStatus.COMPLETED else await self._why(run_id)

    async def _why(self, run_id: str) -> CameToNothing | WorkerCrashed:
        if self._asked_why is None:
            self._asked_why = asyncio.ensure_future(why_nothing(run_id))
        why = await asyncio.shield(self._asked_why)
        return await why_nothing(run_id) if isinstance(why, WorkerCrashed) else why  # that says nothing of another one

    def _drop(self, ref: Any) -> Any:
        """Forgets a child; gives its tag."""
        watch, child = self._watches.pop(ref)
        watch.cancel()
        self._unconfirmed.pop(ref, None)
        return child.tag

    async def _replace_lost(self) -> None:
        """Triggers again, under other keys, the children of which there is nothing but the key.

        The engine notes the keys of a bulk before it makes the runs of them. Where the bulk is cut in between (its
        node was killed), the keys lead to runs that never were, and that would be awaited for ever.
        """
        asked, self._unconfirmed = self._unconfirmed, {}
        threads, look = ThreadPoolExecutor(_LOOK_THREADS), asyncio.get_running_loop().run_in_executor
        try:
            there = await asyncio.gather(*(look(threads, exists, ref.workflow_run_id) for ref in asked))
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
        lost: dict[Any, list[Child]] = defaultdict(list)
        for (ref, task), is_there in zip(asked.items(), there, strict=True):
            if is_there is None:
                self._unconfirmed[ref] = task
            elif not is_there:
                _, child = self._watches[ref]
                self._drop(ref)
                lost[task].append(replace(child, key=f"{child.key}-again"))
        for task, again in lost.items():
            await self.trigger(task, again)
