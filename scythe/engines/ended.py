"""SIGTERM and SIGHUP, by which a batch system ends a process, and a terminal that closes: while a run is worked on here they do what Ctrl-C does."""

from __future__ import annotations

import os
import signal
import threading

#: What is worked on in this process.
_at_work: set[object] = set()
_SIGNALS = [int(number) for name in ("SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None]


def stop_when_ended(work: object) -> None:
    """Has these signals raise KeyboardInterrupt in the main thread, until `done`; those that somebody handles are left alone."""
    _at_work.add(work)
    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            if signal.getsignal(number) == signal.SIG_DFL:
                signal.signal(number, _stop)


def done(work: object) -> None:
    """Without any work they end this process as ever."""
    _at_work.discard(work)


def _stop(number: int, frame: object) -> None:
    if _at_work:
        raise KeyboardInterrupt
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


os.register_at_fork(after_in_child=_at_work.clear)

__all__ = ["done", "stop_when_ended"]
