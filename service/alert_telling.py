"""When alerts are told. Pure: what was told before and what is so now -> what to tell, and what to remember.

The promises, whatever happens and however often it changes:

- a condition is told when it begins, again every `REPEAT_SECONDS` while it lasts, and once when it is over;
- its beginning is told at most once in `AGAIN_SECONDS`, so that flapping does not spam;
- what counts grew by is told at most once in `COUNTS_EVERY_SECONDS` each, and no part of it is left out;
- at most `MOST_POSTS` messages in `WITHIN_SECONDS`; what has to wait comes together in the next one;
- nothing counts as told before it was delivered; a failing receiver is tried ever more seldom.

What is remembered lies in Redis, so neither a restart nor another process tells anything twice. Where a
message was delivered and Redis then could not take that in, it comes once more.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from service.alerts import MANNERS, Kind, conditions

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from service.alerts import Condition, Observation

REPEAT_SECONDS = 4 * 3600
AGAIN_SECONDS = 15 * 60
COUNTS_EVERY_SECONDS = 3600
MOST_POSTS = 10
WITHIN_SECONDS = 600
FIRST_RETRY_SECONDS = 30.0
LONGEST_RETRY_SECONDS = 600.0
LONGEST_RETRY_AFTER_SECONDS = 3600.0
"""A receiver that names a longer wait is tried after this all the same."""


class What(StrEnum):
    """What is told of a condition; `NEW` is what a count grew by."""

    BEGUN = "begun"
    STILL = "still"
    OVER = "over"
    NEW = "new"


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """One condition as it is remembered. Times are Unix milliseconds.

    Attributes:
        kind: what it is about.
        words: what is, or was, wrong.
        since_ms: when it began.
        seen_ms: when it was last seen to hold.
        holds: whether it does.
        told_ms: when it was last told that it holds; None where nobody knows, or knows that it is over.
        begun_ms: when its beginning was last told, of this time or one before; None for never.
    """

    kind: Kind
    words: str
    since_ms: int
    seen_ms: int
    holds: bool = True
    told_ms: int | None = None
    begun_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """One count: how much it is, how much of that is yet to be told since when, and when it was told last."""

    level: int = 0
    new: int = 0
    since_ms: int = 0
    told_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """All that is remembered.

    Attributes:
        watched: conditions by their key.
        counted: counts by their kind.
        posts_ms: when the latest messages were sent.
        failures: how many in a row were not delivered.
        not_before_ms: no message before that.
        logged: what was written to the log and could not be delivered yet.
        halted_ms: when calls were last seen to be halted.
    """

    watched: dict[str, Watched] = field(default_factory=dict)
    counted: dict[Kind, Counted] = field(default_factory=dict)
    posts_ms: tuple[int, ...] = ()
    failures: int = 0
    not_before_ms: int = 0
    logged: tuple[str, ...] = ()
    halted_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """Something to tell.

    Attributes:
        what: that it began, still is, is over, or is new.
        kind: what it is about.
        key: the condition's name, or the kind.
        words: what is, or was, wrong.
        since_ms: since when.
        until_ms: when it was last so, if it is over.
        count: what a count grew by; 0 for conditions.
    """

    what: What
    kind: Kind
    key: str
    words: str
    since_ms: int
    until_ms: int | None = None
    count: int = 0

    @property
    def name(self) -> str:
        """Tells it from other alerts that are due."""
        return f"{self.what} {self.key}"


def note(told: Told, observation: Observation, *, oldest_job_seconds: float | None) -> Told:
    """Take in what is so now; nothing counts as told by that.

    Args:
        told: what is remembered.
        observation: what was seen; never older than the one before, but for a clock put back.
        oldest_job_seconds: see `service.alerts.conditions`.
    """
    now_ms = observation.now_ms
    halted_ms = told.halted_ms if observation.halt is None else now_ms
    holding = {
        one.key: one
        for one in conditions(observation, oldest_job_seconds=oldest_job_seconds, halted_ms=halted_ms)
    }
    watched = {key: _begun_or_on(told.watched.get(key), one, now_ms) for key, one in holding.items()}
    for key, one in told.watched.items():
        if key in holding:
            continue
        if one.kind in observation.unknown:
            watched[key] = one
        elif one.told_ms is not None or _lately(one.begun_ms, now_ms, AGAIN_SECONDS):
            watched[key] = replace(one, holds=False)
    counted = {
        kind: _grown(told.counted.get(kind, Counted()), level, now_ms)
        for kind, level in observation.counts.items()
    }
    return replace(told, watched=watched, counted=counted, halted_ms=halted_ms)


def due(told: Told, *, now_ms: int) -> tuple[Alert, ...]:
    """All that is to be told now, the most urgent first.

    Args:
        told: what is remembered, with `note` of this moment taken in.
        now_ms: the moment, Unix milliseconds.
    """
    found = [*_conditions_due(told, now_ms), *_counts_due(told, now_ms)]
    order = list(Kind)
    return tuple(sorted(found, key=lambda one: (order.index(one.kind), one.since_ms, one.name)))


def may_post(told: Told, *, now_ms: int) -> bool:
    """Whether a message may be sent now: not too many lately, and the receiver's trouble is waited for."""
    # a clock that was put back must not silence alerts for long
    waits = 0 < told.not_before_ms - now_ms <= LONGEST_RETRY_AFTER_SECONDS * 1000
    return not waits and len(_recent(told.posts_ms, now_ms)) < MOST_POSTS


