"""Runs on a real Slurm: what comes of them, what is refused, and how gently it is asked."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from typer.testing import CliRunner

import scythe
from scythe.allocate import BaseExperiment
from scythe.cli import app
from scythe.engines.slurm import commands
from scythe.engines.slurm.folder import Folder
from scythe.engines.slurm.ref import Queue
from scythe.errors import AllocationError, RunCancelled, RunError, SettingsError, TooManyErrors
from scythe.gather.final import all_parts
from scythe.record.attempts import latest_attempt
from scythe.record.plan import RunPlan
from scythe.registry import ExperimentRegistry
from scythe.runs.run import ExperimentRun
from tests.slurm_server import Slurm, until
from tests.test_docs import PAGES, ROOT, run_page

IDS = ("experiment_id", "root_workflow_run_id", "workflow_run_id")


def specs(n: int, **more: pl.Expr) -> pl.DataFrame:
    return pl.DataFrame({"x": range(n)}).with_columns(**more)


def all_rows_of(run: ExperimentRun) -> int:
    return sum(part.rows for part in all_parts(RunPlan.load(run.objects, run.key)))


def folder_of(run: ExperimentRun, attempt: int = 1) -> Folder:
    return Folder(run.objects, run.key, attempt)


def test_a_run_is_the_same_as_on_this_machine_and_slurm_is_asked_gently(
    slurm: Slurm, station: BaseExperiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = counted_commands(tmp_path, monkeypatch)
    inputs = specs(40, fails=pl.col("x") == 7)
    run, ref = station.allocate(inputs, engine=scythe.SlurmOptions(time="5"), workers=2)
    result = ref.result(120)

    assert (result.rows, result.errors, run.status) == (39, 1, "finished")
    here, ref = station.allocate(inputs, "keep", engine=scythe.LocalOptions(workers=1))
    ref.result()
    for table in ("scalars", "errors"):
        one, other = (scythe.read("station", r.version, run=r.key.folder, table=table).drop(IDS) for r in (run, here))
        assert_frame_equal(one.drop("traceback", strict=False), other.drop("traceback", strict=False))
    assert [(a.number, a.engine) for a in run.attempts] == [(1, "slurm")]
    tasks = scythe.read("station", run.version, run=run.key.folder, table="tasks")
    assert tasks["attempt"].to_list() == [1] * 40
    commands = asked.read_text().split()
    assert commands.count("sbatch") == 3  # a look at the options, the array, the gather job
    assert commands.count("squeue") <= 2 + result.seconds / 10
    until(slurm.empty, "an empty queue")
    told = CliRunner().invoke(app, ["logs", run.experiment_id, "--element", "gather"])
    assert told.exit_code == 0, told.output
    wrong = CliRunner().invoke(app, ["logs", run.experiment_id, "--element", "7"])
    assert "has no element '7': it has 0 to 1, and 'gather'" in str(wrong.exception)


def counted_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that gets a line for each of Slurm's commands that is called from now on."""
    asked, places = tmp_path / "asked", tmp_path / "commands"
    places.mkdir()
    for name in ("sbatch", "squeue", "scontrol", "scancel", "sacct"):
        (places / name).write_text(f'#!/bin/sh\necho {name} >> {asked}\nexec /usr/bin/{name} "$@"\n')
        (places / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{places}:{os.environ['PATH']}")
    return asked


def test_files_dataframes_and_seeds_are_as_everywhere(slurm: Slurm, root: Path) -> None:
    Path("frames.py").write_text(
        "import numpy as np, polars as pl\n"
        "from pathlib import Path\n"
        "from scythe import ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry, FileReference\n"
        "class In(ExperimentInputSpec):\n    x: int\n    text: FileReference\n"
        "class Out(ExperimentOutputSpec):\n    drawn: float\n    copy_of: FileReference\n"
        "@ExperimentRegistry.Register()\n"
        "def frames(input_spec: In, tempdir: Path) -> Out:\n"
        "    kept = tempdir / 'a.txt'\n    kept.write_text(input_spec.text.read_text() + str(input_spec.x))\n"
        "    frame = pl.DataFrame({'hour': range(3), 'load': [input_spec.x / (h + 1) for h in range(3)]})\n"
        "    return Out(drawn=np.random.random(), copy_of=kept, dataframes={'hourly': frame})\n"
    )
    Path("given.txt").write_text("given ")
    script = (
        "import polars as pl, scythe\nfrom frames import frames\n"
        "if __name__ == '__main__':\n"
        "    for engine in ('slurm', 'local'):\n"
        "        run, ref = scythe.BaseExperiment(frames).allocate(\n"
        "            pl.DataFrame({'x': range(6)}).with_columns(text=pl.lit('given.txt')), 'auto', engine=engine, seed=3)\n"
        "        assert ref.result(120).rows == 6\n"
    )
    Path("go.py").write_text(script)
    done = subprocess.run(
        [sys.executable, "go.py"], env=slurm.environment, capture_output=True, text=True, timeout=180, check=False
    )

    assert done.returncode == 0, done.stderr
    for table, columns in (("scalars", ["x", "drawn"]), ("hourly", ["x", "hour", "load"])):
        one, other = (scythe.read("frames", version, table=table, columns=columns) for version in ("v1.0.0", "v1.0.1"))
        assert_frame_equal(one, other)
    texts = [Path(uri.removeprefix("file://")).read_text() for uri in scythe.files("frames", "v1.0.0")["copy_of"]]
    assert texts == [f"given {x}" for x in range(6)]


def test_what_slurm_does_not_take_is_refused_in_its_own_words_before_anything_is_written(
    slurm: Slurm, station: BaseExperiment, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SettingsError, match=r"Slurm does not take such a job: .*[Ii]nvalid partition"):
        station.allocate(specs(1), engine=scythe.SlurmOptions(partition="nowhere"))
    with pytest.raises(SettingsError, match="unrecognized option"):
        station.allocate(specs(1), engine=scythe.SlurmOptions(sbatch={"no_such_thing": 1}))
    monkeypatch.setenv("SCYTHE_SLURM_PARTITION", "elsewhere")
    with pytest.raises(SettingsError, match=r"[Ii]nvalid partition"):
        station.allocate(specs(1), engine="slurm")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SettingsError, match="needs sbatch, which is not on this machine's PATH"):
        station.allocate(specs(1), engine="slurm")
    assert not root.exists()


