"""Dead letters: which ones are meant, and that retrying and dropping loses nothing and does nothing twice."""

from __future__ import annotations

import asyncio

import pytest
from entries import NOW_MS, make_entry
from ledger_box import LEAD, LedgerBox, event, id_of, wanted

from service import dead_letters, jobs, keys
from service.dead_letter_filter import Group, Place, Wanted, groups
from service.dead_letters import DROPPED, RETRIED, DeadLetters
from service.enrichment import FINAL_STATES, NEEDS_A_PERSON, RETENTION_SECONDS, State
from service.rules import Mode

HOUR_MS = 3_600_000
EVERY = Wanted()


@pytest.fixture
def box(async_redis):
    return LedgerBox(async_redis)


@pytest.fixture
def letters(box):
    return DeadLetters(box.ledger)


@pytest.fixture
def small_pages(monkeypatch):
    monkeypatch.setattr(dead_letters, "PAGE", 2)


async def listed(box):
    return {
        one.decode(): score for one, score in await box.redis.zrange(keys.ATTENTION, 0, -1, withscores=True)
    }


async def ended(box, number, *, state=State.DEAD, hours_ago=0.0, **options):
    """A dead letter of a lead of its own that ended some time ago."""
    entry = await box.finished(state, object_id=f"lead_{number}", **options)
    if state in NEEDS_A_PERSON:
        ended_ms = await box.now_ms() - round(hours_ago * HOUR_MS)
        await box.redis.hset(keys.entry(entry.id), "ended_ms", ended_ms)
        await box.redis.zadd(keys.ATTENTION, {entry.id: ended_ms})
    return await box.entry(entry.id)


async def found(letters, wanted_ones=EVERY):
    """The leads' numbers of all that are wanted, in order."""
    pages = letters.find(wanted_ones, until_ms=await letters.now_ms())
    return [int(entry.object_id.removeprefix("lead_")) async for page in pages for entry in page]


# Which are meant


@pytest.mark.parametrize(
    ("wanted_ones", "takes"),
    [
        (Wanted(), True),
        (Wanted(rule="Industry"), True),
        (Wanted(rule="industry"), False),
        (Wanted(reason="TIMED out"), True),
        (Wanted(reason="refused"), False),
        (Wanted(state=State.DEAD), True),
        (Wanted(state=State.HELD), False),
        (Wanted(object_id="lead_1"), True),
        (Wanted(object_id="lead_2"), False),
        (Wanted(rule="Industry", state=State.HELD), False),
    ],
)
def test_every_filter_must_fit(wanted_ones, takes):
    assert wanted_ones.takes(make_entry(state=State.DEAD, reason="Close timed out")) is takes


@pytest.mark.parametrize("state", State)
def test_only_what_needs_a_person_is_a_dead_letter(state):
    assert EVERY.takes(make_entry(state=state)) is (state in {State.DEAD, State.HELD, State.REJECTED})


@pytest.mark.parametrize(
    ("older", "newer", "span"),
    [
        (None, None, (0, NOW_MS)),
        (3600, None, (0, NOW_MS - HOUR_MS)),
        (None, 3600, (NOW_MS - HOUR_MS, NOW_MS)),
        (3600, 7200, (NOW_MS - 2 * HOUR_MS, NOW_MS - HOUR_MS)),
    ],
)
def test_ages_are_counted_from_now(older, newer, span):
    assert Wanted(older_seconds=older, newer_seconds=newer).span_ms(now_ms=NOW_MS) == span


def test_a_place_is_read_as_it_was_written():
    place = Place(ended_ms=NOW_MS, id="a" * 20)
    assert Place.read(str(place)) == place


@pytest.mark.parametrize("written", ["", "1", "1-", "-a", "1-A", "1-a b", "x-a", "1-a\n", "\u0661-a"])
def test_what_is_no_place_is_not_read(written):
    assert Place.read(written) is None


def test_groups_have_the_most_first_and_cost_a_call_each_at_most():
    entries = [make_entry(rule=rule, state=State.DEAD) for rule in ("a", "b", "b")]
    first, second = groups(entries)
    assert first == Group(rule="b", state=State.DEAD, count=2)
    assert (second.rule, second.count, second.credits_at_most) == ("a", 1, 1)


# The list


@pytest.mark.parametrize("state", sorted(FINAL_STATES))
async def test_what_ends_without_an_answer_is_listed_by_when_it_ended(box, state):
    entry = await box.finished(state)
    assert await listed(box) == ({entry.id: entry.ended_ms} if state in NEEDS_A_PERSON else {})


