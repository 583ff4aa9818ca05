"""The whole service sends its spans to a tracing system: two processes, one trace."""

from __future__ import annotations

import re
import signal

import pytest
from otlp_box import Collector
from stack import lively_world, running

from service.sandbox.faults import FaultRule

pytestmark = pytest.mark.slow

RULES = """
version: 1
defaults: {settle: 0s, timeout: 20s, backoff: {first: 100ms, most: 200ms}}
rules:
  - {name: Pitch, object: lead, field: Pitch}
"""
EXECUTION = ["read record", "wait for permit", "enrich_field"]


def test_one_trace_leads_from_the_delivery_in_one_process_to_the_filled_field_of_another(tmp_path):
    world = lively_world()
    world.faults.add(FaultRule(kind="status:503", count=1, field_id=world.field_named("Pitch").id))
    with (
        Collector() as collector,
        running(
            tmp_path,
            rules=RULES,
            world=world,
            workers=0,
            TRACING="otel",
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
            NO_PROXY="127.0.0.1",
        ) as stack,
    ):
        # one that starts beside web may have to wait for Close's fields, and put its first job off
        stack.start_worker()
        stack.wait_ready("worker")
        lead = stack.add_lead(name="Quillfeather Velocipedes")
        entry = stack.ended(lead["id"], "Pitch")["Pitch"]
        assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", entry.trace)
        for name in ("web", "worker"):
            stack.processes.send(name, signal.SIGTERM)
            assert stack.processes.wait(name) == 0
        # what had not been sent yet was sent at the end
        spans = {span.span_id: span for span in collector.spans}
        trace = [span for span in collector.spans if span.trace_id == entry.trace.split("-")[1]]
        ways = sorted((spans[one.parent_id].name if one.parent_id else "", one.name) for one in trace)
        assert ways == sorted(
            [
                ("", "POST /webhooks/close"),
                ("POST /webhooks/close", "plan"),
                ("POST /webhooks/close", "accept"),
                *[("accept", "enrich")] * 2,
                *[("enrich", name) for name in EXECUTION * 2],
                ("enrich", "postpone"),
                ("enrich", "settle"),
            ]
        )
        assert {span.process["service.name"] for span in trace} == {"close-enrich"}
        sent = b"".join(collector.raw)
        assert lead["id"].encode() in sent
        assert b"Quillfeather" not in sent
        assert str(stack.value(lead["id"], "Pitch")).encode() not in sent
        assert "opentelemetry" not in stack.processes.logs()


def test_a_tracing_system_that_is_away_changes_nothing_but_a_line_in_the_log(tmp_path):
    with (
        Collector(status=400) as collector,
        running(
            tmp_path,
            rules=RULES,
            TRACING="otel",
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
            OTEL_BSP_SCHEDULE_DELAY="50",
            NO_PROXY="127.0.0.1",
        ) as stack,
    ):
        for _ in range(5):
            stack.ended(stack.add_lead()["id"], "Pitch")
        stack.wait(lambda: collector.requests >= 4)
        for name in ("web", "worker"):
            stack.processes.send(name, signal.SIGTERM)
            assert stack.processes.wait(name) == 0
            lines = [line for line in stack.processes.log(name).splitlines() if "opentelemetry" in line]
            assert len(lines) == 1, lines
