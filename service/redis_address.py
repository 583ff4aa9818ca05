"""What `REDIS_URL` says: one server, or the service that Sentinels watch. Pure.

`redis://[user:password@]host[:port][/database]`, `rediss://…` for TLS, `unix:///path/of/socket`; and with
Sentinel `redis+sentinel://[user:password@]host1[:port],host2[:port]/service[/database]`, or `rediss+sentinel://…`.
No message repeats the text, which may hold a password.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qsl, unquote, unquote_plus, urlsplit

SENTINEL_PORT = 26379
SENTINEL_EXAMPLE = "redis+sentinel://host1:26379,host2:26379/mymaster"

_PLAIN_SCHEMES = frozenset({"redis", "rediss", "unix"})
_SENTINEL = re.compile(
    r"(?P<scheme>rediss?)\+sentinel://(?P<netloc>[^/?#]*)(?P<path>[^?#]*)(?P<query>\?[^#]*)?"
)
_NODE = re.compile(r"(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<host>[A-Za-z0-9._-]+))(?::(?P<port>[0-9]{1,5}))?")
_SERVICE = re.compile(r"/(?P<service>[A-Za-z0-9._-]+)(?:/(?P<database>[0-9]{1,5})?)?")
_ONE_WORD = re.compile(r"[!-~]+")
_MOST_PORT = 65_535

# the options that redis-py passes on, and what may stand there; timeouts and pools are our own affair
_ANY = re.compile(r".+", re.DOTALL)
_YES_OR_NO = re.compile(r"true|false|yes|no|1|0", re.IGNORECASE)
_WHOLE = re.compile(r"[0-9]{1,5}")
_OPTIONS = {
    "username": (_ANY, "a name"),
    "password": (_ANY, "a password"),
    "db": (_WHOLE, "a whole number"),
    "client_name": (_ANY, "a name"),
    "protocol": (re.compile(r"[23]"), "2 or 3"),
    "health_check_interval": (_WHOLE, "whole seconds"),
    "socket_keepalive": (_YES_OR_NO, "true or false"),
}
_TLS_OPTIONS = {
    "ssl_ca_certs": (_ANY, "the path of a file"),
    "ssl_ca_path": (_ANY, "the path of a directory"),
    "ssl_certfile": (_ANY, "the path of a file"),
    "ssl_keyfile": (_ANY, "the path of a file"),
    "ssl_password": (_ANY, "the key's passphrase"),
    "ssl_cert_reqs": (re.compile(r"required|optional|none"), "required, optional or none"),
    "ssl_check_hostname": (_YES_OR_NO, "true or false"),
}
_SENTINEL_OPTIONS = {
    "sentinel_username": (_ANY, "a name"),
    "sentinel_password": (_ANY, "a password"),
}
_SECRET_OPTIONS = frozenset({"password", "sentinel_password", "ssl_password"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisAddress:
    """Where Redis is.

    Attributes:
        shown: the URL as people may see it: without user, password and options.
        url: a URL that redis-py reads; with Sentinels its host is of no meaning, and all else counts.
        sentinels: host and port of each; empty for a single server.
        service: the name under which Sentinels watch the master; "" for a single server.
        sentinel_username: for the Sentinels themselves; None where they want none.
        sentinel_password: for the Sentinels themselves; None where they want none.
    """

    shown: str
    url: str = field(repr=False)
    sentinels: tuple[tuple[str, int], ...] = ()
    service: str = ""
    sentinel_username: str | None = field(default=None, repr=False)
    sentinel_password: str | None = field(default=None, repr=False)


def parse_redis_address(text: str) -> RedisAddress:
    """Read `REDIS_URL`.

    Raises:
        ValueError: it cannot be used; the message says what was expected.
    """
    if not _ONE_WORD.fullmatch(text):
        raise ValueError("expected a URL in one word of visible ASCII characters; write others as %XX")
    if text.partition("://")[0].endswith("+sentinel"):
        return _with_sentinels(text)
    return _single(text)


def redis_passwords(text: str) -> tuple[str, ...]:
    """Every password inside a Redis URL, as written and decoded, so that logs can be kept free of them."""
    rest, _, query = text.partition("?")
    user = rest.partition("://")[2].rpartition("@")[0]
    written = [user.partition(":")[2]]
    for option in query.partition("#")[0].split("&"):
        name, _, value = option.partition("=")
        if unquote_plus(name) in _SECRET_OPTIONS:
            written.append(value)
    return tuple(
        dict.fromkeys(form for one in written for form in (one, unquote(one), unquote_plus(one)) if form)
    )


def _single(text: str) -> RedisAddress:
    url = _split(text)
    if url is None or url.scheme not in _PLAIN_SCHEMES:
        raise ValueError("expected a redis://, rediss:// or unix:// URL, or redis+sentinel://")
    if url.scheme == "unix" and not url.path:
        raise ValueError("expected the path of a socket: unix:///run/redis.sock")
    if url.scheme != "unix" and not url.hostname:
        raise ValueError("expected a host: redis://host:6379/0")
    if url.scheme != "unix" and not re.fullmatch(r"/?|/[0-9]{1,5}", url.path):
        raise ValueError("expected a database's number after the host: redis://host:6379/0")
    _check_options(_options(url.query), scheme=url.scheme, tls=url.scheme == "rediss", sentinel=False)
    user, _, host = url.netloc.rpartition("@")
    return RedisAddress(shown=f"{url.scheme}://{'***@' if user else ''}{host}{url.path}", url=text)


def _split(text: str) -> SplitResult | None:
    try:
        url = urlsplit(text)
        url.port  # noqa: B018 - a port that is no number shows only when it is read
    except ValueError:
        return None
    return url


def _with_sentinels(text: str) -> RedisAddress:
    match = _SENTINEL.fullmatch(text)
    if match is None:
        raise ValueError(f"expected {SENTINEL_EXAMPLE} (or rediss+sentinel://), without a fragment")
    user, at, hosts = match["netloc"].rpartition("@")
    sentinels = tuple(_sentinel(one) for one in hosts.split(","))
    service = _SERVICE.fullmatch(match["path"])
    if service is None:
        raise ValueError(
            f"expected the name under which Sentinel watches the master, then perhaps a database's number: "
            f"{SENTINEL_EXAMPLE}/0"
        )
    query = (match["query"] or "").removeprefix("?")
    options = _options(query)
    _check_options(
        options, scheme=f"{match['scheme']}+sentinel", tls=match["scheme"] == "rediss", sentinel=True
    )
    kept = "&".join(one for one in query.split("&") if not one.startswith("sentinel_"))
    database = service["database"] or "0"
    return RedisAddress(
        shown=f"{match['scheme']}+sentinel://{'***@' if user else ''}{hosts}{match['path']}",
        url=f"{match['scheme']}://{user}{at}{service['service']}/{database}{'?' if kept else ''}{kept}",
        sentinels=sentinels,
        service=service["service"],
        sentinel_username=options.get("sentinel_username"),
        sentinel_password=options.get("sentinel_password"),
    )


def _sentinel(text: str) -> tuple[str, int]:
    match = _NODE.fullmatch(text)
    port = int(match["port"] or SENTINEL_PORT) if match else 0
    if match is None or not 0 < port <= _MOST_PORT:
        raise ValueError(
            f"expected host:port of each Sentinel, comma-separated: {SENTINEL_EXAMPLE}; "
            "in a password, write / as %2F, @ as %40, ? as %3F and # as %23"
        )
    return match["v6"] or match["host"], port


def _options(query: str) -> dict[str, str]:
    return dict(parse_qsl(query, keep_blank_values=True))


def _check_options(options: dict[str, str], *, scheme: str, tls: bool, sentinel: bool) -> None:
    """Raise ValueError for an option that redis-py would stumble over later."""
    known = _OPTIONS | (_TLS_OPTIONS if tls else {}) | (_SENTINEL_OPTIONS if sentinel else {})
    for name, value in options.items():
        if name in known:
            form, words = known[name]
            if not form.fullmatch(value):
                raise ValueError(f"option {name}: expected {words}")
        elif name in _TLS_OPTIONS:
            raise ValueError(f"option {name} is for TLS: expected rediss:// or rediss+sentinel://")
        elif name in _SENTINEL_OPTIONS:
            raise ValueError(f"option {name} is for Sentinel: expected {scheme}+sentinel://")
        else:
            near = difflib.get_close_matches(name, known, n=1)
            raise ValueError(
                f"there is an option that {scheme}:// does not have; "
                + (f"did you mean {near[0]}?" if near else f"expected one of {', '.join(known)}")
            )
