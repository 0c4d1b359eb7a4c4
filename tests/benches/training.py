"""The benchmark of training: `python tests/benches/training.py [files many bucket scalars split pack memory opening]`; all without a name.

Each figure is the CPU time of this process and its children, and the wall time beside it, of the best of several rounds in which the
ways take turns. Ratios are printed on an idle machine alone. `torch` is a contender where it is installed.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from peer import cpu as cpu_of_all

import scythe
from scythe import BaseExperiment, ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry, FileReference

FILES, HOURS, BATCH = 6000, 8760, 64
ROWS, BIG_BATCH = 10_000_000, 8192
DELAY = 0.02
#: Whether nothing else had been running for a minute: ratios of a busy machine are not worth printing.
IDLE = os.getloadavg()[0] < 1


class Wall(ExperimentInputSpec):
    x: int


class Heat(ExperimentOutputSpec):
    hourly: FileReference


def series(x: int) -> np.ndarray:
    """35 KB of one input."""
    return np.random.default_rng(x).random(HOURS).astype(np.float32)


def simulate(spec: Wall, tempdir: Path) -> Heat:
    np.save(tempdir / "hourly.npy", series(spec.x))
    return Heat(hourly=tempdir / "hourly.npy")


class Ten(ExperimentInputSpec):
    a: float
    b: float
    c: float
    d: float
    e: float
    f: float


class Four(ExperimentOutputSpec):
    g: float
    h: float
    i: float
    j: float


def ten(spec: Ten) -> Four:
    return Four(g=spec.a, h=spec.b, i=spec.c, j=spec.d)


for _name in ("plain", "packed"):
    ExperimentRegistry.Register(name=_name, pack=_name == "packed")(simulate)
ExperimentRegistry.Register()(ten)

COLUMNS = list("abcdefghij")


def cpu() -> float:
    """CPU seconds of this process, and of its children that have ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def touch_memory() -> None:
    """Uses 2 GB, and gives them back: a virtual machine gives memory that is free back to its host, and waits for it anew."""
    np.ones(2 << 30, np.uint8)


def in_turn(
    ways: dict[str, Callable[[int], object]], rounds: int = 5, *, against: str
) -> dict[str, tuple[float, float]]:
    """Least wall and CPU seconds of each way, after a round that does not count."""
    best = {way: (float("inf"), float("inf")) for way in ways}
    for i in range(rounds + 1):
        for way, act in ways.items():
            used, began = cpu(), time.perf_counter()
            act(i)
            took = (time.perf_counter() - began, cpu() - used)
            if i:
                best[way] = (min(best[way][0], took[0]), min(best[way][1], took[1]))
    for way, (wall, used) in best.items():
        shares = (
            f", {against} takes {best[against][0] / wall:.2f} of its wall and {best[against][1] / used:.2f} of its CPU"
            if IDLE
            else ""
        )
        print(f"  {way:<22} {wall * 1e3:9.1f} ms, {used * 1e3:9.1f} ms of CPU{shares if way != against else ''}")
    return best