def test_a_function_that_no_file_holds_is_refused(slurm: Slurm, root: Path) -> None:
    made: dict[str, object] = {"__name__": "typed_in"}
    source = (
        "from scythe import ExperimentInputSpec as I, ExperimentOutputSpec as O\n"
        "class X(I):\n    x: int\n"
        "def typed(spec: X) -> O: return O()\n"
    )
    exec(compile(source, "<typed>", "exec"), made)  # as a shell does
    typed = ExperimentRegistry.Register()(made["typed"])  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]

    with pytest.raises(AllocationError, match="typed into a notebook or a shell: the jobs need a file"):
        BaseExperiment(typed).allocate([{"x": 1}], engine="slurm")
    assert not root.exists()


def test_the_terminal_may_be_closed_and_the_run_is_waited_for_elsewhere(
    slurm: Slurm, station: BaseExperiment, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    Path("go.py").write_text(
        "import os, polars as pl, scythe\nfrom station import station\n"
        "if __name__ == '__main__':\n"
        f"    frame = pl.DataFrame({{'x': range(6)}}).with_columns(wait_for=pl.lit('{go}'))\n"
        "    run, ref = scythe.BaseExperiment(station).allocate(frame, engine='slurm', workers=2)\n"
        "    print(run.experiment_id, flush=True)\n    ref.result()\n"
    )
    with subprocess.Popen(
        [sys.executable, "go.py"], env=slurm.environment, stdout=subprocess.PIPE, text=True
    ) as script:
        assert script.stdout is not None
        name = script.stdout.readline().strip()
        script.kill()

    run = scythe.open_run(name)
    with pytest.raises(TimeoutError):
        run.wait(timeout=0.5)
    go.touch()
    told = CliRunner().invoke(app, ["watch", name])
    assert told.exit_code == 0, told.output
    assert "6 rows, 0 errors" in told.output
    assert run.wait().rows == 6


def test_a_run_in_the_queue_says_what_it_waits_for(slurm: Slurm, station: BaseExperiment) -> None:
    run, ref = station.allocate(specs(2), engine=scythe.SlurmOptions(sbatch={"begin": "now+1hour"}), workers=1)

    assert run.status == "allocated"
    until(lambda: "(BeginTime), it was put off for a moment, starts about" in (run.outlook or ""), "the reason")
    assert (run.outlook or "").startswith("Slurm job ")
    with pytest.raises(RunError, match="waits on its cluster: cancel it first"):
        run.delete()
    with pytest.raises(TimeoutError):
        ref.result(timeout=0.5)
    joined = run.resume()  # it is in the queue: nothing is submitted again
    assert len(folder_of(run).rounds()) == 1
    joined.cancel()
    assert run.status == "cancelled"
    with pytest.raises(RunCancelled):
        ref.result(timeout=60)
    until(slurm.empty, "an empty queue")
    assert run.resume(engine="slurm").result(120).rows == 2


def test_that_a_job_is_pending_is_not_said_any_more_once_inputs_have_ended(
    slurm: Slurm, station: BaseExperiment
) -> None:
    """Slurm is asked once a minute at times: that a job has begun is seen by its inputs first."""
    run, ref = station.allocate(specs(2), engine=scythe.SlurmOptions(sbatch={"hold": True}), workers=1)
    queue = Queue(folder_of(run))

    assert "is pending" in (queue.look(0) or "")
    assert "is pending" in (queue.look(0) or "")
    assert queue.look(1) is None
    ref.cancel()


def test_a_retry_that_waits_in_the_queue_is_seen_joined_and_cancelled(slurm: Slurm, station: BaseExperiment) -> None:
    run, ref = station.allocate(specs(4, fails=pl.col("x") < 2), engine=scythe.LocalOptions(workers=1))
    before = ref.result()
    assert (before.rows, before.errors) == (2, 2)
    run.retry_errors(engine=scythe.SlurmOptions(sbatch={"begin": "now+1hour"}), workers=1)
    (jobs,) = folder_of(run, 2).rounds()

    assert run.status == "finished"
    assert "is pending" in CliRunner().invoke(app, ["show", run.experiment_id]).output
    for join in (lambda: run.wait(timeout=0.5), lambda: run.resume().result(timeout=0.5)):
        with pytest.raises(TimeoutError):
            join()
    with pytest.raises(RunError, match="waits on its cluster: cancel it first"):
        run.delete()
    assert len(folder_of(run, 2).rounds()) == 1
    run.cancel()
    until(slurm.empty, "an empty queue")
    assert (run.status, run.wait(timeout=60)) == ("finished", before)
    with pytest.raises(RunError, match="is finished: there is nothing to cancel"):
        run.cancel()
    again = run.retry_errors(engine="slurm", workers=1).result(120)
    assert (again.rows, again.errors, again.attempt) == (2, 2, 3)
    assert jobs.gather not in [job for one in folder_of(run, 3).rounds() for job in one.numbers]


def test_a_run_of_this_machine_that_waits_in_the_queue_now_is_found_there(
    slurm: Slurm, station: BaseExperiment
) -> None:
    run, ref = station.allocate(specs(40, fails=pl.lit(True)), engine=scythe.LocalOptions(workers=1))
    with pytest.raises(TooManyErrors):
        ref.result()
    run.resume(engine=scythe.SlurmOptions(sbatch={"begin": "now+1hour"}), workers=1, max_errors=None)

    assert "is pending" in (run.outlook or "")
    with pytest.raises(TimeoutError):
        run.wait(timeout=0.5)
    run.cancel()
    until(slurm.empty, "an empty queue")


def test_a_cancelled_run_stops_and_goes_on(slurm: Slurm, station: BaseExperiment, tmp_path: Path) -> None:
    go, told = tmp_path / "go", tmp_path / "told"
    waits = pl.when(pl.col("x") > 3).then(pl.lit(str(go))).otherwise(pl.lit(""))
    run, ref = station.allocate(specs(8, wait_for=waits, tells=pl.lit(str(told))), engine="slurm", workers=2)
    until(lambda: told.exists() and len(told.read_text().splitlines()) > 5, "two inputs that wait")

    run.cancel()
    with pytest.raises(RunCancelled):
        ref.result(timeout=60)
    until(slurm.empty, "an empty queue")
    go.touch()
    assert run.resume().result(120).rows == 8
    begun = [int(line.split()[0]) for line in told.read_text().splitlines()]
    assert [begun.count(x) for x in range(4)] == [1, 1, 1, 1]  # what was finished is kept


def test_inputs_that_failed_are_retried_and_too_many_stop_a_run(slurm: Slurm, station: BaseExperiment) -> None:
    run, ref = station.allocate(specs(60, fails=pl.lit(True)), engine="slurm", workers=2)
    with pytest.raises(TooManyErrors, match="all failed alike"):
        ref.result(timeout=120)
    until(slurm.empty, "an empty queue")
    assert run.status == "incomplete"
    assert "all failed alike" in (run.problem or "")

    assert run.resume(max_errors=None).result(120).errors == 60
    assert run.retry_errors(max_errors=None).result(120).errors == 60
    assert [a.number for a in run.attempts] == [1, 2, 3]


# --- what is wrong on a node is told in a sentence --------------------------------------------------


def test_an_interpreter_that_nodes_do_not_have_is_named(slurm: Slurm, station: BaseExperiment) -> None:
    options = scythe.SlurmOptions(python="/nowhere/bin/python")
    run, ref = station.allocate(specs(2), engine=options, workers=1)

    with pytest.raises(RunError, match=r"has no /nowhere/bin/python: install the environment where all nodes see it"):
        ref.result(timeout=120)
    assert run.resume(engine=scythe.SlurmOptions(python=sys.executable)).result(120).rows == 2


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (scythe.SlurmOptions(python="/nowhere/bin/python"), "has no /nowhere/bin/python: install the environment"),
        (scythe.SlurmOptions(setup=("no-such-module load x",)), "the line of setup 'no-such-module load x' ended with"),
    ],
)
def test_why_no_job_came_up_is_told_to_who_looks_later(
    slurm: Slurm, station: BaseExperiment, options: scythe.SlurmOptions, why: str
) -> None:
    """The process that submitted them was not there any more when they ended."""
    run, _ = station.allocate(specs(2), engine=options, workers=1)
    until(slurm.empty, "an empty queue")

    shown = CliRunner().invoke(app, ["show", run.experiment_id]).output
    assert f"nothing works on it any more: its gather job {folder_of(run).rounds()[-1].gather} is FAILED" in shown
    assert why in shown
    with pytest.raises(RunError) as told:
        run.wait(timeout=5)
    assert why in str(told.value)
    assert f'. Go on with: scythe resume "{run.experiment_id}"' in str(told.value)
    assert (run.status, why in (run.problem or "")) == ("incomplete", True)
    assert run.resume(engine="local").result().rows == 2


