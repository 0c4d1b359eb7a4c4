"""Generations of a table: a breaking change of the schema opens the next one (`scalars`, `scalars_g2`, ...).

All versions of one major number share a generation, and so do majors between which nothing broke.
Which versions a user's dataframe has been seen in is recorded beside the versions themselves.
"""

from __future__ import annotations

import json
import re

from scythe.errors import CatalogError, RunError
from scythe.layout import CATALOG, RunKey
from scythe.schemas import PARTITION
from scythe.versions import SemVer, allowed_between, parse_folders
from scythe_catalog.objects import Objects
from scythe_catalog.schema import Severity, TableSchema, compare
from scythe_catalog.tables import Catalog, Table

_MAJORS = "scythe.majors"
_TRIES = 5


def generations(names: list[str], table: str) -> list[str]:
    """The catalog tables that are generations of a table, oldest first."""
    pattern = re.compile(re.escape(table) + r"(?:_g(\d+))?")
    found = [(int(m[1] or 1), name) for name in names if (m := pattern.fullmatch(name))]
    return [name for _, name in sorted(found)]


def open_generation(catalog: Catalog, key: RunKey, table: str, schema: TableSchema) -> Table:
    """The generation of a table that holds this version's rows: found, widened, or opened anew.

    Raises:
        CatalogError: rows of this version have another schema already.
    """
    major = SemVer.parse(key.version).major
    for last in reversed(range(_TRIES)):
        try:
            return _open(catalog, key.experiment, table, schema, major)
        except CatalogError:
            if last == 0:
                raise
    raise AssertionError("unreachable")


def _open(catalog: Catalog, experiment: str, table: str, schema: TableSchema, major: int) -> Table:
    names = generations(catalog.tables(experiment), table)
    opened = [catalog.table(experiment, name) for name in names]
    for generation in reversed(opened):
        if major in _majors(generation):
            return generation.widened(schema)
    if opened and compare(opened[-1].schema, schema).severity is not Severity.BREAKING:
        return opened[-1].widened(schema, {_MAJORS: json.dumps(sorted({*_majors(opened[-1]), major}))})
    name = table if not opened else f"{table}_g{len(opened) + 1}"
    return catalog.ensure(experiment, name, schema, PARTITION, {_MAJORS: json.dumps([major])})


def _majors(table: Table) -> list[int]:
    return json.loads(table.iceberg.properties.get(_MAJORS, "[]"))


def check_dataframe(objects: Objects, key: RunKey, name: str, schema: TableSchema) -> None:
    """Holds a dataframe's columns against those that earlier runs gave it, and records them for later ones.

    Raises:
        RunError: the version is too small a step for what changed.
    """
    folder = f"{CATALOG}/{key.experiment}/_versions/{name}"
    version = SemVer.parse(key.version)
    known = [v for v in parse_folders(n.removesuffix(".json") for n in objects.files(folder)) if v <= version]
    if known:
        below = known[-1]
        recorded = TableSchema.from_json(json.loads(objects.read(f"{folder}/{below}.json")))
        found = compare(recorded.relaxed(), schema.relaxed())
        if found.severity > (Severity.IDENTICAL if below == version else allowed_between(below, version)):
            raise RunError(
                f"the dataframe {name!r} of {key.path} is not what it was in {below}:\n{found}\n"
                "Nothing is lost: read the run by its name. Allocate again with a larger step of the version, "
                "give the dataframe another name, or delete the runs that set its columns and resume this one."
            )
    objects.create(f"{folder}/{version}.json", json.dumps(schema.to_json()).encode())
