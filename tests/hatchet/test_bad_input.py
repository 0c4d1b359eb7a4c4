"""Whatever is wrong with an engine, its token or its workers is a clear error where the user is looking, within seconds."""

from __future__ import annotations

import os
import py_compile
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import scythe
from scythe.allocate import BaseExperiment
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.define.code import read_code
from scythe.errors import AllocationError, RunError, ScytheError, SettingsError
from scythe.registry import ExperimentRegistry, experiment_of
from tests.cluster import PATIENCE, REAL, Worker, descendants, unique, wait_until_served
from tests.hatchet_standin import StandinEngine
from tests.s3_server import s3_server

MODULE = """
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.registry import ExperimentRegistry

class Order(ExperimentInputSpec):
    x: float

class Value(ExperimentOutputSpec):
    y: float

@ExperimentRegistry.Register(name="NAME")
def halve(spec: Order) -> Value:
    return Value(y=spec.x / 2)
"""
SCYTHE = [sys.executable, "-c", "from scythe.cli import main; main()"]
WITHIN_SECONDS = 15.0
#: A worker loads for some seconds before it looks at anything, on a busy machine for many.
LOADS_WITHIN_SECONDS = 120.0

standin_only = pytest.mark.skipif(REAL, reason="an option of the stand-in")


class Order(ExperimentInputSpec):
    x: float


class Value(ExperimentOutputSpec):
    y: float


class Elsewhere(ExperimentOutputSpec):
    y: float
    z: str


def halve(spec: Order) -> Value:
    return Value(y=spec.x / 2)


def changed(spec: Order) -> Elsewhere:
    return Elsewhere(y=spec.x / 2, z="new")


def order(n: int = 3) -> list[Order]:
    return [Order(experiment_id="", sort_index=i, x=i) for i in range(n)]


@contextmanager
def within(seconds: float = WITHIN_SECONDS) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


@dataclass
class Engine:
    folder: Path
    env: dict[str, str]
    #: The experiment that its worker has.
    name: str
    worker: Worker
    process: StandinEngine | None


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine with one worker, which has one experiment."""
    folder, name = tmp_path_factory.mktemp("bad"), unique("halve")
    (folder / f"{name}.py").write_text(MODULE.replace("NAME", name))
    standin = None if REAL else StandinEngine(worker_loss_seconds=60.0)
    if standin is not None:
        standin.__enter__()
    given = {k: v for k, v in os.environ.items() if k.startswith("HATCHET_CLIENT_")}
    env = standin.env if standin is not None else given
    try:
        with Worker(name, "--slots", "1", env=env, cwd=folder) as worker, pytest.MonkeyPatch.context() as patch:
            for key, value in env.items():
                patch.setenv(key, value)
            wait_until_served(
                f"scythe_experiment_{name}", f"scythe_scatter_gather_{name}", timeout=LOADS_WITHIN_SECONDS
            )
            yield Engine(folder, env, name, worker, standin)
    finally:
        if standin is not None:
            standin.__exit__(None, None, None)


@pytest.fixture(autouse=True)
def reached(engine: Engine, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment leads to the engine, and to a root without a run."""
    for key, value in engine.env.items():
        monkeypatch.setenv(key, value)


# --- the connection ---------------------------------------------------------------------------------


def foreign(env: dict[str, str]) -> str:
    """A token that leads to this engine, but was signed by another."""
    body, _, signature = env["HATCHET_CLIENT_TOKEN"].rpartition(".")
    return f"{body}.{signature[::-1]}"


def expired(engine: Engine) -> str:
    assert engine.process is not None
    return engine.process.expired_token()


