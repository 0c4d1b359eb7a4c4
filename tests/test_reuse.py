"""Growing: inputs of which a version has rows are not run again, and the new run is complete."""

from __future__ import annotations

import datetime as dt
import enum
import json
import math
import os
import pickle
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import AwareDatetime, BaseModel, Field
from typer.testing import CliRunner

import scythe
import scythe.allocate.allocation
from scythe.allocate import BaseExperiment, ExperimentRun
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.cli.app import app
from scythe.define.code import Code
from scythe.engines.inline import InlineEngine
from scythe.errors import AllocationError, ReadError, RunDamaged, RunError, VersionError
from scythe.gather import merge
from scythe.record.lease import Lease
from scythe.record.manifest import read_manifest
from scythe.record.results import RunResult
from scythe.registry import ExperimentRegistry
from scythe.reuse import answers, copied, identity
from scythe.runs.pack import pack
from scythe.runs.rebuild import rebuild
from scythe.utils.filesys import FileReference, OptionalFileReference
from tests.web_server import web_server

CALLS: list[float] = []


class Outside(set[float]):
    """What breaks for reasons outside of the code, as a server that is away: it is no value that tells code apart."""

    def __reduce_ex__(self, _protocol: Any) -> Any:
        raise TypeError("it is of this process alone")


BROKEN = Outside()


class Wall(ExperimentInputSpec):
    r_value: float
    coats: int = 1


class Loss(ExperimentOutputSpec):
    loss: float
    report: FileReference


def lose(spec: Wall, tempdir: Path) -> Loss:
    if spec.r_value in BROKEN:
        raise ValueError(f"{spec.r_value} breaks")
    CALLS.append(spec.r_value)
    report = tempdir / "report.txt"
    report.write_text(f"{spec.r_value} times {spec.coats}")
    hours = pl.DataFrame({"hour": [0, 1], "watts": [spec.r_value, float(len(CALLS))]})
    return Loss(loss=spec.r_value * spec.coats, report=report, dataframes={"hourly": hours})


@pytest.fixture(autouse=True)
def fresh() -> None:
    CALLS.clear()
    BROKEN.clear()


@pytest.fixture
def walls(root: Path) -> BaseExperiment:
    ExperimentRegistry.Register(retries=0)(lose)
    return BaseExperiment(lose)


def grown(
    walls: BaseExperiment, values: list[float], *, reuse: bool = True, **more: Any
) -> tuple[ExperimentRun, RunResult]:
    """A run, and what it came to, whatever fails in it."""
    CALLS.clear()
    try:
        run, ref = walls.allocate(pl.DataFrame({"r_value": values}), reuse=reuse, engine="inline", **more)
        return run, ref.result()
    except ValueError:
        run = walls.latest_run()
        assert run is not None
        while (result := run.result) is None:
            try:
                run.resume(engine="inline", max_errors=None)
            except ValueError:
                continue
        return run, result


def test_a_grown_run_is_complete_and_runs_what_is_new_alone(
    walls: BaseExperiment, capsys: pytest.CaptureFixture[str]
) -> None:
    first, _ = grown(walls, [1.0, 2.0, 3.0], reuse=False)
    hours = scythe.read(lose, table="hourly")
    run, result = grown(walls, [9.0, 3.0, 1.0, 8.0, 2.0])
    assert CALLS == [9.0, 8.0]
    assert "3 of 5 inputs are there already (v1.0.0), 2 to run" in capsys.readouterr().err
    assert (run.version, result.rows, result.errors) == ("v1.0.0", 5, 0)
    rows = scythe.read(lose)
    assert rows["loss"].to_list() == [9.0, 3.0, 1.0, 8.0, 2.0]
    assert rows["sort_index"].to_list() == [0, 1, 2, 3, 4]
    assert set(rows["experiment_id"]) == {run.experiment_id}
    assert set(rows["root_workflow_run_id"]) == {run.workflow_run_id}
    assert rows["workflow_run_id"].n_unique() == 5
    assert scythe.read(lose, table="tasks")["reused_from"].to_list() == [None, *2 * [first.experiment_id], None, first.experiment_id]  # fmt: skip
    again = scythe.read(lose, table="hourly")
    assert again["r_value"].to_list() == [9.0, 9.0, 3.0, 3.0, 1.0, 1.0, 8.0, 8.0, 2.0, 2.0]
    known = again.filter(pl.col("r_value") < 4).sort("r_value", "hour")["watts"].to_list()
    assert known == hours.sort("r_value", "hour")["watts"].to_list()
    indexed = [pd.read_parquet(result.uris[table]).index for table in ("scalars", "result_file_refs", "hourly")]
    assert all(list(index.names) == list(rows.columns[:6]) for index in indexed)
    assert [index.get_level_values("r_value").to_list()[-1] for index in indexed] == [2.0, 2.0, 2.0]


def test_the_manifest_tells_who_ran_what_and_whose_files_are_named(walls: BaseExperiment) -> None:
    first, _ = grown(walls, [1.0, 2.0], reuse=False)
    second, _ = grown(walls, [1.0, 3.0])
    third, _ = grown(walls, [1.0, 3.0, 4.0])
    manifest = read_manifest(third.objects, third.key)
    told = {one["run"]: one["inputs"] for one in manifest["reused"]}
    assert told == {first.experiment_id: 1, second.experiment_id: 1}, "who ran an input, not who passed it on"
    assert manifest["owners"] == [first.experiment_id, second.experiment_id]
    assert [scythe.fetch(uri).read_text() for uri in scythe.files(lose)["report"]] == ["1.0 times 1", "3.0 times 1", "4.0 times 1"]  # fmt: skip
    assert len(walls.list_results_files(third)) == 3
    shown = " ".join(CliRunner().invoke(app, ["show", third.experiment_id]).output.split())
    assert f"reused 1 input of {first.experiment_id}, 1 input of {second.experiment_id}" in shown


