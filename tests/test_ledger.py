"""The ledger's scripts on a real Redis, contract by contract, in the order an enrichment meets them."""

from __future__ import annotations

import asyncio

import pytest
from ledger_box import LEAD, LONG_AGO_MS, LedgerBox, event, id_of, wanted
from waiting import eventually

from service import jobs, keys
from service.accept import GRACE_MS
from service.brakes import PERSON, PROBE_INTERVAL_SECONDS, Halt
from service.enrichment import ACTIVE_STATES, ENTRY_VERSION, FINAL_STATES, RETENTION_SECONDS, State
from service.ledger import LEASE_MS, Claim, NotClaimed, Permission
from service.rules import Mode
from service.transitions import Postponement, Settlement

SLACK_MS = 5_000


@pytest.fixture
def box(async_redis):
    return LedgerBox(async_redis)


async def permit(box, claim, *, before=None, despite_halt=False):
    return await box.ledger.permit_call(claim, group="enrich", value_before=before, despite_halt=despite_halt)


async def due_in_ms(box, of_entry):
    """How long until something must have happened to an entry."""
    return await box.score(of_entry) - await box.now_ms()


# Taking in hand


async def test_an_entry_that_is_not_there_is_missing(box):
    assert await box.ledger.begin("x-1", "x", holder="w/1") == NotClaimed("missing")


async def test_taking_in_hand_hands_out_a_fence_and_a_lease(box):
    entry = await box.plan()
    claim = await box.ledger.begin(entry.job_id, entry.id, holder="w/1")
    assert claim.fence > 0
    assert (claim.entry.holder, claim.entry.fence, claim.entry.state) == ("w/1", claim.fence, State.PLANNED)
    assert 0 < await due_in_ms(box, entry.id) <= LEASE_MS


async def test_a_fence_that_a_failover_has_lost_is_not_handed_out_to_another_one(box):
    entry = await box.plan()
    replicated = await box.redis.dump(keys.entry(entry.id))
    lost = await box.claim(entry.id)
    await box.redis.restore(keys.entry(entry.id), 0, replicated, replace=True)
    await eventually(lambda: is_later(box, lost.fence))
    assert (await permit(box, lost)).verdict == "fenced"

    newest = await box.claim(entry.id)
    assert newest.fence > lost.fence
    assert (await permit(box, lost)).verdict == "fenced"
    assert (await permit(box, newest)).verdict == "go"


async def is_later(box, fence_ms):
    seconds, microseconds = await box.redis.time()
    return seconds * 1000 + microseconds // 1000 > fence_ms


async def test_a_job_that_does_not_deliver_the_entry_any_more_is_stale(box):
    entry = await box.plan()
    await box.postpone(await box.claim(entry.id))
    assert await box.ledger.begin(entry.job_id, entry.id, holder="w/2") == NotClaimed("stale")


@pytest.mark.parametrize("state", sorted(FINAL_STATES))
async def test_the_job_of_a_finished_entry_is_stale(box, state):
    entry = await box.finished(state)
    assert await box.ledger.begin(entry.job_id, entry.id, holder="w/2") == NotClaimed("stale")


async def test_an_entry_in_live_hands_is_busy_and_its_holder_undisturbed(box):
    claim = await box.claim((await box.plan()).id)
    assert await box.ledger.begin(claim.entry.job_id, claim.entry.id, holder="w/2") == NotClaimed("busy")
    assert (await permit(box, claim)).verdict == "go"


async def test_the_same_holder_asking_again_gets_the_same_claim(box):
    entry = await box.plan()
    first = await box.ledger.begin(entry.job_id, entry.id, holder="w/1")
    assert await box.ledger.begin(entry.job_id, entry.id, holder="w/1") == first


