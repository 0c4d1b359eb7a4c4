"""The index levels of a run's tables: which columns say to which input a row belongs. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from pydantic import BaseModel

from scythe.layout import ID_LEVELS
from scythe_catalog.schema import compile_model
from scythe_catalog.schema.kinds import Uri

#: The spec that a function is running on, and its file references as they were given before they became local copies.
running_on: ContextVar[tuple[object, Mapping[str, str | None]] | None] = ContextVar("running_on", default=None)


def level_names(model: type[BaseModel]) -> tuple[str, ...]:
    """The levels that come from fields: the four identifiers, then every scalar input field."""
    schema = compile_model(model).schema
    return ID_LEVELS + tuple(c.name for c in schema if c.kind.flat and c.name not in ID_LEVELS)


def index_values(spec: BaseModel, computed: Mapping[str, Any]) -> dict[str, Any]:
    """Level -> value of one input and its computed features: stored values, with file references as the URIs that were given."""
    schema = compile_model(type(spec)).schema
    current = running_on.get()
    given = current[1] if current is not None and current[0] is spec else {}
    values: dict[str, Any] = {}
    for name in level_names(type(spec)):
        value = getattr(spec, name)
        if isinstance(schema[name].kind, Uri):
            value = given.get(name) or (None if value is None else str(value))
        elif schema[name].kind.name == "category":
            value = schema[name].kind.dump([value])[0]
        values[name] = value
    return values | dict(computed)
