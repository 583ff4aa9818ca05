"""How one setting's text becomes its value. Pure.

Each parser raises ValueError with a sentence that says what was expected. It never repeats the text, which
may be a secret; `service.settings` adds the text of settings that are none.
"""

from __future__ import annotations

import datetime as dt
import difflib
import re
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import SplitResult, urlsplit
from zoneinfo import ZoneInfo, available_timezones

from service.durations import parse_duration
from service.redis_address import parse_redis_address
from service.signature import SignatureKey

if TYPE_CHECKING:
    from collections.abc import Callable

Choice = TypeVar("Choice", bound=StrEnum)

_BYTES_IN = {"": 1, "b": 1, "kib": 1024, "mib": 1024**2, "gib": 1024**3}
_SIZE = re.compile(r"([0-9]{1,12}) ?(|b|kib|mib|gib)", re.IGNORECASE)
MOST_PER_SECOND = 10_000
LEAST_TOKEN_LENGTH = 16
WEBHOOK_PATH = "/webhooks/close"
"""Where the receiver takes deliveries."""

_THIS_MACHINE = frozenset({"localhost", "127.0.0.1", "::1"})
_TOKEN = re.compile(r"[!-~]+")


class LogFormat(StrEnum):
    """How a line is written."""

    JSON = "json"
    CONSOLE = "console"


class LogLevel(StrEnum):
    """The least that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


class TracingMode(StrEnum):
    """Where spans go."""

    OFF = "off"
    OTEL = "otel"


class DashboardDoor(StrEnum):
    """Who may see the dashboard: whoever knows the token, or besides everybody on this machine."""

    TOKEN = "token"  # noqa: S105  a word for how, no token
    OPEN = "open"


class Secret:
    """A text that must not be shown: `repr` and `str` give `shown`, only `reveal` gives the text itself."""

    # not a dataclass: `asdict` and encoders would hand out the value
    __slots__ = ("_shown", "_value")

    def __init__(self, value: str, *, shown: str = "***") -> None:
        self._value = value
        self._shown = shown

    def reveal(self) -> str:
        """The secret itself, for the one place that sends it."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({self._shown})"

    def __str__(self) -> str:
        return self._shown


def token(text: str) -> Secret:
    """Read an API key: visible ASCII in one piece, as it goes into an HTTP header."""
    if not _TOKEN.fullmatch(text):
        raise ValueError("an API key is one word of visible ASCII characters")
    return Secret(text)


def long_token(text: str) -> Secret:
    """Read a token of our own: as an API key, and too long to be guessed."""
    if not _TOKEN.fullmatch(text) or len(text) < LEAST_TOKEN_LENGTH:
        raise ValueError(f"expected one word of at least {LEAST_TOKEN_LENGTH} visible ASCII characters")
    return Secret(text)


def signature_keys(text: str) -> tuple[SignatureKey, ...]:
    """Read comma-separated signature keys."""
    return tuple(SignatureKey.parse(part.strip()) for part in text.split(","))


def plain(text: str) -> str:
    """Accept any text in one line."""
    if not text.isprintable():
        raise ValueError("expected one line without control characters")
    return text


def http_url(text: str) -> str:
    """Read a base URL; it comes back without the slash at its end."""
    url = _split(text)
    if url is None or url.scheme not in {"http", "https"} or not url.hostname:
        raise ValueError("expected an http:// or https:// URL")
    if "@" in url.netloc or url.query or url.fragment:
        raise ValueError("expected a URL without user, query or fragment")
    return text.rstrip("/")


def public_url(text: str) -> str:
    """Read the receiver's address as Close reaches it; without a path it gets the webhooks' own."""
    url = _split(text)
    here = url is not None and url.hostname in _THIS_MACHINE
    if url is None or not url.hostname or not (url.scheme == "https" or (url.scheme == "http" and here)):
        raise ValueError("expected an https:// URL (http:// only for this machine)")
    if "@" in url.netloc or url.query or url.fragment:
        raise ValueError("expected a URL without user, query or fragment")
    return text if url.path.strip("/") else text.rstrip("/") + WEBHOOK_PATH


def alert_url(text: str) -> Secret:
    """Read the address that alerts are posted to; who knows it can post, so only its host is shown."""
    url = _split(text)
    here = url is not None and url.hostname in _THIS_MACHINE
    if url is None or not url.hostname or not (url.scheme == "https" or (url.scheme == "http" and here)):
        raise ValueError("expected an https:// URL (http:// only for this machine)")
    if "@" in url.netloc or url.fragment:
        raise ValueError("expected a URL without user or fragment")
    return Secret(text, shown=f"{url.scheme}://{url.netloc}/***")


def redis_url(text: str) -> Secret:
    """Read a Redis URL; its user, password and options are not shown."""
    return Secret(text, shown=parse_redis_address(text).shown)


def is_this_machine(host: str) -> bool:
    """Whether what listens there is reached from this machine alone."""
    return host in _THIS_MACHINE


def _split(text: str) -> SplitResult | None:
    try:
        url = urlsplit(text)
        url.port  # noqa: B018 - a port that is no number shows only when it is read
    except ValueError:
        return None
    return url if _TOKEN.fullmatch(text) else None


def whole_number(*, least: int, most: int) -> Callable[[str], int]:
    """A parser of whole numbers from `least` to `most`."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,15}", text) or not least <= int(text) <= most:
            raise ValueError(f"expected a whole number from {least} to {most}")
        return int(text)

    return parse


def rate(text: str) -> float:
    """Read a number above zero, at most 10,000, such as `20` or `0.5`."""
    if not re.fullmatch(r"[0-9]{1,5}(\.[0-9]{1,6})?", text) or not 0 < float(text) <= MOST_PER_SECOND:
        raise ValueError("expected a number above 0, at most 10000")
    return float(text)


def timezone(text: str) -> dt.tzinfo:
    """Read the name of a time zone, such as `UTC` or `Europe/Paris`."""
    if text.upper() == "UTC":
        return dt.UTC
    try:
        return ZoneInfo(text)
    except (KeyError, OSError, ValueError):
        near = difflib.get_close_matches(text, available_timezones(), n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(f"expected the name of a time zone, such as UTC or Europe/Paris{hint}") from None


def member(choices: type[Choice]) -> Callable[[str], Choice]:
    """A parser of an enum's values, in any case."""

    def parse(text: str) -> Choice:
        try:
            return choices(text.lower())
        except ValueError:
            raise ValueError(f"expected {' or '.join(choices)}") from None

    return parse


def seconds(text: str) -> float:
    """Read a duration such as `25s`, `5m` or `3d`; a bare number is seconds."""
    duration = parse_duration(text)
    if duration is None:
        duration = parse_duration(f"{text}s")
    if duration is None:
        raise ValueError("expected a duration such as 25, 25s, 5m, 1h or 3d")
    return duration


def seconds_or_off(text: str) -> float | None:
    """Read a duration above zero, or `off`, which is None."""
    if text.lower() == "off":
        return None
    duration = seconds(text)
    if duration <= 0:
        raise ValueError("expected a duration above zero, or `off`")
    return duration


def size_bytes(text: str) -> int:
    """Read a size such as `2097152`, `512KiB` or `2MiB`, at least one byte."""
    match = _SIZE.fullmatch(text)
    if not match or int(match[1]) < 1:
        raise ValueError("expected a size of at least one byte, such as 2097152, 512KiB or 2MiB")
    return int(match[1]) * _BYTES_IN[match[2].lower()]
