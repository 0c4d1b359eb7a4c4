"""Worker processes forked from one that has loaded what they need: each starts in a hundredth of the time, and shares its memory.

That process loads Scythe and the libraries that it imports, never the user's code, so that all that a fork takes along is known: of
threads those that libraries start as they are imported, none that has computed anything. It waits a while for the next
pool, which takes it where whatever processes inherit from this one has not changed. Where forking is not safe (macOS: its own
libraries do not bear it) each worker process is a program of its own.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Generator, Mapping
from typing import Protocol

from scythe.engines.pool.forking import WORD
from scythe.engines.pool.processes import inherited, is_open, start_python
from scythe.errors import RunError

_FORKS = sys.platform == "linux"
_LOADED = "import os; from scythe.engines.pool import child, forking; import scythe.leaf.leaf, scythe.gather.payload, scythe.allocate; "
_SERVE = "link = forking.serve({fd}, {parent}, {idle}); os._exit(0) if link is None else child.main(link, os.getppid())"
_ALONE = "from scythe.engines.pool.child import main; main({fd}, {parent})"
#: So long the fork server may take to end by itself, so that the CPU time of what it forked counts as its parent's children's.
_END_SECONDS = 5.0
#: So long it waits without a process of its own for the next pool.
_IDLE_SECONDS = 10.0
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
def _standing(output: int | None) -> Generator[list[int]]:
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
    """What a process has from the start, whatever it is given later: variables that are read late, folders, its path."""
    return {k: v for k, v in environment.items() if not k.startswith(_LATE)}, inherited()


#: The server of the last pool that was closed; taken and put there at once, whichever thread does so.
_KEPT: deque[ForkServer] = deque()


def fork_server(environment: Mapping[str, str]) -> ForkServer:
    """The one that the last pool has left, where a new one would be just the same; else a new one."""
    while (kept := _taken()) is not None:
        if kept.fits(environment):
            kept.environment = environment
            return kept
        kept.close()
    return ForkServer(environment)


def keep(server: ForkServer) -> None:
    """Leaves it, with none of its processes alive, to the next pool; it ends by itself where none comes."""
    _KEPT.append(server)
    while len(_KEPT) > 1 and (other := _taken()) is not None:
        other.close()


def _taken() -> ForkServer | None:
    with contextlib.suppress(IndexError):
        return _KEPT.popleft()
    return None


def _forget_kept() -> None:
    while (kept := _taken()) is not None:
        kept.forget()


@atexit.register
def _close_kept() -> None:
    while (kept := _taken()) is not None:
        kept.close()


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
        word = os.read(self._told, WORD.size)
        return WORD.unpack(word)[0] if len(word) == WORD.size else None
