"""An engine that another package brings runs experiments like those of Scythe's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

import scythe
from scythe import BaseExperiment, ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry, LocalOptions
from scythe.engines.start import engine_named
from scythe.errors import AllocationError, RegistrationError, SettingsError
from scythe_catalog import plugins
from tests.installed import install


class Side(ExperimentInputSpec):
    x: float


class Area(ExperimentOutputSpec):
    area: float


@pytest.fixture
def installed(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package of the toy engine."""
    here = Path(__file__).with_name("toy_engine") / "toy_engine.py"
    install(here, tmp_path / "site", "[scythe.engines]\ntoy = toy_engine:ToyEngine\n", monkeypatch)
    for known in (engine_named, plugins.brought):
        known.cache_clear()
    yield
    for known in (engine_named, plugins.brought):
        known.cache_clear()


def areas(**options: object) -> BaseExperiment:
    @ExperimentRegistry.Register(name="areas", retries=0, **options)  # type: ignore[arg-type]
    def areas(spec: Side) -> Area:
        if spec.x < 0:
            raise ValueError("no such square")
        return Area(area=spec.x**2)

    return BaseExperiment(areas)


def test_an_engine_that_is_installed_runs_a_whole_experiment(installed: None) -> None:
    run, ref = areas().allocate(pl.DataFrame({"x": [1.0, 2.0, -1.0, 4.0]}), engine="toy")

    result = ref.result()

    assert (result.rows, result.errors, ref.workflow_run_id) == (3, 1, run.workflow_run_id)
    assert scythe.read("areas")["area"].to_list() == [1.0, 4.0, 16.0]
    assert [attempt.engine for attempt in run.attempts] == ["toy"]
    assert run.retry_errors().result().attempt == 2
    assert scythe.list_runs("areas")["status"].to_list() == ["finished"]


def test_its_options_come_from_the_registration_and_from_the_call(
    installed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import toy_engine  # pyright: ignore[reportMissingImports]

    seen = []
    real = toy_engine.ToyEngine.start
    monkeypatch.setattr(toy_engine.ToyEngine, "start", lambda *a, **o: (seen.append(a[1].options), real(*a, **o))[1])
    specs = pl.DataFrame({"x": [1.0]})
    areas(engine_options={"toy": {"chunk": 7}}).allocate(specs, engine="toy")
    areas(engine_options={"toy": {"chunk": 7}}).allocate(specs, engine=toy_engine.ToyOptions(chunk=2))
    areas().allocate(specs, engine="toy")
    assert [getattr(o, "chunk", None) for o in seen] == [7, 2, None]


def test_what_an_engine_does_not_take_is_told_before_anything_is_written(installed: None, root: Path) -> None:
    @ExperimentRegistry.Register(name="wants")
    def wants(spec: Side, tempdir: Path) -> Area:
        return Area(area=0)

    specs = pl.DataFrame({"x": [1.0]})
    with pytest.raises(AllocationError, match="gives 'wants' no tempdir"):
        BaseExperiment(wants).allocate(specs, engine="toy")
    with pytest.raises(
        SettingsError, match="there is no engine 'toi': use 'inline' or 'local' or 'hatchet' or 'slurm' or 'toy'"
    ):
        areas().allocate(specs, engine="toi")
    with pytest.raises(SettingsError, match=r"options of the engine 'toy': chank=1: Extra inputs"):
        areas(engine_options={"toy": {"chank": 1}}).allocate(specs, engine="toy")
    with pytest.raises(SettingsError, match="the engine 'inline' has no options"):
        areas(engine_options={"inline": {"workers": 1}}).allocate(specs, engine="inline")
    with pytest.raises(RegistrationError, match=r"engine_options\['toy'\] holds options of 'local'"):
        areas(engine_options={"toy": LocalOptions(workers=1)})
    assert not root.exists()


def test_the_engines_of_scythe_take_their_options_too(root: Path) -> None:
    with pytest.raises(AllocationError, match=r"workers=4 and LocalOptions\(workers=1\): give one of them"):
        areas().allocate(pl.DataFrame({"x": [3.0]}), engine=LocalOptions(workers=1), workers=4)
    result = areas().allocate(pl.DataFrame({"x": [3.0]}), engine=LocalOptions(workers=1))[1].result()

    assert result.rows == 1
    with pytest.raises(ValueError, match="workers"):
        LocalOptions(workers=0)
