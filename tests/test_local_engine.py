"""The local engine: crashes, hangs, interruptions, and that none of them ever costs more than the input that caused it."""

import asyncio
import ctypes
import errno
import json
import logging
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cloudpickle
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import scythe
from scythe.allocate import BaseExperiment
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.errors import RunCancelled, RunError, TooManyErrors
from scythe.registry import ExperimentRegistry
from scythe.utils.filesys import FileReference

# Worker processes cannot import this module by its name, which pytest made up.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Order(ExperimentInputSpec):
    scratch: str
    fate: str = "fine"


class Value(ExperimentOutputSpec):
    y: float


def orders(scratch: Path, fates: list[str]) -> list[Order]:
    scratch.mkdir(exist_ok=True)
    return [Order(experiment_id="", sort_index=i, scratch=str(scratch), fate=f) for i, f in enumerate(fates)]


def count_call(spec: Any) -> int:
    """Notes a call on the disk; how many there have been for this input."""
    with (Path(spec.scratch) / f"{spec.sort_index}.calls").open("a+") as file:
        file.write(f"{os.getpid()}\n")
        file.flush()
        file.seek(0)
        return len(file.readlines())


def calls(scratch: Path) -> dict[int, int]:
    """`sort_index` -> how often the function was called on it."""
    return {int(p.stem): len(p.read_text().splitlines()) for p in scratch.glob("*.calls")}


def eventually(condition: Callable[[], Any], what: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} seconds: {what}"
        time.sleep(0.01)


def gone(pid: int) -> bool:
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return found.stdout.strip() in ("", "Z") or found.stdout.startswith("Z")


def register(function: Callable[..., Any], **options: Any) -> BaseExperiment:
    ExperimentRegistry.Register(**options)(function)
    return BaseExperiment(experiment=options.get("name", function.__name__))


def once_each(experiment: Any, n: int, **of: Any) -> None:
    """Each input is in exactly one of scalars and errors, and in tasks once."""
    found = [scythe.read(experiment, table=t, **of)["sort_index"].to_list() for t in ("scalars", "errors")]
    assert sorted(found[0] + found[1]) == list(range(n))
    assert scythe.read(experiment, table="tasks", **of)["sort_index"].sort().to_list() == list(range(n))


# --- the same rows as inline ------------------------------------------------------------------------


def spread(spec: Order) -> Value:
    if spec.sort_index % 100 == 7:
        raise ValueError(f"no {spec.sort_index}")
    frame = pl.DataFrame({"hour": [0, 1], "kwh": [spec.sort_index * 1.0, 2.0]})
    return Value(y=spec.sort_index / 4, dataframes={"hourly": frame})


@pytest.mark.parametrize("chunk", [None, 97])
def test_processes_give_the_same_rows_as_inline(root: Path, chunk: int | None) -> None:
    experiment = register(spread, retries=0)
    specs = orders(root.parent / "scratch", ["fine"] * 1200)

    _, ref = experiment.allocate(specs, engine="local", workers=2, chunk=chunk)
    result = ref.result()
    fine = [s for s in specs if s.sort_index % 100 != 7]
    experiment.allocate(fine, engine="inline", overwrite_sort_index=False)

    assert (result.inputs, result.rows, result.errors) == (1200, 1188, 12)
    ids = ["experiment_id", "workflow_run_id", "root_workflow_run_id"]
    for table in ("scalars", "hourly"):
        local, inline = (scythe.read(spread, v, table=table).drop(ids) for v in ("v1.0.0", "v2.0.0"))
        assert_frame_equal(local, inline)
    errors = scythe.read(spread, "v1.0.0", table="errors")
    assert errors["sort_index"].to_list() == list(range(7, 1200, 100))
    assert errors["exception_message"].to_list() == [f"no {i}" for i in range(7, 1200, 100)]
    once_each(spread, 1200, version="v1.0.0")


def test_as_many_processes_work_at_once_as_workers_says(root: Path) -> None:
    def meet(spec: Order) -> Value:
        here = Path(spec.scratch)
        (here / f"{os.getpid()}.pid").touch()
        deadline = time.monotonic() + 60
        while len(list(here.glob("*.pid"))) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        return Value(y=len(list(here.glob("*.pid"))))

    _, ref = register(meet).allocate(orders(root.parent / "s", ["fine"] * 9), engine="local", workers=3, chunk=1)
    ref.result()

    assert scythe.read("meet")["y"].unique().to_list() == [3.0]
    assert scythe.read("meet", table="tasks")["worker"].n_unique() == 3


