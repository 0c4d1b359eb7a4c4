"""Values in different units never stand in one column, however the models came to them."""

from __future__ import annotations

import datetime as dt
import enum
import pickle
from pathlib import Path
from typing import Any, Literal

import polars as pl
import pytest
from pydantic import Field, create_model

import scythe
from scythe import BaseExperiment, ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry
from scythe.allocate import version
from scythe.define.renames import check_declared
from scythe.errors import InputError, ReadError, SchemaError, VersionError
from scythe.runs.compare import compare_runs
from scythe_catalog.schema import Difference, TableSchema, compile_model, mixed_units

PLACES = ("input", "output", "in a model", "in a list", "in a map", "in an output's model")


def allocated(unit: str | None, place: str, version: str = "auto") -> Any:
    """A run of an experiment of which one number is in a unit."""
    number: Any = (float, Field(1.0, description=f"w [{unit}]" if unit else "w"))
    return run_with("w", number, create_model("Inner", u=number), place, version)


def graded(values: Any, place: str) -> Any:
    """A run of an experiment of which one field is of an Enum with these members, stored by their names; or of another type with a "low"."""
    if isinstance(values, dict):
        values = enum.Enum("Grade", values)
        return run_with("g", (values, values.low), create_model("Inner", grade=(values, values.low)), place)
    return run_with("g", (values, "low"), create_model("Inner", grade=(values, "low")), place)


def run_with(name: str, field: Any, inner: Any, place: str, version: str = "auto") -> Any:
    """A run of an experiment with a field of this name at a place, by itself or in a model."""
    placed: Any = {
        "in a model": (inner, inner()), "in a list": (list[inner], [inner()]), "in a map": (dict[str, inner], {"a": inner()}),
        "in an output's model": (inner, inner()),
    }.get(place, field)  # fmt: skip
    given, made = ({}, {name: placed}) if "output" in place else ({name: placed}, {})
    spec: Any = create_model("Spec", __base__=ExperimentInputSpec, x=(int, 1), **given)
    result: Any = create_model("Result", __base__=ExperimentOutputSpec, y=(float, 1.0), **made)

    def f(spec: Any) -> Any:
        return result()

    f.__annotations__ = {"spec": spec, "return": result}
    ExperimentRegistry._experiments.pop("f", None)
    run, ref = BaseExperiment(ExperimentRegistry.Register(retries=0)(f)).allocate([spec()], version, engine="inline")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    ref.result()
    return run


@pytest.mark.parametrize("place", PLACES)
def test_another_unit_is_breaking_wherever_it_stands_also_after_a_version_that_tells_none(
    place: str, root: Path
) -> None:
    assert [allocated(unit, place).version for unit in ("W", None, "kW")] == ["v1.0.0", "v1.0.1", "v2.0.0"]
    for ask in (lambda: scythe.read("f", "all"), lambda: scythe.scan("f", "all").collect()):
        with pytest.raises(ReadError, match=r"'w.*' is in \[W\], \[kW\], by version"):
            ask()
    assert scythe.read("f", "all", columns=["y"]).height == 3
    assert scythe.read("f", "v1.0.1").height == 1


@pytest.mark.parametrize("place", PLACES)
def test_a_lower_version_is_held_against_the_units_of_those_above_it(place: str, root: Path) -> None:
    allocated(None, place, "v1.0.0")
    allocated("W", place, "v1.1.0")
    with pytest.raises(VersionError, match=r"changed its unit from \[W\] in v1\.1\.0 to \[kW\] \(breaking\)"):
        allocated("kW", place, "v1.0.1")
    allocated("W", place, "v1.0.1")
    assert scythe.read("f", "all").height == 3


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("then", ["keep", "bumpminor"])
def test_a_unit_that_a_later_run_of_a_version_has_told_binds_those_that_follow(
    place: str, then: str, root: Path
) -> None:
    assert {allocated(unit, place, "keep").version for unit in (None, "W")} == {"v1.0.0"}
    allocated(None, place, then)
    with pytest.raises(VersionError, match=r"changed its unit from \[W\] in v1\.0\.0 to \[kW\] \(breaking\)"):
        allocated("kW", place, "keep")
    assert allocated("W", place, "keep").version in ("v1.0.0", "v1.1.0")
    assert allocated("kW", place).version == "v2.0.0"


