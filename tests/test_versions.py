"""Versions and run folders: which one an allocation gets, and that nobody else gets it."""

import datetime as dt
import enum
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, create_model

import scythe
from scythe.allocate import BaseExperiment, SemVer
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.errors import AllocationError, InputError, NotFoundError, ReadError, RunError, VersionError
from scythe.record.generations import catalog_of
from scythe.record.versions import STRATEGIES, allowed_between, next_version, parse_folders
from scythe.registry import ExperimentRegistry
from scythe.settings import storage
from scythe_catalog.schema import Difference, Severity
from scythe_catalog.schema.compare import Change


class Out(ExperimentOutputSpec):
    y: int


def experiment(**fields: Any) -> tuple[BaseExperiment, type[ExperimentInputSpec]]:
    """The experiment `f` with these input fields, registered in place of any earlier one."""
    model: Any = create_model("In", __base__=ExperimentInputSpec, **{"x": (int, 1)} | fields)

    def f(spec: Any) -> Out:
        return Out(y=1)

    f.__annotations__ = {"spec": model, "return": Out}
    ExperimentRegistry._experiments.pop("f", None)
    ExperimentRegistry.Register()(f)
    return BaseExperiment(experiment=f), model


def allocate(version: Any = "bumpmajor", values: dict[str, Any] | None = None, **fields: Any) -> str:
    base, model = experiment(**fields)
    spec = model(**{"experiment_id": "", "sort_index": 0} | (values or {}))
    run, _ = base.allocate([spec], version=version, engine="inline")
    return run.version


def everything(root: Path) -> set[str]:
    return {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()} if root.exists() else set()


# --- strategies -------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_first_version_is_one(root: Path, strategy: str) -> None:
    assert allocate(strategy) == "v1.0.0"


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [("bumpmajor", "v2.0.0"), ("bumpminor", "v1.3.0"), ("bumppatch", "v1.2.4"), ("keep", "v1.2.3"), ("auto", "v1.2.4")],
)
def test_each_strategy_goes_on_from_the_latest_version(root: Path, strategy: str, expected: str) -> None:
    allocate("1.2.3")

    assert allocate(strategy) == expected


