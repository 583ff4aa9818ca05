"""How a backfill is getting on: the states of its enrichments, looked at in turn, some thousand at a time."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from service import keys
from service.enrichment import State
from service.redis_text import text
from workers.backfill_match import event_id

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redis.asyncio import Redis

    from workers.backfill_run import Run, RunStore

MOST_AT_ONCE = 5000
"""Enrichments looked at in one go; the others' turn comes with the next looks."""

IN_ONE_TRIP = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far the workers are.

    Attributes:
        total: enrichments of the run.
        ended: how many of them have ended in which state.
        calls: calls that may have been charged for those.
        waits: why others wait, the most frequent reason in words; "" where none says so.
        elsewhere: enrichments that somebody else had planned before this run came to them.
        lost: enrichments that the ledger no longer knows.
    """

    total: int
    ended: Mapping[str, int] = field(default_factory=dict)
    calls: int = 0
    waits: str = ""
    elsewhere: int = 0
    lost: int = 0

    @property
    def done(self) -> int:
        """How many have ended, or are not this run's."""
        return sum(self.ended.values()) + self.elsewhere + self.lost

    @property
    def over(self) -> bool:
        """Whether all have ended."""
        return self.done >= self.total

    @property
    def found(self) -> int:
        """How many values were found."""
        return sum(self.ended.get(one, 0) for one in (State.FILLED, State.CONFIRMED, State.PREVIEWED))

    @property
    def empty(self) -> int:
        """How many ended without one, as Close found nothing."""
        return self.ended.get(State.EMPTY, 0)


def with_progress(run: Run, progress: Progress) -> Run:
    """The run with what it has come to so far."""
    return replace(run, outcomes=dict(progress.ended), calls=progress.calls, elsewhere=progress.elsewhere)


class Watch:
    """Looks at a run's enrichments until all have ended."""

    def __init__(self, redis: Redis, *, event: str) -> None:
        self._redis = redis
        self._event = event.encode()
        self._left: deque[tuple[str, int]] = deque()
        self._total = 0
        self._ended: Counter[str] = Counter()
        self._calls = 0
        self._elsewhere = 0
        self._lost = 0

    @classmethod
    async def of(cls, store: RunStore, run: Run, redis: Redis) -> Watch:
        """What looks at all that a run has found."""
        watch = cls(redis, event=event_id(run.id))
        for number in range(run.pages):
            for one in await store.page(run.id, number):
                watch._left.append((run.entry_of(one), one.calls_before or 0))
        watch._total = len(watch._left)
        return watch

    async def look(self) -> Progress:
        """Look at some of those that had not ended; the next look is at others.

        Raises:
            redis.RedisError: Redis is away.
        """
        waits: Counter[str] = Counter()
        turn = min(MOST_AT_ONCE, len(self._left))
        while turn:
            some = min(IN_ONE_TRIP, turn)
            turn -= some
            await self._look_at(some, waits)
        reason = max(waits, key=lambda one: waits[one], default="")
        return Progress(
            total=self._total,
            ended=dict(self._ended),
            calls=self._calls,
            waits=reason,
            elsewhere=self._elsewhere,
            lost=self._lost,
        )

    async def look_at_all(self) -> Progress:
        """Look at each of those that had not ended."""
        progress = await self.look()
        for _ in range(len(self._left) // MOST_AT_ONCE):
            progress = await self.look()
        return progress

    async def _look_at(self, count: int, waits: Counter[str]) -> None:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for at in range(count):
                pipeline.hmget(keys.entry(self._left[at][0]), ["state", "calls", "reason", "event"])
            rows = await pipeline.execute()
        for state, calls, reason, event in rows:
            of_entry, calls_before = self._left.popleft()
            if state is None:
                self._lost += 1
            elif event != self._event:
                self._elsewhere += 1
            elif (known := State(text(state))).final:
                self._ended[known.value] += 1
                self._calls += max(0, int(calls or 0) - calls_before)
            else:
                self._left.append((of_entry, calls_before))
                if known is State.WAITING and reason:
                    waits[text(reason)] += 1
