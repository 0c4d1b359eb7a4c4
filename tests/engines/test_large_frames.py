"""Dataframes too large to be sent from process to process: written by the worker processes, joined at the end."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import cloudpickle
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import scythe
from scythe.allocate import BaseExperiment, ExperimentRun
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.gather import parts
from scythe.registry import ExperimentRegistry
from scythe_catalog.iceberg.datafile import DataFileWriter, StoredFile

cloudpickle.register_pickle_by_value(sys.modules[__name__])

ROWS = 40_000


class Case(ExperimentInputSpec):
    n: int
    kind: str = "plain"


class Answer(ExperimentOutputSpec):
    y: int


def hourly(spec: Case) -> Answer:
    rng = np.random.default_rng(spec.n)
    frame = pd.DataFrame({name: rng.random(ROWS) for name in ("heating", "cooling", "fans", "light")})
    match spec.kind:
        case "whole numbers":
            frame["fans"] = np.arange(ROWS)
        case "another column":
            frame["heat"] = 0.0
        case "few rows":
            frame = frame.head(3)
        case "gaps":
            frame.loc[::2, "light"] = float("nan")
        case "own index":
            frame = frame.set_index(spec.make_multiindex(n_rows=ROWS))
        case "dies once":
            if not Path("died").exists():
                Path("died").touch()
                os.kill(os.getpid(), signal.SIGKILL)
        case _:
            pass
    return Answer(y=spec.n, dataframes={"hourly": frame})


@pytest.fixture
def run_of(root: Path) -> Callable[..., ExperimentRun]:
    ExperimentRegistry.Register(name="hourly", retries=1)(hourly)

    def run_of(*kinds: str, engine: str = "local", chunk: int | None = 2) -> ExperimentRun:
        specs = pl.DataFrame({"n": range(len(kinds)), "kind": kinds})
        how = {"workers": 2, "chunk": chunk} if engine == "local" else {}
        run, ref = BaseExperiment("hourly").allocate(specs, engine=engine, **how)
        ref.result(timeout=200)
        return run

    return run_of


def taken_whole(patch: pytest.MonkeyPatch) -> list[StoredFile]:
    """The files that a gather of this process copies by their bytes, from now on."""
    copied: list[StoredFile] = []
    copy = DataFileWriter.copy
    patch.setattr(DataFileWriter, "copy", lambda self, file: (copied.append(file), copy(self, file))[1])
    return copied


def shown() -> pl.DataFrame:
    return scythe.read("hourly", table="hourly", ids=False)


def test_they_are_those_of_any_engine_and_are_copied_as_the_workers_wrote_them(
    run_of: Callable[..., ExperimentRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = ["plain", "gaps", "plain", "plain", "gaps", "plain"]
    run_of(*kinds, engine="inline")
    expected = shown()
    copied = taken_whole(monkeypatch)

    run = run_of(*kinds)

    assert sorted(file.rows for file in copied) == [2 * ROWS] * 3
    assert shown().equals(expected)
    assert expected["n"].is_sorted()
    path = run.result.uris["hourly"].removeprefix("file://")  # type: ignore[union-attr]
    assert pd.read_parquet(path).index.names[:2] == ["experiment_id", "sort_index"]
    parts = [p for p in Path(run.uri.removeprefix("file://")).rglob("*") if "/parts/" in str(p) and p.is_file()]
    assert [p for p in parts if "-hourly-" in p.name] == []  # others were shown meanwhile on a busy machine


def test_what_does_not_fit_as_it_is_is_encoded_anew_beside_what_is_copied(
    run_of: Callable[..., ExperimentRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = taken_whole(monkeypatch)

    run_of("plain", "plain", "whole numbers", "whole numbers", "plain", "few rows", "another column", "plain", "plain", "plain")  # fmt: skip

    rows = shown()
    assert sorted(file.rows for file in copied) == [ROWS, ROWS + 3, 2 * ROWS, 2 * ROWS]
    assert rows["n"].is_sorted()
    assert rows.group_by("n").len().sort("n").rows() == [
        (n, 3 if n == 5 else ROWS) for n in (0, 1, 2, 3, 4, 5, 7, 8, 9)
    ]
    assert rows.filter(pl.col("n") == 2)["fans"].to_list() == [float(i) for i in range(ROWS)]
    assert scythe.read("hourly", table="errors")["n"].to_list() == [6]


def test_a_process_that_dies_and_a_retry_double_nothing(run_of: Callable[..., ExperimentRun]) -> None:
    run_of("plain", "plain", "dies once", "plain", "another column", "plain")
    assert shown().group_by("n").len().sort("n").rows() == [(n, ROWS) for n in (0, 1, 2, 3, 5)]

    run = scythe.open_run("hourly")
    run.retry_errors().result(timeout=200)

    assert shown().group_by("n").len().sort("n").rows() == [(n, ROWS) for n in (0, 1, 2, 3, 5)]


def test_the_memory_of_the_caller_does_not_grow_with_them(run_of: Callable[..., ExperimentRun]) -> None:
    pool = pa.default_memory_pool()
    before = pool.bytes_allocated()
    peak = 0
    add = parts.Rows.add

    def watched(rows: parts.Rows, result: object, files: object = ()) -> None:
        nonlocal peak
        add(rows, result, files)  # type: ignore[arg-type]
        peak = max(peak, rows.bytes, pool.bytes_allocated() - before)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts.Rows, "add", watched)
        run = run_of(*["plain"] * 24)

    path = run.result.uris["hourly"].removeprefix("file://")  # type: ignore[union-attr]
    assert pq.read_metadata(path).num_rows == 24 * ROWS
    assert peak < 2_000_000  # one of them is as large
