"""What keeps a run on a cluster from going on, in a sentence: for those who wait for it, and for those who look."""

from __future__ import annotations

import asyncio
import contextlib
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING

from scythe.engines.hatchet.connection import check, connect, on_loop
from scythe.engines.hatchet.errors import told_in
from scythe.engines.hatchet.fleet import serves, workers_for
from scythe.engines.hatchet.tasks import NAME_LABEL
from scythe.errors import SettingsError
from scythe.record.attempt_plan import AttemptPlan, is_planned, last_attempt_planned, load_attempt_plan, load_trigger
from scythe.record.attempts import latest_attempt
from scythe.record.manifest import read_manifest
from scythe.record.plan import RunPlan
from scythe.record.results import read_result

if TYPE_CHECKING:
    from hatchet_sdk.clients.rest.models.worker import Worker

#: So long nothing has come before it is asked why, and so often from then on.
_STILL_SECONDS = 3.0
_AGAIN_SECONDS = 5.0
_ANSWER_SECONDS = 15.0


def outlook(plan: RunPlan) -> str | None:
    """Why nothing of a run goes on, None where nothing is known to be wrong; takes seconds where something is."""
    ended = read_result(plan.objects, plan.key)
    if ended is not None and not is_planned(plan.objects, plan.key, ended.attempt):
        return None
    try:
        check(connect())
        return on_loop(asyncio.wait_for(_outlook(plan), _ANSWER_SECONDS)).result() or _failure(plan)
    except SettingsError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - whatever keeps it from being asked is told in its place
        return f"the engine cannot be asked about it ({type(error).__name__}: {error})"


def way_out(module: str, source: str | None) -> str:
    """How a worker is started that has the experiment of a module."""
    return f"scythe worker {source if module == '__main__' else module}"


class Watch:
    """Asks now and then while nothing comes in; never blocks."""

    def __init__(self, plan: RunPlan) -> None:
        self._plan = plan
        self._done = -1
        self._still = self._asked_at = time.monotonic()
        self._asked: Future[str | None] | None = None
        self._said: str | None = None

    def look(self, done: int) -> str | None:
        """What is known to be wrong; `done` inputs have come to an end by now."""
        now = time.monotonic()
        if done != self._done:
            self._done, self._still, self._said = done, now, None
        if self._asked is not None and self._asked.done():
            self._said = self._asked.result() if self._asked.exception() is None else None
            self._asked = None
        if self._asked is None and min(now - self._still, now - self._asked_at + _STILL_SECONDS) > _STILL_SECONDS:
            self._asked, self._asked_at = on_loop(_outlook(self._plan)), now + _AGAIN_SECONDS
        return self._said


async def _outlook(plan: RunPlan) -> str | None:
    attempt = await asyncio.to_thread(_last_attempt, plan)
    if attempt is None:
        return None
    for task in attempt.tasks:
        serving = [w for w in await workers_for(task, patient=True) if serves(w, task)]
        if not serving:
            start = way_out(plan.module, plan.source)
            return f"no worker that is connected has the task {task!r}; the run waits for one: {start}"
        wanted = attempt.labels if task == attempt.tasks[0] else {}
        if not any(_has(worker, wanted) for worker in serving):
            return f"no worker that is connected has the labels {_listed(wanted)}; the run waits for one"
    return None


def _last_attempt(plan: RunPlan) -> AttemptPlan | None:
    with contextlib.suppress(FileNotFoundError):
        return load_attempt_plan(plan.objects, plan.key, last_attempt_planned(plan.objects, plan.key))
    return None


def _has(worker: Worker, wanted: dict[str, str | int]) -> bool:
    labels = {label.key: label.value for label in worker.labels or []}
    return all(labels.get(name) == str(value) for name, value in wanted.items())


def _listed(labels: dict[str, str | int]) -> str:
    """Labels by the settings that give them to a worker."""
    names = {NAME_LABEL: "name"}
    return ", ".join(f"SCYTHE_WORKER_{names.get(name, name).upper()}={value}" for name, value in labels.items())


def _failure(plan: RunPlan) -> str | None:
    """What the engine says of a root that failed: where the worker did not find the run, it could not note it there."""
    last, planned = latest_attempt(plan.objects, plan.key), last_attempt_planned(plan.objects, plan.key)
    if last is not None and last.alive:
        return None
    # Of the newest attempt: what ended one before may be mended.
    started = load_trigger(plan.objects, plan.key, planned) if planned else None
    started = started or read_manifest(plan.objects, plan.key).get("workflow_run_id")
    details = connect().runs.get_details(started) if started else None
    errors = [run.error for run in details.task_runs.values() if run.error] if details is not None else []
    return told_in(errors[0]) if errors else None


__all__ = ["Watch", "outlook", "way_out"]
