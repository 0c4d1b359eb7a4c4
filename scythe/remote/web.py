"""Files of web servers (`http://`, `https://`): asked for only where they have changed, and taken whole or not at all.

Repeats what the network or the server failed at, within limits of time and size. Knows nothing of the cache.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from scythe.errors import FetchError
from scythe.remote.cache import Entry, Tags
from scythe_catalog.redaction import redacted
from scythe_catalog.storage.repeated import repeated

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, PoolManager

#: How long failures of the network and of the server are repeated, and how long a server is heeded that asks for patience.
PATIENCE_SECONDS, THROTTLED_SECONDS = 30.0, 150.0
_CONNECT_SECONDS, _SILENCE_SECONDS = 10.0, 60.0
_LONGEST_WAIT_SECONDS = 15.0
_BLOCK = 1 << 20
_THROTTLED = (429, 503)
_REDIRECTS = 10


@dataclass(frozen=True)
class Limits:
    """How long a download may take and how large a file may be, and the settings that say so."""

    seconds: float
    bytes: int


def download(url: str, known: Entry | None, target: Path, limits: Limits) -> Tags | None:
    """Writes what a URL gives into a file; None where the server says that it still is what is known.

    Raises:
        FetchError: the server does not give it, or not within the limits.
    """
    from urllib3.exceptions import HTTPError

    began = time.monotonic()
    try:
        for attempt in repeated(redacted(url), lambda error: _again(error, began), _LONGEST_WAIT_SECONDS):
            with attempt:
                return _once(url, known, target, limits, began + limits.seconds)
    except _NoFile as error:
        raise FetchError(redacted(f"{url} answered {error}")) from error
    except (HTTPError, OSError, ValueError, FetchError) as error:
        raise FetchError(redacted(f"{url} cannot be fetched: {_told(error)}")) from None
    raise AssertionError("unreachable")


def _once(url: str, known: Entry | None, target: Path, limits: Limits, until: float) -> Tags | None:
    too_large = FetchError(f"it is larger than {limits.bytes:,} bytes: raise SCYTHE_FETCH_SIZE")
    headers = {"User-Agent": "scythe-engine", "Accept-Encoding": "identity"}
    if known is not None and known.e_tag:
        headers["If-None-Match"] = known.e_tag
    # Without one it is asked for outright, and left where its head tells of what is known: "not modified since" is said of an
    # older file, too, that was put in the place of the known one.
    with _answer(url, headers) as answer:
        found = Tags(answer.headers.get("ETag"), answer.headers.get("Last-Modified"))
        length = answer.headers.get("Content-Length")
        if known is not None and (answer.status == 304 or (answer.status == 200 and _is(known, found, length))):
            return None
        if answer.status not in (200, 203):
            raise _NoFile(answer)
        if length is not None and int(length) > limits.bytes:
            raise too_large
        received = 0
        with target.open("wb") as out:
            while block := answer.read1(_BLOCK, decode_content=False):
                received += len(block)
                if received > limits.bytes:
                    raise too_large
                if time.monotonic() > until:
                    raise FetchError(f"it took longer than {limits.seconds:,.1f} s: raise SCYTHE_FETCH_TIMEOUT")
                out.write(block)
        if length is not None and received != int(length):
            raise ConnectionError(f"got {received} of {length} bytes")
        return found


def _is(known: Entry, found: Tags, length: str | None) -> bool:
    """Whether a server that does not know conditional requests shows what is known already."""
    if found.e_tag or known.e_tag:
        return found.e_tag == known.e_tag
    return found.last_modified is not None and (found.last_modified, length) == (known.last_modified, str(known.size))


def look(url: str) -> tuple[Tags, int | None]:
    """The tags and the size [bytes] that a server tells of a file, asked once; nothing of one that answers otherwise.

    Raises:
        FetchError: it cannot be reached.
    """
    from urllib3.exceptions import HTTPError

    try:
        with _answer(url, {"User-Agent": "scythe-engine", "Accept-Encoding": "identity"}, "HEAD") as answer:
            if answer.status != 200:
                return Tags(), None
            length = answer.headers.get("Content-Length", "")
            found = Tags(answer.headers.get("ETag"), answer.headers.get("Last-Modified"))
            return found, int(length) if length.isdigit() else None
    except (HTTPError, OSError) as error:
        raise FetchError(redacted(f"{url} cannot be reached: {_told(error)}")) from None


@contextmanager
def _answer(url: str, headers: dict[str, str], method: str = "GET") -> Generator[BaseHTTPResponse]:
    from urllib3 import Timeout

    timeout = Timeout(connect=_CONNECT_SECONDS, read=_SILENCE_SECONDS)
    for _ in range(_REDIRECTS):
        answer = _pool(os.getpid(), _proxy(url)).request(
            method, url, headers=headers, preload_content=False, redirect=False, retries=False, timeout=timeout
        )
        target = answer.get_redirect_location()
        if not target:
            break
        answer.close()
        url = urljoin(url, target)
        if urlsplit(url).scheme not in ("http", "https"):
            raise FetchError(f"it is redirected to {urlsplit(url).scheme}://, where no file is taken from")
    else:
        raise FetchError(f"it is redirected more than {_REDIRECTS} times")
    try:
        yield answer
    finally:
        answer.close()  # what was not read of it is not waited for


def _proxy(url: str) -> str | None:
    """The proxy that the environment names for a URL."""
    parts = urlsplit(url)
    proxies = getproxies()
    if proxy_bypass(parts.netloc):
        return None
    return proxies.get(parts.scheme) or proxies.get("all")


@lru_cache(maxsize=8)
def _pool(pid: int, proxy: str | None) -> PoolManager:
    import urllib3
    from urllib3.util import parse_url

    options: dict[str, Any] = {"num_pools": 64, "maxsize": 32}
    if not proxy:
        return urllib3.PoolManager(**options)
    named = parse_url(proxy if "://" in proxy else f"http://{proxy}")
    login = urllib3.make_headers(proxy_basic_auth=unquote(named.auth)) if named.auth else None
    return urllib3.ProxyManager(named._replace(auth=None).url, proxy_headers=login, **options)


class _NoFile(Exception):
    """A server's answer that is not the file."""

    def __init__(self, answer: BaseHTTPResponse) -> None:
        super().__init__(f"{answer.status} {answer.reason or ''}".rstrip())
        self.status = answer.status
        text = answer.headers.get("Retry-After", "")
        self.wait = float(text) if text.isdigit() else None


def _again(error: Exception, began: float) -> bool | float:
    """Whether, or after how many seconds, a request that failed like this is sent again."""
    from urllib3.exceptions import NewConnectionError, ProtocolError, ReadTimeoutError
    from urllib3.exceptions import TimeoutError as NoAnswer

    patience = 0.0
    if isinstance(error, _NoFile):
        if error.status in _THROTTLED:
            patience = THROTTLED_SECONDS
        elif error.status in (408, 425) or error.status >= 500:
            patience = PATIENCE_SECONDS
    elif isinstance(error, ProtocolError | NewConnectionError | NoAnswer | ReadTimeoutError | ConnectionError):
        patience = PATIENCE_SECONDS
    if time.monotonic() - began >= patience:
        return False
    if isinstance(error, _NoFile) and error.wait is not None:
        return min(error.wait, _LONGEST_WAIT_SECONDS)
    return True


def _told(error: Exception) -> str:
    """What went wrong, in words for people: urllib3 tells the objects that it happened in, too."""
    return str(error).rpartition(">: ")[2] or type(error).__name__
