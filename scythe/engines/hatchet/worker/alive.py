"""Keeps the engine from giving up tasks that are worked on, and lets it give up all others within two minutes.

A task has a limit of time that is short, and is put off while a worker has it. So a task whose hand-over
or whose answer was lost is run again, and its slot is free again, whatever was lost. Knows nothing of experiments.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import cache

import grpc
from hatchet_sdk import Context

from scythe.engines.hatchet.connection import connect
from scythe.engines.hatchet.tasks import LIMIT

_LIMIT = LIMIT.total_seconds()
#: When less than this is left, more is asked for.
_LEFT_SECONDS = 45.0
_AGAIN_SECONDS = 4.0
_THREADS = 8


@asynccontextmanager
async def kept_alive(context: Context) -> AsyncGenerator[None]:
    """The engine does not give the task up while the block goes on; a short block costs nothing."""
    loop, until = asyncio.get_running_loop(), time.monotonic() + _LIMIT
    keeping: list[asyncio.Task[None]] = []
    first = loop.call_later(_LIMIT - _LEFT_SECONDS, lambda: keeping.append(loop.create_task(_keep(context, until))))
    try:
        yield
    finally:
        first.cancel()
        for task in keeping:
            task.cancel()


async def _keep(context: Context, until: float) -> None:
    """Puts the limit off again and again; `until` is where it is now, at the earliest."""
    look = asyncio.get_running_loop().run_in_executor
    while True:
        more = time.monotonic() + _LIMIT - until
        try:
            await look(_threads(), _put_off, context.task_run_id, more)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:  # pyright: ignore[reportAttributeAccessIssue]
                return  # it has given the task up already
            await asyncio.sleep(_AGAIN_SECONDS)
        else:
            until += more
            await asyncio.sleep(until - time.monotonic() - _LEFT_SECONDS)


def _put_off(task: str, seconds: float) -> None:
    connect().dispatcher.refresh_timeout(task, f"{seconds:.0f}s")


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, thread_name_prefix="scythe-alive")
