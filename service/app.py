"""The web application: routes and status codes only."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Route

from service.intake import Answer
from service.readiness import readiness
from service.request_body import read_body
from service.settings_values import WEBHOOK_PATH

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from starlette.requests import Request
    from starlette.routing import BaseRoute
    from starlette.types import Lifespan, Receive, Scope, Send

    from service.intake import Intake
    from service.knowledge import Knowledge
    from service.ledger import Ledger

MOST_LENGTH_DIGITS = 18
"""A longer number in Content-Length is over any limit; Python refuses to read some of them at all."""


_HEADERS_OF_JSON = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))


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

    async def livez(_: Request) -> Response:
        return JsonResponse({"status": "alive"}, status=200)

    async def readyz(_: Request) -> Response:
        found = await readiness(ledger, knowledge(), keyed=intake.keyed, redis_problems=redis_problems())
        return JsonResponse(found.body(), status=found.status)

    webhook = _Webhook(intake, max_body_bytes=max_body_bytes)
    app = _Receiver(
        webhook,
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


class _Receiver(Starlette):
    """Starlette, in which deliveries take a short cut past its middleware and routing.

    Those cost as much as reading one. A mistake of ours is logged by the server, and answered 500.
    """

    def __init__(self, webhook: _Webhook, **options: Any) -> None:
        super().__init__(**options)
        self._webhook = webhook

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == WEBHOOK_PATH and scope["method"] == "POST":
            await self._webhook(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


class _Webhook:
    """Takes a delivery, as plain ASGI: what a request and a response object cost would be half of the work.

    Args:
        intake: answers it.
        max_body_bytes: see `create_app`.
    """

    def __init__(self, intake: Intake, *, max_body_bytes: int) -> None:
        self._intake = intake
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = await self._answer(scope["headers"], receive)
        body = msgspec.json.encode(answer.body)
        headers = [*_HEADERS_OF_JSON, (b"content-length", b"%d" % len(body))]
        if answer.retry_after_seconds is not None:
            headers.append((b"retry-after", b"%d" % answer.retry_after_seconds))
        if answer.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            # the rest of the body is not read
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, headers: Sequence[tuple[bytes, bytes]], receive: Receive) -> Answer:
        if not _is_json(_first(headers, b"content-type")):
            return Answer(status=415, body={"error": "expected content-type application/json"})
        body = None
        if not _announces_over(_first(headers, b"content-length"), self._max_body_bytes):
            try:
                body = await read_body(receive, most=self._max_body_bytes)
            except ClientDisconnect:
                # nobody is left to read it; the sender counts it as failed and delivers again
                return Answer(status=400, body={"error": "the body ended early"})
        if body is None:
            return Answer(status=413, body={"error": f"the body is over {self._max_body_bytes} bytes"})
        return await self._intake.receive(headers, body)


def _first(headers: Sequence[tuple[bytes, bytes]], wanted: bytes) -> bytes:
    """The value of the first header of that name, which ASGI has in lower case; empty where there is none."""
    for name, value in headers:
        if name == wanted:
            return value
    return b""


def _is_json(content_type: bytes) -> bool:
    return content_type.partition(b";")[0].strip().lower() == b"application/json"


def _announces_over(length: bytes, most: int) -> bool:
    """Whether a Content-Length says that the body is longer than allowed; what is said may be wrong."""
    return length.isdigit() and (len(length) > MOST_LENGTH_DIGITS or int(length) > most)
