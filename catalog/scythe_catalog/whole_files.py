"""Files outside of a root that somebody asked for: what was there stays until the new one is whole."""

from __future__ import annotations

import uuid
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def whole(path: Path) -> Generator[Path]:
    """Where to write a file that gets its name once the block has ended; what is no file, as /dev/stdout, is written as it is.

    Raises:
        OSError: its folder is not there, its name is that of a folder, or the disk is full.
    """
    if path.is_dir():
        raise IsADirectoryError(None, "it is a folder", str(path))
    if path.exists() and not path.is_file():
        yield path
        return
    path = path.resolve()  # a link stays one
    part = path.with_name(f".{uuid.uuid4().hex}.part")  # its writer's own, and no longer than any name may be
    try:
        yield part
        part.replace(path)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


__all__ = ["whole"]
