"""Runs that are damaged, removed by hand, or allocated by half: each is named with what is wrong, and stops no other."""

import json
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import polars as pl
import pytest
from typer.testing import CliRunner

import scythe
import scythe.allocate.allocation
import scythe.allocate.store
import scythe.reader.verbs
from scythe.allocate import BaseExperiment, ExperimentRun
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.cli import app
from scythe.errors import AllocationError, NotFoundError, RunDamaged, ScytheError, VersionError
from scythe.gather.status import Status
from scythe.record.find import reserved
from scythe.registry import ExperimentRegistry
from scythe.runs.compare import compare_runs
from scythe.runs.rebuild import rebuild
from scythe.settings import storage
from scythe.transfer.sheets import write_sheets
from scythe_catalog.processes import start_of

HOURS = 3600.0


class Pipe(ExperimentInputSpec):
    length: float


class Drop(ExperimentOutputSpec):
    pressure: float


def pipes(spec: Pipe) -> Drop:
    if spec.length < 0:
        raise ValueError("shorter than nothing")
    return Drop(pressure=2 * spec.length)


def allocated(*lengths: float, version: str = "keep") -> ExperimentRun:
    ExperimentRegistry.Register(name="pipes", retries=0)(pipes)
    frame = pl.DataFrame({"length": list(lengths) or [1.0]})
    return BaseExperiment("pipes").allocate(frame, version, engine="inline")[0]


def stopped() -> ExperimentRun:
    """A run that is not finished: its second input stopped it."""
    with pytest.raises(ValueError, match="shorter"):
        allocated(1.0, -1.0, 2.0)
    return scythe.open_run("pipes")


