"""The inputs of an allocation: models or a frame, held against the model, before anything is written.

Gives the rows of `specs.pq`; touches local files only to see that they can be read.
"""

from __future__ import annotations

import difflib
import itertools
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import BaseModel

from scythe.allocate.frames import frame_of, frame_of_dicts, written_as_table
from scythe.define.again import told_of_twin
from scythe.define.experiment import Experiment
from scythe.define.features import with_features
from scythe.define.schemas import EXTRA
from scythe.errors import DataError, InputError
from scythe.leaf.rows import side_by_side
from scythe.names import ID_LEVELS
from scythe.remote.schemes import is_remote
from scythe.sampling.drawn import how_drawn
from scythe.terminal.console import tell
from scythe.terminal.phase import Phase
from scythe_catalog.compute import pc
from scythe_catalog.redaction import holds_password
from scythe_catalog.schema import (
    Column,
    CompiledModel,
    Frame,
    aliases,
    check_bounds,
    conform,
    models_to_arrow,
    rule_problems,
)
from scythe_catalog.schema.kinds import given_path

#: So alike is a name to one that was meant.
_NEAR = 0.8
#: So many rules that are broken are told.
_TOLD_RULES = 5
#: So many files that are missing are told.
_TOLD_FILES = 10


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
    #: Whether any input carries values beyond its fields.
    extra: bool = False
    #: How `scythe.sample` has drawn them, where it has.
    sampled: dict[str, Any] | None = None


def prepare_inputs(specs: Any, experiment: Experiment, *, overwrite_sort_index: bool) -> Inputs:
    """Specs of any accepted form, validated.

    Raises:
        InputError: none at all, another model, a frame that does not fit, a rule broken, a file that is missing.
    """
    with Phase("checking the inputs"):
        return _prepared(specs, experiment, overwrite_sort_index)


def joined_inputs(first: pa.Table, second: pa.Table, experiment: Experiment) -> Inputs:
    """Inputs that were found good before, as they are stored, one table behind the other, and numbered anew.

    Raises:
        InputError: a file is missing.
    """
    compiled = experiment.schemas.input
    extra = any(compiled.extra_column in table.column_names for table in (first, second))
    schema = compiled.schema.plus((replace(EXTRA, name=compiled.extra_column),)) if extra else compiled.schema
    table = _numbered(pa.concat_tables([side_by_side(schema, table) for table in (first, second)]))
    local, remote = _files(table, experiment.schemas.file_inputs)
    table, computed = with_features(table, experiment)
    return Inputs(table, False, True, computed, local, remote, extra)


def _prepared(specs: Any, experiment: Experiment, overwrite_sort_index: bool) -> Inputs:
    single = isinstance(specs, BaseModel)
    try:
        given, models = _given(specs, experiment)
        table = _table(given, models, experiment)
        if table.num_rows == 0:
            raise InputError(f"there are no specs to run {experiment.name!r} on: give at least one")
        if overwrite_sort_index:
            table = _numbered(table)
        else:
            _check_numbers(given, models)
        check_bounds(table, experiment.schemas.input.schema, what=experiment.input_model.__name__)
    except DataError as error:
        raise error if isinstance(error, InputError) else InputError(str(error), error.problems) from None
    local, remote = _files(table, experiment.schemas.file_inputs)
    table, dense = _sorted(table)
    table, computed = with_features(table, experiment)
    extra = experiment.schemas.input.extra_column in table.column_names
    fields = {*experiment.schemas.input.fields.names} - {*ID_LEVELS}
    drawn = how_drawn(specs, table, fields if not extra else ())
    return Inputs(table, single, dense, computed, local, remote, extra, drawn)


def _given(specs: Any, experiment: Experiment) -> tuple[Frame | None, list[BaseModel]]:
    """The specs as a frame, or as models of the experiment's input model."""
    model = experiment.input_model
    if isinstance(specs, BaseModel):
        specs = [specs]
    frame = frame_of(specs)
    if frame is not None:
        return frame, []
    if not isinstance(specs, Iterable) or isinstance(specs, str | bytes | dict | PurePath | np.ndarray):
        way = written_as_table(specs, model)
        raise InputError(
            f"specs must be {model.__name__} models, a list of dicts, or a Polars, pandas or Arrow table, "
            f"not {type(specs).__name__}" + (f": write {way}" if way else "")  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType]
        )
    models = list(specs)  # pyright: ignore[reportUnknownArgumentType]
    if models and all(isinstance(spec, dict) for spec in models):
        return frame_of_dicts(models, model), []
    others = [i for i, spec in enumerate(models) if type(spec) is not model]
    if others:
        rows = ", ".join(map(str, others[:10])) + (", …" if len(others) > 10 else "")
        found = type(models[others[0]])
        twin = told_of_twin(found, model)
        raise InputError(
            f"{experiment.name!r} takes {model.__name__}, but {len(others):,} of the specs are not "
            f"(the first a {found.__name__}; positions {rows})" + (f": {twin}" if twin else "")
        )
    return None, models


