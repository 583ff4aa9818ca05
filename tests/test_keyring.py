"""Signature keys that are learned: accepted soon, kept while Redis is away, and never shown."""

from __future__ import annotations

import asyncio

import pytest
import redis.asyncio
import structlog
from receiver_box import KEY, Receiver, captured_log, sample, save_schemas, signed
from waiting import eventually, wait_until

from service import keyring as keyrings
from service import keys
from service.keyring import Keyring, forget_key, known_keys, remember_key
from service.signature import SignatureKey
from service.tasks import cancel_all

FIXED = SignatureKey.parse("ab" * 32)
LEARNED = SignatureKey.parse("cd" * 32)
OTHER_KEY = "ef" * 32
PUBLIC_URL = "https://enrich.example"


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def log():
    return structlog.testing.CapturingLogger()


@pytest.fixture(autouse=True)
def _patient(monkeypatch):
    # no slow moment of the machine is to pass for an outage of Redis
    monkeypatch.setattr(keyrings, "PATIENCE_SECONDS", 15.0)


@pytest.fixture
def keyring(async_redis, clock, log):
    return Keyring(async_redis, fixed=(FIXED,), clock=clock, log=log)


async def test_the_environments_keys_come_first_and_stay(async_redis, keyring):
    assert keyring.current() == (FIXED,)
    await remember_key(async_redis, "whsub_a", LEARNED)
    await remember_key(async_redis, "whsub_b", FIXED)
    await keyring.look()

    assert keyring.current() == (FIXED, LEARNED)
    assert await known_keys(async_redis) == {"whsub_a", "whsub_b"}


async def test_a_forgotten_key_is_accepted_no_more(async_redis, keyring, clock):
    await remember_key(async_redis, "whsub_a", LEARNED)
    await keyring.look()
    await forget_key(async_redis, "whsub_a")
    clock.now += 1
    await keyring.look()

    assert keyring.current() == (FIXED,)


async def test_redis_is_asked_at_most_once_a_second(async_redis, keyring, clock):
    await keyring.look()
    await remember_key(async_redis, "whsub_a", LEARNED)
    clock.now += 0.9
    await asyncio.gather(*(keyring.look() for _ in range(20)))
    assert keyring.current() == (FIXED,)

    clock.now += 0.1
    await asyncio.gather(*(keyring.look() for _ in range(20)))
    assert keyring.current() == (FIXED, LEARNED)


async def test_everyone_who_comes_during_a_look_has_its_answer(async_redis, keyring):
    await remember_key(async_redis, "whsub_a", LEARNED)

    async def after_looking():
        await keyring.look()
        return keyring.current()

    assert set(await asyncio.gather(*(after_looking() for _ in range(20)))) == {(FIXED, LEARNED)}


async def test_what_is_known_stays_while_redis_is_away(tmp_path, clock, log):
    away = redis.asyncio.Redis.from_url(f"unix://{tmp_path}/none.sock")
    keyring = Keyring(away, fixed=(FIXED,), clock=clock, log=log)
    await keyring.look()

    assert keyring.current() == (FIXED,)


async def test_a_key_that_cannot_be_read_is_told_once_by_its_subscription(async_redis, keyring, clock, log):
    await async_redis.hset(keys.SIGNATURE_KEYS, "whsub_a", "not-a-key")
    await remember_key(async_redis, "whsub_b", LEARNED)
    for _ in range(2):
        await keyring.look()
        clock.now += 1

    assert keyring.current() == (FIXED, LEARNED)
    (call,) = log.calls
    assert call.kwargs == {"subscription": "whsub_a"}


async def test_it_looks_again_and_again(async_redis, log, monkeypatch):
    monkeypatch.setattr(keyrings, "LOOK_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(keyrings, "LEAST_PAUSE_SECONDS", 0.0)
    keyring = Keyring(async_redis, fixed=(), clock=asyncio.get_running_loop().time, log=log)
    running = asyncio.create_task(keyring.run())
    try:
        await remember_key(async_redis, "whsub_a", LEARNED)

        async def learned():
            return keyring.current() == (LEARNED,)

        await eventually(learned)
    finally:
        await cancel_all([running])
    assert LEARNED.key.hex() not in repr((keyring, keyring.current()))


# the receiver


def learn(blocking_redis, key, *, subscription="whsub_a"):
    blocking_redis.hset(keys.SIGNATURE_KEYS, subscription, key)


def test_without_any_key_a_delivery_comes_again_until_one_is_learned(redis_url, blocking_redis):
    save_schemas(redis_url)
    body = sample("02")
    with captured_log() as log, Receiver(redis_url, signature_keys="", PUBLIC_URL=PUBLIC_URL) as receiver:
        answer = receiver.post(body)
        assert (answer.status, answer.headers["retry-after"]) == (503, "10")
        assert "signature key" in answer.body["error"]
        ready = receiver.get("/readyz")
        assert (ready.status, "signature key" in ready.body["degraded"]) == (200, True)
        # not signed at all is refused as ever
        assert receiver.post(body, {"content-type": "application/json"}).status == 401

        learn(blocking_redis, KEY)
        wait_until(lambda: receiver.post(body).status == 202)
        assert "signature key" not in receiver.get("/readyz").body["degraded"]
        assert receiver.post(body, signed(body, key=OTHER_KEY)).status == 401
    assert KEY not in log.getvalue()


def test_both_keys_are_accepted_while_one_replaces_the_other(redis_url, blocking_redis):
    save_schemas(redis_url)
    body = sample("02")
    with Receiver(redis_url) as receiver:
        assert receiver.post(body, signed(body, key=OTHER_KEY)).status == 401
        learn(blocking_redis, OTHER_KEY)
        wait_until(lambda: receiver.post(body, signed(body, key=OTHER_KEY)).status == 202)
        assert receiver.post(body).status == 202


def test_the_last_look_at_the_subscription_is_in_readyz(redis_url, blocking_redis):
    blocking_redis.hset(keys.WEBHOOK, mapping={"subscription": "whsub_a", "problem": "whsub_a is failing"})
    with Receiver(redis_url) as receiver:
        assert receiver.get("/readyz").body["degraded"]["subscription"] == "whsub_a is failing"
    blocking_redis.hset(keys.WEBHOOK, "problem", "")
    with Receiver(redis_url) as receiver:
        assert "subscription" not in receiver.get("/readyz").body["degraded"]
