"""The Attention page: what waits for a person, at what price, and what a person does about it."""

import html
import json
import re

import pytest
from dashboard_box import NOW, Box
from ledger_box import LedgerBox
from receiver_box import captured_log
from redis_shot import shot

from service import jobs, keys
from service.brakes import PERSON
from service.dashboard import acts
from service.dashboard.contents import ROUTES
from service.dashboard.routes import Form, Page
from service.enrichment import State
from service.quarantine import MOST_BODY_BYTES, quarantine

HOSTILE = "<script>alert(1)</script>"
BODY = b'{"note": "Jane Example"}'


@pytest.fixture
def box(async_redis):
    return Box(async_redis)


@pytest.fixture
def ledger(async_redis):
    return LedgerBox(async_redis)


@pytest.fixture
async def browser(box):
    return await box.browser()


async def dead_letters(ledger):
    """Three of Pitch, of which one is rejected, and two of Size."""
    found = {}
    for name, rule, state, reason in (
        ("a", "Pitch", State.DEAD, "Close answered 500"),
        ("b", "Pitch", State.DEAD, "timed out"),
        ("c", "Pitch", State.REJECTED, "the field has no guidance"),
        ("d", "Size", State.DEAD, "timed out"),
        ("e", "Size", State.HELD, "timed out"),
    ):
        entry = await ledger.plan(object_id=f"lead_{name}", rule=rule)
        await ledger.settle(await ledger.calling(entry.id), state, reason=reason)
        found[name] = entry.id
    return found


async def hold(ledger, count, *, rule="Pitch"):
    """What the burst guard holds."""
    ids = []
    for number in range(count):
        entry = await ledger.plan(object_id=f"lead_held_{rule}_{number}", rule=rule)
        await ledger.redis.delete(jobs.queue_key(entry.queue))
        # two may have been planned in the same millisecond
        await ledger.redis.zadd(keys.HELD, {entry.id: entry.planned_ms + number})
        ids.append(entry.id)
    return ids


async def states(ledger, ids):
    return {name: str((await ledger.entry(one)).state) for name, one in ids.items()}


def fields_of(page):
    """The hidden fields of the form that a page asks with."""
    form = re.search(r'<section class="card confirm">.*?</section>', page.text, re.DOTALL)[0]
    return dict(re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)"', form))


async def agree(browser, path, **more):
    """Look at what would happen and say yes."""
    page = await browser.get(path)
    return page, await browser.post(path.partition("?")[0], {**fields_of(page), **more})


async def test_where_nothing_waits_every_part_says_so(browser):
    page = await browser.get("/attention")
    assert page.status == 200
    for words in (
        "Nothing waits for you",
        "Calls leave",
        "No dead letters",
        "The burst guard holds nothing",
        "The quarantine is empty",
        "No field is left alone",
    ):
        assert words in page.text


