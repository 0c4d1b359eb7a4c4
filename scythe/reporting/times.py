"""How long inputs took, and whether the machine was busy: from the table of tasks. Pure; knows no run."""

from __future__ import annotations

import numpy as np
import polars as pl

from scythe.reporting.facts import Machine, Spread, Variable
from scythe.reporting.spreads import laid_out

MOST_WORKERS = 24
_BINS = 120
SECONDS = Variable("seconds", "s", "Time spent in the function")


def machine(tasks: pl.DataFrame) -> Machine | None:
    """Workers over time, of the attempt that ran most inputs; None where no time was recorded.

    Args:
        tasks: Columns `start`, `seconds`, `worker`, and `attempt` and `reused_from` where they are known.
    """
    if "reused_from" in tasks.columns:  # other runs had their own workers
        tasks = tasks.filter(pl.col("reused_from").is_null())
    attempt, attempts = None, 1
    if "attempt" in tasks.columns:
        per = tasks["attempt"].drop_nulls().value_counts(sort=True)
        if per.height:
            attempt, attempts = int(per["attempt"][0]), per.height
            tasks = tasks.filter(pl.col("attempt") == attempt)
    tasks = tasks.drop_nulls(["start", "seconds", "worker"])
    if not tasks.height:
        return None
    begins = tasks["start"].cast(pl.Datetime("us", "UTC")).cast(pl.Int64).to_numpy() / 1e6
    begins = begins - begins.min()
    lasts = np.clip(np.nan_to_num(tasks["seconds"].to_numpy()), 0, None)
    end = float((begins + lasts).max())
    if end <= 0:
        return None
    edges = np.linspace(0, end, _BINS + 1)
    width = end / _BINS
    counted = tasks["worker"].value_counts().sort("count", "worker", descending=[True, False])
    names = sorted(counted["worker"].to_list()[:MOST_WORKERS])
    places = tasks["worker"].replace_strict(names, range(len(names)), default=-1, return_dtype=pl.Int32).to_numpy()
    busy = [np.clip(_spent(begins[places == i], lasts[places == i], edges) / width, 0, 1) for i in range(len(names))]
    at_work = _spent(begins, lasts, edges) / width
    return Machine(
        attempt, attempts, tuple(edges.tolist()), tuple(names), tuple(tuple(row.tolist()) for row in busy),
        tuple(at_work.tolist()), counted.height, float(min(1.0, lasts.sum() / end / counted.height)),
    )  # fmt: skip


def _spent(begins: np.ndarray, lasts: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Seconds of work in each bin, all tasks together: of what was spent before each edge, the differences."""

    def before(moments: np.ndarray) -> np.ndarray:
        moments = np.sort(moments)
        sums = np.concatenate([[0.0], np.cumsum(moments)])
        there = np.searchsorted(moments, edges, side="right")
        return edges * there - sums[there]

    return np.maximum(0, np.diff(before(begins) - before(begins + lasts)))


def seconds_spread(tasks: pl.DataFrame) -> Spread:
    """The histogram of the time per input."""
    return laid_out(SECONDS, tasks["seconds"])[0]
