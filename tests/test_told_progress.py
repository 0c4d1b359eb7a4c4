"""How far a run is never goes back, and its end tells what was found at the end alone."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloudpickle
import polars as pl
import pytest

from scythe import BaseExperiment, ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry
from scythe.allocate import artifacts
from scythe.record.results import ErrorKind
from scythe.terminal import phase
from scythe.terminal.progress import Progress
from scythe.terminal.progress import _bar as progress_bar
from scythe.utils.filesys import FileReference

cloudpickle.register_pickle_by_value(sys.modules[__name__])


def test_a_bar_never_goes_back() -> None:
    shown: list[int] = []
    progress = Progress("x", 300)
    progress._bar = SimpleNamespace(update=lambda _, completed, **__: shown.append(completed))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    for done in (0, 202, 139, 205):
        progress.update(done, 0)
    assert shown == [0, 202, 202, 205]


@pytest.mark.parametrize("first_look", [59, 0], ids=["it found what was done", "it failed"])
def test_the_rate_of_a_run_that_is_resumed_is_that_of_what_comes_now_however_much_comes_at_first(
    monkeypatch: pytest.MonkeyPatch, first_look: int
) -> None:
    """As a cluster tells: nothing for seconds, then what many leaves have done together."""
    shown: list[tuple[str, str]] = []
    now = 100.0
    monkeypatch.setattr("scythe.terminal.progress.time", SimpleNamespace(monotonic=lambda: now))
    progress = Progress("x", 150)
    progress._bar = SimpleNamespace(update=lambda _, rate, left, **__: shown.append((rate, left)))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    for done in (first_look, 59, 59, 79, 88, 97):
        progress.update(done, 0)
        now += 2.0
    assert shown[0] == ("starting", "")
    if first_look:
        assert shown[3:] == [("starting", ""), ("4.5/s", "14s"), ("4.5/s", "12s")]
    else:
        assert max(float(rate.removesuffix("/s")) for rate, _ in shown[3:]) < 6


def test_a_notice_is_shown_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    bar = progress_bar()
    bar.add_task("x", total=1, failed=0, rate="scythe worker /home/[b]/[/old]/wall.py", left="")
    bar.console.print(bar.get_renderable(), width=200)
    assert "scythe worker /home/[b]/[/old]/wall.py" in shown.getvalue()


def test_where_there_is_no_terminal_a_notice_stands_in_each_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing is starting, and no time is left, of a run that waits in a queue."""
    shown = Progress("wait v1.0.0", 5)
    with shown:
        shown.update(0, 0)
        for _ in range(3):
            shown._last_line = -1e9
            shown.update(1, 0, "Slurm job 7 is pending")
    lines = capfd.readouterr().err.splitlines()
    assert lines.count("wait v1.0.0: Slurm job 7 is pending") == 1
    assert lines.count("wait v1.0.0: 1 of 5 done, 0 failed, Slurm job 7 is pending") == 3


def test_a_long_message_is_cut_in_the_middle() -> None:
    def told(message: str) -> str:
        return str(ErrorKind(exception_type="a.Odd", place="", message=message, count=2, first=0))

    assert told("x" * 300) == f"Odd {'x' * 300} (2)"
    text = told("begin " + "x" * 900 + " end")
    assert text.startswith("Odd begin xx")
    assert text.endswith("xx end (2)")
    assert len(text) == len("Odd  (2)") + 300


class Node(ExperimentInputSpec):
    x: int


class Value(ExperimentOutputSpec):
    y: int


def odd_frame(spec: Node) -> Value:
    return Value(y=1, dataframes={"hours": pl.DataFrame({"load": [[1]] if spec.x else [1]})})


def test_a_dataframe_that_fits_no_other_is_told_at_the_end(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ExperimentRegistry.Register(retries=0)(odd_frame)
    _, ref = BaseExperiment(odd_frame).allocate(pl.DataFrame({"x": [0, 0, 1]}), engine="local", workers=1)
    assert ref.result().errors == 1
    said: Any = capfd.readouterr().err
    assert "odd_frame v1.0.0: 1 error: OutputError " in said
    assert "hours" in said


def shout(spec: Node) -> Value:
    raise ValueError("\x1b[2Jgone\rover \udc80")


def test_what_a_terminal_would_take_as_a_command_is_told_as_text(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ExperimentRegistry.Register(retries=0)(shout)
    BaseExperiment(shout).allocate(pl.DataFrame({"x": [0]}), engine="local", workers=1)[1].result()
    said: Any = capfd.readouterr().err
    assert r"\x1b[2Jgone" in said
    assert not {"\x1b", "\r"} & {*said}


class Filed(ExperimentInputSpec):
    weather: FileReference


def length(spec: Filed) -> Value:
    return Value(y=spec.weather.stat().st_size)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownArgumentType]


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def allocate_files(folder: Path) -> None:
    ExperimentRegistry.Register(retries=0)(length)
    for i in range(5):
        (folder / f"{i}.txt").write_text("x" * i)
    BaseExperiment(length).allocate(
        pl.DataFrame({"weather": [str(folder / f"{i}.txt") for i in (0, 1, 2, 3, 4, 4)]}), engine="inline"
    )


def test_a_long_allocation_tells_what_it_is_at_and_a_short_one_nothing(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", quick := Screen())
    allocate_files(tmp_path)
    assert "input" not in quick.getvalue()

    monkeypatch.setattr(artifacts, "_QUIET_SECONDS", 0.0)
    monkeypatch.setattr(phase, "Timer", at_once)
    monkeypatch.setattr(sys, "stderr", shown := Screen())
    allocate_files(tmp_path)

    said = shown.getvalue()
    steps = ("checking the inputs", "reading 5 input files", "storing 5 input files", "storing the inputs")
    assert [step for step in steps if step in said] == list(steps)
    assert [said.index(step) for step in steps] == sorted(said.index(step) for step in steps)
    assert "10/10 bytes" in said


def test_where_there_is_no_terminal_a_long_step_is_one_line(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(phase, "Timer", at_once)
    allocate_files(tmp_path)
    assert capfd.readouterr().err.splitlines()[:2] == ["checking the inputs …", "storing the inputs …"]


def at_once(_: float, show: Callable[[], None]) -> SimpleNamespace:
    """A timer of no time."""
    return SimpleNamespace(start=show, cancel=lambda: None)
