"""Allocations, growths, kills, resumes, retries, cancellations, deletions, moves and rebuilds in any order: held against a model.

The model knows of each run which inputs must have a row, which must have none, and which may. Kills are those of `dying`: from
a chosen change on nothing is written any more. What is read, the catalog and the listing must agree with it at all times.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

import scythe
from scythe.allocate import BaseExperiment, ExperimentRun
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.errors import RunError, ScytheError
from scythe.gather.publish import settle_all, unpublished
from scythe.record.generations import catalog_of
from scythe.record.layout import RunKey
from scythe.registry import ExperimentRegistry
from scythe.reuse.owners import dependants_of
from scythe.runs.rebuild import rebuild
from scythe.settings import storage
from scythe.utils.filesys import FileReference
from tests.lifecycle.dying import Dead, dying
from tests.s3_server import S3Server

NAME = "orders"
#: Names the inputs that fail. They lie in the world outside: what a function reads in its own process is part of its code.
BROKEN = "SCYTHE_TESTS_BROKEN_ORDERS"


class Order(ExperimentInputSpec):
    x: int


class Price(ExperimentOutputSpec):
    y: int
    bill: FileReference


class Broken(Exception):
    """What the function raises for inputs that fail."""


def broken() -> set[int]:
    return {int(x) for x in os.environ[BROKEN].split()}


@dataclass
class Known:
    """What the model knows of one run."""

    inputs: int
    #: Inputs that were seen to have a row: they keep it.
    rows: set[int] = field(default_factory=set[int])
    #: Inputs that were seen to have come to an end.
    done: set[int] = field(default_factory=set[int])


class AnyOrder(RuleBasedStateMachine):
    """The state of one root, and the model of what must be there."""

    #: Makes an empty root and gives what undoes it.
    make_root: Callable[[], contextlib.AbstractContextManager[Any]]
    can_move = True

    def __init__(self) -> None:
        super().__init__()
        self.runs: dict[RunKey, Known] = {}
        self.deleted: set[RunKey] = set()
        #: Whether a rebuild was killed, and none has ended since: runs may still be on their way into the catalog.
        self.rebuild_died = False
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(self.make_root())
        self._before = dict(ExperimentRegistry._experiments)
        os.environ[BROKEN] = ""
        #: The inputs that the function was called with since the last growth began.
        self.called: list[int] = []
        called = self.called

        @ExperimentRegistry.Register(name=NAME, retries=0)
        def price(spec: Order, tempdir: Path) -> Price:
            called.append(spec.x)
            if spec.x in broken():
                raise Broken(f"{spec.x} is broken")
            lines = pl.DataFrame({"line": [0, 1], "wait": [dt.timedelta(seconds=spec.x), None]})
            bill = tempdir / "bill.txt"
            bill.write_text(f"{spec.x}")
            return Price(y=10 * spec.x, bill=bill, dataframes={"lines": lines})

        self.experiment = BaseExperiment(experiment=NAME)

    def teardown(self) -> None:
        ExperimentRegistry._experiments.clear()
        ExperimentRegistry._experiments.update(self._before)
        del os.environ[BROKEN]
        self._stack.close()

    # --- what may happen ----------------------------------------------------------------------------

    @rule(x=st.integers(0, 4))
    def break_or_mend(self, x: int) -> None:
        os.environ[BROKEN] = " ".join(map(str, broken() ^ {x}))

    @rule(
        n=st.integers(1, 5),
        version=st.sampled_from(["keep", "bumpminor", "bumpmajor"]),
        killed=st.none() | st.integers(0, 60),
    )
    def allocate(self, n: int, version: str, killed: int | None) -> None:
        specs = pl.DataFrame({"x": range(n)})
        self._act(killed, lambda: self.experiment.allocate(specs, version=version, engine="inline"))
        for key in self._there() - self.runs.keys():
            self.runs[key] = Known(self._open(key).inputs)

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), n=st.integers(1, 7), killed=st.none() | st.integers(0, 80), own_key=st.booleans())
    def grow(self, data: st.DataObject, n: int, killed: int | None, own_key: bool) -> None:
        version = data.draw(st.sampled_from(sorted({key.version for key in self.runs})))
        # A run whose deletion was begun answers nothing.
        asked = [k for k in self.runs if k.version == version and not storage().exists(k.tombstone)]
        known = {x for key in asked for x in self.runs[key].rows}
        specs, own = pl.DataFrame({"x": range(n)}), f"{version} {n}" if own_key else None
        self.called.clear()
        self._act(killed, lambda: self.experiment.allocate(specs, version, reuse=True, key=own, engine="inline"))
        for key in self._there() - self.runs.keys():
            self.runs[key] = Known(self._open(key).inputs)
            assert not known & {*self.called}, "an input was run again of which there was a row"
            assert {*range(n)} - known >= {*self.called}

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), killed=st.none() | st.integers(0, 60))
    def resume(self, data: st.DataObject, killed: int | None) -> None:
        run = self._open(data.draw(st.sampled_from(sorted(self.runs))))
        self._act(killed, lambda: run.resume(engine="inline"))

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), killed=st.none() | st.integers(0, 60))
    def retry(self, data: st.DataObject, killed: int | None) -> None:
        run = self._open(data.draw(st.sampled_from(sorted(self.runs))))
        self._act(killed, lambda: run.retry_errors(engine="inline"))

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        run = self._open(data.draw(st.sampled_from(sorted(self.runs))))
        with contextlib.suppress(RunError):  # a finished run cannot be cancelled
            run.cancel()

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), killed=st.none() | st.integers(0, 20))
    def delete(self, data: st.DataObject, killed: int | None) -> None:
        key = data.draw(st.sampled_from(sorted(self.runs)))
        try:
            self._act(killed, self._open(key).delete)
        except RunError:
            assert dependants_of(storage(), key), "nobody names its files"
        if key not in self._there():
            del self.runs[key]
            self.deleted.add(key)

    @rule(killed=st.none() | st.integers(0, 80))
    def rebuild(self, killed: int | None) -> None:
        self.rebuild_died = self._act(killed, lambda: rebuild(storage()))

    @precondition(lambda self: self.can_move and self.runs)
    @rule()
    def move(self) -> None:
        old = Path(os.environ["SCYTHE_STORAGE_ROOT"])
        new = Path(tempfile.mkdtemp(dir=old.parent)) / "root"
        shutil.move(old, new)
        os.environ["SCYTHE_STORAGE_ROOT"] = str(new)
        rebuild(storage())
        self.rebuild_died = False

    def _act(self, killed: int | None, act: Callable[[], Any]) -> bool:
        """Whether it was killed before its end."""
        with contextlib.suppress(Broken):
            if killed is None:
                act()
                return False
            with dying(killed):
                try:
                    act()
                except Dead:
                    return True
        return False

    # --- what must hold -----------------------------------------------------------------------------

    @invariant()
    def the_root_is_as_the_model_says(self) -> None:
        self.each_run_shows_each_input_once_and_loses_none()
        self.what_is_deleted_is_gone()
        self.all_runs_together_are_the_runs_one_by_one()
        self.the_catalog_shows_what_is_published()

    def each_run_shows_each_input_once_and_loses_none(self) -> None:
        listed = {(r["version"], r["run"]): r for r in self._listed()}
        for key, known in self.runs.items():
            run = self._open(key)
            tables = {t: scythe.read(NAME, table=t, run=run) for t in ("scalars", "errors", "tasks")}
            rows, errors, tasks = ({*f["sort_index"].to_list()} for f in tables.values())
            assert [f.height for f in tables.values()] == [len(rows), len(errors), len(tasks)], "an input stands twice"
            assert not rows & errors
            assert rows | errors == tasks
            assert tables["scalars"]["y"].to_list() == [10 * x for x in sorted(rows)]
            assert known.rows <= rows, "a row was lost"
            assert known.done <= tasks, "an input that had come to an end is open again"
            known.rows, known.done = rows, tasks
            told = listed[key.version, key.folder]
            assert (told["rows"], told["errors"]) == (len(rows), len(errors))
            if told["status"] == "finished":
                assert tasks == set(range(known.inputs))
                if rows:
                    bills = scythe.files(NAME, run=run)["bill"]
                    assert [scythe.fetch(uri).read_text() for uri in bills] == [f"{x}" for x in sorted(rows)]
                    lines = scythe.read(NAME, table="lines", run=run)
                    assert lines["wait"].to_list() == [w for x in sorted(rows) for w in (dt.timedelta(seconds=x), None)]

    def what_is_deleted_is_gone(self) -> None:
        assert not self.deleted & self._there()

    def all_runs_together_are_the_runs_one_by_one(self) -> None:
        finished = [k for k in self.runs if self._open(k).status == "finished"]
        if not finished:
            return
        together = scythe.read(NAME, "all", run="all").group_by("experiment_id").len()
        counts = dict(together.rows())
        for key in finished:
            assert counts.pop(key.path, 0) == len(self.runs[key].rows)
        assert not {path for path in counts if path not in {k.path for k in self.runs}}, "rows of no run"

    def the_catalog_shows_what_is_published(self) -> None:
        objects = storage()
        if not self.runs:
            return
        settle_all(objects, catalog_of(objects), NAME)
        on_their_way = unpublished(objects, NAME)
        assert self.rebuild_died or not on_their_way
        for key in self.runs:
            result = self._open(key).result
            if result is None or key in on_their_way:
                continue
            for name, table in result.tables.items():
                opened = catalog_of(objects).table(NAME, table.catalog_table)
                assert opened.files(key.partition) == ([table.uri] if table.rows else []), name

    def _listed(self) -> list[dict[str, Any]]:
        try:
            return scythe.list_runs(NAME).to_dicts()
        except ScytheError:
            return []

    def _there(self) -> set[RunKey]:
        whole = ("allocated", "running", "incomplete", "finished", "cancelled")
        return {RunKey(NAME, r["version"], r["run"]) for r in self._listed() if r["status"] in whole}

    def _open(self, key: RunKey) -> ExperimentRun:
        return scythe.open_run(NAME, key.version, key.folder)


@contextlib.contextmanager
def on_disk() -> Iterator[None]:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCYTHE_STORAGE_ROOT", f"{folder}/root")
        patch.delenv("SCYTHE_STORAGE_BUCKET", raising=False)
        yield


#: A failure is told with the steps that led to it as they were drawn: to make them fewer would outlast the limit of a test.
STEPS = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "phases": (Phase.explicit, Phase.reuse, Phase.generate),
}


def test_any_order_of_events_on_a_disk_leaves_what_the_model_says(root: Path) -> None:
    class OnDisk(AnyOrder):
        make_root = staticmethod(on_disk)

    run_state_machine_as_test(OnDisk, settings=settings(max_examples=8, stateful_step_count=12, **STEPS))


def test_any_order_of_events_in_a_bucket_leaves_what_the_model_says(
    bucket: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.contextmanager
    def in_bucket() -> Iterator[None]:
        monkeypatch.setenv("SCYTHE_STORAGE_BUCKET", s3.new_bucket())
        yield

    class InBucket(AnyOrder):
        make_root = staticmethod(in_bucket)
        can_move = False

    run_state_machine_as_test(InBucket, settings=settings(max_examples=2, stateful_step_count=8, **STEPS))
