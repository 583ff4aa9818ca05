"""Subscriptions kept right at Close, against the sandbox: made, adopted, mended, rotated."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest
import structlog
from receiver_box import captured_log, rulebook
from redis.exceptions import ConnectionError as RedisConnectionError
from sandbox_box import Clock, running
from waiting import eventually

from service import keys
from service.keyring import known_keys
from service.log import get_logger
from service.sandbox.options import DEMO_API_KEY
from service.tasks import cancel_all
from workers import watcher as watching
from workers.close_api import CloseApi
from workers.reply import Failure, FailureKind, Reply
from workers.subscription import Change, Create, Interest, Keep, Nothing, needed_events, rotated
from workers.watcher import LOOK_AGAIN_SECONDS, LOOK_EVERY_SECONDS, Watcher
from workers.webhook_reply import Trouble
from workers.webhooks import Ensured, Rotated, Webhooks

# nobody listens there
URL = "http://127.0.0.1:9/webhooks/close"
ELSEWHERE = "http://127.0.0.1:9/another"
LEAD = Interest(object_type="lead", action="created")
CONTACT = Interest(object_type="contact", action="created")
EVENTS = (CONTACT, LEAD)


@contextlib.asynccontextmanager
async def webhooks_at(box, redis):
    api = CloseApi(api_key=DEMO_API_KEY, base_url=f"{box.url}/api/v1")
    try:
        yield Webhooks(api, redis, log=structlog.testing.CapturingLogger())
    finally:
        await api.aclose()


@pytest.fixture
async def box():
    async with running() as started:
        yield started


@pytest.fixture
async def webhooks(box, async_redis):
    async with webhooks_at(box, async_redis) as made:
        yield made


async def by_hand(box, *, url=URL, events=EVENTS, **changes):
    """A subscription that a person made in Close."""
    body = {"url": url, "events": [one.wire() for one in events]}
    made = (await box.api.post("webhook/", json=body)).json()
    if changes:
        reply = await box.api.put(f"webhook/{made['id']}/", json=changes)
        assert reply.status_code == 200
    return made["id"]


def at_close(box, of_id):
    return box.world.subscriptions[of_id]


async def asked_to_reconcile(redis):
    return await redis.getdel(keys.RECONCILE_NOW) is not None


async def stored_key(redis, of_id):
    return (await redis.hget(keys.SIGNATURE_KEYS, of_id) or b"").decode()


# ensure


async def test_a_subscription_is_made_and_its_key_kept(box, webhooks, async_redis):
    done = await webhooks.ensure(url=URL, events=EVENTS)

    (made,) = box.world.subscriptions.values()
    assert isinstance(done, Ensured)
    assert isinstance(done.step, Create)
    assert (done.subscription.id, done.key_known, done.rotating) == (made.id, True, False)
    assert (made.url, made.status, {one.action for one in made.events}) == (URL, "active", {"created"})
    assert await stored_key(async_redis, made.id) == made.signature_key
    assert await asked_to_reconcile(async_redis)


async def test_a_second_look_changes_nothing(box, webhooks, async_redis):
    await webhooks.ensure(url=URL, events=EVENTS)
    await asked_to_reconcile(async_redis)
    done = await webhooks.ensure(url=URL, events=EVENTS)

    assert isinstance(done.step, Keep)
    assert len(box.world.subscriptions) == 1
    assert not await asked_to_reconcile(async_redis)


async def test_a_subscription_made_by_hand_is_adopted_with_its_key(box, webhooks, async_redis):
    await by_hand(box, url=ELSEWHERE)
    made = await by_hand(box)
    done = await webhooks.ensure(url=URL, events=EVENTS)

    assert (done.subscription.id, done.key_known) == (made, True)
    assert await known_keys(async_redis) == {made}
    assert len(box.world.subscriptions) == 2


@pytest.mark.parametrize(
    ("events", "changes"),
    [
        pytest.param((LEAD,), {}, id="events"),
        pytest.param(EVENTS, {"status": "paused"}, id="status"),
        pytest.param((LEAD,), {"status": "paused"}, id="both"),
    ],
)
async def test_what_is_wrong_with_it_is_mended_and_the_gap_read(box, webhooks, async_redis, events, changes):
    made = await by_hand(box, events=events, **changes)
    done = await webhooks.ensure(url=URL, events=EVENTS)

    assert isinstance(done.step, Change)
    assert done.step.reactivates is ("status" in changes)
    assert at_close(box, made).status == "active"
    assert {one.object_type for one in at_close(box, made).events} == {"lead", "contact"}
    assert await asked_to_reconcile(async_redis)


async def test_it_follows_the_receiver_to_a_new_address(box, webhooks):
    made = (await webhooks.ensure(url=ELSEWHERE, events=EVENTS)).subscription.id
    await webhooks.ensure(url=URL, events=EVENTS)

    assert {one.id: one.url for one in box.world.subscriptions.values()} == {made: URL}


async def test_a_lost_key_is_learned_again(box, webhooks, async_redis):
    made = (await webhooks.ensure(url=URL, events=EVENTS)).subscription.id
    await async_redis.flushall()
    done = await webhooks.ensure(url=URL, events=EVENTS)

    assert (done.subscription.id, done.key_known) == (made, True)
    assert await stored_key(async_redis, made) == at_close(box, made).signature_key


async def test_without_a_rule_nothing_is_made(box, webhooks):
    assert await webhooks.ensure(url=URL, events=()) == Nothing()
    assert box.world.subscriptions == {}


async def test_at_the_limit_it_says_so(async_redis):
    async with running(subscription_limit=1) as box, webhooks_at(box, async_redis) as webhooks:
        await by_hand(box, url=ELSEWHERE)
        done = await webhooks.ensure(url=URL, events=EVENTS)

        assert isinstance(done, Trouble)
        assert (done.status, done.named) == (400, None)
        assert "limit of 1" in done.reason
        assert await known_keys(async_redis) == frozenset()


async def test_a_close_that_is_away_is_trouble_and_no_exception(async_redis):
    async with running() as box, webhooks_at(box, async_redis) as webhooks:
        pass
    done = await webhooks.ensure(url=URL, events=EVENTS)
    assert isinstance(done, Trouble)
    assert "could not be asked" in done.reason


# what the sandbox does not do


class Close:
    """Answers as told: `calls` says what it was asked, in order."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.calls = []

    def __getattr__(self, name):
        async def call(**given):
            self.calls.append((name, given))
            return self.answers.pop(0)

        return call


