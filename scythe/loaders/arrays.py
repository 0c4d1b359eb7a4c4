"""Columns as arrays: numbers in one type, what has a few values one-hot in the model's order. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import polars as pl

from scythe.errors import InputError, ReadError

#: The library whose arrays batches hold.
Arrays = Literal["numpy", "torch", "jax"]

#: A narrower type may round by so much of a column's range.
ROUNDED = 1e-3
#: Floats differ by their last digits alone, which computing leaves, where their range is no more than so many of these.
_NOISE = 8


def reals_of(dtype: np.dtype) -> np.dtype:
    """The type of the real part of complex numbers; of others their own."""
    return np.real(np.empty(0, dtype)).dtype


def wider_than(dtype: np.dtype) -> str | None:
    """The widest type of the same kind of floats, or complex numbers, that all libraries know; None of what is as wide."""
    if reals_of(dtype).itemsize >= 8:
        return None
    return "complex128" if dtype.kind == "c" else "float64"


def numbers(values: pl.Series, dtype: np.dtype) -> np.ndarray:
    """A column of numbers, to be put into an array of the given type; what is missing is NaN.

    Raises:
        InputError: the type has no place for a value: a fraction, or nothing, among whole numbers.
    """
    if values.dtype.is_decimal() and dtype.kind in "iu":  # floats would lose digits
        exact = values.cast(pl.UInt64 if dtype.kind == "u" else pl.Int64, strict=False)
        values = exact if (exact == values).fill_null(False).all() else values
    if not (values.dtype.is_float() or values.dtype.is_integer()):  # truth values, decimals, nothing at all
        values = values.cast(pl.Float64)
    whole = values.to_numpy()
    if dtype.kind in "fc":
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
            np.copyto(out, values, casting="same_kind" if out.dtype.kind in "fc" else "unsafe")
    except FloatingPointError:
        raise InputError(
            f"{what} has values beyond what {out.dtype} reaches: take a wider one, as dtype={wider_than(out.dtype) or 'float64'!r}"
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
        self.dtype, self._reals = dtype, reals_of(dtype)
        rounds = dtype.kind in "fc"
        self._share = float(np.finfo(self._reals).eps) / 2 if rounds else 0.0
        self._least = float(np.finfo(self._reals).smallest_subnormal) / 2 if rounds else 0.0
        self._low, self._high, self._lost = np.inf, -np.inf, 0.0
        #: What comes yet can only make their range larger.
        self._fine = not rounds
        #: By how much the type that they come in rounds, as a share; 0 of whole numbers.
        self._own = 0.0

    def add(self, values: np.ndarray) -> None:
        """Looks at numbers, none of which is missing."""
        if self._fine or not len(values):
            return
        self._own = max(self._own, float(np.finfo(values.dtype).eps)) if values.dtype.kind == "f" else 0.0
        # Whole numbers are told exactly, also where no float is.
        self._low, self._high = min(self._low, values.min().item()), max(self._high, values.max().item())
        most = max(max(abs(self._low), abs(self._high)) * self._share, self._least)
        self._fine = most <= ROUNDED * (self._high - self._low)
        if not self._fine:
            # Those that are as they were have lost nothing: few digits, and what was as narrow before.
            with np.errstate(over="ignore", invalid="ignore"):
                self._lost = max(self._lost, float(_lost(values, values.astype(self._reals)).max()))

    @property
    def is_open(self) -> bool:
        """Whether more numbers may tell: those that have come lie near one another, or are one."""
        return not self._fine

    def told(self, what: str) -> None:
        """Nothing where they do, or are one number but for what computing has left.

        Raises:
            InputError: they do not.
        """
        if self._high - self._low <= _NOISE * self._own * max(abs(self._low), abs(self._high)):
            return
        if not self._fine and self._lost > ROUNDED * (self._high - self._low) > 0:
            whole = isinstance(self._low, int) and max(abs(self._low), abs(self._high)) > 2**53
            wider = "int64" if whole else wider_than(self.dtype)
            way = f"take dtype={wider!r}, or " if wider else ""
            raise InputError(
                f"{what} lies between {self._low!r} and {self._high!r}, where {self.dtype} rounds by up to "
                f"{self._lost / (self._high - self._low):.1%} of that range: {way}subtract an offset in the function"
            )


def _lost(values: np.ndarray, narrow: np.ndarray) -> np.ndarray:
    """By how much numbers differ from those that a narrower type made of them."""
    if values.dtype.kind not in "iu":
        return np.abs(values.astype(np.float64) - narrow)
    limits, whole = np.iinfo(values.dtype), narrow.astype(np.float64)
    beyond = whole >= float(limits.max)
    back = np.where(beyond, 0, whole).astype(values.dtype)
    back[beyond] = limits.max
    return np.maximum(values, back) - np.minimum(values, back)


def rounded(whole: np.ndarray, floats: np.ndarray) -> np.ndarray:
    """Which whole numbers are not what they are as floats."""
    limits, reals = np.iinfo(whole.dtype), np.real(floats).astype(np.float64)
    beyond = (reals < float(limits.min)) | (reals >= float(limits.max) + 1)
    return beyond | (np.where(beyond, 0, reals).astype(whole.dtype) != whole)


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


def as_array(values: Any) -> np.ndarray:
    """An array of what NumPy takes, and of any tensor of PyTorch: one that a model gave, too, or of bfloat16, which comes as float32."""
    if callable(getattr(values, "detach", None)):
        values = values.detach().cpu()
        if str(values.dtype) == "torch.bfloat16":
            values = values.float()
    return np.asarray(values)


def converted(values: Any, to: Arrays) -> Any:
    """An array, or each of a list, as one of another library, with its memory where that can be.

    Raises:
        ReadError: JAX would cut its digits, or PyTorch has no such numbers.
    """
    if to == "numpy":
        return values
    if isinstance(values, list):
        return [converted(one, to) for one in values]  # pyright: ignore[reportUnknownVariableType]
    if to == "torch":
        import torch  # pyright: ignore[reportMissingImports]

        try:
            # It would make a list of one of a single number.
            return torch.from_numpy(np.ascontiguousarray(values) if values.ndim else values)
        except TypeError:
            raise ReadError(f"PyTorch has no {values.dtype}: take dtype='float64', or to='numpy'") from None
    import jax.numpy as jnp  # pyright: ignore[reportMissingImports]

    made = jnp.asarray(values)
    if made.dtype != values.dtype:  # 64 bits are cut to 32 without a word, and whole numbers wrap around
        raise ReadError(
            f"JAX would make {made.dtype} of {values.dtype}: take dtype={str(made.dtype)!r}, or let it hold 64 bits with "
            'jax.config.update("jax_enable_x64", True)'
        )
    return made
