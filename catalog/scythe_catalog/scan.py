"""Reads tables lazily through Polars' native Iceberg reader, and types the columns again.

Partition filters are pushed down to the manifests, so that other partitions' files are never opened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from scythe_catalog.schema.table_schema import TableSchema

if TYPE_CHECKING:
    from scythe_catalog.tables import Table


def scan(
    table: Table, partition: Mapping[str, Any], *, columns: Sequence[str] | None = None, keep: Sequence[str] = ()
) -> pl.LazyFrame:
    """The rows of the partitions that match, typed by the table's schema; the order of rows is the files' own.

    `columns` selects and orders; `keep` names partition columns to show behind them.
    """
    schema = table.schema
    names = [c for c in schema.names if columns is None or c in columns] if columns is None else list(columns)
    frame = pl.scan_iceberg(table.iceberg, storage_options=_storage_options(table))
    for name, value in partition.items():
        frame = frame.filter(pl.col(name) == value)
    return frame.select([*names, *keep]).with_columns(typed(schema.select(names)))


def typed(schema: TableSchema) -> list[pl.Expr]:
    """Casts from the stored types to the logical ones, for the columns where the two differ."""
    plain = {"bool", "int", "float", "str", "json", "bytes", "date", "time", "uuid", "uri", "decimal", "timestamp"}
    return [pl.col(c.name).cast(c.kind.polars()) for c in schema if c.kind.name not in plain]


def _storage_options(table: Table) -> dict[str, str] | None:
    location = table.iceberg.metadata_location
    if not location.startswith("s3://"):
        return None
    from scythe_catalog.s3 import polars_options

    return polars_options(location)
