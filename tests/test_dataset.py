"""What a training loop draws on: arrays of rows, files and frames, split for ever, in an order that can be begun anywhere."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import threading
from dataclasses import replace
from enum import Enum
from functools import partialmethod
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import polars as pl
import polars.selectors as cs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

import scythe
from scythe.allocate import BaseExperiment, ExperimentRun
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.errors import (
    FetchError,
    ForkError,
    InputError,
    NotFoundError,
    ReadError,
    RunDamaged,
    StateError,
    StorageError,
)
from scythe.loaders.arrays import Kept
from scythe.loaders.batches import Batches
from scythe.loaders.files import source
from scythe.loaders.files.decoding import decoded, put
from scythe.loaders.frames import Slices
from scythe.loaders.hashing import hash_rows, order_of, splitmix64
from scythe.loaders.pinned.find import pinned
from scythe.registry import ExperimentRegistry
from scythe.remote import forks
from scythe.settings import storage
from scythe.utils.filesys import FileReference


class Roof(Enum):
    FLAT = "flat"
    STEEP = "steep"


class House(ExperimentInputSpec):
    r_value: float = Field(gt=0)
    storeys: int = 1
    roof: Roof = Roof.FLAT
    fuel: Literal["gas", "oil"] = "gas"
    name: str = ""
    age: float | None = None


class Heat(ExperimentOutputSpec):
    load: float
    ok: bool
    hourly: FileReference


#: What is too thick.
LIMITS = {"r_value": 90.0}


def heat(spec: House, tempdir: Path) -> Heat:
    if spec.r_value > LIMITS["r_value"]:
        raise ValueError("too thick")
    np.save(tempdir / "hourly.npy", np.full((4, 2), spec.r_value, np.float32))
    energy = [e if (e := spec.r_value * m) <= LIMITS.get("energy", 1e9) else None for m in (1, 2, 3)]
    frame = pl.DataFrame({"month": [1, 2, 3], "energy": energy}, schema={"month": pl.Int64, "energy": pl.Float64})
    return Heat(
        load=10 / spec.r_value, ok=spec.storeys > 1, hourly=tempdir / "hourly.npy", dataframes={"monthly": frame}
    )


class Later(ExperimentInputSpec):
    r_value: float
    storeys: str


class LaterLoad(ExperimentOutputSpec):
    load: float


def later(spec: Later) -> LaterLoad:
    return LaterLoad(load=spec.r_value)


class Single(ExperimentOutputSpec):
    file: FileReference


@pytest.fixture
def house(root: Path) -> BaseExperiment:
    return BaseExperiment(ExperimentRegistry.Register(name="heat", retries=0)(heat))


def specs(n: int, start: int = 1, **columns: Any) -> pl.DataFrame:
    kinds = {"storeys": [1 + i % 3 for i in range(n)], "roof": ["flat" if i % 2 else "steep" for i in range(n)]}
    return pl.DataFrame({"r_value": [float(start + i) for i in range(n)], **kinds, **columns})


def allocated(house: BaseExperiment, frame: Any, version: str = "keep") -> ExperimentRun:
    run, ref = house.allocate(frame, version, engine="inline")
    ref.result()
    return run


@pytest.fixture
def ten(house: BaseExperiment) -> ExperimentRun:
    return allocated(house, specs(10), "bumpmajor")


# --- arrays -------------------------------------------------------------------------------------------------


def test_columns_come_in_one_array_and_few_values_one_hot_in_the_models_order(ten: ExperimentRun) -> None:
    ds = scythe.dataset("heat", x=["r_value", "roof", "ok"], y="load", kind="fuel")
    assert ds.names["x"] == ("r_value", "roof=flat", "roof=steep", "ok")
    assert ds.names["kind"] == ("fuel=gas", "fuel=oil")
    assert ds.shapes == {"x": (4,), "y": (), "kind": (2,)}
    row = ds[1]
    assert row["x"].tolist() == [2.0, 1.0, 0.0, 1.0]
    assert row["x"].dtype == np.float32
    assert row["y"] == np.float32(5.0)
    assert len(ds) == 10
    assert ds[2:5][0]["x"][0] == 3.0
    assert [ds[[7, 1]][i]["x"][0] for i in range(2)] == [8.0, 2.0]
    with pytest.raises(IndexError):
        ds[10]


def test_files_and_frames_of_each_row_come_in_one_array(ten: ExperimentRun) -> None:
    ds = scythe.dataset(
        "heat", x=["r_value"], y=scythe.File("hourly"), monthly=scythe.Frame("monthly", ["energy", "month"], rows=3)
    )
    batch = ds.batches(4, shuffle=False).at(0)[1]
    assert batch["y"].shape == (4, 4, 2)
    assert batch["y"][:, 0, 0].tolist() == batch["x"][:, 0].tolist() == [5.0, 6.0, 7.0, 8.0]
    assert batch["monthly"].shape == (4, 3, 2)
    assert batch["monthly"][1].tolist() == [[6.0, 1.0], [12.0, 2.0], [18.0, 3.0]]


def test_a_frame_may_give_the_index_of_its_rows(ten: ExperimentRun) -> None:
    ds = scythe.dataset("heat", x=["sort_index"], m=scythe.Frame("monthly", ["sort_index", "month"], rows=3))
    batch = ds.batches(4, seed=1).at(0)[0]
    assert np.array_equal(batch["m"][..., 0], np.repeat(batch["x"], 3, 1))
    assert (batch["m"][..., 1] == [1, 2, 3]).all()


def hourly() -> list[Path]:
    return [Path(uri.removeprefix("file://")) for uri in scythe.files("heat")["hourly"]]


def doubled(batch: dict[str, Any]) -> dict[str, Any]:
    """As a training step that works in place."""
    batch["y"] *= 2
    return batch


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_files_that_fit_into_memory_are_read_in_the_first_epoch_alone(ten: ExperimentRun, dtype: str) -> None:
    ds = scythe.dataset("heat", x="r_value", y=scythe.File("hourly"), dtype=dtype)
    part = ds.split(train=0.5, rest=0.5)["train"]
    batches = part.batches(2, seed=1)
    for batch in batches.at(0):
        doubled(batch)
    for path in hourly():
        path.unlink()
    for epoch in (1, 2):
        for batch in batches.at(epoch):
            assert (batch["y"] == batch["x"][:, None, None]).all()
            doubled(batch)
    with pytest.raises(FetchError, match=r"y: the file of row \d"):
        list(ds.batches(10).at(0))


def test_single_files_of_several_batches_are_read_at_the_same_time(
    ten: ExperimentRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    ds = scythe.dataset("heat", y=scythe.File("hourly"))
    assert ds.shapes["y"] == (4, 2)
    both, filled = threading.Barrier(2), source.filled

    def together(*arguments: Any) -> None:
        both.wait(30)
        filled(*arguments)

    monkeypatch.setattr(source, "filled", together)
    assert len(list(ds.batches(5, ahead=2).at(0))) == 2


def test_files_that_do_not_fit_into_memory_are_read_in_each_epoch(
    ten: ExperimentRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scythe.loaders.files.source._KEPT_BYTES", 10 * 32 - 1)
    batches = scythe.dataset("heat", x="r_value", y=scythe.File("hourly")).batches(3, seed=1, ahead=3)
    for epoch in range(3):
        assert all((batch["y"] == batch["x"][:, None, None]).all() for batch in batches.at(epoch))
    hourly()[3].unlink()
    with pytest.raises(FetchError, match="y: the file of row 3, input 3 of heat/"):
        list(batches.at(3))


def test_what_a_loader_of_ones_own_makes_is_made_anew_in_each_epoch(ten: ExperimentRun) -> None:
    made = iter(range(100))
    ds = scythe.dataset("heat", y=scythe.File("hourly", load=lambda raw: np.array(next(made))), x="r_value")
    first, second = (np.concatenate([b["y"] for b in ds.batches(4, seed=1).at(epoch)]).tolist() for epoch in (0, 1))
    assert not set(first) & set(second)


@given(
    st.sampled_from(["int8", "uint8", "int32", "uint32", "int64", "uint64"]),
    st.sampled_from(["float16", "float32", "float64", "complex64"]),
    st.data(),
)
def test_whole_numbers_of_files_are_given_exactly_or_refused(whole: str, dtype: str, data: st.DataObject) -> None:
    limits = np.iinfo(whole)
    near = st.one_of(st.integers(limits.min, limits.max), st.sampled_from([limits.min, limits.max, limits.max - 1]))
    powers = st.integers(0, limits.bits - 1).flatmap(lambda n: st.integers(2**n - 1, 2**n + 1))
    values = data.draw(st.lists(st.one_of(near, powers.filter(lambda n: n <= limits.max)), min_size=1, max_size=4))
    found, out = np.array([values], whole), np.zeros((1, len(values)), dtype)
    told = put(found, out)
    with np.errstate(over="ignore"):
        reals = np.real(np.array(values, whole).astype(dtype)).tolist()
    exact = all(np.isfinite(real) and int(real) == value for real, value in zip(reals, values, strict=True))
    assert (told is None) == exact
    if exact:
        assert np.real(out)[0].tolist() == [float(v) for v in values]


def test_whole_numbers_beside_floats_in_a_table_of_a_file_are_exact_or_refused(tmp_path: Path) -> None:
    table = pl.DataFrame({"n": [2**53 + 1, 3], "x": [0.5, 1.5]})
    table.write_parquet(tmp_path / "a.parquet")
    table.write_csv(tmp_path / "a.csv")
    for name in ("a.parquet", "a.csv"):
        with pytest.raises(InputError, match="has a column 'n' that holds 9007199254740993, which no float is"):
            decoded(name, (tmp_path / name).read_bytes(), np.dtype("float64"))
    pl.DataFrame({"n": [2**53 + 1, None]}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(InputError, match="holds 9007199254740993, which no float is, among floats or gaps"):
        decoded("a.parquet", (tmp_path / "a.parquet").read_bytes(), np.dtype("float64"))
    table[1:].write_parquet(tmp_path / "a.parquet")
    assert decoded("a.parquet", (tmp_path / "a.parquet").read_bytes(), np.dtype("float64")).tolist() == [[3, 1.5]]


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=6), min_size=1, max_size=12))
def test_arrays_that_stay_in_memory_are_those_that_were_read_once_each(asked: list[list[int]]) -> None:
    kept, read = Kept(np.empty((10, 2))), list[int]()

    def of(rows: np.ndarray) -> np.ndarray:
        read.extend(set(rows.tolist()))
        return np.stack([rows, -rows], 1).astype(float)

    for rows in asked:
        found = kept.take(np.array(rows), of)
        assert found.tolist() == [[row, -row] for row in rows]
        found[:] = np.nan
    assert sorted(read) == sorted({row for rows in asked for row in rows})


def test_arrays_are_there_for_others_once_they_have_been_read_and_not_before() -> None:
    kept, begun, goes_on, found = Kept(np.full((2, 2), np.nan)), threading.Event(), threading.Event(), list[Any]()

    def slowly(rows: np.ndarray) -> np.ndarray:
        begun.set()
        assert goes_on.wait(30)
        return np.ones((len(rows), 2))

    first = threading.Thread(target=lambda: found.append(kept.take(np.array([0]), slowly)))
    first.start()
    assert begun.wait(30)
    assert kept.take(np.array([0]), lambda rows: np.ones((len(rows), 2))).tolist() == [[1, 1]], "it reads by itself"
    goes_on.set()
    first.join(30)
    assert found[0].tolist() == [[1, 1]]
    with pytest.raises(FetchError):
        kept.take(np.array([1]), lambda rows: (_ for _ in ()).throw(FetchError("away")))
    assert kept.lacking(np.array([0, 1])).tolist() == [1]


def test_a_file_or_a_loader_may_give_a_single_number(root: Path) -> None:
    def one(spec: Later, tempdir: Path) -> Single:
        np.save(tempdir / "one.npy", np.float64(spec.r_value))
        return Single(file=tempdir / "one.npy")

    experiment = BaseExperiment(ExperimentRegistry.Register(name="one")(one))
    experiment.allocate(pl.DataFrame({"r_value": [1.0, 2.0, 3.0], "storeys": "a"}), engine="inline")[1].result()
    for file in (
        scythe.File("file"),
        scythe.File("file", load=lambda raw: decoded("one.npy", raw, np.dtype("float32"))),
    ):
        batch = scythe.dataset("one", x="r_value", y=file).batches(3, seed=0).at(0)[0]
        assert batch["y"].shape == (3,)
        assert (batch["y"] == batch["x"]).all()


def test_a_loader_of_ones_own_gets_the_bytes_or_the_path(ten: ExperimentRun) -> None:
    sizes = scythe.File("hourly", load=lambda raw: np.array([len(raw)]))
    named = scythe.File("hourly", load=lambda path: np.array([path.suffix == ".npy"]), path=True)
    ds = scythe.dataset("heat", a=sizes, b=named, dtype="int64")
    assert ds[0]["a"].tolist() == [160]
    assert ds[0]["b"].tolist() == [1]


@pytest.mark.parametrize(
    ("groups", "error", "told"),
    [
        ({"x": ["r_valu"]}, NotFoundError, "did you mean 'r_value'"),
        ({"x": ["name"]}, InputError, "'name' is no number but String: give it as a field of an Enum"),
        ({"x": ["age"]}, InputError, r"'age' is missing in 10 rows of heat/v1.0.0/.* \(input 0 the first\)"),
        (
            {"x": scythe.Frame("monthly", ["energy"], rows=12)},
            InputError,
            "input 0 of .* has 3 rows in 'monthly', not 12",
        ),
        ({"x": scythe.File("load")}, InputError, "x: 'load' of heat/.* is no file: leave File\\(\\) off, x='load'"),
        ({"x": scythe.File("hourl")}, NotFoundError, "x: there is no column 'hourl' .did you mean 'hourly'"),
        ({"x": scythe.Frame("monthy", ["energy"])}, NotFoundError, "no dataframe 'monthy' .did you mean 'monthly'"),
        ({"x": scythe.Frame("monthly", ["enery"])}, NotFoundError, "no column 'enery' .did you mean 'energy'"),
        (
            {"x": "load", "verison": "all"},
            NotFoundError,
            "no column 'all'.*; or is verison= an option. .did you mean 'version'",
        ),
        (
            {"x": "load", "wher": pl.col("load") < 1},
            ReadError,
            "wher=.* is no group.*; or is wher= an option. .did you mean 'where'",
        ),
        ({"x": 5}, ReadError, "is no group"),
        ({}, ReadError, "needs a group"),
    ],
)
def test_what_no_array_can_be_made_of_is_refused(
    ten: ExperimentRun, groups: dict[str, Any], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        len(scythe.dataset("heat", **groups).shapes)


def test_a_condition_on_a_column_that_is_not_there_is_refused_and_takes_no_rows_away(ten: ExperimentRun) -> None:
    with pytest.raises(NotFoundError, match=r"where: there is no column 'r_valu' \(did you mean 'r_value'"):
        len(scythe.dataset("heat", x=["r_value"], where=pl.col("r_valu") < 3))


def test_no_value_is_cut_by_the_type_of_the_arrays(ten: ExperimentRun) -> None:
    with pytest.raises(InputError, match="'load' has values that int64 does not hold"):
        scythe.dataset("heat", y="load", dtype="int64").shapes["y"]
    with pytest.raises(InputError, match="holds float32, which int32 does not hold"):
        scythe.dataset("heat", y=scythe.File("hourly"), dtype="int32").batches(2).at(0)[0]
    assert scythe.dataset("heat", y="storeys", dtype="int16")[1]["y"] == 2


def test_no_value_becomes_infinite_in_the_type_of_the_arrays(house: BaseExperiment) -> None:
    allocated(house, specs(2).with_columns(storeys=pl.Series([1, 70_000])), "bumpmajor")
    assert scythe.dataset("heat", y="storeys")[1]["y"] == 70_000
    with pytest.raises(InputError, match="'storeys' has values beyond what float16 reaches: take a wider one"):
        scythe.dataset("heat", x=["r_value", "storeys"], dtype="float16").shapes["x"]
    assert put(np.array([[1.0], [1e39]]), np.empty((2, 1), np.float32)) == (
        1,
        "holds 1e+39, which float32 does not hold: take a wider dtype=",
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float33", "str", "object", None])
def test_a_type_that_is_none_of_numpys_numbers_is_refused_with_the_way_out(ten: ExperimentRun, dtype: str) -> None:
    with pytest.raises(ReadError, match=rf"dtype={dtype!r} is none of NumPy's numbers: .* torch.bfloat16"):
        scythe.dataset("heat", x=["r_value"], dtype=dtype)


def test_arrays_of_a_list_are_of_the_dtype_and_belong_to_the_batch(ten: ExperimentRun) -> None:
    hourly = scythe.File("hourly", load=lambda raw: np.frombuffer(raw[-32:], np.float32).astype(np.float64))
    ds = scythe.dataset("heat", y=hourly, collate="list")
    (batch,) = ds.batches(10, shuffle=False).at(0)
    assert {(one.dtype.name, one.flags.writeable) for one in batch["y"]} == {("float32", True)}
    raw = scythe.File("hourly", load=lambda raw: np.frombuffer(raw[-32:], np.float32))
    (batch,) = scythe.dataset("heat", y=raw, collate="list").batches(10, shuffle=False).at(0)
    assert all(one.flags.writeable for one in batch["y"])
    uneven = Slices(("v",), np.arange(3.0)[:, None], np.array([0, 1]), np.array([1, 2]), None, (False,), (None,))
    for one in uneven.take(np.array([1, 0])):
        one += 100
    assert uneven.take(np.array([1]))[0].tolist() == [[1.0], [2.0]]


def test_a_dataframe_that_misses_values_is_refused_by_name(
    house: BaseExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LIMITS, "energy", 5.0)
    run = allocated(house, specs(3), "bumpmajor")
    with pytest.raises(
        InputError, match=rf"'energy' of 'monthly' is missing in 3 rows of {run.experiment_id} \(of input 1 first\)"
    ):
        scythe.dataset("heat", m=scythe.Frame("monthly", ["energy"], rows=3)).shapes["m"]


def test_rows_are_chosen_by_an_expression_and_those_without_a_value_are_left_out_on_request(
    house: BaseExperiment,
) -> None:
    allocated(house, specs(6, age=[None, 1.0, 2.0, float("nan"), 4.0, None]), "bumpmajor")
    ds = scythe.dataset(
        "heat", x=["r_value", "age"], missing="drop", where=(pl.col("r_value") > 2) & (pl.col("load") < 9)
    )
    assert [ds[i]["x"].tolist() for i in range(len(ds))] == [[3.0, 2.0], [5.0, 4.0]]
    assert ds.frame.collect()["r_value"].to_list() == [3.0, 5.0]


@pytest.mark.parametrize(
    ("groups", "where", "told"),
    [
        ({"x": "r_value", "y": "age"}, None, "all 4 rows: y: 'age' is missing in 4 of them"),
        ({"y": ["age", "r_value"]}, pl.col("r_value") < 3, "all 2 rows: y: 'age' is missing in 2 of them"),
        ({"x": "r_value", "m": scythe.Frame("monthly", ["month", "energy"], rows=3)}, None, "all 4 rows: m: 'energy' of 'monthly' is missing in 4"),
    ],
)  # fmt: skip
def test_where_all_rows_were_left_out_the_column_that_misses_its_values_is_named(
    groups: Any, where: Any, told: str, house: BaseExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LIMITS, "energy", 0.0)
    allocated(house, specs(4), "bumpmajor")
    ds = scythe.dataset("heat", missing="drop", where=where, **groups)
    for ask in (len, lambda ds: ds.stats(), lambda ds: list(ds.batches(2).at(0))):
        with pytest.raises(InputError, match=rf'missing="drop" has left out {told}'):
            ask(ds)
    assert len(scythe.dataset("heat", missing="drop", where=pl.col("r_value") > 9, **groups)) == 0


@pytest.mark.parametrize(
    "where",
    [
        pl.col("r_value") > pl.col("r_value").mean(),
        pl.col("r_value").is_in(pl.col("r_value").top_k(5).implode()),
        pl.col("roof").is_first_distinct(),
        pl.col("load").shift(1) > pl.col("load"),
        pl.int_range(pl.len()) < 3,
        pl.any_horizontal(cs.float() > 9),
        pl.lit(True),
    ],
    ids=["mean", "top", "first", "shift", "place", "selected", "all"],
)
def test_an_expression_is_of_all_rows_together_however_many_are_read_at_once(
    house: BaseExperiment, monkeypatch: pytest.MonkeyPatch, where: pl.Expr
) -> None:
    read_by(4, monkeypatch)
    for start in (1, 11):
        allocated(house, specs(10, start), "keep" if start > 1 else "bumpmajor")
    rows = scythe.read("heat", run="all").filter(where)
    ds = scythe.dataset("heat", run="all", x=["r_value"], where=where)
    assert [float(ds[i]["x"][0]) for i in range(len(ds))] == rows["r_value"].to_list()


def test_rows_are_the_same_in_however_many_pieces_they_lie(
    house: BaseExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    allocated(house, specs(20), "bumpmajor")
    rows = scythe.read("heat")
    parts = [rows[a:b] for a, b in pairwise((0, 3, 4, 11, 20))]
    run = replace(pinned(storage(), "heat", None, None)[0], result=None, rows=pl.concat(parts, rechunk=False))
    read_by(7, monkeypatch)
    found = [*run.blocks(["r_value", "load", "no_such"])]
    assert [start for start, _ in found] == [0, 7, 14]
    assert {frame["load"].n_chunks() for _, frame in found} == {1}, "a look at a column as an array makes none"
    assert all(frame["no_such"].null_count() == frame.height for _, frame in found)
    assert pl.concat(frame for _, frame in found)["r_value", "load"].equals(rows["r_value", "load"])


def read_by(rows: int, patch: pytest.MonkeyPatch) -> None:
    """Tables are read so many rows at a time."""
    patch.setattr(pl.LazyFrame, "collect_batches", partialmethod(pl.LazyFrame.collect_batches, chunk_size=rows))


@pytest.mark.parametrize("lacking", [False, True])
@pytest.mark.parametrize("by", [1, 3, 100])
def test_rows_that_are_left_out_leave_the_others_where_they_were(
    house: BaseExperiment, monkeypatch: pytest.MonkeyPatch, by: int, lacking: bool
) -> None:
    read_by(by, monkeypatch)
    for start in (1, 11, 21):
        allocated(house, specs(10, start), "keep" if start > 1 else "bumpmajor")
    where = ~pl.col("r_value").is_between(13, 17) if lacking else None
    ds = scythe.dataset("heat", run="all", where=where, x="r_value", y=scythe.File("hourly"))
    wanted = [float(r) for r in range(1, 31) if not lacking or not 13 <= r <= 17]
    assert ds.sources["x"].take(np.arange(len(ds))).tolist() == wanted
    assert ds.sources["y"].take(np.arange(len(ds)))[:, 0, 0].tolist() == wanted
    assert ds.frame.collect()["r_value"].to_list() == wanted
    turned = ds[::-1]
    assert turned.frame.collect()["r_value"].to_list() == wanted[::-1]
    assert turned[::-1].digest == ds.digest
    Path(scythe.files("heat", run="all").sort("r_value")["hourly"][22].removeprefix("file://")).unlink()
    with pytest.raises(FetchError, match=f"row {wanted.index(23.0)}, input 2 of {ds.runs[2]}"):
        list(ds.pinned_to(ds.pins).batches(30).at(0))  # the same, of which no file is in memory


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:300])


def fewer(path: Path) -> None:
    pl.read_parquet(path)[:7].write_parquet(path)


def more(path: Path) -> None:
    pl.concat([pl.read_parquet(path)] * 2).write_parquet(path)


def garbled(path: Path) -> None:
    """What comes first in the file, its first column, is something else."""
    data = bytearray(path.read_bytes())
    data[4:200] = bytes(196)
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [cut, fewer, more, garbled])
@pytest.mark.parametrize("column", ["r_value", "load", "seconds"])
def test_a_damaged_table_is_told_with_its_file(ten: ExperimentRun, damage: Any, column: str) -> None:
    result = ten.result
    assert result is not None
    path = Path(result.uris["scalars"].removeprefix("file://"))
    damage(path)
    asked = "sort_index" if damage is garbled and column != "seconds" else column
    told = rf"the table 'scalars' of {ten.experiment_id} (is damaged|cannot be read) \(file://{path}\)"
    with pytest.raises((RunDamaged, StorageError), match=told):
        len(scythe.dataset("heat", x=asked))


@pytest.mark.parametrize(
    "where",
    [
        pl.int_range(pl.len()).shuffle() < 5,
        pl.int_range(pl.len()).is_in(pl.int_range(pl.len()).sample(3)),
        pl.col("r_value").rank("random") < 3,
        pl.int_range(pl.len()).shuffle().over("roof") < 2,
    ],
)
def test_an_expression_that_draws_without_a_seed_is_refused_where_it_is_given(
    ten: ExperimentRun, where: pl.Expr
) -> None:
    with pytest.raises(ReadError, match=r"draws at random, and so takes other rows in each process.*shuffle\(seed=0\)"):
        scythe.dataset("heat", x="r_value", where=where)


def test_an_expression_that_draws_by_a_seed_or_draws_nothing_takes_the_same_rows_again(ten: ExperimentRun) -> None:
    for where in (
        pl.int_range(pl.len()).shuffle(seed=0) < 5,
        pl.col("r_value").rank() <= 5,
        pl.col("name").ne('"seed":null') & (pl.col("r_value") <= 5),
        pl.col("r_value").map_batches(lambda values: values <= 5),
    ):
        first, again = (scythe.dataset("heat", x="r_value", where=where) for _ in range(2))
        assert len(first) == 5
        assert first.digest == again.digest == pickle.loads(pickle.dumps(first)).digest


def test_a_function_of_python_that_draws_at_random_takes_no_rows(ten: ExperimentRun) -> None:
    rng, lock = np.random.default_rng(0), threading.Lock()

    def drawn(values: pl.Series) -> pl.Series:
        return pl.Series(rng.random(len(values)) < 0.5)

    def not_pickled(values: pl.Series) -> pl.Series:
        with lock:
            return drawn(values)

    r_value = pl.col("r_value")
    for where in (
        r_value.map_batches(drawn),
        r_value.map_batches(not_pickled),
        r_value.rolling_map(lambda _: rng.random(), 1) < 0.5,
        pl.fold(pl.lit(False), lambda before, values: before | drawn(values), [r_value]),
    ):
        with pytest.raises(ReadError, match=r"answers otherwise each time \(does it draw random numbers\?\)"):
            len(scythe.dataset("heat", x="r_value", where=where))


def test_an_expression_that_takes_of_values_in_no_order_is_refused_or_takes_the_same_rows_again(
    ten: ExperimentRun,
) -> None:
    """Each time that Polars is asked, and so in each process, these come in another order."""
    text = pl.col("r_value").cast(pl.String)
    for values in (text.unique(), pl.col("r_value").value_counts().struct.field("r_value").cast(pl.String)):
        with pytest.raises(ReadError, match=r"where= answers otherwise each time \(unique\(\).*sort them"):
            len(scythe.dataset("heat", x="r_value", where=text.is_in(values.head(5).implode())))
        for taken, rows in ((values, 10), (values.sort().head(5), 5)):
            assert len(scythe.dataset("heat", x="r_value", where=text.is_in(taken.implode()))) == rows


def test_an_expression_that_cannot_be_asked_of_all_rows_is_refused(
    house: BaseExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    allocated(house, specs(3), "bumpmajor")
    monkeypatch.setattr(ExperimentRegistry, "_experiments", {})

    other = BaseExperiment(ExperimentRegistry.Register(name="heat", retries=0)(later))
    allocated(other, pl.DataFrame({"r_value": [1.0], "storeys": ["1"]}), "bumpmajor")
    with pytest.raises(ReadError, match="'storeys', and runs differ in it"):
        len(scythe.dataset("heat", "all", run="all", x="r_value", where=pl.col("storeys") == "1"))
    assert len(scythe.dataset("heat", "all", run="all", x="r_value", where=pl.col("r_value") < 2)) == 2
    with pytest.raises(ReadError, match="cannot be asked of the rows"):
        len(scythe.dataset("heat", "v1.0.0", x="r_value", where=pl.col("r_value") == pl.col("roof").str.to_date()))


def test_files_of_unequal_shapes_are_refused_by_name_or_come_as_a_list(house: BaseExperiment) -> None:
    run = allocated(house, specs(3), "bumpmajor")
    odd = scythe.files("heat").filter(pl.col("sort_index") == 2)["hourly"][0]
    np.save(Path(odd.removeprefix("file://")), np.zeros((5, 2), np.float32))
    with pytest.raises(
        InputError,
        match=rf"the file of input 2 of {run.experiment_id}, .*, has the shape \(5, 2\), the first has \(4, 2\)",
    ):
        scythe.dataset("heat", y=scythe.File("hourly")).batches(3, shuffle=False).at(0)[0]
    (batch,) = scythe.dataset("heat", y=scythe.File("hourly"), collate="list").batches(3, shuffle=False).at(0)
    assert [item.shape for item in batch["y"]] == [(4, 2), (4, 2), (5, 2)]


# --- statistics ---------------------------------------------------------------------------------------------


def test_batches_are_normalized_by_the_statistics_of_the_training_part(ten: ExperimentRun) -> None:
    ds = scythe.dataset("heat", x=["r_value", "roof"], y="load", m=scythe.Frame("monthly", ["energy"], rows=3))
    stats = scythe.Stats.from_dict(json.loads(json.dumps(ds.stats().to_dict())))
    assert stats == ds.stats()
    assert (stats["x"]["r_value"].mean, stats["x"]["r_value"].count) == (5.5, 10)
    assert stats["x"]["r_value"].std == pytest.approx(np.std(np.arange(1, 11)))
    assert stats["m"]["energy"].max == 30.0
    (batch,) = ds.batches(10, normalize=stats).at(0)
    assert batch["x"][:, 0].mean() == pytest.approx(0, abs=1e-6)
    assert batch["x"][:, 0].std() == pytest.approx(1, abs=1e-6)
    assert set(batch["x"][:, 1].tolist()) == {0.0, 1.0}
    whole = scythe.dataset("heat", x=["storeys"], dtype="int64")
    with pytest.raises(InputError, match="normalize= makes fractions of 'x', which int64 does not hold"):
        whole.batches(2, normalize=whole.stats()).at(0)[0]
    with pytest.raises(StateError, match="normalize= has the columns"):
        scythe.dataset("heat", x=["storeys"]).batches(2, normalize=stats).at(0)[0]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"x": ["r_value", "storey"]}, r"x: there is no column 'storey' \(did you mean 'storeys'\?\)$"),
        ({"x": "name"}, "x: 'name' is no number but String"),
        ({"y": "hourly"}, r"y: 'hourly' is no number but String: it is a file: scythe.File\('hourly'\)"),
        ({"y": scythe.File("load")}, r"y: 'load' of heat/v1.* is no file: leave File\(\) off"),
        ({"y": scythe.File("hourlie")}, r"y: there is no column 'hourlie' \(did you mean 'hourly'\?\)$"),
        ({"y": scythe.Frame("monthy", ["energy"])}, r"has no dataframe 'monthy' \(did you mean 'monthly'\?\)"),
        ({"y": scythe.Frame("monthly", ["enery"])}, r"has no column 'enery' \(did you mean 'energy'\?\)"),
        ({"x": "load", "where": pl.col("lod") > 1}, r"where: there is no column 'lod' \(did you mean 'load'\?\)$"),
        ({"x": "load", "dtyp": "float64"}, r"dtyp: there is no column 'float64'.*is dtyp= an option\?.*'dtype'"),
    ],
)
def test_what_no_run_has_is_refused_when_a_dataset_is_made(ten: ExperimentRun, asked: Any, told: str) -> None:
    with pytest.raises((NotFoundError, InputError), match=told):
        scythe.dataset("heat", **asked)


def test_batches_are_shown_without_reading_a_row_and_are_no_epoch(ten: ExperimentRun) -> None:
    ds = scythe.dataset("heat", x=["load"], y=scythe.File("hourly"))
    batches = ds.batches(64, seed=3, rank=1, world=20)  # of which no rank would have a step
    assert repr(batches) == "<Batches of 64 rows, groups x, y, seed 3, rank 1 of 20>"
    assert "_loaded" not in vars(ds)
    with pytest.raises(TypeError, match=r"for batch in batches.at\(epoch\)"):
        iter(batches)


def test_what_a_split_is_made_by_is_refused_when_it_is_not_there(ten: ExperimentRun) -> None:
    with pytest.raises(NotFoundError, match=r"by=: there is no column 'roo' \(did you mean 'roof'\?\)"):
        scythe.dataset("heat", x="load").split(by="roo", a=0.5, b=0.5)


# --- order --------------------------------------------------------------------------------------------------


@given(st.integers(0, 500), st.integers(0, 2**63), st.integers(0, 1000))
def test_the_order_of_an_epoch_is_a_permutation(rows: int, seed: int, epoch: int) -> None:
    assert sorted(order_of(rows, seed, epoch)) == list(range(rows))


def test_the_order_of_very_many_rows_is_that_of_their_hashes() -> None:
    rows, seed, epoch = (1 << 24) + 5, 3, 1
    order = order_of(rows, seed, epoch)
    start = splitmix64(splitmix64(np.array([seed], np.uint64)) ^ np.uint64(epoch))
    hashes = splitmix64(order.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + start)
    assert (hashes[1:] > hashes[:-1]).all()
    assert np.bincount(order, minlength=rows).max() == 1


def test_orders_never_change_and_differ_by_seed_and_epoch() -> None:
    assert order_of(8, 0, 0).tolist() == ORDER
    assert len({tuple(order_of(8, seed, epoch)) for seed in range(4) for epoch in range(4)}) == 16


def drawn(batches: scythe.Dataset | Any, epoch: int = 0) -> list[float]:
    return [x for batch in batches.at(epoch) for x in batch["x"][:, 0].tolist()]


def test_all_ranks_together_draw_each_row_once_in_equal_numbers_of_steps(house: BaseExperiment) -> None:
    allocated(house, specs(23), "bumpmajor")
    ds = scythe.dataset("heat", x=["r_value"])
    alone = drawn(ds.batches(6, seed=3))
    for world, size in ((1, 6), (2, 3), (3, 2), (6, 1)):
        ranks = [ds.batches(size, seed=3, rank=rank, world=world) for rank in range(world)]
        assert len({len(rank) for rank in ranks}) == 1
        steps = [[rank.at(0)[step]["x"][:, 0].tolist() for rank in ranks] for step in range(len(ranks[0]))]
        together = [x for step in steps for part in step for x in part]
        assert together == alone[: len(together)]
        assert len(together) >= 23 - world
    assert sorted(alone) == [float(i) for i in range(1, 24)]


@given(st.integers(0, 8), st.sampled_from([(1, 6), (2, 3), (3, 2), (6, 1)]), st.integers(0, 3))
def test_a_resume_goes_on_with_the_very_next_sample_on_any_number_of_ranks(
    step: int, ranks: tuple[int, int], ahead: int
) -> None:
    ds = _Numbers(50)
    world, size = ranks
    before = Batches(ds, 6, seed=1)
    state = json.loads(json.dumps(before.state(2, step)))
    whole = [x for batch in before.at(2) for x in batch["x"].tolist()]
    parts = [
        [batch["x"].tolist() for batch in Batches(ds, size, seed=1, ahead=ahead, rank=r, world=world).resume(state)]
        for r in range(world)
    ]
    rest = [x for step in zip(*parts, strict=True) for part in step for x in part]
    assert rest == whole[step * 6 :][: len(rest)]
    assert len(rest) >= 50 - step * 6 - world + 1


class _Numbers:
    """A dataset of the numbers from 0 on."""

    name: ClassVar[str] = "numbers"
    pins: ClassVar[list[Any]] = []

    def __init__(self, rows: int) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return self._rows

    @property
    def digest(self) -> str:
        return str(self._rows)

    groups: ClassVar[dict[str, Any]] = {}

    @property
    def sources(self) -> dict[str, Any]:
        from scythe.loaders.sources import Array

        return {"x": Array(("n",), np.arange(self._rows), (False,), (None,))}


def test_a_state_outlives_the_growth_of_the_experiment(house: BaseExperiment) -> None:
    allocated(house, specs(12), "bumpmajor")
    batches = scythe.dataset("heat", run="all", x=["r_value"]).batches(4, seed=5)
    whole, state = drawn(batches), batches.state(0, 1)
    allocated(house, specs(30, start=40))
    grown = scythe.dataset("heat", run="all", x=["r_value"])
    assert len(grown) == 42
    rest = [x for batch in grown.batches(2, seed=5, rank=0, world=2).resume(state) for x in batch["x"][:, 0].tolist()]
    other = [x for batch in grown.batches(2, seed=5, rank=1, world=2).resume(state) for x in batch["x"][:, 0].tolist()]
    assert sorted(rest + other) == sorted(whole[4:])
    for wrong in ({}, {**state, "rows": 3}, {**state, "seed": 1}, {**state, "samples": 3}):
        with pytest.raises(StateError):
            grown.batches(4, seed=5).resume(wrong)


# --- split --------------------------------------------------------------------------------------------------


def test_a_split_keeps_equal_inputs_together_and_moves_no_row_when_others_come(
    house: BaseExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LIMITS, "r_value", 1e9)
    allocated(house, specs(200), "bumpmajor")

    def parts() -> dict[str, set[float]]:
        found = scythe.dataset("heat", "all", run="all", x=["r_value"]).split(train=0.7, val=0.1, test=0.2)
        return {name: {float(row) for row in part.frame.collect()["r_value"]} for name, part in found.items()}

    before = parts()
    assert sum(map(len, before.values())) == 200
    assert 110 < len(before["train"]) < 170
    allocated(house, specs(250))  # the first 200 once more, and 50 others
    after = parts()
    assert all(before[name] <= after[name] for name in before)
    assert sum(map(len, after.values())) == 250, "equal inputs of two runs are in one part"


def test_rows_that_share_what_a_split_is_made_by_stay_together(house: BaseExperiment) -> None:
    allocated(house, specs(60), "bumpmajor")
    parts = scythe.dataset("heat", x=["storeys"]).split(by="storeys", a=0.5, b=0.5)
    found = [set(part.frame.collect()["storeys"]) for part in parts.values()]
    assert found[0].isdisjoint(found[1])
    assert found[0] | found[1] == {1, 2, 3}
    for shares in ({}, {"a": 0.0}, {"a": 0.8, "b": 0.3}):
        with pytest.raises(ReadError, match="shares of a split"):
            scythe.dataset("heat", x=["storeys"]).split(**shares)


@given(st.lists(st.one_of(st.none(), st.integers(-(2**62), 2**62), st.floats(allow_nan=True)), min_size=1, max_size=20))
def test_hashes_do_not_depend_on_how_numbers_are_stored_nor_on_nulls_and_the_order_of_columns(
    values: list[Any],
) -> None:
    floats = pl.Series("a", [None if v is None else float(v) for v in values], pl.Float64)
    text = pl.Series("b", [None if v is None else str(v) for v in values], pl.String)
    nothing = pl.Series("c", [None] * len(values), pl.Int64)
    both = hash_rows({"a": floats, "b": text}, len(values))
    assert (both == hash_rows({"c": nothing, "b": text, "a": floats}, len(values))).all()
    whole = [v for v in values if isinstance(v, int) and abs(v) <= 2**53]
    as_int = hash_rows({"a": pl.Series(whole, dtype=pl.Int64)}, len(whole))
    assert (as_int == hash_rows({"a": pl.Series([float(v) for v in whole], dtype=pl.Float64)}, len(whole))).all()


def test_bytes_that_are_no_text_have_hashes_too() -> None:
    values = pl.Series("a", [b"a", b"\xff", b"\xfe", b"", None], pl.Binary)
    hashes = hash_rows({"a": values}, 5)
    assert len(set(hashes.tolist())) == 5
    assert hashes[0] == hash_rows({"a": pl.Series("a", ["a"])}, 1)[0]
    assert (hash_rows({"a": values[1:3]}, 2) == hashes[1:3]).all()


class Layer(BaseModel):
    material: str
    thickness: float


class Wall(ExperimentInputSpec):
    kind: str = "outside"
    layers: list[Layer]
    ends: Layer
    share: dict[str, float] = Field(default_factory=dict)


class Flow(ExperimentOutputSpec):
    u: float


def flow(spec: Wall) -> Flow:
    return Flow(u=1 / sum(layer.thickness for layer in spec.layers))


def test_a_split_of_inputs_that_differ_within_lists_and_models_alone_is_made_by_these(root: Path) -> None:
    wall = BaseExperiment(ExperimentRegistry.Register(name="wall")(flow))

    def given(i: int) -> dict[str, Any]:
        layer = {"material": "brick", "thickness": 0.1 + i % 40 / 1e9}
        return {"layers": [layer] * (1 + i % 3), "ends": layer, "share": {"a": i % 40}}

    allocated(wall, [given(i) for i in range(80)], "bumpmajor")
    ds = scythe.dataset("wall", x="u")
    with pytest.raises(ReadError, match=r"in which all 80 are alike: .* by=\['layers', 'ends', 'share'\]"):
        len(ds.split(a=0.5, b=0.5)["a"])
    for by, alike in (("ends", 40), ("share", 40), ("layers", 80), (["ends", "share"], 40)):
        parts = ds.split(by=by, a=0.5, b=0.5)
        found = [part.frame.select(pl.struct(by).hash()).collect().to_series().unique() for part in parts.values()]
        assert sum(map(len, found)) == alike, "equal ones are in one part"
        assert all(len(one) > alike / 4 for one in found)


_NESTED = st.lists(
    st.one_of(st.none(), st.lists(st.one_of(st.none(), st.lists(st.integers(0, 2), max_size=3)), max_size=3)),
    max_size=12,
)


@given(_NESTED, st.integers(0, 5))
def test_hashes_of_lists_are_equal_where_these_are(values: list[Any], first: int) -> None:
    inner = pl.Series("a", values, pl.List(pl.List(pl.Int64)))
    hashes = hash_rows({"a": inner}, len(values))
    for one, other in combinations(range(len(values)), 2):
        assert (hashes[one] == hashes[other]) == (values[one] == values[other])
    assert (hash_rows({"a": inner[first:]}, len(values[first:])) == hashes[first:]).all()
    deeper = pl.DataFrame({"m": inner}).select(pl.struct("m")).to_series()
    of_models = hash_rows({"a": deeper}, len(values))
    for one, other in combinations(range(len(values)), 2):
        assert (of_models[one] == of_models[other]) == (values[one] == values[other])


def test_hashes_never_change() -> None:
    assert splitmix64(np.array([0, 1], np.uint64)).tolist() == [16294208416658607535, 10451216379200822465]
    frame = {"r": pl.Series([1.5, None]), "k": pl.Series(["é", "b"]), "n": pl.Series([3, 4])}
    assert hash_rows(frame, 2).tolist() == HASHES
    layers = pl.Series([[{"m": "é", "t": 1.5}], []], dtype=pl.List(pl.Struct({"m": pl.String, "t": pl.Float64})))
    pairs = [
        pl.Series([given, {}], dtype=pl.Map(pl.String, pl.Int64)) for given in ({"a": 1, "b": 2}, {"b": 2, "a": 1})
    ]
    assert [hash_rows({"w": layers, "k": one}, 2).tolist() for one in pairs] == [NESTED_HASHES] * 2


# --- what it is pinned to -----------------------------------------------------------------------------------


def test_a_dataset_stays_what_it_was_until_it_is_refreshed(house: BaseExperiment) -> None:
    allocated(house, specs(3), "bumpmajor")
    ds = scythe.dataset("heat", run="all", x=["r_value"])
    travelled = pickle.dumps(ds)
    assert len(pickle.dumps(ds[1:])) < len(travelled) + 200, "a slice is its ends"
    assert b"r_value" in travelled
    assert len(travelled) < 3000
    run = allocated(house, specs(2, start=50))
    assert len(ds) == len(pickle.loads(travelled)) == 3
    assert len(ds.refresh()) == 5
    grown = ds.refresh()
    assert grown.runs[1] == run.experiment_id
    run.delete()
    with pytest.raises(NotFoundError, match="any more as this dataset was made of it"):
        len(pickle.loads(pickle.dumps(grown)))


def test_an_end_that_was_pinned_is_read_after_the_run_has_ended_anew(house: BaseExperiment, monkeypatch: Any) -> None:
    with pytest.raises(ValueError, match="thick"):
        house.allocate(pl.DataFrame({"r_value": [1.0, 91.0, 2.0]}), engine="inline")
    run = scythe.open_run("heat")
    run.resume(engine="inline")
    ds = pickle.loads(pickle.dumps(scythe.dataset("heat", x=["r_value"], y=scythe.File("hourly"))))
    monkeypatch.setitem(LIMITS, "r_value", 100.0)
    run.retry_errors(engine="inline")
    assert scythe.read("heat").height == 3
    assert [ds[i]["x"][0] for i in range(len(ds))] == [1.0, 2.0]


def test_the_rows_of_a_run_that_goes_on_are_those_of_now(house: BaseExperiment) -> None:
    with pytest.raises(ValueError, match="thick"):
        house.allocate(pl.DataFrame({"r_value": [1.0, 2.0, 91.0, 3.0]}), engine="inline")
    ds = scythe.dataset("heat", run=scythe.open_run("heat"), x=["r_value"])
    assert len(ds) == 2
    assert len(ds.refresh()) == len(ds.split(a=1.0)["a"].refresh()) == 2
    scythe.open_run("heat").resume(engine="inline")
    assert len(ds) == 2
    assert len(ds.refresh()) == 3


# --- processes ----------------------------------------------------------------------------------------------


def test_a_process_forked_beside_running_threads_gets_an_error_and_does_not_wait(ten: ExperimentRun) -> None:
    program = """
