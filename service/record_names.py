"""What Close's leads, contacts and events are known to have, by the names that conditions use. Pure.

Source: https://developer.close.com/api/resources/leads and https://developer.close.com/api/resources/contacts,
as events carry them.
"""

from __future__ import annotations

from service.rules import ObjectType

LEAD_ATTRIBUTES = frozenset(
    {"id", "organization_id", "name", "display_name", "description", "url", "addresses", "contact_ids",
     "status_id", "status_label", "created_by", "created_by_name", "updated_by", "updated_by_name",
     "date_created", "date_updated"}
)  # fmt: skip
CONTACT_ATTRIBUTES = frozenset(
    {"id", "lead_id", "organization_id", "name", "display_name", "title", "emails", "phones", "urls",
     "timezone", "timezone_source", "integration_links", "created_by", "updated_by", "date_created",
     "date_updated"}
)  # fmt: skip
ATTRIBUTES = {ObjectType.LEAD: LEAD_ATTRIBUTES, ObjectType.CONTACT: CONTACT_ATTRIBUTES}
"""What Close's events say about a lead or contact beside its custom fields."""

EVENT_ATTRIBUTES = frozenset(
    {"id", "action", "object_type", "object_id", "lead_id", "date_created", "changed_fields"}
)
"""What a condition may ask about the event."""

FORGOTTEN_ATTRIBUTES = frozenset({"date_created", "changed_fields"})
"""Those that an enrichment does not keep: a condition that is judged after `settle` finds them empty."""

LIST_ATTRIBUTES = frozenset(
    {"addresses", "contact_ids", "emails", "phones", "urls", "integration_links", "changed_fields"}
)
"""The attributes, of records and events, that are lists; all others are text."""

CUSTOM = "custom."
"""Before the id of a custom field, where a record holds it beside its attributes."""
