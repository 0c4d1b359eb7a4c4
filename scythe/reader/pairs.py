"""Typed (input, output) pairs out of a run's final files, a batch at a time. Looks nothing up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.define.experiment import Experiment
from scythe.define.schemas import ExperimentSchemas
from scythe.errors import RunDamaged, RunError
from scythe.reader.shown import gone_file
from scythe.record.layout import RunKey
from scythe.record.results import RunResult
from scythe_catalog.compute import pc
from scythe_catalog.schema import Change, Column, CompiledModel, Severity, TableSchema, arrow_to_models, compare
from scythe_catalog.schema import kinds as k
from scythe_catalog.storage.objects import Objects

_BATCH_ROWS = 8192


def pairs(
    objects: Objects, experiment: Experiment, result: RunResult, renamed: Mapping[str, str]
) -> Iterator[tuple[ExperimentInputSpec, ExperimentOutputSpec]]:
    """The pairs of a finished run, ordered by `sort_index`; its files may have former names of what was `renamed` since.

    Raises:
        RunError: the run was made with other models: a column that one needs is not in the files, or was of another type, unit or parts.
        RunDamaged: one of its files is gone, or damaged.
    """
    schemas, held, now = experiment.schemas, None, dict[str, str]()
    for stored in _batches(objects, result, bool(schemas.file_outputs)):
        if held is None:  # all have the same columns
            now = {name: _known(name, renamed, schemas) for name in stored.column_names}
            held = TableSchema.from_arrow(stored.schema).renamed(
                {name: new for name, new in now.items() if name != new}
            )
            _check_models(held, schemas, result)
        table = stored.rename_columns([now[name] for name in stored.column_names])
        inputs = arrow_to_models(
            _needed(table, schemas.input, result, extras=_extras(table, held, schemas)), schemas.input
        )
        made = _needed(table, schemas.output, result, made=True)
        # A table without columns has no rows, either: of a function that gives files and dataframes alone.
        outputs: list[Any] = (
            arrow_to_models(made, schemas.output) if made.num_columns else [experiment.output_model() for _ in inputs]
        )
        if computed := [name for name in schemas.output.computed if name in table.column_names]:
            _check_computed(table.select(computed), outputs, schemas.output, result)
        for output in outputs:
            output.__dict__["dataframes"] = {}
        yield from zip(inputs, outputs, strict=True)


def _check_computed(stored: pa.Table, outputs: Sequence[Any], compiled: CompiledModel, result: RunResult) -> None:
    """Nothing where what the model computes by now is what was stored.

    Raises:
        RunError: it is something else.
    """
    for name in stored.column_names:
        before = stored.column(name).to_pylist()
        after = compiled.schema[name].kind.array([getattr(output, name) for output in outputs]).to_pylist()
        if before == after:
            continue
        for was, now in zip(before, after, strict=True):
            if was != now and not (was != was and now != now):  # noqa: PLR0124 - NaN
                raise _other_models(result, name, f"was computed as {was!r}, and is {now!r} by now")


def _check_models(held: TableSchema, schemas: ExperimentSchemas, result: RunResult) -> None:
    """Nothing where the models of now take what is stored for what it was when it ran.

    Raises:
        RunError: a field is of another type, in another unit, made of other parts, or its Enum's members have other values.
    """
    for compiled in (schemas.input, schemas.output):
        both = [column.name for column in compiled.fields if column.name in held]
        for change in compare(held.select(both), compiled.fields.select(both)).changes:
            if not _is_harmless(change, whole=change.field in both):
                raise _other_models(result, change.field, change.what)


def _is_harmless(change: Change, *, whole: bool) -> bool:
    """Whether a value is still what it was; whether a `whole` column is null, or has a choice that is gone, its values tell."""
    if change.about in ("null", "choices"):
        return whole or change.severity < Severity.BREAKING
    return change.about == "type" and change.severity < Severity.BREAKING


def _check_values(column: Column, values: pa.ChunkedArray, result: RunResult) -> None:
    """Nothing where a model of now allows these nulls and choices.

    Raises:
        RunError: it does not.
    """
    if values.null_count and not column.nullable:
        raise _other_models(result, column.name, "may no longer be None, and is null in some rows")
    kind = column.kind
    choices = kind.values if isinstance(kind, k.Category) else kind.choices if isinstance(kind, k.Int) else None
    if choices is not None:
        used = pc.unique(values).drop_null().to_pylist()
        gone = [value for value in used if value not in choices]
        if gone:
            raise _other_models(
                result, column.name, f"is {gone[0]!r} in some rows, which is none of its choices by now"
            )


def _other_models(result: RunResult, name: str, what: str) -> RunError:
    return RunError(
        f"{result.experiment_id} was made with another version of the model: {name} {what}; use scythe.read"
    )


def _known(name: str, renamed: Mapping[str, str], schemas: ExperimentSchemas) -> str:
    """What the models call a column of a file: they may be those of today, or those that the run was made with."""
    now = renamed.get(name, name)
    return now if now in schemas.input.schema or now in schemas.output.schema else name


def _batches(objects: Objects, result: RunResult, with_files: bool) -> Iterator[pa.Table]:
    try:
        yield from _read(objects, result, with_files)
    except (FileNotFoundError, pa.ArrowException) as error:
        key = RunKey(*result.experiment_id.split("/"))
        gone = (gone_file(objects, key, result, table) for table in ("scalars", "result_file_refs"))
        raise next(filter(None, gone), None) or RunDamaged(
            f"a file of {result.experiment_id} is gone, or damaged: {error}"
        ) from error


def _read(objects: Objects, result: RunResult, with_files: bool) -> Iterator[pa.Table]:
    with objects.reader(result.tables["scalars"].key) as stream:
        scalars = pq.ParquetFile(stream).iter_batches(_BATCH_ROWS)
        if not with_files:
            yield from (pa.Table.from_batches([batch]) for batch in scalars)
            return
        with objects.reader(result.tables["result_file_refs"].key) as other:
            refs = pq.ParquetFile(other).iter_batches(_BATCH_ROWS)
            told = None
            for batch, files in zip(scalars, refs, strict=True):
                table = pa.Table.from_batches([batch])
                more = [name for name in files.schema.names if name not in batch.schema.names]
                for name in more:
                    table = table.append_column(files.schema.field(name), files.column(name))
                if told is None:
                    kept = TableSchema.from_arrow(batch.schema).plus(TableSchema.from_arrow(files.schema).select(more))
                    told = kept.arrow.metadata
                yield table.replace_schema_metadata(told)


def _extras(table: pa.Table, held: TableSchema, schemas: ExperimentSchemas) -> pa.ChunkedArray | None:
    """The values beyond the fields; a column of that name may hold those of a field that there was, too."""
    name = schemas.input.extra_column
    found = schemas.input.allows_extra and name in held and isinstance(held[name].kind, k.Json)
    return table.column(name) if found else None


def _needed(
    table: pa.Table,
    compiled: CompiledModel,
    result: RunResult,
    *,
    made: bool = False,
    extras: pa.ChunkedArray | None = None,
) -> pa.Table:
    """The columns of a model; those that came after the run take the model's defaults, but of what was `made` only None."""
    columns: dict[str, Any] = {}
    for column in compiled.fields:
        if column.name in table.column_names:
            columns[column.name] = table.column(column.name)
            _check_values(column, columns[column.name], result)
            continue
        info = compiled.model.model_fields[column.name]
        if info.is_required() or info.default_factory_takes_validated_data:
            raise RunError(
                f"{result.experiment_id} has no column {column.name!r}, which {compiled.model.__name__} needs: "
                "it was made with another version of the model; use scythe.read"
            )
        # A factory makes each row's own: an identifier, say.
        count = 1 if info.default_factory is None else table.num_rows
        values = [info.get_default(call_default_factory=True) for _ in range(count)]
        if made and (value := next((v for v in values if v is not None), None)) is not None:
            raise RunError(
                f"{result.experiment_id} has no column {column.name!r}, an output that came after it: its default {value!r} is no result "
                "of that run; make it optional (None), or use scythe.read"
            )
        default = column.kind.array(values)
        columns[column.name] = default if info.default_factory is not None else pa.repeat(default[0], table.num_rows)
    if extras is not None:
        columns[compiled.extra_column] = extras
    return pa.table(columns)
