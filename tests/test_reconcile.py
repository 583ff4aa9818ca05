"""Events that were never delivered are found in Close's event log, whatever goes wrong, and planned once."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest
from reconcile_box import RULES, reconciling
from redis.exceptions import ConnectionError as RedisConnectionError
from sandbox_box import START
from waiting import eventually

from service import jobs, keys, knowledge
from service.accept import StoreUnavailableError
from service.enrichment import State
from service.event import parse_log_event
from service.planning import plan
from service.sandbox.faults import FaultRule
from service.sandbox.ids import event_time
from service.tasks import cancel_all
from workers import close_api
from workers.log_report import Findings
from workers.log_walk import FIRST_LOOK_BACK
from workers.patient import TRIES

LEAD_RULE = """
version: 1
defaults: {settle: 0s}
rules:
  - {name: Industry, object: lead, field: Industry}
"""
ON_UPDATED = """
version: 1
defaults: {settle: 0s}
rules:
  - {name: Industry, object: lead, field: Industry, on: [updated(url)], mode: overwrite}
"""
GET_EVENTS = "GET event"


def fault(box, kind, **options) -> None:
    box.box.world.faults.replace([FaultRule(kind=kind, group=GET_EVENTS, **options)])


def no_faults(box) -> None:
    box.box.world.faults.replace([])


async def walk(box, *, leave_seconds=0.0, **changes):
    return await box.reconciler(**changes).catch_up(leave_seconds=leave_seconds)


async def test_events_that_were_never_delivered_are_planned_behind_all_live_work(async_redis):
    async with reconciling(async_redis) as box:
        lead = box.add_lead(contacts=[{"name": "Ines Tarnow"}])
        report = await walk(box)

        assert report.drained
        assert [(str(one.pair), one.findings.planned) for one in report.pairs] == [
            ("lead.created", 1),
            ("contact.created", 1),
        ]
        assert report.total == Findings(events=2, matched=2, missed=2, planned=2)
        assert report.total.credits_at_most == 2
        of_lead, of_contact = box.entry_of(lead["id"]), box.entry_of(lead["contact_ids"][0], "Seniority")
        assert await box.entries() == sorted([of_lead, of_contact])
        assert (await box.ledger.entry(of_lead)).state is State.PLANNED
        assert len(await box.ledger.queued(jobs.BULK_QUEUE)) == 2
        assert await box.ledger.queued(jobs.LIVE_QUEUE) == []
        assert box.logged("events were missed and are planned now") == [
            {"missed": 2, "planned": 2, "held": 0, "events": 2}
        ]


async def test_a_second_walk_changes_nothing(async_redis):
    async with reconciling(async_redis) as box:
        box.add_lead(contacts=[{"name": "Ines Tarnow"}])
        await walk(box)
        before = await box.entries()
        box.log.calls.clear()
        report = await walk(box)

        assert report.total == Findings(events=2, matched=2)
        assert await box.entries() == before
        assert len(await box.ledger.queued(jobs.BULK_QUEUE)) == 2
        assert box.logged("events were missed and are planned now") == []


async def test_what_was_delivered_is_no_miss(async_redis):
    async with reconciling(async_redis, rules=LEAD_RULE) as box:
        box.add_lead()
        (logged,) = box.box.world.journal.newest_first()
        delivered = parse_log_event(json.dumps(logged.event).encode())
        planned = plan(
            delivered,
            bindings=box.knowledge.bindings,
            organization_id=box.knowledge.organization_id,
            own_api_key_id=None,
            schemas=box.knowledge.schemas,
        )
        await box.ledger.accepter.accept(delivered, planned.enrichments)
        missed = box.add_lead()
        report = await walk(box)

        assert report.total == Findings(events=2, matched=2, missed=1, planned=1)
        (of_entry,) = await box.ledger.queued(jobs.BULK_QUEUE)
        assert of_entry.startswith(box.entry_of(missed["id"]))


async def test_looking_again_at_what_is_known_saves_nothing(async_redis):
    async with reconciling(async_redis, rules=LEAD_RULE) as box:
        box.add_lead()
        for _ in range(3):
            await walk(box)

        assert len(await box.ledger.queued(jobs.BULK_QUEUE)) == 1
        # the price list, and in it what was saved, begins with money that a delivery would have cost
        assert [key async for key in async_redis.scan_iter(keys.cost("*"))] == []


async def test_the_mark_is_the_newest_event_once_the_window_is_drained(async_redis):
    async with reconciling(async_redis) as box:
        box.add_lead()
        box.box.advance(40)
        await walk(box)
        assert await box.mark() == event_time(START)

        box.box.advance(86_400)
        box.add_lead()
        report = await walk(box)
        assert report.total.missed == 1
        assert await box.mark() == event_time(START + 86_440)
        # five minutes before the mark, however long ago that is
        assert box.api.asked[2]["date_updated__gte"] == event_time(START - 300)


async def test_the_first_walk_looks_back_a_quarter_of_an_hour_and_the_later_ones_to_the_mark(async_redis):
    async with reconciling(async_redis, rules=LEAD_RULE) as box:
        box.add_lead()
        box.box.advance(FIRST_LOOK_BACK.total_seconds() + 1)
        assert (await walk(box)).total == Findings()

        lead = box.add_lead()
        box.box.advance(3 * 86_400)
        assert (await walk(box)).total == Findings(events=1, matched=1, missed=1, planned=1)
        assert await box.entries() == [box.entry_of(lead["id"])]


async def test_after_more_than_a_month_the_walk_begins_where_the_log_does(async_redis):
    async with reconciling(async_redis, rules=LEAD_RULE) as box:
        await walk(box)
        box.box.advance(50 * 86_400)
        await walk(box)
        assert box.api.asked[-1]["date_updated__gte"] == event_time(START + 20 * 86_400)


async def test_a_mark_that_is_no_moment_counts_as_none(async_redis):
    async with reconciling(async_redis, rules=LEAD_RULE) as box:
        await async_redis.set(keys.log_mark("lead", "created"), "long ago")
        await walk(box)
        assert box.api.asked[0]["date_updated__gte"] == event_time(START - 900)


async def test_young_events_are_left_to_their_deliveries_and_found_by_the_next_walk(async_redis):
    async with reconciling(async_redis, rules=LEAD_RULE) as box:
        box.add_lead()
        box.box.advance(60)
        box.add_lead()
        assert (await walk(box, leave_seconds=30)).total.planned == 1
        box.box.advance(300)
        assert (await walk(box, leave_seconds=30)).total == Findings(events=2, matched=2, missed=1, planned=1)


async def test_a_walk_that_is_broken_off_halfway_loses_nothing_and_plans_nothing_twice(async_redis):
    async with reconciling(async_redis, rules=LEAD_RULE) as box:
        leads = [box.add_lead() for _ in range(120)]
        task = asyncio.create_task(walk(box))
        box.api.meanwhile[2] = task.cancel
        with pytest.raises(asyncio.CancelledError):
            await task

        assert len(await box.entries()) == 50
        assert await box.mark() is None
        report = await walk(box)
        assert report.total == Findings(events=120, matched=120, missed=70, planned=70)
        assert await box.entries() == sorted(box.entry_of(lead["id"]) for lead in leads)
        assert len(await box.ledger.queued(jobs.BULK_QUEUE)) == 120
        assert await box.mark() == event_time(START)


async def test_changes_that_become_one_event_are_planned_anew_only_when_it_has_moved(async_redis):
    async with reconciling(async_redis, rules=ON_UPDATED) as box:
        lead = box.add_lead()
        of_entry = box.entry_of(lead["id"])
        box.change(lead, url="https://one.example")
        assert (await walk(box)).total.planned == 1
        await box.ledger.settle(await box.ledger.calling(of_entry))
        assert (await walk(box)).total == Findings(events=1, matched=1)

        box.box.advance(2)
        box.change(lead, url="https://two.example")
        assert len(box.box.world.journal) == 2
        assert (await walk(box)).total == Findings(events=1, matched=1, missed=1, planned=1)
        assert (await box.ledger.entry(of_entry)).state is State.PLANNED
        assert (await walk(box)).total.missed == 0


async def test_an_earlier_change_adds_nothing_to_a_later_one_of_the_same_field(async_redis):
    async with reconciling(async_redis, rules=ON_UPDATED) as box:
        lead = box.add_lead()
        box.change(lead, url="https://one.example")
        box.box.advance(60)
        for _ in range(60):
            box.change(box.add_lead(), url="https://other.example")
        box.box.advance(60)
        box.change(lead, url="https://two.example")
        of_entry = box.entry_of(lead["id"])

        async def finish() -> None:
            await box.ledger.settle(await box.ledger.calling(of_entry))

        # it has ended by the time that the walk meets the earlier change on the second page
        box.api.meanwhile[2] = finish
        report = await walk(box)
        await walk(box)

        assert report.total == Findings(events=62, matched=62, missed=61, planned=61)
        assert (await box.ledger.entry(of_entry)).state is State.FILLED


async def test_our_own_writes_are_no_events_that_anybody_wants(async_redis):
    rules = ON_UPDATED.replace("updated(url)", "updated(Segment)")
    async with reconciling(async_redis, rules=rules) as box:
        lead = box.add_lead()
        assert (await box.box.enrich(lead["id"], "Segment")).status_code == 200
        assert (await walk(box)).total == Findings(events=1)


async def test_an_event_without_data_is_planned_and_judged_on_a_fresh_read(async_redis):
    """The log leaves `data` out for keys that are no admin's, an hour after."""
    rules = LEAD_RULE.replace("field: Industry", 'field: Industry, when: lead.url != ""')
    async with reconciling(async_redis, rules=rules) as box:
        lead, without = box.add_lead(), box.add_lead()
        world = box.box.world
        events = world.journal._entries
        last = next(reversed(events))
        events[last] = replace(events[last], event={**events[last].event, "data": None})
        assert (await walk(box)).total == Findings(events=2, matched=1, missed=1, planned=1)
        assert await box.entries() == [box.entry_of(without["id"])]
        assert (await box.ledger.entry(box.entry_of(without["id"]))).judged is False
        assert box.entry_of(lead["id"]) not in await box.entries()


