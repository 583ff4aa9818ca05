"""A worker cut off from Redis, not from Close: its work is taken over; back again, it is fenced out."""

from __future__ import annotations

from pathlib import Path

import pytest
from network_box import (
    EVERYWHERE,
    REDIS_PORT,
    inside,
    network,
    sandbox_port,
    serve_redis_to_far,
    start_worker,
    why_not,
)
from stack import lively_world, running

from service.enrichment import State

pytestmark = pytest.mark.slow

CALL_SECONDS = 8.0
"""Long enough to pull a cable meanwhile, on a busy machine, too."""

RULES = """
version: 1
defaults: {settle: 0s, timeout: 20s}
rules:
  - {name: Industry, object: lead, field: Industry}
  - {name: Employees, object: lead, field: Employee count}
  - {name: Pitch, object: lead, field: Pitch}
"""
NAMES = ("Industry", "Employees", "Pitch")
TAKEN_OVER_WITHIN_SECONDS = 60.0


@pytest.fixture
def machines():
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    with network(2) as made, inside(made.hub):
        yield made


@pytest.mark.long
def test_a_worker_cut_off_from_redis_in_its_calls_is_taken_over_and_fenced_out(tmp_path, machines):
    cut_off, other = machines.far
    world = lively_world(latency_min_seconds=CALL_SECONDS, latency_max_seconds=CALL_SECONDS)
    with running(tmp_path, rules=RULES, world=world, workers=0, sandbox_host=EVERYWHERE) as stack:
        serve_redis_to_far(stack)
        start_worker(stack, "cut-off", cut_off)
        stack.wait_ready("cut-off")
        lead_id = stack.add_lead()["id"]
        stack.wait(lambda: stack.world.calls.open == len(NAMES))
        assert cut_off.reaches(cut_off.redis_host, REDIS_PORT)

        machines.pull(cut_off)
        in_hand = stack.entries(lead_id)
        start_worker(stack, "other", other)
        assert not cut_off.reaches(cut_off.redis_host, REDIS_PORT)
        assert cut_off.reaches(cut_off.close_host, sandbox_port(stack))
        stack.wait(lambda: not stack.world.calls.open)
        assert {entry.state for entry in in_hand.values()} == {State.CALLING}
        assert all(stack.value(lead_id, entry.field_name) for entry in in_hand.values()), (
            "Close has done its part"
        )

        found = stack.ended(lead_id, *NAMES, seconds=TAKEN_OVER_WITHIN_SECONDS)
        assert {entry.state for entry in found.values()} == {State.CONFIRMED}
        assert stack.let_go("cut-off") == [], "it cannot know yet"

        machines.plug_in(cut_off)
        stack.wait(lambda: len(stack.let_go("cut-off")) == len(NAMES))
        assert {line["kept"] for line in stack.let_go("cut-off")} == {False}
        assert stack.entries(lead_id) == found
        assert sorted(call.field_id for call in stack.calls(lead_id)) == sorted(
            entry.field_id for entry in found.values()
        )
        assert {entry.calls for entry in found.values()} == {1}

        # it is a worker like any other again
        stack.processes.kill("other")
        later = stack.add_lead()["id"]
        again = stack.ended(later, *NAMES)
        assert {entry.state for entry in again.values()} == {State.FILLED}
        assert len(stack.calls(later)) == len(NAMES)


def test_nothing_is_left_of_a_network(machines):
    names = [machines.hub, *(far.namespace for far in machines.far)]
    assert all(Path("/run/netns", name).exists() for name in names)
    machines.remove()
    machines.remove()
    assert not any(Path("/run/netns", name).exists() for name in names)
