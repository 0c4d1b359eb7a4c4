"""Datasets over runs whose models differ, and rows that are taken in turns: what they give is what `scythe.read` has, or nothing."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import pytest
from pydantic import BaseModel, Field, create_model

import scythe
from scythe.allocate import BaseExperiment
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.errors import FetchError, InputError, NotFoundError, ReadError, StateError
from scythe.loaders.pinned.find import pinned
from scythe.loaders.pinned.run import together
from scythe.registry import ExperimentRegistry
from scythe.runs.pack import pack
from scythe.settings import storage
from scythe.utils.filesys import FileReference


def finish(x: Any, given: list[Any], outputs: dict[str, Any], **made: Any) -> None:
    """A run of the experiment `differing` with an input of this type, and constant outputs."""
    case = create_model("Case", __base__=ExperimentInputSpec, x=x)
    found = create_model("Found", __base__=ExperimentOutputSpec, **outputs)

    def differing(spec: Any) -> Any:
        return found(**made)

    differing.__annotations__ = {"spec": case, "return": found}
    ExperimentRegistry.Register(name="differing")(differing)
    BaseExperiment("differing").allocate([case(x=x) for x in given], "auto", engine="inline")


def test_a_state_of_a_run_that_went_on_is_refused(root: Path) -> None:
    finish(float, list(range(10)), {"y": float}, y=1)
    (ended,) = pinned(storage(), "differing", None, None)
    rows = scythe.read("differing")

    def at_a_time(some: pl.DataFrame) -> scythe.Dataset:
        run = replace(ended, result=None, rows=some)
        ds = scythe.dataset("differing", x="x")
        return replace(ds, pins=[run.pin], _pinned=together([run]))[:4]

    state = at_a_time(rows[5:]).batches(2).state(0, 1)
    with pytest.raises(StateError, match=r"the state is of other rows of the same runs: .* or a run that has gone on"):
        at_a_time(rows).batches(2).resume(state)
    assert len(at_a_time(rows[5:]).batches(2).resume(state)) == 1


def test_statistics_of_a_version_whose_literal_had_another_order_are_refused(root: Path) -> None:
    finish(Literal["small", "large"], ["small", "large"], {"y": float}, y=1)
    stats = scythe.dataset("differing", x="x").stats()
    finish(Literal["large", "small"], ["small", "large"], {"y": float}, y=1)
    later = scythe.dataset("differing", x="x")
    assert later.names == {"x": ("x=large", "x=small")}

    with pytest.raises(StateError, match=r"has the columns x=small, x=large of 'x', .*x=large, x=small, in this order"):
        later.batches(2, normalize=stats).at(0)[0]


def test_truth_values_are_not_normalized(root: Path) -> None:
    frame = {"fr": pl.DataFrame({"on": [True, False], "e": [1.0, 2.0]})}
    finish(bool, [True, False, False], {"y": float}, y=1, dataframes=frame)
    ds = scythe.dataset("differing", x="x", f=scythe.Frame("fr", ["on", "e"], rows=2))
    stats = ds.stats()

    batch = ds.batches(3, shuffle=False, normalize=stats).at(0)[0]

    assert (batch["x"].tolist(), stats["x"]["x"].mean) == ([1, 0, 0], pytest.approx(1 / 3))
    assert batch["f"][0].tolist() == [[1, -1], [0, 1]]
    assert (stats.denormalized("f", batch["f"][0]) == [[1, 1], [0, 2]]).all()


def test_dataframes_are_held_against_one_another_as_columns_are(root: Path) -> None:
    frame = {"fr": pl.DataFrame({"e": [1.0, 2.0]})}

    def given(name: str, text: str, former: str | None = None) -> None:
        told = {"renamed_from": former} if former else {}
        case = create_model(
            "Case", __base__=ExperimentInputSpec, **{name: (float, Field(description=text, json_schema_extra=told))}
        )

        def differing(spec: Any) -> ExperimentOutputSpec:
            return ExperimentOutputSpec(dataframes=frame)

        differing.__annotations__ = {"spec": case, "return": ExperimentOutputSpec}
        ExperimentRegistry.Register(name="differing")(differing)
        BaseExperiment("differing").allocate(pl.DataFrame({name: [7.0]}), "auto", engine="inline")

    given("r", "Length [m]")
    before = pickle.dumps(scythe.dataset("differing", y=scythe.Frame("fr", ["r", "e"])))
    given("q", "Length [m]", "r")
    for ds in (
        pickle.loads(before),
        scythe.dataset("differing", y=scythe.Frame("fr", ["r", "e"])),
        scythe.dataset("differing", y=scythe.Frame("fr", ["q", "e"])),
    ):
        assert ds[0]["y"].tolist() == [[7, 1], [7, 2]]
    given("q", "Length [km]")
    with pytest.raises(InputError, match=r"fr: 'q' is in \[m\], \[km\], by version"):
        scythe.dataset("differing", "all", fr=scythe.Frame("fr", ["q"]))


def test_categories_have_the_order_of_the_models_in_expressions_of_many_versions(root: Path) -> None:
    finish(Literal["small", "large"], ["small", "large"], {"y": float}, y=1)
    finish(Literal["small", "large", "huge"], ["small", "large", "huge"], {"y": float}, y=1)
    above = pl.col("x") > "small"
    ds = scythe.dataset("differing", "all", y="y", where=above)
    read = scythe.read("differing", "all", ids=False).filter(above).sort("run_datetime", "x")
    assert ds.frame.collect()["x"].to_list() == ["large", "large", "huge"] == read["x"].to_list()
    assert ds.frame.collect()["x"].dtype == read["x"].dtype


@pytest.mark.parametrize(
    "orders", [("la sm", "sm la"), ("sm la", "la sm"), ("b a", "b a c", "a b c"), ("a", "c a"), ("a c", "c b")]
)
def test_categories_of_many_versions_have_one_order_in_tables_expressions_and_arrays(
    root: Path, orders: tuple[str, ...]
) -> None:
    for order in orders:
        names = tuple(order.split())
        finish(Literal[names], sorted(names), {"y": float}, y=1)
    read = scythe.read("differing", "all", run="all", ids=False)
    whole = scythe.dataset("differing", "all", run="all", x="x")
    told = read["x"].dtype.categories.to_list()
    assert whole.frame.collect()["x"].dtype == read["x"].dtype
    assert [name.removeprefix("x=") for name in whole.names["x"]] == told
    for name in told:
        above = pl.col("x") > name
        ds = scythe.dataset("differing", "all", run="all", x="x", where=above)
        assert sorted(ds.frame.collect()["x"].cast(str)) == sorted(read.filter(above)["x"].cast(str))


def test_a_frame_of_many_versions_rounds_nothing(root: Path) -> None:
    finish(float, [1], {"y": int}, y=2**53 + 1)
    finish(float, [1], {"y": float}, y=0.5)
    with pytest.raises(ReadError, match="'y' is a float in one version, and 9007199254740993 in another"):
        scythe.dataset("differing", "all", x="x").frame.collect()


def test_what_a_run_lacks_is_missing_though_another_table_of_it_has_that_name(root: Path) -> None:
    finish(float, [1, 2], {"y": float}, y=1)
    finish(float, [1, 2], {"y": float, "seconds": (float, Field())}, y=1, seconds=1000)

    ds = scythe.dataset("differing", "all", x="x", y="seconds", missing="drop")

    assert scythe.read("differing", "all")["seconds"].to_list() == [None, None, 1000, 1000]
    assert ds.batches(9, shuffle=False).at(0)[0]["y"].tolist() == [1000, 1000]
    assert len(scythe.dataset("differing", "all", x="x", where=pl.col("seconds") < 1)) == 0
    with pytest.raises(InputError, match="'seconds' is missing in 2 rows"):
        len(scythe.dataset("differing", "all", y="seconds"))
    assert len(scythe.dataset("differing", "v1.0.0", y="seconds")) == 2  # how long they took


def test_a_part_is_split_again_by_its_shares(root: Path) -> None:
    finish(float, list(range(400)), {"y": float}, y=1)
    ds = scythe.dataset("differing", x="x", y="y")
    whole = ds.split(train=0.8, hold=0.2)["hold"]

    parts = whole.split(val=0.5, test=0.5)
    again = parts["val"].split(a=0.5, b=0.5)

    assert sum(map(len, parts.values())) == len(whole) > 50
    assert 0.3 < len(parts["val"]) / len(whole) < 0.7
    assert sum(map(len, again.values())) == len(parts["val"])
    assert min(map(len, again.values())) > 0
    own = ds.split(by="x", left=0.5, right=0.5)["left"].split(a=0.5, b=0.5)  # the same hash by another name
    assert min(map(len, own.values())) > 50


def test_rows_are_taken_by_positions_and_by_truth_values(root: Path) -> None:
    finish(float, list(range(10)), {"y": float}, y=1)
    ds = scythe.dataset("differing", x="x")
    mask = np.zeros(10, bool)
    mask[[5, 9]] = True

    def xs(taken: Any) -> list[float]:
        return taken.frame.collect()["x"].to_list()

    assert xs(ds[mask]) == xs(ds[mask.tolist()]) == xs(ds[[5, -1]]) == xs(ds[np.array([5, 9], np.int32)]) == [5, 9]
    assert ds[np.int64(3)]["x"] == 3
    assert len(ds[[]]) == 0
    for wrong in ([True, False], [1.5], "ab", [[1, 2]]):
        with pytest.raises(IndexError, match="named by their positions"):
            ds[wrong]  # pyright: ignore[reportArgumentType, reportCallIssue]


def test_frames_of_other_lengths_are_normalized_too(root: Path) -> None:
    finish(int, [1, 2, 3], {"y": float}, y=1, dataframes={"m": pl.DataFrame({"e": [100.0, 110.0]})})
    ds = scythe.dataset("differing", m=scythe.Frame("m", ["e"]), collate="list")
    source, stats = ds.sources["m"], ds.stats()

    found = stats.normalized("m", source, [np.array([[100.0]]), np.array([[110.0], [105.0]])])

    assert [array.ravel().tolist() for array in found] == [[-1], [1, 0]]


def test_a_column_of_choices_in_one_version_and_of_numbers_in_another_is_refused(root: Path) -> None:
    finish(Literal["a", "b"], ["a", "b"], {"y": float}, y=1)
    finish(int, [7, 8], {"y": float}, y=1)

    with pytest.raises(InputError, match="'x' is one of a, b in some runs, and a number in differing/v2"):
        len(scythe.dataset("differing", "all", x="x"))


def test_the_frame_of_a_dataset_mixes_no_units_and_shows_other_choices_as_texts(root: Path) -> None:
    finish(Literal["a", "b"], ["a"], {"y": (float, Field(description="E [kWh]"))}, y=1000)
    finish(Literal["a", "b", "c"], ["c"], {"y": (float, Field(description="E [kWh]"))}, y=1)
    ds = scythe.dataset("differing", "all", x="x", y="y")
    assert ds.frame.collect()["x"].to_list() == ["a", "c"]

    finish(Literal["a", "b", "c"], ["c"], {"y": (float, Field(description="E [MWh]"))}, y=1)
    ds = scythe.dataset("differing", "all", x="x")
    with pytest.raises(ReadError, match=r"'y' is in \[kWh\], \[MWh\]"):
        _ = ds.frame
    with pytest.raises(InputError, match=r"by=: 'y' is in \[kWh\], \[MWh\]"):
        len(ds.split(by="y", a=0.5, b=0.5)["a"])


def test_rows_of_many_runs_are_chosen_by_version_and_datetime_and_show_them(root: Path) -> None:
    finish(int, [1, 2], {"y": float}, y=1)
    first = scythe.open_run("differing")
    finish(int, [3], {"y": float, "z": (float, 2.0)}, y=1)
    second = scythe.open_run("differing")
    ds = scythe.dataset("differing", "all", run="all", x="x", where=pl.col("version") != str(second.key.version))
    assert ds.frame.collect()["x"].to_list() == [1, 2]
    ds = scythe.dataset(
        "differing", "all", x="x", where=(pl.col("run_datetime") == pl.lit(second.key.moment)) | (pl.col("x") == 1)
    )
    shown = ds.frame.collect()
    assert shown["version"].to_list() == [str(first.key.version), str(second.key.version)]
    assert shown["run_datetime"].to_list() == [first.key.moment, second.key.moment]
    read = scythe.read("differing", "all", run="all")
    assert shown.schema == read.schema
    assert scythe.dataset("differing", x="x").frame.collect().schema == scythe.read("differing").schema


class Nested(BaseModel):
    u: float


def test_rows_that_nothing_tells_apart_are_not_split(root: Path) -> None:
    finish(Nested, [Nested(u=i) for i in range(5)], {"y": float}, y=1)

    with pytest.raises(ReadError, match=r"made by the scalar inputs .* has none: name columns with by="):
        len(scythe.dataset("differing", y="y").split(train=0.8, test=0.2)["test"])


def test_files_that_are_gone_since_a_dataset_was_made_are_missed_with_the_reason(root: Path) -> None:
    file = root.parent / "f.npy"
    np.save(file, np.zeros(2))
    finish(float, [1, 2, 3], {"f": FileReference}, f=file)
    ds = scythe.dataset("differing", x="x", y=scythe.File("f"))
    pack(storage(), scythe.open_run("differing").key, ["f"], delete=True)
    with pytest.raises(
        FetchError, match=r"y: the file of row 0, input 0 of .*; the run has ended anew .* refresh\(\) it"
    ):
        ds[0]
    assert ds.refresh()[0]["y"].tolist() == [0, 0]
    finish(float, [1, 2, 3], {"f": FileReference}, f=file)
    again, late = (scythe.dataset("differing", x="x", y=scythe.File("f")) for _ in range(2))
    assert again[0]["y"].tolist() == [0, 0]
    scythe.open_run("differing").delete()
    with pytest.raises(
        FetchError, match=r"y: the file of row 1, input 1 of .*; the run was deleted; refresh\(\) gives"
    ):
        again[1]
    with pytest.raises(NotFoundError, match="is gone"):
        late[0]


def test_a_state_of_before_the_files_were_packed_is_gone_on_from(root: Path) -> None:
    file = root.parent / "f.npy"
    np.save(file, np.zeros(2))
    finish(float, [1, 2, 3], {"f": FileReference}, f=file)

    def batches() -> Any:
        return scythe.dataset("differing", x="x").batches(1, shuffle=False)

    state = batches().state(0, 1)
    pack(storage(), scythe.open_run("differing").key, ["f"])

    assert [batch["x"].tolist() for batch in batches().resume(state)] == [[2], [3]]
