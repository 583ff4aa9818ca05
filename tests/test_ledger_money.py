"""Money in the ledger, on a real Redis: credits, breakers, the price list and the burst guard."""

from __future__ import annotations

import asyncio
import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from ledger_box import FIELD, ORGANIZATION, LedgerBox, event, id_of, wanted

from service import jobs, keys
from service.accept import Accepter
from service.brakes import BreakerPolicy
from service.costs import METRICS, read_costs, sum_by
from service.enrichment import State, entry_id
from service.ledger import Charge, Claim, Ledger, Permission
from service.rules import Burst, Mode
from service.transitions import Postponement, Settlement
from service.trial import try_field

SLACK_MS = 5_000
FAR_MS = 4_000_000_000_000
DAY, MONTH = keys.spent("all", "2026-11-23"), keys.spent("all", "2026-11")
OF_RULE = keys.spent("rule:Industry", "2026-11-23")


def charge(key=DAY, limit=1):
    return Charge(key=key, limit=limit, expires_ms=FAR_MS)


@pytest.fixture
def box(async_redis):
    return LedgerBox(async_redis)


async def permit(box, claim, *charges, **options):
    return await box.ledger.permit_call(claim, group="enrich", charges=charges, **options)


async def claim(box, number=0):
    return await box.claim((await box.plan(field_id=f"cf_{number}")).id)


async def spent(box, *names):
    """What the counters say; None where there is none."""
    found = await box.redis.mget(names)
    return [None if one is None else int(one) for one in found]


@pytest.fixture
def _same_job(monkeypatch):
    """A script that is asked once more, because its answer was lost, is asked about the same job."""
    monkeypatch.setattr("service.ledger.new_job_id", lambda of_entry, **_: f"{of_entry}-same")


# Budgets


async def test_a_credit_is_reserved_in_every_counter_of_a_call(box):
    charges = (charge(DAY, 2), charge(MONTH, 5), charge(OF_RULE, 9))
    assert (await permit(box, await claim(box, 1), *charges)).verdict == "go"
    assert (await permit(box, await claim(box, 2), *charges)).verdict == "go"
    assert await spent(box, DAY, MONTH, OF_RULE) == [2, 2, 2]
    assert await box.redis.pexpiretime(DAY) == FAR_MS


@pytest.mark.parametrize("exhausted", [0, 1, 2])
async def test_a_used_up_budget_is_named_and_nothing_is_reserved_anywhere(box, exhausted):
    names = (DAY, MONTH, OF_RULE)
    charges = [charge(name, 3) for name in names]
    charges[exhausted] = charge(names[exhausted], 0)
    mine = await claim(box)
    assert await permit(box, mine, *charges) == Permission(verdict="exhausted", window=exhausted)
    assert await spent(box, *names) == [None, None, None]
    entry = await box.entry(mine.entry.id)
    assert (entry.state, entry.attempts, entry.calls) == (State.PLANNED, 0, 0)


async def test_the_first_of_several_used_up_budgets_is_named(box):
    answer = await permit(box, await claim(box), charge(DAY, 1), charge(MONTH, 0), charge(OF_RULE, 0))
    assert answer.window == 1


async def test_a_call_that_may_have_run_keeps_its_credit(box):
    for number, options in enumerate(({"ambiguous": True, "failed": True}, {})):
        mine = await claim(box, number)
        await permit(box, mine, charge(limit=9))
        await box.ledger.postpone(
            mine.entry, Postponement(reason="", **options), fence=mine.fence, charges=[charge(limit=9)]
        )
    mine = await claim(box, 2)
    await permit(box, mine, charge(limit=9))
    await box.settle(mine)
    assert await spent(box, DAY) == [3]


async def give_back(box, mine, way, charges):
    if way == "settle":
        return await box.ledger.settle(mine, Settlement(state=State.GONE, uncalled=True), charges=charges)
    then = Postponement(reason="", uncalled=True, unattempted=True)
    return await box.ledger.postpone(mine.entry, then, fence=mine.fence, charges=charges)


