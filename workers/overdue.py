"""Which overdue entries have really been lost, at a cost that grows with the line and not with its square.

Redis finds a job in a queue only by reading it from one end. So nobody searches: the lines are walked, a part
with each pass, and every entry whose job is met there, and that is overdue or soon would be, is looked at
again after the grace, and when its turn may have come. What has been overdue since before a walk, and is so
after it, was not met: its job is gone. A line of up to `WALK_AT_ONCE` is walked within one pass.

A job that is moved while a walk goes on might be missed by it. Its entry is then put back with another job,
and the first one finds, when it is its turn, that it delivers nothing any more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from service import jobs, keys
from service.accept import GRACE_MS
from service.enrichment import USUAL_QUEUE
from service.redis_text import texts
from service.scripts import Script, script_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis

PAGE = 250
"""Jobs or entries in one step in Redis: 1 to 5 ms."""
WALK_AT_ONCE = 20_000
"""So many jobs are read in one pass: a million within 250 s."""
LOOK_AT_ONCE = 10_000
"""So many overdue entries are looked at in one pass: more than are overdue but after a long standstill."""
WALK_EVERY_SECONDS = GRACE_MS / 1000 / 4
SOON_MS = GRACE_MS // 2
"""What would be overdue so soon is vouched for as well: longer than a walk of a million jobs, so that healthy
entries of a long line do not become overdue at all."""
LEAST_MS_A_JOB = 10
"""A line moves no faster: Close allows some 60 calls a second. An entry is looked at later by so much for
each job before its own, since its turn cannot have come; those of a long line are vouched for seldom."""


@dataclass(slots=True, kw_only=True)
class _Walk:
    """How far a walk has come.

    From the end of each queue to its beginning, counted from its end: jobs that are taken change no place,
    and jobs that are added move others on to where the walk meets them once more.

    Attributes:
        overdue_ms: up to this moment, whatever was overdue had been looked at when it began.
        queue: which of the queues.
        read: how many of its jobs.
    """

    overdue_ms: float
    queue: int = 0
    read: int = 0


class Overdue:
    """Tells the lost from those that wait. Remembers how far it has come; forgetting that costs only time.

    Args:
        redis: where queues and ledger are.
        newest_version: entries that a newer release has written are left to that release.
        clock: seconds, for how often the lines are walked.
    """

    def __init__(self, redis: Redis, *, newest_version: int, clock: Callable[[], float]) -> None:
        self._vouch = Script(redis, script_text("vouch", package="workers"))
        self._overdue = Script(redis, script_text("overdue", package="workers"))
        self._newest_version = newest_version
        self._clock = clock
        self._walk: _Walk | None = None
        self._walked_at = float("-inf")
        self._wanted = False
        self._looked_until_ms = 0.0
        self._unmet_is_lost_ms = 0.0

    async def look(self, *, most: int) -> list[str]:
        """Entries that nobody works on, in hands that fell silent or without a job; about `most`, if so many.

        Args:
            most: when to stop looking. What is returned and not put back is returned again.
        """
        lost: list[str] = []
        looked, stay, more = 0, 0, True
        while more and len(lost) < most and looked < LOOK_AT_ONCE:
            page = min(PAGE, most)
            has_more, stays, unmet, last, found = await self._overdue(
                keys=[
                    keys.ACTIVE,
                    keys.entry(""),
                    jobs.job_key(""),
                    *(
                        key
                        for queue in jobs.QUEUES
                        for key in (jobs.scheduled_key(queue), jobs.intermediate_key(queue))
                    ),
                ],
                args=[
                    stay,
                    page,
                    GRACE_MS,
                    self._newest_version,
                    self._unmet_is_lost_ms,
                    USUAL_QUEUE,
                    *jobs.QUEUES,
                ],
            )
            lost += texts(found)
            stay += stays
            looked += page
            more = bool(has_more)
            self._wanted |= bool(unmet)
            self._looked_until_ms = float(last) if last else self._looked_until_ms
        if not more:
            # all that the last walk has not met is known; it proves nothing about what changes from now on
            self._unmet_is_lost_ms = 0.0
        return lost

    async def walk(self) -> bool:
        """Walk on through the lines, if it is time or something overdue may be in them; True at their end."""
        if self._walk is None:
            if not self._wanted and self._clock() - self._walked_at < WALK_EVERY_SECONDS:
                return False
            self._walk = _Walk(overdue_ms=self._looked_until_ms)
            self._walked_at = self._clock()
            self._wanted = False
        walk, left = self._walk, WALK_AT_ONCE
        while left > 0:
            read = await self._vouch(
                keys=[
                    keys.ACTIVE,
                    jobs.queue_key(jobs.QUEUES[walk.queue]),
                    keys.entry(""),
                    jobs.job_key(""),
                ],
                args=[-walk.read - PAGE, -walk.read - 1, SOON_MS, GRACE_MS, LEAST_MS_A_JOB],
            )
            walk.read += read
            left -= read
            if read < PAGE:
                walk.queue, walk.read = walk.queue + 1, 0
            if walk.queue == len(jobs.QUEUES):
                self._unmet_is_lost_ms = max(self._unmet_is_lost_ms, walk.overdue_ms)
                self._walk = None
                return True
        return False
