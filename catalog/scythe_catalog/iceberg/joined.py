"""A Parquet file that is put together of the row groups of others, copied by their bytes: nothing is decoded, nothing encoded again.

Joining 133 MB took 0.13 s where encoding them again took 1.39 s. Knows bytes and footers, neither schemas nor catalogs.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import BinaryIO

from scythe_catalog.iceberg.footer import MAGIC, Footer, footer_length

_TAIL_BYTES = 8
_BLOCK = 8 * 1024 * 1024


class JoinedFile:
    """The file at `path`, while row groups are appended to it; whole once it was closed."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._file.write(MAGIC)
        self._taken: list[tuple[Footer, int]] = []

    def append(self, source: BinaryIO) -> None:
        """Copies all row groups of a Parquet file, whose columns must be those of the others in name, type and order.

        Raises:
            ValueError: it is no Parquet file.
        """
        end, footer = _footer(source)
        self._taken.append((footer, self._file.tell() - len(MAGIC)))
        source.seek(len(MAGIC))
        left = end - len(MAGIC)
        while left:
            block = source.read(min(left, _BLOCK))
            if not block:
                raise ValueError(f"a Parquet file ends {left} bytes before its footer")
            self._file.write(block)
            left -= len(block)

    def close(self, like: bytes) -> None:
        """Writes the footer: columns, and what is told of the file, are those of `like`, a Parquet file without rows."""
        _, footer = _footer(io.BytesIO(like))
        footer.clear()
        for taken, moved in self._taken:
            footer.take(taken, moved)
        with self._file:
            self._file.write(footer.to_bytes())

    def abandon(self) -> None:
        """Closes the file as it is, which is no Parquet file."""
        self._file.close()


def _footer(source: BinaryIO) -> tuple[int, Footer]:
    """Where the row groups end, and the footer behind them."""
    size = source.seek(0, os.SEEK_END)
    source.seek(size - _TAIL_BYTES)
    length = footer_length(source.read(_TAIL_BYTES))
    end = size - _TAIL_BYTES - length
    source.seek(end)
    return end, Footer(source.read(length))
