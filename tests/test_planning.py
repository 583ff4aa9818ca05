"""What each event leads to under the rules: enrichments, skipped rules, or nothing and why."""

import json
from pathlib import Path

import pytest
from msgspec import structs

from service.binding import bind
from service.condition import Condition, compile_condition
from service.event import Event, parse_event
from service.planning import Ignored, IgnoredReason, Plan, PlannedEnrichment, Skipped, plan
from service.rules import Action, Mode, ObjectType, Priority, Rule, RuleBook, Target, Trigger, in_sample
from service.schema import CustomField, Schema

SAMPLES = Path(__file__).parent / "samples"
ORGANIZATION = "orga_uCo5tyJaJWQBf2BS8gaxtQzYD5fqYx0SB5aB6KvmBzF"
OUR_KEY = "api_CP2w27gBTPawQwWnZDGDPy"
LEAD, CONTACT = ObjectType.LEAD, ObjectType.CONTACT
UPDATED_URL = (Trigger(action=Action.UPDATED, fields=("url",)),)


def schema(object_type, *names) -> Schema:
    fields = tuple(CustomField(id=f"cf_{name}", name=name.title(), type="text") for name in names)
    return Schema(object_type=object_type, organization_id=ORGANIZATION, fields=fields)


SCHEMAS = {
    LEAD: schema(LEAD, "industry", "size", "pitch"),
    CONTACT: schema(CONTACT, "seniority"),
}


def sample(name: str, **changes) -> Event:
    (file,) = SAMPLES.glob(f"{name}_*.json")
    event = parse_event(file.read_bytes())
    assert isinstance(event, Event)
    return structs.replace(event, **changes)


def rule(name="Industry", **options) -> Rule:
    return Rule(name=name, **{"object_type": LEAD, "field": "Industry"} | options)


def when(source: str, object_type=LEAD) -> Condition:
    condition = compile_condition(source, object_type=object_type)
    assert isinstance(condition, Condition), condition
    return condition


def planned(event: Event, *rules: Rule, schemas=SCHEMAS, own_api_key_id=OUR_KEY) -> Plan | Ignored:
    return plan(
        event,
        bindings=bind(RuleBook(rules=rules), schemas=schemas),
        organization_id=ORGANIZATION,
        own_api_key_id=own_api_key_id,
        schemas=schemas,
    )


def only(event: Event, *rules: Rule) -> PlannedEnrichment:
    decided = planned(event, *rules)
    assert isinstance(decided, Plan)
    (enrichment,) = decided.enrichments
    return enrichment


def test_a_created_lead_gets_each_field_that_a_rule_names():
    event = sample("02")
    first = rule(settle_seconds=20.0, priority=Priority.HIGH, mode=Mode.OVERWRITE)
    second = rule("Size", field="cf_size")
    assert planned(event, first, second) == Plan(
        enrichments=(
            PlannedEnrichment(
                target=Target(
                    rule="Industry",
                    object_type=LEAD,
                    field_id="cf_industry",
                    field_name="Industry",
                    mode=Mode.OVERWRITE,
                    settle_seconds=20.0,
                    priority=Priority.HIGH,
                ),
                object_id=event.object_id,
                lead_id=event.lead_id,
                judged=True,
                reopens=False,
            ),
            PlannedEnrichment(
                target=Target(
                    rule="Size",
                    object_type=LEAD,
                    field_id="cf_size",
                    field_name="Size",
                    mode=Mode.FILL,
                    settle_seconds=0.0,
                    priority=Priority.NORMAL,
                ),
                object_id=event.object_id,
                lead_id=event.lead_id,
                judged=True,
                reopens=False,
            ),
        )
    )


def test_a_contact_keeps_the_lead_it_belongs_to():
    event = sample("04")
    enrichment = only(event, rule("Seniority", object_type=CONTACT, field="Seniority"))
    assert (enrichment.object_id, enrichment.lead_id) == (event.object_id, event.lead_id)
    assert enrichment.object_id != enrichment.lead_id


