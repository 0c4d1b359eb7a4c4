"""A worker that is told to stop: what it works on is handed back to the engine, for another worker."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TypeVar

from scythe.engines.hatchet.errors import HandedBack

T = TypeVar("T")

#: By then the engine sends this worker nothing more; before, the worker would be sent its own work again. (The
#: engine's scheduler looks at the list of workers every five seconds.)
_SETTLE_SECONDS = 5.5


class Stopping:
    """Whether the worker was told to stop; set from a signal handler, awaited by its tasks."""

    def __init__(self) -> None:
        self._since: float | None = None
        #: Done when the worker is told to stop; one future for all tasks, so that a short task costs none of its own.
        self._told: asyncio.Future[None] | None = None

    @property
    def is_set(self) -> bool:
        """Whether the worker was told to stop."""
        return self._since is not None

    def set(self) -> None:
        """Tells all tasks."""
        if self._since is None:
            self._since = time.monotonic()
            if self._told is not None:
                self._told.get_loop().call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        if self._told is not None and self.is_set and not self._told.done():
            self._told.set_result(None)

    async def unless(self, work: asyncio.Future[T]) -> T:
        """The work's result.

        Raises:
            HandedBack: the worker was told to stop first; the work is cancelled.
        """
        if self._told is None:
            self._told = asyncio.get_running_loop().create_future()
        self._tell()
        try:
            await asyncio.wait({work, self._told}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            left = (self._since or 0.0) + _SETTLE_SECONDS - time.monotonic()
            await asyncio.gather(_ended(work), asyncio.sleep(left))
            if not work.cancelled() and work.exception() is None:
                return work.result()  # it was about to end
            raise HandedBack("the worker was told to stop: its unfinished work is handed back")
        finally:
            await _ended(work)


async def _ended(work: asyncio.Future[T]) -> None:
    """Cancels what is not done, and waits until it has cleared up."""
    work.cancel()
    while not work.done():  # who is cancelled once more waits all the same: nobody may hear of the end before
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({work})
