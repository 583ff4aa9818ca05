"""What Close's event log says about a call of ours that ended unclearly. Pure.

Source: https://developer.close.com/api/resources/events/list. An event of action `updated` names the changed
fields, and the API key that changed them. Events of one object within a few seconds may become one.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from workers.outcome import Ambiguous, Gone, Halt, RateLimited, Rejected, Retry, judge_refusal
from workers.ratelimit_header import http_date
from workers.reply import Reply
from workers.reply_body import json_object

if TYPE_CHECKING:
    from workers.outcome import Refusal
    from workers.reply import Failure

CLOCK_SKEW_SECONDS = 60
"""Close's clock and ours may differ by so much, where its reply does not tell its own time."""

DATE_TOLERANCE_SECONDS = 2
"""A reply's `Date` is in whole seconds, and Redis's clock may differ from the worker's a little."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogUnreadable:
    """The log could not be read; `outcome` says what to do. Reading again is always safe."""

    outcome: Retry | RateLimited | Rejected | Halt


def log_since(called_ms: int) -> str:
    """The moment from which the log is asked, in Close's form (UTC, without a zone)."""
    return _close_time(called_ms / 1000 - CLOCK_SKEW_SECONDS)


def _close_time(unix_seconds: float) -> str:
    moment = dt.datetime.fromtimestamp(unix_seconds, dt.UTC)
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds")


def wrote_field(
    result: Reply | Failure, *, field_id: str, api_key_id: str, since_ms: int, now_ms: int
) -> bool | LogUnreadable:
    """Whether one of the events is a write of our API key to the field since the call.

    Args:
        result: what came back from listing the record's `updated` events.
        field_id: the custom field.
        api_key_id: our key's id.
        since_ms: when the call was made, Unix milliseconds.
        now_ms: when the reply came, by the same clock; with the reply's own `Date` it tells how far Close's
            clock is from ours, so that a write of ours shortly before the call is not taken for the call's.
    """
    if not isinstance(result, Reply) or result.status != HTTPStatus.OK:
        return LogUnreadable(outcome=_safe(judge_refusal(result)))
    page = json_object(result)
    events = page.get("data") if isinstance(page, dict) else None
    if not isinstance(events, list):
        return LogUnreadable(outcome=Retry(reason="Close's event log was not understood"))
    since, field = _written_since(result, since_ms=since_ms, now_ms=now_ms), f"custom.{field_id}"
    return any(
        event.get("api_key_id") == api_key_id
        and isinstance(changed := event.get("changed_fields"), list)
        and field in changed
        and str(event.get("date_updated") or "") >= since
        for event in events
        if isinstance(event, dict)
    )


def _written_since(reply: Reply, *, since_ms: int, now_ms: int) -> str:
    """The earliest `date_updated` that a write of the call can have, in Close's form."""
    date = http_date(reply.headers.get("date", ""))
    if date is None:
        return log_since(since_ms)
    ahead_seconds = date.timestamp() - now_ms / 1000
    return _close_time(since_ms / 1000 + ahead_seconds - DATE_TOLERANCE_SECONDS)


def _safe(outcome: Refusal) -> Retry | RateLimited | Rejected | Halt:
    """Reading costs nothing: what may have run can simply be tried again."""
    return Retry(reason=outcome.reason) if isinstance(outcome, Ambiguous | Gone) else outcome
