"""Many runs read at once: in one order whatever is selected, joined by one key, with the columns of the runs that are there."""

from datetime import time
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from pydantic import Field, create_model

import scythe
from scythe.allocate import BaseExperiment, ExperimentRun
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.errors import NotFoundError, ReadError
from scythe.reader.united import brought_together
from scythe.registry import ExperimentRegistry
from scythe_catalog.schema import Column, TableSchema
from scythe_catalog.schema import kinds as k

N = 400


class Roof(ExperimentInputSpec):
    area: float


class Snow(ExperimentOutputSpec):
    load: float


class Wind(Snow):
    wind: float = 1.0


class Grade(ExperimentOutputSpec):
    load: str


def snow(spec: Roof) -> Snow:
    if spec.area == 13:
        raise ValueError("unlucky")
    return Snow(load=2 * spec.area, dataframes={"daily": pl.DataFrame({"day": [0, 1], "load": [spec.area, 0.0]})})


def wind(spec: Roof) -> Wind:
    return Wind(load=3 * spec.area, wind=spec.area)


def graded(spec: Roof) -> Grade:
    return Grade(load="heavy" if spec.area > 1 else "light")


def inline(function: Any, areas: Any, version: str = "auto", name: str = "roofs") -> ExperimentRun:
    ExperimentRegistry.Register(name=function.__name__, retries=0)(function)
    frame = pl.DataFrame({"area": [float(a) for a in areas]})
    base = BaseExperiment(function.__name__, run_name=name)
    try:
        return base.allocate(frame, version, engine="inline")[0]
    except ValueError:
        run = base.latest_run()
        assert run is not None
        run.resume(engine="inline")
        return run


