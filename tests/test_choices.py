"""Choices of a run are those of its own model, in its order, whatever versions came before or since."""

from pathlib import Path
from typing import Any, Literal

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, create_model

import scythe
from scythe.allocate import BaseExperiment, ExperimentRun
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.errors import InputError, StateError
from scythe.reader.choices import merged
from scythe.registry import ExperimentRegistry
from scythe.transfer.sheets import write_sheets

LEVEL = pl.col("level")


def run_of(choices: list[str] | None, values: list[str], version: str = "auto") -> ExperimentRun:
    """A run whose output is one of these choices, or a text; alone, in a list, and in a model."""
    kind: Any = Literal[tuple(choices)] if choices is not None else str  # type: ignore[valid-type]
    inner = create_model("Inner", __base__=BaseModel, level=(kind, ...))
    out: Any = create_model(
        "Out", __base__=ExperimentOutputSpec, level=(kind, ...), levels=(list[kind], ...), inner=(inner, ...)
    )
    given_: Any = create_model("In", __base__=ExperimentInputSpec, i=(int, ...))

    def graded(spec: Any) -> Any:
        if spec.i == len(values) - 1 and Path("stops").exists():
            raise KeyboardInterrupt
        value = values[spec.i]
        return out(level=value, levels=[value], inner=inner(level=value))

    graded.__annotations__ = {"spec": given_, "return": out}
    ExperimentRegistry._experiments.clear()
    ExperimentRegistry.Register(retries=0)(graded)
    experiment, specs = BaseExperiment(graded), [given_(i=i) for i in range(len(values))]
    try:
        return experiment.allocate(specs, version, engine="inline")[0]
    except KeyboardInterrupt:
        return scythe.open_run("graded")


def answers(run: ExperimentRun, tmp_path: Path) -> list[list[str]]:
    """What is above the lowest, by each way to ask; and what is in order."""
    lowest = LEVEL > "low"
    frame = scythe.read("graded", run=run)
    many = scythe.scan("graded", run.version, run="all").filter(lowest).collect()
    found = [frame.filter(lowest)["level"].to_list(), many["level"].to_list()]
    found += [scythe.dataset("graded", run=run, x=["i"], where=lowest).frame.collect()["level"].to_list()]
    sheet = write_sheets("graded", tmp_path, [("scalars", "csv")], run=run, where="level > 'low'")[0].path
    found += [pl.read_csv(sheet)["level"].to_list()]
    found += [frame.filter(pl.col("inner").struct.field("level") > "low")["level"].to_list()]
    found += [frame.filter(pl.col("levels").list.get(0) > "low")["level"].to_list()]
    in_order = [value for value in frame.sort("level")["level"] if value != "low"]
    return [sorted(one) for one in found] + [in_order]


ORDERS: list[list[str] | None] = [
    ["high", "low", "mid"], ["low", "high", "top", "mid"], ["none", "low", "mid", "high"], ["low", "mid", "high"], None
]  # fmt: skip


@pytest.mark.parametrize("other", ORDERS, ids=str)
@pytest.mark.parametrize("when", ["before", "since"])
def test_what_is_larger_is_what_the_model_of_the_run_says(
    root: Path, tmp_path: Path, other: list[str] | None, when: str
) -> None:
    def another() -> None:
        run_of(other, (other or ["low", "high"])[:2], "bumpmajor")

    if when == "before":
        another()
    run = run_of(["low", "mid", "high"], ["high", "low", "mid"], "bumpmajor")
    if when == "since":
        another()
    told = answers(run, tmp_path)
    assert told[:-1] == [["high", "mid"]] * 6
    assert told[-1] == ["mid", "high"]
    assert scythe.read("graded", run=run).schema["level"] == pl.Enum(["low", "mid", "high"])


def test_a_run_gives_the_same_rows_before_and_after_its_end(root: Path) -> None:
    run_of(["low", "high"], ["low", "high"])
    Path("stops").touch()
    run = run_of(["none", "low", "high"], ["none", "low", "high"], "bumpmajor")
    assert run.status == "incomplete"
    before = scythe.read("graded", run=run).filter(LEVEL < "high")["level"].to_list()
    Path("stops").unlink()
    run.resume(engine="inline").result()
    assert before == scythe.read("graded", run=run).filter(LEVEL < "high")["level"].to_list() == ["none", "low"]


def test_of_all_versions_the_newest_models_order_leads(root: Path) -> None:
    run_of(["low", "gone", "high"], ["low", "gone", "high"])
    run_of(["none", "low", "high"], ["none", "low", "high"], "bumpmajor")
    told = ["none", "low", "gone", "high"]
    assert scythe.read("graded", "all", run="all").schema["level"] == pl.Enum(told)
    names = scythe.dataset("graded", "all", run="all", x=["level"]).names["x"]
    assert list(names) == [f"level={value}" for value in told]


@pytest.mark.parametrize("asked", [{"run": "all"}, {"version": "all"}, {"version": "all", "run": "all"}], ids=str)
def test_of_runs_of_one_version_the_newest_ones_order_leads(root: Path, asked: dict[str, str]) -> None:
    run_of(["low", "mid", "high"], ["low", "mid", "high"])
    newest = run_of(["high", "mid", "low"], ["low", "mid", "high"], "keep")
    assert newest.version == "v1.0.0"
    frame = scythe.read("graded", **asked)
    assert frame.schema["level"] == pl.Enum(["high", "mid", "low"])
    assert set(frame.filter(LEVEL > "high")["level"]) == {"mid", "low"}
    assert list(scythe.dataset("graded", x=["level"], **asked).names["x"]) == [
        f"level={v}" for v in ("high", "mid", "low")
    ]


CHOICES = st.lists(st.sampled_from("abcdefg"), unique=True)


@given(CHOICES, CHOICES)
def test_merged_choices_are_all_of_both_in_the_newer_ones_order(before: list[str], after: list[str]) -> None:
    found = merged(before, after)
    assert sorted(found) == sorted({*before, *after})
    assert [value for value in found if value in after] == after
    assert merged(before, found) == found
    if not {*before} & {*after}:
        assert found == [*before, *after]


def test_a_dataset_is_not_refreshed_where_its_columns_would_stand_for_other_choices(root: Path) -> None:
    """What was trained on the columns would take one choice for another, and nothing else would tell."""
    run_of(["low", "high"], ["low", "high"])
    ds = scythe.dataset("graded", x="level", y=["i", "level"])
    run_of(["low", "high"], ["high", "low"], "keep")
    assert ds.refresh().names["x"] == ds.names["x"]
    run_of(["high", "low"], ["low", "high"], "keep")
    with pytest.raises(
        InputError, match="x: the choices of 'level' were low, high, and are high, low now, in this order"
    ):
        ds.refresh()
    run_of(["low", "high", "top"], ["low", "top"])
    assert ds.refresh().shapes["x"] == (3,)
    of_other_columns = scythe.dataset("graded", y=["i", "level"]).stats()
    batches = scythe.dataset("graded", y=["level", "i"]).batches(1, normalize=of_other_columns)
    with pytest.raises(StateError, match="in this order: what was trained on those would take one for the other"):
        _ = batches.at(0)[0]
