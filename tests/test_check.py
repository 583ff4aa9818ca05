"""A check on a real Redis: it finds what does not fit together, puts it right, and leaves all else alone."""

from __future__ import annotations

import pytest
from ledger_box import LONG_AGO_MS, LedgerBox, event, wanted
from rq.registry import ScheduledJobRegistry

from service import check as check_module
from service import check_jobs, jobs, keys
from service.check import check
from service.dead_letters import DeadLetters
from service.enrichment import ENTRY_VERSION, FINAL_STATES, State
from service.findings import Kind
from service.rules import Burst
from service.transitions import Postponement

READ_BACK_SECONDS = 5.0
OUR_JOB = "a" * 20 + "-" + "0" * 10


@pytest.fixture
def box(async_redis):
    return LedgerBox(async_redis)


async def look(box, *, repair=False):
    """What a check finds and repairs, by kind."""
    report = await check(box.ledger, repair=repair, read_back_seconds=READ_BACK_SECONDS)
    return dict(report.found), {kind: count for kind, count in report.repaired.items() if count}


async def mended(box, kind, count=1):
    """A check finds it, a second one still does, a repair mends it, and then all is well."""
    assert await look(box) == ({kind: count}, {})
    assert await look(box, repair=True) == ({kind: count}, {kind: count})
    assert await look(box) == ({}, {})


async def lose_the_job(box, entry):
    await box.redis.delete(jobs.job_key(entry.job_id))
    for queue in jobs.QUEUES:
        await box.redis.zrem(jobs.scheduled_key(queue), entry.job_id)
        await box.redis.lrem(jobs.queue_key(queue), 0, entry.job_id)


async def start(box, entry):
    """As RQ's bookkeeping does when a worker starts a job."""
    await box.redis.lrem(jobs.queue_key(entry.queue), 0, entry.job_id)
    await box.redis.zadd(check_jobs.executions_key(entry.job_id), {"x": 1})
    await box.redis.zadd(jobs.started_key(entry.queue), {f"{entry.job_id}:x": 9e9})


# Nothing to find


async def test_an_empty_redis_is_clean(box):
    assert await look(box) == ({}, {})


async def test_every_way_in_which_all_is_well_is_clean(box, monkeypatch):
    monkeypatch.setattr(check_module, "PAGE", 3)
    monkeypatch.setattr(check_jobs, "PAGE", 3)
    for number in range(10):
        await box.plan(object_id=f"queued_{number}")
        await box.plan(object_id=f"scheduled_{number}", settle_seconds=60)
    for state in FINAL_STATES:
        entry = await box.plan(object_id=f"ended_{state}")
        await start(box, entry)
        claim = await box.calling(entry.id)
        await box.redis.delete(jobs.started_key(entry.queue))
        await box.settle(claim, state)
    in_hand = await box.plan(object_id="in_hand")
    await start(box, in_hand)
    await box.calling(in_hand.id)
    await start(box, await box.plan(object_id="started"))
    popped = await box.plan(object_id="popped")
    await box.redis.lrem(jobs.queue_key(popped.queue), 0, popped.job_id)
    await box.redis.rpush(jobs.intermediate_key(popped.queue), popped.job_id)
    await box.accepter.accept(
        event(object_id="lead_held"),
        [wanted(object_id="lead_held")],
        burst=Burst(most=0, within_seconds=60),
    )
    dropped = await box.plan(object_id="dropped")
    await start(box, dropped)
    claim = await box.calling(dropped.id)
    await box.redis.delete(jobs.started_key(dropped.queue))
    await box.settle(claim, State.DEAD)
    await DeadLetters(box.ledger).drop([await box.entry(dropped.id)])
    report = await check(box.ledger)
    assert (report.found, report.left) == ({}, 0)
    assert report.entries == 20 + len(FINAL_STATES) + 5
    assert report.jobs == 21


async def test_entries_that_have_expired_are_no_finding(box):
    entry = await box.finished(State.FILLED)
    await box.redis.delete(keys.entry(entry.id))
    assert await look(box) == ({}, {})


async def test_an_entry_of_a_newer_release_is_left_alone(box):
    entry = await box.plan()
    await lose_the_job(box, entry)
    await box.redis.hset(keys.entry(entry.id), "v", ENTRY_VERSION + 1)
    assert await look(box, repair=True) == ({}, {})


# Entries


