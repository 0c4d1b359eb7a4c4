"""Buckets of S3: how one is reached, with the settings and credentials of boto3 and no others.

A `Reach` is all that obstore and Polars are told of a bucket of S3. It comes from boto3's session, or from a boto3
client that the user gave. Both are asked anew once a bucket has refused the credentials: users renew them while a process
lives. Secrets stay in memory: none is ever written, logged or shown.
"""

from __future__ import annotations

import datetime as dt
import os
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scythe_catalog.errors import StorageError
from scythe_catalog.storage.credentials import Keys, Renewing, of_botocore, renew

if TYPE_CHECKING:
    from obstore.store import S3Store

#: One request is repeated for seconds, so that Ctrl-C need not wait longer; `s3_errors.attempted` goes on from there. A part of a
#: large upload is repeated for as long as the network may be away, since giving it up begins the upload again.
_BRIEF: dict[str, Any] = {
    "max_retries": 5,
    "retry_timeout": dt.timedelta(seconds=5),
    "backoff": {"init_backoff": dt.timedelta(seconds=0.1), "max_backoff": dt.timedelta(seconds=1), "base": 3},
}
_PATIENT: dict[str, Any] = {
    "max_retries": 100,
    "retry_timeout": dt.timedelta(seconds=30),
    "backoff": {"init_backoff": dt.timedelta(seconds=0.1), "max_backoff": dt.timedelta(seconds=3), "base": 3},
}
#: A part of 8 MiB has minutes, so that slow lines upload too.
_TIMEOUTS: dict[str, Any] = {"connect_timeout": "5s", "read_timeout": "60s", "timeout": "300s"}
#: Who refuses credentials may do so for each of many requests: boto3 is asked for others this often at most.
_ASKED_EVERY_SECONDS = 3.0


class Origin:
    """Who is asked for other credentials once some were refused: a client that the user gave, or boto3's environment and files."""

    def __init__(self, client: Any = None) -> None:
        self.client = client
        self._asked = float("-inf")

    def asked(self, refused: Reach) -> Reach | None:
        """How a bucket is reached by now; None where that was asked a moment ago. Raises whatever boto3 raises."""
        now = time.monotonic()
        if now - self._asked < _ASKED_EVERY_SECONDS:
            return None
        self._asked = now
        if self.client is None:
            return _asked_of_boto3()
        renew(self.client._request_signer._credentials, refused.given())
        return Reach.of(self.client)


