"""Whatever the shape of the tree and the size of the chunks: the same rows, each input once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import scythe
from scythe.allocate import ExperimentRun
from scythe.engines.engine import RunRef
from scythe.scatter_gather import RecursionMap
from tests.cluster import PATIENCE
from tests.hatchet.sites import Site, calls, check, finals, manifest

_SHAPES = {
    "2/0": {"recursion_map": RecursionMap(factor=2, max_depth=0)},
    "4/1, chunk 1": {"recursion_map": RecursionMap(factor=4, max_depth=1), "chunk": 1},
    "2/3, chunk 1": {"recursion_map": RecursionMap(factor=2, max_depth=3), "chunk": 1},
    "1/2": {"recursion_map": RecursionMap(factor=1, max_depth=2)},
    "chunk 7": {"chunk": 7},
}
_N = 40


@pytest.fixture(scope="module")
def shaped(main: Site) -> dict[str, tuple[Path, ExperimentRun, RunRef]]:
    """A run of each shape, all at once."""
    runs: dict[str, tuple[Path, ExperimentRun, RunRef]] = {}
    for name, shape in _SHAPES.items():
        scratch, specs = main.orders(*(["fine"] * 5 + ["raises"] + ["fine"] * (_N - 6)))
        runs[name] = (scratch, *main.allocate("obey", specs, **shape))
    return runs


@pytest.mark.parametrize("shape", _SHAPES)
def test_every_shape_calls_every_input_and_gives_the_same_rows(
    shaped: dict[str, tuple[Path, ExperimentRun, RunRef]], shape: str
) -> None:
    scratch, run, ref = shaped[shape]

    result = ref.result(timeout=PATIENCE)

    good = [i for i in range(_N) if i != 5]
    tables = check(run, good=good, bad=[5])
    assert (result.inputs, result.rows, result.errors) == (_N, _N - 1, 1)
    assert tables["scalars"]["y"].to_list() == good
    assert tables["errors"]["exception_message"].to_list() == ["call 2"]
    assert calls(scratch) == {**dict.fromkeys(good, 1), 5: 2}


def test_the_run_has_one_identifier_everywhere(shaped: dict[str, tuple[Path, ExperimentRun, RunRef]]) -> None:
    _, run, ref = shaped["2/0"]
    result = ref.result(timeout=PATIENCE)

    assert ref.workflow_run_id
    assert ref.hatchet.workflow_run_id == ref.workflow_run_id == run.workflow_run_id == result.workflow_run_id
    assert manifest(run)["workflow_run_id"] == ref.workflow_run_id
    assert finals(run)["scalars"]["root_workflow_run_id"].unique().to_list() == [ref.workflow_run_id]
    assert scythe.open_run(run.experiment_id).workflow_run_id == ref.workflow_run_id


def test_a_coroutine_gets_the_same_result(shaped: dict[str, tuple[Path, ExperimentRun, RunRef]]) -> None:
    _, _, ref = shaped["chunk 7"]

    async def impatient() -> object:
        waiting = asyncio.ensure_future(ref.aio_result())
        await asyncio.sleep(0)
        waiting.cancel()  # who waits no longer takes the result from nobody
        return await ref.aio_result()

    assert asyncio.run(impatient()) == ref.result(timeout=PATIENCE)


def test_the_chunk_that_was_asked_for_is_what_runs_together(
    shaped: dict[str, tuple[Path, ExperimentRun, RunRef]],
) -> None:
    _, run, ref = shaped["chunk 7"]
    ref.result(timeout=PATIENCE)

    workers = finals(run)["tasks"]["worker"].to_list()
    assert all(len({*workers[i : i + 7]}) == 1 for i in range(0, _N, 7))
