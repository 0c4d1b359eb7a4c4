"""Fields that are renamed: rows of before and since stand in one column, whoever asks, and by either name."""

import pickle
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from pydantic import BaseModel, Field, create_model

import scythe
from scythe.allocate import BaseExperiment
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.errors import AllocationError, NotFoundError, RegistrationError, ScytheError, VersionError
from scythe.registry import ExperimentRegistry
from scythe.reporting.collect import facts_of
from scythe.runs.compare import compare_runs
from scythe.runs.pack import pack
from scythe.runs.rebuild import rebuild
from scythe.runs.run import ExperimentRun
from scythe.sampling import verb
from scythe.settings import storage
from scythe.transfer.sheets import write_sheets
from scythe.utils.filesys import FileReference
from scythe_catalog.iceberg import datafile
from scythe_catalog.iceberg.catalog import Catalog
from scythe_catalog.iceberg.datafile import stored_field_ids

NAME = "wall"


def was(former: str, default: Any = ..., **more: Any) -> Any:
    return Field(default, json_schema_extra={"renamed_from": former}, **more)


class Layer(BaseModel):
    thickness: float = was("t")


class Wrapped(BaseModel):
    layers: list[Layer]


def experiment(inputs: dict[str, Any], outputs: dict[str, Any], *, frame: bool = False) -> BaseExperiment:
    """The experiment `wall` with these fields: each output is ten times the first input, files hold it as text."""
    taken: Any = create_model("In", __base__=ExperimentInputSpec, **inputs)
    given_back: Any = create_model("Out", __base__=ExperimentOutputSpec, **outputs)
    first = next(iter(inputs))

    def wall(spec: Any, tempdir: Path) -> Any:
        value, made = getattr(spec, first), {}
        if value == 13 and Path("broken").exists():
            raise ValueError("broken")
        for name, (kind, _) in outputs.items():
            made[name] = 10 * value if kind is float else tempdir / f"{name}.txt"
            if kind is not float:
                made[name].write_text(str(value))
        more = {"dataframes": {"monthly": pd.DataFrame({"x": [value, value + 1]})}} if frame else {}
        return given_back(**made, **more)

    wall.__annotations__ = {"spec": taken, "tempdir": Path, "return": given_back}
    ExperimentRegistry._experiments.pop(NAME, None)
    ExperimentRegistry.Register()(wall)
    return BaseExperiment(wall)


def run(
    base: BaseExperiment,
    column: str,
    values: list[float],
    version: str = "auto",
    *,
    s: float | None = None,
    **more: Any,
) -> ExperimentRun:
    inputs = pl.DataFrame({column: values}).with_columns(*([pl.lit(s).alias("s")] if s is not None else []))
    made, ref = base.allocate(inputs, version=version, engine="inline", **more)
    ref.result()
    return made


def before(**more: Any) -> BaseExperiment:
    return experiment({"r": (float, ...)}, {"heat": (float, ...)}, **more)


def since(**more: Any) -> BaseExperiment:
    return experiment({"r_value": (float, was("r"))}, {"heating": (float, was("heat"))}, **more)


def both(**more: Any) -> tuple[ExperimentRun, ExperimentRun]:
    return run(before(**more), "r", [1.0, 2.0]), run(since(**more), "r_value", [3.0])


# --- versions ---------------------------------------------------------------------------------------


def test_rows_of_before_and_since_stand_in_one_column(root: Path) -> None:
    old, new = both()

    assert (old.version, new.version) == ("v1.0.0", "v1.1.0")
    rows = scythe.read(NAME, "all", ids=False).drop("run_datetime")
    assert rows.rows() == [(1.0, 10.0, "v1.0.0"), (2.0, 20.0, "v1.0.0"), (3.0, 30.0, "v1.1.0")]
    assert rows.columns == ["r_value", "heating", "version"]
    assert scythe.read(NAME, "v1.0.0", ids=False).columns == ["r_value", "heating"]
    assert catalog_tables() == {"scalars", "errors", "tasks"}


def catalog_tables() -> set[str]:
    from scythe.record.generations import catalog_of

    return {*catalog_of(storage()).tables(NAME)}


