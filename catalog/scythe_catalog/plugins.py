"""What other packages bring, by the entry points of a group; and what lies at `module:name`. Knows none of them."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any


@cache
def brought(group: str) -> dict[str, EntryPoint]:
    """The entry points of a group that are installed here, by name; asked once."""
    return {point.name: point for point in entry_points(group=group)}


def at(place: str) -> Any:
    """What lies at `module:name`."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