def test_one_known_row_answers_one_input(walls: BaseExperiment) -> None:
    grown(walls, [1.0, 1.0, 2.0], reuse=False)
    grown(walls, [1.0, 1.0, 1.0, 1.0])
    assert CALLS == [1.0, 1.0], "replicates stay replicates"
    seconds = scythe.read(lose, table="hourly").filter(hour=1)["watts"]
    assert sorted(seconds) == [1.0, 1.0, 2.0, 2.0], "two that were known, each its own, and two that are new"


class Draw(ExperimentInputSpec):
    mean: float


class Drawn(ExperimentOutputSpec):
    value: float


def draw(spec: Draw) -> Drawn:
    return Drawn(value=spec.mean + random.random())


def test_replicates_draw_random_numbers_of_their_own_however_a_run_grows(root: Path) -> None:
    ExperimentRegistry.Register()(draw)
    base = BaseExperiment(draw)

    def ran(means: list[float], **more: Any) -> pl.DataFrame:
        base.allocate(pl.DataFrame({"mean": means}), engine="inline", **more)[1].result()
        return scythe.read(draw)

    ran([0.0] * 3 + [1.0] * 3)
    ran([1.0] * 3, version="keep")
    for rows in (
        ran([1.0] * 8, reuse=True),
        ran([0.0, 1.0] * 12, reuse=True),
        ran([1.0] * 20 + [0.0] * 20, reuse=True),
    ):
        assert rows.filter(mean=1.0)["value"].n_unique() == rows.filter(mean=1.0).height, "no row is another one's copy"
        assert rows.filter(mean=0.0)["value"].n_unique() == rows.filter(mean=0.0).height
    again = ran([1.0] * 20 + [0.0] * 20, reuse=True)
    assert again["value"].to_list() == rows["value"].to_list(), "what is known stays"


def test_another_function_of_the_same_module_answers_nothing(walls: BaseExperiment) -> None:
    grown(walls, [1.0], reuse=False)
    ExperimentRegistry.Register()(lose_more)
    run, _ = BaseExperiment(lose_more, run_name="lose").allocate(
        pl.DataFrame({"r_value": [1.0]}), reuse=True, engine="inline"
    )
    assert scythe.read("lose", run=run)["loss"].to_list() == [100.0]


def lose_more(spec: Wall, tempdir: Path) -> Loss:
    report = tempdir / "report.txt"
    report.write_text("more")
    return Loss(
        loss=100 * spec.r_value, report=report, dataframes={"hourly": pl.DataFrame({"hour": [0], "watts": [0.0]})}
    )


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Inner(BaseModel):
    size: float
    names: list[str] = []


class Anything(ExperimentInputSpec):
    number: float = 0.0
    perhaps: float | None = None
    text: str | None = None
    colour: Colour = Colour.RED
    day: dt.date | None = None
    many: list[float] = Field(default_factory=list[float])
    table: dict[str, float] = Field(default_factory=dict[str, float])
    inner: Inner | None = None


class Counted(ExperimentOutputSpec):
    at: int


COUNTED: list[int] = []


def count(spec: Anything) -> Counted:
    COUNTED.append(spec.sort_index)
    return Counted(at=len(COUNTED))


NUMBERS = st.sampled_from([0.0, -0.0, 1.0, math.nan, math.inf])
SPECS = st.builds(
    dict,
    number=NUMBERS,
    perhaps=st.none() | NUMBERS,
    text=st.sampled_from([None, "", "a"]),
    colour=st.sampled_from(Colour),
    day=st.sampled_from([None, dt.date(2026, 1, 1)]),
    many=st.lists(NUMBERS, max_size=2),
    table=st.dictionaries(st.sampled_from(["x", "y"]), NUMBERS, max_size=2),
    inner=st.none() | st.builds(Inner, size=NUMBERS, names=st.lists(st.sampled_from(["a", "b"]), max_size=2)),
    more=st.none() | st.integers(0, 1),
)


def plain(value: Any) -> Any:
    """A value in a form that equal ones share."""
    match value:
        case float():
            return "nan" if math.isnan(value) else value + 0.0
        case dict():
            return tuple(sorted((key, plain(of)) for key, of in value.items()))
        case list():
            return tuple(map(plain, value))
        case BaseModel():
            return plain(value.model_dump())
        case _:
            return value


def specs_of(drawn: list[dict[str, Any]]) -> list[Anything]:
    """Models; some carry a value beyond their fields, in either order with another."""
    made: list[Anything] = []
    for i, fields in enumerate(drawn):
        beyond = {} if fields["more"] is None else {"a": fields["more"], "b": {"c": 0.0}}
        beyond = dict(reversed(beyond.items())) if i % 2 else beyond
        made.append(Anything(**{k: v for k, v in fields.items() if k != "more"}, **beyond))
    return made


