"""Objects of a bucket that never change once they are there, as what a run has stored: kept in the cache, and never asked for again.

Whole, or a range of one. Unlike `fetch` it locks nothing and hands no path out: who reads has the bytes, and two who fetch at
once do it twice.
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

from scythe.errors import FetchError, StorageError
from scythe.remote.cache import keep_bounded, private_folder, published_file
from scythe.remote.schemes import split_object
from scythe_catalog.storage.objects import Objects

_WHOLE = "whole"
#: Stands behind an object that is kept whole, of which nobody else knows how long it is.
_LENGTH = struct.Struct("<Q")
#: Looking how full the cache is costs as much as fetching a small file.
_LOOK_SECONDS = 5.0
#: So much may wait to be written into the cache.
_WAITING_BYTES = 256 * 1024 * 1024


def kept_file(uri: str, start: int | None = None, stop: int | None = None) -> Path:
    """Where the cache holds an object, or a range of it, if it does."""
    return published_file(uri, _WHOLE if start is None else f"{start}-{stop}")


def published(uri: str, start: int | None = None, stop: int | None = None) -> bytes | memoryview:
    """An object of a bucket, or its bytes from `start` until before `stop`: of the cache, else of the bucket, and then kept.

    Raises:
        FetchError: it is gone, cut short, or its bucket cannot be reached.
    """
    path = kept_file(uri, start, stop)
    if (data := _KEEPER.waiting.get(path)) is not None:
        return data
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if (kept := _as_kept(path.read_bytes(), start, stop)) is not None:
            return kept
    root, key = split_object(uri)
    try:
        objects = Objects.at(root)
        data = objects.read(key) if start is None or stop is None else objects.part(key, start, stop, None)
    except FileNotFoundError as error:
        raise FetchError(f"{uri} does not exist") from error
    except (StorageError, OSError) as error:
        raise FetchError(f"{uri} cannot be fetched: {error}") from error
    _KEEPER.keep(path, data)
    return data


def _as_kept(data: bytes, start: int | None, stop: int | None) -> bytes | memoryview | None:
    """What a file of the cache holds; None where a power cut has left less of it."""
    if start is not None and stop is not None:
        return data if len(data) == stop - start else None
    body, end = memoryview(data)[: -_LENGTH.size], data[-_LENGTH.size :]
    return body if len(end) == _LENGTH.size and _LENGTH.unpack(end) == (len(body),) else None


def waiting(uri: str, start: int | None = None, stop: int | None = None) -> bytes | memoryview | None:
    """What was fetched of it, while it waits to be written into the cache."""
    return _KEEPER.waiting.get(kept_file(uri, start, stop))


class _Keeper:
    """Writes into the cache what was fetched, behind the back of whoever has waited for it.

    Where more is waiting to be written than it holds, the fetching thread writes itself: a slow disk slows the fetching down.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: ThreadPoolExecutor | None = None
        #: What is not written yet, by its file.
        self.waiting: dict[Path, bytes | memoryview] = {}
        self._bytes = 0

    def keep(self, path: Path, data: bytes | memoryview) -> None:
        """Has the bytes written; all that waits for it is written before the process ends.

        Raises:
            FetchError: there can be no cache.
            SettingsError: a setting of the cache makes no sense.
        """
        private_folder(path.parent)
        limit = _limit(int(time.monotonic() / _LOOK_SECONDS))
        with self._lock:
            if path not in self.waiting and self._bytes + len(data) <= _WAITING_BYTES:
                if self._thread is None:
                    self._thread = ThreadPoolExecutor(1, thread_name_prefix="scythe-keeping")
                with contextlib.suppress(RuntimeError):  # the process is ending
                    self._thread.submit(self._write, path, data, limit)
                    self.waiting[path] = data
                    self._bytes += len(data)
                    return
        _keep(path, data, limit)

    def _write(self, path: Path, data: bytes | memoryview, limit: int) -> None:
        try:
            _keep(path, data, limit)
        finally:
            with self._lock:
                if self.waiting.pop(path, None) is not None:
                    self._bytes -= len(data)


_KEEPER = _Keeper()
os.register_at_fork(after_in_child=_KEEPER.__init__)


def _keep(path: Path, data: bytes | memoryview, limit: int) -> None:
    staged = path.with_name(f".{uuid.uuid4().hex}.part")
    end = _LENGTH.pack(len(data)) if path.name.endswith(_WHOLE) else b""
    try:
        with open(staged, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(data)
            file.write(end)
        staged.replace(path)
    except OSError:  # a full disk: it is read, and kept another time
        staged.unlink(missing_ok=True)
    _bound_now_and_then(int(time.monotonic() / _LOOK_SECONDS), limit)


@lru_cache(maxsize=1)
def _bound_now_and_then(moment: int, limit: int) -> None:
    keep_bounded(limit)


@lru_cache(maxsize=1)
def _limit(moment: int) -> int:
    from scythe.settings import fetch_settings  # not where nothing is fetched

    return fetch_settings().cache_size


__all__ = ["kept_file", "published", "waiting"]
