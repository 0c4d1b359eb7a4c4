"""What a person sees in a notebook: cards of runs, a bar that stays, names to complete. Executed in Jupyter and in marimo."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import polars as pl
import pytest
from nbclient import NotebookClient

import scythe
from scythe.allocate import ExperimentRun
from scythe.engines.card import run_html
from scythe.terminal.cards import Card, html
from scythe.terminal.notebook import place

REPOSITORY = Path(__file__).resolve().parents[1]

_SIMULATION = """
import polars as pl
import scythe
from scythe import BaseExperiment, ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry

class BuildingInput(ExperimentInputSpec):
    setpoint: float

class BuildingOutput(ExperimentOutputSpec):
    heating: float

@ExperimentRegistry.Register(retries=0)
def simulate_energy(input_spec: BuildingInput) -> BuildingOutput:
    if input_spec.setpoint > 26:
        raise ValueError("<b>too warm</b> & dry")
    return BuildingOutput(heating=2 * input_spec.setpoint)

specs = pl.DataFrame({"setpoint": [float(s) for s in range(20, 30)]})
"""
_COMPLETE = """
import json
from IPython.core.completer import provisionalcompleter
with provisionalcompleter():
    found = {t: [c.text for c in get_ipython().Completer.completions(t, len(t))] for t in ("run.", "ref.", "result.")}
print(json.dumps(found))
"""
_STOP = """
try:
    run.retry_errors(engine="local", workers=1, max_errors=1).result()
except scythe.ScytheError as error:
    print(type(error).__name__)
"""
_MARIMO = """
import marimo
app = marimo.App()

@app.cell
def _():
SIMULATION
    return BaseExperiment, simulate_energy, specs

@app.cell
def _(BaseExperiment, simulate_energy, specs):
    run, ref = BaseExperiment(simulate_energy).allocate(specs, engine="local", workers=1)
    return run, ref

@app.cell
def _(ref):
    result = ref.result()
    return (result,)

@app.cell
def _(result):
    result

@app.cell
def _(result, run):
    result and run

@app.cell
def _(ref, result):
    result and ref
