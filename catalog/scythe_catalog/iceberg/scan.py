"""Reads tables lazily through Polars' native Iceberg reader, and types the columns again.

Partition filters are pushed down to the manifests, so that other partitions' files are never opened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa

from scythe_catalog.schema.kinds import Kind, List, Map, Struct, known_part, polars_of
from scythe_catalog.schema.table_schema import TableSchema
from scythe_catalog.storage.objects import Objects

if TYPE_CHECKING:
    from pyiceberg.types import IcebergType

    from scythe_catalog.iceberg.tables import Table


def scan(
    table: Table, partition: Mapping[str, Any], *, columns: Sequence[str] | None = None, keep: Sequence[str] = ()
) -> pl.LazyFrame:
    """The rows of the partitions that match, typed by the table's schema; the order of rows is the files' own.

    `columns` selects and orders; `keep` names partition columns to show behind them.
    """
    schema = table.schema
    names = list(schema.names if columns is None else columns)
    frame = pl.scan_iceberg(table.iceberg, storage_options=Objects.at(table.iceberg.metadata_location).polars_options)
    for name, value in partition.items():
        frame = frame.filter(pl.col(name) == value)
    asked = schema.select(names)
    untold = [c for c in asked if known_part(c.kind) is None]
    if untold:  # no column of Iceberg's yet
        frame = frame.with_columns(pl.lit(None, c.kind.polars()).alias(c.name) for c in untold)
    told = asked.without(c.name for c in untold)
    stored = table.iceberg.schema()
    unlike = [c for c in told if not _same_members(c.kind, stored.find_type(c.name))]
    casts = [
        *typed(told.without(c.name for c in unlike)),
        *(_rebuilt(pl.col(c.name), c.kind).alias(c.name) for c in unlike),
    ]
    return frame.select([*names, *keep]).with_columns(casts)


def scan_files(objects: Objects, keys: Sequence[str], schema: TableSchema) -> pl.LazyFrame:
    """The rows of Parquet files of one schema, typed by it; no catalog is asked, nor any file opened yet."""
    if not keys:
        return pl.LazyFrame(schema={c.name: c.kind.polars() for c in schema})
    return _scanned([objects.polars_source(key) for key in keys], schema, objects.polars_options)


def scan_content(content: bytes, schema: TableSchema) -> pl.LazyFrame:
    """The rows of one Parquet file of a schema, typed by it, from the content of the file."""
    return _scanned(content, schema, None)


def _scanned(sources: list[str] | bytes, schema: TableSchema, options: dict[str, Any] | None) -> pl.LazyFrame:
    frame = pl.scan_parquet(sources, storage_options=options, glob=False, hive_partitioning=False)
    return frame.select(schema.names).with_columns(typed(schema))


def typed(schema: TableSchema) -> list[pl.Expr]:
    """Casts from the stored types to the logical ones, for the columns where the two differ."""
    return [pl.col(c.name).cast(c.kind.polars()) for c in schema if _is_shown_otherwise(c.kind)]


def _is_shown_otherwise(kind: Kind) -> bool:
    return pa.types.is_nested(kind.storage) or kind.polars() != polars_of(kind.storage)


def _same_members(kind: Kind, stored: IcebergType) -> bool:
    """Whether structs have the members that the table has, in its order; Polars casts structs by position."""
    match kind:
        case List(item):
            return _same_members(item, stored.element_type)  # pyright: ignore[reportAttributeAccessIssue]
        case Map(_, value):
            return _same_members(value, stored.value_type)  # pyright: ignore[reportAttributeAccessIssue]
        case Struct(members):
            fields = stored.fields  # pyright: ignore[reportAttributeAccessIssue]
            return [m.name for m in members] == [f.name for f in fields] and all(
                _same_members(m.kind, f.field_type) for m, f in zip(members, fields, strict=True)
            )
        case _:
            return True


def _rebuilt(value: pl.Expr, kind: Kind) -> pl.Expr:
    """The value with its structs made anew, member by member; those that no run has told yet are null."""
    match kind:
        case List(item):
            return value.list.eval(_rebuilt(pl.element(), item))
        case Struct(members):
            made = [
                pl.lit(None, m.kind.polars()).alias(m.name)
                if known_part(m.kind) is None
                else _rebuilt(value.struct.field(m.name), m.kind).alias(m.name)
                for m in members
            ]
            return pl.when(value.is_not_null()).then(pl.struct(made))
        case _:
            return value.cast(kind.polars())
