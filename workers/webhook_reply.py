"""What Close answered to a call about webhook subscriptions. Pure.

Attributes that are new, missing or of another type are tolerated: only a subscription's `id` and `url` are
needed. Source: https://developer.close.com/api/resources/webhooks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeAlias

from service.signature import SignatureKey
from workers.reply import Failure, Reply
from workers.reply_body import error_messages, json_object, one_line
from workers.subscription import Failed, Interest, Subscription

Shown: TypeAlias = dict[str, Any]

_SUCCESS = range(200, 300)
_ID = re.compile(r"\bwhsub_[0-9A-Za-z]{1,100}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Why Close did not do what it was asked to.

    Attributes:
        reason: a sentence for people, without keys.
        status: the HTTP status, or None where there was no answer.
        named: the subscription that a refusal names, or None.
    """

    reason: str
    status: int | None = None
    named: str | None = None


NO_SUBSCRIPTION = Trouble(reason="Close's answer was not a subscription")


def refusal(result: Reply | Failure) -> Trouble | None:
    """Why a call was refused, or None where it was not, whatever the answer's body."""
    return None if isinstance(result, Reply) and result.status in _SUCCESS else _trouble(result)


def read_reply(result: Reply | Failure) -> Shown | Trouble:
    """The object that Close shows. It may hold a signature key: it must not be logged."""
    if isinstance(result, Failure) or result.status not in _SUCCESS:
        return _trouble(result)
    shown = json_object(result)
    return shown if isinstance(shown, dict) else Trouble(reason=shown, status=result.status)


def shown_subscription(shown: Shown | Trouble) -> Subscription | Trouble:
    """The subscription in an answer."""
    return shown if isinstance(shown, Trouble) else read_subscription(shown) or NO_SUBSCRIPTION


def read_subscription(shown: object) -> Subscription | None:
    """One of Close's subscription objects, or None for what cannot be one."""
    if not isinstance(shown, Mapping):
        return None
    of_id, url = shown.get("id"), shown.get("url")
    if not isinstance(of_id, str) or not isinstance(url, str) or not _ID.fullmatch(of_id):
        return None
    events, counters = shown.get("events"), shown.get("counters")
    interests = [_interest(one) for one in (events if isinstance(events, list) else ())]
    counts = counters if isinstance(counters, Mapping) else {}
    created = shown.get("date_created")
    return Subscription(
        id=of_id,
        url=url,
        status=str(shown.get("status")),
        events=tuple(one for one in interests if one is not None),
        failing_buckets=_count(shown.get("recent_consecutive_fail_buckets_cnt")),
        delivered=_count(counts.get("first_success")) + _count(counts.get("retry_success")),
        created=created if isinstance(created, str) else "",
        failed=max(map(_failed, _attempts(shown, "errors")), key=lambda one: one.at, default=None),
        succeeded_at=max((at for at, _ in _attempts(shown, "successes")), default=""),
    )


def _attempts(shown: Mapping[str, Any], name: str) -> list[tuple[str, Mapping[str, Any]]]:
    """Deliveries of late that Close shows under this name, each with its moment."""
    history = shown.get("history")
    listed = history.get(name) if isinstance(history, Mapping) else None
    found = (one for one in (listed if isinstance(listed, list) else ()) if isinstance(one, Mapping))
    return [(one["datetime"], one) for one in found if isinstance(one.get("datetime"), str)]


def _failed(attempt: tuple[str, Mapping[str, Any]]) -> Failed:
    at, one = attempt
    status = one.get("response_status_code")
    how = str(status) if isinstance(status, int) else one_line(str(one.get("error") or "no answer"))
    return Failed(at=at, how=how)


def read_key(shown: Mapping[str, Any]) -> SignatureKey | None:
    """The signature key in a subscription object; None where Close does not show it."""
    text = shown.get("signature_key")
    try:
        return SignatureKey.parse(text) if isinstance(text, str) else None
    except ValueError:
        return None


def named_in(messages: Sequence[str]) -> str | None:
    """The id of the subscription that an error names, or None."""
    match = _ID.search(" ".join(messages))
    return match[0] if match else None


def _trouble(result: Reply | Failure) -> Trouble:
    if isinstance(result, Failure):
        detail = f" ({result.detail})" if result.detail else ""
        return Trouble(reason=f"Close could not be asked: {result.kind}{detail}")
    messages = error_messages(result)
    said = f": {one_line('; '.join(messages))}" if messages else ""
    return Trouble(
        reason=f"Close answered {result.status}{said}",
        status=result.status,
        named=named_in(messages) if result.status == HTTPStatus.BAD_REQUEST else None,
    )


def _interest(shown: object) -> Interest | None:
    if not isinstance(shown, Mapping):
        return None
    kind, action, extra_filter = shown.get("object_type"), shown.get("action"), shown.get("extra_filter")
    if not isinstance(kind, str) or not isinstance(action, str):
        return None
    return Interest(
        object_type=kind,
        action=action,
        extra_filter=extra_filter if isinstance(extra_filter, Mapping) else None,
    )


def _count(shown: object) -> int:
    return shown if isinstance(shown, int) and shown > 0 else 0
