"""What a Hatchet task returns for a chunk of inputs: its rows where they are few, else a pointer to a part.

A task's output must stay far below Hatchet's limit of 4 MiB: a larger one would hang the run. Few
rows travel as Arrow record batches, in base64, without the schemas that both sides know; many are
written to the bucket by the process that has them. Nothing here is pickled.
"""

from __future__ import annotations

import base64
import uuid
import zlib
from typing import Any

import pyarrow as pa

from scythe.gather.parts import Part, Rows, write_part
from scythe.leaf.rows import ChunkResult
from scythe.record.plan import RunPlan
from scythe_catalog.compute import pc

#: Tables of a chunk that have more bytes do not travel with a task.
INLINE_BYTES = 128 * 1024

#: JSON of one chunk: counts, seconds in the function, and either `tables` or `part`.
Payload = dict[str, Any]


class Payloads:
    """Encodes and decodes the rows of one run; parts that it writes are named by `prefix`."""

    def __init__(self, plan: RunPlan, prefix: str) -> None:
        self._plan, self._prefix = plan, prefix
        self._schemas = {name: table.schema.arrow for name, table in plan.tables.items()}

    def encode(self, result: ChunkResult) -> Payload:
        """The rows of a chunk as JSON; many rows become a part of the run."""
        counts = {"rows": result.rows, "errors": result.errors, "seconds": _seconds(result)}
        if sum(table.nbytes for _, table in result.tables) > INLINE_BYTES:
            rows = Rows()
            rows.add(result)
            return {**counts, "part": write_part(self._plan, f"{self._prefix}-{uuid.uuid4().hex}", rows).name}
        return {**counts, "tables": [[name, *self._dump(name, table)] for name, table in result.tables]}

    def decode(self, payload: Payload) -> ChunkResult | Part:
        """What `encode` was given, or the part that it wrote."""
        if "part" in payload:
            return Part.from_json(self._plan.objects.read(f"{self._plan.key.parts}/{payload['part']}.json"))
        tables = [(name, self._load(name, *data)) for name, *data in payload["tables"]]
        return ChunkResult(payload["rows"], payload["errors"], tables)

    def merged(self, payloads: list[Payload]) -> list[Payload]:
        """The same results; those that are too large together for a task's output become one part."""
        inline = [p for p in payloads if "tables" in p]
        if sum(len(text) for p in inline for _, *texts in p["tables"] for text in texts) <= 2 * INLINE_BYTES:
            return payloads
        whole = ChunkResult()
        for one in inline:
            result = self.decode(one)
            assert isinstance(result, ChunkResult)
            whole.rows, whole.errors = whole.rows + result.rows, whole.errors + result.errors
            whole.tables += result.tables
        return [*(p for p in payloads if "part" in p), self.encode(whole)]

    def _dump(self, name: str, table: pa.Table) -> tuple[str, ...]:
        batch = next(iter(table.combine_chunks().to_batches()), None)
        if batch is None:
            batch = pa.RecordBatch.from_pylist([], schema=table.schema)
        data = base64.b64encode(zlib.compress(batch.serialize(), 1)).decode()
        if name in self._schemas and self._schemas[name].equals(table.schema, check_metadata=True):
            return (data,)
        return data, base64.b64encode(table.schema.serialize()).decode()

    def _load(self, name: str, data: str, schema: str | None = None) -> pa.Table:
        known = self._schemas[name] if schema is None else _schema(schema)
        return pa.Table.from_batches([pa.ipc.read_record_batch(zlib.decompress(base64.b64decode(data)), known)])


def _schema(text: str) -> pa.Schema:
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))


def _seconds(result: ChunkResult) -> float:
    """Seconds spent in the function, over all inputs of a chunk."""
    return sum(pc.sum(table.column("seconds")).as_py() or 0.0 for name, table in result.tables if name == "tasks")
