"""Rate limit headers: read where readable, ignored where not, never an exception."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.ratelimit_header import RateLimit, http_date, parse_rate_limit, retry_after_seconds

NOW = datetime(2026, 7, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "limit", "remaining", "reset_seconds"),
    [
        ("limit=100, remaining=50, reset=5", 100, 50, 5.0),
        ("limit=100, remaining=0, reset=0.25", 100, 0, 0.25),
        ("reset=.5", None, None, 0.5),
        ("reset=5.", None, None, 5.0),
        ("reset=1, remaining=2, limit=3", 3, 2, 1.0),
        ("limit=100;remaining=50;reset=5", 100, 50, 5.0),
        ("  LIMIT = 100 ,Remaining= 50,  reset =5 ", 100, 50, 5.0),
        ('limit="100", remaining="50", reset="5"', 100, 50, 5.0),
        ("limit=100, limit=7", 100, None, None),
        ("limit=100.0, remaining=1.5, reset=2", 100, None, 2.0),
        ("limit=100, window=60, reset=2", 100, None, 2.0),
        ("limit=-1, remaining=nan, reset=3", None, None, 3.0),
        ("limit=1, remaining=, reset=inf", 1, None, None),
        ("limit=1, reset=1e3", 1, None, None),
        ("limit=1, reset=86400", 1, None, 86_400.0),
        ("limit=1, reset=86401", 1, None, None),
        ("limit=1, reset=1751371200", 1, None, None),
        ("limit=2000000000, remaining=1", None, 1, None),
        ("limit=1, reset=" + "9" * 5000, 1, None, None),
        ("limit=1, reset=٣", 1, None, None),
    ],
)
def test_the_header_is_read_part_by_part(header, limit, remaining, reset_seconds):
    parsed = parse_rate_limit({"ratelimit": header})
    assert parsed == RateLimit(limit=limit, remaining=remaining, reset_seconds=reset_seconds)


@pytest.mark.parametrize(
    "header", ["", "garbage", "limit", "=,=;=", "limit=x", "reset=-1", '"default";r=50;t=30']
)
def test_a_header_without_a_readable_part_is_no_limit(header):
    assert parse_rate_limit({"ratelimit": header}) is None


def test_no_header_is_no_limit():
    assert parse_rate_limit({"content-type": "application/json"}) is None


def test_the_old_headers_are_read_where_the_new_one_says_nothing():
    old = {"x-rate-limit-limit": "60", "x-rate-limit-remaining": "0", "x-rate-limit-reset": "1.5"}
    expected = RateLimit(limit=60, remaining=0, reset_seconds=1.5)
    assert parse_rate_limit(old) == expected
    assert parse_rate_limit({"ratelimit": "?", **old}) == expected


def test_the_new_header_wins_over_the_old_ones():
    headers = {"ratelimit": "reset=2", "x-rate-limit-reset": "9"}
    assert parse_rate_limit(headers) == RateLimit(reset_seconds=2.0)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5", 5.0),
        (" 5 ", 5.0),
        ("0", 0.0),
        ("86400", 86_400.0),
        ("86401", None),
        ("-5", None),
        ("nan", None),
        ("soon", None),
        ("", None),
        ("Wed, 01 Jul 2026 12:00:30 GMT", 30.0),
        ("Wednesday, 01-Jul-26 12:00:30 GMT", 30.0),
        ("Wed Jul  1 12:00:30 2026", 30.0),
        ("Wed, 01 Jul 2026 11:00:00 GMT", 0.0),
        ("Thu, 01 Jul 2027 12:00:00 GMT", None),
        ("Wed, 01 Jul 99999 12:00:00 GMT", None),
        ("Wed, 01 Jul 2026 12:00:00 +9999999999999", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(text, seconds):
    assert retry_after_seconds({"retry-after": text}, now=NOW) == seconds


def test_without_a_clock_a_date_is_ignored_and_seconds_are_not():
    assert retry_after_seconds({"retry-after": "Wed, 01 Jul 2026 12:00:30 GMT"}, now=None) is None
    assert retry_after_seconds({"retry-after": "7"}, now=None) == 7.0


def test_no_retry_after_is_no_delay():
    assert retry_after_seconds({}, now=NOW) is None


@given(st.text(), st.text(), st.sampled_from(["limit", "remaining", "reset"]))
def test_no_text_makes_the_parsers_raise_or_leave_their_bounds(text, other, part):
    headers = {"ratelimit": f"{text},{part}={other}", f"x-rate-limit-{part}": text, "retry-after": text}
    parsed = parse_rate_limit(headers)
    assert parsed is None or parsed != RateLimit()
    assert 0 <= (retry_after_seconds(headers, now=NOW) or 0) <= 86_400


@given(
    st.from_regex(
        r"[A-Za-z]{0,4},? ?[0-9]{0,6}[ -][A-Za-z]{0,4}[ -][0-9]{0,6} [0-9:.]{0,9} ?[+-]?[0-9A-Z]{0,14}"
    )
)
def test_no_text_like_a_date_makes_the_parser_raise(text):
    date = http_date(text)
    assert date is None or date.tzinfo is not None


@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2999, 1, 1)))  # noqa: DTZ001 - hypothesis asks for it
def test_every_http_date_is_read_back_exactly(moment):
    moment = moment.replace(microsecond=0, tzinfo=UTC)
    text = moment.strftime("%a, %d %b %Y %H:%M:%S GMT")
    assert http_date(text) == moment
    expected = 30.0
    assert retry_after_seconds({"retry-after": text}, now=moment - timedelta(seconds=30)) == expected
