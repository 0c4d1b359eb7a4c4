"""The arrays in files, by their suffixes. Reads no more than it is given."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
import polars as pl
import polars.selectors as cs

from scythe.errors import InputError
from scythe.loaders.files.images import Pixels, image_array, is_image, pixels_of
from scythe_catalog.memo import ForkedLock

_TABLES = (".parquet", ".pq", ".csv")
#: What the numbers of a file stand for: the names of a table's columns, in their order, or an image's pixels.
Form = tuple[str, ...] | Pixels
#: What the types of NumPy are that are no numbers.
_WORDS = {"S": "bytes", "U": "text", "O": "objects", "V": "records", "M": "dates", "m": "durations"}
#: NumPy has Python parse the header of an array, which Python 3.11 before 3.11.8 cannot do in two threads at once: it counts the depth of
#: both together (https://github.com/python/cpython/issues/106905).
_HEADERS = ForkedLock() if sys.version_info < (3, 11, 8) else contextlib.nullcontext()


@dataclass(frozen=True)
class Npy:
    """What the `.npy` files of a dataset begin with, if they are alike: then their arrays are read without looking at them."""

    header: bytes
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def bytes(self) -> int:
        """The length of such a file."""
        return len(self.header) + self.dtype.itemsize * int(np.prod(self.shape))

    @classmethod
    def of(cls, data: bytes) -> Npy | None:
        """Of a file that can be read so; None of others."""
        stream = io.BytesIO(data)
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        with _HEADERS:
            shape, fortran, dtype = read(stream)
        if (fortran and len(shape) > 1) or dtype.kind not in "biufc" or not np.prod(shape):
            return None
        return cls(data[: stream.tell()], shape, dtype)


def form_of(name: str, read: Callable[[], bytes]) -> Form | None:
    """What the numbers of a table or an image in a file stand for; None of another file, or where `decoded` says what is wrong."""
    if is_image(name):
        return pixels_of(read())
    if PurePath(name).suffix.lower() not in _TABLES:
        return None
    data = read()
    try:
        return tuple(
            pl.read_csv(io.BytesIO(data), n_rows=0).columns
            if _is_csv(name)
            else pl.read_parquet_schema(io.BytesIO(data))
        )
    except pl.exceptions.PolarsError:
        return None


def _is_csv(name: str) -> bool:
    return name.lower().endswith(".csv")


def decoded(name: str, data: bytes, like: Form | None = None) -> np.ndarray:
    """The array in a file of some name.

    Args:
        name: The file's name.
        data: What is in it.
        like: What the numbers of the first file stand for, so that those of this one stand for the same.

    Raises:
        InputError: it holds no single array, its kind is not known, or its numbers stand for something else.
    """
    if (table := _table(name, data)) is not None:
        columns = like if isinstance(like, tuple) else None
        if columns is not None and sorted(table.columns) != sorted(columns):
            raise InputError(
                f"has the columns {', '.join(table.columns)}, the first file has {', '.join(columns)}: give load=, which picks what all have"
            )
        return _array(table if columns is None else table.select(columns))
    stream = io.BytesIO(data)
    match PurePath(name).suffix.lower():
        case ".npy":
            with _HEADERS:
                return np.load(stream, allow_pickle=False)
        case ".npz":
            with _HEADERS, np.load(stream, allow_pickle=False) as arrays:
                if len(arrays.files) != 1:
                    raise InputError(f"holds {len(arrays.files)} arrays: give load=, which picks one")
                return arrays[arrays.files[0]]
        case _ if is_image(name):
            return image_array(data, like if isinstance(like, Pixels) else None)
        case suffix:
            raise InputError(
                f"ends in {suffix!r}, and such files are not read by themselves: give load=, which makes an array of their bytes"
            )


def loaded(load: Callable[[Any], Any], given: Any) -> np.ndarray:
    """The array that a user's function makes of a file.

    Raises:
        InputError: it says nothing of some numbers; whatever the function raises, but StopIteration.
    """
    try:
        found = load(given)
    except StopIteration as error:  # in a thread it would be taken for the end of the rows
        raise InputError("was given to load=, which raised StopIteration") from error
    if np.ma.is_masked(found):
        raise InputError("was made an array with a mask by load=: fill it, with .filled(value)")
    return np.asarray(found)


def _table(name: str, data: bytes) -> pl.DataFrame | None:
    """The table in a file, whose columns are numbers; None of a file that holds none."""
    if PurePath(name).suffix.lower() not in _TABLES:
        return None
    if not _is_csv(name):
        frame = pl.read_parquet(io.BytesIO(data))
    else:
        frame = pl.read_csv(io.BytesIO(data), infer_schema_length=None)
        if all(_is_number(column) for column in frame.columns):
            raise InputError(
                "begins with numbers, where the names of its columns are expected: give load=, which reads it"
            )
        if not frame.height:  # nobody knows what they would hold
            frame = frame.cast(pl.Float64)
    for column, dtype in frame.schema.items():
        if not (dtype.is_numeric() or isinstance(dtype, pl.Boolean | pl.Null)):
            raise InputError(f"has a column {column!r} that is no number but {dtype}: give load=, which leaves it out")
    return frame.cast({cs.decimal(): pl.Float64})


def _array(frame: pl.DataFrame) -> np.ndarray:
    """All columns in one type."""
    beside = any(dtype.is_float() for dtype in frame.dtypes)
    for column in (values.drop_nulls() for values in frame.select(cs.integer()) if beside or values.null_count()):
        if (rounded := column.filter(_rounded(column.to_numpy(), column.cast(pl.Float64).to_numpy()))).len():
            raise InputError(
                f"has a column {column.name!r} that holds {rounded[0]}, which no float is, among floats or gaps: "
                "give load=, which makes numbers of it"
            )
    return frame.to_numpy()


def _rounded(whole: np.ndarray, floats: np.ndarray) -> np.ndarray:
    """Which whole numbers are not what they are as floats."""
    limits, reals = np.iinfo(whole.dtype), np.real(floats).astype(np.float64)
    beyond = (reals < float(limits.min)) | (reals >= float(limits.max) + 1)
    return beyond | (np.where(beyond, 0, reals).astype(whole.dtype) != whole)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def put(found: np.ndarray, out: np.ndarray) -> tuple[int, str] | None:
    """Copies arrays, one a row, into others; the first row whose numbers the type would change, and why, where there is one."""
    whole = found.dtype.kind in "biu" and out.dtype.kind in "biu"
    if not (whole or np.can_cast(found.dtype, out.dtype, "same_kind")):
        held = _WORDS.get(found.dtype.kind)
        way = "let load= make numbers of it" if held else "take another dtype="
        return 0, f"holds {held or found.dtype}, which {out.dtype} does not hold: {way}"
    with np.errstate(over="ignore"):
        np.copyto(out, found, casting="unsafe" if whole else "same_kind")
    if found.dtype.kind in "iu" and out.dtype.kind in "fc":
        wrong = _rounded(found, out)
    elif np.can_cast(found.dtype, out.dtype, "safe"):
        return None
    else:
        wrong = np.isinf(out) & ~np.isinf(found) if out.dtype.kind in "fc" else out != found
    if not wrong.any():
        return None
    at = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
    return int(at[0]), f"holds {found[at]!s}, which {out.dtype} does not hold: take a wider dtype="


__all__ = ["Form", "Npy", "decoded", "form_of", "loaded", "put"]
