"""The sandbox's search, as far as a backfill uses it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sandbox_box import START, Clock, running

from service.sandbox.ids import record_time

PAGE = json.loads((Path(__file__).parent / "responses" / "data_search.page.json").read_text())
LEADS = {"type": "object_type", "object_type": "lead"}


def both(*queries):
    return {"type": "and", "queries": list(queries)}


def lacks(field_id):
    return {
        "type": "field_condition",
        "negate": True,
        "field": {"type": "custom_field", "custom_field_id": field_id},
        "condition": {"type": "exists"},
    }


def created(first, end):
    bounds = {"on_or_after": first, "before": end}
    moments = {
        name: {"type": "fixed_utc", "value": record_time(at)} for name, at in bounds.items() if at is not None
    }
    return {
        "type": "field_condition",
        "field": {"type": "regular_field", "object_type": "lead", "field_name": "date_created"},
        "condition": {"type": "moment_range", **moments},
    }


async def found(box, query, **more):
    reply = await box.api.post("data/search/", json={"query": query, **more})
    assert reply.status_code == 200, reply.text
    return reply.json()


def ids(page):
    return [entry["id"] for entry in page["data"]]


async def test_leads_that_lack_a_field_are_found_in_a_window_of_time():
    clock = Clock()
    async with running(clock=clock) as box:
        industry = box.world.field_named("Industry")
        made = []
        for number in range(6):
            values = {industry.key: "Software"} if number % 2 else {}
            made.append((await box.lead(**values))["id"])
            clock.advance(10)
        query = both(LEADS, lacks(industry.id), created(START + 5, START + 45))
        page = await found(box, query, include_counts=True)
        assert ids(page) == [made[2], made[4]]
        assert page["count"] == {"limited": 2, "total": 2}
        assert page["data"][0]["__object_type"] == "lead"
        assert ids(await found(box, both(LEADS, created(None, START + 5)))) == made[:1]
        assert ids(await found(box, both(LEADS, created(START + 45, None)))) == made[5:]


async def test_a_page_is_shaped_as_recorded_and_has_the_fields_asked_for():
    async with running() as box:
        for _ in range(3):
            await box.lead()
        page = await found(
            box,
            LEADS,
            _fields={"lead": ["id", "display_name", "nonsense"]},
            results_limit=1,
            include_counts=True,
        )
        assert set(page) == set(PAGE)
        assert page["count"] == PAGE["count"]
        assert page["cursor"] is None
        (entry,) = page["data"]
        assert set(entry) == {"__object_type", "id", "display_name"}
        assert "count" not in await found(box, LEADS)
        counted = await found(box, LEADS, results_limit=0, include_counts=True)
        assert counted == {"data": [], "cursor": None, "count": {"limited": 0, "total": 3}}


async def test_other_queries_are_judged_too():
    async with running() as box:
        lead = await box.lead(contacts=[{"name": "Noor Solvei"}])
        contacts = {"type": "object_type", "object_type": "contact"}
        assert ids(await found(box, contacts)) == [lead["contacts"][0]["id"]]
        assert ids(await found(box, both(contacts, LEADS))) == []
        assert ids(await found(box, {"type": "match_all"})) == [lead["id"]]
        assert ids(await found(box, {"type": "or", "queries": [{"type": "match_all", "negate": True}]})) == []
        named = {
            "type": "field_condition",
            "field": {"type": "regular_field", "object_type": "lead", "field_name": "name"},
            "condition": {"type": "exists"},
        }
        assert ids(await found(box, both(LEADS, named))) == [lead["id"]]


def has(this, related, query):
    names = {"this_object_type": this, "related_object_type": related, "related_query": query}
    return {"type": "has_related", **names}


def field_is(kind, *values, **field):
    listed = {"term": "values", "reference": "object_ids"}[kind]
    return {"type": "field_condition", "field": field, "condition": {"type": kind, listed: list(values)}}


async def test_records_are_found_by_their_relatives_and_by_the_values_of_their_fields():
    async with running() as box:
        industry = box.world.field_named("Industry")
        joinery = await box.lead(contacts=[{"name": "Noor Solvei"}], **{industry.key: "Crafts"})
        freight = await box.lead(name="Quillstead Freight", contacts=[{"name": "Jonas Okonjo-Lind"}])
        crafts = field_is("term", "Crafts", "Food", type="custom_field", custom_field_id=industry.id)
        named = field_is("term", "Jonas Okonjo-Lind", type="regular_field", field_name="name")
        status = field_is("reference", joinery["status_id"], type="regular_field", field_name="status_id")
        contacts = {"type": "object_type", "object_type": "contact"}
        assert ids(await found(box, both(LEADS, crafts))) == [joinery["id"]]
        assert ids(await found(box, both(LEADS, status))) == [joinery["id"], freight["id"]]
        assert ids(await found(box, both(LEADS, has("lead", "contact", named)))) == [freight["id"]]
        of_crafts = has("contact", "lead", both(LEADS, crafts))
        assert ids(await found(box, both(contacts, of_crafts))) == [joinery["contacts"][0]["id"]]
        assert ids(await found(box, both(LEADS, of_crafts))) == []


@pytest.mark.parametrize(("direction", "step"), [("asc", 1), ("desc", -1)])
async def test_results_are_sorted_by_creation(direction, step):
    clock = Clock()
    async with running(clock=clock) as box:
        made = []
        for _ in range(3):
            made.append((await box.lead())["id"])
            clock.advance(1)
        field = {"type": "regular_field", "object_type": "lead", "field_name": "date_created"}
        page = await found(box, LEADS, sort=[{"direction": direction, "field": field}])
        assert ids(page) == made[::step]


async def test_a_cursor_leads_through_all_pages_and_dies_after_30_seconds():
    clock = Clock()
    async with running(clock=clock) as box:
        made = [(await box.lead())["id"] for _ in range(5)]
        first = await found(box, LEADS, _limit=2)
        clock.advance(29)
        second = await found(box, LEADS, _limit=2, cursor=first["cursor"])
        clock.advance(29)
        await box.api.delete(f"lead/{made[4]}/")
        third = await found(box, LEADS, _limit=2, cursor=second["cursor"])
        assert ids(first) + ids(second) + ids(third) == made[:4]
        assert third["cursor"] is None
        clock.advance(1)
        dead = await box.api.post("data/search/", json={"query": LEADS, "cursor": second["cursor"]})
        assert dead.status_code == 400
        assert list(dead.json()["field-errors"]) == ["cursor"]
        assert box.world.cursors == {}


async def test_a_search_ends_at_its_cap():
    async with running(search_cap=3) as box:
        for _ in range(5):
            await box.lead()
        page = await found(box, LEADS)
        assert len(page["data"]) == 3
        over = await box.api.post("data/search/", json={"query": LEADS, "cursor": page["cursor"]})
        assert over.status_code == 400
        assert list(over.json()["field-errors"]) == ["cursor"]


DATE_FIELD = {"type": "regular_field", "field_name": "date_created"}


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "query"),
        ({"query": LEADS, "limit": 5}, "limit"),
        ({"query": LEADS, "_limit": 0}, "_limit"),
        ({"query": LEADS, "results_limit": -1}, "results_limit"),
        ({"query": LEADS, "_fields": ["id"]}, "_fields"),
        ({"query": LEADS, "cursor": 7}, "cursor"),
        ({"query": []}, "query"),
        ({"query": {"type": "and"}}, "query"),
        ({"query": {"type": "has_related"}}, "query"),
        ({"query": {"type": "has_related", "this_object_type": "lead"}}, "query"),
        ({"query": field_is("term", field_name="name") | {"condition": {"type": "term"}}}, "query"),
        ({"query": {"type": "object_type", "object_type": "opportunity"}}, "query"),
        ({"query": {"type": "field_condition"}}, "query"),
        ({"query": lacks("cf_unknown")}, "query"),
        (
            {"query": {"type": "field_condition", "field": DATE_FIELD, "condition": {"type": "text"}}},
            "query",
        ),
        (
            {
                "query": {
                    "type": "field_condition",
                    "field": DATE_FIELD,
                    "condition": {"type": "moment_range", "before": {"type": "today"}},
                }
            },
            "query",
        ),
        ({"query": LEADS, "sort": [{"direction": "asc"}]}, "query"),
        ({"query": LEADS, "sort": "date_created"}, "query"),
    ],
)
async def test_what_cannot_be_searched_is_a_400_that_says_where(body, named):
    async with running() as box:
        reply = await box.api.post("data/search/", json=body)
        assert reply.status_code == 400
        assert list(reply.json()["field-errors"]) == [named]


async def test_a_search_body_must_be_json():
    async with running() as box:
        assert (await box.api.post("data/search/", content=b"query")).status_code == 400