def test_a_new_version_of_unchanged_models_is_told_of_where_nobody_asked_for_it(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for version, fields in (
        (None, {}),
        ("keep", {}),
        ("bumpmajor", {}),
        (None, {"z": (int, 2)}),
        ("v9.0.0", {"z": (int, 2)}),
    ):
        allocate(version, **fields)
    assert "the models are those of" not in capsys.readouterr().err
    assert allocate(None, z=(int, 2)) == "v10.0.0"
    assert 'f v10.0.0: the models are those of v9.0.0, to which version="keep" adds runs;' in capsys.readouterr().err


def test_the_latest_version_is_the_highest_not_the_last(root: Path) -> None:
    for version in ("v2.0.0", "v10.0.0", "v9.0.0"):
        allocate(version)

    base, _ = experiment()
    assert str(base.latest_version()) == "v10.0.0"
    assert [str(v) for v in base.list_versions()] == ["v2.0.0", "v9.0.0", "v10.0.0"]
    assert scythe.open_run("f").version == "v10.0.0"
    assert allocate("bumpminor") == "v10.1.0"


@pytest.mark.parametrize("version", ["v3.1.4", "3.1.4", SemVer(3, 1, 4)])
def test_an_explicit_version_is_taken_with_or_without_its_v(root: Path, version: Any) -> None:
    assert allocate(version) == "v3.1.4"
    assert allocate(version) == "v3.1.4"


def test_a_semver_is_printed_with_a_v_and_compared_as_one() -> None:
    version = SemVer.parse("v1.2.3")

    assert str(version) == "v1.2.3"
    assert version == SemVer(1, 2, 3) == SemVer.parse("1.2.3")
    assert hash(version) == hash(SemVer(1, 2, 3))
    assert SemVer.parse("1.10.0") > SemVer.parse("1.9.0")
    assert isinstance(version.bump_minor(), SemVer)
    for text in ("1.2", "x", "", "v1.2.3.4", "01.2.3"):
        with pytest.raises(VersionError, match=re.escape(repr(text))):
            SemVer.parse(text)


def test_folders_that_are_no_versions_are_passed_over() -> None:
    assert [str(v) for v in parse_folders(["v1.10.0", "v1.9.0", "1.0.0", "notes", "v2", ".DS_Store"])] == [
        "v1.9.0",
        "v1.10.0",
    ]


# --- the schema and the step -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "v1.0.1"),
        ({"x": (int, Field(1, ge=0, description="Now told and bounded."))}, "v1.0.1"),
        ({"z": (int, 2)}, "v1.1.0"),
        ({"x": (int | None, None)}, "v1.1.0"),
        ({"kind": (Literal["a", "b", "c"], "a")}, "v1.1.0"),
        ({"kind": (Literal["a"], "a")}, "v2.0.0"),
        ({"x": (str, "a")}, "v2.0.0"),
    ],
    ids=["same", "docs and bounds", "added", "optional", "category gained", "category lost", "another type"],
)
def test_auto_takes_the_step_that_the_difference_needs(root: Path, change: dict[str, Any], expected: str) -> None:
    before: dict[str, Any] = {"kind": (Literal["a", "b"], "a")}
    allocate("auto", **before)

    assert allocate("auto", **before | change) == expected


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({"LOW": 0.5, "HIGH": 1.0}, {"LOW": 0.5, "HIGH": 1.0}, "v1.0.1"),
        ({"LOW": 0.5, "HIGH": 1.0}, {"LOW": 0.5, "HIGH": 1.0, "TOP": 2.0}, "v1.1.0"),
        ({"LOW": 0.5, "HIGH": 1.0}, {"LOW": 0.6, "HIGH": 1.0}, "v2.0.0"),
        ({"LOW": 1, "HIGH": 2}, {"LOW": 2, "HIGH": 1}, "v2.0.0"),
        ({"LOW": "LOW", "HIGH": 2}, {"LOW": "low", "HIGH": 2}, "v2.0.0"),
        ({"LOW": (1, "a"), "HIGH": None}, {"LOW": (1, "b"), "HIGH": None}, "v2.0.0"),
    ],
)
@pytest.mark.parametrize("within", [lambda kind: kind, lambda kind: list[kind]], ids=["alone", "listed"])
def test_members_of_an_enum_that_mean_something_else_are_a_breaking_change(
    root: Path, before: dict[str, Any], after: dict[str, Any], expected: str, within: Any
) -> None:
    def level(values: dict[str, Any]) -> Any:
        return within(enum.Enum("Level", values))

    def given(values: dict[str, Any], **other: Any) -> str:
        kind = level(values)
        member = next(iter(get_args(kind)[0] if get_args(kind) else kind))
        return allocate("auto", {"e": [member] if get_args(kind) else member}, e=(kind, ...))

    assert given(before) == "v1.0.0"
    assert given(after) == expected
    if expected == "v2.0.0":
        kind = level(after)

        def f(spec: Any) -> Out:
            return Out(y=1)

        f.__annotations__ = {
            "spec": create_model("In", __base__=ExperimentInputSpec, x=(int, 1), e=(kind, ...)),
            "return": Out,
        }
        ExperimentRegistry._experiments.pop("f")
        ExperimentRegistry.Register()(f)
        with pytest.raises(
            RunError, match=r"e.* has categories that mean something else: LOW was .* and is .*; use scythe.read"
        ):
            list(scythe.rows(f, "v1.0.0"))


