"""Computed features: evaluated on the stored inputs, typed, and kept beside them.

All of them are evaluated when a run is allocated, where that takes seconds: then they are columns of
`specs.pq`. Where it would take longer, the first ones give the types, and each of them is evaluated
right before the function is called. Never changes an input.
"""

from __future__ import annotations

import time
import typing
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from scythe.base import ExperimentInputSpec
from scythe.define.experiment import Experiment
from scythe.define.schemas import check_column, check_twins
from scythe.errors import InputError, OutputError, RegistrationError, SchemaError
from scythe.seeds import running_with
from scythe_catalog.schema import Column, column_to_arrow, iterate_models, mixture
from scythe_catalog.schema.annotations import Walk
from scythe_catalog.schema.convert import MISFIT
from scythe_catalog.schema.kinds import Kind, Str, Unknown, kind_of_arrow

_SAMPLE = 100
#: How long an allocation evaluates features, in seconds.
_PATIENCE = 10.0


def with_features(table: pa.Table, experiment: Experiment) -> tuple[pa.Table, tuple[Column, ...]]:
    """The inputs with their computed features behind them, where all could be evaluated, and the features' columns.

    Raises:
        InputError: features that raise, that are no scalars of one type, or whose names are taken.
    """
    model = experiment.input_model
    if model.computed_features is ExperimentInputSpec.computed_features:
        return table, ()
    found = _evaluated(table, experiment)
    columns: list[Column] = []
    whole = all(len(values) == table.num_rows for values in found.values()) and not _by_identity(table, experiment)
    unsaid = Unknown() if whole else Str()  # inputs that are yet to be evaluated may have a text
    names = (*experiment.schemas.inputs.names, *experiment.schemas.output.schema.names)
    for name, values in found.items():
        try:
            check_column(name, model)
            check_twins((*names, *found), f"{model.__name__}.computed_features")
        except RegistrationError as error:
            raise InputError(f"computed_features: {error}") from None
        columns.append(Column(name, _kind(name, values, model, unsaid), True, f"Computed by {model.__name__}."))
    if not whole:
        return table, tuple(columns)
    for column in columns:
        table = table.append_column(column.arrow, column_to_arrow(column, found[column.name]))
    return table, tuple(columns)


def evaluate(spec: ExperimentInputSpec, columns: tuple[Column, ...]) -> dict[str, Any]:
    """The features of one input, right before its function is called.

    Raises:
        OutputError: one that is new, or of another type than the columns have.
    """
    found = dict(spec.computed_features)
    unknown = sorted(set(found) - {c.name for c in columns})
    if unknown:
        raise OutputError(f"computed_features gave {unknown}, which the first inputs did not")
    for column in columns:
        try:
            column.kind.array([found.get(column.name)])
        except MISFIT as error:
            raise OutputError(
                f"computed feature {column.name!r} must be {column.kind.describe()}, as it is for the first inputs, "
                f"got {found[column.name]!r}"
            ) from error
    return found


def _evaluated(table: pa.Table, experiment: Experiment) -> dict[str, list[Any]]:
    """Feature -> its values: of all inputs, or of as many as there is time for."""
    found: dict[str, list[Any]] = {}
    until = time.monotonic() + _PATIENCE
    for i, spec in enumerate(iterate_models(table, experiment.schemas.input)):
        if i >= _SAMPLE and not i % _SAMPLE and time.monotonic() > until:
            break
        features = _of(spec, i)
        if features.keys() - found.keys():
            found |= {name: [None] * i for name in features if name not in found}
        for name, values in found.items():
            values.append(features.get(name))
    return found


def _of(spec: ExperimentInputSpec, i: int) -> Mapping[str, Any]:
    try:
        return dict(spec.computed_features)
    except Exception as error:
        raise InputError(
            f"{type(spec).__name__}.computed_features raises {type(error).__name__}: {error} (input {i})"
        ) from error


def _by_identity(table: pa.Table, experiment: Experiment) -> bool:
    """Whether features depend on the identifiers of the run, which nobody knows yet."""
    before = after = table.slice(0, 10)
    for name in ("experiment_id", "workflow_run_id", "root_workflow_run_id"):
        at = after.schema.get_field_index(name)
        after = after.set_column(at, after.schema.field(at), pa.repeat("another run", after.num_rows))
    found: list[list[str]] = []
    for seed, rows in enumerate((before, after)):
        with running_with(seed):
            found.append(
                [repr(dict(spec.computed_features)) for spec in iterate_models(rows, experiment.schemas.input)]
            )
    return found[0] != found[1]


def _kind(name: str, values: list[Any], model: type[ExperimentInputSpec], unsaid: Kind) -> Kind:
    """The kind of a feature's values; `unsaid` where all are None, and the property's annotation says nothing, either."""
    what = f"{model.__name__}.computed_features: {name!r} must be a scalar of one type"
    mixed = mixture(values)
    if mixed is not None:
        raise InputError(f"{what}, not {mixed}")
    try:
        inferred = pa.array(values).type
        kind = (_annotated(model) or unsaid) if pa.types.is_null(inferred) else kind_of_arrow(inferred)
    except (SchemaError, *MISFIT) as error:
        raise InputError(f"{what}: {error}") from error
    if not kind.flat:
        raise InputError(f"{model.__name__}.computed_features: {name!r} must be a scalar, not a {kind.describe()}")
    return kind


def _annotated(model: type[ExperimentInputSpec]) -> Kind | None:
    """The kind of all features where the property's annotation says it, as `dict[str, float]` does."""
    getter = getattr(model.computed_features, "fget", None)
    walk = Walk(f"{model.__name__}.computed_features", (), {})
    try:
        arguments = typing.get_args(typing.get_type_hints(getter).get("return"))
        return walk.kind(arguments[1], ()).kind if arguments[1:] else None
    except (SchemaError, NameError, TypeError):
        return None
