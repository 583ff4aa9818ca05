"""System: the parts of the service and how each is doing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from service.dashboard.routes import Call, Page
from service.dashboard.system import System, read_system

if TYPE_CHECKING:
    from starlette.responses import Response

    from service.dashboard.visit import Visit


async def system(visit: Visit, _: Any) -> Response:
    """The page."""
    return await visit.page("system.html", system=await read_system(visit.desk))


async def system_json(visit: Visit, _: Any) -> System:
    """The same as JSON."""
    return await read_system(visit.desk)


ROUTES = (
    Page(path="/system", handler=system, nav="System"),
    Call(
        path="/api/system",
        summary="Workers, queues, limiters, subscription, event log, rules, Redis and versions.",
        handler=system_json,
        answers=System,
        tag="system",
    ),
)
