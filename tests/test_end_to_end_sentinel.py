"""The whole service on a Redis that fails over under load: nothing is lost, and nothing is paid for twice."""

from __future__ import annotations

import json
import subprocess
import sys
import threading

import pytest
import redis
from sentinel_box import SentinelBox
from stack import lively_world, running
from stack_parts import PROJECT
from waiting import wait_until

from service.enrichment import ACTIVE_STATES

pytestmark = pytest.mark.slow

LEADS = 300
LEADS_BEFORE = 100
LEADS_PER_SECOND = 30
WORKERS = ("worker-0", "worker-1")
RULES = """
version: 1
defaults: {settle: 0s, timeout: 10s, backoff: {first: 200ms, most: 1s}}
rules:
  - {name: Pitch, object: lead, field: Pitch}
"""


@pytest.fixture
def box(tmp_path):
    (tmp_path / "redis").mkdir()
    with SentinelBox(tmp_path / "redis") as made:
        yield made


@pytest.mark.long
def test_a_failover_under_load_loses_nothing_and_pays_for_nothing_twice(tmp_path, box):
    world = lively_world(latency_min_seconds=0.1, latency_max_seconds=0.8)
    with running(
        tmp_path,
        rules=RULES,
        world=world,
        workers=len(WORKERS),
        redis_url=box.url(),
        REDIS_WAIT_REPLICAS=1,
        RECONCILE_EVERY="off",
    ) as stack:
        leads: list[str] = []
        arriving = threading.Thread(target=let_arrive, args=(stack, leads))
        arriving.start()
        wait_until(lambda: len(leads) >= LEADS_BEFORE)
        before = box.master_port()
        box.kill(before)
        arriving.join()

        # a busy machine may make Sentinel fail over twice: what was in hand then waits for its lease to end
        counts = wait_until(lambda: all_ended(stack), seconds=240)
        assert box.master_port() != before
        assert (len(leads), sum(counts.values())) == (LEADS, LEADS)
        assert set(counts) <= {"filled", "confirmed"}
        assert [one for one in leads if stack.value(one, "Pitch") is None] == []
        assert (world.calls.ran, world.calls.most_runs_of_a_field) == (LEADS, 1)
        # deliveries came while there was no master, were refused, and came again
        assert stack.processes.logged("web", "not accepted")
        for worker in WORKERS:
            assert stack.processes.logged(worker, "settled")
        stack.processes.check()

        found = status(stack)
        assert (found["states"]["filled"] + found["states"]["confirmed"], len(found["workers"])) == (LEADS, 2)


def status(stack):
    """What the command says, as its user sees it."""
    done = subprocess.run(
        [sys.executable, "-m", "service.cli.main", "status", "--json"],
        env=stack.processes.environ,
        cwd=PROJECT,
        capture_output=True,
        check=True,
    )
    return json.loads(done.stdout)


def let_arrive(stack, leads):
    """Leads that people make all the while, whatever befalls Redis."""
    pause = threading.Event()
    for _ in range(LEADS):
        leads.append(stack.add_lead()["id"])
        pause.wait(1 / LEADS_PER_SECOND)


def all_ended(stack):
    """How many enrichments ended how, once all are final; None before, or while no master is known."""
    try:
        counts = stack.counts()
    except redis.RedisError:
        return None
    over = sum(counts.values()) >= LEADS and not ACTIVE_STATES & counts.keys()
    return counts if over else None
