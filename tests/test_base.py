"""What a user calls inside a simulation: log, fetch_uri, make_multiindex; computed features and extra values."""

import datetime as dt
import logging
from enum import Enum
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pydantic import ConfigDict, ValidationError, computed_field

import scythe
from scythe.allocate import BaseExperiment
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec, index_values
from scythe.registry import ExperimentRegistry
from scythe.utils.filesys import FileReference

IDS = ["experiment_id", "sort_index", "root_workflow_run_id", "workflow_run_id"]


class Glass(Enum):
    CLEAR = "clear"


class In(ExperimentInputSpec):
    x: int = 1
    glass: Glass = Glass.CLEAR
    parts: tuple[int, ...] = ()
    day: dt.date = dt.date(2024, 1, 1)


class Filed(ExperimentInputSpec):
    weather: FileReference


class Featured(ExperimentInputSpec):
    x: int

    @property
    def computed_features(self) -> dict[str, Any]:
        return {"square": self.x**2, "parity": "odd" if self.x % 2 else "even"}


class Out(ExperimentOutputSpec):
    text: str = ""


def spec(**values: Any) -> In:
    return In(**{"experiment_id": "e", "sort_index": 3} | values)


# --- log ---------------------------------------------------------------------------------------------


def test_log_writes_to_pythons_logging(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "scythe.experiment"):
        spec().log("100% done %s")

    assert [(r.name, r.levelname) for r in caplog.records] == [("scythe.experiment", "INFO")]
    assert "100% done %s" in caplog.text
    assert "e [3]" in caplog.text


def test_log_goes_where_a_worker_sends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    monkeypatch.setattr(ExperimentInputSpec, "log_method", heard.append)

    spec().log("hello")

    assert heard == ["hello"]


# --- the models ----------------------------------------------------------------------------------------


def test_ids_are_required_or_none_and_the_sort_index_is_not_negative() -> None:
    given = spec()

    assert (given.workflow_run_id, given.root_workflow_run_id) == (None, None)
    for bad in ({"sort_index": -1}, {"experiment_id": None}):
        with pytest.raises(ValidationError):
            spec(**bad)


def test_file_references_are_paths_or_urls() -> None:
    def reference(value: Any) -> Any:
        return Filed(experiment_id="", sort_index=0, weather=value).weather

    assert reference("a/b.epw") == Path("a/b.epw")
    assert reference(Path("a/b.epw")) == Path("a/b.epw")
    assert str(reference("s3://bucket/a.epw")) == "s3://bucket/a.epw"
    assert str(reference("https://example.org/a.epw")) == "https://example.org/a.epw"


def test_dataframes_are_empty_by_default_and_in_no_json_schema() -> None:
    assert Out().dataframes == {}
    assert "dataframes" not in Out.model_json_schema()["properties"]


def test_a_misspelt_output_is_refused_by_its_name_and_not_replaced_by_a_default(root: Path) -> None:
    class Sum(ExperimentOutputSpec):
        total: float = 0

    class Loose(Sum):
        model_config = ConfigDict(extra="ignore")

    @ExperimentRegistry.Register(retries=3)
    def summed(spec: In) -> Sum:
        return Sum(totl=2)  # pyright: ignore[reportCallIssue]

    _, ref = BaseExperiment(summed).allocate([spec()], engine="local", workers=1)
    ((kind,),) = [ref.result().error_kinds]

    assert "for Sum totl Extra inputs are not permitted" in str(kind)
    assert scythe.read("summed", table="errors")["attempts"].to_list() == [1]
    assert "additionalProperties" not in Sum.model_json_schema()
    assert Loose(totl=2).total == 0  # pyright: ignore[reportCallIssue]