@pytest.mark.parametrize(
    ("version", "change", "words"),
    [
        ("keep", {"z": (int, 2)}, "input.z: added, int (additive)"),
        ("bumppatch", {"z": (int, 2)}, "input.z: added, int (additive)"),
        ("bumppatch", {"x": (str, "a")}, "input.x: changed from int to str (breaking)"),
        ("bumpminor", {"x": (str, "a")}, "input.x: changed from int to str (breaking)"),
        ("v1.0.1", {"z": (int, 2)}, "input.z: added, int (additive)"),
        ("v1.1.0", {"x": (str, "a")}, "input.x: changed from int to str (breaking)"),
        ("v1.0.0", {"z": (int, 2)}, "input.z: added, int (additive)"),
    ],
)
def test_too_small_a_step_is_refused_with_the_difference_and_nothing_is_written(
    root: Path, version: str, change: dict[str, Any], words: str
) -> None:
    allocate()
    before = everything(root)

    with pytest.raises(VersionError) as raised:
        allocate(version, **change)

    message = str(raised.value)
    assert words in message
    told = "is there already, with another schema" if version == "v1.0.0" else "is too small a step from v1.0.0"
    assert f"{version} {told}" in message
    assert ('version="bumpminor"' if "additive" in words else 'version="bumpmajor"') in message
    assert everything(root) == before


def test_an_explicit_version_is_held_against_the_highest_version_below_it(root: Path) -> None:
    allocate("v1.0.0")
    allocate("v3.0.0", z=(int, 2))

    assert allocate("v1.0.1") == "v1.0.1"
    assert allocate("v2.0.0", x=(str, "a")) == "v2.0.0"
    with pytest.raises(VersionError, match=r"v3\.0\.1 is too small a step from v3\.0\.0"):
        allocate("v3.0.1")


def test_changes_of_the_output_count_as_those_of_the_input(root: Path) -> None:
    allocate()

    class Out2(ExperimentOutputSpec):
        y: int
        more: float = 0.0

    _, model = experiment()

    def f(spec: Any) -> Out2:
        return Out2(y=1)

    f.__annotations__ = {"spec": model, "return": Out2}
    ExperimentRegistry._experiments.pop("f")
    ExperimentRegistry.Register()(f)
    with pytest.raises(VersionError, match=r"output\.more: added"):
        BaseExperiment(experiment=f).allocate(model(experiment_id="", sort_index=0), version="keep", engine="inline")


def test_the_schema_is_compared_also_where_the_root_came_without_its_catalog(root: Path) -> None:
    import shutil

    allocate()
    shutil.rmtree(root / "_catalog")

    with pytest.raises(VersionError, match=r"input\.z: added"):
        allocate("keep", z=(int, 2))


severities = st.sampled_from(list(Severity))
semvers = st.builds(SemVer, *[st.integers(0, 30)] * 3)


@given(st.sampled_from(STRATEGIES), semvers, severities)
def test_the_next_version_is_never_lower_and_never_too_small_a_step(
    strategy: Any, latest: SemVer, severity: Severity
) -> None:
    difference = Difference((Change("f", "changed", severity),) if severity else ())
    try:
        found = next_version(strategy, latest, difference)
    except VersionError:
        assert severity > {"keep": 0, "bumppatch": 0, "bumpminor": 1}[strategy]
        return

    assert found >= latest
    assert (found == latest) == (strategy == "keep")
    assert allowed_between(latest, found) >= severity
    if strategy == "auto":
        assert allowed_between(latest, found) == severity


@given(st.lists(semvers, max_size=20))
def test_folders_are_sorted_by_version_and_each_stands_once(versions: list[SemVer]) -> None:
    assert parse_folders(map(str, versions)) == sorted(set(versions))


# --- runs --------------------------------------------------------------------------------------------


def test_keep_makes_several_runs_of_one_version_each_with_a_second_of_its_own(root: Path) -> None:
    for _ in range(4):
        allocate("keep")

    base, _ = experiment()
    found = base.list_runs("v1.0.0")
    assert len({r.run_datetime for r in found}) == 4
    assert found == sorted(found, key=lambda r: r.run_datetime)
    assert all(r.run_datetime.utcoffset() == dt.timedelta(0) and r.run_datetime.microsecond == 0 for r in found)
    latest = base.latest_run()
    assert latest is not None
    assert latest.experiment_id == found[-1].experiment_id
    assert base.latest_results() == latest.result.uris == base.latest_results_for_version("v1.0.0")
    assert scythe.read("f", run="all").height == 4
    assert scythe.read("f").height == 1


def test_an_experiment_without_runs_has_no_versions_runs_or_results(root: Path) -> None:
    base, _ = experiment()

    assert base.list_versions() == []
    assert base.latest_version() is None
    assert base.list_runs() == []
    assert base.latest_run() is None
    assert base.latest_results() == {}
    assert base.latest_results_for_version("v1.0.0") == {}
    assert base.list_results_files() == []


