"""A web server of a test's own: the answer to each path is set, and every request is kept."""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Callable, Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Web:
    """A server whose answer to each path can be set, and that counts how often it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, Callable[[BaseHTTPRequestHandler], None]] = {}
        self.asked: list[str] = []
        #: Those of which the head alone was asked for.
        self.looked_at: list[str] = []
        #: Of each request, its headers by their names in lower case.
        self.headers: list[dict[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                outer.headers.append({name.lower(): value for name, value in self.headers.items()})
                outer.answers[self.path](self)

            def do_HEAD(self) -> None:
                outer.looked_at.append(self.path)
                there, self.wfile = self.wfile, io.BytesIO()
                outer.answers[self.path](self)
                head, end, _ = self.wfile.getvalue().partition(b"\r\n\r\n")
                self.wfile = there
                self.wfile.write(head + end)

            def log_message(self, *_: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def gives(self, path: str, body: bytes, status: int = 200, length: int | None = None, **headers: str) -> str:
        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(status)
            for name, value in headers.items():
                handler.send_header(name.replace("_", "-"), value)
            handler.send_header("Content-Length", str(len(body) if length is None else length))
            handler.end_headers()
            handler.wfile.write(body)

        self.answers[path] = answer
        return self.url + path

    def knows_its_tags(self, path: str, body: bytes, tag: str) -> str:
        """A file that is sent only to those who do not have it; its URL."""

        def answer(handler: BaseHTTPRequestHandler) -> None:
            known = handler.headers.get("If-None-Match") == tag
            handler.send_response(304 if known else 200)
            handler.send_header("ETag", tag)
            handler.send_header("Content-Length", "0" if known else str(len(body)))
            handler.end_headers()
            handler.wfile.write(b"" if known else body)

        self.answers[path] = answer
        return self.url + path


@contextlib.contextmanager
def web_server() -> Generator[Web]:
    """A running server; it ends with the block."""
    served = Web()
    thread = threading.Thread(target=served.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        served.server.shutdown()
        served.server.server_close()
        thread.join()
