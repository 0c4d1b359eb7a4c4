"""Whether the catalog shows all runs whose folders are there, and no others: who reads it would miss rows in silence."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress

from scythe.errors import NotFoundError, RunDamaged
from scythe.gather.parts import stored_parts
from scythe.gather.publish import deleted_of, is_unpublished, unpublished
from scythe.names import file_names
from scythe.record.find import Reserved, reserved_above, run_keys, versions_of
from scythe.record.generations import Generations, catalog_of
from scythe.record.layout import RunKey, folder_of
from scythe.record.plan import RunPlan
from scythe.record.results import RunResult, check_not_lost, finished_result, read_result
from scythe.settings import engine_settings
from scythe_catalog.iceberg.catalog import Catalog
from scythe_catalog.storage.objects import Objects


def not_shown(key: RunKey, files: Sequence[str] = ()) -> RunDamaged:
    """That the catalog has none of the rows of a run; or those of other `files` than its own."""
    what = f"the files of another end of it ({files[0]})" if files else "no rows of it"
    return RunDamaged(
        f"the run {key.path} is finished, and the catalog has {what}: was its folder copied here, or the catalog lost? "
        "`scythe rebuild` takes it in"
    )


def gone_file(objects: Objects, key: RunKey, result: RunResult | None, table: str) -> RunDamaged | None:
    """That a file of a table of a run is gone, and what brings it back; None where all are there."""
    files = [result.tables[table].key] if result is not None and table in result.tables else []
    if result is None:
        with suppress(NotFoundError, RunDamaged):  # it is being allocated, or damaged otherwise
            parts = stored_parts(RunPlan.load(objects, key))
            files = [file.key for part in parts for file in part.files if file.table == table]
    there = {found.key for found in objects.described(files)}
    if not (gone := [file for file in files if file not in there]):
        return None
    way = "restore it"
    if result is not None:
        shown = key.final(file_names(result.tables)[table])
        if any(found.size == result.tables[table].bytes for found in objects.described([shown])):
            way = f"copy {objects.uri(shown)} there, which has the same rows"
    return RunDamaged(
        f"{objects.uri(gone[0])} is gone, of the table {table!r} of {key.path}: {way}, or delete the run (`scythe delete {key.path}`)"
    )


#: URIs of the data files that a table holds of runs, by version and moment.
Files = Mapping[tuple[str, dt.datetime], Collection[str]]


def gone_runs(catalog: Catalog, objects: Objects, name: str) -> Files:
    """What the catalog has of runs whose folders were removed, by other hands than `scythe delete`."""
    opened = Generations(catalog, name, objects).of("scalars")
    there = {(key.version, key.moment) for key in (*run_keys(objects, name), *unpublished(objects, name))}
    gone = {run: held.files for one in opened for run, held in one.held().items() if run not in there}
    deleted = {(key.version, key.moment) for key in deleted_of(objects, name, gone)}
    return {run: files for run, files in gone.items() if run not in deleted}


def check_gone(objects: Objects, name: str, gone: Files, chosen: Iterable[RunKey] | None = None) -> None:
    """Nothing where none of the runs whose folders were removed is asked for.

    All are; where others were `chosen`, only those that had been finished, and come after the chosen one of their version.

    Raises:
        RunDamaged: one is asked for; the catalog still has its rows.
    """
    if chosen is not None:
        latest = {key.version: key.moment for key in chosen}
        ended = _ended(objects, name, gone)
        gone = {(v, moment): files for (v, moment), files in ended.items() if v not in latest or moment > latest[v]}
    _refuse(name, gone)


def _ended(objects: Objects, name: str, files: Files) -> Files:
    """Those of runs that had been finished: of others the catalog has parts, the rows so far."""
    parts = {run: f"{objects.uri(RunKey(name, run[0], folder_of(run[1])).parts)}/" for run in files}
    return {run: held for run, held in files.items() if not all(file.startswith(parts[run]) for file in held)}


def _refuse(name: str, gone: Files) -> None:
    if gone:
        version, moment = min(gone)
        path = RunKey(name, version, folder_of(moment)).path
        raise RunDamaged(
            f"the folder of the run {path} is gone, and its rows are still in the catalog: put it back, "
            f"or let `scythe delete {path}` clear up behind it"
        )


def check_passed_over(objects: Objects, key: RunKey, known: Reserved, versions: Iterable[str]) -> None:
    """Nothing where behind the run that is taken for the latest no finished one was removed by hand.

    Args:
        objects: The root.
        key: The run.
        known: The reservations of its version.
        versions: Those among which higher ones count, too.

    Raises:
        RunDamaged: one was; the catalog still has its rows.
    """
    later = [*known.after(key), *reserved_above(objects, key, versions)]
    removed = {(one.version, one.moment) for one in later if not objects.exists(one.manifest)}
    if removed:  # which is rare: the catalog is not asked else
        generations = Generations(catalog_of(objects, engine_settings().catalog), key.experiment, objects)
        opened = [one for table in ("scalars", "tasks") for one in generations.of(table)]
        held = {run: there.files for one in opened for run, there in one.held().items() if run in removed}
        _refuse(key.experiment, _ended(objects, key.experiment, held))


def check_shown(
    catalog: Catalog,
    objects: Objects,
    keys: Sequence[RunKey],
    table: str,
    shown: Mapping[tuple[str, dt.datetime], Sequence[str]],
) -> None:
    """Nothing where a table, as it was opened, shows of each finished run the rows that its result tells of; or does since.

    Args:
        catalog: Where it lies.
        objects: The root.
        keys: The runs.
        table: Which.
        shown: Version and moment of a run -> URIs of the data files that the table holds of it.

    Raises:
        RunDamaged: the catalog has no rows of a run that has some, or those of another end of it; or a run has lost its result.
    """
    results = objects.each(lambda key: read_result(objects, key), keys)
    for key, result in zip(keys, results, strict=True):
        files = shown.get((key.version, key.moment), ())
        if result is None and not files:
            check_not_lost(objects, key)
        if result is None or _as_told(objects, result, table, files):
            continue
        if is_unpublished(objects, key):
            continue
        # It has ended anew meanwhile, or is half deleted.
        again = finished_result(objects, key)
        opened = Generations(catalog, key.experiment, objects).of(table)
        newest = sorted(file for one in opened for file in one.files(key.partition))
        if again is not None and not _as_told(objects, again, table, newest):
            raise not_shown(key, newest)


def _as_told(objects: Objects, result: RunResult, table: str, files: Sequence[str]) -> bool:
    told = result.tables.get(table)
    if told is not None and told.untold:
        return True
    return [*files] == ([objects.uri(told.key)] if told is not None and told.rows else [])


def finished_elsewhere(objects: Objects, name: str, looked_at: Collection[str]) -> str:
    """For a message: the latest version beside those that were looked at which has a finished run; empty where none has."""
    for version in map(str, reversed(versions_of(objects, name))):
        if version not in looked_at and any(objects.exists(k.result) for k in run_keys(objects, name, [version])):
            return f"; {version} has a finished one: version={version!r}"
    return ""
