"""The docstring of each public name stands alone: a sentence, each parameter, what is raised, and an example that runs.

Public are the names of the modules that users import from, and what their classes answer to. An example runs as a reader
would type it, in an empty folder and an empty root, with these names at hand:

- `scythe`, `pl` (Polars) and `Path`;
- `BuildingInput` (`r_value` [m2K/W], in (0, 15], and `setpoint`, 20 by default) and `BuildingOutput` (`heating`, and a file `hourly`);
- `simulate_energy`, which is registered: `heating` is 80 / `r_value`, the file is a table of 24 rows, and the dataframe
  `monthly` has 12. Of an example that names it, one run lies in the root: v1.0.0, finished, of the R-values 2, 4 and 8.

Where an example names no engine, it is the inline one. A token of Hatchet's is set where the SDK is imported: one that leads to no engine.
"""

from __future__ import annotations

import ast
import builtins
import doctest
import enum
import importlib
import inspect
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import BaseModel, Field

import scythe
from scythe import errors
from scythe.registry import ExperimentRegistry
from tests.hatchet_standin.tokens import mint

MODULES = (
    "scythe",
    "scythe.base",
    "scythe.registry",
    "scythe.allocate",
    "scythe.experiments",
    "scythe.worker",
    "scythe.scatter_gather",
    "scythe.utils.filesys",
    "scythe.errors",
)
#: Names that are no functions or classes have their docstring behind their assignment, in these files.
CONSTANTS = {"VersioningStrategy": "scythe.record.versions", "LEAF_SECONDS": "scythe.scatter_gather"}
WITHOUT_EXAMPLE = {"scythe.scatter_gather.LEAF_SECONDS"}

#: What raises no error of Scythe's: it looks nothing up, and any value will do.
QUIET = {
    "scythe.Stats.digest",
    "scythe.Stats.to_dict",
    "scythe.ExperimentInputSpec.computed_features",
    "scythe.ExperimentInputSpec.log",
    "scythe.ExperimentRegistry.experiments",
    "scythe.ExperimentRegistry.included",
    "scythe.ExperimentRegistry.includes",
    "scythe.allocate.ExperimentRun.below",
    "scythe.allocate.ExperimentRun.key",
    "scythe.allocate.ExperimentRun.objects",
    "scythe.allocate.RunRef.hatchet",
    "scythe.allocate.RunRef.workflow_run_id",
    "scythe.allocate.RunResult.errors_told",
    "scythe.allocate.RunResult.kinds_told",
    "scythe.allocate.SemVer.next_major_version",
    "scythe.allocate.SemVer.next_minor_version",
    "scythe.allocate.SemVer.next_patch_version",
    "scythe.registry.Experiment.bind",
    "scythe.registry.Experiment.included",
    "scythe.registry.Experiment.module",
    "scythe.registry.Experiment.needs_engine",
    "scythe.registry.Experiment.source",
    "scythe.registry.Experiment.task_name",
    "scythe.scatter_gather.Node.at",
    "scythe.scatter_gather.Node.child",
    "scythe.scatter_gather.Node.children",
    "scythe.scatter_gather.Node.inputs",
    "scythe.scatter_gather.Node.is_base",
    "scythe.scatter_gather.Shape.children",
    "scythe.scatter_gather.Shape.flat",
    "scythe.scatter_gather.Shape.leaves",
    "scythe.scatter_gather.Shape.root",
    "scythe.scatter_gather.Shape.tree",
    "scythe.scatter_gather.Shape.waiting",
    "scythe.scatter_gather.choose",
    "scythe.worker.ScytheWorkerConfig.labels",
    "scythe.worker.ScytheWorkerLabel.worker_label",
}

_SECTION = re.compile(r"^(\w+):\n((?:[ \t]+\S.*\n|\n)+)", re.M)
_ENTRY = re.compile(r"^    (\*{0,2}[\w.]+):", re.M)


