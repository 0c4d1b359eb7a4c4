"""Brings files of a root into a folder: small ones a few at a time, large ones in parts, each under its name once it is whole.

A large file goes on where it was left, if its content is still the same. Sizes are always checked, and the sha256 where it
is known. Knows of runs only that these are what it brings files of.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path

import polars as pl

from scythe.errors import StorageError, StorageRefused, TransferError
from scythe.transfer.arrived import HELD, INSIDE, OBJECTS, Arrivals
from scythe_catalog.storage.objects import Objects

#: A file up to this size [bytes] is one request.
PART_BYTES = 8 * 1024 * 1024
#: More threads are slower for small files: they wait for one another rather than for the network.
_SMALL_AT_ONCE, _PARTS_AT_ONCE = 4, 8


@dataclass(frozen=True)
class _File:
    key: str
    size: int
    tag: str | None
    #: Of a file in a shard: which one, where it begins there, and its checksum.
    inside: str | None = None
    offset: int = 0
    crc32c: int | None = None
    #: Of a shard: where the files lie in it, and their checksums, as far as they are asked for.
    held: list[dict[str, int]] | None = None


def bring(
    source: Objects,
    files: pl.DataFrame,
    arrivals: Arrivals,
    sha256: Mapping[str, str],
    came: Callable[[int], None],
) -> None:
    """Copies files of a source (key, size, tag) to their places.

    Args:
        source: The root that they are taken from.
        files: Their keys, sizes and tags, as the source told them.
        arrivals: Where they go.
        sha256: Key -> what the content must have, of those of which it is known.
        came: Told how many bytes have arrived, again and again, from any thread.

    Raises:
        TransferError: one was changed, cut short or removed at its source.
        StorageError: the source cannot be reached, or the disk not be written.
    """
    (arrivals.folder / "under-way").mkdir(parents=True, exist_ok=True)
    one = _Copy(source, arrivals, sha256, came)
    shape = pl.DataFrame(schema={**OBJECTS, **INSIDE, **HELD}).select(f.name for f in fields(_File))
    given = [_File(*row) for row in pl.concat([shape, files], how="diagonal").select(shape.columns).iter_rows()]
    pool = ThreadPoolExecutor(_SMALL_AT_ONCE)
    try:
        for done in [pool.submit(one.small, file) for file in given if file.size <= PART_BYTES]:
            done.result()
    finally:
        pool.shutdown(cancel_futures=True)
    for file in given:
        if file.size > PART_BYTES:
            one.large(file)


@dataclass(frozen=True)
class _Copy:
    source: Objects
    arrivals: Arrivals
    sha256: Mapping[str, str]
    came: Callable[[int], None]

    def small(self, file: _File) -> None:
        data = self._part(file, 0, file.size) if file.size else b""
        if file.key in self.sha256:
            self._check(file, hashlib.sha256(data).hexdigest())
        part = self.arrivals.under_way(file.key, file.size, file.tag)
        part.write_bytes(data)
        self._take(part, file)
        self.came(len(data))

    def large(self, file: _File) -> None:
        """Parts are asked for several at a time, and written in their order: what there is of a file is its beginning."""
        part = self.arrivals.under_way(file.key, file.size, file.tag)
        with part.open("ab") as out:
            start = out.tell()
            self.came(start)
            for data in self._in_order(file, start):
                out.write(data)
                out.flush()
                self.came(len(data))
        if file.key in self.sha256:
            with part.open("rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
            try:
                self._check(file, found)
            except TransferError:
                part.unlink()
                raise
        self._take(part, file)

    def _in_order(self, file: _File, begin: int) -> Iterator[memoryview]:
        waiting: deque[Future[memoryview]] = deque()
        pool = ThreadPoolExecutor(_PARTS_AT_ONCE)
        try:
            for start in range(begin, file.size, PART_BYTES):
                if len(waiting) == _PARTS_AT_ONCE:
                    yield waiting.popleft().result()
                waiting.append(pool.submit(self._part, file, start, min(start + PART_BYTES, file.size)))
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _part(self, file: _File, start: int, stop: int) -> memoryview:
        try:
            if file.inside is not None:
                return self.source.part(file.inside, file.offset + start, file.offset + stop, None)
            return self.source.part(file.key, start, stop, file.tag)
        except FileNotFoundError as error:
            raise TransferError(
                f"{self.source.uri(file.inside or file.key)} is gone: it was removed since it was listed"
            ) from error
        except StorageRefused:
            raise
        except StorageError as error:
            raise TransferError(f"{error}. What has arrived stays: do the same again") from error

    def _check(self, file: _File, found: str) -> None:
        if found != self.sha256[file.key]:
            raise TransferError(
                f"{self.source.uri(file.key)} is not what it was when its run was allocated: its sha256 is {found}, "
                f"not {self.sha256[file.key]}. Put it back there, or leave its field out with files="
            )

    def _take(self, part: Path, file: _File) -> None:
        if damaged := next(
            (one for one in file.held or () if _crc32c(part, one["offset"], one["length"]) != one["crc32c"]), None
        ):
            part.unlink()
            raise TransferError(
                f"{self.source.uri(file.key)} is not what it was: the file of {damaged['length']:,} bytes from {damaged['offset']:,} on is damaged"
            )
        if file.crc32c is not None and _crc32c(part, 0, file.size) != file.crc32c:
            part.unlink()
            raise TransferError(
                f"{self.source.uri(file.inside or file.key)} is not what it was: {file.key} in it is damaged"
            )
        if (size := part.stat().st_size) != file.size:
            raise TransferError(f"{self.source.uri(file.key)}: got {size} of {file.size} bytes; do the same again")
        self.arrivals.take(part, file.key, file.size, file.tag)


def _crc32c(path: Path, offset: int, length: int) -> int:
    from google_crc32c import extend

    crc = 0
    with path.open("rb") as stream:
        stream.seek(offset)
        while length > 0 and (data := stream.read(min(length, PART_BYTES))):
            crc, length = extend(crc, data), length - len(data)
    return crc


__all__ = ["PART_BYTES", "bring"]
