"""Logical column types: how a Python value is stored in Arrow and what Polars shows for it.

One class a kind. A kind knows its storage type (what Iceberg v2, Parquet, Polars and DuckDB all
hold), how Python values are lowered to it (`dump`) and lifted back (`load`), and its own JSON.
It knows nothing of models, fields or tables.
"""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal as PyDecimal
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from scythe_catalog.errors import SchemaError
from scythe_catalog.lazy_pandas import postpone_pandas

postpone_pandas()

if TYPE_CHECKING:
    import polars as pl

Values = list[Any]
_EPOCH_UNIT = dt.timedelta(microseconds=1)


class Kind:
    """A logical type. Two kinds are equal when they store the same values with the same meaning."""

    name: ClassVar[str]
    #: False where only pydantic can tell whether a frame's values are acceptable.
    flat: ClassVar[bool] = True

    @property
    def storage(self) -> pa.DataType:
        """The Arrow type of the column in Parquet and Iceberg."""
        raise NotImplementedError

    def polars(self) -> pl.DataType | type[pl.DataType]:
        """The dtype that the reader gives."""
        raise NotImplementedError

    def dump(self, values: Values) -> Values:
        """Python values of a column (None for null), lowered to what Arrow takes."""
        return values

    def load(self, values: Values) -> Values:
        """What Arrow gives for a column, lifted to the model's Python values."""
        return values

    def array(self, values: Values) -> pa.Array:
        """Python values as one Arrow array; raises ValueError, TypeError or OverflowError where one does not fit."""
        try:
            return pa.array(self.dump(values), self.storage)
        except KeyError as error:
            raise ValueError(f"{error.args[0]!r} is not one of its values") from error
        except AttributeError as error:
            raise TypeError(str(error)) from error

    def to_json(self) -> dict[str, Any]:
        """The kind as plain JSON, read back by `kind_from_json`."""
        return {"kind": self.name}

    def describe(self) -> str:
        """A word or two for error messages."""
        return self.name


@dataclass(frozen=True)
class Bool(Kind):
    name = "bool"

    @property
    def storage(self) -> pa.DataType:
        return pa.bool_()

    def polars(self) -> type[pl.DataType]:
        import polars as pl

        return pl.Boolean


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
class Str(Kind):
    name = "str"

    @property
    def storage(self) -> pa.DataType:
        return pa.string()

    def polars(self) -> type[pl.DataType]:
        import polars as pl

        return pl.String


@dataclass(frozen=True)
class Json(Str):
    """Any JSON value as text; holds what a model carries beyond its fields."""

    name = "json"
    flat = False

    def dump(self, values: Values) -> Values:
        from pydantic_core import to_json

        return [None if not v else to_json(v).decode() for v in values]

    def load(self, values: Values) -> Values:
        from pydantic_core import from_json

        return [{} if v is None else from_json(v) for v in values]


@dataclass(frozen=True)
class Bytes(Kind):
    name = "bytes"

    @property
    def storage(self) -> pa.DataType:
        return pa.binary()

    def polars(self) -> type[pl.DataType]:
        import polars as pl

        return pl.Binary


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


@dataclass(frozen=True)
class Date(Kind):
    name = "date"

    @property
    def storage(self) -> pa.DataType:
        return pa.date32()

    def polars(self) -> type[pl.DataType]:
        import polars as pl

        return pl.Date


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
        return values

    def load(self, values: Values) -> Values:
        if not self.aware:
            return values
        return [None if v is None else v.replace(tzinfo=dt.UTC) for v in values]

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.name, "aware": self.aware}

    def describe(self) -> str:
        return "timestamp with time zone" if self.aware else "timestamp"


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
        return value // _EPOCH_UNIT


@dataclass(frozen=True)
class Uuid(Kind):
    """Stored as its text: Polars reads Iceberg's own uuid as raw bytes."""

    name = "uuid"

    @property
    def storage(self) -> pa.DataType:
        return pa.string()

    def polars(self) -> type[pl.DataType]:
        import polars as pl

        return pl.String

    def dump(self, values: Values) -> Values:
        for v in values:
            if v is not None and not isinstance(v, uuid.UUID):
                raise TypeError(f"{v!r} is not a UUID")
        return [None if v is None else str(v) for v in values]

    def load(self, values: Values) -> Values:
        return [None if v is None else uuid.UUID(v) for v in values]


@dataclass(frozen=True)
class Uri(Kind):
    """A path or a URL, stored as text. `restore` turns the text into the annotation's own type.

    `file` marks the kinds whose values are files to be carried along, not mere text.
    """

    name = "uri"
    file: bool = False
    restore: Callable[[str], Any] = field(default=Path, compare=False, repr=False)

    @property
    def storage(self) -> pa.DataType:
        return pa.string()

    def polars(self) -> type[pl.DataType]:
        import polars as pl

        return pl.String

    def dump(self, values: Values) -> Values:
        return [None if v is None else str(v) for v in values]

    def load(self, values: Values) -> Values:
        seen: dict[str, Any] = {}
        for text in values:
            if text is not None and text not in seen:
                seen[text] = local_path(text) or self.restore(text)
        return [None if v is None else seen[v] for v in values]

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.name, "file": self.file}

    def describe(self) -> str:
        return "file reference" if self.file else "path or URL"


