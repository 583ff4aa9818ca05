"""Every broken rules file is told in exactly the words beside it, all problems at once."""

from __future__ import annotations

import json

import pytest
from broken_rules import CASES, case_name, problems_of, words_for

from service.problem import Level
from service.rules_file import load_rules
from service.rules_report import counted, described, rendered

IDS = [case_name(case) for case in CASES]


def test_there_are_enough_of_them():
    assert len([case for case in CASES if case.parent.name != "doubtful"]) >= 60


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_a_broken_file_is_told_in_exactly_these_words(case):
    assert words_for(case) == case.with_suffix(".txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_what_is_wrong_by_itself_keeps_a_file_from_being_used_and_what_is_doubtful_does_not(case):
    loaded = load_rules(case.read_bytes(), source="rules.yaml")
    if case.parent.name == "file":
        assert loaded.rulebook is None
    elif case.parent.name == "doubtful":
        assert loaded.rulebook is not None
    else:
        assert problems_of(case)


def test_no_words_are_left_of_a_file_that_is_gone():
    texts = {path.with_suffix(".yaml") for case in CASES for path in case.parent.glob("*.txt")}
    assert texts == set(CASES)


def test_nothing_wrong_needs_no_words():
    assert rendered((), source="rules.yaml") == ""
    assert counted(()) == ""


def test_a_problem_as_data_says_where_and_how_bad():
    (case,) = [case for case in CASES if case_name(case) == "close/a-choice-that-is-none"]
    (problem,) = problems_of(case)
    assert problem.level is Level.WARNING
    assert json.loads(json.dumps(described(problem))) == {
        "path": "rules.yaml",
        "line": 6,
        "column": 49,
        "where": "rules[0].when",
        "message": ("the condition looks for 'Mid market', which is not one of the choices of 'Segment'"),
        "suggestion": "Mid-market",
        "severity": "warning",
    }
