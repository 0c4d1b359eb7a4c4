"""Lists experiments and runs as frames: what there is, how it went, and what is wrong with it. Writes nothing."""

from __future__ import annotations

import datetime as dt
from typing import Any

import polars as pl

from scythe.define.typed import Named
from scythe.gather.status import Counts, Look, counts_of, look_at
from scythe.names import is_name
from scythe.record import layout
from scythe.record.find import (
    Reserved,
    experiment_names,
    latest_of,
    name_of,
    reserved,
    run_keys,
    version_names,
    versions_of,
)
from scythe.record.layout import RunKey
from scythe.record.manifest import label_of, manifest_told
from scythe.settings import storage


def list_experiments() -> pl.DataFrame:
    """The experiments of the root, as a Polars frame of one row each.

    Returns:
        The columns `name`, latest `version`, number of `versions` and `runs`, `run_datetime` of the latest run (UTC).

    Raises:
        SettingsError: a setting makes no sense.
        StorageError: the root cannot be reached.

    Examples:
        >>> import scythe
        >>> scythe.list_experiments().select("name", "version", "runs").rows()
        [('simulate_energy', 'v1.0.0', 1)]
    """
    objects = storage()
    found: list[tuple[str, str, int, int, dt.datetime | None]] = []
    for name in experiment_names(objects):
        versions = version_names(objects, name)
        folders = [key.folder for key in run_keys(objects, name, versions)]
        latest = layout.moment_of(max(folders)) if folders else None
        found.append((name, latest_of(objects, name, versions), len(versions), len(folders), latest))
    schema = {
        "name": pl.String, "version": pl.String, "versions": pl.Int64, "runs": pl.Int64,
        "run_datetime": pl.Datetime("us", "UTC"),
    }  # fmt: skip
    return pl.DataFrame(found, schema=schema, orient="row")


def list_runs(experiment: Named, *, tag: str | None = None) -> pl.DataFrame:
    """The runs of an experiment, as a Polars frame of one row each.

    Lowest version first, those of a version in the order in which they were allocated.

    Args:
        experiment: A name (with or without `scythe_experiment_`) or the registered function.
        tag: Only the runs that were allocated with it.

    Returns:
        The columns `name, version, run_datetime, run` (its folder), `number` (its place among the runs of its version; null
            for runs of before there were numbers), `status, inputs, rows, errors, seconds, bytes` (of its tables), `tags`,
            `note, problem` (what is wrong with it). What cannot be told of a damaged run is null.

    Raises:
        NotFoundError: there is no such experiment.
        SettingsError: a setting makes no sense.
        StorageError: the root cannot be reached.

    Examples:
        >>> import scythe
        >>> scythe.list_runs("simulate_energy").select("version", "status", "rows", "errors").rows()
        [('v1.0.0', 'finished', 3, 0)]
    """
    objects, name = storage(), name_of(experiment)
    taken = reserved(objects, name) if is_name(name) else Reserved()
    left = set(taken.taken) - taken.deleted  # half an allocation, or a run whose folder was removed, is named, too
    versions = version_names(objects, name) if left else versions_of(objects, name)
    keys = left | set(run_keys(objects, name, versions))
    found: list[tuple[Any, ...]] = []

    def told(key: RunKey) -> tuple[Look, Counts, str | None, list[str]]:
        look, counts = counts_of(objects, key, look_at(objects, key))
        return look, counts, *label_of(look.manifest or manifest_told(objects, key))

    ordered = taken.ordered(keys)
    for key, (look, counts, note, tags) in zip(ordered, objects.each(told, ordered), strict=True):
        if tag is not None and tag not in tags:
            continue
        size = sum(table.bytes for table in look.result.tables.values()) if look.result is not None else None
        found.append(
            (
                name, key.version, key.moment, key.folder, taken.numbers.get(key), look.status,
                counts.inputs, counts.rows, counts.errors, counts.seconds, size, tags, note, look.problem,
            )
        )  # fmt: skip
    schema = {
        "name": pl.String, "version": pl.String, "run_datetime": pl.Datetime("us", "UTC"), "run": pl.String,
        "number": pl.Int64, "status": pl.String, "inputs": pl.Int64, "rows": pl.Int64, "errors": pl.Int64,
        "seconds": pl.Float64, "bytes": pl.Int64, "tags": pl.List(pl.String), "note": pl.String, "problem": pl.String,
    }  # fmt: skip
    return pl.DataFrame(found, schema=schema, orient="row")
