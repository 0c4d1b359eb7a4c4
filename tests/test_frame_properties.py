"""Whatever a function returns as a dataframe is what the table holds, or that input is an error row with the reason."""

import datetime as dt
import math
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from polars.testing.parametric import dataframes as polars_frames

import scythe
from scythe.allocate import BaseExperiment
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.errors import OutputError
from scythe.gather.dataframes.reconcile import Dataframe
from scythe.gather.merge import Source, merged
from scythe.leaf.dataframes import check_clashes, grouped, prepare, stack
from scythe.registry import ExperimentRegistry
from scythe_catalog.schema import TableSchema

Typed = tuple[pa.DataType, st.SearchStrategy[Any]]

LEVELS = pa.schema([("experiment_id", pa.string()), ("sort_index", pa.int64()), ("size", pa.int64())])
LEVELS_TYPED = TableSchema.from_arrow(LEVELS)
#: Names that files, readers or we might stumble over.
NAMES = st.sampled_from(
    ["v", "V", "v.a", "v.element", "a", "A", "é", "e\u0301", "version", "run_datetime", "sort_index", "Size", "size",
     "", " ", "a b", "key", "__index_level_0__", "level_0", "ß", "ss", "a\nb", "a\x00b", "💧", "x" * 300, "1", "nan"]
)  # fmt: skip


def within(bits: int, low: int | None = None) -> st.SearchStrategy[int]:
    return st.integers(-(2 ** (bits - 1)) if low is None else low, 2 ** (bits - 1) - 1)


