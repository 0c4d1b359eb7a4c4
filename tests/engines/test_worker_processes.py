"""What a worker process inherits, and what a function may do in it without harm to others: start-up, forks, logs, threads."""

from __future__ import annotations

import logging
import math
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scythe
from scythe.allocate import BaseExperiment
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.define.code import Code
from scythe.engines.pool import cores, crashes, logs
from scythe.engines.pool.job import pool_job
from scythe.engines.pool.pool import Chunk, Died, Done, Pool
from scythe.errors import SettingsError
from scythe.record.plan import RunPlan
from scythe.registry import ExperimentRegistry, experiment_of
from scythe.settings import storage
from tests.cluster import wait_for
from tests.engines.a_script import run_script

cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Tick(ExperimentInputSpec):
    n: int


class Seen(ExperimentOutputSpec):
    found: int
    text: str = ""


class Marked(Tick):
    mark: str


def finish(function: Callable[..., Any], n: int, **how: Any) -> pl.DataFrame:
    """The rows of a run that no input of has failed."""
    ExperimentRegistry.Register(name=function.__name__, retries=0)(function)
    specs = pl.DataFrame({"n": range(n)})
    _, ref = BaseExperiment(function.__name__).allocate(specs, engine="local", **{"workers": 2, **how})
    result = ref.result(timeout=100)
    assert result.errors == 0, scythe.read(function.__name__, table="errors")["traceback"].to_list()
    return scythe.read(function.__name__).sort("sort_index")


# --- how it starts ----------------------------------------------------------------------------------


def test_workers_run_under_the_flags_of_the_caller(root: Path) -> None:
    done = run_script(
        "if __name__ == '__main__':\n    go()\n    print(scythe.read('look')['text'][0])\n",
        "-OO", "-B", "-X", "utf8", "-W", "ignore::FutureWarning",
    )  # fmt: skip

    assert done.stdout.strip() == "2 1 1 ['ignore::FutureWarning']", done.stderr


@pytest.mark.parametrize(
    "lost",
    [
        "os.close(2); sys.stderr = None",
        "os.close(0); os.close(1); os.close(2)",
        "sys.stderr.close()",
        "sys.stdin = sys.stdout = sys.stderr = None",
    ],
)
def test_a_script_without_standard_streams_runs_as_any_other(root: Path, lost: str) -> None:
    done = run_script(f"if __name__ == '__main__':\n    {lost}\n    go()\n")

    assert scythe.open_run("look").status == "finished", done.stderr
    assert scythe.read("look").height == 2


def test_nothing_of_a_run_gets_the_number_of_a_closed_standard_stream(root: Path) -> None:
    body = """
if __name__ == '__main__':
    os.close(2)
    run, ref = BaseExperiment(look).allocate(pl.DataFrame({"n": [1]}), engine="local", workers=1)
    ref.result(timeout=100)
    print(os.readlink("/proc/self/fd/2"))
"""
    if not Path("/proc/self/fd").exists():
        pytest.skip("the handles of a process are looked up in /proc")
    assert run_script(body).stdout.strip() == os.devnull


