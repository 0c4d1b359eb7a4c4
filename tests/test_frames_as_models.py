"""`allocate(frame)` is `allocate(models)` of the same values: for every kind, over every library and its dtypes."""

import copy
import datetime as dt
import enum
import functools
import uuid
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import (
    AfterValidator,
    AliasPath,
    AnyUrl,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    RootModel,
    ValidationError,
    computed_field,
    create_model,
    model_serializer,
)

from scythe import ExperimentInputSpec, ExperimentOutputSpec, FileReference
from scythe.allocate.inputs import prepare_inputs
from scythe.define.experiment import ExperimentOptions, define
from scythe.errors import ScytheError


class Out(ExperimentOutputSpec):
    y: int = 0


class Fuel(enum.Enum):
    GAS = "gas"
    OIL = "oil"
    COAL = "coal"


class Storeys(enum.IntEnum):
    ONE = 1
    TWO = 2


class Pane(BaseModel):
    u: float = Field(gt=0)
    note: str | None = "none"


class Share(BaseModel):
    model_config = ConfigDict(alias_generator=lambda name: name.upper())
    share: Annotated[float, AfterValidator(lambda v: v / 100)] = 50.0
    fuel: Fuel = Fuel.GAS


class Names(RootModel[list[str]]):
    pass


@pytest.fixture(autouse=True)
def _here(root: Path) -> None:
    """An empty root."""


FLOATS = st.floats(allow_nan=False, width=32)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=6)
DAYS = st.dates(dt.date(1900, 1, 1), dt.date(2200, 1, 1))
INSTANTS = st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2200, 1, 1))
PANES = st.fixed_dictionaries({"u": st.one_of(st.floats(0.125, 9, width=32), st.just(-1.0))}, optional={"note": TEXTS})

#: Kind -> annotation and the Python values that are given for it, good ones and bad ones.
KINDS: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "bool": (bool, st.booleans()),
    "int": (Annotated[int, Field(ge=-10)], st.integers(-12, 2**40)),
    "int or None": (int | None, st.none() | st.integers(-5, 5)),
    "float": (float, FLOATS | st.just(float("nan"))),
    "float or None": (Annotated[float, Field(lt=1e30)] | None, st.none() | FLOATS),
    "whole numbers for floats": (float, st.integers(-5, 5)),
    "decimal": (Annotated[Decimal, Field(max_digits=8, decimal_places=2)], st.decimals(-999, 999, places=2)),
    "str": (Annotated[str, Field(max_length=5)], TEXTS),
    "bytes": (bytes, st.binary(max_size=5)),
    "date": (dt.date, DAYS),
    "time": (dt.time, st.times()),
    "datetime": (dt.datetime, INSTANTS),
    "aware": (AwareDatetime, INSTANTS.map(lambda v: v.replace(tzinfo=dt.UTC))),
    "timedelta": (dt.timedelta, st.timedeltas(dt.timedelta(-1000), dt.timedelta(1000))),
    "uuid": (uuid.UUID, st.uuids().map(str)),
    "path": (Path, st.sampled_from(["a//b", "./c", "d.csv", "https://x"])),
    "url": (AnyUrl, st.sampled_from(["http://A.com", "file:///a%20b", "no url"])),
    "enum": (Fuel, st.sampled_from(["gas", "oil", "GAS", "wood"])),
    "enum of numbers": (Storeys, st.integers(0, 3)),
    "literal of members": (Literal[Fuel.GAS, Fuel.OIL], st.sampled_from(["gas", "coal", "oil"])),
    "literal": (Literal["a", "b"], st.sampled_from(["a", "b", "c"])),
    "literal of numbers": (Literal[1, 2], st.integers(1, 3)),
    "list": (list[float], st.lists(FLOATS, max_size=3)),
    "list with rules": (list[Annotated[int, Field(gt=0)]], st.lists(st.integers(0, 5), max_size=3)),
    "list of days": (list[dt.date | None], st.lists(st.none() | DAYS, max_size=3)),
    "set": (set[int], st.lists(st.integers(0, 5), max_size=3)),
    "tuple": (tuple[float, float], st.lists(FLOATS, min_size=2, max_size=2)),
    "root model": (Names, st.lists(TEXTS, max_size=2)),
    "model": (Pane, PANES),
    "model or None": (Pane | None, st.none() | PANES),
    "model with aliases": (Share, st.fixed_dictionaries({"SHARE": FLOATS, "FUEL": st.sampled_from(["gas", "wood"])})),
    "list of models": (list[Pane], st.lists(PANES, max_size=2)),
    "map": (dict[str, float | None], st.dictionaries(st.sampled_from(["n", "s"]), FLOATS, max_size=2)),
    "map of lists": (dict[Fuel, list[int]], st.dictionaries(st.sampled_from(["gas", "oil"]), st.lists(st.integers(0, 9)))),
    "own validator": (Annotated[float, AfterValidator(lambda v: v * 2)], FLOATS),
    "validator before": (Annotated[float, BeforeValidator(lambda v: str(v).removesuffix(" m"))], st.sampled_from(["1 m", "2.5", "x"])),
    "strict": (Annotated[Fuel, Field(strict=True)] | None, st.none()),
}  # fmt: skip


