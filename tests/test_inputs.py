"""What an allocation takes and what it refuses: bad input is named with column, rows and rule, and leaves no trace."""

import datetime as dt
import io
import math
import os
import re
import threading
from collections.abc import Iterator
from decimal import Decimal
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BeforeValidator,
    Field,
    StringConstraints,
    create_model,
    field_validator,
    model_validator,
)

import scythe
from scythe.allocate import BaseExperiment
from scythe.allocate.artifacts import stored_places
from scythe.allocate.inputs import prepare_inputs
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.errors import (
    AllocationError,
    FetchError,
    InputError,
    NotFoundError,
    SettingsError,
    VersionError,
)
from scythe.names import ID_LEVELS
from scythe.registry import ExperimentRegistry, experiment_of
from scythe.utils.filesys import FileReference, OptionalFileReference


class Fuel(Enum):
    GAS = "gas"
    OIL = "oil"


class Room(ExperimentInputSpec):
    area: float = Field(ge=0, le=1000, description="Floor area [m2]")
    storeys: int = 1
    fuel: Fuel = Fuel.GAS
    glazing: Literal["single", "double"] = "double"
    note: str | None = None
    built: dt.date = dt.date(1970, 1, 1)


class Warmth(ExperimentOutputSpec):
    kwh: float


class Filed(ExperimentInputSpec):
    weather: FileReference
    plan: OptionalFileReference = None


class Text(ExperimentOutputSpec):
    text: str


@pytest.fixture
def heat(root: Path) -> BaseExperiment:
    @ExperimentRegistry.Register()
    def heat(spec: Room) -> Warmth:
        return Warmth(kwh=spec.area * spec.storeys)

    return BaseExperiment(experiment=heat)


@pytest.fixture
def reading(root: Path) -> BaseExperiment:
    @ExperimentRegistry.Register()
    def reading(spec: Filed) -> Text:
        assert isinstance(spec.weather, Path)
        return Text(text=spec.weather.read_text())

    return BaseExperiment(experiment=reading)


def room(i: int = 0, **values: Any) -> Room:
    return Room(**{"experiment_id": "mine", "sort_index": i, "area": 10.0 + i} | values)


def columns(**more: list[Any]) -> dict[str, list[Any]]:
    return {"area": [10.0, 20.0, 30.0], "storeys": [1, 2, 3]} | more


def nothing_written(root: Path) -> bool:
    """No experiment, no reservation, no catalog, nothing staged below the root."""
    return not root.exists() or not any(root.rglob("*"))


def left_over(root: Path) -> list[str]:
    """Files and experiments that lie below the root (its own `.gitignore` and empty folders do not count)."""
    if not root.exists():
        return []
    own = [p for p in root.rglob("*") if p.is_file() and p.name != ".gitignore"]
    folders = [p for p in root.iterdir() if not p.name.startswith(("_", "."))]
    return [p.relative_to(root).as_posix() for p in (*own, *folders)]


def refused(
    experiment: BaseExperiment, specs: Any, root: Path, error: type[Exception] = InputError, **options: Any
) -> str:
    """The message with which an allocation was refused; nothing was written."""
    with pytest.raises(error) as raised:
        experiment.allocate(specs, engine="inline", **options)
    assert left_over(root) == []
    assert experiment.list_versions() == []
    return str(raised.value)


# --- what is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize("specs", [[], (), pl.DataFrame(), pl.DataFrame({"area": []}), pd.DataFrame(), iter([])])
def test_no_specs_are_refused(heat: BaseExperiment, root: Path, specs: Any) -> None:
    assert "no specs" in refused(heat, specs, root)


@pytest.mark.parametrize("specs", [None, 5, "text", b"bytes", object()])
def test_something_that_is_no_specs_at_all_is_refused(heat: BaseExperiment, root: Path, specs: Any) -> None:
    assert "Room" in refused(heat, specs, root)


def test_specs_of_another_model_are_refused_with_their_positions(heat: BaseExperiment, root: Path) -> None:
    class Other(Room):
        pass

    other = Other(experiment_id="", sort_index=0, area=1)
    message = refused(heat, [room(), other, room(), *[other] * 12], root)

    assert "takes Room" in message
    assert "Other" in message
    assert "13 of the specs" in message
    assert "positions 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, …" in message


def test_one_spec_of_another_model_is_refused(heat: BaseExperiment, root: Path) -> None:
    assert "takes Room" in refused(heat, Filed(experiment_id="", sort_index=0, weather="a"), root)


@pytest.mark.parametrize(
    ("dicts", "told"),
    [
        ([{"area": 1.0, "storey": 2}], "did you mean 'storeys'"),
        ([{"area": "1.5"}], "area: must be"),
        ([{"storeys": 2}], "area: is missing"),
        ([{"area": 1.0}, {"storeys": 2}], "area: 1 of 2 dicts lack it (the first at position 1)"),
        ([{"area": 1.0}, {"area": 1.0, "sort_index": 1}], "sort_index: 1 of 2 dicts lack it"),
        ([{"area": 1.0, 3: 2}], "3 is one of their keys"),
        ([{"area": 1.0}, room()], "takes Room, but 1 of the specs"),
        ([{"aera": 1.0}, {"area": 1.0}], "area: 1 of 2 dicts lack it"),
        ([{"aera": 1.0}, {"area": 1.0}], "aera: is not a field of Room"),
        ([{"area": 1.0}, {"area": 1.0, "storey": 2}], "did you mean 'storeys'"),
        ({"area": [1.0]}, "a list of dicts"),
        ({"area": [1.0]}, "write pl.DataFrame(specs)"),
        ({"area": 1.0}, "write [specs]"),
        ("rooms.csv", "write pl.read_csv('rooms.csv')"),
        (Path("rooms.pq"), "write pl.read_parquet('rooms.pq')"),
        (np.ones((3, 2)), "write pl.DataFrame(specs, schema=['area', 'storeys'])"),
    ],
)
def test_dicts_that_do_not_fit_are_refused_as_frames_are(
    heat: BaseExperiment, root: Path, dicts: Any, told: str
) -> None:
    assert told in refused(heat, dicts, root)


