"""Which addresses name a file elsewhere: on the web, or in a bucket of a store that is known here. Fetches nothing."""

from __future__ import annotations

from urllib.parse import urlsplit

from scythe.remote.packed import is_packed
from scythe_catalog.storage.provider import known_schemes

WEB = ("http", "https")


def scheme_of(uri: str) -> str:
    """The scheme of an address in lower case, empty for a path."""
    return uri[: uri.index(":")].lower() if "://" in uri else ""


def is_in_bucket(uri: str) -> bool:
    """Whether an address names an object in a bucket."""
    scheme = scheme_of(uri)
    return scheme not in ("", "file", *WEB) and scheme in known_schemes()


def is_remote(uri: str) -> bool:
    """Whether an address names a file that has to be fetched: from elsewhere, or out of a shard."""
    return scheme_of(uri) in WEB or is_in_bucket(uri) or is_packed(uri)


def split_object(uri: str) -> tuple[str, str]:
    """The root of an object's bucket, and its key there."""
    root, _, key = uri.partition("://")[2].partition("/")
    return f"{urlsplit(uri).scheme}://{root}", key


def listed() -> str:
    """The schemes of files that are fetched, for messages."""
    return ", ".join(f"{scheme}://" for scheme in (*known_schemes(), "http")) + " and https://"
