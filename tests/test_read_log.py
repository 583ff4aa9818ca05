"""Close's event log after an unclear call: whether one of its events is our own write to the field."""

from __future__ import annotations

from email.utils import formatdate

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.outcome import Halt, HaltKind, RateLimited, Rejected, Retry
from workers.read_log import CLOCK_SKEW_SECONDS, LogUnreadable, log_since, wrote_field
from workers.reply import Failure, FailureKind, Reply

CALLED_MS = 1_791_970_212_345
OURS = "api_ours"
JSON = {"content-type": "application/json"}


def event(**changes):
    written = {
        "action": "updated",
        "api_key_id": OURS,
        "changed_fields": ["custom.cf_1", "date_updated"],
        "date_updated": log_since(CALLED_MS + 5_000),
    }
    return written | changes


def reply(body, *, status=200, headers=JSON):
    return Reply(
        status=status, headers=headers, body=body if isinstance(body, bytes) else msgspec.json.encode(body)
    )


def wrote(result, *, now_ms=CALLED_MS + 30_000):
    return wrote_field(result, field_id="cf_1", api_key_id=OURS, since_ms=CALLED_MS, now_ms=now_ms)


def test_the_log_is_asked_from_a_little_before_the_call_in_close_s_own_form():
    assert log_since(CALLED_MS) == "2026-10-14T09:29:12.345000"
    assert log_since(0) == "1969-12-31T23:59:00.000000"


@pytest.mark.parametrize(
    ("events", "ours"),
    [
        pytest.param([], False, id="nothing happened"),
        pytest.param([event()], True, id="our write"),
        pytest.param([event(api_key_id=None), event(), event(api_key_id=None)], True, id="among others"),
        pytest.param([event(api_key_id=None)], False, id="a person's"),
        pytest.param([event(api_key_id="api_other")], False, id="another key's"),
        pytest.param([event(changed_fields=["custom.cf_2"])], False, id="another field"),
        pytest.param([event(changed_fields=["custom.cf_10"])], False, id="a field with a longer id"),
        pytest.param([event(changed_fields=None)], False, id="no changed fields"),
        pytest.param([event(changed_fields=7)], False, id="changed fields of another kind"),
        pytest.param([event(date_updated=log_since(CALLED_MS))], True, id="within the clocks' difference"),
        pytest.param([event(date_updated=log_since(CALLED_MS - 1))], False, id="before the call"),
        pytest.param([event(date_updated=None)], False, id="without a time"),
        pytest.param(["what is this", None, 3], False, id="no events at all"),
    ],
)
def test_only_a_write_of_our_key_to_the_field_since_the_call_counts(events, ours):
    assert wrote(reply({"data": events})) is ours


@pytest.mark.parametrize("ahead_seconds", [-3600, -30, 0, 30, 3600])
@pytest.mark.parametrize(
    ("after_seconds", "ours"), [(-30.0, False), (-3.5, False), (0.0, True), (0.001, True), (29.0, True)]
)
def test_with_close_s_own_time_a_write_shortly_before_the_call_is_told_from_the_call_s(
    ahead_seconds, after_seconds, ours
):
    """However far Close's clock is ahead of ours."""
    now = (CALLED_MS + 30_000) / 1000
    headers = {**JSON, "date": formatdate(int(now + ahead_seconds), usegmt=True)}
    at_ms = CALLED_MS + round(1000 * (ahead_seconds + after_seconds + CLOCK_SKEW_SECONDS))
    written = event(date_updated=log_since(at_ms))
    assert wrote(reply({"data": [written]}, headers=headers)) is ours


@pytest.mark.parametrize(
    ("result", "outcome"),
    [
        pytest.param(
            Failure(kind=FailureKind.READ_TIMEOUT, elapsed_seconds=30.0),
            Retry(reason="Close took the request but did not answer in time"),
            id="no answer",
        ),
        pytest.param(
            Failure(kind=FailureKind.CONNECT, elapsed_seconds=0.0),
            Retry(reason="Close could not be reached", unreachable=True),
            id="not reached",
        ),
        pytest.param(
            reply(b"", status=502), Retry(reason="Close failed while it was answering (502)"), id="502"
        ),
        pytest.param(
            reply(b"", status=503), Retry(reason="Close is unavailable at the moment (503)"), id="503"
        ),
        pytest.param(
            reply(b"", status=404),
            Retry(reason="Close does not know this record or field (404)"),
            id="404: the log of a record that is gone",
        ),
        pytest.param(reply(b"", status=400), Rejected(reason="Close rejected the request (400)"), id="400"),
        pytest.param(
            reply(b"", status=401),
            Halt(reason="Close refused the API key (401)", kind=HaltKind.KEY_REFUSED),
            id="401",
        ),
        pytest.param(
            reply(b"", status=429, headers={"retry-after": "7"}),
            RateLimited(wait_seconds=7.0, limit=None),
            id="429",
        ),
        pytest.param(reply([1]), Retry(reason="Close's event log was not understood"), id="a list"),
        pytest.param(reply({}), Retry(reason="Close's event log was not understood"), id="no data"),
        pytest.param(reply(b"{"), Retry(reason="Close's event log was not understood"), id="cut off"),
        pytest.param(
            reply({"data": {}}),
            Retry(reason="Close's event log was not understood"),
            id="data of another kind",
        ),
    ],
)
def test_a_log_that_cannot_be_read_says_what_to_do_and_never_that_nothing_was_written(result, outcome):
    assert wrote(result) == LogUnreadable(outcome=outcome)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
odd_events = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("api_key_id", "changed_fields", "date_updated"), json_values)
)


@given(st.lists(odd_events | json_values, max_size=4))
def test_whatever_the_events_hold_is_no_write_of_ours_and_no_error(events):
    assert wrote(reply({"data": events})) is False


@given(seconds_late=st.floats(-2 * CLOCK_SKEW_SECONDS, 2 * CLOCK_SKEW_SECONDS))
def test_times_compare_as_text(seconds_late):
    moment_ms = CALLED_MS + round(seconds_late * 1000)
    at = log_since(moment_ms + CLOCK_SKEW_SECONDS * 1000)
    assert wrote(reply({"data": [event(date_updated=at)]})) is (
        moment_ms >= CALLED_MS - CLOCK_SKEW_SECONDS * 1000
    )
