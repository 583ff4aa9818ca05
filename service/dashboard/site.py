"""The dashboard's routes: who may, what is asked, what is answered."""

from __future__ import annotations

import contextlib
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec
from redis.exceptions import RedisError
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Route as Path

from service.dashboard import asked
from service.dashboard.access import Stranger, Visitor, cookie_header, is_from_elsewhere
from service.dashboard.asked import AskedWrong
from service.dashboard.failures import as_json, failed, is_api, wants_page
from service.dashboard.headers import PRIVATE, STATIC
from service.dashboard.openapi import openapi_document
from service.dashboard.rendering import MEDIA_TYPES, Look, read_static
from service.dashboard.routes import Call, Form, Page, Problem, Refused
from service.dashboard.visit import Visit, redirect
from service.request_body import read_body

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from starlette.requests import Request
    from starlette.routing import BaseRoute

    from service.dashboard.access import Access
    from service.dashboard.desk import Desk
    from service.dashboard.live import Live
    from service.dashboard.routes import Route

    _Serve = Callable[[Request], Awaitable[Response]]

OPENAPI_PATH = "/api/openapi.json"


class Site:
    """The dashboard of one process.

    Args:
        desk: what handlers work with.
        access: the doors.
        live: makes the stream of numbers as they change.
        contents: all routes.
        max_body_bytes: of a JSON body.
        report: told of an exception that a handler raised.
    """

    def __init__(
        self,
        *,
        desk: Desk,
        access: Access,
        live: Callable[[Look], Live],
        contents: Sequence[Route],
        max_body_bytes: int,
        report: Callable[[str, Exception], None],
    ) -> None:
        self._desk = desk
        self._access = access
        self._contents = contents
        self._max_body_bytes = max_body_bytes
        self._report = report
        self._static = read_static()
        nav = [(one.path, one.nav) for one in contents if isinstance(one, Page) and one.nav]
        self._look = Look(nav=nav)
        self.live = live(self._look)
        self._openapi = msgspec.json.encode(openapi_document(contents, by_token=access.by_token))

    def routes(self) -> list[BaseRoute]:
        """What `create_app` mounts beside the receiver's own routes."""
        own: list[BaseRoute] = [
            Path("/static/{name}", self._guarded(self._static_file), methods=["GET"]),
            Path("/live", self._guarded(self._only_visitors(self._live)), methods=["GET"]),
            Path(OPENAPI_PATH, self._guarded(self._only_visitors(self._openapi_json)), methods=["GET"]),
        ]
        if self._access.by_token:
            own += [
                Path("/login", self._guarded(self._login_page), methods=["GET"]),
                Path("/login", self._guarded(self._log_in), methods=["POST"]),
                Path("/logout", self._guarded(self._only_visitors(self._log_out)), methods=["POST"]),
            ]
        own += [self._route(one) for one in self._contents]
        # a stranger cannot tell calls that are there from others
        own.append(
            Path("/api/{rest:path}", self._guarded(self._only_visitors(self._nothing)), methods=_METHODS)
        )
        return own

    def _route(self, one: Route) -> Path:
        if isinstance(one, Call):
            serve, method = partial(self._call, one), one.method
        else:
            serve, method = partial(self._page, one), "POST" if isinstance(one, Form) else "GET"
        return Path(one.path, self._guarded(self._only_visitors(serve)), methods=[method])

    # -- around every handler

    def _guarded(self, serve: _Serve) -> _Serve:
        """No traceback for anybody: what goes wrong becomes a page of ours, or JSON."""

        async def endpoint(request: Request) -> Response:
            try:
                return await serve(request)
            except ClientDisconnect:
                return Response(status_code=HTTPStatus.BAD_REQUEST, headers=PRIVATE)
            except (RedisError, OSError) as error:
                self._report("the dashboard waits for Redis", error)
                return await self._failure(request, HTTPStatus.SERVICE_UNAVAILABLE)
            except Exception as error:  # noqa: BLE001  the receiver goes on, and the log tells
                self._report("a page of the dashboard failed", error)
                return await self._failure(request, HTTPStatus.INTERNAL_SERVER_ERROR)

        return endpoint

    def _only_visitors(self, serve: Callable[[Request, Visitor], Awaitable[Response]]) -> _Serve:
        async def endpoint(request: Request) -> Response:
            visitor = await self._access.who(request)
            if isinstance(visitor, Visitor):
                request.state.visitor = visitor
                return await serve(request, visitor)
            return self._turn_away(request, visitor)

        return endpoint

    def _turn_away(self, request: Request, stranger: Stranger) -> Response:
        """The same answer whether there is such a page, or such a record on it, or not."""
        if stranger is Stranger.NOT_HERE:
            # as if there were no dashboard
            return as_json(Problem(error="Not Found"), HTTPStatus.NOT_FOUND)
        if stranger is Stranger.TOO_MANY:
            return as_json(
                Problem(error="too many wrong tokens: try again in a minute"),
                HTTPStatus.TOO_MANY_REQUESTS,
                **{"retry-after": "60"},
            )
        if request.method in {"GET", "HEAD"} and not is_api(request) and request.url.path != "/live":
            return redirect(f"/login?next={quote(_wanted(request))}")
        return as_json(
            Problem(error="log in, or send Authorization: Bearer with ADMIN_TOKEN"),
            HTTPStatus.UNAUTHORIZED,
            **{"www-authenticate": "Bearer"},
        )

    async def _failure(self, request: Request, status: HTTPStatus, words: str = "") -> Response:
        visitor = getattr(request.state, "visitor", None)
        visit = None if visitor is None else self._visit(request, visitor)
        return await failed(request, status, words, look=self._look, visit=visit)

    async def unknown(self, request: Request, status: HTTPStatus) -> Response | None:
        """A page for somebody who is logged in and has gone where there is none; None for anybody else."""
        no_page = status in {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED}
        if not no_page or not wants_page(request) or is_api(request):
            return None
        with contextlib.suppress(RedisError, OSError):
            visitor = await self._access.who(request)
            if isinstance(visitor, Visitor):
                request.state.visitor = visitor
                return await self._failure(request, status)
        return None

    def _visit(self, request: Request, visitor: Visitor) -> Visit:
        return Visit(
            request=request,
            visitor=visitor,
            desk=self._desk,
            look=self._look,
            signs_out=self._access.by_token,
        )

    # -- what contents.py names

    async def _page(self, page: Page | Form, request: Request, visitor: Visitor) -> Response:
        fields: dict[str, str] = {}
        path = {name: str(value) for name, value in request.path_params.items()}
        try:
            if isinstance(page, Form):
                body = await read_body(request.receive, most=asked.MOST_BODY_BYTES)
                if body is None:
                    return await self._failure(request, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
                fields = asked.form_fields(body)
                if not self._access.may_act(request, visitor, fields.pop("csrf", "")):
                    return await self._failure(request, HTTPStatus.FORBIDDEN)
            else:
                fields = dict(reversed(request.query_params.multi_items()))
            asks = None if page.asks is None else asked.from_texts(page.asks, path, fields)
        except AskedWrong as error:
            return await self._failure(request, HTTPStatus.BAD_REQUEST, f"{error}.")
        return await page.handler(self._visit(request, visitor), asks)

    async def _call(self, call: Call, request: Request, visitor: Visitor) -> Response:
        path = {name: str(value) for name, value in request.path_params.items()}
        asks: Any = None
        try:
            if call.method == "POST":
                if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
                    return as_json(
                        Problem(error="expected content-type application/json"),
                        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                    )
                given = request.headers.get("x-csrf-token", "")
                if not self._access.may_act(request, visitor, given, scripted=True):
                    return as_json(
                        Problem(error="send the session's token as X-CSRF-Token"), HTTPStatus.FORBIDDEN
                    )
                body = await read_body(request.receive, most=self._max_body_bytes)
                if body is None:
                    return as_json(
                        Problem(error=f"the body is over {self._max_body_bytes} bytes"),
                        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                    )
                asks = None if call.asks is None else asked.from_json(call.asks, body, path)
            elif call.asks is not None:
                asks = asked.from_texts(call.asks, path, dict(reversed(request.query_params.multi_items())))
        except AskedWrong as error:
            return as_json(Problem(error=str(error)), HTTPStatus.BAD_REQUEST)
        answer = await call.handler(self._visit(request, visitor), asks)
        if isinstance(answer, Refused):
            return as_json(Problem(error=answer.error), answer.status)
        return as_json(answer, HTTPStatus.OK)

    # -- the frame's own

    async def _static_file(self, request: Request) -> Response:
        name = request.path_params["name"]
        content = self._static.get(name)
        if content is None or (not self._access.by_token and await self._is_stranger(request)):
            return as_json(Problem(error="Not Found"), HTTPStatus.NOT_FOUND)
        return Response(
            content, headers={**STATIC, "content-type": MEDIA_TYPES["." + name.rpartition(".")[2]]}
        )

    async def _is_stranger(self, request: Request) -> bool:
        return isinstance(await self._access.who(request), Stranger)

    async def _live(self, _: Request, visitor: Visitor) -> Response:
        return self.live.response(visitor, self._access)

    async def _openapi_json(self, _: Request, __: Visitor) -> Response:
        return Response(self._openapi, media_type="application/json", headers=PRIVATE)

    async def _nothing(self, request: Request, _: Visitor) -> Response:
        return await self._failure(request, HTTPStatus.NOT_FOUND)

    async def _login_page(self, request: Request) -> Response:
        if not await self._is_stranger(request):
            return redirect("/")
        return self._login(_next(request.query_params.get("next", "")))

    def _login(self, after: str, *, problem: str = "", status: HTTPStatus = HTTPStatus.OK) -> Response:
        html = self._look.render("login.html", after=after, problem=problem)
        return Response(html, status, media_type="text/html", headers=PRIVATE)

    async def _log_in(self, request: Request) -> Response:
        if is_from_elsewhere(request):
            return await self._failure(request, HTTPStatus.FORBIDDEN)
        body = await read_body(request.receive, most=asked.MOST_BODY_BYTES)
        if body is None:
            return await self._failure(request, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        try:
            fields = asked.form_fields(body)
        except AskedWrong as error:
            return await self._failure(request, HTTPStatus.BAD_REQUEST, f"{error}.")
        after = _next(fields.get("next", ""))
        visitor = await self._access.log_in(request, fields.get("token", ""))
        if visitor is Stranger.TOO_MANY:
            told = "Too many attempts. Wait a minute and try again."
            return self._login(after, problem=told, status=HTTPStatus.TOO_MANY_REQUESTS)
        if not isinstance(visitor, Visitor):
            told = "That is not the token. It is the ADMIN_TOKEN that web was started with."
            return self._login(after, problem=told, status=HTTPStatus.UNAUTHORIZED)
        response = redirect(after)
        response.headers.append("set-cookie", cookie_header(request, visitor))
        return response

    async def _log_out(self, request: Request, visitor: Visitor) -> Response:
        body = await read_body(request.receive, most=asked.MOST_BODY_BYTES)
        fields = asked.form_fields(body or b"")
        if not self._access.may_act(request, visitor, fields.get("csrf", "")):
            return await self._failure(request, HTTPStatus.FORBIDDEN)
        await self._access.log_out(visitor)
        response = redirect("/login")
        response.headers.append("set-cookie", cookie_header(request, Visitor()))
        return response


_LONGEST_QUERY = 2000
_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


def _wanted(request: Request) -> str:
    """The page that somebody asked for, with its query where that is no longer than people's are."""
    query = request.url.query
    return f"{request.url.path}?{query}" if query and len(query) <= _LONGEST_QUERY else request.url.path


def _next(path: str) -> str:
    """Where to go after the login: a path of this site, nothing else."""
    fine = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if fine and not path.startswith(("/login", "/logout", "/live", "/api/")) else "/"
