"""Kinds of truth values and numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Context
from decimal import Decimal as PyDecimal
from typing import Any

import numpy as np
import pyarrow as pa

from scythe_catalog.compute import pc
from scythe_catalog.schema.kinds.kind import ORDER, Kind, Values, exactly, of_classes

_INT64 = np.iinfo(np.int64)
MOST_DIGITS = 38


@dataclass(frozen=True)
class Bool(Kind):
    name = "bool"
    stored = pa.bool_()
    annotations = (bool,)
    classes = (bool, np.bool_)
    arrow = staticmethod(pa.types.is_boolean)

    def dump(self, values: Values) -> Values:
        of_classes(values, bool, np.bool_)
        return values


@dataclass(frozen=True)
class Number(Kind):
    """What takes numbers of all classes, where no value of them is lost."""

    number = True
    classes = (int, float, PyDecimal, np.integer, np.floating)

    def accepts(self, dtype: pa.DataType) -> bool:
        return pa.types.is_integer(dtype) or pa.types.is_floating(dtype) or pa.types.is_decimal(dtype)

    def takes(self, python: type) -> bool:
        return issubclass(python, self.classes) and not issubclass(python, bool | np.timedelta64)


@dataclass(frozen=True)
class Int(Number):
    """64-bit signed integers; `choices` where the annotation is a Literal of integers."""

    name = "int"
    stored = pa.int64()
    annotations = (int,)
    arrow = staticmethod(pa.types.is_integer)
    choices: tuple[int, ...] | None = None

    def dump(self, values: Values) -> Values:
        if set(map(type, values)) <= {int, type(None)}:
            return values
        return [None if v is None else _exact_int(v) for v in values]

    def held(self, rule: str, values: pa.ChunkedArray, bound: Any) -> pa.ChunkedArray:
        whole = {"ge": math.ceil, "gt": math.floor, "le": math.floor, "lt": math.ceil}[rule](bound)
        if not _INT64.min <= whole <= _INT64.max:
            return _beyond(rule, values, below=whole < 0)
        return ORDER[rule](values, pa.scalar(whole, pa.int64()))


@dataclass(frozen=True)
class Float(Number):
    name = "float"
    stored = pa.float64()
    annotations = (float,)
    arrow = staticmethod(pa.types.is_floating)

    def dump(self, values: Values) -> Values:
        if set(map(type, values)) <= {float, type(None)}:
            return values
        return [None if v is None else _exact_float(v) for v in values]

    def cast(self, values: pa.ChunkedArray) -> pa.ChunkedArray:
        whole = pa.types.is_integer(values.type)
        if pa.types.is_decimal(values.type):
            converted, of_whole = values.cast(self.storage), pc.equal(pc.floor(values), values)
            exactly(values.filter(of_whole), converted.filter(of_whole))
            return converted
        return exactly(values, values.cast(pa.float64(), safe=False)) if whole else values.cast(self.storage)

    def held(self, rule: str, values: pa.ChunkedArray, bound: Any) -> pa.ChunkedArray:
        return ORDER[rule](
            values, pa.scalar(float(bound), pa.float64())
        )  # as pydantic takes an integer that no float is


def _exact_int(value: Any) -> int:
    if isinstance(value, bool | str | bytes):
        raise TypeError(f"{value!r} is not an integer")
    number = int(value)
    if number != value:
        raise ValueError(f"{value!r} is not a whole number")
    return number


def _exact_float(value: Any) -> float:
    if isinstance(value, bool | str | bytes):
        raise TypeError(f"{value!r} is not a number")
    if isinstance(value, complex | np.complexfloating):  # NumPy's, of which the real part would be left
        raise TypeError(f"{value!r} is a complex number")
    number = float(value)
    if type(value) in (float, np.float64, np.float32, np.float16):
        return number
    if (math.isinf(number) or number == 0) and value != number:
        raise ValueError(f"{value} lies beyond 64-bit floats")
    if number.is_integer() and (whole := int(value)) == value and whole != int(number):
        raise ValueError(f"the integer {whole} has no exact 64-bit float")
    return number


def _beyond(rule: str, values: pa.ChunkedArray, *, below: bool) -> pa.ChunkedArray:
    """Where a bound holds that lies beyond what the column can hold: for all values or for none."""
    return pc.if_else(pc.is_valid(values), below == (rule in ("ge", "gt")), None)


@dataclass(frozen=True)
class Decimal(Number):
    """Exact decimals of `precision` digits, `scale` of them behind the point."""

    name = "decimal"
    annotations = (PyDecimal,)
    precision: int
    scale: int

    @classmethod
    def of_annotation(cls, annotation: Any, told: Mapping[str, Any]) -> Kind | None:
        if annotation not in cls.annotations:
            return None
        precision, scale = told.get("max_digits"), told.get("decimal_places")
        if precision is None or scale is None or not 0 < precision <= MOST_DIGITS:
            raise ValueError(
                "Give its size: Field(max_digits=12, decimal_places=2), with max_digits of at most 38; or use float."
            )
        return cls(precision, scale)

    @classmethod
    def of_arrow(cls, dtype: pa.DataType) -> Kind | None:
        fits = pa.types.is_decimal(dtype) and dtype.precision <= MOST_DIGITS and 0 <= dtype.scale <= dtype.precision
        return cls(dtype.precision, dtype.scale) if fits else None

    @property
    def storage(self) -> pa.DataType:
        return pa.decimal128(self.precision, self.scale)

    def dump(self, values: Values) -> Values:
        for v in values:
            if v is not None and not isinstance(v, PyDecimal):
                raise TypeError(f"{v!r} is not a Decimal")
        return values

    def cast(self, values: pa.ChunkedArray) -> pa.ChunkedArray:
        if pa.types.is_integer(values.type):
            return values.cast(pa.decimal256(76, self.scale)).cast(self.storage)
        cast = values.cast(self.storage)
        return exactly(values, cast) if pa.types.is_floating(values.type) else cast

    def held(self, rule: str, values: pa.ChunkedArray, bound: Any) -> pa.ChunkedArray:
        exact = PyDecimal(str(bound))
        if not exact.is_finite() or exact.adjusted() >= MOST_DIGITS:
            return _beyond(rule, values, below=exact < 0)
        rounding = ROUND_CEILING if rule in ("ge", "lt") else ROUND_FLOOR
        step = exact.quantize(PyDecimal(1).scaleb(-self.scale), rounding, Context(prec=2 * MOST_DIGITS))
        wide = pa.decimal256(2 * MOST_DIGITS, self.scale)
        return ORDER[rule](values.cast(wide), pa.scalar(step, wide))

    def describe(self) -> str:
        return f"decimal({self.precision}, {self.scale})"
