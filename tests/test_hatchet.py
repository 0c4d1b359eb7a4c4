"""The same job on a cluster: the same rows, in the same layout, whoever dies, hangs, is cancelled or asked again.

The workers are real `scythe worker` processes. The engine is the stand-in, or the one that
HATCHET_CLIENT_TOKEN names.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import polars as pl
import pytest
import yaml
from polars.testing import assert_frame_equal

import scythe
from scythe.allocate import BaseExperiment, ExperimentRun
from scythe.attempts import latest_attempt
from scythe.engines.jobs import RunRef
from scythe.errors import AllocationError, NotFoundError, RunCancelled, RunError
from scythe.registry import ExperimentRegistry
from scythe.scatter_gather import RecursionMap
from tests.cluster import PATIENCE, Worker, descendants, engine_environment, unique, wait_for, wait_until_served

MODULE = """
import logging
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Literal

import pandas as pd
import polars as pl

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.registry import ExperimentRegistry
from scythe.utils.filesys import FileReference
from scythe.worker import ScytheWorkerLabel


class Order(ExperimentInputSpec):
    scratch: str
    fate: str = "fine"


class Value(ExperimentOutputSpec):
    y: float


def wait_for_gate(spec):
    while not (Path(spec.scratch) / "gate").exists():
        time.sleep(0.02)


@ExperimentRegistry.Register(name="obey_ID", retries=1)
def obey(spec: Order) -> Value:
    with (Path(spec.scratch) / f"{spec.sort_index}.calls").open("a+") as file:
        file.write(f"{os.getpid()}\\n")
        file.flush()
        file.seek(0)
        call = len(file.readlines())
    frames = {}
    match spec.fate:
        case "raises":
            raise ValueError(f"call {call}")
        case "raises, then works":
            if call == 1:
                raise ValueError("not yet")
        case "exits":
            os._exit(7)
        case "is killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "is killed, then works":
            if call == 1:
                os.kill(os.getpid(), signal.SIGKILL)
        case "raises at length":
            raise ValueError("x" * 5_000_000)
        case "gives a large frame":
            frames["series"] = pl.DataFrame({"t": pl.arange(0, 3_750_000, eager=True).sample(fraction=1, shuffle=True)})
        case "gives an empty frame":
            frames["series"] = pl.DataFrame({"t": []}, schema={"t": pl.Int64})
        case "gives a small frame":
            frames["series"] = pl.DataFrame({"t": [1, 2]})
        case "waits":
            child = subprocess.Popen(["sleep", "1000"])
            (Path(spec.scratch) / f"{spec.sort_index}.child").write_text(str(child.pid))
            wait_for_gate(spec)
            child.kill()
            child.wait()
        case "fails without a gate":
            if not (Path(spec.scratch) / "gate").exists():
                raise ValueError("no gate")
    return Value(y=spec.sort_index, dataframes=frames)


class Text(ExperimentOutputSpec):
    text: str


@ExperimentRegistry.Register(name="tell_ID", retries=0)
def tell(spec: Order) -> Text:
    return Text(text="x" * 5_000_000)


@ExperimentRegistry.Register(name="limited_ID", retries=1, execution_timeout=2.0)
def limited(spec: Order) -> Value:
    with (Path(spec.scratch) / f"{spec.sort_index}.calls").open("a") as file:
        file.write("called\\n")
    if spec.fate == "hangs":
        signal.pause()
    if spec.fate == "takes its time":
        time.sleep(1.2)
    return Value(y=spec.sort_index)


@ExperimentRegistry.Register(name="talk_ID", retries=0)
def talk(spec: Order) -> Value:
    spec.log(f"told by {spec.sort_index}")
    logging.getLogger("somebody").warning("logged by %s", spec.sort_index)
    return Value(y=1)


@ExperimentRegistry.Register(name="hush_ID", retries=0, overwrite_log_method=False)
def hush(spec: Order) -> Value:
    spec.log(f"told by {spec.sort_index}")
    logging.getLogger("somebody").warning("logged by %s", spec.sort_index)
    return Value(y=1)


@ExperimentRegistry.Register(name="gpu_ID", retries=0, desired_worker_labels={ScytheWorkerLabel.HAS_GPU: True})
def gpu(spec: Order) -> Value:
    return Value(y=int(os.environ.get("TEST_WORKER", "0")))


