"""What rules would have done to past events: counts, prices, budgets and differences; and the walk."""

from __future__ import annotations

import datetime as dt
import json
from zoneinfo import ZoneInfo

import pytest
from reconcile_box import reconciling
from test_explain import CREATED, SCHEMAS, event, rule, updated

from service.knowledge import Knowledge
from service.rules import Budget, Mode, RuleBook
from workers.dry_tally import BudgetForecast, OnlyOne, Tally, budgets_of, days_between, month_of, only_in
from workers.dry_walk import walk_log
from workers.log_walk import Pair, pairs_of

HAS_URL = 'lead.url != ""'
URL = {"url": "https://a.example"}
DAYS = ("2026-11-19", "2026-11-20", "2026-11-21")


def knowing(*rules, budget=None) -> Knowledge:
    return Knowledge.of(RuleBook(rules=rules, budget=budget), SCHEMAS)


def tallied(events, *rules, zone=dt.UTC):
    tally = Tally(knowing(*rules), own_api_key_id=None, zone=zone)
    for one in events:
        tally.add(one)
    return tally.forecast()


def lead(number: int, data=None, *, day: int = 20, **changes):
    facts = {
        "id": f"ev_{number}",
        "object_id": f"lead_{number}",
        "date_updated": f"2026-11-{day}T23:30:00.000000",
    }
    return event({} if data is None else data, **facts | changes)


def test_a_rule_is_counted_with_what_it_wants_and_why_it_does_not():
    events = [
        lead(1, URL),
        lead(2, URL),
        lead(3),
        lead(4, {**URL, "custom.cf_industry": "Food"}),
        lead(5, data_json=None),
        lead(6, object_type="contact"),
    ]
    (one,) = tallied(events, rule(when=HAS_URL)).rules
    assert (one.events, one.wanted, one.not_judged, one.fields, one.credits_at_most) == (5, 2, 1, 2, 2)
    assert one.refused == {"the condition is not met": 1, "the field already has a value": 1}
    assert one.problem is None


def test_all_events_are_counted_once_and_so_are_those_without_data():
    found = tallied([lead(1, URL), lead(1, URL), lead(2, data_json=None)], rule())
    assert (found.events, found.without_data, found.credits_at_most) == (2, 1, 2)


def test_a_rule_that_cannot_run_is_named_and_a_disabled_one_left_out():
    found = tallied([lead(1)], rule(field="Industri"), rule("Off", enabled=False))
    (one,) = found.rules
    assert "did you mean 'Industry'?" in one.problem
    assert (one.events, found.credits_at_most) == (0, 0)


def test_created_starts_a_field_once_and_what_happens_later_each_time():
    again = [
        lead(1, URL, id=f"ev_u{number}", action="updated", changed_fields=("url",), day=21)
        for number in range(2)
    ]
    twice_created = [lead(1, URL), lead(1, URL, id="ev_other")]
    (one,) = tallied(
        [*again, *twice_created], rule(on=(*CREATED, *updated("url")), mode=Mode.OVERWRITE)
    ).rules
    assert (one.wanted, one.fields) == (4, 1)
    assert one.credits_by_day == {"2026-11-20": 1, "2026-11-21": 2}


@pytest.mark.parametrize(("zone", "day"), [(dt.UTC, "2026-11-20"), (ZoneInfo("Europe/Paris"), "2026-11-21")])
def test_days_begin_where_budgets_do(zone, day):
    assert tallied([lead(1)], rule(), zone=zone).credits_by_day == {day: 1}


def test_an_event_whose_date_cannot_be_read_is_counted_all_the_same():
    assert tallied([lead(1, date_updated="soon")], rule()).credits_by_day == {"unknown": 1}


def test_the_days_of_a_while_are_those_it_touches():
    since = dt.datetime(2026, 11, 19, 23, 30, tzinfo=dt.UTC)
    assert days_between(since, since + dt.timedelta(days=1), dt.UTC) == ("2026-11-19", "2026-11-20")
    paris = days_between(since, since + dt.timedelta(hours=1), ZoneInfo("Europe/Paris"))
    assert paris == ("2026-11-20",)


@pytest.mark.parametrize(("credits_at_most", "days", "month"), [(70, 7, 300), (0, 7, 0), (1, 1, 30)])
def test_a_month_is_thirty_days_at_the_same_rate(credits_at_most, days, month):
    assert month_of(credits_at_most, seconds=days * 86400) == month


def test_every_ceiling_is_compared_with_what_would_have_been_called():
    rules = (rule(budget=Budget(per_day=3)), rule("Size", field="Size"))
    budget = Budget(per_day=4, per_month=10_000)
    knowledge = knowing(*rules, budget=budget)
    events = [*(lead(number) for number in range(2)), *(lead(10 + number, day=21) for number in range(1))]
    forecast = tallied(events, *rules)
    found = budgets_of(knowledge, forecast, days=DAYS, seconds=3 * 86400)
    assert found == (
        BudgetForecast(words="4 credits a day for all rules", limit=4, reached=1, days=3, month=None),
        BudgetForecast(
            words="10000 credits a month for all rules", limit=10_000, reached=None, days=3, month=60
        ),
        BudgetForecast(words="3 credits a day for rule Industry", limit=3, reached=0, days=3, month=None),
    )
    assert [one.short for one in found] == [True, False, False]


