"""Runs that share too few slots for their waiting nodes come to an end all the same."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from scythe.scatter_gather import RecursionMap
from tests.cluster import PATIENCE
from tests.hatchet.sites import Cluster, check


def test_three_deep_trees_on_eight_slots_come_to_an_end(cluster: Cluster) -> None:
    """Each of them fits by itself: seven nodes of it wait, and eight may. Together their nodes would wait for ever."""
    site = cluster.site("narrow")
    with site.worker("--slots", "2", SCYTHE_WORKER_DURABLE_SLOTS="8") as worker:
        site.served("obey")

        def allocate(_: int) -> tuple[Any, Any]:
            _, specs = site.orders(*["fine"] * 80)
            return site.allocate("obey", specs, chunk=1, recursion_map=RecursionMap(factor=2, max_depth=3))

        with ThreadPoolExecutor(3) as threads:
            started = list(threads.map(allocate, range(3)))
        for run, ref in started:
            ref.result(timeout=PATIENCE + 60)
            check(run, good=list(range(80)))
    assert "no slot is free for the nodes below" in worker.output
