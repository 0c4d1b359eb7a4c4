"""What all tests share: a root of their own, and a registry that forgets."""

from __future__ import annotations

import functools
import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.loaders import JSONFileLoader
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadFileScheduling

from scythe.engines.pool import fork_server
from tests.postgres_server import postgres_server
from tests.s3_server import S3Server, s3_server

#: The temporary folders of all tests together take a fifth of this.
_FREE_BYTES = 4 << 30


def _folder_in_memory() -> str | None:
    """A temporary folder on a disk in memory, where there is one: what thousands of runs write need not be flushed to a real one."""
    memory = Path("/dev/shm")
    chosen = {"TMPDIR", "PYTEST_DEBUG_TEMPROOT"} & {
        *os.environ
    }  # by whoever started the tests, or this function in a parent
    if chosen or not os.access(memory, os.W_OK) or shutil.disk_usage(memory).free < _FREE_BYTES:
        return None
    os.environ["TMPDIR"] = tempfile.tempdir = tempfile.mkdtemp(prefix="scythe-tests-", dir=memory)
    return tempfile.tempdir


_IN_MEMORY = _folder_in_memory()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(exitstatus: int) -> None:
    """What failed can be looked at; else nothing stays in memory."""
    if _IN_MEMORY is not None and exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        shutil.rmtree(_IN_MEMORY, ignore_errors=True)


settings.register_profile("scythe", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("scythe")

# Of each process that loads NumPy, the threads of OpenBLAS would wait for work at full speed for a twentieth of a second.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")

# Whole files of tests that start no worker processes lie between others that do.
fork_server._IDLE_SECONDS = 120.0  # pyright: ignore[reportPrivateUsage]

# Until all tests are collected, whatever comes into being stays.
gc.disable()

# Each test with a bucket has a session of its own, which would parse the same megabytes of service models.
JSONFileLoader.load_file = staticmethod(functools.cache(JSONFileLoader().load_file))
JSONFileLoader.exists = staticmethod(functools.cache(JSONFileLoader().exists))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty storage root, set in the environment; the working folder is a temporary one too."""
    folder = tmp_path / "root"
    monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(folder))
    monkeypatch.setenv("SCYTHE_CACHE_DIR", str(tmp_path / "cache"))
    for name in (
        "SCYTHE_STORAGE_BUCKET",
        "SCYTHE_STORAGE_BUCKET_PREFIX",
        "SCYTHE_ENGINE",
        "SCYTHE_WORKERS",
        "SCYTHE_CATALOG",
    ):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return folder


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """An S3 server, for all tests of this process."""
    with s3_server() as server:
        yield server


@pytest.fixture
def bucket(root: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty bucket as the storage root, with boto3's settings in the environment."""
    for name in [n for n in os.environ if n.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SCYTHE_STORAGE_BUCKET", s3.new_bucket())
    return os.environ["SCYTHE_STORAGE_BUCKET"]


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URI of a Postgres server, for all tests of this process."""
    with postgres_server() as uri:
        yield uri


@pytest.fixture(autouse=True)
def forgetful_registry() -> Iterator[None]:
    """Experiments registered by a test are forgotten after it."""
    from scythe.registry import ExperimentRegistry

    known = (ExperimentRegistry._experiments, ExperimentRegistry._included)
    before = [dict(names) for names in known]
    yield
    for names, kept in zip(known, before, strict=True):
        names.clear()
        names.update(kept)


#: Files and folders that take a minute or more, the longest first: what is begun last must be short.
_WAITING = (
    "slurm/test_faults.py",
    "slurm/test_runs.py",
    "test_s3_faults.py",
    "hatchet/test_attempt_plans.py",
    "hatchet",
    "slurm",
    "test_local_engine.py",
    "test_faults.py",
    "test_configured_catalogs.py",
)
_COMPUTING = (
    "lifecycle", "test_s3.py", "test_docs.py", "test_house.py", "catalog/test_conformance.py", "catalog/test_races.py", "test_download.py",
    "typing", "test_results.py", "test_docstrings.py",
)  # fmt: skip


#: Files whose runs one worker serves: where they are run by one process, engine and worker are started once.
_ON_ONE_CLUSTER = {
    f"tests/hatchet/test_{name}.py" for name in ("attempt_plans", "catalog_service", "function", "one_slot", "rows", "shapes")
}  # fmt: skip


class _ByPlace(LoadFileScheduling):
    """Each file in one process, and the files of one cluster in the same."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "tests/hatchet" if file in _ON_ONE_CLUSTER else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    return _ByPlace(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, and those that wait for servers, processes and clocks among those that compute, but none of them last."""
    folder = "tests/"

    def place(file: str, long: tuple[str, ...]) -> int:
        return next((i for i, name in enumerate(long) if file.startswith(folder + name)), len(long))

    files = dict.fromkeys(item.nodeid.partition("::")[0] for item in items)
    waiting = sorted((f for f in files if place(f, _WAITING) < len(_WAITING)), key=lambda f: place(f, _WAITING))
    computing = sorted((f for f in files if f not in waiting), key=lambda f: place(f, _COMPUTING))
    order = {f: 0.75 * i / len(waiting) for i, f in enumerate(waiting)} | {
        f: i / len(computing) for i, f in enumerate(computing)
    }
    items.sort(key=lambda item: order[item.nodeid.partition("::")[0]])


def pytest_collection_finish() -> None:
    gc.freeze()
    # A test leaves thousands of schemas and models that name one another: a sixth of the time went into looking for them.
    gc.set_threshold(100_000, 20, 100)
    gc.enable()


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Three processes more than cores: the tests wait for servers and workers about as often as they compute."""
    return (os.cpu_count() or 1) + 3
