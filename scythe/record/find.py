"""Finds experiments, versions and runs by their names, and says what is there where one is not. Writes nothing.

The runs of a version stand in the order in which they were reserved, whatever the clocks of their machines said: each
reservation has a number. Runs of before there were numbers come first, in the order of their folders.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from scythe.define.experiment import Experiment
from scythe.errors import NotFoundError, RunDamaged, VersionError
from scythe.names import TASK_PREFIX, is_name, meant
from scythe.record import layout
from scythe.record.format import load_yaml
from scythe.record.layout import RunKey
from scythe.record.versions import SemVer, parse_folders
from scythe_catalog.memo import cached_property
from scythe_catalog.storage.objects import Objects

_SHOWN = 20


@dataclass(frozen=True)
class Reserved:
    """The run folders of an experiment that are taken: reserved, and perhaps deleted since."""

    #: Each taken folder, and when it was reserved, by the store's clock.
    taken: Mapping[RunKey, dt.datetime] = field(default_factory=dict[RunKey, dt.datetime])
    #: Place of a run among those of its version, from 1: of those whose allocation came to its end.
    numbers: Mapping[RunKey, int] = field(default_factory=dict[RunKey, int])
    #: Runs that were deleted: their names are never given to another.
    deleted: frozenset[RunKey] = frozenset()
    #: Reserved before runs had numbers.
    old: frozenset[RunKey] = frozenset()

    def ordered(self, keys: Iterable[RunKey]) -> list[RunKey]:
        """Runs in the order of their versions, those of one version as they were allocated."""
        given = list(keys)
        rank = {str(version): i for i, version in enumerate(parse_folders(k.version for k in given))}
        return sorted(given, key=lambda k: (rank.get(k.version, -1), self.numbers.get(k, 0), k.folder))

    def next_number(self, version: str) -> int:
        """The number of the next run of a version."""
        return 1 + max((n for key, n in self.numbers.items() if key.version == version), default=0)

    def after(self, key: RunKey) -> list[RunKey]:
        """The runs of its version that were allocated after one, without those that were deleted."""
        number = self.numbers.get(key, 0)
        return [
            other
            for other, n in self.numbers.items()
            if other.version == key.version and n > number and other not in self.deleted
        ]

    @cached_property
    def half(self) -> set[RunKey]:
        """Runs whose allocation is under way, or was cut short."""
        return set(self.taken) - set(self.numbers) - self.deleted - self.old


def deletions(objects: Objects, experiment: str) -> tuple[frozenset[RunKey], frozenset[RunKey]]:
    """The runs of an experiment that were deleted, and those of them whose files are still there: they are being deleted."""
    deleted = reserved(objects, experiment).deleted
    there = {v: {*objects.folders(f"{experiment}/{v}")} for v in {key.version for key in deleted}}
    return deleted, frozenset(key for key in deleted if key.folder in there[key.version])


def reserved(objects: Objects, experiment: str, version: str | None = None) -> Reserved:
    """The reservations of an experiment, or of one of its versions: one listing."""
    taken: dict[RunKey, dt.datetime] = {}
    numbers: dict[RunKey, int] = {}
    deleted: set[RunKey] = set()
    old: set[RunKey] = set()
    for found in objects.found(layout.reservations(experiment) + (f"/{version}" if version else "")):
        *_, of, name = found.key.split("/")
        match = layout.RESERVATION.fullmatch(name)
        if match is None or not layout.is_run_folder(match["folder"]):
            continue
        key = RunKey(experiment, of, match["folder"])
        taken.setdefault(key, found.modified)
        if match["deleted"]:
            deleted.add(key)
        elif match["number"]:
            numbers[key] = int(match["number"])
        elif found.size == 0:
            old.add(key)
    return Reserved(taken, numbers, frozenset(deleted), frozenset(old))


# --- what is there ----------------------------------------------------------------------------------


def experiment_names(objects: Objects) -> list[str]:
    """Names of the experiments of a root, sorted."""
    names = [n for n in objects.folders() if not n.startswith(("_", "."))]
    return [n for n in names if version_names(objects, n)]


def version_names(objects: Objects, experiment: str) -> list[SemVer]:
    """The versions of an experiment that have a folder, lowest first."""
    return parse_folders(objects.folders(experiment))


def run_keys(objects: Objects, experiment: str, versions: Iterable[SemVer | str] | None = None) -> list[RunKey]:
    """The runs of some versions (of all without any) that have a folder, lowest version first, oldest first within each.

    Those without a manifest are among them.
    """
    keys = [
        RunKey(experiment, str(version), folder)
        for version in (version_names(objects, experiment) if versions is None else versions)
        for folder in objects.folders(f"{experiment}/{version}")
        if layout.is_run_folder(folder)
    ]
    if len(keys) < 2:
        return keys
    one = keys[0].version if keys[0].version == keys[-1].version else None
    return _with_lost_numbers(objects, reserved(objects, experiment, one), keys).ordered(keys)


def known_runs(objects: Objects, experiment: str, version: str) -> tuple[list[RunKey], Reserved]:
    """The runs of a version that have a folder, as `run_keys` gives them, and its reservations."""
    looks: list[Callable[[], Any]] = [
        lambda: objects.folders(f"{experiment}/{version}"),
        lambda: reserved(objects, experiment, version),
    ]
    folders, known = objects.each(lambda look: look(), looks)
    keys = [RunKey(experiment, version, f) for f in folders if layout.is_run_folder(f)]
    known = _with_lost_numbers(objects, known, keys)
    return known.ordered(keys), known


def _with_lost_numbers(objects: Objects, known: Reserved, keys: Iterable[RunKey]) -> Reserved:
    """The same, with the numbers that manifests tell of runs that have lost theirs: the next allocation gives them back."""
    lost = [key for key in keys if key in known.half or key not in known.taken]
    told = {
        key: number
        for key, number in zip(lost, objects.each(partial(_number_told, objects), lost), strict=True)
        if number
    }
    return replace(known, numbers={**known.numbers, **told}) if told else known


def _number_told(objects: Objects, key: RunKey) -> int:
    """The number of a run as its manifest tells it; 0 where it tells none: who reads the run says what is wrong."""
    with suppress(FileNotFoundError, RunDamaged):
        told = load_yaml(objects.read(key.manifest), objects.uri(key.manifest))
        if isinstance(told, dict) and isinstance(number := told.get("number"), int):  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
            return number
    return 0


def reserved_above(objects: Objects, key: RunKey, versions: Iterable[str]) -> list[RunKey]:
    """The runs of those of some versions that are higher than a run's, without those that were deleted."""
    above = [str(v) for v in parse_folders(versions) if v > SemVer.parse(key.version)]
    known = [reserved(objects, key.experiment, v) for v in above]
    return [other for one in known for other in one.numbers if other not in one.deleted]


