"""Who may see the dashboard and act in it: a stranger learns nothing, a forged form changes nothing."""

import html
import re

import msgspec
import pytest
import redis.asyncio
from dashboard_box import HOST, NOW, TOKEN, Box
from receiver_box import rulebook

from service import keys
from service.cli.serve import build_app
from service.dashboard.access import SESSION_SECONDS
from service.dashboard.contents import ROUTES
from service.dashboard.routes import Call, Form, Page
from service.settings import Settings, load_settings


@pytest.fixture
def box(async_redis):
    return Box(async_redis)


@pytest.fixture
def open_box(async_redis):
    return Box(async_redis, token=None)


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    number: int


class Done(msgspec.Struct, frozen=True, kw_only=True):
    number: int


@pytest.fixture
def acting(async_redis):
    """A dashboard with a form and a call that do something, and what they have done."""
    done = []

    async def by_form(visit, asked):
        done.append(asked.number)
        return await visit.done("/", f"did {asked.number}")

    async def by_call(_, asked):
        done.append(asked.number)
        return Done(number=asked.number)

    contents = (
        *ROUTES,
        Form(path="/act", handler=by_form, asks=Wish),
        Call(method="POST", path="/api/act", summary="Act.", handler=by_call, asks=Wish, answers=Done),
    )

    def make(**options):
        return Box(async_redis, contents=contents, **options)

    make.done = done
    return make


def a_path(template, sample="lead_1"):
    return re.sub(r"\{[^}]+\}", sample, template)


PUBLIC = {"/webhooks/close", "/livez", "/readyz", "/metrics", "/login", "/static/{name}"}


async def test_a_stranger_is_sent_to_the_login_or_refused_on_every_route_of_the_process(redis_url):
    settings = load_settings(
        {"REDIS_URL": redis_url, "CLOSE_SIGNATURE_KEYS": "ab" * 16, "ADMIN_TOKEN": TOKEN}, needs=()
    )
    assert isinstance(settings, Settings)
    app = build_app(settings, rulebook())
    asked = 0
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        stranger = Box(client).stranger()
        stranger.app = app
        for route in app.routes:
            if route.path in PUBLIC:
                continue
            for method in sorted(route.methods):
                one = await stranger.send(method, a_path(route.path))
                other = await stranger.send(method, a_path(route.path, "lead_that_is_not_there"))
                asked += 1
                assert one.status in {303, 401}, route.path
                assert one.raw == other.raw
                assert one.status == other.status
                assert "no-store" in one.header("cache-control")
                if one.status == 303:
                    assert one.header("location").startswith("/login?next=")
                else:
                    assert one.header("www-authenticate") == "Bearer"
    assert asked > len([one for one in ROUTES if isinstance(one, Page)])


@pytest.mark.parametrize(
    "path", ["/", "/system", "/records/lead_1", "/api/overview", "/live", "/static/app.css"]
)
async def test_without_a_token_there_is_no_dashboard(redis_url, path):
    settings = load_settings({"REDIS_URL": redis_url, "CLOSE_SIGNATURE_KEYS": "ab" * 16}, needs=())
    app = build_app(settings, rulebook())
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        visitor = Box(client, token=None).stranger(host="127.0.0.1:8080", address="127.0.0.1")
        visitor.app = app
        answer = await visitor.get(path)
    assert answer.status == 404
    assert answer.json == {"error": "Not Found"}


async def test_it_is_not_open_where_others_reach_the_process(redis_url):
    environ = {"REDIS_URL": redis_url, "CLOSE_SIGNATURE_KEYS": "ab" * 16, "DASHBOARD": "open"}
    here = build_app(load_settings(environ, needs=()), rulebook())
    everywhere = build_app(load_settings({**environ, "HOST": "0.0.0.0"}, needs=()), rulebook())  # noqa: S104
    assert any(getattr(one, "path", "") == "/system" for one in here.routes)
    assert not any(getattr(one, "path", "") == "/system" for one in everywhere.routes)


