"""What becomes of an exception on its way through the engine: tried again or not, and what the user is told."""

from __future__ import annotations

import asyncio
from typing import Any

from scythe.errors import ScytheError, StorageRefused

#: A bucket out of reach is tried again so often, after 1, 2, 4, 8 and 16 seconds.
_STORAGE_TRIES = 5
_MESSAGE_LENGTH = 8000


async def settle(error: Exception, context: Any) -> None:
    """Waits before a task that storage failed is tried again; ends one that would fail again.

    Raises:
        NonRetryableException: an error that another try would not mend.
    """
    from hatchet_sdk import NonRetryableException

    if _of_storage(error) and context.retry_count < _STORAGE_TRIES:
        await asyncio.sleep(2.0**context.retry_count)
    elif isinstance(error, ScytheError | OSError):
        raise NonRetryableException(_shortened(str(error))) from None  # what is sent must stay small


def ends(error: BaseException) -> bool:
    """Whether an error is one that no other try would mend."""
    return isinstance(error, ScytheError) and not _of_storage(error)


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
    return str(getattr(error, "exc", None) or error).strip() or type(error).__name__
