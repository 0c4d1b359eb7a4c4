"""Each input of several runs once, by its newest row. Reads inputs, and of a table who has rows in it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from scythe.gather.parts import sort_indexes
from scythe.record.layout import RunKey
from scythe.record.plan import RunPlan
from scythe.reuse.known import specs_of
from scythe_catalog.storage.objects import Objects

#: What is said where there are not the runs of one version.
NO_DISTINCT = 'distinct=True gives each input of a version once: ask for run="all", of one version'
_KEY = "sort_index"
_PLACE = ["run_datetime", _KEY]


def newest_rows(
    objects: Objects, keys: Sequence[RunKey], rows: pl.LazyFrame, among: pl.LazyFrame | None = None
) -> pl.LazyFrame:
    """Those rows of one version whose input no later run (or later input of the same run) has rows of in them.

    Args:
        objects: The root.
        keys: The runs that the rows are of.
        rows: Of any table, with `run_datetime` and `sort_index`.
        among: The rows that decide which are the newest, if not these: one for each input, though it has none in the other table.
    """
    there = (rows if among is None else among).select(_PLACE).unique().collect()
    moments = set(there["run_datetime"].unique())
    runs = [key for key in keys if key.moment in moments]
    told = pl.concat([pl.DataFrame(schema=_TOLD), *(_told(objects, key) for key in runs)])
    told = told.with_columns(pl.col("run_datetime").cast(there.schema["run_datetime"]))
    kept = (
        there.join(told, on=_PLACE, how="left")
        .sort(_PLACE, descending=True)
        .unique(["one", "other", "alone"], keep="first", maintain_order=True)
    )
    return rows.join(kept.lazy().select(_PLACE), on=_PLACE, how="semi")


_TOLD = {
    "run_datetime": pl.Datetime("us", "UTC"),
    _KEY: pl.Int64,
    "one": pl.UInt64,
    "other": pl.UInt64,
    "alone": pl.String,
}


def _told(objects: Objects, key: RunKey) -> pl.DataFrame:
    """What tells the inputs of a run: two numbers; one whose file nobody knows is like no other."""
    plan = RunPlan.load(objects, key)
    specs = specs_of(plan)
    one, other = specs.identities(), specs.identities(salt=1)
    keys = np.arange(plan.inputs) if plan.dense else sort_indexes(plan)
    alone = pl.Series("alone", keys).cast(pl.String)
    frame = pl.DataFrame({_KEY: keys, "one": one.numbers, "other": other.numbers, "unknown": one.unknown})
    return frame.select(
        pl.lit(key.moment).cast(_TOLD["run_datetime"]).alias("run_datetime"),
        _KEY,
        "one",
        "other",
        pl.when("unknown").then(pl.format(f"{key.path} {{}}", alone)).otherwise(pl.lit("")).alias("alone"),
    )


__all__ = ["NO_DISTINCT", "newest_rows"]
