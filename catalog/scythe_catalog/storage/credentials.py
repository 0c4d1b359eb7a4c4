"""Credentials of S3, as botocore has them: those that stay as they are, and those that renew themselves.

Those that renew themselves are kept until shortly before they end: a program that gives them is run then, and not with each request.
Secrets stay in memory: none is ever written, logged or shown.
"""

from __future__ import annotations

import datetime as dt
import os
import threading
from dataclasses import dataclass, field
from typing import Any

#: When those that end are asked for anew: botocore asks by itself when fifteen minutes are left, and insists when it is ten. Those that
#: do not live for long are kept for half of what is left.
_BEFORE_THE_END = dt.timedelta(minutes=12)
#: For how long they are kept where nothing tells their end.
_ASK_AGAIN = dt.timedelta(seconds=15)


@dataclass(frozen=True)
class Keys:
    """Credentials that stay as they are; these may go to other processes."""

    access_key: str
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, frozen: Any) -> Keys:
        """What botocore calls frozen credentials."""
        return cls(frozen.access_key, frozen.secret_key, frozen.token)


class Renewing:
    """Credentials of botocore's that renew themselves, kept between."""

    def __init__(self, credentials: Any) -> None:
        self._credentials = credentials
        self._lock = threading.Lock()
        #: Those that were given last, None before the first time.
        self.given: Keys | None = None
        #: Until when they are given again.
        self.until = dt.datetime.min.replace(tzinfo=dt.UTC)

    def now(self) -> Keys:
        """The credentials of now; raises what botocore raises where there are none to be had."""
        with self._lock:
            moment = dt.datetime.now(dt.UTC)
            if self.given is None or moment >= self.until:
                self.given = self._held(moment) or Keys.of(self._credentials.get_frozen_credentials())
                end = self._end()
                left = max(end - moment, dt.timedelta(0)) if end is not None else None
                self.until = moment + (_ASK_AGAIN if left is None else max(left - _BEFORE_THE_END, left / 2))
            return self.given

    def _held(self, moment: dt.datetime) -> Keys | None:
        """What botocore holds, if that is something else than was given last; to ask it could run a program for it."""
        frozen, end = getattr(self._credentials, "_frozen_credentials", None), self._end()
        if frozen is None or end is None or end <= moment:
            return None
        held = Keys.of(frozen)
        return held if held != self.given else None

    def _end(self) -> dt.datetime | None:
        return getattr(self._credentials, "_expiry_time", None)


def of_botocore(credentials: Any) -> Keys | Renewing:
    """The credentials of a session or a client of boto3."""
    from botocore.credentials import RefreshableCredentials

    if isinstance(credentials, RefreshableCredentials):
        return Renewing(credentials)
    return Keys.of(credentials.get_frozen_credentials())


def renew(credentials: Any, refused: Keys | None) -> None:
    """Lets credentials that renew themselves do so now, unless they have since these were refused; others stay as they are."""
    from botocore.credentials import RefreshableCredentials

    if not isinstance(credentials, RefreshableCredentials) or Keys.of(credentials.get_frozen_credentials()) != refused:
        return
    # botocore itself asks by the clock alone
    with credentials._refresh_lock:  # pyright: ignore[reportPrivateUsage]
        credentials._protected_refresh(is_mandatory=True)  # pyright: ignore[reportPrivateUsage]


def of_environment() -> Keys | None:
    """The credentials that the environment names, None where it names none."""
    key, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    return Keys(key, secret, os.environ.get("AWS_SESSION_TOKEN") or None) if key and secret else None
