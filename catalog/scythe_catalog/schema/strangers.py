"""Names within nested values that no field takes: pydantic would pass over them, and take a default in place of what is misspelt.

Never looks at the columns of a frame themselves: `check` does.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import BaseModel

from scythe_catalog.schema import kinds as k
from scythe_catalog.schema.lift import alias_paths, members_of, pairs_of, root_of
from scythe_catalog.schema.problems import Problem


def strangers_of_type(column: str, kind: k.Kind, dtype: pa.DataType) -> Iterator[Problem]:
    """Of a column of Arrow, whose type has all names."""
    if pa.types.is_dictionary(dtype) or pa.types.is_run_end_encoded(dtype):
        yield from strangers_of_type(column, kind, dtype.value_type)
        return
    match kind:
        case k.List(item) if k.is_list(dtype):
            yield from strangers_of_type(column, item, dtype.value_type)
        case k.Map(_, value) if pa.types.is_struct(dtype):
            for field in dtype:
                yield from strangers_of_type(f"{column}.{field.name}", value, field.type)
        case k.Map(_, value) if (pair := pairs_of(dtype)) is not None:
            yield from strangers_of_type(column, value, pair[1].type)
        case k.Struct(members, python=None) if k.is_list(dtype):
            for member in members:
                yield from strangers_of_type(column, member.kind, dtype.value_type)
        case k.Struct() if pa.types.is_struct(dtype):
            known, root = members_of(kind), root_of(kind)
            if root is not None and dtype.get_field_index("root") < 0:
                yield from strangers_of_type(column, root, dtype)
                return
            for field in dtype:
                if field.name in known:
                    yield from strangers_of_type(f"{column}.{field.name}", known[field.name], field.type)
                elif not _passed_over(kind, field.name):
                    yield _stranger(column, kind, field.name)
        case _:
            return


def strangers_of_values(column: str, kind: k.Kind, values: Collection[Any]) -> Iterator[Problem]:
    """Of a column of Python's own objects, with the rows that have them."""
    if not _has_model(kind):
        return
    found: dict[tuple[str, str], tuple[k.Struct, list[int]]] = {}
    for row, value in enumerate(values):
        for path, struct, name in _within(column, kind, value):
            rows = found.setdefault((path, name), (struct, []))[1]
            if not rows or rows[-1] != row:
                rows.append(row)
    for (path, name), (struct, rows) in found.items():
        yield _stranger(path, struct, name, tuple(rows))


def _has_model(kind: k.Kind) -> bool:
    return (isinstance(kind, k.Struct) and kind.python is not None) or any(_has_model(part) for _, part in kind.parts)


def _within(path: str, kind: k.Kind, value: Any) -> Iterator[tuple[str, k.Struct, str]]:
    match kind:
        case k.List(item) if (
            not item.flat and isinstance(value, Collection) and not isinstance(value, str | bytes | Mapping)
        ):
            for one in value:  # pyright: ignore[reportUnknownVariableType]
                yield from _within(path, item, one)
        case k.Map(_, item) if not item.flat and isinstance(value, Mapping):
            for name, one in value.items():
                yield from _within(f"{path}.{name}", item, one)
        case k.Struct(members, python=None) if isinstance(value, list | tuple | np.ndarray):
            for member, one in zip(members, value, strict=False):
                yield from _within(path, member.kind, one)
        case k.Struct() if isinstance(value, Mapping):
            known, root = members_of(kind), root_of(kind)
            if root is not None:
                yield from _within(path, root, value)
                return
            for name, one in value.items():
                if name in known:
                    yield from _within(f"{path}.{name}", known[name], one)
                elif not _passed_over(kind, name):
                    yield path, kind, str(name)
        case _:
            return


def _passed_over(kind: k.Struct, name: object) -> bool:
    """Whether a name is taken in another way, or the model says that any may be there."""
    model = kind.python
    if model is None or not issubclass(model, BaseModel) or model.model_config.get("extra") is not None:
        return True
    paths = {alias.path[0] for info in model.model_fields.values() for alias in alias_paths(info)}
    return name in paths or name in model.model_computed_fields


def _stranger(column: str, kind: k.Struct, name: str, rows: tuple[int, ...] = ()) -> Problem:
    known = [member.name for member in kind.members]
    near = difflib.get_close_matches(name, known, 1, 0.5)
    hint = f"; did you mean {near[0]!r}?" if near else f"; its fields are {', '.join(known)}"
    return Problem(
        f"{column}.{name}", f"is not a field of {kind.python.__name__ if kind.python else column}{hint}", rows
    )
