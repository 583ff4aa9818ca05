"""Which rules each process runs: what one says of itself, what the others read, and who is forgotten."""

from __future__ import annotations

import asyncio
from importlib.metadata import version

import msgspec
import pytest
import redis.asyncio
from waiting import eventually

from service import keys
from service.knowledge import Knowledge
from service.ledger import Ledger
from service.readiness import readiness
from service.rules import RuleBook
from service.rules_in_force import (
    FORGET_AFTER_SECONDS,
    InForce,
    Publisher,
    RulesState,
    disagreement,
    file_problem,
    rules_in_force,
)
from service.tasks import cancel_all

AT_MS = 1_791_970_212_000
OLD = RulesState(digest="old", read_at_ms=AT_MS)
NEW = RulesState(digest="new", read_at_ms=AT_MS + 60_000)
BROKEN = RulesState(digest="old", read_at_ms=AT_MS, problems=("rules.yaml:1:1: is not a mapping",))
AT = ("2026-10-14 09:30:12 UTC", "2026-10-14 09:31:12 UTC")
WORDS = f"the rules of {AT[0]} stay in force: rules.yaml:1:1: is not a mapping"


def said(process, state):
    return InForce(process=process, digest=state.digest, read_at_ms=state.read_at_ms, problem=state.problem)


@pytest.mark.parametrize(
    ("found", "broken", "differ"),
    [
        ([], "", ""),
        ([said("web", OLD), said("worker", OLD)], "", ""),
        (
            [said("web", NEW), said("worker", OLD)],
            "",
            f"not all run the rules of web ({AT[1]}): worker (rules of {AT[0]})",
        ),
        ([said("web", BROKEN), said("worker", OLD)], f"web: {WORDS}", ""),
        ([said("web", BROKEN), said("worker", BROKEN)], f"web (and 1 more): {WORDS}", ""),
    ],
)
def test_who_cannot_use_the_file_and_who_runs_other_rules_is_named(found, broken, differ):
    assert (file_problem(found), disagreement(found)) == (broken, differ)


async def test_a_process_says_what_it_runs_says_changes_soon_and_takes_it_back_at_its_end(async_redis):
    states = [OLD]
    publisher = Publisher(async_redis, role="web", state=lambda: states[-1])
    task = asyncio.create_task(publisher.run())
    (first,) = await eventually(lambda: rules_in_force(async_redis))
    assert first.process.startswith("web on ")
    assert (first.digest, first.read_at_ms, first.problem) == ("old", AT_MS, "")
    assert first.version == version("close-enrich")

    states.append(BROKEN)

    async def told():
        return file_problem(await rules_in_force(async_redis))

    assert (await eventually(told)).endswith(WORDS)
    found = await readiness(Ledger(async_redis), Knowledge.of(RuleBook(), {}))
    assert found.degraded["rules file"].endswith(WORDS)

    await cancel_all([task])
    assert await rules_in_force(async_redis) == ()


async def test_who_is_silent_for_long_is_forgotten_and_what_cannot_be_read_is_left_out(async_redis):
    now_seconds, _ = await async_redis.time()
    long_ago = now_seconds - FORGET_AFTER_SECONDS - 1
    silent = msgspec.json.encode(
        InForce(process="silent", digest="x", read_at_ms=1, said_at_seconds=long_ago)
    )
    await async_redis.hset(keys.RULES, mapping={"silent": silent, "newer version": "[]"})
    assert await rules_in_force(async_redis) == ()

    publisher = Publisher(async_redis, role="worker", state=lambda: OLD)
    await publisher.say()
    assert await async_redis.hlen(keys.RULES) == 1
    assert 0 < await async_redis.ttl(keys.RULES) <= FORGET_AFTER_SECONDS


async def test_processes_of_older_and_newer_releases_are_read_as_far_as_they_say(async_redis):
    now_seconds, _ = await async_redis.time()
    facts = {"digest": "x", "read_at_ms": 1, "said_at_seconds": now_seconds}
    older = {"process": "older", **facts}
    newer = {"process": "newer", **facts, "version": "9.0", "more": [1]}
    for one in (older, newer):
        await async_redis.hset(keys.RULES, one["process"], msgspec.json.encode(one))
    found = await rules_in_force(async_redis)
    assert [(one.process, one.version) for one in found] == [("newer", "9.0"), ("older", "")]


async def test_while_redis_is_away_it_goes_on_trying():
    async with redis.asyncio.Redis(host="127.0.0.1", port=1) as nobody:
        publisher = Publisher(nobody, role="worker", state=lambda: OLD)
        task = asyncio.create_task(publisher.run())
        done, _ = await asyncio.wait({task}, timeout=0.1)
        assert not done
        await cancel_all([task])
