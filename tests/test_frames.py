"""Dataframes that functions return: what the table holds is what they were at that moment, or an error row says why not."""

import datetime as dt
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from pydantic import Field, create_model

import scythe
from scythe.allocate import BaseExperiment
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.errors import OutputError
from scythe.leaf import dataframes as leaf_frames
from scythe.leaf.dataframes import prepare
from scythe.record.results import RunResult
from scythe.registry import ExperimentRegistry
from scythe_catalog.schema.kinds import Float


class House(ExperimentInputSpec):
    n: int


class Load(ExperimentOutputSpec):
    y: float = 0.0


LEVELS = 5


def houses(count: int) -> list[House]:
    return [House(experiment_id="", sort_index=i, n=i) for i in range(count)]


def run(make: Callable[[int], dict[str, Any]], count: int = 3, **options: Any) -> RunResult:
    """An inline run whose input `n` returns the dataframes that `make` gives for it; failures become rows."""

    @ExperimentRegistry.Register(name="loads", retries=0)
    def loads(spec: House) -> Load:
        return Load(dataframes=make(spec.n))

    experiment = BaseExperiment(experiment=loads)
    before = {r.experiment_id for r in experiment.list_runs()}
    try:
        return experiment.allocate(houses(count), engine="inline", **options)[1].result()
    except OutputError:
        (found,) = [r for r in experiment.list_runs() if r.experiment_id not in before]
    for _ in range(count):
        try:
            return found.resume(engine="inline").result()
        except OutputError:
            continue
    return found.resume(engine="inline").result()


def table(name: str = "t", **options: Any) -> pl.DataFrame:
    return scythe.read("loads", table=name, **options)


def values(column: str = "v", **options: Any) -> list[Any]:
    return table(**options)[column].to_list()


def why() -> dict[int, str]:
    found = scythe.read("loads", table="errors")
    return dict(zip(found["sort_index"], found["exception_message"], strict=True))


# --- columns that are inputs ---


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"n": [0, 7, 0]}, "has 7 in its column 'n', where this input has 0"),
        ({"n": [0, 0, None]}, "has None in its column 'n'"),
        ({"n": ["0", "x", "0"]}, "has 'x' in its column 'n'"),
        ({"n": [0.0, 0.5, 0.0]}, "has 0.5 in its column 'n'"),
        ({"sort_index": [0, 1, 2]}, "has 1 in its column 'sort_index'"),
    ],
)
def test_a_column_with_the_name_of_an_input_and_other_values_is_refused(
    own: dict[str, Any], said: str, root: Path
) -> None:
    run(lambda n: {"t": pl.DataFrame({"sort_index": [n] * 3, "v": [1, 2, 3], **(own if n == 0 else {})}, strict=False)})

    assert set(why()) == {0}
    assert said in why()[0]
    assert set(table()["sort_index"]) == {1, 2}


class Mood(IntEnum):
    BRIGHT = 1
    DARK = 2


@pytest.mark.parametrize(
    ("kind", "value", "own"),
    [
        (float, 1 / 3, np.float32(1 / 3)),
        (float, 1 / 3, np.float16(1 / 3)),
        (float, float("nan"), None),
        (float | None, None, float("nan")),
        (Mood, Mood.DARK, 2),
        (dt.timedelta, dt.timedelta(seconds=90), 90.0),
        (dt.date, dt.date(2020, 1, 2), dt.datetime(2020, 1, 2)),
        (Annotated[Decimal, Field(max_digits=6, decimal_places=2)], Decimal("1.50"), "1.50"),
    ],
    ids=str,
)
def test_an_inputs_value_in_another_form_is_that_value(kind: Any, value: Any, own: Any, root: Path) -> None:
    given = create_model("Given", __base__=ExperimentInputSpec, x=(kind, ...))

    def formed(spec: Any) -> Any:
        return Load(dataframes={"t": pd.DataFrame({"sort_index": [spec.sort_index], "x": [own], "v": [1]})})

    formed.__annotations__ = {"spec": given, "return": Load}
    ExperimentRegistry.Register(name="formed", retries=0)(formed)
    result = BaseExperiment("formed").allocate([given(x=value)], engine="inline")[1].result()

    assert result.errors_told == "0 errors"


