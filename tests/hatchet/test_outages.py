"""Whatever comes and goes, the engine's database, its network, the bucket, a worker: runs heal by themselves.

The stand-in plays what an engine does then. `SCYTHE_FAULT_COMMAND` names a program that does it to a real one: it
is called with `postgres-stop`, `postgres-start`, `engine-kill`, `engine-start`, `engine-pause` or `engine-resume`.
`SCYTHE_OUTAGE_ROUNDS` says how many rounds, `SCYTHE_FAULT_SEED` with which seed they begin.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import polars as pl
import pytest

import scythe
from scythe.allocate import BaseExperiment
from scythe.registry import ExperimentRegistry
from scythe.scatter_gather import RecursionMap
from tests.cluster import REAL, Worker, descendants, engine_environment, unique, wait_for, wait_until_served
from tests.fault_proxy import FaultProxy, fault_proxy
from tests.hatchet.sites import Cluster, Site, calls, check, wait_for_calls
from tests.hatchet_standin import StandinEngine
from tests.s3_server import s3_server
from tests.tcp_proxy import TcpProxy, tcp_proxy

ROUNDS = int(os.environ.get("SCYTHE_OUTAGE_ROUNDS", "2"))
SEED = int(os.environ.get("SCYTHE_FAULT_SEED", "0"))
COMMAND = os.environ.get("SCYTHE_FAULT_COMMAND")
#: Two minutes after an outage everything goes on; a busy machine needs some more for the work itself.
PATIENCE = 240.0
_N = 60

standin_only = pytest.mark.skipif(REAL, reason="an option of the stand-in")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[StandinEngine, Site]]:
    """A stand-in of its own, for what befalls it befalls all, with one worker of two slots."""
    folder = tmp_path_factory.mktemp("outage")
    with StandinEngine(worker_loss_seconds=60.0) as standin:
        own = {"SCYTHE_STORAGE_ROOT": str(folder / "root"), "SCYTHE_CACHE_DIR": str(folder / "cache")}
        cluster = Cluster(folder, {**standin.env, **own})
        with cluster.entered():
            site = cluster.site("outage")
            with site.worker("--slots", "2"):
                ExperimentRegistry._experiments |= cluster.experiments
                site.served("obey")
                yield standin, site


@standin_only
def test_answers_that_the_engine_refuses_for_a_while_are_sent_again(engine: tuple[StandinEngine, Site]) -> None:
    """As where its database is away: the engine stays up and takes no token."""
    standin, site = engine
    scratch, specs = site.orders("waits", "waits", "fine", "raises")
    run, ref = site.allocate("obey", specs, chunk=1)
    wait_for_calls(scratch, 0, 1)

    standin.befall(refuse_seconds=4.0)
    (scratch / "gate").touch()
    ref.result(timeout=PATIENCE)

    check(run, good=[0, 1, 2], bad=[3])
    assert calls(scratch) == {0: 1, 1: 1, 2: 1, 3: 2}


@standin_only
def test_an_answer_that_the_engine_has_lost_is_given_again_after_a_short_limit_and_counts_once(
    engine: tuple[StandinEngine, Site],
) -> None:
    standin, site = engine
    scratch, specs = site.orders("fine", "waits", "fine", "gives a small frame")
    run, ref = site.allocate("obey", specs, chunk=1)
    wait_for(lambda: len(calls(scratch)) == 4)
    wait_for(lambda: collected(run) == 3)

    standin.befall(lost_answers=1)
    (scratch / "gate").touch()
    wait_for(lambda: not standin.befall()["lost_answers"])
    with pytest.raises(TimeoutError):
        ref.result(timeout=2.0)
    standin.befall(let_pass_seconds=80.0)
    ref.result(timeout=PATIENCE)

    check(run, good=[0, 1, 2, 3])
    assert calls(scratch)[1] == 2


@standin_only
def test_a_leaf_that_no_worker_was_handed_is_handed_out_again(engine: tuple[StandinEngine, Site]) -> None:
    standin, site = engine
    scratch, specs = site.orders("fine", "waits", "fine")
    standin.befall(lost_handovers=1)  # the root's: nobody has begun
    run, ref = site.allocate("obey", specs, chunk=1)
    wait_for(lambda: not standin.befall()["lost_handovers"])
    with pytest.raises(TimeoutError):
        ref.result(timeout=2.0)
    assert run.status == "allocated"

    standin.befall(let_pass_seconds=80.0)
    wait_for_calls(scratch, 1)
    (scratch / "gate").touch()
    ref.result(timeout=PATIENCE)

    check(run, good=[0, 1, 2])


@standin_only
@pytest.mark.parametrize("single", [False, True], ids=["a scatter node", "a leaf alone"])
def test_a_client_gets_the_result_whose_end_the_engine_never_hears_of(
    engine: tuple[StandinEngine, Site], single: bool
) -> None:
    standin, site = engine
    scratch, specs = site.orders("waits")
    run, ref = site.allocate("obey", specs[0] if single else specs, chunk=1)
    wait_for_calls(scratch, 0)
    (scratch / "gate").touch()
    if not single:
        wait_for(lambda: collected(run) == 1 or run.status == "finished")
    standin.befall(lost_answers=1)

    result = ref.result(timeout=PATIENCE)
    assert result.rows == 1
    standin.befall(let_pass_seconds=80.0)  # where it was lost, the root is run again, and finds that it is done
    wait_for(lambda: over(ref))
    standin.befall(lost_answers=0)

    assert scythe.open_run(run.experiment_id).result == result
    assert calls(scratch) == {0: 1}
    check(run, good=[0])


def collected(run: Any) -> int:
    from scythe.record.attempt_plan import progress_of

    return progress_of(run.objects, run.key, run.inputs).done


def over(ref: Any) -> bool:
    from scythe.engines.hatchet.connection import on_loop
    from scythe.engines.hatchet.fleet import is_over

    return on_loop(is_over(ref.hatchet.workflow_run_id)).result()


# --- rounds -----------------------------------------------------------------------------------------

MODULE = """
import time

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.registry import ExperimentRegistry


