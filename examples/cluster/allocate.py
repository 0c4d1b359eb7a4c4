"""Samples walls, has the cluster compute them, and reads the results back.

Run it where HATCHET_CLIENT_TOKEN, AWS_* and SCYTHE_STORAGE_BUCKET are set: see README.md.
"""

from __future__ import annotations

import argparse

import numpy as np
import polars as pl
from experiment import wall_response

import scythe
from scythe import BaseExperiment


def sample(n: int, seed: int = 0) -> pl.DataFrame:
    """`n` walls from insulation to concrete; conductivity rises with density, as it does in building materials."""
    rng = np.random.default_rng(seed)
    density = rng.uniform(30, 2600, n)
    conductivity = 0.03 * (2.3 / 0.03) ** (density / 2600) * rng.uniform(1.0, 1.08, n)
    return pl.DataFrame({"thickness": rng.uniform(0.1, 0.5, n), "conductivity": conductivity, "density": density})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=1000, help="how many walls")
    n = parser.parse_args().n

    run, ref = BaseExperiment(wall_response).allocate(sample(n), version="bumpminor", engine="hatchet")
    print(f"{run.experiment_id}: {n} walls, run {ref.workflow_run_id}")
    result = ref.result()
    print(f"{result.rows} rows, {result.errors} errors in {result.seconds:.1f} s")

    walls = scythe.read(wall_response)
    print(
        walls.sort("decrement_factor").select("thickness", "density", "u_value", "decrement_factor", "time_lag").head()
    )
    workers = scythe.read(wall_response, table="tasks")["worker"].unique()
    print(f"computed by {len(workers)} processes on {len({w.partition(':')[0] for w in workers})} machines")
