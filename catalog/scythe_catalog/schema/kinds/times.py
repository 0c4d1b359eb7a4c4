"""Kinds of days, times, instants and durations; microseconds throughout."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pydantic import AwareDatetime, NaiveDatetime

from scythe_catalog.compute import pc
from scythe_catalog.schema.kinds.kind import Kind, Values, exactly

if TYPE_CHECKING:
    import polars as pl

_EPOCH_UNIT = dt.timedelta(microseconds=1)
_EDGES = (dt.MINYEAR, dt.MAXYEAR)
DAY_MICROS = 86_400_000_000
#: The years 1 to 9999, as days and as microseconds since 1970: what Python, and so most readers, can hold.
DAYS = tuple(day.toordinal() - dt.date(1970, 1, 1).toordinal() for day in (dt.date.min, dt.date.max))
MICROS = (DAYS[0] * DAY_MICROS, (DAYS[1] + 1) * DAY_MICROS - 1)


def _day(value: Any) -> dt.date:
    """A day, which an instant is at midnight alone: Arrow would cut the time of day off."""
    if isinstance(value, dt.datetime):
        if value.time() != dt.time() or value.tzinfo is not None:
            raise ValueError(f"{value!r} is an instant, not a day")
        return value.date()
    if not isinstance(value, dt.date):
        raise TypeError(f"{value!r} is not a day")
    return value


def _in_years(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """The instants or days, if Python's years 1 to 9999 have them all."""
    instants = pa.types.is_timestamp(values.type)
    first, last = MICROS if instants else DAYS
    found = pc.min_max(values.cast(pa.int64() if instants else pa.int32())).as_py()
    if found["min"] is not None and not first <= found["min"] <= found["max"] <= last:
        raise ValueError("beyond the years 1 to 9999")
    return values


@dataclass(frozen=True)
class Date(Kind):
    name = "date"
    stored = pa.date32()
    annotations = classes = (dt.date,)
    arrow = staticmethod(pa.types.is_date)

    def dump(self, values: Values) -> Values:
        if set(map(type, values)) <= {dt.date, type(None)}:
            return values
        return [None if v is None else _day(v) for v in values]

    def accepts(self, dtype: pa.DataType) -> bool:
        return pa.types.is_date(dtype) or (pa.types.is_timestamp(dtype) and dtype.tz is None)

    def cast(self, values: pa.ChunkedArray) -> pa.ChunkedArray:
        days = values.cast(self.storage)
        return _in_years(exactly(values, days) if pa.types.is_timestamp(values.type) else days)


@dataclass(frozen=True)
class Time(Kind):
    """Time of day without a zone, in microseconds."""

    name = "time"
    stored = pa.time64("us")
    annotations = classes = (dt.time,)
    arrow = staticmethod(pa.types.is_time)

    def dump(self, values: Values) -> Values:
        for v in values:
            if v is not None and not isinstance(v, dt.time):
                raise TypeError(f"{v!r} is no time of a day, datetime.time")
            if v is not None and v.tzinfo is not None:
                raise ValueError(
                    f"{v!r} has a time zone, which no table can hold: store a datetime, or the zone beside it"
                )
        return values


@dataclass(frozen=True)
class Timestamp(Kind):
    """Microseconds; with `aware` an instant (shown in UTC), without it a wall-clock reading."""

    name = "timestamp"
    annotations = (dt.datetime, NaiveDatetime, AwareDatetime)
    classes = (dt.datetime,)
    aware: bool = False

    @classmethod
    def of_annotation(cls, annotation: Any, told: Mapping[str, Any]) -> Kind | None:
        return cls(annotation is AwareDatetime) if annotation in cls.annotations else None

    @classmethod
    def of_arrow(cls, dtype: pa.DataType) -> Kind | None:
        return cls(dtype.tz is not None) if pa.types.is_timestamp(dtype) else None

    @property
    def storage(self) -> pa.DataType:
        return pa.timestamp("us", tz="UTC" if self.aware else None)

    def dump(self, values: Values) -> Values:
        plain = set(map(type, values)) <= {dt.datetime, type(None)}
        for v in values:
            if not plain and type(v).__name__ == "NaTType":
                raise ValueError("NaT is no time: give None")
            if not plain and getattr(v, "nanosecond", 0):  # pandas' own, of which Arrow would keep the microseconds
                raise ValueError(f"{v!r} has nanoseconds, which are not stored: round it to microseconds")
            if not plain and v is not None and not isinstance(v, dt.datetime):
                raise TypeError(f"{v!r} is no datetime")
            if v is not None and (v.tzinfo is not None) != self.aware:
                wanted = "NaiveDatetime and a value without a zone" if not self.aware else "a value with a zone"
                raise ValueError(
                    f"{v!r} {'has no' if self.aware else 'has a'} time zone: use {wanted}, or annotate AwareDatetime"
                )
            if v is not None and v.year in _EDGES and self.aware:
                _in_utc(v)
        return values

    def load(self, values: Values) -> Values:
        if not self.aware:
            return values
        return [None if v is None else v.replace(tzinfo=dt.UTC) for v in values]

    def cast(self, values: pa.ChunkedArray) -> pa.ChunkedArray:
        return _in_years(values.cast(self.storage))

    def describe(self) -> str:
        return "timestamp with time zone" if self.aware else "timestamp"


def _in_utc(value: dt.datetime) -> None:
    try:
        value.astimezone(dt.UTC)
    except OverflowError as error:
        raise ValueError(f"{value!r} is beyond the years 1 to 9999 in UTC, in which instants are stored") from error


@dataclass(frozen=True)
class Duration(Kind):
    """Stored as a count of microseconds: Iceberg has no duration."""

    name = "duration"
    stored = pa.int64()
    annotations = classes = (dt.timedelta,)
    arrow = staticmethod(pa.types.is_duration)

    def polars(self) -> pl.DataType:
        import polars as pl

        return pl.Duration("us")

    def dump(self, values: Values) -> Values:
        return [None if v is None else self.micros(v) for v in values]

    def load(self, values: Values) -> Values:
        return [None if v is None else dt.timedelta(microseconds=v) for v in values]

    def accepts(self, dtype: pa.DataType) -> bool:
        return pa.types.is_duration(dtype)

    def cast(self, values: pa.ChunkedArray) -> pa.ChunkedArray:
        return values.cast(pa.duration("us")).cast(self.storage)

    @staticmethod
    def micros(value: dt.timedelta) -> int:
        """A timedelta in whole microseconds (exact)."""
        if not isinstance(value, dt.timedelta):  # pyright: ignore[reportUnnecessaryIsInstance] - a model may hold anything
            raise TypeError(f"{value!r} is not a timedelta")
        if getattr(value, "nanoseconds", 0):  # pandas' own
            raise ValueError(f"{value!r} has nanoseconds, which are not stored")
        return value // _EPOCH_UNIT
