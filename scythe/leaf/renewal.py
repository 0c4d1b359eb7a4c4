"""When a worker process gives way to a fresh one: it has leaked handles or memory, or has run as many inputs as it may.

A leak fails every later input of its process, the innocent ones too. So the input that meets it is tried once more in
a fresh process, and that does not count as one of its tries. Knows no processes.
"""

from __future__ import annotations

import errno
import os
from typing import Any

_EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM))
#: What libraries say that have no number for it.
_SAYS = ("can't start new thread", "Too many open files", "Cannot allocate memory")
_CHAIN = 20
_SPARE_HANDLES = 8


class Spent(BaseException):
    """A process can run no more inputs: those of its chunk from `at` on go to a fresh one, the first after `tries` tries."""

    def __init__(self, at: int, tries: int = 0) -> None:
        super().__init__(at, tries)
        self.at, self.tries = at, tries
        #: What the inputs before it came to.
        self.result: Any = None


class Life:
    """What one worker process has run by now, and how much it may."""

    def __init__(self) -> None:
        #: How many inputs it has begun.
        self.ran = 0
        #: Whether an input has come to an end that was not exhaustion: where none has, a fresh process is no help.
        self.worked = False
        #: Given up for the results of what has been run: they need handles, too.
        self._spare = [os.open(os.devnull, os.O_RDONLY) for _ in range(_SPARE_HANDLES)]

    def give_way(self, at: int, most: int) -> None:
        """Raises Spent where the process has run as many inputs as it may."""
        if self.ran >= most:
            raise Spent(at)

    def failed(self, at: int, tries: int, error: BaseException) -> None:
        """Raises Spent where an input failed of what others have left behind."""
        if not is_exhaustion(error):
            self.worked = True
        elif self.worked:
            raise Spent(at, tries) from error

    def make_room(self) -> None:
        """Gives the spare handles up."""
        while self._spare:
            os.close(self._spare.pop())


def is_exhaustion(error: BaseException) -> bool:
    """Whether an exception, or one that it came of, says that handles, memory or threads have run out."""
    found: BaseException | None = error
    for _ in range(_CHAIN):
        if found is None:
            return False
        if isinstance(found, MemoryError) or (isinstance(found, OSError) and found.errno in _EXHAUSTED):
            return True
        # Its arguments, not its text: that is made by code of the user's.
        told = found.args[0] if found.args else None
        if type(told) is str and any(text in told for text in _SAYS):
            return True
        found = found.__cause__ or found.__context__
    return False
