"""A function that raises, crashes or hangs costs the input that it was called on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl
import pytest

import scythe
from scythe.errors import TooManyErrors
from scythe.record.attempt_plan import progress_of
from scythe.scatter_gather import RecursionMap
from tests.cluster import PATIENCE, wait_for
from tests.hatchet.sites import Site, calls, check


@dataclass
class Outcome:
    fates: list[str]
    calls: dict[int, int]
    tables: dict[str, pl.DataFrame]

    def at(self, fate: str) -> int:
        return self.fates.index(fate)


@pytest.fixture(scope="module")
def crashed(main: Site) -> Outcome:
    """Chunks of three, whose second input raises or kills its process."""
    bad = ["raises", "exits", "is killed"]
    fates = [f for fate in (*bad, "raises, then works", "is killed, then works") for f in ("fine", fate, "fine")]
    scratch, specs = main.orders(*fates)
    run, ref = main.allocate("obey", specs, chunk=3)
    ref.result(timeout=PATIENCE)
    lost = [i for i, fate in enumerate(fates) if fate in bad]
    tables = check(run, good=[i for i in range(len(fates)) if i not in lost], bad=lost)
    return Outcome(fates, calls(scratch), tables)


@pytest.mark.parametrize(
    ("fate", "kind", "words"),
    [
        ("raises", "ValueError", "call 2"),
        ("exits", "scythe.errors.WorkerCrashed", "exit code 7"),
        ("is killed", "scythe.errors.WorkerCrashed", "SIGKILL"),
    ],
)
def test_an_input_that_fails_costs_itself_alone_after_its_retries(
    crashed: Outcome, fate: str, kind: str, words: str
) -> None:
    row = crashed.tables["errors"].row(by_predicate=pl.col("fate") == fate, named=True)

    assert row["exception_type"] == kind
    assert words in row["exception_message"]
    assert row["attempts"] == 2
    assert crashed.calls[crashed.at(fate)] == 2


@pytest.mark.parametrize("fate", ["raises, then works", "is killed, then works"])
def test_an_input_that_works_the_second_time_is_a_row_of_two_attempts(crashed: Outcome, fate: str) -> None:
    i = crashed.at(fate)

    assert i in crashed.tables["scalars"]["sort_index"]
    assert crashed.tables["tasks"]["attempts"][i] == crashed.calls[i] == 2


def test_the_rest_of_a_chunk_goes_on_and_counts_one_attempt(crashed: Outcome) -> None:
    fine = [i for i, fate in enumerate(crashed.fates) if fate == "fine"]

    assert crashed.tables["tasks"]["attempts"][fine].unique().to_list() == [1]
    # The rows of a chunk come back together: what came before a crash is run again with the rest, what raised is not.
    for fate, before in (("raises", 1), ("raises, then works", 1), ("exits", 2), ("is killed", 2)):
        i = crashed.at(fate)
        assert [crashed.calls[i - 1], crashed.calls[i + 1]] == [before, 1], fate


def test_a_time_limit_costs_the_input_that_hangs(main: Site) -> None:
    scratch, specs = main.orders("fine", "fine", "hangs", "fine", "fine")

    run, ref = main.allocate("limited", specs, chunk=5)
    ref.result(timeout=PATIENCE)

    errors = check(run, good=[0, 1, 3, 4], bad=[2])["errors"]
    assert errors["exception_type"].to_list() == ["scythe.errors.InputTimeout"]
    assert "execution_timeout=2 s" in errors["exception_message"][0]
    assert errors["attempts"].to_list() == [2]
    assert calls(scratch)[2] == 2


def test_a_worker_process_makes_room_for_a_fresh_one_after_as_many_inputs_as_it_may_run(main: Site) -> None:
    _, specs = main.orders(*["fine"] * 7)

    run, ref = main.allocate("leaky", specs, chunk=7)
    ref.result(timeout=PATIENCE)

    rows = check(run, good=list(range(7)), bad=[])["scalars"]
    assert rows["y"].value_counts()["count"].sort(descending=True).to_list() == [2, 2, 2, 1]


def test_a_mistake_that_all_inputs_share_stops_the_run_after_a_few(main: Site) -> None:
    _, specs = main.orders(*["raises"] * 150)
    run, ref = main.allocate("obey", specs)

    with pytest.raises(TooManyErrors, match="inputs that finished have all failed alike: ValueError: call"):
        ref.result(timeout=PATIENCE)

    wait_for(lambda: run.status == "incomplete", timeout=PATIENCE)
    assert 20 <= scythe.read(run.experiment, table="tasks", run=run).height <= 64
    result = run.resume(max_errors=None).result(timeout=PATIENCE)
    assert (result.rows, result.errors, result.error_kinds[0].count) == (0, 150, 150)


@pytest.mark.parametrize(
    ("most", "said"),
    [(25, "[34]. inputs have failed, more than 25, most"), ("alike", "first .. inputs .* failed alike")],
)
def test_how_many_inputs_may_fail_holds_for_all_nodes_of_a_tree_together(main: Site, most: Any, said: str) -> None:
    _, specs = main.orders(*["raises"] * 40)  # ten for each node
    run, ref = main.allocate("obey", specs, recursion_map=RecursionMap(factor=4, max_depth=1), chunk=1, max_errors=most)

    with pytest.raises(TooManyErrors, match=f"(?s){said}.*ValueError: call"):
        ref.result(timeout=PATIENCE)

    wait_for(lambda: run.status == "incomplete", timeout=PATIENCE)


def test_a_node_whose_inputs_all_fail_stops_no_run_in_which_others_do_well(main: Site) -> None:
    # Every fourth is of one node: the first of its leaves waits, and fewer than 20 fail before.
    fates = (["waits, then raises"] + ["fine"] * 3) * 2 + (["raises"] + ["fine"] * 3) * 18
    scratch, specs = main.orders(*fates)
    shape = RecursionMap(factor=4, max_depth=1)

    run, ref = main.allocate("obey", specs, recursion_map=shape, chunk=2, max_errors="alike")
    wait_for(lambda: progress_of(run.objects, run.key, run.inputs).done == 78, timeout=PATIENCE)
    wait_for(
        lambda: scythe.read(run.experiment, run=run).height == 60, timeout=PATIENCE
    )  # the root shows what they have
    (scratch / "gate").touch()

    result = ref.result(timeout=PATIENCE)
    assert (result.rows, result.errors) == (60, 20)
