"""A backfill on a real Redis and a sandbox: found, priced, planned, watched, cancelled, resumed anywhere."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace

import pytest
from backfill_box import add_old_leads
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs
from reconcile_box import reconciling
from redis.exceptions import ConnectionError as RedisConnectionError
from sandbox_box import Clock, chance

from service import jobs, keys
from service.accept import StoreUnavailableError
from service.enrichment import State
from service.event import Event
from service.ledger import Claim
from service.planning import Plan
from service.rules import Mode
from service.sandbox.faults import FaultRule
from service.sandbox.search_api import CURSOR_SECONDS
from service.transitions import Settlement
from workers.backfill import Backfill, Stopped
from workers.backfill_cancel import CANCELLED, cancel
from workers.backfill_match import RuleTally, event_id
from workers.backfill_order import Order
from workers.backfill_run import MOST_RUNS, PRICED_SECONDS, Candidate, Known, Run, RunStore, Stage
from workers.backfill_watch import Watch, with_progress
from workers.patient import PatientReader
from workers.throttle import Ceiling, Throttle

RULES = """
version: 1
defaults: {settle: 20s}
rules:
  - {name: Industry, object: lead, field: Industry, when: 'lead.url != ""'}
  - {name: Seniority, object: contact, field: Seniority}
"""
INDUSTRY = """
version: 1
rules:
  - {name: Industry, object: lead, field: Industry}
"""
CHAIN = """
version: 1
rules:
  - {name: Industry, object: lead, field: Industry}
  - {name: Segment, object: lead, field: Segment, after: [Industry], when: 'lead.custom["Industry"] != ""'}