"""
_CELLS = {
    "define": _SIMULATION,
    "allocate": "run, ref = BaseExperiment(simulate_energy).allocate(specs, engine='local', workers=1)",
    "wait": "result = ref.result()",
    "run": "run",
    "ref": "ref",
    "result": "result",
    "finished ref": "run.resume()",
    "complete": _COMPLETE,
    "stop": _STOP,
}


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, list[Any]]:
    """A notebook, executed, saved and read again: name of a cell -> its outputs."""
    folder = tmp_path_factory.mktemp("notebook")
    written = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in _CELLS.values()])
    client = NotebookClient(written, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    client.execute(env=_environment(folder))
    nbformat.write(written, folder / "saved.ipynb")
    saved = nbformat.read(folder / "saved.ipynb", as_version=4)
    nbformat.validate(saved)
    return {name: cell.outputs for name, cell in zip(_CELLS, saved.cells, strict=True)}


def _environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SCYTHE_", "PYTEST_"))}
    path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "catalog")])
    return {**kept, "SCYTHE_STORAGE_ROOT": str(folder / "root"), "PYTHONPATH": path}


def test_the_bar_of_a_saved_notebook_is_one_output_that_tells_how_it_ended(notebook: Mapping[str, list[Any]]) -> None:
    (bar,) = notebook["allocate"]
    assert sorted(bar.data) == ["text/html", "text/plain"]
    assert "finished" in bar.data["text/html"]
    assert "10 of 10 inputs" in _words(bar.data["text/html"])
    assert "3 failed" in _words(bar.data["text/html"])
    assert bar.data["text/plain"].startswith("simulate_energy v1.0.0: finished, 10 of 10 done, 3 failed, in ")


def test_the_first_failure_stands_in_the_bar(notebook: Mapping[str, list[Any]]) -> None:
    (bar,) = notebook["allocate"]
    assert "input 7 failed (setpoint=27.0): ValueError: <b>too warm</b> & dry" in _words(bar.data["text/html"])
    assert "3 errors: ValueError" in bar.data["text/plain"]


def test_waiting_for_a_run_prints_nothing(notebook: Mapping[str, list[Any]]) -> None:
    assert notebook["wait"] == []


def test_the_bar_of_a_run_that_stopped_says_so(notebook: Mapping[str, list[Any]]) -> None:
    bar, printed = sorted(notebook["stop"], key=lambda output: output.output_type)
    assert printed.text == "TooManyErrors\n"
    assert "incomplete" in _words(bar.data["text/html"])


@pytest.mark.parametrize("what", ["run", "ref", "result", "finished ref"])
def test_a_run_its_reference_and_its_result_are_cards(notebook: Mapping[str, list[Any]], what: str) -> None:
    (output,) = notebook[what]
    shown = output.data["text/html"]
    words = _words(shown)
    assert re.search(r"simulate_energy/v1\.0\.0/\d{4}-", words)
    assert "finished" in words
    assert "10 of 10 inputs · 3 failed" in words
    assert "ValueError <b>too warm</b> & dry (3)" in words
    assert re.search(r'<a href="root/simulate_energy/v1\.0\.0/[\d_-]+/manifest\.yml">file:///', shown)


def test_a_notebook_offers_the_names_of_a_run_and_none_that_every_model_has(notebook: Mapping[str, list[Any]]) -> None:
    (printed,) = notebook["complete"]
    offered = {name: {text.lstrip(".") for text in texts} for name, texts in json.loads(printed.text).items()}
    verbs = {
        "status",
        "problem",
        "attempts",
        "result",
        "outlook",
        "resume",
        "extend",
        "retry_errors",
        "wait",
        "cancel",
        "delete",
        "key",
    }
    fields = set(ExperimentRun.model_fields)
    assert offered["run."] == verbs | fields
    assert {"result", "aio_result", "cancel", "workflow_run_id"} <= offered["ref."]
    assert {"rows", "errors", "error_kinds", "uris"} <= offered["result."]
    assert not {"model_dump", "json", "copy"} & offered["result."]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What the cells of a marimo notebook show, as it is read."""
    folder = tmp_path_factory.mktemp("marimo")
    (folder / "page.py").write_text(_MARIMO.replace("SIMULATION", textwrap.indent(_SIMULATION, "    ")))
    command = [str(Path(sys.executable).with_name("marimo")), "export", "html", "page.py", "--no-sandbox"]
    done = subprocess.run(
        [*command, "-o", "page.html"],
        cwd=folder, env=_environment(folder), capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = re.findall(r'"text/html": "((?:\\.|[^"\\])*)"', (folder / "page.html").read_text())
    return [_words(json.loads(f'"{text}"')) for text in told]


def test_in_marimo_the_bar_stands_below_the_cell_that_waits(page: list[str]) -> None:
    (bar,) = [words for words in page if "simulate_energy v1.0.0" in words]
    assert "finished 10 of 10 inputs · 3 failed · in " in bar
    assert "input 7 failed (setpoint=27.0): ValueError: <b>too warm</b> & dry" in bar


def test_in_marimo_a_run_its_reference_and_its_result_are_cards(page: list[str]) -> None:
    cards = [words for words in page if re.search(r"simulate_energy/v1\.0\.0/\d{4}-", words)]
    assert len(cards) == 3
    assert all("finished 10 of 10 inputs · 3 failed" in words for words in cards)


# --- cards ------------------------------------------------------------------------------------------


class In(scythe.ExperimentInputSpec):
    x: int


class Out(scythe.ExperimentOutputSpec):
    y: int


def halve(spec: In) -> Out:
    if spec.x % 2:
        raise ValueError(f"{spec.x} is <odd>")
    return Out(y=spec.x // 2)


@pytest.fixture
def run(root: Path) -> Any:
    """A run of which one input of three is finished, and the next has failed."""
    scythe.ExperimentRegistry.Register(retries=0)(halve)
    with pytest.raises(ValueError, match="odd"):
        scythe.BaseExperiment(halve).allocate(pl.DataFrame({"x": [0, 1, 2]}), engine="inline", chunk=1)
    return scythe.open_run("halve")


def test_the_card_of_an_unfinished_run_tells_how_far_it_is(run: Any) -> None:
    assert run.status == "incomplete"
    words = _words(run._repr_html_())
    assert re.search(r"incomplete 2 of 3 inputs · 1 failed · at \d\d:\d\d:\d\d UTC", words)
    assert "ValueError 1 is <odd> (1)" in words


def test_a_card_names_the_commit_of_the_newest_attempt(run: Any) -> None:
    made_by = run.attempts[-1].provenance
    if made_by.git_commit is None:
        pytest.skip("these tests lie in no repository")
    assert f"commit {made_by.git_commit[:9]}{'-dirty' if made_by.dirty else ''}" in _words(run._repr_html_())


def test_the_reference_to_a_run_on_a_cluster_is_the_card_of_its_run(run: Any) -> None:
    from scythe.engines.hatchet.client.ref import HatchetRef
    from scythe.record.plan import RunPlan

    ref = HatchetRef(RunPlan.load(run.objects, run.key), None, "id", 1)
    assert "incomplete 2 of 3 inputs · 1 failed" in _words(ref._repr_html_())


def test_the_card_of_a_damaged_run_names_the_file_in_one_line(run: Any) -> None:
    run.resume(max_errors=None).result()
    (Path(run.uri.removeprefix("file://")) / "scatter-gather/output/result.json").write_text("{}")
    shown = run._repr_html_()
    assert "damaged" in _words(shown)
    (line,) = [line for line in shown.split("<div") if "result.json" in line]
    assert "damaged after it was written" in line


def test_a_card_with_a_damaged_provenance_still_counts(run: Any) -> None:
    (run.objects.folder / run.key.provenance(0)).write_text("{")
    words = _words(run._repr_html_())
    assert "2 of 3 inputs" in words
    assert "provenance/000000.json" in words


def test_the_card_of_a_deleted_run_says_so_and_leads_nowhere(run: Any) -> None:
    run.delete()
    shown = run._repr_html_()
    assert "deleted" in _words(shown)
    assert "<a " not in shown


def test_the_card_of_a_run_whose_root_cannot_be_reached_says_why(run: Any, root: Path) -> None:
    shutil.rmtree(root)
    root.write_text("no folder")
    words = _words(run._repr_html_())
    assert "unknown" in words
    assert "cannot be read: it is no folder" in words


def test_a_card_says_whatever_is_wrong_with_looking(run: Any) -> None:
    class Broken:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("the <disk> is gone\nfor good")

    assert "RuntimeError: the <disk> is gone" in _words(run_html(Broken(), run.key))  # type: ignore[arg-type]


_EVIL = "<script>alert(1)</script>\"' onclick='x&amp;"


def test_every_text_of_a_card_is_escaped() -> None:
    card = Card(
        _EVIL, _EVIL, 3, 1, 1, _EVIL, (_EVIL,), (_EVIL,), folder=_EVIL, link=_EVIL, commit=_EVIL, problem=_EVIL,
    )  # fmt: skip
    seen = _Seen()
    seen.feed(html(card))
    assert {tag for tag, _ in seen.tags} == {"div", "span", "b", "pre", "a", "code"}
    assert {name for _, names in seen.tags for name in names} == {"style", "href"}
    assert "".join(seen.texts).count(_EVIL) == 8  # a link is no text


def test_a_failure_among_thousands_is_seen_in_the_bar() -> None:
    assert re.search(r"min-width:3px;width:0.01%;background:#d64545", html(Card("a", "finished", 10_000, 9_999, 1)))


def test_a_bar_never_grows_beyond_its_frame_and_takes_no_inputs() -> None:
    assert "width:100.00%" in html(Card("a", "running", 2, 5, 0))
    assert "0 of 0 inputs" in _words(html(Card("a", "finished", 0, 0, 0)))


@pytest.mark.parametrize("page", ["#ffffff", "#1e1e1e"], ids=["light", "dark"])
def test_colours_are_clear_on_light_and_dark_pages(page: str) -> None:
    statuses = ("finished", "running", "incomplete", "damaged", "cancelled")
    colours = {
        c for s in statuses for c in re.findall(r"#[0-9a-f]{6}", html(Card("a", s, 3, 1, 1, problem="a problem")))
    }
    assert len(colours) == 5
    assert min(_contrast(colour, page) for colour in colours) >= 3


def test_a_script_is_no_notebook() -> None:
    assert place() is None


class _Seen(HTMLParser):
    """The elements and the texts of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, list[str]]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, [name for name, _ in attrs]))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def _words(page: str) -> str:
    """The texts of a page as they are read."""
    seen = _Seen()
    seen.feed(page)
    return " ".join("".join(f"{text} " for text in seen.texts).replace("\xa0", " ").split())


def _contrast(one: str, other: str) -> float:
    """The contrast of two colours, as WCAG 2 has it."""
    low, high = sorted(map(_luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