@given(known=st.lists(SPECS, min_size=1, max_size=6), asked=st.lists(SPECS, min_size=1, max_size=6), again=st.data())
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_the_inputs_are_just_those_are_run_that_nobody_knows(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    known: list[dict[str, Any]],
    asked: list[dict[str, Any]],
    again: st.DataObject,
) -> None:
    monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(tmp_path_factory.mktemp("root")))
    ExperimentRegistry.Register()(count)
    asked = asked + again.draw(st.lists(st.sampled_from(known), max_size=4))
    base = BaseExperiment(count)
    base.allocate(specs_of(known), engine="inline")
    COUNTED.clear()
    _, ref = base.allocate(specs_of(asked), reuse=True, engine="inline")
    wanted, there = (Counter(plain(fields) for fields in drawn) for drawn in (asked, known))
    assert len(COUNTED) == (wanted - there).total()
    assert ref.result().rows == len(asked)
    shown = [plain({**spec.model_dump(), **(spec.model_extra or {})}) for spec, _ in scythe.rows(count)]
    ids = {"experiment_id", "sort_index", "workflow_run_id", "root_workflow_run_id"}
    given_ = [plain({**spec.model_dump(), **(spec.model_extra or {})}) for spec in specs_of(asked)]
    assert [[f for f in row if f[0] not in ids] for row in shown] == [[f for f in row if f[0] not in ids] for row in given_]  # fmt: skip


class Site(ExperimentInputSpec):
    weather: FileReference
    more: OptionalFileReference = None


class Read(ExperimentOutputSpec):
    text: str


READ: list[str] = []


def look(spec: Site) -> Read:
    READ.append(Path(str(spec.weather)).name)
    return Read(text=Path(str(spec.weather)).read_text())


def test_files_are_equal_by_content_and_name(root: Path, tmp_path: Path) -> None:
    ExperimentRegistry.Register()(look)
    base = BaseExperiment(look)
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    one, other = tmp_path / "one" / "a.epw", tmp_path / "two" / "a.epw"
    one.write_text("sun")
    other.write_text("sun")
    named = tmp_path / "one" / "b.epw"
    named.write_text("sun")
    base.allocate([Site(weather=one)], engine="inline")
    READ.clear()
    base.allocate([Site(weather=other), Site(weather=named)], reuse=True, engine="inline")
    assert READ == ["b.epw"], "the function may look at the name"
    one.write_text("rain")
    READ.clear()
    base.allocate([Site(weather=one)], reuse=True, engine="inline")
    assert READ == ["a.epw"]
    assert scythe.read(look)["text"].to_list() == ["rain"]


