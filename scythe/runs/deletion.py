"""Deletes a run: from the catalog, then its folder, unless somebody works on it or other runs name its output files."""

from __future__ import annotations

from scythe.errors import NotFoundError, RunError
from scythe.gather.publish import withdraw
from scythe.gather.status import status_of
from scythe.record.attempts import check_free
from scythe.record.format import dump
from scythe.record.generations import catalog_of
from scythe.record.layout import RunKey
from scythe.record.reserve import bury, check_dead, undo
from scythe.record.results import read_result
from scythe.reuse.owners import all_dependants_of, check_unneeded, dependants_of
from scythe.runs.going_on import queued
from scythe.settings import engine_settings
from scythe_catalog.storage.objects import Objects


def delete_run(objects: Objects, key: RunKey, *, dependants: bool) -> None:
    """Deletes it, and with `dependants` the runs that name its output files.

    Raises:
        RunError: somebody works on it, or other runs name its output files.
        NotFoundError: it was deleted already.
        StorageError: the root cannot be reached.
        CatalogError: it was moved, and its catalog has not been made anew; or this is damaged.
    """
    status = status_of(objects, key)
    if status == "allocating":
        check_dead(objects, key)
        undo(objects, key)
        return
    catalog = catalog_of(objects, engine_settings().catalog)
    if status == "deleted" and not objects.found(key.path):
        withdraw(objects, catalog, key)
        raise NotFoundError(f"there is no run {key.path} any more: it was deleted")
    # What cannot be read now could not be cleared up later.
    objects.each(lambda name: catalog.table(key.experiment, name).files(key.partition), catalog.tables(key.experiment))
    if status != "damaged":  # whether somebody works on it is seen first of all: nobody does, or its record is lost
        _check_idle(objects, key)
    if dependants:
        for other in all_dependants_of(objects, key):  # all, before one of them goes
            if status_of(objects, other) != "damaged":
                _check_idle(objects, other)
        for other in reversed(dependants_of(objects, key)):
            delete_run(objects, other, dependants=True)
    try:
        check_unneeded(objects, key)
        objects.write(key.tombstone, dump({}))
        check_unneeded(objects, key)  # who reuses rows of it looks for the tombstone, once its manifest is there
    except RunError:
        if objects.exists(key.manifest):  # it stays; the tombstone may be that of a deletion that was killed
            objects.delete([key.tombstone])
        raise
    bury(objects, key)
    withdraw(objects, catalog, key)


def _check_idle(objects: Objects, key: RunKey) -> None:
    """Nothing where nobody works on a run, nor will once its turn on a cluster comes.

    Raises:
        RunError: somebody does, or will.
    """
    check_free(objects, key)
    result = read_result(objects, key)
    if queued(objects, key, result.attempt if result is not None else 0) is not None:
        raise RunError(f"the run {key.path} waits on its cluster: cancel it first")


__all__ = ["delete_run"]
