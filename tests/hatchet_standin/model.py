"""What the engine remembers: workflows, runs, task runs and workers. Data only; the rules are in `engine`."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Protocol

TENANT = "707d0855-80ab-4e1f-a156-f1c4546cbf52"
MESSAGE_LIMIT = 4 * 1024 * 1024
SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds_of(duration: str) -> float:
    """The seconds of a Go duration such as `1h30m`, `500ms` or `60s`."""
    parts = re.findall(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)", duration)
    if "".join(number + unit for number, unit in parts) != duration or not parts:
        raise ValueError(f"not a Go duration: {duration!r}")
    return sum(float(number) * SECONDS[unit] for number, unit in parts)


def new_id() -> str:
    return str(uuid.uuid4())


def now() -> datetime:
    return datetime.now(UTC)


class Timer(Protocol):
    def cancel(self) -> None: ...


class Later(Protocol):
    """Runs a callable after some seconds; `asyncio`'s `call_later` is one."""

    def __call__(self, delay: float, callback: Callable[[], object], /) -> Timer: ...


class Mailbox(Protocol):
    """Where messages for one open stream are put; an `asyncio.Queue` is one."""

    def put_nowait(self, item: Any, /) -> None: ...


class Status(StrEnum):
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def final(self) -> bool:
        return self not in (Status.QUEUED, Status.RUNNING)


@dataclass(frozen=True)
class DesiredLabel:
    """A wish about the worker; comparators and weights are those of `DesiredWorkerLabels` in the protocol."""

    key: str
    value: str | int
    comparator: str = "EQUAL"
    required: bool = False
    weight: int = 100

    def met_by(self, value: str | int) -> bool:
        if isinstance(value, str) != isinstance(self.value, str):
            return False
        if self.comparator == "EQUAL":
            return value == self.value
        if self.comparator == "NOT_EQUAL":
            return value != self.value
        if isinstance(value, str) or isinstance(self.value, str):
            return False
        return {
            "GREATER_THAN": value > self.value,
            "GREATER_THAN_OR_EQUAL": value >= self.value,
            "LESS_THAN": value < self.value,
            "LESS_THAN_OR_EQUAL": value <= self.value,
        }[self.comparator]


@dataclass(frozen=True)
class TaskSpec:
    """One task of a workflow, as a worker registered it."""

    name: str
    action: str
    timeout: str = "60s"
    schedule_timeout: str = "5m"
    retries: int = 0
    backoff_factor: float | None = None
    backoff_max_seconds: int | None = None
    labels: tuple[DesiredLabel, ...] = ()
    slots: tuple[tuple[str, int], ...] = (("default", 1),)
    durable: bool = False
    parents: tuple[str, ...] = ()
    id: str = field(default_factory=new_id)


@dataclass(frozen=True)
class Workflow:
    name: str
    tasks: tuple[TaskSpec, ...]
    priority: int = 1
    id: str = field(default_factory=new_id)
    version_id: str = field(default_factory=new_id)
    created_at: datetime = field(default_factory=now)


@dataclass(frozen=True)
class Trigger:
    """A request to run a workflow, with the parent and the key that it is a child by."""

    workflow: str
    input: str = "{}"
    metadata: Mapping[str, Any] = field(default_factory=dict)
    parent_task_id: str | None = None
    child_index: int | None = None
    child_key: str | None = None
    priority: int | None = None
    labels: tuple[DesiredLabel, ...] = ()

    @property
    def spawn_key(self) -> str | None:
        """What a repeated spawn of the same parent is recognised by; the engine wants an index even with a key."""
        if self.parent_task_id is None or self.child_index is None:
            return None
        return self.child_key if self.child_key is not None else str(self.child_index)