async def test_a_dead_cursor_begins_again_below_what_was_met(async_redis):
    async with reconciling(async_redis, rules=LEAD_RULE) as box:
        for _ in range(120):
            box.add_lead()
            box.box.advance(1)
        box.api.meanwhile[2] = lambda: fault(box, "status:400", count=1)
        report = await walk(box)

        assert report.drained
        assert report.total.planned == 120
        assert ["_cursor" in asked for asked in box.api.asked] == [False, True, False, True]
        assert box.api.asked[2]["date_updated__lte"] == event_time(START + 70)


async def test_a_log_that_cannot_be_walked_to_its_end_leaves_the_mark_where_it_was(async_redis):
    async with reconciling(async_redis, rules=LEAD_RULE) as box:
        for _ in range(60):
            box.add_lead()
        box.api.meanwhile = {
            number: (lambda: fault(box, "status:400")) if number % 2 == 0 else lambda: no_faults(box)
            for number in range(1, 20)
        }
        report = await walk(box)
        assert [one.problem for one in report.pairs] == ["Close forgets its cursors too soon"]
        assert await box.mark() is None
        assert box.logged("the event log could not be walked to its end") == [
            {"type": "lead.created", "reason": "Close forgets its cursors too soon"}
        ]
        # what has been met is planned all the same
        assert report.total.planned == 50

        box.api.meanwhile = {}
        no_faults(box)
        assert (await walk(box)).total.missed == 10
        assert await box.mark() is not None


