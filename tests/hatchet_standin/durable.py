"""Durable tasks: what they ask for over their stream, and who is told when it is there. No I/O.

A child or a sleep that ends satisfies a node of the task's log. The stream that last spoke for the task hears
of it; a task that was evicted is queued again instead; nobody hears when the worker is gone, because the next
invocation asks again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .durable_log import ChildRequest, DurableLog, DurableSession, Entry, child_key_of
from .model import Run, Status, TaskRun, Trigger

if TYPE_CHECKING:
    from .engine import Engine

CHILD_CANCELLED = "task was cancelled"


@dataclass(frozen=True)
class Sleep:
    """One condition of a wait; the wait is over when each group has one condition that is met."""

    group: str
    name: str
    duration: str
    seconds: float


class DurableTasks:
    """The durable part of an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._logs: dict[str, DurableLog] = {}
        self._sessions: dict[str, DurableSession] = {}

    def begin_invocation(self, task: TaskRun) -> int:
        return self._log(task.id).begin_invocation()

    def invocation(self, task: TaskRun) -> int:
        return self._log(task.id).invocation

    def speak_for(self, task_id: str, session: DurableSession) -> None:
        self._sessions[task_id] = session

    def close(self, session: DurableSession) -> None:
        self._sessions = {task: held for task, held in self._sessions.items() if held is not session}

    def spawn(self, task_id: str, invocation: int, triggers: Sequence[Trigger]) -> list[tuple[Entry, str]]:
        """Spawn children; each entry of the answer with the id of its run, in the order of the nodes.

        A workflow that nobody has registered is acknowledged all the same and its run never starts: the engine
        triggers after it has answered.
        """
        log = self._log(task_id)
        log.check(invocation)
        requests: list[ChildRequest] = []
        by_child: dict[str, Trigger] = {}
        for trigger in triggers:
            run_id, known = self._engine.resolve_child(trigger)
            key = child_key_of(trigger.workflow, trigger.input)
            requests.append(ChildRequest(key, run_id, known, check_known=trigger.child_key is None))
            by_child.setdefault(run_id, trigger)
        answers, fresh = log.spawn(requests)
        for entry in fresh:
            trigger = by_child[entry.child_id or ""]
            if trigger.workflow in self._engine.workflows:
                run = self._engine.start(trigger, entry.child_id or "")
                node = entry.node
                self._engine.watch(run.id, lambda run, node=node: self._child_ended(task_id, node, run))
        return [(entry, entry.child_id or "") for entry in answers]

    def deliver_satisfied(self, task_id: str, entries: Sequence[Entry]) -> None:
        """Tell the worker at once of answers that were there before it asked."""
        for entry in entries:
            if entry.satisfied:
                self._deliver(task_id, entry)

    def memo(self, task_id: str, invocation: int, key: bytes, payload: bytes) -> tuple[Entry, bool]:
        log = self._log(task_id)
        log.check(invocation)
        entry, existed = log.ask("MEMO", key)
        if not existed and payload:
            log.satisfy(entry.node, payload, ordered=False)
        return entry, existed

    def complete_memo(self, task_id: str, node: int, payload: bytes) -> None:
        entry = self._log(task_id).satisfy(node, payload, ordered=False)
        if entry is not None:
            self._deliver(task_id, entry)

    def wait_for(self, task_id: str, invocation: int, sleeps: Sequence[Sleep], groups: set[str]) -> Entry:
        """Wait until each group has a sleep that is over. User events never come: nobody can send one here."""
        log = self._log(task_id)
        log.check(invocation)
        names = json.dumps(sorted((sleep.name, sleep.duration) for sleep in sleeps))
        entry, existed = log.ask("WAIT_FOR", names.encode())
        if not existed:
            over: dict[str, Sleep] = {}
            for sleep in sleeps:
                self._engine.later(sleep.seconds, lambda s=sleep: self._slept(task_id, entry, s, over, groups))
        return entry

    def evict(self, task_id: str) -> None:
        task = self._engine.task(task_id)
        if task.status is Status.RUNNING and not task.evicted:
            self._engine.evict(task)

    def report_waiting(self, session: DurableSession, waiting: Sequence[tuple[str, int, int]]) -> dict[str, int]:
        """Repeat what is there for (task, invocation, node); the current invocation of each task that is stale."""
        stale: dict[str, int] = {}
        for task_id, invocation, node in waiting:
            log = self._logs.get(task_id)
            if log is None:
                continue
            if invocation < log.invocation:
                stale[task_id] = log.invocation
                continue
            entry = log.entries.get(node)
            if entry is not None and entry.satisfied:
                session.deliver(task_id, log.invocation, entry)
        return stale

    def _log(self, task_id: str) -> DurableLog:
        self._engine.task(task_id)
        return self._logs.setdefault(task_id, DurableLog())

    def _deliver(self, task_id: str, entry: Entry) -> None:
        session = self._sessions.get(task_id)
        if session is not None:
            session.deliver(task_id, self._log(task_id).invocation, entry)

    def _satisfied(self, task_id: str, entry: Entry | None) -> None:
        if entry is not None and not self._engine.restore(self._engine.task(task_id)):
            self._deliver(task_id, entry)

    def _child_ended(self, task_id: str, node: int, run: Run) -> None:
        error = next((task.error for task in run.tasks.values() if task.status is Status.FAILED), None)
        if error is None and run.status is not Status.COMPLETED:
            error = CHILD_CANCELLED
        self._satisfied(task_id, self._log(task_id).satisfy(node, output_of(run).encode(), error))

    def _slept(self, task_id: str, entry: Entry, sleep: Sleep, over: dict[str, Sleep], groups: set[str]) -> None:
        over.setdefault(sleep.group, sleep)
        if over.keys() == groups:
            met = {s.name: [{"id": entry.node, "sleep_duration": s.duration}] for s in over.values()}
            payload = json.dumps({"CREATE": met}).encode()
            self._satisfied(task_id, self._log(task_id).satisfy(entry.node, payload))


def output_of(run: Run) -> str:
    """What a durable parent gets of a child: the output of a single task, else the outputs by task name."""
    tasks = list(run.tasks.values())
    if len(tasks) == 1:
        return tasks[0].output or ""
    return json.dumps({task.spec.name: json.loads(task.output) for task in tasks if task.output})