def _polars(rows: list[dict[str, Any]]) -> Any:
    return pl.DataFrame(rows, infer_schema_length=None)


def _arrow(rows: list[dict[str, Any]]) -> Any:
    return pa.Table.from_pylist(rows)


def _pandas(rows: list[dict[str, Any]]) -> Any:
    return pd.DataFrame(rows)


def _objects(rows: list[dict[str, Any]]) -> Any:
    return pd.DataFrame(rows, dtype=object)


def _nullable(rows: list[dict[str, Any]]) -> Any:
    return pd.DataFrame(rows).convert_dtypes()


def _arrow_backed(rows: list[dict[str, Any]]) -> Any:
    return pd.DataFrame(rows).convert_dtypes(dtype_backend="pyarrow")


LIBRARIES = [_polars, _arrow, _pandas, _objects, _nullable, _arrow_backed]


def _as_models(model: type[ExperimentInputSpec], rows: list[dict[str, Any]]) -> list[Any] | None:
    """The models of these values, None where pydantic refuses one."""
    try:
        return [model(experiment_id="e", sort_index=i, **row) for i, row in enumerate(rows)]
    except ValidationError:
        return None


def _given(frame: Any, kind: str) -> list[Any]:
    """The values that a frame really holds, as its own library gives them."""
    if not isinstance(frame, pd.DataFrame):
        values = frame["x"].to_list() if isinstance(frame, pl.DataFrame) else frame["x"].to_pylist()
        return [Fuel(v) if kind == "literal of members" else v for v in values]
    values = [None if v is pd.NA or v is pd.NaT else v for v in frame["x"].tolist()]
    if frame["x"].dtype == "float64" and isinstance(frame["x"].dtype, np.dtype) and kind != "float":
        values = [None if v != v else v for v in values]
    return [Fuel(v) if kind == "literal of members" else v for v in values]


def _compare(kind: str, values: list[Any], make: Callable[[list[dict[str, Any]]], Any]) -> None:
    model: Any = create_model("In", __base__=ExperimentInputSpec, x=(KINDS[kind][0], ...))

    def f(spec: Any) -> Any: ...

    f.__annotations__ = {"spec": model, "return": Out}
    experiment = define(f, "f", ExperimentOptions())
    try:
        frame = make([{"x": v} for v in values])
    except Exception:
        return
    models = _as_models(model, [{"x": v} for v in _given(frame, kind)])
    if models is None:
        with pytest.raises(ScytheError):
            prepare_inputs(frame, experiment, overwrite_sort_index=True)
        return
    wanted = prepare_inputs(models, experiment, overwrite_sort_index=True).table
    got = prepare_inputs(frame, experiment, overwrite_sort_index=True).table
    assert repr(got.column("x").to_pylist()) == repr(wanted.column("x").to_pylist())
    assert got.schema.field("x") == wanted.schema.field("x")


@pytest.mark.parametrize("make", LIBRARIES, ids=lambda f: f.__name__.strip("_"))
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)  # fmt: skip
@given(data=st.data())
def test_a_frame_gives_what_models_of_its_values_give(kind: str, make: Any, data: st.DataObject) -> None:
    _compare(kind, data.draw(st.lists(KINDS[kind][1], min_size=1, max_size=4)), make)


def _prepared_of(kind: Any, specs: Any) -> list[Any]:
    """What `allocate` makes of the values of a field of this type."""
    model: Any = create_model("In", __base__=ExperimentInputSpec, x=(kind, ...))

    def f(spec: Any) -> Any: ...

    f.__annotations__ = {"spec": model, "return": Out}
    experiment = define(f, "f", ExperimentOptions())
    return prepare_inputs(specs, experiment, overwrite_sort_index=True).table.column("x").to_pylist()


