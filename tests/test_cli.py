"""The command line says what the library does; an error is one sentence and exit code 1."""

import contextlib
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import cloudpickle
import pytest
import typer
from typer.testing import CliRunner

import scythe
from scythe.allocate import BaseExperiment, ExperimentRun
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.cli import main
from scythe.cli.app import app, names_like
from scythe.cli.shown import bytes_of
from scythe.engines.local import LocalEngine
from scythe.engines.options import EngineName, LocalOptions, SlurmOptions
from scythe.engines.start import options_told
from scythe.errors import AllocationError, SettingsError
from scythe.record.attempts import attempts
from scythe.registry import ExperimentRegistry
from scythe.runs.usage import usage
from scythe.settings import storage

# Worker processes cannot import this module by its name, which pytest made up.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Point(ExperimentInputSpec):
    x: int


class Value(ExperimentOutputSpec):
    y: float


def halve(spec: Point) -> Value:
    if spec.x == 3 and not Path("mended").exists():
        raise ValueError("three cannot be halved")
    return Value(y=spec.x / 2)


def started(n: int, version: str = "bumpmajor") -> ExperimentRun:
    """A run of `n` inputs, of which the fourth fails and ends the process's attempt."""
    ExperimentRegistry.Register(retries=0)(halve)
    specs = [Point(experiment_id="", sort_index=i, x=i) for i in range(n)]
    with contextlib.suppress(ValueError):
        return BaseExperiment(experiment="halve").allocate(specs, version, engine="inline")[0]
    return scythe.open_run("halve")


def allocated(n: int = 5, version: str = "bumpmajor") -> ExperimentRun:
    """The same, gone on with to its end."""
    run = started(n, version)
    result = run.resume(engine="inline").result()
    assert str(result).startswith(f"<RunResult {run.experiment_id}: {result.rows} rows, {result.errors_told} in ")
    assert run.status == "finished"
    return run


