"""Buckets: how one is reached, with the settings and credentials of boto3 and no others.

A `Reach` is all that obstore and Polars are told of a bucket. It comes from boto3's session, or from a boto3
client that the user gave. Secrets stay in memory: none is ever written, logged or shown.
"""

from __future__ import annotations

import datetime as dt
import os
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

from scythe_catalog.errors import StorageError, StorageRefused

if TYPE_CHECKING:
    from obstore.store import S3Store

T = TypeVar("T")

#: One request is repeated for seconds, so that Ctrl-C need not wait longer; `attempted` goes on from there. A part of a
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
#: How long failures of the network and the server are repeated, and how long a server is heeded that asks for patience.
PATIENCE_SECONDS, THROTTLED_SECONDS = 30.0, 150.0
#: The same for a bucket that has not answered yet, or not since it was given up: its address may be wrong.
_FIRST_SECONDS = 5.0
_LONGEST_WAIT_SECONDS = 10.0
#: A part of 8 MiB has minutes, so that slow lines upload too.
_TIMEOUTS: dict[str, Any] = {"connect_timeout": "5s", "read_timeout": "60s", "timeout": "300s"}
#: obstore asks for credentials this often; boto3 renews them ten minutes before they expire.
_ASK_AGAIN = dt.timedelta(seconds=15)


@dataclass(frozen=True)
class Keys:
    """Credentials that do not expire, as botocore's look from outside."""

    access_key: str
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)

    def get_frozen_credentials(self) -> Keys:
        return self


@dataclass(frozen=True, eq=False)
class Reach:
    """How a bucket is reached.

    `credentials` are botocore's (which renew themselves), None for requests without a signature; `verify` is
    boto3's: True, False, or a file of certificates.
    """

    endpoint: str
    region: str
    path_style: bool
    verify: bool | str
    credentials: Any = field(repr=False)

    @classmethod
    def of(cls, client: Any) -> Reach:
        """What a boto3 S3 client would do; raises ValueError where it has no credentials."""
        from botocore import UNSIGNED
        from botocore.credentials import RefreshableCredentials

        config = client.meta.config
        credentials = None
        if config.signature_version is not UNSIGNED:
            credentials = client._request_signer._credentials
            if credentials is None:
                raise ValueError("there are no AWS credentials: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and its secret")
            if not isinstance(credentials, RefreshableCredentials):  # these may go to other processes as they are
                credentials = _frozen(credentials)
        return cls(
            endpoint=client.meta.endpoint_url,
            region=client.meta.region_name,
            path_style=(config.s3 or {}).get("addressing_style") != "virtual",
            verify=client._endpoint.http_session._verify,
            credentials=credentials,
        )

    def frozen(self) -> Keys:
        """The credentials of now."""
        return _frozen(self.credentials)

    def endpoint_of(self, bucket: str) -> str:
        """Where requests for a bucket go, with its name where that is part of the host."""
        if self.path_style:
            return self.endpoint
        scheme, _, host = self.endpoint.partition("://")
        return f"{scheme}://{bucket}.{host}"

    def _credential(self) -> dict[str, Any]:
        keys = self.frozen()
        found = {"access_key_id": keys.access_key, "secret_access_key": keys.secret_key, "token": keys.token}
        return {**found, "expires_at": dt.datetime.now(dt.UTC) + _ASK_AGAIN}

    def client(self) -> Any:
        """A boto3 client that reaches what this does, for what obstore cannot ask for."""
        import boto3
        from botocore import UNSIGNED
        from botocore.config import Config

        session, more = boto3.Session(), dict[str, Any]()
        if isinstance(self.credentials, Keys):
            keys = self.credentials
            session = boto3.Session(keys.access_key, keys.secret_key, keys.token)
        elif self.credentials is not None:
            session._session._credentials = self.credentials  # pyright: ignore[reportPrivateUsage] - these renew themselves
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
            options["credential_provider"] = self._credential
        retry: Any = _PATIENT if patient else _BRIEF
        return S3Store(bucket, prefix=prefix or None, client_options=client, retry_config=retry, **options)  # pyright: ignore[reportArgumentType]


def _frozen(credentials: Any) -> Keys:
    now = credentials.get_frozen_credentials()
    return Keys(now.access_key, now.secret_key, now.token)


_ASKING = threading.Lock()
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
        _GIVEN[bucket] = Reach.of(client)
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
    if found.credentials is None or isinstance(found.credentials, Keys):
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
    settings = tuple(sorted((k, v) for k, v in os.environ.items() if k.startswith(("AWS_", "BOTO_"))))
    try:
        with _ASKING:  # threads that want the same bucket at once wait for the first of them
            return _of_session(settings)
    except ValueError as error:
        raise StorageError(f"the bucket {bucket!r} cannot be reached: {error}") from error


@lru_cache(maxsize=64)
def _of_session(settings: tuple[tuple[str, str], ...]) -> Reach:
    """What boto3 makes of its environment and its files; `settings` tell one environment from another."""
    import boto3
    from botocore.exceptions import BotoCoreError

    try:
        session = boto3.Session()
        return Reach.of(session.client("s3", region_name=session.region_name or "us-east-1"))
    except BotoCoreError as error:
        raise ValueError(" ".join(str(error).split())) from error


def s3_store(root: str, *, patient: bool = False) -> S3Store:
    """The store below `s3://bucket/prefix`, `patient` for large uploads; raises StorageError where it cannot be reached."""
    return _store(root, reach(bucket_of(root)), patient)


