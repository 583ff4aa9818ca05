"""What one worker does for all, every half second: due jobs move on, lost work is put back.

Every step is safe to do twice, so the lease only saves work; it does not guard correctness.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from service import jobs, keys
from service.enrichment import ENTRY_VERSION, State
from service.redis_text import texts
from service.scripts import Script, script_text
from service.since import note_since
from service.transitions import Postponement
from workers.conclusion import READ_BACK_DELAY_SECONDS
from workers.lease import Lease
from workers.overdue import Overdue

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis
    from structlog.typing import FilteringBoundLogger

    from service.enrichment import Entry
    from service.ledger import Ledger

TICK_SECONDS = 0.25
LEASE_SECONDS = 5
MOST_AT_ONCE = 500
SWEEP_EVERY_SECONDS = 5.0
STUCK_SECONDS = 10.0
"""A job that was popped and not started for so long belonged to a worker that died in between."""


class Housekeeper:
    """Keeps queues and ledger moving. Every worker runs one; the lease lets one at a time act.

    While two releases run side by side, one of each does: an older one cannot judge a newer one's entries.
    """

    def __init__(
        self, ledger: Ledger, *, worker: str, clock: Callable[[], float], log: FilteringBoundLogger
    ) -> None:
        self._ledger = ledger
        self._redis: Redis = ledger.redis
        self._lease = Lease(
            self._redis, key=keys.housekeeper(ENTRY_VERSION), owner=worker, seconds=LEASE_SECONDS
        )
        self._clock = clock
        self._log = log
        self._restore = Script(self._redis, script_text("restore", package="workers"))
        self._overdue = Overdue(self._redis, newest_version=ENTRY_VERSION, clock=clock)
        self._first_seen: dict[str, float] = {}
        self._swept_at = float("-inf")

    async def run(self) -> None:
        """Tick until cancelled. While Redis is away, nothing can be done and nothing is lost."""
        try:
            while True:
                await self._tick_if_mine()
                await asyncio.sleep(TICK_SECONDS)
        finally:
            # the next worker need not wait for the lease to run out
            with contextlib.suppress(RedisError):
                await self._lease.give_up()

    async def _tick_if_mine(self) -> None:
        try:
            if await self._lease.take():
                await self.tick()
        except RedisError as error:
            self._log.warning("housekeeping waits for Redis", error=type(error).__name__)
        except Exception:  # noqa: BLE001  nothing would move any more if this ended
            self._log.exception("housekeeping went wrong and goes on")

    async def tick(self) -> None:
        """Do what is due now."""
        for queue in jobs.QUEUES:
            await self._promote_due(queue)
        if self._clock() - self._swept_at >= SWEEP_EVERY_SECONDS:
            self._swept_at = self._clock()
            if await note_since(self._redis):
                self._log.warning("Redis has lost everything: Close's event log has what was planned")
            for queue in jobs.QUEUES:
                await self._restore_stuck(queue)
                await self._bury_abandoned(queue)
            await self.sweep()

    async def _promote_due(self, queue: str) -> None:
        seconds, microseconds = await self._redis.time()
        due = await self._redis.zrangebyscore(
            jobs.scheduled_key(queue), "-inf", seconds + microseconds / 1e6, start=0, num=MOST_AT_ONCE
        )
        if due:
            await self._ledger.promote(queue, texts(due))

    async def _restore_stuck(self, queue: str) -> None:
        now = self._clock()
        present = set(texts(await self._redis.lrange(jobs.intermediate_key(queue), 0, -1)))
        mine = {key for key in self._first_seen if key.startswith(f"{queue} ")}
        for key in mine - {f"{queue} {job_id}" for job_id in present}:
            del self._first_seen[key]
        for job_id in present:
            seen_at = self._first_seen.setdefault(f"{queue} {job_id}", now)
            if now - seen_at > STUCK_SECONDS:
                del self._first_seen[f"{queue} {job_id}"]
                list_keys = [jobs.intermediate_key(queue), jobs.queue_key(queue)]
                if await self._restore(keys=list_keys, args=[job_id]):
                    self._log.warning("put back a job that was never started", job=job_id)

    async def _bury_abandoned(self, queue: str) -> None:
        """Remove what RQ holds of dead workers' jobs; their entries are the sweeper's business."""
        started = jobs.started_key(queue)
        seconds, _ = await self._redis.time()
        for execution in texts(await self._redis.zrangebyscore(started, "-inf", seconds, 0, MOST_AT_ONCE)):
            job_id = execution.partition(":")[0]
            async with self._redis.pipeline() as pipeline:
                pipeline.zrem(started, execution)
                pipeline.delete(jobs.job_key(job_id))
                await pipeline.execute()

    async def sweep(self) -> int:
        """Put back what nobody works on although it is due; how many entries that were.

        An entry in hand is overdue when its lease has run out; one in a queue, long after it was due and only
        if its job is gone (see `workers.overdue`). What cannot be read is left to others, and so is what a
        newer release has written: it stays overdue, for that release's housekeeper.
        """
        put_back = await self._put_back_overdue()
        if await self._overdue.walk():
            put_back += await self._put_back_overdue()
        return put_back

    async def _put_back_overdue(self) -> int:
        put_back = 0
        for of_entry in await self._overdue.look(most=MOST_AT_ONCE):
            if (entry := await self._readable(of_entry)) is None:
                await self._ledger.look_later(of_entry)
            else:
                put_back += await self._put_back(entry)
        return put_back

    async def _readable(self, of_entry: str) -> Entry | None:
        try:
            return await self._ledger.entry(of_entry)
        except ValueError as error:
            self._log.warning("cannot read an entry", enrichment=of_entry, error=str(error))
            return None

    async def _put_back(self, entry: Entry) -> bool:
        calling = entry.state is State.CALLING
        then = Postponement(
            reason="its worker was lost during the call" if calling else "its worker was lost",
            delay_seconds=READ_BACK_DELAY_SECONDS if calling else 0.0,
            ambiguous=calling,
            overdue_seconds=0.0,
        )
        rescued = await self._ledger.postpone(entry, then, fence=entry.fence)
        if rescued:
            self._log.warning("rescued", enrichment=entry.id, rule=entry.rule, calling=calling)
        return rescued