@dataclass(frozen=True)
class Public:
    """A public name, what it stands for, and its docstring."""

    path: str
    what: Any
    doc: str

    @property
    def is_error(self) -> bool:
        return isinstance(self.what, type) and issubclass(self.what, BaseException)

    @property
    def callable(self) -> Any:
        """What is called under this name; None of a class, a constant."""
        if isinstance(self.what, property):
            return self.what.fget
        return self.what if inspect.isroutine(self.what) else None

    @property
    def parameters(self) -> list[str]:
        """What a caller gives, by name."""
        what = self.what
        if isinstance(what, type) and (
            self.is_error or issubclass(what, enum.Enum) or getattr(what, "_is_protocol", 0)
        ):
            return []
        if not isinstance(what, type) and self.callable is None:
            return []
        given = inspect.signature(what if isinstance(what, type) else self.callable).parameters.values()
        left_out = {inspect.Parameter.VAR_KEYWORD} if isinstance(what, type) else set()
        return [p.name for p in given if p.kind not in left_out and p.name not in ("self", "cls") and p.name[0] != "_"]

    def names_in(self, *sections: str) -> list[str]:
        """What some sections of the docstring explain, by name."""
        found: dict[str, str] = dict(_SECTION.findall(self.doc + "\n"))
        return [name.lstrip("*") for head in sections for name in _ENTRY.findall(found.get(head, ""))]


@cache
def public() -> tuple[Public, ...]:
    """All public names, each once, under the first module that has it."""
    found: dict[str, Public] = {}
    known: set[int] = set()
    for module in map(importlib.import_module, MODULES):
        for name in _names(module):
            what = getattr(module, name)
            if id(what) in known:
                continue
            known.add(id(what))
            path = f"{module.__name__}.{name}"
            if inspect.isroutine(what) or isinstance(what, type):
                found[path] = Public(path, what, inspect.cleandoc(what.__doc__ or ""))
                found |= _members(path, what) if isinstance(what, type) else {}
            else:
                home = CONSTANTS.get(name, scythe._HOME.get(name, module.__name__))
                found[path] = Public(path, what, _behind(home, name))
    return tuple(found.values())


def _names(module: Any) -> list[str]:
    """The names that a module offers: those that it lists, or those that it defines."""
    listed = getattr(module, "__all__", None)
    if listed is not None:
        return list(listed)
    return [n for n, v in vars(module).items() if n[0] != "_" and getattr(v, "__module__", "") == module.__name__]


def _members(path: str, owner: type) -> dict[str, Public]:
    """The methods and properties that a class of Scythe's defines itself."""
    found: dict[str, Public] = {}
    for name in vars(owner):
        what = inspect.getattr_static(owner, name)
        function = what.fget if isinstance(what, property) else getattr(what, "__func__", what)
        if name[0] != "_" and inspect.isfunction(function) and function.__module__.startswith("scythe"):
            shown = what if isinstance(what, property) else function
            found[f"{path}.{name}"] = Public(f"{path}.{name}", shown, inspect.cleandoc(function.__doc__ or ""))
    return found


def _behind(module: str, name: str) -> str:
    """The text behind the assignment of a name: what editors show as its docstring."""
    body = ast.parse(inspect.getsource(importlib.import_module(module))).body
    for line, following in itertools.pairwise(body):
        assigned = isinstance(line, ast.Assign) and [t.id for t in line.targets if isinstance(t, ast.Name)] == [name]
        if assigned and isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            return inspect.cleandoc(str(following.value.value))
    return ""


def _of(names: Iterator[Public]) -> list[Any]:
    return [pytest.param(name, id=name.path) for name in names]


# --- what a docstring says -------------------------------------------------------------------------


def test_the_names_that_users_know_are_among_the_public_ones() -> None:
    paths = {name.path for name in public()}
    assert {f"scythe.{name}" for name in scythe.__all__} <= paths
    assert {f"scythe.errors.{name}" for name in errors.__all__ if name != "ScytheError"} <= paths
    assert {
        "scythe.BaseExperiment.allocate",
        "scythe.ExperimentInputSpec.fetch_uri",
        "scythe.ExperimentRegistry.Register",
        "scythe.allocate.ExperimentRun.retry_errors",
        "scythe.allocate.RunRef.aio_result",
        "scythe.allocate.RunResult",
        "scythe.allocate.SemVer.FromString",
        "scythe.allocate.VersioningStrategy",
        "scythe.scatter_gather.RecursionMap",
        "scythe.worker.ScytheWorkerConfig.start",
        "scythe.worker.ScytheWorkerLabel",
    } <= paths


@pytest.mark.parametrize("name", _of(iter(public())))
def test_a_docstring_begins_with_a_sentence(name: Public) -> None:
    first = name.doc.split("\n\n")[0]
    assert len(first.split()) >= 3, f"{name.path} has no docstring to speak of: {first!r}"
    assert first[-1] in ".:", f"{name.path}: {first!r} is no sentence"


@pytest.mark.parametrize("name", _of(n for n in public() if n.parameters))
def test_each_parameter_is_explained(name: Public) -> None:
    sections = ("Args", "Attributes") if isinstance(name.what, type) else ("Args",)
    explained = name.names_in(*sections)
    assert sorted(set(name.parameters) - set(explained)) == []
    if not isinstance(name.what, type):
        assert sorted(explained) == sorted(name.parameters), "what is explained is a parameter, and stands once"


