"""What one call to Close means for an enrichment. Pure: a reply or a failure in, one of a few outcomes out.

What decides is whether the call may have run, because a call that ran may have been paid for. Close documents
its codes at https://developer.close.com/api/overview/http-response-codes and `POST /enrich_field/` at
https://developer.close.com/api/resources/field-enrichment. It documents no 5xx code, nor any sign of what a
call that ended in one did.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

from service.rules import Mode
from workers.ratelimit_header import RateLimit, http_date, parse_rate_limit, retry_after_seconds
from workers.reply import Failure, FailureKind, FieldEmpty, FieldGone, FieldPresent, Reply
from workers.reply_body import error_messages, json_object, one_line

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT_WAIT_SECONDS = 2.0
"""After a 429 that names no delay; Close's own client waits as long."""


class HaltKind(StrEnum):
    """Why no call of the organization can succeed until a person acts."""

    KEY_REFUSED = "key_refused"
    PLAN_LIMIT = "plan_limit"
    REDIRECTED = "redirected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Close returned a value of any JSON type; `confidence` and `reasoning` are None where not text."""

    value: Any = field(repr=False)
    confidence: str | None = None
    reasoning: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Nothing:
    """Close answered and found nothing. `note` says what was odd about the answer, or is empty."""

    confidence: str | None = None
    reasoning: str | None = field(default=None, repr=False)
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimited:
    """Too many calls: the call did not run, and no attempt is used. The wait has no jitter yet."""

    wait_seconds: float
    limit: RateLimit | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """The call surely did not run.

    Attributes:
        reason: what went wrong.
        hint_seconds: the delay Close asked for, or None.
        unreachable: the request never left, so Close did not see it.
    """

    reason: str
    hint_seconds: float | None = None
    unreachable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ambiguous:
    """The call may have run: read the field back before calling again.

    Attributes:
        reason: what went wrong.
        hint_seconds: the delay Close asked for, or None.
        timed_out: it took too long, on our side or on Close's.
    """

    reason: str
    hint_seconds: float | None = None
    timed_out: bool = False


