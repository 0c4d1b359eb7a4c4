"""Why an input has no results: what the exception of a function is told as, in texts of bounded size.

The texts are made by the user's own code (`__str__`, `__repr__`, notes), which may do anything. Runs nothing else,
stores nothing.
"""

from __future__ import annotations

import linecache
import os
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ValidationError

import scythe_catalog
from scythe.errors import OutputError
from scythe_catalog.redaction import redacted

#: Frames of these folders above the user's function say nothing to the user.
_MACHINERY = (f"{Path(__file__).parents[1]}{os.sep}", f"{Path(scythe_catalog.__file__).parent}{os.sep}")
_MESSAGE_CHARACTERS = 32 * 1024
_TRACEBACK_CHARACTERS = 256 * 1024
#: Longer than any secret.
_SECRET_CHARACTERS = 4096
_SOURCE_CHARACTERS = 4 * 1024 * 1024


@dataclass(frozen=True)
class Failure:
    """Why an input has no results."""

    kind: str
    message: str
    traceback: str
    attempts: int

    @classmethod
    def of(cls, error: BaseException, attempts: int) -> Failure:
        """The failure that an exception is: with all that it was raised from or during, its groups and its notes."""
        name = _guarded(lambda: _name(type(error)), "an exception whose class has no name")
        message = _guarded(lambda: str(error), "its message cannot be shown: __str__ fails")
        text = _guarded(lambda: _whole(error), f"{name}: {message}\n")
        return cls(name, _shown(message, _MESSAGE_CHARACTERS), _shown(text, _TRACEBACK_CHARACTERS), attempts)


def is_final(error: BaseException, output_model: type[BaseModel]) -> bool:
    """Whether trying again would give the same error: what was returned does not fit its model or its run, or a module is missing."""
    if isinstance(error, ValidationError):
        return error.title == output_model.__name__
    return isinstance(error, OutputError | ModuleNotFoundError)


def _name(kind: type[BaseException]) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _guarded(make: Callable[[], str], instead: str) -> str:
    """A text that the user's code has a hand in; the second one where it does not come back with a text."""
    try:
        # A text of a class of the user's own may still do anything when it is used.
        return "".join([str.__str__(make())])
    except BaseException:  # noqa: BLE001 - it may exit, too
        return instead


def _whole(error: BaseException) -> str:
    """The traceback as Python prints it, without Scythe's own frames above those of the user."""
    told = traceback.TracebackException.from_exception(error)
    open_ends, seen = [told], set[int]()
    while open_ends:
        one = open_ends.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        while one.stack and one.stack[0].filename.startswith(_MACHINERY):
            del one.stack[0]
        open_ends += [other for other in (one.__cause__, one.__context__) if other is not None]
        open_ends += one.exceptions or []
    if told.stack or told.__cause__ or told.__context__ or told.exceptions:
        return "".join(told.format())
    return "".join(told.format_exception_only())


def _shown(text: str, size: int) -> str:
    """A text without its secrets, and without its middle where it is longer than this."""
    if len(text) <= size:
        return redacted(text)
    # Of a secret at a cut half is there, which nothing would know: so much beside the cut is looked at, and left out.
    near, half = _SECRET_CHARACTERS, size // 2
    first, last = redacted(text[: half + near])[:-near], redacted(text[-half - near :])[near:]
    return f"{first}\n... {len(text) - size:,} characters are left out here ...\n{last}"


def lines_in_memory() -> dict[str, list[str]]:
    """File name -> lines of code that this process alone has, as those of a notebook's cells, for its tracebacks."""
    found: dict[str, list[str]] = {}
    left = _SOURCE_CHARACTERS
    for name, entry in reversed(list(linecache.cache.items())):  # other threads add to it
        if len(entry) != 4 or entry[1] is not None or Path(name).exists():
            continue
        left -= entry[0]
        if left < 0:
            break
        found[name] = entry[2]
    return found


def remember_lines(lines: Mapping[str, list[str]]) -> None:
    """Lets tracebacks of this process show lines that another one has in memory."""
    for name, text in lines.items():
        linecache.cache[name] = (sum(map(len, text)), None, text, name)
