"""Removes files that nothing names any more: of runs neither a result nor a snapshot, of tables neither they nor their snapshots.

First it ends what killed processes have left half done: a result that the catalog does not show yet, a deletion.
Of runs these are what earlier gathers have written, and what was shown while a run went on that has ended. Nothing else removes
them, so that who reads an earlier snapshot finds its files. Never touches what is newer than an hour, of metadata than a day.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Self

import pyarrow.parquet as pq

from scythe.errors import FormatError, RunDamaged
from scythe.gather.parts import SHOWN, number_of
from scythe.gather.publish import settle_all, withdraw_deleted
from scythe.record.attempts import latest_attempt, store_time
from scythe.record.find import experiment_names, run_keys
from scythe.record.format import reading
from scythe.record.generations import catalog_of
from scythe.record.layout import RunKey, gathers
from scythe.record.results import read_result
from scythe.reuse.owners import dependants_of, files_elsewhere
from scythe.settings import engine_settings
from scythe_catalog.compute import pc
from scythe_catalog.storage.objects import Found, Objects

_YOUNG_SECONDS = 3600.0


@dataclass(frozen=True)
class Collected:
    """What was removed."""

    files: int = 0
    bytes: int = 0

    @classmethod
    def of(cls, found: Collection[Found]) -> Self:
        """What these objects come to."""
        return cls(len(found), sum(one.size for one in found))

    def __add__(self, other: Collected) -> Collected:
        return Collected(self.files + other.files, self.bytes + other.bytes)


def collect(objects: Objects, said: Callable[[str], None] = lambda _: None, *, dry_run: bool = False) -> Collected:
    """Removes, of every run and every table of a root, the files that nothing names any more; how many, and how large.

    Args:
        objects: The root.
        said: Told a line about each run or table of which something was removed, or that cannot be looked through.
        dry_run: Removes nothing.
    """
    catalog = catalog_of(objects, engine_settings().catalog)
    now, total = store_time(objects), Collected()
    limit = now - _YOUNG_SECONDS
    for experiment in experiment_names(objects):
        if not dry_run:  # what a process that was killed has begun is brought to its end
            settle_all(objects, catalog, experiment)
            withdraw_deleted(objects, catalog, experiment)
        named: set[str] = set()
        for name in catalog.tables(experiment):
            table = catalog.table(experiment, name)
            named |= table.named_files()
            gone = Collected.of(table.tidy(now, dry_run=dry_run))
            if gone.files:
                said(f"the table {name} of {experiment}: {gone.files} files of metadata, {gone.bytes / 1e6:,.1f} MB")
            total += gone
        for key in run_keys(objects, experiment):
            try:
                found = _collect(objects, key, named, limit, dry_run=dry_run)
            except (RunDamaged, FormatError) as error:
                said(f"{key.path} is left as it is: {error}")
                continue
            if found.files:
                said(f"{key.path}: {found.files} files, {found.bytes / 1e6:,.1f} MB")
            total += found
    return total


def _collect(objects: Objects, key: RunKey, named: set[str], limit: float, *, dry_run: bool) -> Collected:
    # Before it is looked who works on the run, and which end it has: of a later one nothing is removed.
    there = objects.found(gathers(key))
    last = latest_attempt(objects, key, exact=True)
    result = read_result(objects, key)
    if result is None or (last is not None and last.alive):
        return Collected()
    kept = {table.key for table in result.tables.values()}
    kept |= {key.gathered_files(result.gather)} if result.gather is not None else set()
    parts = [found for found in objects.found(key.parts) if number_of(found.key.rsplit("/", 1)[-1]) <= result.attempt]
    # A table that is another name of an earlier gather's is as old as that: a gather is as old as the newest of its files.
    young = {_folder(found) for found in there if found.modified.timestamp() >= limit}
    gone = [
        found
        for found in [*there, *parts]
        if found.key not in kept
        and _folder(found) not in young
        and not found.key.endswith(SHOWN)
        and objects.uri(found.key) not in named
        and found.modified.timestamp() < limit
    ]
    if not result.left_out:  # the table that names the shards may be what did not come along
        left = {found.key for found in there} - {found.key for found in gone}
        gone += _unnamed_shards(objects, key, result.attempt, left, limit)
    if not dry_run:
        objects.delete([found.key for found in gone])
        # What leaves of a cluster had begun when their workers were lost.
        objects.delete_folder(key.begun(result.attempt).rpartition("/")[0])
        for gather in objects.folders(gathers(key)):  # of a process that was killed before it had written anything
            objects.delete_empty_folders(f"{gathers(key)}/{gather}/any")
        if not {found.key for found in parts if not found.key.endswith(SHOWN)} - {found.key for found in gone}:
            objects.delete([found.key for found in parts])
    return Collected.of(gone)


def _folder(found: Found) -> str:
    return found.key.rpartition("/")[0]


def _unnamed_shards(
    objects: Objects, key: RunKey, attempt: int, gathered: Collection[str], limit: float
) -> list[Found]:
    """The shards that no file of the gathers that are left names, nor a run that reused rows; none while an attempt behind the last end has rows."""
    shards = [found for found in objects.found(key.shard("").rstrip("/")) if found.modified.timestamp() < limit]
    if not shards or any(number_of(name) > attempt for name in objects.files(key.parts)):
        return []
    named = set[str]()
    for file in gathered:
        if file.endswith("/packs.pq"):
            with reading(objects, file), objects.reader(file) as stream:
                named.update(pc.unique(pq.read_table(stream, columns=["shard"]).column("shard")).to_pylist())
    gone = [found for found in shards if objects.uri(found.key) not in named]
    for other in dependants_of(objects, key) if gone else ():
        named.update(files_elsewhere(objects, other))
    return [found for found in gone if objects.uri(found.key) not in named]