def test_a_merge_enriches_the_lead_that_survives():
    event = sample("08")
    enrichment = only(event, rule(on=(Trigger(action=Action.MERGED),)))
    assert (
        enrichment.object_id
        == json.loads(next(SAMPLES.glob("08_*")).read_bytes())["event"]["meta"]["merge_destination_lead_id"]
    )


@pytest.mark.parametrize(
    ("event", "on", "mode", "reopens"),
    [
        (sample("01"), (Trigger(action=Action.CREATED),), Mode.FILL, False),
        (sample("01"), (Trigger(action=Action.CREATED),), Mode.OVERWRITE, False),
        (sample("05"), UPDATED_URL, Mode.FILL, True),
        (sample("05"), UPDATED_URL, Mode.OVERWRITE, True),
        (sample("08"), (Trigger(action=Action.MERGED),), Mode.FILL, True),
    ],
    ids=["created", "created, overwrite", "updated", "updated, overwrite", "merged"],
)
def test_only_what_happens_to_a_record_later_may_start_a_finished_field_again(event, on, mode, reopens):
    assert only(event, rule(on=on, mode=mode)).reopens is reopens


@pytest.mark.parametrize(
    ("event", "reason", "text"),
    [
        (
            sample("01", organization_id="orga_other"),
            IgnoredReason.FOREIGN_ORGANIZATION,
            "the event belongs to another organization",
        ),
        (
            sample("10"),
            IgnoredReason.DELETED,
            "no rule for lead.deleted: what is deleted has no fields to fill",
        ),
        (sample("07"), IgnoredReason.OWN_WRITE, "the update is our own write"),
        (sample("04"), IgnoredReason.NO_RULE, "no rule for contact.created"),
        (sample("01", object_type="task.lead"), IgnoredReason.NO_RULE, "no rule for task.lead.created"),
        (sample("01", action="sent"), IgnoredReason.NO_RULE, "no rule for lead.sent"),
        (
            sample("06"),
            IgnoredReason.NO_RULE,
            "no rule for lead.updated with these changed fields",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_event_that_no_rule_listens_to_is_ignored_with_a_reason(event, reason, text):
    assert planned(event, rule(on=(Trigger(action=Action.CREATED), *UPDATED_URL))) == Ignored(
        reason=reason, text=text
    )


def test_a_record_created_with_our_key_is_enriched():
    assert only(sample("01", api_key_id=OUR_KEY), rule()).target.rule == "Industry"


def test_somebody_elses_update_is_planned_when_our_key_is_unknown():
    decided = planned(sample("05"), rule(on=UPDATED_URL), own_api_key_id=None)
    assert isinstance(decided, Plan)
    assert len(decided.enrichments) == 1


def test_a_disabled_rule_is_as_good_as_none():
    assert planned(sample("01"), rule(enabled=False)) == Ignored(
        reason=IgnoredReason.NO_RULE, text="no rule for lead.created"
    )


@pytest.mark.parametrize(
    ("source", "met"),
    [
        ('lead.url != ""', True),
        ('lead.status_label == "Qualified"', False),
        ('event.action == "created"', True),
        (f'organization.id == "{ORGANIZATION}"', True),
        ('lead.custom["Industry"] == ""', True),
    ],
)
def test_a_condition_of_a_rule_that_does_not_settle_is_judged_on_the_event(source, met):
    decided = planned(sample("02"), rule(when=when(source)))
    assert isinstance(decided, Plan)
    assert [one.judged for one in decided.enrichments] == ([True] if met else [])
    assert decided.skipped == (() if met else (Skipped(rule="Industry", reason="the condition is not met"),))


def test_a_condition_can_name_custom_fields_as_the_schema_does():
    event = sample("02", data_json=b'{"custom.cf_size": "7"}')
    enrichment = only(event, rule(when=when('lead.custom["Size"] == "7" && lead.custom["cf_size"] == "7"')))
    assert enrichment.judged is True


def test_a_condition_of_a_rule_that_settles_is_left_to_the_worker():
    enrichment = only(sample("01"), rule(when=when('lead.url != ""'), settle_seconds=20.0))
    assert enrichment.judged is False


@pytest.mark.parametrize("data_json", [None, b"[1]", b'{"url": "\\ud800"}', b"{}"])
def test_a_condition_is_left_to_the_worker_when_the_event_does_not_carry_the_record(data_json):
    enrichment = only(sample("01", data_json=data_json), rule(when=when('lead.url != ""')))
    assert enrichment.judged is False


def test_the_record_is_decoded_once_and_only_if_a_condition_needs_it(monkeypatch):
    decoded = []
    original = Event.data
    monkeypatch.setattr(Event, "data", lambda event: decoded.append(event.id) or original(event))
    settling = rule(when=when('lead.url != ""'), settle_seconds=20.0)
    planned(sample("02"), settling, rule("Size", field="Size"))
    assert decoded == []
    condition = when('lead.url != ""')
    planned(sample("02"), rule(when=condition), rule("Size", field="Size", when=condition))
    assert decoded == [sample("02").id]


def test_the_first_of_two_rules_for_a_field_gets_it():
    decided = planned(sample("01"), rule("First"), rule("Second", field="cf_industry"))
    assert isinstance(decided, Plan)
    assert [one.target.rule for one in decided.enrichments] == ["First"]
    assert decided.skipped == (Skipped(rule="Second", reason="already planned by rule 'First'"),)


def test_the_second_rule_for_a_field_gets_it_when_the_first_does_not_want_it():
    decided = planned(sample("01"), rule("First", when=when('lead.url != ""')), rule("Second"))
    assert isinstance(decided, Plan)
    assert [one.target.rule for one in decided.enrichments] == ["Second"]
    assert decided.skipped == (Skipped(rule="First", reason="the condition is not met"),)


@pytest.mark.parametrize(
    ("share", "shown"), [(0.0, "0%"), (0.07, "7%"), (0.005, "0.5%"), (0.5, "50%"), (1.0, "100%")]
)
def test_records_outside_a_rules_sample_are_skipped(share, shown):
    for number in range(40):
        event = sample("01", object_id=f"lead_{number}")
        decided = planned(event, rule(sample=share))
        assert isinstance(decided, Plan)
        chosen = in_sample(rule_name="Industry", object_id=event.object_id, share=share)
        assert len(decided.enrichments) == chosen
        assert decided.skipped == (
            () if chosen else (Skipped(rule="Industry", reason=f"not in the sample of {shown}"),)
        )


def test_a_rule_whose_field_is_unknown_is_skipped_with_its_problem():
    decided = planned(sample("01"), rule("Odd", field="Industri"), rule("Size", field="Size"))
    assert isinstance(decided, Plan)
    assert [one.target.rule for one in decided.enrichments] == ["Size"]
    assert [one.rule for one in decided.skipped] == ["Odd"]
    assert "Industri" in decided.skipped[0].reason


def test_an_unknown_field_matters_only_to_events_its_rule_listens_to():
    decided = planned(sample("05"), rule("Odd", field="Industri"), rule("Size", field="Size", on=UPDATED_URL))
    assert isinstance(decided, Plan)
    assert decided.skipped == ()


def test_no_reason_repeats_a_value_of_the_record():
    event = sample("02")
    rules = [
        rule("A", when=when('lead.name == "x"')),
        rule("B", when=when("int(lead.name) > 5")),
        rule("C", sample=0.0),
        rule("D", field="Nothing"),
    ]
    decided = planned(event, *rules)
    assert isinstance(decided, Plan)
    assert [one.rule for one in decided.skipped] == ["A", "B", "C", "D"]
    values = [value for value in event.data().values() if isinstance(value, str) and value]
    assert not [one for one in decided.skipped if any(value in one.reason for value in values)]
