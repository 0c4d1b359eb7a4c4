"""A provider of buckets as another package would bring it: `s3a://bucket/prefix`, at the address that TOY_ENDPOINT names."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

from obstore.exceptions import BaseError
from obstore.store import S3Store

from scythe_catalog.errors import StorageError
from scythe_catalog.storage.provider import Provider

T = TypeVar("T")


class Toy(Provider):
    def store(self, *, patient: bool = False) -> S3Store:
        bucket, _, prefix = self.root.removeprefix("s3a://").partition("/")
        return S3Store(
            bucket, prefix=prefix or None, endpoint=os.environ["TOY_ENDPOINT"], region="us-east-1",
            access_key_id="toy", secret_access_key="toy", client_options={"allow_http": True}, conditional_put="etag",
        )  # fmt: skip

    def attempted(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except FileNotFoundError:
            raise
        except BaseError as error:
            raise StorageError(f"the toy store at {self.root}: {error}") from error

    def polars_options(self) -> dict[str, Any]:
        return {
            "aws_endpoint_url": os.environ["TOY_ENDPOINT"], "aws_region": "us-east-1", "aws_allow_http": "true",
            "aws_access_key_id": "toy", "aws_secret_access_key": "toy",
        }  # fmt: skip
