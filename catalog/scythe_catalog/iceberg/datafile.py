"""Parquet files that are Iceberg data files: written with field ids, described as JSON.

Writing needs neither a catalog nor PyIceberg, so that a leaf can do it; describing a file's
statistics does. Never commits anything: `tables` does.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from scythe_catalog.compute import pc
from scythe_catalog.iceberg.joined import JoinedFile
from scythe_catalog.schema.kinds import Kind, known_part
from scythe_catalog.schema.table_schema import SCHEMA_KEY, TableSchema
from scythe_catalog.storage.objects import Objects

if TYPE_CHECKING:
    from types import TracebackType

    from pyiceberg.schema import Schema

#: Column path ("prices.element") -> Iceberg field id.
FieldIds = Mapping[str, int]

_FIELD_ID = b"PARQUET:field_id"
#: From here on a field id belongs to no table; Iceberg's own reserved ids begin above 2,147,483,447.
_SPARE_ID = 2_000_000_000
ROW_GROUP_ROWS = 128 * 1024


@dataclass(frozen=True)
class DataFile:
    """One Parquet file and what a catalog needs to know of it; `to_json` and `from_json` carry it along."""

    uri: str
    rows: int
    bytes: int
    #: Iceberg's own statistics (null counts, lower and upper bounds, ...) in its argument names.
    statistics: dict[str, Any] = field(default_factory=dict[str, Any])
    #: How many NaN each column of floats has: Parquet's footer does not tell, and its bounds pass over them. None: not counted.
    nans: dict[str, int] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; bounds are base64."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The data file that `to_json` wrote."""
        return cls(data["uri"], data["rows"], data["bytes"], dict(data["statistics"]), data.get("nans"))


@dataclass(frozen=True)
class StoredFile:
    """A Parquet file of the same storage whose rows can be copied as they are; NaN by column of floats."""

    key: str
    rows: int
    nans: Mapping[str, int]