def _table_of(kind: Any, values: pl.Series | pa.ChunkedArray | pa.Array) -> list[Any]:
    """What `allocate` makes of a column of these values for a field of this type."""
    frame = pl.DataFrame({"x": values}) if isinstance(values, pl.Series) else pa.table({"x": values})
    return _prepared_of(kind, frame)


@given(st.permutations(["item_0", "item_1", "item_2"]), st.lists(FLOATS, min_size=3, max_size=3))
def test_the_members_of_a_struct_are_places_of_a_tuple_by_their_names(order: list[str], found: list[float]) -> None:
    value = dict(zip(order, found, strict=True))
    wanted = {name: value[name] for name in sorted(value)}

    for nested, kind in ((value, tuple[float, float, float]), ([value], list[tuple[float, float, float]])):
        for column in (pl.Series([nested], strict=False), pa.array([nested])):
            (got,) = _table_of(kind, column)
            assert repr(got) == repr([wanted] if isinstance(nested, list) else wanted)


def test_members_of_other_names_are_no_places_and_no_pairs() -> None:
    for value in ({"x": 1.0, "y": 2.0}, {"item_0": 1.0}, {"item_0": 1.0, "item_1": 2.0, "item_2": 3.0}):
        with pytest.raises(ScytheError, match="must be struct of item_0, item_1"):
            _table_of(tuple[float, float], pl.Series([value]))
    with pytest.raises(ScytheError, match="must be map"):
        _table_of(dict[str, float], pl.Series([[{"name": "a", "size": 1.0}]]))


def test_pairs_are_a_map_by_the_names_of_their_members_and_a_key_stands_once() -> None:
    pairs = [{"value": "v", "key": "k"}, {"value": "w", "key": "l"}]

    assert _table_of(dict[str, str], pl.Series([pairs])) == [[("k", "v"), ("l", "w")]]
    with pytest.raises(ScytheError, match="a key of it stands twice"):
        _table_of(dict[str, str], pl.Series([[*pairs, {"value": "v", "key": "k"}]]))


def test_a_null_hides_no_other_problem_of_its_column() -> None:
    class Bounded(ExperimentInputSpec):
        length: float = Field(gt=0, le=20)

    def f(spec: Bounded) -> Out: ...

    experiment = define(f, "f", ExperimentOptions())
    with pytest.raises(
        ScytheError, match=r"(?s)must not be null \(2 rows: 1, 3\).*must be <= 20, got 99.0 \(1 row: 2\)"
    ):
        prepare_inputs(pl.DataFrame({"length": [1.0, None, 99.0, None]}), experiment, overwrite_sort_index=True)


@pytest.mark.parametrize("value", [[1, 2**53 + 1], {"a": 2**53 + 1}, {"item_0": 1, "item_1": 2**53 + 1}])
def test_a_whole_number_that_no_float_is_is_refused_wherever_it_stands(value: Any) -> None:
    kind: Any = list[float] if isinstance(value, list) else dict[str, float] if "a" in value else tuple[float, float]
    for column in (pl.Series([value], strict=False), pa.array([value])):
        with pytest.raises(ScytheError, match="the integer 9007199254740993 has no exact 64-bit float"):
            _table_of(kind, column)


def _taking(**fields: Any) -> Any:
    """An experiment whose inputs have these fields."""
    model: Any = create_model(
        "Given", __base__=ExperimentInputSpec, **{name: (kind, ...) for name, kind in fields.items()}
    )

    def f(spec: Any) -> Out: ...

    f.__annotations__["spec"] = model
    return define(f, "f", ExperimentOptions())


BEYOND: list[Any] = [
    np.int64(2**53 + 1),
    np.uint64(2**64 - 1),
    Decimal(2**53 + 1),
    np.longdouble(2**53) + 1,
    Decimal("1e400"),
    Decimal("1e-400"),
]


