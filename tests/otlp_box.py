"""A tracing system for tests: takes spans by OTLP over HTTP and keeps them."""

from __future__ import annotations

import http.server
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

if TYPE_CHECKING:
    from opentelemetry.proto.common.v1.common_pb2 import KeyValue


@dataclass(frozen=True, slots=True)
class Taken:
    """A span as it was sent."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    process: dict[str, object]
    notes: dict[str, object]


class Collector:
    """Listens on a free port while the `with` block lasts.

    Args:
        status: its answer to every request.
    """

    def __init__(self, *, status: int = 200) -> None:
        self.status = status
        self.requests = 0
        self.spans: list[Taken] = []
        self.raw: list[bytes] = []
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                status = collector.take(self.path, body)
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nothing: the test looks at what was taken."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def take(self, path: str, body: bytes) -> int:
        self.requests += 1
        if path != "/v1/traces":
            return 404
        if self.status == 200:
            self.raw.append(body)
            self.spans += _spans(body)
        return self.status

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _spans(body: bytes) -> list[Taken]:
    return [
        Taken(
            name=span.name,
            trace_id=span.trace_id.hex(),
            span_id=span.span_id.hex(),
            parent_id=span.parent_span_id.hex(),
            process=_plain(process.resource.attributes),
            notes=_plain(span.attributes),
        )
        for process in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in process.scope_spans
        for span in scope.spans
    ]


def _plain(attributes: list[KeyValue]) -> dict[str, object]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}
