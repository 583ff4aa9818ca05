"""The dashboard in a real browser, in front of a real service: every page, every act, by everybody."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from browser_box import LOOKS, NARROW, PATIENCE_MS, PROGRAMS, Tab, chromium, running_browser
from conftest import IN_CI
from playwright.sync_api import expect
from showcase import TOKEN, Showcase, showcase

from service.enrichment import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, Route, StorageState

pytestmark = pytest.mark.slow

LEADS = 25
SCRIPTED_NAME = "<script>alert('pasted')</script>"
PAGES = {
    "overview": "/",
    "activity": "/activity",
    "activity-filtered": "/activity?rule=Industry&state=filled&object_type=lead",
    "activity-nothing-fits": "/activity?rule=Industry&state=dead",
    "activity-of-a-record": "/activity?object={lead}",
    "record": "/records/{lead}",
    "record-with-trouble": "/records/{refused}",
    "rules": "/rules",
    "rules-explain": "/rules/explain",
    "attention": "/attention",
    "attention-filtered": "/attention?state=held&rule=Founded+on",
    "retry-one": "/attention/dead/retry?id={letter}",
    "drop-many": "/attention/dead/drop?state=rejected",
    "nothing-meant": "/attention/dead/drop?rule=Nobody",
    "release": "/attention/held/release",
    "halt": "/attention/halt",
    "resume": "/attention/resume",
    "nothing-to-try": "/attention/breakers/try?field_id=cf_nobody",
    "quarantined": "/attention/quarantine/show/{body}",
    "quarantine-retry": "/attention/quarantine/retry?ids={body}",
    "quarantine-drop": "/attention/quarantine/drop?ids={body}",
    "system": "/system",
}
FAILURES = {
    "unknown-record": ("/records/lead_nobody_knows", 404),
    "unread-query": ("/activity?state=nonsense", 400),
    "unknown-page": ("/nothing/here", 404),
    "unknown-body": ("/attention/quarantine/show/1-1", 404),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What has happened before anybody looks.

    Attributes:
        show: the running service.
        lead: a lead with its fields filled.
        refused: a lead with a field that Close has refused.
        letter: that field's enrichment.
        body: a quarantined delivery.
    """

    show: Showcase
    lead: str
    refused: str
    letter: str
    body: str

    def path(self, written: str) -> str:
        """A page's path with the ids that it names."""
        ids = {name: getattr(self, name) for name in ("lead", "refused", "letter", "body")}
        return written.format(**{name: quote(value) for name, value in ids.items()})


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pictures of pages are kept."""
    wanted = os.environ.get("BROWSER_ARTIFACTS")
    directory = Path(wanted) if wanted else tmp_path_factory.mktemp("pictures")
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests; skipped where there is none, but in CI."""
    program = chromium()
    if program is None:
        missing = f"no {', '.join(PROGRAMS)} on the PATH; Debian's package is called chromium"
        if IN_CI:
            raise RuntimeError(missing)
        pytest.skip(missing)
    expect.set_options(timeout=PATIENCE_MS)
    with running_browser(program) as one:
        yield one


