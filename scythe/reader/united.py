"""Columns of several versions as one: of one unit and meaning, and of a type that holds the values of all exactly, or refused by name."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from itertools import combinations
from typing import Any

import polars as pl

from scythe.errors import ReadError
from scythe_catalog.schema import TableSchema, clashes, mixed_meanings, mixed_units, united

#: Numbers of so many digits are told apart by floats.
_FLOAT_DIGITS = 15
_INT_DIGITS, _DECIMAL_DIGITS = 19, 38


def brought_together(
    schemas: Sequence[TableSchema], columns: Sequence[str] | None = None
) -> tuple[TableSchema, list[list[pl.Expr]]]:
    """The schema that several come to, and of each what brings its columns there.

    Args:
        schemas: One at least.
        columns: Those that are asked for; all without them.

    Raises:
        ReadError: types of one of them have nothing in common, not even a text. What is done for a column says so, too, where a number of
            one schema is no float, and another schema has floats.
    """
    schema = schemas[0]
    for other in schemas[1:]:
        schema = united(schema, other)
    unlike = _unlike(schemas)
    _check_texts(schemas, unlike if columns is None else unlike & {*columns})
    floats = {column.name for one in schemas for column in one if column.kind.polars().is_float()}
    return schema, [_casts(own, schema, unlike, floats) for own in schemas]


def check_alike(schemas: Sequence[TableSchema], columns: Sequence[str] | None) -> None:
    """Nothing where each of these columns (all of them, without any) has one unit in all of the schemas, and categories that mean the same.

    Raises:
        ReadError: one has not.
    """
    units = {name: f"is in [{'], ['.join(told)}]" for name, told in mixed_units(schemas).items()}
    meanings = {
        name: f"has categories that mean something else: {told}" for name, told in mixed_meanings(schemas).items()
    }
    for name, told in (*units.items(), *meanings.items()):
        if columns is None or any(
            name == column or name.startswith((f"{column}.", f"{column}[")) for column in columns
        ):
            raise ReadError(f"{name!r} {told}, by version: read the versions one by one, or leave it out with columns=")


def _unlike(schemas: Sequence[TableSchema]) -> set[str]:
    """The columns whose types in two generations have nothing in common: they are united as text."""
    found: set[str] = set()
    for one, other in combinations(schemas, 2):
        for name in (name for name in other.names if name in one):
            if clashes(one.select([name]), other.select([name])):
                shown = [schema[name].kind.polars() for schema in (one, other)]
                if not _have_a_number(shown):
                    found.add(name)
    return found


def _have_a_number(types: Sequence[Any]) -> bool:
    """Whether some type of numbers holds all values of these."""
    if not all(dtype.is_numeric() or dtype == pl.Boolean for dtype in types):
        return False
    decimals = [dtype for dtype in types if dtype.is_decimal()]
    if not decimals or any(dtype.is_float() for dtype in types):
        return True  # what is no float is told where it is cast
    whole = max(dtype.precision - dtype.scale if dtype.is_decimal() else _INT_DIGITS for dtype in types)
    return pl.Boolean not in types and whole + max(dtype.scale for dtype in decimals) <= _DECIMAL_DIGITS


def _check_texts(schemas: Sequence[TableSchema], unlike: set[str]) -> None:
    """Nothing where columns whose types have nothing in common can be united as text.

    Raises:
        ReadError: one of them has no text.
    """
    for name in sorted(unlike):
        kinds = [schema[name].kind for schema in schemas if name in schema]
        if any(dtype.is_nested() or dtype in (pl.Duration, pl.Binary) for dtype in (kind.polars() for kind in kinds)):
            told = " and ".join(dict.fromkeys(kind.describe() for kind in kinds))
            raise ReadError(
                f"{name!r} is {told}, by version, which no column holds: take the versions one by one, or leave it out with columns="
            )


def _casts(own: TableSchema, schema: TableSchema, unlike: set[str], floats: set[str]) -> list[pl.Expr]:
    """What brings the columns of one schema to the types that all share."""
    casts: list[pl.Expr] = []
    for column in own:
        held, values = column.kind.polars(), pl.col(column.name)
        target = schema[column.name].kind.polars()
        if column.name in unlike:
            casts.append(values.dt.to_string("%H:%M:%S%.f") if held == pl.Time else values.cast(pl.String))
        elif column.name in floats and (held.is_integer() or held.is_decimal()):
            casts.append(values.map_batches(_as_floats, return_dtype=pl.Float64, is_elementwise=True))
        elif (common := _with_categories_of(held, target)) != held:
            casts.append(values.cast(common))
    return casts


def _with_categories_of(held: Any, target: Any) -> Any:
    """A type with the categories of another one, at any depth; what it lacks of that one otherwise, joining frames brings."""
    match held, target:
        case pl.Enum(), pl.Enum() | pl.String():
            return target
        case pl.List(), pl.List():
            return pl.List(_with_categories_of(held.inner, target.inner))
        case pl.Map(), pl.Map():
            return pl.Map(held.key, _with_categories_of(held.value, target.value))
        case pl.Struct(), pl.Struct():
            targets = {field.name: field.dtype for field in target.fields}
            return pl.Struct(
                {field.name: _with_categories_of(field.dtype, targets[field.name]) for field in held.fields}
            )
        case _:
            return held


def _as_floats(values: pl.Series) -> pl.Series:
    """Exact numbers of one version as the floats that they are in another.

    Raises:
        ReadError: one of them is no float.
    """
    floats = values.cast(pl.Float64)
    if values.dtype.is_decimal():
        # Their digits without the point; those of a few digits are what their floats are written as.
        many = values.filter((values.to_physical().abs() >= 10**_FLOAT_DIGITS).fill_null(False)).unique()
        lost = [value for value in many.to_list() if Decimal(repr(float(value))) != value]
    else:
        lost = values.filter(floats.cast(values.dtype, strict=False).ne_missing(values)).head(1).to_list()
    if lost:
        raise ReadError(
            f"{values.name!r} is a float in one version, and {lost[0]} in another, which no float is: take the versions one by one, "
            "or leave it out with columns= of scythe.read"
        )
    return floats


__all__ = ["brought_together", "check_alike"]
