"""The process that worker processes are forked from, as it sees itself: forks one for each request, and tells of its end.

It knows handles alone: who asks, and what is to be run, is not its own.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import struct
import time
import warnings
from collections.abc import Mapping

from scythe.terminal.console import tell

#: What is told of a process: its number when it was forked, and its exit code when it has ended.
WORD = struct.Struct("q")
_PARENT_CHECK_SECONDS = 0.5


def serve(fd: int, parent: int, idle_seconds: float) -> int | None:
    """Forks a process for each request, until the parent hangs up or is gone, or nothing was asked for and nothing ran for so long.

    In such a process, gives the link that it serves.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, _carry_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})  # whoever has started the caller may have blocked it
    with socket.socket(fileno=fd) as control:
        return _serve(control, parent, idle_seconds)


def _serve(control: socket.socket, parent: int, idle_seconds: float) -> int | None:
    woken, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    gc.collect()
    gc.freeze()
    watched = select.poll()
    for handle in (control.fileno(), woken):
        watched.register(handle, select.POLLIN)
    _stand_nowhere()
    idle_since = time.monotonic()
    #: The numbers of processes, by where they are told of; of those that have ended.
    forked: dict[int, int] = {}
    ended: set[int] = set()
    while True:
        ready = {handle for handle, _ in watched.poll(1000 * min(_PARENT_CHECK_SECONDS, idle_seconds))}
        if forked:
            idle_since = time.monotonic()
        if os.getppid() != parent or time.monotonic() - idle_since > idle_seconds:
            return None
        if woken in ready:
            os.read(woken, 4096)
            ended |= _tell_of_ended({told: pid for told, pid in forked.items() if pid not in ended})
        for told in forked.keys() & ready:  # whoever asked for it has heard of its end
            watched.unregister(told)
            os.close(told)
            pid = forked.pop(told)
            ended.discard(pid)
            os.waitpid(pid, os.WNOHANG)
        if control.fileno() in ready:
            asked, handles, _, _ = socket.recv_fds(control, 1, 5)
            if not asked:
                for pid in forked.values():
                    os.waitpid(pid, os.WNOHANG)
                return None
            link, told, *standing = handles
            _stand(*standing)
            pid = _fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for other in (woken, waker, told, *forked):
                    os.close(other)
                os.setsid()
                return link
            _stand_nowhere()
            os.close(link)
            if pid is None:
                os.close(told)
            else:
                forked[told] = pid
                watched.register(told, 0)  # for the end of its reader alone
                _tell(told, pid)


def _stand(out: int, err: int, folder: int) -> None:
    """Takes over where it prints and the working folder, for the process that is forked next."""
    for fd, standard in ((out, 1), (err, 2)):
        os.dup2(fd, standard)
    os.fchdir(folder)
    for fd in (out, err, folder):
        os.close(fd)


def _stand_nowhere() -> None:
    """Holds on to nothing of its parent's: neither to a pipe whose reader waits for its end, nor to a folder."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    _stand(nothing, os.dup(nothing), os.open("/", os.O_PATH))


def _fork() -> int | None:
    """None where there can be no more processes."""
    with warnings.catch_warnings():
        # OpenBLAS may have threads by now; it stops them before a fork itself.
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            return os.fork()
        except OSError as error:
            tell(f"a worker process cannot be forked: {error}")
            return None


def _tell_of_ended(forked: Mapping[int, int]) -> set[int]:
    """Tells the exit codes of those that have ended; their numbers stay theirs until that was heard, for they may yet be killed."""
    ended: set[int] = set()
    for told, pid in forked.items():
        found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if found is not None:
            ended.add(pid)
            _tell(told, found.si_status if found.si_code == os.CLD_EXITED else -found.si_status)
    return ended


def _tell(told: int, word: int) -> None:
    with contextlib.suppress(OSError):  # nobody listens any more
        os.write(told, WORD.pack(word))


def _carry_on(signum: int, frame: object) -> None:
    return
