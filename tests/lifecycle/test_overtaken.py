"""A process that stood still while another took up its run: it says so and ends, and changes nothing of the new end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import scythe
from scythe.allocate import BaseExperiment
from scythe.errors import Superseded
from scythe.record import attempts
from scythe.record.layout import RunKey
from scythe_catalog.storage.objects import Objects
from tests.cluster import wait_for

SCRIPT = """
import sys, time
from pathlib import Path
from scythe.errors import Superseded
from scythe.record import attempts
from scythe.allocate import BaseExperiment
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.registry import ExperimentRegistry

attempts._BEAT_SECONDS = 0.05


class Step(ExperimentInputSpec):
    x: int


class Where(ExperimentOutputSpec):
    by: str


@ExperimentRegistry.Register(name="slow")
def slow(spec: Step) -> Where:
    Path(f"began-{spec.x}").touch()
    while spec.x == 1 and not Path("go on").exists():
        time.sleep(0.01)
    return Where(by=Path("who").read_text())


if __name__ == "__main__":
    specs = [Step(experiment_id="", sort_index=i, x=i) for i in range(4)]
    run, ref = BaseExperiment(experiment="slow").allocate(specs, engine=sys.argv[1], workers=1)
    ref.result()
"""


@pytest.mark.parametrize("engine", ["inline", "local"])
def test_a_process_that_was_overtaken_says_so_and_its_late_rows_count_for_nothing(
    root: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("steps.py").write_text(textwrap.dedent(SCRIPT))
    Path("who").write_text("the first")
    first = subprocess.Popen([sys.executable, "steps.py", engine], stderr=subprocess.PIPE, text=True)
    wait_for(lambda: Path("began-1").exists())
    run = BaseExperiment(experiment=_loaded()).latest_run()
    assert run is not None

    os.kill(first.pid, signal.SIGSTOP)
    Path("go on").touch()
    Path("who").write_text("the second")
    monkeypatch.setattr(attempts, "_DEAD_SECONDS", -1.0)
    second = run.resume(engine="inline").result()
    os.kill(first.pid, signal.SIGCONT)
    _, said = first.communicate(timeout=60)

    assert first.returncode != 0
    assert "was taken over by another process while this one stood still" in said
    assert run.result == second
    rows = scythe.read("slow", run=run).select("x", "by").rows()
    assert len(rows) == 4, "what it had finished is not shown beside the new end"
    by = dict(rows)
    assert [by.pop(x) for x in (1, 2, 3)] == ["the second"] * 3
    assert by.keys() == {0}, "which of the two did what was done before depends on whether it was kept in time"
    assert not run.objects.files(run.key.parts) or run.retry_errors(engine="inline").result().rows == 4


def _loaded() -> object:
    sys.path.insert(0, str(Path.cwd()))
    try:
        import steps  # pyright: ignore[reportMissingImports]
    finally:
        sys.path.pop(0)
    sys.modules.pop("steps")
    return steps.slow


def test_a_process_whose_root_is_elsewhere_by_now_is_told_so_and_not_that_its_run_was_deleted(tmp_path: Path) -> None:
    """As where a link to the root was turned meanwhile."""
    key = RunKey("slow", "v1.0.0", "2026-01-01_00-00-00")
    with pytest.raises(Superseded, match=r"is not in file://.* any more: was the root moved, or a link to it turned"):
        attempts.check_newest(Objects.at(tmp_path / "empty"), key, 1)
    (tmp_path / "empty" / key.tombstone).parent.mkdir(parents=True)
    (tmp_path / "empty" / key.tombstone).write_text("{}")
    with pytest.raises(Superseded, match="was deleted while this process stood still"):
        attempts.check_newest(Objects.at(tmp_path / "empty"), key, 1)
