"""What a task failed with: it reaches the caller as it was said, through the SDK's own errors, and is tried again where that may help."""

from __future__ import annotations

import asyncio
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hatchet_sdk import NonRetryableException
from hatchet_sdk.exceptions import TaskRunError
from hypothesis import given
from hypothesis import strategies as st

from scythe.allocate import BaseExperiment
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.engines.hatchet.errors import CameToNothing, settle, told, told_in
from scythe.engines.hatchet.tasks import Pointer
from scythe.engines.hatchet.worker import children
from scythe.engines.hatchet.worker.children import Children
from scythe.engines.hatchet.worker.loading import is_gone
from scythe.errors import WorkerCrashed
from scythe.record.layout import RunKey
from scythe.registry import ExperimentRegistry
from scythe_catalog.storage.objects import Objects


class In(ExperimentInputSpec):
    x: int


class Out(ExperimentOutputSpec):
    y: int


LINES = st.lists(
    st.text(st.characters(exclude_categories=("Cs", "Cc"))).map(lambda line: line.rstrip("\\")), min_size=1
)


def kept_by_the_engine(message: str, *, metadata: bool = True) -> str:
    try:
        raise RuntimeError(message)
    except RuntimeError as error:
        return TaskRunError.from_exception(error, "0" * 36).serialize(include_metadata=metadata)


@given(LINES.map("\n".join).filter(str.strip))
def test_a_message_of_several_lines_arrives_whole(message: str) -> None:
    kept = kept_by_the_engine(message)
    assert told(TaskRunError.deserialize(kept)) == message.strip()
    assert told_in(kept) == message
    above = kept_by_the_engine(f"a task failed: {told(TaskRunError.deserialize(kept))}")  # that of a parent
    assert told(TaskRunError.deserialize(above)) == f"a task failed: {message.strip()}".strip()


def test_a_message_that_tells_a_traceback_arrives_whole() -> None:
    message = "a worker said:\nTraceback (most recent call last):\n  File x\nValueError: the cause"
    kept = kept_by_the_engine(message)
    assert told(TaskRunError.deserialize(kept)) == told_in(kept) == message


def test_an_error_whose_cause_is_no_text_is_told_as_it_is() -> None:
    error = ValueError("odd")
    error.exc = error  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    assert told(error) == "odd"


@pytest.mark.parametrize("message", ["a path C:\\", "C:\\\nD:\\"])
def test_a_backslash_at_the_end_takes_no_line_of_the_traceback_along(message: str) -> None:
    assert "Traceback" not in told(TaskRunError.deserialize(kept_by_the_engine(message)))


def test_a_failure_that_is_no_exception_is_told_as_it_is() -> None:
    assert told_in("Task reached its maximum reassignment count") == "Task reached its maximum reassignment count"


@pytest.mark.parametrize(("kind", "times"), [(CameToNothing, 1), (WorkerCrashed, 4)], ids=["cancelled", "worker lost"])
def test_of_children_that_come_to_nothing_together_each_tells_why(
    monkeypatch: pytest.MonkeyPatch, kind: type[CameToNothing] | type[WorkerCrashed], times: int
) -> None:
    asked: list[str] = []

    async def why(run_id: str) -> CameToNothing | WorkerCrashed:
        asked.append(run_id)
        await asyncio.sleep(0.01)
        return kind("the queue was full")

    class Empty:
        workflow_run_id = "run"

        async def aio_result(self) -> dict[str, Any]:
            return {}

    async def all_of(children: Children) -> list[Any]:
        await asyncio.gather(*(children._watch(Empty()) for _ in range(3)))
        return [children._arrived.get_nowait()[1] for _ in range(3)]

    async def outcomes() -> list[Any]:
        return await all_of(Children({}))

    monkeypatch.setattr(children, "why_nothing", why)
    assert list(map(str, asyncio.run(outcomes()))) == ["the queue was full"] * 3
    assert asked == ["run"] * times, "which worker was lost says nothing of another child"


def double(spec: In) -> Out:
    return Out(y=2 * spec.x)


def lost(pointer: Pointer) -> Any:
    """What a task fails with that does not find its inputs."""
    try:
        Objects.at(pointer.root).read(RunKey(*pointer.run.split("/")).specs)
    except OSError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize("how", ["deleted", "its folder removed"])
def test_a_task_of_a_run_that_is_gone_is_not_tried_again_and_again(root: Path, how: str) -> None:
    ExperimentRegistry.Register()(double)
    run, ref = BaseExperiment(double).allocate([In(x=1)], engine="inline")
    ref.result()
    pointer = Pointer(root=run.objects.root, run=run.experiment_id, turn=1)
    assert not is_gone(pointer)
    if how == "deleted":
        run.delete()
    else:
        shutil.rmtree(root / run.key.path)

    with pytest.raises(NonRetryableException, match=r"specs\.pq"):
        asyncio.run(settle(lost(pointer), SimpleNamespace(retry_count=0), partial(is_gone, pointer)))


def test_a_task_whose_storage_is_away_is_tried_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def slept(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", slept)
    away = Pointer(root="s3://nowhere-at-all/x", run="double/v1.0.0/2026-01-01_00-00-00", turn=1)
    for tries in range(4):
        asyncio.run(settle(OSError("no route"), SimpleNamespace(retry_count=tries), lambda: False))
    assert pauses == [1, 2, 4, 4]
    monkeypatch.setattr(Objects, "exists", lambda *_: (_ for _ in ()).throw(OSError("no route")))
    assert not is_gone(away)