@dataclass(frozen=True, slots=True)
class Gone:
    """The record or the field no longer exists."""

    reason: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """Close will not do this, however often it is asked."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Halt:
    """No call of the organization will succeed until a person acts."""

    reason: str
    kind: HaltKind


Refusal: TypeAlias = RateLimited | Retry | Ambiguous | Gone | Rejected | Halt
Outcome: TypeAlias = Found | Nothing | Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldUnreadable:
    """The field could not be read; `outcome` says what to do. Reading again is always safe."""

    outcome: RateLimited | Retry | Rejected | Halt


FieldReading: TypeAlias = FieldPresent | FieldEmpty | FieldGone | FieldUnreadable


def judge(result: Reply | Failure, *, mode: Mode) -> Outcome:
    """What a call to `POST /enrich_field/` came to. Never raises, whatever the reply holds.

    Args:
        result: what came back.
        mode: what was to become of the value; it decides what a doubtful end may have done.
    """
    outcome = _judge_failure(result) if isinstance(result, Failure) else _judge_reply(result)
    if isinstance(outcome, Ambiguous):
        doubt = "a credit may have been spent" if mode is Mode.PREVIEW else "the value may have been saved"
        return replace(outcome, reason=f"{outcome.reason}; {doubt}")
    return outcome


def read_field(result: Reply | Failure, *, field_id: str) -> FieldReading:
    """What a lead or contact, fetched with its `id` and one custom field, says about it. Never raises.

    Close leaves out custom fields without a value; null, `""` and `[]` count as empty too.

    Args:
        result: what came back from fetching the record.
        field_id: the custom field's id; its key in the record is `custom.<field_id>`.
    """
    if isinstance(result, Reply) and result.status == HTTPStatus.OK:
        return _field_of_record(result, field_id=field_id)
    outcome = judge_refusal(result)
    if isinstance(outcome, Gone):
        return FieldGone(reason=outcome.reason)
    if isinstance(outcome, Ambiguous):
        outcome = Retry(reason=outcome.reason, hint_seconds=outcome.hint_seconds)
    return FieldUnreadable(outcome=outcome)


def _field_of_record(reply: Reply, *, field_id: str) -> FieldReading:
    record = json_object(reply)
    if isinstance(record, str):
        return FieldUnreadable(outcome=Retry(reason=record))
    # Without its id this is not the record, and a missing key would wrongly mean an empty field.
    if not isinstance(record.get("id"), str):
        return FieldUnreadable(outcome=Retry(reason="Close's answer was not the record that was asked for"))
    value = record.get(f"custom.{field_id}")
    return FieldEmpty() if _is_empty(value) else FieldPresent(value=value)


_FAILURES = {
    FailureKind.CONNECT: "Close could not be reached",
    FailureKind.POOL: "No connection to Close was free",
    FailureKind.WRITE_TIMEOUT: "Close stopped taking the request while it was being sent",
    FailureKind.WRITE_ERROR: "The connection to Close broke while the request was being sent",
    FailureKind.READ_TIMEOUT: "Close took the request but did not answer in time",
    FailureKind.DROPPED: "The connection to Close ended before its answer was complete",
    FailureKind.DEADLINE: "Close's answer took longer than a call may",
}


_TOO_SLOW = frozenset({FailureKind.READ_TIMEOUT, FailureKind.DEADLINE})


def judge_refusal(result: Reply | Failure) -> Refusal:
    """What a reply that is no success, or no reply at all, means for a call that only reads. Never raises."""
    return _judge_failure(result) if isinstance(result, Failure) else _judge_refusal(result)


def _judge_failure(failure: Failure) -> Retry | Ambiguous:
    reason = _FAILURES[failure.kind]
    if failure.kind is FailureKind.CONNECT and failure.detail:
        return Retry(reason=one_line(f"{reason} ({failure.detail})"), unreachable=True)
    if failure.kind in {FailureKind.CONNECT, FailureKind.POOL}:
        return Retry(reason=reason, unreachable=True)
    return Ambiguous(reason=reason, timed_out=failure.kind in _TOO_SLOW)


def _judge_reply(reply: Reply) -> Outcome:
    if not HTTPStatus.OK <= reply.status < HTTPStatus.MULTIPLE_CHOICES:
        return _judge_refusal(reply)
    answer = json_object(reply)
    if isinstance(answer, str):
        return Ambiguous(reason=f"{answer} ({reply.status})")
    confidence, reasoning = _text(answer.get("confidence")), _text(answer.get("reasoning"))
    if "value" not in answer:
        if reply.status != HTTPStatus.OK:
            return Ambiguous(reason=f"Close answered without a result ({reply.status})")
        keys = one_line(", ".join(sorted(answer)[:20])) or "none"
        note = one_line(f"the answer has no value; its keys: {keys}")
        return Nothing(confidence=confidence, reasoning=reasoning, note=note)
    if _is_empty(answer["value"]):
        return Nothing(confidence=confidence, reasoning=reasoning)
    return Found(value=answer["value"], confidence=confidence, reasoning=reasoning)


def _judge_refusal(reply: Reply) -> Refusal:
    by_class = _REFUSAL_CLASSES.get(reply.status // 100, _may_have_run)
    return _REFUSALS.get(reply.status, by_class)(reply)


def _may_have_run(reply: Reply) -> Ambiguous:
    failed = reply.status >= HTTPStatus.INTERNAL_SERVER_ERROR
    sentence = "Close failed while it was answering" if failed else "Close answered in an unexpected way"
    return Ambiguous(
        reason=f"{sentence} ({reply.status})",
        hint_seconds=_hint(reply),
        timed_out=reply.status == HTTPStatus.GATEWAY_TIMEOUT,
    )


def _unavailable(reply: Reply) -> Retry:
    return Retry(reason=f"Close is unavailable at the moment ({reply.status})", hint_seconds=_hint(reply))


def _request_timeout(reply: Reply) -> Ambiguous:
    return Ambiguous(
        reason=f"Close says the request took too long ({reply.status})",
        hint_seconds=_hint(reply),
        timed_out=True,
    )


def _rate_limited(reply: Reply) -> RateLimited:
    limit = parse_rate_limit(reply.headers)
    if limit is not None and limit.reset_seconds is not None:
        return RateLimited(wait_seconds=limit.reset_seconds, limit=limit)
    hint_seconds = _hint(reply)
    return RateLimited(
        wait_seconds=DEFAULT_WAIT_SECONDS if hint_seconds is None else hint_seconds, limit=limit
    )


def _gone(reply: Reply) -> Gone:
    return Gone(reason=_explained(f"Close does not know this record or field ({reply.status})", reply))


def _rejected(reply: Reply) -> Rejected:
    sentence = _REJECTIONS.get(reply.status, "Close rejected the request")
    return Rejected(reason=_explained(f"{sentence} ({reply.status})", reply))


def _key_refused(reply: Reply) -> Halt:
    return Halt(reason=f"Close refused the API key ({reply.status})", kind=HaltKind.KEY_REFUSED)


def _plan_limit(reply: Reply) -> Halt:
    sentence = f"Close says a limit of the plan or of the AI credits is reached ({reply.status})"
    return Halt(reason=_explained(sentence, reply), kind=HaltKind.PLAN_LIMIT)


def _redirected(reply: Reply) -> Halt:
    # The host alone: a query string may hold secrets.
    try:
        host = urlsplit(reply.headers.get("location", "")).hostname
    except ValueError:
        host = None
    where = f" to {one_line(host)}" if host else ""
    reason = one_line(f"Close redirected the call{where} ({reply.status}); check CLOSE_API_URL")
    return Halt(reason=reason, kind=HaltKind.REDIRECTED)


_REFUSALS: dict[int, Callable[[Reply], Refusal]] = {
    401: _key_refused,
    402: _plan_limit,
    404: _gone,
    408: _request_timeout,
    429: _rate_limited,
    503: _unavailable,
}
_REFUSAL_CLASSES: dict[int, Callable[[Reply], Refusal]] = {3: _redirected, 4: _rejected}
_REJECTIONS = {
    403: "Close does not allow this API key's user to do that",
    405: "Close does not accept this kind of request",
    415: "Close does not accept this kind of content",
}


def _hint(reply: Reply) -> float | None:
    # Measured from the reply's own Date: no clock is needed, and a clock that is wrong does no harm.
    return retry_after_seconds(reply.headers, now=http_date(reply.headers.get("date", "")))


def _explained(sentence: str, reply: Reply) -> str:
    """`sentence`, with what Close's own error body says."""
    messages = error_messages(reply)
    return one_line(f"{sentence}: {'; '.join(messages)}" if messages else sentence)


def _is_empty(value: object) -> bool:
    return value is None or value in ("", [])


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
