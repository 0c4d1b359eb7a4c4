"""The rows of a table that a condition takes, which may name its columns as they are called now, or ever were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from scythe.errors import NotFoundError, ReadError
from scythe.names import meant


def filtered(frame: pl.LazyFrame, condition: pl.Expr, of: str, table: str, renamed: Mapping[str, str]) -> pl.LazyFrame:
    """The rows of a table for which a condition is true.

    Args:
        frame: The table, with the names of any time.
        condition: What is asked.
        of: What its rows are called.
        table: What it is called itself.
        renamed: Former name -> name.

    Raises:
        NotFoundError: the condition names a column that there is not.
        ReadError: it cannot be asked of the rows, or is none.
    """
    own = frame.collect_schema().names()
    if (name := unknown(frame, condition, renamed)) is not None:
        raise NotFoundError(missing(f"where= names a column that {table} has not:", name, own))
    both = frame.with_columns(_by_other_names(own, renamed))
    try:
        others = [dtype for dtype in both.select(condition).collect_schema().dtypes() if dtype != pl.Boolean]
        # Of no rows: what would be said of theirs is said of statistics of their files, which come before them.
        pl.DataFrame(schema=both.collect_schema()).lazy().filter(condition if not others else pl.lit(True)).collect()
    except pl.exceptions.PolarsError as error:
        raise ReadError(f"where= cannot be asked of {of}: {first_sentence(error)}") from error
    if others:
        raise ReadError(f"where= cannot be asked of {of}: it gives {others[0]}, neither true nor false")
    return both.filter(condition).select(own)


def unknown(frame: pl.LazyFrame, condition: pl.Expr, renamed: Mapping[str, str]) -> str | None:
    """The first column that a condition names and a table has by no name; None where it has all."""
    both = frame.with_columns(_by_other_names(frame.collect_schema().names(), renamed))
    try:
        both.select(condition).collect_schema()
    except pl.exceptions.ColumnNotFoundError as error:
        named = str(error).splitlines()[0].split('"')
        return named[1] if len(named) > 2 else named[0]
    except pl.exceptions.PolarsError:  # of which `filtered` tells
        pass
    return None


def _by_other_names(own: Sequence[str], renamed: Mapping[str, str]) -> list[pl.Expr]:
    """The columns that were renamed, by those of their names that they do not have in the table."""
    others: list[pl.Expr] = []
    for now in dict.fromkeys(renamed.values()):
        names = [now, *(former for former, name in renamed.items() if name == now)]
        there = [name for name in names if name in own]
        others += [pl.col(there[0]).alias(name) for name in names if there and name not in own]
    return others


def first_sentence(error: BaseException) -> str:
    """What is wrong, in one line: Polars shows its plan behind it."""
    return " ".join(str(error).split("\n\n", maxsplit=1)[0].split())


def missing(what: str, name: str, there: Sequence[str]) -> str:
    """That there is nothing of a name, what may have been meant, and what there is."""
    return f"{what} {name!r}{meant(name, there)}; there is {', '.join(there) or 'none'}"


__all__ = ["filtered", "first_sentence", "missing", "unknown"]
