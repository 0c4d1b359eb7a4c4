"""What goes wrong on a cluster, done on purpose, and what must hold all the same."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import polars as pl

import scythe
from scythe.engines.slurm.folder import Folder
from scythe.runs.run import ExperimentRun
from tests.slurm_server import Slurm


def specs(n: int, **more: pl.Expr) -> pl.DataFrame:
    return pl.DataFrame({"x": range(n)}).with_columns(**more)


def folder_of(run: ExperimentRun, attempt: int = 1) -> Folder:
    return Folder(run.objects, run.key, attempt)


def each_once(run: ExperimentRun, n: int) -> None:
    """Every input ended exactly once, and the catalog says what the folder does."""
    result = run.result
    assert result is not None
    found: list[int] = []
    for table in ("scalars", "errors"):
        shown = scythe.read(run.experiment, run.version, table=table, run=run.key.folder)["sort_index"].to_list()
        stored = pl.read_parquet(result.uris[table].removeprefix("file://"))["sort_index"].to_list()
        assert shown == stored
        found += shown
    assert sorted(found) == list(range(n))


def begun(told: Path) -> list[tuple[int, str]]:
    """The inputs that have begun, each with the number of the job that ran it."""
    lines = [line.split() for line in told.read_text().splitlines()] if told.exists() else []
    return [(int(x), job) for x, job in lines]


def scancel(slurm: Slurm, job: str) -> None:
    slurm.ask("scancel", job)


def kill(slurm: Slurm, job: str) -> None:
    found = slurm.ask("scontrol", "listpids", job, "n1") + slurm.ask("scontrol", "listpids", job, "n2")
    pids = [int(line.split()[0]) for line in found.splitlines() if line.split()[1:2] == [job]]
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def requeue(slurm: Slurm, job: str) -> None:
    slurm.ask("scontrol", "requeue", job)


def lose_node(slurm: Slurm, job: str) -> None:
    node = slurm.ask("squeue", "--noheader", f"--jobs={job}", "--format=%N").strip()
    slurm.ask("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    slurm.ask("scontrol", "update", f"nodename={node}", "state=resume")
