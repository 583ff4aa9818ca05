"""Reads the headers by which Close sets the pace. Pure, and never raises: a part it cannot read is None.

Source: https://developer.close.com/api/overview/rate-limits. The header is
`RateLimit: limit=100, remaining=50, reset=5` with `reset` in decimal seconds; its three parts used to be
`x-rate-limit-` headers of their own. A 429 also carries `retry-after`, in whole seconds rounded up.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_SECONDS = 86_400.0
"""A longer pause than a day is taken for a mistake and ignored."""
MOST_REQUESTS = 1_000_000_000.0

# Fifteen digits keep the number exact and the conversion cheap, whatever a header holds.
_NUMBER = re.compile(r"[0-9]{1,15}(?:\.[0-9]{0,15})?|\.[0-9]{1,15}")
_OLD_PREFIX = "x-rate-limit-"


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """The limit closest to being hit, as far as Close named it.

    Attributes:
        limit: requests a window allows.
        remaining: requests left in this window.
        reset_seconds: until the window starts anew; may be a fraction.
    """

    limit: int | None = None
    remaining: int | None = None
    reset_seconds: float | None = None


def parse_rate_limit(headers: Mapping[str, str]) -> RateLimit | None:
    """The rate limit that a reply names, or None where it names nothing readable.

    Args:
        headers: names in lower case.
    """
    parts: dict[str, str] = {}
    for item in re.split("[,;]", headers.get("ratelimit", "")):
        name, _, text = item.partition("=")
        parts.setdefault(name.strip().lower(), text.strip().strip('"'))
    old = {
        name.removeprefix(_OLD_PREFIX): text for name, text in headers.items() if name.startswith(_OLD_PREFIX)
    }
    return _rate_limit(parts) or _rate_limit(old)


def retry_after_seconds(headers: Mapping[str, str], *, now: datetime | None) -> float | None:
    """How long `retry-after` asks to wait, in seconds, or None where it is absent or unreadable.

    Args:
        headers: names in lower case.
        now: what an HTTP-date is measured from, with a zone; without it a date is ignored.
    """
    text = headers.get("retry-after", "").strip()
    seconds = _number(text, most=MOST_SECONDS)
    if seconds is not None or now is None:
        return seconds
    date = http_date(text)
    if date is None:
        return None
    wait_seconds = max(0.0, (date - now).total_seconds())
    return wait_seconds if wait_seconds <= MOST_SECONDS else None


def http_date(text: str) -> datetime | None:
    """An HTTP-date (RFC 9110, section 5.6.7) with its zone, or None where the text is no date."""
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    # RFC 9110: an HTTP-date is always in UTC, also in the old form that does not say so.
    return date.replace(tzinfo=UTC) if date.tzinfo is None else date


def _rate_limit(parts: Mapping[str, str]) -> RateLimit | None:
    limit = _whole(parts.get("limit", ""))
    remaining = _whole(parts.get("remaining", ""))
    reset_seconds = _number(parts.get("reset", ""), most=MOST_SECONDS)
    if limit is None and remaining is None and reset_seconds is None:
        return None
    return RateLimit(limit=limit, remaining=remaining, reset_seconds=reset_seconds)


def _whole(text: str) -> int | None:
    number = _number(text, most=MOST_REQUESTS)
    return int(number) if number is not None and number.is_integer() else None


def _number(text: str, *, most: float) -> float | None:
    text = text.strip()
    if _NUMBER.fullmatch(text) is None:
        return None
    number = float(text)
    return number if number <= most else None
