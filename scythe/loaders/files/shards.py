"""Shards that samples are read from: on a disk by their positions, of a bucket by blocks that the cache keeps.

`Packs` says where the file of each row lies; the others read bytes into memory that the caller gives, and know nothing of arrays.
"""

from __future__ import annotations

import mmap
import os
import sys
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakValueDictionary, ref

import numpy as np
import polars as pl

from scythe.errors import FetchError
from scythe.remote.packed import PREFIX, taken_apart
from scythe.remote.published import kept_file, published, waiting
from scythe.remote.schemes import is_in_bucket
from scythe.remote.shards import local_shard
from scythe_catalog.memo import ForkedLock, cached_property

#: What is asked of a bucket at once. Ranges of single samples would cost a request each.
BLOCK_BYTES = 2 * 1024 * 1024
#: So much of what was fetched last stays in memory.
FRESH_BYTES = 256 * 1024 * 1024
_HANDLES = 128
_UNTRACKED: Any = {"trackfd": False} if sys.version_info >= (3, 13) else {}
#: So many shards on disks this process has mapped at a time: until Python 3.13 each keeps a handle, of which it has 1,024 by default.
MAPPED = 256


@dataclass(frozen=True, eq=False)
class Packs:
    """Where the files that lie in shards lie: number of the shard (-1: of its own), offset, length [bytes] of each row."""

    addresses: list[str]
    #: How far the files of each shard reach [bytes].
    sizes: np.ndarray
    shard: np.ndarray
    offset: np.ndarray
    length: np.ndarray

    @classmethod
    def of(cls, uris: pl.Series) -> Packs | None:
        """Of the addresses of the rows; None where none is in a shard."""
        if not uris.str.starts_with(PREFIX).any():
            return None
        found = taken_apart(uris)
        addresses = found["shard"].drop_nulls().unique().sort().to_list()
        place = {address: i for i, address in enumerate(addresses)}
        shard = found["shard"].replace_strict(place, default=None, return_dtype=pl.Int64).fill_null(-1).to_numpy()
        offset, length = (found[name].fill_null(0).to_numpy() for name in ("offset", "length"))
        sizes = np.zeros(len(addresses), np.int64)
        np.maximum.at(sizes, shard[shard >= 0], (offset + length)[shard >= 0])
        return cls(addresses, sizes, shard, offset, length)

    @cached_property
    def begins(self) -> np.ndarray:
        """The number of the first block of each shard, and behind them how many blocks there are; they grow along the shards."""
        return np.concatenate([[0], np.cumsum(self.sizes // BLOCK_BYTES + 1)])

    def blocks(self) -> np.ndarray:
        """The block that each row begins in, by its number."""
        return self.begins[self.shard] + self.offset // BLOCK_BYTES

    def blocks_of(self, rows: np.ndarray) -> np.ndarray:
        """The blocks that some rows lie in, by their numbers; a file without bytes lies in none."""
        rows = rows[(self.shard[rows] >= 0) & (self.length[rows] > 0)]
        begin, offset, length = self.begins[self.shard[rows]], self.offset[rows], self.length[rows]
        first, last = begin + offset // BLOCK_BYTES, begin + (offset + length - 1) // BLOCK_BYTES
        farthest = int((last - first).max(initial=0))
        return np.unique(np.concatenate([np.minimum(first + i, last) for i in range(farthest + 1)]))


class Shard(Protocol):
    """A file that holds many."""

    def ready(self, blocks: Sequence[int]) -> Held:
        """Has blocks that are to be read next fetched, all at once; those that whoever reads is to hold until then."""
        ...

    def into(self, offset: int, buffers: Sequence[memoryview | bytearray]) -> int:
        """Reads bytes from an offset on into buffers, one after another; how many there were."""
        ...


class _Opened:
    """A file that is open as long as anybody reads from it."""

    def __init__(self, path: Path) -> None:
        self.handle = -1
        self.handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if self.handle >= 0:
            os.close(self.handle)


#: Of whoever maps one, or lets one go.
_MAPPING = ForkedLock()


class OnDisk:
    """A shard on a disk of this machine, mapped into memory: it never changes, and what was read once is copied from there."""

    def __init__(self, address: str) -> None:
        self._path = local_shard(address)
        self._view: memoryview | None = None
        self._used = True
        self.view()  # whoever opens it is told

    def view(self) -> memoryview:
        """Its bytes, for a moment: who keeps them keeps a handle.

        Raises:
            FetchError: it is gone, or cannot be read.
        """
        self._used = True
        return found if (found := self._view) is not None else self._mapped()

    def _mapped(self) -> memoryview:
        with _MAPPING:
            if (there := self._view) is not None:
                return there
            try:
                with self._path.open("rb") as file:
                    empty = os.fstat(file.fileno()).st_size == 0  # nothing to map: all files in it are empty
                    data = b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ, **_UNTRACKED)
            except FileNotFoundError as error:
                raise FetchError(f"the shard {self._path} does not exist") from error
            except OSError as error:
                raise FetchError(f"the shard {self._path} cannot be read: {error.strerror}") from error
            found = self._view = memoryview(data)
            _MAPS.append(ref(self))
            while len(_MAPS) > MAPPED:
                oldest = _MAPS.popleft()()
                if oldest is not None and oldest._used and oldest is not self:  # since it was here the last time
                    oldest._used = False
                    _MAPS.append(ref(oldest))
                elif oldest is not None:
                    oldest._view = None  # unmapped once nobody copies from it
            return found

    def ready(self, blocks: Sequence[int]) -> Held:
        """None: all is there."""
        return {}

    def into(self, offset: int, buffers: Sequence[memoryview | bytearray]) -> int:
        done = 0
        view = self.view()
        for buffer in buffers:
            data = view[offset + done : offset + done + len(buffer)]
            memoryview(buffer)[: len(data)] = data
            done += len(data)
        return done


#: Those that are mapped, or were: the next one to be let go first, if it has not been used since it was last looked at.
_MAPS: deque[ref[OnDisk]] = deque()


class InBucket:
    """A shard in a bucket: its blocks, as they were fetched last, then as files of the cache."""

    def __init__(self, address: str, size: int, blocks: Blocks) -> None:
        self._address, self._size, self._blocks = address, size, blocks

    def ready(self, blocks: Sequence[int]) -> Held:
        found = self._blocks.ready([(self._address, *self._range(number)) for number in blocks])
        return {number: block for number, block in zip(blocks, found, strict=True) if block is not None}

    def _range(self, number: int) -> tuple[int, int]:
        return number * BLOCK_BYTES, min((number + 1) * BLOCK_BYTES, self._size)

    def held(self, offset: int, length: int, blocks: Held) -> np.ndarray | None:
        """Bytes from an offset on, once their block has come; None where they lie in two, or in one that is not held."""
        number = offset // BLOCK_BYTES
        block = blocks.get(number)
        start, stop = self._range(number)
        if block is None or offset + length > stop:
            return None
        try:
            return block.result()[offset - start : offset - start + length]
        except (CancelledError, FetchError):  # another epoch was left, or had asked when the network was away
            return None

    def into(self, offset: int, buffers: Sequence[memoryview | bytearray]) -> int:
        done = 0
        for buffer in buffers:
            view = memoryview(buffer)
            while view:
                start, stop = self._range((offset + done) // BLOCK_BYTES)
                count = min(len(view), stop - offset - done)
                if count <= 0:
                    return done
                self._blocks.read(self._address, start, stop, offset + done - start, view[:count])
                done, view = done + count, view[count:]
        return done


_Block = tuple[str, int, int]
#: Blocks of a shard by their numbers, in memory or on their way.
Held = Mapping[int, Future[np.ndarray]]


class Blocks:
    """Blocks of shards in buckets. Those that were fetched last are in memory, others in files of the cache."""

    def __init__(self) -> None:
        #: Whoever has it may be told to leave: an epoch that nobody wants ends wherever Python collects it.
        self._lock = ForkedLock()
        #: Those that are in memory, or on their way.
        self._fresh: dict[_Block, Future[np.ndarray]] = {}
        #: The same, and those that only those who are to read them hold.
        self._held = WeakValueDictionary[_Block, Future[np.ndarray]]()
        #: Those of the former that have come, the first one first.
        self._came: deque[_Block] = deque()
        self._came_bytes = 0
        self._files: OrderedDict[_Block, _Opened] = OrderedDict()
        self._pool = ThreadPoolExecutor(32, thread_name_prefix="scythe-blocks")

    def ready(self, blocks: Sequence[_Block]) -> list[Future[np.ndarray] | None]:
        """Begins to fetch those that are not here; each as it is in memory, or on its way, None where it is a file of the cache."""
        found = [self._held.get(block) for block in blocks]
        for i, block in enumerate(blocks):
            if found[i] is None and block not in self._files and not kept_file(*block).exists():
                found[i] = self._begun(block)
        return found

    def leave(self) -> None:
        """Gives up those that nobody has begun to fetch yet; who waits for one of them fetches it."""
        for fetched in list(self._fresh.values()):
            fetched.cancel()  # one that has begun is not

    def read(self, address: str, start: int, stop: int, offset: int, into: memoryview) -> None:
        """Copies bytes of a block, from an offset in it on."""
        block, failed = (address, start, stop), False
        while True:
            with self._lock:
                fresh = self._held.get(block)
            if fresh is None:
                opened = self._file(block)
                if opened is not None and os.preadv(opened.handle, [into], offset) == len(into):
                    return
                if (data := waiting(*block)) is not None:
                    into[:] = memoryview(data)[offset : offset + len(into)]
                    return
                fresh = self._begun(block)
            try:
                np.frombuffer(into, np.uint8)[:] = fresh.result()[offset : offset + len(into)]
                return
            except CancelledError:  # another epoch was left
                continue
            except FetchError:  # an epoch before may have asked for it: that one's failure is not this one's
                self._forget(block, fresh)
                if failed:
                    raise
                failed = True

    def _begun(self, block: _Block) -> Future[np.ndarray]:
        with self._lock:
            if (known := self._held.get(block)) is not None:
                return known
            begun = self._fresh[block] = self._held[block] = self._pool.submit(_fetched, *block)
        begun.add_done_callback(partial(self._done, block))  # which does not hold it: it goes when nobody wants it
        return begun

    def _done(self, block: _Block, begun: Future[np.ndarray]) -> None:
        """Lets go of the oldest blocks where too many have come, and of one that has failed: whoever reads it next tries again."""
        with self._lock:
            if self._fresh.get(block) is not begun:
                return
            if begun.cancelled() or begun.exception() is not None:
                self._forget(block, begun)
                return
            self._came.append(block)
            self._came_bytes += block[2] - block[1]
            while self._came_bytes > FRESH_BYTES and len(self._came) > 1:
                oldest = self._came.popleft()
                del self._fresh[oldest]
                self._came_bytes -= oldest[2] - oldest[1]

    def _forget(self, block: _Block, failed: Future[np.ndarray]) -> None:
        with self._lock:
            for known in (self._fresh, self._held):
                if known.get(block) is failed:
                    del known[block]

    def _file(self, block: _Block) -> _Opened | None:
        with self._lock:
            if (known := self._files.get(block)) is not None:
                self._files.move_to_end(block)
                return known
        try:
            opened = _Opened(kept_file(*block))
        except (FileNotFoundError, NotADirectoryError):
            return None
        if os.fstat(opened.handle).st_size != block[2] - block[1]:  # cut short: it is fetched anew
            return None
        with self._lock:
            self._files[block] = opened
            if len(self._files) > _HANDLES:
                self._files.popitem(last=False)  # the one not used for longest; closed once nobody reads from it
        return opened


def _fetched(address: str, start: int, stop: int) -> np.ndarray:
    return np.frombuffer(published(address, start, stop), np.uint8)


def opened(number: int, packs: Packs, blocks: Blocks, known: dict[int, Shard]) -> Shard:
    """A shard, ready to be read.

    Args:
        number: Which one of the packs' shards.
        packs: What lies where.
        blocks: Those of all shards together.
        known: The shards that are open, by their numbers. It becomes one of them.

    Raises:
        FetchError: there is none, or it cannot be read.
    """
    if (there := known.get(number)) is not None:
        return there
    address = packs.addresses[number]
    found = InBucket(address, int(packs.sizes[number]), blocks) if is_in_bucket(address) else OnDisk(address)
    known[number] = found
    return found


__all__ = ["BLOCK_BYTES", "FRESH_BYTES", "Blocks", "Held", "InBucket", "OnDisk", "Packs", "Shard", "opened"]
