"""Walking Close's event log newest first, one kind of event at a time, without leaving a gap. Pure.

Source: https://developer.close.com/api/resources/events/list. Pages come newest first by `date_updated`, a
cursor leads to older events, and an event may become visible, or be consolidated with a later date, some
minutes after others. So every walk begins before the mark that the last one left, and a mark moves only when
a whole window has been drained. A mark is a moment of the log's own (the newest event handled), never of a
clock here, so that clocks that differ lose nothing.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from service.event import Event, Unparseable, parse_log_event
from workers.outcome import Ambiguous, RateLimited, Retry, judge_refusal
from workers.reply import Reply

if TYPE_CHECKING:
    from collections.abc import Iterable

    from service.rules import Action, ObjectType, Rule
    from workers.reply import Failure

OVERLAP = dt.timedelta(minutes=5)
"""Close: scan at least the latest five minutes again on every poll."""

HISTORY = dt.timedelta(days=30)
"""How far back Close's event log reaches."""

FIRST_LOOK_BACK = dt.timedelta(minutes=15)
"""How far the first walk of a pair looks back: a new installation must not enrich a month of old leads."""

PAGE_EVENTS = 50
"""The most events that Close gives on one page."""

MOST_RESTARTS = 3
"""Dead cursors in a row, without a single older event in between, before a walk is given up."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One kind of event: the log can be asked for one object type and one action at a time."""

    object_type: ObjectType
    action: Action

    def __str__(self) -> str:
        return f"{self.object_type}.{self.action}"


def pairs_of(rules: Iterable[Rule]) -> tuple[Pair, ...]:
    """The kinds of events that trigger any of the rules, each once, in the rules' order."""
    pairs = (Pair(rule.object_type, trigger.action) for rule in rules for trigger in rule.on)
    return tuple(dict.fromkeys(pairs))


def close_time(moment: dt.datetime) -> str:
    """A moment as the log writes it: ISO 8601, UTC, without a zone, microseconds."""
    return moment.astimezone(dt.UTC).replace(tzinfo=None).isoformat(timespec="microseconds")


def parsed_time(text: str) -> dt.datetime | None:
    """The moment that the log, or a mark, means: UTC where it names no zone; None where it is no moment."""
    try:
        moment = dt.datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).astimezone(dt.UTC)
    except (ValueError, OverflowError):
        return None


