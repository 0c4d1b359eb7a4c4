"""Whatever goes wrong on a cluster at whatever moment, on a real Slurm: every input ends exactly once.

`SCYTHE_SLURM_ROUNDS` says how many rounds. The first is the same each time and short; each other draws what happens, and says its seed
where it fails: `SCYTHE_SLURM_SEED` makes it the first.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import polars as pl
import pytest

import scythe
from scythe.allocate import BaseExperiment
from scythe.errors import NotFoundError, RunError
from scythe.runs.run import ExperimentRun
from tests.slurm.faults import begun, each_once, kill, lose_node, requeue, scancel, specs
from tests.slurm_server import Slurm, restarted, until

ROUNDS = int(os.environ.get("SCYTHE_SLURM_ROUNDS", "1"))
FIRST_SEED = int(os.environ.get("SCYTHE_SLURM_SEED", "7"))
_INPUTS = 200
_FAIL = [49, 99, 149, 199]
#: An input that exceeds a limit, and what the limit is.
_LARGE = 77
_LIMITS: dict[str, dict[str, object]] = {
    "none": {},
    "memory": {"mem": "450M"},
    "time": {"time": "2", "warn_seconds": 5},
}
_AWAY_SECONDS = 20.0
_GO = """
import json, sys
import polars as pl
import scythe
from station import station

if __name__ == "__main__":
    inputs, workers, options = pl.read_parquet(sys.argv[1]), int(sys.argv[2]), scythe.SlurmOptions(**json.loads(sys.argv[3]))
    _, ref = scythe.BaseExperiment(station).allocate(inputs, engine=options, workers=workers, max_errors=None)
    ref.result()
"""


@dataclass
class Login:
    """The user's own process, on the login node: it allocates a run and waits for it."""

    inputs: Path
    workers: int
    options: dict[str, object]
    process: subprocess.Popen[bytes] = field(init=False)

    def __enter__(self) -> Self:
        Path("go.py").write_text(_GO)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        command = [sys.executable, "go.py", str(self.inputs), str(self.workers), json.dumps(self.options)]
        with Path("login.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def run(self) -> ExperimentRun:
        """The run, as soon as it is stored; one whose allocation was killed is allocated again."""
        found: list[ExperimentRun] = []

        def is_stored() -> bool:
            with contextlib.suppress(NotFoundError):
                newest = scythe.open_run("station")
                if newest.status != "allocating":
                    found.append(newest)
                    return True
            if self.process.poll() is not None:
                self.start()
            return False

        until(is_stored, "a run")
        return found[0]


@dataclass(frozen=True)
class Round:
    """What the faults of a round happen to."""

    slurm: Slurm
    login: Login
    run: ExperimentRun
    drawn: random.Random

    def _job(self, *states: str) -> str:
        jobs = [line.split()[0] for line in self.slurm.queue(",".join(states))]
        assert jobs
        return self.drawn.choice(jobs)

    def _running(self) -> str:
        return self.slurm.ask("squeue", "--noheader", f"--jobs={self._job('RUNNING')}", "--format=%A").strip()

    def cancel_a_job(self) -> None:
        """An element or the gather job, whether it runs or waits."""
        scancel(self.slurm, self._job("RUNNING", "PENDING"))

    def kill_processes(self) -> None:
        kill(self.slurm, self._running())

    def requeue_a_job(self) -> None:
        requeue(self.slurm, self._running())

    def lose_a_node(self) -> None:
        lose_node(self.slurm, self._running())

    def stop_the_controller(self) -> None:
        self.slurm.controller[-1].terminate()
        self.slurm.controller[-1].wait()
        time.sleep(_AWAY_SECONDS)  # no wait for something: for so long it is away
        restarted(self.slurm)

    def kill_the_login(self) -> None:
        self.login.kill()

    def resume_twice(self) -> bool:
        """By two people at once, whether there is something to resume or not; whether one of them could."""
        refused: list[str] = []

        def resume() -> None:
            try:
                scythe.open_run(self.run.experiment_id).resume(max_errors=None)
            except RunError as error:
                refused.append(str(error))

        both = [threading.Thread(target=resume) for _ in range(2)]
        for one in both:
            one.start()
        for one in both:
            one.join()
        assert all("taken up by another process" in one or "is being worked on" in one for one in refused), refused
        return len(refused) < len(both)


Fault = Callable[[Round], object]
#: What happens to a job, which may have ended just before.
_TO_A_JOB: tuple[Fault, ...] = (Round.cancel_a_job, Round.kill_processes, Round.requeue_a_job, Round.lose_a_node)
_FAULTS: tuple[Fault, ...] = (*_TO_A_JOB, Round.stop_the_controller, Round.kill_the_login, Round.resume_twice)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", range(ROUNDS))
def test_every_input_ends_exactly_once(slurm: Slurm, station: BaseExperiment, tmp_path: Path, number: int) -> None:
    seed = random.randrange(2**32) if number else FIRST_SEED
    drawn = random.Random(seed)
    told, inputs = tmp_path / "told", tmp_path / "inputs.parquet"
    faults = sorted(
        [(drawn.randrange(1, 180), drawn.choice(_FAULTS)) for _ in range(drawn.choice([1, 2, 3]))], key=lambda f: f[0]
    )
    limit = drawn.choice(["none", "none", "memory", "time"])
    print(f"seed {seed}, limit {limit}", *(f"{least}: {fault.__name__}" for least, fault in faults), sep=", ")

    large = pl.col("x") == _LARGE
    specs(
        _INPUTS,
        tells=pl.lit(str(told)),
        fails=pl.col("x").is_in(_FAIL),
        megabytes=pl.when(large).then(600 if limit == "memory" else 0).otherwise(0),
        wait_for=pl.when(large).then(pl.lit(str(tmp_path / "never") if limit == "time" else "")).otherwise(pl.lit("")),
    ).write_parquet(inputs)
    with Login(inputs, drawn.choice([2, 4, 8]), _LIMITS[limit]) as login:
        if drawn.random() < 0.2:
            time.sleep(drawn.uniform(0.0, 4.0))  # no wait for something: a moment of its allocation
            login.kill()
        run = login.run()
        happens = Round(slurm, login, run, drawn)
        until(lambda: run.status != "allocated" or login.process.poll() is not None, "a submission")
        if run.status == "allocated":  # who was to submit it was killed
            until(happens.resume_twice, "a submission", 90)
        for least, fault in faults:
            until(
                lambda least=least: len(begun(told)) >= least or run.status in ("finished", "incomplete"), "inputs", 300
            )
            expected = (ProcessLookupError, AssertionError) if fault in _TO_A_JOB else ()
            with contextlib.suppress(*expected):
                fault(happens)
        for _ in range(4):
            try:
                run.wait(600)
                break
            except RunError:  # its gather job was lost: the user goes on with it, and a colleague, too
                until(slurm.empty, "an empty queue", 120)
                happens.resume_twice()
    each_once(run, _INPUTS)
    failed = scythe.read("station", run=run, table="errors")["sort_index"].to_list()
    assert failed == sorted([*_FAIL, *([_LARGE] if limit != "none" else [])]), seed
    until(slurm.empty, "an empty queue", 120)
