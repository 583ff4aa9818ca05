"""Charts, headers and the words for health: numbers in, words and markup out."""

import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.dashboard import charts_svg as charts
from service.dashboard.glance import Attention, Costs, Money
from service.dashboard.headers import CONTENT_SECURITY_POLICY, PRIVATE, STATIC
from service.dashboard.health import Level, health_of
from service.enrichment import FINAL_STATES, State

OUTCOMES = st.dictionaries(st.sampled_from(sorted(FINAL_STATES)), st.integers(0, 10**6))


def drawing(svg):
    return ET.fromstring(svg)  # noqa: S314  our own markup


def rects(svg, name=None):
    found = [one for one in drawing(svg).iter("rect") if one.get("class") != "hit"]
    return [one for one in found if name is None or one.get("class") == name]


def titles(svg):
    return [one.text for one in drawing(svg).iter("title")]


def test_every_outcome_is_of_one_kind():
    assert sorted(state for kind in charts.KINDS for state in kind.states) == sorted(FINAL_STATES)


@pytest.mark.parametrize(
    ("value", "top"), [(0, 1), (0.3, 1), (1, 1), (1.1, 2), (2.4, 2.5), (3, 5), (5, 5), (99, 100), (101, 200)]
)
def test_the_top_of_a_scale_is_a_round_number_above(value, top):
    assert charts.ceiling(value) == pytest.approx(top)


@given(st.floats(1e-6, 1e12))
def test_the_top_of_a_scale_is_never_below_the_value_nor_far_above(value):
    top = charts.ceiling(value)
    assert value <= top * (1 + 1e-6)
    assert top <= max(1.0, 2.6 * value)


@given(st.lists(OUTCOMES, max_size=70))
def test_columns_stay_within_the_drawing_and_are_as_high_as_their_counts(minutes):
    svg = charts.columns(list(range(0, 60 * len(minutes), 60)), minutes, title="Outcomes")
    drawn = rects(svg)
    tallest = max((sum(one.values()) for one in minutes), default=0)
    for one in drawn:
        assert 0 <= float(one.get("x")) <= charts.WIDTH
        assert float(one.get("y")) >= -0.02
        assert float(one.get("y")) + float(one.get("height")) <= charts.HEIGHT + 0.02
    total = sum(float(one.get("height")) for one in drawn) * charts.ceiling(tallest) / charts.HEIGHT
    assert total == pytest.approx(
        sum(sum(one.values()) for one in minutes), rel=0.02, abs=0.02 * tallest * 350
    )


def test_a_column_says_what_it_is_made_of():
    svg = charts.columns(
        [0, 60], [{"filled": 3, "confirmed": 1, "dead": 2}, {}], title='a "chart" <of> & that'
    )
    assert titles(svg) == ["00:00 UTC: 4 filled, 2 needs a person", "00:01 UTC: nothing"]
    assert drawing(svg).get("aria-label") == 'a "chart" <of> & that'
    assert len(rects(svg, "k-filled")) == 1


def test_lines_have_gaps_where_nothing_was_measured():
    svg = charts.lines(
        [0, 60, 120, 180],
        [("p50", "half within", [1.0, 2.0, None, 4.0]), ("p95", "95 % within", [None, None, None, None])],
        title="times",
        write=lambda value: f"{value:g} s",
    )
    first, dot, second = [one.get("d") for one in drawing(svg).iter("path") if "line" in one.get("class")]
    assert (first.count("M"), first.count("L")) == (1, 1)
    assert (dot.count("M"), dot.count("h0")) == (1, 1)
    assert second == ""
    assert titles(svg) == [
        "00:00 UTC: half within 1 s",
        "00:01 UTC: half within 2 s",
        "00:02 UTC: nothing",
        "00:03 UTC: half within 4 s",
    ]


@pytest.mark.parametrize("values", [[], [None]])
def test_lines_of_nothing_are_an_empty_drawing(values):
    svg = charts.lines([0] * len(values), [("p50", "half within", values)], title="", write=str)
    assert "M0" in svg


@given(OUTCOMES)
def test_shares_fill_the_bar(outcomes):
    drawn = rects(charts.shares(outcomes, title="Shares"))
    width = sum(float(one.get("width")) for one in drawn)
    assert width == pytest.approx(charts.WIDTH if any(outcomes.values()) else 0, abs=0.1)


