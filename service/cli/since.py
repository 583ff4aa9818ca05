"""`--since`: from when on, as people write it: how long ago, or a day."""

from __future__ import annotations

import datetime as dt
import re

from service.cli.start import give_up
from service.durations import nearest_duration, parse_duration

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


def since_or_exit(text: str, *, now: dt.datetime, zone: dt.tzinfo = dt.UTC) -> dt.datetime:
    """The moment meant by `90m`, `12h`, `7d` or `2026-11-01`; or what was expected, and the end.

    Args:
        text: as it was given.
        now: with a zone.
        zone: where a day begins.
    """
    if _DAY.fullmatch(text):
        try:
            return dt.datetime.fromisoformat(text).replace(tzinfo=zone)
        except ValueError:
            give_up(f"--since {text}: there is no such day")
    seconds = parse_duration(text)
    if seconds is None or seconds <= 0:
        near = nearest_duration(text)
        hint = f"; did you mean {near}?" if near and near != text else ""
        give_up(f"--since {text}: expected how long ago, such as 90m, 12h or 7d, or a day, 2026-11-01{hint}")
    try:
        return now - dt.timedelta(seconds=seconds)
    except OverflowError:
        give_up(f"--since {text}: that is before all time")