async def test_a_later_event_takes_its_entry_off_the_list(box):
    entry = await box.finished(State.REJECTED)
    results = await box.accept(event("ev_2", action="updated"), wanted(reopens=True))
    assert (results, await listed(box)) == (["reopened"], {})
    assert (await box.entry(entry.id)).state is State.PLANNED


async def test_an_event_that_came_in_meanwhile_keeps_its_entry_off_the_list(box):
    entry = await box.plan()
    claim = await box.calling(entry.id)
    assert await box.accept(event("ev_2", action="updated"), wanted(reopens=True)) == ["again"]
    await box.settle(claim, State.DEAD)
    assert (await listed(box), (await box.entry(entry.id)).state) == ({}, State.PLANNED)


async def test_what_has_expired_leaves_the_list_when_the_next_one_ends(box):
    now_ms = await box.now_ms()
    await box.redis.zadd(keys.ATTENTION, {"old": now_ms - RETENTION_SECONDS * 1000 - 1, "young": now_ms})
    entry = await box.finished(State.DEAD)
    assert set(await listed(box)) == {"young", entry.id}


async def test_what_has_expired_leaves_the_list_when_it_is_met(box, letters):
    await ended(box, 1)
    await box.redis.delete(keys.entry((await ended(box, 2)).id))
    assert await letters.count() == 2
    assert (await found(letters), await letters.count()) == ([1], 1)


async def test_what_cannot_be_read_stays_and_is_passed_over(box, letters):
    entry = await ended(box, 1)
    await box.redis.hset(keys.entry(entry.id), "state", "unheard-of")
    assert (await found(letters), await letters.count()) == ([], 1)


@pytest.mark.usefixtures("small_pages")
async def test_the_newest_come_first_however_many_ended_in_the_same_millisecond(box, letters):
    for number in range(1, 8):
        await ended(box, number, hours_ago=number)
    same = await box.now_ms() - 10 * HOUR_MS
    ids = [(await ended(box, number)).id for number in range(10, 17)]
    for one in ids:
        await box.redis.zadd(keys.ATTENTION, {one: same})
    numbers = await found(letters)
    assert numbers[:7] == [1, 2, 3, 4, 5, 6, 7]
    assert sorted(numbers[7:]) == list(range(10, 17))


@pytest.mark.usefixtures("small_pages")
async def test_pages_follow_each_other_without_gap_or_repetition(box, letters):
    for number in range(1, 6):
        await ended(box, number, hours_ago=number)
    shown, after = [], None
    for _ in range(3):
        page = await letters.page(EVERY, limit=2, after=after)
        shown.append([entry.object_id for entry in page.entries])
        after = page.next
    assert shown == [["lead_1", "lead_2"], ["lead_3", "lead_4"], ["lead_5"]]
    assert after is None


@pytest.mark.parametrize(
    ("wanted_ones", "numbers"),
    [
        (Wanted(newer_seconds=5400), [1]),
        (Wanted(older_seconds=5400), [2, 3]),
        (Wanted(rule="Pitch"), [3]),
        (Wanted(state=State.HELD), [2]),
        (Wanted(object_id="lead_2"), [2]),
    ],
)
async def test_only_what_is_wanted_is_found(box, letters, wanted_ones, numbers):
    await ended(box, 1, hours_ago=1)
    await ended(box, 2, hours_ago=2, state=State.HELD)
    await ended(box, 3, hours_ago=3, rule="Pitch")
    assert await found(letters, wanted_ones) == numbers


async def test_the_tally_is_by_rule_and_state_and_stops_at_its_moment(box, letters):
    for number, state in enumerate([State.DEAD, State.DEAD, State.HELD], start=1):
        await ended(box, number, state=state, hours_ago=1)
    until_ms = await box.now_ms() - 1000
    await ended(box, 4)
    assert await letters.tally(EVERY, until_ms=until_ms) == [
        Group(rule="Industry", state=State.DEAD, count=2),
        Group(rule="Industry", state=State.HELD, count=1),
    ]


async def test_nothing_named_is_nothing_found(letters):
    assert await letters.named([]) == []


async def test_only_dead_letters_can_be_named(box, letters):
    dead = await ended(box, 1)
    fine = await ended(box, 2, state=State.FILLED)
    assert [entry.id for entry in await letters.named([fine.id, dead.id, "x"])] == [dead.id]


# Retrying


