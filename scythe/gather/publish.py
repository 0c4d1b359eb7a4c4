"""Makes the catalog and `final/` show what a run's result says: after each gather, and for one that died before it could.

The result is what counts: it was replaced in one step. All that is done here can be repeated, by whoever comes next,
and changes nothing then. Gathers nothing, runs nothing.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from scythe.errors import FormatError, RunDamaged, TableNotFound
from scythe.gather.parts import SHOWN, number_of, shown_files
from scythe.names import file_names
from scythe.record.attempts import latest_attempt
from scythe.record.format import dump, parse
from scythe.record.generations import Generations
from scythe.record.layout import RunKey, folder_of, unpublished_folder
from scythe.record.results import RunResult, located, read_result
from scythe_catalog.iceberg.catalog import Catalog
from scythe_catalog.iceberg.datafile import DataFile, read_description
from scythe_catalog.storage.objects import Objects


@dataclass(frozen=True)
class Gathered:
    """The files of one gather, as a catalog takes them, and the catalog's tables that hold nothing of the run any more."""

    files: Mapping[str, DataFile]
    left: tuple[str, ...] = field(default=())
    #: The gathers before that have the same rows in the same order: since then output files were packed, or the root was moved.
    same_rows: tuple[str, ...] = field(default=())

    def to_json(self) -> bytes:
        """The record as JSON."""
        files = {name: file.to_json() for name, file in self.files.items()}
        return dump({"files": files, "left": list(self.left), "same_rows": list(self.same_rows)})

    @classmethod
    def of(cls, objects: Objects, result: RunResult, key: RunKey) -> Gathered:
        """What was recorded of a result's files; those of an old result, and those that were written anew since, are looked at."""
        record: dict[str, Any] = {"files": {}, "left": []}
        if result.gather is not None:
            where = key.gathered_files(result.gather)
            record = parse(objects.read(where), objects.uri(where))
            if not {"files", "left"} <= {*record}:
                raise RunDamaged(f"{objects.uri(where)} is damaged: it does not tell of the run's files; restore it")
        files = {
            name: DataFile.from_json(record["files"][name])
            if name in record["files"] and _is_as_recorded(objects, table.key, record["files"][name]["bytes"])
            else read_description(objects, table.key)
            for name, table in result.tables.items()
        }
        below = {
            name: DataFile(objects.uri(result.tables[name].key), f.rows, f.bytes, f.statistics)
            for name, f in files.items()
        }
        return cls(below, tuple(record["left"]), tuple(record.get("same_rows", ())))

    def followed(self, gather: str | None) -> tuple[str, ...]:
        """What `same_rows` is of files that say the same as these, of a gather of this name, but for where files lie."""
        return (*self.same_rows, *([gather] if gather is not None else []))


def new_gather(key: RunKey, attempt: int, tables: Iterable[str]) -> tuple[str, dict[str, str]]:
    """The name of a gather that nobody else has, and where the files of a run's tables lie that it writes."""
    gather = f"{attempt:06d}-{uuid.uuid4().hex[:8]}"
    return gather, {name: key.gathered(gather, stem) for name, stem in file_names(tables).items()}


def _is_as_recorded(objects: Objects, key: str, size: int) -> bool:
    """Whether a file has the size of its record: one that came from elsewhere, with other addresses in it, has not."""
    try:
        return objects.size(key) == size
    except FileNotFoundError:
        return True  # whoever reads it says so


def same_rows(objects: Objects, result: RunResult, key: RunKey) -> tuple[str, ...]:
    """The gathers before a result's own that have its rows in its order."""
    where = key.gathered_files(result.gather) if result.gather is not None else None
    if where is None or not objects.exists(where):
        return ()
    return tuple(parse(objects.read(where), objects.uri(where)).get("same_rows", ()))


def record(objects: Objects, key: RunKey, result: RunResult, gathered: Gathered) -> None:
    """Makes a result the run's own: from the one step on in which it is written, it is what the run came to."""
    assert result.gather is not None
    objects.write(key.gathered_files(result.gather), gathered.to_json())
    objects.write(key.unpublished(result.gather), b"")
    objects.write(key.result, located(objects, result).model_dump_json(indent=1).encode())


def name_anew(objects: Objects, key: RunKey) -> None:
    """Gives the tables of a finished run new names before their references follow: a file that a snapshot names never changes."""
    result = read_result(objects, key)
    if result is None:
        return
    known = Gathered.of(objects, result, key)
    gather, keys = new_gather(key, result.attempt, result.tables)
    tables = {name: table.model_copy(update={"key": keys[name]}) for name, table in result.tables.items()}
    files = {name: replace(file, uri=objects.uri(keys[name])) for name, file in known.files.items()}
    named = result.model_copy(update={"tables": tables, "gather": gather})
    gathered = Gathered(files, known.left, known.followed(result.gather))
    # First: it is new, while further names of files are as old as these.
    objects.write(key.gathered_files(gather), gathered.to_json())
    for name, table in result.tables.items():
        objects.link(table.key, keys[name])
    record(objects, key, named, gathered)


def publish(
    objects: Objects, catalog: Catalog, key: RunKey, result: RunResult, gathered: Gathered, pending: Iterable[str]
) -> None:
    """Makes the files of a result all that the catalog holds of a run, shows them in `final/`, and clears up.

    Where another process has recorded a newer result meanwhile, that is what is published in the end, and nothing of a
    run that was deleted meanwhile. `pending` are the keys of what says that the catalog does not show it; they go last.
    """
    _publish_once(objects, catalog, key, result, gathered)
    while (newest := read_result(objects, key)) is not None and newest.gather != result.gather:
        result = newest
        _publish_once(objects, catalog, key, result, Gathered.of(objects, result, key))
    if objects.exists(key.manifest):
        objects.delete(pending)
        _clear_parts(objects, key, result.attempt)
    else:
        withdraw(objects, catalog, key)