async def test_an_entry_without_its_job_gets_another(box):
    entry = await box.plan()
    await lose_the_job(box, entry)
    await mended(box, Kind.NO_JOB)
    after = await box.entry(entry.id)
    assert after.job_id != entry.job_id
    assert await box.queued() == [after.job_id]


async def test_a_job_that_is_in_no_queue_is_as_good_as_none(box):
    entry = await box.plan()
    await box.redis.lrem(jobs.queue_key(entry.queue), 0, entry.job_id)
    await mended(box, Kind.NO_JOB)


async def test_a_record_that_is_still_to_settle_does_so_with_its_new_job(box):
    entry = await box.plan(settle_seconds=3600)
    await lose_the_job(box, entry)
    await mended(box, Kind.NO_JOB)
    (due_seconds,) = (await box.scheduled()).values()
    assert abs(due_seconds * 1000 - entry.due_ms) < 5000


@pytest.mark.parametrize("called", [False, True])
async def test_what_a_silent_worker_had_in_hand_is_put_back(box, called):
    entry = await box.plan()
    await (box.calling if called else box.claim)(entry.id)
    await lose_the_job(box, entry)
    await box.let_lease_run_out(entry.id)
    await mended(box, Kind.WORKER_LOST)
    after = await box.entry(entry.id)
    assert (after.state, after.ambiguous, after.holder) == (State.WAITING, called, "")
    assert len(await box.scheduled()) == called, "after a call the field is read back a little later"


@pytest.mark.parametrize("settle_seconds", [0, 3600])
async def test_an_entry_that_nobody_would_miss_is_watched_again(box, settle_seconds):
    entry = await box.plan(settle_seconds=settle_seconds)
    await lose_the_job(box, entry)
    await box.redis.zrem(keys.ACTIVE, entry.id)
    await mended(box, Kind.UNWATCHED)
    assert await box.score(entry.id) is not None


@pytest.mark.parametrize("index", [keys.ACTIVE, keys.HELD, keys.ATTENTION])
async def test_an_answered_entry_leaves_every_index(box, index):
    entry = await box.finished(State.FILLED)
    await box.redis.zadd(index, {entry.id: LONG_AGO_MS})
    await mended(box, Kind.MISINDEXED)
    assert await box.redis.zscore(index, entry.id) is None


async def test_a_dead_letter_that_is_not_listed_is_listed(box):
    entry = await box.finished(State.DEAD)
    await box.redis.delete(keys.ATTENTION)
    await mended(box, Kind.MISINDEXED)
    assert await box.redis.zscore(keys.ATTENTION, entry.id) == entry.ended_ms


async def test_an_unfinished_entry_leaves_the_list_of_dead_letters(box):
    entry = await box.plan()
    await box.redis.zadd(keys.ATTENTION, {entry.id: entry.planned_ms})
    await mended(box, Kind.MISINDEXED)
    assert await box.queued() == [entry.job_id]


@pytest.mark.parametrize("index", [keys.ACTIVE, keys.HELD, keys.ATTENTION])
async def test_an_id_without_an_entry_leaves_its_index(box, index):
    await box.redis.zadd(index, {"a" * 20: await box.now_ms()})
    await mended(box, Kind.ORPHAN)
    assert await box.redis.zcard(index) == 0


async def test_an_entry_that_cannot_be_read_is_for_a_person(box):
    entry = await box.plan()
    await box.redis.hset(keys.entry(entry.id), "state", "sleeping")
    found, repaired = await look(box, repair=True)
    assert found == {Kind.UNREADABLE: 1, Kind.COUNT: 1}
    assert repaired == {Kind.COUNT: 1}


async def test_an_entry_with_a_broken_number_in_it_is_not_repaired(box):
    entry = await box.plan()
    await lose_the_job(box, entry)
    await box.redis.hset(keys.entry(entry.id), "attempts", "some")
    assert await look(box, repair=True) == ({Kind.NO_JOB: 1}, {})


# Jobs


@pytest.mark.parametrize("place", ["queue", "intermediate", "scheduled"])
@pytest.mark.parametrize("queue", jobs.QUEUES)
async def test_a_job_without_an_entry_is_removed(box, place, queue):
    await box.redis.hset(jobs.job_key(OUR_JOB), "data", "x")
    if place == "scheduled":
        await box.redis.zadd(jobs.scheduled_key(queue), {OUR_JOB: 1})
    else:
        key = jobs.queue_key(queue) if place == "queue" else jobs.intermediate_key(queue)
        await box.redis.rpush(key, OUR_JOB)
    await mended(box, Kind.JOB_WITHOUT_ENTRY)
    assert await box.redis.keys("rq:*") == []


