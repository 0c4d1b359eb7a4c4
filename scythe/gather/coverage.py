"""Which inputs of a run are done, and which part has the last word on each. Pure."""

from __future__ import annotations

import numpy as np

_NOBODY = -1


class Coverage:
    """For each input of a run, the number of the part that covered it last.

    `keys` are the run's sort indexes in ascending order; None where they are 0 to n - 1.
    """

    def __init__(self, n: int, keys: np.ndarray | None = None) -> None:
        self._keys = keys
        self._owner = np.full(n, _NOBODY, np.int32)
        self.overlaps = False

    def cover(self, part: int, sort_indexes: np.ndarray) -> None:
        """Makes `part` the owner of these inputs; a later call wins."""
        at = self._positions(sort_indexes)
        self.overlaps |= bool((self._owner[at] != _NOBODY).any())
        self._owner[at] = part

    def release(self, sort_indexes: np.ndarray) -> None:
        """Makes these inputs open again."""
        self._owner[self._positions(sort_indexes)] = _NOBODY

    def owned(self, part: int, sort_indexes: np.ndarray) -> np.ndarray:
        """Which of a part's inputs are still its own, as a mask."""
        return self._owner[self._positions(sort_indexes)] == part

    def lost(self, part: int, sort_indexes: np.ndarray) -> np.ndarray:
        """Those of a part's inputs that a later part has covered again, sorted."""
        return np.sort(sort_indexes[~self.owned(part, sort_indexes)])

    def covers(self, sort_index: int) -> bool:
        """Whether this input is covered."""
        return bool(self._owner[self._positions(np.array([sort_index]))][0] != _NOBODY)

    @property
    def done(self) -> int:
        """How many inputs are covered."""
        return int((self._owner != _NOBODY).sum())

    def open_ranges(self) -> list[tuple[int, int]]:
        """The positions of inputs that are not covered, as half-open ranges in ascending order."""
        is_open = np.concatenate(([False], self._owner == _NOBODY, [False]))
        edges = np.flatnonzero(is_open[1:] != is_open[:-1])
        return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]

    def _positions(self, sort_indexes: np.ndarray) -> np.ndarray:
        return sort_indexes if self._keys is None else np.searchsorted(self._keys, sort_indexes)
