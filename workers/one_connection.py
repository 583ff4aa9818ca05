"""One HTTP/1.1 connection as an httpx transport, without a pool.

httpx's own transport goes through a pool, h11 and anyio. With a thousand calls in flight, each over a
connection of its own, that took a third of a worker's time and a fifth of its memory. An extension point of
httpx: https://www.python-httpx.org/advanced/transports/#custom-transports
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import aiohappyeyeballs
import httpx

from workers.wire import Wire

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

NEXT_ADDRESS_SECONDS = 0.25
"""How long one address of a host may be silent before the next is tried beside it (RFC 8305, section 5)."""


class OneConnection(httpx.AsyncBaseTransport):
    """Connects with its first request, and once. It takes one request at a time.

    After anything went wrong, or a reply that was not read to its end, it takes no other.

    Args:
        host: a name or an address.
        port: of TCP.
        ssl_context: which certificates to trust; None for no TLS.
    """

    def __init__(self, *, host: str, port: int, ssl_context: ssl.SSLContext | None) -> None:
        self._host = host
        self._port = port
        self._ssl_context = ssl_context
        self._wire: Wire | None = None

    @property
    def usable(self) -> bool:
        """Whether it can take another request: the last reply is complete, and nobody has closed."""
        return self._wire is not None and self._wire.idle

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request whose body is in memory; its reply as soon as its head is there.

        Args:
            request: with `connect`, `write` and `read` seconds in its extension `timeout`.

        Raises:
            httpx.TransportError: no reply; the class says why.
            UnicodeError: no host can have that name.
        """
        timeouts = request.extensions["timeout"]
        message = _message(request)
        if self._wire is None:
            self._wire = await self._connect(timeouts["connect"])
        wire = self._wire
        wire.begin()
        await wire.write(message, seconds=timeouts["write"])
        while not wire.head_complete:
            await wire.more(seconds=timeouts["read"])
        return httpx.Response(
            wire.status, headers=wire.headers, stream=_Body(wire, read_seconds=timeouts["read"])
        )

    async def aclose(self) -> None:
        """Close at once: nothing that was not sent yet is sent any more."""
        if self._wire is not None:
            self._wire.transport.abort()
            await asyncio.sleep(0)

    async def _connect(self, seconds: float) -> Wire:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(seconds):
                connected = await aiohappyeyeballs.start_connection(
                    await _addresses(self._host, self._port),
                    happy_eyeballs_delay=NEXT_ADDRESS_SECONDS,
                    interleave=1,
                )
                try:
                    _, wire = await loop.create_connection(
                        Wire,
                        sock=connected,
                        ssl=self._ssl_context,
                        server_hostname=self._host if self._ssl_context else None,
                    )
                except BaseException:
                    connected.close()
                    raise
        except TimeoutError as error:
            raise httpx.ConnectTimeout(str(error)) from error
        except OSError as error:
            raise httpx.ConnectError(str(error)) from error
        return wire


async def _addresses(host: str, port: int) -> list[Any]:
    return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)


def _message(request: httpx.Request) -> bytes:
    """A request as it goes over the wire.

    Raises:
        httpx.LocalProtocolError: its target or a header would end its line.
    """
    lines = [b"%s %s HTTP/1.1" % (request.method.encode(), request.url.raw_path)]
    lines += [b"%s: %s" % header for header in request.headers.raw]
    head = b"\r\n".join(lines)
    ends = len(lines) - 1
    if head.count(b"\r") != ends or head.count(b"\n") != ends or b"\0" in head:
        raise httpx.LocalProtocolError("a line of the request's head has a line end or NUL in it")
    return head + b"\r\n\r\n" + request.content


class _Body(httpx.AsyncByteStream):
    """What a reply brings after its head, piece by piece."""

    def __init__(self, wire: Wire, *, read_seconds: float) -> None:
        self._wire = wire
        self._read_seconds = read_seconds

    async def __aiter__(self) -> AsyncIterator[bytes]:
        wire = self._wire
        while True:
            for chunk in wire.taken():
                yield chunk
            if wire.complete:
                return
            await wire.more(seconds=self._read_seconds)

    async def aclose(self) -> None:
        """Hang up, unless the reply was read to its end."""
        if not self._wire.complete:
            self._wire.transport.abort()
