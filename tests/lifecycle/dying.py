"""Storage that dies: from the n-th change on, nothing more is written, as for a process that was killed there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from scythe_catalog.storage.folder import Folder
from scythe_catalog.storage.objects import Objects

#: What changes something below a root.
CHANGES = ("write", "create", "upload", "publish", "link", "take_in", "delete", "delete_folder", "delete_empty_folders")


class Dead(BaseException):
    """The process was killed; no handler of its own is of any use to it."""


@contextmanager
def dying(after: int) -> Iterator[Callable[[], int]]:
    """Lets `after` changes through; gives a function that tells how many there were."""
    count, inside = 0, False

    def guarded(original: Callable[..., Any]) -> Callable[..., Any]:
        def change(self: Objects, *args: Any, **options: Any) -> Any:
            nonlocal count, inside
            if inside:  # one change made of others is one
                return original(self, *args, **options)
            if count >= after:
                raise Dead
            count += 1
            inside = True
            try:
                return original(self, *args, **options)
            finally:
                inside = False

        return change

    with pytest.MonkeyPatch.context() as patch:
        for name in CHANGES:
            patch.setattr(Folder, name, guarded(getattr(Folder, name)))
        yield lambda: count
