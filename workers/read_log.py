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
from workers.reply import Reply
from workers.reply_body import json_object

if TYPE_CHECKING:
    from workers.reply import Failure

CLOCK_SKEW_SECONDS = 60
"""Close's clock and ours may differ by so much; the call itself took longer than that only rarely."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogUnreadable:
    """The log could not be read; `outcome` says what to do. Reading again is always safe."""

    outcome: Retry | RateLimited | Rejected | Halt


def log_since(called_ms: int) -> str:
    """The moment from which the log is asked, in Close's form (UTC, without a zone)."""
    moment = dt.datetime.fromtimestamp(called_ms / 1000 - CLOCK_SKEW_SECONDS, dt.UTC)
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds")


def wrote_field(
    result: Reply | Failure, *, field_id: str, api_key_id: str, since_ms: int
) -> bool | LogUnreadable:
    """Whether one of the events is a write of our API key to the field since the call.

    Args:
        result: what came back from listing the record's `updated` events.
        field_id: the custom field.
        api_key_id: our key's id.
        since_ms: when the call was made, Unix milliseconds.
    """
    if not isinstance(result, Reply) or result.status != HTTPStatus.OK:
        return LogUnreadable(outcome=_safe(judge_refusal(result)))
    page = json_object(result)
    events = page.get("data") if isinstance(page, dict) else None
    if not isinstance(events, list):
        return LogUnreadable(outcome=Retry(reason="Close's event log was not understood"))
    since = log_since(since_ms)
    return any(
        isinstance(event, dict)
        and event.get("api_key_id") == api_key_id
        and f"custom.{field_id}" in (event.get("changed_fields") or ())
        and str(event.get("date_updated") or "") >= since
        for event in events
    )


def _safe(outcome: object) -> Retry | RateLimited | Rejected | Halt:
    """Reading costs nothing: what may have run can simply be tried again."""
    if isinstance(outcome, Retry | RateLimited | Rejected | Halt):
        return outcome
    if isinstance(outcome, Ambiguous | Gone):
        return Retry(reason=outcome.reason)
    return Retry(reason="Close's event log could not be read")
