"""A training that is killed at any step goes on with the very next sample, on another number of workers and ranks, also after the experiment grew."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import scythe
from scythe.allocate import BaseExperiment
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.registry import ExperimentRegistry
from tests.cluster import wait_for

#: Trials; a hundred before a release: SCYTHE_FAULT_ROUNDS=100.
TRIALS = int(os.environ.get("SCYTHE_FAULT_ROUNDS", "2"))
ROWS, TOGETHER, EPOCHS = 203, 8, 2

_RANK = """
import json, os, sys
import scythe

if __name__ == "__main__":
    rank, world, workers, together, epochs = map(int, sys.argv[1:])
    pins = json.loads(open("pins.json").read())
    ds = scythe.dataset("walls", "all", run="all", x="x").pinned_to([tuple(pin) for pin in pins])
    batches = ds.batches(together // world, seed=7, rank=rank, world=world)

    def keep(state):
        with open(f"state{rank}.new", "w") as new:
            json.dump(state, new)
        os.replace(f"state{rank}.new", f"state{rank}.json")

    state = json.loads(open("state.json").read()) if os.path.exists("state.json") else batches.state(0, 0)
    with open(f"seen{rank}", "a") as seen:
        while state["epoch"] < epochs:
            epoch, step = state["epoch"], state["samples"] // together
            rest = batches.resume(state)
            if workers:
                from torch.utils.data import DataLoader
                rest = DataLoader(rest, batch_size=None, num_workers=workers, multiprocessing_context="forkserver")
            for batch in rest:
                print(json.dumps([epoch, step, [int(x) for x in batch["x"]]]), file=seen, flush=True)
                step += 1
                keep(batches.state(epoch, step))
            state = batches.state(epoch + 1, 0)
            keep(state)
"""


class Wall(ExperimentInputSpec):
    x: int


class Heat(ExperimentOutputSpec):
    y: int


def double(spec: Wall) -> Heat:
    return Heat(y=2 * spec.x)


def lines(folder: Path, rank: int) -> list[list[Any]]:
    path = folder / f"seen{rank}"
    raw = path.read_bytes() if path.exists() else b""
    return [json.loads(line) for line in raw[: raw.rfind(b"\n") + 1].splitlines()]


@pytest.mark.parametrize("trial", range(TRIALS))
def test_whatever_is_killed_the_sequence_is_that_of_a_training_that_was_not(root: Path, trial: int) -> None:
    chance, folder = random.Random(trial), Path.cwd()
    walls = BaseExperiment(ExperimentRegistry.Register(name="walls")(double))
    walls.allocate(pl.DataFrame({"x": range(ROWS)}), engine="inline")[1].result()
    ds = scythe.dataset("walls", "all", run="all", x="x")
    (folder / "pins.json").write_text(json.dumps(ds.pins))
    (folder / "rank.py").write_text(_RANK)
    whole = ds.batches(TOGETHER, seed=7)
    wanted = {(e, i): batch["x"].astype(int).tolist() for e in range(EPOCHS) for i, batch in enumerate(whole.at(e))}
    has_torch = importlib.util.find_spec("torch") is not None
    drawn: dict[tuple[int, int], list[int]] = {}
    place = (0, 0)
    while place[0] < EPOCHS:
        world, workers = chance.choice((1, 2, 4)), chance.choice((0, 1, 2, 4)) if has_torch else 0
        for old in [*folder.glob("seen*"), *folder.glob("state?.json")]:
            old.unlink()
        ranks = [started(folder, rank, world, workers) for rank in range(world)]
        wait_until(folder, world, chance.randint(1, 30))
        for process in ranks:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if chance.random() < 0.3:  # the experiment grows
            walls.allocate(pl.DataFrame({"x": [1000, 1001]}), "keep", engine="inline")[1].result()
        states = [json.loads((folder / f"state{rank}.json").read_text()) for rank in range(world)]
        state = min(states, key=lambda state: (state["epoch"], state["samples"]))  # ranks go on together
        (folder / "state.json").write_text(json.dumps(state))
        begun, place = place, (state["epoch"], state["samples"] // TOGETHER)
        seen = [{(e, s): rows for e, s, rows in lines(folder, rank)} for rank in range(world)]
        for at in seen[0]:
            if begun <= at < place:
                assert at not in drawn, "a step is drawn once"
                drawn[at] = [x for of_rank in seen for x in of_rank[at]]
    whole = {at: rows for at, rows in wanted.items() if len(rows) == TOGETHER}
    assert {at: rows for at, rows in drawn.items() if at in whole} == whole
    assert all(set(rows) <= set(wanted[at]) for at, rows in drawn.items()), (
        "what is left of an epoch goes to as many ranks as it can"
    )


def started(folder: Path, rank: int, world: int, workers: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "rank.py", *map(str, (rank, world, workers, TOGETHER, EPOCHS))]
    return subprocess.Popen(command, cwd=folder, start_new_session=True)


def wait_until(folder: Path, world: int, steps: int) -> None:
    """Returns when each rank has made so many steps, or all of them."""

    def is_there(rank: int) -> bool:
        state = folder / f"state{rank}.json"
        done = state.exists() and json.loads(state.read_text())["epoch"] == EPOCHS
        return state.exists() and (done or len(lines(folder, rank)) >= steps)

    wait_for(lambda: all(is_there(rank) for rank in range(world)), 120)
