"""A process that is killed at any of its writes: no row is lost, doubled or mixed with those of another attempt."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import scythe
from scythe.allocate import BaseExperiment, ExperimentRun
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.gather.publish import settle_all
from scythe.record.generations import catalog_of
from scythe.registry import ExperimentRegistry
from scythe.runs.rebuild import rebuild
from scythe.settings import storage
from tests.lifecycle.dying import Dead, dying


class Load(ExperimentInputSpec):
    x: int


class Answer(ExperimentOutputSpec):
    y: int


@pytest.fixture
def broken(root: Any) -> set[int]:
    """The inputs that fail, while they are in this set; registers the experiment `loads`."""
    failing: set[int] = set()

    @ExperimentRegistry.Register(name="loads", retries=0)
    def loads(spec: Load) -> Answer:
        if spec.x in failing:
            raise ValueError("broken")
        return Answer(y=10 * spec.x, dataframes={"hours": pl.DataFrame({"hour": [0, 1], "load": [spec.x, 2 * spec.x]})})

    return failing


def allocated(n: int = 3) -> ExperimentRun:
    """A run that has come as far as it can, inline: each failing input stops it, and it goes on behind it."""
    with contextlib.suppress(ValueError):
        BaseExperiment(experiment="loads").allocate(pl.DataFrame({"x": range(n)}), version="keep", engine="inline")
    run = BaseExperiment(experiment="loads").latest_run()
    assert run is not None
    return to_its_end(run.resume, run)


def to_its_end(act: Callable[..., Any], run: ExperimentRun) -> ExperimentRun:
    for _ in range(run.inputs + 1):
        try:
            act(engine="inline")
        except ValueError:
            act = run.resume
        else:
            return run
    raise AssertionError("it comes to no end")


def seen(run: ExperimentRun) -> tuple[set[int], set[int]]:
    """The inputs that are in `scalars`, and those in `errors`; each once, with its own values, in all tables alike."""
    tables = {t: scythe.read("loads", table=t, run=run) for t in ("scalars", "errors", "tasks")}
    rows, errors, tasks = ({*f["sort_index"].to_list()} for f in tables.values())
    assert [f.height for f in tables.values()] == [len(rows), len(errors), len(tasks)], "an input stands twice"
    assert not rows & errors
    assert rows | errors == tasks
    assert tables["scalars"]["y"].to_list() == [10 * x for x in sorted(rows)]
    counted = scythe.list_runs("loads").filter(pl.col("run") == run.key.folder).row(0, named=True)
    assert (counted["rows"], counted["errors"]) == (len(rows), len(errors))
    if run.status == "finished":
        hours = scythe.read("loads", table="hours", run=run)
        assert hours["load"].to_list() == [v for x in sorted(rows) for v in (x, 2 * x)]
    return rows, errors


def in_catalog(run: ExperimentRun) -> tuple[list[int], list[int]]:
    """The same by the catalog alone, as other programs see it."""
    catalog = catalog_of(run.objects)
    found = []
    for table in ("scalars", "errors"):
        frame = pl.scan_iceberg(catalog.table("loads", table).iceberg)
        frame = frame.filter((pl.col("version") == run.version) & (pl.col("run_datetime") == run.run_datetime))
        found.append(sorted(frame.collect()["sort_index"].to_list()))
    return found[0], found[1]


def kept(root: Path) -> Callable[[], None]:
    """Makes the root again what it is now, as often as it is called."""
    copy = root.with_name("kept")
    shutil.copytree(root, copy)

    def restore() -> None:
        shutil.rmtree(root)
        shutil.copytree(copy, root)

    return restore


def changes_of(act: Callable[[], Any]) -> int:
    with dying(10**9) as count:
        act()
        return count()


def test_a_first_gather_that_is_killed_anywhere_shows_each_input_once_and_can_be_taken_up(
    broken: set[int], root: Path
) -> None:
    allocated()
    restore = kept(root)
    after, died = 0, True
    while died:
        restore()
        before = {r.experiment_id for r in BaseExperiment(experiment="loads").list_runs()}
        died = False
        with dying(after):
            try:
                allocated()
            except Dead:
                died = True
        new = [r for r in BaseExperiment(experiment="loads").list_runs() if r.experiment_id not in before]
        for run in new:
            seen(run)
            to_its_end(run.resume, run)
            assert seen(run) == ({0, 1, 2}, set()), f"killed after {after} changes"
            assert in_catalog(run) == ([0, 1, 2], [])
        after += 1
    assert after > 20, "it was killed often enough to mean something"


def test_a_retry_that_is_killed_anywhere_leaves_the_old_end_or_the_new_one(broken: set[int], root: Path) -> None:
    broken.add(1)
    run = allocated()
    assert seen(run) == ({0, 2}, {1})
    restore = kept(root)
    whole = 1
    after = 0
    while after < whole:
        restore()
        broken.clear()
        with dying(after) as count:
            try:
                run.retry_errors(engine="inline")
            except Dead:
                whole = after + 2
            else:
                whole = count()
        assert run.status == "finished"
        assert seen(run) in (({0, 2}, {1}), ({0, 1, 2}, set())), f"killed after {after} changes"
        settle_all(run.objects, catalog_of(run.objects), "loads")
        rows, errors = seen(run)
        assert in_catalog(run) == (sorted(rows), sorted(errors))
        to_its_end(run.retry_errors, run)
        assert seen(run) == ({0, 1, 2}, set())
        of = dict(scythe.read("loads", table="tasks", run=run).select("sort_index", "attempt").rows())
        assert of[0] < of[2] < of[1] <= len(run.attempts), "the first stops at 1, a resume does 2, a retry 1"
        assert in_catalog(run) == ([0, 1, 2], [])
        assert pl.read_parquet(run.objects.folder / run.key.final("scalars"))["y"].to_list() == [0, 10, 20]  # pyright: ignore[reportOptionalOperand]
        after += 1
    assert after > 10, "it was killed often enough to mean something"


def test_a_rebuild_that_is_killed_anywhere_hides_nothing_and_can_be_repeated(broken: set[int]) -> None:
    first, second = allocated(2), allocated(3)
    whole = changes_of(lambda: rebuild(storage()))
    for after in range(0, whole, 3):
        with dying(after), pytest.raises(Dead):
            rebuild(storage())
        assert seen(first) == ({0, 1}, set())
        assert seen(second) == ({0, 1, 2}, set())
        assert scythe.read("loads", "all", run="all").height == 5
    rebuild(storage())
    assert in_catalog(first) == ([0, 1], [])
    assert in_catalog(second) == ([0, 1, 2], [])


def test_a_deletion_that_is_killed_anywhere_leaves_the_run_or_none_and_is_finished_by_the_next_allocation(
    broken: set[int], root: Path
) -> None:
    other, run = allocated(1), allocated(2)
    restore = kept(root)
    whole = 1
    after = 0
    while after < whole:
        restore()
        with dying(after) as count:
            try:
                run.delete()
            except Dead:
                whole = after + 2
            else:
                whole = count()
        listed = scythe.list_runs("loads").filter(pl.col("status") == "finished")["run"].to_list()
        if run.key.folder in listed:
            assert seen(run) == ({0, 1}, set())
        there = scythe.read("loads", "all", run="all")["experiment_id"].unique().to_list()
        assert (run.experiment_id in there) == (run.key.folder in listed)
        allocated(1)
        seen(other)
        if run.key.folder not in listed:
            there = scythe.read("loads", "all", run="all")["experiment_id"].unique().to_list()
            assert run.experiment_id not in there
            assert not run.objects.keys(run.experiment_id)
        after += 1
