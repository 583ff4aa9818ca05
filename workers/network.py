"""What httpcore sends and receives with: asyncio's transports, and as little as possible around them.

httpcore's own layer goes through anyio, which makes a cancel scope for each read and write: two fifths of
what a call costs. A layer of one's own is an extension point of httpcore:
https://www.encode.io/httpcore/network-backends/
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
from typing import TYPE_CHECKING, Any, cast

import aiohappyeyeballs
import httpcore

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable, Iterator

MOST_BUFFERED_BYTES = 256 * 1024
"""What has come in and nobody has read yet; then the sender has to wait."""

NEXT_ADDRESS_SECONDS = 0.25
"""How long one address of a host may be silent before the next is tried beside it (RFC 8305, section 5)."""


class Network(httpcore.AsyncNetworkBackend):
    """Connects to hosts by TCP."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  the base class has it
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first of a host's addresses that answers.

        Args:
            host: a name or an address.
            port: of TCP.
            timeout: seconds for all of it; None for any time.
            local_address: not supported.
            socket_options: not supported.

        Raises:
            httpcore.ConnectTimeout: it took too long.
            httpcore.ConnectError: no address of the host accepts.
            UnicodeError: no host can have that name.
        """
        if local_address is not None or socket_options:
            raise NotImplementedError("neither a local address nor socket options can be chosen")
        with _errors(timed_out=httpcore.ConnectTimeout, failed=httpcore.ConnectError):
            async with asyncio.timeout(timeout):
                connected = await aiohappyeyeballs.start_connection(
                    await _addresses(host, port), happy_eyeballs_delay=NEXT_ADDRESS_SECONDS, interleave=1
                )
                try:
                    _, receiver = await asyncio.get_running_loop().create_connection(
                        _Receiver, sock=connected
                    )
                except BaseException:
                    connected.close()
                    raise
        return _Stream(receiver)


async def _addresses(host: str, port: int) -> list[Any]:
    return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)


class _Receiver(asyncio.Protocol):
    """Keeps what has come in until it is read.

    Attributes:
        transport: of the connection; another one as soon as it is encrypted.
        ended: nothing more comes.
        error: why the connection broke; None where it did not.
        waiting: done as soon as a read would return at once; None while nobody waits for that.
        room: done as soon as the network has taken most of what was written; None while it has.
    """

    __slots__ = ("_buffered_bytes", "_chunks", "ended", "error", "room", "transport", "waiting")

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.ended = False
        self.error: Exception | None = None
        self.waiting: asyncio.Future[None] | None = None
        self.room: asyncio.Future[None] | None = None
        # an empty deque takes ten times the memory, for each of a thousand connections
        self._chunks: list[bytes] = []
        self._buffered_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._chunks.append(data)
        self._buffered_bytes += len(data)
        if self._buffered_bytes > MOST_BUFFERED_BYTES:
            self.transport.pause_reading()
        _wake(self.waiting)

    def eof_received(self) -> None:
        self.ended = True
        _wake(self.waiting)

    def connection_lost(self, error: Exception | None) -> None:
        self.ended = True
        self.error = error
        _wake(self.waiting)
        _wake(self.room)

    def pause_writing(self) -> None:
        self.room = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        _wake(self.room)
        self.room = None

    @property
    def readable(self) -> bool:
        """Whether a read would return at once."""
        return self.ended or bool(self._chunks)

    def read(self, most: int) -> bytes:
        """Up to so many bytes of what has come in; nothing at the end of the stream, or where nothing has."""
        if not self._chunks:
            return b""
        chunk = self._chunks[0]
        if len(chunk) > most:
            self._chunks[0] = chunk[most:]
            chunk = chunk[:most]
        else:
            del self._chunks[0]
        paused = self._buffered_bytes > MOST_BUFFERED_BYTES
        self._buffered_bytes -= len(chunk)
        if paused and self._buffered_bytes <= MOST_BUFFERED_BYTES and not self.transport.is_closing():
            self.transport.resume_reading()
        return chunk


class _Stream(httpcore.AsyncNetworkStream):
    """One connection, for one reader and one writer."""

    def __init__(self, receiver: _Receiver) -> None:
        self._receiver = receiver

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109  as above
        """What comes next, at least a byte; nothing at the end of the stream.

        Raises:
            httpcore.ReadTimeout: nothing came in time.
            httpcore.ReadError: the connection broke.
        """
        receiver = self._receiver
        if not receiver.readable:
            await _wait_for_more(receiver, timeout)
        chunk = receiver.read(max_bytes)
        if not chunk and receiver.error is not None:
            raise httpcore.ReadError(str(receiver.error)) from receiver.error
        return chunk

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109  as above
        """Write all of it.

        Raises:
            httpcore.WriteTimeout: the other side did not take it in time.
            httpcore.WriteError: the connection is broken.
        """
        receiver = self._receiver
        if receiver.transport.is_closing():
            raise httpcore.WriteError("the connection is closed")
        receiver.transport.write(buffer)
        if receiver.room is not None:
            try:
                async with asyncio.timeout(timeout):
                    await receiver.room
            except TimeoutError as error:
                raise httpcore.WriteTimeout(str(error)) from error
        if receiver.error is not None:
            raise httpcore.WriteError(str(receiver.error)) from receiver.error

    async def aclose(self) -> None:
        """Close at once: nothing that was not sent yet is sent any more."""
        self._receiver.transport.abort()
        await asyncio.sleep(0)

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  as above
    ) -> httpcore.AsyncNetworkStream:
        """Go on encrypted.

        Raises:
            httpcore.ConnectTimeout: it took too long.
            httpcore.ConnectError: the other side cannot do it, or is not trusted.
        """
        receiver = self._receiver
        loop = asyncio.get_running_loop()
        if receiver.readable:
            # the handshake would never see it, and wait; nor may it be taken for what came encrypted
            await self.aclose()
            raise httpcore.ConnectError("no SSL: the other side spoke, or left, before the handshake")
        try:
            with _errors(timed_out=httpcore.ConnectTimeout, failed=httpcore.ConnectError):
                async with asyncio.timeout(timeout):
                    encrypted = await loop.start_tls(
                        receiver.transport, receiver, ssl_context, server_hostname=server_hostname
                    )
        except BaseException:
            await self.aclose()
            raise
        if encrypted is None:
            raise httpcore.ConnectError("the connection ended during the TLS handshake")
        receiver.transport = encrypted
        return self

    def get_extra_info(self, info: str) -> Any:
        """What httpcore asks about a connection; None for what is not known."""
        transport = self._receiver.transport
        match info:
            case "is_readable":
                # the loop may not have heard yet that the other side has closed
                return self._receiver.readable or _has_input(transport.get_extra_info("socket"))
            case "client_addr":
                return transport.get_extra_info("sockname")
            case "server_addr":
                return transport.get_extra_info("peername")
            case "ssl_object" | "socket":
                return transport.get_extra_info(info)
        return None


async def _wait_for_more(receiver: _Receiver, seconds: float | None) -> None:
    loop = asyncio.get_running_loop()
    waiting = receiver.waiting = loop.create_future()
    # a timer of its own costs a fraction of what asyncio.timeout does
    timer = None if seconds is None else loop.call_later(seconds, _expire, waiting)
    try:
        await waiting
    finally:
        receiver.waiting = None
        if timer is not None:
            timer.cancel()


def _wake(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)


def _expire(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_exception(httpcore.ReadTimeout("nothing came in time"))


def _has_input(connected: socket.socket) -> bool:
    poll = select.poll()
    poll.register(connected.fileno(), select.POLLIN)
    return bool(poll.poll(0))


@contextlib.contextmanager
def _errors(*, timed_out: type[Exception], failed: type[Exception]) -> Iterator[None]:
    """The network's errors as httpcore's."""
    try:
        yield
    except TimeoutError as error:
        raise timed_out(str(error)) from error
    except OSError as error:
        raise failed(str(error)) from error
