"""What every message, log line and YAML passes through before anybody reads it; the rules are the catalog's."""

from __future__ import annotations

from urllib.parse import urlsplit

from scythe_catalog.redaction import redacted


def holds_password(url: str) -> bool:
    """Whether the address of a web server names a user: with a password, or a token in its place."""
    return url.startswith(("http://", "https://")) and "@" in url and "@" in urlsplit(url).netloc


__all__ = ["holds_password", "redacted"]