def test_chunk_says_how_many_inputs_go_to_a_process_together(root: Path) -> None:
    def where(spec: Order) -> Value:
        count_call(spec)
        here, deadline = Path(spec.scratch), time.monotonic() + 60
        while spec.sort_index == 0 and len(list(here.glob("*.calls"))) < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        return Value(y=sum((here / f"{i}.calls").exists() for i in (1, 2)))

    _, ref = register(where).allocate(orders(root.parent / "s", ["fine"] * 10), engine="local", workers=2, chunk=3)
    ref.result()

    assert len(calls(root.parent / "s")) == 10
    assert scythe.read("where")["y"][0] == 0  # others were run while the first waited, but not those of its own chunk
    workers = scythe.read("where", table="tasks")["worker"].to_list()
    assert all(len(set(workers[i : i + 3])) == 1 for i in range(0, 10, 3))


def test_more_workers_than_inputs_are_not_started(root: Path) -> None:
    def alone(spec: Order) -> Value:
        return Value(y=1)

    _, ref = register(alone).allocate(orders(root.parent / "s", ["fine"]), engine="local", workers=8)

    assert ref.result().rows == 1
    assert scythe.read("alone", table="tasks")["attempts"].to_list() == [1]


# --- faults -----------------------------------------------------------------------------------------


def obey(spec: Order, tempdir: Path) -> Value:
    here, call = Path(spec.scratch), count_call(spec)
    (here / f"{spec.sort_index}-{call}.tempdir").write_text(str(tempdir))
    (tempdir / "something").write_text("left behind")
    match spec.fate:
        case "raises":
            raise ValueError(f"call {call}")
        case "exits":
            os._exit(7)
        case "segfaults":
            ctypes.string_at(0)
        case "is killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hangs":
            child = subprocess.Popen(["sleep", "1000"])
            (here / f"{spec.sort_index}-{call}.child").write_text(str(child.pid))
            signal.pause()
        case "hangs, then works":
            if call == 1:
                signal.pause()
        case "fills the disk":
            with Path("/dev/full").open("w") as full:
                full.write("too much")
        case "gives nothing":
            return None  # pyright: ignore[reportReturnType]
        case "raises, then works":
            if call == 1:
                raise ValueError("not yet")
        case "crashes, then works":
            if call == 1:
                os._exit(9)
        case "raises, then crashes":
            if call == 1:
                raise ValueError("not yet")
            os._exit(9)
        case _:
            pass
    return Value(y=spec.sort_index)


@dataclass
class Finished:
    fates: list[str]
    scratch: Path
    scalars: pl.DataFrame
    errors: pl.DataFrame
    tasks: pl.DataFrame

    def where(self, fate: str) -> int:
        return self.fates.index(fate)


