"""Whether a condition of Polars takes the same rows whenever, and wherever, it is asked of them. Reads nothing."""

from __future__ import annotations

import contextlib
import re

import polars as pl

from scythe.errors import ReadError

#: As Polars writes expressions, as JSON: a rank that draws nothing has a seed, too.
_SEED, _RANK = '"seed":null', re.compile(r'"Rank":\{"options":\{"method":"(?!Random")[^}]*\},"seed":null')
#: As it writes them in short, which takes no time where they hold many values: the ways to a function of Python.
_PYTHON = (
    b"\xb1AnonymousFunction",
    b"\xa8callback",
    *(b"\xa3Map" + kind for kind in (b"\xc4", b"\xc5", b"\xc6", b"\xdc", b"\xdd")),
)
#: As JSON: what gives values in another order each time. Where it does, one of so many answers is another one.
_UNORDERED, _TIMES_UNORDERED = ('"Unique":false', '"ValueCounts"', '"maintain_order":false', '"mapping":"Explode"'), 8
#: So many rows tell whether a function of Python draws at random.
_ROWS_OF_PYTHON = 1000
OTHER_ROWS = (
    "and so other rows would be taken in each process: take them by what follows from the row alone, as pl.col(…).hash() or shuffle(seed=0) "
    "of Polars do, or a share of them with split(some=0.1)"
)


def check_seeded(where: pl.Expr) -> None:
    """Nothing where an expression takes the same rows in each process that asks it, but for what a function of Python does.

    Raises:
        ReadError: it draws at random, without a seed.
    """
    try:
        written = where.meta.serialize(format="json")
    except pl.exceptions.ComputeError:  # it calls what cannot be pickled, and is told apart when it is asked
        return
    if _SEED in _RANK.sub("", written):
        raise ReadError(
            f"where={where!s:.200} draws at random, and so takes other rows in each process that asks it: give it a seed, as "
            "shuffle(seed=0), or take a share of the rows by a hash of their inputs, split(some=0.1)"
        )


def check_repeats(where: pl.Expr, rows: pl.DataFrame) -> None:
    """Nothing where a condition takes the same of some rows whenever it is asked of them, as far as that can be told in one process.

    Raises:
        ReadError: it does not.
    """
    times = _TIMES_UNORDERED if _is_unordered(where) else 2
    if calls := _calls_python(where):  # which takes its time
        rows = rows.head(_ROWS_OF_PYTHON)
    found: list[pl.DataFrame] = []
    with contextlib.suppress(Exception):  # what fails is told by all rows
        found = [rows.select(where) for _ in range(times)]
    if not all(one.equals(found[0]) for one in found):
        why = (
            "calls a function of Python that answers otherwise each time (does it draw random numbers?)"
            if calls
            else "answers otherwise each time (unique(), value_counts() and mode() give values in no order: sort them)"
        )
        raise ReadError(f"where= {why}, {OTHER_ROWS}")


def _is_unordered(where: pl.Expr) -> bool:
    """Whether an expression asks for values in whatever order they come, which is another one each time."""
    try:
        written = where.meta.serialize(format="json")
    except pl.exceptions.ComputeError:
        return False
    return any(way in written for way in _UNORDERED)


def _calls_python(where: pl.Expr) -> bool:
    """Whether an expression calls a function of Python, which may answer otherwise in each process."""
    try:
        written = where.meta.serialize()
    except pl.exceptions.ComputeError:  # what it calls cannot be pickled
        return True
    return any(way in written for way in _PYTHON)


__all__ = ["OTHER_ROWS", "check_repeats", "check_seeded"]
