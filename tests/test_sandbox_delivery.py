"""Close's side of webhooks, played by the sandbox: signatures, retries, filters and pauses."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sandbox_box import START, running

from service.sandbox.delivery import delivery_body, delivery_headers
from service.sandbox.subscriptions import Attempt, Subscription, next_retry_seconds, retry_delay_seconds

SAMPLES = Path(__file__).parent / "samples"
MANIFEST = json.loads((SAMPLES / "manifest.json").read_text())
CREATED = {"object_type": "lead", "action": "created"}
UPDATED = {"object_type": "lead", "action": "updated"}
HOUR, DAY = 3600.0, 86400.0


@dataclass
class Delivered:
    headers: dict[str, str]
    body: bytes

    @property
    def event(self):
        return json.loads(self.body)["event"]


@dataclass
class Receiver:
    """A webhook receiver that answers with the statuses it was told, the last one for ever."""

    url: str = ""
    statuses: list[int | None] = field(default_factory=lambda: [200])
    got: list[Delivered] = field(default_factory=list)

    async def serve(self, reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                _, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = dict(line.split(": ", 1) for line in lines if line)
                lower = {name.lower(): value for name, value in headers.items()}
                body = await reader.readexactly(int(lower["content-length"]))
                self.got.append(Delivered(headers, body))
                status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
                if status is None:
                    break
                extra = "location: /elsewhere\r\n" if status == 302 else ""
                writer.write(f"HTTP/1.1 {status} X\r\n{extra}content-length: 0\r\n\r\n".encode())
        writer.close()


@contextlib.asynccontextmanager
async def receiving(*statuses):
    receiver = Receiver()
    if statuses:
        receiver.statuses = list(statuses)
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hooks"
    try:
        yield receiver
    finally:
        server.close()


async def subscribe(box, receiver, *events, **more):
    reply = await box.api.post(
        "webhook/", json={"url": receiver.url, "events": list(events) or [CREATED], **more}
    )
    assert reply.status_code == 201, reply.text
    return box.world.subscriptions[reply.json()["id"]]


async def delivered(box, succeeded):
    await box.until(lambda: box.world.tally.deliveries_succeeded >= succeeded)


def test_the_signature_is_that_of_the_test_vector():
    headers = delivery_headers(
        signature_key="058bfb6a3d8cfdc4da7c3be5901b16ae11da982b46a25fb2cd7016e97a140a1c",
        timestamp=1756970837,
        body=b'{"subscription_id": "whsub_test", "event": {"id": "ev_test"}}',
    )
    assert headers["Close-Sig-Hash"] == "9ef68565b7216eeb74bf321c43621d5a3bc152fa699629130157d9ac852790c2"


@pytest.mark.parametrize("name", list(MANIFEST["files"]))
def test_bodies_and_headers_are_byte_for_byte_those_of_the_samples(name):
    raw, signed = (SAMPLES / name).read_bytes(), MANIFEST["files"][name]
    sample = json.loads(raw)
    body = delivery_body(sample["subscription_id"], sample["event"])
    assert body == raw
    headers = delivery_headers(
        signature_key=MANIFEST["signature_key_hex_TEST_ONLY"],
        timestamp=int(signed["close_sig_timestamp"]),
        body=body,
    )
    assert headers["Close-Sig-Hash"] == signed["close_sig_hash"]
    template = dict(MANIFEST["request_headers_template"])
    del template["Close-Sig-Hash"], template["Close-Sig-Timestamp"]
    assert template.items() <= headers.items()


async def test_a_created_lead_is_delivered_at_once_signed_with_the_subscriptions_key():
    async with receiving() as receiver, running() as box:
        subscription = await subscribe(box, receiver)
        lead = await box.lead(name="Żółć & Söhne")
        await delivered(box, 1)
        (got,) = receiver.got
        assert list(json.loads(got.body)) == ["subscription_id", "event"]
        assert got.body == delivery_body(subscription.id, got.event)
        assert got.body.isascii()
        assert got.event["object_id"] == lead["id"]
        timestamp = int(got.headers["Close-Sig-Timestamp"])
        assert timestamp == int(START)
        expected = delivery_headers(
            signature_key=subscription.signature_key, timestamp=timestamp, body=got.body
        )
        assert expected.items() <= got.headers.items()
        assert (subscription.counters, subscription.backlog) == ({"first_success": 1}, 0)


async def test_only_subscribed_events_are_delivered_and_only_those_the_filter_lets_through():
    with_url = {
        "type": "field_accessor",
        "field": "data",
        "filter": {"type": "field_accessor", "field": "url", "filter": {"type": "non_null"}},
    }
    async with receiving() as receiver, running() as box:
        await subscribe(box, receiver, {**CREATED, "extra_filter": with_url})
        await box.lead(contacts=[{"name": "Noor Solvei"}])
        wanted = await box.lead(url="https://tarnwick.example")
        await delivered(box, 1)
        assert [got.event["object_id"] for got in receiver.got] == [wanted["id"]]


@pytest.mark.parametrize(("missing_is_null", "count"), [(True, 1), (False, 0)])
async def test_whether_a_missing_key_counts_as_null_is_an_option(missing_is_null, count):
    empty = {"type": "field_accessor", "field": "data", "filter": {
        "type": "field_accessor", "field": "custom.cf_x", "filter": {"type": "is_null"},
    }}  # fmt: skip
    async with receiving() as receiver, running(missing_is_null=missing_is_null) as box:
        await subscribe(box, receiver, {**CREATED, "extra_filter": empty})
        contact = {"object_type": "contact", "action": "created"}
        await subscribe(box, receiver, contact)
        await box.lead(contacts=[{"name": "Noor Solvei"}])
        await delivered(box, count + 1)
        assert len([got for got in receiver.got if got.event["object_type"] == "lead"]) == count


async def test_updates_are_delivered_once_consolidated_after_the_delay():
    async with receiving() as receiver, running(clock_scale=0.002) as box:
        await subscribe(box, receiver, UPDATED)
        lead = await box.lead()
        for url in ("https://one.example", "https://two.example"):
            await box.api.put(f"lead/{lead['id']}/", json={"url": url})
        assert receiver.got == []
        assert len(box.world.journal) == 2
        # The delay of 5 s is 10 ms here; the clock that stands still is what it is measured by.
        box.advance(0.01)
        await delivered(box, 1)
        (got,) = receiver.got
        assert got.event["data"]["url"] == "https://two.example"
        assert got.event["previous_data"]["url"] is None


async def test_without_a_delay_updates_are_delivered_at_once():
    async with receiving() as receiver, running(consolidation_seconds=0) as box:
        await subscribe(box, receiver, UPDATED)
        lead = await box.lead()
        await box.api.put(f"lead/{lead['id']}/", json={"url": "https://one.example"})
        await delivered(box, 1)
        assert len(receiver.got) == 1


@pytest.mark.parametrize("first", [503, 404, 302, None])
@pytest.mark.parametrize("resigns", [True, False])
async def test_a_failed_delivery_is_tried_again_after_a_minute_of_closes(first, resigns):
    async with (
        receiving(first, 200) as receiver,
        running(clock_scale=0.05, resign_retries=resigns) as box,
    ):
        subscription = await subscribe(box, receiver)
        lead = await box.lead()
        await box.until(lambda: box.world.tally.deliveries_failed == 1)
        assert (subscription.backlog, subscription.status) == (1, "active")
        box.advance(2.999)
        await box.lead(name="meanwhile others go on")
        await delivered(box, 1)
        assert len(receiver.got) == 2
        box.advance(0.001)
        await delivered(box, 2)
        attempt_one, _, attempt_two = receiver.got
        assert attempt_two.body == attempt_one.body
        assert attempt_two.event["object_id"] == lead["id"]
        stamps = [int(got.headers["Close-Sig-Timestamp"]) for got in (attempt_one, attempt_two)]
        assert stamps == [int(START), int(START) + (3 if resigns else 0)]
        expected = delivery_headers(
            signature_key=subscription.signature_key, timestamp=stamps[1], body=attempt_two.body
        )
        assert attempt_two.headers["Close-Sig-Hash"] == expected["Close-Sig-Hash"]
        shown = (await box.api.get(f"webhook/{subscription.id}/")).json()
        assert shown["counters"] == {"first_fail": 1, "first_success": 1, "retry_success": 1}
        (error,) = shown["history"]["errors"]
        assert (error["attempt_number"], error["response_status_code"]) == (1, first)
        assert error["error"] == ("ConnectionError" if first is None else "HTTPError")
        assert shown["latest_error"] == f"Exception name: {error['error']}, Status code: {first}"
        assert [entry["attempt_number"] for entry in shown["history"]["successes"]] == [1, 2]


async def test_a_receiver_that_does_not_answer_in_time_has_failed():
    over = asyncio.Event()

    async def never(_reader, writer):
        await over.wait()
        writer.close()

    async with running(delivery_timeout_seconds=0.05) as box:
        server = await asyncio.start_server(never, "127.0.0.1", 0)
        silent = Receiver(url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        subscription = await subscribe(box, silent)
        await box.lead()
        await box.until(lambda: box.world.tally.deliveries_failed == 1)
        assert subscription.latest_error == "Exception name: Timeout, Status code: None"
        over.set()
        server.close()


async def test_an_event_is_dropped_after_72_hours():
    async with receiving(500) as receiver, running(clock_scale=1e-6) as box:
        subscription = await subscribe(box, receiver)
        # Kept from being paused, which would clear the queue before the event is given up.
        await box.lead()
        while not box.world.tally.deliveries_dropped:
            failed = box.world.tally.deliveries_failed
            subscription.failing_since = None
            box.advance(1200e-6)
            await box.until(
                lambda failed=failed: (
                    box.world.tally.deliveries_dropped > 0 or box.world.tally.deliveries_failed > failed
                )
            )
        assert subscription.backlog == 0
        assert 200 < len(receiver.got) < 240
        assert {got.event["id"] for got in receiver.got} == {receiver.got[0].event["id"]}


async def test_deliveries_go_out_several_at_once():
    open_now, most, all_in = 0, 0, asyncio.Event()

    async def receive(reader, writer):
        nonlocal open_now, most
        await reader.readuntil(b"\r\n\r\n")
        open_now += 1
        most = max(most, open_now)
        if open_now == 4:
            all_in.set()
        await all_in.wait()
        writer.write(b"HTTP/1.1 202 X\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(receive, "127.0.0.1", 0)
    async with running(delivery_concurrency=4) as box:
        await subscribe(box, Receiver(url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"))
        for _ in range(4):
            await box.lead()
        await delivered(box, 4)
    assert most == 4
    server.close()


async def test_a_pause_ends_deliveries_and_forgets_the_one_in_flight():
    arrived, over = asyncio.Event(), asyncio.Event()

    async def receive(_reader, writer):
        arrived.set()
        await over.wait()
        writer.write(b"HTTP/1.1 503 X\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(receive, "127.0.0.1", 0)
    async with running() as box:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        subscription = await subscribe(box, Receiver(url=url))
        await box.lead()
        await arrived.wait()
        await box.api.put(f"webhook/{subscription.id}/", json={"status": "paused"})
        await box.lead(name="while it is paused")
        over.set()
        await box.until(lambda: box.world.tally.deliveries_failed == 1)
        box.advance(2 * HOUR)
        await box.api.put(f"webhook/{subscription.id}/", json={"status": "active"})
        await box.lead(name="after it")
        await box.until(lambda: box.world.tally.deliveries_failed == 2)
        assert subscription.counters == {"first_fail": 2}
        assert subscription.backlog == 1
    server.close()


async def test_a_full_backlog_pauses_the_subscription_and_clears_its_queue():
    async with receiving(503) as receiver, running(backlog_limit=3) as box:
        subscription = await subscribe(box, receiver)
        for failed in (1, 2):
            await box.lead()
            await box.until(lambda failed=failed: box.world.tally.deliveries_failed == failed)
        assert (subscription.status, subscription.backlog) == ("active", 2)
        await box.lead()
        assert (subscription.status, subscription.backlog) == ("paused", 0)
        receiver.statuses = [200]
        await box.api.put(f"webhook/{subscription.id}/", json={"status": "active"})
        box.advance(2 * HOUR)
        newest = await box.lead()
        await delivered(box, 1)
        assert receiver.got[-1].event["object_id"] == newest["id"]
        assert subscription.counters["retry_success"] == 0


@pytest.mark.parametrize(
    ("failed_attempts", "seconds"),
    [(1, 60), (2, 120), (3, 240), (4, 480), (5, 960), (6, 1200), (7, 1200), (220, 1200)],
)
def test_the_interval_doubles_up_to_20_minutes(failed_attempts, seconds):
    assert retry_delay_seconds(failed_attempts) == seconds


@pytest.mark.parametrize(
    ("age_seconds", "expected"), [(0, 1200), (72 * HOUR - 1200, 1200), (72 * HOUR - 1199, None)]
)
def test_no_attempt_is_made_after_72_hours(age_seconds, expected):
    assert next_retry_seconds(failed_attempts=10, age_seconds=age_seconds) == expected


def failing_subscription():
    return Subscription(
        id="whsub_1", url="http://x", events=(), verify_ssl=True, signature_key="ab" * 32, user_id="user_1",
        created_at=0.0, updated_at=0.0,
    )  # fmt: skip


def attempt(at, *, error="HTTPError", number=2):
    return Attempt(event_id="ev_1", number=number, at=at, status=200 if error is None else 503, error=error)


@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_a_subscription_is_paused_when_everything_failed_for_three_days(scale):
    subscription = failing_subscription()
    subscription.note(attempt(0.0), clock_scale=scale)
    subscription.note(attempt((3 * DAY - 60) * scale), clock_scale=scale)
    assert (subscription.status, subscription.failing_buckets) == ("active", 71)
    subscription.note(attempt(3 * DAY * scale), clock_scale=scale)
    assert (subscription.status, subscription.pause_reason) == ("paused", "delivery_failures")


def test_one_success_starts_the_three_days_anew():
    subscription = failing_subscription()
    for at, error in ((0.0, "HTTPError"), (2 * DAY, None), (2.5 * DAY, "HTTPError"), (4 * DAY, "HTTPError")):
        subscription.note(attempt(at, error=error), clock_scale=1.0)
    assert subscription.status == "active"


def test_the_history_is_capped_and_the_key_never_in_a_repr():
    subscription = failing_subscription()
    for number in range(1, 50):
        subscription.note(attempt(0.0, number=number), clock_scale=1.0)
        subscription.note(attempt(0.0, number=number, error=None), clock_scale=1.0)
    assert len(subscription.errors) == len(subscription.successes) == 20
    assert subscription.errors[-1]["attempt_number"] == 49
    assert "abab" not in repr(subscription)
