"""What the failing inputs of a kind have in common that those of good rows have not. Pure: from frames to sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import polars as pl

_FEW = 12
_MOST = 3
#: A range that is narrower than this share of the whole one is worth telling.
_NARROW = 0.5
#: Characters of a text that are shown.
_WIDTH = 60


def in_common(failed: pl.DataFrame, good: pl.LazyFrame, fields: Sequence[str]) -> list[str]:
    """Sentences, the clearest first: fields that tell the failing from the good wholly, else those whose range is narrow."""
    known = good.collect_schema()
    names = [name for name in fields if name in failed.columns and name in known]
    ordered = [name for name in names if failed[name].dtype.is_numeric() or failed[name].dtype.is_temporal()]
    named = [
        name for name in names if isinstance(failed[name].dtype, pl.String | pl.Boolean | pl.Categorical | pl.Enum)
    ]
    if not failed.height or not names:
        return []
    ends = good.select(
        pl.len().alias("rows"),
        *(_number(name, known[name]).min().alias(f"min {name}") for name in ordered),
        *(_number(name, known[name]).max().alias(f"max {name}") for name in ordered),
    ).collect()
    if not ends["rows"][0]:
        return []
    wholly, partly = list[str](), list[tuple[float, str]]()
    for name in ordered:
        values = failed.select(_number(name, failed[name].dtype).drop_nulls()).to_series()
        low, high = ends[f"min {name}"][0], ends[f"max {name}"][0]
        if not len(values) or low is None or not _comparable(known[name], values.dtype):
            continue
        first, last = values.min(), values.max()
        whole = len(values) == failed.height  # one that has no value is neither above nor below
        if whole and first > high:  # pyright: ignore[reportOperatorIssue, reportOptionalOperand]
            wholly.append(f"all have {name} > {_apart(high, first)} ({_range(first, last)})")
        elif whole and last < low:  # pyright: ignore[reportOperatorIssue, reportOptionalOperand]
            wholly.append(f"all have {name} < {_apart(low, last)} ({_range(first, last)})")
        elif whole and len(values) > 1 and (share := _share(first, last, low, high)) < _NARROW:
            partly.append((share, f"{name} {_range(first, last)} (of good ones {_range(low, high)})"))
    for name in [*named, *(name for name in ordered if failed[name].null_count() == failed.height)]:
        column = pl.col(name).cast(pl.String)
        values = failed[name].unique().head(_FEW + 1)
        texts = values.cast(pl.String).to_list()
        if len(texts) > _FEW or not good.filter(column.is_in(texts, nulls_equal=True)).head(1).collect().is_empty():
            continue
        shown = ", ".join(sorted(_cut(repr(value)) for value in values))
        wholly.append(f"all have {name} = {shown}" if len(texts) == 1 else f"all have {name} among {shown}")
    return wholly or [text for _, text in sorted(partly)[:_MOST]]


def _number(name: str, dtype: pl.DataType) -> pl.Expr:
    """A column without NaN, which is no number."""
    return pl.col(name).fill_nan(None) if dtype.is_float() else pl.col(name)


def _comparable(one: pl.DataType, other: pl.DataType) -> bool:
    return one == other or (one.is_numeric() and other.is_numeric())


def _share(first: Any, last: Any, low: Any, high: Any) -> float:
    """The range of the failing, of that of all; 1 where it cannot be told."""
    ends = pl.Series([first, last, low, high], strict=False).to_physical().cast(pl.Float64)
    whole = max(ends[1], ends[3]) - min(ends[0], ends[2])
    return (ends[1] - ends[0]) / whole if whole and math.isfinite(whole) else 1.0


def _range(first: Any, last: Any) -> str:
    return _told(first) if first == last else f"{_told(first)} to {_told(last)}"


def _apart(value: Any, other: Any) -> str:
    """A value, with as many digits as tell it from another one."""
    return _told(value) if _told(value) != _told(other) else str(value)


def _cut(text: str) -> str:
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"


def _told(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


__all__ = ["in_common"]
