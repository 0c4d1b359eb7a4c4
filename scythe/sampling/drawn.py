"""Which frames `scythe.sample` has drawn in this process, so that a run can say how its inputs came about. Draws nothing."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

#: So many samples are remembered, by eight bytes a row.
_REMEMBERED = 64
_CHANGED = "changed"


@dataclass(frozen=True)
class _Drawn:
    how: dict[str, Any]
    schema: pl.Schema
    rows: pl.Series
    #: The very frame, while it is there.
    frame: weakref.ref[pl.DataFrame]
    #: Whether rows tell that they were drawn: such of a few choices may have come about in any way.
    telling: bool


#: The newest first.
_DRAWN: deque[_Drawn] = deque(maxlen=_REMEMBERED)


def remember(frame: pl.DataFrame, how: dict[str, Any], *, telling: bool) -> None:
    """Notes a frame that was drawn, and how: plain data, for a manifest; `telling` where its rows are like no others."""
    _DRAWN.appendleft(_Drawn(how, frame.schema, frame.hash_rows(), weakref.ref(frame), telling))


def how_drawn(specs: object, table: pa.Table, fields: Collection[str]) -> dict[str, Any] | None:
    """How the inputs of a run were drawn; with `changed` where rows or columns are not those that were; None where nobody knows.

    Args:
        specs: What the user gave, which tells one of equal samples from the others.
        table: What came of it, in the order of the inputs.
        fields: Its columns that may be drawn.
    """
    import polars as pl

    if not _DRAWN or not table.num_rows:
        return None
    # Of equal ones the very frame first: it may have been changed in place, so that being it is not enough.
    for drawn in sorted(_DRAWN, key=lambda drawn: drawn.frame() is not specs):
        names = drawn.schema.names()
        if not {*names} <= {*table.column_names} or (table.num_rows != len(drawn.rows) and not drawn.telling):
            continue
        try:
            given = cast(pl.DataFrame, pl.from_arrow(table.select(names)))
            frame = given.cast(drawn.schema)
            if not frame.cast(given.schema).equals(given):  # a number that a whole one was made of
                continue
            rows = frame.hash_rows()
        except pl.exceptions.PolarsError:  # values that the field had no place for when it was drawn
            continue
        # Fields that were not drawn stay at one value. Of extra values nobody knows what they do.
        if fields and rows.equals(drawn.rows) and all(map(_is_one_value, table.select({*fields} - {*names}).columns)):
            return drawn.how
        if drawn.telling and rows.is_in(drawn.rows.implode()).any():
            return {**drawn.how, _CHANGED: True}
    return None


def _is_one_value(column: pa.ChunkedArray) -> bool:
    """Whether all values of a column, of whatever type, are alike."""
    import polars as pl

    return pl.Series("", column).to_frame().hash_rows().n_unique() < 2


def told(how: dict[str, Any]) -> str:
    """How inputs were drawn, for people."""
    parts = [f"{how['method']}, seed {how['seed']}", *([f"skip {how['skip']:,}"] if how.get("skip") else [])]
    if how.get("constraint"):
        parts.append(f"where {how['constraint']}")
    text = ", ".join(parts)
    return f"{text}; then changed" if how.get(_CHANGED) else text
