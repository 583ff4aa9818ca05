"""Calls to Close over real sockets: what is sent, what comes back, and what is left behind."""

import asyncio
import base64
import contextlib
import json
import logging
import socket
from dataclasses import dataclass, field
from types import SimpleNamespace

import httpx
import pytest

from service.rules import Mode, ObjectType
from workers.close_api import CloseApi
from workers.close_http import _detail, _failure_kind
from workers.outcome import Ambiguous, Retry, judge
from workers.reply import Failure, FailureKind, Reply

BOTH_LOOPS = True
API_KEY = "api_s3cret"
OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


@dataclass
class Request:
    """What the server got."""

    line: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Server:
    """A server that reads whole requests and answers each as `answer` says."""

    answer: object
    greeting: bytes = b""
    port: int = 0
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader, writer):
        self.connections += 1
        self.tasks.add(asyncio.current_task())
        try:
            writer.write(self.greeting)
            while (request := await _read_request(reader)) is not None:
                self.requests.append(request)
                self.asked.set()
                await self.answer(writer)
        except OSError:
            pass
        finally:
            self.left.set()
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def _read_request(reader):
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
    except asyncio.IncompleteReadError:
        return None
    line, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value for name, value in (text.split(": ", 1) for text in lines)}
    return Request(line, headers, await reader.readexactly(int(headers.get("content-length", "0"))))


def answering(*chunks, close=False):
    async def answer(writer):
        for chunk in chunks:
            writer.write(chunk)
        await writer.drain()
        if close:
            writer.close()

    return answer


async def never(writer):  # noqa: ARG001 - silence needs no connection
    await asyncio.Event().wait()


async def resetting(writer):
    writer.transport.abort()


async def dripping(writer):
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.005)


