"""Which values of two columns are the same, where they stand beside each other; within lists and nested models, too. Pure."""

from __future__ import annotations

import polars as pl

#: Numbers that stand beside each other for no more than an order of summation differ by less [relative].
_NOISE = 1e-9


def same(one: pl.Series, other: pl.Series) -> pl.Series:
    """Whether each value is that of the other column: numbers that are not whole up to noise, all else exactly; null is null.

    Args:
        one: Any values.
        other: As many; another type is taken for its values.
    """
    if _is_number(one) and _is_number(other):
        return _same_numbers(one, other)
    if isinstance(one.dtype, pl.Struct) and isinstance(other.dtype, pl.Struct) and _names(one) == _names(other):
        found = one.is_null() == other.is_null()
        for name in _names(one):
            found &= same(one.struct.field(name), other.struct.field(name)) | one.is_null()
        return found
    if isinstance(one.dtype, pl.List) and isinstance(other.dtype, pl.List):
        return _same_lists(one, other)
    one, other = alike(one, other)
    return one.eq_missing(other)


def _same_numbers(one: pl.Series, other: pl.Series) -> pl.Series:
    if not (one.dtype.is_float() or other.dtype.is_float()):  # exact ones have no noise
        one, other = exact(one, other)
        return one.eq_missing(other)
    x, y = pl.col("x"), pl.col("y")
    by, of = (x - y).abs(), pl.max_horizontal(x.abs(), y.abs())
    near = by.is_finite() & (by <= _NOISE * of)
    pair = pl.DataFrame({"x": one.cast(pl.Float64), "y": other.cast(pl.Float64)})
    return pair.select(x.eq_missing(y) | near.fill_null(False)).to_series()


def _same_lists(one: pl.Series, other: pl.Series) -> pl.Series:
    lengths = one.list.len(), other.list.len()
    found = lengths[0].eq_missing(lengths[1])
    pair = pl.DataFrame({"at": pl.int_range(len(one), eager=True), "x": one, "y": other}).filter(
        found & (lengths[0] > 0)
    )
    if not pair.height:
        return found
    x, y = (pair[name].explode() for name in "xy")
    at = pair.select(pl.col("at").repeat_by(pl.col("x").list.len())).to_series().explode()
    unlike = at.filter(~same(x, y)).unique()
    return found & ~pl.int_range(len(one), eager=True).is_in(unlike.implode())


def _is_number(values: pl.Series) -> bool:
    return values.dtype.is_numeric()


def _names(values: pl.Series) -> list[str]:
    return values.struct.fields


def exact(one: pl.Series, other: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Whole numbers and decimals in one type that holds both exactly."""
    one, other = alike(one, other)
    return tuple(v.cast(pl.Int128) if v.dtype.is_integer() else v for v in (one, other))  # pyright: ignore[reportReturnType]


def alike(one: pl.Series, other: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Both in one type: a field may have changed its type from one run to the other. What has no type in common is text."""
    if one.dtype == other.dtype:
        return one, other
    try:
        dtype = pl.concat([frame.to_frame("x").head(0) for frame in (one, other)], how="vertical_relaxed").dtypes[0]
        return one.cast(dtype), other.cast(dtype)
    except pl.exceptions.PolarsError:
        return tuple(  # pyright: ignore[reportReturnType]
            pl.Series([None if v is None else str(v) for v in values.to_list()], dtype=pl.String)
            for values in (one, other)
        )


def as_keys(one: pl.Series, other: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Both in one type, in which values are equal where they are equal as numbers: no whole number is rounded to a float."""
    if (
        {one.dtype.is_integer(), other.dtype.is_integer()}
        == {one.dtype.is_float(), other.dtype.is_float()}
        == {True, False}
    ):
        return _written(one), _written(other)
    return alike(one, other)


def _written(numbers: pl.Series) -> pl.Series:
    """Numbers as text, whole ones alike, whatever their type is."""
    if numbers.dtype.is_integer():
        return numbers.cast(pl.String)
    whole = (numbers == numbers.floor()) & (numbers.abs() < 2.0**127)
    texts = numbers.set(~whole.fill_null(False), None).cast(pl.Int128).cast(pl.String)
    return texts.zip_with(texts.is_not_null(), numbers.cast(pl.String))


__all__ = ["alike", "as_keys", "exact", "same"]