@pytest.mark.parametrize("value", BEYOND, ids=repr)
@pytest.mark.parametrize("kind", [float, list[float], dict[str, float]], ids=str)
def test_numbers_of_numpy_and_decimals_that_no_float_is_are_refused_as_whole_numbers_are(kind: Any, value: Any) -> None:
    """Also where nobody has validated them, in a model that was changed."""
    fine, wrong = ({float: v, list[float]: [v], dict[str, float]: {"a": v}}[kind] for v in (Decimal("0.1"), value))
    experiment = _taking(v=kind)
    model = experiment.input_model
    tables = [pl.DataFrame({"v": [wrong]})] if kind is float and value is BEYOND[2] else []
    for specs in ([{"v": wrong}], [model(v=fine).model_copy(update={"v": wrong})], *tables):
        with pytest.raises(ScytheError, match=r"v: must be .*float"):
            prepare_inputs(specs, experiment, overwrite_sort_index=True)
    prepare_inputs([{"v": fine}], experiment, overwrite_sort_index=True)


@pytest.mark.parametrize(
    ("kind", "values", "words"),
    [
        (float, [0.5, np.longdouble("0.1")], r"longdouble\('0.1'\) in row 1 has more digits .*astype\(float\)"),
        (float, [Decimal("0.5"), Decimal("1e400")], r"Decimal\('1E\+400'\) in row 1 has more than 38 digits"),
        (float, [Decimal("0.5"), Decimal("NaN")], r"Decimal\('NaN'\) in row 1 is no number .*: give None"),
        (float | None, [None, Decimal("-Infinity")], r"Decimal\('-Infinity'\) in row 1 is no number .*: give None"),
        (dt.datetime, [np.datetime64("2024-01-01")], r"'2024-01-01'\) in row 0 has a unit .*pd.to_datetime\(frame\['v'\]\)"),
        (dt.timedelta, [np.timedelta64(5, "m")], r"\(5,'m'\) in row 0 has a unit .*pd.to_timedelta\(frame\['v'\]\)"),
        (dt.timedelta, [np.timedelta64(5, "us"), np.timedelta64(5, "s")], r"\(5,'us'\) in row 0 has a unit .*pd.to_timedelta"),
    ],
)  # fmt: skip
def test_an_object_of_pandas_that_no_column_holds_is_named_with_its_row_and_the_way_out(
    kind: Any, values: list[Any], words: str
) -> None:
    frame = pd.DataFrame({"v": pd.Series(values, dtype=object)})
    with pytest.raises(ScytheError, match=rf"^v: .*{words}"):
        prepare_inputs(frame, _taking(v=kind), overwrite_sort_index=True)


@pytest.mark.parametrize(
    ("kind", "values", "convert"),
    [
        (dt.datetime, [np.datetime64("2024-01-01"), np.datetime64("2024-01-01T05", "h")], pd.to_datetime),
        (dt.timedelta, [np.timedelta64(5, "m"), np.timedelta64(5, "us")], pd.to_timedelta),
    ],
)
def test_the_way_out_for_objects_of_numpy_is_one(kind: Any, values: list[Any], convert: Callable[[Any], Any]) -> None:
    column = convert(pd.Series(values, dtype=object))
    made = prepare_inputs(pd.DataFrame({"v": column}), _taking(v=kind), overwrite_sort_index=True)
    plain = [v.astype(f"{v.dtype.kind}8[us]").item() for v in values]
    asked = prepare_inputs([{"v": v} for v in plain], _taking(v=kind), overwrite_sort_index=True)
    assert made.table.column("v") == asked.table.column("v")


def test_nat_of_numpy_among_objects_is_null() -> None:
    frame = pd.DataFrame({"v": pd.Series([np.timedelta64("NaT"), dt.timedelta(1)], dtype=object)})
    made = prepare_inputs(frame, _taking(v=dt.timedelta | None), overwrite_sort_index=True)
    assert made.table.column("v").to_pylist() == [None, 86_400_000_000]


class Levels(RootModel[list[float]]):
    pass


class Costs(RootModel[dict[str, float]]):
    pass


@pytest.mark.parametrize("number", [2**53 + 1, np.int64(2**53 + 1), Decimal(2**53 + 1)], ids=repr)
@pytest.mark.parametrize(
    ("kind", "around"),
    [
        (tuple[float, int], lambda n: (n, 1)), (tuple[float, int], lambda n: [n, 1]), (set[float], lambda n: {n}),
        (frozenset[tuple[float, str]], lambda n: frozenset({(n, "a")})), (list[tuple[float, int]], lambda n: [(n, 1)]),
        (Levels, lambda n: [n]), (Costs, lambda n: {"a": n}),
    ],
)  # fmt: skip
def test_numbers_that_no_float_is_are_refused_in_tuples_sets_and_root_models(
    kind: Any, around: Callable[[Any], Any], number: Any
) -> None:
    experiment = _taking(v=kind)
    with pytest.raises(ScytheError, match=r"v: must be .*has no exact 64-bit float"):
        prepare_inputs([{"v": around(number)}], experiment, overwrite_sort_index=True)
    made = prepare_inputs([{"v": around(2)}], experiment, overwrite_sort_index=True)
    asked = prepare_inputs([experiment.input_model(v=around(2))], experiment, overwrite_sort_index=True)
    assert made.table.column("v") == asked.table.column("v")


