"""A run, and what can be done with it: it is looked at, resumed, cancelled, deleted. Allocates nothing."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, PrivateAttr

from scythe.engines.card import run_html
from scythe.engines.engine import RunRef
from scythe.engines.options import EngineName, EngineOptions
from scythe.engines.start import engine_of
from scythe.errors import NotFoundError, RunError
from scythe.gather.status import look_at
from scythe.record import layout
from scythe.record.attempts import ask_to_cancel
from scythe.record.history import RunAttempt, attempts_on
from scythe.record.layout import RunKey
from scythe.record.plan import UNSET, MaxErrors, RunPlan, Unset
from scythe.record.results import RunResult, read_result
from scythe.runs.deletion import delete_run
from scythe.runs.going_on import GoOn, joined, queued, resumed, retried
from scythe.terminal.cards import own_names
from scythe_catalog.storage.objects import Objects

if TYPE_CHECKING:  # Jedi, which completes names in notebooks, cannot read a property that gives a Literal
    from scythe.gather.status import Status

_INNER = frozenset({"below", "objects"})  # what is there for other modules


class ExperimentRun(BaseModel):
    """One run: which it is, where it lies, and what can be done with it. `allocate` and `scythe.open_run` give it.

    Attributes:
        experiment: Folder of the experiment.
        experiment_id: The run's whole name, `experiment/version/datetime`.
        version: As `v1.2.3`.
        run_datetime: Its start, in UTC.
        uri: Its folder.
        workflow_run_id: Its identifier, as in the manifest; None where that does not tell.
        inputs: How many inputs it has; 0 where its manifest does not tell.
        note: What was said about it when it was allocated; None where nothing was.
        tags: The words that it was allocated with, to be found by.

    Examples:
        >>> run = scythe.open_run("simulate_energy")
        >>> run.version, run.inputs, run.status
        ('v1.0.0', 3, 'finished')
    """

    experiment: str
    experiment_id: str
    version: str
    run_datetime: dt.datetime
    uri: str
    workflow_run_id: str | None
    inputs: int
    note: str | None = None
    tags: list[str] = []
    _objects: Objects = PrivateAttr()

    def __repr__(self) -> str:
        return f"<ExperimentRun {self.experiment_id}: {self.inputs:,} inputs>"

    __str__ = __repr__

    @property
    def key(self) -> RunKey:
        """Where the run lies below the root.

        Examples:
            >>> run = scythe.open_run("simulate_energy")
            >>> run.key.path == run.experiment_id
            True
        """
        return RunKey(self.experiment, self.version, layout.folder_of(self.run_datetime))

    @property
    def objects(self) -> Objects:
        """The root of all experiments.

        Examples:
            >>> run = scythe.open_run("simulate_energy")
            >>> run.objects.uri(run.key.path) == run.uri
            True
        """
        return self._objects

    def below(self, objects: Objects) -> Self:
        """The same run, found below this root.

        Args:
            objects: The root of all experiments.

        Examples:
            >>> run = scythe.open_run("simulate_energy")
            >>> run.below(run.objects) is run
            True
        """
        self._objects = objects
        return self

    @property
    def status(self) -> Status:
        """What it has come to, looked up now: one of these.

        - `allocated`: stored, and nothing works on it yet.
        - `running`: a process works on it.
        - `incomplete`: nobody works on it and something is missing; `resume` goes on with it.
        - `finished`: every input has a row or an error, and the final files are there.
        - `cancelled`: somebody called `cancel`.
        - `damaged`: a file of it is empty, cut short or gone, or of a later Scythe; `problem` names it.
        - `allocating`: its allocation is under way, or was cut short.
        - `deleted`: it is not there any more.

        Raises:
            StorageError: the root cannot be reached.

        Examples:
            >>> scythe.open_run("simulate_energy").status
            'finished'
        """
        return look_at(self._objects, self.key).status

    @property
    def attempts(self) -> list[RunAttempt]:
        """The attempts on the run, the first one first: who worked on it, when, and with which code.

        `tasks` names the attempt of each input, so that it can be told which rows came from which code.

        Returns:
            One for each start, `resume` and `retry_errors`, with `number`, `engine`, `host`, `pid`, `began` and `provenance`.

        Raises:
            RunDamaged: a record of one is none any more.
            StorageError: the root cannot be reached.

        Examples:
            >>> [(attempt.number, attempt.engine) for attempt in scythe.open_run("simulate_energy").attempts]
            [(1, 'inline')]
        """
        return attempts_on(self._objects, self.key)

    @property
    def problem(self) -> str | None:
        """What is wrong with the run and which file it is about, None where nothing is. Failed inputs alone are no problem.

        Raises:
            StorageError: the root cannot be reached.

        Examples:
            >>> scythe.open_run("simulate_energy").problem is None
            True
        """
        return look_at(self._objects, self.key).problem

    @property
    def result(self) -> RunResult | None:
        """What the run came to, None while it is not finished.

        Raises:
            RunDamaged: its result was damaged.
            FormatError: it was written by a later Scythe.
            StorageError: the root cannot be reached.

        Examples:
            >>> scythe.open_run("simulate_energy").result.rows
            3
        """
        return read_result(self._objects, self.key)

    @property
    def outlook(self) -> str | None:
        """Why nothing of it goes on, as far as its cluster says; None where nothing is known to be wrong.

        Returns:
            A sentence: that there is no worker, what its jobs wait for in the queue, how they failed. None of runs of this
            machine, and on Hatchet where `HATCHET_CLIENT_TOKEN` is not set.

        Raises:
            NotFoundError: it was deleted.
            RunDamaged: its record is damaged.
            StorageError: the root cannot be reached.

        Examples:
            >>> scythe.open_run("simulate_energy").outlook is None
            True
        """
        plan = RunPlan.load(self._objects, self.key)
        return engine_of(plan).outlook(plan)

    def resume(
        self,
        *,
        engine: EngineName | str | EngineOptions | None = None,
        workers: int | None = None,
        module: str | None = None,
        max_errors: MaxErrors | Unset = UNSET,
    ) -> RunRef:
        """Runs what has neither row nor error, then gathers; a finished run is left as it is.

        Args:
            engine: The name of one, or its options; the one it was allocated with if not given.
            workers: Processes of the local engine; `SCYTHE_WORKERS`, else all cores, if not given.
            module: Where the function is defined (`package.module` or `file.py`, with `:name` where you like), if it is
                neither registered here nor found below the working folder.
            max_errors: How many inputs may fail until it stops, as `allocate` takes it; as it was allocated if not given.

        Returns:
            A reference to its result, as `allocate` gives one; on a cluster, to what goes on there already.

        Raises:
            RunError: somebody works on it, or its download to this root has come to no end.
            NotFoundError: the function is not to be found: import the module that defines it first, or name it (`module`).
                Or the run was deleted.
            RunDamaged: a file of it is damaged.
            SettingsError: there is no such engine, or it cannot be reached.
            VersionError: the models have changed since the run was allocated.
            Exception: with `engine="inline"`, the first that the function raises.

        Examples:
            >>> run = scythe.open_run("simulate_energy")
            >>> run.resume().result().rows
            3
        """
        self._is_there()
        return resumed(self._objects, self.key, GoOn(engine, workers, module, max_errors))

    def retry_errors(
        self,
        *,
        engine: EngineName | str | EngineOptions | None = None,
        workers: int | None = None,
        module: str | None = None,
        max_errors: MaxErrors | Unset = UNSET,
    ) -> RunRef:
        """Runs the inputs that failed once more (and what is open), then gathers anew. Rows that are there stay as they are.

        Args:
            engine: As for `resume`.
            workers: As for `resume`.
            module: As for `resume`.
            max_errors: As for `resume`.

        Returns:
            A reference to its result, as `allocate` gives one; on a cluster, to what goes on there already.

        Raises:
            RunError: somebody works on it, or its download to this root has come to no end.
            NotFoundError: the function is not to be found (see `resume`), or the run was deleted.
            RunDamaged: a file of it is damaged.
            SettingsError: there is no such engine, or it cannot be reached.
            VersionError: the models have changed since the run was allocated.
            Exception: with `engine="inline"`, the first that the function raises.

        Examples:
            >>> run = scythe.open_run("simulate_energy")
            >>> run.retry_errors().result().errors
            0
        """
        self._is_there()
        return retried(self._objects, self.key, GoOn(engine, workers, module, max_errors))

    def wait(self, timeout: float | None = None) -> RunResult:
        """Waits for the run, wherever it is worked on, and gives its result; starts nothing.

        Args:
            timeout: Wait at most so long [s]; None for as long as it takes.

        Raises:
            RunError: nobody works on it, or it comes to no end.
            RunCancelled: it was cancelled.
            TimeoutError: it is not finished yet; it goes on.

        Examples:
            >>> scythe.open_run("simulate_energy").wait().rows
            3
        """
        self._is_there()
        return joined(self._objects, self.key).result(timeout)

    def cancel(self) -> None:
        """Stops the run wherever it is worked on; what is finished stays, and `resume` goes on with it.

        Raises:
            RunError: it is finished.
            NotFoundError: it was deleted.
            RunDamaged: a file of it is damaged.
            StorageError: the root cannot be reached.

        Examples:
            >>> scythe.open_run("simulate_energy").cancel()
            Traceback (most recent call last):
            scythe.errors.RunError: the run simulate_energy/... is finished: there is nothing to cancel
        """
        self._is_there()
        if self.status == "finished" and (ended := self.result) and not queued(self._objects, self.key, ended.attempt):
            raise RunError(f"the run {self.experiment_id} is finished: there is nothing to cancel")
        plan = RunPlan.load(self._objects, self.key)
        ask_to_cancel(self._objects, self.key)
        engine_of(plan).cancel(plan)

    def delete(self, *, dependants: bool = False) -> None:
        """Removes the run from the catalog, then its folder. Its name is never given to another run.

        Half an allocation that was cut short, and what is left of a run whose folder was removed, are removed, too.

        Args:
            dependants: Delete the runs, too, that have reused rows of it and name output files in its folder.

        Raises:
            RunError: somebody works on it (cancel it first), or other runs name its output files.
            NotFoundError: it was deleted already.
            StorageError: the root cannot be reached.

        Examples:
            >>> run = scythe.open_run("simulate_energy")
            >>> run.delete()
            >>> run.status
            'deleted'
        """
        delete_run(self._objects, self.key, dependants=dependants)

    def extend(
        self,
        specs: Any,
        *,
        engine: EngineName | str | EngineOptions | None = None,
        workers: int | None = None,
        any_code: bool = False,
        reuse_errors: bool = False,
        note: str | None = None,
        tags: Sequence[str] = (),
    ) -> tuple[ExperimentRun, RunRef]:
        """A new run of the same version with the inputs of this one and those of `specs` that are not among them.

        What is known is taken over, as by `allocate(reuse=True)`: only the rest is run. This run stays as it is.

        Args:
            specs: As for `allocate`.
            engine: The name of one, or its options; also `SCYTHE_ENGINE`.
            workers: Processes of the local engine; `SCYTHE_WORKERS`, else all cores, if not given.
            any_code: Take over rows of other code, too.
            reuse_errors: Take over the errors of inputs that failed, rather than run these again.
            note: A sentence for people.
            tags: Words to find the new run by.

        Returns:
            The new run, whose inputs begin with this one's, and a reference to its result.

        Raises:
            InputError: inputs that do not fit; nothing was written.
            VersionError: the models have changed since this run's version.
            NotFoundError: the function is not to be found: import the module that defines it first. Or the run was deleted.
            AllocationError: as for `allocate`; also where rows are known from other code alone.

        Examples:
            >>> run = scythe.open_run("simulate_energy")
            >>> larger, ref = run.extend(pl.DataFrame({"r_value": [12.0]}))
            >>> ref.result().rows, run.inputs
            (4, 3)
        """
        self._is_there()
        allocate = import_module("scythe.allocate.extending")  # a room above this one, as engines are
        return allocate.extended(
            RunPlan.load(self._objects, self.key), specs, engine=engine, workers=workers, any_code=any_code,
            reuse_errors=reuse_errors, note=note, tags=tags,
        )  # fmt: skip

    def __dir__(self) -> list[str]:
        return [name for name in own_names(super().__dir__()) if name not in _INNER]

    def _repr_html_(self) -> str:
        return run_html(self._objects, self.key)

    def _is_there(self) -> None:
        """Nothing where the run has a manifest; NotFoundError where it was deleted, or never allocated whole."""
        if not self._objects.exists(self.key.manifest):
            look = look_at(self._objects, self.key)
            raise NotFoundError(f"there is no run {self.experiment_id}: {look.problem or 'it was deleted'}")
