"""Whatever one file a run has lost, or has damaged: who goes on with it gets the right rows, or an error of Scythe's that says so."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

import scythe
from scythe.allocate import BaseExperiment, ExperimentRun
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.cli import app
from scythe.errors import ScytheError, TooManyErrors
from scythe.record.attempts import attempts
from scythe.registry import ExperimentRegistry
from scythe.utils.filesys import FileReference

#: Where it is set, an input of this load fails.
BROKEN = "BROKEN_BEAM"
DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "gone": lambda _: None,
    "cut short": lambda raw: raw[: len(raw) // 2],
    "other bytes": lambda _: b"\0garbage",
}


class Beam(ExperimentInputSpec):
    load: float
    plan: FileReference


class Bent(ExperimentOutputSpec):
    sag: float


def bent(spec: Beam) -> Bent:
    if str(spec.load) == os.environ.get(BROKEN):
        raise ValueError("it broke")
    frames = {"joints": pl.DataFrame({"turn": [spec.load, spec.load + 1]})}
    return Bent(sag=2 * spec.load, dataframes=frames)


@pytest.fixture
def beams(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BaseExperiment:
    (tmp_path / "plan.txt").write_text("a plan")
    monkeypatch.setenv(BROKEN, "1.0")
    ExperimentRegistry.Register(retries=0)(bent)
    return BaseExperiment(bent)


def allocated(beams: BaseExperiment, tmp_path: Path, n: int, **how: Any) -> ExperimentRun:
    specs = pl.DataFrame({"load": [float(i) for i in range(n)], "plan": [str(tmp_path / "plan.txt")] * n})
    run, ref = beams.allocate(specs, engine="local", workers=1, chunk=1, **how)
    if how:
        with pytest.raises(TooManyErrors):
            ref.result()
    else:
        ref.result()
    return run


def rows(run: ExperimentRun) -> list[tuple[float, float]]:
    kept = scythe.read(run.experiment, run.version, run=run.key.folder)
    return sorted(kept.select("load", "sag").rows())


@pytest.mark.timeout(600)
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(("verb", "finished"), [("resume", False), ("retry_errors", False), ("retry_errors", True)])
def test_who_goes_on_with_a_run_of_which_a_file_is_damaged_gets_its_rows_or_is_told(
    beams: BaseExperiment,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
    finished: bool,
    damage: str,
) -> None:
    run = allocated(beams, tmp_path, 3) if finished else allocated(beams, tmp_path, 4, max_errors=0)
    monkeypatch.delenv(BROKEN)
    shutil.copytree(root, whole := tmp_path / "whole")
    folder = whole / run.key.path
    right = [(i, 2 * i) for i in map(float, range(3 if finished else 4))]
    wrong = list[tuple[str, object]]()
    told = 0
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        here = root / path.relative_to(whole)
        here.unlink()
        if (left := DAMAGES[damage](path.read_bytes())) is not None:
            here.write_bytes(left)
        try:
            getattr(run, verb)(engine="inline").result()
            if (found := rows(run)) not in (right, [row for row in right if verb == "resume" and row[0] != 1.0]):
                wrong.append((path.name, found))
        except ScytheError as error:
            told += 1
            if str(error).count(" is damaged") > 1:
                wrong.append((path.name, error))
        except Exception as error:
            wrong.append((path.name, error))
        shutil.rmtree(root)
        shutil.copytree(whole, root)
    assert wrong == []
    assert told > 0


@pytest.mark.parametrize("verb", ["resume", "retry_errors"])
def test_an_attempt_after_those_whose_records_are_lost_takes_no_number_of_theirs(
    beams: BaseExperiment, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    run = allocated(beams, tmp_path, 4, max_errors=0)
    shutil.rmtree(root / run.key.attempts)
    monkeypatch.delenv(BROKEN)
    assert getattr(run, verb)(engine="inline").result().attempt == 2
    assert [one.number for one in attempts(run.objects, run.key)] == [2]
    assert len(rows(run)) == (4 if verb == "retry_errors" else 3)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("damage", ["gone", "other bytes"])
def test_who_looks_at_a_run_of_which_a_file_is_damaged_is_shown_it_or_told(
    beams: BaseExperiment, root: Path, tmp_path: Path, damage: str
) -> None:
    run, other, to = allocated(beams, tmp_path, 3), allocated(beams, tmp_path, 2), tmp_path / "there"
    words = [
        ["show", run.experiment_id], ["errors", run.experiment_id], ["logs", run.experiment_id], ["runs", "bent"], ["du", "bent"],
        ["diff", run.experiment_id, other.experiment_id], ["diff", other.experiment_id, run.experiment_id],
        ["download", run.experiment_id, str(to)], ["gc"],
    ]  # fmt: skip
    wrong = list[tuple[str, str, object]]()
    for path in sorted(path for path in (root / run.key.path).rglob("*") if path.is_file()):
        raw = path.read_bytes()
        for command in words:
            path.unlink()
            if (left := DAMAGES[damage](raw)) is not None:
                path.write_bytes(left)
            found = CliRunner().invoke(app, command).exception
            if found is not None and not isinstance(found, ScytheError | SystemExit):
                wrong.append((path.name, command[0], found))
            path.unlink(missing_ok=True)
            path.write_bytes(raw)
            shutil.rmtree(to, ignore_errors=True)
    assert wrong == []
    assert rows(run) == [(0.0, 0.0), (2.0, 4.0)]