@pytest.mark.parametrize(
    ("kind", "column"),
    [
        (tuple[float, float], lambda n: [[n, 1]]), (Levels, lambda n: [[n]]), (Levels, lambda n: [{"root": [n]}]),
        (Costs, lambda n: [{"a": n}]),
    ],
)  # fmt: skip
def test_whole_numbers_that_no_float_is_are_refused_in_columns_of_tuples_and_root_models(
    kind: Any, column: Callable[[int], list[Any]]
) -> None:
    experiment = _taking(v=kind)
    with pytest.raises(ScytheError, match=r"v: must be .*has no exact 64-bit float"):
        prepare_inputs(pl.DataFrame({"v": column(2**53 + 1)}), experiment, overwrite_sort_index=True)
    prepare_inputs(pl.DataFrame({"v": column(2)}), experiment, overwrite_sort_index=True)


def test_nanoseconds_of_numpy_are_seconds_to_a_model_of_pydantic_and_refused_in_dicts_and_frames() -> None:
    """As docs/models.md tells."""
    experiment, value = _taking(v=dt.timedelta), np.timedelta64(5, "ns")
    assert experiment.input_model(v=value).model_dump()["v"] == dt.timedelta(seconds=5)
    for specs in ([{"v": value}], pd.DataFrame({"v": [value]}), pl.DataFrame({"v": np.array([value])})):
        with pytest.raises(ScytheError, match="v: must be duration"):
            prepare_inputs(specs, experiment, overwrite_sort_index=True)


class Paint(enum.Enum):
    RED = 1
    CRIMSON = 1
    BLUE = 2


class OnlyRed(enum.Enum):
    RED = "r"
    CRIMSON = "r"


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        (Paint, "CRIMSON", "(Input should be 1 or 2|must be one of 'RED', 'BLUE')"), (list[Paint], ["CRIMSON"], "Input should be 1 or 2, got"),
        (OnlyRed, "x", "(Input should be|must be one of) '(r|RED)'"), (dict[str, OnlyRed], {"a": "x"}, "Input should be 'r', got"),
    ],
)  # fmt: skip
def test_values_of_an_enum_under_two_names_are_told_once(kind: Any, value: Any, words: str) -> None:
    for specs in ([{"v": value}], pl.DataFrame({"v": [value]})):
        with pytest.raises(ScytheError, match=words) as told:
            prepare_inputs(specs, _taking(v=kind), overwrite_sort_index=True)
        assert "1, 1" not in str(told.value)


def _same(value: Any) -> Any:
    return value


@pytest.mark.parametrize("value", [np.timedelta64(5, "ns"), np.timedelta64(5, "M"), np.timedelta64(5)], ids=repr)
def test_a_duration_of_numpy_is_no_count_of_seconds_to_a_validator_of_the_model(value: Any) -> None:
    """NumPy gives Python a bare count of what Python's own durations have not, and pydantic takes one for seconds."""
    experiment = _taking(
        v=Annotated[dt.timedelta, BeforeValidator(_same)], l=Annotated[list[dt.timedelta], BeforeValidator(_same)]
    )
    whole = np.timedelta64(7_000, "ns")
    for v, many in ((value, [whole]), (whole, [value]), (whole, np.array([value]))):
        with pytest.raises(ScytheError, match=r"has (nanoseconds, which are not stored|no length)"):
            prepare_inputs([{"v": v, "l": many}], experiment, overwrite_sort_index=True)
    made = prepare_inputs([{"v": whole, "l": np.array([whole])}], experiment, overwrite_sort_index=True)
    assert made.table.select(["v", "l"]).to_pylist() == [{"v": 7, "l": [7]}]


