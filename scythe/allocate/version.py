"""Which version a new run gets: chosen by what changed in the schemas, and reserved so that nobody else takes it. Allocates nothing."""

from __future__ import annotations

from scythe.define.schemas import ExperimentSchemas, difference
from scythe.errors import AllocationError, RunDamaged, VersionError
from scythe.record import layout
from scythe.record.format import dump, parse
from scythe.record.manifest import schemas_of_version
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
from scythe_catalog.schema import Difference
from scythe_catalog.storage.objects import Objects

_RESERVE_TRIES = 1000


def reserve_version(
    objects: Objects, name: str, schemas: ExperimentSchemas, wanted: VersioningStrategy | str | SemVer
) -> SemVer:
    """The version that a new run gets: taken if it is new, and never too small a step for what changed in the schemas.

    Raises:
        VersionError: it is malformed, or too small a step.
        AllocationError: what the schemas of the version before were cannot be told.
    """
    record = dump(schemas.to_json())
    for _ in range(_RESERVE_TRIES):
        versions = _known_versions(objects, name)
        version = _choose(objects, name, schemas, versions, wanted)
        known = str(version) in map(str, versions)
        objects.make()
        if known or objects.create(layout.version_record(name, str(version)), record):
            return version
    raise AllocationError(f"no version of {name!r} could be reserved: other allocations were always faster")


def _known_versions(objects: Objects, name: str) -> list[SemVer]:
    reserved = objects.files(layout.version_records(name))
    folders = objects.folders(name)
    return parse_folders([*(taken.removesuffix(".json") for taken in reserved), *folders])


def _choose(
    objects: Objects,
    name: str,
    schemas: ExperimentSchemas,
    versions: list[SemVer],
    wanted: VersioningStrategy | str | SemVer,
) -> SemVer:
    if isinstance(wanted, str) and wanted in STRATEGIES:
        latest = versions[-1] if versions else None
        return next_version(wanted, latest, _difference(objects, name, schemas, latest) if latest else None)
    try:
        version = SemVer.parse(wanted)
    except VersionError as error:
        raise VersionError(f"{wanted!r} is neither a semantic version nor one of {', '.join(STRATEGIES)}") from error
    if str(version) not in map(str, versions):
        check_allocatable(version)
    below = [v for v in versions if v <= version]
    if below:
        allowed = allowed_between(below[-1], version)
        check_step(str(version), allowed, below[-1], _difference(objects, name, schemas, below[-1]))
    return version


def _difference(objects: Objects, name: str, schemas: ExperimentSchemas, version: SemVer) -> Difference:
    """What changed in the schemas since a version."""
    record = layout.version_record(name, str(version))
    try:
        recorded = parse(objects.read(record), objects.uri(record))
    except FileNotFoundError:
        recorded = schemas_of_version(objects, name, str(version))
    except RunDamaged as error:
        recorded = schemas_of_version(objects, name, str(version))
        if recorded is None:
            raise AllocationError(f"what the schemas of {name} {version} were cannot be told: {error}") from error
    return difference(recorded, schemas) if recorded else Difference(())
