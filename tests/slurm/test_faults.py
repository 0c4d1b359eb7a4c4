"""What goes wrong on a cluster, on a real Slurm: jobs that are killed, moved, out of memory or time; every input ends exactly once."""

from __future__ import annotations

import datetime as dt
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

import scythe
from scythe.allocate import BaseExperiment
from scythe.cli import app
from scythe.errors import RunError
from scythe.runs.run import ExperimentRun
from scythe.source import load_experiments
from tests.slurm.faults import begun, each_once, folder_of, kill, lose_node, requeue, scancel, specs
from tests.slurm_server import Slurm, restarted, until


def waiting_run(station: BaseExperiment, tmp_path: Path, **options: object) -> tuple[ExperimentRun, object, Path, Path]:
    """A run of two elements of which each has come to an input that waits for the file `go`."""
    go, told = tmp_path / "go", tmp_path / "told"
    waits = pl.when(pl.col("x").is_in([4, 5])).then(pl.lit(str(go))).otherwise(pl.lit(""))
    inputs = specs(12, wait_for=waits, tells=pl.lit(str(told)))
    run, ref = station.allocate(inputs, engine=scythe.SlurmOptions.model_validate(options), workers=2, chunk=1)
    until(lambda: {4, 5} <= {x for x, _ in begun(told)}, "inputs that wait")
    return run, ref, go, told


@pytest.mark.parametrize("fault", [scancel, kill, requeue, lose_node])
def test_an_element_that_is_lost_costs_no_input(
    slurm: Slurm, station: BaseExperiment, tmp_path: Path, fault: Callable[[Slurm, str], None]
) -> None:
    run, ref, go, told = waiting_run(station, tmp_path)
    job = dict(begun(told))[5]

    fault(slurm, job)
    go.touch()
    assert ref.result(180).rows == 12  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue]
    each_once(run, 12)
    until(slurm.empty, "an empty queue")


def test_a_warning_before_the_time_limit_ends_an_element_cleanly(
    slurm: Slurm, station: BaseExperiment, tmp_path: Path
) -> None:
    run, ref, go, told = waiting_run(station, tmp_path)
    jobs = {job for _, job in begun(told)}
    kept = [x for x, _ in begun(told) if x < 4]

    slurm.ask("scancel", "--batch", "--signal=USR1", *jobs)  # what sbatch --signal does, and when it does it
    until(lambda: len(folder_of(run).rounds()) > 1, "a second round")
    go.touch()
    assert ref.result(180).rows == 12  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue]
    each_once(run, 12)
    again = [x for x, _ in begun(told)]
    assert [again.count(x) for x in kept] == [1] * len(kept)  # what was finished was kept


def _has_taken_most(run: ExperimentRun, told: Path, job: str) -> bool:
    (began,) = (beat.began for beat in folder_of(run).beats() if beat.job == job)
    came = told.stat().st_mtime
    return time.time() - came > 5 * (came - began)


def test_an_input_that_takes_all_of_the_time_becomes_an_error_in_the_end(
    slurm: Slurm, station: BaseExperiment, tmp_path: Path
) -> None:
    told = tmp_path / "told"
    never = pl.when(pl.col("x") == 1).then(pl.lit(str(tmp_path / "never"))).otherwise(pl.lit(""))
    run, ref = station.allocate(specs(3, wait_for=never, tells=pl.lit(str(told))), engine="slurm", workers=1)
    came, ran = list[float](), 0.0
    for times in (1, 2):
        until(lambda times=times: [x for x, _ in begun(told)].count(1) == times, f"try {times}")
        (_, job) = [one for one in begun(told) if one[0] == 1][-1]
        # It has to have taken most of the element's time, of which the start of Python is the other part.
        until(partial(_has_taken_most, run, told, job), "most of its time")
        came.append(told.stat().st_mtime)
        ran += time.time() - came[-1]
        slurm.ask("scancel", "--batch", "--signal=USR1", job)

    result = ref.result(180)
    assert (result.rows, result.errors) == (2, 1)
    (message,) = scythe.read("station", run=run, table="errors")["exception_message"]
    assert message == "Slurm ended the job that ran it, again and again: TIMEOUT"
    ((began, seconds, attempts),) = task_of(run, 1)
    assert attempts == 2
    assert came[0] - 1 < began.timestamp() < came[0] + 0.1  # when its function did, before it wrote that down
    assert 0.95 * ran < seconds < ran + 20
    of_it = CliRunner().invoke(app, ["logs", run.experiment_id, "1"]).output
    assert f"what input 1 of {run.experiment_id} printed, if it did, was lost with the job that Slurm ended" in of_it
    each_once(run, 3)


