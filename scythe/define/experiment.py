"""A registered experiment: what to call, on what, and how; made from the annotations of a function or class.

Reads annotations and compiles schemas; builds no client and runs nothing.
"""

from __future__ import annotations

import inspect
import sys
import time
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.define.options import check_options
from scythe.define.schemas import ExperimentSchemas, compile_experiment
from scythe.define.sources.loaded import note_loaded
from scythe.durations import seconds_of
from scythe.errors import RegistrationError, ScytheError
from scythe.names import TASK_PREFIX, check_experiment_name

Duration = timedelta | float | str | None
LocalFileLocation = Literal["cache", "copied-to-tempdir"]


@dataclass(frozen=True)
class ExperimentOptions:
    """What `Register` was told, beside the function itself; each option is explained there.

    Attributes:
        worker: Name of the worker that is to run it, on a cluster.
        description: For people; None where the docstring says it.
        desired_worker_labels: Labels that a worker must have, on a cluster.
        schedule_timeout: How long a chunk of inputs may wait for a worker, on a cluster.
        execution_timeout: How long the function may take for one input.
        retries: How often an input is tried again.
        overwrite_log_method: Whether what the function logs goes to the log of its task, on a cluster.
        inject_workflow_run_id: Whether `workflow_run_id` and `root_workflow_run_id` of each spec are set.
        auto_fetch_files: Whether the function is given local paths in its file fields.
        local_file_location: "cache" or "copied-to-tempdir".
        task_config: Further options of the Hatchet task.
        max_inputs_per_process: After so many inputs a worker process is replaced; None for never.
        engine_options: What the function needs of an engine, by the engine's name: its options, or a dict of them.
        pack: Which file outputs go into shards: all, none, or some by their names.

    Examples:
        >>> from scythe import ExperimentRegistry
        >>> ExperimentRegistry.get_runnable("simulate_energy").options.retries
        1
    """

    worker: str | None = None
    description: str | None = None
    desired_worker_labels: dict[str, Any] | None = None
    schedule_timeout: Duration = None
    execution_timeout: Duration = None
    retries: int = 1
    overwrite_log_method: bool = True
    inject_workflow_run_id: bool = True
    auto_fetch_files: bool = True
    local_file_location: LocalFileLocation = "cache"
    task_config: dict[str, Any] = field(default_factory=dict[str, Any])
    max_inputs_per_process: int | None = None
    engine_options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    pack: bool | Sequence[str] = False

    @property
    def execution_seconds(self) -> float | None:
        """The time limit of one input [s], from the start of the function; None where there is none.

        It is `execution_timeout`, else what `SCYTHE_TIMEOUT_EXPERIMENT_EXECUTION` says now.

        Raises:
            SettingsError: that setting makes no sense.

        Examples:
            >>> from scythe.registry import ExperimentOptions
            >>> ExperimentOptions(execution_timeout="1m30s").execution_seconds
            90.0
        """
        if self.execution_timeout is not None:
            return seconds_of(self.execution_timeout)
        from scythe.settings import timeouts

        default = timeouts().experiment_execution
        return default.total_seconds() if default is not None else None


class HatchetTask:
    """What an included experiment calls: a task or workflow that runs as Hatchet's own, never in a process of Scythe's."""

    def __init__(self, name: str, module: str, *, is_workflow: bool) -> None:
        self.name = self.__name__ = self.__qualname__ = name
        self.__module__ = module
        self.is_workflow = is_workflow

    def __call__(self, *_: Any) -> Any:
        raise NotImplementedError(f"{self.name!r} runs on Hatchet")