def test_bytes_and_texts_of_numpy_keep_zeros_at_their_ends() -> None:
    experiment = _taking(b=bytes, t=str, l=list[bytes])
    specs = [{"b": np.bytes_(b"a\0"), "t": np.str_("a\0"), "l": [np.bytes_(b"\0\0")]}]
    made = prepare_inputs(specs, experiment, overwrite_sort_index=True)
    assert made.table.select(["b", "t", "l"]).to_pylist() == [{"b": b"a\0", "t": "a\0", "l": [b"\0\0"]}]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (dt.datetime, pd.Timestamp("2024-01-01 00:00:00.000000999")), (AwareDatetime, pd.Timestamp("2024-01-01 00:00:00.000000999", tz="UTC")),
        (dt.timedelta, pd.Timedelta("999ns")), (dt.timedelta, pd.Timedelta("-1s 1ns")),
    ],
)  # fmt: skip
def test_nanoseconds_in_a_column_of_objects_are_refused_as_they_are_elsewhere(kind: Any, value: Any) -> None:
    experiment = _taking(v=kind)
    whole = value.round("us")
    for values in (
        [value],
        [whole, None, value],
        [whole, whole, value],
    ):
        frame = pd.DataFrame({"v": pd.Series(values, dtype=object)})
        with pytest.raises(
            ScytheError, match=f"v: .* in row {len(values) - 1} has nanoseconds, which are not stored: round"
        ):
            prepare_inputs(frame, experiment, overwrite_sort_index=True)
    prepare_inputs(pd.DataFrame({"v": pd.Series([whole], dtype=object)}), experiment, overwrite_sort_index=True)


# --- names within nested values -----------------------------------------------------------------------


class Panel(BaseModel):
    model_config = ConfigDict(extra="ignore")
    width: float = 1.0


class House(BaseModel):
    pane: Pane = Pane(u=1)
    panes: list[Pane] = []
    by_side: dict[str, Pane] = {}
    pair: tuple[Pane, Pane] = (Pane(u=1), Pane(u=2))
    share: Share = Share()
    panel: Panel = Panel()

    @computed_field
    @property
    def area(self) -> float:
        return 1.0


PANE = {"u": 1.0, "note": "n"}
HOUSE = {"pane": PANE, "panes": [PANE, PANE], "by_side": {"north": PANE}, "pair": [PANE, PANE], "share": {"SHARE": 5.0, "fuel": "gas"}, "panel": {"width": 2.0}}  # fmt: skip
#: Where a name may be misspelt, and what the message calls the place.
PLACES: dict[str, tuple[list[Any], str]] = {
    "a model": (["pane"], "x.pane"),
    "a list": (["panes", 1], "x.panes"),
    "a map": (["by_side", "north"], "x.by_side.north"),
    "a tuple": (["pair", 0], "x.pair"),
    "aliases": (["share"], "x.share"),
    "the field itself": ([], "x"),
}
MADE = [*LIBRARIES, lambda rows: rows]


@pytest.mark.parametrize("make", MADE, ids=lambda f: f.__name__.strip("_"))
@pytest.mark.parametrize("place", PLACES)
def test_a_name_within_a_value_that_no_field_takes_is_refused(place: str, make: Any) -> None:
    path, shown = PLACES[place]
    value = copy.deepcopy(HOUSE)
    functools.reduce(lambda at, step: at[step], path, cast(Any, value))["nte"] = 1.0
    with pytest.raises(ScytheError, match=rf"{shown}\.nte: is not a field of (Pane|Share|House)"):
        _prepared_of(House, make([{"x": HOUSE}, {"x": value}]))


@pytest.mark.parametrize("make", MADE, ids=lambda f: f.__name__.strip("_"))
def test_names_that_are_taken_or_passed_over_on_purpose_are_not(make: Any) -> None:
    value = HOUSE | {"area": 1.0, "panel": {"width": 2.0, "colour": "red"}}
    found = _prepared_of(House, make([{"x": value}]))[0]
    assert (found["panel"], found["share"]) == ({"width": 2.0}, {"share": 0.05, "fuel": "gas"})


class Aliased(BaseModel):
    model_config = ConfigDict(alias_generator=str.upper, populate_by_name=True)
    width: float

    @computed_field(alias="Half")
    @property
    def half(self) -> float:
        return self.width / 2


class Served(BaseModel):
    width: float

    @model_serializer(mode="wrap")
    def dumped(self, handler: Any) -> Any:
        return {**handler(self), "unit": "m"}


class Sides(BaseModel):
    left: tuple[Pane, Panel]
    share: Aliased
    served: Served
    depth: float = Field(0.0, validation_alias=AliasPath("share", "depth"))


