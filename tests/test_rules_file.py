"""The rules file: what it says, and that whatever is wrong with it is told at its place, all at once."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from service.problem import Level, Problem
from service.rules import (
    Action,
    Backoff,
    Budget,
    Burst,
    Mode,
    ObjectType,
    OnAmbiguous,
    OnExhausted,
    Priority,
    Rule,
    Trigger,
)
from service.rules_file import load_rules
from service.rules_model import RulesFile
from service.yaml_tree import LARGEST_FILE_BYTES

EXAMPLE = (Path(__file__).parent.parent / "deploy" / "rules.example.yaml").read_text()
CREATED = (Trigger(action=Action.CREATED),)


def load(text):
    return load_rules(text, source="rules.yaml")


def problems(text):
    """Each problem as `line:column path: message [suggestion]`."""
    loaded = load(text)
    assert loaded.rulebook is None
    return [told(problem) for problem in loaded.problems]


def warnings(text):
    loaded = load(text)
    assert loaded.rulebook is not None, loaded.problems
    return [told(problem) for problem in loaded.warnings]


def told(problem):
    hint = f" [{problem.suggestion}]" if problem.suggestion else ""
    return f"{problem.line}:{problem.column} {problem.path}: {problem.message}{hint}"


def book(text):
    loaded = load(text)
    assert loaded.rulebook is not None, loaded.problems
    return loaded.rulebook


def one_rule(*lines, object_type="lead", field="Industry"):
    """A valid file with one rule and these lines more; the first of them is line 6."""
    head = ["version: 1", "rules:", "  - name: One", f"    object: {object_type}", f"    field: {field}"]
    return "\n".join([*head, *(f"    {line}" for line in lines)]) + "\n"


def many_rules(*rules):
    return "version: 1\nrules:\n" + "".join(f"  - {{{rule}}}\n" for rule in rules)


def test_the_example_says_what_its_comments_say():
    loaded = load(EXAMPLE)
    assert loaded.problems == loaded.warnings == ()
    rules = {rule.name: rule for rule in loaded.rulebook.rules}
    assert list(rules) == ["Industry", "Employee count", "Segment", "Seniority", "Elevator pitch (trial)"]
    assert loaded.rulebook.budget == Budget(
        per_day=2000,
        per_month=30000,
        on_exhausted=OnExhausted.WAIT,
        burst=Burst(most=500, within_seconds=600.0),
    )
    assert loaded.rulebook.digest == hashlib.sha256(EXAMPLE.encode()).hexdigest()[:12]
    assert rules["Industry"] == Rule(
        name="Industry",
        object_type=ObjectType.LEAD,
        field="Industry",
        on=CREATED,
        mode=Mode.FILL,
        settle_seconds=20.0,
        timeout_seconds=120.0,
        attempts=5,
        backoff=Backoff(first_seconds=2.0, most_seconds=600.0),
        on_ambiguous=OnAmbiguous.RETRY,
        when=rules["Industry"].when,
        line=21,
    )
    assert rules["Industry"].when.source == 'lead.url != ""'
    assert rules["Employee count"].priority is Priority.HIGH
    assert rules["Segment"].after == ("Industry", "Employee count")
    assert rules["Segment"].attempts == 3
    assert rules["Seniority"].object_type is ObjectType.CONTACT
    assert rules["Seniority"].on == (*CREATED, Trigger(action=Action.UPDATED, fields=("title",)))
    assert rules["Seniority"].mode is Mode.OVERWRITE
    assert rules["Seniority"].budget == Budget(per_day=300)
    assert rules["Elevator pitch (trial)"].mode is Mode.PREVIEW
    assert rules["Elevator pitch (trial)"].sample == pytest.approx(0.1)
    assert rules["Elevator pitch (trial)"].enabled


def test_without_defaults_the_built_in_ones_are_those_of_the_example():
    lines = EXAMPLE.split("\n")
    bare = "\n".join([*lines[:4], *[""] * 9, *lines[13:]])
    assert "defaults" not in bare
    assert book(bare).rules == book(EXAMPLE).rules


def test_defaults_change_every_rule_and_a_rule_changes_them_back_key_by_key():
    text = """
