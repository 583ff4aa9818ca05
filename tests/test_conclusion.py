"""After a call: how each outcome ends an enrichment or puts it back, and what all workers learn from it."""

import pytest
from entries import NOW_MS, make_entry
from hypothesis import given
from hypothesis import strategies as st

from service.enrichment import State
from service.rules import Backoff, ObjectType, Rule
from service.transitions import Postponement, Settlement
from workers.conclusion import Conclusion, conclude
from workers.outcome import Ambiguous, Found, Gone, Halt, HaltKind, Nothing, RateLimited, Rejected, Retry

RULE = Rule(
    name="Industry",
    object_type=ObjectType.LEAD,
    field="Industry",
    attempts=5,
    backoff=Backoff(first_seconds=8.0, most_seconds=600.0),
)
DOUBT = Ambiguous(reason="Close took the request but did not answer in time")
BUSY = Retry(reason="Close is unavailable at the moment (503)")
NO_ROUTE = Retry(reason="Close could not be reached", unreachable=True)
DAYS_3_MS = 72 * 3600 * 1000


def follow(outcome, *, called=True, attempt=1, draw=0.5, now_ms=NOW_MS, **entry) -> Conclusion:
    return conclude(
        outcome,
        entry=make_entry(**entry),
        rule=RULE,
        attempt=attempt,
        called=called,
        draw=draw,
        now_ms=now_ms,
    )


@pytest.mark.parametrize(
    ("mode", "state"),
    [("fill", State.FILLED), ("overwrite", State.FILLED), ("preview", State.PREVIEWED)],
)
def test_a_value_is_filled_or_previewed_with_all_that_close_said(mode, state):
    outcome = Found(value=["a", 1], confidence="high", reasoning="it says so")
    end = Settlement(state=state, value=["a", 1], confidence="high", reasoning="it says so", answered=True)
    assert follow(outcome, mode=mode) == Conclusion(then=end)


@pytest.mark.parametrize("note", ["", "the answer has no value; its keys: none"])
@pytest.mark.parametrize("mode", ["fill", "overwrite", "preview"])
def test_nothing_found_is_an_end_too(note, mode):
    outcome = Nothing(confidence="low", reasoning="nothing on the site", note=note)
    end = Settlement(
        state=State.EMPTY, reason=note, confidence="low", reasoning="nothing on the site", answered=True
    )
    assert follow(outcome, mode=mode) == Conclusion(then=end)


@pytest.mark.parametrize("called", [True, False])
@pytest.mark.parametrize(
    ("outcome", "state"), [(Gone("no such lead"), State.GONE), (Rejected("not allowed"), State.REJECTED)]
)
def test_a_refused_call_ends_it_and_counts_as_no_call(outcome, state, called):
    end = Settlement(state=state, reason=outcome.reason, uncalled=called, answered=called)
    assert follow(outcome, called=called) == Conclusion(then=end)


@pytest.mark.parametrize("called", [True, False])
@pytest.mark.parametrize(
    ("reset_seconds", "park_seconds", "delay_seconds"),
    [(0.0, 0.0, 0.145), (2.5, 2.5, 2.645), (60.0, 60.0, 63.02), (86_400.0, 3600.0, 3780.02)],
)
def test_a_rate_limit_parks_all_workers_for_up_to_an_hour_and_costs_no_attempt(
    called, reset_seconds, park_seconds, delay_seconds
):
    conclusion = follow(RateLimited(wait_seconds=reset_seconds), called=called, attempt=99)
    assert conclusion == Conclusion(
        then=Postponement(
            reason="waits for Close's rate limit",
            delay_seconds=pytest.approx(delay_seconds),
            uncalled=called,
            unattempted=called,
        ),
        park_seconds=park_seconds,
    )


@pytest.mark.parametrize("called", [True, False])
@pytest.mark.parametrize("kind", HaltKind)
def test_a_refused_key_or_a_used_up_plan_halts_all_calls_and_costs_no_attempt(called, kind):
    conclusion = follow(Halt(reason="Close refused the API key (401)", kind=kind), called=called, attempt=99)
    then = Postponement(
        reason="halted: Close refused the API key (401)",
        delay_seconds=5.0,
        uncalled=called,
        unattempted=called,
    )
    assert conclusion == Conclusion(then=then, halt=("Close refused the API key (401)", kind))


