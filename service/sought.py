"""What people write or paste when they look for a record."""

from __future__ import annotations

import re

_OBJECT_ID = re.compile(r"(?:lead|cont)_[A-Za-z0-9]+", re.ASCII)


def sought_id(written: str) -> str:
    """The lead's or contact's id in what somebody has typed or pasted, such as an address of Close's."""
    match = _OBJECT_ID.search(written)
    return match[0] if match else written.strip()
