"""The groups of a dataset, opened: each gives its part of a batch, for rows that are asked for by their positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import polars as pl

from scythe.errors import InputError, ReadError
from scythe.loaders.arrays import Rounding, any_missing, assign, is_missing, numbers, one_hot
from scythe.loaders.checks import are_truths, asked_by, categories, check_file, columns_of, unit_of
from scythe.loaders.files.source import Files
from scythe.loaders.frames import complete, slices
from scythe.loaders.groups import Columns, File, Frame, Group
from scythe.loaders.pinned.run import PinnedRun
from scythe.loaders.rows import Rows, Whole, digest_of
from scythe.reader.choices import as_told
from scythe.reader.distinct import newest_rows
from scythe.reader.many_runs import partition_of
from scythe.reader.repeats import OTHER_ROWS, check_repeats
from scythe.reader.united import brought_together
from scythe_catalog.schema import TableSchema

#: So many are written column by column: what lies between them is still in a cache for the next column.
_CACHED_ROWS = 64 * 1024
_TAKEN = "__taken"


class Source(Protocol):
    """An opened group."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of each column of the array; empty where it has none."""
        ...

    @property
    def units(self) -> tuple[str | None, ...]:
        """Of each column of the array, where one is known."""
        ...

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Of what belongs to one row; None where rows differ."""
        ...

    def take(self, rows: np.ndarray) -> Any:
        """What belongs to these rows, together."""
        ...


def opened(name: str, group: Group, runs: Sequence[PinnedRun], rows: Rows, dtype: np.dtype, *, as_list: bool) -> Source:
    """A group of files or frames, ready to be drawn from; columns come with the rows (`load`).

    Raises:
        NotFoundError, InputError: something in it is not there, or no number.
    """
    match group:
        case Frame():
            return slices(name, group, runs, rows, dtype, as_list=as_list)
        case File():
            return Files(name, group, runs, rows, dtype, as_list)
        case Columns():
            raise TypeError(name)


@dataclass(frozen=True)
class Array:
    """What lies in memory as one array, a row a row."""

    names: tuple[str, ...]
    values: np.ndarray
    #: Columns that are not to be normalized: one-hot ones, truth values.
    fixed: tuple[bool, ...]
    units: tuple[str | None, ...]
    #: Former name -> name of columns of its runs.
    renamed: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape[1:]

    def take(self, rows: np.ndarray) -> np.ndarray:
        return self.values.take(rows, axis=0)  # a third of what indexing takes


@dataclass(frozen=True)
class Part:
    """Some rows of a group, which shares its memory."""

    whole: Source
    positions: np.ndarray

    @property
    def names(self) -> tuple[str, ...]:
        return self.whole.names

    @property
    def units(self) -> tuple[str | None, ...]:
        return self.whole.units

    @property
    def shape(self) -> tuple[int, ...] | None:
        return self.whole.shape

    def take(self, rows: np.ndarray) -> Any:
        return self.whole.take(self.positions[rows])


def names_of(source: Source) -> tuple[str, ...]:
    """Of a group the names of its columns; of files those of the tables in them."""
    if isinstance(source, Part):
        return names_of(source.whole)
    return source.columns if isinstance(source, Files) else source.names


# --- columns, and which rows there are ------------------------------------------------------------------------


@dataclass(frozen=True)
class Loaded:
    """The rows of a dataset, and its groups of columns."""

    rows: Rows
    arrays: Mapping[str, Array]


@dataclass
class _Filling:
    """A group of columns on its way: its array is as long as all runs, and filled from its beginning."""

    group: Columns
    #: Column -> its values, where it is shown one-hot.
    hot: Mapping[str, tuple[str, ...] | None]
    #: Columns of truth values.
    truths: frozenset[str]
    units: Mapping[str, str | None]
    out: np.ndarray
    rounding: Mapping[str, Rounding]
    renamed: Mapping[str, str]

    @classmethod
    def of(cls, name: str, group: Columns, runs: Sequence[PinnedRun], rows: int, dtype: np.dtype) -> _Filling:
        hot = {column: categories(runs, column, name) for column in group.names}
        width = sum(1 if values is None else len(values) for values in hot.values())
        rounding = {column: Rounding(dtype) for column, values in hot.items() if values is None}
        truths = frozenset(column for column in hot if are_truths(runs, column))
        units = {column: unit_of(columns_of(runs, column)) for column in hot}
        renamed = next((run.renames.columns for run in runs), {})
        return cls(group, hot, truths, units, np.empty((rows, width), dtype), rounding, renamed)

    def fill(self, start: int, frame: pl.DataFrame) -> None:
        parts = [
            numbers(frame[column], self.out.dtype)[:, None]
            if values is None
            else one_hot(frame[column], values, self.out.dtype)
            for column, values in self.hot.items()
        ]
        for column, part in zip(self.hot, parts, strict=True):
            if column in self.rounding:
                self.rounding[column].add(part)
        edges = np.cumsum([0, *(part.shape[1] for part in parts)]).tolist()
        for row in range(0, frame.height, _CACHED_ROWS):  # what is written again for the next column is near by then
            rows = slice(row, min(row + _CACHED_ROWS, frame.height))
            into = self.out[start + rows.start : start + rows.stop]
            for column, part, begin, end in zip(self.hot, parts, edges[:-1], edges[1:], strict=True):
                assign(into[:, begin:end], part[rows], repr(column))

    def array(self, rows: int) -> Array:
        """The group, which came to so many rows.

        Raises:
            InputError: its type has not enough digits for a column.
        """
        for column, rounding in self.rounding.items():
            rounding.told(repr(column))
        names: list[str] = []
        for column, values in self.hot.items():
            names += [column] if values is None else [f"{column}={value}" for value in values]
        fixed = [f for c, v in self.hot.items() for f in ([c in self.truths] if v is None else [True] * len(v))]
        units = [self.units[c] for c, v in self.hot.items() for _ in v or (c,)]
        values = self.out[:rows]
        alone = self.group.alone and [*self.hot.values()] == [None]  # a choice of one is a choice
        return Array(tuple(names), values[:, 0] if alone else values, tuple(fixed), tuple(units), self.renamed)


def load(
    groups: Mapping[str, Group],
    runs: Sequence[PinnedRun],
    where: pl.Expr | None,
    dtype: np.dtype,
    missing: str,
    *,
    distinct: bool = False,
    same: str | None = None,
) -> Loaded:
    """The rows that `where` takes (of each input the newest, where they are to be distinct) and that miss nothing, and the columns of the groups, read once, block by block.

    Raises:
        NotFoundError: a column that is not there.
        InputError: a column that is no number, rows that miss a value, or none that misses nothing.
        ReadError: `where` is no condition; or it takes other rows than those whose digest is `same`, which another process told.
    """
    total = sum(run.height for run in runs)
    columns = {n: g for n, g in groups.items() if isinstance(g, Columns)}
    filling = {name: _Filling.of(name, group, runs, total, dtype) for name, group in columns.items()}
    needed = [(name, column) for name, group in columns.items() for column in group.names]
    for name, group in groups.items():
        if isinstance(group, File):
            check_file(runs, group.column, name)
            needed.append((name, group.column))
    rows: list[int | np.ndarray] = []
    newest = _newest(runs) if distinct else None
    taken, before, done = newest if where is None else _taken(runs, where, newest), 0, 0
    asked, lacked = taken, list[_Lacking]()
    if missing == "drop" and (frames := [group for group in groups.values() if isinstance(group, Frame)]):
        whole = np.concatenate([np.logical_and.reduce([complete(run, group) for group in frames]) for run in runs])
        taken = whole if taken is None else taken & whole
    for run in runs:
        lacking, parts, begin = _Lacking(run, missing == "raise"), list[range | np.ndarray](), done
        for start, frame in run.blocks([column for _, column in needed]):
            some = None if taken is None else taken[before + start : before + start + frame.height]
            places = range(start, start + frame.height)
            kept, at = _kept(frame, np.arange(places.start, places.stop), some, needed, lacking)
            for fill in filling.values():
                fill.fill(done, kept)
            parts.append(at if len(at) < len(places) else places)
            del frame, kept  # before the next one comes
            done += len(at)
        before += run.height
        lacking.told()
        lacked.append(lacking)
        rows.append(run.height if done - begin == run.height else _joined(parts))
    count = total if asked is None else int(asked.sum())
    if missing == "drop" and count and not done:
        raise _nothing_left(groups, runs, count, asked, lacked)
    whole = Whole(rows)
    if same is not None and digest_of(whole) != same:
        raise ReadError(
            "where= takes other rows here than where this dataset was pickled (does it call a function of Python that draws random numbers, or "
            f"asks hash() of a text? does it take some of values that come in no order, as unique() gives them?), {OTHER_ROWS}"
        )
    return Loaded(whole, {name: fill.array(done) for name, fill in filling.items()})


def _joined(parts: Sequence[range | np.ndarray]) -> np.ndarray:
    """Positions one after the other."""
    arrays = [np.arange(part.start, part.stop) if isinstance(part, range) else part for part in parts]
    return np.concatenate([np.empty(0, np.int64), *arrays])


def _nothing_left(
    groups: Mapping[str, Group],
    runs: Sequence[PinnedRun],
    count: int,
    asked: np.ndarray | None,
    lacked: Sequence[_Lacking],
) -> InputError:
    """That all of so many rows, those that were asked for, were left out, and for which column most of them."""
    counts = dict[str, int]()
    for (group, column), (number, _) in (found for run in lacked for found in run.found.items()):
        what = f"{group}: {column!r}"
        counts[what] = counts.get(what, 0) + number
    frames = {name: group for name, group in groups.items() if isinstance(group, Frame)}
    for name, group in frames.items():
        for column in group.columns:
            there = np.concatenate([complete(run, replace(group, columns=(column,))) for run in runs])
            lost = ~there if asked is None else ~there & asked
            counts[f"{name}: {column!r} of {group.table!r}"] = int(lost.sum())
    what, number = max(counts.items(), key=lambda one: one[1])
    return InputError(
        f'missing="drop" has left out all {count:,} rows: {what} is missing in {number:,} of them: leave that column out, or take other runs'
    )


def _newest(runs: Sequence[PinnedRun]) -> np.ndarray:
    """Which rows of all runs are the newest of their inputs."""
    rows = [pl.DataFrame({"sort_index": run.sort_index}).with_columns(run_datetime=run.key.moment) for run in runs]
    all_rows = pl.concat(rows).with_row_index("place")
    kept = newest_rows(runs[0].objects, [run.key for run in runs], all_rows.lazy()).collect()
    taken = np.zeros(all_rows.height, bool)
    taken[kept["place"].to_numpy()] = True
    return taken


def _taken(runs: Sequence[PinnedRun], where: pl.Expr, among: np.ndarray | None) -> np.ndarray:
    """Which rows of all runs, or of some among them, `where` takes: of all together, since it may ask for a mean, or for the first of its kind.

    Raises:
        NotFoundError: it asks for a column that is not there.
        InputError: for one that has another unit in one run than in another.
        ReadError: for one of other values; or it is no condition, or takes other rows each time.
    """
    asked = asked_by(where, runs)
    schemas = [
        TableSchema(tuple(replace(found, name=name) for name in asked if (found := run.column_of(name)) is not None))
        for run in runs
    ]
    whole, casts = brought_together(schemas)
    frames = [_asked(run, asked).with_columns(own) for run, own in zip(runs, casts, strict=True)]
    try:
        rows = as_told(pl.concat(frames, how="vertical_relaxed").lazy(), whole, schemas).collect()
        rows = rows if among is None else rows.filter(pl.Series(among))
        check_repeats(where, rows)
        found = rows.with_columns(where.alias(_TAKEN))
    except pl.exceptions.PolarsError as error:
        what = str(error)
        if _TAKEN in what:
            several = where.meta.has_multiple_outputs()
            what = "it gives several columns: join them with & or |" if several else "it gives not one value a row"
        if "datetime" in what and "UTC" in what:
            what += "; moments are compared with one that has a time zone, datetime(2026, 2, 3, tzinfo=UTC)"
        raise ReadError(f"where= cannot be asked of the rows: {what}") from error
    taken = found[_TAKEN]
    if taken.dtype != pl.Boolean:
        raise ReadError(f"where= gives {taken.dtype}, not true or false for each row")
    if among is None:
        return taken.fill_null(False).to_numpy()
    among[among] = taken.fill_null(False).to_numpy()
    return among


def _asked(run: PinnedRun, names: Sequence[str]) -> pl.DataFrame:
    """Columns of a run, what it lacks null, and which run it is; its places where none is asked for: as many rows as there are."""
    if not names:
        return pl.DataFrame({"": np.arange(run.height)})
    nothing = pl.repeat(None, run.height, dtype=pl.Null, eager=True)
    found = {n: nothing if values is None else values for n, values in run.columns(names).items()}
    own = {n: value for n, value in partition_of(run.key).items() if found.get(n) is nothing}
    return pl.DataFrame(found).with_columns(**own)


def _kept(
    frame: pl.DataFrame, at: np.ndarray, taken: np.ndarray | None, needed: Sequence[tuple[str, str]], lacking: _Lacking
) -> tuple[pl.DataFrame, np.ndarray]:
    """The rows of a block, and their positions, that `where` takes and that miss nothing."""
    if taken is not None:
        frame, at = frame.filter(pl.Series(taken)), at[taken]
    gone = np.zeros(frame.height, bool)
    for group, column in needed:
        if any_missing(frame[column]):
            absent = is_missing(frame[column])
            lacking.add(group, column, at[absent])
            gone |= absent
    return (frame.filter(pl.Series(~gone)), at[~gone]) if gone.any() else (frame, at)


@dataclass
class _Lacking:
    """The rows of a run that miss a value, where they are to be refused."""

    run: PinnedRun
    refused: bool
    found: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict[tuple[str, str], tuple[int, int]])

    def add(self, group: str, column: str, at: np.ndarray) -> None:
        count, first = self.found.get((group, column), (0, int(at[0])))
        self.found[group, column] = count + len(at), first

    def told(self) -> None:
        """Nothing where no row misses anything, or may.

        Raises:
            InputError: one does.
        """
        for (group, column), (count, first) in self.found.items():
            if self.refused:
                raise InputError(
                    f"{group}: {column!r} is missing in {count:,} rows of {self.run.key.path} (input {self.run.sort_index[first]} "
                    'the first): leave them out with missing="drop", or with where='
                )