def local_path(uri: str) -> Path | None:
    """The path that a `file://` URI names, None for any other text."""
    return Path(uri.removeprefix("file://")) if uri.startswith("file://") else None


@dataclass(frozen=True)
class Category(Kind):
    """One of a fixed list of texts: an Enum or a Literal. Arrow holds the text, Polars a `pl.Enum`.

    An Enum whose values are not all texts is stored by the names of its members.
    """

    name = "category"
    values: tuple[str, ...]
    python: type[enum.Enum] | None = field(default=None, compare=False, repr=False)
    #: The model holds the members' values, not the members (pydantic's `use_enum_values`).
    as_values: bool = field(default=False, compare=False, repr=False)

    @property
    def storage(self) -> pa.DataType:
        return pa.string()

    def polars(self) -> pl.DataType:
        import polars as pl

        return pl.Enum(list(self.values))

    @cached_property
    def members(self) -> Mapping[Any, str]:
        """Every Python value that stands for a category, and the text stored for it."""
        known: dict[Any, str] = {text: text for text in self.values}
        for member in self.python or ():
            text = _text_of(self.python, member)
            known[member] = text
            if isinstance(member.value, str | int | float):
                known.setdefault(member.value, text)
        return known

    def dump(self, values: Values) -> Values:
        known = self.members
        return [None if v is None else known[v] for v in values]

    def load(self, values: Values) -> Values:
        if self.python is None:
            return values
        member = {_text_of(self.python, m): m.value if self.as_values else m for m in self.python}
        return [None if v is None else member[v] for v in values]

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.name, "values": list(self.values)}

    def describe(self) -> str:
        return f"one of {', '.join(map(repr, self.values[:8]))}{', …' if len(self.values) > 8 else ''}"


def category_of(python: type[enum.Enum], *, as_values: bool = False) -> Category:
    """The category list of an Enum class; `as_values` where the model stores plain values."""
    return Category(tuple(_text_of(python, m) for m in python), python, as_values)


def _text_of(python: type[enum.Enum] | None, member: enum.Enum) -> str:
    texts = all(isinstance(m.value, str) for m in python or ())
    return str(member.value) if texts else member.name


@dataclass(frozen=True)
class List(Kind):
    name = "list"
    flat = False
    item: Kind
    item_nullable: bool = True
    python: Callable[[Values], Any] = field(default=list, compare=False, repr=False)

    @cached_property
    def storage(self) -> pa.DataType:  # pyright: ignore[reportIncompatibleMethodOverride]
        return pa.list_(pa.field("element", self.item.storage))

    def polars(self) -> pl.DataType:
        import polars as pl

        return pl.List(self.item.polars())

    def dump(self, values: Values) -> Values:
        dump = self.item.dump
        return [None if v is None else dump(_ordered(v)) for v in values]

    def load(self, values: Values) -> Values:
        load, python = self.item.load, self.python
        return [None if v is None else python(load(v)) for v in values]

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.name, "item": self.item.to_json(), "item_nullable": self.item_nullable}

    def describe(self) -> str:
        return f"list of {self.item.describe()}"


