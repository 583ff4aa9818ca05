"""Close's webhook events. Pure: bytes in, an event or the reason there is none out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event, decoded as far as planning needs it; `data` stays raw until somebody asks.

    Attributes:
        id: `ev_…`; the same event can be delivered more than once.
        organization_id: whose event it is.
        object_type: `lead`, `contact`, or any of the many types we do not enrich.
        object_id: the object the event is about; for `merged`, the lead that survives.
        lead_id: the lead the object belongs to, or None.
        action: `created`, `updated`, `merged`, `deleted`, …
        date_created: as Close wrote it: ISO 8601 without a zone, UTC.
        date_updated: moves when Close consolidates several changes into one event.
        changed_fields: attribute names and `custom.<field id>`; empty unless `updated`.
        api_key_id: the API key that caused the event, or None.
        request_path: the API path that caused the event, or None.
        subscription_id: the webhook subscription that delivered it, or None for one from the event log.
        data_json: the object after the change as raw JSON, or None. Never shown in logs or reprs.
    """

    id: str
    organization_id: str
    object_type: str
    object_id: str
    lead_id: str | None
    action: str
    date_created: str
    date_updated: str
    changed_fields: tuple[str, ...] = ()
    api_key_id: str | None = None
    request_path: str | None = None
    subscription_id: str | None = None
    data_json: bytes | None = field(default=None, repr=False)

    def data(self) -> dict[str, Any]:
        """The object's snapshot decoded, `{}` where the event carries none."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Unparseable:
    """An authentic body that is not an event we can read; `reason` names what is wrong, never a value."""

    reason: str