import multiprocessing, sys, warnings
warnings.simplefilter("ignore")
import scythe
ds = scythe.dataset("heat", x=["r_value"], y=scythe.File("hourly", load=lambda raw: 1 / 0))
refs = scythe.FileRefs(scythe.files("heat"), "hourly", lambda path: 1 / 0)
ds.sources
counted = scythe.dataset("heat", y=scythe.File("hourly"))
len(counted)
unread = scythe.dataset("heat", x=["r_value"])
ahead = scythe.dataset("heat", x=["r_value"]).batches(2)
list(ahead.at(0))
again = lambda: scythe.dataset("heat", x=["r_value"])

def look(read, said):
    try:
        read()
    except Exception as error:
        said.put(type(error).__name__)

if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    reads = (lambda: ds[0], lambda: ds.batches(2).at(0)[0], lambda: refs[0], lambda: len(unread), lambda: counted[0], lambda: list(ahead.at(0)), again,
             lambda: scythe.read("heat"), lambda: scythe.scan("heat").collect(), lambda: scythe.files("heat"),
             lambda: scythe.download("heat", "there"), lambda: scythe.upload("there"), lambda: scythe.report("heat"))
    for read in reads:
        said = context.SimpleQueue()
        process = context.Process(target=look, args=(read, said))
        process.start()
        print(said.get(), flush=True)
        process.join()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["ForkError"] * 13


