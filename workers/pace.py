"""How fast Close lets us call, learned from its own headers. Pure.

Close limits calls with token buckets (https://developer.close.com/api/overview/rate-limits and "Rate Limiting
at Close", 2020): a bucket holds `limit` tokens, a call takes one, and they come back at a steady rate that
no header names. What a header does say is how many are `remaining`, and when the bucket will be reset. Two
things can be computed from that, each as an interval, since `remaining` is a whole number:

- a bucket that is full again after `reset` seconds gets `limit - remaining` tokens in that time;
- between two replies, tokens came back that our own calls in between do not account for.

Intervals of one steady rate intersect; one that does not shows that the limit has changed. Where the two
kinds keep contradicting each other, `reset` means something else than a full bucket: the second kind is used.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

FIRST_RATE_PER_SECOND = 4.0
"""Before the first reply: slower than any limit that Close has named."""
LEAST_RATE_PER_SECOND = 0.05
MOST_RATE_PER_SECOND = 5000.0

TOLERANCE = 0.02
"""`reset` is rounded to milliseconds, and clocks differ: intervals are widened by this much."""
ANCHOR_SECONDS = 3.0
"""Two replies are compared when they are at most this far apart."""
LEAST_SPAN_SECONDS = 0.2
GROWTH_AT_THE_BRIM = 1.25
GROWTH_IN_THE_DARK = 1.02
GROWTH_PAUSE_SECONDS = 0.5
SHRINK_WHEN_REFUSED = 0.7
LEAST_WAIT_HEEDED_SECONDS = 1.0
"""A 429 that names a shorter wait may mean a part of a token, which tells nothing about the rate."""
MOST_DOUBT = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What one reply said about the limit.

    Attributes:
        seq: the call's number among all calls of the endpoint group, in the order of their permits.
        at_seconds: when it was permitted. Close takes the token at a call's start, so this is its moment too.
        limit, remaining, reset_seconds: as in the header; None for what it did not name.
        refused: the reply was a 429.
        refusals: how many 429s there had been when it was permitted; they took no tokens.
    """

    seq: int
    at_seconds: float
    limit: int | None
    remaining: int | None
    reset_seconds: float | None
    refused: bool = False
    refusals: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A rate lies between these, in tokens a second."""

    low: float
    high: float

    def meets(self, other: Interval) -> Interval | None:
        """What both allow, or None where they contradict each other."""
        low, high = max(self.low, other.low), min(self.high, other.high)
        return Interval(low=low, high=high) if low <= high else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What is known of one endpoint group's limit.

    Attributes:
        rate_per_second: the best guess of the steady rate.
        interval: where it surely lies, or None while nothing was computed.
        newest: the latest reply, by `seq`.
        anchor: an earlier reply that later ones are compared with.
        doubt: how often lately `reset` contradicted what came back; above 0, it is not used.
        grown_at_seconds: when the rate was last raised for want of anything better.
    """

    rate_per_second: float = FIRST_RATE_PER_SECOND
    interval: Interval | None = None
    newest: Sample | None = None
    anchor: Sample | None = None
    doubt: int = 0
    grown_at_seconds: float = 0.0


def learn(pace: Pace, sample: Sample) -> Pace:
    """What is known after one more reply. Replies may come in any order; old ones change nothing."""
    if pace.newest is not None and sample.seq <= pace.newest.seq:
        return pace
    if sample.limit is None or sample.remaining is None:
        rate = _slower(pace, sample) if sample.refused else pace.rate_per_second * GROWTH_IN_THE_DARK
        return replace(pace, rate_per_second=_bounded(rate), newest=sample)
    if pace.newest is not None and pace.newest.limit != sample.limit:
        pace = Pace(rate_per_second=pace.rate_per_second)
    by_reset, by_refill = _by_reset(sample), _by_refill(pace.anchor, sample)
    doubt = _doubt(pace.doubt, sample, by_reset, by_refill)
    # what a 429 says is taken on trust only where other replies have confirmed it
    trusted = doubt < 0 if sample.refused else doubt <= 0
    found = by_reset if by_reset is not None and trusted else by_refill
    if found is None:
        return _guess(
            replace(pace, newest=sample, anchor=_next_anchor(pace.anchor, sample), doubt=doubt), sample
        )
    known = (pace.interval.meets(found) if pace.interval is not None else None) or found
    return Pace(
        rate_per_second=_bounded((known.low + known.high) / 2),
        interval=known,
        newest=sample,
        anchor=_next_anchor(pace.anchor, sample),
        doubt=doubt,
        grown_at_seconds=pace.grown_at_seconds,
    )


