"""Two runs are compared whatever became of the types of their fields."""

from __future__ import annotations

import datetime as dt
import sys
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import cloudpickle
import pytest
from pydantic import Field
from typer.testing import CliRunner

from scythe.allocate import BaseExperiment, ExperimentRun
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.cli import app
from scythe.registry import ExperimentRegistry
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


def test_a_run_that_is_compared_with_itself_is_said_to_be_the_same(root: Path) -> None:
    run = run_of(float, float, [1.0], [1.5])
    said = CliRunner().invoke(app, ["diff", "typed", run.experiment_id]).output
    assert "both are the same run" in said


INF = float("inf")


@pytest.mark.parametrize(
    ("to", "before", "after", "changed"),
    [
        (float, [INF, INF, -INF, float("nan"), 1.0, INF], [INF, 1.0, INF, float("nan"), INF, float("nan")], 4),
        (float, [1.0, 1.0, 0.0], [1.0 + 1e-12, 1.0 + 1e-6, -0.0], 1),
        (int, [10**10, 2**62, 5], [10**10 + 1, 2**62 + 1, 5], 2),
        (Annotated[Decimal, Field(max_digits=30, decimal_places=2)], [Decimal(10**12)] * 2, [Decimal(10**12), Decimal("1e12") + 1], 1),
        (dict[str, float], [{"a": 1, "b": 2}, {"a": 1}], [{"b": 2, "a": 1}, {"a": 2}], 1),
        (list[dict[str, int]], [[{"a": 1, "b": 2}]], [[{"b": 2, "a": 1}]], 0),
    ],
    ids=["infinite", "noise", "whole", "decimal", "dict", "dicts"],
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
