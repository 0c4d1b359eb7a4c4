"""Whether processes of this machine live, and since when. Starts and ends none."""

from __future__ import annotations

import os
from pathlib import Path


def exists(pid: object) -> bool:
    """Whether there is a process of this number; in doubt there is."""
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # of another user's
        return True
    return True


def start_of(pid: int) -> int | None:
    """When a process began, in the kernel's ticks since the machine did; 0 where that cannot be read, None where there is none."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0 if exists(pid) else None
