"""The worker of a cluster: its settings, what it serves, and how it ends."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scythe.allocate import BaseExperiment
from scythe.cli import main
from scythe.errors import SettingsError
from scythe.record.attempts import latest_attempt
from scythe.registry import ExperimentRegistry
from scythe.settings import storage
from scythe.source import load_experiments
from scythe.worker import ScytheWorkerConfig, ScytheWorkerLabel, _Scatter, worker_config
from tests.cluster import (
    PATIENCE,
    Worker,
    command,
    descendants,
    engine_environment,
    unique,
    wait_for,
    wait_until_served,
)

MODULE = """
import time
from pathlib import Path

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.registry import ExperimentRegistry


class Order(ExperimentInputSpec):
    scratch: str = ""
    waits: bool = False


class Value(ExperimentOutputSpec):
    y: float


@ExperimentRegistry.Register(name="first_NAME")
def first(spec: Order) -> Value:
    if spec.scratch:
        with (Path(spec.scratch) / f"{spec.sort_index}.calls").open("a") as file:
            file.write("called\\n")
    while spec.waits and not (Path(spec.scratch) / "gate").exists():
        time.sleep(0.02)
    return Value(y=spec.sort_index)


@ExperimentRegistry.Register(name="second_NAME")
def second(spec: Order) -> Value:
    return Value(y=1)
"""

#: A worker loads for some seconds before it serves, on a busy machine for many.
LOADS_WITHIN_SECONDS = 180.0


# --- settings ---------------------------------------------------------------------------------------


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings of a worker in the environment."""
    for name in [n for n in os.environ if n.startswith("SCYTHE_WORKER_")]:
        monkeypatch.delenv(name)


def test_a_worker_serves_everything_unless_told_otherwise(bare: None) -> None:
    config = ScytheWorkerConfig()

    assert config.does_fan
    assert config.does_leaf
    assert config.durable_slots >= 100
    assert config.name
    assert config.labels == {"high_memory": "no", "high_cpu": "no", "has_gpu": "no"}


@pytest.mark.parametrize(("cores", "slots"), [(1, 1), (2, 2), (7, 7), (8, 7), (64, 63)])
def test_slots_are_the_cores_less_one_from_eight_on(
    bare: None, monkeypatch: pytest.MonkeyPatch, cores: int, slots: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)

    assert ScytheWorkerConfig().slots == slots


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("NAME", "gpu-box", "gpu-box"),
        ("SLOTS", "3", 3),
        ("DURABLE_SLOTS", "17", 17),
        ("HIGH_MEMORY", "true", True),
        ("HIGH_CPU", "1", True),
        ("HAS_GPU", "true", True),
        ("DOES_FAN", "false", False),
        ("DOES_LEAF", "0", False),
    ],
)
def test_each_setting_is_an_environment_variable(
    bare: None, monkeypatch: pytest.MonkeyPatch, name: str, text: str, value: object
) -> None:
    monkeypatch.setenv(f"SCYTHE_WORKER_{name}", text)

    assert getattr(worker_config(), name.lower()) == value


