"""The JSON Schema for editors: it is fresh, valid, accepts what is accepted and refuses what is broken."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import test_rules_file
from broken_rules import CASES, case_name, problems_of
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from service.rules_file import load_rules
from service.rules_schema import rules_schema, rules_schema_text
from service.yaml_tree import read_tree

DEPLOY = Path(__file__).parent.parent / "deploy"
EXAMPLES = (
    DEPLOY / "rules.example.yaml",
    DEPLOY.parent / "service" / "sandbox" / "demo_rules.yaml",
)
SCHEMA = Draft202012Validator(rules_schema())

ONLY_RULES_CHECK_SEES = {
    "a-key-that-is-a-list", "a-key-twice", "a-key-without-a-value", "a-rule-that-triggers-itself",
    "after-a-rule-of-another-object", "after-an-unknown-rule", "after-itself",
    "backoff-shorter-than-inherited", "backoff-the-wrong-way-round", "merged-for-contacts",
    "merged-for-contacts-by-default", "settle-too-long", "timeout-too-long", "timeout-too-short",
    "two-rings-of-waiting", "two-rules-of-one-name", "two-that-wait-for-each-other",
    "updated-left-open",
}  # fmt: skip
"""What takes YAML's own reader, more than one key, or arithmetic; conditions, too, are text to a schema."""


def fits(text):
    """Whether the schema accepts what the file says; what is no value at all is not asked about."""
    return SCHEMA.is_valid(read_tree(text, source="rules.yaml").data)


def test_the_schema_is_one_and_the_file_beside_the_example_is_fresh():
    Draft202012Validator.check_schema(rules_schema())
    assert (DEPLOY / "rules.schema.json").read_text(encoding="utf-8") == rules_schema_text()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_the_shipped_rules_fit_it(path):
    assert (
        list(SCHEMA.iter_errors(read_tree(path.read_text(encoding="utf-8"), source="rules.yaml").data)) == []
    )


def test_editors_find_the_schema_from_the_first_line_of_the_example():
    first = (DEPLOY / "rules.example.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert first == "# yaml-language-server: $schema=rules.schema.json"


def test_every_key_is_described_and_no_other_is_allowed():
    schema = rules_schema()
    for part in [schema, *(one for one in schema["$defs"].values() if "properties" in one)]:
        assert part["additionalProperties"] is False
        assert [name for name, key in part["properties"].items() if not key.get("description")] == []


def test_every_example_in_it_fits_its_key():
    schema = rules_schema()
    checked = 0
    for part in [schema, *(one for one in schema["$defs"].values() if "properties" in one)]:
        for key in part["properties"].values():
            validator = Draft202012Validator({**key, "$defs": schema["$defs"]})
            assert [one for one in key.get("examples", []) if not validator.is_valid(one)] == []
            checked += len(key.get("examples", []))
    assert checked > 25


@pytest.mark.parametrize("case", [one for one in CASES if one.parent.name == "file"], ids=case_name)
def test_what_is_broken_in_structure_is_refused_and_what_takes_knowledge_is_not(case):
    in_conditions = all(problem.message.startswith("the condition ") for problem in problems_of(case))
    assert fits(case.read_bytes()) is (in_conditions or case.stem in ONLY_RULES_CHECK_SEES)


@pytest.mark.parametrize("case", [one for one in CASES if one.parent.name == "doubtful"], ids=case_name)
def test_what_is_only_doubtful_fits(case):
    assert fits(case.read_bytes())


def table_texts():
    """Every text in the tables of the rules file's own tests."""
    found = []
    for function in vars(test_rules_file).values():
        for mark in getattr(function, "pytestmark", []):
            if mark.name == "parametrize":
                values = itertools.chain.from_iterable(
                    one if isinstance(one, tuple) else (one,) for one in mark.args[1]
                )
                found += [value for value in values if isinstance(value, (str, bytes))]
    return found


def test_whatever_the_tables_have_accepted_fits():
    candidates = [
        *table_texts(),
        *(test_rules_file.one_rule(one) for one in table_texts() if isinstance(one, str)),
    ]
    accepted = [text for text in candidates if load_rules(text, source="rules.yaml").rulebook is not None]
    assert len(accepted) > 30
    assert [text for text in accepted if not fits(text)] == []


VALUES = st.one_of(
    st.integers(-2, 120),
    st.floats(0, 2, allow_nan=False).map(lambda number: round(number, 3)),
    st.booleans().map(lambda flag: str(flag).lower()),
    st.sampled_from(
        ["0", "20s", "1.5h", "250ms", "10%", "100.0%", "0.5%", "fill", "preview", "hold", "high", "drop",
         '"x y"', "[created]", "[merged]", "[updated(title, url)]", "[ created , 'updated(a, b)']", "[]",
         "['updated(a']", "[A]", "{per_day: 5}", "{first: 1s}", "{most: 1h, first: 0}", "2020-01-01",
         '" created"', "yes"]
    ),
)  # fmt: skip
KEYS = ("on", "mode", "settle", "timeout", "attempts", "backoff", "on_ambiguous", "priority", "after",
        "sample", "enabled", "budget", "name", "field")  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=2))
def test_whatever_is_accepted_fits(keys):
    rule = {"name": "One", "object": "lead", "field": "Industry", **keys}
    text = "version: 1\nrules:\n  - " + "\n    ".join(f"{key}: {value}" for key, value in rule.items())
    if load_rules(text, source="rules.yaml").rulebook is not None:
        assert fits(text), text
