"""A changed rules file takes effect in running processes; a broken one changes nothing and is told."""

from __future__ import annotations

import json
import re
import signal

import pytest
from stack import lively_world, running
from waiting import wait_until

from service.enrichment import State

pytestmark = pytest.mark.slow

PITCH = """
version: 1
defaults: {settle: 0s}
rules:
  - {name: Pitch, object: lead, field: Pitch}
"""
INDUSTRY = PITCH + "  - {name: Industry, object: lead, field: Industry}\n"
SENIORITY = "version: 1\nrules:\n  - {name: Seniority, object: contact, field: Seniority, settle: 0s}\n"
BROKEN = PITCH.replace("lead", "leed")
LONG_AGO_MS = 1
TOLD_TO = "looks at the rules file, as it was told to"


def rules_problem(stack):
    return stack.degraded().get("rules file", "")


def taken_up(stack, *names):
    return all(stack.processes.logged(name, "new rules are in force") for name in names)


def test_a_changed_file_takes_effect_and_a_broken_one_does_not(tmp_path):
    with running(tmp_path, rules=PITCH) as stack:
        first = stack.add_lead()
        stack.ended(first["id"], "Pitch")
        assert set(stack.entries(first["id"])) == {"Pitch"}
        assert rules_problem(stack) == ""

        stack.write_rules(INDUSTRY)
        stack.wait(lambda: taken_up(stack, "web", "worker"))
        second = stack.add_lead()
        ended = stack.ended(second["id"], "Pitch", "Industry")
        assert {entry.state for entry in ended.values()} == {State.FILLED}

        stack.write_rules(BROKEN)
        problem = stack.wait(lambda: rules_problem(stack))
        assert "rules.yaml:5:27: rules[0].object: 'leed' is not one of lead, contact" in problem
        assert "stay in force" in problem
        stack.wait(
            lambda: all(
                stack.processes.logged(name, "the rules file cannot be used; the rules in force stay")
                for name in ("web", "worker")
            )
        )
        stack.processes.start("status", "status", "--json", LOG_LEVEL="error")
        assert stack.processes.wait("status") == 0
        assert "'leed' is not one of" in json.loads(stack.processes.log("status"))["rules"]["problem"]
        third = stack.add_lead()
        assert set(stack.ended(third["id"], "Pitch", "Industry")) == {"Pitch", "Industry"}

        stack.write_rules(INDUSTRY)
        stack.wait(lambda: rules_problem(stack) == "")
        for name in ("web", "worker"):
            (told,) = stack.processes.logged(name, "the rules file cannot be used; the rules in force stay")
            assert len(told["problems"]) == 1


def test_on_sighup_web_and_worker_look_at_once(tmp_path):
    with running(tmp_path, rules=PITCH) as stack:
        stack.write_rules(INDUSTRY)
        for name in ("web", "worker"):
            stack.processes.send(name, signal.SIGHUP)
            stack.wait(lambda name=name: stack.processes.logged(name, TOLD_TO))
        stack.wait(lambda: taken_up(stack, "web", "worker"))
        stack.processes.check()


def test_what_was_planned_by_a_rule_that_is_gone_ends_with_the_reason(tmp_path):
    with running(tmp_path, rules=PITCH.replace("0s", "1h")) as stack:
        lead = stack.add_lead()
        entry = stack.entry_when(lead["id"], "Pitch", lambda entry: entry.state is State.WAITING)
        stack.write_rules(INDUSTRY.replace("name: Pitch", "name: Other"))
        stack.wait(lambda: taken_up(stack, "worker"))
        stack.let_waits_end()
        stack.entry_when(lead["id"], "Pitch", lambda entry: "its rule is not in this" in entry.reason)
        # as if the patience with rules that not every process knows yet had passed
        stack.redis.hset(f"enrich:entry:{entry.id}", "planned_ms", LONG_AGO_MS)
        stack.let_waits_end()
        ended = stack.ended(lead["id"], "Pitch")["Pitch"]
        assert (ended.state, ended.reason) == (
            State.SKIPPED,
            "its rule is no longer in the rules file, or fills another field now",
        )
        assert stack.calls(lead["id"]) == []


def test_a_new_kind_of_event_is_subscribed_to_soon(tmp_path):
    world = lively_world()
    with running(tmp_path, rules=PITCH, world=world, web=False, workers=0) as stack:
        stack.in_sandbox(lambda world: world.subscriptions.clear())
        stack.processes.environ |= {"PUBLIC_URL": stack.url, "CLOSE_SIGNATURE_KEYS": ""}
        stack.start_web()
        stack.start_worker()

        def subscribed():
            return {
                (event.object_type, event.action)
                for one in list(stack.world.subscriptions.values())
                for event in one.events
            }

        stack.wait(lambda: subscribed() == {("lead", "created")})
        stack.write_rules(SENIORITY)
        stack.wait(lambda: ("contact", "created") in subscribed())


def test_up_passes_sighup_on_to_its_parts(tmp_path):
    with running(tmp_path, rules=PITCH, web=False, workers=0) as stack:
        stack.processes.start("up", "up", "--data-dir", str(tmp_path / "data"), REDIS_URL="")
        stack.wait_ready("web")
        stack.wait(lambda: re.search(r'"event": "worker started"', stack.processes.log("up")))
        stack.write_rules(INDUSTRY)
        stack.processes.send("up", signal.SIGHUP)
        wait_until(lambda: len(stack.processes.logged("up", TOLD_TO)) == 2)
        wait_until(lambda: len(stack.processes.logged("up", "new rules are in force")) == 2)
        stack.processes.send("up", signal.SIGTERM)
        assert stack.processes.wait("up") == 0
