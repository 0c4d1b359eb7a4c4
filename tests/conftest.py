"""What all tests share: a root of their own, and a registry that forgets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("scythe", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("scythe")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty storage root, set in the environment; the working folder is a temporary one too."""
    folder = tmp_path / "root"
    monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(folder))
    monkeypatch.setenv("SCYTHE_CACHE_DIR", str(tmp_path / "cache"))
    for name in ("SCYTHE_STORAGE_BUCKET", "SCYTHE_ENGINE", "SCYTHE_WORKERS", "SCYTHE_CATALOG"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return folder


@pytest.fixture(autouse=True)
def forgetful_registry() -> Iterator[None]:
    """Experiments registered by a test are forgotten after it."""
    from scythe.registry import ExperimentRegistry

    before = dict(ExperimentRegistry._experiments)
    yield
    ExperimentRegistry._experiments.clear()
    ExperimentRegistry._experiments.update(before)