@pytest.mark.parametrize("make", MADE, ids=lambda f: f.__name__.strip("_"))
@pytest.mark.parametrize("by_alias", [False, True])
def test_what_a_model_is_dumped_to_is_taken_back(make: Any, by_alias: bool) -> None:
    value = Sides(left=(Pane(u=1), Panel()), share=Aliased(width=3), served=Served(width=2)).model_dump(
        by_alias=by_alias
    )
    (found,) = _prepared_of(Sides, make([{"x": value}]))
    assert (found["share"], found["served"]) == ({"width": 3.0}, {"width": 2.0})


@pytest.mark.parametrize("make", MADE, ids=lambda f: f.__name__.strip("_"))
def test_what_another_field_takes_by_a_path_is_no_stranger(make: Any) -> None:
    value = {"left": [PANE, {"width": 2.0}], "share": {"width": 3.0, "depth": 7.0}, "served": {"width": 2.0}}
    (found,) = _prepared_of(Sides, make([{"x": value}]))
    assert found["depth"] == 7.0
    assert found["left"] == {"item_0": {"u": 1.0, "note": "n"}, "item_1": {"width": 2.0}}


def test_of_many_strangers_the_first_are_told() -> None:
    with pytest.raises(ScytheError, match=r"(?s)3000 problems.*… and 2,950 more$"):
        _prepared_of(Pane, [{"x": {"u": 1.0, **{f"n{i}": 1 for i in range(3000)}}}])


def test_the_rows_that_have_a_misspelt_name_are_named_and_the_nearest_field() -> None:
    rows = [{"x": PANE}, {"x": {"u": 1.0, "note_": "n"}}, {"x": PANE}, {"x": {"u": 1.0, "note_": "m"}}]
    with pytest.raises(ScytheError, match=r"x\.note_: is not a field of Pane; did you mean 'note'\? \(2 rows: 1, 3\)"):
        _prepared_of(Pane, rows)


@pytest.mark.parametrize("kind", [FileReference, Pane, int, list[int], Fuel, int | float], ids=str)
def test_none_where_a_value_must_be_is_one_problem_in_dicts_too(kind: Any) -> None:
    with pytest.raises(ScytheError, match=r"1 problem with the values\n  x: must not be null \(1 row: 0\)$"):
        _prepared_of(kind, [{"x": None}])


@pytest.mark.parametrize(
    ("kind", "frame", "told"),
    [
        (int, pl.DataFrame({"v": pl.Series([1, None, 2**62], dtype=pl.Int128)}), None),
        (int, pl.DataFrame({"v": pl.Series([1, 2**64], dtype=pl.Int128)}), ".v. .* beyond 64 bits, such as 18446744073709551616"),
        (int, pl.DataFrame({"v": pl.Series([2**65], dtype=pl.UInt128)}), ".v. .* beyond 64 bits"),
        (list[int], pl.DataFrame({"v": pl.Series([[1]], dtype=pl.List(pl.Int128))}), r".v. holds List\(Int128\)"),
        (dt.timedelta, pa.table({"v": pa.array([2**60], pa.duration("s"))}), "v: must be duration: got '1152921504606846976'"),
        (dt.datetime, pa.table({"v": pa.array([2**55], pa.timestamp("s"))}), "v: must be timestamp: got"),
        (AwareDatetime, pl.DataFrame({"v": [dt.datetime(1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=5)))]}), "v: must be timestamp with"),
        (dict[str, int], pl.DataFrame({"v": [{"count128": 1}]}), None),
        (str, pa.table({"v": pa.RunEndEncodedArray.from_arrays([2], ["a"])}), None),
        (dt.time, pd.DataFrame({"v": [dt.time(12), dt.time(12, tzinfo=dt.UTC)]}), "v: must be time: .* has a time zone"),
    ],
    ids=range(10),
)  # fmt: skip
def test_values_that_no_column_holds_are_refused_by_name(kind: Any, frame: Any, told: str | None) -> None:
    model = create_model("In", __base__=ExperimentInputSpec, v=(kind | None, None) if kind is int else (kind, ...))

    def odd(spec: Any) -> Out:
        return Out()

    odd.__annotations__ = {"spec": model, "return": Out}
    experiment = define(odd, "odd", ExperimentOptions())
    if told is None:
        assert prepare_inputs(frame, experiment, overwrite_sort_index=True).table.num_rows == len(frame)
    else:
        with pytest.raises(ScytheError, match=told):
            prepare_inputs(frame, experiment, overwrite_sort_index=True)


