"""The life of runs, tasks and workers: a state machine that is told of messages and of time, and does no I/O.

Messages to workers, durable sessions and subscribers are put into mailboxes that the adapters own. The rules
are those of the engine's `pkg/repository` (v0.112), named where they are not obvious. A worker whose stream
breaks is lost at once here; the engine waits until its heartbeats have been missing for 30 s.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta

from .durable import DurableTasks
from .model import (
    Cancel,
    Later,
    Mailbox,
    Run,
    Start,
    Status,
    TaskEvent,
    TaskRun,
    Trigger,
    Worker,
    Workflow,
    new_id,
    now,
    seconds_of,
)
from .placing import Waiting

MAX_INTERNAL_RETRIES = 10
HEARTBEAT_SECONDS = 4.0
LONGEST_BACKOFF = 86_400.0


class UnknownWorkflow(Exception):
    """A trigger names a workflow that nobody has registered."""


class BulkCut(Exception):
    """A bulk of triggers was cut off in the middle."""


class UnknownTask(Exception):
    """A message names a task run that does not exist."""


class UnknownWorker(Exception):
    """A message names a worker that is not registered."""


class Engine:
    """One tenant of an engine."""

    def __init__(
        self,
        later: Later,
        worker_loss_seconds: float,
        *,
        verify_names: bool = False,
        cut_bulks: int = 0,
        moves: int = MAX_INTERNAL_RETRIES,
    ) -> None:
        self.workflows: dict[str, Workflow] = {}
        self.runs: dict[str, Run] = {}
        self.tasks: dict[str, TaskRun] = {}
        self.workers: dict[str, Worker] = {}
        self.durable = DurableTasks(self)
        self.later = later
        self._worker_loss_seconds = worker_loss_seconds
        self._moves = moves
        self._verify_names = verify_names
        self._cut_bulks = cut_bulks
        self._waiting = Waiting()
        #: Answers of workers, and hand-overs to them, that are taken for done and lost.
        self.lost_answers = self.lost_handovers = 0
        self._refuses_until = now()

    # What a test has befall it

    def refuse(self, seconds: float) -> None:
        """Refuse all tokens for a while, as an engine does whose database is away."""
        self._refuses_until = now() + timedelta(seconds=seconds)

    @property
    def refuses(self) -> bool:
        return now() < self._refuses_until

    def let_pass(self, seconds: float) -> None:
        """Give up the tasks whose limit would be reached in so many seconds."""
        for task in list(self.tasks.values()):
            if task.limit_at is not None and (task.limit_at - now()).total_seconds() <= seconds:
                self._time_out(task)

    # Workers

    def register(self, worker: Worker) -> None:
        self.workers[worker.id] = worker

    def listen(self, worker_id: str, mailbox: Mailbox) -> None:
        """A worker has opened its stream; a newer stream replaces an older one."""
        worker = self.worker(worker_id)
        worker.mailbox = mailbox
        self.heartbeat(worker_id)
        self.place()

    def hang_up(self, worker_id: str, mailbox: Mailbox) -> None:
        """A stream of a worker has ended."""
        worker = self.worker(worker_id)
        if worker.mailbox is mailbox:
            self.lose(worker)

    def heartbeat(self, worker_id: str) -> bool:
        """Note a sign of life; False when the worker has no open stream and must open one."""
        worker = self.worker(worker_id)
        if worker.mailbox is None:
            return False
        worker.heartbeat_at = now()
        if worker.heartbeat_timer is not None:
            worker.heartbeat_timer.cancel()
        patience = HEARTBEAT_SECONDS + self._worker_loss_seconds
        worker.heartbeat_timer = self.later(patience, lambda: self.lose(worker))
        return True

    def lose(self, worker: Worker) -> None:
        """Give the tasks of a worker to others; this counts as an internal retry, not as one of the user's."""
        worker.mailbox = None
        if worker.heartbeat_timer is not None:
            worker.heartbeat_timer.cancel()
        for task in sorted(worker.running, key=lambda task: task.number):
            task.events.append(TaskEvent("REASSIGNED", "Worker did not send a heartbeat", task.retry_count, worker.id))
            self._fail_internally(task, "Task reached its maximum reassignment count")
        self.place()

    def pause(self, worker_id: str, paused: bool) -> Worker:
        worker = self.worker(worker_id)
        worker.paused = paused
        self.place()
        return worker

    def worker(self, worker_id: str) -> Worker:
        try:
            return self.workers[worker_id]
        except KeyError:
            raise UnknownWorker(worker_id) from None

    # Runs

    def trigger(self, triggers: Sequence[Trigger]) -> list[str]:
        """Start runs; a child that this parent spawned before by the same key is not started again.

        A workflow that nobody has registered gets an id and no run: so does an engine in one process, which
        schedules at once. Only when too many triggers come at once does it look at the names first and refuse.
        The keys of children are noted first: a trigger that is cut afterwards leaves keys that lead to no run.
        """
        missing = sorted({trigger.workflow for trigger in triggers} - self.workflows.keys())
        if missing and self._verify_names:
            raise UnknownWorkflow(f"workflow names not found: {', '.join(missing)}")
        ids = [self.resolve_child(trigger) for trigger in triggers]
        if self._cut_bulks and len(triggers) > 1 and not any(known for _, known in ids):
            self._cut_bulks -= 1
            raise BulkCut("context canceled")
        for trigger, (run_id, known) in zip(triggers, ids, strict=True):
            if not known and trigger.workflow not in missing:
                self.start(trigger, run_id)
        self.place()
        return [run_id for run_id, _ in ids]

    def resolve_child(self, trigger: Trigger) -> tuple[str, bool]:
        """The id of the run for a trigger, and whether that run was asked for before."""
        run_id = new_id()
        if trigger.spawn_key is None or trigger.parent_task_id is None:
            return run_id, False
        held = self.task(trigger.parent_task_id).children.setdefault(trigger.spawn_key, run_id)
        return held, held != run_id

    def start(self, trigger: Trigger, run_id: str) -> Run:
        """Create a run with this id and queue its first tasks."""
        workflow = self.workflows[trigger.workflow]
        parent = self.tasks.get(trigger.parent_task_id or "")
        run = Run(
            run_id,
            workflow,
            trigger.input or "{}",
            _metadata_of_child(trigger, parent) if parent else dict(trigger.metadata),
            trigger.priority or workflow.priority,
            trigger.labels,
            trigger.parent_task_id,
            trigger.child_index,
            trigger.child_key,
        )
        single = len(workflow.tasks) == 1
        for spec in workflow.tasks:
            task = TaskRun(spec, run, run_id if single else new_id(), len(self.tasks) + 1)
            run.tasks[spec.name] = self.tasks[task.id] = task
        self.runs[run.id] = run
        for task in run.tasks.values():
            if not task.spec.parents:
                self.queue(task)
        return run

    def task(self, task_id: str) -> TaskRun:
        try:
            return self.tasks[task_id]
        except KeyError:
            raise UnknownTask(task_id) from None

    def watch(self, run_id: str, watcher: Callable[[Run], None]) -> None:
        """Call back once the run has ended; at once if it has. A run that does not exist never ends."""
        run = self.runs.get(run_id)
        if run is None:
            return
        if run.status.final:
            watcher(run)
        else:
            run.watchers.append(watcher)

    def cancel(self, ids: Iterable[str]) -> None:
        """Cancel runs or single tasks. Children that they have spawned go on, as in the engine."""
        for known in ids:
            run = self.runs.get(known)
            for task in list(run.tasks.values()) if run else [self.tasks[known]] if known in self.tasks else []:
                if not task.status.final:
                    self._tell_to_stop(task)
                    self._finish(task, Status.CANCELLED)
        self.place()

    # What workers report

    def started(self, task_id: str, retry_count: int) -> None:
        task = self.task(task_id)
        if task.status is Status.RUNNING and task.retry_count == retry_count:
            task.started_at = task.started_at or now()
            task.events.append(TaskEvent("STARTED", "", retry_count, task.worker.id if task.worker else None))

    def completed(self, task_id: str, retry_count: int, output: str) -> None:
        if self.lost_answers:
            self.lost_answers -= 1
            return
        task = self._reported(task_id, retry_count)
        if task is not None:
            task.output = output
            self._finish(task, Status.COMPLETED)
            self.place()

    def failed(self, task_id: str, retry_count: int, error: str, *, final: bool) -> None:
        task = self._reported(task_id, retry_count)
        if task is not None:
            self._fail(task, error, error, final=final)
            self.place()

    def release_slot(self, task_id: str) -> None:
        task = self.task(task_id)
        if task.worker is not None:
            task.worker.release_slots(task)
            self.place()

    def extend(self, task_id: str, seconds: float) -> bool:
        """Put off the time limit of a running task; False where it is not running (any more)."""
        task = self.task(task_id)
        if task.status is not Status.RUNNING or task.limit_at is None or task.execution_timer is None:
            return False
        task.execution_timer.cancel()
        self._limit(task, (task.limit_at - now()).total_seconds() + seconds)
        return True

    def _reported(self, task_id: str, retry_count: int) -> TaskRun | None:
        """The task that a report is about; None for a report of an attempt that has been given up."""
        task = self.task(task_id)
        return task if task.status is Status.RUNNING and task.retry_count == retry_count else None

    # The life of a task

    def queue(self, task: TaskRun) -> None:
        task.status = Status.QUEUED
        task.events.append(TaskEvent("QUEUED", "", task.retry_count))
        seconds = seconds_of(task.spec.schedule_timeout)
        task.schedule_timer = self.later(seconds, lambda: self._give_up_placing(task))
        self._waiting.add(task)

    def place(self) -> None:
        """Hand waiting tasks to workers while there are slots."""
        for task, worker in self._waiting.place(self.workers.values()):
            task.stop_timers()
            task.status, task.worker, task.evicted = Status.RUNNING, worker, False
            worker.take(task)
            invocation = self.durable.begin_invocation(task) if task.spec.durable else None
            task.events.append(TaskEvent("ASSIGNED", "Assigned to worker", task.retry_count, worker.id))
            self._limit(task, seconds_of(task.spec.timeout))
            if self.lost_handovers:
                self.lost_handovers -= 1
            elif worker.mailbox is not None:
                worker.mailbox.put_nowait(Start(task, task.retry_count, invocation, payload_of(task)))

    def evict(self, task: TaskRun) -> None:
        """Take a waiting durable task off its worker until what it waits for is there."""
        self._leave_worker(task)
        task.evicted = True
        task.events.append(TaskEvent("DURABLE_EVICTED", "Task paused and evicted", task.retry_count))
        self.place()

    def restore(self, task: TaskRun) -> bool:
        """Queue an evicted task again, as the same attempt."""
        if not task.evicted or task.status is not Status.RUNNING:
            return False
        task.evicted = False
        self.queue(task)
        self.place()
        return True

    def _limit(self, task: TaskRun, seconds: float) -> None:
        task.limit_at = now() + timedelta(seconds=seconds)
        task.execution_timer = self.later(seconds, lambda: self._time_out(task))

    def _time_out(self, task: TaskRun) -> None:
        if task.status is Status.RUNNING and not task.evicted:
            self._tell_to_stop(task)
            why = f"Task exceeded timeout of {task.spec.timeout}"
            task.events.append(TaskEvent("TIMED_OUT", why, task.retry_count))
            self._fail(task, why, "", final=False)
            self.place()

    def _give_up_placing(self, task: TaskRun) -> None:
        if task.status is Status.QUEUED:
            task.events.append(TaskEvent("SCHEDULING_TIMED_OUT", "", task.retry_count))
            task.waited_too_long = True
            self._finish(task, Status.CANCELLED)

    def _fail(self, task: TaskRun, error: str, shown: str, *, final: bool) -> None:
        """A failure of the user's: tried again after a pause while the task has retries left."""
        spec = task.spec
        if final or task.app_retries >= spec.retries:
            task.error, task.error_shown = error, shown
            self._finish(task, Status.FAILED)
            return
        task.app_retries += 1
        self._next_attempt(task)
        if spec.backoff_factor is None:
            self.queue(task)
            return
        longest = LONGEST_BACKOFF if spec.backoff_max_seconds is None else spec.backoff_max_seconds
        pause = min(spec.backoff_factor**task.app_retries, longest)
        task.retry_timer = self.later(pause, lambda: (self.queue(task), self.place()))

    def _fail_internally(self, task: TaskRun, shown: str) -> None:
        """A failure that is not the user's; past its limit a subscriber hears of it without a reason."""
        if task.internal_retries >= self._moves:
            task.error_shown = shown
            self._finish(task, Status.FAILED)
            return
        task.internal_retries += 1
        self._next_attempt(task)
        self.queue(task)

    def _next_attempt(self, task: TaskRun) -> None:
        self._leave_worker(task)
        task.status = Status.QUEUED
        task.retry_count += 1

    def _leave_worker(self, task: TaskRun) -> None:
        task.stop_timers()
        if task.worker is not None:
            task.worker.drop(task)
            task.worker = None

    def _tell_to_stop(self, task: TaskRun) -> None:
        if task.worker is not None and task.worker.mailbox is not None:
            invocation = self.durable.invocation(task) if task.spec.durable else None
            task.worker.mailbox.put_nowait(Cancel(task, task.retry_count, invocation))

    def _finish(self, task: TaskRun, status: Status) -> None:
        self._leave_worker(task)
        task.status, task.finished_at = status, now()
        kind = "FINISHED" if status is Status.COMPLETED else status.value
        task.events.append(TaskEvent(kind, "", task.retry_count, error=task.error_shown))
        run = task.run
        for other in run.tasks.values():
            if task.spec.name in other.spec.parents and other.status is Status.QUEUED:
                parents = {run.tasks[name].status for name in other.spec.parents}
                if parents == {Status.COMPLETED}:
                    self.queue(other)
                elif parents & {Status.FAILED, Status.CANCELLED}:
                    self._finish(other, Status.CANCELLED)
        if run.status.final:
            watchers, run.watchers = run.watchers, []
            for watcher in watchers:
                watcher(run)


def _metadata_of_child(trigger: Trigger, parent: TaskRun) -> dict[str, object]:
    """A child inherits the user's metadata of its parent (`injectParentIDs`)."""
    inherited = {key: value for key, value in parent.run.metadata.items() if not key.startswith("hatchet__")}
    return {
        **inherited,
        **trigger.metadata,
        "hatchet__parent_workflow_run_id": parent.run.id,
        "hatchet__parent_step_run_id": parent.id,
    }


def payload_of(task: TaskRun) -> dict[str, object]:
    """What a worker gets as `action_payload`: the run's input and the outputs of the task's parents."""
    parents = {name: json.loads(task.run.tasks[name].output or "{}") for name in task.spec.parents}
    return {
        "input": json.loads(task.run.input),
        "triggered_by": "manual",
        "parents": parents,
        "triggers": {"filter_payload": None},
        "user_data": None,
        "overrides": None,
    }
