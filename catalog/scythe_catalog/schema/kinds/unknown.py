"""The kind of a column that nobody has given a value yet. Never holds one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from scythe_catalog.schema.kinds.kind import Kind
from scythe_catalog.schema.kinds.nested import List, Map, Member, Struct

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Unknown(Kind):
    """Nothing but nulls so far: whoever comes with a value gives the type, and no one is bound before.

    A Parquet file holds it as texts that are all null; an Iceberg table has no such column (its format
    v2 knows no type for it) until the type is told.
    """

    name = "unknown"
    stored = pa.string()
    arrow = staticmethod(pa.types.is_null)

    def accepts(self, dtype: pa.DataType) -> bool:
        return pa.types.is_null(dtype)

    def polars(self) -> type[pl.DataType]:
        import polars as pl

        return pl.Null


def known_part(kind: Kind) -> Kind | None:
    """The kind without what is unknown in it; None where nothing of it can be told.

    A list or a map whose items are unknown is unknown itself; a struct is what its known members are.
    """
    match kind:
        case Unknown():
            return None
        case List(item):
            known = known_part(item)
            return None if known is None else kind if known == item else List(known, kind.item_nullable)
        case Map(key, value):
            known = known_part(value)
            return None if known is None else kind if known == value else Map(key, known, kind.value_nullable)
        case Struct(members):
            kept = [(m, known) for m in members if (known := known_part(m.kind)) is not None]
            if len(kept) == len(members) and all(known == m.kind for m, known in kept):
                return kind
            return Struct(tuple(Member(m.name, known, m.nullable, m.unit) for m, known in kept)) if kept else None
        case _:
            return kind
