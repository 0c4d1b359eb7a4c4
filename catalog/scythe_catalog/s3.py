"""Buckets: an obstore store with the settings and credentials of boto3's session, and no others."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from obstore.store import S3Store


def s3_store(root: str) -> S3Store:
    """The store below `s3://bucket/prefix`; credentials are refreshed by boto3 when they expire."""
    import boto3
    from obstore.auth.boto3 import Boto3CredentialProvider
    from obstore.store import S3Store

    session = boto3.Session()
    bucket, _, prefix = root.removeprefix("s3://").partition("/")
    options: dict[str, Any] = {
        "region": session.region_name or "us-east-1",
        "credential_provider": Boto3CredentialProvider(session),
        "client_options": {},
    }
    endpoint = endpoint_url(session)
    if endpoint:
        options["endpoint"] = endpoint
        options["virtual_hosted_style_request"] = False
        options["client_options"] = {"allow_http": endpoint.startswith("http://")}
    return S3Store(bucket, prefix=prefix or None, **options)


def endpoint_url(session: Any) -> str | None:
    """The S3 endpoint that boto3 would use, None for AWS itself."""
    named = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if named:
        return named
    config = session._session.get_scoped_config()
    return config.get("endpoint_url")


def polars_options(root: str) -> dict[str, str]:
    """Storage options under which Polars' own reader reaches the same bucket, with credentials of now."""
    import boto3

    session = boto3.Session()
    options = {"aws_region": session.region_name or "us-east-1"}
    credentials = session.get_credentials()
    if credentials is not None:
        frozen = credentials.get_frozen_credentials()
        options |= {"aws_access_key_id": frozen.access_key, "aws_secret_access_key": frozen.secret_key}
        if frozen.token:
            options["aws_session_token"] = frozen.token
    endpoint = endpoint_url(session)
    if endpoint:
        options |= {"aws_endpoint_url": endpoint, "aws_allow_http": str(endpoint.startswith("http://")).lower()}
    return options
