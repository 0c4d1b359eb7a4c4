"""Has libraries loaded without the garbage collector looking at them again and again: all that comes into being stays."""

from __future__ import annotations

import gc
import sys
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Generator[None]:
    """The collector rests until the end of the block, where it has not been told to anyway."""
    collects, loaded = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if collects:
            if len(sys.modules) > loaded:
                _made_old()
            gc.enable()


def _made_old() -> None:
    """All there is belongs to what is looked at least often, as if it had been looked at already."""
    if not gc.get_freeze_count():  # what somebody keeps from being looked at stays so
        gc.freeze()
        gc.unfreeze()
