"""Objects whose keys obstore refuses or takes for others: empty segments, dots, control characters. Read with boto3.

Scythe's own keys are never like that; those of other people's buckets may be.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from scythe_catalog.errors import StorageError, StorageRefused
from scythe_catalog.storage import s3_errors
from scythe_catalog.storage.ranged import Unchanged
from scythe_catalog.storage.reach import Reach, is_renewed, reach
from scythe_catalog.storage.repeated import repeated

_BLOCK = 1 << 20


def is_odd(key: str) -> bool:
    """Whether obstore cannot ask for an object of this key."""
    return any(part in ("", ".", "..") for part in key.split("/")) or any(c < " " or c == "\x7f" for c in key)


def save(bucket: str, key: str, path: Path, unless: str | None = None) -> str:
    """Writes an object into a local file; its tag.

    Raises:
        Unchanged: it still has the tag `unless`.
        FileNotFoundError: there is no such object.
        StorageRefused: the bucket is not there, or not for these credentials.
        StorageError: it cannot be reached, or was cut short.
    """
    while True:
        found = reach(bucket)
        try:
            return _tried(found, bucket, key, path, unless)
        except StorageRefused:
            if not is_renewed(bucket, found):
                raise


def _tried(found: Reach, bucket: str, key: str, path: Path, unless: str | None) -> str:
    from botocore.exceptions import BotoCoreError, ClientError
    from urllib3.exceptions import HTTPError

    began = time.monotonic()

    def again(error: Exception) -> bool:
        patience = 0.0
        if isinstance(error, ClientError):
            status = _status(error)
            patience = (
                s3_errors.THROTTLED_SECONDS
                if status in (429, 503)
                else s3_errors.PATIENCE_SECONDS
                if status >= 500
                else 0.0
            )
        elif isinstance(error, BotoCoreError | HTTPError | ConnectionError):
            patience = s3_errors.PATIENCE_SECONDS
        return time.monotonic() - began < patience

    try:
        client = found.client()
        for attempt in repeated(f"the bucket {bucket!r}", again):
            with attempt:
                return _once(client, bucket, key, path, unless)
    except ClientError as error:
        status = _status(error)
        if status == 304:
            raise Unchanged from None
        if status == 404:
            raise FileNotFoundError(f"s3://{bucket}/{key}") from error
        is_refused = status in (301, 401, 403) or error.response["Error"]["Code"] in s3_errors.WHO
        kind = StorageRefused if is_refused else StorageError
        raise kind(f"the bucket {bucket!r} answered {status}: {error}") from error
    except (BotoCoreError, HTTPError, ConnectionError) as error:
        raise StorageError(f"the bucket {bucket!r} cannot be reached: {error}") from error
    raise AssertionError("unreachable")


def _once(client: Any, bucket: str, key: str, path: Path, unless: str | None) -> str:
    answer = client.get_object(Bucket=bucket, Key=key, **({"IfNoneMatch": unless} if unless else {}))
    with path.open("wb") as target:
        for block in answer["Body"].iter_chunks(_BLOCK):
            target.write(block)
    got, size = path.stat().st_size, int(answer["ContentLength"])
    if got != size:
        raise ConnectionError(f"got {got} of {size} bytes")
    return str(answer["ETag"])


def _status(error: Any) -> int:
    return int(error.response["ResponseMetadata"]["HTTPStatusCode"])
