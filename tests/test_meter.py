"""What processes count adds up in Redis, once, whatever happens in between."""

from __future__ import annotations

import asyncio
import sys

import pytest
import redis.asyncio
import structlog
from receiver_box import wait_until_written
from redis.exceptions import ConnectionError as RedisConnectionError
from waiting import eventually

from service import keys, meter
from service.charts import MOST_MINUTES, Minute, ended_per_minute, fold, minutes
from service.embedded_redis import EmbeddedRedis
from service.meter import MOST_MINUTES_KEPT, Meter, Now
from service.metrics_catalogue import (
    ACCEPT_SECONDS,
    CALL_SECONDS,
    DONE,
    EVENTS,
    LEAD_TO_FILLED_SECONDS,
    MOST_RULES,
    OTHER,
    PAID,
    PLANNED,
    SUM,
    WAITS,
    Series,
    decode_series,
)
from service.tasks import cancel_all

NOON = 1_795_435_200.0


class Clock:
    def __init__(self):
        self.now = NOON

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def make(connection, clock, **options):
    return Meter(connection, clock=clock, log=structlog.testing.CapturingLogger(), **options)


async def counted(connection):
    raw = await connection.hgetall(keys.METRICS)
    return {decode_series(name): int(count) for name, count in raw.items()}


def accepted():
    return Series(EVENTS.name, ("accepted",))


async def test_nothing_is_sent_while_counting(async_redis, clock):
    one = make(async_redis, clock)
    one.count(EVENTS, result="accepted")
    assert await counted(async_redis) == {}
    await one.flush()
    assert await counted(async_redis) == {accepted(): 1}


async def test_a_flush_without_news_sends_nothing(async_redis, clock):
    one = make(async_redis, clock)
    await one.flush()
    assert await async_redis.dbsize() == 1  # since when Redis remembers


async def test_meters_add_up(async_redis, clock):
    one, other = make(async_redis, clock), make(async_redis, clock)
    one.count(EVENTS, result="accepted")
    one.count(EVENTS, result="accepted")
    one.count(EVENTS, result="accepted")
    other.count(EVENTS, result="accepted")
    for _ in range(2):
        await asyncio.gather(one.flush(), other.flush(), one.flush())
    assert await counted(async_redis) == {accepted(): 4}


PROCESS = """
import asyncio, sys, time
import redis.asyncio, structlog
from service.meter import Meter
from service.metrics_catalogue import EVENTS

async def main():
    async with redis.asyncio.Redis.from_url(sys.argv[1]) as connection:
        meter = Meter(connection, clock=time.time, log=structlog.get_logger())
        for _ in range(50):
            for _ in range(20):
                meter.count(EVENTS, result="accepted")
            await meter.flush()

asyncio.run(main())
"""


async def test_two_processes_add_up(redis_url, async_redis):
    processes = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", PROCESS, redis_url) for _ in range(2)
    ]
    assert [await one.wait() for one in processes] == [0, 0]
    assert await counted(async_redis) == {accepted(): 2000}


async def test_a_histogram_keeps_buckets_and_the_exact_sum(async_redis, clock):
    one = make(async_redis, clock)
    for seconds in (0.0004, 0.0004, 0.2, 7.0):
        one.observe(ACCEPT_SECONDS, seconds)
    one.observe(ACCEPT_SECONDS, -5.0)
    await one.flush()
    assert await counted(async_redis) == {
        Series(ACCEPT_SECONDS.name, (), "0"): 3,
        Series(ACCEPT_SECONDS.name, (), "7"): 1,
        Series(ACCEPT_SECONDS.name, (), "11"): 1,
        Series(ACCEPT_SECONDS.name, (), SUM): 7_200_800,
    }


async def test_a_rule_too_many_is_counted_as_other_and_the_first_keep_their_names(async_redis, clock):
    one = make(async_redis, clock)
    for number in range(MOST_RULES + 5):
        one.count(PAID, rule=f"rule {number}")
    await one.flush()
    another = make(async_redis, clock)
    for number in (0, MOST_RULES - 1, MOST_RULES, 999):
        another.count(PAID, rule=f"rule {number}")
    await another.flush()
    found = await counted(async_redis)
    assert len(found) == MOST_RULES + 1
    assert found[Series(PAID.name, ("rule 0",))] == 2
    assert found[Series(PAID.name, (f"rule {MOST_RULES - 1}",))] == 2
    assert found[Series(PAID.name, (OTHER,))] == 7


