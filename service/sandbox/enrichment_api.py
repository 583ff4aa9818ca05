"""`POST /enrich_field/`: look a custom field's value up, save it if asked to, and charge for it.

Source: https://developer.close.com/api/resources/field-enrichment/create. Unsettled there and chosen here:
402 when the credits are used up, 403 without the permission `ai_enrich`, 404 for an unknown record or field,
400 for a field type enrichment does not name, a null `value` when nothing is found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from service.sandbox import records
from service.sandbox.fields import is_empty
from service.sandbox.values import find_value
from service.sandbox.wire import Reply, answer, failure, invalid, json_object, missing

if TYPE_CHECKING:
    from service.sandbox.fields import FieldSpec
    from service.sandbox.values import Finding
    from service.sandbox.wire import Request
    from service.sandbox.world import Record, World

_REQUIRED = ("organization_id", "object_type", "object_id", "field_id")
_FLAGS = {"set_new_value": True, "overwrite_existing_value": False}


class _Target(msgspec.Struct):
    object_id: str
    field_id: str


_target_decoder = msgspec.json.Decoder(_Target)


def target(body: bytes) -> tuple[str, str] | None:
    """The record and field a request names, however wrong it is otherwise; None where it names none."""
    try:
        named = _target_decoder.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return None
    return named.object_id, named.field_id


def begin(world: World, request: Request) -> tuple[dict[str, Any], FieldSpec] | Reply:
    """What a valid request asks for, the price taken; or the answer that refuses it."""
    body = json_object(request.body)
    if isinstance(body, Reply):
        return body
    refusal = _refusal(world, body)
    if refusal is not None:
        return refusal
    # Taken before the AI runs: calls in flight together never spend the same credit. `finish` gives back.
    world.credits -= world.options.credits_per_call
    return body, world.fields[body["field_id"]]


def _refusal(world: World, body: dict[str, Any]) -> Reply | None:
    if problems := _problems(world, body):
        return invalid(problems)
    if "ai_enrich" not in world.options.permissions_granted:
        return failure(403, "You do not have permission to enrich fields.")
    field = world.fields.get(body["field_id"])
    record = world.record(body["object_type"], body["object_id"])
    if record is None or field is None or body["object_type"] not in field.objects:
        return missing()
    if not field.enrichable:
        return invalid({"field_id": "Fields of this type cannot be enriched."})
    if world.credits < world.options.credits_per_call:
        return failure(402, "Insufficient AI credit balance.")
    return None


def finish(world: World, request: Request, body: dict[str, Any], field: FieldSpec) -> Reply:
    """The AI's answer, saved as asked: what happens when the latency is over."""
    options = world.options
    object_type, object_id = body["object_type"], body["object_id"]
    record = world.record(object_type, object_id)
    if record is None:
        world.credits += options.credits_per_call
        return missing()
    finding = find_value(
        field,
        object_id=object_id,
        display_name=record["display_name"],
        nothing_found_share=options.nothing_found_share,
    )
    preview = not body.get("set_new_value", True)
    existing = record.get(field.key)
    kept = not is_empty(existing) and not body.get("overwrite_existing_value", False)
    found = finding.value is not None
    free = (
        (not found and not options.charge_empty)
        or (kept and not options.charge_kept)
        or (preview and not options.charge_preview)
    )
    if free:
        world.credits += options.credits_per_call
    saved = found and not preview and not kept
    if saved:
        _save(world, request, object_type, record, {field.key: finding.value})
    if request.call is not None:
        world.calls.run(request.call, charged=0 if free else options.credits_per_call, saved=saved)
    value = existing if kept and options.kept_answer == "existing" else finding.value
    return answer(_shown(world, body, finding, value))


def _save(world: World, request: Request, object_type: str, record: Record, values: dict[str, Any]) -> None:
    cause = world.cause(path=request.path, method=request.method, api_key_id=request.api_key_id)
    records.update(world, object_type, record["id"], values, cause)


def _shown(world: World, body: dict[str, Any], finding: Finding, value: object) -> dict[str, Any]:
    return {
        "confidence": finding.confidence,
        "field_id": body["field_id"],
        "object_id": body["object_id"],
        "object_type": body["object_type"],
        "organization_id": world.organization.id,
        "reasoning": finding.reasoning,
        "value": value,
    }


def _problems(world: World, body: dict[str, Any]) -> dict[str, str]:
    problems = {name: "Unknown field." for name in body if name not in (*_REQUIRED, *_FLAGS)}
    for name in _REQUIRED:
        if name not in body:
            problems[name] = "This field is required."
        elif not isinstance(body[name], str):
            problems[name] = "Not a valid string."
    for name in _FLAGS:
        if not isinstance(body.get(name, False), bool):
            problems[name] = "Not a valid boolean."
    if "object_type" not in problems and body["object_type"] not in ("lead", "contact"):
        problems["object_type"] = "Expected lead or contact."
    if "organization_id" not in problems and body["organization_id"] != world.organization.id:
        problems["organization_id"] = "This is not the organization of the API key."
    return problems
