"""A table of inputs out of a file, in the types that the model gives its columns. Holds no values against the model's rules."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

    from scythe_catalog.schema import Column, CompiledModel

SUFFIXES = (".parquet", ".pq", ".csv", ".json", ".ndjson")


def read_inputs(path: Path, compiled: CompiledModel) -> pl.DataFrame:
    """The inputs in a file; what it can only write as text (days, instants, decimals) as what the model says that it is.

    Raises:
        typer.BadParameter: there is no such file, or it holds something else.
    """
    import polars as pl

    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise typer.BadParameter(f"{path} is none of {', '.join(SUFFIXES)}", param_hint="specs")
    if not path.is_file():
        raise typer.BadParameter(f"there is no file {path}", param_hint="specs")
    # What a validator of the model takes first is as the file has it.
    columns = {column.name: column for column in compiled.schema if column.name not in compiled.loose}
    texts = {name: pl.String for name, column in columns.items() if _is_text(column) or _parsed(column)}
    try:  # the types of columns, and which there are, are those of all rows
        match suffix:
            case ".csv":
                frame = pl.read_csv(path, infer_schema_length=None, schema_overrides=texts)
            case ".json":
                frame = pl.read_json(path, infer_schema_length=None)
            case ".ndjson":
                frame = pl.read_ndjson(path, infer_schema_length=None)
            case _:
                return pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise typer.BadParameter(f"{path} cannot be read: {str(error).splitlines()[0]}", param_hint="specs") from error
    return frame.with_columns(
        _of_text(frame[name], column)
        for name, column in columns.items()
        if name in frame.columns and frame.schema[name] == pl.String and _parsed(column)
    )


def _is_text(column: Column) -> bool:
    from scythe_catalog.schema import kinds as k

    return isinstance(column.kind, k.Str | k.Uri | k.Uuid)


def _parsed(column: Column) -> bool:
    """Whether the values have a form of their own as text."""
    import pyarrow as pa

    t, storage = pa.types, column.kind.storage
    return t.is_date(storage) or t.is_timestamp(storage) or t.is_time(storage) or t.is_decimal(storage)


def _of_text(texts: pl.Series, column: Column) -> pl.Series:
    """Texts of ISO 8601, or decimals, as what they mean."""
    import polars as pl

    try:
        return pl.Series(texts.name, _values(texts.to_list(), column))
    except ValueError:
        wrong = next(text for text in texts.to_list() if _is_wrong(text, column))
        raise typer.BadParameter(
            f"{column.name}: {wrong!r} is no {column.kind.describe()}; write it as {_form(column)}", param_hint="specs"
        ) from None


def _form(column: Column) -> str:
    import pyarrow as pa

    t, storage = pa.types, column.kind.storage
    if t.is_decimal(storage):
        return f"{1:.{storage.scale}f}, with no more digits"
    if t.is_timestamp(storage):
        return "2024-01-31T12:00:00" + ("" if storage.tz is None else "+01:00")
    return "2024-01-31" if t.is_date(storage) else "12:00:00"


def _values(texts: list[str | None], column: Column) -> pa.Array:
    """Raises ValueError where a text is something else."""
    import datetime as dt

    import pyarrow as pa

    storage = column.kind.storage
    if pa.types.is_time(storage):  # to which Arrow casts no text
        times = [dt.time.fromisoformat(text) if text is not None else None for text in texts]
        if any(time is not None and time.tzinfo is not None for time in times):
            raise ValueError("a time of day has no zone")
        return pa.array(times, storage)
    return pa.array(texts, pa.string()).cast(storage)


def _is_wrong(text: str | None, column: Column) -> bool:
    try:
        _values([text], column)
    except ValueError:
        return True
    return False


__all__ = ["SUFFIXES", "read_inputs"]
