"""Waits between calls: bounded, spread, and obedient to a delay that the server names."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.rules import Backoff
from workers.backoff import backoff_delay_seconds, jittered_wait_seconds

BACKOFF = Backoff(first_seconds=2.0, most_seconds=600.0)
draws = st.floats(min_value=0, max_value=1, exclude_max=True)


@pytest.mark.parametrize(
    ("failures", "ceiling_seconds"),
    [(1, 2.0), (2, 4.0), (3, 8.0), (9, 512.0), (10, 600.0), (2000, 600.0), (10**30, 600.0)],
)
def test_the_ceiling_doubles_with_every_failure_up_to_the_most(failures, ceiling_seconds):
    delay = backoff_delay_seconds(failures=failures, backoff=BACKOFF, hint_seconds=None, draw=0.5)
    assert delay == ceiling_seconds / 2


def test_full_jitter_may_draw_no_wait_at_all():
    assert backoff_delay_seconds(failures=5, backoff=BACKOFF, hint_seconds=None, draw=0.0) == 0.0


@pytest.mark.parametrize(
    ("hint_seconds", "draw", "expected_seconds"),
    [
        (30.0, 0.0, 30.0),
        (30.0, 0.5, 31.5),
        (1000.0, 0.0, 1000.0),
        (3599.0, 0.9, 3600.0),
        (86_400.0, 0.0, 3600.0),
        (math.inf, 0.5, 3600.0),
    ],
)
def test_a_delay_named_by_the_server_wins_up_to_an_hour(hint_seconds, draw, expected_seconds):
    delay = backoff_delay_seconds(failures=1, backoff=BACKOFF, hint_seconds=hint_seconds, draw=draw)
    assert delay == pytest.approx(expected_seconds)


@pytest.mark.parametrize("hint_seconds", [0.0, -1.0, math.nan])
def test_a_hint_that_names_no_delay_leaves_the_backoff_in_charge(hint_seconds):
    delay = backoff_delay_seconds(failures=2, backoff=BACKOFF, hint_seconds=hint_seconds, draw=0.5)
    assert delay == 2.0


def test_a_first_pause_above_the_most_is_cut_to_the_most():
    backoff = Backoff(first_seconds=100.0, most_seconds=10.0)
    assert backoff_delay_seconds(failures=1, backoff=backoff, hint_seconds=None, draw=0.5) == 5.0


@given(
    failures=st.integers(min_value=1),
    first=st.floats(min_value=0, max_value=1e300),
    most=st.floats(min_value=0, max_value=1e6),
    hint=st.none() | st.floats(),
    draw=draws,
)
def test_every_delay_is_a_finite_number_within_bounds(failures, first, most, hint, draw):
    backoff = Backoff(first_seconds=first, most_seconds=most)
    delay = backoff_delay_seconds(failures=failures, backoff=backoff, hint_seconds=hint, draw=draw)
    assert 0 <= delay <= max(most, 3600.0)


@given(reset=st.floats(min_value=0, max_value=86_400), draw=draws)
def test_a_wait_for_a_reset_is_longer_than_the_reset_but_not_by_much(reset, draw):
    wait = jittered_wait_seconds(reset_seconds=reset, draw=draw)
    assert reset < wait <= reset * 1.1 + 0.3


def test_waits_for_one_reset_differ_by_their_draw():
    waits = [jittered_wait_seconds(reset_seconds=0.25, draw=draw) for draw in (0.0, 0.5, 0.99)]
    assert waits == sorted(set(waits))


@pytest.mark.parametrize("draw", [-0.1, 1.0, math.nan])
def test_a_draw_outside_its_range_is_refused(draw):
    with pytest.raises(ValueError, match="draw must be"):
        backoff_delay_seconds(failures=1, backoff=BACKOFF, hint_seconds=None, draw=draw)
    with pytest.raises(ValueError, match="draw must be"):
        jittered_wait_seconds(reset_seconds=1.0, draw=draw)


def test_a_count_below_one_is_refused():
    with pytest.raises(ValueError, match="failures must be 1 or more, not 0"):
        backoff_delay_seconds(failures=0, backoff=BACKOFF, hint_seconds=None, draw=0.5)


@pytest.mark.parametrize("reset_seconds", [-1.0, math.nan])
def test_a_reset_that_is_no_duration_is_refused(reset_seconds):
    with pytest.raises(ValueError, match="reset_seconds must be"):
        jittered_wait_seconds(reset_seconds=reset_seconds, draw=0.5)
