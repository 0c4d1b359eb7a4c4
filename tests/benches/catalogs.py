"""What the catalog and the list of runs cost: requests of a commit to a bucket, 3,000 runs over a network, the room of 300 runs."""

from __future__ import annotations

import datetime as dt
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

LIST_DELAY = 0.03
MANY, RUNS, DELETED = 3000, 300, 60


@contextmanager
def bucket(delay: float = 0.0) -> Iterator[tuple[Any, Path]]:
    """A server of its own, and the folder that is its bucket."""
    from folder_s3 import folder_s3

    with tempfile.TemporaryDirectory(prefix="bench-") as folder, folder_s3(Path(folder) / "s3", delay) as server:
        where = Path(folder) / "s3" / "bucket"
        where.mkdir(parents=True)
        os.environ |= {**server.environment, "SCYTHE_STORAGE_BUCKET": "bucket"}
        try:
            yield server, where
        finally:
            for name in ("SCYTHE_STORAGE_BUCKET", *server.environment):
                os.environ.pop(name, None)


def cpu() -> float:
    """CPU seconds of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def one_run(version: str = "bumppatch") -> Any:
    """A run of ten inputs."""
    from building import sample, simulate_energy

    from scythe.allocate import BaseExperiment

    run, ref = BaseExperiment(experiment=simulate_energy).allocate(sample(10), version=version, engine="inline")
    ref.result()
    return run


def commit() -> None:
    """Requests of a commit to a table in a bucket, and of a whole run of ten inputs; the table known, as it is to a run."""
    from scythe_catalog.iceberg import fileio, tables
    from scythe_catalog.iceberg.catalog import Catalog
    from scythe_catalog.iceberg.datafile import DataFileWriter
    from scythe_catalog.schema import Column, compile_model, models_to_arrow
    from scythe_catalog.schema.kinds import Str

    with bucket() as (server, _):
        from pydantic import BaseModel

        from scythe_catalog.storage.objects import Objects

        class Row(BaseModel):
            number: int

        compiled, objects = compile_model(Row), Objects.at("s3://bucket/other")
        made = Catalog(objects.uri("catalog")).ensure("bench", "scalars", compiled.schema, [Column("run", Str())], None)
        counts: dict[str, list[int]] = {"as the last one": [], "as the first of its process": []}
        for i in range(12):
            with DataFileWriter(objects, f"data/{i}.pq", compiled.schema.arrow, made.ids) as writer:
                writer.write(models_to_arrow([Row(number=i)], compiled))
            how = list(counts)[i % 2]
            if i % 2:
                fileio._kept.clear()  # pyright: ignore[reportPrivateUsage]
            table = tables.Table(made.iceberg, loaded=-1e9)
            server.counted.clear()
            table.append([writer.describe(made.iceberg.schema())], {"run": "r"}, key=str(i))
            counts[how].append(sum(n for name, n in server.counted.items() if name != "bytes"))
        for how, found in counts.items():
            print(f"a commit {how}: {statistics.median(found):.0f} requests (limit 6), with merges up to {max(found)}")
        for _ in range(2):
            server.counted.clear()
            one_run()
        told = {name: n for name, n in server.counted.items() if name != "bytes"}
        print(f"a run of ten inputs, from allocation to its end: {sum(told.values())} requests {told}")


def listing() -> None:
    """`list_runs` of 3,000 finished runs in a bucket of which each request waits 30 ms."""
    import scythe

    with bucket() as (_, where):
        run = one_run()
        first = next(where.rglob(run.key.folder))
        start = dt.datetime.strptime(run.key.folder, "%Y-%m-%d_%H-%M-%S").replace(tzinfo=dt.UTC)
        texts = [p for p in first.rglob("*") if p.suffix in (".json", ".yml")]
        for i in range(1, MANY):
            name = (start - dt.timedelta(minutes=i)).strftime("%Y-%m-%d_%H-%M-%S")
            for path in texts:
                copy = first.with_name(name) / path.relative_to(first)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_text(path.read_text().replace(run.key.folder, name))
        command = [sys.executable, str(HERE / "folder_s3.py"), str(where.parent), "--delay", str(LIST_DELAY)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as slow:  # its CPU is not this process's
            assert slow.stdout is not None
            os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{int(slow.stdout.readline())}"
            for _ in range(3):
                began, used = time.perf_counter(), cpu()
                found = scythe.list_runs("simulate_energy")
                took, worked = time.perf_counter() - began, cpu() - used
                print(f"{MANY:,} runs over 30 ms: {took:.1f} s (limit 5), {worked:.1f} s of CPU")
                assert found.height == MANY
                assert set(found["status"]) == {"finished"}
            slow.kill()


def upkeep() -> None:
    """The room of 300 runs of ten rows, and what deleting 60 of them frees; everything that is old enough removed."""
    import shutil

    import scythe
    from scythe.runs.garbage import collect
    from scythe.settings import storage
    from scythe_catalog.iceberg import upkeep as kept

    os.environ["SCYTHE_STORAGE_ROOT"] = folder = tempfile.mkdtemp(prefix="bench-")
    kept.OLD_SECONDS = -3600.0  # as if a day had passed after each commit

    def room() -> tuple[int, float, float]:
        files = [path for path in Path(folder, "_catalog").rglob("*") if path.is_file()]
        others = sum(path.stat().st_size for path in Path(folder, "simulate_energy").rglob("*") if path.is_file())
        return len(files), sum(path.stat().st_size for path in files) / 1e6, others / 1e6

    for _ in range(RUNS):
        one_run()
    print("{} runs: catalog {:,} files and {:.1f} MB beside {:.1f} MB of runs".format(RUNS, *room()))
    for name in scythe.list_runs("simulate_energy")["version"].to_list()[:DELETED]:
        scythe.open_run("simulate_energy", name).delete()
    collect(storage())
    print("{} of them deleted: catalog {:,} files and {:.1f} MB beside {:.1f} MB of runs".format(DELETED, *room()))
    shutil.rmtree(folder)


CATALOGS = {"commit": commit, "listing": listing, "upkeep": upkeep}