@pytest.fixture(scope="module")
def silent() -> Iterator[str]:
    """The address of something that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture(scope="module")
def closed() -> str:
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture(scope="module")
def old() -> Iterator[dict[str, str]]:
    """An engine of long ago."""
    with StandinEngine(version="v0.50.0") as engine:
        yield engine.env


_WRONG = {
    "no token": "HATCHET_CLIENT_TOKEN is missing",
    "an empty token": "HATCHET_CLIENT_TOKEN is missing",
    "half a token": "HATCHET_CLIENT_TOKEN is missing or no token",
    "no token at all": "HATCHET_CLIENT_TOKEN is missing or no token",
    "a foreign token": "refuses the token",
    "nobody there": "cannot be reached",
    "no answer": "does not answer",
    "nobody at the API": "cannot be reached .*HATCHET_CLIENT_SERVER_URL",
}
_STANDIN_ONLY = {"an expired token": "refuses the token", "an old engine": r"is v0\.50\.0; Scythe needs v"}
WRONG = [*_WRONG.items(), *(pytest.param(*w, marks=standin_only) for w in _STANDIN_ONLY.items())]


def environment(case: str, request: pytest.FixtureRequest, engine: Engine) -> dict[str, str | None]:
    """What differs from the environment of a client that is set up well."""
    token = "HATCHET_CLIENT_TOKEN"
    match case:
        case "no token":
            return {token: None}
        case "an empty token":
            return {token: ""}
        case "half a token":
            return {token: engine.env[token].rpartition(".")[0]}
        case "no token at all":
            return {token: "ey.but.nonsense"}
        case "a foreign token":
            return {token: foreign(engine.env)}
        case "an expired token":
            return {token: expired(engine)}
        case "nobody there":
            return {"HATCHET_CLIENT_HOST_PORT": request.getfixturevalue("closed")}
        case "nobody at the API":
            return {"HATCHET_CLIENT_SERVER_URL": f"http://{request.getfixturevalue('closed')}"}
        case "no answer":
            return {"HATCHET_CLIENT_HOST_PORT": request.getfixturevalue("silent")}
        case _:
            return {**request.getfixturevalue("old")}


@pytest.mark.parametrize(("case", "said"), WRONG)
def test_allocate_says_what_is_wrong_and_writes_nothing(
    case: str, said: str, engine: Engine, root: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    from scythe.engines.hatchet import connection as client

    client._client.cache_clear()  # a client has one environment for its whole life
    for key, value in environment(case, request, engine).items():
        monkeypatch.setenv(key, value) if value is not None else monkeypatch.delenv(key)
    ExperimentRegistry.Register(name=engine.name)(halve)

    with within(), pytest.raises(SettingsError, match=said) as raised:
        BaseExperiment(halve).allocate(order(), engine="hatchet")

    client._client.cache_clear()
    assert "\n" not in str(raised.value)
    assert not root.exists()


@pytest.fixture(scope="module")
def refused(
    engine: Engine, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Worker]]:
    """Workers with every wrong environment, all at once."""
    workers: dict[str, Worker] = {}
    for case in [*_WRONG, *([] if REAL else _STANDIN_ONLY)]:
        env = {**os.environ, **engine.env, **environment(case, request, engine)}
        with pytest.MonkeyPatch.context() as patch:
            for key in [k for k, v in env.items() if v is None]:
                patch.delenv(key)
            given = {k: v for k, v in env.items() if v is not None}
            workers[case] = Worker(engine.name, env=given, cwd=engine.folder)
    yield workers
    for worker in workers.values():
        worker.__exit__()


@pytest.mark.parametrize(("case", "said"), WRONG)
def test_a_worker_says_what_is_wrong_in_one_sentence_and_ends(case: str, said: str, refused: dict[str, Worker]) -> None:
    worker = refused[case]

    assert worker.process.wait(LOADS_WITHIN_SECONDS) == 1
    assert "Traceback" not in worker.output
    (line,) = worker.output.splitlines()
    assert line.startswith("scythe: ")
    assert pytest.raises(AssertionError, match=said).matches(AssertionError(line))


# --- the workers ------------------------------------------------------------------------------------


def test_an_experiment_that_no_worker_has_is_not_allocated_and_the_error_tells_what_they_have(
    engine: Engine, root: Path
) -> None:
    name = unique("nobody")
    ExperimentRegistry.Register(name=name)(halve)

    with within(), pytest.raises(AllocationError) as raised:
        BaseExperiment(halve).allocate(order(), engine="hatchet")

    said = str(raised.value)
    assert f"no Hatchet worker has the task 'scythe_experiment_{name}'" in said
    assert f"scythe_experiment_{engine.name}" in said
    assert "scythe worker" in said
    assert not root.exists()


def test_a_worker_that_is_not_listed_for_a_moment_is_looked_for_again(
    engine: Engine, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine drops a worker from its list as soon as one heartbeat is a second late."""
    from scythe.engines.hatchet import fleet

    looks: list[list[Any]] = []
    look = fleet.active_workers

    async def late() -> list[Any]:
        found = [w for w in await look() if not fleet.serves(w, f"scythe_experiment_{engine.name}") or looks]
        looks.append(found)
        return found

    monkeypatch.setattr(fleet, "active_workers", late)
    monkeypatch.setenv("SCYTHE_ANY_CODE", "true")
    ExperimentRegistry.Register(name=engine.name)(halve)

    _, ref = BaseExperiment(halve).allocate(order(), engine="hatchet")

    assert ref.result(timeout=PATIENCE).rows == 3
    assert len(looks) > 1


