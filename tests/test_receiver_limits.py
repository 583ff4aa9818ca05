"""No request, however long or malformed, is answered with a 5xx or kept in memory whole."""

import asyncio
import http.client
import json
import socket
import struct

import pytest
import redis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from receiver_box import ORGANIZATION, Receiver, captured_log, rulebook, sample, save_schemas, signed

from service import keys
from service.bounded_http import MOST_HEAD_BYTES
from service.embedded_redis import EmbeddedRedis

MOST_BODY_BYTES = 64 * 1024
FAR_TOO_MUCH_BYTES = 64 * 1024 * 1024
SOCKET_BUFFERS_BYTES = 16 * 1024 * 1024
"""More than the kernel takes off a sender's hands although nobody reads it."""

RULES = """
version: 1
defaults: {settle: 0s}
rules:
  - {name: Pitch, object: lead, field: Pitch, when: 'lead.url != "" && size(lead.contact_ids) > 0'}
  - {name: Size, object: lead, field: Size, when: '"addresses" in lead'}
  - {name: Segment, object: lead, field: Segment, on: [updated(url)], when: 'lead.custom["Size"] > 5'}
  - {name: Seniority, object: contact, field: Seniority, when: contact.title.startsWith("C")}
"""

# what is tried does not depend on what was tried before
lasting = settings(
    deadline=None,
    max_examples=200,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory):
    """One server is enough: nothing here is about Redis."""
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


@pytest.fixture(scope="module")
def receiver(redis_url):
    save_schemas(redis_url)
    with Receiver(redis_url, rules=rulebook(RULES), MAX_BODY_BYTES=str(MOST_BODY_BYTES)) as running:
        yield running


def head(*lines: str) -> bytes:
    start = ("POST /webhooks/close HTTP/1.1", "host: x", "content-type: application/json")
    return "\r\n".join((*start, *lines, "", "")).encode()


def flood(connection: socket.socket, start: bytes, piece: bytes) -> int:
    """Send pieces until the other side hangs up; how many bytes it let us send."""
    connection.sendall(start)
    sent = 0
    try:
        while sent < FAR_TOO_MUCH_BYTES:
            sent += connection.send(piece)
    except ConnectionError:
        pass
    return sent


def answer_on(connection: socket.socket) -> http.client.HTTPResponse:
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response


def stays_well(receiver: Receiver) -> bool:
    return receiver.get("/livez").status == 200


@pytest.mark.parametrize("length", [MOST_BODY_BYTES + 1, 10**15, 10**30])
def test_a_body_announced_too_long_is_refused_before_it_is_sent(receiver, length):
    with receiver.connect() as connection:
        connection.sendall(head(f"content-length: {length}", "expect: 100-continue"))
        # llhttp itself refuses a number that has more than 64 bits
        assert answer_on(connection).status == (413 if length < 2**64 else 400)
    assert stays_well(receiver)


def test_a_body_of_just_the_allowed_length_is_taken(receiver):
    body = sample("02")
    padded = body + b" " * (MOST_BODY_BYTES - len(body))
    assert receiver.post(padded).status in {200, 202}
    assert receiver.post(padded + b" ").status == 413


@pytest.mark.parametrize(
    ("start", "piece", "status"),
    [
        (head("transfer-encoding: chunked"), b"2000\r\n" + b"a" * 8192 + b"\r\n", 413),
        (head("transfer-encoding: chunked"), b"1\r\na\r\n" * 2000, 413),
        (head("content-length: 900000000"), b"a" * 8192, 413),
        (b"POST /", b"a" * 8192, 400),
        (head()[:-2] + b"x: ", b"a" * 8192, 400),
        (head()[:-2], b"x-1: 1\r\n" * 1000, 400),
        (head("transfer-encoding: chunked") + b"1;", b"a" * 8192, 400),
        (head("transfer-encoding: chunked") + b"1\r\na\r\n0\r\n", b"x-1: 1\r\n" * 1000, 400),
    ],
    ids=[
        "chunks",
        "tiny chunks",
        "announced",
        "address",
        "one header",
        "headers",
        "chunk extension",
        "trailers",
    ],
)
def test_what_never_ends_is_cut_off_while_it_comes_in(receiver, start, piece, status):
    with receiver.connect() as connection:
        assert flood(connection, start, piece) < SOCKET_BUFFERS_BYTES
        assert answer_on(connection).status == status
    assert stays_well(receiver)


