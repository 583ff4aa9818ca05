"""Keys, schema, leads and contacts of the sandbox, as Close answers them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
import pytest
from sandbox_box import make_world, running

from service.sandbox.ids import named_id, new_id, parsed_time

RESPONSES = Path(__file__).parent / "responses"
SAMPLES = Path(__file__).parent / "samples"


def recorded(name):
    return json.loads((RESPONSES / name).read_text())


def sample_event(prefix):
    (path,) = SAMPLES.glob(f"{prefix}_*.json")
    return json.loads(path.read_text())["event"]


def events(world, *wanted):
    """The log's events oldest first, or those of the given type and action."""
    found = [entry.event for entry in world.journal.newest_first()][::-1]
    return [event for event in found if not wanted or (event["object_type"], event["action"]) == wanted]


@pytest.mark.parametrize(
    "auth", [None, ("", ""), ("api_wrong.key", ""), ("api_sandbox0000000000000.demo", "password")]
)
async def test_a_missing_or_wrong_key_is_a_401_with_an_error(auth):
    async with running() as box, httpx.AsyncClient(trust_env=False) as client:
        reply = await client.get(f"{box.url}/api/v1/me/", auth=auth)
        assert reply.status_code == 401
        assert list(reply.json()) == ["error"]
        assert "ratelimit" in reply.headers


async def test_me_names_the_organization_and_the_permission_to_enrich():
    async with running() as box:
        me = (await box.api.get("me/")).json()
        assert me["organizations"] == [{"id": box.world.organization.id, "name": "Sandbox"}]
        membership = me["memberships"][0]
        assert membership["organization_id"] == box.world.organization.id
        assert {"ai_enrich", "bulk_enrich", "manage_organization"} <= set(membership["permissions_granted"])


async def test_the_schema_lists_regular_and_shared_fields_and_the_list_only_regular_ones():
    async with running() as box:
        schema = (await box.api.get("custom_field_schema/lead/")).json()
        assert list(schema) == ["object_type", "name", "organization_id", "fields"]
        by_name = {field["name"]: field for field in schema["fields"]}
        assert {"Industry", "Employee count", "Segment", "Pitch", "Language"} <= set(by_name)
        assert by_name["Employee count"]["id"] == "cf_9hWfpU3HBGeya7iAhKQq2Zy15NdWAoVTECHuzfkkMjL"
        assert by_name["Source"]["id"].startswith("lcf_")
        assert {"date", "user", "number", "text", "choices"} == {field["type"] for field in schema["fields"]}
        listed = (await box.api.get("custom_field/lead/")).json()
        assert set(listed["data"][0]) == set(recorded("custom_field.list.json")["data"][0])
        assert {field["name"] for field in listed["data"]} == set(by_name) - {"Language"}
        assert listed["has_more"] is False
        contact_schema = (await box.api.get("custom_field_schema/contact/")).json()
        assert [field["name"] for field in contact_schema["fields"]] == ["Seniority", "Language"]


async def test_field_lists_have_pages_and_single_fields():
    async with running() as box:
        first = (await box.api.get("custom_field/lead/", params={"_limit": 2})).json()
        assert (len(first["data"]), first["has_more"]) == (2, True)
        rest = (await box.api.get("custom_field/lead/", params={"_skip": 2})).json()
        assert first["data"][0] not in rest["data"]
        field_id = first["data"][0]["id"]
        assert (await box.api.get(f"custom_field/lead/{field_id}/")).json() == first["data"][0]
        assert (await box.api.get(f"custom_field/contact/{field_id}/")).status_code == 404
        (shared,) = (await box.api.get("custom_field/shared/")).json()["data"]
        assert [entry["object_type"] for entry in shared["associations"]] == ["lead", "contact"]
        assert (await box.api.get(f"custom_field/shared/{shared['id']}/")).json() == shared
        assert (await box.api.get(f"custom_field/shared/{field_id}/")).status_code == 404
        assert (await box.api.get("custom_field/opportunity/")).status_code == 404
        assert (await box.api.get("custom_field_schema/opportunity/")).status_code == 404
        for bad in ({"_skip": "x"}, {"_limit": 0}):
            assert (await box.api.get("custom_field/lead/", params=bad)).status_code == 400


