"""Where the code of a run comes from when it is resumed: never from where only the root says that it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import scythe
from scythe.runs.run import ExperimentRun

STUDY = """
from pathlib import Path
import polars as pl
from scythe import BaseExperiment, ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry


class Point(ExperimentInputSpec):
    x: int


class Value(ExperimentOutputSpec):
    y: float


Path("{trace}").open("a").write(__name__ + "\\n")


@ExperimentRegistry.Register(retries=0)
def third(spec: Point) -> Value:
    if not Path("{trace}").with_name("mended").exists():
        raise ValueError("not yet")
    return Value(y=spec.x / 3)


if __name__ == "__main__":
    BaseExperiment(third).allocate(pl.DataFrame({{"x": [3, 6]}}), workers=1)[1].result()
"""


def ran(tmp_path: Path, script: Path) -> ExperimentRun:
    """A run whose inputs all failed, started by a script of this place; what loaded it is in `trace`."""
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(STUDY.format(trace=tmp_path / "trace"))
    subprocess.run([sys.executable, script], check=True, capture_output=True, timeout=100)
    (tmp_path / "trace").unlink()
    (tmp_path / "mended").touch()
    return scythe.open_run("third")


def resume(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """`scythe resume third --errors`, from the working folder."""
    program = [sys.executable, "-c", "from scythe.cli import main; main()", "resume", "third", "--errors"]
    return subprocess.run([*program, *arguments], capture_output=True, text=True, timeout=100, check=False)


def test_a_script_elsewhere_is_not_run_because_the_root_names_it(root: Path, tmp_path: Path) -> None:
    ran(tmp_path, tmp_path / "elsewhere" / "study.py")
    done = resume()
    assert done.returncode == 1
    assert "scythe: the experiment 'third' of third/v1.0.0/" in done.stderr
    assert "module_or_file.py" in done.stderr
    assert not (tmp_path / "trace").exists()


def test_a_script_in_the_root_is_not_run_even_from_above_the_root(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran(tmp_path, root / "third" / "study.py")
    monkeypatch.chdir(tmp_path)
    assert resume().returncode == 1
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("moved", [False, True], ids=["where it was", "moved"])
def test_a_script_that_is_named_is_run_wherever_it_is(root: Path, tmp_path: Path, moved: bool) -> None:
    script = tmp_path / "elsewhere" / "study.py"
    run = ran(tmp_path, script)
    if moved:
        script = script.rename(tmp_path / "renamed.py")
    done = resume(script)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{run.experiment_id}: 2 rows, 0 errors\n"
    assert scythe.read("third")["y"].to_list() == [1.0, 2.0]


def test_a_script_below_the_working_folder_is_found(root: Path, tmp_path: Path) -> None:
    ran(tmp_path, Path.cwd() / "code" / "study.py")
    done = resume()
    assert done.returncode == 0, done.stderr


def test_a_module_that_does_not_define_the_function_is_refused(root: Path, tmp_path: Path) -> None:
    ran(tmp_path, tmp_path / "elsewhere" / "study.py")
    done = resume("json")
    assert done.returncode == 1
    assert "json registers no experiment 'third'" in done.stderr


def test_a_script_without_a_guard_is_named_and_its_run_is_said_to_be_safe(root: Path, tmp_path: Path) -> None:
    script = Path.cwd() / "unguarded.py"
    ran(tmp_path, script)
    script.write_text(script.read_text().replace('if __name__ == "__main__":', "if True:"))
    said = resume()
    assert said.returncode == 1
    assert "unguarded.py is only being loaded" in said.stderr
    assert "put its allocation under `if __name__" in said.stderr
    assert "is safe" in said.stderr
