"""Durations as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.durations import format_duration, nearest_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("250ms", 0.25),
        ("20s", 20.0),
        ("1.5s", 1.5),
        ("2m", 120.0),
        ("10m", 600.0),
        ("1h", 3600.0),
        ("1d", 86400.0),
    ],
)
def test_a_number_with_a_unit_is_a_duration(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "20", "s", "-1s", "20 s", "20S", "1h30m", "1e3s", "٢s", "1w", "0.0", "1" * 10 + "s"]
)
def test_anything_else_is_not_a_duration(text):
    assert parse_duration(text) is None


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("20", "20s"),
        ("20 sec", "20s"),
        ("5 Minutes", "5m"),
        ("100 millis", "100ms"),
        ("3hours", "3h"),
        ("2w", None),
        ("soon", None),
        ("-1s", None),
    ],
)
def test_the_nearest_duration_is_what_was_probably_meant(text, meant):
    assert nearest_duration(text) == meant


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0"), (0.25, "250ms"), (90, "90s"), (120, "2m"), (7200, "2h"), (172800, "2d"), (1.5, "1500ms")],
)
def test_seconds_are_written_with_the_largest_unit_that_fits(seconds, text):
    assert format_duration(seconds) == text


@given(st.integers(0, 10**10))
def test_a_written_duration_reads_as_the_same_seconds(milliseconds):
    if milliseconds < 10**9:
        assert parse_duration(format_duration(milliseconds / 1000)) == pytest.approx(milliseconds / 1000)


@given(st.text())
def test_any_text_is_read_without_an_exception(text):
    assert parse_duration(text) is None or parse_duration(text) >= 0
    meant = nearest_duration(text)
    assert meant is None or parse_duration(meant) is not None
