"""Tasks and workflows of Hatchet's own, included as experiments; and Hatchet's embedded engine: programs of users, run as such."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import PATIENCE, REAL, Worker, engine_environment, unique, wait_until_served

N = 12

INCLUDED = f"""
import json
from datetime import timedelta

from hatchet_sdk import Context, Hatchet

import scythe
from scythe.allocate import BaseExperiment
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.registry import ExperimentRegistry

hatchet = Hatchet()


class Order(ExperimentInputSpec):
    x: float


class Value(ExperimentOutputSpec):
    y: float


@ExperimentRegistry.Include
@hatchet.task(name="double_NAME", input_validator=Order, execution_timeout=timedelta(minutes=5))
def double(order: Order, context: Context) -> Value:
    if order.x == 3:
        raise ValueError("three is too many")
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
    run, ref = BaseExperiment(double).allocate(specs)
    result = ref.result(timeout={PATIENCE})
    rows, errors = scythe.read("double_NAME"), scythe.read("double_NAME", table="errors")
    flow_run, flow_ref = BaseExperiment(flow).allocate(specs[5])
    print(json.dumps({{
        "counts": [result.rows, result.errors],
        "status": run.status,
        "rows": rows.sort("sort_index").select("sort_index", "x", "y").rows(),
        "errors": errors.select("sort_index", "exception_message").rows(),
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
    ((failed, message),) = said["errors"]
    assert failed == 3
    assert "three is too many" in message
    assert said["flow"] == {"first": {"a": 5}, "second": {"b": 6}}
    recorded, told = said["flow_id"]
    assert recorded
    assert recorded == told


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


if __name__ == "__main__":
    run, ref = BaseExperiment(square).allocate([Order(experiment_id="", sort_index=i, x=i) for i in range(5)])
    result = ref.result(timeout=180)
    print(json.dumps([result.rows, scythe.read("NAME").sort("sort_index")["y"].to_list()]))
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
