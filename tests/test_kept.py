"""Outputs that a function changes after it returned them, and returns again."""

import copy
import datetime as dt
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

import scythe
from scythe.allocate import BaseExperiment
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.errors import OutputError
from scythe.leaf.kept import as_it_is
from scythe.registry import ExperimentRegistry


class Storey(ExperimentInputSpec):
    n: int


class Layer(BaseModel):
    thickness: float = 0.0
    tags: list[str] = Field(default_factory=list)


class Open(Layer):
    model_config = ConfigDict(extra="allow")


class Built(ExperimentOutputSpec):
    y: float = 0.0
    layers: list[Layer]
    sums: dict[str, float]
    zones: set[int]
    best: Layer
    grid: list[list[float]]


def test_an_output_that_is_changed_and_returned_again_gives_each_input_its_own_row(root: Path) -> None:
    output = Built(layers=[Layer()], sums={"a": 0.0}, zones=set(), best=Layer(), grid=[[0.0]])

    @ExperimentRegistry.Register()
    def build(spec: Storey) -> Built:
        n = output.y = spec.n
        output.layers[0].thickness = output.best.thickness = n
        output.layers[0].tags.append(str(n))
        output.sums["a"] = n
        output.zones.add(n)
        output.grid[0][0] = n
        return output

    storeys = [Storey(experiment_id="", sort_index=i, n=i) for i in range(3)]
    BaseExperiment(experiment=build).allocate(storeys, engine="inline")

    rows = scythe.read(build).select("y", "layers", "sums", "zones", "best", "grid").rows()
    assert rows == [
        (n, [{"thickness": n, "tags": [str(i) for i in range(n + 1)]}], {"a": n}, [*range(n + 1)],
         {"thickness": n, "tags": []}, [[n]])
        for n in range(3)
    ]  # fmt: skip


class Drawn(ExperimentOutputSpec):
    y: list[float]


def test_values_that_nobody_can_copy_are_an_error_of_their_input_that_names_the_field(root: Path) -> None:
    @ExperimentRegistry.Register()
    def draw(spec: Storey) -> Drawn:
        return Drawn.model_construct(y=(float(x) for x in range(3)) if spec.n else [1.0])

    storeys = [Storey(experiment_id="", sort_index=i, n=i) for i in range(2)]
    with pytest.raises(OutputError, match=r"the output holds y=<generator object .*: give a list of float"):
        BaseExperiment(experiment=draw).allocate(storeys, engine="inline")
    BaseExperiment(experiment=draw).allocate(storeys[:1], engine="inline", version="auto")
    assert scythe.read(draw)["y"].to_list() == [[1.0]]


plain = st.none() | st.integers() | st.floats(allow_nan=False) | st.text() | st.dates() | st.builds(Path, st.just("a"))
kept = st.recursive(
    plain,
    lambda inner: st.one_of(
        st.lists(inner),
        st.dictionaries(st.text(), inner),
        st.tuples(inner, inner),
        st.sets(st.integers()),
        st.builds(Layer, tags=st.lists(st.text())),
        st.builds(Open, more=inner),
        st.builds(bytearray, st.binary()),
    ),
)


def change(value: Any) -> None:
    """Empties everything that can be changed in a value."""
    for inner in value if isinstance(value, list | tuple) else value.values() if isinstance(value, dict) else ():
        change(inner)
    if isinstance(value, Layer):
        change(value.tags)
        change(value.__pydantic_extra__)
        value.thickness = -1
    if isinstance(value, list | dict | set | bytearray):
        value.clear()


@given(value=kept)
def test_a_kept_value_is_equal_and_stays_so_whatever_becomes_of_the_first(value: Any) -> None:
    before = copy.deepcopy(value)

    twin = as_it_is(value)

    assert (twin, type(twin)) == (before, type(before))
    change(value)
    assert twin == before


@pytest.mark.parametrize("value", [1, 2.5, "text", b"bytes", dt.date(2024, 1, 1), Path("a")])
def test_a_value_that_nobody_can_change_is_kept_itself(value: Any) -> None:
    assert as_it_is(value) is value