def _ordered(value: Any) -> Values:
    if isinstance(value, set | frozenset):
        try:
            return sorted(value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        except TypeError:
            return list(value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(value, str | bytes):
        raise TypeError(f"{value!r} is not a list")
    return list(value)


@dataclass(frozen=True)
class Map(Kind):
    """A dict with text keys."""

    name = "map"
    flat = False
    key: Kind
    value: Kind
    value_nullable: bool = True

    @cached_property
    def storage(self) -> pa.DataType:  # pyright: ignore[reportIncompatibleMethodOverride]
        return pa.map_(pa.string(), pa.field("value", self.value.storage))

    def polars(self) -> pl.DataType:
        import polars as pl

        return pl.Map(pl.String(), self.value.polars())

    def dump(self, values: Values) -> Values:
        key, value = self.key.dump, self.value.dump
        return [None if v is None else list(zip(key(list(v)), value(list(v.values())), strict=True)) for v in values]

    def load(self, values: Values) -> Values:
        key, value = self.key.load, self.value.load
        loaded: Values = []
        for pairs in values:
            if pairs is None:
                loaded.append(None)
                continue
            items = pairs.items() if isinstance(pairs, dict) else pairs  # Polars gives a dict, Arrow pairs
            loaded.append(dict(zip(key([k for k, _ in items]), value([v for _, v in items]), strict=True)))
        return loaded

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.name,
            "key": self.key.to_json(),
            "value": self.value.to_json(),
            "value_nullable": self.value_nullable,
        }

    def describe(self) -> str:
        return f"map to {self.value.describe()}"


@dataclass(frozen=True)
class Member:
    """One field of a struct."""

    name: str
    kind: Kind
    nullable: bool = False


@dataclass(frozen=True)
class Struct(Kind):
    """A nested model (`read` and `build` go by attribute) or a tuple of fixed length (by position)."""

    name = "struct"
    flat = False
    members: tuple[Member, ...]
    read: Callable[[Any], Mapping[str, Any]] = field(default=lambda value: value, compare=False, repr=False)
    build: Callable[[dict[str, Any]], Any] = field(default=lambda values: values, compare=False, repr=False)

    @cached_property
    def storage(self) -> pa.DataType:  # pyright: ignore[reportIncompatibleMethodOverride]
        return pa.struct([pa.field(m.name, m.kind.storage) for m in self.members])

    def polars(self) -> pl.DataType:
        import polars as pl

        return pl.Struct({m.name: m.kind.polars() for m in self.members})

    def dump(self, values: Values) -> Values:
        rows = [None if v is None else self.read(v) for v in values]
        present = [row for row in rows if row is not None]
        columns = [m.kind.dump([row[m.name] for row in present]) for m in self.members]
        names = [m.name for m in self.members]
        filled = iter([dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)])
        return [None if row is None else next(filled) for row in rows]

    def load(self, values: Values) -> Values:
        present = [v for v in values if v is not None]
        columns = [m.kind.load([v[m.name] for v in present]) for m in self.members]
        names = [m.name for m in self.members]
        built = iter([self.build(dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)])
        return [None if v is None else next(built) for v in values]

    def to_json(self) -> dict[str, Any]:
        members = [{"name": m.name, "nullable": m.nullable, **m.kind.to_json()} for m in self.members]
        return {"kind": self.name, "members": members}

    def describe(self) -> str:
        return f"struct of {', '.join(m.name for m in self.members)}"


_SIMPLE: dict[str, Kind] = {
    kind.name: kind for kind in (Bool(), Float(), Str(), Json(), Bytes(), Date(), Time(), Duration(), Uuid())
}


def kind_from_json(data: Mapping[str, Any]) -> Kind:
    """The kind that `Kind.to_json` wrote, without the Python classes of the model it came from.

    Raises:
        SchemaError: the JSON names a kind that this version does not know.
    """
    match data["kind"]:
        case "int":
            return Int(tuple(data["choices"]) if data.get("choices") is not None else None)
        case "decimal":
            return Decimal(data["precision"], data["scale"])
        case "timestamp":
            return Timestamp(data["aware"])
        case "uri":
            return Uri(data["file"], restore=str)
        case "category":
            return Category(tuple(data["values"]))
        case "list":
            return List(kind_from_json(data["item"]), data["item_nullable"])
        case "map":
            return Map(kind_from_json(data["key"]), kind_from_json(data["value"]), data["value_nullable"])
        case "struct":
            members = (Member(m["name"], kind_from_json(m), m["nullable"]) for m in data["members"])
            return Struct(tuple(members))
        case name if name in _SIMPLE:
            return _SIMPLE[name]
        case name:
            raise SchemaError(f"column kind {name!r} is not known to this version of Scythe: upgrade scythe-engine")


def kind_of_arrow(dtype: pa.DataType) -> Kind:
    """The kind that holds an Arrow type faithfully: for dataframes, which have no model.

    Raises:
        SchemaError: Iceberg has no type for it.
    """
    t = pa.types
    if t.is_dictionary(dtype):
        return kind_of_arrow(dtype.value_type)
    if t.is_boolean(dtype):
        return Bool()
    if t.is_integer(dtype):
        return Int()
    if t.is_floating(dtype):
        return Float()
    if t.is_string(dtype) or t.is_large_string(dtype) or t.is_string_view(dtype) or t.is_null(dtype):
        return Str()
    if t.is_binary(dtype) or t.is_large_binary(dtype) or t.is_fixed_size_binary(dtype) or t.is_binary_view(dtype):
        return Bytes()
    if t.is_decimal(dtype) and dtype.precision <= 38 and dtype.scale >= 0:
        return Decimal(dtype.precision, dtype.scale)
    if t.is_date(dtype):
        return Date()
    if t.is_time(dtype):
        return Time()
    if t.is_timestamp(dtype):
        return Timestamp(dtype.tz is not None)
    if t.is_duration(dtype):
        return Duration()
    if t.is_map(dtype):
        return Map(Str(), kind_of_arrow(dtype.item_type))
    if t.is_list(dtype) or t.is_large_list(dtype) or t.is_fixed_size_list(dtype) or t.is_list_view(dtype):
        return List(kind_of_arrow(dtype.value_type))
    if t.is_struct(dtype) and dtype.num_fields:
        return Struct(tuple(Member(f.name, kind_of_arrow(f.type), True) for f in dtype))
    raise SchemaError(f"no table column can hold the Arrow type {dtype}")