@pytest.mark.parametrize("dtype", [pl.Int8, pl.Float32, pl.Float64, pl.String, pl.UInt64])
def test_a_column_with_an_inputs_values_is_that_level_whatever_its_type(dtype: Any, root: Path) -> None:
    run(lambda n: {"t": pl.DataFrame({"sort_index": [n], "n": pl.Series([n], dtype=pl.Int64).cast(dtype), "v": [n]})})

    assert why() == {}
    assert table()["n"].to_list() == table()["v"].to_list() == [0, 1, 2]


# --- the moment of return ---------------------------------------------------------------------------


@pytest.mark.parametrize("made", ["arrow", "batch", "polars", "pandas", "frame of an array", "nested", "text", "bits"])
def test_a_buffer_that_is_filled_again_gives_each_input_its_own_rows(root: Path, made: str) -> None:
    buffer = np.zeros(4)
    frame = pd.DataFrame({"v": np.zeros(4)})
    letters = np.array(["a"] * 4, dtype=object)

    def make(n: int) -> dict[str, Any]:
        buffer[:] = n
        frame.iloc[:, 0] = float(n)
        letters[:] = str(n)
        flat = pa.array(buffer)
        nested = pa.StructArray.from_arrays([pa.ListArray.from_arrays([0, 1, 2, 3, 4], flat)], ["a"])
        bits = pa.BooleanArray.from_buffers(pa.bool_(), 4, [None, pa.py_buffer(buffer)])
        return {"t": {
            "arrow": lambda: pa.table({"v": flat}),
            "batch": lambda: pa.RecordBatch.from_arrays([flat], ["v"]),
            "polars": lambda: pl.DataFrame({"v": buffer}),
            "pandas": lambda: frame,
            "frame of an array": lambda: pd.DataFrame({"v": buffer}, copy=False),
            "nested": lambda: pa.table({"v": nested}),
            "text": lambda: pd.DataFrame({"v": pd.Series(letters, dtype=object)}),
            "bits": lambda: pa.table({"v": bits}),
        }[made]()}  # fmt: skip

    run(make, 3)

    low = [int(np.array([float(n)]).tobytes()[0]) for n in range(3)]
    expected: dict[str, Callable[[int], list[Any]]] = {
        "nested": lambda n: [{"a": [float(n)]}] * 4,
        "text": lambda n: [str(n)] * 4,
        "bits": lambda n: [bool(low[n] >> i & 1) for i in range(4)],
    }
    assert values() == [v for n in range(3) for v in expected.get(made, lambda n: [float(n)] * 4)(n)]


def test_a_prepared_frame_shares_no_memory_with_what_it_came_from() -> None:
    whole = pa.table({"v": np.arange(1_000_000), "s": ["text"] * 1_000_000})

    ((_, kept),) = prepare({"t": whole.slice(10, 5)})

    assert kept.get_total_buffer_size() < 1000
    assert kept["v"].to_pylist() == [10, 11, 12, 13, 14]


# --- pandas -----------------------------------------------------------------------------------------


def test_row_labels_that_a_filter_leaves_are_no_column_in_any_input(root: Path) -> None:
    hours = pd.DataFrame({"hour": range(6), "load": [5.0, 4, 3, 2, 1, 0]})

    result = run(lambda n: {"t": [hours, hours[hours.load > 2], hours[hours.load == 9], hours[::-1]][n]}, 4)

    assert (result.errors, table().columns[LEVELS:]) == (0, ["hour", "load"])
    assert values("hour") == [*range(6), 0, 1, 2, 5, 4, 3, 2, 1, 0]


