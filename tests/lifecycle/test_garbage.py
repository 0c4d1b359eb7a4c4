"""Files of earlier ends of a run: kept while anything names them, removed by `scythe gc` alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import scythe
from scythe.allocate import BaseExperiment, ExperimentRun
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.engines.hatchet.client.ref import HatchetRef
from scythe.gather import collect as gathering
from scythe.gather import publish
from scythe.gather.publish import name_anew
from scythe.record.generations import catalog_of
from scythe.record.layout import gathers
from scythe.record.plan import RunPlan
from scythe.registry import ExperimentRegistry
from scythe.runs import garbage
from scythe.runs.garbage import collect
from scythe.settings import storage
from scythe_catalog.iceberg import tables
from tests.lifecycle.dying import Dead, dying


class Part(ExperimentInputSpec):
    x: int


class Weight(ExperimentOutputSpec):
    y: int


@pytest.fixture
def retried(root: Path) -> ExperimentRun:
    """A run that has ended twice."""
    broken = {1}

    @ExperimentRegistry.Register(name="weigh", retries=0)
    def weigh(spec: Part) -> Weight:
        if spec.x in broken:
            raise ValueError("broken")
        return Weight(y=spec.x)

    with pytest.raises(ValueError, match="broken"):
        BaseExperiment(experiment="weigh").allocate(pl.DataFrame({"x": [0, 1]}), engine="inline")
    run = scythe.open_run("weigh")
    run.resume(engine="inline")
    broken.clear()
    run.retry_errors(engine="inline")
    return run


def aged(run: ExperimentRun) -> set[str]:
    """The files of all gathers of a run, which were written long ago from now on."""
    keys = run.objects.keys(gathers(run.key))
    for key in keys:
        os.utime(str(run.objects.folder / key), (0, 0))  # pyright: ignore[reportOptionalOperand]
    return {k for k in keys if k.endswith(".pq")}


def test_an_earlier_end_that_a_snapshot_names_is_kept_and_can_be_read(retried: ExperimentRun) -> None:
    table = catalog_of(storage()).table("weigh", "scalars")
    named = {uri for uri in table.named_files() if "/gathers/" in uri}
    assert len(named) == 2
    aged(retried)

    collect(storage())

    assert {storage().uri(k) for k in aged(retried)} >= named
    before, now = table.iceberg.metadata.snapshots[-2:]
    seen = [table.iceberg.scan(snapshot_id=s.snapshot_id).to_arrow()["sort_index"].to_pylist() for s in (before, now)]
    assert seen == [[0], [0, 1]]
    assert scythe.read("weigh", run=retried)["y"].to_list() == [0, 1]


def test_what_another_process_packs_while_files_are_collected_is_not_collected(
    retried: ExperimentRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tables are further names of files that are old."""
    for look in (garbage.latest_attempt, garbage.read_result):
        for is_before in (True, False):
            aged(retried)
            with monkeypatch.context() as patch:
                patch.setattr(garbage, look.__name__, beside(look, retried, patch, is_before=is_before))
                collect(storage())
            assert scythe.read("weigh", run=retried)["y"].to_list() == [0, 1]