@ExperimentRegistry.Register(name="named_ID", retries=0, worker="worker-ID")
def named(spec: Order) -> Value:
    return Value(y=int(os.environ.get("TEST_WORKER", "0")))


class Rich(ExperimentInputSpec):
    x: float
    kind: Literal["a", "b"]
    table: FileReference
    tags: list[str] = []

    @property
    def computed_features(self):
        return {"doubled": 2 * self.x}


class RichOut(ExperimentOutputSpec):
    y: float
    lines: int
    report: FileReference


@ExperimentRegistry.Register(name="everything_ID", retries=0)
def everything(spec: Rich, tempdir: Path) -> RichOut:
    if spec.x % 10 == 3:
        raise ValueError(f"no {spec.x}")
    (tempdir / "report.txt").write_text(f"{spec.x} {spec.kind}")
    own = pd.DataFrame({"v": [spec.x, 1.0]}, index=spec.make_multiindex({"month": [1, 2]}, n_rows=2))
    series = pl.DataFrame({"hour": [0, 1, 2], "kwh": [spec.x, 2.0, None]})
    return RichOut(
        y=2 * spec.x, lines=len(spec.table.read_text().splitlines()), report=tempdir / "report.txt",
        dataframes={"own": own, "series": series},
    )
"""


@dataclass
class Site:
    """The experiments of one module, which some worker serves and this process allocates."""

    folder: Path
    module: ModuleType
    id: str

    def name(self, experiment: str) -> str:
        return f"{experiment}_{self.id}"

    def orders(self, *fates: str) -> tuple[Path, list[Any]]:
        """A folder of their own, and inputs with these fates."""
        scratch = self.folder / "scratch" / unique("s")
        scratch.mkdir(parents=True)
        order = self.module.Order
        return scratch, [
            order(experiment_id="", sort_index=i, scratch=str(scratch), fate=f) for i, f in enumerate(fates)
        ]

    def allocate(self, experiment: str, specs: Any, **options: Any) -> tuple[ExperimentRun, RunRef]:
        options.setdefault("engine", "hatchet")
        return BaseExperiment(getattr(self.module, experiment)).allocate(specs, **options)

    def worker(self, *options: str, **env: str) -> Worker:
        return Worker(self.module.__name__, *options, env=env, cwd=self.folder)

    def served(self, *experiments: str, leaf: bool = True, scatter: bool = True, workers: int = 1) -> None:
        """Returns when so many workers have the tasks of these experiments."""
        tasks = [f"scythe_experiment_{self.name(e)}" for e in experiments if leaf]
        tasks += [f"scythe_scatter_gather_{self.name(e)}" for e in experiments if scatter]
        wait_until_served(*tasks, workers=workers, timeout=180)  # a worker loads much before it serves


@dataclass
class Cluster:
    folder: Path

    def site(self, kind: str) -> Site:
        """A module of experiments with names of its own."""
        name = unique(kind)
        (self.folder / f"{name}.py").write_text(MODULE.replace("ID", name))
        importlib.invalidate_caches()
        return Site(self.folder, importlib.import_module(name), name)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    before = dict(ExperimentRegistry._experiments)
    with pytest.MonkeyPatch.context() as patch, engine_environment() as env:
        for name in ("SCYTHE_STORAGE_BUCKET", "SCYTHE_STORAGE_BUCKET_PREFIX", "SCYTHE_ENGINE", "SCYTHE_CATALOG"):
            patch.delenv(name, raising=False)
        own = {"SCYTHE_STORAGE_ROOT": str(folder / "root"), "SCYTHE_CACHE_DIR": str(folder / "cache")}
        for key, value in {**env, **own}.items():
            patch.setenv(key, value)
        patch.syspath_prepend(str(folder))
        yield Cluster(folder)
    ExperimentRegistry._experiments.clear()
    ExperimentRegistry._experiments.update(before)


@pytest.fixture(scope="module")
def main(cluster: Cluster) -> Iterator[Site]:
    """Served by one worker of two slots."""
    site = cluster.site("main")
    with site.worker("--slots", "2"):
        site.served("obey", "everything")
        yield site


@pytest.fixture(scope="module")
def tiny(cluster: Cluster) -> Iterator[Site]:
    """Served by one worker of one slot."""
    site = cluster.site("tiny")
    with site.worker("--slots", "1"):
        site.served("obey")
        yield site


@pytest.fixture
def spare(cluster: Cluster) -> Site:
    """Served by nobody."""
    return cluster.site("spare")


@pytest.fixture(autouse=True)
def nobody_waits_for_ever(cluster: Cluster) -> Iterator[None]:
    """A test that fails leaves no function that holds a slot."""
    yield
    for scratch in (cluster.folder / "scratch").glob("*"):
        (scratch / "gate").touch()


def folder_of(run: ExperimentRun) -> Path:
    return Path(run.uri.removeprefix("file://"))


def finals(run: ExperimentRun) -> dict[str, pl.DataFrame]:
    return {p.stem: pl.read_parquet(p) for p in sorted((folder_of(run) / "final").iterdir())}


def calls(scratch: Path) -> dict[int, int]:
    """`sort_index` -> how often the function was called on it."""
    return {int(p.stem): len(p.read_text().splitlines()) for p in scratch.glob("*.calls")}


def manifest(run: ExperimentRun) -> dict[str, Any]:
    return yaml.safe_load((folder_of(run) / "manifest.yml").read_text())


def check(run: ExperimentRun, *, good: list[int], bad: list[int] | None = None) -> dict[str, pl.DataFrame]:
    """Each input is in exactly one of scalars and errors, in tasks once, and the catalog says what the files say."""
    tables = finals(run)
    assert run.status == "finished"
    assert tables["scalars"]["sort_index"].to_list() == good
    assert tables["errors"]["sort_index"].to_list() == (bad or [])
    assert tables["tasks"]["sort_index"].to_list() == sorted([*good, *(bad or [])])
    for name, frame in tables.items():
        of: dict[str, Any] = {"table": name, "run": run.key.folder}
        try:
            read = scythe.read(run.experiment, run.version, **of)
        except NotFoundError:
            assert frame.height == 0, name
            continue
        read = read.sort("sort_index", maintain_order=True).select(frame.columns)
        assert_frame_equal(read.with_columns(pl.col(pl.Enum).cast(pl.String)), frame)
    return tables


def gone(pid: int) -> bool:
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return found.stdout.strip() in ("", "Z") or found.stdout.startswith("Z")


# --- the same rows ----------------------------------------------------------------------------------

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


# --- shapes -----------------------------------------------------------------------------------------

_SHAPES = {
    "2/0": {"recursion_map": RecursionMap(factor=2, max_depth=0)},
    "8/1, chunk 1": {"recursion_map": RecursionMap(factor=8, max_depth=1), "chunk": 1},
    "4/3, chunk 7": {"recursion_map": RecursionMap(factor=4, max_depth=3), "chunk": 7},
    "1/2": {"recursion_map": RecursionMap(factor=1, max_depth=2)},
    "chunk 7": {"chunk": 7},
}
_N = 23


@pytest.fixture(scope="module")
def shaped(main: Site) -> dict[str, tuple[Path, ExperimentRun, RunRef]]:
    """A run of each shape, all at once."""
    runs: dict[str, tuple[Path, ExperimentRun, RunRef]] = {}
    for name, shape in _SHAPES.items():
        scratch, specs = main.orders(*(["fine"] * 5 + ["raises"] + ["fine"] * (_N - 6)))
        runs[name] = (scratch, *main.allocate("obey", specs, **shape))
    return runs


@pytest.mark.parametrize("shape", _SHAPES)
def test_every_shape_calls_every_input_and_gives_the_same_rows(
    shaped: dict[str, tuple[Path, ExperimentRun, RunRef]], shape: str
) -> None:
    scratch, run, ref = shaped[shape]

    result = ref.result(timeout=PATIENCE)

    good = [i for i in range(_N) if i != 5]
    tables = check(run, good=good, bad=[5])
    assert (result.inputs, result.rows, result.errors) == (_N, _N - 1, 1)
    assert tables["scalars"]["y"].to_list() == good
    assert tables["errors"]["exception_message"].to_list() == ["call 2"]
    assert calls(scratch) == {**dict.fromkeys(good, 1), 5: 2}


def test_the_run_has_one_identifier_everywhere(shaped: dict[str, tuple[Path, ExperimentRun, RunRef]]) -> None:
    _, run, ref = shaped["2/0"]
    result = ref.result(timeout=PATIENCE)

    assert ref.workflow_run_id
    assert ref.hatchet.workflow_run_id == ref.workflow_run_id == run.workflow_run_id == result.workflow_run_id
    assert manifest(run)["workflow_run_id"] == ref.workflow_run_id
    assert finals(run)["scalars"]["root_workflow_run_id"].unique().to_list() == [ref.workflow_run_id]
    assert scythe.open_run(run.experiment_id).workflow_run_id == ref.workflow_run_id


def test_a_coroutine_gets_the_same_result(shaped: dict[str, tuple[Path, ExperimentRun, RunRef]]) -> None:
    _, _, ref = shaped["chunk 7"]

    assert asyncio.run(ref.aio_result()) == ref.result(timeout=PATIENCE)


def test_the_chunk_that_was_asked_for_is_what_runs_together(
    shaped: dict[str, tuple[Path, ExperimentRun, RunRef]],
) -> None:
    _, run, ref = shaped["chunk 7"]
    ref.result(timeout=PATIENCE)

    workers = finals(run)["tasks"]["worker"].to_list()
    assert all(len({*workers[i : i + 7]}) == 1 for i in range(0, _N, 7))


def test_a_worker_of_one_slot_finishes_a_deep_tree(tiny: Site) -> None:
    scratch, specs = tiny.orders(*["fine"] * 20)

    run, ref = tiny.allocate("obey", specs, recursion_map=RecursionMap(factor=4, max_depth=3), chunk=1)
    ref.result(timeout=PATIENCE)

    check(run, good=list(range(20)))
    assert set(calls(scratch).values()) == {1}


# --- faults of the function -------------------------------------------------------------------------


@dataclass
class Outcome:
    fates: list[str]
    calls: dict[int, int]
    tables: dict[str, pl.DataFrame]

    def at(self, fate: str) -> int:
        return self.fates.index(fate)


@pytest.fixture(scope="module")
def crashed(main: Site) -> Outcome:
    """Chunks of three, whose second input raises or kills its process."""
    bad = ["raises", "exits", "is killed"]
    fates = [f for fate in (*bad, "raises, then works", "is killed, then works") for f in ("fine", fate, "fine")]
    scratch, specs = main.orders(*fates)
    run, ref = main.allocate("obey", specs, chunk=3)
    ref.result(timeout=PATIENCE)
    lost = [i for i, fate in enumerate(fates) if fate in bad]
    tables = check(run, good=[i for i in range(len(fates)) if i not in lost], bad=lost)
    return Outcome(fates, calls(scratch), tables)


@pytest.mark.parametrize(
    ("fate", "kind", "words"),
    [
        ("raises", "ValueError", "call 2"),
        ("exits", "scythe.errors.WorkerCrashed", "exit code 7"),
        ("is killed", "scythe.errors.WorkerCrashed", "SIGKILL"),
    ],
)
def test_an_input_that_fails_costs_itself_alone_after_its_retries(
    crashed: Outcome, fate: str, kind: str, words: str
) -> None:
    row = crashed.tables["errors"].row(by_predicate=pl.col("fate") == fate, named=True)

    assert row["exception_type"] == kind
    assert words in row["exception_message"]
    assert row["attempts"] == 2
    assert crashed.calls[crashed.at(fate)] == 2


@pytest.mark.parametrize("fate", ["raises, then works", "is killed, then works"])
def test_an_input_that_works_the_second_time_is_a_row_of_two_attempts(crashed: Outcome, fate: str) -> None:
    i = crashed.at(fate)

    assert i in crashed.tables["scalars"]["sort_index"]
    assert crashed.tables["tasks"]["attempts"][i] == crashed.calls[i] == 2


def test_the_rest_of_a_chunk_goes_on_and_counts_one_attempt(crashed: Outcome) -> None:
    fine = [i for i, fate in enumerate(crashed.fates) if fate == "fine"]

    assert crashed.tables["tasks"]["attempts"][fine].unique().to_list() == [1]
    # The rows of a chunk come back together: what came before a crash is run again with the rest, what raised is not.
    for fate, before in (("raises", 1), ("raises, then works", 1), ("exits", 2), ("is killed", 2)):
        i = crashed.at(fate)
        assert [crashed.calls[i - 1], crashed.calls[i + 1]] == [before, 1], fate


def test_a_time_limit_costs_the_input_that_hangs(main: Site) -> None:
    scratch, specs = main.orders("fine", "fine", "hangs", "fine", "fine")

    run, ref = main.allocate("limited", specs, chunk=5)
    ref.result(timeout=PATIENCE)

    errors = check(run, good=[0, 1, 3, 4], bad=[2])["errors"]
    assert errors["exception_type"].to_list() == ["scythe.errors.InputTimeout"]
    assert "execution_timeout=2 s" in errors["exception_message"][0]
    assert errors["attempts"].to_list() == [2]
    assert calls(scratch)[2] == 2


def test_a_time_limit_counts_from_the_start_of_the_function_not_from_the_hand_over(tiny: Site) -> None:
    scratch, specs = tiny.orders(*["takes its time"] * 4)

    run, ref = tiny.allocate("limited", specs, chunk=1)
    ref.result(timeout=PATIENCE)

    tasks = check(run, good=[0, 1, 2, 3])["tasks"]
    assert tasks["attempts"].to_list() == [1] * 4
    assert calls(scratch) == dict.fromkeys(range(4), 1)


# --- large outputs ----------------------------------------------------------------------------------


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
    assert errors["exception_message"].str.len_bytes()[:3].to_list() == [5_000_000, 5_000_000, 6]


def test_a_dataframe_without_rows_is_no_reason_to_fail(main: Site) -> None:
    _, specs = main.orders("gives an empty frame", "fine", "gives a small frame", "gives an empty frame")

    run, ref = main.allocate("obey", specs, chunk=2)
    ref.result(timeout=PATIENCE)

    assert check(run, good=[0, 1, 2, 3])["series"]["sort_index"].to_list() == [2, 2]


# --- logs -------------------------------------------------------------------------------------------


def hatchet_logs(run: ExperimentRun) -> list[str]:
    """What Hatchet shows as the logs of the leaves of a run."""
    from scythe.engines.hatchet.client import connect
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


# --- cancelled, resumed, asked again ----------------------------------------------------------------


def wait_for_calls(scratch: Path, *which: int) -> None:
    wait_for(lambda: all(i in calls(scratch) for i in which))


def collected(run: ExperimentRun) -> int:
    """The inputs that the nodes of a run tell as done."""
    told = [json.loads(p.read_text()) for p in folder_of(run).rglob("*-node-*.json") if "progress" in str(p)]
    return sum(t["rows"] + t["errors"] for t in told)


@pytest.mark.parametrize("how", ["run", "ref"])
def test_a_cancelled_run_stops_keeps_what_is_finished_and_can_be_resumed(main: Site, how: str) -> None:
    scratch, specs = main.orders("fine", "fine", "waits", "fine")
    run, ref = main.allocate("obey", specs, chunk=1)
    wait_for_calls(scratch, 0, 1, 2, 3)
    wait_for(lambda: collected(run) == 3)
    child = int(wait_for((scratch / "2.child").read_text))

    run.cancel() if how == "run" else ref.cancel()

    with pytest.raises(RunCancelled, match=run.experiment_id):
        ref.result(timeout=PATIENCE)
    wait_for(lambda: run.status == "cancelled")
    wait_for(lambda: gone(child))
    kept = scythe.read(run.experiment, run.version, run=run.key.folder)
    assert sorted(kept["sort_index"].to_list()) == [0, 1, 3]
    assert calls(scratch)[2] == 1

    (scratch / "gate").touch()
    run.resume().result(timeout=PATIENCE)

    check(run, good=[0, 1, 2, 3])
    assert calls(scratch) == {0: 1, 1: 1, 2: 2, 3: 1}
    with pytest.raises(RunError, match="finished"):
        run.cancel()


def test_errors_are_tried_again_on_request_and_nothing_else_is(main: Site) -> None:
    scratch, specs = main.orders("fine", "fails without a gate", "fine", "raises", "fails without a gate")
    run, ref = main.allocate("obey", specs, chunk=2)
    assert ref.result(timeout=PATIENCE).errors == 3
    (scratch / "gate").touch()

    again = run.retry_errors()
    result = again.result(timeout=PATIENCE)

    assert (result.rows, result.errors) == (4, 1)
    assert again._progress() == (5, 1)  # pyright: ignore[reportAttributeAccessIssue]
    check(run, good=[0, 1, 2, 4], bad=[3])
    assert calls(scratch) == {0: 1, 1: 3, 2: 1, 3: 4, 4: 3}
    assert run.resume().result() == result
    assert manifest(run)["workflow_run_id"] == ref.workflow_run_id


CLIENT = """
import os, sys

