"""The seed of an input: one number from the run's seed and the input's position. Pure."""

from __future__ import annotations

import hashlib
from contextvars import ContextVar

#: The seed of the run that this process works on; 0 where a function is called by hand.
run_seed: ContextVar[int] = ContextVar("run_seed", default=0)


def seed_of(seed: int, sort_index: int) -> int:
    """The seed of one input: 64 bits that are the same over retries, resumes, engines and machines.

    blake2b of both numbers as text, its first eight bytes (big-endian), without the sign bit, so that an int64 holds it.
    """
    digest = hashlib.blake2b(f"{seed}:{sort_index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1
