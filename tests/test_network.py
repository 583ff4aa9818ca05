"""httpcore's network layer of ours, over real sockets, on the loop that tests have and on the worker's."""

import asyncio
import contextlib
import shutil
import socket
import ssl
import struct
import subprocess

import httpcore
import pytest
from conftest import IN_CI

from workers import network
from workers.network import MOST_BUFFERED_BYTES, Network

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


class Peer:
    """The other end of a connection."""

    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer

    def reset(self):
        """End the connection with a RST."""
        connected = self.writer.get_extra_info("socket")
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@pytest.fixture
async def connected():
    """Makes connections; for each a stream of ours and its peer."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(host="127.0.0.1", **options):
            peers = asyncio.Queue()
            server = await asyncio.start_server(
                lambda *ends: peers.put_nowait(Peer(*ends)), "127.0.0.1", 0, **options
            )
            stack.push_async_callback(server.wait_closed)
            stack.callback(server.close)
            stream = await Network().connect_tcp(host, server.sockets[0].getsockname()[1], timeout=5)
            stack.push_async_callback(stream.aclose)
            if options:
                return stream, peers
            peer = await peers.get()
            stack.callback(peer.writer.close)
            return stream, peer

        yield make


async def everything(stream, *, most=65_536):
    found = []
    while chunk := await stream.read(most, timeout=5):
        found.append(chunk)
    return found


async def test_what_came_in_is_read_in_order_and_not_more_at_a_time_than_wanted(connected):
    stream, peer = await connected()
    sent = bytes(range(256)) * 1000
    peer.writer.write(sent)
    peer.writer.write_eof()
    found = await everything(stream, most=1000)
    assert b"".join(found) == sent
    assert max(map(len, found)) <= 1000


async def test_what_was_written_arrives_and_the_end_too(connected):
    stream, peer = await connected()
    await stream.write(b"one", timeout=5)
    await stream.write(b"", timeout=5)
    await stream.write(b"two", timeout=None)
    assert await peer.reader.readexactly(6) == b"onetwo"
    await stream.aclose()
    assert await peer.reader.read() == b""


async def test_a_silent_peer_is_a_read_timeout_and_may_still_answer(connected):
    stream, peer = await connected()
    with pytest.raises(httpcore.ReadTimeout):
        await stream.read(100, timeout=0.01)
    peer.writer.write(b"late")
    assert await stream.read(100, timeout=5) == b"late"


async def test_a_read_that_was_cancelled_takes_nothing(connected):
    stream, peer = await connected()
    reading = asyncio.create_task(stream.read(100, timeout=5))
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    peer.writer.write(b"all of it")
    assert await stream.read(100, timeout=None) == b"all of it"


async def test_a_reset_is_a_read_error_for_who_waits(connected):
    stream, peer = await connected()
    reading = asyncio.create_task(stream.read(100, timeout=5))
    await asyncio.sleep(0)
    peer.reset()
    with pytest.raises(httpcore.ReadError):
        await reading


async def test_what_came_before_a_reset_is_read_before_its_error(connected):
    stream, peer = await connected()
    peer.writer.write(b"before")
    assert await stream.read(3, timeout=5) == b"bef"
    peer.reset()
    async with asyncio.timeout(5):
        while stream._receiver.error is None:  # noqa: ASYNC110  the loop is to hear of it by itself
            await asyncio.sleep(0)
    assert await stream.read(100, timeout=5) == b"ore"
    with pytest.raises(httpcore.ReadError):
        await stream.read(100, timeout=5)


async def test_a_peer_that_takes_nothing_is_a_write_timeout(connected):
    stream, _ = await connected()
    with pytest.raises(httpcore.WriteTimeout):
        await stream.write(b"x" * 50_000_000, timeout=0.05)


async def test_a_write_goes_on_as_the_peer_takes_it(connected):
    stream, peer = await connected()
    much = b"x" * 20_000_000
    writing = asyncio.create_task(stream.write(much, timeout=30))
    assert await peer.reader.readexactly(len(much)) == much
    await writing


async def test_a_write_to_a_connection_that_broke_is_a_write_error(connected):
    stream, peer = await connected()
    writing = asyncio.create_task(stream.write(b"x" * 50_000_000, timeout=30))
    await asyncio.sleep(0)
    peer.reset()
    with pytest.raises(httpcore.WriteError):
        await writing
    with pytest.raises(httpcore.WriteError):
        await stream.write(b"more", timeout=5)


async def test_a_sender_has_to_wait_while_nobody_reads(connected):
    stream, peer = await connected()
    much = b"x" * 40_000_000
    sending = asyncio.create_task(drained(peer, much))
    receiver = stream._receiver
    async with asyncio.timeout(10):
        while receiver._buffered_bytes <= MOST_BUFFERED_BYTES:  # noqa: ASYNC110  as above
            await asyncio.sleep(0)
    for _ in range(1000):
        await asyncio.sleep(0)
    assert receiver._buffered_bytes <= 2 * MOST_BUFFERED_BYTES
    assert not sending.done()
    assert sum(map(len, await everything(stream))) == len(much)
    await sending


async def drained(peer, much):
    peer.writer.write(much)
    await peer.writer.drain()
    peer.writer.write_eof()


async def test_that_the_peer_has_closed_is_known_before_the_loop_hears_of_it(connected):
    stream, peer = await connected()
    assert not stream.get_extra_info("is_readable")
    connected_socket = peer.writer.get_extra_info("socket")
    # without a turn of the loop in between
    with socket.socket(fileno=socket.dup(connected_socket.fileno())) as same:
        same.shutdown(socket.SHUT_WR)
    assert stream.get_extra_info("is_readable")


async def test_the_ends_of_a_connection_can_be_told(connected):
    stream, peer = await connected()
    assert stream.get_extra_info("client_addr") == peer.writer.get_extra_info("peername")
    assert stream.get_extra_info("server_addr") == peer.writer.get_extra_info("sockname")
    assert stream.get_extra_info("ssl_object") is None
    assert stream.get_extra_info("anything else") is None


async def test_closing_twice_is_no_mistake(connected):
    stream, _ = await connected()
    await stream.aclose()
    await stream.aclose()


def listed(monkeypatch, *ports):
    """Have a host's addresses be these ports of 127.0.0.1."""

    async def getaddrinfo(*_, **__):
        return [
            (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", one)) for one in ports
        ]

    monkeypatch.setattr(network, "_addresses", getaddrinfo)


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

    async def hello(_, writer):
        writer.write(b"hello")
        writer.close()

    async with await asyncio.start_server(hello, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def test_the_next_address_is_tried_where_one_refuses(monkeypatch, refusing, greeting):
    listed(monkeypatch, refusing, greeting)
    stream = await Network().connect_tcp("two.example", 443, timeout=5)
    assert await stream.read(100, timeout=5) == b"hello"
    await stream.aclose()


async def test_the_next_address_is_tried_where_one_is_silent(monkeypatch, silent, greeting):
    monkeypatch.setattr(network, "NEXT_ADDRESS_SECONDS", 0.01)
    listed(monkeypatch, silent, greeting)
    stream = await Network().connect_tcp("two.example", 443, timeout=5)
    assert await stream.read(100, timeout=5) == b"hello"
    await stream.aclose()


async def test_a_host_of_silent_addresses_is_a_connect_timeout(monkeypatch, silent):
    listed(monkeypatch, silent)
    with pytest.raises(httpcore.ConnectTimeout):
        await Network().connect_tcp("silent.example", 443, timeout=0.05)


async def test_a_host_of_which_all_addresses_refuse_says_so(monkeypatch, refusing):
    listed(monkeypatch, refusing, refusing)
    with pytest.raises(httpcore.ConnectError) as caught:
        await Network().connect_tcp("refusing.example", 443, timeout=5)
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


async def test_neither_local_address_nor_socket_options_are_taken():
    with pytest.raises(NotImplementedError):
        await Network().connect_tcp("127.0.0.1", 1, local_address="127.0.0.1")
    with pytest.raises(NotImplementedError):
        await Network().connect_tcp("127.0.0.1", 1, socket_options=[(1, 1, 1)])


async def test_it_goes_on_encrypted_with_a_peer_that_is_trusted(connected, serving, trusting):
    stream, peers = await connected(ssl=serving("close.example"))
    encrypted = await stream.start_tls(trusting, server_hostname="close.example", timeout=5)
    peer = await peers.get()
    await encrypted.write(b"x" * 300_000, timeout=5)
    assert await peer.reader.readexactly(300_000) == b"x" * 300_000
    peer.writer.write(b"y" * 300_000)
    peer.writer.close()
    assert b"".join(await everything(encrypted)) == b"y" * 300_000
    assert isinstance(encrypted.get_extra_info("ssl_object"), ssl.SSLObject)


async def test_a_peer_with_a_certificate_of_another_host_is_a_connect_error(connected, serving, trusting):
    stream, _ = await connected(ssl=serving("another.example"))
    with pytest.raises(httpcore.ConnectError, match=r"close\.example"):
        await stream.start_tls(trusting, server_hostname="close.example", timeout=5)


async def test_a_peer_that_nobody_vouches_for_is_a_connect_error(connected, serving):
    stream, _ = await connected(ssl=serving("close.example"))
    with pytest.raises(httpcore.ConnectError, match="self-signed"):
        await stream.start_tls(ssl.create_default_context(), server_hostname="close.example", timeout=5)


async def test_a_handshake_that_is_not_answered_is_a_connect_timeout(connected, trusting):
    stream, peer = await connected()
    with pytest.raises(httpcore.ConnectTimeout):
        await stream.start_tls(trusting, server_hostname="close.example", timeout=0.05)
    assert len(await peer.reader.read()) > 100


async def test_a_peer_that_speaks_before_the_handshake_is_a_connect_error(connected, trusting):
    stream, peer = await connected()
    peer.writer.write(b"220 smtp ready\r\n")
    async with asyncio.timeout(5):
        while not stream._receiver.readable:  # noqa: ASYNC110  as above
            await asyncio.sleep(0)
    with pytest.raises(httpcore.ConnectError, match="before the handshake"):
        await stream.start_tls(trusting, server_hostname="close.example", timeout=5)


async def test_a_peer_that_leaves_during_the_handshake_is_a_connect_error(connected, trusting):
    stream, peer = await connected()
    shaking = asyncio.create_task(stream.start_tls(trusting, server_hostname="close.example", timeout=5))
    await peer.reader.read(10)
    peer.writer.close()
    with pytest.raises(httpcore.ConnectError):
        await shaking