@pytest.mark.parametrize("attempt", [1, 5, 6])
@pytest.mark.parametrize(
    ("draw", "failures", "hint_seconds", "delay_seconds"),
    [
        (0.0, 0, None, 5.0),
        (0.5, 0, None, 5.0),
        (0.5, 1, None, 8.0),
        (0.5, 20, None, 300.0),
        (0.0, 0, 30.0, 30.0),
    ],
)
def test_an_unclear_call_is_read_back_after_a_while_even_after_the_last_attempt(
    attempt, draw, failures, hint_seconds, delay_seconds
):
    outcome = Ambiguous(reason=DOUBT.reason, hint_seconds=hint_seconds)
    then = Postponement(reason=DOUBT.reason, delay_seconds=delay_seconds, ambiguous=True, failed=True)
    assert follow(outcome, attempt=attempt, draw=draw, failures=failures) == Conclusion(then=then)


@pytest.mark.parametrize(
    ("failures", "hint_seconds", "delay_seconds"),
    [(0, None, 4.0), (1, None, 8.0), (20, None, 300.0), (0, 30.0, 31.5)],
)
def test_a_call_that_did_not_run_is_made_again_with_backoff(failures, hint_seconds, delay_seconds):
    outcome = Retry(reason=BUSY.reason, hint_seconds=hint_seconds)
    then = Postponement(reason=BUSY.reason, delay_seconds=delay_seconds, uncalled=True, failed=True)
    assert follow(outcome, attempt=4, failures=failures) == Conclusion(then=then)


@pytest.mark.parametrize("attempt", [5, 6])
def test_the_last_attempt_to_fail_is_the_end(attempt):
    end = Settlement(state=State.DEAD, reason=BUSY.reason, uncalled=True)
    assert follow(BUSY, attempt=attempt) == Conclusion(then=end)


@pytest.mark.parametrize("since_ms", [None, NOW_MS, NOW_MS - DAYS_3_MS])
@pytest.mark.parametrize(
    ("outcome", "called"), [(NO_ROUTE, True), (NO_ROUTE, False), (BUSY, False), (DOUBT, False)]
)
def test_an_outage_or_a_failed_reading_uses_up_no_attempt(outcome, called, since_ms):
    then = Postponement(
        reason=outcome.reason,
        delay_seconds=4.0,
        uncalled=called,
        unattempted=called,
        failed=True,
        unreachable=True,
    )
    assert follow(outcome, called=called, attempt=99, unreachable_ms=since_ms) == Conclusion(then=then)


@pytest.mark.parametrize(
    ("outcome", "called"), [(NO_ROUTE, True), (NO_ROUTE, False), (BUSY, False), (DOUBT, False)]
)
def test_an_outage_of_more_than_three_days_is_given_up(outcome, called):
    end = Settlement(state=State.DEAD, reason=outcome.reason, uncalled=called)
    conclusion = follow(outcome, called=called, unreachable_ms=NOW_MS - DAYS_3_MS - 1)
    assert conclusion == Conclusion(then=end)


OUTCOMES = st.one_of(
    st.builds(Found, value=st.text(), confidence=st.none() | st.text()),
    st.builds(Nothing),
    st.builds(RateLimited, wait_seconds=st.floats(0, 86_400)),
    st.builds(
        Retry, reason=st.text(), hint_seconds=st.none() | st.floats(0, 86_400), unreachable=st.booleans()
    ),
    st.builds(Ambiguous, reason=st.text(), hint_seconds=st.none() | st.floats(0, 86_400)),
    st.builds(Gone, reason=st.text()),
    st.builds(Rejected, reason=st.text()),
    st.builds(Halt, reason=st.text(), kind=st.sampled_from(HaltKind)),
)


@given(
    outcome=OUTCOMES,
    called=st.booleans(),
    attempt=st.integers(1, 100),
    draw=st.floats(0, 1, exclude_max=True),
    mode=st.sampled_from(["fill", "overwrite", "preview"]),
    failures=st.integers(0, 5000),
)
def test_every_try_ends_it_or_puts_it_back_for_a_bounded_time(
    *, outcome, called, attempt, draw, mode, failures
):
    then = follow(outcome, called=called, attempt=attempt, draw=draw, mode=mode, failures=failures).then
    if isinstance(then, Settlement):
        assert then.state.final
    else:
        assert 0 <= then.delay_seconds <= 3600 * 1.1 + 1


@given(outcome=OUTCOMES, attempt=st.integers(1, 100))
def test_only_a_call_that_surely_did_not_run_is_not_counted(outcome, attempt):
    then = follow(outcome, attempt=attempt).then
    assert then.uncalled is isinstance(outcome, RateLimited | Retry | Gone | Rejected | Halt)
