"""The process that worker processes are forked from: one for a run, kept for the next, and whatever becomes of it no input pays."""

from __future__ import annotations

import os
import resource
import signal
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cloudpickle
import polars as pl
import pytest

import scythe
from scythe.allocate import BaseExperiment
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.engines.pool import fork_server
from scythe.engines.pool.pool import Pool
from scythe.registry import ExperimentRegistry
from tests.cluster import descendants, wait_for
from tests.engines.a_script import run_script

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="worker processes are forked on Linux alone")
cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Tick(ExperimentInputSpec):
    n: int


class Seen(ExperimentOutputSpec):
    found: int
    text: str = ""


class Marked(Tick):
    mark: str


def origin(spec: Tick) -> Seen:
    if spec.n % 10 == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return Seen(
        found=os.getppid(), text=f"{os.getpid()} {os.getsid(0)} {resource.getrusage(resource.RUSAGE_SELF).ru_utime}"
    )


def test_a_process_that_takes_the_place_of_a_dead_one_is_forked_of_what_is_loaded_already(root: Path) -> None:
    ExperimentRegistry.Register(name="origin", retries=0)(origin)
    _, ref = BaseExperiment("origin").allocate(
        pl.DataFrame({"n": range(60)}), engine="local", workers=2, chunk=5, max_errors=None
    )
    assert ref.result(timeout=100).errors == 6

    rows = scythe.read("origin")
    processes = [text.split() for text in rows["text"]]
    assert len(set(rows["found"])) == 1  # one process forks all
    assert os.getpid() not in set(rows["found"])
    assert len({pid for pid, _, _ in processes}) >= 4
    assert all(pid == session for pid, session, _ in processes)  # so that it can be killed with all that it has started
    # The CPU time of a process counts from its fork: loading anew would take several times as long.
    assert statistics.median(float(seconds) for _, _, seconds in processes) < 0.2


def parricide(spec: Marked) -> Seen:
    if spec.n == 5 and not Path(spec.mark).exists():
        Path(spec.mark).touch()
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)  # its own end comes with that of its parent
    return Seen(found=spec.n)


def test_a_run_goes_on_where_the_process_that_its_processes_are_forked_from_is_killed(
    root: Path, tmp_path: Path
) -> None:
    ExperimentRegistry.Register(name="parricide", retries=0)(parricide)  # and no input pays for it
    specs = pl.DataFrame({"n": range(12), "mark": str(tmp_path / "mark")})

    _, ref = BaseExperiment("parricide").allocate(specs, engine="local", workers=2, chunk=1)

    assert ref.result(timeout=100).errors == 0
    assert (tmp_path / "mark").exists()
    assert sorted(scythe.read("parricide")["found"]) == list(range(12))


def test_a_pool_that_is_closed_before_its_processes_are_there_leaves_none(root: Path) -> None:
    with Pool(3) as pool:
        first = {worker.process.pid for worker in pool._workers}
    wait_for(lambda: not first & set(descendants(os.getpid())))


BLOCKED = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT})
os.environ["SCYTHE_STORAGE_ROOT"] = "here"

@ExperimentRegistry.Register(name="die", retries=0)
def die(spec: Tick) -> Seen:
    if spec.n == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return Seen(text="")

ref = BaseExperiment(die).allocate(pl.DataFrame({"n": range(4)}), engine="local", workers=2, chunk=1)[1]
print(ref.result().errors)
"""


def test_signals_that_the_caller_was_started_without_are_heard_by_those_who_need_them(root: Path) -> None:
    assert run_script(BLOCKED).stdout == "1\n"


FULL = """
import os, sys
if "forking.serve" in " ".join(sys.orig_argv):
    def fork():
        raise BlockingIOError(11, "Resource temporarily unavailable")
    os.fork = fork
