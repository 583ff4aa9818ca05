"""What web and worker write while all sorts of things happen: ids and reasons, no values, no secrets."""

from __future__ import annotations

import base64
import signal

import pytest
from stack import lively_world, running

from service.sandbox.delivery import delivery_headers
from service.sandbox.faults import FaultRule
from service.sandbox.fields import FieldSpec
from service.sandbox.ids import named_id
from service.sandbox.options import DEMO_API_KEY

pytestmark = pytest.mark.slow

CHOICES = ("Zirconia Widgets", "Obsidian Gadgets")
FIELDS = tuple(
    FieldSpec(id=named_id("cf", name), name=name, type=kind, objects=objects, choices=choices)
    for name, kind, objects, choices in (
        ("Industry", "choices", ("lead",), CHOICES),
        ("Founded on", "date", ("lead",), None),
        ("Pitch", "text", ("lead",), None),
        ("Motto", "text", ("lead",), None),
        ("Story", "text", ("lead",), None),
        ("Seniority", "text", ("contact",), None),
    )
)
RULES = """
version: 1
defaults: {settle: 0s, timeout: 20s, backoff: {first: 100ms, most: 200ms}}
rules:
  - {name: A, object: lead, field: Industry, on: [created, updated(description)], mode: overwrite}
  - {name: B, object: lead, field: Founded on, settle: 100ms, when: lead.name != "Quillfeather Velocipedes"}
  - {name: C, object: lead, field: Pitch, when: lead.url.startsWith("ftp")}
  - {name: D, object: lead, field: Motto}
  - {name: E, object: lead, field: Story, on_ambiguous: hold, timeout: 2s}
  - {name: F, object: contact, field: Seniority, when: contact.title != ""}
"""
EVENTS = (("lead", "created"), ("lead", "updated"), ("lead", "deleted"), ("contact", "created"))
PERSONAL = {
    "name": "Quillfeather Velocipedes",
    "url": "https://quillfeather-velocipedes.example",
    "description": "Owes Thistlewick a favour.",
    "changed description": "Owes nobody anything.",
    "contact": "Marisol Osterhaug",
    "title": "Chief Bell Ringer",
    "email": "marisol.osterhaug@quillfeather.example",
    "phone": "+4755512399",
    "quarantined body": "Unreadable Brackenridge",
    "refused body": "Unsigned Brackenridge",
}


def test_logs_of_a_busy_run_hold_no_values_of_records_and_no_secrets(tmp_path):
    world = lively_world(fields=FIELDS)
    world.faults.add(
        FaultRule(kind="garbage", field_id=FIELDS[0].id, count=1),
        FaultRule(kind="status:400", field_id=FIELDS[3].id, count=1),
        FaultRule(kind="drop_before", field_id=FIELDS[4].id, count=1),
        FaultRule(kind="status:429", field_id=FIELDS[5].id, count=1, retry_after_seconds=0.1),
    )
    with running(tmp_path, rules=RULES, world=world, events=EVENTS) as stack:
        (subscription,) = world.subscriptions.values()
        contact = {
            "name": PERSONAL["contact"],
            "title": PERSONAL["title"],
            "emails": [{"email": PERSONAL["email"]}],
            "phones": [{"phone": PERSONAL["phone"]}],
        }
        lead = stack.add_lead(
            name=PERSONAL["name"],
            url=PERSONAL["url"],
            description=PERSONAL["description"],
            contacts=[contact],
        )
        for rule in "AE":
            stack.entry_when(lead["id"], rule, lambda entry: entry.ambiguous)
        stack.let_waits_end()
        ended = stack.ended(lead["id"], "A", "B", "D", "E")
        ended |= stack.ended(lead["contact_ids"][0], "F")
        stack.change("lead", lead["id"], description=PERSONAL["changed description"])
        stack.entry_when(lead["id"], "A", lambda entry: entry.state.final and entry.calls == 2)

        unreadable = b'{"event": "%s"}' % PERSONAL["quarantined body"].encode()
        signed = delivery_headers(signature_key=subscription.signature_key, timestamp=1, body=unreadable)
        assert stack.deliver(unreadable, signed) == 202
        refused = b'{"event": "%s"}' % PERSONAL["refused body"].encode()
        assert stack.deliver(refused, signed) == 401
        stack.in_sandbox(lambda world: world.leads.pop(lead["id"]))
        stack.server.kill()
        assert stack.post(unreadable, signed) == 503
        stack.server.start()
        stack.processes.send("worker", signal.SIGTERM)
        assert stack.processes.wait("worker") == 0
        stack.processes.send("web", signal.SIGTERM)
        assert stack.processes.wait("web") == 0
        logs = stack.processes.log("web") + stack.processes.log("worker")

    found = {
        f"{what} of rule {entry.rule}": value
        for entry in ended.values()
        for what, value in (("value", entry.value), ("reasoning", entry.reasoning))
        if value
    }
    secrets = {
        "API key": DEMO_API_KEY,
        "API key in a header": base64.b64encode(f"{DEMO_API_KEY}:".encode()).decode(),
        "signature key": subscription.signature_key,
        "signature": signed["Close-Sig-Hash"],
    }
    forbidden = PERSONAL | found | secrets
    assert {entry.rule: entry.state.value for entry in ended.values()} == {
        "A": "confirmed",
        "B": "skipped",
        "D": "rejected",
        "E": "held",
        "F": "filled",
    }
    for event in ("accepted", "ignored", "quarantined", "refused", "not accepted", "asked Close", "settled"):
        assert event in logs
    assert [what for what, text in forbidden.items() if text in logs] == []