class In(ExperimentInputSpec):
    x: float


class Out(ExperimentOutputSpec):
    y: float


@ExperimentRegistry.Register(name="NAME", retries=0)
def nap(input_spec: In) -> Out:
    time.sleep(0.1)
    if input_spec.x % 10 == 3:
        raise ValueError(f"no {input_spec.x}")
    return Out(y=2 * input_spec.x)
"""


@dataclass
class Place:
    """A cluster whose parts come and go: an engine behind a network, a bucket behind another, two workers of each kind."""

    name: str
    module: Any
    engine: StandinEngine | None
    network: TcpProxy
    bucket: FaultProxy
    workers: list[Worker]

    @property
    def faults(self) -> list[str]:
        own = ["refused"] if self.engine is not None else []
        theirs = ["postgres away", "engine killed", "engine paused"] if REAL and COMMAND else []
        return ["network cut", "network still", "bucket away", "worker still", *own, *theirs * 2]

    def suffer(self, fault: str, rng: random.Random) -> None:
        """A fault, from its beginning to its end."""
        seconds = rng.uniform(1.0, 20.0 if REAL else 6.0)
        match fault:
            case "network cut":
                with ended(self.network.heal):
                    self.network.cut()
                    time.sleep(seconds)
            case "network still":
                with ended(self.network.heal):
                    self.network.stall()
                    time.sleep(seconds)
            case "bucket away":
                with ended(self.bucket.heal):
                    self.bucket.rule = lambda method, target: rng.choice(["503", "cut before", "lost answer"])
                    time.sleep(min(seconds, 10.0))
            case "worker still":
                worker = rng.choice(self.workers)
                pids = [worker.process.pid, *descendants(worker.process.pid)]
                with ended(lambda: signal_all(pids, signal.SIGCONT)):
                    signal_all(pids, signal.SIGSTOP)
                    time.sleep(seconds * (3 if REAL else 1))
            case "refused":
                assert self.engine is not None
                self.engine.befall(refuse_seconds=seconds)
            case "postgres away":
                with ended(lambda: control("postgres-start")):
                    control("postgres-stop")
                    time.sleep(seconds)
            case "engine killed":
                with ended(lambda: control("engine-start")):
                    control("engine-kill")
                    time.sleep(seconds)
            case _:
                with ended(lambda: control("engine-resume")):
                    control("engine-pause")
                    time.sleep(seconds)


@contextlib.contextmanager
def ended(end: Any) -> Iterator[None]:
    try:
        yield
    finally:
        end()


def control(what: str) -> None:
    assert COMMAND is not None
    subprocess.run([COMMAND, what], check=True, timeout=120)


def signal_all(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder, name = tmp_path_factory.mktemp("outages"), unique("doze")
    (folder / f"{name}.py").write_text(MODULE.replace("NAME", name))
    with contextlib.ExitStack() as stack:
        standin = None if REAL else stack.enter_context(StandinEngine(worker_loss_seconds=8.0))
        env = standin.env if standin is not None else stack.enter_context(engine_environment())
        network = stack.enter_context(tcp_proxy(grpc_port(env["HATCHET_CLIENT_TOKEN"])))
        server = stack.enter_context(s3_server())
        bucket = stack.enter_context(fault_proxy(server.port, lambda method, target: None))
        own = {
            **server.environment(AWS_ENDPOINT_URL=bucket.endpoint),
            "SCYTHE_STORAGE_BUCKET": server.new_bucket(),
            "SCYTHE_CACHE_DIR": str(folder / "cache"),
            "HATCHET_CLIENT_HOST_PORT": network.address,
        }
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for key, value in {**env, **own}.items():
            patch.setenv(key, value)
        patch.syspath_prepend(str(folder))
        kinds = [["--leaf-only", "--slots", "2"], ["--fan-only"]] * 2
        workers = [stack.enter_context(Worker(name, *options, env={}, cwd=folder)) for options in kinds]
        place = Place(name, __import__(name), standin, network, bucket, workers)
        wait_until_served(f"scythe_experiment_{name}", f"scythe_scatter_gather_{name}", workers=2, timeout=180)
        yield place


def grpc_port(token: str) -> int:
    claims = token.split(".")[1]
    held = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    return int(held["grpc_broadcast_address"].rpartition(":")[2])


@pytest.mark.timeout(60 + 2 * PATIENCE)
@pytest.mark.parametrize("seed", range(SEED, SEED + ROUNDS))
def test_whatever_comes_and_goes_every_input_ends_in_exactly_one_table(seed: int, place: Place) -> None:
    rng = random.Random(seed)
    wait_until_served(f"scythe_experiment_{place.name}", f"scythe_scatter_gather_{place.name}", timeout=PATIENCE)
    factor, depth = rng.choice([(0, 0), (0, 0), (3, 1), (2, 2)])
    specs = pl.DataFrame({"x": [float(i) for i in range(_N)]})
    run, ref = BaseExperiment(place.module.nap).allocate(
        specs,
        engine="hatchet",
        recursion_map=RecursionMap(factor=factor, max_depth=depth) if factor else None,
        chunk=rng.choice([None, 1, 4]),
    )
    for fault in rng.choices(place.faults, k=rng.choice([1, 1, 2])):
        time.sleep(rng.uniform(0.0, 3.0))  # the moment of the outage is what is random here
        place.suffer(fault, rng)
    result = ref.result(timeout=PATIENCE)

    assert (result.rows, result.errors) == (54, 6)
    good = [i for i in range(_N) if i % 10 != 3]
    of: dict[str, Any] = {"version": run.version, "run": run.key.folder}
    assert sorted(scythe.read(place.name, **of)["sort_index"].to_list()) == good
    assert sorted(scythe.read(place.name, table="errors", **of)["sort_index"].to_list()) == list(range(3, _N, 10))
    assert sorted(scythe.read(place.name, table="tasks", **of)["sort_index"].to_list()) == list(range(_N))
