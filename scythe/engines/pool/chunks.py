"""How many inputs go into one chunk: so many that it lasts about a second, and all workers end together. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from scythe.engines.pool.pool import Chunk
from scythe.record.plan import Positions

_TARGET_SECONDS = 1.0
_GROWTH = 8
_MAX_ROWS = 32 * 1024
_PREFETCH_BELOW_SECONDS = 0.25


class ChunkQueue:
    """The open inputs of a run, handed out as chunks whose size follows the time that inputs take."""

    def __init__(self, open_ranges: Iterable[tuple[int, int]], workers: int, fixed: int | None = None) -> None:
        self._open = deque(Chunk(range(start, stop)) for start, stop in open_ranges)
        self._again: deque[Chunk] = deque()
        self._workers, self._fixed = workers, fixed
        self.remaining = sum(chunk.size for chunk in self._open)
        self._seconds: float | None = None
        self._last = 1

    @property
    def depth(self) -> int:
        """How many chunks a worker should hold: a second one in wait where they are short."""
        if self._seconds is None:
            return 1
        if self.remaining < 2 * self._workers * self.size():
            return 1  # towards the end a chunk must not wait behind another while a worker is idle
        return (
            2 if self._seconds * self.size() < _TARGET_SECONDS * 1.5 and self._seconds < _PREFETCH_BELOW_SECONDS else 1
        )

    def size(self) -> int:
        """Inputs of the next chunk."""
        if self._fixed is not None:
            return self._fixed
        if self._seconds is None:
            return 1
        fair = -(-self.remaining // (2 * self._workers))
        timely = int(_TARGET_SECONDS / max(self._seconds, 1e-9))
        return max(1, min(timely, self._last * _GROWTH, fair, _MAX_ROWS))

    def next(self, most: int | None = None) -> Chunk | None:
        """The next chunk to run, of `most` inputs if it is a new one; None where nothing is open."""
        if self._again:
            taken = self._again.popleft()
        elif self._open and most != 0:
            head = self._open.popleft()
            size = self.size() if most is None or self._fixed is not None else min(self.size(), most)
            taken = Chunk(head.rows[:size])
            if taken.size < head.size:
                self._open.appendleft(Chunk(head.rows[size:]))
        else:
            return None
        self.remaining -= taken.size
        return taken

    def extend(self, rows: Positions) -> None:
        """Opens more inputs, behind the others."""
        if len(rows):
            self._open.append(Chunk(rows))
            self.remaining += len(rows)

    @property
    def lowest(self) -> int | None:
        """The first of the rows that wait here; None where none does."""
        return min((int(chunk.rows[0]) for chunk in (*self._open, *self._again)), default=None)

    @property
    def seconds(self) -> float | None:
        """How long one input takes a process, as far as that is known."""
        return self._seconds

    def measured(self, inputs: int, seconds: float) -> None:
        """Learns from a chunk that came back."""
        each = seconds / inputs
        self._seconds = each if self._seconds is None else 0.5 * self._seconds + 0.5 * each
        self._last = max(self._last, inputs)

    def give_back(self, *chunks: Chunk) -> None:
        """Puts chunks back, to be run before all others."""
        for again in chunks:
            if again.size:
                self._again.append(again)
                self.remaining += again.size
