"""Walking Close's event log by itself: in one worker at a time, every few minutes and when work begins."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from service import keys
from service.accept import StoreUnavailableError
from service.tasks import cancel_all
from workers.lease import Lease

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis
    from structlog.typing import FilteringBoundLogger

    from workers.log_report import Report
    from workers.reconcile import Reconciler

LOOK_SECONDS = 1.0
"""How often a worker looks whether a walk is due."""

LEASE_SECONDS = 30
RETRY_SECONDS = 30.0
"""How soon a walk that did not come to its end is begun again."""

LEAVE_SECONDS = 120.0
"""Younger events are left to their deliveries: one that failed is tried again after a minute."""


class ReconcileLoop:
    """Every worker runs one; a lease lets one at a time walk, and a note in Redis says when it is due again.

    Args:
        redis: where lease and note are.
        reconciler: walks.
        ready: whether events can be planned by now.
        worker: this worker's name.
        every_seconds: how long after a walk the next one is due.
        log: tells of trouble.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        reconciler: Reconciler,
        ready: Callable[[], bool],
        worker: str,
        every_seconds: float,
        log: FilteringBoundLogger,
    ) -> None:
        self._redis = redis
        self._reconciler = reconciler
        self._ready = ready
        self._every_seconds = every_seconds
        self._log = log
        self._lease = Lease(redis, key=keys.RECONCILER, owner=worker, seconds=LEASE_SECONDS)

    async def run(self) -> None:
        """Walk whenever it is due, until cancelled; what could not be walked is walked later."""
        while True:
            pause_seconds = LOOK_SECONDS
            try:
                await self.walk_if_due()
            except (RedisError, StoreUnavailableError, OSError) as error:
                self._log.warning("walking the event log waits for Redis", error=type(error).__name__)
            except Exception:  # noqa: BLE001  nothing missed would be found any more if this ended
                self._log.exception("walking the event log went wrong and is tried again")
                pause_seconds = RETRY_SECONDS
            await asyncio.sleep(pause_seconds)

    async def walk_if_due(self) -> Report | None:
        """Walk if it is due and no other worker does; None where nothing was to be done.

        Raises:
            redis.RedisError, StoreUnavailableError: Redis is away.
        """
        if not self._ready() or not await self._due() or not await self._lease.take():
            return None
        keeping = asyncio.create_task(self._keep_lease())
        try:
            # another one may have finished just before the lease was ours
            return await self._walk() if await self._due() else None
        finally:
            await cancel_all([keeping])
            with contextlib.suppress(RedisError):
                await self._lease.give_up()

    async def _due(self) -> bool:
        asked, lately = (
            await self._redis.exists(keys.RECONCILE_NOW),
            await self._redis.exists(keys.RECONCILED),
        )
        return bool(asked or not lately)

    async def _walk(self) -> Report:
        # both notes go first: a worker that is killed leaves a walk that is due, and whoever asks meanwhile
        # gets another one
        asked = await self._redis.delete(keys.RECONCILE_NOW)
        await self._redis.delete(keys.RECONCILED)
        # who asks knows of deliveries that will not come
        leave_seconds = 0.0 if asked else min(LEAVE_SECONDS, self._every_seconds)
        report = await self._reconciler.catch_up(leave_seconds=leave_seconds)
        if report.total.missed:
            # alerts tell what this counter grows by
            await self._redis.incrby(keys.MISSED, report.total.missed)
        wait_seconds = self._every_seconds if report.drained else min(self._every_seconds, RETRY_SECONDS)
        await self._redis.set(keys.RECONCILED, "1", px=max(1, round(wait_seconds * 1000)))
        return report

    async def _keep_lease(self) -> None:
        while True:
            await asyncio.sleep(LEASE_SECONDS / 3)
            with contextlib.suppress(RedisError):
                await self._lease.take()
