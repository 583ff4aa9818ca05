"""When Close limits, refuses, drops or garbles calls: nothing is lost and nothing is paid for twice."""

from __future__ import annotations

from dataclasses import replace

import pytest
from stack import lively_world, running

from service.enrichment import State
from service.sandbox.faults import FaultRule
from service.sandbox.fields import FieldSpec
from service.sandbox.ids import named_id
from service.sandbox.options import DEMO_API_KEY, Limit

pytestmark = pytest.mark.slow

# what goes wrong with the first call, or every call: (fault, its count, more of the rule),
# then the final state, requests that reached Close, runs, and credits charged
ONCE = 1
# read back five seconds after it; calls of the other rules must not time out, on however busy a machine
TIMES_OUT = ", timeout: 3s"
FAULTS = {
    "dropped after it ran": (("drop_after", ONCE, ""), (State.CONFIRMED, 1, 1, 1)),
    "timed out after it was saved": (("timeout_after_saved", ONCE, TIMES_OUT), (State.CONFIRMED, 1, 1, 1)),
    "garbled": (("garbage", ONCE, ""), (State.CONFIRMED, 1, 1, 1)),
    "huge": (("huge", ONCE, ""), (State.CONFIRMED, 1, 1, 1)),
    "bad gateway after it ran": (("status_after:502", ONCE, ""), (State.CONFIRMED, 1, 1, 1)),
    "slower than its timeout": (("slow:5.5", ONCE, TIMES_OUT), (State.CONFIRMED, 1, 1, 1)),
    "dropped before it ran": (("drop_before", ONCE, ", timeout: 10s"), (State.FILLED, 2, 1, 1)),
    "a web page instead": (("html", ONCE, ""), (State.FILLED, 2, 1, 1)),
    "dropped, and to be held": (
        ("drop_before", ONCE, f", on_ambiguous: hold{TIMES_OUT}"),
        (State.HELD, 1, 0, 0),
    ),
    "unavailable twice": (("status:503", 2, ", attempts: 3"), (State.FILLED, 3, 1, 1)),
    "unavailable for good": (("status:503", None, ", attempts: 2"), (State.DEAD, 2, 0, 0)),
    "told to wait": (("status:429", 3, ", attempts: 1"), (State.FILLED, 4, 1, 1)),
    "a bad request": (("status:400", None, ""), (State.REJECTED, 1, 0, 0)),
    "not allowed": (("status:403", None, ""), (State.REJECTED, 1, 0, 0)),
    "not there": (("status:404", None, ""), (State.GONE, 1, 0, 0)),
}
ONE_RULE = """
version: 1
defaults: {settle: 0s, attempts: 1}
rules:
  - {name: Pitch, object: lead, field: Pitch}
"""
CASES = [pytest.param(name, expected, id=name) for name, (_, expected) in FAULTS.items()]


@pytest.fixture(scope="module")
def troubled(tmp_path_factory):
    """One lead with a field for each kind of trouble, all of them ended; what became of each, by fault."""
    fields = tuple(FieldSpec(id=named_id("cf", name), name=name, type="text") for name in FAULTS)
    world = lively_world(fields=fields)
    lines = [
        "version: 1",
        "defaults: {settle: 0s, timeout: 20s, backoff: {first: 100ms, most: 200ms}}",
        "rules:",
    ]
    for field in fields:
        (kind, count, more), _ = FAULTS[field.name]
        world.faults.add(
            FaultRule(
                kind=kind,
                count=count,
                field_id=field.id,
                retry_after_seconds=0.1 if kind == "status:429" else None,
            )
        )
        lines.append(f"  - {{name: '{field.name}', object: lead, field: '{field.name}'{more}}}")
    with running(tmp_path_factory.mktemp("troubled"), rules="\n".join(lines), world=world) as stack:
        lead = stack.add_lead()
        found = stack.ended(lead["id"], *FAULTS)
        yield stack, lead["id"], found