@pytest.fixture(scope="module")
def story(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """A service in which some things went well and others did not."""
    _ = browser  # without one there is no need to start it
    with showcase(tmp_path_factory.mktemp("stack")) as show:
        show.add_leads(LEADS)
        letters = [show.dead_letter() for _ in range(3)]
        show.dead_letter(lost=True)
        show.hold(3)
        show.quarantine({"event": 1})
        body = show.quarantine({"event": SCRIPTED_NAME})
        show.leave_alone("Markets")
        lead = show.stack.add_lead(
            description="Asked for a demo.", contacts=[{"name": "Ines", "title": "Founder"}]
        )
        show.quiet(least=3 * LEADS)
        yield Story(
            show=show,
            lead=lead["id"],
            refused=letters[0].object_id,
            letter=letters[0].id,
            body=body,
        )


@pytest.fixture(scope="module")
def session(story: Story, browser: Browser) -> StorageState:
    """The cookie of somebody who has logged in with the keyboard alone."""
    origin = story.show.stack.url
    context = browser.new_context()
    tab = Tab(context, origin=origin)
    tab.open("/attention")
    expect(tab.page.get_by_label("Token")).to_be_focused()
    tab.page.keyboard.type(TOKEN)
    tab.page.keyboard.press("Enter")
    tab.page.wait_for_url(f"{origin}/attention")
    state = context.storage_state()
    context.close()
    assert tab.troubles == []
    return state


@pytest.fixture
def visit(story: Story, session: StorageState, browser: Browser) -> Iterator[Callable[..., Tab]]:
    """Opens tabs, with the session unless told otherwise; nothing may go wrong in any of them."""
    tabs: list[Tab] = []

    def one(*, signed_in: bool = True, script: bool = True) -> Tab:
        context = browser.new_context(
            storage_state=session if signed_in else None, java_script_enabled=script
        )
        tabs.append(Tab(context, origin=story.show.stack.url))
        return tabs[-1]

    yield one
    for tab in tabs:
        tab.page.context.close()
    assert [trouble for tab in tabs for trouble in tab.troubles] == []
    assert all(tab.requested for tab in tabs)


@pytest.fixture
def tab(visit: Callable[..., Tab]) -> Tab:
    """A tab of somebody who has logged in."""
    return visit()


def look_over(tab: Tab, name: str, pictures: Path) -> None:
    """Everybody can read a page: in light and dark, wide and narrow."""
    found = {}
    for look in LOOKS:
        tab.wear(look)
        tab.picture(pictures / f"{name}-{look}.png")
        found[look] = [*tab.barriers(look), *(["wider than its window"] if tab.overhang() > 0 else [])]
    assert not any(found.values()), found


@pytest.mark.parametrize("name", PAGES)
def test_everybody_can_read_the_page(name, tab, story, pictures):
    tab.open(story.path(PAGES[name]))
    expect(tab.page.get_by_role("heading", level=1)).to_have_count(1)
    look_over(tab, name, pictures)


@pytest.mark.parametrize("name", FAILURES)
def test_everybody_can_read_what_is_said_where_something_cannot_be_shown(name, tab, pictures):
    path, status = FAILURES[name]
    tab.expects(status, path.partition("?")[0])
    tab.open(path)
    expect(tab.page.get_by_role("navigation", name="Pages")).to_be_visible()
    look_over(tab, name, pictures)


def test_everybody_can_read_what_a_pasted_event_would_lead_to(tab, story, pictures):
    tab.open("/rules")
    event = story.show.event_of(story.lead).replace(story.lead, "lead_of_nobody")
    tab.page.get_by_label("Paste a delivery's body").fill(event)
    tab.button("Explain").click()
    expect(tab.page.get_by_text("rules would ask Close")).to_be_visible()
    expect(tab.page.get_by_role("heading", name="Segment Close would be asked")).to_be_visible()
    expect(tab.page.get_by_text("at most 4 credits")).to_be_visible()
    look_over(tab, "rules-explained", pictures)


def test_what_is_no_event_is_said_to_be_none_and_never_run(tab):
    tab.open("/rules")
    tab.page.get_by_label("Paste a delivery's body").fill(SCRIPTED_NAME)
    tab.expects(400, "/rules/explain")
    tab.button("Explain").click()
    expect(tab.page.get_by_role("alert")).to_be_visible()
    expect(tab.page.get_by_role("textbox")).to_have_value(SCRIPTED_NAME)


def test_a_stranger_logs_in_to_where_they_wanted_to_go_and_leaves_nothing_behind(visit, pictures):
    tab = visit(signed_in=False)
    tab.open("/system")
    look_over(tab, "login", pictures)
    tab.page.get_by_label("Token").fill("something else entirely")
    tab.expects(401, "/login")
    tab.button("Log in").click()
    expect(tab.page.get_by_role("alert")).to_contain_text("That is not the token")
    look_over(tab, "login-refused", pictures)
    tab.page.get_by_label("Token").fill(TOKEN)
    tab.button("Log in").click()
    expect(tab.page.get_by_role("heading", name="System")).to_be_visible()
    tab.button("Log out").click()
    expect(tab.button("Log in")).to_be_visible()
    tab.page.go_back()
    expect(tab.button("Log in")).to_be_visible()
    expect(tab.page.get_by_role("heading", name="System")).to_have_count(0)


@pytest.mark.parametrize("path", ["/", "/activity", "/records/{lead}", "/rules", "/attention", "/system"])
def test_the_tab_key_comes_by_everything_in_order_and_shows_where_it_is(path, tab, story):
    tab.open(story.path(path))
    wanted, came_by, unseen = tab.walk()
    assert len(wanted) > 8
    assert came_by == wanted
    assert unseen == []


@pytest.mark.parametrize("waiting", [None, "123k"])
def test_every_page_of_the_navigation_is_in_sight_on_a_phone(waiting, tab):
    tab.open("/attention")
    tab.wear("narrow")
    nav = tab.page.get_by_role("navigation", name="Pages")
    badge = nav.locator(".badge")
    expect(badge).to_be_visible()
    if waiting is not None:
        badge.evaluate("(one, words) => { one.textContent = words }", waiting)
    frame = nav.bounding_box()
    boxes = [one.bounding_box() for one in nav.get_by_role("link").all()]
    assert len(boxes) == 5
    assert frame["x"] >= 0
    assert frame["x"] + frame["width"] <= NARROW["width"]
    for box in boxes:
        assert box["x"] >= frame["x"]
        assert box["x"] + box["width"] <= frame["x"] + frame["width"]
        assert box["y"] + box["height"] <= frame["y"] + frame["height"]


def test_the_keyboard_skips_the_navigation_and_reaches_what_is_to_be_done(tab):
    tab.open("/attention")
    tab.page.keyboard.press("Tab")
    expect(tab.link("Skip to the contents")).to_be_focused()
    tab.page.keyboard.press("Enter")
    tab.page.keyboard.press("Tab")
    expect(tab.link("Halt…")).to_be_focused()
    tab.page.keyboard.press("Enter")
    expect(tab.page.get_by_role("heading", name="Halt all calls?")).to_be_visible()
    tab.link("Leave it").press("Enter")
    expect(tab.page.get_by_role("heading", name="Calls leave")).to_be_visible()


def test_the_overview_leads_to_what_needs_somebody_and_to_each_record(tab):
    tab.open("/")
    expect(tab.page.get_by_role("status", name="Health")).to_be_visible()
    for name in ("held by the burst guard", "could not be read", "ended without an answer"):
        expect(tab.page.get_by_role("link", name=name)).to_be_visible()
    for title in ("Throughput", "From lead to filled", "Spend"):
        expect(tab.page.get_by_role("heading", name=title)).to_be_visible()
    record = tab.rows("Newest results").first.get_by_role("link")
    name = record.inner_text()
    record.click()
    expect(tab.page.get_by_role("main")).to_contain_text(name)
    assert tab.path == f"/records/{name}"


def test_numbers_change_on_a_page_that_stays_as_it_is(tab, story):
    tab.open("/")
    tab.page.evaluate("window.here = true")
    lead_id = story.show.stack.add_lead()["id"]
    expect(tab.rows("Newest results").filter(has_text=lead_id).first).to_be_visible()
    assert tab.page.evaluate("window.here")
    # what is still to come for that lead would be newer than the page, too, and hide that the next one is not
    story.show.quiet()
    tab.open("/activity")
    expect(tab.rows("Changes").first).to_be_visible()
    lead_id = story.show.stack.add_lead()["id"]
    tab.page.get_by_role("link", name="show the newest").click()
    expect(tab.rows("Changes").filter(has_text=lead_id).first).to_be_visible()


def test_numbers_go_on_after_a_proxy_has_answered_for_the_service(tab, story):
    asked = []

    def answer(route: Route) -> None:
        asked.append(route.request.resource_type)
        if asked.count("eventsource") == 1:
            route.fulfill(status=502, body="Bad Gateway")
        else:
            route.continue_()

    tab.expects(502, "/live")
    tab.page.clock.install()
    tab.page.route("**/live", answer)
    tab.open("/")
    region = tab.page.locator("[data-live]")
    expect(region).to_have_class("stale")
    tab.page.clock.run_for(5_000)
    expect(region).not_to_have_class("stale")
    lead_id = story.show.stack.add_lead()["id"]
    expect(tab.rows("Newest results").filter(has_text=lead_id).first).to_be_visible()


def test_whoever_is_logged_out_meanwhile_is_offered_the_login_where_the_numbers_stand_still(tab):
    tab.expects(401, "/live")
    tab.open("/activity")
    tab.page.context.clear_cookies()
    tab.page.evaluate("dispatchEvent(new PageTransitionEvent('pagehide'))")
    tab.page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
    tab.link("Log in again").click()
    expect(tab.button("Log in")).to_be_visible()
    assert tab.page.url.endswith("/login?next=/activity")


def test_activity_is_filtered_by_what_is_chosen_and_turned_over_page_by_page(tab):
    tab.open("/activity")
    rows = tab.rows("Changes")
    newest = rows.get_by_role("link").first.get_attribute("href")
    assert rows.count() == 50
    tab.link("Older").click()
    expect(tab.link("Newest")).to_be_visible()
    tab.loaded()
    assert rows.get_by_role("link").first.get_attribute("href") != newest
    tab.link("Newest").click()
    expect(tab.link("Newest")).to_have_count(0)
    tab.loaded()
    expect(rows).to_have_count(50)

    tab.page.get_by_label("Rule").select_option("Segment")
    tab.page.get_by_label("State").select_option("filled")
    tab.button("Show").click()
    expect(tab.link("Everything")).to_be_visible()
    tab.loaded()
    assert set(rows.locator('[data-name="Rule"]').all_inner_texts()) == {"Segment"}
    assert rows.count() > 5


def test_a_record_is_found_by_its_id_and_tells_its_story(tab, story):
    tab.open("/activity")
    tab.page.get_by_label("Lead or contact").fill(story.lead)
    tab.page.keyboard.press("Enter")
    tab.link(f"The whole story of {story.lead}").click()
    for rule in ("Industry", "Employee count", "Segment", "Pitch"):
        expect(tab.page.get_by_role("heading", name=rule)).to_be_visible()
    address = f"https://app.close.com/lead/{story.lead}/"
    expect(tab.link("Open in Close")).to_have_attribute("href", address)


def agree(tab: Tab, link: str, *, asked: str, price: str, button: str) -> None:
    """Press what leads to a question, read it, and say yes."""
    tab.link(link).click()
    expect(tab.page.get_by_role("heading", level=1)).to_have_text(asked)
    expect(tab.page.get_by_role("main")).to_contain_text(price)
    tab.button(button).click()


def told(tab: Tab, words: str) -> None:
    """What was done is said at the top of the page that one comes back to."""
    expect(tab.page.get_by_role("main").get_by_role("status").first).to_contain_text(words)


def test_one_dead_letter_is_retried_at_its_price_and_then_filled(tab, story):
    letter = story.show.dead_letter()
    tab.open("/attention")
    link = f"Retry Source of {letter.object_id}"
    tab.link(link).click()
    tab.link("Leave it").click()
    assert story.show.stack.entries(letter.object_id)["Source"].state is State.REJECTED
    agree(tab, link, asked="Retry 1 dead letter?", price="At most 1 credit", button="Retry 1 dead letter")
    told(tab, "Retried 1 dead letter.")
    story.show.stack.entry_when(letter.object_id, "Source", lambda entry: entry.state is State.FILLED)


def test_dead_letters_that_a_filter_means_are_dropped_together(tab, story):
    mine = story.show.dead_letter(lost=True)
    tab.open("/attention")
    dead = tab.page.locator("#dead")
    dead.get_by_label("State").select_option("held")
    dead.get_by_label("Newer than").fill("1h")
    tab.button("Filter").click()
    expect(tab.link("All")).to_be_visible()
    tab.loaded()
    count = tab.rows("Dead letters").count()
    assert count > 1
    agree(
        tab,
        f"Drop {count}…",
        asked=f"Drop {count} dead letters?",
        price="No credit.",
        button=f"Drop {count} dead letters",
    )
    told(tab, f"Dropped {count} dead letters.")
    tab.loaded()
    assert tab.rows("Dead letters").filter(has_text=mine.object_id).count() == 0


def test_what_the_burst_guard_holds_goes_when_somebody_releases_it(tab, story):
    lead_ids = story.show.hold(2)
    tab.open("/attention")
    tab.page.locator("#held").get_by_role("link", name="Release…", exact=True).last.click()
    heading = tab.page.get_by_role("heading", level=1)
    expect(heading).to_contain_text("held enrichments?")
    count = int(tab.page.get_by_label("How many").input_value())
    expect(tab.page.get_by_role("main")).to_contain_text(f"At most {count} credits")
    tab.button("Release").click()
    told(tab, f"Released {count} held enrichments.")
    expect(tab.page.get_by_text("The burst guard holds nothing")).to_be_visible()
    story.show.stack.ended(lead_ids[-1], "Pitch")


def test_calls_are_halted_for_a_reason_that_everybody_reads_and_resumed(tab, pictures):
    tab.open("/attention/halt")
    tab.page.get_by_label("Why").fill("The guidance is being rewritten")
    tab.button("Halt all calls").click()
    told(tab, "No call leaves until somebody resumes.")
    expect(tab.page.get_by_text("The guidance is being rewritten")).to_be_visible()
    look_over(tab, "attention-halted", pictures)
    tab.open("/")
    expect(tab.page.get_by_role("status", name="Health")).to_contain_text("All calls are halted")
    look_over(tab, "overview-halted", pictures)
    tab.link("All calls are halted").click()
    agree(tab, "Resume…", asked="Let calls leave again?", price="within the budgets", button="Resume")
    told(tab, "Calls leave again.")
    expect(tab.page.get_by_role("heading", name="Calls leave")).to_be_visible()


def test_a_field_that_is_left_alone_is_tried_when_somebody_says_so(tab, story):
    story.show.leave_alone("Industry")
    tab.open("/attention")
    agree(tab, "Try Industry now", asked="Try Industry now?", price="At most 1 credit", button="Try now")
    told(tab, "The next call for that field is tried at once.")
    lead_id = story.show.stack.add_lead()["id"]
    story.show.stack.ended(lead_id, "Industry")
    tab.open("/attention")
    expect(tab.link("Try Industry now")).to_have_count(0)
    expect(tab.link("Try Markets now")).to_be_visible()


def test_a_quarantined_delivery_is_shown_retried_and_deleted(tab, story):
    body = story.show.quarantine({"event": SCRIPTED_NAME})
    tab.open("/attention")
    tab.link(f"Show {body}, which is personal").click()
    expect(tab.page.get_by_role("main")).to_contain_text(SCRIPTED_NAME)
    tab.open("/attention")
    agree(
        tab,
        f"Retry {body}",
        asked="Retry 1 delivery?",
        price="The credits that rules then spend",
        button="Retry 1 delivery",
    )
    told(tab, "Handed 1 delivery to web.")
    # nothing has changed that could read it, so it comes back under a new id
    again = tab.rows("Quarantine").filter(has_text="event").first
    tab.open("/attention")
    expect(tab.rows("Quarantine").filter(has_text=body)).to_have_count(0)
    again.get_by_role("link", name="Delete").click()
    tab.button("Delete 1 delivery").click()
    told(tab, "Deleted 1 delivery.")


def test_everything_works_where_scripts_are_not_run(visit, story):
    letter = story.show.dead_letter()
    tab = visit(script=False)
    tab.open("/")
    expect(tab.rows("Newest results").first).to_be_visible()
    tab.open("/attention")
    agree(
        tab,
        f"Drop Source of {letter.object_id}",
        asked="Drop 1 dead letter?",
        price="No credit.",
        button="Drop 1 dead letter",
    )
    told(tab, "Dropped 1 dead letter.")
    assert not any("/live" in one for one in tab.requested)
