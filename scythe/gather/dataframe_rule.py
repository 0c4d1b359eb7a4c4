"""Which columns a version's dataframes have: those that its runs gave them, as long as these runs are there.

The columns of a dataframe are known once a run is gathered. They are held against the next lower version that has any,
and recorded with the run that gave them; a record whose run is gone binds nobody.
"""

from __future__ import annotations

import hashlib
from typing import Any

from scythe.define.renames import Renames
from scythe.errors import NotFoundError, RunDamaged, RunError
from scythe.names import CATALOG
from scythe.record.format import dump, parse, reading
from scythe.record.generations import old_records
from scythe.record.layout import RunKey, is_run_folder
from scythe.record.manifest import renames_until
from scythe.record.plan import RunPlan
from scythe.record.results import read_result
from scythe.record.versions import SemVer, allowed_between, parse_folders
from scythe_catalog.iceberg.datafile import stored_schema
from scythe_catalog.names import folded
from scythe_catalog.schema import Severity, TableSchema, compare, united
from scythe_catalog.storage.objects import Objects


def check_dataframe(
    objects: Objects, plan: RunPlan, name: str, schema: TableSchema, renames: Renames | None = None
) -> TableSchema | None:
    """Holds a dataframe's columns against those that other runs gave it; computed features are none of its own.

    `renames` are those until the run's version, where it comes from another root; else they are read from this one.

    Gives what is to be recorded of its version (`record_dataframe`) once the run is; None where it is recorded already.

    Raises:
        RunError: the version is too small a step for what changed.
    """
    key, schema = plan.key, _own(schema, plan)
    version = SemVer.parse(key.version)
    own = (renames or renames_until(objects, key.experiment, key.version)).of(name)
    for below in reversed(_recorded_versions(objects, key.experiment, name)):
        if below > version:
            continue
        given = _given(objects, key, name, str(below))
        if given is None:
            continue
        given = given.renamed(own)
        found = compare(given.relaxed(), schema.relaxed())
        if found.severity > (Severity.IDENTICAL if below == version else allowed_between(below, version)):
            raise RunError(
                f"the dataframe {name!r} of {key.path} is not what it was in {below}:\n{found}\n"
                "Nothing is lost: read the run by its name. Allocate again with a larger step of the version, "
                "give the dataframe another name, or delete the runs that set its columns and resume this one."
            )
        return schema if below != version else _told(given, schema)
    return schema


def _told(given: TableSchema, schema: TableSchema) -> TableSchema | None:
    """What is known of the columns once these tell types that were not known yet; None where they tell none."""
    kinds = {c.name: c.kind for c in given}
    both = united(given.relaxed(), schema.relaxed())
    return both if any(c.kind != kinds.get(c.name) for c in both) else None


def record_dataframe(objects: Objects, key: RunKey, name: str, schema: TableSchema) -> None:
    """Records what is known of the columns of a version's dataframe, since this run."""
    record = {"run": key.folder, "columns": schema.to_json()}
    objects.write(f"{_records(key.experiment, name)}/{key.version}.json", dump(record))


def _given(objects: Objects, key: RunKey, name: str, version: str) -> TableSchema | None:
    """The columns that a version's dataframe has by its runs, this one excepted; None where no other run has it."""
    recorded = _recorded(objects, key.experiment, name, version)
    if recorded is not None:
        other = RunKey(key.experiment, version, recorded["run"])
        if other != key and objects.exists(other.result):
            return _own_of(objects, other, TableSchema.from_json(recorded["columns"]))
    folders = [f for f in objects.folders(f"{key.experiment}/{version}") if is_run_folder(f)]
    for folder in reversed(folders):
        other = RunKey(key.experiment, version, folder)
        if other != key and (found := _columns_of(objects, other, name)) is not None:
            return _own_of(objects, other, found)
    return None


def _own(schema: TableSchema, plan: RunPlan) -> TableSchema:
    """The columns without the computed features of their run, which may differ from run to run."""
    features = {*TableSchema.from_json(plan.computed).names}
    return schema.select([name for name in schema.names if name not in features]) if features else schema


def _own_of(objects: Objects, key: RunKey, schema: TableSchema) -> TableSchema:
    try:
        return _own(schema, RunPlan.load(objects, key))
    except (NotFoundError, RunDamaged):
        return schema


def _columns_of(objects: Objects, key: RunKey, name: str) -> TableSchema | None:
    """The columns of a finished run's dataframe, by its file; None where it has none, or none that can be read."""
    try:
        result = read_result(objects, key)
        if result is None or name not in result.tables:
            return None
        with reading(objects, result.tables[name].key):
            return TableSchema.from_arrow(stored_schema(objects, result.tables[name].key))
    except (RunDamaged, FileNotFoundError):
        return None


def _recorded(objects: Objects, experiment: str, name: str, version: str) -> dict[str, Any] | None:
    """A record that names its run; earlier versions of Scythe wrote none."""
    where = f"{_records(experiment, name)}/{version}.json"
    try:
        found = parse(objects.read(where), objects.uri(where))
    except (FileNotFoundError, RunDamaged):
        return None
    return found if {"run", "columns"} <= found.keys() else None


def _recorded_versions(objects: Objects, experiment: str, name: str) -> list[SemVer]:
    """The versions in which the dataframe has been seen, lowest first."""
    names = [*objects.files(_records(experiment, name)), *old_records(objects, experiment, name)]
    return parse_folders(n.removesuffix(".json") for n in names)


def _records(experiment: str, name: str) -> str:
    """The folder of a dataframe's records; two names that differ by case alone have two on every disk."""
    own = name if name == folded(name) else f"{name}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return f"{CATALOG}/{experiment}/_dataframes/{own}"