def test_a_table_takes_no_other_unit_whatever_the_versions_say(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        version._Choice, "_facts_before", lambda *_: Difference(())
    )  # as of more versions than are looked at
    assert [allocated(unit, "input").version for unit in ("W", None, "kW")] == ["v1.0.0", "v1.0.1", "v1.0.2"]
    with pytest.raises(ReadError, match=r"'w' is in \[W\], \[kW\]"):
        scythe.read("f", "all")
    allocated("kW", "input")
    assert scythe.read("f")["w"].to_list() == [1.0]


@pytest.mark.parametrize("key", ["unit", "units", "Unit", "UNITS"])
def test_a_unit_is_told_by_its_key(key: str) -> None:
    model = create_model("M", w=(float, Field(json_schema_extra={key: " kW "})))
    (column,) = compile_model(model).schema
    assert column.unit == "kW"


def test_a_unit_and_a_former_name_may_be_told_by_a_function_that_changes_the_json_schema() -> None:
    def told(schema: dict[str, Any]) -> None:
        schema["unit"], schema["renamed_from"] = "kW", "v"
        del schema["title"]

    model = create_model("In", w=(float, Field(json_schema_extra=told)))
    assert compile_model(model).schema["w"].unit == "kW"
    assert check_declared([model]) == {"v": "w"}


@pytest.mark.parametrize("extra", [{"unit": 3}, {"unit": ""}, {"unit": "m", "units": "mm"}, {"units": ["m"]}])
def test_what_is_no_unit_is_refused(extra: Any) -> None:
    with pytest.raises(SchemaError, match="the unit of the values, one text"):
        compile_model(create_model("M", w=(float, Field(json_schema_extra=extra))))


def test_a_schema_of_before_tells_no_units_within_models() -> None:
    inner = create_model("Inner", u=(float, Field(description="u [W]")))
    schema = compile_model(create_model("M", w=(inner, ...))).schema
    older = schema.to_json()
    (older_column,) = older if isinstance(older, list) else older["columns"]
    del older_column["members"][0]["unit"]
    assert mixed_units((TableSchema.from_json(older), schema)) == {}
    assert TableSchema.from_json(schema.to_json())["w"].kind.members[0].unit == "W"  # type: ignore[attr-defined] # pyright: ignore


def test_whole_numbers_that_no_float_is_are_not_rounded(root: Path) -> None:
    def run(kind: type, value: Any) -> None:
        result: Any = create_model("Result", __base__=ExperimentOutputSpec, y=(kind, ...))

        def g(spec: Any) -> Any:
            return result(y=value, dataframes={"m": pl.DataFrame({"v": [value]})})

        g.__annotations__ = {"spec": ExperimentInputSpec, "return": result}
        ExperimentRegistry._experiments.pop("g", None)
        BaseExperiment(ExperimentRegistry.Register(retries=0)(g)).allocate([ExperimentInputSpec()], engine="inline")[
            1
        ].result()

    run(int, 2**60)
    run(float, 0.5)
    assert scythe.read("g", "all")["y"].sort().to_list() == [0.5, 2.0**60]
    for value in (2**53 + 1, 2**63 - 1, -(2**53) - 1):
        run(int, value)
        with pytest.raises(Exception, match=r"'y' is a float in one version, and -?\d+ in another"):
            scythe.read("g", "all")
        scythe.open_run("g").delete()
    run(int, 2**53 + 1)
    for table, name in (("scalars", "y"), ("m", "v")):
        with pytest.raises(Exception, match=f"'{name}' is a float in one version, and 9007199254740993 in another"):
            scythe.read("g", "all", table=table)


