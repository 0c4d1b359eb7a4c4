"""What a model says and a table cannot keep is refused by name, as early as it can be known; all else is kept."""

import datetime as dt
import enum
import unicodedata
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import polars as pl
import pytest
import yaml
from pydantic import (
    AliasPath,
    AnyUrl,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    FileUrl,
    NaiveDatetime,
    PrivateAttr,
    computed_field,
    create_model,
)

import scythe
from scythe import BaseExperiment, ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry
from scythe.allocate.inputs import prepare_inputs
from scythe.cli import app
from scythe.define.experiment import Experiment, ExperimentOptions, define
from scythe.errors import DataError, InputError, OutputError, RegistrationError, SchemaError
from scythe_catalog.schema import arrow_to_models, compile_model, models_to_arrow


class In(ExperimentInputSpec):
    x: int = 0


class Out(ExperimentOutputSpec):
    y: int = 0


def experiment_of(inputs: Any = In, outputs: Any = Out, function: Callable[..., Any] | None = None) -> Experiment:
    def f(spec: Any) -> Any: ...

    chosen = function or f
    chosen.__annotations__ = {"spec": inputs, "return": outputs}
    return define(chosen, "f", ExperimentOptions())


def given(model: type[ExperimentInputSpec], **values: Any) -> Any:
    return model(experiment_id="e", sort_index=0, **values)


def arrives(spec: Any) -> Any:
    """A spec as a function gets it."""
    experiment = experiment_of(type(spec))
    inputs = prepare_inputs([spec], experiment, overwrite_sort_index=True)
    return arrow_to_models(inputs.table, experiment.schemas.input)[0]


# --- registration -----------------------------------------------------------------------------------


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Level(enum.Enum):
    high = 10
    low = "high"


@pytest.mark.parametrize(
    ("annotation", "way_out"),
    [
        (Level, "shows the member high as 'high', which is the value of low: rename one"),
        (Access, "one bool field for each flag"),
        (np.ndarray, r"list\[float\]"),
        (AwareDatetime | NaiveDatetime, "AwareDatetime"),
    ],
)
def test_types_that_lose_something_are_refused_with_the_way_out(annotation: Any, way_out: str) -> None:
    model: Any = create_model("O", __base__=Out, odd=(annotation, None))
    with pytest.raises(SchemaError, match=rf"O\.odd.*{way_out}"):
        experiment_of(outputs=model)


def test_functions_whose_call_gives_no_result_are_refused() -> None:
    async def waits(spec: In) -> Out:
        return Out()

    def yields(spec: In) -> Any:
        yield Out()

    for function, word in ((waits, "asyncio.run"), (yields, "generator")):
        with pytest.raises(RegistrationError, match=word):
            experiment_of(function=function)


@pytest.mark.parametrize("name", ["log", "fetch_uri", "make_multiindex"])
@pytest.mark.filterwarnings("ignore:Field name")
def test_a_field_that_hides_what_a_function_calls_is_refused(name: str) -> None:
    with pytest.raises(RegistrationError, match=rf"M\.{name} would hide"):
        experiment_of(create_model("M", __base__=In, **{name: (int, 0)}))  # pyright: ignore[reportCallIssue, reportArgumentType]


def test_names_that_differ_by_case_or_form_alone_are_refused() -> None:
    wall: Any = create_model("Wall", u=(float, 1.0), U=(float, 1.0))
    composed, decomposed = "é1", unicodedata.normalize("NFD", "é1")
    for inputs, outputs in (
        ({"r": (int, 0), "R": (int, 0)}, {}),
        ({"r": (int, 0)}, {"R": (int, 0)}),
        ({}, {"Sort_Index": (int, 0)}),
        ({}, {"Version": (int, 0)}),
        ({composed: (int, 0), decomposed: (int, 0)}, {}),
        ({"wall": (wall, None)}, {}),
    ):
        with pytest.raises((RegistrationError, SchemaError), match="case"):
            experiment_of(create_model("I", __base__=In, **inputs), create_model("O", __base__=Out, **outputs))  # pyright: ignore


