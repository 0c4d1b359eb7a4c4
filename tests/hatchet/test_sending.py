"""What reaches into the SDK fits the SDK that is there, and a task is kept alive by what it says to the engine."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import os
import pickle
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from hatchet_sdk.clients.dispatcher import action_listener
from hatchet_sdk.clients.dispatcher.dispatcher import DispatcherClient
from hatchet_sdk.contracts.dispatcher_pb2 import STEP_EVENT_TYPE_COMPLETED, STEP_EVENT_TYPE_STARTED
from hatchet_sdk.worker.worker import Worker as SdkWorker

from scythe.engines.hatchet import connection, sdk, sending
from scythe.engines.hatchet.client import ref
from scythe.engines.hatchet.worker import alive, children


class Refused(grpc.RpcError):
    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "_LONGEST_PAUSE", 0.01)
    monkeypatch.setattr(asyncio, "sleep", lambda seconds, sleep=asyncio.sleep: sleep(min(seconds, 0.01)))


def send(monkeypatch: pytest.MonkeyPatch, *answers: Any, event: int = STEP_EVENT_TYPE_COMPLETED) -> tuple[Any, int]:
    """What a send gives whose calls are answered so, and how many calls there were."""
    left = list(answers)

    async def once(*_: Any) -> Any:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer

    monkeypatch.setattr(sending, "_once", once)
    given: Any = (SimpleNamespace(), SimpleNamespace(), event, "{}", False)
    return asyncio.run(sending._send(*given)), len(answers) - len(left) + 1


def test_the_sdk_is_the_one_that_this_was_written_for() -> None:
    """Where this fails, read the two anew, and change numbers and `scythe.engines.hatchet.sending` together."""
    once = inspect.getsource(sending._once)
    assert (version("hatchet-sdk"), hashlib.sha256(once.encode()).hexdigest()[:16]) == ("1.43.1", "6f1cd2d1e221dee5")
    assert list(inspect.signature(sending._once).parameters) == [
        "self", "action", "event_type", "payload", "should_not_retry", "retry_after_ms",
    ]  # fmt: skip
    assert isinstance(action_listener.DEFAULT_ACTION_LISTENER_RETRY_COUNT, int)


LISTENING = """
import sys
from pathlib import Path
loaded = "hatchet_sdk" in sys.modules
from hatchet_sdk.clients.rest.models.worker import Worker
Path({path!r}).write_text(f"{{loaded}} {{Worker.__pydantic_complete__}} {{Worker.model_json_schema()['type']}}")
"""


def test_the_process_in_which_the_sdk_listens_builds_no_validator_that_is_not_used(tmp_path: Path) -> None:
    assert "self._ctx.Process(" in inspect.getsource(SdkWorker._start_action_listener)
    worker = SimpleNamespace()
    sdk.listens_lightly(worker)

    process = worker._ctx.Process(target=exec, args=(LISTENING.format(path=str(tmp_path / "said")),))
    process.start()
    process.join(60)

    assert (tmp_path / "said").read_text() == "True False object"


def test_the_process_in_which_the_sdk_sends_is_set_up_with_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DispatcherClient, "_try_send_step_action_event", "the SDK's own")
    monkeypatch.setattr(action_listener, "DEFAULT_ACTION_LISTENER_RETRY_COUNT", 15)
    pickle.loads(pickle.dumps(connection.quiet_logger()))
    assert DispatcherClient._try_send_step_action_event is sending._send
    assert action_listener.DEFAULT_ACTION_LISTENER_RETRY_COUNT > 1_000_000


@pytest.mark.parametrize(
    "fault", [Refused(grpc.StatusCode.UNAUTHENTICATED), Refused(grpc.StatusCode.UNAVAILABLE), asyncio.CancelledError()]
)
def test_an_answer_is_sent_until_the_engine_has_it(quick: None, monkeypatch: pytest.MonkeyPatch, fault: Any) -> None:
    assert send(monkeypatch, fault, fault, "taken") == ("taken", 3)


def test_what_the_engine_will_never_take_is_sent_once(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Refused):
        send(monkeypatch, Refused(grpc.StatusCode.INVALID_ARGUMENT))


def test_a_worker_whose_token_is_refused_for_too_long_is_told_to_stop(
    quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    monkeypatch.setattr(sending, "PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(sending, "_NEWS_SECONDS", 0.05)
    monkeypatch.setattr(os, "kill", lambda *given: told.append(given))
    for event, stops in ((STEP_EVENT_TYPE_STARTED, []), (STEP_EVENT_TYPE_COMPLETED, [(os.getppid(), signal.SIGTERM)])):
        with pytest.raises(Refused):
            send(monkeypatch, Refused(grpc.StatusCode.UNAUTHENTICATED), event=event)
        assert told == stops


# --- alive ------------------------------------------------------------------------------------------


class Put:
    """An engine that a task's limit is put off at; the limit is never in the past."""

    def __init__(self, *faults: BaseException) -> None:
        self.faults, self.asked = list(faults), 0.0

    def refresh_timeout(self, task: str, seconds: str) -> None:
        if self.faults:
            raise self.faults.pop(0)
        self.asked += float(seconds.removesuffix("s"))


def keep(monkeypatch: pytest.MonkeyPatch, engine: Put, seconds: float) -> float:
    """What a task of so many seconds asks for, where the limit is two seconds."""
    monkeypatch.setattr(alive, "_LIMIT", 2.0)
    monkeypatch.setattr(alive, "_LEFT_SECONDS", 1.5)
    monkeypatch.setattr(alive, "_AGAIN_SECONDS", 0.1)
    monkeypatch.setattr(alive, "connect", lambda: SimpleNamespace(dispatcher=engine))

    async def work() -> None:
        async with alive.kept_alive(SimpleNamespace(task_run_id="t")):  # pyright: ignore[reportArgumentType]
            await asyncio.sleep(seconds)

    asyncio.run(work())
    return engine.asked


def test_a_task_that_goes_on_puts_its_limit_off_and_a_short_one_asks_for_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert keep(monkeypatch, Put(), 0.2) == 0
    assert keep(monkeypatch, Put(), 2.6) >= 2
    assert keep(monkeypatch, Put(Refused(grpc.StatusCode.UNAVAILABLE)), 2.6) >= 2


def test_a_task_that_the_engine_has_given_up_asks_for_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    assert keep(monkeypatch, Put(Refused(grpc.StatusCode.NOT_FOUND)), 1.5) == 0


# --- waiting ----------------------------------------------------------------------------------------


class Told:
    """A reference to a run whose stream fails before the engine tells of it."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    async def aio_result(self) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer


#: What the SDK raises whose listener has ended.
FAILED_STREAMS = [
    Refused(grpc.StatusCode.UNAVAILABLE), ValueError("Failed to connect to listener"), ValueError("gRPC error"), StopAsyncIteration(),
]  # fmt: skip


def test_a_stream_that_fails_is_no_failure_of_a_run(quick: None) -> None:
    assert asyncio.run(ref._output_of(Told(*FAILED_STREAMS, {"rows": 1}))) == {"rows": 1}
    with pytest.raises(ValueError, match="of the task"):
        asyncio.run(ref._output_of(Told(*FAILED_STREAMS, ValueError("of the task"))))


def test_a_stream_that_fails_is_no_failure_of_a_child(quick: None) -> None:
    async def watched(*answers: Any) -> Any:
        waiting = children.Children({})
        await waiting._watch(Told(*answers))
        return waiting._arrived.get_nowait()[1]

    assert asyncio.run(watched(*FAILED_STREAMS, {"rows": 1})) == {"rows": 1}
    assert str(asyncio.run(watched(*FAILED_STREAMS, ValueError("of the task")))) == "of the task"


def test_a_child_that_ends_while_its_node_drops_it_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the engine tells of a run that it cancels, before it answers that it has."""

    async def tell_first(ids: list[str]) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(children, "cancel_runs", tell_first)

    class Task:
        def create_bulk_run_item(self, **asked: Any) -> Any:
            return SimpleNamespace(**asked)

        async def aio_run_many(self, wanted: list[Any], wait_for_result: bool) -> list[Any]:
            return [Run(one.child_key) for one in wanted]

    class Run(Told):
        def __init__(self, key: str) -> None:
            super().__init__({"of": key})
            self.workflow_run_id = key

    async def outcomes() -> list[Any]:
        waiting = children.Children({})
        await waiting.trigger(Task(), [children.Child("node", SimpleNamespace(), tag="node")])  # pyright: ignore[reportArgumentType]
        await waiting.drop()
        await waiting.trigger(Task(), [children.Child("leaf", SimpleNamespace(), tag="leaf")])  # pyright: ignore[reportArgumentType]
        came = [*await waiting.arrived(1.0), *(await waiting.arrived(0.1) if len(waiting) else [])]
        assert len(waiting) == 0
        return came

    assert asyncio.run(outcomes()) == [("leaf", {"of": "leaf"})]


def test_validators_of_the_sdks_rest_methods_are_built_when_one_is_called_first() -> None:
    program = """
import pydantic
at_once, built = pydantic.validate_call, []
pydantic.validate_call = lambda function: built.append(function.__name__) or at_once(function)
from scythe.engines.hatchet.sdk import load
load()
from hatchet_sdk.clients.rest.api.workflow_api import WorkflowApi
from hatchet_sdk.clients.rest.api_client import ApiClient
assert built == [], built
assert pydantic.validate_call is not at_once and pydantic.validate_call.__name__ == "<lambda>"
try:
    WorkflowApi(ApiClient()).workflow_get(workflow="no identifier")
except pydantic.ValidationError as error:
    print(built, error.error_count())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "['workflow_get'] 1\n"
