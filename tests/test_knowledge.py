"""What a process knows: when it can plan, and what one read of a record must bring."""

import pytest

from service.condition import Condition, compile_condition
from service.knowledge import Knowledge
from service.rules import ObjectType, Rule, RuleBook
from service.schema import CustomField, Schema

LEAD, CONTACT = ObjectType.LEAD, ObjectType.CONTACT


def make_rule(name, *, object_type=LEAD, when=None, **options) -> Rule:
    condition = None
    if when is not None:
        condition = compile_condition(when, object_type=object_type)
        assert isinstance(condition, Condition), condition
    return Rule(name=name, object_type=object_type, field=name, when=condition, **options)


def make_schema(object_type, *names, organization_id="orga_1") -> Schema:
    fields = tuple(CustomField(id=f"cf_{name.lower()}", name=name, type="text") for name in names)
    return Schema(object_type=object_type, organization_id=organization_id, fields=fields)


LEADS = make_schema(LEAD, "Industry", "Size", "Pitch")
CONTACTS = make_schema(CONTACT, "Seniority")
INDUSTRY, SIZE = make_rule("Industry"), make_rule("Size", after=("Industry",))
PITCH = make_rule("Pitch", after=("Industry", "Size"))
SENIORITY = make_rule("Seniority", object_type=CONTACT)
UNKNOWN = make_rule("Unknown")


def know(*rules, schemas=(LEADS, CONTACTS)) -> Knowledge:
    return Knowledge.of(RuleBook(rules=rules), {schema.object_type: schema for schema in schemas})


@pytest.mark.parametrize(
    ("rules", "schemas", "complete"),
    [
        ((INDUSTRY,), (), False),
        ((INDUSTRY,), (CONTACTS,), False),
        ((INDUSTRY,), (LEADS,), True),
        ((INDUSTRY, SENIORITY), (LEADS,), False),
        ((INDUSTRY, SENIORITY), (LEADS, CONTACTS), True),
        ((INDUSTRY, make_rule("Seniority", object_type=CONTACT, enabled=False)), (LEADS,), True),
        ((UNKNOWN,), (LEADS,), True),
        ((), (LEADS,), True),
        ((), (), False),
        ((INDUSTRY,), (make_schema(LEAD, "Industry", organization_id=""),), False),
        ((INDUSTRY,), (make_schema(LEAD, "Industry", organization_id=""), CONTACTS), True),
    ],
)
def test_events_can_be_planned_once_the_organization_and_the_fields_of_enabled_rules_are_known(
    rules, schemas, complete
):
    assert know(*rules, schemas=schemas).complete is complete


@pytest.mark.parametrize(
    ("schemas", "organization_id"),
    [
        ((), None),
        ((make_schema(LEAD, organization_id=""),), None),
        ((make_schema(LEAD, organization_id=""), CONTACTS), "orga_1"),
        ((LEADS,), "orga_1"),
    ],
)
def test_the_organization_is_the_one_that_a_schema_names(schemas, organization_id):
    assert know(schemas=schemas).organization_id == organization_id


def test_a_rule_and_a_schema_are_found_by_name_or_are_none():
    knowledge = know(INDUSTRY, schemas=(LEADS,))
    assert knowledge.rule("Industry") is INDUSTRY
    assert knowledge.rule("Size") is None
    assert knowledge.schema(LEAD) is LEADS
    assert knowledge.schema(CONTACT) is None


def test_the_order_of_rules_is_told_in_fields():
    knowledge = know(INDUSTRY, SIZE, PITCH, UNKNOWN)
    assert knowledge.fields_of_rules(("Size", "Industry", "Unknown", "Nobody")) == ("cf_industry", "cf_size")
    assert knowledge.fields_waiting_for("Industry") == ("cf_size", "cf_pitch")
    assert knowledge.fields_waiting_for("Pitch") == ()


def test_a_contact_is_read_whole():
    assert know(SENIORITY).fields_to_read(CONTACT, "cf_seniority") is None


@pytest.mark.parametrize(
    ("rules", "fields"),
    [
        ((INDUSTRY,), {"id", "custom.cf_old", "custom.cf_industry"}),
        ((INDUSTRY, SIZE), {"id", "custom.cf_old", "custom.cf_industry", "custom.cf_size"}),
        ((INDUSTRY, SENIORITY, UNKNOWN), {"id", "custom.cf_old", "custom.cf_industry"}),
        (
            (make_rule("Industry", when='lead.url != "" && size(lead.contact_ids) > 0'),),
            {"id", "custom.cf_old", "custom.cf_industry", "url", "contact_ids"},
        ),
        (
            (make_rule("Industry", when='event.action == "created"'),),
            {"id", "custom.cf_old", "custom.cf_industry"},
        ),
        ((make_rule("Industry", when='lead.custom["Size"] == "big"'),), None),
        ((make_rule("Industry", when='"url" in lead'),), None),
    ],
)
def test_one_read_of_a_lead_brings_what_any_of_its_rules_may_ask_for(rules, fields):
    assert know(*rules).fields_to_read(LEAD, "cf_old") == fields


@pytest.mark.parametrize(
    ("when", "fields"),
    [
        ('lead.url != ""', {"id", "custom.cf_old", "custom.cf_industry", "url"}),
        ('lead.custom["Size"] == "big"', None),
    ],
)
def test_a_read_brings_what_a_condition_asks_for_that_new_rules_have_replaced(when, fields):
    condition = make_rule("Industry", when=when).when
    assert know(INDUSTRY).fields_to_read(LEAD, "cf_old", when=condition) == fields


@pytest.mark.parametrize(
    ("rules", "found"),
    [
        ((INDUSTRY,), True),
        ((make_rule("Industry", enabled=False),), True),
        ((SIZE,), False),
        ((Rule(name="Industry", object_type=LEAD, field="Size"),), False),
        ((Rule(name="Industry", object_type=CONTACT, field="Seniority"),), False),
        ((Rule(name="Industry", object_type=LEAD, field="Misspelt"),), True),
    ],
    ids=["same", "disabled", "gone", "another field", "another object", "no field: nobody can tell"],
)
def test_a_rule_that_fills_another_field_by_now_is_not_the_one_that_planned(rules, found):
    rule = know(*rules).rule_filling("cf_industry", name="Industry", object_type="lead")
    assert rule == (rules[0] if found else None)
