"""The examples run as their READMEs say, and what they find is right. That of the cluster has a test in `tests/hatchet`."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest

import scythe

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
_SECONDS = 200


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root for what the examples run, and for what the tests read of it."""
    for name in ("SCYTHE_STORAGE_BUCKET", "SCYTHE_ENGINE", "SCYTHE_CATALOG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(tmp_path / "root"))
    return tmp_path / "root"


def run_example(name: str, folder: Path, *options: str) -> str:
    """What its `main.py` prints, run in another folder."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / name / "main.py", *options],
        cwd=folder, capture_output=True, text=True, check=False, timeout=_SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def is_picture(path: Path) -> bool:
    return path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 20_000


def test_pv_yield_runs_and_draws(root: Path, tmp_path: Path) -> None:
    shown = run_example("pv_yield", tmp_path, "--n", "8", "--engine", "inline")
    assert "8 simulations" in shown
    assert "0 errors" in shown
    assert is_picture(tmp_path / "pv_yield.png")
    assert scythe.read("pv_yield")["specific_yield"].is_between(400, 2500).all()


# --- the surrogate --------------------------------------------------------------------------------

SMALL = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import main
main.BATCH, main.HELD_OUT, main.CANDIDATES, main.ROUNDS = 12, 30, 200, 5
main.main()
"""


def test_a_surrogate_grows_until_it_is_good_enough_and_goes_on_where_it_was_killed(root: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-c", SMALL, str(EXAMPLES / "surrogate"), "--seeds", "1", "--threshold", "25", "--engine", "inline"]  # fmt: skip
    with subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}) as first:  # fmt: skip
        assert first.stdout is not None
        while "  24 simulations" not in first.stdout.readline():
            assert first.poll() is None
        first.kill()
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    rounds = [line.split() for line in done.stdout.splitlines() if line.startswith("least known")]
    errors = [float(words[-2]) for words in rounds]
    assert len(rounds) >= 2
    assert errors[-1] < 25 or len(rounds) == 5
    assert "lower than with random growth" in done.stdout
    assert is_picture(tmp_path / "surrogate.png")
    ran = scythe.read("roof", run="all", table="tasks").filter(pl.col("reused_from").is_null()).height
    assert ran == scythe.read("roof", run="all", distinct=True).height, "no system was simulated twice"


# --- the epidemic --------------------------------------------------------------------------------


def test_epidemics_reach_as_many_as_the_closed_form_says_and_those_below_the_threshold_fail(
    root: Path, tmp_path: Path
) -> None:
    shown = run_example("epidemic", tmp_path, "--n", "40")
    assert is_picture(tmp_path / "epidemic.png")
    table, errors = scythe.read("epidemic"), scythe.read("epidemic", table="errors")
    assert table.height + errors.height == 40
    assert f"{errors.height} errors: NoOutbreak" in shown
    assert errors.height > 0
    assert errors["r_start"].max() <= 1 < table["r_start"].min()  # type: ignore[operator]

    r0, immune, attack = (table[name].to_numpy() for name in ("r0", "immune", "attack_rate"))
    spared = np.log((1 - immune - attack) / (1 - immune - table["seed_cases"].to_numpy()))
    assert spared == pytest.approx(-r0 * attack, abs=1e-4)

    curve = scythe.read("epidemic", table="curve")
    people = curve.select(pl.sum_horizontal("susceptible", "exposed", "infectious", "removed")).to_series()
    assert people.to_numpy() == pytest.approx(1, abs=1e-6)
    assert curve.height == table.height * 122


