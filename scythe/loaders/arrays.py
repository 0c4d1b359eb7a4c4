"""Columns as arrays: numbers in one type, what has a few values one-hot in the model's order. Refuses what is no number, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import polars as pl

from scythe.errors import InputError, NotFoundError, ReadError
from scythe.loaders.groups import option_like
from scythe.loaders.pinned import ROW_TABLES, PinnedRun
from scythe.names import RESERVED_TABLES, meant
from scythe_catalog.schema import TableSchema, mixed_units

#: The library whose arrays batches hold.
Arrays = Literal["numpy", "torch", "jax"]

_WAYS_OUT = {
    "text": "give it as a field of an Enum or Literal, or leave it out",
    "date": "make it a number in the function, or in an output (days since a day, the hour of the year)",
    "list": "put it into a file (`File(column)`) or a dataframe (`Frame(table, columns)`)",
}

#: A narrower type may round by so much of a column's range.
_ROUNDED = 1e-3


def categories(runs: Sequence[PinnedRun], column: str, group: str) -> tuple[str, ...] | None:
    """The values of a column that is shown one-hot, in the model's order; None of a number.

    Raises:
        NotFoundError: no run has such a column.
        InputError: it is no number.
    """
    check_column(runs, column, group)
    found: list[str] = []
    number: PinnedRun | None = None
    for run in runs:
        there = run.column_of(column)
        if there is None:
            continue
        dtype = pl.Series([], dtype=there.kind.polars()).dtype
        if isinstance(dtype, pl.Enum):
            found += [value for value in dtype.categories if value not in found]
        elif not (dtype.is_numeric() or isinstance(dtype, pl.Boolean | pl.Null)):
            way_out = f"it is a file: scythe.File({column!r})" if there.kind.is_file else _way_out(dtype)
            raise InputError(f"{group}: {column!r} is no number but {dtype}: {way_out}")
        elif dtype != pl.Null:
            number = run
    if found and number is not None:
        raise InputError(
            f"{group}: {column!r} is one of {', '.join(found)} in some runs, and a number in {number.key.path}: take runs of one version"
        )
    return tuple(found) or None


def check_column(runs: Sequence[PinnedRun], column: str, group: str) -> None:
    """Nothing where a run at least has such a column, and it has one unit in all.

    Raises:
        NotFoundError: none has; the message names the nearest.
        InputError: it has another unit in one run than in another, or is a file output of one and a value of another.
    """
    if not any(run.table_of(column) for run in runs):
        frames = sorted(
            {table for run in runs for table in run.schemas if table not in RESERVED_TABLES and run.has(table, column)}
        )
        if frames:
            raise NotFoundError(
                f"{group}: {column!r} is a column of the dataframe {frames[0]!r}, which has rows of its own: "
                f"scythe.Frame({frames[0]!r}, [{column!r}])"
            )
        known = sorted(
            {n for run in runs for t, schema in run.schemas.items() if t in ROW_TABLES for n in schema.names}
        )
        raise NotFoundError(f"{group}: there is no column {column!r}{near(column, known)}{option_like(group)}")
    files = [run for run in runs if run.has("result_file_refs", column) and not run.has("scalars", column)]
    others = [run for run in runs if run.has("scalars", column)]
    if files and others:
        raise InputError(
            f"{group}: {column!r} is a file output of {files[0].key.path}, and a value of {others[0].key.path}: take runs of one version"
        )
    there = [found for run in runs if (found := run.column_of(column)) is not None]
    if units := mixed_units(TableSchema((found,)) for found in there):
        (told,) = units.values()
        raise InputError(
            f"{group}: {column!r} is in [{'], ['.join(told)}], by version: take runs of one version, or bring them to one unit first"
        )


def _way_out(dtype: pl.DataType) -> str:
    if dtype.is_temporal():
        return _WAYS_OUT["date"]
    return _WAYS_OUT["text" if dtype == pl.String else "list"]


def near(name: str, known: Sequence[str]) -> str:
    """For a message: which name was meant by one that is not there, or which there are."""
    return meant(name, known) or (f"; there are {', '.join(known)}" if known else "; there is none")


def numbers(values: pl.Series, dtype: np.dtype) -> np.ndarray:
    """A column of numbers, to be put into an array of the given type; what is missing is NaN.

    Raises:
        InputError: the type has no place for a value: a fraction, or nothing, among whole numbers.
    """
    if values.dtype.is_decimal() and dtype.kind in "iu":  # floats would lose digits
        exact = values.cast(pl.Int64, strict=False)
        values = exact if (exact == values).fill_null(False).all() else values
    if not (values.dtype.is_float() or values.dtype.is_integer()):  # truth values, decimals, nothing at all
        values = values.cast(pl.Float64)
    whole = values.to_numpy()
    if dtype.kind == "f":
        return whole
    with np.errstate(invalid="ignore"):
        made = whole.astype(dtype)
    if values.null_count() or not (made == whole).all():
        raise InputError(f"{values.name!r} has values that {dtype} does not hold: take a dtype of floats")
    return made


def assign(out: np.ndarray, values: np.ndarray, what: str) -> None:
    """Puts values into an array, unless its type has no place for one of them.

    Raises:
        InputError: a number is beyond what the type reaches, and would be infinite.
    """
    try:
        with np.errstate(over="raise"):
            np.copyto(out, values, casting="same_kind" if out.dtype.kind == "f" else "unsafe")
    except FloatingPointError:
        raise InputError(
            f"{what} has values beyond what {out.dtype} reaches: take a wider one, as dtype='float64'"
        ) from None


class Kept:
    """Arrays of rows, which stay in memory once they have been read."""

    def __init__(self, values: np.ndarray) -> None:
        """Args: values: room for those of all rows."""
        self._values, self._there = values, np.zeros(len(values), bool)

    def lacking(self, at: np.ndarray) -> np.ndarray:
        """The rows among some that have not been read."""
        return at[~self._there[at]]

    def take(self, at: np.ndarray, read: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Those of some rows, of which `read` gives the ones that have not been."""
        new = self.lacking(at)
        if len(new):
            self._values[new] = found = read(new)
            self._there[new] = True
            if len(new) == len(at):
                return found
        return self._values.take(at, axis=0)


