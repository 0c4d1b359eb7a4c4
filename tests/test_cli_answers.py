"""The command line answers questions about runs: why inputs fail, what differs, what takes room, what a model comes to."""

from __future__ import annotations

import datetime as dt
import json
import sys
from decimal import Decimal
from math import inf, nan
from pathlib import Path
from typing import Any

import cloudpickle
import polars as pl
import pytest
from pydantic import Field
from typer.testing import CliRunner

import scythe
from scythe.allocate import BaseExperiment, ExperimentRun
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.cli import app
from scythe.errors import NotFoundError, RunDamaged
from scythe.record.lease import Lease
from scythe.registry import ExperimentRegistry
from scythe.runs.compare import compare_runs
from scythe.runs.failing import in_common
from scythe.utils.filesys import FileReference

cloudpickle.register_pickle_by_value(sys.modules[__name__])


class House(ExperimentInputSpec):
    setpoint: float = Field(description="Heating setpoint [deg.C]", ge=0, lt=50)
    roof: str = "flat"
    weather: FileReference


class Heat(ExperimentOutputSpec):
    load: float = Field(description="Peak load [kW]")
    note: str = ""


#: How warm it is outside, and whether it is told.
STATE: dict[str, Any] = {}


def heat(spec: House) -> Heat:
    if spec.setpoint > 26 and not STATE.get("mended"):
        raise ValueError(f"setpoint {spec.setpoint} is too warm")
    load = spec.setpoint - float(spec.weather.read_text())
    return Heat(load=load + STATE.get("more", 0), note=STATE.get("note", ""))


def run_of(setpoints: list[float], **state: Any) -> ExperimentRun:
    STATE.clear()
    STATE.update(state)
    Path("weather.txt").write_text("4")
    ExperimentRegistry.Register(name="heat", retries=0)(heat)
    specs = pl.DataFrame({"setpoint": setpoints}).with_columns(
        pl.lit("weather.txt").alias("weather"), pl.lit("flat").alias("roof")
    )
    run, ref = BaseExperiment("heat").allocate(specs, "keep", engine="local", workers=1, max_errors=None)
    ref.result()
    return run


def said(*words: str) -> str:
    return CliRunner().invoke(app, list(words), catch_exceptions=False).output


def test_show_says_what_the_failing_inputs_have_in_common(root: Path) -> None:
    run_of([20.0, 22.5, 26.0, 27.0, 30.0])
    shown = said("show", "heat")
    assert "2 (40%), input 3 the first: ValueError: setpoint 27.0 is too warm" in shown
    assert "\n    all have setpoint > 26 (27 to 30)\n" in shown
    assert "roof" not in shown.split("Errors")[1]


@pytest.mark.parametrize(
    ("failed", "told"),
    [
        ({"x": [1, 2], "kind": ["a", "b"]}, ["all have x < 3 (1 to 2)"]),
        ({"x": [3, 9], "kind": ["c", "d"]}, ["all have kind among 'c', 'd'"]),
        ({"x": [None, 9], "kind": [None, None]}, ["all have kind = None"]),
        ({"x": [3, 4], "kind": ["a", "a"]}, ["x 3 to 4 (of good ones 3 to 9)"]),
        ({"x": [3, 9], "kind": ["a", "a"]}, []),
        ({"x": [None, None], "kind": ["a", "a"]}, ["all have x = None"]),
        ({"x": [1, None], "kind": ["a", "a"]}, []),
    ],
)
def test_fields_that_tell_the_failing_from_the_good_are_named_or_those_with_a_narrow_range(
    failed: dict[str, Any], told: list[str]
) -> None:
    good = pl.LazyFrame({"x": [3, 5, 9], "kind": ["a", "b", "b"]})
    frame = pl.DataFrame(failed, schema={"x": pl.Int64, "kind": pl.String})
    assert in_common(frame, good, ["x", "kind", "unknown"]) == told


