"""What is wrong with values: which column, which rows, which rule, and the way out. Never finds a problem itself."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

from scythe_catalog.compute import pc
from scythe_catalog.errors import DataError, SchemaError
from scythe_catalog.schema import kinds as k

#: So many problems are told in full, and so many characters of a value.
_SHOWN, _SHOWN_CHARACTERS = 50, 40
_YEAR_FIRST = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True)
class Problem:
    """One broken rule of one column; `rows` counts from 0 and is empty where the whole column is meant."""

    column: str
    rule: str
    rows: tuple[int, ...] = ()

    def __str__(self) -> str:
        if not self.rows:
            return f"{self.column}: {self.rule}"
        shown = ", ".join(map(str, self.rows[:10])) + (", …" if len(self.rows) > 10 else "")
        return f"{self.column}: {self.rule} ({len(self.rows):,} row{'s' * (len(self.rows) > 1)}: {shown})"


def of_another_type(name: str, values: pa.ChunkedArray, wanted: k.Kind, *, is_pandas: bool) -> Problem:
    """That a column of a frame holds something else, what, and how it is made what is wanted."""
    first = next((value for value in values if value.is_valid), None)
    such = f", such as {_shown(first)}" if first is not None else ""
    way = _way(name, values, wanted, first, is_pandas=is_pandas)
    return Problem(
        name,
        f"must be {wanted.describe()}, the column holds {_in_words(values.type, wanted)}{such}{way and f'; {way}'}",
    )


def _shown(value: pa.Scalar) -> str:
    """A value as Python writes it."""
    try:
        shown = repr(value.as_py())
    except ValueError:  # nanoseconds, say
        shown = str(value)
    return shown if len(shown) <= _SHOWN_CHARACTERS else f"{shown[: _SHOWN_CHARACTERS - 1]}…"


def _way(name: str, values: pa.ChunkedArray, wanted: k.Kind, first: pa.Scalar | None, *, is_pandas: bool) -> str:
    """How a column of plain values is made one of another plain type, so that what is missing stays missing; empty where that is nothing common."""
    dtype = values.type
    text = pa.types.is_string(dtype) or pa.types.is_large_string(dtype) or pa.types.is_string_view(dtype)
    number = pa.types.is_integer(dtype) or pa.types.is_floating(dtype)
    frame, column = f"frame[{name!r}]", f"pl.col({name!r})"
    # NaN would be true, and a text.
    there = f"{column}.fill_nan(None)" if pa.types.is_floating(dtype) else column

    def said(what: str, polars: str, pandas: str) -> str:
        return f"{what}: {pandas if is_pandas else polars}"

    def cast(polars: str, pandas: str) -> str:
        return said("cast it", f"{there}.cast(pl.{polars})", f"{frame}.astype({pandas!r})")

    def parsed(what: str, form: str, after: str = "") -> str:
        """A text that begins with the year can be read in one way alone."""
        iso = first is None or what == "time" or _YEAR_FIRST.match(str(first.as_py()))
        polars, pandas = ("", "") if iso else (repr(form), f", format={form!r}")
        told = said("parse it", f"{column}.str.to_{what}({polars})", f"pd.to_datetime({frame}{pandas}){after}")
        return told if iso else f"{told}, where that is its form"

    match wanted:
        case k.Float() if text and pc.any(pc.match_substring(values, ",")).as_py():
            told = f"{column}.str.replace(',', '.').cast(pl.Float64)"
            return said("where its commas are decimal ones", told, f"{frame}.str.replace(',', '.').astype('float')")
        case k.Float() if number or text:
            return cast("Float64", "float")
        case k.Int() if number or text or pa.types.is_boolean(dtype):
            return cast("Int64", "int" if text else "Int64")
        case k.Str() if number:  # who writes 01234 into a file has read it as 1234
            whole = ".astype('Int64')" if pa.types.is_integer(dtype) else ""
            as_text = f"dtype={{{name!r}: 'string'}}" if is_pandas else f"schema_overrides={{{name!r}: pl.String}}"
            told = said("else cast it", f"{there}.cast(pl.String)", f"{frame}{whole}.astype('string')")
            return f"if it comes from a file, read it as text, or zeros in front are lost ({as_text}); {told}"
        case k.Str() if text or pa.types.is_primitive(dtype):
            return cast("String", "string")
        case k.Bool() if number:
            return cast("Boolean", "boolean")
        case k.Date() | k.Time() if text:
            what = "date" if isinstance(wanted, k.Date) else "time"
            return parsed(what, "%d.%m.%Y", f".dt.{what}")
        case k.Timestamp() if text:
            return parsed("datetime", "%d.%m.%Y %H:%M")
        case k.Timestamp() if pa.types.is_timestamp(dtype) and wanted.aware and not dtype.tz:
            return said("say where it is", f"{column}.dt.replace_time_zone('UTC')", f"{frame}.dt.tz_localize('UTC')")
        case k.Timestamp() if pa.types.is_timestamp(dtype) and dtype.tz and not wanted.aware:
            polars = f"{column}.dt.convert_time_zone('UTC').dt.replace_time_zone(None)"
            return said("drop its zone", polars, f"{frame}.dt.tz_convert('UTC').dt.tz_localize(None)")
        case k.Duration() if number:
            return said("say of what", f"pl.duration(seconds={name!r})", f"pd.to_timedelta({frame}, unit='s')")
        case k.Float() if pa.types.is_duration(dtype):
            return said("say in what", f"{column}.dt.total_seconds(fractional=True)", f"{frame}.dt.total_seconds()")
        case _:
            return ""


def _in_words(dtype: pa.DataType, wanted: k.Kind) -> str:
    """A column's type in the words of models; in Arrow's where these would not tell it from what is wanted."""
    try:
        words = k.kind_of_arrow(dtype).describe()
    except (SchemaError, ValueError, TypeError):
        return str(dtype)
    return words if words != wanted.describe() else str(dtype)


def raise_problems(what: str | None, problems: Iterable[Problem]) -> None:
    """Nothing where there are none.

    Raises:
        DataError: one line a problem.
    """
    found = tuple(problems)
    if found:
        head = f"{what}: " if what else ""
        lines = "\n".join(f"  {p}" for p in found[:_SHOWN]) if len(found) > 1 or what else "".join(map(str, found))
        if len(found) > _SHOWN:
            lines += f"\n  … and {len(found) - _SHOWN:,} more"
        raise DataError(f"{head}{len(found)} problem{'s' * (len(found) > 1)} with the values\n{lines}", found)
