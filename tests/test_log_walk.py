"""Walking the event log: every event is met, and a mark is never moved over what was not."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.event import Event
from service.rules import Action, ObjectType, Rule, Trigger
from workers.log_walk import (
    FIRST_LOOK_BACK,
    HISTORY,
    MOST_RESTARTS,
    OVERLAP,
    PAGE_EVENTS,
    DeadCursor,
    Page,
    Pair,
    TooLong,
    Unread,
    Walk,
    close_time,
    pairs_of,
    parsed_time,
    read_page,
    window_start,
)
from workers.outcome import RateLimited, Retry
from workers.reply import Failure, FailureKind, Reply

NOW = dt.datetime(2026, 10, 14, 9, 30, 12, 418000, tzinfo=dt.UTC)
NOW_TEXT = "2026-10-14T09:30:12.418000"


def ago(**span) -> dt.datetime:
    return NOW - dt.timedelta(**span)


def event(number: int, moment: dt.datetime | str, **changes) -> Event:
    stamp = moment if isinstance(moment, str) else close_time(moment)
    facts = {
        "id": f"ev_{number}",
        "organization_id": "orga_1",
        "object_type": "lead",
        "object_id": f"lead_{number}",
        "lead_id": f"lead_{number}",
        "action": "created",
        "date_created": stamp,
        "date_updated": stamp,
    }
    return Event(**facts | changes)


def rule(name, object_type, *actions) -> Rule:
    return Rule(
        name=name,
        object_type=object_type,
        field=name,
        on=tuple(Trigger(action=one, fields=("url",)) for one in actions),
    )


def test_each_kind_of_event_that_rules_listen_to_is_walked_once_in_the_rules_order():
    rules = [
        rule("Pitch", ObjectType.LEAD, Action.CREATED, Action.UPDATED),
        rule("Seniority", ObjectType.CONTACT, Action.CREATED),
        rule("Size", ObjectType.LEAD, Action.MERGED, Action.CREATED),
    ]
    assert [str(pair) for pair in pairs_of(rules)] == [
        "lead.created",
        "lead.updated",
        "contact.created",
        "lead.merged",
    ]
    assert pairs_of(rules)[0] == Pair(ObjectType.LEAD, Action.CREATED)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        (NOW_TEXT, NOW),
        ("2026-10-14T09:30:12.418000+00:00", NOW),
        ("2026-10-14T11:30:12.418000+02:00", NOW),
        ("2026-10-14", dt.datetime(2026, 10, 14, tzinfo=dt.UTC)),
        ("", None),
        ("yesterday", None),
        ("0001-01-01T00:00:00+23:00", None),
    ],
)
def test_a_time_without_a_zone_is_utc_and_what_is_no_time_is_none(text, moment):
    assert parsed_time(text) == moment


def test_times_are_written_as_close_writes_them():
    assert close_time(NOW.astimezone(dt.timezone(dt.timedelta(hours=5)))) == NOW_TEXT


@pytest.mark.parametrize(
    ("mark", "start"),
    [
        pytest.param(None, NOW - FIRST_LOOK_BACK, id="the first walk looks back only so far"),
        pytest.param(ago(seconds=3), ago(seconds=3) - OVERLAP, id="with the overlap"),
        pytest.param(ago(days=3), ago(days=3) - OVERLAP, id="after a downtime, from where it was"),
        pytest.param(ago(days=40), NOW - HISTORY, id="no further than the log goes back"),
    ],
)
def test_a_window_starts_before_the_mark(mark, start):
    assert window_start(mark, now=NOW) == start


def reply(status=200, body=b"", **more) -> Reply:
    return Reply(status=status, headers={}, body=body, **more)


def page_body(*events, cursor_next=None) -> bytes:
    return json.dumps({"data": events, "cursor_next": cursor_next, "cursor_previous": "up"}).encode()


WIRE = {
    "id": "ev_1",
    "organization_id": "orga_1",
    "object_type": "lead",
    "object_id": "lead_1",
    "action": "created",
    "date_updated": NOW_TEXT,
}


def test_a_page_is_read_with_what_of_it_is_no_event():
    page = read_page(reply(body=page_body(WIRE, {"id": 7}, cursor_next="older")), with_cursor=False)
    assert isinstance(page, Page)
    assert [one.id for one in page.events] == ["ev_1"]
    assert len(page.unreadable) == 1
    assert page.cursor_next == "older"


@pytest.mark.parametrize(
    "data", [[WIRE], [WIRE | {"data": None}], [{k: v for k, v in WIRE.items() if k != "data"}]]
)
def test_an_event_without_its_data_is_an_event(data):
    """The log leaves `data` out for keys that are no admin's, an hour after."""
    page = read_page(reply(body=page_body(*data)), with_cursor=True)
    assert isinstance(page, Page)
    assert [one.data() for one in page.events] == [{}]


