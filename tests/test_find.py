"""Experiments, versions and runs are found by their names: the one that is meant, or none, in one sentence."""

import contextlib
import datetime as dt
import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import scythe
import scythe.allocate.allocation
import scythe.record.reserve
from scythe.allocate import BaseExperiment, ExperimentRun
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.errors import NotFoundError, ReadError, RunError, ScytheError, VersionError
from scythe.reader import verbs
from scythe.record.find import Reserved
from scythe.record.versions import SemVer, parse_folders
from scythe.registry import ExperimentRegistry
from scythe.runs.rebuild import rebuild
from scythe.settings import storage


class Wall(ExperimentInputSpec):
    r_value: float


class Loss(ExperimentOutputSpec):
    loss: float


def walls(spec: Wall) -> Loss:
    return Loss(loss=1 / spec.r_value)


def allocated(r_value: float = 2.0, version: str = "keep", name: str = "walls") -> ExperimentRun:
    ExperimentRegistry.Register(name="walls")(walls)
    frame = pl.DataFrame({"r_value": [r_value]})
    return BaseExperiment("walls", run_name=name).allocate(frame, version, engine="inline")[0]


@pytest.fixture
def clock(root: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets the clock by which run folders are named, in hours after some morning; it stands still."""
    now = [dt.datetime(2026, 3, 1, 9, tzinfo=dt.UTC)]

    class Clock(dt.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return now[0]

    class Times:
        datetime, UTC, timedelta = Clock, dt.UTC, dt.timedelta

    monkeypatch.setattr(scythe.record.reserve, "dt", Times)

    def at(hours: int) -> None:
        now[0] = dt.datetime(2026, 3, 1, 9 + hours, tzinfo=dt.UTC)

    return at


# --- the order of runs --------------------------------------------------------------------------------


def test_the_latest_run_is_the_one_that_was_allocated_last_whatever_its_clock_said(
    clock: Callable[[int], None],
) -> None:
    clock(5)
    first = allocated(2.0)
    clock(3)
    second = allocated(4.0)

    assert second.run_datetime < first.run_datetime
    assert scythe.open_run("walls").experiment_id == second.experiment_id
    assert scythe.read("walls")["r_value"].to_list() == [4.0]
    assert scythe.read("walls", "all")["r_value"].to_list() == [4.0]
    assert scythe.list_runs("walls").select("run", "number").rows() == [(first.key.folder, 1), (second.key.folder, 2)]
    assert [run.experiment_id for run in BaseExperiment("walls").list_runs()] == [
        first.experiment_id,
        second.experiment_id,
    ]
    assert scythe.read("walls", run="all")["r_value"].to_list() == [4.0, 2.0]  # in the order of their datetimes


def test_the_order_of_runs_survives_the_loss_of_the_catalog(clock: Callable[[int], None], root: Any) -> None:
    clock(5)
    allocated(2.0)
    clock(3)
    second = allocated(4.0)
    shutil.rmtree(root / "_catalog")

    assert rebuild(storage()) == 2
    assert scythe.list_runs("walls")["number"].to_list() == [1, 2]
    assert scythe.open_run("walls").experiment_id == second.experiment_id


def test_runs_of_before_there_were_numbers_come_first_in_the_order_of_their_folders(
    clock: Callable[[int], None],
) -> None:
    runs = []
    for hour in (4, 2, 0):
        clock(hour)
        runs.append(allocated())
    objects = storage()
    for number, run in enumerate(runs[:2], 1):  # as they were left behind by earlier versions
        objects.delete([run.key.numbered(number)])
        objects.write(run.key.reservation, b"")

    assert scythe.list_runs("walls")["number"].to_list() == [None, None, 3]
    assert scythe.list_runs("walls")["run"].to_list() == [runs[1].key.folder, runs[0].key.folder, runs[2].key.folder]
    assert scythe.open_run("walls").experiment_id == runs[2].experiment_id


# --- which run is meant -------------------------------------------------------------------------------


def test_runs_of_two_versions_have_seconds_of_their_own(clock: Callable[[int], None]) -> None:
    one, two = allocated(2.0), allocated(4.0, "bumpminor")

    assert scythe.read("walls", run=one.key.folder)["r_value"].to_list() == [2.0]
    assert scythe.open_run("walls", run=two.run_datetime).version == "v1.1.0"


def test_runs_of_one_second_in_two_versions_are_told_apart_or_refused(
    clock: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = allocated(2.0)
    with monkeypatch.context() as at_once:  # neither sees the other, as where both are allocated at once
        at_once.setattr(scythe.record.reserve, "reserved", lambda *_: Reserved())
        at_once.setattr(scythe.allocate.allocation, "sweep", lambda *_: None)
        two = allocated(4.0, "bumpminor")
    folder = one.key.folder
    assert two.key.folder == folder

    for run, r_value in ((one, 2.0), (two, 4.0)):
        for named in (run, run.experiment_id, f"{run.version}/{folder}", f"/{run.experiment_id}/"):
            assert scythe.read("walls", run=named)["r_value"].to_list() == [r_value]
            assert scythe.read("walls", "all", run=named)["r_value"].to_list() == [r_value]
            assert scythe.open_run("walls", run=named).experiment_id == run.experiment_id
        assert scythe.read("walls", run.version, run=folder)["r_value"].to_list() == [r_value]
    for ask in (
        lambda: scythe.read("walls", run=folder),
        lambda: scythe.read("walls", "all", run=one.run_datetime),
        lambda: scythe.open_run("walls", run=folder),
    ):
        with pytest.raises(NotFoundError, match=r"several versions.*v1\.0\.0, v1\.1\.0"):
            ask()


def test_a_run_of_another_experiment_or_version_is_none_of_this_one(clock: Callable[[int], None]) -> None:
    one, other = allocated(), allocated(name="other walls")

    assert scythe.read("scythe_experiment_walls", run=f"scythe_experiment_{one.experiment_id}").height == 1
    for run in (other, other.experiment_id):
        with pytest.raises(NotFoundError, match="is not a run of 'walls'"):
            scythe.read("walls", run=run)
    with pytest.raises(NotFoundError, match=r"is not a run of walls v1\.1\.0"):
        scythe.read("walls", "v1.1.0", run=one)


def test_the_name_of_a_deleted_run_never_means_another(clock: Callable[[int], None]) -> None:
    first = allocated()
    before = scythe.read("walls", table="tasks")["workflow_run_id"].to_list()
    first.delete()
    second = allocated()

    assert second.version == "v1.0.0"
    assert second.experiment_id != first.experiment_id
    assert not set(before) & set(scythe.read("walls", table="tasks")["workflow_run_id"])
    with pytest.raises(NotFoundError, match="it was deleted"):
        scythe.open_run(first.experiment_id)


def test_a_deleted_run_says_so_and_cancelling_it_leaves_nothing_behind(clock: Callable[[int], None]) -> None:
    run = allocated()
    run.delete()

    assert (run.status, run.result) == ("deleted", None)
    for verb in (run.cancel, run.resume, run.retry_errors, run.delete):
        with pytest.raises(NotFoundError, match="deleted"):
            verb()
    assert not storage().found("walls")
    assert scythe.list_experiments().height == 0


# --- versions ---------------------------------------------------------------------------------------


def test_build_metadata_are_refused_as_they_have_no_order(clock: Callable[[int], None]) -> None:
    with pytest.raises(VersionError, match=r"v1\.0\.0\+linux differs from v1\.0\.0 by build metadata alone"):
        allocated(version="v1.0.0+linux")
    assert not storage().found("walls")
    assert allocated(version="v1.0.0-rc.1").version == "v1.0.0-rc.1"


def test_stored_versions_with_build_metadata_stand_in_one_order_everywhere() -> None:
    names = ["v1.0.0+z", "v1.0.0", "v1.0.0+x", "v0.9.0+y"]
    orders = {tuple(map(str, parse_folders(given))) for given in itertools.permutations(names)}
    assert orders == {("v0.9.0+y", "v1.0.0", "v1.0.0+x", "v1.0.0+z")}


def test_a_version_is_found_by_all_of_its_name(clock: Callable[[int], None], root: Any) -> None:
    run = allocated()
    (root / "walls" / "v1.0.0").rename(root / "walls" / "v1.0.0+x")

    with pytest.raises(NotFoundError, match=r"no version v1\.0\.0; it has v1\.0\.0\+x"):
        scythe.open_run("walls", "v1.0.0")
    assert scythe.open_run("walls", SemVer.parse("1.0.0+x")).key.folder == run.key.folder


# --- what makes no sense -----------------------------------------------------------------------------


def test_names_that_name_nothing_are_answered_in_one_sentence(clock: Callable[[int], None]) -> None:
    allocated()
    for run in ("", "/", "//", "a/b/c/d", "2026-3-1_9-0-0", 7, dt.datetime.min, dt.date(2026, 3, 1), object()):
        with pytest.raises(ScytheError):
            scythe.read("walls", run=run)
        with pytest.raises(ScytheError):
            scythe.open_run("walls", run=run)
    for name in ("walls//", "walls/v1.0.0/", "/", "", "walls/v1.0.0/x/y", "../walls", "..", "w\0", "\ud800"):
        with pytest.raises(ScytheError):
            scythe.open_run(name)
        with pytest.raises(ScytheError):
            scythe.read(name)
    with pytest.raises(ReadError, match="'loss' is asked for twice"):
        scythe.read("walls", columns=["loss", "r_value", "loss"])
    with pytest.raises(ReadError, match="is one name"):
        scythe.read("walls", "all", columns="loss")
    assert scythe.read("walls", columns=[]).columns == []


def test_whatever_is_asked_for_is_given_or_refused_by_an_error_of_ours(clock: Callable[[int], None]) -> None:
    allocated()
    allocated(3.0, "bumpminor")
    anything = (
        st.text(max_size=12)
        | st.sampled_from(["walls", "v1.0.0", "all", "2026-03-01_09-00-00", "loss", "scalars", "v1.0.0+x", "."])
        | st.sampled_from([None, 0, 1.5, b"v1.0.0", b"\xff", (), dt.datetime(2026, 3, 1, 9), [], True])
    )
    columns = st.none() | st.text(max_size=3) | st.lists(st.text(max_size=3) | st.sampled_from(["loss", 7]), max_size=3)

    @settings(max_examples=40)
    @given(anything, anything, anything, anything, columns)
    def ask(name: Any, version: Any, run: Any, table: Any, wanted: Any) -> None:
        for door in (
            lambda: scythe.read(name, version, run=run),
            lambda: scythe.read("walls", version, run=run, table=table if table is not None else "scalars"),
            lambda: scythe.read("walls", version, run=run, columns=wanted),
            lambda: scythe.read("walls", columns=wanted),
            lambda: scythe.open_run(name, version, run),
            lambda: scythe.open_run("walls", version, run),
            lambda: scythe.list_runs(name),
            lambda: list(verbs.rows(name, version, run=run)),
        ):
            with contextlib.suppress(ScytheError):
                door()

    ask()


def test_an_unfinished_run_is_not_given_as_pairs(clock: Callable[[int], None]) -> None:
    run = allocated()
    storage().delete([run.key.result])
    storage().delete_folder(f"{run.experiment_id}/final")
    with pytest.raises(RunError, match="not finished"):
        scythe.rows(walls, run=run.key.folder)
    with pytest.raises(NotFoundError, match="no finished run"):
        scythe.rows("walls", run="all")


def test_what_is_no_version_is_told_which_there_are_and_what_else_may_be_meant(root: Path) -> None:
    allocated()

    with pytest.raises(
        VersionError, match=r"'walls' has v1\.0\.0: .* by version='all'; a table is named by table='errors'"
    ):
        scythe.read("walls", "errors")
    with pytest.raises(VersionError, match=r"'1\.x' is not .* 'walls' has v1\.0\.0: [^;]*$"):
        scythe.read("walls", "1.x")
    with pytest.raises(NotFoundError, match=r"there is no experiment 'wals' in .* \(did you mean 'walls'\?\)"):
        scythe.read("wals")
