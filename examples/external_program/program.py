"""Runs a program that is not yours, in a folder of its own, and tells what went wrong. It knows no experiment: take it along."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

#: How many lines at the end of a log an error shows.
LAST_LINES = 5

#: Ends the program, and all that it has started, when the process that wants its results dies: then the pipe that is its standard
#: input closes. (Scythe kills its worker processes for Ctrl-C, `scythe cancel` and `execution_timeout`; they cannot clear up.)
_GUARDED = 'exec 3<&0 </dev/null; { cat <&3 >/dev/null 2>&1; kill -KILL 0; } & exec "$@" 3<&-'


class ProgramFailed(RuntimeError):
    """The program ended with another exit code than 0."""


class ProgramTimeout(RuntimeError):
    """The program took longer than it may; it was killed, with all that it had started."""


def run_program(command: Sequence[str], folder: Path, seconds: float, env: dict[str, str] | None = None) -> Path:
    """Runs a program in a folder, and gives the file in which all that it has printed is kept.

    Args:
        command: The program and its arguments.
        folder: Where it works: one that no other run of it uses, such as the `tempdir` of an experiment's function.
        seconds: How long it may take [s].
        env: Environment variables that it gets beside those of this process.

    Raises:
        ProgramFailed: another exit code than 0; with the last lines of the log.
        ProgramTimeout: it took too long; with the last lines of the log.
    """
    log, name = folder / "log.txt", Path(command[0]).name
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["/bin/sh", "-c", _GUARDED, command[0], *command],
            cwd=folder, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            process_group=0,  # so that it can be ended with all that it starts
        )  # fmt: skip
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise ProgramTimeout(f"{name} took longer than {seconds:g} s and was killed{_end_of(log)}") from None
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            assert process.stdin is not None
            process.stdin.close()
    if code != 0:
        raise ProgramFailed(f"{name} ended with {_told(code)}{_end_of(log)}")
    return log


def _told(code: int) -> str:
    return f"exit code {code}" if code > 0 else f"signal {signal.Signals(-code).name}"


def _end_of(log: Path) -> str:
    """The last lines of a log; it may be long, and may hold any bytes."""
    with log.open("rb") as file:
        file.seek(max(log.stat().st_size - 10_000, 0))
        lines = file.read().decode(errors="replace").splitlines()
    return "".join(f"\n  | {line}" for line in lines[-LAST_LINES:]) or ", and printed nothing"
