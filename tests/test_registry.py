"""Registering an experiment: what a function, a class, its models and its options must be, and what the refusal says."""

import functools
import inspect
import re
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import pyarrow as pa
import pytest
from pydantic import BaseModel, Field, create_model

import scythe
from scythe.allocate import BaseExperiment
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.errors import AllocationError, NotFoundError, RegistrationError, SchemaError, ScytheError
from scythe.registry import ExperimentRegistry, experiment_of
from scythe.utils.filesys import FileReference
from scythe_catalog.schema.compile import compile_model


class In(ExperimentInputSpec):
    x: int


class Out(ExperimentOutputSpec):
    y: int


def double(spec: In) -> Out:
    """Twice the input."""
    return Out(y=2 * spec.x)


def spec(x: int) -> In:
    return In(experiment_id="", sort_index=0, x=x)


def register(target: Any = double, **options: Any) -> Any:
    return ExperimentRegistry.Register(**options)(target)


# --- what it gives ----------------------------------------------------------------------------------


def test_the_decorated_function_stays_the_plain_function() -> None:
    decorated = register()

    assert decorated is double
    assert decorated(spec(4)) == Out(y=8)
    assert decorated.__doc__ == "Twice the input."


def test_an_experiment_is_found_by_name_by_task_name_and_by_function() -> None:
    register()

    experiment = ExperimentRegistry.get_runnable("double")
    assert experiment is ExperimentRegistry.get_runnable("scythe_experiment_double") is experiment_of(double)
    assert (experiment.name, experiment.task_name) == ("double", "scythe_experiment_double")
    assert (experiment.input_model, experiment.output_model) == (In, Out)
    assert experiment.source == str(Path(__file__).resolve())


def test_a_name_replaces_that_of_the_function() -> None:
    register(name="twice")

    assert experiment_of(double).name == "twice"
    assert experiment_of(double).task_name == "scythe_experiment_twice"
    with pytest.raises(NotFoundError, match=r"no experiment 'double'.*twice"):
        ExperimentRegistry.get_runnable("double")


def test_experiments_are_listed_by_name() -> None:
    for name in ("b", "c", "a"):
        register(_named(name))

    listed = [e.name for e in ExperimentRegistry.experiments()]
    assert listed == sorted(listed), "what other modules registered is among them"
    assert [name for name in listed if name in {"a", "b", "c"}] == ["a", "b", "c"]


def _named(name: str) -> Any:
    def f(spec: In) -> Out:
        return Out(y=spec.x)

    f.__name__ = name
    return f


def _copy() -> Any:
    def copied(spec: In) -> Out:
        return Out(y=spec.x)

    return copied


def test_every_option_is_kept() -> None:
    register(
        worker="big", description="d", name="n", desired_worker_labels={"gpu": True}, schedule_timeout="1h",
        execution_timeout=timedelta(seconds=90), retries=3, overwrite_log_method=False, inject_workflow_run_id=False,
        auto_fetch_files=False, local_file_location="cache", priority=3,
    )  # fmt: skip

    options = ExperimentRegistry.get_runnable("n").options
    assert (options.worker, options.description, options.desired_worker_labels) == ("big", "d", {"gpu": True})
    assert (options.schedule_timeout, options.execution_seconds, options.retries) == ("1h", 90.0, 3)
    assert (options.overwrite_log_method, options.inject_workflow_run_id, options.auto_fetch_files) == (False,) * 3
    assert options.task_config == {"priority": 3}


def test_the_defaults_are_those_of_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    register()

    options = experiment_of(double).options
    assert (options.retries, options.overwrite_log_method, options.inject_workflow_run_id) == (1, True, True)
    assert (options.auto_fetch_files, options.local_file_location, options.execution_seconds) == (True, "cache", None)
    monkeypatch.setenv("SCYTHE_TIMEOUT_EXPERIMENT_EXECUTION", "12")
    assert options.execution_seconds == 12.0


def test_a_class_with_a_run_method_is_an_experiment(root: Path) -> None:
    class Doubling:
        factor = 2

        def run(self, spec: In) -> Out:
            return Out(y=self.factor * spec.x)

    assert register(Doubling) is Doubling
    BaseExperiment(experiment=Doubling).allocate([spec(3)], engine="inline")

    assert scythe.read("Doubling")["y"].to_list() == [6]