def reply(code=200, /, **body):
    return Reply(status=code, headers={}, body=json.dumps(body).encode())


def shown(name, url=URL, **more):
    return {
        "id": f"whsub_{name}",
        "url": url,
        "events": [one.wire() for one in EVENTS],
        "status": "active",
        **more,
    }


def told(redis, *answers):
    close = Close(*answers)
    return close, Webhooks(close, redis, log=structlog.testing.CapturingLogger())


DUPLICATE = reply(400, errors=["Duplicate active subscription: whsub_twin"])
NONE = reply(data=[], has_more=False)


async def test_every_page_is_read(async_redis):
    close, webhooks = told(
        async_redis,
        reply(data=[shown("a"), {"odd": 1}], has_more=True),
        reply(data=[shown("b")], has_more=True),
        reply(data=[shown("c")], has_more=False),
    )
    listed = await webhooks.listed()

    assert [one.id for one in listed] == ["whsub_a", "whsub_b", "whsub_c"]
    assert [given["skip"] for _, given in close.calls] == [0, 2, 3]


async def test_a_page_that_repeats_for_ever_ends_the_walk(async_redis):
    page = reply(data=[shown("a")], has_more=True)
    close, webhooks = told(async_redis, page, page)

    assert [one.id for one in await webhooks.listed()] == ["whsub_a"]
    assert len(close.calls) == 2


