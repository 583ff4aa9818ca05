"""The limiter's arithmetic against the sandbox's token buckets, in simulated time."""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.sandbox.limits import Bucket, take
from service.sandbox.options import Limit
from workers.pace import (
    FIRST_RATE_PER_SECOND,
    LEAST_RATE_PER_SECOND,
    MOST_RATE_PER_SECOND,
    Pace,
    Sample,
    learn,
)


@dataclass
class Simulation:
    """Three workers behind one limiter: throttle.lua's rules, a virtual clock, the sandbox's buckets."""

    limits: list[tuple[float, Limit]]
    latency_seconds: tuple[float, float] = (0.2, 0.6)
    draw: random.Random = field(default_factory=lambda: random.Random(7))  # noqa: S311  latencies, not secrets
    seq: int = 0
    next_at: float = 0.0
    parked_until: float = 0.0
    calls: int = 0
    refusals: int = 0
    bucket: Bucket | None = None

    def limit_at(self, now: float) -> Limit:
        return [limit for since, limit in self.limits if now >= since][-1]

    def run(self, wanted: int) -> float:
        """Make so many calls succeed; the share of the calls allowed meanwhile that were made."""
        paces = [Pace() for _ in range(3)]
        published: tuple[Sample, float] | None = None
        replies: list[tuple[float, int, int, Sample]] = []
        waiting, done, now, last, allowed = wanted, 0, 0.0, 0.0, 0.0
        while done < wanted:
            while replies and replies[0][0] <= now:
                _, _, worker, sample = heapq.heappop(replies)
                paces[worker] = learn(paces[worker], sample)
                if published is None or sample.seq > published[0].seq:
                    published = (sample, paces[worker].rate_per_second)
                if sample.refused:
                    self.parked_until = max(self.parked_until, now + (sample.reset_seconds or 0.0))
                    waiting += 1
                else:
                    done += 1
            if now >= self.parked_until and waiting:
                for sample, latency in self.permit(now, waiting, published):
                    waiting -= 1
                    last = now
                    heapq.heappush(replies, (now + latency, sample.seq, self.draw.randrange(3), sample))
            if not last or last == now or waiting:
                allowed += self.limit_at(now).rate_per_second * 0.005
            now += 0.005
            assert now < 3600, "the simulation does not end"
        return wanted / allowed

    def permit(self, now: float, waiting: int, published: tuple[Sample, float] | None):
        rate, slack = FIRST_RATE_PER_SECOND, 0.0
        if published is not None:
            newest, rate = published
            left = newest.remaining - (self.seq - newest.seq) + rate * (now - newest.at_seconds)
            tokens, reserve = min(newest.limit, left), max(1, newest.limit * 0.15)
            margin = 0.98 if newest.limit > 2 else 0.96
            rate = max(rate * 0.25, rate * margin + (tokens - reserve) / max(2, newest.limit / rate / 2))
            slack = min(max(0.04, 1 / rate), max(0.02, (newest.limit - 1) / 2) / rate)
        interval = 1 / rate
        due = min(max(self.next_at, now - slack), now + interval)
        while waiting and due <= now:
            due += interval
            waiting -= 1
            yield self.call(now)
        self.next_at = due

    def call(self, now: float) -> tuple[Sample, float]:
        self.seq += 1
        self.calls += 1
        arrival = now + self.draw.uniform(0, 0.004)
        taken = take(self.bucket, self.limit_at(now), arrival)
        self.bucket = taken.bucket
        sample = Sample(
            seq=self.seq,
            at_seconds=now,
            limit=taken.limit,
            remaining=taken.remaining,
            reset_seconds=taken.reset_seconds,
            refused=not taken.allowed,
            refusals=self.refusals,
        )
        self.refusals += not taken.allowed
        return sample, self.draw.uniform(*self.latency_seconds) if taken.allowed else 0.01


def bucket(rate: float, full_again_seconds: float, reset: str = "full") -> Limit:
    return Limit(rate_per_second=rate, burst=max(1, int(rate * full_again_seconds)), reset=reset)


@pytest.mark.parametrize("full_again_seconds", [0.25, 1, 10])
@pytest.mark.parametrize("rate", [5, 20, 60])
def test_it_uses_what_is_allowed_and_hardly_ever_hits_the_wall(rate, full_again_seconds) -> None:
    simulation = Simulation([(0, bucket(rate, full_again_seconds))])
    share = simulation.run(600)
    assert share >= 0.95
    assert simulation.refusals <= 0.005 * simulation.calls


@pytest.mark.parametrize("full_again_seconds", [1, 10])
@pytest.mark.parametrize(("before", "after"), [(20, 5), (5, 20), (20, 60), (60, 20)])
def test_it_follows_a_limit_that_changes_while_it_runs(before, after, full_again_seconds) -> None:
    changed_at = 4 if before == 60 else 10
    simulation = Simulation(
        [(0, bucket(before, full_again_seconds)), (changed_at, bucket(after, full_again_seconds))]
    )
    share = simulation.run(600)
    assert share >= 0.95
    assert simulation.refusals <= 0.005 * simulation.calls


