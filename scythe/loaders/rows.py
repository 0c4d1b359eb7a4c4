"""Which rows of which runs a dataset has. Pure; knows a run by its number only."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from scythe_catalog.memo import cached_property

#: So many rows are told apart at once.
_DIGESTED_ROWS = 1 << 20


class Rows(Protocol):
    """The rows of a dataset: of each the run that it is of, and its position among that run's good rows."""

    def __len__(self) -> int: ...

    def of(self, run: int) -> tuple[np.ndarray, np.ndarray]:
        """Where the rows of a run stand, and their positions in it."""
        ...

    def places(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The runs of some rows, and their positions in these."""
        ...


@dataclass(frozen=True)
class Whole:
    """Rows one run after the other, as they lie there.

    Attributes:
        kept: Of each run the positions of those that were not left out; how many there are where that is none.
    """

    kept: Sequence[int | np.ndarray]

    @cached_property
    def _ends(self) -> np.ndarray:
        return np.cumsum([0, *(kept if isinstance(kept, int) else len(kept) for kept in self.kept)])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def of(self, run: int) -> tuple[np.ndarray, np.ndarray]:
        """Where the rows of a run stand, and their positions in it."""
        where, kept = np.arange(self._ends[run], self._ends[run + 1]), self.kept[run]
        return where, np.arange(kept) if isinstance(kept, int) else kept

    def places(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The runs of some rows, and their positions in these."""
        if len(self.kept) == 1:
            (kept,) = self.kept
            return np.zeros(len(rows), np.int64), rows.copy() if isinstance(kept, int) else kept[rows]
        of = np.searchsorted(self._ends, rows, "right") - 1
        at = rows - self._ends[of]
        for run in np.flatnonzero(np.bincount(of)).tolist():
            kept = self.kept[run]
            if not isinstance(kept, int):
                own = of == run
                at[own] = kept[at[own]]
        return of, at


@dataclass(frozen=True)
class Chosen:
    """Some rows, in any order."""

    run: np.ndarray
    at: np.ndarray

    def __len__(self) -> int:
        return len(self.run)

    def of(self, run: int) -> tuple[np.ndarray, np.ndarray]:
        """Where the rows of a run stand, and their positions in it."""
        where = np.flatnonzero(self.run == run)
        return where, self.at[where]

    def places(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The runs of some rows, and their positions in these."""
        return self.run[rows], self.at[rows]


def digest_of(rows: Rows, held: Sequence[np.ndarray] = ()) -> str:
    """What tells rows, and their order, from others of the same runs; `held` tells the runs themselves from what they were before."""
    hashed = hashlib.blake2b(digest_size=8)
    for what in range(2):  # the runs of all, then their positions
        for first in range(0, len(rows), _DIGESTED_ROWS):
            some = np.arange(first, min(first + _DIGESTED_ROWS, len(rows)))
            hashed.update(rows.places(some)[what].astype("<i8").tobytes())
    for told in held:
        hashed.update(told.astype("<i8").tobytes())
    return hashed.hexdigest()


__all__ = ["Chosen", "Rows", "Whole", "digest_of"]
