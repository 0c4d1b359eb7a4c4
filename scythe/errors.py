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
    """A function, a model or a name cannot become an experiment.

    Raised by `ExperimentRegistry.Register` and `Include`, when the module is imported. Correct the annotation, rename the field, or
    give another name with `Register(name=...)`: the message says which.

    Examples:
        >>> from scythe import ExperimentRegistry
        >>> @ExperimentRegistry.Register(name="heat/loss")
        ... def heat_loss(input_spec: BuildingInput) -> BuildingOutput: ...
        Traceback (most recent call last):
        scythe.errors.RegistrationError: 'heat/loss' cannot be the name of an experiment: use the letters ...
    """


class AllocationError(ScytheError):
    """A run cannot be allocated; nothing was started.

    Raised by `allocate`: the root cannot be written, an argument makes no sense, no worker of the cluster has the experiment, or the
    function cannot be sent to other processes. Mend what the message names, then allocate again.
    """


class InputError(AllocationError, DataError):
    """The inputs of an allocation are not acceptable; nothing was written.

    Raised by `allocate`: no specs, another model, a column that is missing, unknown or mistyped, a value out of bounds, a file that
    is missing. The message names column, rule and the first ten rows, for all problems at once. It is an `AllocationError` and a
    `DataError`.

    Attributes:
        problems: One for each rule that values break, with `column`, `rule` and `rows`; may be empty.

    Examples:
        >>> from scythe import BaseExperiment
        >>> BaseExperiment(simulate_energy).allocate(pl.DataFrame({"r_value": [2.0, 40.0]}))
        Traceback (most recent call last):
        scythe.errors.InputError: BuildingInput: 1 problem with the values
          r_value: must be <= 15, got 40.0 (1 row: 1)
    """

    def __init__(self, message: str, problems: tuple[object, ...] = ()) -> None:
        DataError.__init__(self, message, problems)


class VersionError(AllocationError):
    """A version is malformed, or too small a step for what changed in the schema.

    Raised by `allocate`, and wherever a version is named. Write it as v1.2.3; allocate with the step that the message names, or with
    `version="auto"`.

    Examples:
        >>> scythe.read("simulate_energy", "one")
        Traceback (most recent call last):
        scythe.errors.VersionError: 'one' is not a semantic version: write it as v1.2.3. ...
    """


class NotFoundError(ScytheError, LookupError):
    """An experiment, version, run, table or column that is not there; the message lists what is. It is a `LookupError`, too.

    Raised wherever one is named. Name one of those that are listed; look whether `SCYTHE_STORAGE_ROOT` or `SCYTHE_STORAGE_BUCKET`
    is what you mean; import the module that registers the experiment.

    Examples:
        >>> scythe.read("simulate_energy", columns=["heatin"])
        Traceback (most recent call last):
        scythe.errors.NotFoundError: ... has no column 'heatin' (did you mean 'heating'?); it has ...
    """


class ReadError(ScytheError):
    """What is asked for makes no sense: a column twice, a single name in place of a list.

    Raised by `scythe.read` and `scythe.scan`. Give `columns` as a list of names, each once.

    Examples:
        >>> scythe.read("simulate_energy", columns="heating")
        Traceback (most recent call last):
        scythe.errors.ReadError: columns='heating' is one name: give a list of names, ['heating']
    """


class ReportError(ScytheError):
    """A report cannot be made.

    Raised by `scythe.report`: what draws it is not installed (`pip install matplotlib`), it is asked for of no run or of
    more than two, or its file cannot be written. The message says which.

    Examples:
        >>> scythe.report()
        Traceback (most recent call last):
        scythe.errors.ReportError: a report is of one run, or of 2 side by side, not of 0: name one or two
    """


class TransferError(ScytheError):
    """A run cannot be downloaded or uploaded as it was asked.

    Raised by `scythe.download` and `scythe.upload`: a file of the source was changed, cut short or removed meanwhile, the place that it
    is to go to has another content under the same name, or another process is at it. The message names the file or the run. What has
    arrived stays: do the same again, once what the message names is mended.

    Examples:
        >>> scythe.download("simulate_energy", "s3://lab/energy")
        Traceback (most recent call last):
        scythe.errors.TransferError: s3://lab/energy is no folder: download to one, then upload that
    """


class RunError(ScytheError):
    """A run could not be finished, or cannot be done to what was asked.

    Raised by `ref.result()`, and by `resume`, `retry_errors`, `cancel`, `delete` and `scythe.rows`. What is finished stays: mend what the
    message names, then `resume`. Where somebody works on the run, wait for it or cancel it.

    Examples:
        >>> scythe.open_run("simulate_energy").cancel()
        Traceback (most recent call last):
        scythe.errors.RunError: the run simulate_energy/... is finished: there is nothing to cancel
    """


class RunCancelled(RunError):
    """The run was cancelled.

    Raised by `ref.result()`, and by `allocate` and `resume` with `engine="inline"`. What is finished stays; `resume` goes on with the rest.
    """