async def test_a_lead_with_contacts_makes_one_event_for_each_in_the_shape_of_the_samples():
    async with running() as box:
        lead = await box.lead(
            url="https://brindlemoor.example",
            contacts=[
                {"name": "Priya Osterhaug", "emails": [{"email": "p@brindlemoor.example"}]},
                {"phones": [{"phone": "+442079460123"}]},
            ],
        )
        lead_event, *contact_events = events(box.world)
        sample = sample_event("01")
        assert list(lead_event) == list(sample)
        assert list(lead_event["data"]) == list(sample["data"])
        assert lead_event["data"]["contact_ids"] == [event["object_id"] for event in contact_events]
        assert lead_event["api_key_id"] == "api_sandbox0000000000000"
        assert lead_event["meta"] == {"request_path": "/api/v1/lead/", "request_method": "POST"}
        assert lead_event["date_created"] == "2026-10-14T09:30:12.418000"
        assert lead_event["data"]["date_created"] == "2026-10-14T09:30:12.418000+00:00"
        assert (lead_event["changed_fields"], lead_event["previous_data"]) == ([], {})
        contact_sample = sample_event("04")["data"]
        for event in contact_events:
            assert set(event["data"]) == {name for name in contact_sample if not name.startswith("custom.")}
            assert event["lead_id"] == lead["id"]
            assert event["request_id"] == lead_event["request_id"]


async def test_a_lead_without_a_name_is_shown_under_that_of_its_first_contact():
    async with running() as box:
        lead = await box.lead(name="", contacts=[{"name": "Ines Tarnow"}])
        assert (lead["name"], lead["display_name"]) == ("", "Ines Tarnow")
        assert (await box.lead(name=""))["display_name"] == "Untitled Lead"


async def test_ids_have_closes_prefixes_and_lengths():
    async with running() as box:
        lead = await box.lead(contacts=[{"name": "Greta Solvei"}])
        event = events(box.world)[0]
        assert re.fullmatch(r"lead_[0-9A-Za-z]{43}", lead["id"])
        assert re.fullmatch(r"cont_[0-9A-Za-z]{43}", lead["contacts"][0]["id"])
        assert re.fullmatch(r"ev_[0-9A-Za-z]{22}", event["id"])
        assert re.fullmatch(r"req_[0-9A-Za-z]{22}", event["request_id"])
        assert re.fullmatch(r"orga_[0-9A-Za-z]{43}", event["organization_id"])
        assert new_id("ev", box.world.random) != new_id("ev", box.world.random)
        assert named_id("cf", "Industry") == named_id("cf", "Industry") != named_id("cf", "Segment")


async def test_a_whole_lead_has_contacts_but_no_contact_ids():
    async with running() as box:
        industry = box.world.field_named("Industry")
        lead = await box.lead(contacts=[{"name": "Greta Solvei"}], **{industry.key: "Software"})
        whole = (await box.api.get(f"lead/{lead['id']}/")).json()
        assert "contact_ids" not in whole
        assert whole["contacts"][0]["display_name"] == "Greta Solvei"
        assert whole["custom"] == {"Industry": "Software"}
        assert whole[industry.key] == "Software"
        assert {"opportunities", "tasks", "html_url", "integration_links", "status_label"} <= set(whole)
        assert (await box.api.get(f"lead/{lead['id']}/", params={"_fields": "_all"})).json() == whole


async def test_fields_picks_what_is_asked_for_and_leaves_out_what_has_no_value():
    async with running() as box:
        industry, segment = box.world.field_named("Industry"), box.world.field_named("Segment")
        lead = await box.lead(contacts=[{"name": "Greta Solvei"}], **{industry.key: "Software"})

        async def fields(path, listed):
            return (await box.api.get(path, params={"_fields": listed})).json()

        path = f"lead/{lead['id']}/"
        assert await fields(path, f"id,{industry.key}") == {"id": lead["id"], industry.key: "Software"}
        assert await fields(path, f"id,{segment.key}") == {"id": lead["id"]}
        assert await fields(path, "custom") == {industry.key: "Software", "custom": {"Industry": "Software"}}
        assert await fields(path, "contact_ids,nonsense") == {}
        assert await fields(path, "tasks") == {"tasks": []}
        assert await fields(path, "") == {}
        contact_path = f"contact/{lead['contacts'][0]['id']}/"
        seniority = box.world.field_named("Seniority").key
        assert await fields(contact_path, f"lead_id,{seniority}") == {"lead_id": lead["id"]}
        assert (await box.api.get(contact_path, params={"x_fields": "id"})).json()["name"] == "Greta Solvei"


