"""Two type checkers, in their strictest modes, over a user's project: they take what is right, and refuse what is wrong.

`project` is right. In each program of `wrong` the lines that end in `# refused` are wrong, and no others. All are checked as one
project, by one process of each checker.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
RIGHT = sorted((HERE / "project").glob("*.py"))
WRONG = sorted((HERE / "wrong").glob("*.py"))

#: What a checker says: file -> line -> what is wrong there.
Found = Mapping[str, Mapping[int, str]]


def test_there_are_enough_wrong_programs() -> None:
    assert len(WRONG) >= 10


@pytest.mark.parametrize("checker", ["pyright", "mypy"])
@pytest.mark.parametrize("program", [path.stem for path in RIGHT])
def test_a_project_that_is_right_is_taken(program: str, checker: str, found: Callable[[str], Found]) -> None:
    assert found(checker).get(program, {}) == {}


@pytest.mark.parametrize("checker", ["pyright", "mypy"])
@pytest.mark.parametrize("program", [path.stem for path in WRONG])
def test_a_program_that_is_wrong_is_refused_at_its_line(
    program: str, checker: str, found: Callable[[str], Found]
) -> None:
    lines = (HERE / "wrong" / f"{program}.py").read_text().splitlines()
    wrong = [number for number, line in enumerate(lines, 1) if line.endswith("# refused")]
    assert wrong
    assert sorted(found(checker).get(program, {})) == wrong, found(checker).get(program)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Found]:
    """What each checker finds in all programs, in a folder that holds them and nothing else."""
    folder = tmp_path_factory.mktemp("project")
    for path in (*RIGHT, *WRONG):
        shutil.copy(path, folder)
    (folder / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
    known: dict[str, Found] = {}

    def ask(checker: str) -> Found:
        if checker not in known:
            known[checker] = _pyright(folder) if checker == "pyright" else _mypy(folder)
        return known[checker]

    return ask


def _pyright(folder: Path) -> Found:
    told = json.loads(_run(folder, "pyright", "--pythonpath", sys.executable, "--outputjson"))
    assert told["summary"]["filesAnalyzed"] == len(RIGHT) + len(WRONG)
    found: dict[str, dict[int, str]] = {}
    for one in told["generalDiagnostics"]:
        found.setdefault(Path(one["file"]).stem, {})[one["range"]["start"]["line"] + 1] = one["message"]
    return found


def _mypy(folder: Path) -> Found:
    told = _run(folder, "mypy", "--strict", "--cache-dir", os.devnull, "--python-executable", sys.executable, ".")
    assert f"(checked {len(RIGHT) + len(WRONG)} source files)" in told, told
    found: dict[str, dict[int, str]] = {}
    for file, line, message in re.findall(r"^(.+?)\.py:(\d+): error: (.+)$", told, re.M):
        found.setdefault(file, {})[int(line)] = message
    return found


def _run(folder: Path, name: str, *arguments: str) -> str:
    command = [str(Path(sys.executable).with_name(name)), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout
