"""The arrays in files of tables, CSV and Parquet: their columns side by side, in one type. Reads no more than it is given."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import PurePath

import numpy as np
import polars as pl
import polars.selectors as cs
import pyarrow as pa
from pyarrow import csv

from scythe.errors import InputError
from scythe.loaders.arrays import reals_of, rounded, wider_than

_SUFFIXES = (".parquet", ".pq", ".csv")
#: What stands for a value that is missing, in a line that may be one of values; Arrow's, too.
_NOTHING = (
    "",
    "na",
    "n/a",
    "null",
    "none",
    "-",
    "?",
    "missing",
    "#n/a",
    "#na",
    "#n/a n/a",
    "1.#ind",
    "-1.#ind",
    "1.#qnan",
    "-1.#qnan",
)
#: Values that have letters and are no floats: truth values, hexadecimal numbers, moments.
_LETTERED = re.compile(
    r"true|false|[+-]?0x[0-9a-f]+|\d{4}-?\d\d-?\d\d[t ].*|\d{1,2}:\d\d.*|"
    r"\d{1,2}[-/. ]*(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*[-/. ]*(\d\d|\d{4})"
)
#: Arrow's limit of what is read at once, by which alone it tells the types of all lines.
_BLOCK = 2**31 - 1
_BEYOND = 2.0**63
_TOO_LONG = "of whole numbers of more than 64 bits: give load=, which makes numbers of it"


def is_table(name: str) -> bool:
    """Whether a file of this name holds a table."""
    return PurePath(name).suffix.lower() in _SUFFIXES


def columns_of(name: str, data: bytes) -> tuple[str, ...]:
    """The names of a table's columns, in their order.

    Raises:
        InputError: it is none, or has no line of names.
    """
    return tuple(_csv(data).columns if _is_csv(name) else _schema(data))


def table_array(
    name: str, data: bytes, dtype: np.dtype, like: Sequence[str] | None = None, chosen: Sequence[str] | None = None
) -> np.ndarray:
    """The columns of a table, `(rows, columns)`.

    Args:
        name: The file's name.
        data: What is in it.
        dtype: What the array is to be put into.
        like: The columns of the first file, which this one is to have in the same order.
        chosen: The columns to be taken, in this order; all as they stand, if not given.

    Raises:
        InputError: it is no table of numbers, has other columns, or a number that the type does not hold among those of its columns.
    """
    names = columns_of(name, data) if not _is_csv(name) else None
    table = _csv(data) if names is None else None
    there = tuple(table.columns) if table is not None else names or ()
    if chosen is not None:
        if lacking := [column for column in chosen if column not in there]:
            raise InputError(f"has no column {lacking[0]!r}, but {', '.join(there)}")
        there = tuple(chosen)
    elif like is not None and there != tuple(like):
        both = [column for column in like if column in there]
        order = ", in another order" if len(both) == len(like) == len(there) else ""
        way = f"name those that you take, in your order, File(…, columns={both!r})" if both else "give load="
        raise InputError(f"has the columns {', '.join(there)}, the first file has {', '.join(like)}{order}: {way}")
    return _array(_numbers((table if table is not None else _parquet(data, there)).select(there)), dtype)


def _is_csv(name: str) -> bool:
    return name.lower().endswith(".csv")


# --- what is in the file ----------------------------------------------------------------------------------


def _schema(data: bytes) -> Sequence[str]:
    try:
        return [*pl.read_parquet_schema(io.BytesIO(data))]
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"is no Parquet file: {error}") from error


def _parquet(data: bytes, columns: Sequence[str]) -> pl.DataFrame:
    try:
        return pl.read_parquet(io.BytesIO(data), columns=[*columns])
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"is no Parquet file: {error}") from error


def _csv(data: bytes) -> pl.DataFrame:
    """The table in a CSV file: a line of names, and lines of as many values; empty lines do not count.

    Raises:
        InputError: it is none.
    """
    table = _parsed(data)
    if all(_is_value(name) for name in table.column_names):
        first = ", ".join(table.column_names)
        raise InputError(
            f"begins with values ({first:.100}), where the names of its columns are expected: give load=, which reads it"
        )
    columns = [
        _exact(data, table.column_names, i, pl.Series(_values(column))) for i, column in enumerate(table.columns)
    ]
    names, told = list[str](), table.column_names
    for i, name in enumerate(told):  # as Polars calls one that comes again
        names.append(name if name not in told[:i] else f"{name}_duplicated_{told[:i].count(name) - 1}")
    return pl.DataFrame([column.alias(name) for name, column in zip(names, columns, strict=True)])


def _parsed(data: bytes, texts: Sequence[str] = ()) -> pa.Table:
    options = csv.ConvertOptions(column_types={name: pa.string() for name in texts}, strings_can_be_null=True)
    try:
        # In this thread alone; the types are told by all lines.
        return csv.read_csv(
            pa.BufferReader(data),
            read_options=csv.ReadOptions(use_threads=False, block_size=min(max(len(data), 1), _BLOCK)),
            convert_options=options,
        )
    except pa.ArrowInvalid as error:
        raise InputError(
            f"is no table of a line of names and lines of as many values, parted by commas: {error}: give load=, which reads it"
        ) from error


def _values(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def _exact(data: bytes, names: Sequence[str], at: int, values: pl.Series) -> pl.Series:
    """A column as it is written: Arrow takes whole numbers of more than 63 bits for floats."""
    if not values.dtype.is_float() or not (values.abs() >= _BEYOND).any():
        return values
    texts = pl.Series(_values(_parsed(data, names).column(at)))
    if not texts.str.strip_chars().str.contains(r"^[+-]?\d+$").all():
        return values
    whole = texts.str.strip_chars().cast(pl.Int128, strict=False)
    if whole.null_count() > texts.null_count():
        raise InputError(f"has a column {names[at]!r} {_TOO_LONG}")
    return whole


def _is_value(text: str) -> bool:
    """Whether a name may be a value: a number, a truth value, a moment, or what stands for none."""
    told = text.strip().lower()
    if told in _NOTHING or _LETTERED.fullmatch(told):
        return True
    if any(sign.isdigit() for sign in told) and not any(sign.isalpha() or sign == "#" for sign in told):
        return True  # as dates and times are written, shares, and numbers with a comma
    try:
        float(text)
    except ValueError:
        return False
    return True


# --- its columns as one array -------------------------------------------------------------------------------


def _numbers(frame: pl.DataFrame) -> pl.DataFrame:
    """The columns as numbers: truth values among which some are missing, too.

    Raises:
        InputError: one holds something else.
    """
    for column, dtype in frame.schema.items():
        if not (dtype.is_numeric() or isinstance(dtype, pl.Boolean | pl.Null)):
            raise InputError(
                f"has a column {column!r} that is no number but {dtype}: name those that you take, File(…, columns=[…])"
            )
    gaps = [c for c, dtype in frame.schema.items() if isinstance(dtype, pl.Boolean) and frame[c].null_count()]
    exact = [c for c, dtype in frame.schema.items() if isinstance(dtype, pl.Decimal) and not dtype.scale]
    frame = frame.cast({**dict.fromkeys(gaps, pl.Float64), **dict.fromkeys(exact, pl.Int128)})
    return frame.cast({cs.decimal(): pl.Float64, cs.by_dtype(pl.Null): pl.Float64})


def _array(frame: pl.DataFrame, dtype: np.dtype) -> np.ndarray:
    """All columns in one type.

    Raises:
        InputError: none holds all of them, or whole numbers among floats would be rounded.
    """
    whole = {name: _within_64_bits(frame[name]) for name, of in frame.schema.items() if of.is_integer()}
    frame = frame.with_columns(**whole)
    if any(of.is_float() for of in frame.dtypes) or any(values.null_count() for values in whole.values()):
        narrow = [np.dtype(np.float64), *([reals_of(dtype)] if dtype.kind in "fc" else [])]
        for column in (values.drop_nulls() for values in whole.values()):
            exact = column.to_numpy()
            wrong = np.logical_or.reduce([rounded(exact, exact.astype(kind)) for kind in narrow])
            if wrong.any():
                held_by = wider_than(dtype) if dtype.kind in "fc" else None
                wider = held_by and not rounded(exact, exact.astype(np.float64)).any()
                held = f"{dtype} does not hold" if wider else "no float is"
                way = f"take dtype={held_by!r}" if wider else "give load=, which makes numbers of it"
                raise InputError(
                    f"has a column {column.name!r} that holds {exact[wrong][0]}, which {held}, among floats or gaps: {way}"
                )
    elif any(values.dtype == pl.UInt64 for values in whole.values()):
        frame = frame.with_columns(**_of_one_sign(whole))
    return frame.to_numpy()


def _within_64_bits(values: pl.Series) -> pl.Series:
    if not isinstance(values.dtype, pl.Int128 | pl.UInt128):
        return values
    for kind in (pl.Int64, pl.UInt64):
        found = values.cast(kind, strict=False)
        if found.null_count() == values.null_count():
            return found
    raise InputError(f"has a column {values.name!r} {_TOO_LONG}")


def _of_one_sign(whole: dict[str, pl.Series]) -> dict[str, pl.Series]:
    """Whole numbers, some of which are of the type that has none below zero, in one type."""
    for kind in (pl.Int64, pl.UInt64):
        found = {name: values.cast(kind, strict=False) for name, values in whole.items()}
        if not any(values.null_count() for values in found.values()):
            return found
    raise InputError(
        "has whole numbers below zero in one column and beyond 63 bits in another, which no type holds: give load="
    )


__all__ = ["columns_of", "is_table", "table_array"]
