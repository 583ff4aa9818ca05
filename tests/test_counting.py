"""What a worker counts of each enrichment that leaves its hands, and why it says that one waits."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
from entries import NOW_MS, make_entry

from service.enrichment import FINAL_STATES, State
from service.intake import KEYLESS, UNAVAILABLE, Answer
from service.ledger import Permission
from service.metrics_catalogue import CALL_SECONDS, DONE, EVENTS, LEAD_TO_FILLED_SECONDS, OTHER, PAID, WAITS
from service.rules import ObjectType, OnExhausted, Rule
from service.transitions import Cause, Postponement, Settlement
from workers.ask import _not_now
from workers.budget import Window
from workers.conclusion import conclude
from workers.counting import count_call, count_end
from workers.outcome import Ambiguous, Found, Gone, Halt, HaltKind, Nothing, RateLimited, Rejected, Retry
from workers.preflight import before_call, before_reading
from workers.reply import FieldEmpty
from workers.tools import Progress

RULE = Rule(name="Industry", object_type=ObjectType.LEAD, field="Industry", after=("Segment",))
FOUND = Found(value="Retail")


class Noted:
    """A meter that notes what it is told."""

    def __init__(self):
        self.counts = []
        self.seconds = []

    def count(self, family, **labels):
        self.counts.append((family, *family.words(labels)))

    def observe(self, family, seconds, **labels):
        self.seconds.append((family, seconds, *family.words(labels)))


@pytest.fixture
def noted():
    return Noted()


def end(noted, then, *, asking=True, kept=True, **entry):
    progress = Progress(asking=asking)
    count_end(noted, make_entry(**entry), then, progress, kept=kept, now_ms=NOW_MS + 5_000)


@pytest.mark.parametrize("state", sorted(FINAL_STATES))
def test_every_end_is_counted_and_a_filled_field_is_timed(noted, state):
    end(noted, Settlement(state=state), asking=False)
    assert noted.counts == [(DONE, "Industry", state)]
    filled = [(LEAD_TO_FILLED_SECONDS, 6.0, "Industry", "live")]
    assert noted.seconds == (filled if state in {State.FILLED, State.CONFIRMED} else [])


def test_bulk_work_is_timed_apart(noted):
    end(noted, Settlement(state=State.FILLED), queue="enrich-bulk")
    assert noted.seconds == [(LEAD_TO_FILLED_SECONDS, 6.0, "Industry", "bulk")]


@pytest.mark.parametrize("cause", Cause)
def test_every_wait_is_counted_by_its_cause(noted, cause):
    end(noted, Postponement(reason="", cause=cause), asking=False)
    assert noted.counts == [(WAITS, cause)]


@pytest.mark.parametrize("then", [Settlement(state=State.EMPTY), Postponement(reason="")])
def test_a_call_is_paid_for_unless_close_says_that_it_did_not_run(noted, then):
    end(noted, then)
    assert (PAID, "Industry") in noted.counts


@pytest.mark.parametrize(
    ("then", "asking"),
    [
        (Settlement(state=State.GONE, uncalled=True), True),
        (Postponement(reason="", uncalled=True), True),
        (Settlement(state=State.KEPT), False),
    ],
)
def test_what_did_not_run_costs_nothing(noted, then, asking):
    end(noted, then, asking=asking)
    assert PAID not in [family for family, *_ in noted.counts]


def test_who_was_taken_over_counts_only_what_was_paid(noted):
    end(noted, Settlement(state=State.FILLED), kept=False)
    assert noted.counts == [(PAID, "Industry")]
    assert noted.seconds == []


@pytest.mark.parametrize(
    ("outcome", "word"),
    [
        (FOUND, "found"),
        (Nothing(), "nothing"),
        (RateLimited(wait_seconds=1), "rate_limited"),
        (Retry(reason=""), "retry"),
        (Ambiguous(reason=""), "ambiguous"),
        (Gone(""), "gone"),
        (Rejected(""), "rejected"),
        (Halt(reason="", kind=HaltKind.KEY_REFUSED), "halt"),
    ],
)
def test_every_answer_of_close_has_a_word(noted, outcome, word):
    count_call(noted, outcome, seconds=1.5)
    assert noted.seconds == [(CALL_SECONDS, 1.5, word)]
    assert word != OTHER


@pytest.mark.parametrize(
    ("outcome", "cause"),
    [
        (RateLimited(wait_seconds=1), Cause.RATE_LIMIT),
        (Halt(reason="", kind=HaltKind.PLAN_LIMIT), Cause.HALT),
        (Ambiguous(reason=""), Cause.AMBIGUOUS),
        (Retry(reason=""), Cause.RETRY),
        (Retry(reason="", unreachable=True), Cause.RETRY),
    ],
)
def test_after_a_call_the_cause_is_what_came_of_it(outcome, cause):
    then = conclude(
        outcome, entry=make_entry(), rule=RULE, attempt=1, called=True, draw=0.5, now_ms=NOW_MS
    ).then
    assert isinstance(then, Postponement)
    assert then.cause is cause


@pytest.mark.parametrize(
    ("verdict", "cause"),
    [
        ("halted", Cause.HALT),
        ("parked", Cause.RATE_LIMIT),
        ("broken", Cause.BREAKER),
        ("exhausted", Cause.BUDGET),
    ],
)
def test_without_permission_the_cause_is_what_stood_in_the_way(verdict, cause):
    window = Window(
        scope="all",
        period="day",
        key="k",
        limit=1,
        ends_ms=NOW_MS,
        on_exhausted=OnExhausted.WAIT,
        words="1 credit a day",
    )
    tools = SimpleNamespace(random=random.Random(1), now_ms=lambda: NOW_MS)  # noqa: S311  chance in tests is no secret
    then = _not_now(Permission(verdict=verdict), (window,), "Industry", tools)
    assert isinstance(then, Postponement)
    assert then.cause is cause


def test_before_a_call_others_and_earlier_calls_are_waited_for():
    blocked = before_reading(
        entry=make_entry(), rule=RULE, fields_known=True, unfinished=("b" * 20,), now_ms=NOW_MS
    )
    assert blocked.cause is Cause.AFTER
    for state in ({"ambiguous": True, "called_ms": NOW_MS - 1000}, {"lost_ms": NOW_MS}):
        then = before_call(
            entry=make_entry(**state), rule=RULE, field=FieldEmpty(), unmet=None, now_ms=NOW_MS
        )
        assert then.cause is Cause.AMBIGUOUS


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        (UNAVAILABLE, "unavailable"),
        (KEYLESS, "unavailable"),
        (Answer(status=401, body={"error": "no"}), "refused"),
        *(
            (Answer(status=202, body={"status": one}), one)
            for one in ("accepted", "duplicate", "quarantined")
        ),
        (Answer(status=200, body={"status": "ignored"}), "ignored"),
    ],
)
def test_every_answer_of_ours_has_a_word(answer, result):
    assert answer.result == result
    assert EVENTS.words({"result": answer.result}) == (result,)
