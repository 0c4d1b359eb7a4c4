"""The arrays in files, by their suffixes. Reads no more than it is given."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
import polars as pl
import polars.selectors as cs

from scythe.errors import InputError

#: What the types of NumPy are that are no numbers.
_WORDS = {"S": "bytes", "U": "text", "O": "objects", "V": "records", "M": "dates", "m": "durations"}


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
        shape, fortran, dtype = read(stream)
        if (fortran and len(shape) > 1) or dtype.kind not in "biufc" or not np.prod(shape):
            return None
        return cls(data[: stream.tell()], shape, dtype)


def decoded(name: str, data: bytes) -> np.ndarray:
    """The array in a file of some name.

    Raises:
        InputError: it holds no single array, or its kind is not known.
    """
    stream = io.BytesIO(data)
    match PurePath(name).suffix.lower():
        case ".npy":
            return np.load(stream, allow_pickle=False)
        case ".npz":
            with np.load(stream, allow_pickle=False) as arrays:
                if len(arrays.files) != 1:
                    raise InputError(f"{name} holds {len(arrays.files)} arrays: give load=, which picks one")
                return arrays[arrays.files[0]]
        case ".parquet" | ".pq":
            return _array(name, pl.read_parquet(stream))
        case ".csv":
            return _csv(name, stream)
        case ".png" | ".jpg" | ".jpeg" | ".tif" | ".tiff" | ".bmp" | ".gif" | ".webp":
            return _image(name, stream)
        case suffix:
            raise InputError(
                f"files that end in {suffix!r} are not read by themselves: give load=, which makes an array of their bytes"
            )


def _csv(name: str, stream: io.BytesIO) -> np.ndarray:
    frame = pl.read_csv(stream, infer_schema_length=None)
    if all(_is_number(column) for column in frame.columns):
        raise InputError(
            f"{name} begins with numbers, where the names of its columns are expected: give load=, which reads it"
        )
    for column, dtype in frame.schema.items():
        if not (dtype.is_numeric() or isinstance(dtype, pl.Boolean | pl.Null)):
            raise InputError(
                f"the column {column!r} of {name} is no number but {dtype}: give load=, which leaves it out"
            )
    return _array(name, frame)


def _array(name: str, frame: pl.DataFrame) -> np.ndarray:
    """All columns in one type."""
    beside = any(dtype.is_float() for dtype in frame.dtypes)
    for column in (values.drop_nulls() for values in frame.select(cs.integer()) if beside or values.null_count()):
        if (rounded := column.filter(_rounded(column.to_numpy(), column.cast(pl.Float64).to_numpy()))).len():
            raise InputError(
                f"the column {column.name!r} of {name} holds {rounded[0]}, which no float is, among floats or gaps: "
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


def _image(name: str, stream: io.BytesIO) -> np.ndarray:
    try:
        from PIL import Image
    except ImportError as error:
        raise InputError(f"{name} is an image: install Pillow, or give load=") from error
    with Image.open(stream) as image:
        return np.asarray(image)


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


__all__ = ["Npy", "decoded", "put"]
