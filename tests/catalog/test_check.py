"""A frame is held against a model: names, types, nulls, bounds; every broken rule is told with its rows."""

from __future__ import annotations

import datetime as dt
import enum
import math
import re
import subprocess
import sys
import uuid
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import (
    AliasChoices,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    TypeAdapter,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)

from scythe_catalog.errors import DataError
from scythe_catalog.schema import Problem, check_bounds, compile_model, conform, models_to_arrow


class Glazing(enum.Enum):
    SINGLE = "single"
    DOUBLE = "double"


class Building(BaseModel):
    floor_area: float = Field(gt=0, description="Area [m2]")
    storeys: int = Field(ge=1, le=99)
    glazing: Glazing
    city: str = Field("Boston", min_length=2)
    built: dt.date | None = None


def given_frame(**columns: Any) -> pa.Table:
    """A frame that fits `Building`, with columns exchanged, added or (None) left out."""
    fitting = {"floor_area": [10.0, 20.0], "storeys": [1, 2], "glazing": ["single", "double"]}
    return pa.table({k: v for k, v in {**fitting, **columns}.items() if v is not None})


def problems(table: pa.Table, model: type[BaseModel] = Building) -> list[Problem]:
    """What is wrong with a table."""
    with pytest.raises(DataError) as caught:
        conform(table, compile_model(model))
    found = caught.value.problems
    assert model.__name__ in str(caught.value)
    for problem in found:
        assert str(problem) in str(caught.value)
    return list(found)  # type: ignore[arg-type]


def only(table: pa.Table, model: type[BaseModel] = Building) -> Problem:
    """The one thing that is wrong with a table."""
    (problem,) = problems(table, model)
    return problem


def one(annotation: Any, values: Any, **field: Any) -> list[Any]:
    """What a column becomes in a model of one field."""
    model = create_model("Model", value=(annotation, Field(**field)))
    compiled = compile_model(model)
    table = conform(pa.table({"value": values}), compiled)
    assert table.schema == compiled.schema.arrow
    return table.column("value").to_pylist()


