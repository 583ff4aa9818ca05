"""What a backfill asks for, which records its rules want, and what makes two orders the same."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from service.binding import bind
from service.condition import compile_condition
from service.enrichment import State
from service.record_names import ATTRIBUTES
from service.rules import Mode, ObjectType
from service.rules_file import load_rules
from service.schema import CustomField, Schema
from workers.backfill_match import Judge, Match, RuleTally, event_id, worth_again
from workers.backfill_order import Order
from workers.backfill_query import fields_needed, for_object, lacking, read_query, search_body
from workers.backfill_walk import FIRST_SECOND, SearchWalk

LEAD, CONTACT = ObjectType.LEAD, ObjectType.CONTACT
SCHEMA = Schema(
    object_type=LEAD,
    organization_id="orga_1",
    fields=tuple(
        CustomField(id=f"cf_{n.lower()}", name=n, type="text") for n in ("Industry", "Segment", "Tier")
    ),
)


def rules(*lines):
    text = "\n".join(["version: 1", "rules:", *(f"  - {{object: lead, {line}}}" for line in lines)])
    loaded = load_rules(text.encode(), source="rules.yaml")
    assert loaded.rulebook is not None, loaded.problems
    return bind(loaded.rulebook, schemas={LEAD: SCHEMA}).bound


INDUSTRY = "name: Industry, field: Industry"
SEGMENT = "name: Segment, field: Segment"


def condition(source):
    compiled = compile_condition(source, object_type=LEAD)
    assert hasattr(compiled, "judge"), compiled
    return compiled


def lacks(field_id):
    return {
        "type": "field_condition",
        "negate": True,
        "field": {"type": "custom_field", "custom_field_id": field_id},
        "condition": {"type": "exists"},
    }


# The query


def test_a_search_is_in_close_s_words():
    walk = replace(SearchWalk(since=FIRST_SECOND, until=FIRST_SECOND + 60), cursor="next")
    created = {"type": "regular_field", "object_type": "lead", "field_name": "date_created"}
    body = search_body(walk, object_type=LEAD, conditions=[lacks("cf_x")], fields=("id", "url"))
    assert body == {
        "query": {
            "type": "and",
            "queries": [
                {"type": "object_type", "object_type": "lead"},
                {
                    "type": "field_condition",
                    "field": created,
                    "condition": {
                        "type": "moment_range",
                        "on_or_after": {"type": "fixed_utc", "value": "2009-01-01T00:00:00Z"},
                        "before": {"type": "fixed_utc", "value": "2009-01-01T00:01:00Z"},
                    },
                },
                lacks("cf_x"),
            ],
        },
        "_fields": {"lead": ["id", "url"]},
        "sort": [{"direction": "asc", "field": created}],
        "_limit": 200,
        "include_counts": True,
        "cursor": "next",
    }


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([INDUSTRY], [lacks("cf_industry")]),
        ([INDUSTRY, SEGMENT], [{"type": "or", "queries": [lacks("cf_industry"), lacks("cf_segment")]}]),
        ([INDUSTRY, INDUSTRY.replace("name: Industry", "name: Again")], [lacks("cf_industry")]),
        ([INDUSTRY + ", mode: overwrite"], []),
        ([INDUSTRY, SEGMENT + ", mode: preview"], []),
    ],
)
def test_only_records_that_lack_a_field_are_searched_unless_a_rule_wants_filled_ones(lines, expected):
    assert lacking(rules(*lines)) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (None, {"id", "date_created", "custom.cf_industry"}),
        ('lead.url != ""', {"id", "date_created", "custom.cf_industry", "url"}),
        ('lead.custom["Tier"] == "A"', {"id", "date_created", "custom.cf_industry", "custom.cf_tier"}),
        (
            '"url" in lead',
            {"custom.cf_industry", "custom.cf_segment", "custom.cf_tier"} | ATTRIBUTES[LEAD],
        ),
    ],
)
def test_of_each_record_comes_what_conditions_read(source, expected):
    conditions = [] if source is None else [condition(source)]
    assert set(fields_needed(LEAD, rules(INDUSTRY), conditions, schema=SCHEMA)) == expected


def test_of_contacts_comes_their_lead():
    assert "lead_id" in fields_needed(CONTACT, (), (), schema=SCHEMA)


LEADS = {"type": "object_type", "object_type": "lead"}
IN_APP = {"type": "and", "negate": False, "queries": [{"type": "or", "queries": []}, LEADS]}


@pytest.mark.parametrize(
    "text", [json.dumps({"limit": None, "query": IN_APP, "sort": []}), json.dumps(IN_APP)]
)
def test_what_copy_filters_gives_is_read(text):
    assert read_query(text.encode()) == IN_APP


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "{}", '{"query": []}', '{"query": {"queries": []}}'])
def test_what_is_no_query_is_told(text):
    problem = read_query(text.encode())
    assert isinstance(problem, str)
    assert problem.startswith(("not JSON: ", 'expected what "Copy Filters" in Close gives'))


def test_a_query_that_is_nested_without_end_is_told():
    assert read_query(b'{"query":' * 100_000) == "not JSON: nested too deep"


def related(this, other, query):
    names = {"this_object_type": this, "related_object_type": other, "related_query": query}
    return {"type": "has_related", **names}


DEEP = LEADS
for _ in range(60):
    DEEP = {"type": "and", "queries": [DEEP]}


@pytest.mark.parametrize(
    ("query", "object_type", "expected"),
    [
        (IN_APP, LEAD, IN_APP),
        (IN_APP, CONTACT, related("contact", "lead", IN_APP)),
        ({"type": "match_all"}, CONTACT, {"type": "match_all"}),
        (related("lead", "contact", {}), LEAD, related("lead", "contact", {})),
        (related("lead", "contact", {}), CONTACT, related("contact", "lead", related("lead", "contact", {}))),
        (related(None, "contact", {}), CONTACT, related(None, "contact", {})),
        ({"type": "and", "queries": "odd"}, LEAD, {"type": "and", "queries": "odd"}),
        ({"type": "and", "queries": ["odd"]}, LEAD, {"type": "and", "queries": ["odd"]}),
        (DEEP, CONTACT, DEEP),
    ],
)
def test_a_query_about_the_other_type_is_met_by_relatives(query, object_type, expected):
    assert for_object(query, object_type) == expected


# Which records


EITHER = INDUSTRY + ", on: [created, merged]"


def judged(record, *lines, where=None):
    bound = rules(*lines)
    judge = Judge(
        run_id="r1",
        organization_id="orga_1",
        rules=tuple(enumerate(bound)),
        where=None if where is None else condition(where),
        schema=SCHEMA,
    )
    tallies = [RuleTally()] * len(bound)
    return judge.matches({"id": "lead_1", **record}, tallies=tallies), tallies


@pytest.mark.parametrize(
    ("record", "lines", "expected"),
    [
        ({}, [INDUSTRY], [0]),
        ({"custom.cf_industry": ""}, [INDUSTRY], [0]),
        ({"custom.cf_industry": "Food"}, [INDUSTRY], []),
        ({"custom.cf_industry": "Food"}, [INDUSTRY + ", mode: overwrite"], [0]),
        ({}, [INDUSTRY, SEGMENT], [0, 1]),
        ({}, [INDUSTRY, INDUSTRY.replace("name: Industry", "name: Again")], [0]),
        (
            {},
            [INDUSTRY + """, when: 'lead.url != ""'""", INDUSTRY.replace("name: Industry", "name: Again")],
            [1],
        ),
        ({"url": "x"}, [INDUSTRY + """, when: 'lead.url != ""'"""], [0]),
        ({}, [EITHER + """, when: 'event.action != "created"'"""], [0]),
        ({}, [EITHER + """, when: 'event.action == "created"'"""], []),
        ({}, [INDUSTRY + ", sample: 0.0000001"], []),
    ],
)
def test_rules_want_what_they_would_want_of_an_event(record, lines, expected):
    assert [match.rule for match in judged(record, *lines)[0]] == expected


def test_where_is_asked_of_every_record():
    assert judged({"url": "x"}, INDUSTRY, where='lead.url == "x"')[0] == (Match(rule=0),)
    matches, tallies = judged({"url": "y"}, INDUSTRY, where='lead.url == "x"')
    assert matches == ()
    assert tallies == [RuleTally(searched=1)]


AFTER = SEGMENT + """, after: [Industry], when: 'lead.custom["Industry"] != ""'"""


def test_a_condition_that_waits_for_another_rule_is_judged_later():
    matches, tallies = judged({}, INDUSTRY, AFTER)
    assert matches == (Match(rule=0), Match(rule=1, later=True))
    assert [one.matched for one in tallies] == [1, 1]


def test_a_condition_whose_rule_before_it_wants_nothing_is_judged_now():
    assert judged({"custom.cf_industry": "Food"}, INDUSTRY, AFTER)[0] == (Match(rule=1),)
    assert judged({}, AFTER, INDUSTRY)[0] == (Match(rule=1),)


def test_tallies_add_up():
    one = RuleTally(searched=5, matched=4, known=1, wanted=3, later=2)
    assert one.plus(one) == RuleTally(searched=10, matched=8, known=2, wanted=6, later=4)


def test_a_run_s_event_is_called_after_it():
    assert event_id("2026-11-23-k3f9a") == "backfill-2026-11-23-k3f9a"


@pytest.mark.parametrize(
    ("state", "mode", "again"),
    [
        *((state, Mode.FILL, state in (State.KEPT, State.SKIPPED, State.PREVIEWED)) for state in State),
        (State.PREVIEWED, Mode.PREVIEW, False),
        (State.PREVIEWED, Mode.OVERWRITE, True),
        (State.FILLED, Mode.OVERWRITE, False),
    ],
)
def test_what_close_has_answered_is_not_paid_for_again(state, mode, again):
    assert worth_again(state, mode=mode) is again


# The order


def test_the_same_order_has_the_same_digest():
    assert Order(rules=rules(INDUSTRY)).digest == Order(rules=rules(INDUSTRY)).digest
    query = {"type": "and", "queries": []}
    turned = dict(reversed(query.items()))
    assert Order(rules=(), query=query).digest == Order(rules=(), query=turned).digest


OTHERS = [
    {},
    {"rules": rules(INDUSTRY, SEGMENT)},
    {"rules": rules(INDUSTRY + ", mode: overwrite")},
    {"rules": rules(INDUSTRY + ", sample: 0.5")},
    {"rules": rules(INDUSTRY + """, when: 'lead.url != ""'""")},
    {"where": condition('lead.url == ""')},
    {"query": {"type": "match_all"}},
    {"since": "90d"},
    {"limit": 5},
]


def test_whatever_changes_the_records_or_the_price_makes_another_order():
    orders = [Order(**{"rules": rules(INDUSTRY), **other}) for other in OTHERS]
    assert len({order.digest for order in orders}) == len(OTHERS)


def test_each_type_is_searched_once():
    assert Order(rules=rules(INDUSTRY, SEGMENT)).object_types == (LEAD,)