@pytest.mark.usefixtures("_same_job")
@pytest.mark.parametrize("way", ["settle", "postpone"])
async def test_a_call_that_did_not_run_gives_its_credits_back_exactly_once(box, way):
    charges = [charge(DAY, 5), charge(MONTH, 5)]
    mine = await claim(box, 1)
    await permit(box, await claim(box, 0), *charges)
    await permit(box, mine, *charges)
    assert await give_back(box, mine, way, charges)
    assert await give_back(box, mine, way, charges), "its answer was lost, and it is asked once more"
    assert await spent(box, DAY, MONTH) == [1, 1]
    assert (await box.entry(mine.entry.id)).calls == 0


@pytest.mark.parametrize("way", ["settle", "postpone"])
async def test_who_was_fenced_out_gives_nothing_back(box, way):
    mine = await claim(box)
    await permit(box, mine, charge())
    await box.let_lease_run_out(mine.entry.id)
    await box.claim(mine.entry.id)
    assert not await give_back(box, mine, way, [charge()])
    assert await spent(box, DAY) == [1]


@pytest.mark.parametrize("way", ["settle", "postpone"])
async def test_who_was_given_no_leave_gives_nothing_back(box, way):
    """As a worker does that is stopped while it asks: it cannot know."""
    await permit(box, await claim(box, 1), charge())
    mine = await claim(box, 2)
    assert (await permit(box, mine, charge())).verdict == "exhausted"
    assert await give_back(box, mine, way, [charge()])
    entry = await box.entry(mine.entry.id)
    assert await spent(box, DAY) == [1]
    assert (entry.calls, entry.attempts) == (0, 0)


@pytest.mark.parametrize("way", ["settle", "postpone"])
async def test_an_earlier_execution_s_credit_stays_reserved(box, way):
    first = await claim(box)
    await permit(box, first, charge(limit=5))
    await box.postpone(first, ambiguous=True)
    second = await box.claim(first.entry.id)
    assert await give_back(box, second, way, [charge(limit=5)])
    assert await spent(box, DAY) == [1]
    assert (await box.entry(first.entry.id)).calls == 1


@pytest.mark.parametrize("way", ["settle", "postpone"])
@pytest.mark.parametrize(("left", "after"), [(None, None), (0, 0)])
async def test_no_counter_falls_below_zero_and_none_that_is_gone_comes_back(box, way, left, after):
    mine = await claim(box)
    await permit(box, mine, charge())
    await box.redis.delete(DAY)
    if left is not None:
        await box.redis.set(DAY, left)
    await give_back(box, mine, way, [charge()])
    assert await spent(box, DAY) == [after]


async def test_a_credit_is_reserved_once_although_leave_is_asked_for_again(box):
    mine = await claim(box)
    first = await permit(box, mine, charge())
    assert await permit(box, mine, charge()) == first
    assert await spent(box, DAY) == [1]


async def everything(redis):
    """All that Redis holds."""
    return {name: await redis.dump(name) for name in await redis.keys()}


@pytest.mark.parametrize(
    ("hindrance", "verdict"),
    [
        (None, "go"),
        ("halt", "halted"),
        ("park", "parked"),
        ("breaker", "broken"),
        ("budget", "exhausted"),
        ("fence", "fenced"),
    ],
)
async def test_only_asking_gets_the_same_answer_and_changes_nothing(box, hindrance, verdict):
    mine = await claim(box)
    match hindrance:
        case "halt":
            await box.ledger.brakes.halt(reason="because", kind="person")
        case "park":
            await box.ledger.brakes.park("enrich", seconds=60)
        case "breaker":
            until_ms = await box.now_ms() + 60_000
            await box.redis.hset(keys.breaker("cf_0"), "until_ms", until_ms)
        case "fence":
            await box.let_lease_run_out(mine.entry.id)
            await box.claim(mine.entry.id)
    charges = [charge(limit=0 if hindrance == "budget" else 1)]
    before = await everything(box.redis)
    assert (await permit(box, mine, *charges, only_ask=True)).verdict == verdict
    assert await everything(box.redis) == before
    assert (await permit(box, mine, *charges)).verdict == verdict


