"""Metadata files of a table that it does not need any more: removed now and then, when they are old.

A commit leaves the metadata of before it, and manifests that it has rewritten; snapshots expire, and their manifests with
them. Iceberg removes none of these. What is younger than a day stays: it may be of a commit that goes on, or be read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from scythe_catalog.storage.objects import Found, Objects

if TYPE_CHECKING:
    import pyiceberg.table

#: What is younger [s] is never removed.
OLD_SECONDS = 24 * 3600.0
#: So many versions of a folder catalog's table stay, however old: a reader may go by a hint that is behind.
_KEPT_VERSIONS = 20
_VERSION = re.compile(r"v(\d+)\.metadata\.json")
_OURS = re.compile(r".*\.(avro|metadata\.json)")


def unneeded(table: pyiceberg.table.Table, now: float) -> list[Found]:
    """The metadata files of a table that neither it nor one of its snapshots names, and that are old by the store's time `now`."""
    objects = Objects.at(table.location())
    found = [f for f in objects.found("metadata") if _OURS.fullmatch(f.key)]
    old = [f for f in found if now - f.modified.timestamp() > OLD_SECONDS]
    if not old:
        return []
    named = set(_named(table))
    versions = [int(match[1]) for f in found if (match := _VERSION.search(f.key))]
    last = max(versions, default=0) - _KEPT_VERSIONS
    return [
        f
        for f in old
        if objects.uri(f.key) not in named and not ((match := _VERSION.search(f.key)) and int(match[1]) > last)
    ]


def _named(table: pyiceberg.table.Table) -> Iterator[str]:
    """The metadata files that a table, as it was loaded, or a snapshot of it names."""
    yield table.metadata_location
    for earlier in table.metadata.metadata_log:
        yield earlier.metadata_file
    for statistics in (*table.metadata.statistics, *table.metadata.partition_statistics):
        yield statistics.statistics_path
    for snapshot in table.metadata.snapshots:
        yield snapshot.manifest_list
        for manifest in snapshot.manifests(table.io):
            yield manifest.manifest_path
