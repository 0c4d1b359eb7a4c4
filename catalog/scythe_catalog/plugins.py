"""What other packages bring beside Scythe's own, by the entry points of a group. Knows none of them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points


@cache
def brought(group: str) -> dict[str, EntryPoint]:
    """The entry points of a group that are installed here, by name; asked once."""
    return {point.name: point for point in entry_points(group=group)}


def known(group: str, own: Mapping[str, str]) -> dict[str, EntryPoint]:
    """Scythe's own of a group (name -> `module:name`), which no package replaces, then those that are installed here."""
    others = {name: point for name, point in sorted(brought(group).items()) if name not in own}
    return {name: EntryPoint(name, place, group) for name, place in own.items()} | others
