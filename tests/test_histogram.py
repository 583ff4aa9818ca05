"""Percentiles from buckets are as near as buckets can tell."""

from __future__ import annotations

from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.histogram import added, quantile

BOUNDS = (1.0, 2.5, 5.0, 10.0, 30.0)

observations = st.lists(st.floats(min_value=0, max_value=30), min_size=1, max_size=200)
shares = st.floats(min_value=0, max_value=1)


def counted(seconds):
    counts = [0] * (len(BOUNDS) + 1)
    for one in seconds:
        counts[bisect_left(BOUNDS, one)] += 1
    return counts


@given(observations, shares)
def test_a_percentile_lies_in_the_bucket_of_the_true_one(seconds, share):
    found = quantile(share, bounds=BOUNDS, counts=counted(seconds))
    ordered = sorted(seconds)
    rank = share * len(ordered)
    true = ordered[max(0, -(-int(rank * 1e9) // 10**9) - 1)] if rank else ordered[0]
    bucket = bisect_left(BOUNDS, true)
    low = BOUNDS[bucket - 1] if bucket else 0.0
    assert low <= found <= BOUNDS[bucket]


@given(observations, shares, shares)
def test_a_larger_share_is_never_quicker(seconds, one, other):
    counts = counted(seconds)
    low, high = sorted((one, other))
    assert quantile(low, bounds=BOUNDS, counts=counts) <= quantile(high, bounds=BOUNDS, counts=counts) + 1e-9


@given(st.lists(observations, max_size=5), shares)
def test_histograms_can_be_put_together_before_or_after_counting(parts, share):
    together = added([counted(part) for part in parts], length=len(BOUNDS) + 1)
    assert list(together) == counted([one for part in parts for one in part])
    assert (quantile(share, bounds=BOUNDS, counts=together) is None) == (not parts)


@pytest.mark.parametrize(
    ("share", "counts", "expected"),
    [
        (0.5, [0, 0, 0, 0, 0, 0], None),
        (0.5, [10, 0, 0, 0, 0, 0], 0.5),
        (0.5, [0, 0, 10, 0, 0, 0], 3.75),
        (0.0, [0, 0, 10, 0, 0, 0], 2.5),
        (1.0, [0, 0, 10, 0, 0, 0], 5.0),
        (0.95, [0, 0, 0, 0, 0, 7], 30.0),
        (0.95, [90, 0, 0, 0, 10, 0], 20.0),
    ],
)
def test_within_a_bucket_observations_count_as_evenly_spread(share, counts, expected):
    assert quantile(share, bounds=BOUNDS, counts=counts) == (expected and pytest.approx(expected))


@pytest.mark.parametrize(("share", "counts"), [(-0.1, [0] * 6), (1.1, [0] * 6), (0.5, [0] * 5)])
def test_what_makes_no_sense_is_refused(share, counts):
    with pytest.raises(ValueError, match=r"share|counts"):
        quantile(share, bounds=BOUNDS, counts=counts)