@pytest.mark.parametrize("n", [3, 1], ids=["many", "one model"])
def test_a_worker_with_other_models_than_the_allocation_refuses_the_run(engine: Engine, root: Path, n: int) -> None:
    ExperimentRegistry.Register(name=engine.name)(changed)
    specs: Any = order(n) if n > 1 else order(1)[0]
    run, ref = BaseExperiment(changed).allocate(specs, engine="hatchet")

    with within(), pytest.raises(RunError) as raised:
        ref.result(timeout=PATIENCE)

    mine = [word for word in str(raised.value).replace(",", " ").replace(")", " ").split() if len(word) == 12]
    assert engine.name in str(raised.value)
    assert "other input or output models" in str(raised.value)
    assert "allocated" in str(raised.value)
    assert len({*mine}) >= 2, "both schemas are named"
    assert "Traceback" not in str(raised.value)
    assert run.status == "incomplete"
    assert not (root / run.key.path / "final").exists()
    assert scythe.read(engine.name, run=run.key.folder).height == 0

    run.resume(engine="inline")
    assert scythe.read(engine.name)["z"].unique().to_list() == ["new"]


@pytest.mark.parametrize("n", [3, 1], ids=["many", "one model"])
def test_a_worker_with_other_code_of_the_same_models_refuses_the_run_and_the_run_says_so(
    engine: Engine, root: Path, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the rows would come from one code, half from the other."""
    ExperimentRegistry.Register(name=engine.name)(halve)
    specs: Any = order(n) if n > 1 else order(1)[0]
    run, ref = BaseExperiment(halve).allocate(specs, engine="hatchet")

    with within(), pytest.raises(RunError, match="has other code of") as raised:
        ref.result(timeout=PATIENCE)

    mine = read_code(experiment_of(halve)).sha256 or ""
    hashes = set(re.findall(r"[0-9a-f]{12}", str(raised.value).replace(run.key.path, "")))
    assert mine[:12] in hashes
    assert len(hashes) == 2, "both are named"
    assert "; they differ in " in str(raised.value)
    assert "start the workers again" in str(raised.value)
    assert run.status == "incomplete"
    assert "has other code of" in shown(run)

    monkeypatch.setenv("SCYTHE_ANY_CODE", "true")
    assert run.resume().result(timeout=PATIENCE).rows == n
    first, last = run.attempts[0].provenance, run.attempts[-1].provenance
    assert first is not None
    assert first.code == mine
    assert last is not None
    assert last.code is None, "any code may have made these rows"


def test_a_worker_runs_what_it_has_loaded_whatever_becomes_of_its_files(
    engine: Engine, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = unique("kept")
    file = tmp_path / f"{name}.py"
    file.write_text(MODULE.replace("NAME", name))
    ExperimentRegistry.Register(name=name)(halve)
    monkeypatch.setenv("SCYTHE_ANY_CODE", "true")
    with Worker(name, "--slots", "1", env=engine.env, cwd=tmp_path):
        wait_until_served(f"scythe_experiment_{name}", f"scythe_scatter_gather_{name}", timeout=LOADS_WITHIN_SECONDS)
        file.write_text(file.read_text().replace("spec.x / 2", "spec.x * 100"))
        run, ref = BaseExperiment(halve).allocate(order(), engine="hatchet")
        assert ref.result(timeout=PATIENCE).rows == 3
    assert run.attempts[0].provenance is not None
    assert run.attempts[0].provenance.code is None
    assert scythe.read(name)["y"].to_list() == [0.0, 0.5, 1.0]


def test_a_worker_without_sources_refuses_the_run_as_its_code_cannot_be_told(
    engine: Engine, root: Path, tmp_path: Path
) -> None:
    name = unique("bare")
    file = tmp_path / f"{name}.py"
    file.write_text(MODULE.replace("NAME", name))
    py_compile.compile(str(file), cfile=f"{file}c", doraise=True)
    file.unlink()
    ExperimentRegistry.Register(name=name)(halve)
    with Worker(name, "--slots", "1", env=engine.env, cwd=tmp_path):
        wait_until_served(f"scythe_experiment_{name}", f"scythe_scatter_gather_{name}", timeout=LOADS_WITHIN_SECONDS)
        _, ref = BaseExperiment(halve).allocate(order(), engine="hatchet")
        with within(), pytest.raises(RunError, match=f"has no source of '{name}': whether that is what the run"):
            ref.result(timeout=PATIENCE)


def shown(run: Any) -> str:
    """What `scythe show` prints."""
    done = subprocess.run(
        [*SCYTHE, "show", run.experiment_id], capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    return done.stdout


@contextmanager
def paused(worker: Worker) -> Iterator[None]:
    """While it stands still, a worker is handed work but does not begin it."""
    everything = [worker.process.pid, *descendants(worker.process.pid)]
    for pid in everything:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in everything:
            os.kill(pid, signal.SIGCONT)


def test_a_worker_that_does_not_see_the_storage_says_so(engine: Engine, root: Path) -> None:
    ExperimentRegistry.Register(name=engine.name)(halve)
    with paused(engine.worker):
        run, ref = BaseExperiment(halve).allocate(order(), engine="hatchet")
        root.rename(root.with_name("elsewhere"))

    with within(), pytest.raises(RunError, match="does not find the run") as raised:
        ref.result(timeout=PATIENCE)

    assert run.experiment_id in str(raised.value)
    assert "same storage" in str(raised.value)
    assert not root.exists() or not (root / run.key.path / "manifest.yml").exists()


def test_a_worker_whose_credentials_the_bucket_refuses_says_so(engine: Engine, bucket: str) -> None:
    name = unique("refused")
    (engine.folder / f"{name}.py").write_text(MODULE.replace("NAME", name))
    ExperimentRegistry.Register(name=name)(halve)
    with s3_server(INITIAL_NO_AUTH_ACTION_COUNT="0") as strict:
        elsewhere = {**engine.env, "AWS_ENDPOINT_URL": strict.endpoint}
        with Worker(name, "--slots", "1", env=elsewhere, cwd=engine.folder):
            wait_until_served(
                f"scythe_experiment_{name}", f"scythe_scatter_gather_{name}", timeout=LOADS_WITHIN_SECONDS
            )
            _, ref = BaseExperiment(halve).allocate(order(), engine="hatchet")
            with within(), pytest.raises(RunError, match=r"refuses the credentials in use \(InvalidAccessKeyId\)"):
                ref.result(timeout=PATIENCE)


@standin_only
def test_a_run_whose_trigger_failed_is_stored_as_allocated(engine: Engine, root: Path) -> None:
    """The last test of this file: it ends the engine between the checks and the trigger."""
    assert engine.process is not None
    ExperimentRegistry.Register(name=engine.name)(halve)

    def end_the_engine(frame: Any, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_name == "run_hatchet":
            sys.setprofile(None)
            engine.process.kill()  # pyright: ignore[reportOptionalMemberAccess]

    sys.setprofile(end_the_engine)
    try:
        with within(60.0), pytest.raises(RunError, match="it is stored: resume it later"):
            BaseExperiment(halve).allocate(order(), engine="hatchet")
    finally:
        sys.setprofile(None)

    (run,) = BaseExperiment(halve).list_runs()
    assert run.status == "allocated"
    assert run.workflow_run_id is None
    with within(), pytest.raises(ScytheError, match=r"cannot be reached|answers UNAVAILABLE"):
        run.resume()
    with (
        within(),
        pytest.raises(SettingsError, match=r"is marked as cancelled, so whoever works on it stops; what of it waits"),
    ):
        run.cancel()
    assert run.status == "cancelled"
    run.resume(engine="inline")
    assert scythe.read(engine.name).height == 3
