"""The names that users of older packages have in their code mean here what they meant there."""

from __future__ import annotations

from pathlib import Path

import pytest

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.errors import AllocationError, VersionError
from scythe.experiments import BaseExperiment, SemVer
from scythe.registry import ExperimentRegistry, experiment_of
from scythe.worker import ScytheWorkerConfig, ScytheWorkerLabel


class Given(ExperimentInputSpec):
    x: float


class Found(ExperimentOutputSpec):
    y: float


def halve(spec: Given) -> Found:
    return Found(y=spec.x / 2)


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ExperimentRegistry, "_experiments", {})
    monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(tmp_path))
    monkeypatch.setenv("SCYTHE_ENGINE", "inline")
    ExperimentRegistry.Register()(halve)


def test_versions_are_read_from_text_and_have_next_ones() -> None:
    version = SemVer.FromString("v1.2.3")
    assert version == SemVer(major=1, minor=2, patch=3)
    following = [version.next_major_version(), version.next_minor_version(), version.next_patch_version()]
    assert [str(v) for v in following] == ["v2.0.0", "v1.3.0", "v1.2.4"]
    assert all(type(v) is SemVer for v in following)
    with pytest.raises(VersionError, match="write it as"):
        SemVer.FromString("one")


@pytest.mark.parametrize("deep", [True, False])
def test_a_copy_of_an_experiment_runs_the_same_function_into_the_same_folder(registered: None, deep: bool) -> None:
    first = BaseExperiment(runnable=halve, run_name="halves")
    copy = first.model_copy(deep=deep)
    assert copy.experiment is first.experiment
    run, ref = copy.allocate([Given(experiment_id="", sort_index=0, x=3)])
    assert ref.result().rows == 1
    assert [str(v) for v in first.list_versions()] == [run.version]


def test_a_copy_may_have_a_folder_of_its_own_and_nothing_else(registered: None) -> None:
    first = BaseExperiment(halve)
    assert first.model_copy(update={"run_name": "other"}).name == "other"
    with pytest.raises(AllocationError, match="not experiment"):
        first.model_copy(update={"experiment": "another"})


def test_a_label_asks_for_workers_that_say_yes(registered: None) -> None:
    from scythe.engines.hatchet.tasks import desired_labels

    assert ScytheWorkerLabel.HAS_GPU.worker_label == {"has_gpu": "yes"}
    asked = []
    for wanted in (ScytheWorkerLabel.HAS_GPU.worker_label, {ScytheWorkerLabel.HAS_GPU: True}, {"has_gpu": 1}):
        ExperimentRegistry.Register(desired_worker_labels=wanted)(halve)
        asked.append(desired_labels(experiment_of(halve).options))
    assert asked[0] == asked[1] == asked[2]
    (label,) = asked[0]
    assert label.required
    assert ScytheWorkerConfig(has_gpu=True).labels["has_gpu"] == label.value
    assert ScytheWorkerConfig().labels["has_gpu"] == "no"
