"""Words to the person at the terminal, on standard error as far as there is one. Never standard output, which is the script's."""

from __future__ import annotations

import contextlib
import sys
from typing import Any
from unicodedata import category

_KEPT = "\n\t\N{ZERO WIDTH JOINER}"


def tell(text: str) -> None:
    """Writes a line; one that nobody can read (a closed or absent standard error) is no failure of a run."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(f"{plain(text)}\n")
        sys.stderr.flush()


def plain(text: str) -> str:
    """A text without what a terminal would take as a command: blanks of all kinds stay, and what joins emoji."""
    return "".join(
        c if c.isprintable() or c in _KEPT or category(c) == "Zs" else ascii(c)[1:-1]
        for c in text.replace("\r\n", "\n")
    )


def is_terminal(stream: object) -> bool:
    """Whether a standard stream is there, open, and a terminal."""
    try:
        return bool(stream.isatty())  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownArgumentType]
    except (OSError, ValueError, AttributeError):
        return False


def bar_of(*columns: Any, transient: bool = False) -> Any:
    """A bar of rich with these columns, not begun yet; a transient one goes when it stops."""
    from rich.console import Console
    from rich.progress import Progress

    # The stream as it is: rich would else ask for it again at each line, and get the one that writes above the bar.
    console = Console(file=sys.stderr)
    return Progress(*columns, console=console, redirect_stdout=False, redirect_stderr=False, transient=transient)