@pytest.mark.parametrize(
    ("failed", "good", "told"),
    [
        ([9.0, inf], [1.0, 2.0], ["all have x > 2 (9 to inf)"]),
        ([9.0, nan], [1.0, 2.0], []),
        ([3.0, 4.0], [1.0, inf], []),
        ([dt.time(3), dt.time(4)], [dt.time(1), dt.time(20)], ["x 03:00:00 to 04:00:00 (of good ones 01:00:00 to 20:00:00)"]),
        ([Decimal("1.5"), Decimal("1.6")], [Decimal(1), Decimal(9)], ["x 1.5 to 1.6 (of good ones 1.0 to 9.0)"]),
        ([True, True], [False], ["all have x = True"]),
        (["a" * 100], ["b"], [f"all have x = '{'a' * 58}…"]),
        (["a"], [], []),
    ],
)  # fmt: skip
def test_what_is_said_of_failing_inputs_holds_for_all_of_them_and_for_any_type(
    failed: list[Any], good: list[Any], told: list[str]
) -> None:
    frame = pl.DataFrame({"x": failed})
    assert in_common(frame, pl.LazyFrame({"x": pl.Series(good, dtype=frame["x"].dtype)}), ["x"]) == told


def test_two_runs_differ_in_outputs_of_equal_inputs(root: Path) -> None:
    one = run_of([20.0, 20.0, 22.0, 30.0])
    other = run_of([22.0, 20.0, 20.0, 25.0, 30.0], more=1, mended=True)
    found = compare_runs(one, other)
    assert (found.both, found.only_one, found.only_other) == (4, 0, 1)
    assert (found.failed_one, found.failed_other) == (1, 0)
    assert found.values.rows() == [("load", 0, 3, 1.0, pytest.approx(1 / 17)), ("note", 3, 0, None, None)]
    assert not found.inputs.changes
    shown = said("diff", one.experiment_id, other.experiment_id)
    assert "4 of equal values, 0 in the first alone, 1 in the second alone" in shown
    assert "failed in the first alone: 1; in the second alone: 0" in shown
    same = run_of([20.0, 20.0, 22.0, 30.0])
    assert compare_runs(one, same).values["changed"].to_list() == [0, 0]


def test_files_that_differ_make_other_inputs_whatever_they_are_called(root: Path) -> None:
    one = run_of([20.0])
    Path("weather.txt").write_text("5")
    ExperimentRegistry.Register(name="heat", retries=0)(heat)
    specs = pl.DataFrame({"setpoint": [20.0], "weather": ["weather.txt"]})
    other, _ = BaseExperiment("heat").allocate(specs, "keep", engine="inline")
    found = compare_runs(one, other)
    assert (found.both, found.only_one, found.only_other) == (0, 1, 1)


def test_room_is_told_by_experiment_and_by_run(root: Path) -> None:
    run = run_of([20.0])
    (whole,) = json.loads(said("du", "--json"))
    assert whole["name"] == "heat"
    on_disk = sum(p.stat().st_size for p in root.rglob("*") if p.is_file() and "final" not in p.parts)
    others = sum(p.stat().st_size for p in (root / "_catalog").glob("*") if p.is_file())
    assert 0.9 * (on_disk - others) <= whole["total"] <= on_disk
    (one,) = json.loads(said("du", "heat", "--json"))
    assert one["name"] == run.experiment_id
    assert one["inputs"] > 0
    assert one["catalog"] is None
    assert "kB" in said("du")
    refused = CliRunner().invoke(app, ["du", "haet"]).exception
    assert isinstance(refused, NotFoundError)
    assert "there is heat" in str(refused)


def test_logs_are_told_apart_from_what_is_damaged_and_from_a_frame_of_that_name(root: Path) -> None:
    run = run_of([20.0])
    assert json.loads(said("logs", "heat", "--json")) == []
    assert said("runs", "heat", "--tag", "paper") == "no run has the tag 'paper'\n"
    tables = json.loads(run.objects.read(run.key.result))
    tables["tables"]["logs"] = tables["tables"]["tasks"]
    run.objects.write(run.key.result, json.dumps(tables).encode())
    with pytest.raises(NotFoundError, match="a dataframe of its function"):
        said("logs", "heat")
    run.objects.delete([tables["tables"]["tasks"]["key"]])
    with pytest.raises(RunDamaged):
        said("logs", "heat")