async def test_each_part_has_its_count_reason_and_price(browser, ledger, async_redis):
    await dead_letters(ledger)
    await hold(ledger, 3)
    await quarantine(async_redis, body=BODY, reason="event.object_id: expected a text")
    await async_redis.sadd(keys.BREAKERS, "cf_pitch")
    facts = {"name": "Pitch", "rule": "Pitch", "timeouts": 5, "until_ms": round(NOW * 1000) + 60_000}
    await async_redis.hset(keys.breaker("cf_pitch"), mapping=facts)
    await ledger.ledger.brakes.halt(reason="Close refuses the API key", kind="key")
    page = (await browser.get("/attention")).text
    for words in (
        "All calls are halted",
        "Close refuses the API key",
        "5 dead letters",
        "a retry costs at most 5 credits",
        "Close answered 500",
        "a call may have run: a retry reads the field back first",
        "3 enrichments, at most 3 credits",
        "1 signed delivery",
        "event.object_id: expected a text",
        "Tried again",
    ):
        assert words in page
    assert "Jane Example" not in page
    for anchor in ("halted", "dead", "held", "quarantine", "breakers"):
        assert f'id="{anchor}"' in page


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("", "abcde"),
        ("rule=Pitch", "abc"),
        ("reason=TIMED", "bde"),
        ("state=rejected", "c"),
        ("object=lead_d", "d"),
        ("rule=Size&state=held", "e"),
        ("older=1d", ""),
        ("newer=1h", "abcde"),
    ],
)
async def test_filters_choose_as_the_command_does(query, wanted, box, browser, ledger):
    await dead_letters(ledger)
    page = await browser.get(f"/attention?{query}")
    shown = re.findall(r'data-name="Record"><a class="id" href="/records/lead_(\w)"', page.text)
    assert "".join(sorted(shown)) == wanted
    count = (await box.script().get(f"/api/attention/dead-letters/count?{query}")).json
    assert count["count"] == len(wanted)
    if wanted:
        link = re.search(r'href="(/attention/dead/retry[^"]*)">Retry (\d+)', page.text)
        assert int(link[2]) == len(wanted)
        confirm = await browser.get(link[1].replace("&amp;", "&"))
        plural = "" if len(wanted) == 1 else "s"
        assert f"Retry {len(wanted)} dead letter{plural}?" in confirm.text
        assert f"At most {len(wanted)} credit{plural}" in confirm.text


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("state=filled", "state: 'filled' is not one of dead, held, rejected."),
        ("older=soon", "older: expected a time such as 12h or 3d."),
        ("after=here", "after: expected the `next` of a page."),
        ("limit=0", "limit: expected a whole number from 1 to 200."),
        ("bodies=x", "bodies: expected the id of a quarantined delivery."),
        (f"rule={'x' * 201}", "rule: expected a text of at most 200 characters."),
    ],
)
async def test_a_wrong_query_is_refused_in_words_for_people(query, words, browser):
    page = await browser.get(f"/attention?{query}")
    assert page.status == 400
    assert words in html.unescape(page.text)


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"ids": ["A"]}, "ids[0]: expected the id of an enrichment"),
        ({"ids": []}, "ids: expected a list of 1 to 500"),
        ({"most": "3"}, "most: expected a whole number from 1 to 5000"),
        ({"everything": 1}, "everything: expected true or false"),
        ({"state": 7}, "state: expected one of dead, held, rejected"),
    ],
)
async def test_a_wrong_body_is_refused_in_the_same_words(wish, words, box):
    refused = await box.script().call("/api/attention/dead-letters/drop", wish)
    assert (refused.status, refused.json) == (400, {"error": words})


async def test_pages_of_dead_letters_show_each_once(box, ledger):
    ids = await dead_letters(ledger)
    seen, after = [], ""
    while after is not None:
        page = (await box.script().get(f"/api/attention/dead-letters?limit=2{after}")).json
        seen += [one["id"] for one in page["letters"]]
        after = f"&after={page['next']}" if page["next"] else None
    assert sorted(seen) == sorted(ids.values())
    assert page["all"] == 5


async def test_a_retry_plans_what_was_shown_and_says_so(browser, ledger):
    ids = await dead_letters(ledger)
    confirm, answer = await agree(browser, "/attention/dead/retry?rule=Pitch&state=dead")
    assert "Retry 2 dead letters?" in confirm.text
    assert (answer.status, answer.header("location")) == (303, "/attention#dead")
    assert await states(ledger, ids) == {
        "a": "planned",
        "b": "planned",
        "c": "rejected",
        "d": "dead",
        "e": "held",
    }
    assert len(await ledger.queued(jobs.BULK_QUEUE)) == 2
    assert "Retried 2 dead letters." in (await browser.get("/attention")).text
    assert "Retried" not in (await browser.get("/attention")).text


async def test_a_retry_leaves_alone_what_has_ended_since_it_was_shown(browser, ledger):
    await dead_letters(ledger)
    page = await browser.get("/attention/dead/retry?rule=Size")
    later = await ledger.plan(object_id="lead_later", rule="Size")
    await ledger.settle(await ledger.calling(later.id), State.DEAD)
    agreed = fields_of(page)
    await ledger.redis.zadd(keys.ATTENTION, {later.id: int(agreed["until_ms"]) + 1})
    await browser.post("/attention/dead/retry", agreed)
    assert (await ledger.entry(later.id)).state == State.DEAD
    assert len(await ledger.queued(jobs.BULK_QUEUE)) == 2


