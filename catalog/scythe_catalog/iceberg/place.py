"""Which name of its folder the tables of a folder catalog were made by: one that links lead to has several."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

from scythe_catalog.storage.objects import Objects

_VERSION = re.compile(r"v(\d+)\.metadata\.json")
#: The root as it was given -> as its tables name it.
_found: dict[str, Objects] = {}


def as_made(objects: Objects, warehouse: str) -> Objects:
    """The same objects by the name of their folder that the tables in `warehouse`, a key of theirs, were made by.

    Addresses of files begin with the name of their root, and are compared as texts. So that a folder can be named through a link
    today and without it tomorrow, one of its names is that of all: the first. A folder that was moved keeps the name that it is given.
    """
    if objects.folder is None:
        return objects
    known = _found.get(objects.root) or _made(objects, warehouse)
    if known is None or not _is_same(known, objects):
        _found.pop(objects.root, None)
        return objects
    return _found.setdefault(objects.root, known)


def _made(objects: Objects, warehouse: str) -> Objects | None:
    with contextlib.suppress(OSError):  # whoever opens the root says what is wrong with it
        for table in _tables(objects, warehouse):
            location = _location(objects, table)
            if location is not None and location.startswith("file://") and location.endswith(f"/{table}"):
                return Objects.at(location.removesuffix(f"/{table}"))
    return None


def _tables(objects: Objects, warehouse: str) -> Iterator[str]:
    for namespace in objects.folders(warehouse):
        for table in objects.folders(f"{warehouse}/{namespace}"):
            yield f"{warehouse}/{namespace}/{table}"


def _location(objects: Objects, table: str) -> str | None:
    """Where a table says that it lies; None for a folder that is no table, or cannot be read as one."""
    files = objects.files(f"{table}/metadata")
    newest = max((int(m[1]) for f in files if (m := _VERSION.fullmatch(f))), default=None)
    if newest is None:
        return None
    try:
        location = json.loads(objects.read(f"{table}/metadata/v{newest}.metadata.json"))["location"]
    except (ValueError, KeyError, TypeError):
        return None
    return location if isinstance(location, str) else None


def _is_same(one: Objects, other: Objects) -> bool:
    assert one.folder is not None
    assert other.folder is not None
    return one.root == other.root or _same_file(one.folder, other.folder)


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False