def test_an_output_with_a_computed_field_is_validated_again_from_its_own_dump() -> None:
    class Twice(ExperimentOutputSpec):
        y: float

        @computed_field
        @property
        def z(self) -> float:
            return 2 * self.y

    found = Twice(y=1)
    assert Twice.model_validate(found.model_dump()) == Twice.model_validate_json(found.model_dump_json()) == found
    with pytest.raises(ValidationError, match="Extra inputs"):
        Twice(y=1, w=2)  # pyright: ignore[reportCallIssue]


def test_extra_values_are_kept_and_reach_the_function(root: Path) -> None:
    seen: list[dict[str, Any] | None] = []

    @ExperimentRegistry.Register()
    def f(spec: In) -> Out:
        seen.append(spec.model_extra)
        return Out(text=str(getattr(spec, "colour", None)))

    specs = [spec(colour="red", nested={"a": [1, None]}), spec(), spec(size=2.5)]
    BaseExperiment(experiment=f).allocate(specs, engine="inline")

    assert seen == [{"colour": "red", "nested": {"a": [1, None]}}, {}, {"size": 2.5}]
    read = scythe.read("f")
    assert read["text"].to_list() == ["red", "None", "None"]
    assert read["extra"].to_list() == ['{"colour":"red","nested":{"a":[1,null]}}', None, '{"size":2.5}']
    assert [i.model_extra for i, _ in scythe.rows(f)] == seen


# --- make_multiindex -------------------------------------------------------------------------------------


def test_the_index_has_one_row_for_each_output_row_and_names_the_input() -> None:
    index = spec(x=7).make_multiindex(n_rows=2)

    assert isinstance(index, pd.MultiIndex)
    assert index.names == [*IDS, "x", "glass", "day", "sort_subindex"]
    assert index.droplevel(IDS[2:]).to_list() == [
        ("e", 3, 7, "clear", dt.date(2024, 1, 1), 0),
        ("e", 3, 7, "clear", dt.date(2024, 1, 1), 1),
    ]
    assert index.to_frame()[IDS[2:]].isna().all(axis=None)


