"""Shows how far a run is: a bar on a terminal or in a notebook, now and then a line elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Self

from scythe.terminal.above import Above
from scythe.terminal.cards import Card, html
from scythe.terminal.console import bar_of, is_terminal, tell
from scythe.terminal.notebook import Display, place

_FIRST_LINE_SECONDS = 10.0
#: A notebook keeps each state that it is sent until it is drawn.
_DRAW_SECONDS = 0.25
_SAID = 50
#: Times below are shown with a digit behind the point.
_SHORT_SECONDS = 10.0


class Progress:
    """The progress of one run; `update` may be called as often as one likes. A notebook shows it where it is made.

    A `quiet` one shows and says nothing.
    """

    def __init__(self, title: str, total: int, *, quiet: bool = False) -> None:
        self._title, self._total, self._quiet = title, total, quiet
        self._started = self._began = self._last_line = time.monotonic()
        self._pause = _FIRST_LINE_SECONDS
        #: What had come to an end at the first look: in an earlier attempt on the run.
        self._before: int | None = None
        #: What had at the first look that found more; from then on it is counted how fast the rest comes.
        self._first: int | None = None
        #: How many have come to an end; it never goes back.
        self._done = 0
        #: What was said last about why nothing goes on.
        self._notice: str | None = None
        self._said_of: set[str] = set()
        self._bar: Any = None
        self._task: Any = None
        self._above: Above | None = None
        shown_by = None if quiet else place()
        self._page = _Page(title, total, shown_by) if shown_by is not None else None
        #: What stands above the bar is placed by where the bar stands: it neither begins nor ends meanwhile.
        self._place = threading.RLock()

    def __enter__(self) -> Self:
        if self._page is None and not self._quiet and is_terminal(sys.stderr):
            self._bar = _bar()
            self._task = self._bar.add_task(self._title, total=self._total, failed=0, rate="starting", left="")
            self._above = Above(self._show)  # before the bar is there, until after it
            with self._place:
                self._bar.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self._page is not None:
            self._page.end(stopped=kind is not None, seconds=time.monotonic() - self._started)
        if self._bar is not None:
            with self._place:
                self._bar.stop()
        if self._above is not None:
            self._above.end()
        self._bar = None

    def draw(self) -> None:
        """Shows it below the cell that waits, in a notebook that takes nothing from other threads."""
        if self._page is not None:
            self._page.draw()

    @property
    def output(self) -> int | None:
        """A handle for what other processes print, where it would run into the bar; None: it goes where it goes."""
        return self._above.handle if self._above is not None else None

    def _show(self, lines: str) -> None:
        from rich.text import Text

        with self._place:
            bar = self._bar
            if bar is None:  # it has just come to its end
                tell(lines)
            else:
                bar.console.print(Text.from_ansi(lines), soft_wrap=True)

    def say(self, text: str) -> None:
        """Tells something at once: above the bar, where there is one."""
        if self._quiet:
            return
        if self._page is not None:
            self._page.say(text)
        elif self._bar is not None:
            self._show(text)
        else:
            tell(f"{self._title}: {text}")

    def say_once(self, news: Iterable[tuple[str, str]]) -> None:
        """Says texts of which each goes by a kind: those of kinds of which nothing was said before."""
        for kind, text in news:
            if kind not in self._said_of:
                self._said_of.add(kind)
                self.say(text)

    def update(self, done: int, failed: int, notice: str | None = None) -> None:
        """`done` inputs have come to an end, `failed` of them in an error; `notice` says why no others do."""
        if self._quiet:
            return
        # Of a chunk that is run again less is known for a while than was before.
        done = self._done = max(done, self._done)
        if self._before is None:
            self._before = done
        # The time until the first results is the start of the processes, too; and of a cluster many come at once, the work
        # of a longer time than has passed since the look before.
        if self._first is None and done > self._before:
            self._first, self._began = done, time.monotonic()
        since = done - self._first if self._first is not None else 0
        seconds = time.monotonic() - self._began
        rate = _rate(since / seconds) if since > 0 and seconds > 0 else "starting"
        left = _duration((self._total - done) * seconds / since) if since > 0 else ""
        if notice != self._notice and notice is not None and self._bar is None and self._page is None:
            tell(f"{self._title}: {notice}")
        self._notice = notice
        if self._page is not None:
            self._page.update(done, failed, notice or rate, left if notice is None else "")
        elif self._bar is not None:
            beside = {"rate": rate, "left": left} if notice is None else {"rate": notice, "left": ""}
            self._bar.update(self._task, completed=done, failed=failed, **beside)
        elif time.monotonic() - self._last_line > self._pause:
            beside = notice if notice is not None else f"{rate}, {left} left" if left else rate
            tell(f"{self._title}: {done:,} of {self._total:,} done, {failed:,} failed, {beside}")
            self._last_line, self._pause = time.monotonic(), min(self._pause * 1.5, 300.0)


class _Page:
    """The bar of a notebook: what was said stands in it, and its last state stays."""

    def __init__(self, title: str, total: int, shown_by: Callable[[str, str], Display]) -> None:
        self._title, self._total = title, total
        self._done = self._failed = 0
        self._status, self._beside = "running", "starting"
        self._said: list[str] = []
        self._lock = threading.Lock()
        self._display = shown_by(*self._shown())
        self._drawn = time.monotonic()

    def update(self, done: int, failed: int, rate: str, left: str) -> None:
        self._done, self._failed, self._beside = done, failed, f"{rate}, {left} left" if left else rate
        if time.monotonic() - self._drawn > _DRAW_SECONDS:
            self._draw()

    def draw(self) -> None:
        self._try(self._display.draw)

    def say(self, text: str) -> None:
        if len(self._said) <= _SAID:
            self._said.append(text if len(self._said) < _SAID else "…")
        self._draw()

    def end(self, *, stopped: bool, seconds: float) -> None:
        self._status, self._beside = (
            "incomplete" if stopped else "finished",
            f"in {seconds:.1f}s" if seconds < _SHORT_SECONDS else f"in {_duration(seconds)}",
        )
        self._draw()

    def _draw(self) -> None:
        with self._lock:
            self._drawn = time.monotonic()
            self._try(self._display.update, *self._shown())

    def _try(self, show: Callable[..., None], *shown: str) -> None:
        try:
            show(*shown)
        except Exception as error:  # noqa: BLE001 - a page that is gone is no failure of a run
            tell(f"{self._title}: the notebook takes no more of the bar: {error}")

    def _shown(self) -> tuple[str, str]:
        rows = self._done - self._failed
        card = Card(self._title, self._status, self._total, rows, self._failed, self._beside, printed=tuple(self._said))
        head = f"{self._title}: {self._status}, {self._done:,} of {self._total:,} done, {self._failed:,} failed, {self._beside}"
        return html(card), "\n".join([head, *self._said])


def _bar() -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

    return bar_of(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("[red]{task.fields[failed]} failed[/red]"),
        TextColumn("{task.fields[rate]}", markup=False),  # or a notice, whose paths may hold what looks like it
        TextColumn("{task.fields[left]}"),
    )


def _rate(per_second: float) -> str:
    return f"{per_second:,.0f}/s" if per_second >= 10 else f"{per_second:.2g}/s"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
