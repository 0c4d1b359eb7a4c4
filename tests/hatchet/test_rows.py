"""The rows, files and logs of a cluster are those of one machine, however large they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from polars.testing import assert_frame_equal

import scythe
from scythe.allocate import ExperimentRun
from tests.cluster import PATIENCE, wait_for
from tests.hatchet.sites import Site, check, folder_of

_IDS = ["experiment_id", "workflow_run_id", "root_workflow_run_id", "report"]


def rich(site: Site, n: int) -> list[Any]:
    table = site.folder / "table.csv"
    table.write_text("a\nb\nc\n")
    return [
        site.module.Rich(
            experiment_id="", sort_index=i, x=float(i), kind="ab"[i % 2], table=table, tags=["t"] * (i % 3), batch=7 * i
        )
        for i in range(n)
    ]


def listing(run: ExperimentRun) -> list[str]:
    """The files of a run that are not an engine's own, with the run's identifiers cut off their names."""
    folder = folder_of(run)
    paths = [p.relative_to(folder) for p in folder.rglob("*") if p.is_file()]
    return sorted(
        f"{p.parent}/{p.stem[-12:]}{p.suffix}" if p.parts[0] == "results" else str(p)
        for p in paths
        if p.parts[0] != "scatter-gather"
    )


@pytest.mark.parametrize("n", [24, 1], ids=["many", "one model"])
def test_rows_files_and_catalog_are_those_of_the_local_engine(main: Site, n: int) -> None:
    specs: Any = rich(main, n) if n > 1 else rich(main, 1)[0]

    here, ref = main.allocate("everything", specs, engine="local", workers=1)
    ref.result()
    there, ref = main.allocate("everything", specs)
    result = ref.result(timeout=PATIENCE)

    bad = [i for i in range(n) if i % 10 == 3]
    good = [i for i in range(n) if i % 10 != 3]
    assert (result.inputs, result.rows, result.errors) == (n, len(good), len(bad))
    local, hatchet = check(here, good=good, bad=bad), check(there, good=good, bad=bad)
    assert local.keys() == hatchet.keys() == {"scalars", "errors", "tasks", "result_file_refs", "own", "series"}
    for name, frame in local.items():
        other = hatchet[name]
        assert frame.schema == other.schema
        told = {*_IDS, "table", "seconds", "worker", "start", "traceback"} & {*frame.columns}
        assert_frame_equal(frame.drop(told), other.drop(told))
        files = [folder_of(run) / "final" / f"{name}.pq" for run in (here, there)]
        assert len({tuple(pd.read_parquet(file).index.names) for file in files}) == 1
    assert listing(here) == listing(there)
    refs = hatchet["result_file_refs"]
    for path, x in zip(refs["report"], refs["x"], strict=True):
        assert Path(path.removeprefix("file://")).read_text() == f"{x} {'ab'[int(x) % 2]}"
        assert there.experiment_id in path


def test_a_cluster_grows_a_run_of_one_machine_and_a_key_gives_its_run_again(main: Site) -> None:
    specs = rich(main, 30)
    here, ref = main.allocate("everything", specs[:20], engine="local", workers=1)
    ref.result()
    there, ref = main.allocate("everything", specs, version="keep", reuse=True, key="round 2")
    again, other = main.allocate("everything", specs, version="keep", reuse=True, key="round 2")
    assert again.experiment_id == there.experiment_id
    result = ref.result(timeout=PATIENCE)
    assert other.result(timeout=PATIENCE).rows == result.rows
    good = [i for i in range(30) if i % 10 != 3]
    tables = {name: scythe.read(there.experiment, table=name, run=there) for name in result.tables}
    assert tables["scalars"]["sort_index"].to_list() == good
    for name, frame in tables.items():
        assert set(frame["root_workflow_run_id"]) == {there.workflow_run_id}, name
    taken = tables["tasks"].filter(reused_from=here.experiment_id)["sort_index"].to_list()
    assert taken == [i for i in good if i < 20]
    for path, x in tables["result_file_refs"].select("report", "x").iter_rows():
        assert scythe.fetch(path).read_text() == f"{x} {'ab'[int(x) % 2]}"


def test_files_that_a_cluster_packs_are_what_was_written_in_few_shards(main: Site) -> None:
    run, ref = main.allocate("everything", rich(main, 12), chunk=4, pack=True)
    assert ref.result(timeout=PATIENCE).rows == 11  # the fourth raises

    refs = scythe.read(run.experiment, table="result_file_refs", run=run)
    for uri, x in zip(refs["report"], refs["x"], strict=True):
        assert scythe.fetch(uri).read_text() == f"{x} {'ab'[int(x) % 2]}"
    where = scythe.read(run.experiment, table="packs", run=run)
    assert where.height == 11
    assert where["shard"].n_unique() <= 3


def test_an_output_far_above_hatchets_limit_is_a_row_like_any_other(main: Site) -> None:
    _, specs = main.orders("gives a small frame", "gives a large frame", "gives a small frame")
    run, ref = main.allocate("obey", specs, chunk=1)
    _, texts = main.orders("fine", "fine")
    told, telling = main.allocate("tell", texts, chunk=2)

    ref.result(timeout=PATIENCE)
    telling.result(timeout=PATIENCE)

    tables = check(run, good=[0, 1, 2])
    lengths = tables["series"].group_by("sort_index", maintain_order=True).len()
    assert lengths["len"].to_list() == [2, 3_750_000, 2]
    assert tables["series"]["t"].sum() == 3_750_000 * 3_749_999 // 2 + 6
    assert check(told, good=[0, 1])["scalars"]["text"].str.len_bytes().to_list() == [5_000_000] * 2


def test_huge_messages_and_many_errors_in_a_chunk_are_error_rows(main: Site) -> None:
    fates = ["raises at length", "fine", "raises at length", *["raises"] * 400]
    _, specs = main.orders(*fates)

    run, ref = main.allocate("obey", specs, chunk=len(fates))
    ref.result(timeout=PATIENCE)

    errors = check(run, good=[1], bad=[i for i in range(len(fates)) if i != 1])["errors"]
    assert errors["exception_message"].str.len_bytes()[:3].to_list()[2] == 6


def test_a_dataframe_without_rows_is_no_reason_to_fail(main: Site) -> None:
    _, specs = main.orders("gives an empty frame", "fine", "gives a small frame", "gives an empty frame")

    run, ref = main.allocate("obey", specs, chunk=2)
    ref.result(timeout=PATIENCE)

    assert check(run, good=[0, 1, 2, 3])["series"]["sort_index"].to_list() == [2, 2]


def hatchet_logs(run: ExperimentRun) -> list[str]:
    """What Hatchet shows as the logs of the leaves of a run."""
    from scythe.engines.hatchet.connection import connect
    from scythe.engines.hatchet.tasks import RUN_KEY

    hatchet = connect()
    tasks = hatchet.runs.list(additional_metadata={RUN_KEY: run.experiment_id}, only_tasks=True).rows
    return sorted(line.message for task in tasks for line in hatchet.logs.list(task.task_external_id).rows or [])


def test_what_a_function_logs_is_in_hatchets_log_unless_it_wants_its_own_way(main: Site) -> None:
    _, specs = main.orders("fine", "fine")
    hushed, ref = main.allocate("hush", specs, chunk=1)
    talked, talking = main.allocate("talk", specs, chunk=1)
    ref.result(timeout=PATIENCE)
    talking.result(timeout=PATIENCE)

    found = wait_for(lambda: lines if len(lines := hatchet_logs(talked)) >= 4 else None)

    assert [line for line in found if "logged by" in line] == ["logged by 0", "logged by 1"]
    assert [line.rpartition("told by ")[2] for line in found if "told by" in line] == ["0", "1"]
    assert hatchet_logs(hushed) == []
