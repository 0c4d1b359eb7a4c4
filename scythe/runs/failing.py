"""What the failing inputs of a kind have in common that those of good rows have not. Pure: from frames to sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

_FEW = 12
_MOST = 3
#: A range that is narrower than this share of the whole one is worth telling.
_NARROW = 0.5


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
        *(_finite(name, known[name]).min().alias(f"min {name}") for name in ordered),
        *(_finite(name, known[name]).max().alias(f"max {name}") for name in ordered),
    ).collect()
    wholly, partly = list[str](), list[tuple[float, str]]()
    for name in ordered:
        values = failed.select(_finite(name, failed[name].dtype).drop_nulls()).to_series()
        low, high = ends[f"min {name}"][0], ends[f"max {name}"][0]
        if not len(values) or low is None or known[name].is_temporal() != values.dtype.is_temporal():
            continue
        first, last = values.min(), values.max()
        if first > high:  # pyright: ignore[reportOperatorIssue, reportOptionalOperand]
            wholly.append(f"all have {name} > {_apart(high, first)} ({_range(first, last)})")
        elif last < low:  # pyright: ignore[reportOperatorIssue, reportOptionalOperand]
            wholly.append(f"all have {name} < {_apart(low, last)} ({_range(first, last)})")
        elif len(values) > 1 and (share := _share(first, last, low, high)) < _NARROW:
            partly.append((share, f"{name} {_range(first, last)} (of good ones {_range(low, high)})"))
    for name in named:
        values = failed[name].cast(pl.String).unique().head(_FEW + 1).to_list()
        if len(values) > _FEW or not good.filter(pl.col(name).cast(pl.String).is_in(values, nulls_equal=True)).head(1).collect().is_empty():  # fmt: skip
            continue
        shown = ", ".join(sorted(repr(value) for value in values))
        wholly.append(f"all have {name} = {shown}" if len(values) == 1 else f"all have {name} among {shown}")
    return wholly or [text for _, text in sorted(partly)[:_MOST]]


def _finite(name: str, dtype: pl.DataType) -> pl.Expr:
    column = pl.col(name)
    return pl.when(column.is_finite()).then(column) if dtype.is_float() else column


def _share(first: Any, last: Any, low: Any, high: Any) -> float:
    """The range of the failing, of that of all."""
    whole = max(last, high) - min(first, low)
    return (last - first) / whole if whole else 1.0


def _range(first: Any, last: Any) -> str:
    return _told(first) if first == last else f"{_told(first)} to {_told(last)}"


def _apart(value: Any, other: Any) -> str:
    """A value, with as many digits as tell it from another one."""
    return _told(value) if _told(value) != _told(other) else str(value)


def _told(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


__all__ = ["in_common"]
