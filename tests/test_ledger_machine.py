"""Any order of events, deliveries, crashes, late answers, sweeps, halts and budgets, against a model.

The model is a few lines of Python for each step. After every step all that Redis holds is compared with it;
at the end of every run the machine is left to itself, and everything must reach a final state.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass

import redis.asyncio
import structlog
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from ledger_box import FIRST_STAMP, SECOND_STAMP, LedgerBox, event, id_of, wanted

from service import jobs, keys
from service.brakes import PERSON, BreakerPolicy
from service.dead_letters import DeadLetters
from service.enrichment import FINAL_STATES, NEEDS_A_PERSON, State
from service.held import release
from service.ledger import Charge, Claim, Ledger, NotClaimed
from service.rules import Burst, Mode, Priority
from service.transitions import Postponement, Settlement
from workers.housekeeping import Housekeeper

FIELDS = {"cf_fill": Mode.FILL, "cf_overwrite": Mode.OVERWRITE, "cf_preview": Mode.PREVIEW}
EVENTS = [
    event("ev_created"),
    event("ev_created", stamp=SECOND_STAMP),
    *(
        event(name, action="updated", stamp=at)
        for name in ("ev_a", "ev_b")
        for at in (FIRST_STAMP, SECOND_STAMP)
    ),
]
MOST_STEPS_TO_THE_END = 50
FAR_MS = 4_000_000_000_000
BUDGET = 4
GUARD = Burst(most=1, within_seconds=1_000_000.0)
POLICY = BreakerPolicy(most_timeouts=1, first_pause_seconds=600.0, longest_pause_seconds=1500.0)
PAUSES_SECONDS = [600, 1200, 1500]
TRIAL_SECONDS = 300

fields = st.sampled_from(sorted(FIELDS))
endings = st.sampled_from(sorted(FINAL_STATES))


@dataclass
class Model:
    """What one entry must look like."""

    state: State
    job: str
    fence: int = 0
    holder: str = ""
    asked: int = 0
    attempts: int = 0
    calls: int = 0
    failures: int = 0
    ambiguous: bool = False
    blocked: bool = False
    again: bool = False
    overdue: bool = False
    listed: bool = False
    held: bool = False

    def leave_hands(self):
        """Either way out of a worker's hands uses up its fence."""
        self.fence += 1
        self.holder = ""
        self.overdue = False
        self.blocked = False

    def start_anew(self, state):
        self.state = state
        self.attempts = self.failures = 0
        self.again = self.ambiguous = self.listed = False


@dataclass
class Hand:
    """One execution, whether it still holds its entry or not."""

    field: str
    job: str
    holder: str
    claim: Claim
    called: bool = False
    charges: tuple[Charge, ...] = ()


@dataclass
class Breaker:
    """One field's: how often it timed out in a row, how often that opened it, and how long it is paused."""

    timeouts: int = 0
    opened: int = 0
    pause_seconds: int | None = None

    def time_out(self):
        self.timeouts += 1
        if self.timeouts >= POLICY.most_timeouts:
            self.pause_seconds = PAUSES_SECONDS[min(self.opened, len(PAUSES_SECONDS) - 1)]
            self.opened += 1


