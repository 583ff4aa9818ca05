"""Rules as values: what needs nothing but a rule."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.rules import ObjectType, Rule, RuleBook, in_sample


def rule(name, *, enabled=True):
    return Rule(name=name, object_type=ObjectType.LEAD, field="Industry", enabled=enabled)


def test_a_disabled_rule_stays_in_the_book_but_is_not_enabled():
    book = RuleBook(rules=(rule("A"), rule("B", enabled=False)))
    assert [one.name for one in book.enabled] == ["A"]
    assert book.named("B") == rule("B", enabled=False)


def test_a_name_that_no_rule_has_is_not_found():
    assert RuleBook(rules=(rule("A"),)).named("a") is None


@given(st.text(), st.text())
def test_a_share_of_nothing_takes_no_record_and_a_share_of_one_takes_all(name, object_id):
    assert not in_sample(rule_name=name, object_id=object_id, share=0.0)
    assert in_sample(rule_name=name, object_id=object_id, share=1.0)


@given(st.text(), st.text(), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_share_keeps_the_records_of_a_smaller_one(name, object_id, one, other):
    smaller, larger = sorted([one, other])
    if in_sample(rule_name=name, object_id=object_id, share=smaller):
        assert in_sample(rule_name=name, object_id=object_id, share=larger)


@pytest.mark.parametrize("share", [0.05, 0.1, 0.5, 0.9])
def test_the_share_of_many_records_is_about_what_was_asked_for(share):
    taken = sum(in_sample(rule_name="Pitch", object_id=f"lead_{i}", share=share) for i in range(4000))
    assert taken / 4000 == pytest.approx(share, abs=0.03)


def test_two_rules_with_the_same_share_take_different_records():
    ids = [f"lead_{i}" for i in range(200)]
    first, second = (
        [one for one in ids if in_sample(rule_name=name, object_id=one, share=0.5)] for name in ("A", "B")
    )
    assert first != second
