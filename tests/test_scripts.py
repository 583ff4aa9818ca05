"""Scripts by their digest: a Redis that has forgotten them is no reason to stop."""

from __future__ import annotations

import pytest
import redis

from service.scripts import BlockingScript, Script, digest

COUNT = "return redis.call('INCRBY', KEYS[1], ARGV[1])"


async def evals(client):
    stats = await client.info("commandstats")
    return stats.get("cmdstat_eval", {"calls": 0})["calls"]


async def test_a_script_is_sent_once_and_again_when_redis_has_forgotten_it(async_redis):
    # others may have sent it already
    await async_redis.script_flush()
    count = Script(async_redis, COUNT)
    before = await evals(async_redis)
    assert [await count(keys=["n"], args=[2]) for _ in range(3)] == [2, 4, 6]
    assert await evals(async_redis) == before + 1
    await async_redis.script_flush()
    assert [await count(keys=["n"], args=[2]) for _ in range(3)] == [8, 10, 12]
    assert await evals(async_redis) == before + 2


async def test_several_runs_answer_in_their_order_on_a_redis_that_has_forgotten_the_script(async_redis):
    count = Script(async_redis, COUNT)
    steps = [(["n"], [1]), (["m"], [5]), (["n"], [1])]
    assert await count.several(steps) == [1, 5, 2]
    assert await count.several(steps) == [3, 10, 4]
    await async_redis.script_flush()
    assert await count.several(steps) == [5, 15, 6]
    assert await count.several([]) == []


async def test_a_run_that_goes_wrong_is_not_taken_for_a_forgotten_script(async_redis):
    await async_redis.set("text", "abc")
    with pytest.raises(redis.ResponseError, match="not an integer"):
        await Script(async_redis, COUNT)(keys=["text"], args=[1])
    with pytest.raises(redis.ResponseError, match="not an integer"):
        await Script(async_redis, COUNT).several([(["text"], [1])])


def test_a_thread_runs_scripts_the_same_way(blocking_redis):
    count = BlockingScript(blocking_redis, COUNT)
    assert [count(keys=["n"], args=[1]), count(keys=["n"], args=[1])] == [1, 2]
    blocking_redis.script_flush()
    assert count(keys=["n"], args=[1]) == 3


def test_the_digest_is_what_redis_calls_a_script(blocking_redis):
    assert blocking_redis.script_load(COUNT) == digest(COUNT)
