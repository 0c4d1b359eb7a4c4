"""What becomes of outputs: rows of scalars, dataframes and file references, or one error row."""

import contextlib
import datetime as dt
import tempfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import Field
from pyiceberg.table import StaticTable

import scythe
from scythe.allocate import BaseExperiment, ExperimentRun
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.errors import InputError, OutputError, RunError
from scythe.record.results import RunResult
from scythe.registry import ExperimentRegistry
from scythe.utils.filesys import FileReference, OptionalFileReference


class Point(ExperimentInputSpec):
    x: int
    label: str = "a"


class Plain(ExperimentOutputSpec):
    y: float = Field(default=0.0, le=100)


class Filed(ExperimentOutputSpec):
    y: float = 0.0
    report: FileReference
    picture: OptionalFileReference = None


LEVELS = ["experiment_id", "sort_index", "root_workflow_run_id", "workflow_run_id", "x", "label"]


def points(n: int) -> list[Point]:
    return [Point(experiment_id="", sort_index=i, x=i) for i in range(n)]


def finish(function: Callable[..., Any], specs: Any, **options: Any) -> tuple[ExperimentRun, RunResult]:
    """A whole run, inline: after each exception it is resumed, as other engines go on by themselves."""
    experiment = BaseExperiment(experiment=function)
    before = [r.experiment_id for r in experiment.list_runs()]
    try:
        run, ref = experiment.allocate(specs, engine="inline", **options)
        return run, ref.result()
    except Exception:
        (run,) = [r for r in experiment.list_runs() if r.experiment_id not in before]
    for _ in range(run.inputs):
        try:
            return run, run.resume(engine="inline").result()
        except Exception:
            continue
    return run, run.resume(engine="inline").result()


def gives(frames: Callable[[Point], dict[str, Any]]) -> Callable[..., Any]:
    """An experiment whose outputs have these dataframes."""

    @ExperimentRegistry.Register(name="frames")
    def with_frames(spec: Point) -> Plain:
        return Plain(y=spec.x, dataframes=frames(spec))

    return with_frames


def errors_of(experiment: Any) -> dict[int, str]:
    """`sort_index` -> message."""
    frame = scythe.read(experiment, table="errors")
    return dict(zip(frame["sort_index"], frame["exception_message"], strict=True))


# --- dataframes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda x: pd.DataFrame({"month": [1, 2], "kwh": [0.5, x]}),
        lambda x: pl.DataFrame({"month": [1, 2], "kwh": [0.5, float(x)]}),
        lambda x: pl.LazyFrame({"month": [1, 2], "kwh": [0.5, float(x)]}),
        lambda x: pa.table({"month": [1, 2], "kwh": [0.5, float(x)]}),
        lambda x: pa.RecordBatch.from_pydict({"month": [1, 2], "kwh": [0.5, float(x)]}),
    ],
    ids=["pandas", "polars", "lazy", "arrow", "batch"],
)
def test_dataframes_of_every_library_come_back_stacked_with_the_inputs_in_front(root: Path, make: Any) -> None:
    function = gives(lambda spec: {"monthly": make(spec.x)})

    _, result = finish(function, points(3))

    read = scythe.read(function, table="monthly")
    assert read.columns == [*LEVELS, "month", "kwh"]
    assert read["sort_index"].to_list() == [0, 0, 1, 1, 2, 2]
    assert read["kwh"].to_list() == [0.5, 0.0, 0.5, 1.0, 0.5, 2.0]
    assert pd.read_parquet(result.uris["monthly"]).index.names == LEVELS


def test_a_pandas_frame_keeps_its_own_index_behind_the_inputs(root: Path) -> None:
    def frames(spec: Point) -> dict[str, Any]:
        days = pd.date_range("2024-01-01", periods=2, name="day")
        return {"daily": pd.DataFrame({"kwh": [spec.x, 1]}, index=days)}

    _, result = finish(gives(frames), points(2))
    read = pd.read_parquet(result.uris["daily"])

    assert read.index.names == [*LEVELS, "day"]
    assert read.index.get_level_values("day").tolist() == pd.to_datetime(["2024-01-01", "2024-01-02"] * 2).tolist()


