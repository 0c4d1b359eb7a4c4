"""`scythe spec`: the columns that a model comes to, for people. Stores nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from scythe.cli.app import Json, app
from scythe.cli.shown import show_table
from scythe.errors import NotFoundError
from scythe.names import ID_LEVELS

if TYPE_CHECKING:
    import polars as pl
    from pydantic.fields import FieldInfo

    from scythe_catalog.schema import CompiledModel

_SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


@app.command("spec")
def spec(
    model: Annotated[str, typer.Argument(help="module:Model, or module:function of a registered experiment.")],
    json: Json = False,
) -> None:
    """Shows the columns that a model comes to: types, units, bounds, defaults."""
    from scythe.source import load_named

    show_table(columns_of(load_named(model)), "no fields", json=json)


def columns_of(what: Any) -> pl.DataFrame:
    """A row a field of a model, or of both models of a registered function.

    Returns:
        `model, column, type, unit, bounds, default` (`required` where there is none) and `description`.

    Raises:
        NotFoundError: it is neither.
        SchemaError: a field that no table can hold.
    """
    import polars as pl
    from pydantic import BaseModel

    from scythe.registry import ExperimentRegistry
    from scythe_catalog.schema import compile_model

    experiment = next((e for e in ExperimentRegistry.experiments() if e.target is what), None)
    if experiment is not None:
        schemas = experiment.schemas
        rows = [*_rows(schemas.input), *_rows(schemas.output)]
    elif isinstance(what, type) and issubclass(what, BaseModel):
        skip = ("dataframes",) if "dataframes" in what.model_fields else ()
        rows = _rows(compile_model(what, skip=skip, results=bool(skip)))
    else:
        raise NotFoundError(f"{what!r} is neither a model nor a registered experiment")
    names = ("model", "column", "type", "unit", "bounds", "default", "description")
    return pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row")


def _rows(compiled: CompiledModel) -> list[tuple[str | None, ...]]:

    fields = compiled.model.model_fields
    return [
        (
            compiled.model.__name__, column.name, column.kind.describe() + (" | None" if column.nullable else ""), column.unit,
            ", ".join(f"{_SIGNS.get(rule, rule + '=')} {limit}" for rule, limit in column.bounds.items()) or None,
            _default(fields[column.name]) if column.name in fields else "computed", column.doc,
        )
        for column in compiled.schema
        if column.name not in ID_LEVELS
    ]  # fmt: skip


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    return "made anew for each" if field.default_factory is not None else repr(field.default)


__all__ = ["columns_of"]