@dataclass(eq=False)
class TaskRun:
    """One task of one run. Its `retry_count` says which attempt a worker's message is about."""

    spec: TaskSpec
    run: Run
    id: str
    number: int
    status: Status = Status.QUEUED
    retry_count: int = 0
    app_retries: int = 0
    internal_retries: int = 0
    worker: Worker | None = None
    evicted: bool = False
    output: str | None = None
    error: str = ""
    """What subscribers hear of a failure; for some failures that is nothing."""
    error_shown: str = ""
    """What the lists tell of a failure; nothing of other failures than those."""
    waited_too_long: bool = False
    started_at: datetime | None = None
    finished_at: datetime | None = None
    created_at: datetime = field(default_factory=now)
    children: dict[str, str] = field(default_factory=dict)
    logs: list[LogLine] = field(default_factory=list)
    events: list[TaskEvent] = field(default_factory=list)
    schedule_timer: Timer | None = None
    execution_timer: Timer | None = None
    limit_at: datetime | None = None
    retry_timer: Timer | None = None

    def stop_timers(self) -> None:
        for timer in (self.schedule_timer, self.execution_timer, self.retry_timer):
            if timer is not None:
                timer.cancel()
        self.schedule_timer = self.execution_timer = self.retry_timer = self.limit_at = None


@dataclass(eq=False)
class Run:
    """A workflow run. A run of a single task shares its id with that task, as in the engine."""

    id: str
    workflow: Workflow
    input: str
    metadata: dict[str, Any]
    priority: int
    labels: tuple[DesiredLabel, ...]
    parent_task_id: str | None
    child_index: int | None
    child_key: str | None
    tasks: dict[str, TaskRun] = field(default_factory=dict)
    watchers: list[Callable[[Run], None]] = field(default_factory=list)
    created_at: datetime = field(default_factory=now)

    @property
    def status(self) -> Status:
        held = {task.status for task in self.tasks.values()}
        if not all(status.final for status in held):
            return Status.QUEUED if held == {Status.QUEUED} else Status.RUNNING
        return next((bad for bad in (Status.FAILED, Status.CANCELLED) if bad in held), Status.COMPLETED)


@dataclass(frozen=True)
class LogLine:
    message: str
    level: str
    metadata: str
    retry_count: int
    created_at: datetime


@dataclass(frozen=True)
class TaskEvent:
    kind: str
    message: str
    retry_count: int
    worker_id: str | None = None
    error: str = ""
    at: datetime = field(default_factory=now)


@dataclass(eq=False)
class Worker:
    """A registered worker. It gets tasks while a stream is open (`mailbox`) and it is not paused."""

    name: str
    actions: frozenset[str]
    slots: Mapping[str, int]
    labels: dict[str, str | int]
    runtime: Mapping[str, str]
    id: str = field(default_factory=new_id)
    mailbox: Mailbox | None = None
    paused: bool = False
    used: dict[str, int] = field(default_factory=dict)
    held: set[TaskRun] = field(default_factory=set)
    """The task runs whose slots are taken here."""
    running: set[TaskRun] = field(default_factory=set)
    """The task runs to give to others when this worker is lost; one that released its slot is still here."""
    heartbeat_at: datetime | None = None
    heartbeat_timer: Timer | None = None
    created_at: datetime = field(default_factory=now)

    @property
    def ready(self) -> bool:
        return self.mailbox is not None and not self.paused

    def free(self, slot: str) -> int:
        return self.slots.get(slot, 0) - self.used.get(slot, 0)

    def take(self, task: TaskRun) -> None:
        self.running.add(task)
        self.held.add(task)
        for slot, units in task.spec.slots:
            self.used[slot] = self.used.get(slot, 0) + units

    def release_slots(self, task: TaskRun) -> None:
        if task in self.held:
            self.held.remove(task)
            for slot, units in task.spec.slots:
                self.used[slot] -= units

    def drop(self, task: TaskRun) -> None:
        self.release_slots(task)
        self.running.discard(task)


@dataclass(frozen=True)
class Start:
    """Put into a worker's mailbox: run this attempt."""

    task: TaskRun
    retry_count: int
    invocation: int | None
    payload: Mapping[str, object]


@dataclass(frozen=True)
class Cancel:
    """Put into a worker's mailbox: stop this attempt."""

    task: TaskRun
    retry_count: int
    invocation: int | None
