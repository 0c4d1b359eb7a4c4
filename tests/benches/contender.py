"""One way to run n inputs from start to a table on disk, as a whole process: `contender.py WAY N FOLDER`.

Ways: `scythe` (a frame in), `scythe-models` (models in), `joblib` (batch_size="auto"), `executor`
(ProcessPoolExecutor, chunksize=100). The last two call the same function with the same models and write one
Parquet file of inputs and outputs, column by column.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from pathlib import Path

WORKERS = 2


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


def main() -> None:
    way, n, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    folder.mkdir(parents=True, exist_ok=True)
    match way:
        case "scythe" | "scythe-models":
            rows = by_scythe(n, folder, as_models=way == "scythe-models")
        case "joblib":
            rows = by_joblib(n, folder)
        case _:
            rows = by_executor(n, folder)
    assert rows == n, f"{rows} rows of {n}"
    print(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MB", file=sys.stderr)


if __name__ == "__main__":
    main()