class Thick(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    t: float = Field(1.0, alias="tt")


class Coat(ExperimentInputSpec):
    model_config = ConfigDict(populate_by_name=True)
    r_value: float = Field(0.0, alias="rValue")
    layer: Thick = Thick()
    layers: list[Thick] = Field(default_factory=list)


def coated(spec: Coat) -> Out:
    return Out()


@pytest.mark.parametrize("make", [pl.DataFrame, pd.DataFrame, lambda rows: rows], ids=["polars", "pandas", "dicts"])
@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (
            [{"r_value": 1.0, "rValue": 2.0}],
            "r_value: is given twice, as 'r_value' and 'rValue': give it under one name",
        ),
        ([{"r_value": 1.0}, {"rValue": 2.0}], "r_value: is given twice, as 'r_value' and 'rValue'"),
        ([{"layer": {"t": 1.0, "tt": 2.0}}], "layer.t: is given twice, once as 'tt': give it under one name"),
        ([{"layers": [{"t": 1.0}, {"tt": 2.0, "t": 1.0}]}], "layers.t: is given twice, once as 't"),
    ],
)
def test_a_field_that_is_given_under_two_of_its_names_is_refused(make: Any, rows: list[Any], told: str) -> None:
    coated.__annotations__ = {"spec": Coat, "return": Out}
    experiment = define(coated, "coated", ExperimentOptions())
    with pytest.raises(ScytheError, match=told):
        prepare_inputs(make(rows), experiment, overwrite_sort_index=True)
    fine = [{"rValue": 2.0, "layer": {"tt": 2.0}, "layers": [{"t": 1.0}]}]
    table = prepare_inputs(make(fine), experiment, overwrite_sort_index=True).table
    assert table.select(["r_value", "layer", "layers"]).to_pylist() == [
        {"r_value": 2.0, "layer": {"t": 2.0}, "layers": [{"t": 1.0}]}
    ]


@pytest.mark.parametrize("make", [pl.DataFrame, pd.DataFrame, lambda rows: rows], ids=["polars", "pandas", "dicts"])
def test_a_name_of_one_field_that_is_the_alias_of_another_is_refused(make: Any) -> None:
    class Crossing(ExperimentInputSpec):
        a: int = Field(alias="b")
        b: int = Field(alias="c")

    def crossed(spec: Crossing) -> Out:
        return Out(y=spec.a)

    crossed.__annotations__ = {"spec": Crossing, "return": Out}
    experiment = define(crossed, "crossed", ExperimentOptions())
    with pytest.raises(ScytheError, match="b: is a field, and the alias of 'a', too: give models, or another alias"):
        prepare_inputs(make([{"b": 1, "c": 2}]), experiment, overwrite_sort_index=True)
    table = prepare_inputs([Crossing(b=1, c=2)], experiment, overwrite_sort_index=True).table
    assert table.select(["a", "b"]).to_pylist() == [{"a": 1, "b": 2}]
    assert prepare_inputs(make([{"a": 1, "c": 2}]), experiment, overwrite_sort_index=True).table.num_rows == 1


@pytest.mark.parametrize(
    "make",
    [pl.DataFrame, pd.DataFrame, pa.Table.from_pylist, lambda rows: rows],
    ids=["polars", "pandas", "arrow", "dicts"],
)
@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (tuple[int, ...], (1, 2)),
        (tuple[float, ...], (1.5,)),
        (list[tuple[int, ...]], [(1,), (2, 3)]),
        (tuple[int, ...] | None, (1,)),
        (tuple[int, int], (1, 2)),
        (list[tuple[float, float]], [(1.5, 2.5)]),
    ],
)
def test_tuples_of_a_strict_model_are_taken(make: Any, kind: Any, value: Any) -> None:
    class Strict(ExperimentInputSpec):
        model_config = ConfigDict(strict=True)

    model = create_model("In", __base__=Strict, t=(kind, ...))

    def tupled(spec: Any) -> Out:
        return Out()

    tupled.__annotations__ = {"spec": model, "return": Out}
    experiment = define(tupled, "tupled", ExperimentOptions())
    wanted = prepare_inputs([model(t=value)], experiment, overwrite_sort_index=True).table["t"]
    assert prepare_inputs(make([{"t": value}]), experiment, overwrite_sort_index=True).table["t"] == wanted
