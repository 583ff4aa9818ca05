"""Enrichment in the sandbox: what is found, saved, charged and counted."""

from __future__ import annotations

import asyncio
import json
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import pytest
from sandbox_box import make_world, running

from service.sandbox.faults import FaultRule
from service.sandbox.fields import DEFAULT_FIELDS
from service.sandbox.values import find_value

ANSWER = json.loads((Path(__file__).parent / "responses" / "enrich_field.200.json").read_text())
FIELDS = {field.name: field for field in DEFAULT_FIELDS}


async def test_a_value_is_found_saved_and_told_in_an_event():
    async with running() as box:
        lead = await box.lead()
        field = box.world.field_named("Industry")
        reply = await box.enrich(lead["id"])
        answer = reply.json()
        assert (reply.status_code, set(answer)) == (200, set(ANSWER))
        assert answer["value"] in field.choices
        assert (answer["confidence"], answer["field_id"]) == ("high", field.id)
        assert (answer["object_id"], answer["object_type"]) == (lead["id"], "lead")
        read = await box.api.get(f"lead/{lead['id']}/", params={"_fields": field.key})
        assert read.json() == {field.key: answer["value"]}
        event = next(iter(box.world.journal.newest_first())).event
        assert (event["object_type"], event["action"]) == ("lead", "updated")
        assert set(event["changed_fields"]) == {field.key, "date_updated"}
        assert event["api_key_id"] == "api_sandbox0000000000000"
        assert event["meta"] == {"request_path": "/api/v1/enrich_field/", "request_method": "POST"}


async def test_a_contacts_field_makes_an_event_of_the_contact():
    async with running() as box:
        lead = await box.lead(contacts=[{"name": "Noor Solvei"}])
        contact_id = lead["contacts"][0]["id"]
        assert (await box.enrich(contact_id, "Seniority")).status_code == 200
        assert (await box.enrich(contact_id, "Language")).status_code == 200
        event = next(iter(box.world.journal.newest_first())).event
        assert (event["object_type"], event["object_id"], event["lead_id"]) == (
            "contact",
            contact_id,
            lead["id"],
        )


def found(name, object_id="lead_1", share=0.0):
    return find_value(FIELDS[name], object_id=object_id, display_name="Tarnwick", nothing_found_share=share)


@pytest.mark.parametrize("number", range(20))
def test_a_value_fits_the_type_of_its_field(number):
    object_id = f"lead_{number}"
    assert found("Industry", object_id).value in FIELDS["Industry"].choices
    assert isinstance(found("Employee count", object_id).value, int)
    assert date.fromisoformat(found("Founded on", object_id).value).year >= 1950
    assert "Tarnwick" in found("Pitch", object_id).value
    markets = found("Markets", object_id).value
    assert 1 <= len(markets) <= 3
    assert len(set(markets)) == len(markets)
    assert set(markets) <= set(FIELDS["Markets"].choices)


def test_the_same_value_is_found_every_time_and_others_for_other_records():
    assert found("Employee count") == found("Employee count")
    assert len({found("Employee count", f"lead_{number}").value for number in range(50)}) > 40


def test_about_the_configured_share_finds_nothing():
    values = [found("Industry", f"lead_{number}", 0.25).value for number in range(2000)]
    assert 0.2 < values.count(None) / len(values) < 0.3


async def test_nothing_found_is_a_null_value_that_is_not_saved():
    async with running(nothing_found_share=1.0) as box:
        lead = await box.lead()
        answer = (await box.enrich(lead["id"])).json()
        assert (answer["value"], answer["confidence"]) == (None, "low")
        assert len(box.world.journal) == 1
        assert (box.world.calls.charged, box.world.calls.saved) == (1, 0)


@pytest.mark.parametrize(
    ("flags", "saved"),
    [
        ({}, False),
        ({"overwrite_existing_value": True}, True),
        ({"set_new_value": False}, False),
        ({"set_new_value": False, "overwrite_existing_value": True}, False),
        ({"set_new_value": True, "overwrite_existing_value": False}, False),
    ],
)
async def test_a_filled_field_is_only_overwritten_when_asked(flags, saved):
    async with running() as box:
        count = box.world.field_named("Employee count").key
        lead = await box.lead(**{count: -1})
        answer = (await box.enrich(lead["id"], "Employee count", **flags)).json()
        assert answer["value"] > 0
        assert (box.world.leads[lead["id"]][count] == answer["value"]) is saved
        assert box.world.calls.made[0].saved is saved


async def test_a_kept_value_can_be_what_is_answered():
    async with running(kept_answer="existing") as box:
        count = box.world.field_named("Employee count").key
        lead = await box.lead(**{count: -1})
        assert (await box.enrich(lead["id"], "Employee count")).json()["value"] == -1


async def test_a_preview_saves_nothing():
    async with running() as box:
        lead = await box.lead()
        assert (await box.enrich(lead["id"], set_new_value=False)).json()["value"]
        assert len(box.world.journal) == 1


@pytest.mark.parametrize(
    ("options", "flags", "filled"),
    [
        ({"charge_empty": False, "nothing_found_share": 1.0}, {}, False),
        ({"charge_kept": False}, {}, True),
        ({"charge_preview": False}, {"set_new_value": False}, False),
    ],
)
async def test_what_is_charged_is_an_option(options, flags, filled):
    count = FIELDS["Employee count"].key
    for world, charged in ((make_world(**options), 0), (make_world(**{**options, **charging(options)}), 1)):
        async with running(world) as box:
            lead = await box.lead(**({count: -1} if filled else {}))
            await box.enrich(lead["id"], "Employee count", **flags)
            assert (world.calls.charged, world.credits) == (charged, 100_000 - charged)


