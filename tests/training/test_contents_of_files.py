"""What is in a file comes into a batch as it is, or is refused by name: no line is lost, no column swapped, no digit cut in silence."""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import scythe
from scythe import BaseExperiment, ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry, FileReference
from scythe.errors import FetchError, InputError, NotFoundError, ReadError
from scythe.loaders.files import source
from scythe.loaders.files.decoding import Digits
from scythe.loaders.files.source import Files
from scythe.loaders.files.tables import columns_of, table_array

BIG = 2**53 + 1
CONTENT: list[tuple[str, bytes]] = []


class One(ExperimentInputSpec):
    k: int


class Held(ExperimentOutputSpec):
    file: FileReference


def keep(spec: One, tempdir: Path) -> Held:
    name, data = CONTENT[spec.k]
    (tempdir / name).write_bytes(data)
    return Held(file=tempdir / name)


@pytest.fixture
def of(root: Path) -> Callable[..., scythe.Dataset]:
    ExperimentRegistry.Register(name="keep")(keep)

    def made(
        *files: tuple[str, bytes],
        dtype: str = "float32",
        where: pl.Expr | None = None,
        collate: Any = "stack",
        **more: Any,
    ) -> scythe.Dataset:
        CONTENT[:] = files
        BaseExperiment(keep).allocate(pl.DataFrame({"k": range(len(files))}), engine="inline")
        return scythe.dataset("keep", f=scythe.File("file", **more), dtype=dtype, where=where, collate=collate)

    return made


def csv(text: str) -> tuple[str, bytes]:
    return "a.csv", text.encode()


def parquet(**columns: Any) -> tuple[str, bytes]:
    out = io.BytesIO()
    pl.DataFrame(columns).write_parquet(out)
    return "a.parquet", out.getvalue()


def npz(**arrays: Any) -> tuple[str, bytes]:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return "a.npz", out.getvalue()


def npy(array: Any) -> tuple[str, bytes]:
    out = io.BytesIO()
    np.save(out, array)
    return "a.npy", out.getvalue()


# --- lines ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        *(
            "0,0\n1,2\n",
            "1.5,\n3,2\n",
            ",\n1,2\n",
            "nan,NA\n1,2\n",
            "1e3,1e3\n1,2\n",
            "-,0\n1,2\n",
            "7\n8\n",
            "#N/A,1\n2,3\n",
        ),
        *(
            "True,1.5\nFalse,2.5\n",
            "false\ntrue\n",
            "1:30,1.5\n2,2.5\n",
            "1:30 pm,1.5\n2,2.5\n",
            "0x1,0x2\n0x3,0x4\n",
            "5%,1\n2,3\n",
        ),
        *(
            "2020-01-01,5\n7,8\n",
            "2020-01-01T00:00Z,5\n7,8\n",
            "1/2/2020,5\n7,8\n",
            "1 Jan 2020,5\n7,8\n",
            "1-Feb-20,\n7,8\n",
        ),
    ],
)
def test_a_first_line_of_values_is_never_taken_for_names(of: Callable[..., scythe.Dataset], text: str) -> None:
    """Nor where two of them are equal, or one is missing: a trajectory begins at 0, 0."""
    told = re.escape(f"begins with values ({', '.join(text.splitlines()[0].split(','))}), where the names")
    with pytest.raises(InputError, match=told):
        _ = of(csv(text))[0]


@pytest.mark.parametrize(
    "names",
    [
        *(["depth", "10", "20", "30"], ["true", "predicted"], ["#1", "#2"], ["1h", "24h"], ["1.5 m", "2.5 m"], ["x0", "0"]),
        *(["may", "jun"], ["day", "2020-01-01"], ["nanometers"], ["tas 2m"], ["ß"], ["Δ1"]),
    ],
    ids=str,
)  # fmt: skip
def test_a_line_with_a_name_in_it_is_one_of_names(of: Callable[..., scythe.Dataset], names: list[str]) -> None:
    """A wide table has numbers beside the name of its first column."""
    ds = of(csv(f"{','.join(names)}\n{','.join(map(str, range(len(names))))}\n"))
    assert ds.names == {"f": tuple(names)}
    assert ds[0]["f"].tolist() == [[*map(float, range(len(names)))]]


