"""How a request reaches Close. Replies and transport failures come back as data; only cancellation is raised.

Source: https://developer.close.com/api/overview/api-key-authentication (HTTP Basic, the key is the user).

An httpx pool scans all its connections on every request; with hundreds, that costs more than the request.
So every call in flight has a transport of its own with one connection, and all of them share one TLS context.
They are plain transports, not clients: a client would store cookies, prepare redirects that nobody follows,
and cost a third more time a call. Without a proxy they are `OneConnection`s, which take a fraction of the
time and memory that httpx's own transport takes.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import time
from collections import deque
from contextlib import aclosing
from importlib import metadata
from typing import TYPE_CHECKING, cast

import httpx

from workers.close_address import DEFAULT_BASE_URL, api_root, environment_proxy
from workers.one_connection import OneConnection
from workers.reply import Failure, FailureKind, Reply
from workers.reply_body import one_line

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Mapping

MAX_BODY_BYTES = 1024 * 1024
KEEPALIVE_SECONDS = 4.0
"""How long an idle connection may be used again.

If Close closes an idle connection just as a request goes out on it, nobody can tell whether the request ran,
and after a POST that costs a read-back. A short idle time makes this rare: servers wait longer than this.
"""

_JSON_CONTENT = (b"content-type", b"application/json")
_KEPT_HEADERS = frozenset({b"content-type", b"date", b"location", b"ratelimit", b"retry-after"})
_KEPT_PREFIX = b"x-rate-limit-"

# In this order: the first class that fits decides.
_FAILURE_KINDS: tuple[tuple[type[Exception], FailureKind], ...] = (
    (httpx.ConnectError, FailureKind.CONNECT),
    (httpx.ConnectTimeout, FailureKind.CONNECT),
    (httpx.ProxyError, FailureKind.CONNECT),
    # A host name with a part of over 63 letters fails while it is being looked up.
    (UnicodeError, FailureKind.CONNECT),
    (httpx.PoolTimeout, FailureKind.POOL),
    (httpx.WriteTimeout, FailureKind.WRITE_TIMEOUT),
    (httpx.WriteError, FailureKind.WRITE_ERROR),
    (httpx.ReadTimeout, FailureKind.READ_TIMEOUT),
    (TimeoutError, FailureKind.DEADLINE),
)


class CloseHttp:
    """Requests with one API key.

    Any number of calls may run at once; the caller bounds them. Each call ends within its `timeout_seconds`
    plus the connect timeout. Redirects are reported, never followed. The environment's proxy is used, and so
    are `SSL_CERT_FILE` and `SSL_CERT_DIR`.
    """

    def __init__(
        self,
        *,
        api_key: str,
        base_url: str = DEFAULT_BASE_URL,
        connect_timeout_seconds: float = 10.0,
        write_timeout_seconds: float = 30.0,
        keepalive_seconds: float = KEEPALIVE_SECONDS,
        max_body_bytes: int = MAX_BODY_BYTES,
        ssl_context: ssl.SSLContext | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare everything that calls share; no connection is made yet.

        Args:
            api_key: Close's API key; no message, log or repr shows it.
            base_url: where the API is, with or without `/api/v1` and a slash at the end.
            connect_timeout_seconds: for the TCP connection, and again for the TLS handshake.
            write_timeout_seconds: for sending one request.
            keepalive_seconds: how long an idle connection may be used again.
            max_body_bytes: how much of a reply's body is read.
            ssl_context: which certificates to trust; by default those httpx trusts.
            monotonic: a clock that never goes back, in seconds.

        Raises:
            ValueError: the key, the address or the environment's proxy cannot be used; none is shown.
        """
        if not api_key or not api_key.isascii() or not api_key.isprintable() or {" ", ":"} & set(api_key):
            raise ValueError("api_key must be a Close API key: ASCII, not empty, without spaces or colons")
        self._root = api_root(base_url)
        self._connect_timeout_seconds = connect_timeout_seconds
        self._write_timeout_seconds = write_timeout_seconds
        self._keepalive_seconds = keepalive_seconds
        self._max_body_bytes = max_body_bytes
        self._monotonic = monotonic
        self._ssl_context = ssl_context or httpx.create_ssl_context()
        self._proxy = _proxy(self._root, ssl_context=self._ssl_context)
        common = (
            (b"authorization", b"Basic " + base64.b64encode(f"{api_key}:".encode())),
            (b"user-agent", f"close-enrich/{_version()}".encode()),
            (b"accept", b"application/json"),
            # Compressed bodies could grow past the cap while being unpacked.
            (b"accept-encoding", b"identity"),
        )
        # made once: httpx looks at each header anew where it is given them as pairs
        self._headers = httpx.Headers(common)
        self._headers_of_json = httpx.Headers((*common, _JSON_CONTENT))
        self._idle: deque[tuple[float, httpx.AsyncBaseTransport]] = deque()
        try:
            _parsed(self._root)
        except httpx.InvalidURL:
            raise ValueError("base_url names a host that cannot exist") from None

    async def aclose(self) -> None:
        """Close the idle connections. Calls in flight keep theirs."""
        while self._idle:
            transport = self._idle.popleft()[1]
            await transport.aclose()

    async def request(
        self,
        method: str,
        path: str,
        *,
        timeout_seconds: float,
        content: bytes | None = None,
        max_body_bytes: int | None = None,
    ) -> Reply | Failure:
        """Send one request and read its whole reply.

        Args:
            method: of HTTP.
            path: below the API's root, with its query, escaped.
            timeout_seconds: how long to wait for the answer.
            content: a JSON body.
            max_body_bytes: how much of the reply's body is read, where it is not the client's own limit.
        """
        timeouts = {
            "connect": self._connect_timeout_seconds,
            "write": self._write_timeout_seconds,
            "read": timeout_seconds,
            "pool": self._connect_timeout_seconds,
        }
        headers = self._headers if content is None else self._headers_of_json
        request = httpx.Request(
            method,
            _parsed(self._root + path),
            headers=headers,
            content=content,
            extensions={"timeout": timeouts},
        )
        started = self._monotonic()
        transport = await self._take()
        reply: Reply | None = None
        try:
            # httpx limits each read, so a reply that drips would never end without this.
            async with asyncio.timeout(timeout_seconds + self._connect_timeout_seconds):
                reply = await self._exchange(
                    transport, request, started=started, most=max_body_bytes or self._max_body_bytes
                )
        except (httpx.TransportError, OSError, UnicodeError) as error:
            kind = _failure_kind(error)
            elapsed_seconds = self._monotonic() - started
            return Failure(kind=kind, elapsed_seconds=elapsed_seconds, detail=_detail(error, kind=kind))
        else:
            return reply
        finally:
            # After anything but a whole reply, a cancellation too, the connection's state is anyone's guess.
            if reply is None or reply.truncated:
                await transport.aclose()
            else:
                await self._give_back(transport)

    async def _exchange(
        self, transport: httpx.AsyncBaseTransport, request: httpx.Request, *, started: float, most: int
    ) -> Reply:
        response = await transport.handle_async_request(request)
        body = bytearray()
        stream = cast("httpx.AsyncByteStream", response.stream)
        async with aclosing(stream):
            async for chunk in stream:
                body += chunk
                if len(body) > most:
                    break
        return Reply(
            status=response.status_code,
            headers=_kept(response.headers.raw),
            body=bytes(body[:most]),
            truncated=len(body) > most,
            elapsed_seconds=self._monotonic() - started,
        )

    async def _take(self) -> httpx.AsyncBaseTransport:
        # Last in, first out: the connection used most recently is the least likely to be closed by Close.
        now = self._monotonic()
        while self._idle:
            since, transport = self._idle.pop()
            fresh = now - since < self._keepalive_seconds
            if fresh and (not isinstance(transport, OneConnection) or transport.usable):
                return transport
            await transport.aclose()
        if self._proxy is None:
            url = _parsed(self._root)
            secure = url.scheme == "https"
            return OneConnection(
                host=url.raw_host.decode(),
                port=url.port or (443 if secure else 80),
                ssl_context=self._ssl_context if secure else None,
            )
        limits = httpx.Limits(
            max_connections=1, max_keepalive_connections=1, keepalive_expiry=self._keepalive_seconds
        )
        return httpx.AsyncHTTPTransport(verify=self._ssl_context, limits=limits, proxy=self._proxy)

    async def _give_back(self, transport: httpx.AsyncBaseTransport) -> None:
        now = self._monotonic()
        self._idle.append((now, transport))
        # A burst leaves many connections behind; those that nobody needed since go.
        while self._idle and self._idle[0][0] < now - self._keepalive_seconds:
            await self._idle.popleft()[1].aclose()


