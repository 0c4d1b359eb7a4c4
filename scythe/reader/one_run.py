"""Reads one run: a lazy frame of one of its tables, as the catalog shows it once it is finished. Writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from scythe.errors import NotFoundError, ReadError, RunDamaged, TableNotFound
from scythe.gather.publish import is_unpublished
from scythe.gather.run_files import scan_parts, scan_result, schema_of_result
from scythe.gather.status import check_manifest, status_of
from scythe.names import ID_LEVELS, meant
from scythe.reader.choices import as_told, may_be_choices
from scythe.reader.shown import check_passed_over, finished_elsewhere, not_shown
from scythe.record.find import Reserved, candidates, find_run, known_runs, listed
from scythe.record.layout import RunKey, reservations
from scythe.record.manifest import renames_now
from scythe.record.plan import RunPlan
from scythe.record.results import RunResult, finished_result
from scythe_catalog.iceberg.scan import scan as scan_table
from scythe_catalog.storage.objects import Objects

if TYPE_CHECKING:
    from scythe_catalog.iceberg.catalog import Catalog

_SHOWN_STATES = 10


def one_run(objects: Objects, name: str, version: Any, run: Any) -> tuple[RunKey, RunResult | None]:
    """The run that is asked for, with its result if it has one; without `run` the version's latest that is finished.

    Raises:
        NotFoundError: listing what is there.
        RunDamaged: its result, or that of the latest finished run, is damaged, or the folder of that one was removed.
    """
    if run is not None:
        key = find_run(objects, name, version, run)
        return key, finished_result(objects, key)
    versions = candidates(objects, name, version)
    looks: list[Callable[[], Any]] = [
        lambda: _latest(objects, name, versions),
        lambda: objects.folders(reservations(name)) if version is None else [],
    ]
    (key, result, known), told = objects.each(lambda look: look(), looks)  # over a network at once
    lower = versions[versions.index(key.version) :]
    check_passed_over(objects, key, known, {*told} - {*lower})
    return key, result


def _latest(objects: Objects, name: str, versions: Sequence[str]) -> tuple[RunKey, RunResult, Reserved]:
    """The latest finished run of the first of some versions that has any run, and the reservations of its version."""
    for named in versions:
        keys, known = known_runs(objects, name, named)
        for key in reversed(keys):
            result = finished_result(objects, key)
            if result is not None:
                return key, result, known
            check_manifest(objects, key)
        # Where no run has a manifest, an allocation that was killed has left the version.
        if any(objects.exists(key.manifest) for key in reversed(keys)):
            raise _none_finished(objects, name, named, keys)
    raise _none_finished(objects, name, versions[0], [])


def _none_finished(objects: Objects, name: str, version: str, keys: Sequence[RunKey]) -> NotFoundError:
    there = [key for key in keys[-_SHOWN_STATES:] if objects.exists(key.manifest)]
    states = [f"{key.folder} ({status_of(objects, key)})" for key in there]
    return NotFoundError(
        f"{name} {version} has no finished run; its runs: {listed(states) if states else 'none'}. "
        f"Name one with run= to read what it has so far{finished_elsewhere(objects, name, [version])}"
    )


def scan_run(
    catalog: Catalog,
    objects: Objects,
    key: RunKey,
    result: RunResult | None,
    table: str,
    columns: Sequence[str] | None,
    ids: bool,
    *,
    check: bool = True,
) -> tuple[pl.LazyFrame, int | None]:
    """A table of a run, ordered by `sort_index`, and how many rows the catalog should have of it; None where it is not asked.

    `check` looks whether it has that file of it which the run's result names, which takes as long as finding its rows.

    Raises:
        NotFoundError: it has no such table or column.
        TableNotFound: the catalog has lost it.
        RunDamaged: the catalog has none of the run's rows, or others.
    """
    names, catalog_table = _known(objects, key, result, table)
    if result is not None and not (result.tables[table].untold or is_unpublished(objects, key)):
        try:
            opened = catalog.table(key.experiment, catalog_table)
        except TableNotFound as error:
            raise TableNotFound(
                f"{error}, and {key.path} is finished: make the catalog anew with `scythe rebuild`"
            ) from error
        told = result.tables[table]
        if check and (files := opened.files(key.partition)) != ([objects.uri(told.key)] if told.rows else []):
            raise not_shown(key, files)
        wanted = chosen(columns, names, table, ids, opened.renamed)
        frame, schema = scan_table(opened, key.partition, columns=wanted.stored), opened.schema.select(wanted.stored)
        if told.rows and may_be_choices(schema):
            with suppress(FileNotFoundError, RunDamaged):  # who reads the rows is told that they are gone, or damaged
                frame = as_told(frame, schema, [schema_of_result(objects, told).renamed(opened.renamed)])
        return frame.select(wanted.shown), told.rows
    # The catalog does not show it, or not all of it.
    renamed = renames_now(objects, key.experiment).of(table)
    wanted = chosen(columns, names, table, ids, renamed)
    if result is None:
        return scan_parts(RunPlan.load(objects, key), table, renamed).select(wanted.shown), None
    return scan_result(objects, result.tables[table], renamed).select(wanted.shown), None


def check_came(key: RunKey, result: RunResult | None, table: str) -> None:
    """Nothing where a table of a run was not left out when it was downloaded.

    Raises:
        NotFoundError: it was; the message says where it lies.
    """
    if result is not None and table in result.left_out:
        raise NotFoundError(
            f"the table {table!r} of {key.path} was left out when the run was downloaded; it lies at {result.left_out[table]}: "
            f"download the run again, with tables='all', or open that file"
        )


def _known(objects: Objects, key: RunKey, result: RunResult | None, table: str) -> tuple[list[str], str]:
    """The columns of a table of a run as its files have them, and its table in the catalog."""
    if result is not None:
        known = {name: (found.columns, found.catalog_table) for name, found in result.tables.items()}
    else:
        tables = RunPlan.load(objects, key).tables
        known = {name: (list(planned.schema.names), planned.catalog_table) for name, planned in tables.items()}
    check_came(key, result, table)
    if table not in known:
        later = "" if result is not None else "; dataframes can be read when the run is finished"
        why = ", for its output model has no field of type FileReference" if table == "result_file_refs" else ""
        raise NotFoundError(f"{key.path} has no table {table!r}{why}; it has {', '.join(sorted(known))}{later}")
    return known[table]


@dataclass(frozen=True)
class Chosen:
    """The columns that are asked for."""

    #: As they are called now, each once.
    stored: list[str]
    #: All of them, under the names by which they are asked for.
    shown: list[pl.Expr]


def chosen(
    columns: Sequence[str] | None, names: Sequence[str], table: str, ids: bool, renamed: Mapping[str, str]
) -> Chosen:
    """The columns that are asked for, if there are such; where none are, all, or all but the identifiers.

    Args:
        columns: As they are called now, or by a former name: then they are shown by that.
        names: Those that there are, as files have them.
        table: For messages.
        ids: Whether identifiers are among them where no columns are asked for.
        renamed: Former name -> name.

    Raises:
        NotFoundError: there is none of a name.
        ReadError: one is named twice, or `columns` is a single name.
    """
    there = [renamed.get(name, name) for name in names]
    if columns is None:
        kept = [name for name in there if ids or name not in ID_LEVELS]
        return Chosen(kept, [pl.col(kept)])
    if isinstance(columns, str | bytes):
        raise ReadError(f"columns={columns!r} is one name: give a list of names, [{columns!r}]")
    wanted = list(columns)
    now = [name if name in there else renamed.get(name, name) for name in wanted]
    for i, (name, column) in enumerate(zip(wanted, now, strict=True)):
        if column not in there:
            raise NotFoundError(
                f"the table {table!r} has no column {name!r}{meant(name, there)}; it has {', '.join(there)}"
            )
        if name in wanted[:i]:
            raise ReadError(f"the column {name!r} is asked for twice: a frame has one column of a name")
    return Chosen(
        list(dict.fromkeys(now)), [pl.col(column).alias(name) for name, column in zip(wanted, now, strict=True)]
    )
