"""Models to Arrow, column by column, and back.

Coming back runs no validators: what is in a table was validated when it went in, and a validator
that changes its value (a percentage to a fraction, say) must not do so twice. Never checks bounds: `bounds` does.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from operator import attrgetter, itemgetter
from typing import Any, TypeVar

import pyarrow as pa
from pydantic import BaseModel

from scythe_catalog.errors import DataError
from scythe_catalog.schema.carried import extra_problems, private_problems
from scythe_catalog.schema.compile import CompiledModel
from scythe_catalog.schema.kinds import Json
from scythe_catalog.schema.problems import Problem, raise_problems
from scythe_catalog.schema.table_schema import Column, TableSchema

M = TypeVar("M", bound=BaseModel)

MISFIT = (ValueError, TypeError, OverflowError, OSError, pa.ArrowException)


def models_to_arrow(models: Sequence[BaseModel], compiled: CompiledModel) -> pa.Table:
    """One row a model, in order; the columns of the schema, then `extra` where any model carries more.

    Raises:
        DataError: a value that its column cannot hold, with column, rows and rule.
    """
    rows = list(map(attrgetter("__dict__"), models))
    schema, what = compiled.fields, compiled.model.__name__
    table = columns_to_arrow([list(map(itemgetter(name), rows)) for name in schema.names], schema, what=what)
    if compiled.allows_extra:
        extras = list(map(attrgetter("__pydantic_extra__"), models))
        if any(extras):
            raise_problems(what, extra_problems(extras))
            column = Column(compiled.extra_column, Json(), True)
            table = table.append_column(column.arrow, column_to_arrow(column, extras))
    if compiled.has_privates:
        raise_problems(what, private_problems(models, arrow_to_models(table, compiled)))
    return table


def columns_to_arrow(columns: Sequence[Sequence[Any]], schema: TableSchema, *, what: str) -> pa.Table:
    """Python values, a sequence a column of the schema, as an Arrow table.

    Raises:
        DataError: a value that its column cannot hold, with column, rows and rule.
    """
    arrays: list[pa.Array] = []
    problems: list[Problem] = []
    for column, values in zip(schema, columns, strict=True):
        try:
            arrays.append(column_to_arrow(column, values))
        except DataError as error:
            problems += [p for p in error.problems if isinstance(p, Problem)]
    raise_problems(what, problems)
    return pa.table(arrays, schema=schema.arrow)


def column_to_arrow(column: Column, values: Sequence[Any]) -> pa.Array:
    """One column's Python values as Arrow.

    Raises:
        DataError: naming the rows whose value does not fit.
    """
    try:
        array = column.kind.array(values if isinstance(values, list) else list(values))
    except MISFIT as error:
        rows, first = _misfits(column, values)
        raise_problems(None, [Problem(column.name, f"must be {column.kind.describe()}: {first or error}", tuple(rows))])
        raise
    if array.null_count and not column.nullable:
        rows = [i for i, v in enumerate(values) if v is None]
        raise_problems(None, [Problem(column.name, "must not be null", tuple(rows))])
    return array


def _misfits(column: Column, values: Sequence[Any]) -> tuple[list[int], str]:
    rows: list[int] = []
    first = ""
    for i, value in enumerate(values):
        try:
            column.kind.array([value])
        except MISFIT as error:
            rows.append(i)
            first = first or f"got {str(value)[:80]!r} ({error})"
    return rows, first


def arrow_to_models(table: pa.Table, compiled: CompiledModel) -> list[Any]:
    """The models that `models_to_arrow` was given, equal to the originals."""
    return list(iterate_models(table, compiled))


def iterate_models(table: pa.Table, compiled: CompiledModel) -> Iterator[Any]:
    """The same models one by one, so that none need outlive its use."""
    build = builder(compiled.model)
    fields = compiled.fields
    columns = [column.kind.load(to_list(table.column(column.name))) for column in fields]
    names = fields.names
    if compiled.allows_extra and compiled.extra_column in table.column_names:
        extras = Json().load(to_list(table.column(compiled.extra_column)))
        for *row, extra in zip(*columns, extras, strict=True):
            model = build(dict(zip(names, row, strict=True)))
            object.__setattr__(model, "__pydantic_extra__", extra)
            yield model
        return
    for row in zip(*columns, strict=True):
        yield build(dict(zip(names, row)))  # noqa: B905 - the hot loop of every leaf


def to_list(column: pa.ChunkedArray) -> list[Any]:
    """Python values of a column; the fast way round for plain numbers."""
    if column.null_count == 0 and (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        return column.to_numpy().tolist()
    return column.to_pylist()


def reader(model: type[BaseModel], computed: Sequence[str] = (), *, results: bool) -> Callable[[Any], dict[str, Any]]:
    """A function that gives a nested model's values by name, those of computed fields too.

    An instance of a subclass would lose what it has beyond the model, so that it is refused; in `results`, which
    nobody calls any more, one that has the same fields passes.
    """
    names = set(model.model_fields)

    def read(value: Any) -> dict[str, Any]:
        python = type(value)
        if python is not model:
            if not isinstance(value, model):
                raise TypeError(f"{value!r} is not a {model.__name__}")
            if not (results and set(python.model_fields) == names):
                raise ValueError(
                    f"it holds a {python.__name__}, of which only what a {model.__name__} has would be kept: "
                    f"give a {model.__name__}, or annotate the field with {python.__name__}"
                )
        values: dict[str, Any] = vars(value)  # pyright: ignore[reportAssignmentType]
        return values | {name: getattr(value, name) for name in computed} if computed else values

    return read


def builder(model: type[M], dropping: Sequence[str] = ()) -> Callable[[dict[str, Any]], M]:
    """A function that makes an instance of trusted values, with private attributes but without validation.

    The values of `dropping` are passed over: an instance computes them itself.
    """
    new, put = model.__new__, object.__setattr__
    names = set(model.model_fields)
    extra = model.model_config.get("extra") == "allow"
    finish = _finisher(model)

    def build(values: dict[str, Any]) -> M:
        for name in dropping:
            del values[name]
        instance = new(model)
        put(instance, "__dict__", values)
        put(instance, "__pydantic_fields_set__", names.copy())
        put(instance, "__pydantic_extra__", {} if extra else None)
        put(instance, "__pydantic_private__", None)
        if finish is not None:
            kept = deepcopy(values)  # lists and nested models of it may be changed in place
            finish(instance)
            put(instance, "__dict__", kept)  # a hook that changes values did so before they were stored
        return instance

    return build


def _finisher(model: type[BaseModel]) -> Callable[[Any], None] | None:
    """What fills private attributes after construction, if the model has any."""
    hook = model.__pydantic_post_init__
    if hook is None:
        return None
    after = [
        d.func
        for d in model.__pydantic_decorators__.model_validators.values()
        if d.info.mode == "after" and model.__private_attributes__ and len(inspect.signature(d.func).parameters) == 1
    ]

    def finish(instance: Any) -> None:
        getattr(instance, hook)(None)
        for validate in after:
            validate(instance)

    return finish
