"""A frame's values as a model takes them: types held against a column's kind, then Python values for pydantic.

One rule for all models: text is no number, a number is no duration, a day is no instant, whatever
pydantic would make of them. Never fills in or checks a rule: pydantic does.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, cast

import numpy as np
import pyarrow as pa
from pydantic import AliasChoices, AliasPath, BaseModel, RootModel
from pydantic.fields import FieldInfo

from scythe_catalog.errors import DataError
from scythe_catalog.schema import kinds as k

_t = pa.types
#: Classes that hold no nanoseconds, as those of pandas do.
_EXACT = {bool, int, float, str, bytes, dt.date, dt.time, dt.datetime, dt.timedelta, Decimal}


@dataclass(frozen=True)
class Frame:
    """A user's frame: Arrow columns, and those that only Python's own objects hold faithfully."""

    table: pa.Table
    #: Columns of dicts, lists, members of an Enum and the like, as pandas has them.
    objects: Mapping[str, Sequence[Any]] = field(default_factory=dict[str, Sequence[Any]])
    #: Columns in which NaN is how the library writes that there is nothing.
    gaps: frozenset[str] = frozenset()
    #: Whether it is one of pandas: its owner mends it in the words of that.
    is_pandas: bool = False
    #: The rows, ascending, that lack a column of objects: they have the model's default, whatever stands there.
    lacking: Mapping[str, Sequence[int]] = field(default_factory=dict[str, Sequence[int]])

    @property
    def names(self) -> list[str]:
        """All columns."""
        return [*self.table.column_names, *self.objects]

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(next(iter(self.objects.values()))) if self.objects else self.table.num_rows


def arrow_table(frame: Any) -> pa.Table | None:
    """The columns of anything that speaks Arrow's PyCapsule interface (a table, a batch, a relation of DuckDB), else None.

    Raises:
        DataError: its rows break off while they are read.
    """
    if isinstance(frame, pa.Table):
        return frame
    if isinstance(frame, pa.RecordBatch):  # not through the interface, whose names end at a NUL
        return pa.Table.from_batches([frame])
    if not (hasattr(frame, "__arrow_c_stream__") or hasattr(frame, "__arrow_c_array__")):
        return None
    try:
        if not hasattr(frame, "__arrow_c_stream__"):
            return pa.table(frame)
        reader = frame if isinstance(frame, pa.RecordBatchReader) else pa.RecordBatchReader.from_stream(frame)
    except (pa.ArrowException, TypeError):  # a single column speaks it, too
        return None
    try:
        return reader.read_all()
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0].partition(" Detail: ")[0]
        raise DataError(f"the {type(frame).__name__} breaks off while its rows are read: {reason}") from error


def holds(kind: k.Kind, dtype: pa.DataType) -> bool:
    """Whether a column of an Arrow type may hold values of a kind."""
    if _t.is_null(dtype):
        return True
    if _t.is_dictionary(dtype) or _t.is_run_end_encoded(dtype):
        return holds(kind, dtype.value_type)
    match kind:
        case k.List(item):
            return k.is_list(dtype) and holds(item, dtype.value_type)
        case k.Map(key, value):
            if _t.is_struct(dtype):
                return all(holds(value, f.type) for f in dtype)
            pairs = pairs_of(dtype)
            return pairs is not None and holds(key, pairs[0].type) and holds(value, pairs[1].type)
        case k.Struct(members):
            return _holds_struct(kind, members, dtype)
        case _:
            return kind.accepts(dtype)


def pairs_of(dtype: pa.DataType) -> tuple[pa.Field, pa.Field] | None:
    """The fields of key and value, where a type is a map or, as some readers give one, a list of pairs of these names."""
    if _t.is_map(dtype):
        return dtype.key_field, dtype.item_field
    if k.is_list(dtype) and _t.is_struct(dtype.value_type) and {f.name for f in dtype.value_type} == {"key", "value"}:
        return dtype.value_type.field("key"), dtype.value_type.field("value")
    return None


def _holds_struct(kind: k.Struct, members: tuple[k.Member, ...], dtype: pa.DataType) -> bool:
    root = root_of(kind)
    if root is not None and not _has_root(dtype):
        return holds(root, dtype)
    if kind.python is None and k.is_list(dtype):
        return all(holds(m.kind, dtype.value_type) for m in members)
    if not _t.is_struct(dtype):
        return False
    if kind.python is None and sorted(f.name for f in dtype) != sorted(m.name for m in members):
        return False  # which of its places is which
    known = members_of(kind)
    return all(f.name not in known or holds(known[f.name], f.type) for f in dtype)


def members_of(kind: k.Struct) -> dict[str, k.Kind]:
    """Every name under which a nested model takes a field, and the field's kind."""
    own = {member.name: member.kind for member in kind.members}
    return {name: own[field] for name, field in fields_by_name(kind).items()}


