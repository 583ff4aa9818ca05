"""Webhook subscriptions: their state, their health, and the decisions about retrying and pausing.

Source: https://developer.close.com/api/resources/webhooks: back-off grows to at most 20 minutes, an event is
dropped after 72 hours, a subscription is paused when every delivery failed for 3 days or 100,000 events wait.
The first retry was observed after about 60 s. All durations here are Close's time, before `clock_scale`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

from service.sandbox.ids import attempt_time, naive_time

FIRST_RETRY_SECONDS = 60.0
MOST_RETRY_SECONDS = 20 * 60.0
DROPPED_AFTER_SECONDS = 72 * 3600.0
PAUSED_AFTER_SECONDS = 3 * 86400.0
HISTORY_MOST = 20
"""Attempts of each kind a subscription remembers; Close's number is not known."""

_BUCKET_SECONDS = 3600.0

Status = Literal["active", "paused"]


def retry_delay_seconds(failed_attempts: int) -> float:
    """How long after its last failed attempt an event is tried again: 1, 2, 4, 8, 16, 20, 20 … minutes.

    Args:
        failed_attempts: how many there were, at least 1.
    """
    # Bounded before the power is taken: an event sees some 220 attempts.
    return min(MOST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** min(failed_attempts - 1, 10))


def next_retry_seconds(*, failed_attempts: int, age_seconds: float) -> float | None:
    """How long until the next attempt, or None for an event that is dropped.

    Args:
        failed_attempts: how many there were, at least 1.
        age_seconds: since the first attempt.
    """
    delay_seconds = retry_delay_seconds(failed_attempts)
    return None if age_seconds + delay_seconds > DROPPED_AFTER_SECONDS else delay_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Interest:
    """One kind of event a subscription wants."""

    object_type: str
    action: str
    extra_filter: dict[str, Any] | None = None

    @property
    def shown(self) -> dict[str, Any]:
        """As the API shows it."""
        return {"action": self.action, "extra_filter": self.extra_filter, "object_type": self.object_type}


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """How one delivery attempt ended.

    Attributes:
        event_id: the event delivered.
        number: 1 for the first attempt.
        at: Unix seconds.
        status: what the receiver answered; None for no answer.
        error: the exception's name in Close's words; None for success.
    """

    event_id: str
    number: int
    at: float
    status: int | None
    error: str | None

    @property
    def shown(self) -> dict[str, Any]:
        """As a subscription's history shows it."""
        return {
            "attempt_number": self.number,
            "datetime": attempt_time(self.at),
            "error": self.error,
            "event_id": self.event_id,
            "response_status_code": self.status,
        }


@dataclass(slots=True, kw_only=True)
class Subscription:
    """A webhook subscription.

    Attributes:
        id: `whsub_…`.
        url: where events go.
        events: which ones.
        verify_ssl: whether the receiver's certificate is checked.
        signature_key: 32 bytes in hex. Never in reprs.
        user_id: who made it.
        created_at: Unix seconds.
        updated_at: Unix seconds.
        status: `active` or `paused`.
        pause_reason: `api` after a pause by PUT; the words for automatic pauses are not known.
        counters: first and retry, success and fail.
        latest_error: of the last failed attempt.
        errors: the last failed attempts.
        successes: the last successful ones.
        failing_since: Unix seconds of the first failure after which nothing succeeded.
        failing_buckets: hours of Close's time, begun, in which every delivery failed.
        backlog: events waiting for delivery or retry.
        generation: moves when the queue is cleared; deliveries of an older one are void.
    """

    id: str
    url: str
    events: tuple[Interest, ...]
    verify_ssl: bool
    signature_key: str = field(repr=False)
    user_id: str
    created_at: float
    updated_at: float
    status: Status = "active"
    pause_reason: str | None = None
    counters: Counter[str] = field(default_factory=Counter)
    latest_error: str | None = None
    errors: list[dict[str, Any]] = field(default_factory=list)
    successes: list[dict[str, Any]] = field(default_factory=list)
    failing_since: float | None = None
    failing_buckets: int = 0
    backlog: int = 0
    generation: int = 0

    def shown(self, *, with_key: bool) -> dict[str, Any]:
        """As the API shows it; the list leaves `signature_key` out."""
        shown = {
            "counters": dict(self.counters),
            "created_by": self.user_id,
            "date_created": naive_time(self.created_at),
            "date_updated": naive_time(self.updated_at),
            "events": [interest.shown for interest in self.events],
            "health_status": None,
            "history": {"errors": self.errors, "successes": self.successes},
            "id": self.id,
            "latest_error": self.latest_error,
            "pause_reason": self.pause_reason,
            "recent_consecutive_fail_buckets_cnt": self.failing_buckets,
            "status": self.status,
            "updated_by": self.user_id,
            "url": self.url,
            "verify_ssl": self.verify_ssl,
        }
        return {**shown, "signature_key": self.signature_key} if with_key else shown

    def pause(self, reason: str) -> None:
        """Stop deliveries and clear the queue: what waits is lost."""
        self.status = "paused"
        self.pause_reason = reason
        self.generation += 1
        self.backlog = 0

    def activate(self) -> None:
        """Start deliveries again, of events from now on, with the same key."""
        self.status = "active"
        self.pause_reason = None
        self.failing_since = None
        self.failing_buckets = 0

    def note(self, attempt: Attempt, *, clock_scale: float) -> None:
        """Remember how an attempt ended, and pause when all failed for 3 days.

        Args:
            attempt: what happened.
            clock_scale: real seconds for one of Close's.
        """
        ordinal = "first" if attempt.number == 1 else "retry"
        if attempt.error is None:
            self.counters[f"{ordinal}_success"] += 1
            self.successes = [*self.successes, attempt.shown][-HISTORY_MOST:]
            self.failing_since = None
            self.failing_buckets = 0
            return
        self.counters[f"{ordinal}_fail"] += 1
        self.errors = [*self.errors, attempt.shown][-HISTORY_MOST:]
        self.latest_error = f"Exception name: {attempt.error}, Status code: {attempt.status}"
        if self.failing_since is None:
            self.failing_since = attempt.at
        failing_seconds = (attempt.at - self.failing_since) / clock_scale
        self.failing_buckets = int(failing_seconds // _BUCKET_SECONDS)
        if failing_seconds >= PAUSED_AFTER_SECONDS and self.status == "active":
            self.pause("delivery_failures")
