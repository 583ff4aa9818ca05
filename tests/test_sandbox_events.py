"""The sandbox's event log: what it keeps, consolidates and lets be asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sandbox_box import START, Clock, make_world, running

from service.sandbox.ids import event_time

PAGE = json.loads((Path(__file__).parent / "responses" / "event_log.page.json").read_text())


async def listed(box, **params):
    reply = await box.api.get("event/", params=params)
    assert reply.status_code == 200, reply.text
    return reply.json()


async def test_a_page_is_newest_first_and_shaped_as_recorded():
    clock = Clock()
    async with running(clock=clock) as box:
        first = await box.lead()
        clock.advance(60)
        second = await box.lead()
        page = await listed(box)
        assert set(page) == set(PAGE)
        assert [event["object_id"] for event in page["data"]] == [second["id"], first["id"]]
        assert list(page["data"][0]) == list(PAGE["data"][0])
        assert (page["cursor_next"], page["cursor_previous"]) == (None, None)
        event_id = page["data"][0]["id"]
        assert (await box.api.get(f"event/{event_id}/")).json() == page["data"][0]
        assert (await box.api.get("event/ev_none/")).status_code == 404


async def test_the_next_cursor_walks_to_older_events_and_the_previous_one_back():
    clock = Clock()
    async with running(clock=clock) as box:
        for _ in range(120):
            await box.lead()
            clock.advance(1)
        filters = {"object_type": "lead", "action": "created"}
        pages = [await listed(box, _limit=200, **filters)]
        while pages[-1]["cursor_next"]:
            pages.append(await listed(box, _cursor=pages[-1]["cursor_next"], **filters))
        assert [len(page["data"]) for page in pages] == [50, 50, 20]
        walked = [event["object_id"] for page in pages for event in page["data"]]
        assert walked == list(box.world.leads)[::-1]
        back = await listed(box, _cursor=pages[2]["cursor_previous"], **filters)
        assert back["data"] == pages[1]["data"]
        back = await listed(box, _cursor=back["cursor_previous"], **filters)
        assert (back["data"], back["cursor_previous"]) == (pages[0]["data"], None)
        assert back["cursor_next"] is not None


async def test_a_cursor_keeps_the_bounds_it_was_made_with_and_newer_events_do_not_shift_it():
    clock = Clock()
    async with running(clock=clock) as box:
        ids = []
        for _ in range(6):
            ids.append((await box.lead())["id"])
            clock.advance(1)
        page = await listed(box, date_updated__gte=event_time(START + 2), _limit=2)
        await box.lead()
        rest = await listed(box, _cursor=page["cursor_next"])
        assert [event["object_id"] for event in page["data"] + rest["data"]] == ids[:1:-1]
        assert rest["cursor_next"] is None
        assert rest["cursor_previous"] is not None


@pytest.mark.parametrize(
    ("bound", "expected"),
    [("date_updated__gt", 1), ("date_updated__gte", 2), ("date_updated__lt", 1), ("date_updated__lte", 2)],
)
async def test_events_can_be_bounded_by_their_update(bound, expected):
    clock = Clock()
    async with running(clock=clock) as box:
        for _ in range(3):
            await box.lead()
            clock.advance(1)
        page = await listed(box, **{bound: event_time(START + 1) + "+00:00"})
        assert len(page["data"]) == expected


async def test_bounds_on_the_creation_are_ignored_without_a_word():
    async with running() as box:
        await box.lead()
        page = await listed(
            box, object_type="lead", action="created", date_created__gte="2999-01-01T00:00:00"
        )
        assert len(page["data"]) == 1


ALLOWED = [
    "", "object_type object_id", "object_type action", "object_id action", "lead_id", "user_id", "request_id",
    "lead_id object_type", "lead_id object_type action", "lead_id object_type user_id", "lead_id user_id",
    "user_id object_id", "user_id object_id action", "user_id object_type", "user_id object_type action",
]  # fmt: skip
REFUSED = ["object_type", "action", "object_id", "lead_id action", "request_id user_id", "user_id action"]


@pytest.mark.parametrize(
    ("names", "status"), [(names, 200) for names in ALLOWED] + [(names, 400) for names in REFUSED]
)
async def test_only_the_documented_combinations_of_filters_are_allowed(names, status):
    async with running() as box:
        lead = await box.lead(contacts=[{"name": "Noor Solvei"}])
        (await box.api.put(f"lead/{lead['id']}/", json={"url": "https://x.example"})).raise_for_status()
        event = next(iter(box.world.journal.newest_first())).event
        wanted = {name: event[name] for name in names.split()}
        reply = await box.api.get("event/", params={**wanted, "date_updated__gte": "2026-01-01T00:00:00"})
        assert reply.status_code == status
        if status == 200:
            shown = reply.json()["data"]
            assert event["id"] in [entry["id"] for entry in shown]
            assert all(entry[name] == value for entry in shown for name, value in wanted.items())
        else:
            assert names.split()[0] in reply.json()["errors"][0]


@pytest.mark.parametrize(
    "params",
    [
        {"date_updated__gt": "soon"},
        {"_limit": "0"},
        {"_limit": "many"},
        {"_cursor": "dead"},
        {"_cursor": "WzEsMSwyXQ"},
        {"_cursor": "WzEsdHJ1ZSx7ImEiOiJiIn1d"},
        {"_cursor": "ö"},
    ],
)
async def test_bad_parameters_are_a_400_that_names_them(params):
    async with running() as box:
        reply = await box.api.get("event/", params=params)
        assert reply.status_code == 400
        assert list(reply.json()["field-errors"]) == list(params)


async def test_changes_within_seconds_become_one_event_that_keeps_its_id_and_moves_up():
    clock = Clock()
    async with running(clock=clock) as box:
        lead = await box.lead()
        path = f"lead/{lead['id']}/"
        await box.api.put(path, json={"url": "https://one.example"})
        (first, _) = (await listed(box))["data"]
        clock.advance(2)
        other = await box.lead()
        await box.api.put(path, json={"url": "https://two.example", "description": "Met at a fair."})
        clock.advance(1)
        newest, created, _ = (await listed(box))["data"]
        assert created["object_id"] == other["id"]
        assert newest["id"] == first["id"]
        assert newest["date_created"] == first["date_created"] < newest["date_updated"]
        assert newest["changed_fields"] == ["url", "date_updated", "description"]
        assert newest["previous_data"]["url"] is None
        assert newest["previous_data"]["date_updated"] == lead["date_updated"]
        assert newest["data"]["url"] == "https://two.example"
        clock.advance(2)
        await box.api.put(path, json={"url": "https://three.example"})
        (latest, *_) = (await listed(box))["data"]
        assert latest["id"] != first["id"]
        assert latest["previous_data"]["url"] == "https://two.example"


async def test_a_value_that_was_not_there_before_stays_absent_when_consolidated():
    async with running() as box:
        count = box.world.field_named("Employee count").key
        lead = await box.lead()
        for number in (5, 6):
            await box.api.put(f"lead/{lead['id']}/", json={count: number})
        (event, _) = (await listed(box))["data"]
        assert count in event["changed_fields"]
        assert count not in event["previous_data"]
        assert event["data"][count] == 6


async def test_changes_of_different_causes_stay_apart():
    async with running() as box:
        lead = await box.lead()
        await box.api.put(f"lead/{lead['id']}/", json={"url": "https://one.example"})
        await box.enrich(lead["id"])
        actions = [event["meta"]["request_path"] for event in (await listed(box, lead_id=lead["id"]))["data"]]
        assert actions == ["/api/v1/enrich_field/", f"/api/v1/lead/{lead['id']}/", "/api/v1/lead/"]


async def test_without_consolidation_every_change_is_an_event():
    async with running(consolidation_seconds=0) as box:
        lead = await box.lead()
        for number in range(3):
            await box.api.put(f"lead/{lead['id']}/", json={"description": str(number)})
        assert len(box.world.journal) == 4


async def test_the_log_reaches_back_30_days_and_no_further():
    clock = Clock()
    async with running(clock=clock) as box:
        await box.lead()
        clock.advance(29 * 86400)
        kept = await box.lead()
        clock.advance(2 * 86400)
        newest = await box.lead()
        assert [event["object_id"] for event in (await listed(box))["data"]] == [newest["id"], kept["id"]]


async def test_the_log_keeps_no_more_events_than_it_may():
    async with running(events_retained=3) as box:
        for _ in range(5):
            newest = await box.lead()
        assert len(box.world.journal) == 3
        assert (await listed(box))["data"][0]["object_id"] == newest["id"]


async def test_everybody_waiting_for_the_same_is_told():
    world = make_world()
    await world.until(lambda: True)
    async with running(world) as box:
        await box.lead()
        await world.until(lambda: len(world.journal) == 1)
        assert len(world.leads) == 1
