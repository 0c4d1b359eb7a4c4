"""The registry of experiments: functions, or classes with a `run` method, tied to their models and options.

Registering builds no client and runs nothing. The registered function stays the plain function that it was.
"""

from __future__ import annotations

import difflib
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from typing import Any, ClassVar, Never, TypeVar

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.define.again import is_again, is_updated, loading_of, told_of_twin
from scythe.define.experiment import (
    Duration,
    Experiment,
    ExperimentOptions,
    HatchetTask,
    LocalFileLocation,
    define,
    place_of,
)
from scythe.define.schemas import compile_experiment
from scythe.define.typed import Registrable
from scythe.errors import NotFoundError, RegistrationError
from scythe.names import TASK_PREFIX, check_name

F = TypeVar("F", bound=Registrable)


class ExperimentRegistry:
    """All experiments of this process, by name.

    A module that registers an experiment must be imported wherever the experiment is to run.

    Examples:
        >>> from scythe import ExperimentRegistry
        >>> [experiment.name for experiment in ExperimentRegistry.experiments()]
        ['simulate_energy']
    """

    _experiments: ClassVar[dict[str, Experiment]] = {}
    _included: ClassVar[dict[str, Any]] = {}
    _loadings: ClassVar[dict[str, ModuleSpec | None]] = {}

    @classmethod
    def Register(
        cls,
        *without_brackets: Never,
        worker: str | None = None,
        description: str | None = None,
        name: str | None = None,
        desired_worker_labels: dict[str, Any] | None = None,
        schedule_timeout: Duration = None,
        execution_timeout: Duration = None,
        retries: int = 1,
        overwrite_log_method: bool = True,
        inject_workflow_run_id: bool = True,
        auto_fetch_files: bool = True,
        local_file_location: LocalFileLocation = "cache",
        max_inputs_per_process: int | None = None,
        engine_options: Mapping[str, Any] | None = None,
        pack: bool | Sequence[str] = False,
        **task_config: Any,
    ) -> Callable[[F], F]:
        """Makes a function `(input_spec[, tempdir]) -> output`, or a class with such a `run`, an experiment.

        The models are read from the annotations. With a parameter `tempdir: Path` each call gets a temporary folder of its own.
        Of a class one instance is made in each process; an input model with a method `run(self)` may be registered, too.

        Args:
            worker: Name of the worker that is to run it, on a cluster.
            description: For people; the docstring by default.
            name: Instead of the function's own name. It names a folder: letters A to Z and a to z, digits, `_`, `-`, `.` (not two together) and
                spaces (not at the end), 120 characters at most.
            desired_worker_labels: Labels that a worker must have, on a cluster, as `{ScytheWorkerLabel.HAS_GPU: True}`.
            schedule_timeout: How long a chunk of inputs may wait for a worker, on a cluster: as `execution_timeout`.
            execution_timeout: How long the function may take for one input: a timedelta, seconds, or a text like "90s".
                Without it `SCYTHE_TIMEOUT_EXPERIMENT_EXECUTION` holds. The inline engine keeps no limit.
            retries: How often an input is tried again after an exception, a crash or a time-out; what cannot change (an output
                that does not fit its model, a missing module) is tried once.
            overwrite_log_method: Send what the function logs to the log of its task, on a cluster.
            inject_workflow_run_id: Set `workflow_run_id` and `root_workflow_run_id` of each spec.
            auto_fetch_files: Give the function local paths in its file fields, rather than URIs.
            local_file_location: Where those lie: in the shared "cache", or "copied-to-tempdir" for each input (needs `tempdir`).
            max_inputs_per_process: After so many inputs a worker process is replaced by a fresh one: for a simulator
                that leaks memory or handles.
            without_brackets: Nothing; where the brackets were forgotten, the message says so.
            engine_options: What the function needs of an engine, by the engine's name: its options (`LocalOptions(workers=2)`)
                or a dict of them. `allocate(engine=...)` overrides them.
            pack: Store output files many together in shards, rather than one by one: True, or the names of some. It makes
                millions of small files quick to store and to train on; `allocate(pack=...)` overrides it.
            task_config: Further options of the Hatchet task, by their names.

        Returns:
            A decorator, which gives the function or class back as it was.

        Raises:
            RegistrationError: a name that is taken or no folder name, a missing annotation, a clash of names, an option that
                is misspelt or makes no sense. The decorator raises it.
            SchemaError: a field that no table can hold. The decorator raises it.

        Examples:
            >>> from scythe import ExperimentRegistry
            >>> @ExperimentRegistry.Register(retries=0, execution_timeout="90s")
            ... def simulate_loss(input_spec: BuildingInput, tempdir: Path) -> BuildingOutput:
            ...     return BuildingOutput(heating=100 / input_spec.r_value)
            >>> simulate_loss(BuildingInput(r_value=4), Path.cwd()).heating
            25.0
        """
        if without_brackets:
            raise RegistrationError(
                f"{getattr(without_brackets[0], '__name__', without_brackets[0])!r} is registered without brackets: write "
                "@ExperimentRegistry.Register(), and options by their names within"
            )
        _refuse_misspelt(task_config)
        options = ExperimentOptions(
            worker, description, desired_worker_labels, schedule_timeout, execution_timeout, retries,
            overwrite_log_method, inject_workflow_run_id, auto_fetch_files, local_file_location, task_config, max_inputs_per_process,
            engine_options if engine_options is not None else {}, pack,
        )  # fmt: skip

        def register(target: F) -> F:
            experiment = define(target, name, options)
            known = cls._experiments.get(experiment.name)
            if known is not None and not is_again(known.target, cls._loadings.get(experiment.name), target):
                raise RegistrationError(
                    f"the experiment {experiment.name!r} is registered already, by {place_of(known.target)}: "
                    f"give {place_of(target)} another name with Register(name=...)"
                )
            cls._experiments[experiment.name] = experiment
            cls._loadings[experiment.name] = loading_of(target)
            return target

        return register

    @classmethod
    def Include(cls, task: Any) -> Any:
        """Takes in a Hatchet standalone task or workflow whose input and output models conform; gives it back.

        It is an experiment of its own name from then on, and runs on Hatchet alone: a standalone task once
        for each input; a workflow for a single input, and its result is its own.

        Args:
            task: What `hatchet.task(...)` or `hatchet.workflow(...)` of the Hatchet SDK gives, with `input_validator` an
                `ExperimentInputSpec`, and a task with the return annotation of an `ExperimentOutputSpec`.

        Raises:
            RegistrationError: its models are not an ExperimentInputSpec and an ExperimentOutputSpec, or its name is that of a
                registered function.
            SchemaError: a field that no table can hold.

        Examples:
            >>> from hatchet_sdk import Context, Hatchet
            >>> from scythe import BaseExperiment, ExperimentRegistry
            >>> hatchet = Hatchet()
            >>> @hatchet.task(name="degree_days", input_validator=BuildingInput)
            ... def degree_days(spec: BuildingInput, context: Context) -> BuildingOutput:
            ...     return BuildingOutput(heating=18 / spec.r_value)
            >>> ExperimentRegistry.Include(degree_days) is degree_days
            True
            >>> BaseExperiment(runnable=degree_days).name
            'degree_days'
        """
        if not isinstance(getattr(task, "name", None), str):
            raise RegistrationError(
                f"{task!r} cannot be included: it is no task or workflow of Hatchet's. A function of yours becomes an "
                "experiment by @ExperimentRegistry.Register()"
            )
        named = getattr(
            getattr(task, "_config", None), "name", task.name
        )  # the client puts its namespace before a task's name
        name = check_name(named, "a task")
        is_workflow = not hasattr(task, "output_validator_type")
        inputs = getattr(task, "input_validator_type", None)
        outputs = ExperimentOutputSpec if is_workflow else task.output_validator_type
        for what, model, base in (
            ("input_validator", inputs, ExperimentInputSpec),
            ("return annotation", outputs, ExperimentOutputSpec),
        ):
            if not (isinstance(model, type) and issubclass(model, base)):
                raise RegistrationError(f"{name!r} cannot be included: its {what} must inherit from {base.__name__}")
        known = cls._experiments.get(name)
        if known is not None and known.included is None:
            raise RegistrationError(f"{name!r} cannot be included: an experiment of this name is registered already")
        target = HatchetTask(name, _caller(), is_workflow=is_workflow)
        cls._experiments[name] = Experiment(
            name, target, typing.cast(type[Any], inputs), outputs, False, ExperimentOptions(retries=0),
            compile_experiment(typing.cast(type[Any], inputs), outputs),
        )  # fmt: skip
        cls._included[name] = task
        return task

    @classmethod
    def get_runnable(cls, name: str) -> Any:
        """The experiment (or the included Hatchet runnable) of a name.

        Args:
            name: With or without `scythe_experiment_` before it; of an included runnable its own name.

        Returns:
            The `Experiment` of a registered function; what was given to `Include` where that has this name.

        Raises:
            NotFoundError: naming those that are registered.

        Examples:
            >>> from scythe import ExperimentRegistry
            >>> ExperimentRegistry.get_runnable("scythe_experiment_simulate_energy").name
            'simulate_energy'
        """
        short = name.removeprefix(TASK_PREFIX)
        if short in cls._included:
            return cls._included[short]
        if short in cls._experiments:
            return cls._experiments[short]
        known = ", ".join(sorted(cls._experiments)) or "none: import the module that defines it"
        raise NotFoundError(f"no experiment {name!r} is registered here; registered: {known}")

    @classmethod
    def experiments(cls) -> list[Experiment]:
        """All registered experiments, in the order of their names; those that were included, too.

        Examples:
            >>> from scythe import ExperimentRegistry
            >>> [experiment.name for experiment in ExperimentRegistry.experiments()]
            ['simulate_energy']
        """
        return [cls._experiments[name] for name in sorted(cls._experiments)]

    @classmethod
    def includes(cls, experiment: Experiment, runnable: Any) -> bool:
        """Whether an experiment is this Hatchet runnable.

        Args:
            experiment: A registered experiment.
            runnable: Anything, such as what was given to `Include`.

        Examples:
            >>> from scythe import ExperimentRegistry
            >>> (experiment,) = ExperimentRegistry.experiments()
            >>> ExperimentRegistry.includes(experiment, simulate_energy)
            False
        """
        return experiment.name in cls._included and cls._included[experiment.name] is runnable

    @classmethod
    def included(cls) -> list[Any]:
        """All included Hatchet runnables, in the order of their names.

        Examples:
            >>> from scythe import ExperimentRegistry
            >>> ExperimentRegistry.included()
            []
        """
        return [cls._included[name] for name in sorted(cls._included)]