@pytest.mark.parametrize(
    ("kinds", "values", "told"),
    [
        ((dt.timedelta, int), (dt.timedelta(hours=1), 3), "duration and int"),
        ((list[int], list[float]), ([1], [0.5]), "list of int and list of float"),
        ((bytes, str), (b"a", "a"), "bytes and str"),
    ],
)
def test_types_that_no_column_holds_together_are_named(kinds: Any, values: Any, told: str, root: Path) -> None:
    def run(kind: Any, value: Any) -> None:
        result: Any = create_model("Result", __base__=ExperimentOutputSpec, y=(kind, ...), z=(int, 1))

        def h(spec: Any) -> Any:
            return result(y=value)

        h.__annotations__ = {"spec": ExperimentInputSpec, "return": result}
        ExperimentRegistry._experiments.pop("h", None)
        experiment = BaseExperiment(ExperimentRegistry.Register(retries=0)(h))
        experiment.allocate([ExperimentInputSpec()], engine="inline")[1].result()

    for kind, value in zip(kinds, values, strict=True):
        run(kind, value)
    with pytest.raises(
        ReadError, match=f"'y' is {told}, by version, which no column holds.*leave it out with columns="
    ):
        scythe.read("h", "all")
    assert scythe.read("h", "all", columns=["z"])["z"].to_list() == [1, 1]


LOW, HIGH = {"low": 10, "high": 20}, {"low": 20, "high": 30}


@pytest.mark.parametrize("place", PLACES)
def test_categories_that_mean_something_else_never_stand_in_one_column(place: str, root: Path) -> None:
    one, other = graded(LOW, place), graded(HIGH, place)
    assert (one.version, other.version) == ("v1.0.0", "v2.0.0")
    for ask in (lambda: scythe.read("f", "all"), lambda: scythe.scan("f", "all").collect()):
        with pytest.raises(ReadError, match=r"'g.*' has categories that mean something else: 'low' is 10, 20, by"):
            ask()
    assert scythe.read("f", "all", columns=["y"]).height == 2
    assert scythe.read("f", "v1.0.0").height == 1
    compared = compare_runs(one, other)
    assert [told.partition(" (")[2] for told in compared.units] == ["'low' is 10, 20)"]
    assert "g" not in compared.values["output"].to_list()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("between", [LOW | {"mid": 15}, Literal["low", "high"], str], ids=["more", "literal", "text"])
def test_what_a_category_means_is_known_still_after_versions_that_tell_more_or_nothing(
    place: str, between: Any, root: Path
) -> None:
    assert {graded(values, place).version.split(".")[0] for values in (LOW, between)} == {"v1"}
    assert graded(HIGH, place).version == "v2.0.0"
    with pytest.raises(ReadError, match=r"'g.*' has categories that mean something else: 'low' is 10, 20, by"):
        scythe.read("f", "all")
    with pytest.raises(InputError, match="has categories that mean something else"):
        scythe.dataset("f", version="all", run="all", y=["y"], where=pl.col("g").is_not_null())


@pytest.mark.parametrize("place", ["input", "output"])
def test_a_dataset_takes_no_two_meanings_of_a_category_for_one(place: str, root: Path) -> None:
    graded(LOW, place)
    ds = scythe.dataset("f", run="all", g=["g"])
    graded(LOW | {"top": 90}, place)
    every: Any = {"version": "all", "run": "all"}
    assert scythe.dataset("f", **every, g=["g"]).names == {"g": ("g=low", "g=high", "g=top")}
    graded(HIGH, place)
    told = r"'g' has categories that mean something else, by version \('low' is 10, 20\): take runs of one version"
    with pytest.raises(InputError, match=f"g: {told}"):
        scythe.dataset("f", **every, g=["g"])
    with pytest.raises(InputError, match=f"where: {told}"):
        scythe.dataset("f", **every, y=["y"], where=pl.col("g") == "low")
    with pytest.raises(ReadError, match="has categories that mean something else"):
        _ = scythe.dataset("f", **every, y=["y"]).frame
    with pytest.raises(InputError, match="g: 'low' of 'g' was 10, and is 20 now"):
        pickle.loads(pickle.dumps(ds)).refresh()