async def test_a_job_that_another_one_has_replaced_is_removed(box):
    entry = await box.plan()
    await box.ledger.postpone(entry, Postponement(reason="because"), fence=0)
    await mended(box, Kind.JOB_STALE)
    assert await box.queued() == [(await box.entry(entry.id)).job_id]


async def test_the_job_of_an_ended_entry_is_removed(box):
    entry = await box.plan(settle_seconds=60)
    await box.settle(await box.claim(entry.id), State.SKIPPED)
    await mended(box, Kind.JOB_STALE)
    assert await box.redis.zcard(ScheduledJobRegistry(entry.queue, connection=box.redis).key) == 0


async def test_a_job_that_is_not_ours_is_said_and_left(box):
    await box.redis.rpush(jobs.queue_key(jobs.LIVE_QUEUE), "6b1b2c9e-3c5b-4c0e")
    assert await look(box, repair=True) == ({Kind.JOB_FOREIGN: 1}, {})
    assert await box.queued() == ["6b1b2c9e-3c5b-4c0e"]


async def test_what_a_silent_worker_was_running_is_buried(box):
    entry = await box.plan()
    await start(box, entry)
    await box.claim(entry.id)
    await box.redis.zadd(jobs.started_key(entry.queue), {f"{entry.job_id}:x": 1})
    await mended(box, Kind.JOB_ABANDONED)
    assert await box.redis.keys("rq:*job*") == []


# Counts


@pytest.mark.parametrize(
    ("state", "by"), [(State.PLANNED, 1), (State.PLANNED, -1), (State.WAITING, 5), (State.FILLED, -1)]
)
async def test_a_count_that_is_wrong_is_corrected(box, state, by):
    await box.finished(State.FILLED)
    await box.plan(object_id="lead_2")
    right = await box.counts()
    await box.redis.hincrby(keys.COUNTS, state, by)
    await mended(box, Kind.COUNT)
    assert await box.counts() == right


async def test_a_count_is_not_believed_to_be_wrong_while_work_goes_on(box, monkeypatch):
    await box.plan()
    await box.redis.hincrby(keys.COUNTS, State.PLANNED, 2)
    changes = iter([0, 1])

    async def busy(_):
        return next(changes)

    monkeypatch.setattr(check_module._Check, "_changes", busy)
    assert await look(box) == ({}, {})


# Beside others


async def test_what_has_moved_since_the_first_look_is_no_finding(box, monkeypatch):
    entry = await box.plan()
    places = check_jobs.job_places

    async def then_it_moves(redis):
        found = await places(redis)
        await box.ledger.postpone(entry, Postponement(reason="because"), fence=0)
        await box.redis.lrem(jobs.queue_key(entry.queue), 0, entry.job_id)
        return found

    monkeypatch.setattr(check_module, "job_places", then_it_moves)
    assert await look(box, repair=True) == ({}, {})


async def test_an_entry_that_a_worker_takes_before_it_is_repaired_stays_in_its_hands(box, monkeypatch):
    entry = await box.plan()
    await lose_the_job(box, entry)
    read = box.ledger.entry

    async def then_it_is_taken(of_entry):
        found = await read(of_entry)
        await box.ledger.begin(entry.job_id, of_entry, holder="w/1")
        return found

    monkeypatch.setattr(box.ledger, "entry", then_it_is_taken)
    report = await check(box.ledger, repair=True)
    assert (report.found, report.left) == ({Kind.NO_JOB: 1}, 0)
    assert (await read(entry.id)).holder == "w/1"


async def test_an_entry_that_ends_before_it_is_repaired_is_left_alone(box, monkeypatch):
    entry = await box.plan()
    claim = await box.claim(entry.id)
    await lose_the_job(box, entry)
    await box.let_lease_run_out(entry.id)
    read = box.ledger.entry

    async def but_it_has_ended(of_entry):
        await box.settle(claim, State.FILLED)
        return await read(of_entry)

    monkeypatch.setattr(box.ledger, "entry", but_it_has_ended)
    report = await check(box.ledger, repair=True)
    assert (report.found, report.left) == ({Kind.WORKER_LOST: 1}, 0)
    assert (await read(entry.id)).state is State.FILLED
