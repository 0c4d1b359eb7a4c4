"""What a dataframe comes to over all inputs of a run: its columns and types, its rows, and the inputs that do not fit.

Sees each input's rows only as sources of sorted Arrow tables. Never reads a file of its own, never writes anything.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from scythe.dataframes import INDEX_KEY
from scythe.merge import KEY, Source, keys_of, merged, without
from scythe_catalog.schema import KIND_KEY, TableSchema

#: Rows of one dataframe that have the same schema; no input of theirs is superseded by another piece's.
Piece = tuple[pa.Schema, Source]


@dataclass(frozen=True)
class Dataframe:
    """A dataframe over all inputs: its columns, the pieces that go with it, and the inputs that do not, with the reason."""

    schema: pa.Schema
    pieces: list[Piece] = field(default_factory=list[Piece])
    misfits: dict[int, str] = field(default_factory=dict[int, str])

    @classmethod
    def of(cls, pieces: Sequence[Piece]) -> Dataframe:
        """What these pieces of one name, at least one, come to together."""
        filled = [(schema, source) for schema, source in pieces if not source.empty]
        if not filled:
            return cls(pieces[0][0])
        schema, unfit = reconcile([(source.first, schema) for schema, source in filled])
        misfits: dict[int, str] = {}
        for i, reason in unfit.items():
            misfits |= {int(key): reason for key in np.unique(keys_of(filled[i][1]))}
        fitting = [piece for i, piece in enumerate(filled) if i not in unfit]
        for own, source in fitting:
            if own.types != schema.types:
                misfits |= _unpromotable(source, schema)
        return cls(schema, fitting, misfits)

    @property
    def index(self) -> list[str]:
        """The columns that pandas reads back as the index."""
        return json.loads((self.schema.metadata or {}).get(INDEX_KEY, b"[]"))

    def typed(self, levels: TableSchema) -> TableSchema:
        """The columns: levels as the models declare them, the rest by their Arrow types."""
        columns = TableSchema.from_arrow(self.schema.remove_metadata())
        return TableSchema(
            tuple(next((level for level in levels if level.name == c.name), c) for c in columns)
        ).relaxed()

    def rows(self, dropped: np.ndarray) -> Iterator[pa.Table]:
        """All rows in the order of `sort_index`, in the common types, without the inputs in `dropped` (sorted)."""

        def in_common(source: Source) -> Source:
            def batches() -> Iterator[pa.Table]:
                for table in without(source.batches(), dropped):
                    yield promoted(table, self.schema)

            return replace(source, batches=batches)

        return merged(in_common(source) for _, source in self.pieces)


def reconcile(schemas: Sequence[tuple[int, pa.Schema]]) -> tuple[pa.Schema, dict[int, str]]:
    """The schema that a dataframe has over all inputs, and which of the given ones do not fit it, with the reason.

    Each is given with the lowest `sort_index` that has it, and the lowest of all sets the columns:
    types are promoted, missing columns are null.
    """
    order = sorted(range(len(schemas)), key=lambda i: schemas[i][0])
    leader, common = schemas[order[0]]
    misfits: dict[int, str] = {}
    for i in order[1:]:
        schema = schemas[i][1].remove_metadata()
        extra = [name for name in schema.names if name not in common.names]
        if extra:
            misfits[i] = f"it has the column {extra[0]!r}, which that of input {leader} has not"
            continue
        told = [
            n
            for n in schema.names
            if _told_kind(schema, n) != _told_kind(common, n) and not _untyped(schema, common, n)
        ]
        if told:
            misfits[i] = f"one of the two columns {told[0]!r} holds durations, that of input {leader} or its own"
            continue
        try:
            common = pa.unify_schemas([common, schema], promote_options="permissive")
        except pa.ArrowException as error:
            misfits[i] = f"its types do not go with those of input {leader}: {error}"
    fields = [f.with_type(pa.string()) if pa.types.is_null(f.type) else f for f in common]
    return pa.schema(fields, schemas[order[0]][1].metadata), misfits


def _told_kind(schema: pa.Schema, name: str) -> bytes | None:
    return (schema.field(name).metadata or {}).get(KIND_KEY.encode())


def _untyped(one: pa.Schema, other: pa.Schema, name: str) -> bool:
    return pa.types.is_null(one.field(name).type) or pa.types.is_null(other.field(name).type)


def promoted(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The rows with the columns and types that the dataframe has over all inputs.

    Raises:
        pyarrow.ArrowException: a value that has no exact place there.
    """
    columns = [
        table.column(f.name).cast(f.type) if f.name in table.column_names else pa.nulls(table.num_rows, f.type)
        for f in schema
    ]
    return pa.table(columns, schema=schema)


def _unpromotable(source: Source, schema: pa.Schema) -> dict[int, str]:
    """The inputs with a value that has no place in the types that all inputs share, and why."""
    misfits: dict[int, str] = {}
    for table in source.batches():
        try:
            promoted(table, schema)
        except pa.ArrowException:
            keys = table.column(KEY).to_numpy()
            for key in np.unique(keys):
                try:
                    promoted(table.filter(pa.array(keys == key)), schema)
                except pa.ArrowException as error:
                    misfits[int(key)] = str(error)
    return misfits
