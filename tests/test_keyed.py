"""The same key gives the same run: over retries, crashes, and from several processes at once."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import scythe
from scythe.allocate import BaseExperiment, ExperimentRun, RunRef, allocation
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.errors import AllocationError, RunError
from scythe.registry import ExperimentRegistry
from scythe.runs import going_on
from scythe_catalog.processes import Process
from tests.cluster import wait_for

SCRIPT = """
import os, signal, sys
import polars as pl
from scythe import BaseExperiment, ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry
from scythe.allocate import allocation


class Pile(ExperimentInputSpec):
    depth: float


class Held(ExperimentOutputSpec):
    load: float


@ExperimentRegistry.Register()
def hold(spec: Pile) -> Held:
    return Held(load=2 * spec.depth)


if __name__ == "__main__":
    if sys.argv[1] == "dies":
        allocation.store_run = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    run, ref = BaseExperiment(hold).allocate(pl.DataFrame({"depth": [1.0, 2.0]}), key="night", engine="inline")
    ref.result()
    print(run.experiment_id)
"""


class Pile(ExperimentInputSpec):
    depth: float


class Held(ExperimentOutputSpec):
    load: float


CALLS: list[float] = []
BROKEN: set[float] = set()


def hold(spec: Pile) -> Held:
    if spec.depth in BROKEN:
        raise ValueError("breaks")
    CALLS.append(spec.depth)
    return Held(load=2 * spec.depth)


@pytest.fixture
def piles(root: Path) -> BaseExperiment:
    CALLS.clear()
    BROKEN.clear()
    ExperimentRegistry.Register(retries=0)(hold)
    return BaseExperiment(hold)


def allocated(piles: BaseExperiment, depths: list[float], **more: Any) -> tuple[ExperimentRun, RunRef]:
    return piles.allocate(pl.DataFrame({"depth": depths}), engine="inline", **more)


def test_a_key_with_other_sort_indexes_is_refused(piles: BaseExperiment) -> None:
    numbered = pl.DataFrame({"depth": [1.0, 2.0], "sort_index": [3, 9]})
    given: dict[str, Any] = {"engine": "inline", "key": "night", "overwrite_sort_index": False}
    run, ref = piles.allocate(numbered, **given)
    ref.result()
    assert piles.allocate(numbered, **given)[0].experiment_id == run.experiment_id
    with pytest.raises(AllocationError, match=f"key='night' is that of {run.experiment_id}, which has other inputs"):
        piles.allocate(numbered.with_columns(sort_index=pl.Series([3, 10])), **given)
    with pytest.raises(AllocationError, match="other inputs"):
        allocated(piles, [1.0, 2.0], key="night")


def test_the_same_key_gives_the_same_run(piles: BaseExperiment) -> None:
    run, _ = allocated(piles, [1.0, 2.0], key="night 1")
    again, ref = allocated(piles, [1.0, 2.0], key="night 1")
    other, _ = allocated(piles, [1.0, 2.0], key="night 2")
    assert again.experiment_id == run.experiment_id != other.experiment_id
    assert (ref.result().rows, CALLS) == (2, [1.0, 2.0, 1.0, 2.0])


def test_a_note_and_tags_that_the_run_of_a_key_does_not_get_are_told(
    piles: BaseExperiment, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = allocated(piles, [1.0], key="night", note="first", tags=["a"])
    allocated(piles, [1.0], key="night", note="first", tags=["a"])
    allocated(piles, [1.0], key="night")
    assert "note" not in capsys.readouterr().err
    again, _ = allocated(piles, [1.0], key="night", note="second", tags=["b"])
    assert (
        f"{run.experiment_id} is there already, and goes on with the note and tags it has, not with note='second' and tags=['b']\n"
        in capsys.readouterr().err
    )
    assert (again.note, again.tags) == ("first", ["a"])


def test_a_step_to_another_version_than_that_of_the_run_of_a_key_is_told(
    piles: BaseExperiment, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = allocated(piles, [1.0], key="night")
    minor, _ = allocated(piles, [1.0], key="noon", version="bumpminor")
    for key, version in (("night", "keep"), ("night", "auto"), ("night", "bumpmajor"), ("night", "v1.0.0"), ("noon", "bumpminor")):  # fmt: skip
        allocated(piles, [1.0], key=key, version=version)
    assert "is there already" not in capsys.readouterr().err
    again, _ = allocated(piles, [1.0], key="night", version="bumpminor", note="second")
    assert (run.version, minor.version, again.experiment_id) == ("v1.0.0", "v1.1.0", run.experiment_id)
    told = f"{run.experiment_id} is there already, and goes on with the version, note and tags it has, not with version='bumpminor' and note='second'\n"
    assert told in capsys.readouterr().err


def test_a_run_of_a_key_that_is_not_finished_goes_on(piles: BaseExperiment) -> None:
    BROKEN.add(2.0)
    with pytest.raises(ValueError, match="breaks"):
        allocated(piles, [1.0, 2.0, 3.0], key="night", chunk=1)
    BROKEN.clear()
    _, ref = allocated(piles, [1.0, 2.0, 3.0], key="night")
    assert (ref.result().rows, ref.result().errors, CALLS) == (2, 1, [1.0, 3.0])
    assert len(piles.list_runs()) == 1


def test_a_key_belongs_to_its_inputs(piles: BaseExperiment) -> None:
    run, _ = allocated(piles, [1.0, 2.0], key="night")
    for others in ([1.0], [2.0, 1.0]):
        with pytest.raises(
            AllocationError, match=f"key='night' is that of {run.experiment_id}, which has other inputs"
        ):
            allocated(piles, others, key="night")
    run.delete()
    after, _ = allocated(piles, [5.0], key="night")
    assert after.experiment_id != run.experiment_id


@pytest.mark.parametrize("key", ["", " ", 7, "x" * 1001])
def test_what_can_be_no_key_is_refused(piles: BaseExperiment, key: Any) -> None:
    with pytest.raises(AllocationError, match="key must be a text"):
        allocated(piles, [1.0], key=key)


def test_a_key_belongs_to_its_seed_and_version(piles: BaseExperiment) -> None:
    allocated(piles, [1.0], key="night")
    with pytest.raises(AllocationError, match="which has the seed 0, not 1"):
        allocated(piles, [1.0], key="night", seed=1)
    with pytest.raises(AllocationError, match=r"not of version v2\.0\.0"):
        allocated(piles, [1.0], key="night", version="v2.0.0")
    assert len(piles.list_runs()) == 1


MODULE = """
from scythe import ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry


