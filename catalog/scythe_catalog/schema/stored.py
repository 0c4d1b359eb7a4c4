"""Arrow columns of any type made to what a table stores, exactly, and columns of two types made to one.

For columns that no model describes. A value is kept as it is or refused; nothing is rounded, cut or
guessed. Never sees Python values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial

import numpy as np
import pyarrow as pa

from scythe_catalog.compute import pc
from scythe_catalog.errors import SchemaError
from scythe_catalog.names import twins
from scythe_catalog.schema import kinds as k
from scythe_catalog.schema.kinds.numbers import MOST_DIGITS
from scythe_catalog.schema.kinds.times import DAY_MICROS, DAYS, MICROS


def to_storage(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column in the storage type of `kind_of_arrow` of its type.

    Raises:
        SchemaError: a type that no table can hold, or nanoseconds.
        pyarrow.ArrowException: a value that has no exact place there.
    """
    storage = k.kind_of_arrow(column.type).storage
    check_digits(column)
    if _plain(column.type):
        return column
    return pa.chunked_array([_stored(chunk) for chunk in column.chunks], storage)


def check_digits(column: pa.ChunkedArray) -> None:
    """Nothing where decimals have no more digits than their type: 128 bits hold some of 39, which Arrow lets pass.

    Raises:
        pyarrow.ArrowInvalid: one has more.
    """
    if _has_decimals(column.type):
        column.validate(full=True)


@cache
def _has_decimals(dtype: pa.DataType) -> bool:
    """Whether there are decimals in a type, at any depth."""
    t = pa.types
    if t.is_dictionary(dtype) or t.is_run_end_encoded(dtype):
        return _has_decimals(dtype.value_type)
    return t.is_decimal(dtype) or any(_has_decimals(dtype.field(i).type) for i in range(dtype.num_fields))


@cache
def _plain(dtype: pa.DataType) -> bool:
    """Whether every value of a type is stored as it is."""
    t = pa.types
    ranged = t.is_date(dtype) or t.is_time(dtype) or t.is_timestamp(dtype) or t.is_nested(dtype)
    return not ranged and k.kind_of_arrow(dtype).storage == dtype


def _stored(array: pa.Array) -> pa.Array:
    t, dtype = pa.types, array.type
    if _plain(dtype):
        return array
    if t.is_run_end_encoded(dtype):
        return _stored(pc.run_end_decode(array))
    if t.is_dictionary(dtype):
        return _stored(array.dictionary_decode())
    if t.is_null(dtype):
        return pa.nulls(len(array), k.Unknown().storage)
    if k.is_list(dtype):
        return _listed(array, _stored)
    if t.is_map(dtype):
        return _mapped(array, _stored, k.kind_of_arrow(dtype).storage)
    if t.is_struct(dtype):
        fields = [pa.field(f.name, k.kind_of_arrow(f.type).storage) for f in dtype]
        return pa.StructArray.from_arrays([_stored(a) for a in array.flatten()], fields=fields, mask=array.is_null())
    if t.is_temporal(dtype):
        return _instants(array)
    return array.cast(k.kind_of_arrow(dtype).storage)


def _listed(array: pa.Array, convert: Callable[[pa.Array], pa.Array]) -> pa.Array:
    """An array of lists whose items are converted."""
    sizes = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    offsets = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=offsets[1:])
    items = convert(pc.list_flatten(array))
    dtype = pa.list_(pa.field("element", items.type))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), items, type=dtype, mask=array.is_null())


def _mapped(array: pa.Array, convert: Callable[[pa.Array], pa.Array], storage: pa.DataType) -> pa.Array:
    """An array of maps whose values are converted; its keys become plain texts.

    Raises:
        SchemaError: a key stands twice in one of them, of which readers show one value alone.
    """
    offsets = array.offsets.to_numpy()
    start, size = (int(offsets[0]), int(offsets[-1] - offsets[0])) if len(array) else (0, 0)
    keys, items = _stored(array.keys.slice(start, size)).cast(pa.string()), convert(array.items.slice(start, size))
    rows = pa.array(np.repeat(np.arange(len(array)), np.diff(offsets)))
    there = pa.array(np.repeat(array.is_valid().to_numpy(zero_copy_only=False), np.diff(offsets)))
    entries = pa.table({"row": rows, "key": keys}).filter(there).group_by(["row", "key"]).aggregate([([], "count_all")])
    twice = entries.filter(pc.greater(entries["count_all"], 1))
    if len(twice):
        raise SchemaError(f"a map of it has the key {twice['key'][0].as_py()!r} twice")
    shifted = pa.array(offsets - start, pa.int32())
    return pa.MapArray.from_arrays(shifted, keys, items, type=storage, mask=array.is_null())


