"""Who may see the dashboard: a session after logging in, a Bearer token, or this machine where it is open.

A session is a random cookie. Redis keeps only its digest, made with the admin token: whoever reads Redis has
no cookie, and another `ADMIN_TOKEN` ends every session. The CSRF token of a session's forms is made from its
cookie.

Where the dashboard is open (`demo` and `up` without a token), a request has to come from this machine,
straight and by one of its own names: a web page whose name was made to resolve to 127.0.0.1 sends another
`Host`.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from service import keys

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis
    from starlette.requests import Request

    from service.settings import Secret

SESSION_SECONDS = 12 * 3600
MOST_LOGINS_OF_ADDRESS = 5
MOST_LOGINS = 20
MOST_WRONG_BEARERS = 20
WINDOW_SECONDS = 60

_COOKIE = "close-enrich"
_SECURE_COOKIE = "__Host-close-enrich"
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "cf-connecting-ip")
_OWN_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """Somebody who may see the dashboard.

    Attributes:
        cookie: of the session; "" for a script.
        session_key: where Redis keeps the session; "" where there is none.
        csrf: what every form of the session sends; "" for a script that has said the token itself.
        new: the cookie is to be set with the answer.
        bearer: a script that has sent the token.
    """

    cookie: str = ""
    session_key: str = ""
    csrf: str = ""
    new: bool = False
    bearer: bool = False


class Stranger(Enum):
    """Why somebody may not see it."""

    UNKNOWN = "has not logged in"
    NOT_HERE = "not from this machine"
    TOO_MANY = "too many wrong tokens"


class Access:
    """The doors of one dashboard.

    Args:
        redis: where sessions and failed logins are.
        admin_token: opens the dashboard; None where it is open to this machine only.
        clock: Unix seconds.
        random_text: a text that nobody can guess.
        form_key: what the CSRF tokens are made with where there is no admin token; known to all processes of
            this `web`, so that each takes what another has handed out. Of this process alone when None.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        admin_token: Secret | None,
        clock: Callable[[], float],
        random_text: Callable[[], str] = secrets.token_urlsafe,
        form_key: bytes | None = None,
    ) -> None:
        self._redis = redis
        self._token = None if admin_token is None else admin_token.reveal().encode()
        self._clock = clock
        self._random_text = random_text
        self._key = self._token or form_key or random_text().encode()

    @property
    def by_token(self) -> bool:
        """Whether there is a login."""
        return self._token is not None

    async def who(self, request: Request) -> Visitor | Stranger:
        """Who sends a request.

        Raises:
            redis.RedisError: the session cannot be looked up.
        """
        if self._token is None:
            return self._of_this_machine(request)
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return await self._bearer(request, given.strip())
        cookie = request.cookies.get(_cookie_name(request), "")
        if cookie and await self._redis.exists(self._session_key(cookie)):
            return self._visitor(cookie)
        return Stranger.UNKNOWN

    async def log_in(self, request: Request, given: str) -> Visitor | Stranger:
        """A new session for whoever knows the token. Every attempt of an address counts, a right one too.

        Raises:
            redis.RedisError: it cannot be counted or kept.
        """
        if await self._count(request, "login") > MOST_LOGINS_OF_ADDRESS:
            # not counted with those of everybody, or one address could lock all others out
            return Stranger.TOO_MANY
        if await self._count(None, "login") > MOST_LOGINS:
            return Stranger.TOO_MANY
        if not self._right(given):
            return Stranger.UNKNOWN
        cookie = self._random_text()
        await self._redis.set(self._session_key(cookie), round(self._clock()), ex=SESSION_SECONDS)
        return self._visitor(cookie, new=True)

    async def log_out(self, visitor: Visitor) -> None:
        """End a session everywhere.

        Raises:
            redis.RedisError: it cannot be ended.
        """
        if visitor.session_key:
            await self._redis.delete(visitor.session_key)

    async def goes_on(self, visitor: Visitor) -> bool:
        """Whether a visitor who was let in may still stay.

        Raises:
            redis.RedisError: the session cannot be looked up.
        """
        if visitor.bearer or not self.by_token:
            return True
        return bool(await self._redis.exists(visitor.session_key))

    def may_act(self, request: Request, visitor: Visitor, given: str, *, scripted: bool = False) -> bool:
        """Whether a request that changes something is meant: it does not come from another site's page.

        Args:
            request: with its headers.
            visitor: who sends it.
            given: the CSRF token it came with.
            scripted: its content type is one that a browser would not send to another site unasked
                (https://developer.mozilla.org/docs/Web/HTTP/Guides/CORS#simple_requests).
        """
        if visitor.bearer:
            return True
        if is_from_elsewhere(request):
            return False
        if visitor.new:
            return scripted and request.headers.get("origin") != "null"
        return hmac.compare_digest(given.encode(), visitor.csrf.encode())

    def _of_this_machine(self, request: Request) -> Visitor | Stranger:
        if not is_local(request):
            return Stranger.NOT_HERE
        cookie = request.cookies.get(_cookie_name(request), "")
        return self._visitor(cookie) if cookie else self._visitor(self._random_text(), new=True)

    async def _bearer(self, request: Request, given: str) -> Visitor | Stranger:
        wrong = await self._redis.get(self._window(request, "bearer"))
        if int(wrong or 0) >= MOST_WRONG_BEARERS:
            return Stranger.TOO_MANY
        if self._right(given):
            return Visitor(bearer=True)
        await self._count(request, "bearer")
        return Stranger.UNKNOWN

    def _right(self, given: str) -> bool:
        # of equal length whatever was given, so that the time taken does not tell the token's
        token = self._token or b""
        return hmac.compare_digest(_digest(given.encode()), _digest(token)) and self._token is not None

    def _visitor(self, cookie: str, *, new: bool = False) -> Visitor:
        csrf = hmac.new(self._key, b"form " + cookie.encode(), hashlib.sha256).hexdigest()
        return Visitor(cookie=cookie, session_key=self._session_key(cookie), csrf=csrf, new=new)

    def _session_key(self, cookie: str) -> str:
        return keys.session(hmac.new(self._key, cookie.encode(), hashlib.sha256).hexdigest())

    def _window(self, request: Request | None, what: str) -> str:
        whose = "all" if request is None else _digest(_address(request).encode()).hex()[:16]
        return keys.attempts(what, whose, int(self._clock() // WINDOW_SECONDS))

    async def _count(self, request: Request | None, what: str) -> int:
        """One more in this minute; how many there are now."""
        key = self._window(request, what)
        async with self._redis.pipeline() as pipeline:
            pipeline.incr(key)
            pipeline.expire(key, 2 * WINDOW_SECONDS)
            count, _ = await pipeline.execute()
        return int(count)


def cookie_header(request: Request, visitor: Visitor) -> str:
    """The `Set-Cookie` that begins a session; an empty cookie ends it."""
    secure = "; Secure" if request.url.scheme == "https" else ""
    age = SESSION_SECONDS if visitor.cookie else 0
    name = _cookie_name(request)
    return f"{name}={visitor.cookie}; Path=/; Max-Age={age}; HttpOnly; SameSite=Strict{secure}"


def is_from_elsewhere(request: Request) -> bool:
    """Whether a browser says that another site's page has sent a request.

    Our own forms say `Origin: null`, as our pages send no referrer
    (https://fetch.spec.whatwg.org/#append-a-request-origin-header), so `null` alone says nothing.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin", "null")
    if site is not None and site not in {"same-origin", "none"}:
        return True
    return origin != "null" and _host_of(origin) != request.headers.get("host", "")


def is_local(request: Request) -> bool:
    """Whether a request comes straight from this machine, to one of this machine's own names."""
    if any(name in request.headers for name in _FORWARDED):
        return False
    return _is_loopback(_address(request)) and _host_name(request.headers.get("host", "")) in _OWN_NAMES


def _cookie_name(request: Request) -> str:
    return _SECURE_COOKIE if request.url.scheme == "https" else _COOKIE


def _address(request: Request) -> str:
    return "" if request.client is None else request.client.host


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _host_name(host: str) -> str:
    """The name in a `Host` header; "" for what is none."""
    try:
        url = urlsplit(f"//{host}")
        url.port  # noqa: B018 - a port that is no number shows only when it is read
    except ValueError:
        return ""
    return url.hostname or "" if url.netloc == host and "@" not in host else ""


def _host_of(origin: str) -> str:
    """Host and port in an `Origin` header; "" for what is none."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def _digest(value: bytes) -> bytes:
    return hashlib.sha256(value).digest()