class TestColumns:
    def test_a_fitting_frame_comes_back_in_the_schemas_order_and_types_with_defaults(self) -> None:
        table = given_frame(glazing=["single", "double"], floor_area=[10, 20])
        conformed = conform(table.select(["glazing", "storeys", "floor_area"]), compile_model(Building))
        assert conformed.schema.equals(compile_model(Building).schema.arrow, check_metadata=True)
        assert conformed.to_pylist() == [
            {"floor_area": 10.0, "storeys": 1, "glazing": "single", "city": "Boston", "built": None},
            {"floor_area": 20.0, "storeys": 2, "glazing": "double", "city": "Boston", "built": None},
        ]

    def test_an_empty_frame_fits(self) -> None:
        empty = given_frame().slice(0, 0)
        assert conform(empty, compile_model(Building)).num_rows == 0
        assert conform(given_frame().schema.empty_table(), compile_model(Building)).num_rows == 0

    def test_a_missing_column_without_default_is_named(self) -> None:
        problem = only(given_frame(storeys=None))
        assert problem.column == "storeys"
        assert "is missing" in problem.rule

    def test_an_unknown_column_is_named_with_the_nearest_field(self) -> None:
        problem = only(given_frame(glasing=["single", "double"]))
        assert problem.column == "glasing"
        assert "did you mean 'glazing'?" in problem.rule

    def test_an_unknown_column_that_resembles_nothing_gets_the_list_of_fields(self) -> None:
        assert "its fields are floor_area, storeys, glazing, city, built" in only(given_frame(xyzzy=[1, 2])).rule

    def test_a_misspelt_required_column_is_both_unknown_and_missing(self) -> None:
        found = problems(given_frame(storeys=None, storey=[1, 2]))
        assert {(p.column, "did you mean 'storeys'" in p.rule, "is missing" in p.rule) for p in found} == {
            ("storey", True, False),
            ("storeys", False, True),
        }

    def test_a_column_that_stands_twice_is_refused(self) -> None:
        table = pa.table([[1.0], [2.0], [1], ["single"]], names=["floor_area", "floor_area", "storeys", "glazing"])
        assert [p.rule for p in problems(table) if p.column == "floor_area"] == ["stands twice in the frame"]

    @pytest.mark.parametrize(
        ("column", "values"),
        [
            ("floor_area", ["10", "20"]),
            ("floor_area", [True, False]),
            ("storeys", ["1", "2"]),
            ("storeys", [True, False]),
            ("storeys", [dt.date(2020, 1, 1)] * 2),
            ("city", [1, 2]),
            ("built", ["2020-01-01"] * 2),
            ("glazing", [1.5, 2.5]),
            ("floor_area", [[1.0], [2.0]]),
        ],
        ids=str,
    )
    def test_a_mistyped_column_is_named_with_what_it_should_hold(self, column: str, values: list[Any]) -> None:
        problem = only(given_frame(**{column: values}))
        assert problem.column == column
        assert re.match(r"must be \w+.*, the column holds ", problem.rule)

    def test_all_that_is_wrong_is_told_at_once(self) -> None:
        found = problems(given_frame(floor_area=["a", "b"], storeys=[None, 1], glazing=["single", "triple"]))
        assert {p.column for p in found} == {"floor_area", "storeys", "glazing"}

    def test_aliases_are_taken_for_their_fields(self) -> None:
        class Model(BaseModel):
            area: float = Field(alias="floorArea")
            height: float = Field(validation_alias="h")
            name: str = "x"

        table = conform(pa.table({"h": [1.0], "floorArea": [2.0]}), compile_model(Model))
        assert table.to_pylist() == [{"area": 2.0, "height": 1.0, "name": "x"}]
        assert conform(pa.table({"height": [1.0], "area": [2.0]}), compile_model(Model)).num_rows == 1

    def test_any_of_several_aliases_is_taken(self) -> None:
        class Model(BaseModel):
            height: float = Field(validation_alias=AliasChoices("h", "Height"))

        assert conform(pa.table({"Height": [1.0]}), compile_model(Model)).to_pylist() == [{"height": 1.0}]

    def test_extra_columns_of_an_open_model_are_refused_with_the_way_out(self) -> None:
        class Open(BaseModel):
            model_config = ConfigDict(extra="allow")
            area: float

        assert "pass models instead of a frame" in only(pa.table({"area": [1.0], "colour": ["red"]}), Open).rule


class TestNulls:
    def test_nulls_in_a_required_column_are_told_with_their_rows(self) -> None:
        problem = only(given_frame(storeys=[None, 2]))
        assert (problem.column, problem.rule, problem.rows) == ("storeys", "must not be null", (0,))

    def test_nulls_in_an_optional_column_stay(self) -> None:
        table = conform(given_frame(built=[None, dt.date(2020, 1, 1)]), compile_model(Building))
        assert table.column("built").to_pylist() == [None, dt.date(2020, 1, 1)]

    def test_a_column_of_nulls_alone_fits_an_optional_field_and_no_other(self) -> None:
        nulls = pa.nulls(2)
        assert conform(given_frame(built=nulls), compile_model(Building)).column("built").null_count == 2
        assert only(given_frame(storeys=nulls)).rows == (0, 1)

    def test_nulls_break_no_bound(self) -> None:
        assert one(Annotated[int | None, Field(ge=3)], [None, 3, None]) == [None, 3, None]
        assert one(Literal[1, 2] | None, [None, 1]) == [None, 1]


