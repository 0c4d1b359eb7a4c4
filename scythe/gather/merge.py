"""Merges sorted rows from many sources into one sorted stream, a batch at a time.

Each source is sorted by `sort_index` and holds whole inputs; memory is one batch of each source
whose range overlaps the window. Pure but for what the sources read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from scythe_catalog.iceberg.datafile import StoredFile

KEY = "sort_index"
#: A file whose row groups would be smaller than this share of a good one is encoded anew, with its neighbours.
_LEAST_SHARE = 0.25


@dataclass(frozen=True)
class Source:
    """Rows sorted by `sort_index`, from `first` to `last`; `batches` opens them anew at each call."""

    first: int
    last: int
    batches: Callable[[], Iterator[pa.Table]]
    #: The file that holds just these rows, in this order, where there is one.
    stored: StoredFile | None = None

    @property
    def empty(self) -> bool:
        """Whether there are no rows at all."""
        if self.stored is not None:
            return self.stored.rows == 0
        return self.last < self.first or not any(table.num_rows for table in self.batches())

    @classmethod
    def of(cls, table: pa.Table) -> Source:
        """A table in memory, sorted here."""
        if table.num_rows == 0:
            return cls(0, -1, iter(()).__iter__)
        table = sorted_rows(table)
        keys = _keys(table)
        only: list[pa.Table] = [table]
        return cls(int(keys[0]), int(keys[-1]), only.__iter__)


def changed(source: Source, change: Callable[[pa.Table], pa.Table]) -> Source:
    """The rows of a source, each table of them changed on its way; their order and `sort_index` stay."""

    def batches() -> Iterator[pa.Table]:
        return map(change, source.batches())

    return Source(source.first, source.last, batches)


def sorted_rows(table: pa.Table) -> pa.Table:
    """The rows in the order of `sort_index`; rows of one input keep their order."""
    keys = _keys(table)
    if len(keys) < 2 or bool(np.all(keys[1:] >= keys[:-1])):
        return table
    return table.take(pa.array(np.argsort(keys, kind="stable")))


def _keys(table: pa.Table) -> np.ndarray:
    return table.column(KEY).to_numpy()


class _Cursor:
    """The place in one source up to which its rows are taken."""

    def __init__(self, source: Source) -> None:
        self._batches = (b for b in source.batches() if b.num_rows)
        self._end = source.last
        self._next: pa.Table | None = None
        self.rows: pa.Table | None = None
        self._advance()

    @property
    def over(self) -> bool:
        return self.rows is None

    def _advance(self) -> None:
        self.rows, self._next = self._next if self._next is not None else next(self._batches, None), None
        self.keys = _keys(self.rows) if self.rows is not None else np.empty(0, np.int64)
        if self.rows is not None and self.last >= self._end:
            self._next = next(self._batches, None)  # the rows of its last input may lie in several batches

    @property
    def last(self) -> int:
        return int(self.keys[-1])

    @property
    def is_last(self) -> bool:
        """Whether there is nothing behind the buffered rows."""
        return self.last >= self._end and self._next is None

    def upto(self, bound: int) -> pa.Table:
        """Takes the buffered rows of keys up to `bound`."""
        assert self.rows is not None
        n = int(np.searchsorted(self.keys, bound, side="right"))
        taken = self.rows.slice(0, n)
        if n == self.rows.num_rows:
            self._advance()
        else:
            self.rows, self.keys = self.rows.slice(n), self.keys[n:]
        return taken


def merged(sources: Iterable[Source]) -> Iterator[pa.Table]:
    """All rows of all sources in the order of `sort_index`."""
    waiting = sorted((s for s in sources if s.last >= s.first), key=lambda s: s.first, reverse=True)
    active: list[_Cursor] = []
    while waiting or active:
        while waiting and (not active or waiting[-1].first <= min(c.last for c in active)):
            cursor = _Cursor(waiting.pop())
            active += [] if cursor.over else [cursor]
        if not active:
            return
        # What is behind the buffered rows, and what waits, may begin there: all rows before are at hand.
        unseen = [c.last for c in active if not c.is_last] + [s.first - 1 for s in waiting[-1:]]
        bound = min(unseen, default=max(c.last for c in active))
        slices = [rows for c in active if (rows := c.upto(bound)).num_rows]
        active = [c for c in active if not c.over]
        yield slices[0] if len(slices) == 1 else sorted_rows(pa.concat_tables(slices))


def pieces(sources: Iterable[Source], rows: int) -> Iterator[pa.Table | StoredFile]:
    """All rows of all sources in the order of `sort_index`: whole files as they are, and between them tables of about `rows` rows.

    A file is taken as it is where no other source has rows of its range, and it has rows enough for a reader's liking.
    """
    waiting: list[Source] = []
    for together in _overlapping(sources):
        stored = together[0].stored
        if len(together) > 1 or stored is None or stored.rows < rows * _LEAST_SHARE:
            waiting += together
            continue
        yield from rebatched(merged(waiting), rows)
        waiting.clear()
        yield stored
    yield from rebatched(merged(waiting), rows)


def _overlapping(sources: Iterable[Source]) -> Iterator[list[Source]]:
    """The sources in groups that share no part of their ranges with one another, lowest first."""
    group: list[Source] = []
    last = -1
    for source in sorted((s for s in sources if s.last >= s.first), key=lambda s: s.first):
        if group and source.first > last:
            yield group
            group = []
        group.append(source)
        last = source.last if len(group) == 1 else max(last, source.last)
    if group:
        yield group


def without(tables: Iterable[pa.Table], dropped: np.ndarray) -> Iterator[pa.Table]:
    """The rows whose `sort_index` is not among `dropped` (sorted)."""
    for table in tables:
        if len(dropped) == 0:
            yield table
            continue
        kept = ~np.isin(_keys(table), dropped)
        yield table if kept.all() else table.filter(pa.array(kept))


def keys_of(source: Source) -> np.ndarray:
    """The `sort_index` of every row of a source."""
    return np.concatenate([np.empty(0, np.int64), *(b.column(KEY).to_numpy() for b in source.batches())])


def rebatched(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of about `rows` rows, so that a file gets few row groups."""
    held: list[pa.Table] = []
    count = 0
    for table in tables:
        if table.num_rows == 0:
            continue
        held.append(table)
        count += table.num_rows
        if count >= rows:
            yield pa.concat_tables(held)
            held, count = [], 0
    if held:
        yield pa.concat_tables(held)


__all__ = ["KEY", "Source", "changed", "keys_of", "merged", "pieces", "rebatched", "sorted_rows", "without"]