async def test_an_answer_that_was_lost_does_not_count_twice(async_redis, clock, monkeypatch):
    one = make(async_redis, clock)
    one.count(EVENTS, result="accepted")
    script = one._script

    async def lost(**arguments):
        await script(**arguments)
        raise RedisConnectionError

    monkeypatch.setattr(one, "_script", lost)
    with pytest.raises(RedisConnectionError):
        await one.flush()
    one.count(EVENTS, result="accepted")
    monkeypatch.setattr(one, "_script", script)
    await one.flush()
    await one.flush()
    assert await counted(async_redis) == {accepted(): 2}


async def test_while_redis_is_away_counts_are_kept(tmp_path, clock):
    server = EmbeddedRedis(tmp_path)
    server.start()
    async with redis.asyncio.Redis.from_url(server.url) as connection:
        one = make(connection, clock)
        one.count(EVENTS, result="accepted")
        await one.flush()
        await asyncio.to_thread(wait_until_written, server.url)
        server.kill()
        for _ in range(3):
            one.count(EVENTS, result="accepted")
            clock.now += 60
            with pytest.raises((RedisConnectionError, OSError)):
                await one.flush()
        server.start()
        try:
            await one.flush()
            await one.flush()
            assert await counted(connection) == {accepted(): 4}
        finally:
            server.stop()


async def test_a_meter_runs_until_cancelled_and_flushes_once_more(async_redis, clock, monkeypatch):
    monkeypatch.setattr(meter, "FLUSH_EVERY_SECONDS", 0.01)
    one = make(async_redis, clock, now=lambda: Now(waiting={"enrich": 3}, limiters={"enrich": "key"}))
    running = asyncio.create_task(one.run())
    one.count(EVENTS, result="accepted")
    await eventually(lambda: async_redis.hlen(keys.METRICS))
    assert await async_redis.hlen(keys.METRICS_NOW) == 1
    monkeypatch.setattr(meter, "FLUSH_EVERY_SECONDS", 60)
    await asyncio.sleep(0.05)
    one.count(EVENTS, result="accepted")
    await cancel_all([running], again_seconds=20)
    assert await counted(async_redis) == {accepted(): 2}
    assert await async_redis.hlen(keys.METRICS_NOW) == 0
    assert not [key async for key in async_redis.scan_iter("enrich:metrics:mark:*")]


async def test_trouble_is_told_once_and_nothing_ends_the_counting(async_redis, clock, monkeypatch):
    monkeypatch.setattr(meter, "FLUSH_EVERY_SECONDS", 0.001)
    one = make(async_redis, clock)
    script, errors = one._script, [RedisConnectionError(), RedisConnectionError(), ValueError()]

    async def troubled(**arguments):
        if errors:
            raise errors.pop()
        return await script(**arguments)

    monkeypatch.setattr(one, "_script", troubled)
    one.count(EVENTS, result="accepted")
    running = asyncio.create_task(one.run())
    await eventually(lambda: async_redis.hlen(keys.METRICS))
    await cancel_all([running], again_seconds=20)
    assert [call.method_name for call in one._log.calls] == ["exception", "warning"]
    assert await counted(async_redis) == {accepted(): 1}


async def test_what_a_dead_process_told_of_itself_is_removed(async_redis, clock):
    await async_redis.hset(keys.METRICS_NOW, mapping={"dead": "1000 {}", "odd": "no moment"})
    one = make(async_redis, clock, now=lambda: Now(waiting={}, limiters={}))
    await one.flush()
    assert set(await async_redis.hkeys(keys.METRICS_NOW)) == {one._process.encode()}


def busy(one, minute=0):
    for result in ("accepted", "accepted", "duplicate"):
        one.count(EVENTS, result=result)
    for rule in ("Industry", "Segment"):
        one.count(PLANNED, rule=rule, result="planned")
        one.count(PLANNED, rule=rule, result="duplicate")
        one.count(PAID, rule=rule)
        one.count(DONE, rule=rule, outcome="filled")
        one.observe(LEAD_TO_FILLED_SECONDS, 4.0 + 10 * minute, rule=rule, lane="live")
        one.observe(LEAD_TO_FILLED_SECONDS, 5000, rule=rule, lane="bulk")
    one.count(DONE, rule="Industry", outcome="empty")
    one.count(WAITS, cause="budget")
    one.observe(CALL_SECONDS, 2.0, outcome="found")
    one.observe(ACCEPT_SECONDS, 0.01)


