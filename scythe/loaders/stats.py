"""Mean, spread and range of each column of a dataset's groups, and arrays brought to mean 0 and standard deviation 1 by them."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Real
from typing import Any, Self

import numpy as np
import polars as pl

from scythe.errors import InputError, ReadError, StateError
from scythe.loaders.arrays import ROUNDED, as_array
from scythe.loaders.frames import Slices
from scythe.loaders.groups import File, Group
from scythe.loaders.sources import Array, Part, Source

_BLOCK = 1 << 16
#: Of a column among those of its group, as `to_dict` tells it.
_POSITION = "position"


@dataclass(frozen=True)
class ColumnStats:
    """One column: `mean`, `std` (of all values, not of a sample), `min`, `max`, `count`; `fixed` where it is not normalized: one-hot columns, truth values.

    `unit` is the one that the model gives; None where it gives none, or where an earlier Scythe made the statistics.
    """

    mean: float
    std: float
    min: float
    max: float
    count: int
    fixed: bool = False
    unit: str | None = None


@dataclass(frozen=True, repr=False)
class Stats:
    """Of each group of a dataset that lies in columns, each column's mean, standard deviation, range and count.

    Attributes:
        groups: Group -> column -> `ColumnStats` (`mean`, `std` of all values, `min`, `max`, `count`, `fixed`: not normalized, `unit`).

    Examples:
        >>> import scythe
        >>> stats = scythe.dataset("simulate_energy", x=["r_value"]).stats()
        >>> stats["x"]["r_value"].max
        8.0
        >>> scythe.Stats.from_dict(stats.to_dict()) == stats
        True
    """

    groups: Mapping[str, Mapping[str, ColumnStats]]

    def __getitem__(self, group: str) -> Mapping[str, ColumnStats]:
        return self.groups[group]

    def __repr__(self) -> str:
        rows = [
            (f"{g}: {column}", *vars(of).values())
            for g, columns in self.groups.items()
            for column, of in columns.items()
        ]
        table = pl.DataFrame(rows, schema=["column", *ColumnStats.__dataclass_fields__], orient="row").drop("fixed")
        table = table.with_columns(pl.col("unit").fill_null("")) if table["unit"].count() else table.drop("unit")
        with pl.Config(
            tbl_rows=len(rows), tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True, tbl_formatting="NOTHING"
        ):
            return str(table)

    def to_dict(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Plain numbers, for JSON, which may sort them: `position` keeps the order of the columns.

        Examples:
            >>> import scythe
            >>> scythe.dataset("simulate_energy", y="heating").stats().to_dict()["y"]["heating"]["count"]
            3
        """
        return {
            g: {c: {**vars(stats), _POSITION: i} for i, (c, stats) in enumerate(columns.items())}
            for g, columns in self.groups.items()
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Self:
        """The statistics that `to_dict` gave.

        Args:
            data: Group -> column -> plain numbers.

        Raises:
            StateError: it is none.

        Examples:
            >>> import scythe
            >>> scythe.Stats.from_dict({}).groups
            {}
        """
        try:
            ordered = {g: sorted(of.items(), key=lambda column: column[1].get(_POSITION, 0)) for g, of in data.items()}
            if not all(ordered.values()):
                raise TypeError
            plain = {g: {c: {k: v for k, v in of.items() if k != _POSITION} for c, of in columns} for g, columns in ordered.items()}  # fmt: skip
            read = {g: {c: ColumnStats(**stats) for c, stats in columns.items()} for g, columns in plain.items()}
            if not all(_are_plain(stats) for own in read.values() for stats in own.values()):
                raise TypeError
            return cls(read)
        except (TypeError, AttributeError):
            raise StateError(f"these are no statistics, as to_dict() gives them, but {data!r:.100}") from None

    def normalized(self, group: str, source: Source, values: Any) -> Any:
        """The values of a group with mean 0 and standard deviation 1; one-hot columns and truth values stay, a constant column comes to 0.

        Args:
            group: Its name.
            source: The group, opened.
            values: What it gave for some rows.

        Raises:
            StateError: the statistics are of other columns, or of these in another order or another unit; a column that was renamed since is the same.
            InputError: the values are whole numbers, which hold no fractions; or their type does not reach as far.

        Examples:
            >>> import scythe
            >>> ds = scythe.dataset("simulate_energy", x=["r_value"])
            >>> float(ds.stats().normalized("x", ds.sources["x"], ds.sources["x"].take([0, 1, 2])).sum().round(4))
            0.0
        """
        if group not in self.groups:
            return values
        if isinstance(values, list):  # frames of other lengths
            return [self.normalized(group, source, one) for one in values]  # pyright: ignore[reportUnknownVariableType]
        if not isinstance(values, np.ndarray):
            return values
        of = self.groups[group]
        if (*of,) != source.names and (had := _called_now(of, source)) != (has := _called_now(source.names, source)):
            same = {*had} == {*has}
            order = (
                ", in this order: what was trained on those would take one for the other; ask for the columns in their order. If the model's "
                "choices have another order since, put them back, or make stats() and train anew"
                if same
                else ""
            )
            raise StateError(
                f"normalize= has the columns {', '.join(of)} of {group!r}, the dataset has {', '.join(source.names) or 'files'}{order}"
            )
        for (column, stats), unit in zip(of.items(), source.units, strict=True):
            if unit != stats.unit and None not in (unit, stats.unit):
                raise StateError(
                    f"normalize= has {column!r} of {group!r} in [{stats.unit}], the dataset has it in [{unit}]: what was trained on those would "
                    "take one for the other. Give it its unit back, or make stats() and train anew"
                )
        if all(s.fixed for s in of.values()):
            return values
        if values.dtype.kind != "f":
            raise InputError(
                f"normalize= makes fractions of {group!r}, which {values.dtype} does not hold: take a dtype of floats"
            )
        with _within(values.dtype, group):
            mean, std = _scale([*of.values()], values)
            return (values - mean) / std

    def denormalized(self, group: str, values: Any) -> Any:
        """Values of a group in its own units again: what `normalized` was given, or what a model predicts of it.

        Args:
            group: Its name.
            values: An array whose last axis has the group's columns, in the order of `self[group]`; of a group of one column, of any shape.
                A tensor of PyTorch counts as one, of bfloat16 as one of float32. A list of frames, as `collate="list"` gives it, is taken one by one.

        Returns:
            An array of the same shape, and of the same type; of float64 where that would round by more than a thousandth of a column's
                range, or not reach it. Of a list of frames one of arrays. A group of one-hot columns and truth values alone is as it was given.

        Raises:
            StateError: there are no statistics of such a group, or it has another number of columns.
            InputError: the values are whole numbers, which hold no fractions; or float64 does not reach as far.

        Examples:
            >>> import scythe
            >>> ds = scythe.dataset("simulate_energy", x=["r_value", "heating"], y="heating")
            >>> norm = ds.stats()
            >>> batch = ds.batches(3, shuffle=False, normalize=norm).at(0)[0]
            >>> norm.denormalized("y", batch["y"]).tolist()
            [40.0, 20.0, 10.0]
            >>> norm.denormalized("x", batch["x"][0]).tolist()
            [2.0, 40.0]
        """
        if group not in self.groups:
            raise StateError(f"there are no statistics of {group!r}, but of {', '.join(self.groups)}")
        if isinstance(values, list | tuple) and values and all(getattr(one, "ndim", 0) > 1 for one in values):  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
            return [self.denormalized(group, one) for one in values]  # pyright: ignore[reportUnknownVariableType]
        found, stats = as_array(values), [*self.groups[group].values()]
        if len(stats) > 1 and (not found.ndim or found.shape[-1] != len(stats)):
            raise StateError(
                f"{group!r} has the columns {', '.join(self.groups[group])}: an array of {len(stats)} columns is wanted, got the shape {found.shape}"
            )
        if all(s.fixed for s in stats):
            return found
        if found.dtype.kind != "f":
            raise InputError(
                f"values of {group!r} are fractions, which {found.dtype} does not hold: give an array of floats"
            )
        if not all(_holds(found.dtype, s) for s in stats):
            found = found.astype(np.float64)
        with _within(found.dtype, group):
            mean, std = _scale(stats, found)
            return found * std + mean

    @property
    def digest(self) -> str:
        """What tells them from others; the same for those of the same rows on another machine, whose sums may round otherwise.

        Examples:
            >>> import scythe
            >>> stats = scythe.dataset("simulate_energy", x=["r_value"]).stats()
            >>> stats.digest == scythe.Stats.from_dict(stats.to_dict()).digest
            True
        """
        told = [
            (g, c, s.fixed, s.count, f"{s.std:.6e}", round(s.mean / (s.std or 1.0), 6) + 0.0)
            for g, columns in self.groups.items()
            for c, s in columns.items()
        ]
        return hashlib.blake2b(repr(told).encode(), digest_size=8).hexdigest()


@contextmanager
def _within(dtype: np.dtype, group: str) -> Generator[None]:
    """What is computed in a type of floats stays within its reach.

    Raises:
        InputError: it does not: a number would be infinite, or a standard deviation is 0 in it.
    """
    try:
        with np.errstate(over="raise", divide="raise", invalid="raise"):
            yield
    except FloatingPointError:
        wider = 'take a wider one, as dtype="float64"' if dtype.itemsize < 8 else "scale it in the function"
        raise InputError(f"{group}: it cannot be normalized within what {dtype} reaches: {wider}") from None


def _are_plain(stats: ColumnStats) -> bool:
    """Whether they are numbers, and a unit that is text."""
    numbers = {**vars(stats)}
    unit = numbers.pop("unit")
    return (unit is None or isinstance(unit, str)) and all(isinstance(v, Real) for v in numbers.values())


def _holds(dtype: np.dtype, column: ColumnStats) -> bool:
    """Whether a type of floats rounds a column in its own units by no more than a thousandth of its range, twice its range beyond it too."""
    reach = max(abs(column.min), abs(column.max)) + 2 * (column.max - column.min)
    limits = np.finfo(dtype)
    return reach < float(limits.max) and reach * float(limits.eps) / 2 <= ROUNDED * (column.max - column.min or reach)


def _scale(stats: Sequence[ColumnStats], values: np.ndarray) -> tuple[Any, Any]:
    """Mean and standard deviation of columns as they are taken out of values, in their type; 0 and 1 where they are left as they are."""
    mean = np.array([0.0 if s.fixed else s.mean for s in stats], values.dtype)
    std = np.array([1.0 if s.fixed or s.min == s.max else s.std for s in stats], values.dtype)
    return (mean[0], std[0]) if len(stats) == 1 else (mean, std)


def _called_now(names: Iterable[str], source: Source) -> list[str]:
    """What columns are called now, of those of a source or of others, which may have the names of before; one-hot ones are `column=value`."""
    whole = source.whole if isinstance(source, Part) else source
    renamed = whole.renamed if isinstance(whole, Array | Slices) else {}
    parts = [name.partition("=") for name in names]
    return [renamed.get(column, column) + equals + value for column, equals, value in parts]


def check_same_groups(stats: Stats, groups: Mapping[str, Group]) -> None:
    """Nothing where batches of some groups can be normalized: either has all that the other has, but for files.

    Raises:
        StateError: there are none; or each has groups that the other lacks, of which one may be the other by another name.
    """
    unknown = [name for name, group in groups.items() if not isinstance(group, File) and name not in stats.groups]
    if unknown and not stats.groups:
        raise StateError(f"normalize= has no statistics at all: give what stats() gave, of {', '.join(unknown)}")
    if {*stats.groups} - {*groups} and (unknown or not {*stats.groups} & {*groups}):
        raise StateError(
            f"normalize= has the groups {', '.join(stats.groups)}, the dataset {', '.join(groups)}: "
            "take the statistics of a dataset whose groups have the same names"
        )


def stats_of(sources: Mapping[str, Source], rows: np.ndarray, groups: Sequence[str] = ()) -> Stats:
    """The statistics of some groups, or of all that have columns, over some rows, block by block.

    Raises:
        ReadError: there are no rows; or a group that is not there, or has no columns.
    """
    for group in groups:
        if not isinstance(group, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ReadError(f"groups are named one by one, stats('x', 'y'), got {group!r}")
        if group not in sources or not sources[group].names:
            what = "is of files, which have no columns" if group in sources else "is none of the groups"
            known = ", ".join(name for name, source in sources.items() if source.names)
            raise ReadError(f"{group!r} {what}: there are statistics of {known or 'none of them'}")
    if not len(rows):
        raise ReadError("there are no rows to have a mean: an empty part of a split, or a where= that takes none?")
    wanted = groups or [name for name, source in sources.items() if source.names]
    return Stats({name: dict(_columns(name, sources[name], rows)) for name in wanted})


def _columns(name: str, source: Source, rows: np.ndarray) -> Iterator[tuple[str, ColumnStats]]:
    if isinstance(source, Part):
        source, rows = source.whole, source.positions[rows]
    assert isinstance(source, Array | Slices)
    width = len(source.names)
    count, origin, centre = 0, None, np.zeros(width)
    mean, squares = np.zeros(width), np.zeros(width)  # the former from the centre on
    low, high = np.full(width, np.inf), np.full(width, -np.inf)
    for start in range(0, len(rows), _BLOCK):
        taken = source.take(rows[start : start + _BLOCK])
        block = np.concatenate(taken) if isinstance(taken, list) else taken  # pyright: ignore[reportUnknownArgumentType]
        if block.dtype.kind == "c":
            raise InputError(f"{name}: complex numbers have no range: take a dtype of floats")
        block = block.reshape(-1, width)
        n = len(block)
        if not n:
            continue
        if not count:
            origin = _origin(block)
        block = _from(block, origin)
        low, high = np.minimum(low, block.min(0)), np.maximum(high, block.max(0))
        if not (np.isfinite(low) & np.isfinite(high)).all():
            column = source.names[int(np.argmin(np.isfinite(low) & np.isfinite(high)))]
            raise InputError(
                f"{name}: {column!r} has infinite values, of which there is no mean: leave them out with where="
            )
        # Chan, Golub and LeVeque (1979): the mean and the sum of squares of two parts together
        with np.errstate(over="ignore", invalid="ignore"):  # it is told below
            if not count:  # near which numbers that are far from 0 keep the digits by which they differ
                centre = np.nan_to_num(block.mean(0), posinf=0.0, neginf=0.0)
            block = block - centre
            own = block.mean(0)
            by = own - mean
            squares += ((block - own) ** 2).sum(0) + by**2 * (count * n / (count + n))
            mean += by * (n / (count + n))
        count += n
    if not count:
        raise ReadError(f"{name}: none of the rows has any values, of which there could be a mean")
    for j in np.flatnonzero((low != high) & (~np.isfinite(squares) | (squares == 0))):
        raise InputError(
            f"{name}: {source.names[j]!r} lies between {low[j]:.3g} and {high[j]:.3g}: no float64 holds the squares of its deviations, so "
            "scale it in the function, or take its logarithm"
        )
    for j, column in enumerate(source.names):
        constant = low[j] == high[j]  # the sums round
        mean[j] = low[j] if constant else centre[j] + mean[j]
        std = float(np.sqrt(squares[j] / count)) if not constant else 0.0
        at = origin[j] if origin is not None else 0
        yield (
            column,
            ColumnStats(
                float(mean[j] + at),
                std,
                float(low[j] + at),
                float(high[j] + at),
                count,
                source.fixed[j],
                source.units[j],
            ),
        )


def _origin(block: np.ndarray) -> np.ndarray | None:
    """Of whole numbers of 64 bits the first row, from which they are told exactly as long as they lie near it; None of others."""
    return block[0].copy() if block.dtype.kind in "iu" and block.dtype.itemsize == 8 else None


def _from(block: np.ndarray, origin: np.ndarray | None) -> np.ndarray:
    """Numbers as floats; whole ones by how far they are from the origin, so that those beyond 2**53 still differ."""
    if origin is None:
        return block.astype(np.float64)
    above = block >= origin
    # The distance has a bit more than the numbers, and is taken without a sign.
    far = np.where(
        above, block.view(np.uint64) - origin.view(np.uint64), origin.view(np.uint64) - block.view(np.uint64)
    )
    return np.where(above, far, -far.astype(np.float64))


__all__ = ["ColumnStats", "Stats", "check_same_groups", "stats_of"]
