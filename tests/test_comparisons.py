"""Two runs are compared whatever became of the types of their fields."""

from __future__ import annotations

import datetime as dt
import sys
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import cloudpickle
import polars as pl
import pytest
from pydantic import BaseModel, ConfigDict, Field
from typer.testing import CliRunner

from scythe.allocate import BaseExperiment, ExperimentRun
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.cli import app
from scythe.registry import ExperimentRegistry
from scythe.reporting.facts import Variable
from scythe.reporting.spreads import aligned, laid_out
from scythe.runs.compare import compare_runs

cloudpickle.register_pickle_by_value(sys.modules[__name__])


def run_of(of: type[Any], to: type[Any], values: list[Any], results: list[Any]) -> ExperimentRun:
    model = type("In", (ExperimentInputSpec,), {"__annotations__": {"x": of}, "__module__": __name__})
    output = type("Out", (ExperimentOutputSpec,), {"__annotations__": {"y": to}, "__module__": __name__})

    def typed(spec: Any) -> Any:
        return output(y=results[spec.sort_index])

    typed.__annotations__ = {"spec": model, "return": output}
    ExperimentRegistry.Register(name="typed")(typed)
    run, ref = BaseExperiment("typed").allocate([{"x": x} for x in values], "bumpmajor", engine="inline")
    ref.result()
    return run


@pytest.mark.parametrize(
    ("to", "results", "equal"),
    [
        (str, ["1.5", "warm"], 1),
        (bool, [True, False], 0),
        (dt.date, [dt.date(2020, 1, 1)] * 2, 0),
        (list[int], [[1], [2]], 0),
    ],
)
def test_outputs_whose_type_changed_are_compared(root: Path, to: type[Any], results: list[Any], equal: int) -> None:
    one = run_of(float, float, [1.0, 2.0], [1.5, 2.5])
    other = run_of(float, to, [1.0, 2.0], results)
    assert compare_runs(one, other).values.rows() == [("y", equal, 2 - equal, None, None)]
    assert CliRunner().invoke(app, ["diff", one.experiment_id, other.experiment_id]).exit_code == 0


@pytest.mark.parametrize(("of", "values"), [(int, [1, 3]), (str, ["1.0", "three"])])
def test_inputs_whose_type_changed_are_compared(root: Path, of: type[Any], values: list[Any]) -> None:
    found = compare_runs(run_of(float, int, [1.0, 2.0], [1, 2]), run_of(of, int, values, [1, 2]))
    assert (found.both, found.only_one, found.only_other) == (1, 1, 1)


def test_values_in_another_unit_are_not_compared(root: Path) -> None:
    """2 kWh are not 2 MWh."""
    kwh, mwh = Annotated[float, Field(description="heat [kWh]")], Annotated[float, Field(description="heat [MWh]")]
    one, other = run_of(float, kwh, [1.0, 2.0], [2.0, 3.0]), run_of(float, mwh, [1.0, 2.0], [2.0, 0.003])
    found = compare_runs(one, other)
    assert (found.both, found.values.height, found.units) == (2, 0, ("y ([kWh], [MWh])",))
    said = CliRunner().invoke(app, ["diff", one.experiment_id, other.experiment_id]).output
    assert "not compared: y ([kWh], [MWh]), which are in another unit" in said
    found = compare_runs(run_of(kwh, float, [1.0], [2.0]), run_of(mwh, float, [1.0], [2.0]))
    assert (found.both, found.only_one, found.only_other, found.units) == (0, 1, 1, ("x ([kWh], [MWh])",))


def test_axes_of_two_runs_reach_alike_only_in_one_unit(root: Path) -> None:
    values = pl.Series([1.0, 2.0, 3.0])
    kwh, more, mwh = (
        laid_out(Variable("y", unit), values * by)[0] for unit, by in (("kWh", 1), ("kWh", 9), ("MWh", 9))
    )
    assert aligned((kwh,), (more,))[0].span == (1.0, 27.0)
    assert aligned((kwh,), (mwh,)) == (kwh,)


def test_a_run_that_is_compared_with_itself_is_said_to_be_the_same(root: Path) -> None:
    run = run_of(float, float, [1.0], [1.5])
    said = CliRunner().invoke(app, ["diff", "typed", run.experiment_id]).output
    assert "both are the same run" in said


INF = float("inf")


class Wall(BaseModel):
    u: float
    n: int = 1


