"""The attempts on a run: each tells the code that it ran, and every row the attempt that it came from."""

from __future__ import annotations

import contextlib
import datetime as dt
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import create_model
from typer.testing import CliRunner

import scythe
from scythe.allocate import BaseExperiment
from scythe.cli import app
from scythe.define.schemas import ExperimentSchemas
from scythe.errors import NotFoundError, RunDamaged, VersionError
from scythe.record import lease
from scythe.record.attempt_plan import load_attempt_plan
from scythe.record.attempts import Attempt, latest_attempt
from scythe.record.format import parse_as
from scythe.record.history import attempts_on
from scythe.record.layout import RunKey
from scythe.record.lease import Lease
from scythe.runs.run import ExperimentRun
from scythe_catalog.schema import Column
from scythe_catalog.schema import kinds as k
from scythe_catalog.storage.objects import Objects


class In(scythe.ExperimentInputSpec):
    x: int


class Out(scythe.ExperimentOutputSpec):
    y: int


def test_each_attempt_tells_its_code_and_tasks_tell_the_attempt_of_each_row(root: Path) -> None:
    Path("model.py").write_text(REPAIRED.replace("BODY", 'raise ValueError("broken")'))
    run = _attempted("allocate", "model")
    Path("model.py").write_text(REPAIRED.replace("BODY", "return Answer(y=1)"))
    _attempted("retry", "model")

    first, second = run.attempts
    assert first.provenance is not None
    assert second.provenance is not None
    assert first.provenance.code != second.provenance.code
    assert dict(scythe.read("repaired", table="tasks").select("sort_index", "attempt").rows()) == {0: 1, 1: 2}


REPAIRED = """
import sys
import scythe
from scythe.allocate import BaseExperiment
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.registry import ExperimentRegistry

class Question(ExperimentInputSpec):
    x: int

class Answer(ExperimentOutputSpec):
    y: int

@ExperimentRegistry.Register(name="repaired", retries=0)
def repaired(spec: Question) -> Answer:
    if spec.x == 1:
        BODY
    return Answer(y=0)

def allocate():
    specs = [Question(experiment_id="", sort_index=i, x=i) for i in range(2)]
    BaseExperiment(experiment=repaired).allocate(specs, workers=1)[1].result()

def retry():
    scythe.open_run("repaired").retry_errors(workers=1).result()
"""


def _attempted(what: str, module: str) -> ExperimentRun:
    command = f"import sys; sys.path.insert(0, '.'); import {module}; {module}.{what}()"
    subprocess.run([sys.executable, "-c", command], check=True)
    return scythe.open_run("repaired")


def _registered(x: Any, y: Any, *, broken: bool = False, **more: Any) -> BaseExperiment[Any, Any]:
    """The experiment `changing` with fields of these types; `broken` fails for 1."""
    given = create_model("Given", __base__=scythe.ExperimentInputSpec, x=x)
    found = create_model("Found", __base__=scythe.ExperimentOutputSpec, y=y, **more)

    def changing(spec: Any) -> Any:
        if broken and spec.x == 1:
            raise ValueError("broken")
        return found(y=spec.x)

    changing.__annotations__ = {"spec": given, "return": found}
    return BaseExperiment(scythe.ExperimentRegistry.Register(name="changing", retries=0)(changing))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"x": int, "y": float, "z": (float, 0.0)}, "output.z: added"),
        ({"x": int, "y": (float | None, None)}, "output.y: may be None by now"),
        ({"x": int, "y": str}, "output.y: changed from float to str"),
        ({"x": str, "y": float}, "input.x: changed from int to str"),
        ({"x": int, "y": float, "before": (float, 1.0)}, "output.before: added"),
    ],
)
def test_a_run_is_not_gone_on_with_by_other_models_and_stays_as_it_was(
    changed: dict[str, Any], said: str, root: Path
) -> None:
    _registered(int, float, broken=True).allocate(pl.DataFrame({"x": [0, 1, 2]}), engine="local", workers=1)[1].result()

    _registered(**changed)
    run = scythe.open_run("changing")
    with pytest.raises(VersionError, match=said):
        run.retry_errors(engine="inline")
    _registered(int, float)
    run.retry_errors(engine="inline").result()

    assert scythe.read("changing")["y"].to_list() == [0.0, 1.0, 2.0]


