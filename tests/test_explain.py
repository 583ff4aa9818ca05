"""Explanations: each outcome with its reason, what conditions saw, and that they say what planning does."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_condition_trace import when as lead_condition

from service.enrichment import State, decode_entry
from service.event import Event
from service.explain import explain
from service.explanation import BudgetLeft, Recorded
from service.knowledge import Knowledge
from service.offline_fields import offline_schemas
from service.planning import Ignored
from service.rules import Action, Mode, ObjectType, Rule, RuleBook, Trigger, in_sample
from service.schema import CustomField, Schema
from service.verdicts import Moment, Outcome

ORGANIZATION = "orga_1"
OUR_KEY = "api_ours"
LEAD, CONTACT = ObjectType.LEAD, ObjectType.CONTACT
CREATED = (Trigger(action=Action.CREATED),)
URL = "https://a.example"


def updated(*fields: str) -> tuple[Trigger, ...]:
    return (Trigger(action=Action.UPDATED, fields=fields),)


def schema(object_type, *names) -> Schema:
    fields = tuple(CustomField(id=f"cf_{name}", name=name.title(), type="text") for name in names)
    return Schema(object_type=object_type, organization_id=ORGANIZATION, fields=fields)


SCHEMAS = {LEAD: schema(LEAD, "industry", "size", "pitch"), CONTACT: schema(CONTACT, "seniority")}


def event(data=None, **changes) -> Event:
    facts = {
        "id": "ev_1",
        "organization_id": ORGANIZATION,
        "object_type": "lead",
        "object_id": "lead_1",
        "lead_id": "lead_1",
        "action": "created",
        "date_created": "2026-11-20T10:00:00.000000",
        "date_updated": "2026-11-20T10:00:00.000000",
        "data_json": None if data is None else json.dumps({"id": "lead_1", **data}).encode(),
    }
    return Event(**facts | changes)


def rule(name="Industry", *, when=None, **options) -> Rule:
    condition = None if when is None else lead_condition(when)
    return Rule(name=name, when=condition, **{"object_type": LEAD, "field": "Industry"} | options)


def explained(of: Event, *rules: Rule, schemas=SCHEMAS, **options):
    knowledge = Knowledge.of(RuleBook(rules=rules), schemas)
    return explain(of, knowledge=knowledge, own_api_key_id=OUR_KEY, **options)


def only(of: Event, *rules: Rule, **options):
    return explained(of, *rules, **options).rules[-1]


LATER = {"settle_seconds": 20.0}
CASES = [
    (event({}), [rule()], Outcome.CALL, "every record is wanted"),
    (event({"url": URL}), [rule(when='lead.url != ""')], Outcome.CALL, "the condition is met"),
    (event({"url": URL}), [rule(when='lead.url != ""', **LATER)], Outcome.CALL, "the condition is met"),
    (event({}), [rule(when='lead.url != ""')], Outcome.UNMET, "the condition is not met"),
    (event({}), [rule(when='lead.url != ""', **LATER)], Outcome.UNMET, "the condition is not met"),
    (event({"custom.cf_industry": "Food"}), [rule()], Outcome.FILLED, "the field already has a value"),
    (event({"custom.cf_industry": ""}), [rule()], Outcome.CALL, "every record is wanted"),
    (event({"custom.cf_industry": "Food"}), [rule(mode=Mode.OVERWRITE)], Outcome.CALL, "every record"),
    (event({"custom.cf_industry": "Food"}), [rule(mode=Mode.PREVIEW)], Outcome.CALL, "every record"),
    (event({}), [rule(sample=0.0)], Outcome.NOT_SAMPLED, "not in the sample of 0%"),
    (event({}), [rule("First"), rule("Second")], Outcome.TAKEN, "already planned by rule 'First'"),
    (
        event({}),
        [rule("First", when='lead.url != ""'), rule("Second")],
        Outcome.CALL,
        "every record is wanted",
    ),
    (
        event({}),
        [rule(object_type=CONTACT, field="Seniority")],
        Outcome.OTHER_EVENT,
        "for contacts, and this is lead.created",
    ),
    (event({}, action="sent"), [rule()], Outcome.OTHER_EVENT, "listens to created, and this is lead.sent"),
    (
        event({}, action="updated", changed_fields=("name",)),
        [rule(on=updated("url", "Size"))],
        Outcome.OTHER_EVENT,
        "none of 'url', 'Size' has changed",
    ),
    (
        event({}, action="updated", changed_fields=("url",)),
        [rule(on=updated("url"))],
        Outcome.CALL,
        "every record is wanted",
    ),
    (
        event({}, action="updated", changed_fields=("url",), api_key_id=OUR_KEY),
        [rule(on=updated("url"))],
        Outcome.OTHER_EVENT,
        "the update is our own write",
    ),
    (event({}, action="deleted"), [rule()], Outcome.OTHER_EVENT, "what is deleted has no fields"),
    (event({}), [rule(field="Industri")], Outcome.CANNOT_RUN, "did you mean 'Industry'?"),
    (event({}, action="sent"), [rule(field="Industri")], Outcome.CANNOT_RUN, "did you mean 'Industry'?"),
    (event({}), [rule(enabled=False)], Outcome.DISABLED, "the rule is disabled"),
    (event(), [rule(when='lead.url != ""')], Outcome.NOT_JUDGED, "the event carries no data"),
    (event(), [rule()], Outcome.CALL, "every record is wanted"),
    (event({}, object_type="task.lead"), [rule()], Outcome.OTHER_EVENT, "this is task.lead.created"),
]


@pytest.mark.parametrize(("of", "rules", "outcome", "reason"), CASES)
def test_each_outcome_has_its_reason(of, rules, outcome, reason):
    found = only(of, *rules)
    assert found.outcome is outcome
    assert reason in found.reason
    assert found.credits_at_most == (outcome in {Outcome.CALL, Outcome.NOT_JUDGED})


@pytest.mark.parametrize(
    ("of", "settle_seconds", "moment", "traced"),
    [
        (event({"url": URL}), 0.0, Moment.ACCEPT, True),
        (event({"url": URL}), 20.0, Moment.PREFLIGHT, True),
        (event(), 0.0, Moment.PREFLIGHT, False),
    ],
)
def test_it_says_when_a_condition_is_judged_and_what_it_saw(of, settle_seconds, moment, traced):
    found = only(of, rule(when='lead.url != ""', settle_seconds=settle_seconds))
    assert found.judged is moment
    assert (found.condition is not None) is traced
    assert found.condition is None or [one.value for one in found.condition.values] == [URL]


def test_a_rule_without_a_condition_has_no_moment_of_judging():
    assert only(event({}), rule()).judged is None


def test_what_a_worker_no_longer_knows_about_the_event_is_not_seen_before_the_call():
    changed = event({}, action="updated", changed_fields=("url",))
    source = '"url" in event.changed_fields'
    at_once = only(changed, rule(when=source, on=updated("url")))
    later = only(changed, rule(when=source, on=updated("url"), **LATER))
    assert (at_once.outcome, later.outcome) == (Outcome.CALL, Outcome.UNMET)


def test_a_record_that_was_read_takes_the_place_of_a_fresh_read():
    record = {"id": "lead_1", "url": URL, "custom.cf_size": 3}
    found = explained(
        event({}),
        rule(when='lead.url != ""', **LATER),
        rule("Size", field="Size"),
        rule("Pitch", field="Pitch", when='lead.url != ""'),
        record=record,
    )
    assert [one.outcome for one in found.rules] == [Outcome.CALL, Outcome.FILLED, Outcome.UNMET]
    assert found.limits == ()


@pytest.mark.parametrize(
    ("of", "rules", "said"),
    [
        (event({"url": URL}), [rule(when='lead.url != ""', **LATER)], "judged on a fresh read"),
        (event(), [rule()], "carries no data"),
        (event({"url": URL}), [rule(when='lead.url != ""')], None),
        (event(), [rule(object_type=CONTACT, field="Seniority")], None),
    ],
)
def test_what_it_rests_on_is_said(of, rules, said):
    limits = explained(of, *rules).limits
    assert [said in limit for limit in limits] == ([] if said is None else [True])


def entry(**changes):
    raw = {"type": "lead", "object": "lead_1", "field": "cf_industry", "rule": "Industry"}
    raw |= {"state": "filled", "calls": "1", "changed_ms": "1000", "planned_ms": "500"} | changes
    found = decode_entry("a" * 20, {name.encode(): value.encode() for name, value in raw.items()})
    assert found is not None
    return {"cf_industry": found}


UPDATED = event({}, action="updated", changed_fields=("url",))
BOTH = rule(on=(*CREATED, *updated("url")))


@pytest.mark.parametrize(
    ("of", "known", "planned_before", "outcome", "reason"),
    [
        (event({}), entry(), False, Outcome.RECORDED, "the ledger has the field already"),
        (event({}), entry(state="calling"), False, Outcome.RECORDED, "under way already"),
        (UPDATED, entry(), False, Outcome.CALL, "every record is wanted"),
        (UPDATED, entry(), True, Outcome.RECORDED, "the ledger has the field already"),
        (UPDATED, entry(state="waiting"), False, Outcome.RECORDED, "under way already"),
        (UPDATED, entry(state="calling", holder="w"), False, Outcome.CALL, "every record is wanted"),
        (UPDATED, entry(state="waiting", ambiguous="1"), False, Outcome.CALL, "every record is wanted"),
        (event({}), {}, False, Outcome.CALL, "every record is wanted"),
    ],
)
def test_what_the_ledger_has_is_said_and_not_started_again(of, known, planned_before, outcome, reason):
    found = only(of, BOTH, entries=known, planned_before=planned_before)
    assert (found.outcome, found.planned) == (outcome, True)
    assert reason in found.reason
    state = known["cf_industry"].state if known else None
    assert found.recorded == (
        None if state is None else Recorded(state=state, rule="Industry", at_ms=1000, credits=1)
    )


def test_a_rule_that_does_not_want_the_record_still_shows_what_the_ledger_has():
    found = only(event({}), rule(when='lead.url != ""'), entries=entry())
    assert found.outcome is Outcome.UNMET
    assert found.recorded is not None
    assert found.recorded.state is State.FILLED


def test_budgets_and_sample_are_shown():
    budget = BudgetLeft(words="5 credits a day for all rules", limit=5, spent=7)
    found = only(event({}), rule(sample=0.0), budgets={"Industry": (budget,)})
    assert found.budgets == (budget,)
    assert [budget.left, BudgetLeft(words="", limit=5, spent=None).left] == [0, None]
    assert (found.sample, found.in_sample) == (0.0, False)


def test_it_becomes_plain_data_with_its_sums():
    found = explained(event({"url": URL}), rule(when='lead.url != ""'), rule("Size", field="Size"))
    plain = json.loads(msgspec.json.encode(found.describe()))
    assert (plain["calls"], plain["credits_at_most"], plain["type"]) == (2, 2, "lead.created")
    assert plain["rules"][0]["condition"]["values"][0]["value"] == URL
    assert plain["rules"][0]["credits_at_most"] == 1
    assert URL not in repr(found)


def test_a_record_explained_as_if_just_created_has_no_event():
    assert explained(event({}, id=""), rule()).event_id is None


# without Close's fields


def offline(of: Event, *rules: Rule):
    schemas, known_ids = offline_schemas(RuleBook(rules=rules), of)
    return explained(of, *rules, schemas=schemas, known_ids=known_ids)


ODD = {"custom.7": "x"}
ID = "cf_9hWfpU3HBGeya7iAhKQq2Zy15NdWAoVTECHuzfkkMjL"


@pytest.mark.parametrize(
    ("of", "one", "outcome"),
    [
        (event({}), rule(field=ID), Outcome.CALL),
        (event({f"custom.{ID}": 3}), rule(field=ID), Outcome.FILLED),
        (event({f"custom.{ID}": 3}), rule(field=f"custom.{ID}"), Outcome.FILLED),
        (event(ODD), rule(field="7"), Outcome.FILLED),
        (event({}), rule(), Outcome.CALL),
        (event({}), rule(when=f'lead.custom["{ID}"] == ""'), Outcome.CALL),
        (event({}), rule(when='lead.custom["Size"] == ""'), Outcome.NOT_JUDGED),
        (event({}), rule(when='lead.custom["Size"] != ""'), Outcome.NOT_JUDGED),
        (event({}), rule(when='lead.custom["Size"] == "" && lead.url != ""'), Outcome.UNMET),
        (event({}), rule(when='lead.custom["Size"] == "" && lead.url != ""', **LATER), Outcome.UNMET),
        (event({}), rule(when='lead.custom["Size"] == ""', sample=0.0), Outcome.NOT_SAMPLED),
        (
            event({}, action="updated", changed_fields=("custom.cf_1",)),
            rule(on=updated("Size")),
            Outcome.NOT_JUDGED,
        ),
        (
            event({}, action="updated", changed_fields=("custom.cf_1",)),
            rule(on=updated("cf_1")),
            Outcome.CALL,
        ),
        (event({}, action="updated", changed_fields=("url",)), rule(on=updated("name")), Outcome.OTHER_EVENT),
        (event({}), rule(on=updated("Size")), Outcome.OTHER_EVENT),
    ],
)
def test_without_closes_fields_what_rests_on_a_name_is_not_judged(of, one, outcome):
    found = offline(of, one)
    assert found.rules[0].outcome is outcome
    if outcome is not Outcome.OTHER_EVENT:
        assert "custom fields are not known" in found.limits[0]
    assert found.rules[0].field_name is None
    assert (found.rules[0].field_id is None) is (one.field == "Industry")


@pytest.mark.parametrize(("settle_seconds", "planned"), [(0.0, False), (20.0, True)])
def test_what_is_judged_before_the_call_is_planned_though_it_cannot_be_told(settle_seconds, planned):
    found = offline(event({}), rule(when='lead.custom["Size"] == ""', settle_seconds=settle_seconds))
    assert found.rules[0].planned is planned


# agreement with planning

WHENS = st.sampled_from([None, 'lead.url != ""', 'lead.custom["Size"] != ""', "int(lead.name) > 3"])
RULES = st.lists(
    st.builds(
        dict,
        field=st.sampled_from(["Industry", "cf_industry", "Size", "Nothing"]),
        when=WHENS,
        settle_seconds=st.sampled_from([0.0, 20.0]),
        sample=st.sampled_from([1.0, 0.5]),
        mode=st.sampled_from(Mode),
        enabled=st.sampled_from([True, True, False]),
        on=st.sampled_from([CREATED, updated("url", "Pitch"), (*CREATED, *updated("name"))]),
    ),
    max_size=5,
)
EVENTS = st.builds(
    event,
    st.one_of(
        st.none(),
        st.fixed_dictionaries(
            {},
            optional={
                "url": st.just(URL),
                "name": st.sampled_from(["5", "Acme"]),
                "custom.cf_industry": st.just("Food"),
                "custom.cf_size": st.just(3),
            },
        ),
    ),
    action=st.sampled_from(["created", "updated", "merged", "deleted"]),
    object_id=st.sampled_from(["lead_1", "lead_2", "lead_3"]),
    changed_fields=st.sampled_from([(), ("url",), ("name", "custom.cf_pitch")]),
    organization_id=st.sampled_from([ORGANIZATION, ORGANIZATION, "orga_other"]),
    api_key_id=st.sampled_from([None, OUR_KEY]),
)


@given(EVENTS, RULES)
def test_it_says_exactly_what_planning_does(of, options):
    rules = tuple(rule(f"Rule {number}", **chosen) for number, chosen in enumerate(options))
    knowledge = Knowledge.of(RuleBook(rules=rules), SCHEMAS)
    planned = knowledge.plan(of, own_api_key_id=OUR_KEY)
    found = explain(of, knowledge=knowledge, own_api_key_id=OUR_KEY)
    if isinstance(planned, Ignored):
        assert found.ignored == planned.text
        assert not any(one.planned for one in found.rules)
        return
    assert [one.rule for one in found.rules if one.planned] == [
        one.target.rule for one in planned.enrichments
    ]
    reasons = {one.rule: one.reason for one in found.rules}
    assert {one.rule: one.reason for one in planned.skipped}.items() <= reasons.items()
    for one in found.rules:
        if one.outcome is Outcome.CALL:
            assert one.planned
        if one.condition is not None and one.outcome in {Outcome.CALL, Outcome.UNMET}:
            assert one.condition.met is (one.outcome is Outcome.CALL)
        if one.outcome is Outcome.NOT_SAMPLED:
            assert not in_sample(rule_name=one.rule, object_id=of.object_id, share=one.sample)
