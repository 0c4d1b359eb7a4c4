"""What a field may be, as a function of a number from 0 to 1: a range, whole numbers, choices, a distribution, one value.

Knows no model, and draws no numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from scythe.errors import InputError
from scythe_catalog.schema.kinds import Kind

#: Whole numbers up to here are exact as floats.
MOST_WHOLE = 2**53
#: So far from their ends distributions are drawn from: half of what a sequence tells apart.
_OFF_ENDS = 2.0**-33


class Domain(Protocol):
    """The values of one field."""

    def at(self, u: np.ndarray) -> pa.Array:
        """The values at places from 0 to below 1, in the type in which a table stores them."""
        ...

    def levels(self, count: int) -> pa.Array:
        """`count` values for a grid, evenly spread from end to end; all of them where there are fewer, or where they have no order."""
        ...

    @property
    def varies(self) -> bool:
        """Whether there is more than one value."""
        ...

    @property
    def count(self) -> int | None:
        """How many values there are, each as often as the others; None of a range, or a distribution."""
        ...


@dataclass(frozen=True)
class Range:
    """Floats from `low` to `high`, both included."""

    low: float
    high: float
    kind: Kind

    def at(self, u: np.ndarray) -> pa.Array:
        values = self.low * (1 - u) + self.high * u  # the difference may be more than a float holds
        return pa.array(np.clip(values, self.low, self.high)).cast(self.kind.storage)

    def levels(self, count: int) -> pa.Array:
        return self.at(np.linspace(0, 1, count) if count > 1 else np.array([0.5]))

    @property
    def varies(self) -> bool:
        return self.low < self.high

    @property
    def count(self) -> int | None:
        return None


@dataclass(frozen=True)
class Whole:
    """`low`, `low + step`, ... up to `high`: whole numbers, or by their storage in whole units dates, times and decimals.

    Of decimals the unit is one at `places` digits behind the point.
    """

    low: int
    high: int
    kind: Kind
    step: int = 1
    places: int = 0

    @property
    def count(self) -> int:
        return (self.high - self.low) // self.step + 1

    def at(self, u: np.ndarray) -> pa.Array:
        places = np.minimum((u * self.count).astype(np.int64), self.count - 1)
        return self._stored(places)

    def levels(self, count: int) -> pa.Array:
        if count >= self.count:
            return self._stored(np.arange(self.count))
        spread = np.linspace(0, self.count - 1, count) if count > 1 else np.array([(self.count - 1) / 2])
        return self._stored(np.minimum(np.round(spread).astype(np.int64), self.count - 1))

    def _stored(self, places: np.ndarray) -> pa.Array:
        values = self.low + places * self.step
        storage = self.kind.storage
        if pa.types.is_date32(storage):
            return pa.array(values.astype(np.int32)).cast(storage)
        if pa.types.is_decimal(storage):
            return _decimals(values, self.places).cast(storage)
        return pa.array(values).cast(storage)

    @property
    def varies(self) -> bool:
        return self.count > 1


def _decimals(units: np.ndarray, places: int) -> pa.Array:
    """Decimals of so many units of 64 bits: https://arrow.apache.org/docs/format/Columnar.html, integers of 128 bits, the low half first."""
    halves = np.stack([units, units >> 63], axis=1)
    return pa.Array.from_buffers(pa.decimal128(38, places), len(units), [None, pa.py_buffer(halves)])


@dataclass(frozen=True)
class Choice:
    """One of these values, each as often as the others."""

    values: pa.Array

    def at(self, u: np.ndarray) -> pa.Array:
        return self.values.take(pa.array(np.minimum((u * self.count).astype(np.int64), self.count - 1)))

    def levels(self, count: int) -> pa.Array:
        return self.values

    @property
    def varies(self) -> bool:
        return len(self.values) > 1

    @property
    def count(self) -> int:
        return len(self.values)

    @property
    def is_even(self) -> bool:
        """Whether they are numbers, each as far from the one before as the others."""
        if (
            not (pa.types.is_integer(self.values.type) or pa.types.is_floating(self.values.type))
            or self.values.null_count
        ):
            return False
        steps = np.diff(self.values.to_numpy(zero_copy_only=False).astype(float))
        return bool(np.allclose(steps, steps[0], rtol=1e-9, atol=0))


@dataclass(frozen=True)
class Distributed:
    """A frozen distribution of SciPy, cut off where the field's bounds are."""

    distribution: Any
    low: float
    high: float
    kind: Kind

    def at(self, u: np.ndarray) -> pa.Array:
        u = np.clip(u, _OFF_ENDS, 1 - _OFF_ENDS)  # of which some are infinite
        if self._is_upper:
            first, last = (float(self.distribution.sf(end)) for end in self._ends)
            drawn = self.distribution.isf(first + u * (last - first))
        else:
            first, last = (float(self.distribution.cdf(end)) for end in self._ends)
            drawn = self.distribution.ppf(first + u * (last - first))
        values = np.asarray(drawn, dtype=float)
        if not np.isfinite(values).all():
            raise InputError("a distribution gives values that are no finite numbers: give the field bounds")
        values = np.clip(np.round(values, self._digits) if self._digits is not None else values, self.low, self.high)
        if self._whole and np.abs(values).max(initial=0) > MOST_WHOLE:
            raise InputError(
                "a distribution gives whole numbers beyond 2**53, which are no longer exact: give the field bounds"
            )
        return pa.array(values.astype(np.int64) if self._whole else values).cast(self.kind.storage)

    def levels(self, count: int) -> pa.Array:
        return self.at((np.arange(count) + 0.5) / count)

    @property
    def mass(self) -> float:
        """How much of the distribution lies within the bounds, from 0 to 1."""
        low, high = self._ends
        if self._is_upper:
            return float(self.distribution.sf(low) - self.distribution.sf(high))
        return float(self.distribution.cdf(high) - self.distribution.cdf(low))

    @property
    def _is_upper(self) -> bool:
        """Whether all of it lies above the median, where what is left above a value has more digits than what lies below."""
        return callable(getattr(self.distribution, "isf", None)) and float(self.distribution.cdf(self._ends[0])) > 0.5

    @property
    def _ends(self) -> tuple[float, float]:
        """Between which places the distribution is: what is rounded is the nearest to what it gives; both ends are included."""
        if self._digits is not None:
            half = 0.5 * 10.0**-self._digits
            return self.low - half, self.high + half
        return (math.nextafter(self.low, -math.inf) if hasattr(self.distribution, "pmf") else self.low), self.high

    @property
    def _whole(self) -> bool:
        return pa.types.is_integer(self.kind.storage)

    @property
    def _digits(self) -> int | None:
        """How many there are behind the point; None where any number will do."""
        storage = self.kind.storage
        return 0 if self._whole else storage.scale if pa.types.is_decimal(storage) else None

    @property
    def varies(self) -> bool:
        return True

    @property
    def count(self) -> int | None:
        return None