def test_the_index_has_one_row_unless_told_otherwise_and_may_have_none() -> None:
    assert len(spec().make_multiindex()) == 1
    assert len(spec().make_multiindex(n_rows=0)) == 0
    assert spec().make_multiindex(n_rows=0).names == spec().make_multiindex().names


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"month": [1, 2], "zone": "core"}, [(1, "core"), (2, "core")]),
        ({"month": (1, 2), "zone": None}, [(1, None), (2, None)]),
        ([{"month": 1, "zone": "a"}, {"month": 2, "zone": "b"}], [(1, "a"), (2, "b")]),
        ([{"month": 1}, {"month": 2, "zone": "b"}], [(1, None), (2, "b")]),
    ],
)
def test_further_levels_are_a_dict_of_values_or_lists_or_a_list_of_dicts(data: Any, expected: list[Any]) -> None:
    index = spec().make_multiindex(data, n_rows=2)

    assert index.names[-3:] == ["month", "zone", "sort_subindex"]
    frame = index.to_frame(index=False).astype(object)
    rows = frame[["month", "zone"]].where(frame[["month", "zone"]].notna(), None)
    assert [tuple(row) for row in rows.to_numpy().tolist()] == expected


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"month": [1, 2, 3]}, r"'month'.*3 values for 2 rows"),
        ({"month": []}, "0 values for 2 rows"),
        ([{"month": 1}], "1 dicts for 2 rows"),
        ([], "0 dicts for 2 rows"),
        ({"x": 1}, "'x' stands twice"),
        ([{"sort_index": 1}] * 2, "'sort_index' stands twice"),
        ({"sort_subindex": [5, 6]}, "'sort_subindex' stands twice"),
    ],
)
def test_data_of_another_length_and_levels_that_stand_twice_are_refused(data: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        spec().make_multiindex(data, n_rows=2)


def test_levels_can_be_left_out() -> None:
    index = spec().make_multiindex(
        {"x": [8, 9]}, n_rows=2, include_sort_subindex=False, additional_excludes=frozenset({"x", "day", "glass"})
    )

    assert index.names == [*IDS, "x"]
    assert index.get_level_values("x").tolist() == [8, 9]


def test_the_index_shows_the_uris_that_were_given_not_the_local_copies(root: Path) -> None:
    seen: list[tuple[Any, Any]] = []

    @ExperimentRegistry.Register()
    def f(spec: Filed) -> Out:
        index = spec.make_multiindex()
        seen.append((spec.weather, index.get_level_values("weather")[0]))
        return Out(dataframes={"t": pd.DataFrame({"v": [1]}, index=index)})

    Path("a.txt").write_text("A")
    run, ref = BaseExperiment(experiment=f).allocate(
        [Filed(experiment_id="", sort_index=0, weather="a.txt")], engine="inline"
    )

    (local, shown), *_ = seen
    assert isinstance(local, Path)
    assert local.read_text() == "A"
    assert shown == f"{run.uri}/artifacts/weather/a.txt"
    assert pd.read_parquet(ref.result().uris["t"]).index.get_level_values("weather").tolist() == [shown]


def test_the_index_shows_uris_also_for_files_copied_to_the_tempdir(root: Path) -> None:
    shown: list[str] = []

    @ExperimentRegistry.Register(local_file_location="copied-to-tempdir")
    def f(spec: Filed, tempdir: Path) -> Out:
        shown.append(spec.make_multiindex().get_level_values("weather")[0])
        return Out()

    Path("a.txt").write_text("A")
    run, _ = BaseExperiment(experiment=f).allocate(
        [Filed(experiment_id="", sort_index=0, weather="a.txt")], engine="inline"
    )

    assert shown == [f"{run.uri}/artifacts/weather/a.txt"]


# --- computed features -----------------------------------------------------------------------------------


def test_computed_features_are_levels_behind_the_inputs() -> None:
    index = Featured(experiment_id="e", sort_index=0, x=3).make_multiindex(include_sort_subindex=False)

    assert index.names == [*IDS, "x", "square", "parity"]
    assert index[0][4:] == (3, 9, "odd")


def test_computed_features_are_levels_of_every_table_of_the_run(root: Path) -> None:
    @ExperimentRegistry.Register()
    def f(spec: Featured) -> Out:
        return Out(dataframes={"t": pd.DataFrame({"v": [1, 2]})})

    specs = [Featured(experiment_id="", sort_index=i, x=i) for i in range(3)]
    _, ref = BaseExperiment(experiment=f).allocate(specs, engine="inline")

    for table in ("scalars", "t", "errors"):
        assert pd.read_parquet(ref.result().uris[table]).index.names == [*IDS, "x", "square", "parity"]
    assert scythe.read("f")["square"].to_list() == [0, 1, 4]
    assert scythe.read("f", table="t")["parity"].to_list() == ["even", "even", "odd", "odd", "even", "even"]


def test_an_index_is_that_which_pandas_makes_of_its_rows_and_one_without_rows_has_its_types() -> None:
    class Wall(ExperimentInputSpec):
        name: str = "north"
        area: float = 2.5
        gap: float | None = None
        built: dt.date = dt.date(1990, 1, 1)

    spec = Wall(experiment_id="walls/v1", sort_index=3)
    more = {"month": [5, 7, 5], "where": "attic"}
    own = {**index_values(spec, {}), "where": "attic"}
    named = [n for n in own if n != "where"]

    found = spec.make_multiindex(more, n_rows=3)

    columns = [[own[n]] * 3 for n in named] + [[5, 7, 5], ["attic"] * 3, [0, 1, 2]]
    expected = pd.MultiIndex.from_arrays(columns, names=[*named, "month", "where", "sort_subindex"])
    pd.testing.assert_index_equal(found, expected)
    empty = spec.make_multiindex(n_rows=0)
    assert len(empty) == 0
    assert [level.dtype for level in empty.levels] == [level.dtype for level in spec.make_multiindex(n_rows=2).levels]