async def test_many_workers_at_once_never_exceed_a_budget(box):
    """Six workers, 2,000 entries, a budget of 500; some calls turn out not to have run."""
    entries, limit, refusals = 2000, 500, 60
    charges = [charge(limit=limit), charge(MONTH, 10_000)]
    items = [wanted(f"cf_{number}") for number in range(entries)]
    for start in range(0, entries, 500):
        await box.accepter.accept(event(f"ev_{start}"), items[start : start + 500])
    todo = [id_of(item.target.field_id) for item in items]
    calls: set[str] = set()
    refused = 0
    most = 0

    async def work(name):
        nonlocal refused, most
        while todo:
            one = todo.pop()
            entry = await box.entry(one)
            mine = await box.ledger.begin(entry.job_id, one, holder=f"{name}/{one}")
            assert isinstance(mine, Claim)
            if (await permit(box, mine, *charges)).verdict != "go":
                continue
            calls.add(one)
            most = max(most, len(calls))
            if refused < refusals:
                # Close said no: its credit goes to another
                refused += 1
                await give_back(box, mine, "settle", charges)
                calls.discard(one)
            else:
                await box.settle(mine)

    await asyncio.gather(*(work(f"w{number}") for number in range(6)))
    assert (most, len(calls), refused) == (limit, limit, refusals)
    assert await spent(box, DAY, MONTH) == [limit, limit]
    assert await box.counts() == {
        State.PLANNED: entries - limit - refusals,
        State.FILLED: limit,
        State.GONE: refusals,
    }


# The breaker

POLICY = BreakerPolicy(most_timeouts=3, first_pause_seconds=60.0, longest_pause_seconds=200.0)


@pytest.fixture
def breaking(async_redis):
    box = LedgerBox(async_redis)
    box.ledger = Ledger(async_redis, breaker=POLICY)
    return box


async def time_out(box, number, *, field_id=FIELD):
    """A call of this field for another lead takes too long."""
    mine = await box.calling((await box.plan(object_id=f"lead_{number}", field_id=field_id)).id)
    await box.postpone(mine, ambiguous=True, failed=True, timed_out=True, delay_seconds=5)
    return mine


async def ask_for_field(box, number, *, field_id=FIELD, **options):
    mine = await box.claim((await box.plan(object_id=f"lead_{number}", field_id=field_id)).id)
    return mine, await permit(box, mine, **options)


async def let_pause_end(box, *, field_id=FIELD):
    await box.redis.hset(keys.breaker(field_id), "until_ms", await box.now_ms() - 1)


async def test_a_field_that_keeps_timing_out_is_left_alone_and_says_so(breaking):
    for number in range(POLICY.most_timeouts):
        assert await breaking.ledger.brakes.open_breakers() == []
        assert (await ask_for_field(breaking, 10 + number))[1].verdict == "go"
        await time_out(breaking, number)
    mine, answer = await ask_for_field(breaking, 20)
    assert answer.verdict == "broken"
    assert 60 - SLACK_MS / 1000 < answer.wait_seconds <= 60
    assert (await breaking.entry(mine.entry.id)).attempts == 0
    (found,) = await breaking.ledger.brakes.open_breakers()
    assert (found.field_id, found.field_name, found.rule, found.timeouts) == (
        FIELD,
        "Industry",
        "Industry",
        3,
    )
    assert 0 <= await breaking.now_ms() + 60_000 - found.until_ms < SLACK_MS


