"""Looking before asking: a condition is judged on the record as it is now, with all that it reads."""

from __future__ import annotations

from types import SimpleNamespace

import msgspec
import pytest
from entries import NOW_MS, make_entry

from service.condition import compile_condition
from service.knowledge import Knowledge
from service.ledger import Claim
from service.rules import ObjectType, Rule, RuleBook
from service.schema import CustomField, Schema
from service.tracing import OFF
from workers.look import look
from workers.preflight import Ask
from workers.records import FRESH_SECONDS, RecordReader
from workers.reply import Reply

LEAD = ObjectType.LEAD
SCHEMA = Schema(
    object_type=LEAD,
    organization_id="orga_1",
    fields=tuple(
        CustomField(id=f"cf_{name.lower()}", name=name, type="text") for name in ("Industry", "Segment")
    ),
)
RETAIL = compile_condition('lead.custom["Industry"] == "Retail"', object_type=LEAD)
INDUSTRY = Rule(name="Industry", object_type=LEAD, field="Industry")
SEGMENT = Rule(name="Segment", object_type=LEAD, field="Segment", after=("Industry",), when=RETAIL)


class Looking:
    """A record, and what looks at it."""

    def __init__(self):
        self.record = {"id": "lead_1"}
        self.seconds = 100.0
        self.rules = (INDUSTRY, SEGMENT)

    async def get_record(self, *, fields, **_):
        shown = {name: value for name, value in self.record.items() if fields is None or name in fields}
        return Reply(
            status=200, headers={"content-type": "application/json"}, body=msgspec.json.encode(shown)
        )

    @property
    def knowledge(self):
        return Knowledge.of(RuleBook(rules=self.rules), {LEAD: SCHEMA})


@pytest.fixture
def looking():
    return Looking()


@pytest.fixture
def look_for(looking):
    """Look for the enrichment of a rule, planned long before."""
    tools = SimpleNamespace(
        records=RecordReader(looking, pace=None, clock=lambda: looking.seconds),
        knowledge=lambda: looking.knowledge,
        own_api_key_id=None,
        now_ms=lambda: NOW_MS,
        tracing=OFF,
    )

    async def look_for(rule):
        entry = make_entry(
            rule=rule.name, field_id=f"cf_{rule.name.lower()}", judged=False, planned_ms=NOW_MS - 60_000
        )
        return await look(Claim(entry=entry, fence=1), rule, tools)

    return look_for


async def test_a_rule_that_runs_after_another_is_judged_on_what_that_one_has_brought(looking, look_for):
    assert isinstance(await look_for(INDUSTRY), Ask)
    looking.record["custom.cf_industry"] = "Retail"
    looking.seconds += FRESH_SECONDS / 2
    assert isinstance(await look_for(SEGMENT), Ask)


async def test_a_condition_that_new_rules_have_replaced_is_judged_on_all_that_it_reads(looking, look_for):
    looking.record["custom.cf_industry"] = "Retail"
    looking.rules = (Rule(name="Segment", object_type=LEAD, field="Segment"),)
    assert isinstance(await look_for(SEGMENT), Ask)
