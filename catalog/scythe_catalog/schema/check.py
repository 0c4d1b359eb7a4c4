"""Holds a user's frame against a schema: types, nulls, then every rule of the model.

By column wherever the model's rules are declarative; by pydantic, row by row, where the model has
validators of its own, nested types or defaults of each row. Either way the answer is the one that
models of the same values get. Never changes a value beyond a lossless cast.
"""

from __future__ import annotations

import difflib
import itertools
import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa
from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from scythe_catalog.compute import pc
from scythe_catalog.errors import DataError
from scythe_catalog.schema import kinds as k
from scythe_catalog.schema.bounds import check_bounds
from scythe_catalog.schema.compile import CompiledModel
from scythe_catalog.schema.convert import MISFIT, column_to_arrow, models_to_arrow
from scythe_catalog.schema.lift import Frame, alias_paths, aliases, holds, lifted, lifted_objects, misfit
from scythe_catalog.schema.problems import Problem, of_another_type, raise_problems
from scythe_catalog.schema.stored import check_digits
from scythe_catalog.schema.strangers import paths_into, strangers_of_type, strangers_of_values
from scythe_catalog.schema.table_schema import Column

_BATCH = 10_000
_NAMED_ROWS = 1000
#: Bounds that NaN does not keep.
_REFUSE_NAN = {"ge", "gt", "le", "lt", "finite"}


def conform(given: Frame | pa.Table, compiled: CompiledModel, unnamed: Collection[str] = ()) -> pa.Table:
    """A user's table in the schema's own types and order, defaults filled in, every rule of the model checked.

    A message that lists the model's fields leaves out the `unnamed`, which its user did not write.

    Raises:
        DataError: unknown, missing or mistyped columns, or values that break a rule: all of them, with row numbers.
    """
    frame = given if isinstance(given, Frame) else Frame(given)
    raise_problems(compiled.model.__name__, [*_of_two_fields(frame, compiled)])
    frame = _by_field_name(frame, compiled)
    fields = compiled.model.model_fields
    misnamed = [*_unknown(frame, compiled, unnamed), *_by_path(frame, compiled), *_missing(frame, fields)]
    if len({*frame.table.column_names}) < frame.table.num_columns:
        raise_problems(compiled.model.__name__, misnamed)
    frame = _without_gaps(frame, compiled)
    problems = [*misnamed, *_mistyped(frame, compiled)]
    if frame.objects or not compiled.declarative or _needs_rows(frame, compiled):
        raise_problems(compiled.model.__name__, problems)
        return _through_pydantic(frame, compiled)
    left_out = {problem.column for problem in problems}
    arrays: dict[str, pa.ChunkedArray | pa.Array] = {}
    given_columns = dict(zip(frame.table.column_names, frame.table.columns, strict=True))
    for column in compiled.schema:
        if column.name in left_out:
            continue
        try:
            if column.name in given_columns:
                arrays[column.name] = _accept(column, given_columns[column.name])
            else:
                arrays[column.name] = _defaults(column, fields[column.name], frame.rows)
        except DataError as error:
            problems += (found := [p for p in error.problems if isinstance(p, Problem)])
            if column.name not in given_columns:
                continue
            try:  # what is null where it must not be does not hide the others
                arrays[column.name] = _accept(replace(column, nullable=True), given_columns[column.name])
            except DataError as other:
                problems += [p for p in other.problems if isinstance(p, Problem) and p not in found]
    try:
        check_bounds(pa.table(arrays), compiled.schema.select(arrays), what=compiled.model.__name__)
    except DataError as error:
        problems += [p for p in error.problems if isinstance(p, Problem)]
    raise_problems(compiled.model.__name__, problems)
    return pa.table([*arrays.values()], schema=compiled.schema.arrow)


# --- columns ------------------------------------------------------------------------------------------


def _of_two_fields(frame: Frame, compiled: CompiledModel) -> Iterator[Problem]:
    """Columns whose name is that of one field, and another's alias: Pydantic takes them for the other, tables for the one.

    And fields that stand there under two of their names: one of the values would be dropped.
    """
    for name in frame.names:
        other = next(
            (f for f, info in compiled.model.model_fields.items() if f != name and name in aliases(info)), None
        )
        if other is not None and name in compiled.model.model_fields:
            yield Problem(name, f"is a field, and the alias of {other!r}, too: give models, or another alias")
    given, known = set(frame.names), _names_of_fields(compiled)
    for own in compiled.model.model_fields:
        names = [name for name in (own, *(alias for alias, of in known.items() if of == own)) if name in given]
        if len(names) > 1:
            yield Problem(own, f"is given twice, as {' and '.join(map(repr, names))}: give it under one name")


