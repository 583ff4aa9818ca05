"""Conditions: what is refused, what absent fields mean, and that nothing escapes."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.cel_text import SyntaxProblem, syntax_problem
from service.condition import Condition, ConditionProblem, compile_condition
from service.event import Event
from service.evidence import Evidence, Verdict, event_view, record_view
from service.rules import ObjectType
from service.schema import CustomField, Schema

SCHEMA = Schema(
    object_type=ObjectType.LEAD,
    organization_id="orga_1",
    fields=(
        CustomField(id="cf_1", name="Industry", type="choices"),
        CustomField(id="cf_2", name="# of employees", type="number"),
        CustomField(id="cf_3", name="Twin", type="text"),
        CustomField(id="cf_4", name="Twin", type="text"),
        CustomField(id="cf_5", name="cf_1", type="text"),
    ),
)
EVENT = Event(
    id="ev_1",
    organization_id="orga_1",
    object_type="lead",
    object_id="lead_1",
    lead_id=None,
    action="updated",
    date_created="2026-10-14T09:33:13.418000",
    date_updated="2026-10-14T09:33:13.418000",
    changed_fields=("url", "custom.cf_1"),
)
SAMPLE = json.loads((Path(__file__).parent / "samples" / "02_lead.created.full.json").read_text())


def condition(source, object_type=ObjectType.LEAD):
    compiled = compile_condition(source, object_type=object_type)
    assert isinstance(compiled, Condition), compiled
    return compiled


def judged(source, data=None, *, object_type=ObjectType.LEAD, event=EVENT):
    return condition(source, object_type).judge(
        record=record_view(data or {}, schema=SCHEMA), event=event_view(event), organization={"id": "orga_1"}
    )


MET = Verdict(met=True, reason="the condition is met")
NOT_MET = Verdict(met=False, reason="the condition is not met")


@pytest.mark.parametrize(
    ("source", "data", "met"),
    [
        ('lead.url != ""', {"url": "https://a.example"}, True),
        ('lead.url != ""', {"url": ""}, False),
        ('lead.url != ""', {"url": None}, False),
        ('lead.url != ""', {}, False),
        ('lead.url == ""', {}, True),
        ('lead.url == ""', {"url": None}, True),
        ("has(lead.url)", {"url": "x"}, True),
        ("has(lead.url)", {"url": ""}, False),
        ("has(lead.url)", {"url": None}, False),
        ("!has(lead.url)", {}, True),
        ('lead.description == "" && !has(lead.url)', {}, True),
        ('lead.url == "" ? has(lead.url) : true', {}, False),
        ('has (lead.url) && lead["url"] == "x"', {"url": "x"}, True),
        ("size(lead.addresses) == 0", {"addresses": None}, True),
        ('!lead.addresses.exists(a, a.country == "DE")', {}, True),
        (
            'lead.addresses.exists(a, has(a.country) && a.country == "DE")',
            {"addresses": [{"country": "DE"}]},
            True,
        ),
        ('lead.custom["Industry"] == "Software"', {"custom.cf_1": "Software"}, True),
        ('lead.custom.cf_1 == "Software"', {"custom.cf_1": "Software"}, True),
        ('lead["custom.cf_1"] == "Software"', {"custom.cf_1": "Software"}, True),
        ('lead["custom"]["Industry"] == "Software"', {"custom.cf_1": "Software"}, True),
        (r'lead.custom["\u0049ndustry"] == ""', {}, True),
        ('lead["custom.cf_1"] == ""', {}, True),
        ('lead.custom.Industry == ""', {"custom": {}}, True),
        ("has(lead.custom.Industry)", {"custom.cf_1": ["a"]}, True),
        ("has(lead.custom.Industry)", {"custom.cf_1": []}, False),
        ('has(lead.custom.Industry) || lead.custom.Industry != ""', {}, False),
        ('"# of employees" in lead.custom', {"custom.cf_2": 5}, True),
        ('"# of employees" in lead.custom && lead.custom["# of employees"] > 4', {"custom.cf_2": 5}, True),
        ('"# of employees" in lead.custom || lead.custom["# of employees"] != ""', {}, False),
        ('"url" in lead || lead.url != ""', {}, False),
        ('"x" in lead.addresses', {"addresses": ["x"]}, True),
        ('"x" in lead.custom["Industry"]', {"custom.cf_1": ["x"]}, True),
        ('lead.custom["# of employees"] > 10', {"custom.cf_2": 10.5}, True),
        ('lead.url.matches("^https://")', {"url": "https://a"}, True),
        ('event.action == "updated" && "url" in event.changed_fields', {}, True),
        ('event.lead_id == "" && !has(event.lead_id)', {}, True),
        ('organization.id == "orga_1"', {}, True),
        ("true // lead.nothing", {}, True),
        ('lead.url == "lead.x" || has(lead.name)', {"url": "lead.x"}, True),
        ('lead.name == "foo.bar()"', {"name": "foo.bar()"}, True),
    ],
)
def test_a_field_without_a_value_is_absent_for_has_and_in_and_reads_as_empty(source, data, met):
    assert judged(source, data) == (MET if met else NOT_MET)


def test_a_contact_is_judged_as_contact():
    data = {"title": "Head of Procurement", "emails": []}
    assert judged("has(contact.title) && !has(contact.emails)", data, object_type=ObjectType.CONTACT) == MET


@pytest.mark.parametrize(
    ("source", "data", "reason"),
    [
        ("lead.urll == lead.url", {}, "the condition reads a field that is not known"),
        ("1 / size(lead.url) > 0", {}, "the condition divides by zero"),
        (
            "size(lead.url) + 9223372036854775807 > 0",
            {"url": "x"},
            "the condition calculates with a number that is out of range",
        ),
        ('lead.addresses[0].city == "x"', {}, "the condition reads a place beyond the end of a list"),
        (
            "lead.custom.cf_2 > 3",
            {},
            "the condition combines values of different kinds; a field without a value is empty text",
        ),
        (
            'lead.url == "" || lead.url',
            {"url": "secret"},
            "the condition combines values of different kinds; a field without a value is empty text",
        ),
        ('lead.url == "" ? true : lead.url', {"url": "secret"}, "the condition gives neither true nor false"),
        ("int(lead.url) == 1", {"url": "secret"}, "the condition could not be evaluated"),
        ("lead.custom[lead.name] == 1", {"name": "secret"}, "the condition reads a field that is not known"),
        ('lead.url == "\\ud7ff"', {"url": "\ud800"}, "the condition could not be evaluated"),
        ("lead.custom.cf_2 > 3", {"custom.cf_2": {1, 2}}, "the condition could not be evaluated"),
    ],
)
def test_an_evaluation_that_fails_is_not_met_and_says_why_without_a_value(source, data, reason):
    verdict = judged(source, data)
    assert verdict == Verdict(met=False, reason=reason)


def test_a_panic_of_the_engine_does_not_escape():
    class PanicException(BaseException):
        pass

    class Program:
        def execute(self, _variables):
            raise PanicException

    broken = Condition(source="x", object_type=ObjectType.LEAD, program=Program())
    verdict = broken.judge(record={}, event={}, organization={})
    assert verdict == Verdict(met=False, reason="the condition could not be evaluated")


def test_an_interruption_escapes():
    class Program:
        def execute(self, _variables):
            raise KeyboardInterrupt

    interrupted = Condition(source="x", object_type=ObjectType.LEAD, program=Program())
    with pytest.raises(KeyboardInterrupt):
        interrupted.judge(record={}, event={}, organization={})


NO_NAME_IN_HAS = (
    "does not give has() a field by its name, as in has(lead.url); "
    'whether a custom field has a value is asked with "Industry" in lead.custom'
)


@pytest.mark.parametrize(
    ("source", "line", "column", "message", "suggestion"),
    [
        ("", 1, 1, "is empty", None),
        (" \n", 1, 1, "is empty", None),
        ("x" * 4001, 1, 1, "is longer than 4000 characters", None),
        ('lead.url == "\ud800"', 1, 1, "holds half a character (a lone surrogate)", None),
        ("lead.url !=", 1, 12, "ends where more is expected", None),
        ('lead.url = ""', 1, 10, "has '=' where it is not expected", "=="),
        ('lead.url === ""', 1, 12, "has '=' where it is not expected", "=="),
        ('lead.url <> ""', 1, 11, "has '>' where it is not expected", "!="),
        ('lead.url =~ "x"', 1, 10, "has '=~' where it is not expected", ".matches(…)"),
        ("has(lead.url)\n  and has(lead.name)", 2, 3, "has 'and' where it is not expected", "&&"),
        ("not has(lead.url)", 1, 1, "has 'not' where it is not expected", "!"),
        ("has(lead.url))", 1, 14, "has ')' where it is not expected", None),
        ("lead.url == 'it", 1, 13, 'has "\'it" where it is not expected', None),
        ("lead.url == 99999999999999999999", 1, 13, "is not valid: invalid int literal", None),
        ("has(lead)", 1, 5, NO_NAME_IN_HAS, None),
        ('has(lead.custom["Size"])', 1, 16, NO_NAME_IN_HAS, None),
        (
            "lead.url == null",
            1,
            13,
            'compares with null, but a field without a value is empty text: compare with ""',
            None,
        ),
        (
            'true &&\n  leed.url != ""',
            2,
            3,
            "uses 'leed', which is not one of lead, event, organization",
            "lead",
        ),
        ("has(contact.title)", 1, 5, "uses 'contact', which is not one of lead, event, organization", "lead"),
        ("[1].all(lead, lead > 0)", 1, 9, "loops over 'lead', which is taken; use another name", None),
        (
            "present_lead.url == 1",
            1,
            1,
            "uses 'present_lead', which is not one of lead, event, organization",
            None,
        ),
        ('lead.url.startswith("x")', 1, 10, "calls startswith(), which does not exist", "startsWith"),
        ("now() > 1", 1, 1, "calls now(), which does not exist", None),
        ("[1].all(1 > 0)", 1, 5, "does not give all() what it takes", None),
        ("has(lead.url, lead.name)", 1, 1, "does not give has() what it takes", None),
        ("has((lead).url)", 1, 1, "needs a field in has(), as in has(lead.name)", None),
        ('lead.url.matches("(")', 1, 1, "has a pattern in matches() that is not valid", None),
        ("lead.url", 1, 1, "gives neither true nor false; compare it with something", None),
        ("size(lead.url)", 1, 1, "gives neither true nor false; compare it with something", None),
    ],
)
def test_what_cannot_be_a_condition_is_refused_at_its_place(source, line, column, message, suggestion):
    problem = compile_condition(source, object_type=ObjectType.LEAD)
    assert problem == ConditionProblem(line=line, column=column, message=message, suggestion=suggestion)


def test_a_condition_tells_which_fields_it_reads():
    read = condition(
        'lead.urll != lead.url && lead.custom["A b"] == lead["custom.cf_1"] && lead.url != lead.custom.cf_2'
    )
    assert read.attributes == ("urll", "url")
    assert read.custom_fields == ("A b", "cf_1", "cf_2")


@pytest.mark.parametrize(
    ("source", "whole"),
    [
        ('lead.url != "" && has(lead.custom.Industry)', False),
        ('"url" in lead', True),
        ('"Industry" in lead.custom', True),
        ("lead.custom[lead.url] == 1", True),
        ("size(lead) > 3", True),
    ],
)
def test_a_condition_tells_whether_it_needs_more_than_the_fields_it_names(source, whole):
    assert condition(source).reads_whole_record is whole


def test_an_engine_message_that_names_no_place_is_a_problem_all_the_same():
    assert syntax_problem("x", "out of order") == SyntaxProblem(
        line=1, column=1, message="is not a CEL expression"
    )


def test_a_condition_is_equal_to_itself_compiled_again_and_does_not_show_its_program():
    assert condition("has(lead.url)") == condition("has(lead.url)")
    assert "rogram" not in repr(condition("has(lead.url)"))


def test_a_record_view_names_custom_fields_by_id_and_by_a_name_that_is_their_own():
    data = {
        "name": "A",
        "url": None,
        "custom.cf_1": "x",
        "custom.cf_3": "y",
        "custom.cf_5": "z",
        "custom.cf_4": "",
    }
    view = record_view(data, schema=SCHEMA)
    assert view["custom"] == {"cf_1": "x", "Industry": "x", "cf_3": "y", "cf_5": "z"}
    assert "url" not in view
    assert record_view(data, schema=None)["custom"] == {"cf_1": "x", "cf_3": "y", "cf_5": "z"}


def test_a_real_lead_can_be_judged():
    assert judged('lead.url != "" && size(lead.contact_ids) >= 0', SAMPLE["event"]["data"]) == MET


def test_many_threads_judge_at_once():
    shared = condition('lead.url.startsWith("x") && size(lead.name) > 3')

    def judge(size):
        record = record_view({"url": "x", "name": "n" * size}, schema=None)
        return shared.judge(record=record, event={}, organization={"id": ""}).met

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(judge, range(400))) == [size > 3 for size in range(400)]


def test_the_engine_is_loaded_only_when_a_condition_is_compiled():
    code = "import sys, service.condition, service.rules_file; print('cel' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def judged_at_once(sources, data):
    """The verdicts of many conditions on one record: one by one, and on evidence that they share."""
    conditions = [condition(source) for source in sources]
    seen = {"record": record_view(data, schema=SCHEMA), "event": event_view(EVENT),
            "organization": {"id": "orga_1"}}  # fmt: skip
    shared = Evidence(**seen, conditions=conditions)
    return [one.judge(**seen) for one in conditions], [shared.judge(one) for one in conditions]


ACCESSES = {
    'lead.custom["Industry"]': ("custom", "Industry"),
    "lead.custom.cf_1": ("custom", "cf_1"),
    'lead["custom"]["# of employees"]': ("custom", "# of employees"),
    'lead["custom.cf_1"]': ("custom.cf_1",),
    'lead.custom["\\"\\n\u00e9\U0001f600"]': ("custom", '"\n\u00e9\U0001f600'),
    "lead.url": ("url",),
    "lead.emails": ("emails",),
    "lead.contact_ids": ("contact_ids",),
}
"""What conditions read, and the same as the steps of a path."""
JSON = st.recursive(
    st.sampled_from(["", "x", "Industry", None, 1, 2.5, True, [], {}, 2**70]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("xy"), inner, max_size=2),
    max_leaves=4,
)
TESTS = [
    '{0} == "x"',
    '{0} != "" && {1} != ""',
    "size({0}) > 0",
    "{0} > 1",
    '{0}.startsWith("x")',
    "{0} == {1}",
    "{0}.x == {1}",
    '"x" in {0}',
    '"Industry" in lead.custom && {0} != ""',
    '"url" in lead || {0} == "x"',
    '{0} == "" ? {1} == "x" : has(lead.url)',
    "event.action == {0} || has(lead.custom.cf_1)",
    "has(lead.custom) && {0} == {1}",
    'lead.custom[b"x"] == {0}',
]


@settings(deadline=None)  # the engine takes a while to load
@given(
    st.lists(
        st.tuples(
            st.sampled_from(TESTS), st.sampled_from(sorted(ACCESSES)), st.sampled_from(sorted(ACCESSES))
        ),
        min_size=1,
        max_size=6,
    ),
    st.dictionaries(
        st.sampled_from(
            ["url", "emails", "contact_ids", "custom.cf_1", "custom.cf_2", 'custom."\n\u00e9\U0001f600', "x"]
        ),
        JSON,
    ),
)
def test_a_condition_says_the_same_alone_among_others_and_with_the_whole_record_before_it(tests, data):
    sources = [test.format(first, second) for test, first, second in tests]
    # one that reads the record as a whole is given all of it, under the names that it has there
    wholes = [f"(size(lead) < 0 && false) || ({source})" for source in sources]
    alone, shared = judged_at_once([*sources, *wholes], data)
    assert shared == alone
    assert alone[: len(sources)] == alone[len(sources) :]


@pytest.mark.parametrize("access", sorted(ACCESSES))
def test_each_way_to_name_a_field_reads_that_field(access):
    data = {"url": "u", "emails": "e", "contact_ids": "i", "custom.cf_1": "1", "custom.cf_2": "2",
            'custom."\n\u00e9\U0001f600': "3"}  # fmt: skip
    value = record_view(data, schema=SCHEMA)
    for step in ACCESSES[access]:
        value = value[step]
    assert judged(f'{access} == "{value}"', data) == MET
    assert judged(f'{access} == ""', {"name": "A"}).met is (access not in {"lead.emails", "lead.contact_ids"})


def test_conditions_that_share_evidence_do_not_see_each_others_fields():
    sources = ['lead.custom["Industry"] == ""', "size(lead.custom) == 0", '"Industry" in lead.custom',
               'lead.custom.all(name, name == "cf_2") && lead.custom["cf_2"] == ""']  # fmt: skip
    alone, shared = judged_at_once(sources, {"name": "A"})
    assert shared == alone == [MET, MET, NOT_MET, MET]


def test_a_panic_over_one_condition_leaves_the_others_their_evidence():
    class PanicException(BaseException):
        pass

    class Program:
        def execute(self, _variables):
            raise PanicException

    sound = condition("has(lead.url)")
    broken = Condition(source="x", object_type=ObjectType.LEAD, program=Program())
    evidence = Evidence(record={"url": "x"}, event={}, organization={}, conditions=[sound, broken])
    assert [evidence.judge(one).met for one in (sound, broken, sound)] == [True, False, True]


EXPRESSION = st.recursive(
    st.sampled_from(
        [
            "lead",
            "lead.url",
            "lead.x",
            'lead.custom["a"]',
            "event",
            "1",
            "0",
            "1.5",
            '""',
            '"a"',
            "[]",
            "{}",
            "true",
            "null",
            "x",
            "-9223372036854775808",
            "18446744073709551615u",
            'b"\\xff"',
            '"""',
            "'",
            "//",
            "\\",
            "(",
        ]
    ),
    lambda inner: st.one_of(
        st.tuples(
            inner,
            st.sampled_from(["+", "-", "*", "/", "%", "==", "<", "in", "&&", "||", "[", ".", ","]),
            inner,
        ).map(" ".join),
        inner.map("has({})".format),
        inner.map("!({})".format),
        inner.map("size({})".format),
        st.tuples(inner, inner).map(lambda pair: f"{pair[0]}.all(x, {pair[1]})"),
        st.tuples(inner, inner).map(lambda pair: f"{pair[0]}[{pair[1]}]"),
    ),
    max_leaves=8,
)


@settings(deadline=None)  # the engine takes a while to load
@given(
    st.one_of(st.text(), EXPRESSION),
    st.dictionaries(
        st.sampled_from(["url", "name", "custom.cf_1", "custom", "x"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
            max_leaves=5,
        ),
    ),
)
def test_no_expression_and_no_record_raise(source, data):
    compiled = compile_condition(source, object_type=ObjectType.LEAD)
    if isinstance(compiled, Condition):
        verdict = compiled.judge(
            record=record_view(data, schema=SCHEMA), event=event_view(EVENT), organization={"id": "o"}
        )
        assert verdict.met == (verdict.reason == "the condition is met")
    else:
        lines = source.split("\n")
        assert 1 <= compiled.line <= len(lines)
        assert 1 <= compiled.column <= len(lines[compiled.line - 1]) + 1
