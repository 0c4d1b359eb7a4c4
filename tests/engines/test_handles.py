"""However a run ends, nothing is left open in the process that allocated it; no garbage collector is needed for that."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cloudpickle
import polars as pl
import pytest

from scythe.allocate import BaseExperiment
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.errors import TooManyErrors
from scythe.registry import ExperimentRegistry

cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Item(ExperimentInputSpec):
    n: int


class Found(ExperimentOutputSpec):
    m: int


def finishes(spec: Item) -> Found:
    return Found(m=spec.n)


def fails(spec: Item) -> Found:
    raise ValueError(f"no result for {spec.n}")


def leaves(spec: Item) -> Found:
    if spec.n % 4 == 1:
        os._exit(3)
    return Found(m=spec.n)


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def handles() -> list[str]:
    """What the open handles of this process are of."""
    found: list[str] = []
    for handle in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # of the listing itself
            found.append(os.readlink(handle))  # noqa: PTH115 - as the kernel words it, with "(deleted)"
    return sorted(found)


def run(function: Callable[[Item], Found]) -> None:
    name = function.__name__
    ExperimentRegistry.Register(name=name, retries=0)(function)
    _, ref = BaseExperiment(name).allocate(pl.DataFrame({"n": range(40)}), engine="local", workers=2, max_errors=15)
    with pytest.raises(TooManyErrors) if function is fails else contextlib.nullcontext():
        ref.result(timeout=100)


@pytest.mark.parametrize("function", [finishes, fails, leaves], ids=lambda function: function.__name__)
def test_a_run_leaves_no_handle_open_however_it_ends(
    root: Path, no_collector: None, function: Callable[[Item], Found]
) -> None:
    run(function)  # what is kept for the next run is there after the first
    before = handles()

    run(function)

    assert handles() == before