def test_the_index_of_make_multiindex_is_the_index_that_comes_back(root: Path) -> None:
    def frames(spec: Point) -> dict[str, Any]:
        index = spec.make_multiindex({"month": [1, 2]}, n_rows=2)
        return {"monthly": pd.DataFrame({"kwh": [spec.x, 1]}, index=index)}

    _, result = finish(gives(frames), points(2))
    read = pd.read_parquet(result.uris["monthly"])

    assert read.index.names == [*LEVELS, "month", "sort_subindex"]
    assert read.index.get_level_values("sort_subindex").tolist() == [0, 1, 0, 1]
    assert list(read.columns) == ["kwh"]
    assert read["kwh"].tolist() == [0, 1, 1, 1]


def test_an_index_with_fewer_levels_is_kept_as_it_is(root: Path) -> None:
    def frames(spec: Point) -> dict[str, Any]:
        index = spec.make_multiindex(n_rows=1, include_sort_subindex=False, additional_excludes={"label", "x"})
        return {"short": pd.DataFrame({"kwh": [1.0]}, index=index)}

    _, result = finish(gives(frames), points(2))

    assert pd.read_parquet(result.uris["short"]).index.names == LEVELS[:4]


def test_unnamed_index_levels_get_names(root: Path) -> None:
    function = gives(lambda spec: {"t": pd.DataFrame({"v": [1, 2]}, index=["p", "q"])})

    _, result = finish(function, points(1))

    assert pd.read_parquet(result.uris["t"]).index.names == [*LEVELS, "level_0"]


def test_types_that_differ_between_inputs_are_promoted(root: Path) -> None:
    function = gives(
        lambda spec: {"t": pa.table({"v": pa.array([spec.x], pa.int64() if spec.x != 1 else pa.float64())})}
    )

    _, result = finish(function, points(4))

    assert result.errors == 0
    read = scythe.read(function, table="t")
    assert read.schema["v"] == pl.Float64
    assert read["v"].to_list() == [0.0, 1.0, 2.0, 3.0]


def test_a_column_of_nulls_takes_the_type_that_other_inputs_give_it(root: Path) -> None:
    function = gives(lambda spec: {"t": pl.DataFrame({"v": [None if spec.x != 2 else "text"], "w": [None]})})

    _, result = finish(function, points(4))

    assert result.errors == 0
    assert scythe.read(function, table="t")["v"].to_list() == [None, None, "text", None]
    assert scythe.read(function, table="t")["w"].to_list() == [None] * 4


def test_columns_that_an_input_lacks_are_null(root: Path) -> None:
    function = gives(lambda spec: {"t": pl.DataFrame({"v": [1]} | ({"w": ["a"]} if spec.x != 1 else {}))})

    _, result = finish(function, points(3))

    assert result.errors == 0
    assert scythe.read(function, table="t")["w"].to_list() == ["a", None, "a"]


def test_a_column_that_the_lowest_input_has_not_makes_an_error_row(root: Path) -> None:
    function = gives(lambda spec: {"t": pl.DataFrame({"v": [1]} | ({"w": ["a"]} if spec.x in (1, 3) else {}))})

    _, result = finish(function, points(4))

    assert (result.rows, result.errors) == (2, 2)
    found = errors_of(function)
    assert set(found) == {1, 3}
    assert all("'t'" in m and "'w'" in m and "input 0" in m for m in found.values())
    assert scythe.read(function)["sort_index"].to_list() == [0, 2]
    assert scythe.read(function, table="t")["sort_index"].to_list() == [0, 2]