async def test_a_duplicate_that_the_list_does_not_show_is_adopted(async_redis):
    twin = shown("twin", signature_key="ab" * 32)
    close, webhooks = told(async_redis, NONE, DUPLICATE, reply(**twin), reply(**twin))
    done = await webhooks.ensure(url=URL, events=EVENTS)

    assert (done.subscription.id, done.key_known) == ("whsub_twin", True)
    assert [name for name, _ in close.calls] == ["get_webhooks", "post_webhook", "get_webhook", "get_webhook"]
    assert await stored_key(async_redis, "whsub_twin") == "ab" * 32


async def test_a_paused_duplicate_is_reactivated(async_redis):
    twin = shown("twin", status="paused", signature_key="ab" * 32)
    active = {**twin, "status": "active"}
    close, webhooks = told(async_redis, NONE, DUPLICATE, reply(**twin), reply(**active))
    done = await webhooks.ensure(url=URL, events=EVENTS)

    assert done.subscription.active
    assert close.calls[-1] == (
        "put_webhook",
        {"subscription_id": "whsub_twin", "changes": {"status": "active"}},
    )


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param([reply(**shown("twin", url=ELSEWHERE))], id="delivers elsewhere"),
        pytest.param([reply(404, error="gone")], id="is gone"),
        pytest.param([reply(odd=1)], id="is not understood"),
        pytest.param([reply(**shown("twin", status="paused")), DUPLICATE], id="is refused again"),
    ],
)
async def test_a_duplicate_that_cannot_be_ours_is_never_touched(async_redis, answers):
    close, webhooks = told(async_redis, NONE, DUPLICATE, *answers)
    done = await webhooks.ensure(url=URL, events=EVENTS)

    assert isinstance(done, Trouble)
    assert "whsub_twin" in done.reason
    assert "delete_webhook" not in [name for name, _ in close.calls]
    assert await known_keys(async_redis) == frozenset()


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([Failure(kind=FailureKind.CONNECT, detail="refused")], "could not be asked: connect (refused)"),
        ([reply(403, error="no")], "403: no"),
        ([reply(503)], "Close answered 503"),
        ([Reply(status=200, headers={}, body=b"[]")], "not a JSON object"),
        ([reply(data=None)], "not understood"),
        ([NONE, reply(odd=1)], "was not a subscription"),
    ],
)
async def test_an_answer_that_is_of_no_use_is_trouble_in_words(async_redis, answers, words):
    _, webhooks = told(async_redis, *answers)
    done = await webhooks.ensure(url=URL, events=EVENTS)

    assert isinstance(done, Trouble)
    assert words in done.reason


async def test_a_key_that_close_does_not_show_is_not_known(async_redis):
    _, webhooks = told(async_redis, reply(data=[shown("a")]), reply(**shown("a")))
    assert (await webhooks.ensure(url=URL, events=EVENTS)).key_known is False


# by hand


async def test_pause_and_resume(box, webhooks, async_redis):
    made = (await webhooks.ensure(url=URL, events=EVENTS)).subscription.id
    await asked_to_reconcile(async_redis)

    assert (await webhooks.pause(made)).status == "paused"
    left = await webhooks.ensure(url=URL, events=EVENTS)
    assert (left.step.left_paused, at_close(box, made).status) == (True, "paused")
    assert not await asked_to_reconcile(async_redis)

    assert (await webhooks.resume(made)).active
    assert await asked_to_reconcile(async_redis)
    assert await async_redis.smembers(keys.WEBHOOK_PAUSED) == set()


async def test_a_pause_that_close_refuses_is_not_remembered(webhooks, async_redis):
    assert (await webhooks.pause("whsub_none")).status == 404
    assert (await webhooks.resume("whsub_none")).status == 404
    assert not await async_redis.exists(keys.WEBHOOK_PAUSED)


