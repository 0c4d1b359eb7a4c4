"""What a dataset makes of files, columns and runs that are unlike one another: the numbers that were stored, or a refusal by name."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from pydantic import Field, create_model

import scythe
from scythe.allocate import BaseExperiment
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.errors import InputError, NotFoundError, ReadError, StateError
from scythe.loaders import stats as statistics
from scythe.registry import ExperimentRegistry
from scythe.utils.filesys import FileReference
from tests.web_server import web_server


class Case(ExperimentInputSpec):
    x: int
    more: float | None = None
    weather: FileReference | None = None


class Found(ExperimentOutputSpec):
    y: float = 0.0
    exact: Decimal = Field(Decimal(0), max_digits=20, decimal_places=0)


class WithFile(ExperimentOutputSpec):
    file: FileReference


class Text(ExperimentOutputSpec):
    file: str


def ran(function: Callable[..., Any], frame: pl.DataFrame) -> None:
    ExperimentRegistry.Register(name="case", retries=0)(function)
    BaseExperiment("case").allocate(frame, "auto", engine="inline")[1].result()


def of_arrays(*arrays: np.ndarray) -> None:
    """A run whose inputs store these arrays."""

    def case(spec: Case, tempdir: Path) -> WithFile:
        np.save(tempdir / "a.npy", arrays[spec.x])
        return WithFile(file=tempdir / "a.npy")

    ran(case, pl.DataFrame({"x": range(len(arrays))}))


def values(**options: Any) -> list[Any]:
    batches = scythe.dataset("case", y=scythe.File("file"), **options).batches(2, shuffle=False)
    return [row.tolist() for epoch in (0, 1) for batch in batches.at(epoch) for row in batch["y"]][
        -len(batches.dataset) :
    ]


UNLIKE = (
    np.array([1, 2], np.int8), np.array([3, 300], np.int64), np.array([True, False]), np.array([1, 65_000], np.uint16),
    np.array([[-5, 70_000]])[0, ::1],
)  # fmt: skip


@pytest.mark.parametrize("first", range(len(UNLIKE)))
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_numbers_of_files_do_not_depend_on_the_type_of_the_first(root: Path, first: int, dtype: str) -> None:
    arrays = [UNLIKE[first], *UNLIKE]
    of_arrays(*arrays)
    assert values(dtype=dtype) == [array.tolist() for array in arrays]
    assert values(dtype=dtype, collate="list") == [array.tolist() for array in arrays]


def test_fractions_after_whole_numbers_keep_their_digits(root: Path) -> None:
    arrays = [
        np.array([0, 1]),
        np.array([1, 1.5]),
        np.array([0.5], np.float32).repeat(2),
        np.array([3e6 + 0.123456789, 0]),
    ]
    of_arrays(*arrays)
    assert values(dtype="float64") == [array.tolist() for array in arrays]
    assert values() == [array.astype(np.float32).tolist() for array in arrays]
    with pytest.raises(
        InputError, match=r"y: the file of input 1 of case/.*\.npy, holds float64, which int64 does not hold"
    ):
        values(dtype="int64")


@pytest.mark.parametrize(
    ("wrong", "dtype"),
    [
        (np.array([0, 200]), "int8"),
        (np.array([0, 200], np.int16), "int8"),
        (np.array([0, 200], np.uint8), "int8"),
        (np.array([0, -1]), "uint8"),
        (np.array([0, 2**63], np.uint64), "int64"),
        (np.array([0, 1e300]), "float32"),
        (np.array([0, 1e39 + 1e39j]), "complex64"),
    ],
)
@pytest.mark.parametrize("collate", ["stack", "list"])
def test_a_number_that_the_type_does_not_hold_is_refused_with_its_input(
    root: Path, wrong: np.ndarray, dtype: str, collate: Any
) -> None:
    fine = np.zeros_like(wrong)
    of_arrays(fine, fine, wrong, fine)
    with pytest.raises(InputError, match=rf"y: the file of input 2 of case/.*\.npy, holds .* {dtype} does not hold"):
        values(dtype=dtype, collate=collate)
    read = scythe.dataset("case", y=scythe.File("file", load=lambda raw: wrong), dtype=dtype, collate=collate)
    with pytest.raises(InputError, match="y: the file of input 0 of"):
        list(read.batches(2, shuffle=False).at(0))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1,2\n3,4\n", r"begins with values \(1, 2\), where the names"),
        ("a,b\n1,x\n", r"the file of input 0 of case/.*\.csv, has a column 'b' that is no number but String"),
    ],
)
def test_a_csv_without_a_line_of_names_or_with_texts_is_refused(root: Path, text: str, told: str) -> None:
    def case(spec: Case, tempdir: Path) -> WithFile:
        (tempdir / "a.csv").write_text(text)
        return WithFile(file=tempdir / "a.csv")

    ran(case, pl.DataFrame({"x": [1]}))
    with pytest.raises(InputError, match=told):
        values()


def of_tables(suffix: str, *tables: pl.DataFrame) -> None:
    """A run whose inputs store these tables."""

    def case(spec: Case, tempdir: Path) -> WithFile:
        path, table = tempdir / f"a{suffix}", tables[spec.x]
        _ = table.write_csv(path) if suffix == ".csv" else table.write_parquet(path)
        return WithFile(file=path)

    ran(case, pl.DataFrame({"x": range(len(tables))}))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("collate", ["stack", "list"])
def test_columns_of_tables_in_files_are_those_of_the_first_file_in_its_order(
    root: Path, suffix: str, collate: Any
) -> None:
    first = pl.DataFrame({"load": [1.0, 2.0], "time": [10.0, 20.0]})
    of_tables(suffix, first, first)
    assert values(collate=collate) == [[[1, 10], [2, 20]]] * 2
    of_tables(suffix, first, first.select("time", "load"))
    with pytest.raises(InputError, match="the columns time, load, the first file has load, time, in another order"):
        values(collate=collate)
    of_tables(suffix, first, first.rename({"load": "cool"}))
    told = r"the file of input 1 of case/.*, has the columns cool, time, the first file has load, time: name those .*columns=.'time'"
    with pytest.raises(InputError, match=told):
        values(collate=collate)


@pytest.mark.parametrize("value", [date(2020, 1, 1), datetime(2020, 1, 1, 12), time(12), timedelta(hours=1)], ids=str)
def test_times_in_a_table_of_a_file_are_no_numbers(root: Path, value: Any) -> None:
    of_tables(".parquet", pl.DataFrame({"time": [value], "load": [1.0]}))
    with pytest.raises(InputError, match=r"has a column 'time' that is no number but (Date|Time|Duration)"):
        values()


def test_decimals_in_a_table_of_a_file_are_numbers(root: Path) -> None:
    table = pl.DataFrame({"price": [Decimal("1.25"), Decimal("2.50")], "load": [1.0, 2.0]})
    of_tables(".parquet", table)
    assert values() == [[[1.25, 1], [2.5, 2]]]


def test_a_csv_of_names_alone_has_no_rows(root: Path) -> None:
    of_tables(".csv", pl.DataFrame({"a": [1.5], "b": [2.5]}), pl.DataFrame({"a": [], "b": []}))
    assert values(collate="list") == [[[1.5, 2.5]], []]


def test_several_images_in_one_file_are_no_single_array(root: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    pages = [image.new("L", (2, 2), color) for color in (1, 2, 3)]

    def case(spec: Case, tempdir: Path) -> WithFile:
        pages[0].save(tempdir / "a.tiff", save_all=True, append_images=pages[1:])
        return WithFile(file=tempdir / "a.tiff")

    ran(case, pl.DataFrame({"x": [1]}))
    with pytest.raises(InputError, match=r"\.tiff, holds 3 images: give load=, which picks one, or stacks them"):
        values()


def test_smaller_copies_of_a_picture_do_not_count(root: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    def case(spec: Case, tempdir: Path) -> WithFile:
        copied = ImageFileDirectory_v2()
        copied[254] = 1
        small, whole = image.new("L", (2, 2), 9), image.new("L", (4, 4), 3)
        small.encoderinfo = {"tiffinfo": copied}
        whole.save(tempdir / "a.tiff", save_all=True, append_images=[small])
        return WithFile(file=tempdir / "a.tiff")

    ran(case, pl.DataFrame({"x": [1]}))
    assert np.array_equal(values()[0], np.full((4, 4), 3))


def of_images(*images: Any) -> None:
    """A run whose inputs store these images."""

    def case(spec: Case, tempdir: Path) -> WithFile:
        images[spec.x].save(tempdir / "a.tiff" if images[spec.x].mode == "CMYK" else tempdir / "a.png")
        return WithFile(file=next(tempdir.glob("a.*")))

    ran(case, pl.DataFrame({"x": range(len(images))}))


def coloured(*colours: int) -> Any:
    """An image of one pixel, of the number 0 in a palette."""
    found = pytest.importorskip("PIL.Image").new("P", (1, 1), 0)
    found.putpalette(colours)
    return found


@pytest.mark.parametrize(("first", "then"), [("L", "1"), ("L", "P"), ("P", "L"), ("L", "I;16"), ("RGBA", "CMYK")])
@pytest.mark.parametrize("collate", ["stack", "list"])
def test_images_whose_numbers_stand_for_something_else_than_those_of_the_first_are_refused(
    root: Path, first: str, then: str, collate: Any
) -> None:
    image = pytest.importorskip("PIL.Image")
    of_images(*(image.new(mode, (2, 2)) for mode in (first, first, then)))
    told = rf"the file of input 2 of case/.*, is an image of mode '{then}', the first file one of mode '{first}': give load="
    with pytest.raises(InputError, match=told):
        values(collate=collate)


def test_numbers_of_colours_are_given_where_all_images_have_the_same_palette(root: Path) -> None:
    of_images(coloured(9, 0, 0, 0, 9, 0), coloured(9, 0, 0, 0, 9, 0))
    assert values() == [[[0]], [[0]]]
    of_images(coloured(9, 0, 0, 0, 9, 0), coloured(0, 9, 0, 9, 0, 0))
    with pytest.raises(
        InputError, match=r"input 1 of .*its palette is another than that of the first file: give load="
    ):
        values()
    image = pytest.importorskip("PIL.Image")
    read = scythe.File("file", load=lambda raw: np.asarray(image.open(io.BytesIO(raw)).convert("RGB")))
    (batch,) = scythe.dataset("case", y=read).batches(2, shuffle=False).at(0)
    assert batch["y"].tolist() == [[[[9, 0, 0]]], [[[0, 9, 0]]]]


def test_what_a_function_of_the_users_makes_of_a_file_is_numbers_or_refused(root: Path) -> None:
    of_arrays(np.zeros(2), np.ones(2))

    def read(load: Callable[[Any], Any]) -> Any:
        return scythe.dataset("case", y=scythe.File("file", load=load)).batches(2, shuffle=False).at(0)[0]["y"]

    def ends(raw: bytes) -> Any:
        raise StopIteration

    assert read(lambda raw: np.ma.masked_array([1.0, 2.0], mask=[False, False])).tolist() == [[1, 2]] * 2
    with pytest.raises(InputError, match=r"the file of input 0 of .*, was made an array with a mask by load=: fill it"):
        read(lambda raw: np.ma.masked_array([1.0, -999.0], mask=[False, True]))
    with pytest.raises(InputError, match=r"the file of input 0 of .*, was given to load=, which raised StopIteration"):
        read(ends)


def test_a_csv_whose_fractions_come_late_is_read(root: Path) -> None:
    def case(spec: Case, tempdir: Path) -> WithFile:
        (tempdir / "a.csv").write_text("a\n" + "0\n" * 500 + "0.5\n")
        return WithFile(file=tempdir / "a.csv")

    ran(case, pl.DataFrame({"x": [1]}))
    assert values()[0][-1] == [0.5]


def of_rows(function: Callable[[Case], Found], **columns: Any) -> scythe.Dataset:
    ran(function, pl.DataFrame(columns))
    return scythe.dataset("case", x="x", y="y")


def test_a_split_of_a_part_draws_rows_anew_that_lack_what_it_was_split_by_before(root: Path) -> None:
    def case(spec: Case) -> Found:
        return Found()

    ds = of_rows(case, x=range(800), more=[None if i % 2 else float(i) for i in range(800)])
    for before in ds.split(by="x", train=0.6, test=0.4).values():
        for part in before.split(a=0.5, b=0.5).values():
            lacking = part.frame.collect()["more"].is_null().sum()
            assert 0.3 * len(before) / 2 < lacking < 0.7 * len(before) / 2, "half of a half"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_constant_column_is_not_normalized(root: Path, dtype: str) -> None:
    def case(spec: Case) -> Found:
        return Found(y=0.1)

    of_rows(case, x=[1, 2, 3])
    ds = scythe.dataset("case", x=["x", "y"], dtype=dtype)
    stats = ds.stats()
    assert stats["x"]["y"].std == 0
    assert ds.batches(3, normalize=stats).at(0)[0]["x"][:, 1].tolist() == [0, 0, 0]


def test_rows_and_batches_are_asked_for_as_torchs_loader_does(root: Path) -> None:
    def case(spec: Case) -> Found:
        return Found(y=2 * spec.x)

    ds = of_rows(case, x=[1, 2, 3])
    assert [(row["x"].item(), row["y"].item()) for row in ds.__getitems__([2, 0])] == [(3, 6), (1, 2)]
    for asked in (lambda: ds.batches(2)[0], lambda: ds.batches(2).at(0).__getitems__([0, 1])):
        with pytest.raises(TypeError, match=r"DataLoader\(batches\.at\(epoch\), batch_size=None\)"):
            asked()


def test_statistics_of_other_groups_are_refused(root: Path) -> None:
    def case(spec: Case) -> Found:
        return Found()

    ds = of_rows(case, x=[1, 2])
    other = scythe.dataset("case", features=["x"]).stats()
    with pytest.raises(StateError, match="normalize= has the groups features, the dataset x, y"):
        ds.batches(2, normalize=other)
    both = scythe.dataset("case", features=["x"], y="y").stats()  # another name of one group alone
    with pytest.raises(StateError, match="normalize= has the groups features, y, the dataset x, y"):
        ds.batches(2, normalize=both)
    ds.batches(2, normalize=scythe.dataset("case", x="x").stats())
    scythe.dataset("case", y="y").batches(2, normalize=both)
    with pytest.raises(StateError, match="normalize= has no statistics at all"):
        ds.batches(2, normalize=scythe.Stats.from_dict({}))


def test_a_dataset_of_files_alone_has_no_statistics_and_is_not_normalized(root: Path) -> None:
    of_arrays(np.array([1.0, 2.0]))
    ds = scythe.dataset("case", y=scythe.File("file"))
    assert ds.batches(1, normalize=ds.stats()).at(0)[0]["y"].tolist() == [[1.0, 2.0]]


def test_a_column_that_is_a_file_output_of_one_version_and_a_value_of_another_is_refused(root: Path) -> None:
    def case(spec: Case) -> Text:
        return Text(file="none")

    ran(case, pl.DataFrame({"x": [7]}))
    del ExperimentRegistry._experiments["case"]
    of_arrays(np.array([1.0, 2.0]))
    for missing in ("raise", "drop"):
        told = r"y: 'file' is a file output of case/v2.*, and a value of case/v1.*: take runs of one version"
        with pytest.raises(InputError, match=told):
            scythe.dataset("case", "all", y=scythe.File("file"), missing=missing).shapes["y"]
    assert values() == [[1.0, 2.0]]


def test_an_input_that_was_a_text_before_it_was_a_file_is_read_where_it_is_one(root: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([1.0, 2.0]))
    for kind, value in ((str, "none"), (FileReference, str(tmp_path / "a.npy"))):
        model = create_model("Case", __base__=ExperimentInputSpec, x=int, given=kind)

        def case(spec: Any) -> Found:
            return Found()

        case.__annotations__ = {"spec": model, "return": Found}
        ExperimentRegistry.Register(name="case")(case)
        BaseExperiment("case").allocate(pl.DataFrame({"x": [len(value)], "given": [value]}), "auto", engine="inline")
    batches = scythe.dataset("case", "all", y=scythe.File("given"), where=pl.col("x") > 4).batches(1)
    assert batches.at(0)[0]["y"].tolist() == [[1.0, 2.0]]
    with pytest.raises(InputError, match=r"'given' of case/v1.* is no file: leave File\(\) off, y='given'"):
        scythe.dataset("case", "all", y=scythe.File("given")).shapes["y"]


def test_infinite_values_have_no_statistics(root: Path) -> None:
    def case(spec: Case) -> Found:
        return Found(y=float("inf") if spec.x else 1.0)

    ds = of_rows(case, x=[0, 1])
    with pytest.raises(InputError, match="y: 'y' has infinite values"):
        ds.stats()
    assert scythe.dataset("case", y="y", where=pl.col("x") == 0).stats()["y"]["y"].mean == 1


def test_numbers_whose_deviation_no_float_holds_have_no_statistics(root: Path) -> None:
    def case(spec: Case) -> Found:
        return Found(y=[1e200, -1e200, 0.0, 9e-310][spec.x])

    of_rows(case, x=range(4))
    for few in (pl.col("x") < 2, pl.col("x") >= 2):
        ds = scythe.dataset("case", y="y", dtype="float64", where=few)
        with pytest.raises(InputError, match=r"y: 'y' lies between .*: no float64 holds the squares of its deviations"):
            ds.stats()


@pytest.mark.parametrize("value", [1e200, 1e159, 1.797e308, -1e200])
def test_a_large_constant_has_no_deviation(root: Path, value: float) -> None:
    def case(spec: Case) -> Found:
        return Found(y=value)

    of_rows(case, x=range(3))
    told = scythe.dataset("case", y="y", dtype="float64").stats()["y"]["y"]
    assert (told.mean, told.std) == (value, 0)


@pytest.mark.parametrize(("far", "spread"), [(1e9, 1.0), (1e9, 1e-5), (-1e12, 1.0), (1e15, 4.0), (0.0, 1e-150)])
def test_a_deviation_keeps_its_digits_however_far_from_zero_a_column_lies(
    root: Path, monkeypatch: pytest.MonkeyPatch, far: float, spread: float
) -> None:
    values = far + spread * np.random.default_rng(0).standard_normal(3000)

    def case(spec: Case) -> Found:
        return Found(y=values[spec.x])

    of_rows(case, x=range(len(values)))
    monkeypatch.setattr(statistics, "_BLOCK", 1000)  # of several blocks, too
    told = scythe.dataset("case", y="y", dtype="float64").stats()["y"]["y"]
    exact = [Fraction(value) for value in values.tolist()]
    mean = sum(exact) / len(exact)
    variance = sum((one - mean) ** 2 for one in exact) / len(exact)
    assert told.std == pytest.approx(float(variance / Fraction(spread) ** 2) ** 0.5 * spread, rel=1e-12)
    assert told.mean == pytest.approx(float(mean), rel=4e-16, abs=1e-15 * spread)
    assert (told.min, told.max) == (values.min(), values.max())


def test_rows_of_which_none_has_any_values_have_no_statistics(root: Path) -> None:
    def case(spec: Case) -> Found:
        return Found(dataframes={"m": pl.DataFrame({"e": [1.0] * spec.x}, schema={"e": pl.Float64})})

    of_rows(case, x=[0, 0, 2])
    ds = scythe.dataset("case", m=scythe.Frame("m", ["e"]), collate="list")
    assert ds.stats()["m"]["e"].count == 2
    with pytest.raises(ReadError, match="m: none of the rows has any values"):
        ds[:2].stats()


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("rows", [12, 1000])
def test_whole_numbers_that_floats_make_alike_are_refused(root: Path, dtype: str, rows: int) -> None:
    def case(spec: Case) -> Found:
        return Found()

    begin = 1_700_000_000_000_000_000
    of_rows(case, x=[begin + 10 * i for i in range(1000)])
    where = pl.col("x") < begin + 10 * rows
    with pytest.raises(
        InputError,
        match=rf"'x' lies between {begin} and {begin + 10 * rows - 10}, where {dtype} .*: take dtype='int64', or subtract",
    ):
        scythe.dataset("case", x="x", dtype=dtype, where=where).shapes["x"]
    exact = scythe.dataset("case", x="x", dtype="int64", where=where).batches(rows, shuffle=False).at(0)[0]["x"]
    assert exact.tolist() == [begin + 10 * i for i in range(rows)]


def test_inputs_that_were_run_in_rounds_are_there_once_where_they_are_to_be_distinct(root: Path) -> None:
    def case(spec: Case) -> Found:
        return Found(y=spec.x)

    ExperimentRegistry.Register(name="case")(case)
    for n, reuse in ((3, False), (3, False), (5, True)):
        frame = pl.DataFrame({"x": range(n)})
        BaseExperiment("case").allocate(
            frame, "v1.0.0" if n + reuse > 3 or reuse else "auto", engine="inline", reuse=reuse
        )
    ds = scythe.dataset("case", "v1.0.0", run="all", y="y", distinct=True)
    rows = scythe.read("case", "v1.0.0", run="all", distinct=True)
    assert ds.frame.collect()["y"].to_list() == rows["y"].to_list() == [0, 1, 2, 3, 4]
    assert len(ds) == 5 < len(scythe.dataset("case", "v1.0.0", run="all", y="y"))
    assert pickle.loads(pickle.dumps(ds)).digest == ds.digest
    mean = scythe.dataset("case", "v1.0.0", run="all", y="y", distinct=True, where=pl.col("y") > pl.col("y").mean())
    assert sorted(mean.frame.collect()["y"]) == [3, 4]  # the mean is that of the rows that are there
    with pytest.raises(ReadError, match='distinct=True gives each input of a version once: ask for run="all"'):
        scythe.dataset("case", y="y", distinct=True)


def test_decimals_that_are_equal_come_to_one_part_of_a_split_whatever_their_places(root: Path) -> None:
    values = [Decimal(k) / 10 for k in range(100)]
    types: list[tuple[Any, dict[str, int]]] = [
        (Decimal, {"max_digits": 6, "decimal_places": 1}), (Decimal, {"max_digits": 6, "decimal_places": 2}), (float, {}),
    ]  # fmt: skip
    for kind, facts in types:
        model = create_model("Case", __base__=ExperimentInputSpec, v=(kind, Field(**facts)))

        def case(spec: Any) -> Found:
            return Found()

        case.__annotations__ = {"spec": model, "return": Found}
        ExperimentRegistry.Register(name="case")(case)
        BaseExperiment("case").allocate([model(v=v) for v in values], "auto", engine="inline")
    for version in ("all", "v1.0.0"):
        parts = scythe.dataset("case", version, run="all", y="y").split(train=0.5, test=0.5).values()
        train, test = ({float(v) for v in part.frame.collect()["v"]} for part in parts)
        assert train
        assert test
        assert not train & test


def test_numbers_too_small_for_the_type_are_refused(root: Path) -> None:
    def case(spec: Case) -> Found:
        return Found(y=spec.x * 1e-46)

    of_rows(case, x=range(9))
    with pytest.raises(InputError, match=r"'y' lies between 0\.0 and 8e-46, where float32 rounds"):
        scythe.dataset("case", y="y").shapes["y"]
    assert scythe.dataset("case", y="y", dtype="float64")[8]["y"] == 8e-46


def test_whole_decimals_are_whole_numbers_to_their_last_digit(root: Path) -> None:
    def case(spec: Case) -> Found:
        return Found(exact=Decimal(2**53 + spec.x))

    of_rows(case, x=range(3))
    batch = scythe.dataset("case", y="exact", dtype="int64").batches(3, shuffle=False).at(0)[0]
    assert batch["y"].tolist() == [2**53, 2**53 + 1, 2**53 + 2]


def test_whole_decimals_beyond_int64_are_whole_numbers_of_the_type_that_reaches_them(root: Path) -> None:
    def case(spec: Case) -> Found:
        return Found(exact=Decimal(2**63 + 1 + spec.x))

    of_rows(case, x=range(3))
    batch = scythe.dataset("case", y="exact", dtype="uint64").batches(3, shuffle=False).at(0)[0]
    assert batch["y"].tolist() == [2**63 + 1, 2**63 + 2, 2**63 + 3]


def test_decimals_that_are_too_large_for_whole_numbers_are_refused(root: Path) -> None:
    def case(spec: Case) -> Found:
        return Found(exact=Decimal(2**63 + 1))

    of_rows(case, x=range(3))
    with pytest.raises(InputError, match="'exact' has values that int64 does not hold"):
        scythe.dataset("case", y="exact", dtype="int64").shapes["y"]


def test_what_a_dataframe_has_of_rows_that_are_not_drawn_does_not_matter(root: Path) -> None:
    def case(spec: Case) -> Found:
        odd = {1: None, 2: 1e300}.get(spec.x, 2.0)
        return Found(dataframes={"m": pl.DataFrame({"e": [float(spec.x), odd]}, schema={"e": pl.Float64})})

    of_rows(case, x=range(5))
    ds = scythe.dataset("case", m=scythe.Frame("m", ["e"], rows=2), x="x", where=~pl.col("x").is_in([1, 2]))
    assert [row["m"].ravel().tolist() for row in (ds[0], ds[1], ds[2])] == [[0, 2], [3, 2], [4, 2]]
    none = pl.col("x") > 99
    assert scythe.dataset("case", m=scythe.Frame("m", ["e"], rows=2), where=none).shapes["m"] == (2, 1)
    for wrong in (scythe.Frame("n", ["e"]), scythe.Frame("m", ["f"])):
        with pytest.raises(NotFoundError):
            scythe.dataset("case", m=wrong, where=none).shapes["m"]
    with pytest.raises(NotFoundError, match="no dataframe 'n'"):
        scythe.dataset("case", m=scythe.Frame("n", ["e"]))[0]


def test_numbers_of_numpy_are_numbers(root: Path) -> None:
    def case(spec: Case) -> Found:
        return Found()

    ds = of_rows(case, x=range(9))
    batches = ds.batches(np.int64(4), seed=np.int64(3))  # pyright: ignore[reportArgumentType]
    state = json.loads(json.dumps(batches.state(np.int64(1), np.int64(1))))  # pyright: ignore[reportArgumentType]
    rest = ds.batches(4, seed=3).resume(state)
    assert [b["x"].tolist() for b in rest] == [b["x"].tolist() for b in ds.batches(4, seed=3).at(1)][1:]
    with pytest.raises(ReadError, match="a number of 64 bits"):
        ds.batches(4, seed=2**64)
    with pytest.raises(StateError, match="this is no state"):
        ds.batches(4, seed=3).resume({**state, "rows": "many"})
    with pytest.raises(StateError, match="this is no state"):
        ds.batches(4, seed=3).resume({**state, "epoch": float("inf")})
    for wrong in (9, -10):
        with pytest.raises(IndexError, match=f"row {wrong} of 9"):
            len(ds[[3, wrong]])
    assert [int(row["x"]) for row in (ds[[-9, 8]][0], ds[[-9, 8]][1])] == [0, 8]


def test_a_copy_of_a_part_is_split_as_its_source(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def case(spec: Case) -> Found:
        return Found()

    weathers = [tmp_path / f"{i}" / "w.epw" for i in range(12)]
    for i, path in enumerate(weathers):
        path.parent.mkdir()
        path.write_text(f"weather {i}")
    of_rows(case, x=range(60), weather=[str(weathers[i % 12]) for i in range(60)])

    def parts() -> list[list[float]]:
        ds = scythe.dataset("case", x="x")
        found = [*ds.split(a=0.5, b=0.5).values(), *ds.split(by="weather", a=0.5, b=0.5).values()]
        return [part.batches(60, shuffle=False).at(0)[0]["x"].tolist() for part in found]

    there = parts()
    for files, to in ((False, "none"), (["weather"], "some")):
        scythe.download("case", tmp_path / to, files=files, where=pl.col("x") < 5)
        with monkeypatch.context() as patch:
            patch.setenv("SCYTHE_STORAGE_ROOT", str(tmp_path / to))
            assert parts() == there


@pytest.mark.parametrize("name", ["root", "run #3", "what? 100%"])
def test_a_copy_is_split_as_its_source_whatever_its_folder_is_called(
    root: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def case(spec: Case) -> Found:
        return Found()

    for i in range(40):
        (tmp_path / f"site {i}#a?.epw").write_text("the same in all" if i % 2 else f"weather {i}")
    monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(tmp_path / name))
    ran(case, pl.DataFrame({"weather": [str(tmp_path / f"site {i}#a?.epw") for i in range(40)], "x": [1] * 40}))

    def parts() -> list[list[int]]:
        split = scythe.dataset("case", x="x").split(a=0.5, b=0.5)
        return [part.frame.collect()["sort_index"].to_list() for part in split.values()]

    there = parts()
    assert all(8 < len(part) < 32 for part in there)
    scythe.download("case", tmp_path / "copy")
    monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(tmp_path / "copy"))
    assert parts() == there


@pytest.mark.parametrize("pack", [True, False])
def test_output_files_of_a_run_are_told_apart_where_they_are_inputs_of_the_next(root: Path, pack: bool) -> None:
    def made(spec: Case, tempdir: Path) -> WithFile:
        np.save(tempdir / "a.npy", np.full(3, spec.x))
        return WithFile(file=tempdir / "a.npy")

    def case(spec: Case) -> Found:
        return Found()

    ExperimentRegistry.Register(name="made")(made)
    _, ref = BaseExperiment("made").allocate(pl.DataFrame({"x": range(40)}), engine="inline", pack=pack)
    ref.result()
    ran(case, pl.DataFrame({"weather": scythe.files("made").sort("sort_index")["file"], "x": [1] * 40}))

    def parts() -> list[list[int]]:
        split = scythe.dataset("case", x="x").split(a=0.5, b=0.5, by="weather")
        return [part.frame.collect()["sort_index"].to_list() for part in split.values()]

    assert all(2 < len(part) < 38 for part in parts())


def test_files_of_the_web_that_have_one_name_are_told_apart_by_their_addresses(root: Path) -> None:
    def case(spec: Case) -> Found:
        return Found()

    with web_server() as web:
        paths = [f"/site{i}/weather.epw" if i % 2 else f"/get?site={i}" for i in range(40)]
        urls = [web.gives(path, b"the weather of " + path.encode()) for path in paths]
        ran(case, pl.DataFrame({"weather": urls, "x": [1] * 40}))

    split = scythe.dataset("case", x="x").split(a=0.5, b=0.5)
    assert all(2 < len(part) < 38 for part in split.values())