def _names_of_fields(compiled: CompiledModel) -> dict[str, str]:
    """Alias -> field, of those aliases that are no field's own name."""
    fields = compiled.model.model_fields.items()
    return {alias: name for name, info in fields for alias in aliases(info) if alias not in compiled.schema}


def _by_field_name(frame: Frame, compiled: CompiledModel) -> Frame:
    known = _names_of_fields(compiled)
    return Frame(
        frame.table.rename_columns([known.get(c, c) for c in frame.table.column_names]),
        {known.get(name, name): values for name, values in frame.objects.items()},
        frozenset(known.get(name, name) for name in frame.gaps),
        frame.is_pandas,
        {known.get(name, name): rows for name, rows in frame.lacking.items()},
    )


def _paths(compiled: CompiledModel) -> set[str]:
    """Columns out of which the model itself takes fields, by the path of an alias."""
    found = {str(alias.path[0]) for info in compiled.model.model_fields.values() for alias in alias_paths(info)}
    return found - set(compiled.schema.names)


def _unknown(frame: Frame, compiled: CompiledModel, unnamed: Collection[str]) -> Iterator[Problem]:
    seen: set[str] = set()
    twice = {name for name in frame.names if name in seen or seen.add(name)}
    for name in sorted(twice):
        yield Problem(name, "stands twice in the frame")
    paths, fields = _paths(compiled), [name for name in compiled.schema.names if name not in unnamed]
    for name in seen - twice - paths - set(compiled.schema.names):
        if (by_reader := _by_reader(name, seen)) is not None:
            yield by_reader
            continue
        near = difflib.get_close_matches(name, compiled.schema.names, 1, 0.5)
        hint = f"; did you mean {near[0]!r}?" if near else f"; its fields are {', '.join(fields)}"
        way = " (to carry values beyond the fields, pass models instead of a frame)" if compiled.allows_extra else ""
        yield Problem(name, f"is not a field of {compiled.model.__name__}{hint}{way}")


def _by_reader(name: str, names: Collection[str]) -> Problem | None:
    """What is told of a column that the file had under no name, or twice: libraries that read tables name it by themselves."""
    of, is_second, number = name.rpartition("_duplicated_")
    if is_second and number.isdecimal() and of in names and of:
        return Problem(of, f"stands twice in the file: Polars calls the second {name!r}")
    if not name or (is_second and not of and number.isdecimal()) or re.fullmatch(r"Unnamed: \d+", name):
        why = "pandas writes its index so, and a comma at the end of each line makes one"
        return Problem(name or "''", f"is a column that has no name in its file: {why}; drop it")
    return None


def _by_path(frame: Frame, compiled: CompiledModel) -> Iterator[Problem]:
    """Columns that a model of the same values would pass over: it takes the field by the path of an alias alone."""
    config, there = compiled.model.model_config, set(frame.names)
    if config.get("populate_by_name") or config.get("validate_by_name"):
        return
    for name, info in compiled.model.model_fields.items():
        paths = alias_paths(info)
        if name in there and paths and not aliases(info):
            path = ".".join(map(str, paths[0].path))
            yield Problem(
                name, f"is taken from {path} alone: give {paths[0].path[0]!r}, or let the model populate_by_name"
            )


def _missing(frame: Frame, fields: dict[str, FieldInfo]) -> Iterator[Problem]:
    there = set(frame.names)
    for name, info in fields.items():
        by_path = any(alias.path[0] in there for alias in alias_paths(info))
        if info.is_required() and name not in there and not by_path:
            yield Problem(name, "is missing: it is required and has no default")


def _needs_rows(frame: Frame, compiled: CompiledModel) -> bool:
    there = set(frame.names)
    absent = [info for name, info in compiled.model.model_fields.items() if name not in there]
    return any(i.default_factory_takes_validated_data for i in absent) or bool(there & _paths(compiled))


