"""Runs that are there: found by name, looked at, resumed, cancelled, deleted. Allocates nothing."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any, Literal, Self

from pydantic import BaseModel, PrivateAttr

from scythe import layout
from scythe.attempts import check_free, latest_attempt
from scythe.engines.jobs import FinishedRef, RunRef
from scythe.engines.start import attach, cancel, start
from scythe.errors import NotFoundError, RunError
from scythe.gather import all_parts, coverage_of
from scythe.layout import RunKey
from scythe.manifest import read_manifest
from scythe.parts import failed
from scythe.plan import RunPlan
from scythe.results import RunResult, read_result
from scythe.settings import engine_settings, storage
from scythe.source import find_experiment
from scythe.tables import catalog_of
from scythe.versions import SemVer, parse_folders
from scythe_catalog.objects import Objects

Status = Literal["allocated", "running", "incomplete", "finished", "cancelled"]


class ExperimentRun(BaseModel):
    """One run: which it is, where it lies, and what can be done with it."""

    experiment: str
    experiment_id: str
    version: str
    run_datetime: dt.datetime
    uri: str
    workflow_run_id: str | None
    inputs: int
    _objects: Objects = PrivateAttr()

    @property
    def key(self) -> RunKey:
        """Where the run lies below the root."""
        return RunKey(self.experiment, self.version, layout.folder_of(self.run_datetime))

    @property
    def objects(self) -> Objects:
        """The root of all experiments."""
        return self._objects

    def below(self, objects: Objects) -> Self:
        """The same run, found below this root."""
        self._objects = objects
        return self

    @property
    def status(self) -> Status:
        """`allocated`, `running`, `incomplete` (nobody works on it and something is missing), `finished` or `cancelled`."""
        return status_of(self._objects, self.key)

    @property
    def result(self) -> RunResult | None:
        """What the run came to, None while it is not finished."""
        return read_result(self._objects, self.key)

    def resume(self, *, engine: str | None = None, workers: int | None = None, module: str | None = None) -> RunRef:
        """Runs what has neither row nor error, then gathers; a finished run is left as it is.

        Raises:
            RunError: somebody works on it.
            NotFoundError: the function is not to be found: import the module that defines it first, or name it (`module`).
        """
        finished = self.result
        if finished is not None and not self._is_being_redone():
            return FinishedRef(finished)
        plan = RunPlan.load(self._objects, self.key)
        return self._start(plan, coverage_of(plan, all_parts(plan)).open_ranges(), engine, workers, module, show=True)

    def retry_errors(
        self, *, engine: str | None = None, workers: int | None = None, module: str | None = None
    ) -> RunRef:
        """Runs the inputs that failed once more (and what is open), then gathers anew.

        Raises:
            RunError: somebody works on it.
            NotFoundError: the function is not to be found: import the module that defines it first, or name it (`module`).
        """
        plan = RunPlan.load(self._objects, self.key)
        parts = all_parts(plan)
        coverage = coverage_of(plan, parts)
        for number, rows in enumerate(failed(self._objects, parts).values()):
            coverage.release(rows[coverage.owned(number, rows)])
        return self._start(plan, coverage.open_ranges(), engine, workers, module, show=False)

    def cancel(self) -> None:
        """Stops the run wherever it is worked on; what is finished stays, and `resume` goes on with it."""
        if self.status == "finished":
            raise RunError(f"the run {self.experiment_id} is finished: there is nothing to cancel")
        self._objects.write(self.key.cancelled, b"{}")
        cancel(RunPlan.load(self._objects, self.key))

    def delete(self) -> None:
        """Removes the run from the catalog, then its folder; the version's number is not used again.

        Raises:
            RunError: somebody works on it.
        """
        if self.status == "running":
            raise RunError(f"the run {self.experiment_id} is being worked on: cancel it first")
        catalog = catalog_of(self._objects, engine_settings().catalog)
        for name in catalog.tables(self.experiment):
            catalog.table(self.experiment, name).replace([], self.key.partition, forget=f"{self.key.path}/")
        self._objects.delete([self.key.manifest])  # first, so that a half-deleted run is no run
        self._objects.delete_folder(self.key.path)
        self._objects.delete_empty_folders(self.key.path)
        self._objects.delete([self.key.reservation])

    def _is_being_redone(self) -> bool:
        last = latest_attempt(self._objects, self.key)
        result = self.result
        return last is not None and result is not None and last.number > result.attempt

    def _start(
        self,
        plan: RunPlan,
        open_ranges: Sequence[tuple[int, int]],
        engine: str | None,
        workers: int | None,
        module: str | None,
        *,
        show: bool,
    ) -> RunRef:
        chosen = engine or plan.engine
        experiment = find_experiment(plan, module)
        going = attach(chosen, plan)
        if going is None:
            try:
                check_free(self._objects, self.key)
            except RunError:
                going = attach(chosen, plan)  # another client has started it since we looked
                if going is None:
                    raise
        if going is not None:
            return going
        self._objects.delete([self.key.cancelled])
        return start(
            plan, experiment, open_ranges, engine=chosen, workers=workers or engine_settings().workers, show=show
        )


def status_of(objects: Objects, key: RunKey) -> Status:
    """The status of a run, from what lies in its folder."""
    last = latest_attempt(objects, key)
    if last is not None and last.alive:
        return "running"
    if objects.exists(key.result):
        return "finished"
    if objects.exists(key.cancelled):
        return "cancelled"
    return "allocated" if last is None else "incomplete"


# --- looking things up ------------------------------------------------------------------------------


def experiment_names(objects: Objects) -> list[str]:
    """Names of the experiments of a root, sorted."""
    names = [n for n in objects.folders() if not n.startswith(("_", "."))]
    return [n for n in names if version_names(objects, n)]


def version_names(objects: Objects, experiment: str) -> list[SemVer]:
    """The versions of an experiment that have a folder, lowest first."""
    return parse_folders(objects.folders(experiment))


def run_folders(objects: Objects, experiment: str, version: str) -> list[str]:
    """The run folders of a version, oldest first; those without a manifest included."""
    return [n for n in objects.folders(f"{experiment}/{version}") if layout.is_run_folder(n)]


def name_of(experiment: Any) -> str:
    """The experiment's folder: of a name (with or without the task prefix), or of a registered function."""
    if isinstance(experiment, str):
        return experiment.removeprefix(layout.TASK_PREFIX)
    from scythe.registry import experiment_of

    return experiment_of(experiment).name


