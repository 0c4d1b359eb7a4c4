"""Many quick inputs in a row are looked at together: what one does, and takes back, is nothing to the others all the same."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import polars as pl
import pytest

import scythe
from scythe import (
    BaseExperiment,
    ExperimentInputSpec,
    ExperimentOutputSpec,
    ExperimentRegistry,
    FileReference,
)
from scythe.leaf import surroundings

cloudpickle.register_pickle_by_value(sys.modules[__name__])

MANY = 400


class Case(ExperimentInputSpec):
    k: int
    how: str = ""


class Found(ExperimentOutputSpec):
    x: float = 0.0
    text: str = ""
    f: FileReference | None = None


def ran(function: Callable[..., Any], hows: list[str], engine: str = "local") -> pl.DataFrame:
    """The outputs of a run in one process, in one chunk."""
    ExperimentRegistry.Register(name="case", retries=0)(function)
    options: dict[str, Any] = {"workers": 1, "chunk": MANY} if engine == "local" else {}
    specs = pl.DataFrame({"k": range(len(hows)), "how": hows})
    BaseExperiment("case").allocate(specs, engine=engine, max_errors=None, **options)[1].result()
    files = scythe.files("case").select("sort_index", "f")
    return scythe.read("case").join(files, on="sort_index", how="left", maintain_order="left")


# --- random numbers -----------------------------------------------------------------------------------------


def restored() -> float:
    state = random.getstate()
    found = random.random()
    random.setstate(state)
    return found


def copied() -> float:
    other = random.Random()
    other.setstate(random.getstate())
    return other.random()


def numpys_restored() -> float:
    state = np.random.get_state()
    found = float(np.random.random())
    np.random.set_state(state)
    return found


def numpys_copied() -> float:
    other = np.random.RandomState()
    other.set_state(np.random.get_state())
    return float(other.random())


@pytest.mark.parametrize("draw", [restored, copied, numpys_restored, numpys_copied], ids=lambda draw: draw.__name__)
@pytest.mark.parametrize("from_input", [0, 100])
def test_a_state_of_random_numbers_that_is_read_is_that_of_the_input(
    draw: Callable[[], float], from_input: int, root: Path
) -> None:
    def case(spec: Case) -> Found:
        return Found(x=draw() if spec.k >= from_input else -1.0 - spec.k)

    found = ran(case, [""] * MANY)
    assert found["x"].n_unique() == MANY


def test_inputs_are_trusted_only_where_what_they_do_is_noticed() -> None:
    """An engine of another package may call the leaf in the process of the script."""
    around = surroundings.Surroundings()
    with around.kept():
        for i in range(200):
            around.before(lambda i=i: i)
            around.after(0.0)
    assert not around.trusted


# --- folders, masks, handlers, timers -----------------------------------------------------------------------


def test_a_folder_that_is_left_and_come_back_to_is_of_one_input_alone(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, other = tmp_path / "base", tmp_path / "other"
    for folder in (base, other):
        folder.mkdir()
        (folder / "rel.txt").write_text(f"of the {folder.name}")
    monkeypatch.chdir(base)

    def case(spec: Case) -> Found:
        here = os.getcwd()  # noqa: PTH109
        if spec.how == "names it whole":  # so that what comes first of files is done
            return Found(text=here, f=other / "rel.txt")
        if spec.how == "away":
            os.chdir(other)
            return Found(text=here, f=Path("rel.txt"))
        if spec.how == "back":
            os.chdir(base)
        return Found(text=here)

    found = ran(case, ["fine"] * 60 + ["names it whole"] * 14 + ["away", "back"] * 4 + ["fine"] * 200)
    assert found["text"].unique().to_list() == [str(base)]
    assert {scythe.fetch(uri).read_text() for uri in found["f"].drop_nulls()} == {"of the other"}


def test_a_mask_that_is_set_and_set_back_is_of_one_input_alone(root: Path) -> None:
    def case(spec: Case) -> Found:
        if spec.how == "fine":
            return Found()
        before = os.umask(0o077 if spec.how == "other" else 0o022)
        return Found(x=before)

    before = surroundings.umask()
    found = ran(case, ["fine"] * 80 + ["other", "back"] * 4 + ["fine"] * 100)
    assert set(found.filter(pl.col("how") != "fine")["x"]) == {float(before)}


def test_a_handler_that_is_set_and_set_back_is_of_one_input_alone(root: Path) -> None:
    def case(spec: Case) -> Found:
        if spec.how == "fine":
            return Found()
        before = signal.signal(signal.SIGUSR1, signal.SIG_IGN if spec.how == "other" else signal.SIG_DFL)
        return Found(text=str(before))

    found = ran(case, ["fine"] * 80 + ["other", "back"] * 4 + ["fine"] * 100)
    assert found.filter(pl.col("how") != "fine")["text"].n_unique() == 1


@pytest.mark.parametrize("timer", [signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF], ids=str)
def test_a_timer_that_was_left_ends_with_its_input(timer: int, root: Path) -> None:
    def case(spec: Case) -> Found:
        if spec.how == "sets":
            number = {signal.ITIMER_REAL: signal.SIGALRM, signal.ITIMER_VIRTUAL: signal.SIGVTALRM}.get(
                timer, signal.SIGPROF
            )
            signal.signal(number, lambda *_: None)
            signal.setitimer(timer, 0.01)
        return Found(x=sum(range(200_000)) if spec.how == "works" else 0)

    found = ran(case, ["sets", *["works"] * 10])
    assert len(found) == 11


def test_a_traceback_that_was_to_be_written_later_ends_no_other_input(root: Path) -> None:
    def case(spec: Case) -> Found:
        if spec.how == "sets":
            faulthandler.dump_traceback_later(0.05, exit=True)
        ends = time.monotonic() + (0.1 if spec.how == "works" else 0)
        while time.monotonic() < ends:
            pass
        return Found(text=str(os.getpid()))

    found = ran(case, ["fine"] * 80 + ["sets"] * 2 + ["works"] * 4)
    assert found["text"].n_unique() == 1, "the process goes on"


# --- folders of inputs --------------------------------------------------------------------------------------


def test_a_thread_that_an_input_left_does_not_get_into_the_folder_of_the_next(root: Path) -> None:
    def case(spec: Case, tempdir: Path) -> Found:
        kept = vars(threading).setdefault("_of_this_test", [])  # of the process that runs it
        if spec.how == "leaves a thread":
            folder = os.open(tempdir, os.O_RDONLY | os.O_DIRECTORY)
            come = threading.Event()

            def late() -> None:
                come.wait(10)
                with contextlib.suppress(FileNotFoundError):
                    os.close(os.open("out.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, dir_fd=folder))

            thread = threading.Thread(target=late)
            thread.start()
            kept.append((come, thread))
            return Found()
        (tempdir / "out.txt").write_text(str(spec.k))
        for come, thread in kept:
            come.set()
            thread.join(10)
        kept.clear()
        return Found(f=tempdir / "out.txt")

    for engine in ("local", "inline"):
        found = ran(case, ["fine"] * 70 + ["leaves a thread", "fine"] * 4, engine)
        files = found.filter(pl.col("f").is_not_null())
        assert [scythe.fetch(uri).read_text() for uri in files["f"]] == [str(k) for k in files["k"]]


def test_files_of_a_users_own_behind_a_tempdir_that_became_a_link_stay(root: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "keep.txt").write_text("precious")

    def case(spec: Case, tempdir: Path) -> Found:
        tempdir.rmdir()
        tempdir.symlink_to(mine)
        return Found(f=tempdir / "keep.txt")

    for engine in ("local", "inline"):
        found = ran(case, [""] * 3, engine)
        assert {scythe.fetch(uri).read_text() for uri in found["f"]} == {"precious"}
        assert (mine / "keep.txt").read_text() == "precious"


@pytest.mark.parametrize("engine", ["local", "inline"])
def test_what_a_function_forks_has_no_part_in_the_run(engine: str, root: Path) -> None:
    def case(spec: Case) -> Found:
        x = spec.k
        if spec.k == 2:
            child = os.fork()
            if child == 0:
                x = -1
            else:
                os.waitpid(child, 0)
        return Found(x=x)

    assert ran(case, [""] * 6, engine)["x"].to_list() == list(range(6))
