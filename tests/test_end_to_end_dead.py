"""Dead letters and quarantine, the whole way: what a person retries is read back and called for."""

from __future__ import annotations

import pytest
import redis
from receiver_box import Receiver, sample_event, save_schemas
from stack import lively_world, running
from waiting import wait_until

from service import intake, keys
from service.dead_letter_filter import Wanted
from service.dead_letters import DeadLetters
from service.enrichment import State
from service.sandbox.faults import FaultRule
from service.sandbox.fields import FieldSpec
from service.sandbox.ids import named_id
from service.scripts import script_text

pytestmark = pytest.mark.slow

# held once a call would have timed out; the call that is answered must not, on however busy a machine
RULES = """
version: 1
defaults: {settle: 0s, timeout: 10s, on_ambiguous: hold, backoff: {first: 100ms, most: 200ms}}
rules:
  - {name: Lost, object: lead, field: Lost}
  - {name: Late, object: lead, field: Late}
"""


def test_a_held_call_that_ran_late_is_confirmed_and_one_that_did_not_is_made_once_a_person_retries(tmp_path):
    fields = tuple(FieldSpec(id=named_id("cf", name), name=name, type="text") for name in ("Lost", "Late"))
    world = lively_world(fields=fields)
    for field in fields:
        world.faults.add(FaultRule(kind="drop_before", count=1, field_id=field.id))
    with running(tmp_path, rules=RULES, world=world) as stack:
        lead_id = stack.add_lead()["id"]
        held = stack.ended(lead_id, "Lost", "Late")
        assert {entry.state for entry in held.values()} == {State.HELD}

        stack.change("lead", lead_id, **{world.field_named("Late").key: "it did run"})

        async def retry(ledger):
            letters = DeadLetters(ledger)
            return await letters.all_wanted(letters.retry, Wanted(), most=10, until_ms=await letters.now_ms())

        assert stack.ask(retry) == 2
        ended = stack.ended(lead_id, "Lost", "Late")
        assert {rule: entry.state for rule, entry in ended.items()} == {
            "Lost": State.FILLED,
            "Late": State.CONFIRMED,
        }
        assert stack.value(lead_id, "Late") == "it did run"
        assert len(stack.calls(lead_id, "Late")) == 1
        assert len(stack.calls(lead_id, "Lost")) == 2


def test_a_quarantined_event_that_can_be_read_now_is_planned_once_it_is_retried(redis_url, monkeypatch):
    monkeypatch.setattr(intake, "BACKLOG_PAUSE_SECONDS", 0.01)
    save_schemas(redis_url)
    body = sample_event("04", id="ev_1", object_id="cont_1")
    with redis.Redis.from_url(redis_url) as client, Receiver(redis_url):
        kept_as = client.xadd(keys.QUARANTINE, {"reason": "odd", "size": len(body), "body": body})
        retry = client.register_script(script_text("unquarantine"))
        assert retry(keys=[keys.QUARANTINE, keys.BACKLOG], args=[kept_as]) == b"retried"
        wait_until(lambda: client.exists(keys.object_entries("cont_1")))
        assert client.xlen(keys.QUARANTINE) == 0