def test_a_month_that_would_be_used_up_is_short():
    rules = (rule(budget=Budget(per_month=10)),)
    (one,) = budgets_of(knowing(*rules), tallied([lead(1)], *rules), days=DAYS, seconds=3 * 86400)
    assert (one.month, one.short) == (10, True)


def test_what_only_one_of_two_files_would_enrich_is_found_on_both_sides():
    events = [lead(1, URL), lead(2)]
    old = tallied(events, rule(), rule("Pitch", field="Pitch", when=HAS_URL))
    new = tallied(events, rule("Sector", when=HAS_URL), rule("Size", field="Size", when=HAS_URL))
    assert only_in(new, old) == (OnlyOne(object_id="lead_1", field_id="cf_size", rule="Size"),)
    assert only_in(old, new) == (
        OnlyOne(object_id="lead_1", field_id="cf_pitch", rule="Pitch"),
        OnlyOne(object_id="lead_2", field_id="cf_industry", rule="Industry"),
    )


# the walk, on a sandbox


async def walked(world, *, hours=1.0, rules=None):
    if rules is not None:
        world.rules(rules)
    tally = Tally(world.knowledge, own_api_key_id=None, zone=dt.UTC)
    since = dt.datetime.fromtimestamp(world.box.world.clock(), dt.UTC) - dt.timedelta(hours=hours)
    told = []
    pairs = await walk_log(
        world.reader(),
        pairs_of(world.knowledge.rulebook.enabled),
        [tally],
        since=since,
        told=lambda *facts: told.append(facts),
    )
    return pairs, tally.forecast(), told


async def test_every_event_of_the_window_is_met_whatever_the_page_it_is_on(async_redis):
    async with reconciling(async_redis) as world:
        world.add_lead(name="too early")
        world.box.advance(7200)
        for _ in range(60):
            world.add_lead(contacts=[{"name": "Ines Tarnow"}])
        known = set(await async_redis.keys("enrich:*"))
        pairs, found, told = await walked(world)
        assert [(str(one.pair), one.events, one.unreadable, one.problem) for one in pairs] == [
            ("lead.created", 60, 0, None),
            ("contact.created", 60, 0, None),
        ]
        assert [(one.rule, one.credits_at_most) for one in found.rules] == [
            ("Industry", 60),
            ("Seniority", 60),
        ]
        assert [(str(pair), events) for pair, events, _ in told[:2]] == [
            ("lead.created", 50),
            ("lead.created", 60),
        ]
        assert await world.entries() == []
        written = set(await async_redis.keys("enrich:*")) - known
        assert not [key for key in written if b"limiter" not in key]


async def test_a_log_that_cannot_be_walked_is_said_with_the_reason(async_redis):
    async with reconciling(async_redis) as world:
        world.box.world.faults.replace([])
        world.add_lead()
        world.api._headers = ()
        pairs, found, _ = await walked(world)
        assert {one.problem for one in pairs} == {"Close refused the API key (401)"}
        assert found.events == 0


@pytest.mark.parametrize(
    ("answers", "problem"),
    [([400] * 9, "Close forgets its cursors too soon"), ([400], None)],
)
async def test_a_cursor_that_dies_is_worked_around_as_long_as_that_helps(async_redis, answers, problem):
    async with reconciling(async_redis) as world:
        for _ in range(60):
            world.add_lead()
        original = world.api.get_log_page
        left = list(answers)

        async def dying(*, filters, **more):
            if "_cursor" in filters and left:
                left.pop()
                filters = {**filters, "_cursor": "dead"}
            return await original(filters=filters, **more)

        world.api.get_log_page = dying
        pairs, found, _ = await walked(world)
        assert pairs[0].problem == problem
        assert found.events == (60 if problem is None else 50)


async def test_pages_too_long_are_asked_for_with_fewer_events(async_redis, monkeypatch):
    async with reconciling(async_redis) as world:
        for _ in range(3):
            world.add_lead(description="x" * 3000)
        monkeypatch.setattr("workers.close_api.MAX_LOG_PAGE_BYTES", 6000)
        pairs, found, _ = await walked(world)
        assert (pairs[0].problem, found.events) == (None, 3)
        monkeypatch.setattr("workers.close_api.MAX_LOG_PAGE_BYTES", 500)
        pairs, found, _ = await walked(world)
        assert pairs[0].problem == "a single event is too long to be read"


async def test_what_is_no_event_is_counted_apart(async_redis):
    async with reconciling(async_redis) as world:
        world.add_lead()
        original = world.api.get_log_page

        async def odd(**more):
            reply = await original(**more)
            page = json.loads(reply.body)
            page["data"].append({"id": "ev_odd"})
            object.__setattr__(reply, "body", json.dumps(page).encode())
            return reply

        world.api.get_log_page = odd
        pairs, found, _ = await walked(world)
        assert (pairs[0].pair, pairs[0].unreadable) == (Pair("lead", "created"), 1)
        assert found.events == 1