"""


def test_where_no_process_can_be_forked_the_run_says_so_and_leaves_nothing(root: Path, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(FULL)
    (tmp_path / "temp").mkdir()
    there = {**os.environ, "PYTHONPATH": f"{tmp_path / 'site'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}

    done = run_script("\ngo()\n", env={**there, "TMPDIR": str(tmp_path / "temp")})

    assert "cannot be forked" in done.stderr
    assert "RunError: worker processes die before they are ready" in done.stderr
    assert list((tmp_path / "temp").iterdir()) == []


def test_no_number_of_a_process_is_signalled_again_once_it_may_be_anothers(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signalled: list[int] = []
    killpg = os.killpg
    monkeypatch.setattr(os, "killpg", lambda pid, number: (signalled.append(pid), killpg(pid, number))[1])
    ExperimentRegistry.Register(name="origin", retries=0)(origin)

    specs = pl.DataFrame({"n": range(30)})
    BaseExperiment("origin").allocate(specs, engine="local", workers=2, chunk=1, max_errors=None)[1].result(timeout=100)

    assert len(signalled) >= 5  # three that died, two at the end
    assert len(signalled) == len(set(signalled))


# --- one run after another ----------------------------------------------------------------------------------


def standing(spec: Tick) -> Seen:
    """What its process is given, and who has forked it."""
    print("seen", spec.n, flush=True)
    os.umask(mask := os.umask(0))
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    cores = sorted(os.sched_getaffinity(0))
    told = [os.environ.get(name) for name in ("SCYTHE_TOLD", "TOLD", "OMP_NUM_THREADS")]
    return Seen(found=os.getppid(), text=repr((told, mask, files, cores, str(Path.cwd()), sys.path[0])))


def seen(workers: int = 1) -> tuple[int, str]:
    """Who has forked the processes of a run, and what they were given."""
    ExperimentRegistry.Register(name="standing", retries=0)(standing)
    run, ref = BaseExperiment("standing").allocate(pl.DataFrame({"n": [0]}), engine="local", workers=workers)
    assert ref.result(timeout=100).errors == 0
    return scythe.read("standing", run=run.key.folder).select("found", "text").row(0)


def test_the_next_run_takes_the_process_that_the_last_one_has_left(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SCYTHE_TOLD", "first")
    first, before = seen()
    assert "seen 0" in capfd.readouterr().out

    monkeypatch.setenv("SCYTHE_TOLD", "second")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr(sys, "path", ["/nowhere", *sys.path])
    second, after = seen()

    assert second == first
    assert "seen 0" in capfd.readouterr().out  # where this process prints now
    moved = before.replace("'first'", "'second'").replace(str(tmp_path / "work"), str(tmp_path / "elsewhere"))
    assert after == moved.replace(f"{sys.path[1]!r})", "'/nowhere')")


def fewer_files() -> Callable[[], object]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def another_mask() -> Callable[[], object]:
    mask = os.umask(0o027)
    return lambda: os.umask(mask)


def one_core() -> Callable[[], object]:
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    return lambda: os.sched_setaffinity(0, cores)


def another_environment() -> Callable[[], object]:
    os.environ["TOLD"] = os.environ["OMP_NUM_THREADS"] = "1"
    return lambda: (os.environ.pop("TOLD"), os.environ.pop("OMP_NUM_THREADS"))


@pytest.mark.parametrize("change", [fewer_files, another_mask, one_core, another_environment])
def test_what_has_changed_between_two_runs_holds_for_the_second(
    root: Path, change: Callable[[], Callable[[], object]]
) -> None:
    _, before = seen()
    undo = change()
    try:
        _, after = seen()
    finally:
        undo()
    assert after != before
    assert seen()[1] == before


def test_a_process_that_nobody_takes_ends_by_itself(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fork_server, "_IDLE_SECONDS", 0.1)
    monkeypatch.setenv("ANOTHER", "environment")  # so that it is begun now
    first, _ = seen()
    wait_for(lambda: not Path(f"/proc/{first}").exists() or "State:\tZ" in Path(f"/proc/{first}/status").read_text())
    second, _ = seen()
    assert second != first


AFTER = """
import contextlib
import glob
import threading

def left():
    found = set()
    for _ in range(2):  # a thread that ends between two looks leaves its children to one that was looked at already
        for path in glob.glob("/proc/self/task/*/children"):  # of whichever thread
            with contextlib.suppress(OSError), open(path) as file:  # a thread may end
                found |= {*file.read().split()}
    return sorted(found)

go()
kept = left()
assert len(kept) == 1, kept
child = os.fork()
if child == 0:
    sys.exit(0)  # what it leaves behind is not its own
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
go()
assert left() == kept
several = [threading.Thread(target=go) for _ in range(3)]
for one in several:
    one.start()
for one in several:
    one.join()
assert len(left()) <= 1, left()
print(*left() or kept)
"""


def test_a_script_leaves_none_of_them_behind_and_forks_of_it_touch_none(root: Path) -> None:
    done = run_script(AFTER, "-W", "error")

    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert not Path(f"/proc/{done.stdout.strip()}").exists()
