"""The filter language of webhook subscriptions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.sandbox.filters import filter_problem, matches


def field(name, inner):
    return {"type": "field_accessor", "field": name, "filter": inner}


EQUALS_1 = {"type": "equals", "value": 1}
IS_NULL = {"type": "is_null"}
NON_NULL = {"type": "non_null"}
EVENT = {
    "api_key_id": "api_1",
    "changed_fields": ["url", "custom.cf_1"],
    "data": {
        "custom.cf_1": "Software",
        "name": None,
        "addresses": [{"city": "Aldersby"}, {"city": "Ostwick"}],
    },
    "count": 1,
}

CASES = [
    (field("data", field("custom.cf_1", NON_NULL)), True),
    (field("data", field("custom.cf_2", IS_NULL)), True),
    (field("data", field("custom.cf_2", NON_NULL)), False),
    (field("data", field("name", IS_NULL)), True),
    (field("api_key_id", {"type": "not_equals", "value": "api_1"}), False),
    (field("api_key_id", {"type": "not_equals", "value": "api_2"}), True),
    (field("api_key_id", {"type": "contains", "value": "pi_"}), True),
    (field("changed_fields", {"type": "contains", "value": "url"}), True),
    (field("changed_fields", {"type": "contains", "value": "ur"}), False),
    (field("count", {"type": "contains", "value": 1}), False),
    (field("count", EQUALS_1), True),
    (field("count", {"type": "equals", "value": True}), False),
    (field("count", field("deeper", IS_NULL)), True),
    (
        field("changed_fields", {"type": "any_array_value", "filter": {"type": "equals", "value": "url"}}),
        True,
    ),
    (field("count", {"type": "any_array_value", "filter": EQUALS_1}), False),
    (
        field(
            "data",
            field(
                "addresses",
                {"type": "any_array_value", "filter": field("city", {"type": "equals", "value": "Ostwick"})},
            ),
        ),
        True,
    ),
    ({"type": "and", "filters": []}, True),
    ({"type": "or", "filters": []}, False),
    ({"type": "and", "filters": [field("count", EQUALS_1), field("count", IS_NULL)]}, False),
    ({"type": "or", "filters": [field("count", EQUALS_1), field("count", IS_NULL)]}, True),
    ({"type": "not", "filter": field("count", EQUALS_1)}, False),
]


@pytest.mark.parametrize(("node", "expected"), CASES)
def test_a_filter_is_judged_on_the_event(node, expected):
    assert filter_problem(node) is None
    assert matches(node, EVENT) is expected


@pytest.mark.parametrize(
    ("leaf", "expected"),
    [
        (IS_NULL, False),
        (NON_NULL, False),
        ({"type": "not_equals", "value": None}, True),
        ({"type": "equals", "value": None}, False),
        ({"type": "contains", "value": "x"}, False),
    ],
)
def test_a_missing_key_can_be_told_from_null(leaf, expected):
    assert matches(field("absent", leaf), EVENT, missing_is_null=False) is expected


@pytest.mark.parametrize(
    ("node", "problem"),
    [
        ("equals", "extra_filter: expected an object"),
        ({}, "extra_filter.type: expected one of field_accessor, any_array_value, and, or, not, equals"),
        ({"type": ["and"]}, "extra_filter.type: expected one of"),
        ({"type": "equals"}, "extra_filter.value: this field is required"),
        ({"type": "is_null", "value": 1}, "extra_filter.value: unknown field"),
        (field(1, IS_NULL), "extra_filter.field: expected a string"),
        (field("a", {"type": "nul"}), "extra_filter.filter.type: expected one of"),
        ({"type": "and", "filters": {}}, "extra_filter.filters: expected a list"),
        ({"type": "or", "filters": [IS_NULL, 3]}, "extra_filter.filters[1]: expected an object"),
    ],
)
def test_what_is_wrong_with_a_filter_is_said_with_its_place(node, problem):
    assert filter_problem(node).startswith(problem)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)
leaves = st.sampled_from([IS_NULL, NON_NULL]) | st.builds(
    lambda kind, value: {"type": kind, "value": value},
    st.sampled_from(["equals", "not_equals", "contains"]),
    json_values,
)
nodes = st.recursive(
    leaves,
    lambda inner: (
        st.builds(field, st.text(max_size=3), inner)
        | st.builds(lambda f: {"type": "any_array_value", "filter": f}, inner)
        | st.builds(lambda f: {"type": "not", "filter": f}, inner)
        | st.builds(
            lambda kind, many: {"type": kind, "filters": many},
            st.sampled_from(["and", "or"]),
            st.lists(inner, max_size=3),
        )
    ),
    max_leaves=8,
)


@given(node=nodes, value=json_values, missing_is_null=st.booleans())
def test_every_valid_filter_gives_an_answer_and_not_gives_its_opposite(node, value, missing_is_null):
    assert filter_problem(node) is None
    judged = matches(node, value, missing_is_null=missing_is_null)
    assert matches({"type": "not", "filter": node}, value, missing_is_null=missing_is_null) is not judged


@given(nodes=st.lists(nodes, max_size=4), value=json_values)
def test_and_is_not_or_of_nots(nodes, value):
    conjunction = {"type": "and", "filters": nodes}
    negated = {"type": "or", "filters": [{"type": "not", "filter": node} for node in nodes]}
    assert matches(conjunction, value) is not matches(negated, value)


@given(node=json_values)
def test_nothing_that_is_no_filter_breaks_the_check(node):
    assert isinstance(filter_problem(node), str)
