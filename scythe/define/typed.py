"""What a type checker knows of the functions and classes that are experiments, and of the other names for one. Runs nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.define.experiment import Experiment

I = TypeVar("I", bound=ExperimentInputSpec)  # noqa: E741
O = TypeVar("O", bound=ExperimentOutputSpec)  # noqa: E741
I_contra = TypeVar("I_contra", bound=ExperimentInputSpec, contravariant=True)
I_co = TypeVar("I_co", bound=ExperimentInputSpec, covariant=True)
O_co = TypeVar("O_co", bound=ExperimentOutputSpec, covariant=True)


class WithTempdir(Protocol[I_contra, O_co]):
    """A function with a folder of its own."""

    def __call__(self, input_spec: I_contra, /, *, tempdir: Path) -> O_co: ...


class Runs(Protocol[I_contra, O_co]):
    """What a class with a method `run` makes."""

    def run(self, input_spec: I_contra, /) -> O_co: ...


class RunsWithTempdir(Protocol[I_contra, O_co]):
    """The same, with a folder of its own."""

    def run(self, input_spec: I_contra, /, *, tempdir: Path) -> O_co: ...


class RunsItself(Protocol[I_co, O_co]):
    """An input model with a method `run`; `model_copy`, which gives the model itself, says which one."""

    def run(self) -> O_co: ...
    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> I_co: ...


class RunsItselfWithTempdir(Protocol[I_co, O_co]):
    """The same, with a folder of its own."""

    def run(self, *, tempdir: Path) -> O_co: ...
    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> I_co: ...


class HasRun(Protocol):
    """What any class with a method `run` makes."""

    @property
    def run(self) -> Callable[..., ExperimentOutputSpec]: ...


class Included(Protocol):
    """A task or workflow of Hatchet's."""

    @property
    def name(self) -> str: ...
    @property
    def input_validator_type(self) -> Any: ...


class Allocates(Protocol):
    """A `BaseExperiment`."""

    @property
    def experiment(self) -> Experiment: ...
    @property
    def name(self) -> str: ...


#: What can be registered.
Registrable = Callable[[Any], ExperimentOutputSpec] | WithTempdir[Any, ExperimentOutputSpec] | type[HasRun]

#: An experiment as a caller names it: by its name, or by what was registered or included.
Named = str | Callable[..., Any] | Experiment | Included | Allocates