def test_a_working_folder_that_is_gone_is_named_before_anything_is_written(root: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    ExperimentRegistry.Register(name="homeless")(remember)

    with pytest.raises(SettingsError, match="working folder of this process has been removed"):
        BaseExperiment("homeless").allocate(pl.DataFrame({"n": [1]}), engine="local")

    assert not root.exists()


def remember(spec: Tick) -> Seen:
    return Seen(found=spec.n)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_process_of_multiprocessing_runs_experiments_of_its_script(root: Path, method: str) -> None:
    body = f"""
if __name__ == '__main__':
    import multiprocessing
    child = multiprocessing.get_context({method!r}).Process(target=go, daemon=True)
    child.start()
    child.join(100)
    sys.exit(child.exitcode)
"""
    done = run_script(body)

    assert done.returncode == 0, done.stderr
    assert scythe.read("look").height == 2


GENERIC = """
from typing import Generic, TypeVar

from pydantic import BaseModel

from scythe import ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry

T = TypeVar("T")

class Of(BaseModel, Generic[T]):
    v: T

class Given(ExperimentInputSpec):
    a: Of[float]

class Made(ExperimentOutputSpec):
    b: Of[int] = Of[int](v=7)
    c: Of[list[Of[int]]]

@ExperimentRegistry.Register(retries=0)
def generic(spec: Given) -> Made:
    assert type(spec.a) is Of[float]
    return Made(b=Of[int](v=int(spec.a.v)), c=Of[list[Of[int]]](v=[Of[int](v=2)])) if spec.a.v else Made(c={"v": [{"v": 1}]})
"""


@pytest.mark.parametrize("where", ["a module", "the script"])
def test_generic_models_with_their_parameters_are_those_that_they_are_in_the_script(root: Path, where: str) -> None:
    go = "from scythe import BaseExperiment\nif __name__ == '__main__':\n    given = [Given(a=Of[float](v=v)) for v in (0.0, 3.0)]\n    print(BaseExperiment(generic).allocate(given, workers=1)[1].result().rows)\n"  # fmt: skip
    Path("generics.py").write_text(GENERIC)
    Path("go.py").write_text(("from generics import *\n" if where == "a module" else GENERIC) + go)
    done = subprocess.run([sys.executable, "go.py"], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["2"], done.stderr
    assert scythe.read("generic").select("b", "c").rows() == [
        ({"v": 7}, {"v": [{"v": 1}]}),
        ({"v": 3}, {"v": [{"v": 2}]}),
    ]


# --- forks of the function --------------------------------------------------------------------------


def forks(spec: Tick) -> Seen:
    import os

    if spec.n % 3 == 0 and os.fork() == 0 and spec.n % 2 == 0:
        raise SystemExit(3)
    return Seen(found=spec.n)


def test_a_process_that_a_function_forks_and_forgets_changes_nothing_of_its_parents_run(root: Path) -> None:
    rows = finish(forks, 40, chunk=8)

    assert rows["found"].to_list() == list(range(40))


def waits_for_its_fork(spec: Tick) -> Seen:
    import os
    import sys

    child = os.fork()
    if child == 0 and spec.n == 1:
        sys.exit(5)
    if child == 0 and spec.n == 2:
        raise ValueError("in the child")
    if child == 0:
        return Seen(found=-1)
    _, status = os.waitpid(child, 0)
    return Seen(found=os.waitstatus_to_exitcode(status))


def test_a_forked_process_ends_where_its_function_does_with_a_code_that_tells_how(root: Path) -> None:
    rows = finish(waits_for_its_fork, 3, chunk=3, workers=1)

    assert rows["found"].to_list() == [0, 5, 1]


def ends_its_own(spec: Tick) -> Seen:
    import multiprocessing
    import os
    import signal
    import subprocess
    import time

    number = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP][spec.n]
    with multiprocessing.Pool(2) as pool:  # which ends its processes by SIGTERM
        assert pool.map(abs, [-1, 2]) == [1, 2]
    program = subprocess.Popen(["sleep", "60"])
    begun, begins = os.pipe()

    def sleeps() -> None:
        os.write(begins, b".")  # a signal before that may come while Python ignores what is raised
        time.sleep(60)

    child = multiprocessing.get_context("fork").Process(target=sleeps)
    child.start()
    os.read(begun, 1)
    for pid in (program.pid, child.pid):
        assert pid is not None
        os.kill(pid, number)
    child.join()
    return Seen(found=(program.wait() == -number) + (child.exitcode in (-number, 1)))


def test_processes_that_a_function_starts_end_at_its_signals(root: Path) -> None:
    rows = finish(ends_its_own, 3, chunk=3, workers=1)

    assert rows["found"].to_list() == [2, 2, 2]


def shares(spec: Tick) -> Seen:
    import multiprocessing
    import tempfile

    with multiprocessing.get_context("spawn").Manager() as manager:  # which listens on a socket in the temporary folder
        with tempfile.NamedTemporaryFile() as file:
            assert Path(file.name).resolve().is_relative_to(os.environ["FAR"])
        return Seen(found=sum(manager.list([spec.n, 1])))


def test_processes_that_a_function_starts_can_listen_however_long_the_name_of_the_temporary_folder_is(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = tmp_path.resolve() / ("x" * 80)
    far.mkdir()
    monkeypatch.setenv("FAR", str(far))
    monkeypatch.setattr(tempfile, "tempdir", str(far))

    rows = finish(shares, 2, chunk=2, workers=1)

    assert rows["found"].to_list() == [1, 2]
    assert list(far.iterdir()) == []


# --- logs -------------------------------------------------------------------------------------------


def logs_oddly(spec: Tick) -> Seen:
    import logging
    import threading

    class Odd:
        def __reduce__(self) -> Any:
            return exec, ("raise RuntimeError('not here')",)

    log = logging.getLogger("odd")
    log.warning("held by %s", spec.n, extra={"lock": threading.Lock(), "kept": 7, "odd": Odd()})
    log.warning("%s and %s", *[1])
    log.warning(Odd())
    return Seen(found=spec.n)


def test_a_record_that_cannot_travel_as_it_is_arrives_with_what_can(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    finish(logs_oddly, 2, workers=1)

    held = [r for r in caplog.records if r.name == "odd" and r.getMessage().startswith("held by")]
    assert sorted(r.getMessage() for r in held) == ["held by 0", "held by 1"]
    assert all(r.kept == 7 and not hasattr(r, "lock") and not hasattr(r, "odd") for r in held)  # type: ignore[attr-defined]
    assert len([r for r in caplog.records if r.name == "odd"]) == 6


def test_a_filter_of_the_caller_that_fails_is_told_and_stops_no_run(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(record: logging.LogRecord) -> bool:
        raise KeyError("no such context")

    log = logging.getLogger("odd")
    log.addFilter(fails)
    try:
        finish(logs_oddly, 1, workers=1)
    finally:
        log.removeFilter(fails)

    assert "no such context" in capsys.readouterr().err


values = st.one_of(
    st.none(), st.integers(), st.text(), st.binary(), st.just(threading.Lock), st.builds(threading.Lock),
    st.builds(lambda: (i for i in range(3))), st.lists(st.builds(object)), st.just(lambda: 1),
)  # fmt: skip


@given(st.one_of(st.text(), values), st.lists(values, max_size=3), st.dictionaries(st.text(min_size=1), values))
def test_any_record_can_be_sent_and_rebuilt(message: Any, args: list[Any], extra: dict[str, Any]) -> None:
    record = logging.LogRecord("any", logging.ERROR, __file__, 1, message, tuple(args), None)
    vars(record).update({k: v for k, v in extra.items() if k not in vars(record)})

    arrived = logs.rebuilt(logs.portable(record))

    assert isinstance(arrived.getMessage(), str)
    assert (arrived.name, arrived.levelno, arrived.lineno) == ("any", logging.ERROR, 1)


# --- threads and cores ------------------------------------------------------------------------------


def count_threads(spec: Tick) -> Seen:
    import polars as pl
    import pyarrow as pa

    return Seen(found=pa.cpu_count(), text=f"{os.environ['OMP_NUM_THREADS']} {pl.thread_pool_size()}")


def test_all_workers_together_start_no_more_threads_than_there_are_cores(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*cores._NUMERICAL, *cores._OTHERS):
        monkeypatch.delenv(name, raising=False)
    each = max(1, cores.cpus() // 2)

    rows = finish(count_threads, 2)

    assert set(rows["text"]) == {f"{each} {each}"}
    assert set(rows["found"]) == {each}


def test_who_has_set_a_number_of_threads_keeps_it() -> None:
    assert cores.thread_limits(10**6, {}).keys() >= {"OMP_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS"}
    assert set(cores.thread_limits(10**6, {}).values()) == {"1"}
    assert "OMP_NUM_THREADS" not in cores.thread_limits(4, {"MKL_NUM_THREADS": "3"})
    assert "POLARS_MAX_THREADS" in cores.thread_limits(4, {"MKL_NUM_THREADS": "3"})
    assert "POLARS_MAX_THREADS" not in cores.thread_limits(4, {"POLARS_MAX_THREADS": "3"})
    assert cores.thread_limits(1, {})["OMP_NUM_THREADS"] == str(cores.cpus())


V2 = "31 24 0:27 {shown} /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "33 32 0:28 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
    "34 32 0:29 {shown} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
)

MEMORY_V1 = "35 32 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"


@pytest.mark.parametrize(
    ("mounts", "groups", "files", "expected"),
    [
        (V2.format(shown="/"), "0::/", {"cpu.max": "max 100000"}, math.inf),
        (V2.format(shown="/"), "0::/a/b", {"a/b/cpu.max": "250000 100000"}, 2.5),
        (V2.format(shown="/"), "0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "50000 100000"}, 0.5),
        (V2.format(shown="/pod/x"), "0::/pod/x/job", {"job/cpu.max": "300000 100000", "cpu.max": "2000 1000"}, 2.0),
        (V2.format(shown="/"), "0::/../other", {"cpu.max": "100000 100000"}, 1.0),
        (V1.format(shown="/"), "4:cpu,cpuacct:/j\n3:cpuset:/", {"j/cpu.cfs_quota_us": "150000"}, 1.5),
        (V1.format(shown="/"), "4:cpu,cpuacct:/j", {"j/cpu.cfs_quota_us": "-1"}, math.inf),
        (V1.format(shown="/docker/7"), "4:cpu,cpuacct:/docker/7", {"cpu.cfs_quota_us": "400000"}, 4.0),
    ],
)
def test_the_quota_is_the_least_of_the_groups_that_a_process_lies_in(
    tmp_path: Path, mounts: str, groups: str, files: dict[str, str], expected: float
) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(groups)
    (tmp_path / "proc/self/mountinfo").write_text(mounts)
    at = tmp_path / ("sys/fs/cgroup" if "cgroup2" in mounts else "sys/fs/cgroup/cpu,cpuacct")
    for name, text in files.items():
        (at / name).parent.mkdir(parents=True, exist_ok=True)
        (at / name).write_text(f"{text}\n")
        if name.endswith("quota_us"):
            (at / name).with_name("cpu.cfs_period_us").write_text("100000\n")

    assert cores.quota(tmp_path) == expected


def test_without_control_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert cores.quota(tmp_path) == math.inf


@pytest.mark.skipif(sys.version_info < (3, 13), reason="PYTHON_CPU_COUNT is new in Python 3.13")
def test_a_number_of_cores_that_python_was_told_counts(root: Path) -> None:
    program = "from scythe.engines.pool.cores import cpus; print(cpus())"
    for command, environment in (
        (["-c"], {"PYTHON_CPU_COUNT": "7"}),
        (["-X", "cpu_count=7", "-c"], {}),
    ):
        done = subprocess.run(
            [sys.executable, *command, program], env={**os.environ, **environment}, capture_output=True, text=True, check=True
        )  # fmt: skip
        assert done.stdout.strip() == "7"


# --- how far they are ---------------------------------------------------------------------------------------


def double(spec: Tick) -> Seen:
    return Seen(found=2 * spec.n)


def test_inputs_of_a_chunk_that_is_on_its_way_back_count_as_done_and_are_counted_once(root: Path) -> None:
    ExperimentRegistry.Register(name="double", retries=0)(double)
    run, ref = BaseExperiment("double").allocate(pl.DataFrame({"n": range(9)}), engine="inline")
    ref.result()
    job = pool_job(RunPlan.load(storage(), run.key), experiment_of("double"), Code(None))
    with Pool(1) as pool:
        for rows in (range(5), range(5, 9)):
            pool.submit(Chunk(rows), job)
        wait_for(lambda: pool.running() == 9)  # nobody has asked what came back
        done, left = 0, [9]
        while done < 9:
            done += sum(event.chunk.size for event in pool.poll(1.0) if isinstance(event, Done))
            left.append(pool.running())
            assert done + left[-1] == 9
        assert left == sorted(left, reverse=True)


@pytest.mark.parametrize(
    ("mounts", "groups", "file", "text", "expected"),
    [
        (V2.format(shown="/"), "0::/job/step", "job/step/memory.events", "low 0\noom 4\noom_kill 3\n", 3),
        (V2.format(shown="/pod/x"), "0::/pod/x", "memory.events", "oom_kill 2\noom_group_kill 0\n", 2),
        (V2.format(shown="/"), "0::/job", "cpu.max", "max 100000\n", 0),
        (MEMORY_V1, "4:memory:/slurm/job_7", "slurm/job_7/memory.oom_control", "under_oom 0\noom_kill 1\n", 1),
        (MEMORY_V1, "4:memory:/slurm/job_7", "memory.oom_control", "oom_kill_disable 0\n", 0),
    ],
)
def test_a_control_group_tells_how_many_processes_were_killed_for_want_of_memory(
    tmp_path: Path, mounts: str, groups: str, file: str, text: str, expected: int
) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(groups)
    (tmp_path / "proc/self/mountinfo").write_text(mounts)
    at = tmp_path / ("sys/fs/cgroup" if "cgroup2" in mounts else "sys/fs/cgroup/memory") / file
    at.parent.mkdir(parents=True)
    at.write_text(text)

    assert crashes.memory_kills(tmp_path) == expected


def test_a_death_for_want_of_memory_says_nothing_of_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = [crashes.memory_kills()]
    monkeypatch.setattr(crashes, "memory_kills", lambda: counted[0])
    killed = Died(Chunk(np.array([4])), 0, 1, False, -9, 0.0, 0.0, "w")
    assert not crashes.after(killed, 0).short
    counted[0] += 1
    assert crashes.after(killed, 1).short
    assert not crashes.after(killed, 0).short


def _group_of_little_memory(name: str, megabytes: int) -> Path:
    """A control group of this system in which no more memory can be had; skips where none can be made."""
    for folder, is_v2 in cores.control_groups("memory"):
        group = folder / name
        try:
            group.mkdir()
            (group / ("memory.max" if is_v2 else "memory.limit_in_bytes")).write_text(str(megabytes << 20))
        except OSError:
            continue
        return group
    pytest.skip("no control group with a limit of memory can be made here: it needs root, and a system that lets it")


def test_an_input_that_exhausts_the_memory_of_its_job_says_so(root: Path) -> None:
    group = _group_of_little_memory(f"scythe-{os.getpid()}", 600)
    try:
        Path("eats.py").write_text(
            "import os, sys\n"
            f"open('{group}/cgroup.procs', 'w').write(str(os.getpid()))\n"
            "from scythe import BaseExperiment, ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry\n"
            "class Asked(ExperimentInputSpec):\n    megabytes: int\n"
            "class Had(ExperimentOutputSpec):\n    size: int\n"
            "@ExperimentRegistry.Register(retries=1)\n"
            "def eats(asked: Asked) -> Had:\n    return Had(size=len(bytearray(b'x') * (asked.megabytes << 20)))\n"
            "if __name__ == '__main__':\n"
            "    inputs = [Asked(megabytes=size) for size in (1, 3000, 2)]\n"
            "    print(BaseExperiment(eats).allocate(inputs, engine='local', workers=1)[1].result().rows)\n"
        )
        done = subprocess.run([sys.executable, "eats.py"], capture_output=True, text=True, check=False)
    finally:
        wait_for(lambda: not (group / "cgroup.procs").read_text().strip())
        group.rmdir()

    assert done.stdout.strip() == "2", done.stderr
    errors = scythe.read("eats", table="errors")
    assert errors["sort_index"].to_list() == [1]
    assert errors["attempts"].to_list() == [2]
    assert (
        "of SIGKILL: OUT_OF_MEMORY, the job or container that it is in may use no more"
        in errors["exception_message"][0]
    )