class Pile(ExperimentInputSpec):
    depth: float


class Held(ExperimentOutputSpec):
    load: float


@ExperimentRegistry.Register()
def held(spec: Pile) -> Held:
    return Held(load=2 * spec.depth)
"""


def test_a_key_belongs_to_its_models_and_other_code_is_told(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def written(source: str) -> BaseExperiment:
        (root.parent / "keyed_piles.py").write_text(source)
        sys.modules.pop("keyed_piles", None)
        importlib.invalidate_caches()
        return BaseExperiment(importlib.import_module("keyed_piles").held)

    monkeypatch.syspath_prepend(str(root.parent))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    run, _ = allocated(written(MODULE), [1.0], key="night")
    allocated(written(MODULE), [1.0], key="night")
    assert "other code" not in capsys.readouterr().err
    again, ref = allocated(written(MODULE.replace("2 *", "30 *")), [1.0], key="night")
    assert again.experiment_id == run.experiment_id
    assert ref.result().rows == 1
    told = capsys.readouterr().err
    assert f"key='night' is that of {run.experiment_id}, which was begun with other code of held" in told
    assert "; they differ in keyed_piles.py): its rows are those of that code" in told
    for other in (
        MODULE.replace("load: float", "load: str"),
        MODULE.replace("load: float", "load: float\n    more: int = 1"),
    ):
        with pytest.raises(AllocationError, match="which has other input or output models: give this one a key"):
            allocated(written(other), [1.0], key="night", version="auto")
    sys.modules.pop("keyed_piles")


def test_a_key_grows_too(piles: BaseExperiment) -> None:
    allocated(piles, [1.0, 2.0])
    for _ in range(2):
        run, ref = allocated(piles, [1.0, 2.0, 3.0], key="round 2", reuse=True)
        assert ref.result().rows == 3
    assert CALLS == [1.0, 2.0, 3.0]
    assert (run.version, len(piles.list_runs())) == ("v1.0.0", 2)


def script(folder: Path, word: str) -> subprocess.CompletedProcess[str]:
    (folder / "hold.py").write_text(SCRIPT)
    env = {**os.environ, "SCYTHE_STORAGE_ROOT": str(folder / "root")}
    return subprocess.run(
        [sys.executable, "hold.py", word], cwd=folder, env=env, capture_output=True, text=True, check=False
    )


def test_an_allocation_that_was_killed_is_followed_by_another(tmp_path: Path) -> None:
    assert script(tmp_path, "dies").returncode == -signal.SIGKILL
    first = script(tmp_path, "lives")
    assert first.returncode == 0, first.stderr
    assert script(tmp_path, "lives").stdout == first.stdout
    assert len(list((tmp_path / "root" / "hold").glob("v*/*"))) == 1, "nothing is left of the one that died"


def test_a_half_allocation_of_a_process_whose_number_is_this_ones_is_followed_by_another(
    piles: BaseExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as killed:
        killed.setattr(allocation, "store_run", lambda *_: 1 / 0)
        killed.setattr(allocation, "undo", lambda *_: None)
        mine = Process.this()
        before = staticmethod(lambda: replace(mine, start=mine.start - 1))  # one that had this number before
        killed.setattr("scythe.record.reserve.Process.this", before)
        with pytest.raises(ZeroDivisionError):
            allocated(piles, [1.0], key="night")
    run, _ = allocated(piles, [1.0], key="night")
    assert [one.experiment_id for one in piles.list_runs()] == [run.experiment_id]


def test_processes_at_once_get_one_run_and_all_wait_for_its_result(tmp_path: Path) -> None:
    (tmp_path / "hold.py").write_text(SCRIPT.replace("return Held", "import time; time.sleep(0.2); return Held"))
    env = {**os.environ, "SCYTHE_STORAGE_ROOT": str(tmp_path / "root")}
    words = [sys.executable, "hold.py", "lives"]
    with contextlib.ExitStack() as stack:
        all_ = [
            stack.enter_context(
                subprocess.Popen(
                    words, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
                )
            )
            for _ in range(3)
        ]
        told = [process.communicate(timeout=120) for process in all_]
    assert [process.returncode for process in all_] == [0, 0, 0], told
    assert len({out for out, _ in told}) == 1


AT_WORK = SCRIPT.replace(
    "    return Held(load=2 * spec.depth)",
    """    import time
    from pathlib import Path
    with Path("calls").open("a") as calls:
        calls.write(f"{spec.depth} {os.getpid()}\\n")
    while spec.depth == 2.0 and not Path("gate").exists():
        time.sleep(0.01)
    if Path("gate").exists() and Path("gate").read_text() == f"raise {os.getpid()}":
        raise RuntimeError("the crane fell over")
    return Held(load=2 * spec.depth)""",
).replace("    ref.result()\n", "    print(run.status, flush=True)\n    ref.result()\n")


@pytest.fixture
def at_work(tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Starts a caller of the key, and waits until it works on the run, or waits for who does."""
    (tmp_path / "hold.py").write_text(AT_WORK)
    env = {**os.environ, "SCYTHE_STORAGE_ROOT": str(tmp_path / "root")}
    with contextlib.ExitStack() as stack:

        def start() -> subprocess.Popen[str]:
            words = [sys.executable, "hold.py", "lives"]
            pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            started = stack.enter_context(subprocess.Popen(words, cwd=tmp_path, env=env, **pipes))
            stack.callback(started.kill)
            if (tmp_path / "calls").exists():
                assert started.stdout is not None
                assert started.stdout.readline() == "running\n", started.communicate()
            else:
                wait_for(lambda: (tmp_path / "calls").exists() and "2.0" in (tmp_path / "calls").read_text())
            return started

        yield start


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_callers_that_wait_go_on_themselves_where_the_one_at_work_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_work: Callable[[], subprocess.Popen[str]], number: int
) -> None:
    first = at_work()
    waiting = [at_work(), at_work()]
    first.send_signal(number)
    first.wait(60)
    calls = tmp_path / "calls"
    wait_for(lambda: len({line.split()[1] for line in calls.read_text().splitlines()}) == 2)
    (tmp_path / "gate").touch()
    told = [one.communicate(timeout=120) for one in waiting]
    assert [one.returncode for one in waiting] == [0, 0], told
    assert len({out for out, _ in told}) == 1
    monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(tmp_path / "root"))
    assert scythe.read("hold").sort("sort_index")["load"].to_list() == [2.0, 4.0]
    assert [line.split()[0] for line in calls.read_text().splitlines()].count("2.0") == 2