@pytest.mark.parametrize("full_again_seconds", [1, 10])
@pytest.mark.parametrize("rate", [5, 20, 60])
def test_a_reset_that_only_counts_to_the_next_call_costs_some_speed_but_no_refusals(
    rate, full_again_seconds
) -> None:
    simulation = Simulation([(0, bucket(rate, full_again_seconds, "next"))])
    share = simulation.run(600)
    assert share >= 0.75
    assert simulation.refusals <= 0.005 * simulation.calls


def test_long_calls_whose_headers_are_old_news_do_not_make_it_overshoot() -> None:
    simulation = Simulation([(0, bucket(20, 1))], latency_seconds=(5, 15))
    simulation.run(600)
    assert simulation.refusals <= 0.01 * simulation.calls


def test_a_bucket_with_one_token_missing_names_its_rate_exactly() -> None:
    pace = learn(Pace(), Sample(seq=1, at_seconds=0, limit=100, remaining=99, reset_seconds=0.05))
    assert pace.rate_per_second == pytest.approx(20, rel=0.01)


def test_several_replies_narrow_the_rate_down() -> None:
    pace = Pace()
    for seq, (at_seconds, left) in enumerate([(0.0, 60.3), (1.0, 41.7), (2.0, 55.1)], start=1):
        reset = round((100 - left) / 20, 3)
        sample = Sample(seq=seq, at_seconds=at_seconds, limit=100, remaining=int(left), reset_seconds=reset)
        pace = learn(pace, sample)
    assert pace.rate_per_second == pytest.approx(20, rel=0.02)


def test_a_reply_that_comes_late_changes_nothing() -> None:
    newest = learn(Pace(), Sample(seq=9, at_seconds=1, limit=10, remaining=5, reset_seconds=1))
    assert learn(newest, Sample(seq=8, at_seconds=0, limit=99, remaining=98, reset_seconds=9)) is newest


def test_another_limit_starts_learning_anew() -> None:
    pace = learn(Pace(), Sample(seq=1, at_seconds=0, limit=100, remaining=99, reset_seconds=0.05))
    pace = learn(pace, Sample(seq=2, at_seconds=1, limit=10, remaining=9, reset_seconds=1))
    assert pace.rate_per_second == pytest.approx(1, rel=0.01)


def test_without_headers_it_grows_slowly_and_shrinks_when_refused() -> None:
    nothing = Sample(seq=1, at_seconds=0, limit=None, remaining=None, reset_seconds=None)
    grown = learn(Pace(), nothing)
    assert FIRST_RATE_PER_SECOND < grown.rate_per_second < FIRST_RATE_PER_SECOND * 1.1
    assert learn(grown, replace(nothing, seq=2, refused=True)).rate_per_second < grown.rate_per_second


@pytest.mark.parametrize(("limit", "remaining"), [(20, 0), (None, None)], ids=["whole header", "reset only"])
@pytest.mark.parametrize(
    ("reset_seconds", "least_per_second"),
    [(0.3, 1.0), (1.0, 1.0), (4.0, 0.25), (600.0, LEAST_RATE_PER_SECOND)],
)
def test_a_storm_of_refusals_slows_down_to_one_call_for_each_wait_and_no_further(
    limit, remaining, reset_seconds, least_per_second
) -> None:
    pace = Pace()
    for seq in range(1, 51):
        pace = learn(
            pace,
            Sample(
                seq=seq,
                at_seconds=seq * 10,
                limit=limit,
                remaining=remaining,
                reset_seconds=reset_seconds,
                refused=True,
                refusals=seq - 1,
            ),
        )
    assert pace.rate_per_second == pytest.approx(least_per_second)


def test_a_refusal_never_makes_calls_quicker() -> None:
    slow = replace(Pace(), rate_per_second=0.1)
    refused = Sample(seq=1, at_seconds=0, limit=None, remaining=None, reset_seconds=0.5, refused=True)
    assert learn(slow, refused).rate_per_second == pytest.approx(0.1)


numbers = st.one_of(st.none(), st.integers(min_value=0, max_value=10**9))
samples = st.builds(
    Sample,
    seq=st.integers(min_value=1, max_value=50),
    at_seconds=st.floats(min_value=0, max_value=1e9),
    limit=numbers,
    remaining=numbers,
    reset_seconds=st.one_of(st.none(), st.floats(min_value=0, max_value=86_400)),
    refused=st.booleans(),
    refusals=st.integers(min_value=0, max_value=50),
)


@given(st.lists(samples, max_size=30))
def test_whatever_headers_say_the_rate_stays_within_bounds(heard) -> None:
    pace = Pace()
    for sample in heard:
        pace = learn(pace, sample)
        assert LEAST_RATE_PER_SECOND <= pace.rate_per_second <= MOST_RATE_PER_SECOND