def test_names_may_be_of_any_script(root: Path) -> None:
    class Greek(ExperimentOutputSpec):
        η: float = 0.5  # noqa: PLC2401
        Wärme: float = 2.0  # noqa: PLC2401
        क्षेत्र: int = 1  # noqa: PLC2401

    @ExperimentRegistry.Register(name="greek")
    def greek(input_spec: In) -> Greek:
        return Greek()

    BaseExperiment(greek).allocate(pl.DataFrame({"x": [1]}), engine="inline")
    assert scythe.read(greek).select("η", "Wärme", "क्षेत्र").rows() == [(0.5, 2.0, 1)]


def test_extra_values_of_an_output_are_refused_with_the_way_out() -> None:
    with pytest.raises(RegistrationError, match=r'extra="allow".*make them fields'):
        experiment_of(outputs=Loose)


class Loose(ExperimentOutputSpec):
    model_config = ConfigDict(extra="allow")


# --- outputs ----------------------------------------------------------------------------------------


class Part(BaseModel):
    heat: float

    @computed_field
    @property
    def doubled(self) -> float:
        return self.heat * 2


class Energy(ExperimentOutputSpec):
    heating: float
    area: float
    part: Part | None = None

    @computed_field(description="Energy use intensity [kWh/m2]")
    @property
    def eui(self) -> float:
        return self.heating / self.area


class Detailed(Energy):
    comfort: float = 1.0


def test_computed_fields_of_outputs_are_columns_and_their_errors_are_the_rows(root: Path) -> None:
    @ExperimentRegistry.Register(name="energy", retries=0)
    def energy(input_spec: In) -> Energy:
        return Energy(heating=10, area=input_spec.x, part=Part(heat=1.5))

    _, ref = BaseExperiment(energy).allocate(pl.DataFrame({"x": [0, 2]}), engine="local", workers=1)
    assert (ref.result().rows, ref.result().errors) == (1, 1)
    frame = scythe.read(energy)
    assert frame["eui"].to_list() == [5.0]
    assert frame["part"].to_list() == [{"heat": 1.5, "doubled": 3.0}]
    assert "ZeroDivisionError" in scythe.read(energy, table="errors")["exception_type"][0]
    assert [output for _, output in scythe.rows(energy)] == [Energy(heating=10, area=2, part=Part(heat=1.5))]


def test_a_computed_field_that_no_column_holds_is_refused() -> None:
    class Vague(ExperimentOutputSpec):
        @computed_field
        @property
        def anything(self) -> Any: ...

    with pytest.raises(SchemaError, match=r"Vague\.anything.*a plain property is none"):
        experiment_of(outputs=Vague)


def test_an_output_of_a_subclass_that_holds_more_is_an_error_row(root: Path) -> None:
    @ExperimentRegistry.Register(name="detailed", retries=0)
    def detailed(input_spec: In) -> Energy:
        return Detailed(heating=1, area=1)

    with pytest.raises(OutputError, match="Detailed, whose comfort Energy has not"):
        BaseExperiment(detailed).allocate(pl.DataFrame({"x": [0]}), engine="inline")


def test_an_instance_of_a_subclass_in_a_nested_field_is_refused() -> None:
    class Window(BaseModel):
        u: float

    class Coated(Window):
        layers: int = 2

    compiled = compile_model(create_model("House", window=(Window, ...)), results=True)
    same = create_model("Same", __base__=Window)
    assert models_to_arrow([compiled.model(window=same(u=1.0))], compiled).num_rows == 1  # pyright: ignore[reportCallIssue]
    for results, window in ((True, Coated(u=1.0)), (False, Coated(u=1.0)), (False, same(u=1.0))):
        compiled = compile_model(create_model("House", window=(Window, ...)), results=results)
        with pytest.raises(DataError, match=f"it holds a {type(window).__name__}"):
            models_to_arrow([compiled.model(window=window)], compiled)  # pyright: ignore[reportCallIssue]


# --- inputs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [dt.datetime(2024, 1, 1), (1, 2), Path("a"), {1: "a"}, float("nan"), np.float64(1.5), b"a", {"a": [Path("b")]}],
)
def test_extra_values_that_json_would_change_are_refused_by_name(value: Any) -> None:
    with pytest.raises(InputError, match=r"site: .*make it a field"):
        arrives(given(In, site=value))


def test_other_extra_values_arrive_as_they_were_given() -> None:
    spec = given(In, a=1, b=2**70, c=[1.5, None, {"d": True}], e="é")
    assert repr(arrives(spec)) == repr(spec)


