"""The groups of a dataset, opened: each gives its part of a batch, for rows that are asked for by their positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import polars as pl

from scythe.errors import InputError, NotFoundError
from scythe.loaders.arrays import categories, is_missing, numbers, one_hot
from scythe.loaders.files import Files
from scythe.loaders.groups import Columns, File, Frame, Group
from scythe.loaders.pinned import PinnedRun, Rows


class Source(Protocol):
    """An opened group."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of each column of the array; empty where it has none."""
        ...

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Of what belongs to one row; None where rows differ."""
        ...

    def take(self, rows: np.ndarray) -> Any:
        """What belongs to these rows, together."""
        ...


def opened(name: str, group: Group, runs: Sequence[PinnedRun], rows: Rows, dtype: np.dtype, *, as_list: bool) -> Source:
    """A group, ready to be drawn from.

    Raises:
        NotFoundError, InputError: something in it is not there, or no number.
    """
    match group:
        case Columns():
            return _columns(name, group, runs, rows, dtype)
        case Frame():
            return _frame(name, group, runs, rows, dtype, as_list=as_list)
        case File():
            return Files(name, group, runs, rows, dtype, as_list)


@dataclass(frozen=True)
class Array:
    """What lies in memory as one array, a row a row."""

    names: tuple[str, ...]
    values: np.ndarray
    #: Columns that are not to be normalized: one-hot ones.
    fixed: tuple[bool, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape[1:]

    def take(self, rows: np.ndarray) -> np.ndarray:
        return self.values[rows]


def _columns(name: str, group: Columns, runs: Sequence[PinnedRun], rows: Rows, dtype: np.dtype) -> Array:
    hot = {column: categories(runs, column, name) for column in group.names}
    names: list[str] = []
    for column, values in hot.items():
        names += [column] if values is None else [f"{column}={value}" for value in values]
    out = np.empty((len(rows), len(names)), dtype)
    for i, run in enumerate(runs):
        where, at = rows.of(i)
        whole = len(where) == len(rows)
        j = 0
        for column, values in hot.items():
            series = run.column(column)
            series = series[at] if series is not None else pl.Series([None] * len(at), dtype=pl.Float64)
            made = numbers(series, dtype)[:, None] if values is None else one_hot(series, values, dtype)
            if whole:
                out[:, j : j + made.shape[1]] = made
            else:
                out[where, j : j + made.shape[1]] = made
            j += made.shape[1]
    fixed = tuple(flag for values in hot.values() for flag in ([False] if values is None else [True] * len(values)))
    if group.alone and len(names) == 1:
        return Array(tuple(names), out[:, 0], fixed)
    return Array(tuple(names), out, fixed)


@dataclass(frozen=True)
class Slices:
    """What lies in memory as one array of which each row has some that follow one another."""

    names: tuple[str, ...]
    values: np.ndarray
    first: np.ndarray
    lengths: np.ndarray
    shape: tuple[int, ...] | None

    def take(self, rows: np.ndarray) -> Any:
        first = self.first[rows]
        if self.shape is None:
            return [self.values[a : a + n] for a, n in zip(first, self.lengths[rows], strict=True)]
        return self.values[first[:, None] + np.arange(self.shape[0])]


def _frame(name: str, group: Frame, runs: Sequence[PinnedRun], rows: Rows, dtype: np.dtype, *, as_list: bool) -> Slices:
    parts: list[np.ndarray] = []
    first, lengths = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
    base = 0
    for i, run in enumerate(runs):
        where, at = rows.of(i)
        table = run.scan(group.table).select("sort_index", *_there(run, group)).collect()
        values = np.empty((table.height, len(group.columns)), dtype)
        for j, column in enumerate(group.columns):
            if not (table[column].dtype.is_numeric() or table[column].dtype == pl.Boolean):
                raise InputError(
                    f"{name}: {column!r} of {group.table!r} is no number but {table[column].dtype}: leave it out"
                )
            if (missing := is_missing(table[column])).any():
                at_fault = table["sort_index"][int(np.flatnonzero(missing)[0])]
                raise InputError(
                    f"{name}: {column!r} of {group.table!r} is missing in {int(missing.sum()):,} rows of {run.key.path} (of input "
                    f"{at_fault} first): fill it in the function, or leave these inputs out with where="
                )
            values[:, j] = numbers(table[column], dtype)
        keys, wanted = table["sort_index"].to_numpy(), run.sort_index[at]
        start = np.searchsorted(keys, wanted, "left")
        first[where], lengths[where] = base + start, np.searchsorted(keys, wanted, "right") - start
        parts.append(values)
        base += table.height
    shape = _even(name, group, lengths, rows, runs, as_list=as_list)
    return Slices(
        tuple(group.columns),
        np.concatenate(parts) if parts else np.empty((0, len(group.columns)), dtype),
        first,
        lengths,
        shape,
    )


def _there(run: PinnedRun, group: Frame) -> Sequence[str]:
    if group.table not in run.schemas:
        raise NotFoundError(f"{run.key.path} has no table {group.table!r}; it has {', '.join(sorted(run.schemas))}")
    known = run.schemas[group.table].names
    for column in group.columns:
        if column not in known:
            raise NotFoundError(
                f"the table {group.table!r} of {run.key.path} has no column {column!r}; it has {', '.join(known)}"
            )
    return group.columns


def _even(
    name: str, group: Frame, lengths: np.ndarray, rows: Rows, runs: Sequence[PinnedRun], *, as_list: bool
) -> tuple[int, ...] | None:
    """The shape of what each row has; None where they differ, and may."""
    wanted = group.rows if group.rows is not None else (int(lengths[0]) if len(lengths) else 0)
    other = np.flatnonzero(lengths != wanted)
    if not len(other):
        return wanted, len(group.columns)
    if group.rows is None and as_list:
        return None
    i = int(other[0])
    run = runs[rows.run[i]]
    index = run.sort_index[rows.at[i]]
    way = "leave it out with where=, or" if group.rows is not None else "give rows=, or"
    raise InputError(
        f"{name}: input {index} of {run.key.path} has {lengths[i]:,} rows in {group.table!r}, not {wanted:,}: {way} take "
        'lists with collate="list"'
    )
