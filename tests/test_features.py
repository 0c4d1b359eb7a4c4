"""Computed features: those of the stored input, whatever happens to it afterwards."""

import datetime as dt
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest

import scythe
from scythe import BaseExperiment, ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry
from scythe.define import features
from scythe.errors import InputError


class Room(ExperimentInputSpec):
    area: int

    @property
    def computed_features(self) -> dict[str, Any]:
        return {"volume": self.area * 2.5}


class Heat(ExperimentOutputSpec):
    heat: int = 0


@pytest.fixture(params=["at allocation", "before each call"])
def road(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where features are evaluated: all at allocation, or too slow for that."""
    if request.param == "before each call":
        monkeypatch.setattr(features, "_PATIENCE", -1.0)
        monkeypatch.setattr(features, "_SAMPLE", 1)
    return request.param


def _run(function: Any, areas: list[int], **options: Any) -> Any:
    _, ref = BaseExperiment(function).allocate(pl.DataFrame({"area": areas}), engine="local", workers=1, **options)
    return ref.result()


def test_they_are_not_those_of_an_input_that_the_function_changed(road: str, root: Path) -> None:
    @ExperimentRegistry.Register(name="changing")
    def changing(input_spec: Room) -> Heat:
        input_spec.area = 0
        return Heat()

    _run(changing, [1, 2])
    assert scythe.read(changing)["volume"].to_list() == [2.5, 5.0]


def test_rows_of_errors_have_them_too(road: str, root: Path) -> None:
    @ExperimentRegistry.Register(name="failing", retries=0)
    def failing(input_spec: Room) -> Heat:
        return Heat(heat=1 // (input_spec.area % 2))

    _run(failing, [1, 2, 3, 4])
    assert scythe.read(failing, table="errors")["volume"].to_list() == [5.0, 10.0]
    assert scythe.read(failing)["volume"].to_list() == [2.5, 7.5]


def test_rows_of_inputs_whose_process_died_have_them(root: Path) -> None:
    @ExperimentRegistry.Register(name="dying", retries=0)
    def dying(input_spec: Room) -> Heat:
        if input_spec.area == 2:
            os._exit(1)
        return Heat()

    _run(dying, [1, 2])
    assert scythe.read(dying, table="errors")["volume"].to_list() == [5.0]


def test_their_types_are_those_of_all_inputs(root: Path) -> None:
    class Late(Room):
        @property
        def computed_features(self) -> dict[str, Any]:
            late = self.area >= 120
            return {
                "empty": 1.5 if late else None,
                "long": Decimal("100.125") if late else Decimal(self.area) / 4,
                "wide": 0.5 if late else 1,
            } | ({"new": "x"} if late else {})

    @ExperimentRegistry.Register(name="late")
    def late(input_spec: Late) -> Heat:
        return Heat()

    result = _run(late, list(range(150)))
    assert (result.rows, result.errors) == (150, 0)
    frame = scythe.read(late)
    assert frame["empty"].to_list() == [None] * 120 + [1.5] * 30
    assert frame["long"].to_list()[3] == Decimal("0.75")
    assert frame["long"].to_list()[-1] == Decimal("100.125")
    assert frame["wide"].to_list()[119:121] == [1.0, 0.5]
    assert frame["new"].to_list()[119:121] == [None, "x"]


def test_what_a_feature_is_may_be_annotated_where_no_input_says_it(root: Path) -> None:
    class Silent(Room):
        @property
        def computed_features(self) -> dict[str, float | None]:
            return {"ratio": None}

    @ExperimentRegistry.Register(name="silent")
    def silent(input_spec: Silent) -> Heat:
        return Heat()

    _run(silent, [1])
    assert scythe.read(silent)["ratio"].dtype == pl.Float64


def test_a_text_that_comes_after_inputs_without_one_is_kept(road: str, root: Path) -> None:
    class Named(Room):
        @property
        def computed_features(self) -> dict[str, Any]:
            return {"size": "large" if self.area else None}

    @ExperimentRegistry.Register(name="named", retries=0)
    def named(input_spec: Named) -> Heat:
        return Heat()

    assert _run(named, [0, 1]).errors == 0
    assert scythe.read(named, run="all")["size"].to_list() == [None, "large"]


@pytest.mark.parametrize("areas", [([2, 4], [0]), ([0], [2, 4])])
def test_what_is_none_in_all_inputs_of_a_run_leaves_numbers_of_others_numbers(root: Path, areas: Any) -> None:
    class Ratio(Room):
        @property
        def computed_features(self) -> dict[str, Any]:
            return {"ratio": 10 / self.area if self.area else None}

    @ExperimentRegistry.Register(name="ratio")
    def ratio(input_spec: Ratio) -> Heat:
        return Heat()

    for some in areas:
        BaseExperiment(ratio).allocate([Ratio(area=a) for a in some], version="keep" if some is areas[1] else None, engine="inline")  # fmt: skip
    found = scythe.read(ratio, run="all").sort("ratio")["ratio"]
    assert (found.dtype, found.to_list()) == (pl.Float64, [None, 2.5, 5.0])
    assert scythe.scan(ratio, run="all").filter(pl.col("ratio") > 3).collect().height == 1


def test_one_that_is_new_or_of_another_type_costs_its_input_before_the_function_runs(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "_PATIENCE", -1.0)
    monkeypatch.setattr(features, "_SAMPLE", 1)

    class Odd(Room):
        @property
        def computed_features(self) -> dict[str, Any]:
            return {0: {"half": 0.5}, 1: {"half": "many"}, 2: {"half": 1.0, "more": 2}}[self.area]

    @ExperimentRegistry.Register(name="odd", retries=0)
    def odd(input_spec: Odd) -> Heat:
        assert input_spec.area == 0
        return Heat()

    result = _run(odd, [0, 1, 2])
    assert (result.rows, result.errors) == (1, 2)
    messages = scythe.read(odd, table="errors")["exception_message"].to_list()
    assert "'half' must be float" in messages[0]
    assert "'more'" in messages[1]


def test_values_of_unlike_types_are_refused_by_name(root: Path) -> None:
    class Mixed(Room):
        @property
        def computed_features(self) -> dict[str, Any]:
            return {"day": dt.date(2024, 1, 1) if self.area else dt.datetime(2024, 1, 1, 17)}

    @ExperimentRegistry.Register(name="mixed")
    def mixed(input_spec: Mixed) -> Heat:
        return Heat()

    with pytest.raises(InputError, match="'day' must be a scalar of one type, not days and instants"):
        _run(mixed, [0, 1])


def test_names_that_differ_by_case_alone_are_refused(root: Path) -> None:
    class Twin(Room):
        @property
        def computed_features(self) -> dict[str, Any]:
            return {"AREA": 1.0}

    @ExperimentRegistry.Register(name="twin")
    def twin(input_spec: Twin) -> Heat:
        return Heat()

    with pytest.raises(InputError, match="'area' and 'AREA'"):
        _run(twin, [1])


def test_those_that_depend_on_the_identifiers_of_the_run_see_them(root: Path) -> None:
    class Named(Room):
        @property
        def computed_features(self) -> dict[str, Any]:
            return {"place": self.prefix}

    @ExperimentRegistry.Register(name="named")
    def named(input_spec: Named) -> Heat:
        return Heat()

    run, ref = BaseExperiment(named).allocate(pl.DataFrame({"area": [1]}), engine="inline")
    ref.result()
    assert scythe.read(named)["place"].to_list() == [f"{run.key.path}/0"]
    assert "place" not in pq.read_schema(root / run.key.specs).names


def test_other_features_are_no_other_columns_of_a_dataframe(root: Path) -> None:
    told: list[dict[str, Any]] = [{"volume": 2.0}, {"volume": "two", "height": 3}, {}, {"volume": 2.0}]
    for features_of in told:

        class Featured(ExperimentInputSpec):
            area: int

            @property
            def computed_features(self) -> dict[str, Any]:
                return features_of  # noqa: B023

        def featured(spec: Any) -> Heat:
            return Heat(dataframes={"hours": pl.DataFrame({"kwh": [1.0]})})

        featured.__annotations__["spec"] = Featured
        ExperimentRegistry._experiments.clear()
        ExperimentRegistry.Register()(featured)
        run, ref = BaseExperiment(featured).allocate(pl.DataFrame({"area": [1]}), version="auto", engine="inline")
        ref.result()
        found = scythe.read("featured", run=run, table="hours", ids=False)
        assert found.rows(named=True) == [{"area": 1, **features_of, "kwh": 1.0}]
    assert run.version.startswith("v1.0")
    assert scythe.read("featured", "all", run="all", table="hours")["kwh"].to_list() == [1.0] * 4