async def test_calls_that_were_under_way_when_the_pause_began_do_not_make_it_longer(breaking):
    under_way = [
        await breaking.calling((await breaking.plan(object_id=f"lead_{number}")).id) for number in range(8)
    ]
    for mine in under_way:
        await breaking.postpone(mine, ambiguous=True, timed_out=True)
    (found,) = await breaking.ledger.brakes.open_breakers()
    assert found.timeouts == 8
    assert found.until_ms - await breaking.now_ms() <= 60_000

    await let_pause_end(breaking)
    late = await breaking.claim(under_way[0].entry.id)
    assert (await permit(breaking, late)).verdict == "go"
    await breaking.postpone(late, ambiguous=True, timed_out=True)
    (found,) = await breaking.ledger.brakes.open_breakers()
    assert 120_000 - SLACK_MS < found.until_ms - await breaking.now_ms() <= 120_000, "it was the trial"


async def test_a_pause_that_a_person_ends_lets_one_call_go_and_the_others_wait_for_it(breaking):
    for number in range(POLICY.most_timeouts):
        await time_out(breaking, number)
    waiting = [
        await breaking.claim((await breaking.plan(object_id=f"lead_{number}")).id) for number in range(20, 25)
    ]
    assert [(await permit(breaking, one)).verdict for one in waiting] == ["broken"] * 5
    (paused,) = await breaking.ledger.brakes.open_breakers()

    assert await breaking.ledger.brakes.end_pause(FIELD) == paused.until_ms
    (found,) = await breaking.ledger.brakes.open_breakers()
    assert found.until_ms <= await breaking.now_ms()
    assert await breaking.ledger.brakes.end_pause(FIELD) is None, "it is over already"
    answers = await asyncio.gather(*(permit(breaking, one, trial_seconds=30) for one in waiting))
    assert sorted(one.verdict for one in answers) == ["broken"] * 4 + ["go"]
    before = await everything(breaking.redis)
    assert await breaking.ledger.brakes.end_pause(FIELD) is None, "a call is on trial"
    assert await everything(breaking.redis) == before


@pytest.mark.parametrize("timeouts", [0, 1])
async def test_a_breaker_that_is_closed_is_not_opened_by_ending_a_pause(breaking, timeouts):
    for number in range(timeouts):
        await time_out(breaking, number)
    before = await everything(breaking.redis)
    assert not await try_field(breaking.ledger, FIELD, looks=500)
    assert await everything(breaking.redis) == before
    assert await breaking.ledger.brakes.open_breakers() == []
    assert (await ask_for_field(breaking, 20))[1].verdict == "go"


async def test_the_first_that_waits_for_the_end_of_a_pause_runs_at_once_when_a_person_ends_it(
    breaking, monkeypatch
):
    monkeypatch.setattr("service.trial.PAGE", 2)
    for number in range(POLICY.most_timeouts):
        await time_out(breaking, number)
    (paused,) = await breaking.ledger.brakes.open_breakers()
    delay_seconds = (paused.until_ms - await breaking.now_ms()) / 1000
    waiting = []
    for number, (field_id, more_seconds) in enumerate(
        [(FIELD, 30), (FIELD, 9), ("cf_other", 5), ("cf_other", 6), ("cf_other", 7)]
    ):
        mine = await breaking.claim((await breaking.plan(object_id=f"lead_2{number}", field_id=field_id)).id)
        await breaking.postpone(mine, delay_seconds=delay_seconds + more_seconds)
        waiting.append(await breaking.entry(mine.entry.id))
    first = waiting[1]
    queue = jobs.queue_key(first.queue)
    await breaking.redis.delete(queue)

    assert await try_field(breaking.ledger, FIELD, looks=500)
    assert await breaking.redis.lrange(queue, 0, -1) == [first.job_id.encode()]
    assert not await try_field(breaking.ledger, FIELD, looks=500)
    assert await breaking.redis.llen(queue) == 1


async def test_other_fields_go_on(breaking):
    for number in range(POLICY.most_timeouts):
        await time_out(breaking, number)
    assert (await ask_for_field(breaking, 20, field_id="cf_other"))[1].verdict == "go"


