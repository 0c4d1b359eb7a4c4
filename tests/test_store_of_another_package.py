"""A store that another package brings holds whole experiments, like a folder and like S3."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

import scythe
from scythe import BaseExperiment, ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry, FileReference
from scythe.errors import SettingsError
from scythe.runs.rebuild import rebuild
from scythe.settings import storage
from scythe_catalog import plugins
from scythe_catalog.storage.objects import Objects
from tests.installed import install
from tests.s3_server import S3Server


class Side(ExperimentInputSpec):
    x: float
    unit: FileReference


class Area(ExperimentOutputSpec):
    area: float
    drawing: FileReference


@pytest.fixture
def toy(root: Path, tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an empty root in the toy's store, set in the environment."""
    here = Path(__file__).with_name("toy_store") / "toy_store.py"
    install(here, tmp_path / "site", "[scythe.stores]\ns3a = toy_store:Toy\n", monkeypatch)
    plugins.brought.cache_clear()
    monkeypatch.setenv("TOY_ENDPOINT", s3.endpoint)
    address = f"s3a://{s3.new_bucket()}/lab"
    monkeypatch.setenv("SCYTHE_STORAGE_ROOT", address)
    yield address
    plugins.brought.cache_clear()


def areas() -> BaseExperiment:
    @ExperimentRegistry.Register(name="areas", retries=0)
    def areas(spec: Side, tempdir: Path) -> Area:
        assert isinstance(spec.unit, Path)
        (tempdir / "d.txt").write_text(f"{spec.x} {spec.unit.read_text()}")
        return Area(area=spec.x**2, drawing=tempdir / "d.txt", dataframes={"steps": pl.DataFrame({"step": [0, 1]})})

    return BaseExperiment(areas)


@pytest.mark.parametrize("engine", ["inline", "local"])
def test_a_whole_experiment_lies_in_a_store_that_another_package_brings(toy: str, engine: str) -> None:
    Path("unit.txt").write_text("m")
    storage().write("units/km.txt", b"km")
    units = ["unit.txt", f"{toy}/units/km.txt", "unit.txt"]
    run, ref = areas().allocate(pl.DataFrame({"x": [1.0, 2.0, 3.0], "unit": units}), engine=engine, workers=2)

    assert ref.result().uris["scalars"].startswith(f"{toy}/areas/v1.0.0/")
    assert scythe.read("areas")["area"].to_list() == [1.0, 4.0, 9.0]
    assert scythe.scan("areas", table="steps").collect().height == 6
    drawings = scythe.files("areas")["drawing"].to_list()
    assert [storage().read(storage().key(uri)) for uri in drawings] == [b"1.0 m", b"2.0 km", b"3.0 m"]
    assert [(given.x, got.area) for given, got in scythe.rows("areas")] == [(1.0, 1.0), (2.0, 4.0), (3.0, 9.0)]
    rebuild(storage())
    assert scythe.read("areas", "all", run="all")["area"].to_list() == [1.0, 4.0, 9.0]
    run.delete()
    assert storage().keys("areas") == []


def test_an_address_that_no_store_is_known_for_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCYTHE_STORAGE_ROOT", "gs://mine/scythe")
    with pytest.raises(SettingsError, match=r"no store is known for gs://mine/scythe: use a folder, or .*s3://"):
        scythe.list_experiments()
    assert not list(Path.cwd().iterdir())


def test_a_relative_root_is_below_the_folder_in_which_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        found.append(Objects.at("data").folder)
    assert found == [tmp_path / "a" / "data", tmp_path / "b" / "data"]