@contextmanager
def new_root() -> Iterator[Path]:
    """An empty root on the disk, and a cache of its own."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        os.environ.update({"SCYTHE_STORAGE_ROOT": f"{folder}/root", "SCYTHE_CACHE_DIR": f"{folder}/cache"})
        os.environ.pop("SCYTHE_STORAGE_BUCKET", None)
        yield Path(folder)


def made(name: str, count: int) -> float:
    """Runs an experiment of files; the CPU seconds that it took, those of workers that go on included."""
    used = cpu_of_all()
    BaseExperiment(name).allocate(pl.DataFrame({"x": range(count)}), engine="local")[1].result()
    return cpu_of_all() - used


def epochs(data: Any, **options: Any) -> Callable[[int], object]:
    batches = data.batches(BATCH, seed=0, **options)

    def one(epoch: int) -> None:
        for batch in batches.at(epoch):
            batch["y"][0, 0]

    return one


def dataset(name: str) -> Any:
    return scythe.dataset(name, x=["x"], y=scythe.File("hourly"))


def files(count: int = FILES) -> None:
    """An epoch of 6,000 files of 35 KB on a disk, shuffled: against a gather from a map of one file, and a DataLoader written by hand."""
    with new_root() as folder:
        for name in ("plain", "packed"):
            made(name, count)
        np.save(folder / "all.npy", np.stack([series(x) for x in range(count)]))
        mapped = np.load(folder / "all.npy", mmap_mode="r")
        paths = [uri.removeprefix("file://") for uri in scythe.files("plain")["hourly"]]

        def gather(epoch: int) -> None:
            order = np.random.default_rng(epoch).permutation(count)
            for i in range(0, count, BATCH):
                mapped[order[i : i + BATCH]][0, 0]

        ways = {"gather": gather, "files": epochs(dataset("plain")), "packed": epochs(dataset("packed"))}
        for name in ("plain", "packed"):
            opened = [dataset(name) for _ in range(6)]
            assert all(data.shapes["y"] == (HOURS,) for data in opened)
            ways[f"{name}, first epoch"] = lambda i, opened=opened: epochs(opened.pop())(i)
        if importlib.util.find_spec("torch"):
            from torch.utils.data import DataLoader, Dataset

            class ByHand(Dataset):  # type: ignore[type-arg]
                def __len__(self) -> int:
                    return count

                def __getitem__(self, i: int) -> np.ndarray:
                    return np.load(paths[i])

            def loaded(epoch: int, workers: int) -> None:
                for batch in DataLoader(ByHand(), batch_size=BATCH, shuffle=True, num_workers=workers):
                    batch[0, 0]

            ways |= {f"DataLoader, {n} workers": lambda epoch, n=n: loaded(epoch, n) for n in (0, 2)}
        in_turn(ways, against="gather")


def many_files() -> None:
    """The same of 12,000 files, which do not stay in memory."""
    files(2 * FILES)


def bucket() -> None:
    """An epoch of files in a bucket of which each request waits 20 ms: cold, and the second one; samples a second and requests."""
    here = Path(__file__).resolve()
    with new_root() as folder:
        (folder / "s3" / "bucket").mkdir(parents=True)
        command = [sys.executable, str(here.with_name("folder_s3.py")), str(folder / "s3")]
        for delay in ("0", str(DELAY)):
            server = subprocess.Popen([*command, "--delay", delay], stdout=subprocess.PIPE, text=True)
            try:
                assert server.stdout is not None
                os.environ.update({
                    "AWS_ENDPOINT_URL": f"http://127.0.0.1:{int(server.stdout.readline())}", "AWS_ACCESS_KEY_ID": "k",
                    "AWS_SECRET_ACCESS_KEY": "s", "AWS_DEFAULT_REGION": "eu-central-1", "SCYTHE_STORAGE_BUCKET": "bucket",
                })  # fmt: skip
                if delay == "0":
                    for name in ("plain", "packed"):
                        made(name, FILES)
                    continue
                touch_memory()
                best: dict[str, tuple[float, int]] = {}
                for _ in range(3):
                    for name, seconds, samples in (*_ranges(), *_epochs(folder / "cache")):
                        best[name] = min(best.get(name, (seconds, samples)), (seconds, samples))
                for name, (seconds, samples) in best.items():
                    print(f"  {name}: {seconds:.2f} s, {samples / seconds:,.0f} samples/s")
                refs = scythe.FileRefs(scythe.files("plain"), "hourly", np.load)
                began = time.perf_counter()
                for i in range(100):
                    refs[i]
                print(f"  FileRefs: {100 / (time.perf_counter() - began):,.0f} samples/s")
            finally:
                server.kill()
                server.wait()
        for name in ("AWS_ENDPOINT_URL", "SCYTHE_STORAGE_BUCKET"):
            os.environ.pop(name)


def _epochs(cache: Path) -> Iterator[tuple[str, float, int]]:
    """Seconds of an epoch from a bucket into an empty cache, of its first batch, and of the next epoch."""
    for name, options in (("plain", {}), ("packed", {}), ("packed", {"memory": 64 << 20})):
        shutil.rmtree(cache, ignore_errors=True)
        data = dataset(name)
        assert data.shapes["y"] == (HOURS,)
        batches = data.batches(BATCH, seed=0, ahead=4, **options)
        for epoch in range(2):
            began, first = time.perf_counter(), 0.0
            for batch in batches.at(epoch):
                first = first or time.perf_counter() - began
                batch["y"][0, 0]
            took = time.perf_counter() - began
            yield f"{name}{options or ''}, epoch {epoch}", took, FILES
            if not epoch:
                yield f"{name}{options or ''}, its first batch", first, BATCH


def _ranges() -> Iterator[tuple[str, float, int]]:
    """Seconds of all bytes of the shards in ranges of 8 MB: one after another, and eight at once, which is what the network gives."""
    from concurrent.futures import ThreadPoolExecutor

    from scythe.settings import storage

    objects = storage()
    shards = [found for found in objects.found("packed") if "/_shards/" in found.key]
    parts = [(f.key, i, min(i + (8 << 20), f.size)) for f in shards for i in range(0, f.size, 8 << 20)]
    for at_once, words in ((1, "one after another"), (8, "eight at once")):
        began = time.perf_counter()
        with ThreadPoolExecutor(at_once) as pool:
            for data in pool.map(lambda part: objects.part(*part, None), parts):
                assert len(data)
        yield f"ranges of 8 MB, {words}", time.perf_counter() - began, FILES


@contextmanager
def of_rows(count: int) -> Iterator[tuple[Any, str]]:
    """A run of rows of ten numbers, and its Parquet file."""
    with new_root():
        rng = np.random.default_rng(0)
        result = BaseExperiment(ten).allocate(pl.DataFrame({c: rng.uniform(0, 1, count) for c in "abcdef"}))[1].result()
        yield result, result.uris["scalars"].removeprefix("file://")


#: Loads the columns, in an interpreter that has loaded nothing yet; prints by how many bytes its peak grew, and then with the first batch.
_LOADS = """
import sys
from pathlib import Path
import numpy, polars, pyarrow.parquet
import scythe, scythe.loaders.batches, scythe.loaders.verb