def test_the_version_of_a_deleted_run_is_not_used_again(root: Path) -> None:
    allocate()
    allocate()
    scythe.open_run("f").delete()

    assert allocate() == "v3.0.0"


SCRIPT = """
import sys
from scythe.allocate import BaseExperiment
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.registry import ExperimentRegistry

class In(ExperimentInputSpec):
    x: int

class Out(ExperimentOutputSpec):
    y: int

@ExperimentRegistry.Register()
def crowd(spec: In) -> Out:
    return Out(y=spec.x)

if __name__ == "__main__":
    print("ready", flush=True)
    sys.stdin.readline()
    for i in range(10):
        version = ["bumpmajor", "bumpminor", "bumppatch", "keep", "auto"][i % 5]
        spec = In(experiment_id="", sort_index=0, x=100 * int(sys.argv[1]) + i)
        run, ref = BaseExperiment(experiment=crowd).allocate(spec, version=version, engine="inline")
        print(run.experiment_id, flush=True)
"""


def test_fifty_allocations_at_once_from_several_processes_give_fifty_distinct_runs(root: Path) -> None:
    Path("crowd.py").write_text(SCRIPT)
    crowd = [
        subprocess.Popen(
            [sys.executable, "crowd.py", str(i)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, env=dict(os.environ),
        )
        for i in range(5)
    ]  # fmt: skip
    for process in crowd:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    ended = []
    for process in crowd:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in crowd:
        ended.append(process.communicate(timeout=200))
    assert [p.returncode for p in crowd] == [0] * 5, "\n".join(err for _, err in ended)
    runs = [line for out, _ in ended for line in out.splitlines()]

    assert len(set(runs)) == 50
    listed = scythe.list_runs("crowd")
    assert sorted(f"{n}/{v}/{r}" for n, v, r in listed.select("name", "version", "run").rows()) == sorted(runs)
    assert set(listed["status"]) == {"finished"}
    read = scythe.read("crowd", "all", run="all")
    assert sorted(read["x"]) == sorted(100 * i + j for i in range(5) for j in range(10))
    assert sorted(read["experiment_id"]) == sorted(runs)


# --- generations -------------------------------------------------------------------------------------


def test_all_versions_are_united_over_a_breaking_change(root: Path) -> None:
    kind: Any = Literal["a", "b"]
    allocate(kind=(kind, "a"), gone=(float, 0.5))
    allocate("bumpminor", kind=(kind, "b"), gone=(float, 0.5), late=(int, 7))
    allocate("bumpmajor", kind=(Literal["c"], "c"), late=(int, 8))

    read = scythe.read("f", "all").sort("version")

    assert read["version"].to_list() == ["v1.0.0", "v1.1.0", "v2.0.0"]
    assert read["kind"].cast(str).to_list() == ["a", "b", "c"]
    assert read["gone"].to_list() == [0.5, 0.5, None]
    assert read["late"].to_list() == [None, 7, 8]
    assert read["run_datetime"].is_sorted()
    assert (
        scythe.read("f", "v1.0.0").columns
        == scythe.read("f", "v1.0.0", run="all").drop("version", "run_datetime").columns
    )
    assert "gone" not in scythe.read("f").columns
    assert scythe.read("f", "all", table="tasks").height == 3


def test_another_unit_is_another_version_and_is_never_read_into_one_column(root: Path) -> None:
    def heat(unit: str) -> Any:
        return float, Field(2.0, description=f"Heat{unit}")

    allocate(heat=heat(""))
    assert allocate("keep", heat=heat(" [kWh]")) == "v1.0.0", "to say the unit changes nothing"
    assert allocate("auto", heat=heat(" [kWh]")) == "v1.0.1"
    with pytest.raises(VersionError, match=r"input\.heat: changed its unit from \[kWh\] to \[MWh\]"):
        allocate("bumpminor", heat=heat(" [MWh]"))
    assert allocate("auto", heat=heat(" [MWh]")) == "v2.0.0"
    assert scythe.read("f")["heat"].to_list() == [2.0]
    assert scythe.read("f", "v1.0.1", run="all")["heat"].to_list() == [2.0]
    with pytest.raises(ReadError, match=r"'heat' is in \[kWh\], \[MWh\], by version"):
        scythe.read("f", "all")
    assert scythe.read("f", "all", columns=["x", "y"]).height == 3
    with pytest.raises(InputError, match=r"x: 'heat' is in \[kWh\], \[MWh\], by version"):
        len(scythe.dataset("f", "all", x=["heat"]))


def test_a_field_that_changed_its_type_is_united_too(root: Path) -> None:
    allocate(values={"x": 5})
    allocate(x=(float, 2.5))
    allocate(x=(str, "text"))

    read = scythe.read("f", "all", columns=["version", "x"]).sort("version")

    assert read["version"].to_list() == ["v1.0.0", "v2.0.0", "v3.0.0"]
    assert read["x"].cast(str).to_list() == ["5", "2.5", "text"] or read["x"].to_list() == ["5.0", "2.5", "text"]
    assert scythe.read("f", "v1.0.0")["x"].to_list() == [5]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((float, 0.5), (str, "low")),
        ((int, 5), (list[int], [1])),
        ((int, 2**62 + 1), (float, 0.5)),
        ((float, Field(0.5, description="Heat [kWh]")), (float, Field(0.5, description="Heat [MWh]"))),
        ((Literal["a"], "a"), (Literal["b"], "b")),
    ],
    ids=["text", "list", "rounded", "unit", "choices"],
)
def test_later_versions_change_nothing_of_what_a_version_is_read_as(root: Path, before: Any, after: Any) -> None:
    def read(**options: Any) -> Any:
        return scythe.read("f", "v1.0.0", run="all", **options)

    allocate(x=before)
    allocate("keep", x=before)
    alone = read()
    assert alone.height == 2
    allocate(x=after, late=(int, 7))
    assert read().sort("run_datetime").equals(alone.sort("run_datetime"))
    assert read().schema == alone.schema
    assert scythe.scan("f", "v1.0.0", run="all").collect_schema() == alone.schema
    assert read(table="tasks").height == 2
    assert read(table="errors").height == 0
    with pytest.raises(NotFoundError, match="'late'"):
        read(columns=["late"])


