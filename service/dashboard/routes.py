"""What a page, a form and a call of the JSON API declare: a path, what it is asked, what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from http import HTTPStatus

    from starlette.responses import Response

    from service.dashboard.visit import Visit


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Why a call was refused.

    Attributes:
        error: in a sentence for people.
    """

    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A call's answer when it cannot do what was asked.

    Attributes:
        status: one of those that the route declares.
        error: why, in a sentence.
    """

    status: HTTPStatus
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page for people, by GET.

    Attributes:
        path: as Starlette writes it: `/records/{object_id}`.
        handler: `async def(visit, asked) -> Response`.
        asks: what the path and the query say; None for nothing. A wrong query is answered 400.
        nav: its name in the navigation; "" for a page that is reached from another.
    """

    path: str
    handler: Callable[[Visit, Any], Awaitable[Response]]
    asks: type[msgspec.Struct] | None = None
    nav: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What a form of a page does, by POST with a CSRF token; it answers with a redirect to a page.

    Attributes:
        path: as Starlette writes it.
        handler: `async def(visit, asked) -> Response`, usually `await visit.done(path, "what happened")`.
        asks: what the path and the fields say; None for nothing. A wrong field is answered 400.
    """

    path: str
    handler: Callable[[Visit, Any], Awaitable[Response]]
    asks: type[msgspec.Struct] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of the JSON API.

    Attributes:
        method: `GET` reads, `POST` does something.
        path: as Starlette writes it; it begins with `/api/`.
        summary: what it does, in a sentence.
        handler: `async def(visit, asked) -> answers | Refused`.
        answers: the Struct of a good answer, status 200.
        asks: what the path and the query (GET) or the JSON body (POST) say; None for nothing.
        refuses: the statuses of `Refused` answers, each with what it means.
        tag: groups calls in the OpenAPI document.
    """

    method: Literal["GET", "POST"] = "GET"
    path: str
    summary: str
    handler: Callable[[Visit, Any], Awaitable[Any]]
    answers: type[msgspec.Struct]
    asks: type[msgspec.Struct] | None = None
    refuses: tuple[tuple[HTTPStatus, str], ...] = ()
    tag: str = "overview"


Route = Page | Form | Call
