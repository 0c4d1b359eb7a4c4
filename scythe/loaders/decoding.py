"""The arrays in files, by their suffixes. Reads no more than it is given."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
import polars as pl

from scythe.errors import InputError


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
        if (fortran and len(shape) > 1) or dtype.hasobject or not np.prod(shape):
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
            return pl.read_parquet(stream).to_numpy()
        case ".csv":
            return pl.read_csv(stream).to_numpy()
        case ".png" | ".jpg" | ".jpeg" | ".tif" | ".tiff" | ".bmp" | ".gif" | ".webp":
            return _image(name, stream)
        case suffix:
            raise InputError(
                f"files that end in {suffix!r} are not read by themselves: give load=, which makes an array of their bytes"
            )


def _image(name: str, stream: io.BytesIO) -> np.ndarray:
    try:
        from PIL import Image
    except ImportError as error:
        raise InputError(f"{name} is an image: install Pillow, or give load=") from error
    with Image.open(stream) as image:
        return np.asarray(image)


def put(name: str, found: np.ndarray, out: np.ndarray) -> None:
    """Copies what a file holds into an array, unless its type would cut it.

    Raises:
        InputError: it would.
    """
    try:
        with np.errstate(over="raise"):
            np.copyto(out, found, casting="same_kind")
    except (TypeError, FloatingPointError):
        raise InputError(f"{name} holds {found.dtype}, which {out.dtype} does not hold: take another dtype=") from None


__all__ = ["Npy", "decoded", "put"]
