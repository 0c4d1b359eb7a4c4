"""One Slurm for all tests of a process, and the experiment that its jobs run."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from scythe.allocate import BaseExperiment
from scythe.source import load_experiments
from tests.slurm_server import Slurm, slurm_server, until


@pytest.fixture(scope="session")
def started() -> Iterator[Slurm]:
    with slurm_server() as slurm:
        yield slurm


@pytest.fixture
def slurm(started: Slurm, root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slurm]:
    """The cluster, with nothing in its queue before and after."""
    monkeypatch.setenv("SLURM_CONF", str(started.conf))
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    yield started
    started.ask("scancel", "--user=root")
    until(started.empty, "an empty queue")


@pytest.fixture
def station(slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BaseExperiment:
    """The experiment of `station.py`, in a file in the working folder."""
    shutil.copy(Path(__file__).parent / "station.py", "station.py")
    monkeypatch.syspath_prepend(str(Path.cwd()))
    sys.modules.pop("station", None)
    (found,) = load_experiments(["station:station"]) or []
    return BaseExperiment(found.target)


def module() -> ModuleType:
    """The module that it is in."""
    return sys.modules["station"]