def test_unlike_types_make_an_error_row_with_the_inputs_in_it(root: Path) -> None:
    function = gives(lambda spec: {"t": pl.DataFrame({"v": [1 if spec.x != 2 else "text"]})})

    _, result = finish(function, points(4))

    assert (result.rows, result.errors) == (3, 1)
    errors = scythe.read(function, table="errors")
    assert errors["sort_index"].to_list() == [2]
    assert errors["x"].to_list() == [2]
    assert errors["label"].to_list() == ["a"]
    assert errors["exception_type"].to_list() == ["scythe.errors.OutputError"]
    assert "'t'" in errors["exception_message"][0]
    assert scythe.read(function, table="tasks").height == 4


def test_a_number_that_has_no_place_in_the_promoted_type_costs_its_input_alone(root: Path) -> None:
    huge = 2**53 + 1
    function = gives(
        lambda spec: {
            "t": pa.table({"v": pa.array([huge if spec.x == 1 else 0], pa.int64() if spec.x else pa.float64())})
        }
    )

    _, result = finish(function, points(3))

    assert (result.rows, result.errors) == (2, 1)
    assert set(errors_of(function)) == {1}


def test_durations_do_not_become_numbers_among_numbers(root: Path) -> None:
    function = gives(lambda spec: {"t": pl.DataFrame({"v": [5 if spec.x == 0 else dt.timedelta(seconds=1)]})})

    _, result = finish(function, points(2))

    assert (result.rows, result.errors) == (1, 1)


def test_durations_and_categories_of_a_dataframe_are_typed_again(root: Path) -> None:
    def frames(spec: Point) -> dict[str, Any]:
        return {"t": pd.DataFrame({"took": [pd.Timedelta("1s")], "kind": pd.Categorical(["warm"])})}

    function = gives(frames)
    finish(function, points(2))
    read = scythe.read(function, table="t")

    assert read["took"].to_list() == [dt.timedelta(seconds=1)] * 2
    assert read["kind"].cast(pl.String).to_list() == ["warm"] * 2


def test_a_dataframe_that_not_every_input_gives_has_the_rows_of_those_that_do(root: Path) -> None:
    function = gives(lambda spec: {"rare": pl.DataFrame({"v": [spec.x] * spec.x})} if spec.x % 2 else {})

    _, result = finish(function, points(4))

    assert result.errors == 0
    assert scythe.read(function, table="rare")["sort_index"].to_list() == [1, 3, 3, 3]


def test_a_dataframe_without_rows_is_a_table_without_rows(root: Path) -> None:
    function = gives(lambda spec: {"none": pl.DataFrame({"v": []}, schema={"v": pl.Int64})})

    _, result = finish(function, points(2))

    assert result.rows == 2
    assert scythe.read(function, table="none").height == 0


@pytest.mark.parametrize(
    ("name", "frame", "words"),
    [
        ("scalars", pd.DataFrame({"v": [1]}), "scalars"),
        ("errors", pd.DataFrame({"v": [1]}), "errors"),
        ("a/b", pd.DataFrame({"v": [1]}), "a/b"),
        ("..", pd.DataFrame({"v": [1]}), ".."),
        ("a\nb", pd.DataFrame({"v": [1]}), "cannot be the name"),
        ("t", {"v": [1]}, "dict"),
        ("t", pd.DataFrame({"x": [1]}), "'x'"),
        ("t", pd.DataFrame([[1, 2]], columns=["v", "v"]), "several columns"),
        ("t", pd.DataFrame({("a", "b"): [1]}), "levels"),
        ("t", pd.DataFrame({"v": [object()]}), "'t'"),
        ("t", pd.DataFrame({"v": [1, "text"]}), "'t'"),
    ],
)
def test_a_dataframe_that_no_table_can_hold_makes_an_error_row(root: Path, name: str, frame: Any, words: str) -> None:
    function = gives(lambda spec: {name: frame} if spec.x == 1 else {})

    _, result = finish(function, points(3))

    assert (result.rows, result.errors) == (2, 1)
    found = scythe.read(function, table="errors")
    assert found["exception_type"].to_list() == ["scythe.errors.OutputError"]
    assert words in found["exception_message"][0]


