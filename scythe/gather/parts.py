"""Finished rows on their way to `final/`: held in memory, flushed to part files, found again.

A part is a few Parquet files and a descriptor that is written last: what has no descriptor does not
count. A part's rows are final for its inputs unless a later part covers them again (a retry). Which parts the
catalog was given is recorded first: their files are named by its snapshots, so that a run's end leaves them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scythe.gather.merge import KEY, Source, changed, keys_of, sorted_rows
from scythe.leaf.rows import ChunkResult, side_by_side
from scythe.record.format import dump, parse, parse_as, reading
from scythe.record.layout import RunKey
from scythe.record.plan import RunPlan
from scythe_catalog.iceberg.datafile import DataFile, DataFileWriter, StoredFile
from scythe_catalog.names import folded
from scythe_catalog.schema import TableSchema
from scythe_catalog.storage.objects import Objects

_READ_ROWS = 64 * 1024
#: A dataframe of a chunk that is larger is not sent from process to process.
_APART_BYTES = 1024 * 1024
#: The part that holds the rows of other runs that a run has reused; no attempt on it has this number.
REUSED = "000000-reused"
#: What the records of shown files end with.
SHOWN = ".shown"


@dataclass(frozen=True)
class PartFile:
    """One Parquet file of a part: rows of one table, sorted by `sort_index`."""

    table: str
    key: str
    first: int
    last: int
    file: dict[str, Any]

    @property
    def data_file(self) -> DataFile:
        """The file as a catalog takes it."""
        return DataFile.from_json(self.file)


@dataclass(frozen=True)
class Part:
    """The descriptor of a part."""

    name: str
    rows: int
    errors: int
    files: tuple[PartFile, ...]

    @property
    def first(self) -> int | None:
        """The lowest `sort_index` of its inputs, None where there is none."""
        return next((f.first for f in self.files if f.table == "tasks" and f.last >= f.first), None)

    def to_json(self) -> bytes:
        """The descriptor as JSON."""
        return dump(asdict(self))

    @classmethod
    def from_json(cls, raw: bytes, where: str = "a part's descriptor") -> Part:
        """The descriptor that `to_json` wrote; raises RunDamaged where it is none."""
        return parse_as(cls, raw, where)


def number_of(name: str) -> int:
    """Which attempt on its run has written a part, by its name."""
    digits = name[:6]
    return int(digits) if digits.isdecimal() else 0


def stored_parts(plan: RunPlan, after: int = -1, prefix: str = "") -> list[Part]:
    """The parts of a run that are whole, oldest first; those alone that attempts behind `after` have written, and that are called so.

    What a run has reused is a part of attempt 0. What an attempt writes when a later one has ended already came too late: it counts for nothing.
    """
    names = [
        n
        for n in plan.objects.files(plan.key.parts)
        if n.startswith(prefix) and n.endswith(".json") and number_of(n) > after
    ]
    return parts_named(plan, (name.removesuffix(".json") for name in names))


def parts_named(plan: RunPlan, names: Iterable[str]) -> list[Part]:
    """The parts of a run with these names."""
    objects, keys = plan.objects, [f"{plan.key.parts}/{name}.json" for name in names]
    return [Part.from_json(raw, objects.uri(key)) for key, raw in zip(keys, objects.read_all(keys), strict=True)]


def record_shown(objects: Objects, key: RunKey, files: Sequence[PartFile], by: str) -> None:
    """Records that the catalog is about to be given these files of a run's parts; `by` begins as the parts' names do."""
    objects.write(f"{key.parts}/{by}{SHOWN}", dump({"keys": [file.key for file in files]}))


def shown_files(objects: Objects, key: RunKey, names: Sequence[str] | None = None) -> set[str]:
    """The keys of the files that the catalog was given while the run went on: a snapshot may name them.

    `names` are those in the folder of its parts, where they were listed before.
    """
    there = objects.files(key.parts) if names is None else names
    records = [f"{key.parts}/{name}" for name in there if name.endswith(SHOWN)]
    found = zip(records, objects.read_all(records), strict=True)
    return {shown for record, raw in found for shown in parse(raw, objects.uri(record))["keys"]}


class Rows:
    """Tables in memory by table name and schema, waiting to be flushed or gathered."""

    def __init__(self) -> None:
        self._tables: dict[str, list[list[pa.Table]]] = defaultdict(list)
        #: Those that stand in files of their own already.
        self.files: list[PartFile] = []
        self.rows = self.errors = self.bytes = 0

    def add(self, result: ChunkResult, files: Iterable[PartFile] = ()) -> None:
        """Takes over the rows of a chunk, and the files that hold more of them."""
        self.files += files
        for name, table in result.tables:
            self._alike(name, table.schema).append(table)
            self.bytes += table.nbytes
        self.rows += result.rows
        self.errors += result.errors

    def _alike(self, name: str, schema: pa.Schema) -> list[pa.Table]:
        """The tables of this name and schema; notes on a column are part of it (what a duration is stored as)."""
        groups = self._tables[name]
        found = next((g for g in groups if g[0].schema.equals(schema, check_metadata=True)), None)
        if found is None:
            groups.append(found := [])
        return found

    def __bool__(self) -> bool:
        return bool(self._tables or self.files)

    def tables(self) -> Iterator[tuple[str, pa.Table]]:
        """One table a name and schema, sorted by `sort_index`."""
        for name, groups in self._tables.items():
            for tables in groups:
                yield name, sorted_rows(pa.concat_tables(tables))

    def joined(self) -> ChunkResult:
        """All rows in memory as those of one chunk."""
        return ChunkResult(self.rows, self.errors, list(self.tables()))

    def clear(self) -> None:
        """Forgets everything."""
        self._tables.clear()
        self.files.clear()
        self.rows = self.errors = self.bytes = 0


def write_part(plan: RunPlan, name: str, rows: Rows) -> Part:
    """Writes everything in `rows` as one part; afterwards it survives the death of this process."""
    files = list(write_files(plan, name, rows))
    part = Part(name, rows.rows, rows.errors, tuple(files))
    plan.objects.write(f"{plan.key.parts}/{name}.json", part.to_json())
    return part


def write_files(plan: RunPlan, name: str, rows: Rows) -> Iterator[PartFile]:
    """Writes everything in `rows` to files, which count once a part names them."""
    yield from _written(plan, name, rows.tables())
    yield from rows.files


def write_apart(plan: RunPlan, name: str, result: ChunkResult) -> tuple[ChunkResult, list[PartFile]]:
    """Writes the large dataframes of users' own to files, which count once a part names them; gives the rest, and the files."""
    large = [(n, t) for n, t in result.tables if n not in plan.tables and t.nbytes > _APART_BYTES]
    if not large:
        return result, []
    rest = [(n, t) for n, t in result.tables if not any(t is written for _, written in large)]
    files = list(_written(plan, name, ((n, sorted_rows(t)) for n, t in large)))
    return ChunkResult(result.rows, result.errors, rest), files