@functools.lru_cache(maxsize=32)
def _parsed(url: str) -> httpx.URL:
    # one address is asked far more often than all others, and reading it costs a tenth of a call
    return httpx.URL(url)


def _proxy(root: str, *, ssl_context: ssl.SSLContext) -> httpx.Proxy | None:
    address = environment_proxy(root)
    try:
        proxy = httpx.Proxy(address) if address else None
        # Made once for trial, so that a proxy that cannot work stops the start and not the first call.
        httpx.AsyncHTTPTransport(verify=ssl_context, proxy=proxy)
    except (ValueError, ImportError, httpx.InvalidURL):
        expected = "http://, https://, or socks5:// with the socksio package installed"
        raise ValueError(f"the environment's proxy cannot be used; expected {expected}") from None
    return proxy


def _version() -> str:
    try:
        return metadata.version("close-enrich")
    except metadata.PackageNotFoundError:
        return "unknown"


def _kept(headers: Iterable[tuple[bytes, bytes]]) -> Mapping[str, str]:
    kept: dict[str, str] = {}
    for raw_name, raw_value in headers:
        lower = raw_name.lower()
        if lower in _KEPT_HEADERS or lower.startswith(_KEPT_PREFIX):
            name, value = lower.decode(), raw_value.decode("latin-1")
            kept[name] = f"{kept[name]}, {value}" if name in kept else value
    return kept


def _failure_kind(error: Exception) -> FailureKind:
    # Whatever is unknown may have happened after the request was sent.
    return next((kind for known, kind in _FAILURE_KINDS if isinstance(error, known)), FailureKind.DROPPED)


def _detail(error: Exception, *, kind: FailureKind) -> str:
    """A few words on `error`. Only a connect error's own: later ones may quote the request or the reply."""
    name = type(error).__name__
    if kind is not FailureKind.CONNECT:
        return name
    if isinstance(error, httpx.ConnectTimeout):
        return "timed out"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ConnectionRefusedError):
            return "connection refused"
        if isinstance(cause, OSError) and cause.strerror:
            return one_line(cause.strerror)
        cause = cause.__cause__ or cause.__context__
    return one_line(str(error)) or name
