"""Redis loses everything in the midst of work: Close's event log and the fields themselves bring it back."""

from __future__ import annotations

import shutil

import pytest
from stack import lively_world, running

from service import keys
from service.enrichment import State

pytestmark = [pytest.mark.slow, pytest.mark.long]

FIELDS = ("Industry", "Employee count", "Pitch")
RULES = """
version: 1
defaults: {settle: 0s, timeout: 10s}
rules:
  - {name: Industry, object: lead, field: Industry}
  - {name: Employee count, object: lead, field: Employee count}
  - {name: Pitch, object: lead, field: Pitch}
"""
LEADS = 16
TOTAL = LEADS * len(FIELDS)
FILLED_BEFORE = 10
IN_CALLS = 10
WORKERS = ("worker-0", "worker-1")


def flush(stack):
    stack.redis.flushall()


def lose_the_disk(stack):
    """Redis is killed, its append-only file is gone, and it is started again, empty."""
    stack.server.kill()
    shutil.rmtree(stack.directory / "appendonlydir")
    stack.server.start()


WIPES = [pytest.param(flush, id="flushed"), pytest.param(lose_the_disk, id="file deleted")]


def in_the_midst(stack):
    """Leads of which some fields are filled, some are being called for, and some wait."""
    leads = [stack.add_lead()["id"] for _ in range(LEADS)]
    calls = stack.world.calls
    tally = stack.world.tally

    def amid():
        # an event that was refused would come again after the loss
        all_taken = tally.deliveries_succeeded == LEADS
        return all_taken and calls.saved >= FILLED_BEFORE and calls.open >= IN_CALLS

    stack.wait(amid)
    assert calls.ran < TOTAL
    return leads


def assert_complete_and_paid_once(stack, leads):
    counts = stack.all_ended(total=TOTAL, seconds=150)
    assert set(counts) == {"kept", "filled"}
    # those that were filled before, and those that Close was at work on
    assert counts["kept"] >= FILLED_BEFORE
    for lead_id in leads:
        assert all(stack.value(lead_id, field) is not None for field in FIELDS)
        assert {entry.state for entry in stack.entries(lead_id).values()} <= {State.KEPT, State.FILLED}
    assert (stack.world.calls.ran, stack.world.calls.most_runs_of_a_field) == (TOTAL, 1)
    stack.processes.check()
    for name in ("web", *WORKERS):
        assert "Traceback" not in stack.processes.log(name)


def wiped(directory, **settings):
    # calls take longer than it takes to plan their fields once more, and more are in hand than may leave
    world = lively_world(latency_min_seconds=1.5, latency_max_seconds=5.0)
    return running(
        directory,
        rules=RULES,
        world=world,
        workers=2,
        WORKER_CONCURRENCY=20,
        MAX_IN_FLIGHT=20,
        **settings,
    )


@pytest.mark.parametrize("wipe", WIPES)
def test_leads_of_the_last_minutes_are_completed_without_a_person(tmp_path, wipe):
    with wiped(tmp_path, RECONCILE_EVERY="1s") as stack:
        leads = in_the_midst(stack)
        wipe(stack)
        assert_complete_and_paid_once(stack, leads)

        after = stack.add_lead()["id"]
        stack.ended(after, *FIELDS)
        # once Redis has learned of the workers anew
        stack.wait(lambda: "workers" not in stack.degraded())
        assert stack.degraded() == {}


def test_older_leads_are_completed_by_reconcile(tmp_path):
    # as if the leads were older than what is walked unasked
    with wiped(tmp_path, RECONCILE_EVERY="off") as stack:
        leads = in_the_midst(stack)
        flush(stack)
        stack.wait(lambda: stack.redis.exists(keys.SINCE))
        assert stack.counts() == {}

        stack.processes.start("reconcile", "reconcile", "--since", "1d")
        assert stack.processes.wait("reconcile") == 0, stack.processes.log("reconcile")
        del stack.processes._running["reconcile"]
        assert_complete_and_paid_once(stack, leads)
