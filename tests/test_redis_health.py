"""What is told of a Redis that may lose work, and that nothing is told of one that does not."""

from __future__ import annotations

import pytest
import redis.asyncio
from hypothesis import given
from hypothesis import strategies as st
from receiver_box import Receiver, save_schemas
from redis.exceptions import NoPermissionError, ResponseError
from structlog.testing import capture_logs
from waiting import wait_until

from service.log import get_logger
from service.redis_health import HealthWatch, RedisHealth, notes_on, problems_with, redis_health

GOOD = {
    "redis_version": "7.2.4",
    "cluster_enabled": 0,
    "role": "master",
    "aof_enabled": 1,
    "aof_last_write_status": "ok",
    "maxmemory": 0,
    "used_memory": 1_000_000,
    "maxmemory_policy": "noeviction",
    "connected_slaves": 0,
}
STRICT = {"appendfsync": "always", "min-replicas-to-write": "1"}
REPLICA = {"ip": "10.0.0.1", "port": 6379, "state": "online", "offset": 1, "lag": 0}


@pytest.mark.parametrize(
    ("info", "words"),
    [
        ({"cluster_enabled": 1}, "cluster mode is on, which is not supported"),
        ({"redis_version": "6.2.14"}, "version 6.2.14 is too old: expected 7.0 or newer"),
        ({"role": "slave"}, "it is a replica and takes no writes"),
        ({"aof_enabled": 0}, "appendonly is off"),
        ({"aof_last_write_status": "err"}, "the last write to the append-only file failed"),
        ({"maxmemory": 2_000_000, "maxmemory_policy": "allkeys-lru"}, "maxmemory-policy is allkeys-lru"),
        ({"maxmemory": 2_000_000, "maxmemory_policy": "volatile-ttl"}, "maxmemory-policy is volatile-ttl"),
        ({"maxmemory": 1_050_000}, "95% of maxmemory is used"),
        ({"slave0": {**REPLICA, "state": "wait_bgsave"}}, "1 of 1 replicas lag behind"),
        ({"slave0": REPLICA, "slave1": {**REPLICA, "lag": 11}}, "1 of 2 replicas lag behind"),
    ],
)
def test_what_can_lose_work_is_a_problem(info, words):
    (problem,) = problems_with({**GOOD, **info}, {})
    assert problem.startswith(words)


@pytest.mark.parametrize("info", [GOOD, {}, {**GOOD, "redis_version": "8.0.1"}, {**GOOD, "slave0": REPLICA}])
def test_a_redis_that_keeps_all_or_does_not_say_is_no_problem(info):
    assert problems_with(info, {}) == ()
    assert notes_on(info, STRICT) == ()


def test_a_master_that_waits_for_replicas_it_has_not_is_a_problem():
    (problem,) = problems_with(GOOD, {"min-replicas-to-write": "1"})
    assert problem == "0 replicas follow and min-replicas-to-write is 1: nothing can be written"


@pytest.mark.parametrize(
    ("info", "config", "words"),
    [
        ({}, {"appendfsync": "everysec"}, "appendfsync is everysec"),
        ({}, {"appendfsync": "no"}, "appendfsync is no"),
        ({"maxmemory_policy": "allkeys-lru"}, {}, "maxmemory-policy is allkeys-lru: once maxmemory is set"),
        ({"connected_slaves": 1}, {"min-replicas-to-write": "0"}, "min-replicas-to-write is 0"),
    ],
)
def test_what_may_cost_a_little_is_a_note(info, config, words):
    (note,) = notes_on({**GOOD, **info}, config)
    assert note.startswith(words)


def test_how_often_a_file_is_synced_that_is_not_written_is_no_matter():
    assert notes_on({**GOOD, "aof_enabled": 0}, {"appendfsync": "everysec"}) == ()


INFO = st.fixed_dictionaries(
    {},
    optional={
        "redis_version": st.text(max_size=8),
        "role": st.sampled_from(["master", "slave"]),
        "aof_enabled": st.sampled_from([0, 1]),
        "maxmemory": st.integers(min_value=0),
        "used_memory": st.integers(min_value=0),
        "maxmemory_policy": st.text(max_size=8),
        "slave0": st.one_of(st.text(), st.just(REPLICA), st.just({})),
    },
)


@given(INFO)
def test_whatever_a_server_says_of_itself_sentences_come_of_it(info):
    assert all(isinstance(one, str) for one in (*problems_with(info, {}), *notes_on(info, {})))


async def test_a_look_at_a_real_server(async_redis):
    await async_redis.config_set("appendonly", "yes")
    health = await redis_health(async_redis)
    assert (health.problems, health.readable, health.server_name in {"redis", "valkey"}) == ((), True, True)
    assert [note.partition(":")[0] for note in health.notes] == ["appendfsync is everysec"]
    assert health.version.partition(".")[0].isdecimal()


class Refusing(redis.asyncio.Redis):
    """A client of a server that forbids commands."""

    forbidden: dict[str, ResponseError]

    async def execute_command(self, *args, **options):
        if args[0] in self.forbidden:
            raise self.forbidden[args[0]]
        return await super().execute_command(*args, **options)


@pytest.mark.parametrize(
    ("forbidden", "known"),
    [
        ({"CONFIG GET": NoPermissionError("this user has no permissions")}, True),
        ({"CONFIG GET": ResponseError("unknown command 'CONFIG'")}, True),
        ({"CONFIG GET": ResponseError("no"), "INFO": NoPermissionError("no")}, False),
    ],
)
async def test_what_a_provider_forbids_to_read_is_a_quiet_note(redis_url, forbidden, known):
    async with Refusing.from_url(redis_url) as client:
        client.forbidden = forbidden
        health = await redis_health(client)
        with capture_logs() as log:
            await HealthWatch(client, log=get_logger("test")).look()
    assert (health.problems, health.readable, bool(health.version)) == ((), False, known)
    assert len(health.notes) == len(forbidden)
    assert all("could not be checked" in note for note in health.notes)
    assert {line["log_level"] for line in log if "redis" in line} == {"debug"}


async def test_a_problem_is_told_once_until_it_changes(async_redis):
    watch = HealthWatch(async_redis, log=get_logger("test"))
    assert watch.problems() == ()
    await async_redis.config_set("appendonly", "no")
    try:
        with capture_logs() as log:
            await watch.look()
            await watch.look()
        (told,) = [line for line in log if line["log_level"] == "warning"]
        assert (told["problem"],) == watch.problems()
    finally:
        await async_redis.config_set("appendonly", "yes")
    await watch.look()
    assert watch.problems() == ()


def test_readyz_tells_what_was_found(redis_url, blocking_redis):
    save_schemas(redis_url)
    blocking_redis.config_set("appendonly", "no")
    try:
        with Receiver(redis_url) as receiver:
            found = wait_until(lambda: receiver.get("/readyz").body["degraded"].get("redis"))
    finally:
        blocking_redis.config_set("appendonly", "yes")
    assert found.startswith("appendonly is off")


def test_its_parts_have_defaults_that_tell_of_nothing():
    health = RedisHealth(version="7.2.4", server_name="valkey")
    assert (health.problems, health.notes, health.readable) == ((), (), True)
