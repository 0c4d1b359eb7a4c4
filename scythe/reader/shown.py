"""Whether the catalog shows all runs whose folders are there, and no others: who reads it would miss rows in silence."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Mapping, Sequence

from scythe.errors import RunDamaged
from scythe.gather.publish import is_unpublished, unpublished
from scythe.record.find import run_keys
from scythe.record.generations import Generations
from scythe.record.layout import RunKey, folder_of
from scythe.record.results import RunResult, finished_result, read_result
from scythe_catalog.iceberg.catalog import Catalog
from scythe_catalog.storage.objects import Objects


def not_shown(key: RunKey, files: Sequence[str] = ()) -> RunDamaged:
    """That the catalog has none of the rows of a run; or those of other `files` than its own."""
    what = f"the files of another end of it ({files[0]})" if files else "no rows of it"
    return RunDamaged(
        f"the run {key.path} is finished, and the catalog has {what}: was its folder copied here, or the catalog lost? "
        "`scythe rebuild` takes it in"
    )


def check_folders(catalog: Catalog, objects: Objects, name: str, *, latest: bool = False) -> None:
    """Nothing where all runs are there whose rows the catalog shows; with `latest`, a run of each version of which it shows some.

    Raises:
        RunDamaged: a run's folder was removed.
    """
    opened = Generations(catalog, name, objects).of("scalars")
    there = {(key.version, key.moment) for key in (*run_keys(objects, name), *unpublished(objects, name))}
    for one in opened:
        check_there(name, one.held(), there, latest=latest)


def check_there(
    name: str,
    held: Iterable[tuple[str, dt.datetime]],
    there: Collection[tuple[str, dt.datetime]],
    *,
    latest: bool = False,
) -> None:
    """Nothing where of each version and moment that a table holds rows of a run is there; with `latest`, of each version.

    Raises:
        RunDamaged: a run's folder was removed.
    """
    versions = {version for version, _ in there} if latest else ()
    gone = sorted(run for run in {*held} - {*there} if run[0] not in versions)
    if gone:
        path = RunKey(name, gone[0][0], folder_of(gone[0][1])).path
        raise RunDamaged(
            f"the folder of the run {path} is gone, and its rows are still in the catalog: put it back, "
            f"or let `scythe delete {path}` clear up behind it"
        )


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
        RunDamaged: the catalog has no rows of a run that has some, or those of another end of it.
    """
    results = objects.each(lambda key: read_result(objects, key), keys)
    for key, result in zip(keys, results, strict=True):
        if result is None or _as_told(objects, result, table, shown.get((key.version, key.moment), ())):
            continue
        if is_unpublished(objects, key):
            continue
        # It has ended anew meanwhile, or is half deleted.
        again = finished_result(objects, key)
        opened = Generations(catalog, key.experiment, objects).of(table)
        files = sorted(file for one in opened for file in one.files(key.partition))
        if again is not None and not _as_told(objects, again, table, files):
            raise not_shown(key, files)


def _as_told(objects: Objects, result: RunResult, table: str, files: Sequence[str]) -> bool:
    told = result.tables.get(table)
    if told is not None and told.untold:
        return True
    return [*files] == ([objects.uri(told.key)] if told is not None and told.rows else [])