def test_what_is_given_goes_before_the_environment(bare: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCYTHE_WORKER_SLOTS", "3")

    assert worker_config(slots=5).slots == 5
    assert worker_config(slots=None).slots == 3


def test_a_machine_has_the_labels_that_experiments_ask_for(bare: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCYTHE_WORKER_HAS_GPU", "true")

    assert worker_config().labels[ScytheWorkerLabel.HAS_GPU] == "yes"
    assert {*worker_config().labels} == {*ScytheWorkerLabel}


@pytest.mark.parametrize(
    ("name", "text"),
    [("SLOTS", "0"), ("SLOTS", "many"), ("DURABLE_SLOTS", "-1"), ("HAS_GPU", "perhaps"), ("DOES_FAN", "2")],
)
def test_a_setting_that_makes_no_sense_is_named_with_its_value(
    bare: None, monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    monkeypatch.setenv(f"SCYTHE_WORKER_{name}", text)

    with pytest.raises(SettingsError, match=f"SCYTHE_WORKER_{name}='{text}'"):
        worker_config()


def test_a_worker_that_would_serve_nothing_is_refused(bare: None) -> None:
    with pytest.raises(SettingsError, match="serves nothing"):
        worker_config(does_fan=False, does_leaf=False).start()


# --- what is served ---------------------------------------------------------------------------------


@pytest.fixture
def module(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module of two experiments in the working folder."""
    name = unique("module")
    Path(f"{name}.py").write_text(MODULE.replace("NAME", name))
    before = [*sys.path]
    monkeypatch.setattr(ExperimentRegistry, "_experiments", {})
    yield name
    sys.path[:] = before
    sys.modules.pop(name, None)


@pytest.mark.parametrize("way", ["{}", "{}.py", "./{}.py"])
def test_a_module_or_a_file_gives_all_that_it_registers(module: str, way: str) -> None:
    assert load_experiments([way.format(module)]) is None
    assert {e.name for e in ExperimentRegistry.experiments()} == {f"first_{module}", f"second_{module}"}


def test_a_name_behind_a_colon_gives_that_experiment_alone(module: str) -> None:
    found = load_experiments([f"{module}:second"])

    assert found is not None
    assert [e.name for e in found] == [f"second_{module}"]


def call(*arguments: str) -> tuple[int, str]:
    """`scythe ...` in this process: exit code and what it says of an error."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(said):
        patch.setattr(sys, "argv", ["scythe", *arguments])
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0), said.getvalue()
    return 0, said.getvalue()


def test_a_module_that_is_not_there_is_one_sentence(root: Path) -> None:
    code, said = call("worker", "no_such_module")

    assert code == 1
    assert said.startswith("scythe: there is no module 'no_such_module' in ")
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("missing", ["no_such_file.py", "no/such/file.py"])
def test_a_file_that_is_not_there_is_one_sentence(root: Path, missing: str) -> None:
    code, said = call("worker", missing)

    assert (code, len(said.splitlines())) == (1, 1)
    assert Path(missing).stem in said


def test_a_name_that_a_module_does_not_have_is_one_sentence(module: str) -> None:
    assert call("worker", f"{module}:third") == (1, f"scythe: {module} has no 'third'\n")


def test_a_name_that_is_no_experiment_is_one_sentence(module: str) -> None:
    code, said = call("worker", f"{module}:Order")

    assert (code, len(said.splitlines())) == (1, 1)
    assert "Order" in said


def test_a_module_without_experiments_is_one_sentence(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = unique("empty")
    Path(f"{name}.py").write_text("x = 1\n")
    monkeypatch.setattr(ExperimentRegistry, "_experiments", {})
    monkeypatch.setattr(ExperimentRegistry, "_included", {})

    code, said = call("worker", name)

    assert (code, len(said.splitlines())) == (1, 1)
    assert "no experiment" in said


def test_an_import_error_inside_a_module_is_the_modules_own(root: Path) -> None:
    name = unique("broken")
    Path(f"{name}.py").write_text("import no_such_dependency\n")

    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        load_experiments([name])


def test_fan_only_and_leaf_only_exclude_each_other(module: str) -> None:
    code, said = call("worker", module, "--fan-only", "--leaf-only")

    assert code == 2
    assert "exclude each other" in said


# --- real workers -----------------------------------------------------------------------------------


@dataclass
class Place:
    folder: Path
    #: The module, and the end of the names of its experiments.
    name: str

    def worker(self, *options: str, module: str | None = None, **env: str) -> Worker:
        return Worker(module or self.name, *options, env=env, cwd=self.folder)

    def tasks(self, *kinds: str, experiment: str = "first") -> list[str]:
        return [f"scythe_{kind}_{experiment}_{self.name}" for kind in kinds or ("experiment", "scatter_gather")]

    def orders(self, n: int, *, waits: bool = False) -> tuple[Path, list[Any]]:
        scratch = self.folder / unique("scratch")
        scratch.mkdir()
        order = importlib.import_module(self.name).Order
        return scratch, [order(experiment_id="", sort_index=i, scratch=str(scratch), waits=waits) for i in range(n)]

    def allocate(self, specs: list[Any]) -> Any:
        return BaseExperiment(importlib.import_module(self.name).first).allocate(specs, engine="hatchet", chunk=1)


@pytest.fixture
def place(tmp_path: Path, root: Path, engine: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Place:
    for key, value in engine.items():
        monkeypatch.setenv(key, value)
    name = unique("served")
    (tmp_path / f"{name}.py").write_text(MODULE.replace("NAME", name))
    monkeypatch.syspath_prepend(str(tmp_path))
    return Place(tmp_path, name)


@pytest.fixture(scope="module")
def engine() -> Iterator[dict[str, str]]:
    with engine_environment() as env:
        yield env


def connected(name: str) -> dict[str, set[str]]:
    """The connected SDK workers that serve a task with this in its name, and all that they serve."""
    from scythe.engines.hatchet.connection import on_loop
    from scythe.engines.hatchet.fleet import active_workers

    # Workers of other tests may have the same name: those that serve this module come first, then their names.
    found = [(w.name, {a.split(":")[0] for a in w.actions or []}) for w in on_loop(active_workers()).result()]
    return {worker: tasks for worker, tasks in found if any(name in task for task in tasks)}


def scatter_process(worker: Worker) -> int | None:
    return next((pid for pid in descendants(worker.process.pid) if "scatter_main" in command(pid)), None)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_one_worker_is_two_to_the_engine_and_outlives_its_scatter_process_but_not_its_own_end(place: Place) -> None:
    with place.worker("--slots", "1", "--name", f"box-{place.name}") as worker:
        wait_until_served(*place.tasks(), timeout=LOADS_WITHIN_SECONDS)
        found = wait_for(lambda: both if len(both := connected(place.name)) == 2 else None)
        assert sorted(found) == [f"box-{place.name}-leaf", f"box-{place.name}-scatter"]
        leaf, scatter = (found[name] for name in sorted(found))
        assert leaf == {*place.tasks("experiment"), *place.tasks("experiment", experiment="second")}
        assert scatter == {*place.tasks("scatter_gather"), *place.tasks("scatter_gather", experiment="second")}
        wait_for(lambda: "1 function at once" in worker.output and "scatter nodes" in worker.output)

        scratch, specs = place.orders(3, waits=True)
        run, ref = place.allocate(specs)
        wait_for(lambda: list(scratch.glob("*.calls")))
        first = scatter_process(worker)
        assert first is not None
        os.kill(first, signal.SIGKILL)
        second = wait_for(lambda: pid if (pid := scatter_process(worker)) not in (None, first) else None)
        (scratch / "gate").touch()
        ref.result(timeout=LOADS_WITHIN_SECONDS)
        assert run.status == "finished"
        assert worker.process.poll() is None

        below = descendants(worker.process.pid)
        assert second in below
        worker.kill()
        for pid in below:
            wait_for(lambda pid=pid: not alive(pid))


def test_a_worker_that_is_told_to_stop_hands_its_work_to_another_and_ends_well(place: Place) -> None:
    scratch, specs = place.orders(2, waits=True)
    with place.worker("--slots", "1") as leaving:
        wait_until_served(*place.tasks(), timeout=LOADS_WITHIN_SECONDS)
        run, ref = place.allocate(specs)
        wait_for(lambda: list(scratch.glob("*.calls")))
        with place.worker("--slots", "1", module=f"{place.name}:first") as staying:
            wait_until_served(*place.tasks(), workers=2, timeout=LOADS_WITHIN_SECONDS)
            before = descendants(leaving.process.pid)

            assert leaving.stop(timeout=30) == 0
            assert "Traceback" not in leaving.output
            for pid in before:
                wait_for(lambda pid=pid: not alive(pid))
            last = latest_attempt(storage(), run.key)
            (scratch / "gate").touch()
            result = ref.result(timeout=PATIENCE)

            assert (result.rows, result.errors) == (2, 0)
            assert last is not None
            assert result.seconds >= last.worked > 0, "what was worked before the move counts"
            assert run.status == "finished"
            assert not connected(f"second_{place.name}")
            assert staying.stop(timeout=30) == 0


SCRIPT = """
from hatchet_sdk import Context, EmptyModel
import NAME
from scythe.engines.hatchet.connection import connect
from scythe.worker import ScytheWorkerConfig


@connect().task(name="extra_NAME")
def extra(given: EmptyModel, context: Context) -> dict[str, int]:
    return {"answer": 42}


if __name__ == "__main__":
    ScytheWorkerConfig(slots=1, does_fan=False).start(experiments=[NAME.second], additional_workflows=[extra])
"""


def test_a_script_serves_what_it_names_and_workflows_beside(place: Place) -> None:
    from scythe.engines.hatchet.connection import connect

    (place.folder / "serve.py").write_text(SCRIPT.replace("NAME", place.name))
    with Worker("serve.py", env={}, cwd=place.folder, command=(sys.executable,)) as worker:
        wait_until_served(*place.tasks("experiment", experiment="second"), timeout=LOADS_WITHIN_SECONDS)
        (tasks,) = wait_for(lambda: list(connected(place.name).values()))
        assert tasks == {*place.tasks("experiment", experiment="second"), f"extra_{place.name}"}

        extra = connect().stubs.task(name=f"extra_{place.name}")
        assert extra.run().model_dump() == {"answer": 42}
        assert worker.process.poll() is None


def test_scatter_nodes_are_served_again_after_a_machine_had_no_room_and_never_after_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[tuple[int, int]] = []
    started: list[int] = []
    ended = threading.Event()

    def start(*_: Any, **__: Any) -> Any:
        number = len(started)
        started.append(number)
        if number == 1:
            raise BlockingIOError("Resource temporarily unavailable")
        if number == 2:  # just now the worker is told to end
            scatter.tell()

        def signalled(sent: int) -> None:
            told.append((number, sent))
            if number == 2:
                ended.set()

        return SimpleNamespace(stdin=io.BytesIO(), wait=lambda *_: 0, send_signal=signalled)

    monkeypatch.setattr("scythe.worker.start_python", start)
    monkeypatch.setattr("scythe.worker._AGAIN_SECONDS", 0.01)
    scatter = _Scatter([], "w", 1)
    assert ended.wait(10)
    assert told[-1] == (2, signal.SIGTERM)