@pytest.mark.parametrize("state", sorted(NEEDS_A_PERSON))
async def test_a_retried_one_is_planned_anew_behind_live_work(box, letters, state):
    before = await ended(box, 1, state=state)
    assert await letters.retry([before]) == 1
    after = await box.entry(before.id)
    assert (after.state, after.reason, after.attempts) == (State.PLANNED, RETRIED, 0)
    assert (after.ended_ms, after.calls) == (None, before.calls)
    assert after.retried_ms is not None
    assert after.planned_ms == after.retried_ms
    assert await box.queued(jobs.BULK_QUEUE) == [after.job_id]
    assert await box.score(after.id) > await box.now_ms()
    assert (await listed(box), await box.counts()) == ({}, {State.PLANNED: 1})
    assert await box.redis.ttl(keys.entry(after.id)) == -1
    assert (await box.ledger.story(after.id))[-1]["reason"] == RETRIED
    claim = await box.claim(after.id)
    assert claim.fence > before.fence


@pytest.mark.parametrize(
    ("state", "unclear", "ambiguous"),
    [
        (State.HELD, False, True),
        (State.DEAD, True, True),
        (State.DEAD, False, False),
        (State.REJECTED, False, False),
    ],
)
async def test_a_call_that_may_have_run_is_remembered_with_what_the_field_held(
    box, letters, state, unclear, ambiguous
):
    entry = await box.plan(mode=Mode.OVERWRITE)
    claim = await box.claim(entry.id)
    await box.ledger.permit_call(claim, group="enrich", value_before='"Retail"')
    if unclear:
        await box.postpone(claim, ambiguous=True)
        claim = await box.claim(entry.id)
    await box.settle(claim, state)
    await letters.retry([await box.entry(entry.id)])
    found_again = await box.entry(entry.id)
    assert (found_again.ambiguous, found_again.value_before) == (ambiguous, '"Retail"')
    assert found_again.retried_ms >= found_again.called_ms


async def test_nothing_to_retry_or_drop_changes_nothing(letters):
    assert (await letters.retry([]), await letters.drop([])) == (0, 0)


async def test_of_two_people_each_entry_is_acted_on_by_one(box, letters):
    entries = [await ended(box, number) for number in range(20)]
    other = DeadLetters(box.ledger)
    done = await asyncio.gather(letters.retry(entries), other.retry(entries), other.drop(entries))
    assert sum(done) == 20
    assert len(await box.queued(jobs.BULK_QUEUE)) == (await box.counts()).get(State.PLANNED, 0)
    assert await listed(box) == {}


async def test_what_has_changed_since_it_was_looked_at_is_left_alone(box, letters):
    seen = await ended(box, 1)
    await letters.retry([seen])
    await box.settle(await box.claim(seen.id), State.DEAD)
    assert (await letters.retry([seen]), await letters.drop([seen])) == (0, 0)
    assert set(await listed(box)) == {seen.id}


async def test_the_same_wish_once_more_changes_nothing(box, letters, monkeypatch):
    seen = await ended(box, 1)
    monkeypatch.setattr(dead_letters, "new_job_id", lambda of_entry, **_: f"{of_entry}-{'a' * 10}")
    assert [await letters.retry([seen]), await letters.retry([seen])] == [1, 1]
    assert await box.queued(jobs.BULK_QUEUE) == [f"{seen.id}-{'a' * 10}"]


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize(("most", "done"), [(3, 3), (5, 5), (100, 5)])
async def test_no_more_than_were_agreed_to_are_retried_the_newest_first(box, letters, most, done):
    for number in range(1, 6):
        await ended(box, number, hours_ago=number)
    until_ms = await box.now_ms()
    assert await letters.all_wanted(letters.retry, EVERY, most=most, until_ms=until_ms) == done
    assert await found(letters) == list(range(done + 1, 6))


# Dropping


async def test_a_dropped_one_stays_as_it_is_and_its_story_says_who_ended_it(box, letters):
    before = await ended(box, 1, state=State.REJECTED)
    assert await letters.drop([before]) == 1
    assert (await listed(box), await box.entry(before.id)) == ({}, before)
    assert (await box.ledger.story(before.id))[-1]["reason"] == DROPPED
    assert await box.counts() == {State.REJECTED: 1}
    assert (await letters.retry([before]), await letters.drop([before])) == (0, 0)
    assert await letters.named([before.id]) == []


async def test_a_dropped_one_may_be_planned_by_a_later_event(box, letters):
    entry = await box.finished(State.DEAD)
    await letters.drop([entry])
    assert await box.accept(event("ev_2", action="updated"), wanted(reopens=True)) == ["reopened"]
    assert id_of() == entry.id
    assert entry.object_id == LEAD
