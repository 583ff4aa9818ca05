"""The Record page: the whole story of a lead, a contact or one enrichment."""

import re

import pytest
from dashboard_box import Box
from ledger_box import LEAD, LedgerBox, event, wanted

from service import keys
from service.dashboard.records import close_url
from service.enrichment import State
from service.planning import PlannedEnrichment
from service.rules import Mode, ObjectType, Priority, Target

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def box(async_redis):
    return Box(async_redis)


@pytest.fixture
def ledger(async_redis):
    return LedgerBox(async_redis)


async def an_eventful_lead(ledger):
    """A lead whose field took three attempts; the second call may have run."""
    entry = await ledger.plan()
    claim = await ledger.calling(entry.id)
    await ledger.postpone(claim, reason="Close answered 500", failed=True, delay_seconds=0)
    claim = await ledger.calling(entry.id)
    await ledger.postpone(claim, reason="timed out", ambiguous=True)
    claim = await ledger.calling(entry.id)
    await ledger.settle(
        claim, State.FILLED, value=["Bakeries", "Food"], confidence="high", reasoning="Their site says so."
    )
    return await ledger.entry(entry.id)


async def test_it_tells_each_attempt_why_it_waited_and_what_came_of_it(box, ledger):
    entry = await an_eventful_lead(ledger)
    page = await (await box.browser()).get(f"/records/{LEAD}")
    assert page.status == 200
    told = [
        "by rule Industry for created event ev_1",
        "attempt 1",
        "Close answered 500",
        "attempt 2",
        "timed out, the call may have run, so the field is read back first",
        "attempt 3",
    ]
    places = [page.text.index(words) for words in told]
    assert places == sorted(places)
    assert "+0.0 s" not in page.text
    for words in ("Bakeries, Food", "high", "Their site says so.", "3 credits, 3 attempts", entry.id):
        assert words in page.text
    found = (await box.script().get(f"/api/records/{LEAD}")).json
    (one,) = found["enrichments"]
    assert one["value"] == ["Bakeries", "Food"]
    assert found["credits"] == one["credits"] == 3
    assert [step["state"] for step in one["steps"]] == [
        "planned",
        *("calling", "waiting", "calling", "waiting", "calling"),
        "filled",
    ]


async def test_what_is_still_to_come_stands_last(box, ledger):
    await ledger.plan(settle_seconds=20)
    found = (await box.script().get(f"/api/records/{LEAD}")).json
    (one,) = found["enrichments"]
    assert [(step["state"], step["after_ms"]) for step in one["steps"]] == [("planned", 0), ("due", 20_000)]
    assert one["meaning"].startswith("waits")


async def test_an_enrichment_is_shown_by_its_own_id_and_by_a_job_of_it(box, ledger):
    entry = await ledger.plan()
    await ledger.plan(field_id="cf_size")
    browser = await box.browser()
    for wanted_id in (entry.id, entry.job_id):
        page = await browser.get(f"/records/{wanted_id}")
        assert page.text.count('class="card story"') == 1
        assert f'href="/records/{LEAD}">All of this record' in page.text
    assert (await browser.get(f"/records/{LEAD}")).text.count('class="card story"') == 2


@pytest.mark.parametrize("wanted_id", ["lead_unknown", "nonsense", HOSTILE.replace("/", ""), "a" * 20])
async def test_of_what_nobody_knows_it_says_so(wanted_id, box):
    page = await (await box.browser()).get(f"/records/{wanted_id}")
    assert page.status == 404
    assert "Nothing is known of it" in page.text
    assert "<script>alert" not in page.text
    answer = await box.script().get(f"/api/records/{wanted_id}")
    assert answer.status == 404
    assert "no rule has wanted it" in answer.json["error"]


async def test_a_contact_leads_to_its_lead_in_close(box, ledger):
    contact = PlannedEnrichment(
        target=Target(
            rule="Seniority",
            object_type=ObjectType.CONTACT,
            field_id="cf_seniority",
            field_name="Seniority",
            mode=Mode.FILL,
            settle_seconds=0.0,
            priority=Priority.NORMAL,
        ),
        object_id="cont_1",
        lead_id="lead_9",
        judged=True,
        reopens=False,
    )
    await ledger.accept(event(object_id="cont_1"), contact)
    page = await (await box.browser()).get("/records/cont_1")
    assert 'href="https://app.close.com/lead/lead_9/"' in page.text
    assert "Open its lead in Close" in page.text
    assert 'href="/records/lead_9"' in page.text


@pytest.mark.parametrize("lead_id", [None, "", "cont_1", "lead_1/../../evil", "javascript:alert(1)"])
def test_only_a_lead_is_linked_to_close(lead_id):
    assert close_url("https://app.close.com", lead_id) == ""


async def test_a_dead_letter_offers_what_can_be_done_at_its_price(box, ledger):
    entry = await ledger.finished(State.DEAD)
    page = await (await box.browser()).get(f"/records/{LEAD}")
    link = f"/attention/dead/retry?id={entry.id}&amp;back=/records/{LEAD}"
    assert f'href="{link}"' in page.text
    assert "at most 1 credit" in page.text
    await ledger.finished(State.FILLED, object_id="lead_2")
    assert "/attention/dead/" not in (await (await box.browser()).get("/records/lead_2")).text


async def test_what_the_burst_guard_holds_leads_to_its_release(box, ledger, async_redis):
    entry = await ledger.plan()
    await async_redis.zadd(keys.HELD, {entry.id: 1})
    assert 'href="/attention#held"' in (await (await box.browser()).get(f"/records/{LEAD}")).text


async def test_an_enrichment_that_was_planned_anew_says_planned_once(box, ledger):
    await ledger.finished(State.FILLED)
    await ledger.accept(event("ev_2", stamp="2026-10-15T00:00:00"), wanted(reopens=True))
    (one,) = (await box.script().get(f"/api/records/{LEAD}")).json["enrichments"]
    assert [step["state"] for step in one["steps"]] == ["calling", "filled", "planned"]


async def test_what_comes_from_outside_is_escaped(box, ledger, async_redis):
    entry = await ledger.plan()
    claim = await ledger.calling(entry.id)
    await ledger.settle(
        claim, State.FILLED, value=HOSTILE, reasoning=HOSTILE, confidence=HOSTILE, reason=HOSTILE
    )
    await async_redis.hset(
        keys.entry(entry.id),
        mapping={
            "rule": HOSTILE,
            "name": HOSTILE,
            "event": HOSTILE,
            "before": f'"{HOSTILE}"',
            "lead": HOSTILE,
        },
    )
    await async_redis.rpush(keys.story(entry.id), "not a fact")
    page = await (await box.browser()).get(f"/records/{LEAD}")
    assert page.status == 200
    assert "<script>alert" not in page.text
    assert len(re.findall("&lt;script&gt;alert", page.text)) >= 8
    assert "app.close.com" not in page.text