async def test_an_outdated_job_of_an_entry_that_is_a_newer_releases_by_now_is_not_kept_for_it(box):
    entry = await box.plan()
    await box.redis.hset(keys.entry(entry.id), mapping={"v": ENTRY_VERSION + 1, "job": "another"})
    assert await box.ledger.begin(entry.job_id, entry.id, holder="w/1") == NotClaimed("stale")


async def test_an_entry_of_a_newer_release_is_left_alone(box):
    entry = await box.plan()
    await box.redis.hset(keys.entry(entry.id), mapping={"v": ENTRY_VERSION + 1, "state": "unheard-of"})
    assert await box.ledger.begin(entry.job_id, entry.id, holder="w/1") == NotClaimed("newer")
    assert await box.redis.hget(keys.entry(entry.id), "fence") is None


@pytest.mark.parametrize("called", [False, True])
async def test_a_silent_workers_entry_can_be_taken_over(box, called):
    first = await (box.calling if called else box.claim)((await box.plan()).id)
    await box.let_lease_run_out(first.entry.id)
    second = await box.ledger.begin(first.entry.job_id, first.entry.id, holder="w/other")
    assert isinstance(second, Claim)
    assert second.fence > first.fence
    assert second.entry.ambiguous is called, "a call that was lost with its worker may have run"
    assert (await permit(box, first)).verdict == "fenced"
    assert not await box.postpone(first)
    assert not await box.settle(first)
    assert await box.settle(second, State.CONFIRMED)


async def test_of_many_at_once_one_gets_it(box):
    entry = await box.plan()
    answers = await asyncio.gather(
        *(box.ledger.begin(entry.job_id, entry.id, holder=f"w/{n}") for n in range(20))
    )
    assert sum(isinstance(one, Claim) for one in answers) == 1
    assert answers.count(NotClaimed("busy")) == 19


# Asking whether Close may be asked


async def test_a_permitted_call_is_written_down_before_it_leaves(box):
    claim = await box.claim((await box.plan()).id)
    before = await box.now_ms()
    assert await permit(box, claim, before='"Retail"') == Permission(verdict="go", attempt=1)
    entry = await box.entry(claim.entry.id)
    assert (entry.state, entry.attempts, entry.calls) == (State.CALLING, 1, 1)
    assert (entry.value_before, entry.ambiguous) == ('"Retail"', False)
    assert entry.called_ms is not None
    assert before <= entry.called_ms <= await box.now_ms()
    assert await box.counts() == {State.CALLING: 1}
    assert LEASE_MS - SLACK_MS < await due_in_ms(box, entry.id) <= LEASE_MS


async def test_the_same_question_once_more_gets_the_same_answer(box):
    claim = await box.claim((await box.plan()).id)
    first = await permit(box, claim)
    assert await permit(box, claim) == first
    entry = await box.entry(claim.entry.id)
    assert (entry.attempts, entry.calls) == (1, 1)


async def test_a_settled_claim_can_not_call(box):
    claim = await box.calling((await box.plan()).id)
    await box.settle(claim)
    assert (await permit(box, claim)).verdict == "fenced"


async def test_a_postponed_claim_can_not_call(box):
    claim = await box.calling((await box.plan()).id)
    await box.postpone(claim)
    assert (await permit(box, claim)).verdict == "fenced"
    assert (await box.entry(claim.entry.id)).state is State.WAITING


async def test_a_parked_group_says_for_how_long(box):
    claim = await box.claim((await box.plan()).id)
    await box.ledger.brakes.park("enrich", seconds=30)
    permission = await permit(box, claim)
    assert permission.verdict == "parked"
    assert 30 - SLACK_MS / 1000 < permission.wait_seconds <= 30
    assert (await box.entry(claim.entry.id)).attempts == 0
    await box.redis.delete(keys.park("enrich"))
    assert (await permit(box, claim)).verdict == "go"


async def test_another_groups_parking_stops_nobody(box):
    await box.ledger.brakes.park("read", seconds=30)
    assert (await permit(box, await box.claim((await box.plan()).id))).verdict == "go"