def fields_by_name(kind: k.Struct) -> dict[str, str]:
    """Every name under which a nested model takes a field, and the field's own."""
    known = {member.name: member.name for member in kind.members}
    fields = kind.python.model_fields if kind.python is not None and issubclass(kind.python, BaseModel) else {}
    for name, info in fields.items():
        known |= {alias: name for alias in aliases(info) if alias not in known}
    return known


def aliases(info: FieldInfo) -> list[str]:
    """The plain names, beside its own, under which a model takes a field."""
    return [alias for alias in (*_choices(info), info.alias) if isinstance(alias, str)]


def alias_paths(info: FieldInfo) -> list[AliasPath]:
    """The paths by which a model takes a field out of other values."""
    return [alias for alias in _choices(info) if isinstance(alias, AliasPath)]


def _choices(info: FieldInfo) -> list[str | AliasPath | None]:
    alias = info.validation_alias
    return [*alias.choices] if isinstance(alias, AliasChoices) else [alias]


def root_of(kind: k.Struct) -> k.Kind | None:
    """What a RootModel holds."""
    is_root = kind.python is not None and issubclass(kind.python, RootModel)
    return kind.members[0].kind if is_root else None


def _has_root(dtype: pa.DataType) -> bool:
    """Whether an Arrow type is how a RootModel is stored."""
    return _t.is_struct(dtype) and dtype.get_field_index("root") >= 0


def lifted(kind: k.Kind, column: pa.Array, *, strict: bool) -> list[Any]:
    """The values of an Arrow column as pydantic takes them; with `strict`, of the model's own classes.

    Raises:
        ValueError: values that Python's own types do not hold.
    """
    if (exact := in_micros(column.type)) != column.type:  # a cast to its own type spoils Arrow's lists of nulls
        column = column.cast(exact)
    lift = _lift(kind, column.type, strict)
    values = column.to_pylist()
    return values if lift is None else [None if v is None else lift(v) for v in values]


def in_micros(dtype: pa.DataType) -> pa.DataType:
    """The type with microseconds for nanoseconds: Python's own types have none, and pandas' would lose them unseen."""
    if _t.is_timestamp(dtype) and dtype.unit == "ns":
        return pa.timestamp("us", dtype.tz)
    if _t.is_duration(dtype) and dtype.unit == "ns":
        return pa.duration("us")
    if _t.is_time64(dtype) and dtype.unit == "ns":
        return pa.time64("us")
    if k.is_list(dtype) and (item := in_micros(dtype.value_type)) != dtype.value_type:
        return pa.list_(item)
    if _t.is_struct(dtype):
        return pa.struct([f.with_type(in_micros(f.type)) for f in dtype])
    if _t.is_map(dtype):
        return pa.map_(dtype.key_type, dtype.item_field.with_type(in_micros(dtype.item_type)))
    return dtype


