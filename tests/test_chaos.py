"""Anything is killed, paused or cut off at any time: nothing is lost, nothing is paid for twice.

`pytest -m chaos` runs it. CHAOS_EVENTS says how many leads are made (300, bounded for CI; 2000 is the full
form), CHAOS_SEEDS which seeds are played, with commas; without, one is drawn. What was played is printed
where it fails; the same seed deals the same blows at the same moments. CHAOS_REPORT names a file that gets
one line of JSON for each seed.
"""

from __future__ import annotations

import json
import os
import random
import secrets
import time
from collections import Counter
from pathlib import Path

import pytest
from chaos_monkey import FORGED_ID, Line, Monkey, strikes_of, sync_always
from stack import lively_world, running

from service import jobs, keys
from service.check import check
from service.enrichment import ACTIVE_STATES, State, entry_of_job
from service.redis_text import texts

EVENTS = int(os.environ.get("CHAOS_EVENTS", "300"))
SEEDS = [int(one) for one in os.environ.get("CHAOS_SEEDS", "").split(",") if one] or [None]
REPORT = os.environ.get("CHAOS_REPORT")
SECONDS = max(15.0, EVENTS / 33)
STRIKES_PER_SECOND = 2
CLOSE_IS_DOWN_FROM_EVENTS = 300
"""A shorter run would have Close down for most of it."""

PATIENCE_SECONDS = 480.0
WORKERS = ("worker-0", "worker-1", "worker-2")
FIELDS = ("Industry", "Employee count", "Pitch")
RULES = """
version: 1
defaults: {settle: 0s, timeout: 3s, attempts: 30, backoff: {first: 100ms, most: 1s}}
rules:
  - {name: Industry, object: lead, field: Industry}
  - {name: Employee count, object: lead, field: Employee count}
  - {name: Pitch, object: lead, field: Pitch, mode: overwrite}
"""


@pytest.mark.chaos
@pytest.mark.long
@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost_or_paid_for_twice_whatever_is_killed(tmp_path, seed):
    # not drawn at import: the processes of a parallel run must agree about which tests there are
    seed = secrets.randbelow(10**6) if seed is None else seed
    try:
        summary = play(tmp_path, seed)
    except Exception as error:
        report({"seed": seed, "failed": next(iter(f"{type(error).__name__}: {error}".splitlines()))})
        raise
    report(summary)
    assert (summary["lost"], summary["paid_twice"], summary["unfinished"]) == (0, 0, 0)


def report(summary):
    """One line for people, and one of JSON in the file that CHAOS_REPORT names."""
    line = json.dumps(summary)
    print("\nchaos:", line)  # noqa: T201
    if REPORT:
        with Path(REPORT).open("a") as file:
            file.write(f"{line}\n")


def play(tmp_path, seed):
    """One run by one seed; what is worth telling about it."""
    begun = time.monotonic()
    chance = random.Random(seed)  # noqa: S311  tests need repetition, not secrecy
    strikes = strikes_of(
        chance,
        seconds=SECONDS,
        number=round(SECONDS * STRIKES_PER_SECOND),
        workers=WORKERS,
        close_down=EVENTS >= CLOSE_IS_DOWN_FROM_EVENTS,
    )
    # half of the seeds do without Close's event log
    reconcile_every = chance.choice(["off", "5s"])
    print(f"seed {seed}, {EVENTS} events, event log {reconcile_every}")  # noqa: T201  shown where it fails
    for strike in strikes:
        print(strike)  # noqa: T201
    world = lively_world(latency_min_seconds=0.2, latency_max_seconds=1.4)
    with running(tmp_path, rules=RULES, world=world, web=False, workers=0) as stack:
        line, deliveries = Line(stack.processes.environ["CLOSE_API_URL"]), Line(stack.url)
        with (
            stack._background.entered(line.laid()) as url,
            stack._background.entered(deliveries.laid()) as receiver_url,
        ):
            deliver_to(stack, receiver_url)
            stack.processes.environ |= {
                "CLOSE_API_URL": f"{url}/api/v1",
                "RECONCILE_EVERY": reconcile_every,
                "SHUTDOWN_GRACE": "0.2s",
                "SIGNATURE_MAX_AGE": "5m",
            }
            sync_always(stack)
            stack.start_web()
            for name in WORKERS:
                stack.start_worker(name)
            stack.wait_ready("web", *WORKERS)

            monkey = Monkey(stack, line=line, deliveries=deliveries, workers=WORKERS)
            leads = make_chaos(stack, monkey, strikes)
            counts = all_ended(stack, total=len(leads) * len(FIELDS))
            lost = lost_fields(stack, leads)
            assert lost == {}
            twice = fields_paid_twice(stack)
            assert not twice, stories(stack, twice)
            assert sum(counts.values()) == len(leads) * len(FIELDS)
            assert stack.entries(FORGED_ID) == {}
            assert set(monkey.answers) <= {401, 503, None}
            assert_nothing_left(stack)
            assert stack.ask(check).found == Counter()
            stack.processes.check()
            print("answers to forgeries", dict(monkey.answers))  # noqa: T201
            return {
                "seed": seed,
                "events": len(leads),
                "reconcile": reconcile_every,
                "strikes": dict(Counter(strike.kind for strike in strikes)),
                "ended": counts,
                "requests": world.calls.requests,
                "runs": world.calls.ran,
                "lost": len(lost),
                "paid_twice": len(twice),
                "unfinished": sum(counts.get(state, 0) for state in ACTIVE_STATES),
                "seconds": round(time.monotonic() - begun),
            }