def window_start(mark: dt.datetime | None, *, now: dt.datetime) -> dt.datetime:
    """The moment from which the log is walked.

    Args:
        mark: what the last drained window left, or None where there was none.
        now: the present.
    """
    if mark is None:
        return now - FIRST_LOOK_BACK
    return max(mark - OVERLAP, now - HISTORY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page of the log.

    Attributes:
        events: newest first, as far as they could be read.
        unreadable: why others could not be.
        cursor_next: leads to older events; None on the last page.
    """

    events: tuple[Event, ...] = ()
    unreadable: tuple[str, ...] = ()
    cursor_next: str | None = None


@dataclass(frozen=True, slots=True)
class DeadCursor:
    """Close no longer knows the cursor."""


@dataclass(frozen=True, slots=True)
class TooLong:
    """The page was too long to be read; fewer events fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unread:
    """The page could not be read, and asking again at once will not help."""

    reason: str


PageReading: TypeAlias = Page | DeadCursor | TooLong | RateLimited | Retry | Unread


class _WirePage(msgspec.Struct):
    data: list[msgspec.Raw]
    cursor_next: str | None = None


_PAGE = msgspec.json.Decoder(_WirePage)


def read_page(result: Reply | Failure, *, with_cursor: bool) -> PageReading:
    """What came back from asking for a page. Never raises.

    Args:
        result: a reply, or why there is none.
        with_cursor: the page was asked for by a cursor; then a 400 means that the cursor is dead.
    """
    if isinstance(result, Reply) and result.status == HTTPStatus.OK:
        return _page(result)
    if isinstance(result, Reply) and result.status == HTTPStatus.BAD_REQUEST and with_cursor:
        return DeadCursor()
    refusal = judge_refusal(result)
    if isinstance(refusal, RateLimited | Retry):
        return refusal
    if isinstance(refusal, Ambiguous):
        # reading costs nothing: what may have run can simply be tried again
        return Retry(reason=refusal.reason, hint_seconds=refusal.hint_seconds)
    return Unread(reason=refusal.reason)


def _page(reply: Reply) -> Page | TooLong | Retry:
    if reply.truncated:
        return TooLong()
    try:
        wire = _PAGE.decode(reply.body)
    except (ValueError, RecursionError):
        return Retry(reason="Close's event log was not understood")
    found = [parse_log_event(bytes(raw)) for raw in wire.data]
    return Page(
        events=tuple(one for one in found if isinstance(one, Event)),
        unreadable=tuple(one.reason for one in found if isinstance(one, Unparseable)),
        cursor_next=wire.cursor_next or None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """How far a walk through one window has come. It starts at the newest event and ends at `since`.

    Attributes:
        since: where the window begins; earlier events are not handled.
        until: later events are left to the next walk, their deliveries may still be on their way; None for
            all events there are.
        cursor: leads to the page to ask for next; None for the newest one.
        below: the newest page is to begin here, because everything later has been handled.
        limit: events to ask for.
        newest: the latest event handled so far.
        oldest: the earliest event met so far.
        restarts: dead cursors since the walk last came further.
        drained: everything in the window has been handled.
    """

    since: dt.datetime
    until: dt.datetime | None = None
    cursor: str | None = None
    below: dt.datetime | None = None
    limit: int = PAGE_EVENTS
    newest: dt.datetime | None = None
    oldest: dt.datetime | None = None
    restarts: int = 0
    drained: bool = False

    def filters(self) -> dict[str, str]:
        """What to ask the log for besides the pair: Close wants no dates beside a cursor."""
        if self.cursor is not None:
            return {"_limit": str(self.limit), "_cursor": self.cursor}
        below = {} if self.below is None else {"date_updated__lte": close_time(self.below)}
        return {"_limit": str(self.limit), "date_updated__gte": close_time(self.since), **below}

    def to_handle(self, page: Page) -> tuple[Event, ...]:
        """The events of a page that are in the window; one whose date cannot be read is taken for one."""
        return tuple(one for one in page.events if self._holds(parsed_time(one.date_updated)))

    def after(self, page: Page) -> Walk:
        """The walk once a page has been handled: it ends with the last one, or one all before `since`."""
        moments = [moment for one in page.events if (moment := parsed_time(one.date_updated)) is not None]
        handled = [moment for moment in moments if self._holds(moment)]
        oldest = min([*moments, *_known(self.oldest)], default=None)
        further = oldest != self.oldest
        beyond = bool(moments) and max(moments) < self.since
        return replace(
            self,
            cursor=page.cursor_next,
            newest=max([*handled, *_known(self.newest)], default=None),
            oldest=oldest,
            restarts=0 if further else self.restarts,
            drained=beyond or page.cursor_next is None,
        )

    def restarted(self) -> Walk | None:
        """The walk after its cursor died, from the oldest event met on; None where it came no further lately.

        What has become visible above that meanwhile is no older than the overlap: the next walk meets it.
        """
        if self.restarts >= MOST_RESTARTS:
            return None
        return replace(self, cursor=None, below=self.oldest, restarts=self.restarts + 1)

    def narrowed(self) -> Walk | None:
        """The walk with smaller pages; None where a page is a single event already."""
        return None if self.limit == 1 else replace(self, limit=self.limit // 2)

    def mark(self) -> dt.datetime:
        """What to remember once the window is drained: the next walk begins `OVERLAP` before it.

        Raises:
            ValueError: the window is not drained.
        """
        if not self.drained:
            raise ValueError("the window is not drained yet")
        # without any event the next window begins where this one did
        return max([self.since + OVERLAP, *_known(self.newest)])

    def _holds(self, moment: dt.datetime | None) -> bool:
        return moment is None or (self.since <= moment and (self.until is None or moment <= self.until))


def _known(moment: dt.datetime | None) -> list[dt.datetime]:
    return [] if moment is None else [moment]
