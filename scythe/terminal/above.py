"""What is printed while a progress bar is shown on the same terminal: whole lines, above the bar.

Standard output is the script's: it is taken only where it is the very terminal that the bar is on, given back at the
end, and never written to where the script has sent it elsewhere.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

from scythe.terminal.console import is_terminal

_READ_BYTES = 65536
_LAST_WORDS_SECONDS = 1.0


class Above:
    """Lines above a bar: those of this process's own streams, and those that come out of a pipe (`handle`)."""

    def __init__(self, show: Callable[[str], None]) -> None:
        """`show` prints whole lines above the bar."""
        self.live = True
        self.show = show
        self._streams = [_Stream(self, stream) for stream in (sys.stdout, sys.stderr) if is_terminal(stream)]
        #: Where other processes write what shall stand above the bar; None where it goes elsewhere by itself.
        self.handle: int | None = None
        self._reader: threading.Thread | None = None
        if _is_same_terminal(1, 2):
            source, self.handle = os.pipe()
            self._reader = threading.Thread(target=self._read, args=(source,), daemon=True, name="scythe-output")
            self._reader.start()
        if len(self._streams) == 2 and _is_same_terminal(_number(sys.stdout), _number(sys.stderr)):
            sys.stdout, sys.stderr = self._streams  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
        _SHOWN.add(self)

    def end(self) -> None:
        """Gives the streams back; what is half a line is written, too."""
        if self.handle is not None and self._reader is not None:
            os.close(self.handle)
            self._reader.join(_LAST_WORDS_SECONDS)  # a process that outlives its worker may hold the pipe open
        self.let_go()
        for stream in self._streams:
            stream.let_out()

    def let_go(self) -> None:
        """From now on everything goes its own way; so it is in a forked process, where there is no bar."""
        self.live = False
        for stream in self._streams:
            for name in ("stdout", "stderr"):  # unless the script has put another in its place
                if getattr(sys, name) is stream:
                    setattr(sys, name, stream.beneath())

    def _read(self, source: int) -> None:
        decoder, rest = codecs.getincrementaldecoder("utf-8")("replace"), ""
        with open(source, "rb", buffering=0) as pipe:
            while raw := pipe.read(_READ_BYTES):
                lines, newline, rest = (rest + decoder.decode(raw)).rpartition("\n")
                if newline:
                    self.show(lines)
        if rest:
            self.show(rest)


class _Stream:
    """A stream of a terminal: whole lines stand above the bar while there is one, and pass through after it."""

    def __init__(self, above: Above, inner: Any) -> None:
        self._above, self.inner, self._half = above, inner, ""

    def write(self, text: str) -> int:
        if not self._above.live:
            return self.inner.write(text)
        lines, newline, self._half = (self._half + text).rpartition("\n")
        if newline:
            self._above.show(lines)
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if self._above.live and self._half:  # a question, say
            half, self._half = self._half, ""
            self._above.show(half)
        self.inner.flush()

    def beneath(self) -> Any:
        """The stream that was there before, and that no other bar has given up meanwhile."""
        inner = self.inner
        while isinstance(inner, _Stream) and not inner._above.live:
            inner = inner.inner
        return inner

    def let_out(self) -> None:
        half, self._half = self._half, ""
        if half:
            self.inner.write(half)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def _number(stream: Any) -> int:
    try:
        return stream.fileno()
    except (OSError, ValueError, AttributeError):
        return -1


def _is_same_terminal(one: int, other: int) -> bool:
    try:
        return os.isatty(one) and os.isatty(other) and os.fstat(one).st_rdev == os.fstat(other).st_rdev
    except OSError:
        return False


_SHOWN: weakref.WeakSet[Above] = weakref.WeakSet()


def _let_all_go() -> None:
    for above in list(_SHOWN):
        with contextlib.suppress(AttributeError):
            above.let_go()


os.register_at_fork(after_in_child=_let_all_go)