async def test_an_update_is_a_patch_with_changed_fields_and_previous_data():
    async with running() as box:
        count, industry = box.world.field_named("Employee count").key, box.world.field_named("Industry").key
        lead = await box.lead(**{count: 340})
        put = await box.api.put(
            f"lead/{lead['id']}/",
            json={"url": "https://new.example", count: 355, industry: "Software", "status": "Qualified"},
        )
        assert put.json()["status_label"] == "Qualified"
        (event,) = events(box.world, "lead", "updated")
        assert set(event["changed_fields"]) == {
            "url", count, industry, "status_id", "status_label", "date_updated",
        }  # fmt: skip
        assert event["previous_data"] == {
            "url": None,
            count: 340,
            "status_id": lead["status_id"],
            "status_label": "Potential",
            "date_updated": lead["date_updated"],
        }
        assert event["data"][count] == 355


async def test_null_unsets_a_custom_field_and_a_change_of_nothing_is_no_event():
    async with running() as box:
        industry = box.world.field_named("Industry").key
        lead = await box.lead(**{industry: "Software"})
        assert (await box.api.put(f"lead/{lead['id']}/", json={"name": lead["name"]})).status_code == 200
        assert events(box.world, "lead", "updated") == []
        unset = (await box.api.put(f"lead/{lead['id']}/", json={industry: None})).json()
        assert industry not in unset
        (event,) = events(box.world, "lead", "updated")
        assert industry in event["changed_fields"]
        assert industry not in event["data"]
        assert event["previous_data"][industry] == "Software"


async def test_a_contact_added_later_updates_its_lead_as_in_the_sample():
    async with running() as box:
        lead = await box.lead()
        posted = await box.api.post("contact/", json={"lead_id": lead["id"], "name": "Aiko Quillan"})
        (event,) = events(box.world, "lead", "updated")
        sample = sample_event("06")
        assert set(event["changed_fields"]) == set(sample["changed_fields"])
        assert set(event["previous_data"]) == set(sample["previous_data"])
        assert event["data"]["contact_ids"] == [posted.json()["id"]]
        assert event["meta"]["request_path"] == "/api/v1/contact/"


async def test_changing_a_contact_is_an_event_of_the_contact_only():
    async with running() as box:
        lead = await box.lead(contacts=[{"name": "Aiko Quillan"}])
        path = f"contact/{lead['contacts'][0]['id']}/"
        assert (await box.api.put(path, json={"title": "Founder"})).json()["title"] == "Founder"
        (event,) = events(box.world, "contact", "updated")
        assert event["lead_id"] == lead["id"]
        assert event["changed_fields"] == ["title", "date_updated"]
        assert events(box.world, "lead", "updated") == []


async def test_a_contact_without_a_lead_gets_one():
    async with running() as box:
        contact = (await box.api.post("contact/", json={"name": "Noor Okonjo-Lind"})).json()
        assert box.world.leads[contact["lead_id"]]["display_name"] == "Noor Okonjo-Lind"


async def test_a_deleted_lead_is_gone_with_its_contacts_and_keeps_its_data_in_the_event():
    async with running() as box:
        lead = await box.lead(contacts=[{"name": "Samir Vennfield"}])
        contact_id = lead["contacts"][0]["id"]
        deleted = await box.api.delete(f"lead/{lead['id']}/")
        assert (deleted.status_code, deleted.json()) == (200, {})
        missing = await box.api.get(f"lead/{lead['id']}/")
        assert (missing.status_code, missing.json()) == (404, recorded("error.404.json"))
        assert (await box.api.get(f"contact/{contact_id}/")).status_code == 404
        (event,) = events(box.world, "lead", "deleted")
        assert event["data"] is None
        assert set(event["previous_data"]) == set(sample_event("10")["previous_data"])
        assert len(events(box.world, "contact", "deleted")) == 1
        for call in (box.api.delete, lambda path: box.api.put(path, json={})):
            assert (await call(f"lead/{lead['id']}/")).status_code == 404


async def test_a_deleted_contact_leaves_its_lead():
    async with running() as box:
        lead = await box.lead(contacts=[{"name": "Samir Vennfield"}])
        assert (await box.api.delete(f"contact/{lead['contacts'][0]['id']}/")).status_code == 200
        assert box.world.leads[lead["id"]]["contact_ids"] == []
        assert [event["action"] for event in events(box.world)][-2:] == ["deleted", "updated"]


