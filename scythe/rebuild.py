"""Makes the catalog of a root anew from the runs' folders: after a copy, a move or a download.

Reads manifests, plans, results and final files; writes only below the reserved folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq

from scythe import layout, runs
from scythe.allocate import schemas_of_version
from scythe.generations import check_dataframe, open_generation
from scythe.layout import RESERVED_TABLES, RunKey
from scythe.parts import stored_parts
from scythe.plan import RunPlan, TablePlan
from scythe.results import RunResult, TableResult, read_result
from scythe.settings import engine_settings
from scythe.tables import catalog_of
from scythe_catalog.datafile import ROW_GROUP_ROWS, DataFileWriter, FieldIds, read_description, with_field_ids
from scythe_catalog.objects import Objects
from scythe_catalog.schema import TableSchema
from scythe_catalog.tables import Catalog


def rebuild(objects: Objects, said: Callable[[str], None] = lambda _: None) -> int:
    """Drops the catalog of every experiment of the root and registers all runs again; how many.

    Tables grow again in the order in which the runs were made. A file whose field ids are not those
    of its new table (its run stood behind others that are gone) is written once more.
    """
    catalog = catalog_of(objects, engine_settings().catalog)
    count = 0
    for experiment in runs.experiment_names(objects):
        _forget(objects, catalog, experiment)
        for key in _runs_of(objects, experiment):
            _reserve(objects, key)
            plan = _planned_anew(objects, catalog, key)
            result = read_result(objects, key)
            if result is not None:
                _register(objects, catalog, key, result)
            else:
                _show_parts(catalog, plan)
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


def _planned_anew(objects: Objects, catalog: Catalog, key: RunKey) -> RunPlan:
    """The plan of a run with the tables and field ids that it has now."""
    plan = RunPlan.load(objects, key)
    for name, planned in list(plan.tables.items()):
        table = open_generation(catalog, key, name, planned.schema)
        plan.tables[name] = TablePlan(table.iceberg.name()[-1], planned.columns, table.ids)
    objects.write(key.plan, plan.to_json())
    return plan


def _register(objects: Objects, catalog: Catalog, key: RunKey, result: RunResult) -> None:
    """Puts a run's final files into the tables, and the names of those into its result."""
    tables: dict[str, TableResult] = {}
    for name, found in result.tables.items():
        with objects.reader(found.key) as stream:
            stored = pq.read_schema(stream)
        schema = TableSchema.from_arrow(stored)
        if name not in RESERVED_TABLES:
            check_dataframe(objects, key, name, schema)
        table = open_generation(catalog, key, name, schema)
        if _ids(with_field_ids(stored, table.ids)) != _ids(stored):
            _rewrite(objects, found.key, schema, table.ids)
        file = read_description(objects, found.key, table.iceberg.schema())
        table.replace([file] if file.rows else [], key.partition)
        tables[name] = found.model_copy(update={"catalog_table": table.iceberg.name()[-1], "bytes": file.bytes})
    updated = result.model_copy(update={"tables": tables})
    objects.write(key.result, updated.model_dump_json(indent=1).encode())


def _ids(schema: pa.Schema) -> str:
    """All field ids of a schema, nested ones too."""
    return schema.remove_metadata().to_string(show_field_metadata=True)


def _rewrite(objects: Objects, key: str, schema: TableSchema, ids: FieldIds) -> None:
    """Writes a final file once more, with the field ids of its new table."""
    with objects.reader(key) as stream:
        file = pq.ParquetFile(stream)
        index = json.loads((file.schema_arrow.metadata or {}).get(b"pandas", b"{}")).get("index_columns", [])
        with DataFileWriter(objects, key, schema.arrow, ids, index=index) as writer:
            for batch in file.iter_batches(ROW_GROUP_ROWS):
                writer.write(pa.Table.from_batches([batch]))


def _show_parts(catalog: Catalog, plan: RunPlan) -> None:
    """The finished rows of a run that is not finished, as far as their files fit the tables."""
    for part in stored_parts(plan):
        for file in part.files:
            planned = plan.tables.get(file.table)
            if planned is None:
                continue
            with plan.objects.reader(file.key) as stream:
                stored = pq.read_schema(stream)
            if _ids(with_field_ids(stored, planned.ids)) == _ids(stored):
                table = catalog.table(plan.key.experiment, planned.catalog_table)
                described = read_description(plan.objects, file.key)
                table.append([described], plan.key.partition, key=f"{plan.key.path}/{part.name}")
