"""Made-up webhook events in Close's shape, to try a receiver with. Pure.

The shape is that of captured deliveries (https://developer.close.com/api/resources/events). The records do
not exist in Close, so a worker that looks at one finds it gone, and nothing is spent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from service.sandbox.ids import new_id

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping
    from random import Random

SAMPLE_TYPES = ("lead.created", "lead.updated", "lead.merged", "contact.created", "contact.updated")


def sample_event(
    event_type: str,
    *,
    organization_id: str,
    random: Random,
    now: dt.datetime,
    object_id: str | None = None,
    changes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """One event, as a delivery's `event`.

    Args:
        event_type: one of `SAMPLE_TYPES`.
        organization_id: whose event it is.
        random: makes the ids.
        now: when it happens, UTC.
        object_id: a record's id, where it is to be about one that exists; a new id by default.
        changes: attributes of the record, such as `url` or `custom.cf_…`. An `updated` event names them as
            changed; without any it changes `url`.
    """
    object_type, _, action = event_type.partition(".")
    contact = object_type == "contact"
    object_id = object_id or new_id("cont" if contact else "lead", random)
    lead_id = new_id("lead", random) if contact else object_id
    changes = dict(changes or ({"url": "https://brindlemoor.example"} if action == "updated" else {}))
    written = now.replace(tzinfo=None).isoformat(timespec="microseconds")
    meta = {"request_path": f"/api/v1/{object_type}/", "request_method": "POST"}
    if action == "merged":
        meta |= {"merge_source_lead_id": new_id("lead", random), "merge_destination_lead_id": object_id}
    data = _contact(object_id, lead_id) if contact else _lead(object_id)
    data |= {"organization_id": organization_id, "date_created": f"{written}+00:00"}
    return {
        "id": new_id("ev", random),
        "date_created": written,
        "date_updated": written,
        "organization_id": organization_id,
        "user_id": new_id("user", random),
        "request_id": new_id("req", random),
        "api_key_id": None,
        "oauth_client_id": None,
        "oauth_scope": None,
        "object_type": object_type,
        "object_id": object_id,
        "lead_id": lead_id,
        "action": action,
        "changed_fields": sorted(changes) if action == "updated" else [],
        "meta": meta,
        "data": {**data, **changes, "date_updated": f"{written}+00:00"},
        "previous_data": dict.fromkeys(changes) if action == "updated" else {},
    }


def _lead(lead_id: str) -> dict[str, Any]:
    return {
        "id": lead_id,
        "name": "Brindlemoor Joinery",
        "display_name": "Brindlemoor Joinery",
        "description": "",
        "url": "https://brindlemoor.example",
        "status_label": "Potential",
        "addresses": [],
        "contact_ids": [],
    }


def _contact(contact_id: str, lead_id: str) -> dict[str, Any]:
    return {
        "id": contact_id,
        "lead_id": lead_id,
        "name": "Marisol Venn",
        "display_name": "Marisol Venn",
        "title": "Head of Operations",
        "emails": [{"email": "marisol@brindlemoor.example", "type": "office"}],
        "phones": [],
        "urls": [],
    }
