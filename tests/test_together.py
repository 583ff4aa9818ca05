"""Scripts that go to Redis together: each has its own answer, and the furthest job goes first."""

import asyncio

import pytest
from redis.exceptions import RedisError, ResponseError

from service.scripts import Script
from service.together import LANES, MOST_AT_ONCE, Together, Urgency

ECHO = "redis.call('RPUSH', KEYS[1], ARGV[1]) return ARGV[1]"
WRONG = "return redis.call('NO SUCH COMMAND')"


def step(together, script, word, *, urgency=Urgency.CALL):
    return asyncio.create_task(together.run(script, keys=["order"], args=[word], urgency=urgency))


async def test_each_of_many_gets_its_own_answer(async_redis):
    together, echo = Together(async_redis), Script(async_redis, ECHO)
    tasks = [step(together, echo, str(number)) for number in range(10 * MOST_AT_ONCE)]
    assert await asyncio.gather(*tasks) == [str(number).encode() for number in range(len(tasks))]


async def test_what_is_most_urgent_goes_first_and_its_like_in_turn(async_redis):
    together, echo = Together(async_redis), Script(async_redis, ECHO)
    first = [step(together, echo, "first", urgency=Urgency.END) for _ in range(LANES * MOST_AT_ONCE)]
    waves = [
        step(together, echo, f"{urgency.name} {number}", urgency=urgency)
        for urgency in (Urgency.BEGIN, Urgency.END, Urgency.CALL)
        for number in range(3)
    ]
    await asyncio.gather(*first, *waves)
    # all were asked for before anything was sent: the lanes took the most urgent ones first
    order = [word.decode() for word in await async_redis.lrange("order", 0, -1) if word != b"first"]
    wanted = [f"{urgency.name} {number}" for urgency in Urgency for number in range(3)]
    assert [word for word in order if not word.startswith("END")] == wanted[:6]


async def test_one_that_goes_wrong_spoils_no_other(async_redis):
    together = Together(async_redis)
    echo, wrong = Script(async_redis, ECHO), Script(async_redis, WRONG)
    tasks = [step(together, one, "x") for one in (echo, wrong, echo)]
    good, bad, also_good = await asyncio.gather(*tasks, return_exceptions=True)
    assert (good, also_good) == (b"x", b"x")
    assert isinstance(bad, ResponseError)


async def test_scripts_that_redis_has_forgotten_are_sent_anew_and_run_once(async_redis):
    together, echo = Together(async_redis), Script(async_redis, ECHO)
    await asyncio.gather(*[step(together, echo, "before") for _ in range(3)])
    await async_redis.script_flush()
    await async_redis.delete("order")
    assert await asyncio.gather(*[step(together, echo, "after") for _ in range(5)]) == [b"after"] * 5
    assert await async_redis.llen("order") == 5


async def test_who_gives_up_before_it_is_sent_is_left_out_and_the_others_go_on(async_redis):
    together, echo = Together(async_redis), Script(async_redis, ECHO)
    lost, kept = step(together, echo, "lost"), step(together, echo, "kept")
    await asyncio.sleep(0)
    lost.cancel()
    assert await kept == b"kept"
    with pytest.raises(asyncio.CancelledError):
        await lost


async def test_everyone_hears_of_it_when_redis_cannot_be_asked_and_later_ones_are_served(
    async_redis, monkeypatch
):
    together, echo = Together(async_redis), Script(async_redis, ECHO)

    async def away(_steps):
        raise RedisError("away")

    with monkeypatch.context() as patch:
        patch.setattr(together, "_ask", away)
        errors = await asyncio.gather(*[step(together, echo, "x") for _ in range(3)], return_exceptions=True)
    assert [type(error) for error in errors] == [RedisError] * 3
    assert await step(together, echo, "again") == b"again"


async def test_who_comes_when_all_lanes_have_just_ended_is_taken_along(async_redis, monkeypatch):
    """Lanes that have ended may not seem open until their tasks are cleared away."""
    monkeypatch.setattr("service.together.MOST_AT_ONCE", 1)
    together, echo = Together(async_redis), Script(async_redis, ECHO)

    async def asked(steps):
        await asyncio.sleep(0)
        return [b"answer"] * len(steps)

    monkeypatch.setattr(together, "_ask", asked)

    async def again_at_once():
        first = await together.run(echo, keys=["order"], args=["x"], urgency=Urgency.CALL)
        return [first, await together.run(echo, keys=["order"], args=["x"], urgency=Urgency.CALL)]

    async with asyncio.timeout(5):
        others = [step(together, echo, "x") for _ in range(LANES - 1)]
        assert await again_at_once() == [b"answer"] * 2
        assert await asyncio.gather(*others) == [b"answer"] * (LANES - 1)
