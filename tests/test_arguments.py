"""What modules make of the arguments of the program is the same in all processes of a run, or refused by name; and it is part of the code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import scythe
from scythe.define.sources.arguments import Arguments

MODELS = """
import sys
from scythe import BaseExperiment, ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry

class In(ExperimentInputSpec):
    x: int

class Out(ExperimentOutputSpec):
    y: int
"""
FUNCTION = """
@ExperimentRegistry.Register()
def scaled(spec: In) -> Out:
    return Out(y=spec.x * CELLS)
"""
PROGRAM = """
import scythe

if __name__ == "__main__":
    more = {"reuse": True, "version": "keep"} if "--reuse" in sys.argv else {}
    try:
        run, ref = BaseExperiment(scaled).allocate([In(x=1), In(x=2)], engine=sys.argv[1], **more)
        ref.result()
    except scythe.ScytheError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    print(scythe.read("scaled")["y"].to_list())
"""
FINE = 'CELLS = 100 if "--fine" in sys.argv else 10\n'


@pytest.fixture
def project(root: Path, tmp_path: Path) -> Path:
    """A script that defines its experiment itself, and one whose experiment is in a module of its own."""
    (tmp_path / "own.py").write_text(MODELS + FINE + FUNCTION + PROGRAM)
    (tmp_path / "grid.py").write_text("import sys\n" + FINE)
    (tmp_path / "study.py").write_text(f"from grid import CELLS\n{MODELS}{FUNCTION}")
    (tmp_path / "other.py").write_text(f"import sys\nfrom study import BaseExperiment, In, scaled\n{PROGRAM}")
    (tmp_path / "asking.py").write_text(MODELS + FUNCTION.replace("CELLS", '(10 + ("--fine" in sys.argv))') + PROGRAM)
    return tmp_path


def ran(project: Path, script: str, *arguments: str) -> str:
    """What a program printed, and what it said of an error."""
    command = [sys.executable, script, *arguments]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=200, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return (done.stdout + done.stderr * (done.returncode != 0)).strip()


@pytest.mark.parametrize("engine", ["inline", "local"])
def test_what_a_module_makes_of_the_arguments_is_the_same_in_worker_processes(project: Path, engine: str) -> None:
    assert ran(project, "own.py", engine, "--fine") == "[100, 200]"
    assert ran(project, "other.py", engine, "--fine") == "[100, 200]"
    assert ran(project, "other.py", engine) == "[10, 20]"
    assert ran(project, "asking.py", engine, "--fine") == "[11, 22]"


@pytest.mark.parametrize(
    ("script", "value"), [("own.py", "CELLS"), ("other.py", "study.CELLS"), ("asking.py", "sys.argv")]
)
def test_workers_elsewhere_have_no_arguments_and_what_hangs_on_them_is_refused(
    project: Path, script: str, value: str
) -> None:
    said = ran(project, script, "hatchet", "--fine")
    assert said.startswith("AllocationError: scaled reads values that its workers would not have"), said
    assert f"{value} is " in said
    assert "by the arguments of this program" in said
    if value != "sys.argv":  # which it reads whole
        assert "SettingsError" in ran(project, script, "hatchet"), (
            "without --fine there is nothing to refuse but the settings"
        )


@pytest.mark.parametrize(("script", "value"), [("own.py", "CELLS"), ("other.py", "study.CELLS")])
def test_rows_that_other_arguments_made_are_not_taken_over(project: Path, script: str, value: str) -> None:
    assert ran(project, script, "inline", "--fine") == "[100, 200]"
    assert f"they differ in the value {value}" in ran(project, script, "local", "--reuse")
    assert ran(project, script, "inline", "--reuse", "--fine", "--another").endswith("[100, 200]")


def test_a_script_that_is_gone_on_with_from_the_command_line_is_not_given_the_commands_arguments(project: Path) -> None:
    (project / "failing.py").write_text(
        (project / "own.py")
        .read_text()
        .replace(FINE, "CELLS = 10 * len(sys.argv)\n")
        .replace("return Out", 'if spec.x == 2 and CELLS > 10:\n        raise ValueError("fine")\n    return Out')
    )
    assert ran(project, "failing.py", "local", "--fine") == "[30]"
    command = [sys.executable, "-m", "scythe.cli", "resume", "scaled", "failing.py", "--errors"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=200, check=False)
    assert "they differ in the value CELLS" in done.stderr, done
    assert scythe.read("scaled")["y"].to_list() == [30, 20]


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("X = sys.argv[1]", {"X"}),
        ("X = len(sys.argv) > 2", {"X"}),
        ("from sys import argv\nX = argv[1:]", {"X"}),
        ("HERE = sys.argv[0]", set()),
        (
            "parser = argparse.ArgumentParser()\nargs = parser.parse_args()\nK = args.k * 2\nL = 3",
            {"parser", "args", "K"},
        ),
        ("def parsed():\n    return argparse.ArgumentParser().parse_args()\nargs = parsed()", {"args"}),
        ("if '-v' in sys.argv:\n    K = 1\nelse:\n    K = 2\nL = 3", {"K"}),
        ("TABLE = {}\nfor one in sys.argv[1:]:\n    TABLE[one] = 1", {"one", "TABLE"}),
        ("K = 1\nwhile sys.argv:\n    try:\n        K += 1\n    except ValueError:\n        L = 2", {"K", "L"}),
        ("match sys.argv[1]:\n    case 'a':\n        K = 1", {"K"}),
        ("SETTINGS = {}\nSETTINGS.update(k=sys.argv[1])", {"SETTINGS"}),
        ("class Case:\n    k = sys.argv[1]\n    l = 2\nM = Case.k\nN = Case.l", {"Case.k", "M"}),
        ("def setup():\n    global K\n    K = sys.argv[1]\nsetup()", {"K"}),
        ("class Case:\n    pass\nCase.k = sys.argv[1]", {"Case"}),
        ("import elsewhere\nK = elsewhere.K\nL = elsewhere.L", {"K"}),
        ("from elsewhere import K as MINE, L\nM = MINE + 1", {"MINE", "M"}),
        ("from elsewhere import *\nM = K", {"K", "M"}),
        (
            "def main():\n    args = argparse.ArgumentParser().parse_args()\nif __name__ == '__main__':\n    K = sys.argv",
            set(),
        ),
        ("import click\n@click.command()\ndef main():\n    pass\nK = 1", set()),
    ],
)
def test_the_names_that_are_made_of_arguments_are_told_by_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, names: set[str]
) -> None:
    modules: dict[str, ModuleType] = {}
    for name, text in (
        ("elsewhere", "import sys\nK = sys.argv[1]\nL = 1\n"),
        ("argued", f"import argparse, sys\n{source}\n"),
    ):
        (tmp_path / f"{name}.py").write_text(text)
        modules[name] = module = ModuleType(name)  # it is read alone, and never run
        module.__file__ = str(tmp_path / f"{name}.py")
        monkeypatch.setitem(sys.modules, name, module)
    vars(modules["argued"])["elsewhere"] = modules["elsewhere"]
    assert Arguments().within(modules["argued"]) == names
