"""Counting in this process, and adding it up in Redis for all of them.

Counting is an addition in a dictionary. Every two seconds what has gathered is added to one hash in Redis,
in one step that counts once even if its answer is lost and it is sent again. So any web process shows the
numbers of all processes on all machines, and a restart sets nothing back. A process that is killed takes at
most its last two seconds with it; the ledger, the price list and the budgets are exact.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

import msgspec
from redis.exceptions import RedisError

from service import keys
from service.metrics_catalogue import MOST_RULES, OTHER, SUM, Family, Series, charted_series, encode_series
from service.scripts import Script, script_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis
    from structlog.typing import FilteringBoundLogger

FLUSH_EVERY_SECONDS = 2.0
LAST_FLUSH_SECONDS = 1.0
"""How long the end of a process waits for its last counts to be added up."""

MINUTE_TTL_SECONDS = 26 * 3600
MARK_TTL_SECONDS = 3600
"""For so long Redis knows which flush of a process it has added up."""

MOST_MINUTES_KEPT = 120
"""While Redis is away, the charts lose minutes older than these; the totals lose nothing."""

STALE_SECONDS = 15.0
"""What a process told of itself longer ago is not believed."""

_Key: TypeAlias = tuple[Family, tuple[str, ...], str]


@lru_cache(maxsize=2000)
def _words(family: Family, **labels: str) -> tuple[str, ...]:
    """As `Family.words`; remembered, as the same are counted again and again."""
    return family.words(labels)


class Now(msgspec.Struct, frozen=True, kw_only=True):
    """What a process tells of itself at a moment.

    Attributes:
        waiting: calls that wait for their turn, by endpoint group.
        limiters: the Redis key of each group's limiter.
    """

    waiting: dict[str, int]
    limiters: dict[str, str]


@dataclass(slots=True)
class _Batch:
    """What is added up in one step: of all time, and by Unix minute."""

    totals: Counter[_Key] = field(default_factory=Counter)
    minutes: dict[int, Counter[Series]] = field(default_factory=dict)

    def add(self, counts: Counter[_Key], *, minute: int) -> None:
        self.totals.update(counts)
        for key, amount in counts.items():
            series = charted_series(*key)
            if series is not None:
                self.minutes.setdefault(minute, Counter())[series] += amount
        for old in sorted(self.minutes)[:-MOST_MINUTES_KEPT]:
            del self.minutes[old]


class Meter:
    """Counts for one process. `count` and `observe` do no I/O; for one event loop.

    Args:
        redis: where everything is added up.
        clock: Unix seconds, for the minutes of the charts.
        log: says once when counts wait for Redis.
        now: what this process tells of itself; None for nothing.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        clock: Callable[[], float],
        log: FilteringBoundLogger,
        now: Callable[[], Now] | None = None,
    ) -> None:
        self._redis = redis
        self._clock = clock
        self._log = log
        self._now = now
        # two processes with one name would take each other's flushes for their own
        self._process = uuid.uuid4().hex
        self._script = Script(redis, script_text("count"))
        self._counts: Counter[_Key] = Counter()
        self._next = _Batch()
        self._sent: _Batch | None = None
        self._seq = 0
        self._flushing = asyncio.Lock()

    def count(self, family: Family, **labels: str) -> None:
        """Add one to a counter.

        Args:
            family: which one.
            labels: a word for each of its labels.

        Raises:
            KeyError: a label is missing.
        """
        self._counts[family, _words(family, **labels), ""] += 1

    def observe(self, family: Family, seconds: float, **labels: str) -> None:
        """Add an observation to a histogram.

        Args:
            family: which one.
            seconds: what was measured; a clock that was set back counts as 0.
            labels: a word for each of its labels.

        Raises:
            KeyError: a label is missing.
        """
        seconds = max(0.0, seconds)
        words = _words(family, **labels)
        self._counts[family, words, family.bucket(seconds)] += 1
        self._counts[family, words, SUM] += round(seconds * 1e6)

    async def flush(self) -> None:
        """Add up in Redis what has gathered.

        Raises:
            redis.RedisError, OSError: Redis is away; everything is kept and added up later.
        """
        async with self._flushing:
            self._gather()
            if self._sent is not None:
                # its answer was lost: sent as it was, it counts once
                await self._send(self._sent)
            if self._next.totals or self._now is not None:
                self._seq += 1
                self._sent, self._next = self._next, _Batch()
                await self._send(self._sent)

    async def run(self) -> None:
        """Flush again and again until cancelled, and then once more."""
        told = False
        try:
            while True:
                await asyncio.sleep(FLUSH_EVERY_SECONDS)
                try:
                    await self.flush()
                    told = False
                except (RedisError, OSError) as error:
                    if not told:
                        self._log.warning("metrics wait for Redis", error=type(error).__name__)
                        told = True
                except Exception:  # noqa: BLE001  nothing would be counted any more if this ended
                    self._log.exception("metrics went wrong and go on")
        finally:
            with contextlib.suppress(RedisError, OSError):
                await self.flush()
                await self._redis.hdel(keys.METRICS_NOW, self._process)
                await self._redis.delete(keys.metrics_mark(self._process))

    def _gather(self) -> None:
        """Put what was counted since the last time into the minute of now."""
        counts, self._counts = self._counts, Counter()
        if counts:
            self._next.add(counts, minute=int(self._clock() // 60))

    async def _send(self, batch: _Batch) -> None:
        minutes = sorted(batch.minutes)
        wish = {
            "seq": str(self._seq),
            "mark_ttl": MARK_TTL_SECONDS,
            "most_rules": MOST_RULES,
            "minute_ttl": MINUTE_TTL_SECONDS,
            "process": self._process,
            "stale_ms": round(STALE_SECONDS * 1000),
            "now": "" if self._now is None else msgspec.json.encode(self._now()).decode(),
            "totals": [_total(*key, amount) for key, amount in batch.totals.items()],
            "minutes": [
                [(encode_series(series), str(amount)) for series, amount in batch.minutes[one].items()]
                for one in minutes
            ],
        }
        await self._script(
            keys=[
                keys.METRICS,
                keys.METRICS_RULES,
                keys.metrics_mark(self._process),
                keys.METRICS_NOW,
                *map(keys.minute, minutes),
            ],
            args=[msgspec.json.encode(wish)],
        )
        self._sent = None


def _total(family: Family, words: tuple[str, ...], part: str, amount: int) -> tuple[str, str, str, str]:
    """One line of the script's totals."""
    field_name = encode_series(Series(family.name, words, part))
    at = family.rule_at
    if at is None:
        return "", field_name, field_name, str(amount)
    without = (*words[:at], OTHER, *words[at + 1 :])
    return words[at], field_name, encode_series(Series(family.name, without, part)), str(amount)
