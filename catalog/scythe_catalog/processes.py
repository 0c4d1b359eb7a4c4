"""Processes as others know them: whether they live, and since when. Starts and ends none."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """A process as it stands in records and names of files, which others look at later, from wherever they are."""

    #: Where its number means it: a host, and the system or container on it (`place_of`).
    place: str
    pid: int
    #: When it began, in the kernel's ticks since its machine did; 0 where nobody could tell.
    start: int

    @classmethod
    def this(cls) -> Process:
        """The one that asks."""
        return cls(this_place(), os.getpid(), start_of(os.getpid()) or 0)

    @property
    def lives(self) -> bool | None:
        """Whether it lives; in doubt it does. None where nothing can be seen of it from here."""
        if self.place != this_place():
            return None
        now = start_of(self.pid)
        return now is not None and (not self.start or now in (0, self.start))


def place_of(host: str, system: str) -> str:
    """Where numbers of processes mean the same, in eight characters: of a host, and what `this_system` is on it."""
    return hashlib.blake2b(f"{host}\n{system}".encode(), digest_size=4).hexdigest()


def this_place() -> str:
    """Where the numbers of this process's machine, or container, mean what they do."""
    return place_of(socket.gethostname(), this_system())


@cache
def this_system() -> str:
    """What tells this running system, or container of it, from another of the same name; empty where nothing does."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    return ""


def start_of(pid: int) -> int | None:
    """When a process began, in the kernel's ticks since the machine did; 0 where that cannot be read, None where there is none."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0 if _exists(pid) else None


def _exists(pid: int) -> bool:
    """Whether there is a process of this number; in doubt there is."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # of another user's
        return True
    return True
