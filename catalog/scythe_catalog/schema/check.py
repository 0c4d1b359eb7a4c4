"""Holds columns against a schema: a frame's types, then the bounds that the model declares.

By column wherever the model's rules are declarative; by pydantic, row by row, where the model has
validators of its own or nested types. Never changes a value beyond a lossless cast.
"""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from scythe_catalog.compute import pc
from scythe_catalog.errors import DataError
from scythe_catalog.schema import kinds as k
from scythe_catalog.schema.compile import CompiledModel
from scythe_catalog.schema.convert import MISFIT, column_to_arrow, models_to_arrow
from scythe_catalog.schema.problems import Problem, raise_problems
from scythe_catalog.schema.table_schema import Column, TableSchema

_BATCH = 10_000


def conform(table: pa.Table, compiled: CompiledModel) -> pa.Table:
    """A user's table in the schema's own types and order, defaults filled in, every rule of the model checked.

    Raises:
        DataError: unknown, missing or mistyped columns, or values that break a rule: all of them, with row numbers.
    """
    table = _by_field_name(table, compiled)
    fields = compiled.model.model_fields
    problems = [*_unknown(table, compiled), *_missing(table, fields)]
    raise_problems(compiled.model.__name__, problems)
    if not compiled.declarative or _needs_rows(table, fields):
        return _through_pydantic(table, compiled)
    arrays: list[pa.ChunkedArray | pa.Array] = []
    for column in compiled.schema:
        try:
            if column.name in table.column_names:
                arrays.append(_accept(column, table.column(column.name)))
            else:
                arrays.append(_defaults(column, fields[column.name], table.num_rows))
        except DataError as error:
            problems += [p for p in error.problems if isinstance(p, Problem)]
    raise_problems(compiled.model.__name__, problems)
    conformed = pa.table(arrays, schema=compiled.schema.arrow)
    check_bounds(conformed, compiled.schema, what=compiled.model.__name__)
    return conformed


def check_bounds(table: pa.Table, schema: TableSchema, *, what: str) -> None:
    """Every declared bound on every column.

    Raises:
        DataError: which column breaks which bound in which rows.
    """
    problems: list[Problem] = []
    for column in schema:
        values = table.column(column.name)
        for rule, broken in _broken(column, values):
            rows = pc.indices_nonzero(broken).to_pylist()
            got = values[rows[0]].as_py()
            problems.append(Problem(column.name, f"must be {rule}, got {got!r}", tuple(rows)))
    raise_problems(what, problems)


def _broken(column: Column, values: pa.ChunkedArray) -> Iterator[tuple[str, pa.ChunkedArray]]:
    """Each rule that is broken, as words and as a mask of the rows that break it."""
    compare = {
        "ge": (pc.greater_equal, ">="),
        "gt": (pc.greater, ">"),
        "le": (pc.less_equal, "<="),
        "lt": (pc.less, "<"),
    }
    for name, bound in column.bounds.items():
        match name:
            case "ge" | "gt" | "le" | "lt" if column.kind.flat:
                function, sign = compare[name]
                held, rule = function(values, _bound(column.kind, bound)), f"{sign} {bound}"
            case "min_length" | "max_length":
                at_least = name == "min_length"
                held = (pc.greater_equal if at_least else pc.less_equal)(_length(values), bound)
                rule = f"{'at least' if at_least else 'at most'} {bound} long"
            case "pattern" if column.kind == k.Str():
                text = getattr(bound, "pattern", bound)
                held, rule = pc.match_substring_regex(values, text), f"text that matches {text!r}"
            case "finite":
                held, rule = pc.is_finite(values), "a finite number"
            case _:
                continue
        if pc.any(pc.invert(held)).as_py():
            yield rule, pc.fill_null(pc.invert(held), False)
    if isinstance(column.kind, k.Int) and column.kind.choices is not None:
        held = pc.is_in(values, pa.array(column.kind.choices, pa.int64()), skip_nulls=True)
        outside = pc.and_(pc.invert(held), pc.is_valid(values))
        if pc.any(outside).as_py():
            yield f"one of {', '.join(map(str, column.kind.choices))}", outside


