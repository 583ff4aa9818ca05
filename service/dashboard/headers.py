"""The headers of every answer of the dashboard. Pure.

Nothing is loaded from elsewhere, no script or style stands in a page, nobody frames it, and no browser or
proxy keeps what it shows (https://developer.mozilla.org/docs/Web/HTTP/Reference/Headers/Content-Security-Policy).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

_ALWAYS: Mapping[str, str] = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}

PRIVATE: Mapping[str, str] = {**_ALWAYS, "cache-control": "no-store", "vary": "cookie, authorization"}
"""Of pages and JSON, which may hold personal data."""

STATIC: Mapping[str, str] = {**_ALWAYS, "cache-control": "public, max-age=31536000, immutable"}
"""Of the style sheet and its like, whose address changes with its contents."""