def test_an_index_that_has_a_name_or_is_no_row_label_stays(root: Path) -> None:
    frames = {
        "years": pd.DataFrame({"v": [1]}, index=pd.Index([2020], name="year")),
        "days": pd.DataFrame({"v": [1]}, index=pd.DatetimeIndex(["2024-02-01"])),
        "pairs": pd.DataFrame({"v": [1]}, index=pd.MultiIndex.from_tuples([(1, "a")])),
    }

    run(lambda n: frames, 1)

    assert table("years")["year"].to_list() == [2020]
    assert table("days")["level_0"].to_list() == [dt.datetime(2024, 2, 1)]
    assert table("pairs").select("level_0", "level_1").row(0) == (1, "a")


PANDAS: dict[str, tuple[Any, list[Any]]] = {
    "Int64": (pd.array([1, None], dtype="Int64"), [1, None]),
    "string": (pd.array(["a", None], dtype="string"), ["a", None]),
    "boolean": (pd.array([True, None], dtype="boolean"), [True, None]),
    "Float32": (pd.array([1.5, None], dtype="Float32"), [1.5, None]),
    "arrow": (pd.array([1, None], dtype="int64[pyarrow]"), [1, None]),
    "arrow list": (pd.array([[1], None], dtype=pd.ArrowDtype(pa.list_(pa.int64()))), [[1], None]),
    "NaT": (pd.to_timedelta(["1h", None]), [dt.timedelta(hours=1), None]),
    "zone": (
        pd.to_datetime(["2024-03-31 01:30", None]).tz_localize("Europe/Berlin"),
        [dt.datetime(2024, 3, 31, 0, 30, tzinfo=dt.UTC), None],
    ),
    "period": (pd.PeriodIndex(["2024-01", None], freq="M"), ["2024-01", None]),
    "interval": (pd.arrays.IntervalArray.from_tuples([(0, 1), None]), ["(0.0, 1.0]", None]),
    "cut": (pd.cut([1, float("nan")], [0, 2]), ["(0, 2]", None]),
    "categorical": (pd.Categorical(["a", None]), ["a", None]),
    "days as categories": (pd.Categorical([dt.date(2024, 1, 2), None]), [dt.date(2024, 1, 2), None]),
    "sparse": (pd.arrays.SparseArray([0.0, 2.5]), [0.0, 2.5]),
    "objects": (pd.Series(["a", float("nan")], dtype=object), ["a", None]),
    "whole and not": (pd.Series([1, 2.5], dtype=object), [1.0, 2.5]),
    "lists": (pd.Series([[1.5, float("nan")], None], dtype=object), [[1.5, float("nan")], None]),
    "dicts": (pd.Series([{"a": [dt.date(2024, 1, 2)]}, None], dtype=object), [{"a": [dt.date(2024, 1, 2)]}, None]),
    "decimals": (pd.Series([Decimal("1.5"), Decimal("2.25")], dtype=object), [Decimal("1.50"), Decimal("2.25")]),
    "NumPy scalars": (pd.Series([np.float32(1.5), np.float64(2)], dtype=object), [1.5, 2.0]),
}


