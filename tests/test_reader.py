"""Reading runs back, looking after them, and asking for what is not there."""

import datetime as dt
import re
import shutil
import uuid
from collections.abc import Callable
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import pytest
from pydantic import AwareDatetime, BaseModel, Field

import scythe
from scythe.allocate import BaseExperiment, ExperimentRun
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.errors import FetchError, NotFoundError, ReadError, RunDamaged, RunError
from scythe.reader import verbs
from scythe.registry import ExperimentRegistry
from scythe.utils.filesys import FileReference, OptionalFileReference


class In(ExperimentInputSpec):
    x: int


class Out(ExperimentOutputSpec):
    y: int


def specs(n: int, start: int = 0) -> list[In]:
    return [In(experiment_id="", sort_index=i, x=start + i) for i in range(n)]


class Moody:
    """An experiment that fails for the inputs in `fails`, and remembers what it was called with."""

    def __init__(self) -> None:
        self.fails: set[int] = set()
        self.calls: list[int] = []

        @ExperimentRegistry.Register()
        def moody(spec: In) -> Out:
            self.calls.append(spec.x)
            if spec.x in self.fails:
                raise ValueError(f"not {spec.x}")
            return Out(y=10 * spec.x)

        self.function: Callable[[In], Out] = moody
        self.base = BaseExperiment(experiment=moody)

    def allocate(self, n: int = 3, start: int = 0, **options: Any) -> ExperimentRun:
        return self.base.allocate(specs(n, start), engine="inline", **options)[0]

    def broken(self, n: int = 5, at: tuple[int, ...] = (2,), **options: Any) -> ExperimentRun:
        """A run that stopped at its first failing input."""
        self.fails = set(at)
        with pytest.raises(ValueError, match=f"not {at[0]}"):
            self.allocate(n, **options)
        run = self.base.latest_run()
        assert run is not None
        return run


@pytest.fixture
def moody(root: Path) -> Moody:
    return Moody()


def resume_to_the_end(run: ExperimentRun, resume: Callable[..., Any]) -> None:
    """Inline stops at each exception: goes on until there is none."""
    for _ in range(run.inputs + 1):
        try:
            resume(engine="inline")
        except ValueError:
            resume = run.resume
        else:
            return
    raise AssertionError("the run does not end")


# --- reading ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["name", "task name", "function"])
def test_an_experiment_is_read_by_its_name_its_task_name_or_its_function(moody: Moody, how: str) -> None:
    moody.allocate()

    name = {"name": "moody", "task name": "scythe_experiment_moody", "function": moody.function}[how]
    assert scythe.read(name)["y"].to_list() == [0, 10, 20]
    assert scythe.open_run(name).status == "finished"


def test_reading_gives_ids_inputs_and_outputs_in_the_order_of_the_inputs(moody: Moody) -> None:
    run = moody.allocate()

    read = scythe.read("moody")
    assert read.columns == ["experiment_id", "sort_index", "root_workflow_run_id", "workflow_run_id", "x", "y"]
    assert read["sort_index"].to_list() == [0, 1, 2]
    assert set(read["root_workflow_run_id"]) == {run.workflow_run_id}
    assert all(uuid.UUID(i) for i in read["workflow_run_id"])


def test_scanning_is_lazy_and_gives_the_same(moody: Moody) -> None:
    moody.allocate()

    lazy = scythe.scan("moody", columns=["y"])
    assert isinstance(lazy, pl.LazyFrame)
    assert lazy.filter(pl.col("y") > 5).collect()["y"].to_list() == [10, 20]


def test_columns_are_given_in_the_order_in_which_they_are_asked_for(moody: Moody) -> None:
    moody.allocate()

    assert scythe.read("moody", columns=["y", "sort_index"]).rows() == [(0, 0), (10, 1), (20, 2)]
    assert scythe.read("moody", "all", columns=["version", "y"]).rows() == [("v1.0.0", y) for y in (0, 10, 20)]


def test_without_identifiers_inputs_and_outputs_are_left(moody: Moody) -> None:
    moody.allocate()

    assert scythe.read("moody", ids=False).rows(named=True)[1] == {"x": 1, "y": 10}
    assert scythe.scan("moody", ids=False).collect_schema().names() == ["x", "y"]
    assert scythe.read("moody", "all", ids=False).columns == ["x", "y", "version", "run_datetime"]
    assert scythe.read("moody", table="tasks", ids=False).columns[:2] == ["attempts", "seconds"]
    assert scythe.read("moody", columns=["sort_index"], ids=False).columns == ["sort_index"]


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Site(BaseModel):
    name: str
    height: float | None = None


