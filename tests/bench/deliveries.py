"""Signed deliveries of new leads, as bytes for a socket: made once, and sent to whatever is compared."""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from receiver_box import KEY, sample, signed

from service.settings_values import WEBHOOK_PATH
from tests.bench.wrk import save_requests

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ID_LETTERS = 43
"""How many follow the prefix in an id of Close's; an event's has fewer."""

EVENT_ID_LETTERS = 22
EVENT_HOLE, LEAD_HOLE = "E" * EVENT_ID_LETTERS, "L" * ID_LETTERS
ANOTHER_KEY = hashlib.sha256(b"nobody's").hexdigest()


def lead_id(number: int) -> str:
    """The id of a lead that is told apart by its number."""
    return f"lead_{number:0{ID_LETTERS}}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Prepared requests.

    Attributes:
        path: the file that wrk reads.
        numbers: of the leads they are about.
        status: what each must be answered.
    """

    path: Path
    numbers: range
    status: int = 202


@dataclass(frozen=True, slots=True)
class Deliveries:
    """Makes batches of leads that were never there before, in a directory."""

    directory: Path
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def batch(self, count: int, *, body_bytes: int, key: str = KEY, status: int = 202) -> Batch:
        """A file of requests.

        Args:
            count: how many.
            body_bytes: the size of each body; no less than Close's own sample has.
            key: signs them.
            status: what each must be answered.
        """
        first = next(self._numbers)
        numbers = range(first, first + count)
        for _ in range(count - 1):
            next(self._numbers)
        path = self.directory / f"requests-{first}"
        save_requests(path, (request(body, key=key) for body in bodies(numbers, body_bytes=body_bytes)))
        return Batch(path=path, numbers=numbers, status=status)


def bodies(numbers: range, *, body_bytes: int) -> Iterator[bytes]:
    """The bodies of events about new leads, all of one size."""
    frame = _frame(body_bytes).encode()
    for number in numbers:
        lead = f"{number:0{ID_LETTERS}}".encode()
        yield frame.replace(LEAD_HOLE.encode(), lead).replace(EVENT_HOLE.encode(), lead[-EVENT_ID_LETTERS:])


def request(body: bytes, *, key: str) -> bytes:
    """One POST, with its signature."""
    head = [f"POST {WEBHOOK_PATH} HTTP/1.1", "host: 127.0.0.1", f"content-length: {len(body)}"]
    head += [
        f"{name}: {value}" for name, value in signed(body, key=key, timestamp=str(int(time.time()))).items()
    ]
    return "\r\n".join([*head, "", ""]).encode() + body


def _frame(body_bytes: int) -> str:
    """Close's sample with holes for ids: filled up with contacts, as far as they fit, and words."""
    envelope = json.loads(sample("02"))
    event = envelope["event"]
    event |= {"id": f"ev_{EVENT_HOLE}", "object_id": f"lead_{LEAD_HOLE}", "lead_id": f"lead_{LEAD_HOLE}"}
    event["data"] |= {"id": f"lead_{LEAD_HOLE}", "description": "", "contacts": []}
    room = body_bytes - len(json.dumps(envelope))
    each = len(json.dumps(_contact(0))) + 2
    event["data"]["contacts"] = [_contact(number) for number in range(max(0, room // each - 1))]
    room = body_bytes - len(json.dumps(envelope))
    if room < 0:
        raise ValueError(f"a body of {body_bytes} bytes is too small; expected {body_bytes - room} or more")
    event["data"]["description"] = ("Asked about prices and hosting. " * (room // 32 + 1))[:room]
    return json.dumps(envelope)


def _contact(number: int) -> dict[str, Any]:
    return {
        "id": f"cont_{number:0{ID_LETTERS}}",
        "name": f"Contact {number:06}",
        "title": "Head of Procurement",
        "emails": [{"email": f"contact-{number:06}@example.com", "type": "office", "is_unsubscribed": False}],
        "phones": [{"phone": f"+44790000{number:06}", "type": "mobile", "country": "GB"}],
        "date_created": "2026-10-14T09:33:12.388000+00:00",
        "custom.cf_9hWfpU3HBGeya7iAhKQq2Zy15NdWAoVTECHuzfkkMjL": 100_000 + number,
    }