def test_lines_are_the_rows_and_empty_ones_are_none(of: Callable[..., scythe.Dataset]) -> None:
    ds = of(csv("a,b\r\n1,2\r\n\r\n3,\r\n\r\n"), csv('"a","b"\n5,-6\n7,nan'), csv("\ufeffa,b\n1,1e3\n2,inf\n"))
    np.testing.assert_array_equal(
        ds.batches(3, shuffle=False).at(0)[0]["f"],
        np.array([[[1, 2], [3, np.nan]], [[5, -6], [7, np.nan]], [[1, 1e3], [2, np.inf]]], "float32"),
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a,b\n1,2\n3\n", "Expected 2 columns, got 1: 3"),
        ("a,b\n1,2\n3,4,5\n", "Expected 2 columns, got 3: 3,4,5"),
        ("# made by\na,b\n1,2\n", "Expected 1 columns, got 2"),
        ("a;b\n1,5;2\n", "Expected 1 columns, got 2"),
        ("", "Empty CSV file"),
        (f"a\n{2**200}\n", "of more than 64 bits|is no number"),
    ],
)
def test_a_line_of_another_length_is_refused_with_the_line(
    of: Callable[..., scythe.Dataset], text: str, told: str
) -> None:
    with pytest.raises(InputError, match=told) as raised:
        _ = of(csv(text))[0]
    assert "give load=" in str(raised.value)
    assert "a.csv" not in str(raised.value)


# --- columns --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("made", [lambda a, b: parquet(**{a: [1.0], b: [2.0]}), lambda a, b: csv(f"{a},{b}\n1,2\n")])
def test_columns_in_another_order_are_refused_and_chosen_by_name(
    of: Callable[..., scythe.Dataset], made: Callable[..., tuple[str, bytes]]
) -> None:
    """Whichever file is the first of a dataset, or of another one by which a model predicts."""
    files = [made("hot", "cold"), made("cold", "hot"), made("cold", "hot")]
    ds = of(*files)
    assert ds.names == {"f": ("hot", "cold")}
    with pytest.raises(
        InputError, match="the columns cold, hot, the first file has hot, cold, in another order"
    ) as raised:
        _ = ds[1]
    assert "File(…, columns=['hot', 'cold'])" in str(raised.value)
    assert of(*files, where=pl.col("k") > 0).names == {"f": ("cold", "hot")}

    for where in (None, pl.col("k") > 0):
        chosen = of(*files, where=where, columns=["cold", "hot"])
        assert chosen.names == {"f": ("cold", "hot")}
        assert chosen.shapes == {"f": (1, 2)}
        assert chosen[-2]["f"].tolist() == [[1.0, 2.0]]
    assert of(*files, columns=["hot"]).batches(3, shuffle=False).at(0)[0]["f"].ravel().tolist() == [1.0, 2.0, 2.0]
    assert of(*files, columns=np.array(["hot"]))[0:2].names == {"f": ("hot",)}
    with pytest.raises(InputError, match="has no column 'warm', but hot, cold"):
        _ = of(*files, columns=["warm"])[0]


def test_columns_are_chosen_of_tables_alone(of: Callable[..., scythe.Dataset]) -> None:
    with pytest.raises(InputError, match="is no table, of which columns= could be taken"):
        _ = of(npy([1.0]), columns=["a"])[0]
    for wrong in ("a", []):
        with pytest.raises(ReadError, match="a list of columns is wanted"):
            of(npy([1.0]), columns=wrong)
    with pytest.raises(ReadError, match="load= makes the array"):
        of(npy([1.0]), columns=["a"], load=np.frombuffer)
    ds = of(parquet(t=["a"], v=[1.5]), parquet(t=["b"], v=[2.5]), columns=["v"])
    assert ds.batches(2, shuffle=False).at(0)[0]["f"].tolist() == [[[1.5]], [[2.5]]]


def test_arrays_of_archives_have_one_name(of: Callable[..., scythe.Dataset]) -> None:
    ds = of(npz(hot=[1.0]), npz(hot=[2.0]), npz(cold=[3.0]))
    assert ds[:2].batches(2, shuffle=False).at(0)[0]["f"].tolist() == [[1.0], [2.0]]
    with pytest.raises(InputError, match="holds the array 'cold', the first file 'hot'"):
        _ = ds[2]
    with pytest.raises(InputError, match="holds 2 arrays: give load="):
        _ = of(npz(a=[1.0], b=[2.0]))[0]


