"""Ids and dates as Close writes them. Pure.

Ids are a prefix, `_` and base62: 43 characters for records, 22 for the rest. Event and subscription dates
carry no zone and mean UTC; dates inside a record carry one (observed deliveries and recordings of Close's
API).
"""

from __future__ import annotations

import hashlib
import string
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
LONG_PREFIXES = frozenset({"lead", "cont", "orga", "user", "stat", "cf", "lcf", "role"})


def id_length(prefix: str) -> int:
    """How many characters follow the prefix and its underscore."""
    return 43 if prefix in LONG_PREFIXES else 22


def new_id(prefix: str, random: Random) -> str:
    """A fresh id with the given prefix, from the randomness passed in."""
    return f"{prefix}_{''.join(random.choices(ALPHABET, k=id_length(prefix)))}"


def named_id(prefix: str, name: str) -> str:
    """The id that always belongs to `name`: the same in every sandbox, so rules may refer to it."""
    number = int.from_bytes(hashlib.blake2b(f"{prefix}\0{name}".encode()).digest(), "big")
    characters = []
    for _ in range(id_length(prefix)):
        number, digit = divmod(number, len(ALPHABET))
        characters.append(ALPHABET[digit])
    return f"{prefix}_{''.join(characters)}"


def event_time(unix_seconds: float) -> str:
    """`2026-10-14T09:30:12.418000`: milliseconds in six digits, no zone."""
    return _milliseconds(unix_seconds).replace(tzinfo=None).isoformat(timespec="microseconds")


def record_time(unix_seconds: float) -> str:
    """`2026-10-14T09:30:12.418000+00:00`: milliseconds in six digits, with zone."""
    return _milliseconds(unix_seconds).isoformat(timespec="microseconds")


def naive_time(unix_seconds: float) -> str:
    """`2026-10-14T09:12:09.590432`: microseconds, no zone, as in a subscription."""
    return _moment(unix_seconds).replace(tzinfo=None).isoformat(timespec="microseconds")


def attempt_time(unix_seconds: float) -> str:
    """`2026-10-14T09:30:13.029833+00:00`, as in a subscription's history: microseconds, with zone."""
    return _moment(unix_seconds).isoformat(timespec="microseconds")


def parsed_time(text: str) -> float | None:
    """Unix seconds of an ISO 8601 date or time, UTC where it names no zone; None where it is neither."""
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC).timestamp()
    except (ValueError, OverflowError):
        return None


def _moment(unix_seconds: float) -> datetime:
    return datetime.fromtimestamp(unix_seconds, UTC)


def _milliseconds(unix_seconds: float) -> datetime:
    moment = _moment(unix_seconds)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