def test_a_former_name_is_still_taken_and_shown_as_asked(root: Path) -> None:
    both()

    for version in ("v1.0.0", "v1.1.0", "all"):
        asked = scythe.read(NAME, version, columns=["heat", "r_value", "r"])
        assert asked.columns == ["heat", "r_value", "r"]
        assert asked["heat"].to_list() == [10 * r for r in asked["r"].to_list()]
        assert asked["r"].to_list() == asked["r_value"].to_list()
    with pytest.raises(NotFoundError, match=r"no column 'heats' \(did you mean 'heating'\?\)"):
        scythe.read(NAME, "all", columns=["heats"])


def test_files_keep_the_names_that_they_were_written_with(root: Path) -> None:
    old, new = both()

    index = pd.read_parquet(old.result.uris["scalars"].removeprefix("file://")).index.names  # pyright: ignore[reportOptionalMemberAccess]
    assert {"r", "r_value"} & {*index} == {"r"}
    index = pd.read_parquet(new.result.uris["scalars"].removeprefix("file://")).index.names  # pyright: ignore[reportOptionalMemberAccess]
    assert {"r", "r_value"} & {*index} == {"r_value"}


@pytest.mark.parametrize("step", ["keep", "bumppatch", "v1.0.1"])
def test_a_rename_needs_a_minor_step_and_says_what_was_renamed(root: Path, step: str) -> None:
    run(before(), "r", [1.0])

    with pytest.raises(VersionError) as error:
        run(since(), "r_value", [3.0], step)
    assert "input.r_value: renamed from r (additive)" in str(error.value)
    assert "output.heating: renamed from heat (additive)" in str(error.value)
    assert scythe.read(NAME).columns[-2:] == ["r", "heat"]


def test_a_rename_beside_a_change_of_type_is_breaking_and_all_is_read_together(root: Path) -> None:
    run(before(), "r", [1.0])
    changed = experiment({"r_value": (float, was("r")), "kind": (str, "a")}, {"heating": (float, was("heat"))})
    run(changed, "r_value", [2.0])
    texts = experiment({"r_value": (float, ...), "kind": (int, 1)}, {"q": (float, was("heating"))})

    assert run(texts, "r_value", [3.0]).version == "v2.0.0"
    assert scythe.read(NAME, "all", columns=["r", "q"]).rows() == [(1.0, 10.0), (2.0, 20.0), (3.0, 30.0)]
    assert scythe.read(NAME, "v1.0.0", columns=["heat"]).to_series().to_list() == [10.0]


def test_a_rename_can_be_told_to_an_allocation(root: Path) -> None:
    run(before(), "r", [1.0])
    plain = experiment({"r_value": (float, ...)}, {"heating": (float, ...)})
    names = {"r": "r_value", "heat": "heating"}

    assert run(plain, "r_value", [2.0], rename=names).version == "v1.1.0"
    assert run(plain, "r_value", [3.0], "keep", rename=names).version == "v1.1.0"  # it has happened
    assert run(plain, "r_value", [4.0]).version == "v1.1.1"
    assert scythe.read(NAME, "all", run="all", columns=["r_value"]).to_series().sort().to_list() == [1, 2, 3, 4]


def test_a_field_can_be_renamed_again_and_back(root: Path) -> None:
    run(before(), "r", [1.0])
    run(since(), "r_value", [2.0])
    run(experiment({"wall_r": (float, was("r_value"))}, {"heating": (float, was("heat"))}), "wall_r", [3.0])
    for asked in ("r", "r_value", "wall_r"):
        assert scythe.read(NAME, "all", columns=[asked])[asked].sort().to_list() == [1.0, 2.0, 3.0]

    run(experiment({"r": (float, was("wall_r"))}, {"heating": (float, was("heat"))}), "r", [4.0])
    for asked in ("r", "r_value", "wall_r"):
        assert scythe.read(NAME, "all", columns=[asked])[asked].sort().to_list() == [1.0, 2.0, 3.0, 4.0]
    assert scythe.read(NAME, "v1.1.0").columns[-2:] == ["r", "heating"]


