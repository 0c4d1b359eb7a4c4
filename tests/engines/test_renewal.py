"""A leak of handles or memory costs no later input: worker processes make room for fresh ones, and say nothing wrong of it."""

from __future__ import annotations

import errno
import gc
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scythe
from scythe.allocate import BaseExperiment
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.errors import RegistrationError
from scythe.leaf.renewal import is_exhaustion
from scythe.registry import ExperimentRegistry
from scythe.utils.filesys import FileReference

cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Probe(ExperimentInputSpec):
    n: int
    calls: str = ""


class Found(ExperimentOutputSpec):
    pid: int


class Filed(ExperimentOutputSpec):
    pid: int
    trace: FileReference


@pytest.fixture
def few_handles() -> Iterator[None]:
    """So few handles that a leak of one an input is met soon; workers inherit the limit."""
    gc.collect()  # handles that earlier tests have left in this process are none of the leak
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (160, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def finish(function: Any, specs: pl.DataFrame, *, chunk: int | None = None, workers: int = 1, **options: Any) -> Any:
    ExperimentRegistry.Register(name=function.__name__, **options)(function)
    _, ref = BaseExperiment(function.__name__).allocate(specs, engine="local", workers=workers, chunk=chunk)
    return ref.result(timeout=200)


def leaks(spec: Probe, tempdir: Path) -> Filed:
    import builtins
    import os

    kept = vars(builtins).setdefault("_kept", [])
    kept.append(open("/dev/null"))  # noqa: PTH123, SIM115
    (tempdir / "trace.txt").write_text(str(spec.n))
    return Filed(pid=os.getpid(), trace=tempdir / "trace.txt")


def test_a_function_that_leaks_a_handle_an_input_fails_none_of_them(root: Path, few_handles: None) -> None:
    result = finish(leaks, pl.DataFrame({"n": range(300)}), retries=0, chunk=70)

    assert (result.rows, result.errors) == (300, 0)
    assert set(scythe.read("leaks", table="tasks")["attempts"]) == {1}
    rows = scythe.read("leaks").sort("sort_index")
    assert rows["n"].to_list() == list(range(300))
    assert rows["pid"].n_unique() >= 3
    traces = scythe.files("leaks").sort("sort_index")["trace"]
    assert [Path(uri.removeprefix("file://")).read_text() for uri in traces] == [str(n) for n in range(300)]


def needs_too_much(spec: Probe) -> Found:
    import errno
    import os

    with open(f"{spec.calls}/{spec.n}", "a") as file:  # noqa: PTH123
        file.write(f"{os.getpid()}\n")
    if spec.n == 2:
        raise MemoryError
    if spec.n == 4:
        try:
            raise OSError(errno.EMFILE, "no more of them")
        except OSError as error:
            raise ValueError("the simulator did not start") from error
    return Found(pid=os.getpid())


def test_an_input_that_itself_needs_too_much_is_tried_in_one_fresh_process_beside_its_retries(
    root: Path, tmp_path: Path
) -> None:
    specs = pl.DataFrame({"n": range(8), "calls": [str(tmp_path)] * 8})

    result = finish(needs_too_much, specs, retries=1, chunk=8)

    assert (result.rows, result.errors) == (6, 2)
    errors = scythe.read("needs_too_much", table="errors").sort("sort_index")
    assert errors["exception_type"].to_list() == ["MemoryError", "ValueError"]
    assert errors["attempts"].to_list() == [2, 2]
    tried = {n: (tmp_path / str(n)).read_text().split() for n in range(8)}
    assert [len(tried[n]) for n in range(8)] == [1, 1, 3, 1, 3, 1, 1, 1]
    assert all(len(set(tried[n])) == 2 and len(set(tried[n][1:])) == 1 for n in (2, 4))


def test_on_inline_exhaustion_is_raised_at_once(root: Path, tmp_path: Path) -> None:
    ExperimentRegistry.Register(name="needs_too_much", retries=1)(needs_too_much)

    with pytest.raises(MemoryError):
        BaseExperiment("needs_too_much").allocate(
            pl.DataFrame({"n": [1, 2], "calls": [str(tmp_path)] * 2}), engine="inline"
        )

    assert len((tmp_path / "2").read_text().split()) == 1


def tells_its_process(spec: Probe) -> Found:
    import os

    return Found(pid=os.getpid())


@pytest.mark.parametrize("chunk", [1, 4, None])
def test_a_process_runs_no_more_inputs_than_its_experiment_allows(root: Path, chunk: int | None) -> None:
    result = finish(tells_its_process, pl.DataFrame({"n": range(10)}), chunk=chunk, retries=0, max_inputs_per_process=3)

    assert (result.rows, result.errors) == (10, 0)
    counts = scythe.read("tells_its_process").group_by("pid").len()["len"]
    assert max(counts) <= 3
    assert scythe.read("tells_its_process").sort("sort_index")["n"].to_list() == list(range(10))


@pytest.mark.parametrize("most", [0, -1, 2.5, "9", True])
def test_a_limit_of_inputs_that_makes_no_sense_is_refused_at_registration(most: Any) -> None:
    with pytest.raises(RegistrationError, match="max_inputs_per_process"):
        ExperimentRegistry.Register(max_inputs_per_process=most)(tells_its_process)


class Hostile(Exception):
    """An exception whose own code leaves the process."""

    def __str__(self) -> str:
        raise SystemExit(7)


codes = st.sampled_from([errno.EMFILE, errno.ENFILE, errno.ENOMEM])
ordinary = st.sampled_from([ValueError("x"), OSError(errno.ENOENT, "x"), OSError("x"), Hostile(), KeyError()])


@given(st.one_of(codes.map(lambda code: OSError(code, "x")), st.just(MemoryError())), st.lists(ordinary, max_size=5))
def test_exhaustion_is_seen_through_whatever_it_was_wrapped_in(cause: BaseException, around: list[Exception]) -> None:
    wrapped = cause
    for error in [type(e)(*e.args) for e in around]:
        error.__cause__ = wrapped
        wrapped = error

    assert is_exhaustion(wrapped)


@given(ordinary)
def test_other_errors_are_no_exhaustion(error: Exception) -> None:
    assert not is_exhaustion(error)


CANCELLED = """
import os, sys, time
import polars as pl
import scythe
from scythe import BaseExperiment, ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry

class Probe(ExperimentInputSpec):
    n: int

class Found(ExperimentOutputSpec):
    y: int

@ExperimentRegistry.Register()
def long(spec: Probe) -> Found:
    if spec.n == 1:
        os.system(f"{sys.executable} -c 'from scythe.cli import main; main()' cancel long")
        time.sleep(3)
    return Found(y=spec.n)

try:
    BaseExperiment(long).allocate(pl.DataFrame({"n": range(10**6)}), engine="inline", chunk=5)
except scythe.errors.RunCancelled as error:
    print(error)
"""


def test_cancel_stops_an_inline_run_before_its_next_input(root: Path) -> None:
    Path("script.py").write_text(CANCELLED)

    done = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, timeout=120, check=False)

    assert "was cancelled" in done.stdout, done.stderr
    run = scythe.open_run("long")
    assert run.status == "cancelled"
    assert scythe.read("long", run=run.key.folder)["n"].to_list() == [0, 1]
