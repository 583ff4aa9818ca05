"""Alerts on a real Redis with a real receiver: looked for by one process, posted, remembered, tried again."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import logging
from zoneinfo import ZoneInfo

import httpx
import pytest
import structlog
from alert_box import PATH, channel
from click.testing import CliRunner
from ledger_box import LedgerBox, event, wanted
from money_box import zone_where_it_is_noon
from redis.exceptions import ConnectionError as RedisConnectionError
from waiting import eventually

from service import jobs, keys
from service.alerts import Broken, Halted, Observation, UsedUp
from service.brakes import PERSON
from service.cli.main import main
from service.quarantine import quarantine
from service.queue_age import FIRST_JOBS
from service.rules import Action, Budget, Burst, Mode, ObjectType, OnExhausted, Priority, Rule, RuleBook
from service.settings import SETTINGS
from service.settings_values import Secret
from service.tasks import cancel_all
from workers import alert_post, alerter
from workers.alert_facts import Lookout
from workers.alert_post import AlertPoster, Posted
from workers.alerter import Alerter, read_told
from workers.budget import windows_of
from workers.log_report import Findings, PairReport, Report
from workers.log_walk import Pair
from workers.reconcile_loop import ReconcileLoop

NOW_MS = 1_791_970_212_000
ZONE = ZoneInfo(zone_where_it_is_noon())
HALT = Halted(reason="Close refused the API key (401)", by_person=False, since_ms=NOW_MS)


@pytest.fixture
def receiver():
    with channel() as found:
        yield found


class Watch:
    """An alerter that sees what it is told to see."""

    def __init__(self, redis, receiver=None, *, owner="worker-1"):
        self.sees = Observation(now_ms=NOW_MS)
        self.error = None
        self.looks = 0
        self.log = structlog.testing.CapturingLogger()
        self.alerter = Alerter(
            redis,
            look=self.look,
            poster=None if receiver is None else AlertPoster(Secret(receiver.url)),
            instance="enrich.example.com",
            oldest_job_seconds=900.0,
            owner=owner,
            log=self.log,
        )

    async def look(self):
        self.looks += 1
        if self.error is not None:
            raise self.error
        return self.sees

    async def tick(self, seconds=0.0, **facts):
        self.sees = Observation(now_ms=NOW_MS + round(seconds * 1000), **facts)
        await self.alerter.tick()

    def logged(self, event="alert"):
        return [call.kwargs for call in self.log.calls if call.args == (event,)]


# the loop


async def test_a_beginning_and_an_end_are_posted_and_logged_once_each(async_redis, receiver):
    watch = Watch(async_redis, receiver)
    await watch.tick(halt=HALT)
    await watch.tick(15, halt=HALT)
    assert len(receiver.posts) == 1
    assert receiver.text.startswith("*close-enrich* at enrich.example.com\nAlert: all calls are halted")

    await watch.tick(30)
    await watch.tick(45)
    assert len(receiver.posts) == 2
    assert "\nOver: all calls are halted: Close refused the API key (401)" in receiver.posts[1]["text"]
    assert [(one["what"], one["about"]) for one in watch.logged()] == [
        ("begun", "halted"),
        ("over", "halted"),
    ]


async def test_another_process_and_a_restarted_one_repeat_nothing(async_redis, receiver):
    await Watch(async_redis, receiver).tick(halt=HALT)
    other = Watch(async_redis, receiver, owner="worker-2")
    await other.tick(15, halt=HALT)
    assert len(receiver.posts) == 1
    assert other.logged() == []


async def test_without_an_address_alerts_are_logged_only(async_redis):
    watch = Watch(async_redis)
    await watch.tick(halt=HALT, dead_letters=2)
    await watch.tick(15, halt=HALT, dead_letters=2)
    assert watch.logged() == [
        {
            "what": "begun",
            "about": "halted",
            "words": "all calls are halted: Close refused the API key (401); one is tried every few minutes",
            "since": "2026-10-14 09:30 UTC",
            "advice": "mend the cause, then `close-enrich resume`; work waits unharmed",
        },
        {
            "what": "new",
            "about": "dead-letters",
            "words": "2 more ended so that a person has to look; 2 dead letters in all",
            "since": "2026-10-14 09:30 UTC",
            "advice": "`close-enrich dead list`, then `dead retry` or `dead drop`",
        },
    ]


async def test_what_was_not_taken_is_posted_again_later_but_logged_once(async_redis, receiver):
    watch = Watch(async_redis, receiver)
    receiver.answer(429, b"slow down", retry_after="120")
    await watch.tick(halt=HALT)
    receiver.answer(200, b"ok")
    await watch.tick(105, halt=HALT)
    assert len(receiver.posts) == 1
    await watch.tick(120, halt=HALT)
    await watch.tick(135, halt=HALT)

    assert len(receiver.posts) == 2
    assert len(watch.logged()) == 1
    (failure,) = watch.logged("an alert could not be posted and is tried again")
    assert failure == {"said": "429 slow down", "failures": 1, "wait_seconds": 120.0}


async def test_a_post_counts_before_it_is_made_so_that_a_redis_that_takes_no_more_causes_no_flood(
    async_redis, receiver, monkeypatch
):
    watch = Watch(async_redis, receiver)
    kept = []
    keep = watch.alerter._keep

    async def keep_once(told):
        if kept:
            raise RedisConnectionError
        kept.append(told)
        await keep(told)

    monkeypatch.setattr(watch.alerter, "_keep", keep_once)
    with pytest.raises(RedisConnectionError):
        await watch.tick(halt=HALT)
    assert len(receiver.posts) == 1
    assert len((await read_told(async_redis)).posts_ms) == 1


async def test_one_process_at_a_time_looks_and_hands_over_when_it_ends(async_redis, monkeypatch):
    monkeypatch.setattr(alerter, "TICK_SECONDS", 0.01)
    one, other = Watch(async_redis), Watch(async_redis, owner="worker-2")
    first = asyncio.create_task(one.alerter.run())
    await eventually(lambda: _so(one.looks > 1))
    second = asyncio.create_task(other.alerter.run())
    before = one.looks
    await eventually(lambda: _so(one.looks > before + 2))
    assert other.looks == 0

    await cancel_all([first])
    await eventually(lambda: _so(other.looks > 0))
    await cancel_all([second])
    assert not await async_redis.exists(keys.ALERTER)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RedisConnectionError(), "alerts wait for Redis"),
        (ZeroDivisionError(), "alerts went wrong and go on"),
    ],
)
async def test_trouble_is_logged_and_the_loop_goes_on(async_redis, monkeypatch, error, words):
    monkeypatch.setattr(alerter, "TICK_SECONDS", 0.01)
    watch = Watch(async_redis)
    watch.error = error
    running = asyncio.create_task(watch.alerter.run())
    await eventually(lambda: _so(watch.looks > 1))
    watch.error = None
    await eventually(lambda: async_redis.exists(keys.ALERTS))
    await cancel_all([running])
    assert {call.args[0] for call in watch.log.calls} == {words}


async def _so(value):
    return value


# the post


async def test_a_post_says_what_the_receiver_said(receiver):
    posted = await AlertPoster(Secret(receiver.url)).post("hello")
    assert posted == Posted(delivered=True, said="200 ok")
    assert receiver.posts == [{"text": "hello"}]


@pytest.mark.parametrize(
    ("status", "body", "headers", "posted"),
    [
        (404, b"no_service", {}, Posted(delivered=False, said="404 no_service")),
        (302, b"", {"location": "http://127.0.0.1:9/"}, Posted(delivered=False, said="302")),
        (500, b"\x00\xff" * 5000, {}, None),
        (429, b"", {"retry_after": "7"}, Posted(delivered=False, said="429", retry_after_seconds=7.0)),
        (429, b"", {"retry_after": "soon"}, Posted(delivered=False, said="429")),
        (429, b"", {"retry_after": "-1"}, Posted(delivered=False, said="429")),
    ],
)
async def test_what_is_no_success_is_not_delivered(receiver, status, body, headers, posted):
    receiver.answer(status, body, **headers)
    found = await AlertPoster(Secret(receiver.url)).post("hello")
    assert found == posted or (posted is None and not found.delivered and len(found.said) <= 110)
    assert len(receiver.posts) == 1


async def test_no_word_about_a_failed_post_shows_the_address(receiver, monkeypatch):
    receiver.answer(400, f"cannot post to {receiver.url}".encode())
    refused = await AlertPoster(Secret(receiver.url)).post("hello")
    away = await AlertPoster(Secret(f"http://127.0.0.1:9{PATH}")).post("hello")
    monkeypatch.setattr(alert_post, "WHOLE_SECONDS", 0.0)
    late = await AlertPoster(Secret(receiver.url)).post("hello")

    async def fail(*_):
        raise httpx.RemoteProtocolError(f"{receiver.url} hung up")

    monkeypatch.setattr(alert_post, "WHOLE_SECONDS", 10.0)
    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", fail)
    dropped = await AlertPoster(Secret(receiver.url)).post("hello")
    assert [one.said for one in (refused, away, late, dropped)] == [
        "400 cannot post to ***",
        "it cannot be reached",
        "no answer in time",
        "it cannot be asked (RemoteProtocolError)",
    ]
    assert not any(one.delivered for one in (refused, away, late, dropped))


# what is seen


def rulebook(*, per_day=3, rule_budget=None, drops=False) -> RuleBook:
    on_exhausted = OnExhausted.DROP if drops else OnExhausted.WAIT
    rule = Rule(
        name="Industry",
        object_type=ObjectType.LEAD,
        field="Industry",
        mode=Mode.FILL,
        budget=rule_budget,
    )
    return RuleBook(rules=(rule,), budget=Budget(per_day=per_day, on_exhausted=on_exhausted))


async def look(redis, rules=None) -> Observation:
    box = LedgerBox(redis)
    found = rules or RuleBook()
    return await Lookout(box.ledger, rulebook=lambda: found, zone=ZONE).look()


async def test_an_empty_installation_has_no_worker_and_nothing_else_to_tell(async_redis):
    seen = await look(async_redis)
    assert seen == Observation(now_ms=seen.now_ms, workers=0, subscription=None)
    assert abs(seen.now_ms - await LedgerBox(async_redis).now_ms()) < 5000


async def test_all_that_deserves_an_alert_is_seen(async_redis):
    box = LedgerBox(async_redis)
    await box.ledger.brakes.halt(reason="an import", kind=PERSON)
    await async_redis.hset(keys.WEBHOOK, mapping={"subscription": "whsub_1", "problem": "whsub_1 is failing"})
    await async_redis.sadd(keys.BREAKERS, "cf_pitch")
    breaker = {"name": "Pitch", "rule": "Pitch", "timeouts": 5, "until_ms": NOW_MS}
    await async_redis.hset(keys.breaker("cf_pitch"), mapping=breaker)
    await async_redis.set(keys.MISSED, 4)
    await quarantine(async_redis, body=b"?", reason="not JSON")
    items = [wanted(f"cf_{n}") for n in range(3)]
    await box.accepter.accept(event(), items, burst=Burst(most=1, within_seconds=600.0))
    await async_redis.zadd(keys.ATTENTION, {"a": 1, "b": 2})
    rules = rulebook(drops=True)
    now_ms = await box.now_ms()
    (window,) = windows_of(rules, rules.rules[0], now_ms=now_ms, zone=ZONE)
    await async_redis.set(window.key, 3)

    seen = await look(async_redis, rules)
    assert seen.halt is not None
    assert (seen.halt.reason, seen.halt.by_person) == ("an import", True)
    assert seen.subscription == "whsub_1 is failing"
    assert seen.broken == (Broken(field_id="cf_pitch", field_name="Pitch", rule="Pitch", timeouts=5),)
    assert seen.used_up == (UsedUp(words="3 credits a day for all rules", drops=True),)
    assert (seen.held, seen.dead_letters, seen.quarantined, seen.missed) == (2, 2, 1, 4)
    assert now_ms - 5000 < seen.oldest_due_ms <= now_ms


async def test_a_budget_with_a_credit_left_is_not_used_up(async_redis):
    rules = rulebook()
    (window,) = windows_of(rules, rules.rules[0], now_ms=await LedgerBox(async_redis).now_ms(), zone=ZONE)
    await async_redis.set(window.key, 2)
    assert (await look(async_redis, rules)).used_up == ()


async def test_no_job_is_old_that_settles_or_was_put_back_for_later_or_is_in_hand_or_bulk(async_redis):
    box = LedgerBox(async_redis)
    await box.plan(object_id="lead_settles", settle_seconds=60.0)
    late = await box.plan(object_id="lead_budget")
    await async_redis.delete(jobs.queue_key(jobs.LIVE_QUEUE))
    await box.postpone(await box.claim(late.id), delay_seconds=600.0)
    await box.accept(event(object_id="lead_bulk"), wanted(object_id="lead_bulk"), bulk=True)
    assert (await look(async_redis)).oldest_due_ms is None


async def age(redis, entry, *, ms):
    await redis.hset(keys.entry(entry.id), "due_ms", ms)


@pytest.mark.parametrize("others", [0, 3, 2 * FIRST_JOBS])
async def test_the_oldest_job_is_found_behind_urgent_ones(async_redis, others):
    box = LedgerBox(async_redis)
    old = await box.plan(object_id="lead_old", priority=Priority.HIGH if others > 3 else Priority.NORMAL)
    await age(async_redis, old, ms=NOW_MS)
    for number in range(others):
        await box.plan(object_id=f"lead_{number}", priority=Priority.HIGH)
    assert (await look(async_redis)).oldest_due_ms == NOW_MS


async def test_a_scheduled_job_that_nobody_moves_on_counts_from_when_it_was_due(async_redis):
    box = LedgerBox(async_redis)
    await box.plan(settle_seconds=60.0)
    scheduled = jobs.scheduled_key(jobs.LIVE_QUEUE)
    (job_id,) = await async_redis.zrange(scheduled, 0, -1)
    await async_redis.zadd(scheduled, {job_id: NOW_MS / 1000 - 10**7})
    assert (await look(async_redis)).oldest_due_ms == NOW_MS - 10**10


async def test_a_job_whose_entry_is_gone_has_no_age(async_redis):
    await async_redis.rpush(jobs.queue_key(jobs.LIVE_QUEUE), "gone-1")
    assert (await look(async_redis)).oldest_due_ms is None


class Walker:
    """Stands for the reconciler: each walk finds so many missed events."""

    def __init__(self, missed):
        self.missed = missed

    async def catch_up(self, *, leave_seconds):
        assert leave_seconds > 0
        pair = Pair(ObjectType.LEAD, Action.CREATED)
        findings = Findings(events=9, matched=9, missed=self.missed, planned=self.missed)
        since = dt.datetime(2026, 10, 14, tzinfo=dt.UTC)
        return Report(pairs=(PairReport(pair=pair, since=since, findings=findings),))


@pytest.mark.parametrize(("missed", "counted"), [(0, 0), (3, 6)])
async def test_events_that_walks_find_are_counted(async_redis, missed, counted):
    loop = ReconcileLoop(
        async_redis,
        reconciler=Walker(missed),
        ready=lambda: True,
        worker="worker-1",
        every_seconds=300.0,
        log=structlog.get_logger(),
    )
    for _ in range(2):
        await loop.walk_if_due()
        await async_redis.delete(keys.RECONCILED)
    assert (await look(async_redis)).missed == counted


# the commands


@pytest.fixture
def cli(redis_url, tmp_path):
    (tmp_path / "rules.yaml").write_text("{version: 1, rules: [{name: A, object: lead, field: A}]}")

    def run(*arguments, **environ):
        cleared = {name: None for setting in SETTINGS for name in (setting, f"{setting}_FILE")}
        given = {
            "REDIS_URL": redis_url,
            "RULES_FILE": str(tmp_path / "rules.yaml"),
            "COLUMNS": "200",
            **environ,
        }
        return CliRunner().invoke(main, ["alerts", *arguments], env={**cleared, **given})

    root, structlog_before = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers[:], root.level
    yield run
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**structlog_before)


def test_alerts_test_posts_a_sample_and_says_what_came_back(cli, receiver):
    done = cli("test", ALERT_WEBHOOK_URL=receiver.url, PUBLIC_URL="https://enrich.example.com")
    assert (done.exit_code, done.output) == (0, "Delivered; the receiver said: 200 ok\n")
    assert receiver.text == "*close-enrich* at enrich.example.com\nThis is a test: alerts arrive here."


def test_alerts_test_exits_1_where_the_sample_is_not_taken_and_2_without_an_address(cli, receiver):
    receiver.answer(403, b"invalid_token")
    done = cli("test", ALERT_WEBHOOK_URL=receiver.url)
    assert (done.exit_code, done.output) == (1, "Not delivered: 403 invalid_token (see ALERT_WEBHOOK_URL)\n")
    done = cli("test", "--json", ALERT_WEBHOOK_URL=receiver.url)
    assert (done.exit_code, json.loads(done.output)) == (1, {"delivered": False, "said": "403 invalid_token"})
    done = cli("test")
    assert (done.exit_code, "ALERT_WEBHOOK_URL: not set" in done.output) == (2, True)


def test_alerts_list_shows_what_needs_a_person_and_no_secret(cli, blocking_redis, receiver):
    blocking_redis.hset(keys.HALT, mapping={"reason": "an import", "kind": PERSON, "since_ms": NOW_MS})
    done = cli("list", "--json", ALERT_WEBHOOK_URL=receiver.url)
    found = json.loads(done.output)
    assert done.exit_code == 0
    assert [(one["about"], one["since_ms"], one["told_ms"]) for one in found["alerts"]][:1] == [
        ("halted", NOW_MS, None)
    ]
    assert {one["kind"] for one in found["alerts"]} == {"halted", "no-worker"}
    assert PATH not in done.output
    words = cli("list", ALERT_WEBHOOK_URL=receiver.url).output
    assert "all calls are halted by a person: an import" in words
    assert receiver.posts == []


def test_alerts_list_says_what_it_could_not_look_at(cli):
    done = cli("list", RULES_FILE="nowhere.yaml")
    assert done.exit_code == 0
    assert "RULES_FILE cannot be read here, so budgets were not looked at." in done.output
    assert "ALERT_WEBHOOK_URL is not set: alerts are only logged." in done.output
