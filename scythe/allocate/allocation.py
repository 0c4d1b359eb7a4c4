"""One allocation, once its arguments are checked: a version and a folder are reserved, the run is stored whole, and started."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any

from scythe.allocate.growing import Growing, Reuse, version_of
from scythe.allocate.keyed import Keyed
from scythe.allocate.store import Request, store_run
from scythe.allocate.version import reserve_version, version_for_reuse
from scythe.engines.engine import Launch, RunRef
from scythe.engines.start import start
from scythe.engines.watched import WatchedRef
from scythe.errors import AllocationError, RunError, StorageError, Superseded, VersionError
from scythe.record.attempts import latest_attempt
from scythe.record.layout import RunKey
from scythe.record.manifest import label_of, manifest_told
from scythe.record.plan import RunPlan
from scythe.record.provenance import Provenance
from scythe.record.reserve import reserve_folder, sweep, undo
from scythe.record.versions import SemVer, TooSmallStep, VersioningStrategy, may_be_made_by
from scythe.reuse.answers import Answers
from scythe.runs.open import load_run
from scythe.runs.run import ExperimentRun
from scythe.terminal.console import tell
from scythe_catalog.errors import CatalogAway
from scythe_catalog.storage.objects import Objects, reason


def allocated(
    asked: Request,
    objects: Objects,
    version: VersioningStrategy | str | SemVer | None,
    *,
    workers: int | None,
    reuse: Reuse,
) -> tuple[ExperimentRun, RunRef]:
    """Stores a run and starts it; with `reuse` one that was begun with the same inputs goes on, where there is one, and
    with a key the one that has it.

    Raises:
        VersionError: a version that is malformed, or too small a step.
        AllocationError: the root cannot be written, or rows are known from other code alone.
    """
    wanted = version_of(version, reuse=reuse.wanted)
    keyed = Keyed(objects, asked.name, asked.key) if asked.key is not None else None
    with _writable(objects):
        while True:
            if keyed is not None and (begun := keyed.begun(asked, wanted)) is not None:
                return _gone_on_with(load_run(objects, begun), asked, workers, version)
            stored = _stored(asked, objects, wanted, reuse, keyed)
            if isinstance(stored, ExperimentRun):
                return _gone_on_with(stored, asked, workers)
            if stored is not None:
                break
    plan, made_by, answers, same = stored
    run = load_run(objects, plan.key)
    if version is None and same is not None:  # which a new major version follows, if nothing is said
        tell(
            f'{asked.name} {plan.key.version}: the models are those of {same}, to which version="keep" adds runs; '
            'version="bumpmajor" says that a new version is meant'
        )
    still_open = answers.open_ranges(plan.inputs) if answers is not None else [(0, plan.inputs)]
    work = Launch(plan, asked.experiment, still_open, asked.code, made_by, workers=workers)
    if keyed is None and answers is None:
        ref = start(asked.engine, work)
    elif latest_attempt(objects, plan.key) is not None:  # another caller found it before it was started
        return _gone_on_with(run, asked, workers)
    else:
        ref = _shared(run, asked, workers, lambda: start(asked.engine, work))
    run.workflow_run_id = ref.workflow_run_id
    return run, ref


def _gone_on_with(
    run: ExperimentRun,
    asked: Request,
    workers: int | None,
    version: VersioningStrategy | str | SemVer | None = None,
) -> tuple[ExperimentRun, RunRef]:
    note, tags = label_of(manifest_told(run.objects, run.key))
    asked_for = {"note": (asked.note, note), "tags": (list(asked.tags), tags)}
    lost = [f"{what}={given!r}" for what, (given, kept) in asked_for.items() if given and given != kept]
    which = "note and tags"
    if isinstance(version, str) and not may_be_made_by(version, SemVer.parse(run.key.version)):
        lost, which = [f"version={version!r}", *lost], "version, note and tags"
    if lost:
        tell(f"{run.key.path} is there already, and goes on with the {which} it has, not with {' and '.join(lost)}")
    return run, _shared(run, asked, workers)


def _shared(
    run: ExperimentRun, asked: Request, workers: int | None, begin: Callable[[], RunRef] | None = None
) -> RunRef:
    """The reference to what is begun; where another process works on the run, or has just ended it, to that.

    That one goes on with the run here where the other process dies.
    """
    options = asked.engine.options or asked.engine.engine.name
    begin = begin or (lambda: run.resume(engine=options, workers=workers, max_errors=asked.max_errors))
    try:
        return begin()
    except Superseded:
        raise
    except RunError:
        if not _goes_on_elsewhere(run):
            raise
        return WatchedRef(RunPlan.load(run.objects, run.key), lambda: _shared(run, asked, workers))


def _goes_on_elsewhere(run: ExperimentRun) -> bool:
    with suppress(StorageError):  # what broke the run says more than that it cannot be looked at
        return run.status in ("running", "finished")
    return False


def _stored(
    asked: Request,
    objects: Objects,
    wanted: VersioningStrategy | str | SemVer,
    reuse: Reuse,
    keyed: Keyed | None,
) -> tuple[RunPlan, Provenance, Answers | None, SemVer | None] | ExperimentRun | None:
    """A run that is stored whole, what was recorded of that, what it has of others, and the version before it with the same models; or the one that was begun. None where another has taken the key."""
    try:
        version, renames, same = reserve_version(objects, asked.name, asked.experiment.schemas, wanted, asked.renames)
    except TooSmallStep as error:
        if not reuse.wanted:
            raise VersionError(str(error)) from None
        way = version_for_reuse(objects, asked.name, asked.experiment.schemas, asked.renames)
        raise VersionError(f"{error.told}\n{way}") from None
    answers: Answers | None = None
    if reuse.wanted:
        growing = Growing(asked, objects, version, reuse)
        if keyed is None and (begun := growing.begun()) is not None:
            return begun
        answers = growing.answers()
    try:
        with _folder(objects, asked.name, version) as key:
            if keyed is not None and not keyed.take(key):
                raise _TakenError
            objects.sweep_staging()
            sweep(objects, key)
            plan, made_by = store_run(asked, objects, key, renames, answers)
            if keyed is not None and not keyed.is_mine:
                raise _TakenError
            return plan, made_by, answers, same
    except _TakenError:
        return None


class _TakenError(Exception):
    """Another run has the key."""


@contextmanager
def _folder(objects: Objects, name: str, version: SemVer) -> Generator[RunKey]:
    """A run folder that nobody else gets; given back where the allocation fails."""
    key = reserve_folder(objects, name, str(version))
    try:
        yield key
    except BaseException:
        with suppress(StorageError):  # what broke the allocation says more than that it cannot be undone
            undo(objects, key)
        raise


@contextmanager
def _writable(objects: Objects) -> Generator[None]:
    from obstore.exceptions import BaseError

    try:
        yield
    except CatalogAway as error:
        raise AllocationError(f"{error}: nothing was started") from None
    except StorageError as error:
        raise AllocationError(_unwritable(objects, str(error))) from None
    except (OSError, BaseError) as error:
        raise AllocationError(_unwritable(objects, reason(error))) from None


def _unwritable(objects: Objects, told: str) -> str:
    """That a root cannot be written, once, and the setting that names another."""
    if objects.folder is None:
        return told if objects.root in told else f"the root {objects.root} cannot be written: {told}"
    told = told if "cannot be written" in told else f"the root {objects.folder} cannot be written: {told}"
    return f"{told}. SCYTHE_STORAGE_ROOT names another root"


def use_client(objects: Objects, client: Any) -> None:
    """Reaches the root's bucket with a client of boto3 from now on.

    Raises:
        AllocationError: it is none.
    """
    from scythe_catalog.storage.reach import use_client as reach_with

    try:
        reach_with(objects.root, client)
    except TypeError as error:
        raise AllocationError(f"s3_client must be a client as boto3.client('s3') makes it; {error}") from error
    except StorageError as error:
        raise AllocationError(str(error)) from error


__all__ = ["allocated", "use_client"]
