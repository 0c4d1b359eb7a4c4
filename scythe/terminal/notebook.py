"""What a notebook shows below a cell and writes anew in its place. Needs no widgets, so that it stays when the notebook is saved."""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from typing import Any
from urllib.parse import quote


class Display(ABC):
    """A place below a cell."""

    @abstractmethod
    def update(self, html: str, text: str) -> None:
        """Writes it anew; any thread may."""

    @abstractmethod
    def draw(self) -> None:
        """Shows what was written last below the cell that calls this, where no other thread can do so."""


class JupyterDisplay(Display):
    """A place below the cell that runs when it is made."""

    def __init__(self, html: str, text: str) -> None:
        from IPython.display import display  # pyright: ignore[reportUnknownVariableType]

        self._handle: Any = display(_bundle(html, text), raw=True, display_id=True)

    def update(self, html: str, text: str) -> None:
        self._handle.update(_bundle(html, text), raw=True)

    def draw(self) -> None:
        return


class MarimoDisplay(Display):
    """A place below the cell that waits: marimo takes nothing from threads that are not its own."""

    def __init__(self, html: str, text: str) -> None:
        self._html, self._drawn = html, ""

    def update(self, html: str, text: str) -> None:
        self._html = html

    def draw(self) -> None:
        if self._drawn != self._html:
            self._drawn, marimo = self._html, sys.modules["marimo"]
            marimo.output.replace(marimo.Html(self._drawn))


def place() -> type[JupyterDisplay | MarimoDisplay] | None:
    """What a cell of this process shows things by; None where it runs no notebook."""
    if in_jupyter():
        return JupyterDisplay
    marimo = sys.modules.get("marimo")
    return MarimoDisplay if getattr(marimo, "running_in_notebook", lambda: False)() else None


def in_jupyter() -> bool:
    """Whether this process is the kernel of a Jupyter notebook, rather than one that has loaded it."""
    ipython = sys.modules.get("IPython")
    shell = getattr(ipython, "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


def link_to(folder: str, file: str) -> str | None:
    """Where a link to a folder leads, given as a URI; None where no browser goes.

    Jupyter follows neither `file:` nor a path to a folder: it opens the file in it, if that lies below the notebook.
    """
    if not folder.startswith("file://"):
        return None
    path, here = folder.removeprefix("file://"), os.getcwd()  # noqa: PTH109 - compared as text
    if in_jupyter() and path.startswith(here + os.sep):
        return quote(os.path.join(os.path.relpath(path, here), file))  # noqa: PTH118 - text, as it is compared
    return f"file://{quote(path)}"


def _bundle(html: str, text: str) -> dict[str, str]:
    return {"text/html": html, "text/plain": text}
