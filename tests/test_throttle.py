"""The limiter that all workers share, on a real Redis: throttle.lua, learn.lua and each process's queue."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from typing import NamedTuple

import pytest
from redis.exceptions import ResponseError
from waiting import eventually

import workers.throttle
from service import keys
from service.sandbox.limits import take
from service.sandbox.options import Limit
from service.scripts import script_text
from workers.pace import FIRST_RATE_PER_SECOND
from workers.ratelimit_header import RateLimit
from workers.throttle import PUBLISH_EVERY_MS, Ceiling, Permit, Throttle

LIMITER = keys.limiter("0123456789ab", "enrich")
PARK = keys.park("enrich")
CATCH_UP_MS = 40
"""Who asks late may catch up this much, see throttle.lua."""
FAR_OFF_MS = 4_102_444_800_000
"""A moment that no test comes to, however slow the machine is."""


class Answer(NamedTuple):
    """What throttle.lua returns."""

    live: int
    bulk: int
    first: int
    now_ms: int
    wait_us: int
    refusals: int
    epoch: int


def throttle(redis, **ceiling):
    return Throttle(redis, limiter=LIMITER, group="enrich", ceiling=Ceiling(**ceiling))


async def ask(redis, *, live=0, bulk=0, calls_per_second="", in_flight="", kept_for_live=0):
    """Ask the limiter once, as a worker with so many calls waiting does."""
    script = redis.register_script(script_text("throttle", package="workers"))
    limiter_keys = [LIMITER, PARK, keys.COUNTS, keys.unused_permits(LIMITER)]
    wish = [live, bulk, calls_per_second, in_flight, FIRST_RATE_PER_SECOND, kept_for_live]
    return Answer(*await script(keys=limiter_keys, args=wish))


async def learned(redis, *, rate, limit, remaining=None, just_now=False):
    """Leave the limiter as learn.lua does after a reply to the latest call.

    With `just_now` no token comes back meanwhile, however long the machine takes.
    """
    seconds, microseconds = await redis.time()
    await redis.hset(
        LIMITER,
        mapping={
            "rate": rate,
            "limit": limit,
            # about the reserve that is kept, so that calls go at the rate
            "remaining": round(limit * 0.15) if remaining is None else remaining,
            "at_seq": int(await redis.hget(LIMITER, "seq") or 0),
            "at_ms": FAR_OFF_MS if just_now else seconds * 1000 + microseconds // 1000,
        },
    )


async def known(redis):
    return {name.decode(): text.decode() for name, text in (await redis.hgetall(LIMITER)).items()}


async def permits(*throttles, each):
    """So many permits for each, all asked for at once, in the order in which they were given."""
    found = await asyncio.gather(*(one.permit() for one in throttles for _ in range(each)))
    return sorted(found, key=lambda permit: permit.seq)


async def commands(redis):
    """How often Redis has run each command."""
    stats = await redis.info("commandstats")
    return {name.removeprefix("cmdstat_"): fact["calls"] for name, fact in stats.items()}


# Spread, not in a burst


async def test_the_first_call_leaves_at_once(async_redis):
    permit = await throttle(async_redis).permit()
    assert (permit.seq, permit.refusals) == (1, 0)
    assert permit.epoch <= permit.at_ms


async def test_before_anything_is_known_calls_leave_one_by_one_and_slowly(async_redis):
    first, second = await permits(throttle(async_redis), each=2)
    assert second.at_ms - first.at_ms >= 1000 / FIRST_RATE_PER_SECOND - 1


async def test_a_wait_set_before_the_first_reply_is_cut_short_by_it(async_redis):
    await ask(async_redis, live=1)
    await async_redis.hset(LIMITER, "next_ms", FAR_OFF_MS)
    assert (await ask(async_redis, live=1)).live == 0
    await learned(async_redis, rate=1000, limit=1000)
    answer = await ask(async_redis, live=1)
    assert answer.wait_us <= 20_000


async def test_calls_are_spread_at_the_learned_rate(async_redis):
    await learned(async_redis, rate=100, limit=20, just_now=True)
    given = await permits(throttle(async_redis), each=20)
    assert given[-1].at_ms - given[0].at_ms >= 19 * 10 - CATCH_UP_MS - 10
    assert [permit.seq for permit in given] == list(range(1, 21))


async def test_tokens_that_were_saved_up_are_used_gently(async_redis):
    await learned(async_redis, rate=10, limit=600, remaining=600)
    answer = await ask(async_redis, live=600)
    assert answer.live <= 5
    assert 10_000 < answer.wait_us < 100_000


async def test_where_tokens_are_missing_calls_go_slower_than_the_rate(async_redis):
    await learned(async_redis, rate=10, limit=100, remaining=0, just_now=True)
    assert (await ask(async_redis, live=5)).wait_us > 120_000


async def test_a_bucket_of_a_single_token_gets_no_two_calls_at_once(async_redis):
    await learned(async_redis, rate=100, limit=1, remaining=1)
    given = await permits(throttle(async_redis), each=5)
    gaps_ms = [later.at_ms - sooner.at_ms for sooner, later in itertools.pairwise(given)]
    assert min(gaps_ms) >= 9


async def test_several_processes_never_go_over_the_limit_together(async_redis):
    limit = Limit(rate_per_second=200, burst=20)
    await learned(async_redis, rate=200, limit=20, remaining=20)
    given = await permits(*(throttle(async_redis) for _ in range(3)), each=30)
    assert [permit.seq for permit in given] == list(range(1, 91))
    bucket, refused = None, 0
    for permit in given:
        taken = take(bucket, limit, permit.at_ms / 1000)
        bucket, refused = taken.bucket, refused + (not taken.allowed)
    assert refused == 0


# Live before bulk


async def test_live_calls_of_a_process_go_before_its_bulk_ones(async_redis):
    await learned(async_redis, rate=100, limit=20)
    one = throttle(async_redis)
    bulk, live = await asyncio.gather(
        asyncio.gather(*(one.permit(bulk=True) for _ in range(5))),
        asyncio.gather(*(one.permit() for _ in range(5))),
    )
    assert max(permit.seq for permit in live) < min(permit.seq for permit in bulk)


async def test_bulk_calls_of_one_process_wait_while_live_ones_of_another_do(async_redis):
    await learned(async_redis, rate=1, limit=10)
    assert (await ask(async_redis, live=5)).live < 5
    await async_redis.hset(LIMITER, "next_ms", 0)  # the next call could go
    await async_redis.hincrbyfloat(LIMITER, "live_until_ms", 600_000)  # and no time has passed
    answer = await ask(async_redis, bulk=3)
    assert (answer.bulk, answer.wait_us > 0) == (0, True)
    assert (await ask(async_redis, live=3, bulk=3)).live >= 1


async def test_bulk_calls_go_as_soon_as_the_live_ones_that_waited_have_their_permits(async_redis):
    await learned(async_redis, rate=1, limit=10)
    left = 5 - (await ask(async_redis, live=5)).live
    while left:
        await async_redis.hset(LIMITER, "next_ms", 0)
        left -= (await ask(async_redis, live=left)).live
    await async_redis.hset(LIMITER, "next_ms", 0)
    assert (await ask(async_redis, bulk=1)).bulk == 1


async def test_live_calls_that_need_not_wait_do_not_hold_up_bulk_ones(async_redis):
    await learned(async_redis, rate=1, limit=10)
    assert (await ask(async_redis, live=1)).live == 1
    await async_redis.hset(LIMITER, "next_ms", 0)
    assert (await ask(async_redis, bulk=1)).bulk == 1


async def test_bulk_calls_go_when_the_live_ones_have_gone(async_redis):
    await learned(async_redis, rate=100, limit=20)
    busy, patient = throttle(async_redis), throttle(async_redis)
    live = asyncio.gather(*(busy.permit() for _ in range(10)))
    bulk = await asyncio.gather(*(patient.permit(bulk=True) for _ in range(5)))
    assert len({permit.seq for permit in [*await live, *bulk]}) == 15


async def test_bulk_calls_do_not_wait_for_live_ones_of_a_process_that_died(async_redis):
    await learned(async_redis, rate=100, limit=20)
    answer = await ask(async_redis, live=100)
    assert answer.live < 100
    assert (await throttle(async_redis).permit(bulk=True)).seq == answer.first + answer.live


# Parked


async def test_a_parked_group_waits_until_the_parking_ends(async_redis):
    await learned(async_redis, rate=100, limit=20)
    # looked at first: a moment between the two only makes the parking end later
    seconds, microseconds = await async_redis.time()
    await async_redis.set(PARK, "1", px=150)
    permit = await throttle(async_redis).permit()
    assert permit.at_ms >= seconds * 1000 + microseconds / 1000 + 145


async def test_after_a_parking_calls_come_back_spread(async_redis):
    await learned(async_redis, rate=100, limit=20, remaining=0)
    await async_redis.set(PARK, "1", px=50)
    given = await permits(throttle(async_redis), throttle(async_redis), each=5)
    assert given[-1].at_ms - given[0].at_ms >= 9 * 10 - CATCH_UP_MS - 10


async def test_a_parking_that_is_lifted_early_is_noticed(async_redis, monkeypatch):
    monkeypatch.setattr(workers.throttle, "LONGEST_NAP_SECONDS", 0.01)
    await async_redis.set(PARK, "1", ex=600)
    one = throttle(async_redis)
    waiting = asyncio.create_task(one.permit())
    await eventually(lambda: async_redis.hexists(LIMITER, "epoch"))
    assert not waiting.done()
    await async_redis.delete(PARK)
    assert (await waiting).seq == 1


async def test_other_groups_are_not_parked(async_redis):
    await async_redis.set(keys.park("read"), "1", ex=600)
    assert (await throttle(async_redis).permit()).seq == 1


# The operator's ceilings


async def test_the_most_calls_a_second_hold_whatever_close_allows(async_redis):
    await learned(async_redis, rate=1000, limit=2000, remaining=2000)
    given = await permits(*(throttle(async_redis, calls_per_second=50) for _ in range(2)), each=5)
    assert given[-1].at_ms - given[0].at_ms >= 9 * 20 - CATCH_UP_MS - 20


async def test_no_more_calls_leave_than_may_be_in_flight(async_redis):
    await learned(async_redis, rate=1000, limit=2000)
    await async_redis.hset(keys.COUNTS, "calling", 3)
    assert (await ask(async_redis, live=9, in_flight=5)).live == 2
    nobody = await ask(async_redis, live=7, in_flight=5)
    assert (nobody.live, nobody.wait_us) == (0, 50_000)


async def test_calls_written_down_as_under_way_are_not_counted_twice(async_redis):
    await learned(async_redis, rate=1000, limit=2000)
    one = throttle(async_redis, in_flight=2)
    given = await permits(one, each=2)
    await async_redis.hset(keys.COUNTS, "calling", 1)  # the other one could not go after all
    for permit in given:
        await one.used(permit)
    assert (await ask(async_redis, live=9, in_flight=2)).live == 1


async def test_permits_of_a_worker_that_died_are_forgotten(async_redis):
    await learned(async_redis, rate=1000, limit=2000)
    await async_redis.zadd(keys.unused_permits(LIMITER), {"1": 1000.0, "2": 1000.0})
    assert (await ask(async_redis, live=9, in_flight=2)).live == 2


@pytest.mark.parametrize(
    ("live", "bulk", "calling", "permitted"),
    [
        (0, 9, 0, (0, 8)),
        (0, 9, 7, (0, 1)),
        (0, 9, 8, (0, 0)),
        (1, 9, 7, (1, 0)),
        (5, 9, 8, (2, 0)),
        (3, 9, 0, (3, 5)),
    ],
)
async def test_bulk_calls_leave_room_in_flight_for_live_ones(async_redis, live, bulk, calling, permitted):
    await learned(async_redis, rate=4000, limit=4000, remaining=4000)
    await async_redis.hset(keys.COUNTS, "calling", calling)
    answer = await ask(async_redis, live=live, bulk=bulk, in_flight=10, kept_for_live=2)
    assert (answer.live, answer.bulk) == permitted


async def test_a_process_tells_the_limiter_how_many_places_bulk_calls_leave_free(async_redis):
    await learned(async_redis, rate=4000, limit=4000, remaining=4000)
    await async_redis.hset(keys.COUNTS, "calling", 19)
    one = throttle(async_redis, in_flight=20)
    waiting = asyncio.ensure_future(one.permit(bulk=True))
    assert (await asyncio.wait_for(one.permit(), 5)).seq == 1
    assert not waiting.done()
    await async_redis.hset(keys.COUNTS, "calling", 16)
    assert (await asyncio.wait_for(waiting, 5)).seq == 2


async def test_several_processes_never_have_more_in_flight_together(async_redis):
    await learned(async_redis, rate=4000, limit=8000, remaining=8000)
    most = 0

    async def call(one):
        nonlocal most
        permit = await one.permit()
        now = await async_redis.hincrby(keys.COUNTS, "calling", 1)
        await one.used(permit)
        most = max(most, now)
        await async_redis.hincrby(keys.COUNTS, "calling", -1)

    throttles = [throttle(async_redis, in_flight=4) for _ in range(3)]
    await asyncio.gather(*(call(one) for one in throttles for _ in range(10)))
    assert 1 <= most <= 4


async def test_without_a_ceiling_nothing_is_written_about_unused_permits(async_redis):
    one = throttle(async_redis)
    await one.used(await one.permit())
    assert not await async_redis.exists(keys.unused_permits(LIMITER))


# Giving up, and trouble


async def test_who_is_cancelled_is_forgotten_and_holds_nobody_up(async_redis, monkeypatch):
    monkeypatch.setattr(workers.throttle, "LONGEST_NAP_SECONDS", 0.01)
    await async_redis.set(PARK, "1", ex=600)
    one = throttle(async_redis)
    tasks = [asyncio.create_task(one.permit(bulk=bulk)) for bulk in (False, True, False)]
    await eventually(lambda: async_redis.hexists(LIMITER, "epoch"))
    tasks[0].cancel()
    tasks[1].cancel()
    await asyncio.gather(*tasks[:2], return_exceptions=True)
    await async_redis.delete(PARK)
    assert (await tasks[2]).seq == 1
    assert one.waiting == 0


async def test_a_permit_that_comes_too_late_for_a_cancelled_caller_goes_to_the_next(async_redis):
    await async_redis.set(PARK, "1", ex=600)
    one = throttle(async_redis)
    tasks = [asyncio.create_task(one.permit()) for _ in range(2)]
    await eventually(lambda: async_redis.hexists(LIMITER, "epoch"))
    permit = Permit(seq=1, at_ms=0, refusals=0, epoch=0)
    one._give(permit, one._live)
    tasks[0].cancel()
    assert await tasks[1] == permit


async def test_permits_pass_over_those_cancelled_just_now_and_are_left_where_nobody_waits(async_redis):
    await async_redis.set(PARK, "1", ex=600)
    one = throttle(async_redis)
    task = asyncio.create_task(one.permit())
    await eventually(lambda: async_redis.hexists(LIMITER, "epoch"))
    task.cancel()
    one._give(Permit(seq=1, at_ms=0, refusals=0, epoch=0), one._live)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert one.waiting == 0


async def test_an_error_of_redis_reaches_all_who_wait_and_the_next_call_works(async_redis):
    await async_redis.set(LIMITER, "not a hash")
    one = throttle(async_redis)
    tasks = [asyncio.create_task(one.permit(bulk=number % 2 == 1)) for number in range(4)]
    await asyncio.sleep(0)
    tasks[3].cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(error) for error in found] == [ResponseError] * 3 + [asyncio.CancelledError]
    await async_redis.delete(LIMITER)
    assert (await one.permit()).seq == 1


async def test_an_error_passes_over_those_cancelled_just_now(async_redis):
    one = throttle(async_redis)
    tasks = [asyncio.create_task(one.permit()) for _ in range(2)]

    async def go_wrong(**_):
        tasks[0].cancel()
        raise ResponseError("gone")

    one._ask = go_wrong
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(error) for error in found] == [asyncio.CancelledError, ResponseError]


async def test_who_is_cancelled_together_with_an_error_ends_as_cancelled(async_redis):
    await async_redis.set(PARK, "1", ex=600)
    one = throttle(async_redis)
    task = asyncio.create_task(one.permit())
    await eventually(lambda: async_redis.hexists(LIMITER, "epoch"))
    one._live[0].set_exception(ResponseError("gone"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_scripts_that_redis_has_forgotten_are_sent_again(async_redis):
    one = throttle(async_redis)
    await one.heard(await one.permit(), RateLimit(limit=1000, remaining=999, reset_seconds=0.01))
    await async_redis.script_flush()
    permit = await one.permit()
    await async_redis.script_flush()
    await one.heard(permit, RateLimit(limit=1000, remaining=998, reset_seconds=0.02))
    assert (await known(async_redis))["at_seq"] == "2"


async def test_the_commands_for_a_permitted_call_are_few_however_many_wait(async_redis):
    await learned(async_redis, rate=1000, limit=2000)
    before = await commands(async_redis)
    await permits(throttle(async_redis), throttle(async_redis), each=250)
    after = await commands(async_redis)
    ours = {name: count - before.get(name, 0) for name, count in after.items() if name != "info"}
    # each of the two processes asks for every slot, rarely twice; the script itself runs six commands at most
    assert ours["evalsha"] <= 3 * 500
    assert sum(ours.values()) <= 7 * 3 * 500


# Learning


async def test_what_a_reply_said_is_published(async_redis):
    one = throttle(async_redis)
    permit = await one.permit()
    await one.heard(permit, RateLimit(limit=100, remaining=99, reset_seconds=0.05))
    found = await known(async_redis)
    assert float(found["rate"]) == pytest.approx(20, rel=0.02)
    assert (found["limit"], found["remaining"], found["at_seq"]) == ("100", "99", "1")
    assert int(found["at_ms"]) == permit.at_ms


async def test_only_news_is_published(async_redis):
    one = throttle(async_redis)
    await learned(async_redis, rate=1000, limit=2000)
    older, newer = await permits(one, each=2)
    await one.heard(newer, RateLimit(limit=100, remaining=98, reset_seconds=0.1))
    before = (await known(async_redis), (await commands(async_redis))["evalsha"])
    await one.heard(older, RateLimit(limit=100, remaining=99, reset_seconds=0.05))
    assert (await known(async_redis), (await commands(async_redis))["evalsha"]) == before


@pytest.mark.parametrize(
    ("later_ms", "limit", "refused", "published"),
    [
        (PUBLISH_EVERY_MS - 1, 100, False, False),
        (PUBLISH_EVERY_MS, 100, False, True),
        (1, 50, False, True),
        (1, 100, True, True),
    ],
)
async def test_replies_that_follow_closely_and_tell_nothing_new_stay_in_the_process(
    async_redis, later_ms, limit, refused, published
):
    one = throttle(async_redis)
    first = await one.permit()
    await one.heard(first, RateLimit(limit=100, remaining=98, reset_seconds=0.1))
    second = replace(first, seq=2, at_ms=first.at_ms + later_ms)
    await one.heard(second, RateLimit(limit=limit, remaining=40, reset_seconds=0.15), refused=refused)
    assert ((await known(async_redis))["at_seq"] == "2") == published


async def test_the_reply_to_the_latest_call_wins_across_processes(async_redis):
    await learned(async_redis, rate=1000, limit=2000)
    one, other = throttle(async_redis), throttle(async_redis)
    older = await one.permit()
    newer = await other.permit()
    await other.heard(newer, RateLimit(limit=100, remaining=98, reset_seconds=0.1))
    before = await known(async_redis)
    await one.heard(older, RateLimit(limit=100, remaining=99, reset_seconds=0.05))
    assert await known(async_redis) == before


async def test_every_refusal_counts_also_one_that_is_no_news(async_redis):
    one = throttle(async_redis)
    await learned(async_redis, rate=1000, limit=2000)
    older, newer = await permits(one, each=2)
    await one.heard(newer, RateLimit(limit=100, remaining=98, reset_seconds=0.1))
    await one.heard(older, RateLimit(limit=100, remaining=0, reset_seconds=5), refused=True)
    assert (await known(async_redis))["at_seq"] == str(newer.seq)
    assert (await one.permit()).refusals == 1


@pytest.mark.parametrize("limit", [None, RateLimit(reset_seconds=1.5)])
async def test_a_reply_that_names_no_limit_still_sets_the_pace(async_redis, limit):
    one = throttle(async_redis)
    await one.heard(await one.permit(), RateLimit(limit=100, remaining=99, reset_seconds=0.05))
    await one.heard(await one.permit(), limit, refused=True)
    found = await known(async_redis)
    assert float(found["rate"]) < 19
    assert not {"limit", "remaining"} & set(found)


async def test_a_redis_that_lost_everything_is_learned_for_anew(async_redis):
    one = throttle(async_redis)
    await learned(async_redis, rate=1000, limit=2000)
    # an epoch is named by its first millisecond, and all this may fit into one
    await async_redis.hset(LIMITER, "epoch", 1)
    before = (await permits(one, each=5))[-1]
    await one.heard(before, RateLimit(limit=2000, remaining=1995, reset_seconds=0.005))
    await async_redis.flushall()
    after = await one.permit()
    assert (after.seq, after.epoch != before.epoch) == (1, True)
    await one.heard(before, RateLimit(limit=2000, remaining=1995, reset_seconds=0.005))
    assert "rate" not in await known(async_redis)
    await one.heard(after, RateLimit(limit=100, remaining=99, reset_seconds=0.05))
    found = await known(async_redis)
    assert (found["at_seq"], float(found["rate"])) == ("1", pytest.approx(20, rel=0.02))


async def test_news_of_a_process_that_does_not_know_yet_that_everything_was_lost_is_ignored(async_redis):
    one, other = throttle(async_redis), throttle(async_redis)
    permit = await one.permit()
    await async_redis.hset(LIMITER, "epoch", permit.epoch + 1)
    await one.heard(permit, RateLimit(limit=100, remaining=99, reset_seconds=0.05), refused=True)
    assert not {"rate", "refusals"} & set(await known(async_redis))
    assert (await other.permit()).epoch == permit.epoch + 1
