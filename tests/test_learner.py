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
