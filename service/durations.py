"""Lengths of time as people write them: `250ms`, `20s`, `2m`, `1h`, `7d`, and a plain `0`. Pure."""

from __future__ import annotations

import re

_SECONDS_BY_UNIT = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(ms|s|m|h|d)", re.ASCII)
_LIKE_A_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)\s*([a-z]*)", re.ASCII)

DURATION_PATTERN = r"^(0|[0-9]{1,9}(\.[0-9]{1,3})?(ms|s|m|h|d))$"
"""The same grammar for a JSON Schema."""


def parse_duration(text: str) -> float | None:
    """The seconds that `text` stands for, or None where it is not a duration."""
    if text == "0":
        return 0.0
    match = _DURATION.fullmatch(text)
    return None if match is None else float(match[1]) * _SECONDS_BY_UNIT[match[2]]


def nearest_duration(text: str) -> str | None:
    """The duration that somebody who wrote `text` probably meant: `20` is `20s`, `5 min` is `5m`; or None."""
    match = _LIKE_A_DURATION.fullmatch(text.strip().lower())
    if match is None:
        return None
    number, word = match[1], match[2]
    if word.startswith(("ms", "milli")):
        return f"{number}ms"
    unit = word[:1] or "s"
    return f"{number}{unit}" if unit in _SECONDS_BY_UNIT else None


def format_duration(seconds: float) -> str:
    """The shortest way to write `seconds`, to the millisecond."""
    milliseconds = round(seconds * 1000)
    for unit in ("d", "h", "m", "s"):
        size = round(_SECONDS_BY_UNIT[unit] * 1000)
        if milliseconds and milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms" if milliseconds else "0"
