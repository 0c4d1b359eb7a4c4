"""Columns of pandas frames as Arrow arrays, with the meaning that their values have in pandas.

A column of Python objects is taken where its values are of one sort; Arrow's own guess would turn days
and instants, texts and bytes, or numbers and durations into one another. Never changes the frame.
"""

from __future__ import annotations

import datetime as dt
import decimal
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from scythe.errors import OutputError
from scythe_catalog.schema.kinds.numbers import MOST_DIGITS

_CONTAINERS = (list, tuple, set, frozenset)
#: Sorts that go together in one column.
_NUMBERS = ({"whole numbers", "floats"}, {"whole numbers", "decimals"})


def pandas_columns(frame: Any) -> tuple[list[tuple[str, pa.Array | pa.ChunkedArray]], list[str]]:
    """The columns of a pandas frame, its index in front, and which of them are the index.

    An index of whole numbers without a name holds row labels: filters leave whichever they leave, so
    it is no column. Neither is an index without entries and name.

    Raises:
        OutputError: a column whose values are no column of a table, named.
    """
    pandas: Any = sys.modules["pandas"]
    index = frame.index
    levels: list[tuple[str, Any]] = []
    if not _row_labels(index):
        names = [str(n) if n is not None else f"level_{i}" for i, n in enumerate(index.names)]
        levels = [(name, pandas.Series(index.get_level_values(i))) for i, name in enumerate(names)]
    series = [*levels, *((str(label), frame.iloc[:, i]) for i, label in enumerate(frame.columns))]
    return [(name, _column(name, values)) for name, values in series], [name for name, _ in levels]


def _row_labels(index: Any) -> bool:
    return index.nlevels == 1 and index.name is None and (index.dtype.kind in "iu" or len(index) == 0)


def _column(name: str, series: Any) -> pa.Array | pa.ChunkedArray:
    try:
        return _array(series)
    except (ValueError, TypeError, ArithmeticError, pa.ArrowException) as error:
        raise OutputError(f"column {name!r}: {error}") from error


def _array(series: Any) -> pa.Array | pa.ChunkedArray:
    is_objects = series.dtype.kind == "O" and isinstance(series.dtype, np.dtype)
    return _objects(series) if is_objects else typed_column(series)


def typed_column(series: Any, *, nan: bool = False) -> pa.Array | pa.ChunkedArray:
    """A column of another type than objects; with `nan` its NaN stay what they are, else nothing is there.

    Raises:
        TypeError: it holds complex numbers, or floats of more digits than a table has.
    """
    pandas: Any = sys.modules["pandas"]
    dtype = series.dtype
    if dtype.kind == "c":
        raise TypeError(
            "it holds complex numbers, which no table can hold: store real and imaginary parts in two columns"
        )
    if dtype == np.longdouble and (odd := unheld(series)) is not None:
        raise _said_of(odd)
    if isinstance(dtype, pandas.PeriodDtype | pandas.IntervalDtype):
        return _objects(series.astype(object).map(str, na_action="ignore"))
    if isinstance(dtype, pandas.SparseDtype):
        return pa.array(series.sparse.to_dense(), from_pandas=not nan)
    if isinstance(dtype, pandas.CategoricalDtype):
        categories = pandas.Series(dtype.categories)
        codes = pa.array(series.cat.codes.to_numpy(), mask=series.isna().to_numpy())
        return _plain(_array(categories)).take(codes)
    return pa.array(series, from_pandas=not nan)