@pytest.mark.parametrize("before_and_after", [("x**2", "x**3 + 1"), ("y: int", "y: float")])
def test_that_the_code_changed_in_the_queue_is_told_to_who_looks_later(
    slurm: Slurm, station: BaseExperiment, before_and_after: tuple[str, str]
) -> None:
    run, _ = station.allocate(specs(2), engine=scythe.SlurmOptions(sbatch={"hold": True}), workers=1)
    file = Path("station.py")
    file.write_text(file.read_text().replace(*before_and_after))
    slurm.ask("scontrol", "release", *folder_of(run).rounds()[0].numbers)
    until(slurm.empty, "an empty queue")

    why = "the code of 'station' has changed since"
    assert why in CliRunner().invoke(app, ["show", run.experiment_id]).output
    assert why in (run.problem or "")
    with pytest.raises(RunError, match=why):
        run.wait(timeout=5)


def test_how_the_gather_job_ended_is_told_to_who_looks_later(
    slurm: Slurm, station: BaseExperiment, tmp_path: Path
) -> None:
    go, told = tmp_path / "go", tmp_path / "told"
    run, _ = station.allocate(specs(2, wait_for=pl.lit(str(go)), tells=pl.lit(str(told))), engine="slurm", workers=1)
    until(told.exists, "an input that waits")
    slurm.ask("scancel", *folder_of(run).rounds()[0].numbers)
    until(slurm.empty, "an empty queue")

    why = f"its gather job {folder_of(run).rounds()[0].gather} is CANCELLED"
    assert why in (run.outlook or "")
    with pytest.raises(RunError, match=why):
        run.wait(timeout=60)
    assert f"attempt 1 stopped: {why}" in CliRunner().invoke(app, ["show", run.experiment_id]).output