def _lift(kind: k.Kind, dtype: pa.DataType, strict: bool) -> Callable[[Any], Any] | None:
    """What to do with a value that Arrow gives, None where it is fine as it is."""
    if _t.is_dictionary(dtype) or _t.is_run_end_encoded(dtype):
        return _lift(kind, dtype.value_type, strict)
    match kind:
        case k.List(item) if k.is_list(dtype):
            each = _each(_lift(item, dtype.value_type, strict))
            if strict and kind.python is tuple:
                return tuple if each is None else (lambda v: tuple(each(v)))
            return each
        case k.Map(key, value):
            named = _or_same(key.lift(strict=strict))
            if _t.is_struct(dtype):
                by_name = _by_name({f.name: _lift(value, f.type, strict) for f in dtype})
                return lambda v: {named(n): item for n, item in by_name(v).items()}
            pairs = pairs_of(dtype)
            inner = _or_same(_lift(value, pairs[1].type, strict) if pairs is not None else None)
            return lambda v: _once({named(n): inner(item) for n, item in map(_pair, v)}, v)
        case k.Struct() if (root := root_of(kind)) is not None and not _has_root(dtype):
            return _lift(root, dtype, strict)
        case k.Struct() if _t.is_struct(dtype):
            kinds = members_of(kind)
            lifts = {f.name: _lift(kinds[f.name], f.type, strict) if f.name in kinds else None for f in dtype}
            lift = _by_name(lifts)
            if kind.python is None:
                places = [m.name for m in kind.members]
                return lambda v: _places(lift(v), places)
            return (lambda v: lift(v)["root"]) if root_of(kind) is not None and "root" in lifts else lift
        case k.Struct(members, python=None) if k.is_list(dtype):  # a tuple, item by item
            items = [_or_same(_lift(member.kind, dtype.value_type, strict)) for member in members]
            python = cast(Callable[[Any], Any], tuple if strict else list)
            return lambda v: python(v) if len(v) != len(items) else python(f(x) for f, x in zip(items, v, strict=True))
        case k.Float() if _t.is_integer(dtype) or _t.is_decimal(dtype):
            return _float_of
        case _:
            return kind.lift(strict=strict)


def _float_of(value: Any) -> Any:
    """A whole number as the float that it is; pydantic would round it."""
    if isinstance(value, int | Decimal | np.number) and not isinstance(value, bool | float | np.complexfloating):
        (value,) = k.Float().dump([value])
    return value


def _places(members: Mapping[str, Any], names: Sequence[str]) -> tuple[Any, ...]:
    return tuple(members[name] for name in names)


def _each(lift: Callable[[Any], Any] | None) -> Callable[[Any], Any] | None:
    return None if lift is None else lambda v: [None if item is None else lift(item) for item in v]


def _by_name(lifts: Mapping[str, Callable[[Any], Any] | None]) -> Callable[[Any], Any]:
    sure = {name: _or_same(lift) for name, lift in lifts.items()}
    return lambda v: {name: sure[name](item) for name, item in v.items()}


def _or_same(lift: Callable[[Any], Any] | None) -> Callable[[Any], Any]:
    return (lambda v: v) if lift is None else (lambda v: None if v is None else lift(v))


def _pair(item: Any) -> tuple[Any, Any]:
    return (item["key"], item["value"]) if isinstance(item, Mapping) else item  # pyright: ignore[reportUnknownVariableType]


def _once(found: dict[Any, Any], pairs: Collection[Any]) -> dict[Any, Any]:
    if len(found) < len(pairs):
        raise ValueError(f"a key of it stands twice, in {pairs!r}")
    return found


def misfit(kind: k.Kind, values: Collection[Any]) -> Any:
    """The first Python value that a column of a kind does not take, None where all are fine."""
    found = {type(v) for v in values} - {type(None)}
    match kind:
        case k.List(item):
            return _first(values, lambda v: _is_list(v) and misfit(item, _plain(v)) is None)
        case k.Map(key, value):
            return _first(values, lambda v: isinstance(v, Mapping) and misfit(key, v) is None and misfit(value, v.values()) is None)  # fmt: skip
        case k.Struct(members):
            return _first(values, lambda v: _fits_struct(kind, members, v))
        case _:
            exact = found <= _EXACT or not any(map(_nanos, values))
            if exact and all(map(kind.takes, found)):
                return None
            return _first(values, lambda v: kind.takes(type(v)) and not _nanos(v))


def _first(values: Collection[Any], fits: Callable[[Any], bool]) -> Any:
    return next((v for v in values if v is not None and not fits(v)), None)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple | set | frozenset) or (isinstance(value, np.ndarray) and value.ndim > 0)


