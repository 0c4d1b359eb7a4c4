"""The bounds that a model declares, held against columns. Never changes a value."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pyarrow as pa

from scythe_catalog.compute import pc
from scythe_catalog.schema import kinds as k
from scythe_catalog.schema.problems import Problem, raise_problems
from scythe_catalog.schema.table_schema import Column, TableSchema

_SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def check_bounds(table: pa.Table, schema: TableSchema, *, what: str) -> None:
    """Every declared bound on every column.

    Raises:
        DataError: which column breaks which bound in which rows.
    """
    problems: list[Problem] = []
    for column in schema:
        values = table.column(column.name)
        for rule, broken in _broken(column, values):
            nothing = _nan(values)
            for mask in (pc.and_(broken, pc.invert(nothing)), pc.and_(broken, nothing)):
                rows = pc.indices_nonzero(mask).to_pylist()
                if rows:
                    got = values[rows[0]].as_py()
                    shown = "NaN" if isinstance(got, float) and math.isnan(got) else repr(got)
                    problems.append(Problem(column.name, f"must be {rule}, got {shown}", tuple(rows)))
    raise_problems(what, problems)


def _nan(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Which values are NaN."""
    if pa.types.is_floating(values.type):
        return pc.fill_null(pc.is_nan(values), False)
    return pa.chunked_array([pa.repeat(pa.scalar(False), len(values))])


def _broken(column: Column, values: pa.ChunkedArray) -> Iterator[tuple[str, pa.ChunkedArray]]:
    """Each rule that is broken, as words and as a mask of the rows that break it."""
    for name, bound in column.bounds.items():
        match name:
            case "ge" | "gt" | "le" | "lt" if column.kind.flat:
                held, rule = column.kind.held(name, values, bound), f"{_SIGNS[name]} {bound}"
            case "min_length" | "max_length":
                at_least = name == "min_length"
                held = (pc.greater_equal if at_least else pc.less_equal)(_length(values), bound)
                rule = f"{'at least' if at_least else 'at most'} {bound} long"
            case "pattern" if column.kind == k.Str():
                text = getattr(bound, "pattern", bound)
                held, rule = pc.match_substring_regex(values, text), f"text that matches {text!r}"
            case "finite":
                held, rule = pc.is_finite(values), "a finite number"
            case _:
                continue
        if pc.any(pc.invert(held)).as_py():
            yield rule, pc.fill_null(pc.invert(held), False)
    if isinstance(column.kind, k.Int) and column.kind.choices is not None:
        held = pc.is_in(values, pa.array(column.kind.choices, pa.int64()), skip_nulls=True)
        outside = pc.and_(pc.invert(held), pc.is_valid(values))
        if pc.any(outside).as_py():
            yield f"one of {', '.join(map(str, column.kind.choices))}", outside


def _length(values: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_string(values.type):
        return pc.utf8_length(values)
    if pa.types.is_binary(values.type):
        return pc.binary_length(values)
    if pa.types.is_map(values.type):
        values = values.cast(pa.list_(pa.struct([values.type.key_field, values.type.item_field])))
    return pc.list_value_length(values)
