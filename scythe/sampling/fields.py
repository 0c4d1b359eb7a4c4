"""The domain of each field of a model: from its bounds, its choices and its default, and what the caller says of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pyarrow as pa
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from scythe.base import ExperimentOutputSpec
from scythe.errors import DataError, InputError
from scythe.names import ID_LEVELS
from scythe.sampling.domains import MOST_WHOLE, Choice, Distributed, Domain, Range, Whole
from scythe_catalog.schema import Column, TableSchema, check_bounds, compile_model
from scythe_catalog.schema.kinds import Category, Int, Kind

_ENDS = ("ge", "gt", "le", "lt")
#: So near to a multiple a float is one.
_CLOSE = 1e-9
#: So many multiples can be drawn from.
_MOST_MULTIPLES = 10**7
#: And of a number of many digits, which are made one by one.
_MOST_LONG_MULTIPLES = 10**5
#: The largest power of ten that a float holds.
_MOST_DENOMINATOR = 10**22
_MOST_COUNT = 2**62


def domains_of(model: type[BaseModel], given: Mapping[str, Any]) -> dict[str, Domain]:
    """The domain of each field but the identifiers, in the model's order.

    Raises:
        InputError: a field that is not the model's, one that nothing bounds, or a value that does not fit.
    """
    if not (isinstance(model, type) and issubclass(model, BaseModel)):  # pyright: ignore[reportUnnecessaryIsInstance] - a user may give anything
        raise InputError(f"scythe.sample takes an input model, such as BuildingInput, not {model!r}")
    if issubclass(model, ExperimentOutputSpec):
        raise InputError(f"{model.__name__} is an output model, whose values the function gives: give the input model")
    compiled = compile_model(model)
    columns = {column.name: column for column in compiled.fields if column.name not in ID_LEVELS}
    unknown = [name for name in given if name not in columns]
    if unknown:
        raise InputError(f"{model.__name__} has no field {unknown[0]!r}; it has {', '.join(columns)}")
    return {
        name: _given(model, column, given[name]) if name in given else _own(model, column, model.model_fields[name])
        for name, column in columns.items()
        if name in given or not _is_made(column, model.model_fields[name])
    }


def _is_made(column: Column, field: FieldInfo) -> bool:
    """Whether nothing says what a field may be but the function that makes its values."""
    ends = _ends(column)
    bounded = ends is not None and None not in ends
    return field.default_factory is not None and not bounded and _choices(column.kind, _literals(field)) is None


def _literals(field: FieldInfo) -> tuple[Any, ...]:
    """The values of a Literal, with None beside it, too."""
    parts = (field.annotation, *get_args(field.annotation))
    return next((get_args(part) for part in parts if get_origin(part) is Literal), ())


def _own(model: type[BaseModel], column: Column, field: FieldInfo) -> Domain:
    """What the model says of a field."""
    choices = _choices(column.kind, _literals(field))
    if choices is not None:
        return Choice(choices)
    ends = _ends(column)
    if ends is not None and None not in ends:
        return _between(model, column, *ends)
    if not field.is_required():
        return Choice(_stored(model, column, [field.default]))
    raise InputError(
        f"{model.__name__}.{column.name} has neither bounds on both sides nor a default, so that nothing says what to draw: "
        f"give Field(ge=…, le=…), or here {column.name}=(low, high), a list of choices, one value or a distribution"
    )


def _given(model: type[BaseModel], column: Column, told: Any) -> Domain:
    """What the caller says of a field."""
    if callable(getattr(told, "icdf", None)) and not callable(getattr(told, "ppf", None)):
        raise InputError(
            f"{model.__name__}.{column.name}: {told!r} has no ppf: give a frozen distribution, as scipy.stats.norm(mean, std)"
        )
    if callable(getattr(told, "ppf", None)) and callable(getattr(told, "cdf", None)):
        return _distributed(model, column, told)
    if isinstance(told, tuple):
        if len(told) != 2 or _ends(column) is None:  # pyright: ignore[reportUnknownArgumentType]
            raise InputError(
                f"{model.__name__}.{column.name} is a {column.kind.describe()}: {column.name}={told!r} is no range; "
                "give (low, high) for numbers, dates and times, and a list of choices for all else"
            )
        array = _stored(model, column, list(told), ends=True)  # pyright: ignore[reportUnknownArgumentType]
        low, high = _plain(array)
        if low is None or high is None or low > high:
            raise InputError(f"{column.name}={told!r}: give (low, high), the lower one first")
        return _between(model, column, low, high)
    if isinstance(told, Iterable) and not isinstance(told, str | bytes | Mapping | BaseModel):
        values = list(told)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        if not values:
            raise InputError(f"{column.name}=[] leaves nothing to choose from")
        return Choice(_stored(model, column, values))
    return Choice(_stored(model, column, [told]))


def _choices(kind: Kind, literal: tuple[Any, ...]) -> pa.Array | None:
    """All values of a kind that has a list of them; of truth values those of a Literal, where they are."""
    if pa.types.is_boolean(kind.storage):
        return pa.array([v for v in (False, True) if v in literal or not literal])
    values = kind.values if isinstance(kind, Category) else kind.choices if isinstance(kind, Int) else None
    return pa.array(list(values), kind.storage) if values else None


def _ends(column: Column) -> tuple[Any, Any] | None:
    """The lowest and the highest value that the bounds allow, None for an end that there is not; None where it has no order."""
    storage = column.kind.storage
    if not (pa.types.is_float64(storage) or _is_whole(storage) or pa.types.is_decimal(storage)):
        return None
    low = high = None
    for rule in _ENDS:
        if rule not in column.bounds:
            continue
        end = _bound(column, rule)
        if end is None:
            continue
        if rule in ("ge", "gt"):
            low = end if low is None else max(low, end)
        else:
            high = end if high is None else min(high, end)
    return low, high


def _bound(column: Column, rule: str) -> Any:
    """A bound as the first value that keeps it, of a decimal the first that its digits can write; None where it bounds nothing."""
    bound, storage = column.bounds[rule], column.kind.storage
    if pa.types.is_float64(storage):
        value = float(bound)
        return math.nextafter(value, math.inf if rule == "gt" else -math.inf) if rule in ("gt", "lt") else value
    if pa.types.is_decimal(storage):
        if not math.isfinite(bound):
            return None
        return sorted((-_most_units(storage), _FIRST_UNIT[rule](_units(bound, storage.scale)), _most_units(storage)))[1]
    if isinstance(bound, float):
        value = math.ceil(bound) if rule in ("ge", "gt") else math.floor(bound)
        open_end = rule in ("gt", "lt") and bound.is_integer()
    else:
        (value,) = _plain(column.kind.array([bound]))
        open_end = rule in ("gt", "lt")
    return value + (1 if rule == "gt" else -1) * open_end


#: The first whole number of units that keeps a bound.
_FIRST_UNIT: dict[str, Callable[[Fraction], int]] = {
    "ge": math.ceil,
    "gt": lambda units: math.floor(units) + 1,
    "le": math.floor,
    "lt": lambda units: math.ceil(units) - 1,
}


def _units(number: Any, places: int) -> Fraction:
    """How many units of so many digits behind the point a number is; a float is what it is written as, as Pydantic takes it."""
    return Fraction(str(number)) * 10**places


def _most_units(storage: pa.DataType) -> int:
    """The largest number that decimals of so many digits can write, in their units."""
    return 10**storage.precision - 1


def _is_whole(storage: pa.DataType) -> bool:
    t = pa.types
    return t.is_integer(storage) or t.is_date32(storage) or t.is_timestamp(storage) or t.is_time64(storage)


def _plain(array: pa.Array) -> list[Any]:
    """Numbers, dates, times and decimals as the numbers that they are stored as."""
    storage = array.type
    if pa.types.is_decimal(storage):
        return [None if value is None else int(_units(value, storage.scale)) for value in array.to_pylist()]
    if pa.types.is_date32(storage):
        array = array.cast(pa.int32())
    elif not (pa.types.is_floating(storage) or pa.types.is_integer(storage)):
        array = array.cast(pa.int64())
    return array.to_pylist()


def _between(model: type[BaseModel], column: Column, low: Any, high: Any) -> Domain:
    multiple = _multiple(model.model_fields[column.name])
    if low > high:
        raise InputError(f"{model.__name__}.{column.name}: its bounds leave no value")
    if pa.types.is_decimal(column.kind.storage):
        return _decimals_between(model, column, low, high, multiple)
    if not pa.types.is_float64(column.kind.storage):
        step, low, high = int(multiple) if multiple else 1, max(low, -(2**63)), min(high, 2**63 - 1)
        first = -(-low // step) * step
        if first > high:
            raise InputError(f"{model.__name__}.{column.name}: there is no multiple of {multiple} within its bounds")
        found = Whole(first, high, column.kind, step)
        if found.count >= _MOST_COUNT:
            raise InputError(
                f"{model.__name__}.{column.name}: its bounds are too wide to draw from: narrow it, {column.name}=(low, high)"
            )
        return found
    if not math.isfinite(low) or not math.isfinite(high):
        raise InputError(f"{model.__name__}.{column.name}: nothing can be drawn between {low} and {high}")
    if multiple:
        return Choice(_multiples_between(model, column, float(low), float(high), multiple))
    return Range(float(low), float(high), column.kind)


def _multiples_between(model: type[BaseModel], column: Column, low: float, high: float, multiple: Any) -> pa.Array:
    """All multiples between two floats, each the float next to it; a float is the number that it is written as."""
    step = Fraction(str(multiple))
    first, last = math.ceil(Fraction(str(low)) / step), math.floor(Fraction(str(high)) / step)
    if first > last:
        raise InputError(f"{model.__name__}.{column.name}: there is no multiple of {multiple} within its bounds")
    most = max(abs(first), abs(last)) * step.numerator
    is_exact = most <= MOST_WHOLE and step.denominator <= _MOST_DENOMINATOR
    if last - first >= (_MOST_MULTIPLES if is_exact else _MOST_LONG_MULTIPLES):
        raise InputError(
            f"{model.__name__}.{column.name}: {last - first + 1:,} multiples of {multiple} lie between {low} and {high}, too many to draw from: "
            f"narrow it, {column.name}=(low, high), or give a list of choices"
        )
    if not is_exact:
        return pa.array([float(step * times) for times in range(first, last + 1)])
    # A quotient of two numbers that floats hold is rounded once.
    return pa.array(np.arange(first, last + 1) * step.numerator / step.denominator)


def _decimals_between(model: type[BaseModel], column: Column, low: int, high: int, multiple: Any) -> Domain:
    """Decimals between two numbers of units. Of a range with more of them than a float tells apart, fewer digits are drawn."""
    places = column.kind.storage.scale
    step = _units(multiple, places) if multiple else Fraction(1)
    if step.denominator != 1:
        raise InputError(
            f"{model.__name__}.{column.name} takes multiples of {multiple}, which has more than its {places} digits behind the point"
        )
    by = int(step)
    first, last = -(-low // by) * by, high
    if first > last:
        raise InputError(f"{model.__name__}.{column.name}: there is no multiple of {multiple} within its bounds")
    while (
        places and (by == 1 or by % 10 == 0)
        and ((last - first) // by >= MOST_WHOLE or max(abs(first), abs(last)) >= _MOST_COUNT)
    ):  # fmt: skip
        first, last, by, places = -(-first // 10), last // 10, max(1, by // 10), places - 1
    if first > last or (last - first) // by >= _MOST_COUNT or max(abs(first), abs(last)) >= _MOST_COUNT:
        raise InputError(
            f"{model.__name__}.{column.name}: its bounds are too wide, or have too many digits, to draw from: narrow it, "
            f"{column.name}=(low, high), or give a list of choices"
        )
    return Whole(first, last, column.kind, by, places)


def _distributed(model: type[BaseModel], column: Column, told: Any) -> Domain:
    ends, storage = _ends(column), column.kind.storage
    decimal = pa.types.is_decimal(storage)
    if ends is None or not (decimal or pa.types.is_float64(storage) or pa.types.is_integer(storage)):
        raise InputError(
            f"{model.__name__}.{column.name} is a {column.kind.describe()}, which has no distribution: give a list of choices"
        )
    if _multiple(model.model_fields[column.name]):
        raise InputError(
            f"{model.__name__}.{column.name} takes multiples of a number alone, which no distribution gives: give a list of choices"
        )
    if decimal:
        most = math.nextafter(10.0 ** (storage.precision - storage.scale), 0) - 10.0**-storage.scale
        units = (None if end is None else end / 10**storage.scale for end in ends)
        ends = tuple(end if given is None else given for given, end in zip(units, (-most, most), strict=True))
    low, high = (given if given is not None else end for given, end in zip(ends, told.support(), strict=True))
    found = Distributed(told, low, high, column.kind)
    if math.isnan(found.mass):
        raise InputError(f"{model.__name__}.{column.name}: the distribution is none, with these parameters")
    if not found.mass > 0:
        raise InputError(
            f"{model.__name__}.{column.name}: the distribution has nothing between {low} and {high}, the field's bounds"
        )
    return found


def _multiple(field: FieldInfo) -> Any:
    """What the values of a field are multiples of, None where that is not declared."""
    waiting: list[Any] = [*field.metadata, field.annotation]
    while waiting:
        one = waiting.pop()
        found = getattr(one, "multiple_of", None)
        if isinstance(found, int | float | Decimal):
            return found
        waiting += [*get_args(one), *(getattr(one, "metadata", None) or ())]
    return None


def _is_multiple(value: Any, multiple: Any) -> bool:
    if isinstance(value, Decimal):
        return (Fraction(str(value)) / Fraction(str(multiple))).denominator == 1
    times = float(value) / float(multiple)
    return abs(times - round(times)) <= _CLOSE


def _stored(model: type[BaseModel], column: Column, values: list[Any], *, ends: bool = False) -> pa.Array:
    """Values of a field as a table stores them; raises InputError, naming the first that does not fit."""
    nulls = any(value is None for value in values)
    try:
        if nulls and not column.nullable:
            raise ValueError("None is not one of its values")
        if pa.types.is_decimal(column.kind.storage):  # as Pydantic takes a number
            plain = [v.item() if isinstance(v, np.generic) else v for v in values]
            values = [Decimal(str(v)) if type(v) in (int, float) else v for v in plain]
        array = column.kind.array(values)
        check_bounds(pa.table({column.name: array}), TableSchema((column,)), what=model.__name__)
        multiple = None if ends or column.name not in model.model_fields else _multiple(model.model_fields[column.name])
        for value in values if multiple else ():
            if value is not None and not _is_multiple(value, multiple):
                raise ValueError(f"{value!r} is no multiple of {multiple}")
    except AttributeError:  # of a value of another type than what it is asked for
        raise InputError(
            f"{model.__name__}.{column.name} is a {column.kind.describe()}: {values!r} does not fit"
        ) from None
    except (ValueError, TypeError, OverflowError, pa.ArrowException, DataError) as error:
        raise InputError(f"{model.__name__}.{column.name}: {error}") from None
    return array