def test_long_but_honest_headers_are_taken_again_and_again(receiver):
    body = sample("02")
    connection = http.client.HTTPConnection("127.0.0.1", receiver.port, timeout=10)
    for _ in range(5):
        connection.request(
            "POST", "/webhooks/close", body, signed(body) | {"x-trace": "a" * (MOST_HEAD_BYTES // 2)}
        )
        response = connection.getresponse()
        assert response.status in {200, 202}
        response.read()
    connection.close()


@pytest.mark.parametrize("ending", ["orderly", "reset"])
@pytest.mark.parametrize(
    "start",
    [
        head(*(f"{name}: {value}" for name, value in signed(b"ab").items()), "content-length: 2") + b"a",
        head("transfer-encoding: chunked") + b"5\r\nab",
        head("content-length: 100"),
        b"POST /webhooks/close HT",
    ],
    ids=["one byte short", "in a chunk", "no body", "in the first line"],
)
def test_a_request_that_ends_early_is_forgotten(receiver, redis_url, start, ending):
    with redis.Redis.from_url(redis_url) as client:
        before = client.xlen(keys.QUARANTINE)
    with captured_log() as log:
        connection = receiver.connect()
        connection.sendall(start)
        if ending == "orderly":
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1000)
        else:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        assert stays_well(receiver)
    assert "Exception" not in log.getvalue()
    with redis.Redis.from_url(redis_url) as client:
        assert client.xlen(keys.QUARANTINE) == before


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"\r\n\r\n\x00", 400),
        (b"GET\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"CONNECT a:443 HTTP/1.1\r\nhost: x\r\n\r\n", 400),
        (b"OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n", 404),
        (b"GET http://[/livez HTTP/1.1\r\nhost: x\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nhost: [\r\n\r\n", 200),
        (b"GET /livez/ HTTP/1.1\r\nhost: [\r\n\r\n", 404),
        (b"GET /livez HTTP/1.1\r\nhost: \xff\xfe\r\n\r\n", 200),
        (b"GET /%ff%00 HTTP/1.1\r\nhost: x\r\n\r\n", 404),
        (b"GET /livez?%ff=\xff HTTP/1.1\r\nhost: x\r\n\r\n", 400),
        (b"GET /livez HTTP/9.9\r\nhost: x\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n", 200),
        (head("content-length: 3", "content-length: 4") + b"abcd", 400),
        (head("content-length: -1"), 400),
        (head("content-length: 1", "transfer-encoding: chunked") + b"0\r\n\r\n", 400),
        (head("transfer-encoding: chunked") + b"zz\r\n", 400),
        (head("transfer-encoding: gzip, chunked") + b"0\r\n\r\n", 401),
        (head("close-sig-hash: \xff"), 401),
        (head("content-type: application/json"), 401),
    ],
)
def test_malformed_http_is_refused_and_never_an_error_of_ours(receiver, raw, status):
    with captured_log() as log, receiver.connect() as connection:
        connection.sendall(raw)
        assert answer_on(connection).status == status
    assert "Exception" not in log.getvalue()


WORDS = st.sampled_from(
    [
        *(
            b"POST",
            b"GET",
            b"HEAD",
            b"\x00",
            b" ",
            b"\r\n",
            b"\r\n\r\n",
            b":",
            b"HTTP/1.1",
            b"/webhooks/close",
        ),
        *(b"content-length", b"transfer-encoding", b"chunked", b"0", b"5", b"-1", b"content-type"),
        *(b"application/json", b"close-sig-hash", b"close-sig-timestamp", b"expect", b"100-continue"),
        *(b"connection", b"close", b"upgrade", b"websocket", b"host", b"{}"),
    ]
)


