"""What became of a task is sent until the engine has it. The one place that changes the SDK from within.

The SDK gives an answer up at the first UNAUTHENTICATED, which is also what an engine says whose database is away; it
loses those that are on their way when it closes their channel because of another; and it stops listening
for good after some failures. It sends and listens in a process of its own, which `install` must be called in.
A test pins the version of the SDK that this was written for. Knows nothing of experiments.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import sys
import time
from typing import Any

import grpc
from hatchet_sdk.clients.dispatcher import action_listener
from hatchet_sdk.clients.dispatcher.dispatcher import DispatcherClient
from hatchet_sdk.contracts.dispatcher_pb2 import STEP_EVENT_TYPE_COMPLETED, STEP_EVENT_TYPE_FAILED

#: For so long an answer is sent again; afterwards the engine has given the task to somebody else.
PATIENCE_SECONDS = 600.0
_LONGEST_PAUSE = 3.0
#: That a task has begun is worth less.
_NEWS_SECONDS = 20.0
#: What would be answered the same way every time.
_REFUSED = (
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.NOT_FOUND,
)
#: Sends once, without the SDK's own repetition.
_once: Any = DispatcherClient._try_send_step_action_event.__wrapped__  # pyright: ignore[reportPrivateUsage, reportFunctionMemberAccess]
_log = logging.getLogger(__name__)


def install() -> None:
    """Makes the SDK of this process send as this module does, and listen without end."""
    DispatcherClient._try_send_step_action_event = _send  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
    action_listener.DEFAULT_ACTION_LISTENER_RETRY_COUNT = sys.maxsize


async def _send(
    client: DispatcherClient,
    action: Any,
    event_type: Any,
    payload: str | None,
    final: bool,
    after_ms: int | None = None,
) -> Any:
    """Sends an event of a task; that a task has ended is sent again until the engine has it.

    UNAUTHENTICATED is no refusal then: the worker was registered with this very token. Where it is for too long, the
    token was taken back, and the worker is told to stop.
    """
    is_end = event_type in (STEP_EVENT_TYPE_COMPLETED, STEP_EVENT_TYPE_FAILED)
    until, pause = time.monotonic() + (PATIENCE_SECONDS if is_end else _NEWS_SECONDS), 0.5
    while True:
        try:
            return await _once(client, action, event_type, payload, final, after_ms)
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            error = ConnectionError("the call was cancelled, because another one has closed its channel")
        except grpc.RpcError as failure:
            error = failure
            if _code(failure) in _REFUSED:
                raise
        if time.monotonic() > until:
            if is_end and _code(error) is grpc.StatusCode.UNAUTHENTICATED:
                _log.error("the engine has refused this worker's token for %.0f s: the worker ends", PATIENCE_SECONDS)
                os.kill(os.getppid(), signal.SIGTERM)
            raise error
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))
        pause = min(2 * pause, _LONGEST_PAUSE)


def _code(error: Exception) -> grpc.StatusCode | None:
    return error.code() if isinstance(error, grpc.RpcError) else None  # pyright: ignore[reportAttributeAccessIssue]


__all__ = ["PATIENCE_SECONDS", "install"]
