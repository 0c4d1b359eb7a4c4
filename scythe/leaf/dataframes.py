"""Dataframes of users: any of pandas, Polars and Arrow made to typed Arrow rows that know their input.

The rows are as they were when the function returned: they share no memory with what it gave. Frames of
one name and one schema are stacked; what several schemas of one name come to together is decided once
all inputs are there (`scythe.gather.dataframes.reconcile`). Never writes anything.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from scythe.define.schemas import PARTITION, check_dataframe_name
from scythe.errors import OutputError, SchemaError
from scythe.leaf.pandas_frames import beyond_64_bits, pandas_columns
from scythe_catalog.compute import pc
from scythe_catalog.names import folded
from scythe_catalog.schema import KIND_KEY, arrow_table, same_names, to_storage
from scythe_catalog.schema.kinds import Kind, kind_of_arrow

#: Schema metadata: the names of the columns that pandas reads back as the index.
INDEX_KEY = b"scythe.index"
#: So many bytes of a text column are made at once.
_MOST_TEXT = 1 << 30

#: (position of the input in its chunk, name of the dataframe, its rows)
Frame = tuple[int, str, pa.Table]
#: (name of the dataframe, frames of one schema: position of the input in its chunk, its rows)
Group = tuple[str, list[tuple[int, pa.Table]]]


def prepare(dataframes: Mapping[str, Any]) -> list[tuple[str, pa.Table]]:
    """The dataframes of one output as Arrow tables of types that a table can hold, in memory of their own.

    Raises:
        OutputError: a name that is reserved, a value that is no dataframe, a type that no table can hold.
    """
    prepared: list[tuple[str, pa.Table]] = []
    for name, frame in dataframes.items():
        try:
            prepared.append((check_dataframe_name(name), _owned(_storable(*_to_arrow(frame)))))
        except (OutputError, SchemaError, ValueError, TypeError, ArithmeticError, pa.ArrowException) as error:
            raise OutputError(f"dataframe {name!r}: {error}") from error
    return prepared


def _to_arrow(frame: Any) -> tuple[pa.Table, list[str]]:
    """The frame's columns, and which of them are an index of its own."""
    pandas, polars = sys.modules.get("pandas"), sys.modules.get("polars")
    index: list[str] = []
    if pandas is not None and isinstance(frame, pandas.DataFrame):
        if frame.columns.nlevels > 1:
            raise OutputError(f"it has columns of {frame.columns.nlevels} levels: flatten them first")
        columns, index = pandas_columns(frame)
        table = pa.Table.from_arrays([column for _, column in columns], names=[column for column, _ in columns])
    elif polars is not None and isinstance(frame, polars.DataFrame | polars.LazyFrame):
        table = _from_polars(frame.collect() if isinstance(frame, polars.LazyFrame) else frame)
    elif (speaking := arrow_table(frame)) is not None:
        table = speaking
    else:
        raise OutputError(f"it is a {type(frame).__name__}: give a pandas, Polars or Arrow table")
    return table, index


def _from_polars(frame: Any) -> pa.Table:
    """A Polars frame as Arrow, which has no Python objects."""
    import polars as pl

    for name, dtype in frame.schema.items():
        if _holds(dtype, (pl.Object,)):
            raise OutputError(f"column {name!r} holds Python objects: give it a type that a table has")
    return within_64_bits(frame).to_arrow()


def within_64_bits(frame: Any) -> Any:
    """A Polars frame with its whole numbers in types that Arrow has, which knows none of 128 bits.

    Raises:
        SchemaError: one of them is beyond, or they are within other values.
    """
    import polars as pl

    wide = (pl.Int128, pl.UInt128)
    for name, dtype in frame.schema.items():
        if isinstance(dtype, wide):
            fits = frame[name].cast(pl.Int64, strict=False)
            beyond = frame[name].filter(fits.is_null() & frame[name].is_not_null())
            if len(beyond):
                raise SchemaError(f"column {name!r} {beyond_64_bits(beyond[0])}")
            frame = frame.with_columns(fits)
        elif _holds(dtype, wide):
            raise SchemaError(f"column {name!r} holds {dtype}, which no table can hold: cast it to Int64")
    return frame


def _holds(dtype: Any, kinds: tuple[type[Any], ...]) -> bool:
    """Whether a type of Polars is one of these, or has one of them within it."""
    if isinstance(dtype, kinds) or not dtype.is_nested():
        return isinstance(dtype, kinds)
    parts = (getattr(dtype, part, None) for part in ("inner", "key", "value"))
    within = [*(field.dtype for field in getattr(dtype, "fields", ())), *(part for part in parts if part is not None)]
    return any(_holds(part, kinds) for part in within)