def charging(options):
    return {name: True for name in options if name.startswith("charge")}


async def test_without_credits_the_answer_is_402_and_nothing_is_done():
    async with running(credits=3, credits_per_call=2) as box:
        lead = await box.lead()
        assert (await box.enrich(lead["id"])).status_code == 200
        refused = await box.enrich(lead["id"], "Segment")
        assert (refused.status_code, list(refused.json())) == (402, ["error"])
        assert (box.world.credits, box.world.calls.charged, box.world.calls.ran) == (1, 2, 1)


async def test_calls_in_flight_together_never_spend_the_same_credit():
    async with running(credits=5, latency_min_seconds=0.01, latency_max_seconds=0.02) as box:
        lead = await box.lead()
        replies = await asyncio.gather(*(box.enrich(lead["id"], set_new_value=False) for _ in range(20)))
        statuses = [reply.status_code for reply in replies]
        assert (statuses.count(200), statuses.count(402)) == (5, 15)
        assert box.world.credits == 0


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"extra": 1}, "extra"),
        ({"object_type": None}, "object_type"),
        ({"object_type": "opportunity"}, "object_type"),
        ({"organization_id": "orga_other"}, "organization_id"),
        ({"set_new_value": "yes"}, "set_new_value"),
        ({"overwrite_existing_value": 1}, "overwrite_existing_value"),
        ({"field_id": FIELDS["Account owner"].id}, "field_id"),
    ],
)
async def test_a_wrong_body_is_a_400_that_names_what_is_wrong(change, named):
    async with running() as box:
        lead = await box.lead()
        reply = await box.api.post("enrich_field/", json=box.target(lead["id"]) | change)
        assert reply.status_code == 400
        assert list(reply.json()["field-errors"]) == [named]
        assert box.world.calls.ran == 0


async def test_every_missing_field_is_named():
    async with running() as box:
        reply = await box.api.post("enrich_field/", json={})
        assert set(reply.json()["field-errors"]) == {
            "organization_id",
            "object_type",
            "object_id",
            "field_id",
        }
        assert (await box.api.post("enrich_field/", content=b"{")).status_code == 400
        assert box.world.calls.requests == 0


@pytest.mark.parametrize(
    "change",
    [
        {"object_id": "lead_none"},
        {"field_id": "cf_none"},
        {"field_id": FIELDS["Seniority"].id},
        {"object_type": "contact"},
    ],
)
async def test_an_unknown_record_or_field_is_a_404(change):
    async with running() as box:
        lead = await box.lead()
        reply = await box.api.post("enrich_field/", json=box.target(lead["id"]) | change)
        assert (reply.status_code, list(reply.json())) == (404, ["error"])


async def test_without_the_permission_the_answer_is_403():
    async with running(permissions_granted=("export",)) as box:
        lead = await box.lead()
        assert (await box.enrich(lead["id"])).status_code == 403


@pytest.fixture
def held_up(monkeypatch):
    """Calls of the sandbox take until this is set, however long that is."""
    goes_on = asyncio.Event()

    async def sleep(_seconds):
        await goes_on.wait()

    monkeypatch.setattr("service.sandbox.app.asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": sleep}))
    return goes_on


async def test_a_record_deleted_meanwhile_is_a_404_and_costs_nothing(held_up):
    async with running() as box:
        box.world.faults.add(FaultRule(kind="slow:0.02", group="POST enrich_field"))
        lead = await box.lead()
        world = box.world
        async with asyncio.TaskGroup() as group:
            call = group.create_task(box.enrich(lead["id"]))
            await box.until(lambda: world.calls.open == 1)
            await box.api.delete(f"lead/{lead['id']}/")
            held_up.set()
        assert call.result().status_code == 404
        assert world.credits == 100_000


async def test_a_record_deleted_while_the_ai_runs_gives_its_credit_back(held_up):
    async with running(latency_min_seconds=0.05, latency_max_seconds=0.05) as box:
        world, lead = box.world, await box.lead()
        async with asyncio.TaskGroup() as group:
            call = group.create_task(box.enrich(lead["id"]))
            await box.until(lambda: world.credits < 100_000)
            await box.api.delete(f"lead/{lead['id']}/")
            held_up.set()
        assert call.result().status_code == 404
        assert (world.credits, world.calls.ran) == (100_000, 0)


async def test_the_answer_takes_as_long_as_configured():
    async with running(latency_min_seconds=0.05, latency_max_seconds=0.06) as box:
        lead = await box.lead()
        started = asyncio.get_running_loop().time()
        await box.enrich(lead["id"])
        assert asyncio.get_running_loop().time() - started >= 0.05


async def test_every_call_is_on_record():
    async with running() as box:
        world, lead = box.world, await box.lead()
        await asyncio.gather(*(box.enrich(lead["id"]) for _ in range(3)), box.enrich(lead["id"], "Pitch"))
        calls, industry = world.calls, world.field_named("Industry").id
        assert calls.ran_by_field[lead["id"], industry] == calls.most_runs_of_a_field == 3
        assert (calls.requests, calls.ran, calls.charged, calls.saved, calls.open) == (4, 4, 4, 2, 0)
        assert calls.statuses == {200: 4}
        first = calls.made[0]
        assert (first.object_id, first.status, first.charged) == (lead["id"], 200, 1)
        assert first.ended_at == first.started_at == world.clock()


async def test_details_need_not_be_retained():
    async with running(retain_calls=False) as box:
        lead = await box.lead()
        await box.enrich(lead["id"])
        assert box.world.calls.made == []
        assert box.world.calls.ran == box.world.calls.most_runs_of_a_field == 1
