"""The pool of one worker of a cluster: runs the inputs of many tasks at once, a process each, and answers by futures.

A crash or a time-out costs one input after its retries; a cancelled task's processes are killed.
Knows nothing of Hatchet.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from scythe.define.experiment import Experiment
from scythe.engines.pool.child import Job
from scythe.engines.pool.crashes import after, error_row
from scythe.engines.pool.logs import relay
from scythe.engines.pool.pool import Broken, Chunk, Died, Done, Event, Logged, Pool, Renewed
from scythe.errors import RunError, ScytheError
from scythe.gather.payload import Payload, Payloads
from scythe.leaf.leaf import Leaf
from scythe.record.plan import Positions, RunPlan
from scythe.terminal.console import tell

_POLL_SECONDS = 1.0
_GONE = f"the worker on {socket.gethostname()} can run nothing any more and ends"


@dataclass(frozen=True, eq=False)
class Prepared:
    """A run that tasks of this worker belong to."""

    plan: RunPlan
    experiment: Experiment
    job: Job
    payloads: Payloads


@dataclass(eq=False)
class Task:
    """The inputs of one task, and what has come back of them."""

    run: Prepared
    log: Callable[[logging.LogRecord], None]
    #: It runs with nothing beside it; called before a process gets any of it.
    alone: Callable[[], None] | None = None
    future: Future[list[Payload]] = field(default_factory=Future[list[Payload]])
    packed: list[Payload] = field(default_factory=list[Payload])
    #: What is still to come.
    open: set[Chunk] = field(default_factory=set[Chunk])


class Server:
    """A thread that drives the pool; `submit` and `cancel` may be called from any other.

    `on_failure` is called where the pool cannot go on: no process can be started, say.
    """

    def __init__(self, processes: int, on_failure: Callable[[], None]) -> None:
        self._pool = Pool(processes)
        self._waiting: deque[tuple[Task, Chunk]] = deque()
        self._tasks: dict[Chunk, Task] = {}
        self._calls: deque[Callable[[], None]] = deque()
        self._wake, self._waker = socket.socketpair()
        self._wake.setblocking(False)
        self._closed = threading.Event()
        self._failure: BaseException | None = None
        self._on_failure = on_failure
        # Held, not inherited: `Thread` has private names of its own, others in each Python, that ours would hide.
        self._thread = threading.Thread(target=self._run, name="scythe-server", daemon=True)
        self._thread.start()

    def submit(
        self,
        run: Prepared,
        rows: Positions,
        log: Callable[[logging.LogRecord], None],
        *,
        alone: Callable[[], None] | None = None,
    ) -> Task:
        """Queues rows of a run's `specs.pq`; the task's future gives what a Hatchet task returns for them.

        With `alone` they run when nothing else does, and it is called right before, by the thread that serves all: it is to be short.
        What it raises fails the task.
        The future raises RunError where they cannot be run for a reason outside the user's function.
        """
        task = Task(run, log, alone)
        self._soon(lambda: self._enqueue(task, Chunk(rows)))
        if (
            self._failure is not None or not self._thread.is_alive()
        ):  # it may have looked at its calls for the last time
            _fail(task, self._failure or RunError(_GONE))
        return task

    def cancel(self, task: Task) -> None:
        """Drops what waits of a task, and kills what runs of it."""
        self._soon(lambda: self._drop(task))

    def close(self) -> None:
        """Kills all processes."""
        self._closed.set()
        self._soon(lambda: None)
        self._thread.join()
        for end in (self._wake, self._waker):
            end.close()

    def _soon(self, call: Callable[[], None]) -> None:
        self._calls.append(call)
        with contextlib.suppress(OSError):  # there are bytes enough to wake it, or it is closed
            self._waker.send(b".")

    # --- the thread ---------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            with self._pool:
                while not self._closed.is_set():
                    self._once()
        except BaseException as error:  # noqa: BLE001 - whatever ends the thread, every task of the worker must hear of it
            self._fail_all(
                error if isinstance(error, ScytheError) else RunError(f"{_GONE}: {type(error).__name__}: {error}")
            )

    def _fail_all(self, error: ScytheError) -> None:
        self._failure = error
        for task in {*self._tasks.values(), *(t for t, _ in self._waiting)}:
            _fail(task, error)
        while self._calls:
            self._calls.popleft()()
        tell(f"Scythe worker: {error}")
        self._on_failure()

    def _once(self) -> None:
        for event in self._pool.poll(_POLL_SECONDS, self._wake):
            self._handle(event)
        with contextlib.suppress(BlockingIOError):
            while len(self._wake.recv(4096)) == 4096:
                continue
        while self._calls:
            self._calls.popleft()()
        for _ in range(self._pool.hungry(1)):
            if not self._waiting or self._must_wait(self._waiting[0][0]):
                break
            self._begin(*self._waiting.popleft())

    def _must_wait(self, task: Task) -> bool:
        """Whether a task, or one that runs, is not to have others beside it."""
        others = {*self._tasks.values()} - {task}
        return bool(others) and (task.alone is not None or any(other.alone is not None for other in others))

    def _begin(self, task: Task, work: Chunk) -> None:
        if task.future.done():  # it was cancelled, and is dropped in a moment
            return
        try:
            if task.alone is not None:
                task.alone()
        except Exception as error:  # noqa: BLE001 - the bucket, say; the task is tried again as a whole
            _fail(task, error)
            self._drop(task)
            return
        self._tasks[work] = task
        self._pool.submit(work, task.run.job)

    def _enqueue(self, task: Task, work: Chunk, *, first: bool = False) -> None:
        if self._failure is not None:
            _fail(task, self._failure)
            return
        task.open.add(work)
        if first:
            self._waiting.appendleft((task, work))
        else:
            self._waiting.append((task, work))

    def _drop(self, task: Task) -> None:
        self._waiting = deque((t, w) for t, w in self._waiting if t is not task)
        running = [work for work, t in self._tasks.items() if t is task]
        task.future.cancel()
        self._pool.kill(running)

    def _handle(self, event: Event) -> None:
        match event:
            case Logged(work, record):
                relay(record)
                task = self._tasks.get(work) if work is not None else None
                if task is not None:
                    task.log(record)
            case Done(work, packed, _):
                self._finished(self._tasks.pop(work), work, [packed])
            case Renewed(work, _, packed, again, _):
                task = self._tasks.pop(work)
                self._tasks |= dict.fromkeys(again, task)
                task.open |= set(again)
                if task.future.done():  # it was cancelled meanwhile
                    self._pool.kill(again)
                self._finished(task, work, [packed] if packed is not None else [])
            case Broken(work, error):
                task = self._tasks.pop(work)
                _fail(task, error)
                self._drop(task)
            case Died():
                self._died(self._tasks.pop(event.chunk), event)

    def _died(self, task: Task, event: Died) -> None:
        if task.future.done():
            return
        run = task.run
        what = after(event, run.experiment.options.retries)
        packed: list[Payload] = []
        try:
            if what.lost is not None:
                with Leaf(run.plan, run.experiment) as leaf:
                    packed = [run.payloads.encode(error_row(leaf, event, what))]
        except Exception as error:  # noqa: BLE001 - the bucket, say; the task is tried again as a whole
            _fail(task, error)
            self._drop(task)
            return
        for work in reversed(what.again):
            self._enqueue(task, work, first=True)
        self._finished(task, event.chunk, packed)

    def _finished(self, task: Task, work: Chunk, packed: list[Payload]) -> None:
        task.open.discard(work)
        task.packed += packed
        if task.open or task.future.done():
            return
        try:
            task.future.set_result(task.run.payloads.merged(task.packed))
        except Exception as error:  # noqa: BLE001 - as above
            _fail(task, error)


def _fail(task: Task, error: BaseException) -> None:
    if not task.future.done():
        task.future.set_exception(error)
