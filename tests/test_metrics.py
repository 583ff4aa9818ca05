"""A scrape tells what was counted and how things stand, in formats that Prometheus reads, to whom it may."""

from __future__ import annotations

import json
import os
import socket
import time
from zoneinfo import ZoneInfo

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from ledger_box import LedgerBox, event, wanted
from money_box import zone_where_it_is_noon
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from receiver_box import Receiver, paused, sample, save_schemas
from waiting import wait_until

from service import jobs, keys
from service.brakes import PERSON
from service.enrichment import FINAL_STATES, State
from service.knowledge import Knowledge
from service.meter import Meter, Now
from service.metrics import Metrics, encode, exposed
from service.metrics_catalogue import (
    CALL_SECONDS,
    COUNTED,
    DONE,
    EVENTS,
    FAMILIES,
    LEAD_TO_FILLED_SECONDS,
    PAID,
    PLANNED,
    WAITS,
    Kind,
)
from service.metrics_reading import MOST_HOSTS, Snapshot, read_snapshot
from service.quarantine import quarantine
from service.rules import Budget, ObjectType, Rule, RuleBook
from service.rules_in_force import Publisher, RulesState
from workers.budget import all_windows

OPENMETRICS = "application/openmetrics-text;version=1.0.0"
TOKEN = "scrape-token-0123456789"
ADMIN = "admin-token-0123456789"
ZONE = ZoneInfo(zone_where_it_is_noon())

RULES = RuleBook(
    rules=(
        Rule(name="Industry", object_type=ObjectType.LEAD, field="Industry", budget=Budget(per_day=2)),
        Rule(name="Segment", object_type=ObjectType.LEAD, field="Segment"),
    ),
    budget=Budget(per_day=5, per_month=50),
)


def metrics(ledger):
    return Metrics(
        ledger,
        knowledge=lambda: Knowledge.of(RULES, {}),
        windows=lambda rulebook, now_ms: all_windows(rulebook, now_ms=now_ms, zone=ZONE),
        now_ms=lambda: round(time.time() * 1000),
    )


def samples(body, parse=parse_text):
    """Every sample by its name and labels."""
    return {
        (one.name, *sorted(one.labels.items())): one.value
        for family in parse(body.decode() if isinstance(body, bytes) else body)
        for one in family.samples
    }


def sample_of(found, name, **labels):
    return found.get((f"close_enrich_{name}", *sorted(labels.items())))


async def scraped(ledger, accept=""):
    body, _ = await metrics(ledger).render(accept)
    return samples(body)


@pytest.fixture
def box(async_redis):
    return LedgerBox(async_redis)


async def test_an_empty_installation_has_its_families_with_zeros(box):
    found = await scraped(box.ledger)
    assert sample_of(found, "redis_up") == 1
    assert sample_of(found, "workers") == 0
    assert sample_of(found, "events_total", result="accepted") == 0
    assert sample_of(found, "waits_total", cause="budget") == 0
    assert sample_of(found, "call_seconds_count", outcome="rate_limited") == 0
    assert sample_of(found, "accept_seconds_bucket", le="+Inf") == 0
    assert sample_of(found, "entries", state="filled") == 0
    assert sample_of(found, "rules_enabled") == 2
    assert not any(name.startswith("close_enrich_subscription") for name, *_ in found)


async def test_without_redis_a_scrape_says_so_and_nothing_else(box, redis_server, monkeypatch):
    monkeypatch.setattr("service.metrics.PATIENCE_SECONDS", 0.2)
    with paused(redis_server):
        assert await scraped(box.ledger) == {("close_enrich_redis_up",): 0}


