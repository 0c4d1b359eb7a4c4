"""Experiments that do as their inputs say. Every place of tests has a copy of this file, under a name of its own."""

import logging
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Literal

import pandas as pd
import polars as pl

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.registry import ExperimentRegistry
from scythe.utils.filesys import FileReference
from scythe.worker import ScytheWorkerLabel

#: The end of the names of the experiments: that of the copy.
ID = __name__.rpartition(".")[2]


class Order(ExperimentInputSpec):
    scratch: str
    fate: str = "fine"


class Value(ExperimentOutputSpec):
    y: float


def wait_for_gate(spec):
    while not (Path(spec.scratch) / "gate").exists():
        time.sleep(0.02)


@ExperimentRegistry.Register(name=f"leaky_{ID}", retries=0, max_inputs_per_process=2)
def leaky(spec: Order) -> Value:
    return Value(y=os.getpid())


@ExperimentRegistry.Register(name=f"obey_{ID}", retries=1)
def obey(spec: Order) -> Value:
    with (Path(spec.scratch) / f"{spec.sort_index}.calls").open("a+") as file:
        file.write(f"{os.getpid()}\n")
        file.flush()
        file.seek(0)
        call = len(file.readlines())
    frames = {}
    match spec.fate:
        case "raises":
            raise ValueError(f"call {call}")
        case "raises, then works":
            if call == 1:
                raise ValueError("not yet")
        case "exits":
            os._exit(7)
        case "is killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "is killed, then works":
            if call == 1:
                os.kill(os.getpid(), signal.SIGKILL)
        case "waits, then raises":
            wait_for_gate(spec)
            raise ValueError(f"call {call}")
        case "raises at length":
            raise ValueError("x" * 5_000_000)
        case "gives a large frame":
            frames["series"] = pl.DataFrame({"t": pl.arange(0, 3_750_000, eager=True).sample(fraction=1, shuffle=True)})
        case "gives an empty frame":
            frames["series"] = pl.DataFrame({"t": []}, schema={"t": pl.Int64})
        case "gives a small frame":
            frames["series"] = pl.DataFrame({"t": [1, 2]})
        case "waits":
            child = subprocess.Popen(["sleep", "1000"])
            (Path(spec.scratch) / f"{spec.sort_index}.child").write_text(str(child.pid))
            wait_for_gate(spec)
            child.kill()
            child.wait()
        case "fails without a gate":
            if not (Path(spec.scratch) / "gate").exists():
                raise ValueError("no gate")
    return Value(y=spec.sort_index, dataframes=frames)


class Text(ExperimentOutputSpec):
    text: str


@ExperimentRegistry.Register(name=f"tell_{ID}", retries=0)
def tell(spec: Order) -> Text:
    return Text(text="x" * 5_000_000)


@ExperimentRegistry.Register(name=f"limited_{ID}", retries=1, execution_timeout=2.0)
def limited(spec: Order) -> Value:
    with (Path(spec.scratch) / f"{spec.sort_index}.calls").open("a") as file:
        file.write("called\n")
    if spec.fate == "hangs":
        signal.pause()
    if spec.fate == "takes its time":
        time.sleep(1.2)
    return Value(y=spec.sort_index)


@ExperimentRegistry.Register(name=f"talk_{ID}", retries=0)
def talk(spec: Order) -> Value:
    spec.log(f"told by {spec.sort_index}")
    logging.getLogger("somebody").warning("logged by %s", spec.sort_index)
    return Value(y=1)


@ExperimentRegistry.Register(name=f"hush_{ID}", retries=0, overwrite_log_method=False)
def hush(spec: Order) -> Value:
    spec.log(f"told by {spec.sort_index}")
    logging.getLogger("somebody").warning("logged by %s", spec.sort_index)
    return Value(y=1)


@ExperimentRegistry.Register(name=f"gpu_{ID}", retries=0, desired_worker_labels={ScytheWorkerLabel.HAS_GPU: True})
def gpu(spec: Order) -> Value:
    return Value(y=int(os.environ.get("TEST_WORKER", "0")))


@ExperimentRegistry.Register(name=f"named_{ID}", retries=0, worker=f"worker-{ID}")
def named(spec: Order) -> Value:
    return Value(y=int(os.environ.get("TEST_WORKER", "0")))


class Rich(ExperimentInputSpec):
    x: float
    kind: Literal["a", "b"]
    table: FileReference
    tags: list[str] = []  # noqa: RUF012 - pydantic copies it

    @property
    def computed_features(self):
        return {"doubled": 2 * self.x}


class RichOut(ExperimentOutputSpec):
    y: float
    lines: int
    report: FileReference


@ExperimentRegistry.Register(name=f"everything_{ID}", retries=0)
def everything(spec: Rich, tempdir: Path) -> RichOut:
    if spec.x % 10 == 3:
        raise ValueError(f"no {spec.x}")
    (tempdir / "report.txt").write_text(f"{spec.x} {spec.kind}")
    own = pd.DataFrame({"v": [spec.x, 1.0]}, index=spec.make_multiindex({"month": [1, 2]}, n_rows=2))
    series = pl.DataFrame({"hour": [0, 1, 2], "kwh": [spec.x, 2.0, None]})
    return RichOut(
        y=2 * spec.x,
        lines=len(spec.table.read_text().splitlines()),
        report=tempdir / "report.txt",
        dataframes={"own": own, "series": series},
    )
