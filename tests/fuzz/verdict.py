"""What no input may do to the receiver. Pure."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fuzz.deliveries import Delivery

TAKEN = {HTTPStatus.OK, HTTPStatus.ACCEPTED}

_STATUS = re.compile(rb"(?:^|[\r\n}])HTTP/1\.[01] (\d{3}) ")


def problem(delivery: Delivery, status: int, answer: dict[str, Any], *, max_body_bytes: int) -> str | None:
    """What is wrong with an answer, or None."""
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return f"answered {status}"
    if "internal error" in answer.get("reason", ""):
        return answer["reason"]
    if not delivery.genuine:
        return "taken for genuine" if status in TAKEN else None
    too_long = len(delivery.body) > max_body_bytes
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return None if too_long else "said to be too long"
    if delivery.cut or too_long:
        return "taken although it was cut or too long" if status in TAKEN else None
    return None if status in TAKEN else f"genuine, and refused with {status}"


def statuses(raw: bytes) -> list[int]:
    """The statuses of all answers on one connection, oldest first."""
    return [int(one) for one in _STATUS.findall(raw)]


def too_many_keys(*, keys: int, results: int, quarantined: int, most_quarantined: int) -> str | None:
    """What Redis holds too much of, or None.

    Args:
        keys: in all.
        results: fields that answers spoke of; each may leave its entry, job, object and event.
        quarantined: bodies kept.
        most_quarantined: the cap; Redis may keep a block of some hundred more.
    """
    if keys > 64 + 4 * results:
        return f"{keys} keys after {results} results"
    if quarantined > most_quarantined + 200:
        return f"{quarantined} bodies in quarantine"
    return None
