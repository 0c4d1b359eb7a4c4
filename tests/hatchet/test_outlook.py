"""What keeps a run from going on is told where its user looks, within seconds: by who waits for it, and by `scythe show`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import scythe
from tests.cluster import PATIENCE, wait_for
from tests.hatchet.sites import Cluster, calls, check, wait_for_calls

SHOW = [sys.executable, "-c", "from scythe.cli import main; main()", "show"]


def shown(run: Any) -> str:
    done = subprocess.run([*SHOW, run.experiment_id], capture_output=True, text=True, check=True, timeout=PATIENCE)
    return done.stdout


def told(capsys: pytest.CaptureFixture[str]) -> Callable[[str], bool]:
    """Whether a text has been written to standard error by now."""
    before: list[str] = []

    def look(text: str) -> bool:
        before.append(capsys.readouterr().err)
        return text in "".join(before)

    return look


def test_labels_that_no_worker_has_are_named_until_one_comes(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    site, look = cluster.site("plain"), told(capsys)
    with site.worker("--slots", "1"), ThreadPoolExecutor(1) as threads:
        site.served("gpu")
        _, specs = site.orders("fine", "fine")
        run, ref = site.allocate("gpu", specs, chunk=1)
        waiting = threads.submit(ref.result, timeout=PATIENCE)
        wait_for(lambda: look("no worker that is connected has the labels SCYTHE_WORKER_HAS_GPU=yes"), 30.0)
        assert "SCYTHE_WORKER_HAS_GPU=yes" in shown(run)
        with site.worker("--slots", "1", "--leaf-only", SCYTHE_WORKER_HAS_GPU="true"):
            waiting.result()
    check(run, good=[0, 1])


def test_workers_that_have_all_gone_are_missed_and_what_was_done_is_counted(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    site, look = cluster.site("gone"), told(capsys)
    with site.worker("--slots", "1", "--fan-only") as fan:
        with site.worker("--slots", "2", "--leaf-only") as leaf, ThreadPoolExecutor(1) as threads:
            site.served("obey")
            scratch, specs = site.orders("fine", "raises", "waits")
            run, ref = site.allocate("obey", specs, chunk=1)
            wait_for_calls(scratch, 0, 1, 2)
            wait_for(lambda: len(calls(scratch)) == 3 and _counts(run) == (1, 1))
            assert "1 row, 1 error" in shown(run)
            waiting = threads.submit(ref.result, timeout=PATIENCE)
            leaf.kill(machine=True)
            wait_for(lambda: look("no worker that is connected has the task"), 60.0)
            assert "scythe worker" in shown(run)
            (scratch / "gate").touch()
            with site.worker("--slots", "2", "--leaf-only"):
                waiting.result()
        assert fan.process.poll() is None
    check(run, good=[0, 2], bad=[1])


def _counts(run: Any) -> tuple[int, int]:
    row = scythe.list_runs(run.experiment).row(0, named=True)
    return row["rows"], row["errors"]