# --- digits ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "dtype", "expected"),
    [
        ({"a": pl.Series([BIG], dtype=pl.UInt64), "b": pl.Series([-1])}, "int64", [[BIG, -1]]),
        ({"a": pl.Series([2**63], dtype=pl.UInt64), "b": pl.Series([1], dtype=pl.Int8)}, "uint64", [[2**63, 1]]),
        ({"a": pl.Series([2**63], dtype=pl.UInt64), "b": pl.Series([-1])}, "float64", "which no type holds"),
        ({"a": pl.Series([BIG], dtype=pl.UInt64), "b": pl.Series([-1])}, "float64", "float64 does not hold"),
        ({"a": [2**24 + 1], "b": [0.5]}, "float32", "16777217, which float32 does not hold, among .*'float64'"),
        ({"a": [2**24 + 1], "b": pl.Series([0.5], dtype=pl.Float32)}, "float32", "16777217, which float32 does not"),
        ({"a": [2**24 + 1], "b": [0.5]}, "float64", [[2**24 + 1, 0.5]]),
        ({"a": [BIG], "b": [0.5]}, "float64", f"{BIG}, which no float is, among floats or gaps: give load="),
        ({"a": [1, None]}, "float32", [[1], [np.nan]]),
        ({"a": [True, None]}, "float32", [[1], [np.nan]]),
        ({"a": [True, None], "b": [1, 2]}, "float32", [[1, 1], [np.nan, 2]]),
        ({"a": [True, False], "b": [1, 2]}, "int64", [[1, 1], [0, 2]]),
        ({"a": pl.Series([None, None], dtype=pl.Null), "b": [1, 2]}, "float32", [[np.nan, 1], [np.nan, 2]]),
        ({"a": pl.Series([5], dtype=pl.Int128)}, "int64", [[5]]),
        ({"a": pl.Series([2**64], dtype=pl.Int128)}, "float64", "of more than 64 bits"),
        ({"a": pl.Series([BIG]).cast(pl.Decimal(20, 0))}, "int64", [[BIG]]),
        ({"a": pl.Series([1.25]).cast(pl.Decimal(20, 2))}, "float32", [[1.25]]),
        ({"a": ["x"]}, "float32", "no number but String"),
    ],
)
def test_numbers_of_tables_come_as_they_are_or_are_refused(
    of: Callable[..., scythe.Dataset], columns: Any, dtype: str, expected: Any
) -> None:
    if isinstance(expected, str):
        with pytest.raises(InputError, match=expected):
            _ = of(parquet(**columns), dtype=dtype)[0]
    else:
        found = of(parquet(**columns), dtype=dtype)[0]["f"]
        np.testing.assert_array_equal(found, np.array(expected, dtype))


@pytest.mark.parametrize(
    ("text", "dtype", "expected"),
    [
        (f"a,b\n{2**64 - 1},1\n", "uint64", [[2**64 - 1, 1]]),
        (f"a\n{2**63 - 1}\n", "int64", [[2**63 - 1]]),
        (f"a\n{2**63 + 1}\n", "float64", "float64 does not hold"),
        (f"a,b\n{2**64 - 1},-1\n", "float64", "no type holds"),
        (f"a,b\n{2**64 - 1},0.5\n", "float64", "no float is"),
        ("a\n1e300\n", "float64", [[1e300]]),
        ("a,a\n1,2\n", "float32", [[1, 2]]),
        ("a,b\ntrue,1\nfalse,2\n", "float32", [[1, 1], [0, 2]]),
        ("a,b\n 1 , 2\n", "float32", [[1, 2]]),
        ("a,b\n2026-01-01,2\n", "float32", "no number but Date"),
        ("a,b\n", "float32", np.empty((0, 2))),
    ],
)
def test_numbers_of_csv_files_come_as_they_are_or_are_refused(
    of: Callable[..., scythe.Dataset], text: str, dtype: str, expected: Any
) -> None:
    if isinstance(expected, str):
        with pytest.raises(InputError, match=expected):
            _ = of(csv(text), dtype=dtype)[0]
    else:
        np.testing.assert_array_equal(of(csv(text), dtype=dtype)[0]["f"], np.array(expected, dtype))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(allow_nan=False, allow_infinity=False),
            st.integers(-(2**63), 2**63 - 1),
            st.integers(0, 2**64 - 1),
        ),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from(["float64", "int64", "uint64"]),
)
def test_whatever_is_written_into_a_csv_file_is_read_or_refused(rows: list[tuple[float, int, int]], dtype: str) -> None:
    for columns in ((0,), (1,), (2,), (1, 2), (0, 1)):
        lines = [",".join(repr(row[c]) for c in columns) for row in rows]
        text = "\n".join([",".join(f"c{c}" for c in columns), *lines])
        try:
            found = table_array("a.csv", text.encode(), np.dtype(dtype))
        except InputError:
            continue
        assert found.shape == (len(rows), len(columns))
        for line, row in zip(found.tolist(), rows, strict=True):
            assert line == [row[c] for c in columns]


