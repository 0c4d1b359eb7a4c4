"""Runs that are carried between roots: only what is asked for comes, once; what arrives is a root; nothing is replaced unseen."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from pydantic import Field, NaiveDatetime
from typer.testing import CliRunner

import scythe
from scythe.allocate import BaseExperiment, ExperimentRun
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.cli import app
from scythe.errors import NotFoundError, ReadError, RunDamaged, RunError, StorageError, TransferError
from scythe.record.lease import Lease
from scythe.registry import ExperimentRegistry
from scythe.runs.garbage import collect
from scythe.runs.pack import pack
from scythe.settings import storage
from scythe.transfer import copied, received
from scythe.transfer.sheets import write_sheets
from scythe.transfer.verbs import Downloaded
from scythe.utils.filesys import FileReference
from scythe_catalog.storage.folder import Folder
from scythe_catalog.storage.objects import Objects
from tests.fault_proxy import FaultProxy, fault_proxy
from tests.lifecycle.dying import Dead, dying
from tests.s3_server import S3Server

TABLES = ("scalars", "errors", "tasks", "hourly", "result_file_refs")
VALUES = (1.0, 2.0, 3.0, 4.0, 5.0)


class Wall(ExperimentInputSpec):
    r_value: float
    weather: FileReference


class Energy(ExperimentOutputSpec):
    heating: float
    report: FileReference
    picture: FileReference


def simulate(spec: Wall, tempdir: Path) -> Energy:
    if spec.r_value == 4.0 and not Path("mended").exists():
        raise ValueError("no wall is like that")
    for name in ("report", "picture"):
        (tempdir / f"{name}.txt").write_text(f"{name} of {spec.r_value} in {Path(str(spec.weather)).read_text()}")
    frame = pl.DataFrame({"hour": [0, 1], "kwh": [spec.r_value, 1.0]})
    return Energy(
        heating=8 / spec.r_value, report=tempdir / "report.txt", picture=tempdir / "picture.txt", dataframes={"hourly": frame}
    )  # fmt: skip


def simulated(values: tuple[float, ...] = VALUES, **options: Any) -> ExperimentRun:
    """A run to its end, inline; a wall of 4.0 fails."""
    ExperimentRegistry.Register(name="sim", retries=0)(simulate)
    for value in values:
        Path(f"{value}.epw").write_text(f"weather {value}")
    specs = pl.DataFrame({"r_value": values, "weather": [f"{value}.epw" for value in values]})
    try:
        return BaseExperiment(experiment="sim").allocate(specs, engine="inline", chunk=1, **options)[0]
    except ValueError:
        run = scythe.open_run("sim")
    while run.status != "finished":
        try:
            run.resume(engine="inline")
        except ValueError:
            continue
    return run


def stopping(at: float | None, failing: tuple[float, ...] = ()) -> None:
    """From now on `sim` is interrupted at a wall of this value, as by Ctrl-C, and fails at others."""

    def simulate(spec: Wall, tempdir: Path) -> Energy:
        if spec.r_value == at:
            raise KeyboardInterrupt
        if spec.r_value in failing:
            raise ValueError("no wall is like that")
        for name in ("report", "picture"):
            (tempdir / f"{name}.txt").write_text(f"{name} of {spec.r_value}")
        return Energy(heating=8 / spec.r_value, report=tempdir / "report.txt", picture=tempdir / "picture.txt")

    ExperimentRegistry.Register(name="sim", retries=0)(simulate)


def interrupted(at: float | None, failing: tuple[float, ...] = ()) -> ExperimentRun:
    """A run that was interrupted at a wall of this value, or where some have failed has come to its end."""
    Path("w.epw").write_text("w")
    specs = pl.DataFrame({"r_value": VALUES, "weather": ["w.epw"] * len(VALUES)})
    stopping(at, failing)
    with contextlib.suppress(KeyboardInterrupt, ValueError):
        BaseExperiment(experiment="sim").allocate(specs, engine="inline", chunk=1)
    run = scythe.open_run("sim")
    while at is None and run.status != "finished":
        with contextlib.suppress(ValueError):
            run.resume(engine="inline")
    return run


def go_on(run: ExperimentRun, at: float) -> None:
    """Goes on with a run until it is interrupted at a wall of this value."""
    stopping(at)
    with pytest.raises(KeyboardInterrupt):
        run.resume(engine="inline").result()
    stopping(None)


def done(run: ExperimentRun) -> list[float]:
    """The walls that an unfinished run of the root of the settings has rows of."""
    return scythe.read("sim", run=run.key.folder)["r_value"].to_list()


def everything(**of: Any) -> dict[str, pl.DataFrame]:
    return {table: scythe.read("sim", table=table, **of) for table in TABLES}


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a folder the root of the settings."""

    def become(folder: Path) -> None:
        monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(folder))
        monkeypatch.delenv("SCYTHE_STORAGE_BUCKET", raising=False)

    return become


