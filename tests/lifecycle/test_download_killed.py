"""A download whose process is killed at any of its changes of the root: the next call brings the run, as it is at its source by then."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import scythe
from scythe import BaseExperiment, ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry, FileReference
from tests.lifecycle.dying import Dead, dying


class Wall(ExperimentInputSpec):
    a: int


class Heat(ExperimentOutputSpec):
    y: int
    hourly: FileReference


@pytest.mark.parametrize("retried", [False, True])
def test_a_download_that_is_killed_anywhere_is_ended_by_the_next_call(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, retried: bool
) -> None:
    failing = {1}

    @ExperimentRegistry.Register(name="walls", retries=0)
    def walls(spec: Wall, tempdir: Path) -> Heat:
        if spec.a in failing:
            raise ValueError("broken")
        np.save(tempdir / "h.npy", np.full(3, spec.a, np.float32))
        frame = pl.DataFrame({"v": [spec.a, 7]})
        return Heat(y=10 * spec.a, hourly=tempdir / "h.npy", dataframes={"f": frame})

    with pytest.raises(ValueError, match="broken"):
        BaseExperiment("walls").allocate(pl.DataFrame({"a": range(3)}), engine="inline")
    run = scythe.open_run("walls")
    run.resume(engine="inline")
    source, here = root.with_name("source"), tmp_path / "here"
    shutil.copytree(root, source)

    def told() -> list[object]:
        monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(here))
        try:
            ds = scythe.dataset("walls", x="a", h=scythe.File("hourly"))
            files = [(row["x"].item(), row["h"].tolist()) for row in map(ds.__getitem__, range(len(ds)))]
            scalars, frame = (
                scythe.read("walls", table=t, columns=c).rows() for t, c in (("scalars", ["a", "y"]), ("f", ["v"]))
            )
            errors = scythe.read("walls", table="errors").height
            return [files, scalars, errors, frame, scythe.open_run("walls").status]
        finally:
            monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(root))

    after, died = 0, True
    while died:
        for folder in (root, here):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source, root)
        failing.add(1)
        died = False
        with dying(after):
            try:
                scythe.download("walls", here)
            except Dead:
                died = True
        good = [0, 2]
        if retried:
            failing.clear()
            run.retry_errors(engine="inline")
            good = [0, 1, 2]

        scythe.download("walls", here)

        expected = [
            [(a, [a] * 3) for a in good],
            [(a, 10 * a) for a in good],
            3 - len(good),
            [(v,) for a in good for v in (a, 7)],
            "finished",
        ]
        assert told() == expected, f"killed after {after} changes"
        assert scythe.download("walls", here).files == 0
        after += 3
    assert after > 20