def test_columns_of_every_dtype_of_pandas_come_back_with_their_values(root: Path) -> None:
    result = run(lambda n: {"t": pd.DataFrame({name: column for name, (column, _) in PANDAS.items()})}, 1)

    assert result.errors == 0, scythe.read("loads", table="errors")["exception_message"].to_list()
    read = table()
    for name, (_, expected) in PANDAS.items():
        assert read[name].equals(pl.Series(name, expected, dtype=read[name].dtype, strict=False)), name


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ([dt.date(2024, 1, 1), dt.datetime(2024, 1, 1, 17)], "days and instants"),
        ([dt.timedelta(hours=1), 3600], "durations and whole numbers"),
        ([b"x", "x"], "bytes and texts"),
        ([[b"x"], ["x"]], "bytes and texts"),
        ([{"a": [dt.date(2024, 1, 1)]}, {"a": [dt.datetime(2024, 1, 1)]}], "days and instants"),
        ([dt.datetime(2024, 1, 1), dt.datetime(2024, 1, 1, tzinfo=dt.UTC)], "time zone"),
        ([dt.time(1, tzinfo=dt.UTC)], "time zone"),
        ([pd.Timestamp(1, unit="ns")], "nanoseconds"),
        ([pd.Timedelta(1, unit="ns")], "nanoseconds"),
        ([[pd.Timestamp(1, unit="ns")]], "nanoseconds"),
        ([{1: 2.0}], "the key 1"),
        ([{b"a": 2.0}], "the key b'a'"),
        ([1.5, Decimal("1.5")], "decimals and floats"),
        ([True, 1], "truth values and whole numbers"),
        ([2**70], "beyond 64 bits"),
        ([Path("a")], "Path"),
        ([1j], "complex"),
        (["\ud800"], "surrogates"),
        ([{}], "struct<>"),
        ([Decimal("NaN"), Decimal("1.5")], r"Decimal\('NaN'\) is no number that a table holds: give None"),
        ([Decimal("1.5"), Decimal("1e40")], r"Decimal\('1E\+40'\) has more than 38 digits, written out: round it"),
        ([Decimal("1.5"), Decimal("-Infinity")], r"Decimal\('-Infinity'\) is no number that a table holds: give None"),
        ([[Decimal("1.5"), Decimal("NaN")]], r"Decimal\('NaN'\) is no number"),
        ([{"a": Decimal("Infinity")}], r"Decimal\('Infinity'\) is no number"),
        ([Decimal("1.5"), Decimal("1e400")], r"Decimal\('1E\+400'\) has more than 38 digits, written out: round it"),
        ([np.longdouble("0.1")], r"longdouble\('0.1'\) has more digits than a table holds: give floats"),
        ([0.5, np.longdouble(2**53) + 1], r"longdouble\('9007199254740993.0'\) has more digits than a table holds"),
        ([[0.5, np.longdouble("0.1")]], r"longdouble\('0.1'\) has more digits than a table holds"),
        ([np.datetime64("2024-01-01")], r"datetime64\('2024-01-01'\) has a unit .*pd.to_datetime"),
        ([np.timedelta64(5, "us"), np.timedelta64(5, "ns")], r"timedelta64\(5,'us'\) has a unit .*pd.to_timedelta"),
    ],
)
def test_objects_of_unlike_sorts_are_refused_and_the_column_is_named(column: list[Any], words: str) -> None:
    with pytest.raises(OutputError, match=rf"dataframe 't': column 'v'(.|\n)*{words}"):
        prepare({"t": pd.DataFrame({"v": pd.Series(column, dtype=object)})})


def test_a_map_of_a_dataframe_in_which_a_key_stands_twice_is_refused() -> None:
    maps = pa.array([[("b", 1)], [("a", 1), ("b", 3)], [("a", 1), ("a", 2)]], pa.map_(pa.string(), pa.int64()))
    with pytest.raises(OutputError, match="dataframe 't': column 'v': a map of it has the key 'a' twice"):
        prepare({"t": pa.table({"v": maps})})
    with pytest.raises(OutputError, match="a map of it has the key 'a' twice"):
        prepare({"t": pa.table({"v": pa.array([[[("a", 1), ("a", 2)]]], pa.list_(maps.type))})})
    prepare({"t": pa.table({"v": maps[:2]})})
    nothing = pa.MapArray.from_arrays(maps.offsets, maps.keys, maps.items, mask=pa.array([False, False, True]))
    prepare({"t": pa.table({"v": nothing})})


