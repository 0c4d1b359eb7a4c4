"""The inputs of the benchmarks, as a frame. Knows nothing of Scythe: other packages are measured with the same."""

from __future__ import annotations

import numpy as np
import polars as pl

ECONOMIZERS = ["NoEconomizer", "DifferentialDryBulb", "DifferentialEnthalpy"]


def sample(n: int) -> pl.DataFrame:
    """`n` buildings, the same ones every time."""
    rng = np.random.default_rng(0)
    return pl.DataFrame(
        {
            "experiment_id": ["placeholder"] * n,
            "sort_index": np.arange(n),
            "r_value": rng.uniform(0, 15, n),
            "lpd": rng.uniform(0, 20, n),
            "setpoint": rng.uniform(12, 30, n),
            "economizer": rng.choice(ECONOMIZERS, n),
        }
    )