def test_what_kept_jobs_from_coming_up_is_no_problem_of_a_run_that_another_engine_has_taken_up(
    slurm: Slurm, station: BaseExperiment
) -> None:
    options = scythe.SlurmOptions(python="/nowhere/bin/python")
    run, ref = station.allocate(specs(2, fails=pl.lit(True)), engine=options, workers=1)
    with pytest.raises(RunError, match="has no /nowhere/bin/python"):
        ref.result(timeout=120)
    assert "has no /nowhere/bin/python" in (run.problem or "")

    with pytest.raises(TooManyErrors):
        run.resume(engine="local", max_errors=1).result()
    assert (run.status, run.problem, run.outlook) == ("incomplete", None, None)


def test_a_root_that_nodes_do_not_share_is_named(slurm: Slurm, station: BaseExperiment, root: Path) -> None:
    run, _ = station.allocate(specs(1), engine=scythe.SlurmOptions(sbatch={"hold": True}))
    job = folder_of(run).rounds()[0].array
    script = slurm.ask("scontrol", "write", "batch_script", str(job), "-")
    (root / run.key.plan).rename(root / "plan.json")  # as a node sees it that has another disk under that path

    done = subprocess.run(["bash"], input=script, capture_output=True, text=True, check=False)
    assert done.returncode == 97
    assert (
        f"does not see {root}, where the run lies: SCYTHE_STORAGE_ROOT must be on a file system that all nodes share"
        in done.stderr
    )
    (root / "plan.json").rename(root / run.key.plan)


