"""Housekeeping on a real Redis: due jobs move on in order, and whatever a dead worker left is put back."""

from __future__ import annotations

import asyncio

import pytest
import redis
import structlog
from ledger_box import LONG_AGO_MS, LedgerBox
from rq.executions import Execution
from rq.job import JobStatus
from rq.registry import FailedJobRegistry, StartedJobRegistry
from rq.serializers import JSONSerializer
from rq.worker import BaseWorker
from waiting import eventually

from service import jobs, keys
from service.accept import GRACE_MS
from service.enrichment import ENTRY_VERSION, State
from service.jobs import EnrichmentJob, rq_queue
from service.ledger import LEASE_MS, NotClaimed
from service.rules import Priority
from service.tasks import cancel_all
from workers.bookkeeping import Bookkeeper
from workers.conclusion import READ_BACK_DELAY_SECONDS
from workers.housekeeping import LEASE_SECONDS, STUCK_SECONDS, SWEEP_EVERY_SECONDS, Housekeeper
from workers.overdue import WALK_EVERY_SECONDS


class Clock:
    """Stands still until it is moved."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def box(async_redis):
    return LedgerBox(async_redis)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def log():
    return structlog.testing.CapturingLogger()


@pytest.fixture
def keeper(box, clock, log):
    return Housekeeper(box.ledger, worker="w", clock=clock, log=log)


@pytest.fixture
def other(box, clock, log):
    return Housekeeper(box.ledger, worker="other", clock=clock, log=log)


@pytest.fixture
def books(blocking_redis):
    worker = BaseWorker(
        list(jobs.QUEUES),
        name="w",
        connection=blocking_redis,
        serializer=JSONSerializer,
        job_class=EnrichmentJob,
        prepare_for_work=True,
    )
    worker.register_birth()
    return Bookkeeper(worker, blocking_redis)


async def due_in_ms(box, of_entry):
    return await box.score(of_entry) - await box.now_ms()


async def make_due(box, entry, *, at_seconds=1.0):
    await box.redis.zadd(jobs.scheduled_key(entry.queue), {entry.job_id: at_seconds}, xx=True)


# Due jobs


async def test_due_jobs_move_into_their_queues_in_the_order_of_their_times(box, keeper):
    a, b, c = [await box.plan(field_id=f"cf_{one}", settle_seconds=60) for one in "abc"]
    bulk = await box.plan(field_id="cf_bulk", settle_seconds=60, priority=Priority.LOW)
    await make_due(box, b, at_seconds=1.25)
    await make_due(box, a, at_seconds=1.5)
    await make_due(box, bulk)
    await keeper.tick()
    assert await box.queued() == [b.job_id, a.job_id]
    assert await box.queued(jobs.BULK_QUEUE) == [bulk.job_id]
    assert list(await box.scheduled()) == [c.job_id]


async def test_high_priority_is_kept_when_it_is_due(box, keeper):
    a = await box.plan(field_id="cf_a")
    b = await box.plan(field_id="cf_b", settle_seconds=60, priority=Priority.HIGH)
    await make_due(box, b)
    await keeper.tick()
    assert await box.queued() == [b.job_id, a.job_id]


async def test_two_housekeepers_at_once_move_each_job_once(box, keeper, other):
    entries = [await box.plan(field_id=f"cf_{n}", settle_seconds=60) for n in range(20)]
    for entry in entries:
        await make_due(box, entry)
    await asyncio.gather(keeper.tick(), other.tick())
    assert sorted(await box.queued()) == sorted(entry.job_id for entry in entries)


# The lease


async def test_one_housekeeper_at_a_time_has_the_lease(box, keeper, other):
    assert await keeper._lease.take()
    assert await keeper._lease.take()
    assert not await other._lease.take()
    assert 0 < await box.redis.ttl(keys.housekeeper(ENTRY_VERSION)) <= LEASE_SECONDS
    await box.redis.delete(keys.housekeeper(ENTRY_VERSION))
    assert await other._lease.take()
    assert not await keeper._lease.take()


async def test_it_goes_on_whatever_goes_wrong(box, keeper, log, monkeypatch):
    monkeypatch.setattr("workers.housekeeping.TICK_SECONDS", 0.001)
    entry = await box.plan(settle_seconds=60)
    await make_due(box, entry)
    real, troubles = keeper.tick, [redis.ConnectionError(), ZeroDivisionError()]

    async def troubled():
        if troubles:
            raise troubles.pop()
        await real()

    monkeypatch.setattr(keeper, "tick", troubled)
    running = asyncio.create_task(keeper.run())
    assert await eventually(box.queued) == [entry.job_id]
    await cancel_all([running])
    events = [call.kwargs.get("event") or call.args[0] for call in log.calls]
    assert events == ["housekeeping went wrong and goes on", "housekeeping waits for Redis"]


# Jobs that were popped and never started


async def popped(box, queue=jobs.LIVE_QUEUE):
    """As a worker leaves it that dies right after its pop."""
    await box.redis.lmove(jobs.queue_key(queue), jobs.intermediate_key(queue))


@pytest.mark.parametrize(("priority", "queue"), [(Priority.NORMAL, "enrich"), (Priority.LOW, "enrich-bulk")])
async def test_a_job_that_was_never_started_is_put_back_first_in_its_queue(
    box, keeper, clock, priority, queue
):
    lost = await box.plan(field_id="cf_a", priority=priority)
    waiting = await box.plan(field_id="cf_b", priority=priority)
    await popped(box, queue)
    for _ in range(3):
        assert await box.queued(queue) == [waiting.job_id]
        await keeper.tick()
        clock.now += SWEEP_EVERY_SECONDS
    clock.now += STUCK_SECONDS
    await keeper.tick()
    assert await box.queued(queue) == [lost.job_id, waiting.job_id]
    assert await box.redis.llen(jobs.intermediate_key(queue)) == 0


async def test_a_job_that_passes_through_again_is_given_its_time_again(box, keeper, clock):
    entry = await box.plan()
    await popped(box)
    await keeper.tick()
    clock.now += STUCK_SECONDS + SWEEP_EVERY_SECONDS
    await keeper.tick()
    assert await box.queued() == [entry.job_id]
    await popped(box)
    clock.now += SWEEP_EVERY_SECONDS
    await keeper.tick()
    assert await box.queued() == []


async def test_a_job_that_left_in_time_is_forgotten(box, keeper, clock):
    await box.plan()
    await popped(box)
    await keeper.tick()
    await box.redis.delete(jobs.intermediate_key(jobs.LIVE_QUEUE))
    clock.now += SWEEP_EVERY_SECONDS
    await keeper.tick()
    assert keeper._first_seen == {}


async def test_two_housekeepers_at_once_put_a_job_back_once(box, keeper, other, clock):
    entry = await box.plan()
    await popped(box)
    await asyncio.gather(keeper.tick(), other.tick())
    clock.now += STUCK_SECONDS + SWEEP_EVERY_SECONDS
    await asyncio.gather(keeper.tick(), other.tick())
    assert await box.queued() == [entry.job_id]


# Entries whose worker is gone


async def test_an_entry_whose_worker_vanished_before_the_call_runs_again_at_once(box, keeper):
    claim = await box.claim((await box.plan()).id)
    await box.let_lease_run_out(claim.entry.id)
    assert await keeper.sweep() == 1
    entry = await box.entry(claim.entry.id)
    assert (entry.state, entry.holder, entry.ambiguous) == (State.WAITING, "", False)
    assert entry.reason == "its worker was lost"
    assert (await box.queued())[-1] == entry.job_id
    assert not await box.settle(claim)


async def test_an_entry_that_waited_and_whose_worker_vanished_runs_again_at_once(box, keeper):
    entry = await box.plan()
    await box.postpone(await box.calling(entry.id), ambiguous=True)
    await box.claim(entry.id)
    await box.let_lease_run_out(entry.id)
    assert await keeper.sweep() == 1
    entry = await box.entry(entry.id)
    assert (entry.state, entry.ambiguous) == (State.WAITING, True)
    assert (await box.queued())[-1] == entry.job_id


async def test_after_a_call_that_was_lost_with_its_worker_the_field_is_read_back_first(box, keeper):
    claim = await box.calling((await box.plan()).id)
    await box.let_lease_run_out(claim.entry.id)
    assert await keeper.sweep() == 1
    entry = await box.entry(claim.entry.id)
    assert (entry.state, entry.ambiguous, entry.calls, entry.attempts) == (State.WAITING, True, 1, 1)
    assert entry.reason == "its worker was lost during the call"
    assert entry.due_ms - entry.changed_ms == READ_BACK_DELAY_SECONDS * 1000
    assert list(await box.scheduled()) == [entry.job_id]


async def test_an_entry_in_live_hands_is_left_alone(box, keeper):
    claim = await box.calling((await box.plan()).id)
    assert await keeper.sweep() == 0
    assert await box.settle(claim)
    assert await keeper.sweep() == 0
    assert (await box.entry(claim.entry.id)).state is State.FILLED


@pytest.mark.parametrize("where", ["queued", "scheduled", "popped"])
async def test_an_entry_with_a_job_is_left_alone_for_a_while(box, keeper, where):
    entry = await box.plan(settle_seconds=60 if where == "scheduled" else 0)
    if where == "popped":
        await popped(box)
    await box.let_lease_run_out(entry.id)
    assert await keeper.sweep() == 0
    assert (await box.entry(entry.id)) == entry
    assert GRACE_MS - 5_000 < await due_in_ms(box, entry.id) <= GRACE_MS


@pytest.mark.parametrize("lost", ["the id in the queue", "the hash", "both", "the id in the schedule"])
async def test_an_entry_whose_job_vanished_gets_a_new_one(box, keeper, lost):
    entry = await box.plan(settle_seconds=60 if "schedule" in lost else 0)
    if lost != "the hash":
        await box.redis.delete(jobs.queue_key(entry.queue), jobs.scheduled_key(entry.queue))
    if lost in {"the hash", "both"}:
        await box.redis.delete(jobs.job_key(entry.job_id))
    await box.let_lease_run_out(entry.id)
    assert await keeper.sweep() == 1
    rescued = await box.entry(entry.id)
    assert rescued.job_id != entry.job_id
    assert (await box.queued())[-1] == rescued.job_id
    assert await box.ledger.begin(entry.job_id, entry.id, holder="late") == NotClaimed("stale")
    assert await box.claim(entry.id)


async def test_an_entry_whose_worker_died_between_start_and_claim_is_rescued(box, keeper, books):
    entry = await box.plan()
    books.take(1, wait=False)
    assert await keeper.sweep() == 0
    assert await due_in_ms(box, entry.id) <= LEASE_MS
    await box.let_lease_run_out(entry.id)
    assert await keeper.sweep() == 1
    assert await box.queued() == [(await box.entry(entry.id)).job_id]


async def test_two_sweepers_at_once_put_an_entry_back_once(box, keeper, other):
    entries = [await box.plan(field_id=f"cf_{n}") for n in range(10)]
    fences = []
    for entry in entries:
        fences.append((await box.calling(entry.id)).fence)
        await box.let_lease_run_out(entry.id)
    rescued = await asyncio.gather(keeper.sweep(), other.sweep())
    assert sum(rescued) == 10
    assert len(await box.scheduled()) == 10
    assert [(await box.entry(entry.id)).fence - 1 for entry in entries] == fences
    assert await keeper.sweep() == 0


async def test_what_this_release_cannot_read_is_left_to_others_and_stops_nobody(box, keeper):
    newer, strange, gone, lost = [await box.plan(field_id=f"cf_{n}") for n in range(4)]
    await box.redis.hset(keys.entry(newer.id), "v", ENTRY_VERSION + 1)
    await box.redis.hset(keys.entry(strange.id), "state", "unheard-of")
    await box.redis.delete(keys.entry(gone.id))
    await box.redis.delete(jobs.queue_key(jobs.LIVE_QUEUE))
    for entry in (newer, strange, gone, lost):
        await box.let_lease_run_out(entry.id)
    assert await keeper.sweep() == 1
    assert await box.queued() == [(await box.entry(lost.id)).job_id]
    for entry in (strange, gone):
        assert await due_in_ms(box, entry.id) > GRACE_MS - 5_000, "it does not stand in others' way"
    assert await due_in_ms(box, newer.id) < 0, "its own housekeeper finds it overdue"
    assert await box.redis.hget(keys.entry(newer.id), "job") == newer.job_id.encode()


async def test_however_much_a_newer_release_has_overdue_what_is_ours_is_put_back(box, keeper, monkeypatch):
    monkeypatch.setattr("workers.housekeeping.MOST_AT_ONCE", 2)
    theirs, ours = [
        [(await box.claim((await box.plan(field_id=f"{who}_{n}")).id)).entry.id for n in range(5)]
        for who in ("cf_theirs", "cf_ours")
    ]
    for one in theirs:
        await box.redis.hset(keys.entry(one), "v", ENTRY_VERSION + 1)
        await box.redis.zadd(keys.ACTIVE, {one: LONG_AGO_MS - 1})
    for one in ours:
        await box.let_lease_run_out(one)
    assert sum([await keeper.sweep() for _ in ours]) == len(ours)
    for one in theirs:
        assert await box.score(one) == LONG_AGO_MS - 1


async def test_what_waits_in_a_newer_releases_queue_is_looked_at_seldom(box, keeper):
    entry = await box.plan()
    await box.redis.hset(keys.entry(entry.id), "v", ENTRY_VERSION + 1)
    await box.let_lease_run_out(entry.id)
    assert await keeper.sweep() == 0
    assert await due_in_ms(box, entry.id) > GRACE_MS - 5_000


async def test_two_releases_side_by_side_have_a_housekeeper_each(box, keeper, other, monkeypatch):
    monkeypatch.setattr("workers.housekeeping.ENTRY_VERSION", ENTRY_VERSION + 1)
    newer = Housekeeper(
        box.ledger, worker="newer", clock=lambda: 0.0, log=structlog.testing.CapturingLogger()
    )
    assert await keeper._lease.take()
    assert await newer._lease.take()
    assert not await other._lease.take()


# Long lines


@pytest.fixture
def long_lines(monkeypatch):
    """A line of more than 6 jobs is a long one."""
    monkeypatch.setattr("workers.overdue.PAGE", 2)
    monkeypatch.setattr("workers.overdue.WALK_AT_ONCE", 6)


async def line_of(box, count):
    return [await box.plan(object_id=f"lead_{n}", priority=Priority.LOW) for n in range(count)]


async def all_overdue(box):
    ids = await box.redis.zrange(keys.ACTIVE, 0, -1)
    await box.redis.zadd(keys.ACTIVE, dict.fromkeys(ids, LONG_AGO_MS))


async def overdue(box):
    return await box.redis.zcount(keys.ACTIVE, "-inf", await box.now_ms())


async def calls(box):
    """How often Redis has run each command, without what the test itself asks."""
    stats = await box.redis.info("commandstats")
    return {name.removeprefix("cmdstat_"): one["calls"] for name, one in stats.items()}


@pytest.mark.usefixtures("long_lines")
async def test_in_a_long_line_all_is_well_after_as_many_passes_as_it_needs(box, keeper):
    entries = await line_of(box, 20)
    await all_overdue(box)
    left = []
    while not left or left[-1]:
        assert await keeper.sweep() == 0
        left.append(await overdue(box))
    assert left == [14, 8, 2, 0]
    assert await box.queued(jobs.BULK_QUEUE) == [entry.job_id for entry in entries]
    assert GRACE_MS - 5_000 < await due_in_ms(box, entries[0].id) <= GRACE_MS


@pytest.mark.usefixtures("long_lines")
@pytest.mark.parametrize("place", [0, 7, 19])
async def test_a_lost_job_in_a_long_line_is_found_at_the_end_of_the_walk(box, keeper, place):
    entries = await line_of(box, 20)
    lost = entries[place]
    await box.redis.lrem(jobs.queue_key(lost.queue), 1, lost.job_id)
    await all_overdue(box)
    assert [await keeper.sweep() for _ in range(4)] == [0, 0, 0, 1]
    assert (await box.queued(jobs.BULK_QUEUE))[-1] == (await box.entry(lost.id)).job_id != lost.job_id
    assert await overdue(box) == 0


@pytest.mark.usefixtures("long_lines")
async def test_what_becomes_overdue_during_a_walk_is_judged_by_the_next_one(box, keeper):
    entries = await line_of(box, 20)
    await keeper.sweep()
    lost = entries[19]
    await box.redis.lrem(jobs.queue_key(lost.queue), 1, lost.job_id)
    await box.let_lease_run_out(lost.id)
    rescued = [await keeper.sweep() for _ in range(8)]
    assert (rescued.index(1), sum(rescued)) == (6, 1)


@pytest.mark.usefixtures("long_lines")
async def test_however_much_of_a_line_is_lost_all_of_it_is_planned_again(box, keeper, monkeypatch):
    monkeypatch.setattr("workers.housekeeping.MOST_AT_ONCE", 3)
    entries = await line_of(box, 20)
    for entry in entries[::2]:
        await box.redis.lrem(jobs.queue_key(entry.queue), 1, entry.job_id)
    await all_overdue(box)
    rescued = [await keeper.sweep() for _ in range(8)]
    assert (sum(rescued), max(rescued)) == (10, 4)
    assert len(set(await box.queued(jobs.BULK_QUEUE))) == 20


@pytest.mark.usefixtures("long_lines")
@pytest.mark.parametrize("lost", ["the hash", "the holder"])
async def test_what_needs_no_walk_is_put_back_at_once_behind_however_long_a_line(box, keeper, lost):
    in_line = await line_of(box, 20)
    await all_overdue(box)
    entry = await box.plan()
    if lost == "the hash":
        await box.redis.delete(jobs.job_key(entry.job_id))
    else:
        await box.claim(entry.id)
    await box.redis.zadd(keys.ACTIVE, {entry.id: LONG_AGO_MS + 1})
    assert await keeper.sweep() == 1
    assert (await box.entry(entry.id)).job_id != entry.job_id
    assert await overdue(box) >= len(in_line) - 6


@pytest.mark.usefixtures("long_lines")
async def test_a_walk_meets_every_job_although_others_are_taken_and_added(box, keeper, books):
    entries = await line_of(box, 20)
    await all_overdue(box)
    for n in range(4):
        assert await keeper.sweep() == 0
        books.take(2, wait=False)
        await box.plan(object_id=f"added_{n}", priority=Priority.LOW)
        await box.plan(object_id=f"first_{n}", priority=Priority.HIGH)
    for _ in range(4):
        assert await keeper.sweep() == 0
    assert [await box.entry(entry.id) for entry in entries] == entries


@pytest.mark.usefixtures("long_lines")
async def test_a_job_that_is_moved_into_the_line_during_a_walk_is_not_taken_for_lost(box, keeper):
    await line_of(box, 20)
    late = await box.plan(object_id="late", settle_seconds=60, priority=Priority.LOW)
    await all_overdue(box)
    await keeper.sweep()
    await make_due(box, late)
    await keeper._promote_due(late.queue)
    assert [await keeper.sweep() for _ in range(8)] == [0] * 8
    assert await box.entry(late.id) == late


async def test_a_walk_leaves_the_leases_of_what_is_in_hand_alone(box, keeper):
    entry = await box.plan()
    claim = await box.claim(entry.id)
    before = await box.score(entry.id)
    assert await box.queued() == [entry.job_id], "handed out twice, as after a failover"
    await keeper.sweep()
    assert await box.score(entry.id) == before
    assert await box.settle(claim)


async def test_nobody_misses_a_job_before_its_turn_can_have_come(box, keeper, monkeypatch):
    monkeypatch.setattr("workers.overdue.PAGE", 1)
    monkeypatch.setattr("workers.overdue.LEAST_MS_A_JOB", 60_000)
    entries = await line_of(box, 4)
    await all_overdue(box)
    await keeper.sweep()
    for before, entry in enumerate(entries):
        assert -5_000 < await due_in_ms(box, entry.id) - GRACE_MS - before * 60_000 <= 0
    waits_until_ms = await box.score(entries[3].id)
    await box.redis.lrem(jobs.queue_key(jobs.BULK_QUEUE), 1, entries[3].job_id)
    assert await keeper.sweep() == 0
    assert await box.score(entries[3].id) == waits_until_ms
    await box.let_lease_run_out(entries[3].id)
    assert await keeper.sweep() == 1


async def test_a_line_is_walked_before_its_entries_are_overdue(box, keeper, clock):
    entry = await box.plan()
    await keeper.sweep()
    soon, later = [await box.now_ms() + ms for ms in (GRACE_MS / 2, GRACE_MS * 0.9)]
    other = await box.plan(field_id="cf_other")
    await box.redis.zadd(keys.ACTIVE, {entry.id: soon, other.id: later})
    await keeper.sweep()
    assert await box.score(entry.id) == soon, "it was walked a moment ago"
    clock.now += WALK_EVERY_SECONDS
    await keeper.sweep()
    assert await due_in_ms(box, entry.id) > GRACE_MS - 5_000
    assert await box.score(other.id) == later


@pytest.mark.usefixtures("long_lines")
async def test_a_pass_over_a_long_healthy_line_costs_what_it_reads_and_searches_for_nothing(box, keeper):
    await line_of(box, 40)
    await all_overdue(box)
    await keeper.sweep()
    before = await calls(box)
    await keeper.sweep()
    after = await calls(box)
    did = {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}
    assert did["lrange"] == 3, "6 jobs, 2 a page"
    assert did["evalsha"] == 3 + 18, "34 are overdue, 2 a page, and the end of it"
    assert did["hmget"] == 6 + 34
    assert did["lpos"] <= 34, "in the intermediate list, which is short"
    assert set(did) <= {
        *("info", "evalsha", "time", "lrange", "llen", "zmscore", "hmget", "exists", "zadd"),
        *("zrange", "zscore", "lpos"),
    }


@pytest.mark.usefixtures("long_lines")
async def test_however_many_are_overdue_a_pass_looks_at_so_many(box, keeper, monkeypatch):
    monkeypatch.setattr("workers.overdue.LOOK_AT_ONCE", 10)
    await line_of(box, 40)
    await all_overdue(box)
    await keeper.sweep()
    before = await calls(box)
    await keeper.sweep()
    assert (await calls(box))["zrange"] - before["zrange"] == 5
    for _ in range(8):
        assert await keeper.sweep() == 0
    assert await overdue(box) == 0


async def test_the_sweep_has_its_own_pace(box, keeper, clock):
    claim = await box.claim((await box.plan()).id)
    await keeper.tick()
    await box.let_lease_run_out(claim.entry.id)
    clock.now += SWEEP_EVERY_SECONDS - 1
    await keeper.tick()
    assert (await box.entry(claim.entry.id)).holder
    clock.now += 1
    await keeper.tick()
    assert not (await box.entry(claim.entry.id)).holder


# What dead workers leave in RQ


async def test_rq_forgets_the_executions_of_a_dead_worker(box, keeper, books, blocking_redis):
    entry = await box.plan()
    (taken,) = books.take(1, wait=False).taken
    claim = await box.claim(entry.id)
    started = jobs.started_key(jobs.LIVE_QUEUE)
    await keeper.tick()
    assert blocking_redis.zcard(started) == 1, "it is alive"
    blocking_redis.zadd(started, {taken.execution.composite_key: LONG_AGO_MS / 1000})
    keeper._swept_at = float("-inf")
    await keeper.tick()
    queue = rq_queue(jobs.LIVE_QUEUE, blocking_redis)
    assert StartedJobRegistry(queue=queue).get_job_ids() == []
    assert FailedJobRegistry(queue=queue).get_job_ids() == []
    assert not blocking_redis.exists(jobs.job_key(entry.job_id))
    assert await box.settle(claim), "the ledger decides who holds the entry, not RQ"


async def test_the_executions_of_live_workers_stay(box, keeper, books, blocking_redis):
    entry = await box.plan()
    (taken,) = books.take(1, wait=False).taken
    await keeper.tick()
    job = EnrichmentJob.fetch(entry.job_id, connection=blocking_redis, serializer=JSONSerializer)
    assert job.get_status() is JobStatus.STARTED
    assert Execution.fetch(taken.execution.id, entry.job_id, blocking_redis).worker_name == "w"


async def test_a_complete_loss_of_redis_is_noticed_within_a_sweep_and_told_once(box, keeper, clock, log):
    await keeper.tick()
    assert log.calls == []
    await box.redis.flushall()
    for _ in range(3):
        clock.now += SWEEP_EVERY_SECONDS
        await keeper.tick()
    assert await box.redis.exists(keys.SINCE)
    assert [call.args[0].partition(":")[0] for call in log.calls] == ["Redis has lost everything"]
