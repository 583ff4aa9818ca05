"""One connection to Close: whatever a server does with it, a call ends with its reply or says why not."""

import asyncio
import contextlib
import select
import shutil
import socket
import ssl
import struct
import subprocess

import httpx
import pytest
from conftest import IN_CI
from hypothesis import given
from hypothesis import strategies as st

from workers import one_connection
from workers.one_connection import OneConnection
from workers.wire import MOST_BUFFERED_BYTES, MOST_HEAD_BYTES, Wire

BOTH_LOOPS = True


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A directory with `<name>.pem`, a certificate that vouches for itself, and `<name>.key`."""
    if shutil.which("openssl") is None:
        pytest.fail("openssl is not installed") if IN_CI else pytest.skip("openssl is not installed")
    directory = tmp_path_factory.mktemp("certificates")
    for name in ("close.example", "another.example"):
        subprocess.run(
            [
                *(
                    "openssl",
                    "req",
                    "-x509",
                    "-newkey",
                    "ec",
                    "-pkeyopt",
                    "ec_paramgen_curve:P-256",
                    "-nodes",
                ),
                *("-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}", "-days", "2"),
                *("-keyout", f"{name}.key", "-out", f"{name}.pem"),
            ],
            cwd=directory,
            check=True,
            capture_output=True,
        )
    return directory


@pytest.fixture
def serving(certificates):
    """Makes a server's side of TLS, for a name."""

    def make(name):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates / f"{name}.pem", certificates / f"{name}.key")
        return context

    return make


@pytest.fixture
def trusting(certificates):
    """A client's side of TLS that trusts both certificates."""
    context = ssl.create_default_context()
    for one in certificates.glob("*.pem"):
        context.load_verify_locations(one)
    return context


def reply(body, *lines, status=b"200 OK"):
    return b"\r\n".join([b"HTTP/1.1 " + status, *lines, b"content-length: %d" % len(body), b"", body])


class Peer:
    """The server's end of a connection."""

    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer

    async def asked(self):
        """Wait for a request; its head."""
        return await self.reader.readuntil(b"\r\n\r\n")

    def reset(self):
        """End the connection with a RST."""
        connected = self.writer.get_extra_info("socket")
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@pytest.fixture
async def serve():
    """Makes servers; for each its port, and what comes in as a `Peer` for each connection."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(**options):
            peers = asyncio.Queue()

            def came(*ends):
                peer = Peer(*ends)
                stack.callback(peer.writer.close)
                peers.put_nowait(peer)

            server = await asyncio.start_server(came, "127.0.0.1", 0, **options)
            stack.callback(server.close)
            return server.sockets[0].getsockname()[1], peers

        yield make


@pytest.fixture
async def connect():
    """Makes connections of ours."""
    async with contextlib.AsyncExitStack() as stack:

        def make(port, *, host="127.0.0.1", ssl_context=None):
            made = OneConnection(host=host, port=port, ssl_context=ssl_context)
            stack.push_async_callback(made.aclose)
            return made

        yield make


@pytest.fixture
async def asking(serve, connect):
    """A call that waits for its reply, the connection it goes over, and the server's end of that."""
    port, peers = await serve()
    connection = connect(port)
    call = asyncio.create_task(ask(connection))
    async with asyncio.timeout(5):
        peer = await peers.get()
        await peer.asked()
    yield call, connection, peer
    call.cancel()
    with contextlib.suppress(asyncio.CancelledError, httpx.TransportError):
        await call


def a_request(*, connect=5.0, write=5.0, read=5.0, headers=(), **options):
    timeouts = {"connect": connect, "write": write, "read": read, "pool": 5.0}
    url = "http://close.example/api/v1/me/?a=%20b"
    return httpx.Request("POST", url, headers=headers, extensions={"timeout": timeouts}, **options)


async def ask(connection, **options):
    """Make a call; its status, and its body."""
    response = await connection.handle_async_request(a_request(**options))
    async with contextlib.aclosing(response.stream) as stream:
        return response.status_code, b"".join([chunk async for chunk in stream])


