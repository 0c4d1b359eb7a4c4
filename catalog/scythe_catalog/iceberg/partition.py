"""Partitions of a table: their values and filters as Iceberg has them, and the data files in them. Commits nothing."""

from __future__ import annotations

import datetime as dt
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scythe_catalog.errors import damaged
from scythe_catalog.iceberg.datafile import DataFile, iceberg_statistics

if TYPE_CHECKING:
    import pyiceberg.table
    from pyiceberg.expressions import BooleanExpression
    from pyiceberg.table import Transaction

#: Values of the partition columns, by name.
Partition = Mapping[str, Any]

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def data_file(table: pyiceberg.table.Table, file: DataFile, partition: Partition) -> Any:
    """A data file as PyIceberg takes it for a commit."""
    from pyiceberg.manifest import DataFile as IcebergDataFile
    from pyiceberg.manifest import DataFileContent, FileFormat
    from pyiceberg.typedef import Record

    made = IcebergDataFile.from_args(
        content=DataFileContent.DATA,
        file_path=file.uri,
        file_format=FileFormat.PARQUET,
        partition=Record(*partition_values(table, partition)),
        record_count=file.rows,
        file_size_in_bytes=file.bytes,
        sort_order_id=None,
        equality_ids=None,
        key_metadata=None,
        **iceberg_statistics(file.statistics),
    )
    made.spec_id = table.spec().spec_id
    return made


def partition_values(table: pyiceberg.table.Table, partition: Partition) -> tuple[Any, ...]:
    """The values of a partition as a table keeps them, in the order of its partition columns."""
    return tuple(_partition_value(partition[f.name]) for f in table.spec().fields)


def _partition_value(value: Any) -> Any:
    """Iceberg keeps an instant as microseconds since 1970."""
    return (value - EPOCH) // dt.timedelta(microseconds=1) if isinstance(value, dt.datetime) else value


def partition_filter(partition: Partition) -> BooleanExpression:
    """The Iceberg filter that holds for exactly one partition."""
    from pyiceberg.expressions import AlwaysTrue, And, EqualTo

    expression: BooleanExpression = AlwaysTrue()
    for name, value in partition.items():
        literal = value.isoformat() if isinstance(value, dt.datetime) else value
        expression = And(expression, EqualTo(name, literal))  # pyright: ignore[reportCallIssue]
    return expression


def files_of(table: pyiceberg.table.Table, partition: Partition) -> dict[str, Any]:
    """The data files of a partition as PyIceberg has them, by URI; all that the table has where no values are given.

    Raises:
        CatalogError: a manifest is damaged.
    """
    try:
        planned = table.scan(row_filter=partition_filter(partition)).plan_files()
        return {task.file.file_path: task.file for task in planned}
    except (ValueError, EOFError, LookupError, struct.error, zlib.error) as error:
        raise damaged(table.location(), error) from error


@dataclass(frozen=True)
class Held:
    """What a table holds of a partition."""

    #: The columns that hold anything there. A file tells which plain columns it has; of one that does not tell (the rows
    #: so far of a run that goes on), and of nested columns, all count as held.
    columns: frozenset[str]
    #: URIs of its data files, sorted.
    files: tuple[str, ...]


def held(table: pyiceberg.table.Table, plain: Mapping[int, str]) -> dict[tuple[Any, ...], Held]:
    """What a table holds, by the values of each partition; `plain` are its plain columns, by field id."""
    every = frozenset(f.name for f in table.schema().fields)
    nested = every - set(plain.values())
    found: dict[tuple[Any, ...], Held] = {}
    for uri, file in files_of(table, {}).items():
        columns = nested | {plain[i] for i in file.value_counts if i in plain} if file.value_counts else every
        values = tuple(_values_read(table, file.partition))
        before = found.get(values, Held(frozenset(), ()))
        found[values] = Held(before.columns | columns, tuple(sorted((*before.files, uri))))
    return found


def _values_read(table: pyiceberg.table.Table, record: Any) -> Iterable[Any]:
    from pyiceberg.types import TimestamptzType

    schema = table.schema()
    for i, part in enumerate(table.spec().fields):
        instant = isinstance(schema.find_field(part.source_id).field_type, TimestamptzType)
        yield EPOCH + dt.timedelta(microseconds=record[i]) if instant else record[i]


def swap(tx: Transaction, gone: Sequence[Any], new: Sequence[Any]) -> None:
    """Takes data files out of a table and puts others in, in one snapshot; in none where there is nothing to do."""
    if not (gone or new):
        return
    update = tx.update_snapshot()
    with update.overwrite() if gone else update.merge_append() as snapshot:
        for file in gone:
            snapshot.delete_data_file(file)
        for file in new:
            snapshot.append_data_file(file)