def _ordered(*names: str, broken: bool = False) -> BaseExperiment[Any, Any]:
    found = create_model("Found", __base__=scythe.ExperimentOutputSpec, **dict.fromkeys(names, (float, 1.0)))  # pyright: ignore[reportCallIssue, reportArgumentType]

    def ordered(spec: In) -> Any:
        if broken and spec.x == 1:
            raise ValueError("broken")
        return found()

    ordered.__annotations__["return"] = found
    return BaseExperiment(scythe.ExperimentRegistry.Register(name="ordered", retries=0)(ordered))


def test_fields_in_another_order_are_other_models_to_a_run_that_is_gone_on_with(root: Path) -> None:
    _ordered("y", "q", broken=True).allocate(pl.DataFrame({"x": [0, 1]}), engine="local", workers=1)[1].result()
    run = scythe.open_run("ordered")

    _ordered("q", "y")
    with pytest.raises(VersionError, match="output: its fields stand in another order"):
        run.retry_errors(engine="inline")
    _ordered("y", "q")
    assert run.retry_errors(engine="inline").result().errors == 0


def test_a_run_is_gone_on_with_by_the_function_that_has_its_name(root: Path) -> None:
    def made(name: str, factor: float, broken: bool) -> BaseExperiment[Any, Any]:
        def timed(spec: In) -> Out:
            if broken and spec.x == 1:
                raise ValueError("broken")
            return Out(y=int(factor * spec.x))

        return BaseExperiment(scythe.ExperimentRegistry.Register(name=name, retries=0)(timed))

    made("ahead", 1, broken=False)
    made("zealous", 100, broken=True).allocate(pl.DataFrame({"x": [0, 1]}), engine="local", workers=1)[1].result()
    made("zealous", 100, broken=False)

    scythe.open_run("zealous").retry_errors(engine="inline").result()

    assert scythe.read("zealous")["y"].to_list() == [0, 100]
    experiment = made("zealous", 100, broken=True)
    BaseExperiment(experiment.experiment.target, run_name="other").allocate(
        pl.DataFrame({"x": [0, 1]}), engine="local", workers=1
    )[1].result()
    with pytest.raises(NotFoundError, match="registered as ahead, zealous: register it as 'other'"):
        scythe.open_run("other").retry_errors(engine="inline")


