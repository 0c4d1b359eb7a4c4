"""The benchmark: `python -m tests.benches [throughput small frames files wide long runs import read commit listing upkeep]`; all without a name.
The name of an `.svg` file among them gets a picture of what was compared.

Figures are whole processes and ratios within one run, each way in turn, the medians of several rounds:
absolute times on a shared machine say little.
"""

from __future__ import annotations

import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PYTHON = sys.executable
#: Whether nothing else had been running for a minute.
IDLE = os.getloadavg()[0] < 1


def children() -> float:
    """CPU seconds of all processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def in_turn(n: int, ways: list[str], rounds: int) -> dict[str, tuple[float, float]]:
    """Median seconds of each way, and of CPU, measured A B C A B C ..., with what each said of itself."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    cpu: dict[str, list[float]] = {way: [] for way in ways}
    made: list[Path] = []  # to remove one slows some disks down for whoever makes files next
    for i in range(rounds):
        for way in ways:
            folder = Path(tempfile.mkdtemp(prefix="bench-"))
            began, used = time.perf_counter(), children()
            done = subprocess.run(
                [PYTHON, str(HERE / "contender.py"), way, str(n), str(folder)],
                capture_output=True,
                text=True,
                check=False,
            )
            seconds[way].append(time.perf_counter() - began)
            cpu[way].append(children() - used)
            made.append(folder)
            assert done.returncode == 0, done.stderr
            print(
                f"  round {i + 1} {way:<14} {seconds[way][-1]:7.2f} s   {', '.join(done.stderr.split(chr(10))).strip(', ')}"
            )
    for folder in made:
        shutil.rmtree(folder)
    return {way: (statistics.median(s), statistics.median(cpu[way])) for way, s in seconds.items()}


#: What was measured until now: job, Scythe's seconds, those by hand.
JOBS: list[tuple[str, float, float]] = []


def told(n: int, medians: dict[str, tuple[float, float]], against: str = "joblib", what: str = "") -> None:
    """Prints the medians; ratios where nothing else had been running, for those of a busy machine are not worth printing."""
    JOBS.append((f"{n:,} inputs{what}", next(iter(medians.values()))[0], medians[against][0]))
    for way, (wall, cpu) in medians.items():
        ratio = (
            f", {wall / medians[against][0]:.2f} x joblib, {cpu / medians[against][1]:.2f} x its CPU" if IDLE else ""
        )
        print(f"{n:,} inputs, {way}: {wall:.2f} s, {cpu:.1f} s of CPU{ratio}")


def throughput() -> None:
    """A million inputs, from the start of the process to a table that can be read."""
    ways = ["scythe", "joblib", "scythe-models", "joblib-auto", "executor"]
    told(1_000_000, in_turn(1_000_000, ways, 3))


def small() -> None:
    """Ten thousand inputs."""
    told(10_000, in_turn(10_000, ["scythe", "joblib", "executor"], 5))


def frames() -> None:
    """1,500 inputs that give a dataframe of 8,760 x 5 each."""
    told(1_500, in_turn(1_500, ["frames", "frames-joblib"], 3), "frames-joblib", ", a dataframe each")


def long() -> None:
    """One input that gives a dataframe of five million rows, and 100,000 that give one of 24 rows each."""
    for n, way in ((1, "long"), (100_000, "short")):
        told(n, in_turn(n, [way, f"{way}-joblib"], 3), f"{way}-joblib", f", {way} dataframes")


def files() -> None:
    """30,000 inputs that give a file of 35 KB each."""
    told(30_000, in_turn(30_000, ["files", "files-joblib"], 3), "files-joblib", ", a file each")


def wide() -> None:
    """Ten inputs with 200 and with 1,000 output fields."""
    os.environ["SCYTHE_STORAGE_ROOT"] = folder = tempfile.mkdtemp(prefix="bench-")
    from pydantic import create_model

    from scythe.allocate import BaseExperiment
    from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
    from scythe.registry import ExperimentRegistry

    cost: dict[int, float] = {}
    for columns in (200, 1000):
        values = {f"y{i}": 1.0 for i in range(columns)}
        output: Any = create_model("Wide", __base__=ExperimentOutputSpec, **dict.fromkeys(values, (float, ...)))

        class Spread:
            """Gives a number a column."""

            def __init__(self, model: Any = output, given: dict[str, float] = values) -> None:
                self.made = model(**given)

            def run(self, spec: Any) -> Any:
                return self.made

        Spread.run.__annotations__ |= {"spec": ExperimentInputSpec, "return": output}
        spread = Spread
        experiment = BaseExperiment(ExperimentRegistry.Register(name=f"spread{columns}")(spread))
        seconds: list[float] = []
        for _ in range(6):
            began = time.process_time()
            experiment.allocate([ExperimentInputSpec() for _ in range(10)], engine="inline")[1].result()
            seconds.append(time.process_time() - began)
        cost[columns] = statistics.median(seconds[1:])
        print(f"10 inputs, {columns} output fields: {cost[columns]:.2f} s of CPU")
    print(f"{cost[1000] / cost[200]:.1f} x")
    shutil.rmtree(folder)


