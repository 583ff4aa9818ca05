"""`/livez` and `/readyz`: alive whatever happens, ready while events can be kept, and what needs a look."""

import asyncio
import contextlib
import time

import pytest
import redis
import redis.asyncio
from receiver_box import Receiver, paused, rulebook, save_schemas
from rq.worker import Worker
from waiting import wait_until

from service import jobs, keys
from service.brakes import PERSON
from service.embedded_redis import EmbeddedRedis
from service.knowledge import Knowledge
from service.ledger import Ledger
from service.readiness import PATIENCE_SECONDS, Readiness, alive_workers, readiness

SLACK_SECONDS = 5.0
"""For a busy machine."""

NO_WORKER = {"workers": "no worker is alive: enrichments are accepted and wait"}
NO_FIELDS = {"fields": "Close's custom fields are not known yet: events are kept and planned later"}
NO_RULES = {"rules": "no rule is enabled, so no event would lead to anything"}

DISABLED = rulebook(
    "{version: 1, rules: [{name: Seniority, object: contact, field: Seniority, enabled: false}]}"
)
MISSPELT = rulebook("{version: 1, rules: [{name: Seniority, object: contact, field: Senority}]}")


@contextlib.contextmanager
def worker(client, *, queue=jobs.LIVE_QUEUE, name="worker-1"):
    """A worker as RQ registers it."""
    one = Worker([queue], connection=client, name=name)
    one.register_birth()
    yield one
    one.register_death()


def readyz(redis_url, **options):
    with Receiver(redis_url, **options) as receiver:
        assert (receiver.get("/livez").status, receiver.get("/livez").body) == (200, {"status": "alive"})
        answer = receiver.get("/readyz")
    assert answer.headers["cache-control"] == "no-store"
    return answer.status, answer.body


def test_with_rules_fields_redis_and_a_worker_it_is_ready(redis_url, blocking_redis):
    save_schemas(redis_url)
    with worker(blocking_redis):
        assert readyz(redis_url) == (200, {"status": "ready", "degraded": {}})


def test_without_a_worker_it_is_degraded(redis_url):
    save_schemas(redis_url)
    assert readyz(redis_url) == (200, {"status": "degraded", "degraded": NO_WORKER})


def test_without_closes_fields_it_is_degraded(redis_url, blocking_redis):
    with worker(blocking_redis):
        assert readyz(redis_url) == (200, {"status": "degraded", "degraded": NO_FIELDS})


def test_a_rule_whose_field_is_not_in_close_is_named_with_the_nearest_name(redis_url, blocking_redis):
    save_schemas(redis_url)
    with worker(blocking_redis):
        status, body = readyz(redis_url, rules=MISSPELT)
    problem = "'Senority' is no custom field of contacts in Close; did you mean 'Seniority'?"
    assert (status, body) == (200, {"status": "degraded", "degraded": {"rule Seniority": problem}})


def test_a_halt_is_told_with_its_reason(redis_url, blocking_redis):
    async def halt():
        async with redis.asyncio.Redis.from_url(redis_url) as client:
            await Ledger(client).brakes.halt(reason="the bill is too high", kind=PERSON)

    save_schemas(redis_url)
    asyncio.run(halt())
    with worker(blocking_redis):
        expected = {"status": "degraded", "degraded": {"halted": "the bill is too high"}}
        assert readyz(redis_url) == (200, expected)


def test_what_the_burst_guard_holds_is_told_with_its_price(redis_url, blocking_redis):
    save_schemas(redis_url)
    blocking_redis.zadd(keys.HELD, {"a": 1, "b": 2})
    with worker(blocking_redis):
        words = "2 held by the burst guard, at most as many credits: close-enrich release"
        assert readyz(redis_url) == (200, {"status": "degraded", "degraded": {"held": words}})


@pytest.mark.parametrize(
    ("dead", "unread", "words"),
    [
        (1, 0, {"dead letters": "1 enrichment ended without an answer: close-enrich dead list"}),
        (
            2,
            1,
            {
                "dead letters": "2 enrichments ended without an answer: close-enrich dead list",
                "quarantine": "1 signed delivery could not be read: close-enrich quarantine list",
            },
        ),
        (0, 2, {"quarantine": "2 signed deliveries could not be read: close-enrich quarantine list"}),
    ],
)
def test_what_only_a_person_can_decide_is_told_with_where_to_look(
    redis_url, blocking_redis, dead, unread, words
):
    save_schemas(redis_url)
    for number in range(dead):
        blocking_redis.zadd(keys.ATTENTION, {f"entry-{number}": number})
    for _ in range(unread):
        blocking_redis.xadd(keys.QUARANTINE, {"body": "{", "reason": "truncated"})
    with worker(blocking_redis):
        assert readyz(redis_url) == (200, {"status": "degraded", "degraded": words})


