"""Releases side by side, as in a rolling upgrade, and a Redis that forgets its scripts meanwhile."""

from __future__ import annotations

import secrets
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime

import pytest
from backfill_box import add_old_leads, backfill, remembers_for_long
from bench.measure import cpu_seconds
from stack import lively_world, running
from stack_parts import PROJECT

from service import jobs, keys
from service.enrichment import ENTRY_VERSION, State, entry_id
from service.jobs import EnrichmentJob
from service.sandbox.control import add_invented_leads

pytestmark = pytest.mark.slow

NEXT = "tests.next_release"
RULES = """
version: 1
defaults: {settle: 0s, timeout: 20s}
rules:
  - {name: Industry, object: lead, field: Industry}
  - {name: Employees, object: lead, field: Employee count}
  - {name: Pitch, object: lead, field: Pitch}
"""
NAMES = {"Industry": "Industry", "Employees": "Employee count", "Pitch": "Pitch"}
LEADS = 20
SECONDS = 30.0
LEFT = "left to workers of a newer release"
LOOKS = 6
CALL_SECONDS = 5.0
"""Long enough to kill a worker meanwhile, on a busy machine, too."""


def add_leads(stack, number=LEADS):
    return [lead["id"] for lead in stack.in_sandbox(lambda world: add_invented_leads(world, number))]


def planned(stack, number):
    """Wait until so many enrichments are in the ledger; their ids."""
    stack.wait(lambda: sum(stack.counts().values()) >= number)
    return [one.rpartition(b":")[2].decode() for one in stack.redis.keys(keys.entry("*"))]


def versions(stack, ids):
    return {int(stack.redis.hget(keys.entry(one), "v")) for one in ids}


def assert_each_called_once(stack, *leads):
    calls = sorted((call.object_id, call.field_id) for call in stack.calls())
    fields = [stack.world.field_named(name).id for name in NAMES.values()]
    assert calls == sorted((lead, field) for lead in leads for field in fields)


def started(stack, name, *arguments):
    stack.processes.start(name, *arguments, module=NEXT)
    return name


def test_in_a_mixed_fleet_each_release_does_what_it_can_at_once(tmp_path):
    with running(tmp_path, rules=RULES, workers=0) as stack:
        before = add_leads(stack)
        old_ids = planned(stack, LEADS * len(NAMES))
        stack.processes.send("web", signal.SIGTERM)
        assert stack.processes.wait("web") == 0
        stack.processes.start("web", "web", module=NEXT)
        stack.wait_ready("web")
        after = add_leads(stack)
        new_ids = set(planned(stack, 2 * LEADS * len(NAMES))) - set(old_ids)
        assert (versions(stack, old_ids), versions(stack, new_ids)) == ({ENTRY_VERSION}, {ENTRY_VERSION + 1})

        # three old ones to one: chance would bring a newer job to an old one again and again
        olds = ["old-0", "old-1", "old-2"]
        for old in olds:
            stack.start_worker(old)
        # the new one could take all that is newer before any of them sees it
        stack.wait(lambda: any(stack.processes.logged(old, LEFT) for old in olds))
        started(stack, "new", "worker")
        stack.wait_ready(*olds, "new")
        later = add_leads(stack)
        began_at = time.monotonic()
        assert stack.all_ended(total=3 * LEADS * len(NAMES)) == {State.FILLED: 3 * LEADS * len(NAMES)}

        assert time.monotonic() - began_at < SECONDS
        assert_each_called_once(stack, *before, *after, *later)
        by_old = {line["enrichment"] for old in olds for line in stack.processes.logged(old, "settled")}
        assert by_old <= set(old_ids)
        # one whose turn comes when others have taken everything sees nothing to tell
        assert max(len(stack.processes.logged(old, LEFT)) for old in olds) == 1, "told, and not all the time"
        stack.wait(lambda: not stack.rq_leftovers())