def _check_numbers(frame: Frame | None, models: list[BaseModel]) -> None:
    """Inputs that keep their own `sort_index` must have one."""
    lacking = next((i for i, spec in enumerate(models) if "sort_index" not in spec.model_fields_set), None)
    if lacking is not None or (frame is not None and "sort_index" not in frame.names and frame.rows):
        which = "the specs have none" if lacking is None else f"the spec at position {lacking} has none"
        raise InputError(
            f"overwrite_sort_index=False keeps the sort_index of each spec, and {which}: set it, or let the specs be numbered"
        )


def _table(frame: Frame | None, models: list[BaseModel], experiment: Experiment) -> pa.Table:
    compiled = experiment.schemas.input
    if frame is None:
        table = models_to_arrow(models, compiled)
        _tell_of_rules(models, compiled)
        if compiled.extra_column in table.column_names:
            _tell_of_extras(models)
        return table
    if frame.rows == 0:
        return compiled.schema.arrow.empty_table()
    return conform(_identified(frame, experiment.name), compiled, ID_LEVELS)


def _tell_of_rules(models: list[BaseModel], compiled: CompiledModel) -> None:
    """Says what the model's own rules say of the inputs as they are. They may have made them so, and be meant for what they were made of."""
    for problem in itertools.islice(rule_problems(models, compiled), _TOLD_RULES):
        tell(
            f"{problem}: so says {compiled.model.__name__} of the inputs as they are. model_copy(update=...) and assignments ask no "
            "validator; dicts of the fields are given to them"
        )


def _tell_of_extras(models: list[BaseModel]) -> None:
    """Says which values beyond the fields may be meant for one of them, which has its default then."""
    model = type(models[0])
    told: dict[str, set[str]] = {}  # of each the fields that were given wherever it was
    for spec in models:
        for name in spec.__pydantic_extra__ or ():
            given = told.get(name)
            told[name] = {*spec.model_fields_set} if given is None else given & spec.model_fields_set
    for name, given in told.items():
        left = [
            f
            for f, info in model.model_fields.items()
            if f not in given and f not in ID_LEVELS and not info.is_required()
        ]
        if name in model.model_fields:  # it has an alias, by which alone pydantic takes it
            named = " or ".join(map(repr, dict.fromkeys(aliases(model.model_fields[name])))) or "another"
            tell(f"{name!r} is a field of {model.__name__} that is given as {named}, and is kept as an extra value")
            continue
        near = difflib.get_close_matches(name, model.model_fields, 1, _NEAR)
        what = f"{name!r} is no field of {model.__name__}, and is kept as an extra value"
        if near:
            tell(f"{what}: did you mean {near[0]!r}?")
        elif left:
            tell(
                f"{what}, where {', '.join(map(repr, left[:3]))}{', …' if len(left) > 3 else ''} {'have' if len(left) > 1 else 'has'} the default"
            )


def _identified(frame: Frame, name: str) -> Frame:
    """The frame with the identifiers that every model has, if it has none."""
    table, names = frame.table, frame.names
    if "experiment_id" not in names:
        table = _with(table, "experiment_id", pa.repeat(pa.scalar(name), frame.rows))
    if "sort_index" not in names:
        table = _with(table, "sort_index", pa.array(np.arange(frame.rows)))
    return replace(frame, table=table)


def _with(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.append_column(name, values) if table.num_columns else pa.table({name: values})


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
    problems: list[str] = []
    for name in fields:
        column = table.column(name)
        local[name], remote[name] = {}, []
        for text in pc.unique(column).drop_null().to_pylist():
            if is_remote(text):
                if holds_password(text):
                    raise InputError(
                        f"{name}: {text} holds a password, which would be stored with the inputs ({rows_with(column, text)}): "
                        "give a local copy of the file, or a presigned URL"
                    )
                remote[name].append(text)
                continue
            path = given_path(text) or Path(text)
            problem = _unreadable(path)
            if problem:
                from_here = "an empty text is the working folder, " if text == "." else "relative paths start at "
                problems.append(
                    f"{name}: the file {text!r} {problem} ({rows_with(column, text)}); {from_here}{Path.cwd()}"
                )
            local[name][text] = path
    if problems:
        more = [f"… and {len(problems) - _TOLD_FILES:,} more"] if len(problems) > _TOLD_FILES else []
        raise InputError("\n".join([*problems[:_TOLD_FILES], *more]))
    return local, remote


def rows_with(column: pa.ChunkedArray, text: str) -> str:
    """The rows that hold a text, in words: the first ten."""
    rows = pc.indices_nonzero(pc.equal(column, text)).to_pylist()
    return f"row{'s' * (len(rows) > 1)} {', '.join(map(str, rows[:10]))}{', …' if len(rows) > 10 else ''}"


def _unreadable(path: Path) -> str | None:
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "does not exist"
    except (OSError, ValueError):  # below a folder that is closed to this user, or a text that can be no path
        return "cannot be read"
    if stat.S_ISDIR(mode):
        return "is a folder, not a file"
    return None if os.access(path, os.R_OK) and stat.S_ISREG(mode) else "cannot be read"
