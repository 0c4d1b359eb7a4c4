"""A few inputs are tried before all are run: what goes in, what comes out, how long and how large it would be.

Runs them in worker processes like a run, in a folder of its own that is no root. Writes nothing below the root.
"""

from __future__ import annotations

import resource
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scythe.allocate.inputs import Inputs, prepare_inputs
from scythe.allocate.store import Request, store_run
from scythe.allocate.trial import Estimate, Trial
from scythe.define.experiment import Experiment
from scythe.engines.engine import Launch
from scythe.engines.pool.cores import cpus
from scythe.engines.start import choose, start
from scythe.errors import AllocationError
from scythe.gather.run_files import scan_result
from scythe.names import ID_LEVELS
from scythe.record.layout import RunKey
from scythe.record.reserve import reserve_folder
from scythe.record.results import RunResult
from scythe_catalog.iceberg.scan import scan_files
from scythe_catalog.schema import Column, TableSchema
from scythe_catalog.storage.objects import Objects

_VERSION = "v1.0.0"


def try_out(experiment: Experiment, specs: Any, n: int) -> Trial:
    """Runs `n` of the specs, spread over all, in worker processes."""
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise AllocationError(f"n must be a whole number from 1 on, got {n!r}")
    if experiment.included is not None:
        raise AllocationError(f"{experiment.name!r} runs on Hatchet alone, and cannot be tried on this machine")
    inputs = prepare_inputs(specs, experiment, overwrite_sort_index=True)
    total = inputs.table.num_rows
    chosen = _some(inputs, np.unique(np.linspace(0, total - 1, min(n, total)).round().astype(np.int64)))
    folder = Path(tempfile.mkdtemp(prefix="scythe-try-"))
    kept = False
    try:
        key, result = _run(experiment, chosen, Objects.at(folder / "root"), folder)
        trial = _trial(experiment, key, result, folder, total)
        kept = bool(trial.files)
    finally:
        shutil.rmtree(folder / "peaks", ignore_errors=True)
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)
    return trial


def _some(inputs: Inputs, rows: np.ndarray) -> Inputs:
    """These rows alone, under the numbers that they have among all."""
    table = inputs.table.take(pa.array(rows))
    there = {name: set(table.column(name).to_pylist()) for name in inputs.local_files}
    return replace(
        inputs,
        table=table,
        single=False,
        dense=bool(len(rows) == rows[-1] + 1),
        local_files={n: {t: p for t, p in found.items() if t in there[n]} for n, found in inputs.local_files.items()},
        remote_files={n: [t for t in found if t in there[n]] for n, found in inputs.remote_files.items()},
    )


def _run(experiment: Experiment, inputs: Inputs, objects: Objects, folder: Path) -> tuple[RunKey, RunResult]:
    from scythe.engines.local import LocalJob

    (folder / "peaks").mkdir()
    measured = replace(
        experiment, target=Measured(experiment, str(folder / "peaks")), options=replace(experiment.options, retries=0)
    )
    chosen = choose("local", measured)
    chosen.engine.check_ready(measured, single=False)
    key = reserve_folder(objects, experiment.name, _VERSION)
    asked = Request(measured, experiment.name, inputs, chosen, catalog=None, seed=0, max_errors=None, chunk=1)
    plan, made_by = store_run(asked, objects, key)
    count = inputs.table.num_rows
    work = Launch(plan, measured, [(0, count)], asked.code, made_by, workers=min(count, cpus()), quiet=True)
    job = start(chosen, work)  # the trial says all
    assert isinstance(job, LocalJob)
    try:
        job.join()
    except KeyboardInterrupt:
        job.cancel()  # unlike a run that is interrupted it cannot be gone on with, and does not say so
        raise
    return key, job.result()


class Measured:
    """A function that notes the peak memory of its process during each call, in a file for each input."""

    def __init__(self, experiment: Experiment, folder: str) -> None:
        self._experiment, self._folder = experiment, folder
        self._call: Callable[..., Any] | None = None
        self.__module__, self.__qualname__ = experiment.target.__module__, experiment.target.__qualname__
        self.__name__ = experiment.target.__name__

    def __call__(self, spec: Any, **more: Any) -> Any:
        """Calls, and notes."""
        self._call = self._call or self._experiment.bind()
        index = spec.sort_index
        _forget_peak()
        try:
            return self._call(spec, **more)
        finally:
            Path(self._folder, str(index)).write_text(str(_peak()))


def _forget_peak() -> None:
    """Lets Linux count the peak anew; elsewhere it is that of the process until now."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    """The peak memory of this process or of a program that it started [bytes]."""
    unit = 1 if sys.platform == "darwin" else 1024
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return max(children, next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")))
    return max(children, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def _described(column: Column) -> str:
    return column.kind.describe() + (f" [{column.unit}]" if column.unit else "")


def _trial(experiment: Experiment, key: RunKey, result: RunResult, folder: Path, total: int) -> Trial:
    import polars as pl

    root, objects = folder / "root", Objects.at(folder / "root")
    read = {name: scan_result(objects, table).collect() for name, table in result.tables.items()}
    fields = [name for name in experiment.schemas.input.schema.names if name not in ID_LEVELS]
    specs = TableSchema.from_arrow(pq.read_schema(root / key.specs))
    inputs = scan_files(objects, [key.specs], specs).collect()
    inputs = inputs.select("sort_index", *(name for name in fields if name in inputs.columns)).sort("sort_index")
    outs = [name for name in experiment.schemas.output.schema.names if name in read["scalars"].columns]
    peaks = {int(p.name): int(text) / 1e6 for p in (folder / "peaks").iterdir() if (text := p.read_text())}
    tasks = read["tasks"].select(
        "sort_index",
        "seconds",
        pl.col("sort_index").replace_strict(peaks, default=None, return_dtype=pl.Float64).alias("peak_memory"),
    )
    results = root / key.path / "results"
    files = {Path(p): p.stat().st_size for p in sorted(results.rglob("*")) if p.is_file()}
    tables = {n: t for n, t in read.items() if n not in ("scalars", "errors", "tasks")}
    workers = min(total, cpus())
    tried = inputs.height
    seconds = _estimated(tasks.sort("sort_index")["seconds"].to_list(), total, workers)
    size = sum(int(table.estimated_size()) for table in read.values()) + sum(files.values())
    return Trial(
        experiment=experiment.name,
        inputs=inputs,
        outputs=read["scalars"].select("sort_index", *outs),
        tables={n: t.drop(*(c for c in ID_LEVELS if c != "sort_index" and c in t.columns)) for n, t in tables.items()},
        errors=read["errors"].select("sort_index", "exception_type", "exception_message", "traceback"),
        tasks=tasks,
        files=files,
        units={c.name: _described(c) for s in (experiment.schemas.input, experiment.schemas.output) for c in s.schema},
        estimate=Estimate(total, seconds, workers, size * total // tried),
    )


def _estimated(seconds: list[float], total: int, workers: int) -> float:
    """How long all inputs take [s]: the first call of each process may load and compile, which the others do not do again."""
    first, others = seconds[:workers], seconds[workers:]
    mean = sum(seconds) / len(seconds)
    each = min(mean, sum(others) / len(others)) if others else mean
    return each * total / workers + max(0.0, sum(first) / len(first) - each)


__all__ = ["try_out"]