# --- names ------------------------------------------------------------------------------------------


def name_of(experiment: Any) -> str:
    """The experiment's folder: of a name (with or without the task prefix), or of a registered function, or of its `BaseExperiment`."""
    if isinstance(experiment, str):
        return experiment.removeprefix(TASK_PREFIX)
    if isinstance(
        getattr(experiment, "experiment", None), Experiment
    ):  # a BaseExperiment, whose runs may have a name of their own
        return experiment.name
    from scythe.registry import experiment_of

    return experiment_of(experiment).name


def versions_of(objects: Objects, experiment: str) -> list[SemVer]:
    """The versions of an experiment that is there, lowest first.

    Raises:
        NotFoundError: listing the experiments that are there.
    """
    versions = version_names(objects, experiment) if is_name(experiment) else []
    if not versions:
        there = experiment_names(objects)
        raise NotFoundError(
            f"there is no experiment {experiment!r} in {objects.root}{meant(experiment, there)}; there is {listed(there)}"
        )
    return versions


def resolve_version(objects: Objects, experiment: str, version: Any) -> str:
    """A version that is there, as its folder's name; None is the latest that has a run, if any has.

    Raises:
        NotFoundError: listing what is there.
        VersionError: it is no version.
    """
    versions = versions_of(objects, experiment)
    return latest_of(objects, experiment, versions) if version is None else _among(experiment, versions, version)


