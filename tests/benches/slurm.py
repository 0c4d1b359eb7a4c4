"""The benchmark of Slurm: `python tests/benches/slurm.py [peers nothing shapes]`; all without a name.

On a Slurm of its own, of two nodes with a core each. Each way in turn, in the same run; `peers` wants submitit
(`pip install submitit`) and a quarter of an hour.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "catalog")]

INPUTS, NAPS, NOTHING, SECONDS = 200, 1000, 100_000, 0.5
SHAPES = (2, 8, 32)
_MODEL = """
import time
from scythe import ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry
class In(ExperimentInputSpec):
    x: int
    seconds: float = 0.0
class Out(ExperimentOutputSpec):
    y: int
@ExperimentRegistry.Register()
def nap(input_spec: In) -> Out:
    time.sleep(input_spec.seconds)
    return Out(y=input_spec.x ** 2)
"""
_SCYTHE = """
import sys
import polars as pl
from model import nap
from scythe import BaseExperiment
if __name__ == "__main__":
    n, seconds, engine, workers = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    frame = pl.DataFrame({"x": range(n)}).with_columns(seconds=pl.lit(seconds))
    _, ref = BaseExperiment(nap).allocate(frame, engine=engine, workers=workers or None)
    assert ref.result().rows == n
"""
_SUBMITIT = """
import sys, submitit
def square(x): return x ** 2
if __name__ == "__main__":
    executor = submitit.AutoExecutor(folder="log")
    executor.update_parameters(timeout_min=30, cpus_per_task=1)
    assert [job.result() for job in executor.map_array(square, range(int(sys.argv[1])))][-1] == (int(sys.argv[1]) - 1) ** 2
"""
_BY_HAND = """#!/bin/bash
{python} -c "import json, os; i = int(os.environ['SLURM_ARRAY_TASK_ID']); json.dump(i ** 2, open(f'{folder}/{{i}}.json', 'w'))"
"""


def main(names: list[str]) -> None:
    from tests.slurm_server import slurm_server

    with slurm_server() as slurm, tempfile.TemporaryDirectory() as folder:
        env = {
            **slurm.environment,
            "PYTHONPATH": os.pathsep.join(sys.path[:2]),
            "SCYTHE_STORAGE_ROOT": f"{folder}/root",
        }
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        for name, text in (("model.py", _MODEL), ("run.py", _SCYTHE), ("peer.py", _SUBMITIT)):
            Path(folder, name).write_text(text)
        for name in names or ["peers", "nothing", "shapes"]:
            for line in _WORK[name](Path(folder), env):
                print(line, flush=True)


def peers(folder: Path, env: dict[str, str]) -> list[str]:
    """The same function over some inputs, a job array each: Scythe, submitit, and one element an input by hand."""
    script = _BY_HAND.format(python=sys.executable, folder=folder)
    by_hand = ["sbatch", "--wait", f"--array=0-{INPUTS - 1}", "--output=/dev/null"]
    found = {
        "Scythe": timed(folder, env, "run.py", INPUTS, 0, "slurm", 2),
        "submitit": timed(folder, env, "peer.py", INPUTS),
        "by hand": took(
            lambda: subprocess.run(by_hand, input=script, text=True, env=env, check=True, capture_output=True)
        ),
    }
    return [
        f"{INPUTS} inputs: {name} {seconds:.1f} s, {seconds / found['Scythe']:.1f} x" for name, seconds in found.items()
    ]


def nothing(folder: Path, env: dict[str, str]) -> list[str]:
    """Inputs of a function that does nothing, beside the engine of one machine."""
    here, there = (timed(folder, env, "run.py", NOTHING, 0, engine, 2) for engine in ("local", "slurm"))
    return [f"{NOTHING:,} inputs that do nothing: local {here:.1f} s, slurm {there:.1f} s, {there / here:.2f} x"]


def shapes(folder: Path, env: dict[str, str]) -> list[str]:
    """Naps on two cores, with job arrays of different sizes, beside what two cores take for them."""
    ideal = NAPS * SECONDS / 2
    times = {shape: timed(folder, env, "run.py", NAPS, SECONDS, "slurm", shape) for shape in SHAPES}
    return [
        f"{NAPS} naps of {SECONDS} s, {shape} elements: {t:.1f} s, {t / ideal:.3f} x {ideal:.0f} s"
        for shape, t in times.items()
    ]


_WORK: dict[str, Callable[[Path, dict[str, str]], list[str]]] = {"peers": peers, "nothing": nothing, "shapes": shapes}


def timed(folder: Path, env: dict[str, str], *words: object) -> float:
    command = [sys.executable, *map(str, words)]
    return took(lambda: subprocess.run(command, cwd=folder, env=env, check=True, capture_output=True))


def took(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


if __name__ == "__main__":
    main(sys.argv[1:])
