"""A trigger that is cut in the middle leaves keys of children that never were: the run finishes all the same.

So does the engine where the node is killed while it triggers, at a moment that only the stand-in can repeat at will.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

import scythe
from scythe.allocate import BaseExperiment
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.registry import ExperimentRegistry
from scythe.scatter_gather import RecursionMap
from tests.cluster import PATIENCE, REAL, Worker, unique, wait_until_served
from tests.hatchet_standin import StandinEngine

N = 40

MODULE = """
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.registry import ExperimentRegistry


class Order(ExperimentInputSpec):
    x: int


class Value(ExperimentOutputSpec):
    y: int


@ExperimentRegistry.Register(name="NAME")
def double(spec: Order) -> Value:
    return Value(y=2 * spec.x)
"""


class Order(ExperimentInputSpec):
    x: int


class Value(ExperimentOutputSpec):
    y: int


def double(spec: Order) -> Value:
    return Value(y=2 * spec.x)


@pytest.mark.skipif(REAL, reason="an option of the stand-in")
def test_children_of_which_there_is_only_the_key_are_triggered_again(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = unique("double")
    (tmp_path / f"{name}.py").write_text(MODULE.replace("NAME", name))
    ExperimentRegistry.Register(name=name)(double)
    monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(root))
    with StandinEngine(cut_bulks=2) as engine:  # that of the root's nodes, then that of a node's leaves
        for key, value in engine.env.items():
            monkeypatch.setenv(key, value)
        with Worker(name, "--slots", "2", env={"HATCHET_CLIENT_TENACITY_MAX_ATTEMPTS": "2"}, cwd=tmp_path):
            wait_until_served(f"scythe_experiment_{name}", f"scythe_scatter_gather_{name}")
            inputs = pl.DataFrame({"x": range(N)})
            _, ref = BaseExperiment(double).allocate(
                inputs, engine="hatchet", chunk=4, recursion_map=RecursionMap(factor=2, max_depth=1)
            )
            result = ref.result(timeout=PATIENCE)

    assert (result.rows, result.errors) == (N, 0)
    assert scythe.read(name).sort("sort_index")["y"].to_list() == [2 * x for x in range(N)]
