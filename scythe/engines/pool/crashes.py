"""What follows when the process of a chunk died: who runs again, and who has had the last try. Runs nothing."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from pathlib import Path

from scythe.engines.pool.cores import control_groups
from scythe.engines.pool.pool import Chunk, Died
from scythe.errors import InputTimeout, WorkerCrashed
from scythe.leaf.failures import Failure
from scythe.leaf.leaf import Leaf
from scythe.leaf.rows import ChunkResult

_NAMED = frozenset(int(number) for number in signal.Signals)


@dataclass(frozen=True)
class Aftermath:
    """The chunks that are to be run again, and the row of the input that is lost for good (None: none is)."""

    again: list[Chunk]
    lost: int | None
    attempts: int
    #: The system has killed a process for want of memory since the death before this one.
    short: bool


def after(death: Died, retries: int) -> Aftermath:
    """The others of the chunk run again; the input that was running has one try less.

    A process that died between two inputs names none: the chunk is halved until one is left to blame. Where others may
    have printed what it left, no try is lost: the input is run alone, and then that is known.
    """
    work, at, short = death.chunk, death.at, _KILLS.have_grown()
    if at is None:
        if work.size > 1:
            return Aftermath(work.halves(), None, 0, short)
        at = 0
    attempts = work.attempts + death.tries
    again = [Chunk(rows) for rows in (work.rows[:at], work.rows[at + 1 :]) if len(rows)]
    if death.mixed:
        return Aftermath([*again, Chunk(work.rows[at : at + 1])], None, 0, short)
    if attempts > retries:
        return Aftermath(again, int(work.rows[at]), attempts, short)
    return Aftermath([*again, Chunk(work.rows[at : at + 1], attempts)], None, attempts, short)


def error_row(leaf: Leaf, death: Died, what: Aftermath) -> ChunkResult:
    """The error row of the input that is lost."""
    assert what.lost is not None
    limit = leaf.experiment.options.execution_seconds
    if death.timed_out:
        error: Exception = InputTimeout(f"it ran longer than execution_timeout={limit:g} s and was killed")
    else:
        error = WorkerCrashed(f"its worker process died {_cause(death.exit_code, short=what.short)}")
    return leaf.failed(
        what.lost, Failure.of(error, what.attempts), death.seconds, death.began, death.worker, death.printed
    )


def memory_kills(root: Path = Path("/")) -> int:
    """How many processes of this one's control group (a job of Slurm's, a container) the system has killed for want of memory.

    0 where nobody counts them. By `oom_kill` of Linux's documentation: memory.events (v2), memory.oom_control (v1).
    """
    for folder, is_v2 in control_groups("memory", root):
        file = folder / ("memory.events" if is_v2 else "memory.oom_control")
        if file.exists():
            found = re.search(r"^oom_kill (\d+)$", file.read_text(), re.M)
            return int(found[1]) if found is not None else 0
    return 0


class _MemoryKills:
    """Remembers how many there were."""

    def __init__(self) -> None:
        self._count = memory_kills()

    def have_grown(self) -> bool:
        """Whether there are more than when this was asked last."""
        before, self._count = self._count, memory_kills()
        return self._count > before


_KILLS = _MemoryKills()


def _cause(code: int | None, *, short: bool) -> str:
    memory = "the system may be out of memory"
    if short:
        memory = "OUT_OF_MEMORY, the job or container that it is in may use no more"
    if code is not None and code < 0:
        name = signal.Signals(-code).name if -code in _NAMED else f"signal {-code}"
        return f"of {name}" + (f": {memory}" if name == "SIGKILL" else "")
    if code is None:
        return f"with the process that it was forked from, which was killed: {memory}"
    return f"with exit code {code}"
