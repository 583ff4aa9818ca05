"""The web application: routes and status codes only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from service.readiness import readiness
from service.request_body import read_body
from service.settings_values import WEBHOOK_PATH

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from starlette.routing import BaseRoute
    from starlette.types import Lifespan

    from service.intake import Intake
    from service.knowledge import Knowledge
    from service.ledger import Ledger

MOST_LENGTH_DIGITS = 18
"""A longer number in Content-Length is over any limit; Python refuses to read some of them at all."""


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
    intake: Intake,
    ledger: Ledger,
    knowledge: Callable[[], Knowledge],
    max_body_bytes: int,
    redis_problems: Callable[[], Sequence[str]] = tuple,
    more_routes: Sequence[BaseRoute] = (),
    lifespan: Lifespan[Starlette] | None = None,
) -> Starlette:
    """The receiver.

    Args:
        intake: takes deliveries.
        ledger: for `/readyz`.
        knowledge: what is known at the moment.
        max_body_bytes: a longer body is cut off while it streams in, and answered 413.
        redis_problems: what the last look at Redis's health found wrong.
        more_routes: what else is served.
        lifespan: what runs beside the requests.
    """

    async def webhook(request: Request) -> Response:
        if not _is_json(request.headers.get("content-type")):
            return JsonResponse({"error": "expected content-type application/json"}, status=415)
        try:
            body = await _read_body(request, max_body_bytes)
        except ClientDisconnect:
            # nobody is left to read it; the sender counts it as failed and delivers again
            return JsonResponse({"error": "the body ended early"}, status=400)
        if body is None:
            return JsonResponse(
                {"error": f"the body is over {max_body_bytes} bytes"},
                status=413,
                headers={"connection": "close"},
            )
        answer = await intake.receive(request.scope["headers"], body)
        wait = answer.retry_after_seconds
        headers = None if wait is None else {"retry-after": str(wait)}
        return JsonResponse(answer.body, status=answer.status, headers=headers)

    async def livez(_: Request) -> Response:
        return JsonResponse({"status": "alive"}, status=200)

    async def readyz(_: Request) -> Response:
        found = await readiness(ledger, knowledge(), keyed=intake.keyed, redis_problems=redis_problems())
        return JsonResponse(found.body(), status=found.status)

    app = Starlette(
        routes=[
            Route(WEBHOOK_PATH, webhook, methods=["POST"]),
            Route("/livez", livez),
            Route("/readyz", readyz),
            *more_routes,
        ],
        exception_handlers={HTTPException: _refuse},
        lifespan=lifespan,
    )
    # a redirect would be written from the Host header, which may be anything at all
    app.router.redirect_slashes = False
    return app


async def _refuse(_: Request, error: Exception) -> Response:
    """No such path, or another method than the path takes."""
    refusal = cast("HTTPException", error)
    return JsonResponse({"error": refusal.detail}, status=refusal.status_code, headers=refusal.headers)


def _is_json(content_type: str | None) -> bool:
    return (content_type or "").partition(";")[0].strip().lower() == "application/json"


async def _read_body(request: Request, most: int) -> bytes | None:
    """The raw body; None as soon as it is longer than allowed, whatever its length was said to be."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and (len(announced) > MOST_LENGTH_DIGITS or int(announced) > most):
        return None
    return await read_body(request, most=most)
