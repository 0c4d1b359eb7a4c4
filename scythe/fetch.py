"""Brings the bytes behind a URI into a cache that many processes share.

A cached file is keyed by address *and* content tag (ETag, or date and size), so a changed source is
fetched anew; it appears whole or not at all. Never writes outside the cache.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from scythe.errors import FetchError

_TIMEOUT_SECONDS = 60
_TRIES = 4
_AT_ONCE = 32


def fetch(uri: object, *, use_cache: bool = True) -> Path:
    """A local file with the content of an `s3://`, `http(s)://` or `file://` URI or of a path.

    Local files are returned as they are, never copied. `use_cache=False` fetches again even
    where the same content is cached.

    Raises:
        FetchError: the file is missing, is a folder, or its server does not give it.
    """
    text = str(uri)
    scheme = urlsplit(text).scheme
    if scheme == "s3":
        return _fetch_s3(text, use_cache)
    if scheme in ("http", "https"):
        return _fetch_http(text, use_cache)
    path = Path(text.removeprefix("file://"))
    if scheme == "file" and not path.exists():
        path = Path(unquote(str(path)))  # others percent-encode their file URIs; Scythe and Iceberg do not
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise FetchError(f"the file {path} {what}")
    return path


def fetch_all(uris: Iterable[str]) -> dict[str, Path | FetchError]:
    """`fetch` for many, asked once in the life of a process: the inputs of a run do not change under it.

    Remote ones are fetched in parallel. What cannot be had is an error in the place of its file.
    """

    def one(uri: str) -> Path | FetchError:
        try:
            return _fetch_once(uri)
        except FetchError as error:
            return error

    wanted = list(dict.fromkeys(uris))
    remote = [uri for uri in wanted if urlsplit(uri).scheme in ("s3", "http", "https")]
    found: dict[str, Path | FetchError] = {}
    if len(remote) > 1:
        with ThreadPoolExecutor(min(_AT_ONCE, len(remote))) as pool:
            found = dict(zip(remote, pool.map(one, remote), strict=True))
    return {uri: found[uri] if uri in found else one(uri) for uri in wanted}


def cache_folder() -> Path:
    """Where fetched files lie: `SCYTHE_CACHE_DIR`, or the user's cache folder."""
    named = os.environ.get("SCYTHE_CACHE_DIR")
    if named:
        return Path(named)
    from platformdirs import user_cache_path

    return user_cache_path("scythe") / "files"


def _fetch_http(url: str, use_cache: bool) -> Path:
    request = urllib.request.Request(url, headers={"User-Agent": "scythe-engine"})
    try:
        return _http(request, url, use_cache)
    except _Refused as error:
        raise FetchError(f"{url} answered {error}") from error
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        raise FetchError(f"{url} cannot be fetched: {error}") from error


def _http(request: urllib.request.Request, url: str, use_cache: bool) -> Path:
    import stamina

    for attempt in stamina.retry_context(on=_worth_another_try, attempts=_TRIES, timeout=_TIMEOUT_SECONDS):
        with attempt, _open(request) as answer:
            headers = answer.headers
            changed, length = headers.get("Last-Modified"), headers.get("Content-Length")
            tag = headers.get("ETag") or (f"{changed}-{length}" if changed else uuid.uuid4().hex)
            target = _cached(url, tag)
            if use_cache and target.is_file():
                return target
            partial = _partial(target)
            try:
                received = 0
                with partial.open("wb") as out:
                    while block := answer.read(1 << 20):
                        out.write(block)
                        received += len(block)
                expected = headers.get("Content-Length")
                if expected is not None and received != int(expected):
                    raise ConnectionError(f"got {received} of {expected} bytes")
                partial.replace(target)
            finally:
                partial.unlink(missing_ok=True)
            return target
    raise AssertionError("unreachable")


class _Refused(Exception):
    """A server's answer that is not the file."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code


def _open(request: urllib.request.Request) -> http.client.HTTPResponse:
    try:
        return urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        raise _Refused(error.code, error.reason) from None


def _worth_another_try(error: Exception) -> bool:
    if isinstance(error, _Refused):
        return error.code in (408, 425, 429) or error.code >= 500
    return isinstance(error, urllib.error.URLError | http.client.HTTPException | ConnectionError | TimeoutError)


def _fetch_s3(uri: str, use_cache: bool) -> Path:
    from obstore.exceptions import BaseError

    from scythe_catalog.ranged import Found

    bucket, _, key = uri.removeprefix("s3://").partition("/")
    try:
        found = Found(f"s3://{bucket}", key)
    except FileNotFoundError as error:
        raise FetchError(f"{uri} does not exist") from error
    except (BaseError, OSError) as error:
        raise FetchError(f"{uri} cannot be fetched: {error}") from error
    target = _cached(uri, found.tag)
    if use_cache and target.is_file():
        return target
    partial = _partial(target)
    try:
        found.save(partial)
        partial.replace(target)
    except (BaseError, OSError) as error:
        raise FetchError(f"{uri} cannot be fetched: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return target


def _cached(uri: str, tag: str) -> Path:
    """`<cache>/<hash of address and tag>/<file name>`: the name is kept, for programs that look at it."""
    name = unquote(urlsplit(uri).path).rstrip("/").rsplit("/", 1)[-1]
    name = "".join(c for c in name if c.isprintable()).lstrip(".")[:200] or "file"
    folder = cache_folder() / hashlib.sha256(f"{uri}\n{tag}".encode()).hexdigest()[:32]
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name


def _partial(target: Path) -> Path:
    return target.with_name(f".{uuid.uuid4().hex}.part")


@lru_cache(maxsize=4096)
def _fetch_once(uri: str) -> Path:
    return fetch(uri)