def attempted(told: Told, alerts: Sequence[Alert], *, now_ms: int) -> Told:
    """A message with these alerts is about to be sent: it counts, whatever comes of it."""
    posts_ms = (*_recent(told.posts_ms, now_ms), now_ms)
    return replace(told, posts_ms=posts_ms, logged=tuple(one.name for one in alerts))


def delivered(told: Told, alerts: Sequence[Alert], *, now_ms: int) -> Told:
    """These alerts have reached somebody."""
    watched, counted = dict(told.watched), dict(told.counted)
    for alert in alerts:
        if alert.what is What.NEW:
            before = counted[alert.kind]
            counted[alert.kind] = replace(before, new=before.new - alert.count, told_ms=now_ms)
            continue
        one = watched[alert.key]
        begun_ms = now_ms if alert.what is What.BEGUN else one.begun_ms
        told_ms = None if alert.what is What.OVER else now_ms
        watched[alert.key] = replace(one, told_ms=told_ms, begun_ms=begun_ms)
    return replace(told, watched=watched, counted=counted, failures=0, not_before_ms=0, logged=())


def failed(told: Told, *, now_ms: int, retry_after_seconds: float | None = None) -> Told:
    """A message did not reach anybody.

    Args:
        told: what is remembered.
        now_ms: the moment, Unix milliseconds.
        retry_after_seconds: how long the receiver wants to be left alone, where it says so.
    """
    wait_seconds = min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** min(told.failures, 20))
    if retry_after_seconds is not None:
        wait_seconds = min(LONGEST_RETRY_AFTER_SECONDS, max(wait_seconds, retry_after_seconds))
    return replace(told, failures=told.failures + 1, not_before_ms=now_ms + round(wait_seconds * 1000))


def encode(told: Told) -> bytes:
    """As it is kept in Redis."""
    return msgspec.json.encode(told)


def decode(kept: bytes | None) -> Told:
    """What was kept; what cannot be read, perhaps another release's, is forgotten: all is told anew."""
    if kept is None:
        return Told()
    try:
        return msgspec.json.decode(kept, type=Told)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Told()


def _begun_or_on(before: Watched | None, one: Condition, now_ms: int) -> Watched:
    goes_on = before is not None and (before.holds or before.told_ms is not None)
    if before is not None and goes_on:
        return replace(before, words=one.words, seen_ms=now_ms, holds=True)
    return Watched(
        kind=one.kind,
        words=one.words,
        since_ms=now_ms if one.since_ms is None else one.since_ms,
        seen_ms=now_ms,
        begun_ms=None if before is None else before.begun_ms,
    )


def _grown(before: Counted, level: int, now_ms: int) -> Counted:
    more = max(0, level - before.level)
    since_ms = now_ms if more and not before.new else before.since_ms
    return replace(before, level=level, new=before.new + more, since_ms=since_ms)


def _conditions_due(told: Told, now_ms: int) -> Iterator[Alert]:
    for key, one in told.watched.items():
        what = _what_is_due(one, now_ms)
        if what is not None:
            yield Alert(
                what=what,
                kind=one.kind,
                key=key,
                words=one.words,
                since_ms=one.since_ms,
                until_ms=one.seen_ms if what is What.OVER else None,
            )


def _what_is_due(one: Watched, now_ms: int) -> What | None:
    manner = MANNERS[one.kind]
    if not one.holds:
        gone = now_ms - one.seen_ms >= manner.over_after_seconds * 1000
        return What.OVER if gone and one.told_ms is not None else None
    if one.told_ms is None:
        lasts = now_ms - one.since_ms >= manner.hold_seconds * 1000
        return What.BEGUN if lasts and not _lately(one.begun_ms, now_ms, AGAIN_SECONDS) else None
    # what could not be looked at now is not repeated
    return What.STILL if one.seen_ms == now_ms and not _lately(one.told_ms, now_ms, REPEAT_SECONDS) else None


def _counts_due(told: Told, now_ms: int) -> Iterator[Alert]:
    for kind, one in told.counted.items():
        if one.new and not _lately(one.told_ms, now_ms, COUNTS_EVERY_SECONDS):
            yield Alert(
                what=What.NEW,
                kind=kind,
                key=str(kind),
                words=_count_words(kind, one),
                since_ms=one.since_ms,
                count=one.new,
            )


def _count_words(kind: Kind, one: Counted) -> str:
    if kind is Kind.DEAD_LETTERS:
        return f"{one.new} more ended so that a person has to look; {one.level} dead letters in all"
    if kind is Kind.QUARANTINE:
        return f"{one.new} more deliveries could not be read; {one.level} in quarantine"
    return f"{one.new} events were never delivered; found in Close's event log, and planned now"


def _lately(at_ms: int | None, now_ms: int, seconds: float) -> bool:
    """Whether that was less than so long ago. A time to come, of a clock that was put back, was long ago."""
    return at_ms is not None and 0 <= now_ms - at_ms < seconds * 1000


def _recent(posts_ms: Sequence[int], now_ms: int) -> tuple[int, ...]:
    return tuple(one for one in posts_ms if _lately(one, now_ms, WITHIN_SECONDS))
