"""A fast S3 server over a folder, with a time that each request waits: what a client costs, not its server.

As much of the protocol as the S3 client needs; every request is counted, none is checked for its signature.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import shutil
import socket
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

_XML = '<?xml version="1.0" encoding="UTF-8"?>'


class FolderS3(ThreadingHTTPServer):
    """Buckets are the folders of a folder."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, folder: Path, delay: float = 0.0, port: int = 0) -> None:
        self.folder, self.delay = folder, delay
        #: How often each method was asked for, and the bytes of bodies that were sent.
        self.counted: Counter[str] = Counter()
        #: The paths of what was written.
        self.written: list[str] = []
        super().__init__(("127.0.0.1", port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client may leave before it has been answered, which is no error here."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    @property
    def environment(self) -> dict[str, str]:
        """boto3's settings that lead here."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.server_address[1]}", "AWS_ACCESS_KEY_ID": "k",
            "AWS_SECRET_ACCESS_KEY": "s", "AWS_DEFAULT_REGION": "eu-central-1",
        }  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FolderS3

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def log_message(self, *_: object) -> None:
        return

    def _begin(self) -> tuple[Path, dict[str, str]]:
        parts = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        self.server.counted[self.command if "list-type" not in query else "LIST"] += 1
        if self.server.delay:
            time.sleep(self.server.delay)
        return self.server.folder / unquote(parts.path).lstrip("/"), query

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _fails(self, status: int, code: str) -> None:
        body = b"" if self.command == "HEAD" else f"{_XML}<Error><Code>{code}</Code></Error>".encode()
        self._answer(status, body)

    def do_HEAD(self) -> None:
        self._get(body=False)

    def do_GET(self) -> None:
        self._get(body=True)

    def _get(self, *, body: bool) -> None:
        path, query = self._begin()
        if "list-type" in query:
            self._list(path, query)
            return
        try:
            file = path.open("rb")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            self._fails(404, "NoSuchKey")
            return
        with file:
            found = os.fstat(file.fileno())
            tag, start, stop = _tag(found), 0, found.st_size
            if self.headers.get("If-None-Match") == tag:
                self._answer(304, ETag=tag)
                return
            if self.headers.get("If-Match") not in (None, tag):
                self._fails(412, "PreconditionFailed")
                return
            given = self.headers.get("Range")
            if given:
                first, _, last = given.removeprefix("bytes=").partition("-")
                start, stop = (
                    (int(first), int(last or stop) + bool(last)) if first else (max(0, stop - int(last)), stop)
                )
                stop = min(stop, found.st_size)
                if start >= found.st_size:
                    self._fails(416, "InvalidRange")
                    return
            self.send_response(206 if given else 200)
            if given:
                self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{found.st_size}")
            self.send_header("ETag", tag)
            self.send_header("Last-Modified", self.date_time_string(found.st_mtime))
            self.send_header("Content-Length", str(stop - start))
            self.end_headers()
            if body:
                self.server.counted["bytes"] += stop - start
                self.wfile.flush()
                while start < stop:
                    start += os.sendfile(self.connection.fileno(), file.fileno(), start, stop - start)

    def _list(self, bucket: Path, query: dict[str, str]) -> None:
        prefix, slash = query.get("prefix", ""), query.get("delimiter")
        found, folders = list[tuple[str, os.stat_result]](), set[str]()
        below = bucket / prefix.rpartition("/")[0]
        if slash:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(below) as entries:
                for entry in entries:
                    key = os.path.relpath(entry.path, bucket)
                    if key.startswith(prefix) and entry.is_dir():
                        folders.add(key + "/")
                    elif key.startswith(prefix):
                        found.append((key, entry.stat()))
        else:
            for path in below.rglob("*"):
                if path.is_file() and (key := str(path.relative_to(bucket))).startswith(prefix):
                    found.append((key, path.stat()))
        after = query.get("continuation-token") or query.get("start-after") or ""
        found = sorted(f for f in found if f[0] > after)
        page, more = found[:1000], len(found) > 1000
        contents = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{stat.st_size}</Size><ETag>{escape(_tag(stat))}</ETag>"
            f"<LastModified>{time.strftime('%Y-%m-%dT%H:%M:%S.000Z', time.gmtime(stat.st_mtime))}</LastModified></Contents>"
            for key, stat in page
        )
        common = "".join(
            f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in sorted(folders)
        )
        goes_on = f"<NextContinuationToken>{escape(page[-1][0])}</NextContinuationToken>" if more else ""
        head = (
            f"<Name>{bucket.name}</Name><KeyCount>{len(page)}</KeyCount><IsTruncated>{str(more).lower()}</IsTruncated>"
        )
        self._answer(200, f"{_XML}<ListBucketResult>{head}{goes_on}{contents}{common}</ListBucketResult>".encode())

    def do_PUT(self) -> None:
        path, query = self._begin()
        self.server.written.append(self.path)
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "/" not in urlsplit(self.path).path.strip("/"):
            path.mkdir(parents=True, exist_ok=True)
            self._answer(200)
            return
        if "uploadId" in query:
            path = self.server.folder / ".uploads" / query["uploadId"] / f"{int(query['partNumber']):06d}"
        elif self._is_another(_tag(path.stat()) if path.exists() else None):
            self._fails(412, "PreconditionFailed")
            return
        staged = self.server.folder / ".uploads" / uuid.uuid4().hex
        staged.parent.mkdir(exist_ok=True)
        source = self.headers.get("x-amz-copy-source")
        if source:
            shutil.copyfile(self.server.folder / unquote(source).lstrip("/"), staged)
        else:
            staged.write_bytes(data)
        path.parent.mkdir(parents=True, exist_ok=True)
        staged.replace(path)
        tag = _tag(path.stat())
        if source:
            self._answer(200, f"{_XML}<CopyObjectResult><ETag>{escape(tag)}</ETag></CopyObjectResult>".encode())
        else:
            self._answer(200, ETag=tag)

    def _is_another(self, tag: str | None) -> bool:
        """Whether what is there is not what the request is about."""
        if self.headers.get("If-None-Match") == "*":
            return tag is not None
        return self.headers.get("If-Match") not in (None, tag)

    def do_POST(self) -> None:
        path, query = self._begin()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        if "uploads" in query:
            name = uuid.uuid4().hex
            (self.server.folder / ".uploads" / name).mkdir(parents=True)
            answer = f"<InitiateMultipartUploadResult><UploadId>{name}</UploadId></InitiateMultipartUploadResult>"
        elif "uploadId" in query:
            folder = self.server.folder / ".uploads" / query["uploadId"]
            staged = folder / "whole"
            with staged.open("wb") as out:
                for part in sorted(p for p in folder.iterdir() if p != staged):
                    out.write(part.read_bytes())
            path.parent.mkdir(parents=True, exist_ok=True)
            staged.replace(path)
            shutil.rmtree(folder)
            tag = escape(_tag(path.stat()))
            answer = f"<CompleteMultipartUploadResult><ETag>{tag}</ETag></CompleteMultipartUploadResult>"
        else:
            keys = [part.partition("</Key>")[0] for part in body.split("<Key>")[1:]]
            for key in keys:
                (path / key).unlink(missing_ok=True)
            deleted = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in keys)
            answer = f"<DeleteResult>{deleted}</DeleteResult>"
        self._answer(200, f"{_XML}{answer}".encode())

    def do_DELETE(self) -> None:
        path, query = self._begin()
        if "uploadId" not in query:
            path.unlink(missing_ok=True)
        self._answer(204)


def _tag(stat: os.stat_result) -> str:
    return f'"{hashlib.md5(f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ino}".encode()).hexdigest()}"'


@contextlib.contextmanager
def folder_s3(folder: Path, delay: float = 0.0) -> Generator[FolderS3]:
    """A server in a thread of this process."""
    with FolderS3(folder, delay) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--delay", type=float, default=0.0)
    given = parser.parse_args()
    with FolderS3(given.folder, given.delay, given.port) as serving:
        print(serving.server_address[1], flush=True)
        serving.serve_forever()