class TestDefaults:
    def test_a_default_factory_is_called_for_each_row(self) -> None:
        counter = count()

        class Model(BaseModel):
            a: int
            number: int = Field(default_factory=lambda: next(counter))
            label: uuid.UUID = Field(default_factory=uuid.uuid4)

        table = conform(pa.table({"a": [1, 2, 3]}), compile_model(Model))
        assert len(set(table.column("number").to_pylist())) == 3
        assert len(set(table.column("label").to_pylist())) == 3

    def test_a_default_factory_that_looks_at_other_fields_sees_those_of_its_row(self) -> None:
        class Model(BaseModel):
            a: int
            b: int = Field(default_factory=lambda data: data["a"] * 2)

        assert conform(pa.table({"a": [1, 2]}), compile_model(Model)).column("b").to_pylist() == [2, 4]

    def test_a_default_is_stored_like_any_other_value(self) -> None:
        class Model(BaseModel):
            a: int
            glazing: Glazing = Glazing.DOUBLE

        assert conform(pa.table({"a": [1]}), compile_model(Model)).column("glazing").to_pylist() == ["double"]


class TestBounds:
    def test_a_broken_bound_is_told_with_rule_value_and_rows(self) -> None:
        problem = only(given_frame(floor_area=[10.0, -1.0]))
        assert problem == Problem("floor_area", "must be > 0, got -1.0", (1,))
        assert str(problem) == "floor_area: must be > 0, got -1.0 (1 row: 1)"

    def test_the_first_ten_rows_are_shown_and_all_are_counted(self) -> None:
        area = [-1.0 if i % 2 else 1.0 for i in range(50)]
        table = pa.table({"floor_area": area, "storeys": [1] * 50, "glazing": ["single"] * 50})
        problem = only(table)
        assert problem.rows == tuple(range(1, 50, 2))
        assert str(problem).endswith("(25 rows: 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, …)")

    def test_rows_are_counted_through_all_chunks_of_a_frame(self) -> None:
        table = pa.concat_tables([given_frame(), given_frame(floor_area=[1.0, -1.0])])
        assert only(table).rows == (3,)

    def test_both_bounds_of_a_column_are_told(self) -> None:
        assert {p.rule for p in problems(given_frame(storeys=[0, 100]))} == {
            "must be >= 1, got 0",
            "must be <= 99, got 100",
        }

    @pytest.mark.parametrize(
        ("annotation", "good", "bad", "rule"),
        [
            (Annotated[str, Field(min_length=2)], "ab", "a", "at least 2 long"),
            (Annotated[str, Field(max_length=2)], "äß", "äßö", "at most 2 long"),
            (Annotated[bytes, Field(max_length=2)], b"ab", b"abc", "at most 2 long"),
            (Annotated[str, Field(pattern="^a.c$")], "abc", "abd", "matches '^a.c$'"),
            (Annotated[float, Field(allow_inf_nan=False)], 1.0, math.inf, "finite"),
            (Annotated[dt.date, Field(ge=dt.date(2020, 1, 1))], dt.date(2020, 1, 1), dt.date(2019, 12, 31), ">= 2020"),
            (Annotated[dt.time, Field(lt=dt.time(12))], dt.time(11), dt.time(12), "< 12"),
            (Annotated[dt.timedelta, Field(gt=dt.timedelta(0))], dt.timedelta(1), dt.timedelta(0), "> 0:00"),
            (
                Annotated[dt.datetime, Field(le=dt.datetime(2020, 1, 1))],
                dt.datetime(2020, 1, 1),
                dt.datetime(2020, 1, 2),
                "<= 2020",
            ),
            (
                Annotated[AwareDatetime, Field(ge=dt.datetime(2020, 1, 1, tzinfo=dt.UTC))],
                dt.datetime(2020, 1, 1, tzinfo=dt.UTC),
                dt.datetime(2019, 1, 1, tzinfo=dt.UTC),
                ">= 2020",
            ),
            (
                Annotated[Decimal, Field(max_digits=5, decimal_places=2, gt=Decimal("0.5"))],
                Decimal("0.51"),
                Decimal("0.50"),
                "> 0.5",
            ),
            (Literal[1, 2], 2, 3, "one of 1, 2"),
        ],
        ids=str,
    )
    def test_every_type_has_its_bounds_checked(self, annotation: Any, good: Any, bad: Any, rule: str) -> None:
        one(annotation, [good, good])
        model = create_model("Model", value=(annotation, ...))
        problem = only(pa.table({"value": [good, bad, good, bad]}), model)
        assert problem.rows == (1, 3)
        assert rule in problem.rule

    @pytest.mark.parametrize("bad", ["triple", "SINGLE", ""])
    def test_a_text_that_is_no_category_is_told_with_its_rows(self, bad: str) -> None:
        problem = only(given_frame(glazing=["single", bad]))
        assert problem.column == "glazing"
        assert problem.rows == (1,)

    @pytest.mark.parametrize("bound", [2**63, 2**64, 10**30])
    def test_a_bound_beyond_64_bits_holds_for_all_integers(self, bound: int) -> None:
        assert one(Annotated[int, Field(lt=bound, gt=-bound - 1)], [-(2**63), 5, 2**63 - 1]) == [-(2**63), 5, 2**63 - 1]

    def test_an_integer_beyond_the_floats_is_compared_exactly(self) -> None:
        annotation = Annotated[int, Field(le=float(2**53))]
        assert one(annotation, [2**53]) == [2**53]
        model = create_model("Model", value=(annotation, ...))
        assert only(pa.table({"value": [2**53, 2**53 + 1]}), model).rows == (1,)

    def test_a_bound_of_more_digits_than_its_decimal_is_compared_exactly(self) -> None:
        annotation = Annotated[Decimal, Field(max_digits=38, decimal_places=2, gt=Decimal("0.005"))]
        assert one(annotation, [Decimal("0.01")]) == [Decimal("0.01")]
        model = create_model("Model", value=(annotation, ...))
        assert only(pa.table({"value": [Decimal("0.01"), Decimal("0.00")]}), model).rows == (1,)

    @pytest.mark.parametrize(
        ("pattern", "value"),
        [
            (r"^\w+$", "Zürich"),
            (r"^\d$", "٣"),
            (re.compile("^abc$", re.IGNORECASE), "ABC"),
            (r"^\S+$", "a\u00a0b"),
            ("^é$", "é"),
            ("^[a-z&&[^aeiou]]+$", "bcd"),
            ("^[a-z&&[^aeiou]]+$", "a"),
            ("^[a-z--aeiou]+$", "bcd"),
            ("^[a[bc]]+$", "abc"),
            ("^[A-Z]{1,2000}$", "A"),
        ],
        ids=str,
    )
    def test_patterns_mean_what_they_mean_to_pydantic(self, pattern: Any, value: str) -> None:
        annotation = Annotated[str, Field(pattern=pattern)]
        try:
            TypeAdapter(annotation).validate_python(value)
        except ValidationError:
            with pytest.raises(DataError):
                one(annotation, [value])
        else:
            assert one(annotation, [value]) == [value]

    def test_a_pattern_of_pythons_own_engine_is_checked_by_it(self) -> None:
        class Model(BaseModel):
            model_config = ConfigDict(regex_engine="python-re")
            value: str = Field(pattern=r"^(?!no)\w+$")

        assert conform(pa.table({"value": ["yes"]}), compile_model(Model)).num_rows == 1
        assert only(pa.table({"value": ["yes", "nope"]}), Model).rows == (1,)

    def test_a_plain_pattern_of_pythons_own_engine_is_checked_by_it_as_well(self) -> None:
        class Model(BaseModel):
            model_config = ConfigDict(regex_engine="python-re")
            value: str = Field(pattern="^[a-z]+$")

        before_its_end = [Model(value="yes\n").value]
        assert conform(pa.table({"value": before_its_end}), compile_model(Model))["value"].to_pylist() == before_its_end

    @pytest.mark.parametrize("bound", [10**23, 2**64 - 1, -(10**23)])
    def test_a_bound_that_no_float_equals_is_compared_as_the_model_does(self, bound: int) -> None:
        fine, beyond = float(bound), float(bound) + 1e10
        assert one(float, [fine], le=bound) == [fine]
        assert only(pa.table({"value": [fine, beyond]}), create_model("M", value=(float, Field(le=bound)))).rows == (1,)

    @pytest.mark.parametrize("bound", [math.inf, 1e80, Decimal("1e38"), 1e-80])
    def test_a_bound_beyond_what_a_decimal_can_hold_is_kept_by_all_or_by_none(self, bound: Any) -> None:
        sized = Annotated[Decimal, Field(max_digits=38, decimal_places=2)]
        values = [Decimal("-1.50"), Decimal(0)]
        assert one(sized, values, lt=bound) == values
        assert one(sized, values, ge=-bound if bound != 1e-80 else Decimal("-1.5000001")) == values
        assert only(pa.table({"value": values}), create_model("M", value=(sized, Field(gt=bound)))).rows == (0, 1)