def test_tables_that_a_run_is_about_to_take_as_its_own_are_not_collected(
    retried: ExperimentRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    aged(retried)
    made = publish.record

    def recorded(*args: Any) -> None:
        collect(storage())
        made(*args)

    with monkeypatch.context() as patch:
        patch.setattr(publish, "record", recorded)
        new_end(retried)
    assert scythe.read("weigh", run=retried)["y"].to_list() == [0, 1]


def beside(look: Callable[..., Any], run: ExperimentRun, patch: pytest.MonkeyPatch, *, is_before: bool) -> Any:
    """The same look, with a new end of the run right before it, or behind it."""

    def looked(*args: Any, **options: Any) -> Any:
        patch.undo()
        if is_before:
            new_end(run)
        found = look(*args, **options)
        if not is_before:
            new_end(run)
        return found

    return looked


def new_end(run: ExperimentRun) -> None:
    """What `scythe pack` does to a run's end: a gather whose tables are other names of those of before."""
    name_anew(run.objects, run.key)


def test_what_a_gather_that_died_has_left_is_removed_after_an_hour(retried: ExperimentRun) -> None:
    before = set(retried.objects.keys(gathers(retried.key)))
    with dying(8), pytest.raises(Dead):
        retried.retry_errors(engine="inline")
    left = set(retried.objects.keys(gathers(retried.key))) - before
    assert left

    assert collect(storage()).files == 0, "it may still be at work"
    aged(retried)
    assert collect(storage()).files >= len(left)
    assert not left & set(retried.objects.keys(gathers(retried.key)))
    assert scythe.read("weigh", run=retried)["y"].to_list() == [0, 1]


@pytest.fixture
def seen(root: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[pl.LazyFrame, pl.DataFrame]]:
    """What somebody saw who looked at a run while it went on: a frame that is read later, and its rows of that time."""
    monkeypatch.setattr(gathering, "_FIRST_FLUSH_SECONDS", 0.0)
    monkeypatch.setattr(gathering, "_FLUSH_SHARE", 1e9)
    looks: list[tuple[pl.LazyFrame, pl.DataFrame]] = []

    @ExperimentRegistry.Register(name="weigh")
    def weigh(spec: Part) -> Weight:
        if spec.x == 150:
            rows = scythe.scan("weigh", run="all")
            looks.append((rows, rows.collect()))
        return Weight(y=spec.x)

    specs = pl.DataFrame({"x": range(200)})
    BaseExperiment(experiment="weigh").allocate(specs, engine="inline", chunk=10)
    return looks


def parts_of(run: ExperimentRun) -> list[str]:
    return run.objects.files(run.key.parts)


def test_who_began_to_read_while_a_run_went_on_finds_the_rows_when_it_has_ended(
    seen: list[tuple[pl.LazyFrame, pl.DataFrame]],
) -> None:
    ((rows, before),) = seen
    assert 0 < len(before) < 200
    assert rows.collect().equals(before)
    assert len(scythe.read("weigh")) == 200


def test_files_that_were_shown_while_a_run_went_on_are_removed_by_gc_once_no_snapshot_names_them(
    seen: list[tuple[pl.LazyFrame, pl.DataFrame]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = scythe.open_run("weigh")
    assert any(name.endswith(".pq") for name in parts_of(run))
    for name in parts_of(run):
        os.utime(str(run.objects.folder / run.key.parts / name), (0, 0))  # pyright: ignore[reportOptionalOperand]
    collect(storage())
    assert any(name.endswith(".pq") for name in parts_of(run)), "a snapshot names them"

    monkeypatch.setattr(tables, "_MANY_SNAPSHOTS", 1)
    monkeypatch.setattr(tables, "_KEPT_SNAPSHOTS", 1)
    BaseExperiment(experiment="weigh").allocate(pl.DataFrame({"x": [0]}), engine="inline")
    BaseExperiment(experiment="weigh").allocate(pl.DataFrame({"x": [0]}), engine="inline")
    collect(storage())
    assert parts_of(run) == []
    assert len(scythe.read("weigh", run=run)) == 200


def test_a_dry_run_says_what_would_be_removed_and_removes_nothing(retried: ExperimentRun) -> None:
    with dying(8), pytest.raises(Dead):
        retried.retry_errors(engine="inline")
    there = aged(retried)
    said: list[str] = []

    told = collect(storage(), said.append, dry_run=True)

    assert told.files
    assert told.bytes
    assert said
    assert aged(retried) == there
    assert collect(storage()) == told


def test_who_waits_on_a_cluster_publishes_a_result_whose_root_was_killed_before_it_could(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @ExperimentRegistry.Register(name="weigh")
    def weigh(spec: Part) -> Weight:
        return Weight(y=spec.x)

    def killed(*_: object) -> None:
        raise Dead

    with monkeypatch.context() as patch:
        patch.setattr("scythe.gather.final.publish", killed)
        with pytest.raises(Dead):
            BaseExperiment(experiment="weigh").allocate(pl.DataFrame({"x": [1, 2]}), engine="inline")
    run = scythe.open_run("weigh")
    final = Path(run.uri.removeprefix("file://")) / "final"
    assert run.result is not None
    assert not final.exists()

    HatchetRef(RunPlan.load(run.objects, run.key), None, "root", 1)._settle()

    assert {path.name for path in final.iterdir()} == {"scalars.pq", "errors.pq", "tasks.pq"}
    assert len(scythe.read("weigh")) == 2
