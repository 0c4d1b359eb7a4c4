"""Whether this process was forked from one in which threads of Polars or of the S3 client ran: they do not survive, and what needs them waits for ever.

Looks at the names of threads right before each fork. Importing Scythe starts none.
"""

from __future__ import annotations

import os
from pathlib import Path

from scythe.errors import ForkError

#: What the threads are called that do not survive: Polars' pool, and the runtime of obstore.
_NAMES = ("polars", "tokio")

_lost: set[str] = set()


def check_fork() -> None:
    """Nothing where files can be read.

    Raises:
        ForkError: this process was forked while such threads ran.
    """
    if _lost:
        raise ForkError(
            f"this process ({os.getpid()}) was forked from one in which threads of {' and '.join(sorted(_lost))} ran, which do not "
            'survive that: reading would wait for ever. Start it otherwise, with multiprocessing.get_context("forkserver"), the workers of a '
            'loader with DataLoader(..., multiprocessing_context="forkserver") or with num_workers=0, which is faster for most files'
        )


def _before() -> None:
    _seen.clear()
    try:
        tasks = list(Path("/proc/self/task").iterdir())
    except OSError:  # no Linux: no system but Linux forks by default
        return
    for task in tasks:
        try:
            name = (task / "comm").read_text()
        except OSError:
            continue
        _seen.update(known for known in _NAMES if name.startswith(known))


_seen: set[str] = set()


def _in_child() -> None:
    _lost.update(_seen)


os.register_at_fork(before=_before, after_in_child=_in_child)
