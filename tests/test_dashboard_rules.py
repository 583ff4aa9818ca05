"""The Rules page: rules as loaded, what each did and cost, what is wrong, and what an event would lead to."""

import json
from urllib.parse import quote

import msgspec
import pytest
from dashboard_box import NOW, Box
from ledger_box import LedgerBox
from receiver_box import sample, sample_event
from redis_shot import shot

from service import keys
from service.dashboard.asked import MOST_BODY_BYTES
from service.enrichment import State
from service.metrics_catalogue import DONE, Series, encode_series
from service.rules_in_force import InForce

RULES = """
version: 1
budget: {per_day: 500}
rules:
  - {name: Pitch, object: lead, field: Pitch, on: [created, "updated(url)"], settle: 20s,
     when: 'lead.url != "" && lead.status_label == "<b>"', budget: {per_day: 20}}
  - {name: Unknown, object: lead, field: Shoe size, on: [created], settle: 0s}
  - {name: Size, object: lead, field: Size, on: [created], settle: 0s, after: [Pitch], sample: 50%}
  - {name: Seniority, object: contact, field: Seniority, on: [created], enabled: false}
"""
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def box(async_redis):
    return Box(async_redis, rules=RULES)


async def explained(box, text):
    return await (await box.browser()).submit("/rules", "/rules/explain", {"event": text})


async def test_the_rules_stand_in_the_order_of_the_file(box):
    found = (await box.script().get("/api/rules")).json
    assert [one["name"] for one in found["rules"]] == ["Pitch", "Unknown", "Size", "Seniority"]
    page = (await (await box.browser()).get("/rules")).text
    places = [page.index(f'id="{name}"') for name in ("Pitch", "Unknown", "Size", "Seniority")]
    assert places == sorted(places)
    for words in (
        "updated(url)",
        "settles 20s",
        "after Pitch",
        "sample 50 %",
        "disabled",
        "20 credits a day",
    ):
        assert words in page
    assert "lead.status_label == &#34;&lt;b&gt;&#34;" in page


async def test_a_rule_that_cannot_run_says_why(box):
    found = (await box.script().get("/api/rules")).json
    problems = {one["name"]: one["problem"] for one in found["rules"]}
    assert "Shoe size" in problems.pop("Unknown")
    assert set(problems.values()) == {""}
    assert "Cannot run: " in (await (await box.browser()).get("/rules")).text


async def test_what_each_rule_did_and_cost_in_thirty_days(box, async_redis):
    await async_redis.hset(
        keys.cost("2026-10-14"), mapping={"Pitch\tPitch\tcalls": 10, "Pitch\tPitch\tfound": 6}
    )
    await async_redis.hset(
        keys.cost("2026-09-20"), mapping={"Pitch\tPitch\tempty": 2, "Size\tSize\tcalls": 1}
    )
    await async_redis.hset(keys.cost("2026-09-01"), mapping={"Pitch\tPitch\tcalls": 1000})
    await async_redis.hset(keys.METRICS, encode_series(Series(DONE.name, ("Pitch", "filled"))), 41)
    found = {one["name"]: one for one in (await box.script().get("/api/rules")).json["rules"]}
    assert found["Pitch"]["cost"]["paid"] == 10
    assert found["Pitch"]["cost"]["empty"] == 2
    assert found["Size"]["cost"]["calls"] == 1
    assert found["Pitch"]["outcomes"] == {"filled": 41}
    page = (await (await box.browser()).get("/rules")).text
    assert "75 %" in page
    assert '/activity?rule=Pitch&amp;state=filled"' in page


async def test_a_field_that_is_left_alone_and_a_used_up_budget_show(box, async_redis):
    until_ms = round(NOW * 1000) + 240_000
    facts = {"name": "Pitch", "rule": "Pitch", "timeouts": 5, "until_ms": until_ms}
    await async_redis.sadd(keys.BREAKERS, "cf_pitch")
    await async_redis.hset(keys.breaker("cf_pitch"), mapping=facts)
    await async_redis.set(keys.spent("rule:Pitch", "2026-10-14"), 20)
    page = (await (await box.browser()).get("/rules")).text
    assert "5 timeouts in a row" in page
    assert "in 4 min" in page
    assert "20 credits a day for rule Pitch: 20 spent" in page


async def test_a_rules_file_that_cannot_be_used_shows_its_problem(box, async_redis):
    seconds, _ = await async_redis.time()
    said = InForce(
        process="web on vm, process 1",
        digest="other",
        read_at_ms=1,
        problem=f"rules.yaml:3:1: {HOSTILE} is no key",
        said_at_seconds=seconds,
    )
    await async_redis.hset(keys.RULES, "web", msgspec.json.encode(said))
    page = (await (await box.browser()).get("/rules")).text
    assert "The rules file cannot be used." in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; is no key" in page


