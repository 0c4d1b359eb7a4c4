"""A report in a browser: nothing is logged, nothing is asked for, and it fits a telephone. Skipped where Chromium is not installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import polars as pl
import pytest

import scythe
from scythe.allocate import BaseExperiment
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.registry import ExperimentRegistry

CHROMIUM = next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium")


class Wall(ExperimentInputSpec):
    r_value_of_the_envelope_without_windows_and_doors: float
    use: str = "office"


class Energy(ExperimentOutputSpec):
    heating: float
    peak: float


def simulate(spec: Wall) -> Energy:
    heating = 80 / spec.r_value_of_the_envelope_without_windows_and_doors
    return Energy(heating=heating, peak=heating + spec.sort_index % 3)


@pytest.fixture
def report(root: Path) -> Path:
    """The report of a run."""
    ExperimentRegistry.Register()(simulate)
    name = next(iter(Wall.model_fields.keys() - {*ExperimentInputSpec.model_fields, "use"}))
    specs = pl.DataFrame({name: [1 + i / 10 for i in range(50)], "use": ["office", "home"] * 25})
    BaseExperiment(simulate).allocate(specs, engine="inline")
    return scythe.report("simulate", to="report.html").resolve()


def browse(page: Path, *options: str) -> tuple[str, list[str]]:
    """What a browser makes of a page, and what it logs about it: errors, and what the page was refused to load."""
    assert CHROMIUM is not None
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--enable-logging=stderr",
        "--disable-background-networking", f"--user-data-dir={page.parent / 'profile'}", *options, "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, re.findall(r"CONSOLE.*", done.stderr)


def test_a_browser_shows_a_report_without_an_error_or_a_request(report: Path) -> None:
    shown, logged = browse(report)
    assert logged == []
    assert "What drives the outputs" in shown
    assert shown.count("<svg") == report.read_text(encoding="utf-8").count("<svg") > 5


def test_a_page_that_asks_for_anything_is_refused_it_and_the_browser_says_so(report: Path) -> None:
    image = '<img src="http://127.0.0.1:9/x.png"><script>1</script></main>'
    report.write_text(report.read_text(encoding="utf-8").replace("</main>", image), encoding="utf-8")
    logged = " ".join(browse(report)[1])
    assert "127.0.0.1:9/x.png" in logged
    assert "script" in logged


def test_a_report_is_no_wider_than_a_telephone(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    measured = "<script>document.title = document.documentElement.scrollWidth + ' of ' + innerWidth</script></main>"
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text).replace("</main>", measured)
    report.write_text(text, encoding="utf-8")
    wide, there = map(int, re.findall(r"<title>(\d+) of (\d+)</title>", browse(report, "--window-size=390,800")[0])[0])
    assert wide <= there < 600
