"""The catalog made anew: a root that was moved, copied or has lost its catalog reads as it did before."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import scythe
from scythe.allocate import BaseExperiment, ExperimentRun
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.errors import RunError, ScytheError
from scythe.registry import ExperimentRegistry
from scythe.runs.rebuild import rebuild
from scythe.settings import storage
from scythe.utils.filesys import FileReference


class Site(ExperimentInputSpec):
    size: int
    weather: FileReference


class Yield(ExperimentOutputSpec):
    kwh: float
    report: FileReference


def simulate(spec: Site, tempdir: Path) -> Yield:
    weather = Path(str(spec.weather)).read_text()
    if weather == "storm" and not Path("calm").exists():
        raise ValueError("storm")
    report = tempdir / "report.txt"
    report.write_text(f"{weather} {spec.size}")
    hourly = pl.DataFrame({"hour": [0, 1], "kwh": [spec.size / 2, 1.0]})
    return Yield(kwh=spec.size * 2.0, report=report, dataframes={"hourly": hourly})


def sites(weathers: list[str]) -> list[Site]:
    """One site a weather, each with a file that says it."""
    found: list[Site] = []
    for i, weather in enumerate(weathers):
        path = Path(f"weather-{weather}.epw").resolve()
        path.write_text(weather)
        found.append(Site(experiment_id="", sort_index=i, size=i + 1, weather=path))
    return found


def simulated(weathers: list[str], **options: Any) -> ExperimentRun:
    """A run to its end, inline."""
    ExperimentRegistry.Register(name="sim", retries=0)(simulate)
    return resumed(lambda: BaseExperiment(experiment="sim").allocate(sites(weathers), engine="inline", **options))


def resumed(allocate: Callable[[], Any], name: str = "sim") -> ExperimentRun:
    """What was allocated, taken up again after each exception."""
    try:
        return allocate()[0]
    except RunError:
        raise
    except ValueError:
        run = scythe.open_run(name)
    while run.status != "finished":
        try:
            run.resume(engine="inline")
        except ValueError:
            continue
    return run


TABLES = ("scalars", "errors", "tasks", "hourly", "result_file_refs")


def everything(name: str = "sim", tables: tuple[str, ...] = TABLES, **of: Any) -> dict[str, pl.DataFrame]:
    return {table: scythe.read(name, table=table, **of) for table in tables}


def assert_same(found: dict[str, pl.DataFrame], expected: dict[str, pl.DataFrame]) -> None:
    assert found.keys() == expected.keys()
    for table, frame in expected.items():
        assert_frame_equal(found[table], frame)


def path_of(uri: str) -> Path:
    return Path(unquote(urlsplit(uri).path))


@pytest.fixture
def moved(root: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Moves or copies the root, and makes the new place the root."""

    def move(how: str = "moved") -> Path:
        target = root.parent / ("another place é" if "odd" in how else "another-place") / "root"
        target.parent.mkdir(exist_ok=True)
        if "moved" in how:
            shutil.move(root, target)
        else:
            shutil.copytree(root, target)
        monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(target))
        return target

    return move


@pytest.mark.parametrize("how", ["moved", "copied", "moved to an odd place"])
def test_a_root_in_another_place_says_what_to_do_and_reads_again_after_a_rebuild(
    root: Path, moved: Callable[[str], Path], how: str
) -> None:
    simulated(["sun", "rain", "storm"])
    before = everything()
    place = moved(how)

    with pytest.raises(ScytheError, match="scythe rebuild"):
        scythe.read("sim")
    said: list[str] = []
    assert rebuild(storage(), said.append) == 1
    assert said == [f"{scythe.open_run('sim').experiment_id}: finished"]

    after = everything()
    uris = ("weather", "report")
    for table, frame in before.items():
        kept = [c for c in frame.columns if c not in uris]
        assert_frame_equal(after[table].select(kept), frame.select(kept))
    refs = after["result_file_refs"]
    assert refs["sort_index"].to_list() == [0, 1]
    for uri, says in zip(refs["report"], ["sun 1", "rain 2"], strict=True):
        assert path_of(uri).is_relative_to(place)
        assert path_of(uri).read_text() == says
    for table in ("scalars", "errors", "result_file_refs", "hourly"):
        for uri in after[table]["weather"]:
            assert path_of(uri).is_relative_to(place), table
            assert path_of(uri).is_file()
    run = scythe.open_run("sim")
    assert run.result is not None
    for name, uri in run.result.uris.items():
        assert path_of(uri).is_relative_to(place)
        assert path_of(uri).samefile(place / run.key.final(name))
    if how == "copied":
        assert (root / "sim").is_dir()


def test_a_copied_root_changes_nothing_before_it_is_made_anew(root: Path, moved: Callable[[str], Path]) -> None:
    simulated(["sun", "rain", "storm"])
    moved("copied")
    run = scythe.open_run("sim")
    attempts = len(run.attempts)
    for change in (run.delete, run.retry_errors):
        with pytest.raises(ScytheError, match=r"has been moved to .*make the catalog anew with `scythe rebuild`"):
            change()
    assert run.status == "finished"
    assert len(run.attempts) == attempts
    rebuild(storage(), print)
    run.delete()
    assert scythe.list_experiments().is_empty()


