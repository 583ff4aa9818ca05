"""A stack in which all sorts of things have happened, for whoever looks at the dashboard."""

from __future__ import annotations

import contextlib
import json
import random
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from ledger_box import event, wanted
from msgspec import structs
from stack import lively_world, running

from service import keys
from service.accept import Accepter
from service.enrichment import State
from service.rules import Burst
from service.sandbox import records
from service.sandbox.delivery import delivery_headers
from service.sandbox.faults import FaultRule
from service.sandbox.people import invented_lead

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stack import Stack

    from service.enrichment import Entry
    from service.ledger import Ledger

TOKEN = "correct-horse-battery-staple"
REFUSED, LOST = "A field that Close refuses.", "A call that is lost."

RULES = f"""
version: 1
defaults: {{settle: 0s, timeout: 20s, on_ambiguous: hold, backoff: {{first: 100ms, most: 200ms}}}}
budget: {{per_day: 5000}}
rules:
  - {{name: Industry, object: lead, field: Industry}}
  - {{name: Employee count, object: lead, field: Employee count, when: lead.url != "", priority: high}}
  - {{name: Segment, object: lead, field: Segment, after: [Industry]}}
  - {{name: Seniority, object: contact, field: Seniority, when: has(contact.title), budget: {{per_day: 900}}}}
  - {{name: Pitch, object: lead, field: Pitch, mode: preview, when: lead.description.contains("demo")}}
  - {{name: Founded on, object: lead, field: Founded on, timeout: 5s, when: lead.description == "{LOST}"}}
  - {{name: Source, object: lead, field: Source, when: lead.description == "{REFUSED}"}}
  - {{name: Markets, object: lead, field: Markets, enabled: false}}
"""


@dataclass(frozen=True, slots=True)
class Showcase:
    """A running stack, and short words for having things happen in it."""

    stack: Stack

    def add_leads(self, count: int, *, seed: int = 7) -> None:
        """Invented leads with their contacts, the same ones for the same seed."""
        chance = random.Random(seed)  # noqa: S311  chance in tests is no secret

        def add(world: Any) -> None:
            for _ in range(count):
                cause = world.cause(path="/api/v1/lead/", method="POST")
                records.create_lead(world, invented_lead(chance), cause)

        self.stack.in_sandbox(add)

    def quiet(self, *, least: int = 0, seconds: float = 120.0) -> None:
        """Wait until nothing is in hand, and so many have ended; what is held stays."""

        def look() -> bool:
            counts = self.stack.counts()
            held = int(self.stack.redis.zcard(keys.HELD))
            waiting = counts.pop("waiting", 0) + counts.pop("planned", 0)
            return sum(counts.values()) >= least and "calling" not in counts and waiting == held

        self.stack.wait(look, seconds=seconds)

    def dead_letter(self, *, lost: bool = False) -> Entry:
        """An enrichment that Close refused; or one of which nobody knows whether it ran."""
        rule, description = ("Founded on", LOST) if lost else ("Source", REFUSED)
        fault = FaultRule(
            kind="drop_before" if lost else "status:400",
            field_id=self.stack.world.field_named(rule).id,
            count=1,
        )
        self.stack.in_sandbox(lambda world: world.faults.add(fault))
        lead_id = self.stack.add_lead(description=description)["id"]
        wanted_state = State.HELD if lost else State.REJECTED
        return self.stack.entry_when(lead_id, rule, lambda entry: entry.state is wanted_state)

    def hold(self, count: int) -> list[str]:
        """Have the burst guard hold enrichments of so many new leads; the leads' ids."""
        world = self.stack.world
        field = world.field_named("Pitch")
        leads = [self.stack.add_lead(description="Held.")["id"] for _ in range(count)]

        async def plan(ledger: Ledger) -> None:
            accepter = Accepter(ledger.redis)
            for lead_id in leads:
                planned = wanted(field.id, object_id=lead_id, rule="Pitch")
                happened = structs.replace(
                    event(f"ev_{lead_id}", object_id=lead_id), organization_id=world.organization.id
                )
                guard = Burst(most=0, within_seconds=3600.0)
                named = structs.replace(planned, target=structs.replace(planned.target, field_name="Pitch"))
                await accepter.accept(happened, [named], burst=guard)

        self.stack.ask(plan)
        return leads

    def quarantine(self, body: Any) -> str:
        """Deliver something that is signed and cannot be read; its id in quarantine."""
        raw = json.dumps(body).encode()
        key = self.stack.processes.environ["CLOSE_SIGNATURE_KEYS"]
        headers = delivery_headers(signature_key=key, timestamp=int(time.time()), body=raw)
        status = self.stack.deliver(raw, headers)
        if status != HTTPStatus.ACCEPTED:
            raise RuntimeError(f"answered {status}")
        ((kept_as, _),) = self.stack.redis.xrevrange(keys.QUARANTINE, count=1)
        return str(kept_as.decode())

    def leave_alone(self, field: str, *, seconds: float = 3600.0) -> None:
        """Have a field's breaker open, as after timeouts in a row."""
        field_id = self.stack.world.field_named(field).id
        until_ms = round((time.time() + seconds) * 1000)
        facts = {"name": field, "rule": field, "timeouts": 5, "until_ms": until_ms}
        self.stack.redis.sadd(keys.BREAKERS, field_id)
        self.stack.redis.hset(keys.breaker(field_id), mapping=facts)

    def event_of(self, lead_id: str) -> str:
        """The event of a new lead, as Close's event log has it."""

        def find(world: Any) -> Any:
            events = (one.event for one in world.journal.newest_first())
            return next(one for one in events if (one["object_id"], one["action"]) == (lead_id, "created"))

        return json.dumps({"event": self.stack.in_sandbox(find)})


@contextlib.contextmanager
def showcase(directory: Path, **settings: Any) -> Iterator[Showcase]:
    """A stack with web, a worker and a dashboard, in which nothing has happened yet.

    Args:
        directory: for logs, rules and Redis's data.
        settings: environment variables for web and worker.
    """
    world = lively_world(nothing_found_share=0.15)
    with running(directory, rules=RULES, world=world, ADMIN_TOKEN=TOKEN, **settings) as stack:
        yield Showcase(stack)
