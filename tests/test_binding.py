"""Rules joined with Close's fields: which run on which events, and why the others do not."""

from __future__ import annotations

import pytest

from service.binding import SCHEMA_NOT_LOADED, Bindings, UnboundRule, bind
from service.condition import Condition, compile_condition
from service.event import Event
from service.rules import Action, Mode, ObjectType, Rule, RuleBook, Trigger
from service.schema import CustomField, Schema

LEADS = Schema(
    object_type=ObjectType.LEAD,
    organization_id="orga_1",
    fields=(
        CustomField(id="cf_1", name="Industry", type="choices"),
        CustomField(id="lcf_2", name="# of employees", type="number"),
        CustomField(id="cf_3", name="Twin", type="text"),
        CustomField(id="cf_4", name="Twin", type="text"),
        CustomField(id="cf_5", name="Owner", type="user"),
        CustomField(id="cf_6", name="Segment", type="date"),
    ),
)
CONTACTS = Schema(
    object_type=ObjectType.CONTACT,
    organization_id="orga_1",
    fields=(CustomField(id="cf_9", name="Seniority", type="text"),),
)
SCHEMAS = {ObjectType.LEAD: LEADS, ObjectType.CONTACT: CONTACTS}
CREATED = Trigger(action=Action.CREATED)


def updated(*fields):
    return Trigger(action=Action.UPDATED, fields=fields)


def rule(field="Industry", *, name="A", object_type=ObjectType.LEAD, when=None, **changes):
    if when is not None:
        when = compile_condition(when, object_type=object_type)
        assert isinstance(when, Condition)
    return Rule(name=name, object_type=object_type, field=field, when=when, **changes)


def event(action="created", *, object_type="lead", changed=()):
    return Event(
        id="ev_1",
        organization_id="orga_1",
        object_type=object_type,
        object_id="lead_1",
        lead_id="lead_1",
        action=action,
        date_created="2026-10-14T09:33:13.418000",
        date_updated="2026-10-14T09:33:13.418000",
        changed_fields=changed,
    )


def bound(*rules, schemas=SCHEMAS):
    return bind(RuleBook(rules=rules), schemas=schemas)


@pytest.mark.parametrize(
    ("written", "field_id", "field_name"),
    [
        ("Industry", "cf_1", "Industry"),
        ("industry ", "cf_1", "Industry"),
        ("lcf_2", "lcf_2", "# of employees"),
        ("custom.lcf_2", "lcf_2", "# of employees"),
        ("cf_4", "cf_4", "Twin"),
    ],
)
def test_a_rule_is_bound_to_the_field_it_names(written, field_id, field_name):
    (found,) = bound(rule(written)).bound
    assert (found.field_id, found.field_name) == (field_id, field_name)


@pytest.mark.parametrize(
    ("unfit", "problem"),
    [
        (rule("Industri"), "'Industri' is no custom field of leads in Close; did you mean 'Industry'?"),
        (rule("custom.cf_99"), "'custom.cf_99' is no custom field of leads in Close"),
        (rule("Seniority"), "'Seniority' is no custom field of leads in Close"),
        (rule("Twin"), "'Twin' names several fields; say which by its id: cf_3, cf_4"),
        (
            rule(on=(updated("urll"),)),
            "updated(urll): 'urll' is no custom field of leads in Close; did you mean 'url'?",
        ),
        (
            rule(on=(updated("url", "Twin"),)),
            "updated(Twin): 'Twin' names several fields; say which by its id: cf_3, cf_4",
        ),
        (
            rule(on=(updated("segmnt"),)),
            "updated(segmnt): 'segmnt' is no custom field of leads in Close; did you mean 'Segment'?",
        ),
        (rule(on=(updated("cf_1"),)), "updated(cf_1): the rule fills that field, so it would trigger itself"),
        (
            rule(on=(updated("custom.cf_1"),)),
            "updated(custom.cf_1): the rule fills that field, so it would trigger itself",
        ),
        (
            rule(when='lead.custom["Segmnt"] != ""'),
            "when: 'Segmnt' is no custom field of leads in Close; did you mean 'Segment'?",
        ),
        (
            rule(when="has(lead.custom.Twin)"),
            "when: 'Twin' names several fields; say which by its id: cf_3, cf_4",
        ),
        (
            rule(when="has(lead.custom.segment)"),
            "when: 'segment' is written 'Segment' in Close, and conditions take it exactly",
        ),
    ],
)
def test_a_rule_that_names_what_is_not_there_is_unbound_and_says_so(unfit, problem):
    found = bound(unfit)
    assert found.bound == ()
    assert found.unbound == (UnboundRule(rule=unfit, problem=problem),)