async def test_a_halt_stops_a_call_but_not_a_trial(box):
    claim = await box.claim((await box.plan()).id)
    await box.ledger.brakes.halt(reason="no credits", kind="credits")
    assert await permit(box, claim) == Permission(verdict="halted")
    assert (await permit(box, claim, despite_halt=True)).verdict == "go"


async def test_a_trial_keeps_to_close_s_pace(box):
    claim = await box.claim((await box.plan()).id)
    await box.ledger.brakes.halt(reason="no credits", kind="credits")
    await box.ledger.brakes.park("enrich", seconds=30)
    assert (await permit(box, claim, despite_halt=True)).verdict == "parked"


@pytest.mark.parametrize(("first", "second", "left"), [(30, 10, 30), (10, 30, 30)])
async def test_the_longer_parking_stays(box, first, second, left):
    await box.ledger.brakes.park("enrich", seconds=first)
    await box.ledger.brakes.park("enrich", seconds=second)
    assert left - SLACK_MS / 1000 < await box.redis.pttl(keys.park("enrich")) / 1000 <= left


async def test_a_parking_of_no_time_still_ends(box):
    await box.ledger.brakes.park("enrich", seconds=0)
    assert await box.redis.pttl(keys.park("enrich")) != -1


# Ending


@pytest.mark.parametrize("state", sorted(FINAL_STATES))
async def test_an_end_is_written_down_with_what_close_said(box, state):
    claim = await box.calling((await box.plan()).id)
    kept = await box.settle(
        claim, state, reason="so it is", value={"a": ["ü"]}, confidence="high", reasoning="y"
    )
    entry = await box.entry(claim.entry.id)
    assert kept
    assert (entry.state, entry.reason) == (state, "so it is")
    assert (entry.value, entry.confidence, entry.reasoning) == ({"a": ["ü"]}, "high", "y")
    assert (entry.holder, entry.due_ms, entry.ended_ms) == ("", None, entry.changed_ms)
    assert await box.counts() == {state: 1}
    assert await box.score(entry.id) is None
    for name in (keys.entry(entry.id), keys.story(entry.id), keys.object_entries(LEAD)):
        assert RETENTION_SECONDS - 60 < await box.redis.ttl(name) <= RETENTION_SECONDS


@pytest.mark.parametrize("state", sorted(ACTIVE_STATES))
async def test_an_enrichment_can_not_end_unfinished(box, state):
    claim = await box.claim((await box.plan()).id)
    with pytest.raises(ValueError, match=f"cannot end as {state}"):
        await box.ledger.settle(claim, Settlement(state=state))


async def test_a_call_that_did_not_run_is_not_on_the_account(box):
    claim = await box.calling((await box.plan()).id)
    await box.settle(claim, State.GONE, uncalled=True)
    entry = await box.entry(claim.entry.id)
    assert (entry.calls, entry.attempts) == (0, 1)


async def test_who_settles_again_because_the_answer_was_lost_hears_the_same(box):
    claim = await box.calling((await box.plan()).id)
    assert await box.settle(claim)
    assert await box.settle(claim)
    assert await box.counts() == {State.FILLED: 1}
    assert [fact["state"] for fact in await box.ledger.story(claim.entry.id)] == ["calling", "filled"]


async def test_who_comes_late_to_an_entry_that_another_has_settled_changes_nothing(box):
    late = await box.calling((await box.plan()).id)
    await box.let_lease_run_out(late.entry.id)
    await box.settle(await box.claim(late.entry.id), State.CONFIRMED)
    settled = await box.entry(late.entry.id)
    assert not await box.settle(late, State.EMPTY, uncalled=True)
    assert await box.entry(late.entry.id) == settled


