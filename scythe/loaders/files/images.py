"""The arrays in files of images, where Pillow is. Reads no more than it is given."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np

from scythe.errors import InputError

_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp")
#: Modes of Pillow of a byte a number.
_OF_BYTES = ("L", "LA", "La", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV")
#: Tag of TIFF 6.0, whose first bit says that a page is a smaller copy of another.
_NEW_SUBFILE_TYPE = 254


def is_image(name: str) -> bool:
    """Whether a file of this name holds an image."""
    return PurePath(name).suffix.lower() in _SUFFIXES


@dataclass(frozen=True)
class Pixels:
    """What the numbers of an image stand for: of two modes of Pillow, or of two palettes, the same numbers are other colours."""

    mode: str
    #: Red, green and blue of each number, in turn; empty where the numbers are no places in a palette.
    palette: bytes

    def check_like(self, first: Pixels) -> None:
        """Refuses an image that would mean something else in one array with the first.

        Raises:
            InputError: it does.
        """
        if self.mode != first.mode:
            why = f"is an image of mode {self.mode!r}, the first file one of mode {first.mode!r}"
        elif self.palette != first.palette:
            why = "is an image of numbered colours, and its palette is another than that of the first file"
        else:
            return
        raise InputError(
            f"{why}: give load=, which makes one mode of all, as Image.open(io.BytesIO(raw)).convert('RGB')"
        )


def pixels_of(data: bytes) -> Pixels | None:
    """What the numbers of an image stand for; None where `image_array` says what is wrong with it."""
    try:
        from PIL import Image

        with Image.open(io.BytesIO(data)) as image:
            _turn_to_picture(image)
            return _pixels(image)
    except Exception:  # noqa: BLE001 - a broken file makes Pillow raise almost anything
        return None


def image_array(data: bytes, first: Pixels | None = None) -> np.ndarray:
    """The numbers of an image, `(height, width)` or `(height, width, channels)`.

    Args:
        data: What is in the file.
        first: What the numbers of the first image stand for, if this is to be like it.

    Raises:
        InputError: Pillow is not installed, it is several images, its numbers have more bits than Pillow gives, or they stand for something else than those of the first.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise InputError("is an image: install Pillow, or give load=") from error
    with Image.open(io.BytesIO(data)) as image:
        _turn_to_picture(image)
        _check_depth(image)
        if first is not None:
            _pixels(image).check_like(first)
        return np.asarray(image)


def _pixels(image: Any) -> Pixels:
    return Pixels(image.mode, bytes(image.getpalette("RGB") or ()) if image.mode in ("P", "PA") else b"")


def _check_depth(image: Any) -> None:
    """Nothing where an image's numbers come as they are in the file.

    Raises:
        InputError: Pillow, which has no such mode, would cut those of 16 bits to 8, or multiply those of less.
    """
    for _, _, _, how in getattr(image, "tile", ()):
        stored = str(how[0] if isinstance(how, tuple) and how else how)
        mode, _, bits = stored.partition(";")
        if image.mode in _OF_BYTES and (bits.startswith("16") or (mode == "L" and bits[:1] in ("2", "4"))):
            raise InputError(
                f"is an image of mode {mode!r} whose numbers have {re.sub('[^0-9].*', '', bits)} bits, which Pillow would bring to 8: "
                "give load=, which reads it otherwise"
            )


def _turn_to_picture(image: Any) -> None:
    """Turns an image's pages to its picture: smaller copies of it, as photos and tiled TIFFs have them, do not count.

    Raises:
        InputError: it has several.
    """
    count = getattr(image, "n_frames", 1)
    if count == 1 or image.format == "MPO":
        return
    whole: list[int] = []
    for page in range(count):
        image.seek(page)
        if not getattr(image, "tag_v2", {}).get(_NEW_SUBFILE_TYPE, 0) & 1:
            whole.append(page)
    if len(whole) != 1:
        raise InputError(f"holds {count} images: give load=, which picks one, or stacks them")
    image.seek(whole[0])


__all__ = ["Pixels", "image_array", "is_image", "pixels_of"]
