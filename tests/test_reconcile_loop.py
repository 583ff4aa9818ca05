"""The event log is walked when it is due, by one worker at a time, and by another one when that dies."""

from __future__ import annotations

import asyncio
import datetime as dt

import pytest
import structlog
from redis.exceptions import ConnectionError as RedisConnectionError
from waiting import eventually

from service import keys
from service.rules import Action, ObjectType
from service.tasks import cancel_all
from workers import reconcile_loop
from workers.lease import Lease
from workers.log_report import Findings, PairReport, Report
from workers.log_walk import Pair
from workers.reconcile_loop import LEASE_SECONDS, LEAVE_SECONDS, RETRY_SECONDS, ReconcileLoop

EVERY_SECONDS = 300.0


class Reconciler:
    """Stands for the real one: notes each walk, and ends it as it is told to."""

    def __init__(self, *, problem: str | None = None, error: Exception | None = None) -> None:
        self.problem = problem
        self.error = error
        self.left: list[float] = []
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def catch_up(self, *, leave_seconds: float) -> Report:
        self.left.append(leave_seconds)
        await self.may_end.wait()
        if self.error is not None:
            raise self.error
        pair = PairReport(
            pair=Pair(ObjectType.LEAD, Action.CREATED),
            since=dt.datetime(2026, 10, 14, tzinfo=dt.UTC),
            findings=Findings(),
            problem=self.problem,
        )
        return Report(pairs=(pair,))


def loop_of(redis, reconciler, *, worker="worker-1", ready=True, every_seconds=EVERY_SECONDS, log=None):
    return ReconcileLoop(
        redis,
        reconciler=reconciler,
        ready=lambda: ready,
        worker=worker,
        every_seconds=every_seconds,
        log=log or structlog.get_logger(),
    )


async def test_the_first_walk_is_due_at_once_and_the_next_one_later(async_redis):
    reconciler = Reconciler()
    loop = loop_of(async_redis, reconciler)
    assert await loop.walk_if_due() is not None
    assert await loop.walk_if_due() is None
    assert reconciler.left == [LEAVE_SECONDS]
    assert EVERY_SECONDS * 900 < await async_redis.pttl(keys.RECONCILED) <= EVERY_SECONDS * 1000
    assert not await async_redis.exists(keys.RECONCILER)

    await async_redis.delete(keys.RECONCILED)
    assert await loop.walk_if_due() is not None


async def test_a_walk_that_did_not_come_to_its_end_is_due_again_soon(async_redis):
    await loop_of(async_redis, Reconciler(problem="Close is away")).walk_if_due()
    assert 0 < await async_redis.pttl(keys.RECONCILED) <= RETRY_SECONDS * 1000


async def test_no_event_is_left_alone_for_longer_than_the_time_between_two_walks(async_redis):
    reconciler = Reconciler()
    await loop_of(async_redis, reconciler, every_seconds=2.0).walk_if_due()
    assert reconciler.left == [2.0]


async def test_who_asks_for_a_walk_gets_one_at_once_that_leaves_nothing_out(async_redis):
    reconciler = Reconciler()
    loop = loop_of(async_redis, reconciler)
    await loop.walk_if_due()
    await async_redis.set(keys.RECONCILE_NOW, "1")
    assert await loop.walk_if_due() is not None
    assert reconciler.left == [LEAVE_SECONDS, 0.0]
    assert await loop.walk_if_due() is None


async def test_who_asks_during_a_walk_gets_another_one(async_redis):
    reconciler = Reconciler()
    reconciler.may_end.clear()
    loop = loop_of(async_redis, reconciler)
    walking = asyncio.create_task(loop.walk_if_due())
    await eventually(lambda: _true(reconciler.left))
    await async_redis.set(keys.RECONCILE_NOW, "1")
    reconciler.may_end.set()
    await walking
    assert await loop.walk_if_due() is not None


async def _true(value):
    return bool(value)


async def test_before_events_can_be_planned_nothing_is_walked(async_redis):
    reconciler = Reconciler()
    assert await loop_of(async_redis, reconciler, ready=False).walk_if_due() is None
    assert reconciler.left == []


async def test_while_one_worker_walks_the_others_do_not(async_redis):
    slow, idle = Reconciler(), Reconciler()
    slow.may_end.clear()
    walking = asyncio.create_task(loop_of(async_redis, slow).walk_if_due())
    await eventually(lambda: async_redis.exists(keys.RECONCILER))
    other = loop_of(async_redis, idle, worker="worker-2")
    assert await other.walk_if_due() is None
    slow.may_end.set()
    await walking
    assert await other.walk_if_due() is None
    assert idle.left == []


async def test_a_walk_broken_off_is_due_for_the_others_at_once(async_redis):
    slow, other = Reconciler(), Reconciler()
    slow.may_end.clear()
    walking = asyncio.create_task(loop_of(async_redis, slow).walk_if_due())
    await eventually(lambda: _true(slow.left))
    walking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await walking
    assert await loop_of(async_redis, other, worker="worker-2").walk_if_due() is not None


async def test_a_killed_worker_holds_the_walk_up_for_no_longer_than_its_lease(async_redis):
    assert await Lease(async_redis, key=keys.RECONCILER, owner="killed", seconds=LEASE_SECONDS).take()
    loop = loop_of(async_redis, Reconciler())
    assert await loop.walk_if_due() is None
    assert 0 < await async_redis.ttl(keys.RECONCILER) <= LEASE_SECONDS
    await async_redis.delete(keys.RECONCILER)
    assert await loop.walk_if_due() is not None


async def test_the_lease_of_a_long_walk_is_prolonged(async_redis, monkeypatch):
    monkeypatch.setattr(reconcile_loop, "LEASE_SECONDS", 1)
    slow = Reconciler()
    slow.may_end.clear()
    walking = asyncio.create_task(loop_of(async_redis, slow).walk_if_due())
    await eventually(lambda: _true(slow.left))
    await async_redis.delete(keys.RECONCILER)
    await eventually(lambda: async_redis.exists(keys.RECONCILER))
    slow.may_end.set()
    assert await walking is not None


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RedisConnectionError(), "walking the event log waits for Redis"),
        (ZeroDivisionError(), "walking the event log went wrong and is tried again"),
    ],
)
async def test_trouble_is_logged_and_the_loop_goes_on(async_redis, monkeypatch, error, words):
    monkeypatch.setattr(reconcile_loop, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(reconcile_loop, "RETRY_SECONDS", 0.01)
    log = structlog.testing.CapturingLogger()
    reconciler = Reconciler(error=error)
    running = asyncio.create_task(loop_of(async_redis, reconciler, log=log).run())
    await eventually(lambda: _true(len(reconciler.left) > 1))
    reconciler.error = None
    await eventually(lambda: async_redis.exists(keys.RECONCILED))
    await cancel_all([running])
    assert {call.args[0] for call in log.calls} == {words}


async def test_a_lease_has_one_owner_at_a_time(async_redis):
    one, other = (Lease(async_redis, key="lease", owner=name, seconds=60) for name in ("one", "other"))
    assert await one.take()
    assert await one.take()
    assert not await other.take()
    await other.give_up()
    assert not await other.take()
    await one.give_up()
    assert await other.take()
