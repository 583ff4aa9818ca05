"""The frame and its first pages: what they show, what goes wrong, and what every answer says of itself."""

import re
from http import HTTPStatus
from importlib.resources import files

import msgspec
import pytest
import redis.asyncio
from dashboard_box import TOKEN, Box
from ledger_box import LedgerBox
from receiver_box import Receiver
from starlette.requests import Request

from service import keys
from service.app import create_app
from service.brakes import PERSON
from service.cli.dashboard import has_dashboard
from service.cli.up import dashboard_line
from service.dashboard import asked, rendering
from service.dashboard.contents import ROUTES
from service.dashboard.routes import Call, Form, Page
from service.enrichment import STATE_MEANINGS, State
from service.settings import load_settings

TEMPLATES = sorted((files("service.dashboard") / "templates").iterdir(), key=lambda one: one.name)
STATIC = sorted((files("service.dashboard") / "static").iterdir(), key=lambda one: one.name)


class Numbered(msgspec.Struct, frozen=True, kw_only=True):
    number: int
    word: str = "none"


async def show(visit, asks):
    return visit.html(f"{asks.number} {asks.word}")


async def shown(_, asks):
    return asks


async def broken(*_):
    raise RuntimeError("a mistake")


CONTENTS = (
    *ROUTES,
    Page(path="/number/{number}", handler=show, asks=Numbered),
    Form(path="/number", handler=show, asks=Numbered),
    Call(path="/api/number", summary="", handler=shown, asks=Numbered, answers=Numbered),
    Call(method="POST", path="/api/number", summary="", handler=shown, asks=Numbered, answers=Numbered),
    Page(path="/broken", handler=broken),
    Call(path="/api/broken", summary="", handler=broken, answers=Numbered),
)


@pytest.fixture
def box(async_redis):
    return Box(async_redis, contents=CONTENTS)


@pytest.fixture
def ledger(async_redis):
    return LedgerBox(async_redis)


async def ended(ledger, state, object_id="lead_1", **options):
    """One enrichment that was called for and ended so."""
    entry = await ledger.plan(object_id=object_id)
    await ledger.settle(await ledger.calling(entry.id), state, **options)


async def test_an_empty_service_says_what_would_be_there(box):
    page = await (await box.browser()).get("/")
    assert page.status == 200
    for words in (
        "No worker is running",
        "Nothing has ended in the last hour",
        "No field has been filled in the last hour",
        "Nothing needs you",
        "No results yet",
        "500 credits a day for all rules",
    ):
        assert words in page.text


async def test_the_overview_says_what_needs_a_person_and_what_came_of_it(box, ledger, async_redis):
    await ended(ledger, State.FILLED, "lead_full", value="<b>Joinery</b>", confidence="high")
    await ended(ledger, State.DEAD, "lead_dead", reason="timed out")
    await ledger.ledger.brakes.halt(reason="credits are used up", kind=PERSON)
    await async_redis.xadd(keys.QUARANTINE, {"body": "{"})
    found = (await box.script().get("/api/overview")).json
    assert found["health"]["headline"] == "All calls are halted"
    assert found["health"]["level"] == "stopped"
    assert found["attention"] == {
        "dead_letters": 1,
        "held": 0,
        "quarantined": 1,
        "breakers": 0,
        "halted": True,
    }
    assert [(one["object_id"], one["state"], one["value"]) for one in found["newest"]] == [
        ("lead_dead", "dead", ""),
        ("lead_full", "filled", "<b>Joinery</b>"),
    ]
    page = await (await box.browser()).get("/")
    assert "credits are used up" in page.text.lower()
    assert "&lt;b&gt;Joinery&lt;/b&gt;" in page.text
    assert "<b>Joinery" not in page.text
    assert "/attention#dead" in page.text
    assert "/records/lead_full" in page.text


