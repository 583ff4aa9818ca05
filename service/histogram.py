"""Percentiles from counted buckets. Pure."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def quantile(share: float, *, bounds: Sequence[float], counts: Sequence[int]) -> float | None:
    """The value that so large a share of all observations is at most, as near as buckets can tell.

    Within a bucket observations count as evenly spread, as Prometheus's `histogram_quantile` has it; one
    beyond all bounds counts as the last bound.

    Args:
        share: from 0 to 1: 0.5 for the median.
        bounds: the buckets' upper bounds, ascending, all above 0.
        counts: observations in each bucket, and beyond all bounds: one more than there are bounds.

    Returns:
        None where nothing was observed.

    Raises:
        ValueError: the share is not a share, or counts do not fit bounds.
    """
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"a share is from 0 to 1, not {share}")
    if len(counts) != len(bounds) + 1:
        raise ValueError(f"{len(bounds)} bounds need {len(bounds) + 1} counts, not {len(counts)}")
    total = sum(counts)
    if total == 0:
        return None
    rank = share * total
    below = 0
    for at, (bound, until) in enumerate(zip(bounds, accumulate(counts), strict=False)):
        if until >= rank and until > below:
            low = bounds[at - 1] if at else 0.0
            return low + (bound - low) * max(0.0, rank - below) / (until - below)
        below = until
    return float(bounds[-1])


def added(histograms: Sequence[Sequence[int]], *, length: int) -> tuple[int, ...]:
    """The counts of several histograms with the same bounds together.

    Args:
        histograms: any number of them.
        length: how many counts each has.
    """
    return tuple(map(sum, zip(*histograms, strict=True))) if histograms else (0,) * length
