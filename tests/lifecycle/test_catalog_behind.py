"""A catalog that does not know of runs whose folders are there: nobody reads fewer rows than there are in silence."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

import scythe
from scythe import BaseExperiment, ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry, FileReference
from scythe.allocate import ExperimentRun
from scythe.errors import RunDamaged, RunError, TableNotFound
from scythe.gather import publish
from scythe.gather.publish import Gathered, unpublished
from scythe.rebuild import rebuild
from scythe.record.generations import catalog_of
from scythe.record.results import read_result
from scythe.runs.garbage import collect
from scythe.runs.pack import pack
from scythe.settings import storage
from tests.lifecycle.dying import Dead, dying


class Part(ExperimentInputSpec):
    x: int


class Weight(ExperimentOutputSpec):
    y: int


class Filed(ExperimentOutputSpec):
    f: FileReference


@pytest.fixture
def allocated(root: Path) -> Callable[[int], ExperimentRun]:
    @ExperimentRegistry.Register(name="weigh")
    def weigh(spec: Part) -> Weight:
        return Weight(y=spec.x, dataframes={"f": pl.DataFrame({"v": [spec.x]})})

    given = iter([None, "keep", "keep"])
    return lambda n: BaseExperiment("weigh").allocate(pl.DataFrame({"x": range(n)}), next(given), engine="inline")[0]


def test_a_run_whose_folder_was_copied_here_is_named_until_a_rebuild_takes_it_in(
    allocated: Callable[[int], ExperimentRun], root: Path
) -> None:
    own, other = allocated(2), allocated(3)
    shutil.copytree(root / other.key.path, root.with_name("kept"))
    other.delete()
    shutil.copytree(root.with_name("kept"), root / other.key.path)
    (root / other.key.tombstone).unlink()

    assert scythe.read("weigh", run=own).height == 2
    for table in ("scalars", "tasks", "f"):
        for run in (other, "all"):
            with pytest.raises(RunDamaged, match=f"{other.key.path} is finished, and the catalog has no rows of it"):
                scythe.read("weigh", run=run, table=table)
        with pytest.raises(RunDamaged, match="`scythe rebuild` takes it in"):
            scythe.scan("weigh", run=other, table=table)
    assert scythe.read("weigh", run="all", table="errors").height == 0
    assert len(scythe.dataset("weigh", run="all", x="x")) == 5

    rebuild(storage())
    assert scythe.read("weigh", run=other)["y"].to_list() == [0, 1, 2]
    assert scythe.read("weigh", run="all").height == 5


def test_while_a_lost_catalog_is_made_anew_all_rows_are_read_or_an_error_says_so(
    allocated: Callable[[int], ExperimentRun], root: Path
) -> None:
    runs = [allocated(2), allocated(3), allocated(1)]
    copy = root.with_name("kept")
    shutil.copytree(root, copy)
    shutil.rmtree(copy / "_catalog")
    after, died, told = 0, True, list[str]()
    while died:
        shutil.rmtree(root)
        shutil.copytree(copy, root)
        died = False
        with dying(after):
            try:
                rebuild(storage())
            except Dead:
                died = True
        for run in (*runs, "all"):
            try:
                rows = scythe.read("weigh", run=run).height
            except (RunDamaged, TableNotFound) as error:
                told.append(str(error))
            else:
                assert rows == (6 if run == "all" else run.inputs), f"killed after {after} changes"  # type: ignore[union-attr]
        after += 3
    assert scythe.read("weigh", run="all").height == 6
    assert len(told) > 4
    assert all("`scythe rebuild`" in one for one in told)


def test_a_catalog_of_before_a_retry_is_not_taken_for_the_one_of_now(root: Path) -> None:
    """As where a root was copied while a run went on: the catalog first, the run's folder later."""
    failing = {1}

    @ExperimentRegistry.Register(name="heat", retries=0)
    def heat(spec: Part) -> Weight:
        if spec.x in failing:
            raise ValueError("broken")
        return Weight(y=spec.x)

    with pytest.raises(ValueError, match="broken"):
        BaseExperiment("heat").allocate(pl.DataFrame({"x": range(3)}), engine="inline")
    run = scythe.open_run("heat")
    run.resume(engine="inline")
    shutil.copytree(root / "_catalog", root.with_name("before"))
    failing.clear()
    run.retry_errors(engine="inline")
    assert scythe.read("heat").height == 3
    shutil.rmtree(root / "_catalog")
    shutil.copytree(root.with_name("before"), root / "_catalog")

    for table in ("scalars", "tasks", "errors"):
        for look, asked in itertools.product((scythe.scan, scythe.read), (None, "all")):
            with pytest.raises(
                RunDamaged, match=f"{run.key.path} is finished, and the catalog has the files of another"
            ):
                look("heat", asked, table=table, run=asked)
    rebuild(storage())
    assert scythe.read("heat").height == 3
    assert scythe.read("heat", table="errors").height == 0


