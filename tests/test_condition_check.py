"""What can be told of a condition without a record, and that nothing right is refused."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.cel_tree import Kind, read_expression
from service.condition import Condition, compile_condition
from service.condition_check import check_condition
from service.evidence import record_view
from service.problem import Level
from service.rules import Action, ObjectType
from service.schema import CustomField, Schema

SCHEMA = Schema(
    object_type=ObjectType.LEAD,
    organization_id="orga_1",
    fields=(
        CustomField(id="cf_1", name="Industry", type="choices", choices=("Software", "Logistics")),
        CustomField(id="cf_2", name="Size", type="number"),
        CustomField(id="cf_3", name="Tags", type="choices", choices=("A", "B"), accepts_multiple_values=True),
        CustomField(id="cf_4", name="Founded", type="date"),
        CustomField(id="cf_5", name="Secret", type="hidden"),
    ),
)


def told(source, *, schema=SCHEMA, actions=(Action.CREATED,)):
    """Each problem as `column message [suggestion]`, warnings marked."""
    assert isinstance(compile_condition(source, object_type=ObjectType.LEAD), Condition)
    found = check_condition(source, object_type=ObjectType.LEAD, actions=actions, schema=schema)
    return [
        f"{'~' if one.level is Level.WARNING else ''}{one.column} {one.message}"
        + (f" [{one.suggestion}]" if one.suggestion else "")
        for one in found
    ]


def cases():
    """The expressions of the table beside this file, each with the problems below it."""
    found = []
    for line in (Path(__file__).parent / "condition_cases.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("    "):
            found[-1][1].append(line.strip())
        elif line and not line.startswith("#"):
            found.append((line, []))
    return found


@pytest.mark.parametrize(("source", "expected"), cases())
def test_what_does_not_go_together_is_told_at_its_word_and_the_rest_is_left_alone(source, expected):
    assert told(source) == expected


def test_nothing_is_said_of_events_that_are_not_known():
    assert told('event.action == "updated"', actions=()) == []


def test_without_the_organizations_fields_nothing_is_said_of_custom_fields():
    assert told('lead.custom.Size > "5" && lead.custom.Industry == "Software!"', schema=None) == []


@pytest.mark.parametrize(
    "source",
    [
        "&&".join(["(" * 70 + "true" + ")" * 70, "has(lead.url)"]),
        "+".join(["lead.url"] * 80) + ' == "x"',
        "&&".join(["(has(lead.url) || has(lead.name))"] * 9),
        "||".join(["(has(lead.url) && has(lead.name))"] * 9),
        "||".join([f'lead.id=="{i}"' for i in range(250)]),
    ],
    ids=["deep", "long", "many ways to be true", "many ways to be false", "many values"],
)
def test_a_condition_that_is_too_much_to_judge_is_let_be(source):
    assert told(source) == []


def test_a_chain_is_flat_and_knows_its_places():
    tree = read_expression("a && b.c && d['e f'].g(1) ? -1.5 : [x, {y: z}]")
    assert (tree.kind, tree.parts[0].text, len(tree.parts[0].parts)) == (Kind.CHOICE, "&&", 3)
    assert tree.parts[0].parts[2].parts[0].path() == ("d", "e f")
    assert tree.parts[1].value == -1.5
    assert [part.path() for part in tree.parts[2].parts] == [("x",), None]
    assert (tree.parts[0].parts[1].start, tree.parts[0].parts[1].at) == (5, 7)


@pytest.mark.parametrize(
    "source",
    [
        "",
        "a b",
        "a.",
        "a[",
        "(a",
        "f(a",
        "{a: b",
        "{a}",
        "a ? b",
        "a..b",
        "'x' 'y'",
        "999999999999999999999 > 1",
        "@",
        "a.'b'",
        "[a b]",
        "{a: b c}",
    ],
)
def test_what_is_no_expression_has_no_tree(source):
    assert read_expression(source) is None


NAMES = ("url", "name")
RELATIONS = ("==", "!=", "<", ">=", ">", "<=")
ATOMS = [
    *(f'lead.{one[0]} {one[1]} "{one[2]}"' for one in itertools.product(NAMES, RELATIONS, ("", "a", "b"))),
    *(f"has(lead.{name})" for name in NAMES),
    *(f'lead.{name} in ["a", ""]' for name in NAMES),
    *(f"lead.custom.Size {relation} 5" for relation in RELATIONS),
    'lead.url in ["b"]',
    '"b" == lead.url',
    '"a" < lead.name',
    "true",
    "false",
    "lead.url == lead.name",
    "size(lead.url) > 0",
    "has(lead.custom.Size)",
    'lead.custom.Size == ""',
    "lead.custom.Size >= 5.0",
    'event.action == "created"',
    'event.action == "updated"',
]
RECORDS = [
    record_view({"url": url, "name": name, "custom.cf_2": size}, schema=SCHEMA)
    for url, name, size in itertools.product((None, "a", "b", "ab"), (None, "a", "b"), (None, 4, 5, 5.5))
]
EXPRESSIONS = st.recursive(
    st.sampled_from(ATOMS),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]} && {pair[1]})"),
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]} || {pair[1]})"),
        st.tuples(inner, inner, inner).map(lambda three: f"({three[0]} ? {three[1]} : {three[2]})"),
        inner.map(lambda one: f"!({one})"),
    ),
    max_leaves=6,
)


@settings(deadline=None, max_examples=150)
@given(EXPRESSIONS)
def test_what_is_called_never_true_is_true_for_no_record(source):
    condition = compile_condition(source, object_type=ObjectType.LEAD)
    found = check_condition(source, object_type=ObjectType.LEAD, actions=(Action.CREATED,), schema=SCHEMA)
    verdicts = {
        condition.judge(record=record, event={"action": "created"}, organization={"id": "orga_1"}).met
        for record in RECORDS
    }
    if any(one.message.startswith("is never true") for one in found):
        assert verdicts == {False}
    if any(one.message.startswith("is true for every") for one in found):
        assert verdicts == {True}