@dataclass(frozen=True, eq=False)
class Reach:
    """How a bucket is reached.

    `credentials` are None for requests without a signature; `verify` is boto3's: True, False, or a file of certificates.
    Nobody is asked for other credentials where there is no `origin`.
    """

    endpoint: str
    region: str
    path_style: bool
    verify: bool | str
    credentials: Keys | Renewing | None = field(repr=False)
    origin: Origin | None = field(default=None, repr=False)

    @classmethod
    def of(cls, client: Any) -> Reach:
        """What a boto3 S3 client would do; raises ValueError where it has no credentials."""
        from botocore import UNSIGNED

        config = client.meta.config
        credentials = None
        if config.signature_version is not UNSIGNED:
            credentials = client._request_signer._credentials
            if credentials is None:
                raise ValueError("there are no AWS credentials: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and its secret")
            credentials = of_botocore(credentials)
        return cls(
            endpoint=client.meta.endpoint_url,
            region=client.meta.region_name,
            path_style=(config.s3 or {}).get("addressing_style") != "virtual",
            verify=client._endpoint.http_session._verify,
            credentials=credentials,
        )

    def frozen(self) -> Keys:
        """The credentials of now, of those that have some; raises what botocore raises where they cannot be renewed."""
        assert self.credentials is not None
        return self.credentials.now() if isinstance(self.credentials, Renewing) else self.credentials

    def given(self) -> Keys | None:
        """The credentials that the last requests were made with; nobody is asked for them."""
        return self.credentials.given if isinstance(self.credentials, Renewing) else self.credentials

    def endpoint_of(self, bucket: str) -> str:
        """Where requests for a bucket go, with its name where that is part of the host."""
        if self.path_style:
            return self.endpoint
        scheme, _, host = self.endpoint.partition("://")
        return f"{scheme}://{bucket}.{host}"

    def client(self) -> Any:
        """A boto3 client that reaches what this does, for what obstore cannot ask for."""
        import boto3
        from botocore import UNSIGNED
        from botocore.config import Config

        session, more = boto3.Session(), dict[str, Any]()
        if self.credentials is not None:
            keys = self.frozen()
            session = boto3.Session(keys.access_key, keys.secret_key, keys.token)
        else:
            more["signature_version"] = UNSIGNED
        config = Config(
            s3={"addressing_style": "path" if self.path_style else "virtual"},
            retries={"mode": "standard", "total_max_attempts": 4},
            **more,
        )
        return session.client(
            "s3", endpoint_url=self.endpoint, region_name=self.region, verify=self.verify, config=config
        )

    def store(self, bucket: str, prefix: str, *, patient: bool = False) -> S3Store:
        """An obstore store; whatever obstore would read from the environment by itself is overruled here."""
        from obstore.store import S3Store

        client: dict[str, Any] = {**_TIMEOUTS, "allow_http": self.endpoint.startswith("http://")}
        client["allow_invalid_certificates"] = self.verify is False
        if isinstance(self.verify, str) and self.endpoint.startswith("https://"):
            client["root_certificate"] = Path(self.verify).read_bytes()
        where = self.endpoint_of(bucket)
        options: dict[str, Any] = {
            "region": self.region,
            "endpoint": where,
            "aws_endpoint_url_s3": where,
            "virtual_hosted_style_request": not self.path_style,
            "skip_signature": self.credentials is None,
            "checksum_algorithm": "SHA256",
            "conditional_put": "etag",
            "s3_express": False,
            "unsigned_payload": False,
        }
        if self.credentials is not None:
            options["credential_provider"] = _Given(self)
        retry: Any = _PATIENT if patient else _BRIEF
        return S3Store(bucket, prefix=prefix or None, client_options=client, retry_config=retry, **options)  # pyright: ignore[reportArgumentType]


class _Given:
    """Gives obstore the credentials of a reach, and tells it how long they are to be kept."""

    #: obstore would ask five minutes before the time that it is told.
    refresh_threshold = dt.timedelta(0)

    def __init__(self, found: Reach) -> None:
        self._found = found

    def __call__(self) -> dict[str, Any]:
        keys, kept = self._found.frozen(), self._found.credentials
        named = {"access_key_id": keys.access_key, "secret_access_key": keys.secret_key, "token": keys.token}
        return {**named, "expires_at": kept.until if isinstance(kept, Renewing) else None}


_ASKING = threading.RLock()
#: Buckets that are reached with a client that the user gave, or with what a parent process handed over; empty: any other.
_GIVEN: dict[str, Reach] = {}


def use_client(root: str, client: Any) -> None:
    """Reaches the bucket of a root with a boto3 client, from now on and in this process.

    For a root that is a folder: every bucket that no other client was given for.

    Raises:
        TypeError: it is no S3 client of boto3.
        StorageError: it has no credentials.
    """
    try:
        service = client.meta.service_model.service_name
    except AttributeError:
        service = None
    if service != "s3":
        raise TypeError(f"it is {type(client).__module__}.{type(client).__name__}")
    bucket = bucket_of(root)
    try:
        _GIVEN[bucket] = replace(Reach.of(client), origin=Origin(client))
    except ValueError as error:
        what = f"the bucket {bucket!r}" if bucket else "a bucket"
        raise StorageError(f"{what} cannot be reached with this client: {error}") from error


def hand_over(root: str) -> Reach | None:
    """What another process of this machine needs to reach a root; it goes through a pipe, never to a file.

    None where it is to ask boto3 itself: for a folder without a client, and for credentials that expire and that boto3
    finds there too. Those of a client are handed over as they are now, see `renewed`.
    """
    bucket = bucket_of(root)
    if not bucket and bucket not in _GIVEN:
        return None
    found = reach(bucket)
    if found.origin is not None and found.origin.client is not None:
        found = replace(found, origin=None)
    if not isinstance(found.credentials, Renewing):
        return found
    return replace(found, credentials=found.frozen()) if bucket in _GIVEN or "" in _GIVEN else None


