"""Names within nested values that no field takes: pydantic would pass over them, and take a default in place of what is misspelt.

Never looks at the columns of a frame themselves: `check` does.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import BaseModel

from scythe_catalog.schema import kinds as k
from scythe_catalog.schema.lift import alias_paths, aliases, fields_by_name, members_of, pairs_of, root_of
from scythe_catalog.schema.problems import Problem

#: Where models outside take fields of theirs from within a value: names, and places in lists, from there on.
Paths = tuple[tuple[str | int, ...], ...]
#: Is told of a stranger: the path of what holds it, that model, its name.
_Tell = Callable[[str, k.Struct, str], None]
_Look = Callable[[str, Any, _Tell], None]


def paths_into(model: type[BaseModel], field: str) -> Paths:
    """Where a model takes other fields from within the value of one."""
    names = {field, *aliases(model.model_fields[field])} if field in model.model_fields else {field}
    return tuple(tuple(path[1:]) for path in _paths(model) if path[0] in names and len(path) > 1)


def strangers_of_type(column: str, kind: k.Kind, dtype: pa.DataType, paths: Paths = ()) -> Iterator[Problem]:
    """Of a column of Arrow, whose type has all names."""
    if pa.types.is_dictionary(dtype) or pa.types.is_run_end_encoded(dtype):
        yield from strangers_of_type(column, kind, dtype.value_type, paths)
        return
    match kind:
        case k.List(item) if k.is_list(dtype):
            yield from strangers_of_type(column, item, dtype.value_type, _beyond(paths, None))
        case k.Map(_, value) if pa.types.is_struct(dtype):
            for field in dtype:
                yield from strangers_of_type(f"{column}.{field.name}", value, field.type, _beyond(paths, field.name))
        case k.Map(_, value) if (pair := pairs_of(dtype)) is not None:
            yield from strangers_of_type(column, value, pair[1].type, _beyond(paths, None))
        case k.Struct(members, python=None) if k.is_list(dtype):
            # One type for all places: a name is strange where none of them has it.
            found = [
                {p.column: p for p in strangers_of_type(column, m.kind, dtype.value_type, _beyond(paths, None))}
                for m in members
            ]
            yield from (problem for name, problem in found[0].items() if all(name in other for other in found))
        case k.Struct() if pa.types.is_struct(dtype):
            known, root = members_of(kind), root_of(kind)
            if root is not None and dtype.get_field_index("root") < 0:
                yield from strangers_of_type(column, root, dtype, paths)
                return
            for name in _again(fields_by_name(kind), [field.name for field in dtype]):
                yield _stranger(column, kind, name)
            for field in dtype:
                within = _within(kind, field.name, paths)
                if field.name in known:
                    yield from strangers_of_type(f"{column}.{field.name}", known[field.name], field.type, within)
                elif not _passed_over(kind, field.name, paths):
                    yield _stranger(column, kind, field.name)
        case _:
            return


def strangers_of_values(column: str, kind: k.Kind, values: Collection[Any], paths: Paths = ()) -> Iterator[Problem]:
    """Of a column of Python's own objects, with the rows that have them."""
    look = _looker(kind, paths)
    if look is None:
        return
    found: dict[tuple[str, str], tuple[k.Struct, list[int]]] = {}
    row = 0

    def tell(path: str, struct: k.Struct, name: str) -> None:
        rows = found.setdefault((path, name), (struct, []))[1]
        if row not in rows[-1:]:
            rows.append(row)

    for row, value in enumerate(values):  # noqa: B007 - `tell` reads it
        look(column, value, tell)
    for (path, name), (struct, rows) in found.items():
        yield _stranger(path, struct, name, tuple(rows))


def _looker(kind: k.Kind, paths: Paths) -> _Look | None:
    """What looks at one value of a kind; None where no model is within it."""
    match kind:
        case k.List(item):
            inner = _looker(item, _beyond(paths, None))
            return inner and _each(inner)
        case k.Map(_, item):
            inner = _looker(item, _beyond(paths, None))
            return inner and _each_named(inner)
        case k.Struct(members, python=None):
            return _places([_looker(member.kind, _beyond(paths, None)) for member in members])
        case k.Struct() if (root := root_of(kind)) is not None:
            return _looker(root, paths)
        case k.Struct():
            return _model(kind, paths)
        case _:
            return None