def candidates(objects: Objects, experiment: str, version: Any) -> list[str]:
    """The versions that a version of a caller may mean, the likeliest first: that one, or (None) all from the highest down.

    Raises:
        NotFoundError: listing what is there.
        VersionError: it is no version.
    """
    versions = versions_of(objects, experiment)
    return [*map(str, reversed(versions))] if version is None else [_among(experiment, versions, version)]


def _among(experiment: str, versions: Sequence[SemVer], version: Any) -> str:
    try:
        wanted = str(SemVer.parse(version))
    except VersionError as error:
        table = (
            f"; a table is named by table={version!r}"
            if isinstance(version, str) and re.fullmatch(r"(?!v\d)[^\W\d]\w*", version)
            else ""
        )
        raise VersionError(
            f"{error}. {experiment!r} has {listed(versions)}: the latest is read without a version, and all of them by "
            f"version='all'{table}"
        ) from None
    if wanted not in map(str, versions):
        raise NotFoundError(f"{experiment!r} has no version {wanted}; it has {listed(versions)}")
    return wanted


def latest_of(objects: Objects, experiment: str, versions: Sequence[SemVer]) -> str:
    """The highest of some versions that has a run, if any has: an allocation that was killed leaves one without."""
    for version in map(str, reversed(versions)):
        if any(objects.exists(key.manifest) for key in reversed(run_keys(objects, experiment, [version]))):
            return version
    return str(versions[-1])


@dataclass(frozen=True)
class Named:
    """A run as a caller names it: by its folder alone, or with its version and experiment."""

    folder: str
    version: str | None = None
    experiment: str | None = None


def named(run: Any) -> Named:
    """What a caller's name of a run says: a folder's name, a datetime, a whole `experiment/version/datetime`, or a run.

    Raises:
        NotFoundError: it is no name of a run.
    """
    key = getattr(run, "key", None)
    if isinstance(key, RunKey):
        return Named(key.folder, key.version, key.experiment)
    if isinstance(run, dt.datetime):
        try:
            return Named(layout.folder_of(run if run.tzinfo else run.replace(tzinfo=dt.UTC)))
        except (ValueError, OverflowError) as error:
            raise NotFoundError(f"there is no run of {run!r}: runs are named by their start in UTC") from error
    if hasattr(run, "aio_result"):
        raise NotFoundError(
            f"{run!r} is a reference to the result of a run: name the run itself, run, ref = ….allocate(…)"
        )
    parts = run.strip("/").split("/") if isinstance(run, str) else []
    if not 1 <= len(parts) <= 3 or not layout.is_run_folder(parts[-1]):
        raise NotFoundError(
            f"{run!r} is not the name of a run: name its folder (2026-02-03_09-41-27), its datetime, or all of "
            "experiment/version/datetime"
        )
    folder, version, experiment = [*reversed(parts), None, None][:3]
    return Named(str(folder), version, experiment.removeprefix(TASK_PREFIX) if experiment else experiment)


def find_run(objects: Objects, experiment: str, version: Any, run: Any, *, whatever: bool = False) -> RunKey:
    """The run that a caller names. A name that is whole is that run or none; one that several versions have is refused.

    `version` may be None: the version is looked for. With `whatever`, half a run is found, too: one that has no manifest.

    Raises:
        NotFoundError: listing what is there.
    """
    try:
        asked = named(run)
    except NotFoundError as error:
        of = resolve_version(objects, experiment, version)
        raise NotFoundError(f"{error}; {experiment} {of} has {_runs_of(objects, experiment, of)}") from None
    if asked.experiment is not None and asked.experiment != experiment:
        raise NotFoundError(f"{_whole(asked)} is not a run of {experiment!r}")
    if version is None and asked.version is None:
        return _only(objects, experiment, asked.folder)
    of = str(SemVer.parse(version if version is not None else asked.version))
    if asked.version is not None and str(SemVer.parse(asked.version)) != of:
        raise NotFoundError(f"{_whole(asked)} is not a run of {experiment} {of}")
    key = RunKey(experiment, of, asked.folder)
    if not objects.exists(key.manifest) and not (whatever and is_left(objects, key)):
        resolve_version(objects, experiment, of)
        there = _runs_of(objects, experiment, of)
        raise NotFoundError(f"{experiment} {of} has no run {key.folder}{_was(objects, key)}; it has {there}")
    return key