@pytest.mark.parametrize(
    ("result", "with_cursor", "reading"),
    [
        (reply(400), True, DeadCursor()),
        (reply(400), False, Unread(reason="Close rejected the request (400)")),
        (reply(401), True, Unread(reason="Close refused the API key (401)")),
        (reply(403), False, Unread(reason="Close does not allow this API key's user to do that (403)")),
        (reply(404), True, Unread(reason="Close does not know this record or field (404)")),
        (reply(429), True, RateLimited(wait_seconds=2.0)),
        (reply(503), True, Retry(reason="Close is unavailable at the moment (503)")),
        (reply(502), True, Retry(reason="Close failed while it was answering (502)")),
        (
            Failure(kind=FailureKind.CONNECT),
            True,
            Retry(reason="Close could not be reached", unreachable=True),
        ),
        (
            Failure(kind=FailureKind.DROPPED),
            False,
            Retry(reason="The connection to Close ended before its answer was complete"),
        ),
        (reply(body=b'{"data": [', truncated=True), False, TooLong()),
        (reply(body=b'{"data": ['), False, Retry(reason="Close's event log was not understood")),
        (reply(body=b'{"data": {}}'), False, Retry(reason="Close's event log was not understood")),
        (reply(body=b"[" * 100_000), False, Retry(reason="Close's event log was not understood")),
        (reply(body=b"\xff"), False, Retry(reason="Close's event log was not understood")),
        (reply(body=page_body()), False, Page()),
        (reply(body=page_body(cursor_next="")), False, Page()),
    ],
)
def test_what_comes_back_says_how_to_go_on(result, with_cursor, reading):
    assert read_page(result, with_cursor=with_cursor) == reading


@given(st.binary(), st.booleans())
def test_no_body_makes_reading_a_page_raise(body, with_cursor):
    assert read_page(reply(body=body), with_cursor=with_cursor) is not None


SINCE = ago(hours=1)


def test_dates_are_asked_for_on_the_first_page_only():
    first = Walk(since=SINCE)
    then = first.after(Page(events=(event(1, NOW),), cursor_next="older"))
    assert first.filters() == {"_limit": "50", "date_updated__gte": "2026-10-14T08:30:12.418000"}
    assert then.filters() == {"_limit": "50", "_cursor": "older"}


def test_a_walk_ends_with_the_last_page_or_with_one_that_is_all_before_its_window():
    walk = Walk(since=SINCE)
    assert walk.after(Page(events=(event(1, NOW),))).drained
    assert walk.after(Page()).drained
    assert not walk.after(Page(cursor_next="older")).drained
    assert not walk.after(Page(events=(event(1, "?"),), cursor_next="older")).drained
    mixed = (event(1, ago(minutes=59)), event(2, ago(minutes=61)))
    assert not walk.after(Page(events=mixed, cursor_next="older")).drained
    assert walk.after(Page(events=mixed[1:], cursor_next="older")).drained


