"""What a run has come to, from what lies in its folder: its status, its result, and what is wrong with it. Writes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from scythe.errors import FormatError, NotFoundError, RunDamaged
from scythe.gather.run_files import counts
from scythe.record.attempt_plan import last_attempt_planned, load_attempt_plan, load_failure, progress_of
from scythe.record.attempts import Attempt, latest_attempt
from scythe.record.find import reserved
from scythe.record.layout import RunKey
from scythe.record.manifest import read_manifest
from scythe.record.plan import RunPlan
from scythe.record.results import RunResult, check_not_lost, read_result
from scythe_catalog.storage.objects import Objects

Status = Literal["allocating", "allocated", "running", "incomplete", "finished", "cancelled", "deleted", "damaged"]


@dataclass(frozen=True)
class Look:
    """A run at one moment."""

    status: Status
    result: RunResult | None = None
    #: What is wrong with it, where something is.
    problem: str | None = None
    #: Its manifest, where that has been read.
    manifest: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Counts:
    """How far a run is; None where that cannot be told any more."""

    inputs: int | None = None
    rows: int | None = None
    errors: int | None = None
    seconds: float | None = None


def status_of(objects: Objects, key: RunKey) -> Status:
    """The status of a run, from what lies in its folder."""
    return look_at(objects, key).status


def look_at(objects: Objects, key: RunKey) -> Look:
    """The status of a run, and what goes with it; nothing that lies in its folder makes this raise."""
    try:
        last = latest_attempt(objects, key)
        if last is not None and last.alive:
            return Look("running")
        result, damage = read_result(objects, key), None
        try:
            manifest = read_manifest(objects, key)
        except FileNotFoundError:  # it goes first where a run is deleted
            return _without_manifest(objects, key)
        except RunDamaged as error:
            if result is None:
                raise
            manifest, damage = {}, str(error)  # its rows can be read; its note, tags and key are lost
        if result is not None:
            return Look("finished", result, damage, manifest)
        check_not_lost(objects, key)
        RunPlan.load(objects, key)
        if objects.exists(key.cancelled):
            return Look("cancelled", manifest=manifest)
        problem = _failure(objects, key, last)  # also of jobs that could not begin
        begun = last is not None or problem is not None
        return Look("incomplete" if begun else "allocated", problem=problem, manifest=manifest)
    except (RunDamaged, FormatError, NotFoundError) as error:
        return Look("damaged", problem=str(error))


def _failure(objects: Objects, key: RunKey, last: Attempt | None) -> str | None:
    """Why the newest attempt came to no end, or to no beginning, where it was a cluster's and that is known."""
    planned = last_attempt_planned(objects, key)
    if not planned:
        return None
    if last is not None and last.number >= planned:
        plan = load_attempt_plan(objects, key, planned)
        if (last.number, last.engine) != (planned, plan.engine):  # what kept that one from its end is over
            return None
    return load_failure(objects, key)


def _without_manifest(objects: Objects, key: RunKey) -> Look:
    """What it is that has no manifest: half an allocation, half a deletion, or what is left of a run."""
    found = reserved(objects, key.experiment, key.version)
    if key in found.deleted:
        return Look("deleted")
    if key in found.half:
        return Look(
            "allocating",
            problem=f"{key.path} is being allocated, or its allocation was cut short (`scythe delete {key.path}` clears up behind it)",
        )
    if key not in found.taken and not objects.found(key.path):
        return Look("deleted")
    if objects.exists(key.arrived) and not objects.exists(key.arrivals_ended):
        return Look(
            "damaged", problem=f"{key.path} is not here yet: its download goes on, or was cut short; call it again"
        )
    return Look(
        "damaged", problem=f"{objects.uri(key.manifest)} is gone: `scythe delete {key.path}` clears up behind it"
    )


def check_manifest(objects: Objects, key: RunKey) -> None:
    """Nothing where a run has its manifest, or is none: half an allocation, half a deletion.

    Raises:
        RunDamaged: it has lost it.
    """
    if not objects.exists(key.manifest) and (look := _without_manifest(objects, key)).status == "damaged":
        raise RunDamaged(str(look.problem))


def check_unfinished(objects: Objects, key: RunKey) -> None:
    """Nothing where a run that has no result, or no manifest, is one that has not ended, or none.

    Raises:
        RunDamaged: it has lost its manifest, or its result.
    """
    check_manifest(objects, key)
    check_not_lost(objects, key)


def counts_of(objects: Objects, key: RunKey, look: Look) -> tuple[Look, Counts]:
    """How far a run is; and the look at it once more, where counting found it damaged."""
    if look.status in ("allocating", "damaged", "deleted"):
        return look, Counts()
    try:
        try:
            return look, _counted(objects, key, look)
        except FileNotFoundError:  # a run that ends while it is looked at: its parts are in its result now
            return look, _counted(objects, key, look)
    except (RunDamaged, FormatError, NotFoundError, FileNotFoundError) as error:
        return Look("damaged", problem=str(error)), Counts()


def _counted(objects: Objects, key: RunKey, look: Look) -> Counts:
    result = look.result or read_result(objects, key)
    if result is not None:
        return Counts(result.inputs, result.rows, result.errors, result.seconds)
    inputs = read_manifest(objects, key).get("inputs", 0)
    rows, errors = counts(RunPlan.load(objects, key))
    told = progress_of(objects, key, inputs)  # what a cluster's nodes hold lies in no part yet
    return Counts(inputs, max(rows, told.done - told.failed), max(errors, told.failed))
