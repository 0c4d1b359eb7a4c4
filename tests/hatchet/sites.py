"""Places of the cluster's tests: a module of obedient experiments, the worker that serves it, and what its runs leave."""

from __future__ import annotations

import importlib
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl
import pytest
import yaml
from polars.testing import assert_frame_equal

import scythe
from scythe.allocate import BaseExperiment, ExperimentRun
from scythe.define.experiment import Experiment
from scythe.engines.engine import RunRef
from scythe.errors import NotFoundError
from scythe.registry import ExperimentRegistry
from tests.cluster import Worker, unique, wait_for, wait_until_served


@dataclass
class Site:
    """The experiments of one module, which some worker serves and this process allocates."""

    folder: Path
    module: ModuleType
    id: str

    def name(self, experiment: str) -> str:
        return f"{experiment}_{self.id}"

    def orders(self, *fates: str) -> tuple[Path, list[Any]]:
        """A folder of their own, and inputs with these fates."""
        scratch = self.folder / "scratch" / unique("s")
        scratch.mkdir(parents=True)
        order = self.module.Order
        return scratch, [
            order(experiment_id="", sort_index=i, scratch=str(scratch), fate=f) for i, f in enumerate(fates)
        ]

    def allocate(self, experiment: str, specs: Any, **options: Any) -> tuple[ExperimentRun, RunRef]:
        options.setdefault("engine", "hatchet")
        return BaseExperiment(getattr(self.module, experiment)).allocate(specs, **options)

    def worker(self, *options: str, **env: str) -> Worker:
        return Worker(self.module.__name__, *options, env=env, cwd=self.folder)

    def served(self, *experiments: str, leaf: bool = True, scatter: bool = True, workers: int = 1) -> None:
        """Returns when so many workers have the tasks of these experiments."""
        tasks = [f"scythe_experiment_{self.name(e)}" for e in experiments if leaf]
        tasks += [f"scythe_scatter_gather_{self.name(e)}" for e in experiments if scatter]
        wait_until_served(*tasks, workers=workers, timeout=180)  # a worker loads much before it serves


@dataclass
class Cluster:
    """An engine, a folder for all that is done on it, and the environment that leads to both."""

    folder: Path
    env: dict[str, str]
    experiments: dict[str, Experiment] = field(default_factory=dict)

    def site(self, kind: str) -> Site:
        """A module of experiments with names of its own."""
        name = unique(kind)
        shutil.copy(Path(__file__).with_name("obedient.py"), self.folder / f"{name}.py")
        importlib.invalidate_caches()
        site = Site(self.folder, importlib.import_module(name), name)
        known = ExperimentRegistry._experiments
        self.experiments |= {k: e for k, e in known.items() if k.endswith(name)}
        return site

    @contextmanager
    def entered(self) -> Iterator[None]:
        """The environment leads to this cluster, and its experiments are registered, until the end of the block."""
        before = dict(ExperimentRegistry._experiments)
        with pytest.MonkeyPatch.context() as patch:
            for name in ("SCYTHE_STORAGE_BUCKET", "SCYTHE_STORAGE_BUCKET_PREFIX", "SCYTHE_ENGINE", "SCYTHE_CATALOG"):
                patch.delenv(name, raising=False)
            for key, value in self.env.items():
                patch.setenv(key, value)
            patch.syspath_prepend(str(self.folder))
            ExperimentRegistry._experiments |= self.experiments
            yield
        ExperimentRegistry._experiments.clear()
        ExperimentRegistry._experiments.update(before)


def folder_of(run: ExperimentRun) -> Path:
    return Path(run.uri.removeprefix("file://"))


def finals(run: ExperimentRun) -> dict[str, pl.DataFrame]:
    return {p.stem: pl.read_parquet(p) for p in sorted((folder_of(run) / "final").iterdir())}


def calls(scratch: Path) -> dict[int, int]:
    """`sort_index` -> how often the function was called on it."""
    return {int(p.stem): len(p.read_text().splitlines()) for p in scratch.glob("*.calls")}


def manifest(run: ExperimentRun) -> dict[str, Any]:
    return yaml.safe_load((folder_of(run) / "manifest.yml").read_text())


def check(run: ExperimentRun, *, good: list[int], bad: list[int] | None = None) -> dict[str, pl.DataFrame]:
    """Each input is in exactly one of scalars and errors, in tasks once, and the catalog says what the files say."""
    tables = finals(run)
    assert run.status == "finished"
    assert tables["scalars"]["sort_index"].to_list() == good
    assert tables["errors"]["sort_index"].to_list() == (bad or [])
    assert tables["tasks"]["sort_index"].to_list() == sorted([*good, *(bad or [])])
    for name, frame in tables.items():
        of: dict[str, Any] = {"table": name, "run": run.key.folder}
        try:
            read = scythe.read(run.experiment, run.version, **of)
        except NotFoundError:
            assert frame.height == 0, name
            continue
        read = read.sort("sort_index", maintain_order=True).select(frame.columns)
        assert_frame_equal(read.with_columns(pl.col(pl.Enum).cast(pl.String)), frame)
    return tables


def gone(pid: int) -> bool:
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return found.stdout.strip() in ("", "Z") or found.stdout.startswith("Z")


def wait_for_calls(scratch: Path, *which: int) -> None:
    wait_for(lambda: all(i in calls(scratch) for i in which))