def finished(base: Path, fates: list[str], *, chunk: int | None = None, **options: Any) -> Finished:
    """A run on two processes, read back."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCYTHE_STORAGE_ROOT", str(base / "root"))
        _, ref = register(obey, **options).allocate(
            orders(base / "scratch", fates), engine="local", workers=2, chunk=chunk
        )
        ref.result()
        frames = [scythe.read(options["name"], table=t) for t in ("scalars", "errors", "tasks")]
        return Finished(fates, base / "scratch", *frames)


def among(*fates: str) -> list[str]:
    """Each fate with two inputs before it and behind it that are fine."""
    return ["fine", "fine", *(f for fate in fates for f in (fate, "fine", "fine"))]


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    fates = among(
        "raises", "exits", "segfaults", "is killed", "gives nothing", "fills the disk", "raises, then works",
        "crashes, then works", "raises, then crashes",
    )  # fmt: skip
    return finished(tmp_path_factory.mktemp("crashed"), fates, name="crashing", retries=1, chunk=1)


@pytest.fixture(scope="module")
def hung(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    fates = among("hangs", "hangs, then works", "raises")
    return finished(tmp_path_factory.mktemp("hung"), fates, name="hanging", retries=1, execution_timeout=1.0)


def test_a_crash_costs_exactly_the_input_that_crashed(crashed: Finished) -> None:
    lost = ["raises", "exits", "segfaults", "is killed", "gives nothing", "fills the disk", "raises, then crashes"]

    assert crashed.errors["fate"].to_list() == lost
    kept = [i for i, fate in enumerate(crashed.fates) if fate not in lost]
    assert crashed.scalars["sort_index"].to_list() == kept
    assert crashed.scalars["y"].to_list() == kept
    assert crashed.tasks["sort_index"].to_list() == list(range(len(crashed.fates)))


@pytest.mark.parametrize(
    ("fate", "kind", "words"),
    [
        ("raises", "ValueError", "call 2"),
        ("exits", "scythe.errors.WorkerCrashed", "exit code 7"),
        ("segfaults", "scythe.errors.WorkerCrashed", "SIGSEGV"),
        ("is killed", "scythe.errors.WorkerCrashed", "SIGKILL"),
        ("gives nothing", "scythe.errors.OutputError", "returned NoneType, not Value"),
        ("fills the disk", "OSError", os.strerror(errno.ENOSPC)),
        ("raises, then crashes", "scythe.errors.WorkerCrashed", "exit code 9"),
    ],
)
def test_a_failed_input_says_what_happened_after_its_retries(
    crashed: Finished, fate: str, kind: str, words: str
) -> None:
    row = crashed.errors.row(by_predicate=pl.col("fate") == fate, named=True)

    assert row["exception_type"] == kind
    assert words in row["exception_message"]
    tried = 1 if fate == "gives nothing" else 2  # it would give nothing again
    assert row["attempts"] == tried
    assert crashed.tasks["attempts"][crashed.where(fate)] == tried


@pytest.mark.parametrize("fate", ["exits", "segfaults", "is killed", "raises", "raises, then crashes"])
def test_an_input_is_called_once_and_as_often_again_as_retries_says(crashed: Finished, fate: str) -> None:
    assert calls(crashed.scratch)[crashed.where(fate)] == 2


@pytest.mark.parametrize("fate", ["raises, then works", "crashes, then works"])
def test_an_input_that_works_the_second_time_is_a_row_of_two_attempts(crashed: Finished, fate: str) -> None:
    i = crashed.where(fate)

    assert crashed.scalars.row(by_predicate=pl.col("sort_index") == i, named=True)["y"] == i
    assert crashed.tasks["attempts"][i] == 2


def test_the_neighbours_of_a_crash_have_made_one_attempt(crashed: Finished) -> None:
    fine = [i for i, fate in enumerate(crashed.fates) if fate == "fine"]

    assert crashed.tasks.filter(pl.col("sort_index").is_in(fine))["attempts"].unique().to_list() == [1]


def test_a_time_out_costs_exactly_the_input_that_hangs(hung: Finished) -> None:
    assert hung.errors["fate"].to_list() == ["hangs", "raises"]
    row = hung.errors.row(0, named=True)
    assert row["exception_type"] == "scythe.errors.InputTimeout"
    assert "execution_timeout=1 s" in row["exception_message"]
    assert row["attempts"] == 2
    assert calls(hung.scratch)[hung.where("hangs")] == 2
    assert hung.scalars.height + 2 == len(hung.fates) == hung.tasks.height


def test_an_input_that_hangs_once_is_a_row_of_two_attempts(hung: Finished) -> None:
    i = hung.where("hangs, then works")

    assert i in hung.scalars["sort_index"]
    assert hung.tasks["attempts"][i] == 2


def test_tasks_tell_how_long_the_killed_attempt_took(hung: Finished) -> None:
    assert 1.0 <= hung.tasks["seconds"][hung.where("hangs")] < 10.0


def test_a_time_out_kills_what_the_function_started(hung: Finished) -> None:
    children = [int(p.read_text()) for p in hung.scratch.glob("*.child")]

    assert len(children) == 2
    for child in children:
        eventually(lambda child=child: gone(child), f"process {child} ends", 5)


@pytest.mark.parametrize("run", ["crashed", "hung"])
def test_no_tempdir_is_left_behind_by_inputs_that_came_to_an_end_or_died(
    run: str, request: pytest.FixtureRequest
) -> None:
    done: Finished = request.getfixturevalue(run)
    left = [p.name for p in done.scratch.glob("*.tempdir") if Path(p.read_text()).exists()]

    assert left == []


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_a_function_that_leaves_by_exit_or_interrupt_costs_its_own_input_alone(
    root: Path, error: type[BaseException]
) -> None:
    name = error.__name__

    def leave(spec: Order) -> Value:
        if spec.fate == "leaves":
            raise SystemExit(3) if name == "SystemExit" else KeyboardInterrupt
        return Value(y=1)

    _, ref = register(leave, retries=0).allocate(
        orders(root.parent / "s", ["fine", "leaves", "fine"]), engine="local", workers=1, chunk=3
    )

    assert ref.result().errors == 1
    errors = scythe.read("leave", table="errors")
    assert errors["sort_index"].to_list() == [1]
    assert name in errors["exception_type"][0]
    once_each("leave", 3)


def test_without_retries_a_crash_is_final_at_once(root: Path) -> None:
    def die(spec: Order) -> Value:
        count_call(spec)
        os._exit(1)

    _, ref = register(die, retries=0).allocate(orders(root.parent / "s", ["fine"] * 2), engine="local", workers=2)

    assert ref.result().errors == 2
    assert calls(root.parent / "s") == {0: 1, 1: 1}
    assert scythe.read("die", table="errors")["attempts"].to_list() == [1, 1]


def test_the_time_limit_begins_with_each_input_not_with_its_chunk(root: Path) -> None:
    def slow(spec: Order) -> Value:
        until = time.perf_counter() + 0.4
        while time.perf_counter() < until:
            pass
        return Value(y=1)

    _, ref = register(slow, execution_timeout=2.0, retries=0).allocate(
        orders(root.parent / "s", ["fine"] * 7), engine="local", workers=1, chunk=7
    )

    assert ref.result().rows == 7


def test_a_function_that_cannot_reach_the_workers_stops_the_run_with_the_reason(root: Path) -> None:
    class Unloadable:
        def __reduce__(self) -> Any:
            return eval, ("1 / 0",)

    thing = Unloadable()

    def stuck(spec: Order) -> Value:
        return Value(y=len(str(thing)))

    run, ref = register(stuck).allocate(orders(root.parent / "s", ["fine"]), engine="local", workers=1)

    with pytest.raises(RunError, match="division by zero"):
        ref.result()
    assert run.status == "incomplete"


# --- files ------------------------------------------------------------------------------------------


class Filed(ExperimentInputSpec):
    scratch: str
    weather: FileReference


def test_each_input_has_its_own_copy_of_a_read_only_file_and_the_copy_is_removed(root: Path) -> None:
    weather = root.parent / "weather.epw"
    weather.write_text("sunny")
    weather.chmod(0o444)
    scratch = root.parent / "s"
    scratch.mkdir()

    def spoil(spec: Filed, tempdir: Path) -> Value:
        path = Path(str(spec.weather))
        (Path(spec.scratch) / f"{spec.sort_index}.tempdir").write_text(str(tempdir))
        assert path.is_relative_to(tempdir)
        assert path.name == "weather.epw"
        seen = path.read_text()
        path.chmod(0o644)
        path.write_text("spoilt")
        return Value(y=float(seen == "sunny"))

    specs = [Filed(experiment_id="", sort_index=i, scratch=str(scratch), weather=weather) for i in range(4)]
    _, ref = register(spoil, local_file_location="copied-to-tempdir").allocate(specs, engine="local", workers=2)

    assert ref.result().errors == 0, scythe.read("spoil", table="errors")["exception_traceback"][0]
    assert scythe.read("spoil")["y"].to_list() == [1.0] * 4
    assert weather.read_text() == "sunny"
    stored = [Path(str(u).removeprefix("file://")).read_text() for u in scythe.read("spoil")["weather"].unique()]
    assert stored == ["sunny"]
    folders = [Path(p.read_text()) for p in scratch.glob("*.tempdir")]
    assert len(set(folders)) == 4
    assert not any(folder.exists() for folder in folders)


# --- the reference ----------------------------------------------------------------------------------


def wait_for_go(spec: Order) -> Value:
    count_call(spec)
    deadline = time.monotonic() + 60
    while spec.fate == "waits" and not (Path(spec.scratch) / "go").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    if spec.fate == "fails without go" and not (Path(spec.scratch) / "go").exists():
        raise ValueError("no go")
    return Value(y=1)


def test_the_result_can_be_waited_for_with_a_limit_and_in_an_event_loop(root: Path) -> None:
    scratch = root.parent / "s"
    run, ref = register(wait_for_go).allocate(orders(scratch, ["waits"] * 2), engine="local", workers=2)

    with pytest.raises(TimeoutError, match=re.escape(run.experiment_id)):
        ref.result(timeout=0.05)
    assert run.status == "running"
    assert ref.workflow_run_id == run.workflow_run_id is not None

    async def go_and_wait() -> Any:
        waiting = asyncio.create_task(ref.aio_result())
        await asyncio.sleep(0)
        (scratch / "go").touch()
        return await waiting

    result = asyncio.run(go_and_wait())
    assert (result.rows, result.errors) == (2, 0)
    assert ref.result().uris == result.uris
    assert run.status == "finished"


def test_cancelling_the_reference_of_a_run_that_is_over_leaves_it_as_it_is(root: Path) -> None:
    run, ref = register(obey).allocate(orders(root.parent / "s", ["raises"] * 3), engine="local", max_errors=0)
    with pytest.raises(TooManyErrors):
        ref.result()
    before = run.status

    ref.cancel()

    assert run.status == before == "incomplete"


def test_cancelling_the_reference_keeps_what_is_finished(root: Path) -> None:
    scratch = root.parent / "s"
    run, ref = register(wait_for_go).allocate(
        orders(scratch, ["fine"] * 4 + ["waits"] * 2), engine="local", workers=1, chunk=1
    )
    eventually(lambda: 4 in calls(scratch), "the fifth input is called")

    ref.cancel()

    with pytest.raises(RunCancelled):
        ref.result()
    assert run.status == "cancelled"
    kept = scythe.read("wait_for_go", run=run.key.folder)["sort_index"].to_list()
    assert set(range(3)) <= set(kept) <= set(range(4))
    (scratch / "go").touch()
    run.resume().result()
    assert run.status == "finished"
    once_each("wait_for_go", 6)
    assert all(calls(scratch)[i] == 1 for i in kept)


def test_retry_errors_runs_only_what_failed(root: Path) -> None:
    scratch = root.parent / "s"
    fates = ["fine", "fails without go", "fine", "fails without go"]
    run, ref = register(wait_for_go, retries=0).allocate(orders(scratch, fates), engine="local", workers=2)
    first = ref.result()
    assert (first.rows, first.errors) == (2, 2)
    (scratch / "go").touch()

    assert run.resume().result() == first
    assert calls(scratch) == {0: 1, 1: 1, 2: 1, 3: 1}
    second = run.retry_errors().result()

    assert (second.rows, second.errors) == (4, 0)
    assert calls(scratch) == {0: 1, 1: 2, 2: 1, 3: 2}
    assert scythe.read("wait_for_go")["sort_index"].to_list() == [0, 1, 2, 3]
    once_each("wait_for_go", 4)


def test_a_retry_that_is_broken_off_leaves_every_input_in_one_table(root: Path) -> None:
    def mend(spec: Order) -> Value:
        here = Path(spec.scratch)
        if not (here / "mended").exists():
            raise ValueError("not mended")
        count_call(spec)
        deadline = time.monotonic() + 60
        while spec.fate == "waits" and not (here / "go").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        return Value(y=1)

    scratch = root.parent / "s"
    run, ref = register(mend, retries=0).allocate(
        orders(scratch, ["fine", "fine", "fine", "waits"]), engine="local", workers=1, chunk=1
    )
    assert ref.result().errors == 4
    (scratch / "mended").touch()

    retry = run.retry_errors(workers=1)
    eventually(lambda: 3 in calls(scratch), "the last input is called")
    retry.cancel()

    once_each("mend", 4)
    once_each("mend", 4, run=run.key.folder)
    (scratch / "go").touch()
    run.retry_errors().result()
    assert scythe.read("mend")["sort_index"].to_list() == [0, 1, 2, 3]
    once_each("mend", 4)


# --- logging ----------------------------------------------------------------------------------------


def speak(spec: Order) -> Value:
    spec.log(f"I am {spec.sort_index}")
    return Value(y=1)


@pytest.mark.parametrize("logger", [None, "scythe", "scythe.experiment"])
def test_what_a_function_logs_reaches_the_logging_of_the_caller(
    root: Path, caplog: pytest.LogCaptureFixture, logger: str | None
) -> None:
    caplog.set_level(logging.INFO, logger=logger)

    _, ref = register(speak).allocate(orders(root.parent / "s", ["fine"] * 3), engine="local", workers=1)
    ref.result()

    said = {r.getMessage().rsplit(": ", 1)[-1] for r in caplog.records if r.name == "scythe.experiment"}
    assert said == {"I am 0", "I am 1", "I am 2"}


# --- scripts ----------------------------------------------------------------------------------------

STOPS_WITHIN_SECONDS = 3.0  # two on a machine that does nothing else


def contention() -> float:
    """How many times longer than its processor time a process takes here now: 1 where nothing else runs."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run([sys.executable, "-c", "sum(range(10**7))"], check=True)
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return max(1.0, wall / (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime))


