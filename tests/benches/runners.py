"""No-op inputs beside other packages that run functions: `python tests/benches/runners.py PYTHON [--inputs 100000] [--rounds 3]`.

PYTHON has joblib, Dask, Ray, exca and pipefunc (and pydantic, Polars, PyArrow): those that it lacks are left out, by name. Whole processes in
turn, from a frame of inputs to a table on disk; ratios are printed on an idle machine alone.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from bench import HERE, IDLE, children

LIMIT_SECONDS = 60.0
#: Scythe's own, then each package's ways: by hand in chunks, an input at a time.
WAYS = {
    "scythe": "Scythe",
    "joblib_chunks": "joblib, chunks by hand",
    "joblib_one": "joblib",
    "pipefunc_chunks": "pipefunc, chunks by hand",
    "pipefunc_one": "pipefunc",
    "dask_processes": "Dask, chunks by hand, scheduler of processes",
    "dask_chunks": "Dask, chunks by hand, distributed",
    "dask_one": "Dask, a bag",
    "ray_chunks": "Ray, chunks by hand",
    "ray_one": "Ray, its pool",
    "exca_chunks": "exca, chunks by hand",
    "exca_one": "exca",
}


def measured(way: str, python: str, n: int) -> tuple[float, float]:
    """Wall and CPU seconds of one process, and all below it.

    Raises:
        RuntimeError: it failed.
    """
    folder = tempfile.mkdtemp(prefix="bench-")
    program = [python, "-c", "from runner import main; main()"]
    env = {**os.environ, "PYTHONPATH": str(HERE)}
    if way == "scythe":
        program, env = [sys.executable, str(HERE / "contender.py")], dict(os.environ)
    began, used = time.perf_counter(), children()
    try:
        with subprocess.Popen(
            [*program, way, str(n), folder], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        ) as process:  # fmt: skip
            try:
                said, _ = process.communicate(timeout=LIMIT_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # its processes, too: they would be measured with the next way
                raise RuntimeError(f"stopped after {LIMIT_SECONDS:.0f} s") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if process.returncode:
        raise RuntimeError((said.strip() or "failed").splitlines()[-1][:200])
    return time.perf_counter() - began, children() - used


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("python")
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    print(
        f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for _ in range(given.rounds):
        for way in list(found):
            try:
                found[way].append(measured(way, given.python, given.inputs))
                print(f"  {WAYS[way]}: {found[way][-1][0]:.2f} s", flush=True)
            except RuntimeError as error:
                print(f"{WAYS[way]}: left out: {error}", flush=True)
                del found[way]
    print(f"\n| {given.inputs:,} inputs | wall s | CPU s | of Scythe's wall |\n| --- | --- | --- | --- |")
    medians = {way: tuple(map(statistics.median, zip(*each, strict=True))) for way, each in found.items()}
    for way, (wall, cpu) in sorted(medians.items(), key=lambda item: item[1]):
        share = f"{wall / medians['scythe'][0]:.2f}" if IDLE else ""
        print(f"| {WAYS[way]} | {wall:.2f} | {cpu:.1f} | {share} |")


if __name__ == "__main__":
    main()
