"""A run that is cancelled, resumed, asked again, or whose client dies, goes on with what is open, once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import scythe
from scythe.allocate import BaseExperiment, ExperimentRun
from scythe.engines.hatchet.worker import loading
from scythe.errors import RunCancelled, RunError
from scythe.leaf.leaf import Leaf
from scythe.record.attempt_plan import progress_of
from scythe.record.plan import RunPlan
from scythe.registry import experiment_of
from tests.cluster import PATIENCE, wait_for
from tests.hatchet.sites import Site, calls, check, folder_of, gone, manifest, wait_for_calls


def collected(run: ExperimentRun) -> int:
    """The inputs that the nodes of a run tell as done."""
    told = [json.loads(p.read_text()) for p in folder_of(run).rglob("*-node-*.json") if "progress" in str(p)]
    return sum(t["rows"] + t["errors"] for t in told)


def test_a_run_that_was_cancelled_while_the_engine_was_away_can_be_resumed(spare: Site) -> None:
    """It has the tasks of the attempt that was cancelled still."""
    scratch, specs = spare.orders("fine", "waits")
    with spare.worker("--slots", "2") as worker:
        spare.served("obey")
        run, _ = spare.allocate("obey", specs, chunk=1)
        wait_for_calls(scratch, 0, 1)
        worker.kill(machine=True)
    run.objects.write(run.key.cancelled, b"{}")
    (scratch / "gate").touch()
    with spare.worker("--slots", "2"):
        spare.served("obey")
        assert run.resume().result(timeout=PATIENCE).rows == 2
    check(run, good=[0, 1])
    assert run.outlook is None


@pytest.mark.parametrize("how", ["run", "ref"])
def test_a_cancelled_run_stops_keeps_what_is_finished_and_can_be_resumed(main: Site, how: str) -> None:
    scratch, specs = main.orders("fine", "fine", "waits", "fine")
    run, ref = main.allocate("obey", specs, chunk=1)
    wait_for_calls(scratch, 0, 1, 2, 3)
    wait_for(lambda: collected(run) == 3)
    child = int(wait_for((scratch / "2.child").read_text))

    run.cancel() if how == "run" else ref.cancel()

    with pytest.raises(RunCancelled, match=run.experiment_id):
        ref.result(timeout=PATIENCE)
    wait_for(lambda: run.status == "cancelled")
    wait_for(lambda: gone(child))
    kept = scythe.read(run.experiment, run.version, run=run.key.folder)
    assert sorted(kept["sort_index"].to_list()) == [0, 1, 3]
    assert calls(scratch)[2] == 1
    run.cancel()  # what is cancelled stays so

    (scratch / "gate").touch()
    run.resume().result(timeout=PATIENCE)

    check(run, good=[0, 1, 2, 3])
    assert calls(scratch) == {0: 1, 1: 1, 2: 2, 3: 1}
    with pytest.raises(RunError, match="finished"):
        run.cancel()


def test_errors_are_tried_again_on_request_and_nothing_else_is(main: Site) -> None:
    scratch, specs = main.orders("fine", "fails without a gate", "fine", "raises", "fails without a gate")
    run, ref = main.allocate("obey", specs, chunk=2)
    assert ref.result(timeout=PATIENCE).errors == 3
    (scratch / "gate").touch()

    again = run.retry_errors()
    result = again.result(timeout=PATIENCE)

    assert (result.rows, result.errors) == (4, 1)
    told = progress_of(run.objects, run.key, 5)
    assert (told.done, told.failed) == (5, 1)
    check(run, good=[0, 1, 2, 4], bad=[3])
    assert calls(scratch) == {0: 1, 1: 3, 2: 1, 3: 4, 4: 3}
    assert run.resume().result() == result
    assert manifest(run)["workflow_run_id"] == ref.workflow_run_id


CLIENT = """
import os, sys

def die_at(name):
    def look(frame, event, argument):
        if event == "call" and frame.f_code.co_name == name:
            os.kill(os.getpid(), 9)
    sys.setprofile(look)