class Superseded(RunError):
    """An attempt on a run belongs to another process, or to another run of the engine: nothing is run twice.

    Raised where a process stood still (a suspended machine) until another took up its run, or until the run was deleted. The other goes
    on: open the run and wait for it.

    Attributes:
        owner: The run of the engine that has the attempt; None where that is not known.
    """

    def __init__(self, message: str, owner: str | None = None) -> None:
        super().__init__(message)
        self.owner = owner


class TooManyErrors(RunError):
    """More inputs failed than the run may have.

    Raised by `ref.result()`: `allocate(max_errors=...)` says how many; by default the run stops where the first 20 inputs that
    finish all fail alike. What is finished is kept. Mend the cause, then `scythe resume NAME --errors`; or go on as it is with
    `run.resume(max_errors=None)`.
    """


class RunDamaged(RunError):
    """A file of a run is not what was written: it is empty, cut short or gone. The message names it.

    Raised by whatever reads the run; other runs can be read as ever. Put the file back from a copy, or delete the run
    (`scythe delete`) and allocate it again.
    """


class FormatError(ScytheError):
    """Something was written by a later Scythe, in a format that this one does not understand.

    Raised by whatever reads it. Upgrade Scythe here:
    `pip install -U "scythe-engine @ git+https://github.com/szvsw/scythe"`.
    """


class OutputError(ScytheError):
    """What a function returned cannot be stored; the input becomes an error row.

    It is the `exception_type` of that row: another model, an output file that does not exist, a dataframe that does not stand in one table
    with those of the other inputs. Mend the function, then `retry_errors`.
    """


class FetchError(ScytheError):
    """A file reference cannot be fetched.

    Raised by `spec.fetch_uri` and by an item of `FileRefs`; in a run, the `exception_type` of that input's error row. Look whether the file
    is there and may be read from this machine, then `retry_errors`.

    Examples:
        >>> spec = BuildingInput(r_value=2)
        >>> spec.fetch_uri("boston.csv")
        Traceback (most recent call last):
        scythe.errors.FetchError: the file boston.csv does not exist
    """


class InputFileChanged(ScytheError):
    """An input file, which other inputs read too, was changed, moved or deleted while a function ran.

    It is the `exception_type` of that input's error row; the file is brought back. Let the function change a copy of its own:
    `Register(local_file_location="copied-to-tempdir")`.
    """


class WorkerCrashed(ScytheError):
    """The process of a function died: a crash in native code, `os._exit`, or the system's memory killer; or its whole worker with it.

    It is the `exception_type` of that input's error row, after its retries; the message has the exit code or the signal. Use fewer workers where
    memory ran out, `Register(max_inputs_per_process=...)` where it leaks; then `retry_errors`.
    """


class InputTimeout(ScytheError):
    """A function ran longer than its `execution_timeout` and was killed.

    It is the `exception_type` of that input's error row, after its retries. Allow more time with `Register(execution_timeout=...)`, then
    `retry_errors`.
    """


class ForkError(ScytheError):
    """This process was forked from one in which threads of Polars or of the S3 client ran; they do not survive that, and reading would wait for ever.

    Raised where a file is asked for in such a process: a worker of PyTorch's DataLoader, say. Start workers otherwise
    (`multiprocessing_context="forkserver"`), or read with `num_workers=0`: batches are read ahead by threads.
    """


class StateError(ScytheError):
    """What was saved of a training loop belongs to another dataset, seed or size of batches.

    Raised by `batches.resume(state)` and for `normalize=`. Make the dataset as it was made then: the same `where`, split and groups.

    Examples:
        >>> import scythe
        >>> ds = scythe.dataset("simulate_energy", x=["r_value"])
        >>> state = ds.batches(2, seed=1).state(0, 1)
        >>> ds.batches(2, seed=2).resume(state)
        Traceback (most recent call last):
        scythe.errors.StateError: the state is of seed=1, these batches have seed=2
    """


class SettingsError(ScytheError):
    """A setting has a value that makes no sense, or an engine that it names cannot be used.

    Raised when the setting is used. The message has the name of the environment variable, as a rule: set it, and do the same again.

    Examples:
        >>> from scythe import BaseExperiment
        >>> BaseExperiment(simulate_energy).allocate(pl.DataFrame({"r_value": [2.0]}), engine="ray")
        Traceback (most recent call last):
        scythe.errors.SettingsError: there is no engine 'ray': use 'inline' or 'local' or 'hatchet' or 'slurm'
    """


__all__ = [
    "AllocationError",
    "CatalogError",
    "CommitConflict",
    "DataError",
    "FetchError",
    "ForkError",
    "FormatError",
    "InputError",
    "InputTimeout",
    "NotFoundError",
    "OutputError",
    "ReadError",
    "RegistrationError",
    "ReportError",
    "RunCancelled",
    "RunDamaged",
    "RunError",
    "SchemaError",
    "ScytheError",
    "SettingsError",
    "StateError",
    "StorageError",
    "StorageRefused",
    "Superseded",
    "TableNotFound",
    "TooManyErrors",
    "TransferError",
    "VersionError",
    "WorkerCrashed",
]
