"""The web application: routes and status codes only."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from service.readiness import readiness
from service.settings_values import WEBHOOK_PATH

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from starlette.requests import Request
    from starlette.routing import BaseRoute
    from starlette.types import Lifespan

    from service.knowledge import Knowledge
    from service.ledger import Ledger
    from service.webhook import Webhook


class JsonResponse(Response):
    """A small JSON answer that nobody may cache."""

    media_type = "application/json"

    def __init__(
        self, body: dict[str, Any], *, status: int, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(
            msgspec.json.encode(body),
            status_code=status,
            headers={"cache-control": "no-store", **(headers or {})},
        )


def create_app(
    *,
    webhook: Webhook,
    keyed: Callable[[], bool],
    ledger: Ledger,
    knowledge: Callable[[], Knowledge],
    knows_us: Callable[[Request], bool],
    redis_problems: Callable[[], Sequence[str]] = tuple,
    more_routes: Sequence[BaseRoute] = (),
    unknown: Callable[[Request, HTTPStatus], Awaitable[Response | None]] | None = None,
    lifespan: Lifespan[Starlette] | None = None,
) -> Starlette:
    """The receiver.

    Args:
        webhook: takes deliveries.
        keyed: whether a signature key is known.
        ledger: for `/readyz`.
        knowledge: what is known at the moment.
        knows_us: whether a request may learn more than that we are alive; see `service.metrics_access`.
        redis_problems: what the last look at Redis's health found wrong.
        more_routes: what else is served.
        unknown: has a page for a path that is not there, for whom it may concern.
        lifespan: what runs beside the requests.
    """

    async def livez(_: Request) -> Response:
        return JsonResponse({"status": "alive"}, status=200)

    async def readyz(request: Request) -> Response:
        found = await readiness(ledger, knowledge(), keyed=keyed(), redis_problems=redis_problems())
        return JsonResponse(found.body(reasons=knows_us(request)), status=found.status)

    async def refuse(request: Request, error: Exception) -> Response:
        # no such path, or another method than the path takes
        refusal = cast("HTTPException", error)
        page = None if unknown is None else await unknown(request, HTTPStatus(refusal.status_code))
        if page is not None:
            page.headers.update(refusal.headers or {})
            return page
        return JsonResponse({"error": refusal.detail}, status=refusal.status_code, headers=refusal.headers)

    app = Starlette(
        routes=[
            Route(WEBHOOK_PATH, webhook, methods=["POST"]),
            Route("/livez", livez),
            Route("/readyz", readyz),
            *more_routes,
        ],
        exception_handlers={HTTPException: refuse},
        lifespan=lifespan,
    )
    # a redirect would be written from the Host header, which may be anything at all
    app.router.redirect_slashes = False
    return app
