"""Which version a new run gets: chosen by what changed in the schemas, and reserved so that nobody else takes it. Allocates nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from scythe.define.renames import Renames, renamed_since
from scythe.define.schemas import ExperimentSchemas
from scythe.errors import AllocationError, RunDamaged, VersionError
from scythe.record import layout
from scythe.record.find import run_keys
from scythe.record.format import dump
from scythe.record.layout import RunKey
from scythe.record.manifest import recorded_schemas, schemas_of_run
from scythe.record.versions import (
    STRATEGIES,
    SemVer,
    VersioningStrategy,
    allowed_between,
    check_allocatable,
    check_step,
    next_version,
    parse_folders,
)
from scythe_catalog.schema import Change, Difference, Severity, TableSchema, facts_of
from scythe_catalog.storage.objects import Objects

_RESERVE_TRIES = 1000
#: So many versions are asked for what the one before does not tell of units and categories; a table takes no others in any case.
_LOOKED_AT = 50
#: Runs whose schemas are read together.
_AT_ONCE = 32


def reserve_version(
    objects: Objects,
    name: str,
    schemas: ExperimentSchemas,
    wanted: VersioningStrategy | str | SemVer,
    renames: Mapping[str, str],
) -> tuple[SemVer, Renames, SemVer | None]:
    """The version that a new run gets, and what was renamed until it: taken if it is new, and never too small a step.

    Beside it the version right before it, where that one has the same models.

    `renames` (former name -> name) are those that the caller tells, beside those of the models.

    Raises:
        VersionError: it is malformed, or too small a step for what changed in the schemas; or no field was what one is said to have been.
        AllocationError: what the schemas of the version before were cannot be told.
    """
    for _ in range(_RESERVE_TRIES):
        versions = _known_versions(objects, name)
        version, renamed, same = _Choice(objects, name, schemas, renames).of(versions, wanted)
        known = str(version) in map(str, versions)
        objects.make()
        record = layout.version_record(name, str(version))
        if known or objects.create(record, dump({**schemas.to_json(), **renamed.to_json()})):
            return version, renamed, same
    raise AllocationError(f"no version of {name!r} could be reserved: other allocations were always faster")


def version_for_reuse(objects: Objects, name: str, schemas: ExperimentSchemas, renames: Mapping[str, str]) -> str:
    """What to do about schemas that are not those of the version whose rows were to be reused, for a message."""
    choice, versions = _Choice(objects, name, schemas, renames), _known_versions(objects, name)
    same = next((v for v in reversed(versions) if choice.changed_since(v) is Severity.IDENTICAL), None)
    if same is not None:
        return f'No row of another schema can be taken over, and this is that of {same}: with reuse=True name it, version="{same}".'
    latest = versions[-1]
    new = (
        latest.next_minor_version()
        if choice.changed_since(latest) is Severity.ADDITIVE
        else latest.next_major_version()
    )
    return (
        f'No row of another schema can be taken over: with reuse=True name the new version, version="{new}", in which each input is run '
        "once, or undo the change."
    )


def _known_versions(objects: Objects, name: str) -> list[SemVer]:
    reserved = objects.files(layout.version_records(name))
    folders = objects.folders(name)
    return parse_folders([*(taken.removesuffix(".json") for taken in reserved), *folders])


def _same(version: SemVer, before: SemVer | None, changed: Difference) -> SemVer | None:
    """The version before one, where nothing has changed since."""
    return before if before is not None and before != version and changed.severity is Severity.IDENTICAL else None


def _changed(category: str | None, before: str, now: str, version: SemVer) -> str:
    if category is None:
        return f"changed its unit from [{before}] in {version} to [{now}]"
    return f"has categories that mean something else: {category} was {before} in {version} and is {now}"


class _Choice:
    """The version of schemas among those that there are."""

    def __init__(self, objects: Objects, name: str, schemas: ExperimentSchemas, renames: Mapping[str, str]) -> None:
        self._objects, self._name, self._schemas, self._given = objects, name, schemas, renames

    def of(
        self, versions: list[SemVer], wanted: VersioningStrategy | str | SemVer
    ) -> tuple[SemVer, Renames, SemVer | None]:
        if isinstance(wanted, str) and wanted in STRATEGIES:
            latest = versions[-1] if versions else None
            renames, changed, _ = self._since(latest)
            version = next_version(wanted, latest, changed if latest is not None else None)
            return version, renames, _same(version, latest, changed)
        try:
            version = SemVer.parse(wanted)
        except VersionError as error:
            raise VersionError(
                f"{wanted!r} is neither a semantic version nor one of {', '.join(STRATEGIES)}"
            ) from error
        if str(version) not in map(str, versions):
            check_allocatable(version)
        below = [v for v in versions if v <= version]
        renames, changed, fresh = self._since(below[-1] if below else None)
        if below:
            check_step(str(version), allowed_between(below[-1], version), below[-1], changed)
        if fresh and versions[-1] > version:  # it would take the column from under the models of that version
            former, name = next(iter(fresh.items()))
            raise VersionError(
                f"{former!r} cannot be renamed to {name!r} in {version}: {versions[-1]} stands above it. Rename it in a version above that"
            )
        return version, renames, _same(version, below[-1] if below else None, changed)

    def changed_since(self, version: SemVer) -> Severity:
        """How much has changed in the schemas since a version."""
        return self._since(version)[1].severity

    def _since(self, version: SemVer | None) -> tuple[Renames, Difference, Mapping[str, str]]:
        """What was renamed, and what changed in the schemas, since a version."""
        recorded = self._recorded(version) if version is not None else None
        if version is None or recorded is None:
            return Renames(), Difference(()), {}
        models = {"input": self._schemas.input, "output": self._schemas.output}
        renames, changed, fresh = renamed_since(recorded, version, models, self._given)
        return renames, changed + self._facts_before(recorded, version), fresh

    def _facts_before(self, recorded: Mapping[str, Any], version: SemVer) -> Difference:
        """What has another unit, or a category of another meaning, than in another version of the same major one, where that one tells none."""
        untold: dict[tuple[str, str, str | None], str] = {}
        for side, schema in self._sides():
            before = TableSchema.from_json(recorded[side])
            told, there = facts_of(before), {*before.names}
            new = {(path, of): fact for (path, of), fact in facts_of(schema).items() if (path, of) not in told}
            untold |= {
                (side, path, of): fact
                for (path, of), fact in new.items()
                if path.replace("[", ".").partition(".")[0] in there
            }
        changes: list[Change] = []
        known = [v for v in _known_versions(self._objects, self._name) if v.major == version.major and v != version]
        for other in [version, *reversed(known[-_LOOKED_AT:])]:
            for told in self._told_in(other) if untold else ():
                for side, _ in self._sides():
                    was = facts_of(TableSchema.from_json(told[side]))
                    for path, of in [(path, of) for where, path, of in untold if where == side and (path, of) in was]:
                        if (before := was[path, of]) != (fact := untold.pop((side, path, of))):
                            changes.append(
                                Change(f"{side}.{path}", _changed(of, before, fact, other), Severity.BREAKING)
                            )
                if not untold:
                    break
        return Difference(tuple(changes))

    def _told_in(self, version: SemVer) -> Iterator[Mapping[str, Any]]:
        """The schemas of a version, as its record and then its runs tell them, the newest first: a later one may have told more."""
        if (record := self._recorded(version)) is not None:
            yield record
        keys = run_keys(self._objects, self._name, [str(version)])[::-1]
        for some in (keys[i : i + _AT_ONCE] for i in range(0, len(keys), _AT_ONCE)):
            yield from filter(None, self._objects.each(self._of_run, some))

    def _of_run(self, key: RunKey) -> Mapping[str, Any] | None:
        with contextlib.suppress(OSError, RunDamaged):  # gone or damaged: it tells nothing any more
            return schemas_of_run(self._objects, key)
        return None

    def _sides(self) -> tuple[tuple[str, TableSchema], ...]:
        return ("input", self._schemas.input.schema), ("output", self._schemas.output.schema)

    def _recorded(self, version: SemVer) -> Mapping[str, Any] | None:
        try:
            return recorded_schemas(self._objects, self._name, str(version))
        except RunDamaged as error:
            raise AllocationError(f"what the schemas of {self._name} {version} were cannot be told: {error}") from error
