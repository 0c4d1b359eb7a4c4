"""What a batch is made of: columns as one array, files, dataframes. Says what is wanted, and what shape it has; reads nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scythe.errors import ReadError
from scythe.names import meant
from scythe.reader.many_runs import truth

#: What `dataset` takes beside groups.
_OPTIONS = ("version", "run", "where", "dtype", "missing", "collate", "distinct")


@dataclass(frozen=True)
class File:
    """A group of a dataset: the content of one output file an input.

    Args:
        column: The file output (or input) of the model.
        load: Makes an array of a file's bytes; without it `.npy`, `.npz` (of one array), `.parquet`, `.csv` and, where Pillow is
            installed, images are read. It is called in several threads at once, whatever `ahead` is: it must not write into what its
            calls share, a buffer, say.
        path: Call `load` with the local path in place of the bytes.
        columns: Of a file that is a table, the columns to take, in this order. Without it all, which each file then has in the order of the first.

    Raises:
        NotFoundError: of a dataset, where there is no such column.
        InputError: of a batch, where a file cannot be read by itself, has another shape or other columns than the first, or numbers that the
            dataset's type does not hold, or tell apart.
        FetchError: of a batch, where a file cannot be fetched.
        ForkError: of a batch, in a process that was forked beside running threads.

    Examples:
        >>> import scythe
        >>> y = scythe.File("hourly")
        >>> scythe.dataset("simulate_energy", x=["r_value"], y=y).shapes["y"]
        (24, 2)
    """

    column: str
    load: Callable[[Any], Any] | None = None
    path: bool = False
    columns: Sequence[str] | None = None


@dataclass(frozen=True)
class Frame:
    """A group of a dataset: the rows of a dataframe that belong to each input.

    Args:
        table: The name of the dataframe.
        columns: Its columns, numbers all.
        rows: How many rows each input has; without it each may have a number of its own (with `collate="list"`; else they must be equal).

    Raises:
        NotFoundError: of a dataset, where there is no such dataframe or column.
        InputError: of a dataset, where a column is no number, or an input has another number of rows.

    Examples:
        >>> import scythe
        >>> monthly = scythe.Frame("monthly", ["kwh"], rows=12)
        >>> scythe.dataset("simulate_energy", x=["r_value"], y=monthly).shapes["y"]
        (12, 1)
    """

    table: str
    columns: Sequence[str]
    rows: int | None = None


@dataclass(frozen=True)
class Columns:
    """Columns as one array; `alone` where a single name was given, not a list of one."""

    names: tuple[str, ...]
    alone: bool = False


Group = Columns | File | Frame


def group_of(name: str, given: Any) -> Group:
    """A group from what a user gives for it.

    Raises:
        ReadError: it is none.
    """
    if isinstance(given, str):
        return Columns((given,), alone=True)
    for listed in ("tolist", "to_list"):  # of NumPy and pandas, and of Polars
        if hasattr(given, listed):
            given = getattr(given, listed)()
    if isinstance(given, File):
        if given.load is not None and not callable(given.load):  # pyright: ignore[reportUnnecessaryComparison]
            raise ReadError(
                f"{name}=File({given.column!r}, load={given.load!r}): a function of a file's bytes is wanted"
            )
        given = replace(given, path=truth(f"{name}=File({given.column!r}, …): path", given.path))
        if given.columns is None:
            return given
        if given.load is not None:
            raise ReadError(f"{name}=File({given.column!r}, …): load= makes the array, of which columns= takes nothing")
        if isinstance(given.columns, str) or not len(given.columns):
            raise ReadError(f"{name}=File({given.column!r}, columns={given.columns!r}): a list of columns is wanted")
        return replace(given, columns=_once(name, given.columns))
    if isinstance(given, Frame):
        if isinstance(given.columns, str) or not given.columns:
            raise ReadError(f"{name}=Frame({given.table!r}, …) needs a list of columns, got {given.columns!r}")
        rows = int(given.rows) if isinstance(given.rows, np.integer) else given.rows
        if rows is not None and (type(rows) is not int or rows < 0):
            raise ReadError(f"{name}=Frame({given.table!r}, …, rows={given.rows!r}): a number of rows is wanted")
        return Frame(given.table, _once(name, given.columns), rows)
    if isinstance(given, Sequence) and given and all(isinstance(one, str) for one in given):  # pyright: ignore[reportUnknownVariableType]
        return Columns(_once(name, given))
    raise ReadError(
        f"{name}={given!r} is no group: give a column, a list of columns, File(column) or Frame(table, columns){option_like(name)}"
    )


def option_like(name: str) -> str:
    """For a message: the option of `dataset` that was meant by a group's name, empty where none is like it."""
    told = meant(name, _OPTIONS) if name not in _OPTIONS else ""
    return f"; or is {name}= an option?{told}" if told else ""


def _once(name: str, columns: Sequence[str]) -> tuple[str, ...]:
    """The columns of a group, in which each stands once.

    Raises:
        ReadError: one stands twice.
    """
    twice = [column for i, column in enumerate(columns) if column in columns[:i]]
    if twice:
        raise ReadError(f"{name}: the column {twice[0]!r} stands twice in {list(columns)!r}")
    return tuple(columns)