def test_a_dataframe_that_changes_within_a_version_stops_the_gather_and_loses_nothing(root: Path) -> None:
    column = ["v"]
    function = gives(lambda spec: {"t": pl.DataFrame({column[0]: [1]})})
    first, _ = finish(function, points(2))
    column[0] = "w"

    with pytest.raises(RunError, match=r"dataframe 't'(.|\n)*removed"):
        BaseExperiment(experiment=function).allocate(points(2), version="keep", engine="inline")

    second = BaseExperiment(experiment=function).latest_run()
    assert second is not None
    assert second.experiment_id != first.experiment_id
    assert second.status == "incomplete"
    assert scythe.read(function, run=second.run_datetime)["x"].to_list() == [0, 1]
    assert scythe.read(function, table="t").columns[-1] == "v"


def test_a_dataframe_may_change_with_a_new_major_version(root: Path) -> None:
    column = ["v"]
    function = gives(lambda spec: {"t": pl.DataFrame({column[0]: [1]})})
    finish(function, points(1))
    column[0] = "w"

    finish(function, points(1), version="bumpmajor")

    assert scythe.read(function, "v1.0.0", table="t").columns[-1] == "v"
    assert scythe.read(function, "v2.0.0", table="t").columns[-1] == "w"


# --- outputs that do not fit ------------------------------------------------------------------------


def test_an_output_that_breaks_its_own_model_is_an_error_row_that_names_field_and_rule(root: Path) -> None:
    @ExperimentRegistry.Register()
    def f(spec: Point) -> Plain:
        return Plain.model_construct(y=1000.0 if spec.x == 1 else 1.0, dataframes={"t": pl.DataFrame({"v": [1]})})

    _, result = finish(f, points(3))

    assert (result.rows, result.errors) == (2, 1)
    assert "y: must be <= 100" in errors_of(f)[1]
    assert scythe.read(f)["sort_index"].to_list() == [0, 2]
    assert scythe.read(f, table="t")["sort_index"].to_list() == [0, 2]


@pytest.mark.parametrize("value", ["text", None, [1.0], 2**70 + 1])
def test_an_output_of_another_type_than_its_field_is_an_error_row(root: Path, value: Any) -> None:
    @ExperimentRegistry.Register()
    def f(spec: Point) -> Plain:
        return Plain.model_construct(y=value if spec.x == 1 else 1.0, dataframes={})

    _, result = finish(f, points(3))

    assert (result.rows, result.errors) == (2, 1)
    assert "y" in errors_of(f)[1]


def test_an_output_that_lacks_a_field_is_an_error_row(root: Path) -> None:
    @ExperimentRegistry.Register()
    def f(spec: Point) -> Plain:
        output = Plain(y=1.0)
        if spec.x == 1:
            del output.__dict__["y"]
        return output

    _, result = finish(f, points(3))

    assert (result.rows, result.errors) == (2, 1)
    assert "y" in errors_of(f)[1]


@pytest.mark.parametrize("value", [None, 1, {"y": 1.0}, Point(experiment_id="", sort_index=0, x=1)])
def test_something_else_than_the_output_model_is_an_error_row_that_says_what_came(root: Path, value: Any) -> None:
    @ExperimentRegistry.Register()
    def f(spec: Point) -> Plain:
        return value if spec.x == 1 else Plain()

    _, result = finish(f, points(3))

    assert (result.rows, result.errors) == (2, 1)
    assert type(value).__name__ in errors_of(f)[1]
    assert "Plain" in errors_of(f)[1]


