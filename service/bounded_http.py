"""uvicorn's HTTP protocol with a limit on what it keeps of a request besides the body.

The parser collects addresses, headers, trailers and chunk extensions for as long as they come. The body is
limited by `service.webhook`, which reads it piece by piece.
"""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEAD_BYTES = 64 * 1024


class BoundedHttp(HttpToolsProtocol):
    """Answers 400 and hangs up after 64 KiB that brought neither a piece of a body nor a head's end."""

    _idle_bytes = 0

    def data_received(self, data: bytes) -> None:
        """Take what came in."""
        before = self.cycle
        self._idle_bytes += len(data)
        super().data_received(data)
        if self.cycle is not before:
            # a head has ended
            self._idle_bytes = 0
        elif self._idle_bytes > MOST_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("The request's head is too long.")

    def on_body(self, body: bytes) -> None:
        """A piece of the body has come."""
        self._idle_bytes = 0
        super().on_body(body)
