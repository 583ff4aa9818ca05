"""The sandbox's rate limits: what the buckets allow, and that their header never lies."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sandbox_box import Clock, running

from service.sandbox.limits import Limiter, decimal_seconds, take
from service.sandbox.options import Limit, SandboxOptions

limits = st.builds(
    Limit,
    rate_per_second=st.floats(0.01, 1000),
    burst=st.integers(1, 500),
    reset=st.sampled_from(["full", "next"]),
)
starts = st.floats(0, 2e9)
pauses = st.lists(st.floats(0, 50), min_size=1, max_size=60)


@given(limit=limits, start=starts, waits=pauses)
def test_no_more_calls_are_allowed_than_rate_times_time_plus_burst(limit, start, waits):
    bucket, now, allowed = None, start, 0
    for wait in waits:
        now += wait
        for _ in range(3):
            taken = take(bucket, limit, now)
            bucket, allowed = taken.bucket, allowed + taken.allowed
    # What one microsecond gives may be owed, once, however many calls there were.
    owed = 2e-6 * (1 + limit.rate_per_second)
    assert allowed <= limit.rate_per_second * (now - start) + limit.burst + owed


@given(limit=limits, start=starts, waits=pauses)
def test_as_many_calls_as_the_header_says_remain_are_allowed_at_once(limit, start, waits):
    bucket, now = None, start
    for wait in waits:
        now += wait
        taken = take(bucket, limit, now)
        bucket = taken.bucket
        probe = bucket
        for _ in range(taken.remaining):
            probed = take(probe, limit, now)
            assert probed.allowed
            probe = probed.bucket
        assert taken.remaining > 0 or not take(probe, limit, now).allowed


@given(limit=limits, start=starts, calls=st.integers(1, 600))
def test_after_the_reset_in_the_header_the_promise_holds(limit, start, calls):
    taken = take(None, limit, start)
    for _ in range(calls - 1):
        taken = take(taken.bucket, limit, start)
    reset = float(re.fullmatch(r"limit=\d+, remaining=\d+, reset=([\d.]+)", taken.header)[1])
    later = take(taken.bucket, limit, start + reset, tokens=0)
    assert later.allowed
    if limit.reset == "full":
        assert later.remaining == limit.burst
    assert int(taken.retry_after) >= reset


def test_a_refused_call_costs_no_token():
    limit = Limit(rate_per_second=1, burst=1)
    taken = take(take(None, limit, 0.0).bucket, limit, 0.5)
    assert not taken.allowed
    assert take(taken.bucket, limit, 1.0).allowed


def test_a_clock_that_goes_back_gives_no_token():
    limit = Limit(rate_per_second=1, burst=1)
    emptied = take(None, limit, 100.0).bucket
    gone_back = take(emptied, limit, 50.0)
    assert not gone_back.allowed
    assert not take(gone_back.bucket, limit, 100.5).allowed


@pytest.mark.parametrize(
    ("seconds", "text"), [(5.0, "5"), (0.25, "0.25"), (0.0, "0"), (10.0, "10"), (0.001, "0.001")]
)
def test_seconds_are_written_as_a_short_decimal(seconds, text):
    assert decimal_seconds(seconds) == text


def test_the_header_reads_as_in_closes_example():
    limit = Limit(rate_per_second=10, burst=100)
    taken = take(None, limit, 0.0, tokens=50)
    assert taken.header == "limit=100, remaining=50, reset=5"


def test_an_organization_has_three_times_the_limit_of_one_key():
    options = SandboxOptions(
        api_keys=("api_a.1", "api_b.2", "api_c.3", "api_d.4"),
        default_limit=Limit(rate_per_second=1, burst=2),
    )
    limiter = Limiter()
    keys = ["api_a", "api_b", "api_c", "api_d"] * 2
    taken = [limiter.take(api_key_id=key, group="GET me", options=options, now=0.0) for key in keys]
    assert [entry.allowed for entry in taken] == [True] * 6 + [False] * 2
    assert (taken[-1].limit, taken[-1].remaining) == (6, 0)


def test_the_header_reports_the_limit_closest_to_being_hit():
    options = SandboxOptions(
        api_keys=("api_a.1", "api_b.2", "api_c.3", "api_d.4"),
        default_limit=Limit(rate_per_second=1, burst=2),
    )
    taken = Limiter().take(api_key_id="api_a", group="GET me", options=options, now=0.0)
    assert (taken.limit, taken.remaining) == (2, 1)


async def test_every_answer_carries_the_header_and_a_429_also_says_when_to_return():
    clock = Clock()
    limit = Limit(rate_per_second=0.5, burst=2)
    async with running(clock=clock, limits={"GET me": limit}) as box:
        replies = [await box.api.get("me/") for _ in range(3)]
        assert [reply.status_code for reply in replies] == [200, 200, 429]
        assert [reply.headers["ratelimit"] for reply in replies] == [
            "limit=2, remaining=1, reset=2",
            "limit=2, remaining=0, reset=4",
            "limit=2, remaining=0, reset=4",
        ]
        assert replies[2].headers["retry-after"] == "4"
        assert "retry-after" not in replies[1].headers
        assert isinstance(replies[2].json(), dict)
        assert box.world.tally.rate_limited == 1
        clock.advance(4)
        assert [(await box.api.get("me/")).status_code for _ in range(3)] == [200, 200, 429]


async def test_each_endpoint_group_has_its_own_bucket():
    async with running(limits={"POST lead": Limit(rate_per_second=0.1, burst=1)}) as box:
        lead = await box.lead()
        assert (await box.api.post("lead/", json={})).status_code == 429
        assert (await box.api.get(f"lead/{lead['id']}/")).status_code == 200
        assert (await box.api.put(f"lead/{lead['id']}/", json={})).status_code == 200


async def test_hammering_with_a_wrong_key_turns_401_into_429():
    async with running(default_limit=Limit(rate_per_second=0.1, burst=2)) as box:
        statuses = [(await box.api.get("me/", auth=("api_wrong.key", ""))).status_code for _ in range(3)]
        assert statuses == [401, 401, 429]
        assert (await box.api.get("me/")).status_code == 200


async def test_limits_can_be_changed_while_calls_come_in():
    async with running() as box:
        assert (await box.api.get("me/")).headers["ratelimit"].startswith("limit=2000, ")
        changed = await box.api.post(
            f"{box.url}/_sandbox/options",
            json={"limits": {"GET me": {"rate_per_second": 0.1, "burst": 1}}},
        )
        assert changed.status_code == 200
        assert (await box.api.get("me/")).headers["ratelimit"].startswith("limit=1, remaining=0, ")
        assert (await box.api.get("me/")).status_code == 429


@pytest.mark.parametrize("bad", [{"rate_per_second": 0, "burst": 1}, {"rate_per_second": 1, "burst": 0}])
def test_a_bucket_that_never_gives_a_token_is_refused(bad):
    with pytest.raises(ValueError, match="expected"):
        Limit(**bad)