@pytest.mark.parametrize(
    ("specs", "told"),
    [
        (pl.DataFrame({"area": [None, "12.5"]}), "area: must be float, the column holds str, such as '12.5'; cast it: pl.col('area').cast(pl.Float64)"),
        (pd.DataFrame({"area": ["12.5"]}, dtype="string"), "such as '12.5'; cast it: frame['area'].astype('float')"),
        (pl.DataFrame({"area": ["2,5"]}), "where its commas are decimal ones: pl.col('area').str.replace(',', '.').cast(pl.Float64)"),
        (pl.DataFrame({"area": [1.0], "note": [3]}), "such as 3; if it comes from a file, read it as text, or zeros in front are lost (schema_overrides={'note': pl.String}); else cast it: pl.col('note').cast(pl.String)"),
        (pl.DataFrame({"area": [1.0, np.nan, -1.0, np.nan]}), "area: must be >= 0, got -1.0 (1 row: 2)"),
        (pl.DataFrame({"area": [1.0, np.nan, -1.0, np.nan]}), "area: must be >= 0, got NaN (2 rows: 1, 3)"),
        (pl.DataFrame({"area": [1.0], "zzzzzz": [3]}), "its fields are area, storeys, fuel, glazing, note, built"),
    ],
)  # fmt: skip
def test_what_is_refused_comes_with_a_value_and_a_way_out(
    heat: BaseExperiment, root: Path, specs: Any, told: str
) -> None:
    assert told in refused(heat, specs, root)


NO_NAME = "is a column that has no name in its file: pandas writes its index so, and a comma at the end of each line makes one; drop it"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("area,storeys,\n1.5,2,\n", {"": f"'': {NO_NAME}", "pandas": f"Unnamed: 2: {NO_NAME}"}),
        (",area\n0,1.5\n", {"": f"'': {NO_NAME}", "pandas": f"Unnamed: 0: {NO_NAME}"}),
        ("area,,\n1.5,,\n", {"": f"_duplicated_0: {NO_NAME}", "pandas": f"Unnamed: 2: {NO_NAME}"}),
        ("area,area\n1.5,2.5\n", {"": "area: stands twice in the file: Polars calls the second 'area_duplicated_0'"}),
        ("area,x_duplicated_0\n1.5,2.5\n", {"": "x_duplicated_0: is not a field of Room"}),
    ],
)
def test_what_a_reader_of_csv_calls_a_column_without_a_name_or_a_second_one_is_told_as_that(
    heat: BaseExperiment, root: Path, text: str, told: dict[str, str]
) -> None:
    assert told[""] in refused(heat, pl.read_csv(io.StringIO(text)), root)
    if "pandas" in told:
        assert told["pandas"] in refused(heat, pd.read_csv(io.StringIO(text)), root)


@pytest.mark.parametrize("kind", ["polars", "pandas", "arrow"])
def test_a_frame_without_a_required_column_is_refused(heat: BaseExperiment, root: Path, kind: str) -> None:
    message = refused(heat, frame(kind, {"storeys": [1, 2]}), root)

    assert "area: is missing" in message
    assert "required" in message


@pytest.mark.parametrize("kind", ["polars", "pandas", "arrow"])
def test_a_frame_with_an_unknown_column_is_refused_and_the_nearest_field_is_named(
    heat: BaseExperiment, root: Path, kind: str
) -> None:
    message = refused(heat, frame(kind, columns(storey=[1, 2, 3])), root)

    assert "storey: is not a field of Room" in message
    assert "did you mean 'storeys'?" in message
    assert "pass models" in message


@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        ("area", ["a", "b", "c"], "area: must be float"),
        ("storeys", [1.0, 2.5, 3.5], "storeys: must be int"),
        ("storeys", ["1", "2", "3"], "storeys: must be int"),
        ("storeys", [1, None, 3], "storeys: must not be null (1 row: 1)"),
        ("fuel", ["gas", "coal", "wood"], "fuel: must be"),
        ("glazing", ["double", "triple", "single"], "glazing: must be"),
        ("built", ["1970", "1980", "1990"], "built: must be date"),
        ("note", [1, 2, 3], "note: must be str"),
        ("sort_index", [0, -1, 2], "sort_index: must be >= 0"),
    ],
)
@pytest.mark.parametrize("kind", ["polars", "arrow"])
def test_a_mistyped_column_is_refused(
    heat: BaseExperiment, root: Path, kind: str, column: str, values: list[Any], words: str
) -> None:
    assert words in refused(heat, frame(kind, columns() | {column: values}), root, overwrite_sort_index=False)


def test_the_rows_of_values_that_do_not_fit_are_named_the_first_ten_of_them(heat: BaseExperiment, root: Path) -> None:
    values = ["double"] * 3 + ["triple"] * 15

    message = refused(heat, pl.DataFrame({"area": [1.0] * 18, "glazing": values}), root)

    assert "glazing" in message
    assert "(15 rows: 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, …)" in message
    assert "'triple'" in message


@pytest.mark.parametrize("kind", ["polars", "pandas", "arrow"])
def test_values_out_of_bounds_are_refused_with_column_rows_and_rule(
    heat: BaseExperiment, root: Path, kind: str
) -> None:
    message = refused(heat, frame(kind, {"area": [1.0, -1.0, 2000.0, -5.0]}), root)

    assert "area: must be >= 0, got -1.0 (2 rows: 1, 3)" in message
    assert "area: must be <= 1000, got 2000.0 (1 row: 2)" in message


def test_all_that_is_wrong_is_told_at_once(heat: BaseExperiment, root: Path) -> None:
    message = refused(heat, pl.DataFrame({"storeys": ["a"], "glazing": ["triple"], "area": [1.0]}), root)

    assert "storeys" in message
    assert "glazing" in message


def test_models_that_were_changed_after_their_validation_are_checked_again(heat: BaseExperiment, root: Path) -> None:
    specs = [room(i) for i in range(3)]
    specs[1].area = -3
    assert "area: must be >= 0, got -3.0 (1 row: 1)" in refused(heat, specs, root)

    specs[1].area = "wide"  # type: ignore[assignment]
    message = refused(heat, specs, root)
    assert "area: must be float" in message
    assert "(1 row: 1)" in message


def test_rows_are_counted_as_they_were_given_also_where_the_sort_index_reorders_them(
    heat: BaseExperiment, root: Path
) -> None:
    specs = [room(i) for i in (2, 1, 0)]
    specs[0].area = -3

    assert "(1 row: 0)" in refused(heat, specs, root, overwrite_sort_index=False)


