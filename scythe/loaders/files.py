"""Files as a group of a dataset, one a row: those of a batch are read at once, straight into one array."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePath
from typing import Any, TypeVar

import numpy as np
import polars as pl

from scythe.errors import FetchError, InputError, NotFoundError, ScytheError
from scythe.loaders.decoding import Npy, decoded, put
from scythe.loaders.groups import File
from scythe.loaders.pinned import PinnedRun, Rows
from scythe.loaders.shards import BLOCK_BYTES, Blocks, Held, InBucket, OnDisk, Shard, opened
from scythe.remote.fetch import fetch
from scythe.remote.forks import check_fork
from scythe.remote.packed import PREFIX, taken_apart
from scythe.remote.published import published
from scythe.remote.schemes import is_in_bucket, is_remote

T = TypeVar("T")

#: A bucket is waited for, a disk is not.
_REMOTE_THREADS = 64


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
        """The blocks that some rows lie in, by their numbers."""
        rows = rows[self.shard[rows] >= 0]
        begin, offset, length = self.begins[self.shard[rows]], self.offset[rows], np.maximum(self.length[rows], 1)
        first, last = begin + offset // BLOCK_BYTES, begin + (offset + length - 1) // BLOCK_BYTES
        farthest = int((last - first).max(initial=0))
        return np.unique(np.concatenate([np.minimum(first + i, last) for i in range(farthest + 1)]))


@dataclass
class Files:
    """Files, one a row, read when they are asked for."""

    name: str
    group: File
    runs: Sequence[PinnedRun]
    rows: Rows
    dtype: np.dtype
    as_list: bool
    names: tuple[str, ...] = ()
    #: The address of each row's file.
    uris: pl.Series = field(init=False, repr=False)
    _lock: Any = field(init=False, default_factory=threading.RLock, repr=False)
    _shards: dict[int, Shard] = field(init=False, default_factory=dict[int, Shard], repr=False)

    def __post_init__(self) -> None:
        places, found = [np.empty(0, np.int64)], [pl.Series("uri", [], pl.String)]
        for i, run in enumerate(self.runs):
            where, at = self.rows.of(i)
            values = run.column(self.group.column)
            if values is None or values.dtype != pl.String:
                raise NotFoundError(f"{self.name}: {run.key.path} has no file column {self.group.column!r}")
            places.append(where)
            found.append(values[at].alias("uri"))
        self.uris = pl.concat(found)[np.argsort(np.concatenate(places), kind="stable")]

    @cached_property
    def packs(self) -> Packs | None:
        """Where those files lie that are in shards; None where none is."""
        return Packs.of(self.uris)

    @cached_property
    def _paths(self) -> list[str | None]:
        """The path of each row's file; None of one that lies elsewhere, or in a shard."""
        local = self.uris.str.starts_with("file://")
        return pl.select(pl.when(local).then(self.uris.str.strip_prefix("file://"))).to_series().to_list()

    @cached_property
    def is_local(self) -> bool:
        """Whether no file has to be waited for."""
        return not any(
            is_remote(uri)
            for uri in self.uris.str.strip_prefix(PREFIX).str.extract("^([a-z0-9+]+://)").drop_nulls().unique()
        )

    @cached_property
    def _own(self) -> tuple[str, ...]:
        """What the addresses of files begin with that never change."""
        return tuple(run.objects.uri(run.key.path) + "/" for run in self.runs if run.result is not None)

    @cached_property
    def _blocks(self) -> Blocks:
        return Blocks()

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(
            os.cpu_count() if self.is_local else _REMOTE_THREADS, thread_name_prefix="scythe-files"
        )

    @cached_property
    def _first(self) -> tuple[np.ndarray, Npy | None]:
        """The array of the first row, and how `.npy` files like it begin."""
        array = self._read(0)
        if self.group.load is not None or not self._named(0).endswith(".npy"):
            return array, None
        return array, Npy.of(self._content(0))

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Of one row's array; None where rows differ."""
        if self.as_list or not len(self.rows):
            return None
        with self._lock:
            return self._first[0].shape

    # --- batches ------------------------------------------------------------------------------------

    def take(self, rows: np.ndarray) -> Any:
        """The arrays of these rows, as one; a list where they may differ in shape."""
        check_fork()
        at = np.asarray(rows)
        with self._lock:
            pool = self._pool
        held = self.ready(at)
        if self.as_list:
            return list(pool.map(self._alike, at.tolist()))
        shape = self.shape or ()
        if not len(at):
            return np.empty((0, *shape), self.dtype)
        form = self._first[1] if len(self.rows) else None
        out = np.empty((len(at), *shape), form.dtype if form is not None else self.dtype)
        one = self._straight(form, out, at, held) if form is not None else self._decoded(out, at)
        # What is packed is fetched by threads of its own; and batches are read ahead by threads already.
        packed = self.packs is not None and bool((self.packs.shard[at] >= 0).all())
        if form is not None and (self.is_local or packed):
            one(range(len(at)))
        else:
            list(pool.map(one, np.array_split(np.arange(len(at)), min(len(at), _REMOTE_THREADS) or 1)))
        if out.dtype == self.dtype:
            return out
        made = np.empty(out.shape, self.dtype)
        put(self._named(int(at[0])) if len(at) else "", out, made)
        return made

    def _straight(
        self, form: Npy, out: np.ndarray, at: np.ndarray, held: Mapping[int, Held]
    ) -> Callable[[Iterable[int]], None]:
        """What reads files into their places without looking at more of each than its first bytes."""
        raw = memoryview(out).cast("B")  # pyright: ignore[reportArgumentType]
        header, whole, rows = form.header, form.bytes, at.tolist()
        size = whole - len(header)
        if (packs := self.packs) is not None:
            numbers = packs.shard[at].tolist()
            known = {n: self._told(rows[numbers.index(n)], self._shard, n) for n in set(numbers) if n >= 0}
            shards, blocks = [known.get(n) for n in numbers], [held.get(n) for n in numbers]
            offsets, lengths = packs.offset[at].tolist(), packs.length[at].tolist()
        else:
            shards, blocks, offsets, lengths = [None] * len(at), [None] * len(at), rows, rows

        flat = out.reshape(len(at), -1).view(np.uint8)

        def read(places: Iterable[int]) -> None:
            head = bytearray(len(header))
            for i in places:
                shard, begin = shards[i], offsets[i]
                if isinstance(shard, OnDisk):
                    body = begin + len(header)
                    if lengths[i] == whole and shard.map[begin:body] == header:
                        flat[i] = shard.bytes[body : begin + whole]
                    else:
                        self._into(rows[i], out[i])
                    continue
                if isinstance(shard, InBucket) and lengths[i] == whole and (there := blocks[i]) is not None:
                    data = self._told(rows[i], shard.held, begin, whole, there)
                    if data is not None and data[: len(header)].tobytes() == header:
                        flat[i] = data[len(header) :]
                        continue
                buffers = [head, raw[i * size : (i + 1) * size]]
                if shard is not None:
                    got = self._told(rows[i], shard.into, begin, buffers) if lengths[i] == whole else 0
                else:
                    got = self._alone(rows[i], buffers, whole)
                if got != whole or bytes(head) != header:
                    self._into(rows[i], out[i])

        return read

    def _alone(self, row: int, buffers: Sequence[memoryview | bytearray], whole: int) -> int:
        """Reads a file that lies in no shard into buffers; how many bytes there were."""
        if (path := self._paths[row]) is not None:
            try:
                return _read_file(path, buffers)
            except OSError:
                return 0  # it is told by who looks closer
        data = memoryview(self._content(row))
        if len(data) == whole:
            cut = len(buffers[0])
            buffers[0][:], buffers[1][:] = data[:cut], data[cut:]
        return len(data)

    def _decoded(self, out: np.ndarray, at: np.ndarray) -> Callable[[Iterable[int]], None]:
        def read(places: Iterable[int]) -> None:
            for i in places:
                self._into(int(at[i]), out[i])

        return read

    def _alike(self, row: int) -> np.ndarray:
        """The array of one row, of any shape, in the type of all."""
        found = self._read(row)
        put(self._named(row), found, out := np.empty(found.shape, self.dtype))
        return out

    def _into(self, row: int, out: np.ndarray) -> None:
        found = self._read(row)
        if found.shape != out.shape:
            raise InputError(
                f"{self.name}: the file of {self._called(row)} has the shape {found.shape}, the first has {out.shape}: "
                'leave it out with where=, or take lists with collate="list"'
            )
        put(self._named(row), found, out)

    # --- single files -------------------------------------------------------------------------------

    def _read(self, row: int) -> np.ndarray:
        check_fork()
        load = self.group.load
        try:
            if load is None:
                return decoded(self._named(row), self._content(row))
            given = self._told(row, fetch, self._uri(row)) if self.group.path else self._content(row)
            return np.asarray(load(given))
        except ScytheError:
            raise
        except Exception as error:
            where = f"{self.name}: the file of {self._called(row)}, {self._uri(row)}"
            if load is None:
                raise InputError(f"{where}, cannot be read: {type(error).__name__}: {error}") from error
            error.add_note(f"{where}, was given to load=")
            raise

    def _content(self, row: int) -> bytes:
        return self._told(row, self._bytes, row)

    def _told(self, row: int, get: Callable[..., T], *given: Any) -> T:
        """What is got for a row; an error says for which."""
        try:
            return get(*given)
        except FetchError as error:
            raise FetchError(f"{self.name}: the file of row {row}, {self._called(row)}: {error}") from error

    def _bytes(self, row: int) -> bytes:
        packs, uri = self.packs, self._uri(row)
        if packs is not None and (number := int(packs.shard[row])) >= 0:
            data = bytearray(int(packs.length[row]))
            got = self._shard(number).into(int(packs.offset[row]), [data])
            if got != len(data):
                raise InputError(
                    f"{self.name}: the file of {self._called(row)} is cut short in {packs.addresses[number]}"
                )
            return bytes(data)
        if is_in_bucket(uri) and uri.startswith(self._own):
            return bytes(published(uri))
        return fetch(uri).read_bytes()

    def ready(self, rows: np.ndarray) -> dict[int, Held]:
        """Begins to fetch the blocks that these rows lie in, if any do; by shard those that whoever reads is to hold."""
        packs = self.packs
        if packs is None or self.is_local:
            return {}
        blocks = packs.blocks_of(rows)
        shards = np.searchsorted(packs.begins, blocks, "right") - 1
        return {
            number: self._shard(number).ready((blocks[shards == number] - packs.begins[number]).tolist())
            for number in np.unique(shards).tolist()
        }

    def leave(self) -> None:
        """Gives up the blocks that nobody has begun to fetch yet."""
        blocks = vars(self).get("_blocks")  # without the lock: Python may call this within it
        if isinstance(blocks, Blocks):
            blocks.leave()

    def _shard(self, number: int) -> Shard:
        found = self._shards.get(number)
        if found is None:
            assert self.packs is not None
            with self._lock:
                found = opened(self.packs.addresses[number], int(self.packs.sizes[number]), self._blocks)
                found = self._shards.setdefault(number, found)
        return found

    def _uri(self, row: int) -> str:
        uri = self.uris[row]
        if uri is None:
            raise NotFoundError(f"{self.name}: {self._called(row)} has no file")
        return uri

    def _named(self, row: int) -> str:
        """The name of a row's file."""
        return PurePath(self._uri(row).rsplit("&name=", 1)[-1]).name

    def _called(self, row: int) -> str:
        run = self.runs[self.rows.run[row]]
        return f"input {run.sort_index[self.rows.at[row]]} of {run.key.path}"


def _read_file(path: str, buffers: Sequence[memoryview | bytearray]) -> int:
    handle = os.open(path, os.O_RDONLY)
    try:
        return os.preadv(handle, buffers, 0)
    finally:
        os.close(handle)


__all__ = ["Files", "Packs"]
