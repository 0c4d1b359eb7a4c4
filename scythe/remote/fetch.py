"""Brings the bytes behind a URI into the cache: asked for where they have changed, downloaded once a machine.

Local files are used where they are. Never writes outside the cache.
"""

from __future__ import annotations

import stat
import time
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from scythe.errors import FetchError, ScytheError
from scythe.remote.cache import Address, Entry, Tags, cache_folder, keep_bounded
from scythe.remote.packed import is_packed, packed
from scythe.remote.schemes import is_in_bucket, is_remote, listed, split_object
from scythe.remote.shards import content_of
from scythe_catalog.redaction import holds_password, redacted

if TYPE_CHECKING:
    from scythe.settings import FetchSettings

    Download = Callable[[str, Entry | None, Path, FetchSettings], Tags | None]

_AT_ONCE = 32
_REMEMBERED = 100_000


class Fetched:
    """Files that one process needs for one run, each asked for once: the inputs of a run do not change under it."""

    def __init__(self) -> None:
        self._paths: dict[str, Path] = {}

    def one(self, uri: str) -> Path:
        """`fetch`, unless it has been already and is still there; raises FetchError."""
        if not is_remote(uri):
            return _fetch(uri, use_cache=True)
        path = self._paths.get(uri)
        if path is None or not path.exists():
            if len(self._paths) >= _REMEMBERED:
                self._paths.clear()
            path = self._paths[uri] = _fetch(uri, use_cache=True)
        return path

    def all(self, uris: Iterable[str]) -> dict[str, Path | FetchError]:
        """Many at once, remote ones in parallel; what cannot be had is an error in the place of its file."""
        wanted = list(dict.fromkeys(uris))
        remote = [uri for uri in wanted if uri not in self._paths and is_remote(uri)]
        found: dict[str, Path | FetchError] = {}
        if len(remote) > 1:
            with ThreadPoolExecutor(min(_AT_ONCE, len(remote))) as pool:
                found = dict(zip(remote, pool.map(self._or_error, remote), strict=True))
        return {uri: found[uri] if uri in found else self._or_error(uri) for uri in wanted}

    def _or_error(self, uri: str) -> Path | FetchError:
        try:
            return self.one(uri)
        except FetchError as error:
            return error

    @contextmanager
    def within(self) -> Generator[None]:
        """`fetch` inside of this block asks for the same files no more."""
        token = _within.set(self)
        try:
            yield
        finally:
            _within.reset(token)


_within: ContextVar[Fetched | None] = ContextVar("within", default=None)


def fetch(uri: object, *, use_cache: bool = True) -> Path:
    """A local file with the content of an `s3://`, `http(s)://` or `file://` URI or of a path, as tables of files have them.

    Local files are returned as they are, never copied. Others lie in a cache of this machine, which all processes share; a
    cached file is used if its server says that it has not changed. Inside of an experiment's function it is asked once.

    Args:
        uri: The address, or a path.
        use_cache: False downloads it again.

    Returns:
        The path of the file: only read it, others may use it too.

    Raises:
        FetchError: the file is missing, is a folder, its server does not give it, or the address holds a password.

    Examples:
        >>> import scythe
        >>> hourly = scythe.files("simulate_energy")["hourly"]
        >>> pl.read_parquet(scythe.fetch(hourly[0])).height
        24
    """
    text, known = str(uri), _within.get()
    return known.one(text) if known is not None and use_cache else _fetch(text, use_cache)


def fetch_all(uris: Iterable[str]) -> dict[str, Path | FetchError]:
    """`fetch` for many; what cannot be had is an error in the place of its file."""
    return Fetched().all(uris)


def _fetch(uri: str, use_cache: bool) -> Path:
    try:
        if not is_remote(uri):
            return _local(uri)
        if is_packed(uri):
            return _remote(uri, packed(uri).name, _shard, use_cache)
        name = _checked(uri).rstrip("/").rsplit("/", 1)[-1]
        return _remote(uri, name, _bucket if is_in_bucket(uri) else _web, use_cache)
    except FetchError:
        raise
    except FileNotFoundError as error:
        raise FetchError(redacted(f"{uri} does not exist")) from error
    except Exception as error:  # whatever it is, it is this file that cannot be had
        raise FetchError(redacted(f"{uri} cannot be fetched: {error}")) from error


def _local(uri: str) -> Path:
    path = Path(uri.removeprefix("file://"))
    if "://" in uri and not uri.startswith("file://") and not path.exists():
        raise FetchError(f"{uri} is none of file://, {listed()}, which can be fetched")
    if uri.startswith("file://") and not path.exists():
        path = Path(unquote(str(path)))  # others percent-encode their file URIs; Scythe and Iceberg do not
    try:
        mode = path.stat().st_mode  # one that cannot be looked at is another matter than one that is not there
    except (FileNotFoundError, NotADirectoryError):
        raise FetchError(f"the file {path} does not exist") from None
    if not stat.S_ISREG(mode):
        raise FetchError(f"the file {path} is a folder" if stat.S_ISDIR(mode) else f"{path} is no file")
    return path


def _checked(uri: str) -> str:
    """The path of a remote URI; raises FetchError where it holds a password."""
    parts = urlsplit(uri)
    if holds_password(uri):
        raise FetchError(f"{redacted(uri)} holds a password, which would be stored and shown: use a presigned URL")
    return uri if is_in_bucket(uri) else parts.path


def _remote(uri: str, name: str, download: Download, use_cache: bool) -> Path:
    from scythe.settings import (
        fetch_settings,  # not where nothing is fetched: it costs each process its share of a start
    )

    began, settings = time.time(), fetch_settings()
    address = Address(uri, name)
    with address.locked(settings.fetch_timeout.total_seconds()):
        entry = address.entry()
        known = entry if use_cache else None
        if known is not None and known.asked_since(began):  # by whoever had the lock while we waited for it
            return address.hand_out(known)
        partial = address.partial()
        try:
            tags = download(uri, known, partial, settings)
            if tags is None and known is not None:
                address.confirm(known)
                return address.hand_out(known)
            path = address.keep(partial, tags or Tags())
        finally:
            partial.unlink(missing_ok=True)
    keep_bounded(settings.cache_size)
    return path


def _shard(uri: str, known: Entry | None, target: Path, settings: FetchSettings) -> Tags | None:
    """What lies in a shard never changes: what the cache has is not asked for again."""
    if known is not None:
        return None
    target.write_bytes(content_of(packed(uri)))
    return Tags(uri)


def _web(url: str, known: Entry | None, target: Path, settings: FetchSettings) -> Tags | None:
    from scythe.remote.web import Limits, download

    return download(url, known, target, Limits(settings.fetch_timeout.total_seconds(), settings.fetch_size))


def _bucket(uri: str, known: Entry | None, target: Path, settings: FetchSettings) -> Tags | None:
    from scythe_catalog.storage import odd_keys
    from scythe_catalog.storage.provider import provider_of
    from scythe_catalog.storage.ranged import Ranged, Unchanged
    from scythe_catalog.storage.reach import bucket_of

    root, key = split_object(uri)
    unless = known.e_tag if known is not None else None
    try:
        if root.startswith("s3://") and odd_keys.is_odd(key):
            return Tags(odd_keys.save(bucket_of(root), key, target, unless))
        found = Ranged(provider_of(root), key, unless)
        found.save(target)
        return Tags(found.e_tag, found.last_modified)
    except Unchanged:
        return None
    except (ScytheError, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise FetchError(f"{uri} cannot be fetched: {error}") from error


__all__ = ["Fetched", "cache_folder", "fetch", "fetch_all"]