async def test_charts_get_minutes_of_all_rules_together(async_redis, clock):
    one = make(async_redis, clock)
    busy(one)
    await one.flush()
    clock.now += 120
    busy(one, minute=1)
    await one.flush()
    first, empty, last = await minutes(async_redis, minutes=3, now=clock.now + 30)
    assert (first.start_seconds, last.start_seconds) == (NOON, NOON + 120)
    assert (first.events, first.planned, first.paid) == ({"accepted": 2, "duplicate": 1}, 2, 2)
    assert (first.outcomes, first.waits, first.calls) == (
        {"filled": 2, "empty": 1},
        {"budget": 1},
        {"found": 1},
    )
    assert first.filled_seconds(0.5) == pytest.approx(3.75)
    assert (empty.events, empty.planned, empty.filled_seconds(0.5)) == ({}, 0, None)
    (both,) = fold([first, empty, last], size=3)
    assert (both.start_seconds, both.events, both.paid) == (NOON, {"accepted": 4, "duplicate": 2}, 4)
    assert sum(both.filled) == 4
    assert 10 < both.filled_seconds(0.95) < 20
    assert 0 < await async_redis.ttl(keys.minute(int(NOON // 60))) <= meter.MINUTE_TTL_SECONDS


async def test_a_day_of_minutes_is_read_in_a_few_round_trips(async_redis):
    found = await minutes(async_redis, minutes=MOST_MINUTES, now=NOON)
    assert len(found) == MOST_MINUTES
    assert [one.start_seconds for one in found] == [int(NOON) - 60 * ago for ago in range(1439, -1, -1)]
    assert len(fold(found, size=15)) == 96


@pytest.mark.parametrize("count", [0, -1, MOST_MINUTES + 1])
async def test_more_than_a_day_is_not_read(async_redis, count):
    with pytest.raises(ValueError, match="expected 1 to"):
        await minutes(async_redis, minutes=count, now=NOON)


async def test_minutes_are_put_together_so_that_the_last_is_whole(async_redis):
    found = await minutes(async_redis, minutes=7, now=NOON)
    assert [one.start_seconds - NOON for one in fold(found, size=3)] == [-360, -300, -120]
    assert fold([], size=3) == []
    with pytest.raises(ValueError, match="at least 1"):
        fold(found, size=0)


async def test_what_another_version_wrote_into_a_minute_is_left_out(async_redis):
    await async_redis.hset(
        keys.minute(int(NOON // 60)), mapping={"new": "1", '["close_enrich_x",[],""]': "1"}
    )
    (only,) = await minutes(async_redis, minutes=1, now=NOON)
    assert (only.events, only.paid) == ({}, 0)


async def test_a_long_absence_of_redis_does_not_fill_the_memory(async_redis, clock):
    one = make(async_redis, clock)
    for _ in range(MOST_MINUTES_KEPT + 30):
        one.count(EVENTS, result="accepted")
        one._gather()
        clock.now += 60
    assert len(one._next.minutes) == MOST_MINUTES_KEPT
    await one.flush()
    assert await counted(async_redis) == {accepted(): MOST_MINUTES_KEPT + 30}
    found = await minutes(async_redis, minutes=300, now=clock.now)
    assert sum(one.events.get("accepted", 0) for one in found) == MOST_MINUTES_KEPT


@pytest.mark.parametrize(
    ("ended", "now", "rate"),
    [
        ([], 300, 0),
        ([0, 0, 0], 170, 0),
        # work began in this minute: what there is, as if the minute were over
        ([0, 0, 40], 130, 40),
        ([0, 40, 20], 150, 40),
        ([30, 30, 30], 180, 30),
    ],
)
def test_the_pace_lately_counts_from_the_first_minute_with_work(ended, now, rate):
    chart = [Minute(start_seconds=60 * at, outcomes={"filled": count}) for at, count in enumerate(ended)]
    assert ended_per_minute(chart, now=now) == rate