class Typed(ExperimentInputSpec):
    flag: bool = True
    colour: Colour = Colour.RED
    level: Level = Level.HIGH
    mode: Literal["a", "b"] = "b"
    count: Literal[1, 2] = 2
    took: dt.timedelta = dt.timedelta(minutes=90, microseconds=1)
    price: Decimal = Field(Decimal("12.30"), max_digits=10, decimal_places=2)
    day: dt.date = dt.date(2024, 2, 29)
    clock: dt.time = dt.time(12, 30, 0, 5)
    wall: dt.datetime = dt.datetime(2024, 1, 1, 12)
    instant: AwareDatetime = dt.datetime(2024, 1, 1, 12, tzinfo=dt.timezone(dt.timedelta(hours=2)))
    key: uuid.UUID = uuid.UUID(int=7)
    raw: bytes = b""
    maybe: float | None = None
    discount: Decimal | None = Field(Decimal("0.05"), max_digits=4, decimal_places=2)
    values: list[float] = Field([1.0, 2.0])
    pair: tuple[int, str] = (1, "a")
    named: dict[str, int] = Field({"a": 1})
    site: Site = Site(name="roof")


class TypedOut(ExperimentOutputSpec):
    result: Colour
    spent: dt.timedelta
    cost: Decimal = Field(max_digits=10, decimal_places=2)
    sites: list[Site]


@pytest.fixture
def typed(root: Path) -> Any:
    @ExperimentRegistry.Register()
    def typed(spec: Typed) -> TypedOut:
        return TypedOut(result=Colour.BLUE, spent=spec.took, cost=spec.price, sites=[spec.site])

    BaseExperiment(experiment=typed).allocate(
        [
            Typed(experiment_id="", sort_index=0, raw=b"\x00\xff", more={"a": [1]}),
            Typed(experiment_id="", sort_index=0),
        ],
        engine="inline",
    )
    return typed


def test_columns_have_the_types_of_the_models(typed: Any) -> None:
    read = scythe.read("typed")

    expected = {
        "flag": pl.Boolean(), "colour": pl.Enum(["red", "blue"]), "mode": pl.Enum(["a", "b"]), "count": pl.Int64(),
        "took": pl.Duration("us"), "price": pl.Decimal(10, 2), "day": pl.Date(), "clock": pl.Time(),
        "wall": pl.Datetime("us"), "instant": pl.Datetime("us", "UTC"), "key": pl.String(), "raw": pl.Binary(),
        "maybe": pl.Float64(), "values": pl.List(pl.Float64), "site": pl.Struct({"name": pl.String, "height": pl.Float64}),
        "result": pl.Enum(["red", "blue"]), "spent": pl.Duration("us"), "cost": pl.Decimal(10, 2),
    }  # fmt: skip
    assert {name: read.schema[name] for name in expected} == expected
    assert isinstance(read.schema["level"], pl.Enum)
    row = read.row(0, named=True)
    assert row["took"] == row["spent"] == dt.timedelta(minutes=90, microseconds=1)
    assert row["instant"] == dt.datetime(2024, 1, 1, 10, tzinfo=dt.UTC)
    assert row["cost"] == Decimal("12.30")
    assert row["site"] == {"name": "roof", "height": None}


def test_an_empty_table_has_the_types_of_the_models_too(typed: Any) -> None:
    errors = scythe.read("typed", table="errors")

    assert errors.height == 0
    assert errors.schema["colour"] == pl.Enum(["red", "blue"])
    assert errors.schema["took"] == pl.Duration("us")


def test_rows_are_typed_pairs_of_input_and_output(typed: Any) -> None:
    pairs = list(scythe.rows(typed))

    given, output = pairs[0]
    assert isinstance(given, Typed)
    assert isinstance(output, TypedOut)
    plain = Typed(experiment_id="", sort_index=0, raw=b"\x00\xff")
    for name in set(Typed.model_fields) - set(ExperimentInputSpec.model_fields):
        assert getattr(given, name) == getattr(plain, name), name
    assert given.more == {"a": [1]}
    assert pairs[1][0].model_extra == {}
    assert output == TypedOut(result=Colour.BLUE, spent=plain.took, cost=plain.price, sites=[plain.site])
    assert [i.sort_index for i, _ in pairs] == [0, 1]