def test_a_class_with_a_run_method_may_want_a_tempdir(root: Path) -> None:
    class Writing:
        def run(self, spec: In, tempdir: Path) -> Out:
            (tempdir / "x").write_text(str(spec.x))
            return Out(y=int((tempdir / "x").read_text()))

    register(Writing)
    BaseExperiment(experiment=Writing).allocate([spec(3)], engine="inline")

    assert scythe.read(Writing)["y"].to_list() == [3]


def test_an_input_spec_with_a_run_method_is_an_experiment(root: Path) -> None:
    class Square(ExperimentInputSpec):
        x: int

        def run(self) -> Out:
            return Out(y=self.x**2)

    assert register(Square) is Square
    BaseExperiment(experiment=Square).allocate(Square(experiment_id="", sort_index=0, x=5), engine="inline")

    assert scythe.read("Square").select("x", "y").row(0) == (5, 25)


def test_an_input_spec_whose_run_wants_a_tempdir_gets_one(root: Path) -> None:
    class Square(ExperimentInputSpec):
        x: int

        def run(self, tempdir: Path) -> Out:
            return Out(y=int(tempdir.is_dir()))

    register(Square)
    BaseExperiment(experiment=Square).allocate(Square(experiment_id="", sort_index=0, x=5), engine="inline")

    assert scythe.read("Square")["y"].to_list() == [1]


def test_without_injection_the_ids_of_the_specs_stay_as_given(root: Path) -> None:
    register(inject_workflow_run_id=False)
    given = In(experiment_id="", sort_index=0, x=1, workflow_run_id="mine")

    BaseExperiment(experiment=double).allocate([given], engine="inline")

    read = scythe.read("double").row(0, named=True)
    assert (read["workflow_run_id"], read["root_workflow_run_id"]) == ("mine", None)


def test_without_fetching_the_function_sees_uris(root: Path) -> None:
    class Filed(ExperimentInputSpec):
        weather: FileReference

    class Seen(ExperimentOutputSpec):
        seen: str

    def look(spec: Filed) -> Seen:
        return Seen(seen=str(spec.weather))

    register(look, auto_fetch_files=False)
    given = Filed(experiment_id="", sort_index=0, weather="https://example.org/a.txt")
    BaseExperiment(experiment=look).allocate([given], engine="inline")

    assert scythe.read("look")["seen"].to_list() == ["https://example.org/a.txt"]


def test_files_copied_to_the_tempdir_may_be_changed_by_the_function(root: Path) -> None:
    class Filed(ExperimentInputSpec):
        weather: FileReference

    class Seen(ExperimentOutputSpec):
        text: str

    def look(spec: Filed, tempdir: Path) -> Seen:
        assert isinstance(spec.weather, Path)
        assert spec.weather.is_relative_to(tempdir)
        text = spec.weather.read_text()
        spec.weather.write_text("spoilt")
        return Seen(text=text)

    register(look, local_file_location="copied-to-tempdir")
    Path("a.txt").write_text("A")
    specs = [Filed(experiment_id="", sort_index=i, weather="a.txt") for i in range(3)]
    BaseExperiment(experiment=look).allocate(specs, engine="inline")

    assert scythe.read("look")["text"].to_list() == ["A"] * 3
    assert Path("a.txt").read_text() == "A"


# --- names -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "a/b",
        "a\\b",
        "..",
        "a..b",
        "",
        " ",
        " a",
        "a ",
        ".a",
        "-a",
        "_a",
        "a\nb",
        "a\n",
        "a\x00",
        "a\x1b[0m",
        "é",
        "x" * 121,
    ],
)
def test_a_name_that_cannot_be_a_folder_is_refused(name: str) -> None:
    with pytest.raises(RegistrationError, match="cannot be the name of an experiment"):
        register(name=name)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("a..b", "use no two dots together"),
        ("a b ", "do not end with a space"),
        ("a" * 300, "it has 300 characters, use 120 at most"),
        (" a", "start with a letter or digit"),
        (5, "a name is a text"),
    ],
)
def test_the_rule_that_a_name_breaks_is_told(name: Any, rule: str) -> None:
    register()
    for error, call in (
        (RegistrationError, lambda: register(name=name)),
        (AllocationError, lambda: BaseExperiment(double, run_name=name)),
    ):
        with pytest.raises(error, match=f"cannot be the name of an? (experiment|run): .*{rule}"):
            call()