async def test_one_is_retried_from_its_record_and_one_is_dropped(browser, ledger):
    ids = await dead_letters(ledger)
    _, answer = await agree(browser, f"/attention/dead/retry?id={ids['a']}&back=/records/lead_a")
    assert answer.header("location") == "/records/lead_a"
    confirm, _ = await agree(browser, f"/attention/dead/drop?id={ids['b']}")
    assert "Drop 1 dead letter?" in confirm.text
    assert "No credit." in confirm.text
    assert await states(ledger, ids) | {"a": "planned", "b": "dead"} == await states(ledger, ids)
    assert await ledger.redis.zscore(keys.ATTENTION, ids["b"]) is None
    assert "dropped by a person" in (await browser.get("/records/lead_b")).text


async def test_the_way_back_stays_on_this_site(browser):
    for back in ("https://evil.example", "//evil.example", "/records/../logout"):
        assert (await browser.get(f"/attention/dead/retry?back={back}")).status == 400


async def test_what_is_gone_by_now_has_no_button(browser):
    page = await browser.get("/attention/dead/retry?rule=Nobody")
    assert "<h1>Nothing to retry</h1>" in page.text
    assert "There is nothing like that" in page.text
    assert '<input type="hidden" name="most"' not in page.text
    assert "<h1>Nothing to drop</h1>" in (await browser.get("/attention/dead/drop")).text
    assert "<h1>Nothing to release</h1>" in (await browser.get("/attention/held/release")).text


async def test_a_release_lets_go_the_oldest_up_to_a_limit(browser, ledger):
    ids = [*await hold(ledger, 3), *await hold(ledger, 2, rule="Size")]
    confirm, answer = await agree(browser, "/attention/held/release?rule=Pitch", limit="2")
    assert "At most 3 credits" in confirm.text
    assert answer.header("location") == "/attention#held"
    assert "Released 2 held enrichments." in (await browser.get("/attention")).text
    left = {one.decode() for one in await ledger.redis.zrange(keys.HELD, 0, -1)}
    assert left == set(ids[2:])


async def leave_alone(ledger, field_id="cf_pitch", name="Pitch"):
    """Have a field's breaker open for an hour more."""
    until_ms = await ledger.now_ms() + 3_600_000
    await ledger.redis.sadd(keys.BREAKERS, field_id)
    facts = {"name": name, "rule": name, "timeouts": 5, "until_ms": until_ms}
    await ledger.redis.hset(keys.breaker(field_id), mapping=facts)


async def test_a_field_that_is_left_alone_is_tried_at_once_for_one_credit(box, browser, ledger):
    box.clock.seconds = await ledger.now_ms() / 1000
    await leave_alone(ledger)
    path = "/attention/breakers/try?field_id=cf_pitch"
    assert f'href="{path}" aria-label="Try Pitch now"' in (await browser.get("/attention")).text
    confirm, answer = await agree(browser, path)
    for words in ("Try Pitch now?", "At most 1 credit", "another timeout begins a longer pause"):
        assert words in confirm.text
    assert answer.header("location") == "/attention#breakers"
    (found,) = await ledger.ledger.brakes.open_breakers()
    assert found.until_ms <= await ledger.now_ms()
    box.clock.seconds = await ledger.now_ms() / 1000 + 1
    page = (await browser.get("/attention")).text
    assert "The next call for that field is tried at once." in page
    assert "with the next one" in page
    assert path not in page


async def test_what_is_not_left_alone_cannot_be_tried(browser, ledger):
    page = await browser.get("/attention/breakers/try?field_id=cf_pitch")
    assert "<h1>Nothing to try</h1>" in page.text
    csrf = (await browser.get("/attention/halt")).csrf
    await browser.post("/attention/breakers/try", {"field_id": "cf_pitch", "csrf": csrf})
    assert "nothing has changed" in (await browser.get("/attention")).text
    assert not await ledger.redis.exists(keys.breaker("cf_pitch"))


