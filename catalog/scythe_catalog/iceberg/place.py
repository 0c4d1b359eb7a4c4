"""Which name of its folder the tables of a folder catalog were made by: one that links lead to has several."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

from scythe_catalog.storage.objects import Objects

#: A catalog of thousands of namespaces, none of which has a table here, is one that lies elsewhere.
_LOOKED_AT = 50


@dataclass(frozen=True)
class _Made:
    """How the tables below a root name it, as one of them told."""

    named: Objects
    #: That table's hint, which each commit writes, and its tag then.
    hint: str
    tag: str | None

    def holds(self, objects: Objects) -> bool:
        """Whether it is so still: nothing was committed to the table since, and both names lead to one folder."""
        return _tag(objects, self.hint) == self.tag and _is_same(self.named, objects)


#: The root as it was given -> as its tables name it.
_found: dict[str, _Made] = {}


def as_made(objects: Objects, warehouse: str) -> Objects:
    """The same objects by the name of their folder that the tables in `warehouse`, a key of theirs, were made by.

    Addresses of files begin with the name of their root, and are compared as texts. So that a folder can be named through a link
    today and without it tomorrow, one of its names is that of all: the first. A folder that was moved keeps the name that it is given.
    """
    if objects.folder is None:
        return objects
    made = _found.get(objects.root)
    if made is None or not made.holds(objects):
        made = _made(objects, warehouse)
        if made is None:
            return objects
        _found[objects.root] = made
    return made.named


def _made(objects: Objects, warehouse: str) -> _Made | None:
    """How the first table names the root; None where there is none, or where it names another folder: the root was moved."""
    with contextlib.suppress(OSError):  # whoever opens the root says what is wrong with it
        for table in _tables(objects, warehouse):
            hint = f"{table}/metadata/version-hint.text"
            tag, location = _tag(objects, hint), _location(objects, table, hint)
            if location is not None and location.startswith("file://") and location.endswith(f"/{table}"):
                named = Objects.at(location.removesuffix(f"/{table}"))
                return _Made(named, hint, tag) if _is_same(named, objects) else None
    return None


def _tag(objects: Objects, key: str) -> str | None:
    found = objects.described([key])
    return found[0].tag if found else None


def _tables(objects: Objects, warehouse: str) -> Iterator[str]:
    for namespace in objects.folders(warehouse)[:_LOOKED_AT]:
        for table in objects.folders(f"{warehouse}/{namespace}"):
            if not table.startswith("_"):  # records, that are no table's
                yield f"{warehouse}/{namespace}/{table}"


def _location(objects: Objects, table: str, hint: str) -> str | None:
    """Where a table says that it lies, by the metadata that are hinted at; None of a folder that is no table, or is damaged."""
    try:
        location = json.loads(objects.read(f"{table}/metadata/v{int(objects.read(hint))}.metadata.json"))["location"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return location if isinstance(location, str) else None


def _is_same(one: Objects, other: Objects) -> bool:
    if one.folder is None or other.folder is None:
        return False
    with contextlib.suppress(OSError):
        return one.root == other.root or one.folder.samefile(other.folder)
    return False


def are_one(one: str, other: str) -> bool:
    """Whether two addresses are those of one folder."""
    return _is_same(Objects.at(one), Objects.at(other))
