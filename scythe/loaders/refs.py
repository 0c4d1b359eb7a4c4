"""File references for data loaders: a sequence of (inputs, local file), fetched when an item is asked for.

It is a map-style dataset as `torch.utils.data.DataLoader` takes it, but knows nothing of torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar, cast, overload

import polars as pl

from scythe.errors import NotFoundError, ReadError
from scythe.loaders.splits import is_position, places
from scythe.names import ID_LEVELS
from scythe.remote.fetch import fetch
from scythe.remote.forks import check_fork

T = TypeVar("T")


class FileRefs(Sequence[tuple[dict[str, Any], T]], Generic[T]):
    """Rows of a table of file references, each with what `load` makes of the file of one column.

    A sequence of `(features, item)`, with a length and indexes; slices, lists of positions and of truth values give those of these rows. A file is fetched when its item is asked for.
    `torch.utils.data.DataLoader` takes it as it is.

    Args:
        frame: What `scythe.files` gives, filtered and shuffled as you like; a lazy frame is collected.
        column: The file output to load.
        load: Called with the local path of the file; by default the path itself is the item.
        features: The columns to give with each file, as a dict; all numbers and truth values but `sort_index` by default.

    Raises:
        NotFoundError: the frame has no such column; the message lists what it has. For an item: its row has no file.
        ReadError: there is no frame of Polars, `features` is no list, `load` no function, or the column holds no files.
        FetchError: for an item, its file cannot be fetched.
        ForkError: for an item, this process was forked from one in which threads of Polars or of the S3 client ran.

    Examples:
        >>> from scythe import FileRefs
        >>> data = FileRefs(scythe.files("simulate_energy"), "hourly", pl.read_parquet, features=["r_value"])
        >>> len(data)
        3
        >>> features, hourly = data[0]
        >>> features, hourly.height
        ({'r_value': 2.0}, 24)
    """

    @overload
    def __init__(
        self: FileRefs[Path],
        frame: pl.DataFrame | pl.LazyFrame,
        column: str,
        load: None = None,
        features: Sequence[str] | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        frame: pl.DataFrame | pl.LazyFrame,
        column: str,
        load: Callable[[Path], T],
        features: Sequence[str] | None = None,
    ) -> None: ...
    def __init__(
        self,
        frame: pl.DataFrame | pl.LazyFrame,
        column: str,
        load: Callable[[Path], Any] | None = None,
        features: Sequence[str] | None = None,
    ) -> None:
        if isinstance(frame, pl.LazyFrame):
            frame = frame.collect()
        if not isinstance(frame, pl.DataFrame):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ReadError(
                f"FileRefs are of a frame of Polars, as scythe.files gives it, got {type(frame).__name__}: pl.from_pandas makes one of pandas'"
            )
        if isinstance(features, str):
            raise ReadError(f"features= is a list of columns, got {features!r}: give [{features!r}]")
        if load is not None and not callable(load):  # pyright: ignore[reportUnnecessaryComparison]
            raise ReadError(f"load={load!r}: a function of a file's path is wanted")
        for name in (column, *(features or ())):
            if name not in frame.columns:
                raise NotFoundError(f"the frame has no column {name!r}; it has {', '.join(frame.columns)}")
        if not isinstance(frame.schema[column], pl.String | pl.Null):
            files = [c for c, dtype in frame.schema.items() if dtype == pl.String and c not in ID_LEVELS]
            raise ReadError(
                f"the column {column!r} holds no files, but {frame.schema[column]}; there are {', '.join(files) or 'none of texts'}"
            )
        self.frame, self.column = frame, column
        self._load: Callable[[Path], T] = load if load is not None else cast(Callable[[Path], T], _itself)
        self.features = (
            list(features)
            if features is not None
            else [c for c in frame.columns if c not in ID_LEVELS and _is_number(frame, c)]
        )

    def __len__(self) -> int:
        return self.frame.height

    @overload
    def __getitem__(self, index: int) -> tuple[dict[str, Any], T]: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | Sequence[bool]) -> FileRefs[T]: ...
    def __getitem__(
        self, index: int | slice | Sequence[int] | Sequence[bool]
    ) -> tuple[dict[str, Any], T] | FileRefs[T]:
        if not is_position(index):
            rows = index if isinstance(index, slice) else places(index, len(self))
            return FileRefs(self.frame[rows], self.column, self._load, self.features)
        index = int(index)  # type: ignore[arg-type]
        if not -len(self) <= index < len(self):
            raise IndexError(f"item {index} of {len(self)}")
        row = self.frame.row(index, named=True)
        if row[self.column] is None:
            raise NotFoundError(
                f"row {index} has no file in {self.column!r}: leave it out with frame.drop_nulls({self.column!r})"
            )
        check_fork()
        path = fetch(row[self.column])
        features = {name: row[name] for name in self.features}
        return features, self._load(path)

    def __iter__(self) -> Iterator[tuple[dict[str, Any], T]]:
        return (self[i] for i in range(len(self)))


def _itself(path: Path) -> Path:
    return path


def _is_number(frame: pl.DataFrame, column: str) -> bool:
    return frame.schema[column].is_numeric() or frame.schema[column] == pl.Boolean
