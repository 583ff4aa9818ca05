"""Leads and contacts: making, changing, merging and deleting them, each with the events it causes.

What fires when: https://developer.close.com/api/resources/events/list-of-event-types.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from service.sandbox.fields import is_empty
from service.sandbox.ids import new_id, record_time

if TYPE_CHECKING:
    from service.sandbox.journal import Cause
    from service.sandbox.world import Record, World

UNNAMED_LEAD = "Untitled Lead"
"""What Close calls a lead without a name and without contacts; the wording is not documented."""


def create_lead(world: World, body: dict[str, Any], cause: Cause) -> Record:
    """Make a lead and its nested contacts: `lead.created`, then one `contact.created` each.

    Args:
        world: where.
        body: a valid `POST /lead/` body.
        cause: who does it.
    """
    organization = world.organization
    moment = record_time(world.clock())
    status_id = body.get("status_id") or next(iter(organization.statuses))
    lead: Record = {
        "date_updated": moment,
        "addresses": body.get("addresses") or [],
        "organization_id": organization.id,
        "updated_by": organization.user_id,
        "display_name": "",
        "updated_by_name": organization.user_name,
        "contact_ids": [],
        "id": new_id("lead", world.random),
        "name": body.get("name") or "",
        "created_by_name": organization.user_name,
        "created_by": organization.user_id,
        "url": body.get("url"),
        "date_created": moment,
        "status_label": organization.statuses[status_id],
        "description": body.get("description") or "",
        "status_id": status_id,
        **_custom_values(body),
    }
    contacts = [_new_contact(world, lead["id"], entry, moment) for entry in body.get("contacts") or []]
    lead["contact_ids"] = [contact["id"] for contact in contacts]
    lead["display_name"] = lead["name"] or next((entry["display_name"] for entry in contacts), UNNAMED_LEAD)
    world.leads[lead["id"]] = lead
    _emit(world, "lead", "created", lead, cause)
    for contact in contacts:
        world.contacts[contact["id"]] = contact
        _emit(world, "contact", "created", contact, cause)
    return lead


def create_contact(world: World, body: dict[str, Any], cause: Cause) -> Record:
    """Make a contact: `contact.created` and `lead.updated`. Without `lead_id` a lead is made for it.

    Args:
        world: where.
        body: a valid `POST /contact/` body.
        cause: who does it.
    """
    if not body.get("lead_id"):
        lead = create_lead(world, {"contacts": [body]}, cause)
        return world.contacts[lead["contact_ids"][0]]
    contact = _new_contact(world, body["lead_id"], body, record_time(world.clock()))
    world.contacts[contact["id"]] = contact
    _emit(world, "contact", "created", contact, cause)
    lead = world.leads[body["lead_id"]]
    update(world, "lead", lead["id"], {"contact_ids": [*lead["contact_ids"], contact["id"]]}, cause)
    return contact


def update(world: World, object_type: str, object_id: str, changes: dict[str, Any], cause: Cause) -> Record:
    """Patch a record, null unsetting a custom field: an `updated` event, unless nothing is different.

    Args:
        world: where.
        object_type: `lead` or `contact`.
        object_id: an id that exists.
        changes: valid attributes and flat custom keys.
        cause: who does it.
    """
    records = world.leads if object_type == "lead" else world.contacts
    before = records[object_id]
    wanted: dict[str, Any] = {
        name: None if name.startswith("custom.") and is_empty(value) else value
        for name, value in changes.items()
    }
    if "status_id" in wanted:
        wanted["status_label"] = world.organization.statuses[wanted["status_id"]]
    if "name" in wanted:
        wanted["display_name"] = wanted["name"] or before["display_name"]
    changed = tuple(name for name, value in wanted.items() if before.get(name) != value)
    if not changed:
        return before
    wanted["date_updated"] = record_time(world.clock())
    after = {**before, **wanted}
    for name in changed:
        if name.startswith("custom.") and after[name] is None:
            del after[name]
    records[object_id] = after
    _emit(
        world,
        object_type,
        "updated",
        after,
        cause,
        changed=(*changed, "date_updated"),
        previous={name: before[name] for name in (*changed, "date_updated") if name in before},
    )
    return after


def delete_contact(world: World, contact_id: str, cause: Cause) -> None:
    """Delete a contact: `contact.deleted`, and `lead.updated` for the lead it leaves."""
    contact = world.contacts.pop(contact_id)
    _emit_deleted(world, "contact", contact, cause)
    lead = world.leads[contact["lead_id"]]
    kept = [entry for entry in lead["contact_ids"] if entry != contact_id]
    update(world, "lead", lead["id"], {"contact_ids": kept}, cause)


def delete_lead(world: World, lead_id: str, cause: Cause) -> None:
    """Delete a lead and its contacts: `lead.deleted` and one `contact.deleted` each."""
    lead = world.leads.pop(lead_id)
    _emit_deleted(world, "lead", lead, cause)
    for contact_id in lead["contact_ids"]:
        _emit_deleted(world, "contact", world.contacts.pop(contact_id), cause)


def merge_leads(world: World, *, source_id: str, destination_id: str, cause: Cause) -> None:
    """Merge one lead into another, which gets its contacts and the values it lacks.

    `contact.updated`, `lead.updated`, `lead.deleted` for the source and `lead.merged` for the destination,
    all with both ids in `meta`. That `lead.merged` names the destination as its object is likely, not
    documented.
    """
    cause = replace(cause, merged=(source_id, destination_id))
    source, destination = world.leads[source_id], world.leads[destination_id]
    for contact_id in source["contact_ids"]:
        update(world, "contact", contact_id, {"lead_id": destination_id}, cause)
    gained = {
        name: value
        for name, value in source.items()
        if name.startswith("custom.") and name not in destination
    }
    gained["contact_ids"] = [*destination["contact_ids"], *source["contact_ids"]]
    update(world, "lead", destination_id, gained, cause)
    _emit_deleted(world, "lead", world.leads.pop(source_id), cause)
    _emit(world, "lead", "merged", world.leads[destination_id], cause)


def _new_contact(world: World, lead_id: str, body: dict[str, Any], moment: str) -> Record:
    emails = [{"is_unsubscribed": False, "type": "office", **entry} for entry in body.get("emails") or []]
    phones = [
        {"country": None, "phone_formatted": entry["phone"], "type": "office", **entry}
        for entry in body.get("phones") or []
    ]
    name = body.get("name") or ""
    return {
        "created_by": world.organization.user_id,
        "date_created": moment,
        "date_updated": moment,
        "display_name": name or next((entry["email"] for entry in emails), ""),
        "emails": emails,
        "id": new_id("cont", world.random),
        "integration_links": [],
        "lead_id": lead_id,
        "name": name,
        "organization_id": world.organization.id,
        "phones": phones,
        "title": body.get("title") or "",
        "updated_by": world.organization.user_id,
        "urls": body.get("urls") or [],
        **_custom_values(body),
    }


def _custom_values(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name.startswith("custom.") and not is_empty(value)}


def _emit(
    world: World,
    object_type: str,
    action: str,
    record: Record,
    cause: Cause,
    *,
    changed: tuple[str, ...] = (),
    previous: Record | None = None,
) -> None:
    world.emit(
        object_type,
        action,
        object_id=record["id"],
        lead_id=_lead_id(object_type, record),
        data=record,
        cause=cause,
        changed=changed,
        previous=previous,
    )


def _emit_deleted(world: World, object_type: str, record: Record, cause: Cause) -> None:
    world.emit(
        object_type,
        "deleted",
        object_id=record["id"],
        lead_id=_lead_id(object_type, record),
        data=None,
        cause=cause,
        previous=record,
    )


def _lead_id(object_type: str, record: Record) -> str:
    lead_id: str = record["id" if object_type == "lead" else "lead_id"]
    return lead_id
