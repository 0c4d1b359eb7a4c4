"""Reserves run folders, numbers the runs of a version, and clears up behind allocations that died. Allocates nothing.

A folder is taken by creating an object if it is absent, and stays taken: a deleted run's name, and with it the
identifiers of its inputs, never mean another run. The number is given once a run is stored whole.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import socket
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from scythe.errors import AllocationError, FormatError, RunDamaged, RunError
from scythe.record import layout
from scythe.record.find import Reserved, reserved
from scythe.record.format import FORMAT_KEY, dump, parse
from scythe.record.layout import RunKey
from scythe.record.manifest import read_manifest
from scythe_catalog.processes import Process
from scythe_catalog.storage.objects import Objects

_TRIES = 1000
#: How long nothing must have happened to half an allocation, by the store's own clock, until it counts as dead.
_DEAD = dt.timedelta(hours=1)


def reserve_folder(objects: Objects, experiment: str, version: str) -> RunKey:
    """A run folder that nobody else gets: its UTC start in whole seconds, or the next one that is free.

    Seconds of other versions are passed over, too: a folder's name alone then names a run, unless two were allocated at once.

    Raises:
        AllocationError: none is.
    """
    moment = dt.datetime.now(dt.UTC).replace(microsecond=0)
    owner = dump({"host": socket.gethostname(), **asdict(Process.this())})
    elsewhere = {key.folder for key in reserved(objects, experiment).taken}
    for _ in range(_TRIES + len(elsewhere)):
        key = RunKey(experiment, version, layout.folder_of(moment))
        if key.folder not in elsewhere and not objects.exists(key.manifest) and objects.create(key.reservation, owner):
            return key
        moment += dt.timedelta(seconds=1)
    raise AllocationError(f"no run folder of {experiment} {version} is free")


def next_number(objects: Objects, key: RunKey) -> int:
    """The number of a run in its version, behind all that are there; two at once may share one: their folders decide.

    Runs that have lost theirs, or whose allocation died before they had it, get the one that their manifest tells.
    """
    known = reserved(objects, key.experiment, key.version)
    folders = filter(layout.is_run_folder, objects.folders(f"{key.experiment}/{key.version}"))
    others = {RunKey(key.experiment, key.version, folder) for folder in folders} - {key}
    without = [other for other in others if other not in known.taken or other in known.half]
    for other in without:
        with contextlib.suppress(FileNotFoundError, RunDamaged, FormatError):
            restore(objects, other, read_manifest(objects, other))
    if without:
        known = reserved(objects, key.experiment, key.version)
    return known.next_number(key.version)


def give_number(objects: Objects, key: RunKey, number: int) -> None:
    """Makes a run, which is stored whole by now, the one of this number of its version."""
    objects.write(key.numbered(number), b"")


def restore(objects: Objects, key: RunKey, manifest: Mapping[str, Any]) -> None:
    """Reserves the folder of a run that is there, with the number that its manifest tells: for a root without its catalog."""
    objects.create(key.reservation, b"")
    found = manifest.get("number")
    if isinstance(found, int):
        give_number(objects, key, found)
    if (own := manifest.get("key")) is not None:
        record_key(objects, key, str(own), 1)


def record_key(objects: Objects, key: RunKey, own: str, number: int) -> bool:
    """Makes a run that of a caller's key of its `own`, in the record of this number, unless that is there."""
    record = dump({"key": own, "version": key.version, "folder": key.folder})
    return objects.create(layout.keyed(key.experiment, own, number), record)


def bury(objects: Objects, key: RunKey) -> None:
    """Records that a run is deleted: its folder stays taken."""
    objects.write(key.tombstone, dump({}))
    objects.create(key.reservation, dump({}))
    objects.delete(_numbers(objects, key))


def check_dead(objects: Objects, key: RunKey) -> None:
    """Nothing where the process of half an allocation is gone, or cannot be seen from here.

    Raises:
        RunError: it lives, on this machine.
    """
    process = allocating(objects, key)
    if process is not None and process.lives and process.pid != os.getpid():
        raise RunError(f"the run {key.path} is being allocated by process {process.pid}: wait for it, or end it")


def undo(objects: Objects, key: RunKey) -> None:
    """Removes all that there is of an allocation that never came to its end; nothing refers to it.

    Its version is free again, where no other run was ever allocated to it.
    """
    objects.delete([key.manifest])
    objects.delete_folder(key.path)
    objects.delete_empty_folders(key.path)
    objects.delete([*_numbers(objects, key), key.reservation])
    if not objects.found(f"{layout.reservations(key.experiment)}/{key.version}"):
        _free(objects, key.experiment, key.version)


def _free(objects: Objects, experiment: str, version: str) -> None:
    """Gives a version back that never had a run; of old records nobody knows whether there was one."""
    record = layout.version_record(experiment, version)
    with contextlib.suppress(FileNotFoundError, RunDamaged, FormatError):
        if FORMAT_KEY in parse(objects.read(record), record) and not objects.folders(f"{experiment}/{version}"):
            objects.delete([record])


def sweep(objects: Objects, mine: RunKey) -> None:
    """Removes what allocations of the same experiment left that died an hour ago or earlier.

    Ages are the store's: the time of this very allocation's reservation is its now.
    """
    found = reserved(objects, mine.experiment)
    for key in sorted(found.half - {mine}):
        if _is_dead(objects, key, found, found.taken[mine]):
            undo(objects, key)
    with_runs = {key.version for key in found.taken}
    for record in objects.found(layout.version_records(mine.experiment)):
        version = record.key.rsplit("/", 1)[-1].removesuffix(".json")
        if version not in with_runs and found.taken[mine] - record.modified > _DEAD:
            _free(objects, mine.experiment, version)


def _is_dead(objects: Objects, key: RunKey, found: Reserved, now: dt.datetime) -> bool:
    if now - found.taken[key] < _DEAD or objects.exists(key.manifest):
        return False
    if any(now - file.modified < _DEAD for file in objects.found(key.path)):
        return False
    process = allocating(objects, key)
    return process is None or not process.lives


def owner_of(objects: Objects, key: RunKey) -> Mapping[str, Any]:
    """The record of who has reserved a run; empty where there is none."""
    with contextlib.suppress(FileNotFoundError, RunDamaged, FormatError):
        return parse(objects.read(key.reservation), objects.uri(key.reservation))
    return {}


def allocating(objects: Objects, key: RunKey) -> Process | None:
    """The process that has reserved a run; None where that is not recorded."""
    owner = owner_of(objects, key)
    place, pid, start = owner.get("place"), owner.get("pid"), owner.get("start")
    if isinstance(place, str) and isinstance(pid, int) and isinstance(start, int):
        return Process(place, pid, start)
    return None


def _numbers(objects: Objects, key: RunKey) -> list[str]:
    number = reserved(objects, key.experiment, key.version).numbers.get(key)
    return [] if number is None else [key.numbered(number)]
