"""What a task does in a thread has ended when the task has, however the task is cancelled."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.engines.hatchet.worker.stopping import HandedBack, Stopping
from scythe.engines.hatchet.worker.threads import in_thread, lease_of
from scythe.errors import RunCancelled
from scythe.record.attempts import latest_attempt
from scythe.record.plan import RunPlan
from scythe.runs.run import ExperimentRun
from scythe_catalog.storage.folder import Folder
from scythe_catalog.storage.objects import Objects


class Work:
    """Work in a thread that ends when it is told to."""

    def __init__(self) -> None:
        self.begun, self.gate, self.ended = threading.Event(), threading.Event(), False

    def __call__(self) -> str:
        self.begun.set()
        self.gate.wait(60)
        self.ended = True
        return "done"

    async def begins(self) -> None:
        await asyncio.to_thread(self.begun.wait, 60)


async def cancelled_twice(task: asyncio.Task[str], work: Work) -> None:
    """Cancels the task while the work is going on, twice, and then lets the work end."""
    await work.begins()
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    work.gate.set()
    await asyncio.wait({task})


def test_a_cancellation_is_raised_when_the_work_has_ended() -> None:
    async def run() -> None:
        work = Work()
        task = asyncio.ensure_future(in_thread(work))
        await cancelled_twice(task, work)
        assert work.ended
        assert task.cancelled()

    asyncio.run(run())


def test_the_last_work_of_a_task_that_is_cancelled_gives_its_result() -> None:
    async def run() -> None:
        work = Work()
        task = asyncio.ensure_future(in_thread(work, last=True))
        await cancelled_twice(task, work)
        assert task.result() == "done"

    asyncio.run(run())


def test_last_work_that_fails_while_the_task_is_cancelled_leaves_it_cancelled() -> None:
    def fails() -> str:
        work()
        raise OSError("no room")

    work = Work()

    async def run() -> None:
        task = asyncio.ensure_future(in_thread(fails, last=True))
        await cancelled_twice(task, work)
        assert task.cancelled()

    asyncio.run(run())


@pytest.mark.parametrize("last", [True, False])
def test_a_task_of_a_stopping_worker_is_handed_back_unless_it_was_about_to_end(
    last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scythe.engines.hatchet.worker.stopping._SETTLE_SECONDS", 0.0)

    async def run() -> str:
        work, stopping = Work(), Stopping()
        task = asyncio.ensure_future(stopping.unless(asyncio.ensure_future(in_thread(work, last=last))))
        await work.begins()
        stopping.set()
        await asyncio.sleep(0.05)
        assert not task.done()
        work.gate.set()
        return await task

    if last:
        assert asyncio.run(run()) == "done"
    else:
        with pytest.raises(HandedBack):
            asyncio.run(run())


class Order(ExperimentInputSpec):
    x: float


class Value(ExperimentOutputSpec):
    y: float


def double(spec: Order) -> Value:
    return Value(y=2 * spec.x)


@pytest.fixture
def finished(root: Path) -> ExperimentRun:
    from scythe.allocate import BaseExperiment
    from scythe.registry import ExperimentRegistry

    ExperimentRegistry.Register()(double)
    run, _ = BaseExperiment(double).allocate(Order(experiment_id="", sort_index=0, x=1.0), engine="inline")
    return run


def test_an_attempt_that_is_being_taken_when_its_task_is_cancelled_is_given_back(
    finished: ExperimentRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, create, work = RunPlan.load(finished.objects, finished.key), Folder.create, Work()

    def slow(self: Objects, key: str, data: bytes) -> bool:
        created = create(self, key, data)
        work()
        return created

    async def take() -> str:
        async with lease_of(plan, "some-run", 7):
            return "taken"

    async def run(cancel: Callable[[asyncio.Task[str], Work], Awaitable[None]]) -> None:
        task = asyncio.ensure_future(take())
        await cancel(task, work)
        assert task.cancelled()

    monkeypatch.setattr(Folder, "create", slow)
    asyncio.run(run(cancelled_twice))

    last = latest_attempt(finished.objects, finished.key)
    assert last is not None
    assert (last.number, last.ended) == (7, True)
    assert not [t for t in threading.enumerate() if t.name == last.heart]


def test_an_attempt_on_a_run_that_was_cancelled_before_leaves_no_mark(finished: ExperimentRun) -> None:
    plan, before = RunPlan.load(finished.objects, finished.key), latest_attempt(finished.objects, finished.key)
    finished.objects.write(finished.key.cancelled, b"{}")

    async def take() -> None:
        async with lease_of(plan, "some-run", 7):
            raise AssertionError("it was taken")

    with pytest.raises(RunCancelled):
        asyncio.run(take())

    assert latest_attempt(finished.objects, finished.key) == before