def test_a_column_of_scythes_own_that_older_rows_lack_is_null_for_them(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = {1}

    @scythe.ExperimentRegistry.Register(name="grown", retries=0)
    def grown(spec: In) -> Out:
        if spec.x in failing:
            raise ValueError("not yet")
        return Out(y=spec.x)

    with pytest.raises(ValueError, match="not yet"):
        scythe.BaseExperiment(grown).allocate(pl.DataFrame({"x": [0, 1]}), engine="inline")
    run = scythe.open_run(grown)
    run.resume(engine="inline").result()
    failing.clear()
    peak = Column("peak", k.Float(), True, "Memory.", "MB")
    before = ExperimentSchemas.tables.make
    monkeypatch.setattr(
        ExperimentSchemas,
        "tables",
        property(lambda self: {**before(self), "tasks": before(self)["tasks"].plus((peak,))}),  # pyright: ignore[reportUnknownLambdaType]
    )

    run.retry_errors(engine="inline").result()

    tasks = pl.read_parquet(run.objects.folder / run.key.final("tasks"))  # pyright: ignore[reportOptionalOperand]
    assert tasks.select("sort_index", "attempt", "peak").rows() == [(0, 1, None), (1, 3, None)]


def test_an_attempt_that_cannot_be_begun_is_given_back(root: Path) -> None:
    objects, key = Objects.at(root), RunKey("e", "v1.0.0", "2026-02-03_09-41-27")

    def fails(number: int) -> None:
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        Lease(objects, key, "local", taken=fails)
    last = latest_attempt(objects, key)
    assert last is not None
    assert last.ended


def test_a_plan_of_an_attempt_that_lacks_its_inputs_is_damaged(root: Path) -> None:
    objects, key = Objects.at(root), RunKey("e", "v1.0.0", "2026-02-03_09-41-27")
    objects.write(key.attempt_plan(1), b'{"number": 1}')

    with pytest.raises(RunDamaged, match=r"000001\.json is incomplete"):
        load_attempt_plan(objects, key, 1)


ENDS = """
import os, sys
import polars as pl
import scythe

class In(scythe.ExperimentInputSpec):
    x: int

class Out(scythe.ExperimentOutputSpec):
    y: int

@scythe.ExperimentRegistry.Register(retries=0)
def ends(spec: In) -> Out:
    if spec.x == 1:
        HOW
    return Out(y=1)

if __name__ == "__main__":
    scythe.BaseExperiment(ends).allocate(pl.DataFrame({"x": [0, 1, 2]}), engine="inline", chunk=1)[1].result()
"""


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("os.kill(os.getpid(), 9)", "its process is gone, and could not say why"),
        ("raise KeyboardInterrupt", "interrupted"),
        ("sys.exit(3)", r"the function ended the program: sys.exit\(3\)"),
    ],
)
def test_an_attempt_that_stopped_says_why_and_how_to_go_on(root: Path, how: str, told: str) -> None:
    Path("ends.py").write_text(ENDS.replace("HOW", how))
    subprocess.run([sys.executable, "ends.py"], check=False, capture_output=True, timeout=120)
    run = scythe.open_run("ends")
    (attempt,) = run.attempts
    assert re.search(told, attempt.stopped or "")
    shown = CliRunner().invoke(app, ["show", "ends"]).output
    assert re.search(rf"attempt 1 stopped: {told}", " ".join(shown.split()))
    assert f'scythe resume "{run.experiment_id}"' in shown
    with Lease(run.objects, run.key, "local"):
        first, now = run.attempts
    assert first.stopped == attempt.stopped, "also when another has taken it up"
    assert now.stopped is None


class Odd(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("s3://key:hunter2secret@host/a"), r"ValueError: s3://\S*@host/a"),
        (Odd(), "^Odd$"),
        (ValueError(), "^ValueError$"),
        (RuntimeError("a worker died:\n  File x\nKeyError: 'a'"), "^RuntimeError: a worker died: KeyError: 'a'$"),
        (ValueError("x" * 5000), "^ValueError: x{100,290}$"),
        (ValueError("\ud800"), r"^ValueError: \?$"),
    ],
    ids=range(6),
)
def test_a_reason_is_one_line_without_secrets(root: Path, error: Exception, told: str) -> None:
    objects, key = Objects.at(root), RunKey("e", "v1.0.0", "2026-01-01_00-00-00")
    with pytest.raises(type(error)), Lease(objects, key, "local"):
        raise error
    (attempt,) = attempts_on(objects, key)
    assert re.search(told, attempt.stopped or "")
    assert "hunter2secret" not in (attempt.stopped or "")


def test_an_attempt_that_came_to_its_end_stopped_for_nothing(root: Path) -> None:
    objects, key = Objects.at(root), RunKey("e", "v1.0.0", "2026-01-01_00-00-00")
    with pytest.raises(OSError, match="no space"), Lease(objects, key, "local"):
        raise OSError("no space")
    with Lease(objects, key, "local"):
        assert [a.stopped for a in attempts_on(objects, key)] == ["OSError: no space", None]
    assert [a.stopped for a in attempts_on(objects, key)] == ["OSError: no space", None]


def test_an_attempt_that_is_moved_to_another_process_keeps_its_beginning_and_counts_what_was_worked_on_it_before(
    root: Path,
) -> None:
    objects, key = Objects.at(root), RunKey("e", "v1.0.0", "2026-01-01_00-00-00")
    with Lease(objects, key, "hatchet", run="a", number=1) as first:
        assert first.before == 0
    killed = latest_attempt(objects, key)
    assert killed is not None
    objects.write(f"{key.attempts}/000001.json", replace(killed, began=1e9, worked=100.0, ended=False).to_json())

    with Lease(objects, key, "hatchet", run="a", number=1) as moved:
        assert moved.before == 100

    ended = latest_attempt(objects, key)
    assert ended is not None
    assert 100 <= ended.worked < 160
    assert (ended.began, ended.tries) == (1e9, 2)
    assert [a.began for a in attempts_on(objects, key)] == [dt.datetime(2001, 9, 9, 1, 46, 40, tzinfo=dt.UTC)]


