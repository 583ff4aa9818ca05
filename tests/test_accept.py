"""Accepting events on a real Redis: claims and jobs in one step, many events in one round trip."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import replace

import pytest
import redis.asyncio
from ledger_box import LEAD, SECOND_STAMP, LedgerBox, event, id_of, wanted
from msgspec import structs
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from waiting import eventually

from service import jobs, keys
from service.accept import (
    GRACE_MS,
    MOST_IN_ONE_TRIP,
    MOST_ITEMS_IN_ONE_TRIP,
    Accepter,
    StoreUnavailableError,
)
from service.embedded_redis import EmbeddedRedis, server_binary
from service.enrichment import ENTRY_VERSION, FINAL_STATES, RETENTION_SECONDS, SETTLES, State
from service.planning import PlannedEnrichment
from service.rules import Mode, ObjectType, Priority, Target
from service.scripts import script_text

UPDATED = event("ev_2", action="updated")
UPDATED_LATER = event("ev_2", action="updated", stamp=SECOND_STAMP)
OVERWRITE = wanted(mode=Mode.OVERWRITE, reopens=True)


@pytest.fixture
def box(async_redis):
    return LedgerBox(async_redis)


async def commands(client, name):
    """How often the server has run a command."""
    stats = await client.info("commandstats")
    return stats.get(f"cmdstat_{name}", {}).get("calls", 0)


async def test_one_event_claims_and_enqueues_all_its_fields(box):
    fields = ("cf_a", "cf_b", "cf_c")
    results = await box.accept(event(), *map(wanted, fields))
    assert results == ["planned"] * 3
    entries = [await box.entry(id_of(field)) for field in fields]
    assert [entry.state for entry in entries] == [State.PLANNED] * 3
    assert await box.queued() == [entry.job_id for entry in entries]
    assert await box.counts() == {State.PLANNED: 3}
    assert {entry.id for entry in await box.ledger.entries_of(LEAD)} == {entry.id for entry in entries}
    assert await box.redis.xlen(keys.HISTORY) == 3


async def test_the_history_stays_capped(box):
    fill = "for _ = 1, 100500 do redis.call('XADD', KEYS[1], '*', 'fact', 'x') end"
    await box.redis.eval(fill, 1, keys.HISTORY)
    await box.plan()
    # Redis drops whole blocks of a hundred
    assert 100_000 <= await box.redis.xlen(keys.HISTORY) < 100_200
    ((_, newest),) = await box.redis.xrevrange(keys.HISTORY, count=1)
    assert json.loads(newest[b"fact"])["object"]


async def test_an_entry_says_what_planned_it_and_when(box):
    before = await box.now_ms()
    entry = await box.plan(mode=Mode.PREVIEW, judged=False, rule="Größe")
    after = await box.now_ms()
    assert (entry.rule, entry.mode, entry.event_id, entry.action) == ("Größe", "preview", "ev_1", "created")
    assert (entry.organization_id, entry.object_id, entry.lead_id, entry.field_id) == (
        "orga_1",
        LEAD,
        LEAD,
        "cf_industry",
    )
    assert before <= entry.planned_ms <= after
    assert entry.due_ms == entry.changed_ms == entry.planned_ms
    assert (entry.judged, entry.fence, entry.attempts, entry.calls, entry.holder) == (False, 0, 0, 0, "")
    assert await box.score(entry.id) == entry.planned_ms + GRACE_MS
    assert await box.redis.ttl(keys.entry(entry.id)) == -1


async def test_an_entry_says_what_is_unusual_about_it_until_it_is_planned_anew(box):
    await box.accept(event())
    unusual = PlannedEnrichment(
        target=Target(
            rule="Seniority",
            object_type=ObjectType.CONTACT,
            field_id="cf_seniority",
            field_name="Seniority level",
            mode=Mode.OVERWRITE,
            settle_seconds=60.0,
            priority=Priority.LOW,
        ),
        object_id="cont_1",
        lead_id=LEAD,
        judged=True,
        reopens=True,
    )
    elsewhere = structs.replace(UPDATED, organization_id="orga_2", object_type="contact", object_id="cont_1")
    (accepted,) = await box.accepter.accept(elsewhere, [unusual])
    entry = await box.entry(accepted.enrichment)
    facts = (
        entry.organization_id,
        entry.object_type,
        entry.object_id,
        entry.lead_id,
        entry.action,
        entry.mode,
    )
    assert facts == ("orga_2", "contact", "cont_1", LEAD, "updated", "overwrite")
    assert (entry.state, entry.reason, entry.queue) == (State.WAITING, SETTLES, jobs.BULK_QUEUE)
    assert (entry.due_ms, entry.changed_ms) == (entry.planned_ms + 60_000, entry.planned_ms)
    claim = await box.claim(entry.id)
    assert claim.entry == replace(entry, fence=claim.fence, holder=claim.entry.holder)
    await box.settle(claim, State.HELD, reason="nobody knows")

    target = structs.replace(unusual.target, mode=Mode.FILL, settle_seconds=0.0, priority=Priority.NORMAL)
    usual = structs.replace(unusual, target=target, judged=False)
    later = structs.replace(elsewhere, action="created", date_updated=SECOND_STAMP)
    assert [one.result for one in await box.accepter.accept(later, [usual])] == ["reopened"]
    entry = await box.entry(entry.id)
    assert (entry.organization_id, entry.lead_id, entry.action, entry.mode) == (
        "orga_2",
        LEAD,
        "created",
        "fill",
    )
    assert (entry.state, entry.reason, entry.queue, entry.judged) == (
        State.PLANNED,
        "",
        jobs.LIVE_QUEUE,
        False,
    )
    assert entry.due_ms == entry.changed_ms == entry.planned_ms


async def test_an_entry_of_the_version_before_is_taken_in_hand_and_planned_anew(box):
    """Version 1 wrote all facts down."""
    entry = await box.plan()
    written = {"v": 1, "org": "orga_1", "type": "lead", "lead": LEAD, "mode": "overwrite", "queue": "enrich"}
    written |= {"action": "created", "reason": "", "attempts": 0, "due_ms": 7, "changed_ms": 7}
    await box.redis.hset(keys.entry(entry.id), mapping=written)
    old = await box.entry(entry.id)
    assert old == replace(entry, version=1, mode="overwrite", due_ms=7, changed_ms=7)
    await box.settle(await box.calling(entry.id))
    assert await box.accept(UPDATED, wanted(reopens=True)) == ["reopened"]
    entry = await box.entry(entry.id)
    assert (entry.version, entry.mode, entry.action) == (ENTRY_VERSION, "fill", "updated")
    assert entry.due_ms == entry.changed_ms == entry.planned_ms


@pytest.mark.parametrize(
    ("item", "again"),
    [
        (wanted(), event()),
        (wanted(), event(stamp=SECOND_STAMP)),
        (wanted(mode=Mode.OVERWRITE), event(stamp=SECOND_STAMP)),
        (wanted(), event("ev_other")),
    ],
    ids=["the same", "a later version", "a later version for an overwriting rule", "another created event"],
)
async def test_a_created_event_that_comes_again_changes_nothing(box, item, again):
    await box.accept(event(), item)
    entry = await box.entry(id_of())
    assert await box.accept(again, item) == ["duplicate"]
    await box.settle(await box.calling(entry.id))
    finished = await box.entry(entry.id)
    assert await box.accept(again, item) == ["duplicate"]
    assert await box.entry(entry.id) == finished
    assert await box.queued() == [entry.job_id]


async def test_of_two_rules_for_one_field_the_first_claims_it(box):
    assert await box.accept(event(), wanted(rule="First"), wanted(rule="Second")) == ["planned", "duplicate"]
    assert (await box.entry(id_of())).rule == "First"
    assert len(await box.queued()) == 1


@pytest.mark.parametrize("state", sorted(FINAL_STATES))
async def test_a_later_change_starts_a_finished_field_again(box, state):
    await box.finished(state, mode=Mode.OVERWRITE)
    assert await box.accept(UPDATED, OVERWRITE) == ["reopened"]
    entry = await box.entry(id_of())
    assert (entry.state, entry.event_id, entry.attempts, entry.ended_ms) == (State.PLANNED, "ev_2", 0, None)
    assert entry.calls == 1, "what was charged stays on the account"
    assert await box.redis.ttl(keys.entry(entry.id)) == -1
    assert await box.redis.ttl(keys.object_entries(LEAD)) == -1
    assert await box.counts() == {State.PLANNED: 1}
    assert (await box.claim(entry.id)).entry.state is State.PLANNED


async def test_a_field_starts_again_once_for_each_version_of_an_event(box):
    await box.finished(mode=Mode.OVERWRITE)
    results = []
    for version in (UPDATED, UPDATED, UPDATED_LATER, UPDATED_LATER):
        results += await box.accept(version, OVERWRITE)
        entry = await box.entry(id_of())
        if not entry.state.final:
            await box.settle(await box.calling(entry.id))
    assert results == ["reopened", "duplicate", "reopened", "duplicate"]


async def test_an_older_version_that_is_delivered_late_starts_nothing(box):
    await box.finished(mode=Mode.OVERWRITE)
    await box.accept(UPDATED_LATER, OVERWRITE)
    await box.settle(await box.calling(id_of()))
    assert await box.accept(UPDATED, OVERWRITE) == ["duplicate"]
    assert await box.accept(UPDATED_LATER, OVERWRITE) == ["duplicate"]
    assert (await box.entry(id_of())).state is State.FILLED


async def test_an_event_without_a_date_starts_a_finished_field_once(box):
    await box.finished(mode=Mode.OVERWRITE)
    undated = event("ev_2", action="updated", stamp="")
    assert await box.accept(undated, OVERWRITE) == ["reopened"]
    await box.settle(await box.calling(id_of()))
    assert await box.accept(undated, OVERWRITE) == ["duplicate"]


async def test_what_remembers_versions_is_kept_as_long_as_entries(box):
    await box.accept(UPDATED, OVERWRITE)
    left = await box.redis.ttl(keys.event("ev_2"))
    assert RETENTION_SECONDS - 60 < left <= RETENTION_SECONDS
    assert not await box.redis.exists(keys.event("ev_1"))


async def test_a_change_while_a_field_waits_untouched_is_covered_by_the_run_to_come(box):
    await box.accept(event(), OVERWRITE)
    assert await box.accept(UPDATED, OVERWRITE) == ["duplicate"]
    await box.settle(await box.calling(id_of()))
    assert (await box.entry(id_of())).state is State.FILLED


@pytest.mark.parametrize(
    ("mode", "end", "then"),
    [
        (Mode.OVERWRITE, State.FILLED, State.PLANNED),
        (Mode.OVERWRITE, State.EMPTY, State.PLANNED),
        (Mode.FILL, State.EMPTY, State.PLANNED),
        (Mode.FILL, State.SKIPPED, State.PLANNED),
        (Mode.FILL, State.FILLED, State.FILLED),
        (Mode.FILL, State.CONFIRMED, State.CONFIRMED),
        (Mode.PREVIEW, State.PREVIEWED, State.PLANNED),
    ],
)
async def test_a_change_during_a_call_runs_it_once_more_unless_it_filled_what_it_should(box, mode, end, then):
    item = wanted(mode=mode, reopens=True)
    await box.accept(event(), item)
    claim = await box.calling(id_of())
    assert await box.accept(UPDATED, item) == ["again"]
    assert await box.accept(UPDATED, item) == ["duplicate"]
    assert await box.settle(claim, end)
    entry = await box.entry(id_of())
    assert entry.state is then
    assert await box.counts() == {then: 1}
    if then is State.PLANNED:
        assert (entry.event_id, entry.attempts, entry.calls) == ("ev_2", 0, 1)
        assert await box.settle(await box.claim(entry.id), State.SKIPPED)
        assert (await box.entry(id_of())).state is State.SKIPPED


async def test_a_change_before_the_call_leaves_needs_no_second_call(box):
    await box.accept(event(), OVERWRITE)
    claim = await box.claim(id_of())
    assert await box.accept(UPDATED, OVERWRITE) == ["again"]
    await box.ledger.permit_call(claim, group="enrich", value_before=None)
    await box.settle(claim)
    entry = await box.entry(id_of())
    assert (entry.state, entry.event_id) == (State.FILLED, "ev_2")


async def test_a_change_after_an_unclear_call_runs_it_once_more(box):
    await box.accept(event(), OVERWRITE)
    await box.postpone(await box.calling(id_of()), ambiguous=True, delay_seconds=60)
    assert await box.accept(UPDATED, OVERWRITE) == ["again"]
    await box.settle(await box.claim(id_of()), State.CONFIRMED)
    assert (await box.entry(id_of())).state is State.PLANNED


async def test_the_same_event_at_once_50_times_makes_one_set(box):
    fields = ("cf_a", "cf_b", "cf_c")
    answers = await asyncio.gather(*(box.accept(event(), *map(wanted, fields)) for _ in range(50)))
    assert sorted(answers) == [["duplicate"] * 3] * 49 + [["planned"] * 3]
    assert len(await box.queued()) == 3
    assert await box.counts() == {State.PLANNED: 3}


async def test_two_receivers_at_once_make_one_set(box, async_redis):
    other = LedgerBox(async_redis)
    answers = await asyncio.gather(*(one.accept(event()) for one in (box, other) * 10))
    assert sorted(answers) == [["duplicate"]] * 19 + [["planned"]]


async def test_high_priority_goes_to_the_front_and_low_behind_all_live_work(box):
    await box.accept(
        event(),
        wanted("cf_a"),
        wanted("cf_b", priority=Priority.LOW),
        wanted("cf_c", priority=Priority.HIGH),
    )
    a, b, c = [await box.entry(id_of(field)) for field in ("cf_a", "cf_b", "cf_c")]
    assert await box.queued(jobs.LIVE_QUEUE) == [c.job_id, a.job_id]
    assert await box.queued(jobs.BULK_QUEUE) == [b.job_id]
    assert [one.queue for one in (a, b, c)] == [jobs.LIVE_QUEUE, jobs.BULK_QUEUE, jobs.LIVE_QUEUE]


async def test_bulk_work_stands_behind_live_work_whatever_its_rule_says(box):
    await box.accept(event(), wanted(priority=Priority.HIGH), bulk=True)
    assert await box.queued(jobs.LIVE_QUEUE) == []
    assert len(await box.queued(jobs.BULK_QUEUE)) == 1


@pytest.mark.parametrize(
    ("priority", "queue"), [(Priority.NORMAL, jobs.LIVE_QUEUE), (Priority.LOW, jobs.BULK_QUEUE)]
)
async def test_a_field_that_settles_is_scheduled_to_the_millisecond(box, priority, queue):
    entry = await box.plan(settle_seconds=10.25, priority=priority)
    assert entry.state is State.WAITING
    assert entry.due_ms == entry.planned_ms + 10_250
    assert await box.queued(queue) == []
    assert await box.scheduled(queue) == {entry.job_id: entry.due_ms / 1000}
    assert await box.score(entry.id) == entry.due_ms + GRACE_MS


async def test_high_priority_is_kept_while_a_field_settles(box):
    await box.accept(
        event(), wanted("cf_a"), wanted("cf_b", priority=Priority.HIGH, settle_seconds=1), wanted("cf_c")
    )
    a, b, c = [(await box.entry(id_of(field))).job_id for field in ("cf_a", "cf_b", "cf_c")]
    await box.ledger.promote(jobs.LIVE_QUEUE, [b])
    assert await box.queued() == [b, a, c]


async def test_events_that_come_together_share_round_trips(box, async_redis):
    await box.accept(event("ev_warm"), wanted("cf_warm"))
    trips = 0
    real = box.accepter._send

    async def counted(batch):
        nonlocal trips
        trips += 1
        return await real(batch)

    box.accepter._send = counted
    before, whole = await commands(async_redis, "evalsha"), await commands(async_redis, "eval")
    events = [event(f"ev_{n}", object_id=f"lead_{n}") for n in range(3 * MOST_IN_ONE_TRIP)]
    results = await asyncio.gather(*(box.accept(one, wanted(object_id=one.object_id)) for one in events))
    assert results == [["planned"]] * len(events)
    assert trips == 3
    assert await commands(async_redis, "evalsha") - before == trips
    assert await commands(async_redis, "eval") == whole


async def test_whenever_events_come_each_is_taken_along(box):
    """The round trip that has just come back may have nobody left to take, and must not seem under way."""
    dice = random.Random(5)  # noqa: S311  when things come is no secret

    async def comes(number):
        for _ in range(dice.randrange(40)):
            await asyncio.sleep(0)
        one = f"lead_{number}"
        return await box.accept(event(f"ev_{number}", object_id=one), wanted(object_id=one))

    async with asyncio.timeout(30):
        for round_ in range(20):
            results = await asyncio.gather(*(comes(20 * round_ + number) for number in range(20)))
            assert results == [["planned"]] * 20
    assert await box.counts() == {State.PLANNED: 400}


async def test_a_server_that_has_forgotten_the_script_is_told_again(box, async_redis):
    await box.accept(event("ev_1", object_id="lead_1"), wanted(object_id="lead_1"))
    await async_redis.script_flush()
    events = [event(f"ev_{n}", object_id=f"lead_{n}") for n in range(2, 6)]
    results = await asyncio.gather(*(box.accept(one, wanted(object_id=one.object_id)) for one in events))
    assert results == [["planned"]] * 4
    assert len(await box.queued()) == 5


@pytest.mark.parametrize(("under_way", "afterwards"), [(False, "planned"), (True, "duplicate")])
async def test_a_caller_that_goes_away_disturbs_nobody(box, monkeypatch, under_way, afterwards):
    """Its event is written if the round trip has left already, else not; either way it may come again."""
    left, real = asyncio.Event(), box.accepter._send

    async def watched(batch):
        left.set()
        return await real(batch)

    monkeypatch.setattr(box.accepter, "_send", watched)
    going = asyncio.create_task(box.accept(event("ev_1", object_id="lead_1"), wanted(object_id="lead_1")))
    staying = asyncio.create_task(box.accept(event("ev_2", object_id="lead_2"), wanted(object_id="lead_2")))
    # both have joined the queue for the next round trip, or it is under way
    await (left.wait() if under_way else asyncio.sleep(0))
    going.cancel()
    assert await staying == ["planned"]
    with pytest.raises(asyncio.CancelledError):
        await going
    assert await box.accept(event("ev_1", object_id="lead_1"), wanted(object_id="lead_1")) == [afterwards]


@pytest.mark.parametrize(
    "key",
    [keys.entry(id_of("cf_b", object_id="lead_bad")), keys.object_entries("lead_bad"), keys.event("ev_bad")],
    ids=["an entry", "a record's entries", "an event"],
)
async def test_an_event_that_cannot_be_written_is_refused_whole_and_disturbs_nobody(box, async_redis, key):
    await async_redis.rpush(key, "neither a hash nor a string")

    def items(object_id):
        return [wanted(field, object_id=object_id, reopens=True) for field in ("cf_a", "cf_b")]

    good, bad, also_good = await asyncio.gather(
        box.accept(event("ev_1", object_id="lead_good"), *items("lead_good")),
        box.accept(event("ev_bad", object_id="lead_bad"), *items("lead_bad")),
        box.accept(event("ev_3", object_id="lead_too"), *items("lead_too")),
        return_exceptions=True,
    )
    assert good == also_good == ["planned"] * 2
    assert isinstance(bad, StoreUnavailableError)
    assert str(bad.__cause__).startswith("WRONGTYPE")
    assert await box.ledger.entry(id_of("cf_a", object_id="lead_bad")) is None
    assert await box.counts() == {State.PLANNED: 4}
    assert len(await box.queued()) == 4


@pytest.mark.parametrize(
    "key",
    [
        keys.COUNTS,
        keys.ACTIVE,
        keys.HISTORY,
        keys.HELD,
        keys.BURST,
        keys.ATTENTION,
        jobs.ALL_QUEUES_KEY,
        *map(jobs.queue_key, jobs.QUEUES),
        *map(jobs.scheduled_key, jobs.QUEUES),
    ],
)
async def test_where_a_key_that_all_share_is_of_another_kind_nothing_is_written(box, async_redis, key):
    await async_redis.set(key, "of another kind")
    before = set(await async_redis.keys("*"))
    with pytest.raises(StoreUnavailableError) as refusal:
        await box.accept()
    assert str(refusal.value.__cause__).startswith("WRONGTYPE")
    assert set(await async_redis.keys("*")) == before
    await async_redis.delete(key)
    assert await box.accept() == ["planned"]


async def test_events_of_one_record_that_share_a_round_trip_claim_each_field_once(box):
    together = await asyncio.gather(
        box.accept(event("ev_1"), wanted("cf_a"), wanted("cf_b")),
        box.accept(event("ev_2"), wanted("cf_b", rule="Other"), wanted("cf_c", rule="Other")),
    )
    assert together == [["planned", "planned"], ["duplicate", "planned"]]
    entries = [await box.entry(id_of(field)) for field in ("cf_a", "cf_b", "cf_c")]
    assert [(one.rule, one.event_id) for one in entries] == [
        ("Industry", "ev_1"),
        ("Industry", "ev_1"),
        ("Other", "ev_2"),
    ]
    assert {one.id for one in await box.ledger.entries_of(LEAD)} == {one.id for one in entries}


async def test_every_job_of_a_round_trip_is_whole_for_rq(box):
    settling = wanted("cf_s", settle_seconds=60, priority=Priority.HIGH, rule="Settling")
    await asyncio.gather(
        *(
            box.accept(event(f"ev_{n}"), wanted(f"cf_{n}"), wanted(f"cf_low_{n}", priority=Priority.LOW))
            for n in "123"
        ),
        box.accept(event("ev_4"), settling),
    )
    found = {}
    for name in [f"cf_{n}" for n in "123"] + [f"cf_low_{n}" for n in "123"] + ["cf_s"]:
        entry = await box.entry(id_of(name))
        raw = await box.redis.hgetall(jobs.job_key(entry.job_id))
        found[name] = {key: value for key, value in raw.items() if key != b"created_at"}
    assert found["cf_1"] == found["cf_2"] == found["cf_3"]
    assert found["cf_low_1"] == found["cf_low_2"] == found["cf_low_3"]
    assert found["cf_1"] | {b"origin": b"enrich-bulk"} == found["cf_low_1"]
    assert (
        found["cf_1"]
        | {
            b"description": b"Settling",
            b"status": b"scheduled",
            b"enqueue_at_front": b"1",
        }
        == found["cf_s"]
    )


async def test_a_round_trip_carries_no_more_enrichments_than_redis_does_at_once(box, monkeypatch):
    batches, real = [], box.accepter._send

    async def watched(batch):
        batches.append([one.claim.items for one in batch])
        return await real(batch)

    monkeypatch.setattr(box.accepter, "_send", watched)
    most = MOST_ITEMS_IN_ONE_TRIP
    sizes = [most + 1, most - 1, 1, 1]
    results = await asyncio.gather(
        *(
            box.accept(
                event(f"ev_{n}", object_id=f"lead_{n}"),
                *(wanted(f"cf_{field}", object_id=f"lead_{n}") for field in range(size)),
            )
            for n, size in enumerate(sizes)
        )
    )
    assert batches == [[most + 1], [most - 1, 1], [1]]
    assert results == [["planned"] * size for size in sizes]


async def test_more_kinds_of_work_than_are_remembered_are_planned_all_the_same(box, monkeypatch):
    monkeypatch.setattr("service.claims.MOST_KINDS", 2)
    rules = [f"Rule {n}" for n in range(5)]
    await asyncio.gather(
        *(box.accept(event(), wanted(f"cf_{rule}", rule=rule)) for rule in rules),
        box.accept(event(), *(wanted(f"cf_too_{rule}", rule=rule) for rule in rules)),
    )
    for prefix in ("cf_", "cf_too_"):
        assert [(await box.entry(id_of(f"{prefix}{rule}"))).rule for rule in rules] == rules


async def test_whoever_waits_too_long_for_redis_is_told_so_and_may_come_again(async_redis, monkeypatch):
    box = LedgerBox(async_redis)
    box.accepter = Accepter(async_redis, patience_seconds=0.01)
    real, hanging = box.accepter._send, asyncio.Event()

    async def hangs(batch):
        await hanging.wait()
        return await real(batch)

    monkeypatch.setattr(box.accepter, "_send", hangs)
    answers = await asyncio.gather(
        *(box.accept(event(f"ev_{n}"), wanted(f"cf_{n}")) for n in range(3)), return_exceptions=True
    )
    assert [str(one) for one in answers] == ["TimeoutError"] * 3
    assert {type(one) for one in answers} == {StoreUnavailableError}
    hanging.set()
    assert await Accepter(async_redis).accept(event("ev_0"), [wanted("cf_0")])


async def test_a_mistake_of_ours_reaches_those_who_wait_and_stops_nobody_after_them(box):
    async def broken(_batch):
        raise ZeroDivisionError

    box.accepter._send, real = broken, box.accepter._send
    answers = await asyncio.gather(*(box.accept(event(f"ev_{n}")) for n in range(3)), return_exceptions=True)
    assert [type(one) for one in answers] == [ZeroDivisionError] * 3
    box.accepter._send = real
    assert await box.accept() == ["planned"]


@pytest.fixture
def own_server(tmp_path):
    """A server that a test may kill."""
    with EmbeddedRedis(tmp_path, binary=server_binary()) as server:
        yield server


def impatient(url):
    return redis.asyncio.Redis.from_url(url, retry=Retry(NoBackoff(), 0))


async def test_while_redis_is_away_every_caller_is_told_and_afterwards_it_works_again(own_server):
    client = impatient(own_server.url)
    box = LedgerBox(client)
    await box.accept(event("ev_0"), wanted("cf_0"))
    own_server.kill()
    answers = await asyncio.gather(
        *(box.accept(event(f"ev_{n}"), wanted(f"cf_{n}")) for n in range(1, 5)), return_exceptions=True
    )
    assert [type(one) for one in answers] == [StoreUnavailableError] * 4
    assert {str(one) for one in answers} <= {"ConnectionError", "BusyLoadingError"}
    assert all(isinstance(one.__cause__, Exception) for one in answers)
    own_server.start()
    assert await box.accept(event("ev_1"), wanted("cf_1")) == ["planned"]
    await client.aclose()


async def test_what_was_accepted_survives_the_kill_of_the_server(own_server):
    client = impatient(own_server.url)
    box = LedgerBox(client)
    await asyncio.gather(*(box.accept(event(f"ev_{n}"), wanted(f"cf_{n}")) for n in range(100)))
    await box.accept(event("ev_later"), wanted("cf_later", settle_seconds=600))

    async def handed_to_the_system():
        # with `everysec` a write waits while another is being synced
        found = await client.info("persistence")
        return found["aof_buffer_length"] == 0 and found["aof_pending_bio_fsync"] == 0

    await eventually(handed_to_the_system)
    queued, scheduled, counts = await box.queued(), await box.scheduled(), await box.counts()
    entries = await box.ledger.entries_of(LEAD)
    own_server.kill()
    own_server.start()
    await client.connection_pool.disconnect()
    assert len(queued) == 100
    assert await box.queued() == queued
    assert await box.scheduled() == scheduled
    assert await box.counts() == counts
    assert await box.ledger.entries_of(LEAD) == entries
    assert await box.accept(event("ev_7"), wanted("cf_7")) == ["duplicate"]
    await client.aclose()


def test_every_script_begins_with_what_all_share():
    assert script_text("accept").startswith("-- Shared by the scripts")
    with pytest.raises(FileNotFoundError):
        script_text("no_such_script")


async def test_nothing_is_sent_before_the_first_event(async_redis):
    before = await commands(async_redis, "script|load")
    Accepter(async_redis)
    assert await commands(async_redis, "script|load") == before
