"""Roots that cannot be written, and disks that fill up while a run is gathered."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import polars as pl
import pytest

import scythe
from scythe.allocate import BaseExperiment
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.errors import RunError, ScytheError
from scythe.gather.publish import is_unpublished
from scythe.registry import ExperimentRegistry


class Number(ExperimentInputSpec):
    x: int


class Square(ExperimentOutputSpec):
    square: int


@pytest.fixture
def base() -> BaseExperiment:
    @ExperimentRegistry.Register(name="squares")
    def squares(spec: Number) -> Square:
        return Square(square=spec.x**2)

    return BaseExperiment(experiment=squares)


def numbers(n: int) -> list[Number]:
    return [Number(experiment_id="", sort_index=i, x=i) for i in range(n)]


def test_a_root_that_cannot_be_written_is_named(
    base: BaseExperiment, root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(tmp_path / "file" / "below"))
    with pytest.raises(ScytheError, match=f"{tmp_path}/file/below.* cannot be written"):
        base.allocate(numbers(3), engine="inline")


def test_a_run_that_cannot_be_gathered_says_where_keeps_its_rows_and_can_be_resumed(
    base: BaseExperiment, root: Path
) -> None:
    first, _ = base.allocate(numbers(3), engine="inline")
    calls: list[int] = []

    @ExperimentRegistry.Register(name="blocked")
    def blocked(spec: Number) -> Square:
        folder = next((root / "blocked").glob("v*/*"))
        if not calls:
            (folder / "scatter-gather" / "output").mkdir(parents=True, exist_ok=True)
            (folder / "scatter-gather" / "output" / "gathers").write_text("in the way")
        calls.append(spec.x)
        return Square(square=spec.x**2)

    with pytest.raises(RunError, match=r"blocked/v1\.0\.0/.* cannot be gathered.*resume"):
        BaseExperiment(experiment=blocked).allocate(numbers(5), engine="inline")
    run = scythe.open_run("blocked")
    assert run.status == "incomplete"
    assert scythe.read("squares", run=first)["square"].to_list() == [0, 1, 4]
    assert scythe.read("blocked", run=run)["square"].to_list() == [0, 1, 4, 9, 16]

    (root / run.experiment_id / "scatter-gather" / "output" / "gathers").unlink()
    assert run.resume(engine="inline").result().rows == 5
    assert calls == list(range(5)), "finished inputs are not run again"
    assert scythe.read("blocked")["square"].to_list() == [0, 1, 4, 9, 16]


def test_a_run_whose_result_is_recorded_is_read_by_it_until_the_rest_can_be_written(root: Path) -> None:
    @ExperimentRegistry.Register(name="hidden")
    def hidden(spec: Number) -> Square:
        folder = next((root / "hidden").glob("v*/*"))
        if not (folder / "final").exists():
            (folder / "final").write_text("in the way")
        return Square(square=spec.x**2)

    with pytest.raises(RunError, match=r"hidden/v1\.0\.0/.* is finished and can be read.*resume"):
        BaseExperiment(experiment=hidden).allocate(numbers(3), engine="inline")
    run = scythe.open_run("hidden")
    assert run.status == "finished"
    assert scythe.read("hidden")["square"].to_list() == [0, 1, 4]

    (root / run.experiment_id / "final").unlink()
    assert run.resume(engine="inline").result().rows == 3
    assert pl.read_parquet(root / run.key.final("scalars"))["square"].to_list() == [0, 1, 4]
    assert not is_unpublished(run.objects, run.key)


def test_files_that_cannot_grow_stop_a_run_with_an_error_and_it_is_resumed_when_there_is_room(root: Path) -> None:
    script = Path("filling.py").resolve()
    script.write_text(
        textwrap.dedent(
            """
            import resource, signal, sys
            from scythe.allocate import BaseExperiment
            from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
            from scythe.registry import ExperimentRegistry

            class Number(ExperimentInputSpec):
                x: int

            class Noise(ExperimentOutputSpec):
                noise: bytes

            @ExperimentRegistry.Register()
            def noise(spec: Number) -> Noise:
                import random
                return Noise(noise=random.Random(spec.x).randbytes(4000))

            if __name__ == "__main__":
                specs = [Number(experiment_id="", sort_index=i, x=i) for i in range(200)]
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
                BaseExperiment(experiment=noise).allocate(specs, engine="inline")
            """
        )
    )
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "noise/v1.0.0/" in done.stderr
    assert "cannot be gathered" in done.stderr
    assert scythe.open_run("noise").status == "incomplete"
    assert not list(root.glob("noise/*/*/final/scalars.pq"))

    assert scythe.open_run("noise").resume(workers=1, module=str(script)).result().rows == 200
    assert scythe.read("noise", columns=["noise"]).height == 200


def test_what_a_killed_process_left_in_the_staging_folder_is_swept_away_after_a_week(
    base: BaseExperiment, root: Path
) -> None:
    base.allocate(numbers(1), engine="inline")
    old, young = root / ".staging" / "old.pq", root / ".staging" / "young.pq"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    base.allocate(numbers(1), engine="inline")
    assert not old.exists()
    assert young.exists()