async def test_how_things_stand_is_read_from_redis(box, async_redis):
    for number in range(3):
        await box.plan(object_id=f"lead_{number}")
    await box.plan(object_id="lead_later", settle_seconds=500)
    oldest = (await box.queued())[0].partition("-")[0]
    now_ms = await box.now_ms()
    await async_redis.hset(keys.entry(oldest), "due_ms", now_ms - 90_000)
    await box.accept(event("ev_2", object_id="lead_b"), wanted(object_id="lead_b"), bulk=True)
    await box.ledger.brakes.halt(reason="a person says so", kind=PERSON)
    await box.ledger.brakes.park("enrich", seconds=30)
    await async_redis.sadd(keys.BREAKERS, "cf_1")
    await async_redis.zadd(keys.HELD, {"a": 1, "b": 1})
    await async_redis.zadd(keys.ATTENTION, {"c": 1})
    await async_redis.set(keys.MISSED, 7)
    await async_redis.rpush(keys.BACKLOG, b"{}")
    await quarantine(async_redis, body=b"?", reason="unreadable")
    await async_redis.hset(keys.WEBHOOK, mapping={"subscription": "whsub_1", "problem": ""})
    day, month = (window for window in all_windows(RULES, now_ms=now_ms, zone=ZONE) if window.scope == "all")
    await async_redis.mset({day.key: 4, month.key: 9})
    await async_redis.hset("limiter", mapping={"rate": "12.5", "refusals": 3})
    for waiting in (2, 3):
        now = Now(waiting={"enrich": waiting}, limiters={"enrich": "limiter"})
        meter = Meter(async_redis, clock=time.time, log=structlog.get_logger(), now=lambda now=now: now)
        await meter.flush()
    problem = RulesState(digest="d", read_at_ms=1, problems=("rules.yaml:1:1: broken",))
    await Publisher(async_redis, role="web", state=lambda: problem).say()

    found = await scraped(box.ledger)
    assert sample_of(found, "entries", state="planned") == 4
    assert sample_of(found, "queue_jobs", queue=jobs.LIVE_QUEUE, status="queued") == 3
    assert sample_of(found, "queue_jobs", queue=jobs.LIVE_QUEUE, status="scheduled") == 1
    assert sample_of(found, "queue_jobs", queue=jobs.BULK_QUEUE, status="queued") == 1
    assert 90 <= sample_of(found, "queue_oldest_seconds", queue=jobs.LIVE_QUEUE) < 100
    assert sample_of(found, "queue_oldest_seconds", queue=jobs.BULK_QUEUE) < 10
    for name, value in {
        "halted": 1,
        "breakers_open": 1,
        "held": 2,
        "dead_letters": 1,
        "quarantined": 1,
        "backlog_events": 1,
        "reconcile_missed_events_total": 7,
        "subscription_healthy": 1,
    }.items():
        assert sample_of(found, name) == value, name
    assert sample_of(found, "budget_limit_credits", scope="all", period="day") == 5
    assert sample_of(found, "budget_spent_credits", scope="all", period="day") == 4
    assert sample_of(found, "budget_spent_credits", scope="all", period="month") == 9
    assert sample_of(found, "budget_limit_credits", scope="rule:Industry", period="day") == 2
    assert sample_of(found, "limiter_calls_per_second", group="enrich") == 12.5
    assert sample_of(found, "limiter_waiting", group="enrich") == 5
    assert 25 < sample_of(found, "limiter_parked_seconds", group="enrich") <= 30
    assert sample_of(found, "rate_limited_total", group="enrich") == 3
    assert sample_of(found, "rules_problem", role="web", host=socket.gethostname()) == 1


async def test_a_subscription_in_trouble_is_not_healthy(box, async_redis):
    await async_redis.hset(keys.WEBHOOK, mapping={"subscription": "whsub_1", "problem": "is paused"})
    assert sample_of(await scraped(box.ledger), "subscription_healthy") == 0


async def test_what_a_silent_or_newer_process_told_is_not_believed(box, async_redis):
    now_ms = await box.now_ms()
    await async_redis.hset(
        keys.METRICS_NOW,
        mapping={
            "silent": f'{now_ms - 60_000} {{"waiting":{{"enrich":9}},"limiters":{{"enrich":"l"}}}}',
            "newer": f"{now_ms} [1,2]",
            "odd": "nonsense",
        },
    )
    snapshot = await read_snapshot(box.ledger, windows=())
    assert (snapshot.limiters, snapshot.budgets) == ({}, ())


async def test_a_limiter_without_an_answer_of_close_yet_has_no_pace(box, async_redis):
    now = Now(waiting={"read": 0}, limiters={"read": "none yet"})
    await Meter(async_redis, clock=time.time, log=structlog.get_logger(), now=lambda: now).flush()
    found = await scraped(box.ledger)
    assert sample_of(found, "limiter_waiting", group="read") == 0
    assert sample_of(found, "limiter_parked_seconds", group="read") == 0
    assert sample_of(found, "limiter_calls_per_second", group="read") is None


