"""Worker processes forked from one that has loaded what they need: each starts in a hundredth of the time, and shares its memory.

That process loads Scythe alone, never the user's code, so that all that a fork takes along is known. Where forking is not safe
(macOS: its own libraries do not bear it) each worker process is a program of its own.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import warnings
from collections.abc import Mapping
from typing import Protocol

from scythe.engines.pool.processes import start_python
from scythe.errors import RunError
from scythe.terminal.console import tell

_FORKS = sys.platform == "linux"
_LOADED = (
    "import os; from scythe.engines.pool import child, fork_server; import scythe.leaf.leaf, scythe.gather.payload; "
)
_SERVE = "link = fork_server.serve({fd}, {parent}); os._exit(0) if link is None else child.main(link, os.getppid())"
_ALONE = "from scythe.engines.pool.child import main; main({fd}, {parent})"
#: What is told of a process: its number when it was forked, and its exit code when it has ended.
_WORD = struct.Struct("q")
_PARENT_CHECK_SECONDS = 0.5
#: So long the fork server may take to end by itself, so that the CPU time of what it forked counts as its parent's children's.
_END_SECONDS = 5.0


class Process(Protocol):
    """A worker process, as its pool sees it."""

    @property
    def pid(self) -> int | None:
        """Its number, once it was forked; None where it never came to be."""
        ...

    def wait(self) -> int | None:
        """Its exit code as Python has them (-9: killed), when it has ended; None where nobody knows."""
        ...


class ForkServer:
    """The process that the worker processes of one pool are forked from; started anew where it was killed."""

    def __init__(self, output: int | None, environment: Mapping[str, str]) -> None:
        """What the processes print goes to `output`, else where this process's own output goes."""
        self._output, self._environment = output, environment
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def start(self, link: int) -> Process:
        """A worker process in a session of its own that serves the other end of this socket.

        Raises:
            RunError: it cannot be started.
        """
        if not _FORKS:
            return self._program(_ALONE.format(fd=link, parent=os.getpid()), link)
        told, telling = os.pipe()
        try:
            if not self._asked(link, telling):  # it was killed
                self.close()
                if not self._asked(link, telling):
                    raise RunError(
                        "the process that worker processes are forked from ends at once: see its output above"
                    )
        except BaseException:
            os.close(told)
            raise
        finally:
            os.close(telling)
        return _Forked(told)

    def _asked(self, *fds: int) -> bool:
        if self._control is None:
            self._control, theirs = socket.socketpair()
            with theirs:
                program = _LOADED + _SERVE.format(fd=theirs.fileno(), parent=os.getpid())
                self._process = self._program(program, theirs.fileno())
        try:
            socket.send_fds(self._control, [b"."], fds)
        except OSError:
            return False
        return True

    def _program(self, program: str, fd: int) -> subprocess.Popen[bytes]:
        return start_python(
            program,
            pass_fds=[fd],
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            env=self._environment,
        )

    def close(self) -> None:
        """Ends it; what was forked from it ends by itself, if it has not."""
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            try:
                self._process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._control = self._process = None


class _Forked:
    """What the fork server tells of a process that was asked for."""

    def __init__(self, told: int) -> None:
        self._told = told
        self._pid: int | None = None
        self._heard = self._over = False
        self._code: int | None = None

    @property
    def pid(self) -> int | None:
        if not self._heard:
            self._pid, self._heard = self._next(), True
        return self._pid

    def wait(self) -> int | None:
        if not self._over:
            try:
                self._code = self._next() if self.pid is not None else None
            finally:
                self._over = True
                os.close(self._told)
        return self._code

    def _next(self) -> int | None:
        word = os.read(self._told, _WORD.size)
        return _WORD.unpack(word)[0] if len(word) == _WORD.size else None


def serve(fd: int, parent: int) -> int | None:
    """Forks a process for each request, until the parent hangs up or is gone; in such a process, gives the link that it serves."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, _carry_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})  # whoever has started the caller may have blocked it
    with socket.socket(fileno=fd) as control:
        return _serve(control, parent)


def _serve(control: socket.socket, parent: int) -> int | None:
    woken, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    gc.collect()
    gc.freeze()
    watched = select.poll()
    for handle in (control.fileno(), woken):
        watched.register(handle, select.POLLIN)
    #: The numbers of processes, by where they are told of; of those that have ended.
    forked: dict[int, int] = {}
    ended: set[int] = set()
    while True:
        ready = {handle for handle, _ in watched.poll(1000 * _PARENT_CHECK_SECONDS)}
        if os.getppid() != parent:
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
            asked, handles, _, _ = socket.recv_fds(control, 1, 2)
            if not asked:
                for pid in forked.values():
                    os.waitpid(pid, os.WNOHANG)
                return None
            link, told = handles
            pid = _fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for other in (woken, waker, told, *forked):
                    os.close(other)
                os.setsid()
                return link
            os.close(link)
            if pid is None:
                os.close(told)
            else:
                forked[told] = pid
                watched.register(told, 0)  # for the end of its reader alone
                _tell(told, pid)


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
        os.write(told, _WORD.pack(word))


def _carry_on(signum: int, frame: object) -> None:
    return
