"""The short way answers deliveries as uvicorn and Starlette do, and leaves unusual requests to them."""

import asyncio
import contextlib
import itertools

import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from receiver_box import captured_log
from starlette.applications import Starlette
from starlette.routing import Route
from uvicorn.server import ServerState
from waiting import eventually

from service.delivery_http import DeliveryHttp
from service.intake import UNAVAILABLE, Answer
from service.webhook import Webhook

MOST_BODY_BYTES = 300_000
PATH = "/webhooks/close"
JSON = "content-type: application/json"


class Intake:
    """Answers what it is told, and notes what it was given."""

    def __init__(self, *answers):
        self.answers = list(answers) or [Answer(status=202, body={"status": "accepted"})]
        self.bodies = []
        self.heads = []
        self.goes_on = asyncio.Event()
        self.goes_on.set()

    async def receive(self, headers, body):
        self.heads.append(list(headers))
        self.bodies.append(body)
        answer = self.answers[min(len(self.bodies), len(self.answers)) - 1]
        await self.goes_on.wait()
        if isinstance(answer, Exception):
            raise answer
        return answer


class Box:
    """A server with one webhook on a real port; `by_asgi` counts what did not take the short way."""

    def __init__(self, intake):
        self.intake = intake
        self.by_asgi = 0
        self.state = ServerState()
        self.webhook = Webhook(intake, max_body_bytes=MOST_BODY_BYTES)
        self.connections = []

        async def webhook(scope, receive, send):
            self.by_asgi += 1
            await self.webhook(scope, receive, send)

        # a class, as Starlette takes a function for one that takes a request
        endpoint = type("Endpoint", (), {"__call__": lambda _, *given: webhook(*given)})()
        app = Starlette(routes=[Route(PATH, endpoint, methods=["POST"])])
        self.config = uvicorn.Config(app, lifespan="off", ws="none", access_log=False, log_config=None)
        self.config.load()

    def protocol(self):
        made = DeliveryHttp(config=self.config, server_state=self.state, app_state={}, webhook=self.webhook)
        self.connections.append(made)
        return made

    @contextlib.asynccontextmanager
    async def connection(self):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield reader, writer
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


@contextlib.asynccontextmanager
async def running(*answers):
    box = Box(Intake(*answers))
    server = await asyncio.get_running_loop().create_server(box.protocol, "127.0.0.1", 0)
    box.port = server.sockets[0].getsockname()[1]
    try:
        yield box
    finally:
        for one in box.connections:
            if one.transport is not None:
                one.transport.abort()
        server.close()
        await server.wait_closed()
        # what still holds a transport is let go
        await asyncio.gather(*box.state.tasks, return_exceptions=True)


def request(body=b"{}", *, method="POST", path=PATH, version="1.1", headers=(JSON,), length=True):
    lines = [f"{method} {path} HTTP/{version}", "host: x", *headers]
    if length:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


async def one_answer(reader):
    """Status line, headers without the date, and the body of the next answer."""
    async with asyncio.timeout(20):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        headers.pop("date", None)
        return first, headers, await reader.readexactly(int(headers.get("content-length", 0)))


async def ask(box, raw):
    async with box.connection() as (reader, writer):
        writer.write(raw)
        return await one_answer(reader)


UNUSUAL = {
    "another version": request(version="1.0"),
    "a query": request(path=PATH + "?rotation=1"),
    "an escaped path": request(path="/webhooks/clos%65"),
    "a whole address": request(path=f"http://x{PATH}"),
    "a pause before the body": request(headers=(JSON, "expect: 100-continue")),
    "an upgrade": request(headers=(JSON, "connection: upgrade", "upgrade: websocket")),
    "no length": request(b"2\r\n{}\r\n0\r\n\r\n", headers=(JSON, "transfer-encoding: chunked"), length=False),
    "not JSON": request(headers=("content-type: text/plain",)),
    "too long": request(headers=(JSON, f"content-length: {MOST_BODY_BYTES + 1}"), length=False),
}