@pytest.fixture
def seen(bucket: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A proxy that counts requests to the bucket, which is the root and has a run of all values."""
    simulated()
    with fault_proxy(s3.port, lambda method, target: None) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


def got(proxy: FaultProxy) -> list[str]:
    """The objects that were read since the last call, those of lists left out."""
    found = [target.split("?")[0] for method, target, *_ in proxy.seen if method == "GET" and "list-type" not in target]
    proxy.seen.clear()
    return found


def names(folder: Path, below: str) -> list[str]:
    return sorted(path.name for path in folder.glob(f"sim/*/*/{below}/*"))


# --- what comes --------------------------------------------------------------------------------------


def test_only_the_files_of_the_rows_and_fields_that_are_asked_for_are_fetched_from_a_bucket_and_never_twice(
    seen: FaultProxy, tmp_path: Path
) -> None:
    run, here = scythe.open_run("sim"), tmp_path / "here"
    found = scythe.download("sim", here, files=["report"], where="r_value < 3")
    files = [target for target in got(seen) if "/results/" in target or "/artifacts/" in target]
    assert len(files) == len(set(files)) == 2
    assert all("/results/report/" in target for target in files)
    assert [p.read_text() for p in sorted(here.rglob("results/report/*"))] == [
        "report of 1.0 in weather 1.0",
        "report of 2.0 in weather 2.0",
    ]
    again = scythe.download("sim", here, files=["report"], where=pl.col("r_value") < 3)
    assert got(seen) == []
    assert (again.files, again.present) == (0, found.files)
    assert found.runs == (run.experiment_id,)


def test_a_second_call_for_more_fetches_the_rest_and_all_references_follow(
    seen: FaultProxy, tmp_path: Path, at: Any
) -> None:
    before, here = everything(), tmp_path / "here"
    scythe.download("sim", here, files=False)
    assert not list(here.rglob("results/*/*"))
    got(seen)
    scythe.download("sim", here)
    fetched = got(seen)
    assert len(fetched) == len(VALUES) + 2 * 4
    assert not [target for target in fetched if "/results/" not in target and "/artifacts/" not in target]
    bucket = storage().root
    at(here)
    after = everything()
    for table in TABLES:
        moved = before[table].with_columns(pl.col(pl.String).str.replace(bucket, f"file://{here}", literal=True))
        assert_frame_equal(after[table], moved)
    assert scythe.fetch(scythe.files("sim")["report"][0]).read_text() == "report of 1.0 in weather 1.0"


def test_a_dry_run_says_how_much_it_would_be_and_leaves_nothing_behind(root: Path, tmp_path: Path) -> None:
    simulated()
    here = tmp_path / "here"
    would = scythe.download("sim", here, where="r_value > 2", dry_run=True)
    assert not here.exists()
    assert scythe.download("sim", here, where="r_value > 2") == would
    assert scythe.download("sim", here, where="r_value > 2", dry_run=True).files == 0
    with pytest.raises(NotFoundError, match=r"'reports' \(did you mean 'report'\?\)"):
        scythe.download("sim", here, files=["reports"], dry_run=True)


def test_what_is_not_there_is_named_before_anything_is_written(root: Path, tmp_path: Path) -> None:
    simulated()
    here = tmp_path / "here"
    with pytest.raises(
        NotFoundError, match=r"'reports' \(did you mean 'report'\?\); there is weather, report, picture"
    ):
        scythe.download("sim", here, files=["reports"])
    with pytest.raises(NotFoundError, match="has no table 'scalar'"):
        scythe.download("sim", here, tables=["scalar"])
    with pytest.raises(NotFoundError, match=r"'r_vale' \(did you mean 'r_value'\?\)"):
        scythe.download("sim", here, where="r_vale < 3")
    with pytest.raises(ReadError, match="files='report' is one name"):
        scythe.download("sim", here, files="report")  # type: ignore[arg-type]
    with pytest.raises(TransferError, match="is the root itself"):
        scythe.download("sim", root)
    for empty in ("", " "):
        with pytest.raises(TransferError, match="an empty text is no folder to download to"):
            scythe.download("sim", empty)
        with pytest.raises(TransferError, match="an empty text is no folder to upload"):
            scythe.upload(empty)
    for args in (
        ["sim", "s3://b/p"],
        ["sim", "s3://b/p", "--csv", "scalars"],
        ["sim", ""],
        ["sim", "", "--csv", "scalars"],
    ):
        asked = CliRunner().invoke(app, ["download", *args])
        assert isinstance(asked.exception, TransferError), args
        assert "is no folder" in str(asked.exception)
    assert isinstance(CliRunner().invoke(app, ["upload", "s3://b/p"]).exception, TransferError)
    assert not Path("s3:").exists()
    assert scythe.list_experiments()["name"].to_list() == ["sim"]
    assert not list(here.glob("sim"))


# --- what arrives is a root ---------------------------------------------------------------------------


def test_what_arrives_is_a_root_that_is_listed_rebuilt_mended_and_reported(root: Path, tmp_path: Path, at: Any) -> None:
    simulated()
    here = tmp_path / "here"
    scythe.download("sim", here, files=["weather", "picture"], where="r_value < 2")
    at(here)
    references = scythe.files("sim").select("report", "picture")
    assert references["report"].str.starts_with(f"file://{root}/").all()
    assert references["picture"].str.starts_with(f"file://{here}/").to_list() == [True, False, False, False]
    before = everything()
    app(["rebuild"], standalone_mode=False)
    assert {name: frame.rows() for name, frame in everything().items()} == {n: f.rows() for n, f in before.items()}
    assert scythe.list_runs("sim")["status"].to_list() == ["finished"]
    assert scythe.read("sim", "all")["r_value"].to_list() == [1.0, 2.0, 3.0, 5.0]
    assert scythe.report("sim", to=tmp_path / "report.html").stat().st_size > 1000
    Path("mended").touch()
    result = scythe.open_run("sim").retry_errors(engine="inline").result()
    assert (result.rows, result.errors) == (5, 0)
    assert scythe.read("sim")["r_value"].to_list() == list(VALUES)
    at(root)
    assert scythe.read("sim", table="errors").height == 1


def test_what_was_worked_on_here_is_not_replaced(root: Path, tmp_path: Path, at: Any) -> None:
    run = simulated()
    here = tmp_path / "here"
    scythe.download("sim", here, files=False)
    Path("mended").touch()
    at(here)
    scythe.open_run("sim").retry_errors(engine="inline").result()
    at(root)
    scythe.download("sim", here, files=["picture"])
    at(here)
    assert scythe.files("sim")["picture"].str.starts_with(f"file://{here}/").all()
    assert scythe.read("sim", table="errors").height == 0
    at(root)
    run.retry_errors(engine="inline").result()
    with pytest.raises(TransferError, match="was worked on in"):
        scythe.download("sim", here, files=False)


def test_attempts_of_both_places_on_a_run_that_is_not_finished_are_told_apart_whatever_their_number(
    root: Path, tmp_path: Path, at: Any
) -> None:
    run, here = interrupted(2.0), tmp_path / "here"
    scythe.download("sim", here, run=run)
    go_on(run, 3.0)
    scythe.download("sim", here, run=run)  # nobody has worked on it here
    at(here)
    assert done(run) == [1.0, 2.0]
    go_on(scythe.open_run("sim"), 5.0)
    assert done(run) == [1.0, 2.0, 3.0, 4.0]
    at(root)
    go_on(run, 4.0)  # as many attempts as here
    before = files_below(here)
    with pytest.raises(TransferError, match="was worked on in"):
        scythe.download("sim", here, run=run)
    assert files_below(here) == before
    at(here)
    assert done(run) == [1.0, 2.0, 3.0, 4.0]
    assert scythe.open_run("sim").resume(engine="inline").result().rows == 5


def test_what_a_retry_that_came_to_no_end_has_done_here_is_not_replaced(root: Path, tmp_path: Path, at: Any) -> None:
    run, here = interrupted(None, failing=(2.0, 3.0)), tmp_path / "here"
    scythe.download("sim", here)
    kept = list[str]()
    for place in (root, here):
        at(place)
        stopping(3.0)
        with pytest.raises(KeyboardInterrupt):
            scythe.open_run("sim").retry_errors(engine="inline").result()
        kept = names(place, "scatter-gather/output/parts")
    at(root)
    with pytest.raises(TransferError, match="was worked on in"):
        scythe.download("sim", here)
    assert [name for name in names(here, "scatter-gather/output/parts") if name in kept] == kept != []
    assert run.status == "finished"


def test_a_run_that_has_gone_on_at_its_source_is_fetched_anew_as_far_as_it_changed(
    root: Path, tmp_path: Path, at: Any
) -> None:
    run = simulated()
    here = tmp_path / "here"
    scythe.download("sim", here)
    Path("mended").touch()
    run.retry_errors(engine="inline").result()
    scythe.download("sim", here)
    at(here)
    assert scythe.read("sim")["r_value"].to_list() == list(VALUES)
    assert names(here, "results/report") == names(root, "results/report")
    assert len(names(here, "results/report")) == len(VALUES)


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Downloads a run into a folder, and is killed when a change of the folder of this kind concerns this key."""

    def download(run: ExperimentRun, here: Path, change: str, key: str) -> None:
        before = getattr(Folder, change)

        def changed(self: Folder, first: Any, *rest: Any) -> Any:
            if first == key:
                raise Dead
            return before(self, first, *rest)

        with monkeypatch.context() as patch:
            patch.setattr(Folder, change, changed)
            with pytest.raises(Dead):
                scythe.download("sim", here, run=run)

    return download


def test_a_run_that_has_gone_on_at_its_source_comes_whole_after_a_kill_among_its_records(
    root: Path, tmp_path: Path, at: Any, killed: Any
) -> None:
    run, here = simulated(), tmp_path / "here"
    scythe.download("sim", here)
    Path("mended").touch()
    run.retry_errors(engine="inline").result()
    killed(run, here, "write", run.key.result)
    scythe.download("sim", here)
    at(here)
    assert scythe.read("sim")["r_value"].to_list() == list(VALUES)


def test_nobody_goes_on_with_a_run_whose_download_was_cut_short_until_it_is_called_again(
    root: Path, tmp_path: Path, at: Any, killed: Any
) -> None:
    run, here = simulated(), tmp_path / "here"
    killed(run, here, "delete", [run.key.tombstone])
    Path("mended").touch()
    at(here)
    there = scythe.open_run("sim")
    before = files_below(here)
    for go_on_with in (
        partial(there.retry_errors, engine="inline"),
        partial(there.resume, engine="inline"),
        partial(pack, storage(), run.key, ["report"]),
    ):
        with pytest.raises(RunError, match=r"is not wholly here: its download to .* was cut short\. .* call it again"):
            go_on_with()
    assert files_below(here) == before
    at(root)
    scythe.download("sim", here)
    at(here)
    assert there.retry_errors(engine="inline").result().rows == len(VALUES)


def test_nobody_goes_on_with_a_run_of_which_only_some_parts_have_come(
    root: Path, tmp_path: Path, at: Any, killed: Any
) -> None:
    run, here = interrupted(2.0), tmp_path / "here"
    scythe.download("sim", here, run=run)
    go_on(run, 4.0)
    killed(run, here, "write", run.key.plan)
    at(here)
    with pytest.raises(RunError, match="is not wholly here"):
        scythe.open_run("sim").resume(engine="inline")
    at(root)
    scythe.download("sim", here, run=run)
    at(here)
    assert done(run) == [1.0, 2.0, 3.0]
    assert scythe.open_run("sim").resume(engine="inline").result().rows == len(VALUES)


def test_work_on_a_run_whose_download_was_cut_short_is_not_replaced_by_the_next_one(
    root: Path, tmp_path: Path, at: Any, killed: Any
) -> None:
    run, here = simulated(), tmp_path / "here"
    killed(run, here, "delete", [run.key.tombstone])
    at(here)
    with Lease(storage(), run.key, "inline"):  # as an earlier Scythe lets one
        pass
    at(root)
    Path("mended").touch()
    run.retry_errors(engine="inline").result()
    with pytest.raises(TransferError, match="was worked on in"):
        scythe.download("sim", here)


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Downloads a run into a folder while something else happens there: once its records are here, and once all of it is."""

    def download(here: Path, what: Callable[[], object]) -> Downloaded:
        bring = received.bring

        def beside(*arguments: Any) -> None:
            bring(*arguments)
            what()

        with monkeypatch.context() as patch:
            patch.setattr(received, "bring", beside)
            return scythe.download("sim", here)

    return download


def test_a_deletion_that_was_killed_here_takes_nothing_of_what_is_downloaded_again(
    root: Path, tmp_path: Path, at: Any, monkeypatch: pytest.MonkeyPatch, beside: Any
) -> None:
    run, here = simulated(), tmp_path / "here"
    scythe.download("sim", here)
    at(here)

    def dead(*_: object) -> None:
        raise Dead

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "delete_folder", dead)
        with pytest.raises(Dead):
            scythe.open_run("sim").delete()
    at(root)
    assert beside(here, lambda: collect(Objects.at(here))).files > 4
    at(here)
    assert [Path(uri.removeprefix("file://")).is_file() for uri in scythe.files("sim")["report"]] == [True] * 4
    assert everything()["scalars"]["r_value"].to_list() == [1.0, 2.0, 3.0, 5.0]
    assert scythe.list_runs("sim")["run"].to_list() == [run.key.folder]


def test_what_is_removed_here_while_it_arrives_is_told_and_comes_with_the_next_call(
    root: Path, tmp_path: Path, at: Any, beside: Any
) -> None:
    simulated()
    here = tmp_path / "here"

    def remove() -> None:
        for path in here.rglob("results/report/*"):
            path.unlink()

    with pytest.raises(TransferError, match=r"results/report/.* \(and 3 more\) was removed while .* Do the same again"):
        beside(here, remove)
    assert scythe.download("sim", here).files == 4
    at(here)
    assert [Path(uri.removeprefix("file://")).is_file() for uri in scythe.files("sim")["report"]] == [True] * 4


def test_a_manifest_that_was_lost_here_comes_back_with_the_next_call(root: Path, tmp_path: Path, at: Any) -> None:
    run, here = simulated(), tmp_path / "here"
    scythe.download("sim", here)
    (here / run.key.manifest).unlink()
    scythe.download("sim", here)
    at(here)
    assert scythe.read("sim")["r_value"].to_list() == [1.0, 2.0, 3.0, 5.0]


def test_a_table_that_was_left_out_is_no_damage_and_says_where_it_is(root: Path, tmp_path: Path, at: Any) -> None:
    simulated()
    here = tmp_path / "here"
    scythe.download("sim", here, tables=["scalars"], files=False)
    at(here)
    run = scythe.open_run("sim")
    assert (run.status, run.problem) == ("finished", None)
    assert scythe.read("sim").height == 4
    with pytest.raises(
        NotFoundError, match=r"'hourly' of .* was left out when the run was downloaded; it lies at file://"
    ):
        scythe.read("sim", table="hourly")
    for asked in (scythe.Frame("hourly", ["kwh"]), scythe.File("report")):
        with pytest.raises(NotFoundError, match="was left out when the run was downloaded; it lies at file://"):
            scythe.dataset("sim", x=["r_value"], y=asked)
    with pytest.raises(RunError, match="was downloaded without"):
        run.retry_errors(engine="inline")
    app(["rebuild"], standalone_mode=False)
    at(root)
    more = scythe.download("sim", here, tables=["hourly"], files=False)
    at(here)
    assert more.files == 1
    assert (scythe.read("sim").height, scythe.read("sim", table="hourly").height) == (4, 8)


@pytest.mark.parametrize("files", ["all", ["report"]])
def test_files_come_with_the_table_that_names_them(root: Path, tmp_path: Path, at: Any, files: Any) -> None:
    simulated()
    here = tmp_path / "here"
    scythe.download("sim", here, tables=["scalars"], files=files)
    at(here)
    assert [Path(uri.removeprefix("file://")).parents[5] for uri in scythe.files("sim")["report"]] == [here] * 4
    with pytest.raises(NotFoundError, match=r"'hourly' of .* was left out when the run was downloaded"):
        scythe.read("sim", table="hourly")


def test_a_run_that_is_not_finished_is_resumed_where_it_arrived(root: Path, tmp_path: Path, at: Any) -> None:
    ExperimentRegistry.Register(name="sim", retries=0)(simulate)
    Path("w.epw").write_text("w")
    specs = pl.DataFrame({"r_value": VALUES, "weather": ["w.epw"] * len(VALUES)})
    with pytest.raises(ValueError, match="no wall"):
        BaseExperiment(experiment="sim").allocate(specs, engine="inline", chunk=1)
    with pytest.raises(NotFoundError, match="has no finished run"):
        scythe.download("sim", tmp_path / "here")
    run = scythe.open_run("sim")
    here = tmp_path / "here"
    scythe.download("sim", here, run=run)
    at(here)
    there = scythe.open_run("sim")
    assert there.status == "incomplete"
    assert scythe.read("sim", run=there)["r_value"].to_list() == [1.0, 2.0, 3.0]
    result = there.resume(engine="inline").result()
    assert (result.rows, result.errors) == (4, 1)
    assert run.status == "incomplete"


def begun() -> ExperimentRun:
    """A run that each of its attempts, inline, brings one row further; seven inputs, of which three fail."""
    ExperimentRegistry.Register(name="sim", retries=0)(simulate)
    Path("w.epw").write_text("w")
    values = (1.0, 4.0, 2.0, 4.0, 3.0, 4.0, 5.0)
    specs = pl.DataFrame({"r_value": values, "weather": ["w.epw"] * len(values)})
    with pytest.raises(ValueError, match="no wall"):
        BaseExperiment(experiment="sim").allocate(specs, engine="inline", chunk=1)
    return scythe.open_run("sim")


def further() -> None:
    with pytest.raises(ValueError, match="no wall"):
        scythe.open_run("sim").resume(engine="inline")


def test_a_run_that_is_not_finished_and_was_gone_on_with_in_both_places_is_replaced_in_none(
    root: Path, tmp_path: Path, at: Any
) -> None:
    run, here = begun(), tmp_path / "here"
    scythe.download("sim", here, run=run)
    further()
    assert scythe.download("sim", here, run=run).files > 0  # nobody has worked on it there
    at(here)
    further()
    before = scythe.read("sim", run=run.key.folder)
    assert before["r_value"].to_list() == [1.0, 2.0, 3.0]
    at(root)
    further()
    with pytest.raises(TransferError, match=f"was worked on in file://{here} since it was downloaded"):
        scythe.download("sim", here, run=run)
    with pytest.raises(TransferError, match="is there with another content: nothing was sent"):
        scythe.upload(here)
    at(here)
    assert_frame_equal(scythe.read("sim", run=run.key.folder), before)


@pytest.mark.parametrize("is_finished", [True, False])
def test_a_run_whose_download_was_cut_short_is_not_gone_on_with_until_all_of_it_is_there(
    root: Path, tmp_path: Path, at: Any, monkeypatch: pytest.MonkeyPatch, is_finished: bool
) -> None:
    from scythe.transfer import received

    run, here = simulated() if is_finished else begun(), tmp_path / "here"
    with monkeypatch.context() as patch:
        patch.setattr(received, "take_in", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            scythe.download("sim", here, run=run)
    at(here)
    Path("mended").touch()
    with pytest.raises(RunError, match="goes on, or was cut short"):
        scythe.open_run("sim").retry_errors(engine="inline")
    at(root)
    scythe.download("sim", here, run=run)
    at(here)
    assert scythe.open_run("sim").retry_errors(engine="inline").result().rows == run.inputs
    at(root)
    if is_finished:
        pack(storage(), run.key, ["report"])
    else:
        run.resume(engine="inline").result()
    with pytest.raises(TransferError, match="was worked on in"):
        scythe.download("sim", here, run=run)


def test_all_runs_of_all_versions_come_at_once(root: Path, tmp_path: Path, at: Any) -> None:
    simulated((1.0, 2.0))
    simulated((3.0,), version="bumpminor")
    here = tmp_path / "here"
    assert len(scythe.download("sim", here, "all", run="all").runs) == 2
    at(here)
    assert sorted(scythe.read("sim", "all", run="all")["r_value"]) == [1.0, 2.0, 3.0]


# --- what goes wrong ----------------------------------------------------------------------------------

_KILLED = """
import os, sys, signal
import scythe
from scythe.transfer.copied import _Copy
before, count = _Copy._part, [0]
def part(self, *arguments):
    count[0] += 1
    if count[0] > int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return before(self, *arguments)
_Copy._part = part
scythe.download("sim", sys.argv[1])
"""


def test_a_killed_download_repeats_no_more_than_what_was_under_way(seen: FaultProxy, tmp_path: Path, at: Any) -> None:
    here = tmp_path / "here"
    after = 20
    done = subprocess.run([sys.executable, "-c", _KILLED, str(here), str(after)], check=False, env=dict(os.environ))
    assert done.returncode == -signal.SIGKILL
    assert not list(here.rglob("sim/*/*/manifest.yml")), "half a run is none"
    with pytest.MonkeyPatch.context() as there:
        there.setenv("SCYTHE_STORAGE_ROOT", str(here))
        there.delenv("SCYTHE_STORAGE_BUCKET")
        assert scythe.list_runs("sim")["status"].to_list() == ["damaged"]
        for ask in (scythe.read, scythe.files):
            with pytest.raises(
                RunDamaged, match="is not here yet: its download goes on, or was cut short; call it again"
            ):
                ask("sim")
    first = {target for target in got(seen) if "/results/" in target or "/artifacts/" in target}
    scythe.download("sim", here)
    second = {target for target in got(seen) if "/results/" in target or "/artifacts/" in target}
    assert len(first | second) == len(VALUES) + 2 * 4
    assert len(first & second) <= copied._SMALL_AT_ONCE
    assert not list(here.rglob("*.part"))
    at(here)
    assert scythe.read("sim").height == 4


def test_a_large_file_comes_in_parts_and_goes_on_behind_what_there_is_of_it(
    seen: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, first = tmp_path / "here", "r_value < 2"
    scythe.download("sim", here, files=False)
    seen.seen.clear()
    monkeypatch.setattr(copied, "PART_BYTES", 8)
    monkeypatch.setattr(copied, "_PARTS_AT_ONCE", 1)  # which parts come before the network fails is certain
    seen.rule = lambda method, target: "cut before" if method == "GET" and "results/report" in target and len([t for _, t, *_ in seen.seen if "results/report" in t and "list-type" not in t]) > 2 else None  # fmt: skip
    monkeypatch.setattr("scythe_catalog.storage.s3_errors.PATIENCE_SECONDS", 0.0)
    with pytest.raises(TransferError):
        scythe.download("sim", here, files=["report"], where=first)
    (part,) = here.rglob("*.part")
    begun = part.stat().st_size
    assert 0 < begun < len("report of 1.0 in weather 1.0")
    seen.heal()
    seen.seen.clear()
    scythe.download("sim", here, files=["report"], where=first)
    ranges = [
        headers["range"] for _, target, headers, _ in seen.seen if "results/report" in target and "range" in headers
    ]
    assert min(int(text.removeprefix("bytes=").split("-")[0]) for text in ranges) == begun
    assert next(here.rglob("results/report/*")).read_text() == "report of 1.0 in weather 1.0"


def test_a_source_that_changes_meanwhile_or_has_lost_a_file_is_an_error_that_names_it(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulated()
    file = next(root.rglob("results/report/*"))
    whole = file.read_text()
    before = copied._Copy._part

    def changed(self: Any, what: Any, start: int, stop: int) -> bytes:
        if what.key.endswith(file.name) and "report" in what.key:
            file.write_text(whole[:-1] if how == "cut short" else "x" * len(whole))
        return before(self, what, start, stop)

    monkeypatch.setattr(copied._Copy, "_part", changed)
    for how in ("cut short", "changed"):
        with pytest.raises(TransferError, match=f"{file.name}"):
            scythe.download("sim", tmp_path / how)
    monkeypatch.setattr(copied._Copy, "_part", before)
    file.unlink()
    with pytest.raises(TransferError, match=f"{file.name} is not there"):
        scythe.download("sim", tmp_path / "lost")


def test_a_file_of_a_bucket_that_was_replaced_since_it_was_listed_is_an_error(
    seen: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, *_ = storage().keys(f"{scythe.open_run('sim').key.path}/results/report")
    before = copied._Copy._part

    def replaced(self: Any, what: Any, start: int, stop: int) -> bytes:
        if what.key == key:
            storage().write(key, b"x" * what.size)
        return before(self, what, start, stop)

    monkeypatch.setattr(copied._Copy, "_part", replaced)
    with pytest.raises(TransferError, match="was replaced while it was read"):
        scythe.download("sim", tmp_path / "here")


def test_a_line_of_what_has_arrived_that_a_full_disk_cut_short_spoils_none_behind_it(
    root: Path, tmp_path: Path
) -> None:
    simulated()
    here = tmp_path / "here"
    scythe.download("sim", here, files=False)
    (lines,) = here.rglob("arrived.tsv")
    with lines.open("ab") as file:
        file.write(b"sim/v1.0.0/a\t12")

    scythe.download("sim", here)
    scythe.download("sim", here)

    assert all(line.count(b"\t") == 3 for line in lines.read_bytes().splitlines())


def test_a_folder_that_cannot_be_written_is_an_error_that_names_it_and_the_download_goes_on_later(
    root: Path, tmp_path: Path
) -> None:
    run = simulated()
    here = tmp_path / "here"
    note = here / "_catalog" / "sim" / "_downloads" / f"{run.version}~{run.key.folder}" / "ended.new"
    note.parent.mkdir(parents=True)
    note.symlink_to("/dev/full")
    with pytest.raises(
        StorageError,
        match=rf"{run.experiment_id} cannot be downloaded to .*: No space left on device .*do the same again",
    ):
        scythe.download("sim", here)
    note.unlink()
    assert scythe.download("sim", here).present > 0
    in_the_way = tmp_path / "there" / "_catalog"
    in_the_way.parent.mkdir()
    in_the_way.touch()
    with pytest.raises(StorageError, match=rf"cannot be downloaded to .*there: .* \({in_the_way}"):
        scythe.download("sim", in_the_way.parent)


def test_a_result_that_is_damaged_at_its_source_is_named(root: Path, tmp_path: Path) -> None:
    simulated()
    result = next(root.rglob("result.json"))
    result.write_text(result.read_text().replace('"inputs"', '"outputs"'))
    with pytest.raises(RunDamaged, match=r"result\.json is incomplete \(inputs: Field required\)"):
        scythe.download("sim", tmp_path / "here")


def test_an_input_file_that_is_not_what_it_was_at_allocation_is_told(root: Path, tmp_path: Path) -> None:
    simulated()
    file = next(root.rglob("artifacts/weather/1.0.epw"))
    file.write_text("weather 9.9")
    with pytest.raises(TransferError, match=r"1\.0\.epw is not what it was when its run was allocated: its sha256"):
        scythe.download("sim", tmp_path / "here")


def test_a_file_that_was_changed_here_is_fetched_again(root: Path, tmp_path: Path) -> None:
    simulated()
    here = tmp_path / "here"
    scythe.download("sim", here)
    next(here.rglob("results/report/*")).write_text("mine")
    assert scythe.download("sim", here).files == 1


# --- the other way ------------------------------------------------------------------------------------


def test_what_was_downloaded_is_uploaded_elsewhere_skipped_where_it_is_and_refused_where_it_is_another(
    root: Path, tmp_path: Path, at: Any
) -> None:
    simulated()
    before, here, there = everything(), tmp_path / "here", tmp_path / "there"
    scythe.download("sim", here)
    assert scythe.upload(here).runs == ()  # to where it came from
    at(there)
    sent = scythe.upload(here)
    assert len(sent.runs) == 1
    after = everything()
    for table in TABLES:
        moved = before[table].with_columns(
            pl.col(pl.String).str.replace(f"file://{root}", f"file://{there}", literal=True)
        )
        assert_frame_equal(after[table], moved)
    again = scythe.upload(here)
    assert (again.runs, again.skipped, again.files) == ((), sent.runs, 0)
    Path("mended").touch()
    at(here)
    scythe.open_run("sim").retry_errors(engine="inline").result()
    at(there)
    with pytest.raises(TransferError, match="is there with another content: nothing was sent"):
        scythe.upload(here)
    assert scythe.read("sim", table="errors").height == 1


@pytest.mark.parametrize("packed", [False, True], ids=["by itself", "packed"])
def test_an_upload_of_more_than_there_is_is_refused_and_of_less_skipped(
    root: Path, tmp_path: Path, at: Any, packed: bool
) -> None:
    run = simulated(pack=packed)
    part, whole, there = (tmp_path / name for name in ("part", "whole", "there"))
    scythe.download("sim", part, tables=["scalars", "result_file_refs"], files=["report"], where="r_value < 2.5")
    scythe.download("sim", whole)
    assert scythe.upload(part).skipped == (run.experiment_id,)  # to where it came from, which has all
    at(there)
    scythe.upload(part)
    assert scythe.upload(part).files == 0
    with pytest.raises(
        TransferError,
        match=r"is there without the tables .*'hourly'.* and [0-9]+ files of what is here: nothing was sent",
    ):
        scythe.upload(whole)
    at(tmp_path / "other")
    scythe.upload(whole)
    assert scythe.upload(part).skipped == (run.experiment_id,)
    at(part)  # a download, too: what is there of the run is compared, and not taken for half an upload
    with pytest.raises(TransferError, match="is there without the tables"):
        scythe.upload(whole)
    at(tmp_path / "other")
    lost = next(path for path in (tmp_path / "other").rglob("results/*/*"))
    lost.unlink()
    with pytest.raises(TransferError, match=r"is there without [0-9]+ files? of what is here"):
        scythe.upload(whole)


@pytest.mark.parametrize("packed", [False, True], ids=["by itself", "packed"])
def test_a_download_of_a_run_that_reused_rows_goes_back_to_where_all_of_it_is(
    root: Path, tmp_path: Path, at: Any, packed: bool
) -> None:
    simulated((1.0, 2.0), pack=packed)
    Path("3.0.epw").write_text("weather 3.0")
    values = (1.0, 2.0, 3.0)
    specs = pl.DataFrame({"r_value": values, "weather": [f"{value}.epw" for value in values]})
    BaseExperiment(experiment="sim").allocate(specs, engine="inline", reuse=True)[1].result()
    scythe.download("sim", tmp_path / "copy")
    assert len(scythe.upload(tmp_path / "copy").skipped) == 1
    at(tmp_path / "copy")
    assert [scythe.fetch(uri).read_text()[:13] for uri in scythe.files("sim")["report"]] == [
        f"report of {value}" for value in values
    ]


def test_an_upload_that_goes_on_after_more_has_come_shows_all_of_it(
    root: Path, tmp_path: Path, at: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scythe.transfer import sent

    simulated()
    here, there = tmp_path / "here", tmp_path / "there"
    scythe.download("sim", here, where="r_value < 2.5")
    at(there)
    with monkeypatch.context() as patch:
        patch.setattr(sent, "take_in", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            scythe.upload(here)
    at(root)
    scythe.download("sim", here)
    at(there)
    scythe.upload(here)
    assert all(uri.startswith(f"file://{there}/") for column in ("report", "picture", "weather") for uri in scythe.files("sim")[column])  # fmt: skip


@pytest.mark.parametrize("worked", ["retried", "packed", "at work"])
def test_an_upload_that_goes_on_replaces_nothing_that_has_become_of_the_run_there(
    root: Path, tmp_path: Path, at: Any, worked: str
) -> None:
    simulated()
    there = tmp_path / "there"
    at(there)
    with dying(10**6) as changes:
        scythe.upload(root)
    total = changes()
    for before in range(1, 4):  # it is the last changes that make it a run of the other root
        shutil.rmtree(there)
        with pytest.raises(Dead), dying(total - before):
            scythe.upload(root)
        run = scythe.open_run("sim")
        before_it = scythe.read("sim")
        match worked:
            case "retried":
                Path("mended").touch()
                run.retry_errors(engine="inline").result()
                assert scythe.read("sim").height > before_it.height
            case "packed":
                pack(storage(), run.key, ["report"])
            case _:
                with (
                    Lease(storage(), run.key, "local"),
                    pytest.raises(RunError, match="is being worked on by process"),
                ):
                    scythe.upload(root)
        rows, files = scythe.read("sim"), scythe.files("sim")
        if worked == "retried":
            with pytest.raises(TransferError, match="is there with another content"):
                scythe.upload(root)
            Path("mended").unlink()
        else:
            assert scythe.upload(root).runs == (run.experiment_id,)
            assert scythe.upload(root).skipped == (run.experiment_id,)
        assert_frame_equal(scythe.read("sim"), rows)
        assert_frame_equal(scythe.files("sim"), files)
        assert [scythe.fetch(uri).stat().st_size > 0 for uri in files["report"]] == [True] * files.height


def test_a_run_that_is_not_finished_is_skipped_where_it_is_and_hinders_no_other(
    root: Path, tmp_path: Path, at: Any
) -> None:
    simulated((1.0, 2.0))
    Path("w.epw").write_text("w")
    specs = pl.DataFrame({"r_value": VALUES, "weather": ["w.epw"] * len(VALUES)})
    ExperimentRegistry.Register(name="other", retries=0)(simulate)
    with pytest.raises(ValueError, match="no wall"):
        BaseExperiment(experiment="other").allocate(specs, engine="inline", chunk=1)
    at(tmp_path / "a root whose address is longer")
    sent = scythe.upload(root)
    assert len(sent.runs) == 2
    assert scythe.read("other", run=scythe.open_run("other"))["r_value"].to_list() == [1.0, 2.0, 3.0]
    again = scythe.upload(root)
    assert (again.runs, again.files, sorted(again.skipped)) == ((), 0, sorted(sent.runs))
    part = next((tmp_path / "a root whose address is longer").rglob("output/parts/*.pq"), None)
    assert part is not None
    part.unlink()
    with pytest.raises(TransferError, match=r"is there without [0-9]+ files? of what is here"):
        scythe.upload(root)


def test_an_upload_that_was_cut_short_before_the_run_was_gone_on_with_is_cleared_up_behind_as_the_error_says(
    root: Path, tmp_path: Path, at: Any
) -> None:
    run, there = simulated(), tmp_path / "there"
    at(there)
    with pytest.raises(Dead), dying(2):
        scythe.upload(root)
    at(root)
    Path("mended").touch()
    run.retry_errors(engine="inline").result()
    at(there)
    before = files_below(there)
    with pytest.raises(TransferError, match=r"is taken in .* by an upload of another content") as refused:
        scythe.upload(root)
    assert files_below(there) == before
    command = re.search(r"`scythe (delete .*?)`", str(refused.value))
    assert command is not None
    assert CliRunner().invoke(app, [*command[1].split(), "--yes"]).exit_code == 0
    assert scythe.upload(root).runs == (run.experiment_id,)
    assert scythe.read("sim")["r_value"].to_list() == list(VALUES)


def test_a_name_that_an_allocation_has_taken_is_not_uploaded_to(root: Path, tmp_path: Path, at: Any) -> None:
    run, there = simulated(), tmp_path / "there"
    at(there)
    storage().make()
    storage().create(run.key.reservation, b"{}")
    with pytest.raises(TransferError, match=r"is taken in .* by an allocation: wait for it, or, if it was cut short"):
        scythe.upload(root)


def test_a_run_that_was_gone_on_with_in_both_places_is_not_skipped_for_the_names_of_its_parts(
    root: Path, tmp_path: Path, at: Any
) -> None:
    run, there = interrupted(2.0), tmp_path / "there"
    at(there)
    scythe.upload(root)
    assert scythe.upload(root).skipped == (run.experiment_id,)
    go_on(scythe.open_run("sim"), 4.0)
    at(root)
    go_on(run, 4.0)
    at(there)
    before = files_below(there)
    with pytest.raises(TransferError, match="is there with another content: nothing was sent"):
        scythe.upload(root)
    assert files_below(there) == before


def test_a_run_of_which_a_retry_that_came_to_no_end_has_rows_is_not_skipped_where_those_are_not(
    root: Path, tmp_path: Path, at: Any
) -> None:
    run, there = interrupted(None, failing=(2.0, 3.0)), tmp_path / "there"
    at(there)
    scythe.upload(root)
    at(root)
    stopping(3.0)
    with pytest.raises(KeyboardInterrupt):
        run.retry_errors(engine="inline").result()
    at(there)
    with pytest.raises(TransferError, match="is there with another content: nothing was sent"):
        scythe.upload(root)
    at(tmp_path / "other")
    scythe.upload(root)
    assert scythe.upload(root).skipped == (run.experiment_id,)
    next(path for path in (tmp_path / "other").rglob("output/parts/*.pq")).unlink()
    with pytest.raises(TransferError, match="is there without 1 file of what is here"):
        scythe.upload(root)


def test_an_upload_of_an_unfinished_run_that_goes_on_keeps_what_has_been_done_there(
    root: Path, tmp_path: Path, at: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scythe.transfer import sent

    run, there = interrupted(2.0), tmp_path / "there"
    at(there)
    with monkeypatch.context() as patch:
        patch.setattr(sent, "take_in", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            scythe.upload(root)
    go_on(scythe.open_run("sim"), 4.0)
    finished = scythe.upload(root)
    assert (finished.runs, finished.files) == ((run.experiment_id,), 0)
    assert done(run) == [1.0, 2.0, 3.0]
    at(root)
    go_on(run, 4.0)
    at(there)
    with pytest.raises(TransferError, match="is there with another content"):
        scythe.upload(root)
    assert done(run) == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("packed", [False, True], ids=["by itself", "packed"])
def test_a_run_of_which_a_file_is_gone_or_cut_short_is_not_carried_on(
    root: Path, tmp_path: Path, at: Any, packed: bool
) -> None:
    run = simulated(pack=packed)
    file = next(path for path in sorted(root.rglob("results/*/*")) if path.parent.name in ("report", "_shards"))
    whole = file.read_bytes()
    for content, told in ((whole[:-1], "is cut short"), (b"", "is cut short"), (None, "is not there")):
        if content is None:
            file.unlink()
        else:
            file.write_bytes(content)
        if not packed and content is not None:
            continue  # how long a file by itself was, no table tells
        with pytest.raises(TransferError, match=f"{file.name}.* {told}.*, though {run.experiment_id} names"):
            scythe.download("sim", tmp_path / "down")
        at(tmp_path / "there")
        with pytest.raises(TransferError, match=f"{file.name}.* {told}.*, though {run.experiment_id} names it"):
            scythe.upload(root)
        at(root)
    file.write_bytes(whole)
    if packed:
        file.write_bytes(whole[:5] + b"#" + whole[6:])
        with pytest.raises(
            TransferError, match=r"is not what it was: the file of [0-9]+ bytes from [0-9]+ on is damaged"
        ):
            scythe.download("sim", tmp_path / "down")
        file.write_bytes(whole)
    scythe.download("sim", tmp_path / "down")
    at(tmp_path / "down")
    assert scythe.fetch(scythe.files("sim")["report"][0]).read_text() == "report of 1.0 in weather 1.0"


def test_a_part_of_a_packed_run_is_downloaded_again_from_where_it_came_to(root: Path, tmp_path: Path, at: Any) -> None:
    simulated(pack=True)
    scythe.download("sim", tmp_path / "part", files=["report"])
    at(tmp_path / "part")
    scythe.download("sim", tmp_path / "again")
    at(tmp_path / "again")
    reports, pictures = scythe.files("sim")["report"], scythe.files("sim")["picture"]
    assert all(uri.startswith(f"file://{tmp_path / 'again'}/") for uri in reports)
    assert all(str(root) in uri for uri in pictures)
    assert scythe.fetch(pictures[0]).read_text() == "picture of 1.0 in weather 1.0"


def test_an_upload_to_a_bucket_that_was_cut_short_goes_on_and_is_read_there(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    monkeypatch.delenv("SCYTHE_STORAGE_BUCKET")
    monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(here))
    run = simulated()
    monkeypatch.setenv("SCYTHE_STORAGE_BUCKET", bucket)
    from scythe.transfer import sent

    with monkeypatch.context() as patch:
        patch.setattr(sent, "take_in", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            scythe.upload(here)
    done = scythe.upload(here)
    assert (done.runs, done.files) == ((run.experiment_id,), 0)
    assert scythe.read("sim")["r_value"].to_list() == [1.0, 2.0, 3.0, 5.0]
    assert scythe.fetch(scythe.files("sim")["report"][0]).read_text() == "report of 1.0 in weather 1.0"
    assert scythe.upload(here).skipped == (run.experiment_id,)


def test_a_version_with_other_columns_and_a_name_that_was_deleted_are_refused(
    root: Path, tmp_path: Path, at: Any
) -> None:
    run = simulated((1.0,))
    here = tmp_path / "here"
    scythe.download("sim", here)
    run.delete()
    with pytest.raises(TransferError, match="was deleted"):
        scythe.upload(here)
    record = tmp_path / "there" / "_catalog" / "sim" / "_versions" / "v1.0.0.json"
    record.parent.mkdir(parents=True)
    record.write_text((here / record.relative_to(tmp_path / "there")).read_text().replace('"heating"', '"cooling"'))
    at(tmp_path / "there")
    with pytest.raises(TransferError, match=r"sim v1\.0\.0 has other columns in"):
        scythe.upload(here)


class Cooling(ExperimentOutputSpec):
    cooling: float


def defined(made: Callable[[Wall], ExperimentOutputSpec], of: type[ExperimentOutputSpec]) -> Any:
    """An experiment's function; all have one name, as one that is defined again in another notebook."""

    def simulate(spec: Wall) -> ExperimentOutputSpec:
        return made(spec)

    simulate.__annotations__["return"] = of
    return simulate


def files_below(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def framed(column: str) -> Any:
    def made(spec: Wall) -> ExperimentOutputSpec:
        return ExperimentOutputSpec(dataframes={"hourly": pl.DataFrame({column: [spec.r_value]})})

    return defined(made, ExperimentOutputSpec)


@pytest.mark.parametrize(
    ("other", "told"),
    [(defined(lambda spec: Cooling(cooling=1), Cooling), r"sim v1\.0\.0 has other columns in"), (framed("kwh"), r"the dataframe 'hourly' .* is not what it was in v1\.0\.0")],
    ids=["outputs", "dataframes"],
)  # fmt: skip
def test_runs_of_two_roots_whose_versions_differ_do_not_come_to_one_folder(
    root: Path, tmp_path: Path, at: Any, other: Any, told: str
) -> None:
    Path("one.epw").write_text("weather")
    specs = [{"r_value": 1.0, "weather": "one.epw"}]
    came = ""
    for place, function in ((tmp_path / "theirs", framed("hour")), (tmp_path / "ours", other)):
        at(place)
        ExperimentRegistry.Register(name="sim")(function)
        allocate = partial(BaseExperiment(experiment="sim").allocate, specs, engine="inline")
        runs = [allocate()[0], allocate(version="keep")[0]]
        if place.name == "theirs":
            scythe.download("sim", tmp_path / "here", run=runs[0].key.folder)
            came = runs[0].key.folder
    there = files_below(tmp_path / "here")
    for dry in (True, False):
        with pytest.raises(TransferError, match=f"(?s){told}.*nothing was fetched. Download to another folder"):
            scythe.download("sim", tmp_path / "here", dry_run=dry)
    assert files_below(tmp_path / "here") == there
    at(tmp_path / "here")
    assert scythe.list_runs("sim")["run"].to_list() == [came]


def test_a_dry_run_is_refused_where_the_download_would_be(root: Path, tmp_path: Path, at: Any) -> None:
    simulated((1.0,))
    scythe.download("sim", tmp_path / "here")
    at(tmp_path / "here")
    for dry in (True, False):
        with pytest.raises(TransferError, match="is there, and no download has put it there: name another folder"):
            scythe.download("sim", root, dry_run=dry)


# --- at the prompt ------------------------------------------------------------------------------------


def test_the_commands_do_what_the_verbs_do(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], at: Any
) -> None:
    run = simulated()
    here = tmp_path / "here"
    app(["download", "sim", str(here), "--files", "report", "--where", "r_value < 3"], standalone_mode=False)
    out = capsys.readouterr().out
    assert run.experiment_id in out
    assert "fetched" in out
    assert len(names(here, "results/report")) == 2
    at(tmp_path / "there")
    app(["upload", str(here)], standalone_mode=False)
    assert f"{run.experiment_id} is new in" in capsys.readouterr().out


def test_a_table_is_written_for_people_without_python(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    simulated()
    command = ["download", "sim", str(tmp_path), "--csv", "tasks", "--xlsx", "tasks", "--where", "sort_index < 2"]
    app(command, standalone_mode=False)
    out = capsys.readouterr().out
    assert out.count("times are UTC, without a zone: start") == 2
    (csv,), (book,) = tmp_path.glob("sim-*-tasks.csv"), tmp_path.glob("sim-*-tasks.xlsx")
    frame = pl.read_csv(csv, try_parse_dates=True)
    assert frame.height == 2
    assert frame.schema["start"] == pl.Datetime("us")
    assert "sort_index" not in frame.columns
    assert book.read_bytes()[:2] == b"PK"


def test_a_condition_on_scalars_chooses_the_inputs_of_which_every_table_is_written(root: Path, tmp_path: Path) -> None:
    simulated()

    def written(where: str, *tables: str) -> list[list[Any]]:
        sheets = write_sheets("sim", tmp_path, [(table, "csv") for table in tables], where=where)
        return [pl.read_csv(sheet.path).to_series().to_list() for sheet in sheets]

    (walls, hourly), (attempts,) = written("r_value < 3", "scalars", "hourly"), written("r_value < 3", "tasks")
    assert (walls, hourly, attempts) == ([1.0, 2.0], [1.0, 1.0, 2.0, 2.0], [1, 1])
    # Those that failed have inputs, and no outputs.
    assert written("r_value > 3", "scalars", "errors", "tasks") == [[5.0], [4.0], [1, 1]]
    assert written("heating < 2", "scalars", "errors", "tasks") == [[5.0], [], [1]]
    # What scalars have not is asked of the table itself.
    assert written("hour = 1", "hourly") == [[1.0, 2.0, 3.0, 5.0]]
    assert written("exception_type = 'ValueError'", "errors") == [[4.0]]


def test_tables_for_people_without_python_are_all_written_or_none(root: Path, tmp_path: Path) -> None:
    simulated()
    few, tables = "r_value < 3", [("scalars", "csv"), ("tasks", "xlsx")]
    asked: list[tuple[list[Any], str, str]] = [
        (tables, "r_vlaue < 3", "neither 'tasks' nor 'scalars'|that 'scalars' of .* has not"),
        (tables[1:], "r_value < 3 AND seconds > 0", "'scalars' has not 'seconds', 'tasks' has not 'r_value'"),
        ([*tables, ("dayly", "csv")], few, "has no table 'dayly'"),
        ([*tables, ("hourly", "csv")], "CAST(weather AS INT) > 3", "cannot be asked of"),
    ]
    for wanted, where, words in asked:
        with pytest.raises((NotFoundError, ReadError), match=words):
            write_sheets("sim", tmp_path / "none", wanted, where=where)
    (tmp_path / "taken" / f"{scythe.open_run('sim').experiment_id.replace('/', '-')}-tasks.xlsx").mkdir(parents=True)
    with pytest.raises(TransferError, match="it is a folder"):
        write_sheets("sim", tmp_path / "taken", tables, where=few)
    assert [path for name in ("none", "taken") for path in (tmp_path / name).glob("*") if path.is_file()] == []
    assert [sheet.rows for sheet in write_sheets("sim", tmp_path / "all", [*tables, *tables], where=few)] == [2, 2]


class Nested(ExperimentOutputSpec):
    parts: list[float] = [1.0]  # noqa: RUF012 - pydantic copies it


class Parts(ExperimentInputSpec):
    of: list[int]


def nested(spec: Parts) -> Nested:
    return Nested()


def test_a_table_that_cannot_be_written_leaves_what_was_there_and_says_why(root: Path, tmp_path: Path) -> None:
    simulated()
    ExperimentRegistry.Register(name="nested")(nested)
    BaseExperiment(experiment="nested").allocate([{"of": [1]}], engine="inline")[1].result()
    there = write_sheets("sim", tmp_path, [("scalars", "csv")])[0].path
    before = there.read_bytes()
    for asked in ("weather > 3", "CAST(weather AS INT) > 3", pl.lit(1), pl.col("r_value")):
        for write in (
            lambda asked=asked: write_sheets("sim", tmp_path, [("scalars", "csv")], where=asked),
            lambda asked=asked: write_sheets("sim", tmp_path, [("scalars", "xlsx")], where=asked),
            lambda asked=asked: scythe.download("sim", tmp_path / "down", where=asked),
        ):
            with pytest.raises((ReadError, NotFoundError), match="where= cannot be asked of"):
                write()
    assert there.read_bytes() == before
    with pytest.raises(TransferError, match=r"no column of 'scalars' .* has a cell \(of, parts\)"):
        write_sheets("nested", tmp_path, [("scalars", "csv")])
    with pytest.raises(TransferError, match="cannot be written"):
        write_sheets("sim", there, [("scalars", "csv")])
    for kind in ("csv", "xlsx"):
        path = (tmp_path / "taken" / there.name).with_suffix(f".{kind}")
        path.mkdir(parents=True)
        with pytest.raises(TransferError, match="cannot be written: it is a folder"):
            write_sheets("sim", tmp_path / "taken", [("scalars", kind)])  # type: ignore[arg-type] # pyright: ignore
    assert sorted(path.name for path in (tmp_path / "taken").iterdir()) == sorted(p.name for p in (tmp_path / "taken").glob("sim*"))  # fmt: skip


class Note(ExperimentInputSpec):
    address: str
    text: str = "short"
    number: int = 1
    day: dt.date = dt.date(1900, 1, 1)
    at: NaiveDatetime = dt.datetime(2020, 1, 1)
    share: float = 0.5
    exact: Decimal = Field(Decimal(0), max_digits=20, decimal_places=0)
    lasted: dt.timedelta = dt.timedelta(minutes=90)


class Told(ExperimentOutputSpec):
    length: int


def tell(spec: Note) -> Told:
    told = Told(length=len(spec.text))
    told.dataframes["columns"] = pl.DataFrame({"column": ["a"]})
    return told


def test_a_workbook_holds_every_value_whole_or_none_is_written(root: Path, tmp_path: Path) -> None:
    ExperimentRegistry.Register(name="tell")(tell)

    def book(table: str, **field: Any) -> bytes:
        specs = pl.DataFrame({"address": ["mailto:a@b.org"], **{name: [value] for name, value in field.items()}})
        BaseExperiment(experiment="tell").allocate(specs, version="auto", engine="inline")[1].result()
        path = write_sheets("tell", tmp_path, [(table, "xlsx")])[0].path
        with zipfile.ZipFile(path) as whole:
            return b"".join(whole.read(part) for part in ("xl/sharedStrings.xml", "xl/workbook.xml"))

    assert b">mailto:a@b.org<" in book("scalars")
    assert b'"table columns"' in book("columns")
    assert b"x" * 32_767 in book("scalars", text="x" * 32_767)
    with pytest.raises(TransferError, match=r"the column 'text' of the table 'scalars' .* write it as CSV"):
        book("scalars", text="🏠" * 16_384)
    for number in (2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63)):
        with pytest.raises(TransferError, match="the column 'number'"):
            book("scalars", number=number)
    book("scalars", number=-(2**53))
    with pytest.raises(TransferError, match="the column 'exact'"):
        book("scalars", exact=Decimal(12345678901234567890))
    with pytest.raises(TransferError, match="the column 'at'"):
        book("scalars", at=dt.datetime(1900, 1, 1, 12))
    for share in (1.797e308, -1.797e308):
        with pytest.raises(TransferError, match="the column 'share'"):
            book("scalars", share=share)
    book("scalars", share=9.99e307)
    with pytest.raises(TransferError, match="the column 'day'"):
        book("scalars", day=dt.date(1850, 6, 1))
    csv = pl.read_csv(write_sheets("tell", tmp_path, [("scalars", "csv")])[0].path)
    assert csv.select("day", "lasted").rows() == [("1850-06-01", "PT1H30M")]


def test_microseconds_of_a_duration_are_cut_whatever_its_sign_is(root: Path, tmp_path: Path) -> None:
    ExperimentRegistry.Register(name="tell")(tell)
    micros = {"1": 1, "2": -1, "3": 1_999, "4": -1_999, "5": -2_000}
    specs = pl.DataFrame({"address": [*micros], "lasted": [dt.timedelta(microseconds=us) for us in micros.values()]})
    BaseExperiment(experiment="tell").allocate(specs, engine="inline")[1].result()
    sheet = write_sheets("tell", tmp_path, [("scalars", "xlsx")])[0]
    assert sheet.cut == ("lasted",)
    cells = pl.read_excel(sheet.path, engine="openpyxl")
    found = {
        number: lasted // dt.timedelta(milliseconds=1) for number, lasted in cells.select("address", "lasted").rows()
    }
    assert found == {"1": 0, "2": 0, "3": 1, "4": -1, "5": -2}


@pytest.mark.parametrize("day", [dt.date(1900, 1, 2), dt.date(2026, 2, 28), dt.date(9999, 12, 31)])
def test_the_last_instant_of_a_day_is_of_that_day_in_a_workbook(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], day: dt.date
) -> None:
    ExperimentRegistry.Register(name="tell")(tell)
    specs = pl.DataFrame(
        {"address": ["a", "b"], "at": [dt.datetime.combine(day, dt.time.max), dt.datetime(2020, 1, 1)]}
    )
    BaseExperiment(experiment="tell").allocate(specs, engine="inline")[1].result()
    sheet = write_sheets("tell", tmp_path, [("scalars", "xlsx")])[0]
    assert sheet.cut == ("at",)
    with zipfile.ZipFile(sheet.path) as whole:
        values = re.findall(r'<c r="[A-Z]+2"[^>]*><v>([^<]+)</v>', whole.read("xl/worksheets/sheet1.xml").decode())
    before = (day - dt.date(1899, 12, 31)).days + (day > dt.date(1900, 2, 28))  # Excel's year 1900 has a 29 February
    (found,) = [value for value in map(float, values) if before <= value < before + 1]
    assert (found - before) * 86_400 == pytest.approx(86_399.999, abs=5e-4)
    capsys.readouterr()
    app(["download", "tell", str(tmp_path), "--xlsx", "scalars"], standalone_mode=False)
    assert "cut to milliseconds, which Excel keeps: at" in capsys.readouterr().out
