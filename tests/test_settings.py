"""Settings are environment variables; an empty one is one that is not set."""

from __future__ import annotations

import sys
from pathlib import Path

import cloudpickle
import polars as pl
import pytest
from pydantic_settings import BaseSettings

from scythe import (
    BaseExperiment,
    ExperimentInputSpec,
    ExperimentOutputSpec,
    ExperimentRegistry,
    FileReference,
    settings,
)
from scythe.engines.slurm.engine import _Settings
from scythe.errors import SettingsError
from scythe.worker import ScytheWorkerConfig

cloudpickle.register_pickle_by_value(sys.modules[__name__])

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


@pytest.mark.parametrize("prefix", ["a//b", "a/../b", "./a", "..", "/a//"])
def test_a_prefix_with_parts_that_are_no_names_is_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    monkeypatch.setenv("SCYTHE_STORAGE_BUCKET", "lab")
    monkeypatch.setenv("SCYTHE_STORAGE_BUCKET_PREFIX", prefix)
    if prefix == "/a//":
        assert settings.storage().root == "s3://lab/a"
        return
    with pytest.raises(SettingsError, match=r"SCYTHE_STORAGE_BUCKET_PREFIX.*parts of a prefix are names"):
        settings.storage()


def test_the_prefix_of_a_bucket_may_be_empty(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCYTHE_STORAGE_BUCKET", "b")
    assert settings.storage().uri("a") == "s3://b/scythe/a"
    monkeypatch.setenv("SCYTHE_STORAGE_BUCKET_PREFIX", "")
    assert settings.storage().uri("a") == "s3://b/a"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("SCYTHE_STORAGE_BUKET", "SCYTHE_STORAGE_BUCKET"), ("SCYTHE_STORAGE_BUCKET_PREFX", "SCYTHE_STORAGE_BUCKET_PREFIX"),
        ("SCYTHE_STORAG_ROOT", "SCYTHE_STORAGE_ROOT"), ("SCYTHE_WORKER", "SCYTHE_WORKERS"), ("SCYTHE_ENGIN", "SCYTHE_ENGINE"),
    ],
)  # fmt: skip
def test_a_variable_that_is_nearly_a_setting_is_told_once(
    name: str, meant: str, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(settings, "_looked_at", {})
    monkeypatch.setenv(name, "4")
    for _ in range(2):
        settings.storage()
        settings.engine_settings()
    assert capsys.readouterr().err == f"{name} is no setting of Scythe: did you mean {meant}?\n"


def test_settings_and_what_is_far_from_them_are_not_told(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(settings, "_looked_at", {})
    known = {
        f"{kind.model_config.get('env_prefix', '')}{field}".upper() for kind in CLASSES for field in kind.model_fields
    }
    for name in {*known, "SCYTHE_CACHE_DIR", "SCYTHE_MY_OWN"}:
        monkeypatch.setenv(name, "")
    for kind in CLASSES:
        settings.read(kind)
    assert capsys.readouterr().err == ""


class Number(ExperimentInputSpec):
    weather: FileReference


class Size(ExperimentOutputSpec):
    size: int


def size(spec: Number) -> Size:
    from scythe.settings import fetch_settings

    fetch_settings()
    return Size(size=1)


def test_worker_processes_leave_it_to_their_parent(
    root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(settings, "_looked_at", {})
    monkeypatch.setenv("SCYTHE_CACHE_SIZES", "4")
    Path("a.txt").touch()
    ExperimentRegistry.Register()(size)
    BaseExperiment(size).allocate(pl.DataFrame({"weather": ["a.txt"] * 4}), workers=2, engine="local")[1].result()
    settings.fetch_settings()
    assert capfd.readouterr().err.count("did you mean SCYTHE_CACHE_SIZE?") == 1