@pytest.mark.parametrize(
    "made",
    [
        lambda values: npy(values),
        lambda values: npz(a=values),
        lambda values: parquet(stamp=values, v=np.arange(4.0)),
        lambda values: csv("stamp,v\n" + "\n".join(f"{v!r},{i}.5" for i, v in enumerate(values.tolist()))),
    ],
)
def test_numbers_that_a_narrower_type_makes_alike_are_refused(
    of: Callable[..., scythe.Dataset], made: Callable[..., tuple[str, bytes]]
) -> None:
    """As those of a column are: seconds since 1970 differ by nothing as float32."""
    stamps = 1.7e9 + np.arange(4.0)
    with pytest.raises(
        InputError, match=r"lies between 1700000000\.0 and 1700000003\.0, where float32 rounds by up to"
    ):
        _ = of(made(stamps))[0]
    assert np.asarray(of(made(stamps), dtype="float64")[0]["f"]).reshape(4, -1)[:, 0].tolist() == stamps.tolist()
    assert of(made(np.full(4, 1.7e9 + 1)))[0]["f"].size, "one number alone loses nothing that it could be told by"


@pytest.mark.parametrize(
    "made",
    [lambda v: npy(np.full(3, v)), lambda v: npy(np.array(v)), lambda v: parquet(t0=np.full(2, v), load=[1.5, v])],
)
@pytest.mark.parametrize("first", ["one number", "nearly one"])
def test_numbers_that_differ_between_files_alone_are_refused_where_the_type_makes_them_alike(
    of: Callable[..., scythe.Dataset], made: Callable[[float], tuple[str, bytes]], first: str
) -> None:
    """Each file has the second at which its year begins, say, in all of its lines."""
    begins = [1.7e9 + 10 * i for i in range(12)]
    if first == "nearly one":
        begins[0] = 1.7e9 + 2**-21
    for collate in ("stack", "list"):
        with pytest.raises(
            InputError, match=r"with others (holds what|has a column 't0' that) lies between .*float32 rounds"
        ):
            _ = of(*map(made, begins), collate=collate)[[7, 5]].batches(2).at(0)[0]
        apart = of(*map(made, begins), dtype="float64", collate=collate).batches(12, shuffle=False).at(0)[0]["f"]
        assert [np.ravel(one)[0] for one in apart] == begins
    assert len(of(*map(made, [1.7e9 + 1] * 12)).batches(12).at(0)[0]["f"]) == 12, "all are one number"
    wide = [1e9 * i for i in range(12)]
    assert len(of(*map(made, wide)).batches(12).at(0)[0]["f"]) == 12


