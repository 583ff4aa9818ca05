"""Close's custom field schema: reading it, looking fields up, keeping it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.rules import ObjectType
from service.schema import AmbiguousField, CustomField, Schema, UnknownField, parse_schema

FIELDS = json.loads((Path(__file__).parent / "responses" / "custom_field.list.json").read_text())["data"]
INDUSTRY = CustomField(
    id="cf_9hWfpU3HBGeya7iAhKQq2Zy15NdWAoVTECHuzfkkMjL",
    name="Industry",
    type="choices",
    choices=("Industrial Automation", "Logistics", "Software"),
    description="Primary industry",
)
EMPLOYEES = CustomField(
    id="cf_ewjfWdOgATZYxthUwY1yIObWyt5tIksp6XbkIbzlpOZ",
    name="# of employees",
    type="number",
    editable_with_roles=("admin",),
)


def answer(**changes):
    return {"object_type": "lead", "name": "Lead", "organization_id": "orga_1", "fields": FIELDS} | changes


def schema(*fields):
    return Schema(object_type=ObjectType.LEAD, organization_id="orga_1", fields=fields)


@pytest.mark.parametrize("payload", [answer(), json.dumps(answer()).encode()])
def test_an_answer_of_close_becomes_a_schema(payload):
    assert parse_schema(payload, object_type=ObjectType.LEAD) == schema(INDUSTRY, EMPLOYEES)


@pytest.mark.parametrize(
    ("entry", "field"),
    [
        ({"id": "cf_1", "name": "A"}, CustomField(id="cf_1", name="A", type="unknown")),
        (
            {
                "id": "lcf_1",
                "name": "A",
                "type": "hologram",
                "new": {},
                "associations": [{"object_type": "lead"}],
            },
            CustomField(id="lcf_1", name="A", type="hologram"),
        ),
        (
            {
                "id": "cf_1",
                "name": "A",
                "type": "choices",
                "accepts_multiple_values": True,
                "choices": ["x", 1],
            },
            CustomField(id="cf_1", name="A", type="choices", accepts_multiple_values=True, choices=("x",)),
        ),
        (
            {
                "id": "cf_1",
                "name": "A",
                "type": 5,
                "description": 5,
                "choices": 5,
                "editable_with_roles": None,
            },
            CustomField(id="cf_1", name="A", type="unknown"),
        ),
    ],
)
def test_what_close_leaves_out_or_adds_does_not_matter(entry, field):
    assert parse_schema(answer(fields=[entry]), object_type=ObjectType.LEAD) == schema(field)


@pytest.mark.parametrize(
    "entry", [None, [], {}, {"id": "cf_1"}, {"name": "A"}, {"id": 1, "name": "A"}, {"id": "", "name": "A"}]
)
def test_an_entry_that_is_no_field_is_left_out(entry):
    assert parse_schema(answer(fields=[entry]), object_type=ObjectType.LEAD) == schema()


def test_a_missing_organization_is_not_a_problem():
    parsed = parse_schema({"fields": []}, object_type=ObjectType.CONTACT)
    assert parsed == Schema(object_type=ObjectType.CONTACT, organization_id="", fields=())


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        (b"{", "the custom field schema is not JSON"),
        (b"\xff", "the custom field schema is not JSON"),
        (b"[" * 100_000, "the custom field schema is not JSON"),
        (b"[]", "the custom field schema has no list of fields"),
        ({"fields": {}}, "the custom field schema has no list of fields"),
        (answer(object_type="contact"), "the custom field schema is not the one for leads"),
    ],
)
def test_an_answer_that_is_no_schema_is_a_problem_in_words(payload, problem):
    assert parse_schema(payload, object_type=ObjectType.LEAD) == problem


@given(st.binary())
def test_any_bytes_are_read_without_an_exception(payload):
    assert isinstance(parse_schema(payload, object_type=ObjectType.LEAD), (str, Schema))


TWINS = (
    CustomField(id="cf_1", name="Size", type="text"),
    CustomField(id="cf_2", name="Size", type="number"),
    CustomField(id="cf_3", name="size ", type="number"),
    CustomField(id="Size", name="cf_1", type="text"),
    CustomField(id="cf_5", name="Job  Title", type="text"),
)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("cf_1", TWINS[0]),
        ("Size", TWINS[3]),
        ("size ", TWINS[2]),
        ("SIZE", AmbiguousField(name="SIZE", ids=("cf_1", "cf_2", "cf_3"))),
        ("job title", TWINS[4]),
        ("Job Titel", UnknownField(name="Job Titel", nearest=("Job  Title",))),
        ("Revenue", UnknownField(name="Revenue", nearest=())),
    ],
)
def test_a_field_is_found_by_id_then_by_exact_name_then_by_likeness(wanted, found):
    assert schema(*TWINS).lookup(wanted) == found


def test_two_fields_with_exactly_the_name_are_told_apart_only_by_id():
    assert schema(*TWINS[:2]).lookup("Size") == AmbiguousField(name="Size", ids=("cf_1", "cf_2"))


def test_at_most_three_names_are_offered():
    fields = [CustomField(id=f"cf_{i}", name=f"Field {i}", type="text") for i in range(9)]
    found = schema(*fields).lookup("Field")
    assert isinstance(found, UnknownField)
    assert len(found.nearest) == 3


def test_a_cached_schema_is_read_back_as_it_was():
    kept = schema(INDUSTRY, EMPLOYEES)
    assert Schema.from_json(kept.to_json()) == kept


@pytest.mark.parametrize(
    "payload", [b"", b"{}", b"[]", b"\xff", b'{"object_type": "deal", "organization_id": "", "fields": []}']
)
def test_a_cache_of_another_version_is_no_cache(payload):
    assert Schema.from_json(payload) is None
