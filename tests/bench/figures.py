"""What a suite gives, and how it fails."""

from __future__ import annotations

Figures = dict[str, float]


class TookTooLongError(Exception):
    """Not all fields were filled in several times what the limits allow."""