def peak():  # of this program: what `getrusage` tells is that of whoever started it, where that was larger
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))

before = peak()
data = scythe.dataset("ten", x=sys.argv[1:])
assert len(data)
print(peak() - before)
assert data.batches(8192).at(0)[0]["x"].shape == (8192, len(sys.argv) - 1)
print(peak() - before)
"""


def scalars() -> None:
    """An epoch of ten million rows of ten columns in batches of 8,192, against a gather of NumPy; and the peak of loading them."""
    with of_rows(ROWS):
        data = scythe.dataset("ten", x=COLUMNS)
        loads = [sys.executable, "-c", _LOADS, *COLUMNS]
        grown = [subprocess.run(loads, check=True, capture_output=True).stdout.split() for _ in range(3)]
        array, batches = data.sources["x"].take(np.arange(ROWS)), data.batches(BIG_BATCH, seed=0)
        loaded, begun = (sorted(int(size) / array.nbytes for size in sizes) for sizes in zip(*grown, strict=True))
        print(
            f"  the peak grew by {loaded[0]:.2f} to {loaded[-1]:.2f} of the array, with the first batch by up to {begun[-1]:.2f}"
        )

        def gather(epoch: int) -> None:
            order = np.random.default_rng(epoch).permutation(ROWS)
            for i in range(0, ROWS, BIG_BATCH):
                array.take(order[i : i + BIG_BATCH], axis=0)[0, 0]  # indexing takes three times as long

        def ours(epoch: int) -> None:
            for batch in batches.at(epoch):
                batch["x"][0, 0]

        in_turn({"gather": gather, "dataset": ours}, 3, against="gather")


def opening() -> None:
    """The first batch of a run of a million rows, against `pl.read_parquet` of its columns."""
    with of_rows(1_000_000) as (_, path):
        touch_memory()
        in_turn(
            {
                "read_parquet": lambda _: pl.read_parquet(path, columns=COLUMNS),
                "first batch": lambda _: scythe.dataset("ten", x=COLUMNS).batches(BIG_BATCH).at(0)[0],
            },
            against="read_parquet",
        )


def split() -> None:
    """A split of a million rows by six inputs."""
    with of_rows(1_000_000):

        def parts(_: int) -> None:
            data = scythe.dataset("ten", y="g")
            assert len(data) == 1_000_000
            used = cpu()
            assert sum(len(part) for part in data.split(train=0.8, val=0.1, test=0.1).values()) == 1_000_000
            found.append(cpu() - used)

        found: list[float] = []
        for i in range(5):
            parts(i)
        print(f"  {min(found):.3f} s of CPU")


def pack() -> None:
    """What packing costs at a worker: runs of 6,000 files, packed and not, and the files put behind one another by hand."""
    with new_root() as folder:
        used = {name: min(made(name, FILES) for _ in range(2)) for name in ("plain", "packed")}
        paths = [uri.removeprefix("file://") for uri in scythe.files("plain")["hourly"]]

        def by_hand(_: int) -> None:
            with (folder / "one.bin").open("wb") as out:
                for path in paths:
                    out.write(Path(path).read_bytes())

        print(f"  runs: {used['plain']:.2f} s of CPU, packed {used['packed']:.2f} s")
        in_turn({"by hand": by_hand}, against="by hand")


def memory() -> None:
    """The memory of twenty epochs."""
    with new_root():
        made("packed", FILES)
        one, seen = epochs(dataset("packed")), []
        for epoch in range(20):
            one(epoch)
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            seen.append(pages * resource.getpagesize() / 1e6)
        print(f"  {seen[1]:.0f} MB after two epochs, {seen[-1]:.0f} MB after twenty")


BENCHES = {
    "files": files,
    "many": many_files,
    "bucket": bucket,
    "scalars": scalars,
    "opening": opening,
    "split": split,
    "pack": pack,
    "memory": memory,
}


def main() -> None:
    print(
        f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )
    for name in sys.argv[1:] or BENCHES:
        print(f"\n{name}: {(BENCHES[name].__doc__ or '').strip()}", flush=True)
        BENCHES[name]()


if __name__ == "__main__":
    main()
