"""The groups of a dataset, opened: each gives its part of a batch, for rows that are asked for by their positions."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl

from scythe.errors import InputError, NotFoundError
from scythe.loaders.arrays import categories, is_missing, numbers, one_hot
from scythe.loaders.forks import check_fork
from scythe.loaders.groups import Columns, File, Frame, Group
from scythe.loaders.pinned import PinnedRun
from scythe.remote.fetch import fetch

_THREADS = 8


@dataclass(frozen=True)
class Rows:
    """The rows of a dataset: of each the run that it is of, and its position among that run's good rows."""

    run: np.ndarray
    at: np.ndarray

    def __len__(self) -> int:
        return len(self.run)

    def of(self, run: int) -> tuple[np.ndarray, np.ndarray]:
        """Where the rows of a run stand, and their positions in it."""
        where = np.flatnonzero(self.run == run)
        return where, self.at[where]


class Source(Protocol):
    """An opened group."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of each column of the array; empty where it has none."""
        ...

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Of what belongs to one row; None where rows differ."""
        ...

    def take(self, rows: np.ndarray) -> Any:
        """What belongs to these rows, together."""
        ...


def opened(name: str, group: Group, runs: Sequence[PinnedRun], rows: Rows, dtype: np.dtype, *, as_list: bool) -> Source:
    """A group, ready to be drawn from.

    Raises:
        NotFoundError, InputError: something in it is not there, or no number.
    """
    match group:
        case Columns():
            return _columns(name, group, runs, rows, dtype)
        case Frame():
            return _frame(name, group, runs, rows, dtype, as_list=as_list)
        case File():
            return Files(name, group, runs, rows, dtype, as_list)


@dataclass(frozen=True)
class Array:
    """What lies in memory as one array, a row a row."""

    names: tuple[str, ...]
    values: np.ndarray
    #: Columns that are not to be normalized: one-hot ones.
    fixed: tuple[bool, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape[1:]

    def take(self, rows: np.ndarray) -> np.ndarray:
        return self.values[rows]


def _columns(name: str, group: Columns, runs: Sequence[PinnedRun], rows: Rows, dtype: np.dtype) -> Array:
    hot = {column: categories(runs, column, name) for column in group.names}
    names: list[str] = []
    for column, values in hot.items():
        names += [column] if values is None else [f"{column}={value}" for value in values]
    out = np.empty((len(rows), len(names)), dtype)
    for i, run in enumerate(runs):
        where, at = rows.of(i)
        whole = len(where) == len(rows)
        j = 0
        for column, values in hot.items():
            series = run.column(column)
            series = series[at] if series is not None else pl.Series([None] * len(at), dtype=pl.Float64)
            made = numbers(series, dtype)[:, None] if values is None else one_hot(series, values, dtype)
            if whole:
                out[:, j : j + made.shape[1]] = made
            else:
                out[where, j : j + made.shape[1]] = made
            j += made.shape[1]
    fixed = tuple(flag for values in hot.values() for flag in ([False] if values is None else [True] * len(values)))
    if group.alone and len(names) == 1:
        return Array(tuple(names), out[:, 0], fixed)
    return Array(tuple(names), out, fixed)


@dataclass(frozen=True)
class Slices:
    """What lies in memory as one array of which each row has some that follow one another."""

    names: tuple[str, ...]
    values: np.ndarray
    first: np.ndarray
    lengths: np.ndarray
    shape: tuple[int, ...] | None

    def take(self, rows: np.ndarray) -> Any:
        first = self.first[rows]
        if self.shape is None:
            return [self.values[a : a + n] for a, n in zip(first, self.lengths[rows], strict=True)]
        return self.values[first[:, None] + np.arange(self.shape[0])]


def _frame(name: str, group: Frame, runs: Sequence[PinnedRun], rows: Rows, dtype: np.dtype, *, as_list: bool) -> Slices:
    parts: list[np.ndarray] = []
    first, lengths = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
    base = 0
    for i, run in enumerate(runs):
        where, at = rows.of(i)
        table = run.scan(group.table).select("sort_index", *_there(run, group)).collect()
        values = np.empty((table.height, len(group.columns)), dtype)
        for j, column in enumerate(group.columns):
            if not (table[column].dtype.is_numeric() or table[column].dtype == pl.Boolean):
                raise InputError(
                    f"{name}: {column!r} of {group.table!r} is no number but {table[column].dtype}: leave it out"
                )
            if (missing := is_missing(table[column])).any():
                at_fault = table["sort_index"][int(np.flatnonzero(missing)[0])]
                raise InputError(
                    f"{name}: {column!r} of {group.table!r} is missing in {int(missing.sum()):,} rows of {run.key.path} (of input "
                    f"{at_fault} first): fill it in the function, or leave these inputs out with where="
                )
            values[:, j] = numbers(table[column], dtype)
        keys, wanted = table["sort_index"].to_numpy(), run.sort_index[at]
        start = np.searchsorted(keys, wanted, "left")
        first[where], lengths[where] = base + start, np.searchsorted(keys, wanted, "right") - start
        parts.append(values)
        base += table.height
    shape = _even(name, group, lengths, rows, runs, as_list=as_list)
    return Slices(
        tuple(group.columns),
        np.concatenate(parts) if parts else np.empty((0, len(group.columns)), dtype),
        first,
        lengths,
        shape,
    )


def _there(run: PinnedRun, group: Frame) -> Sequence[str]:
    if group.table not in run.schemas:
        raise NotFoundError(f"{run.key.path} has no table {group.table!r}; it has {', '.join(sorted(run.schemas))}")
    known = run.schemas[group.table].names
    for column in group.columns:
        if column not in known:
            raise NotFoundError(
                f"the table {group.table!r} of {run.key.path} has no column {column!r}; it has {', '.join(known)}"
            )
    return group.columns


def _even(
    name: str, group: Frame, lengths: np.ndarray, rows: Rows, runs: Sequence[PinnedRun], *, as_list: bool
) -> tuple[int, ...] | None:
    """The shape of what each row has; None where they differ, and may."""
    wanted = group.rows if group.rows is not None else (int(lengths[0]) if len(lengths) else 0)
    other = np.flatnonzero(lengths != wanted)
    if not len(other):
        return wanted, len(group.columns)
    if group.rows is None and as_list:
        return None
    i = int(other[0])
    run = runs[rows.run[i]]
    index = run.sort_index[rows.at[i]]
    way = "leave it out with where=, or" if group.rows is not None else "give rows=, or"
    raise InputError(
        f"{name}: input {index} of {run.key.path} has {lengths[i]:,} rows in {group.table!r}, not {wanted:,}: {way} take "
        'lists with collate="list"'
    )


@dataclass
class Files:
    """Files, one a row, read when they are asked for; all of a batch at once."""

    name: str
    group: File
    runs: Sequence[PinnedRun]
    rows: Rows
    dtype: np.dtype
    as_list: bool
    names: tuple[str, ...] = ()
    _uris: list[str | None] = field(init=False, repr=False)
    _pool: ThreadPoolExecutor | None = field(init=False, default=None, repr=False)
    _lock: Any = field(init=False, default_factory=threading.Lock, repr=False)
    _shape: tuple[int, ...] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        uris: list[str | None] = [None] * len(self.rows)
        for i, run in enumerate(self.runs):
            where, at = self.rows.of(i)
            values = run.column(self.group.column)
            if values is None or values.dtype != pl.String:
                raise NotFoundError(f"{self.name}: {run.key.path} has no file column {self.group.column!r}")
            for place, uri in zip(where.tolist(), values[at].to_list(), strict=True):
                uris[place] = uri
        self._uris = uris

    @property
    def shape(self) -> tuple[int, ...] | None:
        if self.as_list or not len(self.rows):
            return None
        if self._shape is None:
            self._shape = self._read(0).shape
        return self._shape

    def take(self, rows: np.ndarray) -> Any:
        check_fork()
        at = rows.tolist()
        if self.as_list:
            return list(self._threads().map(self._read, at))
        shape = self.shape or ()
        out = np.empty((len(at), *shape), self.dtype)

        def into(i: int) -> None:
            self._into(at[i], out[i])

        list(self._threads().map(into, range(len(at))))
        return out

    def _threads(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="scythe-files")
            return self._pool

    def _into(self, row: int, out: np.ndarray) -> None:
        path = self._path(row)
        if self.group.load is None and path.suffix == ".npy":
            read_npy(path, out, lambda shape: self._unlike(row, shape, out.shape))
            return
        found = self._read(row)
        if found.shape != out.shape:
            raise self._unlike(row, found.shape, out.shape)
        _put(path, found, out)

    def _read(self, row: int) -> np.ndarray:
        check_fork()
        path = self._path(row)
        if self.group.load is None:
            found = _decoded(path)
        else:
            found = self.group.load(path if self.group.path else path.read_bytes())
        return np.asarray(found)

    def _path(self, row: int) -> Path:
        uri = self._uris[row]
        if uri is None:
            raise NotFoundError(f"{self.name}: {self._called(row)} has no file")
        return fetch(uri)

    def _called(self, row: int) -> str:
        run = self.runs[self.rows.run[row]]
        return f"input {run.sort_index[self.rows.at[row]]} of {run.key.path}"

    def _unlike(self, row: int, shape: tuple[int, ...], wanted: tuple[int, ...]) -> InputError:
        return InputError(
            f"{self.name}: the file of {self._called(row)} has the shape {shape}, the first has {wanted}: leave it out with "
            'where=, or take lists with collate="list"'
        )


def read_npy(path: Path, out: np.ndarray, unlike: Callable[[tuple[int, ...]], Exception]) -> None:
    """Reads a `.npy` file straight into an array, where its type is that of the array."""
    with path.open("rb", buffering=0) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
        if shape != out.shape:
            raise unlike(shape)
        if dtype == out.dtype and not fortran and out.flags.c_contiguous:
            view = memoryview(out.reshape(-1).view(np.uint8)).cast("B")  # pyright: ignore[reportArgumentType]
            while len(view):
                read_now = file.readinto(view)
                if not read_now:
                    raise InputError(f"{path} is cut short")
                view = view[read_now:]
            return
    _put(path, np.load(path, allow_pickle=False), out)


def _put(path: Path, found: np.ndarray, out: np.ndarray) -> None:
    """Copies what a file holds, unless the type of the batch would cut it."""
    try:
        np.copyto(out, found, casting="same_kind")
    except TypeError:
        raise InputError(
            f"{path.name} holds {found.dtype}, which {out.dtype} does not hold: take another dtype="
        ) from None


def _decoded(path: Path) -> np.ndarray:
    """The array in a file, by its suffix."""
    match path.suffix.lower():
        case ".npy":
            return np.load(path, allow_pickle=False)
        case ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                if len(arrays.files) != 1:
                    raise InputError(f"{path.name} holds {len(arrays.files)} arrays: give load=, which picks one")
                return arrays[arrays.files[0]]
        case ".parquet" | ".pq":
            return pl.read_parquet(path, glob=False).to_numpy()
        case ".csv":
            return pl.read_csv(path, glob=False).to_numpy()
        case ".png" | ".jpg" | ".jpeg" | ".tif" | ".tiff" | ".bmp" | ".gif" | ".webp":
            return _image(path)
        case suffix:
            raise InputError(
                f"files that end in {suffix!r} are not read by themselves: give load=, which makes an array of their bytes"
            )


def _image(path: Path) -> np.ndarray:
    try:
        from PIL import Image
    except ImportError as error:
        raise InputError(f"{path.name} is an image: install Pillow, or give load=") from error
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        return np.asarray(image)
