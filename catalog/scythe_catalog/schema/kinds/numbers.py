"""Kinds of truth values and numbers."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal as PyDecimal
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from scythe_catalog.schema.kinds.kind import Kind, Values, of_classes

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Bool(Kind):
    name = "bool"

    @property
    def storage(self) -> pa.DataType:
        return pa.bool_()

    def polars(self) -> type[pl.DataType]:
        import polars as pl

        return pl.Boolean

    def dump(self, values: Values) -> Values:
        of_classes(values, bool, np.bool_)
        return values


@dataclass(frozen=True)
class Int(Kind):
    """64-bit signed integers; `choices` where the annotation is a Literal of integers."""

    name = "int"
    choices: tuple[int, ...] | None = None

    @property
    def storage(self) -> pa.DataType:
        return pa.int64()

    def polars(self) -> type[pl.DataType]:
        import polars as pl

        return pl.Int64

    def dump(self, values: Values) -> Values:
        if set(map(type, values)) <= {int, type(None)}:
            return values
        return [None if v is None else _exact_int(v) for v in values]

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.name} if self.choices is None else {"kind": self.name, "choices": list(self.choices)}


@dataclass(frozen=True)
class Float(Kind):
    name = "float"

    @property
    def storage(self) -> pa.DataType:
        return pa.float64()

    def polars(self) -> type[pl.DataType]:
        import polars as pl

        return pl.Float64

    def dump(self, values: Values) -> Values:
        if set(map(type, values)) <= {float, type(None)}:
            return values
        return [None if v is None else _exact_float(v) for v in values]


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
    number = float(value)
    if isinstance(value, int) and int(number) != value:
        raise ValueError(f"the integer {value} has no exact 64-bit float")
    return number


@dataclass(frozen=True)
class Decimal(Kind):
    """Exact decimals of `precision` digits, `scale` of them behind the point."""

    name = "decimal"
    precision: int
    scale: int

    @property
    def storage(self) -> pa.DataType:
        return pa.decimal128(self.precision, self.scale)

    def polars(self) -> pl.DataType:
        import polars as pl

        return pl.Decimal(self.precision, self.scale)

    def dump(self, values: Values) -> Values:
        for v in values:
            if v is not None and not isinstance(v, PyDecimal):
                raise TypeError(f"{v!r} is not a Decimal")
        return values

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.name, "precision": self.precision, "scale": self.scale}

    def describe(self) -> str:
        return f"decimal({self.precision}, {self.scale})"