def _instants(array: pa.Array) -> pa.Array:
    """Days, times, instants and durations in microseconds (days as days); each within what every reader takes."""
    t, dtype = pa.types, array.type
    kind = k.kind_of_arrow(dtype)
    micros = pa.duration("us") if t.is_duration(dtype) else kind.storage
    try:
        exact = array.cast(micros)
    except pa.ArrowInvalid as error:
        if getattr(dtype, "unit", None) == "ns":
            raise SchemaError(
                "it holds nanoseconds, and a table holds microseconds: round the values, "
                'or give the nanoseconds as whole numbers (in Polars `dt.timestamp("ns")` or `dt.total_nanoseconds()`)'
            ) from error
        raise
    if t.is_duration(dtype):
        return exact.cast(kind.storage)
    low, high = {"date": DAYS, "time": (0, DAY_MICROS - 1)}.get(kind.name, MICROS)
    found = pc.min_max(exact.cast(pa.int32() if t.is_date32(exact.type) else pa.int64())).as_py()
    if found["min"] is not None and not low <= found["min"] <= found["max"] <= high:
        raise SchemaError(
            "it holds a time of day beyond 24 hours"
            if kind.name == "time"
            else "it holds a day outside of the years 1 to 9999"
        )
    return exact


# --- two types made to one --------------------------------------------------------------------------


def joined(one: k.Kind, other: k.Kind, where: str = "") -> k.Kind:
    """The kind that holds the values of both: whatever one leaves open the other tells.

    Whole numbers beside floats are floats, beside decimals decimals; decimals get the digits that both
    need, up to 38; a struct has the members of both. A value may still have no exact place there.

    Raises:
        SchemaError: there is none; says where.
    """
    match one, other:
        case (kind, k.Unknown()) | (k.Unknown(), kind):
            return kind
        case (k.Int(), k.Float()) | (k.Float(), k.Int()):
            return k.Float()
        case (k.Decimal(p, s), k.Int()) | (k.Int(), k.Decimal(p, s)):
            return k.Decimal(min(max(p, 19 + s), MOST_DIGITS), s)
        case k.Decimal(p, s), k.Decimal(q, t):
            scale = max(s, t)
            return k.Decimal(min(max(p - s, q - t) + scale, MOST_DIGITS), scale)
        case k.List(), k.List():
            return k.List(joined(one.item, other.item, f"{where}.element"))
        case k.Map(), k.Map():
            return k.Map(one.key, joined(one.value, other.value, f"{where}.value"))
        case k.Struct(), k.Struct():
            after = {m.name: m.kind for m in other.members}
            members = [
                k.Member(m.name, joined(m.kind, after.pop(m.name, k.Unknown()), f"{where}.{m.name}"), True, m.unit)
                for m in one.members
            ]
            return k.Struct((*members, *(k.Member(name, kind, True) for name, kind in after.items())))
        case _ if one == other:
            return one
        case _:
            raise SchemaError(f"{where.lstrip('.')} is {one.describe()} there and {other.describe()} here")


def loses(have: k.Kind, want: k.Kind) -> bool:
    """Whether a value of one kind may have no place in another that was joined from it."""
    match have, want:
        case k.Int(), k.Float():
            return True
        case k.Int(), k.Decimal(p, s):
            return p - s < 19
        case k.Decimal(p, s), k.Decimal(q, t):
            return p - s > q - t
        case _:
            wanted = dict(want.parts)
            return any(loses(part, wanted[name]) for name, part in have.parts)


def refitted(column: pa.ChunkedArray, want: k.Kind) -> pa.ChunkedArray:
    """A stored column in the storage of a kind that was joined from its own.

    Raises:
        pyarrow.ArrowException: a value that has no exact place there.
    """
    if column.type == want.storage:
        return column
    return pa.chunked_array([_refitted(chunk, want) for chunk in column.chunks], want.storage)


def _refitted(array: pa.Array, want: k.Kind) -> pa.Array:
    storage, t = want.storage, pa.types
    if array.type == storage:
        return array
    if array.null_count == len(array):
        return pa.nulls(len(array), storage)
    match want:
        case k.List(item):
            return _listed(array, partial(_refitted, want=item))
        case k.Map(_, value):
            return _mapped(array, partial(_refitted, want=value), storage)
        case k.Struct(members) if t.is_struct(array.type):
            have = dict(zip([f.name for f in array.type], array.flatten(), strict=True))
            parts = [
                _refitted(have[m.name], m.kind) if m.name in have else pa.nulls(len(array), m.kind.storage)
                for m in members
            ]
            return pa.StructArray.from_arrays(parts, fields=list(storage), mask=array.is_null())
        case _:
            return array.cast(storage)


# --- names ------------------------------------------------------------------------------------------


def same_names(columns: Iterable[tuple[str, k.Kind]]) -> tuple[str, str] | None:
    """Two columns, or members of structs, that a reader takes for one; None where there are none.

    Case and composition do not tell two names apart; and Iceberg names the member `x` of a column `U`
    by `U.x`, which may be the name of another column.
    """
    return twins(path for name, kind in columns for path in _paths(name, kind))


def _paths(path: str, kind: k.Kind) -> Iterator[str]:
    yield path
    for name, part in kind.parts:
        yield from _paths(f"{path}.{name}", part)
