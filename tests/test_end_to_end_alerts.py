"""Alerts from real processes: used-up credits and a paused subscription are told, and that they are over."""

from __future__ import annotations

import pytest
from alert_box import PATH, channel
from stack import lively_world, running

from service import keys
from service.sandbox.faults import FaultRule

pytestmark = pytest.mark.slow

RULES = """
version: 1
defaults: {settle: 0s}
rules:
  - {name: Pitch, object: lead, field: Pitch}
"""


@pytest.mark.long
def test_a_halt_and_a_paused_subscription_are_told_once_each_and_when_they_are_over(tmp_path):
    world = lively_world()
    world.faults.add(FaultRule(kind="status:402", group="POST enrich_field"))
    with (
        channel() as receiver,
        running(tmp_path, rules=RULES, world=world, web=False, workers=0) as stack,
    ):
        stack.processes.environ |= {"PUBLIC_URL": stack.url, "ALERT_WEBHOOK_URL": receiver.url}
        stack.start_web()
        stack.start_worker()
        stack.wait_ready("web", "worker")

        def command(*arguments):
            name = "-".join(arguments)
            stack.processes.start(name, *arguments)
            assert stack.processes.wait(name) == 0, stack.processes.log(name)

        lead = stack.add_lead()["id"]
        stack.wait(lambda: stack.redis.exists(keys.HALT))
        command("webhook", "pause")
        # the next look is due
        stack.redis.delete(keys.WEBHOOK_WATCHER)
        stack.wait(lambda: "Alert: all calls are halted: " in receiver.text, seconds=100)
        stack.wait(lambda: "Alert: the webhook subscription needs attention: " in receiver.text, seconds=100)
        assert "is paused by a person" in receiver.text

        stack.in_sandbox(lambda world: world.faults.replace(()))
        command("resume")
        command("webhook", "resume")
        stack.redis.delete(keys.WEBHOOK_WATCHER)
        stack.wait(lambda: "Over: all calls are halted: " in receiver.text, seconds=100)
        stack.wait(lambda: "Over: the webhook subscription needs attention: " in receiver.text, seconds=100)
        stack.let_waits_end()
        assert stack.ended(lead, "Pitch")["Pitch"].state == "filled"

        lines = [
            line for line in receiver.text.splitlines() if not line.startswith("*close-enrich* at 127.0.0.1:")
        ]
        assert len(lines) == len({line.partition(" (")[0] for line in lines}) == 4
        logged = stack.processes.logged("web", "alert") + stack.processes.logged("worker", "alert")
        assert sorted((one["what"], one["about"]) for one in logged) == [
            ("begun", "halted"),
            ("begun", "subscription"),
            ("over", "halted"),
            ("over", "subscription"),
        ]
        assert PATH not in stack.processes.logs()
