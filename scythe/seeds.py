"""The seed of an input: one number from the run's seed and the input's position, and the seeds of the runs that a process works on."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

#: The seed of the run that this thread works on.
run_seed: ContextVar[int] = ContextVar("run_seed")

#: The seeds of the runs that this process works on, for the threads that a function starts: they have no context.
_ACTIVE: Counter[int] = Counter()


def seed_of(seed: int, sort_index: int) -> int:
    """The seed of one input: 64 bits that are the same over retries, resumes, engines and machines.

    blake2b of both numbers as text, its first eight bytes (big-endian), without the sign bit, so that an int64 holds it.
    """
    digest = hashlib.blake2b(f"{seed}:{sort_index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1


@contextmanager
def running_with(seed: int) -> Generator[None]:
    """Within it, functions are called for a run of this seed."""
    token = run_seed.set(seed)
    _ACTIVE[seed] += 1
    try:
        yield
    finally:
        run_seed.reset(token)
        _ACTIVE[seed] -= 1
        if not _ACTIVE[seed]:
            del _ACTIVE[seed]


def current_seed() -> int:
    """The seed of the run for which a function is called; 0 where it is called by hand.

    Raises:
        RuntimeError: in a thread of a function's own, while this process works on runs of several seeds.
    """
    try:
        return run_seed.get()
    except LookupError:
        pass
    if len(_ACTIVE) > 1:
        raise RuntimeError(
            "this thread cannot tell which of several runs it belongs to: "
            "read input_spec.seed before starting it, and hand it over"
        )
    return next(iter(_ACTIVE), 0)