def _only(objects: Objects, experiment: str, folder: str) -> RunKey:
    """The run of this folder, whichever version has it."""
    versions = versions_of(objects, experiment)
    keys = [RunKey(experiment, str(v), folder) for v in versions]
    found = [key for key in keys if objects.exists(key.manifest)]
    if len(found) > 1:
        raise NotFoundError(
            f"several versions of {experiment!r} have a run {folder}: {listed([k.version for k in found])}; "
            f"name it whole, as {found[-1].path!r}"
        )
    if not found:
        latest = latest_of(objects, experiment, versions)
        there = _runs_of(objects, experiment, latest)
        raise NotFoundError(f"{experiment!r} has no run {folder}; {latest} has {there}")
    return found[0]


def is_left(objects: Objects, key: RunKey) -> bool:
    """Whether there is anything of a run without a manifest: a reservation, or files."""
    if not is_name(key.experiment):
        return False
    found = reserved(objects, key.experiment, key.version)
    return (key in found.taken and key not in found.deleted) or bool(objects.found(key.path))


def _was(objects: Objects, key: RunKey) -> str:
    """Why a run that was there is not."""
    found = reserved(objects, key.experiment, key.version)
    if key in found.deleted:
        return " any more: it was deleted"
    if key not in found.taken:
        return ""
    return (
        ": it is being allocated, its allocation was cut short, or its folder was removed "
        f"(`scythe delete {key.path}` clears up behind it)"
    )


def latest_run(objects: Objects, experiment: str, version: Any) -> RunKey:
    """The latest run of a version (of the latest version without one), finished or not.

    Raises:
        NotFoundError: listing what is there.
    """
    of = resolve_version(objects, experiment, version)
    for key in reversed(run_keys(objects, experiment, [of])):
        if objects.exists(key.manifest):
            return key
    for key in reversed(run_keys(objects, experiment, [of])):
        if objects.exists(key.arrived) and not objects.exists(key.arrivals_ended):
            raise NotFoundError(f"{key.path} is not here yet: its download goes on, or was cut short; call it again")
    raise NotFoundError(f"{experiment} {of} has no run yet")


def split_name(name: str) -> tuple[str, str | None, str | None]:
    """Experiment, version and run of a name: `experiment`, `experiment/version` or `experiment/version/datetime`.

    Raises:
        NotFoundError: it is none of them.
    """
    parts = name.split("/")
    if len(parts) > 3 or not all(parts):
        raise NotFoundError(
            f"{name!r} names nothing: write experiment, experiment/version or experiment/version/datetime"
        )
    experiment, version, run = [*parts, None, None][:3]
    return str(experiment), version, run


def listed(names: Sequence[object]) -> str:
    """Names for a message, the last twenty of them."""
    shown = [str(n) for n in names[-_SHOWN:]]
    return ("… " if len(names) > _SHOWN else "") + (", ".join(shown) or "nothing")


def _runs_of(objects: Objects, experiment: str, version: str) -> str:
    """The runs of a version, for a message."""
    return listed([key.folder for key in run_keys(objects, experiment, [version])])


def _whole(asked: Named) -> str:
    return "/".join(p for p in (asked.experiment, asked.version, asked.folder) if p)


__all__ = ["Named", "Reserved", "find_run", "latest_run", "resolve_version"]
