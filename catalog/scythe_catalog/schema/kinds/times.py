"""Kinds of days, times, instants and durations; microseconds throughout."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from scythe_catalog.schema.kinds.kind import Kind, Values

if TYPE_CHECKING:
    import polars as pl

_EPOCH_UNIT = dt.timedelta(microseconds=1)
_EDGES = (dt.MINYEAR, dt.MAXYEAR)


def _day(value: Any) -> dt.date:
    """A day, which an instant is at midnight alone: Arrow would cut the time of day off."""
    if isinstance(value, dt.datetime):
        if value.time() != dt.time() or value.tzinfo is not None:
            raise ValueError(f"{value!r} is an instant, not a day")
        return value.date()
    if not isinstance(value, dt.date):
        raise TypeError(f"{value!r} is not a day")
    return value


@dataclass(frozen=True)
class Date(Kind):
    name = "date"

    @property
    def storage(self) -> pa.DataType:
        return pa.date32()

    def polars(self) -> type[pl.DataType]:
        import polars as pl

        return pl.Date

    def dump(self, values: Values) -> Values:
        if set(map(type, values)) <= {dt.date, type(None)}:
            return values
        return [None if v is None else _day(v) for v in values]


@dataclass(frozen=True)
class Time(Kind):
    """Time of day without a zone, in microseconds."""

    name = "time"

    @property
    def storage(self) -> pa.DataType:
        return pa.time64("us")

    def polars(self) -> type[pl.DataType]:
        import polars as pl

        return pl.Time

    def dump(self, values: Values) -> Values:
        for v in values:
            if v is not None and v.tzinfo is not None:
                raise ValueError(
                    f"{v!r} has a time zone, which no table can hold: store a datetime, or the zone beside it"
                )
        return values


@dataclass(frozen=True)
class Timestamp(Kind):
    """Microseconds; with `aware` an instant (shown in UTC), without it a wall-clock reading."""

    name = "timestamp"
    aware: bool = False

    @property
    def storage(self) -> pa.DataType:
        return pa.timestamp("us", tz="UTC" if self.aware else None)

    def polars(self) -> pl.DataType:
        import polars as pl

        return pl.Datetime("us", "UTC" if self.aware else None)

    def dump(self, values: Values) -> Values:
        for v in values:
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

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.name, "aware": self.aware}

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

    @property
    def storage(self) -> pa.DataType:
        return pa.int64()

    def polars(self) -> pl.DataType:
        import polars as pl

        return pl.Duration("us")

    def dump(self, values: Values) -> Values:
        return [None if v is None else self.micros(v) for v in values]

    def load(self, values: Values) -> Values:
        return [None if v is None else dt.timedelta(microseconds=v) for v in values]

    @staticmethod
    def micros(value: dt.timedelta) -> int:
        """A timedelta in whole microseconds (exact)."""
        if not isinstance(value, dt.timedelta):  # pyright: ignore[reportUnnecessaryIsInstance] - a model may hold anything
            raise TypeError(f"{value!r} is not a timedelta")
        if getattr(value, "nanoseconds", 0):  # pandas' own
            raise ValueError(f"{value!r} has nanoseconds, which are not stored")
        return value // _EPOCH_UNIT