def resolve_version(objects: Objects, experiment: str, version: Any) -> str:
    """A version that is there, as its folder's name; None is the latest that has a run, if any has.

    Raises:
        NotFoundError: listing what is there.
    """
    versions = versions_of(objects, experiment)
    if version is None:
        return latest_of(objects, experiment, versions)
    wanted = SemVer.parse(version)
    if wanted not in versions:
        raise NotFoundError(f"{experiment!r} has no version {wanted}; it has {_listed(versions)}")
    return str(wanted)


def versions_of(objects: Objects, experiment: str) -> list[SemVer]:
    """The versions of an experiment that is there, lowest first.

    Raises:
        NotFoundError: listing the experiments that are there.
    """
    versions = version_names(objects, experiment)
    if not versions:
        raise NotFoundError(
            f"there is no experiment {experiment!r} in {objects.root}; there is {_listed(experiment_names(objects))}"
        )
    return versions


def latest_of(objects: Objects, experiment: str, versions: Sequence[SemVer]) -> str:
    """The highest of some versions that has a run, if any has: an allocation that was killed leaves one without."""
    for version in map(str, reversed(versions)):
        folders = run_folders(objects, experiment, version)
        if any(objects.exists(RunKey(experiment, version, folder).manifest) for folder in reversed(folders)):
            return version
    return str(versions[-1])


def resolve_run(objects: Objects, experiment: str, version: Any, run: Any) -> RunKey:
    """A run that is there; None is the version's latest, finished or not.

    Raises:
        NotFoundError: listing what is there.
    """
    named = resolve_version(objects, experiment, version)
    folders = run_folders(objects, experiment, named)
    if run is None:
        for folder in reversed(folders):
            key = RunKey(experiment, named, folder)
            if objects.exists(key.manifest):
                return key
        raise NotFoundError(f"{experiment} {named} has no run yet")
    folder = folder_name(run)
    key = RunKey(experiment, named, folder)
    if folder not in folders or not objects.exists(key.manifest):
        raise NotFoundError(f"{experiment} {named} has no run {folder}; it has {_listed(folders)}")
    return key


def folder_name(run: Any) -> str:
    """A run's folder, of its name, its datetime or an ExperimentRun."""
    if isinstance(run, ExperimentRun):
        return run.key.folder
    if isinstance(run, dt.datetime):
        return layout.folder_of(run if run.tzinfo else run.replace(tzinfo=dt.UTC))
    return str(run).rstrip("/").rsplit("/", 1)[-1]


def _listed(names: Sequence[object]) -> str:
    shown = [str(n) for n in names[-20:]]
    return ("… " if len(names) > 20 else "") + (", ".join(shown) or "nothing")


def load_run(objects: Objects, key: RunKey) -> ExperimentRun:
    """The run of a key; raises NotFoundError where it has no manifest."""
    try:
        manifest = read_manifest(objects, key)
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no run {key.path} in {objects.root}") from error
    run = ExperimentRun(
        experiment=key.experiment,
        experiment_id=key.path,
        version=key.version,
        run_datetime=key.moment,
        uri=objects.uri(key.path),
        workflow_run_id=manifest.get("workflow_run_id"),
        inputs=manifest.get("inputs", 0),
    )
    return run.below(objects)


def open_run(experiment: Any, version: Any = None, run: Any = None) -> ExperimentRun:
    """A run by its name: the latest of the latest version, unless told otherwise.

    Args:
        experiment: A name, a registered function, or a whole `experiment/version/datetime`.
        version: As text or SemVer; None is the latest.
        run: Its folder's name or its datetime; None is the version's latest, finished or not.

    Raises:
        NotFoundError: it is not there; the message lists what is.
    """
    if isinstance(experiment, str) and version is None and run is None and experiment.count("/") >= 1:
        experiment, version, run = [*experiment.strip("/").split("/"), None][:3]
    objects = storage()
    return load_run(objects, resolve_run(objects, name_of(experiment), version, run))


__all__ = ["ExperimentRun", "Status", "load_run", "open_run", "status_of"]