@pytest.mark.parametrize("first", ["scythe, polars", "polars, scythe", "scythe_catalog.schema, polars, pydantic"])
def test_pandas_is_known_to_arrow_whoever_asked_for_it_before(first: str) -> None:
    told = (
        f"import {first}, importlib.util; importlib.util.find_spec('pandas')\n"
        "import pandas as pd, pyarrow as pa\n"
        "assert pa.array(pd.Series([1, None], dtype='Int64')).to_pylist() == [1, None]"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", told], check=True, timeout=120)


# --- Polars and Arrow -------------------------------------------------------------------------------


def ns(*counts: int) -> np.ndarray:
    return np.array(counts, "datetime64[ns]")


HOUR = dt.timedelta(hours=1)


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (lambda: pl.DataFrame({"v": pl.Series([object()], dtype=pl.Object)}), "Python objects"),
        (lambda: pl.DataFrame({"v": ns(1_000_001)}), "nanoseconds"),
        (lambda: pd.DataFrame({"v": ns(1_000_001)}), "nanoseconds"),
        (lambda: pl.DataFrame({"v": [[1]]}, schema={"v": pl.List(pl.Duration("ns"))}), "nanoseconds"),
        (lambda: pl.DataFrame({"v": [{"a": 1}]}, schema={"v": pl.Struct({"a": pl.Time})}), "nanoseconds"),
        (lambda: pl.DataFrame({"v": [2**70]}, schema={"v": pl.Int128}), "64 bits"),
        (
            lambda: pl.DataFrame({"v": [[1]]}, schema={"v": pl.List(pl.Int128)}),
            r"'v' holds List\(Int128\), which no table",
        ),
        (
            lambda: pd.DataFrame({"v": [2**70, 1]}),
            f"'v': it holds whole numbers beyond 64 bits, such as {2**70}: make them",
        ),
        (lambda: pd.DataFrame({"v": [1j]}), "'v': it holds complex numbers, which no table can hold"),
        (lambda: pd.DataFrame({"v": [1j, None]}, dtype=object), "'v': it holds values of the class complex, which no"),
        (lambda: pd.DataFrame({"v": [Path()]}), "'v': it holds values of the class PosixPath, which no table can hold"),
        (
            lambda: pl.DataFrame({"v": [2**63]}, schema={"v": pl.UInt64}),
            "values that a column of int64 has no place for",
        ),
        (lambda: pa.table({"v": pa.array([b"0" * 16], pa.uuid())}), "arrow.uuid"),
        (lambda: pa.table({"v": pa.array([[(1, 2)]], pa.map_(pa.int64(), pa.int64()))}), "keys of a map"),
        (lambda: pa.table({"v": pa.array([{}], pa.struct([]))}), "struct"),
        (lambda: pa.table({"v": pa.array([10**12], pa.timestamp("s"))}), "years 1 to 9999"),
        (lambda: pa.table({"v": pa.array([10**7], pa.date32())}), "years 1 to 9999"),
        (lambda: pa.table({"v": pa.array([86_400], pa.time32("s"))}), "24 hours"),
        (lambda: pa.table({"v": pa.array([Decimal(1)], pa.decimal256(50))}), "decimal256"),
        (lambda: pa.table({"v": [1], "V": [2]}), "'V'"),
        (lambda: pa.table({"é": [1], "e\u0301": [2]}), "rename one"),
        (lambda: pa.table({"v": [{"a": 1, "A": 2}]}), "'v.A'"),
        (lambda: pa.table({"v": [{"a": 1}], "v.a": [2]}), "'v.a'"),
        (lambda: pa.table({"v": [[1]], "v.element": [2]}), "'v.element'"),
        (lambda: pa.table({"": [1]}), "no name"),
    ],
)
def test_what_no_table_can_hold_is_refused_and_the_column_is_named(frame: Callable[[], Any], words: str) -> None:
    with pytest.raises(OutputError, match=rf"dataframe 't'(.|\n)*{words}"):
        prepare({"t": frame()})


