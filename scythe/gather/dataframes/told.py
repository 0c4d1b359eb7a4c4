"""What the values of inputs tell of the kinds of columns: a null tells nothing, an empty list that it is one. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from scythe.gather.merge import KEY, Source, keys_of
from scythe_catalog.compute import pc
from scythe_catalog.schema import kinds as k

Kinds = dict[str, k.Kind]


@dataclass(frozen=True, eq=False)
class Telling:
    """Inputs whose values tell the same.

    Attributes:
        kinds: What they tell of each column; what none of their values tells is unknown, at any depth.
        inputs: Their `sort_index`, ascending.
    """

    kinds: Kinds
    inputs: np.ndarray


def tellings(source: Source, kinds: Mapping[str, k.Kind]) -> list[Telling]:
    """What the inputs of a source tell of some of its columns, whose kinds are given, each input in one of the tellings."""
    if not kinds:
        return [Telling({}, np.unique(keys_of(source)))]
    keys, bits = [np.empty(0, np.int64)], [np.empty((0, sum(map(_count, kinds.values()))), bool)]
    for table in source.batches():
        if table.num_rows:
            nodes = [node for name, kind in kinds.items() for node in _nodes(_whole(table.column(name)), kind)]
            each, there = _by_input(table.column(KEY).to_numpy(), np.column_stack(nodes))
            keys.append(each)
            bits.append(there)
    inputs, there = _by_input(np.concatenate(keys), np.concatenate(bits))  # the rows of one may lie in two tables
    same, of = np.unique(np.packbits(there, axis=1), axis=0, return_inverse=True)
    of = of.reshape(-1)
    found: list[Telling] = []
    for number in range(len(same)):
        mine = np.flatnonzero(of == number)
        told = iter(there[mine[0]].tolist())
        found.append(Telling({name: _pruned(kind, told) for name, kind in kinds.items()}, inputs[mine]))
    return found


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _by_input(keys: np.ndarray, bits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The inputs of some rows, ascending, and for each whether any of its rows has a bit."""
    if not len(keys):
        return keys, bits
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    return keys[starts], np.logical_or.reduceat(bits, starts, axis=0)


def _count(kind: k.Kind) -> int:
    """How many places there are in values of a kind, itself counted."""
    match kind:
        case k.Map(_, value):
            return 1 + _count(value)
        case _:
            return 1 + sum(_count(part) for _, part in kind.parts)


def _nodes(array: pa.Array, kind: k.Kind) -> list[np.ndarray]:
    """For each place in values of a kind, which rows have something there; those within behind the one that they are in."""
    there = array.is_valid().to_numpy(zero_copy_only=False)
    match kind:
        case k.List(item):
            rows = pc.list_parent_indices(array).to_numpy(zero_copy_only=False)
            inner = _nodes(pc.list_flatten(array), item)
        case k.Map(_, value):
            offsets = array.offsets.to_numpy()
            rows = np.repeat(np.arange(len(array)), np.diff(offsets))
            inner = _nodes(array.items.slice(int(offsets[0]), len(rows)), value)
        case k.Struct(members):
            rows = np.arange(len(array))
            parts = array.flatten()
            inner = [node for part, m in zip(parts, members, strict=True) for node in _nodes(part, m.kind)]
        case _:
            return [there]
    return [there, *(there & (np.bincount(rows[node], minlength=len(array)) > 0) for node in inner)]


def _pruned(kind: k.Kind, told: Iterator[bool]) -> k.Kind:
    """What is told of a kind where there are values in these of its places, in the order of `_nodes`."""
    there = next(told)
    match kind:
        case k.List(item):
            kind = k.List(_pruned(item, told))
        case k.Map(key, value):
            kind = k.Map(key, _pruned(value, told))
        case k.Struct(members):
            kind = k.Struct(tuple(k.Member(m.name, _pruned(m.kind, told), True, m.unit) for m in members))
        case _:
            pass
    return kind if there else k.Unknown()


def filled(kind: k.Kind, by: k.Kind) -> k.Kind:
    """A kind with what another one tells in the places that are unknown, and no place more."""
    match kind, by:
        case k.Unknown(), _:
            return by
        case k.List(item), k.List(other):
            return k.List(filled(item, other))
        case k.Map(key, value), k.Map(_, other):
            return k.Map(key, filled(value, other))
        case k.Struct(members), k.Struct():
            others = dict(by.parts)
            told = (k.Member(m.name, filled(m.kind, others.get(m.name, k.Unknown())), True, m.unit) for m in members)
            return k.Struct(tuple(told))
        case _:
            return kind


__all__ = ["Kinds", "Telling", "filled", "tellings"]
