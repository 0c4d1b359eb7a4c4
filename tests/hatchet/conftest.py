"""An engine and the workers of two places, for all tests of a process: each takes seconds to come up."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from scythe.registry import ExperimentRegistry
from tests.cluster import engine_environment
from tests.hatchet.sites import Cluster, Site


@pytest.fixture(scope="session")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    with engine_environment() as env:
        own = {"SCYTHE_STORAGE_ROOT": str(folder / "root"), "SCYTHE_CACHE_DIR": str(folder / "cache")}
        yield Cluster(folder, {**env, **own})


def _served(cluster: Cluster, kind: str, slots: int) -> Iterator[Site]:
    with cluster.entered():
        site = cluster.site(kind)
        worker = site.worker("--slots", str(slots))
    with worker:
        yield site


@pytest.fixture(scope="session")
def of_two_slots(started: Cluster) -> Iterator[Site]:
    yield from _served(started, "main", 2)


@pytest.fixture(scope="session")
def of_one_slot(started: Cluster) -> Iterator[Site]:
    yield from _served(started, "tiny", 1)


@pytest.fixture(scope="module")
def cluster(started: Cluster) -> Iterator[Cluster]:
    """The environment leads to the engine while the tests of a file run."""
    with started.entered():
        yield started


@pytest.fixture(scope="module")
def main(cluster: Cluster, of_two_slots: Site) -> Site:
    """Served by one worker of two slots."""
    ExperimentRegistry._experiments |= cluster.experiments  # of a site that came up after the file's first test
    of_two_slots.served("obey", "everything")
    return of_two_slots


@pytest.fixture(scope="module")
def tiny(cluster: Cluster, of_one_slot: Site) -> Site:
    """Served by one worker of one slot."""
    ExperimentRegistry._experiments |= cluster.experiments
    of_one_slot.served("obey")
    return of_one_slot


@pytest.fixture
def spare(cluster: Cluster) -> Site:
    """Served by nobody."""
    return cluster.site("spare")


@pytest.fixture(autouse=True)
def nobody_waits_for_ever(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that fails leaves no function that holds a slot."""
    yield
    if "cluster" in request.fixturenames:
        cluster: Cluster = request.getfixturevalue("cluster")
        for scratch in (cluster.folder / "scratch").glob("*"):
            (scratch / "gate").touch()
