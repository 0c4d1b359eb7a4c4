"""Why an input has no results: what the exception of a function is told as. Runs nothing, stores nothing."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path

#: Frames of these files, above the user's function, say nothing to the user.
_MACHINERY = frozenset(str(Path(__file__).with_name(name)) for name in ("call.py", "chunk.py"))


@dataclass(frozen=True)
class Failure:
    """Why an input has no results."""

    kind: str
    message: str
    traceback: str
    attempts: int

    @classmethod
    def of(cls, error: BaseException, attempts: int) -> Failure:
        """The failure that an exception is."""
        kind = type(error)
        name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename not in _MACHINERY]
        text = "".join([*traceback.format_list(frames), *traceback.format_exception_only(error)])
        head = "Traceback (most recent call last):\n" if frames else ""
        try:
            message = str(error)
        except Exception:  # noqa: BLE001 - the code of the user's exception may fail too
            message = "its message cannot be shown: __str__ raises"
        return cls(name, message, head + text, attempts)