@lru_cache(maxsize=256)
def _store(root: str, found: Reach, patient: bool) -> S3Store:
    bucket, _, prefix = root.removeprefix("s3://").partition("/")
    try:
        return found.store(bucket, prefix, patient=patient)
    except OSError as error:
        raise StorageError(f"the bucket {bucket!r} cannot be reached: {error}") from error


def polars_options(root: str) -> dict[str, Any]:
    """Storage options under which Polars' own reader reaches the same bucket.

    A lazy frame keeps them, and writes them where it is serialized: they hold credentials of now, but not where Polars
    finds the same in the environment.
    """
    bucket = bucket_of(root)
    found = reach(bucket)
    options: dict[str, Any] = {
        "aws_region": found.region,
        "aws_endpoint_url": found.endpoint_of(bucket),
        "aws_virtual_hosted_style_request": _text(not found.path_style),
        "aws_skip_signature": _text(found.credentials is None),
        "aws_s3_express": "false",
        "aws_allow_http": _text(found.endpoint.startswith("http://")),
        "allow_invalid_certificates": _text(found.verify is False),
        "max_retries": 100,
        "retry_timeout_ms": int(THROTTLED_SECONDS * 1000),
    }
    if found.credentials is not None:
        keys = found.frozen()
        if keys == _of_environment():
            return options
        options |= {"aws_access_key_id": keys.access_key, "aws_secret_access_key": keys.secret_key}
        if keys.token:
            options["aws_session_token"] = keys.token
    return options


def _of_environment() -> Keys | None:
    """The credentials that the environment names, None where it names none."""
    key, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    return Keys(key, secret, os.environ.get("AWS_SESSION_TOKEN") or None) if key and secret else None


def _text(value: bool) -> str:
    return str(value).lower()


# --- errors -----------------------------------------------------------------------------------------


def attempted(root: str, call: Callable[[], T]) -> T:
    """What `call` gives; tried again for about half a minute where the network or the server fails, and for two and a
    half where the server asks to be asked less often. `call` must be safe to repeat as a whole.

    Raises:
        FileNotFoundError: there is no such object.
        StorageRefused: the bucket is not there, or not for these credentials.
        StorageError: it cannot be reached.
    """
    import stamina
    from obstore.exceptions import BaseError

    began, found = time.monotonic(), reach(bucket_of(root))
    try:
        for attempt in stamina.retry_context(
            on=lambda error: time.monotonic() - began < _patience(error, found in _ANSWERED),
            attempts=None,
            timeout=None,
            wait_max=_LONGEST_WAIT_SECONDS,
        ):
            with attempt:
                got = call()
                _ANSWERED.add(found)
                return got
    except FileNotFoundError as error:
        if "<Code>NoSuchBucket<" in str(error):
            raise StorageRefused(explained(error, root)) from error
        _ANSWERED.add(found)
        raise
    except BaseError as error:
        _ANSWERED.discard(found)
        kind = StorageRefused if _REFUSED.search(_first(error)) else StorageError
        raise kind(explained(error, root)) from error
    raise AssertionError("unreachable")


#: What answered the last request.
_ANSWERED: WeakSet[Reach] = WeakSet()


def _patience(error: Exception, answers: bool) -> float:
    """For how many seconds a request that failed like this is repeated."""
    from obstore.exceptions import GenericError

    text = _first(error)
    if isinstance(error, FileNotFoundError):  # of a multipart upload whose end was heard, but not its answer
        return PATIENCE_SECONDS if "<Code>NoSuchUpload<" in text else 0.0
    status = _STATUS.search(text)
    if not isinstance(error, GenericError) or _REFUSED.search(text):
        return 0.0
    if status is not None and int(status[1]) < 500 and status[1] not in _WAIT:
        return 0.0
    if _THROTTLED.search(text):
        return THROTTLED_SECONDS
    return PATIENCE_SECONDS if answers else min(_FIRST_SECONDS, PATIENCE_SECONDS)


_WAIT = ("408", "429")
_THROTTLED = re.compile(r"status code: (429|503)|SlowDown|RequestLimitExceeded|TooManyRequests")
_STATUS = re.compile(r"status code: (\d+)")
_REFUSED = re.compile(r"status code: (3\d\d|401|403)|<Code>NoSuchBucket<|credential provider|redirect")
_CODE = re.compile(r"<Code>(\w+)</Code>")


def explained(error: BaseException, root: str) -> str:
    """What is wrong with a bucket, and the way out, in one sentence."""
    bucket = bucket_of(root)
    found = reach(bucket)
    text = _first(error)
    status, code = _STATUS.search(text), _CODE.search(text)
    named = f"the bucket {bucket!r} at {found.endpoint}"
    if code is not None and code[1] == "NoSuchBucket":
        return f"there is no bucket {bucket!r} at {found.endpoint}: create it, or correct its name"
    if status is not None and status[1] in ("401", "403"):
        reason = code[1] if code is not None else "Forbidden"
        return f"{named} refuses the credentials in use ({reason}): check them, and that they may read and write there"
    if "credential provider" in text:
        return (
            f"{named} cannot be reached for want of credentials: {text.rpartition('credential provider: ')[2]}".rstrip()
        )
    if "redirect" in text or (status is not None and status[1].startswith("3")):
        return f"{named} lies in another region than {found.region}: set AWS_DEFAULT_REGION"
    if status is not None:
        return f"{named} answered {status[1]}{f' ({code[1]})' if code is not None else ''}: try again later"
    if "HTTP error" in text or "error sending" in text:
        return f"{named} cannot be reached: check the network, and the endpoint (AWS_ENDPOINT_URL)"
    return f"{named} failed: {text}"


def _first(error: BaseException) -> str:
    """What obstore says, without the inner state that it tells behind it."""
    return str(error).split("\n\nDebug source", maxsplit=1)[0].strip()