async def test_a_request_goes_out_whole_and_in_one_piece(serve, connect):
    port, peers = await serve()
    call = asyncio.create_task(ask(connect(port), headers={"x-one": "1"}, content=b"{}"))
    peer = await peers.get()
    sent = await peer.reader.read(65_536)
    assert sent == (
        b"POST /api/v1/me/?a=%20b HTTP/1.1\r\nHost: close.example\r\nx-one: 1\r\nContent-Length: 2\r\n\r\n{}"
    )
    peer.writer.write(reply(b"done"))
    assert await call == (200, b"done")


@pytest.mark.parametrize("value", ["1\r\nx-two: 2", "1\n", "1\r", "1\0"])
async def test_a_header_that_would_be_two_is_not_sent(serve, connect, value):
    port, peers = await serve()
    with pytest.raises(httpx.LocalProtocolError):
        await ask(connect(port), headers={"x-one": value})
    assert peers.empty()


async def test_calls_go_over_the_same_connection_one_after_the_other(asking):
    call, connection, peer = asking
    assert not connection.usable
    peer.writer.write(reply(b"one"))
    assert await call == (200, b"one")
    for body in (b"two", b"", b"four"):
        assert connection.usable
        again = asyncio.create_task(ask(connection))
        await peer.asked()
        peer.writer.write(reply(body))
        assert await again == (200, body)


@pytest.mark.parametrize(
    "sent",
    [
        reply(b"last", b"connection: close"),
        b"HTTP/1.0 200 OK\r\ncontent-length: 4\r\n\r\nlast",
        reply(b"last") + b"HTTP/1.1 500 Surprise\r\ncontent-length: 1\r\n\r\nx",
        reply(b"last") + b"nonsense",
    ],
    ids=["closing", "HTTP/1.0", "another reply behind it", "something else behind it"],
)
async def test_after_such_a_reply_the_connection_is_not_used_again(asking, sent):
    call, connection, peer = asking
    peer.writer.write(sent)
    assert await call == (200, b"last")
    assert not connection.usable


async def test_a_reply_that_nobody_asked_for_ends_the_connection(asking):
    call, connection, peer = asking
    peer.writer.write(reply(b"one"))
    await call
    peer.writer.write(reply(b"surprise"))
    assert await peer.reader.read() == b""
    assert not connection.usable


async def test_that_the_server_has_closed_is_known_before_the_loop_hears_of_it(asking):
    call, connection, peer = asking
    peer.writer.write(reply(b"one"))
    await call
    assert connection.usable
    # without a turn of the loop in between
    with socket.socket(fileno=socket.dup(peer.writer.get_extra_info("socket").fileno())) as same:
        same.shutdown(socket.SHUT_WR)
    ours = connection._wire.transport.get_extra_info("socket")
    # on a busy machine the system may pass it on a moment later
    assert select.select([ours.fileno()], [], [], 10)[0]
    assert not connection.usable


async def test_a_reply_of_unknown_length_ends_with_the_connection(asking):
    call, connection, peer = asking
    peer.writer.write(b"HTTP/1.1 200 OK\r\n\r\nall of")
    peer.writer.write(b" it")
    peer.writer.write_eof()
    assert await call == (200, b"all of it")
    assert not connection.usable


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"HTTP/1.1 102 Processing\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 2 * MOST_HEAD_BYTES,
    ],
    ids=[
        "nothing", "half a line", "a head", "half a body", "half of its chunks", "only information",
        "another protocol", "no HTTP", "two lengths", "a head without end",
    ],
)  # fmt: skip
async def test_a_server_that_hangs_up_before_its_reply_is_complete_is_a_protocol_error(asking, sent):
    call, connection, peer = asking
    peer.writer.write(sent)
    peer.writer.write_eof()
    with pytest.raises(httpx.RemoteProtocolError):
        await call
    assert not connection.usable


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\n\r\nhalf"], ids=["before", "during"])
async def test_a_reset_is_a_read_error(asking, sent):
    call, connection, peer = asking
    peer.writer.write(sent)
    await peer.writer.drain()
    # what was sent is read before what breaks the connection
    for _ in range(100):
        await asyncio.sleep(0)
    peer.reset()
    with pytest.raises(httpx.ReadError):
        await call
    assert not connection.usable


async def test_silence_is_a_read_timeout(serve, connect):
    port, _ = await serve()
    connection = connect(port)
    with pytest.raises(httpx.ReadTimeout):
        await ask(connection, read=0.05)
    assert not connection.usable