async def test_a_result_without_a_value_says_what_it_means_as_everywhere_else(box, ledger):
    await ended(ledger, State.EMPTY)
    browser = await box.browser()
    for path in ("/", "/activity"):
        assert STATE_MEANINGS[State.EMPTY] in re.sub(r'title="[^"]*"', "", (await browser.get(path)).text)


@pytest.mark.parametrize(
    ("value", "words"),
    [(0, "0"), (0.04, "0"), (0.4, "0.4"), (12.5, "12.5"), (99.9, "99.9"), (131.7, "132"), (353.4, "353")],
)
def test_rates_have_one_decimal_at_most_and_no_exponent(value, words):
    assert rendering.rate(value) == words


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("2026-10-14T09:00:00.123456+00:00", "2026-10-14 09:00:00 UTC"),
        ("2026-10-14T11:00:00+02:00", "2026-10-14 09:00:00 UTC"),
        ("2026-10-14T09:00:00", "2026-10-14 09:00:00 UTC"),
        ("soon", "soon"),
    ],
)
def test_moments_of_close_are_shown_to_the_second(written, words):
    assert rendering.to_second(written) == words


async def test_budgets_are_shown_with_what_is_spent(box, async_redis):
    windows = box.desk.windows(box.desk.now_ms())
    await async_redis.set(windows[0].key, 400)
    await async_redis.set(windows[1].key, 9000)
    found = (await box.script().get("/api/overview")).json
    assert [(one["words"], one["spent"], one["limit"]) for one in found["budgets"]] == [
        ("500 credits a day for all rules", 400, 500),
        ("9000 credits a month for all rules", 9000, 9000),
        ("20 credits a day for rule Pitch", 0, 20),
    ]
    page = await (await box.browser()).get("/")
    assert 'class="gauge-near"' in page.text
    assert 'class="gauge-full"' in page.text
    assert "Used up: 9000 credits a month for all rules" in page.text


async def test_the_system_page_names_workers_subscription_and_rules(box, async_redis):
    await async_redis.sadd("rq:workers", "rq:worker:one")
    birth = "2026-10-14T09:30:12.000000Z"
    facts = {"queues": "enrich", "hostname": "box-7", "pid": 41, "birth": birth, "last_heartbeat": birth}
    await async_redis.hset("rq:worker:one", mapping=facts)
    await async_redis.hset(keys.WEBHOOK, mapping={"subscription": "whsub_1", "problem": "is paused"})
    await async_redis.set(keys.log_mark("lead", "created"), "2026-10-14T09:00:00.123456+00:00")
    await async_redis.set(keys.RECONCILED, "1", px=60_000)
    found = (await box.script().get("/api/system")).json
    assert found["workers_alive"] == 1
    assert found["workers"][0]["host"] == "box-7"
    assert found["workers"][0]["started_ms"] == 1791970212000
    assert found["subscription"] == {"id": "whsub_1", "problem": "is paused"}
    assert found["event_log"]["marks"] == [
        {"kind": "lead.created", "until": "2026-10-14T09:00:00.123456+00:00"}
    ]
    assert 0 < found["event_log"]["next_seconds"] <= 60
    page = await (await box.browser()).get("/system")
    for words in ("box-7", "is paused", "whsub_1", "2026-10-14 09:00:00 UTC<", "enrich-bulk"):
        assert words in page.text


async def test_the_system_page_tells_which_release_and_rules_each_process_runs(box, async_redis):
    now_seconds, _ = await async_redis.time()
    for process, more in (("web on a", {"version": "7.8.9"}), ("worker on b", {})):
        said = {
            "process": process,
            "digest": f"of {process}",
            "read_at_ms": 1,
            "said_at_seconds": now_seconds,
        }
        await async_redis.hset(keys.RULES, process, msgspec.json.encode(said | more))
    found = (await box.script().get("/api/system")).json["rules"]
    assert [(one["process"], one["version"], one["digest"]) for one in found] == [
        ("web on a", "7.8.9", "of web on a"),
        ("worker on b", "", "of worker on b"),
    ]
    page = (await (await box.browser()).get("/system")).text
    for cell in ('"Version">7.8.9<', '"Version">\N{EN DASH}<', '"Rules"><span class="id">of web on a<'):
        assert f"<td data-name={cell}/" in page


