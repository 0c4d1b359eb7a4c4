"""Log records on their way from a worker process to the logging of the process that started it, and to what is kept of an input.

A record travels as plain values: whatever it holds, neither the input that logs it nor the run fails of it. Values of
`extra` that one side cannot pickle, or the other cannot rebuild, are dropped; the message always arrives.
"""

from __future__ import annotations

import contextlib
import logging
import pickle
import traceback
from collections.abc import Callable
from typing import Any

from scythe.terminal.console import tell
from scythe_catalog.redaction import redacted

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
#: The first names of our loggers: what `input_spec.log` is given is kept by itself.
_OWN = ("scythe", "scythe_catalog")
_PLAIN = (str, int, float, bool, type(None))

#: The standard values of a record, and those of `extra`, each pickled for itself.
Portable = tuple[dict[str, Any], dict[str, bytes]]


class Forward(logging.Handler):
    """Hands the records of this process to `send`."""

    def __init__(self, send: Callable[[Portable], None]) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError):  # the parent is gone, and soon this process
            self._send(portable(record))


class Keep(logging.Handler):
    """Gives `keep` what each record tells, with its level and its logger, but those of Scythe's own."""

    def __init__(self, keep: Callable[[str], None]) -> None:
        super().__init__()
        self._keep = keep

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.partition(".")[0] in _OWN:
            return
        told = [f"{record.levelname} {record.name}: {_message(record)}", _traceback(record)]
        with contextlib.suppress(OSError):  # a full disk: what it is told does not fail an input
            self._keep("\n".join(text for text in told if text))


def portable(record: logging.LogRecord) -> Portable:
    """What of a record can travel, its message and traceback as text."""
    standard = {n: v for n, v in vars(record).items() if n in _STANDARD and type(v) in _PLAIN}
    standard |= {"msg": _message(record), "args": None, "exc_info": None, "exc_text": _traceback(record)}
    extra: dict[str, bytes] = {}
    for name in vars(record).keys() - _STANDARD:
        try:
            extra[name] = pickle.dumps(vars(record)[name])
        except Exception:  # noqa: BLE001 - any error of any value's own code: this value stays behind
            continue
    return standard, extra


def _message(record: logging.LogRecord) -> str:
    try:
        return redacted(str.__str__(record.getMessage()))  # exactly text, where it is of a subclass
    except Exception as error:  # noqa: BLE001 - a value's own code may fail
        template = record.msg if type(record.msg) is str else type(record.msg).__name__
        return f"{template} (its values cannot be shown: {type(error).__name__})"


def _traceback(record: logging.LogRecord) -> str | None:
    if not record.exc_info:
        return record.exc_text if type(record.exc_text) is str else None
    try:
        return redacted(logging.Formatter().formatException(record.exc_info))
    except BaseException as error:  # noqa: BLE001 - the code of a user's exception may do anything
        return f"its traceback cannot be shown: {type(error).__name__}"


def rebuilt(travelled: Portable) -> logging.LogRecord:
    """The record in the process that it was sent to."""
    standard, extra = travelled
    record = logging.makeLogRecord(standard)
    for name, raw in extra.items():
        try:
            value = pickle.loads(raw)
        except Exception:  # noqa: BLE001 - of a class that is not here, say
            continue
        vars(record).setdefault(name, value)
    return record


def relay(record: logging.LogRecord) -> None:
    """Hands a record of a worker process to this process's logging."""
    logger = logging.getLogger(record.name)
    try:
        if logger.isEnabledFor(record.levelno):
            logger.handle(record)
    except Exception:  # noqa: BLE001 - a filter of the user's: told as `logging` tells of a handler that fails
        if logging.raiseExceptions:
            tell(f"--- Logging error ---\n{traceback.format_exc()}")


def levels() -> dict[str, int]:
    """The levels that this process has set, by logger; the root's is under the empty name."""
    loggers = {name: log for name, log in logging.root.manager.loggerDict.items() if isinstance(log, logging.Logger)}
    return {"": logging.root.level} | {name: log.level for name, log in loggers.items() if log.level}


def take_levels(found: dict[str, int]) -> None:
    """Sets the levels that another process has set."""
    for name, level in found.items():
        logging.getLogger(name).setLevel(level)
