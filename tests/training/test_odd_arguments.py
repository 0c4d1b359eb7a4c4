"""What cannot be meant is told in words of the library, and what can be is taken: indices, states, statistics, frames."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import pytest

import scythe
from scythe import BaseExperiment, ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry
from scythe.errors import InputError, NotFoundError, ReadError, ScytheError, StateError
from scythe.loaders.arrays import converted
from scythe.loaders.stats import ColumnStats


class Bar(ExperimentInputSpec):
    n: int
    k: float = 1.0
    only: Literal["one"] = "one"


class Tone(ExperimentOutputSpec):
    y: float


@pytest.fixture
def tones(root: Path) -> BaseExperiment:
    def tone(spec: Bar) -> Tone:
        if spec.n < 0:
            raise ValueError("broken")
        frames = {
            "even": pl.DataFrame({"v": [1.0, 2.0]}),
            "odd": pl.DataFrame({"v": [float(i) for i in range(spec.n)]}),
        }
        return Tone(y=spec.k, dataframes=frames)

    made = BaseExperiment(ExperimentRegistry.Register(name="tone", retries=0)(tone))
    made.allocate(pl.DataFrame({"n": [1, 2, 3], "k": [1.0, 2.0, 4.0]}), engine="inline")
    return made


def state(**other: Any) -> dict[str, Any]:
    return {**scythe.dataset("tone", x="k").batches(1).state(0, 1), **other}


ODD: list[tuple[Callable[[Any], Any], type[Exception], str]] = [
    (lambda ds: ds[[[1, 2], [3]]], IndexError, "rows are named by their positions"),
    (lambda ds: len(ds[np.array([2**63], np.uint64)]), IndexError, "row 9,223,372,036,854,775,808 of 3"),
    (lambda ds: ds.batches(1).at(0)["a"], ReadError, "batch 'a' of an epoch: a whole number"),
    (lambda ds: ds.batches(1).at(0)[None], ReadError, "batch None of an epoch: a whole number"),
    (lambda ds: ds.batches(1).resume(state(runs=[["v1"]])), StateError, "this is no state of batches"),
    (lambda ds: ds.batches(1).resume(state(seed="0")), StateError, "of seed='0', these batches have seed=0"),
    (lambda ds: ds.split(a=0.5, by=["k", "k"]), ReadError, "names a column twice"),
    (
        lambda _: scythe.Stats.from_dict({"x": {"k": {"mean": "a", "std": 1, "min": 0, "max": 1, "count": 2}}}),
        StateError,
        "no statistics",
    ),
    (
        lambda _: len(scythe.dataset("tone", x="k", where=pl.col("k").filter(pl.col("k") > 1) > 1)),
        ReadError,
        "it gives not one value a row",
    ),
    (
        lambda _: len(scythe.dataset("tone", x="k", where=pl.col("k", "n") > 1)),
        ReadError,
        "several columns: join them",
    ),
    (
        lambda _: scythe.dataset("tone", m=scythe.Frame("odd", ["v"], rows=0))[0],
        InputError,
        r"has 1 rows in 'odd', not 0: leave it out with where=",
    ),
]


@pytest.mark.parametrize(("ask", "kind", "told"), ODD)
def test_what_cannot_be_meant_is_named(
    tones: BaseExperiment, ask: Callable[[Any], Any], kind: type[Exception], told: str
) -> None:
    with pytest.raises(kind, match=told):
        ask(scythe.dataset("tone", x="k"))


def test_lists_of_frames_are_lists_whatever_their_lengths_and_go_back_to_their_units(tones: BaseExperiment) -> None:
    ds = scythe.dataset("tone", even=scythe.Frame("even", ["v"]), odd=scythe.Frame("odd", ["v"]), collate="list")
    norm = ds.stats()
    plain, scaled = (ds.batches(3, shuffle=False, normalize=n).at(0)[0] for n in (None, norm))
    for group, shapes in (("even", [(2, 1)] * 3), ("odd", [(1, 1), (2, 1), (3, 1)])):
        back = norm.denormalized(group, scaled[group])
        assert [one.shape for one in back] == [one.shape for one in plain[group]] == shapes
        assert all(np.allclose(one, was) for one, was in zip(back, plain[group], strict=True))
    assert norm.denormalized("even", []).shape == (0,)
    assert scythe.dataset("tone", even=scythe.Frame("even", ["v"])).batches(3).at(0)[0]["even"].shape == (3, 2, 1)


def test_where_no_input_has_a_row_there_is_nothing_to_draw_and_lists_are_empty(tones: BaseExperiment) -> None:
    with pytest.raises(InputError, match=r"e: input 0 .* has no rows in 'errors', nor has any other"):
        scythe.dataset("tone", x="k", e=scythe.Frame("errors", ["n"])).batches(3).at(0)[0]
    empty = scythe.dataset("tone", e=scythe.Frame("errors", ["n"]), collate="list").batches(3).at(0)[0]
    assert [one.shape for one in empty["e"]] == [(0, 1)] * 3
    assert scythe.dataset("tone", x="k")[np.array(1)]["x"] == 2.0


def test_a_choice_of_one_has_the_shape_of_a_choice(tones: BaseExperiment) -> None:
    assert scythe.dataset("tone", x="only").batches(3).at(0)[0]["x"].tolist() == [[1.0]] * 3
    assert scythe.dataset("tone", x="k").batches(3).at(0)[0]["x"].shape == (3,)


def test_a_run_that_was_pinned_before_its_end_says_so(tones: BaseExperiment) -> None:
    with pytest.raises(ValueError, match="broken"):
        tones.allocate(pl.DataFrame({"n": [1, -1, 2]}), "keep", engine="inline")
    run = scythe.open_run("tone")
    batches = scythe.dataset("tone", x="k", run=run).batches(1)
    with pytest.raises(
        NotFoundError, match=r"no dataframe 'odd'.*is not finished, there are no files and dataframes yet"
    ):
        len(scythe.dataset("tone", run=run, m=scythe.Frame("odd", ["v"])))
    then = batches.state(0, 0)
    run.resume(engine="inline")
    with pytest.raises(ScytheError, match="was not finished when this dataset was made of it"):
        list(scythe.dataset("tone", x="k", run=run).batches(1).resume(then))


def test_numbers_that_pytorch_lacks_are_refused_by_name() -> None:
    pytest.importorskip("torch")
    with pytest.raises(ReadError, match="PyTorch has no float128: take dtype='float64', or to='numpy'"):
        converted(np.zeros(2, np.longdouble), "torch")


def test_a_network_that_a_notebook_holds_is_told_apart_alike_in_every_process() -> None:
    pytest.importorskip("torch")
    program = (
        "import torch; from scythe.define.sources.objects import told_apart; torch.manual_seed(0); n = torch.nn.Linear(3, 2);"
        "print(told_apart(n).text); n.weight.data[0] = 1; print(told_apart({'n': [n]}).text); print(told_apart(n).text)"
    )
    one, other = (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    )
    assert one == other
    first, _, second = one.splitlines()
    assert first != second != "None"


def test_what_a_network_predicts_is_brought_back_to_its_units() -> None:
    torch = pytest.importorskip("torch")
    stats = scythe.Stats({"y": {"heat": ColumnStats(mean=10.0, std=2.0, min=0.0, max=20.0, count=9)}})
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        predicted = torch.tensor([0.0, 1.0, -2.0], dtype=dtype, requires_grad=True) * 1
        assert stats.denormalized("y", predicted).tolist() == [10.0, 12.0, 6.0]
