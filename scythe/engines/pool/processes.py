"""How child processes of this library are started: the same interpreter, its flags, its path, arguments, and whole standard handles.

Knows nothing of what they do. `multiprocessing` would run the user's main script again, and cannot
give a child a process group of its own.
"""

from __future__ import annotations

import contextlib
import copy
import fcntl
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from scythe.errors import RunError

_FIRST_FREE = 3
#: What /proc/self/status says of what a child gets.
_INHERITED = ("Umask", "Uid", "Gid", "Groups", "SigBlk", "SigIgn", "Cap", "NoNewPrivs", "Seccomp", "Cpus_", "Mems_")
_PREAMBLE = "import sys; sys.path[:] = {path!r}; sys.argv[:] = {arguments!r}; "


def start_python(
    program: str,
    *,
    stdin: int,
    stdout: int | None = None,
    stderr: int | None = None,
    pass_fds: Sequence[int] = (),
    env: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """A process of this interpreter in a session of its own, with this process's flags, path and arguments.

    The options are Popen's. A standard handle that is closed here is open on nothing there: else the next file that is
    opened would take its number, and what libraries print would land in it.

    Raises:
        RunError: it cannot be started.
    """
    if not sys.executable:
        raise RunError("worker processes cannot be started: sys.executable does not name a Python interpreter")
    out, err = (
        subprocess.DEVNULL if given is None and not is_open(fd) else given for fd, given in ((1, stdout), (2, stderr))
    )
    before = _PREAMBLE.format(path=import_path(), arguments=sys.argv)
    command = [sys.executable, *interpreter_flags(), "-c", before + program]
    try:
        return subprocess.Popen(
            command, stdin=stdin, stdout=out, stderr=err, pass_fds=pass_fds, env=env, start_new_session=True
        )
    except OSError as error:
        raise RunError(f"a worker process cannot be started ({sys.executable}): {error}") from error


def inherited() -> object:
    """All that a process has from the one that starts it, beside its environment, its handles, its working folder and its path."""
    facts: list[object] = [
        os.getpid(),
        sys.executable,
        interpreter_flags(),
        sys.argv,
        os.getpriority(os.PRIO_PROCESS, 0),
    ]
    if sys.platform == "linux":
        facts += [os.sched_getscheduler(0), os.sched_getparam(0).sched_priority]
    for name in ("limits", "cgroup", "oom_score_adj"):
        with contextlib.suppress(OSError):
            facts.append(Path(f"/proc/self/{name}").read_text())
    with contextlib.suppress(OSError):  # of the thread: it may have cores of its own, and block signals
        lines = Path("/proc/thread-self/status").read_text().splitlines()
        facts.append([line for line in lines if line.startswith(_INHERITED)])
    return copy.deepcopy(facts)


def import_path() -> list[str]:
    """Where this process looks for modules, without what Python itself passes over there."""
    return [entry for entry in sys.path if isinstance(entry, str)]  # pyright: ignore[reportUnnecessaryIsInstance]


def working_folder() -> str:
    """The caller's working folder; `.` where it is gone, which the processes inherit as it is."""
    with contextlib.suppress(FileNotFoundError):
        return os.getcwd()  # noqa: PTH109 - its name is text for the process that gets it
    return "."


def interpreter_flags() -> list[str]:
    """The interpreter's own flags (-O, -W, -X, ...), as `multiprocessing` hands them on."""
    return subprocess._args_from_interpreter_flags()  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType]


def is_open(fd: int) -> bool:
    """Whether a handle is open in this process."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def fill_standard_handles() -> None:
    """Opens standard handles that are closed on nothing: else a file of a run would get the number of one."""
    for fd in range(_FIRST_FREE):
        if not is_open(fd):
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest number that is free


def beyond_standard(fd: int) -> int:
    """The handle, or a copy of it (and the handle is closed) where it has the number of a standard one."""
    if fd >= _FIRST_FREE:
        return fd
    copy = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE)
    os.close(fd)
    return copy
