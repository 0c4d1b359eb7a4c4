"""Holds columns against a schema: a frame's types, then the bounds that the model declares.

By column wherever the model's rules are declarative; by pydantic, row by row, where the model has
validators of its own or nested types. Never changes a value beyond a lossless cast.
"""

from __future__ import annotations

import difflib
import itertools
import math
import uuid
from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import AliasChoices, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from scythe_catalog.compute import pc
from scythe_catalog.errors import DataError
from scythe_catalog.schema import kinds as k
from scythe_catalog.schema.compile import CompiledModel
from scythe_catalog.schema.convert import MISFIT, column_to_arrow, models_to_arrow
from scythe_catalog.schema.problems import Problem, raise_problems
from scythe_catalog.schema.table_schema import Column, TableSchema

_BATCH = 10_000
_NAMED_ROWS = 1000
_INT64 = np.iinfo(np.int64)


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
                held, rule = _held(function, name, column.kind, values, bound), f"{sign} {bound}"
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


def _held(function: Any, name: str, kind: k.Kind, values: pa.ChunkedArray, bound: Any) -> pa.ChunkedArray:
    """Where a bound holds, compared exactly; null where the value is null."""
    if isinstance(kind, k.Int):
        whole = {"ge": math.ceil, "gt": math.floor, "le": math.floor, "lt": math.ceil}[name](bound)
        clamped = min(max(whole, _INT64.min), _INT64.max)
        if whole != clamped:  # beyond what the column can hold: it holds for all values or for none
            always = (whole < 0) == (name in ("ge", "gt"))
            return pc.if_else(pc.is_valid(values), always, None)
        return function(values, pa.scalar(whole, pa.int64()))
    if isinstance(kind, k.Decimal):
        exact = Decimal(str(bound))
        scale = max(kind.scale, -int(exact.as_tuple().exponent), 0)
        wide = pa.decimal256(76, scale)
        return function(values.cast(wide), pa.scalar(exact, wide))
    return function(values, kind.array([bound])[0])


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
        known |= dict.fromkeys(_aliases(info), name)
    return table.rename_columns([known.get(c, c) if c not in compiled.schema else c for c in table.column_names])


def _aliases(info: FieldInfo) -> list[str]:
    """The plain names, beside its own, under which the model takes a field."""
    choices = (
        info.validation_alias.choices if isinstance(info.validation_alias, AliasChoices) else [info.validation_alias]
    )
    return [alias for alias in (*choices, info.alias) if isinstance(alias, str)]


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
    except MISFIT as error:
        rows = list(itertools.islice(_failing(column.kind, values, 0), _NAMED_ROWS))
        got = _shown(values[rows[0]], error) if rows else str(error)
        raise_problems(None, [Problem(column.name, f"{expected}: got {got[:80]!r}", tuple(rows))])
        raise


def _shown(value: pa.Scalar[Any], misfit: Exception) -> str:
    """A value in words. Nanoseconds are Arrow's to write: Python's own types do not hold them."""
    try:
        return str(value.as_py())
    except ValueError:
        return str(misfit) if pa.types.is_nested(value.type) else str(value.cast(pa.string()))


def _failing(kind: k.Kind, values: pa.ChunkedArray, start: int) -> Iterator[int]:
    """The rows that no lossless cast brings into the column, found by halving."""
    try:
        _cast(kind, values)
    except MISFIT:
        if len(values) == 1:
            yield start
            return
        half = len(values) // 2
        yield from _failing(kind, values.slice(0, half), start)
        yield from _failing(kind, values.slice(half), start + half)


def _cast(kind: k.Kind, values: pa.ChunkedArray) -> pa.ChunkedArray:
    """The values in the kind's storage type; raises where any would lose something."""
    match kind:
        case k.Duration():
            return values.cast(pa.duration("us")).cast(pa.int64())
        case k.Category():
            return _categories(kind, values)
        case k.Uuid():
            texts = [None if v is None else str(uuid.UUID(v)) for v in values.to_pylist()]
            return pa.chunked_array([pa.array(texts, pa.string())])
        case k.Uri():
            for text in pc.unique(values).drop_null().to_pylist():
                kind.restore(text)
            return values.cast(kind.storage)
        case k.Date() if pa.types.is_timestamp(values.type):
            return _exactly(values, values.cast(pa.date32()))
        case k.Decimal() if pa.types.is_integer(values.type):
            return values.cast(pa.decimal256(76, kind.scale)).cast(kind.storage)
        case k.Decimal() if pa.types.is_floating(values.type):
            return _exactly(values, values.cast(kind.storage))
        case _:
            return values.cast(kind.storage)