def test_only_events_of_the_window_are_handled_and_those_whose_date_nobody_can_read():
    walk = Walk(since=SINCE, until=ago(minutes=2))
    events = (
        event(1, ago(minutes=1)),
        event(2, ago(minutes=2)),
        event(3, "?"),
        event(4, SINCE),
        event(5, ago(minutes=61)),
    )
    assert [one.id for one in walk.to_handle(Page(events=events))] == ["ev_2", "ev_3", "ev_4"]
    assert [one.id for one in Walk(since=SINCE).to_handle(Page(events=events[:1]))] == ["ev_1"]


@pytest.mark.parametrize(
    ("moments", "mark"),
    [
        pytest.param([], SINCE + OVERLAP, id="nothing: the next window begins where this one did"),
        pytest.param([ago(minutes=30)], ago(minutes=30), id="the newest event handled"),
        pytest.param([ago(minutes=1), ago(minutes=30)], ago(minutes=30), id="not one left to the next walk"),
        pytest.param([ago(minutes=58)], SINCE + OVERLAP, id="never back"),
    ],
)
def test_the_mark_is_a_moment_of_the_log(moments, mark):
    walk = Walk(since=SINCE, until=ago(minutes=2))
    events = tuple(event(number, moment) for number, moment in enumerate(moments))
    assert walk.after(Page(events=events)).mark() == mark


def test_there_is_no_mark_before_the_window_is_drained():
    with pytest.raises(ValueError, match="not drained"):
        Walk(since=SINCE).after(Page(events=(event(1, NOW),), cursor_next="older")).mark()


def test_after_a_dead_cursor_the_walk_goes_on_below_what_it_has_met():
    walk = Walk(since=SINCE).after(Page(events=(event(1, NOW), event(2, ago(minutes=9))), cursor_next="x"))
    again = walk.restarted()
    assert again is not None
    assert again.filters() == {
        "_limit": "50",
        "date_updated__gte": "2026-10-14T08:30:12.418000",
        "date_updated__lte": "2026-10-14T09:21:12.418000",
    }
    assert again.after(Page()).mark() == NOW


def test_cursors_that_always_die_end_the_walk_unless_it_comes_further():
    page = Page(events=(event(1, NOW),), cursor_next="x")
    walk: Walk | None = Walk(since=SINCE).after(page)
    for _ in range(MOST_RESTARTS):
        walk = walk.restarted().after(page)
    assert walk.restarted() is None

    older = Page(events=(event(2, ago(minutes=1)),), cursor_next="y")
    assert walk.after(older).restarted() is not None


def test_pages_that_are_too_long_are_asked_for_by_fewer_events():
    walk: Walk | None = Walk(since=SINCE)
    limits = []
    while walk is not None:
        limits.append(walk.limit)
        walk = walk.narrowed()
    assert limits == [PAGE_EVENTS, 25, 12, 6, 3, 1]


# A log that behaves as Close's page says: events become visible up to five minutes late, consolidated ones
# move to a later date, pages come newest first.


@dataclass(frozen=True)
class Visible:
    """One version of an event: its date, and from when until when the log shows it."""

    number: int
    at: int
    from_second: int
    until_second: float = float("inf")


@dataclass
class Log:
    versions: list[Visible]
    dead: list[bool] = field(default_factory=list)

    def page(self, walk: Walk, *, now: int, most: int) -> Page | DeadCursor:
        if walk.cursor is not None and self.dead and self.dead.pop():
            return DeadCursor()
        shown = [one for one in self.versions if one.from_second <= now < one.until_second]
        shown.sort(key=lambda one: (one.at, one.number), reverse=True)
        if walk.cursor is not None:
            at, number = map(int, walk.cursor.split("/"))
            shown = [one for one in shown if (one.at, one.number) < (at, number)]
        elif walk.below is not None:
            shown = [one for one in shown if moment(one.at) <= walk.below]
        shown = [one for one in shown if moment(one.at) >= walk.since]
        page, more = shown[:most], shown[most:]
        return Page(
            events=tuple(event(one.number, moment(one.at)) for one in page),
            cursor_next=f"{page[-1].at}/{page[-1].number}" if more else None,
        )