@pytest.fixture
def at_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Objects, RunKey]:
    """A root and a run, whose leases beat as often as they look."""
    monkeypatch.setattr(lease, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(lease, "_BEAT_SECONDS", 0.0)
    return Objects.at(root), RunKey("e", "v1.0.0", "2026-01-01_00-00-00")


@pytest.mark.parametrize("ends_first", ["the later", "the earlier"])
def test_a_try_that_a_later_one_has_replaced_leaves_the_record_to_it(
    at_once: tuple[Objects, RunKey], ends_first: str
) -> None:
    """The engine tries a task again whose worker it takes for lost, and which works on all the same."""
    objects, key = at_once

    def status() -> tuple[bool, str]:
        found = latest_attempt(objects, key)
        assert found is not None
        return found.ended, found.heart

    with Beaten(objects, key, "hatchet", run="a", number=1) as earlier:
        first = status()
        with earlier.between_beats():
            later = Beaten(objects, key, "hatchet", run="a", number=1)
        with later:
            mine = (False, status()[1])
            assert mine != first
            earlier.beats(2)
            assert status() == mine
            if ends_first == "the earlier":
                earlier.end()
                later.beats(2)
                assert status() == mine
        if ends_first == "the later":
            earlier.beats(2)
    assert status() == (True, mine[1])


def test_a_try_that_was_replaced_while_it_wrote_its_record_loses_it_to_the_later_at_the_next_beat(
    at_once: tuple[Objects, RunKey],
) -> None:
    objects, key = at_once
    record = f"{key.attempts}/000001.json"
    with Beaten(objects, key, "hatchet", run="a", number=1) as earlier:
        with earlier.between_beats():
            of_the_earlier = objects.read(record)
            later = Beaten(objects, key, "hatchet", run="a", number=1)
            with later.between_beats():
                of_the_later = objects.read(record)
                objects.write(record, of_the_earlier)
            later.beats(2)
        with later:
            earlier.beats(2)
            assert _heart(objects.read(record)) == _heart(of_the_later) != _heart(of_the_earlier)
    assert _heart(objects.read(record)) == _heart(of_the_later)


def _heart(record: bytes) -> str:
    return parse_as(Attempt, record, "the record").heart


class Beaten(Lease):
    """A lease whose beats can be waited for, and held back while a test changes what they look at."""

    def __init__(self, objects: Objects, key: RunKey, engine: str, **how: Any) -> None:
        self._beaten, self._beating = threading.Event(), threading.RLock()
        super().__init__(objects, key, engine, **how)

    def beats(self, n: int) -> None:
        for _ in range(n + 1):  # the first may have been under way
            self._beaten.clear()
            assert self._beaten.wait(30.0)

    @contextlib.contextmanager
    def between_beats(self) -> Iterator[None]:
        with self._beating:
            yield

    def _keep(self, ended: bool = False, reason: str = "") -> None:
        with self._beating:
            try:
                super()._keep(ended, reason)
            finally:
                self._beaten.set()


def test_a_record_that_is_damaged_is_mended_by_the_next_beat_and_one_that_is_gone_stays_so(
    at_once: tuple[Objects, RunKey],
) -> None:
    objects, key = at_once
    record = f"{key.attempts}/000001.json"
    with Beaten(objects, key, "hatchet", run="a", number=1) as held:
        with held.between_beats():
            objects.write(record, b"")
        held.beats(2)
        last = latest_attempt(objects, key)
        assert last is not None
        assert last.alive
        with held.between_beats():
            objects.delete([record])
        held.beats(2)
        assert not objects.exists(record)
    assert not objects.exists(record)
