"""`scythe.report`: one HTML file of any run, whatever it holds and however far it is."""

from __future__ import annotations

import contextlib
import datetime as dt
import enum
import math
import re
import shutil
import sys
import webbrowser
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Literal

import cloudpickle
import polars as pl
import pytest
from pydantic import Field, create_model

import scythe
from scythe.allocate import BaseExperiment
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.cli import main
from scythe.errors import NotFoundError, ReportError
from scythe.registry import ExperimentRegistry
from scythe.reporting.collect import beside, facts_of
from scythe.reporting.svg import escape
from scythe.utils.filesys import FileReference, OptionalFileReference

HOSTILE = "<script>alert('x')</script> & $a_b$ \"q\""


# Worker processes cannot import this module by its name, which pytest made up.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Use(enum.Enum):
    OFFICE = HOSTILE
    HOME = "住宅"


class Wall(ExperimentInputSpec):
    r_value: float = Field(description=f"{HOSTILE} [<u>m2K/W]")
    day: dt.date = dt.date(2020, 1, 1)
    use: Use = Use.OFFICE
    lit: bool = False
    layers: list[float] = []  # noqa: RUF012 - pydantic copies it
    same: float = 1.0
    maybe: float | None = None
    stamp: dt.datetime = dt.datetime(2020, 1, 1)


class Energy(ExperimentOutputSpec):
    heating: float = Field(description="Heating [kWh/m2]")
    odd: float
    label: str
    plan: OptionalFileReference = None


def simulate(spec: Wall, tempdir: Path) -> Energy:
    i = spec.sort_index
    if spec.r_value > 8:
        raise ValueError(f"{HOSTILE}: R-value {spec.r_value} is too high")
    if i < 2:
        from PIL import Image

        Image.new("RGBA", (800, 400), (200, 30, 30, 128)).save(tempdir / "plan.png")
    if i == 2:
        (tempdir / "plan.png").write_bytes(b"no image")
    hourly = pl.DataFrame({"hour": range(24), 'kW <i> " onload="x': [spec.r_value * h for h in range(24)], "text": "x"})
    odd = (math.nan, math.inf, 1e308, -1e308)[i % 4]
    plan = tempdir / "plan.png" if i < 3 else None
    return Energy(heating=80 / spec.r_value, odd=odd, label=f"<i>{i % 3}", plan=plan, dataframes={"hourly": hourly})


