"""The Overview: is it healthy, what is happening now, what needs me?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from service.dashboard.activity import read_added
from service.dashboard.glance import Attention, Overview
from service.dashboard.reading import read_attention, read_overview
from service.dashboard.routes import Call, Page

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.responses import Response

    from service.dashboard.desk import Desk
    from service.dashboard.rendering import Look
    from service.dashboard.visit import Visit

REGIONS = ("health", "figures", "charts", "people", "newest")
"""Parts of the page that are sent anew when they change: `templates/overview_<name>.html`, `#live-<name>`."""


async def overview(visit: Visit, _: Any) -> Response:
    """The page."""
    found = await read_overview(visit.desk)
    return await visit.page("overview.html", overview=found, regions=REGIONS)


async def overview_json(visit: Visit, _: Any) -> Overview:
    """The same as JSON."""
    return await read_overview(visit.desk)


async def attention_json(visit: Visit, _: Any) -> Attention:
    """What waits for a person."""
    return await read_attention(visit.desk.redis)


async def live_regions(desk: Desk, look: Look) -> Mapping[str, str]:
    """The page's changing parts as HTML, by their ids.

    Raises:
        redis.RedisError: Redis cannot be asked.
    """
    found = await read_overview(desk)
    regions = {
        f"live-{name}": look.render(f"overview_{name}.html", overview=found, now_ms=found.at_ms)
        for name in REGIONS
    }
    # the Activity page tells by it how many changes are newer than those it shows
    return {**regions, "live-added": str(await read_added(desk.redis) or 0)}


ROUTES = (
    Page(path="/", handler=overview, nav="Overview"),
    Call(
        path="/api/overview",
        summary="The whole service at one glance.",
        handler=overview_json,
        answers=Overview,
    ),
    Call(
        path="/api/attention",
        summary="How much waits for a person.",
        handler=attention_json,
        answers=Attention,
        tag="attention",
    ),
)
