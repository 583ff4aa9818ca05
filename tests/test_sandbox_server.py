"""Running the sandbox: statistics, invented leads, options, start and end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sandbox_box import chance, make_world, running

from service.sandbox.options import DEMO_API_KEY, Limit, SandboxOptions, changed_options
from service.sandbox.people import invented_lead
from service.sandbox.server import serve_sandbox

ROOT = Path(__file__).parent.parent


@given(seed=st.integers(0, 10_000))
def test_invented_leads_live_at_example_domains_and_have_one_or_two_contacts(seed):
    lead = invented_lead(chance(seed))
    assert 1 <= len(lead["contacts"]) <= 2
    assert lead.get("url", "https://x.example").endswith(".example")
    assert all(entry["emails"][0]["email"].endswith(".example") for entry in lead["contacts"])


def test_about_a_third_of_the_invented_leads_has_no_address():
    luck = chance(3)
    without = sum("url" not in invented_lead(luck) for _ in range(1000))
    assert 270 < without < 400


async def test_leads_are_invented_on_demand_as_if_by_a_person():
    async with running() as box:
        made = await box.api.post(f"{box.url}/_sandbox/leads", json={"count": 3})
        assert made.json()["ids"] == list(box.world.leads)
        event = next(iter(box.world.journal.newest_first())).event
        assert event["api_key_id"] is None
        assert event["user_id"] == box.world.organization.user_id


async def test_leads_can_come_at_a_pace():
    async with running() as box:
        reply = await box.api.post(f"{box.url}/_sandbox/leads", json={"count": 5, "per_second": 500})
        assert reply.status_code == 202
        await box.until(lambda: len(box.world.leads) == 5)
        slow = await box.api.post(f"{box.url}/_sandbox/leads", json={"count": 5, "per_second": 0.001})
        assert slow.status_code == 202
        await box.until(lambda: len(box.world.leads) == 6)
    assert len(box.world.leads) == 6


@pytest.mark.parametrize(
    "body", [{"count": 0}, {"count": "x"}, {"count": True}, {"per_second": 0}, {"per_second": "x"}, {"n": 1}]
)
async def test_a_wrong_order_of_leads_is_refused(body):
    async with running() as box:
        assert (await box.api.post(f"{box.url}/_sandbox/leads", json=body)).status_code == 400
        assert box.world.leads == {}


async def test_the_statistics_tell_what_happened():
    async with running(limits={"GET me": Limit(rate_per_second=0.1, burst=1)}) as box:
        lead = await box.lead(contacts=[{"name": "Noor Solvei"}])
        for _ in range(2):
            await box.enrich(lead["id"], set_new_value=False)
        await box.enrich(lead["id"], "Segment")
        for _ in range(2):
            await box.api.get("me/")
        stats = (await httpx_get(f"{box.url}/_sandbox/stats")).json()
        assert (stats["leads"], stats["contacts"], stats["events"]) == (1, 1, 3)
        assert stats["rate_limited"] == 1
        enrichment = stats["enrichment"]
        assert enrichment["most_runs_of_a_field"] == 2
        assert (enrichment["ran"], enrichment["saved"], enrichment["charged"]) == (3, 1, 3)
        assert enrichment["credits_left"] == 99_997
        assert enrichment["statuses"] == {"200": 3}
        assert stats["empty_fields"]["lead.Segment"] == 0
        assert stats["empty_fields"]["lead.Industry"] == stats["empty_fields"]["contact.Seniority"] == 1
        assert stats["deliveries"] == {"succeeded": 0, "failed": 0, "dropped": 0, "waiting": 0}


async def httpx_get(url):
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.get(url)


async def test_options_change_while_it_runs():
    async with running() as box:
        options = f"{box.url}/_sandbox/options"
        changed = await box.api.post(options, json={"credits": 1, "api_keys": ["api_other.key"]})
        assert changed.json() == {"changed": ["api_keys", "credits"]}
        assert box.world.credits == 1
        assert (await box.api.get("me/")).status_code == 401
        assert (await box.api.get("me/", auth=("api_other.key", ""))).status_code == 200
        refused = await box.api.post(options, json={"credit": 1})
        assert refused.status_code == 400
        assert "did you mean 'credits'" in refused.json()["errors"][0]
        assert (await box.api.post(options, content=b"x")).status_code == 400
        await box.api.post(options, json={"nothing_found_share": 0.5})
        assert box.world.credits == 1


@pytest.mark.parametrize("path", ["/_sandbox/nothing", "/_sandbox/", "/", "/api/v2/me/"])
async def test_what_is_not_there_is_a_404(path):
    async with running() as box:
        assert (await box.api.get(box.url + path)).status_code == 404


@pytest.mark.parametrize(
    "bad",
    [
        {"latency_min_seconds": 2, "latency_max_seconds": 1},
        {"nothing_found_share": 2},
        {"clock_scale": 0},
        {"credits": -1},
        {"delivery_concurrency": 0},
        {"kept_answer": "none"},
        {"limits": {"GET me": {"rate_per_second": 0, "burst": 1}}},
        {"limits": 5},
        {"zzz": 1},
    ],
)
def test_an_option_that_makes_no_sense_is_refused_in_a_sentence(bad):
    assert isinstance(changed_options(SandboxOptions(), bad), str)


def test_limits_are_merged_by_group():
    options = SandboxOptions(limits={"GET me": Limit(rate_per_second=1, burst=1)})
    changed = changed_options(options, {"limits": {"GET lead": {"rate_per_second": 2, "burst": 3}}})
    assert changed.limits == {
        "GET me": Limit(rate_per_second=1, burst=1),
        "GET lead": Limit(rate_per_second=2, burst=3),
    }


async def test_a_body_that_never_ends_is_cut_off():
    async def endless():
        for _ in range(100):
            yield b" " * 65536

    async with running() as box:
        assert (await box.api.post("lead/", content=endless())).status_code == 400
        assert box.world.leads == {}


async def test_a_taken_port_is_an_error_that_leaves_nothing_open():
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        async with serve_sandbox(make_world(), port=taken.getsockname()[1]):
            pytest.fail("served on a taken port")


async def test_answers_are_not_held_back_for_an_acknowledgement():
    async with running() as box:
        loop = asyncio.get_running_loop()
        took_seconds = []
        for _ in range(60):
            started = loop.time()
            await box.api.get("me/")
            took_seconds.append(loop.time() - started)
        # Nagle's algorithm against a delayed acknowledgement costs every answer but the first 40 ms.
        assert sorted(took_seconds)[5] < 0.03


async def test_five_hundred_calls_are_open_at_once_and_are_cut_when_it_stops():
    async with running(latency_min_seconds=3600.0, latency_max_seconds=3600.0) as box:
        lead = await box.lead()
        body = box.target(lead["id"])
        calls = [asyncio.create_task(box.raw_post("enrich_field/", body)) for _ in range(500)]
        await box.until(lambda: box.world.calls.open == 500)
    assert set(await asyncio.gather(*calls)) == {b""}
    assert (box.world.calls.ran, box.world.calls.open) == (0, 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_process_says_when_it_is_ready_and_ends_cleanly_on_a_signal(number):
    script = (
        "from service.sandbox.options import SandboxOptions\n"
        "from service.sandbox.server import run_sandbox\n"
        "run_sandbox(SandboxOptions(), '127.0.0.1', 0, lambda url: print(url, flush=True))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        url = process.stdout.readline().strip()
        reply = httpx.get(f"{url}/api/v1/me/", auth=(DEMO_API_KEY, ""), trust_env=False, timeout=30)
        process.send_signal(number)
        _, errors = process.communicate(timeout=20)
    assert reply.status_code == 200
    assert (process.returncode, errors) == (0, "")