def moment(second: int) -> dt.datetime:
    return NOW + dt.timedelta(seconds=second)


LATE = int(OVERLAP.total_seconds()) - 1
END = 3000


@st.composite
def versions(draw):
    at = draw(st.integers(0, END))
    shown = at + draw(st.integers(0, LATE))
    moved = draw(st.none() | st.integers(1, LATE))
    return at, shown, moved


@st.composite
def logs(draw) -> Log:
    found = []
    for number, (at, shown, moved) in enumerate(draw(st.lists(versions(), max_size=25))):
        if moved is None:
            found.append(Visible(number, at, shown))
        else:
            later = shown + moved
            found += [Visible(number, at, shown, later), Visible(number, later, later)]
    return Log(found, draw(st.lists(st.booleans(), max_size=20)))


@dataclass(frozen=True)
class Course:
    """How walks go: events on a page, seconds between walks and for a page, pages until one breaks off."""

    sizes: list[int]
    pauses: list[int]
    page_seconds: int
    breaks: list[int]
    leave_seconds: int


COURSES = st.builds(
    Course,
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    pauses=st.lists(st.integers(0, 900), min_size=1, max_size=12),
    page_seconds=st.integers(0, 40),
    breaks=st.lists(st.integers(0, 6), max_size=12),
    leave_seconds=st.integers(0, 120),
)


class Walker:
    """Walks a log again and again, and remembers what it has met."""

    def __init__(self, log: Log, course: Course) -> None:
        self.log = log
        self.course = course
        self.clock = 0
        self.pages = 0
        self.mark = moment(0)
        self.met: set[tuple[int, dt.datetime]] = set()

    def walk(self, *, most_pages: int = 10_000, leave_seconds: int) -> None:
        until = moment(self.clock - leave_seconds)
        walk: Walk | None = Walk(since=window_start(self.mark, now=moment(self.clock)), until=until)
        for _ in range(most_pages):
            most = self.course.sizes[self.pages % len(self.course.sizes)]
            reading = self.log.page(walk, now=self.clock, most=most)
            self.pages += 1
            self.clock += self.course.page_seconds
            if isinstance(reading, DeadCursor):
                walk = walk.restarted()
                if walk is None:
                    return
                continue
            for one in walk.to_handle(reading):
                self.met.add((int(one.id[3:]), parsed_time(one.date_updated)))
            walk = walk.after(reading)
            if walk.drained:
                assert self.mark <= walk.mark()
                self.mark = walk.mark()
                return

    def passed_over(self) -> list[Visible]:
        """What the log shows, has not been met, and will not be any more."""
        return [
            one
            for one in self.log.versions
            if one.from_second <= self.clock < one.until_second
            and (one.number, moment(one.at)) not in self.met
            and moment(one.at) < self.mark - OVERLAP
        ]


@settings(max_examples=300)
@given(log=logs(), course=COURSES)
def test_whatever_the_paging_order_and_overlap_every_event_is_met_and_no_mark_passes_one_that_was_not(
    log, course
):
    walker = Walker(log, course)
    for number, pause in enumerate(course.pauses):
        most_pages = course.breaks[number] if number < len(course.breaks) else 10_000
        walker.walk(most_pages=most_pages, leave_seconds=course.leave_seconds)
        walker.clock += pause
        assert walker.passed_over() == []
    walker.clock = max(walker.clock, END + 3 * LATE)
    log.dead.clear()
    walker.walk(leave_seconds=0)

    last = {one.number: moment(one.at) for one in log.versions}
    assert set(last.items()) <= walker.met
