"""The OpenAPI 3.1 document of the JSON API, made from what each call declares.

https://spec.openapis.org/oas/v3.1.1.html; the schemas are msgspec's, which are JSON Schema 2020-12.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec

from service.dashboard.routes import Call, Problem
from service.package_version import package_version

if TYPE_CHECKING:
    from collections.abc import Iterable

    from service.dashboard.routes import Route

_REF = "#/components/schemas/{name}"
_PATH_NAME = re.compile(r"\{(\w+)(?::\w+)?\}")

_ALWAYS = {
    HTTPStatus.SERVICE_UNAVAILABLE: "Redis does not answer.",
    HTTPStatus.INTERNAL_SERVER_ERROR: "A mistake of ours, which the log tells.",
}
_GUARDED = {
    HTTPStatus.UNAUTHORIZED: "No session and no right token.",
    HTTPStatus.TOO_MANY_REQUESTS: "Too many wrong tokens from this address.",
}
_ASKING = {HTTPStatus.BAD_REQUEST: "What was asked cannot be read."}
_ACTING = {
    HTTPStatus.FORBIDDEN: "A session without its X-CSRF-Token, or another site's page.",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "The body is not application/json.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body is too large.",
}


def openapi_document(routes: Iterable[Route], *, by_token: bool) -> dict[str, Any]:
    """The document.

    Args:
        routes: all of the dashboard; pages and forms are passed over.
        by_token: whether calls need a token; where the dashboard is open they do not.
    """
    calls = [one for one in routes if isinstance(one, Call)]
    wanted: set[type[msgspec.Struct]] = {
        Problem,
        *(one.answers for one in calls),
        *(one.asks for one in calls if one.asks),
    }
    types = sorted(wanted, key=lambda one: one.__name__)
    _, schemas = msgspec.json.schema_components(types, ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for call in calls:
        where = paths.setdefault(_PATH_NAME.sub(r"{\1}", call.path), {})
        where[call.method.lower()] = _operation(call, schemas, by_token=by_token)
    document: dict[str, Any] = {
        "openapi": "3.1.1",
        "info": {
            "title": "close-enrich",
            "version": package_version(),
            "description": "All that the dashboard shows and does.",
        },
        "paths": paths,
        "components": {"schemas": schemas},
    }
    if by_token:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
    return document


def _operation(call: Call, schemas: dict[str, Any], *, by_token: bool) -> dict[str, Any]:
    statuses = {**_ALWAYS, **(_GUARDED if by_token else {HTTPStatus.NOT_FOUND: "Not from this machine."})}
    if call.asks is not None:
        statuses |= _ASKING
    if call.method == "POST":
        statuses |= _ACTING
    statuses |= dict(call.refuses)
    operation: dict[str, Any] = {
        "operationId": _name(call),
        "summary": call.summary,
        "tags": [call.tag],
        "responses": {
            "200": _content("What was asked for.", call.answers.__name__),
            **{str(int(status)): _content(why, "Problem") for status, why in sorted(statuses.items())},
        },
    }
    if call.asks is not None:
        operation |= _asked(call, schemas[call.asks.__name__])
    elif call.method == "POST":
        operation |= _body({"type": "object", "properties": {}})
    return operation


def _asked(call: Call, schema: dict[str, Any]) -> dict[str, Any]:
    """Parameters and body: the fields of `asks` that the path names, and the others."""
    in_path = set(_PATH_NAME.findall(call.path))
    required = set(schema.get("required", ()))
    others = {name: one for name, one in schema["properties"].items() if name not in in_path}
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": schema["properties"][name]}
        for name in sorted(in_path)
    ]
    if call.method == "GET":
        parameters += [
            {"name": name, "in": "query", "required": name in required, "schema": _of_query(one)}
            for name, one in others.items()
        ]
        return {"parameters": parameters}
    body = {**schema, "properties": others, "required": sorted(required - in_path)}
    return {"parameters": parameters, **_body(body)}


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    """Always there, be it `{}`: the content type tells a script from another site's form."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _of_query(schema: dict[str, Any]) -> dict[str, Any]:
    """A query leaves out what is null."""
    if "anyOf" not in schema:
        return schema
    kinds = [one for one in schema["anyOf"] if one != {"type": "null"}]
    rest = {name: value for name, value in schema.items() if name not in {"anyOf", "default"}}
    return {**rest, **kinds[0]} if len(kinds) == 1 else {**rest, "anyOf": kinds}


def _name(call: Call) -> str:
    words = re.findall(r"\w+", call.path.removeprefix("/api/"))
    return "_".join([call.method.lower(), *words])


def _content(description: str, name: str) -> dict[str, Any]:
    return {
        "description": description,
        "content": {"application/json": {"schema": {"$ref": _REF.format(name=name)}}},
    }