def test_batches_are_read_in_processes_that_were_not_forked(ten: ExperimentRun) -> None:
    Path("loop.py").write_text(
        "import multiprocessing, scythe\n"
        "def take(part): return [batch['y'][:, 0, 0].tolist() for batch in part]\n"
        "if __name__ == '__main__':\n"
        "    epoch = scythe.dataset('heat', x=['r_value'], y=scythe.File('hourly')).batches(3, seed=2).at(1)\n"
        "    with multiprocessing.get_context('forkserver').Pool(1) as pool:\n"
        "        assert pool.map(take, [epoch[:2], epoch[2:]]) == [take(epoch[:2]), take(epoch[2:])]\n"
        "    print('same')\n"
    )
    done = subprocess.run([sys.executable, "loop.py"], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "same\n", done.stderr


def test_a_process_in_which_a_function_chooses_other_rows_says_so(ten: ExperimentRun) -> None:
    """As `hash` of a text does; a part of the dataset is one of the same rows."""
    Path("loop.py").write_text(
        "import multiprocessing, os, polars as pl, scythe\n"
        "def ask(ds):\n"
        "    try: return [batch['x'].tolist() for batch in ds.batches(2, shuffle=False).at(0)]\n"
        "    except scythe.errors.ReadError as error: return str(error)\n"
        "if __name__ == '__main__':\n"
        "    here = pl.col('r_value').map_batches(lambda r: (r < 6) == (os.environ.get('HERE') != 'there'))\n"
        "    same = pl.col('r_value').map_batches(lambda r: r < 6)\n"
        "    made = [scythe.dataset('heat', x='r_value', where=where) for where in (here, same)]\n"
        "    asked = [some for ds in made for some in (ds, ds.split(a=0.6)['a'])]\n"
        "    context = multiprocessing.get_context('spawn')\n"
        "    os.environ['HERE'] = 'there'\n"
        "    with context.Pool(1) as pool:\n"
        "        del os.environ['HERE']\n"
        "        for ds, told in zip(asked, pool.map(ask, asked)):\n"
        "            print(told == ask(ds), 'takes other rows here than where this dataset was pickled' in told)\n"
    )
    done = subprocess.run([sys.executable, "loop.py"], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines() == ["False True", "False True", "True False", "True False"], done.stderr


def test_files_that_were_read_before_a_fork_may_be_used_behind_it(
    ten: ExperimentRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    ds = scythe.dataset("heat", x="r_value", y=scythe.File("hourly"))
    read, rest = ds[:5], ds[5:]
    before = read.batches(5, shuffle=False).at(0)[0]["y"]
    assert len(rest)
    monkeypatch.setattr(forks, "_lost", {"polars"})
    assert (read.batches(5, shuffle=False).at(0)[0]["y"] == before).all()
    with pytest.raises(ForkError, match="forkserver"):
        rest.batches(5).at(0)[0]


def test_a_fork_without_such_threads_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    forks.check_fork()
    monkeypatch.setattr(forks, "_lost", {"polars"})
    with pytest.raises(ForkError, match="forkserver"):
        forks.check_fork()
    assert os.getpid()


ORDER = [0, 7, 2, 5, 4, 6, 3, 1]
HASHES = [6464114902601507599, 14909103780442573745]
NESTED_HASHES = [1872633099783742886, 10712522386710362612]