ints = st.integers(-(2**63), 2**63 - 1)
limits = st.sampled_from(["ge", "gt", "le", "lt"])
small = st.integers(-3, 3)
floats = st.floats() | st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 0.0, 1.0])


@st.composite
def bounded(draw: st.DrawFn) -> tuple[Any, list[Any], pa.DataType]:
    """An annotation with limits, values of its type on all sides of them, and their Arrow type."""
    which = draw(st.sampled_from(["int", "float", "str", "decimal"]))
    if which == "str":
        lengths = {
            name: draw(st.integers(0, 3)) for name in draw(st.sets(st.sampled_from(["min_length", "max_length"])))
        }
        return Annotated[str, Field(**lengths)], draw(st.lists(st.text(max_size=4), min_size=1)), pa.string()
    names = draw(st.sets(limits, min_size=1, max_size=2))
    if which == "int":
        bounds = {name: draw(small | ints) for name in names}
        near = st.sampled_from([v for b in bounds.values() for v in (b - 1, b, b + 1) if -(2**63) <= v < 2**63])
        return Annotated[int, Field(**bounds)], draw(st.lists(ints | small | near, min_size=1)), pa.int64()
    if which == "float":
        bounds = {name: draw(small | st.floats(allow_nan=False)) for name in names}
        near = st.sampled_from([float(b) for b in bounds.values()])
        return Annotated[float, Field(**bounds)], draw(st.lists(floats | near, min_size=1)), pa.float64()
    cents = st.decimals(-999, 999, places=2)
    bounds = {name: draw(cents | small) for name in names}
    near = st.sampled_from([Decimal(b).quantize(Decimal("0.01")) for b in bounds.values()])
    values = draw(st.lists(cents | near, min_size=1))
    return Annotated[Decimal, Field(max_digits=5, decimal_places=2, **bounds)], values, pa.decimal128(5, 2)