version: 1
defaults: {on: [merged], mode: overwrite, settle: 0, timeout: 1m, attempts: 2,
  backoff: {first: 1s}, on_ambiguous: hold}
rules:
  - {name: A, object: lead, field: a}
  - {name: B, object: lead, field: b, on: [created], mode: fill, settle: 1h, timeout: 2m, attempts: 9,
     backoff: {most: 5m}, on_ambiguous: retry, priority: low, sample: 0.25, enabled: false}
"""
    inherited, own = book(text).rules
    assert inherited == Rule(
        name="A",
        object_type=ObjectType.LEAD,
        field="a",
        on=(Trigger(action=Action.MERGED),),
        mode=Mode.OVERWRITE,
        settle_seconds=0.0,
        timeout_seconds=60.0,
        attempts=2,
        backoff=Backoff(first_seconds=1.0, most_seconds=600.0),
        on_ambiguous=OnAmbiguous.HOLD,
        line=6,
    )
    assert own == Rule(
        name="B",
        object_type=ObjectType.LEAD,
        field="b",
        on=CREATED,
        mode=Mode.FILL,
        settle_seconds=3600.0,
        timeout_seconds=120.0,
        attempts=9,
        backoff=Backoff(first_seconds=1.0, most_seconds=300.0),
        on_ambiguous=OnAmbiguous.RETRY,
        priority=Priority.LOW,
        sample=0.25,
        enabled=False,
        line=7,
    )


def test_two_versions_of_a_file_have_two_digests():
    assert book(EXAMPLE).digest != book(EXAMPLE + "\n").digest
    assert book(EXAMPLE.encode()).digest == book(EXAMPLE).digest


def test_a_problem_is_shown_with_its_line_and_a_caret():
    (problem,) = load(one_rule("mode: fil")).problems
    assert problem == Problem(
        line=6,
        column=11,
        path="rules[0].mode",
        value="fil",
        message="'fil' is not one of fill, overwrite, preview",
        suggestion="fill",
        source="rules.yaml",
        source_line="    mode: fil",
        level=Level.ERROR,
    )
    assert problem.render().split("\n") == [
        "rules.yaml:6:11: rules[0].mode: 'fil' is not one of fill, overwrite, preview; did you mean 'fill'?",
        "        mode: fil",
        "              ^",
    ]


def test_a_warning_is_shown_as_such():
    (warning,) = load("version: 1\nrules: []").warnings
    assert (
        warning.render().split("\n")[0]
        == "rules.yaml:2:8: warning: rules: is empty: nothing will be enriched"
    )


def test_a_long_line_is_shown_around_the_place():
    (problem,) = load(one_rule("mode: " + " " * 300 + "fil" + " " * 300)).problems
    _, excerpt, caret = problem.render().split("\n")
    assert excerpt[caret.index("^") :].startswith("fil")
    assert len(excerpt) <= 104


def test_what_could_move_the_cursor_is_not_shown():
    (problem,) = load(one_rule('mode: "\\e[2J\u200b"')).problems
    assert problem.value == "\x1b[2J\u200b"
    assert all(line.isprintable() for line in problem.render().split("\n"))


def test_every_problem_of_a_file_is_told_at_once_in_the_order_of_its_lines():
    text = """version: 2
defaults:
  mod: fill
  backoff: {first: 1h, most: 2s}
budget:
  per_day: -1
  burst: {most: 5, within: 10 min, then: drop}
rules:
  - name: Industry
    object: leed
    field: Industry
    when: lead.url = ""
  - object: lead
    field: 2024
    name: A
    after: [B, Industri]
  - name: B
    object: lead
    after: [A]
    timeout:
    backoff: 3
  - 5
  -