async def test_halt_and_resume(browser, ledger):
    confirm, _ = await agree(browser, "/attention/halt", reason="a strange import")
    assert "Halt all calls?" in confirm.text
    halt = await ledger.ledger.brakes.halted()
    assert (halt.reason, halt.kind) == ("a strange import", PERSON)
    assert "By a person" in (await browser.get("/attention")).text
    confirm, _ = await agree(browser, "/attention/resume")
    assert "Halted because: a strange import" in confirm.text
    assert await ledger.ledger.brakes.halted() is None
    assert "Calls leave again." in (await browser.get("/attention")).text
    assert "Calls are not halted" in (await browser.get("/attention/resume")).text


async def test_quarantined_deliveries_are_retried_deleted_and_shown(browser, async_redis):
    first, second, cut = [
        await quarantine(async_redis, body=body, reason="unreadable")
        for body in (BODY, b"{}", b"x" * (MOST_BODY_BYTES + 1))
    ]
    shown = await browser.get(f"/attention/quarantine/show/{first}")
    assert "Jane Example" in shown.text
    assert "Personal: the body may hold data about people" in shown.text
    page = (await browser.get("/attention")).text
    assert f"/attention/quarantine/retry?ids={second},{first}" in page
    assert f"/attention/quarantine/drop?ids={cut},{second},{first}" in page
    _, answer = await agree(browser, f"/attention/quarantine/retry?ids={first},{cut}")
    assert answer.header("location") == "/attention#quarantine"
    notice = (await browser.get("/attention")).text
    assert "Handed 1 delivery to web. Of 1 only the start was kept" in notice
    assert await async_redis.llen(keys.BACKLOG) == 1
    confirm, _ = await agree(browser, f"/attention/quarantine/drop?ids={second}")
    assert "Delete 1 delivery for good?" in confirm.text
    assert await async_redis.xlen(keys.QUARANTINE) == 1
    assert (await browser.get(f"/attention/quarantine/show/{second}")).status == 404


async def test_pages_of_quarantine_show_each_once(box, browser, async_redis):
    ids = [await quarantine(async_redis, body=BODY, reason="unreadable") for _ in range(45)]
    seen, before = [], ""
    while before is not None:
        page = (await box.script().get(f"/api/attention/quarantine{before}")).json
        seen += [one["id"] for one in page["bodies"]]
        before = f"?before={page['next']}" if page["next"] else None
    assert seen == ids[::-1]
    older = re.search(r'href="(/attention\?bodies=[^"]*)#quarantine"', (await browser.get("/attention")).text)
    assert ids[24] in (await browser.get(older[1])).text


async def everything(ledger):
    """All that can be acted on, and the paths of forms with what they would do."""
    ids = await dead_letters(ledger)
    await hold(ledger, 2)
    body = await quarantine(ledger.redis, body=BODY, reason="unreadable")
    await ledger.ledger.brakes.halt(reason="a test", kind="key")
    await leave_alone(ledger)
    letters = {"id": ids["a"], "most": "5", "until_ms": str(10**14)}
    return {
        "/attention/dead/retry": letters,
        "/attention/dead/drop": letters,
        "/attention/held/release": {"limit": "2"},
        "/attention/halt": {"reason": "forged"},
        "/attention/resume": {},
        "/attention/breakers/try": {"field_id": "cf_pitch"},
        "/attention/quarantine/retry": {"ids": body},
        "/attention/quarantine/drop": {"ids": body},
    }


async def test_a_forged_form_changes_nothing(box, browser, ledger):
    forms = await everything(ledger)
    declared = {one.path for one in ROUTES if isinstance(one, Form) and one.path.startswith("/attention")}
    assert set(forms) == declared
    token = (await browser.get("/attention/halt")).csrf
    other = (await (await box.browser()).get("/attention/halt")).csrf
    before = await shot(ledger.redis)
    for path, fields in forms.items():
        for forged in ({}, {"csrf": ""}, {"csrf": other}):
            assert (await browser.post(path, fields | forged)).status == 403
        answer = await browser.post(path, fields | {"csrf": token}, origin="https://evil.example")
        assert answer.status == 403
        assert (await box.stranger().post(path, fields | {"csrf": token})).status == 401
    assert await shot(ledger.redis) == before