def test_an_exception_is_an_error_row_with_type_message_and_the_users_own_traceback(root: Path) -> None:
    @ExperimentRegistry.Register()
    def f(spec: Point) -> Plain:
        if spec.x == 1:
            raise ValueError("no such weather: \udcff\x00")
        return Plain(y=spec.x)

    _, result = finish(f, points(3))

    errors = scythe.read(f, table="errors").to_dicts()
    assert (result.rows, result.errors) == (2, 1)
    assert errors[0]["exception_type"] == "ValueError"
    assert "no such weather" in errors[0]["exception_message"]
    assert "test_results.py" in errors[0]["traceback"]
    assert 'raise ValueError("no such weather' in errors[0]["traceback"]
    assert errors[0]["attempts"] == 1
    assert (errors[0]["x"], errors[0]["label"]) == (1, "a")
    assert pd.read_parquet(result.uris["errors"]).index.names == LEVELS


def test_an_exception_whose_message_cannot_be_shown_is_an_error_row_too(root: Path) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    @ExperimentRegistry.Register()
    def f(spec: Point) -> Plain:
        if spec.x == 1:
            raise Mute
        return Plain()

    _, result = finish(f, points(3))

    assert (result.rows, result.errors) == (2, 1)


def test_the_table_of_errors_is_there_when_nothing_failed(root: Path) -> None:
    @ExperimentRegistry.Register()
    def f(spec: Point) -> Plain:
        return Plain()

    _, result = finish(f, points(2))

    errors = pd.read_parquet(result.uris["errors"])
    assert len(errors) == 0
    assert errors.index.names == LEVELS
    assert list(errors.columns) == ["exception_type", "exception_message", "traceback", "attempts"]
    assert scythe.read(f, table="errors").height == 0


def test_a_run_of_errors_alone_is_finished_and_can_be_read(root: Path) -> None:
    @ExperimentRegistry.Register()
    def f(spec: Point) -> Plain:
        raise RuntimeError(f"no {spec.x}")

    run, result = finish(f, points(2))

    assert run.status == "finished"
    assert (result.rows, result.errors) == (0, 2)
    assert scythe.read(f).height == 0
    assert scythe.read(f).columns == [*LEVELS, "y"]
    assert errors_of(f) == {0: "no 0", 1: "no 1"}


# --- output files -----------------------------------------------------------------------------------


def filed(make: Callable[[Point, Path], Any]) -> Callable[..., Any]:
    @ExperimentRegistry.Register(name="filed")
    def with_file(spec: Point, tempdir: Path) -> Filed:
        return make(spec, tempdir)

    return with_file


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def staged(root: Path) -> list[Path]:
    return [p for p in (root / ".staging").rglob("*") if p.is_file()]


def test_output_files_are_named_by_the_run_id_of_their_input_and_keep_their_suffix(root: Path) -> None:
    function = filed(lambda spec, folder: Filed(report=written(folder, f"r{spec.x}.tar.gz", f"report {spec.x}")))

    run, _ = finish(function, points(3))

    files = scythe.files(function)
    ids = files["workflow_run_id"].to_list()
    assert files["report"].to_list() == [f"{run.uri}/results/report/{i}.tar.gz" for i in ids]
    assert [(root / run.experiment_id / "results" / "report" / f"{i}.tar.gz").read_text() for i in ids] == [
        "report 0", "report 1", "report 2",
    ]  # fmt: skip
    assert files["picture"].to_list() == [None] * 3
    assert "report" not in scythe.read(function).columns
    assert BaseExperiment(experiment=function).list_results_files() == sorted(files["report"])
    assert staged(root) == []


@pytest.mark.parametrize("url", ["https://example.org/a/report.txt", "s3://bucket/report.txt"])
def test_an_output_that_is_a_url_is_kept_as_it_is(root: Path, url: str) -> None:
    function = filed(lambda spec, folder: Filed(report=url))

    run, _ = finish(function, points(1))

    assert scythe.files(function)["report"].to_list() == [url]
    assert not (root / run.experiment_id / "results").exists()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: folder / "none.txt", "does not exist"),
        (lambda folder: folder, "is a folder"),
    ],
    ids=["missing", "folder"],
)
def test_an_output_file_that_is_none_makes_an_error_row_naming_field_and_path(
    root: Path, make: Any, words: str
) -> None:
    function = filed(
        lambda spec, folder: Filed(report=make(folder) if spec.x == 1 else written(folder, "r.txt", str(spec.x)))
    )

    _, result = finish(function, points(3))

    assert (result.rows, result.errors) == (2, 1)
    assert "report=" in errors_of(function)[1]
    assert words in errors_of(function)[1]
    assert scythe.files(function)["sort_index"].to_list() == [0, 2]


