"""What can be sent to worker processes, and what is refused by name before anything is written."""

from __future__ import annotations

import functools
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import cloudpickle
import polars as pl
import pytest

import scythe
from scythe.allocate import BaseExperiment
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.errors import AllocationError
from scythe.registry import ExperimentRegistry

cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Case(ExperimentInputSpec):
    n: int


class Answer(ExperimentOutputSpec):
    text: str


class Tariff:
    """Holds what cannot travel, two attributes down."""

    def __init__(self) -> None:
        self.prices = {"night": threading.Lock()}


GATE = threading.Lock()
TARIFF = Tariff()
STEPS = (i for i in range(9))


def locks(spec: Case) -> Answer:
    with GATE:
        return Answer(text="")


def deeply(spec: Case) -> Answer:
    def inner() -> str:
        return str(TARIFF)

    return Answer(text=inner())


def defaults(spec: Case) -> Answer:
    return Answer(text=str(next(STEPS)))


def closes_over() -> Any:
    connection = sqlite3.connect(":memory:")
    connection.close()

    def asks(spec: Case) -> Answer:
        return Answer(text=str(connection))

    return asks


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (locks, "the global 'GATE' (a lock)"),
        (deeply, "the value of 'night' of the attribute 'prices' of the global 'TARIFF' (a lock)"),
        (defaults, "the global 'STEPS' (a generator)"),
        (closes_over(), "the variable 'connection' (a Connection)"),
    ],
    ids=["lock", "deep", "generator", "closure"],
)
def test_what_cannot_be_sent_is_named_by_allocate_before_anything_is_written(
    root: Path, function: Any, named: str
) -> None:
    ExperimentRegistry.Register(name="stays")(function)

    with pytest.raises(AllocationError) as refused:
        BaseExperiment("stays").allocate(pl.DataFrame({"n": [1]}), engine="local")

    assert named in str(refused.value)
    assert "'stays'" in str(refused.value)
    assert "__init__" in str(refused.value)
    assert not root.exists()


class Simulator:
    """An experiment whose instance holds what cannot travel."""

    def __init__(self) -> None:
        self.made = f"{os.getpid()} {id(self)}"
        self.lock, self.database, self.steps = threading.Lock(), sqlite3.connect(":memory:"), (i for i in range(999))

    @functools.cached_property
    def label(self) -> str:
        return f"{self.made} {threading.get_ident()}"

    def run(self, spec: Case) -> Answer:
        with self.lock:
            self.database.execute("select 1")
            next(self.steps)
            if spec.n < 0:
                os._exit(1)
            return Answer(text=self.label)


def test_an_instance_of_a_class_is_made_once_in_each_worker_and_never_in_the_caller(root: Path) -> None:
    ExperimentRegistry.Register(name="simulator", retries=0)(Simulator)

    _, ref = BaseExperiment("simulator").allocate(
        pl.DataFrame({"n": [-1, *range(20)]}), engine="local", workers=1, chunk=7
    )

    assert ref.result(timeout=100).errors == 1
    labels = set(scythe.read("simulator")["text"])
    assert len(labels) == len({label.split()[0] for label in labels})
    assert str(os.getpid()) not in {label.split()[0] for label in labels}


SCRIPT = """
import functools
import polars as pl
import scythe
from scythe import BaseExperiment, ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry

class Case(ExperimentInputSpec):
    n: int

    @functools.cached_property
    def double(self) -> int:
        return 2 * self.n

class Answer(ExperimentOutputSpec):
    y: int

class Model:
    @functools.cached_property
    def offset(self) -> int:
        return 100

MODEL = Model()

@ExperimentRegistry.Register(retries=0)
def work(spec: Case) -> Answer:
    return Answer(y=spec.double + spec.double + MODEL.offset)

if __name__ == "__main__":
    BaseExperiment(work).allocate(pl.DataFrame({"n": [1, 2]}), engine="local", workers=1)[1].result(timeout=100)
    print(scythe.read("work")["y"].to_list())
"""


def test_cached_properties_of_a_script_travel_on_every_python(root: Path) -> None:
    Path("script.py").write_text(SCRIPT)

    done = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, timeout=120, check=False)

    assert done.stdout.strip() == "[104, 108]", done.stderr
