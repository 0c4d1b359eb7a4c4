"""The attempts on a run: who worked on it, when, and with which code. Works on nothing itself."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from scythe.record.attempts import Attempt, attempts, latest_attempt
from scythe.record.layout import RunKey
from scythe.record.provenance import Provenance, recorded
from scythe_catalog.storage.objects import Objects

_OF_ONE_PROCESS = ("local", "inline")
_GONE = "its process is gone, and could not say why: it was killed, or its machine stopped"


@dataclass(frozen=True)
class RunAttempt:
    """One attempt on a run: its start, or a `resume` or `retry_errors`. The column `attempt` of `tasks` names it for each input.

    Attributes:
        number: 1 for the first.
        engine: The name of the engine.
        host, pid: The process that worked on the run, or led it.
        began: When the run was taken up, by the clock of the process that did so first; None where that was not recorded.
        provenance: Commit, patch, hash of the code and packages; None where that was not recorded.
        stopped: Why it stopped before the run was finished, in a line; None where it came to its end, or could not say.
    """

    number: int
    engine: str
    host: str
    pid: int
    began: dt.datetime | None
    provenance: Provenance | None
    stopped: str | None = None


def attempts_on(objects: Objects, key: RunKey) -> list[RunAttempt]:
    """All attempts on a run, the first one first; raises RunDamaged where a record of one is none any more."""
    found: list[RunAttempt] = []
    there = attempts(objects, key)
    for attempt in there:
        reason = attempt.reason or (
            _GONE if attempt.engine in _OF_ONE_PROCESS and _is_gone(objects, key, attempt, there) else None
        )
        began = dt.datetime.fromtimestamp(attempt.began, dt.UTC) if attempt.began else None
        made_by = recorded(objects, key, attempt.number)
        found.append(RunAttempt(attempt.number, attempt.engine, attempt.host, attempt.pid, began, made_by, reason))
    return found


def _is_gone(objects: Objects, key: RunKey, attempt: Attempt, there: list[Attempt]) -> bool:
    """Whether the process of an attempt stopped before it could say so."""
    if attempt.ended or attempt is not there[-1]:  # a later one takes up what nobody works on
        return not attempt.ended
    last = latest_attempt(objects, key)
    return last is None or not (last.ended or last.alive)
