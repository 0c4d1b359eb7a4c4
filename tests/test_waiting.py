"""Many files are worked on one after the other, or at once where the work waits or takes long."""

from __future__ import annotations

import threading
import time

import pytest

from scythe_catalog.storage.waiting import each, gains_by_threads


def test_short_work_stays_where_it_is_and_long_or_waiting_work_is_done_at_once() -> None:
    assert not gains_by_threads(took=0.001, used=0.001, count=32)  # some microseconds each
    assert gains_by_threads(took=0.001, used=0.0001, count=32)  # as of a disk over a network
    assert gains_by_threads(took=0.1, used=0.1, count=32)  # as of large files

    assert each(lambda n: n * n, range(1000)) == [n * n for n in range(1000)]

    meeting = threading.Barrier(4, timeout=30)

    def wait(n: int) -> int:
        time.sleep(0.001)  # as a read of a file over a network does
        if n >= 32:
            meeting.wait()  # nobody comes back before four are there
        return n

    assert each(wait, range(40)) == list(range(40))


def test_the_first_error_is_raised() -> None:
    def fail(n: int) -> int:
        time.sleep(0.001)
        if n in (35, 38):
            raise ValueError(n)
        return n

    with pytest.raises(ValueError, match="35"):
        each(fail, range(40))
    assert each(fail, []) == []
