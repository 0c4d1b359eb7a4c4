"""Storage types as Iceberg types, and Parquet's footers as Iceberg's statistics.

Written out here, rather than asked of `pyiceberg.io.pyarrow`, because that knows no file with columns that a table has
not yet, and takes the bounds of some row groups for those of the file where others have none.
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyiceberg.conversions import to_bytes
from pyiceberg.schema import Schema
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    IcebergType,
    ListType,
    LongType,
    MapType,
    NestedField,
    PrimitiveType,
    StringType,
    StructType,
    TimestampType,
    TimestamptzType,
    TimeType,
)
from pyiceberg.utils.truncate import truncate_upper_bound_text_string

from scythe_catalog.schema.kinds import known_part
from scythe_catalog.schema.table_schema import TableSchema

if TYPE_CHECKING:
    import pyarrow.parquet as pq

#: Storage type -> type, for all that have no parts.
_PLAIN: dict[pa.DataType, PrimitiveType] = {
    pa.bool_(): BooleanType(),
    pa.int64(): LongType(),
    pa.float64(): DoubleType(),
    pa.string(): StringType(),
    pa.binary(): BinaryType(),
    pa.date32(): DateType(),
    pa.time64("us"): TimeType(),
    pa.timestamp("us"): TimestampType(),
    pa.timestamp("us", "UTC"): TimestamptzType(),
}
_TRUNCATED_TEXT = 16


def iceberg_schema(schema: TableSchema) -> Schema:
    """The Iceberg schema of a table schema; the ids are provisional, a catalog assigns its own.

    What is unknown so far is left out: whatever stood for it would bind the runs to come.
    """
    ids = itertools.count(1)
    told = [(c, kind.storage) for c in schema if (kind := known_part(c.kind)) is not None]
    fields = [NestedField(next(ids), c.name, _type(t, ids), required=not c.nullable, doc=c.doc) for c, t in told]
    return Schema(*fields)


def _type(dtype: pa.DataType, ids: Iterator[int]) -> IcebergType:
    """The type of a storage type. Nested fields are optional throughout: what a nested null holds is never looked at."""
    t = pa.types
    if t.is_decimal(dtype):
        return DecimalType(dtype.precision, dtype.scale)
    if t.is_list(dtype):
        return ListType(next(ids), _type(dtype.value_type, ids), element_required=False)
    if t.is_map(dtype):
        key, item = next(ids), next(ids)
        return MapType(key, StringType(), item, _type(dtype.item_type, ids), value_required=False)
    if t.is_struct(dtype):
        return StructType(*(NestedField(next(ids), f.name, _type(f.type, ids), required=False) for f in dtype))
    return _PLAIN[dtype]


def statistics(footer: pq.FileMetaData, schema: Schema, nans: Mapping[str, int]) -> dict[str, Any]:
    """What Iceberg keeps of a data file, as JSON under PyIceberg's names; bounds are base64.

    Sizes, counts and bounds of the top-level columns; bounds of texts are truncated as Iceberg's own
    writers do (https://iceberg.apache.org/spec/#data-files). A column in which there are NaN (`nans`) has no
    bounds: they pass over NaN, which DuckDB, Spark and Polars take for the greatest number of all, so that a filter
    would miss its rows.
    """
    fields = {f.name: f for f in schema.fields if isinstance(f.field_type, PrimitiveType)}
    sizes: dict[str, int] = {}
    values: dict[str, int] = {}
    nulls: dict[str, int] = {}
    lows: dict[str, Any] = {}
    highs: dict[str, Any] = {}
    uncounted: set[str] = set()
    unbounded = {name for name, count in nans.items() if count}
    for group in range(footer.num_row_groups):
        row_group = footer.row_group(group)
        for i in range(footer.num_columns):
            column = row_group.column(i)
            name = column.path_in_schema
            if name not in fields:
                continue
            sizes[name] = sizes.get(name, 0) + column.total_compressed_size
            values[name] = values.get(name, 0) + column.num_values
            found = column.statistics
            if found is None or not found.has_null_count:
                uncounted.add(name)
                continue
            nulls[name] = nulls.get(name, 0) + found.null_count
            if found.has_min_max:
                lows[name] = found.min if name not in lows else min(lows[name], found.min)
                highs[name] = found.max if name not in highs else max(highs[name], found.max)
            elif found.null_count < column.num_values:
                unbounded.add(name)
    bounded = [n for n in lows if n not in unbounded | uncounted]
    by_id = {name: str(f.field_id) for name, f in fields.items()}
    upper = {by_id[n]: b for n in bounded if (b := _bound(fields[n].field_type, highs[n], upper=True)) is not None}
    return {
        "column_sizes": {by_id[n]: v for n, v in sizes.items()},
        "value_counts": {by_id[n]: v for n, v in values.items()},
        "null_value_counts": {by_id[n]: v for n, v in nulls.items() if n not in uncounted},
        "nan_value_counts": {by_id[n]: v for n, v in nans.items() if n in by_id},
        "lower_bounds": {by_id[n]: _bound(fields[n].field_type, lows[n], upper=False) for n in bounded},
        "upper_bounds": upper,
        "split_offsets": [_offset(footer.row_group(g)) for g in range(footer.num_row_groups)],
    }


def _bound(dtype: IcebergType, value: Any, *, upper: bool) -> str | None:
    if isinstance(dtype, StringType):
        value = truncate_upper_bound_text_string(value, _TRUNCATED_TEXT) if upper else value[:_TRUNCATED_TEXT]
    elif isinstance(dtype, BinaryType):
        value = value if not upper or len(value) <= _TRUNCATED_TEXT else None
        value = value[:_TRUNCATED_TEXT] if value is not None and not upper else value
    if value is None:
        return None
    assert isinstance(dtype, PrimitiveType)
    return base64.b64encode(to_bytes(dtype, value)).decode()


def _offset(group: pq.RowGroupMetaData) -> int:
    first = group.column(0)
    dictionary = first.dictionary_page_offset
    return dictionary if first.has_dictionary_page and dictionary < first.data_page_offset else first.data_page_offset