@settings(max_examples=300)
@given(bounded())
def test_columns_accept_exactly_the_values_that_pydantic_accepts(case: tuple[Any, list[Any], pa.DataType]) -> None:
    annotation, values, dtype = case
    adapter = TypeAdapter(annotation)
    refused = set()
    for i, value in enumerate(values):
        try:
            adapter.validate_python(value)
        except ValidationError:
            refused.add(i)
    schema = compile_model(create_model("Model", value=(annotation, ...))).schema
    table = pa.table([pa.array(values, dtype)], schema=schema.arrow)
    found: set[int] = set()
    try:
        check_bounds(table, schema, what="Model")
    except DataError as error:
        for problem in error.problems:
            assert isinstance(problem, Problem)
            found.update(problem.rows)
    assert found == refused


class TestTypes:
    """What a column may hold instead of the exact type."""

    def test_dictionaries_are_decoded(self) -> None:
        assert one(str, pa.array(["a", "b", "a"]).dictionary_encode()) == ["a", "b", "a"]
        assert one(Glazing, pa.array(["single", "double"]).dictionary_encode()) == ["single", "double"]

    def test_nulls_in_a_dictionary_are_nulls(self) -> None:
        assert one(str | None, pa.array(["a", None]).dictionary_encode()) == ["a", None]
        hidden = pa.DictionaryArray.from_arrays(pa.array([0, 1]), pa.array(["a", None]))
        model = create_model("Model", value=(str, ...))
        assert only(pa.table({"value": hidden}), model).rows == (1,)

    @pytest.mark.parametrize("dtype", [pa.large_string(), pa.string_view()], ids=str)
    def test_large_and_view_strings_are_strings(self, dtype: pa.DataType) -> None:
        values = pa.array(["single"], dtype)
        assert one(str, values) == ["single"]
        assert one(Glazing, values) == ["single"]
        assert one(Literal["single"], values) == ["single"]

    def test_integers_are_floats(self) -> None:
        assert one(float, [1, 2]) == [1.0, 2.0]
        assert one(float, pa.array([1, 2], pa.uint8())) == [1.0, 2.0]

    def test_an_integer_that_no_float_equals_is_refused(self) -> None:
        problem = only(pa.table({"value": [1, 2**53 + 1]}), create_model("Model", value=(float, ...)))
        assert problem.rows == (1,)

    def test_whole_floats_are_integers(self) -> None:
        assert one(int, [1.0, -2.0]) == [1, -2]
        assert one(int | None, [1.0, None]) == [1, None]

    @pytest.mark.parametrize("value", [1.5, math.nan, math.inf, 2.0**63])
    def test_a_float_that_is_no_integer_is_refused_with_its_row(self, value: float) -> None:
        problem = only(pa.table({"value": [1.0, value]}), create_model("Model", value=(int, ...)))
        assert problem.rows == (1,)

    def test_smaller_and_unsigned_integers_are_integers_if_they_fit(self) -> None:
        assert one(int, pa.array([1], pa.int8())) == [1]
        assert one(int, pa.array([1], pa.uint64())) == [1]
        table = pa.table({"value": pa.array([1, 2**63], pa.uint64())})
        assert only(table, create_model("Model", value=(int, ...))).rows == (1,)

    @pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
    def test_times_of_any_resolution_are_taken_without_loss(self, unit: str) -> None:
        moment = dt.datetime(2020, 1, 2, 3, 4, 5)
        assert one(dt.datetime, pa.array([moment], pa.timestamp(unit))) == [moment]
        aware = moment.replace(tzinfo=dt.UTC)
        assert one(AwareDatetime, pa.array([aware], pa.timestamp(unit, "Europe/Zurich"))) == [aware]
        assert one(dt.timedelta, pa.array([dt.timedelta(hours=1)], pa.duration(unit))) == [3_600_000_000]

    def test_nanoseconds_are_not_cut_off_in_silence(self) -> None:
        table = pa.table({"value": pa.array([0, 1], pa.timestamp("ns"))})
        assert only(table, create_model("Model", value=(dt.datetime, ...))).column == "value"
        table = pa.table({"value": pa.array([0, 1], pa.duration("ns"))})
        assert only(table, create_model("Model", value=(dt.timedelta, ...))).column == "value"

    @pytest.mark.parametrize("first", ["", "import pandas"])
    def test_nanoseconds_are_named_in_a_process_with_pandas_and_in_one_without(self, first: str) -> None:
        program = f"""
import datetime as dt, sys
{first}
import pyarrow as pa
from pydantic import create_model
from scythe_catalog.errors import DataError
from scythe_catalog.schema import compile_model
from scythe_catalog.schema.check import conform

assert ("pandas" in sys.modules) == bool({first!r})
for values, annotation in [([1], dt.datetime), ([[1]], list[dt.datetime])]:
    kind = pa.timestamp("ns") if annotation is dt.datetime else pa.list_(pa.timestamp("ns"))
    try:
        conform(pa.table({{"value": pa.array(values, kind)}}), compile_model(create_model("Model", value=(annotation, ...))))
    except DataError as error:
        print(error)
"""
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert done.stderr == ""
        plain, nested = (line for line in done.stdout.splitlines() if line.startswith("  value: "))
        assert "got '1970-01-01 00:00:00.000000001'" in plain
        assert "must be list of timestamp" in nested

    def test_naive_and_aware_times_do_not_stand_for_each_other(self) -> None:
        naive, aware = pa.array([0], pa.timestamp("us")), pa.array([0], pa.timestamp("us", "UTC"))
        for annotation, values in ((AwareDatetime, naive), (dt.datetime, aware)):
            only(pa.table({"value": values}), create_model("Model", value=(annotation, ...)))

    def test_a_midnight_is_a_date_and_an_afternoon_is_none(self) -> None:
        assert one(dt.date, [dt.datetime(2020, 1, 1)]) == [dt.date(2020, 1, 1)]
        table = pa.table({"value": [dt.datetime(2020, 1, 1), dt.datetime(2020, 1, 1, 12)]})
        assert only(table, create_model("Model", value=(dt.date, ...))).rows == (1,)

    def test_decimals_are_taken_where_they_are_exact(self) -> None:
        annotation = Annotated[Decimal, Field(max_digits=5, decimal_places=2)]
        assert one(annotation, pa.array([Decimal("1.500")], pa.decimal128(9, 3))) == [Decimal("1.50")]
        assert one(annotation, [3]) == [Decimal("3.00")]
        table = pa.table({"value": pa.array([Decimal("1.500"), Decimal("1.505")], pa.decimal128(9, 3))})
        assert only(table, create_model("Model", value=(annotation, ...))).rows == (1,)

    @pytest.mark.parametrize("value", [1.115, math.nan, 1e9])
    def test_a_float_that_is_no_such_decimal_is_refused_with_its_row(self, value: float) -> None:
        annotation = Annotated[Decimal, Field(max_digits=5, decimal_places=2)]
        assert one(annotation, [1.5]) == [Decimal("1.50")]
        assert only(pa.table({"value": [1.5, value]}), create_model("Model", value=(annotation, ...))).rows == (1,)

    def test_a_text_that_is_no_url_is_refused_with_its_row(self) -> None:
        table = pa.table({"value": ["https://example.org/a", "not a url"]})
        assert only(table, create_model("Model", value=(HttpUrl, ...))).rows == (1,)

    def test_paths_are_text_and_need_not_exist(self) -> None:
        assert one(Path, ["/nowhere/a.epw", "b"]) == ["/nowhere/a.epw", "b"]

    def test_identifiers_are_text_in_any_spelling_that_uuid_reads(self) -> None:
        one_id = uuid.uuid4()
        assert one(uuid.UUID, [str(one_id).upper(), one_id.hex]) == [str(one_id)] * 2
        problem = only(pa.table({"value": [str(one_id), "x"]}), create_model("Model", value=(uuid.UUID, ...)))
        assert problem.rows == (1,)

    def test_an_enum_of_numbers_is_taken_by_value_and_by_name(self) -> None:
        class Storeys(enum.IntEnum):
            ONE = 1
            TWO = 2

        assert one(Storeys, [1, 2]) == ["ONE", "TWO"]
        assert one(Storeys, ["ONE", "TWO"]) == ["ONE", "TWO"]