@pytest.mark.parametrize(
    "path", ["/", "/system", "/api/overview", "/login", "/api/openapi.json", "/api/nowhere"]
)
async def test_every_answer_forbids_what_a_page_of_ours_never_does(box, path):
    browser = await box.browser() if path != "/login" else box.stranger()
    answer = await browser.get(path)
    policy = answer.header("content-security-policy")
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.header("cache-control") == "no-store"
    assert answer.header("x-content-type-options") == "nosniff"
    assert answer.header("referrer-policy") == "no-referrer"
    assert answer.header("x-frame-options") == "DENY"


async def test_static_files_are_kept_by_browsers_under_an_address_that_changes_with_them(box):
    page = await box.stranger().get("/login")
    (address,) = re.findall(r'href="(/static/app\.css\?v=[0-9a-f]{12})"', page.text)
    answer = await box.stranger().get(address)
    assert answer.header("content-type") == "text/css; charset=utf-8"
    assert answer.header("cache-control") == "public, max-age=31536000, immutable"


@pytest.mark.parametrize("name", ["nothing.css", "..", "../site.py", "%2e%2e%2fsite.py", "app.css/", ""])
async def test_nothing_but_the_static_files_is_served(box, name):
    assert (await box.stranger().get(f"/static/{name}")).status == 404


@pytest.mark.parametrize("file", [*TEMPLATES, *STATIC], ids=lambda file: file.name)
def test_no_file_loads_anything_from_elsewhere_or_holds_what_the_policy_forbids(file):
    text = file.read_text().replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?:|(src|href|action)=\"//|url\(|@import", text)
    assert not re.search(r"\son\w+=|\sstyle=|<style|<script(?! src=)|javascript:", text)


@pytest.mark.parametrize("template", [one.name for one in TEMPLATES])
def test_no_template_passes_text_on_unescaped(template):
    text = (files("service.dashboard") / "templates" / template).read_text()
    assert not re.search(r"\|\s*safe|autoescape", text)


async def test_pages_have_no_inline_script_or_style(box, ledger):
    await ended(ledger, State.FILLED, value="x")
    browser = await box.browser()
    for one in ROUTES:
        if isinstance(one, Page) and "{" not in one.path:
            text = (await browser.get(one.path)).text
            assert not re.search(r"<[^>]*\s(style|on\w+)=|<style|<script(?! src=)", text), one.path


async def test_what_the_path_and_the_query_say_is_checked(box):
    browser = await box.browser()
    assert (await browser.get("/number/5?word=five&other=x")).text == "5 five"
    assert (await browser.get("/number/5?word=")).text == "5 none"
    assert (await browser.get("/number/5?word=one&word=two&number=7")).text == "5 one"
    wrong = await browser.get("/number/five")
    assert wrong.status == 400
    assert "number: expected a whole number." in wrong.text
    assert "five" not in wrong.text


async def test_somebody_who_is_logged_in_keeps_the_navigation_where_something_goes_wrong(box):
    browser = await box.browser()
    csrf = (await browser.get("/")).csrf
    for page, back in (
        (await browser.get("/attention?older=xx"), ("/attention", "Attention")),
        (await browser.get("/attention/dead/retry?state=nonsense"), ("/attention", "Attention")),
        (await browser.get("/number/five"), ("/", "Overview")),
        (await browser.get("/broken"), ("/", "Overview")),
        (await browser.post("/attention/halt", {"csrf": "forged"}), ("/attention", "Attention")),
        (await browser.post("/number", {"csrf": csrf}), ("/", "Overview")),
    ):
        assert page.status in {400, 403, 500}
        assert '<nav aria-label="Pages">' in page.text
        assert f'<a class="button" href="{back[0]}">Back to {back[1]}</a>' in page.text
    forged = await box.stranger().post("/login", {"token": TOKEN}, origin="https://evil.example")
    assert "<nav" not in forged.text