def task_of(run: ExperimentRun, x: int) -> list[tuple[dt.datetime, float, int]]:
    tasks = scythe.read("station", run=run, table="tasks")
    return tasks.filter(pl.col("sort_index") == x).select("start", "seconds", "attempts").rows()


def test_an_input_that_may_be_tried_once_is_not_told_to_have_been_ended_again_and_again(
    slurm: Slurm, station: BaseExperiment, tmp_path: Path
) -> None:
    once = Path("station.py")
    once.write_text(once.read_text().replace("(retries=1)", "(retries=0)  # of another size: bytecode is told by that"))
    sys.modules.pop("station")
    (found,) = load_experiments(["station:station"]) or []
    told = tmp_path / "told"
    inputs = specs(1, wait_for=pl.lit(str(tmp_path / "never")), tells=pl.lit(str(told)), says=pl.lit("I wait"))
    run, ref = BaseExperiment(found.target).allocate(inputs, engine="slurm", workers=1)
    until(lambda: bool(begun(told)), "its try")
    ((_, job),) = begun(told)
    until(partial(_has_taken_most, run, told, job), "most of its time")
    slurm.ask("scancel", "--batch", "--signal=USR1", job)

    assert ref.result(180).errors == 1
    (error,) = scythe.read("station", run=run, table="errors").select("exception_message", "attempts").rows()
    assert error == ("Slurm ended the job that ran it: TIMEOUT", 1)
    assert "I wait" in CliRunner().invoke(app, ["logs", run.experiment_id, "0"]).output


def test_what_an_input_printed_that_was_killed_with_its_job_is_kept(
    slurm: Slurm, station: BaseExperiment, tmp_path: Path
) -> None:
    told = tmp_path / "told"
    inputs = specs(1, wait_for=pl.lit(str(tmp_path / "never")), tells=pl.lit(str(told)), says=pl.lit("my last words"))
    run, ref = station.allocate(inputs, engine="slurm", workers=1)
    for times in (1, 2, 3):
        until(lambda times=times: len(begun(told)) == times, f"try {times}")
        (_, job) = begun(told)[-1]
        if times > 1:  # it is tried alone from then on
            until(lambda job=job: any(b.job == job and b.printed for b in folder_of(run).beats()), "what it says")
        kill(slurm, job)

    assert ref.result(180).errors == 1
    (printed,) = scythe.read("station", run=run, table="logs").select("stdout", "stderr", "log").rows()
    assert printed == ("my last words\n", None, None)
    assert "my last words" in CliRunner().invoke(app, ["logs", run.experiment_id, "0"]).output


def test_an_input_that_needs_more_memory_than_there_is_becomes_an_error_with_slurms_reason(
    slurm: Slurm, station: BaseExperiment, tmp_path: Path
) -> None:
    told, began = tmp_path / "told", time.time()
    large = pl.when(pl.col("x") == 77).then(600).otherwise(0)  # short inputs wait behind it in the same process
    inputs = specs(120, megabytes=large, tells=pl.when(pl.col("x") == 77).then(pl.lit(str(told))).otherwise(pl.lit("")))
    run, ref = station.allocate(inputs, engine=scythe.SlurmOptions(mem="450M"), workers=2)

    result = ref.result(180)
    assert (result.rows, result.errors) == (119, 1)
    errors = scythe.read("station", run=run, table="errors")
    assert errors["sort_index"].to_list() == [77]
    assert {row for one in folder_of(run).gone() if one.exact for row in one.rows} <= {
        77,
        78,
    }  # none that had come back
    assert errors["exception_message"][0] == "Slurm ended the job that ran it, again and again: OUT_OF_MEMORY"
    ((start, seconds, attempts),) = task_of(run, 77)
    assert attempts == errors["attempts"][0] == len(begun(told))  # the one beside others, too
    assert began < start.timestamp() < start.timestamp() + seconds < time.time()
    each_once(run, 120)