def renewed(root: str, handed: Reach | None) -> Reach | None:
    """The same, unless the client's credentials have changed since it was handed over."""
    if handed is None or handed.credentials is None or handed.credentials == reach(bucket_of(root)).frozen():
        return handed
    return hand_over(root)


def take_over(root: str, handed: Reach | None) -> None:
    """Reaches a root as the process that handed this over does."""
    if handed is not None:
        _GIVEN[bucket_of(root)] = replace(handed)


def bucket_of(root: str) -> str:
    """The bucket of an `s3://` URI, empty for a folder's."""
    return root.removeprefix("s3://").partition("/")[0] if root.startswith("s3://") else ""


def reach(bucket: str) -> Reach:
    """How this process reaches a bucket.

    Raises:
        StorageError: boto3's settings make no sense, or there are no credentials.
    """
    given = _GIVEN.get(bucket) or _GIVEN.get("")
    if given is not None:
        return given
    try:
        return _of_session(_ENVIRONMENT.settings())
    except ValueError as error:
        raise StorageError(f"the bucket {bucket!r} cannot be reached: {error}") from error


class _Environment:
    """What the environment says to boto3; each request asks whether that has changed."""

    def __init__(self) -> None:
        self._then: tuple[dict[Any, Any], tuple[tuple[str, str], ...]] = ({}, ())

    def settings(self) -> tuple[tuple[str, str], ...]:
        """Its variables for boto3, sorted."""
        # Compared as a whole: to ask for each variable takes fifty times as long.
        now: Any = getattr(os.environ, "_data", os.environ)
        then, found = self._then
        if now != then:
            then = dict(now)
            found = tuple(sorted((k, v) for k, v in os.environ.items() if k.startswith(("AWS_", "BOTO_"))))
            self._then = then, found
        return found


_ENVIRONMENT = _Environment()


#: What boto3 made of its environment and its files, by what tells one environment from another.
_OF_SESSION: dict[tuple[tuple[str, str], ...], Reach] = {}
_MOST = 64


def _of_session(settings: tuple[tuple[str, str], ...]) -> Reach:
    found = _OF_SESSION.get(settings)
    if found is None:
        with _ASKING:  # threads that want the same bucket at once wait for the first of them
            found = _OF_SESSION.get(settings)
            if found is None:
                found = replace(_asked_of_boto3(), origin=Origin())
                while len(_OF_SESSION) >= _MOST:
                    del _OF_SESSION[next(iter(_OF_SESSION))]
                _OF_SESSION[settings] = found
    return found


def _asked_of_boto3() -> Reach:
    """What boto3 makes of its environment and its files; raises ValueError where that makes no sense."""
    import boto3
    from botocore.exceptions import BotoCoreError

    try:
        session = boto3.Session()
        return Reach.of(session.client("s3", region_name=session.region_name or "us-east-1"))
    except BotoCoreError as error:
        raise ValueError(" ".join(str(error).split())) from error


def is_renewed(bucket: str, refused: Reach) -> bool:
    """Whether this process has other credentials for a bucket by now than those that it refused: whoever they come from is asked,
    unless that was done a moment ago. What is made from `reach` after it has them.
    """
    with _ASKING:  # of threads that are refused at once, the first one asks
        now = reach(bucket)
        if now is not refused:
            return True
        if now.origin is None or now.credentials is None:
            return False
        try:
            found = now.origin.asked(now)
            if found is None or found.credentials is None or found.frozen() == now.given():
                return False
        except Exception:  # noqa: BLE001 - boto3's, or of the user's own program: the answer of the bucket is told
            return False
        given = next((name for name in (bucket, "") if name in _GIVEN), None)
        if given is None:
            _OF_SESSION[_ENVIRONMENT.settings()] = replace(found, origin=now.origin)
            return True
        if found.endpoint != now.endpoint:  # of a process that was handed more than its own environment says
            return False
        _GIVEN[given] = replace(now, credentials=found.credentials)
        return True
