"""The Activity page: newest changes, filters, pages by cursors, and finding one record."""

import asyncio
import json
import re

import pytest
import redis
import redis.asyncio
from dashboard_box import Box
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger_box import LedgerBox

from service import keys
from service.dashboard import activity as subject
from service.dashboard.activity import Filter, read_activity
from service.dashboard.pages_overview import live_regions
from service.enrichment import State
from service.sought import sought_id

HOSTILE = "<script>alert(1)</script>"
LEAD = "lead_M3mBxgm1KvKx5ghAbbnJlL43xA40w7S3sc5EdurJySW"


@pytest.fixture
def box(async_redis):
    return Box(async_redis)


@pytest.fixture
def ledger(async_redis):
    return LedgerBox(async_redis)


def fact(number, *, of, state="filled", rule="Pitch", field="Pitch", obj="lead_1", **more):
    return json.dumps(
        {"at": 1000 + number, "id": of, "object": obj, "field": field, "rule": rule, "state": state, **more}
    )


async def told(client, *facts):
    async with client.pipeline(transaction=False) as pipeline:
        for number, one in enumerate(facts):
            pipeline.xadd(keys.HISTORY, {"fact": one}, id=f"{1000 + number}-0")
        await pipeline.execute()


async def calls_of(client, command):
    stats = await client.info("commandstats")
    return stats.get(f"cmdstat_{command}", {}).get("calls", 0)


async def test_an_enrichment_has_one_row_with_its_newest_change(box, ledger):
    await ledger.finished(State.FILLED)
    browser = await box.browser()
    page = await browser.get("/activity")
    assert page.status == 200
    assert page.text.count("st-filled") == 1
    assert "st-calling" not in page.text
    answer = (await box.script().get("/api/activity")).json
    assert [(one["state"], one["older"]) for one in answer["changes"]] == [("filled", 2)]
    assert answer["next"] is None


async def test_a_change_that_is_overtaken_says_what_is_now(box, ledger):
    await ledger.finished(State.EMPTY)
    browser = await box.browser()
    page = await browser.get("/activity?state=calling")
    assert re.search(r"st-calling.*now empty", page.text)


async def test_without_any_change_the_page_says_what_would_bring_one(box):
    browser = await box.browser()
    assert "Nothing has happened yet" in (await browser.get("/activity")).text


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("", ["d", "c", "b", "a"]),
        ("rule=Size", ["c"]),
        ("field=PITCH", ["d", "b", "a"]),
        ("state=empty", ["b"]),
        ("object_type=contact", ["d"]),
        ("object_type=lead&rule=Pitch", ["b", "a"]),
        ("rule=Nobody", []),
        ("rule=Pitch&state=dead", []),
    ],
)
async def test_filters(query, wanted, box, async_redis):
    await told(
        async_redis,
        fact(0, of="a"),
        fact(1, of="b", state="empty"),
        fact(2, of="c", rule="Size", field="Size"),
        fact(3, of="d", obj="cont_1"),
        "not a fact",
        json.dumps({"id": "e", "of": "a newer release"}),
    )
    answer = await box.script().get(f"/api/activity?{query}")
    assert [one["id"] for one in answer.json["changes"]] == wanted
    page = await (await box.browser()).get(f"/activity?{query}")
    assert page.text.count('scope="row"') == len(wanted)


@pytest.mark.parametrize(
    "query", ["before=yesterday", "state=happy", "limit=0", "limit=9000", "object_type=deal"]
)
async def test_a_wrong_query_is_refused(query, box):
    assert (await box.script().get(f"/api/activity?{query}")).status == 400
    assert (await (await box.browser()).get(f"/activity?{query}")).status == 400


facts_strategy = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.sampled_from(["Pitch", "Size"]), st.booleans()), max_size=40
)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(facts=facts_strategy, sizes=st.tuples(st.integers(1, 7), st.integers(1, 9), st.integers(1, 12)))
def test_walking_all_pages_gives_every_fact_once(facts, sizes, redis_url, monkeypatch):
    most, at_once, looked_at = sizes
    monkeypatch.setattr(subject, "AT_ONCE", at_once)
    monkeypatch.setattr(subject, "MOST_LOOKED_AT", looked_at)

    async def walk():
        async with redis.asyncio.Redis.from_url(redis_url) as client:
            await client.delete(keys.HISTORY)
            await told(
                client,
                *("broken" if bad else fact(n, of=of, rule=rule) for n, (of, rule, bad) in enumerate(facts)),
            )
            box, pages, cursor = Box(client), [], None
            while True:
                page = await read_activity(box.desk, Filter(rule="Pitch"), most=most, before=cursor)
                pages.append(page)
                if page.next is None:
                    return pages
                assert cursor is None or int(page.next[:4]) < int(cursor[:4])
                cursor = page.next

    pages = asyncio.run(walk())
    wanted = [(of, 1000 + n) for n, (of, rule, bad) in enumerate(facts) if rule == "Pitch" and not bad]
    shown = [(one.id, one.at_ms) for page in pages for one in page.changes]
    assert shown == sorted(set(shown), key=lambda one: -one[1])
    assert set(shown) <= set(wanted)
    assert sum(1 + one.older for page in pages for one in page.changes) == len(wanted)
    for page in pages:
        ids = [one.id for one in page.changes]
        assert len(ids) == len(set(ids)) <= most