def test_a_gather_job_that_is_cancelled_leaves_a_run_that_can_be_resumed(
    slurm: Slurm, station: BaseExperiment, tmp_path: Path
) -> None:
    run, ref, go, _ = waiting_run(station, tmp_path, mem="700M", time="30")
    slurm.ask("scancel", folder_of(run).rounds()[0].gather)
    go.touch()

    with pytest.raises(RunError, match=r"comes to no end: its gather job \d+ is CANCELLED.* Go on with: scythe resume"):
        ref.result(180)  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue]
    until(slurm.empty, "an empty queue")
    assert run.status == "incomplete"
    assert run.resume().result(120).rows == 12
    assert folder_of(run, 2).rounds()[0].array is None  # nothing was open: the gather job alone
    assert folder_of(run, 2).options() == (scythe.SlurmOptions(mem="700M", time="30"), 2)  # what was told holds
    each_once(run, 12)


def test_elements_that_are_cancelled_before_they_could_tell_of_themselves_are_submitted_again(
    slurm: Slurm, station: BaseExperiment, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    options = scythe.SlurmOptions(
        setup=(f'until [ -z "$SLURM_ARRAY_TASK_ID" ] || [ -e {gate} ]; do sleep 0.2; done',), cpus=1
    )
    run, ref = station.allocate(specs(3), engine=options, workers=1)
    array = folder_of(run).rounds()[0].array
    until(lambda: "RUNNING" in slurm.ask("squeue", "--noheader", "--format=%T", f"--jobs={array}"), "a running element")
    slurm.ask("scancel", f"{array}_0")
    until(lambda: len(folder_of(run).rounds()) == 2, "another round")
    gate.touch()
    assert ref.result(180).rows == 3
    each_once(run, 3)


def test_a_gather_job_that_begins_again_after_the_end_changes_nothing(slurm: Slurm, station: BaseExperiment) -> None:
    run, ref = station.allocate(specs(6), engine="slurm", workers=2)
    assert ref.result(120).rows == 6
    until(slurm.empty, "an empty queue")
    (jobs,) = folder_of(run).rounds()
    before = run.result

    slurm.ask("scontrol", "requeue", jobs.gather)
    until(slurm.empty, "an empty queue")
    assert len(folder_of(run).rounds()) == 1
    assert run.result == before
    assert (run.status, run.problem) == ("finished", None)
    each_once(run, 6)


def test_errors_are_counted_once_also_of_an_element_that_was_killed(
    slurm: Slurm, station: BaseExperiment, tmp_path: Path
) -> None:
    go, told = tmp_path / "go", tmp_path / "told"
    inputs = specs(
        16,
        fails=pl.col("x") < 8,
        wait_for=pl.when(pl.col("x") == 8).then(pl.lit(str(go))).otherwise(pl.lit("")),
        tells=pl.lit(str(told)),
    )
    run, ref = station.allocate(inputs, engine="slurm", workers=1, chunk=1, max_errors=10)
    until(lambda: 8 in {x for x, _ in begun(told)}, "an input that waits")
    until(lambda: bool(run.objects.files(run.key.progress)), "an account")
    kill(slurm, dict(begun(told))[8])
    go.touch()
    result = ref.result(180)
    assert (result.rows, result.errors) == (8, 8)
    each_once(run, 16)


def test_a_controller_that_is_away_for_a_while_is_waited_for(
    slurm: Slurm, station: BaseExperiment, tmp_path: Path
) -> None:
    run, ref, go, _ = waiting_run(station, tmp_path)
    slurm.controller[-1].terminate()
    slurm.controller[-1].wait()
    go.touch()
    until(lambda: run.objects.exists(folder_of(run).over(str(folder_of(run).rounds()[0].array))), "the end of all work")
    restarted(slurm)

    assert ref.result(180).rows == 12  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue]
    each_once(run, 12)


def test_of_two_that_resume_at_once_one_submits(slurm: Slurm, station: BaseExperiment, tmp_path: Path) -> None:
    run, _, go, _ = waiting_run(station, tmp_path)
    run.cancel()
    until(slurm.empty, "an empty queue")
    go.touch()
    came: list[object] = []

    def resume() -> None:
        try:
            came.append(scythe.open_run(run.experiment_id).resume().result(120).rows)
        except RunError as error:
            came.append(str(error))

    both = [threading.Thread(target=resume) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert 12 in came
    assert all(c == 12 or "taken up by another process" in str(c) or "is being worked on" in str(c) for c in came), came
    assert len(run.attempts) == 2
    each_once(run, 12)


def test_elements_that_come_late_find_that_nothing_is_left(slurm: Slurm, station: BaseExperiment) -> None:
    run, ref = station.allocate(specs(30), engine="slurm", workers=30)  # two cores: two at a time

    assert ref.result(180).rows == 30
    until(slurm.empty, "an empty queue")
    assert len(folder_of(run).beats()) < 8  # the others never began
    each_once(run, 30)
