"""A mistake that all inputs share stops a run after a few of them; how many may fail can be said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

import scythe
from scythe import BaseExperiment, ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry
from scythe.cli import app
from scythe.errors import AllocationError, RunError, TooManyErrors


class Given(ExperimentInputSpec):
    x: int


class Got(ExperimentOutputSpec):
    y: int


def beginner(spec: Given) -> Got:
    """The first mistake of all: a column of the frame is named like an input."""
    mended = Path("mended").exists()
    return Got(y=spec.x, dataframes={"hours": pl.DataFrame({"hour" if mended else "x": [1]})})


def picky(spec: Given) -> Got:
    if spec.x % 10:
        raise ValueError(f"no {spec.x}")
    return Got(y=spec.x)


def allocate(function: Any, n: int, **options: Any) -> Any:
    ExperimentRegistry.Register(retries=1)(function)
    options = {"engine": "local", "workers": 2, **options}
    return BaseExperiment(function).allocate(pl.DataFrame({"x": range(1, n + 1)}), **options)


def test_a_beginners_mistake_costs_twenty_inputs_and_is_told(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run, ref = allocate(beginner, 2000)
    with pytest.raises(
        TooManyErrors, match=r"the first 20 inputs that finished have all failed alike: OutputError: .*'x'"
    ):
        ref.result()

    assert run.status == "incomplete"
    assert scythe.read("beginner", table="tasks", run=run).height == 20
    assert "input 1 failed" in capfd.readouterr().err.replace("input 0", "input 1")
    Path("mended").touch()
    done = CliRunner().invoke(app, ["resume", run.experiment_id, "--errors"])
    assert "2,000 rows, 0 errors" in done.output, done.output


def test_it_goes_on_whatever_fails_if_told_so(root: Path) -> None:
    run, ref = allocate(beginner, 60)
    with pytest.raises(TooManyErrors):
        ref.result()
    result = run.resume(max_errors=None).result()
    assert (result.rows, result.errors) == (0, 60)
    with pytest.raises(TooManyErrors):
        run.retry_errors(max_errors="alike").result()
    assert run.status == "finished"
    assert run.result == result
    assert scythe.read("beginner", table="errors").height == 60
    Path("mended").touch()
    assert run.retry_errors().result().rows == 60


@pytest.mark.parametrize(
    ("n", "most", "stops"),
    [
        (19, "alike", False),
        (40, None, False),
        (40, 36, False),
        (40, 35, True),
        (40, 0.9, False),
        (40, 0.5, True),
        (40, 0, True),
    ],
)
def test_a_number_or_a_share_of_inputs_may_fail(root: Path, n: int, most: Any, stops: bool) -> None:
    run, ref = allocate(picky, n, max_errors=most, chunk=5)
    if stops:
        with pytest.raises(RunError, match=r"inputs have failed, more than .* most of them with ValueError"):
            ref.result()
        assert run.status == "incomplete"
    else:
        assert ref.result().errors == n - n // 10


def test_one_that_comes_to_a_result_or_fails_otherwise_lets_the_run_go_on(root: Path) -> None:
    assert allocate(picky, 100)[1].result().errors == 90

    def odd(spec: Given) -> Got:
        raise (ValueError if spec.x % 2 else KeyError)("no")

    assert allocate(odd, 50)[1].result().errors == 50


@pytest.mark.parametrize("wrong", ["few", -1, 1.5, 0.0, True, [1]])
def test_what_makes_no_sense_is_refused(root: Path, wrong: Any) -> None:
    with pytest.raises(AllocationError, match="max_errors must be a number, a share"):
        allocate(picky, 3, max_errors=wrong)
    assert not root.exists()
    run, ref = allocate(picky, 3)
    ref.result()
    for go_on in (run.resume, run.retry_errors):
        with pytest.raises(AllocationError, match="max_errors must be a number, a share"):
            go_on(max_errors=wrong)