def test_callers_that_wait_are_told_why_the_one_at_work_has_stopped(
    tmp_path: Path, at_work: Callable[[], subprocess.Popen[str]]
) -> None:
    first, waiting = at_work(), at_work()
    (tmp_path / "raises").write_text(f"raise {first.pid}")
    (tmp_path / "raises").rename(tmp_path / "gate")
    out, told = waiting.communicate(timeout=120)
    assert waiting.returncode != 0, out
    assert "who worked on it has stopped (RuntimeError: the crane fell over). Resume it" in told
    assert "the crane fell over" in first.communicate(timeout=60)[1]


def test_callers_at_once_get_one_run(piles: BaseExperiment, monkeypatch: pytest.MonkeyPatch) -> None:
    both, store = threading.Barrier(2, timeout=60), allocation.reserve_folder

    def together(*arguments: Any) -> Any:
        key = store(*arguments)
        both.wait()
        return key

    monkeypatch.setattr(allocation, "reserve_folder", together)
    found: list[str] = []

    def ask() -> None:
        try:
            found.append(allocated(piles, [1.0, 2.0], key="night")[0].experiment_id)
        except Exception as error:
            found.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    runs = [run.experiment_id for run in piles.list_runs()]
    assert len(runs) == 1
    assert all(runs[0] in told for told in found), found
    assert scythe.read(hold)["load"].to_list() == [2.0, 4.0]
    assert CALLS == [1.0, 2.0]


@pytest.mark.parametrize("again", ["resume", "retry_errors"])
@pytest.mark.parametrize("engine", ["inline", "local"])
def test_what_another_process_has_finished_since_it_was_looked_at_is_not_run_again(
    piles: BaseExperiment, monkeypatch: pytest.MonkeyPatch, again: str, engine: str
) -> None:
    BROKEN.add(2.0)
    with pytest.raises(ValueError, match="breaks"):
        allocated(piles, [1.0, 2.0, 3.0], chunk=1)
    BROKEN.clear()
    run = scythe.open_run("hold")
    look_at_code = going_on._tell_of_code

    def slowly(*told: Any) -> None:
        with monkeypatch.context() as quick:
            quick.setattr(going_on, "_tell_of_code", look_at_code)
            run.resume(engine="inline").result()

    monkeypatch.setattr(going_on, "_tell_of_code", slowly)
    with pytest.raises(RunError, match=r"another process has worked on the run .* while this one began"):
        getattr(run, again)(engine=engine).result()
    assert CALLS == [1.0, 3.0]
    assert run.status == "finished"
