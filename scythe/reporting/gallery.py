"""The first images among the files that a run gave, made small. Fetches nothing from outside of the run's root."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import islice

import polars as pl

from scythe.errors import CatalogError
from scythe.names import ID_LEVELS
from scythe.reporting.facts import Picture
from scythe_catalog.storage.objects import Objects

MOST_PICTURES = 12
ENDINGS = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff")
_MOST_BYTES, _MOST_PIXELS = 30_000_000, 60_000_000
_SIDE = 360


def image_columns(frame: pl.DataFrame) -> list[str]:
    """The columns of file references that hold images."""
    texts = [n for n in frame.columns if n not in ID_LEVELS and frame.schema[n] == pl.String]
    return [n for n in texts if any(_is_image(uri) for uri in frame[n].drop_nulls().head(20))]


def pictures(objects: Objects, rows: pl.DataFrame, columns: Sequence[str]) -> tuple[tuple[Picture, ...], int]:
    """The first images, of each column in turn, and how many of these could not be read."""
    named = ((name, row) for row in rows.iter_rows(named=True) for name in columns if _is_image(row[name] or ""))
    found: list[Picture] = []
    unread = 0
    for name, row in islice(named, MOST_PICTURES):
        uri = row[name]
        small = _small(objects, uri)
        if small is None:
            unread += 1
        else:
            found.append(Picture(name, row["sort_index"], uri.rpartition("/")[2], *small))
    return tuple(found), unread


def _is_image(uri: str) -> bool:
    return uri.lower().endswith(ENDINGS)


def _small(objects: Objects, uri: str) -> tuple[bytes, int, int] | None:
    """An image as a small JPEG on white, with its width and height; None of what is none, or lies elsewhere."""
    from PIL import Image, UnidentifiedImageError

    try:
        key = objects.key(uri)
        if objects.size(key) > _MOST_BYTES:
            return None
        with Image.open(io.BytesIO(objects.read(key))) as image:
            if image.width * image.height > _MOST_PIXELS:
                return None
            image.draft("RGB", (2 * _SIDE, 2 * _SIDE))
            colours = image.convert("RGBA")
    except (CatalogError, OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    colours.thumbnail((_SIDE, _SIDE))
    page = Image.new("RGB", colours.size, "white")
    page.paste(colours, mask=colours.getchannel("A"))
    out = io.BytesIO()
    page.save(out, "JPEG", quality=82, optimize=True)
    return out.getvalue(), page.width, page.height
