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
#: What is kept of each column, by the number of its field.
_OF_COLUMNS = ("column_sizes", "value_counts", "null_value_counts", "nan_value_counts", "lower_bounds", "upper_bounds")


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


def statistics(
    footer: pq.FileMetaData, schema: Schema, nans: Mapping[str, int], ids: Mapping[str, int]
) -> dict[str, Any]:
    """What Iceberg keeps of a data file, as JSON under PyIceberg's names; bounds are base64.

    Sizes, counts and bounds of the top-level columns; bounds of texts are truncated as Iceberg's own
    writers do (https://iceberg.apache.org/spec/#data-files). A column in which there are NaN (`nans`) has no
    bounds: they pass over NaN, which DuckDB, Spark and Polars take for the greatest number of all, so that a filter
    would miss its rows. Columns are told by the field ids of the file (`ids`, by its names): the table may have renamed them.
    """
    plain = {f.field_id: f for f in schema.fields if isinstance(f.field_type, PrimitiveType)}
    fields = {name: plain[number] for name, number in ids.items() if number in plain}
    groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
    told: dict[str, dict[str, Any]] = {name: {} for name in _OF_COLUMNS}
    told["nan_value_counts"] = {str(fields[name].field_id): count for name, count in nans.items() if name in fields}
    for i in range(footer.num_columns if groups else 0):
        chunks = [group.column(i) for group in groups]
        field = fields.get(chunks[0].path_in_schema)
        if field is None:
            continue
        name, number = chunks[0].path_in_schema, str(field.field_id)
        told["column_sizes"][number] = sum(chunk.total_compressed_size for chunk in chunks)
        told["value_counts"][number] = sum(chunk.num_values for chunk in chunks)
        found = [chunk.statistics for chunk in chunks]
        if any(one is None or not one.has_null_count for one in found):
            continue
        told["null_value_counts"][number] = sum(one.null_count for one in found)
        bounded = [one for one in found if one.has_min_max]
        filled = [one for one, chunk in zip(found, chunks, strict=True) if one.null_count < chunk.num_values]
        if bounded and all(one.has_min_max for one in filled) and not nans.get(name):
            told["lower_bounds"][number] = _bound(field.field_type, min(one.min for one in bounded), upper=False)
            upper = _bound(field.field_type, max(one.max for one in bounded), upper=True)
            if upper is not None:
                told["upper_bounds"][number] = upper
    return {**told, "split_offsets": [_offset(group) for group in groups]}


def _bound(dtype: IcebergType, value: Any, *, upper: bool) -> str | None:
    if isinstance(dtype, StringType | BinaryType) and len(value) > _TRUNCATED_TEXT:
        if upper:
            value = truncate_upper_bound_text_string(value, _TRUNCATED_TEXT) if isinstance(dtype, StringType) else None
        else:
            value = value[:_TRUNCATED_TEXT]
    if value is None:
        return None
    assert isinstance(dtype, PrimitiveType)
    try:
        return base64.b64encode(to_bytes(dtype, value)).decode()
    except UnicodeEncodeError:  # the number after U+D7FF is no letter's
        return None


def _offset(group: pq.RowGroupMetaData) -> int:
    first = group.column(0)
    dictionary = first.dictionary_page_offset
    return dictionary if first.has_dictionary_page and dictionary < first.data_page_offset else first.data_page_offset
