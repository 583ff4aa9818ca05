"""The JSON API answers what its OpenAPI document promises."""

import json
import re
from http import HTTPStatus
from typing import Annotated, Literal

import jsonschema
import msgspec
import pytest
from dashboard_box import Box
from jsonschema.validators import Draft202012Validator
from ledger_box import LedgerBox

from service.dashboard.contents import ROUTES
from service.dashboard.openapi import openapi_document
from service.dashboard.routes import Call, Page, Refused

READING = [one for one in ROUTES if isinstance(one, Call) and one.method == "GET" and "{" not in one.path]


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked."""

    object_id: str
    limit: Annotated[int, msgspec.Meta(ge=1, le=100)] = 50
    state: Literal["dead", "held"] | None = None
    text: str


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """What is answered."""

    number: int


async def answer(_, asked):
    if asked.limit == 100:
        return Refused(status=HTTPStatus.CONFLICT, error="not now")
    return Answered(number=asked.limit)


CALLS = (
    Call(path="/api/of/{object_id}", summary="Read.", handler=answer, asks=Asked, answers=Answered),
    Call(
        method="POST",
        path="/api/of/{object_id}",
        summary="Act.",
        handler=answer,
        asks=Asked,
        answers=Answered,
        refuses=((HTTPStatus.CONFLICT, "Somebody else did."),),
    ),
    Page(path="/of/{object_id}", handler=answer, asks=Asked),
)


@pytest.fixture
def box(async_redis):
    return Box(async_redis)


def references(value):
    if isinstance(value, dict):
        yield from ([value["$ref"]] if "$ref" in value else [])
        for one in value.values():
            yield from references(one)
    elif isinstance(value, list):
        for one in value:
            yield from references(one)


async def test_the_document_names_every_call_and_only_those(box):
    document = (await box.script().get("/api/openapi.json")).json
    assert document["openapi"] == "3.1.1"
    named = {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}
    assert named == {(one.path, one.method) for one in ROUTES if isinstance(one, Call)}
    assert all(one.startswith("/api/") for one, _ in named)


@pytest.mark.parametrize("by_token", [True, False])
def test_every_reference_leads_somewhere_and_every_schema_is_one(by_token):
    document = openapi_document((*ROUTES, *CALLS), by_token=by_token)
    schemas = document["components"]["schemas"]
    assert {one.removeprefix("#/components/schemas/") for one in references(document)} <= set(schemas)
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    names = [one["operationId"] for methods in document["paths"].values() for one in methods.values()]
    assert len(names) == len(set(names))
    assert ("security" in document) is by_token


def test_what_a_call_is_asked_is_split_into_path_query_and_body():
    document = openapi_document(CALLS, by_token=True)
    reads, acts = (document["paths"]["/api/of/{object_id}"][method] for method in ("get", "post"))
    assert [(one["name"], one["in"], one["required"]) for one in reads["parameters"]] == [
        ("object_id", "path", True),
        ("limit", "query", False),
        ("state", "query", False),
        ("text", "query", True),
    ]
    assert reads["parameters"][1]["schema"] == {
        "type": "integer",
        "minimum": 1,
        "maximum": 100,
        "default": 50,
    }
    assert reads["parameters"][2]["schema"] == {"enum": ["dead", "held"]}
    assert [one["name"] for one in acts["parameters"]] == ["object_id"]
    body = acts["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["properties"]) == {"limit", "state", "text"}
    assert body["required"] == ["text"]
    assert "409" in acts["responses"]
    assert "409" not in reads["responses"]


@pytest.mark.parametrize("route", READING, ids=lambda route: route.path)
async def test_a_good_answer_is_what_the_document_says(route, box, async_redis):
    await LedgerBox(async_redis).finished()
    document = openapi_document(ROUTES, by_token=True)
    answer = await box.script().get(route.path)
    assert answer.status == 200
    assert answer.header("content-type") == "application/json"
    schema = {
        "$ref": f"#/$defs/{route.answers.__name__}",
        "$defs": json.loads(
            json.dumps(document["components"]["schemas"]).replace("#/components/schemas/", "#/$defs/")
        ),
    }
    jsonschema.validate(answer.json, schema)


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/api/of/lead_1?text=x", 200, {"number": 50}),
        ("/api/of/lead_1?text=x&limit=7&state=dead", 200, {"number": 7}),
        ("/api/of/lead_1?text=x&limit=0", 400, {"error": "limit: expected a whole number from 1 to 100"}),
        ("/api/of/lead_1?text=x&state=lost", 400, {"error": "state: 'lost' is not one of dead, held"}),
        ("/api/of/lead_1", 400, {"error": "text is missing"}),
        ("/api/of/lead_1?text=x&limit=100", 409, {"error": "not now"}),
    ],
)
async def test_a_call_is_asked_by_path_and_query(async_redis, path, status, body):
    found = await Box(async_redis, contents=(*ROUTES, *CALLS)).script().get(path)
    assert (found.status, found.json) == (status, body)


async def test_a_call_that_acts_is_asked_by_path_and_body(async_redis):
    script = Box(async_redis, contents=(*ROUTES, *CALLS)).script()
    done = await script.call("/api/of/lead_1", {"text": "x", "limit": 3, "object_id": "the path counts"})
    assert done.json == {"number": 3}
    assert (await script.call("/api/of/lead_1", {"limit": 3})).status == 400


def test_paths_are_plain_enough_for_the_document():
    for one in ROUTES:
        if isinstance(one, Call):
            assert re.fullmatch(r"/api(/[a-z-]+|/\{[a-z_]+\})+", one.path), one.path