@lasting
@given(st.lists(WORDS | st.binary(max_size=20), max_size=25).map(b"".join), st.booleans())
def test_no_bytes_whatever_cause_an_error_of_ours(receiver, raw, begins_well):
    with captured_log() as log, receiver.connect() as connection:
        connection.sendall(head()[:-2] + raw if begins_well else raw)
        connection.shutdown(socket.SHUT_WR)
        try:
            first_line = connection.recv(4096).partition(b"\r\n")[0]
        except ConnectionError:
            first_line = b""
        assert not first_line.startswith(b"HTTP/1.1 5")
        assert stays_well(receiver)
    # an answer may be lost when the other side has gone, but not an exception
    assert "Exception" not in log.getvalue()


HEADER_TEXT = st.text(
    st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=80
)


@lasting
@given(
    st.dictionaries(
        st.sampled_from(["close-sig-hash", "close-sig-timestamp", "content-type", "host", "cookie"]),
        HEADER_TEXT,
    ),
    st.binary(max_size=200),
)
@example(
    {"close-sig-hash": "0" * 64, "close-sig-timestamp": "9" * 20, "content-type": "application/json"}, b""
)
def test_no_headers_and_body_whatever_are_taken_for_genuine(receiver, headers, body):
    assert receiver.post(body, headers).status in {400, 401, 415}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
DATA = st.dictionaries(
    st.sampled_from(
        ["id", "url", "title", "contact_ids", "addresses", "status_label", "custom.cf_size", "custom.cf_1"]
    ),
    JSON,
)
EVENTS = st.fixed_dictionaries(
    {
        "id": st.text(min_size=1),
        "organization_id": st.just(ORGANIZATION) | st.text(),
        "object_type": st.sampled_from(["lead", "contact"]) | st.text(),
        "object_id": st.text(min_size=1),
        "action": st.sampled_from(["created", "updated", "merged", "deleted"]) | st.text(),
    },
    optional={
        "lead_id": st.none() | st.text() | JSON,
        "changed_fields": st.lists(st.sampled_from(["url", "title"])) | JSON,
        "date_updated": st.text() | JSON,
        "meta": st.fixed_dictionaries({"request_path": st.text()}) | JSON,
        "data": DATA | JSON,
    },
)


@lasting
@given(EVENTS)
def test_every_genuine_event_is_taken_whatever_it_holds(receiver, event):
    answer = receiver.post(json.dumps({"event": event}).encode())
    assert answer.status in {200, 202}
    assert answer.body["status"] in {"accepted", "duplicate", "ignored", "quarantined"}
    if "internal error" in answer.body.get("reason", ""):
        pytest.fail(answer.body["reason"])


@lasting
@given(st.binary(max_size=300) | JSON.map(lambda value: json.dumps(value).encode()))
def test_every_genuine_body_is_taken_whatever_it_is(receiver, body):
    answer = receiver.post(body)
    assert (answer.status, answer.body["status"]) == (202, "quarantined")


@pytest.mark.parametrize("depth", [50, 500, 1000, 5000, 15_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")], ids=["lists", "objects"])
@pytest.mark.parametrize("place", ["data", "url", "custom.cf_size", "meta"])
def test_a_genuine_event_may_be_nested_as_deep_as_it_likes(receiver, depth, opening, closing, place):
    nested = (opening * depth + "1" + closing * depth)[: MOST_BODY_BYTES - 2000]
    event = json.loads(sample("02"))["event"] | {"data": {"addresses": [1]}}
    (event if place in event else event["data"])[place] = "NESTED"
    body = json.dumps({"event": event}).replace('"NESTED"', nested).encode()
    answer = receiver.post(body)
    assert answer.status in {200, 202}
    assert "internal error" not in answer.body.get("reason", "")


def test_slow_clients_do_not_keep_others_waiting(receiver):
    slow = [receiver.connect() for _ in range(50)]
    for connection in slow:
        connection.sendall(head("content-length: 60000") + b"a" * 1000)
    assert receiver.post(sample("02")).status in {200, 202}
    for connection in slow:
        connection.close()


async def test_the_readers_loop_is_free_while_a_body_comes_in(receiver):
    reader, writer = await asyncio.open_connection("127.0.0.1", receiver.port)
    writer.write(head("content-length: 3"))
    await writer.drain()
    answer = await asyncio.to_thread(receiver.post, sample("02"))
    assert answer.status in {200, 202}
    writer.write(b"abc")
    assert b" 401 " in await reader.readline()
    writer.close()