def _storable(table: pa.Table, index: list[str]) -> pa.Table:
    """The table in storage types; what is null throughout stays open until other inputs give it a type."""
    schema = _stored_schema(table.schema.remove_metadata())
    columns: list[pa.ChunkedArray] = []
    for name, column in zip(schema.names, table.columns, strict=True):
        try:
            columns.append(to_storage(column))
        except pa.ArrowInvalid as error:
            held = schema.field(name).type
            raise SchemaError(
                f"column {name!r} has values that a column of {held} has no place for: {error}"
            ) from error
        except (SchemaError, pa.ArrowException) as error:
            raise SchemaError(f"column {name!r}: {error}") from error
    return pa.Table.from_arrays(columns, schema=schema.with_metadata({INDEX_KEY: json.dumps(index)}))


@lru_cache(maxsize=256)
def _stored_schema(schema: pa.Schema) -> pa.Schema:
    """Names and storage types of a frame's columns; a note on each whose type does not tell its kind.

    Raises:
        SchemaError: naming the column that no table can hold.
    """
    fields: list[pa.Field] = []
    kinds: list[tuple[str, Kind]] = []
    for f in schema:
        try:
            kind = kind_of_arrow(f.type)
        except SchemaError as error:
            raise SchemaError(f"column {f.name!r}: {error}") from error
        if not f.name:
            raise SchemaError("a column has no name")
        if "\0" in f.name or "\0" in str(f.type):  # programs that speak C end a name there
            raise SchemaError(f"column {f.name!r}: a name must not hold the character NUL")
        kinds.append((f.name, kind))
        told = kind_of_arrow(kind.storage) == kind
        fields.append(pa.field(f.name, kind.storage, True, None if told else {KIND_KEY: json.dumps(kind.to_json())}))
    alike = same_names(kinds)
    if alike is not None:
        if schema.names.count(alike[0]) > 1:
            raise SchemaError(f"it has several columns named {alike[0]}")
        member = f" (a column, and a member of {alike[0].rpartition('.')[0]!r})" if alike[0] == alike[1] else ""
        raise SchemaError(
            f"some readers take {alike[1]!r} for {alike[0]!r}{member}: case does not tell two columns apart, nor does a "
            "dot tell a column from a member of a struct; rename one of them"
        )
    return pa.schema(fields)


def _owned(table: pa.Table) -> pa.Table:
    """A copy that shares no memory with the frame that it came from.

    A frame over an array of NumPy's is a view: the function may fill the array anew for its next input.
    """
    return pa.concat_tables([table, table.slice(0, 0)]).combine_chunks() if table.num_columns else table


def grouped(frames: Iterable[Frame]) -> list[Group]:
    """Frames by name and schema."""
    groups: dict[tuple[str, bytes], list[tuple[int, pa.Table]]] = {}
    for i, name, table in frames:
        key = name, table.schema.serialize().to_pybytes()
        groups.setdefault(key, []).append((i, table))
    return [(name, members) for (name, _), members in groups.items()]


def contradictions(groups: Iterable[Group], levels: pa.Table, unlike: Collection[str]) -> dict[int, str]:
    """The inputs whose frames have, under the name of a level, other values than the input's, which stand there in the table.

    What is said of them by position. A level that is `unlike` is written otherwise within a function, as the identifiers are, which
    are known at the end, and files, which lie elsewhere there.
    """
    found: dict[int, str] = {}
    for name, members in groups:
        body, rows = _together(members)
        shared = [n for n in levels.column_names if n in body.column_names and n not in unlike]
        for level in shared if _has_own_index(body) else ():
            expected = levels.column(level).take(pa.array(rows))
            wrong = np.flatnonzero(~_alike(body.column(level), expected))
            for at in wrong[np.unique(rows[wrong], return_index=True)[1]]:
                theirs, ours = body.column(level)[at].as_py(), expected[at].as_py()
                told = f"dataframe {name!r} has {theirs!r} in its column {level!r}, where this input has {ours!r}"
                found.setdefault(int(rows[at]), f"{told}. Rename the column")
    return found


