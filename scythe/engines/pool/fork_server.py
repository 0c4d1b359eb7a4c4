"""Worker processes forked from one that has loaded what they need: each starts in a hundredth of the time, and shares its memory.

That process loads Scythe alone, never the user's code, so that all that a fork takes along is known. It waits a while for the next
pool, which takes it where whatever processes inherit from this one has not changed. Where forking is not safe (macOS: its own
libraries do not bear it) each worker process is a program of its own.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from typing import Protocol

from scythe.engines.pool.processes import inherited, is_open, start_python
from scythe.errors import RunError
from scythe.terminal.console import tell

_FORKS = sys.platform == "linux"
_LOADED = (
    "import os; from scythe.engines.pool import child, fork_server; import scythe.leaf.leaf, scythe.gather.payload; "
)
_SERVE = (
    "link = fork_server.serve({fd}, {parent}, {idle}); os._exit(0) if link is None else child.main(link, os.getppid())"
)
_ALONE = "from scythe.engines.pool.child import main; main({fd}, {parent})"
#: What is told of a process: its number when it was forked, and its exit code when it has ended.
_WORD = struct.Struct("q")
_PARENT_CHECK_SECONDS = 0.5
#: So long the fork server may take to end by itself, so that the CPU time of what it forked counts as its parent's children's.
_END_SECONDS = 5.0
#: So long it waits without a process of its own for the next pool.
_IDLE_SECONDS = 30.0
#: How the names of variables begin that nothing reads which it has loaded: processes get them as they are when each is asked for.
_LATE = ("SCYTHE_", "AWS_", "PYTEST_CURRENT_TEST")


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
    """The process that the worker processes of one pool are forked from; started anew where it is gone."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Its processes need this environment, but for the variables that each is given."""
        self.environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._as_started: object = None

    def fits(self, environment: Mapping[str, str]) -> bool:
        """Whether its processes would be as those of a new one, were they given this environment."""
        return self._as_started == _as_started(environment)

    def start(self, link: int, output: int | None) -> Process:
        """A worker process in a session of its own that serves the other end of this socket.

        What it prints goes to `output`, else where this process's own output goes.

        Raises:
            RunError: it cannot be started.
        """
        if not _FORKS:
            return self._program(_ALONE.format(fd=link, parent=os.getpid()), link, output)
        told, telling = os.pipe()
        try:
            if not self._asked(link, telling, output):  # it was killed, or has waited for too long
                self.close()
                if not self._asked(link, telling, output):
                    raise RunError(
                        "the process that worker processes are forked from ends at once: see its output above"
                    )
        except BaseException:
            os.close(told)
            raise
        finally:
            os.close(telling)
        return _Forked(told)

    def _asked(self, link: int, telling: int, output: int | None) -> bool:
        if self._control is None:
            self._control, theirs = socket.socketpair()
            with theirs:
                self._as_started = _as_started(self.environment)
                program = _LOADED + _SERVE.format(fd=theirs.fileno(), parent=os.getpid(), idle=_IDLE_SECONDS)
                self._process = self._program(program, theirs.fileno(), output)
        with _standing(output) as standing:
            try:
                socket.send_fds(self._control, [b"."], [link, telling, *standing])
            except OSError:
                return False
        return True

    def _program(self, program: str, fd: int, output: int | None) -> subprocess.Popen[bytes]:
        return start_python(
            program,
            pass_fds=[fd],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=self.environment,
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

    def forget(self) -> None:
        """Lets go of it in a child that was forked from the process whose server it is."""
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            self._process.returncode = 0  # so that nobody waits for what is no child
        self._control = self._process = None


@contextlib.contextmanager
def _standing(output: int | None) -> Iterator[list[int]]:
    """Handles of what a process is started with: where it prints, where its errors go, its working folder, even a removed one."""
    with contextlib.ExitStack() as opened:

        def handle(path: str, flags: int) -> int:
            fd = os.open(path, flags)
            opened.callback(os.close, fd)
            return fd

        def standard(fd: int) -> int:
            if output is not None:
                return output
            return fd if is_open(fd) else handle(os.devnull, os.O_WRONLY)

        out, err = standard(1), standard(2)
        try:
            folder = handle(".", os.O_PATH)
        except OSError:  # this user may not enter it
            folder = handle("/", os.O_PATH)
        yield [out, err, folder]


def _as_started(environment: Mapping[str, str]) -> object:
    """What a process has from the start, whatever it is given later."""
    return {k: v for k, v in environment.items() if not k.startswith(_LATE)}, inherited()


#: The server of the last pool that was closed.
_KEPT: list[ForkServer] = []
_KEEPING = threading.Lock()


def fork_server(environment: Mapping[str, str]) -> ForkServer:
    """The one that the last pool has left, where a new one would be just the same; else a new one."""
    with _KEEPING:
        kept = _KEPT.pop() if _KEPT else None
    if kept is not None and kept.fits(environment):
        kept.environment = environment
        return kept
    if kept is not None:
        kept.close()
    return ForkServer(environment)


def keep(server: ForkServer) -> None:
    """Leaves it, with none of its processes alive, to the next pool; it ends by itself where none comes."""
    with _KEEPING:
        _KEPT.append(server)
        others = _KEPT[:-1]
        del _KEPT[:-1]
    for other in others:
        other.close()


def _forget_kept() -> None:
    global _KEEPING  # noqa: PLW0603 - another thread of the parent may have held it
    _KEEPING = threading.Lock()
    while _KEPT:
        _KEPT.pop().forget()


@atexit.register
def _close_kept() -> None:
    while _KEPT:
        _KEPT.pop().close()


os.register_at_fork(after_in_child=_forget_kept)


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


def serve(fd: int, parent: int, idle_seconds: float) -> int | None:
    """Forks a process for each request, until the parent hangs up or is gone, or nothing was asked for and nothing ran for so long.

    In such a process, gives the link that it serves.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
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
        os.write(told, _WORD.pack(word))


def _carry_on(signum: int, frame: object) -> None:
    return