foo: 1
"""
    assert problems(text) == [
        "1:10 version: '2' is not a version that can be read; the only one is 1 [1]",
        (
            "3:3 defaults.mod: 'mod' is not a key here; the keys are on, mode, settle, timeout, attempts, "
            "backoff, on_ambiguous [mode]"
        ),
        "4:12 defaults.backoff: the first pause, 1h, is longer than the longest, 2s",
        "6:12 budget.per_day: '-1' is not within 0 to 1000000000",
        "7:28 budget.burst.within: '10 min' is not a duration like 250ms, 20s, 2m, 1h or 1d [10m]",
        "7:42 budget.burst.then: 'drop' is not one of hold",
        "10:13 rules[0].object: 'leed' is not one of lead, contact [lead]",
        "12:20 rules[0].when: the condition has '=' where it is not expected [==]",
        "14:12 rules[1].field: '2024' is not text; put it in quotes",
        "16:13 rules[1].after[0]: these rules wait for each other: 'A' -> 'B' -> 'A'",
        "16:16 rules[1].after[1]: 'Industri' is not a rule's name [Industry]",
        "17:5 rules[2].field: is missing",
        "20:13 rules[2].timeout: has no value; give it one or leave the key out",
        "21:14 rules[2].backoff: is not a mapping of keys to values",
        "22:5 rules[3]: is not a mapping of keys to values",
        "23:4 rules[4]: has no value; give it one or leave the key out",
        "24:1 foo: 'foo' is not a key here; the keys are version, defaults, budget, rules",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "1:1 : is empty"),
        ("# nothing\n", "1:1 : is empty"),
        ("just words", "1:1 : is not a mapping; it needs the keys version and rules"),
        ("- 1", "1:1 : is not a mapping; it needs the keys version and rules"),
        ("~", "1:1 : has no value; give it one or leave the key out"),
        ("version: 1\x00", "1:11 : holds the control character U+0000"),
        ("version: 1\n\n  \x1b", "3:3 : holds the control character U+001B"),
        ("version: \ud800", "1:10 : holds the control character U+D800"),
        (b"version: 1\nrules: \xff", "2:8 : is not UTF-8 text"),
        (
            "version: 1\nrules: [",
            "2:8 : is not valid YAML: expected the node content, but found '<stream end>'",
        ),
        (
            "version: 1\n\trules: []",
            "2:1 : is not valid YAML: a tab stands where only spaces may; indent with spaces",
        ),
        (
            "version: 1\n---\nversion: 1",
            "2:1 : is not valid YAML: a second document begins; keep everything in one",
        ),
        (
            "version: 1\nrules: a: b",
            "2:9 : is not valid YAML: ': ' may not stand within an unquoted value; put the value in quotes",
        ),
        ("version: *one", "1:10 : is not valid YAML: found undefined alias 'one'"),
        ('version: "\\U99999999"', "1:13 : is not valid YAML: an escape names no character"),
        ("[" * 5000, "1:1 : is nested too deeply"),
        ("#" * (LARGEST_FILE_BYTES + 1), f"1:1 : is larger than {LARGEST_FILE_BYTES // 1024} KiB"),
    ],
)
def test_a_text_that_is_no_rules_file_is_refused_with_one_problem(text, expected):
    told_problems = problems(text)
    if expected.startswith("2:8 : is not valid YAML: expected the node"):
        assert "is not valid YAML" in told_problems[0]
    else:
        assert told_problems == [expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("version: 1\nversion: 1\nrules: []", "2:1 version: stands twice; it is already on line 1"),
        ("version: 1\nrules: []\n? [a]\n: b", "3:3 : has a key that is not text"),
        (
            "version: 1\nrules: !!python/name:os.system []",
            "2:8 rules: has the tag '!!python/name:os.system', but only plain values are read",
        ),
        ("version: 1\nrules: !mine []", "2:8 rules: has the tag '!mine', but only plain values are read"),
        ("version: 1\nrules: &a [*a]", "2:8 rules[0]: contains itself through an alias"),
        ("version: 1\nrules: " + "[" * 21 + "]" * 21, "2:27 rules" + "[0]" * 19 + ": is nested too deeply"),
        ('version: 1\nrules: []\nx: "\\ud800"', "3:4 x: holds half a character (a lone surrogate)"),
    ],
)
def test_yaml_beyond_plain_values_is_refused_at_its_place(text, expected):
    assert expected in problems(text)


def test_aliases_are_followed_where_they_stay_small():
    text = many_rules(
        "name: A, object: lead, field: a, backoff: &b {first: 1s}",
        "name: B, object: lead, field: b, backoff: *b",
    )
    assert {rule.backoff.first_seconds for rule in book(text).rules} == {1.0}


def test_aliases_that_multiply_are_cut_off():
    lines = ["version: 1", "rules: []", "a: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 15)]
    found = load("\n".join(lines)).problems
    assert any("values that are read; aliases count each time" in problem.message for problem in found)
    assert len(found) < 50


def test_a_byte_order_mark_is_ignored():
    assert book("\ufeffversion: 1\nrules: []").rules == ()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("mode: 5", "6:11 rules[0].mode: '5' is not one of fill, overwrite, preview"),
        ("mode: [fill]", "6:11 rules[0].mode: a list is not one of fill, overwrite, preview [fill]"),
        ("mode: {fill: 1}", "6:11 rules[0].mode: a mapping is not one of fill, overwrite, preview"),
        (
            "Mode: fill",
            (
                "6:5 rules[0].Mode: 'Mode' is not a key here; the keys are on, mode, settle, timeout, "
                "attempts, backoff, on_ambiguous, name, object, field, when, priority, after, sample, "
                "enabled, budget [mode]"
            ),
        ),
        ("priority: urgent", "6:15 rules[0].priority: 'urgent' is not one of high, normal, low"),
        ("on_ambiguous: held", "6:19 rules[0].on_ambiguous: 'held' is not one of retry, hold [hold]"),
        ("settle: 20", "6:13 rules[0].settle: '20' is not a duration like 250ms, 20s, 2m, 1h or 1d [20s]"),
        ("settle: 8d", "6:13 rules[0].settle: '8d' is not within 0 to 7d"),
        ("settle: [1s]", "6:13 rules[0].settle: a list is not a duration like 250ms, 20s, 2m, 1h or 1d"),
        ("timeout: 0", "6:14 rules[0].timeout: '0' is not within 1s to 15m"),
        ("timeout: 16m", "6:14 rules[0].timeout: '16m' is not within 1s to 15m"),
        ("attempts: 0", "6:15 rules[0].attempts: '0' is not within 1 to 100"),
        ("attempts: 101", "6:15 rules[0].attempts: '101' is not within 1 to 100"),
        ("attempts: true", "6:15 rules[0].attempts: 'true' is not a whole number"),
        ("attempts: 1.5", "6:15 rules[0].attempts: '1.5' is not a whole number"),
        ("attempts: !!int x", "6:15 rules[0].attempts: 'x' is not a whole number"),
        ("attempts: " + "9" * 5000, "6:15 rules[0].attempts: '" + "9" * 59 + "…' is not a whole number"),
        ("backoff: {first: 1ms}", "6:22 rules[0].backoff.first: '1ms' is not within 100ms to 1d"),
        ("backoff: {most: 1s}", "6:14 rules[0].backoff: the first pause, 2s, is longer than the longest, 1s"),
        ("sample: 10", "6:13 rules[0].sample: '10' is not within 0% to 100% [10%]"),
        ("sample: 110%", "6:13 rules[0].sample: '110%' is not within 0% to 100%"),
        ("sample: -0.1", "6:13 rules[0].sample: '-0.1' is not within 0% to 100%"),
        ("sample: .nan", "6:13 rules[0].sample: '.nan' is not within 0% to 100%"),
        ("sample: ten%", "6:13 rules[0].sample: 'ten%' is not a share like 10% or 0.1"),
        ("sample: true", "6:13 rules[0].sample: 'true' is not a share like 10% or 0.1"),
        ("enabled: maybe", "6:14 rules[0].enabled: 'maybe' is neither true nor false"),
        ("enabled: 'True'", "6:14 rules[0].enabled: 'True' is neither true nor false [true]"),
        ("enabled: !!bool x", "6:14 rules[0].enabled: 'x' is neither true nor false"),
        ("budget: {per_day: 1.5}", "6:23 rules[0].budget.per_day: '1.5' is not a whole number"),
        (
            "budget: {per_day: 5, burst: {most: 1, within: 1s}}",
            ("6:26 rules[0].budget.burst: belongs to the top-level budget: it guards all rules together"),
        ),
        (
            "budget: {per_dya: 5}",
            (
                "6:14 rules[0].budget.per_dya: 'per_dya' is not a key here; the keys are per_day, per_month, "
                "on_exhausted [per_day]"
            ),
        ),
        ("after: One", "6:12 rules[0].after: 'One' is not a list [[One]]"),
        ("after: {}", "6:12 rules[0].after: a mapping is not a list"),
        ("after: [1]", "6:13 rules[0].after[0]: '1' is not text; put it in quotes"),
        ("after: [[]]", "6:13 rules[0].after[0]: a list is not text"),
        ("after: [~]", "6:13 rules[0].after[0]: has no value; give it one or leave the key out"),
        ("on: []", "6:9 rules[0].on: names no event"),
        ("on: created", "6:9 rules[0].on: 'created' is not a list [[created]]"),
        (
            "on: [creatd]",
            "6:10 rules[0].on[0]: 'creatd' is not one of created, updated(<field>, ...) or merged [created]",
        ),
        ("on: [created(x)]", "6:10 rules[0].on[0]: created takes no fields [created]"),
        (
            "on: [created, updated]",
            "6:19 rules[0].on[1]: updated must name the fields whose change counts, as in updated(url)",
        ),
        (
            "on: [updated()]",
            "6:10 rules[0].on[0]: updated must name the fields whose change counts, as in updated(url)",
        ),
        (
            "on: [updated(url, )]",
            "6:10 rules[0].on[0]: updated must name the fields whose change counts, as in updated(url)",
        ),
        (
            "on: [updated(url, created]",
            "6:10 rules[0].on[0]: 'updated(url, created' has no closing parenthesis",
        ),
        (
            "on: [updated(url) now]",
            "6:10 rules[0].on[0]: 'updated(url) now' is not one of created, updated(<field>, ...) or merged",
        ),
        (
            "on: [updated(industry)]",
            "6:9 rules[0].on: runs when 'Industry' is updated, which it fills: it would trigger itself",
        ),
        ('when: ""', "6:11 rules[0].when: '' is empty"),
        ("when: true and false", "6:16 rules[0].when: the condition has 'and' where it is not expected [&&]"),
        ("when: 'lead.url = 1'", "6:21 rules[0].when: the condition has '=' where it is not expected [==]"),
        (
            'when: "lead.url = \\"\\""',
            "6:11 rules[0].when: the condition has '=' where it is not expected [==]",
        ),
        (
            "when: leed.url != ''",
            (
                "6:11 rules[0].when: the condition uses 'leed', which is not one of lead, event, "
                "organization [lead]"
            ),
        ),
    ],
)
def test_a_value_that_does_not_fit_is_told_at_its_place(line, expected):
    assert problems(one_rule(line)) == [expected]


@pytest.mark.parametrize(
    ("lines", "place"),
    [
        (["when: |", "  has(lead.url)", "  && leed.x == 1"], "8:10"),
        (["when: >", "  has(lead.url)", "  && leed.x == 1"], "6:11"),
        (["when: has(lead.url)", "  && leed.x == 1"], "6:11"),
    ],
)
def test_a_condition_over_several_lines_is_pointed_into_where_its_lines_are_its_own(lines, place):
    (found,) = problems(one_rule(*lines))
    assert found.startswith(f"{place} rules[0].when: the condition uses 'leed'")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rules: []", ["1:1 version: is missing"]),
        ("version: 1", ["1:1 rules: is missing"]),
        ("version: 1\nrules: x", ["2:8 rules: 'x' is not a list [[x]]"]),
        ("version: 1\nrules: {}", ["2:8 rules: a mapping is not a list"]),
        (
            "version: true\nrules: []",
            ["1:10 version: 'true' is not a version that can be read; the only one is 1 [1]"],
        ),
        ("version: 1\ndefaults: 1\nrules: []", ["2:11 defaults: is not a mapping of keys to values"]),
        (
            "version: 1\nbudget: {burst: {most: 1, then: hold}}\nrules: []",
            ["2:17 budget.burst.within: is missing"],
        ),
        (
            "version: 1\nbudget: {burst: {most: 1, within: 1s, then: drop}}\nrules: []",
            ["2:45 budget.burst.then: 'drop' is not one of hold"],
        ),
        (
            "version: 1\nbudget: {brust: {most: 1, within: 1s}}\nrules: []",
            [
                (
                    "2:10 budget.brust: 'brust' is not a key here; the keys are per_day, per_month, "
                    "on_exhausted, burst [burst]"
                )
            ],
        ),
        (many_rules("object: lead"), ["3:5 rules[0].name: is missing", "3:5 rules[0].field: is missing"]),
        (many_rules("name: A, field: a"), ["3:5 rules[0].object: is missing"]),
        (
            many_rules("name: A, field: a, object: deal"),
            ["3:33 rules[0].object: 'deal' is not one of lead, contact"],
        ),
        (
            many_rules(f"name: {'n' * 61}, object: lead, field: a"),
            ["3:12 rules[0].name: '" + "n" * 59 + "…' has 61 characters, but at most 60 fit"],
        ),
        (
            many_rules("name: A, object: lead, field: a", "name: ' a ', object: lead, field: b"),
            ["4:12 rules[1].name: ' a ' is the name of rules[0] already; case and spaces do not count"],
        ),
        (
            many_rules("name: A, object: lead, field: a, after: [A]"),
            ["3:47 rules[0].after[0]: 'A' is this rule itself; it cannot wait for itself"],
        ),
        (
            many_rules("name: Ab, object: lead, field: a", "name: B, object: lead, field: b, after: [ab]"),
            ["4:47 rules[1].after[0]: 'ab' is not a rule's name [Ab]"],
        ),
        (
            many_rules("name: A, object: lead, field: a", "name: B, object: contact, field: b, after: [A]"),
            ["4:50 rules[1].after[0]: 'A' is a rule for leads, and this is one for contacts"],
        ),
        (
            many_rules(
                "name: A, object: lead, field: a, after: [C]",
                "name: B, object: lead, field: b, after: [A]",
                "name: C, object: lead, field: c, after: [X, B]",
                "name: X, object: lead, field: x",
            ),
            ["3:47 rules[0].after[0]: these rules wait for each other: 'A' -> 'C' -> 'B' -> 'A'"],
        ),
        (
            many_rules(
                "name: A, object: lead, field: a, after: [B]",
                "name: B, object: lead, field: b, after: [A]",
                "name: C, object: lead, field: c, after: [D]",
                "name: D, object: lead, field: d, after: [C]",
            ),
            [
                "3:47 rules[0].after[0]: these rules wait for each other: 'A' -> 'B' -> 'A'",
                "5:47 rules[2].after[0]: these rules wait for each other: 'C' -> 'D' -> 'C'",
            ],
        ),
        (
            many_rules("name: A, object: contact, field: a, on: [merged]"),
            ["3:46 rules[0].on: merged happens to leads only, and this is a rule for contacts"],
        ),
        (
            "version: 1\ndefaults: {on: [merged]}\nrules:\n  - {name: A, object: contact, field: a}",
            ["4:5 rules[0].on: merged happens to leads only, and this is a rule for contacts"],
        ),
        (
            many_rules("name: A, object: deal, field: a", "name: B, object: lead, field: b, after: [A]"),
            ["3:23 rules[0].object: 'deal' is not one of lead, contact"],
        ),
    ],
)
def test_what_does_not_fit_together_is_told(text, expected):
    assert problems(text) == expected


def test_a_long_chain_of_rules_is_in_order():
    rules = [f"name: R{i}, object: lead, field: f{i}, after: [R{i - 1}]" for i in range(1, 900)]
    assert len(book(many_rules("name: R0, object: lead, field: f0", *rules)).rules) == 900


@pytest.mark.parametrize(
    ("written", "fields"),
    [
        ("[created, updated(title, url)]", ("title", "url")),
        ("[created, updated( title ,url )]", ("title", "url")),
        ("[created, 'updated(title, url)']", ("title", "url")),
        ('[created, updated("Job, title", Revenue (USD))]', ("Job, title", "Revenue (USD)")),
        ("[created, updated('Lead''s owner')]", ("Lead''s owner",)),
        ("\n      - created\n      - updated(title)", ("title",)),
    ],
)
def test_updated_keeps_its_fields_together(written, fields):
    (rule,) = book(one_rule(f"on: {written}")).rules
    assert rule.on == (*CREATED, Trigger(action=Action.UPDATED, fields=fields))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            many_rules(
                "name: A, object: lead, field: a, enabled: false",
                "name: B, object: lead, field: b, after: [A]",
            ),
            ["4:47 rules[1].after[0]: 'A' is disabled, so there is nothing to wait for"],
        ),
        (
            many_rules(
                "name: A, object: lead, field: a, enabled: false",
                "name: B, object: lead, field: b, after: [A], enabled: false",
            ),
            [],
        ),
        (
            many_rules("name: A, object: lead, field: Job title", "name: B, object: lead, field: job  Title"),
            [
                (
                    "4:5 rules[1]: never runs: 'A', rules[0], comes first for the same field and events, "
                    "for every record"
                )
            ],
        ),
        (many_rules("name: A, object: lead, field: a, sample: 10%", "name: B, object: lead, field: a"), []),
        (
            many_rules("name: A, object: lead, field: a", "name: B, object: lead, field: a, enabled: false"),
            [],
        ),
        (many_rules("name: A, object: lead, field: a", "name: B, object: contact, field: a"), []),
        (many_rules("name: A, object: lead, field: a", "name: B, object: lead, field: a, on: [merged]"), []),
        (
            one_rule("when: lead.nam != lead.url"),
            [
                (
                    "6:16 rules[0].when: the condition reads lead.nam, "
                    "which Close's events are not known to have [name]"
                )
            ],
        ),
        ("version: 1\nrules: []", ["2:8 rules: is empty: nothing will be enriched"]),
        (
            one_rule("sample: 0"),
            ["6:13 rules[0].sample: takes no record at all; to switch the rule off, say enabled: false"],
        ),
        (one_rule("sample: 0", "enabled: false"), []),
        (one_rule("on: [created, created]"), ["6:19 rules[0].on[1]: stands twice"]),
        (
            one_rule("budget: {on_exhausted: drop}"),
            ["6:13 rules[0].budget: sets no ceiling; give it per_day or per_month"],
        ),
        (one_rule("budget: {per_day: 0}"), ["6:23 rules[0].budget.per_day: '0' lets no call through"]),
        (
            one_rule("budget: {per_day: 5, per_month: 4}"),
            ["6:23 rules[0].budget.per_day: '5' is above per_month, 4, which ends first"],
        ),
        (
            "version: 1\nbudget: {burst: {most: 0, within: 1m}}\nrules: []",
            [
                "2:24 budget.burst.most: '0' holds everything, until a person releases it",
                "3:8 rules: is empty: nothing will be enriched",
            ],
        ),
        (
            many_rules("name: A, object: lead, field: a, budget: {per_day: 6}").replace(
                "rules:", "budget: {per_day: 5}\nrules:"
            ),
            [
                (
                    "4:57 rules[0].budget.per_day: '6' is above the top-level budget's per_day, 5, "
                    "which ends first"
                )
            ],
        ),
        (
            many_rules(
                "name: A, object: lead, field: a, on: [merged]",
                "name: B, object: lead, field: b, after: [A, A]",
            ),
            [
                "4:47 rules[1].after[0]: 'A' runs on other events (merged), so there is nothing to wait for",
                "4:50 rules[1].after[1]: 'A' stands twice",
            ],
        ),
    ],
)
def test_what_may_be_meant_but_looks_wrong_is_a_warning(text, expected):
    assert warnings(text) == expected


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        ("", "", ", for every record"),
        ("mode: preview", "mode: overwrite", ", for every record"),
        ("", "when: has(lead.url)", ", for every record"),
        ("on: [created, merged]", "on: [merged]", ", for every record"),
        ('on: ["updated(url, name)"]', "on: [updated(Name)]", ", for every record"),
        (
            "when: has(lead.url)",
            "when: has(lead.name)",
            ", and its condition is judged only after settle, when it has the field",
        ),
        (
            "settle: 0, when: lead.url=='x'",
            "settle: 0, when: lead.url == 'x'",
            " with the same condition",
        ),
        ("sample: 10%", "", None),
        ("enabled: false", "", None),
        ("", "enabled: false", None),
        ("on: [merged]", "", None),
        ("on: [updated(url)]", "on: [updated(name)]", None),
        ("settle: 0, when: has(lead.url)", "settle: 0, when: has(lead.name)", None),
        ("settle: 0, when: has(lead.url)", "when: has(lead.url)", None),
    ],
)
def test_a_rule_whose_field_an_earlier_one_always_takes_never_runs(first, second, why):
    rules = [f"name: A, object: lead, field: a, {first}", f"name: B, object: lead, field: A, {second}"]
    found = warnings(many_rules(*rules))
    told_why = f"4:5 rules[1]: never runs: 'A', rules[0], comes first for the same field and events{why}"
    assert found == ([] if why is None else [told_why])


def test_of_a_rule_that_does_not_fit_nobody_says_what_it_takes():
    rules = ["name: A, object: lead, field: a, when: lead.", "name: B, object: lead, field: a"]
    loaded = load(many_rules(*rules))
    assert ([told(one)[:10] for one in loaded.problems], loaded.warnings) == (["3:50 rules"], ())


def test_the_schema_for_editors_names_every_key_of_the_example():
    schema = RulesFile.model_json_schema()
    keys = {key for part in [schema, *schema["$defs"].values()] for key in part.get("properties", {})}

    def used(value):
        if isinstance(value, dict):
            return set(map(str, value)) | {key for inner in value.values() for key in used(inner)}
        return {key for inner in value for key in used(inner)} if isinstance(value, list) else set()

    assert used(yaml.load(EXAMPLE, Loader=yaml.BaseLoader)) <= keys  # noqa: S506 - it makes nothing but text
    assert schema["required"] == ["version", "rules"]


def check(loaded):
    assert (loaded.rulebook is None) == bool(loaded.problems)
    for problem in (*loaded.problems, *loaded.warnings):
        assert problem.render().encode()
        assert problem.line >= 1
        assert problem.column >= 1
    places = [(problem.line, problem.column) for problem in loaded.problems]
    assert places == sorted(places)


@settings(deadline=None)  # a whole file is read each time
@given(st.text())
def test_no_text_raises(text):
    check(load(text))


@settings(deadline=None)  # a whole file is read each time
@given(st.binary())
def test_no_bytes_raise(content):
    check(load(content))


PIECES = [
    "- ",
    ": ",
    "[",
    "]",
    "{",
    "}",
    "&a ",
    "*a",
    "!!int ",
    "!x ",
    '"',
    "'",
    "|\n",
    "\n",
    "\n  ",
    "~",
    "#",
    "\t",
    "%",
    "\x85",
    "\u2028",
    "\\",
    "rules",
    "on",
    "after",
    "updated(",
    ")",
    "1e999",
    "0x",
    "é",
    "\ud800",
    "<<: *a",
    "0o7",
    "1:2",
]


@settings(deadline=None)  # a whole file is read each time
@given(st.lists(st.sampled_from(PIECES), max_size=30))
def test_no_pile_of_yaml_pieces_raises(pieces):
    check(load("".join(pieces)))


@settings(deadline=None)  # a whole file is read each time
@given(st.data())
def test_no_damaged_file_raises(data):
    text = EXAMPLE
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = min(len(text), start + data.draw(st.integers(0, 12)))
        text = text[:start] + data.draw(st.sampled_from([*PIECES, ""]) | st.text(max_size=3)) + text[end:]
    check(load(text))


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 10**6)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(
        ["fill", "20s", "10%", "created", "updated(title", "url)", "lead", "A", "B", "has(lead.url)"]
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["first", "most", "within", "then", "burst", "per_day", "x"])
            | st.text(max_size=3),
            inner,
            max_size=3,
        )
    ),
    max_leaves=4,
)
KEYS = [
    "on",
    "mode",
    "settle",
    "timeout",
    "attempts",
    "backoff",
    "on_ambiguous",
    "name",
    "object",
    "field",
    "when",
    "priority",
    "after",
    "sample",
    "enabled",
    "budget",
]


@settings(deadline=None)  # a whole file is read each time
@given(
    rules=st.lists(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=8) | VALUES, max_size=4) | VALUES,
    defaults=st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=5) | VALUES,
    budget=VALUES,
    version=st.just(1) | VALUES,
)
def test_no_values_under_the_right_keys_raise(rules, defaults, budget, version):
    document = {"version": version, "defaults": defaults, "budget": budget, "rules": rules}
    check(load(yaml.safe_dump(document)))