async def test_looking_changes_nothing(box, browser, ledger):
    forms = await everything(ledger)
    before = await shot(ledger.redis)
    for path, fields in forms.items():
        query = "&".join(f"{name}={value}" for name, value in fields.items())
        assert (await browser.get(f"{path}?{query}")).status == 200
    for one in ROUTES:
        if isinstance(one, Page) and "{" not in one.path:
            await browser.get(one.path)
    for call in ("dead-letters", "dead-letters/count", "held", "brakes", "quarantine"):
        assert (await box.script().get(f"/api/attention/{call}")).status == 200
    assert await shot(ledger.redis) == before


async def test_each_act_is_a_line_in_the_log_without_anything_personal(browser, ledger):
    ids = await dead_letters(ledger)
    await hold(ledger, 2)
    body = await quarantine(ledger.redis, body=BODY, reason="unreadable")
    await leave_alone(ledger)
    with captured_log() as stream:
        await agree(browser, "/attention/dead/retry?rule=Pitch&reason=Jane+answered")
        await agree(browser, f"/attention/dead/drop?id={ids['d']}")
        await agree(browser, "/attention/held/release", rule="Jane")
        await agree(browser, "/attention/halt", reason="Jane asked for it")
        await agree(browser, "/attention/resume")
        await agree(browser, "/attention/breakers/try?field_id=cf_pitch")
        csrf = (await browser.get("/attention/halt")).csrf
        await browser.post("/attention/breakers/try", {"field_id": "Jane", "csrf": csrf})
        await agree(browser, f"/attention/quarantine/retry?ids={body}")
        await agree(browser, f"/attention/quarantine/drop?ids={body}")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    told = [(one["event"], one.get("count")) for one in lines if one["logger"] == "dashboard"]
    assert told == [
        ("dead letters dropped", 1),
        ("held enrichments released", 0),
        ("calls halted", None),
        ("calls resumed", None),
        ("a field's pause ended", None),
        ("a field's pause ended", None),
        ("quarantined deliveries retried", 1),
        ("quarantined deliveries dropped", 0),
    ]
    assert all(re.fullmatch("dashboard session [0-9a-f]{8}", one["by"]) for one in lines)
    assert "Jane" not in stream.getvalue()


@pytest.mark.parametrize(
    ("wish", "left"),
    [
        ({"ids": ["a"]}, "bcde"),
        ({"rule": "Pitch"}, "de"),
        ({"rule": "Pitch", "most": 2}, "ade"),
        ({"everything": True}, ""),
    ],
)
async def test_scripts_retry_what_they_name(wish, left, box, ledger):
    ids = await dead_letters(ledger)
    if "ids" in wish:
        wish = {"ids": [ids[name] for name in wish["ids"]]}
    answer = await box.script().call("/api/attention/dead-letters/retry", wish)
    assert answer.json == {"count": 5 - len(left)}
    after = await states(ledger, ids)
    assert "".join(name for name, state in after.items() if state != "planned") == left


@pytest.mark.parametrize(
    "wish", [{}, {"ids": ["a"], "rule": "Pitch"}, {"ids": []}, {"rule": "Pitch", "everything": True}]
)
async def test_a_script_that_is_not_clear_changes_nothing(wish, box, ledger):
    await dead_letters(ledger)
    before = await shot(ledger.redis)
    for verb in ("retry", "drop"):
        assert (await box.script().call(f"/api/attention/dead-letters/{verb}", wish)).status == 400
    assert await shot(ledger.redis) == before