async def test_a_deleted_subscription_is_forgotten_also_where_close_has_none(box, webhooks, async_redis):
    made = (await webhooks.ensure(url=URL, events=EVENTS)).subscription.id

    assert await webhooks.delete(made) is True
    assert box.world.subscriptions == {}
    assert await known_keys(async_redis) == frozenset()
    assert await webhooks.delete(made) is False


async def test_a_deletion_that_close_refuses_forgets_nothing(async_redis):
    await async_redis.hset(keys.SIGNATURE_KEYS, "whsub_a", "ab" * 32)
    _, webhooks = told(async_redis, reply(403, error="no"))

    assert (await webhooks.delete("whsub_a")).status == 403
    assert await known_keys(async_redis) == {"whsub_a"}


# rotation


async def test_a_rotation_has_both_deliver_until_the_new_one_has(box, webhooks, async_redis):
    old = (await webhooks.ensure(url=URL, events=EVENTS)).subscription.id
    begun = await webhooks.rotate(url=URL)
    new = begun.new.id

    assert [one.id for one in begun.old] == [old]
    assert at_close(box, new).url == rotated(URL, 1)
    assert at_close(box, new).signature_key != at_close(box, old).signature_key
    assert await known_keys(async_redis) == {old, new}
    assert (await webhooks.ensure(url=URL, events=EVENTS)).rotating

    assert "under way" in (await webhooks.rotate(url=URL)).reason
    assert await webhooks.finish(url=URL) == Rotated(new=begun.new, old=begun.old)

    at_close(box, new).counters["first_success"] += 1
    assert (await webhooks.finish(url=URL)).deleted == (old,)
    assert set(box.world.subscriptions) == {new}
    assert await known_keys(async_redis) == {new}
    assert await webhooks.finish(url=URL) is None
    assert not (await webhooks.ensure(url=URL, events=EVENTS)).rotating


async def test_a_second_rotation_counts_on(box, webhooks):
    await webhooks.ensure(url=URL, events=EVENTS)
    for number in (1, 2):
        new = (await webhooks.rotate(url=URL)).new.id
        assert at_close(box, new).url == rotated(URL, number)
        at_close(box, new).counters["first_success"] += 1
        await webhooks.finish(url=URL)


@pytest.mark.parametrize("changes", [None, {"status": "paused"}])
async def test_only_what_delivers_can_be_rotated(box, webhooks, changes):
    if changes:
        await by_hand(box, **changes)
    assert "webhook ensure" in (await webhooks.rotate(url=URL)).reason


async def test_a_new_subscription_whose_key_stays_hidden_is_deleted_again(async_redis):
    new = reply(**shown("new", url=rotated(URL, 1)))
    close, webhooks = told(async_redis, reply(data=[shown("a")]), new, new, reply())

    assert "does not show" in (await webhooks.rotate(url=URL)).reason
    assert close.calls[-1] == ("delete_webhook", {"subscription_id": "whsub_new"})


@pytest.mark.parametrize("answers", [[reply(503)], [reply(data=[shown("a")]), reply(400, errors=["full"])]])
async def test_a_rotation_that_close_refuses_changes_nothing(async_redis, answers):
    _, webhooks = told(async_redis, *answers)
    assert isinstance(await webhooks.rotate(url=URL), Trouble)


@pytest.mark.parametrize("status", [403, 503])
async def test_a_rotation_whose_end_is_refused_can_be_ended_later(async_redis, status):
    both = reply(data=[shown("a"), shown("new", url=rotated(URL, 1), counters={"retry_success": 1})])
    _, webhooks = told(async_redis, both, reply(status))
    assert (await webhooks.finish(url=URL)).status == status

    _, webhooks = told(async_redis, reply(status))
    assert (await webhooks.finish(url=URL)).status == status


# the watcher


