"""Which frames `scythe.sample` has drawn in this process, so that a run can say how its inputs came about. Draws nothing."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Collection, Iterable
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
    #: What tells the values of columns that are like no others, in any order. Of a few choices each may have come about in any way.
    telling: dict[str, int]
    #: Rows at some places of the space that a sequence fills, by which it is known again; None of what is no sequence.
    space: pl.Series | None

    def whole(self, rows: pl.Series) -> dict[str, Any] | None:
        """How rows were drawn: by this sample, or by it and others that go on with its sequence; None where they were not."""
        at = len(self.rows)
        if not rows.head(at).equals(self.rows):
            return None
        while at < len(rows):
            if (reached := max(other._reach(self, rows, at) for other in _DRAWN)) == at:
                return None
            at = reached
        return self.how if at == len(self.rows) else {**self.how, "n": at}

    def _reach(self, first: _Drawn, rows: pl.Series, at: int) -> int:
        """Up to where rows that the first has begun are those of this sample from `at` on; `at` itself where they are not."""
        if self.space is None or first.space is None or not self.space.equals(first.space):
            return at
        place: dict[str, Any] = {"n": None, "skip": None}
        begin = first.how["skip"] + at - self.how["skip"]
        if {**self.how, **place} != {**first.how, **place} or not 0 <= begin < len(self.rows):
            return at
        mine = self.rows.slice(begin)
        return at + len(mine) if rows.slice(at, len(mine)).equals(mine) else at


#: The newest first.
_DRAWN: deque[_Drawn] = deque(maxlen=_REMEMBERED)


def remember(
    frame: pl.DataFrame, how: dict[str, Any], *, telling: Iterable[str], space: pl.DataFrame | None = None
) -> None:
    """Notes a frame that was drawn, and how: plain data, for a manifest.

    Args:
        frame: What was drawn.
        how: By which arguments.
        telling: The columns whose values are like no others.
        space: Of a sequence: what it gives at some places that are always the same.
    """
    told = {name: _digest(frame[name]) for name in telling}
    known = space.hash_rows() if space is not None else None
    _DRAWN.appendleft(_Drawn(how, frame.schema, frame.hash_rows(), weakref.ref(frame), told, known))


def how_drawn(specs: object, table: pa.Table, fields: Collection[str]) -> dict[str, Any] | None:
    """How the inputs of a run were drawn; with `changed` where rows or columns are not those that were; None where nobody knows.

    Changed inputs are known by a row that is as it was drawn, or by a column of which all values are.

    Args:
        specs: What the user gave, which tells one of equal samples from the others.
        table: What came of it, in the order of the inputs.
        fields: Its columns that may be drawn.
    """
    if not _DRAWN or not table.num_rows:
        return None
    # Of equal ones the very frame first: it may have been changed in place, so that being it is not enough.
    every = sorted(_DRAWN, key=lambda drawn: drawn.frame() is not specs)
    found: dict[Any, pl.Series | None] = {}
    for drawn in every:
        names = drawn.schema.names()
        schema = tuple(drawn.schema.items())
        if schema not in found:
            found[schema] = _rows(table, drawn.schema)
        how = drawn.whole(rows) if (rows := found[schema]) is not None else None
        # Fields that were not drawn stay at one value. Of extra values nobody knows what they do.
        if how and fields and all(map(_is_one_value, table.select({*fields} - {*names}).columns)):
            return how
    for drawn in every:
        rows = found[tuple(drawn.schema.items())]
        if drawn.telling and rows is not None and rows.is_in(drawn.rows.implode()).any():
            return {**drawn.how, _CHANGED: True}
    for drawn in every:
        if any(_has_column(table, drawn, name) for name in drawn.telling):
            return {**drawn.how, _CHANGED: True}
    return None


def _rows(table: pa.Table, schema: pl.Schema) -> pl.Series | None:
    """What tells the rows of a table, as far as a sample of this schema has them; None where it cannot be one."""
    import polars as pl

    names = schema.names()
    if not {*names} <= {*table.column_names}:
        return None
    try:
        given = cast(pl.DataFrame, pl.from_arrow(table.select(names)))
        frame = given.cast(schema)
        # Else a number that a whole one was made of.
        return frame.hash_rows() if frame.cast(given.schema).equals(given) else None
    except pl.exceptions.PolarsError:  # values that the field had no place for when it was drawn
        return None


def _has_column(table: pa.Table, drawn: _Drawn, name: str) -> bool:
    """Whether a column of the inputs has all values that were drawn, and no others."""
    import polars as pl

    if name not in table.column_names or table.num_rows != len(drawn.rows):
        return False
    try:
        return _digest(pl.Series(name, table.column(name)).cast(drawn.schema[name])) == drawn.telling[name]
    except pl.exceptions.PolarsError:
        return False


def _digest(column: pl.Series) -> int:
    """What tells some values from others, in whatever order they are."""
    return int(column.hash().sum())


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
