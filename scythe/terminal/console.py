"""Words to the person at the terminal, on standard error as far as there is one. Never standard output, which is the script's."""

from __future__ import annotations

import contextlib
import sys


def tell(text: str) -> None:
    """Writes a line; one that nobody can read (a closed or absent standard error) is no failure of a run."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def is_terminal(stream: object) -> bool:
    """Whether a standard stream is there, open, and a terminal."""
    try:
        return bool(stream.isatty())  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownArgumentType]
    except (OSError, ValueError, AttributeError):
        return False
