"""Output files of a chunk, one behind another in one file of the staging folder: a shard, which is stored by one request.

A range of its bytes is the file as it was. Publishes nothing itself.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Self

from scythe.record.plan import RunPlan
from scythe.remote.packed import Packed

#: A shard that has come to so many bytes gets no more files.
MOST_BYTES = 128 * 1024 * 1024
_BLOCK = 4 * 1024 * 1024


@dataclass(eq=False)
class _Shard:
    path: Path
    key: str
    file: BinaryIO
    #: Where the files of each input begin in it, in their order.
    begins: dict[int, int] = field(default_factory=dict[int, int])


class Shards:
    """The shards of one chunk of inputs."""

    def __init__(self, plan: RunPlan) -> None:
        self._plan, self._objects = plan, plan.objects
        self._open: list[_Shard] = []

    def put(self, i: int, content: Iterable[bytes], name: str) -> str:
        """Copies the content of a file of an input behind the others; its address."""
        from google_crc32c import extend  # where nothing is packed, no process loads it

        shard = self._open[-1] if self._open else self._begun(name)
        if shard.file.tell() >= MOST_BYTES:
            shard = self._begun(name)
        offset, crc = shard.file.tell(), 0
        shard.begins.setdefault(i, offset)
        for data in content:
            crc = extend(crc, data)
            shard.file.write(data)
        return Packed(self._objects.uri(shard.key), offset, shard.file.tell() - offset, crc, name).uri

    def drop(self, i: int) -> None:
        """Takes the files of an input back; where others lie behind them, their bytes stay, and nothing names them."""
        for shard in self._open:
            begin = shard.begins.pop(i, None)
            if begin is not None and all(other < begin for other in shard.begins.values()):
                shard.file.seek(begin)
                shard.file.truncate()

    @property
    def full(self) -> bool:
        """Whether there is one that gets no more files."""
        return len(self._open) > 1

    def close(self) -> list[tuple[Path, str]]:
        """Closes all; those that hold something, and their keys."""
        for shard in self._open:
            shard.file.close()
            if not shard.begins:
                self._objects.discard(shard.path)
        whole = [(shard.path, shard.key) for shard in self._open if shard.begins]
        self._open.clear()
        return whole

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Drops what was not closed: the block has failed."""
        self.abandon()

    def abandon(self) -> None:
        """Drops all, on a disk that may be full."""
        for shard in self._open:
            with suppress(OSError):
                shard.file.close()
            self._objects.discard(shard.path)
        self._open.clear()

    def _begun(self, name: str) -> _Shard:
        path = self._objects.staging_file("shard.bin")
        shard = _Shard(path, new_shard(self._plan, name), path.open("wb"))
        self._open.append(shard)
        return shard


def blocks_of(path: Path) -> Iterator[bytes]:
    """The content of a file."""
    with path.open("rb") as source:
        while data := source.read(_BLOCK):
            yield data


def new_shard(plan: RunPlan, first: str) -> str:
    """The key of a shard that nobody else writes, named by the first file in it: their order is that of the inputs."""
    number = first[:36].partition(".")[0].rpartition("-")[2]  # an identifier has so many characters
    return plan.key.shard(f"{number}-{uuid.uuid4().hex[:8]}.bin")


__all__ = ["MOST_BYTES", "Shards", "blocks_of", "new_shard"]