def watcher_of(webhooks, redis, *, url=URL, events=EVENTS):
    log = structlog.testing.CapturingLogger()
    return Watcher(webhooks, redis, url=url, events=lambda: events, log=log), log


def warnings(log):
    return [call.kwargs["problem"] for call in log.calls if call.method_name == "warning"]


async def problem(redis):
    return (await redis.hget(keys.WEBHOOK, "problem") or b"").decode()


async def looks(watcher, done):
    """Let a watcher run until something is so."""
    task = asyncio.create_task(watcher.run())
    try:
        await eventually(done)
    finally:
        await cancel_all([task])


async def test_failing_for_three_days_it_is_paused_and_the_watcher_reactivates_it(async_redis):
    async with running(clock=Clock()) as box, webhooks_at(box, async_redis) as webhooks:
        watcher, log = watcher_of(webhooks, async_redis)
        await watcher.look()
        (one,) = box.world.subscriptions.values()
        assert await problem(async_redis) == ""

        await box.lead()
        await box.until(lambda: one.counters["first_fail"] == 1)
        box.advance(20 * 3600)
        await box.until(lambda: one.failing_buckets > 0)
        await watcher.look()
        assert "is failing" in await problem(async_redis)
        await asked_to_reconcile(async_redis)

        box.advance(51 * 3600)
        await box.until(lambda: one.counters["retry_fail"] == 2)
        await box.lead()
        box.advance(3600)
        await box.until(lambda: one.status == "paused")
        await watcher.look()
        assert (one.status, one.backlog) == ("active", 0)
        assert await asked_to_reconcile(async_redis)
        assert "was paused and is active again" in await problem(async_redis)

        await watcher.look()
        assert await problem(async_redis) == ""
        assert len(warnings(log)) == 2


async def test_one_worker_looks_for_all_until_the_next_look_is_due(box, webhooks, async_redis):
    first, _ = watcher_of(webhooks, async_redis)
    await looks(first, lambda: async_redis.exists(keys.WEBHOOK))
    (made,) = box.world.subscriptions
    await webhooks.delete(made)

    second, _ = watcher_of(webhooks, async_redis)
    assert not await second._is_due(second._wish(), new=True)
    assert 0 < await async_redis.ttl(keys.WEBHOOK_WATCHER) <= LOOK_EVERY_SECONDS
    await async_redis.delete(keys.WEBHOOK_WATCHER)
    await looks(second, lambda: async_redis.hlen(keys.SIGNATURE_KEYS))
    assert len(box.world.subscriptions) == 1


async def test_a_new_address_is_looked_at_as_soon_as_a_worker_starts_with_it(box, webhooks, async_redis):
    first, _ = watcher_of(webhooks, async_redis, url=ELSEWHERE)
    await looks(first, lambda: async_redis.exists(keys.WEBHOOK))
    second, _ = watcher_of(webhooks, async_redis)

    async def moved():
        return [one.url for one in box.world.subscriptions.values()] == [URL]

    await looks(second, moved)
    assert not await first._is_due(first._wish(), new=False)


async def test_events_that_new_rules_need_are_subscribed_to_at_once(box, webhooks, async_redis):
    events = [EVENTS[:1]]
    watcher = Watcher(
        webhooks,
        async_redis,
        url=URL,
        events=lambda: events[-1],
        log=structlog.testing.CapturingLogger(),
    )

    async def subscribed():
        return {event.object_type for one in box.world.subscriptions.values() for event in one.events}

    async def delivers_all():
        return await subscribed() == {"contact", "lead"}

    task = asyncio.create_task(watcher.run())
    await eventually(subscribed)
    assert not await delivers_all()
    events.append(EVENTS)
    await eventually(delivers_all)
    await cancel_all([task])


