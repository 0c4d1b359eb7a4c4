"""Frames of pandas and Polars made to Arrow: what `allocate` takes. Checks nothing."""

from __future__ import annotations

import sys
from pathlib import PurePath
from typing import Any

import pyarrow as pa

from scythe.errors import InputError


def frame_to_arrow(frame: Any) -> pa.Table | None:
    """The columns of a pandas, Polars or Arrow table (a named pandas index included), None for anything else."""
    pandas, polars = sys.modules.get("pandas"), sys.modules.get("polars")
    if isinstance(frame, pa.Table):
        return frame
    if isinstance(frame, pa.RecordBatch):
        return pa.Table.from_batches([frame])
    if polars is not None and isinstance(frame, polars.DataFrame | polars.LazyFrame):
        return frame.lazy().collect().to_arrow()
    if pandas is not None and isinstance(frame, pandas.DataFrame):
        if any(name is not None for name in frame.index.names):
            frame = frame.reset_index()
        frame = frame.rename(columns=str)
        columns = {name: _pandas_column(str(name), frame[name]) for name in frame.columns}
        return pa.table(columns)
    return None


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, PurePath) else value


def _pandas_column(name: str, series: Any) -> pa.Array | pa.ChunkedArray:
    if series.dtype == object:
        series = series.map(_text)
    try:
        return pa.array(series, from_pandas=series.dtype.kind != "f")
    except pa.ArrowException as error:
        raise InputError(f"{name}: the column holds values of unlike types: {error}") from error