def _without_gaps(frame: Frame, compiled: CompiledModel) -> Frame:
    """The frame with null in place of NaN, where that means nothing: no float, or none that the model takes."""
    table = frame.table
    for name in frame.gaps & set(compiled.schema.names):
        column, values = compiled.schema[name], table.column(name)
        storage = column.kind.storage
        if pa.types.is_floating(storage) and not (column.nullable and _REFUSE_NAN & column.bounds.keys()):
            continue  # NaN is a float
        values = pc.if_else(pc.is_nan(values), None, values)
        if values.null_count == len(values):
            values = pa.nulls(len(values))
        elif not (pa.types.is_floating(storage) or pa.types.is_decimal(storage)):
            whole = pc.and_(pc.equal(pc.trunc(values), values), pc.less(pc.abs(values), 2.0**53))
            if pc.all(whole, min_count=0).as_py():
                values = values.cast(pa.int64())  # they are floats only because of the gaps
        table = table.set_column(table.column_names.index(name), name, values)
    return replace(frame, table=table)


def _mistyped(frame: Frame, compiled: CompiledModel) -> Iterator[Problem]:
    """Columns whose type says already that they are not what the model means."""
    for name, values in zip(frame.table.column_names, frame.table.columns, strict=True):
        if name not in compiled.schema or name in compiled.loose:
            continue
        kind = compiled.schema[name].kind
        if not holds(kind, values.type):
            yield of_another_type(name, values, kind, is_pandas=frame.is_pandas)
            continue
        yield from strangers_of_type(name, kind, values.type, paths_into(compiled.model, name))
    for name, values in frame.objects.items():
        if name not in compiled.schema or name in compiled.loose:
            continue
        kind = compiled.schema[name].kind
        found = misfit(kind, values)
        if found is not None:
            rows = [i for i, v in enumerate(values) if v is found]
            yield Problem(
                name, f"must be {kind.describe()}: got {str(found)[:80]!r} ({type(found).__name__})", tuple(rows)
            )
            continue
        yield from strangers_of_values(name, kind, values, paths_into(compiled.model, name))


def _defaults(column: Column, info: FieldInfo, rows: int) -> pa.Array:
    made = [info.get_default(call_default_factory=True) for _ in range(rows if info.default_factory is not None else 1)]
    try:
        found = column_to_arrow(column, made)
    except DataError:  # pydantic asks nothing of defaults
        told = f"has the default {made[0]!r}, and must be {column.kind.describe()}: give the column, or another default"
        raise_problems(None, [Problem(column.name, told)])
        raise
    return found if len(made) == rows else pa.repeat(found[0], rows)


def _accept(column: Column, values: pa.ChunkedArray) -> pa.ChunkedArray:
    """One of the user's columns in the schema's type, by lossless casts alone."""
    if pa.types.is_run_end_encoded(values.type):  # which Arrow casts to nothing
        values = pc.run_end_decode(values)
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    expected = f"must be {column.kind.describe()}"
    if values.null_count and not column.nullable:
        rows = pc.indices_nonzero(pc.is_null(values)).to_pylist()
        raise_problems(None, [Problem(column.name, "must not be null", tuple(rows))])
    try:
        check_digits(values)
        return column.kind.cast(values)
    except MISFIT as error:
        rows = list(itertools.islice(_failing(column.kind, values, 0), _NAMED_ROWS))
        got = _shown(values[rows[0]], error) if rows else str(error)
        raise_problems(None, [Problem(column.name, f"{expected}: got {got[:80]!r}", tuple(rows))])
        raise


def _shown(value: pa.Scalar[Any], misfit: Exception) -> str:
    """A value in words. Nanoseconds are Arrow's to write: Python's own types do not hold them."""
    try:
        return str(value.as_py())
    except (ValueError, OverflowError):
        try:
            return str(misfit) if pa.types.is_nested(value.type) else str(value.cast(pa.string()))
        except pa.ArrowException:
            return str(misfit)


def _failing(kind: k.Kind, values: pa.ChunkedArray, start: int) -> Iterator[int]:
    """The rows that no lossless cast brings into the column, found by halving."""
    try:
        kind.cast(values)
    except MISFIT:
        if len(values) == 1:
            yield start
            return
        half = len(values) // 2
        yield from _failing(kind, values.slice(0, half), start)
        yield from _failing(kind, values.slice(half), start + half)


