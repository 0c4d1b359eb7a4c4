"""What `allocate` gives back while a run goes on behind it, and what drives a worker's pool: threads that are held."""

from __future__ import annotations

import ast
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import cloudpickle
import pytest

import scythe
from scythe.allocate import BaseExperiment
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.define.code import Code
from scythe.engines.pool.job import pool_job
from scythe.engines.pool.server import Prepared, Server
from scythe.errors import RunError, Superseded
from scythe.gather.payload import Payloads
from scythe.record.plan import RunPlan
from scythe.registry import ExperimentRegistry

cloudpickle.register_pickle_by_value(sys.modules[__name__])

REPOSITORY = Path(scythe.__file__).resolve().parents[1]


class Step(ExperimentInputSpec):
    x: int
    gate: str


class Height(ExperimentOutputSpec):
    y: int


@ExperimentRegistry.Register(name="waits_at_a_gate")
def climb(spec: Step) -> Height:
    while not Path(spec.gate).exists():
        time.sleep(0.01)
    return Height(y=spec.x)


def test_the_reference_of_a_background_run_is_joined_and_shown_like_a_thread(root: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    experiment = BaseExperiment("waits_at_a_gate")
    ExperimentRegistry.Register(name="waits_at_a_gate")(climb)
    specs = [Step(experiment_id="", sort_index=0, x=1, gate=str(gate))]

    _, ref = experiment.allocate(specs, engine="local", workers=1)

    assert ref.is_alive()
    assert repr(ref)
    ref.join(timeout=0.05)
    assert ref.is_alive()
    gate.touch()
    ref.join()
    assert not ref.is_alive()
    assert ref.result().rows == 1
    assert all(repr(thread) for thread in threading.enumerate())


def test_a_reference_to_a_run_that_is_over_is_joined_at_once(root: Path, tmp_path: Path) -> None:
    ExperimentRegistry.Register(name="waits_at_a_gate")(climb)
    specs = [Step(experiment_id="", sort_index=0, x=1, gate=str(tmp_path))]

    _, ref = BaseExperiment("waits_at_a_gate").allocate(specs, engine="inline")

    ref.join(5)
    assert not ref.is_alive()


def test_a_caller_that_was_overtaken_while_it_stood_still_says_so_and_ends(root: Path, tmp_path: Path) -> None:
    """A process that was suspended for a minute finds the mark of the one that went on with its run."""
    ExperimentRegistry.Register(name="waits_at_a_gate")(climb)
    specs = [Step(experiment_id="", sort_index=i, x=i, gate=str(tmp_path / "gate")) for i in range(4)]
    run, ref = BaseExperiment("waits_at_a_gate").allocate(specs, engine="local", workers=1)
    first = run.key.attempts + "/000001.json"

    run.objects.write(
        run.key.attempts + "/000002.json", run.objects.read(first).replace(b"scythe-heart", b"another-heart")
    )

    with pytest.raises(Superseded, match="taken over by another process"):
        ref.result(timeout=60)
    assert not ref.is_alive()
    assert not run.objects.exists(run.key.result)


def test_no_class_of_ours_inherits_private_names_of_a_thread() -> None:
    """Python's Thread has private methods, other ones in each release: a subclass hides them, or is hidden by them."""
    found = [
        f"{path}: {node.name}"
        for folder in ("scythe", "catalog", "tests")
        for path in sorted((REPOSITORY / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base).endswith("Thread") for base in node.bases)
    ]
    assert found == []


def test_a_server_whose_thread_has_died_tells_every_task_and_its_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    told = threading.Event()
    server = Server(1, on_failure=told.set)
    monkeypatch.setattr(server, "_handle", lambda event: exec("raise TypeError('no such handle')"))
    monkeypatch.setattr(server._pool, "poll", lambda *_: [object()])

    assert told.wait(30)
    futures: list[Future[object]] = [server.submit(None, range(3), lambda _: None).future for _ in range(2)]  # type: ignore[arg-type, misc]

    for future in futures:
        with pytest.raises(RunError, match=r"(?s)can run nothing any more.*no such handle"):
            future.result(timeout=10)
    server.close()


def test_the_servers_thread_runs_on_every_python() -> None:
    server = Server(1, on_failure=lambda: None)
    server.close()
    assert not server._thread.is_alive()


def test_a_task_that_is_to_be_alone_has_nothing_beside_it_on_its_server(root: Path, tmp_path: Path) -> None:
    ExperimentRegistry.Register(name="waits_at_a_gate")(climb)
    gates = [tmp_path / f"gate{i}" for i in range(4)]
    for gate in gates:
        gate.touch()
    specs = [Step(experiment_id="", sort_index=i, x=i, gate=str(gate)) for i, gate in enumerate(gates)]
    run, _ = BaseExperiment("waits_at_a_gate").allocate(specs, engine="inline")
    plan, experiment = RunPlan.load(run.objects, run.key), ExperimentRegistry._experiments["waits_at_a_gate"]
    prepared = Prepared(plan, experiment, pool_job(plan, experiment, Code(None), "again"), Payloads(plan, "again"))
    for gate in gates:
        gate.unlink()
    alone, server = threading.Event(), Server(2, on_failure=lambda: None)

    before = [server.submit(prepared, range(i, i + 1), lambda _: None) for i in (0, 1)]
    lone = server.submit(prepared, range(2, 3), lambda _: None, alone=alone.set)
    behind = server.submit(prepared, range(3, 4), lambda _: None)
    gates[0].touch()
    gates[3].touch()
    assert before[0].future.result(timeout=60)
    assert not alone.is_set()
    gates[1].touch()
    assert alone.wait(60)
    assert before[1].future.done()
    assert not behind.future.done()
    gates[2].touch()

    assert lone.future.result(timeout=60)
    assert behind.future.result(timeout=60)

    gates[2].unlink()
    begun = threading.Event()
    under_way = server.submit(prepared, range(2, 3), lambda _: None)
    given_up = server.submit(prepared, range(3, 4), lambda _: None, alone=begun.set)
    assert given_up.future.cancel()
    gates[2].touch()
    assert under_way.future.result(timeout=60)
    assert server.submit(prepared, range(1), lambda _: None).future.result(timeout=60)
    assert not begun.is_set()
    server.close()
