"""Trying a few inputs: what comes out and what it costs, without a trace below the root."""

from __future__ import annotations

import contextlib
import datetime as dt
import enum
import json
import math
import re
import subprocess
import sys
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import polars as pl
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, BeforeValidator, Field
from typer.testing import CliRunner

import scythe
from scythe import ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry
from scythe.allocate import BaseExperiment, Trial
from scythe.allocate.try_out import _estimated
from scythe.cli import app
from scythe.cli.inputs_file import read_inputs
from scythe.define.schemas import ExperimentSchemas
from scythe.errors import AllocationError, InputError
from scythe.source import load_experiments
from scythe_catalog.schema import CompiledModel, compile_model

BEAMS = """
from pathlib import Path
import polars as pl
from pydantic import BeforeValidator, Field
from scythe import *

class Beam(ExperimentInputSpec):
    length: float = Field(gt=0, description="Length [m]")
    drawing: OptionalFileReference = None

class Bending(ExperimentOutputSpec):
    deflection: float = Field(description="Deflection [mm]")
    shape: FileReference

@ExperimentRegistry.Register(retries=5)
def bend(spec: Beam, tempdir: Path) -> Bending:
    print("length", spec.length)
    if spec.drawing is not None:
        print(spec.drawing.read_text())
    hold = bytearray(int(spec.length * 20_000_000))
    if spec.length > 8:
        raise ValueError("it breaks")
    (tempdir / "shape.txt").write_text("x" * 100)
    return Bending(deflection=2 * spec.length, shape=tempdir / "shape.txt",
                   dataframes={"moments": pl.DataFrame({"x": [1, 2]})})
"""