async def test_calls_that_are_not_there_look_like_those_that_are(box):
    stranger = box.stranger()
    there = await stranger.get("/api/overview")
    assert there.status == 401
    assert (await stranger.get("/api/nothing")).raw == there.raw
    assert (await stranger.send("DELETE", "/api/x/y")).raw == there.raw


async def test_whoever_knows_the_token_logs_in_and_out(box):
    browser = box.stranger()
    login = await browser.get("/login?next=/system")
    assert login.status == 200
    assert 'name="next" value="/system"' in login.text
    answer = await browser.post("/login", {"token": TOKEN, "next": "/system"})
    assert (answer.status, answer.header("location")) == (303, "/system")
    page = await browser.get("/system")
    assert page.status == 200
    kept = dict(browser.cookies)
    left = await browser.post("/logout", {"csrf": page.csrf})
    assert (left.status, left.header("location")) == (303, "/login")
    assert browser.cookies == {}
    browser.cookies = kept
    assert (await browser.get("/system")).status == 303


@pytest.mark.parametrize("token", ["", "wrong", TOKEN[:-1], TOKEN + "x", "é" * 20])
async def test_a_wrong_token_opens_nothing(box, token):
    browser = box.stranger()
    answer = await browser.post("/login", {"token": token})
    assert answer.status == 401
    assert "That is not the token" in answer.text
    assert TOKEN not in answer.text
    assert browser.cookies == {}


@pytest.mark.parametrize(
    ("after", "where"),
    [
        ("/records/lead_1", "/records/lead_1"),
        ("https://evil.example/", "/"),
        ("//evil.example/", "/"),
        ("/\\evil.example/", "/"),
        ("/login", "/"),
        ("/api/overview", "/"),
        ("", "/"),
        ("/a\r\nset-cookie: x=y", "/"),
        ("/activity?rule=Pitch", "/activity?rule=Pitch"),
        ("//evil.example/?rule=Pitch", "/"),
        ("/activity?rule=\n", "/"),
        ("?rule=Pitch", "/"),
    ],
)
async def test_after_the_login_one_is_on_this_site(box, after, where):
    answer = await box.stranger().post("/login", {"token": TOKEN, "next": after})
    assert answer.header("location") == where


@pytest.mark.parametrize(
    "path", ["/activity?rule=A+%26+B&state=filled", "/attention?reason=%E2%82%AC%0d%0a", "/activity?rule=%"]
)
async def test_after_the_login_one_sees_the_page_with_the_query_that_one_asked_for(box, path):
    browser = box.stranger()
    asked = await browser.get(path)
    login = await browser.get(asked.header("location"))
    after = html.unescape(re.search(r'name="next" value="([^"]*)"', login.text)[1])
    answer = await browser.post("/login", {"token": TOKEN, "next": after})
    assert (answer.status, answer.header("location")) == (303, path)


async def test_a_query_of_thousands_of_characters_is_not_carried_through_the_login(box):
    asked = await box.stranger().get(f"/activity?rule={'x' * 3000}")
    assert asked.header("location") == "/login?next=/activity"


async def test_the_sixth_login_of_an_address_in_a_minute_is_refused_whatever_it_says(box):
    browser = box.stranger()
    for _ in range(5):
        assert (await browser.post("/login", {"token": "wrong"})).status == 401
    refused = await browser.post("/login", {"token": TOKEN})
    assert refused.status == 429
    assert "Too many attempts" in refused.text
    assert (await box.stranger(address="203.0.113.10").post("/login", {"token": TOKEN})).status == 303
    box.clock.seconds = NOW + 60
    assert (await browser.post("/login", {"token": TOKEN})).status == 303


async def test_all_addresses_together_have_twenty_logins_a_minute(box):
    for number in range(20):
        answer = await box.stranger(address=f"203.0.113.{number}").post("/login", {"token": "wrong"})
        assert answer.status == 401
    assert (await box.stranger(address="198.51.100.1").post("/login", {"token": TOKEN})).status == 429
    box.clock.seconds = NOW + 60
    assert (await box.stranger(address="198.51.100.1").post("/login", {"token": TOKEN})).status == 303