async def says(async_redis, monkeypatch, *, host, pid, role="worker", problems=()):
    """What a process of that host and id says of its rules."""
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    monkeypatch.setattr(os, "getpid", lambda: pid)
    state = RulesState(digest="d", read_at_ms=1, problems=problems)
    await Publisher(async_redis, role=role, state=lambda: state).say()


async def test_processes_of_one_role_and_host_are_one_series_whatever_their_ids(
    box, async_redis, monkeypatch
):
    for pid in range(1, 4):
        await says(async_redis, monkeypatch, host="a", pid=pid, problems=("broken",) if pid == 2 else ())
    await says(async_redis, monkeypatch, host="b", pid=4)
    await says(async_redis, monkeypatch, host="a", pid=5, role="web")
    assert (await read_snapshot(box.ledger, windows=())).rules_problems == {
        ("worker", "a"): True,
        ("web", "a"): False,
        ("worker", "b"): False,
    }


async def test_a_problem_is_told_by_a_process_of_a_version_that_names_no_role_and_host(box, async_redis):
    said = {"process": "web on a, process 1", "digest": "d", "read_at_ms": 1, "problem": "broken"}
    said["said_at_seconds"] = await box.now_ms() // 1000
    await async_redis.hset(keys.RULES, said["process"], json.dumps(said))
    assert (await read_snapshot(box.ledger, windows=())).rules_problems == {("other", "other"): True}


async def test_only_so_many_hosts_are_named_those_with_a_problem_first(box, async_redis, monkeypatch):
    for number in range(MOST_HOSTS + 20):
        problems = ("broken",) if number >= MOST_HOSTS else ()
        await says(async_redis, monkeypatch, host=f"{number:04}", pid=1, problems=problems)
    snapshot = await read_snapshot(box.ledger, windows=())
    assert len(snapshot.rules_problems) == MOST_HOSTS
    assert sum(snapshot.rules_problems.values()) == 20


async def counted(connection):
    meter = Meter(connection, clock=time.time, log=structlog.get_logger())
    for _ in range(3):
        meter.count(EVENTS, result="accepted")
    meter.count(PLANNED, rule='Indu"stry\n\\', result="planned")
    meter.count(DONE, rule="Industry", outcome="filled")
    meter.count(PAID, rule="Industry")
    meter.count(WAITS, cause="rate_limit")
    for seconds in (0.5, 4.0, 1e6):
        meter.observe(LEAD_TO_FILLED_SECONDS, seconds, rule="Industry", lane="live")
        meter.observe(CALL_SECONDS, seconds, outcome="found")
    await meter.flush()


@pytest.mark.parametrize(("accept", "parse"), [("", parse_text), (OPENMETRICS, parse_openmetrics)])
async def test_both_formats_can_be_parsed_and_say_the_same(box, async_redis, accept, parse):
    await counted(async_redis)
    body, content_type = await metrics(box.ledger).render(accept)
    assert content_type.startswith(accept.partition(";")[0] or "text/plain")
    found = samples(body, parse)
    assert sample_of(found, "events_total", result="accepted") == 3
    assert sample_of(found, "planned_total", rule='Indu"stry\n\\', result="planned") == 1
    filled = {"rule": "Industry", "lane": "live"}
    assert sample_of(found, "lead_to_filled_seconds_bucket", le="1.0", **filled) == 1
    assert sample_of(found, "lead_to_filled_seconds_bucket", le="5.0", **filled) == 2
    assert sample_of(found, "lead_to_filled_seconds_bucket", le="+Inf", **filled) == 3
    assert sample_of(found, "lead_to_filled_seconds_count", **filled) == 3
    assert sample_of(found, "lead_to_filled_seconds_sum", **filled) == pytest.approx(1_000_004.5)


async def test_every_family_of_the_catalogue_is_exposed_with_its_type_and_help(box, async_redis):
    await counted(async_redis)
    body, _ = await metrics(box.ledger).render("")
    families = {one.name: one for one in parse_text(body.decode())}
    assert set(families) == {family.name.removesuffix("_total") for family in FAMILIES}
    for family in FAMILIES:
        found = families[family.name.removesuffix("_total")]
        assert (found.type, found.documentation) == (str(family.kind), family.help)


def test_what_an_empty_snapshot_exposes_can_be_parsed():
    body, _ = encode(exposed(Snapshot(), rules_enabled=0), OPENMETRICS)
    assert sample_of(samples(body, parse_openmetrics), "workers") == 0


