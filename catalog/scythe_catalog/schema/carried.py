"""What instances carry beside their fields, extra values and private attributes: it arrives as it was given, or is refused.

Extra values are stored as JSON, private attributes not at all: an instance that comes back sets its own.
Never looks at a field's value.
"""

from __future__ import annotations

import math
import pickle
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from scythe_catalog.schema import kinds as k
from scythe_catalog.schema.problems import Problem
from scythe_catalog.schema.table_schema import TableSchema


def extra_problems(extras: Sequence[Mapping[str, Any] | None]) -> Iterator[Problem]:
    """The extra values that would come back from JSON as others, or as values of another type."""
    found: dict[str, list[int]] = defaultdict(list)
    first: dict[str, Any] = {}
    for i, extra in enumerate(extras):
        for name, value in (extra or {}).items():
            if not is_json(value):
                first.setdefault(name, value)
                found[name].append(i)
    for name, rows in found.items():
        value = first[name]
        yield Problem(
            name,
            f"values beyond the fields are stored as JSON, from which {str(value)[:80]!r} ({type(value).__name__}) "
            "would not come back as it is: make it a field of the model",
            tuple(rows),
        )


def is_json(value: Any) -> bool:
    """Whether a value comes back from JSON equal and of the same type."""
    python = type(value)
    if value is None or python is bool or python is int:
        return True
    if python is float:
        return math.isfinite(value)
    if python is str:
        return _is_unicode(value)
    if python is list:
        return all(map(is_json, value))
    return python is dict and all(type(key) is str and _is_unicode(key) and is_json(v) for key, v in value.items())


def _is_unicode(text: str) -> bool:
    return text.isascii() or text == text.encode("utf-8", "replace").decode()


def has_privates(model: type[BaseModel], schema: TableSchema) -> bool:
    """Whether instances, or those that they hold, have private attributes."""
    return bool(model.__private_attributes__) or any(_private_kind(c.kind) for c in schema)


def _private_kind(kind: k.Kind) -> bool:
    model = kind.python if isinstance(kind, k.Struct) else None
    own = model is not None and issubclass(model, BaseModel) and model.__private_attributes__
    return bool(own) or any(_private_kind(part) for _, part in kind.parts)


def private_problems(given: Sequence[BaseModel], back: Sequence[BaseModel]) -> Iterator[Problem]:
    """The private attributes that instances which come back have not as they were given."""
    found: dict[str, list[int]] = defaultdict(list)
    for i, (one, other) in enumerate(zip(given, back, strict=True)):
        theirs = dict(_privates(other, ""))
        for name, value in _privates(one, ""):
            if name not in theirs or not _alike(value, theirs[name]):
                found[name].append(i)
    for name, rows in found.items():
        yield Problem(
            name,
            "private attributes are not stored, and this one has another value than a new instance gives it: "
            "make it a field, or set it in model_post_init",
            tuple(rows),
        )


def _privates(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, BaseModel):
        for name, private in (value.__pydantic_private__ or {}).items():
            yield path + name, private
        for name in type(value).model_fields:
            yield from _privates(value.__dict__.get(name), f"{path}{name}.")
    elif isinstance(value, Mapping):
        for key, item in value.items():  # pyright: ignore[reportUnknownVariableType]
            yield from _privates(item, f"{path}{key}.")
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
            yield from _privates(item, f"{path}{i}.")


def _alike(one: Any, other: Any) -> bool:
    """Whether two values are the same to a function that gets either."""
    if type(one) is not type(other):
        return False
    if one is other or _quietly(lambda: bool(one == other)):
        return True
    same_state = _quietly(lambda: pickle.dumps(one) == pickle.dumps(other))
    without_state = type(one).__eq__ is object.__eq__ and not getattr(one, "__dict__", None)  # a lock, say
    return same_state or without_state


def _quietly(ask: Callable[[], bool]) -> bool:
    """The answer; no where asking raises, as it may for any object of a user's."""
    try:
        return ask()
    except Exception:  # noqa: BLE001 - whatever a class raises when it is compared or pickled, the two are not the same
        return False