def test_an_input_that_fails_leaves_no_file_behind(root: Path) -> None:
    def make(spec: Point, folder: Path) -> Filed:
        return Filed(report=written(folder, "r.txt", "r"), picture=folder / "none.png")

    run, result = finish(filed(make), points(2))

    assert result.errors == 2
    assert not list((root / run.experiment_id).glob("results/*/*"))
    assert staged(root) == []


def test_an_output_that_breaks_its_model_publishes_no_file(root: Path) -> None:
    def make(spec: Point, folder: Path) -> Filed:
        return Filed.model_construct(y="text", report=written(folder, "r.txt", "r"), picture=None, dataframes={})

    run, result = finish(filed(make), points(1))

    assert result.errors == 1
    assert not list((root / run.experiment_id).glob("results/*/*"))
    assert staged(root) == []


def test_a_file_outside_the_tempdir_and_one_of_the_root_are_copied_and_stay(root: Path) -> None:
    shared = root / "shared.txt"

    def make(spec: Point, folder: Path) -> Filed:
        own = Path(tempfile.mkdtemp()) / "own.txt"
        own.write_text("own")
        made.append(own)
        shared.parent.mkdir(exist_ok=True)
        shared.write_text("shared")
        return Filed(report=own, picture=shared)

    made: list[Path] = []
    _, result = finish(filed(make), points(2))

    assert result.errors == 0
    assert all(path.read_text() == "own" for path in made)
    assert shared.read_text() == "shared"
    pictures = scythe.files("filed")["picture"].to_list()
    assert [Path(uri.removeprefix("file://")).read_text() for uri in pictures] == ["shared"] * 2


# --- the whole ---------------------------------------------------------------------------------------

FATES = st.sampled_from(["fine", "raises", "breaks its model", "returns None", "has an odd dataframe", "has no file"])


@settings(max_examples=8)
@given(st.lists(FATES, min_size=1, max_size=7), st.none() | st.integers(1, 5))
@example(["fine", "has an odd dataframe", "fine"], None)
def test_every_input_ends_in_exactly_one_of_scalars_and_errors(fates: list[str], chunk: int | None) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCYTHE_STORAGE_ROOT", folder)

        @ExperimentRegistry.Register(name="fates")
        def f(spec: Point, tempdir: Path) -> Filed:
            fate = fates[spec.x]
            if fate == "raises":
                raise ValueError(fate)
            if fate == "returns None":
                return None  # type: ignore[return-value]
            report = tempdir / "report.txt"
            if fate != "has no file":
                report.write_text(str(spec.x))
            frame = pl.DataFrame({"v": ["text" if fate == "has an odd dataframe" else 1]})
            y: Any = "text" if fate == "breaks its model" else float(spec.x)
            return Filed.model_construct(y=y, report=report, picture=None, dataframes={"t": frame})

        _, result = finish(f, points(len(fates)), chunk=chunk)

        good, bad = (scythe.read(f, table=t)["sort_index"].to_list() for t in ("scalars", "errors"))
        assert sorted(good + bad) == list(range(len(fates)))
        assert good == sorted(good)
        assert bad == sorted(bad)
        assert (result.rows, result.errors) == (len(good), len(bad))
        assert not {i for i in good if fates[i] not in ("fine", "has an odd dataframe")}
        assert not {i for i in bad if fates[i] == "fine"} or "has an odd dataframe" in fates
        assert scythe.read(f)["y"].to_list() == [float(i) for i in good]
        assert scythe.files(f)["sort_index"].to_list() == good
        assert scythe.read(f, table="tasks")["sort_index"].to_list() == list(range(len(fates)))


