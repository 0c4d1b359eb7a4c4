"""What follows when the process of a chunk died: who runs again, and who has had the last try. Runs nothing."""

from __future__ import annotations

import signal
from dataclasses import dataclass

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


def after(death: Died, retries: int) -> Aftermath:
    """The others of the chunk run again; the input that was running has one try less.

    A process that died between two inputs names none: the chunk is halved until one is left to blame. Where others may
    have printed what it left, no try is lost: the input is run alone, and then that is known.
    """
    work, at = death.chunk, death.at
    if at is None:
        if work.size > 1:
            return Aftermath(work.halves(), None, 0)
        at = 0
    attempts = work.attempts + death.tries
    again = [Chunk(rows) for rows in (work.rows[:at], work.rows[at + 1 :]) if len(rows)]
    if death.mixed:
        return Aftermath([*again, Chunk(work.rows[at : at + 1])], None, 0)
    if attempts > retries:
        return Aftermath(again, int(work.rows[at]), attempts)
    return Aftermath([*again, Chunk(work.rows[at : at + 1], attempts)], None, attempts)


def error_row(leaf: Leaf, death: Died, lost: int, attempts: int) -> ChunkResult:
    """The error row of an input whose process died for the last time."""
    limit = leaf.experiment.options.execution_seconds
    if death.timed_out:
        error: Exception = InputTimeout(f"it ran longer than execution_timeout={limit:g} s and was killed")
    else:
        error = WorkerCrashed(f"its worker process died {_cause(death.exit_code)}")
    return leaf.failed(lost, Failure.of(error, attempts), death.seconds, death.began, death.worker, death.printed)


def _cause(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name if -code in _NAMED else f"signal {-code}"
        return f"of {name}" + (": the system may be out of memory" if name == "SIGKILL" else "")
    if code is None:
        return "with the process that it was forked from, which was killed: the system may be out of memory"
    return f"with exit code {code}"
