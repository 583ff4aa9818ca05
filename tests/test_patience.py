"""Whoever waits too long for Redis is told, at its time, by one timer for all."""

import asyncio
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.patience import Patience

SECONDS = 1.5


class LateError(Exception):
    """What a late answer fails with here."""


@dataclass
class Timer:
    """As a loop hands it out."""

    due: float
    callback: object
    arguments: tuple


@dataclass
class FrozenLoop:
    """A loop whose time goes on only when it is told to; its answers are those of a real one."""

    real: asyncio.AbstractEventLoop
    now: float = 0.0
    timers: list[Timer] = field(default_factory=list)

    def time(self):
        return self.now

    def call_at(self, due, callback, *arguments):
        self.timers.append(Timer(due, callback, arguments))
        return self.timers[-1]

    def go_on_until(self, now):
        while due := [timer for timer in self.timers if timer.due <= now]:
            first = min(due, key=lambda timer: timer.due)
            self.timers.remove(first)
            self.now = max(self.now, first.due)
            first.callback(*first.arguments)
        self.now = now


@pytest.fixture
def loop():
    real = asyncio.new_event_loop()
    yield FrozenLoop(real)
    real.close()


def waiting(loop, patience):
    answer = loop.real.create_future()
    patience.watch(answer, loop)
    return answer


def is_late(answer):
    return answer.done() and isinstance(answer.exception(), LateError)


def test_an_answer_that_does_not_come_fails_at_its_time(loop):
    answer = waiting(loop, Patience(SECONDS, LateError))
    loop.go_on_until(SECONDS - 0.001)
    assert not answer.done()
    loop.go_on_until(SECONDS)
    assert is_late(answer)


def test_an_answer_that_has_come_stays_as_it_is(loop):
    answer = waiting(loop, Patience(SECONDS, LateError))
    answer.set_result("in time")
    loop.go_on_until(2 * SECONDS)
    assert answer.result() == "in time"


def test_there_is_one_timer_whoever_waits(loop):
    patience = Patience(SECONDS, LateError)
    for _ in range(100):
        waiting(loop, patience)
        loop.go_on_until(loop.now + 0.001)
    assert len(loop.timers) == 1


def test_nothing_is_looked_at_when_nobody_waits(loop):
    patience = Patience(SECONDS, LateError)
    waiting(loop, patience).set_result("in time")
    loop.go_on_until(2 * SECONDS)
    assert loop.timers == []


def test_what_was_answered_is_not_kept(loop):
    patience = Patience(SECONDS, LateError)
    for _ in range(1000):
        waiting(loop, patience).set_result("in time")
    assert len(patience._watched) == 1


@given(
    st.lists(
        st.tuples(
            st.floats(0, 2, allow_nan=False).map(lambda pause: round(pause, 3)),
            st.none() | st.floats(0, 4, allow_nan=False).map(lambda after: round(after, 3)),
        ),
        max_size=30,
    )
)
def test_each_answer_fails_at_its_own_time_and_only_if_it_has_not_come(waits):
    """For each who waits: how long after the one before, and when its answer comes, or never."""
    real = asyncio.new_event_loop()
    loop = FrozenLoop(real)
    patience = Patience(SECONDS, LateError)
    began, now = [], 0.0
    for pause, after in waits:
        now += pause
        began.append((now, after))
    answers = {}

    def begin(number):
        answers[number] = waiting(loop, patience)

    def answer(number):
        if not answers[number].done():
            answers[number].set_result("in time")

    steps = [(at, 0, number, begin) for number, (at, _) in enumerate(began)]
    steps += [
        (at + after, 1, number, answer) for number, (at, after) in enumerate(began) if after is not None
    ]
    for at, _, number, step in sorted(steps, key=lambda one: one[:3]):
        loop.go_on_until(at)
        step(number)
    loop.go_on_until(now + 10)
    late = [number for number, one in answers.items() if is_late(one)]
    assert late == [number for number, (_, after) in enumerate(began) if after is None or after >= SECONDS]
    assert all(one.done() for one in answers.values())
    real.close()