async def test_one_call_at_a_time_tries_a_field_whose_pause_is_over(breaking):
    for number in range(POLICY.most_timeouts):
        await time_out(breaking, number)
    await let_pause_end(breaking)
    waiting = [
        await breaking.claim((await breaking.plan(object_id=f"lead_{number}")).id) for number in range(20, 25)
    ]
    answers = await asyncio.gather(*(permit(breaking, one, trial_seconds=30) for one in waiting))
    verdicts = [one.verdict for one in answers]
    assert sorted(verdicts) == ["broken"] * 4 + ["go"]
    waits = [one.wait_seconds for one in answers if one.verdict == "broken"]
    assert all(30 - SLACK_MS / 1000 < one <= 30 for one in waits)
    trial = waiting[verdicts.index("go")]
    assert (await permit(breaking, trial, trial_seconds=30)).verdict == "go", "the same question once more"


async def test_a_trial_nobody_came_back_from_is_followed_by_another(breaking):
    for number in range(POLICY.most_timeouts):
        await time_out(breaking, number)
    await let_pause_end(breaking)
    assert (await ask_for_field(breaking, 20))[1].verdict == "go"
    await let_pause_end(breaking)
    assert (await ask_for_field(breaking, 21))[1].verdict == "go"


async def test_the_pause_doubles_up_to_the_longest(breaking):
    for number in range(POLICY.most_timeouts - 1):
        await time_out(breaking, number)
    for number, pause_ms in enumerate([60_000, 120_000, 200_000, 200_000, 200_000], start=10):
        before = await breaking.now_ms()
        await time_out(breaking, number)
        after = await breaking.now_ms()
        (found,) = await breaking.ledger.brakes.open_breakers()
        assert before + pause_ms <= found.until_ms <= after + pause_ms
        await let_pause_end(breaking)


@pytest.mark.parametrize("state", [State.FILLED, State.EMPTY, State.GONE, State.REJECTED])
async def test_any_answer_of_close_closes_it(breaking, state):
    for number in range(POLICY.most_timeouts):
        await time_out(breaking, number)
    await let_pause_end(breaking)
    mine, _ = await ask_for_field(breaking, 20)
    await breaking.settle(mine, state, answered=True)
    assert await breaking.ledger.brakes.open_breakers() == []
    for number in range(30, 30 + POLICY.most_timeouts):
        assert (await ask_for_field(breaking, 10 + number))[1].verdict == "go"
        await time_out(breaking, number)
    (found,) = await breaking.ledger.brakes.open_breakers()
    assert found.until_ms - await breaking.now_ms() <= 60_000, "the pause is the first one again"


async def test_only_timeouts_in_a_row_open_it(breaking):
    for number in range(6):
        await time_out(breaking, number)
        if number % 2:
            mine, _ = await ask_for_field(breaking, 20 + number)
            await breaking.settle(mine, State.EMPTY, answered=True)
    assert await breaking.ledger.brakes.open_breakers() == []


async def test_an_end_without_a_call_closes_nothing(breaking):
    for number in range(POLICY.most_timeouts):
        await time_out(breaking, number)
    mine, _ = await ask_for_field(breaking, 20)
    await breaking.settle(mine, State.KEPT)
    assert len(await breaking.ledger.brakes.open_breakers()) == 1


@pytest.mark.usefixtures("_same_job")
async def test_a_timeout_that_is_told_twice_counts_once(breaking):
    mine = await breaking.calling((await breaking.plan()).id)
    for _ in range(POLICY.most_timeouts):
        assert await breaking.postpone(mine, ambiguous=True, timed_out=True)
    assert await breaking.redis.hget(keys.breaker(FIELD), "timeouts") == b"1"