def test_a_run_on_its_way_here_whose_tables_are_not_made_yet_keeps_nobody_from_gc_or_allocations(
    allocated: Callable[[int], ExperimentRun], root: Path
) -> None:
    """As a download or a rebuild leaves it that is killed: readers go by the run's own files."""
    run = allocated(2)
    storage().write(run.key.unpublished("rebuild"), b"")
    shutil.rmtree(root / "_catalog" / "weigh" / "f")

    collect(storage())
    assert unpublished(storage(), "weigh") == [run.key], "its files may not be as the tables here want them"
    assert scythe.read("weigh", run=run, table="f")["v"].to_list() == [0, 1]
    assert allocated(3).status == "finished"
    assert scythe.read("weigh", run="all", table="f").height == 5

    rebuild(storage())
    assert unpublished(storage(), "weigh") == []
    assert scythe.read("weigh", run=run, table="f")["v"].to_list() == [0, 1]


def test_a_run_on_its_way_here_is_not_packed(root: Path) -> None:
    @ExperimentRegistry.Register(name="filed")
    def filed(spec: Part, tempdir: Path) -> Filed:
        (tempdir / "f.txt").write_text(str(spec.x))
        return Filed(f=tempdir / "f.txt")

    run, _ = BaseExperiment("filed").allocate(pl.DataFrame({"x": [1, 2]}), engine="inline")
    storage().write(run.key.unpublished("rebuild"), b"")

    with pytest.raises(
        RunError, match="is not wholly of this root yet: a download or a `scythe rebuild` goes on, or was cut short"
    ):
        pack(storage(), run.key, ["f"])
    rebuild(storage())
    assert pack(storage(), run.key, ["f"]).files == 2


def test_what_is_published_of_a_file_that_was_written_anew_is_its_own_size(
    allocated: Callable[[int], ExperimentRun],
) -> None:
    """A file that came from elsewhere has got other addresses since its record was written."""
    run = allocated(3)
    result = read_result(storage(), run.key)
    assert result is not None
    key = result.tables["scalars"].key
    table = pq.read_table(storage().folder / key)  # type: ignore[operator]
    pq.write_table(table, storage().folder / key, compression="none", use_dictionary=False)  # type: ignore[operator]
    storage().write(run.key.unpublished("end"), b"")

    collect(storage())

    assert Gathered.of(storage(), result, run.key).files["scalars"].bytes == storage().size(key)
    assert scythe.read("weigh", run=run)["y"].to_list() == [0, 1, 2]


def test_rows_that_came_after_their_run_was_deleted_are_passed_over_and_go_with_the_next_gc(
    allocated: Callable[[int], ExperimentRun],
) -> None:
    """A rebuild has published the run while it was deleted, and was killed before it saw so."""
    run, other, objects = allocated(2), allocated(1), storage()
    result = read_result(objects, run.key)
    assert result is not None
    gathered, catalog = Gathered.of(objects, result, run.key), catalog_of(objects)
    run.delete()
    publish._publish_once(objects, catalog, run.key, result, gathered)  # pyright: ignore[reportPrivateUsage]

    for table in ("scalars", "tasks", "f"):
        assert scythe.read("weigh", "all", table=table, run="all").height == 1
        assert scythe.read("weigh", table=table).height == 1
    assert scythe.dataset("weigh", "all", run="all", x="x").frame.collect().height == 1
    collect(objects)
    tables = [catalog.table("weigh", name) for name in catalog.tables("weigh")]
    assert not any(table.files(run.key.partition) for table in tables)
    assert scythe.read("weigh", run=other).height == 1