@pytest.fixture
def roofs(root: Path) -> list[ExperimentRun]:
    """Six runs of four versions, of unlike sizes, the last two of them of one version that broke with the others."""
    return [
        inline(snow, range(N)),
        inline(snow, range(100, 100 + N // 2), "keep"),
        inline(snow, range(20)),
        inline(wind, range(N)),
        inline(graded, range(30)),
        inline(graded, range(N), "keep"),
    ]


def number(digits: int, places: int) -> Any:
    return Annotated[Decimal, Field(max_digits=digits, decimal_places=places)]


@pytest.mark.parametrize(
    ("kinds", "values", "shown"),
    [
        ((bool, number(10, 2)), (True, Decimal("5.25")), ["true", "5.25"]),
        ((int, number(38, 30)), (2**62, Decimal("1.5")), [str(2**62), "1.5" + 29 * "0"]),
        ((number(38, 0), number(38, 30)), (Decimal(10**30), Decimal("1.5")), [str(10**30), "1.5" + 29 * "0"]),
        ((int, number(10, 2)), (2**62, Decimal("1.25")), [Decimal(2**62), Decimal("1.25")]),
        ((number(12, 2), number(12, 4)), (Decimal("1234567890.12"), Decimal("1.5")), [Decimal("1234567890.12"), Decimal("1.5")]),
        ((bool, int), (True, 3), [1, 3]),
    ],
)  # fmt: skip
def test_numbers_of_unlike_types_are_one_type_that_holds_them_all_or_texts(
    kinds: tuple[Any, Any], values: tuple[Any, Any], shown: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(tmp_path))
    for kind, value in zip(kinds, values, strict=True):
        model: Any = create_model("In", __base__=ExperimentInputSpec, price=(kind, ...))

        def priced(input_spec: Any) -> ExperimentOutputSpec:
            return ExperimentOutputSpec()

        priced.__annotations__["input_spec"] = model
        ExperimentRegistry.Register()(priced)
        BaseExperiment("priced").allocate([model(price=value)], version="auto", engine="inline")

    assert scythe.read("priced", "all", columns=["price"])["price"].to_list() == shown
    assert scythe.scan("priced", "all").sort("run_datetime").collect()["price"].to_list() == shown


def test_the_order_of_rows_holds_whatever_is_selected(roofs: list[ExperimentRun]) -> None:
    whole: dict[tuple[str, Any, Any], pl.DataFrame] = {}

    @settings(max_examples=40)
    @given(st.data())
    def select(data: st.DataObject) -> None:
        table = data.draw(st.sampled_from(["scalars", "errors", "tasks", "daily"]))
        version = data.draw(st.sampled_from(["all", "all", "v1.0.0", "v2.0.0"]))
        run = data.draw(st.sampled_from([None, "all"] if version == "all" else ["all"]))
        asked = (table, version, run)
        try:
            if asked not in whole:
                whole[asked] = scythe.read("roofs", version, table=table, run=run)
        except NotFoundError:
            return
        every = whole[asked]
        columns = data.draw(st.lists(st.sampled_from(every.columns), min_size=1, unique=True))
        assert_frame_equal(scythe.read("roofs", version, table=table, run=run, columns=columns), every.select(columns))

    select()
    for (table, version, run), frame in whole.items():
        place = frame.select("run_datetime", "sort_index")
        assert place.equals(place.sort("run_datetime", "sort_index", maintain_order=True)), (table, version, run)
    days = scythe.read("roofs", "all", table="daily", run="all", columns=["day"])
    assert days["day"].to_list() == [0, 1] * (days.height // 2)


def test_workflow_run_id_joins_the_tables_of_many_runs(roofs: list[ExperimentRun]) -> None:
    scalars = scythe.read("roofs", "all", run="all")
    tasks = scythe.read("roofs", "all", table="tasks", run="all", columns=["workflow_run_id", "seconds"])

    assert scalars["workflow_run_id"].n_unique() == scalars.height
    assert tasks["workflow_run_id"].n_unique() == tasks.height
    joined = scalars.join(tasks, on="workflow_run_id", validate="1:1")
    assert joined.height == scalars.height
    assert set(scalars["sort_index"]) == set(range(N))  # which therefore joins nothing


def test_rows_of_all_runs_are_pairs_in_the_order_of_their_runs(roofs: list[ExperimentRun]) -> None:
    ExperimentRegistry.Register(name="roofs", retries=0)(snow)

    found = [(i.area, o.load) for i, o in scythe.rows("roofs", "v1.0.0", run="all")]
    first = [a for a in range(N) if a != 13]
    assert [area for area, _ in found] == [*first, *range(100, 100 + N // 2)]
    assert all(load == 2 * area for area, load in found)
    latest = [i.area for i, _ in scythe.rows("roofs", "v1.0.1")]
    assert latest == [a for a in range(20) if a != 13]


def test_columns_and_types_are_those_of_the_runs_that_are_there(roofs: list[ExperimentRun]) -> None:
    every = scythe.read("roofs", "all", run="all")
    assert every.schema["load"] == pl.String
    assert "wind" in every.columns

    for run in roofs[4:]:
        run.delete()
    left = scythe.read("roofs", "all", run="all")
    assert left.schema["load"] == pl.Float64
    assert left["wind"].null_count() == left.height - N

    roofs[3].delete()
    left = scythe.read("roofs", "all", run="all")
    assert "wind" not in left.columns
    assert left.height == N - 1 + N // 2 + 19
    for run in roofs[:3]:
        run.delete()
    with pytest.raises(NotFoundError, match="there is no experiment 'roofs'"):
        scythe.read("roofs", "all", run="all")


@given(
    st.lists(
        st.decimals(min_value=-(10**17), max_value=10**17, places=18, allow_nan=False, allow_infinity=False)
        | st.decimals(min_value=-(10**6), max_value=10**6, places=6),
        min_size=1,
        max_size=5,
    )
)
def test_decimals_beside_floats_are_what_floats_are_written_as_or_refused(values: list[Decimal]) -> None:
    exact, floats = (TableSchema.from_arrow(pa.schema({"z": kind})) for kind in (pa.decimal128(38, 18), pa.float64()))
    schema, (casts, others) = brought_together([exact, floats])
    given = pl.LazyFrame({"z": pl.Series(values, dtype=pl.Decimal(38, 18))})
    if all(Decimal(repr(float(value))) == value for value in values):
        assert given.with_columns(casts).collect()["z"].to_list() == [float(value) for value in values]
    else:
        with pytest.raises(ReadError, match=r"'z' is a float in one version, and .* in another, which no float is"):
            given.with_columns(casts).collect()
    assert others == []
    assert schema["z"].kind.polars() == pl.Float64


@given(st.lists(st.times(), min_size=1, max_size=5))
def test_times_of_day_beside_texts_keep_their_fractions(values: list[time]) -> None:
    times, texts = (TableSchema.from_arrow(pa.schema({"at": kind})) for kind in (pa.time64("us"), pa.string()))
    _, (casts, _) = brought_together([times, texts])
    found = pl.LazyFrame({"at": values}).with_columns(casts).collect()["at"]
    assert found.dtype == pl.String
    assert [time.fromisoformat(text) for text in found] == values


CHOICES = st.lists(st.sampled_from("abcd"), min_size=1, unique=True).map(lambda found: k.Category(tuple(found)))


def _nested(of: k.Kind, data: st.DataObject, shape: list[str]) -> tuple[k.Kind, st.SearchStrategy[Any]]:
    """A kind that holds a category at some depth, and the values that it has."""
    kind, values = of, st.sampled_from(of.values) if isinstance(of, k.Category) else st.text()
    for around in shape:
        match around:
            case "list":
                kind, values = k.List(kind, True), st.lists(st.none() | values, max_size=3)
            case "map":
                kind, values = k.Map(k.Str(), kind), st.dictionaries(st.sampled_from("xyz"), st.none() | values)
            case _:
                more = data.draw(st.booleans())
                kind = k.Struct((k.Member("kind", kind, True), *([k.Member("more", k.Int(), True)] if more else ())))
                values = st.fixed_dictionaries(
                    {"kind": st.none() | values, **({"more": st.integers(0, 9)} if more else {})}
                )
    return kind, values


@given(st.data())
def test_categories_that_differ_between_versions_are_brought_together_at_any_depth(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.sampled_from(["list", "map", "struct"]), max_size=3))
    schemas: list[TableSchema] = []
    given_: list[list[Any]] = []
    for leaf in (data.draw(CHOICES), data.draw(CHOICES | st.just(k.Str()))):
        kind, values = _nested(leaf, data, shape)
        schemas.append(TableSchema((Column("y", kind, True),)))
        given_.append(data.draw(st.lists(st.none() | values, min_size=1, max_size=3)))
    schema, casts = brought_together(schemas)
    frames = [
        pl.LazyFrame({"y": pl.Series(values, dtype=own["y"].kind.polars())}).with_columns(cast)
        for own, values, cast in zip(schemas, given_, casts, strict=True)
    ]
    found = pl.concat(frames, how="diagonal_relaxed").collect()["y"]
    assert [_without_gaps(value) for value in found] == [_without_gaps(value) for value in given_[0] + given_[1]]
    assert found.dtype.is_nested() or found.dtype == schema["y"].kind.polars()


def _without_gaps(value: Any) -> Any:
    """A value without the members that only the other version has."""
    if isinstance(value, dict):
        return {key: _without_gaps(item) for key, item in value.items() if key != "more" or item is not None}
    return [_without_gaps(item) for item in value] if isinstance(value, list | pl.Series) else value
