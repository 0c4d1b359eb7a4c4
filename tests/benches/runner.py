"""One side of `runners.py`, in an interpreter that has its package: `-c "from runner import main; main()" WAY N FOLDER`, from n inputs to a Parquet file.

Each input is validated, the function that does nothing called, its output a model, too; by the packages' own way (an input at a time)
and by hand in chunks, which is the quickest way of each that we found. Nothing of Scythe is imported.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, Field
from sampled import sample

WORKERS, CHUNK = 2, 5000


class Building(BaseModel):
    """The inputs of `building.py`, without Scythe."""

    experiment_id: str
    sort_index: int = Field(ge=0)
    r_value: float = Field(ge=0, le=15)
    lpd: float = Field(ge=0, le=20)
    setpoint: float = Field(ge=12, le=30)
    economizer: Literal["NoEconomizer", "DifferentialDryBulb", "DifferentialEnthalpy"]


class Energy(BaseModel):
    """The outputs of `building.py`, without Scythe."""

    heating: float = Field(ge=0)
    cooling: float = Field(ge=0)
    lighting: float = Field(ge=0)
    equipment: float = Field(ge=0)
    fans: float = Field(ge=0)
    pumps: float = Field(ge=0)


def simulate(building: Building) -> Energy:
    return Energy(heating=17.2, cooling=15.3, lighting=building.lpd, equipment=13.8, fans=14.2, pumps=1.4)


def called(frame: pl.DataFrame) -> pa.Table:
    """A chunk of inputs, validated and called: the outputs as columns."""
    return columns([simulate(Building.model_validate(row)) for row in frame.to_dicts()])


def one(row: dict[str, Any]) -> Energy:
    return simulate(Building.model_validate(row))


def columns(outputs: list[Energy]) -> pa.Table:
    return pa.table({name: [getattr(output, name) for output in outputs] for name in Energy.model_fields})


def chunks(frame: pl.DataFrame) -> list[pl.DataFrame]:
    return [frame.slice(i, CHUNK) for i in range(0, len(frame), CHUNK)]


def written(inputs: Iterable[pl.DataFrame], outputs: Iterable[pa.Table], path: Path) -> int:
    """Writes chunks as they come."""
    rows, writer = 0, None
    for given, came in zip(inputs, outputs, strict=True):
        told = given.to_arrow()
        table = pa.table([*told.columns, *came.columns], names=[*told.column_names, *came.column_names])
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
        rows += table.num_rows
    assert writer is not None
    writer.close()
    return rows


# --- each package: in chunks by hand, and an input at a time ---


def dask_chunks(frame: pl.DataFrame, folder: Path) -> Iterator[pa.Table]:
    from dask.distributed import Client

    with Client(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None, local_directory=str(folder)) as client:
        for future in client.map(called, chunks(frame), pure=False):
            yield future.result()
            future.release()


def dask_processes(frame: pl.DataFrame, folder: Path) -> Iterator[pa.Table]:
    import dask

    yield from dask.compute(
        *[dask.delayed(called)(chunk) for chunk in chunks(frame)], scheduler="processes", num_workers=WORKERS
    )


def dask_one(frame: pl.DataFrame, folder: Path) -> Iterator[pa.Table]:
    import dask.bag

    rows = dask.bag.from_sequence(frame.to_dicts(), partition_size=CHUNK)
    yield columns(rows.map(one).compute(scheduler="processes", num_workers=WORKERS))


def ray_chunks(frame: pl.DataFrame, folder: Path) -> Iterator[pa.Table]:
    import ray

    ray.init(num_cpus=WORKERS, include_dashboard=False, configure_logging=False, log_to_driver=False)
    remote = ray.remote(called)
    for reference in [remote.remote(chunk) for chunk in chunks(frame)]:
        yield ray.get(reference)
    ray.shutdown()


def ray_one(frame: pl.DataFrame, folder: Path) -> Iterator[pa.Table]:
    import ray
    from ray.util.multiprocessing import Pool

    ray.init(num_cpus=WORKERS, include_dashboard=False, configure_logging=False, log_to_driver=False)
    with Pool(WORKERS) as pool:
        yield columns(pool.map(one, frame.to_dicts(), chunksize=CHUNK))
    ray.shutdown()


def _pipefunc(function: Callable[..., Any], given: list[Any], chunksize: int) -> list[Any]:
    from concurrent.futures import ProcessPoolExecutor

    from pipefunc import Pipeline, pipefunc

    pipeline = Pipeline([pipefunc(output_name="y", mapspec="x[i] -> y[i]", renames=_renames(function))(function)])
    with ProcessPoolExecutor(WORKERS) as pool:
        found = pipeline.map({"x": given}, executor=pool, storage="dict", chunksizes=chunksize, show_progress=False)
    return list(found["y"].output)


def _renames(function: Callable[..., Any]) -> dict[str, str]:
    return {function.__code__.co_varnames[0]: "x"}


def pipefunc_chunks(frame: pl.DataFrame, folder: Path) -> Iterator[pa.Table]:
    yield from _pipefunc(called, chunks(frame), 1)


def pipefunc_one(frame: pl.DataFrame, folder: Path) -> Iterator[pa.Table]:
    yield columns(_pipefunc(one, frame.to_dicts(), CHUNK))


def _exca(function: Callable[[Any], Any], given: list[Any], folder: Path, uid: Callable[[Any], str]) -> Iterator[Any]:
    import exca

    class Runs(BaseModel):
        infra: exca.MapInfra = exca.MapInfra()

        def process(self, items: Any) -> Any:
            for item in items:
                yield function(item)

        process.__annotations__ = {"items": Iterable[Any], "return": Iterator[Any]}  # which it reads as they are
        process.__qualname__ = "Runs.process"  # its processes find it by its name
        process = infra.apply(item_uid=uid, cache_type="Pickle")(process)

    globals()["Runs"], Runs.__qualname__ = Runs, "Runs"
    runs = Runs(infra=exca.MapInfra(folder=folder / "exca", cluster="processpool", max_jobs=WORKERS))
    yield from runs.process(given)


def exca_chunks(frame: pl.DataFrame, folder: Path) -> Iterator[pa.Table]:
    yield from _exca(called, chunks(frame), folder, _first)


def exca_one(frame: pl.DataFrame, folder: Path) -> Iterator[pa.Table]:
    yield columns(list(_exca(one, frame.to_dicts(), folder, _of_row)))


def _first(chunk: pl.DataFrame) -> str:
    return str(chunk["sort_index"][0])


def _of_row(row: dict[str, Any]) -> str:
    return str(row["sort_index"])


def joblib_chunks(frame: pl.DataFrame, folder: Path) -> Iterator[pa.Table]:
    from joblib import Parallel, delayed

    yield from Parallel(n_jobs=WORKERS, return_as="generator")(delayed(called)(chunk) for chunk in chunks(frame))


def joblib_one(frame: pl.DataFrame, folder: Path) -> Iterator[pa.Table]:
    from joblib import Parallel, delayed

    yield columns(Parallel(n_jobs=WORKERS)(delayed(one)(row) for row in frame.to_dicts()))


def main() -> None:
    way, n, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    frame = sample(n)
    inputs = [frame] if way.endswith("_one") else chunks(frame)
    rows = written(inputs, globals()[way](frame, folder), folder / "results.pq")
    assert rows == n, f"{rows} rows of {n}"