# --- rows ---------------------------------------------------------------------------------------------


def _through_pydantic(frame: Frame, compiled: CompiledModel) -> pa.Table:
    adapter: TypeAdapter[Any] = TypeAdapter(list[compiled.model])  # pyright: ignore[reportInvalidTypeForm]
    broken: dict[tuple[str, str], list[int]] = defaultdict(list)
    first: dict[tuple[str, str], str] = {}
    done: list[pa.Table] = []
    keys = _populated_by(compiled)
    never_null = {column.name for column in compiled.schema if not column.nullable} - {*compiled.loose}
    for start in range(0, frame.rows, _BATCH):
        columns = _python_columns(frame, compiled, start)
        names = [keys.get(name, name) for name in columns]
        names_of = {shown: name for shown, name in zip(names, columns, strict=True) if name in compiled.schema}
        rows = [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        for name, lacking in frame.lacking.items():
            for row in lacking[bisect_left(lacking, start) : bisect_left(lacking, start + _BATCH)]:
                del rows[row - start][keys.get(name, name)]
        try:
            models = adapter.validate_python(rows, by_alias=True, by_name=True)
        except ValidationError as error:
            for e in error.errors(include_url=False):
                at, *where = e["loc"]
                name = names_of.get(str(where[0])) if where else None
                told = e["msg"] if name is None else _each_once(compiled.schema[name].kind, e["msg"])
                rule = ".".join(map(str, where)) or compiled.model.__name__, told
                got = f", got {e['input']!r}"[:80] if where else ""
                if name is not None and columns[name][int(at)] is None and name in never_null:
                    rule, got = (name, "must not be null"), ""  # once, whatever kinds of values it might have been
                if rule not in broken:
                    first[rule] = got
                if (row := start + int(at)) not in broken[rule][-1:]:
                    broken[rule].append(row)
        else:
            if not broken:
                done.append(models_to_arrow(models, compiled))
    raise_problems(
        compiled.model.__name__, [Problem(rule[0], rule[1] + first[rule], tuple(rows)) for rule, rows in broken.items()]
    )
    conformed = pa.concat_tables(done, promote_options="default") if done else compiled.schema.arrow.empty_table()
    check_bounds(conformed, compiled.schema, what=compiled.model.__name__)
    return conformed


def _each_once(kind: k.Kind, told: str) -> str:
    """What pydantic says of a value that no member of an Enum has: it names the values of members that are one under two names twice."""
    if isinstance(kind, k.Category) and kind.python is not None:
        values = [repr(member.value) for member in kind.python.__members__.values()]
        return told.replace(_or(values), _or(list(dict.fromkeys(values))))
    for _, part in kind.parts:
        told = _each_once(part, told)
    return told


def _or(words: list[str]) -> str:
    return " or ".join([", ".join(words[:-1]), *words[-1:]] if len(words) > 1 else words)


def _populated_by(compiled: CompiledModel) -> dict[str, str]:
    """Field name -> the alias under which the model looks first, which may be the name of another field."""
    return {name: found[0] for name, info in compiled.model.model_fields.items() if (found := aliases(info))}


def _python_columns(frame: Frame, compiled: CompiledModel, start: int) -> dict[str, list[Any]]:
    """The values of some rows, a list a column, as pydantic takes them."""
    columns: dict[str, list[Any]] = {}
    for name, values in zip(frame.table.column_names, frame.table.columns, strict=True):
        part = values.slice(start, _BATCH).combine_chunks()
        kind = compiled.schema[name].kind if name in compiled.schema else k.Str()
        try:
            columns[name] = lifted(kind, part, strict=name in compiled.strict)
        except MISFIT as error:  # nanoseconds, say
            raise_problems(compiled.model.__name__, [Problem(name, f"must be {kind.describe()}: {error}")])
            raise
    for name, values in frame.objects.items():
        kind = compiled.schema[name].kind if name in compiled.schema else k.Str()
        try:
            columns[name] = lifted_objects(kind, values[start : start + _BATCH], strict=name in compiled.strict)
        except MISFIT as error:
            raise_problems(compiled.model.__name__, [Problem(name, f"must be {kind.describe()}: {error}")])
            raise
    return columns
