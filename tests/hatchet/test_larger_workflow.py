"""A loop of growing runs as a node of a larger workflow: a durable task of Hatchet's own, that is killed and tried again."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import scythe
from tests.cluster import PATIENCE, Worker, engine_environment, unique, wait_for, wait_until_served

EXPERIMENT = """
import time
from pathlib import Path

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.registry import ExperimentRegistry


class Order(ExperimentInputSpec):
    x: int
    scratch: str


class Value(ExperimentOutputSpec):
    y: int


@ExperimentRegistry.Register(name="order_NAME")
def order(spec: Order) -> Value:
    with (Path(spec.scratch) / f"{spec.x}.calls").open("a") as file:
        file.write("called\\n")
    while spec.x == 4 and not (Path(spec.scratch) / "gate").exists():
        time.sleep(0.02)
    return Value(y=10 * spec.x)
"""

DRIVER = """
from datetime import timedelta

import polars as pl
from hatchet_sdk import DurableContext, EmptyModel
from NAME import order

import scythe
from scythe import BaseExperiment
from scythe.engines.hatchet.connection import connect
from scythe.worker import ScytheWorkerConfig


@connect().durable_task(name="loop_NAME", retries=3, execution_timeout=timedelta(minutes=10))
async def loop(given: EmptyModel, context: DurableContext) -> dict[str, list[int]]:
    totals = []
    for number in (1, 2):
        specs = pl.DataFrame({"x": range(3 * number)}).with_columns(scratch=pl.lit("SCRATCH"))
        _, ref = BaseExperiment(order).allocate(specs, reuse=True, key=f"round {number}", engine="hatchet")
        totals.append((await ref.aio_result()).rows)
    return {"rows": totals}


if __name__ == "__main__":
    ScytheWorkerConfig(slots=1, does_fan=False, name="driver").start(experiments=[], additional_workflows=[loop])
"""


def test_a_loop_within_a_durable_task_is_killed_and_goes_on(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(root))
    name, scratch = unique("larger"), tmp_path / "scratch"
    scratch.mkdir()
    (tmp_path / f"{name}.py").write_text(EXPERIMENT.replace("NAME", name))
    (tmp_path / "drive.py").write_text(DRIVER.replace("NAME", name).replace("SCRATCH", str(scratch)))
    with engine_environment() as env:
        for key, value in env.items():
            monkeypatch.setenv(key, value)
        from scythe.engines.hatchet.connection import connect

        def driver() -> Worker:
            return Worker("drive.py", env={}, cwd=tmp_path, command=(sys.executable,))

        with Worker(name, "--slots", "1", env={}, cwd=tmp_path), driver() as first:
            wait_until_served(
                f"scythe_experiment_order_{name}", f"scythe_scatter_gather_order_{name}", timeout=PATIENCE
            )
            wait_until_served(f"loop_{name}", timeout=PATIENCE)
            ref = connect().stubs.task(name=f"loop_{name}").run(wait_for_result=False)
            wait_for(lambda: (scratch / "4.calls").exists())
            first.kill(machine=True)
            with driver():
                (scratch / "gate").touch()
                assert ref.result().model_dump() == {"rows": [3, 6]}
    assert len(list((root / f"order_{name}").glob("v*/*"))) == 2, "each round is one run"
    assert scythe.read(f"order_{name}")["y"].to_list() == [0, 10, 20, 30, 40, 50]
    assert {path.name: path.read_text().count("called") for path in scratch.glob("*.calls")} == {f"{x}.calls": 1 for x in range(6)}  # fmt: skip