def test_a_file_that_is_gone_or_damaged_is_told_beside_what_there_is(root: Path) -> None:
    run, other = run_of([20.0, 30.0]), run_of([20.0, 30.0])
    result = run.result
    assert result is not None
    run.objects.delete([result.tables["scalars"].key])
    run.objects.write(result.tables["tasks"].key, b"x" * 100)
    shown = said("show", run.experiment_id)
    assert "the table 'tasks' of 'heat' cannot be read" in shown
    assert "is too warm" in shown
    assert "what they have in common cannot be told" in shown
    assert "is too warm" in said("errors", run.experiment_id)
    with pytest.raises(RunDamaged, match=f"a file of {run.experiment_id} is gone"):
        said("diff", other.experiment_id, run.experiment_id)


def test_a_run_that_is_worked_on_is_named_and_not_deleted(root: Path) -> None:
    run = run_of([20.0])
    lease = Lease(run.objects, run.key, "local")
    told = said("delete", "heat", "--keep", "0", "--yes")
    lease.end()
    assert told == f"{run.experiment_id} is being worked on: it is left as it is\n"


def test_all_but_the_latest_runs_can_be_deleted(root: Path) -> None:
    runs = [run_of([20.0]) for _ in range(3)]
    assert "no more than 3 runs" in said("delete", "heat", "--keep", "3", "--yes")
    told = CliRunner().invoke(app, ["delete", "heat", "--keep", "1"], input="n\n").output
    assert runs[0].experiment_id in told
    assert scythe.list_runs("heat").height == 3
    said("delete", "heat/v1.0.0", "--keep", "1", "--yes")
    assert scythe.list_runs("heat")["run"].to_list() == [runs[2].key.folder]


def test_the_columns_of_a_model_are_shown_with_units_bounds_and_defaults(root: Path, monkeypatch: Any) -> None:
    Path("houses.py").write_text(
        "from pydantic import BaseModel, Field\n"
        "class Wall(BaseModel):\n"
        '    area: float = Field(description="Area [m2]", gt=0, le=9)\n'
        "    name: str | None = None\n"
    )
    monkeypatch.syspath_prepend(str(Path.cwd()))
    area, name = json.loads(said("spec", "houses:Wall", "--json"))
    assert area == {
        "model": "Wall", "column": "area", "type": "float", "unit": "m2", "bounds": "> 0, <= 9", "default": "required",
        "description": "Area [m2]",
    }  # fmt: skip
    assert (name["type"], name["default"]) == ("str | None", "None")
    assert "Wall" in said("spec", "houses:Wall")
    assert CliRunner().invoke(app, ["spec", "houses"]).exit_code == 1


def test_a_run_that_was_downloaded_without_its_rows_is_shown(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of([20.0, 30.0])
    scythe.download("heat", tmp_path / "here", tables=["errors"])
    monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(tmp_path / "here"))
    shown = said("show", run.experiment_id)
    assert "is too warm" in shown
    assert "what they have in common cannot be told" in shown
    attempt = shown.split("Attempts")[1].splitlines()[2]
    assert attempt.split()[5] == "-", "how many inputs an attempt ran stands in the table tasks"


class Sealed(ExperimentInputSpec):
    key: bytes
    more: list[bytes] = []  # noqa: RUF012 - pydantic copies it
    named: dict[str, bytes] = {}  # noqa: RUF012


def opened(spec: Sealed) -> Heat:
    raise ValueError("sealed")


def test_bytes_are_shown_as_json_in_base64(root: Path) -> None:
    ExperimentRegistry.Register(name="opened", retries=0)(opened)
    specs = [Sealed(key=b"a\xff", more=[b"x", b"y"], named={"n": b"z"}), Sealed(key=b"")]
    BaseExperiment(opened).allocate(specs, engine="local", workers=1, max_errors=None)[1].result()
    row, other = json.loads(said("errors", "opened", "--json"))
    assert (row["key"], row["more"], other["key"], other["more"]) == ("Yf8=", ["eA==", "eQ=="], "", [])
    assert row["named"] == [{"key": "n", "value": "eg=="}]