async def test_one_address_that_goes_on_trying_locks_nobody_else_out(box):
    stranger = box.stranger()
    statuses = [(await stranger.post("/login", {"token": "wrong"})).status for _ in range(40)]
    assert statuses == [401] * 5 + [429] * 35
    assert (await box.stranger(address="198.51.100.1").post("/login", {"token": TOKEN})).status == 303


async def test_wrong_bearers_of_an_address_are_limited_too(box):
    for _ in range(20):
        assert (await box.script("wrong-token-of-16-letters").get("/api/overview")).status == 401
    refused = await box.script().get("/api/overview")
    assert refused.status == 429
    assert refused.header("retry-after") == "60"
    box.clock.seconds = NOW + 60
    assert (await box.script().get("/api/overview")).status == 200


@pytest.mark.parametrize(
    ("scheme", "name", "ends"),
    [
        ("http", "close-enrich", "; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict"),
        ("https", "__Host-close-enrich", "; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict; Secure"),
    ],
)
async def test_the_cookie_goes_nowhere_else(box, scheme, name, ends):
    answer = await box.stranger(scheme=scheme).post("/login", {"token": TOKEN})
    cookie = answer.header("set-cookie")
    assert cookie.startswith(name + "=")
    assert cookie.endswith(ends)


async def test_redis_keeps_no_cookie_and_forgets_the_session_after_twelve_hours(box, async_redis):
    browser = await box.browser()
    (cookie,) = browser.cookies.values()
    (key,) = await async_redis.keys(keys.session("*"))
    assert 0 < await async_redis.ttl(key) <= SESSION_SECONDS
    assert cookie.encode() not in key + await async_redis.get(key)
    await async_redis.delete(key)
    assert (await browser.get("/")).status == 303


async def test_another_admin_token_ends_every_session(box, async_redis):
    browser = await box.browser()
    browser.app = Box(async_redis, token="another-token-of-some-length").app
    assert (await browser.get("/")).status == 303


async def test_a_form_of_ours_does_what_it_says_and_tells_it_once(acting):
    box = acting()
    browser = await box.browser()
    answer = await browser.submit("/", "/act", {"number": "7"})
    assert (answer.status, answer.header("location")) == (303, "/")
    assert acting.done == [7]
    assert "did 7" in (await browser.get("/")).text
    assert "did 7" not in (await browser.get("/")).text


@pytest.mark.parametrize("csrf", [None, "", "0" * 64, "é"])
async def test_a_form_without_its_token_changes_nothing(acting, csrf):
    browser = await acting().browser()
    answer = await browser.post("/act", {"number": "7"} | ({} if csrf is None else {"csrf": csrf}))
    assert answer.status == 403
    assert acting.done == []
    assert "Go back, reload the page" in answer.text


async def test_the_token_of_another_session_is_worth_nothing(acting):
    box = acting()
    mine, other = await box.browser(), await box.browser()
    csrf = (await other.get("/")).csrf
    assert (await mine.post("/act", {"number": "7", "csrf": csrf})).status == 403
    assert acting.done == []


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "https://[evil"},
        {"origin": "null", "sec_fetch_site": "cross-site"},
        {"origin": f"http://{HOST}:9999"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
    ],
)
async def test_a_form_on_another_sites_page_changes_nothing_even_with_the_token(acting, headers):
    browser = await acting().browser()
    csrf = (await browser.get("/")).csrf
    assert (await browser.post("/act", {"number": "7", "csrf": csrf}, **headers)).status == 403
    sent = {"x_csrf_token": csrf, **headers}
    assert (await browser.call("/api/act", {"number": 7}, **sent)).status == 403
    assert (await browser.post("/logout", {"csrf": csrf}, **headers)).status == 403
    assert acting.done == []
    assert (await browser.get("/")).status == 200


