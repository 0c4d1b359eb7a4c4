"""Inputs that give a dataframe of an hourly year each, or a file of 35 KB each: with Scythe, and by hand with joblib.

By hand the dataframes go into one Parquet file as they come back, and the files into one folder; no table names those.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.registry import ExperimentRegistry
from scythe.utils.filesys import FileReference

WORKERS, HOURS = 2, 8760
#: Rows of one dataframe, by the way.
ROWS = {"frames": HOURS, "long": 5_000_000, "short": 24}
NAMES = ("heating", "cooling", "lighting", "equipment", "fans")
SERIES = np.random.default_rng(0).random(4380)


class House(ExperimentInputSpec):
    """A house."""

    r_value: float


class Year(ExperimentOutputSpec):
    """What it uses in a year."""

    heating: float


class Stored(ExperimentOutputSpec):
    """What it uses in a year, and the hours in a file."""

    heating: float
    series: FileReference


def hours(i: int, rows: int = HOURS) -> pd.DataFrame:
    """The hours of a year, or as many rows."""
    rng = np.random.default_rng(i)
    return pd.DataFrame({name: rng.random(rows) for name in NAMES})


@ExperimentRegistry.Register()
def framed(spec: House) -> Year:
    """Gives a dataframe."""
    return Year(heating=spec.r_value, dataframes={"hourly": hours(int(spec.r_value * 7))})


@ExperimentRegistry.Register()
def longed(spec: House) -> Year:
    """Gives a long dataframe."""
    return Year(heating=spec.r_value, dataframes={"hourly": hours(int(spec.r_value * 7), ROWS["long"])})


@ExperimentRegistry.Register()
def shorted(spec: House) -> Year:
    """Gives a short dataframe."""
    return Year(heating=spec.r_value, dataframes={"hourly": hours(int(spec.r_value * 7), ROWS["short"])})


@ExperimentRegistry.Register()
def filed(spec: House, tempdir: Path) -> Stored:
    """Gives a file."""
    path = tempdir / "series.npy"
    np.save(path, SERIES)
    return Stored(heating=spec.r_value, series=path)


def by_scythe(function: Any, table: str, n: int, folder: Path) -> int:
    """The rows that can be read of a run."""
    os.environ["SCYTHE_STORAGE_ROOT"] = str(folder)
    import polars as pl

    import scythe
    from scythe.allocate import BaseExperiment

    specs = pl.DataFrame({"r_value": np.arange(n) / 7})
    _, ref = BaseExperiment(experiment=function).allocate(specs, workers=WORKERS)
    ref.result()
    return scythe.scan(function.__name__, table=table).select("sort_index").collect().height


def frame_by_hand(i: int, rows: int) -> pd.DataFrame:
    """A dataframe with the columns that say whose it is."""
    frame = hours(i, rows)
    frame.insert(0, "sort_index", i)
    frame.insert(1, "r_value", i / 7)
    return frame


def file_by_hand(i: int, folder: Path) -> int:
    """A file in a folder."""
    np.save(folder / f"{i}.npy", SERIES)
    return 1


def frames_by_joblib(n: int, folder: Path, hours: int) -> int:
    """Each dataframe is written when it comes back."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from joblib import Parallel, delayed

    writer, rows = None, 0
    for frame in Parallel(n_jobs=WORKERS, return_as="generator")(delayed(frame_by_hand)(i, hours) for i in range(n)):
        table = pa.Table.from_pandas(frame, preserve_index=False)
        writer = writer or pq.ParquetWriter(folder / "hourly.pq", table.schema, compression="zstd")
        writer.write_table(table)
        rows += table.num_rows
    assert writer is not None
    writer.close()
    return rows


def files_by_joblib(n: int, folder: Path) -> int:
    """One call an input; nothing is flushed to the disk, and nothing says whose a file is but its name."""
    from joblib import Parallel, delayed

    return sum(Parallel(n_jobs=WORKERS)(delayed(file_by_hand)(i, folder) for i in range(n)))