def chunked(values: list[Any], dtype: pa.DataType) -> pa.Table:
    """The values behind one that is cut off by a slice."""
    return pa.table({"v": pa.array([None, *values], dtype)}).slice(1)


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (lambda: pl.DataFrame({"v": ns(1_000)}), [dt.datetime(1970, 1, 1, microsecond=1)]),
        (lambda: pl.DataFrame({"v": [2**62]}, schema={"v": pl.Int128}), [2**62]),
        (lambda: chunked([[-67, 5], [], None], pa.list_view(pa.int8())), [[-67, 5], [], None]),
        (lambda: chunked([[-67, 5], []], pa.large_list_view(pa.int8())), [[-67, 5], []]),
        (lambda: chunked([[1, 2], None], pa.list_(pa.int8(), 2)), [[1, 2], None]),
        (lambda: chunked(["a", "b" * 20], pa.string_view()), ["a", "b" * 20]),
        (lambda: chunked([b"a", b"b" * 20], pa.binary_view()), [b"a", b"b" * 20]),
        (lambda: chunked([HOUR], pa.duration("s")), [HOUR]),
        (lambda: chunked([[HOUR], [None]], pa.list_(pa.duration("s"))), [[HOUR], [None]]),
        (lambda: chunked([{"a": [HOUR]}, None], pa.struct([("a", pa.list_(pa.duration("ms")))])), [{"a": [HOUR]}, None]),
        (lambda: chunked([[("k", HOUR)]], pa.map_(pa.string(), pa.duration("ns"))), [{"k": HOUR}]),
        (lambda: pa.table({"v": pa.RunEndEncodedArray.from_arrays([2, 3], [1, 2]).slice(1)}), [1, 2]),
        (
            lambda: pa.table({"v": pa.ListArray.from_arrays([0, 2], pa.array(["a", "b"]).dictionary_encode())}),
            [["a", "b"]],
        ),
    ],
)  # fmt: skip
def test_columns_of_every_layout_of_arrow_come_back_with_their_values(
    root: Path, frame: Callable[[], Any], expected: list[Any]
) -> None:
    run(lambda n: {"t": frame()}, 1)

    assert values() == expected


# --- columns that are not the same in every input ---------------------------------------------------


def test_a_column_is_open_at_any_depth_until_an_input_has_a_value(root: Path) -> None:
    frames: list[dict[str, Any]] = [
        {"v": [None]}, {"v": [{"a": None, "l": []}]}, {"v": [{"a": None, "l": [{"b": None}]}]},
        {"v": [{"a": HOUR, "l": [{"b": 1.5}]}]}, {"v": [None]},
    ]  # fmt: skip

    result = run(lambda n: {"t": pa.table(frames[n])}, 5)

    assert result.errors == 0
    assert values() == [
        None, {"a": None, "l": []}, {"a": None, "l": [{"b": None}]}, {"a": HOUR, "l": [{"b": 1.5}]}, None,
    ]  # fmt: skip


NOTHING: dict[str, Callable[[], Any]] = {
    "NaN": lambda: pd.DataFrame({"v": [float("nan")]}),
    "NaN among objects": lambda: pd.DataFrame({"v": pd.Series([float("nan")], dtype=object)}),
    "NaT": lambda: pd.DataFrame({"v": [pd.NaT]}),
    "Float64": lambda: pl.DataFrame({"v": [None]}, schema={"v": pl.Float64}),
    "a list": lambda: pl.DataFrame({"v": [None]}, schema={"v": pl.List(pl.Int64)}),
}


@pytest.mark.parametrize("nothing", NOTHING)
@pytest.mark.parametrize("at", [0, 1])
def test_a_column_without_a_value_leaves_its_type_open_whatever_it_is_called(root: Path, nothing: str, at: int) -> None:
    result = run(lambda n: {"t": NOTHING[nothing]() if n == at else pd.DataFrame({"v": [f"text {n}"]})}, 3)

    assert result.errors == 0, why()
    assert values() == [None if n == at else f"text {n}" for n in range(3)]


def test_a_column_of_nan_alone_is_of_floats_where_no_other_input_tells_another_type(root: Path) -> None:
    result = run(lambda n: {"t": pd.DataFrame({"v": [float("nan")]})}, 2)

    assert (result.errors, values(), table()["v"].dtype) == (0, [None, None], pl.Float64)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ([None, "text", 1.5], [None, "text"]), ([None, 1.5, "text", None], [None, 1.5, None]),
        (["text", None, 1.5], ["text", None]), ([None, None, 2.5, "text", "more"], [None, None, 2.5]),
    ],
)  # fmt: skip
def test_the_lowest_input_with_a_value_tells_the_type_of_a_column(
    root: Path, given: list[Any], kept: list[Any]
) -> None:
    """Whichever inputs without a value have frames of the same type as those that come behind it."""
    result = run(lambda n: {"t": pd.DataFrame({"v": [float("nan") if given[n] is None else given[n]]})}, len(given))

    assert values() == kept
    assert result.errors == len(given) - len(kept)
    assert all("v is " in message and "before it" in message for message in why().values())