@pytest.mark.parametrize("family", COUNTED, ids=lambda family: family.name)
def test_fixed_words_are_there_from_the_start_so_that_a_rate_has_a_first_zero(family):
    body, _ = encode(exposed(Snapshot(), rules_enabled=0), "")
    name = family.name + ("_count" if family.kind is Kind.HISTOGRAM else "")
    found = [one for one in samples(body) if one[0] == name]
    bounded = all(label.words is not None for label in family.labels)
    assert bool(found) == bounded


@pytest.mark.parametrize(
    "accept",
    ["text/plain;version=x", "text/html, application/xhtml+xml", "*/*", ";;,;=,", "é", "openmetrics"],
)
def test_an_odd_accept_header_gets_plain_text(accept):
    body, content_type = encode([], accept)
    assert content_type.startswith("text/plain")
    assert body == b""


@given(st.text())
def test_no_accept_header_is_too_odd(accept):
    body, content_type = encode(exposed(Snapshot(), rules_enabled=0), accept)
    assert (
        sample_of(
            samples(body, parse_openmetrics if "openmetrics" in content_type else parse_text), "workers"
        )
        == 0
    )


async def test_a_scrape_asks_the_same_however_much_there_is(box, async_redis):
    async def commands():
        before = await async_redis.info("commandstats")
        await scraped(box.ledger)
        after = await async_redis.info("commandstats")
        calls = {name: one["calls"] - before.get(name, {"calls": 0})["calls"] for name, one in after.items()}
        return sum(calls.values())

    await scraped(box.ledger)
    little = await commands()
    for number in range(300):
        await box.plan(object_id=f"lead_{number}")
    # at most 51 jobs of each queue are looked at
    assert await commands() <= little + 60


# through the receiver


@pytest.fixture
def receiver(redis_url):
    save_schemas(redis_url)
    with Receiver(redis_url) as receiver:
        yield receiver


def scrape(receiver, **headers):
    return receiver.request("GET", "/metrics", None, headers)


def test_the_receiver_counts_what_it_answers(receiver):
    receiver.post(sample("02"))
    receiver.post(sample("02"))
    receiver.post(b"{")
    receiver.post(sample("02"), headers={"content-type": "application/json"})

    def look():
        found = samples(scrape(receiver).raw)
        words = EVENTS.labels[0].words
        return found, {result: sample_of(found, "events_total", result=result) for result in words}

    # what is refused is counted, but not timed: it may be told later than the others
    wait_until(lambda: sum(look()[1].values()) == 4)
    found, results = look()
    assert sample_of(found, "accept_seconds_count") == 3
    assert results == {
        "accepted": 1,
        "duplicate": 1,
        "quarantined": 1,
        "refused": 1,
        "ignored": 0,
        "unavailable": 0,
    }
    assert sample_of(found, "planned_total", rule="Pitch", result="planned") == 1
    assert sample_of(found, "planned_total", rule="Pitch", result="duplicate") == 1


def test_a_scrape_is_not_cached_and_takes_only_get(receiver):
    answer = scrape(receiver)
    assert (answer.status, answer.headers["cache-control"]) == (200, "no-store")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert scrape(receiver, accept=OPENMETRICS).headers["content-type"].startswith("application/openmetrics")
    assert receiver.request("POST", "/metrics", b"", {}).status == 405


@pytest.mark.parametrize("headers", [{"host": "enrich.example.com"}, {"x-forwarded-for": "127.0.0.1"}])
def test_a_stranger_learns_nothing(receiver, headers):
    answer = scrape(receiver, **headers)
    assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert b"close_enrich" not in answer.raw


def test_tokens_open_and_are_needed_once_set(redis_url):
    with Receiver(redis_url, METRICS_TOKEN=TOKEN, ADMIN_TOKEN=ADMIN) as receiver:
        assert scrape(receiver).status == 401
        assert scrape(receiver, authorization="Bearer wrong-token-0123456789").status == 401
        for token in (TOKEN, ADMIN):
            assert scrape(receiver, authorization=f"Bearer {token}").status == 200
        assert scrape(receiver, authorization=f"Bearer {TOKEN}", host="enrich.example.com").status == 200


def test_every_final_state_is_an_outcome():
    assert DONE.labels[1].words == {str(state) for state in FINAL_STATES} <= set(State)
