"""Every family of metrics is described once, and its labels cannot grow without bound."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.enrichment import FINAL_STATES
from service.metrics_catalogue import (
    ACCEPT_SECONDS,
    COUNTED,
    DONE,
    EVENTS,
    FAMILIES,
    LEAD_TO_FILLED_SECONDS,
    OTHER,
    PAID,
    RULE,
    SUM,
    WAITS,
    Kind,
    Series,
    charted_series,
    decode_series,
    encode_series,
)
from service.transitions import Cause


def test_no_name_is_used_twice():
    names = [name for family in FAMILIES for name in family.samples]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_names_follow_prometheus_customs(family):
    assert re.fullmatch(r"close_enrich_[a-z_]+", family.name)
    assert family.name.endswith("_total") == (family.kind is Kind.COUNTER)
    assert bool(family.buckets) == (family.kind is Kind.HISTOGRAM)
    assert family.help.endswith(".")
    assert list(family.buckets) == sorted(set(family.buckets))


@pytest.mark.parametrize("family", COUNTED, ids=lambda family: family.name)
def test_what_is_counted_has_only_bounded_labels(family):
    unbounded = [label for label in family.labels if label.words is None]
    assert unbounded in ([], [RULE])
    assert set(family.charted or ()) <= {label.name for label in family.labels} - {"rule"}


def test_every_final_state_and_every_cause_is_told_apart():
    for state in FINAL_STATES:
        assert DONE.words({"rule": "Industry", "outcome": state}) == ("Industry", state)
    for cause in Cause:
        assert WAITS.words({"cause": cause}) == (cause,)


def test_a_family_knows_which_of_its_labels_names_a_rule():
    assert [DONE.rule_at, PAID.rule_at, EVENTS.rule_at] == [0, 0, None]


def test_a_word_nobody_expected_is_counted_as_other():
    assert EVENTS.words({"result": "exploded"}) == (OTHER,)


def test_a_missing_label_is_a_mistake():
    with pytest.raises(KeyError):
        EVENTS.words({})


@pytest.mark.parametrize(
    ("seconds", "bucket"), [(0.0, "0"), (0.001, "0"), (0.0011, "1"), (2.5, "10"), (9.0, "11")]
)
def test_an_observation_falls_into_the_first_bucket_that_holds_it(seconds, bucket):
    assert ACCEPT_SECONDS.bucket(seconds) == bucket


@given(st.sampled_from(COUNTED), st.data())
def test_a_series_keeps_its_name(family, data):
    words = tuple(data.draw(st.text()) for _ in family.labels)
    part = data.draw(st.sampled_from(["0", SUM])) if family.kind is Kind.HISTOGRAM else ""
    series = Series(family.name, words, part)
    assert decode_series(encode_series(series).encode()) == series


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff",
        b"[" * 5000,
        b"{}",
        b'["close_enrich_gone_total",[],""]',
        b'["close_enrich_workers",[],""]',
        b'["close_enrich_events_total",[],""]',
        b'["close_enrich_events_total",["accepted","more"],""]',
        b'["close_enrich_events_total",["accepted"],"sum"]',
        b'["close_enrich_accept_seconds",[],""]',
        b'["close_enrich_accept_seconds",[],"12"]',
        b'["close_enrich_accept_seconds",[],"-1"]',
    ],
)
def test_what_another_version_may_have_written_is_left_out(raw):
    assert decode_series(raw) is None


@given(st.binary())
def test_any_bytes_can_be_looked_at(raw):
    assert decode_series(raw) is None or decode_series(raw, charted=True) is not None


def test_a_minute_keeps_only_what_charts_show():
    filled = charted_series(LEAD_TO_FILLED_SECONDS, ("Industry", "live"), "3")
    assert filled == Series(LEAD_TO_FILLED_SECONDS.name, ("live",), "3")
    assert decode_series(encode_series(filled).encode(), charted=True) == filled
    assert decode_series(encode_series(filled).encode()) is None
    assert charted_series(PAID, ("Industry",), "") == Series(PAID.name)
    assert charted_series(ACCEPT_SECONDS, (), "0") is None
    assert decode_series(encode_series(Series(ACCEPT_SECONDS.name, (), "0")).encode(), charted=True) is None
