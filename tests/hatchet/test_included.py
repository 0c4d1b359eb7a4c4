"""Tasks and workflows of Hatchet's own, included as experiments; and Hatchet's embedded engine: programs of users, run as such."""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl
import pytest
from hatchet_sdk import BulkCancelReplayOpts
from hatchet_sdk.clients.rest.models.v1_task_status import V1TaskStatus

import scythe
from scythe.allocate import BaseExperiment, ExperimentRun
from scythe.engines.engine import RunRef
from scythe.engines.hatchet.connection import _client, connect
from scythe.errors import AllocationError, RunCancelled, RunError
from scythe.record.attempts import latest_attempt
from tests.cluster import (
    PATIENCE,
    REAL,
    Worker,
    command,
    descendants,
    engine_environment,
    unique,
    wait_for,
    wait_until_served,
)

N = 20

INCLUDED = f"""
import json
import os
import sys
import time
from datetime import timedelta
from pathlib import Path

from hatchet_sdk import Context, Hatchet
from pydantic import BaseModel, computed_field

import scythe
from scythe.allocate import BaseExperiment
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.registry import ExperimentRegistry
from scythe.scatter_gather import RecursionMap

hatchet = Hatchet()


class Order(ExperimentInputSpec):
    x: float
    scratch: str = ""


class Value(ExperimentOutputSpec):
    y: float
    z: float | None = None

    @computed_field  # which is in what the task returns
    @property
    def twice(self) -> float:
        return 2 * self.y


class Wall(BaseModel):
    u: float | None = 2.0


class Odd(ExperimentInputSpec):
    x: float | None
    how: str
    n: int = 0
    wall: Wall = Wall()
    data: bytes = b""


class Told(ExperimentOutputSpec):
    y: float | None = None
    seen: str = ""
    m: int = 0
    out: Wall = Wall()


class Unheard(BaseException):
    pass


@ExperimentRegistry.Include
@hatchet.task(name="odd_NAME", input_validator=Odd, execution_timeout=timedelta(minutes=5))
def odd(spec: Odd, context: Context) -> Told:
    match spec.how:
        case "exits":
            sys.exit("no licence")
        case "nothing":
            return None
        case "empty":
            return {{}}
        case "more":
            return {{"y": 1.0, "yy": 2.0}}
        case "large":
            return {{"y": 1.0, "text": "x" * 5_000_000}}
        case "interrupts":
            raise KeyboardInterrupt
        case "unheard":
            raise Unheard("of\\0it")
        case "stops":
            raise StopIteration
        case "asserts":
            assert spec.x is None
    return Told(y=spec.x, seen=repr((spec.n, spec.wall.u)), m=spec.n, out=spec.wall)


@ExperimentRegistry.Include
@hatchet.task(name="late_NAME", input_validator=Odd, execution_timeout=timedelta(minutes=5))
async def late(spec: Odd, context: Context) -> Told:
    if spec.how == "exits":
        sys.exit(3)
    if spec.how == "nothing":
        raise Unheard("of")
    return Told(y=spec.x)


@ExperimentRegistry.Include
@hatchet.task(name="double_NAME", input_validator=Order, execution_timeout=timedelta(minutes=5))
def double(order: Order, context: Context) -> Value:
    if order.x == 3:
        raise ValueError("three is too many")
    if order.x == -1:
        os._exit(9)
    if order.scratch:
        called = Path(order.scratch) / f"{{order.sort_index}}.called"
        called.with_suffix(".writing").write_text(context.workflow_run_id)
        called.with_suffix(".writing").rename(called)
        while order.x >= {N // 2} and not (Path(order.scratch) / "gate").exists():
            time.sleep(0.05)
    return Value(y=2 * order.x)


flow = hatchet.workflow(name="flow_NAME", input_validator=Order)


@flow.task()
def first(order: Order, context: Context) -> dict[str, float]:
    return {{"a": order.x}}


@flow.task(parents=[first])
def second(order: Order, context: Context) -> dict[str, float]:
    return {{"b": context.task_output(first)["a"] + 1}}


ExperimentRegistry.Include(flow)

if __name__ == "__main__":
    specs = [Order(experiment_id="", sort_index=i, x=i) for i in range({N})]
    run, ref = BaseExperiment(double).allocate(specs, recursion_map=RecursionMap(factor=2, max_depth=1))
    result = ref.result(timeout={PATIENCE})
    rows, errors = scythe.read("double_NAME"), scythe.read("double_NAME", table="errors")
    flow_run, flow_ref = BaseExperiment(flow).allocate(specs[5])
    print(json.dumps({{
        "counts": [result.rows, result.errors],
        "status": run.status,
        "rows": rows.sort("sort_index").select("sort_index", "x", "y").rows(),
        "errors": errors.select("sort_index", "exception_type", "exception_message").rows(),
        "traceback": errors["traceback"][0],
        "flow": flow_ref.result(timeout={PATIENCE}),
        "flow_id": [flow_run.workflow_run_id, flow_ref.workflow_run_id],
    }}))
"""