def runs() -> None:
    """What an experiment costs that has 10, 100 and 1,000 runs of ten inputs: one more run, reading, listing, room."""
    os.environ["SCYTHE_STORAGE_ROOT"] = folder = tempfile.mkdtemp(prefix="bench-")
    sys.path.insert(0, str(HERE))
    from building import sample, simulate_energy

    import scythe
    from scythe.allocate import BaseExperiment

    experiment, specs = BaseExperiment(experiment=simulate_energy), sample(10)

    def one_run() -> None:
        experiment.allocate(specs, version="bumppatch", engine="inline")[1].result()

    print("runs  one more  read newest  read all  list_runs  catalog")
    done = 0
    for many in (10, 100, 1000):
        for _ in range(many - done - 5):
            one_run()
        done = many
        steps: list[Callable[[], object]] = [
            one_run,
            lambda: scythe.read("simulate_energy"),
            lambda: scythe.read("simulate_energy", "all", run="all"),
            lambda: scythe.list_runs("simulate_energy"),
        ]
        shown = [f"{1000 * median_seconds(step, 5):6.0f} ms" for step in steps]
        room = sum(path.stat().st_size for path in Path(folder, "_catalog").rglob("*") if path.is_file())
        print(f"{many:5,} {shown[0]:>9} {shown[1]:>12} {shown[2]:>9} {shown[3]:>10} {room / 1e6:5.1f} MB")
    shutil.rmtree(folder)


def median_seconds(action: Callable[[], object], times: int) -> float:
    """The median of the wall seconds of so many calls."""
    found: list[float] = []
    for _ in range(times):
        began = time.perf_counter()
        action()
        found.append(time.perf_counter() - began)
    return statistics.median(found)


def imports() -> None:
    """`import scythe` and `import scythe.allocate` against `import pydantic, polars`."""
    statements = ["import pydantic, polars", "import scythe", "import scythe; scythe.read"]
    seconds: dict[str, list[float]] = {s: [] for s in statements}
    for _ in range(7):
        for statement in statements:
            began = time.perf_counter()
            subprocess.run([PYTHON, "-c", statement], check=True)
            seconds[statement].append(time.perf_counter() - began)
    base = statistics.median(seconds[statements[0]])
    for statement in statements:
        median = statistics.median(seconds[statement])
        print(f"{statement}: {median:.2f} s, {median / base:.2f} x")


def read() -> None:
    """One run of a million rows among a hundred runs, against Polars on its own Parquet file."""
    os.environ["SCYTHE_STORAGE_ROOT"] = folder = tempfile.mkdtemp(prefix="bench-")
    sys.path.insert(0, str(HERE))
    import polars as pl
    from building import sample, simulate_energy

    import scythe
    from scythe.allocate import BaseExperiment

    experiment = BaseExperiment(experiment=simulate_energy)
    for i in range(99):
        experiment.allocate(sample(10), engine="inline")
        del i
    run, ref = experiment.allocate(sample(1_000_000))
    uri = ref.result().uris["scalars"]

    plain = median_seconds(lambda: pl.read_parquet(uri), 7)
    ours = median_seconds(lambda: scythe.read("simulate_energy", run.version), 7)
    print(
        f"1,000,000 rows among 100 runs: read {ours:.3f} s, pl.read_parquet {plain:.3f} s: {ours / plain:.2f} x, {ours - 1.3 * plain:+.3f} s over 1.3 x"
    )
    shutil.rmtree(folder)


BENCHES: dict[str, Callable[[], None]] = {
    "throughput": throughput, "small": small, "frames": frames, "long": long, "files": files, "wide": wide, "runs": runs,
    "import": imports, "read": read,
}  # fmt: skip


def main() -> None:
    print(
        f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.2f}"
    )
    from tests.benches.catalogs import CATALOGS

    benches = {**BENCHES, **CATALOGS}
    for name in [name for name in sys.argv[1:] if not name.endswith(".svg")] or benches:
        print(f"\n{name}: {(benches[name].__doc__ or '').strip()}")
        benches[name]()
    for path in [name for name in sys.argv[1:] if name.endswith(".svg")]:
        from tests.benches.picture import drawn

        Path(path).write_text(drawn(JOBS))


if __name__ == "__main__":
    main()
