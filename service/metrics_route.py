"""The route `/metrics`: who may scrape gets the numbers, everybody else learns nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import Response
from starlette.routing import Route

from service.app import JsonResponse
from service.metrics_access import may_scrape

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from service.metrics import Metrics
    from service.settings_values import Secret


def scrapers(*, metrics_token: Secret | None, admin_token: Secret | None) -> Callable[[Request], bool]:
    """Tells whether a request may scrape.

    Args:
        metrics_token: see `service.metrics_access`; None when unset.
        admin_token: the same.
    """

    def may(request: Request) -> bool:
        return may_scrape(
            client_host=None if request.client is None else request.client.host,
            headers=request.headers,
            metrics_token=None if metrics_token is None else metrics_token.reveal(),
            admin_token=None if admin_token is None else admin_token.reveal(),
        )

    return may


def metrics_route(metrics: Metrics, *, may: Callable[[Request], bool]) -> Route:
    """The route.

    Args:
        metrics: answers.
        may: see `scrapers`.
    """

    async def scrape(request: Request) -> Response:
        if not may(request):
            return JsonResponse(
                {"error": "expected `Authorization: Bearer` with METRICS_TOKEN"},
                status=401,
                headers={"www-authenticate": "Bearer"},
            )
        body, content_type = await metrics.render(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type, "cache-control": "no-store"})

    return Route("/metrics", scrape)
