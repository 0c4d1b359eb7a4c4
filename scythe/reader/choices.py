"""Choices as the runs that are read have them: a table of the catalog has those of all models that ever wrote to it.

So what is larger, or sorted first, is what the model of these runs says, whatever other versions came before or since.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any

import polars as pl

from scythe_catalog.schema import TableSchema


def may_be_choices(schema: TableSchema) -> bool:
    """Whether a column may hold choices: as such, or as the text that a later model made of them."""
    return any(_may_be(column.kind.polars(), texts=True) for column in schema)


def has_choices(schema: TableSchema) -> bool:
    """Whether a column holds choices."""
    return any(_may_be(column.kind.polars(), texts=False) for column in schema)


def as_told(frame: pl.LazyFrame, schema: TableSchema, told: Sequence[TableSchema]) -> pl.LazyFrame:
    """The frame with choices as they are told.

    Args:
        frame: Its columns are those of `schema`.
        schema: As the catalog has them.
        told: The columns of the runs that are read, the oldest first; the newest one's order leads. What one of them has as text is text.
    """
    casts: list[pl.Expr] = []
    for column in schema:
        own = [one[column.name].kind.polars() for one in told if column.name in one]
        held = column.kind.polars()
        if own and (wanted := _told(held, reduce(_together, own))) != held:
            casts.append(pl.col(column.name).cast(wanted))
    return frame.with_columns(casts) if casts else frame


def merged(before: Iterable[str], after: Iterable[str]) -> list[str]:
    """All choices in the order of those of `after`; the others behind the one that they stood behind before."""
    found, last = [*after], ""
    known = {*found}
    for value in before:
        if value not in known:
            found.insert(found.index(last) + 1 if last in known else 0, value)
            known.add(value)
        last = value
    return found


def _may_be(dtype: Any, *, texts: bool) -> bool:
    match dtype:
        case pl.List():
            return _may_be(dtype.inner, texts=texts)
        case pl.Map():
            return _may_be(dtype.key, texts=texts) or _may_be(dtype.value, texts=texts)
        case pl.Struct():
            return any(_may_be(field.dtype, texts=texts) for field in dtype.fields)
        case _:
            return isinstance(dtype, pl.Enum) or (texts and dtype == pl.String)


def _together(before: Any, after: Any) -> Any:
    """The type of choices of an older and a newer run."""
    match before, after:
        case pl.Enum(), pl.Enum():
            return pl.Enum(merged(before.categories, after.categories))
        case pl.List(), pl.List():
            return pl.List(_together(before.inner, after.inner))
        case pl.Map(), pl.Map():
            return pl.Map(_together(before.key, after.key), _together(before.value, after.value))
        case pl.Struct(), pl.Struct():
            older = {field.name: field.dtype for field in before.fields}
            newer = {f.name: _together(older[f.name], f.dtype) if f.name in older else f.dtype for f in after.fields}
            return pl.Struct({**older, **newer})
        case _:
            return after if before == after else pl.Null()  # a text, or nothing that is told


def _told(held: Any, own: Any) -> Any:
    """A type of the catalog with choices as they are told, at any depth."""
    match held, own:
        case pl.Enum() | pl.String(), pl.Enum():
            return own
        case pl.List(), pl.List():
            return pl.List(_told(held.inner, own.inner))
        case pl.Map(), pl.Map():
            return pl.Map(_told(held.key, own.key), _told(held.value, own.value))
        case pl.Struct(), pl.Struct():
            told = {field.name: field.dtype for field in own.fields}
            return pl.Struct({f.name: _told(f.dtype, told[f.name]) if f.name in told else f.dtype for f in held.fields})
        case _:
            return held


__all__ = ["as_told", "has_choices", "may_be_choices", "merged"]
