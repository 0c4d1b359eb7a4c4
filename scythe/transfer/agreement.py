"""Whether a run may come to a root: not where its version, or one of its dataframes, has other columns there.

Nothing is read but records and the footers of tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from scythe.errors import RunError, TransferError
from scythe.gather.dataframe_rule import check_dataframe
from scythe.gather.run_files import schema_of_file
from scythe.names import RESERVED_TABLES
from scythe.record import layout
from scythe.record.format import parse
from scythe.record.layout import RunKey
from scythe.record.manifest import binding, renames_until, schemas_of_version
from scythe.record.plan import RunPlan
from scythe.record.results import RunResult
from scythe_catalog.schema import TableSchema, mixed_meanings, mixed_units
from scythe_catalog.storage.objects import Objects


def check_agrees(
    source: Objects, target: Objects, key: RunKey, result: RunResult | None, tables: Iterable[str], *, way_out: str
) -> None:
    """Nothing where a run's version is free in another root, or has the same columns there, and so have its dataframes.

    Args:
        source: The root that the run is in.
        target: The root that it is to come to.
        key: The run.
        result: What it has come to; None where it is not finished.
        tables: Those of its tables that are to come.
        way_out: What is told behind the reason: what was not done, and what may be done instead.

    Raises:
        TransferError: the columns are others there.
    """
    where = layout.version_record(key.experiment, key.version)
    try:
        there = parse(target.read(where), target.uri(where))
    except FileNotFoundError:
        there = schemas_of_version(target, key.experiment, key.version)
    here = schemas_of_version(source, key.experiment, key.version)
    if there is not None and here is not None and (binding(there) != binding(here) or _stand_for_others(there, here)):
        raise TransferError(
            f"{key.experiment} {key.version} has other columns in {target.root} than in {source.root}: {way_out}"
        )
    frames = [name for name in tables if name not in RESERVED_TABLES] if result is not None else []
    if result is None or not frames:
        return
    plan, renames = RunPlan.load(source, key), renames_until(source, key.experiment, key.version)
    for name in frames:
        schema = schema_of_file(source, result.tables[name].key)
        try:
            check_dataframe(target, plan, name, schema, renames)
        except RunError as error:
            told = str(error).partition("\nNothing is lost")[0]
            raise TransferError(f"{told}\nIn {target.root} it is so: {way_out}") from None


def _stand_for_others(there: Mapping[str, Any], here: Mapping[str, Any]) -> bool:
    """Whether a column is in another unit, or a category of it means something else."""
    for side in ("input", "output"):
        both = [TableSchema.from_json(schemas[side]) for schemas in (there, here)]
        if mixed_units(both) or mixed_meanings(both):
            return True
    return False


__all__ = ["check_agrees"]