def _doubt(doubt: int, sample: Sample, by_reset: Interval | None, by_refill: Interval | None) -> int:
    """How little `reset` can be trusted to mean a full bucket."""
    missing = _missing(sample)
    if missing > 1 and not sample.refused and not sample.reset_seconds:
        return MOST_DOUBT  # tokens are missing, and yet nothing is left to wait for
    if by_reset is None or by_refill is None:
        return doubt
    agree = by_reset.meets(by_refill) is not None
    return max(-MOST_DOUBT, doubt - 1) if agree else min(MOST_DOUBT, doubt + 1)


def _missing(sample: Sample) -> int:
    return (sample.limit or 0) - (sample.remaining or 0)


def _by_reset(sample: Sample) -> Interval | None:
    """The rate of a bucket that is full again after `reset`."""
    missing = _missing(sample)
    if not sample.reset_seconds or missing < 1:
        return None
    # a call that was let through has just taken a token: where only one is missing, exactly one is
    least = missing if missing == 1 and not sample.refused else missing - 1
    return Interval(
        low=least / sample.reset_seconds * (1 - TOLERANCE),
        high=missing / sample.reset_seconds * (1 + TOLERANCE),
    )


def _by_refill(anchor: Sample | None, sample: Sample) -> Interval | None:
    """The rate at which tokens came back between two replies; None where the bucket may have been full."""
    if anchor is None or anchor.remaining is None or sample.remaining is None:
        return None
    span_seconds = sample.at_seconds - anchor.at_seconds
    if span_seconds < LEAST_SPAN_SECONDS or min(_missing(anchor), _missing(sample)) <= 1:
        return None
    taken = sample.seq - anchor.seq - (sample.refusals - anchor.refusals)
    came_back = sample.remaining - anchor.remaining + taken
    if came_back <= 0:
        return None
    return Interval(
        low=max(0.0, (came_back - 2) / span_seconds * (1 - TOLERANCE)),
        high=(came_back + 2) / span_seconds * (1 + TOLERANCE),
    )


def _guess(pace: Pace, sample: Sample) -> Pace:
    """Where nothing can be computed: be careful after a refusal, bolder while no token is missing."""
    if sample.refused:
        rate = _bounded(_slower(pace, sample))
        return replace(
            pace, rate_per_second=rate, interval=None, anchor=None, grown_at_seconds=sample.at_seconds
        )
    if _missing(sample) > 1 or sample.at_seconds - pace.grown_at_seconds < GROWTH_PAUSE_SECONDS:
        return pace
    rate = _bounded(pace.rate_per_second * GROWTH_AT_THE_BRIM)
    return replace(pace, rate_per_second=rate, grown_at_seconds=sample.at_seconds)


def _slower(pace: Pace, sample: Sample) -> float:
    """The rate after a refusal: lower, but never below one call for each wait that the refusal named.

    So much is allowed however often Close refuses, as no call leaves before that time is up. Without this
    bound, a storm of refusals that are over in seconds would slow calls down for minutes.
    """
    lower = pace.rate_per_second * SHRINK_WHEN_REFUSED
    if not sample.reset_seconds:
        return lower
    allowed = 1 / max(LEAST_WAIT_HEEDED_SECONDS, sample.reset_seconds)
    return min(pace.rate_per_second, max(lower, allowed))


def _next_anchor(anchor: Sample | None, sample: Sample) -> Sample:
    if anchor is None or sample.at_seconds - anchor.at_seconds > ANCHOR_SECONDS or _missing(anchor) <= 1:
        return sample
    return anchor


def _bounded(rate_per_second: float) -> float:
    return min(MOST_RATE_PER_SECOND, max(LEAST_RATE_PER_SECOND, rate_per_second))
