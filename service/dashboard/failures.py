"""What is answered where something goes wrong: a page for people, JSON for scripts."""

from __future__ import annotations

import contextlib
from http import HTTPStatus
from typing import TYPE_CHECKING

import msgspec
from redis.exceptions import RedisError
from starlette.responses import Response

from service.dashboard.headers import PRIVATE
from service.dashboard.routes import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from starlette.requests import Request

    from service.dashboard.rendering import Look
    from service.dashboard.visit import Visit

_ERRORS = {
    HTTPStatus.BAD_REQUEST: ("That does not fit", "What was asked for cannot be read."),
    HTTPStatus.FORBIDDEN: (
        "Not done",
        "This form is not from the page as you see it now. Go back, reload the page and try again.",
    ),
    HTTPStatus.NOT_FOUND: ("Nothing here", "There is no such page."),
    HTTPStatus.METHOD_NOT_ALLOWED: ("Nothing here", "There is no such page."),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: ("Too much", "The form is larger than any of ours."),
    HTTPStatus.INTERNAL_SERVER_ERROR: (
        "Something went wrong",
        "This page has a mistake, which the log tells. Webhooks and workers are not affected.",
    ),
    HTTPStatus.SERVICE_UNAVAILABLE: (
        "Redis does not answer",
        "Everything shown here is read from Redis. Close delivers again what comes in meanwhile.",
    ),
}


async def failed(
    request: Request, status: HTTPStatus, words: str = "", *, look: Look, visit: Visit | None
) -> Response:
    """The answer to a request that cannot be served.

    Args:
        request: that one.
        status: why.
        words: why, where the status alone does not say.
        look: the templates.
        visit: of somebody who may see the dashboard, and so its navigation; None for anybody else.
    """
    title, explained = _ERRORS[status]
    if is_api(request) or request.url.path == "/live":
        return as_json(Problem(error=words or explained), status)
    told = words or explained
    # the frame shows what Redis holds
    if visit is not None and status != HTTPStatus.SERVICE_UNAVAILABLE:
        with contextlib.suppress(RedisError, OSError):
            back, back_name = way_back(look.nav, request.url.path)
            answer = await visit.page(
                "failure.html", status=status, title=title, words=told, back=back, back_name=back_name
            )
            answer.headers.update(_sent_with(status))
            return answer
    html = look.render("error.html", title=title, words=told, status=int(status))
    return Response(html, status, media_type="text/html", headers=_sent_with(status))


def way_back(nav: Sequence[tuple[str, str]], path: str) -> tuple[str, str]:
    """The page of the navigation that a path belongs to: its own path and its name."""
    return max(
        (one for one in nav if f"{path}/".startswith(f"{one[0].rstrip('/')}/")), key=lambda one: len(one[0])
    )


def as_json(body: msgspec.Struct, status: HTTPStatus, **headers: str) -> Response:
    """A call's answer."""
    sent = {**_sent_with(status), **headers}
    return Response(msgspec.json.encode(body), status, media_type="application/json", headers=sent)


def is_api(request: Request) -> bool:
    """Whether a script asks."""
    return request.url.path.startswith("/api/")


def wants_page(request: Request) -> bool:
    """Whether a person's browser asks for a page."""
    return request.method in {"GET", "HEAD"} and "text/html" in request.headers.get("accept", "")


def _sent_with(status: HTTPStatus) -> Mapping[str, str]:
    """The headers of an answer; after a body that was not read to its end, the connection is of no use."""
    return {**PRIVATE, "connection": "close"} if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE else PRIVATE