def said(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, done.output
    return done.output


def state_of(root: Path) -> dict[str, tuple[int, bytes]]:
    return {str(p): (p.stat().st_mtime_ns, p.read_bytes()) for p in root.rglob("*") if p.is_file()}


RESULT = "scatter-gather/output/result.json"
PLAN = "scatter-gather/input/plan.json"
MARK = "scatter-gather/input/attempts/000001.json"
DAMAGES = {
    "an empty result": (RESULT, b"", False),
    "a result cut short": (RESULT, b'{"experiment_id": "pipes', False),
    "a result of other values": (RESULT, b'{"experiment_id": 7}', False),
    "a plan cut short": (PLAN, b'{"root": "file:///', True),
    "a manifest that is no YAML": ("manifest.yml", b"{a: [", True),
    "an empty manifest": ("manifest.yml", b"", True),
    "a manifest of bytes": ("manifest.yml", b"\xff\xfe\x00", True),
    "a mark that is no JSON": (MARK, b"not yet", False),
    "a mark without values": (MARK, b"{}", False),
}


@pytest.mark.parametrize(("file", "content", "unfinished"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_run_is_named_and_the_others_are_shown(
    root: Path, file: str, content: bytes, unfinished: bool
) -> None:
    good = allocated()
    bad = stopped() if unfinished else allocated(5.0, 6.0)
    (root / bad.experiment_id / file).write_bytes(content)

    listed = scythe.list_runs("pipes")
    assert listed["status"].to_list() == ["finished", "damaged"]
    assert listed.select("inputs", "rows", "errors", "seconds").row(1) == (None,) * 4
    assert f"{bad.experiment_id}/{file}" in listed["problem"][1]
    assert listed.select("inputs", "rows").row(0) == (1, 1)
    assert scythe.list_experiments()["runs"].to_list() == [2]
    assert f"damaged: file://{root}/{bad.experiment_id}/{file}" in said("runs", "pipes")
    assert "pipes" in said("ls")
    assert re.search(r"status +damaged\n +problem +file://", said("show", bad.experiment_id))
    assert scythe.read("pipes", run=good)["pressure"].to_list() == [2.0]

    storage().write(bad.key.unpublished("somebody"), b"")  # as if its process had died before the catalog followed
    opened = scythe.open_run(bad.experiment_id)
    assert opened.problem is not None
    later = allocated(3.0)
    assert scythe.read("pipes")["pressure"].to_list() == [6.0]
    opened.delete()
    assert set(scythe.list_runs("pipes")["run"]) == {good.key.folder, later.key.folder}


@pytest.mark.parametrize("content", [b"", b"{a: [", b"\xff\xfe\x00"])
def test_a_finished_run_without_a_manifest_that_can_be_read_is_read_and_says_so(root: Path, content: bytes) -> None:
    run = allocated(1.0)
    (root / run.key.manifest).write_bytes(content)
    (listed,) = scythe.list_runs("pipes").rows(named=True)
    assert (listed["status"], listed["rows"]) == ("finished", 1)
    assert run.key.manifest in listed["problem"]
    assert f"problem  file://{root}/{run.key.manifest}" in said("show", run.experiment_id)
    assert scythe.read("pipes")["pressure"].to_list() == [2.0]


def test_a_table_whose_file_is_gone_is_named_with_what_brings_it_back(root: Path, tmp_path: Path) -> None:
    run = allocated(1.0)
    allocated(2.0)
    assert run.result is not None
    file, shown = root / run.result.tables["scalars"].key, root / run.key.final("scalars")
    asked: list[Callable[[], Any]] = [
        lambda: scythe.read("pipes", run=run),
        lambda: scythe.read("pipes", "all", run="all"),
        lambda: list(scythe.rows("pipes", run=run)),
        lambda: write_sheets("pipes", tmp_path / "sheets", [("scalars", "csv")], run=run),
    ]

    def refused(way: str) -> None:
        for ask in asked:
            with pytest.raises(
                RunDamaged, match=f"{file} is gone, of the table 'scalars' of {run.experiment_id}: {way}"
            ):
                ask()

    file.unlink()
    refused(f"copy file://{shown} there, which has the same rows, or delete the run")
    shutil.copy(shown, file)
    for ask in asked:
        ask()
    file.unlink()
    shown.write_bytes(b"")
    refused(f"restore it, or delete the run .`scythe delete {run.experiment_id}`")
    assert "deleted" in said("delete", run.experiment_id, "--yes")
    assert scythe.read("pipes", "all", run="all")["pressure"].to_list() == [4.0]


def test_a_part_that_is_gone_of_a_run_that_is_not_finished_is_named(root: Path) -> None:
    run = stopped()
    (part,) = (root / run.key.parts).glob("*scalars*.pq")
    part.unlink()
    with pytest.raises(
        RunDamaged, match=f"{part} is gone, of the table 'scalars' of {run.experiment_id}: restore it, or"
    ):
        scythe.read("pipes", run=run)
    allocated(5.0)
    with pytest.raises(RunDamaged, match=f"{part} is gone"):
        scythe.read("pipes", "all", run="all")


ODD_VALUES = (None, "yesterday", -1, 1.5, [], {}, [["a"]], {"a": 1})


@pytest.mark.parametrize(("file", "unfinished"), [(PLAN, True), (MARK, True), (MARK, False), (RESULT, False)])
def test_whatever_stands_in_a_record_the_runs_are_listed(root: Path, file: str, unfinished: bool) -> None:
    path = root / (stopped() if unfinished else allocated(5.0, 6.0)).experiment_id / file
    record = json.loads(path.read_bytes())
    places = [(record, name) for name in record]
    places += [(inner, name) for inner in record.values() if isinstance(inner, dict) for name in inner]
    for where, name in places:
        kept = where[name]
        for odd in ODD_VALUES:
            where[name] = odd
            path.write_text(json.dumps(record))
            status = scythe.list_runs("pipes")["status"].to_list()
            assert len(status) == 1, (name, odd)
            assert scythe.open_run("pipes", run=path.relative_to(root).parts[2]).status in get_args(Status)
        where[name] = kept


def test_the_latest_run_is_not_passed_over_in_silence_where_its_result_is_damaged(root: Path) -> None:
    allocated()
    bad = allocated(5.0)
    (root / bad.experiment_id / RESULT).write_bytes(b"")

    with pytest.raises(RunDamaged, match=bad.experiment_id):
        scythe.read("pipes")


@pytest.mark.parametrize("step", ["keep", "bumpminor"])
def test_the_latest_run_is_not_passed_over_in_silence_where_its_folder_was_removed(root: Path, step: Any) -> None:
    kept, gone = allocated(5.0), allocated(6.0, version=step)
    shutil.rmtree(root / gone.experiment_id)
    asks = (
        lambda **of: scythe.read("pipes", **of),
        lambda **of: scythe.read("pipes", table="tasks", **of),
        lambda **of: scythe.scan("pipes", **of).collect(),
        lambda **of: scythe.read("pipes", version="all", **of),
        lambda **of: scythe.dataset("pipes", x="length", **of),
        lambda **of: scythe.dataset("pipes", x="length", version="all", **of),
        lambda **of: scythe.download("pipes", "copy", **of).runs,
        lambda **of: [*scythe.rows("pipes", **of)],
    )

    for ask in asks:
        with pytest.raises(RunDamaged, match=f"the folder of the run {gone.experiment_id} is gone.*scythe delete"):
            ask()
        assert len(ask(run=kept)) == 1
    later = allocated(7.0, version="keep")
    assert [len(ask()) for ask in asks[:3]] == [1, 1, 1]
    later.delete()

    said("delete", gone.experiment_id, "--yes")
    assert [len(ask()) for ask in asks] == [1] * 8


def test_a_later_run_that_was_removed_and_had_not_ended_is_none_that_is_asked_for(root: Path) -> None:
    allocated(5.0)
    shutil.rmtree(root / stopped().experiment_id)

    assert scythe.read("pipes")["pressure"].to_list() == [10.0]


@pytest.mark.parametrize("gone", ["manifest.yml", RESULT])
def test_the_latest_of_each_version_is_read_whatever_an_earlier_one_has_lost(root: Path, gone: str) -> None:
    earlier = allocated(5.0)
    allocated(6.0)
    allocated(7.0, version="bumpminor")
    (root / earlier.experiment_id / gone).unlink()

    for table in ("scalars", "tasks"):
        assert scythe.read("pipes", "all", table=table).height == 2
    assert sorted(scythe.read("pipes", "all")["pressure"]) == [12.0, 14.0]
    assert sorted(sample["x"].item() for sample in scythe.dataset("pipes", "all", x="length")) == [6.0, 7.0]
    assert len(scythe.download("pipes", root.parent / "copy", "all").runs) == 2


@pytest.mark.parametrize("suffix", ["", ".n*"])
def test_the_latest_run_stays_the_latest_where_its_reservation_is_lost(root: Path, suffix: str) -> None:
    allocated(5.0)
    latest = allocated(6.0)
    reserved_as = root / latest.key.reservation
    for file in reserved_as.parent.glob(f"{latest.key.folder}{suffix}"):
        file.unlink()
    assert scythe.read("pipes")["pressure"].to_list() == [12.0]

    for file in reserved_as.parent.glob(f"{latest.key.folder}*"):
        file.unlink()
    assert scythe.read("pipes")["pressure"].to_list() == [12.0]
    assert scythe.open_run("pipes").key == latest.key


def test_a_run_that_has_lost_its_result_is_none_that_never_had_one(root: Path) -> None:
    kept, lost = allocated(5.0), allocated(6.0, 7.0)
    (root / lost.experiment_id / RESULT).unlink()
    asks = (
        lambda **of: scythe.read("pipes", **of),
        lambda **of: scythe.scan("pipes", table="errors", **of).collect(),
        lambda **of: scythe.dataset("pipes", x="length", **of),
        lambda **of: scythe.rows("pipes", **of),
        lambda **of: scythe.download("pipes", "copy", **of).runs,
    )

    for ask in asks:
        for of in ({}, {"run": lost}):
            with pytest.raises(RunDamaged, match=r"result.json is gone, and the run was finished.*scythe resume"):
                ask(**of)
    assert scythe.read("pipes", run=kept).height == 1
    assert sorted(scythe.read("pipes", run="all")["pressure"]) == [10.0, 12.0, 14.0]
    assert scythe.list_runs("pipes")["status"].to_list() == ["finished", "damaged"]
    with pytest.raises(ScytheError, match=r"result.json is gone"):
        rebuild(storage())
    assert scythe.read("pipes", run="all").height == 3
    shutil.rmtree(root / "_catalog")
    with pytest.raises(ScytheError, match=r"result.json is gone"):
        rebuild(storage())
    for table in ("scalars", "tasks"):
        with pytest.raises(RunDamaged, match=r"result.json is gone"):
            scythe.read("pipes", run="all", table=table)

    lost.resume(engine="inline").result()

    assert scythe.read("pipes")["pressure"].to_list() == [12.0, 14.0]
    assert lost.status == "finished"


def test_a_finished_run_without_its_plan_is_not_told_to_be_resumed(root: Path) -> None:
    run = allocated(5.0, 6.0)
    shutil.rmtree(root / run.experiment_id / "scatter-gather")
    way = (
        rf"put it back.*, or allocate its inputs anew \(specs.pq .*, and delete it: `scythe delete {run.experiment_id}`"
    )
    asks = (
        lambda: scythe.read("pipes", run=run),
        lambda: scythe.read("pipes", table="errors", run=run),
        lambda: run.wait(),
        lambda: run.resume(engine="inline"),
        lambda: run.retry_errors(engine="inline"),
        lambda: compare_runs(run, run),
        lambda: rebuild(storage()),
    )

    for ask in asks:
        with pytest.raises(ScytheError, match=way) as told:
            ask()
        assert "scythe resume" not in str(told.value)
    assert re.search(way, str(run.problem))
    again = allocated(*pl.read_parquet(root / run.key.specs)["length"])
    assert "deleted" in said("delete", run.experiment_id, "--yes")
    assert scythe.read("pipes")["pressure"].to_list() == [10.0, 12.0]
    assert scythe.list_runs("pipes")["run"].to_list() == [again.key.folder]


def test_a_missing_data_file_is_one_sentence(root: Path) -> None:
    run = allocated()
    for file in (root / run.experiment_id).rglob("*.pq"):
        if file.name != "specs.pq":
            file.unlink()

    for ask in (lambda: scythe.read("pipes"), lambda: scythe.read("pipes", "all", run="all")):
        with pytest.raises(
            RunDamaged,
            match=r"scalars\.pq is gone, of the table 'scalars' of pipes/v1\.0\.0/.*: restore it, or delete the run",
        ):
            ask()


def test_a_folder_that_was_removed_by_hand_is_named_and_cleared_up_behind(root: Path) -> None:
    gone, there = allocated(5.0), allocated(7.0)
    shutil.rmtree(root / gone.experiment_id)

    assert scythe.read("pipes")["pressure"].to_list() == [14.0]
    for ask in (lambda: scythe.read("pipes", "all", run="all"), lambda: scythe.scan("pipes", run="all")):
        with pytest.raises(RunDamaged, match=f"the folder of the run {gone.experiment_id} is gone.*scythe delete"):
            ask()
    with pytest.raises(NotFoundError, match=f"has no run {gone.key.folder}.*its folder was removed"):
        scythe.read("pipes", run=gone)
    listed = scythe.list_runs("pipes")
    assert listed["status"].to_list() == ["damaged", "finished"]
    assert gone.experiment_id in listed["problem"][0]

    assert "deleted" in said("delete", gone.experiment_id, "--yes")
    assert scythe.read("pipes", "all", run="all")["pressure"].to_list() == [14.0]
    assert scythe.list_runs("pipes")["run"].to_list() == [there.key.folder]


def test_a_version_of_which_no_folder_is_left_is_named_where_all_versions_are_asked_for(root: Path) -> None:
    gone, earlier, _ = allocated(5.0), allocated(6.0, version="bumpminor"), allocated(8.0)
    there = allocated(7.0, version="bumpminor")
    asks = (
        lambda: scythe.read("pipes", "all"),
        lambda: scythe.read("pipes", "all", table="tasks"),
        lambda: scythe.dataset("pipes", "all", x="length"),
    )
    shutil.rmtree(root / earlier.experiment_id)  # of its version a later run is there
    assert [len(ask()) for ask in asks] == [3, 3, 3]

    shutil.rmtree(root / gone.experiment_id)
    for ask in asks:
        with pytest.raises(RunDamaged, match=f"the folder of the run {gone.experiment_id} is gone"):
            ask()
    assert (
        scythe.read("pipes", "all", run=there).height == len(scythe.dataset("pipes", "all", run=there, x="length")) == 1
    )
    assert said("delete", gone.experiment_id, "--yes")
    assert [len(ask()) for ask in asks] == [2, 2, 2]
    assert there.key.version in scythe.read("pipes", "all")["version"].to_list()


def test_a_run_that_is_really_damaged_is_looked_at_twice(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    allocated(5.0).delete()
    run, looks, look = allocated(6.0), list[object](), scythe.reader.verbs._scan
    shutil.rmtree(root / run.experiment_id)

    def counted(*arguments: Any, **options: Any) -> Any:
        looks.append(arguments)
        return look(*arguments, **options)

    monkeypatch.setattr(scythe.reader.verbs, "_scan", counted)
    with pytest.raises(RunDamaged, match="is gone"):
        scythe.read("pipes", "all", run="all")
    assert len(looks) == 2


@pytest.mark.parametrize("moment", ["scythe.reader.many_runs.run_keys", "scythe.reader.verbs._scan"])
@pytest.mark.parametrize("table", ["scalars", "tasks"])
def test_a_run_that_is_deleted_while_all_are_read_is_not_one_of_them_and_not_damaged(
    root: Path, moment: str, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for length in (5.0, 6.0, 7.0):
        allocated(length)
    listed = scythe.list_runs("pipes")["run"].to_list()
    doomed = [scythe.open_run(f"pipes/v1.0.0/{run}") for run in listed[:2]]
    looked = pkgutil.resolve_name(moment)

    def then_deleted(*args: Any, **options: Any) -> Any:
        found = looked(*args, **options) if "_scan" in moment else None
        if doomed:
            doomed.pop().delete()
        return looked(*args, **options) if found is None else found

    monkeypatch.setattr(moment, then_deleted)
    assert scythe.read("pipes", "all", table=table, run="all").height == 1
    assert not doomed


def test_a_damaged_record_of_a_version_is_told_from_its_runs_or_refused(root: Path) -> None:
    run = allocated()
    (root / "_catalog" / "pipes" / "_versions" / "v1.0.0.json").write_bytes(b"{")

    assert allocated(version="auto").version == "v1.0.1"
    for specs in (root / "pipes").rglob("specs.pq"):
        specs.write_bytes(b"PAR1")
    (root / "_catalog" / "pipes" / "_versions" / "v1.0.1.json").write_bytes(b"")
    with pytest.raises(AllocationError, match=r"what the schemas of pipes v1\.0\.1 were cannot be told"):
        allocated()
    assert run.status == "finished"


# --- half an allocation ---------------------------------------------------------------------------------


@pytest.fixture
def half(root: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a run whose allocation was killed before its manifest, in a version of its own, by a process that is gone."""
    allocated(1.0)
    with monkeypatch.context() as killed:
        killed.setattr(scythe.allocate.store, "make_manifest", lambda *_, **__: 1 / 0)
        killed.setattr(scythe.allocate.allocation, "undo", lambda *_: None)
        with pytest.raises(ZeroDivisionError):
            allocated(2.0, version="v3.0.0")
    (folder,) = (root / "pipes" / "v3.0.0").iterdir()
    key = scythe.record.find.RunKey("pipes", "v3.0.0", folder.name)
    owned_by(root, key.path, 2**22 + 1)
    return key.path


def owned_by(root: Path, run: str, pid: int) -> None:
    reservation = root / "_catalog" / "pipes" / "_runs" / run.removeprefix("pipes/")
    owner = json.loads(reservation.read_bytes()) | {"pid": pid, "start": start_of(pid) or 0}
    reservation.write_text(json.dumps(owner))


def age(root: Path, hours: float) -> None:
    """Makes all files of the root this old."""
    then = time.time() - hours * HOURS
    for path in root.rglob("*"):
        if path.is_file():
            os.utime(path, (then, then))


def test_half_an_allocation_is_named_and_can_be_deleted_and_its_version_is_free_again(root: Path, half: str) -> None:
    listed = scythe.list_runs("pipes")
    assert listed.select("version", "status", "rows").rows() == [
        ("v1.0.0", "finished", 1),
        ("v3.0.0", "allocating", None),
    ]
    assert half in listed["problem"][1]
    assert scythe.read("pipes")["length"].to_list() == [1.0]
    assert scythe.open_run("pipes").version == "v1.0.0"
    run = scythe.open_run(half)
    assert run.status == "allocating"
    with pytest.raises(NotFoundError, match="being allocated, or its allocation was cut short"):
        run.resume()

    said("delete", half, "--yes")

    assert not [p for p in root.rglob("*") if "v3.0.0" in str(p) and p.is_file()]
    assert allocated(version="bumpmajor").version == "v2.0.0"


def test_half_an_allocation_without_any_file_is_found_too(root: Path, half: str) -> None:
    shutil.rmtree(root / "pipes")

    assert "allocating" in scythe.list_runs("pipes")["status"].to_list()
    scythe.open_run(half).delete()
    with pytest.raises(NotFoundError):
        scythe.open_run(half)


def test_later_allocations_sweep_it_after_an_hour(root: Path, half: str) -> None:
    age(root, 0.9)
    allocated(version="v1.0.0")
    assert (root / half).is_dir()

    age(root, 1.1)
    allocated(version="v1.0.0")
    assert not (root / half).exists()
    assert not [p for p in root.rglob("*") if "v3.0.0" in str(p) and p.is_file()]
    assert scythe.list_runs("pipes")["status"].unique().to_list() == ["finished"]


def test_an_allocation_that_still_writes_or_whose_process_lives_is_never_swept(root: Path, half: str) -> None:
    age(root, 30)
    (root / half / "specs.pq").touch()
    allocated(version="v1.0.0")
    assert (root / half).is_dir()

    owned_by(root, half, os.getpid())
    age(root, 30)
    allocated(version="v1.0.0")
    assert (root / half).is_dir()


def test_a_run_whose_allocation_died_before_it_was_numbered_gets_its_number_from_the_next_one(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as killed:
        killed.setattr(scythe.allocate.store, "give_number", lambda *_: 1 / 0)
        killed.setattr(scythe.allocate.allocation, "undo", lambda *_: None)
        with pytest.raises(ZeroDivisionError):
            allocated(1.0)
    died = scythe.open_run("pipes")
    assert died.status == "allocated"

    second = allocated(2.0, version="keep")

    found = reserved(storage(), "pipes")
    assert [found.numbers[run.key] for run in (died, second)] == [1, 2]
    died.resume().result()
    assert scythe.read("pipes")["length"].to_list() == [2.0]


def test_runs_that_were_allocated_after_the_catalog_was_lost_are_later_than_those_before(root: Path) -> None:
    for length in (1.0, 2.0):
        allocated(length, version="keep")
    shutil.rmtree(root / "_catalog")

    allocated(3.0, version="keep")

    assert scythe.read("pipes")["length"].to_list() == [3.0]
    said("rebuild")
    assert scythe.read("pipes")["length"].to_list() == [3.0]
    assert scythe.read("pipes", run="all")["length"].to_list() == [1.0, 2.0, 3.0]


def test_a_version_that_was_reserved_and_never_allocated_is_free_after_an_hour(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allocated()
    with monkeypatch.context() as killed:
        killed.setattr(scythe.allocate.allocation, "reserve_folder", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            allocated(version="v7.0.0")
    assert (root / "_catalog/pipes/_versions/v7.0.0.json").exists()

    age(root, 2)
    allocated(version="v1.0.0")
    assert allocated(version="bumpmajor").version == "v2.0.0"


def test_a_failed_allocation_leaves_nothing_behind(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    allocated()
    before = set(state_of(root / "_catalog" / "pipes" / "_runs")) | set(state_of(root / "pipes"))
    with monkeypatch.context() as broken:
        broken.setattr(scythe.allocate.store, "make_manifest", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            allocated(version="v3.0.0")

    assert set(state_of(root / "_catalog" / "pipes" / "_runs")) | set(state_of(root / "pipes")) == before
    with pytest.raises(VersionError):
        BaseExperiment("pipes").allocate(pl.DataFrame({"length": [1.0]}), "nonsense")
    assert allocated(version="bumpmajor").version == "v2.0.0"


# --- looking writes nothing -------------------------------------------------------------------------------


def test_looking_and_reading_write_nothing(root: Path) -> None:
    allocated()
    run = stopped()
    hint: Any = next(iter((root / "_catalog/pipes/scalars/metadata").glob("version-hint.text")))
    hint.write_text("1")  # a committer died before its hint
    before = state_of(root)

    said("ls")
    said("runs", "pipes")
    said("show", "pipes")
    assert scythe.read("pipes", run=run).height == 1
    assert scythe.read("pipes", "all", run="all").height == 2

    assert state_of(root) == before
    run.delete()
    assert int(hint.read_text()) > 1


def test_a_deletion_that_was_killed_hides_no_other_run_wherever_it_was(root: Path) -> None:
    allocated(5.0)
    gone = allocated(6.0)
    for mark in (gone.key.tombstone, gone.key.unpublished("deleted")):
        storage().write(mark, b"{}")
    storage().delete([gone.key.manifest, gone.key.result])
    began = time.monotonic()

    assert scythe.read("pipes")["pressure"].to_list() == [10.0]
    assert scythe.read("pipes", run="all")["pressure"].to_list() == [10.0]

    assert time.monotonic() - began < 4
    for which in ({}, {"version": "all"}, {"run": "all"}, {"version": "all", "run": "all"}):
        assert scythe.read("pipes", **which)["pressure"].to_list() == [10.0]
        assert scythe.dataset("pipes", x=["length"], y=["pressure"], **which)[0]["y"].tolist() == [10.0]
        to = root.parent / f"copy-{len(which)}-{'run' in which}"
        assert len(scythe.download("pipes", to, **which).runs) == 1


@pytest.mark.parametrize("what", ["v*.metadata.json", "*-m0.avro", "snap-*.avro"])
@pytest.mark.parametrize("left", [0.0, 0.5])
def test_damaged_metadata_of_a_table_are_named_with_the_way_out(root: Path, what: str, left: float) -> None:
    run = allocated(1.0, 2.0, version="auto")
    table = root / "_catalog" / run.experiment / "scalars"
    for file in (table / "metadata").glob(what):
        file.write_bytes(file.read_bytes()[: int(left * file.stat().st_size)])
    main = "from scythe.cli import main; main()"
    read = "import scythe; scythe.read('pipes', 'all', run='all')"
    for words in ([main, "rebuild"], [main, "gc"], [main, "delete", run.experiment_id, "--yes"], [read]):
        done = subprocess.run([sys.executable, "-c", *words], capture_output=True, text=True, check=False, timeout=120)
        told = " ".join(done.stderr.split())
        assert f"{table} are damaged" in told, words
        assert "remove that folder, which holds no rows (" in told
        assert "and make the table anew with `scythe rebuild`" in told
        assert ("Traceback" in told) == (words == [read])
    shutil.rmtree(table)
    rebuild(storage())
    assert scythe.read(run.experiment, "all", run="all").height