async def test_the_story_of_an_enrichment_is_told_in_order(box):
    entry = await box.plan()
    await box.postpone(await box.calling(entry.id), reason="no answer", ambiguous=True, delay_seconds=2)
    await box.settle(await box.claim(entry.id), State.CONFIRMED, reason="read back")
    story = await box.ledger.story(entry.id)
    assert [(fact["state"], fact.get("reason"), fact.get("attempt")) for fact in story] == [
        ("calling", None, 1),
        ("waiting", "no answer", None),
        ("confirmed", "read back", None),
    ]
    assert story[1]["delay_ms"] == 2000
    assert [fact["at"] for fact in story] == sorted(fact["at"] for fact in story)
    assert await box.redis.xlen(keys.HISTORY) == 1 + len(story)


async def test_what_an_earlier_run_found_does_not_stay_with_a_later_one(box):
    item = wanted(mode=Mode.OVERWRITE, reopens=True)
    await box.accept(event(), item)
    claim = await box.calling(id_of())
    await box.accept(event("ev_2", action="updated"), item)
    await box.settle(claim, value="Retail", confidence="high", reasoning="it sells shoes")
    await box.settle(await box.calling(id_of()), State.EMPTY)
    entry = await box.entry(id_of())
    assert (entry.value, entry.confidence, entry.reasoning) == (None, None, None)


async def test_an_entry_that_runs_once_more_has_a_job_and_a_story(box, monkeypatch):
    monkeypatch.setattr("service.ledger.new_job_id", lambda of_entry, **_: f"{of_entry}-same")
    item = wanted(mode=Mode.OVERWRITE, reopens=True)
    await box.accept(event(), item)
    claim = await box.calling(id_of())
    await box.accept(event("ev_2", action="updated"), item)
    assert await box.settle(claim)
    assert await box.settle(claim), "asked once more because the answer was lost"
    entry = await box.entry(id_of())
    assert (await box.queued())[-1] == entry.job_id
    assert len(await box.queued()) == 2, "the first job's id was never popped in this test"
    assert GRACE_MS - SLACK_MS < await due_in_ms(box, entry.id) <= GRACE_MS
    assert await box.redis.ttl(keys.entry(entry.id)) == -1
    assert [fact["state"] for fact in await box.ledger.story(entry.id)] == ["calling", "filled", "planned"]


# Putting back


async def test_what_is_put_back_waits_with_a_new_job(box):
    claim = await box.calling((await box.plan()).id)
    assert await box.postpone(claim, reason="later", delay_seconds=7.5)
    entry = await box.entry(claim.entry.id)
    assert (entry.state, entry.reason, entry.holder) == (State.WAITING, "later", "")
    assert entry.job_id != claim.entry.job_id
    assert entry.due_ms == entry.changed_ms + 7_500
    assert await box.scheduled() == {entry.job_id: entry.due_ms / 1000}
    assert await box.score(entry.id) == entry.due_ms + GRACE_MS
    assert await box.counts() == {State.WAITING: 1}


async def test_what_is_put_back_for_now_is_queued(box):
    claim = await box.calling((await box.plan()).id)
    await box.postpone(claim)
    entry = await box.entry(claim.entry.id)
    assert await box.scheduled() == {}
    assert (await box.queued())[-1] == entry.job_id
    await box.postpone(await box.claim(entry.id), front=True)
    assert (await box.queued())[0] == (await box.entry(entry.id)).job_id


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ({}, {}),
        ({"ambiguous": True}, {"ambiguous": True}),
        ({"uncalled": True}, {"calls": 0}),
        ({"uncalled": True, "unattempted": True}, {"calls": 0, "attempts": 0}),
        ({"failed": True}, {"failures": 1}),
    ],
    ids=lambda value: " ".join(value) or "plain",
)
async def test_putting_back_counts_what_it_says(box, options, changed):
    claim = await box.calling((await box.plan()).id)
    await box.postpone(claim, **options)
    entry = await box.entry(claim.entry.id)
    counted = {name: getattr(entry, name) for name in ("ambiguous", "calls", "attempts", "failures")}
    assert counted == {"ambiguous": False, "calls": 1, "attempts": 1, "failures": 0, **changed}


