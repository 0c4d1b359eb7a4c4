"""What `refresh` gives stands for what it stood for before, or it is refused: also of a pickled dataset whose runs are gone."""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import polars as pl
import pytest
from pydantic import Field, create_model

import scythe
from scythe.allocate import BaseExperiment, ExperimentRun
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.errors import InputError, NotFoundError, RunDamaged, StateError
from scythe.registry import ExperimentRegistry
from scythe.runs import garbage

ALL: dict[str, Any] = {"run": "all", "version": "all"}


def run_of(
    choices: Mapping[str, tuple[str, ...] | None] | None = None, unit: str | None = None, version: str = "auto"
) -> ExperimentRun:
    """A run whose inputs are one of these choices each, or numbers (None), and whose output `y` is in this unit."""
    fields: dict[str, Any] = {n: (Literal[c] if c else float, ...) for n, c in (choices or {"a": None}).items()}
    of_input: Any = create_model("In", __base__=ExperimentInputSpec, **fields)
    told = Field(description="Energy" + (f" [{unit}]" if unit else ""))
    of_output: Any = create_model("Out", __base__=ExperimentOutputSpec, y=(float, told))

    def told_so(spec: Any) -> Any:
        if Path("breaks").exists():
            raise ValueError("broken")
        return of_output(y=1.0, dataframes={"hours": pl.DataFrame({"load": [1.0]})})

    told_so.__annotations__ = {"spec": of_input, "return": of_output}
    ExperimentRegistry._experiments.clear()
    ExperimentRegistry.Register(retries=0)(told_so)
    given = [of_input(**{n: c[0] if c else 1.0 for n, c in (choices or {"a": None}).items()})]
    run, ref = BaseExperiment(told_so).allocate(given, version, engine="local", workers=1)
    ref.result()
    return run


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        (
            {"c": ("p", "q"), "d": ("k", "l", "m")},
            {"c": ("p", "q", "s"), "d": ("k", "l")},
            "x: its columns were c=p, c=q, d=k, d=l, d=m, and are c=p, c=q, c=s, d=k, d=l now",
        ),
        ({"c": ("p",), "d": None}, {"c": None, "d": ("k",)}, "x: its columns were c=p, d, and are c, d=k now"),
        (
            {"c": ("p", "q"), "d": None},
            {"c": ("q", "p"), "d": None},
            "x: the choices of 'c' were p, q, and are q, p now",
        ),
        ({"c": ("p", "q"), "d": None}, {"c": ("p", "q", "r"), "d": None}, None),  # which the shapes tell
    ],
)
@pytest.mark.parametrize("kept", ["in this process", "pickled", "pickled, and its run was deleted"])
def test_columns_of_a_group_do_not_come_to_stand_for_others(
    root: Path, before: Any, now: Any, told: str | None, kept: str
) -> None:
    first = run_of(before)
    ds = scythe.dataset("told_so", x=["c", "d"], y="y")
    if kept != "in this process":
        ds = pickle.loads(pickle.dumps(ds[:]))
    run_of(now, version="bumpmajor")
    if "deleted" in kept:
        first.delete()
    if told is None:
        assert len(ds.refresh()) == 1
    else:
        with pytest.raises(InputError, match=f"{told}, in this order"):
            ds.refresh()


def test_a_column_does_not_come_to_be_in_another_unit(root: Path) -> None:
    run_of(unit="kWh")
    ds = scythe.dataset("told_so", x=["a"], y="y")
    run_of(unit="MWh", version="bumpmajor")
    with pytest.raises(InputError, match=r"y: 'y' was in \[kWh\], and is in \[MWh\] now"):
        pickle.loads(pickle.dumps(ds)).refresh()
    run_of(version="bumpmajor")
    assert len(ds.refresh()) == 1  # nothing is told of its unit


@pytest.mark.parametrize("of", ["an output", "an input"])
def test_statistics_that_were_kept_are_not_taken_for_a_column_in_another_unit(root: Path, of: str) -> None:
    group, column = (["y"], "y") if of == "an output" else (["b", "a"], "a")

    def dataset_in(unit: str | None) -> scythe.Dataset:
        told: Any = Field(1.0, description="Energy" + (f" [{unit}]" if unit else ""))
        of_input: Any = create_model("In", __base__=ExperimentInputSpec, a=(float, told), b=(Literal["p", "q"], "p"))
        of_output: Any = create_model("Out", __base__=ExperimentOutputSpec, y=(float, told))

        def metered(spec: Any) -> Any:
            return of_output(y=spec.a)

        metered.__annotations__ = {"spec": of_input, "return": of_output}
        ExperimentRegistry._experiments.clear()
        ExperimentRegistry.Register()(metered)
        BaseExperiment(metered).allocate([of_input(a=n) for n in range(3)], "bumpmajor", engine="local")[1].result()
        return scythe.dataset("metered", x=group)

    kept = json.dumps(dataset_in("kWh").stats().to_dict())
    norm = scythe.Stats.from_dict(json.loads(kept))
    assert norm["x"][column].unit == "kWh"
    assert "kWh" in repr(norm)
    for fine in ("kWh", None):  # where a model tells none, nothing is known to differ
        assert dataset_in(fine).batches(2, normalize=norm).at(0)[0]["x"].dtype == "float32"
    with pytest.raises(StateError, match=r"'x' in \[kWh\], the dataset has it in \[J\]"):
        dataset_in("J").batches(2, normalize=norm).at(0)[0]
    of_before = json.loads(kept)
    for told in of_before["x"].values():
        del told["unit"]
    assert dataset_in("J").batches(2, normalize=scythe.Stats.from_dict(of_before)).at(0)[0]["x"].dtype == "float32"
    of_before["x"][column]["unit"] = 3
    with pytest.raises(StateError, match="these are no statistics"):
        scythe.Stats.from_dict(of_before)