def test_jobs_of_a_run_that_was_deleted_say_so_and_end(slurm: Slurm, station: BaseExperiment, root: Path) -> None:
    run, _ = station.allocate(specs(1), engine=scythe.SlurmOptions(sbatch={"hold": True}))
    script = slurm.ask("scontrol", "write", "batch_script", str(folder_of(run).rounds()[0].array), "-")
    run.cancel()
    run.delete()

    in_bucket = [
        sys.executable,
        "-m",
        "scythe.engines.slurm",
        "element",
        str(root),
        run.key.path,
        "1",
        "",
    ]  # no script sees it
    for command, given in ((["bash"], script), (in_bucket, "")):
        done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout.strip() or done.stderr.strip()) == (
            0,
            f"Scythe: the run {run.key.path} was deleted",
        )


def test_code_that_changes_while_a_run_is_queued_is_not_run(slurm: Slurm, station: BaseExperiment) -> None:
    run, ref = station.allocate(specs(2), engine=scythe.SlurmOptions(sbatch={"hold": True}), workers=1)
    source = Path("station.py").read_text()
    Path("station.py").write_text(source.replace("input_spec.x**2", "input_spec.x**3 + 1"))
    jobs = folder_of(run).rounds()[0].numbers
    slurm.ask("scontrol", "release", *jobs)

    with pytest.raises(
        RunError,
        match=r"the code of 'station' has changed since the run .* was submitted; they differ in station\.py: put it back",
    ):
        ref.result(timeout=120)
    assert run.status == "incomplete"
    assert "the code of 'station' has changed since" in str(run.problem)
    with pytest.raises(RunError, match="is incomplete: the code of 'station' has changed since"):
        run.wait(timeout=60)
    Path("station.py").write_text(source)
    assert run.resume(engine="slurm").result(120).rows == 2