def test_the_notebook_of_the_epidemic_runs_from_its_first_cell_to_its_last(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nbclient
    import nbformat

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([*sys.path, os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(EXAMPLES / "epidemic" / "epidemic.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "clear its outputs: they name a machine"
    place = {"metadata": {"path": str(EXAMPLES / "epidemic")}}
    nbclient.NotebookClient(notebook, timeout=_SECONDS, resources=place).execute()
    assert [o for cell in notebook.cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    assert (scythe.read("epidemic").height, scythe.read("epidemic", table="errors").height) == (27, 14)


# --- the external program ------------------------------------------------------------------------


def test_the_files_of_a_program_become_outputs_and_what_it_says_at_its_end_an_error(root: Path, tmp_path: Path) -> None:
    shown = run_example("external_program", tmp_path, "--n", "20")
    rooms, errors = scythe.read("room"), scythe.read("room", table="errors")
    assert rooms.height + errors.height == 20
    too_large = errors.filter(pl.col("window_area") > 12)
    assert too_large.height > 0
    assert too_large["exception_message"].str.contains(r"(?s)exit code 2.*\*\* FATAL \*\* windows of .* m2").all()
    (endless,) = errors.filter(pl.col("gain") > 40)["exception_message"]
    assert "took longer than 2 s and was killed\n  | room.py 3.1" in endless
    assert "was killed" in shown
    assert set(errors["exception_type"].str.split(".").list.last()) == {"ProgramFailed", "ProgramTimeout"}

    for row in scythe.files("room").iter_rows(named=True):
        hourly, log = (Path(row[name].removeprefix("file://")) for name in ("hourly", "log"))
        assert log.read_text().endswith("done\n")
        assert pl.read_csv(hourly).height == 72
    warm = rooms.filter(pl.col("heater") > 500)["coldest"]
    assert warm.len() > 0
    assert warm.is_between(19.9, 20.1).all()


@pytest.fixture
def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("program", EXAMPLES / "external_program" / "program.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def ended(tmp_path: Path) -> Callable[[], None]:
    """Waits until all processes that have opened the pipe `alive` are gone."""
    os.mkfifo(tmp_path / "alive")
    end = os.open(tmp_path / "alive", os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(end, True)

    def wait() -> None:
        while os.read(end, 1000):
            pass
        os.close(end)

    return wait


#: A program that starts another one, and leaves it behind or waits for it.
LEAVES, WAITS = (f"exec 9>alive; echo here >&9; sleep 300 & echo $! started; {end}" for end in ("true", "wait"))


def test_a_program_that_takes_too_long_ends_with_all_that_it_has_started(
    program: Any, tmp_path: Path, ended: Callable[[], None]
) -> None:
    with pytest.raises(program.ProgramTimeout, match=r"longer than 0\.5 s and was killed\n  \| \d+ started$"):
        program.run_program(["/bin/sh", "-c", WAITS], tmp_path, 0.5)
    ended()


def test_what_a_program_leaves_behind_ends_with_it_and_its_log_is_kept(
    program: Any, tmp_path: Path, ended: Callable[[], None]
) -> None:
    log = program.run_program(["/bin/sh", "-c", LEAVES], tmp_path, 60)
    ended()
    assert log.read_text().endswith(" started\n")


def test_a_program_ends_when_the_process_that_called_it_is_killed(tmp_path: Path, ended: Callable[[], None]) -> None:
    code = f"from program import run_program; import pathlib; run_program(['/bin/sh', '-c', {WAITS!r}], pathlib.Path(), 300)"
    caller = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(EXAMPLES / "external_program")}
    )
    with (tmp_path / "alive").open() as alive:
        assert alive.readline() == "here\n"
    caller.send_signal(signal.SIGKILL)
    caller.wait()
    ended()


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("exit 3", r"sh ended with exit code 3, and printed nothing"),
        ("kill -SEGV $$", r"sh ended with signal SIGSEGV"),
        ("seq 9; exit 1", r"exit code 1\n  \| 5\n  \| 6\n  \| 7\n  \| 8\n  \| 9$"),
        (r"printf 'caf\351'; exit 1", r"caf\ufffd"),
    ],
)
def test_how_a_program_ended_and_what_it_printed_last_is_told(
    program: Any, tmp_path: Path, script: str, told: str
) -> None:
    with pytest.raises(program.ProgramFailed, match=told):
        program.run_program(["/bin/sh", "-c", script], tmp_path, 60)