@pytest.mark.parametrize("origin", [f"https://{HOST}", "null"])
async def test_our_own_pages_forms_are_fine_which_send_no_origin_as_they_send_no_referrer(acting, origin):
    browser = await acting().browser(headers={"origin": origin, "sec-fetch-site": "same-origin"})
    assert (await browser.submit("/", "/act", {"number": "7"})).status == 303
    assert acting.done == [7]


async def test_another_sites_page_cannot_log_anybody_in(box):
    browser = box.stranger()
    assert (await browser.post("/login", {"token": TOKEN}, origin="https://evil.example")).status == 403
    assert browser.cookies == {}


async def test_a_call_needs_the_sessions_token_and_a_script_only_the_admins(acting):
    box = acting()
    browser = await box.browser()
    assert (await browser.call("/api/act", {"number": 1})).status == 403
    csrf = (await browser.get("/")).csrf
    assert (await browser.call("/api/act", {"number": 2}, x_csrf_token=csrf)).json == {"number": 2}
    assert (await box.script().call("/api/act", {"number": 3})).json == {"number": 3}
    assert (await box.stranger().call("/api/act", {"number": 4})).status == 401
    assert acting.done == [2, 3]


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost:8080", "localhost", "[::1]:8080"])
@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1"])
async def test_open_it_is_shown_to_this_machine(open_box, host, address):
    visitor = open_box.stranger(host=host, address=address)
    assert (await visitor.get("/")).status == 200
    assert (await visitor.get("/api/overview")).status == 200
    assert (await visitor.get("/static/app.css")).status == 200
    assert (await visitor.get("/login")).status == 404


@pytest.mark.parametrize(
    "options",
    [
        {"address": "192.0.2.1", "host": "127.0.0.1:8080"},
        {"address": "", "host": "127.0.0.1:8080"},
        {"address": "127.0.0.1", "host": "rebound.example:8080"},
        {"address": "127.0.0.1", "host": "127.0.0.1.evil.example"},
        {"address": "127.0.0.1", "host": "localhost@evil.example"},
        {"address": "127.0.0.1", "host": "evil.example#localhost"},
        {"address": "127.0.0.1", "host": "localhost:port"},
        {"address": "127.0.0.1", "host": "[::1"},
        {"address": "127.0.0.1", "host": ""},
        {"address": "127.0.0.1", "host": "localhost", "headers": {"x-forwarded-for": "192.0.2.1"}},
        {"address": "127.0.0.1", "host": "localhost", "headers": {"forwarded": "for=192.0.2.1"}},
        {"address": "127.0.0.1", "host": "localhost", "headers": {"x-forwarded-host": "evil.example"}},
    ],
)
@pytest.mark.parametrize("path", ["/", "/api/overview", "/live", "/static/app.css", "/system"])
async def test_open_it_is_not_there_for_anybody_else(open_box, options, path):
    answer = await open_box.stranger(**options).get(path)
    assert answer.status == 404
    assert answer.json == {"error": "Not Found"}


async def test_open_a_form_needs_its_token_all_the_same(acting):
    box = acting(token=None)
    browser = box.stranger(host="localhost:8080", address="127.0.0.1")
    assert (await browser.post("/act", {"number": "1"})).status == 403
    await browser.get("/")
    csrf = box.access._visitor(browser.cookies["close-enrich"]).csrf
    assert (
        await browser.post("/act", {"number": "2", "csrf": csrf}, origin="http://localhost:3000")
    ).status == 403
    assert (await browser.post("/act", {"number": "3", "csrf": csrf})).status == 303
    assert acting.done == [3]


async def test_open_a_script_acts_by_json_which_no_other_site_can_send_unasked(acting):
    box = acting(token=None)
    script = box.stranger(host="localhost:8080", address="127.0.0.1")
    assert (await script.call("/api/act", {"number": 1})).status == 200
    for origin in ("https://evil.example", "null"):
        assert (await script.call("/api/act", {"number": 2}, origin=origin)).status == 403
    assert (
        await script.send("POST", "/api/act", body=b'{"number":3}', headers={"content-type": "text/plain"})
    ).status == 415
    assert acting.done == [1]