def test_an_old_worker_alone_leaves_newer_work_untouched_at_its_ease_until_a_new_one_comes(tmp_path):
    with running(tmp_path, rules=RULES, web=False, workers=1) as stack:
        stack.processes.start("web", "web", module=NEXT)
        stack.wait_ready("web")
        leads = add_leads(stack)
        ids = planned(stack, LEADS * len(NAMES))
        queue = jobs.queue_key(jobs.LIVE_QUEUE)
        stack.wait(lambda: stack.processes.logged("worker", LEFT))
        before = {one: stack.redis.hgetall(keys.entry(one)) for one in ids}
        waiting = stack.redis.lrange(queue, 0, -1)
        assert len(waiting) == len(ids)

        def lines():
            return stack.redis.info("commandstats")["cmdstat_lindex"]["calls"]

        looked, used, began_at = lines(), cpu_seconds(stack.processes.pid("worker")), time.monotonic()
        stack.wait(lambda: lines() - looked >= LOOKS * len(ids))
        elapsed = time.monotonic() - began_at

        assert elapsed > (LOOKS - 2) * 0.5, "it looks twice a second"
        assert (cpu_seconds(stack.processes.pid("worker")) - used) / elapsed < 0.5
        assert stack.redis.lrange(queue, 0, -1) == waiting
        assert {one: stack.redis.hgetall(keys.entry(one)) for one in ids} == before
        assert stack.calls() == []
        assert stack.jobs_in_hand() == 0
        assert len(stack.processes.logged("worker", LEFT)) == 1

        started(stack, "new", "worker")
        stack.wait_ready("new")
        assert stack.all_ended(total=len(ids), seconds=SECONDS) == {State.FILLED: len(ids)}
        assert_each_called_once(stack, *leads)


def test_what_a_killed_new_worker_had_in_hand_is_taken_over_although_an_old_one_keeps_house(tmp_path):
    world = lively_world(latency_min_seconds=CALL_SECONDS, latency_max_seconds=CALL_SECONDS)
    with running(tmp_path, rules=RULES, world=world, web=False, workers=1) as stack:
        stack.processes.start("web", "web", module=NEXT)
        started(stack, "new", "worker")
        stack.wait_ready("web", "new")
        (lead_id,) = add_leads(stack, 1)
        stack.wait(lambda: stack.world.calls.open == len(NAMES))
        stack.processes.kill("new")
        stack.wait(lambda: not stack.world.calls.open)
        stack.let_leases_end(stack.entries(lead_id).values())
        # the old one's housekeeper sees them overdue and leaves them so, for the newer one's
        started(stack, "second", "worker")
        stack.wait(lambda: all(entry.ambiguous for entry in stack.entries(lead_id).values()))
        stack.let_waits_end()

        found = stack.ended(lead_id, *NAMES)
        assert {entry.state for entry in found.values()} == {State.CONFIRMED}
        assert_each_called_once(stack, lead_id)
        assert {len(stack.processes.logged("worker", event)) for event in ("settled", "rescued")} == {0}


def version_1_job(stack, one, *, rule, status):
    """An RQ job as version 1 wrote it; its id."""
    job_id = f"{one}-{secrets.token_hex(5)}"
    job = EnrichmentJob.create(
        jobs.JOB_FUNCTION,
        args=[],
        connection=stack.redis,
        id=job_id,
        serializer=jobs.JSONSerializer,
        timeout=1800,
        result_ttl=0,
        failure_ttl=86400,
        description=rule,
        origin=jobs.LIVE_QUEUE,
    )
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    written = {name: value for name, value in job.to_dict().items() if value != ""}
    written |= {"created_at": now, "enqueued_at": now, "status": status}
    stack.redis.hset(jobs.job_key(job_id), mapping=written)
    stack.redis.sadd(jobs.ALL_QUEUES_KEY, jobs.queue_key(jobs.LIVE_QUEUE))
    return job_id