DEFINITIONS = """
import os, signal, sys, time
from pathlib import Path
from scythe.allocate import BaseExperiment
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.registry import ExperimentRegistry

with open("loaded", "a") as loaded:
    loaded.write(f"{__name__}\\n")

class Point(ExperimentInputSpec):
    x: int
    scratch: str

class Value(ExperimentOutputSpec):
    y: int

def twice(x: int) -> int:
    return 2 * x

@ExperimentRegistry.Register(retries=0)
def work(spec: Point) -> Value:
    scratch = Path(spec.scratch)
    with (scratch / f"{spec.sort_index}.calls").open("a") as file:
        file.write(f"{os.getpid()}\\n")
    while spec.x >= 10 and not (scratch / "go").exists():
        time.sleep(0.01)
    return Value(y=twice(spec.x))

def allocate():
    scratch = Path("scratch").resolve()
    specs = [Point(experiment_id="", sort_index=i, x=i, scratch=str(scratch)) for i in range(16)]
    return BaseExperiment(experiment=work).allocate(specs, engine="local", workers=2, chunk=1)
"""
GUARD = """
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):  # which whoever has started the tests may ignore, as nohup does
        signal.signal(number, signal.SIG_DFL)
"""
WAITS = f"{DEFINITIONS}{GUARD}    run, ref = allocate()\n    ref.result()\n"
WAITS_WITH_POLARS = (
    "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\nimport polars\n"
    f"{DEFINITIONS}\nif __name__ == '__main__':\n    run, ref = allocate()\n    ref.result()\n"
)
DOES_NOT_WAIT = f"{DEFINITIONS}{GUARD}    run, ref = allocate()\n"
DOES_SOMETHING_ELSE = f"{DEFINITIONS}{GUARD}    run, ref = allocate()\n    while True:\n        time.sleep(0.01)\n"
HAS_NO_GUARD = f"{DEFINITIONS}\nrun, ref = allocate()\nref.result()\n"


