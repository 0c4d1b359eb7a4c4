"""Objects of a bucket that never change once they are there, as what a run has stored: kept in the cache, and never asked for again.

Whole, or a range of one. Unlike `fetch` it locks nothing and hands no path out: who reads has the bytes, and two who fetch at
once do it twice.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from functools import lru_cache
from pathlib import Path

from scythe.errors import FetchError, StorageError
from scythe.remote.cache import cache_folder, hashed, keep_bounded, private_folder
from scythe.remote.schemes import split_object
from scythe_catalog.storage.objects import Objects

_WHOLE = "whole"
#: Looking how full the cache is costs as much as fetching a small file.
_LOOK_SECONDS = 5.0


def kept_file(uri: str, start: int | None = None, stop: int | None = None) -> Path:
    """Where the cache holds an object, or a range of it, if it does."""
    content = _WHOLE if start is None else f"{start}-{stop}"
    return cache_folder() / hashed(uri)[:32] / content / "bytes"


def published(uri: str, start: int | None = None, stop: int | None = None) -> bytes:
    """An object of a bucket, or its bytes from `start` until before `stop`: of the cache, else of the bucket, and then kept.

    Raises:
        FetchError: it is gone, cut short, or its bucket cannot be reached.
    """
    path = kept_file(uri, start, stop)
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return path.read_bytes()
    root, key = split_object(uri)
    try:
        objects = Objects.at(root)
        data = objects.read(key) if start is None or stop is None else objects.part(key, start, stop, None)
    except FileNotFoundError as error:
        raise FetchError(f"{uri} does not exist") from error
    except (StorageError, OSError) as error:
        raise FetchError(f"{uri} cannot be fetched: {error}") from error
    _keep(path, data)
    return data


def _keep(path: Path, data: bytes) -> None:
    private_folder(path.parent.parent)
    private_folder(path.parent)
    staged = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        with open(staged, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(data)
        staged.replace(path)
    except OSError:  # a full disk: it is read, and kept another time
        staged.unlink(missing_ok=True)
    _bound_now_and_then(int(time.monotonic() / _LOOK_SECONDS))


@lru_cache(maxsize=1)
def _bound_now_and_then(moment: int) -> None:
    from scythe.settings import fetch_settings  # not where nothing is fetched

    keep_bounded(fetch_settings().cache_size)


__all__ = ["kept_file", "published"]