async def test_a_breaker_is_forgotten_when_its_field_is_not_called_any_more(breaking):
    for number in range(POLICY.most_timeouts):
        await time_out(breaking, number)
    assert 0 < await breaking.redis.pttl(keys.breaker(FIELD)) <= 2 * 200_000
    await breaking.redis.delete(keys.breaker(FIELD))
    assert await breaking.ledger.brakes.open_breakers() == []


# The price list

TODAY = dt.date(2026, 11, 23)
NOON = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC).timestamp()


@pytest.fixture
def priced(async_redis):
    """A box whose price list is of one day, whenever the test runs."""
    box = LedgerBox(async_redis)
    box.accepter = Accepter(async_redis, clock=lambda: NOON)
    box.ledger = Ledger(async_redis, clock=lambda: NOON)
    return box


async def costs(box):
    """The day's numbers that are not zero."""
    found = await read_costs(box.redis, [TODAY])
    return {(one.rule, one.field): {name: n for name, n in one.counts.items() if n} for one in found}


@pytest.mark.parametrize(
    ("state", "called", "numbers"),
    [
        (State.FILLED, True, {"calls": 1, "paid": 1, "found": 1}),
        (State.PREVIEWED, True, {"calls": 1, "paid": 1, "found": 1}),
        (State.EMPTY, True, {"calls": 1, "paid": 1, "empty": 1}),
        (State.CONFIRMED, False, {"confirmed": 1}),
        (State.KEPT, False, {"skipped": 1}),
        (State.SKIPPED, False, {"skipped": 1}),
        (State.GONE, False, {}),
        (State.HELD, True, {"calls": 1, "paid": 1}),
        (State.DEAD, True, {"calls": 1, "paid": 1}),
    ],
)
async def test_every_end_has_its_price(priced, state, called, numbers):
    entry = await priced.plan()
    await priced.settle(await (priced.calling if called else priced.claim)(entry.id), state)
    assert await costs(priced) == ({("Industry", "Industry"): numbers} if numbers else {})


@pytest.mark.parametrize("state", [State.GONE, State.REJECTED, State.DEAD])
async def test_a_call_that_did_not_run_was_made_but_not_paid(priced, state):
    await priced.settle(await priced.calling((await priced.plan()).id), state, uncalled=True)
    assert await costs(priced) == {("Industry", "Industry"): {"calls": 1}}


async def test_an_unclear_call_that_is_confirmed_was_paid_once(priced):
    entry = await priced.plan()
    await priced.postpone(await priced.calling(entry.id), ambiguous=True)
    await priced.settle(await priced.claim(entry.id), State.CONFIRMED)
    assert await costs(priced) == {("Industry", "Industry"): {"calls": 1, "paid": 1, "confirmed": 1}}


async def test_a_call_that_is_made_again_after_a_refusal_was_paid_once(priced):
    entry = await priced.plan()
    await priced.postpone(await priced.calling(entry.id), uncalled=True, failed=True)
    await priced.settle(await priced.calling(entry.id))
    assert await costs(priced) == {("Industry", "Industry"): {"calls": 2, "paid": 1, "found": 1}}


async def test_what_is_wanted_again_is_saved_money(priced):
    await priced.finished()
    assert await priced.accept() == ["duplicate"]
    assert await priced.accept(event("ev_2", action="updated"), wanted(rule="Another")) == ["duplicate"]
    found = await costs(priced)
    assert found["Industry", "Industry"]["duplicates"] == 1
    assert found["Another", "Industry"] == {"duplicates": 1}


@pytest.mark.usefixtures("_same_job")
async def test_what_is_told_twice_is_listed_once(priced):
    mine = await priced.calling((await priced.plan()).id)
    for _ in range(2):
        assert await priced.settle(mine)
    assert await costs(priced) == {("Industry", "Industry"): {"calls": 1, "paid": 1, "found": 1}}


