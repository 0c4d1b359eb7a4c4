"""What a model asks of values: the bounds that it declares, of columns; rules of its own, of instances. Never changes a value."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache

import pyarrow as pa
from pydantic import AfterValidator, BaseModel, ValidationError

from scythe_catalog.compute import pc
from scythe_catalog.schema import kinds as k
from scythe_catalog.schema.compile import CompiledModel
from scythe_catalog.schema.problems import Problem, raise_problems
from scythe_catalog.schema.table_schema import Column, TableSchema

_SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}

#: What a validator's ValueError, or its assertion, becomes.
_OWN = ("value_error", "assertion_error")


def check_bounds(table: pa.Table, schema: TableSchema, *, what: str) -> None:
    """Every declared bound on every column.

    Raises:
        DataError: which column breaks which bound in which rows.
    """
    problems: list[Problem] = []
    for column in schema:
        values = table.column(column.name)
        for rule, broken in _broken(column, values):
            nothing = _nan(values)
            for mask in (pc.and_(broken, pc.invert(nothing)), pc.and_(broken, nothing)):
                rows = pc.indices_nonzero(mask).to_pylist()
                if rows:
                    got = values[rows[0]].as_py()
                    shown = "NaN" if isinstance(got, float) and math.isnan(got) else repr(got)
                    problems.append(Problem(column.name, f"must be {rule}, got {shown}", tuple(rows)))
    raise_problems(what, problems)


def _nan(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Which values are NaN."""
    if pa.types.is_floating(values.type):
        return pc.fill_null(pc.is_nan(values), False)
    return pa.chunked_array([pa.repeat(pa.scalar(False), len(values))])


def _broken(column: Column, values: pa.ChunkedArray) -> Iterator[tuple[str, pa.ChunkedArray]]:
    """Each rule that is broken, as words and as a mask of the rows that break it."""
    for name, bound in column.bounds.items():
        match name:
            case "ge" | "gt" | "le" | "lt" if column.kind.flat:
                held, rule = column.kind.held(name, values, bound), f"{_SIGNS[name]} {bound}"
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


def _length(values: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_string(values.type):
        return pc.utf8_length(values)
    if pa.types.is_binary(values.type):
        return pc.binary_length(values)
    if pa.types.is_map(values.type):
        values = values.cast(pa.list_(pa.struct([values.type.key_field, values.type.item_field])))
    return pc.list_value_length(values)


def _may_be_asked_again(compiled: CompiledModel) -> bool:
    """Whether a model has rules that see values as they are once they are valid, and so may be asked again; and none that come before.

    A rule that comes before makes a value of what is given (degrees of radians, say), and would do so a second time.
    """
    return not compiled.loose and _has_rules_after(compiled.model)


@lru_cache(maxsize=512)
def _has_rules_after(model: type[BaseModel]) -> bool:
    decorators = model.__pydantic_decorators__
    annotated = (one for info in model.model_fields.values() for one in info.metadata)
    return "__get_pydantic_core_schema__" not in vars(model) and bool(
        decorators.field_validators
        or decorators.model_validators
        or decorators.validators
        or decorators.root_validators
        or any(isinstance(one, AfterValidator) for one in annotated)
    )


def rule_problems(models: Sequence[BaseModel], compiled: CompiledModel) -> Iterator[Problem]:
    """What the model's own rules say of instances of it, which stay as they are.

    Where a rule changes values, or looks at which were given, it may refuse what it has made itself: no error by itself.
    """
    if not _may_be_asked_again(compiled):
        return
    validate, fields = compiled.model.__pydantic_validator__.validate_python, {*compiled.model.model_fields}
    broken: dict[tuple[str, str], list[int]] = {}
    for i, one in enumerate(models):
        values = one.__dict__
        try:
            given = {name: values[name] for name in one.model_fields_set & fields}
            validate(given | (one.__pydantic_extra__ or {}), by_alias=False, by_name=True)
        except ValidationError as error:
            for told in error.errors(include_url=False):
                if told["type"] in _OWN:
                    where = ".".join(map(str, told["loc"])) or compiled.model.__name__
                    broken.setdefault((where, told["msg"]), []).append(i)
        except Exception:  # noqa: BLE001 - whatever else it raises, it did not when the instance was made
            continue
    yield from (Problem(where, rule, tuple(rows)) for (where, rule), rows in broken.items())
