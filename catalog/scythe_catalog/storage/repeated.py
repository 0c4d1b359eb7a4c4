"""What failed is tried again, by stamina, which logs it: at most a line every ten seconds, that says what it is and what went wrong."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

from scythe_catalog.redaction import redacted

if TYPE_CHECKING:
    from stamina import Attempt

T = TypeVar("T")

_EVERY_SECONDS, _LONGEST_WAIT_SECONDS = 10.0, 10.0


class _Tries(threading.local):
    """What this thread tries at the moment, and why it did not come about; None of anybody else's tries."""

    told: str | None = None


_TRIES = _Tries()


class _Told(logging.Filter):
    """Lets the log of other code's tries pass as it is."""

    def __init__(self) -> None:
        super().__init__()
        self._last = -_EVERY_SECONDS

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a line is logged."""
        if _TRIES.told is None:
            return True
        now = time.monotonic()
        if now - self._last < _EVERY_SECONDS:
            return False
        self._last = now
        record.msg, record.args = f"{_TRIES.told}; it is tried again", None
        return True


@lru_cache(maxsize=1)
def _listen() -> None:
    logging.getLogger("stamina").addFilter(_Told())


def repeated(
    what: str | Callable[[Exception], str],
    on: Callable[[Exception], bool | float],
    longest: float = _LONGEST_WAIT_SECONDS,
) -> Iterator[Attempt]:
    """Attempts, with longer and longer pauses between them, as long as `on` says so of what they failed with.

    Args:
        what: What is asked, for the log; or what says of an error what is asked and what is wrong.
        on: Whether an error is worth another attempt, or after how many seconds.
        longest: How long a pause becomes [s].
    """
    import stamina

    _listen()

    def again(error: Exception) -> bool | float:
        text = what(error) if callable(what) else str(error) or type(error).__name__
        first = redacted(text.splitlines()[0])
        _TRIES.told = first if callable(what) else f"{what}: {first}"
        return on(error)

    before, _TRIES.told = _TRIES.told, ""
    try:
        yield from stamina.retry_context(on=again, attempts=None, timeout=None, wait_max=longest)
    finally:
        _TRIES.told = before


def tried_again(
    what: str | Callable[[Exception], str],
    failed: Exception,
    call: Callable[[], T],
    on: Callable[[Exception], bool | float],
) -> T:
    """What `call`, which has failed once, gives in the end, after a pause. To begin here would cost each first call a tenth of it."""
    known = [failed]
    for attempt in repeated(what, on):
        with attempt:
            if known:
                raise known.pop()
            return call()
    raise AssertionError("unreachable")


__all__ = ["repeated", "tried_again"]
