"""Typed (input, output) pairs out of a run's final files, a batch at a time. Looks nothing up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.define.experiment import Experiment
from scythe.define.schemas import ExperimentSchemas
from scythe.errors import RunDamaged, RunError
from scythe.record.results import RunResult
from scythe_catalog.schema import CompiledModel, TableSchema, arrow_to_models, meanings_changed
from scythe_catalog.storage.objects import Objects

_BATCH_ROWS = 8192


def pairs(
    objects: Objects, experiment: Experiment, result: RunResult, renamed: Mapping[str, str]
) -> Iterator[tuple[ExperimentInputSpec, ExperimentOutputSpec]]:
    """The pairs of a finished run, ordered by `sort_index`; its files may have former names of what was `renamed` since.

    Raises:
        RunError: a column that a model needs is not in the files, or members of an Enum have other values than those that ran.
        RunDamaged: one of its files is gone, or damaged.
    """
    schemas, names = experiment.schemas, None
    for stored in _batches(objects, result, bool(schemas.file_outputs)):
        if names is None:  # all have the same columns
            names = [_known(name, renamed, schemas) for name in stored.column_names]
            _check_meanings(stored.schema, dict(zip(stored.column_names, names, strict=True)), schemas, result)
        table = stored.rename_columns(names)
        inputs = arrow_to_models(_needed(table, schemas.input, result), schemas.input)
        made = _needed(table, schemas.output, result, made=True)
        # A table without columns has no rows, either: of a function that gives files and dataframes alone.
        outputs: list[Any] = (
            arrow_to_models(made, schemas.output) if made.num_columns else [experiment.output_model() for _ in inputs]
        )
        for output in outputs:
            output.__dict__["dataframes"] = {}
        yield from zip(inputs, outputs, strict=True)


def _check_meanings(stored: pa.Schema, names: Mapping[str, str], schemas: ExperimentSchemas, result: RunResult) -> None:
    """Nothing where the members of Enums have the values that they ran with.

    Raises:
        RunError: one has another.
    """
    held = TableSchema.from_arrow(stored).renamed({name: now for name, now in names.items() if name != now})
    for compiled in (schemas.input, schemas.output):
        for change in meanings_changed(held, compiled.schema):
            raise RunError(
                f"{result.experiment_id} was made with another version of the model: {change.field} {change.what}; use scythe.read"
            )


def _known(name: str, renamed: Mapping[str, str], schemas: ExperimentSchemas) -> str:
    """What the models call a column of a file: they may be those of today, or those that the run was made with."""
    now = renamed.get(name, name)
    return now if now in schemas.input.schema or now in schemas.output.schema else name


def _batches(objects: Objects, result: RunResult, with_files: bool) -> Iterator[pa.Table]:
    try:
        yield from _read(objects, result, with_files)
    except (FileNotFoundError, pa.ArrowException) as error:
        raise RunDamaged(f"a file of {result.experiment_id} is gone, or damaged: {error}") from error


def _read(objects: Objects, result: RunResult, with_files: bool) -> Iterator[pa.Table]:
    with objects.reader(result.tables["scalars"].key) as stream:
        scalars = pq.ParquetFile(stream).iter_batches(_BATCH_ROWS)
        if not with_files:
            yield from (pa.Table.from_batches([batch]) for batch in scalars)
            return
        with objects.reader(result.tables["result_file_refs"].key) as other:
            refs = pq.ParquetFile(other).iter_batches(_BATCH_ROWS)
            for batch, files in zip(scalars, refs, strict=True):
                table = pa.Table.from_batches([batch])
                for name in files.schema.names:
                    if name not in table.column_names:
                        table = table.append_column(name, files.column(name))
                yield table


def _needed(table: pa.Table, compiled: CompiledModel, result: RunResult, *, made: bool = False) -> pa.Table:
    """The columns of a model; those that came after the run take the model's defaults, but of what was `made` only None."""
    columns: dict[str, Any] = {}
    for column in compiled.fields:
        if column.name in table.column_names:
            columns[column.name] = table.column(column.name)
            continue
        info = compiled.model.model_fields[column.name]
        if info.is_required() or info.default_factory_takes_validated_data:
            raise RunError(
                f"{result.experiment_id} has no column {column.name!r}, which {compiled.model.__name__} needs: "
                "it was made with another version of the model; use scythe.read"
            )
        default = column.kind.array([value := info.get_default(call_default_factory=True)])
        if made and value is not None:
            raise RunError(
                f"{result.experiment_id} has no column {column.name!r}, an output that came after it: its default {value!r} is no result "
                "of that run; make it optional (None), or use scythe.read"
            )
        columns[column.name] = pa.repeat(default[0], table.num_rows)
    if compiled.allows_extra and compiled.extra_column in table.column_names:
        columns[compiled.extra_column] = table.column(compiled.extra_column)
    return pa.table(columns)
