"""A real HTTP server that stands for Slack: it keeps what is posted and answers as it is told to."""

from __future__ import annotations

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PATH = "/services/T0000/B0000/hush-hush-token"


class Channel:
    """What was posted, and how the next posts are answered."""

    def __init__(self) -> None:
        self.posts: list[dict[str, Any]] = []
        self.url = ""
        self.status = 200
        self.body = b"ok"
        self.headers: Mapping[str, str] = {}

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Answer so from now on; `_` in a header's name stands for `-`."""
        self.status, self.body = status, body
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    @property
    def text(self) -> str:
        """All messages."""
        return "\n".join(post["text"] for post in self.posts)


@contextlib.contextmanager
def channel() -> Iterator[Channel]:
    """A channel whose `url` takes posts."""
    found = Channel()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.path == PATH and self.headers["content-type"] == "application/json":
                found.posts.append(json.loads(body))
            self.send_response(found.status)
            for name, value in found.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(found.body)))
            self.end_headers()
            self.wfile.write(found.body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found.url = f"http://127.0.0.1:{server.server_port}{PATH}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()
