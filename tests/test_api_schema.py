"""The JSON API keeps to its OpenAPI document whatever it is asked: schemathesis against a running `web`.

Requests that fit the document and such that do not, to every call, those that change something as well.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import pytest
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from showcase import TOKEN, showcase

from service.cli.processes import request_json
from service.dashboard.contents import ROUTES
from service.dashboard.openapi import openapi_document
from service.dashboard.routes import Call

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
BY_TOKEN = {"authorization": f"Bearer {TOKEN}"}
CONFIG = SchemathesisConfig.from_dict(
    {
        "seed": 7,
        "request-timeout": 60,
        "generation": {
            "max-examples": 15,
            "deterministic": True,
            "database": "none",
            "with-security-parameters": False,
        },
        "phases": {"coverage": {"unexpected-methods": []}},
    }
)
DOCUMENT = openapi_document(ROUTES, by_token=True)
api = schemathesis.openapi.from_dict(DOCUMENT, config=CONFIG)


@dataclass(frozen=True, slots=True, kw_only=True)
class Web:
    """A running web in front of which all sorts of things have happened, and ids of some of them."""

    url: str
    lead: str
    letter: str
    body: str
    event: dict[str, Any]

    def validate(self, case: schemathesis.Case) -> int:
        """Make a call, and have its answer looked at; its status."""
        answer = case.call_and_validate(base_url=self.url, headers=BY_TOKEN, checks=CHECKS)
        return int(answer.status_code)


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """One web for all calls; those that change something do."""
    with showcase(tmp_path_factory.mktemp("stack")) as show:
        show.add_leads(3)
        letter = show.dead_letter()
        show.hold(2)
        show.leave_alone("Markets")
        yield Web(
            url=show.stack.url,
            lead=letter.object_id,
            letter=letter.id,
            body=show.quarantine({"event": 1}),
            event=json.loads(show.event_of(letter.object_id))["event"],
        )
        for trouble in ("a page of the dashboard failed", "the dashboard waits for Redis"):
            assert show.stack.processes.logged("web", trouble) == []


def test_the_document_that_web_hands_out_is_the_one_that_is_tested(web):
    assert request_json("GET", f"{web.url}/api/openapi.json", headers=BY_TOKEN) == DOCUMENT


def test_every_call_is_tested():
    calls = {(one.method, one.path) for one in ROUTES if isinstance(one, Call)}
    tested = {(one.ok().method.upper(), one.ok().path) for one in api.get_all_operations()}
    assert tested == calls


@pytest.mark.parametrize(
    ("method", "path", "asked"),
    [
        ("GET", "/api/records/{record_id}", {"path_parameters": {"record_id": "{lead}"}}),
        ("GET", "/api/records/{record_id}", {"path_parameters": {"record_id": "{letter}"}}),
        ("GET", "/api/activity", {"query": {"object": "{lead}"}}),
        (
            "GET",
            "/api/attention/quarantine/{quarantine_id}",
            {"path_parameters": {"quarantine_id": "{body}"}},
        ),
        ("POST", "/api/rules/explain", {"body": {"event": "{event}"}}),
        ("POST", "/api/attention/resume", {"body": {}}),
        ("POST", "/api/attention/dead-letters/retry", {"body": {"ids": ["{letter}"]}}),
    ],
)
def test_a_call_about_what_is_there_answers_what_the_document_says(method, path, asked, web):
    text = json.dumps(asked).replace('"{event}"', json.dumps(web.event))
    for name in ("lead", "letter", "body"):
        text = text.replace(f"{{{name}}}", getattr(web, name))
    case = api[path][method].Case(**json.loads(text))
    assert web.validate(case) == HTTPStatus.OK


@api.parametrize()
def test_a_call_answers_what_the_document_says(case, web):
    web.validate(case)