def test_extra_may_be_a_field(root: Path) -> None:
    class Named(ExperimentInputSpec):
        extra: int

    class Also(ExperimentOutputSpec):
        extra_: int = 0

    @ExperimentRegistry.Register(name="named")
    def named(input_spec: Named) -> Also:
        return Also(extra_=input_spec.height)

    BaseExperiment(named).allocate([given(Named, extra=3, height=4)], engine="inline")
    frame = scythe.read(named)
    assert frame.select("extra", "extra_", "extra__").rows() == [(3, 4, '{"height":4}')]
    assert [spec.height for spec, _ in scythe.rows(named)] == [4]


def test_private_attributes_arrive_or_are_refused() -> None:
    class Holding(In):
        _seen: dict[str, int] = PrivateAttr(default_factory=dict)
        _derived: int = 0

        def model_post_init(self, context: Any) -> None:
            self._derived = self.x * 2

    spec = given(Holding, x=4)
    assert arrives(spec)._derived == 8
    spec._seen["a"] = 1
    with pytest.raises(InputError, match="_seen: private attributes are not stored"):
        arrives(spec)


def test_urls_of_files_arrive_as_urls_and_paths_as_paths() -> None:
    class Places(In):
        a: AnyUrl
        b: FileUrl
        c: Path | AnyUrl
        d: Path | AnyUrl

    spec = given(Places, a="file:///a%20b.csv", b="file:///b.csv", c=Path("C:/x"), d=AnyUrl("file:///d"))
    back = arrives(spec)
    assert back == spec
    assert [type(v) for v in (back.a, back.b, back.c, back.d)] == [AnyUrl, FileUrl, type(Path()), AnyUrl]
    with pytest.raises(InputError, match="without '://'"):
        arrives(given(Places, a="file:///a", b="file:///b", c=AnyUrl("mailto:x@y.z"), d=Path("d")))


def test_an_instant_at_the_edge_of_the_years_costs_its_input_alone(root: Path) -> None:
    edge = dt.datetime(9999, 12, 31, 23, tzinfo=dt.timezone(dt.timedelta(hours=-14)))

    class Late(ExperimentOutputSpec):
        z: AwareDatetime

    @ExperimentRegistry.Register(name="late", retries=0)
    def late(input_spec: In) -> Late:
        return Late(z=edge if input_spec.x else dt.datetime(2020, 1, 1, tzinfo=dt.UTC))

    _, ref = BaseExperiment(late).allocate(pl.DataFrame({"x": [0, 1, 0]}), engine="local", workers=1)
    assert (ref.result().rows, ref.result().errors) == (2, 1)
    with pytest.raises(InputError, match=r"t: .*beyond the years"):
        arrives(given(create_model("I", __base__=In, t=(AwareDatetime, ...)), t=edge))


# --- frames -----------------------------------------------------------------------------------------


