"""Dataframes of users: any of pandas, Polars and Arrow made to typed Arrow rows that know their input.

Frames of one name and one schema are stacked; what several schemas of one name come to together is
decided once all inputs are there (`scythe.reconcile`). Never writes anything.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from scythe.errors import OutputError, SchemaError
from scythe.schemas import check_dataframe_name
from scythe_catalog.schema import KIND_KEY
from scythe_catalog.schema.kinds import Duration, kind_of_arrow

#: Schema metadata: the names of the columns that pandas reads back as the index.
INDEX_KEY = b"scythe.index"

#: (position of the input in its range, name of the dataframe, its rows)
Frame = tuple[int, str, pa.Table]


def prepare(dataframes: Mapping[str, Any]) -> list[tuple[str, pa.Table]]:
    """The dataframes of one output as Arrow tables of types that a table can hold.

    Raises:
        OutputError: a name that is reserved, a value that is no dataframe, a type that no table can hold.
    """
    prepared: list[tuple[str, pa.Table]] = []
    for name, frame in dataframes.items():
        try:
            prepared.append((check_dataframe_name(name), _storable(_to_arrow(name, frame))))
        except (SchemaError, pa.ArrowException) as error:
            raise OutputError(f"dataframe {name!r}: {error}") from error
    return prepared


def _to_arrow(name: str, frame: Any) -> pa.Table:
    """The frame's columns; the names of its own index, where it has one, in the schema's metadata."""
    pandas, polars = sys.modules.get("pandas"), sys.modules.get("polars")
    index: list[str] = []
    if pandas is not None and isinstance(frame, pandas.DataFrame):
        if frame.columns.nlevels > 1:
            raise OutputError(f"dataframe {name!r} has columns of {frame.columns.nlevels} levels: flatten them first")
        if not (isinstance(frame.index, pandas.RangeIndex) and frame.index.name is None):
            index = [str(n) if n is not None else f"level_{i}" for i, n in enumerate(frame.index.names)]
        _refuse_twins(name, [*index, *map(str, frame.columns)])
        frame = (frame.reset_index(names=index) if index else frame).rename(columns=str)
        table = pa.Table.from_pandas(frame, preserve_index=False)
    elif polars is not None and isinstance(frame, polars.DataFrame | polars.LazyFrame):
        table = frame.lazy().collect().to_arrow()
    elif isinstance(frame, pa.Table):
        table = frame
    elif isinstance(frame, pa.RecordBatch):
        table = pa.Table.from_batches([frame])
    else:
        raise OutputError(f"dataframe {name!r} is a {type(frame).__name__}: give a pandas, Polars or Arrow table")
    _refuse_twins(name, table.column_names)
    return table.replace_schema_metadata({INDEX_KEY: json.dumps(index)})


def _refuse_twins(name: str, columns: Sequence[str]) -> None:
    twice = {c for c in columns if columns.count(c) > 1}
    if twice:
        raise OutputError(f"dataframe {name!r} has several columns named {', '.join(sorted(twice))}")


def _storable(table: pa.Table) -> pa.Table:
    """The table in storage types; columns of nulls alone stay untyped until other inputs give them a type."""
    columns: list[pa.ChunkedArray] = []
    fields: list[pa.Field] = []
    for f in table.schema:
        column, notes = table.column(f.name), None
        if not pa.types.is_null(f.type):
            try:
                kind = kind_of_arrow(f.type)
            except SchemaError as error:
                raise SchemaError(f"column {f.name!r}: {error}") from error
            if isinstance(kind, Duration):
                column, notes = column.cast(pa.duration("us")), {KIND_KEY: json.dumps(kind.to_json())}
            elif pa.types.is_timestamp(f.type) and f.type.unit == "ns":
                column = column.cast(pa.timestamp("us", f.type.tz), safe=False)
            column = column.cast(kind.storage)
        columns.append(column)
        fields.append(pa.field(f.name, column.type, True, notes))
    return pa.table(columns, schema=pa.schema(fields, table.schema.metadata))


def stack(frames: Iterable[Frame], levels: pa.Table) -> list[tuple[str, pa.Table]]:
    """Frames of one name and schema on top of each other, with the index levels of their inputs in front.

    A frame that brings `sort_index` has an index of its own: it keeps the levels that it has, with
    the input's values. Any other gets all `levels`.
    """
    groups: dict[tuple[str, str], list[tuple[int, pa.Table]]] = {}
    for i, name, table in frames:
        key = name, f"{table.schema.to_string(show_schema_metadata=False)}{table.schema.metadata}"
        groups.setdefault(key, []).append((i, table))
    return [(name, _stacked(members, levels)) for (name, _), members in groups.items()]


def _stacked(members: list[tuple[int, pa.Table]], levels: pa.Table) -> pa.Table:
    body = pa.concat_tables([table for _, table in members])
    rows = np.repeat([i for i, _ in members], [table.num_rows for _, table in members])
    shown = [n for n in levels.column_names if n in body.column_names] if _has_own_index(body) else levels.column_names
    if "sort_index" not in shown:
        shown = ["sort_index", *shown]
    front = levels.select(shown).take(pa.array(rows))
    own = json.loads((body.schema.metadata or {})[INDEX_KEY])
    body = body.drop_columns([n for n in shown if n in body.column_names])
    index = [*shown, *(n for n in own if n not in shown)]
    order = [*(n for n in index if n in body.column_names), *(n for n in body.column_names if n not in index)]
    fields = [*front.schema, *(body.schema.field(n) for n in order)]
    columns = [*front.columns, *(body.column(n) for n in order)]
    return pa.table(columns, schema=pa.schema(fields, {INDEX_KEY: json.dumps(index)}))


def _has_own_index(table: pa.Table) -> bool:
    return "sort_index" in table.column_names


def check_clashes(name: str, table: pa.Table, levels: Sequence[str]) -> None:
    """Nothing where the frame has an index of its own, or no column that is named like a level.

    Raises:
        OutputError: naming the column.
    """
    clash = [] if _has_own_index(table) else [c for c in table.column_names if c in levels]
    if clash:
        raise OutputError(
            f"dataframe {name!r} has a column {clash[0]!r}, which is the name of an input: rename it, "
            "or give the frame an index with spec.make_multiindex(n_rows=len(frame))"
        )
