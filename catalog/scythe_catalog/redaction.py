"""Texts that are shown, logged or stored, without the secrets that they hold: `redacted`.

Knows the forms in which secrets occur in URLs, headers and settings, and this process's own credentials. Never
guesses: a text without such a form comes back as it is.
"""

from __future__ import annotations

import os
import re
from urllib.parse import quote, urlsplit

_HIDDEN = "***"
#: Variables whose values are secrets wherever they occur; a value of fewer characters could be any word.
_VARIABLES = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HATCHET_CLIENT_TOKEN")
_SHORTEST = 8

#: `user:password@`. A password may hold what it should not (`/`, `?`, `#`, `@`); a port is none.
_PASSWORD = re.compile(r"(://[^\s/?#@:]{0,256}):(?!\d+(?:[/?#]|$))[^\s'\"<>]{0,512}@(?=[^\s'\"<>@])")
#: `token@`, as web sources take it for a user without a password.
_USER = re.compile(r"(https?://)[^\s/?#@:'\"<>]{1,512}@", re.IGNORECASE)
_PARAMETER = re.compile(
    r"([?&;](?:x-(?:amz|goog)-(?:signature|credential|security-token)|signature|sig|awsaccesskeyid|googleaccessid"
    r"|(?:access|id|refresh|auth|session|api|private|security|oauth)?[-_]?token|auth|(?:api|access|subscription)?[-_]?key"
    r"|client[-_]secret|secret|password|passwd|pwd)=)[^&\s'\"<>#]+",
    re.IGNORECASE,
)
#: Settings by name, as files, commands and headers write them.
_SETTING = re.compile(
    r"((?:(?:aws_)?secret_access_key|(?:aws_)?session_token|hatchet_client_token|x-amz-security-token)['\"]?\s*[:=]\s*['\"]?"
    r"|authorization['\"]?\s*[:=]\s*['\"]?(?:bearer|basic|token)\s+|\bsignature=(?=[0-9a-f]{64}))[^\s'\",;&]+",
    re.IGNORECASE,
)
_JWT = re.compile(r"\bey[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?")


def redacted(text: str) -> str:
    """The text with `***` in place of passwords and tokens in URLs, signatures, JWTs and this process's credentials."""
    for name in _VARIABLES:
        value = os.environ.get(name)
        if value and len(value) >= _SHORTEST:
            text = text.replace(value, _HIDDEN).replace(quote(value, safe=""), _HIDDEN)
    if "@" in text and "://" in text:
        text = _USER.sub(rf"\1{_HIDDEN}@", _PASSWORD.sub(rf"\1:{_HIDDEN}@", text))
    if "=" in text or ":" in text:
        text = _SETTING.sub(rf"\1{_HIDDEN}", _PARAMETER.sub(rf"\1{_HIDDEN}", text))
    return _JWT.sub(_HIDDEN, text) if "ey" in text else text


def holds_password(url: str) -> bool:
    """Whether the address of a web server names a user: with a password, or a token in its place."""
    return url.startswith(("http://", "https://")) and "@" in url and "@" in urlsplit(url).netloc