async def flooding(writer):
    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
        await writer.drain()


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
async def serve():
    """Starts servers, and ends them and their connections after the test."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(answer, **options):
            server = Server(answer, **options)
            listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
            server.port = listener.sockets[0].getsockname()[1]
            stack.push_async_callback(_stop, listener, server)
            return server

        yield start


async def _stop(listener, server):
    listener.close()
    for task in server.tasks:
        task.cancel()
    await asyncio.gather(*server.tasks, return_exceptions=True)
    await listener.wait_closed()


@pytest.fixture
async def connect():
    """Makes clients, and closes them after the test."""
    async with contextlib.AsyncExitStack() as stack:

        def make(base_url, **options):
            api = CloseApi(api_key=API_KEY, base_url=base_url, **options)
            stack.push_async_callback(api.aclose)
            return api

        yield make


async def enrich(api, *, timeout_seconds=5.0):
    return await api.enrich_field(
        organization_id="orga_1",
        object_type=ObjectType.LEAD,
        object_id="lead_1",
        field_id="cf_1",
        set_new_value=True,
        overwrite_existing_value=False,
        timeout_seconds=timeout_seconds,
    )


async def test_an_enrichment_sends_the_documented_body_and_the_key_as_user_name(serve, connect):
    server = await serve(answering(OK))
    result = await enrich(connect(server.url))
    assert isinstance(result, Reply)
    [request] = server.requests
    assert request.line == "POST /api/v1/enrich_field/ HTTP/1.1"
    assert json.loads(request.body) == {
        "organization_id": "orga_1",
        "object_type": "lead",
        "object_id": "lead_1",
        "field_id": "cf_1",
        "set_new_value": True,
        "overwrite_existing_value": False,
    }
    assert base64.b64decode(request.headers["authorization"].removeprefix("Basic ")) == b"api_s3cret:"
    assert request.headers["user-agent"].startswith("close-enrich/")
    assert request.headers["content-type"] == "application/json"
    assert request.headers["accept"] == "application/json"
    assert request.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("call", "target"),
    [
        (lambda api: api.get_me(), "/api/v1/me/"),
        (lambda api: api.get_schema(object_type=ObjectType.CONTACT), "/api/v1/custom_field_schema/contact/"),
        (lambda api: api.get_record(object_type=ObjectType.LEAD, object_id="lead_1"), "/api/v1/lead/lead_1/"),
        (
            lambda api: api.get_record(
                object_type=ObjectType.CONTACT, object_id="cont_1", fields=["id", "custom.cf_1"]
            ),
            "/api/v1/contact/cont_1/?_fields=id,custom.cf_1",
        ),
        (
            lambda api: api.get_record(
                object_type=ObjectType.LEAD, object_id="../me/?a=\r\n&", fields=["a&b=c"]
            ),
            "/api/v1/lead/..%2Fme%2F%3Fa%3D%0D%0A%26/?_fields=a%26b%3Dc",
        ),
    ],
)
async def test_reading_asks_for_what_is_documented(serve, connect, call, target):
    server = await serve(answering(OK))
    result = await call(connect(server.url))
    assert isinstance(result, Reply)
    [request] = server.requests
    assert request.line == f"GET {target} HTTP/1.1"
    assert "content-type" not in request.headers


EVENTS = [{"object_type": "lead", "action": "created", "extra_filter": None}]


@pytest.mark.parametrize(
    ("call", "line", "body"),
    [
        (lambda api: api.get_webhooks(), "GET /api/v1/webhook/", None),
        (lambda api: api.get_webhooks(skip=40), "GET /api/v1/webhook/?_skip=40", None),
        (lambda api: api.get_webhook(subscription_id="whsub_1"), "GET /api/v1/webhook/whsub_1/", None),
        (
            lambda api: api.post_webhook(url="https://x.example/in", events=EVENTS),
            "POST /api/v1/webhook/",
            {"url": "https://x.example/in", "events": EVENTS},
        ),
        (
            lambda api: api.put_webhook(subscription_id="whsub_1", changes={"status": "active"}),
            "PUT /api/v1/webhook/whsub_1/",
            {"status": "active"},
        ),
        (lambda api: api.delete_webhook(subscription_id="whsub_1"), "DELETE /api/v1/webhook/whsub_1/", None),
        (lambda api: api.delete_webhook(subscription_id="../me"), "DELETE /api/v1/webhook/..%2Fme/", None),
    ],
)
async def test_subscriptions_are_asked_for_and_changed_as_documented(serve, connect, call, line, body):
    server = await serve(answering(OK))
    result = await call(connect(server.url))
    assert isinstance(result, Reply)
    [request] = server.requests
    assert request.line == f"{line} HTTP/1.1"
    assert (json.loads(request.body) if request.body else None) == body


async def test_a_reply_keeps_status_body_and_the_headers_that_matter(serve, connect):
    head = (
        b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\n"
        b"RateLimit: limit=1, reset=0.25\r\nRetry-After: 1\r\nX-Odd: \xff\r\n"
        b"X-Rate-Limit-Limit: 1\r\nX-Rate-Limit-Limit: 2\r\nSet-Cookie: a=b\r\n"
        b"Date: Wed, 01 Jul 2026 12:00:00 GMT\r\nLocation: /x\r\nContent-Length: 5\r\n\r\n"
    )
    server = await serve(answering(head, b"[1,2]"))
    api = connect(server.url)
    reply = await enrich(api)
    assert (reply.status, reply.body, reply.truncated) == (429, b"[1,2]", False)
    assert reply.headers == {
        "content-type": "application/json",
        "ratelimit": "limit=1, reset=0.25",
        "retry-after": "1",
        "x-rate-limit-limit": "1, 2",
        "date": "Wed, 01 Jul 2026 12:00:00 GMT",
        "location": "/x",
    }
    assert 0 < reply.elapsed_seconds < 5
    await enrich(api)
    assert "cookie" not in server.requests[1].headers


FAILING = [
    pytest.param(answering(close=True), FailureKind.DROPPED, {}, id="closed without an answer"),
    pytest.param(resetting, FailureKind.DROPPED, {}, id="reset"),
    pytest.param(
        answering(b"HTTP/1.1 200 OK\r\ncont", close=True), FailureKind.DROPPED, {}, id="closed in the head"
    ),
    pytest.param(
        answering(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}", close=True),
        FailureKind.DROPPED,
        {},
        id="closed in the body",
    ),
    pytest.param(answering(b"220 smtp ready\r\n\r\n"), FailureKind.DROPPED, {}, id="not HTTP"),
    pytest.param(
        answering(b"HTTP/1.1 200 OK\r\nx: " + b"x" * 300_000),
        FailureKind.DROPPED,
        {},
        id="a head without end",
    ),
    pytest.param(never, FailureKind.READ_TIMEOUT, {"timeout_seconds": 0.1}, id="no answer"),
    pytest.param(
        answering(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}"),
        FailureKind.READ_TIMEOUT,
        {"timeout_seconds": 0.1},
        id="half an answer",
    ),
]


@pytest.mark.parametrize(("answer", "kind", "patience"), FAILING)
async def test_a_call_that_ends_without_a_reply_says_how_and_leaves_a_usable_client(
    serve, connect, answer, kind, patience
):
    server = await serve(answer)
    api = connect(server.url)
    result = await enrich(api, **patience)
    assert isinstance(result, Failure)
    assert result.kind is kind
    assert result.elapsed_seconds > 0
    assert isinstance(judge(result, mode=Mode.FILL), Ambiguous)
    server.answer = answering(OK)
    assert (await enrich(api)).status == 200
    assert server.connections == 2


async def test_a_reply_that_drips_in_for_longer_than_a_call_may_take_is_given_up(serve, connect, monkeypatch):
    deadlines = []

    def soon(seconds):
        deadlines.append(seconds)
        return asyncio.timeout(1.0)

    # the deadline comes early, so that no pause of this process passes for one of the server's
    sooner = SimpleNamespace(**{**vars(asyncio), "timeout": soon})
    monkeypatch.setattr("workers.close_http.asyncio", sooner)
    server = await serve(dripping)
    result = await enrich(connect(server.url, connect_timeout_seconds=10), timeout_seconds=20)
    assert deadlines == [30]
    assert isinstance(result, Failure)
    assert result.kind is FailureKind.DEADLINE
    assert isinstance(judge(result, mode=Mode.FILL), Ambiguous)
    async with asyncio.timeout(5):
        await server.left.wait()


async def test_nobody_listening_is_a_connect_failure(connect):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        result = await enrich(connect(f"http://127.0.0.1:{unused.getsockname()[1]}"))
    assert isinstance(result, Failure)
    assert (result.kind, result.detail) == (FailureKind.CONNECT, "connection refused")
    assert isinstance(judge(result, mode=Mode.FILL), Retry)


async def test_a_host_name_that_cannot_be_looked_up_is_a_connect_failure(connect):
    result = await enrich(connect(f"http://{'a' * 64}.invalid"))
    assert result.kind is FailureKind.CONNECT


async def test_a_server_that_speaks_no_tls_is_a_connect_failure(serve, connect):
    server = await serve(answering(OK), greeting=b"220 smtp ready\r\n")
    result = await enrich(connect(server.url.replace("http", "https")))
    assert result.kind is FailureKind.CONNECT
    assert "SSL" in result.detail
    assert not server.requests


async def test_a_tls_handshake_without_answer_is_a_connect_failure(connect):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        api = connect(f"https://127.0.0.1:{silent.getsockname()[1]}", connect_timeout_seconds=0.05)
        result = await enrich(api)
    assert result.kind is FailureKind.CONNECT


async def test_a_request_that_is_not_taken_is_a_write_timeout(connect):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        api = connect(f"http://127.0.0.1:{silent.getsockname()[1]}", write_timeout_seconds=0.05)
        content = b"x" * 50_000_000
        result = await api.request("POST", "/x/", content=content, timeout_seconds=5)
    assert result.kind is FailureKind.WRITE_TIMEOUT


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (httpx.PoolTimeout("x"), FailureKind.POOL),
        (httpx.WriteError("x"), FailureKind.WRITE_ERROR),
        (httpx.ProxyError("407 Proxy Authentication Required"), FailureKind.CONNECT),
        (httpx.ConnectTimeout("x"), FailureKind.CONNECT),
        (httpx.LocalProtocolError("x"), FailureKind.DROPPED),
        (ConnectionResetError("x"), FailureKind.DROPPED),
    ],
)
def test_rare_errors_have_their_kind_and_unknown_ones_count_as_dropped(error, kind):
    assert _failure_kind(error) is kind


@pytest.mark.parametrize(
    ("error", "kind", "detail"),
    [
        (
            httpx.LocalProtocolError("Illegal header value b's3cret'"),
            FailureKind.DROPPED,
            "LocalProtocolError",
        ),
        (httpx.ProxyError("407\r\nNo"), FailureKind.CONNECT, "407 No"),
        (httpx.ConnectTimeout(""), FailureKind.CONNECT, "timed out"),
        (httpx.ConnectError(""), FailureKind.CONNECT, "ConnectError"),
    ],
)
def test_a_detail_quotes_nothing_that_was_sent_or_received(error, kind, detail):
    assert _detail(error, kind=kind) == detail


@pytest.mark.parametrize("location", [b"/elsewhere", b"http://[", b"http://other.invalid/?s3cret"])
async def test_a_redirect_is_a_reply_and_is_not_followed(serve, connect, location):
    head = b"HTTP/1.1 302 Found\r\nlocation: " + location + b"\r\ncontent-length: 0\r\n\r\n"
    server = await serve(answering(head))
    reply = await enrich(connect(server.url))
    assert (reply.status, reply.headers["location"]) == (302, location.decode())
    assert len(server.requests) == 1


@pytest.mark.parametrize(("length", "truncated"), [(10, False), (11, True)])
async def test_a_body_is_read_up_to_its_cap(serve, connect, length, truncated):
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % length
    server = await serve(answering(head, b"x" * length))
    api = connect(server.url, max_body_bytes=10)
    reply = await enrich(api)
    assert (reply.body, reply.truncated) == (b"x" * 10, truncated)
    await enrich(api)
    assert server.connections == (2 if truncated else 1)


async def test_a_body_without_end_is_cut_off_and_its_connection_closed(serve, connect):
    server = await serve(flooding)
    reply = await enrich(connect(server.url))
    assert reply.truncated
    assert len(reply.body) == 1024 * 1024
    async with asyncio.timeout(5):
        await server.left.wait()


async def test_calls_after_one_another_share_a_connection(serve, connect):
    server = await serve(answering(OK))
    api = connect(server.url)
    for _ in range(5):
        await enrich(api)
    assert (server.connections, len(server.requests)) == (1, 5)


async def test_calls_at_once_have_a_connection_each(serve, connect):
    gate = asyncio.Event()
    everybody = asyncio.Event()

    async def answer(writer):
        if len(server.requests) == 50:
            everybody.set()
        await gate.wait()
        writer.write(OK)

    server = await serve(answer)
    api = connect(server.url)
    calls = [asyncio.create_task(enrich(api)) for _ in range(50)]
    async with asyncio.timeout(10):
        await everybody.wait()
    gate.set()
    results = await asyncio.gather(*calls)
    assert [result.status for result in results] == [200] * 50
    assert server.connections == 50
    await enrich(api)
    assert server.connections == 50


async def test_a_connection_that_the_server_closed_while_idle_is_not_used_again(serve, connect):
    server = await serve(answering(OK, close=True))
    api = connect(server.url)
    await enrich(api)
    async with asyncio.timeout(5):
        await server.left.wait()
    assert (await enrich(api)).status == 200
    assert server.connections == 2


async def test_a_connection_idle_for_too_long_is_not_used_again(serve, connect):
    server = await serve(answering(OK))
    api = connect(server.url, keepalive_seconds=0.0)
    await enrich(api)
    await enrich(api)
    assert server.connections == 2


async def test_connections_that_a_burst_left_behind_are_closed(serve, connect):
    server = await serve(answering(OK))
    now = [0.0]
    api = connect(server.url, keepalive_seconds=4.0, monotonic=lambda: now[0])
    await asyncio.gather(*[enrich(api) for _ in range(10)])
    assert len(api._idle) == 10
    now[0] = 3.0
    await enrich(api)
    assert len(api._idle) == 10
    now[0] = 5.0
    await enrich(api)
    assert len(api._idle) == 1


async def test_a_cancelled_call_stays_cancelled_and_its_connection_is_closed(serve, connect):
    server = await serve(never)
    api = connect(server.url)
    call = asyncio.create_task(enrich(api))
    async with asyncio.timeout(5):
        await server.asked.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert not api._idle
    server.answer = answering(OK)
    assert (await enrich(api)).status == 200
    assert server.connections == 2


async def test_a_caller_with_a_shorter_deadline_gets_its_own_timeout(serve, connect):
    server = await serve(never)
    api = connect(server.url)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await enrich(api)
    assert not api._idle


async def test_closing_closes_the_idle_connections(serve, connect):
    server = await serve(answering(OK))
    api = connect(server.url)
    await enrich(api)
    await api.aclose()
    async with asyncio.timeout(5):
        await server.left.wait()
    assert not api._idle


async def test_the_environments_proxy_is_used(serve, connect, monkeypatch):
    proxy = await serve(answering(OK))
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    reply = await enrich(connect("http://close.invalid"))
    assert reply.status == 200
    assert proxy.requests[0].line == "POST http://close.invalid/api/v1/enrich_field/ HTTP/1.1"


async def test_a_proxy_that_refuses_the_tunnel_is_a_connect_failure(serve, connect, monkeypatch):
    proxy = await serve(answering(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n"))
    monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("//", "//user:s3cret@"))
    result = await enrich(connect("https://close.invalid"))
    assert result == Failure(
        kind=FailureKind.CONNECT,
        elapsed_seconds=result.elapsed_seconds,
        detail="407 Proxy Authentication Required",
    )
    assert proxy.requests[0].line.startswith("CONNECT close.invalid:443 ")


@pytest.mark.parametrize("address", ["ftp://user:s3cret@proxy", "http://s3cret:x", "socks9://s3cret"])
def test_a_proxy_that_cannot_work_stops_the_start_and_is_not_shown(monkeypatch, address):
    monkeypatch.setenv("HTTPS_PROXY", address)
    with pytest.raises(
        ValueError, match="the environment's proxy cannot be used; expected http://"
    ) as caught:
        CloseApi(api_key=API_KEY)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("api_key", ["", "api s3cret", "api_s3cret:", "api_s3cret\n", "äpi_s3cret"])
def test_a_key_that_cannot_be_one_is_refused_and_not_shown(api_key):
    with pytest.raises(ValueError, match="api_key must be a Close API key") as caught:
        CloseApi(api_key=api_key)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("base_url", ["http://exa mple.com", "http://xn--a.example\u2603\u200b", "close.com"])
def test_an_address_that_cannot_be_one_is_refused(base_url):
    with pytest.raises(ValueError, match="base_url"):
        CloseApi(api_key=API_KEY, base_url=base_url)


async def test_no_log_line_and_no_repr_shows_the_key(serve, connect, caplog):
    caplog.set_level(logging.DEBUG)
    server = await serve(answering(OK))
    api = connect(server.url)
    reply = await enrich(api)
    server.answer = resetting
    failure = await enrich(api)
    encoded = base64.b64encode(f"{API_KEY}:".encode()).decode()
    shown = f"{caplog.text} {api!r} {reply!r} {failure!r}"
    assert API_KEY not in shown
    assert encoded not in shown