def test_a_file_is_called_as_the_function_sees_it(root: Path, tmp_path: Path) -> None:
    ExperimentRegistry.Register()(look)
    base = BaseExperiment(look)
    for folder, text in (("one", "sun"), ("two", "rain")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.epw").write_text(text)
    files = [tmp_path / "one" / "a.epw", tmp_path / "two" / "a.epw"]
    run, _ = base.allocate([Site(weather=file) for file in files], engine="inline")
    assert READ[-2:] == ["a.epw", "a.epw"], "whatever others there are"
    assert scythe.read(look)["text"].to_list() == ["sun", "rain"]
    READ.clear()
    base.allocate([Site(weather=files[1])], reuse=True, engine="inline")
    run.extend([Site(weather=files[0])], engine="inline")
    assert READ == []


def test_a_remote_file_is_equal_where_its_server_says_so_and_never_where_nothing_was_recorded(root: Path) -> None:
    ExperimentRegistry.Register()(look)
    base = BaseExperiment(look)
    with web_server() as server:
        uri = server.gives("/a.epw", b"sun")
        base.allocate([Site(weather=uri)], engine="inline")
        READ.clear()
        base.allocate([Site(weather=uri)], reuse=True, engine="inline")
        assert READ == []
        for known in base.list_runs():
            record = Path(known.uri.removeprefix("file://")) / "scatter-gather/input/artifacts.pq"
            nobody = pl.read_parquet(record).with_columns(pl.lit(None, pl.Int64).alias("size"))
            nobody.write_parquet(record)
        base.allocate([Site(weather=uri)], reuse=True, engine="inline")
        assert READ == ["a.epw"]


def test_inputs_that_failed_are_run_again_unless_their_errors_are_asked_for(walls: BaseExperiment) -> None:
    BROKEN.add(2.0)
    grown(walls, [1.0, 2.0], reuse=False, max_errors=None)
    _, result = grown(walls, [1.0, 2.0, 3.0], reuse_errors=True)
    assert (CALLS, result.rows, result.errors) == ([3.0], 2, 1)
    assert scythe.read(lose, table="errors")["exception_message"].to_list() == ["2.0 breaks"]
    BROKEN.clear()
    _, result = grown(walls, [1.0, 2.0, 3.0])
    assert (CALLS, result.rows, result.errors) == ([2.0], 3, 0)


def test_a_run_that_was_interrupted_goes_on_in_its_folder(
    walls: BaseExperiment, capsys: pytest.CaptureFixture[str]
) -> None:
    BROKEN.add(3.0)
    with pytest.raises(ValueError, match=r"3\.0 breaks"):
        walls.allocate(pl.DataFrame({"r_value": [1.0, 2.0, 3.0, 4.0]}), reuse=True, engine="inline", chunk=1)
    begun = walls.latest_run()
    assert begun is not None
    assert begun.status == "incomplete"
    run, result = grown(walls, [1.0, 2.0, 3.0, 4.0])
    assert run.experiment_id == begun.experiment_id
    assert "it goes on" in capsys.readouterr().err
    assert (CALLS, result.rows, result.errors) == ([4.0], 3, 1)


def test_of_an_unfinished_run_with_other_inputs_the_new_one_takes_over_what_it_has(walls: BaseExperiment) -> None:
    BROKEN.add(3.0)
    with pytest.raises(ValueError, match=r"3\.0 breaks"):
        walls.allocate(pl.DataFrame({"r_value": [1.0, 2.0, 3.0, 4.0]}), engine="inline", chunk=1)
    BROKEN.clear()
    run, result = grown(walls, [2.0, 1.0, 3.0])
    assert (CALLS, result.rows) == ([3.0], 3)
    assert len(walls.list_runs("v1.0.0")) == 2
    assert scythe.read(lose, run=run)["loss"].to_list() == [2.0, 1.0, 3.0]


def test_a_run_that_ends_while_its_rows_are_taken_over_loses_none(
    walls: BaseExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    BROKEN.add(3.0)
    with pytest.raises(ValueError, match=r"3\.0 breaks"):
        walls.allocate(pl.DataFrame({"r_value": [1.0, 2.0, 3.0]}), engine="inline", chunk=1)
    first = walls.latest_run()
    assert first is not None
    reserve = scythe.allocate.allocation.reserve_folder

    def first_ends(*arguments: Any) -> Any:
        monkeypatch.undo()
        first.resume(engine="inline")
        return reserve(*arguments)

    monkeypatch.setattr(scythe.allocate.allocation, "reserve_folder", first_ends)
    monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(Path(first.objects.root.removeprefix("file://"))))
    _, result = grown(walls, [2.0, 9.0, 1.0])
    assert (CALLS, result.rows) == ([9.0], 3)


def test_rows_of_any_order_and_size_find_their_places(walls: BaseExperiment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copied, "_HELD_BYTES", 2000)
    monkeypatch.setattr(merge, "_LEAST_SHARE", 0.0)  # whole files are joined by their bytes, however small
    grown(walls, [float(i) for i in range(200)], reuse=False)
    values = [float(i * 37 % 220) for i in range(220)]
    _, result = grown(walls, values)
    assert sorted(CALLS) == [float(i) for i in range(200, 220)]
    assert result.rows == 220
    assert scythe.read(lose)["loss"].to_list() == values
    assert scythe.read(lose, table="hourly")["r_value"].to_list() == [v for v in values for _ in range(2)]
    assert pd.read_parquet(result.uris["scalars"]).index.get_level_values("r_value").to_list() == values
    _, result = grown(walls, values)  # in the same order: no two files have rows of one range
    assert scythe.read(lose)["loss"].to_list() == values
    assert pd.read_parquet(result.uris["scalars"]).index.get_level_values("r_value").to_list() == values


def test_numbers_that_tell_nothing_apart_answer_nothing_wrongly(
    walls: BaseExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "_mix", lambda *_: None)
    grown(walls, [1.0, 2.0, 3.0], reuse=False)
    grown(walls, [3.0, 2.0, 9.0])
    assert CALLS == [3.0, 9.0], "the second is found by chance, and equal; no other is"
    assert scythe.read(lose)["loss"].to_list() == [3.0, 2.0, 9.0]


def test_a_run_that_other_code_has_begun_does_not_go_on(walls: BaseExperiment, monkeypatch: pytest.MonkeyPatch) -> None:
    BROKEN.add(2.0)
    with pytest.raises(ValueError, match=r"2\.0 breaks"):
        walls.allocate(pl.DataFrame({"r_value": [1.0, 2.0, 3.0]}), engine="inline", chunk=1)
    monkeypatch.setattr(InlineEngine, "read_code", lambda *_: Code("f" * 64))
    with pytest.raises(AllocationError, match="1 of the inputs are known from other code"):
        grown(walls, [1.0, 2.0, 3.0])
    assert len(walls.list_runs()) == 1


def test_a_run_that_is_deleted_while_it_is_copied_is_missed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ExperimentRegistry.Register()(count)
    base = BaseExperiment(count)
    first, _ = base.allocate([Anything(number=1.0)], engine="inline")
    sweep = scythe.allocate.allocation.sweep

    def deleted_meanwhile(*arguments: Any) -> None:
        sweep(*arguments)
        first.delete()

    monkeypatch.setattr(scythe.allocate.allocation, "sweep", deleted_meanwhile)
    with pytest.raises(RunError, match="was deleted while its rows were reused"):
        base.allocate([Anything(number=1.0), Anything(number=2.0)], reuse=True, engine="inline")
    assert base.list_runs() == []


def test_damaged_inputs_are_named_where_each_input_is_read_once(walls: BaseExperiment) -> None:
    run, _ = grown(walls, [1.0], reuse=False)
    specs = Path(run.uri.removeprefix("file://"), "specs.pq")
    specs.write_bytes(b"none")
    with pytest.raises(RunDamaged, match=r"specs\.pq is (gone|damaged)"):
        scythe.read(lose, run="all", distinct=True)
    with pytest.raises(RunDamaged, match=r"specs\.pq is (gone|damaged)"):
        run.extend(pl.DataFrame({"r_value": [2.0]}), engine="inline")


def test_an_input_keeps_its_own_number(walls: BaseExperiment) -> None:
    grown(walls, [1.0, 2.0], reuse=False)
    specs = pl.DataFrame({"r_value": [2.0, 5.0, 1.0], "sort_index": [70, 50, 60]})
    walls.allocate(specs, reuse=True, engine="inline", overwrite_sort_index=False)
    rows = scythe.read(lose).select("sort_index", "loss").rows()
    assert rows == [(50, 5.0), (60, 1.0), (70, 2.0)]


def test_what_makes_no_sense_beside_reuse_is_refused(walls: BaseExperiment) -> None:
    specs = pl.DataFrame({"r_value": [1.0]})
    for step in ("bumpmajor", "bumpminor", "bumppatch", "auto"):
        with pytest.raises(AllocationError, match=f"version='{step}' makes a new version"):
            walls.allocate(specs, step, reuse=True, engine="inline")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    for name in ("any_code", "reuse_errors"):
        with pytest.raises(AllocationError, match=f"{name}=True tells what reuse=True takes over"):
            walls.allocate(specs, engine="inline", **{name: True})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    run, _ = walls.allocate(specs, reuse=True, engine="inline")
    assert run.version == "v1.0.0", "where there is no version yet, it is the first"
    walls.allocate(specs, "v1.0.0", reuse=True, engine="inline")
    assert CALLS == [1.0]


def test_another_seed_asks_for_other_numbers(walls: BaseExperiment) -> None:
    grown(walls, [1.0], reuse=False)
    grown(walls, [1.0], seed=1)
    assert CALLS == [1.0]


def test_a_run_is_not_deleted_before_those_that_name_its_files(walls: BaseExperiment) -> None:
    first, _ = grown(walls, [1.0, 2.0], reuse=False)
    second, _ = grown(walls, [1.0, 3.0])
    third, _ = grown(walls, [3.0, 4.0])
    with pytest.raises(RunError, match=second.experiment_id):
        first.delete()
    assert first.status == "finished"
    with pytest.raises(RunError, match=f"{second.experiment_id} names output files"):
        pack(first.objects, first.key, ["report"], delete=True)
    pack(first.objects, first.key, ["report"])
    told = CliRunner().invoke(app, ["delete", first.experiment_id, "--with", "--yes"])
    assert told.exit_code == 0, told.output
    assert [run.status for run in (first, second, third)] == ["deleted"] * 3, "the third has rows of the second"


def test_runs_that_are_deleted_together_are_all_there_still_where_one_is_worked_on(walls: BaseExperiment) -> None:
    first, _ = grown(walls, [1.0], reuse=False)
    second, _ = grown(walls, [1.0, 2.0])
    third, _ = grown(walls, [1.0, 2.0, 3.0])
    lease = Lease(second.objects, second.key, "inline")
    try:
        with pytest.raises(RunError, match=rf"the run {second.experiment_id} is being worked on"):
            first.delete(dependants=True)
    finally:
        lease.end()
    assert [run.status for run in (first, second, third)] == ["finished"] * 3


def test_keeping_the_latest_runs_keeps_those_whose_files_they_name(walls: BaseExperiment) -> None:
    first, _ = grown(walls, [1.0], reuse=False)
    unneeded, _ = grown(walls, [7.0], reuse=False, version="keep")
    last, _ = grown(walls, [1.0, 2.0])
    told = CliRunner().invoke(app, ["delete", "lose", "--keep", "1", "--yes"])
    assert told.exit_code == 0, told.output
    assert f"{first.experiment_id} has output files that {last.experiment_id} names" in " ".join(told.output.split())
    assert [run.status for run in (first, unneeded, last)] == ["finished", "deleted", "finished"]
    both = CliRunner().invoke(app, ["delete", "lose", "--keep", "0", "--with", "--yes"])
    assert both.exit_code == 2
    shown = CliRunner().invoke(app, ["delete", first.experiment_id, "--with"], input="n\n")
    assert last.experiment_id in shown.output, "what would go is named before"
    everything = CliRunner().invoke(app, ["delete", "lose", "--keep", "0", "--yes"])
    assert everything.exit_code == 0, everything.output
    assert walls.list_runs() == []


def test_a_run_whose_rows_name_no_file_can_be_deleted(root: Path) -> None:
    ExperimentRegistry.Register()(count)
    base = BaseExperiment(count)
    first, _ = base.allocate([Anything(number=1.0)], engine="inline")
    base.allocate([Anything(number=1.0), Anything(number=2.0)], reuse=True, engine="inline")
    first.delete()
    COUNTED.clear()
    base.allocate([Anything(number=i) for i in (1.0, 2.0, 3.0)], reuse=True, engine="inline")
    assert len(COUNTED) == 1, "its rows, and the code that made them, are in the second"


def test_a_run_that_is_deleted_while_its_rows_are_taken_over_is_missed(
    walls: BaseExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = grown(walls, [1.0, 2.0], reuse=False)
    folder = scythe.allocate.allocation.sweep

    def deleted_meanwhile(*arguments: Any) -> None:
        folder(*arguments)
        first.objects.write(first.key.tombstone, b"{}")

    monkeypatch.setattr(scythe.allocate.allocation, "sweep", deleted_meanwhile)
    with pytest.raises(RunError, match="was deleted while its rows were reused"):
        grown(walls, [1.0, 3.0])
    assert len(walls.list_runs()) == 1, "nothing is left of the allocation"


def test_a_tombstone_that_a_killed_deletion_has_left_is_taken_back_where_the_run_must_stay(
    walls: BaseExperiment,
) -> None:
    """An upload brings a run that names output files of one whose deletion was killed."""
    first, _ = grown(walls, [1.0, 2.0], reuse=False)
    grown(walls, [1.0, 3.0])
    first.objects.write(first.key.tombstone, b"{}")

    with pytest.raises(RunError, match=f"deletion was killed, call it again first: `scythe delete {first.key.path}`"):
        grown(walls, [1.0, 4.0])
    with pytest.raises(RunError, match="has reused rows of it"):
        first.delete()
    run, _ = grown(walls, [1.0, 4.0])

    assert run.status == "finished"


def named_files_are_there() -> None:
    for run in scythe.list_runs("lose")["run"]:
        for uri in scythe.files("lose", run=run)["report"]:
            assert scythe.fetch(uri).exists()


def test_a_run_whose_files_are_packed_and_go_while_its_rows_are_taken_over_is_missed(
    walls: BaseExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = grown(walls, [1.0, 2.0], reuse=False)
    copied = answers.copy_rows

    def and_packed(*given: Any) -> Any:
        part = copied(*given)
        pack(first.objects, first.key, ["report"], delete=True)
        return part

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(answers, "copy_rows", and_packed)
        with pytest.raises(RunError, match="was packed while its rows were reused: allocate again"):
            grown(walls, [1.0, 2.0, 3.0])
    named_files_are_there()
    grown(walls, [1.0, 2.0, 3.0])
    named_files_are_there()


def test_files_of_which_rows_are_taken_over_while_they_are_packed_do_not_go(
    walls: BaseExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = grown(walls, [1.0, 2.0], reuse=False)
    packing = sys.modules[pack.__module__]
    record = packing.record
    monkeypatch.setattr(packing, "record", lambda *given: (grown(walls, [1.0, 2.0, 3.0]), record(*given)))
    with pytest.raises(
        RunError, match=r"names output files of .*, having reused rows of it: it is packed, and the files"
    ):
        pack(first.objects, first.key, ["report"], delete=True)
    named_files_are_there()


def test_a_download_brings_the_files_of_others(walls: BaseExperiment, tmp_path: Path, monkeypatch: Any) -> None:
    grown(walls, [1.0, 2.0], reuse=False, pack=True)
    grown(walls, [2.0, 3.0])
    run, _ = grown(walls, [1.0, 2.0, 3.0, 4.0])
    got = scythe.download(lose, tmp_path / "here", run=run)
    assert scythe.download(lose, tmp_path / "here", run=run).files == 0
    assert got.files > 4
    monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(tmp_path / "here"))
    assert [scythe.fetch(uri).read_text()[:3] for uri in scythe.files(lose)["report"]] == ["1.0", "2.0", "3.0", "4.0"]
    assert all(str(tmp_path / "here") in uri for uri in scythe.files(lose)["report"])
    assert [name for (name,) in scythe.list_runs(lose).select("run").rows()] == [run.key.folder]


def test_what_an_unfinished_run_has_reused_is_downloaded_too(
    walls: BaseExperiment, tmp_path: Path, monkeypatch: Any
) -> None:
    grown(walls, [1.0, 2.0], reuse=False)
    BROKEN.add(3.0)
    with pytest.raises(ValueError, match=r"3\.0 breaks"):
        walls.allocate(pl.DataFrame({"r_value": [1.0, 2.0, 3.0, 4.0]}), reuse=True, engine="inline", chunk=1)
    run = walls.latest_run()
    assert run is not None
    scythe.download(lose, tmp_path / "here", run=run)
    monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(tmp_path / "here"))
    there = scythe.open_run("lose", run=run.key.folder)
    assert scythe.read(lose, run=there)["loss"].to_list() == [1.0, 2.0]
    BROKEN.clear()
    CALLS.clear()
    assert there.retry_errors(engine="inline").result().rows == 4
    assert CALLS == [3.0, 4.0]


def test_a_damaged_run_answers_nothing(walls: BaseExperiment) -> None:
    first, _ = grown(walls, [1.0, 2.0], reuse=False)
    second, result = grown(walls, [3.0], reuse=False, version="keep")
    Path(first.uri.removeprefix("file://"), "specs.pq").write_bytes(b"none")
    grown(walls, [1.0, 3.0, 4.0])
    assert CALLS == [1.0, 4.0]
    for run in walls.list_runs():
        if run.experiment_id not in (first.experiment_id, second.experiment_id):
            run.delete()
    table = result.tables["scalars"].key
    Path(second.objects.root.removeprefix("file://"), table).write_bytes(b"none")
    _, result = grown(walls, [3.0, 5.0])
    assert (CALLS, result.rows) == ([3.0, 5.0], 2)


def test_growing_works_in_a_bucket_and_between_engines(bucket: str, walls: BaseExperiment) -> None:
    grown(walls, [1.0, 2.0], reuse=False)
    specs = pl.DataFrame({"r_value": [1.0, 2.0, 3.0]})
    _, ref = walls.allocate(specs, reuse=True, engine="local", workers=1)
    assert ref.result().rows == 3
    assert scythe.read(lose, table="tasks")["reused_from"].null_count() == 1
    assert [scythe.fetch(uri).read_text()[:3] for uri in scythe.files(lose)["report"]] == ["1.0", "2.0", "3.0"]


def test_a_catalog_that_is_made_anew_shows_grown_runs(walls: BaseExperiment, root: Path) -> None:
    import shutil

    first, _ = grown(walls, [1.0, 2.0], reuse=False)
    run, _ = grown(walls, [1.0, 2.0, 3.0], key="mine")
    shutil.rmtree(root / "_catalog")
    rebuild(run.objects)
    assert scythe.read(lose)["loss"].to_list() == [1.0, 2.0, 3.0]
    with pytest.raises(RunError, match="cannot be deleted"):
        first.delete()
    again, _ = grown(walls, [1.0, 2.0, 3.0], key="mine")
    assert again.experiment_id == run.experiment_id
    grown(walls, [1.0, 2.0, 3.0, 4.0])
    assert CALLS == [4.0]


# --- code -------------------------------------------------------------------------------------------

SCRIPT = """
import json, sys
import polars as pl
import scythe
from factor import FACTOR
from scythe import BaseExperiment, ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry


class In(ExperimentInputSpec):
    x: float


class Out(ExperimentOutputSpec):
    y: float


@ExperimentRegistry.Register()
def scale(spec: In) -> Out:
    return Out(y=FACTOR * spec.x)


if __name__ == "__main__":
    more = json.loads(sys.argv[1])
    run, ref = BaseExperiment(scale).allocate(pl.DataFrame({"x": [1.0, 2.0]}), engine="inline", **more)
    print(scythe.read(scale)["y"].to_list())
"""


def test_rows_of_other_code_are_refused_with_both_commits_unless_they_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "scale.py").write_text(SCRIPT)

    def run(factor: int, **more: Any) -> subprocess.CompletedProcess[str]:
        (tmp_path / "factor.py").write_text(f"FACTOR = {factor}\n")
        who = ["git", "-c", "user.name=me", "-c", "user.email=me@example.org"]
        for words in (["init", "-q"], ["add", "."], ["commit", "-q", "--allow-empty", "-m", "one"]):
            subprocess.run([*who, *words], cwd=tmp_path, check=True, capture_output=True)
        env = {**os.environ, "SCYTHE_STORAGE_ROOT": str(tmp_path / "root")}
        command = [sys.executable, "scale.py", json.dumps(more)]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)

    def commit() -> str:
        words = ["git", "rev-parse", "HEAD"]
        return subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True).stdout[:12]

    assert run(2).stdout.strip() == "[2.0, 4.0]"
    one = commit()
    assert run(2, reuse=True).stdout.strip() == "[2.0, 4.0]", "another commit with the same code is the same code"
    refused = run(3, reuse=True)
    assert "2 of the inputs are known from other code" in refused.stderr
    assert one in refused.stderr
    assert commit() in refused.stderr
    assert "; they differ in factor.py. If what they come to is the same" in refused.stderr
    assert run(3, reuse=True, any_code=True).stdout.strip() == "[2.0, 4.0]"
    assert run(3, version="keep").stdout.strip() == "[3.0, 6.0]"
    assert run(3, reuse=True).stdout.strip() == "[3.0, 6.0]", "rows of this code come first"
    (tmp_path / "scale.py").write_text(SCRIPT + "# what allocates it, say\n")
    assert "; they differ in scale.py (all of a script counts: in a module of its own" in run(3, reuse=True).stderr