@pytest.mark.parametrize(
    ("to", "before", "after", "changed"),
    [
        (float, [INF, INF, -INF, float("nan"), 1.0, INF], [INF, 1.0, INF, float("nan"), INF, float("nan")], 4),
        (float, [1.0, 1.0, 0.0], [1.0 + 1e-12, 1.0 + 1e-6, -0.0], 1),
        (int, [10**10, 2**62, 5], [10**10 + 1, 2**62 + 1, 5], 2),
        (Annotated[Decimal, Field(max_digits=30, decimal_places=2)], [Decimal(10**12)] * 2, [Decimal(10**12), Decimal("1e12") + 1], 1),
        (dict[str, float], [{"a": 1, "b": 2}, {"a": 1}], [{"b": 2, "a": 1}, {"a": 2}], 1),
        (list[dict[str, int]], [[{"a": 1, "b": 2}]], [[{"b": 2, "a": 1}]], 0),
        (list[float], [[0.3, 1.0], [0.3], [], [0.3], [1.0], [1.0]], [[0.1 + 0.2, 1.0], [0.4], [], [0.3, 0.3], [], [float("nan")]], 4),
        (list[list[float]], [[[0.3], []], [[0.3]]], [[[0.1 + 0.2], []], [[], [0.3]]], 1),
        (list[int], [[2**62, 1]], [[2**62 + 1, 1]], 1),
        (Wall, [Wall(u=0.3), Wall(u=0.3), Wall(u=1)], [Wall(u=0.1 + 0.2), Wall(u=0.4), Wall(u=1, n=2)], 2),
        (Wall | None, [None, Wall(u=1), None], [None, None, Wall(u=1)], 2),
        (list[float] | None, [None, [1], None, [0.3]], [None, None, [1], [0.1 + 0.2]], 2),
        (list[Wall], [[Wall(u=0.3)] * 2, [Wall(u=1)]], [[Wall(u=0.1 + 0.2)] * 2, [Wall(u=2)]], 1),
        (dict[str, float], [{"a": 0.3}], [{"a": 0.1 + 0.2}], 0),
    ],
    ids=[
        "infinite", "noise", "whole", "decimal", "dict", "dicts", "lists", "lists of lists", "whole lists", "models", "optional models",
        "optional lists", "lists of models", "dict with noise",
    ],
)  # fmt: skip
def test_values_that_are_not_the_same_have_changed(
    root: Path, to: Any, before: list[Any], after: list[Any], changed: int
) -> None:
    inputs = [float(i) for i in range(len(before))]
    found = compare_runs(run_of(float, to, inputs, before), run_of(float, to, inputs, after))
    assert found.values.row(0)[:3] == ("y", len(before) - changed, changed)


def test_inputs_with_the_same_entries_are_the_same_inputs(root: Path) -> None:
    runs = [run_of(dict[str, float], float, [given], [1.0]) for given in ({"a": 1, "b": 2}, {"b": 2, "a": 1})]
    found = compare_runs(*runs)
    assert (found.both, found.only_one, found.only_other) == (1, 0, 0)


def test_whole_numbers_that_are_floats_by_now_are_paired_once_and_exactly(root: Path) -> None:
    large = [2**53, 2**53 + 1, 2**53 + 2, 2**53 + 3, 0, -1]
    one = run_of(int, int, large, [1] * 6)
    other = run_of(float, int, [2.0**53 + 2, -0.0, 0.5, float("nan"), INF], [1] * 5)
    for pair in ((one, other), (other, one)):
        found = compare_runs(*pair)
        assert found.both == 2
        assert {found.only_one, found.only_other} == {4, 3}


class Open(ExperimentInputSpec):
    model_config = ConfigDict(extra="allow")
    a: int


class Told(ExperimentOutputSpec):
    y: str


def open_(spec: Open) -> Told:
    return Told(y=str((spec.model_extra or {}).get("zz")))


def test_values_beyond_the_fields_tell_inputs_apart(root: Path) -> None:
    ExperimentRegistry.Register(name="open")(open_)

    def run_with(*given: Any) -> ExperimentRun:
        run, ref = BaseExperiment("open").allocate([Open(a=1, **more) for more in given], "keep", engine="inline")
        ref.result()
        return run

    two = run_with({"zz": {"p": 1, "q": 2.0}}, {"zz": "q"})
    again = compare_runs(two, run_with({"zz": "q"}, {"zz": {"q": 2.0, "p": 1}}))
    assert (again.both, again.values.row(0)[:3]) == (2, ("y", 1, 1)), "the function writes a dict in its order"
    found = compare_runs(two, run_with({}, {"zz": "r"}))
    assert (found.both, found.only_one, found.only_other) == (0, 2, 2)
    assert compare_runs(run_with({}), run_with({})).both == 1
