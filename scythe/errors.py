"""The errors of experiments and runs: one tree under `ScytheError`. Never raises anything itself.

Each message names the thing, the value and the way out.
"""

from __future__ import annotations

from scythe_catalog.errors import (
    CatalogError,
    CommitConflict,
    DataError,
    SchemaError,
    ScytheError,
    StorageError,
    StorageRefused,
    TableNotFound,
)


class RegistrationError(ScytheError):
    """A function, a model or a name cannot become an experiment."""


class AllocationError(ScytheError):
    """A run cannot be allocated; nothing was started."""


class InputError(AllocationError, DataError):
    """The inputs of an allocation are not acceptable; nothing was written."""

    def __init__(self, message: str, problems: tuple[object, ...] = ()) -> None:
        DataError.__init__(self, message, problems)


class VersionError(AllocationError):
    """A version is malformed, or too small a step for what changed in the schema."""


class NotFoundError(ScytheError, LookupError):
    """An experiment, version, run, table or column that is not there; the message lists what is."""


class ReadError(ScytheError):
    """What is asked for makes no sense: a column twice, a single name in place of a list."""


class RunError(ScytheError):
    """A run could not be finished, or cannot be done to what was asked."""


class RunCancelled(RunError):
    """The run was cancelled."""


class Superseded(RunError):
    """An attempt on a run belongs to another process, or to another run of the engine: nothing is run twice."""

    def __init__(self, message: str, owner: str | None = None) -> None:
        super().__init__(message)
        self.owner = owner


class RunDamaged(RunError):
    """A file of a run is not what was written: it is empty, cut short or gone. The message names it."""


class FormatError(ScytheError):
    """Something was written by a later Scythe, in a format that this one does not understand."""


class OutputError(ScytheError):
    """What a function returned cannot be stored; the input becomes an error row."""


class FetchError(ScytheError):
    """A file reference cannot be fetched."""


class InputFileChanged(ScytheError):
    """An input file, which other inputs read too, was changed, moved or deleted while a function ran."""


class WorkerCrashed(ScytheError):
    """The process of a function died: a crash in native code, `os._exit`, or the system's memory killer."""


class InputTimeout(ScytheError):
    """A function ran longer than its `execution_timeout` and was killed."""


class SettingsError(ScytheError):
    """A setting has a value that makes no sense."""


__all__ = [
    "AllocationError",
    "CatalogError",
    "CommitConflict",
    "DataError",
    "FetchError",
    "FormatError",
    "InputError",
    "InputTimeout",
    "NotFoundError",
    "OutputError",
    "ReadError",
    "RegistrationError",
    "RunCancelled",
    "RunDamaged",
    "RunError",
    "SchemaError",
    "ScytheError",
    "SettingsError",
    "StorageError",
    "StorageRefused",
    "Superseded",
    "TableNotFound",
    "VersionError",
    "WorkerCrashed",
]
