"""`scythe pack --delete` of a process that is killed at any of its changes: files are read as before, and what it began comes to its end."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import scythe
from scythe import BaseExperiment, ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry, FileReference
from scythe.gather.publish import unpublished
from scythe.record.generations import catalog_of
from scythe.runs.garbage import collect
from scythe.runs.pack import pack
from scythe.settings import storage
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