async def test_an_unknown_page_is_a_page_for_people_who_are_logged_in_and_json_for_others(box):
    box.app = create_app(
        webhook=show,
        keyed=lambda: True,
        ledger=box.desk.ledger,
        knowledge=box.desk.knowledge,
        knows_us=lambda _: True,
        more_routes=box.site.routes(),
        unknown=box.site.unknown,
    )
    person = await box.browser()
    for path, status in (("/nothing/here", 404), ("/logout", 405)):
        page = await person.get(path, accept="text/html,*/*;q=0.8")
        assert page.status == status
        assert "There is no such page." in page.text
        assert '<nav aria-label="Pages">' in page.text
    assert page.header("allow") == "POST"
    for other, accept in ((person, "*/*"), (box.stranger(), "text/html"), (box.script(), "*/*")):
        answer = await other.get("/nothing/here", accept=accept)
        assert (answer.status, answer.json) == (404, {"error": "Not Found"})
    refused = await person.send("POST", "/nothing/here", headers={"accept": "text/html"})
    assert refused.json == {"error": "Not Found"}


async def test_while_redis_is_away_an_unknown_page_is_json_for_everybody():
    async with redis.asyncio.Redis(host="127.0.0.1", port=1) as nobody:
        request = Request(
            {
                "type": "http",
                "method": "GET",
                "path": "/nothing",
                "headers": [(b"accept", b"text/html"), (b"cookie", b"close-enrich=x")],
                "scheme": "http",
                "server": ("127.0.0.1", 8080),
                "client": None,
                "query_string": b"",
            }
        )
        assert await Box(nobody).site.unknown(request, HTTPStatus.NOT_FOUND) is None


async def test_a_form_is_read_up_to_its_limits(box):
    browser = await box.browser()
    page = await browser.get("/")
    fields = {"csrf": page.csrf, "number": "5"}
    assert (await browser.post("/number", fields)).text == "5 none"
    large = await browser.post("/number", {**fields, "word": "x" * asked.MOST_BODY_BYTES})
    assert (large.status, large.header("connection")) == (413, "close")
    many = await browser.post("/number", fields | {f"f{one}": "x" for one in range(asked.MOST_FIELDS)})
    assert many.status == 400
    headers = {"content-type": "application/x-www-form-urlencoded"}
    assert (await browser.send("POST", "/number", body=b"\xff=1", headers=headers)).status == 400


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"number": 5}', 200),
        (b'{"number": "5"}', 400),
        (b"[]", 400),
        (b"5", 400),
        (b"", 400),
        (b"{", 400),
        (b"\xff", 400),
        (b"[" * 100_000, 400),
        (b'{"number": 5, "word": "' + b"x" * 2_100_000 + b'"}', 413),
    ],
)
async def test_a_json_body_is_read_up_to_its_limits(box, body, status):
    sent = {"content-type": "application/json"}
    answer = await box.script().send("POST", "/api/number", body=body, headers=sent)
    assert answer.status == status
    assert status == 200 or set(answer.json) == {"error"}


async def test_a_mistake_of_ours_is_a_page_and_tells_the_log_not_the_visitor(box):
    page = await (await box.browser()).get("/broken")
    assert page.status == 500
    assert "Something went wrong" in page.text
    assert "a mistake" not in page.text.replace("has a mistake", "")
    call = await box.script().get("/api/broken")
    assert call.status == 500
    assert set(call.json) == {"error"}
    assert [type(error) for _, error in box.reports] == [RuntimeError, RuntimeError]