def test_statistics_of_before_a_field_was_renamed_are_those_of_the_field(root: Path) -> None:
    """As a split and a state are: by whichever name it is asked for, one-hot too, and not of another field."""

    def run_as(**names: str) -> None:
        former = {new: {"json_schema_extra": {"renamed_from": old}} if new != old else {} for old, new in names.items()}
        inputs: Any = {
            names["r"]: (float, Field(**former[names["r"]])),
            names["c"]: (Literal["p", "q"], Field("p", **former[names["c"]])),
        }
        of_input: Any = create_model("In", __base__=ExperimentInputSpec, **inputs, s=(float, 0.0))
        of_output: Any = create_model("Out", __base__=ExperimentOutputSpec, y=(float, ...))

        def renamed(spec: Any) -> Any:
            frame = pl.DataFrame({"v": [getattr(spec, names["r"])]})
            return of_output(y=1.0, dataframes={"m": frame})

        renamed.__annotations__ = {"spec": of_input, "return": of_output}
        ExperimentRegistry._experiments.clear()
        ExperimentRegistry.Register()(renamed)
        specs = [of_input(**{names["r"]: n}, s=-n) for n in range(3)]
        BaseExperiment(renamed).allocate(specs, "bumpmajor", engine="inline")

    run_as(r="r", c="c")
    then = scythe.dataset("renamed", x=["r", "c"], y="y")
    norm = scythe.Stats.from_dict(json.loads(json.dumps(then.stats().to_dict())))
    batches = then.batches(2, normalize=norm)
    state, expected = batches.state(0, 1), batches.at(0)[1]["x"].tolist()
    run_as(r="q", c="kind")
    for columns in (["q", "kind"], ["r", "c"], ["q", "c"]):
        now = scythe.dataset("renamed", x=columns, y="y")
        for part in (now, now.split(a=1.0)["a"]):
            assert part.batches(3, normalize=norm, shuffle=False).at(0)[0]["x"][0, 0] == pytest.approx(-(1.5**0.5))
        assert now.batches(2, normalize=norm).resume(state)[0]["x"].tolist() == expected
    for columns in (["s", "kind"], ["kind", "q"], ["q"]):
        with pytest.raises(StateError, match="normalize= has the columns r, c=p, c=q of 'x'"):
            scythe.dataset("renamed", x=columns, y="y").batches(2, normalize=norm).at(0)[0]


def test_a_pickled_dataset_whose_end_was_collected_is_refreshed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("breaks").touch()
    run = run_of(version="bumpminor")
    assert run.result is not None
    pickled = pickle.dumps(scythe.dataset("told_so", y="y", x="a"))
    Path("breaks").unlink()
    run.retry_errors().result()
    now = time.time()
    monkeypatch.setattr(garbage, "store_time", lambda _: now + 1e6)
    garbage.collect(run.objects)
    ds = pickle.loads(pickled)
    with pytest.raises(
        RunDamaged, match=r"is gone: refresh\(\) the dataset, and train anew; a state of that end cannot"
    ):
        len(ds)
    assert len(ds.refresh()) == 1


def test_where_a_version_has_no_finished_run_the_way_to_the_one_that_has_is_named(root: Path) -> None:
    run_of()
    Path("breaks").touch()
    experiment = BaseExperiment("told_so")
    with pytest.raises(ValueError, match="broken"):
        experiment.allocate(pl.DataFrame({"a": [1.0]}), "bumpminor", engine="inline")
    all_runs: list[dict[str, Any]] = [{}, {"run": "all"}, {"version": "v1.1.0"}, {"version": "v1.1.0", "run": "all"}]
    asked = [lambda of=of: scythe.dataset("told_so", x="a", **of) for of in all_runs]
    asked += [lambda of=of: scythe.read("told_so", **of) for of in all_runs if "run" not in of]
    for ask in asked:
        with pytest.raises(
            NotFoundError, match=r"told_so v1.1.0 has no finished run; .*; v1.0.0 has a finished one: version='v1.0.0'"
        ):
            ask()
