"""What the SDK logs in workers and clients, for people who do not know it: in words, once a minute, without its tracebacks.

Finds the lines by how they begin; those that it does not know pass as they are.
"""

from __future__ import annotations

import logging
import time

_EVERY_SECONDS = 60.0
_AWAY = "the Hatchet engine does not answer: it is asked again until it does, and tasks go on meanwhile"
_REFUSED = "the Hatchet engine refuses this worker's heartbeat"
_BACK = "the Hatchet engine answers again"
#: How a line begins -> what is said in its place; nothing of what only says that the worker stops.
_SAID = {
    "failed to send heartbeat (": _AWAY,
    "failed to send heartbeat": _REFUSED,
    "⛔️ failed heartbeat": _AWAY,
    "time since last successful heartbeat": _BACK,
    "log queue is full": "a function logs more than Hatchet takes: lines are missing in its log; the table `logs` has them all",
    "failed to send log to Hatchet": "a line that a function has logged is missing in Hatchet's log; the table `logs` has it",
    "interrupted read_with_interrupt": None,
}


class Words(logging.Filter):
    """Passes the SDK's lines on, in words where it knows them."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a line is logged."""
        line = record.getMessage()
        begins = next((known for known in _SAID if line.startswith(known)), None)
        if begins is None:
            return True
        said, now = _SAID[begins], time.monotonic()
        if said is None or now - self._last.get(said, -_EVERY_SECONDS) < _EVERY_SECONDS:
            return False
        if said is _BACK and _AWAY not in self._last:  # it was a busy moment
            return False
        self._last[said] = now
        if said is _BACK:
            self._last.pop(_AWAY, None)
            self._last.pop(_BACK, None)
        error = record.exc_info[1] if record.exc_info and said is _REFUSED else None
        why = f" ({_why(error)})" if error is not None else ""
        record.msg, record.args, record.exc_info, record.exc_text = f"{said}{why}", None, None, None
        return True


def _why(error: BaseException) -> str:
    """What an engine has answered, in a line."""
    import grpc.aio

    told = f"{error.code().name}: {error.details()}" if isinstance(error, grpc.aio.AioRpcError) else str(error)
    return told.splitlines()[0] if told else type(error).__name__


def quieten(logger: logging.Logger) -> None:
    """Has the SDK's logger tell of what went wrong alone, not of each task, in words."""
    logger.setLevel(logging.WARNING)
    if not any(isinstance(known, Words) for known in logger.filters):
        logger.addFilter(Words())


__all__ = ["Words", "quieten"]
