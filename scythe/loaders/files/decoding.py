"""The arrays in files, by their suffixes. Reads no more than it is given."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any
from zipfile import BadZipFile

import numpy as np

from scythe.errors import InputError
from scythe.loaders.arrays import Rounding, as_array, rounded
from scythe.loaders.files.images import Pixels, image_array, is_image, pixels_of
from scythe.loaders.files.tables import columns_of, is_table, table_array
from scythe_catalog.memo import ForkedLock

#: What the numbers of a file stand for: the names of a table's columns, in their order, that of the one array in an archive, or an image's
#: pixels.
Form = tuple[str, ...] | str | Pixels
#: What the types of NumPy are that are no numbers.
_WORDS = {"S": "bytes", "U": "text", "O": "objects", "V": "records", "M": "dates", "m": "durations"}
#: So many files beside the first are enough to see whether they differ.
_LOOKED_AT = 8
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
    with contextlib.suppress(InputError, ValueError, OSError, BadZipFile):
        if is_table(name):
            return columns_of(name, read())
        if PurePath(name).suffix.lower() == ".npz":
            with _HEADERS, np.load(io.BytesIO(read()), allow_pickle=False) as arrays:
                return _only(arrays.files)
    return None


def _only(names: Sequence[str]) -> str:
    """The name of the one array in an archive.

    Raises:
        InputError: there are more, or none.
    """
    if len(names) != 1:
        raise InputError(f"holds {len(names)} arrays: give load=, which picks one")
    return names[0]


def decoded(
    name: str, data: bytes, dtype: np.dtype, like: Form | None = None, columns: Sequence[str] | None = None
) -> np.ndarray:
    """The array in a file of some name.

    Args:
        name: The file's name.
        data: What is in it.
        dtype: What the array is to be put into.
        like: What the numbers of the first file stand for, so that those of this one stand for the same.
        columns: Of a table, those that are taken.

    Raises:
        InputError: it holds no single array, its kind is not known, or its numbers stand for something else.
    """
    if is_table(name):
        return table_array(name, data, dtype, like if isinstance(like, tuple) else None, columns)
    if columns is not None:
        raise InputError("is no table, of which columns= could be taken")
    stream = io.BytesIO(data)
    match PurePath(name).suffix.lower():
        case ".npy":
            with _HEADERS, _of_numbers():
                return np.load(stream, allow_pickle=False)
        case ".npz":
            with _HEADERS, _of_numbers(), np.load(stream, allow_pickle=False) as arrays:
                array = _only(arrays.files)
                if isinstance(like, str) and array != like:
                    raise InputError(
                        f"holds the array {array!r}, the first file {like!r}: give load=, which picks what all have"
                    )
                return arrays[array]
        case _ if is_image(name):
            return image_array(data, like if isinstance(like, Pixels) else None)
        case suffix:
            raise InputError(
                f"ends in {suffix!r}, and such files are not read by themselves: give load=, which makes an array of their bytes"
            )


@contextlib.contextmanager
def _of_numbers() -> Generator[None]:
    """What NumPy says of what is no array of numbers, in words of this library: its own advice is not safe."""
    try:
        yield
    except ValueError as error:
        if "pickle" not in str(error):
            raise
        raise InputError(
            "holds Python's objects, or is no array: save an array of numbers, or give load=, which reads it"
        ) from error


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
    return as_array(found)


class Digits:
    """Whether a narrower type of floats still tells the numbers of files apart; those of tables column by column."""

    def __init__(self, dtype: np.dtype, columns: Sequence[str] = ()) -> None:
        self._dtype, self._columns = dtype, columns
        self._parts: dict[str, Rounding] = {}
        self._files = 0

    def add(self, found: np.ndarray) -> None:
        """Looks at the array of a file."""
        if found.dtype.kind not in "fc" or np.can_cast(found.dtype, self._dtype, "safe"):
            return
        self._files += 1
        parts: list[tuple[str, np.ndarray]] = [("holds what", found)]
        if self._columns and found.ndim == 2 and found.shape[1] == len(self._columns):
            parts = [
                (f"has a column {name!r} that", values) for name, values in zip(self._columns, found.T, strict=True)
            ]
        if found.dtype.kind == "c":
            parts = [("has real parts of what", np.real(found)), ("has imaginary parts of what", np.imag(found))]
        for what, values in parts:
            self._parts.setdefault(what, Rounding(self._dtype)).add(values[np.isfinite(values)])

    @property
    def is_open(self) -> bool:
        """Whether more files may tell: their numbers lie near one another, or are one."""
        return any(rounding.is_open for rounding in self._parts.values())

    def check(self) -> None:
        """Nothing where it does.

        Raises:
            InputError: it does not.
        """
        for what, rounding in self._parts.items():
            rounding.told(f"with others {what}" if self._files > 1 else what)


def spread_over(rows: int) -> list[int]:
    """Some rows beside the first, whose files are looked at where its numbers alone do not tell whether a narrower type is enough."""
    return np.unique(np.linspace(0, rows - 1, 1 + _LOOKED_AT).astype(int))[1:].tolist()


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
        wrong = rounded(found, out)
    elif np.can_cast(found.dtype, out.dtype, "safe"):
        return None
    else:
        wrong = np.isinf(out) & ~np.isinf(found) if out.dtype.kind in "fc" else out != found
    if not wrong.any():
        return None
    at = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
    return int(at[0]), f"holds {found[at]!s}, which {out.dtype} does not hold: take a wider dtype="


__all__ = ["Digits", "Form", "Npy", "decoded", "form_of", "loaded", "put", "spread_over"]
