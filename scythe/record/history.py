"""The attempts on a run: who worked on it, when, and with which code. Works on nothing itself."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from scythe.record.attempts import attempts
from scythe.record.layout import RunKey
from scythe.record.provenance import Provenance, recorded
from scythe_catalog.storage.objects import Objects


@dataclass(frozen=True)
class RunAttempt:
    """One attempt on a run: its start, or a `resume` or `retry_errors`. The column `attempt` of `tasks` names it for each input.

    Attributes:
        number: 1 for the first.
        engine: The name of the engine.
        host, pid: The process that worked on the run, or led it.
        began: When it took up the run, by its own clock; None where that was not recorded.
        provenance: Commit, patch, hash of the code and packages; None where that was not recorded.
    """

    number: int
    engine: str
    host: str
    pid: int
    began: dt.datetime | None
    provenance: Provenance | None


def attempts_on(objects: Objects, key: RunKey) -> list[RunAttempt]:
    """All attempts on a run, the first one first; raises RunDamaged where a record of one is none any more."""
    found: list[RunAttempt] = []
    for attempt in attempts(objects, key):
        began = dt.datetime.fromtimestamp(attempt.began, dt.UTC) if attempt.began else None
        made_by = recorded(objects, key, attempt.number)
        found.append(RunAttempt(attempt.number, attempt.engine, attempt.host, attempt.pid, began, made_by))
    return found