@pytest.mark.parametrize("name", _of(n for n in public() if isinstance(n.what, type) and issubclass(n.what, BaseModel)))
def test_each_field_of_a_model_is_explained(name: Public) -> None:
    assert sorted(set(name.what.model_fields) - set(name.names_in("Attributes"))) == []


@pytest.mark.parametrize("name", _of(n for n in public() if n.callable is not None))
def test_what_may_be_raised_is_said(name: Public) -> None:
    raised = name.names_in("Raises")
    assert bool(raised) != (name.path in QUIET), "either it says what it raises, or it raises nothing"


def test_what_is_said_to_be_raised_is_an_error() -> None:
    for name in public():
        for raised in name.names_in("Raises"):
            module, _, short = raised.rpartition(".")
            home = importlib.import_module(module) if module else errors if hasattr(errors, raised) else builtins
            assert issubclass(getattr(home, short), Exception), f"{name.path}: {raised}"


def test_what_is_said_to_raise_nothing_is_there() -> None:
    assert sorted(QUIET - {name.path for name in public()}) == []


def test_names_that_specs_answer_beside_their_fields_are_explained() -> None:
    from scythe.base import OFFERED

    doc = scythe.ExperimentInputSpec.__doc__ or ""
    assert [name for name in OFFERED if f"- `{name}" not in doc] == []
    assert [name for name, function in OFFERED.items() if not function.__doc__] == []


# --- examples --------------------------------------------------------------------------------------


class BuildingInput(scythe.ExperimentInputSpec):
    r_value: float = Field(description="R-value of the envelope [m2K/W]", gt=0, le=15)
    setpoint: float = Field(default=20.0, description="Heating setpoint [deg.C]")


class BuildingOutput(scythe.ExperimentOutputSpec):
    heating: float = Field(description="Heating energy [kWh/m2]", ge=0)
    hourly: scythe.OptionalFileReference = None


def simulate_energy(input_spec: BuildingInput, tempdir: Path) -> BuildingOutput:
    """Heating energy of a building of one zone."""
    heating = 80 / input_spec.r_value
    pl.DataFrame({"hour": range(24), "kwh": [heating / 8760] * 24}).write_parquet(tempdir / "hourly.pq")
    monthly = pl.DataFrame({"month": range(1, 13), "kwh": [heating / 12] * 12})
    return BuildingOutput(heating=heating, hourly=tempdir / "hourly.pq", dataframes={"monthly": monthly})


@pytest.fixture
def reader(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a reader of an example has at hand: see the head of this file."""
    monkeypatch.setenv("SCYTHE_ENGINE", "inline")
    monkeypatch.setattr(ExperimentRegistry, "_experiments", {})
    monkeypatch.setattr(ExperimentRegistry, "_included", {})
    ExperimentRegistry.Register()(simulate_energy)
    own = (BuildingInput, BuildingOutput, simulate_energy)
    return {"__name__": "reader", "scythe": scythe, "pl": pl, "Path": Path} | {one.__name__: one for one in own}


@pytest.mark.parametrize("name", _of(n for n in public() if ">>>" in n.doc))
def test_an_example_runs(name: Public, reader: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert name.names_in("Example") == [], "`Example:` is no section of a docstring: write `Examples:`"
    if "hatchet_sdk" in name.doc:
        monkeypatch.setenv("HATCHET_CLIENT_TOKEN", mint("http://127.0.0.1:9", "127.0.0.1:9"))
    if "simulate_energy" in name.doc:
        scythe.BaseExperiment(simulate_energy).allocate(pl.DataFrame({"r_value": [2.0, 4.0, 8.0]}))
    told: list[str] = []
    example = doctest.DocTestParser().get_doctest(name.doc, reader, name.path, None, 0)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    outcome = runner.run(example, out=told.append)
    assert outcome.failed == 0, "".join(told)


def test_every_public_name_but_errors_has_an_example() -> None:
    without = {name.path for name in public() if "\nExamples:\n    >>> " not in name.doc and not name.is_error}
    assert without == WITHOUT_EXAMPLE


def test_an_example_that_is_wrong_is_seen(reader: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Public("wrong", None, "It gives.\n\nExamples:\n    >>> 1 + 1\n    3\n")
    with pytest.raises(AssertionError, match=r"Expected:\n *3"):
        test_an_example_runs(wrong, reader, monkeypatch)
