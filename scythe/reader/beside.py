"""Looks at runs beside deletions: a run that is being deleted while it is looked at seems damaged for a moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import TypeVar

from scythe.errors import RunDamaged
from scythe.record.find import deletions
from scythe.record.layout import RunKey
from scythe_catalog.storage.objects import Objects

T = TypeVar("T")

#: A deletion that lasts longer has died.
_DELETION_SECONDS, _PAUSE_SECONDS = 5.0, 0.05


def beside_deletions(objects: Objects, name: str, look: Callable[[], T]) -> T:
    """What a look at runs of an experiment gives; anew where one seemed damaged, as one does that is deleted while it is looked at.

    Raises:
        RunDamaged: one still does, and none was being deleted while it was looked at; or a deletion comes to no end.
    """
    before: tuple[Collection[RunKey], Collection[RunKey]] | None = None
    until = time.monotonic() + _DELETION_SECONDS
    while True:
        try:
            return look()
        except RunDamaged:
            now = deletions(objects, name)
            if (now == before and not now[1]) or time.monotonic() > until:
                raise
            before = now
            time.sleep(_PAUSE_SECONDS if now[1] else 0.0)
