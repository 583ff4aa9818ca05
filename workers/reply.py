"""What comes back from one call to Close: a reply, a failure, or what a field holds. Pure values."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


class FailureKind(StrEnum):
    """How a call ended without a reply."""

    CONNECT = "connect"
    """No connection: refused, unknown host, TLS, proxy, or too slow. The request was never sent."""
    POOL = "pool"
    """No free connection on our side. The request was never sent."""
    WRITE_TIMEOUT = "write_timeout"
    """Close stopped taking the request while it was being sent."""
    WRITE_ERROR = "write_error"
    """The connection broke while the request was being sent."""
    READ_TIMEOUT = "read_timeout"
    """Close took the request and then stayed silent for too long."""
    DROPPED = "dropped"
    """The connection ended, or made no sense, before the reply was complete."""
    DEADLINE = "deadline"
    """The whole call took longer than it may, for example because the reply came drop by drop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An HTTP reply of any status.

    Attributes:
        status: the HTTP status code.
        headers: names in lower case; only those that a decision needs.
        body: the raw body, at most as long as allowed. No repr shows it: it holds values of records.
        truncated: true when the body was longer than allowed; `body` is then only its start.
        elapsed_seconds: from the start of the call to the end of the body.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    truncated: bool = False
    elapsed_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A call that ended without a reply.

    Attributes:
        kind: how it ended.
        elapsed_seconds: from the start of the call to its end.
        detail: a few words for a log; never part of a request or a reply.
    """

    kind: FailureKind
    elapsed_seconds: float = 0.0
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldPresent:
    """The field holds a value."""

    value: Any = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldEmpty:
    """The record exists and the field holds nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldGone:
    """The record no longer exists."""

    reason: str