def test_a_moved_root_takes_new_runs_and_new_versions(root: Path, moved: Callable[[], Path]) -> None:
    first = simulated(["sun"])
    moved()
    rebuild(storage())

    second = simulated(["rain"], version="bumpminor")

    assert (first.version, second.version) == ("v1.0.0", "v1.1.0")
    assert scythe.read("sim", "v1.1.0")["kwh"].to_list() == [2.0]
    assert scythe.read("sim", "all").height == 2
    assert scythe.read("sim", "v1.0.0").height == 1


def test_file_references_of_many_runs_follow_the_root_too(root: Path, moved: Callable[[], Path]) -> None:
    simulated(["sun"])
    simulated(["rain", "snow"], version="bumpminor")
    place = moved()
    rebuild(storage())

    refs = scythe.read("sim", "all", table="result_file_refs", run="all")

    assert refs.height == 3
    assert [path_of(u).is_relative_to(place) for u in [*refs["report"], *refs["weather"]]] == [True] * 6


def test_what_failed_can_be_retried_in_another_place(root: Path, moved: Callable[[], Path]) -> None:
    simulated(["sun", "storm", "rain"])
    place = moved()
    rebuild(storage())
    Path("calm").touch()

    result = scythe.open_run("sim").retry_errors(engine="inline").result()

    assert (result.rows, result.errors) == (3, 0)
    refs = scythe.files("sim")
    assert [path_of(u).read_text() for u in refs["report"]] == ["sun 1", "storm 2", "rain 3"]
    assert [path_of(u).is_relative_to(place) for u in [*refs["report"], *refs["weather"]]] == [True] * 6


def test_an_unfinished_run_is_read_and_resumed_in_another_place(root: Path, moved: Callable[[], Path]) -> None:
    ExperimentRegistry.Register(name="sim", retries=0)(simulate)
    with pytest.raises(ValueError, match="storm"):
        BaseExperiment(experiment="sim").allocate(sites(["sun", "rain", "storm", "snow", "fog"]), engine="inline")
    run = scythe.open_run("sim")
    assert run.status == "incomplete"
    so_far = {t: scythe.read("sim", table=t, run=run.key.folder) for t in ("scalars", "errors", "tasks")}
    assert so_far["scalars"].height == 2
    place = moved()

    rebuild(storage())

    again = scythe.open_run("sim")
    assert again.status == "incomplete"
    for table, frame in so_far.items():
        kept = [c for c in frame.columns if c not in ("weather", "report")]
        assert_frame_equal(scythe.read("sim", table=table, run=again.key.folder).select(kept), frame.select(kept))
    result = again.resume(engine="inline").result()
    assert (result.rows, result.errors) == (4, 1)
    refs = scythe.files("sim")
    assert [path_of(u).read_text() for u in refs["report"]] == ["sun 1", "rain 2", "snow 4", "fog 5"]
    assert [path_of(u).is_relative_to(place) for u in [*refs["report"], *refs["weather"]]] == [True] * 8


def test_a_catalog_that_was_deleted_comes_back_as_it_was(root: Path) -> None:
    simulated(["sun", "storm"])
    simulated(["rain"], version="keep")
    before, runs = everything(run="all"), scythe.list_runs("sim")
    shutil.rmtree(root / "_catalog")

    assert rebuild(storage()) == 2
    assert rebuild(storage()) == 2

    order = ["run_datetime", "sort_index"]
    after = everything(run="all")
    assert_same({t: f.sort(order, maintain_order=True) for t, f in after.items()},
                {t: f.sort(order, maintain_order=True) for t, f in before.items()})  # fmt: skip
    assert_frame_equal(scythe.list_runs("sim"), runs)


def test_a_lost_catalog_shows_the_rows_of_runs_that_go_on_after_one_rebuild(root: Path) -> None:
    simulated(["sun"])
    with pytest.raises(ValueError, match="storm"):
        BaseExperiment(experiment="sim").allocate(sites(["rain", "storm", "sun"]), "keep", engine="inline")
    tables = ("scalars", "errors", "tasks")
    before = everything(tables=tables, run="all")
    assert before["scalars"].height == 2
    shutil.rmtree(root / "_catalog")

    for _ in range(2):
        rebuild(storage())
        assert_same(everything(tables=tables, run="all"), before)
    Path("calm").touch()
    scythe.open_run("sim").resume(engine="inline")
    assert scythe.read("sim", run="all")["kwh"].to_list() == [2.0, 2.0, 6.0]


def test_a_version_that_was_taken_stays_taken_after_a_rebuild(root: Path) -> None:
    first = simulated(["sun"])
    second = simulated(["sun"])
    shutil.rmtree(root / "_catalog")
    rebuild(storage())

    third = simulated(["sun"])

    assert [r.version for r in (first, second, third)] == ["v1.0.0", "v2.0.0", "v3.0.0"]