async def test_an_unclear_end_is_remembered_until_the_next_call(box):
    entry = await box.plan()
    await box.postpone(await box.calling(entry.id), ambiguous=True)
    await box.postpone(await box.claim(entry.id))
    assert (await box.entry(entry.id)).ambiguous
    await box.calling(entry.id)
    assert not (await box.entry(entry.id)).ambiguous


async def test_since_when_close_is_away_is_remembered_until_it_answers(box):
    entry = await box.plan()
    await box.postpone(await box.calling(entry.id), unreachable=True, failed=True)
    first = (await box.entry(entry.id)).unreachable_ms
    assert first is not None
    await box.postpone(await box.claim(entry.id), unreachable=True, failed=True)
    assert (await box.entry(entry.id)).unreachable_ms == first
    await box.postpone(await box.claim(entry.id))
    assert (await box.entry(entry.id)).unreachable_ms is None


async def test_failures_are_forgotten_with_the_end(box):
    item = wanted(reopens=True)
    await box.accept(event(), item)
    await box.postpone(await box.calling(id_of()), failed=True)
    await box.settle(await box.claim(id_of()), State.EMPTY)
    await box.accept(event("ev_2", action="updated"), item)
    assert (await box.entry(id_of())).failures == 0


async def test_who_puts_back_again_because_the_answer_was_lost_changes_nothing(box, monkeypatch):
    monkeypatch.setattr("service.ledger.new_job_id", lambda of_entry, **_: f"{of_entry}-same")
    claim = await box.calling((await box.plan()).id)
    assert await box.postpone(claim, uncalled=True, failed=True)
    once = await box.entry(claim.entry.id)
    assert await box.postpone(claim, uncalled=True, failed=True)
    assert await box.entry(claim.entry.id) == once
    assert (await box.queued()).count(once.job_id) == 1


