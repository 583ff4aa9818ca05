"""Webhook subscriptions of the sandbox over HTTP."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from sandbox_box import Clock, running

RESPONSES = Path(__file__).parent / "responses"
CREATED = {"object_type": "lead", "action": "created"}
MERGED = {"object_type": "lead", "action": "merged", "extra_filter": None}
# Nobody listens there, and no test here causes an event.
URL = "http://127.0.0.1:9/hooks"


def recorded(name):
    return json.loads((RESPONSES / name).read_text())


async def create(box, **body):
    return await box.api.post("webhook/", json={"url": URL, "events": [CREATED], **body})


async def test_a_new_subscription_is_shaped_as_recorded_with_its_key():
    async with running() as box:
        reply = await create(box)
        shown = reply.json()
        assert reply.status_code == 201
        assert set(shown) == set(recorded("webhook.create.json"))
        assert reply.headers["location"] == f"/api/v1/webhook/{shown['id']}/"
        assert re.fullmatch(r"whsub_[0-9A-Za-z]{22}", shown["id"])
        assert len(bytes.fromhex(shown["signature_key"])) == 32
        assert shown["events"] == [{**CREATED, "extra_filter": None}]
        assert (shown["status"], shown["verify_ssl"], shown["health_status"]) == ("active", True, None)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}", shown["date_created"])


async def test_the_key_is_shown_by_id_and_absent_from_the_list():
    async with running() as box:
        made = (await create(box)).json()
        assert (await box.api.get(f"webhook/{made['id']}/")).json() == made
        listed = (await box.api.get("webhook/")).json()
        assert listed["has_more"] is False
        (entry,) = listed["data"]
        assert set(entry) == set(recorded("webhook.list.json")["data"][0])
        assert entry == {name: value for name, value in made.items() if name != "signature_key"}
        assert (await box.api.get("webhook/whsub_none/")).status_code == 404


async def test_every_part_can_be_patched_and_the_key_stays():
    clock = Clock()
    async with running(clock=clock) as box:
        made = (await create(box)).json()
        path = f"webhook/{made['id']}/"
        clock.advance(60)
        changes = {"url": URL + "/2", "events": [MERGED], "verify_ssl": False, "status": "paused"}
        changed = (await box.api.put(path, json=changes)).json()
        assert changes.items() <= changed.items()
        assert changed["pause_reason"] == "api"
        assert changed["signature_key"] == made["signature_key"]
        assert changed["date_updated"] > made["date_updated"]
        again = (await box.api.put(path, json={"status": "active"})).json()
        assert (again["status"], again["pause_reason"]) == ("active", None)
        assert again["signature_key"] == made["signature_key"]
        assert (await box.api.put("webhook/whsub_none/", json={})).status_code == 404
        assert (await box.api.put(path, content=b"{")).status_code == 400
        assert (await box.api.put(path, json={"status": "asleep"})).status_code == 400


async def test_a_deleted_subscription_is_gone():
    async with running() as box:
        made = (await create(box)).json()
        deleted = await box.api.delete(f"webhook/{made['id']}/")
        assert (deleted.status_code, deleted.json()) == (200, {})
        assert (await box.api.delete(f"webhook/{made['id']}/")).status_code == 404
        assert box.world.subscriptions == {}


async def test_a_duplicate_of_an_active_subscription_is_refused_with_its_id():
    async with running() as box:
        made = (await create(box, events=[CREATED, MERGED])).json()
        twin = await create(box, events=[MERGED, CREATED])
        assert twin.status_code == 400
        assert twin.json()["errors"] == [f"Duplicate active subscription: {made['id']}"]
        assert (await create(box, events=[CREATED])).status_code == 201
        assert (await create(box, events=[CREATED, MERGED], url=URL + "/other")).status_code == 201
        await box.api.put(f"webhook/{made['id']}/", json={"status": "paused"})
        assert (await create(box, events=[CREATED, MERGED])).status_code == 201
        awake = await box.api.put(f"webhook/{made['id']}/", json={"status": "active"})
        assert awake.status_code == 400
        assert "Duplicate active subscription" in awake.json()["errors"][0]


async def test_no_more_than_the_limit_can_be_made():
    async with running(subscription_limit=2) as box:
        statuses = [(await create(box, url=f"{URL}/{number}")).status_code for number in range(3)]
        assert statuses == [201, 201, 400]


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, ["url", "events"]),
        ({"url": "ftp://x", "events": [CREATED]}, ["url"]),
        ({"url": 5, "events": [CREATED]}, ["url"]),
        ({"url": URL, "events": []}, ["events"]),
        ({"url": URL, "events": ["lead"]}, ["events"]),
        ({"url": URL, "events": [{"object_type": "lead"}]}, ["events"]),
        ({"url": URL, "events": [{**CREATED, "filter": {}}]}, ["events"]),
        ({"url": URL, "events": [{**CREATED, "extra_filter": {"type": "x"}}]}, ["events"]),
        ({"url": URL, "events": [CREATED], "verify_ssl": "no"}, ["verify_ssl"]),
        ({"url": URL, "events": [CREATED], "event_filter": None}, ["event_filter"]),
        ({"url": URL, "events": [CREATED], "status": "active"}, ["status"]),
    ],
)
async def test_a_wrong_body_is_a_400_that_names_what_is_wrong(body, named):
    async with running() as box:
        reply = await box.api.post("webhook/", json=body)
        assert reply.status_code == 400
        assert set(reply.json()["field-errors"]) == set(named)


async def test_a_body_that_is_no_json_is_a_400():
    async with running() as box:
        assert (await box.api.post("webhook/", content=b"url=x")).status_code == 400