def test_runs_of_an_earlier_version_go_into_the_same_column_later_on(root: Path) -> None:
    both(frame=True)
    run(before(frame=True), "r", [5.0], "v1.0.1")

    assert scythe.read(NAME, "all", columns=["r_value", "heating"]).rows() == [(1, 10), (2, 20), (3, 30), (5, 50)]
    monthly = scythe.read(NAME, "all", table="monthly", columns=["r_value", "x"])
    assert monthly.rows() == [(1, 1), (1, 2), (2, 2), (2, 3), (3, 3), (3, 4), (5, 5), (5, 6)]


def test_a_former_name_is_free_for_no_other_field(root: Path) -> None:
    both()
    other = experiment({"r": (float, ...)}, {"heating": (float, ...)})

    with pytest.raises(
        VersionError, match=r"'r' is what 'r_value' was called before v1\.1\.0: call the field 'r_value', or"
    ):
        run(other, "r", [7.0], "bumpmajor")


# --- refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rename", "message"),
    [
        (
            {"rr": "r_value"},
            r"'r_value' is said to be what 'rr' was, but v1.0.0 has no field 'rr' \(did you mean 'r'\?\)",
        ),
        ({"r": "rvalue"}, r"there is no field 'rvalue' \(did you mean 'r_value'\?\)"),
        ({"heat": "r_value"}, r"'heat' was an output in v1.0.0, and 'r_value' is an input"),
        ({"r": "r_value", "heat": "r_value"}, r"makes one field of two, 'r_value'"),
        ({"heating": "r_value"}, r"'heating' is a field still"),
    ],
)
def test_a_rename_that_cannot_be_is_refused(root: Path, rename: dict[str, str], message: str) -> None:
    run(before(), "r", [1.0])
    plain = experiment({"r_value": (float, ...)}, {"heating": (float, ...)})

    with pytest.raises(VersionError, match=message):
        run(plain, "r_value", [2.0], "bumpmajor", rename=rename)
    assert [str(version) for version in plain.list_versions()] == ["v1.0.0"]


def test_a_field_is_renamed_in_the_highest_version_alone(root: Path) -> None:
    run(before(), "r", [1.0])
    run(experiment({"r": (float, ...)}, {"loss": (float, ...)}), "r", [2.0], "v2.0.0")

    with pytest.raises(VersionError, match=r"'r' cannot be renamed to 'r_value' in v1\.1\.0: v2\.0\.0 stands above it"):
        run(since(), "r_value", [3.0], "v1.1.0")
    assert scythe.read(NAME, "all", columns=["r"]).to_series().to_list() == [1.0, 2.0]


def test_a_misspelt_former_name_in_a_model_is_refused_whatever_the_step(root: Path) -> None:
    run(before(), "r", [1.0])
    wrong = experiment({"r_value": (float, was("R"))}, {"heat": (float, ...)})

    with pytest.raises(VersionError, match=r"v1\.0\.0 has no field 'R'"):
        run(wrong, "r_value", [2.0], "bumpmajor")


@pytest.mark.parametrize("rename", ["r", {"r": 1}, {1: "r"}, [("r", "s")], {"": "r"}])
def test_what_is_no_rename_is_refused(root: Path, rename: Any) -> None:
    with pytest.raises(AllocationError, match=r'rename must tell former names and names, \{"r": "r_value"\}'):
        run(before(), "r", [1.0], rename=rename)