@pytest.mark.parametrize(
    ("blockers", "waits"),
    [
        (["finished"], False),
        (["missing"], False),
        (["active"], True),
        (["finished", "active"], True),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
async def test_what_waits_for_others_runs_at_once_when_they_have_ended(box, blockers, waits):
    made = {
        "finished": await box.finished(field_id="cf_finished"),
        "active": await box.plan(field_id="cf_active"),
    }
    claim = await box.claim((await box.plan()).id)
    ids = tuple(made[one].id if one in made else "x" for one in blockers)
    await box.postpone(claim, blocked_by=ids, delay_seconds=60)
    entry = await box.entry(claim.entry.id)
    assert entry.blocked is waits
    assert (entry.job_id in await box.scheduled()) is waits
    assert (entry.job_id in await box.queued()) is not waits


async def test_a_finished_entry_is_not_put_back(box):
    entry = await box.finished()
    then = Postponement(reason="too late")
    assert not await box.ledger.postpone(entry, then, fence=entry.fence)
    assert (await box.entry(entry.id)).state is State.FILLED


@pytest.mark.parametrize(
    ("overdue_seconds", "put_back"), [(0.0, True), (3600.0, True), (100 * 365 * 86400.0, False)]
)
async def test_the_sweeper_puts_back_only_what_is_overdue_for_so_long(box, overdue_seconds, put_back):
    entry = await box.plan()
    then = Postponement(reason="lost", overdue_seconds=overdue_seconds)
    assert not await box.ledger.postpone(entry, then, fence=0)
    await box.let_lease_run_out(entry.id)
    assert await box.ledger.postpone(entry, then, fence=0) is put_back


async def test_the_sweeper_comes_too_late_for_what_somebody_took_in_hand_meanwhile(box):
    seen = await box.plan()
    await box.let_lease_run_out(seen.id)
    claim = await box.claim(seen.id)
    then = Postponement(reason="lost", overdue_seconds=0.0)
    assert not await box.ledger.postpone(seen, then, fence=seen.fence)
    assert (await permit(box, claim)).verdict == "go"


async def test_the_sweeper_comes_too_late_for_what_came_back_to_life(box):
    claim = await box.calling((await box.plan()).id)
    await box.let_lease_run_out(claim.entry.id)
    seen = await box.entry(claim.entry.id)
    assert await box.ledger.heartbeat({seen.id: claim.fence}) == []
    then = Postponement(reason="lost", overdue_seconds=0.0, ambiguous=True)
    assert not await box.ledger.postpone(seen, then, fence=seen.fence)
    assert await box.settle(claim)


# Waking, promoting, staying alive


async def test_what_waits_for_others_is_woken(box):
    other = await box.plan(field_id="cf_other")
    entry = await box.plan()
    await box.postpone(await box.claim(entry.id), blocked_by=(other.id,), delay_seconds=60)
    assert await box.ledger.wake(entry.id)
    assert await box.scheduled() == {}
    assert (await box.queued())[-1] == (await box.entry(entry.id)).job_id
    assert not await box.ledger.wake(entry.id), "it has been woken already"


async def test_what_waits_for_something_else_is_not_woken(box):
    settling = await box.plan(settle_seconds=60)
    planned = await box.plan(field_id="cf_planned")
    assert not await box.ledger.wake(settling.id)
    assert not await box.ledger.wake(planned.id)
    assert not await box.ledger.wake("x")
    assert list(await box.scheduled()) == [settling.job_id]


async def test_promoting_leaves_alone_what_others_moved_and_drops_what_has_no_job(box):
    a = await box.plan(field_id="cf_a", settle_seconds=60)
    b = await box.plan(field_id="cf_b", settle_seconds=60)
    await box.redis.delete(jobs.job_key(b.job_id))
    assert await box.ledger.promote(jobs.LIVE_QUEUE, [a.job_id, b.job_id]) == 1
    assert await box.ledger.promote(jobs.LIVE_QUEUE, [a.job_id, b.job_id]) == 0
    assert await box.queued() == [a.job_id]
    assert await box.scheduled() == {}


async def test_a_heartbeat_prolongs_leases_and_names_what_is_lost(box):
    mine = await box.calling((await box.plan(field_id="cf_mine")).id)
    lost = await box.calling((await box.plan(field_id="cf_lost")).id)
    gone = await box.calling((await box.plan(field_id="cf_gone")).id)
    for claim in (mine, lost):
        await box.let_lease_run_out(claim.entry.id)
    await box.claim(lost.entry.id)
    await box.settle(gone)
    before = await box.score(lost.entry.id)
    fences = {claim.entry.id: claim.fence for claim in (mine, lost, gone)}
    assert set(await box.ledger.heartbeat(fences)) == {lost.entry.id, gone.entry.id}
    assert LEASE_MS - SLACK_MS < await due_in_ms(box, mine.entry.id) <= LEASE_MS
    assert await box.score(lost.entry.id) == before
    assert await box.score(gone.entry.id) is None


async def test_a_heartbeat_with_empty_hands_asks_nothing(box):
    assert await box.ledger.heartbeat({}) == []


async def test_looking_later_moves_only_what_is_overdue(box):
    entry = await box.plan()
    await box.let_lease_run_out(entry.id)
    await box.ledger.look_later(entry.id)
    assert GRACE_MS - SLACK_MS < await due_in_ms(box, entry.id) <= GRACE_MS
    await box.let_lease_run_out(entry.id)
    claim = await box.claim(entry.id)
    await box.ledger.look_later(entry.id)
    assert await due_in_ms(box, entry.id) <= LEASE_MS, "whoever took it in hand meanwhile has a short lease"
    await box.settle(claim)
    await box.ledger.look_later(entry.id)
    assert await box.score(entry.id) is None


# Halting all calls


async def test_a_halt_says_why_and_since_when(box):
    before = await box.now_ms()
    assert await box.ledger.brakes.halted() is None
    assert await box.ledger.brakes.halt(reason="the key was refused", kind="key")
    halt = await box.ledger.brakes.halted()
    assert (halt.reason, halt.kind) == ("the key was refused", "key")
    assert before <= halt.since_ms <= await box.now_ms()


@pytest.mark.parametrize(
    ("first", "second", "changed", "stays"),
    [
        ("key", "key", False, "key"),
        ("key", "credits", False, "key"),
        ("key", PERSON, True, PERSON),
        (PERSON, "key", False, PERSON),
        (PERSON, PERSON, False, PERSON),
    ],
)
async def test_the_first_halt_stays_unless_a_person_halts(box, first, second, changed, stays):
    await box.ledger.brakes.halt(reason=f"first {first}", kind=first)
    assert await box.ledger.brakes.halt(reason=f"second {second}", kind=second) is changed
    assert (await box.ledger.brakes.halted()).kind == stays
    assert (await box.ledger.brakes.halted()).reason == (f"second {second}" if changed else f"first {first}")


@pytest.mark.parametrize(
    ("kind", "automatic_only", "lifted"),
    [
        ("key", True, True),
        ("key", False, True),
        (PERSON, True, False),
        (PERSON, False, True),
        (None, True, False),
    ],
)
async def test_only_a_person_lifts_a_person_s_halt(box, kind, automatic_only, lifted):
    if kind is not None:
        await box.ledger.brakes.halt(reason="because", kind=kind)
    assert await box.ledger.brakes.resume(automatic_only=automatic_only) is lifted
    assert (await box.ledger.brakes.halted() is None) is (lifted or kind is None)


async def test_one_trial_is_made_in_each_interval(box):
    assert not await box.ledger.brakes.may_try(), "nothing is halted"
    await box.ledger.brakes.halt(reason="no credits", kind="credits")
    assert not await box.ledger.brakes.may_try(), "it has just been found out"
    assert PROBE_INTERVAL_SECONDS - 5 < await box.redis.ttl(keys.PROBE) <= PROBE_INTERVAL_SECONDS
    await box.ledger.brakes.try_soon()
    assert sorted(await asyncio.gather(*(box.ledger.brakes.may_try() for _ in range(5)))) == [False] * 4 + [
        True
    ]


async def test_a_person_s_halt_is_not_tried(box):
    await box.ledger.brakes.halt(reason="switched off", kind=PERSON)
    await box.ledger.brakes.try_soon()
    assert not await box.ledger.brakes.may_try()


async def test_a_halt_that_lost_its_details_still_halts(box):
    await box.redis.hset(keys.HALT, "kind", "key")
    assert await box.ledger.brakes.halted() == Halt(reason="", kind="key", since_ms=0)


# Looking


async def test_a_record_s_enrichments_are_listed_oldest_first(box):
    for field_id in ("cf_c", "cf_a", "cf_b"):
        entry = await box.plan(field_id=field_id)
        await box.redis.hset(keys.entry(entry.id), "planned_ms", LONG_AGO_MS + ord(field_id[-1]))
    assert [entry.field_id for entry in await box.ledger.entries_of(LEAD)] == ["cf_a", "cf_b", "cf_c"]
    assert await box.ledger.entries_of("lead_unknown") == []


async def test_counts_name_every_state(box):
    await box.plan(field_id="cf_a", settle_seconds=5)
    await box.finished(State.EMPTY, field_id="cf_b")
    counts = await box.ledger.counts()
    assert counts == {**dict.fromkeys(State, 0), State.WAITING: 1, State.EMPTY: 1}


async def test_entries_that_do_not_exist_are_left_out(box):
    entry = await box.plan()
    assert await box.ledger.entries(["x", entry.id, "y"]) == [entry]
    assert await box.ledger.entry("x") is None
