"""Finds the runs that a dataset is pinned to: those that are asked for now, and those of when it was made. Reads no rows of finished ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from scythe.define.renames import Renames
from scythe.errors import NotFoundError, RunDamaged, ScytheError
from scythe.gather.publish import same_rows
from scythe.gather.run_files import scan_parts
from scythe.loaders.pinned.run import LEFT, ROW_TABLES, Pin, PinnedRun, if_gone, together
from scythe.reader.beside import beside_deletions
from scythe.reader.many_runs import finished_runs, is_all
from scythe.reader.one_run import one_run
from scythe.reader.shown import Files, check_gone, gone_runs
from scythe.record.format import parse
from scythe.record.generations import catalog_of
from scythe.record.layout import RunKey
from scythe.record.manifest import renames_now
from scythe.record.plan import RunPlan
from scythe.record.results import RunResult, read_result
from scythe.remote.forks import check_fork
from scythe.settings import engine_settings
from scythe_catalog.storage.objects import Objects


def pinned(objects: Objects, name: str, version: Any, run: Any) -> list[PinnedRun]:
    """The runs that are asked for, oldest first, as `scythe.read` finds them.

    Raises:
        NotFoundError: there is none.
        RunDamaged: a run's folder was removed, and the catalog still shows its rows.
        ForkError: in a process that was forked beside running threads.
    """
    check_fork()

    def find() -> list[tuple[RunKey, RunResult | None]]:
        if is_all(version) or is_all(run):
            return [*finished_runs(objects, name, version, run)]
        return [one_run(objects, name, version, run)]

    def removed() -> Files:
        if is_all(run) or (is_all(version) and run is None):
            return gone_runs(catalog_of(objects, engine_settings().catalog), objects, name)
        return {}

    def look() -> tuple[Renames, list[tuple[RunKey, RunResult | None]]]:
        looks: list[Callable[[], Any]] = [lambda: renames_now(objects, name), find, removed]
        renames, found, gone = objects.each(lambda look: look(), looks)  # over a network at once
        check_gone(objects, name, gone, None if is_all(run) else [key for key, _ in found])
        return renames, found

    renames, found = beside_deletions(objects, name, look)
    return together(_pinned(objects, key, result, renames) for key, result in found)


def _pinned(objects: Objects, key: RunKey, result: RunResult | None, renames: Renames) -> PinnedRun:
    if result is not None:
        return PinnedRun(objects, key, result, renames)
    rows = scan_parts(RunPlan.load(objects, key), "scalars", renames.of("scalars")).collect()
    return PinnedRun(objects, key, None, renames, rows)


def at_pins(objects: Objects, name: str, pins: Sequence[Pin]) -> list[PinnedRun]:
    """The runs that were pinned.

    Raises:
        NotFoundError: one was deleted, or was not finished then.
        RunDamaged: one has ended anew, and the end that was pinned is gone.
        ForkError: in a process that was forked beside running threads.
    """
    check_fork()
    return together(_at(objects, name, pins))


def _at(objects: Objects, name: str, pins: Sequence[Pin]) -> Iterator[PinnedRun]:
    renames = renames_now(objects, name)
    for version, folder, gather in pins:
        key = RunKey(name, version, folder)
        result = read_result(objects, key) if objects.exists(key.manifest) else None
        if gather is None and objects.exists(key.manifest):
            raise NotFoundError(
                f"the run {key.path} was not finished when this dataset was made of it, and has its rows of then nowhere: "
                "make the dataset anew, or refresh() it"
            )
        if result is None or gather is None:
            what = f"the run {key.path} is not in {objects.root} any more as this dataset was made of it"
            raise NotFoundError(f"{what}{if_gone(objects) or LEFT}")
        if result.gather != gather:
            result = _earlier(objects, key, result, gather)
        yield PinnedRun(objects, key, result, renames)


def since_pinned(run: PinnedRun) -> str:
    """For a message, where a file of a run is gone: what became of the run; nothing where it is as it was, or cannot be asked."""
    try:
        if told := if_gone(run.objects):
            return told
        if not run.objects.exists(run.key.manifest):
            return f"; the run was deleted{LEFT}"
        now = read_result(run.objects, run.key)
    except (ScytheError, OSError):
        return ""
    if now is None or run.result is None or now.gather == run.result.gather:
        return ""
    return (
        "; the run has ended anew since this dataset was made, or its files were packed: make it anew, or refresh() it"
    )


def _earlier(objects: Objects, key: RunKey, now: RunResult, gather: str) -> RunResult:
    """The result of an earlier gather, by the record of its files; what else there is to its tables is as it is now."""
    if gather in same_rows(objects, now, key):
        return now.model_copy(update={"gather": gather})
    where = key.gathered_files(gather)
    files = parse(objects.read(where), objects.uri(where))["files"] if objects.exists(where) else {}
    # The root may lie elsewhere by now; and a root that was rebuilt has records that name the files of the gather before.
    tables = {
        name: table.model_copy(
            update={
                "key": f"{key.path}/{files[name]['uri'].rpartition(f'/{key.path}/')[2]}",
                "rows": files[name]["rows"],
                "bytes": files[name]["bytes"],
            }
        )
        for name, table in now.tables.items()
        if name in files
    }
    missing = {name for name, table in tables.items() if not objects.exists(table.key)} | ({"scalars"} - tables.keys())
    for name in missing.difference(ROW_TABLES):  # which only came later
        del tables[name]
    if missing.intersection(ROW_TABLES):
        raise RunDamaged(
            f"{key.path} has ended anew, and the end that was pinned ({gather}) is gone: refresh() the dataset, and train anew; a state of that end cannot be gone on with"
        )
    return now.model_copy(update={"gather": gather, "tables": tables})