@pytest.fixture
def bend(root: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The function of a module that lies in the working folder."""
    Path("beams.py").write_text(BEAMS)
    monkeypatch.syspath_prepend(str(Path.cwd()))
    monkeypatch.delitem(sys.modules, "beams", raising=False)
    import beams  # pyright: ignore[reportMissingImports]

    yield beams.bend
    sys.modules.pop("beams", None)


@pytest.fixture
def trial(bend: Any) -> Trial:
    Path("plan.txt").write_text("a drawing")
    specs = pl.DataFrame({"length": np.linspace(1, 10, 100), "drawing": ["plan.txt"] * 100})
    return BaseExperiment(bend).try_out(specs, n=3)


def test_inputs_spread_over_all_are_run_and_shown_with_what_came_out(trial: Trial) -> None:
    assert trial.inputs["sort_index"].to_list() == [0, 50, 99]
    assert trial.outputs.select("sort_index", "deflection").rows() == [(0, 2.0), (50, pytest.approx(11.0909, 1e-4))]
    assert trial.errors.select("sort_index", "exception_type", "exception_message").rows() == [
        (99, "ValueError", "it breaks")
    ]
    assert trial.tables["moments"]["x"].to_list() == [1, 2, 1, 2]
    assert trial.tables["logs"]["stdout"][0] == "length 1.0\na drawing\n"
    assert trial.estimate.inputs == 100


@pytest.mark.parametrize(
    ("seconds", "total", "workers", "wanted"),
    [
        ([1.0, 1.0, 1.0], 300, 2, 150.0),
        ([5.0, 5.0, 0.01, 0.01], 1000, 2, 5.0 + 4.99),  # the first calls compile
        ([5.0, 5.0], 1000, 2, 2500.0),  # of which nobody knows
        ([1.0, 1.0, 4.0], 300, 2, 300.0),
    ],
)
def test_what_the_first_calls_take_longer_is_counted_once(
    seconds: list[float], total: int, workers: int, wanted: float
) -> None:
    assert _estimated(seconds, total, workers) == pytest.approx(wanted)


def test_files_stay_in_a_folder_of_their_own_and_nothing_lies_below_the_root(trial: Trial, root: Path) -> None:
    assert [path.read_text() for path in trial.files] == ["x" * 100] * 2
    assert not root.exists()
    assert scythe.list_experiments().height == 0


def test_peak_memory_is_that_of_each_input(trial: Trial) -> None:
    peaks = dict(trial.tasks.select("sort_index", "peak_memory").rows())
    assert peaks[99] - peaks[0] > 100, peaks  # 200 MB are held, and 20


def test_it_shows_itself_a_line_a_field(trial: Trial) -> None:
    text = repr(trial)
    assert text.splitlines()[0] == "bend: 3 of 100 inputs tried, 1 failed"
    assert "  deflection   float [mm]" in text
    assert "input 99 failed: ValueError: it breaks" in text
    assert "moments: 4 rows\n  x: Int64" in text
    assert "all 100 inputs: about" in text
    assert ">bend: 3 of 100" in trial._repr_html_()


def test_the_command_does_the_same(bend: Any) -> None:
    pl.DataFrame({"length": [1.0, 2.0]}).write_csv("specs.csv")
    said = CliRunner().invoke(app, ["try", "beams:bend", "specs.csv", "-n", "1"], catch_exceptions=False).output
    assert "bend: 1 of 2 inputs tried, 0 failed" in said
    Path("bad.json").write_text("{")
    Path("bad.parquet").write_text("{")
    Path("empty.csv").touch()
    for specs in ("specs.xls", "none.csv", "bad.json", "bad.parquet", "empty.csv"):
        found = CliRunner().invoke(app, ["try", "beams:bend", specs])
        assert found.exit_code == 2
        assert specs in found.output
    assert CliRunner().invoke(app, ["try", "beams", "specs.csv"]).exit_code == 2


@pytest.mark.parametrize(("name", "line"), [("late.ndjson", '{{"length": {}{}}}'), ("late.csv", "{}")])
def test_the_command_reads_columns_as_all_rows_have_them(bend: Any, name: str, line: str) -> None:
    rows = [line.format(1, "")] * 2000 + [line.format(1.5, ', "lenght": 2')]
    Path(name).write_text("\n".join((["length"] if name.endswith("csv") else []) + rows))
    *_, last = rows_of(name, schemas_of("beams:bend").input)
    assert last["length"] == 1.5
    assert ("lenght" in last) == name.endswith("ndjson")


def rows_of(name: str, compiled: CompiledModel) -> list[dict[str, Any]]:
    """What is read of a file, row by row."""
    found = read_inputs(Path(name), compiled)
    return found.to_dicts() if isinstance(found, pl.DataFrame) else found


def test_what_a_row_of_json_lacks_is_left_to_the_model(bend: Any) -> None:
    class Given(ExperimentInputSpec):
        r: float
        n: int = 7
        day: dt.date | None = None

    Path("some.json").write_text('[{"r": 1, "n": 2}, {"r": 2.5, "day": "2024-01-31"}, {"r": 3, "n": null}]')
    found = read_inputs(Path("some.json"), compile_model(Given))
    assert found == [{"r": 1.0, "n": 2}, {"r": 2.5, "day": dt.date(2024, 1, 31)}, {"r": 3.0, "n": None}]
    Path("lacking.json").write_text('[{"length": 1.0}, {}]')
    told = CliRunner().invoke(app, ["try", "beams:bend", "lacking.json"])
    assert told.exit_code != 0
    assert "length" in str(told.exception)
    assert "null" not in str(told.exception)


@pytest.mark.parametrize("separator", [";", "\t"])
@pytest.mark.parametrize("columns", [["length"], ["length", "width"]])
def test_a_csv_with_other_separators_is_told_so(bend: Any, separator: str, columns: list[str]) -> None:
    line = separator.join(["1,5"] * len(columns))
    Path("s.csv").write_text(f"{separator.join([*columns, 'code'])}\n{line}{separator}a\n")
    with pytest.raises(
        typer.BadParameter, match=f"its values are parted by {separator!r}: save it with commas".replace("\\", r"\\")
    ):
        read_inputs(Path("s.csv"), schemas_of("beams:bend").input)


def schemas_of(function: str) -> ExperimentSchemas:
    (found,) = load_experiments([function])
    return found.schemas


class Dated(ExperimentInputSpec):
    day: dt.date
    at: dt.datetime
    clock: dt.time | None = None
    code: str
    price: Decimal = Field(max_digits=8, decimal_places=2)


@pytest.mark.parametrize("name", ["dated.csv", "dated.json", "dated.ndjson"])
def test_what_a_file_can_only_write_as_text_is_what_the_model_says(root: Path, name: str) -> None:
    rows = [
        {"day": "2024-01-31", "at": "2024-01-31T12:00:00", "clock": "12:30:00", "code": "007", "price": "1.10"},
        {"day": "2024-02-29", "at": "2024-02-29 06:15", "clock": None, "code": "01", "price": "20"},
    ]
    getattr(pl.DataFrame(rows), f"write_{name.partition('.')[2]}")(name)
    compiled = compile_model(Dated)
    found = [Dated.model_validate(row) for row in rows_of(name, compiled)]
    assert found == [Dated.model_validate(row) for row in rows]
    Path(name).write_text(Path(name).read_text().replace("2024-02-29", "29.2.2024"))
    with pytest.raises(typer.BadParameter, match=r"day: '29\.2\.2024' is no date; write it as 2024-01-31"):
        read_inputs(Path(name), compiled)


class Exact(ExperimentInputSpec):
    i: int | None = None
    m: dt.time | None = None
    s: str | None = None
    lit: Literal["1", "2"] | None = None
    d: Decimal | None = Field(None, max_digits=20, decimal_places=3)
    code: str | None = Field(None, alias="CODE")
    took: dt.timedelta | None = None
    on: bool | None = None
    r: float | None = None
    deep: dict[str, list[float]] | None = None
    pair: tuple[int, float] | None = None


MOST = dt.timedelta(days=10**8)  # in millionths of a second they are 64 bits


@settings(deadline=None, max_examples=60)
@given(st.lists(st.timedeltas(-MOST, MOST) | st.none(), min_size=1, max_size=4).filter(any))
def test_any_duration_is_read_as_iso_clocks_pandas_and_python_write_it(tmp_path_factory: Any, took: list[Any]) -> None:
    path = tmp_path_factory.mktemp("durations") / "a.csv"
    written = [
        pl.DataFrame({"took": pl.Series(took, dtype=pl.Duration("us")).dt.to_string("iso")}).write_csv(),
        pl.DataFrame({"took": [None if one is None else str(one) for one in took]}).write_csv(),
    ]
    with contextlib.suppress(pd.errors.OutOfBoundsTimedelta, OverflowError):
        written.append(pd.DataFrame({"took": pd.to_timedelta(took)}).to_csv(index=False))
    for text in written:
        path.write_text(text)
        assert [row["took"] for row in rows_of(str(path), compile_model(Exact))] == took


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.csv", "i\n9007199254740993\n2.0\n", {"i": [9007199254740993, 2]}),
        ("a.json", '[{"i": 9007199254740993}, {"i": 2.0}]', {"i": [9007199254740993, 2]}),
        ("a.ndjson", '{"i": 9007199254740993}\n\n{"i": 2.0}\n', {"i": [9007199254740993, 2]}),
        ("a.csv", "i\n2.5\n", "i: '2.5' is no int.*; write it as digits alone"),
        ("a.csv", "i\nmany\n", "i: 'many' is no int"),
        ("a.csv", "i\n9223372036854775808\n", "i: '9223372036854775808' is no int.*within 64 bits"),
        ("a.json", '[{"i": 9223372036854775808}]', "i: 9223372036854775808 is no int.*within 64 bits"),
        ("a.json", '[{"i": true}]', "i: True is no int"),
        ("a.json", '[{"i": 1, "i": 2}]', "a.json cannot be read: the key 'i' stands twice"),
        ("a.json", '[{"d": 12345678901234567.123}]', {"d": [Decimal("12345678901234567.123")]}),
        ("a.json", '[{"d": 1.2345}]', r"d: 1\.2345 is no decimal.*; write it as 1\.000"),
        ("a.csv", "m\n12:00:00.1234567\n", r"m: '12:00:00\.1234567' is no time"),
        ("a.csv", "m\n12:00:00.1234560\n", {"m": [dt.time(12, 0, 0, 123456)]}),
        ("a.json", '[{"s": "a"}, {"s": 1}]', "s: 1 is no str; write it as text, in quotes"),
        ("a.json", '[{"s": "a"}, {"s": 1.10}]', r"s: 1\.10 is no str"),
        ("a.json", '[{"s": "\\ud800"}]', "a.json cannot be read"),
        ("a.json", '[{"s": "\\u00e9"}]', {"s": ["é"]}),
        ("a.csv", "lit\n1\n", {"lit": ["1"]}),
        ("a.csv", "CODE\n007\n", {"CODE": ["007"]}),
        ("a.jsonl", '\ufeff{"i": 1}\n{"i": 2}\n', {"i": [1, 2]}),
        ("a.jsonl", '{"i": 1}\n\n{"i": x}\n', "a.jsonl cannot be read: line 3, character 7: Expecting value"),
        ("a.json", '[{"i": 1},\n {"i": x}]', "a.json cannot be read: line 2, character 8: Expecting value"),
        ("a.jsonl", '{"i": 9007199254740993}\n{"i": 2}\n', {"i": [9007199254740993, 2]}),
        ("a.csv", "took\nPT1H30M\n1:30:00\n", {"took": [dt.timedelta(hours=1.5)] * 2}),
        ("a.csv", "took,i\n-PT0.000001S,1\n,2\n", {"took": [dt.timedelta(microseconds=-1), None], "i": [1, 2]}),
        ("a.csv", "took\nP1W2DT3H4M5.6S\n", {"took": [dt.timedelta(9, 3 * 3600 + 4 * 60 + 5.6)]}),
        ("a.csv", 'took\n"-1 day, 23:00:00"\n-1 days +23:00:00\n-1:00:00\n', {"took": [-dt.timedelta(hours=1)] * 3}),
        ("a.json", '[{"took": "P2D"}, {"took": null}]', {"took": [dt.timedelta(2), None]}),
        ("a.csv", "took\n90\n", "took: '90' is no duration; write it as PT1H30M"),
        ("a.csv", "took\n1:30\n", "took: '1:30' is no duration"),
        ("a.csv", "took\nP\n", "took: 'P' is no duration"),
        ("a.csv", "took\nPT\n", "took: 'PT' is no duration"),
        ("a.csv", "took\nP1M\n", "took: 'P1M' is no duration"),
        ("a.csv", "took\nPT0.0000015S\n", r"took: 'PT0\.0000015S' is no duration"),
        ("a.csv", "took\nP999999999999D\n", "took: 'P999999999999D' is no duration"),
        ("a.json", '[{"took": 90}]', "took: 90 is no duration; write it as PT1H30M"),
        ("a.csv", "on\n1\n0\nTRUE\nfalse\n", {"on": [True, False, True, False]}),
        ("a.csv", "on,i\n,1\nFalse,2\n", {"on": [None, False], "i": [1, 2]}),
        ("a.csv", 'on\n1\n""\n', {"on": [True, None]}),
        ("a.csv", 'i\n""\n1\n', {"i": [None, 1]}),
        ("a.csv", 's\n""\n', {"s": [""]}),
        (
            "a.csv",
            "r\nnan\n inf\n-Infinity\n1e3\n",
            {"r": [pytest.approx(math.nan, nan_ok=True), math.inf, -math.inf, 1000.0]},
        ),
        ("a.csv", "r,i\n,1\n1.5,2\n", {"r": [None, 1.5], "i": [1, 2]}),
        ("a.csv", "r\n1.5\nNA\n", "r: 'NA' is no float; write it as 1.5, and what is missing as nothing"),
        ("a.csv", "r\n1.5\n1e400\n", "r: 1e400 is beyond 64-bit floats"),
        ("a.csv", "r\n1.5\n-1.5e-400\n", "r: -1.5e-400 is beyond 64-bit floats"),
        ("a.csv", "r\n0.1\n9007199254740993\n", "r: 9007199254740993 is a whole number that no 64-bit float is"),
        ("a.csv", 'r\n1.5\n"2,5"\n', "r: '2,5' is no float; write it as 1.5"),
        (
            "a.csv",
            "r\n0.1\n1e23\n-9007199254740992\n9007199254740993.0\n0e5\n",
            {"r": [0.1, 1e23, -(2.0**53), 2.0**53, 0.0]},
        ),
        ("a.csv", "r\n1\n1e400\n", "r: 1e400 is beyond 64-bit floats; give it in another unit"),
        ("a.csv", "r\n-1e400\n", "r: -1e400 is beyond 64-bit floats"),
        ("a.csv", "r\n1e-400\n", "r: 1e-400 is beyond 64-bit floats"),
        (
            "a.csv",
            "r\n0.1\n9007199254740993\n",
            "r: 9007199254740993 is a whole number that no 64-bit float is; write 9007199254740992.0",
        ),
        ("a.csv", "r\n9007199254740993\n", "r: 9007199254740993 is a whole number that no 64-bit float is"),
        ("a.json", '[{"r": 0.1}, {"r": 1e23}, {"r": 9007199254740992}]', {"r": [0.1, 1e23, 2.0**53]}),
        (
            "a.json",
            '[{"r": 0.1}, {"r": 9007199254740993}]',
            "r: 9007199254740993 is a whole number that no 64-bit float is",
        ),
        ("a.ndjson", '{"r": 1e400}\n{"r": 1}', r"r: 1E\+400 is beyond 64-bit floats"),
        ("a.json", '[{"r": 1e-400}]', "r: 1E-400 is beyond 64-bit floats"),
        (
            "a.json",
            '[{"deep": {"a": [0.5, 9007199254740993]}}]',
            "deep: 9007199254740993 is a whole number that no 64-bit float is",
        ),
        ("a.json", '[{"pair": [9007199254740993, 0.5]}]', {"pair": [(9007199254740993, 0.5)]}),
        ("a.json", '[{"pair": [9007199254740993.0, 1]}]', {"pair": [(9007199254740993, 1.0)]}),
        (
            "a.json",
            '[{"deep": {"a": [NaN]}}, {"deep": {"b": [1, 0.5]}}]',
            {"deep": [{"a": [pytest.approx(math.nan, nan_ok=True)]}, {"b": [1.0, 0.5]}]},
        ),
        ("a.csv", "i\n1e400000000\n", "i: '1e400000000' is no int; write it as digits alone, within 64 bits"),
        ("a.json", '[{"i": 1e400000000}]', r"i: 1E\+400000000 is no int; write it as digits alone, within 64 bits"),
        (
            "a.json",
            '[{"pair": [1e400000000, 1]}]',
            r"pair\.0: 1E\+400000000 is no int; write it as digits alone, within 64 bits",
        ),
        ("a.json", '[{"d": 1e400000000}]', r"d: 1E\+400000000 is no "),
        ("a.csv", "on\n2\n", "on: '2' is no bool; write it as true or false"),
        ("a.csv", "on\nyes\n", "on: 'yes' is no bool; write it as true or false"),
    ],
)
def test_values_of_a_file_are_kept_exactly_or_refused(root: Path, name: str, text: str, told: Any) -> None:
    Path(name).write_text(text)
    if isinstance(told, dict):
        rows = rows_of(name, compile_model(Exact))
        assert {name: [row[name] for row in rows] for name in rows[0]} == told
    else:
        with pytest.raises(typer.BadParameter, match=told):
            read_inputs(Path(name), compile_model(Exact))


class Part(BaseModel):
    u: float
    n: float | None = 5.0
    k: int = 3
    when: dt.date | None = None
    price: Decimal | None = Field(None, max_digits=30, decimal_places=4)


class Nested(ExperimentInputSpec):
    w: Part
    many: list[Part] = Field(default_factory=list[Part])
    d: dict[str, float] = Field(default_factory=dict[str, float])
    texts: list[str] = Field(default_factory=list[str])


NESTED: dict[str, Any] = {
    "what another row has": [{"w": {"u": 1, "n": 7, "k": 1}, "d": {"a": 1}}, {"w": {"u": 2}, "d": {"b": 2.5}}],
    "what another item has": [{"w": {"u": 1}, "many": [{"u": 1, "n": 1}, {"u": 2}]}, {"w": {"u": 1}, "many": []}],
    "texts": [{"w": {"u": 1}, "texts": ["a", "1.10"]}],
}


@pytest.mark.parametrize("rows", NESTED.values(), ids=NESTED)
@pytest.mark.parametrize("suffix", ["json", "ndjson"])
def test_what_an_object_within_a_row_lacks_is_left_to_the_model_too(
    tmp_path: Path, rows: list[dict[str, Any]], suffix: str
) -> None:
    file = tmp_path / f"a.{suffix}"
    file.write_text(json.dumps(rows) if suffix == "json" else "\n".join(map(json.dumps, rows)))
    assert rows_of(str(file), compile_model(Nested)) == rows


def test_days_and_decimals_within_an_object_are_what_the_model_says(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(
        '[{"w": {"u": 1, "when": "2024-01-31", "price": 12345678901234567.8912}}, {"w": {"u": 1, "price": "0.5"}}]'
    )
    assert rows_of(str(file), compile_model(Nested)) == [
        {"w": {"u": 1.0, "when": dt.date(2024, 1, 31), "price": Decimal("12345678901234567.8912")}},
        {"w": {"u": 1.0, "price": Decimal("0.5000")}},
    ]
    file.write_text('[{"w": {"u": 1, "when": "31.1.2024"}}]')
    with pytest.raises(typer.BadParameter, match=r"w\.when: '31\.1\.2024' is no date; write it as 2024-01-31"):
        read_inputs(file, compile_model(Nested))


@pytest.mark.parametrize("text", ["f\n1\n".encode("utf-16"), b"f,s\0x\n1,2\n"])
def test_a_file_that_is_no_text_is_told_so(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "a.csv").write_bytes(text)
    with pytest.raises(typer.BadParameter, match="in UTF-8: save it as UTF-8"):
        read_inputs(tmp_path / "a.csv", compile_model(Exact))


def test_a_file_that_is_no_utf_8_is_told_how_it_is_saved(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("s\nBüro\n".encode("latin-1"))
    with pytest.raises(typer.BadParameter, match="save it as UTF-8"):
        read_inputs(tmp_path / "a.csv", compile_model(Exact))


class Loose(ExperimentInputSpec):
    day: Annotated[dt.date, BeforeValidator(lambda v: dt.datetime.strptime(v, "%d.%m.%Y").date())]
    code: Annotated[str, BeforeValidator(lambda v: f"{v:03d}" if isinstance(v, int) else v)]
    clock: dt.time


def test_what_a_validator_takes_first_is_as_the_file_has_it(root: Path) -> None:
    Path("a.csv").write_text("day,code,clock\n31.01.2024,7,12:00:00\n")
    (found,) = rows_of("a.csv", compile_model(Loose))
    assert (*found.values(),) == ("31.01.2024", 7, dt.time(12))
    Path("a.csv").write_text("day,code,clock\n31.01.2024,7,12:00:00+05:00\n")
    with pytest.raises(typer.BadParameter, match=r"clock: '12:00:00\+05:00' is no time; write it as 12:00:00"):
        read_inputs(Path("a.csv"), compile_model(Loose))


@pytest.mark.parametrize("pandas", [False, True])
def test_a_frame_of_texts_is_told_how_they_are_parsed(root: Path, pandas: bool) -> None:
    @ExperimentRegistry.Register()
    def dated(spec: Dated) -> ExperimentOutputSpec:
        return ExperimentOutputSpec()

    texts = {"day": "2024-01-31", "at": "2024-01-31T12:00", "clock": "12:30:00"}
    frame: Any = pl.DataFrame({name: [text] for name, text in texts.items()} | {"code": ["1"], "price": [Decimal(1)]})
    frame = frame.to_pandas() if pandas else frame
    with pytest.raises(InputError) as told:
        BaseExperiment(dated).try_out(frame)
    ways = re.findall(r"(\w+): must be .*parse it: (.*)", str(told.value))
    assert [name for name, _ in ways] == [*texts]
    for name, way in ways:  # as it says
        made = eval(way, {"pl": pl, "pd": pd, "frame": frame})
        frame = frame.assign(**{name: made}) if pandas else frame.with_columns(made)
    assert BaseExperiment(dated).try_out(frame).errors.height == 0


class Gaps(ExperimentInputSpec):
    heated: bool | None = None
    zip: str | None = None
    storeys: int | None = None
    built: dt.date | None = None


@pytest.mark.parametrize("pandas", [False, True])
def test_what_is_missing_stays_missing_by_the_casts_that_are_told_and_no_day_becomes_a_month(
    root: Path, pandas: bool
) -> None:
    @ExperimentRegistry.Register()
    def gaps(spec: Gaps) -> ExperimentOutputSpec:
        return ExperimentOutputSpec()

    frame: Any = pd.DataFrame(
        {"heated": [1, 0, np.nan], "zip": [1234, np.nan, 5], "built": ["01.02.2024", None, "24.12.2024"]}
    )
    frame = frame.assign(storeys=["1", "2", "3"])
    if not pandas:  # with NaN, too, as a computation leaves it
        frame = pl.from_pandas(frame).with_columns(
            pl.col("zip").cast(pl.Int64), pl.col("heated").fill_null(float("nan"))
        )
    with pytest.raises(InputError) as told:
        BaseExperiment(gaps).try_out(frame)
    ways = re.findall(
        r"  (\w+): must be .*(?:cast|parse) it: (.*?)(?:, where that is its form)?$", str(told.value), re.MULTILINE
    )
    assert [name for name, _ in ways] == ["heated", "zip", "built", "storeys"]
    for name, way in ways:
        made = eval(way, {"pl": pl, "pd": pd, "frame": frame})
        frame = frame.assign(**{name: made}) if pandas else frame.with_columns(made)
    rows = BaseExperiment(gaps).try_out(frame, 3).inputs
    assert rows["heated"].to_list() == [True, False, None]
    assert rows["zip"].to_list() == ["1234", None, "5"]
    assert rows["built"].to_list() == [dt.date(2024, 2, 1), None, dt.date(2024, 12, 24)]


class Fuel(enum.Enum):
    GAS = "gas"
    OIL = "oil"


class Stay(ExperimentInputSpec):
    step: dt.timedelta
    fuel: Fuel
    key: uuid.UUID
    parts: dict[str, dt.timedelta]


class Stayed(ExperimentOutputSpec):
    took: dt.timedelta
    burnt: Fuel


def stay(spec: Stay) -> Stayed:
    return Stayed(took=2 * spec.step, burnt=spec.fuel, dataframes={"steps": pl.DataFrame({"each": [spec.step]})})


def test_columns_are_of_the_types_that_a_run_is_read_with(root: Path) -> None:
    experiment = BaseExperiment(ExperimentRegistry.Register()(stay))
    step = dt.timedelta(minutes=90)
    specs = [Stay(step=step, fuel=Fuel.OIL, key=uuid.uuid4(), parts={"a": step})]
    trial = experiment.try_out(specs)
    experiment.allocate(specs, engine="inline")[1].result()
    read = scythe.read(stay)
    for frame in (trial.inputs, trial.outputs):
        assert frame.equals(read.select(frame.columns))
        assert frame.schema == read.select(frame.columns).schema
    assert trial.tables["steps"]["each"].to_list() == [step]
    assert re.search(r"step +duration +1:30:00\n", repr(trial))


def test_a_trial_that_is_interrupted_leaves_nothing_and_names_no_run_to_go_on_with(root: Path) -> None:
    script = (
        "import os, tempfile; tempfile.tempdir = 'temp'\n"
        "os.environ['CALLER'] = str(os.getpid())\n"
        "from scythe import *\n"
        "class Nap(ExperimentInputSpec): n: int\n"
        "class Rest(ExperimentOutputSpec): y: int\n"
        "@ExperimentRegistry.Register()\n"
        "def nap(spec: Nap) -> Rest:\n"
        "    import os, signal, time\n"
        "    os.kill(int(os.environ['CALLER']), signal.SIGINT); time.sleep(600)\n"
        "BaseExperiment(nap).try_out([{'n': 1}])\n"
    )
    Path("temp").mkdir()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")
    assert "resume" not in done.stderr
    assert list(Path("temp").iterdir()) == []


def test_all_specs_are_checked_before_any_runs(bend: Any) -> None:
    with pytest.raises(InputError, match="length"):
        BaseExperiment(bend).try_out(pl.DataFrame({"length": [1.0, 2.0, -3.0]}), n=1)
    with pytest.raises(AllocationError, match="n must be"):
        BaseExperiment(bend).try_out(pl.DataFrame({"length": [1.0]}), n=0)


class Step(enum.IntEnum):
    ONE = 1
    TWO = 2


class Share(enum.Enum):
    LOW = 0.5
    HIGH = 1.5


class Levels(ExperimentInputSpec):
    i: Step
    f: Share


@pytest.mark.parametrize(
    ("name", "text"), [("a.csv", "i,f\n1,0.5\n2,1.5\n"), ("a.json", '[{"i":1,"f":0.5},{"i":2,"f":1.5}]')]
)
def test_members_of_an_enum_are_given_by_their_values_in_files(root: Path, name: str, text: str) -> None:
    Path(name).write_text(text)

    def levels(spec: Levels) -> ExperimentOutputSpec:
        return ExperimentOutputSpec()

    levels.__annotations__ = {"spec": Levels, "return": ExperimentOutputSpec}
    experiment = BaseExperiment(ExperimentRegistry.Register()(levels))
    experiment.allocate(read_inputs(Path(name), compile_model(Levels)), engine="inline")[1].result()
    assert [(spec.i, spec.f) for spec, _ in scythe.rows(levels)] == [(Step.ONE, Share.LOW), (Step.TWO, Share.HIGH)]


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("a.ndjson", '{"s":"a\u2028b"}\n{"s":"c\u0085"}\r\n', ["a\u2028b", "c\u0085"]),
        ("a.json", '\ufeff[{"s":"a"}]', ["a"]),
        ("a.json", '{"s":"a"}', ["a"]),
        ("a.json", "[]", []),
    ],
)
def test_json_is_read_as_it_is_written_elsewhere(root: Path, name: str, text: str, wanted: list[str]) -> None:
    Path(name).write_text(text, "utf-8", newline="")
    found = rows_of(name, compile_model(Exact))
    assert [row["s"] for row in found] == wanted
