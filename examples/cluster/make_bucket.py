"""Creates the bucket of SCYTHE_STORAGE_BUCKET, as soon as the S3 server answers; nothing where it is there."""

from __future__ import annotations

import os
import time

import boto3
from botocore.exceptions import BotoCoreError, ClientError

s3, bucket = boto3.client("s3"), os.environ["SCYTHE_STORAGE_BUCKET"]
until = time.monotonic() + 60
while True:
    try:
        if bucket not in [found["Name"] for found in s3.list_buckets()["Buckets"]]:
            s3.create_bucket(Bucket=bucket)
        break
    except (BotoCoreError, ClientError):
        if time.monotonic() > until:
            raise
        time.sleep(1)