INSTANTS = st.datetimes(dt.datetime(1678, 1, 1), dt.datetime(2262, 1, 1))
SPANS = st.timedeltas(dt.timedelta(days=-100_000), dt.timedelta(days=100_000))
LEAVES: list[Typed] = [
    (pa.null(), st.none()),
    (pa.bool_(), st.booleans()),
    (pa.int8(), within(8)),
    (pa.int64(), within(64)),
    (pa.uint64(), st.integers(0, 2**64 - 1)),
    (pa.float16(), st.floats(width=16)),
    (pa.float32(), st.floats(width=32)),
    (pa.float64(), st.floats()),
    *[(t, st.text(max_size=20)) for t in (pa.string(), pa.large_string(), pa.string_view())],
    (pa.dictionary(pa.int8(), pa.string()), st.sampled_from(["hot", "cold"])),
    *[(t, st.binary(max_size=20)) for t in (pa.binary(), pa.large_binary(), pa.binary_view())],
    (pa.binary(3), st.binary(min_size=3, max_size=3)),
    (pa.decimal128(5, 2), st.decimals(-999, 999, places=2)),
    (pa.decimal128(38, 10), st.decimals(-(10**20), 10**20, places=10)),
    (pa.decimal128(38, 0), st.integers(-(10**38) + 1, 10**38 - 1).map(Decimal)),
    (pa.date32(), st.dates()),
    (pa.date64(), st.dates()),
    (pa.time32("s"), st.times().map(lambda t: t.replace(microsecond=0))),
    (pa.time64("us"), st.times()),
    (pa.time64("ns"), st.times()),
    (pa.timestamp("s"), INSTANTS.map(lambda t: t.replace(microsecond=0))),
    (pa.timestamp("us"), INSTANTS),
    (pa.timestamp("ns"), INSTANTS),
    (pa.timestamp("us", "Europe/Berlin"), INSTANTS.map(lambda t: t.replace(tzinfo=dt.UTC))),
    (pa.duration("s"), SPANS.map(lambda d: dt.timedelta(seconds=d // dt.timedelta(seconds=1)))),
    (pa.duration("us"), SPANS),
    (pa.duration("ns"), SPANS),
    (pa.month_day_nano_interval(), st.none()),
    (pa.uuid(), st.none()),
]


def nested(inner: st.SearchStrategy[Typed]) -> st.SearchStrategy[Typed]:
    def lists(item: Typed) -> list[Typed]:
        dtype, values = item
        some, two = st.lists(values | st.none(), max_size=3), st.lists(values | st.none(), min_size=2, max_size=2)
        kinds = (pa.list_, pa.large_list, pa.list_view, pa.large_list_view)
        return [*((kind(dtype), some) for kind in kinds), (pa.list_(dtype, 2), two)]

    def struct(members: dict[str, Typed]) -> Typed:
        fields = {name: values | st.none() for name, (_, values) in members.items()}
        return pa.struct([(name, dtype) for name, (dtype, _) in members.items()]), st.fixed_dictionaries(fields)

    def mapping(item: Typed) -> Typed:
        pairs = st.dictionaries(st.text(max_size=3), item[1] | st.none(), max_size=3).map(lambda d: list(d.items()))
        return pa.map_(pa.string(), item[0]), pairs

    members = st.dictionaries(st.sampled_from(["a", "A", "b", "element", "v.a"]), inner, min_size=1, max_size=2)
    return inner.flatmap(lambda item: st.sampled_from(lists(item))) | members.map(struct) | inner.map(mapping)


TYPES = st.recursive(st.sampled_from(LEAVES), nested, max_leaves=4)


@st.composite
def arrow_frames(draw: st.DrawFn, types: st.SearchStrategy[Typed] = TYPES) -> pa.Table:
    """A table of one or two columns, often a slice of a longer one."""
    rows, cut = draw(st.integers(0, 4)), draw(st.integers(0, 2))
    columns: dict[str, pa.Array] = {}
    for name in draw(st.lists(NAMES, min_size=1, max_size=2, unique=True)):
        dtype, values = draw(types)
        filled = draw(st.lists(values | st.none(), min_size=rows + cut, max_size=rows + cut))
        try:
            columns[name] = pa.array(filled, dtype)
        except (pa.ArrowException, ValueError, OverflowError):  # Arrow cannot make this value of it
            assume(False)
    return pa.table(columns).slice(cut)


def alike(one: Any, other: Any) -> bool:
    """Whether a value that was read says what the one that was returned says."""
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    if isinstance(one, dict) and isinstance(other, dict):
        return all(alike(one.get(name), other.get(name)) for name in {*one, *other})
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(alike, one, other))
    return (one == other) if one is not None and other is not None else one is other


def plain(column: pa.ChunkedArray) -> list[Any]:
    """What an Arrow column holds, in Python's own types; maps are dicts."""
    return [_plain(v, column.type) for v in column.to_pylist()]


def _plain(value: Any, dtype: pa.DataType) -> Any:
    t = pa.types
    if value is None:
        return None
    if t.is_map(dtype):
        return {k: _plain(v, dtype.item_type) for k, v in value}
    if t.is_struct(dtype):
        return {f.name: _plain(value[f.name], f.type) for f in dtype}
    if isinstance(value, list):
        return [_plain(v, dtype.value_type) for v in value]
    if isinstance(value, pd.Timestamp):
        return value.to_pydatetime()
    return value.to_pytimedelta() if isinstance(value, pd.Timedelta) else value


def buffers(table: pa.Table) -> list[tuple[int, int]]:
    found = [b for column in table.columns for chunk in column.chunks for b in _buffers(chunk)]
    return [(b.address, b.address + b.size) for b in found if b is not None and b.size]


def _buffers(array: pa.Array) -> list[Any]:
    if isinstance(array, pa.ExtensionArray):
        return _buffers(array.storage)
    own = array.buffers()
    return [*own, *(_buffers(array.dictionary) if pa.types.is_dictionary(array.type) else [])]


def together(frames: list[Any]) -> tuple[dict[int, list[dict[str, Any]]], dict[int, str]]:
    """The rows that the table holds of each input's frame, and why the others have none."""
    refused: dict[int, str] = {}
    taken: list[tuple[int, str, pa.Table]] = []
    for i, frame in enumerate(frames):
        try:
            ((name, table),) = prepare({"t": frame})
            check_clashes(name, table, LEVELS.names)
            taken.append((i, name, table))
        except OutputError as error:
            refused[i] = str(error)
    n = len(frames)
    levels = pa.table([["e"] * n, range(n), [7] * n], schema=LEVELS)
    pieces = [(t.schema, Source.of(t)) for _, t in stack(grouped(taken), levels, ())]
    rows: dict[int, list[dict[str, Any]]] = {i: [] for i, _, _ in taken}
    if pieces:
        over = Dataframe.of(pieces, LEVELS_TYPED)
        refused |= over.misfits
        for table in merged(over.sources(np.array(sorted(over.misfits), np.int64), over.typed(LEVELS_TYPED).arrow)):
            found = {name: kind.load(table.column(name).to_pylist()) for name, kind in over.kinds.items()}
            for row in range(table.num_rows):
                rows[found["sort_index"][row]].append({name: column[row] for name, column in found.items()})
    return {i: held for i, held in rows.items() if i not in refused}, refused


@given(frames=st.lists(arrow_frames(), min_size=1, max_size=4))
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_frame_of_any_type_of_arrow_is_kept_with_its_values_or_refused_by_name(frames: list[pa.Table]) -> None:
    held, refused = together(frames)

    for i, frame in enumerate(frames):
        if i in refused:
            continue
        expected = {name: plain(frame.column(name)) for name in frame.column_names if name not in LEVELS.names}
        for name, column in expected.items():
            assert alike(column, [row[name] for row in held[i]]), (name, frame.schema)
    for i, reason in refused.items():
        names = {*frames[i].column_names, *frames[0].column_names}
        assert any(repr(name)[1:-1] in reason or name in reason for name in names)
    assert 0 not in refused or "dataframe 't'" in refused[0]  # the first is refused for itself alone


@given(frame=arrow_frames())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_kept_frame_shares_no_memory_with_the_one_that_was_returned(frame: pa.Table) -> None:
    try:
        ((_, kept),) = prepare({"t": frame})
    except OutputError:
        return

    theirs = buffers(frame)
    assert not [b for b in buffers(kept) if any(low < b[1] and b[0] < high for low, high in theirs)]


@given(
    dtype=TYPES,
    empty=st.sampled_from([[], [None], [[]], [{}]]),
    order=st.permutations([0, 1, 2]),
    data=st.data(),
)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_an_input_without_a_value_never_types_a_column_against_the_others(
    dtype: Typed, empty: list[Any], order: list[int], data: st.DataObject
) -> None:
    values = data.draw(st.lists(dtype[1], min_size=1, max_size=2))
    try:
        full = pa.table({"v": pa.array(values, dtype[0])})
        prepare({"t": full})
    except (OutputError, pa.ArrowException, ValueError, OverflowError):
        assume(False)
        raise
    nulls = pa.table({"v": pa.nulls(len(empty), pa.null())})
    typed = pa.table({"v": pa.array([None] * len(empty), dtype[0])})

    held, refused = together([[full, nulls, typed][i] for i in order])

    assert not refused
    assert alike(plain(full.column("v")), [row["v"] for row in held[order.index(0)]])


#: Types that meet in a column though they are not the same, with values that one of them has no place for.
MEETING: list[tuple[pa.DataType, list[Any]]] = [
    (pa.int64(), [1, 2**53 + 1, None]), (pa.int8(), [1, None]), (pa.float64(), [1.5, None]), (pa.string(), ["a", None]), (pa.null(), [None]),
    (pa.decimal128(5, 2), [Decimal("1.25"), None]), (pa.decimal128(38, 0), [Decimal(10**37), None]), (pa.timestamp("us"), [dt.datetime(2020, 1, 1), None]),
    (pa.list_(pa.int64()), [[1], [2**53 + 1], [], [None], None]), (pa.list_(pa.float64()), [[1.5], [], None]), (pa.list_(pa.string()), [["a"], [], None]),
    (pa.struct([("a", pa.int64())]), [{"a": 1}, {"a": None}, None]),
    (pa.struct([("a", pa.string()), ("b", pa.int64())]), [{"a": "x", "b": 2}, {"a": None, "b": 3}, None]),
    (pa.map_(pa.string(), pa.int64()), [[("k", 1)], [("k", None)], [], None]), (pa.map_(pa.string(), pa.string()), [[("k", "v")], None]),
]  # fmt: skip


@st.composite
def meeting_frames(draw: st.DrawFn) -> list[pa.Table]:
    """Frames of a few inputs, of few types, many of them without a value, or without a row."""
    types = draw(st.lists(st.sampled_from(MEETING), min_size=1, max_size=3))

    def frame() -> pa.Table:
        columns = draw(st.sampled_from(["x", "x", "xy", "y"]))
        rows = draw(st.sampled_from([0, 1, 1, 2]))
        made: dict[str, pa.Array] = {}
        for column in columns:
            dtype, values = draw(st.sampled_from(types))
            made[column] = pa.array([draw(st.sampled_from(values)) for _ in range(rows)], dtype)
        return pa.table(made)

    return [frame() for _ in range(draw(st.integers(2, 6)))]


def of_parts(frames: list[pa.Table], parts: list[list[int]]) -> Any:
    """What frames come to whose rows lie in these parts: the columns, who does not fit and why, and the rows."""
    fragments: list[tuple[pa.Schema, Source]] = []
    for part in parts:
        levels = pa.table(
            {"experiment_id": ["e"] * len(part), "sort_index": part, "size": [7] * len(part)}, schema=LEVELS
        )
        kept = [(at, name, table) for at, i in enumerate(part) for name, table in prepare({"t": frames[i]})]
        fragments += [(table.schema, Source.of(table)) for _, table in stack(grouped(kept), levels, ())]
    found = Dataframe.of(fragments, LEVELS_TYPED)
    dropped = np.array(sorted(found.misfits), np.int64)
    rows = [
        row for table in merged(found.sources(dropped, found.typed(LEVELS_TYPED).arrow)) for row in table.to_pylist()
    ]
    return found.typed(LEVELS_TYPED), found.index, dict(sorted(found.misfits.items())), rows


@given(frames=meeting_frames(), data=st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@example(  # the texts take the column from whole numbers that have no value, and lose it to one that has
    frames=[
        pa.table({"x": pa.array([v], t)})
        for t, v in [
            (pa.int64(), None),
            (pa.string(), None),
            (pa.int64(), 1),
            (pa.string(), "a"),
            (pa.string(), "b"),
            (pa.int64(), 5),
        ]
    ],
    data=[[0, 1, 4, 5], [2], [3]],
)
@example(  # floats without a value, before a whole number that no float is
    frames=[
        pa.table({"x": pa.array([v], t)})
        for t, v in [
            (pa.float64(), None),
            (pa.string(), None),
            (pa.int64(), 2**53 + 1),
            (pa.string(), None),
            (pa.int64(), None),
            (pa.string(), "a"),
        ]
    ],
    data=[[0, 1, 2, 3], [4, 5]],
)
@example(
    frames=[
        pa.table({"x": pa.array([], pa.string())}),
        pa.table({"x": pa.array([], pa.int64()), "y": pa.array([], pa.int64())}),
    ],
    data=[[1], [0]],
)
def test_what_becomes_of_an_input_does_not_depend_on_the_parts_that_rows_lie_in(
    frames: list[pa.Table], data: st.DataObject | list[list[int]]
) -> None:
    """Nor, by that, on which inputs ended first, how many worked, and how large the frames are."""
    parts = data
    if not isinstance(parts, list):
        order = parts.draw(st.permutations(range(len(frames))))
        cuts = sorted(parts.draw(st.sets(st.integers(1, len(frames) - 1))))
        parts = [sorted(order[a:b]) for a, b in pairwise([0, *cuts, len(frames)])]

    assert of_parts(frames, parts) == of_parts(frames, [[*range(len(frames))]])


# --- whole runs -------------------------------------------------------------------------------------


class Site(ExperimentInputSpec):
    size: int


class Weather(ExperimentOutputSpec):
    y: float = 0.0


def run(name: str, frames: list[Any]) -> tuple[Path | None, dict[int, str]]:
    """A whole run whose inputs return these frames: the final file, and the messages of those that failed."""
    failures: dict[int, str] = {}

    @ExperimentRegistry.Register(name=name, retries=0)
    def weather(spec: Site) -> Weather:
        return Weather(dataframes={"t": frames[spec.sort_index]})

    experiment = BaseExperiment(experiment=weather)
    known = {r.experiment_id for r in experiment.list_runs()}
    sites = [Site(experiment_id="", sort_index=i, size=7) for i in range(len(frames))]
    result = None
    for _ in range(len(frames) + 1):
        try:
            if result is None and {r.experiment_id for r in experiment.list_runs()} == known:
                result = experiment.allocate(sites, "bumpmajor", engine="inline")[1].result()
            else:
                (made,) = [r for r in experiment.list_runs() if r.experiment_id not in known]
                result = made.resume(engine="inline").result()
            break
        except OutputError:
            continue
    assert result is not None
    assert result.rows + result.errors == len(frames)
    errors = scythe.read(name, table="errors")
    failures |= dict(zip(errors["sort_index"], errors["exception_message"], strict=True))
    return Path(result.uris["t"].removeprefix("file://")) if "t" in result.uris else None, failures


WHOLE = settings(
    max_examples=8, deadline=None, suppress_health_check=list(HealthCheck)
)  # each example is a run of a second


@given(frames=st.lists(arrow_frames(), min_size=2, max_size=4))
@WHOLE
@example(
    frames=[pa.table({"v": pa.nulls(0)}), pa.table({"v": pa.array([{}], pa.map_(pa.string(), pa.list_(pa.null())))})]
)
def test_a_run_with_any_frames_ends_and_every_reader_shows_the_values(root: Path, frames: list[pa.Table]) -> None:
    file, failures = run("anything", frames)

    if file is None:
        return
    read, stored = scythe.read("anything", table="t"), pq.read_table(file)
    assert stored.num_rows == read.height == len(pd.read_parquet(file))
    for i, frame in enumerate(frames):
        rows = read.filter(pl.col("sort_index") == i)
        assert rows.height == (0 if i in failures else frame.num_rows)
        for name in set(frame.column_names) - {*LEVELS.names} if rows.height else ():
            expected, found = plain(frame.column(name)), rows[name].to_list()
            assert alike(expected, found), (name, frame.schema)


def in_utc(dtype: Any) -> Any:
    """A type with its moments in UTC: Polars and Python have time zones of their own, which differ for moments of long ago."""
    match dtype:
        case pl.Datetime(time_unit=unit, time_zone=str()):
            return pl.Datetime(unit, "UTC")
        case pl.List(inner=inner):
            return pl.List(in_utc(inner))
        case pl.Array():
            return pl.Array(in_utc(dtype.inner), dtype.size)
        case pl.Struct(fields=fields):
            return pl.Struct({field.name: in_utc(field.dtype) for field in fields})
        case _:
            return dtype


def test_a_moment_on_which_time_zones_differ_is_kept(root: Path) -> None:
    moment = pl.Series("v", [-946749600000000], pl.Datetime("us")).dt.replace_time_zone("UTC")
    frame = pl.DataFrame([moment.dt.convert_time_zone("America/Atikokan")])

    run("zones", [frame])
    assert scythe.read("zones", table="t")["v"].to_list() == moment.to_list()


@given(data=st.data())
@WHOLE
def test_any_frame_of_polars_comes_back_equal_or_is_refused(root: Path, data: st.DataObject) -> None:
    frame = data.draw(polars_frames(max_cols=3, max_size=4, allow_infinity=True, allow_time_zones=True))

    file, failures = run("polars", [frame])

    if failures or file is None:
        assert file is None or "dataframe 't'" in failures[0]
        return
    read = scythe.read("polars", table="t")
    for name in frame.columns:
        assert alike(frame[name].cast(in_utc(frame[name].dtype)).to_list(), read[name].to_list()), frame.schema


MAYBE = {
    "Int64": st.integers(-(2**63), 2**63 - 1),
    "Float64": st.floats(allow_nan=False),
    "boolean": st.booleans(),
    "string": st.text(),
    "str": st.text(),
    "category": st.sampled_from(["a", "b"]),
    "datetime64[us]": INSTANTS,
    "datetime64[ns]": INSTANTS,
    "datetime64[s, UTC]": INSTANTS.map(lambda t: t.replace(microsecond=0, tzinfo=dt.UTC)),
    "timedelta64[ms]": SPANS.map(lambda d: dt.timedelta(seconds=d // dt.timedelta(seconds=1))),
    "int64[pyarrow]": within(64),
    "date32[pyarrow]": st.dates(),
    "binary[pyarrow]": st.binary(),
    "object": st.one_of(st.text(), st.binary(), st.dates(), INSTANTS, st.integers(), st.booleans(), SPANS),
}


@st.composite
def pandas_frames(draw: st.DrawFn) -> pd.DataFrame:
    """A frame of one column of any backend, its rows often filtered."""
    dtype = draw(st.sampled_from(sorted(MAYBE)))
    values = draw(st.lists(st.none() | MAYBE[dtype], min_size=1, max_size=4))
    frame = pd.DataFrame({"v": pd.Series(values, dtype=dtype)})
    return frame[draw(st.lists(st.booleans(), min_size=len(frame), max_size=len(frame)).map(np.array))]


@given(frames=st.lists(pandas_frames(), min_size=1, max_size=3))
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_frame_of_any_dtype_of_pandas_is_kept_with_its_values_or_refused(frames: list[pd.DataFrame]) -> None:
    held, refused = together(frames)

    for i, frame in enumerate(frames):
        if i in refused:
            assert "v" in refused[i]
            continue
        expected = [None if pd.isna(v) else v for v in frame["v"].tolist()]
        expected = [_plain(v, pa.null()) for v in expected]
        assert alike(expected, [row["v"] for row in held[i]]), frame.dtypes