@dataclass(frozen=True)
class Experiment:
    """A registered experiment: what to call, on what, and how.

    Attributes:
        name: Its name, and the folder of its runs.
        target: The function, or the class, as the user wrote it.
        input_model: What it takes.
        output_model: What it gives.
        wants_tempdir: Whether it has a parameter `tempdir`.
        options: What `Register` was told.
        schemas: The columns of its tables.
        defined_at: When this process has loaded it [s since 1970].

    Examples:
        >>> from scythe import ExperimentRegistry
        >>> experiment = ExperimentRegistry.get_runnable("simulate_energy")
        >>> experiment.input_model is BuildingInput, experiment.wants_tempdir
        (True, True)
    """

    name: str
    #: The function, or the class, as the user wrote it.
    target: Callable[..., Any]
    input_model: type[ExperimentInputSpec]
    output_model: type[ExperimentOutputSpec]
    wants_tempdir: bool
    options: ExperimentOptions
    schemas: ExperimentSchemas = field(repr=False, compare=False)
    #: When this process has loaded it [s since 1970].
    defined_at: float = field(default_factory=time.time, repr=False, compare=False)

    @property
    def task_name(self) -> str:
        """The name of the Hatchet task and the `experiment_name` of manifests.

        Examples:
            >>> from scythe import ExperimentRegistry
            >>> ExperimentRegistry.get_runnable("simulate_energy").task_name
            'scythe_experiment_simulate_energy'
        """
        return TASK_PREFIX + self.name if self.included is None else self.included.name

    @property
    def included(self) -> HatchetTask | None:
        """The Hatchet runnable that it is, None for a function of Scythe's.

        Examples:
            >>> from scythe import ExperimentRegistry
            >>> ExperimentRegistry.get_runnable("simulate_energy").included is None
            True
        """
        return self.target if isinstance(self.target, HatchetTask) else None

    @property
    def needs_engine(self) -> str | None:
        """The one engine that can run it, None for a function of Scythe's.

        Examples:
            >>> scythe.ExperimentRegistry.get_runnable("simulate_energy").needs_engine is None
            True
        """
        return None if self.included is None else "hatchet"

    @property
    def module(self) -> str:
        """The name of the module that defines it.

        Examples:
            >>> from scythe import ExperimentRegistry
            >>> ExperimentRegistry.get_runnable("simulate_energy").module == simulate_energy.__module__
            True
        """
        return self.target.__module__

    @property
    def source(self) -> str | None:
        """The file that defines it, None in a notebook or at a prompt.

        Examples:
            >>> from scythe import ExperimentRegistry
            >>> Path(ExperimentRegistry.get_runnable("simulate_energy").source).suffix
            '.py'
        """
        module = sys.modules.get(self.module)
        path = getattr(module, "__file__", None)
        return str(Path(path).resolve()) if path else None

    def bind(self) -> Callable[..., ExperimentOutputSpec]:
        """What to call with a spec (and a `tempdir` where it wants one); of a class that is no input model it makes an instance.

        Examples:
            >>> from scythe import ExperimentRegistry
            >>> function = ExperimentRegistry.get_runnable("simulate_energy").bind()
            >>> function is simulate_energy
            True
        """
        if not isinstance(self.target, type):
            return self.target
        if issubclass(self.target, ExperimentInputSpec):
            return self.target.run  # pyright: ignore[reportAttributeAccessIssue]
        return self.target().run


def define(target: Callable[..., Any], name: str | None, options: ExperimentOptions) -> Experiment:
    """The experiment that a function or class makes, from its annotations.

    Args:
        target: The function, or a class with a method `run`.
        name: Instead of the target's own name; None for that.
        options: What `Register` was told.

    Raises:
        RegistrationError: see `ExperimentRegistry.Register`.
        SchemaError: a field that no table can hold.

    Examples:
        >>> from scythe.registry import ExperimentOptions, define
        >>> define(simulate_energy, "energy", ExperimentOptions()).name
        'energy'
    """
    if not hasattr(target, "__qualname__"):
        raise RegistrationError(
            f"{target!r} cannot be an experiment: register a function or a class with a `run` method"
        )
    chosen = check_experiment_name(name if name is not None else target.__name__, "an experiment")
    check_options(chosen, vars(options))
    inputs, outputs, wants_tempdir = _signature(target)
    if options.local_file_location == "copied-to-tempdir" and not wants_tempdir:
        raise RegistrationError(f"{chosen}: local_file_location='copied-to-tempdir' needs a parameter `tempdir: Path`")
    schemas = compile_experiment(inputs, outputs)
    packed_fields(options.pack, schemas.file_outputs, RegistrationError)
    note_loaded()
    return Experiment(chosen, target, inputs, outputs, wants_tempdir, options, schemas)


