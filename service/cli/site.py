"""The dashboard joined with what it shows: loaded only where the settings want one."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from service.dashboard.access import Access
from service.dashboard.contents import ROUTES
from service.dashboard.desk import Desk
from service.dashboard.live import Live
from service.dashboard.pages_overview import live_regions
from service.dashboard.site import Site
from service.ledger import Ledger
from service.log import get_logger
from workers.budget import all_windows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis.asyncio import Redis

    from service.dashboard.desk import Window
    from service.knowledge import Knowledge
    from service.settings import Settings


def make_site(
    settings: Settings,
    redis: Redis,
    *,
    knowledge: Callable[[], Knowledge],
    redis_problems: Callable[[], Sequence[str]],
    keyed: Callable[[], bool],
    form_key: bytes | None = None,
) -> Site:
    """The dashboard of this process.

    Args:
        settings: all of them.
        redis: where everything is read.
        knowledge: rules and fields as of now.
        redis_problems: what the last look at Redis's health found wrong.
        keyed: whether a signature key is known.
        form_key: see `service.dashboard.access.Access`.
    """
    log = get_logger("dashboard")

    def windows(now_ms: int) -> Sequence[Window]:
        return all_windows(knowledge().rulebook, now_ms=now_ms, zone=settings.budget_timezone)

    def report(what: str, error: Exception) -> None:
        if isinstance(error, (RedisError, OSError)):
            log.warning(what, error=type(error).__name__)
        else:
            log.error(what, exc_info=error)

    desk = Desk(
        ledger=Ledger(redis, zone=settings.budget_timezone, wait_replicas=settings.redis_wait_replicas),
        knowledge=knowledge,
        windows=windows,
        clock=time.time,
        zone=settings.budget_timezone,
        redis_problems=redis_problems,
        keyed=keyed,
        own_api_key_id=settings.close_api_key_id,
    )
    return Site(
        desk=desk,
        access=Access(redis, admin_token=settings.admin_token, clock=time.time, form_key=form_key),
        live=lambda look: Live(partial(live_regions, desk, look), report=report),
        contents=ROUTES,
        max_body_bytes=settings.max_body_bytes,
        report=report,
    )
