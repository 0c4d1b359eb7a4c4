"""A run's tables as lazy frames of its own files: what readers go by where the catalog does not show a run, or not yet.

Each input is there once, whichever process had the last word on it. Writes nothing, looks no run up.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from types import MappingProxyType

import polars as pl

from scythe.gather.final import coverage_of
from scythe.gather.merge import KEY
from scythe.gather.parts import failed, inputs_of, number_of, stored_parts
from scythe.record.format import reading
from scythe.record.plan import RunPlan
from scythe.record.results import TableResult
from scythe_catalog.iceberg.datafile import stored_schema
from scythe_catalog.iceberg.scan import scan_files
from scythe_catalog.schema import TableSchema
from scythe_catalog.storage.objects import Objects

_NOTHING: Mapping[str, str] = MappingProxyType({})


def scan_result(objects: Objects, table: TableResult, renamed: Mapping[str, str] = _NOTHING) -> pl.LazyFrame:
    """A table of a finished run, ordered by `sort_index`; columns that are `renamed` (old name -> new name) have their new names."""
    return scan_files(objects, [table.key], schema_of_result(objects, table)).rename(renamed, strict=False)


def schema_of_result(objects: Objects, table: TableResult) -> TableSchema:
    """The columns of a table of a finished run; raises RunDamaged where its file is none any more."""
    return schema_of_file(objects, table.key)


def schema_of_file(objects: Objects, key: str) -> TableSchema:
    """The columns of a Parquet file of a run.

    Raises:
        RunDamaged: it is none any more.
        FileNotFoundError: it is gone.
    """
    with reading(objects, key):
        return TableSchema.from_arrow(stored_schema(objects, key))


def scan_parts(plan: RunPlan, table: str, renamed: Mapping[str, str] = _NOTHING) -> pl.LazyFrame:
    """What an unfinished run has come to by now in one of the tables that its models determine, ordered by `sort_index`.

    Columns that are `renamed` (old name -> new name) have their new names.
    """
    objects, schema = plan.objects, plan.tables[table].schema
    parts = stored_parts(plan)
    coverage = coverage_of(plan, parts)
    whole: dict[int, list[str]] = defaultdict(list)
    frames: list[pl.LazyFrame] = [scan_files(objects, [], schema)]

    def scanned(keys: list[str], attempt: int) -> pl.LazyFrame:
        frame = scan_files(objects, keys, schema)
        told = table == "tasks" and "attempt" in schema
        return frame.with_columns(pl.lit(attempt, pl.Int64).alias("attempt")) if told else frame

    for number, part in enumerate(parts):
        keys = [file.key for file in part.files if file.table == table]
        lost = coverage.lost(number, inputs_of(plan, part)) if coverage.overlaps else ()
        if len(lost) == 0:
            whole[number_of(part.name)] += keys
        elif keys:
            frames.append(scanned(keys, number_of(part.name)).filter(~pl.col(KEY).is_in(pl.Series(lost).implode())))
    frames += [scanned(keys, attempt) for attempt, keys in whole.items()]
    return pl.concat(frames).sort(KEY, maintain_order=True).rename(renamed, strict=False)


def counts(plan: RunPlan) -> tuple[int, int]:
    """How many inputs of an unfinished run have come to a row, and how many to an error, by now."""
    parts = stored_parts(plan)
    coverage = coverage_of(plan, parts)
    if not coverage.overlaps:
        return sum(p.rows for p in parts), sum(p.errors for p in parts)
    failures = enumerate(failed(plan.objects, parts).values())
    errors = sum(int(coverage.owned(number, keys).sum()) for number, keys in failures)
    return coverage.done - errors, errors