class Rounding:
    """Whether numbers of a column still differ in a narrower type: those that are far from zero, and near one another, do not."""

    def __init__(self, dtype: np.dtype) -> None:
        self.dtype = dtype
        self._share = float(np.finfo(dtype).eps) / 2 if dtype.kind == "f" else 0.0
        self._least = float(np.finfo(dtype).smallest_subnormal) / 2 if dtype.kind == "f" else 0.0
        self._low, self._high, self._lost = np.inf, -np.inf, 0.0
        #: What comes yet can only make their range larger.
        self._fine = dtype.kind != "f"

    def add(self, values: np.ndarray) -> None:
        """Looks at numbers, none of which is missing."""
        if self._fine or not len(values):
            return
        self._low, self._high = min(self._low, float(values.min())), max(self._high, float(values.max()))
        most = max(max(abs(self._low), abs(self._high)) * self._share, self._least)
        self._fine = most <= _ROUNDED * (self._high - self._low)
        if not self._fine:
            # Those that are as they were have lost nothing: whole numbers, and what was as narrow before.
            whole = values.astype(np.float64)
            with np.errstate(over="ignore", invalid="ignore"):
                self._lost = max(self._lost, float(np.abs(whole - whole.astype(self.dtype)).max()))

    def told(self, what: str) -> None:
        """Nothing where they do.

        Raises:
            InputError: they do not.
        """
        if not self._fine and self._lost > _ROUNDED * (self._high - self._low) > 0:
            raise InputError(
                f"{what} lies between {self._low!r} and {self._high!r}, where {self.dtype} rounds by up to "
                f"{self._lost / (self._high - self._low):.1%} of that range: take dtype='float64', or subtract an offset in the function"
            )


def one_hot(values: pl.Series, order: Sequence[str], dtype: np.dtype) -> np.ndarray:
    """A column a value: 1 where it is that."""
    place = {value: i for i, value in enumerate(order)}
    at = values.cast(pl.String).replace_strict(place, default=None, return_dtype=pl.Int64).fill_null(-1).to_numpy()
    return (at[:, None] == np.arange(len(order))).astype(dtype)


def is_missing(values: pl.Series) -> np.ndarray:
    """Where a column has nothing: null, or not a number."""
    missing = values.is_null()
    return (missing | values.is_nan().fill_null(True) if values.dtype.is_float() else missing).to_numpy()


def any_missing(values: pl.Series) -> bool:
    """Whether a column has nothing anywhere."""
    if values.null_count() or not len(values):
        return values.null_count() > 0
    return values.dtype.is_float() and bool(np.isnan(values.to_numpy().min()))  # the least of what holds a NaN is one


def converted(values: Any, to: Arrays) -> Any:
    """An array, or each of a list, as one of another library, with its memory where that can be.

    Raises:
        ReadError: JAX would cut its digits.
    """
    if to == "numpy":
        return values
    if isinstance(values, list):
        return [converted(one, to) for one in values]  # pyright: ignore[reportUnknownVariableType]
    if to == "torch":
        import torch  # pyright: ignore[reportMissingImports]

        return torch.from_numpy(np.ascontiguousarray(values))
    import jax.numpy as jnp  # pyright: ignore[reportMissingImports]

    made = jnp.asarray(values)
    if made.dtype != values.dtype:  # 64 bits are cut to 32 without a word, and whole numbers wrap around
        raise ReadError(
            f"JAX would make {made.dtype} of {values.dtype}: take dtype={str(made.dtype)!r}, or let it hold 64 bits with "
            'jax.config.update("jax_enable_x64", True)'
        )
    return made
