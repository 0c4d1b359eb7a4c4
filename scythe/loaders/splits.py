"""Parts of a dataset by a hash of the inputs: rows that come later move none of the old, equal inputs stay together."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import polars as pl

from scythe.errors import ReadError
from scythe.leaf.input_files import contents_of
from scythe.loaders.checks import check_column
from scythe.loaders.hashing import hash_of, hash_rows, shares, splitmix64
from scythe.loaders.pinned.run import PinnedRun
from scythe.loaders.rows import Rows
from scythe.names import ID_LEVELS
from scythe.record.layout import FOLDERS
from scythe.remote.packed import is_packed, packed

_FARTHEST = np.iinfo(np.int64).max

#: Parts of splits, and rows by their positions, in the order in which they were taken.
Taken = tuple["Split | range | np.ndarray", ...]


@dataclass(frozen=True)
class Split:
    """One part of a split: shares by name, and by what rows are told apart."""

    shares: tuple[tuple[str, float], ...]
    part: str
    by: tuple[str, ...] | None
    #: Which of many splits by the same hash.
    seed: int = 0


def asked(
    runs: Callable[[], Sequence[PinnedRun]], by: str | Sequence[str] | None, seed: int, parts: Mapping[str, float]
) -> list[Split]:
    """The parts that are asked for, each as a step.

    Raises:
        ReadError: shares, columns or a seed that are none.
        NotFoundError: columns that are not there.
    """
    numbers = all(isinstance(share, Real) and not isinstance(share, bool) for share in parts.values())  # pyright: ignore[reportUnnecessaryIsInstance]
    fine = numbers and all(0 <= share <= 1 for share in parts.values())
    if not (fine and any(parts.values())) or sum(parts.values()) > 1 + 1e-9:
        raise ReadError(f"the shares of a split are numbers from 0 on, and add up to 1 at most, got {dict(parts)!r}")
    if not (by is None or isinstance(by, str) or (isinstance(by, Sequence) and by)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ReadError(f"by={by!r}: it names columns; the shares of parts are named otherwise")
    columns = None if by is None else (by,) if isinstance(by, str) else tuple(by)
    if columns is not None and len({*columns}) < len(columns):
        raise ReadError(f"by={by!r} names a column twice")
    for column in columns or ():
        check_column(runs(), column, "by=")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ReadError(f"seed={seed!r}: a whole number is wanted; a part of a split cannot be called seed")
    return [Split((*parts.items(),), name, columns, int(seed)) for name in parts]


def shares_of(rows: Rows, runs: Sequence[PinnedRun], by: tuple[str, ...] | None) -> np.ndarray:
    """A number from 0 to 1 for each row, which follows from its inputs alone, or from those named by `by`."""
    for name in by or ():
        check_column(runs, name, "by=")
    share = np.empty(len(rows))
    for i, run in enumerate(runs):
        where, at = rows.of(i)
        if not (names := by if by is not None else _inputs(run)):
            raise ReadError(
                f"a split is made by the scalar inputs and the files of each row, and {run.key.path} has none: name columns with by="
            )
        columns = run.columns(names)
        absent = [name for name, values in columns.items() if values is None]
        if by is not None and absent:
            raise ReadError(f"by={absent[0]!r}: {run.key.path} has no such column")
        whole = len(at) == run.height
        found = {name: values if whole else values[at] for name, values in columns.items() if values is not None}
        found |= {name: _by_content(run, values) for name, values in found.items() if _is_file(run, name)}
        # By its first name: a field that is renamed moves no row.
        share[where] = shares(hash_rows({run.first_named(name): values for name, values in found.items()}, len(at)))
    if by is None and len(share) > 1 and (share == share[0]).all() and (nested := _nested(runs)):
        raise ReadError(
            f"a split is made by the scalar inputs and the files of each row, in which all {len(share):,} are alike: "
            f"make it by what tells them apart, by={nested!r}"
        )
    return share


def is_position(index: Any) -> bool:
    """Whether an index is that of one row: a number, in a tensor, too."""
    alone = getattr(index, "ndim", None) == 0 and np.asarray(index).dtype.kind in "iu"
    return alone or (isinstance(index, int) and not isinstance(index, bool))


def named(index: Any, rows: Callable[[], int], groups: Collection[str] = ()) -> np.ndarray:
    """The positions that a list of them names, or one truth value a row; who names a group is told how to have all of it.

    Raises:
        IndexError: it names none.
    """
    try:
        wanted = np.asarray(index)
    except ValueError:  # lists of unequal lengths
        wanted = np.array([index], object)
    if wanted.dtype == bool and wanted.shape == (rows(),):
        wanted = np.flatnonzero(wanted)
    elif wanted.size and (wanted.dtype.kind not in "iu" or wanted.ndim != 1):
        known = isinstance(index, str) and index in groups
        group = f"; all of the group is ds.sources[{index!r}].take(range(len(ds)))" if known else ""
        raise IndexError(f"rows are named by their positions, or by {rows():,} truth values, got {index!r}{group}")
    if wanted.dtype.kind == "u" and wanted.max(initial=0) > _FARTHEST:
        raise IndexError(f"row {wanted.max():,} of {rows():,}")
    return wanted.astype(np.int64)


def places(indices: Any, rows: int) -> np.ndarray:
    """Where rows stand that are named by their positions, from the end where these are below zero.

    Raises:
        IndexError: there is none there.
    """
    at = named(indices, lambda: rows)
    if (wrong := (at < -rows) | (at >= rows)).any():
        raise IndexError(f"row {at[wrong][0]} of {rows:,}")
    return at % max(1, rows)


def taken_of(taken: Taken, total: int, share_by: Callable[[tuple[str, ...] | None], np.ndarray]) -> np.ndarray:
    """The positions that are left of all rows; `share_by` gives the numbers of all by some columns.

    Raises:
        IndexError: a position that is none.
    """
    positions, before = np.arange(total), list[np.ndarray]()
    for number, step in enumerate(taken):
        if isinstance(step, Split):
            share = _seeded(share_by(step.by), step.seed)
            own = share[positions] if number else share
            if before:  # rows that lack a field may have the number by which they were split before
                own = _again(own, sum((own == other[positions] for other in before), np.zeros(len(own), np.int64)))
            before.append(share)
            part = _part_of(own, step)
            positions = positions[part] if number else part
        else:
            at = np.arange(step.start, step.stop, step.step) if isinstance(step, range) else step
            beyond = at[(at >= len(positions)) | (at < -len(positions))]
            if len(beyond):
                raise IndexError(f"row {beyond[0]:,} of {len(positions):,}")
            positions = positions[at]
    return positions


def _seeded(share: np.ndarray, seed: int) -> np.ndarray:
    """The numbers of rows for one of many splits."""
    return share if not seed else shares(splitmix64(share.view(np.uint64) ^ hash_of(f"seed {seed}")))


def _again(share: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """The numbers of rows, each of which was split by the same one `depth` times before: drawn anew from them."""
    drawn = share.copy()
    for times in np.unique(depth[depth > 0]).tolist():
        same = depth == times
        drawn[same] = shares(splitmix64(share[same].view(np.uint64) ^ hash_of(f"split {times}")))
    return drawn


def _part_of(share: np.ndarray, split: Split) -> np.ndarray:
    """Positions of the rows of one part of a split."""
    end = 0.0
    for name, part in split.shares:
        begin, end = end, end + part
        if name == split.part and not part:
            return np.empty(0, np.int64)
        if name == split.part:
            return np.flatnonzero((share >= begin) & (share < (end if end < 1 - 1e-9 else 2.0)))
    raise AssertionError(split.part)


def _inputs(run: PinnedRun) -> list[str]:
    """The scalar input fields of a run."""
    schema = run.schemas["scalars"]
    return [c.name for c in schema if c.name in run.inputs and c.name not in ID_LEVELS and c.kind.flat]


def _nested(runs: Sequence[PinnedRun]) -> list[str]:
    """The input fields that hold lists, dicts and models."""
    there = [(c, run.inputs) for run in runs for c in run.schemas["scalars"]]
    return list(dict.fromkeys(c.name for c, inputs in there if c.name in inputs and not c.kind.flat))


#: The address of an output file of a run, of which no other has the name.
_OUTPUT = re.compile(rf"/{FOLDERS}[^/]*/results/[^/]+/[^/]+$")


def _in_run(run: PinnedRun, uri: str) -> str:
    """Where a file lies in its run, whatever root that is in: a copy names those that did not come along at their source."""
    return uri.rpartition(f"/{run.key.path}/artifacts/")[2]


def _is_file(run: PinnedRun, column: str) -> bool:
    found = run.column_of(column)
    return found is not None and found.kind.is_file


def _by_content(run: PinnedRun, uris: pl.Series) -> pl.Series:
    """What tells files apart wherever they lie: name and content, as far as that is known, else their address."""
    contents = {_in_run(run, uri): sha256 for uri, sha256 in contents_of(run.objects, run.key).items()}
    named = {uri: _told_by(uri, inner := _in_run(run, uri), contents.get(inner)) for uri in uris.drop_nulls().unique()}
    return uris.replace_strict(named, return_dtype=pl.String)


def _told_by(uri: str, inner: str, sha256: str | None) -> str:
    """Content and name of a file; its address where the content is not known and may be another under that name."""
    if is_packed(uri):
        name = packed(uri).name
    elif inner == uri and uri.startswith(("http://", "https://")):
        name = PurePosixPath(urlsplit(uri).path).name
    else:  # no root's name is taken for a part of an address: it may have any character
        name = inner.rpartition("/")[2]
    if not sha256 and not (is_packed(uri) or inner != uri or _OUTPUT.search(uri)):
        return uri
    return f"{sha256 or ''}/{name}"
