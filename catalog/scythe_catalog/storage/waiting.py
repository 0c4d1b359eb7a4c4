"""Work on many files: one after the other, or many at once where that is quicker.

Threads help where the work waits for a network or takes long in code that lets others run; of many short steps they make longer ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

#: So many are done one after the other first, to see how long they take.
_TRIED = 32
#: Work that takes so long is worth a thread, whatever it does.
_LONG_SECONDS = 0.002
_THREADS = 16


def each(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """What `work` gives for each item, in their order; raises what it first raises."""
    rest = iter(items)
    began, used = time.perf_counter(), time.thread_time()
    done = [work(item) for item in islice(rest, _TRIED)]
    took, used = time.perf_counter() - began, time.thread_time() - used
    if gains_by_threads(took, used, len(done)):
        with ThreadPoolExecutor(_THREADS) as threads:
            return done + list(threads.map(work, rest))
    return done + [work(item) for item in rest]


def gains_by_threads(took: float, used: float, count: int) -> bool:
    """Whether `count` steps that took so many seconds, `used` of them busy, would take less at once: they waited, or were long."""
    return took > 2 * used or took > _LONG_SECONDS * count
