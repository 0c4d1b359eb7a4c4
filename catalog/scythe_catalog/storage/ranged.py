"""Objects of a bucket, read in ranges: as a file that can be sought in, and into a local file in parallel.

Every range is of one and the same content: an object that is replaced meanwhile is an error, never a mixture.
"""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scythe_catalog.errors import StorageError
from scythe_catalog.storage.provider import Provider

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

PART_BYTES = 8 * 1024 * 1024
_TAIL_BYTES = 256 * 1024
_AHEAD_BYTES = 1024 * 1024
_AT_ONCE = 8
#: The answers for a range of an object of no bytes: an error of S3's; all of it, to which obstore objects.
_NO_RANGE = ("InvalidRange", "non-partial response")


def look(provider: Provider, key: str) -> tuple[str | None, int]:
    """The tag and the size [bytes] of an object, which is not read; raises FileNotFoundError."""
    import obstore

    meta = provider.attempted(lambda: obstore.head(provider.store(), key))
    return meta["e_tag"], meta["size"]


def _got(provider: Provider, key: str, options: Any) -> tuple[Any, bytes]:
    """What is known of an object, and the bytes of a range of it; none of one that has none, which servers answer in ways of their own."""
    import obstore

    try:
        got = obstore.get(provider.store(), key, options=options)
        return got.meta, bytes(got.bytes())
    except obstore.exceptions.GenericError as error:
        if not any(told in str(error) for told in _NO_RANGE):
            raise
        meta = obstore.head(provider.store(), key)
        if meta["size"]:
            raise
        return meta, b""


class Unchanged(Exception):
    """The object is still what the tag names."""


class Ranged:
    """An object that is there, and its first bytes: a small one is whole after one request.

    Raises:
        Unchanged: it still has the tag `unless`.
        FileNotFoundError: there is no such object.
    """

    def __init__(self, provider: Provider, key: str, unless: str | None = None) -> None:
        import obstore

        self._provider, self._key = provider, key

        def first() -> tuple[Any, bytes]:
            options: Any = {"range": (0, PART_BYTES), **({"if_none_match": unless} if unless else {})}
            try:
                return _got(provider, key, options)
            except obstore.exceptions.NotModifiedError:
                raise Unchanged from None

        meta, self._head = provider.attempted(first)
        self.size: int = meta["size"]
        self.e_tag: str | None = meta["e_tag"]
        self.last_modified = str(meta["last_modified"])
        if unless is not None and unless == self.e_tag:
            raise Unchanged

    def save(self, path: Path) -> None:
        """Writes the object into a local file, large ones in parallel ranges.

        Raises:
            StorageError: what was written is not as long as the object, or another content came in its place meanwhile.
        """
        with path.open("wb") as target:

            def put(data: bytes | memoryview, start: int) -> None:
                while data:  # a disk may take less than it is given
                    written = os.pwrite(target.fileno(), data, start)
                    data, start = data[written:], start + written

            def part(start: int) -> None:
                put(read_range(self._provider, self._key, start, min(start + PART_BYTES, self.size), self.e_tag), start)

            put(self._head, 0)
            starts = range(len(self._head), self.size, PART_BYTES)
            if starts:
                with ThreadPoolExecutor(_AT_ONCE) as pool:
                    list(pool.map(part, starts))
            got = os.fstat(target.fileno()).st_size
        if got != self.size:
            raise StorageError(f"{self._provider.root}/{self._key}: got {got} of {self.size} bytes")
        if self.e_tag is None and starts:  # the ranges did not say of which content they are
            now = Ranged(self._provider, self._key)
            if (now.size, now.last_modified) != (self.size, self.last_modified):
                raise StorageError(f"{self._provider.root}/{self._key} was replaced while it was read")


class RangedFile(io.RawIOBase):
    """An object as a file to read: its last bytes come with the opening, for there is the footer of a Parquet file."""

    def __init__(self, provider: Provider, key: str) -> None:
        self._provider, self._key = provider, key
        meta, self._tail = provider.attempted(lambda: _got(provider, key, {"range": {"suffix": _TAIL_BYTES}}))
        self._size: int = meta["size"]
        self._e_tag: str | None = meta["e_tag"]
        self._at = 0

    @classmethod
    def open(cls, provider: Provider, key: str) -> io.BufferedReader:
        """The object, read ahead in blocks; raises FileNotFoundError."""
        return io.BufferedReader(cls(provider, key), _AHEAD_BYTES)

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
            data = read_range(self._provider, self._key, self._at, stop, self._e_tag)
        view[: len(data)] = data
        self._at += len(data)
        return len(data)


def read_range(provider: Provider, key: str, start: int, stop: int, e_tag: str | None) -> memoryview:
    """The bytes of an object from `start` until before `stop`, as long as it has still this tag.

    Raises:
        FileNotFoundError: there is no such object.
        StorageError: it is another one by now, or was cut short.
    """
    import obstore

    options: Any = {"range": (start, stop), **({"if_match": e_tag} if e_tag else {})}

    def attempt() -> memoryview:
        try:
            return memoryview(obstore.get(provider.store(), key, options=options).bytes())
        except obstore.exceptions.PreconditionError as error:
            raise StorageError(f"{provider.root}/{key} was replaced while it was read") from error

    data = provider.attempted(attempt)
    if len(data) != stop - start:
        raise StorageError(f"{provider.root}/{key}: got {len(data)} of the {stop - start} bytes from {start} on")
    return data