@pytest.mark.parametrize("name", ["_catalog", "scythe_experiment_double"])
def test_a_reserved_name_is_refused(name: str) -> None:
    with pytest.raises(RegistrationError):
        register(name=name)


def test_a_lambda_has_no_name_for_a_folder() -> None:
    with pytest.raises(RegistrationError, match="<lambda>"):
        register(lambda spec: Out(y=1))


def test_a_name_that_is_taken_is_refused_and_both_places_are_named() -> None:
    register()

    def other(spec: In) -> Out:
        return Out(y=1)

    with pytest.raises(RegistrationError, match=r"'double' is registered already, by .*double.*other.*name="):
        register(other, name="double")
    assert experiment_of("double").target is double


def test_the_same_definition_may_be_registered_again() -> None:
    first, second = _copy(), _copy()

    register(first)
    register(second)

    assert experiment_of("copied").target is second


@pytest.mark.parametrize(
    "field", ["a/b", "..", "a\nb", "a\x00", "version", "run_datetime", "Version", "traceback", "sort_subindex"]
)
@pytest.mark.parametrize("side", ["input", "output"])
def test_a_field_that_no_column_may_be_named_by_is_refused(field: str, side: str) -> None:
    base: Any = ExperimentInputSpec if side == "input" else ExperimentOutputSpec
    model: Any = create_model("Odd", __base__=base, **{field: (int, ...)})

    def f(spec: In) -> Out:
        return Out(y=1)

    f.__annotations__ = {"spec": model, "return": Out} if side == "input" else {"spec": In, "return": model}
    with pytest.raises((RegistrationError, SchemaError), match=re.escape("Odd")):
        register(f)


def test_an_output_field_named_like_an_input_is_refused() -> None:
    class Clash(ExperimentOutputSpec):
        x: int

    def f(spec: In) -> Clash:
        return Clash(x=1)

    with pytest.raises(RegistrationError, match=r"Clash\.x has the name of a field of In"):
        register(f)


@pytest.mark.parametrize("name", ["sort_index", "experiment_id", "workflow_run_id"])
def test_an_output_field_named_like_an_identifier_is_refused(name: str) -> None:
    model: Any = create_model("Clash", __base__=ExperimentOutputSpec, **{name: (str, ...)})

    def f(spec: In) -> Out:
        return Out(y=1)

    f.__annotations__["return"] = model
    with pytest.raises(RegistrationError, match=name):
        register(f)


# --- signatures ---------------------------------------------------------------------------------------


def test_a_missing_annotation_is_refused_and_the_way_out_is_shown() -> None:
    def no_input(spec) -> Out:  # type: ignore[no-untyped-def]
        return Out(y=1)

    def no_output(spec: In):  # type: ignore[no-untyped-def]
        return Out(y=1)

    with pytest.raises(RegistrationError, match=r"no_input: annotate spec .*def f\(input_spec: MyInput\) -> MyOutput"):
        register(no_input)
    with pytest.raises(RegistrationError, match="no_output: annotate the return value"):
        register(no_output)


def test_an_annotation_that_is_not_known_is_refused() -> None:
    def f(spec: "Nowhere") -> Out:  # type: ignore[name-defined]  # noqa: F821
        return Out(y=1)

    with pytest.raises(RegistrationError, match=r"'Nowhere' is not known where it is defined"):
        register(f)


def test_models_of_the_wrong_kind_are_refused() -> None:
    class Plain(BaseModel):
        y: int

    def wrong_input(spec: Plain) -> Out:
        return Out(y=1)

    def wrong_output(spec: In) -> Plain:
        return Plain(y=1)

    def swapped(spec: Out) -> In:
        return spec  # type: ignore[return-value]

    def numbers(spec: int) -> float:
        return 1.0

    with pytest.raises(RegistrationError, match=r"Plain must inherit from scythe\.base\.ExperimentInputSpec"):
        register(wrong_input)
    with pytest.raises(RegistrationError, match=r"Plain must inherit from scythe\.base\.ExperimentOutputSpec"):
        register(wrong_output)
    with pytest.raises(RegistrationError, match="Out must inherit"):
        register(swapped)
    with pytest.raises(RegistrationError, match="int must inherit"):
        register(numbers)