async def test_silence_in_the_midst_of_a_body_is_a_read_timeout(serve, connect):
    port, peers = await serve()
    connection = connect(port)
    call = asyncio.create_task(ask(connection, read=0.2))
    peer = await peers.get()
    await peer.asked()
    peer.writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")
    with pytest.raises(httpx.ReadTimeout):
        await call
    assert await peer.reader.read() == b"", "it hangs up"
    assert not connection.usable


async def test_a_server_that_takes_nothing_is_a_write_timeout(serve, connect):
    port, _ = await serve()
    with pytest.raises(httpx.WriteTimeout):
        await ask(connect(port), write=0.05, content=b"x" * 50_000_000)


async def test_a_long_request_goes_out_as_the_server_takes_it(serve, connect):
    port, peers = await serve()
    much = b"x" * 20_000_000
    call = asyncio.create_task(ask(connect(port), write=30.0, content=much))
    peer = await peers.get()
    await peer.asked()
    assert await peer.reader.readexactly(len(much)) == much
    peer.writer.write(reply(b"done"))
    assert await call == (200, b"done")


async def test_a_connection_that_breaks_while_a_request_goes_out_ends_the_call(serve, connect):
    port, peers = await serve()
    call = asyncio.create_task(ask(connect(port), write=30.0, content=b"x" * 50_000_000))
    peer = await peers.get()
    await peer.asked()
    peer.reset()
    with pytest.raises(httpx.TransportError):
        await call


async def test_a_server_has_to_wait_while_nobody_takes_its_body(asking):
    call, connection, peer = asking
    call.cancel()
    wire = connection._wire
    much = b"x" * 40_000_000
    wire.begin()
    sending = asyncio.create_task(drained(peer, reply(much)))
    async with asyncio.timeout(10):
        while wire._buffered_bytes <= MOST_BUFFERED_BYTES:  # noqa: ASYNC110  nothing tells of it
            await asyncio.sleep(0)
    for _ in range(1000):
        await asyncio.sleep(0)
    assert wire._buffered_bytes <= 3 * MOST_BUFFERED_BYTES
    assert not sending.done()
    taken = 0
    while not wire.complete:
        taken += sum(map(len, wire.taken()))
        if not wire.complete:
            await wire.more(seconds=5)
    assert taken + sum(map(len, wire.taken())) == len(much)
    await sending


async def drained(peer, much):
    peer.writer.write(much)
    await peer.writer.drain()


async def test_closing_hangs_up_and_twice_is_no_mistake(asking):
    _, connection, peer = asking
    await connection.aclose()
    await connection.aclose()
    assert await peer.reader.read() == b""


class Carrier:
    """asyncio's side of a protocol, without a network."""

    aborted = False

    def abort(self):
        self.aborted = True

    def is_closing(self):
        return self.aborted

    def pause_reading(self):
        """Nothing sends."""

    resume_reading = pause_reading


def wire_with(*pieces, ends=False):
    """A wire that was asked, and what came in then."""
    wire = Wire()
    wire.connection_made(Carrier())
    wire.begin()
    for piece in pieces:
        if not wire.transport.aborted:
            wire.data_received(piece)
    if ends:
        wire.eof_received()
    return wire


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n"
WHOLE = [
    (reply(b"hello", b"X-Some: \xe4"), b"hello"),
    (CHUNKED + b"2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\nt: u\r\n\r\n", b"hello"),
    (b"HTTP/1.1 103 Early\r\nlink: x\r\n\r\n" + reply(b"hello"), b"hello"),
    (b"HTTP/1.1 200\r\n\r\nhello", b"hello"),
    (b"HTTP/1.1 204 No\r\n\r\n", b""),
]