def packed_fields(pack: object, files: Sequence[str], error: type[ScytheError]) -> list[str]:
    """The file outputs that `pack` of `Register` or `allocate` names.

    Args:
        pack: True for all, False for none, or some of their names.
        files: The names of all file outputs.
        error: What is raised.

    Raises:
        ScytheError: of the class given: it is none of these, or there is no such file output.

    Examples:
        >>> from scythe.define.experiment import packed_fields
        >>> from scythe.errors import AllocationError
        >>> packed_fields(True, ("hourly", "report"), AllocationError)
        ['hourly', 'report']
    """
    if isinstance(pack, bool):
        if pack and not files:
            raise error("pack=True packs the output files, and the output model has no field that is a FileReference")
        return [*files] if pack else []
    if isinstance(pack, str) or not isinstance(pack, Sequence):
        raise error(f"pack must be True, False or a list of file outputs, got {pack!r}")
    unknown = [name for name in pack if name not in files]  # pyright: ignore[reportUnknownVariableType]
    if unknown:
        raise error(f"pack names {unknown[0]!r}, which is no file output; there is {', '.join(files) or 'none'}")
    return [name for name in files if name in pack]


def _signature(target: Callable[..., Any]) -> tuple[type[Any], type[Any], bool]:
    function, own_input = target, None
    if isinstance(target, type):
        function = getattr(target, "run", None)  # pyright: ignore[reportAssignmentType]
        if not callable(function):
            raise RegistrationError(
                f"the class {target.__name__} needs a method `run(self, input_spec)` to be an experiment"
            )
        if issubclass(target, ExperimentInputSpec):
            own_input = target
    where = place_of(target)
    _check_called(typing.cast(Callable[..., Any], function), where)
    try:
        hints = typing.get_type_hints(function)
    except NameError as error:
        raise RegistrationError(
            f"{where}: the annotation {error.name!r} is not known where it is defined: import it, or define it at the top of the module"
        ) from error
    parameters = inspect.signature(function).parameters
    names = list(parameters)
    if isinstance(target, type):
        names = names[1:]
    tempdir = "tempdir" in names
    names = [n for n in names if n != "tempdir"]
    if len(names) != (0 if own_input else 1):
        expected = "tempdir at most" if own_input else "one input spec, and `tempdir` if it wants one"
        raise RegistrationError(f"{where} must take {expected}; it takes {', '.join(names) or 'nothing'}")
    if not own_input and parameters[names[0]].kind is inspect.Parameter.KEYWORD_ONLY:
        raise RegistrationError(f"{where} is given its input by position: take the * before {names[0]!r} away")
    if tempdir and hints.get("tempdir", Path) is not Path:
        raise RegistrationError(f"{where}: annotate tempdir as pathlib.Path")
    inputs = own_input or hints.get(names[0])
    outputs = hints.get("return")
    for what, model in (((names or ["self"])[0], inputs), ("the return value", outputs)):
        if not isinstance(model, type):
            raise RegistrationError(
                f"{where}: annotate {what} with its model, as in `def f(input_spec: MyInput) -> MyOutput`"
            )
    return typing.cast(type[Any], inputs), typing.cast(type[Any], outputs), tempdir


def _check_called(function: Callable[..., Any], where: str) -> None:
    """Nothing where a call gives a result: not a coroutine, nor a generator.

    Raises:
        RegistrationError: saying what to do instead.
    """
    plain = inspect.unwrap(function)
    if hasattr(function, "cache_info"):
        raise RegistrationError(
            f"{where} is cached by functools, and an input is no key of a cache: take the cache off, or let it call a function that is cached"
        )
    if inspect.iscoroutinefunction(plain):
        raise RegistrationError(
            f"{where} is an `async def`, and a worker awaits nothing: make it a `def`, "
            "and call what it awaits with asyncio.run(...)"
        )
    if inspect.isgeneratorfunction(plain) or inspect.isasyncgenfunction(plain):
        raise RegistrationError(f"{where} is a generator: return one output in place of `yield`")


def place_of(target: Callable[..., Any]) -> str:
    """Where a function or class is defined, for messages."""
    if isinstance(target, HatchetTask):
        return "an included task of Hatchet"
    return f"{target.__module__}.{target.__qualname__}"


__all__ = ["Duration", "Experiment", "ExperimentOptions", "HatchetTask", "LocalFileLocation", "define", "place_of"]