def test_rows_of_runs_with_a_name_of_their_own_are_read_by_that(root: Path) -> None:
    @ExperimentRegistry.Register()
    def doubled(spec: In) -> Out:
        return Out(y=2 * spec.sort_index)

    winter = BaseExperiment(doubled, run_name="winter")
    run, _ = winter.allocate(specs(3), engine="inline")
    for asked in ("winter", winter):
        assert [out.y for _, out in scythe.rows(asked)] == [0, 2, 4]
        assert [out.y for _, out in scythe.rows(asked, run=run)] == [0, 2, 4]
    with pytest.raises(NotFoundError, match=r"no experiment 'wintr' is registered here; registered: .*doubled"):
        scythe.rows("wintr")
    ExperimentRegistry._experiments.clear()
    with pytest.raises(NotFoundError, match=r"winter/.* is of the function .*doubled.*which is not registered here"):
        scythe.rows("winter")


def test_rows_of_a_run_of_an_older_model_take_the_defaults_or_say_what_is_missing(root: Path) -> None:
    def register(model: Any, output: Any) -> Any:
        def f(spec: Any) -> Any:
            return output(y=1)

        f.__annotations__ = {"spec": model, "return": output}
        ExperimentRegistry._experiments.pop("f", None)
        return ExperimentRegistry.Register()(f)

    class Later(In):
        z: int = 7

    class Needy(In):
        z: int

    class Derived(In):
        z: int = Field(default_factory=lambda known: known["sort_index"])

    BaseExperiment(experiment=register(In, Out)).allocate(specs(1), engine="inline")

    assert [i.z for i, _ in scythe.rows(register(Later, Out))] == [7]
    with pytest.raises(RunError, match=r"no column 'z', which Needy needs.*scythe\.read"):
        list(scythe.rows(register(Needy, Out)))
    with pytest.raises(RunError, match=r"no column 'z', which Derived needs.*scythe\.read"):
        list(scythe.rows(register(Derived, Out)))


def test_rows_invent_no_outputs_of_a_run_of_an_older_model(root: Path) -> None:
    def register(output: Any) -> Any:
        def f(spec: In) -> Any:
            return output(y=1)

        f.__annotations__["return"] = output
        ExperimentRegistry._experiments.pop("f", None)
        return ExperimentRegistry.Register()(f)

    class Guessed(Out):
        q: float = 5

    class Open(Out):
        q: float | None = None

    BaseExperiment(experiment=register(Out)).allocate(specs(1), engine="inline")
    assert [o.q for _, o in scythe.rows(register(Open))] == [None]
    with pytest.raises(
        RunError, match=r"no column 'q', an output that came after it: its default 5(\.0)? is no result of that run"
    ):
        list(scythe.rows(register(Guessed)))


def test_a_run_is_named_by_its_folder_its_datetime_or_itself(moody: Moody) -> None:
    first, second = moody.allocate(1), moody.allocate(1, start=5, version="keep")
    folder = first.experiment_id.rsplit("/", 1)[1]

    for run in (folder, first.run_datetime, first.run_datetime.replace(tzinfo=None), first, first.experiment_id):
        assert scythe.read("moody", "v1.0.0", run=run)["x"].to_list() == [0]
    assert scythe.read("moody", run=second.run_datetime.astimezone(dt.timezone(dt.timedelta(hours=5))))[
        "x"
    ].to_list() == [5]
    assert scythe.read("moody")["x"].to_list() == [5]
    assert scythe.open_run("moody", "v1.0.0", folder).experiment_id == first.experiment_id
    assert scythe.open_run(first.experiment_id).experiment_id == first.experiment_id
    assert scythe.open_run("moody/v1.0.0").experiment_id == second.experiment_id