def _plain(value: Any) -> Collection[Any]:
    return value.tolist() if isinstance(value, np.ndarray) else value  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]


def _fits_struct(kind: k.Struct, members: tuple[k.Member, ...], value: Any) -> bool:
    root = root_of(kind)
    if isinstance(value, BaseModel):
        return kind.python is not None
    if root is not None:
        return misfit(root, [value]) is None
    if kind.python is None:
        return _is_list(value) and all(
            misfit(m.kind, [v]) is None for m, v in zip(members, _plain(value), strict=False)
        )
    known = members_of(kind)
    return isinstance(value, Mapping) and all(misfit(known[n], [v]) is None for n, v in value.items() if n in known)


def _nanos(value: Any) -> bool:
    return bool(getattr(value, "nanosecond", 0) or getattr(value, "nanoseconds", 0))


def lifted_objects(kind: k.Kind, values: Collection[Any], *, strict: bool) -> list[Any]:
    """Python values as pydantic takes them: arrays as lists, what readers show of an Enum as its members."""
    return [None if v is None else _lifted_object(kind, v, strict) for v in values]


def _lifted_object(kind: k.Kind, value: Any, strict: bool) -> Any:
    if isinstance(value, np.ndarray):
        value = _in_micros(value).tolist()  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    if isinstance(kind, k.Struct) and (root := root_of(kind)) is not None and not isinstance(value, BaseModel):
        return _lifted_object(root, value, strict)
    if isinstance(kind, k.List) and isinstance(value, list | tuple):
        items = [None if v is None else _lifted_object(kind.item, v, strict) for v in value]
        return tuple(items) if strict and kind.python is tuple else items
    if isinstance(kind, k.List) and isinstance(value, set | frozenset):  # what is in it has a hash
        return type(value)(
            [None if v is None else _lifted_object(kind.item, v, strict or not kind.item.flat) for v in value]
        )  # pyright: ignore[reportUnknownVariableType]
    if isinstance(kind, k.Struct) and kind.python is None and isinstance(value, list | tuple):
        python = list if isinstance(value, list) and not strict else tuple
        if len(value) != len(kind.members):  # pyright: ignore[reportUnknownArgumentType]
            return python(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        pairs = zip(kind.members, value, strict=True)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        return python([None if v is None else _lifted_object(member.kind, v, strict) for member, v in pairs])  # pyright: ignore[reportUnknownVariableType]
    if isinstance(kind, k.Map) and isinstance(value, Mapping):
        named = _or_same(kind.key.lift(strict=strict))
        return {named(n): None if v is None else _lifted_object(kind.value, v, strict) for n, v in value.items()}
    if isinstance(kind, k.Struct) and isinstance(value, Mapping):
        known = members_of(kind)
        return {n: _lifted_object(known[n], v, strict) if n in known and v is not None else v for n, v in value.items()}
    lift = _float_of if isinstance(kind, k.Float) else kind.lift(strict=strict) if kind.flat else None
    if isinstance(value, np.bytes_ | np.str_):  # of which `item` drops zeros at the end
        value = bytes(value) if isinstance(value, bytes) else str.__str__(value)
    elif isinstance(value, np.generic):
        value = _in_micros(value).item()
    return value if lift is None else lift(value)


def _in_micros(value: Any) -> Any:
    """NumPy's instants and durations in a unit that Python's own have: of others it gives bare counts, which pydantic takes for seconds.

    Raises:
        ValueError: they hold nanoseconds, or a count of months or of no unit.
    """
    if value.dtype.kind not in "mM":
        return value
    unit = np.datetime_data(value.dtype)[0]
    if value.dtype.kind == "m" and unit in ("Y", "M", "generic") and not np.isnat(value).all():
        raise ValueError(f"{value} has no length: give it in days, or in smaller units")
    if unit not in ("ns", "ps", "fs", "as"):
        return value
    rounded = value.astype(f"{value.dtype.kind}8[us]")
    if not ((rounded == value) | np.isnat(value)).all():
        raise ValueError(f"{value} has nanoseconds, which are not stored: round it to microseconds")
    return rounded