def test_a_frame_without_rows_tells_the_type_that_no_value_tells(root: Path) -> None:
    frames = [pl.DataFrame({"v": [None]}), pl.DataFrame({"v": []}, schema={"v": pl.Float64})]

    run(lambda n: {"t": frames[n]}, 2)

    assert table()["v"].dtype == pl.Float64


def test_decimals_get_the_digits_that_all_inputs_need(root: Path) -> None:
    numbers = [Decimal("1.12"), Decimal("1.1234"), Decimal("7.25")]

    result = run(lambda n: {"t": pl.DataFrame({"v": [numbers[n]]})}, 3)

    assert (result.errors, values()) == (0, numbers)


@pytest.mark.parametrize(("first", "second"), [(0, 1), (1, 0)])
def test_of_two_decimals_that_no_type_holds_the_first_stays(root: Path, first: int, second: int) -> None:
    long = [
        pa.array([Decimal("9" * 36 + ".25")], pa.decimal128(38, 2)),
        pa.array([Decimal("1.1234")], pa.decimal128(38, 4)),
    ]
    order = [first, second]

    result = run(lambda n: {"t": pa.table({"v": long[order[n]]})}, 2)

    assert (result.rows, result.errors) == (1, 1)
    assert values() == long[first].to_pylist()
    assert "dataframe 't'" in why()[1]


@pytest.mark.parametrize("order", [[2**60, 1.5], [1.5, 2**60]])
def test_a_whole_number_that_no_float_holds_costs_the_input_that_comes_second(root: Path, order: list[Any]) -> None:
    result = run(lambda n: {"t": pa.table({"v": [order[n]]})}, 2)

    assert (result.errors, values()) == (1, [order[0]])
    assert list(why()) == [1]


@pytest.mark.parametrize(
    ("first", "second"),
    [(["x"], [b"x"]), ([1.5], [Decimal("1.5")]), ([HOUR], [3600]), ([dt.date(2024, 1, 1)], [dt.datetime(2024, 1, 1)])],
)
def test_types_that_mean_unlike_things_are_never_made_to_one(root: Path, first: Any, second: Any) -> None:
    result = run(lambda n: {"t": pa.table({"v": [first, second][n]})}, 2)

    assert (result.errors, values()) == (1, first)
    assert "v is" in why()[1]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"U": [{"x": 1}], "U.y": [2]}, {"U": [{"y": 1}]}),
        ({"U": [{"x": 1}]}, {"U": [{"X": 1}]}),
        ({"r": [1]}, {"R": [1]}),
    ],
)
def test_names_that_some_reader_takes_for_one_cost_the_later_input(root: Path, first: Any, second: Any) -> None:
    result = run(lambda n: {"t": pa.table([first, second][n])}, 2)

    assert (result.rows, result.errors) == (1, 1)
    assert "dataframe 't'" in why()[1]


@pytest.mark.parametrize("column", ["version", "Version", "run_datetime", "Experiment_ID", "N", "n", "sort_Index"])
def test_a_column_named_like_one_of_scythes_own_costs_its_input_alone(root: Path, column: str) -> None:
    result = run(lambda n: {"t": pl.DataFrame({"v": [1], **({column: [1]} if n == 1 else {})})}, 3)

    assert (result.rows, result.errors, values()) == (2, 1, [1, 1])
    assert repr(column) in why()[1]


def test_a_frame_with_an_index_of_its_own_may_not_bring_a_partition_column_either(root: Path) -> None:
    result = run(lambda n: {"t": pl.DataFrame({"sort_index": [0], "version": ["9"], "v": [1]})}, 1)

    assert result.errors == 1


# --- columns that no input of a run tells the type of ----------------------------------------------


