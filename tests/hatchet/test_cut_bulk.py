"""A trigger that is cut in the middle leaves keys of children that never were: the run finishes all the same.

So does the engine where the node is killed while it triggers, at a moment that only the stand-in can repeat at will.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from scythe.scatter_gather import RecursionMap
from tests.cluster import PATIENCE, REAL
from tests.hatchet.sites import Cluster, calls, check
from tests.hatchet_standin import StandinEngine

N = 40


@pytest.mark.skipif(REAL, reason="an option of the stand-in")
def test_children_of_which_there_is_only_the_key_are_triggered_again(tmp_path: Path) -> None:
    own = {"SCYTHE_STORAGE_ROOT": str(tmp_path / "root"), "SCYTHE_CACHE_DIR": str(tmp_path / "cache")}
    with StandinEngine(cut_bulks=2) as engine:  # that of the root's nodes, then that of a node's leaves
        cluster = Cluster(tmp_path, {**engine.env, **own})
        with cluster.entered():
            site = cluster.site("cut")
            with site.worker("--slots", "2", HATCHET_CLIENT_TENACITY_MAX_ATTEMPTS="2"):
                site.served("obey")
                scratch, orders = site.orders(*["fine"] * N)
                shape = RecursionMap(factor=2, max_depth=1)
                run, ref = site.allocate("obey", orders, chunk=2, recursion_map=shape)
                ref.result(timeout=PATIENCE)

            check(run, good=list(range(N)))
            assert calls(scratch) == dict.fromkeys(range(N), 1)
