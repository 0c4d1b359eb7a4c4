"""A display of a Jupyter notebook that is written anew in its place. Needs no widgets, so that it stays when the notebook is saved."""

from __future__ import annotations

import os
import sys
from typing import Any
from urllib.parse import quote


def in_notebook() -> bool:
    """Whether this process is the kernel of a Jupyter notebook, rather than one that has loaded it."""
    ipython = sys.modules.get("IPython")
    shell = getattr(ipython, "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


class Display:
    """A place below the cell that runs when it is made; any thread may write it anew."""

    def __init__(self, html: str, text: str) -> None:
        from IPython.display import display  # pyright: ignore[reportUnknownVariableType]

        self._handle: Any = display(_bundle(html, text), raw=True, display_id=True)

    def update(self, html: str, text: str) -> None:
        """Writes it anew, wherever its cell is now."""
        self._handle.update(_bundle(html, text), raw=True)


def _bundle(html: str, text: str) -> dict[str, str]:
    return {"text/html": html, "text/plain": text}


def link_to(uri: str) -> str | None:
    """Where a link to a folder leads, None where no browser goes. Jupyter follows paths below the notebook, never `file:`."""
    if not uri.startswith("file://"):
        return None
    path, here = uri.removeprefix("file://"), os.getcwd()  # noqa: PTH109 - compared as text
    return (
        quote(os.path.relpath(path, here))
        if in_notebook() and path.startswith(here + os.sep)
        else f"file://{quote(path)}"
    )
