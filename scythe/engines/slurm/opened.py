"""What of an attempt on Slurm is open still, and how its elements ended. Writes nothing."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from scythe.engines.slurm import commands
from scythe.engines.slurm.folder import Beat, Folder, Gone
from scythe.gather.final import coverage_of
from scythe.gather.parts import stored_parts
from scythe.record.attempt_plan import AttemptPlan
from scythe.record.plan import RunPlan

_TAIL_BYTES = 8 * 1024
#: What Slurm writes into the output of a job whose memory was not enough, whichever way that is watched.
_MEMORY = ("oom-kill", "oom_kill", "exceeded memory limit", "exceeded job memory limit", "out of memory")


def open_rows(plan: RunPlan, attempt: AttemptPlan) -> np.ndarray:
    """The rows of `specs.pq` that an attempt is to run and that none of its parts has, ascending."""
    parts = stored_parts(plan, prefix=f"{attempt.number:06d}-")
    ranges = coverage_of(plan, parts).open_ranges()
    uncovered = np.concatenate([np.empty(0, np.int64), *(np.arange(a, b, dtype=np.int64) for a, b in ranges)])
    wanted = np.asarray(attempt.rows(range(attempt.n)), np.int64)
    return wanted[np.isin(wanted, uncovered)] if len(uncovered) != plan.inputs else wanted


def state_of(folder: Folder, beat: Beat) -> str:
    """The state of an element, as Slurm says: by its records, or by what it wrote into the element's output."""
    state = commands.state(f"{beat.array}_{beat.index}")
    if state in commands.LIVING or state in commands.BLAMELESS:
        return state
    later = [other.log_at for other in folder.beats() if other.index == beat.index and other.log_at > beat.log_at]
    own = log_tail(folder, beat.index, beat.log_at, min(later, default=None))
    said = [line.lower() for line in own.splitlines() if line.startswith("slurmstepd")]
    return "OUT_OF_MEMORY" if any(word in line for line in said for word in _MEMORY) else state


def death_of(beat: Beat, state: str) -> Gone:
    """How an element ended that did not do so by itself: at what it was, as it has told last, and when, as Slurm says."""
    gone = Gone(beat.element, state, beat.rows, beat.exact, beat.since, beat.told, beat.printed)
    ended = commands.end_of(f"{beat.array}_{beat.index}") if gone.is_blamed and gone.is_told and beat.rows else None
    # Slurm tells whole seconds: in the middle of one it is wrong by half of it at most.
    return replace(gone, at=max(ended + 0.5, beat.told)) if ended is not None else gone


def log_of(folder: Folder, element: int | None) -> Path:
    """Where an element (None: the gather job) writes what it prints."""
    return folder.logs / ("gather.log" if element is None else f"element-{element}.log")


def log_tail(folder: Folder, element: int | None, start: int = 0, stop: int | None = None) -> str:
    """The last lines that an element, or the gather job, has printed from here (until there) on; empty where there are none."""
    with contextlib.suppress(OSError), log_of(folder, element).open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        end = end if stop is None else min(end, stop)
        first = file.seek(max(0, min(start, end), end - _TAIL_BYTES))
        return file.read(end - first).decode(errors="replace")
    return ""


__all__ = ["death_of", "log_of", "log_tail", "open_rows", "state_of"]
