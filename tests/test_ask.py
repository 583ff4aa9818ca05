"""Asking Close: what is permitted a moment ago counts, and nothing leaves without leave."""

from __future__ import annotations

import datetime as dt
import random
import time
from types import SimpleNamespace

import msgspec
import pytest
import structlog
from ledger_box import LedgerBox

from service import keys
from service.brakes import PERSON
from service.enrichment import State
from service.knowledge import Knowledge
from service.meter import Meter
from service.rules import Budget, ObjectType, OnExhausted, Rule, RuleBook
from service.transitions import Postponement, Settlement
from workers.ask import LEAVE_LASTS_SECONDS, LOOK_LASTS_SECONDS, UNCONFIRMED_DELAY_SECONDS, ask
from workers.preflight import Ask
from workers.reply import Reply
from workers.tools import Progress, Tools

NOON = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
FOUND = b'{"value": "Retail", "confidence": "high", "reasoning": "shoes"}'


class Clock:
    def __init__(self):
        self.now = NOON

    def __call__(self):
        return round(self.now.timestamp() * 1000)

    def pass_seconds(self, seconds):
        self.now += dt.timedelta(seconds=seconds)


class Close:
    """Finds a value, however often it is asked."""

    def __init__(self):
        self.calls = 0

    async def enrich_field(self, **_):
        self.calls += 1
        return Reply(status=200, headers={"content-type": "application/json"}, body=FOUND)


class Records:
    """The record as it is when it is read: nobody has typed anything yet."""

    def __init__(self):
        self.typed = {}
        self.reads = 0

    async def read(self, **_):
        self.reads += 1
        record = {"id": "lead_1"} | self.typed
        return Reply(
            status=200, headers={"content-type": "application/json"}, body=msgspec.json.encode(record)
        )


class Pace:
    """Lets every call go after a while."""

    def __init__(self, clock):
        self.clock = clock
        self.wait_seconds = 0.0
        self.permits = 0

    async def permit(self, **_):
        self.permits += 1
        self.clock.pass_seconds(self.wait_seconds)
        return SimpleNamespace(seq=self.permits, at_ms=self.clock())

    async def heard(self, *_, **__):
        pass

    async def used(self, *_):
        pass


class Asking:
    """One enrichment in hand, and all that asking for it needs."""

    def __init__(self, redis, *, budget):
        self.box = LedgerBox(redis)
        self.clock = Clock()
        self.close = Close()
        self.pace = Pace(self.clock)
        self.records = Records()
        self.rule = Rule(name="Industry", object_type=ObjectType.LEAD, field="Industry")
        book = RuleBook(rules=(self.rule,), budget=budget)
        self.tools = Tools(
            ledger=self.box.ledger,
            api=self.close,
            records=self.records,
            pace=self.pace,
            zone=dt.UTC,
            own_api_key_id=None,
            knowledge=lambda: Knowledge.of(book, {}),
            random=random.SystemRandom(),
            now_ms=self.clock,
            log=structlog.testing.CapturingLogger(),
            meter=Meter(redis, clock=time.time, log=structlog.testing.CapturingLogger()),
            worker="w",
        )
        self.progress = Progress()

    async def ask(self):
        entry = await self.box.plan()
        self.claim = await self.box.claim(entry.id)
        return await ask(self.claim, self.rule, Ask(), self.tools, self.progress)

    async def spent(self, day):
        return int(await self.box.redis.get(keys.spent("all", day)) or 0)


@pytest.fixture
def asking(async_redis):
    return Asking(async_redis, budget=Budget(per_day=2))


async def test_leave_that_was_given_to_a_worker_paused_since_is_not_used_and_costs_nothing(asking):
    given = asking.box.ledger.permit_call

    async def paused(*arguments, only_ask, **options):
        answer = await given(*arguments, only_ask=only_ask, **options)
        asking.clock.pass_seconds(0 if only_ask else LEAVE_LASTS_SECONDS + 0.001)
        return answer

    asking.box.ledger.permit_call = paused
    then = await asking.ask()
    assert then == Postponement(
        reason="the worker was paused before the call", uncalled=True, unattempted=True
    )
    assert (asking.close.calls, asking.progress.asking) == (0, False)
    assert await asking.spent("2026-11-23") == 1
    await asking.box.ledger.postpone(
        asking.claim.entry, then, fence=asking.claim.fence, charges=asking.progress.charges
    )
    entry = await asking.box.entry(asking.claim.entry.id)
    assert (entry.attempts, entry.calls, entry.ambiguous) == (0, 0, False)
    assert await asking.spent("2026-11-23") == 0