def _written(plan: RunPlan, name: str, tables: Iterable[tuple[str, pa.Table]]) -> Iterator[PartFile]:
    count: dict[str, int] = defaultdict(int)
    for table_name, table in tables:
        if table.num_rows == 0 and table_name in plan.tables:
            continue
        key = f"{plan.key.parts}/{name}-{table_name}-{count[folded(table_name)]}.pq"
        count[folded(table_name)] += 1
        planned = plan.tables.get(table_name)
        ids, schema = (planned.ids, table.schema) if planned is not None else (None, _open(table.schema))
        with DataFileWriter(plan.objects, key, schema, ids) as writer:
            writer.write(table)
        keys = table.column(KEY).to_numpy()
        first, last = (int(keys[0]), int(keys[-1])) if len(keys) else (0, -1)
        yield PartFile(table_name, key, first, last, writer.describe().to_json())


def _open(schema: pa.Schema) -> pa.Schema:
    """The schema with columns that may be null, as those of a dataframe are over all inputs."""
    return pa.schema([f.with_nullable(True) for f in schema], schema.metadata)


def source_of(objects: Objects, file: PartFile) -> Source:
    """A part's file as a source for merging."""

    def batches() -> Iterator[pa.Table]:
        with reading(objects, file.key), objects.reader(file.key) as stream:
            for batch in pq.ParquetFile(stream).iter_batches(_READ_ROWS):
                yield pa.Table.from_batches([batch])

    told = file.data_file
    stored = StoredFile(file.key, told.rows, told.nans) if told.nans is not None else None
    return Source(file.first, file.last, batches, stored)


def completed(source: Source, schema: TableSchema, number: int | None) -> Source:
    """Rows of a table of Scythe's own as `schema` has them: a column that an older part lacks is null.

    With a number, rows of `tasks` say that they are of that attempt on the run.
    """

    def complete(table: pa.Table) -> pa.Table:
        if number is None or "attempt" not in schema:
            return side_by_side(schema, table)
        told = pa.table({"attempt": pa.repeat(pa.scalar(number, pa.int64()), table.num_rows)})
        return side_by_side(schema, told, table)

    return changed(source, complete)


def inputs_of(plan: RunPlan, part: Part) -> np.ndarray:
    """The `sort_index` of every input that a part covers."""
    found = [keys_of(source_of(plan.objects, f)) for f in part.files if f.table == "tasks" and f.last >= f.first]
    return np.concatenate([np.empty(0, np.int64), *found])


def sort_indexes(plan: RunPlan) -> np.ndarray | None:
    """The run's sort indexes, None where they are simply 0 to n - 1."""
    if plan.dense:
        return None
    with reading(plan.objects, plan.key.specs, stays=True), plan.objects.reader(plan.key.specs) as stream:
        return pq.read_table(stream, columns=[KEY]).column(KEY).to_numpy()


def key_range(objects: Objects, key: str) -> tuple[int, int]:
    """The lowest and the highest `sort_index` in a file, by its statistics; 0 and -1 of one without rows."""
    with reading(objects, key), objects.reader(key) as stream:
        metadata = pq.read_metadata(stream)
    at = metadata.schema.to_arrow_schema().get_field_index(KEY)
    found = [metadata.row_group(g).column(at).statistics for g in range(metadata.num_row_groups)]
    found = [s for s in found if s is not None and s.has_min_max]
    return (min(s.min for s in found), max(s.max for s in found)) if found else (0, -1)


def failed(objects: Objects, parts: Iterable[Part]) -> dict[str, np.ndarray]:
    """The `sort_index` of every input that is an error row, by the part's name."""
    return {part.name: _column(objects, part, "errors") for part in parts}


def _column(objects: Objects, part: Part, table: str) -> np.ndarray:
    found = [np.empty(0, np.int64)]
    for file in part.files:
        if file.table == table:
            with reading(objects, file.key), objects.reader(file.key) as stream:
                found.append(pq.read_table(stream, columns=[KEY]).column(KEY).to_numpy())
    return np.concatenate(found)