def test_a_column_that_a_run_left_empty_binds_no_later_run(root: Path) -> None:
    told: list[Any] = [
        {"v": [None], "l": [[]], "s": [{"a": None, "b": 1}]},
        {"v": [1.5], "l": [["x"]], "s": [{"a": HOUR, "b": 2}]},
    ]

    first = run(lambda n: {"t": pa.table(told[0])}, 2)
    assert (values("v"), values("s")) == ([None] * 2, [{"a": None, "b": 1}] * 2)
    assert pd.read_parquet(first.uris["t"].removeprefix("file://"))["v"].isna().all()
    second = run(lambda n: {"t": pa.table(told[1])}, 1, version="keep")
    third = run(lambda n: {"t": pa.table(told[0])}, 1, version="keep")

    assert (first.errors, second.errors, third.errors) == (0, 0, 0)
    united = scythe.read("loads", table="t", run="all")
    assert united["v"].to_list() == [None, None, 1.5, None]
    assert united["s"].struct.field("a").to_list() == [None, None, HOUR, None]
    assert values() == [None]


def test_a_repaired_run_keeps_the_index_and_the_durations_of_its_dataframes(root: Path) -> None:
    broken = [True]

    def make(n: int) -> dict[str, Any]:
        if n == 1 and broken[0]:
            raise OutputError("not yet")
        return {"t": pd.DataFrame({"v": [HOUR]}, index=pd.Index(["a"], name="zone"))}

    run(make, 2)
    broken[0] = False
    run_again = scythe.open_run("loads")
    result = run_again.retry_errors(engine="inline").result()

    assert (result.rows, values()) == (2, [HOUR, HOUR])
    assert pd.read_parquet(result.uris["t"].removeprefix("file://")).index.names[-1] == "zone"


def test_frames_of_any_names_are_tables_of_their_own(root: Path) -> None:
    names = [
        "load",
        "Load",
        "LOAD",
        "load_g1",
        "load_g2",
        "scalars_g2",
        "namespace.json",
        "v1.0.0.json",
        "a.b",
        "heat_gain",
    ]
    names = [*names, "metadata", "con", "x" * 60]

    for step in range(2):
        result = run(lambda n: {name: pl.DataFrame({"v": [i]}) for i, name in enumerate(names)}, 2, version="keep")

        assert result.errors == 0
        for i, name in enumerate(names):
            assert table(name)["v"].to_list() == [i, i]
            assert pd.read_parquet(result.uris[name].removeprefix("file://"))["v"].tolist() == [i, i]
            united = scythe.read("loads", table=name, run="all")
            assert united["v"].to_list() == [i, i] * (step + 1)


def test_empty_lists_stay_empty_lists_though_no_input_tells_what_they_would_hold(root: Path) -> None:
    held = {"lists": [[], None], "members": [{"a": None}, None], "nulls": [None, None]}
    kinds = {"lists": pl.List(pl.Null), "members": pl.Struct({"a": pl.Null}), "nulls": pl.Null}
    result = run(lambda _: {"t": pl.DataFrame(held, schema=kinds)}, 1)
    assert result.errors == 0
    assert table().select("lists", "members", "nulls").to_dict(as_series=False) == held


def test_long_texts_of_inputs_beside_long_dataframes_are_repeated_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two gigabytes of one column are more than Arrow's texts have in one piece."""
    levels = pa.table({"sort_index": [7, 8, 9], "text": ["a" * 40, None, "c"], "blob": [b"x" * 60, b"", None]})
    rows = np.array([0, 0, 1, 2, 2, 2, 0], np.int64)
    whole = leaf_frames._repeated(levels, rows)
    assert whole.column("text").num_chunks == 1
    monkeypatch.setattr(leaf_frames, "_MOST_TEXT", 250)
    pieces = leaf_frames._repeated(levels, rows)
    assert pieces.column("text").num_chunks == 4
    assert pieces.equals(whole)
    assert leaf_frames._repeated(levels, rows[:0]).num_rows == 0


def test_complex_numbers_of_numpy_are_no_numbers_of_a_column() -> None:
    for value in (np.complex128(1 + 2j), np.complex64(1), 1 + 0j):
        with pytest.raises(TypeError, match="complex"):
            Float().dump([0.5, value])