def test_another_number_of_parameters_is_refused() -> None:
    def none() -> Out:
        return Out(y=1)

    def two(spec: In, other: In) -> Out:
        return Out(y=1)

    with pytest.raises(RegistrationError, match="it takes nothing"):
        register(none)
    with pytest.raises(RegistrationError, match="it takes spec, other"):
        register(two)


def test_a_tempdir_of_another_type_is_refused() -> None:
    def f(spec: In, tempdir: str) -> Out:
        return Out(y=1)

    with pytest.raises(RegistrationError, match=r"annotate tempdir as pathlib\.Path"):
        register(f)


def test_a_class_without_run_is_refused() -> None:
    class Nothing:
        pass

    with pytest.raises(RegistrationError, match="Nothing needs a method `run"):
        register(Nothing)


def test_something_that_is_no_function_is_refused() -> None:
    with pytest.raises(RegistrationError):
        register(functools.partial(double))


# --- options ------------------------------------------------------------------------------------------


def test_copies_to_a_tempdir_need_a_tempdir() -> None:
    with pytest.raises(RegistrationError, match="copied-to-tempdir' needs a parameter `tempdir: Path`"):
        register(local_file_location="copied-to-tempdir")


@pytest.mark.parametrize(
    "options",
    [
        {"local_file_location": "elsewhere"},
        {"retries": -1},
    ],
)
def test_an_option_that_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(RegistrationError):
        register(**options)


@pytest.mark.parametrize("given", ["x", 5, 1.5, True, None, [1], {"a": None}, {1: {}}, object(), {"local": 5}])
def test_a_value_that_an_option_cannot_have_is_refused_with_the_option_and_the_value(given: Any) -> None:
    """Of all options: the values that each takes are those in this table, and no others."""
    texts, flags = ("x", None), (True,)
    takes: dict[str, tuple[Any, ...]] = {
        "name": texts, "worker": texts, "description": texts, "retries": (5,), "max_inputs_per_process": (5, None),
        "overwrite_log_method": flags, "inject_workflow_run_id": flags, "auto_fetch_files": flags, "local_file_location": (),
        "schedule_timeout": (5, 1.5, None), "execution_timeout": (5, 1.5, None), "desired_worker_labels": (None, {"local": 5}),
        "engine_options": (None,), "pack": (),
    }  # fmt: skip
    options = {
        n for n, p in inspect.signature(ExperimentRegistry.Register).parameters.items() if p.kind is p.KEYWORD_ONLY
    }
    assert options == takes.keys()
    for option, values in takes.items():
        if any(type(value) is type(given) and value == given for value in values):
            register(**{option: given})
            continue
        with pytest.raises(RegistrationError) as raised:
            register(**{option: given})
        assert repr(given) in str(raised.value) or (option == "pack" and given == [1])  # which names the field
        assert option in str(raised.value) or option == "name"


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [
        (timedelta(minutes=2), 120.0), (5, 5.0), (0.25, 0.25), ("90s", 90.0), ("1m30s", 90.0), ("2h", 7200.0),
        ("1.5h", 5400.0), ("500ms", 0.5), ("1d", 86400.0), ("1 m 30 s", 90.0),
    ],
)  # fmt: skip
def test_durations_are_timedeltas_seconds_or_texts(duration: Any, seconds: float) -> None:
    register(execution_timeout=duration)

    assert experiment_of(double).options.execution_seconds == seconds


@pytest.mark.parametrize("option", ["execution_timeout", "schedule_timeout"])
@pytest.mark.parametrize(
    "duration",
    [
        "",
        "s",
        "-5s",
        "5 parsecs",
        "1m30",
        0,
        -1,
        float("nan"),
        1e300,
        timedelta(0),
        timedelta(seconds=-1),
        [],
        object(),
    ],
)
def test_any_other_duration_is_refused(option: str, duration: Any) -> None:
    with pytest.raises(RegistrationError, match="positive"):
        register(**{option: duration})


# --- types that no table holds --------------------------------------------------------------------------


class Tree(BaseModel):
    children: list["Tree"] = []


