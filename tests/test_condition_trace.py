"""What a condition saw, which of its parts held, and that the parts never contradict the whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.condition import Condition, compile_condition
from service.condition_trace import ConditionTrace, SeenValue, conjuncts, trace_condition
from service.evidence import record_view
from service.rules import ObjectType

EVENT = {"id": "ev_1", "action": "created", "changed_fields": []}
ORGANIZATION = {"id": "orga_1"}


def when(source: str) -> Condition:
    condition = compile_condition(source, object_type=ObjectType.LEAD)
    assert isinstance(condition, Condition), condition
    return condition


def traced(source: str, data: dict, **options) -> ConditionTrace:
    view = record_view(data, schema=None)
    return trace_condition(when(source), record=view, event=EVENT, organization=ORGANIZATION, **options)


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ('lead.url != ""', ('lead.url != ""',)),
        ("a && b", ("a", "b")),
        ("a && b && c", ("a", "b", "c")),
        ("a && (b || c) && [d && e].size() > 0", ("a", "(b || c)", "[d && e].size() > 0")),
        (" a &&\n  b // && c\n && d", ("a", "b", "d")),
        ('a.contains("&&") && b', ('a.contains("&&")', "b")),
        ("a && b || c", ("a && b || c",)),
        ("a || b && c", ("a || b && c",)),
        ("a && b ? c : d", ("a && b ? c : d",)),
        ("(a && b)", ("(a && b)",)),
    ],
)
def test_what_and_joins_at_the_top_is_taken_apart(source, parts):
    assert conjuncts(source) == parts


def test_every_field_that_is_named_is_shown_with_its_value_or_as_absent():
    source = (
        'lead.url != "" && lead.name == "" && lead.custom["Size"] == 7 && lead["custom.cf_2"] == "" '
        '&& event.action == "created" && organization.id != "" && event.action != ""'
    )
    trace = traced(source, {"url": "https://a.example", "name": "", "custom.Size": 7, "id": "lead_1"})
    assert trace.values == (
        SeenValue(name="lead.url", present=True, value="https://a.example"),
        SeenValue(name="lead.name", present=False),
        SeenValue(name='lead.custom["Size"]', present=True, value=7),
        SeenValue(name='lead.custom["cf_2"]', present=False),
        SeenValue(name="event.action", present=True, value="created"),
        SeenValue(name="organization.id", present=True, value="orga_1"),
    )
    assert trace.met is True


def test_a_variable_as_a_whole_is_no_field_that_is_named():
    assert traced('"url" in lead && size(event) > 0', {}).values == ()


def test_the_part_that_does_not_hold_is_found():
    trace = traced('lead.url != "" && lead.name == "Acme"', {"name": "Acme"})
    assert [(part.source, part.met) for part in trace.parts] == [
        ('lead.url != ""', False),
        ('lead.name == "Acme"', True),
    ]
    assert (trace.met, trace.reason) == (False, "the condition is not met")


def test_a_part_that_is_no_condition_by_itself_leaves_the_whole_undivided():
    source = 'lead.url != "" && size(lead.name)'
    assert [part.source for part in traced(source, {}).parts] == [source]


@pytest.mark.parametrize(
    ("source", "met"),
    [
        ('lead.custom["Size"] == 7', None),
        ('lead.custom["Size"] == 7 && lead.url != ""', None),
        ('lead.custom["Size"] == 7 && lead.name != ""', False),
        ('lead.custom["cf_1"] == 7 && lead.url != ""', True),
        ('lead.custom["cf_1"] == 8', False),
        ('"Size" in lead.custom', None),
        ('"Size" in lead.custom && lead.name != ""', False),
    ],
)
def test_where_names_are_not_known_only_what_does_not_rest_on_them_is_judged(source, met):
    data = {"url": "https://a.example", "custom.cf_1": 7}
    trace = traced(source, data, known_ids=frozenset({"cf_1"}))
    assert trace.met is met
    assert ("what is meant by" in trace.reason) is (met is None)
    assert [one.known for one in trace.values if "Size" in one.name] == [False] * ('["Size"]' in source)


def test_no_repr_shows_a_value():
    assert "secret" not in repr(traced('lead.name == "x"', {"name": "secret"}))


ATOMS = (
    'lead.url != ""',
    "has(lead.name)",
    'lead.name == "Acme"',
    '(lead.url == "" || lead.custom["Size"] > 3)',
    "int(lead.name) > 1",
    '!(lead.url == "" && lead.name == "")',
    'lead.custom["Size"] in [1, 7]',
)


@given(
    st.lists(st.sampled_from(ATOMS), min_size=1, max_size=5),
    st.fixed_dictionaries(
        {},
        optional={
            "url": st.sampled_from(["", "https://a.example"]),
            "name": st.sampled_from(["Acme", "5", None]),
            "custom.Size": st.sampled_from([1, 7, "many"]),
        },
    ),
)
def test_the_whole_holds_exactly_where_all_its_parts_do(atoms, data):
    trace = traced(" && ".join(atoms), data)
    assert [part.source for part in trace.parts] == atoms
    assert trace.met is all(part.met for part in trace.parts)