class Framed(In):
    d: dt.date = dt.date(2024, 1, 1)
    t: dt.timedelta = dt.timedelta(0)
    p: int = Field(5, validation_alias=AliasPath("path", 0))
    fuel: Literal["gas", "oil"] | None = None
    lists: list[float] = Field(default_factory=list)


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (pd.DataFrame({"d": pd.Series([dt.date(2024, 1, 1), dt.datetime(2024, 1, 1, 17)], dtype=object)}), "d: .*days and instants"),
        (pd.DataFrame({"t": pd.Series([dt.timedelta(1), 3600], dtype=object)}), "t: .*durations and numbers"),
        (pd.concat([pd.DataFrame({"x": [1]})] * 2, axis=1), "'x' stands twice"),
        (pd.DataFrame([[1, 2]], columns=[1, "1"]), "'1' stands twice"),
        (pd.DataFrame({"x": [2**64]}), "beyond 64 bits|x: must be int"),
        (pd.DataFrame({"x": [2**63]}), "x: must be int"),
        (pd.DataFrame([[1]], columns=pd.MultiIndex.from_tuples([("a", "b")])), "2 levels"),
        (pl.DataFrame({"x": ["1"]}), "x: must be int, the column holds str"),
        (pl.DataFrame({"lists": [["1.5"]]}), "lists: must be list of float"),
        (pd.DataFrame({"lists": [["1.5"]]}), r"lists: must be list of float: got \"\['1.5'\]\""),
        (pl.DataFrame({"p": [7]}), "p: is taken from path.0 alone"),
        (pd.DataFrame({"t": pd.Series([pd.Timedelta(1, "ns")])}), "t: must be duration"),
    ],
)  # fmt: skip
def test_frames_whose_values_are_not_what_they_seem_are_refused_by_name(frame: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        prepare_inputs(frame, experiment_of(Framed), overwrite_sort_index=True)


def test_a_path_of_an_alias_gives_its_field() -> None:
    inputs = prepare_inputs(pl.DataFrame({"path": [[7], [8]]}), experiment_of(Framed), overwrite_sort_index=True)
    assert inputs.table["p"].to_pylist() == [7, 8]
    assert not inputs.extra


def test_gaps_of_pandas_are_none() -> None:
    model: Any = create_model("I", __base__=In, n=(int | None, None), s=(str | None, None), f=(float, 0.0))
    frame = pd.DataFrame({"n": [1, None, 3], "s": [None, np.nan, float("nan")], "f": [1.5, np.nan, 2.5]})
    table = prepare_inputs(frame, experiment_of(model), overwrite_sort_index=True).table
    assert table["n"].to_pylist() == [1, None, 3]
    assert table["s"].to_pylist() == [None] * 3
    assert np.isnan(table["f"][1].as_py())


class Solver(enum.Enum):
    """Its members are objects that JSON has no place for."""

    DIRECT = object()
    EXACT = frozenset({1j})


class Solved(ExperimentInputSpec):
    by: Solver = Solver.DIRECT


class Chosen(ExperimentOutputSpec):
    chosen: Solver


def solved(spec: Solved) -> Chosen:
    return Chosen(chosen=spec.by)


def test_members_that_json_cannot_hold_are_stored_and_described_by_their_names(root: Path) -> None:
    ExperimentRegistry.Register(retries=0)(solved)
    run, ref = BaseExperiment(solved).allocate([Solved(by=one) for one in Solver], engine="inline")
    ref.result()
    assert scythe.read("solved")["chosen"].to_list() == ["DIRECT", "EXACT"]
    assert [output.chosen for _, output in scythe.rows(solved)] == [*Solver]
    said = yaml.safe_load((root / run.key.io_spec).read_text())
    assert said["$defs"]["Solver"]["enum"] == ["DIRECT", "EXACT"]


class Inner(BaseModel):
    x: int = 0


class Appends(ExperimentInputSpec):
    """Adds to a list, an inner model and a dict of its own once it is made."""

    xs: list[float]
    inner: Inner = Inner()
    told: dict[str, float] = {}  # noqa: RUF012 - pydantic copies it

    def model_post_init(self, context: Any) -> None:
        super().model_post_init(context)
        self.xs.append(sum(self.xs))
        self.inner.x += 1
        self.told["sum"] = self.told.get("sum", 0.0) + 1


def test_what_a_hook_changes_in_place_is_changed_once() -> None:
    made = given(Appends, xs=[1.0, 2.0])
    found = arrives(made)
    assert (found.xs, found.inner.x, found.told) == ([1.0, 2.0, 3.0], 1, {"sum": 1.0})


class Identified(ExperimentInputSpec):
    uid: uuid.UUID
    step: dt.timedelta


def test_levels_of_uuids_are_texts_and_failing_inputs_with_durations_are_shown(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def identified(spec: Identified) -> Out:
        if spec.step > dt.timedelta(hours=1):
            raise ValueError("too long")
        index = spec.make_multiindex(n_rows=2, additional_index_data={"month": [1, 2]})
        return Out(dataframes={"monthly": pd.DataFrame({"kwh": [1.0, 2.0]}, index=index)})

    ExperimentRegistry.Register(retries=0)(identified)
    inputs = [Identified(uid=uuid.UUID(int=i), step=dt.timedelta(hours=i)) for i in range(3)]
    BaseExperiment(identified).allocate(inputs, engine="local")[1].result()
    uids = scythe.read("identified", table="monthly")["uid"]
    assert uids.to_list() == [str(one.uid) for one in inputs[:2] for _ in range(2)]
    app(["show", "identified"], standalone_mode=False)
    assert "ValueError: too long" in capsys.readouterr().out