@pytest.mark.parametrize(("name", "expected"), CASES)
def test_a_call_that_goes_wrong_is_settled_without_paying_twice(troubled, name, expected):
    stack, lead_id, found = troubled
    calls = stack.calls(lead_id, name)
    ran = [call for call in calls if call.ran]

    assert (
        found[name].state,
        len(calls),
        len(ran),
        sum(call.charged for call in calls),
    ) == expected, found[name].reason
    assert found[name].reason or found[name].state is State.FILLED
    # saved only by calls that ran; held, dead, rejected and gone ones leave the field alone
    assert (stack.value(lead_id, name) is not None) == bool(ran)


@pytest.mark.parametrize(("name", "calls"), [("told to wait", 1), ("unavailable twice", 1), ("garbled", 1)])
def test_the_ledger_counts_only_calls_that_may_have_been_charged(troubled, name, calls):
    assert troubled[2][name].calls == calls


def test_a_rate_limit_uses_up_no_attempt(troubled):
    assert troubled[2]["told to wait"].attempts == 1


def test_a_storm_of_rate_limits_is_waited_out_by_all_workers(tmp_path):
    leads, refusals = 40, 12
    world = lively_world(limits={"POST enrich_field": Limit(rate_per_second=200.0, burst=20)})
    # the pace is learned so well that refusals have to be made up: somebody else uses the limit too
    world.faults.add(
        FaultRule(kind="status:429", group="POST enrich_field", count=refusals, retry_after_seconds=0.3)
    )
    with running(tmp_path, rules=ONE_RULE, world=world, workers=2) as stack:
        ids = [stack.add_lead()["id"] for _ in range(leads)]

        assert stack.all_ended(total=leads) == {"filled": leads}
        assert world.calls.statuses[429] == refusals
        assert (world.calls.ran, world.calls.most_runs_of_a_field) == (leads, 1)
        assert {stack.entries(one)["Pitch"].attempts for one in ids} == {1}


def use_up_credits(world):
    world.credits = 2


def give_credits(world):
    world.credits = 1000


def refuse_key(world):
    world.configure(replace(world.options, api_keys=("api_another",)))


def accept_key(world):
    world.configure(replace(world.options, api_keys=(DEMO_API_KEY,)))


@pytest.mark.parametrize(
    ("halt", "by"),
    [
        pytest.param((use_up_credits, give_credits, "plan_limit", 2), "a person", id="402"),
        pytest.param((refuse_key, accept_key, "key_refused", 0), "a trial of a new worker", id="401"),
    ],
)
def test_calls_halt_and_go_on_when_resumed_with_no_attempt_used(tmp_path, halt, by):
    breaks, mends, kind, runs_before = halt
    with running(tmp_path, rules=ONE_RULE, WORKER_CONCURRENCY=2) as stack:
        stack.in_sandbox(breaks)
        ids = [stack.add_lead()["id"] for _ in range(6)]
        found = stack.wait(lambda: stack.ask(lambda ledger: ledger.brakes.halted()))
        stack.wait(lambda: sum(stack.counts().values()) == 6 and not stack.jobs_in_hand())
        waiting = [entry for one in ids for entry in stack.entries(one).values() if not entry.state.final]

        assert found.kind == kind
        assert len(waiting) == 6 - runs_before
        assert {(entry.attempts, entry.calls) for entry in waiting} == {(0, 0)}
        # after the refusal, only what was under way at the same moment can have reached Close
        assert stack.world.calls.requests <= runs_before + 2

        stack.in_sandbox(mends)
        if by == "a person":
            assert stack.ask(lambda ledger: ledger.brakes.resume())
        else:
            stack.start_worker("new")
            stack.wait(lambda: stack.ask(lambda ledger: ledger.brakes.halted()) is None)
        stack.let_waits_end()
        assert stack.all_ended(total=6) == {"filled": 6}
        assert stack.world.calls.most_runs_of_a_field == 1