async def test_a_call_that_no_replica_of_redis_knows_of_is_put_off_and_costs_nothing(asking):
    asking.tools.ledger._wait_replicas = 1
    then = await asking.ask()
    assert (then.uncalled, then.unattempted) == (True, True)
    assert then.delay_seconds >= UNCONFIRMED_DELAY_SECONDS
    assert (asking.close.calls, asking.progress.asking) == (0, False)
    await asking.box.ledger.postpone(
        asking.claim.entry, then, fence=asking.claim.fence, charges=asking.progress.charges
    )
    entry = await asking.box.entry(asking.claim.entry.id)
    assert (entry.attempts, entry.calls, entry.ambiguous) == (0, 0, False)
    assert await asking.spent("2026-11-23") == 0


async def test_a_call_is_charged_to_the_day_on_which_it_leaves(asking):
    asking.pace.wait_seconds = 13 * 3600
    assert (await asking.ask()).state is State.FILLED
    assert await asking.spent("2026-11-23") == 0
    assert await asking.spent("2026-11-24") == 1


async def test_what_cannot_go_does_not_use_up_the_pace(asking):
    await asking.box.ledger.brakes.halt(reason="stop", kind=PERSON)
    assert (await asking.ask()).reason == "all calls are halted"
    assert (asking.pace.permits, asking.close.calls) == (0, 0)


@pytest.mark.parametrize(
    ("on_exhausted", "then"),
    [
        (
            OnExhausted.WAIT,
            Postponement(
                reason="waits for the budget: 0 credits a day for all rules",
                delay_seconds=pytest.approx(12 * 3600 + 2.5, abs=2.5),
            ),
        ),
        (
            OnExhausted.DROP,
            Settlement(state=State.SKIPPED, reason="budget used up: 0 credits a day for all rules"),
        ),
    ],
)
async def test_what_has_no_credit_waits_for_the_next_window_or_is_dropped(async_redis, on_exhausted, then):
    asking = Asking(async_redis, budget=Budget(per_day=0, on_exhausted=on_exhausted))
    assert await asking.ask() == then
    assert asking.close.calls == 0


async def test_who_was_taken_over_asks_nothing(asking):
    entry = await asking.box.plan()
    late = await asking.box.claim(entry.id)
    await asking.box.let_lease_run_out(entry.id)
    await asking.box.claim(entry.id)
    assert await ask(late, asking.rule, Ask(), asking.tools, asking.progress) is None
    assert asking.close.calls == 0


async def test_only_a_trial_goes_although_calls_are_halted_and_one_that_is_answered_ends_the_halt(asking):
    await asking.box.ledger.brakes.halt(reason="no credits", kind="plan_limit")
    asking.progress.trial = True
    assert (await asking.ask()).state is State.FILLED
    assert await asking.box.ledger.brakes.halted() is None


async def test_after_a_long_wait_for_its_turn_the_record_is_looked_at_once_more(asking):
    asking.pace.wait_seconds = LOOK_LASTS_SECONDS + 0.001
    assert (await asking.ask()).state is State.FILLED
    assert (asking.records.reads, asking.close.calls) == (1, 1)


async def test_a_value_typed_while_a_call_waited_for_its_turn_spares_the_call(asking):
    asking.pace.wait_seconds = LOOK_LASTS_SECONDS + 0.001
    entry = await asking.box.plan()
    asking.records.typed = {f"custom.{entry.field_id}": "Logistics"}
    asking.claim = await asking.box.claim(entry.id)
    then = await ask(asking.claim, asking.rule, Ask(), asking.tools, asking.progress)
    assert then.state is State.KEPT
    assert asking.close.calls == 0
    assert await asking.spent("2026-11-23") == 0


async def test_a_short_wait_for_its_turn_needs_no_second_look(asking):
    asking.pace.wait_seconds = LOOK_LASTS_SECONDS
    assert (await asking.ask()).state is State.FILLED
    assert asking.records.reads == 0
