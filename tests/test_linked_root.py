"""A root that links lead to: it has several names, and is one root by each of them."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import scythe
from scythe.allocate import BaseExperiment, ExperimentRun
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.errors import CatalogError, ScytheError
from scythe.record.generations import catalog_of
from scythe.registry import ExperimentRegistry
from scythe.runs.rebuild import rebuild
from scythe.settings import storage
from scythe.utils.filesys import FileReference
from scythe_catalog.schema import Column, compile_model
from scythe_catalog.schema.kinds import Str
from scythe_catalog.storage.objects import Objects


class Beam(ExperimentInputSpec):
    length: float


class Load(ExperimentOutputSpec):
    moment: float
    plot: FileReference


called: list[float] = []
broken: set[float] = set()


def bend(spec: Beam, tempdir: Path) -> Load:
    called.append(spec.length)
    if spec.length in broken:
        raise KeyboardInterrupt
    plot = tempdir / "plot.txt"
    plot.write_text(f"{spec.length}")
    return Load(moment=spec.length**2, plot=plot)


@pytest.fixture
def names(tmp_path: Path) -> dict[str, Path]:
    """The two names of one folder: its own, and by a link on the way to it."""
    (tmp_path / "disk 7").mkdir()
    (tmp_path / "scratch").symlink_to(tmp_path / "disk 7")
    return {"folder": tmp_path / "disk 7" / "root", "link": tmp_path / "scratch" / "root"}


@pytest.fixture
def as_root(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    ExperimentRegistry.Register(name="bend")(bend)
    return lambda path: monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(path))


def allocate(n: int, **options: Any) -> ExperimentRun:
    options.setdefault("engine", "inline")
    return BaseExperiment(experiment="bend").allocate(pl.DataFrame({"length": range(n)}), **options)[0]


@pytest.mark.parametrize(("first", "then"), [("folder", "link"), ("link", "folder")])
def test_a_root_is_the_same_by_a_link_and_without_it(
    names: dict[str, Path], as_root: Callable[[Path], None], first: str, then: str
) -> None:
    as_root(names[first])
    allocate(2)
    before = scythe.read("bend"), scythe.files("bend")

    as_root(names[then])
    assert_frame_equal(scythe.read("bend"), before[0])
    assert_frame_equal(scythe.files("bend"), before[1])
    called.clear()
    grown = allocate(5, reuse=True)
    assert called == [2.0, 3.0, 4.0]
    assert scythe.read("bend")["moment"].to_list() == [0.0, 1.0, 4.0, 9.0, 16.0]
    assert [scythe.fetch(uri).read_text() for uri in scythe.files("bend")["plot"]] == [f"{i}.0" for i in range(5)]

    as_root(names[first])
    assert scythe.list_runs("bend")["status"].to_list() == ["finished", "finished"]
    grown.delete()
    rebuild(storage())
    as_root(names[then])
    assert_frame_equal(scythe.read("bend"), before[0])


@pytest.mark.parametrize("engine", ["local", "inline"])
def test_a_run_begun_by_one_name_is_resumed_by_the_other(
    names: dict[str, Path], as_root: Callable[[Path], None], engine: str
) -> None:
    as_root(names["link"])
    allocate(2)
    broken.add(1.0)
    with pytest.raises(KeyboardInterrupt):
        allocate(3, version="bumpminor")
    broken.clear()
    as_root(names["folder"])
    scythe.open_run("bend", "1.1.0").resume(engine=engine).result()
    assert scythe.read("bend", "1.1.0")["moment"].to_list() == [0.0, 1.0, 4.0]
    assert scythe.read("bend", "all", run="all").height == 5


def test_a_root_that_was_moved_with_a_link_left_in_its_place_goes_on(
    names: dict[str, Path], as_root: Callable[[Path], None], tmp_path: Path
) -> None:
    old = tmp_path / "root"
    as_root(old)
    allocate(2)
    shutil.move(old, names["folder"])
    as_root(names["folder"])
    with pytest.raises(ScytheError, match=r"make the catalog anew with `scythe rebuild`"):
        scythe.read("bend")
    old.symlink_to(names["folder"])
    assert scythe.read("bend")["moment"].to_list() == [0.0, 1.0]
    old.unlink()
    rebuild(storage())
    called.clear()
    allocate(3, reuse=True)
    assert called == [2.0]


def test_what_was_downloaded_through_a_link_is_added_to_without_it(
    names: dict[str, Path], as_root: Callable[[Path], None], tmp_path: Path
) -> None:
    as_root(tmp_path / "far")
    allocate(2)
    scythe.download("bend", names["link"])
    assert scythe.download("bend", names["folder"]).files == 0
    allocate(3, version="bumpminor")
    scythe.download("bend", names["folder"])
    as_root(tmp_path / "farther")
    assert len(scythe.upload(names["folder"]).runs) == 2
    for name in names.values():
        as_root(name)
        assert scythe.read("bend", "all", run="all")["moment"].to_list() == [0.0, 1.0, 0.0, 1.0, 4.0]
    with pytest.raises(ScytheError, match="is the root itself"):
        scythe.download("bend", names["folder"])


def test_a_name_is_learnt_anew_where_another_process_has_made_the_catalog_anew(
    names: dict[str, Path], as_root: Callable[[Path], None], tmp_path: Path
) -> None:
    as_root(names["link"])
    allocate(2)
    as_root(names["folder"])
    assert scythe.read("bend").height == 2  # by the name of the link
    names["link"].parent.unlink()
    command = [sys.executable, "-c", "from scythe.cli import main; main()", "rebuild"]
    subprocess.run(command, check=True, timeout=120, capture_output=True)
    (tmp_path / "scratch").symlink_to(tmp_path / "disk 7")
    assert scythe.read("bend").height == 2
    allocate(3, reuse=True)
    assert {uri.partition("/bend/")[0] for uri in scythe.files("bend")["plot"]} == {
        names["folder"].as_uri().replace("%20", " ")
    }


def test_a_link_that_was_turned_to_another_root_leads_there_at_once(
    names: dict[str, Path], as_root: Callable[[Path], None], tmp_path: Path
) -> None:
    link, other = tmp_path / "now", tmp_path / "other"
    as_root(other)
    allocate(4)
    link.symlink_to(names["folder"].parent)
    as_root(link)
    allocate(2)
    link.unlink()
    link.symlink_to(other)
    allocate(5, reuse=True)
    assert scythe.list_runs("bend").height == 2
    assert scythe.read("bend").height == 5


def test_two_processes_that_name_an_empty_root_otherwise_are_told_to_call_again(names: dict[str, Path]) -> None:
    one, other = (catalog_of(Objects.at(name)) for name in names.values())
    names["folder"].mkdir()
    schema, partition = compile_model(Beam).schema, (Column("version", Str()),)
    one.ensure("bend", "scalars", schema, partition)
    with pytest.raises(
        CatalogError, match=r"by another name, by which another process has just used it .*: call again"
    ):
        other.table("bend", "scalars")
