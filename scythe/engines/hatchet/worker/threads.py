"""Work of a task that blocks, in a thread that is never left behind: whoever cancels waits until it has ended."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from obstore.exceptions import BaseError

from scythe.errors import RunCancelled, ScytheError, Superseded
from scythe.record.attempt_plan import store_failure
from scythe.record.lease import Lease
from scythe.record.plan import RunPlan
from scythe_catalog.redaction import redacted

T = TypeVar("T")


async def in_thread(work: Callable[[], T], *, last: bool = False) -> T:
    """What some work returns.

    A cancellation meanwhile is raised when the work has ended: nothing may be done beside it, and nobody may hear of
    the task's end before. With `last` it is forgotten where the work succeeds, for then the task is done.
    """
    running = asyncio.ensure_future(asyncio.to_thread(work))
    cancelled: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.wait({running})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None and not (last and running.exception() is None):
        raise cancelled from running.exception()
    return running.result()


@asynccontextmanager
async def lease_of(plan: RunPlan, run: str, number: int) -> AsyncGenerator[Lease]:
    """The lease of a run, taken by a run of the engine; given back however the block ends, with a note on what went wrong.

    Raises:
        Superseded: another run of the engine has it.
    """
    taken: list[Lease] = []
    try:
        await in_thread(lambda: taken.append(Lease(plan.objects, plan.key, "hatchet", run=run, number=number)))
        yield taken[0]
    except (Superseded, RunCancelled):
        raise
    except ScytheError as error:
        message = redacted(str(error))
        with contextlib.suppress(OSError, BaseError):  # the caller hears of it from the engine, too
            await in_thread(lambda: store_failure(plan.objects, plan.key, number, message))
        raise
    finally:
        for lease in taken:
            await in_thread(lease.end)