def stopped() -> ExperimentRun:
    """A run whose inputs behind the fourth are not done."""
    run = started(5)
    assert run.status == "incomplete"
    return run


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Calls `scythe ...` in this process: exit code, output and error output."""

    def call(*arguments: str, answer: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["scythe", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else 0 if exit_.code is None else 1
        return code, *capsys.readouterr()

    return call


CLI = Callable[..., tuple[int, str, str]]


def test_the_version_is_that_of_the_package(cli: CLI) -> None:
    assert cli("--version")[:2] == (0, f"{scythe.__version__}\n")


def test_listings_come_as_json(root: Path, cli: CLI) -> None:
    allocated()
    assert json.loads(cli("ls", "--json")[1])[0]["name"] == "halve"
    assert json.loads(cli("runs", "halve", "--json")[1])[0]["status"] == "finished"
    assert [row["exception_message"] for row in json.loads(cli("errors", "halve", "--json")[1])] == [
        "three cannot be halved"
    ]


def test_ls_lists_the_experiments(root: Path, cli: CLI) -> None:
    code, out, said = cli("ls")
    assert (code, out) == (1, "")
    assert f"there is no root at {root}" in said
    assert "--root FOLDER" in said
    root.mkdir()
    assert cli("ls") == (0, "no experiments yet\n", f"file://{root}\n")
    allocated()
    allocated(1)

    assert json.loads(cli("ls", "--sizes", "--json")[1])[0]["bytes"] == usage(storage())["total"][0]
    assert " kB" in cli("ls", "--sizes")[1]
    code, out, _ = cli("ls")

    head, row = out.splitlines()
    assert code == 0
    assert head.split() == ["name", "version", "versions", "runs", "run_datetime"]
    assert row.split()[:4] == ["halve", "v2.0.0", "2", "2"]


def test_runs_lists_the_runs_of_an_experiment(root: Path, cli: CLI) -> None:
    first, second = allocated(), allocated(2, "bumpminor")

    code, out, _ = cli("runs", "halve")

    rows = [line.split() for line in out.splitlines()]
    assert code == 0
    assert rows[0] == ["name", "status", "inputs", "rows", "errors", "seconds", "tables"]
    assert rows[1][:5] == [first.experiment_id, "finished", "5", "4", "1"]
    assert rows[2][:5] == [second.experiment_id, "finished", "2", "2", "0"]


def test_a_run_is_found_by_its_tags_and_tells_its_note(root: Path, cli: CLI) -> None:
    allocated()
    noted, _ = BaseExperiment(experiment="halve").allocate(
        [Point(x=0), Point(x=1)], "keep", engine="inline", note="masks fixed", tags=["paper", "draft", "paper"]
    )

    assert (noted.note, noted.tags) == ("masks fixed", ["paper", "draft"])
    assert scythe.list_runs("halve", tag="paper")["note"].to_list() == ["masks fixed"]
    assert [run.experiment_id for run in BaseExperiment(experiment="halve").list_runs(tag="draft")] == [
        noted.experiment_id
    ]
    lines = cli("runs", "halve", "--tag", "paper")[1].splitlines()
    assert len(lines) == 2
    assert lines[1].endswith("paper draft  masks fixed")
    shown = cli("show", noted.experiment_id)[1]
    assert re.search(r"note +masks fixed\n", shown)
    assert re.search(r"tags +paper draft\n", shown)
    assert re.search(r"size +[0-9.]+ kB in \d+ files\n", shown)
    totals = {row["name"]: row["total"] for row in json.loads(cli("du", "halve", "--json")[1])}
    assert f"size     {bytes_of(totals[noted.experiment_id])} in " in shown, "files that have two names count once"
    assert re.search(r"python +3\.\d+.*polars", shown)


@pytest.mark.parametrize("labels",
    [{"note": 5}, {"note": "\ud800"}, {"tags": "paper"}, {"tags": [""]}, {"tags": ["a\nb"]}, {"tags": 5}, {"tags": [[1]]}],
)  # fmt: skip
def test_labels_that_are_none_are_refused(root: Path, labels: dict[str, Any]) -> None:
    ExperimentRegistry.Register()(halve)
    with pytest.raises(AllocationError, match=r"note must|tags=|tags must|a tag must"):
        BaseExperiment(experiment="halve").allocate([Point(x=0)], engine="inline", **labels)


def test_the_tab_key_completes_the_names_of_experiments_and_runs(root: Path) -> None:
    run = allocated()
    assert names_like("ha") == ["halve"]
    assert names_like("halve/v1") == [run.experiment_id]
    assert names_like("x") == names_like("none/v") == []


def test_the_seconds_of_a_run_are_those_of_all_its_attempts(root: Path) -> None:
    run = allocated()
    first = run.result
    assert first is not None
    second = run.retry_errors(engine="local", workers=1).result()
    *earlier, _ = attempts(run.objects, run.key)
    assert all(attempt.worked > 0 for attempt in earlier)
    assert second.seconds > sum(attempt.worked for attempt in earlier) >= first.seconds - 0.1


def test_show_tells_status_counts_slowest_inputs_and_first_errors(root: Path, cli: CLI) -> None:
    run = allocated()

    for name in ("halve", "halve/v1.0.0", run.experiment_id):
        code, out, _ = cli("show", name)

        assert code == 0
        assert out.splitlines()[0] == run.experiment_id
        assert re.search(r"status +finished", out)
        assert re.search(r"inputs +5: 4 rows, 1 error", out)
        assert re.search(r"final/scalars\.pq +4 rows", out)
        slowest = out.split("Slowest inputs")[1].split("\nErrors")[0].split("\n")
        assert {line.split()[0] for line in slowest[2:] if line} == {"0", "1", "2", "3", "4"}
        assert "1 (20%), input 3 the first: ValueError: three cannot be halved" in out.split("\nErrors")[1]


def test_show_tells_what_an_unfinished_run_has_so_far(root: Path, cli: CLI) -> None:
    stopped()

    code, out, _ = cli("show", "halve")

    assert code == 0
    assert re.search(r"status +incomplete", out)
    assert re.search(r"inputs +5: 3 rows, 1 error", out)
    assert "three cannot be halved" in out


def test_resume_runs_the_rest_and_says_what_it_came_to(root: Path, cli: CLI) -> None:
    run = stopped()

    code, out, _ = cli("resume", run.experiment_id)

    assert (code, out) == (0, f"{run.experiment_id}: 4 rows, 1 error\n")
    assert run.status == "finished"


def test_resume_with_errors_runs_what_failed_as_well(root: Path, cli: CLI) -> None:
    run = allocated()
    Path("mended").touch()

    assert cli("resume", run.experiment_id)[:2] == (0, f"{run.experiment_id}: 4 rows, 1 error\n")
    assert cli("resume", run.experiment_id, "--errors")[:2] == (0, f"{run.experiment_id}: 5 rows, 0 errors\n")
    code, _, err = cli("resume", run.experiment_id, "--engine", "slrum")
    assert (code, err.partition(":")[0]) == (1, "scythe")
    assert "there is no engine 'slrum'" in err, "though it is finished"
    assert "has no elements" in cli("logs", run.experiment_id, "--element", "3")[2]
    assert scythe.read("halve")["y"].to_list() == [0.0, 0.5, 1.0, 1.5, 2.0]


def test_a_command_offers_the_engines_that_there_are(root: Path, cli: CLI) -> None:
    run = allocated()
    engines = re.findall(r"'(\w+)'", cli("resume", run.experiment_id, "--engine", "slrum")[2].partition("use ")[2])
    own = [name for name in engines if name in get_args(EngineName)]
    commands = vars(typer.main.get_command(app))["commands"].values()
    helps = [option.help for command in commands for option in command.params if "--engine" in option.opts]
    assert len(own) == len(get_args(EngineName))
    assert helps
    for told in helps:
        assert ", ".join(own) in told


def test_resume_goes_on_where_it_is_told_to_with_the_options_that_it_is_told(
    root: Path, cli: CLI, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    start = LocalEngine.start
    monkeypatch.setattr(LocalEngine, "start", lambda engine, work: given.append(work.options) or start(engine, work))
    run = stopped()
    assert cli("resume", run.experiment_id, "--engine", "local", "--option", "workers=1")[0] == 0
    assert (run.status, run.attempts[-1].engine) == ("finished", "local")
    assert given == [LocalOptions(workers=1)]


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("wokers=2", "no option of the engine 'local' (did you mean 'workers'?)"),
        ("workers", "write NAME=VALUE"),
        ("workers=many", "workers='many'"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_before_anything_is_done(
    root: Path, cli: CLI, option: str, said: str
) -> None:
    run = stopped()
    code, _, err = cli("resume", run.experiment_id, "--engine", "local", "--option", option)
    assert code == 1
    assert said in err
    assert run.status == "incomplete"


def test_options_as_texts_are_those_that_the_same_values_make() -> None:
    told = ["mem=32G", "cpus=4", "time=2:00:00", 'setup=["module load energyplus"]', 'sbatch={"exclude": "n=1"}']
    made = SlurmOptions(mem="32G", cpus=4, time="2:00:00", setup=("module load energyplus",), sbatch={"exclude": "n=1"})
    assert options_told("slurm", told) == made
    assert options_told("slurm", told[:1]).model_fields_set == {"mem"}
    with pytest.raises(SettingsError, match="is no JSON"):
        options_told("slurm", ["setup=module load energyplus"])
    with pytest.raises(SettingsError, match="it has none"):
        options_told("inline", ["mem=32G"])


def test_delete_asks_first(root: Path, cli: CLI) -> None:
    run = allocated()

    code, out, err = cli("delete", run.experiment_id, answer="n\n")

    assert code == 1
    assert run.experiment_id in out
    assert "all its files" in out
    assert "Traceback" not in err
    assert scythe.read("halve").height == 4
    code, out, err = cli("delete", run.experiment_id, answer="")  # as where there is no terminal
    assert code == 1
    assert "nobody has answered, and nothing is deleted: --yes deletes without asking" in out + err
    assert scythe.read("halve").height == 4
    assert cli("delete", run.experiment_id, answer="y\n")[0] == 0
    assert not (root / run.key.path).exists()


def test_delete_with_yes_does_not_ask_and_removes_the_rows(root: Path, cli: CLI) -> None:
    first, second = allocated(), allocated(2, "keep")

    assert cli("delete", "-y", first.experiment_id)[:2] == (0, f"deleted {first.experiment_id}\n")

    assert not (root / first.key.path).exists()
    assert scythe.read("halve", run="all").height == 2
    assert cli("show", first.experiment_id)[0] == 1
    assert second.status == "finished"


def test_delete_wants_the_whole_name_of_a_run(root: Path, cli: CLI) -> None:
    allocated()

    code, _, err = cli("delete", "-y", "halve")

    assert code == 2
    assert "experiment/version/datetime" in err
    assert scythe.read("halve").height == 4


def test_rebuild_names_each_run_and_counts_them(root: Path, cli: CLI) -> None:
    first, second = allocated(), stopped()

    code, out, _ = cli("rebuild")

    assert code == 0
    assert out.splitlines()[:2] == [f"{first.experiment_id}: finished", f"{second.experiment_id}: incomplete"]
    assert out.splitlines()[2].startswith("2 runs are in the catalog of file://")
    assert scythe.read("halve", "v1.0.0").height == 4


@pytest.mark.parametrize(
    "arguments",
    [
        ["runs", "nothing"], ["show", "nothing"], ["resume", "nothing"], ["show", "halve/v7.0.0"], ["show", "halve/no"],
        ["show", "halve/v1.0.0/2020-01-01_00-00-00"], ["delete", "-y", "halve/v1.0.0/2020-01-01_00-00-00"],
    ],
)  # fmt: skip
def test_what_is_not_there_is_one_sentence_and_exit_code_1(root: Path, cli: CLI, arguments: list[str]) -> None:
    allocated(1)

    code, out, err = cli(*arguments)

    assert (code, out) == (1, "")
    assert err.startswith("scythe: ")
    assert len(err.splitlines()) == 1
    assert "Traceback" not in err


def test_a_root_that_is_a_file_is_one_sentence_too(root: Path, cli: CLI) -> None:
    Path("file").touch()

    code, _, err = cli("--root", "file", "ls")

    assert code == 1
    assert err.startswith("scythe: ")
    assert "file" in err
    assert len(err.splitlines()) == 1


def test_the_installed_command_takes_another_root(root: Path) -> None:
    allocated(1)
    command = [str(Path(sys.executable).parent / "scythe"), "--root"]

    here = subprocess.run([*command, str(root), "ls"], capture_output=True, text=True, timeout=60, check=False)
    elsewhere = subprocess.run(
        [*command, "empty", "show", "halve"], capture_output=True, text=True, timeout=60, check=False
    )

    assert (here.returncode, here.stderr) == (0, f"file://{root}\n")
    assert "halve" in here.stdout
    assert (elsewhere.returncode, elsewhere.stdout) == (1, "")
    assert elsewhere.stderr.startswith("scythe: there is no experiment 'halve'")
    assert len(elsewhere.stderr.splitlines()) == 1


def test_the_root_may_be_a_bucket(bucket: str, cli: CLI, monkeypatch: pytest.MonkeyPatch) -> None:
    allocated()
    monkeypatch.setenv("SCYTHE_STORAGE_BUCKET", "")

    assert "halve" in cli("--root", f"s3://{bucket}/scythe", "ls")[1]
    assert cli("--root", f"s3://{bucket}/elsewhere", "ls")[1] == "no experiments yet\n"


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("SCYTHE_STORAGE_ROOT", "s3://mine/scythe", "name a bucket with SCYTHE_STORAGE_BUCKET"),
        ("SCYTHE_STORAGE_BUCKET", "s3://mine", "give the bucket's name alone"),
    ],
)
def test_a_uri_in_place_of_a_folder_or_a_name_is_refused(
    setting: str, value: str, said: str, root: Path, cli: CLI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(setting, value)

    code, _, error = cli("ls")

    assert code == 1
    assert said in error
    assert not list(Path.cwd().iterdir())


def test_a_version_whose_allocation_was_killed_does_not_stand_before_the_others(root: Path, cli: CLI) -> None:
    allocated()
    (root / "halve" / "v2.0.0" / "2026-01-01_00-00-00").mkdir(parents=True)  # as a killed process leaves it

    assert cli("show", "halve")[1].startswith("halve/v1.0.0/")
    assert cli("ls")[1].splitlines()[1].split()[:2] == ["halve", "v1.0.0"]
    assert scythe.read("halve").height == 4


def test_resume_finds_the_module_beside_the_script_also_in_its_worker_processes(root: Path) -> None:
    folder = Path.cwd() / "project"
    folder.mkdir()
    (folder / "quarters.py").write_text(
        "from pathlib import Path\n"
        "from scythe import ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry\n"
        "class Point(ExperimentInputSpec):\n    x: int\n"
        "class Value(ExperimentOutputSpec):\n    y: float\n"
        "@ExperimentRegistry.Register(retries=0)\n"
        "def quarter(spec: Point) -> Value:\n"
        "    if not Path(__file__).with_name('mended').exists():\n        raise ValueError('not yet')\n"
        "    return Value(y=spec.x / 4)\n"
    )
    (folder / "study.py").write_text(
        "import polars as pl\n"
        "from quarters import quarter\n"
        "from scythe import BaseExperiment\n"
        "BaseExperiment(quarter).allocate(pl.DataFrame({'x': [1, 2]}), engine='local')[1].result()\n"
    )
    subprocess.run([sys.executable, folder / "study.py"], check=True, capture_output=True)
    (folder / "mended").touch()

    resume = [sys.executable, "-c", "from scythe.cli import main; main()", "resume", "quarter", "--errors"]
    done = subprocess.run(resume, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert scythe.read("quarter")["y"].to_list() == [0.25, 0.5]


def test_a_root_that_cannot_be_written_is_an_allocation_error(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("file").touch()
    monkeypatch.setenv("SCYTHE_STORAGE_ROOT", "file/root")

    with pytest.raises(AllocationError, match=r"the root .* cannot be written"):
        allocated()


def test_the_help_lists_all_commands_with_whole_sentences() -> None:
    shown = CliRunner().invoke(app, ["--help"]).output
    listed = shown.partition("Commands:")[2]

    assert {c.name for c in app.registered_commands} == set(re.findall(r"(?m)^  (\w+)  ", listed))
    assert "..." not in listed
    assert listed.index("  try  ") < listed.index("  show  ") < listed.index("  rebuild  ")
