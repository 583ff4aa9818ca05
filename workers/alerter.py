"""Tells people what needs them: one process at a time looks every few seconds, and posts what is to be told.

Every worker and every `web` runs one; a lease lets one at a time look. So `web` tells that no worker is
alive. That no `web` is, nobody here tells: for that, have something probe `/readyz`.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from service import keys
from service.alert_telling import (
    What,
    attempted,
    decode,
    delivered,
    due,
    encode,
    failed,
    may_post,
    note,
)
from service.alert_text import instance_of, message, moment, plain
from service.alerts import MANNERS
from workers.alert_facts import Lookout
from workers.alert_post import AlertPoster
from workers.lease import Lease

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from redis.asyncio import Redis
    from structlog.typing import FilteringBoundLogger

    from service.alert_telling import Alert, Told
    from service.alerts import Observation
    from service.ledger import Ledger
    from service.rules import RuleBook
    from service.settings import Settings

TICK_SECONDS = 15.0
LEASE_SECONDS = 60
"""Longer than a tick and a post together."""

_FIELD = "told"


class Alerter:
    """Looks, decides by `service.alert_telling`, logs, posts and remembers.

    Args:
        redis: for the lease and what was told.
        look: sees how things are.
        poster: where alerts go; None for only the log.
        instance: how messages name this installation; see `service.alert_text.instance_of`.
        oldest_job_seconds: how long a live job may wait for a worker; None for any time.
        owner: this process's name, unique among those that look.
        log: one line for each alert, and what is wrong with posting.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        look: Callable[[], Awaitable[Observation]],
        poster: AlertPoster | None,
        instance: str,
        oldest_job_seconds: float | None,
        owner: str,
        log: FilteringBoundLogger,
    ) -> None:
        self._redis = redis
        self._look = look
        self._poster = poster
        self._instance = instance
        self._oldest_job_seconds = oldest_job_seconds
        self._log = log
        self._lease = Lease(redis, key=keys.ALERTER, owner=owner, seconds=LEASE_SECONDS)

    async def run(self) -> None:
        """Look again and again until cancelled."""
        try:
            while True:
                try:
                    if await self._lease.take():
                        await self.tick()
                except (RedisError, OSError) as error:
                    self._log.warning("alerts wait for Redis", error=type(error).__name__)
                except Exception:  # noqa: BLE001  nobody would be told anything any more if this ended
                    self._log.exception("alerts went wrong and go on")
                await asyncio.sleep(TICK_SECONDS)
        finally:
            # the next process need not wait for the lease to run out
            with contextlib.suppress(RedisError, OSError):
                await self._lease.give_up()

    async def tick(self) -> None:
        """Look once, and tell what is to be told.

        Raises:
            redis.RedisError: Redis cannot be asked.
        """
        observation = await self._look()
        now_ms = observation.now_ms
        told = note(await read_told(self._redis), observation, oldest_job_seconds=self._oldest_job_seconds)
        alerts = due(told, now_ms=now_ms)
        if alerts and may_post(told, now_ms=now_ms):
            self._write(alerts, logged=told.logged)
            told = attempted(told, alerts, now_ms=now_ms)
            # kept first: should Redis take nothing more after the post, the limit holds all the same
            await self._keep(told)
            told = await self._tell(told, alerts, now_ms=now_ms)
        await self._keep(told)

    async def _tell(self, told: Told, alerts: Sequence[Alert], *, now_ms: int) -> Told:
        if self._poster is None:
            return delivered(told, alerts, now_ms=now_ms)
        posted = await self._poster.post(message(alerts, instance=self._instance))
        if posted.delivered:
            return delivered(told, alerts, now_ms=now_ms)
        told = failed(told, now_ms=now_ms, retry_after_seconds=posted.retry_after_seconds)
        self._log.warning(
            "an alert could not be posted and is tried again",
            said=posted.said,
            failures=told.failures,
            wait_seconds=(told.not_before_ms - now_ms) / 1000,
        )
        return told

    def _write(self, alerts: Sequence[Alert], *, logged: Sequence[str]) -> None:
        """One line for each alert, once, however often it has to be posted."""
        for one in alerts:
            if one.name in logged:
                continue
            write = self._log.info if one.what is What.OVER else self._log.warning
            write(
                "alert",
                what=str(one.what),
                about=one.key,
                words=plain(one.words),
                since=moment(one.since_ms),
                advice=MANNERS[one.kind].advice,
            )

    async def _keep(self, told: Told) -> None:
        await self._redis.hset(keys.ALERTS, _FIELD, encode(told))


async def read_told(redis: Redis) -> Told:
    """What was told until now.

    Raises:
        redis.RedisError: Redis cannot be asked.
    """
    kept = await redis.hget(keys.ALERTS, _FIELD)
    return decode(kept.encode() if isinstance(kept, str) else kept)


def make_alerter(
    settings: Settings,
    ledger: Ledger,
    *,
    rulebook: Callable[[], RuleBook],
    owner: str,
    log: FilteringBoundLogger,
) -> Alerter:
    """The alerter of one process.

    Args:
        settings: where alerts go, and how long a job may wait.
        ledger: of this process.
        rulebook: the rules in force.
        owner: the process's name, unique among all.
        log: where alerts are written, too.
    """
    url = settings.alert_webhook_url
    return Alerter(
        ledger.redis,
        look=Lookout(ledger, rulebook=rulebook, zone=settings.budget_timezone).look,
        poster=None if url is None else AlertPoster(url),
        instance=instance_of(settings.public_url),
        oldest_job_seconds=settings.alert_oldest_job_seconds,
        owner=owner,
        log=log,
    )
