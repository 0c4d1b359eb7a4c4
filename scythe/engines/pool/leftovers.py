"""The temporary folders of pools: named by the process that has them, so that those of dead ones can be told and removed.

Only folders that this module has made, of this user, are ever removed.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import tempfile
import time
from pathlib import Path

from scythe_catalog.processes import Process

_NAME = re.compile(r"scythe-pool-(?P<place>[0-9a-f]{8})-(?P<pid>\d+)-(?P<start>\d+)-[0-9a-f]{8}")
#: A folder whose owner cannot be looked up from here is dead when it was not touched for so long.
_SILENT_SECONDS = 3600.0
_BEAT_SECONDS = 60.0
#: Longer names leave no room for a socket: `multiprocessing` adds 32 characters, and an address has at most 103 on macOS, 107 on Linux.
_LONGEST = 103 - 32
#: Where a short name for a longer one is.
_SHORT = Path("/tmp")


class PoolFolder:
    """A temporary folder of one pool; a child that the process forks has no part in it."""

    def __init__(self) -> None:
        mine = Process.this()
        name = f"scythe-pool-{mine.place}-{mine.pid}-{mine.start}-{secrets.token_hex(4)}"
        self.path = Path(tempfile.gettempdir()) / name
        self.path.mkdir(mode=0o700)
        self._link = _SHORT / name
        self._owner, self._beaten = mine.pid, time.monotonic()

    def short(self, path: str) -> str:
        """A name of something in it that leaves room for a socket; the same name where that does already, or none can be made."""
        if len(path) <= _LONGEST:
            return path
        try:
            if not self._link.is_symlink():
                self._link.symlink_to(self.path)
        except OSError:
            return path
        return str(self._link / Path(path).relative_to(self.path))

    def beat(self) -> None:
        """Shows that the owner lives; may be called as often as one likes."""
        if time.monotonic() - self._beaten > _BEAT_SECONDS:
            self._beaten = time.monotonic()
            for found in (self.path, self._link):
                with contextlib.suppress(FileNotFoundError):
                    os.utime(found, follow_symlinks=False)

    def remove(self) -> None:
        """Removes it, by its owner alone."""
        if os.getpid() == self._owner:
            _remove(self._link)
            _remove(self.path)


def sweep_dead(folder: Path | None = None) -> list[Path]:
    """Removes the folders of pools whose process is gone, and short names of them, and gives them back."""
    swept: list[Path] = []
    for place in [folder] if folder else {Path(tempfile.gettempdir()), _SHORT}:
        try:
            found = list(os.scandir(place))
        except OSError:  # a folder that cannot be listed has nothing that could be removed
            continue
        for entry in found:
            named = _NAME.fullmatch(entry.name)
            if named is not None and _is_dead(entry, named):
                swept.append(Path(entry.path))
                _remove(swept[-1])
    return swept


def _remove(path: Path) -> None:
    """Removes a folder or a link to one, if it is there: another process may sweep it as well."""
    if path.is_symlink():
        with contextlib.suppress(OSError):
            path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def _is_dead(entry: os.DirEntry[str], named: re.Match[str]) -> bool:
    try:
        found = entry.stat(follow_symlinks=False)
    except OSError:
        return False
    if found.st_uid != os.getuid() or not (entry.is_dir(follow_symlinks=False) or entry.is_symlink()):
        return False
    lives = Process(named["place"], int(named["pid"]), int(named["start"])).lives
    return lives is False or (lives is None and time.time() - found.st_mtime > _SILENT_SECONDS)
