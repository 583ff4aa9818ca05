"""What a process knows, kept current: new rules and newly read fields do not undo each other."""

from __future__ import annotations

import asyncio

import structlog
from receiver_box import rulebook, schema_payload

from service.rules import ObjectType
from service.schema import Schema, parse_schema
from workers.learner import Learner

PITCH, GHOST = "{name: Pitch, object: lead, field: Pitch}", "{name: Ghost, object: lead, field: Gost}"
ONE = rulebook(f"{{version: 1, rules: [{PITCH}]}}")
TWO = rulebook(f"{{version: 1, rules: [{PITCH}, {GHOST}]}}")


class SlowCache:
    """A cache whose answer comes when it is let go."""

    def __init__(self):
        self.asked, self.go = asyncio.Event(), asyncio.Event()

    async def load(self):
        self.asked.set()
        await self.go.wait()
        schemas = {}
        for one in ObjectType:
            schema = parse_schema(schema_payload(one.value), object_type=one)
            assert isinstance(schema, Schema)
            schemas[one] = schema
        return schemas


async def test_rules_that_are_adopted_while_fields_are_read_stay():
    cache, log = SlowCache(), structlog.testing.CapturingLogger()
    learner = Learner(cache, ONE, log=log)
    learning = asyncio.create_task(learner.learn())
    await cache.asked.wait()
    learner.adopt(TWO)
    assert not learner.current().complete
    cache.go.set()
    await learning

    assert learner.current().rulebook is TWO
    assert learner.current().complete
    assert [one.rule.name for one in learner.current().bindings.bound] == ["Pitch"]
    (told,) = log.calls
    assert "rule Ghost cannot run" in told.kwargs["problem"]


async def test_adopted_rules_are_bound_to_the_known_fields_at_once():
    cache = SlowCache()
    cache.go.set()
    learner = Learner(cache, ONE, log=structlog.testing.CapturingLogger())
    await learner.learn()
    learner.adopt(TWO)
    assert learner.current().complete
    assert learner.current().rule("Ghost") is not None


class ShyCache(SlowCache):
    """A cache that knows nothing the first times, as another process is asking Close."""

    def __init__(self, looks_in_vain):
        super().__init__()
        self.go.set()
        self.in_vain = looks_in_vain

    async def load(self):
        self.in_vain -= 1
        return {} if self.in_vain >= 0 else await super().load()


async def test_a_start_waits_a_little_for_the_fields_that_another_process_asks_for():
    learner = Learner(ShyCache(2), ONE, log=structlog.testing.CapturingLogger())
    await learner.learn_at_start(patience_seconds=60)
    assert learner.current().complete


async def test_a_start_goes_on_without_fields_when_they_are_not_to_be_had():
    learner = Learner(ShyCache(10**6), ONE, log=structlog.testing.CapturingLogger())
    await learner.learn_at_start(patience_seconds=0.01)
    assert not learner.current().complete