def test_models_that_contradict_themselves_are_refused_when_they_are_registered(root: Path) -> None:
    with pytest.raises(RegistrationError, match="says renamed_from='a', and 'a' is a field still"):
        experiment({"a": (float, ...), "b": (float, was("a"))}, {"y": (float, ...)})
    with pytest.raises(RegistrationError, match="'b' and 'c' both say renamed_from='a'"):
        experiment({"b": (float, was("a")), "c": (float, was("a"))}, {"y": (float, ...)})
    with pytest.raises(RegistrationError, match="must be the name that the field had, got 3"):
        experiment({"b": (float, Field(json_schema_extra={"renamed_from": 3}))}, {"y": (float, ...)})
    for key in ("renamed_form", "renamed", "rename_from", "renamedFrom", "renmaed_from", "Renamed_from"):
        with pytest.raises(RegistrationError, match=f"json_schema_extra has '{key}': did you mean 'renamed_from'"):
            experiment({"b": (float, Field(json_schema_extra={key: "a"}))}, {"y": (float, ...)})
    for kind in (Layer, list[Layer], dict[str, Layer | None], tuple[int, Wrapped]):
        with pytest.raises(RegistrationError, match=r"Layer\.thickness says renamed_from='t' within .*: the fields of"):
            experiment({"b": (kind, ...)}, {"y": (float, ...)})
    others = dict.fromkeys(
        ("name", "from", "created_from", "removed_from", "sampled_from", "name_from", "range_from"), "a"
    )
    experiment({"b": (float, Field(json_schema_extra=others))}, {"y": (float, ...)})  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def test_an_allocation_that_fails_leaves_the_columns_their_names(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import scythe.allocate.store as store

    run(before(frame=True), "r", [1.0])
    shown = scythe.read(NAME, "all"), scythe.read(NAME, "all", table="monthly")

    def fails(*args: Any, **more: Any) -> Any:
        raise AllocationError("as if the disk were full")

    with monkeypatch.context() as patched:
        patched.setattr(store, "make_manifest", fails)
        with pytest.raises(AllocationError):
            run(since(frame=True), "r_value", [2.0])
    for now, then in zip((scythe.read(NAME, "all"), scythe.read(NAME, "all", table="monthly")), shown, strict=True):
        assert_frame_equal(now, then)
    assert run(before(frame=True), "r", [1.0]).version == "v1.0.1"


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_work_in_a_root_that_has_lost_its_catalog_leaves_no_column_by_both_names(
    root: Path, order: tuple[int, int]
) -> None:
    Path("broken").touch()
    made = []
    for base, column in ((before, "r"), (since, "r_value")):
        with pytest.raises(ValueError, match="broken"):
            run(base(frame=True), column, [1.0, 13.0])
        made.append(scythe.open_run(NAME).resume(engine="inline") and scythe.open_run(NAME))
    Path("broken").unlink()
    shutil.rmtree(root / "_catalog")

    for i in order:
        (before, since)[i](frame=True)
        made[i].retry_errors(engine="inline")
    rebuild(storage())
    for table in ("scalars", "monthly"):
        rows = scythe.read(NAME, "all", run="all", table=table)
        assert "r" not in rows.columns
        assert rows.null_count().sum_horizontal().item() == 0
    assert scythe.read(NAME, "all", run="all")["r_value"].to_list() == [1.0, 13.0, 1.0, 13.0]


# --- whoever reads ----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["download", "upload"])
def test_versions_of_before_and_since_come_to_another_root_one_after_the_other(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    run(before(frame=True), "r", [1.0, 2.0])
    other, here = tmp_path / "other", lambda place: monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(place))
    for step in range(2):
        here(root)
        if step:
            run(since(frame=True), "r_value", [3.0])
        if way == "download":
            scythe.download(NAME, other, version=f"v1.{step}.0")
        else:
            here(other)
            scythe.upload(root)
    here(other)
    rows = scythe.read(NAME, "all", table="monthly", columns=["version", "r_value"]).unique().sort("r_value")
    assert rows.rows() == [("v1.0.0", 1), ("v1.0.0", 2), ("v1.1.0", 3)]
    (sheet,) = write_sheets(NAME, tmp_path, [("scalars", "xlsx")], "v1.0.0")
    notes = pl.read_excel(sheet.path, sheet_name="columns", engine="openpyxl")
    assert {"r_value", "heating"} <= {*notes["column"]}


def test_a_run_in_place_of_its_experiment_is_refused_by_what_to_give(root: Path) -> None:
    made = run(before(), "r", [1.0])
    with pytest.raises(NotFoundError, match="a run is given in place of its experiment: give the name, 'wall', and"):
        scythe.read(made)


def test_dataframes_and_files_are_read_by_the_new_name(root: Path) -> None:
    def of(name: str, former: str | None, file: str, file_was: str | None) -> BaseExperiment:
        kind = was(former) if former else ...
        return experiment(
            {name: (float, kind)}, {file: (FileReference, was(file_was) if file_was else ...)}, frame=True
        )

    run(of("r", None, "report", None), "r", [1.0])
    run(of("r_value", "r", "summary", "report"), "r_value", [2.0])

    assert scythe.read(NAME, "all", table="monthly", columns=["r_value", "x"]).rows() == [
        (1, 1),
        (1, 2),
        (2, 2),
        (2, 3),
    ]
    texts = [Path(uri.removeprefix("file://")).read_text() for uri in scythe.files(NAME, "all")["summary"]]
    assert texts == ["1.0", "2.0"]
    assert scythe.files(NAME, "v1.0.0").columns[-2:] == ["r_value", "summary"]


@pytest.mark.parametrize("name", ["report", "summary"])
@pytest.mark.parametrize("version", ["v1.0.0", "v1.1.0", "all"])
def test_files_are_downloaded_and_packed_by_each_name_that_their_field_has_had(
    root: Path, tmp_path: Path, name: str, version: str
) -> None:
    def of(file: str, more: Any) -> BaseExperiment:
        return experiment({"r": (float, ...)}, {file: (FileReference, more), "heat": (float, ...)})

    run(of("report", ...), "r", [1.0, 2.0])
    run(of("summary", was("report")), "r", [3.0, 4.0])

    few = {"where": pl.col("r").is_in([1.0, 3.0])}
    scythe.download(NAME, tmp_path / "here", version, files=[name], **few)
    texts = sorted(path.read_text() for path in (tmp_path / "here").rglob("results/*/*"))
    assert texts == {"v1.0.0": ["1.0"], "v1.1.0": ["3.0"], "all": ["1.0", "3.0"]}[version]
    with pytest.raises(NotFoundError, match="has no files of a field 'reports'"):
        scythe.download(NAME, tmp_path / "here", version, files=["reports"])

    for step in (0, 1):
        one = scythe.open_run(NAME, f"v1.{step}.0")
        assert pack(storage(), one.key, [name], delete=True).files == 2
        assert pack(storage(), one.key, [name]).files == 0
        with pytest.raises(NotFoundError, match="has no file output 'heat'"):
            pack(storage(), one.key, [name, "heat"])
    assert not [*root.glob("wall/*/*/results/*/*.txt")]
    assert [scythe.fetch(uri).read_text() for uri in scythe.files(NAME, "all")["summary"]] == [
        "1.0",
        "2.0",
        "3.0",
        "4.0",
    ]


@pytest.mark.parametrize("finished", [True, False])
def test_two_runs_of_before_and_since_are_drawn_side_by_side(root: Path, finished: bool) -> None:
    old, new = both()
    if not finished:
        for one in (old, new):
            (root / one.key.result).unlink()

    one, other = facts_of(old), facts_of(new)

    assert [v.variable.name for v in one.inputs] == [v.variable.name for v in other.inputs] == ["r_value"]
    assert [v.variable.name for v in one.outputs] == [v.variable.name for v in other.outputs] == ["heating"]
    assert (one.notes, other.notes) == ((), ())


def test_runs_that_the_catalog_does_not_show_yet_are_read_by_the_new_name(root: Path) -> None:
    old, new = both()
    shown = scythe.read(NAME, "all"), scythe.read(NAME, "v1.0.0", columns=["r", "heating"])
    for one in (old, new):
        storage().write(one.key.unpublished("late"), b"")

    assert_frame_equal(scythe.read(NAME, "all"), shown[0])
    assert_frame_equal(scythe.read(NAME, "v1.0.0", columns=["r", "heating"]), shown[1])


def test_what_an_unfinished_run_has_so_far_is_read_by_the_new_name(root: Path) -> None:
    old, _ = both()
    storage().delete([old.key.result])
    storage().delete_folder(f"{old.experiment_id}/final")

    assert scythe.read(NAME, "v1.0.0", run=old.key.folder).columns[-2:] == ["r_value", "heating"]


def test_typed_rows_of_an_earlier_version_are_instances_of_the_models_of_today(root: Path) -> None:
    both()

    pairs = [(given.r_value, out.heating) for given, out in scythe.rows(since().experiment, "all")]  # type: ignore[attr-defined]
    assert pairs == [(1.0, 10.0), (2.0, 20.0), (3.0, 30.0)]


def test_two_runs_are_compared_by_what_their_columns_are_called_now(root: Path) -> None:
    old = run(before(), "r", [1.0, 2.0])
    new = run(since(), "r_value", [2.0, 3.0])

    found = compare_runs(old, new)
    assert (found.both, found.only_one, found.only_other) == (1, 1, 1)
    assert found.values.rows() == [("heating", 1, 0, None, None)]
    assert [str(change) for change in (*found.inputs.changes, *found.outputs.changes)] == [
        "r_value: renamed from r to r_value (additive)",
        "heating: renamed from heat to heating (additive)",
    ]
    assert not compare_runs(new, new).inputs.changes


def test_a_sensitivity_analysis_of_an_earlier_version_has_the_new_names(root: Path) -> None:
    old = experiment({"r": (float, Field(ge=1, le=2)), "s": (float, Field(ge=0, le=1))}, {"heat": (float, ...)})
    made, ref = old.allocate(scythe.sample(old.experiment.input_model, 8, "saltelli"), engine="inline")
    ref.result()
    then = scythe.sensitivity(NAME)
    new = {"r_value": (float, was("r", ge=1, le=2)), "s": (float, Field(ge=0, le=1))}
    run(experiment(new, {"heating": (float, was("heat"))}), "r_value", [1.5], s=0.5)

    found = scythe.sensitivity(NAME, "v1.0.0", run=made.key.folder)
    assert found["input"].to_list() == ["r_value", "s"]
    assert found["output"].unique().to_list() == ["heating"]
    assert found.drop("input", "output").equals(then.drop("input", "output"))


@pytest.mark.parametrize("name", ["r", "r_value", "wall_r"])
@pytest.mark.parametrize("version", ["v1.0.0", "v1.1.0", "v1.2.0"])
def test_rows_to_download_and_to_draw_are_chosen_by_each_name_that_a_field_has_had(
    root: Path, tmp_path: Path, name: str, version: str
) -> None:
    both()
    run(experiment({"wall_r": (float, was("r_value"))}, {"heating": (float, was("heat"))}), "wall_r", [1.0, 5.0])

    few = pl.col(name) < 4
    count = scythe.read(NAME, version).filter(pl.last() < 40).height
    assert count
    assert scythe.download(NAME, tmp_path / "here", version, where=few).files
    assert write_sheets(NAME, tmp_path, [("scalars", "csv")], version, where=few)[0].rows == count
    assert len(scythe.dataset(NAME, version, x=name, where=few)) == count


@pytest.mark.parametrize("names", ["rsr", "rstr", "rsrs", "rstsr"])
def test_a_name_that_comes_back_moves_no_row_of_a_split(root: Path, names: str) -> None:
    parts = []
    for former, name in zip((None, *names), names, strict=False):
        kind = (float, ...) if former is None else (float, was(former))
        run(experiment({name: kind}, {"heat": (float, ...)}), name, [float(i) for i in range(20)])
        for version in ("v1.0.0", None):
            train = scythe.dataset(NAME, version, y="heat").split(train=0.5, test=0.5)["train"]
            parts.append(sorted(train.frame.collect()["heat"]))
    assert all(part == parts[0] for part in parts)
    assert 2 < len(parts[0]) < 18


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shares=st.floats(0.1, 0.9), values=st.lists(st.floats(1, 100), min_size=3, max_size=12, unique=True))
def test_a_rename_moves_no_row_of_a_split_and_keeps_equal_inputs_together(
    tmp_path_factory: pytest.TempPathFactory, shares: float, values: list[float]
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SCYTHE_STORAGE_ROOT", str(tmp_path_factory.mktemp("split")))
        run(before(), "r", values)
        first = scythe.dataset(NAME, "all", x=["r"], y="heat")
        kept = pickle.dumps(first)
        train = first.split(train=shares, test=1 - shares)["train"]
        chosen = [train[i]["x"].tolist() for i in range(len(train))]
        run(since(), "r_value", values)

        again = pickle.loads(kept).split(train=shares, test=1 - shares)[
            "train"
        ]  # it was made when the name was another
        assert [again[i]["x"].tolist() for i in range(len(again))] == chosen
        new = scythe.dataset(NAME, "all", x=["r_value"], y="heating").split(train=shares, test=1 - shares)["train"]
        assert sorted(new[i]["x"].tolist() for i in range(len(new))) == sorted([*chosen, *chosen])
        assert scythe.dataset(NAME, "all", x=["r"], y="heating", where=pl.col("r") > 0).names["x"] == ("r",)


# --- rebuild ----------------------------------------------------------------------------------------


def test_a_catalog_that_is_built_anew_from_the_runs_has_the_names_too(root: Path) -> None:
    both(frame=True)
    run(before(frame=True), "r", [5.0], "v1.0.1")
    tables = ("scalars", "errors", "tasks", "monthly")
    shown = [scythe.read(NAME, "all", table=table) for table in tables]
    shutil.rmtree(root / "_catalog")

    rebuild(storage())
    for table, then in zip(tables, shown, strict=True):
        assert_frame_equal(scythe.read(NAME, "all", table=table), then, check_column_order=False)
    assert scythe.read(NAME, "v1.0.0", columns=["r"]).to_series().to_list() == [1.0, 2.0]
    assert run(since(frame=True), "r_value", [6.0]).version == "v1.1.1"


def test_a_copy_of_the_older_run_alone_does_not_disturb_one_that_knows_better(root: Path, tmp_path: Path) -> None:
    both()
    scythe.download(NAME, tmp_path / "copy", "v1.1.0")
    scythe.download(NAME, tmp_path / "copy", "v1.0.0")

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SCYTHE_STORAGE_ROOT", str(tmp_path / "copy"))
        assert scythe.read(NAME, "all", columns=["r_value", "heat"]).rows() == [(1, 10), (2, 20), (3, 30)]


#: What becomes of the fields of an experiment from one version to the next: each keeps its name or takes another that is
#: free, and one may come; the first is the one that the values are given by.
STEPS = st.lists(
    st.tuples(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=2), st.booleans()), min_size=1, max_size=4
)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_whatever_is_renamed_in_turn_each_row_is_read_by_the_last_name_of_its_field(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[list[str], bool]]
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        root = tmp_path_factory.mktemp("turns")
        patched.setenv("SCYTHE_STORAGE_ROOT", str(root))
        fields, used = ["a0", "b0"], 1
        fresh: dict[str, Any] = dict.fromkeys(fields, (float, 0.0))
        run(experiment(fresh, {"y": (float, ...)}), fields[0], [1.0])
        for count, (letters, grows) in enumerate(steps, 2):
            model: dict[str, Any] = dict.fromkeys(fields, (float, 0.0))
            for at, letter in enumerate(letters[: len(fields)]):
                name = f"{letter}{used}_{at}"
                model = {
                    name if k == fields[at] else k: (float, was(k, 0.0)) if k == fields[at] else v
                    for k, v in model.items()
                }
                fields[at] = name
            if grows:
                fields.append(f"new{used}")
                model[fields[-1]] = (float, 0.0)
            used += 1
            run(experiment(model, {"y": (float, ...)}), fields[0], [float(count)])
        rows = scythe.read(NAME, "all", ids=False)
        assert set(rows.columns) == {*fields, "y", "version", "run_datetime"}
        assert sorted(rows[fields[0]].to_list()) == [float(i) for i in range(1, len(steps) + 2)]
        assert rows.filter(pl.col(fields[0]) * 10 != pl.col("y")).is_empty()
        shutil.rmtree(root / "_catalog")
        rebuild(storage())
        assert_frame_equal(scythe.read(NAME, "all", ids=False), rows, check_column_order=False)


