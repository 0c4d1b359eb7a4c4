"""Whether the catalog shows all runs whose folders are there, and no others: who reads it would miss rows in silence."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Sequence

from scythe.errors import RunDamaged
from scythe.gather.publish import is_unpublished, unpublished
from scythe.record.find import run_keys
from scythe.record.generations import Generations
from scythe.record.layout import RunKey, folder_of
from scythe.record.results import finished_result
from scythe_catalog.iceberg.catalog import Catalog
from scythe_catalog.storage.objects import Objects


def not_shown(key: RunKey, files: Sequence[str] = ()) -> RunDamaged:
    """That the catalog has none of the rows of a run; or those of other `files` than its own."""
    what = f"the files of another end of it ({files[0]})" if files else "no rows of it"
    return RunDamaged(
        f"the run {key.path} is finished, and the catalog has {what}: was its folder copied here, or the catalog lost? "
        "`scythe rebuild` takes it in"
    )


def check_folders(catalog: Catalog, objects: Objects, name: str) -> None:
    """Nothing where all runs are there whose rows the catalog shows.

    Raises:
        RunDamaged: a run's folder was removed.
    """
    opened = Generations(catalog, name, objects).of("scalars")
    there = {(key.version, key.moment) for key in (*run_keys(objects, name), *unpublished(objects, name))}
    for one in opened:
        check_there(name, one.held(), there)


def check_there(name: str, held: Iterable[tuple[str, dt.datetime]], there: Collection[tuple[str, dt.datetime]]) -> None:
    """Nothing where of each version and moment that a table holds rows of a run is there.

    Raises:
        RunDamaged: a run's folder was removed.
    """
    gone = sorted({*held} - {*there})
    if gone:
        path = RunKey(name, gone[0][0], folder_of(gone[0][1])).path
        raise RunDamaged(
            f"the folder of the run {path} is gone, and its rows are still in the catalog: put it back, "
            f"or let `scythe delete {path}` clear up behind it"
        )


def check_shown(catalog: Catalog, objects: Objects, missed: Sequence[RunKey], table: str) -> None:
    """Nothing where runs, of which a table as it was opened holds nothing, have no rows in it; or have come to them since.

    Raises:
        RunDamaged: the catalog has no rows of one that has some.
    """
    if missed and table != "tasks":  # in which each run has rows that has any: others have none of their own
        known = {run for one in Generations(catalog, missed[0].experiment, objects).of("tasks") for run in one.held()}
        missed = [key for key in missed if (key.version, key.moment) not in known]
    results = objects.each(lambda key: finished_result(objects, key), missed)
    for key, result in zip(missed, results, strict=True):
        told = result.tables.get(table) if result is not None else None
        if told is None or not told.rows or told.untold or is_unpublished(objects, key):
            continue
        if not any(one.files(key.partition) for one in Generations(catalog, key.experiment, objects).of(table)):
            raise not_shown(key)