@pytest.mark.parametrize(
    "annotation",
    [Any, int | str, list[Any], dict[int, str], dict, list, object, Decimal, Tree, Path | int, list[FileReference]],
    ids=str,
)
@pytest.mark.parametrize("base", [ExperimentInputSpec, ExperimentOutputSpec], ids=["input", "output"])
def test_a_type_without_a_faithful_column_is_refused_at_registration(annotation: Any, base: Any) -> None:
    model: Any = create_model("Odd", __base__=base, odd=(annotation, ...))

    def f(spec: In) -> Out:
        return Out(y=1)

    f.__annotations__ = {"spec": model, "return": Out} if base is ExperimentInputSpec else {"spec": In, "return": model}
    with pytest.raises(SchemaError, match=r"(Odd\.odd|Tree\.children): no table column can hold"):
        register(f)


def test_the_refusal_of_a_decimal_says_how_to_give_its_size() -> None:
    model: Any = create_model("Odd", __base__=ExperimentInputSpec, price=(Decimal, Field(max_digits=5)))

    def f(spec: In) -> Out:
        return Out(y=1)

    f.__annotations__["spec"] = model
    with pytest.raises(SchemaError, match=r"Odd\.price.*max_digits=12, decimal_places=2"):
        register(f)


@pytest.mark.parametrize(
    "annotation",
    [Decimal, Decimal | None, Annotated[Decimal | None, Field(ge=0)], Annotated[Decimal, Field(ge=0)] | None],
)
def test_a_decimal_has_the_size_that_its_field_gives_it_also_where_it_may_be_none(annotation: Any) -> None:
    model: Any = create_model(
        "Sized", __base__=ExperimentInputSpec, price=(annotation, Field(max_digits=5, decimal_places=2))
    )

    def f(spec: In) -> Out:
        return Out(y=1)

    f.__annotations__["spec"] = model
    column = compile_model(model).schema["price"]
    assert (column.kind.storage, column.nullable) == (pa.decimal128(5, 2), annotation is not Decimal)
    register(f)


# --- Hatchet's own runnables ----------------------------------------------------------------------------


def test_something_without_an_input_model_cannot_be_included() -> None:
    task = SimpleNamespace(name="task", config=SimpleNamespace(input_validator=BaseModel))

    with pytest.raises(RegistrationError, match="'task' cannot be included"):
        ExperimentRegistry.Include(task)


def test_nothing_is_no_experiment(root: Path) -> None:
    register()
    for ask in (scythe.read, scythe.open_run, scythe.rows, BaseExperiment):
        with pytest.raises(ScytheError):
            ask(None)  # type: ignore[operator]
    with pytest.raises(RegistrationError, match=r"no task or workflow of Hatchet's.*Register"):
        ExperimentRegistry.Include(double)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"chunk": "x"}, "chunk must be a whole number, got 'x'"),
        ({"workers": 0}, "workers must be at least 1, got 0"),
        ({"seed": 1.5}, "seed must be a whole number, got 1.5"),
        ({"recursion_map": "x"}, "recursion_map must be a RecursionMap, got 'x'"),
    ],
)
def test_an_argument_of_allocate_that_is_of_another_type_is_named(
    root: Path, option: dict[str, Any], said: str
) -> None:
    register()
    with pytest.raises(AllocationError, match=re.escape(said)):
        BaseExperiment(double).allocate([], **option)
    assert not root.exists()


@pytest.mark.parametrize(
    ("given", "meant"), [("execution_timout", "execution_timeout"), ("retry", "retries"), ("timeout", "execution_timeout")]
)  # fmt: skip
def test_a_misspelt_option_is_refused_with_the_one_that_is_meant(given: str, meant: str) -> None:
    with pytest.raises(RegistrationError, match=f"no option '{given}': did you mean '{meant}'"):
        register(**{given: 3})


def test_a_decorator_without_brackets_says_how_it_is_written() -> None:
    with pytest.raises(RegistrationError, match=r"write @ExperimentRegistry\.Register\(\)"):
        ExperimentRegistry.Register(double)  # pyright: ignore[reportArgumentType, reportCallIssue]


def test_what_could_never_be_called_with_an_input_is_refused() -> None:
    def keyword(*, input_spec: In) -> Out:
        return Out(y=1)

    @functools.lru_cache
    def cached(input_spec: In) -> Out:
        return Out(y=1)

    with pytest.raises(RegistrationError, match=r"is given its input by position: take the . before 'input_spec' away"):
        ExperimentRegistry.Register()(keyword)
    with pytest.raises(RegistrationError, match="is cached by functools, and an input is no key of a cache"):
        ExperimentRegistry.Register()(cached)