def die_at(name):
    def look(frame, event, argument):
        if event == "call" and frame.f_code.co_name == name:
            os.kill(os.getpid(), 9)
    sys.setprofile(look)

module, scratch, fates, where = sys.argv[1:]
experiments = __import__(module)
from scythe.allocate import BaseExperiment
specs = [
    experiments.Order(experiment_id="", sort_index=i, scratch=scratch, fate=f) for i, f in enumerate(fates.split(";"))
]
die_at(where)
BaseExperiment(experiments.obey).allocate(specs, engine="hatchet", chunk=1)
"""


def client_that_dies(site: Site, where: str, *fates: str) -> tuple[Path, ExperimentRun]:
    """What a client has left that was killed when it called this function."""
    scratch, _ = site.orders()
    before = {r.experiment_id for r in BaseExperiment(site.module.obey).list_runs()}
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, site.module.__name__, str(scratch), ";".join(fates), where],
        cwd=site.folder, capture_output=True, text=True, check=False, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    (run,) = [r for r in BaseExperiment(site.module.obey).list_runs() if r.experiment_id not in before]
    return scratch, run


def test_a_run_whose_client_died_after_the_trigger_goes_on_and_is_attached_to(main: Site) -> None:
    scratch, run = client_that_dies(main, "record_trigger", "fine", "waits", "fine")
    wait_for_calls(scratch, 1)

    ref = run.resume()
    assert run.status == "running"
    (scratch / "gate").touch()
    ref.result(timeout=PATIENCE)

    tables = check(run, good=[0, 1, 2])
    assert calls(scratch) == {0: 1, 1: 1, 2: 1}
    assert ref.workflow_run_id == manifest(run)["workflow_run_id"]
    assert tables["scalars"]["root_workflow_run_id"].unique().to_list() == [ref.workflow_run_id]


def test_a_run_that_was_never_triggered_is_started_by_resume_whatever_else_goes_on(main: Site) -> None:
    other, specs = main.orders("waits")
    going, ref = main.allocate("obey", specs)
    scratch, run = client_that_dies(main, "run_hatchet", "fine", "fine")
    try:
        wait_for_calls(other, 0)
        assert run.status == "allocated"
        assert manifest(run)["workflow_run_id"] is None
        assert run.workflow_run_id is None

        resumed = run.resume()
        assert resumed.workflow_run_id != going.workflow_run_id
        resumed.result(timeout=PATIENCE)

        check(run, good=[0, 1])
        assert calls(scratch) == {0: 1, 1: 1}
        assert manifest(run)["workflow_run_id"] == resumed.workflow_run_id
    finally:
        (other / "gate").touch()
        ref.result(timeout=PATIENCE)


def test_clients_that_resume_at_the_same_time_start_one_run(main: Site) -> None:
    scratch, run = client_that_dies(main, "run_hatchet", *["fine"] * 6)
    together = threading.Barrier(3)

    def resume() -> Any:
        mine = scythe.open_run(run.experiment_id)
        together.wait()
        return mine.resume().result(timeout=PATIENCE)

    with ThreadPoolExecutor(3) as threads:
        results = [f.result() for f in [threads.submit(resume) for _ in range(3)]]

    assert results[0] == results[1] == results[2]
    check(run, good=list(range(6)))
    assert calls(scratch) == dict.fromkeys(range(6), 1)


def test_a_run_of_a_cluster_can_be_finished_on_one_machine(main: Site) -> None:
    scratch, run = client_that_dies(main, "run_hatchet", "fine", "raises", "fine")

    ref = run.resume(engine="local", workers=1)
    ref.result(timeout=PATIENCE)

    tables = check(run, good=[0, 2], bad=[1])
    assert calls(scratch) == {0: 1, 1: 2, 2: 1}
    assert manifest(run)["workflow_run_id"] == ref.workflow_run_id
    assert tables["scalars"]["root_workflow_run_id"].unique().to_list() == [ref.workflow_run_id]


# --- while it goes on -------------------------------------------------------------------------------


def test_finished_rows_can_be_read_and_progress_is_told_while_the_run_goes_on(
    main: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    scratch, specs = main.orders("gives a large frame", "fine", "waits", "raises")
    run, ref = main.allocate("obey", specs, chunk=1)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(ref.result, timeout=PATIENCE)
        try:
            wait_for_calls(scratch, 0, 1, 2, 3)
            told: list[str] = []
            wait_for(lambda: told.append(capsys.readouterr().err) or "3 of 4 done, 1 failed" in "".join(told))
            assert run.status == "running"
            shown: dict[str, Any] = {"version": run.version, "run": run.key.folder}
            wait_for(lambda: sorted(scythe.read(run.experiment, **shown)["sort_index"].to_list()) == [0, 1])
            with pytest.raises(RunError, match="being worked on"):
                run.delete()
        finally:
            (scratch / "gate").touch()
        waiting.result()

    check(run, good=[0, 1, 2], bad=[3])


# --- workers ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crew(cluster: Cluster) -> Iterator[tuple[Site, list[Worker], list[Worker]]]:
    """Two leaf workers of one slot, one of them with labels and a name, and two scatter workers, of one module."""
    site = cluster.site("crew")
    plain = site.worker("--leaf-only", "--slots", "1", TEST_WORKER="1")
    labelled = site.worker(
        "--leaf-only", "--slots", "1", "--name", f"worker-{site.id}", TEST_WORKER="2", SCYTHE_WORKER_HAS_GPU="true"
    )
    scatters = [site.worker("--fan-only") for _ in range(2)]
    with plain, labelled, scatters[0], scatters[1]:
        site.served("obey", workers=2)
        yield site, [plain, labelled], scatters


Crew = tuple[Site, list[Worker], list[Worker]]


@pytest.mark.parametrize("experiment", ["gpu", "named"])
def test_an_experiment_runs_on_the_workers_that_it_asks_for_alone(crew: Crew, experiment: str) -> None:
    site, _, _ = crew
    _, specs = site.orders(*["fine"] * 8)

    run, ref = site.allocate(experiment, specs, chunk=1)
    ref.result(timeout=PATIENCE)

    assert finals(run)["scalars"]["y"].to_list() == [2.0] * 8


def test_a_scatter_worker_that_is_killed_is_replaced_and_the_run_finishes_by_itself(crew: Crew) -> None:
    site, _, scatters = crew
    scratch, specs = site.orders("fine", "waits", "fine", "fine")
    run, ref = site.allocate("obey", specs, chunk=1)
    wait_for_calls(scratch, 1)

    root = wait_for(
        lambda: next((s for s in scatters if s.process.pid == latest_attempt(run.objects, run.key).pid), None)
    )
    root.kill(machine=True)
    (scratch / "gate").touch()
    ref.result(timeout=PATIENCE)

    check(run, good=[0, 1, 2, 3])
    assert calls(scratch) == dict.fromkeys(range(4), 1)
    assert latest_attempt(run.objects, run.key).pid != root.process.pid


def test_a_leaf_worker_that_is_killed_costs_a_second_call_of_what_it_had(crew: Crew) -> None:
    site, leaves, _ = crew
    scratch, specs = site.orders("waits", "fine", "fine", "fine", "raises")
    run, ref = site.allocate("obey", specs, chunk=1)
    wait_for_calls(scratch, 0)
    pid = int(wait_for((scratch / "0.calls").read_text))

    next(w for w in leaves if pid in descendants(w.process.pid)).kill(machine=True)
    (scratch / "gate").touch()
    ref.result(timeout=PATIENCE)

    tables = check(run, good=[0, 1, 2, 3], bad=[4])
    assert tables["tasks"]["attempts"].to_list() == [1, 1, 1, 1, 2]
    assert calls(scratch)[0] == 2


def test_a_single_spec_needs_a_leaf_worker_alone(spare: Site) -> None:
    scratch, specs = spare.orders("fine", "fine")
    with spare.worker("--leaf-only", "--slots", "1"):
        spare.served("obey", scatter=False)

        run, ref = spare.allocate("obey", specs[0])
        ref.result(timeout=PATIENCE)
        with pytest.raises(
            AllocationError, match=f"no Hatchet worker has the task 'scythe_scatter_gather_obey_{spare.id}'"
        ):
            spare.allocate("obey", specs)

    check(run, good=[0])
    assert calls(scratch) == {0: 1}
    assert yaml.safe_load((folder_of(run) / "workflow_spec.yml").read_text())["scratch"] == str(scratch)
    assert ref.hatchet.workflow_run_id == run.workflow_run_id == manifest(run)["workflow_run_id"]
    assert len(BaseExperiment(spare.module.obey).list_runs()) == 1