async def test_a_run_that_an_event_follows_is_listed_too(priced):
    item = wanted(mode=Mode.OVERWRITE, reopens=True)
    await priced.accept(event(), item)
    mine = await priced.calling(id_of())
    await priced.accept(event("ev_2", action="updated"), item)
    await priced.settle(mine)
    await priced.settle(await priced.calling(id_of()), State.EMPTY)
    assert await costs(priced) == {("Industry", "Industry"): {"calls": 2, "paid": 2, "found": 1, "empty": 1}}


async def test_a_rule_s_name_may_be_anything_but_a_tab(priced):
    await priced.accept(event(), wanted(rule="Branche: größer & teurer"))
    await priced.settle(await priced.calling(id_of()))
    assert list(await costs(priced)) == [("Branche: größer & teurer", "Industry")]


async def test_days_begin_at_midnight_of_the_organization(async_redis):
    late = dt.datetime(2026, 11, 23, 23, 30, tzinfo=dt.UTC).timestamp()
    zone = ZoneInfo("Europe/Paris")
    box = LedgerBox(async_redis)
    box.accepter = Accepter(async_redis, zone=zone, clock=lambda: late)
    box.ledger = Ledger(async_redis, zone=zone, clock=lambda: late)
    await box.finished()
    await box.accept()
    assert await costs(box) == {}
    (found,) = await read_costs(async_redis, [TODAY, TODAY + dt.timedelta(days=1)])
    assert (found.day, found.counts["calls"], found.counts["duplicates"]) == ("2026-11-24", 1, 1)


async def test_a_price_list_can_be_summed_by_each_of_its_columns(priced):
    for field_id, rule in (("cf_1", "A"), ("cf_2", "A"), ("cf_3", "B")):
        await priced.finished(field_id=field_id, rule=rule)
    found = await read_costs(priced.redis, [TODAY])
    zero = dict.fromkeys(METRICS, 0)
    assert sum_by(found, "rule") == {
        "A": zero | {"calls": 2, "paid": 2, "found": 2},
        "B": zero | {"calls": 1, "paid": 1, "found": 1},
    }
    assert sum_by(found, "field") == {"Industry": zero | {"calls": 3, "paid": 3, "found": 3}}
    assert sum_by(found, "day") == {"2026-11-23": zero | {"calls": 3, "paid": 3, "found": 3}}
    with pytest.raises(AttributeError):
        sum_by(found, "colour")


# The burst guard

GUARD = Burst(most=3, within_seconds=600.0)


async def plan_leads(box, *numbers, burst=GUARD, **options):
    """One enrichment for each of these leads; the results."""
    items = [wanted(object_id=f"lead_{number}", **options) for number in numbers]
    accepted = await box.accepter.accept(event(f"ev_{numbers[0]}"), items, burst=burst)
    return [one.result for one in accepted]


def of_lead(number):
    return entry_id(organization_id=ORGANIZATION, object_id=f"lead_{number}", field_id=FIELD)


async def held_now(box):
    return {one.decode() for one in await box.redis.zrange(keys.HELD, 0, -1)}


async def let_window_pass(box, *, seconds):
    """As if the enrichments planned so far had been planned so much earlier."""
    moments = [int(one) - round(seconds * 1000) for one in await box.redis.lrange(keys.BURST, 0, -1)]
    await box.redis.delete(keys.BURST)
    await box.redis.rpush(keys.BURST, *moments)


async def test_exactly_as_many_pass_as_the_guard_allows(box):
    assert await plan_leads(box, *range(5)) == ["planned"] * 3 + ["held"] * 2
    assert await plan_leads(box, 5) == ["held"]
    assert await held_now(box) == {of_lead(3), of_lead(4), of_lead(5)}


async def test_the_window_slides(box):
    await plan_leads(box, 0, 1)
    await let_window_pass(box, seconds=400)
    assert await plan_leads(box, 2, 3) == ["planned", "held"]
    await let_window_pass(box, seconds=201)
    assert await plan_leads(box, 4, 5, 6) == ["planned", "planned", "held"]
    await let_window_pass(box, seconds=601)
    assert await plan_leads(box, 7, 8, 9, 10) == ["planned"] * 3 + ["held"]