class LedgerMachine(RuleBasedStateMachine):
    """Several workers, receivers and sweepers on one Redis, one step at a time."""

    def __init__(self, url):
        super().__init__()
        self.runner = asyncio.Runner()
        self.redis = redis.asyncio.Redis.from_url(url)
        self.run(self.redis.flushall())
        self.run(self.redis.set(keys.SINCE, 1))
        self.box = LedgerBox(self.redis)
        self.ledger = self.box.ledger = Ledger(self.redis, breaker=POLICY)
        self.keeper = Housekeeper(
            self.ledger, worker="w", clock=lambda: 0.0, log=structlog.testing.CapturingLogger()
        )
        self.models: dict[str, Model] = {}
        self.versions: dict[str, str] = {}
        self.hands: list[Hand] = []
        self.seen_jobs: list[tuple[str, str]] = []
        self.halt_kind: str | None = None
        self.breakers = {field: Breaker() for field in FIELDS}
        self.spent = [0]
        self.passed_the_guard = 0
        self.queued: list[str] = []
        self.popped: list[str] = []
        self.scheduled: list[str] = []

    def run(self, awaitable):
        return self.runner.run(self._await(awaitable))

    @staticmethod
    async def _await(awaitable):
        return await awaitable

    def teardown(self):
        try:
            self.run_to_the_end()
        finally:
            self.run(self.redis.aclose())
            self.runner.close()

    # What the model is asked for

    def is_live(self, hand):
        model = self.models[hand.field]
        return model.fence == hand.claim.fence

    def active(self, field):
        model = self.models.get(field)
        return model is not None and not model.state.final

    def deliverable(self, field):
        """Whether some job is to bring it to a worker."""
        return self.active(field) and not self.models[field].held

    def charges(self):
        """What a call is charged to now."""
        window = len(self.spent) - 1
        return (Charge(key=keys.spent("all", f"window-{window}"), limit=BUDGET, expires_ms=FAR_MS),)

    def learn_job(self, field):
        """Job ids are random: the model takes over what is written, once it may have changed."""
        model = self.models[field]
        model.job = self.run(self.box.entry(id_of(field))).job_id
        if not model.held:
            self.seen_jobs.append((field, model.job))

    def look(self):
        """Where all jobs are now."""

        async def read():
            async with self.redis.pipeline() as pipeline:
                for queue in jobs.QUEUES:
                    pipeline.lrange(jobs.queue_key(queue), 0, -1)
                    pipeline.lrange(jobs.intermediate_key(queue), 0, -1)
                    pipeline.zrange(jobs.scheduled_key(queue), 0, -1)
                return await pipeline.execute()

        found = [[one.decode() for one in place] for place in self.run(read())]
        self.queued, self.popped, self.scheduled = (found[n] + found[n + 3] for n in range(3))

    def places(self, job_id):
        self.look()
        return (self.queued + self.popped + self.scheduled).count(job_id)

    def mostly(self, data, usual, every):
        """One of the usual ones three times out of four, if there are any."""
        return data.draw(st.sampled_from(usual if usual and data.draw(st.integers(0, 3)) else every))

    def draw_hand(self, data):
        """One that still holds its entry, or sometimes one that comes late."""
        return self.mostly(data, [hand for hand in self.hands if self.is_live(hand)], self.hands)

    # Receivers

    @initialize()
    def begin_with_every_field(self):
        self.accept(EVENTS[0], set(FIELDS), 0, Priority.NORMAL, guarded=False)

    @rule(
        of_event=st.sampled_from(EVENTS),
        of_fields=st.sets(fields, min_size=1),
        settle_seconds=st.sampled_from([0, 60]),
        priority=st.sampled_from(Priority),
        guarded=st.booleans(),
    )
    def accept(self, of_event, of_fields, settle_seconds, priority, guarded):
        reopens = of_event.action != "created"
        newer = reopens and of_event.date_updated > self.versions.get(of_event.id, "")
        if newer:
            self.versions[of_event.id] = of_event.date_updated
        ordered = sorted(of_fields)
        items = [
            wanted(one, mode=FIELDS[one], settle_seconds=settle_seconds, priority=priority, reopens=reopens)
            for one in ordered
        ]
        burst = GUARD if guarded else None
        accepted = self.run(self.box.accepter.accept(of_event, items, burst=burst))
        results = [one.result for one in accepted]
        assert results == [self.expected_of_accept(one, newer, settle_seconds, guarded) for one in ordered]
        for one, result in zip(ordered, results, strict=True):
            if result in ("planned", "reopened", "held"):
                self.learn_job(one)

    def expected_of_accept(self, field, newer, settle_seconds, guarded):
        model = self.models.get(field)
        if model is None or (model.state.final and newer):
            held = guarded and self.passed_the_guard >= GUARD.most
            self.passed_the_guard += guarded and not held
            planned = State.WAITING if settle_seconds or held else State.PLANNED
            if model is None:
                self.models[field] = Model(state=planned, job="", held=held)
                return "held" if held else "planned"
            model.start_anew(planned)
            model.held = held
            return "held" if held else "reopened"
        if not model.state.final and newer and (model.holder or model.ambiguous):
            model.again = True
            return "again"
        return "duplicate"

    # Queues

    @precondition(lambda self: self.scheduled)
    @rule()
    def time_passes_and_jobs_are_promoted(self):
        for queue in jobs.QUEUES:
            due = list(self.run(self.box.scheduled(queue)))
            assert self.run(self.ledger.promote(queue, due)) == len(due)

    @precondition(lambda self: self.scheduled)
    @rule(field=fields)
    def wake(self, field):
        model = self.models.get(field)
        scheduled = self.run(self.box.scheduled()) | self.run(self.box.scheduled(jobs.BULK_QUEUE))
        waits = model is not None and model.state is State.WAITING and model.blocked
        assert self.run(self.ledger.wake(id_of(field))) is (waits and model.job in scheduled)

    def pop(self):
        for queue in jobs.QUEUES:
            raw = self.run(self.redis.lmove(jobs.queue_key(queue), jobs.intermediate_key(queue)))
            if raw is not None:
                return raw.decode(), queue
        return None, None

    def field_of(self, job_id):
        return next(field for field, job in self.seen_jobs if job == job_id)

    @precondition(lambda self: self.queued)
    @rule(most=st.integers(1, 3), call=st.booleans())
    def work(self, most, call):
        """A worker takes some jobs, and perhaps goes straight on to ask for the calls."""
        for _ in range(most):
            before = len(self.hands)
            self.take_a_job()
            for hand in self.hands[before:] if call else ():
                self.ask(hand)

    def take_a_job(self):
        job_id, queue = self.pop()
        if job_id is not None:
            self.run(self.redis.lrem(jobs.intermediate_key(queue), 1, job_id))
            self.begin(self.field_of(job_id), job_id)

    @precondition(lambda self: self.queued)
    @rule(started=st.booleans())
    def die_before_the_claim(self, started):
        """Right after the pop, or after the start; the lease that a start sets has run out at once."""
        job_id, queue = self.pop()
        if job_id is None or not started:
            return
        self.run(self.redis.lrem(jobs.intermediate_key(queue), 1, job_id))
        field = self.field_of(job_id)
        model = self.models[field]
        if not model.state.final and model.job == job_id and not model.holder:
            self.let_a_lease_run_out(field)

    @precondition(lambda self: self.popped)
    @rule()
    def put_back_what_was_never_started(self):
        for queue in jobs.QUEUES:
            names = [jobs.intermediate_key(queue), jobs.queue_key(queue)]
            for raw in self.run(self.redis.lrange(names[0], 0, -1)):
                assert self.run(self.keeper._restore(keys=names, args=[raw])) == 1

    @precondition(lambda self: self.seen_jobs)
    @rule(data=st.data())
    def deliver_any_job_once_more(self, data):
        current = [(field, model.job) for field, model in self.models.items() if self.deliverable(field)]
        self.begin(*self.mostly(data, current, self.seen_jobs))

    def begin(self, field, job_id, holder=None):
        model = self.models[field]
        holder = holder or f"w/{len(self.hands)}"
        answer = self.run(self.ledger.begin(job_id, id_of(field), holder=holder))
        if model.state.final or model.job != job_id:
            assert answer == NotClaimed("stale")
        elif model.holder == holder:
            assert isinstance(answer, Claim)
            assert answer.fence == model.fence
        elif model.holder and not model.overdue:
            assert answer == NotClaimed("busy")
        else:
            assert isinstance(answer, Claim)
            assert answer.fence > model.fence
            model.fence = answer.fence
            model.holder = holder
            model.overdue = False
            model.ambiguous = model.ambiguous or model.state is State.CALLING
            assert (answer.fence, answer.entry.ambiguous) == (model.fence, model.ambiguous)
            self.hands.append(Hand(field, job_id, holder, answer))

    # Persons

    @precondition(lambda self: any(model.listed for model in self.models.values()))
    @rule(of_fields=st.sets(fields, min_size=1), drop=st.booleans())
    def retry_or_drop_dead_letters(self, of_fields, drop):
        letters = DeadLetters(self.ledger)
        listed = [one for one in sorted(of_fields) if one in self.models and self.models[one].listed]
        found = self.run(letters.named([id_of(one) for one in listed]))
        act = letters.drop if drop else letters.retry
        assert self.run(act(found)) == len(listed)
        assert self.run(act(found)) == 0, "somebody else has been there already"
        for one in listed:
            model = self.models[one]
            model.listed = False
            if not drop:
                model.fence += 1
                model.state = State.PLANNED
                model.attempts = 0
                self.learn_job(one)

    # Workers, the living and the late

    @precondition(lambda self: self.hands)
    @rule(data=st.data())
    def ask_again_for_a_claim_whose_answer_was_lost(self, data):
        hand = self.draw_hand(data)
        self.begin(hand.field, hand.job, hand.holder)

    @precondition(lambda self: self.hands)
    @rule(data=st.data(), despite_halt=st.booleans(), only_ask=st.booleans())
    def ask_for_a_call(self, data, despite_halt, only_ask):
        self.ask(self.draw_hand(data), despite_halt=despite_halt, only_ask=only_ask)

    def ask(self, hand, *, despite_halt=False, only_ask=False):
        model = self.models[hand.field]
        answer = self.run(
            self.ledger.permit_call(
                hand.claim,
                group="enrich",
                charges=self.charges(),
                despite_halt=despite_halt,
                only_ask=only_ask,
                trial_seconds=TRIAL_SECONDS,
            )
        )
        expected = self.expected_of_ask(hand, despite_halt)
        if expected == "go" and model.asked != model.fence and not only_ask:
            self.call(hand)
        assert answer.verdict == expected
        if expected == "broken":
            pause_seconds = self.breakers[hand.field].pause_seconds
            assert pause_seconds - 60 < answer.wait_seconds <= pause_seconds
        if expected == "go" and model.asked == model.fence:
            assert answer.attempt == model.attempts

    def expected_of_ask(self, hand, despite_halt):
        model = self.models[hand.field]
        if not self.is_live(hand):
            return "fenced"
        if model.asked == model.fence:
            return "go"
        if self.halt_kind is not None and not despite_halt:
            return "halted"
        if self.breakers[hand.field].pause_seconds:
            return "broken"
        return "exhausted" if self.spent[-1] == BUDGET else "go"

    def call(self, hand):
        model = self.models[hand.field]
        breaker = self.breakers[hand.field]
        if breaker.pause_seconds == 0:
            breaker.pause_seconds = TRIAL_SECONDS
        model.state = State.CALLING
        model.asked = model.fence
        model.attempts += 1
        model.calls += 1
        model.ambiguous = model.again = model.overdue = False
        hand.called = True
        hand.charges = self.charges()
        self.spent[-1] += 1

    def give_back(self, hand):
        """A call that was written down did not run; True where one had been."""
        if not hand.called:
            return False
        (charge,) = hand.charges
        self.spent[int(charge.key.rpartition("-")[2])] -= 1
        self.models[hand.field].calls -= 1
        return True

    @precondition(lambda self: self.hands)
    @rule(data=st.data(), state=endings, ran=st.booleans(), answered=st.booleans())
    def settle(self, data, state, ran, answered):
        self.settle_hand(self.draw_hand(data), state, uncalled=not ran, answered=answered)

    def settle_hand(self, hand, state, *, uncalled=False, answered=False):
        model = self.models[hand.field]
        end = Settlement(state=state, uncalled=uncalled, answered=answered)
        kept = self.run(self.ledger.settle(hand.claim, end, charges=hand.charges or self.charges()))
        if not self.is_live(hand):
            assert kept is (model.state.final and model.fence == hand.claim.fence + 1), (
                "its own end, once more"
            )
            return
        assert kept
        if uncalled:
            self.give_back(hand)
        if answered:
            self.breakers[hand.field] = Breaker()
        model.leave_hands()
        model.failures = 0
        filled = FIELDS[hand.field] is Mode.FILL and state in (State.FILLED, State.CONFIRMED)
        if model.again and not filled:
            model.start_anew(State.PLANNED)
            self.learn_job(hand.field)
        else:
            model.state = state
            model.again = False
            model.listed = state in NEEDS_A_PERSON
            model.ambiguous = state is State.HELD or (model.listed and model.ambiguous)

    @precondition(lambda self: any(hand.called and self.is_live(hand) for hand in self.hands))
    @rule()
    def time_out(self):
        """A call in flight takes too long, and its field is delivered again."""
        hand = next(hand for hand in self.hands if hand.called and self.is_live(hand))
        self.put_back_hand(hand, 0, "timed out", failed=True)
        self.take_a_job()

    @precondition(lambda self: self.hands)
    @rule(
        data=st.data(),
        delay_seconds=st.sampled_from([0, 60]),
        ran=st.sampled_from(["yes", "no", "unclear", "timed out"]),
        failed=st.booleans(),
        after=st.none() | fields,
    )
    def put_back(self, data, delay_seconds, ran, failed, after):
        self.put_back_hand(self.draw_hand(data), delay_seconds, ran, failed=failed, after=after)

    def put_back_hand(self, hand, delay_seconds, ran, *, failed, after=None):
        model = self.models[hand.field]
        after = None if after == hand.field else after
        then = Postponement(
            reason="because",
            delay_seconds=delay_seconds,
            ambiguous=hand.called and ran in ("unclear", "timed out"),
            uncalled=ran == "no",
            unattempted=ran == "no",
            failed=failed,
            timed_out=hand.called and ran == "timed out",
            blocked_by=(id_of(after),) if after else (),
        )
        charges = hand.charges or self.charges()
        kept = self.run(self.ledger.postpone(hand.claim.entry, then, fence=hand.claim.fence, charges=charges))
        assert kept is self.is_live(hand)
        if not kept:
            return
        model.leave_hands()
        model.state = State.WAITING
        model.ambiguous = model.ambiguous or then.ambiguous
        if then.uncalled and self.give_back(hand):
            model.attempts -= 1
        if then.timed_out:
            self.breakers[hand.field].time_out()
        model.failures += failed
        model.blocked = bool(after) and bool(delay_seconds) and self.active(after)
        self.learn_job(hand.field)

    @precondition(lambda self: self.hands)
    @rule(data=st.data())
    def heartbeat(self, data):
        beating = data.draw(st.lists(st.sampled_from(self.hands), unique_by=lambda hand: hand.field))
        lost = self.run(self.ledger.heartbeat({id_of(hand.field): hand.claim.fence for hand in beating}))
        assert set(lost) == {id_of(hand.field) for hand in beating if not self.is_live(hand)}
        for hand in beating:
            if self.is_live(hand):
                self.models[hand.field].overdue = False

    # Time, sweepers and halts

    @rule(data=st.data())
    def pauses_and_windows_end(self, data):
        """All pauses are over, a budget's next day begins, or the burst guard's window has passed."""
        match data.draw(st.sampled_from(["pause", "day", "window"])):
            case "pause":
                for field, breaker in self.breakers.items():
                    if breaker.pause_seconds is not None:
                        self.run(self.redis.hset(keys.breaker(field), "until_ms", 1))
                        breaker.pause_seconds = 0
            case "day":
                self.spent.append(0)
            case "window":
                self.run(self.redis.delete(keys.BURST))
                self.passed_the_guard = 0

    @precondition(lambda self: any(model.held for model in self.models.values()))
    @rule(limit=st.sampled_from([1, None]))
    def release_what_is_held(self, limit):
        held = [field for field, model in self.models.items() if model.held]
        assert self.run(release(self.ledger, limit=limit)) == min(limit or len(held), len(held))
        for field in held:
            model = self.models[field]
            if self.run(self.redis.zscore(keys.HELD, id_of(field))) is None:
                model.held = False
                model.leave_hands()
                self.learn_job(field)

    @precondition(lambda self: any(map(self.deliverable, self.models)))
    @rule(data=st.data(), taken_over=st.booleans())
    def silence(self, data, taken_over):
        """A worker is silent, or a queue does not move; perhaps another worker gets the same job."""
        active = [field for field in self.models if self.deliverable(field)]
        field = self.mostly(data, [one for one in active if self.models[one].holder], active)
        self.let_a_lease_run_out(field)
        if taken_over:
            self.begin(field, self.models[field].job)

    def let_a_lease_run_out(self, field):
        if self.deliverable(field):
            self.run(self.box.let_lease_run_out(id_of(field)))
            self.models[field].overdue = True

    @precondition(lambda self: any(model.overdue for model in self.models.values()))
    @rule()
    def sweep(self):
        expected = 0
        moved = []
        for field, model in self.models.items():
            if model.state.final or not model.overdue:
                continue
            model.overdue = False
            if not model.holder and self.places(model.job):
                continue
            expected += 1
            moved.append(field)
            model.ambiguous = model.ambiguous or model.state is State.CALLING
            model.leave_hands()
            model.state = State.WAITING
        assert self.run(self.keeper.sweep()) == expected
        for field in moved:
            self.learn_job(field)

    @rule(kind=st.sampled_from(["key", "credits", PERSON]))
    def halt(self, kind):
        changes = self.halt_kind is None or (kind == PERSON and self.halt_kind != PERSON)
        assert self.run(self.ledger.brakes.halt(reason="because", kind=kind)) is changes
        if changes:
            self.halt_kind = kind

    @precondition(lambda self: self.halt_kind is not None)
    @rule(automatic_only=st.booleans())
    def resume(self, automatic_only):
        lifts = self.halt_kind is not None and not (automatic_only and self.halt_kind == PERSON)
        assert self.run(self.ledger.brakes.resume(automatic_only=automatic_only)) is lifts
        if lifts:
            self.halt_kind = None

    # What holds after every step

    @invariant()
    def entries_are_as_the_model_says(self):
        for field, model in self.models.items():
            entry = self.run(self.box.entry(id_of(field)))
            assert (entry.state, entry.job_id, entry.fence, entry.holder) == (
                model.state,
                model.job,
                model.fence,
                model.holder,
            )
            assert (entry.attempts, entry.calls, entry.failures) == (
                model.attempts,
                model.calls,
                model.failures,
            )
            assert (entry.ambiguous, entry.blocked) == (model.ambiguous, model.blocked)
            assert min(entry.attempts, entry.calls, entry.failures) >= 0

    @invariant()
    def counts_are_the_states(self):
        assert self.run(self.box.counts()) == Counter(model.state for model in self.models.values())

    @invariant()
    def everything_active_is_reachable(self):
        self.look()
        found = dict(self.run(self.redis.zrange(keys.ACTIVE, 0, -1, withscores=True)))
        assert set(found) == {id_of(field).encode() for field in self.models if self.deliverable(field)}
        for field in self.models:
            if self.deliverable(field):
                model = self.models[field]
                places = (self.queued + self.popped + self.scheduled).count(model.job)
                assert places <= 1
                assert places or model.holder or model.overdue
                if places:
                    assert self.run(self.redis.exists(jobs.job_key(model.job)))

    @invariant()
    def credits_and_what_is_held_are_as_the_model_says(self):
        async def read():
            async with self.redis.pipeline() as pipeline:
                pipeline.mget([keys.spent("all", f"window-{window}") for window in range(len(self.spent))])
                pipeline.zrange(keys.HELD, 0, -1)
                return await pipeline.execute()

        spent, held = self.run(read())
        assert [int(one or 0) for one in spent] == self.spent
        assert max(self.spent) <= BUDGET
        assert sum(self.spent) == sum(model.calls for model in self.models.values())
        held_models = {field: model for field, model in self.models.items() if model.held}
        assert {one.decode() for one in held} == set(map(id_of, held_models))
        assert all(model.state is State.WAITING for model in held_models.values())

    @invariant()
    def dead_letters_are_listed(self):
        listed = self.run(self.redis.zrange(keys.ATTENTION, 0, -1))
        assert {one.decode() for one in listed} == {
            id_of(one) for one, model in self.models.items() if model.listed
        }

    @invariant()
    def open_breakers_are_the_fields_that_keep_timing_out(self):
        found = {one.field_id: one.timeouts for one in self.run(self.ledger.brakes.open_breakers())}
        assert found == {field: one.timeouts for field, one in self.breakers.items() if one.opened}

    @invariant()
    def no_entry_has_two_open_calls(self):
        open_calls = Counter(hand.field for hand in self.hands if hand.called and self.is_live(hand))
        assert all(number == 1 for number in open_calls.values())

    def run_to_the_end(self):
        """All workers are gone. A new one that does its work, and the sweeper, bring everything to an end."""
        self.run(self.ledger.brakes.resume())
        self.halt_kind = None
        if any(model.held for model in self.models.values()):
            self.release_what_is_held(None)
        for _ in range(MOST_STEPS_TO_THE_END):
            if not any(self.active(field) for field in self.models):
                break
            for field in self.models:
                self.let_a_lease_run_out(field)
            self.sweep()
            self.put_back_what_was_never_started()
            self.time_passes_and_jobs_are_promoted()
            before = len(self.hands)
            self.take_a_job()
            for hand in self.hands[before:]:
                self.settle_hand(hand, State.EMPTY)
        assert not any(self.active(field) for field in self.models)
        self.counts_are_the_states()


def test_whatever_the_order_of_things_the_ledger_keeps_its_promises(redis_url):
    run_state_machine_as_test(
        lambda: LedgerMachine(redis_url),
        settings=settings(
            max_examples=25,
            stateful_step_count=60,
            deadline=None,
            # a failing run is not made shorter: on a real server that takes minutes
            phases=[Phase.explicit, Phase.reuse, Phase.generate],
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