def test_all_runs_and_all_versions_are_read_with_their_names_in_columns(moody: Moody) -> None:
    first, second = moody.allocate(1), moody.allocate(1, start=1, version="keep")
    third = moody.allocate(1, start=2, version="bumppatch")

    every = scythe.read("moody", "all", run="all").sort("x")
    assert every["x"].to_list() == [0, 1, 2]
    assert every["version"].to_list() == ["v1.0.0", "v1.0.0", "v1.0.1"]
    assert every["run_datetime"].to_list() == [r.run_datetime for r in (first, second, third)]
    assert every["experiment_id"].to_list() == [r.experiment_id for r in (first, second, third)]
    assert sorted(scythe.read("moody", "v1.0.0", run="all")["x"]) == [0, 1]
    assert scythe.read("moody", run="all")["x"].to_list() == [2]
    assert sorted(scythe.read("moody", "all")["x"]) == [1, 2]
    assert 0 in scythe.read("moody", "all", run=first)["x"]
    assert 1 not in scythe.read("moody", "all", run=first)["x"]
    assert scythe.read("moody", "all", table="tasks", run="all").height == 3


# --- asking for what is not there --------------------------------------------------------------------


def test_a_run_that_is_half_deleted_and_damaged_hides_no_other(moody: Moody) -> None:
    whole = moody.allocate(2)
    gone = moody.allocate(3, version="bumpmajor")
    gone.objects.write(gone.key.result, b"no result")
    with pytest.raises(RunDamaged):
        scythe.read("moody")
    gone.objects.write(gone.key.tombstone, b"{}")
    gone.objects.delete([gone.key.manifest])
    assert scythe.read("moody").height == whole.result.rows


