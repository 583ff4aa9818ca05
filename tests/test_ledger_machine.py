"""Any order of events, deliveries, crashes, late answers, sweeps and halts, against a model of the ledger.

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
from service.enrichment import FINAL_STATES, State
from service.ledger import PERSON, Claim, NotClaimed
from service.rules import Mode, Priority
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

    def leave_hands(self):
        """Either way out of a worker's hands uses up its fence."""
        self.fence += 1
        self.holder = ""
        self.overdue = False
        self.blocked = False

    def start_anew(self, state):
        self.state = state
        self.attempts = self.failures = 0
        self.again = False


@dataclass
class Hand:
    """One execution, whether it still holds its entry or not."""

    field: str
    job: str
    holder: str
    claim: Claim
    called: bool = False


class LedgerMachine(RuleBasedStateMachine):
    """Several workers, receivers and sweepers on one Redis, one step at a time."""

    def __init__(self, url):
        super().__init__()
        self.runner = asyncio.Runner()
        self.redis = redis.asyncio.Redis.from_url(url)
        self.run(self.redis.flushall())
        self.box = LedgerBox(self.redis)
        self.ledger = self.box.ledger
        self.keeper = Housekeeper(
            self.ledger, worker="w", clock=lambda: 0.0, log=structlog.testing.CapturingLogger()
        )
        self.models: dict[str, Model] = {}
        self.versions: dict[str, str] = {}
        self.hands: list[Hand] = []
        self.seen_jobs: list[tuple[str, str]] = []
        self.halt_kind: str | None = None
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

    def learn_job(self, field):
        """Job ids are random: the model takes over what is written, once it may have changed."""
        model = self.models[field]
        model.job = self.run(self.box.entry(id_of(field))).job_id
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
        self.accept(EVENTS[0], set(FIELDS), 0, Priority.NORMAL)

    @rule(
        of_event=st.sampled_from(EVENTS),
        of_fields=st.sets(fields, min_size=1),
        settle_seconds=st.sampled_from([0, 60]),
        priority=st.sampled_from(Priority),
    )
    def accept(self, of_event, of_fields, settle_seconds, priority):
        reopens = of_event.action != "created"
        newer = reopens and of_event.date_updated > self.versions.get(of_event.id, "")
        if newer:
            self.versions[of_event.id] = of_event.date_updated
        ordered = sorted(of_fields)
        items = [
            wanted(one, mode=FIELDS[one], settle_seconds=settle_seconds, priority=priority, reopens=reopens)
            for one in ordered
        ]
        results = self.run(self.box.accept(of_event, *items))
        assert results == [self.expected_of_accept(one, newer, settle_seconds) for one in ordered]
        for one, result in zip(ordered, results, strict=True):
            if result in ("planned", "reopened"):
                self.learn_job(one)

    def expected_of_accept(self, field, newer, settle_seconds):
        model = self.models.get(field)
        planned = State.WAITING if settle_seconds else State.PLANNED
        if model is None:
            self.models[field] = Model(state=planned, job="")
            return "planned"
        if model.state.final and newer:
            model.start_anew(planned)
            return "reopened"
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
        current = [(field, model.job) for field, model in self.models.items() if self.active(field)]
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
            model.fence += 1
            model.holder = holder
            model.overdue = False
            model.ambiguous = model.ambiguous or model.state is State.CALLING
            assert (answer.fence, answer.entry.ambiguous) == (model.fence, model.ambiguous)
            self.hands.append(Hand(field, job_id, holder, answer))

    # Workers, the living and the late

    @precondition(lambda self: self.hands)
    @rule(data=st.data())
    def ask_again_for_a_claim_whose_answer_was_lost(self, data):
        hand = self.draw_hand(data)
        self.begin(hand.field, hand.job, hand.holder)

    @precondition(lambda self: self.hands)
    @rule(data=st.data(), despite_halt=st.booleans())
    def ask_for_a_call(self, data, despite_halt):
        self.ask(self.draw_hand(data), despite_halt=despite_halt)

    def ask(self, hand, *, despite_halt=False):
        model = self.models[hand.field]
        answer = self.run(
            self.ledger.permit_call(hand.claim, group="enrich", value_before=None, despite_halt=despite_halt)
        )
        if not self.is_live(hand):
            assert answer.verdict == "fenced"
        elif model.asked == model.fence:
            assert (answer.verdict, answer.attempt) == ("go", model.attempts)
        elif self.halt_kind is not None and not despite_halt:
            assert answer.verdict == "halted"
        else:
            model.state = State.CALLING
            model.asked = model.fence
            model.attempts += 1
            model.calls += 1
            model.ambiguous = model.again = model.overdue = False
            assert (answer.verdict, answer.attempt) == ("go", model.attempts)
            hand.called = True

    @precondition(lambda self: self.hands)
    @rule(data=st.data(), state=endings, ran=st.booleans())
    def settle(self, data, state, ran):
        self.settle_hand(self.draw_hand(data), state, uncalled=not ran)

    def settle_hand(self, hand, state, *, uncalled=False):
        model = self.models[hand.field]
        uncalled = uncalled and hand.called
        kept = self.run(self.box.settle(hand.claim, state, uncalled=uncalled))
        if not self.is_live(hand):
            assert kept is (model.state.final and model.fence == hand.claim.fence + 1), (
                "its own end, once more"
            )
            return
        assert kept
        model.calls -= uncalled
        model.leave_hands()
        model.ambiguous = False
        model.failures = 0
        filled = FIELDS[hand.field] is Mode.FILL and state in (State.FILLED, State.CONFIRMED)
        if model.again and not filled:
            model.start_anew(State.PLANNED)
            self.learn_job(hand.field)
        else:
            model.state = state
            model.again = False

    @precondition(lambda self: self.hands)
    @rule(
        data=st.data(),
        delay_seconds=st.sampled_from([0, 60]),
        ran=st.sampled_from(["yes", "no", "unclear"]),
        failed=st.booleans(),
        after=st.none() | fields,
    )
    def put_back(self, data, delay_seconds, ran, failed, after):
        hand = self.draw_hand(data)
        model = self.models[hand.field]
        after = None if after == hand.field else after
        options = {
            "ambiguous": hand.called and ran == "unclear",
            "uncalled": hand.called and ran == "no",
            "unattempted": hand.called and ran == "no",
            "failed": failed,
            "blocked_by": (id_of(after),) if after else (),
            "delay_seconds": delay_seconds,
        }
        kept = self.run(self.box.postpone(hand.claim, **options))
        assert kept is self.is_live(hand)
        if not kept:
            return
        model.leave_hands()
        model.state = State.WAITING
        model.ambiguous = model.ambiguous or options["ambiguous"]
        model.calls -= options["uncalled"]
        model.attempts -= options["unattempted"]
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

    @precondition(lambda self: any(map(self.active, self.models)))
    @rule(data=st.data(), taken_over=st.booleans())
    def silence(self, data, taken_over):
        """A worker is silent, or a queue does not move; perhaps another worker gets the same job."""
        active = [field for field in self.models if self.active(field)]
        field = self.mostly(data, [one for one in active if self.models[one].holder], active)
        self.let_a_lease_run_out(field)
        if taken_over:
            self.begin(field, self.models[field].job)

    def let_a_lease_run_out(self, field):
        if self.active(field):
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
        active = {id_of(field).encode() for field in self.models if self.active(field)}
        assert set(found) == active
        for field in self.models:
            if self.active(field):
                model = self.models[field]
                places = (self.queued + self.popped + self.scheduled).count(model.job)
                assert places <= 1
                assert places or model.holder or model.overdue
                if places:
                    assert self.run(self.redis.exists(jobs.job_key(model.job)))

    @invariant()
    def no_entry_has_two_open_calls(self):
        open_calls = Counter(hand.field for hand in self.hands if hand.called and self.is_live(hand))
        assert all(number == 1 for number in open_calls.values())

    def run_to_the_end(self):
        """All workers are gone. A new one that does its work, and the sweeper, bring everything to an end."""
        self.run(self.ledger.brakes.resume())
        self.halt_kind = None
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
            max_examples=40,
            stateful_step_count=60,
            deadline=None,
            # a failing run is not made shorter: on a real server that takes minutes
            phases=[Phase.explicit, Phase.reuse, Phase.generate],
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
