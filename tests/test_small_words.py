"""What the command line says in passing: names, plurals, links and near misses."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloudpickle
import polars as pl
import pyarrow as pa
import pytest
from typer.testing import CliRunner

import scythe
from scythe import BaseExperiment, ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry
from scythe.cli import app
from scythe.cli.shown import counted, link_of
from scythe.errors import NotFoundError
from scythe.gather.error_kinds import ErrorKinds
from scythe.terminal import progress as bars
from scythe.utils.filesys import FileReference

cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Wall(ExperimentInputSpec):
    u: float
    plan: FileReference


class Loss(ExperimentOutputSpec):
    q: float


def wall_loss(spec: Wall) -> Loss:
    if spec.u < 0:
        raise ValueError("negative")
    return Loss(q=spec.u)


@pytest.fixture
def run(root: Path) -> Any:
    ExperimentRegistry.Register(retries=0)(wall_loss)
    Path("plan.txt").write_text("x")
    specs = pl.DataFrame({"u": [1.0, 2.0], "plan": ["plan.txt"] * 2})
    run, ref = BaseExperiment(wall_loss).allocate(specs, engine="inline", tags=["paper"])
    ref.result()
    return run


def said(*words: str) -> str:
    return CliRunner().invoke(app, list(words)).output


def test_listings_name_what_they_are_about(run: Any) -> None:
    name = run.experiment_id
    assert said("errors", "wall_loss").startswith(f"{name}: no errors")
    assert "no run has the tag 'nope'" in said("runs", "wall_loss", "--tag", "nope")
    assert said("runs", "wall_loss").splitlines()[0].split()[-2:] == ["tables", "tags"]
    assert "2: 2 rows, 0 errors" in said("show", "wall_loss")
    with pytest.raises(NotFoundError, match=r"no input 4000: its inputs are 0 to 1"):
        CliRunner().invoke(app, ["logs", "wall_loss", "4000"], catch_exceptions=False)


def test_a_report_of_slowest_inputs_names_files_without_their_folders(run: Any) -> None:
    pytest.importorskip("matplotlib")
    page = scythe.report(run).read_text()
    slowest = page.split("Slowest inputs")[1].split("</table>")[0]
    assert ">plan.txt<" in slowest


def test_a_report_tells_which_share_of_all_inputs_fails_in_each_way() -> None:
    from scythe.reporting.facts import Failures, Kind
    from scythe.reporting.page import _failures

    kinds = (Kind("Odd", "it is odd", "", 1, 0, ()), Kind("Late", "it is late", "", 1, 3, ()))
    facts: Any = SimpleNamespace(failures=Failures(2, 20, kinds))
    _, shown = _failures(facts)
    assert shown.count('<td class="number">5 %</td>') == 2


def test_names_that_are_nearly_there_are_offered(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("wall.py").write_text("def wall_loss(): pass\n")
    monkeypatch.delitem(sys.modules, "wall", raising=False)
    with pytest.raises(NotFoundError, match=r"wall.py has no 'wall_los': did you mean 'wall_loss'\?"):
        CliRunner().invoke(app, ["spec", "wall.py:wall_los"], catch_exceptions=False)


def test_one_thing_is_no_plural_and_links_have_no_blanks() -> None:
    assert [counted(n, "file") for n in (0, 1, 1200)] == ["0 files", "1 file", "1,200 files"]
    assert link_of("file:///a b/c") == "file:///a%20b/c"
    assert link_of("s3://a b/c") == "s3://a b/c"


def test_a_failing_input_is_told_by_the_names_of_its_files() -> None:
    rows = {
        "sort_index": [7], "plan": ["s3://bucket/deep/folder/plan.txt?key=1"], "exception_type": ["ValueError"],
        "exception_message": ["no"], "traceback": [""], "attempts": [1],
    }  # fmt: skip
    (news,) = ErrorKinds().add(pa.table(rows))
    assert news.text == "input 7 failed (plan='plan.txt'): ValueError: no"


def test_a_notebook_shows_how_long_a_short_run_took(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []

    class Place:
        def __init__(self, html: str, text: str) -> None:
            shown.append(text)

        def update(self, html: str, text: str) -> None:
            shown.append(text)

    monkeypatch.setattr(bars, "place", lambda: Place)
    now = [100.0]
    monkeypatch.setattr(bars.time, "monotonic", lambda: now[0])
    with bars.Progress("x", 2) as bar:
        now[0] = 103.13
        bar.update(0, 0)
    assert shown[-1].endswith("in 3.1s")


def test_a_trial_says_nothing_but_itself(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ExperimentRegistry.Register(retries=0)(wall_loss)
    Path("plan.txt").write_text("x")
    trial = BaseExperiment(wall_loss).try_out(pl.DataFrame({"u": [-1.0], "plan": ["plan.txt"]}), n=1)
    assert trial.errors.height == 1
    assert capfd.readouterr().err == ""
    assert trial._repr_html_().startswith('<pre style="font-family:monospace;line-height:1.4">')
