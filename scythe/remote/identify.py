"""What servers tell of files without sending them: tag and size of each, as far as they say. Downloads nothing."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

from scythe.errors import ScytheError
from scythe.remote.packed import is_packed, packed
from scythe.remote.schemes import is_in_bucket, split_object

_AT_ONCE = 32


@dataclass(frozen=True)
class Identity:
    """By what the content of an address is known; None where its server does not say."""

    #: The ETag, else the time of the last change.
    tag: str | None = None
    size: int | None = None


_UNKNOWN = Identity()


def identify(uris: Iterable[str]) -> dict[str, Identity]:
    """What the servers of addresses on the web and in buckets say of each, many at once.

    An address that does not answer is unknown, which is no error: the machines that run the inputs may reach it. A
    server that cannot be reached is not asked for the rest of its files.
    """
    wanted = list(dict.fromkeys(uris))
    silent: set[str] = set()

    def one(uri: str) -> Identity:
        if is_packed(uri):
            file = packed(uri)
            return Identity(f"{file.crc32c:08x}", file.length)
        server = urlsplit(uri).netloc
        if server in silent:
            return _UNKNOWN
        try:
            return _of_bucket(uri) if is_in_bucket(uri) else _of_web(uri)
        except FileNotFoundError:
            return _UNKNOWN
        except (ScytheError, OSError, ValueError):
            silent.add(server)
            return _UNKNOWN

    if not wanted:
        return {}
    with ThreadPoolExecutor(min(_AT_ONCE, len(wanted))) as pool:
        return dict(zip(wanted, pool.map(one, wanted), strict=True))


def _of_web(uri: str) -> Identity:
    from scythe.remote.web import look

    tags, size = look(uri)
    return Identity(tags.e_tag or tags.last_modified, size)


def _of_bucket(uri: str) -> Identity:
    from scythe_catalog.storage import odd_keys
    from scythe_catalog.storage.provider import provider_of
    from scythe_catalog.storage.ranged import look

    root, key = split_object(uri)
    return _UNKNOWN if odd_keys.is_odd(key) else Identity(*look(provider_of(root), key))


__all__ = ["Identity", "identify"]