# --- tables that grew -------------------------------------------------------------------------------


class In1(ExperimentInputSpec):
    x: int


class In2(ExperimentInputSpec):
    before: str = "b"
    x: int


class Out1(ExperimentOutputSpec):
    y: float


class Out2(ExperimentOutputSpec):
    first: int = 7
    y: float


class Out3(ExperimentOutputSpec):
    y: str


def grown(step: int) -> Any:
    """The experiment `grow` as it is in its first, second or third version."""

    def first(spec: In1) -> Out1:
        frame = pl.DataFrame({"kwh": [spec.x * 1.0]})
        return Out1(y=spec.x, dataframes={"monthly": frame})

    def second(spec: In2) -> Out2:
        frame = pl.DataFrame({"peak": [spec.x * 3], "kwh": [spec.x * 1.5]})
        return Out2(y=spec.x * 10, dataframes={"monthly": frame})

    def third(spec: In2) -> Out3:
        return Out3(y=f"text {spec.x}", dataframes={"monthly": pl.DataFrame({"kwh": ["many"]})})

    function = (first, second, third)[step - 1]
    ExperimentRegistry._experiments.pop("grow", None)
    ExperimentRegistry.Register(name="grow")(function)
    return BaseExperiment(experiment="grow")


def grow(step: int, n: int, version: str) -> ExperimentRun:
    model = In1 if step == 1 else In2
    specs = [model(experiment_id="", sort_index=i, x=i + step * 100) for i in range(n)]
    run, ref = grown(step).allocate(specs, version, engine="inline")
    ref.result()
    return run


GROWN = ("scalars", "errors", "tasks", "monthly")


def test_versions_and_generations_grow_again_in_the_order_of_their_runs(root: Path) -> None:
    for step, version in ((1, "bumpmajor"), (2, "bumpminor"), (3, "bumpmajor")):
        grow(step, 3, version)
    versions = ("v1.0.0", "v1.1.0", "v2.0.0")
    before = {v: everything("grow", GROWN, version=v) for v in versions}
    united = scythe.read("grow", "all", table="tasks").sort("version", "sort_index")
    tables = sorted(p.name for p in (root / "_catalog" / "grow").iterdir())
    shutil.rmtree(root / "_catalog")

    assert rebuild(storage()) == 3

    for version in versions:
        assert_same(everything("grow", GROWN, version=version), before[version])
    assert sorted(p.name for p in (root / "_catalog" / "grow").iterdir()) == tables
    assert_frame_equal(scythe.read("grow", "all", table="tasks").sort("version", "sort_index"), united)


def test_values_are_right_where_the_oldest_run_is_gone_and_the_columns_are_numbered_anew(root: Path) -> None:
    oldest = grow(1, 2, "bumpmajor")
    grow(2, 3, "bumpminor")
    grow(2, 4, "keep")
    before = everything("grow", GROWN, version="v1.1.0", run="all")
    oldest.delete()

    assert rebuild(storage()) == 2
    order = ["run_datetime", "sort_index"]
    after = everything("grow", GROWN, version="v1.1.0", run="all")
    for table, frame in before.items():
        expected = frame.sort(order).select(sorted(frame.columns))
        assert_frame_equal(after[table].sort(order).select(sorted(frame.columns)), expected)
    latest = scythe.read("grow", "v1.1.0")
    assert latest["y"].to_list() == [2000.0, 2010.0, 2020.0, 2030.0]
    assert latest["first"].to_list() == [7] * 4
    assert scythe.read("grow", "v1.1.0", table="monthly")["peak"].to_list() == [600, 603, 606, 609]


def test_an_unfinished_run_goes_on_though_the_oldest_run_is_gone(root: Path) -> None:
    def halting(spec: In2) -> Out2:
        if spec.x == 2 and not Path("calm").exists():
            raise ValueError("storm")
        return Out2(y=spec.x, dataframes={"monthly": pl.DataFrame({"peak": [spec.x], "kwh": [spec.x * 1.5]})})

    oldest = grow(1, 2, "bumpmajor")
    ExperimentRegistry._experiments.pop("grow")
    ExperimentRegistry.Register(name="grow", retries=0)(halting)
    specs = [In2(experiment_id="", sort_index=i, x=i) for i in range(4)]
    with pytest.raises(ValueError, match="storm"):
        BaseExperiment(experiment="grow").allocate(specs, "bumpminor", engine="inline")
    oldest.delete()
    rebuild(storage())

    run = scythe.open_run("grow", "v1.1.0")
    assert run.status == "incomplete"
    assert run.resume(engine="inline").result().rows == 3
    assert scythe.read("grow")["y"].to_list() == [0.0, 1.0, 3.0]
    assert scythe.read("grow", table="monthly")["kwh"].to_list() == [0.0, 1.5, 4.5]
    assert scythe.read("grow", table="errors")["sort_index"].to_list() == [2]


def test_a_root_without_runs_is_rebuilt_to_nothing(root: Path) -> None:
    assert rebuild(storage()) == 0
