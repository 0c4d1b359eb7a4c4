"""Shows how far a transfer is, in one line: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any, Self

from scythe.terminal.console import bar_of, is_terminal, tell

_FIRST_LINE_SECONDS = 10.0


class TransferProgress:
    """The bytes of one transfer; `came` may be called from any thread, as often as one likes."""

    def __init__(self, title: str) -> None:
        self._title, self._total = title, 0
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
            if self._bar is None and is_terminal(sys.stderr):
                self._bar = _bar()
                self._task = self._bar.add_task(self._title, total=self._total)
                self._bar.start()
            elif self._bar is not None:
                self._bar.update(self._task, total=self._total)

    def came(self, count: int) -> None:
        """So many bytes more are there."""
        with self._lock:
            self._done += count
            if self._bar is not None:
                self._bar.update(self._task, completed=self._done)
            elif time.monotonic() - self._said > self._pause:
                rate = self._done / (time.monotonic() - self._began) / 1e6
                tell(f"{self._title}: {self._done / 1e6:,.1f} of {self._total / 1e6:,.1f} MB, {rate:,.1f} MB/s")
                self._said, self._pause = time.monotonic(), min(self._pause * 1.5, 300.0)


def _bar() -> Any:
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    title = TextColumn("{task.description}")
    return bar_of(title, BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
