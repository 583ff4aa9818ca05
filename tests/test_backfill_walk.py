"""Walking a search: whatever dies or is cut short, every record is met once."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from workers.backfill_walk import (
    FIRST_SECOND,
    MOST_RESTARTS,
    Found,
    SearchEnded,
    SearchPage,
    SearchWalk,
    read_search,
    utc,
)
from workers.log_walk import Unread
from workers.outcome import RateLimited, Retry
from workers.reply import Failure, FailureKind, Reply

UNTIL = 1_000


class Search:
    """Close's search over records given as (second, id), oldest first."""

    def __init__(self, records, *, page, cap, tells_total=True, dies_after=()):
        self.records = sorted(records)
        self.page = page
        self.cap = cap
        self.tells_total = tells_total
        self.dies_after = list(dies_after)
        self.windows = 0

    def ask(self, walk, *, silent_end=False):
        """What a walk gets: a page, or that its cursor leads nowhere."""
        start = 0
        if walk.cursor is None:
            self.windows += 1
            self.matching = [one for one in self.records if walk.since <= one[0] < walk.until]
        else:
            if self.dies_after and self.dies_after.pop(0):
                return SearchEnded()
            start = int(walk.cursor)
            if start >= self.cap:
                return SearchEnded()
        end = min(start + self.page, len(self.matching), self.cap)
        more = end < len(self.matching) and not (silent_end and end == self.cap)
        return SearchPage(
            records=tuple(Found(id=name, second=at, data={}) for at, name in self.matching[start:end]),
            cursor=str(end) if more else None,
            total=len(self.matching) if self.tells_total else None,
        )


def walked(search, *, since=0, crash=lambda: False, **how):
    """All ids that a walk brings, in the order in which they come; it may be written down and read again."""
    walk, met = SearchWalk(since=since, until=UNTIL), []
    for _ in range(10_000):
        if walk.drained:
            return walk, met
        reading = search.ask(walk, **how)
        if isinstance(reading, SearchEnded):
            walk = walk.restarted()
            continue
        assert walk.keeps_order(reading)
        if crash():
            continue
        met += [one.id for one in walk.new(reading)]
        walk = walk.after(reading)
    raise AssertionError("the walk does not end")


records = st.lists(st.integers(0, UNTIL + 50), max_size=80).map(
    lambda seconds: [(second, f"lead_{number}") for number, second in enumerate(seconds)]
)


@given(
    records=records,
    page=st.integers(1, 12),
    cap=st.integers(1, 40),
    deaths=st.lists(st.booleans(), max_size=40),
    crashes=st.lists(st.booleans(), max_size=40),
    silent_end=st.booleans(),
)
@example(
    records=[(5, f"lead_{n}") for n in range(9)], page=4, cap=40, deaths=[True], crashes=[], silent_end=False
)
def test_every_record_is_met_once_or_its_second_is_named(*, records, page, cap, deaths, crashes, silent_end):
    search = Search(records, page=page, cap=cap, dies_after=deaths)
    upcoming = list(crashes)
    walk, met = walked(search, crash=lambda: bool(upcoming) and upcoming.pop(0), silent_end=silent_end)
    inside = [name for second, name in records if second < UNTIL]
    seconds = {name: second for second, name in records}
    assert len(met) == len(set(met))
    missed = set(inside) - set(met)
    assert set(met) <= set(inside)
    assert {seconds[name] for name in missed} <= set(walk.skipped)
    assert [seconds[name] for name in met] == sorted(seconds[name] for name in met)


