"""Logical column types: how a Python value is stored in Arrow and what Polars shows for it.

One class a kind. A kind knows its storage type (what Iceberg v2, Parquet, Polars and DuckDB all
hold), how Python values are lowered to it (`dump`) and lifted back (`load`), and its own JSON.
It knows nothing of models, fields or tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from scythe_catalog.errors import SchemaError
from scythe_catalog.schema.kinds.kind import Kind, Values
from scythe_catalog.schema.kinds.nested import List, Map, Member, Struct
from scythe_catalog.schema.kinds.numbers import Bool, Decimal, Float, Int
from scythe_catalog.schema.kinds.texts import Bytes, Category, Json, Str, Uri, Uuid, category_of, local_path
from scythe_catalog.schema.kinds.times import Date, Duration, Time, Timestamp
from scythe_catalog.schema.kinds.unknown import Unknown, known_part

__all__ = [
    "Bool",
    "Bytes",
    "Category",
    "Date",
    "Decimal",
    "Duration",
    "Float",
    "Int",
    "Json",
    "Kind",
    "List",
    "Map",
    "Member",
    "Str",
    "Struct",
    "Time",
    "Timestamp",
    "Unknown",
    "Uri",
    "Uuid",
    "Values",
    "category_of",
    "is_list",
    "kind_from_json",
    "kind_of_arrow",
    "known_part",
    "local_path",
]

_SIMPLE: dict[str, Kind] = {
    kind.name: kind for kind in (Bool(), Float(), Str(), Json(), Bytes(), Date(), Time(), Duration(), Uuid(), Unknown())
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
    if t.is_dictionary(dtype) or t.is_run_end_encoded(dtype):
        return kind_of_arrow(dtype.value_type)
    if t.is_null(dtype):
        return Unknown()
    if t.is_boolean(dtype):
        return Bool()
    if t.is_integer(dtype):
        return Int()
    if t.is_floating(dtype):
        return Float()
    if t.is_string(dtype) or t.is_large_string(dtype) or t.is_string_view(dtype):
        return Str()
    if t.is_binary(dtype) or t.is_large_binary(dtype) or t.is_fixed_size_binary(dtype) or t.is_binary_view(dtype):
        return Bytes()
    if t.is_decimal(dtype) and dtype.precision <= 38 and 0 <= dtype.scale <= dtype.precision:
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
        if not isinstance(kind_of_arrow(dtype.key_type), Str | Unknown):
            raise SchemaError(f"the keys of a map must be texts, not {dtype.key_type}: make them texts, or two lists")
        return Map(Str(), kind_of_arrow(dtype.item_type))
    if is_list(dtype):
        return List(kind_of_arrow(dtype.value_type))
    if t.is_struct(dtype) and dtype.num_fields:
        return Struct(tuple(Member(f.name, kind_of_arrow(f.type), True) for f in dtype))
    if isinstance(dtype, pa.BaseExtensionType):
        raise SchemaError(f"no table column can hold the extension type {_shown(dtype)}: give its storage, or its text")
    raise SchemaError(f"no table column can hold the Arrow type {dtype}")


def is_list(dtype: pa.DataType) -> bool:
    """Whether an Arrow type is a list of any layout: offsets of either size, views, or a fixed size."""
    t = pa.types
    return (
        t.is_list(dtype) or t.is_large_list(dtype) or t.is_fixed_size_list(dtype)
        or t.is_list_view(dtype) or t.is_large_list_view(dtype)
    )  # fmt: skip


def _shown(dtype: pa.BaseExtensionType) -> str:
    name = getattr(dtype, "extension_name", None) or type(dtype).__name__
    return f"{name} ({dtype.storage_type})"
