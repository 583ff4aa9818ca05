"""From a lead to the call for its field while nothing else is going on."""

from __future__ import annotations

import http.client
import random
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING

from stack import lively_world, running
from waiting import wait_until

from service.sandbox.delivery import delivery_body, delivery_headers
from service.settings_values import WEBHOOK_PATH

if TYPE_CHECKING:
    from stack import Stack

    from tests.bench.figures import Figures

RULES = """
version: 1
defaults: {settle: 0s}
rules:
  - {name: Industry, object: lead, field: Industry}
"""
WARM_UP = 10
"""First leads, which are not counted: connections are made, and Close's limit becomes known."""
MOST_PAUSE_SECONDS = 0.2


def run_idle_latency(*, leads: int) -> Figures:
    """Send signed events of new leads one at a time, each when the one before has been called for.

    Counted is from just before the webhook is sent, on a connection that is there, to the moment at which the
    sandbox has read the call: receiving, planning, the job, one look at the record, and the call. The sandbox
    shares this process, which waits meanwhile.

    Args:
        leads: how many are counted.
    """
    rng = random.Random(3)  # noqa: S311  when the next lead comes is no secret
    with (
        tempfile.TemporaryDirectory() as directory,
        running(
            Path(directory),
            rules=RULES,
            world=lively_world(),
            events=(("lead", "deleted"),),
            LOG_LEVEL="info",
        ) as stack,
    ):
        connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=10)
        found = []
        for number in range(WARM_UP + leads):
            time.sleep(MOST_PAUSE_SECONDS * rng.random())
            seconds = _one(stack, connection)
            if number >= WARM_UP:
                found.append(seconds * 1000)
        connection.close()
    return {
        "leads": leads,
        "p50_ms": round(median(found), 2),
        "p99_ms": round(quantiles(found, n=100)[98], 2),
        "slowest_ms": round(max(found), 2),
    }


def _one(stack: Stack, connection: http.client.HTTPConnection) -> float:
    lead = stack.add_lead()
    event = stack.in_sandbox(
        lambda world: next(
            one.event for one in world.journal.newest_first() if one.event["object_id"] == lead["id"]
        )
    )
    body = delivery_body("whsub_bench", event)
    key = stack.processes.environ["CLOSE_SIGNATURE_KEYS"]
    headers = delivery_headers(signature_key=key, timestamp=int(time.time()), body=body)
    sent_at = time.time()
    connection.request("POST", WEBHOOK_PATH, body=body, headers=headers)
    connection.getresponse().read()
    wait_until(lambda: stack.calls(lead["id"]), seconds=10)
    return stack.calls(lead["id"])[0].started_at - sent_at
