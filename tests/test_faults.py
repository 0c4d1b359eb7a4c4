"""A machine that fails at any moment: the parent is killed again and again, and nothing is lost or doubled."""

import random
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from polars.testing import assert_frame_equal

import scythe
from scythe.gather.parts import shown_files

INPUTS = 400

MODULE = """
import os, sys
from pathlib import Path
import polars as pl
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.registry import ExperimentRegistry
from scythe.utils.filesys import FileReference

class Point(ExperimentInputSpec):
    x: int
    fate: str

class Value(ExperimentOutputSpec):
    y: int
    report: FileReference

@ExperimentRegistry.Register(retries=0)
def work(spec: Point, tempdir: Path) -> Value:
    (Path("marks") / str(spec.sort_index)).touch()
    if spec.fate == "raises":
        raise ValueError(f"no {spec.x}")
    if spec.fate == "dies":
        os._exit(3)
    report = tempdir / "report.txt"
    report.write_text(str(spec.x))
    sum(range(20_000))
    return Value(y=2 * spec.x, report=report, dataframes={"rows": pl.DataFrame({"k": [0, 1], "v": [spec.x, -spec.x]})})
"""
ALLOCATE = """
import json, sys
from pathlib import Path
from faulty import Point
from scythe.gather import collect
from scythe.allocate import BaseExperiment

collect._FIRST_FLUSH_SECONDS, collect._FLUSH_SHARE = 0.1, 1.0  # so that there are parts to find again
if __name__ == "__main__":
    fates = json.loads(Path("fates.json").read_text())
    specs = [Point(experiment_id="", sort_index=i, x=i, fate=f) for i, f in enumerate(fates)]
    _, ref = BaseExperiment(experiment="work").allocate(specs, engine="local", workers=2)
    ref.result()
"""
RESUME = """
import faulty, scythe
from scythe.gather import collect

collect._FIRST_FLUSH_SECONDS, collect._FLUSH_SHARE = 0.1, 1.0
if __name__ == "__main__":
    scythe.open_run("work").resume(workers=2).result()
"""


def killed_after(script: str, marks: int) -> bool:
    """Runs a script and kills it when this many more inputs were begun; whether it came to that."""
    folder = Path("marks")
    for mark in folder.iterdir():
        mark.unlink()
    process = subprocess.Popen([sys.executable, script], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    try:
        while process.poll() is None and len(list(folder.iterdir())) < marks:
            assert time.monotonic() < deadline, f"{script} stands still at {len(list(folder.iterdir()))} inputs"
            time.sleep(0.002)
        return process.poll() is None
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("seed", range(3))
def test_a_run_whose_process_is_killed_again_and_again_ends_complete(root: Path, seed: int) -> None:
    chance = random.Random(seed)
    fates = chance.choices(["fine", "raises"], [0.95, 0.05], k=INPUTS)
    fates[chance.randrange(INPUTS)] = "dies"
    Path("faulty.py").write_text(MODULE)
    Path("allocate.py").write_text(ALLOCATE)
    Path("resume.py").write_text(RESUME)
    Path("fates.json").write_text(str(fates).replace("'", '"'))
    Path("marks").mkdir()

    killed_after("allocate.py", chance.randrange(1, INPUTS))
    if scythe.open_run("work").status != "finished":
        assert scythe.open_run("work").status == "incomplete"
        killed_after("resume.py", chance.randrange(1, INPUTS // 2))
    done = subprocess.run([sys.executable, "resume.py"], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr

    run = scythe.open_run("work")
    assert run.status == "finished"
    assert run.result is not None
    kept = [i for i, fate in enumerate(fates) if fate == "fine"]
    lost = [i for i, fate in enumerate(fates) if fate != "fine"]
    assert (run.result.rows, run.result.errors) == (len(kept), len(lost))
    scalars, errors, tasks = (scythe.read("work", table=t) for t in ("scalars", "errors", "tasks"))
    assert scalars["sort_index"].to_list() == kept
    assert scalars["y"].to_list() == [2 * i for i in kept]
    assert errors["sort_index"].to_list() == lost
    assert errors["exception_type"].to_list() == [
        {"raises": "ValueError", "dies": "scythe.errors.WorkerCrashed"}[fates[i]] for i in lost
    ]
    assert tasks["sort_index"].to_list() == list(range(INPUTS))
    frames = scythe.read("work", table="rows")
    assert frames["sort_index"].to_list() == [i for i in kept for _ in range(2)]
    assert frames["v"].to_list() == [v for i in kept for v in (i, -i)]

    # final/, the catalog and the files agree, and nothing else lies there
    folder = root / run.key.path
    assert {p.name for p in (folder / "final").iterdir()} == {f"{t}.pq" for t in run.result.tables}
    for table, found in run.result.tables.items():
        stored = pl.from_arrow(pq.read_table(folder / "final" / f"{table}.pq"))
        assert isinstance(stored, pl.DataFrame)
        read = scythe.read("work", table=table)
        assert stored.height == found.rows == read.height
        assert stored["sort_index"].to_list() == read["sort_index"].to_list()
    refs = scythe.files("work")
    assert refs["sort_index"].to_list() == kept
    reports = {p.as_uri(): p for p in (folder / "results" / "report").iterdir()}
    assert sorted(reports) == sorted(refs["report"])
    assert [int(reports[u].read_text()) for u in refs["report"]] == kept
    assert_frame_equal(scythe.read("work", run="all").select(scalars.columns), scalars)
    left = {f"{run.key.parts}/{name}" for name in run.objects.files(run.key.parts)}
    assert {key for key in left if not key.endswith(".shown")} <= shown_files(run.objects, run.key), (
        "snapshots name them"
    )
