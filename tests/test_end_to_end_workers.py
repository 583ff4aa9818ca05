"""Workers stopped, killed, paused, or RQ's own: every call is paid for once and nothing is left behind."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from stack import lively_world, running

from service import jobs
from service.enrichment import State

pytestmark = pytest.mark.slow

RULES = """
version: 1
defaults: {settle: 0s, timeout: 20s}
rules:
  - {name: Industry, object: lead, field: Industry}
  - {name: Employees, object: lead, field: Employee count}
  - {name: Pitch, object: lead, field: Pitch}
"""
NAMES = ("Industry", "Employees", "Pitch")
CALL_SECONDS = 5.0
"""Long enough to do something to a worker meanwhile, on a busy machine, too."""


def slow_world(call_seconds=CALL_SECONDS):
    return lively_world(latency_min_seconds=call_seconds, latency_max_seconds=call_seconds)


def lead_being_asked_about(stack):
    """A lead whose three calls are in flight; its id."""
    lead_id = stack.add_lead()["id"]
    stack.wait(lambda: stack.world.calls.open == len(NAMES))
    return lead_id


def assert_each_called_once(stack, lead_id, found, state):
    assert {found[name].state for name in NAMES} == {state}
    assert sorted(call.field_id for call in stack.calls(lead_id)) == sorted(
        found[name].field_id for name in NAMES
    )
    assert {found[name].calls for name in NAMES} == {1}
    for entry in found.values():
        assert stack.value(lead_id, entry.field_name) == entry.value


def take_over(stack, lead_id):
    """Have a second worker take over what a silent one has in hand, without the wait for its leases."""
    stack.wait(lambda: not stack.world.calls.open)
    stack.let_leases_end(stack.entries(lead_id).values())
    stack.start_worker("second")
    stack.wait(lambda: all(entry.ambiguous for entry in stack.entries(lead_id).values()))
    stack.let_waits_end()


def test_a_stopping_worker_lets_calls_in_flight_finish_and_leaves_nothing_behind(tmp_path):
    with running(tmp_path, rules=RULES, world=slow_world()) as stack:
        lead_id = lead_being_asked_about(stack)
        stack.processes.send("worker", signal.SIGTERM)
        stack.wait(lambda: stack.processes.logged("worker", "stopping"))
        later = stack.add_lead()["id"]

        assert stack.processes.wait("worker") == 0
        assert_each_called_once(stack, lead_id, stack.ended(lead_id, *NAMES, seconds=0), State.FILLED)
        stack.wait(lambda: len(stack.entries(later)) == len(NAMES))
        assert {entry.state for entry in stack.entries(later).values()} == {State.PLANNED}
        assert stack.redis.llen(jobs.queue_key(jobs.LIVE_QUEUE)) == len(NAMES)
        assert stack.calls(later) == []
        assert stack.redis.smembers("rq:workers") == set()
        assert stack.jobs_in_hand() == 0
        assert stack.processes.left() == [stack.processes.pid("web")]


def test_calls_that_outlast_the_grace_are_put_back_and_confirmed_without_a_second_call(tmp_path):
    with running(tmp_path, rules=RULES, world=slow_world(), SHUTDOWN_GRACE="0.1s") as stack:
        lead_id = lead_being_asked_about(stack)
        stack.processes.send("worker", signal.SIGTERM)

        assert stack.processes.wait("worker") == 0
        put_back = stack.entries(lead_id)
        assert {(entry.state, entry.ambiguous) for entry in put_back.values()} == {(State.WAITING, True)}
        assert stack.redis.smembers("rq:workers") == set()

        stack.wait(lambda: not stack.world.calls.open)
        stack.let_waits_end()
        stack.start_worker("second")
        assert_each_called_once(stack, lead_id, stack.ended(lead_id, *NAMES), State.CONFIRMED)
        stack.wait(lambda: not stack.rq_leftovers())


def test_a_killed_workers_calls_are_taken_over_and_confirmed_without_a_second_call(tmp_path):
    with running(tmp_path, rules=RULES, world=slow_world()) as stack:
        lead_id = lead_being_asked_about(stack)
        stack.processes.kill("worker")
        take_over(stack, lead_id)

        assert_each_called_once(stack, lead_id, stack.ended(lead_id, *NAMES), State.CONFIRMED)


@pytest.mark.long
@pytest.mark.slow
def test_a_killed_workers_calls_are_taken_over_within_a_minute_in_real_time(tmp_path):
    with running(tmp_path, rules=RULES, world=slow_world()) as stack:
        lead_id = lead_being_asked_about(stack)
        # the other one comes later: its start must not give the calls time to end
        stack.processes.kill("worker")
        stack.start_worker("second")

        found = stack.ended(lead_id, *NAMES, seconds=60)
        assert_each_called_once(stack, lead_id, found, State.CONFIRMED)


def test_a_paused_worker_that_wakes_after_its_work_was_taken_over_changes_nothing(tmp_path):
    with running(tmp_path, rules=RULES, world=slow_world()) as stack:
        lead_id = lead_being_asked_about(stack)
        stack.processes.send("worker", signal.SIGSTOP)
        take_over(stack, lead_id)
        before = stack.ended(lead_id, *NAMES)
        stack.processes.send("worker", signal.SIGCONT)
        stack.wait(lambda: len(stack.let_go("worker")) == len(NAMES))

        assert {line["kept"] for line in stack.let_go("worker")} == {False}
        assert stack.entries(lead_id) == before
        assert_each_called_once(stack, lead_id, before, State.CONFIRMED)


def test_a_running_worker_and_its_jobs_are_visible_to_rq_info(tmp_path):
    # the calls last until rq has looked, however long its process takes to start
    with running(tmp_path, rules=RULES.replace("20s", "120s"), world=slow_world(60.0)) as stack:
        lead_being_asked_about(stack)
        shown = subprocess.run(
            [sys.executable, "-m", "rq.cli", "info", "--raw", "--url", stack.server.url],
            capture_output=True,
            text=True,
            timeout=50,
            check=True,
            env=stack.processes.environ,
        ).stdout
        pid = stack.processes.pid("worker")
        (name,) = stack.redis.smembers("rq:workers")

    queue, worker = shown.strip().splitlines()
    assert queue == f"queue {jobs.LIVE_QUEUE} 0, {len(NAMES)} executing, 0 finished, 0 failed"
    assert worker.startswith(f"worker {name.decode().removeprefix('rq:worker:')} ")
    assert f" {pid}) busy {jobs.LIVE_QUEUE}, {jobs.BULK_QUEUE}. " in worker


def test_rqs_own_worker_runs_our_jobs_to_their_end(tmp_path):
    with running(tmp_path, rules=RULES, workers=0) as stack:
        lead_id = stack.add_lead()["id"]
        stack.wait(lambda: len(stack.entries(lead_id)) == len(NAMES))
        stack.processes.start(
            "stock",
            *("worker", jobs.LIVE_QUEUE, "--burst", "--url", stack.server.url),
            *("--serializer", "rq.serializers.JSONSerializer", "--job-class", "service.jobs.EnrichmentJob"),
            module="rq.cli",
        )

        # it forks for each job
        assert stack.processes.wait("stock", seconds=180) == 0, stack.processes.log("stock")
        assert_each_called_once(stack, lead_id, stack.ended(lead_id, *NAMES, seconds=0), State.FILLED)
        assert stack.rq_leftovers() == []


def test_a_worker_started_before_its_redis_waits_for_it(tmp_path):
    with running(tmp_path, rules=RULES, workers=0) as stack:
        stack.server.kill()
        stack.start_worker()
        stack.wait(lambda: stack.processes.logged("worker", "waits for Redis"))
        stack.server.start()
        stack.wait_ready("worker")
        lead_id = stack.add_lead()["id"]

        assert_each_called_once(stack, lead_id, stack.ended(lead_id, *NAMES), State.FILLED)