def test_what_a_version_was_is_recorded_where_it_is_reserved(root: Path) -> None:
    allocate()

    recorded = json.loads((root / "_catalog" / "f" / "_versions" / "v1.0.0.json").read_text())

    assert [c["name"] for c in recorded["input"]][-1] == "x"
    assert [c["name"] for c in recorded["output"]] == ["y"]


def test_an_allocation_that_fails_leaves_the_tables_of_the_catalog_as_they_were(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wall(ExperimentInputSpec):
        x: int = 0

    def registered(*columns: str) -> BaseExperiment:
        output: Any = create_model("Heat", __base__=ExperimentOutputSpec, **dict.fromkeys(columns, (float, 0.0)))
        ExperimentRegistry._experiments.clear()

        class Heat:
            def run(self, spec: Any) -> Any:
                return output()

        Heat.run.__annotations__ |= {"spec": Wall, "return": output}
        return BaseExperiment(ExperimentRegistry.Register(name="heat")(Heat))

    def full(*_: object, **__: object) -> bytes:
        raise OSError(28, "No space left on device")

    registered("y").allocate([Wall()], engine="inline")[1].result()
    table = lambda: catalog_of(storage()).table("heat", "scalars")  # noqa: E731
    before = table()
    with monkeypatch.context() as patch:
        patch.setattr("scythe.allocate.store.make_manifest", full)
        with pytest.raises(AllocationError, match="No space left"):
            registered("y", "z").allocate([Wall()], engine="inline", version="bumpminor")

    after = table()
    assert after.schema.names == before.schema.names
    assert after.iceberg.properties == before.iceberg.properties
    registered("y", "z").allocate([Wall()], engine="inline", version="bumpminor")[1].result()
    assert scythe.read("heat")["z"].to_list() == [0.0]