def test_the_final_files_are_the_data_files_of_the_catalog(root: Path) -> None:
    def frames(spec: Point) -> dict[str, Any]:
        if spec.x == 1:
            raise ValueError("one")
        return {"t": pl.DataFrame({"v": [spec.x]})}

    _, result = finish(gives(frames), points(4))

    for name, uri in result.uris.items():
        hint = (root / "_catalog" / "frames" / name / "metadata" / "version-hint.text").read_text()
        table = StaticTable.from_metadata(str(root / f"_catalog/frames/{name}/metadata/v{hint}.metadata.json"))
        rows = table.scan().to_arrow()
        final = pq.read_table(uri.removeprefix("file://"))
        assert [task.file.file_path for task in table.scan().plan_files()] == [uri]
        assert rows.num_rows == final.num_rows == result.tables[name].rows
        for column in final.column_names:
            assert rows.column(column).to_pylist() == final.column(column).to_pylist()


def test_the_numbers_that_numpy_gives_are_kept(root: Path) -> None:
    @ExperimentRegistry.Register()
    def f(spec: Point) -> Plain:
        return Plain(y=np.float64(spec.x) / 2)

    finish(f, points(3))

    assert scythe.read(f)["y"].to_list() == [0.0, 0.5, 1.0]


def test_tasks_tell_attempts_seconds_worker_and_start_of_each_input(root: Path) -> None:
    @ExperimentRegistry.Register()
    def f(spec: Point) -> Plain:
        return Plain()

    before = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1)
    finish(f, points(3))
    tasks = scythe.read(f, table="tasks")

    assert tasks.columns == [
        *LEVELS[:4],
        "attempts",
        "seconds",
        "worker",
        "start",
        "attempt",
        "reused_from",
        "reused_index",
    ]
    assert set(tasks["attempt"]) == {1}
    assert tasks["attempts"].to_list() == [1, 1, 1]
    assert (tasks["seconds"] >= 0).all()
    assert (tasks["start"] >= before).all()
    assert tasks["worker"].n_unique() == 1


class Wide(ExperimentInputSpec):
    k: int
    d: Annotated[Decimal, Field(max_digits=38, decimal_places=0)] = Decimal(1)


class Bare(ExperimentOutputSpec):
    o: int = 1


def wide(spec: Wide) -> Bare:
    big = pa.Array.from_buffers(pa.decimal128(38, 0), 1, [None, pa.py_buffer(np.array([-1, 2**63 - 1], np.int64))])
    five = pa.array([Decimal(5)], pa.decimal128(38, 0))
    frames = {"t": big if spec.k == 1 else five, "u": pa.ListArray.from_arrays([0, 1], big if spec.k == 2 else five)}
    return Bare(dataframes={name: pa.table({"v": values}) for name, values in frames.items()})


def test_a_decimal_of_more_digits_than_its_type_has_costs_its_input_alone(root: Path) -> None:
    ExperimentRegistry.Register(retries=0)(wide)
    experiment = BaseExperiment(wide)
    with pytest.raises(OutputError, match="does not fit in precision"):
        experiment.allocate([Wide(k=k) for k in range(4)], engine="inline", max_errors=None)
    run = scythe.open_run("wide")
    while run.status != "finished":
        with contextlib.suppress(OutputError):
            run.resume(engine="inline").result()
    assert scythe.read("wide")["k"].to_list() == [0, 3]
    told = dict(scythe.read("wide", table="errors").select("k", "exception_message").iter_rows())
    assert "dataframe 't': column 'v' has values that a column of decimal128(38, 0) has no place for: " in told[1]
    assert "dataframe 'u': column 'v' has values that a column of list" in told[2]
    big = duckdb.sql("select 1 k, 170141183460469231731687303715884105727::hugeint d")
    with pytest.raises(InputError, match=r"d: must be decimal.38, 0.: got .*Decimal value 1701"):
        experiment.allocate(big, "auto", engine="inline")