class Script:
    """A script in the working folder, run as a process of its own in a session of its own."""

    def __init__(self, text: str) -> None:
        Path("script.py").write_text(text)
        self.scratch = Path("scratch").resolve()
        self.scratch.mkdir(exist_ok=True)
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        environment = {**os.environ, "PYTHONWARNINGS": "error::ResourceWarning"}
        self.process = subprocess.Popen(
            [sys.executable, "script.py"],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def until_stuck(self) -> None:
        """Waits until both workers wait for the file `go`."""
        assert self.process is not None
        eventually(lambda: len(self.workers(of=range(10, 16))) == 2 or self.ended, "both workers wait")
        assert not self.ended, self.said()

    @property
    def ended(self) -> bool:
        assert self.process is not None
        return self.process.poll() is not None

    def workers(self, of: range = range(16)) -> set[int]:
        files = [p for p in self.scratch.glob("*.calls") if int(p.stem) in of]
        return {int(pid) for p in files for pid in p.read_text().split()}

    def go(self) -> None:
        (self.scratch / "go").touch()

    def said(self) -> str:
        assert self.process is not None
        out, err = self.process.communicate(timeout=60)
        return out + err

    def finish(self) -> int:
        assert self.process is not None
        self.output = self.said()
        return self.process.returncode

    def clean_up(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
        if self.process is not None:
            self.process.communicate()


@pytest.fixture
def script(root: Path) -> Iterator[Callable[[str], Script]]:
    """Starts a script; it is killed at the end of the test."""
    started: list[Script] = []

    def start(text: str) -> Script:
        started.append(Script(text))
        started[-1].start()
        return started[-1]

    yield start
    for one in started:
        one.clean_up()


def resume_by(how: Literal["command", "library"], *more: str) -> None:
    """Goes on with the run in a new process."""
    name = scythe.open_run("work").experiment_id
    command = ["-m", "scythe.cli"] if how == "command" else []
    program = f"import scythe; scythe.open_run({name!r}).resume().result()"
    started = [sys.executable, "-c", "from scythe.cli import main; main()", "resume", name, *more]
    done = subprocess.run(
        started if command else [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_script_without_a_guard_is_run_once_and_its_run_finishes(script: Callable[[str], Script]) -> None:
    running = script(HAS_NO_GUARD)
    running.go()

    assert running.finish() == 0, running.output
    assert Path("loaded").read_text().splitlines() == ["__main__"]
    assert scythe.read("work")["y"].to_list() == [2 * i for i in range(16)]
    assert calls(running.scratch) == dict.fromkeys(range(16), 1)


def test_a_script_that_ends_without_waiting_finishes_its_run(script: Callable[[str], Script]) -> None:
    running = script(DOES_NOT_WAIT)
    running.until_stuck()
    running.go()

    assert running.finish() == 0, running.output
    assert scythe.open_run("work").status == "finished"
    assert scythe.read("work")["y"].to_list() == [2 * i for i in range(16)]
    assert Path("loaded").read_text().splitlines() == ["__main__"]


@pytest.mark.parametrize(
    ("text", "how", "number"),
    [
        (WAITS, "command", signal.SIGINT),
        (WAITS_WITH_POLARS, "command", signal.SIGINT),
        (DOES_NOT_WAIT, "library", signal.SIGINT),
        (DOES_SOMETHING_ELSE, "library", signal.SIGINT),
        (WAITS, "command", signal.SIGTERM),
        (DOES_SOMETHING_ELSE, "library", signal.SIGHUP),
    ],
    ids=[
        "while it waits",
        "with polars imported",
        "at its end",
        "while it does something else",
        "told to end",
        "terminal closed",
    ],
)
def test_an_interrupt_stops_at_once_and_keeps_what_is_finished(
    script: Callable[[str], Script], text: str, how: Literal["command", "library"], number: int
) -> None:
    running = script(text)
    running.until_stuck()
    assert running.process is not None

    pressed = time.monotonic()
    os.killpg(running.process.pid, number)
    code = running.finish()
    took = time.monotonic() - pressed

    assert took < STOPS_WITHIN_SECONDS * contention()
    assert code != 0
    run = scythe.open_run("work")
    assert f'scythe resume "{run.experiment_id}"' in running.output
    assert "threading.py" not in running.output  # where Scythe had waited is nobody's concern
    assert all(gone(pid) for pid in running.workers())
    assert run.status == "incomplete"
    kept = scythe.read("work", run=run.key.folder)["sort_index"].to_list()
    assert kept
    assert set(kept) <= set(range(10))

    running.go()
    resume_by(how)

    assert run.status == "finished"
    assert scythe.read("work")["y"].to_list() == [2 * i for i in range(16)]
    once_each("work", 16)
    counted = calls(running.scratch)
    assert all(counted[i] == 1 for i in kept)
    assert sorted(counted[i] for i in range(10, 16)) == [1, 1, 1, 1, 2, 2]  # the two that were stopped


IN_THE_SCRIPTS_PROCESS = f"""{DEFINITIONS}{GUARD}
    specs = [Point(experiment_id="", sort_index=i, x=i, scratch=str(Path("scratch").resolve())) for i in range(16)]
    BaseExperiment(experiment=work).allocate(specs, engine="inline", chunk=4)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["told to end", "terminal closed"])
def test_workers_go_on_when_they_are_told_to_end_beside_the_process_that_ends_them(
    script: Callable[[str], Script], number: int
) -> None:
    running = script(WAITS)
    running.until_stuck()
    for worker in running.workers(of=range(10, 16)):
        os.kill(worker, number)
    running.go()
    assert running.finish() == 0, running.output
    assert scythe.read("work")["y"].to_list() == [2 * i for i in range(16)]


def test_a_script_whose_own_process_is_told_to_end_keeps_what_is_finished(script: Callable[[str], Script]) -> None:
    running = script(IN_THE_SCRIPTS_PROCESS)
    eventually(lambda: (running.scratch / "10.calls").exists() or running.ended, "it waits")
    assert running.process is not None
    running.process.send_signal(signal.SIGTERM)
    assert running.finish() != 0
    assert scythe.read("work", run=scythe.open_run("work").key.folder)["sort_index"].to_list() == list(range(8))


def test_a_process_without_a_run_ends_as_ever_when_it_is_told_to(script: Callable[[str], Script]) -> None:
    after = "    ref.result()\n    Path('done').touch()\n    while True:\n        time.sleep(0.01)\n"
    running = script(f"{DEFINITIONS}{GUARD}    run, ref = allocate()\n{after}")
    running.go()
    eventually(lambda: Path("done").exists() or running.ended, "it goes on behind its run")
    assert running.process is not None
    running.process.terminate()
    assert running.finish() == -signal.SIGTERM, running.output


@pytest.mark.parametrize("code", ["", "0", "'I am done'"])
def test_a_function_that_ends_the_program_does_not_do_so_in_silence(script: Callable[[str], Script], code: str) -> None:
    text = IN_THE_SCRIPTS_PROCESS.replace("    while spec.x", f"    if spec.x == 2: sys.exit({code})\n    while spec.x")
    running = script(text)
    assert running.finish() == 1
    assert "the function ended the program: sys.exit(" in running.output
    assert 'scythe resume "work/' in running.output
    assert scythe.read("work", table="errors", run=scythe.open_run("work").key.folder)["sort_index"].to_list() == [2]


def test_workers_die_with_a_parent_that_is_killed_and_the_run_goes_on_elsewhere(
    script: Callable[[str], Script],
) -> None:
    running = script(WAITS)
    running.until_stuck()
    workers = running.workers()
    assert running.process is not None
    assert len(workers) == 2
    assert scythe.open_run("work").status == "running"

    running.process.kill()
    running.finish()

    for worker in workers:
        eventually(lambda worker=worker: gone(worker), f"worker {worker} ends", 10)
    run = scythe.open_run("work")
    assert run.status == "incomplete"
    running.go()
    run.resume().result()
    assert run.status == "finished"
    assert scythe.read("work")["y"].to_list() == [2 * i for i in range(16)]
    once_each("work", 16)


def test_a_run_that_is_worked_on_is_left_alone_by_others_until_it_is_cancelled(
    script: Callable[[str], Script],
) -> None:
    running = script(WAITS)
    running.until_stuck()
    assert running.process is not None
    run = scythe.open_run("work")
    assert run.status == "running"

    for refused in (run.resume, run.retry_errors, run.delete):
        with pytest.raises(RunError, match=r"being worked on"):
            refused()
    assert run.status == "running"

    run.cancel()
    assert running.finish() == 1
    assert "RunCancelled" in running.output
    assert run.status == "cancelled"
    assert all(gone(pid) for pid in running.workers())

    running.go()
    result = run.resume().result()
    assert run.status == "finished"
    once_each("work", 16)
    before = calls(running.scratch)
    assert before[0] == 1
    assert run.resume().result() == result
    assert calls(running.scratch) == before
    with pytest.raises(RunError, match="finished"):
        run.cancel()


def test_the_marks_on_a_run_tell_who_worked_on_it(root: Path) -> None:
    def marked(spec: Order) -> Value:
        return Value(y=1)

    run, ref = register(marked).allocate(orders(root.parent / "s", ["fine"]), engine="local", workers=1)
    ref.result()

    (mark,) = (root / run.key.attempts).iterdir()
    found = json.loads(mark.read_text())
    assert (found["engine"], found["pid"], found["ended"]) == ("local", os.getpid(), True)


CRASH_IN_A_RANGE = """
import os
from scythe.allocate import BaseExperiment
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.registry import ExperimentRegistry

class Order(ExperimentInputSpec):
    x: int

class Answer(ExperimentOutputSpec):
    y: int

@ExperimentRegistry.Register()
def crash(order: Order) -> Answer:
    if order.x == 13:
        os._exit(3)
    return Answer(y=order.x)

orders = [Order(experiment_id="", sort_index=i, x=i) for i in range(40)]
_, ref = BaseExperiment(crash).allocate(orders, chunk=10, workers=2)
print(ref.result(timeout=120).rows)
"""


def test_a_crash_in_the_middle_of_a_range_costs_none_of_its_mates(root: Path, tmp_path: Path) -> None:
    script = tmp_path / "crash.py"
    script.write_text(CRASH_IN_A_RANGE)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=150)
    assert (done.returncode, done.stdout.strip()) == (0, "39"), done.stderr
    assert scythe.read("crash")["sort_index"].to_list() == [i for i in range(40) if i != 13]
    assert scythe.read("crash", table="errors")["sort_index"].to_list() == [13]
