"""Definitions that come again: a module that is edited and reloaded, that two names load, a second function of one name."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl
import pytest

import scythe
from scythe.allocate import BaseExperiment
from scythe.errors import InputError, NotFoundError, RegistrationError
from scythe.registry import ExperimentRegistry, experiment_of

MODULE = """
from scythe import ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry

class Wall(ExperimentInputSpec):
    x: int

class Loss(ExperimentOutputSpec):
    y: int

@ExperimentRegistry.Register()
def lose(spec: Wall) -> Loss:
    return Loss(y=FACTOR * spec.x)
"""
ONE = pl.DataFrame({"x": [1]})


@pytest.fixture
def walls(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module in a package, which lies in the working folder."""
    Path("house").mkdir()
    Path("house/__init__.py").touch()
    Path("house/walls.py").write_text(MODULE.replace("FACTOR", "2"))
    monkeypatch.syspath_prepend(str(Path.cwd()))
    yield importlib.import_module("house.walls")
    for name in ("house", "house.walls", "walls"):
        sys.modules.pop(name, None)


def edited(walls: ModuleType) -> None:
    """The module, changed and loaded anew: its function stands on another line then."""
    Path("house/walls.py").write_text("# edited\n\n" + MODULE.replace("FACTOR", "300"))
    importlib.reload(walls)


def test_a_module_that_is_edited_and_reloaded_gives_its_new_function(walls: ModuleType) -> None:
    edited(walls)
    BaseExperiment(walls.lose).allocate([walls.Wall(x=1)], engine="inline")[1].result()
    assert scythe.read("lose")["y"].to_list() == [300]


def test_what_is_left_of_the_module_before_is_refused_and_the_way_out_told(walls: ModuleType) -> None:
    before, wall = walls.lose, walls.Wall(x=1)
    edited(walls)
    with pytest.raises(
        NotFoundError, match=r"lose has been defined anew since.*from house\.walls import lose once more"
    ):
        BaseExperiment(before)
    with pytest.raises(InputError, match=r"the first a Wall.*from house\.walls import Wall once more"):
        BaseExperiment(walls.lose).allocate([wall], engine="inline")


def test_a_file_that_two_names_load_is_told(walls: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path("house").absolute()))
    again = importlib.import_module("walls")
    told = r"walls\.py is loaded under two names, house\.walls and walls, so that there are two of {}"
    with pytest.raises(NotFoundError, match=told.format("lose")):
        BaseExperiment(walls.lose)
    with pytest.raises(InputError, match=told.format("Wall")):
        BaseExperiment(again.lose).allocate([walls.Wall(x=1)], engine="inline")


def test_two_functions_of_one_name_in_one_file_are_refused(walls: ModuleType) -> None:
    text = MODULE.replace("FACTOR", "2")
    Path("house/walls.py").write_text(text + text[text.index("\n@Exp") :])
    with pytest.raises(RegistrationError, match="'lose' is registered already"):
        importlib.reload(walls)


def test_another_function_has_no_twin(walls: ModuleType) -> None:
    def lose() -> None: ...

    with pytest.raises(NotFoundError, match="'lose' is not a registered experiment: put @ExperimentRegistry"):
        experiment_of(lose)


def test_functions_that_another_one_has_made_are_not_taken_for_one_another(walls: ModuleType) -> None:
    def made(factor: int) -> Any:
        def times(spec: Any) -> Any:
            return walls.Loss(y=factor * spec.x)

        times.__annotations__ = {"spec": walls.Wall, "return": walls.Loss}
        return times

    first, second, third = made(1), made(2), made(3)
    for name, function in (("a", first), ("b", second)):
        ExperimentRegistry.Register(name=name)(function)
    assert [experiment_of(first).name, experiment_of(second).name] == ["a", "b"]
    with pytest.raises(NotFoundError, match="'times' is not a registered experiment"):
        experiment_of(third)


def test_functions_below_one_decorator_are_not_taken_for_one_another(walls: ModuleType) -> None:
    Path("house/timed.py").write_text(
        "import functools\nfrom scythe import ExperimentRegistry\nfrom house.walls import Wall, Loss\n"
        "def timed(f):\n    @functools.wraps(f)\n    def w(*a, **k): return f(*a, **k)\n    return w\n"
        "@ExperimentRegistry.Register()\n@timed\ndef first(spec: Wall) -> Loss: return Loss(y=1)\n"
        "@timed\ndef second(spec: Wall) -> Loss: return Loss(y=2)\n"
        "@timed\n@ExperimentRegistry.Register()\ndef third(spec: Wall) -> Loss: return Loss(y=3)\n"
    )
    timed = importlib.import_module("house.timed")
    assert experiment_of(timed.first).name == "first"
    with pytest.raises(NotFoundError, match="'second' is not a registered experiment"):
        experiment_of(timed.second)
    with pytest.raises(NotFoundError, match="third is decorated once more after it was registered: put @Exp"):
        experiment_of(timed.third)
    sys.modules.pop("house.timed")


def test_a_notebook_with_autoreload_runs_what_its_file_says(walls: ModuleType) -> None:
    """Functions that a cell has imported before are updated in place there."""
    script = (
        "import os, sys; from pathlib import Path\n"
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "shell = InteractiveShell.instance()\n"
        "shell.run_line_magic('load_ext', 'autoreload'); shell.run_line_magic('autoreload', '2')\n"
        "run = '''BaseExperiment(lose).allocate(pl.DataFrame({'x': [1]}), engine='inline')[1].result()'''\n"
        "def cell(text): shell.run_cell(text).raise_error()\n"
        "cell('import polars as pl; from scythe import BaseExperiment; from house.walls import lose')\n"
        "cell(run)\n"
        "file = Path('house/walls.py')\n"
        "file.write_text('# edited\\n\\n' + file.read_text().replace('2 *', '300 *'))\n"
        "os.utime(file, (2**31, 2**31))\n"
        "cell(run)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
    assert scythe.read("lose", "all", run="all")["y"].sort().to_list() == [2, 300]
