"""The engine stand-in keeps the promises of the real engine, to the real SDK: its client and its workers.

With HATCHET_CLIENT_TOKEN set, the same tests run against that engine. Those of the stand-in's own options are
skipped there, and a lost worker is noticed after 30 s instead of at once.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from hatchet_sdk import BulkCancelReplayOpts, DesiredWorkerLabel, RunFilter
from hatchet_sdk.clients.rest.exceptions import ForbiddenException

from tests.cluster import REAL, engine_environment
from tests.hatchet.standin_bench import PREFIX, SINCE, Bench, Input, client, until
from tests.hatchet_standin import StandinEngine

standin_only = pytest.mark.skipif(REAL, reason="an option of the stand-in")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """The engine with a worker for leaves (4 slots) and one for fans (2 durable slots)."""
    with engine_environment() as env:
        bench = Bench(env, tmp_path_factory.mktemp("notes"))
        with bench.worker("leaf", "leaves"), bench.worker("fan", "fans"):
            until(lambda: bench.worker_status("leaves") == bench.worker_status("fans") == "ACTIVE")
            yield bench


# Runs


def test_a_run_gives_its_output_and_can_be_looked_up(bench: Bench) -> None:
    run_id = bench.trigger("leaf", Input(name="plain", n=4), additional_metadata={"who": "plain", "count": 3})
    assert bench.results(run_id)[0][PREFIX + "leaf"]["double"] == 8

    until(lambda: bench.status(run_id) == "COMPLETED")
    found = bench.hatchet.runs.get(run_id)
    assert found.run.output["double"] == 8
    assert found.run.input["input"]["n"] == 4
    assert [task.task_external_id for task in found.tasks] == [run_id]
    details = bench.hatchet.runs.get_details(run_id)
    assert details.done
    assert details.input is not None
    assert details.input["n"] == 4
    assert details.additional_metadata is not None
    assert details.additional_metadata["who"] == "plain"
    assert details.task_runs[PREFIX + "leaf"].output is not None


def test_runs_are_found_by_their_metadata(bench: Bench) -> None:
    ids = {bench.trigger("leaf", Input(name=f"found-{k}"), additional_metadata={"group": "found"}) for k in range(3)}
    bench.results(*ids)
    until(lambda: {run.metadata.id for run in bench.runs(additional_metadata={"group": "found"})} == ids)
    assert not bench.runs(additional_metadata={"group": "nobody's"})
    until(lambda: len(bench.runs(additional_metadata={"group": "found"}, statuses=["COMPLETED"])) == 3)
    assert len(bench.runs(additional_metadata={"group": "found"}, limit=2)) == 2


def test_what_a_task_logs_is_listed_with_it(bench: Bench) -> None:
    run_id = bench.trigger("leaf", Input(name="talker"))
    lines = until(lambda: bench.hatchet.logs.list(run_id).rows)
    assert [line.message for line in lines or []] == ["hello from talker"]


def test_the_second_task_of_a_workflow_gets_the_output_of_the_first(bench: Bench) -> None:
    stub = bench.hatchet.stubs.workflow(name=PREFIX + "chain", input_validator=Input)
    run_id = stub.run(Input(n=5), wait_for_result=False).workflow_run_id
    (result,) = bench.results(run_id)
    assert (result["first"]["n"], result["second"]["n"]) == (5, 6)
    until(lambda: len(bench.hatchet.runs.get(run_id).tasks) == 2)


def test_a_task_whose_parent_failed_is_cancelled(bench: Bench) -> None:
    stub = bench.hatchet.stubs.workflow(name=PREFIX + "chain", input_validator=Input)
    run_id = stub.run(Input(failures=1), wait_for_result=False).workflow_run_id
    assert "first of the chain" in bench.error(run_id)
    tasks = bench.hatchet.runs.get_details(run_id).task_runs
    assert {name: task.status.value for name, task in tasks.items()} == {"first": "FAILED", "second": "CANCELLED"}


def test_results_that_are_too_large_together_are_left_out(bench: Bench) -> None:
    stub = bench.hatchet.stubs.workflow(name=PREFIX + "chain", input_validator=Input)
    run_id = stub.run(Input(size=2_500_000), wait_for_result=False).workflow_run_id
    assert bench.results(run_id) == [{}]
    until(lambda: bench.status(run_id) == "COMPLETED")


def test_workers_and_workflows_are_listed(bench: Bench) -> None:
    leaves = bench.worker_row("leaves")
    assert PREFIX + "leaf:" + PREFIX + "leaf" in leaves.actions
    assert leaves.slot_config["default"].limit == 4
    assert {label.key: label.value for label in leaves.labels}.items() >= {"zone": "a", "size": "3"}.items()
    assert bench.worker_row("fans").slot_config["durable"].limit == 2
    found = bench.hatchet.workflows.list(PREFIX + "leaf").rows
    assert [workflow.name for workflow in found or []] == [PREFIX + "leaf"]


# Failures and time limits


def test_a_failed_task_is_retried_after_its_backoff(bench: Bench) -> None:
    assert bench.output("flaky", Input(name="once", failures=1)) == {"attempts": 2}
    start, again = (note["at"] for note in bench.notes("once.started"))
    assert again - start >= 1.0


def test_a_task_without_retries_left_has_failed(bench: Bench) -> None:
    run_id = bench.trigger("flaky", Input(name="always", failures=9))
    assert "failure 2 of always" in bench.error(run_id)
    until(lambda: bench.status(run_id) == "FAILED")


def test_a_task_is_stopped_at_its_time_limit(bench: Bench) -> None:
    run_id = bench.trigger("brief", Input(name="late", gate="never"))
    assert bench.error(run_id).endswith("Task exceeded timeout of 2s")
    until(lambda: bench.notes("late.cancelled"))


def test_an_output_past_the_message_limit_is_refused_and_the_task_times_out(bench: Bench) -> None:
    run_id = bench.trigger("brief", Input(name="huge", size=5 * 1024 * 1024))
    assert bench.error(run_id).endswith("Task exceeded timeout of 2s")


def test_an_output_just_below_the_message_limit_arrives(bench: Bench) -> None:
    assert len(bench.output("leaf", Input(name="large", size=4_000_000))["text"]) == 4_000_000


def test_an_input_past_the_message_limit_is_refused(bench: Bench) -> None:
    impatient = client(bench.env)
    impatient.config.tenacity.max_attempts = 0
    stub = impatient.stubs.task(name=PREFIX + "leaf", input_validator=Input)
    with pytest.raises(grpc.RpcError) as refused:
        stub.run(Input(name="x" * 5 * 1024 * 1024), wait_for_result=False)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_task_that_waits_too_long_for_a_worker_ends_without_an_error(bench: Bench) -> None:
    run_id = bench.trigger("homeless", Input())
    assert bench.results(run_id) == [{}]
    assert bench.hatchet.runs.get_details(run_id).status == "CANCELLED"
    until(lambda: bench.status(run_id) == "FAILED")


# Placing


def test_no_more_tasks_run_than_there_are_slots(bench: Bench) -> None:
    ids = [
        bench.trigger("leaf", Input(name=f"slot-{k}", gate="slots"), additional_metadata={"g": "slots"})
        for k in range(6)
    ]
    until(lambda: sum(bool(bench.notes(f"slot-{k}.started")) for k in range(6)) == 4)
    until(
        lambda: (
            sorted(run.status.value for run in bench.runs(additional_metadata={"g": "slots"}))
            == ["QUEUED"] * 2 + ["RUNNING"] * 4
        )
    )
    assert sum(bool(bench.notes(f"slot-{k}.started")) for k in range(6)) == 4
    assert bench.worker_row("leaves").slot_config["default"].available == 0
    bench.open("slots")
    assert len(bench.results(*ids)) == 6


def test_a_task_waits_for_a_worker_with_its_required_label(bench: Bench) -> None:
    run_id = bench.trigger("coloured", Input())
    bench.output("leaf", Input(name="painter-1", label="blue"))
    assert bench.status(run_id) == "QUEUED"
    bench.output("leaf", Input(name="painter-2", label="red"))
    assert bench.results(run_id)[0][PREFIX + "coloured"] == {"worker": "leaves"}


def test_the_labels_of_a_trigger_replace_those_of_the_task(bench: Bench) -> None:
    wishes = [DesiredWorkerLabel(key="zone", value="a", required=True)]
    stub = bench.hatchet.stubs.task(name=PREFIX + "homeless", input_validator=Input)
    run_id = stub.run(Input(), wait_for_result=False, desired_worker_labels=wishes).workflow_run_id
    assert bench.hatchet.runs.get_details(run_id).status in ("QUEUED", "RUNNING", "COMPLETED")
    bench.results(run_id)
    until(lambda: bench.status(run_id) == "COMPLETED")


def test_a_paused_worker_gets_nothing_until_it_goes_on(bench: Bench) -> None:
    with bench.paused("leaves"):
        until(lambda: bench.worker_status("leaves") == "PAUSED")
        run_id = bench.trigger("leaf", Input(name="backlog", n=1))
        assert bench.output("fan", Input(name="meanwhile"))["doubles"] == []
        assert not bench.notes("backlog.started")
        assert bench.status(run_id) == "QUEUED"
    assert bench.results(run_id)[0][PREFIX + "leaf"]["double"] == 2


# Children


def test_a_fan_gathers_its_children(bench: Bench) -> None:
    result = bench.output("fan", Input(name="gatherer", n=12))
    assert result["doubles"] == [2 * k for k in range(12)]
    assert result["keys"] == [f"key-{k}" for k in range(12)]
    assert (result["retry"], result["invocation"]) == (0, 1)


def test_children_inherit_the_metadata_of_their_parent(bench: Bench) -> None:
    run_id = bench.trigger("fan", Input(name="heir", n=2), additional_metadata={"family": "heirs"})
    bench.results(run_id)
    runs = until(lambda: rows if len(rows := bench.runs(additional_metadata={"family": "heirs"})) == 3 else [])
    assert sorted(run.parent_task_external_id or "" for run in runs) == ["", run_id, run_id]


def test_a_retried_fan_finds_its_children_again(bench: Bench) -> None:
    result = bench.output("fan", Input(name="retried", n=3, failures=1))
    assert (result["retry"], result["invocation"], result["retries"]) == (1, 2, [0, 0, 0])
    before, after = (note["ids"] for note in bench.notes("retried.children"))
    assert before == after
    assert [len(bench.notes(f"retried-{k}.started")) for k in range(3)] == [1, 1, 1]


def test_a_retried_plain_task_finds_its_child_again(bench: Bench) -> None:
    assert bench.output("parent", Input(name="plain-parent", n=4, failures=1))["double"] == 8
    before, after = (note["ids"] for note in bench.notes("plain-parent.children"))
    assert before == after
    assert len(bench.notes("plain-parent-child.started")) == 1


def test_durable_tasks_have_slots_of_their_own(bench: Bench) -> None:
    ids = [bench.trigger("fan", Input(name=f"durable-{k}", n=1, gate="durables")) for k in range(3)]
    until(lambda: sum(bool(bench.notes(f"durable-{k}.children")) for k in range(3)) == 2)
    until(lambda: sorted(bench.status(known) for known in ids) == ["QUEUED", "RUNNING", "RUNNING"])
    bench.open("durables")
    assert [result[PREFIX + "fan"]["doubles"] for result in bench.results(*ids)] == [[0]] * 3


def test_an_evicted_task_goes_on_when_its_child_has_ended(bench: Bench) -> None:
    run_id = bench.trigger("patient", Input(name="patient", gate="patience"))
    until(lambda: bench.hatchet.runs.get_details(run_id).task_runs[PREFIX + "patient"].is_evicted)
    assert bench.worker_row("fans").slot_config["durable"].available == 2
    bench.open("patience")
    assert bench.results(run_id)[0][PREFIX + "patient"] == {"double": 42, "invocation": 2, "retry": 0}
    first, again = bench.notes("patient.times")
    assert first == again, "a memo keeps its value"


# Cancelling


def test_a_cancelled_run_is_stopped_on_its_worker(bench: Bench) -> None:
    run_id = bench.trigger("leaf", Input(name="doomed", gate="never"))
    until(lambda: bench.notes("doomed.started"))
    bench.hatchet.runs.cancel(run_id)
    assert bench.results(run_id) == [{}], "a subscriber hears the end and no error"
    until(lambda: bench.notes("doomed.cancelled"))
    until(lambda: bench.status(run_id) == "CANCELLED")


def test_runs_are_cancelled_by_their_metadata_running_or_queued(bench: Bench) -> None:
    group = {"group": "doomed"}
    for k in range(6):
        bench.trigger("leaf", Input(name=f"all-{k}", gate="never"), additional_metadata=group)
    until(lambda: sum(bool(bench.notes(f"all-{k}.started")) for k in range(6)) == 4)
    until(lambda: len(bench.runs(additional_metadata=group)) == 6)
    bench.hatchet.runs.bulk_cancel(BulkCancelReplayOpts(filters=RunFilter(since=SINCE, additional_metadata=group)))
    until(lambda: {run.status.value for run in bench.runs(additional_metadata=group)} == {"CANCELLED"})
    until(lambda: sum(bool(bench.notes(f"all-{k}.cancelled")) for k in range(6)) == 4)


def test_the_children_of_a_cancelled_run_go_on(bench: Bench) -> None:
    run_id = bench.trigger("fan", Input(name="orphaner", n=2, gate="orphans"))
    until(lambda: bench.notes("orphaner-0.started") and bench.notes("orphaner-1.started"))
    until(lambda: bench.notes("orphaner.children"))
    bench.hatchet.runs.cancel(run_id)
    until(lambda: bench.status(run_id) == "CANCELLED")
    bench.open("orphans")
    (children,) = bench.notes("orphaner.children")
    assert [result[PREFIX + "leaf"]["double"] for result in bench.results(*children["ids"])] == [0, 2]


def test_a_task_can_cancel_itself(bench: Bench) -> None:
    run_id = bench.trigger("leaf", Input(name="weary", cancel=True))
    until(lambda: bench.status(run_id) == "CANCELLED")


def test_a_durable_parent_hears_that_its_child_was_cancelled(bench: Bench) -> None:
    run_id = bench.trigger("anxious", Input(name="lost-child", gate="never"))
    until(lambda: bench.notes("lost-child.started"))
    child = until(lambda: bench.runs(parent_task_external_id=run_id))[0]
    bench.hatchet.runs.cancel(child.metadata.id)
    assert "task was cancelled" in bench.results(run_id)[0][PREFIX + "anxious"]["error"]


# Lost workers


@pytest.fixture(scope="module")
def victim(bench: Bench) -> Iterator[subprocess.Popen[bytes]]:
    """A worker for leaves and fans at once, with 2 slots and 1 durable slot."""
    with bench.worker("both", "victim") as process:
        yield process


def lose_in_the_middle_of_a_fan(bench: Bench, victim: subprocess.Popen[bytes], loss: signal.Signals) -> None:
    """Let the victim run a fan and two of its three leaves, lose it, and look at how others end the job."""
    name = loss.name.lower()
    until(lambda: bench.worker_status("victim") == "ACTIVE")
    with bench.paused("leaves", "fans"):
        run_id = bench.trigger("fan", Input(name=name, n=3, gate=name))
        until(lambda: sum(bool(bench.notes(f"{name}-{k}.started")) for k in range(3)) == 2)
        until(lambda: len(bench.notes(f"{name}.children")) == 1)
    os.killpg(victim.pid, loss)
    until(lambda: len(bench.notes(f"{name}.children")) == 2)
    bench.open(name)
    output = bench.results(run_id)[0][PREFIX + "fan"]
    assert output["doubles"] == [0, 2, 4]
    assert (output["retry"], output["invocation"]) == (1, 2)
    assert sorted(output["retries"]) == [0, 1, 1], "a loss counts as a retry, though a leaf has none of its own"
    before, after = bench.notes(f"{name}.children")
    assert before["ids"] == after["ids"]
    assert (before["worker"], after["worker"]) == ("victim", "fans")


def test_the_tasks_of_a_silent_worker_go_to_others_until_it_is_back(
    bench: Bench, victim: subprocess.Popen[bytes]
) -> None:
    lose_in_the_middle_of_a_fan(bench, victim, signal.SIGSTOP)
    assert bench.worker_status("victim") == "INACTIVE"
    os.killpg(victim.pid, signal.SIGCONT)
    until(lambda: bench.worker_status("victim") == "ACTIVE")


def test_the_tasks_of_a_killed_worker_go_to_others(bench: Bench, victim: subprocess.Popen[bytes]) -> None:
    lose_in_the_middle_of_a_fan(bench, victim, signal.SIGKILL)


# Refusals


def test_an_unknown_workflow_gets_an_id_and_never_runs(bench: Bench) -> None:
    assert bench.trigger("nowhere", Input(), additional_metadata={"group": "unknown"})
    assert not bench.runs(additional_metadata={"group": "unknown"})


def refusal(bench: Bench, token: str) -> grpc.StatusCode:
    stranger = client(bench.env, token=token)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        asyncio.run(stranger.dispatcher.get_version())
    with pytest.raises(ForbiddenException):
        stranger.workers.list()
    return refused.value.code()


def test_a_token_of_somebody_else_is_refused(bench: Bench) -> None:
    head, claims, signature = bench.env["HATCHET_CLIENT_TOKEN"].split(".")
    assert refusal(bench, f"{head}.{claims}.{signature[::-1]}") is grpc.StatusCode.UNAUTHENTICATED


@standin_only
def test_an_expired_token_is_refused(bench: Bench) -> None:
    engine = StandinEngine()
    engine.env = bench.env
    assert refusal(bench, engine.expired_token()) is grpc.StatusCode.UNAUTHENTICATED


@standin_only
def test_a_standin_claims_the_version_and_checks_the_names_that_it_is_told_to() -> None:
    with StandinEngine(version="v0.50.0", verify_names=True) as engine:
        version = asyncio.run(client(engine.env).dispatcher.get_version())
        assert version == "v0.50.0"
        with pytest.raises(grpc.RpcError) as refused:
            Bench(engine.env, Path()).trigger("nowhere", Input())
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert refused.value.details() == f"workflow names not found: {PREFIX}nowhere"
