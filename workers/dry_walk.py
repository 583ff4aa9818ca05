"""Walking Close's event log to look at it only: nothing is planned, and no ledger is asked or told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from workers.log_walk import DeadCursor, Page, TooLong, Unread, Walk

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import AsyncIterator, Callable, Iterable

    from service.event import Event
    from workers.dry_tally import Tally
    from workers.log_reader import LogReader
    from workers.log_walk import Pair


@dataclass(frozen=True, slots=True, kw_only=True)
class WalkedPair:
    """One kind of event, walked.

    Attributes:
        pair: object type and action.
        events: how many there were.
        unreadable: how many entries of the log are no events that can be read.
        problem: why the walk did not come to its end, or None.
    """

    pair: Pair
    events: int = 0
    unreadable: int = 0
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A page's events that are in the window, and how many entries could not be read."""

    events: tuple[Event, ...]
    unreadable: int


async def stretches(reader: LogReader, pair: Pair, walk: Walk) -> AsyncIterator[Stretch | Unread]:
    """The window's events page by page, newest first; where the walk cannot go on, the reason last.

    Raises:
        redis.RedisError: the limiter stayed away for longer than its client retries.
    """
    while not walk.drained:
        reading = await reader.read(pair, walk)
        if isinstance(reading, Page):
            yield Stretch(events=walk.to_handle(reading), unreadable=len(reading.unreadable))
            walk = walk.after(reading)
            continue
        onwards = _onwards(reading, walk)
        if isinstance(onwards, Unread):
            yield onwards
            return
        walk = onwards


def _onwards(reading: DeadCursor | TooLong | Unread, walk: Walk) -> Walk | Unread:
    """The walk after a page that was none, or why there is no going on."""
    if isinstance(reading, DeadCursor):
        return walk.restarted() or Unread(reason="Close forgets its cursors too soon")
    if isinstance(reading, TooLong):
        return walk.narrowed() or Unread(reason="a single event is too long to be read")
    return reading


async def walk_log(
    reader: LogReader,
    pairs: Iterable[Pair],
    tallies: Iterable[Tally],
    *,
    since: dt.datetime,
    told: Callable[[Pair, int, str], None],
) -> list[WalkedPair]:
    """Show every event since a moment to every tally.

    Args:
        reader: reads the log.
        pairs: the kinds of events.
        tallies: add them up, each for its rules.
        since: where the window begins.
        told: hears after each page of which kind it is, how many events there have been of it, and how far
            back they go.

    Raises:
        redis.RedisError: the limiter stayed away for longer than its client retries.
    """
    everyone = tuple(tallies)
    walked = []
    for pair in pairs:
        events = unreadable = 0
        problem = None
        async for stretch in stretches(reader, pair, Walk(since=since)):
            if isinstance(stretch, Unread):
                problem = stretch.reason
                continue
            for event in stretch.events:
                for tally in everyone:
                    tally.add(event)
            events += len(stretch.events)
            unreadable += stretch.unreadable
            told(pair, events, stretch.events[-1].date_updated if stretch.events else "")
        walked.append(WalkedPair(pair=pair, events=events, unreadable=unreadable, problem=problem))
    return walked
