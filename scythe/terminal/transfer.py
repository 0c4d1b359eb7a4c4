"""Shows how far a transfer is, in one line: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any, Self

from scythe.terminal.console import bar_of, is_terminal, tell

_FIRST_LINE_SECONDS = 10.0


class TransferProgress:
    """The bytes of one transfer; `came` may be called from any thread, as often as one likes.

    The bar of a transient one goes with it; one that is over within `quiet` seconds shows nothing.
    """

    def __init__(self, title: str, *, quiet: float = 0.0, transient: bool = False) -> None:
        self._title, self._total = title, 0
        self._quiet, self._transient = quiet, transient
        self._done, self._lock = 0, threading.Lock()
        self._began = self._said = time.monotonic()
        self._pause = _FIRST_LINE_SECONDS
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def expect(self, count: int) -> None:
        """So many bytes more are to come."""
        with self._lock:
            self._total += count
            if self._bar is not None:
                self._bar.update(self._task, total=self._total)
            else:
                self._begin_bar()

    def came(self, count: int) -> None:
        """So many bytes more are there."""
        with self._lock:
            self._done += count
            if self._bar is None:
                self._begin_bar()
            if self._bar is not None:
                self._bar.update(self._task, completed=self._done)
            elif time.monotonic() - self._said > self._pause:
                rate = self._done / (time.monotonic() - self._began) / 1e6
                tell(f"{self._title}: {self._done / 1e6:,.1f} of {self._total / 1e6:,.1f} MB, {rate:,.1f} MB/s")
                self._said, self._pause = time.monotonic(), min(self._pause * 1.5, 300.0)

    def _begin_bar(self) -> None:
        if time.monotonic() - self._began < self._quiet or not is_terminal(sys.stderr):
            return
        self._bar = _bar(transient=self._transient)
        self._task = self._bar.add_task(self._title, total=self._total, completed=self._done)
        self._bar.start()


def _bar(*, transient: bool) -> Any:
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    title = TextColumn("{task.description}")
    columns = (title, BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    return bar_of(*columns, transient=transient)
