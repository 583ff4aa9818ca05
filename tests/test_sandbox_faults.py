"""Faults on demand: each kind as a client on a real socket sees it."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sandbox_box import chance, running

from service.sandbox.app import create_sandbox
from service.sandbox.exchange import HUGE_BYTES
from service.sandbox.faults import FaultRule, Faults, parsed_faults
from service.sandbox.options import DEMO_API_KEY

ENRICH = "POST enrich_field"


@pytest.mark.parametrize("status", [401, 402, 403, 404, 500, 502, 503, 504])
async def test_a_status_is_answered_and_nothing_is_done(status):
    async with running() as box:
        box.world.faults.add(FaultRule(kind=f"status:{status}", group=ENRICH, count=1))
        lead = await box.lead()
        reply = await box.enrich(lead["id"])
        assert (reply.status_code, list(reply.json())) == (status, ["error"])
        (call,) = box.world.calls.made
        assert (call.status, call.ran, call.charged, call.fault) == (status, False, 0, f"status:{status}")
        assert (await box.enrich(lead["id"])).status_code == 200


@pytest.mark.parametrize(
    ("seconds", "header", "retry_after"),
    [(None, "limit=1, remaining=0, reset=1", "1"), (0.4, "limit=1, remaining=0, reset=0.4", "1")],
)
async def test_a_429_says_when_to_come_back(seconds, header, retry_after):
    async with running() as box:
        box.world.faults.add(FaultRule(kind="status:429", retry_after_seconds=seconds))
        reply = await box.api.get("me/")
        assert reply.status_code == 429
        assert (reply.headers["ratelimit"], reply.headers["retry-after"]) == (header, retry_after)


async def test_another_status_can_say_so_too():
    async with running() as box:
        box.world.faults.add(FaultRule(kind="status:503", retry_after_seconds=2.5))
        reply = await box.api.get("me/")
        assert (reply.status_code, reply.headers["retry-after"]) == (503, "3")


async def test_a_status_after_the_work_leaves_the_value_saved():
    async with running() as box:
        box.world.faults.add(FaultRule(kind="status_after:504", group=ENRICH))
        lead = await box.lead()
        assert (await box.enrich(lead["id"])).status_code == 504
        (call,) = box.world.calls.made
        assert (call.status, call.ran, call.saved, call.charged) == (504, True, True, 1)


async def test_slow_is_the_usual_answer_later():
    async with running() as box:
        box.world.faults.add(FaultRule(kind="slow:0.05", group="GET me"))
        started = asyncio.get_running_loop().time()
        assert (await box.api.get("me/")).status_code == 200
        assert asyncio.get_running_loop().time() - started >= 0.05


@pytest.mark.parametrize(("kind", "done"), [("drop_before", False), ("drop_after", True)])
async def test_a_dropped_connection_is_closed_without_one_byte(kind, done):
    async with running() as box:
        box.world.faults.add(FaultRule(kind=kind, group=ENRICH))
        lead = await box.lead()
        assert await box.raw_post("enrich_field/", box.target(lead["id"])) == b""
        (call,) = box.world.calls.made
        assert (call.ran, call.saved, call.charged) == (done, done, int(done))
        assert call.status is None
        assert ("custom.cf_" in str(box.world.leads[lead["id"]])) is done


@pytest.mark.parametrize("kind", ["drop_before", "drop_after"])
async def test_a_client_takes_a_dropped_connection_for_a_transport_error(kind):
    async with running() as box:
        box.world.faults.add(FaultRule(kind=kind, group=ENRICH, count=1))
        lead = await box.lead()
        with pytest.raises(httpx.TransportError):
            await box.enrich(lead["id"])
        assert (await box.enrich(lead["id"])).status_code == 200


async def test_silence_after_the_work_lasts_until_the_client_gives_up():
    async with running() as box:
        world = box.world
        world.faults.add(FaultRule(kind="timeout_after_saved", group=ENRICH))
        lead = await box.lead()
        with pytest.raises(httpx.ReadTimeout):
            # it is not to give up before the work is done
            await box.api.post("enrich_field/", json=box.target(lead["id"]), timeout=1.0)
        await box.until(lambda: world.calls.open == 0)
        (call,) = world.calls.made
        assert (call.status, call.saved, call.charged) == (None, True, 1)


async def test_the_sandbox_stops_though_calls_are_still_silent():
    async with running() as box:
        world = box.world
        world.faults.add(FaultRule(kind="timeout_after_saved", group=ENRICH))
        lead = await box.lead()
        waiting = asyncio.create_task(box.raw_post("enrich_field/", box.target(lead["id"])))
        await box.until(lambda: world.calls.open == 1)
    assert await waiting == b""


async def test_the_sandbox_stops_though_the_ai_still_runs():
    async with running(latency_min_seconds=3600.0, latency_max_seconds=3600.0) as box:
        world, lead = box.world, await box.lead()
        waiting = asyncio.create_task(box.raw_post("enrich_field/", box.target(lead["id"])))
        await box.until(lambda: world.calls.open == 1)
    assert await waiting == b""
    assert (world.calls.ran, world.calls.open) == (0, 0)


async def test_garbage_is_200_with_json_that_ends_early():
    async with running() as box:
        box.world.faults.add(FaultRule(kind="garbage", group=ENRICH))
        lead = await box.lead()
        reply = await box.enrich(lead["id"])
        assert (reply.status_code, reply.headers["content-type"]) == (200, "application/json")
        with pytest.raises(json.JSONDecodeError):
            reply.json()
        assert box.world.calls.saved == 1


async def test_a_web_page_or_redirect_is_answered_and_nothing_is_done():
    async with running() as box:
        box.world.faults.add(
            FaultRule(kind="html", group=ENRICH, count=1), FaultRule(kind="redirect", group=ENRICH, count=1)
        )
        lead = await box.lead()
        page = await box.enrich(lead["id"])
        assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        redirect = await box.enrich(lead["id"])
        assert (redirect.status_code, redirect.headers["location"]) == (302, "/elsewhere/")
        assert box.world.calls.ran == 0


async def test_a_huge_body_is_streamed_after_the_work():
    async with running() as box:
        box.world.faults.add(FaultRule(kind="huge", group=ENRICH, count=1))
        lead = await box.lead()
        async with box.api.stream("POST", "enrich_field/", json=box.target(lead["id"])) as reply:
            assert reply.status_code == 200
            received = 0
            async for chunk in reply.aiter_raw():
                received += len(chunk)
        assert received > HUGE_BYTES
        assert box.world.calls.saved == 1


async def test_a_fault_strikes_only_its_group_and_field():
    async with running() as box:
        pitch = box.world.field_named("Pitch").id
        box.world.faults.add(FaultRule(kind="status:500", group=ENRICH, field_id=pitch))
        lead = await box.lead()
        assert (await box.enrich(lead["id"])).status_code == 200
        assert (await box.enrich(lead["id"], "Pitch")).status_code == 500
        assert (await box.api.get("me/")).status_code == 200


async def test_a_call_that_finds_nobody_can_be_struck_too():
    async with running() as box:
        box.world.faults.add(FaultRule(kind="status_after:500"))
        assert (await box.api.get("nothing/here/")).status_code == 500


async def test_faults_are_set_over_http_and_replace_those_before():
    async with running() as box:
        faults = f"{box.url}/_sandbox/faults"
        two = [{"kind": "status:500", "count": 1}, {"kind": "html", "group": "GET me"}]
        assert (await box.api.post(faults, json=two)).json() == {"faults": 2}
        assert [(await box.api.get("me/")).status_code for _ in range(2)] == [500, 200]
        assert (await box.api.post(faults, json={"kind": "status:418"})).json() == {"faults": 1}
        assert (await box.api.get("me/")).status_code == 418
        assert (await box.api.post(faults, json=[])).json() == {"faults": 0}
        assert (await box.api.get("me/")).headers["content-type"] == "application/json"
        for bad in (b"{", b'{"kind": "explode"}', b'{"kind": "html", "tyop": 1}'):
            refused = await box.api.post(faults, content=bad)
            assert refused.status_code == 400
            assert refused.json()["errors"]


async def test_a_server_that_cannot_drop_connections_says_so():
    async with running() as box:
        box.world.faults.add(FaultRule(kind="drop_before"))
        transport = httpx.ASGITransport(create_sandbox(box.world))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            with pytest.raises(RuntimeError, match="cannot drop connections"):
                await client.get("/api/v1/me/", auth=(DEMO_API_KEY, ""))


@pytest.mark.parametrize(
    "bad",
    [
        {"kind": "explode"},
        {"kind": "status"},
        {"kind": "status:abc"},
        {"kind": "status:199"},
        {"kind": "status:500.5"},
        {"kind": "status_after:600"},
        {"kind": "slow:-1"},
        {"kind": "slow:inf"},
        {"kind": "html", "probability": 1.5},
        {"kind": "html", "count": 0},
        {"kind": "html", "retry_after_seconds": -1},
    ],
)
def test_an_impossible_fault_is_refused_with_what_was_expected(bad):
    with pytest.raises(ValueError, match="expected"):
        FaultRule(**bad)
    assert "expected" in parsed_faults(bad)


@given(share=st.floats(0.1, 0.9), seed=st.integers(0, 1000))
def test_a_probability_strikes_about_that_share(share, seed):
    faults, luck = Faults((FaultRule(kind="html", probability=share),)), chance(seed)
    struck = sum(faults.pick(group="GET me", field_id=None, random=luck) is not None for _ in range(2000))
    assert abs(struck / 2000 - share) < 0.08


@given(counts=st.lists(st.integers(1, 20), max_size=5), calls=st.integers(0, 120))
def test_a_count_strikes_exactly_the_next_so_many(counts, calls):
    faults = Faults(tuple(FaultRule(kind="html", count=count) for count in counts))
    luck = chance(0)
    struck = sum(faults.pick(group="GET me", field_id=None, random=luck) is not None for _ in range(calls))
    assert struck == min(calls, sum(counts))
    assert bool(faults) is (calls < sum(counts))