def _bound(kind: k.Kind, bound: Any) -> pa.Scalar:
    if isinstance(kind, k.Int):
        return pa.scalar(bound)  # a bound may be a float, and lies between two integers then
    if isinstance(kind, k.Decimal):
        return pa.scalar(bound)
    return kind.array([bound])[0]


def _length(values: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_string(values.type):
        return pc.utf8_length(values)
    if pa.types.is_binary(values.type):
        return pc.binary_length(values)
    if pa.types.is_map(values.type):
        values = values.cast(pa.list_(pa.struct([values.type.key_field, values.type.item_field])))
    return pc.list_value_length(values)


def _by_field_name(table: pa.Table, compiled: CompiledModel) -> pa.Table:
    known: dict[str, str] = {}
    for name, info in compiled.model.model_fields.items():
        for alias in (info.alias, info.validation_alias):
            if isinstance(alias, str):
                known[alias] = name
    return table.rename_columns([known.get(c, c) if c not in compiled.schema else c for c in table.column_names])


def _unknown(table: pa.Table, compiled: CompiledModel) -> Iterator[Problem]:
    twice = {c for c in table.column_names if table.column_names.count(c) > 1}
    for name in sorted(twice):
        yield Problem(name, "stands twice in the frame")
    for name in table.column_names:
        if name in compiled.schema or name in twice:
            continue
        near = difflib.get_close_matches(name, compiled.schema.names, 1, 0.5)
        hint = f"; did you mean {near[0]!r}?" if near else f"; its fields are {', '.join(compiled.schema.names)}"
        way = " (to carry values beyond the fields, pass models instead of a frame)" if compiled.allows_extra else ""
        yield Problem(name, f"is not a field of {compiled.model.__name__}{hint}{way}")


def _missing(table: pa.Table, fields: dict[str, FieldInfo]) -> Iterator[Problem]:
    for name, info in fields.items():
        if info.is_required() and name not in table.column_names:
            yield Problem(name, "is missing: it is required and has no default")


def _needs_rows(table: pa.Table, fields: dict[str, FieldInfo]) -> bool:
    return any(
        info.default_factory_takes_validated_data for name, info in fields.items() if name not in table.column_names
    )


def _defaults(column: Column, info: FieldInfo, rows: int) -> pa.Array:
    if info.default_factory is not None:
        return column_to_arrow(column, [info.get_default(call_default_factory=True) for _ in range(rows)])
    return pa.repeat(column_to_arrow(column, [info.get_default()])[0], rows)


def _accept(column: Column, values: pa.ChunkedArray) -> pa.ChunkedArray:
    """One of the user's columns in the schema's type, by lossless casts alone."""
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    expected = f"must be {column.kind.describe()}"
    if not _may_hold(column.kind, values.type):
        raise_problems(None, [Problem(column.name, f"{expected}, the column holds {values.type}")])
    if values.null_count and not column.nullable:
        rows = pc.indices_nonzero(pc.is_null(values)).to_pylist()
        raise_problems(None, [Problem(column.name, "must not be null", tuple(rows))])
    try:
        return _cast(column.kind, values)
    except MISFIT:
        return pa.chunked_array([column_to_arrow(column, _python(column.kind, values))], column.kind.storage)


def _cast(kind: k.Kind, values: pa.ChunkedArray) -> pa.ChunkedArray:
    if isinstance(kind, k.Duration):
        return values.cast(pa.duration("us")).cast(pa.int64())
    if isinstance(kind, k.Category):
        if not pa.types.is_string(values.type):
            values = values.cast(pa.string())
        inside = pc.is_in(values, pa.array(kind.values, pa.string()))
        if not pc.all(pc.or_(inside, pc.is_null(values)), min_count=0).as_py():
            raise ValueError("not a category")
    if isinstance(kind, k.Uuid):
        raise ValueError("one by one")
    return values.cast(kind.storage)


def _python(kind: k.Kind, values: pa.ChunkedArray) -> list[Any]:
    """Values one by one, so that the offending rows can be named."""
    listed = values.to_pylist()
    if isinstance(kind, k.Uuid):
        import uuid

        return [_attempt(uuid.UUID, v) for v in listed]
    return listed


def _attempt(convert: Any, value: Any) -> Any:
    try:
        return None if value is None else convert(value)
    except ValueError:
        return value


def _may_hold(kind: k.Kind, dtype: pa.DataType) -> bool:
    t = pa.types
    if t.is_null(dtype):
        return True
    text = t.is_string(dtype) or t.is_large_string(dtype) or t.is_string_view(dtype)
    match kind:
        case k.Bool():
            return t.is_boolean(dtype)
        case k.Int():
            return t.is_integer(dtype) or t.is_floating(dtype)
        case k.Float() | k.Decimal():
            return t.is_integer(dtype) or t.is_floating(dtype) or t.is_decimal(dtype)
        case k.Category():
            return text or t.is_integer(dtype)
        case k.Str() | k.Uri() | k.Uuid():
            return text
        case k.Bytes():
            return t.is_binary(dtype) or t.is_large_binary(dtype) or t.is_fixed_size_binary(dtype)
        case k.Date():
            return t.is_date(dtype) or (t.is_timestamp(dtype) and dtype.tz is None)
        case k.Time():
            return t.is_time(dtype)
        case k.Timestamp(aware):
            return t.is_timestamp(dtype) and (dtype.tz is not None) == aware
        case k.Duration():
            return t.is_duration(dtype)
        case _:
            return False


def _through_pydantic(table: pa.Table, compiled: CompiledModel) -> pa.Table:
    adapter: TypeAdapter[Any] = TypeAdapter(list[compiled.model])  # pyright: ignore[reportInvalidTypeForm]
    broken: dict[tuple[str, str], list[int]] = defaultdict(list)
    done: list[pa.Table] = []
    names = _populated_by(compiled)
    table = table.rename_columns([names.get(c, c) for c in table.column_names])
    start = 0
    for batch in table.to_batches(max_chunksize=_BATCH):
        rows = [_plain_maps(row, batch.schema) for row in batch.to_pylist()]
        try:
            models = adapter.validate_python(rows)
        except ValidationError as error:
            for e in error.errors(include_url=False):
                at, *where = e["loc"]
                broken[".".join(map(str, where)) or compiled.model.__name__, e["msg"]].append(start + int(at))
        else:
            if not broken:
                done.append(models_to_arrow(models, compiled))
        start += batch.num_rows
    raise_problems(
        compiled.model.__name__, [Problem(column, rule, tuple(rows)) for (column, rule), rows in broken.items()]
    )
    conformed = pa.concat_tables(done, promote_options="default") if done else compiled.schema.arrow.empty_table()
    check_bounds(conformed, compiled.schema, what=compiled.model.__name__)
    return conformed


def _populated_by(compiled: CompiledModel) -> dict[str, str]:
    """Field name -> the key under which the model takes it."""
    keys: dict[str, str] = {}
    by_name = compiled.model.model_config.get("validate_by_name") or compiled.model.model_config.get("populate_by_name")
    for name, info in compiled.model.model_fields.items():
        alias = info.validation_alias if isinstance(info.validation_alias, str) else info.alias
        if alias and not by_name:
            keys[name] = alias
    return keys


def _plain_maps(row: dict[str, Any], schema: pa.Schema) -> dict[str, Any]:
    """Arrow gives a map as a list of pairs; pydantic wants a dict."""
    for f in schema:
        if pa.types.is_map(f.type) and row[f.name] is not None:
            row[f.name] = dict(row[f.name])
    return row
