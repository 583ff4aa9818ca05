"""`/me/`, `/custom_field/…` and `/custom_field_schema/…`.

Sources: https://developer.close.com/api/resources/custom-fields and /custom-field-schemas. The lists hold
regular fields only; the schema holds regular and shared ones in the app's order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from service.sandbox.fields import field_json
from service.sandbox.ids import record_time
from service.sandbox.wire import Reply, answer, invalid, missing

if TYPE_CHECKING:
    from service.sandbox.fields import FieldSpec
    from service.sandbox.wire import Request
    from service.sandbox.world import World

_OBJECT_TYPES = ("lead", "contact")


def get_me(world: World, _request: Request) -> Reply:
    """`GET /me/`: the key's user, their organizations and what they may do."""
    organization = world.organization
    first_name, _, last_name = organization.user_name.partition(" ")
    return answer(
        {
            "id": organization.user_id,
            "first_name": first_name,
            "last_name": last_name,
            "email": "marisol.venn@sandbox.example",
            "organizations": [{"id": organization.id, "name": organization.name}],
            "memberships": [
                {
                    "organization_id": organization.id,
                    "user_id": organization.user_id,
                    "role_id": organization.role_id,
                    "permissions_granted": list(world.options.permissions_granted),
                }
            ],
        }
    )


def get_schema(world: World, request: Request) -> Reply:
    """`GET /custom_field_schema/{lead|contact}/`."""
    object_type = request.object_id
    if object_type not in _OBJECT_TYPES:
        return missing()
    return answer(
        {
            "object_type": object_type,
            "name": object_type.capitalize(),
            "organization_id": world.organization.id,
            "fields": [_shown(world, field) for field in world.fields_of(object_type)],
        }
    )


def list_fields(world: World, request: Request) -> Reply:
    """`GET /custom_field/{lead|contact|shared}/`, the first two with `_limit` and `_skip`."""
    kind = request.object_id
    if kind == "shared":
        shared = [field for field in world.fields.values() if field.shared]
        return answer({"data": [_shown(world, field, shared_view=True) for field in shared]})
    if kind not in _OBJECT_TYPES:
        return missing()
    query = request.query
    try:
        skip, limit = int(query.get("_skip", 0)), int(query.get("_limit", 100))
    except ValueError:
        return invalid({"_limit": "Expected a whole number."})
    if skip < 0 or limit < 1:
        return invalid({"_limit": "Expected a positive number."})
    regular = [field for field in world.fields_of(kind) if not field.shared]
    page = regular[skip : skip + limit]
    return answer({"data": [_shown(world, field) for field in page], "has_more": skip + limit < len(regular)})


def get_lead_field(world: World, request: Request) -> Reply:
    """`GET /custom_field/lead/{id}/`."""
    return _get_field(world, request, "lead")


def get_contact_field(world: World, request: Request) -> Reply:
    """`GET /custom_field/contact/{id}/`."""
    return _get_field(world, request, "contact")


def get_shared_field(world: World, request: Request) -> Reply:
    """`GET /custom_field/shared/{id}/`."""
    field = world.fields.get(request.object_id)
    if field is None or not field.shared:
        return missing()
    return answer(_shown(world, field, shared_view=True))


def _get_field(world: World, request: Request, object_type: str) -> Reply:
    field = world.fields.get(request.object_id)
    if field is None or field.objects != (object_type,):
        return missing()
    return answer(_shown(world, field))


def _shown(world: World, field: FieldSpec, *, shared_view: bool = False) -> dict[str, Any]:
    return field_json(
        field,
        organization_id=world.organization.id,
        user_id=world.organization.user_id,
        moment=record_time(world.started_at),
        shared_view=shared_view,
    )