async def test_a_429_is_waited_out_by_all_who_read_and_is_no_failure(async_redis):
    async with reconciling(async_redis, rules=LEAD_RULE) as box:
        box.add_lead()
        fault(box, "status:429", count=TRIES + 1, retry_after_seconds=0)
        report = await walk(box)
        assert report.drained
        assert report.total.planned == 1
        assert len(box.api.asked) == TRIES + 2
        assert box.pauses == []


async def test_while_close_says_429_the_read_group_is_parked(async_redis):
    async with reconciling(async_redis, rules=LEAD_RULE) as box:
        fault(box, "status:429", retry_after_seconds=30)
        task = asyncio.create_task(walk(box))
        await eventually(lambda: async_redis.exists(keys.park("read")))
        assert 25_000 < await async_redis.pttl(keys.park("read")) < 40_000
        await cancel_all([task])
        assert len(box.api.asked) == 1


@pytest.mark.parametrize("kind", ["status:502", "status:503", "drop_before", "html"])
async def test_a_page_that_fails_is_asked_for_again(async_redis, kind):
    async with reconciling(async_redis, rules=LEAD_RULE) as box:
        box.add_lead()
        fault(box, kind, count=TRIES - 1)
        report = await walk(box)
        assert (report.drained, report.total.planned) == (True, 1)
        assert len(box.pauses) == TRIES - 1


