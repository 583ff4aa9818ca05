"""Walking Close's search oldest first so that no record is missed or met twice. Pure.

Source: https://developer.close.com/api/resources/advanced-filtering. A search gives at most 10,000 objects
and its cursor dies after 30 seconds, so a walk is a row of windows. Each begins at a whole second and is read
by one cursor, page by page; where that dies or the search is cut short, the next window begins at the second
of the last record met, and what was met of that second already is passed over. Nothing finer than a second of
`date_created` is relied on.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

from workers.log_walk import Unread, parsed_time
from workers.outcome import Ambiguous, RateLimited, Retry, judge_refusal
from workers.reply import Reply
from workers.reply_body import json_object

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workers.reply import Failure

FIRST_SECOND = 1_230_768_000
"""2009-01-01: before Close's first customer had a lead."""

MOST_RESTARTS = 3
"""Windows in a row without a new record before a second is passed over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One record of a page.

    Attributes:
        id: the lead's or contact's.
        second: of its creation, Unix time.
        data: the fields that were asked for. No repr shows them.
    """

    id: str
    second: int
    data: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchPage:
    """One page of a search.

    Attributes:
        records: in the order in which they came.
        unreadable: how many had no id or no date of creation.
        cursor: leads to the next page; None on the last one.
        total: how many match, where the answer says so.
    """

    records: tuple[Found, ...] = ()
    unreadable: int = 0
    cursor: str | None = None
    total: int | None = None

    @property
    def size(self) -> int:
        """How many objects the page had, readable or not."""
        return len(self.records) + self.unreadable


@dataclass(frozen=True, slots=True)
class SearchEnded:
    """Close goes on with this search no more: its cursor has died, or it has given all it gives."""


SearchReading: TypeAlias = SearchPage | SearchEnded | RateLimited | Retry | Unread


def read_search(result: Reply | Failure, *, with_cursor: bool) -> SearchReading:
    """What came back from asking for a page. Never raises.

    Args:
        result: a reply, or why there is none.
        with_cursor: the page was asked for by a cursor; then a 400 is about that.
    """
    if isinstance(result, Reply) and result.status == HTTPStatus.OK:
        return _page(result)
    if isinstance(result, Reply) and result.status == HTTPStatus.BAD_REQUEST and with_cursor:
        return SearchEnded()
    refusal = judge_refusal(result)
    if isinstance(refusal, RateLimited | Retry):
        return refusal
    if isinstance(refusal, Ambiguous):
        # searching costs nothing: what may have run can simply be tried again
        return Retry(reason=refusal.reason, hint_seconds=refusal.hint_seconds)
    return Unread(reason=refusal.reason)


def _page(reply: Reply) -> SearchPage | Retry:
    body = json_object(reply)
    if isinstance(body, str):
        return Retry(reason=body)
    data = body.get("data")
    if not isinstance(data, list):
        return Retry(reason="Close's answer was not a page of a search")
    found = [_found(one) for one in data]
    records = tuple(one for one in found if one is not None)
    cursor = body.get("cursor")
    count = body.get("count")
    total = count.get("total") if isinstance(count, dict) else None
    return SearchPage(
        records=records,
        unreadable=len(found) - len(records),
        cursor=cursor if isinstance(cursor, str) and cursor else None,
        total=total if isinstance(total, int) else None,
    )


def _found(one: object) -> Found | None:
    if not isinstance(one, dict):
        return None
    object_id, created = one.get("id"), one.get("date_created")
    moment = parsed_time(created) if isinstance(created, str) else None
    if not isinstance(object_id, str) or not object_id or moment is None:
        return None
    return Found(id=object_id, second=int(moment.timestamp() // 1), data=one)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchWalk:
    """How far a walk has come; it can be written down and taken up again at any page.

    Attributes:
        since: the second at which the present window begins; earlier records are done.
        until: the second at which the walk ends, itself outside.
        met: what was met already of the second `since`.
        cursor: leads to the next page of the window; None to begin it.
        given: objects that the window has given so far.
        announced: objects that the window said it had, or None.
        expected: records that the first window said the whole walk had, or None.
        restarts: windows in a row that were cut short without a new record.
        skipped: seconds whose remaining records the search does not show.
        drained: everything between the first `since` and `until` has been met.
    """

    since: int = FIRST_SECOND
    until: int
    met: tuple[str, ...] = ()
    cursor: str | None = None
    given: int = 0
    announced: int | None = None
    expected: int | None = None
    restarts: int = 0
    skipped: tuple[int, ...] = ()
    drained: bool = False

    def keeps_order(self, page: SearchPage) -> bool:
        """Whether a page goes on oldest first, as it was asked for; the walk relies on it."""
        seconds = [self.since, *(one.second for one in page.records)]
        return all(one <= other for one, other in pairwise(seconds))

    def new(self, page: SearchPage) -> tuple[Found, ...]:
        """The records of a page that were not met before."""
        return tuple(
            one
            for one in page.records
            if self.since <= one.second < self.until and not (one.second == self.since and one.id in self.met)
        )

    def after(self, page: SearchPage) -> SearchWalk:
        """The walk once a page's new records are handled. The page must be in order."""
        new = self.new(page)
        since = new[-1].second if new else self.since
        of_that_second = tuple(one.id for one in new if one.second == since)
        announced = page.total if self.cursor is None else self.announced
        moved = replace(
            self,
            since=since,
            met=(*(self.met if since == self.since else ()), *of_that_second),
            cursor=page.cursor,
            given=self.given + page.size,
            announced=announced,
            expected=announced if self.expected is None else self.expected,
            restarts=0 if new else self.restarts,
        )
        if page.cursor is not None:
            return moved
        if announced is not None and moved.given < announced:
            return moved.restarted()
        return replace(moved, drained=True)

    def restarted(self) -> SearchWalk:
        """The walk with a new window, as the present one gives no more.

        Where that has happened again and again without a new record, the second at which it stands is passed
        over: it holds more than a search shows.
        """
        window = replace(self, cursor=None, given=0, announced=None, restarts=self.restarts + 1)
        if window.restarts <= MOST_RESTARTS:
            return window
        since = self.since + 1
        return replace(
            window,
            since=since,
            met=(),
            restarts=0,
            skipped=(*self.skipped, self.since),
            drained=since >= self.until,
        )


def utc(second: int) -> str:
    """A second as Close's `fixed_utc` writes it."""
    return dt.datetime.fromtimestamp(second, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