def _alike(theirs: pa.ChunkedArray, ours: pa.ChunkedArray) -> np.ndarray:
    """Where two columns have the same value, the first in whatever type; all of it where they cannot be compared."""
    try:
        theirs = theirs.cast(ours.type)
    except pa.ArrowNotImplementedError:
        return np.ones(len(ours), bool)
    except pa.ArrowInvalid:  # texts that are no number, say
        theirs, ours = theirs.cast(pa.string()), ours.cast(pa.string())
    same = pc.equal(theirs, ours)
    if pa.types.is_floating(
        ours.type
    ):  # NumPy's half and single precision are stored as double; pandas takes NaN for nothing
        for narrow in (pa.float16(), pa.float32()):
            same = pc.or_kleene(same, pc.equal(theirs, ours.cast(narrow, safe=False).cast(pa.float64())))
        theirs, ours = (pc.if_else(pc.is_nan(values), None, values) for values in (theirs, ours))
    nothing = pc.and_(theirs.is_null(), ours.is_null())
    return pc.or_(same.fill_null(False), nothing).to_numpy(zero_copy_only=False)


def stack(groups: Iterable[Group], levels: pa.Table, left_out: Collection[int]) -> list[tuple[str, pa.Table]]:
    """Frames of one name and schema on top of each other, with the index levels of their inputs in front.

    A frame that brings `sort_index` has an index of its own: it keeps the levels that it has, with
    the input's values. Any other gets all `levels`. The frames of some inputs are left out.
    """
    kept = ((name, [(i, table) for i, table in members if i not in left_out]) for name, members in groups)
    return [(name, _stacked(members, levels)) for name, members in kept if members]


def _together(members: list[tuple[int, pa.Table]]) -> tuple[pa.Table, np.ndarray]:
    """The rows of frames, and the position of each one's input."""
    rows = np.repeat([i for i, _ in members], [table.num_rows for _, table in members])
    return pa.concat_tables([table for _, table in members]), rows


def _stacked(members: list[tuple[int, pa.Table]], levels: pa.Table) -> pa.Table:
    body, rows = _together(members)
    shown = [n for n in levels.column_names if n in body.column_names] if _has_own_index(body) else levels.column_names
    if "sort_index" not in shown:
        shown = ["sort_index", *shown]
    front = _repeated(levels.select(shown), rows)
    own = json.loads((body.schema.metadata or {})[INDEX_KEY])
    body = body.drop_columns([n for n in shown if n in body.column_names])
    index = [*shown, *(n for n in own if n not in shown)]
    order = [*(n for n in index if n in body.column_names), *(n for n in body.column_names if n not in index)]
    fields = [*front.schema, *(body.schema.field(n) for n in order)]
    columns = [*front.columns, *(body.column(n) for n in order)]
    return pa.table(columns, schema=pa.schema(fields, {INDEX_KEY: json.dumps(index)}))


def _repeated(levels: pa.Table, rows: np.ndarray) -> pa.Table:
    """The values of inputs, beside each of these rows: long texts in pieces, as Arrow's have 2 GB at most in one."""
    widest = sum(
        int(pc.max(pc.binary_length(column)).as_py() or 0)
        for column in levels.columns
        if pa.types.is_string(column.type) or pa.types.is_binary(column.type)
    )
    piece = max(1, _MOST_TEXT // max(widest, 1))
    if len(rows) <= piece:
        return levels.take(pa.array(rows))
    return pa.concat_tables([levels.take(pa.array(rows[at : at + piece])) for at in range(0, len(rows), piece)])


def _has_own_index(table: pa.Table) -> bool:
    return "sort_index" in table.column_names


def check_clashes(name: str, table: pa.Table, levels: Sequence[str]) -> None:
    """Nothing where no column has the name of one that Scythe puts beside it; a frame's own index may have levels.

    Raises:
        OutputError: naming the column.
    """
    clash = _clash(tuple(table.column_names), tuple(levels))
    if clash is None:
        return
    column, other = clash
    if other in _PARTITION:
        raise OutputError(
            f"dataframe {name!r} has a column {column!r}: Scythe's own tables use {other!r}, so rename it"
        )
    raise OutputError(
        f"dataframe {name!r} has a column {column!r}, which is the name of an input: rename it, "
        "or give the frame an index with input_spec.make_multiindex(n_rows=len(frame))"
    )


_PARTITION = {c.name for c in PARTITION}


@lru_cache(maxsize=256)
def _clash(columns: tuple[str, ...], levels: tuple[str, ...]) -> tuple[str, str] | None:
    """The first column with the name of a level or of a partition, up to case, and that name."""
    taken = {folded(name): name for name in (*levels, *_PARTITION)}
    own_index = "sort_index" in columns
    for column in columns:
        other = taken.get(folded(column))
        if other is not None and not (own_index and other == column and other not in _PARTITION):
            return column, other
    return None