def _publish_once(objects: Objects, catalog: Catalog, key: RunKey, result: RunResult, gathered: Gathered) -> None:
    def show(name: str) -> None:
        file = gathered.files[name]
        table = catalog.table(key.experiment, result.tables[name].catalog_table)
        table.replace([file] if file.rows else [], key.partition, forget=f"{key.path}/")

    def leave(name: str) -> None:
        with contextlib.suppress(TableNotFound):
            catalog.table(key.experiment, name).replace([], key.partition, forget=f"{key.path}/")

    objects.each(show, result.tables)
    objects.each(leave, gathered.left)
    if result.gather is not None and objects.exists(key.manifest):
        _show(objects, key, result)


def _show(objects: Objects, key: RunKey, result: RunResult) -> None:
    names = file_names(result.tables)
    objects.each(lambda name: objects.link(result.tables[name].key, key.final(names[name])), result.tables)
    shown = {key.final(stem) for stem in names.values()}
    folder = key.final("").rsplit("/", 1)[0]
    objects.delete([k for f in objects.files(folder) if (k := f"{folder}/{f}") not in shown])


def _clear_parts(objects: Objects, key: RunKey, attempt: int) -> None:
    """Removes the parts that are in a result now, and those that came too late for it; files that were shown stay."""
    there = objects.files(key.parts)
    names = [name for name in there if number_of(name) <= attempt and not name.endswith(SHOWN)]
    kept = shown_files(objects, key, there)
    objects.delete([gone for name in names if (gone := f"{key.parts}/{name}") not in kept])
    objects.delete_empty_folders(f"{key.parts}/part")


#: Of what says that the catalog may not show a run: it is being made one of this root, by a rebuild or a download.
ON_ITS_WAY = "rebuild"


def unpublished(objects: Objects, experiment: str) -> list[RunKey]:
    """The runs of an experiment whose newest result the catalog may not show yet: their own files tell."""
    found = [name.split("~") for name in objects.files(unpublished_folder(experiment))]
    return sorted({RunKey(experiment, *parts[:2]) for parts in found if len(parts) > 1})


def is_unpublished(objects: Objects, key: RunKey) -> bool:
    """Whether the catalog may not show a run's newest result yet."""
    return bool(_pending(objects, key))


def _pending(objects: Objects, key: RunKey) -> list[str]:
    folder, mine = unpublished_folder(key.experiment), f"{key.version}~{key.folder}~"
    return [f"{folder}/{name}" for name in objects.files(folder) if name.startswith(mine)]


def withdraw(objects: Objects, catalog: Catalog, key: RunKey) -> None:
    """Takes a run out of the catalog, and its folder away; begins with the manifest, so that half a run is none.

    Raises:
        StorageError: a file cannot be deleted; the rest is done by a call of `settle`.
    """
    objects.write(key.unpublished("deleted"), b"")
    objects.delete([key.manifest])
    for name in catalog.tables(key.experiment):
        catalog.table(key.experiment, name).replace([], key.partition, forget=f"{key.path}/")
    objects.delete_folder(key.path)
    objects.delete_empty_folders(key.path)
    objects.delete(_pending(objects, key))


def deleted_of(objects: Objects, experiment: str, runs: Iterable[tuple[str, dt.datetime]]) -> list[RunKey]:
    """Those of some runs without a folder, by version and moment, that were deleted."""
    keys = [RunKey(experiment, version, folder_of(moment)) for version, moment in runs]
    return [key for key in keys if objects.exists(key.tombstone) and not objects.exists(key.manifest)]


def withdraw_deleted(objects: Objects, catalog: Catalog, experiment: str) -> None:
    """Takes rows of deleted runs out of the catalog: whoever published one as it was deleted may have died before he could."""
    held = {run for _, one in Generations(catalog, experiment, objects).all() for run in one.held()}
    for key in deleted_of(objects, experiment, sorted(held)):
        withdraw(objects, catalog, key)


def settle(objects: Objects, catalog: Catalog, key: RunKey) -> None:
    """Finishes what a process that died has left: a result is published, a run that is half deleted goes whole."""
    pending = _pending(objects, key)
    if not objects.exists(key.manifest):
        withdraw(objects, catalog, key)
        return
    if any(name.endswith(f"~{ON_ITS_WAY}") for name in pending):
        return  # its files may not be as this root's tables and addresses want them: `rebuild`, or the download, ends that
    result = read_result(objects, key)
    if result is not None:
        publish(objects, catalog, key, result, Gathered.of(objects, result, key), pending)
    else:
        objects.delete(pending)


def settle_all(objects: Objects, catalog: Catalog, experiment: str) -> None:
    """`settle` for all runs of an experiment that nobody works on.

    One that is damaged stays as it is: its readers are told. So does one on its way here whose tables are not made yet: the
    download or `rebuild` that was killed is called again, and until then readers go by its own files.
    """
    for key in unpublished(objects, experiment):
        with contextlib.suppress(RunDamaged, FormatError, FileNotFoundError, TableNotFound):
            last = latest_attempt(objects, key, exact=True)
            # Whoever has ended it since may have begun to bring the run here again.
            if (last is None or not last.alive) and is_unpublished(objects, key):
                settle(objects, catalog, key)