def test_a_first_file_that_cannot_be_had_is_waited_for_once_by_all_threads(
    of: Callable[..., scythe.Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bucket that is away is asked for half a minute: each thread would ask for as long, one behind the other."""
    ds, asked = of(*[npy(np.zeros(2))] * 8), []

    def away(_: Any, row: int) -> bytes:
        asked.append(row)
        raise FetchError("the bucket cannot be reached")

    monkeypatch.setattr(Files, "_content", away)
    files = ds.sources["f"]
    for row in (3, 5, 3):
        with pytest.raises(FetchError, match="the bucket cannot be reached"):
            files.take(np.array([row]))
    assert asked == [0]
    monkeypatch.undo()
    monkeypatch.setattr(source, "_AGAIN_SECONDS", 0.0)
    assert files.take(np.array([3])).tolist() == [[0, 0]]


def test_a_column_that_is_one_number_but_for_what_computing_has_left_is_taken(
    of: Callable[..., scythe.Dataset],
) -> None:
    noise = [0.1 + 0.2 * (i % 2) - 0.2 * (i % 2) for i in range(8)]
    assert len(set(noise)) == 2
    ds = of(*(npy(np.array(v)) for v in noise))
    assert len(ds.batches(8).at(0)[0]["f"]) == 8


@pytest.mark.parametrize("turn", [1, 1j])
def test_complex_numbers_that_a_narrower_type_makes_alike_are_refused(
    of: Callable[..., scythe.Dataset], turn: complex
) -> None:
    file = npy(turn * (1e9 + np.arange(4.0)))
    with pytest.raises(
        InputError, match=r"between 1000000000\.0 and 1000000003\.0, where complex64 rounds .*'complex128'"
    ):
        _ = of(file, dtype="complex64")[0]
    assert (of(file, dtype="complex128")[0]["f"] == turn * (1e9 + np.arange(4.0))).all()


def test_what_computing_has_left_in_the_last_digits_is_no_difference() -> None:
    def check(*files: np.ndarray, columns: tuple[str, ...] = ()) -> None:
        digits = Digits(np.dtype("float32"), columns)
        for found in files:
            digits.add(found)
        digits.check()

    check(np.array([0.1 + 0.2, 0.3, 0.1 * 3]))
    check(np.array([0.1 + 0.2]), np.array([0.3]))
    check(np.array([293.15, np.nan, np.inf, 293.15]))
    check(np.empty((0, 3)), columns=("a", "b", "c"))
    with pytest.raises(InputError, match=r"^has a column 'b' that lies between"):
        check(np.array([[0.0, 1e9], [1.0, 1e9 + 1]]), columns=("a", "b"))
    with pytest.raises(InputError, match=r"^with others has a column 'b' that lies between"):
        check(np.array([[0.0, 1e9]]), np.array([[1.0, 1e9 + 1]]), columns=("a", "b"))


@pytest.mark.parametrize("data", [npy(np.array([{}], object)), ("a.npy", b"x"), npz(a=np.array([{}], object))])
def test_objects_of_python_are_refused_without_advice_that_is_not_safe(
    of: Callable[..., scythe.Dataset], data: tuple[str, bytes]
) -> None:
    with pytest.raises(InputError, match="holds Python's objects, or is no array: save an array of numbers"):
        _ = of(data)[0]


# --- images ---------------------------------------------------------------------------------------------------


def png(values: Any, depth: int, colours: int) -> tuple[str, bytes]:
    """A PNG of these numbers, https://www.w3.org/TR/png-3/."""
    values = np.asarray(values)
    if depth == 16:
        lines = [line.astype(">u2").tobytes() for line in values]
    elif depth == 8:
        lines = [line.astype("u1").tobytes() for line in values]
    else:
        bits = np.unpackbits(values.astype("u1")[..., None], axis=-1)[..., 8 - depth :]
        lines = [np.packbits(line.reshape(-1)).tobytes() for line in bits]

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], depth, colours, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + line for line in lines))
    return "a.png", b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


GRAY, RGB, GRAY_ALPHA, RGB_ALPHA = 0, 2, 4, 6


@pytest.mark.parametrize(
    ("values", "depth", "colours", "bits"),
    [
        (np.full((2, 2, 3), 1001), 16, RGB, 16),
        (np.full((2, 2, 4), 1001), 16, RGB_ALPHA, 16),
        (np.full((2, 2, 2), 1001), 16, GRAY_ALPHA, 16),
        ([[0, 1], [2, 3]], 4, GRAY, 4),
        ([[0, 1], [2, 3]], 2, GRAY, 2),
        ([[0, 1000], [2000, 65535]], 16, GRAY, None),
        ([[0, 1], [2, 255]], 8, GRAY, None),
        (np.arange(12).reshape(2, 2, 3), 8, RGB, None),
        (np.arange(16).reshape(2, 2, 4), 8, RGB_ALPHA, None),
        ([[0, 1], [1, 0]], 1, GRAY, None),
    ],
)
def test_numbers_of_images_come_as_they_are_or_are_refused(
    of: Callable[..., scythe.Dataset], values: Any, depth: int, colours: int, bits: int | None
) -> None:
    pytest.importorskip("PIL")
    ds = of(png(values, depth, colours))
    if bits is None:
        np.testing.assert_array_equal(ds[0]["f"], np.asarray(values))
    else:
        with pytest.raises(
            InputError, match=f"whose numbers have {bits} bits, which Pillow would bring to 8: give load="
        ):
            _ = ds[0]


# --- columns of numbers that no float tells apart ---------------------------------------------------------------


