"""Budgets: which counters a call is charged to, and when they open again, wherever clocks change."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.rules import Budget, ObjectType, OnExhausted, Rule, RuleBook
from workers.budget import KEPT_SECONDS, Window, windows_of

HOUR_MS = 3_600_000
DAILY = Budget(per_day=500)
MONTHLY = Budget(per_month=9000, on_exhausted=OnExhausted.DROP)
BOTH = Budget(per_day=500, per_month=9000)


def ms(text, zone="UTC"):
    """The moment of a wall clock, Unix milliseconds."""
    return round(dt.datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


def windows(now_ms, zone="UTC", *, all_rules=BOTH, of_rule=None) -> tuple[Window, ...]:
    rule = Rule(name="Industry", object_type=ObjectType.LEAD, field="Industry", budget=of_rule)
    return windows_of(RuleBook(rules=(rule,), budget=all_rules), rule, now_ms=now_ms, zone=ZoneInfo(zone))


def test_without_a_budget_a_call_is_charged_to_nothing():
    assert windows(ms("2026-11-23T09:00"), all_rules=None) == ()
    assert windows(ms("2026-11-23T09:00"), all_rules=Budget()) == ()


def test_a_call_is_charged_to_day_and_month_of_the_organization_first_and_then_of_its_rule():
    found = windows(ms("2026-11-23T09:00"), of_rule=Budget(per_day=20, per_month=300))
    assert [(one.key, one.limit, one.words) for one in found] == [
        ("enrich:spent:all:2026-11-23", 500, "500 credits a day for all rules"),
        ("enrich:spent:all:2026-11", 9000, "9000 credits a month for all rules"),
        ("enrich:spent:rule:Industry:2026-11-23", 20, "20 credits a day for rule Industry"),
        ("enrich:spent:rule:Industry:2026-11", 300, "300 credits a month for rule Industry"),
    ]


def test_each_budget_says_what_becomes_of_what_it_has_no_credit_for():
    found = windows(ms("2026-11-23T09:00"), all_rules=DAILY, of_rule=MONTHLY)
    assert [one.on_exhausted for one in found] == [OnExhausted.WAIT, OnExhausted.DROP]


def test_a_budget_of_nothing_is_a_budget():
    (found,) = windows(ms("2026-11-23T09:00"), all_rules=Budget(per_day=0))
    assert found.limit == 0


def test_counters_outlive_their_window_for_reports():
    for one in windows(ms("2026-11-23T09:00")):
        assert one.expires_ms == one.ends_ms + KEPT_SECONDS * 1000


@pytest.mark.parametrize(
    ("now", "zone", "next_day", "next_month"),
    [
        ("2026-11-23T09:00", "UTC", "2026-11-24", "2026-12-01"),
        ("2026-11-23T00:00", "UTC", "2026-11-24", "2026-12-01"),
        ("2026-11-23T23:59:59.999", "UTC", "2026-11-24", "2026-12-01"),
        ("2026-11-30T12:00", "Europe/Paris", "2026-12-01", "2026-12-01"),
        ("2026-12-31T23:30", "Asia/Tokyo", "2027-01-01", "2027-01-01"),
        ("2028-02-28T23:59", "UTC", "2028-02-29", "2028-03-01"),
        ("2028-02-29T10:00", "UTC", "2028-03-01", "2028-03-01"),
        ("2027-02-28T10:00", "America/New_York", "2027-03-01", "2027-03-01"),
        ("2026-03-29T12:00", "Europe/Paris", "2026-03-30", "2026-04-01"),
        ("2026-10-25T02:30", "Europe/Paris", "2026-10-26", "2026-11-01"),
        ("2026-11-01T12:00", "America/New_York", "2026-11-02", "2026-12-01"),
    ],
)
def test_days_and_months_begin_at_local_midnight(now, zone, next_day, next_month):
    daily, monthly = windows(ms(now, zone), zone)
    assert daily.key == f"enrich:spent:all:{now[:10]}"
    assert daily.ends_ms == ms(f"{next_day}T00:00", zone)
    assert monthly.key == f"enrich:spent:all:{now[:7]}"
    assert monthly.ends_ms == ms(f"{next_month}T00:00", zone)


@pytest.mark.parametrize(
    ("day", "zone", "hours"),
    [
        ("2026-03-29", "Europe/Paris", 23),
        ("2026-10-25", "Europe/Paris", 25),
        ("2026-10-26", "Europe/Paris", 24),
        ("2026-10-04", "Australia/Lord_Howe", 23.5),
        ("2026-04-24", "Africa/Cairo", 23),  # clocks go forward at midnight: the day begins at one
        ("2026-10-29", "Africa/Cairo", 25),  # and back at midnight: its last hour comes twice
        ("2026-11-01", "America/Havana", 25),  # its first hour comes twice
    ],
)
def test_a_day_on_which_clocks_change_is_one_day_of_another_length(day, zone, hours):
    noon_ms = ms(f"{day}T12:00", zone)
    (today,) = windows(noon_ms, zone, all_rules=DAILY)
    (yesterday,) = windows(noon_ms - 24 * HOUR_MS, zone, all_rules=DAILY)
    assert (today.ends_ms - yesterday.ends_ms) / HOUR_MS == hours
    assert windows(yesterday.ends_ms, zone, all_rules=DAILY) == (today,)
    assert windows(today.ends_ms - 1, zone, all_rules=DAILY) == (today,)


def test_where_clocks_go_back_over_midnight_the_window_still_ends_later():
    # in 2010, clocks of Newfoundland went from 00:01 on 7 November back to 23:01 on the 6th
    zone = "America/St_Johns"
    before = ms("2010-11-06T23:30", zone)
    (first,) = windows(before, zone, all_rules=DAILY)
    (second,) = windows(before + HOUR_MS, zone, all_rules=DAILY)
    assert first.key == second.key
    assert (first.ends_ms - before, second.ends_ms - before) == (HOUR_MS / 2, 1.5 * HOUR_MS)


moments_ms = st.integers(ms("2015-01-01T00:00"), ms("2060-01-01T00:00"))
zones = st.sampled_from(
    [
        "UTC",
        "Europe/Paris",
        "America/New_York",
        "America/Sao_Paulo",
        "America/Havana",
        "Africa/Cairo",
        "Asia/Beirut",
        "Asia/Kathmandu",
        "Australia/Lord_Howe",
        "Pacific/Apia",
        "Pacific/Kiritimati",
    ]
)


def local(now_ms, zone):
    return dt.datetime.fromtimestamp(now_ms / 1000, ZoneInfo(zone))


@given(now_ms=moments_ms, zone=zones)
def test_a_window_holds_now_and_ends_where_the_next_one_begins(now_ms, zone):
    for one in windows(now_ms, zone):
        assert one.ends_ms > now_ms
        last, following = windows(one.ends_ms - 1, zone), windows(one.ends_ms, zone)
        assert one in last
        assert one.key not in {other.key for other in following}


@given(now_ms=moments_ms, zone=zones, gap_ms=st.integers(0, 40 * 24 * HOUR_MS))
def test_counters_differ_exactly_when_the_local_day_or_month_does(now_ms, zone, gap_ms):
    one, other = local(now_ms, zone), local(now_ms + gap_ms, zone)
    (day, month), (other_day, other_month) = windows(now_ms, zone), windows(now_ms + gap_ms, zone)
    assert (day.key == other_day.key) is (one.date() == other.date())
    assert (month.key == other_month.key) is ((one.year, one.month) == (other.year, other.month))
