"""What anybody can cause is told so many times a second, and the rest is counted."""

from __future__ import annotations

import structlog
from structlog.testing import capture_logs

from service.seldom import Seldom


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def test_a_storm_is_told_so_often_and_then_how_much_was_left_out():
    clock = Clock()
    with capture_logs() as lines:
        seldom = Seldom(structlog.get_logger(), most_per_second=2, clock=clock)
        for moment in (100.0, 100.3, 100.6, 100.9, 101.0, 101.5, 101.9, 109.0):
            clock.now = moment
            seldom.warning("refused", at=moment)
    assert [(line["at"], line.get("left_out_before")) for line in lines] == [
        (100.0, None),
        (100.3, None),
        (101.0, 2),
        (101.5, None),
        (109.0, 1),
    ]
    assert {line["log_level"] for line in lines} == {"warning"}


def test_a_clock_that_was_set_back_silences_nobody():
    clock = Clock()
    with capture_logs() as lines:
        seldom = Seldom(structlog.get_logger(), most_per_second=1, clock=clock)
        for moment in (100.0, 100.1, 50.0):
            clock.now = moment
            seldom.warning("refused", at=moment)
    assert [line["at"] for line in lines] == [100.0, 50.0]
