"""Dataframes as bands: the median of a column over the first one, and where nine tenths of its values lie. Knows no run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from scythe.reporting.facts import Band, Scale, Variable
from scythe.reporting.spreads import laid_out, middles, numeric

MOST_COLUMNS = 8
_MOST_PLACES, _BINS = 400, 200


def bands(name: str, frame: pl.DataFrame, variables: Sequence[Variable]) -> tuple[Band, ...]:
    """The bands of a dataframe whose own columns are these, the first of which they lie over; none where there are no numbers."""
    if len(variables) < 2 or not frame.height:
        return ()
    x, *others = variables
    placed = _placed(x, frame[x.name])
    if placed is None:
        return ()
    scale, places, at = placed
    found: list[Band] = []
    for y in others:
        values = numeric(frame[y.name])
        if values is None or frame.schema[y.name].is_temporal():
            continue
        rows = pl.DataFrame([places.alias("place"), at.alias("x"), pl.Series("y", values)])
        along = middles(rows.filter(pl.col("y").is_finite(), pl.col("place") >= 0), pl.col("x").mean())
        if len(along) > 1:
            found.append(Band(name, x, y, scale, along))
        if len(found) == MOST_COLUMNS:
            break
    return tuple(found)


def _placed(x: Variable, column: pl.Series) -> tuple[Scale, pl.Series, pl.Series] | None:
    """The scale of the first column, the place of each row, and its value there."""
    values = numeric(column)
    if values is None:
        _, axis = laid_out(x, column)
        if axis is None:
            return None
        return axis.scale, pl.Series("place", axis.places), pl.Series("at", axis.values)
    at = pl.Series("at", np.where(np.isfinite(values), values, np.nan), nan_to_null=True)
    distinct = at.n_unique() - int(at.null_count() > 0)
    if distinct < 2:
        return None
    is_time = column.dtype.is_temporal() and not isinstance(column.dtype, pl.Duration | pl.Time)
    low, high = float(at.min()), float(at.max())  # pyright: ignore[reportArgumentType] - they are numbers
    scale = Scale("time" if is_time else "number", (low, high), whole=column.dtype.is_integer())
    if distinct <= _MOST_PLACES:
        return scale, at.rank("dense").alias("place"), at
    return scale, ((at - low) / (high - low) * _BINS).floor().clip(0, _BINS - 1).alias("place"), at
