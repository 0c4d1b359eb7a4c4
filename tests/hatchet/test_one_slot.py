"""A worker of one slot, or one that serves leaves alone, is enough."""

from __future__ import annotations

import pytest
import yaml

from scythe.allocate import BaseExperiment
from scythe.errors import AllocationError
from scythe.record.layout import CANCELLED
from scythe.scatter_gather import RecursionMap
from tests.cluster import PATIENCE
from tests.hatchet.sites import Site, calls, check, folder_of, manifest


def test_a_worker_of_one_slot_finishes_a_deep_tree(tiny: Site) -> None:
    scratch, specs = tiny.orders(*["fine"] * 40)

    run, ref = tiny.allocate("obey", specs, recursion_map=RecursionMap(factor=2, max_depth=3), chunk=1)
    ref.result(timeout=PATIENCE)

    check(run, good=list(range(40)))
    assert set(calls(scratch).values()) == {1}


def test_a_time_limit_counts_from_the_start_of_the_function_not_from_the_hand_over(tiny: Site) -> None:
    scratch, specs = tiny.orders(*["takes its time"] * 4)

    run, ref = tiny.allocate("limited", specs, chunk=1)
    ref.result(timeout=PATIENCE)

    tasks = check(run, good=[0, 1, 2, 3])["tasks"]
    assert tasks["attempts"].to_list() == [1] * 4
    assert calls(scratch) == dict.fromkeys(range(4), 1)


def test_a_single_spec_needs_a_leaf_worker_alone(spare: Site) -> None:
    scratch, specs = spare.orders("fine", "fine")
    with spare.worker("--leaf-only", "--slots", "1"):
        spare.served("obey", scatter=False)

        run, ref = spare.allocate("obey", specs[0])
        ref.result(timeout=PATIENCE)
        with pytest.raises(
            AllocationError, match=f"no Hatchet worker has the task 'scythe_scatter_gather_obey_{spare.id}'"
        ):
            spare.allocate("obey", specs)

    ref.cancel()  # which leaves a run that is over as it is
    check(run, good=[0])
    assert calls(scratch) == {0: 1}
    assert not (folder_of(run) / CANCELLED).exists()
    assert yaml.safe_load((folder_of(run) / "workflow_spec.yml").read_text())["scratch"] == str(scratch)
    assert ref.hatchet.workflow_run_id == run.workflow_run_id == manifest(run)["workflow_run_id"]
    assert len(BaseExperiment(spare.module.obey).list_runs()) == 1
