"""A leaf whose workers were lost: what its tries note of what they begin, and what the next one makes of it."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from scythe.allocate import BaseExperiment
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.define.code import Code
from scythe.engines.hatchet.errors import HandedBack
from scythe.engines.hatchet.tasks import LeafInput
from scythe.engines.hatchet.worker.careful import CarefulLeaf, _Note
from scythe.engines.hatchet.worker.loading import Loaded
from scythe.engines.hatchet.worker.stopping import Stopping
from scythe.engines.pool.job import pool_job
from scythe.engines.pool.server import Prepared, Server
from scythe.gather.payload import Payloads
from scythe.leaf.rows import ChunkResult
from scythe.record.attempt_plan import AttemptPlan
from scythe.record.plan import RunPlan
from scythe.registry import ExperimentRegistry
from scythe_catalog.storage.folder import Folder
from scythe_catalog.storage.objects import Objects

cloudpickle.register_pickle_by_value(sys.modules[__name__])

N = 5


class Step(ExperimentInputSpec):
    folder: str


class Height(ExperimentOutputSpec):
    y: int


@ExperimentRegistry.Register(name="told_when_begun", retries=2)
def climb(spec: Step) -> Height:
    folder = Path(spec.folder)
    with (folder / "begun").open("a") as file:
        file.write(f"{spec.sort_index}\n")
    while (folder / f"gate{spec.sort_index}").exists():
        time.sleep(0.01)
    return Height(y=spec.sort_index)


class Place:
    """A run of five inputs, its leaf of all of them, and a server that runs it."""

    def __init__(self, folder: Path) -> None:
        ExperimentRegistry.Register(name="told_when_begun", retries=2)(climb)
        specs = [Step(experiment_id="", sort_index=i, folder=str(folder)) for i in range(N)]
        run, _ = BaseExperiment("told_when_begun").allocate(specs, engine="inline")
        plan, experiment = RunPlan.load(run.objects, run.key), ExperimentRegistry._experiments["told_when_begun"]
        self.payloads = Payloads(plan, "again")
        self.loaded = Loaded(
            AttemptPlan(7, [(0, N)]),
            Prepared(plan, experiment, pool_job(plan, experiment, Code(None), "again"), self.payloads),
        )
        self.notes, self.begun = (
            Path(run.uri.removeprefix("file://")) / f"scatter-gather/output/begun/000007/0-{N}-1",
            folder / "begun",
        )
        self.begun.unlink()
        self.payload = LeafInput(root=plan.objects.root, run=run.key.path, turn=7, inputs=(0, N, 1))
        self.stopping, self.server = Stopping(), Server(1, on_failure=lambda: None)

    def lost(self, number: int, *rows: int, alone: bool = False) -> None:
        """What an earlier try has left, whose worker was lost."""
        self.notes.mkdir(parents=True, exist_ok=True)
        note = {"rows": rows, "alone": alone, "host": "tower", "since": 1.8e9}
        (self.notes / f"{number:06d}.json").write_text(json.dumps(note))

    async def leaf(self, tries: int) -> list[Any]:
        return await CarefulLeaf(self.payload, self.loaded, self.server, self.stopping, lambda _: None, tries).run()

    def tables(self, tries: int) -> dict[str, list[dict[str, Any]]]:
        """The rows that the leaf gives, by their table."""
        found: dict[str, list[dict[str, Any]]] = {}
        for one in asyncio.run(self.leaf(tries)):
            result = self.payloads.decode(one)
            assert isinstance(result, ChunkResult)
            for name, table in result.tables:
                found.setdefault(name, []).extend(table.to_pylist())
        return found


@pytest.fixture
def place(root: Path, tmp_path: Path) -> Iterator[Place]:
    found = Place(tmp_path)
    yield found
    found.server.close()


def test_a_leaf_that_was_handed_back_twice_runs_all_its_inputs_and_leaves_no_note(place: Place) -> None:
    tables = place.tables(tries=2)

    assert sorted(row["y"] for row in tables["scalars"]) == [0, 1, 2, 3, 4]
    assert place.begun.read_text().split() == ["0", "1", "2", "3", "4"]
    assert list(place.notes.iterdir()) == []


def test_what_runs_is_noted_before_it_begins_and_no_more_when_the_worker_hands_it_back(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scythe.engines.hatchet.worker.stopping._SETTLE_SECONDS", 0.0)
    (tmp_path / "gate2").touch()

    async def work() -> None:
        running = asyncio.ensure_future(place.leaf(tries=4))
        while not (place.begun.exists() and "2" in place.begun.read_text()):
            await asyncio.sleep(0.01)
        assert json.loads((place.notes / "000004.json").read_text())["rows"] == [2]
        place.stopping.set()
        await running

    with pytest.raises(HandedBack):
        asyncio.run(work())
    assert list(place.notes.iterdir()) == []


def test_inputs_of_which_one_was_running_are_begun_one_at_a_time(place: Place) -> None:
    place.lost(2, 1, 2, 3)

    assert sorted(row["y"] for row in place.tables(tries=3)["scalars"]) == [0, 1, 2, 3, 4]
    assert place.begun.read_text().split() == ["1", "2", "3", "0", "4"]


def test_an_input_that_was_running_is_begun_first_and_alone(place: Place, tmp_path: Path) -> None:
    place.lost(2, 1)
    (tmp_path / "gate1").touch()

    async def work() -> None:
        running = asyncio.ensure_future(place.leaf(tries=3))
        while not (place.begun.exists() and "1" in place.begun.read_text()):
            await asyncio.sleep(0.01)
        noted = json.loads((place.notes / "000003.json").read_text())
        assert (noted["rows"], noted["alone"]) == ([1], True)
        (tmp_path / "gate1").unlink()
        await running

    asyncio.run(work())
    assert place.begun.read_text().split() == ["1", "0", "2", "3", "4"]


def test_an_input_whose_worker_was_lost_as_often_as_it_may_be_tried_again_is_an_error_row(place: Place) -> None:
    place.lost(2, 1)
    place.lost(3, 1, alone=True)
    assert sorted(row["y"] for row in place.tables(tries=4)["scalars"]) == [0, 1, 2, 3, 4]

    place.lost(4, 1, alone=True)
    place.begun.unlink()
    tables = place.tables(tries=5)

    assert sorted(row["y"] for row in tables["scalars"]) == [0, 2, 3, 4]
    assert place.begun.read_text().split() == ["0", "2", "3", "4"]
    (told,) = tables["errors"]
    assert (told["sort_index"], told["exception_type"]) == (1, "scythe.errors.WorkerCrashed")
    assert told["exception_message"].startswith(
        "its worker was lost 3 times while it ran (tower), 2 of them with nothing beside it"
    )


def test_a_note_under_way_when_the_work_is_handed_back_does_not_stay(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scythe.engines.hatchet.worker.stopping._SETTLE_SECONDS", 0.0)
    place.lost(2, 1)
    begun, gate, write = threading.Event(), threading.Event(), Folder.write

    def slowly(self: Folder, key: str, content: bytes) -> None:
        if key.endswith("/000003.json"):
            begun.set()
            gate.wait(60)
        write(self, key, content)

    monkeypatch.setattr(Folder, "write", slowly)

    async def work() -> None:
        running = asyncio.ensure_future(place.leaf(tries=3))
        while not begun.is_set():
            await asyncio.sleep(0.01)
        place.stopping.set()
        await asyncio.sleep(0.1)
        gate.set()
        await running

    with pytest.raises(HandedBack):
        asyncio.run(work())
    assert [file.name for file in place.notes.iterdir()] == ["000002.json"]


def test_a_note_that_was_taken_back_is_not_written_any_more(root: Path) -> None:
    objects = Objects.at(root)
    note = _Note(objects, "begun.json", [1], alone=True)
    note.write()
    assert objects.exists("begun.json")
    note.take_back()
    note.write()
    assert not objects.exists("begun.json")
