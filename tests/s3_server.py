"""A real S3 protocol server for tests: moto's, in a process of its own, over HTTP on a free port."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
import uuid
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from tests.servers import skip_without_servers

KEY, SECRET, REGION = "test-key", "test-secret", "eu-central-1"

_PROGRAM = """
import functools, os, sys, threading
from werkzeug.serving import make_server
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app

threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
# It would look through all folders of its package, and hundreds of patterns, for each request.
DomainDispatcherApplication.get_backend_for_host = functools.cache(DomainDispatcherApplication.get_backend_for_host)
class Quiet(MotoRequestHandler):
    protocol_version = "HTTP/1.1"
    def log(self, *_): pass
app, one = DomainDispatcherApplication(create_backend_app), threading.Lock()
def served(environ, start):
    # S3 looks at a condition and writes at once; moto's threads would all look first.
    if "HTTP_IF_NONE_MATCH" in environ or "HTTP_IF_MATCH" in environ:
        with one:
            return app(environ, start)
    return app(environ, start)
server = make_server("127.0.0.1", 0, served, threaded=True, request_handler=Quiet)
print(server.port, flush=True)
server.serve_forever()
"""


@dataclass(frozen=True)
class S3Server:
    """Where the server is, and how to reach it."""

    port: int

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self, **more: str) -> dict[str, str]:
        """boto3's settings, as a user of this server would have them."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": REGION,
            **more,
        }

    def client(self, **more: Any) -> Any:
        """A boto3 client that reaches the server whatever the environment says."""
        return _new_client(self.endpoint, **more)

    def new_bucket(self) -> str:
        """The name of a bucket that is empty and that nobody else uses."""
        name = f"scythe-{uuid.uuid4().hex[:12]}"
        _client(self.endpoint).create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
        return name


def _new_client(endpoint: str, **more: Any) -> Any:
    import boto3

    session = boto3.Session(aws_access_key_id=KEY, aws_secret_access_key=SECRET, region_name=REGION)
    return session.client("s3", endpoint_url=endpoint, **more)


#: The client of those who need no own one: making it takes as long as ten requests.
_client = functools.cache(_new_client)


@contextlib.contextmanager
def s3_server(**environment: str) -> Generator[S3Server]:
    """A running server; it ends with the block, and with this process."""
    skip_without_servers()
    clean = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**clean, **environment},
    )  # fmt: skip
    try:
        assert process.stdout
        yield S3Server(int(process.stdout.readline()))
    finally:
        process.kill()
        process.communicate()
