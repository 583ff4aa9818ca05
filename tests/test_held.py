"""What the burst guard holds is told by rule, and let go once, oldest first, whoever and however many ask."""

from __future__ import annotations

import asyncio

import pytest
from ledger_box import LEAD, LedgerBox, event, wanted

from service import held as held_module
from service import jobs, keys
from service.enrichment import State
from service.held import Held, count_held, held, release
from service.rules import Burst
from service.transitions import Postponement

NOTHING_PASSES = Burst(most=0, within_seconds=60)


@pytest.fixture
def box(async_redis):
    return LedgerBox(async_redis)


@pytest.fixture(params=[2, 500], ids=lambda size: f"pages of {size}")
def _page_size(request, monkeypatch):
    monkeypatch.setattr(held_module, "PAGE", request.param)


async def hold(box, *names, rule="Industry", planned_ms=None, **options):
    """Entries that the burst guard holds, one for each lead; their ids."""
    ids = []
    for name in names:
        item = wanted(object_id=name, rule=rule, **options)
        (one,) = await box.accepter.accept(event(object_id=name), [item], burst=NOTHING_PASSES)
        assert one.result == "held"
        if planned_ms is not None:
            await box.redis.zadd(keys.HELD, {one.enrichment: planned_ms})
        ids.append(one.enrichment)
    return ids


async def still_held(box):
    return [one.decode() for one in await box.redis.zrange(keys.HELD, 0, -1)]


async def test_nothing_is_held_at_first(box):
    assert await held(box.redis) == []
    assert await count_held(box.redis) == 0
    assert await release(box.ledger) == 0


@pytest.mark.usefixtures("_page_size")
async def test_what_is_held_is_told_by_rule_with_its_price_the_longest_held_first(box):
    await hold(box, "lead_1", "lead_2", "lead_3", rule="Pitch", planned_ms=2_000)
    await hold(box, "lead_4", rule="Pitch", planned_ms=3_000)
    await hold(box, "lead_5", rule="Industry", planned_ms=1_000)

    found = await held(box.redis)

    assert found == [
        Held(rule="Industry", count=1, oldest_ms=1_000),
        Held(rule="Pitch", count=4, oldest_ms=2_000),
    ]
    assert [one.credits_at_most for one in found] == [1, 4]
    assert await count_held(box.redis) == 5


