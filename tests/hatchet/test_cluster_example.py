"""examples/cluster: its scripts run a job on workers started as its compose file says; its settings belong together.

In place of the containers: the stand-in engine (or the one that HATCHET_CLIENT_TOKEN names) and moto's S3 server.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from tests.cluster import PATIENCE, Worker, engine_environment, unique, wait_until_served
from tests.s3_server import S3Server

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "cluster"
COMPOSE = yaml.safe_load((EXAMPLE / "compose.yml").read_text(encoding="utf-8"))
SETTINGS = dict(
    line.split("=", 1)
    for line in (EXAMPLE / ".env.example").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
)
N = 30


@pytest.fixture
def folder(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the example, with its workers, in the environment that its README sets up."""
    folder = tmp_path / "cluster"
    shutil.copytree(EXAMPLE, folder)
    with engine_environment() as engine:
        given = {
            **s3.environment(AWS_DEFAULT_REGION="us-east-1"), **engine, "SCYTHE_STORAGE_BUCKET": unique("walls").replace("_", "-"),
        }  # fmt: skip
        for name in ("SCYTHE_STORAGE_BUCKET_PREFIX", "SCYTHE_STORAGE_ROOT", "SCYTHE_ENGINE", "SCYTHE_CATALOG"):
            monkeypatch.delenv(name, raising=False)
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        subprocess.run([sys.executable, "make_bucket.py"], cwd=folder, check=True, timeout=PATIENCE)
        fan, leaf = (shlex.split(COMPOSE["services"][name]["command"]) for name in ("fan", "leaf"))
        assert fan.pop(0) == leaf.pop(0) == "worker"
        with (
            Worker(*fan, env={}, cwd=folder),
            Worker(*leaf, env={"SCYTHE_WORKER_SLOTS": "2"}, cwd=folder),
        ):
            wait_until_served("scythe_scatter_gather_wall_response", "scythe_experiment_wall_response")
            yield folder


def test_the_job_runs_on_the_workers_and_its_results_are_those_of_iso_13786(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "allocate.py", "--n", str(N)],
        cwd=folder, capture_output=True, text=True, timeout=2 * PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"{N} rows, 0 errors" in done.stdout

    import scythe

    # Of two slots; more where one was replaced.
    workers = scythe.read("wall_response", table="tasks")["worker"].n_unique()
    assert f"computed by {workers} processes on 1 machines" in done.stdout
    assert workers >= 2

    walls = scythe.read("wall_response")
    assert walls.height == N
    expected = [iso_13786(wall) for wall in walls.iter_rows(named=True)]
    assert walls["u_value"].to_list() == pytest.approx([u for u, _, _ in expected])
    assert walls["decrement_factor"].to_list() == pytest.approx([f for _, f, _ in expected], abs=2e-3)
    # The lag of a wave that hardly comes through is worth little.
    through = [f > 0.01 for _, f, _ in expected]
    lags = pl.Series([lag for _, _, lag in expected])
    assert walls["time_lag"].filter(through).to_list() == pytest.approx(lags.filter(through).to_list(), abs=0.1)


def iso_13786(wall: dict[str, float]) -> tuple[float, float, float]:
    """U-value, decrement factor and time lag by the heat transfer matrices of the standard."""
    day, indoors, outdoors = 86_400.0, 0.13, 0.04
    diffusivity = wall["conductivity"] / (wall["density"] * wall["heat_capacity"])
    wave = (1 + 1j) * np.sqrt(np.pi / (day * diffusivity))
    cosh, sinh = np.cosh(wave * wall["thickness"]), np.sinh(wave * wall["thickness"])
    layer = np.array([[cosh, -sinh / (wall["conductivity"] * wave)], [-sinh * wall["conductivity"] * wave, cosh]])
    surfaces = [np.array([[1, -r], [0, 1]]) for r in (outdoors, indoors)]
    transmittance = -1 / (surfaces[0] @ layer @ surfaces[1])[0, 1]
    u_value = 1 / (indoors + wall["thickness"] / wall["conductivity"] + outdoors)
    lag = -np.angle(transmittance) / (2 * np.pi) * 24
    return u_value, abs(transmittance) / u_value, float(lag % 24)


def test_the_compose_file_asks_for_the_settings_that_are_in_the_example_and_for_no_others() -> None:
    text = (EXAMPLE / "compose.yml").read_text(encoding="utf-8")
    asked = set(re.findall(r"\$\{(\w+)", text)) | {k for k, v in COMPOSE["x-environment"].items() if v is None}
    assert asked - {"SCYTHE_WORKER_SLOTS"} == set(SETTINGS) - {"AWS_ENDPOINT_URL"}


def test_services_depend_on_services_that_are_there_and_whose_health_is_known() -> None:
    services = COMPOSE["services"]
    for name, service in services.items():
        needed = service.get("depends_on", {})
        for other in needed:
            assert other in services, name
            if isinstance(needed, dict) and needed[other]["condition"] == "service_healthy":
                assert "healthcheck" in services[other], f"{name} waits for the health of {other}"
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in COMPOSE["volumes"]