def deliver_to(stack, receiver_url):
    """Have the sandbox deliver by this way."""
    (subscription,) = stack.world.subscriptions.values()
    stack.in_sandbox(lambda _: setattr(subscription, "url", f"{receiver_url}/webhooks/close"))


def make_chaos(stack, monkey, strikes):
    """Leads made all the time, blows dealt in between; the leads' ids, once all is put right again."""
    leads = []
    for number in range(EVENTS):
        monkey.plan(SECONDS * number / EVENTS, lambda: leads.append(stack.add_lead()["id"]))
    for strike in strikes:
        monkey.plan(strike.at_seconds, lambda strike=strike: monkey.deal(strike))
    while (wait_seconds := monkey.act()) is not None:
        time.sleep(wait_seconds)  # until the plan's next moment, not for a result
    return leads


def all_ended(stack, *, total):
    """Wait until all enrichments are final; how many ended how. Fields that timed out are tried at once."""

    def look():
        if stack.redis.scard(keys.BREAKERS):
            end_pauses(stack)
        counts = stack.counts()
        over = sum(counts.values()) >= total and not ACTIVE_STATES & counts.keys()
        return counts if over else None

    return stack.wait(look, seconds=PATIENCE_SECONDS)


def end_pauses(stack):
    """As if the pause of fields that timed out were over. Unclear calls are read back no earlier for that."""
    for field in FIELDS:
        field_id = stack.world.field_named(field).id
        stack.redis.delete(keys.breaker(field_id))
        stack.redis.srem(keys.BREAKERS, field_id)
    for queue in jobs.QUEUES:
        for job_id in texts(stack.redis.zrange(jobs.scheduled_key(queue), 0, -1)):
            reason = stack.redis.hget(keys.entry(entry_of_job(job_id)), "reason") or b""
            if reason.startswith(b"calls for "):
                stack.redis.zadd(jobs.scheduled_key(queue), {job_id: 1.0}, xx=True)


def lost_fields(stack, leads):
    """Fields without a value or whose end is not explained, with what the ledger has of them."""
    lost = {}
    for lead_id in leads:
        found = stack.entries(lead_id)
        for field in FIELDS:
            entry = found.get(field)
            explained = (
                entry is not None and entry.state.final and (entry.reason or entry.state is State.FILLED)
            )
            # a call that was paid for, and that the ledger does not count, would be lost to the price list
            if not explained or stack.value(lead_id, field) is None or entry.calls < 1:
                lost[lead_id, field] = None if entry is None else (entry.state, entry.reason, entry.calls)
    return lost


def fields_paid_twice(stack):
    return [pair for pair, runs in stack.world.calls.ran_by_field.items() if runs > 1]


def stories(stack, twice):
    """What happened to each of these fields."""
    lines = []
    for object_id, field_id in twice:
        lines += [repr(call) for call in stack.calls(object_id) if call.field_id == field_id]
        for entry in stack.entries(object_id).values():
            if entry.field_id == field_id:
                lines += [
                    repr(fact) for fact in stack.ask(lambda ledger, entry=entry: ledger.story(entry.id))
                ]
    return "\n".join(lines)


def assert_nothing_left(stack):
    """RQ's queues and registries are empty, once the silence of dead workers' executions counts."""
    for queue in jobs.QUEUES:
        silent = stack.redis.zrange(jobs.started_key(queue), 0, -1)
        if silent:
            stack.redis.zadd(jobs.started_key(queue), dict.fromkeys(silent, 1.0), xx=True)
    stack.wait(lambda: not rq_left(stack))


def rq_left(stack):
    return [key for key in stack.rq_leftovers() if not key.startswith(("rq:execution", "rq:dependents"))]