async def test_a_search_in_vain_ends_after_some_thousand_facts_and_can_go_on(box, async_redis):
    await told(async_redis, *(fact(n, of="a") for n in range(6_000)))
    before = await calls_of(async_redis, "xrevrange")
    page = await (await box.browser()).get("/activity?rule=Size")
    assert await calls_of(async_redis, "xrevrange") - before == 10
    assert "None of the newest fit" in page.text
    link = re.search(r'href="([^"]*)" rel="next">Look further back', page.text)
    further = await (await box.browser()).get(link[1].replace("&amp;", "&"))
    assert "None of them fit" in further.text
    assert 'rel="next"' not in further.text


async def test_older_and_newest_lead_through_the_pages(box, async_redis):
    await told(async_redis, *(fact(n, of=f"e{n}", field=f"Field {n}") for n in range(60)))
    browser = await box.browser()
    first = await browser.get("/activity")
    older = re.search(r'href="([^"]*)" rel="next"', first.text)[1].replace("&amp;", "&")
    second = await browser.get(older)
    assert "Field 59" in first.text
    assert "Field 9<" not in first.text
    assert "Field 9<" in second.text
    assert 'href="/activity" rel="first"' in second.text


@pytest.mark.parametrize(
    "typed",
    [LEAD, f"  {LEAD} ", f"https://app.close.com/lead/{LEAD}/", f"https://app.close.com/lead/{LEAD}/edit"],
)
async def test_a_record_is_found_by_what_people_paste(typed, box, ledger):
    await ledger.finished(State.FILLED, object_id=LEAD)
    await ledger.finished(State.FILLED, object_id="lead_other")
    assert sought_id(typed) == LEAD
    answer = await box.script().get(f"/api/activity?object={typed.replace(' ', '%20')}")
    assert [one["object_id"] for one in answer.json["changes"]] == [LEAD]
    page = await (await box.browser()).get(f"/activity?object={typed.replace(' ', '%20')}")
    assert f'href="/records/{LEAD}"' in page.text


async def test_a_record_is_found_by_its_own_index_and_not_in_the_history(box, ledger, async_redis):
    entry = await ledger.finished(State.FILLED, object_id=LEAD)
    await async_redis.delete(keys.HISTORY)
    before = await calls_of(async_redis, "xrevrange")
    for wanted in (LEAD, entry.id):
        answer = await box.script().get(f"/api/activity?object={wanted}&state=filled")
        assert [one["id"] for one in answer.json["changes"]] == [entry.id]
    assert await calls_of(async_redis, "xrevrange") == before
    assert (await box.script().get(f"/api/activity?object={LEAD}&state=dead")).json["changes"] == []


async def test_of_an_unknown_record_it_says_so(box):
    page = await (await box.browser()).get(f"/activity?object={HOSTILE}")
    assert "Nothing is known of &lt;script&gt;" in page.text
    assert HOSTILE not in page.text


async def test_what_comes_from_outside_is_escaped(box, ledger, async_redis):
    entry = await ledger.plan()
    await ledger.settle(await ledger.calling(entry.id), State.FILLED, value=[HOSTILE, "b"], reason=HOSTILE)
    await async_redis.hset(keys.entry(entry.id), "rule", HOSTILE)
    await async_redis.xadd(keys.HISTORY, {"fact": fact(1, of="x", rule=HOSTILE, field=HOSTILE, obj=HOSTILE)})
    page = await (await box.browser()).get(f"/activity?field={HOSTILE}")
    every = await (await box.browser()).get("/activity")
    for one in (page, every):
        assert one.status == 200
        assert "<script>alert" not in one.text
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in one.text


async def test_an_open_page_can_tell_how_many_changes_are_newer(box, ledger):
    await ledger.finished(State.FILLED)
    page = await (await box.browser()).get("/activity")
    shown = int(re.search(r'data-added="(\d+)"', page.text)[1])
    await ledger.finished(State.FILLED, object_id="lead_2")
    regions = await live_regions(box.desk, box.site._look)
    assert int(regions["live-added"]) - shown == 3


async def test_where_a_filter_is_on_it_is_not_told_how_many_are_new_of_all(box, ledger):
    await ledger.finished(State.FILLED)
    assert "show the newest" not in (await (await box.browser()).get("/activity?state=filled")).text
