"""What can be set about the sandbox, at its start and while it runs. Pure.

Where Close's behaviour is not settled, the most likely one is the default and an option gives the other.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import msgspec

DEMO_API_KEY = "api_sandbox0000000000000.demo"
"""The key a sandbox accepts unless told otherwise."""

ADMIN_PERMISSIONS = (
    "ai_enrich",
    "bulk_edit",
    "bulk_enrich",
    "export",
    "manage_customizations",
    "manage_organization",
    "merge_leads",
    "view_all_leads",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One token bucket's size.

    Attributes:
        rate_per_second: tokens added each second.
        burst: the most tokens the bucket holds; the `limit` of the `RateLimit` header.
        reset: what the header's `reset` counts down to: `full`, the bucket full again (Close's example of
            `limit=100, remaining=50, reset=5` reads so), or `next`, a call allowed again.
    """

    rate_per_second: float
    burst: int
    reset: Literal["full", "next"] = "full"

    def __post_init__(self) -> None:
        """Raise ValueError where the bucket could never give a token."""
        if self.rate_per_second <= 0:
            raise ValueError(f"rate_per_second is {self.rate_per_second}; expected more than 0")
        if self.burst < 1:
            raise ValueError(f"burst is {self.burst}; expected at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxOptions:
    """How the sandbox behaves. Every option can be changed while it runs, but for `delivery_concurrency`.

    Attributes:
        api_keys: the keys accepted; what stands before a key's dot is its `api_key_id` in events.
        permissions_granted: of the keys' user; without `ai_enrich`, enrichment is answered with 403.
        latency_min_seconds: an enrichment takes at least this long.
        latency_max_seconds: and at most this long, evenly spread.
        nothing_found_share: share of (record, field) pairs, 0 to 1, for which enrichment finds nothing;
            the same pairs every time.
        kept_answer: the `value` answered when a filled field is kept: the one `computed`, or the `existing`
            one.
        credits: what the organization has left; setting it while running sets the balance.
        credits_per_call: the price of one enrichment.
        charge_empty: whether a call that found nothing costs.
        charge_kept: whether a call costs that kept the value a field had.
        charge_preview: whether a call with `set_new_value: false` costs.
        default_limit: the bucket of each API key for each endpoint group not named in `limits`.
        limits: buckets by endpoint group: method, space, first part of the path, as in `POST enrich_field`.
        organization_limit_factor: an organization's buckets are this many times those of one key.
        clock_scale: real seconds for one of Close's in everything about deliveries: 0.01 makes a minute 0.6
            s.
        consolidation_seconds: how long, in Close's time, changes to a record by one cause become one event,
            and how much later than `created` the events `updated` and `deleted` are delivered.
        resign_retries: whether a delivery that is tried again gets a new timestamp and signature.
        missing_is_null: whether a subscription's filter takes a missing key for null.
        delivery_concurrency: deliveries in flight at once.
        delivery_timeout_seconds: real seconds a receiver may take to answer.
        backlog_limit: a subscription with this many events waiting is paused.
        subscription_limit: most subscriptions of the organization.
        search_cap: most objects one search may walk through.
        events_retained: most events kept in the log; older ones are forgotten, as are those of 30 days ago.
        retain_calls: keep each enrichment call's details; otherwise only the counters.
    """

    api_keys: tuple[str, ...] = (DEMO_API_KEY,)
    permissions_granted: tuple[str, ...] = ADMIN_PERMISSIONS
    latency_min_seconds: float = 1.0
    latency_max_seconds: float = 3.0
    nothing_found_share: float = 0.1
    kept_answer: Literal["computed", "existing"] = "computed"
    credits: int = 100_000
    credits_per_call: int = 1
    charge_empty: bool = True
    charge_kept: bool = True
    charge_preview: bool = True
    default_limit: Limit = Limit(rate_per_second=1000.0, burst=2000)
    limits: dict[str, Limit] = field(default_factory=dict)
    organization_limit_factor: float = 3.0
    clock_scale: float = 1.0
    consolidation_seconds: float = 5.0
    resign_retries: bool = True
    missing_is_null: bool = True
    delivery_concurrency: int = 16
    delivery_timeout_seconds: float = 10.0
    backlog_limit: int = 100_000
    subscription_limit: int = 40
    search_cap: int = 10_000
    events_retained: int = 50_000
    retain_calls: bool = True

    def __post_init__(self) -> None:
        """Raise ValueError, naming the option, where a value makes no sense."""
        if not 0 <= self.latency_min_seconds <= self.latency_max_seconds:
            raise ValueError(
                f"latency_min_seconds is {self.latency_min_seconds} and latency_max_seconds"
                f" {self.latency_max_seconds}; expected 0 <= min <= max"
            )
        if not 0 <= self.nothing_found_share <= 1:
            raise ValueError(f"nothing_found_share is {self.nothing_found_share}; expected 0 to 1")
        for name in ("clock_scale", "delivery_timeout_seconds", "organization_limit_factor"):
            _require(name, getattr(self, name), above=0)
        for name in ("credits", "credits_per_call", "consolidation_seconds"):
            _require(name, getattr(self, name), least=0)
        for name in (
            "delivery_concurrency",
            "backlog_limit",
            "subscription_limit",
            "search_cap",
            "events_retained",
        ):
            _require(name, getattr(self, name), least=1)


def _require(name: str, value: float, *, above: float | None = None, least: float | None = None) -> None:
    if above is not None and not value > above:
        raise ValueError(f"{name} is {value}; expected more than {above}")
    if least is not None and not value >= least:
        raise ValueError(f"{name} is {value}; expected at least {least}")


def changed_options(options: SandboxOptions, changes: dict[str, Any]) -> SandboxOptions | str:
    """The options with `changes` applied, or a sentence saying what is wrong with them.

    Args:
        options: those in force.
        changes: option names and JSON values; `limits` is merged by group, everything else replaced.
    """
    known = [entry.name for entry in fields(SandboxOptions)]
    for name in changes:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1)
            return f"unknown option {name!r}" + (f"; did you mean {nearest[0]!r}?" if nearest else "")
    merged = {**msgspec.to_builtins(options), **changes}
    if isinstance(changes.get("limits"), dict):
        merged["limits"] = {**msgspec.to_builtins(options.limits), **changes["limits"]}
    try:
        return msgspec.convert(merged, SandboxOptions)
    except msgspec.ValidationError as problem:
        return str(problem)
