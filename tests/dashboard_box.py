"""The dashboard for tests: its routes without a server around them, and a browser that keeps its cookie."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import re
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlencode

from receiver_box import rulebook, schema_payload
from starlette.applications import Starlette

from service.dashboard.access import Access
from service.dashboard.contents import ROUTES
from service.dashboard.desk import Desk
from service.dashboard.live import Live
from service.dashboard.pages_overview import live_regions
from service.dashboard.site import Site
from service.knowledge import Knowledge
from service.ledger import Ledger
from service.rules import ObjectType
from service.schema import Schema, parse_schema
from service.settings_values import Secret
from workers.budget import all_windows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

    from service.dashboard.routes import Route

TOKEN = "correct-horse-battery-staple"
HOST = "enrich.example"
NOW = 1_791_970_212.0

RULES = """
version: 1
budget: {per_day: 500, per_month: 9000}
rules:
  - {name: Pitch, object: lead, field: Pitch, on: [created], settle: 0s, budget: {per_day: 20}}
  - {name: Size, object: lead, field: Size, on: [created], settle: 0s}
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of the dashboard."""

    status: int
    headers: list[tuple[str, str]]
    raw: bytes

    @property
    def text(self) -> str:
        return self.raw.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.raw)

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    @property
    def csrf(self) -> str:
        """The token of the page's forms."""
        found = re.search(r'name="csrf" value="([^"]*)"', self.text)
        return "" if found is None else found[1]


@dataclass(slots=True)
class Clock:
    """A clock that stands still until it is set."""

    seconds: float = NOW

    def __call__(self) -> float:
        return self.seconds


class Box:
    """The dashboard of one Redis.

    Args:
        redis: where everything is.
        token: what opens it; None for one that is open to this machine.
        rules: the rules file.
        contents: its routes.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        token: str | None = TOKEN,
        rules: str = RULES,
        contents: Sequence[Route] = ROUTES,
        max_body_bytes: int = 2 * 1024 * 1024,
        live_seconds: float = 0.01,
    ) -> None:
        self.clock = Clock()
        self.reports: list[tuple[str, Exception]] = []
        knowledge = Knowledge.of(rulebook(rules), {kind: _schema(kind) for kind in ObjectType})
        self.desk = Desk(
            ledger=Ledger(redis, clock=self.clock),
            knowledge=lambda: knowledge,
            windows=lambda now_ms: all_windows(knowledge.rulebook, now_ms=now_ms, zone=dt.UTC),
            clock=self.clock,
            zone=dt.UTC,
            redis_problems=tuple,
            keyed=lambda: True,
            own_api_key_id=None,
        )
        self.access = Access(redis, admin_token=None if token is None else Secret(token), clock=self.clock)
        self.site = Site(
            desk=self.desk,
            access=self.access,
            live=lambda look: Live(
                partial(live_regions, self.desk, look), report=self._report, every_seconds=live_seconds
            ),
            contents=contents,
            max_body_bytes=max_body_bytes,
            report=self._report,
        )
        self.app = Starlette(routes=self.site.routes())
        self.app.router.redirect_slashes = False

    def _report(self, what: str, error: Exception) -> None:
        self.reports.append((what, error))

    def stranger(self, **options: Any) -> Browser:
        """A browser that nobody has logged in with."""
        return Browser(self.app, **options)

    async def browser(self, **options: Any) -> Browser:
        """A browser that is logged in."""
        browser = Browser(self.app, **options)
        answer = await browser.post("/login", {"token": TOKEN})
        if answer.status != 303:
            raise AssertionError(answer)
        return browser

    def script(self, token: str = TOKEN) -> Browser:
        """Who sends the token with every request."""
        return Browser(self.app, headers={"authorization": f"Bearer {token}"})


def _schema(kind: ObjectType) -> Schema:
    schema = parse_schema(schema_payload(kind), object_type=kind)
    if isinstance(schema, str):
        raise TypeError(schema)
    return schema


@dataclass(slots=True)
class Browser:
    """Sends requests to an ASGI app, with the cookies that it was given.

    Attributes:
        app: what answers.
        host: the Host header.
        scheme: http, or https.
        address: where the requests come from.
        headers: sent with every request.
        cookies: by name.
    """

    app: Any
    host: str = HOST
    scheme: str = "http"
    address: str = "203.0.113.9"
    headers: dict[str, str] = field(default_factory=dict)
    cookies: dict[str, str] = field(default_factory=dict)

    async def get(self, path: str, *, method: str = "GET", **headers: str) -> Answer:
        return await self.send(method, path, headers=headers)

    async def post(self, path: str, fields: dict[str, str], **headers: str) -> Answer:
        """Send a form, as it is."""
        sent = {"content-type": "application/x-www-form-urlencoded", **headers}
        return await self.send("POST", path, body=urlencode(fields).encode(), headers=sent)

    async def submit(self, page: str, path: str, fields: dict[str, str]) -> Answer:
        """Send a form of a page, with the token that the page has for it."""
        csrf = (await self.get(page)).csrf
        return await self.post(path, {**fields, "csrf": csrf})

    async def call(self, path: str, body: Any, **headers: str) -> Answer:
        """Send JSON."""
        sent = {"content-type": "application/json", **headers}
        return await self.send("POST", path, body=json.dumps(body).encode(), headers=sent)

    async def send(
        self, method: str, path: str, *, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> Answer:
        given = {name.replace("_", "-"): value for name, value in (headers or {}).items()}
        sent = {"host": self.host, **self.headers, **given}
        if self.cookies:
            sent["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        answer = await ask(
            self.app, method, path, body=body, headers=sent, scheme=self.scheme, address=self.address
        )
        for name, value in answer.headers:
            if name == "set-cookie":
                key, _, rest = value.partition("=")
                self.cookies[key] = rest.partition(";")[0]
        self.cookies = {name: value for name, value in self.cookies.items() if value}
        return answer


async def ask(
    app: Any, method: str, path: str, *, body: bytes, headers: dict[str, str], scheme: str, address: str
) -> Answer:
    """One request to an ASGI app."""
    bare, _, query = path.partition("?")
    started: dict[str, Any] = {}
    chunks: list[bytes] = []
    bodies = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if bodies:
            return bodies.pop()
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            started.update(message)
        else:
            chunks.append(message.get("body", b""))

    await app(
        {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": scheme,
            "path": unquote(bare),
            "raw_path": bare.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()],
            "client": (address, 50000),
            "server": ("127.0.0.1", 8080),
        },
        receive,
        send,
    )
    sent = [(name.decode(), value.decode("latin-1")) for name, value in started["headers"]]
    return Answer(started["status"], sent, b"".join(chunks))