def walls(count: int) -> list[Wall]:
    return [
        Wall(
            experiment_id="", sort_index=i, r_value=1 + 9 * i / count, day=dt.date(2020, 1, 1) + dt.timedelta(days=i),
            use=list(Use)[i % 2], lit=i % 3 == 0, layers=[1.0] * (i % 4), maybe=None if i % 2 else float(i),
        )
        for i in range(count)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with a run of all that a run may hold: failures, images, a dataframe, hostile texts, odd numbers."""
    root = tmp_path_factory.mktemp("root")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCYTHE_STORAGE_ROOT", str(root))
        ExperimentRegistry.Register(name="walls", retries=0)(simulate)
        BaseExperiment(simulate).allocate(walls(60), engine="local", workers=1, max_errors=None)[1].result()
        del ExperimentRegistry._experiments["walls"]  # other files have walls of their own
    return root


@pytest.fixture
def run(root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> scythe.allocate.ExperimentRun:
    """That run, and the root that it lies in as the root of all."""
    monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(folder))
    return scythe.open_run("walls")


def run_inline(function: Callable[..., Any], specs: Any) -> scythe.allocate.ExperimentRun:
    """A run in this process, gone on with where a failing input ends an attempt."""
    ExperimentRegistry.Register(retries=0)(function)
    with contextlib.suppress(ValueError):
        BaseExperiment(function).allocate(specs, engine="inline")
    run = scythe.open_run(function.__name__)
    while run.status != "finished":
        with contextlib.suppress(ValueError):
            run.resume(engine="inline")
    return run


class Number(ExperimentInputSpec):
    x: float


class Square(ExperimentOutputSpec):
    y: float


def square(spec: Number) -> Square:
    return Square(y=spec.x**2)


class Drawn(ExperimentOutputSpec):
    plan: FileReference


def picture(spec: Number, tempdir: Path) -> Drawn:
    from PIL import Image

    Image.new("RGB", (1000, 500), "teal").save(tempdir / "plan.png")
    return Drawn(plan=tempdir / "plan.png")


class Stay(ExperimentInputSpec):
    begin: dt.datetime
    day: dt.date


class Left(ExperimentOutputSpec):
    end: dt.datetime


def stay(spec: Stay) -> Left:
    return Left(
        end=spec.begin, dataframes={"nights": pl.DataFrame({"night": [spec.begin] * 3, "cost": [1.0, 2.0, 3.0]})}
    )


class Nothing(ExperimentInputSpec):
    pass


class Nil(ExperimentOutputSpec):
    pass


def idle(spec: Nothing) -> Nil:
    return Nil()


class Page(HTMLParser):
    """What a page shows, and what it would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.events: list[str] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "action")]
        self.events += [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def page_of(*runs: Any) -> Page:
    return Page(scythe.report(*runs, to="report.html").read_text(encoding="utf-8"))


def test_a_report_shows_all_that_there_is_to_a_run(run: Any) -> None:
    text = page_of(run).text
    for shown in (
        "Inputs 60 all done", "Results 47 78.3 %", "Errors 13 21.7 %", "Run time", "Per input",
        "heating kWh/m2", "heating kWh/m2 over r_value", "ρ −1.00", "13 of 60 inputs failed", "ValueError", "all have r_value > 7.9 (8.05 to 9.85)",
        "Where they lie", 'kW <i> " onload="x over hour', "plan input 0", "1 of the first images could not be read", "Slowest inputs",
        "1 worker was at work", "Provenance", run.experiment_id, "polars", "lists: not drawn", "always the same value",
        "30 without a value", "NaN or infinite",
    ):  # fmt: skip
        assert shown in text, shown


def test_dataframes_are_those_of_the_user(run: Any) -> None:
    assert [(band.frame, band.x.name, len(band.middles)) for band in facts_of(run).bands] == [("hourly", "hour", 24)]


def test_whatever_a_run_holds_stands_in_the_page_as_text(run: Any) -> None:
    page = page_of(run)
    assert "script" not in page.tags
    assert {"b", "u", "i"} & page.tags <= {"b"}
    assert page.events == []
    assert HOSTILE in page.text
    assert "<u>m2K/W" in page.text


def test_nothing_is_loaded_from_anywhere(run: Any) -> None:
    text = scythe.report(run, to="report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert [a for a in page.addresses if not a.startswith(("#", "data:image/", "data:,"))] == []
    assert "Content-Security-Policy\" content=\"default-src 'none'" in text
    assert not re.search(r"@import|url\((?!#)", text)


def test_a_report_is_small_and_the_same_for_the_same_run(run: Any) -> None:
    first, second = (scythe.report(run, to=name).read_text(encoding="utf-8") for name in ("a.html", "b.html"))
    assert first.partition("<footer>")[0] == second.partition("<footer>")[0]
    assert len(first) < 1_000_000


def test_the_file_has_the_name_of_the_run_unless_another_is_given(run: Any) -> None:
    assert scythe.report("walls") == Path(run.experiment_id.replace("/", "-") + ".html")
    assert scythe.report("walls", to="deep.html") == Path("deep.html")
    with pytest.raises(ReportError, match=r"cannot be written to .*no such folder.*name another file"):
        scythe.report("walls", to="no such folder/report.html")


def test_signs_of_direction_turn_nothing_around() -> None:
    assert escape("a\u202eb <\u2066>") == "a\\u202eb &lt;\\u2066&gt;"


def test_two_runs_stand_side_by_side(run: Any) -> None:
    other = run_inline(square, [Number(experiment_id="", sort_index=i, x=i) for i in range(9)])
    text = page_of("walls", other).text
    assert text.count("Report of a run") == text.count("Provenance") - 1 == 2
    assert "Nothing to show." in text
    assert f"walls {run.version} {run.key.folder} Outputs" in text
    assert "y over x ρ 1.00" in text


def test_histograms_of_two_runs_have_one_axis(root: Path) -> None:
    short = run_inline(square, [Number(experiment_id="", sort_index=i, x=i) for i in range(9)])
    long, _ = BaseExperiment(square).allocate(
        [Number(experiment_id="", sort_index=i, x=i + 5) for i in range(30)], "bumpmajor", engine="inline"
    )
    first, second = facts_of(short), facts_of(long)
    spans = [one.inputs[0].span for one in (beside(first, second), beside(second, first))]
    assert spans == [(0.0, 34.0)] * 2
    assert first.inputs[0].span is None


def test_a_run_in_a_bucket_has_a_report(bucket: str) -> None:
    run = run_inline(picture, [Number(experiment_id="", sort_index=0, x=3)])
    facts = facts_of(run)
    assert [(one.field, one.width, one.height) for one in facts.pictures] == [("plan", 360, 180)]
    assert run.uri.startswith("s3://")
    assert run.uri in page_of(run).text


def test_a_report_is_of_one_run_or_two() -> None:
    for runs in ((), ("a", "b", "c")):
        with pytest.raises(ReportError, match=f"not of {len(runs)}: name one or two"):
            scythe.report(*runs)


def test_a_run_of_one_input_has_a_report(root: Path) -> None:
    text = page_of(run_inline(square, [Number(experiment_id="", sort_index=0, x=3)])).text
    assert "always the same value 9" in text
    assert "What drives" not in text


def test_a_run_whose_inputs_all_failed_has_a_report(root: Path) -> None:
    def fail(spec: Number) -> Square:
        raise ValueError(f"no {spec.x}")

    text = page_of(run_inline(fail, [Number(experiment_id="", sort_index=i, x=i) for i in range(3)])).text
    assert "3 of 3 inputs failed (100.0 %)" in text
    assert "failed 0 to 2" in text
    assert "y no value" in text


def test_a_run_without_a_field_has_a_report(root: Path) -> None:
    assert "Inputs 1 all done" in page_of(run_inline(idle, [Nothing(experiment_id="", sort_index=0)])).text


def test_an_unfinished_run_is_shown_as_far_as_it_is(root: Path) -> None:
    def halt(spec: Number) -> Square:
        if spec.x == 30:
            raise KeyboardInterrupt
        return Square(y=spec.x)

    ExperimentRegistry.Register()(halt)
    specs = [Number(experiment_id="", sort_index=i, x=i) for i in range(40)]
    with pytest.raises(KeyboardInterrupt):
        BaseExperiment(halt).allocate(specs, engine="inline", chunk=10)
    text = page_of("halt").text
    assert "incomplete" in text
    assert "Inputs 40 10 still open Results 30 75 %" in text
    assert "y over x ρ 1.00" in text


def test_a_damaged_run_says_what_is_wrong_and_shows_the_rest(root: Path) -> None:
    run = run_inline(square, [Number(experiment_id="", sort_index=i, x=i) for i in range(9)])
    assert run.result is not None
    for table in ("scalars", "tasks"):
        (root / run.result.tables[table].key).unlink()
    text = page_of(run).text
    assert "The table scalars cannot be read" in text
    assert "Provenance" in text
    (root / run.key.plan).write_bytes(b"{}")
    assert "The plan of the run cannot be read" in page_of(run).text


@pytest.mark.parametrize(("table", "lacks"), [("scalars", "errors"), ("errors", "scalars")])
def test_a_run_that_was_downloaded_without_some_tables_has_a_report(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str, lacks: str
) -> None:
    scythe.download(run.experiment, tmp_path, tables=[table])
    monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(tmp_path))
    text = page_of("walls").text
    assert f"The table {lacks} cannot be read" in text
    assert "The table tasks cannot be read" in text
    assert "Of the inputs that succeeded." in text


def test_a_dataframe_that_is_gone_is_told_once(root: Path) -> None:
    def framed(spec: Number) -> Square:
        return Square(y=spec.x, dataframes={"hourly": pl.DataFrame({"hour": [0, 1], "kw": [spec.x, 2.0]})})

    run = run_inline(framed, [Number(experiment_id="", sort_index=i, x=i) for i in range(3)])
    assert run.result is not None
    gone = run.result.tables["hourly"]
    run.objects.write(gone.key, run.objects.read(gone.key)[:4] + run.objects.read(gone.key)[60:])
    notes = [text for section, text in facts_of(run).notes if section == "dataframes"]
    assert [note.partition(":")[0] for note in notes] == ["The dataframe hourly cannot be read"]


def test_of_many_columns_the_page_says_what_it_leaves_out(root: Path) -> None:
    inputs = create_model("Wide", __base__=ExperimentInputSpec, **{f"in{i}": (float, 0.5) for i in range(90)})  # pyright: ignore[reportCallIssue, reportArgumentType]
    outputs = create_model("Broad", __base__=ExperimentOutputSpec, **{f"out{i}": (float, ...) for i in range(5)})  # pyright: ignore[reportCallIssue, reportArgumentType]

    def widen(spec: Any) -> Any:
        return outputs(**{f"out{i}": getattr(spec, f"in{i}") * i for i in range(5)})

    widen.__annotations__ = {"spec": inputs, "return": outputs}
    specs = pl.DataFrame({f"in{i}": [((i + 1) * k) % 7 / 7 for k in range(20)] for i in range(12)})
    text = page_of(run_inline(widen, specs)).text
    assert "The first 80 of 90 are looked at." in text
    assert "40 more are left out: in40, in41" in text
    assert "weaker pairs are not drawn" in text


def test_many_rows_are_drawn_from_some_chosen_at_random(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scythe.reporting.collect.MOST_ROWS", 30)
    facts = facts_of(run)
    assert facts.notes_of("outputs") == ("Drawn from 38 of 60 rows, chosen at random.",)
    assert facts.numbers[0].value == "60"
    assert facts.failures is not None
    (along,) = [one for one in facts.failures.along if one.variable.name == "r_value"]
    assert (sum(along.good), sum(along.bad)) == (30, 8)


DAY, FIRST, LAST = dt.timedelta(days=1), dt.datetime.min, dt.datetime.max


@pytest.mark.parametrize(
    ("one", "other", "marks"),
    [
        (FIRST, LAST, ["2000", "4000", "6000", "8000"]),
        (dt.datetime(2020, 1, 1), LAST, ["4000", "6000", "8000"]),
        (LAST - DAY, LAST, ["9999-12-30 23:59", "…"]),
        (LAST - 80 * DAY, LAST, ["9999-10-12", "…"]),
        (FIRST, FIRST + DAY, ["0001-01-01", "0001-01-02"]),
        (LAST, LAST, []),
        (dt.datetime(2020, 1, 1), dt.datetime(2020, 1, 3), ["Jan", "02", "03"]),
    ],
)
def test_dates_are_drawn_as_far_as_the_calendar_reaches(
    root: Path, one: dt.datetime, other: dt.datetime, marks: list[str]
) -> None:
    moments = [(one, other)[i % 2] for i in range(6)]
    run_inline(stay, [Stay(experiment_id="", sort_index=i, begin=m, day=m.date()) for i, m in enumerate(moments)])
    text = page_of("stay").text
    assert "cannot be read" not in text
    assert all(mark in text for mark in marks)


def test_a_run_that_is_not_there_is_an_error(root: Path) -> None:
    with pytest.raises(NotFoundError, match="no experiment 'nobody'"):
        scythe.report("nobody")
    run = run_inline(square, [Number(experiment_id="", sort_index=0, x=3)])
    run.delete()
    with pytest.raises(NotFoundError, match="it was deleted"):
        scythe.report(run)


def test_a_run_of_a_root_that_was_copied_has_a_report(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_inline(square, [Number(experiment_id="", sort_index=i, x=i) for i in range(9)])
    shutil.copytree(root, tmp_path / "copy")
    monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(tmp_path / "copy"))
    text = page_of("square").text
    assert "cannot be read" not in text
    assert "y over x ρ 1.00" in text


def test_a_missing_extra_is_an_error_that_says_how_to_get_it(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ReportError, match=r"pip install matplotlib$"):
        scythe.report(run)


def test_the_command_prints_the_path_and_opens_the_browser(
    run: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    monkeypatch.setattr(sys, "argv", ["scythe", "report", "walls", "-o", "it.html", "--open"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (0, None)
    assert capsys.readouterr().out == "it.html\n"
    assert opened == [Path("it.html").resolve().as_uri()]


class Site(ExperimentInputSpec):
    site: str


class Followed(ExperimentOutputSpec):
    number: float
    letter: Literal["x", "y"]


def follow(spec: Site) -> Followed:
    i = int(spec.site[1:])
    return Followed(number=float((i * 7) % 20), letter="xy"[i % 2])  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def test_what_cannot_be_related_is_named(run: scythe.allocate.ExperimentRun) -> None:
    facts = facts_of(run)
    undrawn = [
        s.variable.name for s in (*facts.inputs, *facts.outputs) if not s.counts and s.told != "always the same value"
    ]
    assert "layers" in undrawn
    assert facts.notes_of("relations") == (f"Not among them, as above: {', '.join(undrawn)}.",)


def test_relations_are_those_of_all_categories_not_of_those_that_are_drawn(root: Path) -> None:
    run = run_inline(follow, [Site(site=f"s{i % 20}") for i in range(2000)])
    found = {relation.output.name: (relation.measure, relation.strength) for relation in facts_of(run).relations.drawn}
    assert found == {"number": ("η", pytest.approx(1.0)), "letter": ("V", pytest.approx(1.0))}
