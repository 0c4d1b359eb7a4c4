"""The folders of inputs: one for each try, empty when it begins, and gone when it has ended, or given to the next one.

The latter only while inputs are trusted: they have started no program and no thread that could still work in it.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import stat
import tempfile
from _signal import getsignal  # pyright: ignore - `signal.getsignal` makes an enum of each answer, twenty times slower

#: The same as `tempfile.mkdtemp` makes: its owner's alone.
_MODE = 0o700


class Folders:
    """The folders of one chunk of inputs, within one that is made with the first of them."""

    def __init__(self) -> None:
        self._all: tempfile.TemporaryDirectory[str] | None = None
        self._real = ""
        self._made = 0
        #: One that was left as it had been made.
        self._free: str | None = None
        self._reaped = _reaped()

    def new(self, *, again: bool) -> str:
        """An empty folder, of a name that none had before; `again` may be the one that was left last, under that name."""
        if self._all is None:
            self._all = tempfile.TemporaryDirectory(prefix="scythe-", ignore_cleanup_errors=True)
            self._real = os.path.realpath(self._all.name)
        self._made += 1
        folder = f"{self._all.name}/{self._made}"
        free, self._free = self._free, None
        if free is not None and not again:
            shutil.rmtree(free, ignore_errors=True)
        if free is None or not again or not _renamed(free, folder):
            os.mkdir(folder, _MODE)  # noqa: PTH102 - for each input
        self._reaped = _reaped()
        return folder

    @property
    def real(self) -> str:
        """The newest folder with symbolic links followed."""
        return f"{self._real}/{self._made}"

    def leave(self, folder: str, *, again: bool) -> None:
        """Removes a folder with all that is in it, or keeps it for the next try, where there may be an `again`.

        To remove a folder, and make another, costs many times what it costs to give it another name on some disks.
        """
        if again and _is_as_made(folder) and self._is_alone():
            self._free = folder
            return
        try:
            os.rmdir(folder)  # noqa: PTH106 - after each input; it is empty where all that was in it is an output
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)

    def _is_alone(self) -> bool:
        """Whether the try has started no program: one that it left running may work in its folder, under whatever name.

        A child that has ended, and was waited for, may have left a program behind.
        """
        return _reaped() == self._reaped and not _has_children()

    def close(self) -> None:
        """Removes what is left of them (what was made read-only, say)."""
        if self._all is not None:
            self._all.cleanup()
            self._all = self._free = None


def _renamed(old: str, new: str) -> bool:
    try:
        os.rename(old, new)  # noqa: PTH104 - for each input
    except OSError:
        return False
    return True


def _is_as_made(folder: str) -> bool:
    try:
        found = os.lstat(folder)
        return found.st_mode == stat.S_IFDIR | _MODE and found.st_uid == os.geteuid() and not os.listdir(folder)  # noqa: PTH208
    except OSError:
        return False


def _reaped() -> object:
    """What the children of this process have used that were waited for; it grows with each."""
    return resource.getrusage(resource.RUSAGE_CHILDREN)


def _has_children() -> bool:
    """Whether this process has any, or may have had some of which nothing is told."""
    if not hasattr(os, "waitid") or getsignal(signal.SIGCHLD) == signal.SIG_IGN:
        return True
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True