async def test_a_usual_delivery_takes_the_short_way():
    async with running() as box:
        first, headers, body = await ask(box, request(b'{"event": 1}'))
        assert first == "HTTP/1.1 202 Accepted"
        assert headers == {
            "content-type": "application/json",
            "cache-control": "no-store",
            "content-length": str(len(body)),
        }
        assert body == b'{"status":"accepted"}'
        assert (box.intake.bodies, box.by_asgi) == ([b'{"event": 1}'], 0)
        assert (b"content-type", b"application/json") in box.intake.heads[0]


@pytest.mark.parametrize("what", sorted(UNUSUAL))
async def test_what_is_unusual_is_taken_as_any_other_request(what):
    async with running() as box, box.connection() as (reader, writer):
        writer.write(UNUSUAL[what])
        if what == "a pause before the body":
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        first, _, _ = await one_answer(reader)
        status = {"not JSON": "415", "too long": "413"}.get(what, "202")
        assert first.split()[1] == status
        assert box.by_asgi == 1
        # with an upgrade, the parser takes what follows the head for another protocol's
        assert box.intake.bodies == ([b"" if what == "an upgrade" else b"{}"] if status == "202" else [])


@pytest.mark.parametrize(
    "answer",
    [
        Answer(status=200, body={"status": "ignored", "reason": "é"}),
        Answer(status=202, body={"status": "accepted", "planned": [{"rule": "x" * 70_000}]}),
        Answer(status=401, body={"error": "the signature matches no key"}),
        UNAVAILABLE,
    ],
    ids=["200", "a long 202", "401", "503"],
)
@pytest.mark.parametrize("header", ["x-more: 1", "connection: close"])
async def test_both_ways_answer_alike(answer, header):
    async with running(answer) as box:
        short = await ask(box, request(headers=(JSON, header)))
        assert box.by_asgi == 0
        usual = await ask(box, request(headers=(JSON, header), path=PATH + "?"))
        assert box.by_asgi == 1
        assert short == usual


async def test_a_connection_serves_one_delivery_after_another():
    async with running() as box, box.connection() as (reader, writer):
        for number in range(20):
            writer.write(request(b"%d" % number))
            assert (await one_answer(reader))[0] == "HTTP/1.1 202 Accepted"
        assert box.intake.bodies == [b"%d" % number for number in range(20)]
        assert box.by_asgi == 0


async def test_requests_that_come_before_the_answer_are_answered_in_their_order():
    answers = [Answer(status=202, body={"status": "accepted", "number": number}) for number in range(4)]
    async with running(*answers) as box:
        box.intake.goes_on.clear()
        async with box.connection() as (reader, writer):
            writer.write(b"".join(request(b"%d" % number) for number in range(4)))
            await eventually(lambda: _true(len(box.intake.bodies) == 1))
            box.intake.goes_on.set()
            told = [(await one_answer(reader))[2] for _ in range(4)]
            assert told == [b'{"status":"accepted","number":%d}' % number for number in range(4)]
            assert box.intake.bodies == [b"0", b"1", b"2", b"3"]


async def _true(value):
    return value


async def test_who_asks_to_close_is_told_so_and_hung_up_on():
    async with running() as box, box.connection() as (reader, writer):
        writer.write(request(headers=(JSON, "connection: close")))
        _, headers, _ = await one_answer(reader)
        assert headers["connection"] == "close"
        assert await reader.read() == b""
        assert box.by_asgi == 0


async def test_a_mistake_of_ours_is_a_500_that_ends_the_connection_and_is_in_the_log():
    async with running(ZeroDivisionError("Marisol Venn")) as box, box.connection() as (reader, writer):
        with captured_log() as log:
            writer.write(request())
            first, headers, body = await one_answer(reader)
            assert (first, headers["connection"], body) == (
                "HTTP/1.1 500 Internal Server Error",
                "close",
                b"",
            )
            assert await reader.read() == b""
        assert "ZeroDivisionError" in log.getvalue()


