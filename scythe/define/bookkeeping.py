"""The rows that Scythe writes of its own: those of `tasks`, `errors`, `logs` and `packs`, and the columns that follow from them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple, get_type_hints

import pyarrow as pa

from scythe_catalog.schema import Column
from scythe_catalog.schema import kinds as k


class _As(NamedTuple):
    """How a field is stored as a column."""

    kind: k.Kind
    doc: str
    unit: str | None = None
    nullable: bool = False


class TaskRow(NamedTuple):
    """How one input was run."""

    attempts: Annotated[int, _As(k.Int(), "How often the input was tried.")]
    seconds: Annotated[float, _As(k.Float(), "Time spent in the function, all attempts together [s].", "s")]
    worker: Annotated[str, _As(k.Str(), "Host and process that ran it last.")]
    #: In microseconds since 1970.
    start: Annotated[int, _As(k.Timestamp(aware=True), "When its first attempt began.")]
    #: Known to the gather.
    attempt: Annotated[
        int | None,
        _As(
            k.Int(), "Which attempt on the run it was done in: the first, or that of a resume or retry.", nullable=True
        ),
    ] = None
    reused_from: Annotated[
        str | None,
        _As(k.Str(), "The run that the row was taken over from; null where this run made it.", nullable=True),
    ] = None
    reused_index: Annotated[int | None, _As(k.Int(), "Its `sort_index` in that run.", nullable=True)] = None


class ErrorRow(NamedTuple):
    """Why one input failed."""

    exception_type: Annotated[str, _As(k.Str(), "Class of the exception.")]
    exception_message: Annotated[str, _As(k.Str(), "Its message.")]
    traceback: Annotated[str, _As(k.Str(), "Where it was raised.")]
    attempts: Annotated[int, _As(k.Int(), "How often the input was tried.")]


class LogRow(NamedTuple):
    """What one input printed and logged."""

    #: Known to the gather.
    attempt: Annotated[int | None, _As(k.Int(), "Which attempt on the run ran it, as in `tasks`.", nullable=True)]
    stdout: Annotated[str | None, _As(k.Str(), "What was printed on standard output.", nullable=True)]
    stderr: Annotated[str | None, _As(k.Str(), "What was printed on standard error.", nullable=True)]
    log: Annotated[
        str | None,
        _As(
            k.Str(),
            "What `input_spec.log` was given, and what Python's `logging` was told, a line each.",
            nullable=True,
        ),
    ]


class PackRow(NamedTuple):
    """Where one output file lies that was stored with others in a shard."""

    field: Annotated[str, _As(k.Str(), "The file output.")]
    name: Annotated[str, _As(k.Str(), "What the file would be called by itself.")]
    shard: Annotated[str, _As(k.Uri(file=True, paths=None), "The file that holds it.")]
    offset: Annotated[int, _As(k.Int(), "Where it begins there [bytes].", "bytes")]
    length: Annotated[int, _As(k.Int(), "How long it is [bytes].", "bytes")]
    crc32c: Annotated[int, _As(k.Int(), "CRC-32C (Castagnoli) of its bytes.")]


Row = TaskRow | ErrorRow | LogRow | PackRow


def columns_of(row: type[Row]) -> tuple[Column, ...]:
    """The columns that hold such rows."""
    hints = get_type_hints(row, include_extras=True)
    found: dict[str, _As] = {name: hints[name].__metadata__[0] for name in row._fields}
    return tuple(Column(name, how.kind, how.nullable, how.doc, how.unit) for name, how in found.items())


def table_of(row: type[Row], rows: Iterable[Row]) -> pa.Table:
    """Rows as a table."""
    given: list[Sequence[Any]] = list(zip(*rows, strict=True)) or [()] * len(row._fields)
    return table_by_column(row, dict(zip(row._fields, given, strict=True)))


def table_by_column(row: type[Row], values: Mapping[str, Any]) -> pa.Table:
    """A table of such rows by column (a sequence or an array each), of those columns that are given."""
    columns = [c for c in columns_of(row) if c.name in values]
    return pa.table([pa.array(values[c.name], c.kind.storage) for c in columns], names=[c.name for c in columns])
