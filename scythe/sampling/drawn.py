"""Which frames `scythe.sample` has drawn in this process, so that a run can say how its inputs came about. Draws nothing."""

from __future__ import annotations

import weakref
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

#: So many samples are remembered, by eight bytes a row.
_REMEMBERED = 64
_CHANGED = "changed"


@dataclass(frozen=True)
class _Drawn:
    how: dict[str, Any]
    names: tuple[str, ...]
    rows: pl.Series
    #: The very frame, while it is there.
    frame: weakref.ref[pl.DataFrame]
    #: Whether rows tell that they were drawn: such of a few choices may have come about in any way.
    telling: bool


#: The newest first.
_DRAWN: deque[_Drawn] = deque(maxlen=_REMEMBERED)


def remember(frame: pl.DataFrame, how: dict[str, Any], *, telling: bool) -> None:
    """Notes a frame that was drawn, and how: plain data, for a manifest; `telling` where its rows are like no others."""
    _DRAWN.appendleft(_Drawn(how, tuple(frame.columns), frame.hash_rows(), weakref.ref(frame), telling))


def how_drawn(specs: object) -> dict[str, Any] | None:
    """How the inputs of a run were drawn; with `changed` where rows or columns are not those that were; None where nobody knows."""
    import polars as pl

    if not isinstance(specs, pl.DataFrame) or not _DRAWN or not specs.height:
        return None
    # Of equal ones the very frame first: it may have been changed in place, so that being it is not enough.
    for drawn in sorted(_DRAWN, key=lambda drawn: drawn.frame() is not specs):
        if not set(drawn.names) <= {*specs.columns}:
            continue
        try:
            rows = specs.select(drawn.names).hash_rows()
        except pl.exceptions.PolarsError:  # a column of objects has no hash
            return None
        if tuple(specs.columns) == drawn.names and rows.equals(drawn.rows):
            return drawn.how
        if drawn.telling and rows.is_in(drawn.rows.implode()).any():
            return {**drawn.how, _CHANGED: True}
    return None


def told(how: dict[str, Any]) -> str:
    """How inputs were drawn, for people."""
    parts = [f"{how['method']}, seed {how['seed']}", *([f"skip {how['skip']:,}"] if how.get("skip") else [])]
    if how.get("constraint"):
        parts.append(f"where {how['constraint']}")
    text = ", ".join(parts)
    return f"{text}; then changed" if how.get(_CHANGED) else text
