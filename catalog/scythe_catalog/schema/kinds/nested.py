"""Kinds made of others: lists, maps and structs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from scythe_catalog.errors import SchemaError
from scythe_catalog.memo import cached_property
from scythe_catalog.schema.kinds.kind import Kind, Values, kind_from_json, kind_of_arrow
from scythe_catalog.schema.kinds.texts import Str

if TYPE_CHECKING:
    import polars as pl


def is_list(dtype: pa.DataType) -> bool:
    """Whether an Arrow type is a list of any layout: offsets of either size, views, or a fixed size."""
    t = pa.types
    return (
        t.is_list(dtype) or t.is_large_list(dtype) or t.is_fixed_size_list(dtype)
        or t.is_list_view(dtype) or t.is_large_list_view(dtype)
    )  # fmt: skip


@dataclass(frozen=True)
class List(Kind):
    name = "list"
    flat = False
    item: Kind
    item_nullable: bool = True
    python: Callable[[Values], Any] = field(default=list, compare=False, repr=False)

    @classmethod
    def of_arrow(cls, dtype: pa.DataType) -> Kind | None:
        return cls(kind_of_arrow(dtype.value_type)) if is_list(dtype) else None

    @property
    def parts(self) -> tuple[tuple[str, Kind], ...]:
        return (("element", self.item),)

    @cached_property
    def storage(self) -> pa.DataType:  # pyright: ignore[reportIncompatibleMethodOverride]
        return pa.list_(pa.field("element", self.item.storage))

    def polars(self) -> pl.DataType:
        import polars as pl

        item = self.item.polars()
        # Polars casts no list to one of nulls: it leaves the list as it is, and in a map it fails.
        return pl.List(pl.String if item == pl.Null else item)

    def dump(self, values: Values) -> Values:
        dump, python = self.item.dump, self.python
        return [None if v is None else _ordered(v, dump, python) for v in values]

    def load(self, values: Values) -> Values:
        load, python = self.item.load, self.python
        return [None if v is None else python(load(v)) for v in values]

    def describe(self) -> str:
        return f"list of {self.item.describe()}"


def _ordered(value: Any, dump: Callable[[Values], Values], python: Callable[[Values], Any]) -> Values:
    """What is stored of a list; of a set too, in an order that does not depend on the process, and no value twice."""
    if isinstance(value, str | bytes | Mapping):
        raise TypeError(f"{value!r} is not a list")
    if python is not list:
        value = python(value)
    stored = dump(list(value))
    if not isinstance(value, set | frozenset):
        return stored
    try:
        return sorted(stored, key=lambda v: (v != v, v))  # noqa: PLR0124 - NaN behind all that have an order
    except TypeError:
        return sorted(stored, key=repr)


@dataclass(frozen=True)
class Map(Kind):
    """A dict with text keys."""

    name = "map"
    flat = False
    key: Kind
    value: Kind
    value_nullable: bool = True

    @classmethod
    def of_arrow(cls, dtype: pa.DataType) -> Kind | None:
        if not pa.types.is_map(dtype):
            return None
        if kind_of_arrow(dtype.key_type).name not in ("str", "unknown"):
            raise SchemaError(f"the keys of a map must be texts, not {dtype.key_type}: make them texts, or two lists")
        return cls(Str(), kind_of_arrow(dtype.item_type))

    @property
    def parts(self) -> tuple[tuple[str, Kind], ...]:
        return ("key", self.key), ("value", self.value)

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

    def describe(self) -> str:
        return f"map to {self.value.describe()}"


@dataclass(frozen=True)
class Member:
    """One field of a struct."""

    name: str
    kind: Kind
    nullable: bool = False
    unit: str | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Struct(Kind):
    """A nested model (`read` and `build` go by attribute) or a tuple of fixed length (by position)."""

    name = "struct"
    flat = False
    members: tuple[Member, ...]
    read: Callable[[Any], Mapping[str, Any]] = field(default=lambda value: value, compare=False, repr=False)
    build: Callable[[dict[str, Any]], Any] = field(default=lambda values: values, compare=False, repr=False)
    #: The nested model; None for a tuple.
    python: type | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of_arrow(cls, dtype: pa.DataType) -> Kind | None:
        if not (pa.types.is_struct(dtype) and dtype.num_fields):
            return None
        return cls(tuple(Member(f.name, kind_of_arrow(f.type), True) for f in dtype))

    @property
    def parts(self) -> tuple[tuple[str, Kind], ...]:
        return tuple((m.name, m.kind) for m in self.members)

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

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Kind:
        return cls(tuple(Member(m["name"], kind_from_json(m), m["nullable"], m.get("unit")) for m in data["members"]))

    def to_json(self) -> dict[str, Any]:
        members = [
            {"name": m.name, "nullable": m.nullable, **({"unit": m.unit} if m.unit else {}), **m.kind.to_json()}
            for m in self.members
        ]
        return {"kind": self.name, "members": members}

    def describe(self) -> str:
        return f"struct of {', '.join(m.name for m in self.members)}"
