"""Logical column types: how a Python value is stored in Arrow and what Polars shows for it.

One class a kind, and one export here, which makes it known: `Kind` lists all that a type says of itself. Those from
outside call `register`. What Literals, unions and nested models come to, and which two kinds one column can hold, is
said elsewhere. It knows nothing of models, fields or tables.
"""

from __future__ import annotations

from scythe_catalog.schema.kinds.kind import (
    Kind,
    Values,
    is_annotation,
    kind_from_json,
    kind_of_annotation,
    kind_of_arrow,
    polars_of,
    register,
)
from scythe_catalog.schema.kinds.nested import List, Map, Member, Struct, is_list
from scythe_catalog.schema.kinds.numbers import Bool, Decimal, Float, Int
from scythe_catalog.schema.kinds.texts import (
    Bytes,
    Category,
    Json,
    Str,
    Uri,
    Uuid,
    category_of,
    given_path,
    local_path,
    meanings,
)
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
    "given_path",
    "is_annotation",
    "is_list",
    "kind_from_json",
    "kind_of_annotation",
    "kind_of_arrow",
    "known_part",
    "local_path",
    "meanings",
    "polars_of",
    "register",
]

for _name in __all__:
    _exported = globals()[_name]
    if isinstance(_exported, type) and issubclass(_exported, Kind) and _exported is not Kind:
        register(_exported)