def test_a_condition_may_name_fields_exactly_and_by_id():
    found = bound(
        rule(when='lead.custom["Segment"] != "" || lead.custom.cf_3 != "" || has(lead.custom.Owner)')
    )
    assert len(found.bound) == 1


def test_a_rule_waits_unbound_until_the_schema_of_its_object_is_loaded():
    lead, contact = rule(), rule("Seniority", name="B", object_type=ObjectType.CONTACT)
    found = bound(lead, contact, schemas={ObjectType.CONTACT: CONTACTS})
    assert [one.rule for one in found.bound] == [contact]
    assert found.unbound == (UnboundRule(rule=lead, problem=SCHEMA_NOT_LOADED),)


@pytest.mark.parametrize(
    ("on", "happened", "runs"),
    [
        ((CREATED,), event(), True),
        ((CREATED,), event("updated", changed=("url",)), False),
        ((CREATED,), event(object_type="contact"), False),
        ((CREATED,), event("deleted"), False),
        ((CREATED,), event(object_type="task.lead"), False),
        ((Trigger(action=Action.MERGED),), event("merged"), True),
        ((updated("url"),), event("updated", changed=("name", "url")), True),
        ((updated("url"),), event("updated", changed=("name",)), False),
        ((updated("url"),), event("updated"), False),
        ((updated("segment"),), event("updated", changed=("custom.cf_6",)), True),
        ((updated("segment"),), event("updated", changed=("segment", "Segment", "cf_6")), False),
        ((updated("url"), CREATED), event(), True),
        ((updated("url"), updated("name")), event("updated", changed=("name",)), True),
    ],
)
def test_a_rule_runs_on_its_events_only(on, happened, runs):
    bindings = bound(rule(on=on))
    (found,) = bindings.bound
    assert found.triggered_by(happened) is runs
    assert bindings.for_event(happened) == ((found,) if runs else ())


def test_an_event_finds_its_rules_in_the_order_of_the_file():
    rules = [
        rule("Segment", name="B"),
        rule("Industry", name="A"),
        rule("lcf_2", name="C", on=(updated("url"),)),
    ]
    found = bound(*rules).for_event(event())
    assert [one.rule.name for one in found] == ["B", "A"]


def test_without_rules_no_event_runs_anything():
    assert Bindings().for_event(event()) == ()


def test_a_type_that_enrichment_does_not_name_is_a_warning():
    found = bound(rule("Owner"))
    assert len(found.bound) == 1
    assert found.warnings == (
        "rule 'A': 'Owner' has the type 'user'; enrichment is known to fill choices, date, number, text",
    )


def test_a_rule_that_another_one_always_comes_before_is_a_warning_however_they_name_the_field():
    found = bound(
        rule("Industry", on=(CREATED, updated("segment"))),
        rule("cf_1", name="B", on=(updated("custom.cf_6"),), mode=Mode.OVERWRITE),
        rule("cf_1", name="C", on=(updated("url"),)),
    )
    assert len(found.bound) == 3
    assert found.warnings == (
        "rule 'B': never runs: 'A', rules[0], comes first for the same field and events, for every record",
    )


def test_a_condition_that_a_custom_field_cannot_answer_keeps_the_rule_from_running():
    unfit = rule(when='lead.custom["# of employees"] > "10" || lead.custom.Segmnt == ""')
    assert bound(unfit).unbound == (
        UnboundRule(
            rule=unfit, problem="when: 'Segmnt' is no custom field of leads in Close; did you mean 'Segment'?"
        ),
    )
    unfit = rule(when='lead.custom["# of employees"] > "10"')
    assert bound(unfit).unbound == (
        UnboundRule(
            rule=unfit,
            problem=(
                'when: the condition compares lead.custom["# of employees"], which is a number, '
                """with "10", which is text; did you mean '10'?"""
            ),
        ),
    )


def test_what_the_file_alone_tells_is_not_told_again():
    assert bound(rule(when='lead.zzz == "x"')).warnings == ()


def test_a_disabled_rule_is_checked_but_neither_bound_nor_unbound():
    found = bound(rule("Industri", enabled=False), rule("Industry", name="B", enabled=False))
    assert (found.bound, found.unbound) == ((), ())
    assert found.warnings == (
        (
            "rule 'A' is disabled and could not run: 'Industri' is no custom field of leads in Close; "
            "did you mean 'Industry'?"
        ),
    )
    assert bound(rule(enabled=False), schemas={}) == Bindings()