def _plain(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _objects(series: Any) -> pa.Array:
    """A column of Python objects of one sort.

    Raises:
        TypeError: they are of several, says of which, or one has no place in a table, says which.
    """
    missing = series.isna().to_numpy() if len(series) else np.empty(0, bool)
    values = series.to_numpy()
    decimals = (v for v in values[missing] if isinstance(v, decimal.Decimal)) if missing.any() else ()
    if (odd := unheld(decimals)) is not None:  # NaN of one is missing to pandas
        raise _said_of(odd)
    present = values[~missing] if missing.any() else values
    check_sort(present)
    nested = any(issubclass(t, (Mapping, np.ndarray, *_CONTAINERS)) for t in set(map(type, present)))
    if missing.any():  # whether Arrow knows what is missing to pandas depends on which of the two was used first
        values = values.copy()
        values[missing] = None
    try:
        array = _plain(pa.array(values, from_pandas=not nested))
    except (ValueError, TypeError, ArithmeticError, pa.ArrowException) as error:
        raise _told(present, error) from error
    if pa.types.is_decimal256(array.type) and (odd := unheld(present)) is not None:
        raise _said_of(odd)
    return array


def check_sort(values: Iterable[Any]) -> None:
    """Nothing where all values, and all that they contain, are of one sort that keeps its meaning in a column.

    Raises:
        TypeError: says what they are instead.
    """
    values = list(values)
    sorts = {sort for t in set(map(type, values)) if (sort := _sort_of(t)) is not None}
    if "floats" in sorts and np.longdouble in {*map(type, values)} and (odd := unheld(values)) is not None:
        raise _said_of(odd)  # Arrow rounds those that stand behind others
    if "instants" in sorts:
        _check_instants(v for v in values if isinstance(v, dt.datetime) and _sort_of(type(v)) is not None)
    if "times of day" in sorts and any(isinstance(v, dt.time) and v.tzinfo is not None for v in values):
        raise TypeError("a time of day with a time zone, which no table can hold: store a datetime")
    if "durations" in sorts and any(getattr(v, "nanoseconds", 0) for v in values):
        raise TypeError("it holds nanoseconds, and a table holds microseconds: round the values")
    if len(sorts) > 1 and not any(sorts <= together for together in _NUMBERS):
        raise TypeError(f"its values are of unlike types ({' and '.join(sorted(sorts))}): give the column one type")
    for children in _children(values, sorts):
        check_sort(children)


@cache
def _sort_of(python: type) -> str | None:
    """What values of a class are; None for what stands for a missing value."""
    if python.__name__ in ("NoneType", "NaTType", "NAType"):
        return None
    for sort, classes in _SORTS.items():
        if issubclass(python, classes):
            return sort
    return f"values of the class {python.__name__}"


_SORTS: dict[str, tuple[type, ...]] = {
    "truth values": (bool, np.bool_),
    "durations": (dt.timedelta, np.timedelta64),
    "whole numbers": (int, np.integer),
    "floats": (float, np.floating),
    "decimals": (decimal.Decimal,),
    "texts": (str,),
    "bytes": (bytes, bytearray, memoryview),
    "instants": (dt.datetime,),
    "days": (dt.date,),
    "times of day": (dt.time,),
    "NumPy instants": (np.datetime64,),
    "dicts": (Mapping,),
    "arrays": (np.ndarray,),
    "lists": _CONTAINERS,
}


def _told(present: Any, error: Exception) -> Exception:
    """An error of Arrow's about values of one sort in words for those who do not know it."""
    values = [*present]
    if (odd := unheld(values)) is not None:
        return _said_of(odd)
    sorts = {sort for t in set(map(type, values)) if (sort := _sort_of(t)) is not None}
    if (other := next((sort for sort in sorts if sort not in _SORTS), None)) is not None:
        return TypeError(f"it holds {other}, which no table can hold: store their parts as numbers or texts")
    if "whole numbers" in sorts:
        largest = max((value for value in values if _sort_of(type(value)) == "whole numbers"), key=abs)
        if not -(2**63) <= largest < 2**63:
            return TypeError(f"it {beyond_64_bits(largest)}")
    return next((told for part in _children(values, sorts) if (told := _told(part, error)) is not error), error)


def unheld(values: Iterable[Any], column: str = "column") -> tuple[int, Any, str] | None:
    """The first of some values that no column holds as it is: its row, itself, and what is said of it; None where it is none of those known here."""
    for row, value in enumerate(values):
        if isinstance(value, decimal.Decimal):
            if not value.is_finite():
                words = "is no number that a table holds"
                return row, value, f"{words}: give None where there is nothing, or floats ({column}.astype(float))"
            if _digits(value) > MOST_DIGITS:
                words = f"has more than {MOST_DIGITS} digits, written out"
                return row, value, f"{words}: round it, or give floats ({column}.astype(float))"
        elif type(value) is np.longdouble and value == value:  # noqa: PLR0124 - NaN
            return row, value, f"has more digits than a table holds: give floats ({column}.astype(float))"
        elif type(value) in (np.datetime64, np.timedelta64) and not np.isnat(value):
            make = "pd.to_datetime" if isinstance(value, np.datetime64) else "pd.to_timedelta"
            words = "has a unit that no table knows, or that others of the column have not"
            return row, value, f"{words}: give pandas' own ({make}({column}))"
        elif getattr(value, "nanosecond", 0) or getattr(value, "nanoseconds", 0):  # of pandas' own
            words = "has nanoseconds, which are not stored"
            return row, value, f"{words}: round it ({column}.map(lambda value: value.round('us')))"
    return None


def _digits(value: decimal.Decimal) -> int:
    return max(value.adjusted() + 1, 0) + max(-int(value.as_tuple().exponent), 0)


def _said_of(odd: tuple[int, Any, str]) -> TypeError:
    _, value, words = odd
    return TypeError(f"{value!r} {words}")


def beyond_64_bits(value: int) -> str:
    """What is said of a column of whole numbers of which one has no place."""
    return f"holds whole numbers beyond 64 bits, such as {value}: make them floats or texts"


def _check_instants(values: Iterable[Any]) -> None:
    aware: set[bool] = set()
    for value in values:
        aware.add(value.tzinfo is not None)
        if getattr(value, "nanosecond", 0):
            raise TypeError("it holds nanoseconds, and a table holds microseconds: round the values")
    if len(aware) > 1:
        raise TypeError("some of its datetimes have a time zone and some have none: give all or none of them one")


def _children(values: list[Any], sorts: set[str]) -> Iterator[list[Any]]:
    """What the values contain, a list for each place that becomes one column."""
    if "lists" in sorts:
        yield list(chain.from_iterable(v for v in values if isinstance(v, _CONTAINERS)))
    if "arrays" in sorts:
        arrays = [v for v in values if isinstance(v, np.ndarray)]
        if len({"number" if a.dtype.kind in "iuf" else a.dtype.kind for a in arrays}) > 1:
            raise TypeError("its arrays are of unlike types: give all of them one")
        yield list(chain.from_iterable(a for a in arrays if a.dtype == object))
    if "dicts" in sorts:
        members: dict[str, list[Any]] = {}
        for value in values:
            for key, item in value.items() if isinstance(value, Mapping) else ():
                if not isinstance(key, str):
                    raise TypeError(f"a dict has the key {key!r}, and the members of a struct have texts as names")
                members.setdefault(key, []).append(item)
        yield from members.values()