def test_code_that_changes_once_all_rows_are_there_keeps_nothing_from_being_gathered(
    slurm: Slurm, station: BaseExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = commands.submit

    def held(script: str, told: list[str], name: str) -> str:
        return command(script, [*told, "--hold"] if any(one.endswith("gather.log") for one in told) else told, name)

    monkeypatch.setattr(commands, "submit", held)
    run, ref = station.allocate(specs(4), engine=scythe.SlurmOptions(), workers=1)
    until(lambda: all_rows_of(run) == 4, "four rows")
    source = Path("station.py").read_text()
    Path("station.py").write_text(source.replace("input_spec.x**2", "input_spec.x**3 + 1"))
    assert run.result is None
    slurm.ask("scontrol", "release", folder_of(run).rounds()[0].gather)
    assert ref.result(timeout=120).rows == 4
    assert scythe.read("station")["y"].to_list() == [0, 1, 4, 9]


def test_jobs_have_the_arguments_of_the_program_and_the_flags_of_its_interpreter(slurm: Slurm, root: Path) -> None:
    Path("program.py").write_text(
        """
import sys
import scythe
from scythe import BaseExperiment, ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry

class In(ExperimentInputSpec):
    x: int

class Out(ExperimentOutputSpec):
    y: int
    flags: str

def doubled(x):
    return 2 * x

CELLS = 100 if "--fine" in sys.argv else 10
LAW = doubled if "--fine" in sys.argv else None

@ExperimentRegistry.Register(retries=0)
def scaled(spec: In) -> Out:
    flags = f"{__debug__} {sys.warnoptions} {sys.flags.utf8_mode} {sys.argv[2:]}"
    return Out(y=LAW(spec.x) * CELLS, flags=flags)

if __name__ == "__main__":
    run, ref = BaseExperiment(scaled).allocate([In(x=1), In(x=2)], engine="slurm", workers=1)
    ref.result()
    print(scythe.read("scaled")["y", "flags"].rows())
"""
    )
    command = [
        sys.executable,
        "-O",
        "-W",
        "error::UserWarning",
        "-X",
        "utf8",
        "program.py",
        "--fine",
        "it's $HOME",
        b"\xff",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    flags = """False ['error::UserWarning'] 1 ["it's $HOME", '\\udcff']"""
    assert done.stdout.strip() == repr([(200, flags), (400, flags)]), done.stderr


def test_setup_lines_come_first(slurm: Slurm, station: BaseExperiment) -> None:
    options = scythe.SlurmOptions(setup=("export STATION=ready", "echo set up for $STATION"), cpus=1)
    run, ref = station.allocate(specs(1), engine=options)

    assert ref.result(120).rows == 1
    assert "set up for ready" in CliRunner().invoke(app, ["logs", run.experiment_id, "--element", "0"]).output


def test_a_setup_line_that_fails_runs_nothing_and_is_named(slurm: Slurm, station: BaseExperiment) -> None:
    """As `module load` of a version that is not there: the rows would come from whatever is."""
    fails = scythe.SlurmOptions(
        setup=("if true; then", "export STATION=1", "fi", "no-such-module load x # a comment"), cpus=1
    )
    run, ref = station.allocate(specs(1), engine=fails, workers=1)
    with pytest.raises(RunError, match=r"the line of setup 'no-such-module load x # a comment' ended with an error"):
        ref.result(120)
    well = scythe.SlurmOptions(setup=("if true; then", "export STATION=1", "fi", "no-such-module || true"))
    assert run.resume(engine=well).result(120).rows == 1


def test_limits_of_the_environment_hold_where_jobs_get_none_of_it(
    slurm: Slurm, station: BaseExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SBATCH_EXPORT", "NONE")
    monkeypatch.setenv("SCYTHE_TIMEOUT_EXPERIMENT_EXECUTION", "2s")
    inputs = specs(2, wait_for=pl.when(pl.col("x") == 1).then(pl.lit("never")).otherwise(pl.lit("")))
    run, ref = station.allocate(inputs, engine="slurm", workers=1)
    result = ref.result(120)
    assert (result.rows, result.errors) == (1, 1)
    errors = scythe.read("station", run=run.key.folder, table="errors")
    assert errors["exception_type"].to_list() == ["scythe.errors.InputTimeout"]


def test_an_option_that_slurm_refuses_does_not_stay(slurm: Slurm, station: BaseExperiment) -> None:
    run, ref = station.allocate(specs(2), engine=scythe.SlurmOptions(sbatch={"hold": True}), workers=1)
    ref.cancel()
    with pytest.raises(RunError, match=r"Invalid --mem specification; it is stored: resume it later"):
        run.resume(engine=scythe.SlurmOptions(mem="lots", sbatch={}))
    assert run.resume(engine=scythe.SlurmOptions(sbatch={})).result(120).rows == 2


def test_a_setting_that_is_no_json_is_refused_by_its_name(
    station: BaseExperiment, slurm: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("SETUP", "module load x"), ("SBATCH", '{"hold": tru}')):
        with monkeypatch.context() as patched:
            patched.setenv(f"SCYTHE_SLURM_{name}", value)
            with pytest.raises(
                SettingsError, match=f"SCYTHE_SLURM_{name}='.*' is no JSON, as which lists and mappings"
            ):
                station.allocate(specs(1), engine="slurm")


def test_who_may_not_write_there_is_told_how_a_run_ended(
    slurm: Slurm, station: BaseExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, ref = station.allocate(specs(1, wait_for=pl.lit("never")), engine="slurm", workers=1)
    until(lambda: latest_attempt(run.objects, run.key) is not None, "an attempt")
    slurm.ask("scancel", *folder_of(run).rounds()[0].numbers)
    ended = type(run.objects).write

    def full(objects: object, key: str, data: bytes) -> None:
        if "/attempts/" in key:
            raise OSError(28, "No space left on device")
        ended(objects, key, data)  # type: ignore[arg-type]

    monkeypatch.setattr(type(run.objects), "write", full)
    with pytest.raises(RunError, match=r"comes to no end: its gather job .* is CANCELLED"):
        ref.result(180)


def test_an_engine_without_elements_says_so(root: Path, station: BaseExperiment) -> None:
    run, ref = station.allocate(specs(1), engine="inline")
    ref.result()

    told = CliRunner().invoke(app, ["logs", run.experiment_id, "--element", "0"])
    assert "the engine 'inline' has no elements, such as '0'" in str(told.exception)
    assert run.wait().rows == 1


# --- what the docs say ------------------------------------------------------------------------------


def test_the_page_runs_as_it_says(slurm: Slurm, tmp_path: Path) -> None:
    done = run_page(PAGES["slurm"], tmp_path, tmp_path / "cache", {"SLURM_CONF": str(slurm.conf)})

    assert done.returncode == 0, done.stderr
    assert "40 rows, 0 errors" in done.stdout


def test_the_example_runs_and_its_plates_obey_the_physics(slurm: Slurm, root: Path) -> None:
    for file in (ROOT / "examples" / "slurm").glob("*.py"):
        shutil.copy(file, file.name)
    words = [sys.executable, "study.py", "--plates", "16", "--elements", "2"]
    done = subprocess.run(words, env=slurm.environment, capture_output=True, text=True, timeout=180, check=False)

    assert done.returncode == 0, done.stderr
    rows = scythe.read("cool")
    assert rows.height == 16
    # What the air takes away is what is brought in, less what leaves at the rim.
    to_air = 2 * rows["air"] * rows["mean"] * (rows["width"] * 41 / 40) ** 2
    assert (to_air < rows["power"]).all()
    assert (to_air > 0.2 * rows["power"]).any()