module, scratch, fates, where = sys.argv[1:]
experiments = __import__(module)
from scythe.allocate import BaseExperiment
specs = [
    experiments.Order(experiment_id="", sort_index=i, scratch=scratch, fate=f) for i, f in enumerate(fates.split(";"))
]
die_at(where)
BaseExperiment(experiments.obey).allocate(specs, engine="hatchet", chunk=1)
"""


def client_that_dies(site: Site, where: str, *fates: str) -> tuple[Path, ExperimentRun]:
    """What a client has left that was killed when it called this function."""
    scratch, _ = site.orders()
    before = {r.experiment_id for r in BaseExperiment(site.module.obey).list_runs()}
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, site.module.__name__, str(scratch), ";".join(fates), where],
        cwd=site.folder, capture_output=True, text=True, check=False, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    (run,) = [r for r in BaseExperiment(site.module.obey).list_runs() if r.experiment_id not in before]
    return scratch, run


def test_a_run_whose_client_died_after_the_trigger_goes_on_and_is_attached_to(main: Site) -> None:
    scratch, run = client_that_dies(main, "record_trigger", "fine", "waits", "fine")
    wait_for_calls(scratch, 1)

    ref = run.resume()
    assert run.status == "running"
    (scratch / "gate").touch()
    ref.result(timeout=PATIENCE)

    tables = check(run, good=[0, 1, 2])
    assert calls(scratch) == {0: 1, 1: 1, 2: 1}
    assert ref.workflow_run_id == manifest(run)["workflow_run_id"]
    assert tables["scalars"]["root_workflow_run_id"].unique().to_list() == [ref.workflow_run_id]


def test_a_run_that_was_never_triggered_is_started_by_resume_whatever_else_goes_on(main: Site) -> None:
    other, specs = main.orders("waits")
    going, ref = main.allocate("obey", specs)
    scratch, run = client_that_dies(main, "run_hatchet", "fine", "fine")
    try:
        wait_for_calls(other, 0)
        assert run.status == "allocated"
        assert manifest(run)["workflow_run_id"] is None
        assert run.workflow_run_id is None

        resumed = run.resume()
        assert resumed.workflow_run_id != going.workflow_run_id
        resumed.result(timeout=PATIENCE)

        check(run, good=[0, 1])
        assert calls(scratch) == {0: 1, 1: 1}
        assert manifest(run)["workflow_run_id"] == resumed.workflow_run_id
    finally:
        (other / "gate").touch()
        ref.result(timeout=PATIENCE)


def test_clients_that_resume_at_the_same_time_start_one_run(main: Site) -> None:
    scratch, run = client_that_dies(main, "run_hatchet", *["fine"] * 6)
    together = threading.Barrier(3)

    def resume() -> Any:
        mine = scythe.open_run(run.experiment_id)
        together.wait()
        return mine.resume().result(timeout=PATIENCE)

    with ThreadPoolExecutor(3) as threads:
        results = [f.result() for f in [threads.submit(resume) for _ in range(3)]]

    assert results[0] == results[1] == results[2]
    check(run, good=list(range(6)))
    assert calls(scratch) == dict.fromkeys(range(6), 1)


def test_clients_that_retry_errors_at_the_same_time_run_them_once_more(main: Site) -> None:
    scratch, specs = main.orders("fine", "fails without a gate", "fine", "fails without a gate")
    run, ref = main.allocate("obey", specs, chunk=1)
    assert ref.result(timeout=PATIENCE).errors == 2
    (scratch / "gate").touch()
    together = threading.Barrier(3)

    def retry() -> Any:
        mine = scythe.open_run(run.experiment_id)
        together.wait()
        return mine.retry_errors().result(timeout=PATIENCE)

    with ThreadPoolExecutor(3) as threads:
        results = [f.result() for f in [threads.submit(retry) for _ in range(3)]]

    assert results[0] == results[1] == results[2]
    check(run, good=[0, 1, 2, 3])
    assert calls(scratch) == {0: 1, 1: 3, 2: 1, 3: 3}


def test_a_run_of_a_cluster_can_be_finished_on_one_machine(main: Site) -> None:
    scratch, run = client_that_dies(main, "run_hatchet", "fine", "raises", "fine")

    ref = run.resume(engine="local", workers=1)
    ref.result(timeout=PATIENCE)

    tables = check(run, good=[0, 2], bad=[1])
    assert calls(scratch) == {0: 1, 1: 2, 2: 1}
    assert manifest(run)["workflow_run_id"] == ref.workflow_run_id
    assert tables["scalars"]["root_workflow_run_id"].unique().to_list() == [ref.workflow_run_id]


def test_finished_rows_can_be_read_and_progress_is_told_while_the_run_goes_on(
    main: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    scratch, specs = main.orders("gives a large frame", "fine", "waits", "raises")
    run, ref = main.allocate("obey", specs, chunk=1)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(ref.result, timeout=PATIENCE)
        try:
            wait_for_calls(scratch, 0, 1, 2, 3)
            told: list[str] = []
            wait_for(lambda: told.append(capsys.readouterr().err) or "3 of 4 done, 1 failed" in "".join(told))
            assert "input 3 failed" in "".join(told), "the first failure of a kind is told while the others go on"
            assert run.status == "running"
            shown: dict[str, Any] = {"version": run.version, "run": run.key.folder}
            wait_for(lambda: sorted(scythe.read(run.experiment, **shown)["sort_index"].to_list()) == [0, 1])
            with pytest.raises(RunError, match="being worked on"):
                run.delete()
        finally:
            (scratch / "gate").touch()
        waiting.result()

    check(run, good=[0, 1, 2], bad=[3])


def test_a_node_that_was_suspended_shows_nothing_beside_the_result_of_the_one_that_took_its_place(
    main: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch, specs = main.orders("waits", "fine", "fine")
    run, ref = main.allocate("obey", specs, chunk=1)
    plan, experiment = RunPlan.load(run.objects, run.key), experiment_of(main.module.obey)
    late = [loading.NodeCollector(plan, experiment, 1, prefix=f"000001-node-late-{i}") for i in range(2)]
    (scratch / "gate").touch()
    ref.result(timeout=PATIENCE)

    for collector in late:
        with Leaf(plan, experiment) as leaf:
            collector.add(leaf.run(range(3)))
    late[0].flush()
    looks = iter([False, True])  # the result came between the look and the commit
    monkeypatch.setattr(loading, "is_done", lambda *_: next(looks))
    late[1].flush()

    check(run, good=[0, 1, 2])