def test_a_search_over_its_cap_is_walked_in_several_windows():
    search = Search([(n // 3, f"lead_{n}") for n in range(1000)], page=50, cap=100)
    walk, met = walked(search)
    assert len(met) == len(set(met)) == 1000
    assert walk.skipped == ()
    assert walk.expected == 1000
    assert search.windows >= 10


def test_a_search_that_does_not_say_how_many_there_are_is_walked_to_its_last_page():
    search = Search([(n, f"lead_{n}") for n in range(100)], page=7, cap=30, tells_total=False)
    assert len(walked(search)[1]) == 100


def test_a_second_that_holds_more_than_a_search_shows_is_passed_over_and_named():
    crowd = [(7, f"lead_{n:03d}") for n in range(50)]
    search = Search([(3, "first"), *crowd, (9, "last")], page=10, cap=20)
    walk, met = walked(search)
    assert (met[0], met[-1]) == ("first", "last")
    assert len(met) == len(set(met)) == 22
    assert walk.skipped == (7,)
    # each new window shows the same; after a few it is clear that there is no more to see
    assert search.windows == 1 + 1 + MOST_RESTARTS + 1


def test_the_last_second_may_be_the_one_that_is_passed_over():
    search = Search([(UNTIL - 1, f"lead_{n}") for n in range(9)], page=2, cap=4)
    walk, met = walked(search)
    assert len(met) == 4
    assert walk.skipped == (UNTIL - 1,)


def test_a_walk_without_records_ends_at_once():
    walk, met = walked(Search([], page=5, cap=5), since=FIRST_SECOND)
    assert (met, walk.drained, walk.expected) == ([], True, 0)


def test_records_that_could_not_be_read_count_towards_what_the_window_gives():
    walk = SearchWalk(since=0, until=UNTIL)
    page = SearchPage(records=(Found(id="a", second=1, data={}),), unreadable=2, total=3)
    assert page.size == 3
    assert walk.after(page).drained


def test_what_a_window_announces_counts_only_from_its_first_page():
    walk = replace(SearchWalk(since=0, until=UNTIL), cursor="2", given=2, announced=4, expected=9)
    after = walk.after(SearchPage(records=(Found(id="c", second=1, data={}),), cursor="3", total=77))
    assert (after.announced, after.expected, after.given) == (4, 9, 3)


@pytest.mark.parametrize(("seconds", "kept"), [([5, 5, 7], True), ([7, 5], False), ([3, 9], False)])
def test_a_page_must_go_on_oldest_first(seconds, kept):
    page = SearchPage(records=tuple(Found(id=str(n), second=at, data={}) for n, at in enumerate(seconds)))
    assert SearchWalk(since=5, until=UNTIL).keeps_order(page) is kept


def test_a_record_of_a_page_shows_none_of_its_values():
    assert "Brindlemoor" not in repr(Found(id="lead_1", second=1, data={"name": "Brindlemoor"}))


def test_seconds_are_written_as_close_takes_them():
    assert utc(1_791_970_212) == "2026-10-14T09:30:12Z"


def reply(body, status=200):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Reply(status=status, headers={"content-type": "application/json"}, body=content)


def test_a_page_is_read_as_close_sends_it():
    page = read_search(
        reply(
            {
                "data": [
                    {
                        "__object_type": "lead",
                        "id": "lead_1",
                        "date_created": "2026-10-14T09:30:12.418000+00:00",
                    },
                    {"id": "lead_2"},
                    {"id": "", "date_created": "2026-10-14"},
                    "nonsense",
                ],
                "cursor": "next",
                "count": {"limited": 2, "total": 7},
            }
        ),
        with_cursor=False,
    )
    assert isinstance(page, SearchPage)
    assert [(one.id, one.second) for one in page.records] == [("lead_1", 1_791_970_212)]
    assert (page.unreadable, page.cursor, page.total) == (3, "next", 7)


@pytest.mark.parametrize(
    ("result", "with_cursor", "expected"),
    [
        (reply({"data": [], "cursor": None}), False, SearchPage()),
        (reply({"data": [], "cursor": "", "count": {"total": "x"}}), False, SearchPage()),
        (reply({"data": {}}), False, Retry(reason="Close's answer was not a page of a search")),
        (reply(b"<html>"), False, Retry(reason="Close's answer was not readable JSON")),
        (reply({"field-errors": {"cursor": "expired"}}, 400), True, SearchEnded()),
    ],
)
def test_answers_are_understood(result, with_cursor, expected):
    assert read_search(result, with_cursor=with_cursor) == expected


@pytest.mark.parametrize(
    ("result", "kind"),
    [
        (reply({"field-errors": {"query": "no"}}, 400), Unread),
        (reply({}, 401), Unread),
        (reply({}, 429), RateLimited),
        (reply({}, 503), Retry),
        (reply({}, 502), Retry),
        (Failure(kind=FailureKind.READ_TIMEOUT), Retry),
    ],
)
def test_refusals_are_waited_out_or_told(result, kind):
    assert isinstance(read_search(result, with_cursor=False), kind)
