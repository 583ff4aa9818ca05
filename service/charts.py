"""What happened minute by minute, for charts: bounded reads of what `service.meter` keeps for a day."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from service import keys
from service.histogram import added, quantile
from service.metrics_catalogue import (
    CALL_SECONDS,
    DONE,
    EVENTS,
    LEAD_TO_FILLED_SECONDS,
    PAID,
    PLANNED,
    SUM,
    WAITS,
    decode_series,
)
from service.redis_text import raw_hash

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from redis.asyncio import Redis

    from service.metrics_catalogue import Series

MOST_MINUTES = 1440
MINUTES_AT_ONCE = 120
"""Hashes read in one round trip."""

_NOTHING = (0,) * (len(LEAD_TO_FILLED_SECONDS.buckets) + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Minute:
    """What all processes did in one minute, or in several that were put together.

    Attributes:
        start_seconds: when it began, Unix seconds.
        events: deliveries by what became of them.
        planned: enrichments planned, without those that were planned already.
        outcomes: enrichments that ended, by their final state.
        waits: enrichments put back, by cause.
        calls: calls to Close by what came back; `rate_limited` are the 429s.
        paid: calls that Close may have charged for.
        filled: how long live enrichments took to be filled, counted in the buckets of
            `LEAD_TO_FILLED_SECONDS`, and beyond all of them.
    """

    start_seconds: int
    events: Mapping[str, int] = field(default_factory=dict)
    planned: int = 0
    outcomes: Mapping[str, int] = field(default_factory=dict)
    waits: Mapping[str, int] = field(default_factory=dict)
    calls: Mapping[str, int] = field(default_factory=dict)
    paid: int = 0
    filled: tuple[int, ...] = _NOTHING

    @property
    def ended(self) -> int:
        """Enrichments that ended."""
        return sum(self.outcomes.values())

    def filled_seconds(self, share: float) -> float | None:
        """In how many seconds so large a share was filled: 0.5 for the median; None where nothing was."""
        return quantile(share, bounds=LEAD_TO_FILLED_SECONDS.buckets, counts=self.filled)


async def minutes(redis: Redis, *, minutes: int, now: float) -> list[Minute]:
    """The newest minutes, oldest first, the one that is not over yet last; empty ones included.

    Args:
        redis: where they are.
        minutes: how many, from 1 to `MOST_MINUTES`.
        now: Unix seconds.

    Raises:
        ValueError: that is too many, or none.
        redis.RedisError: Redis cannot be asked.
    """
    if not 1 <= minutes <= MOST_MINUTES:
        raise ValueError(f"expected 1 to {MOST_MINUTES} minutes, not {minutes}")
    last = int(now // 60)
    wanted = range(last - minutes + 1, last + 1)
    found: list[Minute] = []
    for start in range(0, minutes, MINUTES_AT_ONCE):
        some = wanted[start : start + MINUTES_AT_ONCE]
        async with redis.pipeline(transaction=False) as pipeline:
            for number in some:
                pipeline.hgetall(keys.minute(number))
            rows = await pipeline.execute()
        found += [_minute(number, raw_hash(raw)) for number, raw in zip(some, rows, strict=True)]
    return found


def fold(some: Sequence[Minute], *, size: int) -> list[Minute]:
    """Minutes put together, `size` of them in one, so that the last one is whole; for charts of a long time.

    Args:
        some: one after the other.
        size: how many make one, at least 1.

    Raises:
        ValueError: the size is less than 1.
    """
    if size < 1:
        raise ValueError(f"expected at least 1 minute in one, not {size}")
    first = len(some) % size
    groups = [some[:first]] if first else []
    groups += [some[start : start + size] for start in range(first, len(some), size)]
    return [_together(group) for group in groups]


def _together(some: Sequence[Minute]) -> Minute:
    return Minute(
        start_seconds=some[0].start_seconds,
        events=_sum(one.events for one in some),
        planned=sum(one.planned for one in some),
        outcomes=_sum(one.outcomes for one in some),
        waits=_sum(one.waits for one in some),
        calls=_sum(one.calls for one in some),
        paid=sum(one.paid for one in some),
        filled=added([one.filled for one in some], length=len(_NOTHING)),
    )


def _sum(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(total)


@lru_cache(maxsize=4096)
def _series(name: bytes) -> Series | None:
    """A series of a minute by its name; a day has the same few names 1440 times."""
    return decode_series(name, charted=True)


def _minute(number: int, raw: Mapping[bytes, bytes]) -> Minute:
    """One minute's hash; what another version may have written is left out."""
    by_word: dict[str, Counter[str]] = {
        one.name: Counter() for one in (EVENTS, PLANNED, DONE, WAITS, CALL_SECONDS)
    }
    paid = 0
    filled = list(_NOTHING)
    for name, value in raw.items():
        series = _series(name)
        if series is None or series.part == SUM:
            continue
        if series.family == PAID.name:
            paid += int(value)
        elif series.family == LEAD_TO_FILLED_SECONDS.name:
            if series.words == ("live",):
                filled[int(series.part)] += int(value)
        else:
            by_word[series.family][series.words[0]] += int(value)
    planned = by_word[PLANNED.name]
    return Minute(
        start_seconds=number * 60,
        events=by_word[EVENTS.name],
        planned=planned.total() - planned["duplicate"],
        outcomes=by_word[DONE.name],
        waits=by_word[WAITS.name],
        calls=by_word[CALL_SECONDS.name],
        paid=paid,
        filled=tuple(filled),
    )


def ended_per_minute(chart: Sequence[Minute], *, now: float) -> float:
    """How many enrichments ended in a minute lately: since the first minute given in which any did.

    Args:
        chart: minutes in their order, the last one not over yet.
        now: Unix seconds.
    """
    first = next((one for one in chart if one.ended), None)
    if first is None:
        return 0.0
    return sum(one.ended for one in chart) / max(1.0, (now - first.start_seconds) / 60)