async def test_a_delivery_whose_sender_is_gone_is_worked_on_to_its_end():
    async with running() as box:
        box.intake.goes_on.clear()
        with captured_log() as log:
            async with box.connection() as (_, writer):
                writer.write(request())
                await eventually(lambda: _true(box.intake.bodies))
                writer.transport.abort()
                await eventually(lambda: _true(not box.state.connections))
                (task,) = box.state.tasks
                box.intake.goes_on.set()
                await task
        assert log.getvalue() == ""


async def test_a_delivery_that_never_comes_whole_is_not_begun():
    async with running() as box, box.connection() as (_, writer):
        writer.write(request(b"12345")[:-1])
        await eventually(lambda: _true(box.connections and box.connections[0].cycle is not None))
        writer.transport.abort()
        await eventually(lambda: _true(not box.state.connections))
        assert (box.intake.bodies, box.state.tasks) == ([], set())


async def test_a_server_that_ends_answers_what_is_under_way_and_hangs_up():
    async with running() as box:
        box.intake.goes_on.clear()
        async with box.connection() as (reader, writer):
            writer.write(request())
            await eventually(lambda: _true(box.intake.bodies))
            box.connections[0].shutdown()
            box.intake.goes_on.set()
            first, headers, _ = await one_answer(reader)
            assert (first, headers["connection"]) == ("HTTP/1.1 202 Accepted", "close")
            assert await reader.read() == b""


async def test_a_delivery_that_is_given_up_at_the_end_is_not_answered():
    async with running() as box:
        box.intake.goes_on.clear()
        async with box.connection() as (reader, writer):
            writer.write(request())
            await eventually(lambda: _true(box.intake.bodies))
            (task,) = box.state.tasks
            task.cancel()
            assert await reader.read() == b""
            with pytest.raises(asyncio.CancelledError):
                await task


async def test_nothing_is_written_while_the_sender_does_not_read():
    async with running() as box, box.connection() as (reader, writer):
        writer.write(request())
        await one_answer(reader)
        box.connections[0].pause_writing()
        writer.write(request())
        await eventually(lambda: _true(len(box.intake.bodies) == 2))
        (task,) = box.state.tasks
        for _ in range(20):
            await asyncio.sleep(0)
        assert not task.done()
        box.connections[0].resume_writing()
        assert (await one_answer(reader))[0] == "HTTP/1.1 202 Accepted"


async def test_an_answer_is_one_write():
    async with running() as box, box.connection() as (reader, writer):
        writer.write(request())
        await one_answer(reader)
        http = box.connections[0]
        written = []
        real, http.transport = http.transport, _Written(http.transport, written)
        writer.write(request())
        await one_answer(reader)
        http.transport = real
        assert len(written) == 1


class _Written:
    def __init__(self, transport, written):
        self._transport, self._written = transport, written

    def write(self, data):
        self._written.append(data)
        self._transport.write(data)

    def __getattr__(self, name):
        return getattr(self._transport, name)


CUTS = st.lists(st.integers(min_value=1, max_value=400), max_size=8)


@settings(max_examples=60)
@given(cuts=CUTS, bodies=st.lists(st.binary(max_size=200), min_size=1, max_size=3))
def test_a_delivery_may_come_in_any_pieces(cuts, bodies):
    async def run():
        async with running() as box, box.connection() as (reader, writer):
            raw = b"".join(map(request, bodies))
            ends = [*itertools.accumulate(cuts), len(raw)]
            for start, end in itertools.pairwise([0, *ends]):
                writer.write(raw[start:end])
                await writer.drain()
                # the other side has its turn, so that what follows is another piece
                await asyncio.sleep(0)
            for _ in bodies:
                assert (await one_answer(reader))[0] == "HTTP/1.1 202 Accepted"
            return box.intake.bodies

    assert asyncio.run(run()) == bodies


async def test_a_long_body_comes_in_whole():
    async with running() as box:
        body = bytes(range(256)) * (MOST_BODY_BYTES // 256)
        assert (await ask(box, request(body)))[0] == "HTTP/1.1 202 Accepted"
        assert box.intake.bodies == [body]
        assert box.by_asgi == 0