class Long(ExperimentOutputSpec):
    number: int
    also: int


def counted(spec: One) -> Long:
    return Long(number=2**60 + spec.k, also=2**62 - 2**63 * (spec.k % 2))


def test_statistics_of_whole_numbers_are_those_of_the_numbers(root: Path) -> None:
    ExperimentRegistry.Register(name="counted")(counted)
    BaseExperiment(counted).allocate(pl.DataFrame({"k": range(40)}), engine="inline")
    stats = scythe.dataset("counted", x=["number", "also", "k"], dtype="int64").stats()["x"]
    assert stats["number"].std == pytest.approx(np.std(np.arange(40.0)), rel=1e-12)
    assert stats["number"].mean == float(2**60 + 19.5)
    assert stats["also"].std == pytest.approx(2.0**62, rel=1e-12)
    assert (stats["also"].mean, stats["also"].min, stats["also"].max) == (0.0, -(2.0**62), 2.0**62)
    assert (stats["k"].mean, stats["k"].min, stats["k"].max) == (19.5, 0.0, 39.0)


def test_a_report_calls_numbers_alike_only_where_they_are(root: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    ExperimentRegistry.Register(name="counted")(counted)
    for rows in (40, 1):
        BaseExperiment(counted).allocate(pl.DataFrame({"k": range(rows)}), engine="inline")
        page = scythe.report("counted", to=tmp_path / "page.html").read_text()
        assert ("always the same value" in page) == (rows == 1)


# --- how things are named, and what is shown ----------------------------------------------------------------------


@pytest.mark.parametrize("times", [2, 3, 4])
def test_a_name_that_stands_several_times_is_told_apart(of: Callable[..., scythe.Dataset], times: int) -> None:
    ds = of(csv(",".join(["v"] * times) + "\n" + ",".join(map(str, range(times)))))
    assert ds[0]["f"].ravel().tolist() == [*range(times)]
    assert ds.names["f"] == ("v", *(f"v_duplicated_{i}" for i in range(times - 1)))


def test_names_of_columns_are_told_without_the_rows() -> None:
    assert columns_of("a.csv", b"a,b\n1,2\n") == ("a", "b")
    with pytest.raises(InputError, match="is no Parquet file"):
        columns_of("a.parquet", b"x")


class WithFrame(ExperimentOutputSpec):
    file: FileReference


def framed(spec: One, tempdir: Path) -> WithFrame:
    (tempdir / "a.csv").write_text("0,0\n")
    return WithFrame(dataframes={"fr": pl.DataFrame({"v": [1.0 * spec.k, 2.0]})}, file=tempdir / "a.csv")


def test_what_users_have_at_hand_is_taken_or_told_what_it_is(root: Path) -> None:
    ExperimentRegistry.Register(name="framed")(framed)
    base = BaseExperiment(framed)
    run, ref = base.allocate(pl.DataFrame({"k": range(3)}), engine="inline")
    assert scythe.dataset(base, x=np.array(["k"]), run=run).names == {"x": ("k",)}
    assert scythe.read(base).height == 3
    assert scythe.dataset("framed", x=pl.Series(["k"]), f=scythe.Frame("fr", ["v"], rows=np.int64(2))).shapes["f"] == (
        2,
        1,
    )
    with pytest.raises(NotFoundError, match=r"is a reference to the result of a run: name the run itself"):
        scythe.dataset("framed", x="k", run=ref)  # type: ignore[arg-type]
    with pytest.raises(NotFoundError, match=r"f: 'fr' is a dataframe: scythe\.Frame\('fr', \[its columns\]\)"):
        scythe.dataset("framed", f="fr")
    with pytest.raises(ReadError, match="moments are compared with one that has a time zone"):
        len(scythe.dataset("framed", x="k", run="all", where=pl.col("run_datetime") > datetime(2026, 1, 1)))

    ds = scythe.dataset("framed", f=scythe.File("file"))
    assert "of which no batch can be made: f: the file of input 0" in repr(ds)

    parts = scythe.dataset("framed", x="k").split(train=1.0, test=0)
    assert {name: len(part) for name, part in parts.items()} == {"train": 3, "test": 0}
    for shares in ({"train": 0, "test": 0.0}, {"train": -0.1}):
        with pytest.raises(ReadError, match="the shares of a split are numbers from 0 on"):
            scythe.dataset("framed", x="k").split(**shares)