def _categories(kind: k.Category, values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Categories by their texts or by the values of the Enum's members."""
    found = (
        values.combine_chunks().dictionary_encode()
        if values.num_chunks
        else pa.array([], pa.string()).dictionary_encode()
    )
    texts = kind.array(found.dictionary.to_pylist())
    return pa.chunked_array([texts.take(found.indices)])


def _exactly(values: pa.ChunkedArray, converted: pa.ChunkedArray) -> pa.ChunkedArray:
    if not pc.all(pc.equal(converted.cast(values.type), values), min_count=0).as_py():
        raise ValueError("not exact")
    return converted


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
    first: dict[tuple[str, str], str] = {}
    done: list[pa.Table] = []
    names = _populated_by(compiled)
    by_key = {key: name for name, key in names.items()}
    table = table.rename_columns([names.get(c, c) for c in table.column_names])
    start = 0
    for batch in table.to_batches(max_chunksize=_BATCH):
        columns = [_plain(compiled, by_key, f, batch.column(f.name)) for f in batch.schema]
        rows = [dict(zip(batch.schema.names, row, strict=True)) for row in zip(*columns, strict=True)]
        try:
            models = adapter.validate_python(rows)
        except ValidationError as error:
            for e in error.errors(include_url=False):
                at, *where = e["loc"]
                rule = ".".join(map(str, where)) or compiled.model.__name__, e["msg"]
                if rule not in broken:
                    first[rule] = f", got {e['input']!r}"[:80] if where else ""
                broken[rule].append(start + int(at))
        else:
            if not broken:
                done.append(models_to_arrow(models, compiled))
        start += batch.num_rows
    raise_problems(
        compiled.model.__name__, [Problem(rule[0], rule[1] + first[rule], tuple(rows)) for rule, rows in broken.items()]
    )
    conformed = pa.concat_tables(done, promote_options="default") if done else compiled.schema.arrow.empty_table()
    check_bounds(conformed, compiled.schema, what=compiled.model.__name__)
    return conformed


def _populated_by(compiled: CompiledModel) -> dict[str, str]:
    """Field name -> the key under which the model takes it."""
    keys: dict[str, str] = {}
    by_name = compiled.model.model_config.get("validate_by_name") or compiled.model.model_config.get("populate_by_name")
    for name, info in compiled.model.model_fields.items():
        aliases = _aliases(info)
        if aliases and not by_name:
            keys[name] = aliases[0]
    return keys


def _plain(compiled: CompiledModel, by_key: dict[str, str], f: pa.Field, values: pa.Array) -> list[Any]:
    """A column as pydantic takes it: what is stored as the schema stores it is lifted, maps become dicts."""
    column = compiled.schema[by_key.get(str(f.name), str(f.name))]
    try:
        if not column.kind.flat and _same_shape(f.type, column.kind.storage):
            return column.kind.load(values.cast(column.kind.storage).to_pylist())
        return [_without_pairs(v, f.type) for v in values.to_pylist()]
    except MISFIT as error:  # nanoseconds, say
        misfit = Problem(column.name, f"must be {column.kind.describe()}: {error}")
        raise_problems(compiled.model.__name__, [misfit])
        raise


def _same_shape(one: pa.DataType, other: pa.DataType) -> bool:
    try:
        pa.nulls(1, one).cast(other)
    except pa.ArrowException:
        return False
    return pa.types.is_struct(one) == pa.types.is_struct(other) and _names(one) == _names(other)


def _names(dtype: pa.DataType) -> list[str]:
    return [dtype.field(i).name for i in range(dtype.num_fields)] if pa.types.is_struct(dtype) else []


def _without_pairs(value: Any, dtype: pa.DataType) -> Any:
    """Arrow gives a map as a list of pairs; pydantic wants a dict."""
    t = pa.types
    if value is None:
        return None
    if t.is_map(dtype):
        return {key: _without_pairs(item, dtype.item_type) for key, item in value}
    if t.is_struct(dtype):
        return {f.name: _without_pairs(value[f.name], f.type) for f in dtype}
    if t.is_list(dtype) or t.is_large_list(dtype) or t.is_fixed_size_list(dtype):
        return [_without_pairs(item, dtype.value_type) for item in value]
    return value