class DataFileWriter:
    """Streams tables and files into one Parquet file; it appears under its key when the writer closes, or not at all.

    `index` names the leading columns that `pandas.read_parquet` is to make a MultiIndex of.
    """

    def __init__(
        self, objects: Objects, key: str, schema: pa.Schema, ids: FieldIds | None, *, index: Sequence[str] = ()
    ) -> None:
        metadata = dict(schema.metadata or {})
        metadata[b"pandas"] = json.dumps(pandas_metadata(schema, index)).encode()
        self.schema = with_field_ids(schema, ids or {}).with_metadata(metadata)
        self.rows = 0
        self._objects, self._key = objects, key
        self._footer: pq.FileMetaData | None = None
        self._bytes = 0
        self._nans = {f.name: 0 for f in schema if pa.types.is_floating(f.type)}
        self._dictionaries = _dictionary_columns(schema)
        #: Rows that are being encoded; and, once the first file was copied, the file that all come to stand in.
        self._encoded: tuple[Path, pq.ParquetWriter] | None = None
        self._joined: tuple[Path, JoinedFile] | None = None

    def write(self, table: pa.Table) -> None:
        """Appends rows, whose columns must be those of the schema in name, type and order."""
        _, parquet = self._encoding()
        parquet.write_table(table.replace_schema_metadata(None).cast(self.schema), ROW_GROUP_ROWS)
        self.rows += table.num_rows
        for name in self._nans:
            self._nans[name] += pc.sum(pc.is_nan(table.column(name))).as_py() or 0

    def copy(self, file: StoredFile) -> None:
        """Appends all rows of a file of the same storage, by its bytes; its columns must be those of the schema."""
        joined = self._joining()
        with self._objects.reader(file.key) as source:
            joined.append(source)
        self.rows += file.rows
        for name in self._nans:
            self._nans[name] += file.nans[name]

    def _encoding(self) -> tuple[Path, pq.ParquetWriter]:
        if self._encoded is None:
            staged = self._objects.staging_file("part.pq")
            self._encoded = staged, self._parquet(staged)
        return self._encoded

    def _parquet(self, where: Any) -> pq.ParquetWriter:
        return pq.ParquetWriter(
            where, self.schema, compression="zstd", compression_level=1, use_dictionary=self._dictionaries
        )

    def _joining(self) -> JoinedFile:
        """The file that all come to stand in, with what has been encoded until now."""
        if self._joined is None:
            path = self._objects.staging_file("joined.pq")
            self._joined = path, JoinedFile(path)
        if self._encoded is not None:
            (staged, parquet), self._encoded = self._encoded, None
            try:
                parquet.close()
                with staged.open("rb") as source:
                    self._joined[1].append(source)
            finally:
                self._objects.discard(staged)
        return self._joined[1]

    def _close(self) -> Path:
        """The file, whole."""
        if self._joined is None:
            staged, parquet = self._encoding()
            parquet.close()
            return staged
        joined, empty = self._joining(), io.BytesIO()
        self._parquet(empty).close()
        joined.close(empty.getvalue())
        return self._joined[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                staged = self._close()
                self._footer, self._bytes = pq.read_metadata(staged), staged.stat().st_size
                self._objects.publish(staged, self._key)
        finally:
            self._abandon()

    def _abandon(self) -> None:
        """Removes what is staged."""
        if self._encoded is not None:
            staged, parquet = self._encoded
            with contextlib.suppress(Exception):  # an error that brought us here says more than its consequence
                parquet.close()
            self._objects.discard(staged)
        if self._joined is not None:
            path, joined = self._joined
            joined.abandon()
            self._objects.discard(path)

    def describe(self, iceberg: Schema | None = None) -> DataFile:
        """The file as it was written; with statistics where the table's Iceberg schema is given."""
        assert self._footer is not None
        found = _statistics(self._footer, iceberg, self._nans, self.schema)
        return DataFile(self._objects.uri(self._key), self.rows, self._bytes, found, dict(self._nans))


def _dictionary_columns(schema: pa.Schema) -> Any:
    """Texts repeat, so dictionaries pay; floats rarely do, and trying costs time."""
    return [f.name for f in schema if not pa.types.is_floating(f.type) and not pa.types.is_nested(f.type)]


def read_description(objects: Objects, key: str, iceberg: Schema | None = None) -> DataFile:
    """Describes a Parquet file that is already there, from its footer."""
    with objects.reader(key) as source:
        file = pq.ParquetFile(source)
        nans = _nans(file) if iceberg is not None else None
        found = _statistics(file.metadata, iceberg, nans or {}, file.schema_arrow)
        return DataFile(objects.uri(key), file.metadata.num_rows, objects.size(key), found, nans)


def _nans(file: pq.ParquetFile) -> dict[str, int]:
    """How many NaN each column of floats has: counted, as no footer tells."""
    counts = {f.name: 0 for f in file.schema_arrow if pa.types.is_floating(f.type)}
    for group in range(file.num_row_groups):
        columns = file.read_row_group(group, list(counts)) if counts else None
        for name in counts:
            counts[name] += pc.sum(pc.is_nan(columns.column(name))).as_py() or 0 if columns is not None else 0
    return counts


def _statistics(
    footer: pq.FileMetaData, iceberg: Schema | None, nans: Mapping[str, int], stored: pa.Schema
) -> dict[str, Any]:
    if iceberg is None:
        return {}
    from scythe_catalog.iceberg.types import statistics

    return statistics(footer, iceberg, nans, stored_field_ids(stored))


def iceberg_statistics(statistics: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON statistics as the arguments of PyIceberg's `DataFile.from_args`."""
    arguments: dict[str, Any] = {}
    for name, value in statistics.items():
        if isinstance(value, dict):
            arguments[name] = {int(k): base64.b64decode(v) if isinstance(v, str) else v for k, v in value.items()}
        else:
            arguments[name] = value
    return arguments


def field_ids(iceberg: Schema) -> dict[str, int]:
    """Column path -> field id of an Iceberg schema; list items are `element`, map parts `key` and `value`."""
    return {iceberg.find_column_name(i) or "": i for i in iceberg.field_ids}


def with_field_ids(schema: pa.Schema, ids: FieldIds) -> pa.Schema:
    """The schema with Parquet field ids wherever the path is known, nested fields too.

    What is unknown by the schema's own account gets ids that no table gives: PyIceberg reads no file
    in which a column has none, and every reader passes over an id that its table does not have.
    """
    spare = {path: _SPARE_ID + i for i, path in enumerate(_unknown_paths(schema))} if ids else {}
    return pa.schema([_identified(f, f.name, {**ids, **spare}) for f in schema], schema.metadata)


def _unknown_paths(schema: pa.Schema) -> list[str]:
    """The paths of all that is unknown, and of what lies above and below it without being told either."""
    if SCHEMA_KEY.encode() not in (schema.metadata or {}):
        return []
    return [path for column in TableSchema.from_arrow(schema) for path in _unknown(column.name, column.kind)]


def _unknown(path: str, kind: Kind, *, within: bool = False) -> Iterator[str]:
    untold = within or known_part(kind) is None
    if untold:
        yield path
    for name, part in kind.parts:
        yield from _unknown(f"{path}.{name}", part, within=untold)


def _identified(f: pa.Field, path: str, ids: FieldIds) -> pa.Field:
    t = pa.types
    dtype = f.type
    if t.is_struct(dtype):
        dtype = pa.struct([_identified(child, f"{path}.{child.name}", ids) for child in dtype])
    elif t.is_map(dtype):
        dtype = pa.map_(
            _identified(dtype.key_field, f"{path}.key", ids), _identified(dtype.item_field, f"{path}.value", ids)
        )
    elif t.is_list(dtype):
        dtype = pa.list_(_identified(dtype.value_field, f"{path}.element", ids))
    metadata = {k: v for k, v in (f.metadata or {}).items() if k != _FIELD_ID}
    if path in ids:
        metadata[_FIELD_ID] = str(ids[path]).encode()
    return pa.field(f.name, dtype, f.nullable, metadata or None)


def stored_schema(objects: Objects, key: str) -> pa.Schema:
    """The Arrow schema of a Parquet file, from its footer.

    Raises:
        pyarrow.ArrowInvalid: it is damaged; the message names it.
    """
    with naming(objects, key), objects.reader(key) as stream:
        return pq.read_schema(stream)


@contextlib.contextmanager
def naming(objects: Objects, key: str) -> Generator[None]:
    """What Arrow says of a damaged file, with the file's address."""
    try:
        yield
    except pa.ArrowInvalid as error:
        raise pa.ArrowInvalid(f"{objects.uri(key)} is damaged: {error}") from error


def pandas_index(schema: pa.Schema) -> list[str]:
    """The columns of a file that pandas reads back as its index."""
    return json.loads((schema.metadata or {}).get(b"pandas", b"{}")).get("index_columns", [])


def stored_field_ids(schema: pa.Schema) -> dict[str, int]:
    """Column path -> field id of a Parquet file's schema: what `with_field_ids` put there."""
    found: dict[str, int] = {}

    def visit(f: pa.Field, path: str) -> None:
        told = (f.metadata or {}).get(_FIELD_ID)
        if told is not None:
            found[path] = int(told)
        for child, name in _children(f.type):
            visit(child, f"{path}.{name}")

    for f in schema:
        visit(f, f.name)
    return found


def _children(dtype: pa.DataType) -> list[tuple[pa.Field, str]]:
    t = pa.types
    if t.is_struct(dtype):
        return [(child, child.name) for child in dtype]
    if t.is_map(dtype):
        return [(dtype.key_field, "key"), (dtype.item_field, "value")]
    return [(dtype.value_field, "element")] if t.is_list(dtype) else []


def pandas_metadata(schema: pa.Schema, index: Sequence[str]) -> dict[str, Any]:
    """What `pandas.read_parquet` looks for: the index levels and the types of the columns.

    Format: https://pandas.pydata.org/docs/development/developer.html (storing pandas DataFrame objects).
    """
    return {
        "index_columns": list(index),
        "column_indexes": [],
        "columns": [
            {"name": f.name, "field_name": f.name, "pandas_type": _pandas_type(f.type), "numpy_type": _numpy_type(f.type),
             "metadata": {"timezone": "UTC"} if pa.types.is_timestamp(f.type) and f.type.tz else None}
            for f in schema
        ],
        "creator": {"library": "scythe", "version": "1"},
        "pandas_version": "2.2.0",
    }  # fmt: skip


def _pandas_type(dtype: pa.DataType) -> str:
    t = pa.types
    if t.is_string(dtype):
        return "unicode"
    if t.is_timestamp(dtype):
        return "datetimetz" if dtype.tz else "datetime"
    if t.is_floating(dtype) or t.is_integer(dtype) or t.is_boolean(dtype):
        return {"double": "float64", "float": "float32"}.get(str(dtype), str(dtype))
    if t.is_date(dtype):
        return "date"
    return "bytes" if t.is_binary(dtype) else "object"


def _numpy_type(dtype: pa.DataType) -> str:
    t = pa.types
    if t.is_timestamp(dtype):
        return f"datetime64[{dtype.unit}]"
    if t.is_floating(dtype) or t.is_integer(dtype) or t.is_boolean(dtype):
        return str(dtype.to_pandas_dtype().__name__).removesuffix("_")
    return "object"
