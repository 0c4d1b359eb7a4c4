"""A cluster for tests: an engine (the stand-in, or the one that HATCHET_CLIENT_TOKEN names) and real worker processes.

Workers are `scythe worker` on a module of the test, each in a process group of its own, so that
a test can kill one as a machine dies.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self, TypeVar

from tests.hatchet_standin import StandinEngine

T = TypeVar("T")

REAL = "HATCHET_CLIENT_TOKEN" in os.environ
#: A real engine gives a silent worker up after 30 seconds.
PATIENCE = 240.0

_SCYTHE = [sys.executable, "-c", "from scythe.cli import main; main()"]


def unique(name: str) -> str:
    """A name that no earlier test has used: a real engine remembers them all."""
    return f"{name}_{uuid.uuid4().hex[:8]}"


@contextmanager
def engine_environment(**options: float | str) -> Iterator[dict[str, str]]:
    """The environment variables that lead to an engine; the stand-in's options do nothing on a real one."""
    if REAL:
        yield {k: v for k, v in os.environ.items() if k.startswith("HATCHET_CLIENT_")}
        return
    with StandinEngine(**options) as engine:  # type: ignore[arg-type]
        yield engine.env


class Worker:
    """One `scythe worker` process."""

    def __init__(
        self,
        module: str,
        *options: str,
        env: dict[str, str],
        cwd: Path,
        command: tuple[str, ...] = (*_SCYTHE, "worker"),
    ) -> None:
        self.log = cwd / f"worker-{uuid.uuid4().hex[:6]}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, module, *options],
                env={**os.environ, **env}, cwd=cwd, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    @property
    def output(self) -> str:
        """What it has printed by now."""
        return self.log.read_text(errors="replace")

    def kill(self, *, machine: bool = False) -> None:
        """Kills it; with `machine` all that it started too, at once."""
        pids = [self.process.pid, *(descendants(self.process.pid) if machine else [])]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def stop(self, timeout: float = 40.0) -> int:
        """Tells it to stop (SIGTERM); its exit code."""
        self.process.terminate()
        return self.process.wait(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill(machine=True)


def descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rsplit(")", 1)[1].split()
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, waiting = [], [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def command(pid: int) -> str:
    """The command line of a process, empty where it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""


def wait_for(what: Callable[[], T | None], timeout: float = PATIENCE) -> T:
    """What `what` gives as soon as it is true."""
    until = time.monotonic() + timeout
    while True:
        found = what()
        if found:
            return found
        if time.monotonic() > until:
            raise TimeoutError(f"it was not so within {timeout:g} seconds")
        time.sleep(0.05)


def wait_until_served(*names: str, workers: int = 1, timeout: float = PATIENCE) -> None:
    """Returns when so many connected workers have each of these tasks."""
    from scythe.engines.hatchet.connection import on_loop
    from scythe.engines.hatchet.fleet import active_workers, serves

    def served() -> bool:
        active = on_loop(active_workers()).result()
        return all(sum(serves(w, name) for w in active) >= workers for name in names)

    wait_for(served, timeout)
