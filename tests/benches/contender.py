"""One way to run n inputs from start to a table on disk, as a whole process: `contender.py WAY N FOLDER`.

Ways: `scythe` (a frame in), `scythe-models` (models in), `joblib` (a frame in, cut by hand into chunks that are validated, called and
made columns in the processes, and written by a ParquetWriter as they come back: the best way that we know), `joblib-auto` (models in,
batch_size="auto"), `executor` (ProcessPoolExecutor, chunksize=100). The last two write one Parquet file, column by column.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

WORKERS, CHUNK = 2, 5000


def by_scythe(n: int, folder: Path, *, as_models: bool) -> int:
    os.environ["SCYTHE_STORAGE_ROOT"] = str(folder)
    from building import models, sample, simulate_energy

    import scythe
    from scythe.allocate import BaseExperiment

    specs = models(n) if as_models else sample(n)
    began = time.perf_counter()
    _, ref = BaseExperiment(experiment=simulate_energy).allocate(specs, workers=WORKERS)
    allocated = time.perf_counter()
    ref.result()
    done = time.perf_counter()
    rows = scythe.scan("simulate_energy").select("sort_index").collect().height
    print(f"allocate {allocated - began:.2f} s, run and gather {done - allocated:.2f} s", file=sys.stderr)
    return rows


def write(inputs: list, outputs: list, path: Path) -> int:
    """The quickest way we know from models to one Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: [getattr(m, name) for m in inputs] for name in type(inputs[0]).model_fields}
    columns |= {
        name: [getattr(m, name) for m in outputs] for name in type(outputs[0]).model_fields if name != "dataframes"
    }
    table = pa.table(columns)
    pq.write_table(table, path)
    return table.num_rows


def called(frame: Any) -> Any:
    """A chunk of inputs, validated and called: the outputs as columns."""
    import pyarrow as pa
    from building import BuildingSimulationInput, BuildingSimulationOutput, simulate_energy

    outputs = [simulate_energy(BuildingSimulationInput.model_validate(row)) for row in frame.to_dicts()]
    names = [name for name in BuildingSimulationOutput.model_fields if name != "dataframes"]
    return pa.table({name: [getattr(output, name) for output in outputs] for name in names})


def by_joblib_chunks(n: int, folder: Path) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from building import sample
    from joblib import Parallel, delayed

    frame = sample(n)
    slices = [frame.slice(i, CHUNK) for i in range(0, n, CHUNK)]
    rows, writer = 0, None
    for inputs, outputs in zip(
        slices, Parallel(n_jobs=WORKERS, return_as="generator")(delayed(called)(s) for s in slices), strict=True
    ):
        told = inputs.to_arrow()
        table = pa.table([*told.columns, *outputs.columns], names=[*told.column_names, *outputs.column_names])
        writer = writer or pq.ParquetWriter(folder / "results.pq", table.schema)
        writer.write_table(table)
        rows += table.num_rows
    assert writer is not None
    writer.close()
    return rows


def by_joblib(n: int, folder: Path) -> int:
    from building import models, simulate_energy
    from joblib import Parallel, delayed

    specs = models(n)
    began = time.perf_counter()
    outputs = Parallel(n_jobs=WORKERS, batch_size="auto")(delayed(simulate_energy)(spec) for spec in specs)
    print(f"calls alone {n / (time.perf_counter() - began):,.0f}/s", file=sys.stderr)
    return write(specs, outputs, folder / "results.pq")


def by_executor(n: int, folder: Path) -> int:
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    from building import models, simulate_energy

    specs = models(n)
    with ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("spawn")) as pool:
        outputs = list(pool.map(simulate_energy, specs, chunksize=100))
    return write(specs, outputs, folder / "results.pq")


def with_outputs(way: str, n: int, folder: Path) -> int:
    """Inputs of which each gives a dataframe, or a file."""
    import outputs

    match way:
        case "frames" | "long" | "short":
            function = {"frames": outputs.framed, "long": outputs.longed, "short": outputs.shorted}[way]
            return outputs.by_scythe(function, "hourly", n, folder) // outputs.ROWS[way]
        case "frames-joblib" | "long-joblib" | "short-joblib":
            rows = outputs.ROWS[way.removesuffix("-joblib")]
            return outputs.frames_by_joblib(n, folder, rows) // rows
        case "files":
            return outputs.by_scythe(outputs.filed, "scalars", n, folder)
        case "files-joblib":
            return outputs.files_by_joblib(n, folder)
        case _:
            raise ValueError(way)


def main() -> None:
    way, n, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    folder.mkdir(parents=True, exist_ok=True)
    match way:
        case "scythe" | "scythe-models":
            rows = by_scythe(n, folder, as_models=way == "scythe-models")
        case "joblib":
            rows = by_joblib_chunks(n, folder)
        case "joblib-auto":
            rows = by_joblib(n, folder)
        case "executor":
            rows = by_executor(n, folder)
        case _:
            rows = with_outputs(way, n, folder)
    assert rows == n, f"{rows} rows of {n}"
    print(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MB", file=sys.stderr)


if __name__ == "__main__":
    main()
