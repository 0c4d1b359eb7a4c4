"""Dataframes as a group of a dataset: the rows of each input, as one array in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from scythe.errors import InputError
from scythe.loaders.arrays import Rounding, assign, is_missing, numbers
from scythe.loaders.checks import check_frame, columns_there, frame_columns, unit_of
from scythe.loaders.groups import Frame
from scythe.loaders.pinned.run import PinnedRun, called
from scythe.loaders.rows import Rows
from scythe.reader.one_run import check_came

_KEY = "__sort_index"


@dataclass(frozen=True)
class Slices:
    """What lies in memory as one array of which each row has some that follow one another."""

    names: tuple[str, ...]
    values: np.ndarray
    first: np.ndarray
    lengths: np.ndarray
    shape: tuple[int, ...] | None
    #: Columns that are not to be normalized: truth values.
    fixed: tuple[bool, ...]
    units: tuple[str | None, ...]
    #: Former name -> name of columns of the dataframe.
    renamed: Mapping[str, str] = field(default_factory=dict[str, str])

    def take(self, rows: np.ndarray) -> Any:
        """What belongs to these rows: one array, or a list where they have other numbers of rows."""
        first = self.first[rows]
        if self.shape is None:
            # Of their own: whoever changes a batch in place must not change the dataset.
            return [self.values[a : a + n].copy() for a, n in zip(first, self.lengths[rows], strict=True)]
        return self.values.take(first[:, None] + np.arange(self.shape[0]), axis=0)


def slices(name: str, group: Frame, runs: Sequence[PinnedRun], rows: Rows, dtype: np.dtype, *, as_list: bool) -> Slices:
    """The rows of a dataframe that belong to some inputs.

    Raises:
        NotFoundError: a run has no such dataframe, or it no such column.
        InputError: a column is no number, or misses a value; or inputs have other numbers of rows than they are to have.
    """
    parts: list[np.ndarray] = []
    first, lengths = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
    base, rounding = 0, {column: Rounding(dtype) for column in group.columns}
    check_frame(runs, group, name)  # also where no row is drawn
    found = [columns_there(run, group) for run in runs]
    numeric = set[str]()
    for i, run in enumerate(runs):
        where, at = rows.of(i)
        if not len(at):
            continue
        wanted = run.sort_index[at]
        keys = [] if "sort_index" in group.columns else [pl.col("sort_index")]
        table = run.read(group.table, [*keys, *frame_columns(run, group, runs)])
        if len(at) < run.height:
            table = table.filter(pl.col("sort_index").is_in(pl.Series(wanted).implode()))
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
                    f'{at_fault} first): fill it in the function, or leave these inputs out with missing="drop"'
                )
            numeric |= {column} if table[column].dtype.is_numeric() else set()
            what, whole = f"{name}: {column!r} of {group.table!r}", numbers(table[column], dtype)
            rounding[column].add(whole)
            assign(values[:, j], whole, what)
        keys = table["sort_index"].to_numpy()
        start = np.searchsorted(keys, wanted, "left")
        first[where], lengths[where] = base + start, np.searchsorted(keys, wanted, "right") - start
        parts.append(values)
        base += table.height
    for column, of in rounding.items():
        of.told(f"{name}: {column!r} of {group.table!r}")
    shape = _even(name, group, lengths, rows, runs, as_list=as_list)
    return Slices(
        tuple(group.columns),
        np.concatenate(parts) if parts else np.empty((0, len(group.columns)), dtype),
        first,
        lengths,
        shape,
        tuple(column not in numeric for column in group.columns),
        tuple(unit_of(there[c] for there in found if c in there) for c in group.columns),
        next((run.renames.of(group.table) for run in runs), {}),
    )


def complete(run: PinnedRun, group: Frame) -> np.ndarray:
    """Of each good row of a run, whether it has rows in a dataframe, all of them with a value in each column.

    Raises:
        NotFoundError: the dataframe was left out when the run was downloaded.
        StorageError: it cannot be read.
    """
    check_came(run.key, run.result, group.table)
    if len(columns_there(run, group)) < len(group.columns):
        return np.zeros(run.height, bool)
    table = run.read(group.table, [pl.col("sort_index").alias(_KEY), *frame_columns(run, group)])
    absent = np.zeros(table.height, bool)
    for column in group.columns:
        absent |= is_missing(table[column])
    before = np.concatenate([[0], np.cumsum(absent)])
    keys = table[_KEY].to_numpy()
    start, end = (np.searchsorted(keys, run.sort_index, side) for side in ("left", "right"))
    return (before[end] == before[start]) & ((end > start) | (group.rows == 0))


def _even(
    name: str, group: Frame, lengths: np.ndarray, rows: Rows, runs: Sequence[PinnedRun], *, as_list: bool
) -> tuple[int, ...] | None:
    """The shape of what each row has; None where they may differ: what a batch is hangs on no row."""
    if group.rows is None and as_list:
        return None
    wanted = group.rows if group.rows is not None else (int(lengths[0]) if len(lengths) else 0)
    other = np.flatnonzero(lengths != wanted)
    if not len(other) and len(lengths) and group.rows is None and not wanted:
        raise InputError(
            f"{name}: {called(runs, rows, 0)} has no rows in {group.table!r}, nor has any other: there is nothing to draw"
        )
    if not len(other):
        return wanted, len(group.columns)
    i = int(other[0])
    if not lengths[i] or (group.rows is None and not wanted):
        way = 'leave out inputs without any with missing="drop"'
    elif group.rows is None:
        way = 'take lists with collate="list", or leave it out with where='
    else:  # whose promise it breaks
        way = "leave it out with where=" + (
            ", or rows= off" if as_list else ', or take lists with collate="list", without rows='
        )
    raise InputError(
        f"{name}: {called(runs, rows, i)} has {lengths[i]:,} rows in {group.table!r}, not {wanted:,}: {way}"
    )
