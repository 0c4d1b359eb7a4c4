"""Many files are worked on one after the other, or at once where the work waits or takes long."""

from __future__ import annotations

import threading
import time

import pytest

from scythe_catalog.storage.waiting import each


def test_short_work_stays_where_it_is_and_long_work_is_done_at_once() -> None:
    here = threading.get_ident()
    where: set[int] = set()

    def square(n: int) -> int:
        where.add(threading.get_ident())
        return n * n

    assert each(square, range(1000)) == [n * n for n in range(1000)]
    assert where == {here}

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
