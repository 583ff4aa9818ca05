"""Two worker processes keep Close's pace together: everything is filled, and hardly a call is refused."""

from __future__ import annotations

import pytest
from stack import lively_world, running

from service.sandbox.control import add_invented_leads
from service.sandbox.options import Limit

pytestmark = pytest.mark.slow

RULES = """
version: 1
defaults: {settle: 0s}
rules:
  - {name: Industry, object: lead, field: Industry}
  - {name: Employees, object: lead, field: Employee count}
  - {name: Pitch, object: lead, field: Pitch}
"""
LEADS = 60
CALLS = 3 * LEADS


def test_two_workers_fill_every_field_at_closes_pace_with_hardly_a_refusal(tmp_path):
    # where the machine stands still for a second, the bucket gathers places for what then comes together
    limits = {"POST enrich_field": Limit(rate_per_second=40, burst=60)}
    world = lively_world(latency_min_seconds=0.05, latency_max_seconds=0.2, limits=limits)
    with running(tmp_path, rules=RULES, world=world, workers=2, WORKER_CONCURRENCY=CALLS // 2) as stack:
        stack.in_sandbox(lambda world: add_invented_leads(world, LEADS))
        assert stack.all_ended(total=CALLS) == {"filled": CALLS}
        assert len(stack.calls()) == CALLS
        assert stack.world.calls.most_runs_of_a_field == 1
        assert stack.world.tally.rate_limited <= 2
        asked = [len(stack.processes.logged(f"worker-{number}", "asked Close")) for number in range(2)]
        assert min(asked) > 0
