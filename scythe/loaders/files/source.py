"""Files as a group of a dataset, one a row: those of a batch are read at once, straight into one array."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePath
from typing import Any, TypeVar

import numpy as np
import polars as pl

from scythe.errors import FetchError, InputError, NotFoundError
from scythe.loaders.arrays import Kept
from scythe.loaders.checks import no_file
from scythe.loaders.files.decoding import Digits, Form, Npy, decoded, form_of, loaded, put, spread_over
from scythe.loaders.files.shards import Blocks, Held, InBucket, OnDisk, Packs, Shard, opened
from scythe.loaders.files.straight import copied, filled, parted
from scythe.loaders.files.tables import is_table
from scythe.loaders.groups import File
from scythe.loaders.pinned.find import since_pinned
from scythe.loaders.pinned.run import PinnedRun, called
from scythe.loaders.rows import Rows
from scythe.remote.fetch import fetch
from scythe.remote.forks import check_fork
from scythe.remote.packed import PREFIX
from scythe.remote.published import published
from scythe.remote.schemes import is_in_bucket, is_remote
from scythe_catalog.memo import ForkedLock, cached_property, made_alone

S = TypeVar("S")
T = TypeVar("T")

#: A bucket is waited for, a disk is not.
_REMOTE_THREADS = 64
_GIVEN = {True: " by its path", False: " as its bytes: path=True gives its path"}
#: The arrays of all files stay in memory where they are no more than this.
_KEPT_BYTES = 256 * 1024 * 1024
#: After so long the first file is asked for again, where it could not be had.
_AGAIN_SECONDS = 5.0


@dataclass
class Files:
    """Files, one a row, read when they are asked for."""

    name: str
    group: File
    runs: Sequence[PinnedRun]
    rows: Rows
    dtype: np.dtype
    as_list: bool
    names = units = ()
    #: The address of each row's file.
    uris: pl.Series = field(init=False, repr=False)
    _lock: ForkedLock = field(init=False, default_factory=ForkedLock, repr=False)
    _failed: tuple[float, FetchError] | None = field(init=False, default=None, repr=False)
    _are_apart: bool = field(init=False, default=False, repr=False)
    _shards: dict[int, Shard] = field(init=False, default_factory=dict[int, Shard], repr=False)

    def __post_init__(self) -> None:
        places, found = [np.empty(0, np.int64)], [pl.Series("uri", [], pl.String)]
        for i, run in enumerate(self.runs):
            where, at = self.rows.of(i)
            if not len(where) and len(self.rows):  # none of its rows is drawn
                continue
            if (there := run.column_of(self.group.column)) is not None and not there.kind.is_file:
                raise no_file(run, self.group.column, self.name)
            if (values := run.column(self.group.column)) is None:
                continue
            run.check_root(values)
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
        if self._failed is not None and time.monotonic() - self._failed[0] < _AGAIN_SECONDS:
            raise self._failed[1]  # each thread that waits would try for as long again
        try:
            array = self._read(0)
        except FetchError as error:
            self._failed = time.monotonic(), error
            raise
        is_npy = self.group.load is None and self._named(0).endswith(".npy")
        return array, Npy.of(self._content(0)) if is_npy else None

    @property
    def _form(self) -> Npy | None:
        """How all files begin, where they are alike."""
        with self._lock:
            return self._first[1]

    @cached_property
    def _kept(self) -> Kept | None:
        """Those that have been read, where all of them fit into memory, and reading gives the same each time."""
        shape = self.shape
        if shape is None or self.group.load is not None:
            return None
        size = len(self.rows) * int(np.prod(shape)) * self.dtype.itemsize
        return Kept(np.empty((len(self.rows), *shape), self.dtype)) if size <= _KEPT_BYTES else None

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Of one row's array; None where rows differ."""
        if self.as_list or not len(self.rows):
            return None
        with self._lock:
            return self._first[0].shape

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns of tables in files, as `columns=` or the first file has them; empty of other files."""
        if self.group.columns is not None:
            return tuple(self.group.columns)
        if self.group.load is not None or not len(self.rows) or not is_table(self._named(0)):
            return ()
        return self._meant if isinstance(self._meant, tuple) else ()

    # --- batches ------------------------------------------------------------------------------------

    def take(self, rows: np.ndarray) -> Any:
        """The arrays of these rows, as one; a list where they may differ in shape."""
        at = np.asarray(rows, np.int64)
        if len(self._lacking(at)):
            check_fork()
        held = self.ready(at)  # before the first file of all is waited for
        if self.as_list:
            with suppress(FetchError), self._lock:  # whoever asks for the first file is told what is wrong with it
                _ = self._first
            return self._at_once(self._alike, at.tolist())
        if not len(at):
            return np.empty((0, *(self.shape or ())), self.dtype)
        with self._lock:  # the first threads would have one each
            kept = self._kept
        read = partial(self._arrays, held)
        return read(at) if kept is None else kept.take(at, read)

    def _arrays(self, held: Mapping[int, Held], at: np.ndarray) -> np.ndarray:
        """The arrays of these rows, read from their files, and from blocks that are in memory."""
        form = self._form
        out = np.empty((len(at), *(self.shape or ())), form.dtype if form is not None else self.dtype)
        shards = self._shards_of(at)
        on_disk = [shard for shard in shards if isinstance(shard, OnDisk)]
        others: list[int] = []  # the places of those that are not alike
        if form is None:
            self._at_once(self._decoded(out, at), parted(len(at), _REMOTE_THREADS))
        elif len(on_disk) == len(at):
            copied(form, out, self.packs, at, on_disk, others)
        elif len(paths := [path for row in at.tolist() if (path := self._paths[row]) is not None]) == len(at):
            filled(form, out, paths, others)
        elif None not in shards:  # they are fetched by threads of their own
            self._straight(form, out, at, shards, held, others)(range(len(at)))
        else:
            self._at_once(self._straight(form, out, at, shards, held, others), parted(len(at), _REMOTE_THREADS))
        if out.dtype != self.dtype:
            out[others] = 0
            raw, out = out, np.empty(out.shape, self.dtype)
            if (wrong := put(raw, out)) is not None:
                raise self._refused(int(at[wrong[0]]), wrong[1])
        for i in others:
            self._into(int(at[i]), out[i : i + 1])
        return out

    def _lacking(self, rows: np.ndarray) -> np.ndarray:
        """The rows among some that are not in memory."""
        kept = vars(self).get("_kept")  # without reading the first file of all
        return kept.lacking(rows) if isinstance(kept, Kept) else rows

    def _at_once(self, read: Callable[[S], T], parts: Iterable[S]) -> list[T]:
        """What many threads give."""
        with self._lock:
            pool = self._pool
        return list(pool.map(read, parts))

    def _shards_of(self, at: np.ndarray) -> list[Shard | None]:
        """The shard that each row lies in; None of one in a file of its own."""
        if (packs := self.packs) is None:
            return [None] * len(at)
        numbers = packs.shard[at].tolist()
        known = {n: self._told(int(at[numbers.index(n)]), self._shard, n) for n in set(numbers) if n >= 0}
        return [known.get(n) for n in numbers]

    def _straight(
        self,
        form: Npy,
        out: np.ndarray,
        at: np.ndarray,
        shards: Sequence[Shard | None],
        held: Mapping[int, Held],
        others: list[int],
    ) -> Callable[[Iterable[int]], None]:
        """What reads files into their places without looking at more of each than its first bytes."""
        raw, flat = memoryview(out).cast("B"), out.reshape(len(at), -1).view(np.uint8)  # pyright: ignore[reportArgumentType]
        header, whole, rows = form.header, form.bytes, at.tolist()
        size = whole - len(header)
        if (packs := self.packs) is not None:
            blocks = [held.get(n) for n in packs.shard[at].tolist()]
            offsets, lengths = packs.offset[at].tolist(), packs.length[at].tolist()
        else:
            blocks, offsets, lengths = [None] * len(at), rows, rows

        def read(places: Iterable[int]) -> None:
            head = bytearray(len(header))
            for i in places:
                shard, begin = shards[i], offsets[i]
                if isinstance(shard, InBucket) and lengths[i] == whole and (there := blocks[i]) is not None:
                    data = self._told(rows[i], shard.held, begin, whole, there)
                    if data is not None and len(data) == whole and data[: len(header)].tobytes() == header:
                        flat[i] = data[len(header) :]
                        continue
                buffers = [head, raw[i * size : (i + 1) * size]]
                if shard is not None:
                    got = self._told(rows[i], shard.into, begin, buffers) if lengths[i] == whole else 0
                else:
                    got = self._alone(rows[i], buffers, whole)
                if got != whole or bytes(head) != header:
                    others.append(i)

        return read

    def _alone(self, row: int, buffers: Sequence[memoryview | bytearray], whole: int) -> int:
        """Copies a file that lies in no shard into buffers; how many bytes there were."""
        data = memoryview(self._content(row))
        if len(data) == whole:
            buffers[0][:], buffers[1][:] = data[: len(buffers[0])], data[len(buffers[0]) :]
        return len(data)

    def _decoded(self, out: np.ndarray, at: np.ndarray) -> Callable[[Iterable[int]], None]:
        def read(places: Iterable[int]) -> None:
            for i in places:
                self._into(int(at[i]), out[i : i + 1])

        return read

    def _alike(self, row: int) -> np.ndarray:
        """The array of one row, of any shape, in the type of all."""
        found = self._read(row)
        out = np.empty((1, *found.shape), self.dtype)
        if (wrong := put(found[None], out)) is not None:
            raise self._refused(row, wrong[1])
        return out[0]

    def _refused(self, row: int, why: str) -> InputError:
        return InputError(f"{self.name}: the file of {self._called(row)}, {self._uri(row)}, {why}")

    def _into(self, row: int, out: np.ndarray) -> None:
        """Reads a file into the one row of an array."""
        found = self._read(row)
        if found.shape != out.shape[1:]:
            told = f"has the shape {found.shape}, the first has {out.shape[1:]}"
            raise self._refused(row, f'{told}: leave it out with where=, or take lists with collate="list"')
        if (wrong := put(found[None], out)) is not None:
            raise self._refused(row, wrong[1])

    # --- single files -------------------------------------------------------------------------------

    def _read(self, row: int) -> np.ndarray:
        check_fork()
        load = self.group.load
        chosen = self.group.columns
        like = self._meant if row and load is None and chosen is None else None  # the first is like itself
        given: Any = (
            self._told(row, fetch, self._uri(row)) if load is not None and self.group.path else self._content(row)
        )
        try:
            found = decoded(self._named(row), given, self.dtype, like, chosen) if load is None else loaded(load, given)
            if row == 0:  # early, and the same whichever rows a batch has
                self._check_digits(found)
            return found
        except InputError as error:
            raise self._refused(row, str(error)) from error
        except Exception as error:
            if load is None:
                raise self._refused(row, f"cannot be read: {type(error).__name__}: {error}") from error
            error.add_note(str(self._refused(row, f"was given to load={_GIVEN[self.group.path]}")))
            raise

    def _check_digits(self, first: np.ndarray) -> None:
        """Nothing where the type of all tells the numbers of files apart: of the first, and, where these are nearly one, of some others."""
        digits = Digits(self.dtype, self.columns)
        digits.add(first)
        digits.check()
        if not digits.is_open or self._are_apart:
            return
        for row in spread_over(len(self.rows)):
            with suppress(Exception):  # whoever reads it says what is wrong with it
                digits.add(self._read(row))
        digits.check()
        self._are_apart = True

    @made_alone
    def _meant(self) -> Form | None:
        """What the numbers of the first file stand for, if it holds a table or an image: those of others stand for the same."""
        with suppress(FetchError):  # who needs the first file says that it is gone
            return form_of(self._named(0), partial(self._content, 0))

    def _content(self, row: int) -> bytes:
        return self._told(row, self._bytes, row)

    def _told(self, row: int, get: Callable[..., T], *given: Any) -> T:
        """What is got for a row; an error says for which."""
        try:
            return get(*given)
        except FetchError as error:
            (run,), _ = self.rows.places(np.array([row]))
            since = since_pinned(self.runs[run])
            raise FetchError(f"{self.name}: the file of row {row}, {self._called(row)}: {error}{since}") from error

    def _bytes(self, row: int) -> bytes:
        packs, uri = self.packs, self._uri(row)
        if packs is not None and (number := int(packs.shard[row])) >= 0:
            data = bytearray(int(packs.length[row]))
            got = self._shard(number).into(int(packs.offset[row]), [data])
            if got != len(data):
                raise self._refused(row, f"is cut short in {packs.addresses[number]}")
            return bytes(data)
        is_published = is_in_bucket(uri) and uri.startswith(self._own)
        return bytes(published(uri)) if is_published else fetch(uri).read_bytes()

    def ready(self, rows: np.ndarray) -> dict[int, Held]:
        """Begins to fetch the blocks that these rows lie in, if any do; by shard those that whoever reads is to hold."""
        packs = self.packs
        if packs is None or self.is_local:
            return {}
        blocks = packs.blocks_of(self._lacking(rows))
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
                found = opened(number, self.packs, self._blocks, self._shards)
        return found

    def _uri(self, row: int) -> str:
        if (uri := self.uris[row]) is None:
            raise NotFoundError(f"{self.name}: {self._called(row)} has no file")
        return uri

    def _named(self, row: int) -> str:
        """The name of a row's file."""
        return PurePath(self._uri(row).rsplit("&name=", 1)[-1]).name

    def _called(self, row: int) -> str:
        return called(self.runs, self.rows, row)


__all__ = ["Files"]