def version_1_entry(stack, lead_id, rule, *, state, **more):
    """A ledger entry as version 1 wrote it, with nothing left out; its id."""
    organization_id, field = stack.world.organization.id, stack.world.field_named(NAMES[rule])
    one = entry_id(organization_id=organization_id, object_id=lead_id, field_id=field.id)
    now_ms = round(time.time() * 1000)
    queued = state is not State.CALLING
    job_id = version_1_job(stack, one, rule=rule, status="scheduled" if state is State.WAITING else "queued")
    facts = {
        "v": 1,
        "org": organization_id,
        "type": "lead",
        "object": lead_id,
        "lead": lead_id,
        "field": field.id,
        "name": field.name,
        "rule": rule,
        "mode": "fill",
        "queue": jobs.LIVE_QUEUE,
        "event": "ev_1",
        "action": "created",
        "state": state.value,
        "reason": "lets the record settle" if state is State.WAITING else "",
        "job": job_id,
        "attempts": 0,
        "judged": 1,
        "planned_ms": now_ms,
        "changed_ms": now_ms,
        "due_ms": now_ms,
    }
    stack.redis.hset(keys.entry(one), mapping=facts | more)
    stack.redis.sadd(f"enrich:object:{lead_id}", one)
    stack.redis.hincrby(keys.COUNTS, state.value, 1)
    stack.redis.zadd(keys.ACTIVE, {one: now_ms + (600_000 if queued else -1)})
    if state is State.WAITING:
        stack.redis.zadd(jobs.scheduled_key(jobs.LIVE_QUEUE), {job_id: now_ms / 1000})
    elif queued:
        stack.redis.rpush(jobs.queue_key(jobs.LIVE_QUEUE), job_id)
    else:
        stack.redis.delete(jobs.job_key(job_id))
    return one


def test_what_version_1_wrote_is_worked_off(tmp_path):
    with running(tmp_path, rules=RULES, web=False, workers=0) as stack:
        lead_id = stack.add_lead()["id"]
        long_ago_ms = round(time.time() * 1000) - 60_000
        queued = version_1_entry(stack, lead_id, "Industry", state=State.PLANNED)
        settling = version_1_entry(stack, lead_id, "Employees", state=State.WAITING)
        # its worker was lost during the call, and the call had saved a value
        lost = {"holder": "w/1", "fence": 1, "asked": 1, "called_ms": long_ago_ms, "attempts": 1, "calls": 1}
        in_a_call = version_1_entry(stack, lead_id, "Pitch", state=State.CALLING, before="", **lost)
        stack.change("lead", lead_id, **{stack.world.field_named("Pitch").key: "Joinery software"})
        stack.start_worker()
        stack.wait(lambda: stack.counts() == {State.FILLED: 2, State.CONFIRMED: 1})

        found = stack.ended(lead_id, *NAMES, seconds=0)
        assert {rule: entry.id for rule, entry in found.items()} == {
            "Industry": queued,
            "Employees": settling,
            "Pitch": in_a_call,
        }
        assert {entry.version for entry in found.values()} == {1}
        assert len(stack.calls()) == 2
        assert all(stack.value(lead_id, entry.field_name) == entry.value for entry in found.values())
        stack.wait(lambda: not stack.rq_leftovers())


def command(stack, *arguments):
    """Run a command of ours to its end beside a stack."""
    return subprocess.run(
        [sys.executable, "-m", "service.cli.main", *arguments],
        env={**stack.processes.environ, "LOG_LEVEL": "warning"},
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def test_a_redis_that_forgets_its_scripts_again_and_again_disturbs_nobody(tmp_path):
    with running(tmp_path, rules=RULES, workers=2) as stack:
        remembers_for_long(stack)
        old = stack.in_sandbox(lambda world: add_old_leads(world, LEADS))
        over, flushed = threading.Event(), []

        def forget():
            while not over.wait(0.02):
                flushed.append(stack.redis.script_flush())

        forgetful = threading.Thread(target=forget)
        forgetful.start()
        try:
            leads = add_leads(stack)
            done = [
                backfill(stack, "--all", "--yes", "--json"),
                *(command(stack, *words) for words in (("halt",), ("resume",), ("check", "--repair"))),
            ]
            total = 2 * LEADS * len(NAMES)
            assert stack.all_ended(total=total) == {State.FILLED: total}
        finally:
            over.set()
            forgetful.join()

        assert [(one.returncode, one.stderr) for one in done if one.returncode] == []
        assert_each_called_once(stack, *leads, *old)
        assert len(flushed) > LEADS
        for name in ("web", "worker-0", "worker-1"):
            assert "NoScript" not in stack.processes.log(name)
            lines = stack.processes.facts(name)
            assert lines
            assert [
                line for line in lines if line["level"] == "error" or line["event"] == "handed back"
            ] == []