def experiment_of(runnable: Any) -> Experiment:
    """The experiment behind a function, a class, a name or an experiment.

    Args:
        runnable: What was registered or included, its name, its `BaseExperiment`, or an `Experiment`, which is given back.

    Raises:
        NotFoundError: it is not registered.

    Examples:
        >>> from scythe.registry import experiment_of
        >>> experiment_of(simulate_energy).name
        'simulate_energy'
    """
    if isinstance(runnable, str):
        runnable = ExperimentRegistry.get_runnable(runnable)
    runnable = getattr(runnable, "experiment", runnable)  # of a BaseExperiment
    if isinstance(runnable, Experiment):
        return runnable
    if isinstance(runnable, str):
        raise NotFoundError(
            f"a run is given in place of its experiment: give the name, {runnable!r}, and the run as run="
        )
    for experiment in ExperimentRegistry.experiments():
        if experiment.target is runnable or ExperimentRegistry.includes(experiment, runnable):
            return experiment
    for experiment in ExperimentRegistry.experiments():
        if is_updated(runnable, experiment.target):
            return experiment
    twins = (told_of_twin(runnable, experiment.target) for experiment in ExperimentRegistry.experiments())
    raise NotFoundError(
        next(filter(None, twins), None)
        or f"{getattr(runnable, '__name__', runnable)!r} is not a registered experiment: "
        "put @ExperimentRegistry.Register() above its definition"
    )


#: What some libraries call an option.
_ELSEWHERE = {"retry": "retries", "timeout": "execution_timeout"}


def _refuse_misspelt(further: Mapping[str, Any]) -> None:
    """Nothing where no further keyword is nearly an option of `Register`.

    Raises:
        RegistrationError: naming the option that is meant.
    """
    known = [name for name in inspect.signature(ExperimentRegistry.Register).parameters if name != "task_config"]
    for name in further:
        meant = _ELSEWHERE.get(name) or next(iter(difflib.get_close_matches(name, known, 1, 0.75)), None)
        if meant is not None:
            raise RegistrationError(f"Register has no option {name!r}: did you mean {meant!r}?")


def _caller() -> str:
    """The module that calls our caller."""
    frame = inspect.currentframe()
    for _ in range(2):
        frame = frame.f_back if frame is not None else None
    return frame.f_globals["__name__"] if frame is not None else "__main__"


__all__ = ["Experiment", "ExperimentOptions", "ExperimentRegistry", "define", "experiment_of"]
