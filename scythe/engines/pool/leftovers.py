"""The temporary folders of pools: named by the process that has them, so that those of dead ones can be told and removed.

Only folders that this module has made, of this user, are ever removed.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import socket
import tempfile
import time
from pathlib import Path

from scythe_catalog.processes import start_of

_NAME = re.compile(r"scythe-pool-(?P<place>[0-9a-f]{8})-(?P<pid>\d+)-(?P<start>\d+)-[0-9a-f]{8}")
#: A folder whose owner cannot be looked up from here is dead when it was not touched for so long.
_SILENT_SECONDS = 3600.0
_BEAT_SECONDS = 60.0


class PoolFolder:
    """A temporary folder of one pool; a child that the process forks has no part in it."""

    def __init__(self) -> None:
        name = f"scythe-pool-{_place()}-{os.getpid()}-{start_of(os.getpid()) or 0}-{secrets.token_hex(4)}"
        self.path = Path(tempfile.gettempdir()) / name
        self.path.mkdir(mode=0o700)
        self._owner, self._beaten = os.getpid(), time.monotonic()

    def beat(self) -> None:
        """Shows that the owner lives; may be called as often as one likes."""
        if time.monotonic() - self._beaten > _BEAT_SECONDS:
            self._beaten = time.monotonic()
            os.utime(self.path)

    def remove(self) -> None:
        """Removes it, by its owner alone."""
        if os.getpid() == self._owner:
            shutil.rmtree(self.path, ignore_errors=True)


def sweep_dead(folder: Path | None = None) -> list[Path]:
    """Removes the folders of pools whose process is gone, and gives them back."""
    swept: list[Path] = []
    try:
        found = list(os.scandir(folder or tempfile.gettempdir()))
    except OSError:  # a folder that cannot be listed has nothing that could be removed
        return swept
    for entry in found:
        named = _NAME.fullmatch(entry.name)
        if named is not None and _is_dead(entry, named):
            shutil.rmtree(entry.path, ignore_errors=True)  # another process may sweep it as well
            swept.append(Path(entry.path))
    return swept


def _is_dead(entry: os.DirEntry[str], named: re.Match[str]) -> bool:
    try:
        found = entry.stat(follow_symlinks=False)
    except OSError:
        return False
    if found.st_uid != os.getuid() or not entry.is_dir(follow_symlinks=False):
        return False
    if named["place"] == _place():
        start = start_of(int(named["pid"]))
        return start is None or int(named["start"]) not in (0, start)
    return time.time() - found.st_mtime > _SILENT_SECONDS


def _place() -> str:
    """Where process numbers mean the same: this host since it was started, and this container."""
    seen = [socket.gethostname()]
    for read in (
        lambda: Path("/proc/sys/kernel/random/boot_id").read_text(),
        lambda: str(Path("/proc/self/ns/pid").readlink()),
    ):
        try:
            seen.append(read())
        except OSError:  # not Linux
            continue
    return hashlib.blake2b("\n".join(seen).encode(), digest_size=4).hexdigest()
