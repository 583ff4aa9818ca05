"""Leads and contacts over HTTP: `/lead/`, `/contact/` and `/lead/merge/`.

Sources: https://developer.close.com/api/resources/leads and /contacts; the full lead's keys follow a
recording, which has `contacts` and no `contact_ids`. Custom fields without a value are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from service.sandbox import records
from service.sandbox.fields import value_problem
from service.sandbox.wire import Reply, answer, invalid, json_object, missing

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.sandbox.journal import Cause
    from service.sandbox.wire import Request
    from service.sandbox.world import Record, World

_TEXT = (str, type(None))
_LEAD_ATTRIBUTES: dict[str, tuple[type, ...]] = {
    "name": _TEXT,
    "url": _TEXT,
    "description": _TEXT,
    "addresses": (list,),
    "status_id": (str,),
    "status": (str,),
}
_CONTACT_ATTRIBUTES: dict[str, tuple[type, ...]] = {
    "name": _TEXT,
    "title": _TEXT,
    "emails": (list,),
    "phones": (list,),
    "urls": (list,),
}


def get_lead(world: World, request: Request) -> Reply:
    """`GET /lead/{id}/`."""
    lead = world.leads.get(request.object_id)
    return missing() if lead is None else answer(_shown(world, "lead", lead, request.fields))


def get_contact(world: World, request: Request) -> Reply:
    """`GET /contact/{id}/`."""
    contact = world.contacts.get(request.object_id)
    return missing() if contact is None else answer(_shown(world, "contact", contact, request.fields))


def post_lead(world: World, request: Request) -> Reply:
    """`POST /lead/`, with nested contacts."""
    body = json_object(request.body)
    if isinstance(body, Reply):
        return body
    problems = _problems(world, "lead", body, also={"contacts": (list,)})
    if "contacts" not in problems:
        for index, contact in enumerate(body.get("contacts", [])):
            inner = _problems(world, "contact", contact)
            problems |= {f"contacts[{index}].{name}": text for name, text in inner.items()}
    if problems:
        return invalid(problems)
    lead = records.create_lead(world, _normal(world, body), _cause(world, request))
    return _created(_shown(world, "lead", lead, None), request)


def post_contact(world: World, request: Request) -> Reply:
    """`POST /contact/`; without `lead_id` a lead is made for the contact."""
    body = json_object(request.body)
    if isinstance(body, Reply):
        return body
    problems = _problems(world, "contact", body, also={"lead_id": _TEXT})
    if not problems and body.get("lead_id") and body["lead_id"] not in world.leads:
        problems["lead_id"] = "This lead does not exist."
    if problems:
        return invalid(problems)
    contact = records.create_contact(world, body, _cause(world, request))
    return _created(_shown(world, "contact", contact, None), request)


def put_lead(world: World, request: Request) -> Reply:
    """`PUT /lead/{id}/`: a patch."""
    return _put(world, request, "lead")


def put_contact(world: World, request: Request) -> Reply:
    """`PUT /contact/{id}/`: a patch."""
    return _put(world, request, "contact")


def _put(world: World, request: Request, object_type: str) -> Reply:
    if world.record(object_type, request.object_id) is None:
        return missing()
    body = json_object(request.body)
    if isinstance(body, Reply):
        return body
    if problems := _problems(world, object_type, body):
        return invalid(problems)
    changes = _normal(world, body)
    record = records.update(world, object_type, request.object_id, changes, _cause(world, request))
    return answer(_shown(world, object_type, record, request.fields))


def delete_lead(world: World, request: Request) -> Reply:
    """`DELETE /lead/{id}/`."""
    return _delete(world, request, world.leads, records.delete_lead)


def delete_contact(world: World, request: Request) -> Reply:
    """`DELETE /contact/{id}/`."""
    return _delete(world, request, world.contacts, records.delete_contact)


def _delete(
    world: World,
    request: Request,
    present: dict[str, Record],
    delete: Callable[[World, str, Cause], None],
) -> Reply:
    if request.object_id not in present:
        return missing()
    delete(world, request.object_id, _cause(world, request))
    return answer({})


def merge_leads(world: World, request: Request) -> Reply:
    """`POST /lead/merge/` with `source` and `destination`."""
    body = json_object(request.body)
    if isinstance(body, Reply):
        return body
    problems = {name: "Unknown field." for name in body if name not in ("source", "destination")}
    for name in ("source", "destination"):
        if name not in body:
            problems[name] = "This field is required."
        elif not isinstance(body[name], str) or body[name] not in world.leads:
            problems[name] = "This lead does not exist."
    if not problems and body["source"] == body["destination"]:
        problems["source"] = "A lead cannot be merged into itself."
    if problems:
        return invalid(problems)
    records.merge_leads(
        world,
        source_id=body["source"],
        destination_id=body["destination"],
        cause=_cause(world, request),
    )
    return answer({})


def _cause(world: World, request: Request) -> Cause:
    return world.cause(path=request.path, method=request.method, api_key_id=request.api_key_id)


def _created(shown: dict[str, Any], request: Request) -> Reply:
    return answer(shown, headers=((b"location", f"{request.path}{shown['id']}/".encode()),))


def _normal(world: World, body: dict[str, Any]) -> dict[str, Any]:
    """The body with a status named by its label turned into the id."""
    if "status" not in body:
        return body
    ids = {label: entry for entry, label in world.organization.statuses.items()}
    return {"status_id": ids[body["status"]], **{k: v for k, v in body.items() if k != "status"}}


def _problems(
    world: World, object_type: str, body: dict[str, Any], *, also: dict[str, tuple[type, ...]] | None = None
) -> dict[str, str]:
    attributes = (_LEAD_ATTRIBUTES if object_type == "lead" else _CONTACT_ATTRIBUTES) | (also or {})
    found = {name: _problem(world, object_type, attributes, name, value) for name, value in body.items()}
    return {name: problem for name, problem in found.items() if problem}


def _problem(
    world: World, object_type: str, attributes: dict[str, tuple[type, ...]], name: str, value: object
) -> str | None:
    if name.startswith("custom."):
        field = world.fields.get(name.removeprefix("custom."))
        if field is None or object_type not in field.objects:
            return "This custom field does not exist."
        return value_problem(field, value)
    if name not in attributes:
        return "Unknown field."
    if not isinstance(value, attributes[name]) or (isinstance(value, list) and not _good_list(name, value)):
        return "Not a valid value."
    statuses = world.organization.statuses
    known = {"status_id": list(statuses), "status": list(statuses.values())}
    return "This status does not exist." if name in known and value not in known[name] else None


def _good_list(name: str, items: list[object]) -> bool:
    required = {"emails": "email", "phones": "phone"}.get(name)
    return all(
        isinstance(item, dict) and (required is None or isinstance(item.get(required), str)) for item in items
    )


def _shown(world: World, object_type: str, record: Record, fields: tuple[str, ...] | None) -> dict[str, Any]:
    """A record as the API shows it: whole, or just what `_fields` asks for and has a value."""
    if fields is None or "_all" in fields:
        return _whole(world, object_type, record)
    shown: dict[str, Any] = {}
    whole: dict[str, Any] | None = None
    for name in fields:
        if name in record and name != "contact_ids":
            shown[name] = record[name]
        elif name == "custom":
            shown |= {key: value for key, value in record.items() if key.startswith("custom.")}
            shown["custom"] = _by_name(world, record)
        elif not name.startswith("custom."):
            whole = whole or _whole(world, object_type, record)
            if name in whole:
                shown[name] = whole[name]
    return shown


def _whole(world: World, object_type: str, record: Record) -> dict[str, Any]:
    if object_type == "contact":
        return dict(record)
    shown = {name: value for name, value in record.items() if name != "contact_ids"}
    shown["contacts"] = [world.contacts[contact_id] for contact_id in record["contact_ids"]]
    shown["custom"] = _by_name(world, record)
    shown["html_url"] = f"https://app.close.com/lead/{record['id']}/"
    shown["integration_links"] = []
    shown["opportunities"] = []
    shown["tasks"] = []
    return shown


def _by_name(world: World, record: Record) -> dict[str, Any]:
    """The deprecated `custom` object: values by the field's name."""
    return {
        world.fields[name.removeprefix("custom.")].name: value
        for name, value in record.items()
        if name.startswith("custom.")
    }