def run_program(path: Path, env: dict[str, str]) -> Any:
    """What a user's program prints as its last line, as JSON."""
    done = subprocess.run(
        [sys.executable, path.name], cwd=path.parent, env={**os.environ, **env},
        capture_output=True, text=True, timeout=2 * PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def place(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Storage of its own, for this process and for those that it starts."""
    for name in ("SCYTHE_STORAGE_BUCKET", "SCYTHE_STORAGE_BUCKET_PREFIX", "SCYTHE_CATALOG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(root))
    monkeypatch.setenv("SCYTHE_ENGINE", "hatchet")
    return tmp_path


def test_an_included_task_runs_for_each_input_and_an_included_workflow_gives_its_own_result(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = unique("included")
    program = place / f"{name}.py"
    program.write_text(INCLUDED.replace("NAME", name))
    with engine_environment() as env:
        for key, value in env.items():
            monkeypatch.setenv(key, value)
        with Worker(name, "--slots", "2", env={}, cwd=place):
            wait_until_served(f"double_{name}", f"flow_{name}", f"scythe_scatter_gather_double_{name}")
            said = run_program(program, {})

    assert said["counts"] == [N - 1, 1]
    assert said["status"] == "finished"
    assert said["rows"] == [[i, i, 2 * i] for i in range(N) if i != 3]
    ((failed, kind, message),) = said["errors"]
    assert (kind, message) == ("ValueError", "three is too many")
    assert "raise ValueError" in said["traceback"]
    assert failed == 3
    assert said["flow"] == {"first": {"a": 5}, "second": {"b": 6}}
    recorded, told = said["flow_id"]
    assert recorded
    assert recorded == told


@pytest.mark.parametrize("namespace", ["", "lab"])
def test_what_an_included_task_does_is_told_by_name_and_its_worker_goes_on(
    place: Path, monkeypatch: pytest.MonkeyPatch, namespace: str
) -> None:
    name = unique("included")
    (place / f"{name}.py").write_text(INCLUDED.replace("NAME", name))
    monkeypatch.syspath_prepend(str(place))
    hows = ["exits", "nothing", "empty", "more", "large", "interrupts", "unheard", "stops", "asserts", "good"]
    with engine_environment() as env:
        for key, value in {**env, "HATCHET_CLIENT_NAMESPACE": namespace}.items():
            monkeypatch.setenv(key, value)
        _client.cache_clear()
        with Worker(name, "--slots", "2", env={}, cwd=place) as worker:
            wait_until_served(f"odd_{name}", f"late_{name}", f"scythe_scatter_gather_odd_{name}")
            module = importlib.import_module(name)
            wall, odd = module.Wall, module.Odd
            specs = [odd(x=1.0, how=how) for how in hows]
            numbers = [
                odd(x=math.nan, how="", n=2**53 + 1, wall=wall(u=math.inf)),
                odd(x=math.inf, how="", n=-(2**63), wall=wall(u=math.nan)),
                odd(x=-0.0, how="", n=2**63 - 1, wall=wall(u=-math.inf)),
                odd(x=None, how="", wall=wall(u=None)),
            ]
            unsent = [
                odd(x=1.0, how="a\0b"),
                odd(x=1.0, how="", data=b"\xff"),
                odd(x=1.0, how="", more=2**60),
                odd(x=1.0, how="x" * 5_000_000),
            ]
            asked = [*specs, *numbers, *unsent]
            result = BaseExperiment(module.odd).allocate(asked, max_errors=None)[1].result(timeout=PATIENCE)
            late = BaseExperiment(module.late).allocate(specs[:2], max_errors=None)[1].result(timeout=PATIENCE)
            assert worker.process.poll() is None
    _client.cache_clear()

    assert (result.rows, result.errors, late.rows, late.errors) == (5, 13, 0, 2)
    rows = scythe.read(f"odd_{name}").sort("sort_index")
    assert rows["y"].cast(pl.String).to_list() == ["1.0", "NaN", "inf", "-0.0", None]
    assert rows["m"].to_list() == [0, 2**53 + 1, -(2**63), 2**63 - 1, 0]
    assert rows["seen"].to_list() == [repr((spec.n, spec.wall.u)) for spec in (specs[-1], *numbers)]
    assert rows["out"].struct.field("u").cast(pl.String).to_list() == ["2.0", "inf", "NaN", "-inf", None]
    errors = scythe.read(f"odd_{name}", table="errors").sort("sort_index")
    kinds = [kind.rpartition(".")[2] for kind in errors["exception_type"]]
    assert kinds == [
        "SystemExit", "OutputError", "OutputError", "ValidationError", "OutputTooLarge", "KeyboardInterrupt", "Unheard", "StopIteration",
        "AssertionError", "Unsent", "Unsent", "Unsent", "Unsent",
    ]  # fmt: skip
    told = errors["exception_message"].to_list()
    assert told[0] == "no licence"
    assert told[1] == told[2] == f"odd_{name} returned nothing, where Told is due"
    assert "yy\n  Extra inputs are not permitted" in told[3]
    assert told[4].startswith(f"odd_{name} returned 4.8 MiB, and a task of Hatchet's can return 4.0")
    assert [told[i] for i in (6, 8)] == ["of\\0it", "(without a message)"]
    assert "holds a text with a null character" in told[9]
    assert "utf-8" in told[10]
    assert "more has a number that JSON has not" in told[11]
    assert "the input has 4.8 MiB, and a task of Hatchet's takes 4.0" in told[12]


@dataclass
class Included:
    folder: Path
    module: ModuleType
    worker: Worker

    def allocate(self) -> tuple[Path, ExperimentRun, RunRef]:
        """A run whose second half waits at a gate."""
        scratch = self.folder / unique("scratch")
        scratch.mkdir()
        order = self.module.Order
        orders = [order(experiment_id="", sort_index=i, x=i, scratch=str(scratch)) for i in range(N)]
        run, ref = BaseExperiment(self.module.double).allocate(orders)
        wait_for(lambda: (scratch / f"{N // 2}.called").exists())
        return scratch, run, ref


@pytest.fixture
def included(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Included]:
    name = unique("included")
    (place / f"{name}.py").write_text(INCLUDED.replace("NAME", name))
    monkeypatch.syspath_prepend(str(place))
    with engine_environment() as env:
        for key, value in env.items():
            monkeypatch.setenv(key, value)
        with Worker(name, "--slots", "2", env={}, cwd=place) as worker:
            wait_until_served(f"double_{name}", f"scythe_scatter_gather_double_{name}")
            yield Included(place, importlib.import_module(name), worker)


def test_an_included_task_outlives_its_scatter_node_and_is_cancelled_and_resumed(included: Included) -> None:
    good = [i for i in range(N) if i != 3]

    def check(run: ExperimentRun) -> None:
        shown: dict[str, Any] = {"run": run.key.folder, "version": run.version}
        assert sorted(scythe.read(run.experiment, **shown)["sort_index"].to_list()) == good
        errors = scythe.read(run.experiment, table="errors", **shown)
        assert errors["sort_index"].to_list() == [3]
        assert "three is too many" in errors["exception_message"][0]

    scratch, run, ref = included.allocate()
    shown: dict[str, Any] = {"run": run.key.folder, "version": run.version}
    wait_for(lambda: scythe.read(run.experiment, **shown).height == N // 2 - 1)  # a first part is written
    os.kill(next(p for p in descendants(included.worker.process.pid) if "scatter_main" in command(p)), signal.SIGKILL)
    wait_for(lambda: not latest_attempt(run.objects, run.key).alive)  # pyright: ignore[reportOptionalMemberAccess]
    (scratch / "gate").touch()
    ref.result(timeout=PATIENCE)
    check(run)

    scratch, run, ref = included.allocate()
    run.cancel()
    with pytest.raises(RunCancelled):
        ref.result(timeout=PATIENCE)
    (scratch / "gate").touch()
    with pytest.raises(AllocationError, match="runs with engine='hatchet' alone"):
        run.resume(engine="local")
    run.resume().result(timeout=PATIENCE)
    check(run)


def test_inputs_that_hatchet_cancels_keep_no_other_from_its_end_and_are_run_by_a_resume(included: Included) -> None:
    scratch, run, ref = included.allocate()
    child = (scratch / f"{N // 2}.called").read_text()
    connect().runs.bulk_cancel(BulkCancelReplayOpts(ids=[child]))
    wait_for(lambda: connect().runs.get_status(child) == V1TaskStatus.CANCELLED)
    (scratch / "gate").touch()

    with pytest.raises(
        RunError, match=r"1 of the inputs of double_.* came to nothing, the first because .*scythe resume"
    ):
        ref.result(timeout=PATIENCE)

    assert scythe.read(run.experiment, run=run.key.folder)["x"].to_list() == [
        i for i in range(N) if i not in (3, N // 2)
    ]
    assert run.resume().result(timeout=PATIENCE).rows == N - 1


@pytest.mark.skipif(REAL, reason="a real engine moves a task ten times before it gives it up")
def test_an_input_that_takes_down_each_worker_of_an_included_task_costs_itself_alone(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = unique("included")
    (place / f"{name}.py").write_text(INCLUDED.replace("NAME", name))
    monkeypatch.syspath_prepend(str(place))
    with engine_environment(moves=1) as env, contextlib.ExitStack() as workers:
        for key, value in env.items():
            monkeypatch.setenv(key, value)

        def start() -> Worker:
            return workers.enter_context(Worker(name, "--leaf-only", "--slots", "1", env={}, cwd=place))

        workers.enter_context(Worker(name, "--fan-only", env={}, cwd=place))
        leaves = [start()]
        wait_until_served(f"double_{name}", f"scythe_scatter_gather_double_{name}")
        module = importlib.import_module(name)
        run, _ = BaseExperiment(module.double).allocate([module.Order(x=x) for x in (-1, 1, 2)], max_errors=None)

        def over() -> bool:
            if leaves[-1].process.poll() is not None:
                leaves.append(start())
            return run.result is not None

        wait_for(over)

    assert scythe.read(f"double_{name}")["y"].to_list() == [2.0, 4.0]
    (error,) = scythe.read(f"double_{name}", table="errors").to_dicts()
    assert error["exception_type"] == "scythe.errors.WorkerCrashed"
    assert error["exception_message"].startswith("each worker that had it was lost")


EMBEDDED = """
import json

import scythe
from scythe.allocate import BaseExperiment
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.registry import ExperimentRegistry


class Order(ExperimentInputSpec):
    x: float


class Value(ExperimentOutputSpec):
    y: float


@ExperimentRegistry.Register(name="NAME")
def square(order: Order) -> Value:
    return Value(y=order.x**2)


CELL = '''
@ExperimentRegistry.Register(name="NAME")
def square(order: Order) -> Value:
    return Value(y=-order.x)
'''

if __name__ == "__main__":
    run, ref = BaseExperiment(square).allocate([Order(experiment_id="", sort_index=i, x=i) for i in range(5)])
    result = ref.result(timeout=180)
    exec(compile(CELL, "<cell>", "exec"))  # a notebook's cell is edited, and run once more
    BaseExperiment(square).allocate([Order(experiment_id="", sort_index=0, x=7)])[1].result(timeout=180)
    assert scythe.read("NAME")["y"].to_list() == [-7], "the new function was called"
    print(json.dumps([result.rows, scythe.read("NAME", "v1.0.0").sort("sort_index")["y"].to_list()]))
"""

#: In place of the engine that the SDK downloads: it leads to the engine of the test, by the file that the SDK waits for.
SIDECAR = """#!{python}
import base64, json, os, sys

token = os.environ["ENGINE_OF_THE_TEST"]
claims = token.split(".")[1]
held = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
handshake = {{
    "token": token,
    "tenant_id": held["sub"],
    "grpc_address": held["grpc_broadcast_address"],
    "api_url": held["server_url"],
}}
with open(sys.argv[sys.argv.index("-handshake-file") + 1], "w") as file:
    json.dump(handshake, file)
sys.stdin.read()
"""


@pytest.mark.skipif(REAL, reason="a token in the environment goes before the embedded engine")
def test_the_embedded_engine_runs_a_script_with_no_worker_started_by_hand(place: Path) -> None:
    name = unique("square")
    program, sidecar = place / f"{name}.py", place / "sidecar"
    program.write_text(EMBEDDED.replace("NAME", name))
    sidecar.write_text(SIDECAR.format(python=sys.executable))
    sidecar.chmod(0o755)
    with engine_environment() as env:
        said = run_program(
            program,
            {
                "SCYTHE_HATCHET_EMBEDDED": "true",
                "HATCHET_CLIENT_EMBEDDED_BINARY_PATH": str(sidecar),
                "ENGINE_OF_THE_TEST": env["HATCHET_CLIENT_TOKEN"],
                **{k: v for k, v in env.items() if k != "HATCHET_CLIENT_TOKEN"},
            },
        )

    assert said == [5, [0, 1, 4, 9, 16]]
