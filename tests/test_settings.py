"""Settings are environment variables; an empty one is one that is not set."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

from scythe import settings
from scythe.engines.slurm.engine import _Settings
from scythe.worker import ScytheWorkerConfig

#: All of them, as the page tells them.
CLASSES = (
    settings.StorageSettings, settings.EngineSettings, settings.HatchetSettings, settings.FetchSettings, settings.TimeoutSettings,
    _Settings, ScytheWorkerConfig,
)  # fmt: skip


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_an_empty_variable_is_one_that_is_not_set(
    kind: type[BaseSettings], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = kind.model_config.get("env_prefix", "")
    names = {f"{prefix}{name}".upper() for name in kind.model_fields}
    for name in names:
        monkeypatch.delenv(name, raising=False)
    unset = settings.read(kind)
    for name in names - {"SCYTHE_STORAGE_BUCKET_PREFIX"}:
        monkeypatch.setenv(name, "")
    found = settings.read(kind)
    assert {**found.model_dump(), "bucket": None} == {**unset.model_dump(), "bucket": None}


def test_an_empty_root_is_no_working_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ROOT", "BUCKET", "BUCKET_PREFIX"):
        monkeypatch.setenv(f"SCYTHE_STORAGE_{name}", "")
    assert settings.storage().uri("a") == (Path.cwd() / "scythe-data" / "a").as_uri()


def test_the_prefix_of_a_bucket_may_be_empty(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCYTHE_STORAGE_BUCKET", "b")
    assert settings.storage().uri("a") == "s3://b/scythe/a"
    monkeypatch.setenv("SCYTHE_STORAGE_BUCKET_PREFIX", "")
    assert settings.storage().uri("a") == "s3://b/a"
