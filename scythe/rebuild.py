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
from scythe_catalog.compute import pc
from scythe_catalog.datafile import (
    ROW_GROUP_ROWS,
    DataFileWriter,
    FieldIds,
    read_description,
    stored_field_ids,
    with_field_ids,
)
from scythe_catalog.objects import Objects
from scythe_catalog.schema import TableSchema
from scythe_catalog.schema.kinds import Uri
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
    """The plan of a run with the root, the tables and the field ids that it has now; its files follow."""
    old = RunPlan.from_json(objects.read(key.plan)).root
    plan = RunPlan.load(objects, key)
    for name, planned in list(plan.tables.items()):
        table = open_generation(catalog, key, name, planned.schema)
        plan.tables[name] = TablePlan(table.iceberg.name()[-1], planned.columns, table.ids)
    if old != objects.root:
        _follow(objects, key, old)
    objects.write(key.plan, plan.to_json())
    return plan


def _follow(objects: Objects, key: RunKey, old: str) -> None:
    """Makes the file references of a run that was moved point below the root as it is now."""
    for text in (key.manifest, key.input_artifacts):
        content = objects.read(text).replace(f"{old}/".encode(), f"{objects.root}/".encode())
        objects.write(text, content)
    for name in [
        key.specs,
        *(k for k in objects.keys(f"{key.path}/final") + objects.keys(key.parts) if k.endswith(".pq")),
    ]:
        with objects.reader(name) as stream:
            stored = pq.read_schema(stream)
        files = [c.name for c in TableSchema.from_arrow(stored) if isinstance(c.kind, Uri) and c.kind.file]
        if files:
            _rewrite(objects, name, stored, stored_field_ids(stored), moved=(files, f"{old}/", f"{objects.root}/"))


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
        if not _has_ids(stored, table.ids):
            _rewrite(objects, found.key, stored, table.ids)
        file = read_description(objects, found.key, table.iceberg.schema())
        table.replace([file] if file.rows else [], key.partition)
        tables[name] = found.model_copy(update={"catalog_table": table.iceberg.name()[-1], "bytes": file.bytes})
    updated = result.model_copy(update={"tables": tables})
    objects.write(key.result, updated.model_dump_json(indent=1).encode())


def _has_ids(stored: pa.Schema, ids: FieldIds) -> bool:
    """Whether a file's columns have the field ids of their table."""
    return stored_field_ids(stored) == stored_field_ids(with_field_ids(stored, ids))


def _rewrite(
    objects: Objects,
    key: str,
    schema: pa.Schema,
    ids: FieldIds,
    *,
    moved: tuple[list[str], str, str] | None = None,
) -> None:
    """Writes a Parquet file once more: with other field ids, or with file references below another root."""
    index = json.loads((schema.metadata or {}).get(b"pandas", b"{}")).get("index_columns", [])
    with objects.reader(key) as stream:
        batches = pq.ParquetFile(stream).iter_batches(ROW_GROUP_ROWS)
        with DataFileWriter(objects, key, schema, ids, index=index) as writer:
            for batch in batches:
                table = pa.Table.from_batches([batch])
                for name in moved[0] if moved is not None else ():
                    table = _pointed(table, name, *moved[1:])  # pyright: ignore[reportOptionalSubscript]
                writer.write(table)


def _pointed(table: pa.Table, name: str, old: str, new: str) -> pa.Table:
    at = table.schema.get_field_index(name)
    values = table.column(at)
    inside = pc.starts_with(values, old)
    followed = pc.binary_join_element_wise(new, pc.utf8_slice_codeunits(values, len(old)), "")
    return table.set_column(at, table.schema.field(at), pc.if_else(inside, followed, values))


def _show_parts(catalog: Catalog, plan: RunPlan) -> None:
    """The finished rows of a run that is not finished, shown to readers again."""
    for part in stored_parts(plan):
        for file in part.files:
            planned = plan.tables.get(file.table)
            if planned is None:
                continue
            with plan.objects.reader(file.key) as stream:
                stored = pq.read_schema(stream)
            if not _has_ids(stored, planned.ids):
                _rewrite(plan.objects, file.key, stored, planned.ids)
            table = catalog.table(plan.key.experiment, planned.catalog_table)
            described = read_description(plan.objects, file.key)
            table.append([described], plan.key.partition, key=f"{plan.key.path}/{part.name}")