async def test_without_redis_pages_say_so_and_the_cookie_is_kept():
    client = redis.asyncio.Redis.from_url("redis://127.0.0.1:1", socket_connect_timeout=0.5)
    box = Box(client)
    browser = box.stranger(cookies={"close-enrich": "x"})
    page = await browser.get("/")
    assert page.status == 503
    assert "Redis does not answer" in page.text
    assert "set-cookie" not in dict(page.headers)
    assert (await box.script().get("/api/overview")).status == 503
    assert (await box.stranger().post("/login", {"token": TOKEN})).status == 503
    await client.aclose()


@pytest.mark.parametrize(
    ("filter_name", "value", "words"),
    [
        ("number", 1234567, "1,234,567"),
        ("number", 0.5, "0.5"),
        ("short", 99_999, "99,999"),
        ("short", 123_456, "123k"),
        ("short", 1_234_567, "1.23M"),
        ("short", 5_000_000_000, "5G"),
        ("duration", -5, "0.0 s"),
        ("duration", 400, "0.4 s"),
        ("duration", 12_000, "12 s"),
        ("duration", 300_000, "5 min"),
        ("duration", 10_800_000, "3 h"),
        ("duration", 259_200_000, "3 days"),
        ("moment", 1791970212345, "2026-10-14 09:30:12 UTC"),
        ("iso", 1791970212345, "2026-10-14T09:30:12Z"),
    ],
)
def test_numbers_and_times_are_written_for_people(filter_name, value, words):
    assert getattr(rendering, filter_name)(value) == words


def test_the_receiver_serves_it_beside_webhooks_and_ends_its_streams_when_it_stops(redis_url):
    with Receiver(redis_url, ADMIN_TOKEN=TOKEN) as receiver:
        bearer = {"authorization": f"Bearer {TOKEN}"}
        assert receiver.request("GET", "/api/overview", None, bearer).body["health"]["level"] == "stopped"
        assert receiver.get("/").status == 303
        stream = receiver.connect()
        stream.sendall(f"GET /live HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\n\r\n".encode())
        told = b""
        while b"data: " not in told:
            told += stream.recv(65536)
        assert b"text/event-stream" in told
    # leaving the block waits for the server: with the stream open it would take ten seconds, and be cut off
    while chunk := stream.recv(65536):
        told += chunk
    assert told.endswith(b"0\r\n\r\n")
    stream.close()


async def wait_in_history(client, count):
    """So many facts of an enrichment that waits."""
    fact = '{"at": 1, "id": "x", "object": "lead_2", "field": "Size", "state": "waiting"}'
    async with client.pipeline(transaction=False) as pipeline:
        for _ in range(count):
            pipeline.xadd(keys.HISTORY, {"fact": fact})
        await pipeline.execute()


async def test_results_are_found_behind_many_changes_that_are_none(box, ledger, async_redis):
    await ended(ledger, State.EMPTY, "lead_empty")
    await wait_in_history(async_redis, 300)
    found = (await box.script().get("/api/overview")).json
    assert [one["object_id"] for one in found["newest"]] == ["lead_empty"]
    await wait_in_history(async_redis, 500)
    assert (await box.script().get("/api/overview")).json["newest"] == []
    assert "No result lately" in (await (await box.browser()).get("/")).text


@pytest.mark.parametrize(
    ("environ", "door", "line"),
    [
        ({}, "open", "The dashboard is at http://127.0.0.1:8080/, for this machine only."),
        ({}, "token", "There is no dashboard: set ADMIN_TOKEN."),
        ({"HOST": "0.0.0.0"}, "open", "There is no dashboard: set ADMIN_TOKEN."),  # noqa: S104  a container's
        ({"ADMIN_TOKEN": TOKEN}, "", "The dashboard is at http://127.0.0.1:8080/; log in with ADMIN_TOKEN."),
    ],
)
def test_up_says_where_the_dashboard_is_or_what_there_would_be_one_with(environ, door, line):
    settings = load_settings(environ, needs=())
    assert dashboard_line(settings, door=door) == line
    assert has_dashboard(load_settings({**environ, "DASHBOARD": door}, needs=())) is (
        "no dashboard" not in line
    )
