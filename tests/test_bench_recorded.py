"""Comparing a run's ratios with the recorded ones."""

from __future__ import annotations

import json
import math

import pytest
from bench.recorded import RECORDED, Better, Ratio, better_of, compare, dump, load, medians


def ratio(name: str, value: float, better: Better = Better.MORE) -> Ratio:
    return Ratio(suite="ingest", name=name, value=value, better=better)


@pytest.mark.parametrize(
    ("better", "recorded", "now", "problem"),
    [
        (Better.MORE, 0.45, 0.45, ""),
        (Better.MORE, 0.45, 9.0, ""),
        (Better.MORE, 0.45, 0.301, ""),
        (Better.MORE, 0.45, 0.299, "fallen by 34%; expected a third at most"),
        (Better.MORE, 0.45, 0.0, "fallen by 100%; expected a third at most"),
        (Better.LESS, 1.2, 1.2, ""),
        (Better.LESS, 1.2, 0.1, ""),
        (Better.LESS, 1.2, 1.79, ""),
        (Better.LESS, 1.2, 1.81, "risen by 51%; expected half at most"),
        (Better.MORE, 0.45, math.nan, "not a number"),
        (Better.LESS, 1.2, math.inf, "not a number"),
        (Better.MORE, None, 0.01, ""),
    ],
)
def test_a_ratio_may_become_worse_by_a_third_of_itself_one_way_and_by_half_the_other(
    better, recorded, now, problem
):
    known = {} if recorded is None else {"ingest: share": recorded}
    (verdict,) = compare(known, [ratio("share", now, better)])
    assert verdict.problem == problem
    assert (verdict.suite, verdict.key, verdict.recorded) == ("ingest", "ingest: share", recorded)


def test_a_recorded_ratio_that_nothing_measures_is_a_problem():
    measured, missed = compare({"work: gone": 2.0}, [ratio("share", 0.5)])
    assert measured.problem == ""
    assert (missed.suite, missed.key, missed.recorded, missed.now) == (None, "work: gone", 2.0, None)
    assert missed.problem == "recorded, but not measured"


def test_of_two_runs_each_ratio_has_its_better_value():
    first = [ratio("a", 0.3), ratio("b", 2.0, Better.LESS), ratio("c", 0.9), ratio("only first", 1.0)]
    second = [ratio("a", 0.4), ratio("b", 1.5, Better.LESS), ratio("c", 0.8)]
    assert [one.value for one in better_of(first, second)] == [0.4, 1.5, 0.9, 1.0]


def test_what_was_written_is_read_back():
    text = dump([ratio("share", 0.45), ratio("time", 1.2, Better.LESS)], when="2026-11-23", machine="2 cores")
    assert load(text) == {"ingest: share": 0.45, "ingest: time": 1.2}
    assert json.loads(text)["machine"] == "2 cores"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON: "),
        ("[]", "expected an object with `ratios`"),
        ('{"ratios": [1]}', "expected an object with `ratios`"),
        (
            '{"ratios": {"a": 1, "b": "1", "c": 0, "d": true, "e": -1, "f": Infinity}}',
            "'b', 'c', 'd', 'e', 'f'",
        ),
    ],
)
def test_a_file_that_is_no_record_is_refused_with_all_that_is_wrong(text, message):
    with pytest.raises(ValueError, match=message.replace("[", r"\[")):
        load(text)


def test_the_shipped_record_can_be_read_and_holds_ratios_of_several_suites():
    suites = {key.partition(": ")[0] for key in load(RECORDED.read_text())}
    assert suites == {"ingest", "work", "cold start"}


def test_what_is_recorded_are_the_medians_of_several_runs():
    runs = [[ratio("a", a), ratio("b", b, Better.LESS)] for a, b in ((0.3, 2.0), (0.9, 1.0), (0.4, 1.3))]
    assert medians(runs) == [ratio("a", 0.4), ratio("b", 1.3, Better.LESS)]
    assert medians(runs[:1]) == runs[0]
