"""Says what a step that takes long is at: a line with a clock on a terminal, which goes with the step; one sentence elsewhere."""

from __future__ import annotations

import sys
import threading
from threading import Timer
from typing import Any, Self

from scythe.terminal.console import bar_of, is_terminal, tell

_BAR_SECONDS = 0.7
_LINE_SECONDS = 10.0


class Phase:
    """One step, such as "checking 1,000,000 inputs"; a short one shows nothing."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._bar: Any = None
        self._on_terminal = is_terminal(sys.stderr)
        self._timer = Timer(_BAR_SECONDS if self._on_terminal else _LINE_SECONDS, self._show)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        with self._lock:
            self._over.set()
            if self._bar is not None:
                self._bar.stop()

    def _show(self) -> None:
        with self._lock:
            if self._over.is_set():
                return
            if not self._on_terminal:
                tell(f"{self._title} …")
                return
            from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

            self._bar = bar_of(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), transient=True)
            self._bar.add_task(self._title, total=None)
            self._bar.start()