def test_a_model_with_rules_of_its_own_is_checked_by_its_own_validators(root: Path) -> None:
    class Even(ExperimentInputSpec):
        n: int

        @field_validator("n")
        @classmethod
        def even(cls, n: int) -> int:
            if n % 2:
                raise ValueError("must be even")
            return n

    @ExperimentRegistry.Register()
    def halve(spec: Even) -> Text:
        return Text(text=str(spec.n // 2))

    message = refused(BaseExperiment(experiment=halve), pl.DataFrame({"n": [2, 3, 4, 5]}), root)

    assert "n: Value error, must be even, got 3 (2 rows: 1, 3)" in message


def test_duplicates_of_the_sort_index_are_refused_unless_it_is_overwritten(heat: BaseExperiment, root: Path) -> None:
    specs = [room(3), room(1), room(3)]

    message = refused(heat, specs, root, overwrite_sort_index=False)
    assert "sort_index 3 stands twice" in message
    assert "rows 0 and 2" in message

    run, _ = heat.allocate(specs, engine="inline")
    assert scythe.read("heat", run.version)["sort_index"].to_list() == [0, 1, 2]


@pytest.mark.parametrize("version", ["bumpmega", "", "1.2", "v1.2.x", "latest", 3, "../v1.0.0"])
def test_an_unknown_version_is_refused(heat: BaseExperiment, root: Path, version: Any) -> None:
    message = refused(heat, [room()], root, VersionError, version=version)

    assert "bumpmajor, bumpminor, bumppatch, keep, auto" in message


@pytest.mark.parametrize(
    "name",
    [
        "a/b",
        "..",
        "a..b",
        "a\nb",
        "a\x00b",
        "",
        " a",
        "a ",
        ".hidden",
        "_catalog",
        "x" * 121,
        "a\\b",
        "scythe_experiment_a",
    ],
)
def test_a_run_name_that_is_no_folder_name_or_that_of_a_task_is_refused(
    heat: BaseExperiment, root: Path, name: str
) -> None:
    with pytest.raises(AllocationError, match="cannot be the name of a run"):
        BaseExperiment(experiment=heat.experiment, run_name=name)
    assert nothing_written(root)


def test_an_experiment_that_is_not_registered_is_refused(root: Path) -> None:
    def stranger(spec: Room) -> Warmth:
        return Warmth(kwh=1)

    with pytest.raises(NotFoundError, match=r"stranger.*Register"):
        BaseExperiment(experiment=stranger)
    with pytest.raises(NotFoundError, match="no experiment 'nobody'"):
        BaseExperiment(experiment="nobody")
    with pytest.raises(AllocationError, match="either"):
        BaseExperiment()
    with pytest.raises(AllocationError, match="either"):
        BaseExperiment(experiment=stranger, runnable=stranger)


def test_a_chunk_of_none_is_refused(heat: BaseExperiment, root: Path) -> None:
    assert "chunk" in refused(heat, [room()], root, AllocationError, chunk=0)


def test_an_unknown_engine_is_refused_before_anything_is_written(heat: BaseExperiment, root: Path) -> None:
    with pytest.raises(SettingsError, match="bogus"):
        heat.allocate([room()], engine="bogus")
    assert left_over(root) == []


def test_a_root_that_cannot_be_written_is_named(heat: BaseExperiment, root: Path) -> None:
    root.write_text("a file where the root should be")

    with pytest.raises(scythe.ScytheError, match=str(root)):
        heat.allocate([room()], engine="inline")


# --- files that are not there ------------------------------------------------------------------------


def test_a_missing_input_file_is_refused_with_field_row_and_path(reading: BaseExperiment, root: Path) -> None:
    Path("there.txt").write_text("there")
    specs = [Filed(experiment_id="", sort_index=i, weather="there.txt" if i < 2 else "gone.txt") for i in range(4)]

    message = refused(reading, specs, root)

    assert "weather: the file 'gone.txt' does not exist (rows 2, 3)" in message
    assert str(Path.cwd()) in message


def test_the_row_of_a_missing_file_is_counted_as_given_also_where_the_sort_index_reorders(
    reading: BaseExperiment, root: Path
) -> None:
    Path("there.txt").write_text("there")
    specs = [
        Filed(experiment_id="", sort_index=2, weather="gone.txt"),
        Filed(experiment_id="", sort_index=1, weather="there.txt"),
        Filed(experiment_id="", sort_index=0, weather="there.txt"),
    ]

    assert "(row 0)" in refused(reading, specs, root, overwrite_sort_index=False)


def test_all_files_that_are_missing_are_told_at_once(reading: BaseExperiment, root: Path) -> None:
    specs = [Filed(experiment_id="", sort_index=i, weather=f"gone{i}.txt") for i in range(13)]

    message = refused(reading, specs, root)

    assert [f"weather: the file 'gone{i}.txt' does not exist (row {i})" in message for i in range(13)] == [
        True
    ] * 10 + [False] * 3
    assert "… and 3 more" in message


def test_columns_that_are_none_do_not_hide_values_that_are_wrong(heat: BaseExperiment, root: Path) -> None:
    message = refused(heat, pl.DataFrame({"area": [20.0, -1.0], "storeis": [1, 1]}), root)

    assert "storeis: is not a field of Room; did you mean 'storeys'?" in message
    assert "area: must be" in message
    assert "2 problems" in message


def test_a_folder_is_not_an_input_file(reading: BaseExperiment, root: Path) -> None:
    Path("folder").mkdir()

    assert "weather: the file 'folder' is a folder" in refused(
        reading, Filed(experiment_id="", sort_index=0, weather="folder"), root
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_input_file_is_refused(reading: BaseExperiment, root: Path) -> None:
    Path("secret.txt").write_text("secret")
    Path("secret.txt").chmod(0)

    assert "cannot be read" in refused(reading, Filed(experiment_id="", sort_index=0, weather="secret.txt"), root)


def test_a_pipe_is_not_an_input_file(reading: BaseExperiment, root: Path) -> None:
    os.mkfifo("pipe")

    assert "cannot be read" in refused(reading, Filed(experiment_id="", sort_index=0, weather="pipe"), root)


def test_a_text_that_is_too_long_for_a_path_is_no_input_file(reading: BaseExperiment, root: Path) -> None:
    told = refused(reading, pl.DataFrame({"weather": ["x" * 300]}), root)
    assert re.search(
        r"weather: (must be file reference: got|the file 'x+' cannot be read)", told
    )  # the latter since Python 3.14
    assert "cannot be read (row 0)" in refused(reading, pl.DataFrame({"weather": [f"file:///{'x' * 300}"]}), root)


def test_a_missing_file_of_an_optional_field_is_refused_and_none_is_not(reading: BaseExperiment, root: Path) -> None:
    Path("there.txt").write_text("there")
    message = refused(reading, Filed(experiment_id="", sort_index=0, weather="there.txt", plan="gone.txt"), root)
    assert "plan: the file 'gone.txt'" in message

    _, ref = reading.allocate(Filed(experiment_id="", sort_index=0, weather="there.txt"), engine="inline")
    assert ref.result().rows == 1


# --- what is taken -----------------------------------------------------------------------------------


def frame(kind: str, data: dict[str, Any]) -> Any:
    match kind:
        case "polars":
            return pl.DataFrame(data)
        case "lazy":
            return pl.LazyFrame(data)
        case "pandas":
            return pd.DataFrame(data)
        case _:
            return pa.table(data)


@pytest.mark.parametrize("kind", ["polars", "lazy", "pandas", "arrow"])
def test_frames_of_every_library_run_with_defaults_and_numbers_filled_in(
    heat: BaseExperiment, root: Path, kind: str
) -> None:
    heat.allocate(frame(kind, columns(fuel=["oil", "gas", "oil"])), engine="inline")

    read = scythe.read("heat")
    assert read["sort_index"].to_list() == [0, 1, 2]
    assert read["kwh"].to_list() == [10.0, 40.0, 90.0]
    assert read["fuel"].to_list() == ["oil", "gas", "oil"]
    assert read["glazing"].to_list() == ["double"] * 3
    assert read["built"].to_list() == [dt.date(1970, 1, 1)] * 3


def test_pandas_categories_paths_and_indexes_are_understood(root: Path) -> None:
    class Site(ExperimentInputSpec):
        place: str
        weather: FileReference
        glazing: Literal["single", "double"]
        note: str | None = None

    @ExperimentRegistry.Register()
    def visit(spec: Site) -> Text:
        return Text(text=f"{spec.place} {spec.glazing} {spec.weather.read_text()} {spec.note}")

    Path("a.txt").write_text("A")
    Path("b.txt").write_text("B")
    data = pd.DataFrame(
        {
            "weather": [Path("a.txt"), Path("b.txt")],
            "glazing": pd.Categorical(["double", "single"]),
            "note": ["n", None],
        },
        index=pd.Index(["x", "y"], name="place"),
    )

    BaseExperiment(experiment=visit).allocate(data, engine="inline")

    assert scythe.read("visit")["text"].to_list() == ["x double A n", "y single B None"]


def test_numbers_that_lose_nothing_are_taken_in_another_type(heat: BaseExperiment, root: Path) -> None:
    data = pa.table({"area": pa.array([1, 2], pa.int8()), "storeys": pa.array([3.0, 4.0], pa.float32())})

    heat.allocate(data, engine="inline")

    assert scythe.read("heat")["kwh"].to_list() == [3.0, 8.0]


def test_polars_enums_and_categoricals_are_taken(heat: BaseExperiment, root: Path) -> None:
    data = pl.DataFrame(
        {"area": [1.0], "glazing": ["single"], "fuel": ["oil"]},
        schema_overrides={"glazing": pl.Enum(["single", "double"]), "fuel": pl.Categorical},
    )

    heat.allocate(data, engine="inline")

    assert scythe.read("heat").select("glazing", "fuel").row(0) == ("single", "oil")


def test_a_generator_of_models_is_taken(heat: BaseExperiment, root: Path) -> None:
    run, _ = heat.allocate((room(i) for i in range(3)), engine="inline")

    assert run.inputs == 3


def test_dicts_are_rows_and_what_some_of_them_lack_is_the_default(heat: BaseExperiment, root: Path) -> None:
    run, ref = heat.allocate([{"area": 1.0, "storeys": 3}, {"area": 2}], engine="inline")

    ref.result()
    assert scythe.read("heat", run=run)["storeys"].to_list() == [3, Room.model_fields["storeys"].default]
    assert scythe.read("heat", run=run)["area"].to_list() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ([{"area": 1.0, "fuel": "oil"}, {"area": 1.0}], ["oil", "gas"]),
        ([{"area": 1.0, "fuel": Fuel.OIL}, {"area": 1.0}], ["oil", "gas"]),
    ],
)
def test_a_default_stands_beside_values_of_any_form(heat: BaseExperiment, given: Any, stored: list[str]) -> None:
    inputs = prepare_inputs(given, heat.experiment, overwrite_sort_index=True)

    assert inputs.table["fuel"].to_pylist() == stored


def test_what_a_dict_lacks_is_what_the_model_makes_of_it_whichever_others_have_it(root: Path) -> None:
    class Shared(ExperimentInputSpec):
        k: int
        percent: Annotated[float, AfterValidator(lambda v: v / 100)] = 50.0
        name: Annotated[str, StringConstraints(to_upper=True)] = "abc"
        day: dt.date = Field("2020-01-02", validate_default=True)  # type: ignore[assignment]
        other: int | None = None

        @model_validator(mode="before")
        @classmethod
        def other_of_k(cls, data: dict[str, Any]) -> dict[str, Any]:
            return {"other": data["k"], **data}

    @ExperimentRegistry.Register(name="shared")
    def shared(input_spec: Shared) -> Warmth:
        return Warmth()

    rows: list[dict[str, Any]] = [
        {"k": 1},
        {"k": 2, "percent": 20.0},
        {"k": 3, "name": "x", "day": dt.date(2021, 1, 1)},
        {"k": 4, "other": None},
    ]
    wanted = [tuple(Shared(**row).model_dump(include={*Shared.model_fields} - {*ID_LEVELS}).values()) for row in rows]
    for some in ([0], [0, 1], [0, 2, 3], [3, 2, 1, 0]):
        inputs = prepare_inputs([rows[i] for i in some], experiment_of("shared"), overwrite_sort_index=True)
        found = inputs.table.select(["k", "percent", "name", "day", "other"]).to_pylist()
        assert [tuple(row.values()) for row in found] == [wanted[i] for i in some]


@pytest.mark.parametrize(
    ("annotation", "default"),
    [
        (float, None),
        (dt.date, "2020-01-02"),
        (int, "5"),
        (int, 1.5),
        (Literal["a"], "b"),
        (Annotated[Decimal, Field(max_digits=3, decimal_places=1)], Decimal("0.25")),
    ],
)
def test_a_default_that_the_model_would_refuse_is_named_where_a_frame_lacks_the_column(
    root: Path, annotation: Any, default: Any
) -> None:
    model: Any = create_model("Unasked", __base__=ExperimentInputSpec, k=(int, ...), x=(annotation, default))

    def unasked(input_spec: Any) -> Warmth:
        return Warmth()

    unasked.__annotations__["input_spec"] = model
    ExperimentRegistry.Register()(unasked)
    for frame in (pl.DataFrame({"k": [1, 2]}), pd.DataFrame({"k": [1, 2]})):
        told = refused(BaseExperiment("unasked"), frame, root)
        assert f"x: has the default {default!r}, and must be" in told


def test_empty_dicts_are_inputs_and_not_none(heat: BaseExperiment, root: Path) -> None:
    assert "area: 2 of 2 dicts lack it" in refused(heat, [{}, {}], root)


def test_a_stream_that_breaks_off_says_so(heat: BaseExperiment, root: Path) -> None:
    table = pa.table({"area": [1.0]})

    def batches() -> Iterator[pa.RecordBatch]:
        yield from table.to_batches()
        raise OSError("the network is down")

    told = refused(heat, pa.RecordBatchReader.from_batches(table.schema, batches()), root)
    assert "breaks off while its rows are read" in told
    assert "the network is down" in told


def test_what_speaks_arrow_is_a_frame(heat: BaseExperiment, root: Path) -> None:
    relation = duckdb.sql("select 1.0::double as area union all select 2.0")

    run, _ = heat.allocate(relation, engine="inline")

    assert sorted(scythe.read("heat", run=run)["area"]) == [1.0, 2.0]


def test_a_model_needs_no_identifiers_before_its_allocation(heat: BaseExperiment, root: Path) -> None:
    run, _ = heat.allocate([Room(area=3), Room(area=4)], engine="inline")

    assert scythe.read("heat", run=run).select("sort_index", "area").rows() == [(0, 3.0), (1, 4.0)]
    assert Room.model_json_schema()["required"][:2] == ["experiment_id", "sort_index"]
    assert "default" not in Room.model_json_schema()["properties"]["sort_index"]


@pytest.mark.parametrize("specs", [[Room(area=1)], Room(area=1), pl.DataFrame({"area": [1.0]}), [{"area": 1.0}]])
def test_inputs_that_are_to_keep_their_sort_index_must_have_one(heat: BaseExperiment, root: Path, specs: Any) -> None:
    assert "none: set it" in refused(heat, specs, root, overwrite_sort_index=False)


def test_sort_index_and_experiment_id_are_kept_where_that_is_asked_for(heat: BaseExperiment, root: Path) -> None:
    specs = [room(i) for i in (7, 3, 5)]

    heat.allocate(specs, engine="inline", overwrite_sort_index=False, overwrite_experiment_id=False)

    read = scythe.read("heat")
    assert read["sort_index"].to_list() == [3, 5, 7]
    assert read["area"].to_list() == [13.0, 15.0, 17.0]
    assert set(read["experiment_id"]) == {"mine"}


def test_by_default_the_specs_are_numbered_in_the_order_in_which_they_came(heat: BaseExperiment, root: Path) -> None:
    run, _ = heat.allocate([room(i) for i in (7, 3, 5)], engine="inline")

    read = scythe.read("heat")
    assert read["area"].to_list() == [17.0, 13.0, 15.0]
    assert set(read["experiment_id"]) == {run.experiment_id}


def test_a_model_with_validators_of_its_own_takes_frames_too(root: Path) -> None:
    class Percent(ExperimentInputSpec):
        share: float
        weather: FileReference

        @field_validator("share")
        @classmethod
        def fraction(cls, share: float) -> float:
            return share / 100

    @ExperimentRegistry.Register()
    def f(spec: Percent) -> Text:
        return Text(text=f"{spec.share} {spec.weather.read_text()}")

    Path("a.txt").write_text("A")
    BaseExperiment(experiment=f).allocate(pl.DataFrame({"share": [50.0], "weather": ["a.txt"]}), engine="inline")

    assert scythe.read("f")["text"].to_list() == ["0.5 A"]


def test_the_inputs_of_a_run_can_be_the_frame_of_another(reading: BaseExperiment, root: Path) -> None:
    Path("a.txt").write_text("A")
    reading.allocate(Filed(experiment_id="", sort_index=0, weather="a.txt"), engine="inline")
    again = scythe.read("reading").select("weather", "plan")

    reading.allocate(again, engine="inline")

    assert scythe.read("reading", "v2.0.0")["text"].to_list() == ["A"]


def test_one_model_is_a_run_of_one_with_a_workflow_spec_beside(heat: BaseExperiment, root: Path) -> None:
    run, ref = heat.allocate(room(5, note="héllo", colour="red"), engine="inline")

    assert (run.inputs, ref.result().rows) == (1, 1)
    assert scythe.read("heat")["kwh"].to_list() == [15.0]
    spec = yaml.safe_load((root / run.experiment_id / "workflow_spec.yml").read_text())
    assert spec["area"] == 15.0
    assert spec["note"] == "héllo"
    assert spec["fuel"] == "gas"
    assert spec["built"] == "1970-01-01"
    assert spec["colour"] == "red"
    assert spec["experiment_id"] == run.experiment_id


def test_one_model_may_hold_bytes_and_other_values_that_json_has_not(root: Path) -> None:
    class Odd(ExperimentInputSpec):
        raw: bytes
        number: float

    @ExperimentRegistry.Register()
    def odd(spec: Odd) -> Text:
        return Text(text=f"{spec.raw!r} {spec.number}")

    BaseExperiment(experiment=odd).allocate(
        Odd(experiment_id="", sort_index=0, raw=b"\xff", number=float("inf")), engine="inline"
    )

    assert scythe.read("odd")["text"].to_list() == [r"b'\xff' inf"]


def test_a_list_of_one_has_no_workflow_spec(heat: BaseExperiment, root: Path) -> None:
    run, _ = heat.allocate([room()], engine="inline")

    assert not (root / run.experiment_id / "workflow_spec.yml").exists()


def test_a_run_name_names_the_folder(heat: BaseExperiment, root: Path) -> None:
    run, _ = BaseExperiment(experiment=heat.experiment, run_name="Winter 2024").allocate([room()], engine="inline")

    assert run.experiment_id.startswith("Winter 2024/v1.0.0/")
    assert scythe.read("Winter 2024")["kwh"].to_list() == [10.0]
    assert scythe.list_experiments()["name"].to_list() == ["Winter 2024"]


# --- artifacts ---------------------------------------------------------------------------------------


def listed(root: Path, run: Any) -> dict[str, list[str]]:
    return yaml.safe_load((root / run.experiment_id / "input_artifacts.yml").read_text())["files"]


def test_files_of_one_name_and_content_are_stored_once(reading: BaseExperiment, root: Path) -> None:
    for name in ("a.txt", "b.txt", "sub/a.txt"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("same")
    specs = [Filed(experiment_id="", sort_index=0, weather=n) for n in ("a.txt", "b.txt", "sub/a.txt", "a.txt")]

    run, _ = reading.allocate(specs, engine="inline")

    stored = (root / run.experiment_id / "artifacts" / "weather").iterdir()
    assert sorted(p.name for p in stored) == ["a.txt", "b.txt"]
    assert listed(root, run)["weather"] == [f"{run.uri}/artifacts/weather/{name}.txt" for name in "ab"]
    assert scythe.read("reading")["text"].to_list() == ["same"] * 4


@given(
    st.lists(
        st.tuples(st.sampled_from(["a.epw", "A.epw", "b.epw", "ä.epw", "Ä.epw"]), st.sampled_from("xyz")), min_size=1
    )
)
def test_files_lie_apart_wherever_names_are_told_without_case_and_keep_them(files: list[tuple[str, str]]) -> None:
    paths = {str(i): Path(f"{i}") / name for i, (name, _) in enumerate(files)}
    digests = {paths[str(i)]: content * 64 for i, (_, content) in enumerate(files)}
    found = stored_places(paths, digests)
    places = [found[str(i)] for i in range(len(files))]
    by_file = dict(zip(files, places, strict=True))
    assert [by_file[file] for file in files] == places, "once for each name and content"
    assert len({place.casefold() for place in by_file.values()}) == len(by_file)
    assert all(place.rsplit("/", 1)[-1] == name for (name, _), place in by_file.items())


def test_different_files_of_one_name_get_distinct_keys(reading: BaseExperiment, root: Path) -> None:
    for folder in ("p", "q", "r"):
        Path(folder).mkdir()
        (Path(folder) / "site.v1.epw").write_text(folder)
    specs = [Filed(experiment_id="", sort_index=0, weather=f"{f}/site.v1.epw") for f in ("q", "p", "r")]

    run, _ = reading.allocate(specs, engine="inline")

    stored = [p for p in (root / run.experiment_id / "artifacts" / "weather").rglob("*") if p.is_file()]
    assert len(stored) == 3
    assert {p.name for p in stored} == {"site.v1.epw"}, "the function sees the name, whatever others there are"
    assert scythe.read("reading")["text"].to_list() == ["q", "p", "r"]
    assert len(listed(root, run)["weather"]) == 3


def test_fields_have_a_folder_each_and_odd_file_names_survive(reading: BaseExperiment, root: Path) -> None:
    name = "wéather 100% #1?.txt"
    Path(name).write_text("odd")

    run, _ = reading.allocate(Filed(experiment_id="", sort_index=0, weather=name, plan=name), engine="inline")

    assert (root / run.experiment_id / "artifacts" / "weather" / name).read_text() == "odd"
    assert (root / run.experiment_id / "artifacts" / "plan" / name).read_text() == "odd"
    assert scythe.read("reading")["text"].to_list() == ["odd"]
    assert sorted(listed(root, run)) == ["plan", "weather"]


def test_absolute_paths_and_the_home_folder_are_no_different(reading: BaseExperiment, root: Path) -> None:
    Path("a.txt").write_text("A")

    reading.allocate(Filed(experiment_id="", sort_index=0, weather=Path("a.txt").absolute()), engine="inline")

    assert scythe.read("reading")["text"].to_list() == ["A"]


def test_a_file_that_changes_after_the_allocation_does_not_change_the_run(root: Path) -> None:
    @ExperimentRegistry.Register()
    def f(spec: Filed) -> Text:
        Path(source).write_text("changed")
        return Text(text=spec.weather.read_text())

    source = Path("a.txt").absolute()
    source.write_text("first")
    BaseExperiment(experiment=f).allocate(Filed(experiment_id="", sort_index=0, weather=source), engine="inline")

    assert scythe.read("f")["text"].to_list() == ["first"]


# --- files of the web --------------------------------------------------------------------------------


@pytest.fixture
def web() -> Iterator[str]:
    """A server that answers every path with the path itself, but those with `gone` in them."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.path.encode()
            self.send_response(404 if "gone" in self.path else 200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", '"1"')
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_web_files_reach_the_function_as_local_paths_and_stay_where_they_are(
    reading: BaseExperiment, root: Path, web: str
) -> None:
    run, _ = reading.allocate(Filed(experiment_id="", sort_index=0, weather=f"{web}/a.txt"), engine="inline")

    assert scythe.read("reading").select("text", "weather").row(0) == ("/a.txt", f"{web}/a.txt")
    assert listed(root, run)["weather"] == [f"{web}/a.txt"]
    assert not (root / run.experiment_id / "artifacts").exists()


def test_web_files_are_copied_into_the_run_where_that_is_asked_for(
    reading: BaseExperiment, root: Path, web: str
) -> None:
    specs = [Filed(experiment_id="", sort_index=0, weather=f"{web}/{n}.txt") for n in ("a", "b", "a")]

    run, _ = reading.allocate(specs, engine="inline", copy_inputs=True)

    uris = [f"{run.uri}/artifacts/weather/{n}.txt" for n in ("a", "b")]
    assert listed(root, run)["weather"] == uris
    assert scythe.read("reading")["weather"].to_list() == [uris[0], uris[1], uris[0]]
    assert scythe.read("reading")["text"].to_list() == ["/a.txt", "/b.txt", "/a.txt"]
    assert pq.read_table(root / run.experiment_id / "specs.pq")["weather"].to_pylist() == [uris[0], uris[1], uris[0]]


def test_a_web_file_that_cannot_be_copied_stops_the_allocation_and_leaves_nothing(
    reading: BaseExperiment, root: Path, web: str
) -> None:
    Path("plan.txt").write_text("plan")
    spec = Filed(experiment_id="", sort_index=0, weather=f"{web}/gone.txt", plan="plan.txt")

    message = refused(reading, spec, root, copy_inputs=True)
    assert "weather: " in message
    assert "404" in message

    Path("ok.txt").write_text("ok")
    run, _ = reading.allocate(Filed(experiment_id="", sort_index=0, weather="ok.txt"), engine="inline")
    assert run.version == "v1.0.0"


def test_a_failed_allocation_gives_its_version_back_and_leaves_nothing_staged(
    reading: BaseExperiment, root: Path, web: str
) -> None:
    Path("weather.txt").write_text("w")
    spec = Filed(experiment_id="", sort_index=0, weather="weather.txt", plan=f"{web}/gone.txt")

    refused(reading, spec, root, copy_inputs=True)

    assert scythe.list_experiments().height == 0


def test_a_web_file_that_is_gone_when_its_turn_comes_is_an_error_row(
    reading: BaseExperiment, root: Path, web: str
) -> None:
    specs = [Filed(experiment_id="", sort_index=0, weather=f"{web}/{n}.txt") for n in ("gone", "a")]

    with pytest.raises(FetchError, match=r"weather: .*gone\.txt answered 404"):
        reading.allocate(specs, engine="inline")
    scythe.open_run("reading").resume(engine="inline")

    errors = scythe.read("reading", table="errors")
    assert errors["sort_index"].to_list() == [0]
    assert errors["exception_type"].to_list() == ["scythe.errors.FetchError"]
    assert scythe.read("reading")["text"].to_list() == ["/a.txt"]


# --- computed features and extra values ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("features", "words"),
    [
        ({"area": 1.0}, "'area'"),
        ({"kwh": 1.0}, "'kwh'"),
        ({"sort_index": 1}, "'sort_index'"),
        ({"version": "v1"}, "'version'"),
        ({"traceback": "t"}, "'traceback'"),
        ({"a/b": 1.0}, "'a/b'"),
        ({"shape": [1, 2]}, "'shape'"),
        ({"shape": object()}, "'shape'"),
    ],
)
def test_computed_features_that_clash_or_are_no_scalars_are_refused(
    root: Path, features: dict[str, Any], words: str
) -> None:
    class Featured(ExperimentInputSpec):
        area: float

        @property
        def computed_features(self) -> dict[str, Any]:
            return features

    @ExperimentRegistry.Register()
    def f(spec: Featured) -> Warmth:
        return Warmth(kwh=1)

    message = refused(BaseExperiment(experiment=f), Featured(experiment_id="", sort_index=0, area=1), root)

    assert "computed_features" in message
    assert words in message


def test_computed_features_that_raise_are_refused(root: Path) -> None:
    class Broken(ExperimentInputSpec):
        @property
        def computed_features(self) -> dict[str, Any]:
            raise ZeroDivisionError("by nought")

    @ExperimentRegistry.Register()
    def f(spec: Broken) -> Warmth:
        return Warmth(kwh=1)

    message = refused(BaseExperiment(experiment=f), Broken(experiment_id="", sort_index=0), root)

    assert "computed_features raises ZeroDivisionError: by nought" in message


def test_numpy_values_in_models_are_stored_as_numbers(heat: BaseExperiment, root: Path) -> None:
    heat.allocate([room(area=np.float64(2.5), storeys=int(np.int64(2)))], engine="inline")

    assert scythe.read("heat")["kwh"].to_list() == [5.0]


def test_a_pandas_index_of_texts_without_a_name_is_not_dropped(root: Path) -> None:
    frame = pd.DataFrame({"k": [1, 2]}, index=["siteA", "siteB"])

    class Keyed(ExperimentInputSpec):
        k: int

    def keyed(spec: Keyed) -> ExperimentOutputSpec:
        return ExperimentOutputSpec()

    experiment = BaseExperiment(ExperimentRegistry.Register()(keyed))
    with pytest.raises(
        InputError, match=r"an index without a name, of \w+ such as 'siteA', which is no field: name it"
    ):
        experiment.allocate(frame, engine="inline")
    for good in (frame.reset_index(drop=True), frame.reset_index(drop=True)[lambda f: f.k > 1]):
        assert experiment.allocate(good, engine="inline")[1].result().rows == len(good)


def test_a_field_that_is_passed_by_its_own_name_where_it_has_an_alias_is_told(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Storey(ExperimentInputSpec):
        height: float = Field(3, alias="storeyHeight")

    def storey(spec: Storey) -> ExperimentOutputSpec:
        return ExperimentOutputSpec()

    given = [Storey(height=2)]  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    BaseExperiment(ExperimentRegistry.Register()(storey)).allocate(given, engine="inline")
    said = capsys.readouterr().err
    assert "'height' is a field of Storey that is given as 'storeyHeight', and is kept as an extra value" in said


def test_an_extra_value_that_is_nearly_a_field_is_told(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Warm(ExperimentInputSpec):
        setpoint: float = 20

    def warm(spec: Warm) -> ExperimentOutputSpec:
        return ExperimentOutputSpec()

    experiment = BaseExperiment(ExperimentRegistry.Register()(warm))
    given = [Warm(setpont=23), Warm(colour="red"), Warm(setpoint=20, site="a")]  # pyright: ignore[reportCallIssue]
    experiment.allocate(given, engine="inline")[1].result()
    said = capsys.readouterr().err
    assert "'setpont' is no field of Warm, and is kept as an extra value: did you mean 'setpoint'?" in said
    assert "'colour' is no field of Warm, and is kept as an extra value, where 'setpoint' has the default" in said
    assert "site" not in said


# --- instances that were not made by their model ------------------------------------------------------


class Span(ExperimentInputSpec):
    low: float = Field(ge=0, le=9)
    high: float = Field(ge=0, le=9)
    even: Annotated[int, AfterValidator(lambda value: _even(value))] = 2

    @model_validator(mode="after")
    def ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError("low lies above high")
        return self


class Width(ExperimentOutputSpec):
    width: float

    @field_validator("width")
    @classmethod
    def narrow(cls, value: float) -> float:
        assert value < 5, "too wide"
        return value


def _even(value: int) -> int:
    if value % 2:
        raise ValueError("odd")
    return value


def wide(spec: Span) -> Width:
    return Width(width=0).model_copy(update={"width": spec.high - spec.low})


def test_what_a_models_own_rules_say_of_copies_and_assignments_is_told(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ExperimentRegistry.Register(retries=0)(wide)
    base = Span(low=1, high=2)
    assigned = Span(low=1, high=2)
    assigned.low = 3.0
    for broken, told in (
        (base.model_copy(update={"low": 3.0}), "Span: Value error, low lies above high (1 row: 1): so says Span"),
        (assigned, "low lies above high (1 row: 1)"),
        (base.model_copy(update={"even": 3}), "even: Value error, odd (1 row: 1)"),
        (base, ""),
    ):
        BaseExperiment(wide).allocate([base, broken], "auto", engine="inline")[1].result()
        said = capsys.readouterr().err
        assert told in said
        assert ("so says" in said) == bool(told)


class OneOf(ExperimentInputSpec):
    """One of them is given, and makes the other."""

    u: float | None = None
    r: float | None = None

    @model_validator(mode="after")
    def one(self) -> Self:
        if (self.u is None) == (self.r is None):
            raise ValueError("give exactly one")
        self.u, self.r = (1 / self.r, self.r) if self.u is None and self.r is not None else (self.u, 1 / (self.u or 1))
        return self


class NotBoth(ExperimentInputSpec):
    u: float = 1
    r: float = 1

    @model_validator(mode="after")
    def one(self) -> Self:
        if {"u", "r"} <= self.model_fields_set:
            raise ValueError("not both")
        return self


@pytest.mark.parametrize("made", [OneOf(u=2), NotBoth(u=2)], ids=["derived", "looks at what is given"])
def test_rules_that_refuse_what_they_have_made_refuse_no_input(root: Path, made: Any) -> None:
    def takes(spec: Any) -> Width:
        return Width(width=spec.u)

    takes.__annotations__["spec"] = type(made)
    ExperimentRegistry.Register(retries=0)(takes)
    BaseExperiment(takes).allocate([made], engine="inline")[1].result()
    assert scythe.read("takes")["width"].to_list() == [2]


class Turned(ExperimentInputSpec):
    #: Given in degrees.
    angle: Annotated[float, BeforeValidator(lambda degrees: math.radians(degrees)), Field(ge=-1, le=1)]

    @field_validator("angle")
    @classmethod
    def large(cls, value: float) -> float:
        if abs(value) < 0.1:
            raise ValueError("too small")
        return value


def turned(spec: Turned) -> Width:
    return Width(width=spec.angle)


def test_rules_that_would_change_a_value_again_are_not_asked_again(root: Path) -> None:
    ExperimentRegistry.Register(retries=0)(turned)
    BaseExperiment(turned).allocate([Turned(angle=10)], engine="inline")[1].result()
    assert scythe.read("turned")["width"].item() == math.radians(10)


class Told(ExperimentInputSpec):
    share: float = 0.0
    note: str = ""


@pytest.mark.parametrize(
    ("column", "field", "wanted"),
    [
        (pd.Series(pd.arrays.SparseArray([0.0, 0.5])), "share", [0.0, 0.5]),
        (pd.Series(pd.period_range("2020", "2021", freq="Y")), "note", ["2020", "2021"]),
        (pd.Series(pd.interval_range(0, 2)), "note", ["(0, 1]", "(1, 2]"]),
        (pd.Series(pd.Categorical(["a", "b"])), "note", ["a", "b"]),
    ],
    ids=["sparse", "periods", "intervals", "categories"],
)
def test_columns_of_pandas_own_types_are_taken_as_those_of_dataframes_are(
    root: Path, column: Any, field: str, wanted: list[Any]
) -> None:
    @ExperimentRegistry.Register()
    def telling(spec: Told) -> Warmth:
        return Warmth(kwh=spec.share)

    BaseExperiment(telling).allocate(pd.DataFrame({field: column}), engine="inline")
    assert scythe.read("telling")[field].to_list() == wanted


def test_complex_numbers_of_a_frame_are_refused_with_the_way_out(root: Path) -> None:
    @ExperimentRegistry.Register()
    def telling(spec: Told) -> Warmth:
        return Warmth(kwh=spec.share)

    with pytest.raises(InputError, match=r"share: .*complex numbers.*real and imaginary parts in two columns"):
        BaseExperiment(telling).allocate(pd.DataFrame({"share": [1j]}), engine="inline")


UTC_DAY, DAY = dt.datetime(2020, 1, 1, tzinfo=dt.UTC), dt.datetime(2020, 1, 1)


@pytest.mark.parametrize("library", ["polars", "pandas"])
@pytest.mark.parametrize(
    ("kind", "value", "becomes"),
    [
        (float, "1.5", 1.5),
        (int, True, 1),
        (str, 3, "3"),
        (bool, 1, True),
        (dt.date, "2020-01-01", DAY.date()),
        (dt.datetime, "2020-01-01T00:00:00", DAY),
        (dt.datetime, UTC_DAY, DAY),
        (AwareDatetime, DAY, UTC_DAY),
        (dt.timedelta, 90, dt.timedelta(seconds=90)),
        (float, dt.timedelta(seconds=1.5), 1.5),
    ],
    ids=str,
)
def test_what_a_column_of_another_type_may_be_cast_by_works(
    root: Path, kind: Any, value: Any, becomes: Any, library: str
) -> None:
    spec: Any = create_model("Spec", __base__=ExperimentInputSpec, v=(kind, ...))
    out: Any = create_model("Out", __base__=ExperimentOutputSpec, y=(int, ...))

    def cast(spec: Any) -> Any:
        return out(y=1)

    cast.__annotations__ = {"spec": spec, "return": out}
    base = BaseExperiment(ExperimentRegistry.Register()(cast))
    frame: Any = pl.DataFrame({"v": [value]}) if library == "polars" else pd.DataFrame({"v": [value]})
    with pytest.raises(InputError) as refused:
        base.allocate(frame, engine="inline")
    way = eval(str(refused.value).rpartition(": ")[2], {"pl": pl, "pd": pd, "frame": frame})
    mended = frame.with_columns(v=way) if library == "polars" else frame.assign(v=way)
    base.allocate(mended, engine="inline")[1].result()
    assert scythe.read("cast")["v"].to_list() == [becomes]