class Wall(BaseModel):
    u: float = Field(gt=0)
    layers: dict[str, float] = {}


class Rich(BaseModel):
    """A model with rules of its own and nested types."""

    name: str = Field(alias="Name")
    share: float = Field(ge=0, le=1)
    wall: Wall
    hours: list[Annotated[int, Field(lt=24)]] = []
    tags: dict[str, int] = {}
    when: dt.timedelta | None = None

    @field_validator("share", mode="before")
    @classmethod
    def _percent(cls, value: float) -> float:
        return value / 100

    @model_validator(mode="after")
    def _named(self) -> Rich:
        if self.name == "forbidden":
            raise ValueError("that name is taken")
        return self


class TestThroughPydantic:
    def test_validators_run_once_and_nested_values_fit(self) -> None:
        table = pa.table(
            {
                "Name": ["a", "b"],
                "share": [50.0, 100.0],
                "wall": [{"u": 1, "layers": None}, {"u": 2, "layers": None}],
                "hours": [[1, 2], []],
                "tags": pa.array([[("x", 1)], []], pa.map_(pa.string(), pa.int64())),
                "when": pa.array([dt.timedelta(1), None]),
            }
        )
        table = table.set_column(2, "wall", pa.array([{"u": 1.0}, {"u": 2.0}]))
        conformed = conform(table, compile_model(Rich))
        assert conformed.schema == compile_model(Rich).schema.arrow
        assert conformed.column("share").to_pylist() == [0.5, 1.0]
        assert conformed.column("wall").to_pylist() == [{"u": 1.0, "layers": []}, {"u": 2.0, "layers": []}]
        assert conformed.column("tags").to_pylist() == [[("x", 1)], []]
        assert conformed.column("when").to_pylist() == [86_400_000_000, None]

    def test_fields_may_be_named_by_field_too(self) -> None:
        table = pa.table({"name": ["a"], "share": [0.0], "wall": [{"u": 1.0}]})
        assert conform(table, compile_model(Rich)).column("name").to_pylist() == ["a"]

    def test_broken_rules_are_told_by_path_and_rows(self) -> None:
        n = 30
        table = pa.table(
            {
                "name": ["forbidden" if i == 7 else "a" for i in range(n)],
                "share": [200.0 if i >= 15 else 0.0 for i in range(n)],
                "wall": [{"u": -1.0 if i == 3 else 1.0} for i in range(n)],
                "hours": [[1, 25] if i == 4 else [] for i in range(n)],
            }
        )
        found = {p.column: p for p in problems(table, Rich)}
        assert found["share"].rows == tuple(range(15, n))
        assert str(found["share"]).endswith("(15 rows: 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, …)")
        assert found["wall.u"].rows == (3,)
        assert found["hours.1"].rows == (4,)
        assert found["Rich"].rows == (7,)
        assert "that name is taken" in found["Rich"].rule

    def test_maps_inside_nested_values_are_taken(self) -> None:
        wall = pa.array(
            [{"u": 1.0, "layers": [("brick", 0.1)]}],
            pa.struct([("u", pa.float64()), ("layers", pa.map_(pa.string(), pa.float64()))]),
        )
        table = pa.table({"name": ["a"], "share": [0.0], "wall": wall})
        assert conform(table, compile_model(Rich)).column("wall").to_pylist() == [
            {"u": 1.0, "layers": [("brick", 0.1)]}
        ]

    def test_what_the_schema_itself_stores_of_nested_values_is_taken(self) -> None:
        class Nested(BaseModel):
            pair: tuple[int, str]
            pairs: list[tuple[int, str]]
            walls: list[Wall]
            by_name: dict[str, list[int]]

        original = Nested(pair=(1, "a"), pairs=[(2, "b")], walls=[Wall(u=1, layers={"a": 1})], by_name={"x": [1]})
        compiled = compile_model(Nested)
        stored = models_to_arrow([original], compiled)
        assert conform(stored, compiled).equals(stored)

    def test_fields_of_several_aliases_may_be_named_by_field_too(self) -> None:
        class Model(BaseModel):
            hours: list[int] = Field(validation_alias=AliasChoices("h", "Hours"))

        for name in ("hours", "h", "Hours"):
            assert conform(pa.table({name: [[1]]}), compile_model(Model)).to_pylist() == [{"hours": [1]}], name

    def test_rows_are_counted_over_batches(self) -> None:
        n = 20_050
        share = np.zeros(n)
        share[20_000] = 200.0
        wall = pa.array([{"u": 1.0}]).take(pa.array(np.zeros(n, np.int64)))
        table = pa.table({"name": ["a"] * n, "share": share, "wall": wall})
        assert only(table, Rich).rows == (20_000,)

    def test_an_empty_frame_fits_a_model_with_validators(self) -> None:
        table = pa.table({"name": ["a"], "share": [0.0], "wall": [{"u": 1.0}]}).slice(0, 0)
        conformed = conform(table, compile_model(Rich))
        assert conformed.num_rows == 0
        assert conformed.schema == compile_model(Rich).schema.arrow