async def test_trouble_is_told_once_and_looked_at_again_soon(async_redis):
    refused = reply(403, error="no")
    _, webhooks = told(async_redis, refused, refused, reply(data=[shown("a", signature_key="ab" * 32)]))
    watcher, log = watcher_of(webhooks, async_redis)
    await async_redis.set(keys.WEBHOOK_WATCHER, "x", ex=LOOK_EVERY_SECONDS)
    await watcher.look()
    await watcher.look()

    assert warnings(log) == ["Close answered 403: no"]
    assert await problem(async_redis) == "Close answered 403: no"
    assert 0 < await async_redis.ttl(keys.WEBHOOK_WATCHER) <= LOOK_AGAIN_SECONDS
    assert await async_redis.ttl(keys.WEBHOOK) > LOOK_EVERY_SECONDS


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, "does not show its key"),
        ({"signature_key": "ab" * 32, "recent_consecutive_fail_buckets_cnt": 2}, "is failing"),
    ],
)
async def test_what_a_person_should_know_is_told(async_redis, more, words):
    one = shown("a", **more)
    _, webhooks = told(async_redis, reply(data=[one]), reply(**one))
    watcher, log = watcher_of(webhooks, async_redis)
    await watcher.look()

    (text,) = warnings(log)
    assert words in text
    assert await problem(async_redis) == text


async def test_a_pause_by_a_person_is_left_and_told(box, webhooks, async_redis):
    watcher, _ = watcher_of(webhooks, async_redis)
    await watcher.look()
    (one,) = box.world.subscriptions.values()
    await webhooks.pause(one.id)
    await watcher.look()

    assert one.status == "paused"
    assert "paused by a person" in await problem(async_redis)


async def test_the_watcher_ends_a_rotation(box, webhooks, async_redis):
    watcher, _ = watcher_of(webhooks, async_redis)
    await watcher.look()
    new = (await webhooks.rotate(url=URL)).new.id
    await watcher.look()
    assert len(box.world.subscriptions) == 2
    at_close(box, new).counters["retry_success"] += 1
    await watcher.look()
    assert set(box.world.subscriptions) == {new}


async def test_without_rules_nothing_is_remembered(webhooks, async_redis):
    watcher, _ = watcher_of(webhooks, async_redis, events=())
    await watcher.look()
    assert not await async_redis.exists(keys.WEBHOOK)


@pytest.mark.parametrize(
    ("error", "method"), [(ValueError("ours"), "exception"), (RedisConnectionError("away"), "warning")]
)
async def test_neither_a_mistake_of_ours_nor_redis_ends_it(webhooks, async_redis, monkeypatch, error, method):
    monkeypatch.setattr(watching, "TICK_SECONDS", 0.0)
    watcher, log = watcher_of(webhooks, async_redis)
    errors = [error]
    look = watcher.look

    async def fail_first():
        await async_redis.delete(keys.WEBHOOK_WATCHER)
        if errors:
            raise errors.pop()
        await look()

    monkeypatch.setattr(watcher, "look", fail_first)
    await looks(watcher, lambda: async_redis.exists(keys.WEBHOOK))
    assert log.calls[0].method_name == method


async def test_no_key_is_ever_logged(box, async_redis):
    with captured_log() as log:
        api = CloseApi(api_key=DEMO_API_KEY, base_url=f"{box.url}/api/v1")
        webhooks = Webhooks(api, async_redis, log=get_logger("webhook"))
        events = needed_events(rulebook())
        made = (await webhooks.ensure(url=URL, events=events)).subscription.id
        secrets = [at_close(box, made).signature_key]
        begun = await webhooks.rotate(url=URL)
        secrets.append(at_close(box, begun.new.id).signature_key)
        await Watcher(webhooks, async_redis, url=URL, events=lambda: events, log=get_logger("webhook")).look()
        await webhooks.delete(made)
        printed = repr((begun, webhooks, await webhooks.listed()))
        await api.aclose()

    logged = log.getvalue()
    assert made in logged
    assert [key for key in secrets if key in logged + printed] == []
