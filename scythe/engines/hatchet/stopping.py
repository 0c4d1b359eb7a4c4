"""A worker that is told to stop: what it works on is handed back to the engine, for another worker."""

from __future__ import annotations

import asyncio
import time
from typing import TypeVar

T = TypeVar("T")

#: By then the engine sends this worker nothing more; before, the worker would be sent its own work again. (The
#: engine's scheduler looks at the list of workers every five seconds.)
_SETTLE_SECONDS = 5.5


class HandedBack(Exception):
    """The worker stops; the engine runs the task elsewhere. No error of the run."""


class Stopping:
    """Whether the worker was told to stop; set from a signal handler, awaited by its tasks."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._since = 0.0

    @property
    def is_set(self) -> bool:
        """Whether the worker was told to stop."""
        return self._event.is_set()

    def set(self) -> None:
        """Tells all tasks."""
        self._since = self._since or time.monotonic()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._event.set)
        self._event.set()

    async def unless(self, work: asyncio.Future[T]) -> T:
        """The work's result.

        Raises:
            HandedBack: the worker was told to stop first; the work is cancelled.
        """
        self._loop = asyncio.get_running_loop()
        stop = asyncio.ensure_future(self._event.wait())
        try:
            await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            await asyncio.gather(_ended(work), asyncio.sleep(self._since + _SETTLE_SECONDS - time.monotonic()))
            raise HandedBack("the worker was told to stop: its unfinished work is handed back")
        finally:
            stop.cancel()
            await _ended(work)


async def _ended(work: asyncio.Future[T]) -> None:
    """Cancels what is not done, and waits until it has cleared up."""
    if not work.done():
        work.cancel()
        await asyncio.wait({work})
