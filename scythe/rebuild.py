"""Makes the catalog of a root anew from the runs' folders: after a copy, a move or a download.

Reads manifests, plans, results and final files; writes only below the reserved folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import pyarrow.parquet as pq

from scythe import layout, runs
from scythe.allocate import schemas_of_version
from scythe.generations import check_dataframe, open_generation
from scythe.layout import RunKey
from scythe.plan import RunPlan
from scythe.results import RunResult, TableResult, read_result
from scythe.settings import engine_settings
from scythe.tables import catalog_of
from scythe_catalog.datafile import DataFile, read_description
from scythe_catalog.objects import Objects
from scythe_catalog.schema import TableSchema
from scythe_catalog.tables import Catalog

_OWN = ("scalars", "errors", "tasks", "result_file_refs")


def rebuild(objects: Objects, said: Callable[[str], None] = lambda _: None) -> int:
    """Drops the catalog of every experiment of the root and registers all runs again; how many.

    Field ids of the files stay what they were: a table is made anew with the schema that its oldest
    run was written with, and grows as it grew before.
    """
    catalog = catalog_of(objects, engine_settings().catalog)
    count = 0
    for experiment in runs.experiment_names(objects):
        _forget(objects, catalog, experiment)
        for key in _runs_of(objects, experiment):
            _reserve(objects, key)
            result = read_result(objects, key)
            if result is not None:
                _register(objects, catalog, key, result)
            count += 1
            said(f"{key.path}: {runs.status_of(objects, key)}")
    return count


def _forget(objects: Objects, catalog: Catalog, experiment: str) -> None:
    if catalog.name is None:
        objects.delete_folder(f"{layout.CATALOG}/{experiment}")
        return
    for name in catalog.tables(experiment):
        catalog.drop(experiment, name)
    objects.delete_folder(f"{layout.CATALOG}/{experiment}")


def _runs_of(objects: Objects, experiment: str) -> list[RunKey]:
    """All runs, in the order in which they were made: so tables evolve as they did."""
    keys = [
        RunKey(experiment, str(version), folder)
        for version in runs.version_names(objects, experiment)
        for folder in runs.run_folders(objects, experiment, str(version))
    ]
    return sorted((k for k in keys if objects.exists(k.manifest)), key=lambda k: k.folder)


def _reserve(objects: Objects, key: RunKey) -> None:
    objects.create(key.reservation, b"")
    schemas = schemas_of_version(objects, key.experiment, key.version)
    if schemas is not None:
        objects.create(layout.version_record(key.experiment, key.version), json.dumps(schemas).encode())


def _register(objects: Objects, catalog: Catalog, key: RunKey, result: RunResult) -> None:
    """Puts a run's final files into the tables, and the new URIs and tables into its result."""
    tables: dict[str, TableResult] = {}
    for name, found in result.tables.items():
        with objects.reader(found.key) as stream:
            schema = TableSchema.from_arrow(pq.read_schema(stream))
        if name not in _OWN:
            check_dataframe(objects, key, name, schema)
        table = open_generation(catalog, key, name, schema)
        file: DataFile = read_description(objects, found.key, table.iceberg.schema())
        table.replace([file] if file.rows else [], key.partition)
        tables[name] = found.model_copy(update={"catalog_table": table.iceberg.name()[-1]})
    updated = result.model_copy(update={"tables": tables})
    objects.write(key.result, updated.model_dump_json(indent=1).encode())
    _repoint(objects, key, tables)


def _repoint(objects: Objects, key: RunKey, tables: dict[str, TableResult]) -> None:
    """The plan names catalog tables too; a run that is resumed later looks for them there."""
    plan = RunPlan.load(objects, key)
    for name, planned in plan.tables.items():
        if name in tables:
            plan.tables[name] = type(planned)(tables[name].catalog_table, planned.ids)
    objects.write(key.plan, plan.to_json())
