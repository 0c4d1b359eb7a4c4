"""With workers, scatter nodes and clients killed at random moments, every input ends in exactly one table.

`SCYTHE_FAULT_ROUNDS` says how many rounds, `SCYTHE_FAULT_SEED` with which seed they begin.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

import scythe
from scythe.errors import NotFoundError, RunError
from tests.cluster import PATIENCE, Worker, engine_environment, unique, wait_until_served

ROUNDS = int(os.environ.get("SCYTHE_FAULT_ROUNDS", "3"))
SEED = int(os.environ.get("SCYTHE_FAULT_SEED", "0"))
_N = 120

MODULE = """
import time
from pathlib import Path

import polars as pl

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.registry import ExperimentRegistry
from scythe.utils.filesys import FileReference


class In(ExperimentInputSpec):
    x: float


class Out(ExperimentOutputSpec):
    y: float
    trace: FileReference


@ExperimentRegistry.Register(name="NAME", retries=0)
def nap(input_spec: In, tempdir: Path) -> Out:
    time.sleep(0.05)
    if input_spec.x % 10 == 3:
        raise ValueError(f"no {input_spec.x}")
    (tempdir / "trace.txt").write_text(str(input_spec.x))
    return Out(y=2 * input_spec.x, trace=tempdir / "trace.txt", dataframes={"series": pl.DataFrame({"t": [1, 2]})})
"""

CLIENT = """
import sys
import polars as pl
import experiment
from scythe.allocate import BaseExperiment
from scythe.scatter_gather import RecursionMap

if __name__ == "__main__":
    n, factor, depth, chunk = map(int, sys.argv[1:])
    shape = RecursionMap(factor=factor, max_depth=depth) if factor else None
    print("ready", flush=True)
    run, ref = BaseExperiment(experiment.nap).allocate(
        pl.DataFrame({"x": [float(i) for i in range(n)]}), engine="hatchet", recursion_map=shape, chunk=chunk or None
    )
    print(run.experiment_id, flush=True)
    ref.result()
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    folder, name = tmp_path_factory.mktemp("faults"), unique("nap")
    (folder / "experiment.py").write_text(MODULE.replace("NAME", name))
    (folder / "client.py").write_text(CLIENT)
    (folder / "tmp").mkdir()
    with pytest.MonkeyPatch.context() as patch, engine_environment() as env:
        own = {
            "SCYTHE_STORAGE_ROOT": str(folder / "root"),
            "SCYTHE_CACHE_DIR": str(folder / "cache"),
            "TMPDIR": str(folder / "tmp"),
        }
        for key, value in {**env, **own}.items():
            patch.setenv(key, value)
        patch.syspath_prepend(str(folder))
        yield folder, name


class Crew:
    """Two leaf workers and two scatter workers; who was killed is replaced."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.workers = [self._start(kind) for kind in ("--leaf-only", "--fan-only") * 2]

    def _start(self, kind: str) -> tuple[str, Worker]:
        slots = ["--slots", "2"] if kind == "--leaf-only" else []
        return kind, Worker("experiment", kind, *slots, env={}, cwd=self._folder)

    def kill(self, rng: random.Random, kind: str) -> None:
        i = rng.choice([i for i, (k, _) in enumerate(self.workers) if k == kind])
        self.workers[i][1].kill(machine=rng.random() < 0.5)
        self.workers[i] = self._start(kind)

    def close(self) -> None:
        for _, worker in self.workers:
            worker.__exit__()


@pytest.fixture(scope="module")
def crew(place: tuple[Path, str]) -> Iterator[Crew]:
    folder, name = place
    crew = Crew(folder)
    try:
        wait_until_served(f"scythe_experiment_{name}", f"scythe_scatter_gather_{name}")
        yield crew
    finally:
        crew.close()


@pytest.mark.timeout(60 + 2 * PATIENCE)
@pytest.mark.parametrize("seed", range(SEED, SEED + ROUNDS))
def test_whoever_is_killed_every_input_ends_in_exactly_one_table(
    seed: int, place: tuple[Path, str], crew: Crew
) -> None:
    folder, name = place
    rng = random.Random(seed)
    before = _runs(name)
    wait_until_served(f"scythe_experiment_{name}", f"scythe_scatter_gather_{name}")
    factor, depth = rng.choice([(0, 0), (0, 0), (3, 1), (2, 2), (4, 0)])
    arguments = [str(v) for v in (_N, factor, depth, rng.choice([0, 1, 5, 40]))]
    with subprocess.Popen(
        [sys.executable, "client.py", *arguments], cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.PIPE
    ) as client:
        victims = [rng.choice(["--leaf-only", "--fan-only", "client"]) for _ in range(rng.choice([1, 1, 2]))]
        assert client.stdout is not None
        client.stdout.readline()  # it is about to allocate
        if victims[0] != "client":
            client.stdout.readline()  # the run is triggered
        for victim in victims:
            time.sleep(rng.uniform(0.0, 3.0))  # the moment of the crash is what is random here
            if victim == "client":
                client.kill()
            else:
                crew.kill(rng, victim)
        told = client.communicate(timeout=PATIENCE + 60)[1].decode()
    killed = "client" in victims
    assert killed or client.returncode == 0, told

    for run in sorted(_runs(name) - before):
        opened = scythe.open_run(name, run=run[1], version=run[0])
        if killed:
            _finish(opened)
        _check(name, *run)


def _runs(name: str) -> set[tuple[str, str]]:
    try:
        listed = scythe.list_runs(name).filter(pl.col("status") != "allocating")  # half an allocation is no run
        return {(row["version"], row["run"]) for row in listed.to_dicts()}
    except NotFoundError:
        return set()


def _finish(run: scythe.runs.run.ExperimentRun) -> None:
    """What a user does whose client died: resume, which attaches to a run that goes on."""
    sys.modules.pop("experiment", None)  # a new process would import it anew, and so register it
    try:
        run.resume().result(timeout=PATIENCE)
    except RunError:
        run.resume().result(timeout=PATIENCE)


def _check(name: str, version: str, folder: str) -> None:
    run = scythe.open_run(name, version, folder)
    assert run.status == "finished"
    final = Path(run.uri.removeprefix("file://")) / "final"
    assert {p.name for p in final.iterdir()} == {
        f"{t}.pq" for t in ("scalars", "errors", "tasks", "result_file_refs", "series")
    }
    tables = {p.stem: pl.read_parquet(p) for p in final.iterdir()}
    good = [i for i in range(_N) if i % 10 != 3]
    assert tables["scalars"]["sort_index"].to_list() == good
    assert tables["errors"]["sort_index"].to_list() == [i for i in range(_N) if i % 10 == 3]
    assert tables["tasks"]["sort_index"].to_list() == list(range(_N))
    assert tables["series"]["sort_index"].to_list() == [i for i in good for _ in range(2)]
    assert tables["scalars"]["root_workflow_run_id"].unique().to_list() == [run.workflow_run_id]
    for table, frame in tables.items():
        read = scythe.read(name, version, table=table, run=folder)
        assert read.sort("sort_index").select(frame.columns).equals(frame), table
    assert not list(final.parent.rglob("*.part"))
    assert len(list((final.parent / "results" / "trace").iterdir())) == len(good)
