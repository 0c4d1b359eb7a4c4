"""What a function finds when it is called: its input as it was stored, and a process as its caller left it."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

import scythe
from scythe.allocate import BaseExperiment
from scythe.allocate import allocation as allocate
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.engines.engine import Launch
from scythe.errors import AllocationError
from scythe.leaf.leaf import Leaf
from scythe.leaf.surroundings import GROUP
from scythe.record.manifest import read_manifest
from scythe.record.plan import RunPlan
from scythe.registry import ExperimentRegistry
from scythe.seeds import seed_of


class Season(ExperimentInputSpec):
    days: list[int] = Field(default_factory=list[int])
    habit: str = "none"


class Derived(Season):
    @property
    def computed_features(self) -> dict[str, int]:
        return {"length": len(self.days)}


class Yield(ExperimentOutputSpec):
    value: float = 0.0
    note: str = ""


class NotStarted:
    workflow_run_id = None


@pytest.fixture
def leaf_of(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Leaf]]:
    """Gives the leaf of a function that is allocated on specs, but not started."""
    plans: list[RunPlan] = []
    opened: list[Leaf] = []

    def start(chosen: Any, work: Launch) -> NotStarted:
        plans.append(work.plan)
        return NotStarted()

    monkeypatch.setattr(allocate, "start", start)

    def make(function: Callable[..., Any], specs: list[Season], *, seed: int = 0, **options: Any) -> Leaf:
        ExperimentRegistry.Register(**options)(function)
        experiment = BaseExperiment(function)
        experiment.allocate(specs, seed=seed)
        opened.append(Leaf(plans[-1], experiment.experiment))
        return opened[-1]

    yield make
    for leaf in opened:
        leaf.__exit__()


def seasons(*habits: str, days: int = 3) -> list[Season]:
    return [
        Season(experiment_id="", sort_index=i, days=list(range(i, i + days)), habit=h) for i, h in enumerate(habits)
    ]


def table(leaf: Leaf, name: str, n: int) -> pa.Table:
    return dict(leaf.run(range(n)).tables)[name]


def test_a_retry_is_given_the_stored_input_not_what_the_try_before_left(leaf_of: Callable[..., Leaf]) -> None:
    tried: set[int] = set()

    def eat(input_spec: Season) -> Yield:
        total = input_spec.days.pop() + sum(input_spec.days)
        input_spec.habit = "changed"
        if input_spec.sort_index not in tried:
            tried.add(input_spec.sort_index)
            raise ConnectionError("the licence server is busy")
        return Yield(value=total)

    leaf = leaf_of(eat, seasons("none", "none"), retries=1)
    scalars = table(leaf, "scalars", 2)
    assert scalars["value"].to_pylist() == [3.0, 6.0]
    assert scalars["habit"].to_pylist() == ["none", "none"]


def test_computed_features_are_those_of_the_stored_input(leaf_of: Callable[..., Leaf]) -> None:
    def shorten(input_spec: Derived) -> Yield:
        input_spec.days.clear()
        return Yield()

    leaf = leaf_of(shorten, [Derived(experiment_id="", sort_index=0, days=[1, 2])])
    assert table(leaf, "scalars", 1)["length"].to_pylist() == [2]


HABITS = ("none", "folder", "umask", "handler", "timer", "random", "numpy", "reseed", "raises", "removes its folder")


def live(input_spec: Season, tempdir: Path) -> Yield:
    """Notes what it finds, then changes what its habit says."""
    umask = os.umask(0o022)
    os.umask(umask)
    found = (
        Path.cwd().name, umask, signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL,
        signal.getsignal(signal.SIGALRM) is signal.SIG_DFL, input_spec.days[0] == input_spec.sort_index,
    )  # fmt: skip
    value = 0.0
    match input_spec.habit:
        case "folder":
            os.chdir(tempdir)
        case "removes its folder":
            (tempdir / "sub").mkdir()
            os.chdir(tempdir / "sub")
            (tempdir / "sub").rmdir()
        case "umask":
            os.umask(0o777)
        case "handler":
            signal.signal(signal.SIGUSR1, lambda *_: None)
        case "timer":
            signal.signal(signal.SIGALRM, _late)
            signal.setitimer(signal.ITIMER_REAL, 0.02, 0.0005)
        case "random":
            value = random.random()
        case "numpy":
            value = float(np.random.random_sample())
        case "reseed":
            random.seed(5)
            np.random.seed(5)
        case "raises":
            os.chdir("/")
            raise ValueError("nothing grew")
        case _:
            pass
    return Yield(value=value, note=repr(found))


def _late(*_: object) -> None:
    raise TimeoutError("the alarm of an earlier input")


@settings(max_examples=12)
@given(habits=st.lists(st.sampled_from(HABITS), max_size=3 * GROUP), quiet=st.sampled_from([0, GROUP + 1, 3 * GROUP]))
def test_no_input_finds_what_an_earlier_one_left(
    habits: list[str], quiet: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        patch.setenv("SCYTHE_STORAGE_ROOT", str(tmp_path_factory.mktemp("root")))
        patch.chdir(home)
        patch.setattr(
            sys, "unraisablehook", lambda *_: None
        )  # an alarm may go off in a destructor, where nobody hears it
        # The limit of this test is a timer of its own, which Scythe leaves alone.
        limit = signal.setitimer(signal.ITIMER_REAL, 0)
        alarm = signal.signal(signal.SIGALRM, signal.SIG_DFL)
        umask = os.umask(0o022)
        before = random.getstate(), np.random.get_state()
        try:
            plans: list[RunPlan] = []
            patch.setattr(allocate, "start", lambda _, work: (plans.append(work.plan), NotStarted())[1])
            ExperimentRegistry.Register(retries=0, name="live")(live)
            experiment = BaseExperiment(live)
            every = ["none"] * quiet + habits + ["none"]
            experiment.allocate(seasons(*every), seed=9)
            with Leaf(plans[0], experiment.experiment) as leaf:
                tables = dict(leaf.run(range(len(every))).tables)
            assert (Path.cwd(), os.umask(0o022)) == (home, 0o022)
            assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
            assert not any(signal.getitimer(signal.ITIMER_REAL))
            assert random.getstate() == before[0]
            assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), before[1], strict=True))
        finally:
            os.umask(umask)
            signal.signal(signal.SIGALRM, alarm)
            signal.setitimer(signal.ITIMER_REAL, *limit)
    failed = dict(zip(*(tables["errors"][n].to_pylist() for n in ("sort_index", "exception_type")), strict=True)) if (
        "errors" in tables
    ) else {}  # fmt: skip
    # A timer may end the input that set it, and no other.
    assert all(every[i] == ("timer" if kind == "TimeoutError" else "raises") for i, kind in failed.items())
    rows = tables["scalars"].select(["sort_index", "value", "note", "habit"]).to_pylist()
    assert [row["sort_index"] for row in rows] == [i for i in range(len(every)) if i not in failed]
    assert {row["note"] for row in rows} == {repr((home.name, 0o022, True, True, True))}
    for row in rows:
        seed = seed_of(9, row["sort_index"])
        if row["habit"] == "random":
            assert row["value"] == random.Random(seed).random()
        if row["habit"] == "numpy":
            assert row["value"] == np.random.RandomState(seed % 2**32).random_sample()


def test_quick_functions_that_leave_no_trace_are_called_once_each(leaf_of: Callable[..., Leaf]) -> None:
    calls: list[int] = []

    def quick(input_spec: Season) -> Yield:
        calls.append(input_spec.sort_index)
        return Yield()

    n = 10 * GROUP + 7
    table(leaf_of(quick, seasons(*["none"] * n)), "scalars", n)
    assert calls == list(range(n))


def test_the_seed_of_an_input_is_the_same_on_every_engine_and_in_threads(root: Path) -> None:
    def draw(input_spec: Season) -> Yield:
        with ThreadPoolExecutor(1) as pool:
            elsewhere = pool.submit(lambda: input_spec.seed).result()
        return Yield(value=random.random(), note=f"{input_spec.seed} {elsewhere}")

    ExperimentRegistry.Register()(draw)
    frames = []
    for engine in ("inline", "local"):
        _, ref = BaseExperiment(draw).allocate(seasons(*["none"] * 5), seed=77, engine=engine, workers=2)
        assert ref.result().rows == 5
        frames.append(scythe.read("draw").select("sort_index", "value", "note"))
    assert frames[0].equals(frames[1])
    expected = [seed_of(77, i) for i in range(5)]
    assert frames[0]["note"].to_list() == [f"{seed} {seed}" for seed in expected]
    assert frames[0]["value"].to_list() == [random.Random(seed).random() for seed in expected]


def test_the_seed_of_a_run_is_in_its_manifest_and_must_be_a_whole_number(root: Path) -> None:
    def nothing(input_spec: Season) -> Yield:
        return Yield()

    ExperimentRegistry.Register()(nothing)
    run, _ = BaseExperiment(nothing).allocate(seasons("none"), seed=12, engine="inline")
    assert read_manifest(run.objects, run.key)["seed"] == 12
    for wrong in (1.5, "7", True, None):
        with pytest.raises(AllocationError, match=r"seed must be a whole number, got"):
            BaseExperiment(nothing).allocate(seasons("none"), seed=wrong, engine="inline")  # pyright: ignore[reportArgumentType]


def test_inline_gives_the_caller_its_process_back(root: Path) -> None:
    def untidy(input_spec: Season) -> Yield:
        os.chdir("/")
        os.umask(0)
        random.seed(1)
        np.random.seed(1)
        return Yield()

    ExperimentRegistry.Register()(untidy)
    home, state = Path.cwd(), random.getstate()
    umask = os.umask(0o027)
    try:
        BaseExperiment(untidy).allocate(seasons("none", "none"), engine="inline")
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(umask)
    assert Path.cwd() == home
    assert random.getstate() == state


def test_a_range_can_run_in_a_thread_where_no_handler_can_be_set(leaf_of: Callable[..., Leaf]) -> None:
    def walk(input_spec: Season, tempdir: Path) -> Yield:
        here = Path.cwd().name
        os.chdir(tempdir)
        return Yield(note=here)

    leaf = leaf_of(walk, seasons("none", "none"))
    found: list[pa.Table] = []
    thread = threading.Thread(target=lambda: found.append(table(leaf, "scalars", 2)))
    thread.start()
    thread.join()
    assert found[0]["note"].to_pylist() == ["work", "work"]
