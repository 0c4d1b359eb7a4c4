"""Copies of what a function returned and may change for its next input: lists, dicts, sets, nested models.

Values that nobody can change are kept as they are. Checks nothing: what is no value of its column is told later.
"""

from __future__ import annotations

import copy
import datetime as dt
import uuid
from collections.abc import Callable
from decimal import Decimal
from operator import itemgetter
from pathlib import PurePath
from typing import Any

from pydantic import BaseModel

from scythe.errors import OutputError
from scythe_catalog.schema import CompiledModel

_FIXED = frozenset({
    type(None), bool, int, float, complex, str, bytes,
    dt.date, dt.datetime, dt.time, dt.timedelta, Decimal, uuid.UUID,
})  # fmt: skip


def picker(compiled: CompiledModel) -> Callable[[Any], tuple[Any, ...]]:
    """Takes the values of a model's columns out of an instance, as they are now: a later change leaves them alone.

    What it gives raises OutputError where a value can be copied by nobody, as those of a generator.
    """
    names, computed, columns = compiled.fields.names, compiled.computed, compiled.schema.names
    nested = [i for i, column in enumerate(compiled.schema) if not column.kind.flat]
    if not computed and not nested:
        return _plain(names)

    def copied(output: Any) -> tuple[Any, ...]:
        values: dict[str, Any] = output.__dict__
        taken = [values[name] for name in names]
        taken += [getattr(output, name) for name in computed]
        for i in nested:
            try:
                taken[i] = as_it_is(taken[i])
            except Exception as error:  # whatever an object says that can be copied by nobody
                column = compiled.schema[columns[i]]
                raise OutputError(
                    f"the output holds {column.name}={taken[i]!r:.80}, which cannot be kept as it is now ({error}): "
                    f"give a {column.kind.describe()}, which is what its field holds"
                ) from error
        return tuple(taken)

    return copied


def _plain(names: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    """Takes values that nobody can change; `itemgetter` gives a tuple of two or more alone."""
    if len(names) == 1:
        (name,) = names
        return lambda output: (output.__dict__[name],)
    if not names:
        return lambda _: ()
    pick = itemgetter(*names)
    return lambda output: pick(output.__dict__)


def as_it_is(value: Any) -> Any:
    """The value, or a copy of it where something in it can change."""
    kind = type(value)
    if kind in _FIXED:
        return value
    if kind is list:
        return list(value) if _fixed(value) else [as_it_is(v) for v in value]
    if kind is dict:
        return dict(value) if _fixed(value.values()) else {name: as_it_is(v) for name, v in value.items()}
    if kind in (set, frozenset, tuple):
        return kind(value) if _fixed(value) else kind(map(as_it_is, value))
    if isinstance(value, BaseModel):
        held = {**vars(value), **(value.__pydantic_extra__ or {})}
        return value.model_copy(update={name: as_it_is(v) for name, v in held.items()})
    if isinstance(value, PurePath):
        return value
    return copy.deepcopy(value)


def _fixed(values: Any) -> bool:
    return set(map(type, values)) <= _FIXED


__all__ = ["as_it_is", "picker"]