@pytest.mark.usefixtures("_page_size")
async def test_what_is_released_waits_in_its_queue_for_a_worker_in_the_order_it_was_planned(box):
    ids = [
        (await hold(box, f"lead_{number}", planned_ms=1_000 + number // 3))[0]
        for number in (4, 0, 3, 6, 1, 2, 5)
    ]
    in_order = await still_held(box)
    assert sorted(in_order) == sorted(ids)
    assert await box.queued() == []

    assert await release(box.ledger) == 7

    entries = [await box.entry(one) for one in in_order]
    assert await box.queued() == [entry.job_id for entry in entries]
    assert {(entry.state, entry.reason) for entry in entries} == {(State.WAITING, "released")}
    assert await still_held(box) == []
    assert (await box.claim(in_order[0])).entry.id == in_order[0]
    assert await box.score(in_order[1]) is not None


@pytest.mark.usefixtures("_page_size")
@pytest.mark.parametrize(
    ("options", "released"),
    [
        ({"limit": 2}, ["a", "b"]),
        ({"limit": 0}, []),
        ({"limit": 99}, ["a", "b", "c", "d", "e"]),
        ({"rule": "Pitch"}, ["b", "c", "e"]),
        ({"rule": "Pitch", "limit": 2}, ["b", "c"]),
        ({"rule": "None such"}, []),
    ],
)
async def test_release_works_in_part(box, options, released):
    rules = {"a": "Industry", "b": "Pitch", "c": "Pitch", "d": "Industry", "e": "Pitch"}
    ids = {}
    for at, (name, rule) in enumerate(rules.items()):
        (ids[name],) = await hold(box, name, rule=rule, planned_ms=1_000 + at)

    assert await release(box.ledger, **options) == len(released)

    assert await still_held(box) == [of_entry for name, of_entry in ids.items() if name not in released]
    assert len(await box.queued()) == len(released)


async def test_the_bulk_queue_gets_what_was_planned_for_it(box):
    (one,) = await box.accepter.accept(event(), [wanted()], bulk=True, burst=NOTHING_PASSES)

    assert await release(box.ledger) == 1

    entry = await box.entry(one.enrichment)
    assert await box.queued(jobs.BULK_QUEUE) == [entry.job_id]


async def test_a_record_that_is_still_to_settle_does_so(box):
    (of_entry,) = await hold(box, LEAD, settle_seconds=600)

    assert await release(box.ledger) == 1

    entry = await box.entry(of_entry)
    waits_seconds = (await box.scheduled())[entry.job_id] - await box.now_ms() / 1000
    assert 590 < waits_seconds < 601


async def test_two_who_release_at_once_let_each_go_once(box):
    ids = await hold(box, *(f"lead_{number}" for number in range(40)))

    released = await asyncio.gather(release(box.ledger), release(box.ledger), release(box.ledger, limit=10))

    assert sum(released) == 40
    queued = await box.queued()
    assert sorted(queued) == sorted([(await box.entry(one)).job_id for one in ids])


async def test_what_another_has_released_and_a_worker_has_begun_is_left_alone(box, monkeypatch):
    (of_entry,) = await hold(box, LEAD)
    pages = held_module._pages
    claims = []

    async def slow_pages(*arguments, **options):
        async for page in pages(*arguments, **options):
            # between seeing that it is held and reading it, it is released and taken in hand
            entry = await box.entry(of_entry)
            await box.ledger.postpone(entry, Postponement(reason="released"), fence=entry.fence)
            claims.append(await box.calling(of_entry))
            yield page

    monkeypatch.setattr(held_module, "_pages", slow_pages)

    assert await release(box.ledger) == 0
    (claim,) = claims
    assert (await box.entry(of_entry)).state is State.CALLING
    assert await box.settle(claim)


async def test_after_a_stop_in_between_the_rest_is_still_held(box, monkeypatch):
    await hold(box, *(f"lead_{number}" for number in range(5)))
    postpone = box.ledger.postpone
    done = []

    async def stopped(*arguments, **options):
        if len(done) == 2:
            raise asyncio.CancelledError
        done.append(await postpone(*arguments, **options))
        return done[-1]

    with monkeypatch.context() as patch:
        patch.setattr(box.ledger, "postpone", stopped)
        with pytest.raises(asyncio.CancelledError):
            await release(box.ledger)

    assert (await count_held(box.redis), len(await box.queued())) == (3, 2)
    assert await release(box.ledger) == 3
    assert (await count_held(box.redis), len(await box.queued())) == (0, 5)


async def test_what_is_held_after_a_release_has_begun_stays(box, monkeypatch):
    await hold(box, "lead_1")
    postpone = box.ledger.postpone

    async def busy(*arguments, **options):
        await hold(box, "lead_late", planned_ms=await box.now_ms() + 1)
        return await postpone(*arguments, **options)

    monkeypatch.setattr(box.ledger, "postpone", busy)

    assert await release(box.ledger) == 1
    assert await count_held(box.redis) == 1


async def test_entries_that_are_gone_are_passed_over(box):
    (gone, there) = await hold(box, "lead_1", "lead_2")
    await box.redis.delete(keys.entry(gone))

    assert [one.count for one in await held(box.redis)] == [1]
    assert await release(box.ledger) == 1
    assert await still_held(box) == [gone]
    assert (await box.entry(there)).reason == "released"
    assert await release(box.ledger) == 0


async def test_only_what_is_released_has_a_job(box):
    (of_entry,) = await hold(box, LEAD)
    before = (await box.entry(of_entry)).job_id
    assert await box.redis.exists(jobs.job_key(before)) == 0

    await release(box.ledger)

    after = (await box.entry(of_entry)).job_id
    assert after != before
    assert await box.redis.exists(jobs.job_key(after)) == 1
