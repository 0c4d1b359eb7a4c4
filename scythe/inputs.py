"""The inputs of an allocation: models or a frame, held against the model, before anything is written.

Gives the rows of `specs.pq`; touches local files only to see that they can be read.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
from pydantic import BaseModel

from scythe.base import ExperimentInputSpec
from scythe.errors import DataError, InputError, RegistrationError, SchemaError
from scythe.frames import frame_to_arrow
from scythe.registry import Experiment
from scythe.schemas import check_column
from scythe_catalog.compute import pc
from scythe_catalog.schema import EXTRA_COLUMN, Column, arrow_to_models, check_bounds, conform, models_to_arrow
from scythe_catalog.schema.kinds import kind_of_arrow, local_path

_FEATURE_SAMPLE = 100


@dataclass(frozen=True)
class Inputs:
    """Validated inputs: one row each, ascending by `sort_index`."""

    table: pa.Table
    single: bool
    #: Whether the sort indexes are 0 to n - 1.
    dense: bool
    #: Columns of the computed features.
    computed: tuple[Column, ...]
    #: For each file field, the local files among its values: text -> path.
    local_files: dict[str, dict[str, Path]]
    #: For each file field, its other values.
    remote_files: dict[str, list[str]]

    @property
    def extra(self) -> bool:
        """Whether any input carries values beyond its fields."""
        return EXTRA_COLUMN in self.table.column_names


def prepare_inputs(specs: Any, experiment: Experiment, *, overwrite_sort_index: bool) -> Inputs:
    """Specs of any accepted form, validated.

    Raises:
        InputError: none at all, another model, a frame that does not fit, a rule broken, a file that is missing.
    """
    single = isinstance(specs, BaseModel)
    try:
        table = _table(specs, experiment)
        if table.num_rows == 0:
            raise InputError(f"there are no specs to run {experiment.name!r} on: give at least one")
        if overwrite_sort_index:
            table = _numbered(table)
        check_bounds(table, experiment.schemas.input.schema, what=experiment.input_model.__name__)
    except DataError as error:
        raise error if isinstance(error, InputError) else InputError(str(error), error.problems) from None
    local, remote = _files(table, experiment.schemas.file_inputs)
    table, dense = _sorted(table)
    return Inputs(table, single, dense, _computed(table, experiment), local, remote)


def _table(specs: Any, experiment: Experiment) -> pa.Table:
    compiled, model = experiment.schemas.input, experiment.input_model
    if isinstance(specs, BaseModel):
        specs = [specs]
    frame = frame_to_arrow(specs)
    if frame is not None:
        frame = frame.replace_schema_metadata(None)
        if "experiment_id" not in frame.column_names:
            frame = frame.append_column("experiment_id", pa.repeat(pa.scalar(experiment.name), frame.num_rows))
        if "sort_index" not in frame.column_names:
            frame = frame.append_column("sort_index", pa.array(np.arange(frame.num_rows)))
        if frame.num_rows == 0:
            return compiled.schema.arrow.empty_table()
        return conform(frame, compiled)
    if not isinstance(specs, Iterable) or isinstance(specs, str | bytes):
        raise InputError(
            f"specs must be {model.__name__} models or a Polars, pandas or Arrow table, not {type(specs).__name__}"
        )
    models = list(specs)  # pyright: ignore[reportUnknownArgumentType]
    others = [i for i, spec in enumerate(models) if type(spec) is not model]
    if others:
        rows = ", ".join(map(str, others[:10])) + (", …" if len(others) > 10 else "")
        found = type(models[others[0]])
        raise InputError(
            f"{experiment.name!r} takes {model.__name__}, but {len(others):,} of the specs are not "
            f"(the first a {found.__name__}; positions {rows})"
        )
    return models_to_arrow(models, compiled)


def _numbered(table: pa.Table) -> pa.Table:
    at = table.schema.get_field_index("sort_index")
    return table.set_column(at, table.schema.field(at), pa.array(np.arange(table.num_rows)))


def _sorted(table: pa.Table) -> tuple[pa.Table, bool]:
    keys = table.column("sort_index").to_numpy()
    n = table.num_rows
    if bool((keys == np.arange(n)).all()):
        return table, True
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    twice = np.flatnonzero(ordered[1:] == ordered[:-1])
    if len(twice):
        i = int(twice[0])
        raise InputError(
            f"sort_index {int(ordered[i])} stands twice (rows {int(order[i])} and {int(order[i + 1])}, "
            f"{len(twice):,} duplicates in all): make it unique, or let overwrite_sort_index number the specs"
        )
    return table.take(pa.array(order)), bool(ordered[0] == 0 and ordered[-1] == n - 1)


def _files(table: pa.Table, fields: tuple[str, ...]) -> tuple[dict[str, dict[str, Path]], dict[str, list[str]]]:
    local: dict[str, dict[str, Path]] = {}
    remote: dict[str, list[str]] = {}
    for name in fields:
        column = table.column(name)
        local[name], remote[name] = {}, []
        for text in pc.unique(column).drop_null().to_pylist():
            if urlsplit(text).scheme in ("s3", "http", "https"):
                remote[name].append(text)
                continue
            path = local_path(text) or Path(text)
            problem = _unreadable(path)
            if problem:
                raise InputError(
                    f"{name}: the file {text!r} {problem} ({rows_with(column, text)}); relative paths start at {Path.cwd()}"
                )
            local[name][text] = path
    return local, remote


def rows_with(column: pa.ChunkedArray, text: str) -> str:
    """The rows that hold a text, in words: the first ten."""
    rows = pc.indices_nonzero(pc.equal(column, text)).to_pylist()
    return f"row{'s' * (len(rows) > 1)} {', '.join(map(str, rows[:10]))}{', …' if len(rows) > 10 else ''}"


def _unreadable(path: Path) -> str | None:
    if path.is_dir():
        return "is a folder, not a file"
    if not path.exists():
        return "does not exist"
    return None if os.access(path, os.R_OK) and path.is_file() else "cannot be read"


def _computed(table: pa.Table, experiment: Experiment) -> tuple[Column, ...]:
    """The columns of the computed features, typed by the first inputs."""
    model = experiment.input_model
    if model.computed_features is ExperimentInputSpec.computed_features:
        return ()
    sample: list[ExperimentInputSpec] = arrow_to_models(table.slice(0, _FEATURE_SAMPLE), experiment.schemas.input)
    try:
        found = [dict(spec.computed_features) for spec in sample]
    except Exception as error:
        raise InputError(f"{model.__name__}.computed_features raises {type(error).__name__}: {error}") from error
    columns: list[Column] = []
    for name in dict.fromkeys(name for features in found for name in features):
        try:
            check_column(name, model)
        except RegistrationError as error:
            raise InputError(f"computed_features: {error}") from None
        if name in experiment.schemas.inputs or name in experiment.schemas.output.schema:
            raise InputError(f"{model.__name__}.computed_features gives {name!r}, which is a field already: rename it")
        try:
            kind = kind_of_arrow(pa.array([features.get(name) for features in found]).type)
        except (SchemaError, pa.ArrowException) as error:
            raise InputError(
                f"{model.__name__}.computed_features: {name!r} must be a scalar of one type: {error}"
            ) from error
        if not kind.flat:
            raise InputError(f"{model.__name__}.computed_features: {name!r} must be a scalar, not a {kind.describe()}")
        columns.append(Column(name, kind, True, f"Computed by {model.__name__}."))
    return tuple(columns)
