"""The two ends of a connection to Close: asyncio carries the bytes, llhttp (httptools) reads the replies."""

from __future__ import annotations

import asyncio
import select
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

import httptools
import httpx

if TYPE_CHECKING:
    import socket

MOST_HEAD_BYTES = 64 * 1024
MOST_BUFFERED_BYTES = 256 * 1024
"""What has come of a body and nobody has read yet; then the sender has to wait."""


class Wire(asyncio.Protocol):
    """Bytes out, and a reply at a time in.

    Attributes:
        transport: asyncio's.
        status: of the reply.
        headers: of the reply, as they came.
        head_complete: both are there.
        complete: the whole reply has come; some of its body may not have been taken.
    """

    __slots__ = (
        "_asked", "_buffered_bytes", "_chunks", "_ended", "_error", "_head_bytes", "_parser", "_reusable",
        "_room", "_until_close", "_waiting", "complete", "head_complete", "headers", "status", "transport",
    )  # fmt: skip

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._waiting: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._ended = False
        self._error: Exception | None = None
        self._asked = False
        self._reusable = True
        self._clear()

    def _clear(self) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.head_complete = self.complete = False
        self._until_close = True
        self._head_bytes = 0
        self._chunks: list[bytes] = []
        self._buffered_bytes = 0

    # what the transport above asks

    @property
    def idle(self) -> bool:
        """Whether another request may be sent: the last reply is complete, and nobody has closed."""
        return (
            self.complete
            and self._reusable
            and not self._ended
            and not self.transport.is_closing()
            # the loop may not have heard yet that the other side has closed
            and not _has_input(self.transport.get_extra_info("socket"))
        )

    def begin(self) -> None:
        """What comes from now on is the reply to what will be written."""
        self._asked = True
        self._clear()

    async def write(self, message: bytes, *, seconds: float) -> None:
        """Write all of it.

        Raises:
            httpx.WriteTimeout: the other side did not take it in time.
        """
        self.transport.write(message)
        if self._room is not None:
            try:
                async with asyncio.timeout(seconds):
                    await self._room
            except TimeoutError as error:
                raise httpx.WriteTimeout("the request was not taken in time") from error

    async def more(self, *, seconds: float) -> None:
        """Wait until more of the reply has come than there was.

        Raises:
            httpx.ReadTimeout: nothing came in time.
            httpx.ReadError: the connection broke.
            httpx.RemoteProtocolError: the other side hung up, or what it sends is no reply.
        """
        self._raise_if_over()
        loop = asyncio.get_running_loop()
        waiting = self._waiting = loop.create_future()
        # a timer of its own costs a fraction of what asyncio.timeout does
        timer = loop.call_later(seconds, _expire, waiting)
        try:
            await waiting
        finally:
            self._waiting = None
            timer.cancel()
        if not self.complete and not self._chunks:
            self._raise_if_over()

    def taken(self) -> list[bytes]:
        """What has come of the body since the last time."""
        chunks, self._chunks = self._chunks, []
        if self._buffered_bytes > MOST_BUFFERED_BYTES and not self.transport.is_closing():
            self.transport.resume_reading()
        self._buffered_bytes = 0
        return chunks

    def _raise_if_over(self) -> None:
        if isinstance(self._error, httpx.TransportError):
            raise self._error
        if self._error is not None:
            raise httpx.ReadError(str(self._error)) from self._error
        if self._ended:
            raise httpx.RemoteProtocolError("the other side hung up before its reply was complete")

    # what asyncio tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Bytes came in."""
        if not self._asked or self.complete:
            # nobody has asked for it: it must not be taken for the next reply
            self._fail("something came that was not asked for")
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(f"what came is no reply of HTTP/1.1: {type(error).__name__}")
            return
        if not self.head_complete:
            self._head_bytes += len(data)
            if self._head_bytes > MOST_HEAD_BYTES:
                self._fail(f"the reply's head is over {MOST_HEAD_BYTES} bytes")
                return
        if self._buffered_bytes > MOST_BUFFERED_BYTES:
            self.transport.pause_reading()
        _wake(self._waiting)

    def eof_received(self) -> None:
        """The other side sends nothing more."""
        self._end(None)

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone."""
        self._end(error)
        _wake(self._room)

    def pause_writing(self) -> None:
        """The network is full."""
        self._room = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """The network has taken most of what was written."""
        _wake(self._room)
        self._room = None

    def _end(self, error: Exception | None) -> None:
        self._ended = True
        if self._error is None:
            self._error = error
        if error is None and self.head_complete and self._until_close:
            # RFC 9112, section 6.3: a body whose length nothing tells ends with the connection
            self.complete = True
        _wake(self._waiting)

    def _fail(self, why: str) -> None:
        if self._error is None:
            self._error = httpx.RemoteProtocolError(why)
        self._ended = True
        self._reusable = False
        self.transport.abort()
        _wake(self._waiting)

    # what the parser finds

    def on_message_begin(self) -> None:
        """A reply begins."""
        if self.complete:
            # another reply behind the one that was asked for: nothing of it is taken
            self._reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer."""
        if self.head_complete:
            return  # a trailer, which nobody reads
        self.headers.append((name, value))
        lower = name.lower()
        chunked = lower == b"transfer-encoding" and value.lower().endswith(b"chunked")
        if chunked or lower == b"content-length":
            self._until_close = False

    def on_headers_complete(self) -> None:
        """The head of a reply has ended."""
        if self.complete:
            return
        status = self._parser.get_status_code()
        if status < HTTPStatus.OK:
            # RFC 9110, section 15.2: what is only information comes before the reply
            self.headers = []
            self._until_close = True
            return
        self.status = status
        self.head_complete = True

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        if self.complete:
            return
        self._chunks.append(body)
        self._buffered_bytes += len(body)

    def on_message_complete(self) -> None:
        """A reply has ended."""
        if self.head_complete and not self.complete:
            self.complete = True
            self._reusable = self._parser.should_keep_alive()


def _wake(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)


def _expire(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_exception(httpx.ReadTimeout("nothing came in time"))


def _has_input(connected: socket.socket) -> bool:
    poll = select.poll()
    poll.register(connected.fileno(), select.POLLIN)
    return bool(poll.poll(0))
