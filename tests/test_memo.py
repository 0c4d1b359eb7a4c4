"""What is made once is made without a lock that threads, or forked processes, could wait for for ever."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import polars as pl

import scythe
from scythe.allocate import BaseExperiment
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.registry import ExperimentRegistry
from scythe_catalog.memo import cached_property, made_alone

FORKED = """
import os
import threading

from scythe_catalog.memo import cached_property, made_alone

begun, parent = threading.Event(), os.getpid()


class Thing:
    def made(self):
        if os.getpid() == parent:
            begun.set()
            threading.Event().wait()
        return 3

    alone = made_alone(made)
    shared = cached_property(made)


for name in ("alone", "shared"):
    thing = Thing()
    begun.clear()
    threading.Thread(target=getattr, args=(thing, name), daemon=True).start()
    begun.wait()
    child = os.fork()
    if child == 0:
        os._exit(getattr(thing, name))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
"""


class Thing:
    def __init__(self) -> None:
        self.together, self.calls = threading.Barrier(2), list[object]()
        self.twice = threading.Event()

    @cached_property
    def shared(self) -> object:
        self.together.wait(30)
        return object()

    @made_alone
    def alone(self) -> object:
        self.calls.append(made := object())
        if len(self.calls) > 1:
            self.twice.set()
        self.twice.wait(0.5)  # as long as another thread has time to come in beside this one
        return made


def in_threads(*calls: Callable[[], object]) -> list[object]:
    found: list[object] = []
    threads = [threading.Thread(target=lambda call=call: found.append(call()), daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return found


def test_what_two_threads_make_at_once_is_one_thing_for_both() -> None:
    thing = Thing()
    one, other = in_threads(lambda: thing.shared, lambda: thing.shared)
    assert one is other is thing.shared


def test_what_is_large_is_made_by_one_thread_alone() -> None:
    thing = Thing()
    found = in_threads(*[lambda: thing.alone] * 8)
    assert len(thing.calls) == 1
    assert set(found) == {thing.alone}


def test_what_a_thread_was_making_when_the_process_was_forked_is_made_anew_there() -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORKED], check=True, timeout=60)


class In(ExperimentInputSpec):
    x: int


class Out(ExperimentOutputSpec):
    y: float


def whole(spec: In) -> Out:
    return Out(y=spec.x)


def test_two_threads_may_open_two_parts_of_a_dataset_at_once(root: Path) -> None:
    ExperimentRegistry.Register()(whole)
    BaseExperiment(whole).allocate(pl.DataFrame({"x": range(50)}), engine="inline")[1].result()
    for _ in range(20):
        parts = scythe.dataset("whole", x=["x"], y="y").split(train=0.8, val=0.2)
        train, val = parts["train"], parts["val"]
        assert len(in_threads(lambda train=train: len(train), lambda val=val: val.shapes)) == 2
