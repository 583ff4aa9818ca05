"""Rate limits: token buckets for each API key and endpoint group, and the headers Close answers with. Pure.

Source: https://developer.close.com/api/overview/rate-limits: `RateLimit: limit=100, remaining=50, reset=5`,
where `reset` is seconds as a decimal; a 429 adds `retry-after` in whole seconds, rounded up. An organization
has three times the limit of a key; the header reports the limit closest to being hit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.sandbox.options import Limit, SandboxOptions

# A Unix time as a float is only exact to a quarter of a microsecond: a bucket short of a token by less than
# it gains in one counts as having it, so that a header is true to the moment it names. It is owed, not given.
_MARGIN_SECONDS = 1e-6


@dataclass(frozen=True, slots=True)
class Bucket:
    """Tokens left at a moment (Unix seconds)."""

    tokens: float
    at: float


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of one request for a token.

    Attributes:
        bucket: the bucket afterwards.
        allowed: whether there was a token.
        limit: the most tokens the bucket holds.
        remaining: calls that would be allowed at this very moment.
        reset_seconds: after this many seconds the bucket is full, or a call allowed, as its limit says.
    """

    bucket: Bucket
    allowed: bool
    limit: int
    remaining: int
    reset_seconds: float

    @property
    def header(self) -> str:
        """The value of the `RateLimit` header."""
        return f"limit={self.limit}, remaining={self.remaining}, reset={decimal_seconds(self.reset_seconds)}"

    @property
    def retry_after(self) -> str:
        """The value of the `retry-after` header: whole seconds, rounded up."""
        return str(math.ceil(self.reset_seconds))


def decimal_seconds(seconds: float) -> str:
    """Seconds with up to three decimals: `5`, `0.25`."""
    return f"{seconds:.3f}".rstrip("0").rstrip(".")


def take(bucket: Bucket | None, limit: Limit, now: float, *, tokens: int = 1) -> Taken:
    """Ask a bucket for tokens.

    Args:
        bucket: as the last call left it; None for a bucket that is still full.
        limit: the bucket's size; it may have changed since.
        now: Unix seconds; a clock that went back adds nothing and costs nothing.
        tokens: how many to take; 0 only looks.
    """
    held = _refilled(bucket, limit, now)
    margin_tokens = _MARGIN_SECONDS * limit.rate_per_second + 1e-9
    allowed = held >= max(tokens, 1) - margin_tokens
    left = held - tokens if allowed else held
    wanted = limit.burst if limit.reset == "full" else 1
    wait_seconds = max(0.0, wanted - left) / limit.rate_per_second
    return Taken(
        bucket=Bucket(left, now if bucket is None else max(now, bucket.at)),
        allowed=allowed,
        limit=limit.burst,
        remaining=max(0, math.floor(left + margin_tokens / 2)),
        reset_seconds=math.ceil(wait_seconds * 1000 - _MARGIN_SECONDS) / 1000,
    )


def _refilled(bucket: Bucket | None, limit: Limit, now: float) -> float:
    if bucket is None:
        return float(limit.burst)
    elapsed_seconds = max(0.0, now - bucket.at)
    return min(float(limit.burst), bucket.tokens + elapsed_seconds * limit.rate_per_second)


class Limiter:
    """The buckets of all API keys and of their organization, by endpoint group."""

    def __init__(self) -> None:
        self._buckets: dict[tuple[str, str], Bucket] = {}

    def take(self, *, api_key_id: str, group: str, options: SandboxOptions, now: float) -> Taken:
        """One call of a key in an endpoint group; a refused call costs no token anywhere.

        Args:
            api_key_id: whose call it is; empty for a call with a wrong key.
            group: as in `POST enrich_field`.
            options: the limits in force.
            now: Unix seconds.
        """
        limit = options.limits.get(group, options.default_limit)
        key = (api_key_id, group)
        own = take(self._buckets.get(key), limit, now)
        if len(options.api_keys) <= options.organization_limit_factor:
            # So few keys can never reach the organization's limit: the most common case stays cheap.
            self._buckets[key] = own.bucket
            return own
        factor = options.organization_limit_factor
        whole = replace(
            limit, rate_per_second=limit.rate_per_second * factor, burst=int(limit.burst * factor)
        )
        shared_key = ("organization", group)
        shared = take(self._buckets.get(shared_key), whole, now)
        if own.allowed and shared.allowed:
            self._buckets[key] = own.bucket
            self._buckets[shared_key] = shared.bucket
            return min(own, shared, key=lambda taken: taken.remaining / taken.limit)
        return own if not own.allowed else shared