def test_runs_that_are_deleted_one_after_the_other_while_rows_are_read_damage_nothing(
    moody: Moody, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, kept = (moody.allocate(2, start=start, version="v1.0.0") for start in (0, 10, 20))
    scan = verbs._scan
    meanwhile: list[Callable[[], Any]] = [
        lambda: (second.objects.write(second.key.tombstone, b"{}"), first.delete()),
        second.delete,
    ]

    def beside(*given: Any, **more: Any) -> pl.LazyFrame:
        found = scan(*given, **more)
        if meanwhile:
            meanwhile.pop(0)()
        return found

    monkeypatch.setattr(verbs, "_scan", beside)
    assert sorted(scythe.read("moody", run="all")["x"]) == [20, 21]
    assert not meanwhile
    shutil.rmtree(Path(kept.objects.folder or "", kept.key.path, "scatter-gather"))
    with pytest.raises(RunDamaged):
        scythe.read("moody", run="all")


def test_what_is_not_there_is_answered_with_what_is(moody: Moody) -> None:
    run = moody.allocate()
    folder = run.experiment_id.rsplit("/", 1)[1]

    for ask, words in [
        (lambda: scythe.read("mody"), ["'mody'", "moody"]),
        (lambda: scythe.read("moody", "v2.0.0"), ["v2.0.0", "v1.0.0"]),
        (lambda: scythe.read("moody", "v1.0.0", run="2001-01-01_00-00-00"), ["2001-01-01_00-00-00", folder]),
        (lambda: scythe.read("moody", run="2001-01-01_00-00-00"), ["2001-01-01_00-00-00"]),
        (lambda: scythe.read("moody", "all", run="2001-01-01_00-00-00"), ["2001-01-01_00-00-00"]),
        (lambda: scythe.read("moody", run="../other"), ["other", folder]),
        (lambda: scythe.read("moody", table="monthly"), ["'monthly'", "errors, scalars, tasks"]),
        (lambda: scythe.read("moody", "all", table="monthly"), ["'monthly'", "scalars"]),
        (lambda: scythe.read("moody", columns=["z"]), ["'z'", "sort_index", "y"]),
        (lambda: scythe.read("moody", columns=["sortindex"]), ["did you mean 'sort_index'"]),
        (lambda: scythe.files("moody"), ["'result_file_refs'"]),
        (lambda: scythe.open_run("moody", "v9.9.9"), ["v9.9.9", "v1.0.0"]),
        (lambda: scythe.list_runs("mody"), ["'mody'", "moody"]),
    ]:
        with pytest.raises(NotFoundError) as raised:
            ask()
        for word in words:
            assert word in str(raised.value), str(raised.value)


def test_an_empty_root_says_that_there_is_nothing(root: Path) -> None:
    assert scythe.list_experiments().height == 0
    with pytest.raises(NotFoundError, match="there is nothing"):
        scythe.read("anything")


def test_a_version_without_a_finished_run_lists_the_runs_and_their_states(moody: Moody) -> None:
    run = moody.broken()

    with pytest.raises(NotFoundError, match=r"no finished run.*\(incomplete\).*run="):
        scythe.read("moody")
    with pytest.raises(NotFoundError, match="no finished run"):
        scythe.read("moody", "all")
    with pytest.raises(RunError, match="not finished"):
        scythe.rows(moody.function, run=run)
    with pytest.raises(NotFoundError, match=r"no table 'hours'.*dataframes can be read when the run is finished"):
        scythe.read("moody", run=run, table="hours")


# --- lists --------------------------------------------------------------------------------------------


def test_experiments_and_runs_are_listed_as_frames(moody: Moody) -> None:
    first = moody.allocate(3)
    second = moody.broken(5, version="keep")

    runs = scythe.list_runs(moody.function)
    about = ["name", "version", "run_datetime", "run", "number"]
    assert runs.columns == [*about, "status", "inputs", "rows", "errors", "seconds", "bytes", "tags", "note", "problem"]
    assert runs["number"].to_list() == [1, 2]
    assert runs["problem"].null_count() == 2
    assert runs["run_datetime"].to_list() == [first.run_datetime, second.run_datetime]
    assert runs.select("status", "inputs", "rows", "errors").rows() == [("finished", 3, 3, 0), ("incomplete", 5, 2, 1)]
    assert runs["seconds"][0] > 0
    assert runs["seconds"][1] is None
    experiments = scythe.list_experiments()
    assert experiments.columns == ["name", "version", "versions", "runs", "run_datetime"]
    assert experiments.row(0) == ("moody", "v1.0.0", 1, 2, second.run_datetime)


# --- runs that stopped ----------------------------------------------------------------------------------


def test_the_exception_of_an_inline_run_is_the_functions_own_with_its_traceback(moody: Moody) -> None:
    moody.fails = {1}

    with pytest.raises(ValueError, match="not 1") as raised:
        moody.allocate()

    assert raised.traceback[-1].path == Path(__file__)
    assert raised.traceback[-1].name == "moody"
    assert raised.value.__cause__ is None


def test_partial_results_are_read_by_naming_the_run(moody: Moody) -> None:
    run = moody.broken()

    assert run.status == "incomplete"
    assert run.result is None
    assert scythe.read("moody", run=run.run_datetime)["x"].to_list() == [0, 1]
    errors = scythe.read("moody", run=run, table="errors")
    assert errors.select("x", "exception_type", "exception_message").rows() == [(2, "ValueError", "not 2")]
    assert scythe.read("moody", run=run, table="tasks", columns=["sort_index"])["sort_index"].to_list() == [0, 1, 2]
    assert scythe.read("moody", "all", run="all").height == 2


def test_resume_runs_only_what_has_neither_row_nor_error(moody: Moody) -> None:
    run = moody.broken()
    moody.calls.clear()

    ref = run.resume(engine="inline")

    assert moody.calls == [3, 4]
    assert (ref.result().rows, ref.result().errors) == (4, 1)
    assert run.status == "finished"
    assert scythe.read("moody")["x"].to_list() == [0, 1, 3, 4]
    assert scythe.read("moody", table="errors")["x"].to_list() == [2]


def test_resuming_a_finished_run_runs_nothing(moody: Moody) -> None:
    run = moody.allocate()
    moody.calls.clear()

    assert run.resume(engine="inline").result() == run.result
    assert moody.calls == []


def test_errors_are_retried_and_become_rows(moody: Moody) -> None:
    run = moody.broken(6, at=(1, 4))
    resume_to_the_end(run, run.resume)
    assert scythe.read("moody", table="errors")["x"].to_list() == [1, 4]
    moody.fails, before = set(), scythe.read("moody")
    moody.calls.clear()

    result = run.retry_errors(engine="inline").result()

    assert moody.calls == [1, 4]
    assert (result.rows, result.errors) == (6, 0)
    after = scythe.read("moody")
    assert after["y"].to_list() == [0, 10, 20, 30, 40, 50]
    assert after.filter(pl.col("x").is_in([0, 2, 3, 5])).equals(before)
    assert scythe.read("moody", table="errors").height == 0
    assert scythe.read("moody", table="tasks").height == 6
    assert set(pl.read_parquet(result.uris["scalars"])["x"]) == set(range(6))


def test_retrying_errors_of_a_run_that_stopped_runs_the_open_inputs_too(moody: Moody) -> None:
    run = moody.broken()
    moody.fails = set()
    moody.calls.clear()

    result = run.retry_errors(engine="inline").result()

    assert sorted(moody.calls) == [2, 3, 4]
    assert (result.rows, result.errors) == (5, 0)
    assert scythe.read("moody")["x"].to_list() == [0, 1, 2, 3, 4]


def test_an_error_that_fails_again_is_there_once(moody: Moody) -> None:
    run = moody.broken(4, at=(1, 2))
    resume_to_the_end(run, run.resume)

    resume_to_the_end(run, run.retry_errors)

    assert (run.result.rows, run.result.errors) == (2, 2)
    assert scythe.read("moody", table="errors")["x"].to_list() == [1, 2]
    assert scythe.read("moody", table="tasks")["sort_index"].to_list() == [0, 1, 2, 3]


def test_a_retry_that_stops_half_way_shows_no_input_twice(moody: Moody) -> None:
    run = moody.broken(4, at=(1, 2))
    resume_to_the_end(run, run.resume)
    moody.fails = {2}

    with pytest.raises(ValueError, match="not 2"):
        run.retry_errors(engine="inline")

    good, bad = scythe.read("moody")["x"].to_list(), scythe.read("moody", table="errors")["x"].to_list()
    assert sorted(good + bad) == [0, 1, 2, 3]
    tasks = scythe.read("moody", table="tasks")["sort_index"].to_list()
    assert sorted(tasks) == [0, 1, 2, 3]


def test_a_run_is_resumed_from_its_own_inputs_whatever_became_of_their_files(root: Path) -> None:
    class Filed(ExperimentInputSpec):
        weather: FileReference

    class Text(ExperimentOutputSpec):
        text: str

    broken = [True]

    @ExperimentRegistry.Register()
    def f(spec: Filed) -> Text:
        if broken[0]:
            raise ValueError("broken")
        return Text(text=spec.weather.read_text())

    Path("a.txt").write_text("A")
    with pytest.raises(ValueError, match="broken"):
        BaseExperiment(experiment=f).allocate(
            [Filed(experiment_id="", sort_index=i, weather="a.txt") for i in range(2)], engine="inline"
        )
    Path("a.txt").unlink()
    broken[0] = False

    scythe.open_run("f").retry_errors(engine="inline")

    assert scythe.read("f")["text"].to_list() == ["A", "A"]


def test_a_run_whose_function_is_not_registered_says_what_to_import(moody: Moody) -> None:
    run = moody.broken()
    ExperimentRegistry._experiments.clear()

    with pytest.raises(NotFoundError, match=r"not registered here.*import"):
        run.resume(engine="inline")


# --- cancel and delete ------------------------------------------------------------------------------------


def test_a_run_that_stopped_can_be_cancelled_and_resumed_all_the_same(moody: Moody) -> None:
    run = moody.broken()

    run.cancel()
    assert run.status == "cancelled"
    assert scythe.read("moody", run=run)["x"].to_list() == [0, 1]

    run.resume(engine="inline")
    assert run.status == "finished"


def test_a_finished_run_cannot_be_cancelled(moody: Moody) -> None:
    run = moody.allocate()

    with pytest.raises(RunError, match="finished"):
        run.cancel()
    assert run.status == "finished"


def test_a_deleted_run_is_gone_from_folder_and_catalog_and_others_stay(moody: Moody, root: Path) -> None:
    kept, gone = moody.allocate(2), moody.allocate(2, start=5, version="keep")

    gone.delete()

    assert not (root / gone.experiment_id).exists()
    assert scythe.read("moody")["x"].to_list() == [0, 1]
    assert scythe.read("moody", "all", run="all")["x"].to_list() == [0, 1]
    assert scythe.list_runs("moody")["run"].to_list() == [kept.experiment_id.rsplit("/", 1)[1]]
    with pytest.raises(NotFoundError):
        scythe.read("moody", run=gone.run_datetime)
    with pytest.raises(NotFoundError):
        scythe.open_run(gone.experiment_id)


def test_a_run_that_stopped_can_be_deleted(moody: Moody, root: Path) -> None:
    run = moody.broken()

    run.delete()

    assert not (root / run.experiment_id).exists()
    assert scythe.list_experiments().height == 0


def test_an_experiment_whose_only_run_was_deleted_is_gone(moody: Moody) -> None:
    moody.allocate().delete()

    with pytest.raises(NotFoundError, match="moody"):
        scythe.read("moody")
    with pytest.raises(NotFoundError, match="no experiment 'moody'"):
        scythe.open_run("moody")
    assert moody.base.latest_run() is None


# --- file references ----------------------------------------------------------------------------------------


class Report(ExperimentOutputSpec):
    report: FileReference
    plot: OptionalFileReference = None


@pytest.fixture
def reports(root: Path) -> pl.DataFrame:
    @ExperimentRegistry.Register()
    def reporting(spec: In, tempdir: Path) -> Report:
        (tempdir / "report.txt").write_text(f"report {spec.x}")
        return Report(report=tempdir / "report.txt")

    BaseExperiment(experiment=reporting).allocate(specs(3), engine="inline")
    return scythe.files("reporting")


def test_file_references_are_a_sequence_of_features_and_loaded_files(reports: pl.DataFrame) -> None:
    refs = scythe.FileRefs(reports, "report", load=Path.read_text, features=["x"])

    assert len(refs) == 3
    assert refs[1] == ({"x": 1}, "report 1")
    assert refs[-1] == ({"x": 2}, "report 2")
    assert list(refs) == [({"x": i}, f"report {i}") for i in range(3)]
    assert list(refs[1:]) == [({"x": 1}, "report 1"), ({"x": 2}, "report 2")]
    with pytest.raises(IndexError):
        refs[3]


def test_without_a_loader_file_references_give_local_paths_and_all_other_columns(reports: pl.DataFrame) -> None:
    features, path = scythe.FileRefs(reports.filter(pl.col("x") == 2), "report")[0]
    assert "sort_index" not in features, "the number of a row is no feature"

    assert path.read_text() == "report 2"
    assert features["x"] == 2
    assert "report" not in features
    assert "plot" not in features


def test_a_column_that_holds_no_files_or_no_file_is_answered_clearly(reports: pl.DataFrame) -> None:
    with pytest.raises(NotFoundError, match=r"no column 'picture'; it has .*report"):
        scythe.FileRefs(reports, "picture")
    with pytest.raises(NotFoundError, match="'z'"):
        scythe.FileRefs(reports, "report", features=["z"])
    with pytest.raises((FetchError, NotFoundError), match="plot"):
        scythe.FileRefs(reports, "plot")[0]


def test_references_are_chosen_by_positions_and_truth_values_and_may_be_lazy(reports: pl.DataFrame) -> None:
    refs = scythe.FileRefs(reports.lazy(), "report", Path.read_text, features=["x"])
    whole = list(refs)
    assert len(whole) > 1
    last = len(whole) - 1
    for index in ([last, 0], np.array([last, 0]), (-1, 0), pl.Series([last, 0])):
        assert list(refs[index]) == [whole[last], whole[0]]  # type: ignore[index]
    assert list(refs[[i == last for i in range(len(whole))]]) == [whole[last]]
    assert refs[np.int64(last)] == whole[last]  # type: ignore[call-overload]
    assert len(refs[[]]) == 0
    for wrong in (True, "report", [len(whole)], [0.5], None):
        with pytest.raises(IndexError, match=r"rows are named by their positions|row \d of \d"):
            refs[wrong]  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (lambda f: scythe.FileRefs(f, "x"), r"the column 'x' holds no files, but Int64; there are .*report"),
        (
            lambda f: scythe.FileRefs(f, "report", features="x"),
            r"features= is a list of columns, got 'x': give \['x'\]",
        ),
        (lambda f: scythe.FileRefs(f, "report", "text"), "load='text': a function of a file's path is wanted"),
        (lambda f: scythe.FileRefs(f.to_dicts(), "report"), "of a frame of Polars, as scythe.files gives it, got list"),
    ],
)
def test_what_no_references_can_be_made_of_is_refused_when_they_are_made(
    reports: pl.DataFrame, made: Any, told: str
) -> None:
    with pytest.raises(ReadError, match=told):
        made(reports)


def test_a_root_that_was_moved_is_read_where_it_is_now(
    reports: pl.DataFrame, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = root.with_name("moved")
    root.rename(moved)
    monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(moved))

    run = scythe.open_run("reporting")
    assert re.escape(str(moved)) in re.escape(run.uri)
    assert run.status == "finished"