def test_there_is_an_error_of_scythe_for_a_dataframe_with_a_column_of_the_new_name(root: Path) -> None:
    run(before(frame=True), "r", [1.0])
    clash = experiment({"x": (float, was("r"))}, {"heat": (float, ...)})

    with pytest.raises(ScytheError, match="'r' cannot be called 'x': there is a column of that name"):
        run(clash, "x", [2.0])
    assert scythe.read(NAME, "all", columns=["r"]).to_series().to_list() == [1.0]


def test_indices_of_a_plan_are_told_by_the_names_of_now(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remembered = verb.remember
    monkeypatch.setattr(  # a plan of before steps were even
        verb, "remember", lambda frame, how, **more: remembered(frame, {k: how[k] for k in how if k != "steps"}, **more)
    )
    base = before()
    plans = {"1.0.0": ("morris", 2), "2.0.0": ("saltelli", 4)}
    for version, (method, n) in plans.items():
        base.allocate(scythe.sample(base.experiment.input_model, n, method, r=(1, 8)), version, engine="inline")[
            1
        ].result()
    later = experiment({"r_value": (float, was("r"))}, {"heat": (float, ...)})
    run(later, "r_value", [1.0], "3.0.0")
    for version in plans:
        assert scythe.sensitivity(NAME, version)["input"].to_list() == ["r_value"]


def all_rows() -> list[tuple[Any, ...]]:
    return scythe.read(NAME, "all", run="all", columns=["version", "r_value", "heating"]).sort("version").rows()


def breaking() -> BaseExperiment:
    """A version of before whose tables hold the rows of no other."""
    return experiment({"r": (float, ...), "s": (float, 1.0)}, {"heat": (float, ...)})


def test_rows_that_came_by_a_former_name_alone_are_shown_by_the_new_one(root: Path) -> None:
    run(experiment({"r": (float, ...)}, {"heat": (float, ...), "z": (float, ...)}), "r", [1.0])
    broken = breaking()
    first = run(broken, "r", [2.0], "bumpmajor")
    run(since(), "r_value", [3.0], "bumpmajor")
    run(breaking(), "r", [4.0], first.version)
    first.delete()
    for _ in ("as it is", "made anew"):
        assert all_rows() == [("v1.0.0", 1.0, 10.0), ("v2.0.0", 4.0, 40.0), ("v3.0.0", 3.0, 30.0)]
        rebuild(storage())


def test_rows_of_which_an_early_scythe_recorded_no_renamed_columns_are_shown_once_the_catalog_is_made_anew(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(experiment({"r": (float, ...)}, {"heat": (float, ...), "z": (float, ...)}), "r", [1.0])
    first = run(breaking(), "r", [2.0], "bumpmajor")
    run(since(), "r_value", [3.0], "bumpmajor")
    with monkeypatch.context() as early:
        early.setattr(datafile, "stored_field_ids", lambda schema: {  # pyright: ignore[reportUnknownLambdaType]
            name: number for name, number in stored_field_ids(schema).items() if name not in ("r", "heat")
        })  # fmt: skip
        run(breaking(), "r", [4.0], first.version)
    first.delete()
    assert all_rows()[1] == ("v2.0.0", None, None)
    for _ in range(2):
        rebuild(storage())
        assert all_rows() == [("v1.0.0", 1.0, 10.0), ("v2.0.0", 4.0, 40.0), ("v3.0.0", 3.0, 30.0)]


def test_fields_that_are_renamed_while_a_version_of_before_is_allocated_are_renamed_in_its_tables(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(experiment({"r": (float, ...)}, {"heat": (float, ...), "z": (float, ...)}), "r", [1.0])
    renaming = experiment({"r_value": (float, was("r")), "q": (float, 1.0)}, {"heating": (float, was("heat"))})
    broken = breaking()
    create, waiting = Catalog.create, [renaming]

    def beside(catalog: Catalog, *given: Any) -> Any:
        """Lets another process rename the fields right before a table is made."""
        while waiting:
            run(waiting.pop(), "r_value", [3.0], "v3.0.0")
        return create(catalog, *given)

    monkeypatch.setattr(Catalog, "create", beside)
    monkeypatch.setattr("scythe.allocate.experiment.check_latest", lambda _: None)  # of another process
    run(broken, "r", [2.0], "v2.0.0")
    assert not waiting
    assert all_rows() == [("v1.0.0", 1.0, 10.0), ("v2.0.0", 2.0, 20.0), ("v3.0.0", 3.0, 30.0)]
    assert "r" not in scythe.read(NAME, "all", run="all").columns