async def test_what_was_held_stays_held_when_the_window_is_over(box):
    await plan_leads(box, *range(4))
    await let_window_pass(box, seconds=601)
    await plan_leads(box, 10)
    assert await held_now(box) == {of_lead(3)}


@pytest.mark.parametrize(("burst", "results"), [(Burst(most=0, within_seconds=1), "held"), (None, "planned")])
async def test_a_guard_may_let_nothing_pass_and_none_lets_all(box, burst, results):
    assert await plan_leads(box, *range(5), burst=burst) == [results] * 5


async def test_many_deliveries_at_once_pass_no_more_than_the_guard_allows(box):
    guard = Burst(most=100, within_seconds=600.0)
    accepters = [Accepter(box.redis) for _ in range(3)]
    found = await asyncio.gather(
        *(
            accepters[number % 3].accept(
                event(f"ev_{number}"), [wanted(object_id=f"lead_{number}")], burst=guard
            )
            for number in range(600)
        )
    )
    results = [one.result for answer in found for one in answer]
    assert (results.count("planned"), results.count("held")) == (100, 500)
    assert await box.redis.llen(keys.BURST) == 100
    assert len(await box.queued()) == 100


async def test_duplicates_do_not_count_for_the_guard(box):
    await plan_leads(box, 0)
    for _ in range(5):
        assert await plan_leads(box, 0) == ["duplicate"]
    assert await plan_leads(box, 1, 2, 3) == ["planned", "planned", "held"]


@pytest.mark.parametrize("settle_seconds", [0.0, 60.0])
async def test_a_held_enrichment_waits_without_a_job_and_is_not_swept(box, settle_seconds):
    await plan_leads(box, 0, burst=Burst(most=0, within_seconds=1), settle_seconds=settle_seconds)
    entry = await box.entry(of_lead(0))
    assert (entry.state, entry.reason) == (State.WAITING, "held by the burst guard until released")
    assert (await box.queued(), await box.scheduled()) == ([], {})
    assert not await box.redis.exists(jobs.job_key(entry.job_id))
    assert await box.score(entry.id) is None
    assert await box.counts() == {State.WAITING: 1}
    assert await plan_leads(box, 0) == ["duplicate"]


async def test_a_released_enrichment_runs(box):
    await plan_leads(box, 0, burst=Burst(most=0, within_seconds=1))
    held = await box.entry(of_lead(0))
    assert await box.ledger.postpone(held, Postponement(reason="released"), fence=held.fence)
    assert await held_now(box) == set()
    released = await box.entry(held.id)
    assert await box.queued() == [released.job_id]
    assert await box.score(held.id) is not None
    await box.settle(await box.calling(held.id))
    assert await box.counts() == {State.FILLED: 1}
    assert not await box.ledger.postpone(held, Postponement(reason="released"), fence=held.fence)


async def test_a_field_that_an_event_opens_again_is_guarded_too(box):
    entry = await box.finished()
    guard = Burst(most=0, within_seconds=1)
    (again,) = await box.accepter.accept(event("ev_2", action="updated"), [wanted(reopens=True)], burst=guard)
    assert again.result == "held"
    held = await box.entry(entry.id)
    assert held.fence > 0
    assert await box.redis.ttl(keys.entry(held.id)) == -1
    assert await box.ledger.postpone(held, Postponement(reason="released"), fence=held.fence)
    assert (await box.calling(held.id)).entry.event_id == "ev_2"


async def test_a_guard_that_is_widened_or_narrowed_keeps_what_it_knows(box):
    await plan_leads(box, *range(3))
    assert await plan_leads(box, 10, burst=Burst(most=2, within_seconds=600)) == ["held"]
    assert await plan_leads(box, 11, 12, burst=Burst(most=4, within_seconds=600)) == ["planned", "held"]
