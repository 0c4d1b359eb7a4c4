"""What becomes of an exception on its way through the engine: tried again or not, and what the user is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from scythe.errors import RunError, ScytheError, StorageRefused

#: A task that storage fails is tried again so often, after 1, 2, 4, 4, ... seconds. Where a task was moved from one
#: worker to another, that counts, too.
_STORAGE_TRIES = 10
_LONGEST_PAUSE = 4.0
#: And one that fails in another way, one of the engine's or of the SDK's.
_TRIES = 20
_MESSAGE_LENGTH = 8000
_MORE, _TRACEBACK = "\\", "Traceback (most recent call last)"


class CameToNothing(RunError):
    """A child has neither returned nor raised anything."""


class ReturnedNothing(RunError):
    """A child has come to its end, and returned nothing, or an empty dict."""


class HandedBack(Exception):
    """The worker stops; the engine runs the task elsewhere. No error of the run."""


async def settle(error: Exception, context: Any, is_gone: Callable[[], bool]) -> None:
    """Waits before a task that storage failed is tried again; ends one that would fail again.

    Args:
        error: What the task failed with.
        context: The task's.
        is_gone: Whether its run is not there any more: to try its tasks again and again would keep other runs waiting.

    Raises:
        NonRetryableException: an error that another try would not mend.
    """
    from hatchet_sdk import NonRetryableException

    if ends(error, context.retry_count) or (_of_storage(error) and await asyncio.to_thread(is_gone)):
        raise NonRetryableException(_shortened(str(error))) from None  # what is sent must stay small
    if _of_storage(error):
        await asyncio.sleep(min(2.0**context.retry_count, _LONGEST_PAUSE))


def is_of_the_network(error: BaseException) -> bool:
    """Whether the stream over which the engine tells of runs has failed, and not the run that was waited for."""
    import grpc

    if isinstance(error, grpc.RpcError | ConnectionError | StopAsyncIteration):
        return True
    # What the SDK raises where it gives its stream up is of no class of its own.
    return type(error) is ValueError and str(error) in ("gRPC error", "Failed to connect to listener")


def ends(error: BaseException, tries: int) -> bool:
    """Whether an error ends a task that was tried so often before: one that no other try would mend, or once too often."""
    if isinstance(error, HandedBack):
        return False
    if _of_storage(error):
        return tries >= _STORAGE_TRIES
    return isinstance(error, ScytheError | OSError) or tries >= _TRIES


def _of_storage(error: BaseException) -> bool:
    """Whether storage failed in a way that may pass."""
    found = error if isinstance(error, OSError) else error.__cause__
    return isinstance(found, OSError) and not isinstance(found, StorageRefused)


def _shortened(text: str) -> str:
    half = _MESSAGE_LENGTH // 2
    return text if len(text) <= _MESSAGE_LENGTH else f"{text[:half]} ... {text[-half:]}"


def told(error: BaseException) -> str:
    """The message of the exception that a task failed with, without the SDK's wrapping and its traceback."""
    inner = getattr(error, "exceptions", None)
    if inner:
        return "; ".join(dict.fromkeys(told(e) for e in inner))
    text = getattr(error, "exc", None)
    if isinstance(text, str) and text.endswith(_MORE):
        text = _lines_of(f"{text}\n{getattr(error, 'trace', '')}")
    return str(text or error).strip() or type(error).__name__


def told_in(serialized: str) -> str:
    """The same of a failure as the engine keeps it: the exception's class, its message, its traceback."""
    text = _lines_of(serialized)
    kind, told, message = text.partition(": ")
    return message if told and kind.isidentifier() else text


def _lines_of(text: str) -> str:
    """The message in front of a traceback: the SDK puts a backslash at the end of each line of it but the last, and reads the first alone."""
    lines: list[str] = []
    for line in text.split("\n"):
        if line.startswith(_TRACEBACK) and not line.endswith(_MORE):  # else it is one that the message tells
            break
        lines.append(line.removesuffix(_MORE))
        if not line.endswith(_MORE):
            break
    return "\n".join(lines)