async def test_a_merge_moves_contacts_and_fills_gaps_and_every_event_names_both_leads():
    async with running() as box:
        industry = box.world.field_named("Industry").key
        source = await box.lead(contacts=[{"name": "Jonas Tarnow"}], **{industry: "Crafts"})
        destination = await box.lead(name="Halvorsen Tidewater")
        before = len(box.world.journal)
        body = {"source": source["id"], "destination": destination["id"]}
        assert (await box.api.post("lead/merge/", json=body)).status_code == 200
        made = events(box.world)[before:]
        assert {(event["object_type"], event["action"]) for event in made} == {
            ("contact", "updated"), ("lead", "updated"), ("lead", "deleted"), ("lead", "merged"),
        }  # fmt: skip
        meta = {"merge_source_lead_id": source["id"], "merge_destination_lead_id": destination["id"]}
        assert all(meta.items() <= event["meta"].items() for event in made)
        (merged,) = events(box.world, "lead", "merged")
        assert merged["object_id"] == merged["lead_id"] == merged["data"]["id"] == destination["id"]
        assert merged["data"][industry] == "Crafts"
        assert merged["meta"]["request_path"] == sample_event("08")["meta"]["request_path"]
        assert (await box.api.get(f"lead/{source['id']}/")).status_code == 404
        contact = (await box.api.get(f"contact/{source['contacts'][0]['id']}/")).json()
        assert contact["lead_id"] == destination["id"]


EMPLOYEES = "custom.cf_9hWfpU3HBGeya7iAhKQq2Zy15NdWAoVTECHuzfkkMjL"
LEAD_PROBLEMS = [
    ({"nmae": "x"}, "nmae"),
    ({"name": 3}, "name"),
    ({"custom.cf_unknown": "x"}, "custom.cf_unknown"),
    ({EMPLOYEES: "many"}, EMPLOYEES),
    ({EMPLOYEES: True}, EMPLOYEES),
    ({f"custom.{named_id('cf', 'Industry')}": "Gold"}, f"custom.{named_id('cf', 'Industry')}"),
    ({f"custom.{named_id('cf', 'Seniority')}": "Head"}, f"custom.{named_id('cf', 'Seniority')}"),
    ({f"custom.{named_id('cf', 'Founded on')}": "1.2.2003"}, f"custom.{named_id('cf', 'Founded on')}"),
    ({f"custom.{named_id('cf', 'Markets')}": ["EU", "Mars"]}, f"custom.{named_id('cf', 'Markets')}"),
    ({f"custom.{named_id('cf', 'Pitch')}": 3}, f"custom.{named_id('cf', 'Pitch')}"),
    ({"status": "Nearly"}, "status"),
    ({"status_id": "stat_x"}, "status_id"),
    ({"contacts": [{"emails": [{}]}]}, "contacts[0].emails"),
    ({"contacts": ["x"]}, "contacts"),
    ({"contacts": "x"}, "contacts"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "named"), LEAD_PROBLEMS)
async def test_a_wrong_attribute_is_a_400_that_names_it(body, named):
    async with running() as box:
        reply = await box.api.post("lead/", json=body)
        assert reply.status_code == 400
        assert set(reply.json()) == set(recorded("error.400.validation.json"))
        assert list(reply.json()["field-errors"]) == [named]
        assert box.world.leads == {}


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "lead/", b"{", 400),
        ("POST", "lead/", b"[]", 400),
        ("POST", "contact/", b"[" * 100_000, 400),
        ("POST", "contact/", b'{"lead_id": "lead_none"}', 400),
        ("POST", "lead/merge/", b'{"source": "lead_none", "more": 1}', 400),
        ("POST", "lead/merge/", b"nonsense", 400),
        ("PATCH", "lead/", b"{}", 405),
        ("GET", "enrich_field/", b"", 405),
        ("GET", "nothing/here/", b"", 404),
        ("GET", "me", b"", 404),
        ("GET", "contact/cont_none/", b"", 404),
        ("PUT", "contact/cont_none/", b"{}", 404),
    ],
)
async def test_bad_calls_are_answered_as_close_answers_them(method, path, body, status):
    async with running() as box:
        reply = await box.api.request(method, path, content=body)
        assert reply.status_code == status
        assert reply.json()


async def test_bad_changes_change_nothing():
    async with running() as box:
        lead = await box.lead()
        path = f"lead/{lead['id']}/"
        assert (await box.api.put(path, content=b"x")).status_code == 400
        assert (await box.api.put(path, json={"contacts": []})).status_code == 400
        merge = {"source": lead["id"], "destination": lead["id"]}
        assert (await box.api.post("lead/merge/", json=merge)).status_code == 400
        assert (await box.api.get(path)).json() == lead


@pytest.mark.parametrize("text", ["yesterday", "2026-13-01", "0001-01-01T00:00:00+14:00"])
def test_what_is_no_date_is_none(text):
    assert parsed_time(text) is None


def test_an_unknown_field_name_is_a_key_error():
    with pytest.raises(KeyError, match="Industri"):
        make_world().field_named("Industri")
