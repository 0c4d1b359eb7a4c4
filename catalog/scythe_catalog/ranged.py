"""Objects of a bucket, read in ranges: as a file that can be sought in, and into a local file in parallel.

Every range is of one and the same content: an object that is replaced meanwhile is an error, never a mixture.
"""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scythe_catalog.s3 import attempted, s3_store

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

PART_BYTES = 8 * 1024 * 1024
_TAIL_BYTES = 256 * 1024
_AHEAD_BYTES = 1024 * 1024
_AT_ONCE = 8


class Found:
    """An object that is there, and its first bytes: a small one is whole after one request."""

    def __init__(self, root: str, key: str) -> None:
        import obstore

        self._root, self._key = root, key

        def first() -> tuple[Any, bytes]:
            try:
                got = obstore.get(s3_store(root), key, options={"range": (0, PART_BYTES)})
            except obstore.exceptions.GenericError as error:
                if "InvalidRange" not in str(error):  # the answer for an object of no bytes
                    raise
                got = obstore.get(s3_store(root), key)
            return got.meta, bytes(got.bytes())

        meta, self._head = attempted(root, first)
        self.size: int = meta["size"]
        self._e_tag: str | None = meta["e_tag"]
        #: Changes whenever the content does.
        self.tag: str = self._e_tag or f"{meta['last_modified']}-{self.size}"

    def save(self, path: Path) -> None:
        """Writes the object into a local file, large ones in parallel ranges."""
        with path.open("wb") as target:
            target.write(self._head)
            target.flush()
            starts = range(len(self._head), self.size, PART_BYTES)
            if not starts:
                return

            def part(start: int) -> None:
                stop = min(start + PART_BYTES, self.size)
                os.pwrite(target.fileno(), _range(self._root, self._key, start, stop, self._e_tag), start)

            with ThreadPoolExecutor(_AT_ONCE) as pool:
                list(pool.map(part, starts))


class RangedFile(io.RawIOBase):
    """An object as a file to read: its last bytes come with the opening, for there is the footer of a Parquet file."""

    def __init__(self, root: str, key: str) -> None:
        import obstore

        self._root, self._key = root, key

        def last() -> tuple[Any, bytes]:
            got = obstore.get(s3_store(root), key, options={"range": {"suffix": _TAIL_BYTES}})
            return got.meta, bytes(got.bytes())

        meta, self._tail = attempted(root, last)
        self._size: int = meta["size"]
        self._e_tag: str | None = meta["e_tag"]
        self._at = 0

    @classmethod
    def open(cls, root: str, key: str) -> io.BufferedReader:
        """The object, read ahead in blocks; raises FileNotFoundError."""
        return io.BufferedReader(cls(root, key), _AHEAD_BYTES)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence])
        return self._at

    def readall(self) -> bytes:
        content = bytearray(max(0, self._size - self._at))
        self.readinto(content)
        return bytes(content)

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        stop = min(self._at + len(view), self._size)
        if stop <= self._at:
            return 0
        in_tail = self._at - (self._size - len(self._tail))
        if in_tail >= 0:
            data = self._tail[in_tail : in_tail + stop - self._at]
        else:
            data = _range(self._root, self._key, self._at, stop, self._e_tag)
        view[: len(data)] = data
        self._at += len(data)
        return len(data)


def _range(root: str, key: str, start: int, stop: int, e_tag: str | None) -> bytes:
    import obstore

    options: Any = {"range": (start, stop), "if_match": e_tag}
    return attempted(root, lambda: bytes(obstore.get(s3_store(root), key, options=options).bytes()))
