"""What failures of S3 mean: which are repeated and for how long, and what is said of those that stay."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import TypeVar
from weakref import WeakSet

from scythe_catalog.errors import StorageError, StorageRefused
from scythe_catalog.storage.reach import Reach, bucket_of, is_renewed, reach
from scythe_catalog.storage.repeated import tried_again

T = TypeVar("T")

#: How long failures of the network and the server are repeated, and how long a server is heeded that asks for patience.
PATIENCE_SECONDS, THROTTLED_SECONDS = 30.0, 150.0
#: The same for a bucket that has not answered yet, or not since it was given up: its address may be wrong.
_FIRST_SECONDS = 5.0


def attempted(root: str, call: Callable[[], T]) -> T:
    """What `call` gives; tried again for about half a minute where the network or the server fails, and for two and a
    half where the server asks to be asked less often; once at least where the bucket answers. Where credentials are refused, boto3
    is asked for others. `call` must be safe to repeat as a whole.

    Raises:
        FileNotFoundError: there is no such object.
        StorageRefused: the bucket is not there, or not for these credentials.
        StorageError: it cannot be reached.
    """
    bucket = bucket_of(root)
    while True:
        found = reach(bucket)
        try:
            return _attempted(root, call, found)
        except StorageRefused as error:
            if not _is_about_credentials(error.__cause__) or not is_renewed(bucket, found):
                raise


def _attempted(root: str, call: Callable[[], T], found: Reach) -> T:
    from obstore.exceptions import BaseError

    began = time.monotonic()

    first: list[Exception] = []

    def again(error: Exception) -> bool:
        first.extend([] if first else [error])
        answers = found in _ANSWERED
        patience = _patience(error, answers)
        # A connection that stands still takes longer to fail than all patience, and a bucket that answers others has another one.
        return time.monotonic() - began < patience or (error is first[0] and answers and patience > 0)

    try:
        try:
            got = call()
        except (BaseError, FileNotFoundError) as error:
            if not again(error):
                raise
            got = tried_again(lambda failed: explained(failed, root), error, call, again)
        _ANSWERED.add(found)
        return got
    except FileNotFoundError as error:
        if "<Code>NoSuchBucket<" in str(error):
            raise StorageRefused(explained(error, root)) from error
        _ANSWERED.add(found)
        raise
    except BaseError as error:
        _ANSWERED.discard(found)
        kind = StorageRefused if _REFUSED.search(_said(error)) else StorageError
        raise kind(explained(error, root)) from error


#: What answered the last request.
_ANSWERED: WeakSet[Reach] = WeakSet()


def _patience(error: Exception, answers: bool) -> float:
    """For how many seconds a request that failed like this is repeated."""
    from obstore.exceptions import GenericError

    text = _said(error)
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
_REFUSED = re.compile(r"status code: (3\d\d|400|401|403|405)|<Code>NoSuchBucket<|credential provider|redirect")
#: Codes of S3 that are about who asks, and what mends them.
WHO = {
    "ExpiredToken": "they have expired: renew them (aws sso login, say)",
    "ExpiredTokenException": "they have expired: renew them (aws sso login, say)",
    "TokenRefreshRequired": "they have expired: renew them (aws sso login, say)",
    "RequestExpired": "check them, and the clock of this machine",
    "RequestTimeTooSkewed": "set the clock of this machine right",
    "InvalidToken": "check them",
    "InvalidAccessKeyId": "check them",
    "SignatureDoesNotMatch": "check them",
}
_ELSEWHERE = ("AuthorizationHeaderMalformed", "IllegalLocationConstraintException")
_CODE = re.compile(r"<Code>(\w+)</Code>")


def _is_about_credentials(error: BaseException | None) -> bool:
    """Whether other credentials may mend it. The answer to a request for the head of an object has a status alone, that of S3 for expired ones is 400."""
    if error is None:
        return False
    text = _said(error)
    status, code = _STATUS.search(text), _CODE.search(text)
    told = status[1] if status is not None else ""
    return (
        told in ("401", "403")
        or (code[1] in WHO if code is not None else told == "400")
        or "credential provider" in text
    )


def explained(error: BaseException, root: str) -> str:
    """What is wrong with a bucket, and the way out, in one sentence."""
    bucket = bucket_of(root)
    found = reach(bucket)
    text = _said(error)
    status, code = _STATUS.search(text), _CODE.search(text)
    named = f"the bucket {bucket!r} at {found.endpoint}"
    if code is not None and code[1] == "NoSuchBucket":
        return f"there is no bucket {bucket!r} at {found.endpoint}: create it, or correct its name"
    if (status is not None and status[1] in ("401", "403")) or (code is not None and code[1] in WHO):
        reason = code[1] if code is not None else "Forbidden"
        way = WHO.get(reason, "check them, and that they may read and write there")
        if found.origin is not None and found.origin.client is not None:
            way += "; they are those of the client that was given: give one that has others (s3_client=)"
        return f"{named} refuses the credentials in use ({reason}): {way}"
    if "credential provider" in text:
        why = _first(error).rpartition("credential provider: ")[2]
        return f"{named} cannot be reached for want of credentials: {why}".rstrip()
    elsewhere = code is not None and code[1] in _ELSEWHERE
    if elsewhere or "redirect" in text or (status is not None and status[1].startswith("3")):
        return f"{named} lies in another region than {found.region}: set AWS_DEFAULT_REGION"
    if status is not None:
        passes = status[1] in _WAIT or not status[1].startswith("4")
        way = "try again later" if passes else "check the bucket, and the endpoint (AWS_ENDPOINT_URL)"
        return f"{named} answered {status[1]}{f' ({code[1]})' if code is not None else ''}: {way}"
    if code is not None:  # of one object of many, whose answer was 200
        return f"{named} answered {code[1]}: try again later"
    if "HTTP error" in text or "error sending" in text:
        return f"{named} cannot be reached: check the network, and the endpoint (AWS_ENDPOINT_URL)"
    return f"{named} failed: {_first(error)}"


def _said(error: BaseException) -> str:
    """The same without the addresses in it: an experiment may be called as a failure is."""
    return re.sub(r"https?://\S+|location \S+", "", _first(error))


def _first(error: BaseException) -> str:
    """What obstore says, without the inner state that it tells behind it."""
    return str(error).split("\n\nDebug source", maxsplit=1)[0].strip()
