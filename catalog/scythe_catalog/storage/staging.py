"""Where a file lies until it is whole: beside a local root, or in a private folder of this machine for a bucket.

Its name says whose it is (a process, as `processes` tells it), so that what a killed process left is swept. Never removes
what may still be written to.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import time
import uuid
from functools import lru_cache
from pathlib import Path

from scythe_catalog.processes import Process
from scythe_catalog.storage.disk import make_folder

#: Folder below a local root where files lie until they are whole.
STAGING = ".staging"
_PREFIX = "scythe-staging-"
_OWNER = re.compile(r"(?P<place>[0-9a-f]{8})\.(?P<pid>\d+)\.(?P<start>\d+)-")
#: How long the files of a dead process are kept, and those of a process of which nothing can be known.
_DEAD_SECONDS, _UNKNOWN_SECONDS = 3600.0, 24 * 3600.0
#: A table's metadata lies four folders below the root of the experiments.
_DEPTH = 4


def below(root: Path, name: str) -> Path:
    """A new path in the staging folder of a local root, or of the root that it lies in."""
    above = (p / STAGING for p in (root, *root.parents[:_DEPTH]))
    # One in a folder above the root may be somebody else's.
    folder = next((p for p in above if p.is_dir() and os.access(p, os.W_OK | os.X_OK)), root / STAGING)
    make_folder(folder)
    return folder / f"{_owner(os.getpid())}-{uuid.uuid4().hex}-{_short(name)}"


def private(name: str) -> Path:
    """A new path in a new folder of this machine that is its owner's alone; `drop` removes both."""
    folder = tempfile.mkdtemp(prefix=f"{_PREFIX}{_owner(os.getpid())}-")
    path = Path(folder) / _short(name)
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    return path


def drop(path: Path) -> None:
    """Removes a staged file that is wanted no more; one that is gone does not matter."""
    path.unlink(missing_ok=True)
    if path.parent.name.startswith(_PREFIX):
        with contextlib.suppress(OSError):
            path.parent.rmdir()


def sweep(root: Path | None) -> None:
    """Removes what dead processes left, of this root and of this user on this machine."""
    if root is not None and (root / STAGING).is_dir():
        for path in (root / STAGING).iterdir():
            if _is_left(path, path.name):
                with contextlib.suppress(OSError):
                    path.unlink()
    with os.scandir(tempfile.gettempdir()) as others:  # it may hold tens of thousands of files
        for path in [Path(one.path) for one in others if one.name.startswith(_PREFIX)]:
            if _is_left(path, path.name.removeprefix(_PREFIX)):
                shutil.rmtree(path, ignore_errors=True)


def _is_left(path: Path, name: str) -> bool:
    try:
        found = path.lstat()
        touched = max([found.st_mtime, *(file.lstat().st_mtime for file in (path.iterdir() if path.is_dir() else ()))])
    except OSError:
        return False
    if hasattr(os, "getuid") and found.st_uid != os.getuid():
        return False
    owner = _OWNER.match(name)
    lives = Process(owner["place"], int(owner["pid"]), int(owner["start"])).lives if owner is not None else None
    return not lives and time.time() - touched > (_DEAD_SECONDS if lives is False else _UNKNOWN_SECONDS)


@lru_cache(maxsize=1)
def _owner(_pid: int) -> str:
    mine = Process.this()
    return f"{mine.place}.{mine.pid}.{mine.start}"


def _short(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name, flags=re.ASCII)[-80:]