async def test_while_close_is_away_nothing_moves_and_everything_is_found_when_it_is_back(async_redis):
    async with reconciling(async_redis) as box:
        lead = box.add_lead(contacts=[{"name": "Ines Tarnow"}])
        fault(box, "drop_before")
        report = await walk(box)
        reason = "The connection to Close ended before its answer was complete"
        assert [one.problem for one in report.pairs] == [reason, reason]
        assert (await box.mark(), await box.mark("contact.created")) == (None, None)
        assert await box.entries() == []

        no_faults(box)
        box.box.advance(600)
        assert (await walk(box)).total.planned == 2
        assert box.entry_of(lead["id"]) in await box.entries()


async def test_one_kind_of_event_that_close_refuses_does_not_hide_the_others(async_redis):
    async with reconciling(async_redis) as box:
        box.add_lead(contacts=[{"name": "Ines Tarnow"}])
        fault(box, "status:403", count=1)
        report = await walk(box)
        assert [(one.problem is None, one.findings.planned) for one in report.pairs] == [
            (False, 0),
            (True, 1),
        ]
        assert await box.mark() is None
        assert await box.mark("contact.created") is not None
        assert box.pauses == []


async def test_pages_too_long_to_be_read_are_asked_for_by_fewer_events(async_redis, monkeypatch):
    monkeypatch.setattr(close_api, "MAX_LOG_PAGE_BYTES", 20_000)
    async with reconciling(async_redis, rules=LEAD_RULE) as box:
        for _ in range(30):
            box.add_lead()
        report = await walk(box)
        assert (report.drained, report.total.planned) == (True, 30)
        assert box.api.asked[0]["_limit"] == "50"
        assert int(box.api.asked[-1]["_limit"]) < 25


async def test_an_event_too_long_to_be_read_is_named_as_the_problem(async_redis, monkeypatch):
    monkeypatch.setattr(close_api, "MAX_LOG_PAGE_BYTES", 50)
    async with reconciling(async_redis, rules=LEAD_RULE) as box:
        box.add_lead()
        report = await walk(box)
        assert [one.problem for one in report.pairs] == ["a single event is too long to be read"]


async def test_more_than_the_burst_guard_allows_is_held_for_a_person(async_redis):
    rules = LEAD_RULE + "\nbudget: {burst: {most: 3, within: 1h}}\n"
    async with reconciling(async_redis, rules=rules) as box:
        for _ in range(10):
            box.add_lead()
        report = await walk(box)
        assert report.total == Findings(events=10, matched=10, missed=10, planned=10, held=7)
        assert await async_redis.zcard(keys.HELD) == 7
        assert len(await box.ledger.queued(jobs.BULK_QUEUE)) == 3


async def test_an_event_that_trips_the_planning_does_not_hide_the_others(async_redis, monkeypatch):
    async with reconciling(async_redis, rules=LEAD_RULE) as box:
        broken, lead = box.add_lead(), box.add_lead()
        real = knowledge.plan

        def tripping(event, **options):
            if event.object_id == broken["id"]:
                raise ZeroDivisionError
            return real(event, **options)

        monkeypatch.setattr(knowledge, "plan", tripping)
        report = await walk(box)
        assert report.total == Findings(events=2, matched=1, missed=1, planned=1, unreadable=1)
        assert await box.entries() == [box.entry_of(lead["id"])]
        (fact,) = box.logged("an event of the log cannot be planned")
        assert fact["event_id"].startswith("ev_")


async def test_what_is_no_event_is_counted_and_the_rest_planned(async_redis):
    async with reconciling(async_redis, rules=LEAD_RULE) as box:
        box.add_lead()
        box.add_lead()
        events = box.box.world.journal._entries
        last = next(reversed(events))
        events[last] = replace(events[last], event={**events[last].event, "request_id": 7, "lead_id": 7})
        report = await walk(box)
        assert report.total == Findings(events=1, matched=1, missed=1, planned=1, unreadable=1)
        assert len(box.logged("an event of the log cannot be read")) == 1


