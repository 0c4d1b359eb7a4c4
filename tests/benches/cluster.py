"""The cluster's benchmark: `python tests/benches/cluster.py [leaves leaves8 leaves16 shape naps trees many files]`; all without a name.

On the engine that HATCHET_CLIENT_TOKEN names, else on the stand-in of the tests; `files` wants an S3
server that is fast enough to tell, at AWS_ENDPOINT_URL with SCYTHE_STORAGE_BUCKET. Ratios are within one
run, each way in turn.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import polars as pl

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

#: Functions at once on the worker of each.
SLOTS = {"leaves": 32, "many": 32, "leaves8": 8, "leaves16": 16, "shape": 8, "naps": 8, "trees": 16}
#: On how many slots each is done by the SDK alone, too; the workers for it are there for these alone.
BARE = {"leaves": (32, 64), "many": (32,), "leaves8": (8,), "leaves16": (16,)}
ALLOCATED: list[float] = []
FILE_ROUNDS = 1  # boto3 takes minutes


def scythe_run(function: object, xs: list[float], **options: object) -> float:
    """Seconds from `allocate` to the result."""
    from scythe.allocate import BaseExperiment

    began = time.perf_counter()
    _, ref = BaseExperiment(function).allocate(pl.DataFrame({"x": xs}), **options)
    ALLOCATED.append(time.perf_counter() - began)
    result = ref.result()
    assert result.rows == len(xs)
    return time.perf_counter() - began


def leaves(name: str = "leaves") -> None:
    """1,000 tasks of one input each, against one gather by the SDK, on as many slots.

    A Scythe worker of 32 slots runs 32 functions at once and tells the engine of 64; the bare worker gets 32, and,
    for the record, 64.
    """
    import on_hatchet

    n = 1000
    xs = [float(i) for i in range(n)]
    ours: list[float] = []
    bare: dict[int, list[float]] = {slots: [] for slots in BARE[name]}
    for i in range(3):
        for slots, seconds in bare.items():  # a client's listeners live as long as its event loop: a new one each
            seconds.append(on_hatchet.Bare(slots).gathered(n))
        ours.append(scythe_run(on_hatchet.bench_noop, xs, engine="hatchet", chunk=1))
        theirs = ", ".join(f"bare gather on {slots} slots {seconds[-1]:.1f} s" for slots, seconds in bare.items())
        print(
            f"  round {i + 1}: {theirs}, scythe {ours[-1]:.1f} s, of which {ALLOCATED[-1]:.1f} s are the allocation",
            flush=True,
        )
    mine = statistics.median(ours)
    for slots, seconds in bare.items():
        limit = f" (limit {1.15 if slots == 32 else 1.05})" if slots == SLOTS[name] else ""
        best = statistics.median(seconds)
        print(
            f"1,000 leaves of one input on {SLOTS[name]} slots: scythe {mine:.1f} s, bare gather on {slots} slots {best:.1f} s: "
            f"{mine / best:.2f} x{limit}",
            flush=True,
        )


def many() -> None:
    """The same against `aio_run_many`, once: it takes minutes."""
    import on_hatchet

    n = 1000
    mine = scythe_run(on_hatchet.bench_noop, [float(i) for i in range(n)], engine="hatchet", chunk=1)
    slow = on_hatchet.Bare(SLOTS["many"]).run_many(n)
    print(
        f"1,000 leaves of one input: scythe {mine:.1f} s, aio_run_many {slow:.1f} s: {slow / mine:.1f} x faster (limit 4)",
        flush=True,
    )


def shape() -> None:
    """100,000 no-op inputs with the default shape, against one task per input and the local engine."""
    import on_hatchet

    n, few = 100_000, 500
    xs = [float(i) for i in range(n)]
    single = scythe_run(on_hatchet.bench_noop, xs[:few], engine="hatchet", chunk=1) / few
    cluster: list[float] = []
    local: list[float] = []
    for i in range(3):
        cluster.append(scythe_run(on_hatchet.bench_noop, xs, engine="hatchet"))
        local.append(scythe_run(on_hatchet.bench_noop, xs, engine="local"))
        print(f"  round {i + 1}: hatchet {cluster[-1]:.1f} s, local {local[-1]:.1f} s", flush=True)
    mine, alone = statistics.median(cluster), statistics.median(local)
    print(
        f"100,000 no-op inputs: hatchet {mine:.1f} s, local {alone:.1f} s: {mine / alone:.1f} x (limit 3); "
        f"{single / (mine / n):.0f} times faster per input than one task each (limit 50)"
    )


def naps() -> None:
    """1,023 inputs of half a second on eight slots, in four shapes."""
    import on_hatchet

    from scythe.scatter_gather import RecursionMap

    n, seconds, slots = 1023, 0.5, SLOTS["naps"]
    ideal = n * seconds / slots
    for name, tree in (("default", None), ("2/0", (2, 0)), ("8/1", (8, 1)), ("4/3", (4, 3))):
        options = {"recursion_map": RecursionMap(factor=tree[0], max_depth=tree[1])} if tree else {}
        took = scythe_run(on_hatchet.bench_nap, [seconds] * n, engine="hatchet", **options)
        limit = f" (limit {1.1 * ideal + 2:.1f} s)" if tree is None else ""
        print(f"1,023 naps of 0.5 s on {slots} slots, {name}: {took:.1f} s, ideal {ideal:.1f} s{limit}", flush=True)


def trees() -> None:
    """127 and 1,023 inputs of a tenth of a second on 16 slots, one task each: flat, and in trees of four shapes, in turn."""
    import on_hatchet

    from scythe.scatter_gather import RecursionMap

    shapes = {"flat": (2, 0), "64/1": (64, 1), "8/2": (8, 2), "4/3": (4, 3), "2/6": (2, 6)}
    for n, rounds in ((127, 5), (1023, 3)):
        seconds: dict[str, list[float]] = {name: [] for name in shapes}
        for _ in range(rounds):
            for name, (factor, depth) in shapes.items():
                tree = RecursionMap(factor=factor, max_depth=depth)
                options = {"engine": "hatchet", "chunk": 1, "recursion_map": tree}
                seconds[name].append(scythe_run(on_hatchet.bench_nap, [0.1] * n, **options))
        flat = statistics.median(seconds["flat"])
        for name, found in seconds.items():
            took = statistics.median(found)
            each = " ".join(f"{one:.1f}" for one in found)
            print(
                f"{n} naps of 0.1 s on 16 slots, {name}: {took:.1f} s ({each}), {took / flat:.2f} x flat (limit 1.5)",
                flush=True,
            )


def files() -> None:
    """10,000 small files up to a bucket, and back, against boto3 in 16 threads."""
    import boto3

    from scythe.errors import FetchError
    from scythe.remote.fetch import fetch_all
    from scythe.settings import storage

    objects, client, n = storage(), boto3.client("s3"), 10_000
    found: dict[str, Path | FetchError] = {}
    bucket = os.environ["SCYTHE_STORAGE_BUCKET"]
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i:05d}.bin" for i in range(n)]
        for path in paths:
            path.write_bytes(os.urandom(2048))

        def boto_up() -> None:
            with ThreadPoolExecutor(16) as pool:
                list(pool.map(lambda p: client.upload_file(str(p), bucket, f"boto/{p.name}"), paths))

        def boto_down() -> None:
            with ThreadPoolExecutor(16) as pool:
                list(pool.map(lambda p: client.download_file(bucket, f"boto/{p.name}", f"{p}.boto"), paths))

        def ours_up() -> None:
            objects.take_in((p, f"bench-{len(seconds['scythe up'])}/{p.name}") for p in paths)

        def ours_down() -> None:
            os.environ["SCYTHE_CACHE_DIR"] = tempfile.mkdtemp(dir=folder)  # nothing is in the cache yet
            found.update(fetch_all([objects.uri(f"bench-{len(seconds['scythe down'])}/{p.name}") for p in paths]))

        ways = {"boto3 up": boto_up, "scythe up": ours_up, "boto3 down": boto_down, "scythe down": ours_down}
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(FILE_ROUNDS):
            for way, run in ways.items():
                began = time.perf_counter()
                run()
                seconds[way].append(time.perf_counter() - began)
        last = found[objects.uri(f"bench-{FILE_ROUNDS - 1}/{paths[-1].name}")]
        assert isinstance(last, Path)
        assert last.read_bytes() == paths[-1].read_bytes()
    median = {way: statistics.median(s) for way, s in seconds.items()}
    for kind in ("up", "down"):
        theirs, mine = median[f"boto3 {kind}"], median[f"scythe {kind}"]
        print(
            f"10,000 files {kind}: scythe {n / mine:,.0f}/s, boto3 {n / theirs:,.0f}/s: {theirs / mine:.1f} x (limit 3)"
        )


def warm_up(slots: int, bare: tuple[int, ...]) -> None:
    """The processes of a fresh worker import what they need with their first task."""
    import on_hatchet

    for count in bare:
        on_hatchet.Bare(count).gathered(4 * slots)
    for function in (on_hatchet.bench_noop, on_hatchet.bench_nap):
        scythe_run(function, [0.01] * 4 * slots, engine="hatchet", chunk=1)


CLUSTER: dict[str, Callable[[], None]] = {
    "leaves": leaves, "many": many, "leaves8": partial(leaves, "leaves8"), "leaves16": partial(leaves, "leaves16"),
    "shape": shape, "naps": naps, "trees": trees,
}  # fmt: skip


def main(names: list[str]) -> None:
    wanted = names or [*CLUSTER, *(["files"] if "SCYTHE_STORAGE_BUCKET" in os.environ else [])]
    if "files" in wanted:
        files()
    on_cluster = [name for name in CLUSTER if name in wanted]
    if not on_cluster:
        return
    from tests.cluster import REAL, Worker, engine_environment, wait_until_served

    with tempfile.TemporaryDirectory() as folder, engine_environment() as env:
        os.environ |= {**env, "SCYTHE_STORAGE_ROOT": f"{folder}/root", "PYTHONPATH": str(HERE)}
        os.environ.pop("SCYTHE_STORAGE_BUCKET", None)
        print(
            f"engine: {'the one of HATCHET_CLIENT_TOKEN' if REAL else 'the stand-in'}; {os.cpu_count()} cores",
            flush=True,
        )
        tasks = [f"scythe_{kind}_bench_{what}" for kind in ("experiment", "scatter_gather") for what in ("noop", "nap")]
        for name in on_cluster:
            slots, bare = SLOTS[name], BARE.get(name, ())
            with bare_workers(bare), Worker("on_hatchet", "--slots", str(slots), env={}, cwd=Path(folder)):
                wait_until_served(*tasks, *(f"bench_bare_noop_{count}" for count in bare))
                warm_up(slots, bare)
                CLUSTER[name]()


@contextmanager
def bare_workers(slots: Iterable[int]) -> Iterator[None]:
    """Workers of the SDK alone, one with each number of slots."""
    command = [sys.executable, str(HERE / "on_hatchet.py")]
    started = [subprocess.Popen([*command, str(count)], stdout=subprocess.DEVNULL) for count in slots]
    try:
        yield
    finally:
        for process in started:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main(sys.argv[1:])