def test_rows_of_code_that_nobody_recorded_are_refused(walls: BaseExperiment) -> None:
    run, _ = grown(walls, [1.0], reuse=False)
    run.objects.delete([run.key.provenance(0)])
    with pytest.raises(AllocationError, match=r"1 of the inputs are known, but the code that ran them .* is not"):
        grown(walls, [1.0, 2.0])
    grown(walls, [1.0, 2.0], any_code=True)
    assert CALLS == [2.0]


def test_what_cannot_answer_is_told_by_name(walls: BaseExperiment, capsys: pytest.CaptureFixture[str]) -> None:
    run, _ = grown(walls, [1.0, 2.0], reuse=False)
    run.objects.write(run.key.provenance(0), b"{")
    grown(walls, [1.0])
    assert CALLS == [1.0]
    told = capsys.readouterr().err
    assert f"{run.experiment_id} is passed over, and what it has is run again: " in told
    assert "provenance/000000.json" in told


def test_an_unfinished_run_that_packs_is_told_to_be_passed_over(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    @ExperimentRegistry.Register(name="filed", pack=True, retries=0)
    def filed(spec: Wall, tempdir: Path) -> Loss:
        (tempdir / "report.txt").write_text("x")
        if spec.r_value == 3 and not Path("on").exists():
            raise KeyboardInterrupt
        return Loss(loss=1.0, report=tempdir / "report.txt")

    specs = pl.DataFrame({"r_value": [1.0, 2.0, 3.0]})
    with pytest.raises(KeyboardInterrupt):
        BaseExperiment(filed).allocate(specs, engine="inline", chunk=1)
    Path("on").touch()
    BaseExperiment(filed).allocate(specs.head(2), reuse=True, engine="inline")
    assert (
        "is passed over, and what it has is run again: it packs its output files, and is not finished: resume it first"
        in capsys.readouterr().err
    )


def test_a_run_whose_deletion_was_begun_answers_no_input(walls: BaseExperiment) -> None:
    run, _ = grown(walls, [1.0], reuse=False)
    run.objects.write(run.key.tombstone, b"{}")  # as if who deletes it had been killed then
    for values, calls in (([1.0, 2.0], [1.0, 2.0]), ([1.0, 2.0, 3.0], [3.0])):
        CALLS.clear()
        grown(walls, values)
        assert calls == CALLS


def test_models_that_have_changed_are_told_by_their_version(walls: BaseExperiment) -> None:
    grown(walls, [1.0], reuse=False)

    ExperimentRegistry.Register()(other)
    thick, specs = BaseExperiment(other, run_name="lose"), pl.DataFrame({"r_value": [1.0]})
    for version in (None, "keep", "v1.0.0", "v1.0.1"):
        with pytest.raises(VersionError, match=r'(?s)thickness.*name the new version, version="v1\.1\.0"'):
            thick.allocate(specs, version, reuse=True, engine="inline")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    for _ in range(2):  # as it says
        run, ref = thick.allocate(specs, "v1.1.0", reuse=True, engine="inline")
        assert ref.result(timeout=60).rows == 1
    assert (run.version, CALLS) == ("v1.1.0", [1.0, 1.0])

    ExperimentRegistry.Register()(lose)
    with pytest.raises(
        VersionError, match=r'this is that of v1\.0\.0: with reuse=True name it, version="v1\.0\.0"'
    ) as told:
        BaseExperiment(lose).allocate(specs, reuse=True, engine="inline")
    assert str(pickle.loads(pickle.dumps(told.value))) == str(told.value)
    BaseExperiment(lose).allocate(specs, "v1.0.0", reuse=True, engine="inline")
    with pytest.raises(VersionError) as plain:
        BaseExperiment(lose).allocate(specs, "v1.1.0", engine="inline")
    assert str(pickle.loads(pickle.dumps(plain.value))) == str(plain.value)


class Thick(Wall):
    thickness: float = 1.0


def other(spec: Thick, tempdir: Path) -> Loss:
    return lose(spec, tempdir)


# --- distinct, extend -------------------------------------------------------------------------------


def test_each_input_of_many_runs_is_read_once_by_its_newest_row(walls: BaseExperiment) -> None:
    grown(walls, [1.0, 2.0, 2.0], reuse=False)
    grown(walls, [2.0, 3.0], reuse=False, version="keep")
    run, _ = grown(walls, [1.0, 4.0])
    rows = scythe.read(lose, run="all", distinct=True)
    assert sorted(rows["loss"]) == [1.0, 2.0, 3.0, 4.0]
    assert rows.filter(pl.col("loss") == 1.0)["experiment_id"].to_list() == [run.experiment_id]
    assert sorted(scythe.read(lose, run="all", distinct=True, columns=["loss"])["loss"]) == [1.0, 2.0, 3.0, 4.0]
    assert scythe.scan(lose, run="all", table="hourly", distinct=True).collect().height == 8
    for more in ({}, {"run": "all", "version": "all"}):
        with pytest.raises(ReadError, match="distinct=True gives each input of a version once"):
            scythe.read(lose, distinct=True, **more)  # type: ignore[arg-type]


class Shaken(ExperimentOutputSpec):
    shakes: int


def test_what_the_newest_row_of_an_input_has_not_is_read_of_no_earlier_one(root: Path) -> None:
    told = [3]

    def shake(spec: Wall) -> Shaken:
        for _ in range(told[0]):
            print("shaken")
        events = pl.DataFrame({"event": range(told[0])}, schema={"event": pl.Int64})
        return Shaken(shakes=told[0], dataframes={"events": events})

    ExperimentRegistry.Register()(shake)
    for told[0] in (3, 0, 2, 0):
        specs = [Wall(r_value=1.0)] + [Wall(r_value=2.0)] * (told[0] == 2)
        BaseExperiment(shake).allocate(specs, "keep", engine="local", workers=1)[1].result()
    assert scythe.read("shake", run="all", distinct=True)["shakes"].sort().to_list() == [0, 2]
    for table in ("events", "logs"):
        rows = scythe.read("shake", run="all", table=table, distinct=True)
        assert rows["sort_index"].unique().to_list() == [1], table  # of the only run that has two inputs


def test_an_input_that_has_a_row_by_now_is_no_error_any_more(walls: BaseExperiment) -> None:
    BROKEN.update({2.0, 3.0})
    grown(walls, [1.0, 2.0, 3.0], reuse=False, max_errors=None)
    BROKEN.remove(2.0)
    grown(walls, [2.0, 3.0], max_errors=None)
    errors = scythe.read(lose, run="all", table="errors", distinct=True)
    assert errors["r_value"].to_list() == [3.0]


class Span(ExperimentInputSpec):
    length: dt.timedelta
    since: AwareDatetime
    several: list[dt.timedelta] = Field(default_factory=list[dt.timedelta])


class Days(ExperimentOutputSpec):
    days: float


def span(spec: Span) -> Days:
    CALLS.append(spec.length.days)
    return Days(days=spec.length / dt.timedelta(days=1))


def test_inputs_of_any_type_are_extended(root: Path) -> None:
    ExperimentRegistry.Register()(span)
    moment = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    specs = [Span(length=dt.timedelta(days=i), since=moment, several=[dt.timedelta(hours=i)]) for i in range(3)]
    run, _ = BaseExperiment(span).allocate(specs[:2], engine="inline")
    larger, _ = run.extend(specs[1:], engine="inline")
    assert CALLS == [0, 1, 2]
    assert [spec.several for spec, _ in scythe.rows(span)] == [spec.several for spec in specs]
    assert larger.inputs == 3


def test_a_run_is_extended_by_what_it_has_not(walls: BaseExperiment, tmp_path: Path) -> None:
    run, _ = grown(walls, [1.0, 2.0], reuse=False, version="v2.1.0")
    CALLS.clear()
    larger, ref = run.extend(pl.DataFrame({"r_value": [2.0, 3.0, 3.0]}), engine="inline", note="more")
    assert CALLS == [3.0, 3.0]
    assert (ref.result().rows, larger.version, larger.note) == (4, "v2.1.0", "more")
    assert scythe.read(lose)["loss"].to_list() == [1.0, 2.0, 3.0, 3.0]
    assert run.inputs == 2
    same, _ = larger.extend(pl.DataFrame({"r_value": [1.0]}), engine="inline")
    assert (same.inputs, CALLS) == (4, [3.0, 3.0])


def test_a_run_with_files_and_values_beyond_its_fields_is_extended(root: Path, tmp_path: Path) -> None:
    ExperimentRegistry.Register()(look)
    one, other = tmp_path / "a.epw", tmp_path / "b.epw"
    one.write_text("sun")
    other.write_text("rain")
    run, _ = BaseExperiment(look).allocate([Site(weather=one, lucky=7)], engine="inline")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    READ.clear()
    larger, _ = run.extend([Site(weather=other)], engine="inline")
    assert READ == ["b.epw"]
    run.delete()
    assert scythe.read(look, run=larger)["text"].to_list() == ["sun", "rain"]