async def test_scripts_do_what_the_page_does(box, ledger):
    ids = await dead_letters(ledger)
    await hold(ledger, 2)
    body = await quarantine(ledger.redis, body=BODY, reason="unreadable")
    script = box.script()
    assert (await script.get("/api/attention/held")).json["groups"][0]["credits_at_most"] == 2
    assert (await script.call("/api/attention/held/release", {"limit": 1})).json == {"count": 1}
    assert (await script.call("/api/attention/dead-letters/drop", {"ids": [ids["a"]]})).json == {"count": 1}
    assert (await script.call("/api/attention/halt", {"reason": "why"})).json == {"changed": True}
    brakes = (await script.get("/api/attention/brakes")).json
    assert brakes["halt"]["reason"] == "why"
    assert brakes["halt"]["by_person"]
    assert (await script.call("/api/attention/resume", {})).json == {"changed": True}
    assert (await script.call("/api/attention/resume", {})).json == {"changed": False}
    await leave_alone(ledger)
    for changed in (True, False):
        tried = await script.call("/api/attention/breakers/try", {"field_id": "cf_pitch"})
        assert tried.json == {"changed": changed}
    assert (await script.call("/api/attention/breakers/try", {"field_id": "no id"})).status == 400
    assert (await script.get(f"/api/attention/quarantine/{body}")).json["body"] == BODY.decode()
    retried = await script.call("/api/attention/quarantine/retry", {"ids": [body, "1-1"]})
    assert retried.json == {"retried": [body], "gone": ["1-1"], "cut": []}
    assert (await script.call("/api/attention/quarantine/drop", {"ids": [body]})).json == {"count": 0}
    assert (await script.get(f"/api/attention/quarantine/{body}")).status == 404


async def test_one_request_looks_at_so_many_dead_letters_and_no_more(box, ledger, monkeypatch):
    monkeypatch.setattr("service.dead_letters.PAGE", 1)
    monkeypatch.setattr("service.dashboard.attention.MOST_COUNTED", 2)
    monkeypatch.setattr(acts, "MOST_LOOKED_AT", 2)
    ids = await dead_letters(ledger)
    await ledger.redis.zadd(keys.ATTENTION, {ids[name]: 1000 + at for at, name in enumerate("abcde")})
    page = (await box.script().get("/api/attention/dead-letters?rule=Pitch")).json
    assert page["letters"] == []
    assert page["next"] is not None
    further = (await box.script().get(f"/api/attention/dead-letters?rule=Pitch&after={page['next']}")).json
    assert [one["id"] for one in further["letters"]] == [ids["c"], ids["b"]]
    count = (await box.script().get("/api/attention/dead-letters/count")).json
    assert (count["count"], count["more"]) == (2, True)
    retried = await box.script().call("/api/attention/dead-letters/retry", {"rule": "Pitch"})
    assert retried.json == {"count": 0}


async def test_one_request_looks_at_so_much_of_what_is_held_and_no_more(box, ledger, monkeypatch):
    monkeypatch.setattr("service.held.PAGE", 1)
    monkeypatch.setattr("service.dashboard.attention.MOST_COUNTED", 2)
    monkeypatch.setattr(acts, "MOST_LOOKED_AT", 2)
    ids = [*await hold(ledger, 3), *await hold(ledger, 1, rule="Size")]
    await ledger.redis.zadd(keys.HELD, {one: 1000 + at for at, one in enumerate(ids)})
    view = (await box.script().get("/api/attention/held")).json
    assert [(one["rule"], one["count"]) for one in view["groups"]] == [("Pitch", 2)]
    assert (view["count"], view["more"]) == (4, True)
    assert (await box.script().call("/api/attention/held/release", {"rule": "Size"})).json == {"count": 0}
    assert "there are more" in (await (await box.browser()).get("/attention")).text


async def test_what_comes_from_outside_is_escaped(browser, ledger, async_redis):
    entry = await ledger.plan()
    await ledger.settle(await ledger.calling(entry.id), State.DEAD, reason=HOSTILE)
    await async_redis.hset(
        keys.entry(entry.id), mapping={"rule": HOSTILE, "name": HOSTILE, "object": HOSTILE}
    )
    held = await ledger.plan(object_id="lead_h")
    await async_redis.hset(keys.entry(held.id), "rule", HOSTILE)
    await async_redis.zadd(keys.HELD, {held.id: 1})
    body = await quarantine(async_redis, body=HOSTILE.encode() + b"\xff\x00", reason=HOSTILE)
    await ledger.ledger.brakes.halt(reason=HOSTILE, kind="key")
    for path in (
        "/attention",
        "/attention/dead/retry",
        "/attention/held/release",
        "/attention/resume",
        f"/attention/quarantine/show/{body}",
        f"/attention?reason={HOSTILE}",
        f"/attention/dead/retry?reason={HOSTILE}",
    ):
        page = await browser.get(path)
        assert page.status == 200
        assert "<script>alert" not in page.text
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page.text
