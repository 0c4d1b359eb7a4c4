"""S3 and what speaks its language, as a provider of buckets: `s3://bucket/prefix`."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

from obstore.store import S3Store

from scythe_catalog.errors import StorageError
from scythe_catalog.storage.credentials import of_environment
from scythe_catalog.storage.provider import Provider
from scythe_catalog.storage.reach import Reach, bucket_of, reach
from scythe_catalog.storage.s3_errors import THROTTLED_SECONDS, attempted

T = TypeVar("T")


class S3(Provider):
    """A bucket of S3, reached with the settings of boto3, or with a client that the user gave."""

    def store(self, *, patient: bool = False) -> S3Store:
        return _store(self.root, reach(bucket_of(self.root)), patient)

    def attempted(self, call: Callable[[], T]) -> T:
        return attempted(self.root, call)

    def polars_options(self) -> dict[str, Any]:
        """The storage options under which Polars' own reader reaches the same bucket.

        A lazy frame keeps them, and writes them where it is serialized: they hold credentials of now, but not where Polars
        finds the same in the environment.
        """
        bucket = bucket_of(self.root)
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
            if keys == of_environment():
                return options
            options |= {"aws_access_key_id": keys.access_key, "aws_secret_access_key": keys.secret_key}
            if keys.token:
                options["aws_session_token"] = keys.token
        return options


@lru_cache(maxsize=256)
def _store(root: str, found: Reach, patient: bool) -> S3Store:
    bucket, _, prefix = root.removeprefix("s3://").partition("/")
    try:
        return found.store(bucket, prefix, patient=patient)
    except OSError as error:
        raise StorageError(f"the bucket {bucket!r} cannot be reached: {error}") from error


def _text(value: bool) -> str:
    return str(value).lower()