@given(st.sampled_from(WHOLE), st.lists(st.integers(1, 100), max_size=20))
def test_a_reply_is_the_same_however_its_bytes_arrive(whole, cuts):
    sent, body = whole
    ends = sorted({min(cut, len(sent)) for cut in cuts} | {len(sent)})
    pieces = [sent[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    wire = wire_with(*pieces, ends=True)
    assert (wire.complete, b"".join(wire.taken())) == (True, body)
    assert wire.headers == wire_with(sent, ends=True).headers
    assert wire.status in (200, 204)


@given(st.lists(st.one_of(st.binary(max_size=40), st.sampled_from([sent for sent, _ in WHOLE])), max_size=6))
def test_whatever_comes_in_ends_the_connection_or_is_a_reply(pieces):
    wire = wire_with(*pieces, ends=True)
    assert wire.complete or wire._ended


def listed(monkeypatch, *ports):
    """Have a host's addresses be these ports of 127.0.0.1."""

    async def getaddrinfo(*_, **__):
        return [
            (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", one)) for one in ports
        ]

    monkeypatch.setattr(one_connection, "_addresses", getaddrinfo)


@pytest.fixture
def refusing():
    """A port on which nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield unused.getsockname()[1]


@pytest.fixture
def silent():
    """A port that answers no more connections: its queue is full."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):
            one = stack.enter_context(socket.socket())
            one.settimeout(0)
            one.connect_ex(server.getsockname())
        yield server.getsockname()[1]


@pytest.fixture
async def greeting():
    """A port that says hello."""

    async def hello(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply(b"hello"))
        writer.close()

    async with await asyncio.start_server(hello, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def test_the_next_address_is_tried_where_one_refuses(monkeypatch, refusing, greeting, connect):
    listed(monkeypatch, refusing, greeting)
    assert await ask(connect(443, host="two.example")) == (200, b"hello")


async def test_the_next_address_is_tried_where_one_is_silent(monkeypatch, silent, greeting, connect):
    monkeypatch.setattr(one_connection, "NEXT_ADDRESS_SECONDS", 0.01)
    listed(monkeypatch, silent, greeting)
    assert await ask(connect(443, host="two.example")) == (200, b"hello")


async def test_a_host_of_silent_addresses_is_a_connect_timeout(monkeypatch, silent, connect):
    listed(monkeypatch, silent)
    with pytest.raises(httpx.ConnectTimeout):
        await ask(connect(443, host="silent.example"), connect=0.05)


async def test_a_host_of_which_all_addresses_refuse_says_so(monkeypatch, refusing, connect):
    listed(monkeypatch, refusing, refusing)
    with pytest.raises(httpx.ConnectError) as caught:
        await ask(connect(443, host="refusing.example"))
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


async def test_calls_go_over_tls_to_a_server_that_is_trusted(serve, connect, monkeypatch, serving, trusting):
    port, peers = await serve(ssl=serving("close.example"))
    listed(monkeypatch, port)
    connection = connect(443, host="close.example", ssl_context=trusting)
    call = asyncio.create_task(ask(connection, content=b"x" * 300_000))
    peer = await peers.get()
    await peer.asked()
    assert await peer.reader.readexactly(300_000) == b"x" * 300_000
    peer.writer.write(reply(b"y" * 300_000))
    assert await call == (200, b"y" * 300_000)
    assert connection.usable
    again = asyncio.create_task(ask(connection))
    await peer.asked()
    peer.writer.write(reply(b"again"))
    assert await again == (200, b"again")


async def test_a_server_with_the_certificate_of_another_is_a_connect_error(serve, connect, serving, trusting):
    port, _ = await serve(ssl=serving("another.example"))
    with pytest.raises(httpx.ConnectError, match=r"not valid for '127\.0\.0\.1'"):
        await ask(connect(port, ssl_context=trusting))


async def test_a_server_that_nobody_vouches_for_is_a_connect_error(serve, connect, serving):
    port, _ = await serve(ssl=serving("close.example"))
    with pytest.raises(httpx.ConnectError, match="self-signed"):
        await ask(connect(port, ssl_context=ssl.create_default_context()))


async def test_a_handshake_that_is_not_answered_is_a_connect_timeout(serve, connect, trusting):
    port, peers = await serve()
    with pytest.raises(httpx.ConnectTimeout):
        # no pause of this process is to pass for one of the server's before we have greeted it
        await ask(connect(port, ssl_context=trusting), connect=1.0)
    assert len(await (await peers.get()).reader.read()) > 100, "a greeting, and that we hung up"


async def test_a_server_that_leaves_during_the_handshake_is_a_connect_error(serve, connect, trusting):
    port, peers = await serve()
    call = asyncio.create_task(ask(connect(port, ssl_context=trusting)))
    peer = await peers.get()
    await peer.reader.read(10)
    peer.writer.close()
    with pytest.raises(httpx.ConnectError):
        await call