@pytest.mark.parametrize(
    ("spent", "limit", "name", "width"),
    [
        (0, 10, "gauge-fine", 0),
        (5, 10, "gauge-fine", 300),
        (8, 10, "gauge-near", 480),
        (10, 10, "gauge-full", 600),
        (30, 10, "gauge-full", 600),
        (0, 0, "gauge-full", 600),
    ],
)
def test_a_gauge_is_as_full_as_the_budget_is_spent(spent, limit, name, width):
    (bar,) = rects(charts.gauge(spent, limit, title="500 a day"))
    assert bar.get("class") == name
    assert float(bar.get("width")) == width


def test_the_legend_names_what_occurs_and_always_the_usual():
    assert [(kind.name, count) for kind, count, _ in charts.legend({})] == [
        ("filled", 0),
        ("empty", 0),
        ("spared", 0),
    ]
    found = charts.legend({State.DEAD: 1, State.FILLED: 3, State.PREVIEWED: 0})
    assert [(kind.name, count, share) for kind, count, share in found] == [
        ("filled", 3, 0.75),
        ("empty", 0, 0.0),
        ("spared", 0, 0.0),
        ("failed", 1, 0.25),
    ]


def test_pages_load_nothing_from_elsewhere_and_run_no_script_of_theirs():
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert "http" not in CONTENT_SECURITY_POLICY
    assert "frame-ancestors 'none'" in CONTENT_SECURITY_POLICY
    assert PRIVATE["cache-control"] == "no-store"
    assert "immutable" in STATIC["cache-control"]


def health(**facts):
    usual = {"problems": {}, "degraded": {}, "halted": False, "workers": 1, "used_up": ()}
    return health_of(**{**usual, **facts})


@pytest.mark.parametrize(
    ("facts", "level", "headline"),
    [
        ({}, Level.GOOD, "All is well"),
        ({"problems": {"redis": "it is away"}}, Level.STOPPED, "Events cannot be taken"),
        ({"halted": True, "degraded": {"halted": "no credits"}}, Level.STOPPED, "All calls are halted"),
        ({"workers": 0, "degraded": {"workers": "none"}}, Level.STOPPED, "No worker is running"),
        ({"degraded": {"held": "3 held"}}, Level.ATTENTION, "One thing needs a look"),
        ({"degraded": {"held": "3 held", "fields": "unknown"}}, Level.ATTENTION, "2 things need a look"),
        ({"used_up": ["500 credits a day"]}, Level.ATTENTION, "One thing needs a look"),
    ],
)
def test_health_is_said_in_a_few_words(facts, level, headline):
    found = health(**facts)
    assert (found.level, found.headline) == (level, headline)


def test_the_worst_comes_first_as_a_sentence():
    degraded = {
        "held": "3 held",
        "subscription": "is paused",
        "breaker cf_1": "times out",
        "halted": "no credits",
    }
    found = health(degraded=degraded, halted=True, used_up=["5 credits a day for rule X"])
    assert [(one.part, one.words) for one in found.findings] == [
        ("halted", "No credits"),
        ("subscription", "Is paused"),
        ("breaker", "Times out"),
        ("budget", "Used up: 5 credits a day for rule X"),
        ("held", "3 held"),
    ]


def test_many_of_a_kind_are_one_thing():
    degraded = {f"breaker cf_{one}": f"field {one} times out" for one in range(5)} | {"rules file": "line 3"}
    found = health(degraded=degraded)
    assert found.headline == "2 things need a look"
    assert [(one.part, one.words) for one in found.findings] == [
        ("rules file", "Line 3"),
        ("breaker", "Field 0 times out (and 4 more)"),
    ]


def test_the_badge_counts_all_that_waits_for_a_person():
    found = Attention(dead_letters=3, held=2, quarantined=1, breakers=4, halted=True)
    assert found.count == 11


def test_what_was_not_called_is_saved():
    saved = {"skipped": 3, "confirmed": 2, "duplicates": 1}
    assert Money(day="2026-11-23", calls=9, paid=8, found=7, empty=1, **saved).saved == 6


@pytest.mark.parametrize(
    ("found", "confirmed", "empty", "rate"), [(0, 0, 0, None), (3, 1, 4, 0.5), (1, 0, 0, 1.0), (0, 0, 5, 0.0)]
)
def test_the_hit_rate_is_the_share_of_answers_with_a_value(found, confirmed, empty, rate):
    costs = Costs(calls=9, paid=9, found=found, empty=empty, skipped=2, confirmed=confirmed, duplicates=4)
    assert costs.hit_rate == rate
    assert costs.saved == 6 + confirmed