def test_a_field_that_keeps_timing_out_is_told_with_what_to_do(redis_url, blocking_redis):
    save_schemas(redis_url)
    blocking_redis.sadd(keys.BREAKERS, "cf_pitch", "cf_closed_since")
    row = {"name": "Pitch", "rule": "Elevator pitch", "timeouts": 5, "until_ms": 1_791_970_212_000}
    blocking_redis.hset(keys.breaker("cf_pitch"), mapping=row)
    with worker(blocking_redis):
        words = (
            "Pitch is not called: 5 calls in a row timed out. One call is tried from 2026-10-14 09:30:12 UTC "
            "on. Simplify the field's guidance in Close"
        )
        expected = {"status": "degraded", "degraded": {"breaker cf_pitch": words}}
        assert readyz(redis_url) == (200, expected)


def test_without_an_enabled_rule_it_is_unavailable(redis_url, blocking_redis):
    save_schemas(redis_url)
    with worker(blocking_redis):
        status, body = readyz(redis_url, rules=DISABLED)
    assert (status, body) == (503, {"status": "unavailable", "problems": NO_RULES, "degraded": {}})


@pytest.fixture
def own_redis(tmp_path):
    with EmbeddedRedis(tmp_path) as server:
        save_schemas(server.url)
        yield server


def test_without_redis_it_is_unavailable_and_all_problems_are_named_at_once(own_redis):
    with Receiver(own_redis.url, rules=DISABLED) as receiver:
        own_redis.kill()
        answer = receiver.get("/readyz")
        assert answer.status == 503
        assert set(answer.body["problems"]) == {"redis", "rules"}
        assert receiver.get("/livez").status == 200
        own_redis.start()
        assert set(receiver.get("/readyz").body["problems"]) == {"rules"}


def test_while_redis_hangs_it_is_unavailable_within_two_seconds(own_redis):
    assert PATIENCE_SECONDS < 2
    with Receiver(own_redis.url, patient=False) as receiver:
        wait_until(lambda: receiver.get("/readyz").status == 200)
        with paused(own_redis):
            started = time.monotonic()
            answer = receiver.get("/readyz")
            assert time.monotonic() - started < 2 + SLACK_SECONDS
            assert (answer.status, set(answer.body["problems"])) == (503, {"redis"})
            assert receiver.get("/livez").status == 200


@pytest.mark.parametrize("headers", [{"host": "enrich.example.com"}, {"x-forwarded-for": "127.0.0.1"}])
def test_a_stranger_learns_whether_it_is_ready_and_not_why(redis_url, headers):
    token = "t" * 16
    with Receiver(redis_url, ADMIN_TOKEN=token, rules=DISABLED) as receiver:
        told = receiver.request("GET", "/readyz", None, headers)
        assert (told.status, told.body) == (503, {"status": "unavailable"})
        told = receiver.request("GET", "/readyz", None, {**headers, "authorization": f"Bearer {token}"})
        assert (told.status, set(told.body)) == (503, {"status", "problems", "degraded"})


async def test_only_living_workers_of_our_queues_count(async_redis, blocking_redis):
    ledger = Ledger(async_redis)
    assert await alive_workers(ledger) == []
    with (
        worker(blocking_redis, name="live"),
        worker(blocking_redis, queue=jobs.BULK_QUEUE, name="bulk"),
        worker(blocking_redis, queue="somebody-elses", name="other"),
        worker(blocking_redis, name="dead") as dead,
        worker(blocking_redis, name="silent"),
    ):
        dead.register_death()
        # what RQ's time to live does to a worker that stopped without a word
        blocking_redis.delete("rq:worker:silent")
        assert await alive_workers(ledger) == ["bulk", "live"]


async def test_readiness_raises_nothing_when_redis_holds_something_else_than_expected(async_redis):
    await async_redis.set("rq:workers", "not a set")
    found = await readiness(Ledger(async_redis), Knowledge.of(rulebook(), {}))
    assert found == Readiness(problems={"redis": "Redis does not answer (ResponseError)"}, degraded=NO_FIELDS)
    assert found.status == 503
