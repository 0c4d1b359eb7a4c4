"""Tasks go to the workers that they ask for, and to others when those die."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import pytest

from scythe.record.attempts import latest_attempt
from tests.cluster import PATIENCE, Worker, descendants, wait_for
from tests.hatchet.sites import Cluster, Site, calls, check, finals, wait_for_calls


@pytest.fixture(scope="module")
def crew(cluster: Cluster) -> Iterator[tuple[Site, list[Worker], list[Worker]]]:
    """Two leaf workers of one slot, one of them with labels and a name, and two scatter workers, of one module."""
    site = cluster.site("crew")
    plain = site.worker("--leaf-only", "--slots", "1", TEST_WORKER="1")
    labelled = site.worker(
        "--leaf-only", "--slots", "1", "--name", f"worker-{site.id}", TEST_WORKER="2", SCYTHE_WORKER_HAS_GPU="true"
    )
    scatters = [site.worker("--fan-only") for _ in range(2)]
    with plain, labelled, scatters[0], scatters[1]:
        site.served("obey", workers=2)
        yield site, [plain, labelled], scatters


Crew = tuple[Site, list[Worker], list[Worker]]


@pytest.mark.parametrize("experiment", ["gpu", "named"])
def test_an_experiment_runs_on_the_workers_that_it_asks_for_alone(crew: Crew, experiment: str) -> None:
    site, _, _ = crew
    _, specs = site.orders(*["fine"] * 8)

    run, ref = site.allocate(experiment, specs, chunk=1)
    ref.result(timeout=PATIENCE)

    assert finals(run)["scalars"]["y"].to_list() == [2.0] * 8


def test_a_scatter_worker_that_is_killed_is_replaced_and_the_run_finishes_by_itself(crew: Crew) -> None:
    site, _, scatters = crew
    scratch, specs = site.orders("fine", "waits", "fine", "fine")
    run, ref = site.allocate("obey", specs, chunk=1)
    wait_for_calls(scratch, 1)

    root = wait_for(
        lambda: next((s for s in scatters if s.process.pid == latest_attempt(run.objects, run.key).pid), None)
    )
    root.kill(machine=True)
    (scratch / "gate").touch()
    ref.result(timeout=PATIENCE)

    check(run, good=[0, 1, 2, 3])
    assert calls(scratch) == dict.fromkeys(range(4), 1)
    assert latest_attempt(run.objects, run.key).pid != root.process.pid


def test_a_leaf_worker_that_is_killed_costs_a_second_call_of_what_it_had(crew: Crew) -> None:
    site, leaves, _ = crew
    scratch, specs = site.orders("waits", "fine", "fine", "fine", "raises")
    run, ref = site.allocate("obey", specs, chunk=1)
    wait_for_calls(scratch, 0)
    pid = int(wait_for((scratch / "0.calls").read_text))

    next(w for w in leaves if pid in descendants(w.process.pid)).kill(machine=True)
    (scratch / "gate").touch()
    ref.result(timeout=PATIENCE)

    tables = check(run, good=[0, 1, 2, 3], bad=[4])
    assert tables["tasks"]["attempts"].to_list() == [1, 1, 1, 1, 2]
    assert calls(scratch)[0] == 2


def test_an_input_that_takes_down_every_worker_costs_itself_alone(crew: Crew) -> None:
    """As the memory killer of a container does, that ends all processes in it: the test kills whichever worker runs it."""
    site, leaves, _ = crew
    scratch, specs = site.orders("waits", "fine", "fine", "fine")
    run, ref = site.allocate("obey", specs, chunk=2)
    with contextlib.ExitStack() as replaced:
        workers = list(leaves)
        for times in range(1, 5):  # as a part of its leaf; again; on its own; with nothing beside it
            wait_for(lambda times=times: calls(scratch).get(0) == times or run.result is not None)
            if run.result is not None:  # a try went to a worker that was just dying, and was moved on before it began
                break
            pid = int((scratch / "0.calls").read_text().split()[-1])
            workers.append(replaced.enter_context(site.worker("--leaf-only", "--slots", "1")))
            next(w for w in workers if pid in descendants(w.process.pid)).kill(machine=True)
        ref.result(timeout=PATIENCE)

    tables = check(run, good=[1, 2, 3], bad=[0])
    told = tables["errors"].row(0, named=True)
    assert told["exception_type"] == "scythe.errors.WorkerCrashed"
    said = r"its worker was lost \d times while it ran \(.+\), 1 of them with nothing beside it"
    assert re.match(said, told["exception_message"])
    assert tables["tasks"]["attempts"].to_list()[1:] == [1, 1, 1]
    assert calls(scratch)[0] in (2, 3, 4)