def _each(look: _Look) -> _Look:
    def looked(path: str, value: Any, tell: _Tell) -> None:
        if isinstance(value, Collection) and not isinstance(value, str | bytes | Mapping):
            for one in value:  # pyright: ignore[reportUnknownVariableType]
                look(path, one, tell)

    return looked


def _each_named(look: _Look) -> _Look:
    def looked(path: str, value: Any, tell: _Tell) -> None:
        if isinstance(value, Mapping):
            for name, one in value.items():
                look(f"{path}.{name}", one, tell)

    return looked


def _places(looks: list[_Look | None]) -> _Look | None:
    def looked(path: str, value: Any, tell: _Tell) -> None:
        if isinstance(value, list | tuple | np.ndarray):
            for look, one in zip(looks, value, strict=False):
                if look is not None:
                    look(path, one, tell)

    return looked if any(looks) else None


def _model(kind: k.Struct, paths: Paths) -> _Look:
    known = members_of(kind)
    within = {name: _looker(inner, _within(kind, name, paths)) for name, inner in known.items()}
    deeper = {name: look for name, look in within.items() if look is not None}
    fields = fields_by_name(kind) if len(known) > len(kind.members) else {}

    def looked(path: str, value: Any, tell: _Tell) -> None:
        if not isinstance(value, Mapping):
            return
        for name in _again(fields, value) if fields and len(value) > 1 else ():
            tell(path, kind, name)
        if not value.keys() <= known.keys():
            for name in value:
                if name not in known and not _passed_over(kind, name, paths):
                    tell(path, kind, str(name))
        for name, look in deeper.items():
            if name in value:
                look(f"{path}.{name}", value[name], tell)

    return looked


# --- what is taken in another way ---------------------------------------------------------------------


def _paths(model: type[BaseModel]) -> Iterable[list[str | int]]:
    return [alias.path for info in model.model_fields.values() for alias in alias_paths(info)]


def _beyond(paths: Paths, name: str | None) -> Paths:
    """The paths from one step on: to a name, or (None) to any element."""
    return tuple(path[1:] for path in paths if len(path) > 1 and (name is None or path[0] == name))


def _within(kind: k.Struct, name: str, paths: Paths) -> Paths:
    own = paths_into(kind.python, name) if kind.python is not None and issubclass(kind.python, BaseModel) else ()
    return (*_beyond(paths, name), *own)


def _passed_over(kind: k.Struct, name: object, paths: Paths) -> bool:
    """Whether a name is taken in another way, or the model says that any may be there."""
    model = kind.python
    if model is None or not issubclass(model, BaseModel) or model.model_config.get("extra") is not None:
        return True
    if model.__pydantic_decorators__.model_serializers:  # it says itself what is in what it is dumped to
        return True
    computed = {n for own, info in model.model_computed_fields.items() for n in (own, info.alias)}
    return name in computed or any(name == path[0] for path in (*_paths(model), *paths))


def _again(fields: Mapping[str, str], given: Iterable[Any]) -> Iterator[str]:
    """Those of some names that are another one of a field which is among them already: one of the values would be dropped."""
    seen = set[str]()
    for name in given:
        field = fields.get(name)
        if field in seen:
            yield name
        elif field is not None:
            seen.add(field)


def _stranger(column: str, kind: k.Struct, name: str, rows: tuple[int, ...] = ()) -> Problem:
    if (field := fields_by_name(kind).get(name)) is not None:
        return Problem(f"{column}.{field}", f"is given twice, once as {name!r}: give it under one name", rows)
    known = [member.name for member in kind.members]
    dumped = [own for own, info in _fields(kind).items() if info.serialization_alias == name]
    near = dumped or difflib.get_close_matches(name, known, 1, 0.5)
    hint = f"; did you mean {near[0]!r}?" if near else f"; its fields are {', '.join(known)}"
    return Problem(
        f"{column}.{name}", f"is not a field of {kind.python.__name__ if kind.python else column}{hint}", rows
    )


def _fields(kind: k.Struct) -> Mapping[str, Any]:
    model = kind.python
    return model.model_fields if model is not None and issubclass(model, BaseModel) else {}