async def test_when_redis_fails_the_walk_ends_and_the_mark_stays(async_redis):
    async with reconciling(async_redis, rules=LEAD_RULE) as box:
        box.add_lead()

        class Away:
            async def accept(self, *_arguments, **_options):
                raise StoreUnavailableError("ConnectionError") from RedisConnectionError()

        with pytest.raises(StoreUnavailableError):
            await walk(box, accepter=Away())
        assert await box.mark() is None
        assert (await walk(box)).total.planned == 1


async def test_looking_back_by_hand_reads_and_moves_no_mark(async_redis):
    async with reconciling(async_redis, rules=LEAD_RULE) as box:
        lead = box.add_lead()
        box.box.advance(7200)
        await walk(box)
        mark = await box.mark()
        report = await box.reconciler().look_back(seconds=86_400, dry_run=False)

        assert report.total.planned == 1
        assert await box.entries() == [box.entry_of(lead["id"])]
        assert await box.mark() == mark
        assert await box.mark("contact.created") is None


async def test_looking_back_by_hand_takes_the_youngest_events_too_and_goes_back_a_month_at_most(async_redis):
    async with reconciling(async_redis, rules=LEAD_RULE) as box:
        box.add_lead()
        report = await box.reconciler().look_back(seconds=1e9, dry_run=False)
        assert report.total.planned == 1
        assert box.api.asked[0]["date_updated__gte"] == event_time(START - 30 * 86_400)


async def _snapshot(redis) -> dict[str, bytes]:
    return {key: await redis.dump(key) for key in sorted(await redis.keys("*")) if b"limiter" not in key}


@pytest.mark.parametrize("rules", [LEAD_RULE, ON_UPDATED, RULES])
async def test_a_dry_run_writes_nothing_and_says_what_the_walk_would_do(async_redis, rules):
    async with reconciling(async_redis, rules=rules) as box:
        leads = [box.add_lead(contacts=[{"name": "Ines Tarnow"}]) for _ in range(6)]
        for number, lead in enumerate(leads):
            box.change(lead, url=f"https://{number}.example")
        box.box.advance(60)
        reconciler = box.reconciler()
        await reconciler.look_back(seconds=3600, dry_run=False)
        states = [State.PLANNED, State.FILLED, State.DEAD, State.CALLING, State.WAITING]
        for lead, state in zip(leads, states, strict=False):
            await _bring_to(box, box.entry_of(lead["id"]), state)
        for number, lead in enumerate(leads):
            box.change(lead, url=f"https://{number}.again.example")
            box.box.advance(10)
            box.change(lead, url=f"https://{number}.third.example")
        box.add_lead(contacts=[{"name": "Ines Tarnow"}])

        before = await _snapshot(async_redis)
        dry = await reconciler.look_back(seconds=3600, dry_run=True)
        assert await _snapshot(async_redis) == before
        real = await reconciler.look_back(seconds=3600, dry_run=False)
        assert dry.total == real.total
        assert real.total.missed > 0


async def _bring_to(box, of_entry: str, state: State) -> None:
    if state is State.PLANNED:
        return
    if state is State.WAITING:
        claim = await box.ledger.calling(of_entry)
        await box.ledger.postpone(claim, ambiguous=True, delay_seconds=5)
        return
    claim = await box.ledger.calling(of_entry)
    if state is not State.CALLING:
        await box.ledger.settle(claim, state)


async def test_no_value_of_a_record_is_logged(async_redis):
    async with reconciling(async_redis) as box:
        box.add_lead(name="Quillfeather Ltd", contacts=[{"name": "Ines Tarnow"}])
        await walk(box)
        text = json.dumps([[call.args, call.kwargs] for call in box.log.calls])
        assert "events were missed" in text
        assert [name for name in ("Quillfeather", "Tarnow") if name in text] == []


async def test_a_walk_during_which_redis_loses_everything_moves_no_mark_and_is_walked_again(
    async_redis, blocking_redis
):
    async with reconciling(async_redis, rules=LEAD_RULE) as box:
        lead = box.add_lead()
        box.api.meanwhile[1] = blocking_redis.flushall
        report = await walk(box)
        assert "lost everything" in report.pairs[0].problem
        assert not report.drained
        assert await box.mark() is None

        assert (await walk(box)).drained
        assert await box.mark() is not None
        assert await box.entries() == [box.entry_of(lead["id"])]