"""


TOKENS = itertools.count()


class Close:
    """What a backfill is tried with."""

    def __init__(self, box, redis):
        self.box = box
        self.redis = redis
        self.store = RunStore(redis)
        self.told = []
        self.pauses = []

    @property
    def world(self):
        return self.box.box.world

    def order(self, **changes):
        return Order(**{"rules": self.box.knowledge.bindings.bound, **changes})

    def backfill(self, order=None):
        async def pause(seconds):
            self.pauses.append(seconds)

        pace = Throttle(self.redis, limiter="enrich:limiter:t:search", group="search", ceiling=Ceiling())
        brakes = self.box.ledger.ledger.brakes
        return Backfill(
            order or self.order(),
            knowledge=self.box.knowledge,
            api=self.box.api,
            reader=PatientReader(pace=pace, group="search", brakes=brakes, random=chance(3), pause=pause),
            ledger=self.box.ledger.ledger,
            accepter=self.box.ledger.accepter,
            store=self.store,
            told=self.told.append,
        )

    @property
    def now_ms(self):
        return round(self.world.clock() * 1000)

    async def gathered(self, order=None):
        backfill = self.backfill(order)
        return await backfill.gather(await backfill.take_up(now_ms=self.now_ms, token=f"t{next(TOKENS)}"))

    async def planned(self, order=None):
        backfill = self.backfill(order)
        return await backfill.plan(await backfill.agree(await self.gathered(order)))

    async def found(self, run):
        pages = [await self.store.page(run.id, number) for number in range(run.pages)]
        return [one for page in pages for one in page]

    async def end(self, object_id, state, **facts):
        """Let an enrichment end."""
        ledger = self.box.ledger.ledger
        entry = await ledger.entry(self.box.entry_of(object_id))
        claim = await ledger.begin(entry.job_id, entry.id, holder="test")
        assert isinstance(claim, Claim)
        assert await ledger.settle(claim, Settlement(state=state, **facts))


@pytest.fixture
async def close(async_redis):
    async with reconciling(async_redis, rules=RULES, clock=Clock()) as box:
        yield Close(box, async_redis)


# Finding and pricing


async def test_what_the_rules_want_is_found_and_priced(close):
    old = add_old_leads(close.world, 5)
    add_old_leads(close.world, 3, url="")
    add_old_leads(close.world, 2, **{close.world.field_named("Industry").key: "Food"})
    lead = close.box.add_lead(contacts=[{"name": "Noor Solvei"}], url="x")
    close.box.box.advance(-1)
    known = await close.gathered()
    run = known.run
    assert run.stage is Stage.PRICED
    assert run.tallies == (
        RuleTally(searched=8, matched=5, wanted=5),
        RuleTally(),
    )
    assert {one.object_id for one in await close.found(run)} == set(old)
    assert lead["id"] not in {one.object_id for one in await close.found(run)}
    assert await close.box.entries() == []
    assert close.told[-1] == run


async def test_contacts_are_found_with_their_leads(close):
    lead = close.box.add_lead(contacts=[{"name": "Noor Solvei"}, {"name": "Jonas Okonjo-Lind"}])
    run = (await close.gathered()).run
    assert run.tallies[1] == RuleTally(searched=2, matched=2, wanted=2)
    contacts = [one for one in await close.found(run) if one.rule == 1]
    assert [one.object_id for one in contacts] == lead["contact_ids"]
    assert {one.lead_id for one in contacts} == {lead["id"]}


async def test_a_search_over_the_cap_is_walked_in_windows_to_its_end(close):
    close.box.rules(INDUSTRY)
    old = add_old_leads(close.world, 1100, clump=40)
    close.world.configure(replace(close.world.options, search_cap=450))
    known = await close.gathered()
    found = [one.object_id for one in await close.found(known.run)]
    assert found == old
    assert known.run.total == RuleTally(searched=1100, matched=1100, wanted=1100)
    assert known.run.searches[0].walk.skipped == ()


async def test_cursors_that_die_between_two_pages_cost_no_record(close):
    close.box.rules(INDUSTRY)
    old = add_old_leads(close.world, 700)
    backfill = close.backfill()
    close.told = Every(lambda: close.box.box.advance(CURSOR_SECONDS + 1))
    backfill = close.backfill()
    known = await backfill.gather(await backfill.take_up(now_ms=close.now_ms, token="abcde"))
    assert [one.object_id for one in await close.found(known.run)] == old
    assert known.run.total.searched == 700


class Every(list):
    """Does something each time that something is added."""

    def __init__(self, act):
        super().__init__()
        self.act = act

    def append(self, one):
        self.act()
        super().append(one)


async def test_the_limit_ends_the_search(close):
    close.box.rules(INDUSTRY)
    old = add_old_leads(close.world, 500)
    run = (await close.gathered(close.order(limit=250))).run
    assert [one.object_id for one in await close.found(run)] == old[:250]
    assert (run.total.wanted, run.limit_reached, run.stage) == (250, True, Stage.PRICED)
    assert run.total.searched == 400


async def test_only_records_created_since_are_searched(close):
    close.box.rules(INDUSTRY)
    old = add_old_leads(close.world, 70)
    since = round(close.world.clock()) - 100 * 86_400
    run = (await close.gathered(close.order(since="100d", since_second=since))).run
    assert 5 < run.total.wanted < 30
    assert [one.object_id for one in await close.found(run)] == old[-run.total.wanted :]


async def test_a_query_of_close_is_joined_with_ours(close):
    close.box.rules(INDUSTRY)
    add_old_leads(close.world, 4)
    (other,) = add_old_leads(close.world, 1, name="Quillstead Freight")
    named = {
        "type": "field_condition",
        "field": {"type": "regular_field", "object_type": "lead", "field_name": "name"},
        "condition": {"type": "term", "values": ["Quillstead Freight"]},
    }
    run = (await close.gathered(close.order(query=named))).run
    assert [one.object_id for one in await close.found(run)] == [other]


async def test_a_refused_query_is_told_and_a_close_that_is_away_is_waited_for(close):
    add_old_leads(close.world, 1)
    wrong = close.order(query={"type": "nonsense"})
    refused = await close.gathered(wrong)
    assert isinstance(refused, Stopped)
    assert "nonsense" in refused.reason
    close.world.faults.replace([FaultRule(kind="status:503", group="POST data/search", count=2)])
    assert not isinstance(await close.gathered(), Stopped)
    assert len(close.pauses) == 2


# What the ledger knows


async def test_what_is_under_way_or_answered_is_known_and_not_priced(close):
    close.box.rules(INDUSTRY)
    old = add_old_leads(close.world, 6)
    planned = await close.planned()
    assert planned.run.stage is Stage.WORKING
    ends = (State.FILLED, State.EMPTY, State.DEAD, State.KEPT, State.SKIPPED)
    for object_id, state in zip(old, ends, strict=False):
        await close.end(object_id, state)
    again = await close.gathered(close.order(since="400d"))
    assert again.run.tallies == (RuleTally(searched=6, matched=6, known=4, wanted=2),)
    found = await close.found(again.run)
    assert [(one.object_id, one.calls_before) for one in found] == [(old[3], 0), (old[4], 0)]


async def test_a_rule_after_another_one_is_wanted_only_where_that_one_is(close):
    close.box.rules(CHAIN)
    old = add_old_leads(close.world, 3)
    first = await close.planned()
    assert first.run.tallies[1] == RuleTally(searched=3, matched=3, wanted=3, later=3)
    for object_id in old:
        await close.end(object_id, State.EMPTY)
    again = await close.gathered(close.order(since="400d"))
    assert again.run.tallies == (
        RuleTally(searched=3, matched=3, known=3),
        RuleTally(searched=3),
    )


# Planning


async def test_what_was_found_is_planned_behind_live_work_to_be_judged_afresh(close):
    (old,) = add_old_leads(close.world, 1)
    close.box.add_lead(contacts=[{"name": "Noor Solvei"}])
    known = await close.planned()
    entry = await close.box.ledger.ledger.entry(close.box.entry_of(old))
    assert entry is not None
    assert (entry.rule, entry.state, entry.queue) == ("Industry", State.PLANNED, jobs.BULK_QUEUE)
    assert (entry.event_id, entry.action) == (event_id(known.run.id), "backfill")
    assert (entry.object_type, entry.object_id, entry.lead_id) == ("lead", old, old)
    assert (entry.mode, entry.judged) == (Mode.FILL, False)
    contact = next(iter(close.world.contacts.values()))
    other = await close.box.ledger.ledger.entry(close.box.entry_of(contact["id"], "Seniority"))
    assert other is not None
    assert (other.object_type, other.lead_id, other.judged) == ("contact", contact["lead_id"], True)
    assert known.run.stage is Stage.WORKING


async def test_nothing_is_planned_before_somebody_agrees(close):
    add_old_leads(close.world, 3)
    backfill = close.backfill()
    known = await backfill.plan(await close.gathered())
    assert known.run.stage is Stage.PRICED
    assert await close.box.entries() == []


async def test_a_page_that_is_planned_twice_is_planned_once(close):
    close.box.rules(INDUSTRY)
    old = add_old_leads(close.world, 3)
    await close.planned()
    await close.end(old[0], State.SKIPPED)
    order = close.order(since="400d")
    backfill = close.backfill(order)
    known = await backfill.agree(await close.gathered(order))
    assert [one.object_id for one in await close.found(known.run)] == old[:1]
    await backfill.plan(known)
    await close.end(old[0], State.SKIPPED)
    # as if it had been killed after planning, before that was written down
    await backfill._accept(known.run, await close.store.page(known.run.id, 0))
    assert (await close.box.ledger.ledger.entry(close.box.entry_of(old[0]))).state is State.SKIPPED


async def test_what_close_has_answered_since_it_was_found_is_not_paid_for_again(close):
    close.box.rules(INDUSTRY)
    old = add_old_leads(close.world, 2)
    await close.planned()
    for object_id in old:
        await close.end(object_id, State.SKIPPED)
    order = close.order(since="400d")
    known = await close.gathered(order)
    event, *enrichments = live(close, old[0])
    await close.box.ledger.accept(event, *(structs.replace(one, reopens=True) for one in enrichments))
    await close.end(old[0], State.EMPTY)
    backfill = close.backfill(order)
    await backfill.plan(await backfill.agree(known))
    entries = [await close.box.ledger.ledger.entry(close.box.entry_of(one)) for one in old]
    assert [(one.state, one.event_id) for one in entries] == [
        (State.EMPTY, event.id),
        (State.PLANNED, event_id(known.run.id)),
    ]


async def test_what_redis_did_not_take_is_planned_when_the_backfill_goes_on(close, monkeypatch):
    monkeypatch.setattr("service.accept.MOST_IN_ONE_TRIP", 2)
    monkeypatch.setattr("workers.backfill.MOST_IN_ONE_TRIP", 2)
    close.box.rules(INDUSTRY)
    old = add_old_leads(close.world, 6)
    await close.planned()
    for object_id in old:
        await close.end(object_id, State.SKIPPED)
    order = close.order(since="400d")
    backfill = close.backfill(order)
    known = await backfill.agree(await close.gathered(order))
    send, trips = close.box.ledger.accepter._send, itertools.count()

    async def second_is_lost(batch):
        if next(trips) == 1:
            raise RedisConnectionError
        return await send(batch)

    monkeypatch.setattr(close.box.ledger.accepter, "_send", second_is_lost)
    with pytest.raises(StoreUnavailableError):
        await backfill.plan(known)
    await backfill.plan(await close.store.as_it_is(known))
    states = [(await close.box.ledger.ledger.entry(close.box.entry_of(one))).state for one in old]
    assert states == [State.PLANNED] * 6


# Going on


@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(stops=st.lists(st.integers(0, 6), max_size=6), two_at_once=st.booleans())
async def test_whoever_is_killed_anywhere_goes_on_there(async_redis, stops, two_at_once, monkeypatch):
    monkeypatch.setattr("workers.backfill_query.PAGE_RECORDS", 20)
    await async_redis.flushall()
    async with reconciling(async_redis, rules=INDUSTRY, clock=Clock()) as box:
        close = Close(box, async_redis)
        old = add_old_leads(close.world, 100)
        close.world.configure(replace(close.world.options, search_cap=45))
        for stop in [*stops, None]:
            close.told = Dies(after=stop)
            try:
                if two_at_once:
                    await asyncio.gather(close.planned(), close.planned())
                known = await close.planned()
            except KilledError:
                continue
        assert known.run.stage is Stage.WORKING
        assert known.run.total == RuleTally(searched=100, matched=100, wanted=100)
        assert [one.object_id for one in await close.found(known.run)] == old
        assert len(await box.entries()) == 100
        assert await async_redis.llen(jobs.queue_key(jobs.BULK_QUEUE)) == 100


class KilledError(Exception):
    """As if the process had been killed."""


class Dies(list):
    """Is told of some steps, and then no more."""

    def __init__(self, *, after):
        super().__init__()
        self.left = after

    def append(self, one):
        if self.left == 0:
            raise KilledError
        if self.left is not None:
            self.left -= 1
        super().append(one)


async def test_a_run_that_is_over_is_followed_by_a_new_one(close):
    close.box.rules(INDUSTRY)
    add_old_leads(close.world, 1)
    known = await close.planned()
    await close.store.step(known, replace(known.run, stage=Stage.ENDED), forget=True)
    backfill = close.backfill()
    other = await backfill.take_up(now_ms=close.now_ms, token="fghij")
    assert other.run.id != known.run.id
    assert await close.store.page(known.run.id, 0) == []


async def test_what_nobody_agreed_to_is_forgotten_after_an_hour(close):
    add_old_leads(close.world, 1)
    known = await close.gathered()
    names = [
        keys.backfill(known.run.id),
        keys.backfill_found(known.run.id),
        keys.backfill_of(known.run.order),
    ]
    assert [PRICED_SECONDS - 5 < await close.redis.ttl(name) <= PRICED_SECONDS for name in names] == [
        True
    ] * 3
    await close.backfill().agree(known)
    assert min([await close.redis.ttl(name) for name in names]) > PRICED_SECONDS
    await close.redis.delete(keys.backfill(known.run.id))
    assert await close.store.newest() == []
    assert await close.redis.zcard(keys.BACKFILLS) == 0
    with pytest.raises(RuntimeError, match="no longer in Redis"):
        await close.store.as_it_is(known)


async def test_the_newest_runs_are_remembered(close):
    run = Run(id="", order="", organization_id="", rules=(), fields=(), started_ms=0, searches=())
    for number in range(MOST_RUNS + 2):
        await close.store.begin(replace(run, id=f"r{number}", order=f"o{number}", started_ms=number))
    newest = [known.run.id for known in await close.store.newest()]
    assert newest == [f"r{number}" for number in range(MOST_RUNS + 1, 1, -1)]


async def test_a_step_that_somebody_else_took_is_not_taken_again(close):
    run = Run(id="r", order="o", organization_id="", rules=(), fields=(), started_ms=0, searches=())
    known = await close.store.begin(run)
    page = [Candidate(object_id="lead_1", lead_id="", rule=0)]
    assert await close.store.step(known, run, found=page) is not None
    assert await close.store.step(known, run, found=page) is None
    assert (await close.store.as_it_is(known)).run.pages == 1
    assert await close.store.begin(run) == await close.store.as_it_is(known)


# Watching and cancelling


async def test_a_watch_counts_how_its_enrichments_end(close, monkeypatch):
    monkeypatch.setattr("workers.backfill_watch.MOST_AT_ONCE", 4)
    monkeypatch.setattr("workers.backfill_watch.IN_ONE_TRIP", 3)
    close.box.rules(INDUSTRY)
    old = add_old_leads(close.world, 10)
    known = await close.gathered()
    for lead_id in old[:2]:
        await close.box.ledger.accept(
            *live(close, lead_id),
        )
    backfill = close.backfill()
    known = await backfill.plan(await backfill.agree(known))
    watch = await Watch.of(close.store, known.run, close.redis)
    assert (await watch.look_at_all()).done == 2
    for lead_id, state in zip(
        old[2:], (State.FILLED, State.CONFIRMED, State.EMPTY, State.DEAD), strict=False
    ):
        await close.end(lead_id, state)
    await close.redis.delete(keys.entry(close.box.entry_of(old[6])))
    progress = await watch.look_at_all()
    assert (progress.total, progress.done, progress.over) == (10, 7, False)
    assert (progress.found, progress.empty, progress.elsewhere, progress.lost) == (2, 1, 2, 1)
    assert with_progress(known.run, progress).outcomes == {
        "filled": 1, "confirmed": 1, "empty": 1, "dead": 1
    }  # fmt: skip
    for lead_id in old[7:]:
        await close.end(lead_id, State.FILLED)
    assert (await watch.look_at_all()).over


def live(close, lead_id):
    """A live event and what it plans."""
    event = Event(
        id=f"ev_{lead_id}",
        organization_id=close.world.organization.id,
        object_type="lead",
        object_id=lead_id,
        lead_id=lead_id,
        action="created",
        date_created="2026-10-14T09:30:12.000000",
        date_updated="2026-10-14T09:30:12.000000",
    )
    plan = close.box.knowledge.plan(event, own_api_key_id=None)
    assert isinstance(plan, Plan)
    return event, *plan.enrichments


async def test_why_enrichments_wait_is_told(close):
    close.box.rules(INDUSTRY)
    (old,) = add_old_leads(close.world, 1)
    known = await close.planned()
    await close.redis.hset(
        keys.entry(close.box.entry_of(old)), mapping={"state": "waiting", "reason": "waits for the budget"}
    )
    watch = await Watch.of(close.store, known.run, close.redis)
    assert (await watch.look()).waits == "waits for the budget"


async def test_cancelling_drops_what_nobody_has_begun(close):
    close.box.rules(INDUSTRY)
    old = add_old_leads(close.world, 5)
    known = await close.planned()
    ledger = close.box.ledger.ledger
    await close.end(old[0], State.FILLED)
    entry = await ledger.entry(close.box.entry_of(old[1]))
    assert isinstance(await ledger.begin(entry.job_id, entry.id, holder="worker/1"), Claim)
    await close.redis.hset(keys.entry(close.box.entry_of(old[2])), mapping={"attempts": 1})
    run, dropped = await cancel(close.store, ledger, known)
    assert (run.stage, dropped) == (Stage.CANCELLED, 2)
    states = [(await ledger.entry(close.box.entry_of(one))).state for one in old]
    assert states == [State.FILLED, State.PLANNED, State.PLANNED, State.SKIPPED, State.SKIPPED]
    assert (await ledger.entry(close.box.entry_of(old[4]))).reason == CANCELLED
    again, dropped = await cancel(close.store, ledger, known)
    assert (again.stage, dropped) == (Stage.CANCELLED, 0)


async def test_cancelling_while_it_is_being_planned_leaves_nothing_planned(close):
    close.box.rules(INDUSTRY)
    add_old_leads(close.world, 500)
    backfill = close.backfill()
    known = await backfill.agree(await close.gathered())
    at_work = await close.store.step(known, replace(known.run, planned_pages=1))
    await cancel(close.store, close.box.ledger.ledger, at_work)
    # this one has not heard of it, and plans a page more
    left = await backfill.plan(Known(run=at_work.run, revision=at_work.revision))
    assert left.run.stage is Stage.CANCELLED
    assert {one.value for one, count in (await close.box.ledger.ledger.counts()).items() if count} == {
        "skipped"
    }


async def test_a_backfill_that_has_ended_is_not_cancelled(close):
    known = await close.gathered()
    ended = await close.store.step(known, replace(known.run, stage=Stage.ENDED))
    run, dropped = await cancel(close.store, close.box.ledger.ledger, ended)
    assert (run.stage, dropped) == (Stage.ENDED, 0)
