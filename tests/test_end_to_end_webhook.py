"""The subscription looks after itself: made at the start, revived after Close paused it, its gap filled."""

from __future__ import annotations

import contextlib
import time

import pytest
from stack import lively_world, running

from service import keys
from service.enrichment import State
from service.sandbox import records

pytestmark = pytest.mark.slow

RULES = """
version: 1
defaults: {settle: 0s}
rules:
  - {name: Pitch, object: lead, field: Pitch}
"""
THREE_DAYS_IN_SECONDS = 2.6
SCALE = THREE_DAYS_IN_SECONDS / (3 * 86400)


@contextlib.contextmanager
def unattended(directory, **options):
    """A stack whose subscription nobody has made, and whose keys nobody has named."""
    world = lively_world(clock_scale=SCALE, **options)
    with running(directory, rules=RULES, world=world, web=False, workers=0) as stack:
        stack.in_sandbox(lambda world: world.subscriptions.clear())
        # the event log is walked at the start, and later only when something asks for it
        stack.processes.environ |= {
            "PUBLIC_URL": stack.url,
            "CLOSE_SIGNATURE_KEYS": "",
            "RECONCILE_EVERY": "1d",
        }
        stack.start_web()
        stack.start_worker()
        stack.wait_ready("web", "worker")
        stack.wait(lambda: stack.world.subscriptions and quiet(stack))
        # else the first delivery is refused, and the one that is accepted is no first
        stack.wait(lambda: knows_a_key(stack))
        yield stack


def knows_a_key(stack):
    return "signature key" not in stack.degraded()


def quiet(stack):
    """Whether the event log has been walked and nobody asks for another walk."""
    return stack.redis.exists(keys.RECONCILED) and not stack.redis.exists(keys.RECONCILE_NOW)


def subscription(stack):
    (one,) = stack.world.subscriptions.values()
    return one


def taken(one):
    """How many deliveries of a subscription were answered 2xx, at the first attempt or a later one."""
    return one.counters["first_success"] + one.counters["retry_success"]


def fail_for_three_days(stack):
    """Every delivery fails, for three days of Close's time; the leads made meanwhile."""
    lost = [stack.add_lead() for _ in range(4)]
    stack.wait(lambda: subscription(stack).failing_since is not None)
    since = subscription(stack).failing_since
    stack.wait(lambda: time.time() - since > THREE_DAYS_IN_SECONDS)
    return [*lost, stack.add_lead()]


def fill_the_queue(stack):
    """More events wait for delivery than Close keeps; the leads they are about."""
    body = {"name": "Brindlemoor Joinery", "url": "https://brindlemoor.example"}

    def make(world):
        cause = world.cause(path="/api/v1/lead/", method="POST")
        return [records.create_lead(world, body, cause) for _ in range(5)]

    # in one go: an event that is tried for 72 hours of Close's time, a moment here, is dropped
    return stack.in_sandbox(make)


@pytest.mark.parametrize(
    ("fail", "options", "pause_reason"),
    [
        pytest.param(fail_for_three_days, {}, "delivery_failures", id="three days of failures"),
        pytest.param(fill_the_queue, {"backlog_limit": 5}, "backlog", id="a full queue"),
    ],
)
def test_a_subscription_that_close_has_paused_is_revived_and_its_gap_filled_without_a_person(
    tmp_path, fail, options, pause_reason
):
    with unattended(tmp_path, **options) as stack:
        before = stack.add_lead()
        stack.ended(before["id"], "Pitch")
        # Close's side hears of the 202 when it reads it; the call may be through by then
        stack.wait(lambda: taken(subscription(stack)) == 1)

        stack.processes.kill("web")
        lost = fail(stack)
        stack.wait(lambda: subscription(stack).status == "paused")
        assert subscription(stack).pause_reason == pause_reason
        never_delivered = [stack.add_lead() for _ in range(5)]
        assert stack.counts() == {"filled": 1}

        stack.start_web()
        stack.wait_ready("web")
        # the next look is due
        stack.redis.delete(keys.WEBHOOK_WATCHER)
        stack.wait(lambda: subscription(stack).status == "active")
        for lead in (*lost, *never_delivered):
            assert stack.ended(lead["id"], "Pitch")["Pitch"].state is State.FILLED

        after = stack.add_lead()
        stack.ended(after["id"], "Pitch")
        stack.wait(lambda: taken(subscription(stack)) == 2)
        assert stack.counts() == {"filled": 12}
        assert (stack.world.calls.ran, stack.world.calls.most_runs_of_a_field) == (12, 1)
        assert stack.processes.logged("worker", "the subscription was paused and is active again")
        secret = subscription(stack).signature_key
        assert secret not in stack.processes.logs()


def test_while_its_key_is_replaced_every_event_is_taken_and_paid_for_once(tmp_path):
    with unattended(tmp_path) as stack:
        old = subscription(stack)
        stack.processes.start("rotate", "webhook", "rotate")
        assert stack.processes.wait("rotate") == 0, stack.processes.log("rotate")
        assert len(stack.world.subscriptions) == 2
        leads = [stack.add_lead() for _ in range(5)]
        assert stack.all_ended(total=5) == {"filled": 5}
        # one whose first delivery came before its key was known has to be tried again
        stack.wait(lambda: all(map(taken, list(stack.world.subscriptions.values()))))

        stack.redis.delete(keys.WEBHOOK_WATCHER)
        stack.wait(lambda: old.id not in stack.world.subscriptions)
        stack.wait(lambda: stack.redis.hlen(keys.SIGNATURE_KEYS) == 1)
        leads.append(stack.add_lead())
        stack.ended(leads[-1]["id"], "Pitch")
        assert (stack.world.calls.ran, stack.world.calls.most_runs_of_a_field) == (6, 1)
