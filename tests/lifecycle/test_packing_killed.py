"""`scythe pack --delete` of a process that is killed at any of its changes, and between the parts of an upload that is.

Files are read as before, and what was begun comes to its end.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import scythe
from scythe import BaseExperiment, ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry, FileReference
from scythe.gather.publish import unpublished
from scythe.record.generations import catalog_of
from scythe.runs.garbage import collect
from scythe.runs.pack import pack
from scythe.runs.run import ExperimentRun
from scythe.settings import storage
from scythe.transfer import sent
from tests.lifecycle.dying import Dead, dying


class Wall(ExperimentInputSpec):
    a: int


class Heat(ExperimentOutputSpec):
    hourly: FileReference


@pytest.mark.parametrize("then", ["again", "gc"])
def test_packing_that_is_killed_anywhere_loses_no_file_and_is_ended_by_the_next_call_or_by_gc(
    root: Path, then: str
) -> None:
    @ExperimentRegistry.Register(name="walls")
    def walls(spec: Wall, tempdir: Path) -> Heat:
        np.save(tempdir / "h.npy", np.full(3, spec.a, np.float32))
        return Heat(hourly=tempdir / "h.npy")

    run, _ = BaseExperiment("walls").allocate(pl.DataFrame({"a": range(3)}), engine="inline")
    copy = root.with_name("copy")
    shutil.copytree(root, copy)

    def files() -> list[list[float]]:
        return [
            row["y"].tolist() for row in map(scythe.dataset("walls", y=scythe.File("hourly")).__getitem__, range(3))
        ]

    after, died, recorded = 0, True, 0
    while died:
        shutil.rmtree(root)
        shutil.copytree(copy, root)
        died = False
        with dying(after):
            try:
                pack(storage(), run.key, ["hourly"], delete=True)
            except Dead:
                died = True
        assert files() == [[0] * 3, [1] * 3, [2] * 3], f"killed after {after} changes"
        packed = "packs" in scythe.open_run("walls").result.tables
        recorded += packed and unpublished(storage(), "walls") != []
        if then == "again":
            pack(storage(), run.key, ["hourly"], delete=True)
        else:
            collect(storage())
        assert unpublished(storage(), "walls") == [], f"killed after {after} changes"
        if then == "again" or packed:
            assert catalog_of(storage()).table("walls", "packs").iceberg.scan().to_arrow().num_rows == 3
        assert files() == [[0] * 3, [1] * 3, [2] * 3], f"killed after {after} changes"
        after += 1
    assert after > 10
    assert recorded > 3, "it was killed between its result and the catalog, too"


def packed_between(root: Path, there: Path, monkeypatch: pytest.MonkeyPatch, run: ExperimentRun) -> None:
    """Packs a run in a root, and ends its upload to another one, which is that of the settings then."""
    monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(root))
    pack(storage(), run.key, ["hourly"], delete=True)
    monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(there))
    scythe.upload(root)


def walls_of(count: int) -> ExperimentRun:
    @ExperimentRegistry.Register(name="walls")
    def walls(spec: Wall, tempdir: Path) -> Heat:
        np.save(tempdir / "h.npy", np.full(3, spec.a, np.float32))
        return Heat(hourly=tempdir / "h.npy")

    return BaseExperiment("walls").allocate(pl.DataFrame({"a": range(count)}), engine="inline")[0]


def test_an_upload_that_is_killed_anywhere_and_packed_before_it_goes_on_leaves_no_file_that_nothing_names(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, there = walls_of(3), tmp_path / "there"
    copy = root.with_name("copy")
    shutil.copytree(root, copy)
    after, died, loose = 0, True, 0
    while died:
        for folder in (root, there):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(copy, root)
        monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(there))
        died = False
        with dying(after):
            try:
                scythe.upload(root)
            except Dead:
                died = True
        if not died:
            break
        loose += any(there.rglob("results/hourly/*"))
        packed_between(root, there, monkeypatch, run)
        for results in (root / run.key.path / "results", there / run.key.path / "results"):
            assert [path.name for path in results.iterdir()] == ["_shards"], f"killed after {after} changes"
        data = scythe.dataset("walls", y=scythe.File("hourly"))
        assert [data[i]["y"].tolist() for i in range(3)] == [[0] * 3, [1] * 3, [2] * 3]
        after += 3  # each takes as long as an upload
    assert loose > 1


def test_what_a_run_of_the_other_root_has_reused_of_an_upload_that_was_killed_stays(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, there = walls_of(3), tmp_path / "there"
    monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(there))
    with monkeypatch.context() as patch:
        patch.setattr(sent, "take_in", ended_by(Dead, sent.take_in))
        with pytest.raises(Dead):
            scythe.upload(root)
    grown, ref = BaseExperiment("walls").allocate(pl.DataFrame({"a": range(4)}), engine="inline", reuse=True)
    ref.result()
    packed_between(root, there, monkeypatch, run)
    uris = scythe.files("walls", run=grown)["hourly"]
    assert [np.load(scythe.fetch(uri))[0] for uri in uris] == [0, 1, 2, 3]


def ended_by(error: type[BaseException], call: Callable[..., Any]) -> Callable[..., Any]:
    """The same, after which the process dies."""

    def called(*arguments: Any) -> None:
        call(*arguments)
        raise error

    return called