async def test_a_file_without_rules_says_what_that_means(async_redis):
    page = await (await Box(async_redis, rules="version: 1\nrules: []\n").browser()).get("/rules")
    assert "Nothing is enriched until it has one." in page.text


async def test_a_pasted_event_is_explained_with_what_conditions_saw(box):
    page = await explained(box, sample("02").decode())
    assert page.status == 200
    for words in ("lead.created", "https://halvorsen-tidewater.example", "lead.status_label", "Potential"):
        assert words in page.text
    assert '<span class="mark">true</span> <code>lead.url != &#34;&#34;</code>' in page.text
    assert '<span class="mark">false</span>' in page.text
    assert "20 left of 20 credits" not in page.text  # it is not called, so nothing is spent


async def test_json_and_page_explain_the_same(box):
    answer = await box.script().call("/api/rules/explain", json.loads(sample("02")))
    assert answer.status == 200
    assert [one["rule"] for one in answer.json["rules"]] == ["Pitch", "Unknown", "Size", "Seniority"]
    assert {one["rule"]: one["outcome"] for one in answer.json["rules"]}["Pitch"] == "unmet"
    saw = {one["name"]: one["value"] for one in answer.json["rules"][0]["condition"]["values"]}
    assert saw["lead.status_label"] == "Potential"
    bare = await box.script().call("/api/rules/explain", {"event": json.loads(sample("02"))["event"]})
    assert bare.json == answer.json


async def test_an_explanation_knows_what_the_ledger_has(async_redis):
    box, ledger = Box(async_redis), LedgerBox(async_redis)
    body = sample_event("02", object_id="lead_1")
    await ledger.finished(State.EMPTY, field_id="cf_pitch", rule="Pitch")
    page = await explained(box, body.decode())
    assert "the ledger has the field already" in page.text
    assert 'href="/records/lead_1">Its story' in page.text
    assert "20 left of 20 credits a day for rule Pitch" not in page.text
    assert "500 left of 500 credits a day for all rules" in page.text


@pytest.mark.parametrize("text", ["", "not JSON", "[]", '{"event": 1}', '{"a": 1}', "[" * 2000, HOSTILE])
async def test_what_is_no_event_is_told_apart_politely(text, box):
    page = await explained(box, text)
    assert page.status == 400
    assert "not an event of Close" in page.text or "not JSON" in page.text
    assert HOSTILE not in page.text
    assert box.reports == []


async def test_what_an_event_holds_is_escaped(async_redis):
    rules = "version: 1\nrules: [{name: Pitch, object: lead, field: Pitch, when: 'lead.url != \"x\"'}]\n"
    box = Box(async_redis, rules=rules)
    body = json.loads(sample("02"))
    body["event"]["data"]["url"] = HOSTILE
    body["event"]["id"] = f"ev_{HOSTILE}"
    page = await explained(box, json.dumps(body))
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page.text
    assert "<script>alert" not in page.text


async def test_an_event_that_is_too_large_for_the_form_fits_the_api(box):
    body = json.loads(sample("02"))
    body["event"]["data"]["description"] = "x" * MOST_BODY_BYTES
    assert (await explained(box, json.dumps(body))).status == 413
    assert (await box.script().call("/api/rules/explain", body)).status == 200


async def test_explaining_changes_nothing_and_needs_a_token_of_the_page(box, async_redis):
    browser = await box.browser()
    before = await shot(async_redis)
    refused = await browser.post("/rules/explain", {"event": sample("02").decode()})
    assert refused.status == 403
    assert (await explained(box, sample("02").decode())).status == 200
    assert (await browser.get("/rules/explain")).status == 200
    assert await shot(async_redis) == before


async def test_a_rule_with_an_odd_name_has_working_links(async_redis):
    name = 'A "rule" & <more>?'
    rules = json.dumps({"version": 1, "rules": [{"name": name, "object": "lead", "field": "Pitch"}]})
    page = await (await Box(async_redis, rules=rules).browser()).get("/rules")
    assert f"/activity?rule={quote(name)}" in page.text
    assert "<more>" not in page.text


async def test_how_far_back_the_numbers_go_stands_before_them_not_under_the_last(box):
    page = await (await box.browser()).get("/rules")
    assert 0 < page.text.index("The last 30 days") < page.text.index("Hit rate")
