"""The attempts on a run: who worked on it, when, and with which code. Works on nothing itself."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from scythe.record.attempts import attempts, latest_attempt
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
        began: When it took up the run, by its own clock; None where that was not recorded.
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
    last = latest_attempt(objects, key)
    for attempt in attempts(objects, key):
        gone = not attempt.ended and not (last is not None and last.number == attempt.number and last.alive)
        reason = attempt.reason or (_GONE if gone and attempt.engine in _OF_ONE_PROCESS else None)
        began = dt.datetime.fromtimestamp(attempt.began, dt.UTC) if attempt.began else None
        made_by = recorded(objects, key, attempt.number)
        found.append(RunAttempt(attempt.number, attempt.engine, attempt.host, attempt.pid, began, made_by, reason))
    return found
