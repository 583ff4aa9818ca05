"""What `doctor` makes of what it sees: one table of cases a check."""

from __future__ import annotations

import json
from dataclasses import replace
from email.utils import formatdate

import pytest

from service.alerts import Broken, Halted, Observation, UsedUp
from service.binding import Bindings, BoundRule, UnboundRule
from service.doctor import (
    OLDEST_SECONDS,
    SILENT_SECONDS,
    Finding,
    State,
    WorkerSeen,
    in_force_finding,
    pace_finding,
    redis_finding,
    rules_file_finding,
    settings_finding,
    span,
    work_findings,
    workers_finding,
)
from service.doctor_address import Answered, address_findings
from service.rules import ObjectType, Rule
from service.rules_file import load_rules
from workers.doctor import (
    SKEW_SECONDS,
    clock_finding,
    fields_finding,
    key_findings,
    key_known_finding,
    subscription_finding,
)
from workers.subscription import Failed, Interest, Subscription
from workers.webhook_reply import Trouble

OK, WARNING, PROBLEM, NOT_CHECKED = State.OK, State.WARNING, State.PROBLEM, State.NOT_CHECKED
NOW_MS = 1_791_970_212_000
NOW_SECONDS = NOW_MS / 1000


def states(findings: list[Finding]) -> dict[str, State]:
    return {one.check: one.state for one in findings}


def finding_of(findings: list[Finding], check: str) -> Finding:
    (found,) = (one for one in findings if one.check == check)
    return found


def test_misspelt_settings_are_a_warning():
    assert settings_finding(()).state is OK
    found = settings_finding(("CLOSE_API_KEI: no such setting", "PORTT: no such setting"))
    assert (found.state, found.finding) == (
        WARNING,
        "CLOSE_API_KEI: no such setting; PORTT: no such setting",
    )


@pytest.mark.parametrize(
    ("problems", "notes", "readable", "state", "words"),
    [
        ((), (), True, OK, "valkey 9.1: keeps what it is given"),
        ((), ("everysec",), True, OK, "valkey 9.1: everysec"),
        ((), ("INFO is refused",), False, WARNING, "valkey 9.1: INFO is refused"),
        (("evicts", "forgets"), ("note",), True, PROBLEM, "valkey 9.1: evicts; forgets"),
    ],
)
def test_what_redis_would_lose_is_a_problem(problems, notes, readable, state, words):
    found = redis_finding(name="valkey", version="9.1", problems=problems, notes=notes, readable=readable)
    assert (found.state, found.finding, bool(found.fix)) == (state, words, state is not OK)


RULE = "{name: Pitch, object: lead, field: Pitch}"


@pytest.mark.parametrize(
    ("text", "state", "words"),
    [
        (f"{{version: 1, rules: [{RULE}]}}", OK, "1 of 1 rules enabled, no mistakes"),
        ("{version: 1, rules: []}", PROBLEM, "no rule is enabled"),
        ("{version: 1, rules: [{name: Pitch, object: leed, field: Pitch}, 5]}", PROBLEM, "(and 1 more)"),
        ("{", PROBLEM, "rules.yaml:1:"),
        (
            "{version: 1, rules: [{name: Pitch, object: lead, field: Pitch, when: lead.nam != ''}]}",
            WARNING,
            "lead.nam",
        ),
    ],
)
def test_a_rules_file_with_mistakes_is_a_problem(text, state, words):
    found = rules_file_finding(load_rules(text, source="rules.yaml"))
    assert found.state is state
    assert words in found.finding


def test_a_rules_file_that_cannot_be_read_is_a_problem():
    assert rules_file_finding("rules.yaml cannot be read").state is PROBLEM


@pytest.mark.parametrize(
    ("seen", "state", "words"),
    [
        ({}, OK, "the same for all of 2 processes"),
        ({"processes": 1}, OK, "the same for all of 1 process"),
        ({"here": None}, OK, "the same"),
        ({"processes": 0}, NOT_CHECKED, "no running process"),
        ({"problem": "web: broken"}, PROBLEM, "web: broken"),
        ({"difference": "web differs"}, WARNING, "web differs"),
        ({"here": "b"}, WARNING, "other rules than the file here"),
    ],
)
def test_which_rules_are_in_force_is_said(seen, state, words):
    facts = {"processes": 2, "problem": "", "difference": "", "digests": ["a", "a"], "here": "a"}
    found = in_force_finding(**facts | seen)
    assert found.state is state
    assert words in found.finding


HEARD = WorkerSeen(name="a", host="one", silent_seconds=4.4)
SILENT = WorkerSeen(name="b", host="", silent_seconds=SILENT_SECONDS + 100)


@pytest.mark.parametrize(
    ("seen", "state", "words"),
    [
        ([], PROBLEM, "none is alive: what is accepted waits"),
        ([HEARD], OK, "1 alive on one, last heard 4 s ago"),
        ([replace(HEARD, host="", silent_seconds=None)], OK, "1 alive"),
        ([HEARD, SILENT], WARNING, "1 of 2 silent for up to 2 min: b on an unknown host"),
    ],
)
def test_that_nobody_works_is_a_problem(seen, state, words):
    found = workers_finding(seen)
    assert (found.state, found.finding) == (state, words)


BROKEN = Broken(field_id="cf_1", field_name="Pitch", rule="Pitch", timeouts=5)
QUIET = Observation(now_ms=NOW_MS)


@pytest.mark.parametrize(
    ("seen", "check", "state", "words"),
    [
        ({}, "halt", OK, "calls may leave"),
        (
            {"halt": Halted(reason="the bill", by_person=True, since_ms=NOW_MS - 600_000)},
            "halt",
            WARNING,
            "all calls are halted by a person for 10 min: the bill",
        ),
        (
            {"halt": Halted(reason="402", by_person=False, since_ms=NOW_MS)},
            "halt",
            PROBLEM,
            "all calls are halted by itself for 0 s: 402",
        ),
        ({}, "waiting work", OK, "nothing waits that could run"),
        ({"oldest_due_ms": NOW_MS - 1000}, "waiting work", OK, "the oldest could have run 1 s ago"),
        (
            {"oldest_due_ms": NOW_MS - (OLDEST_SECONDS + 1) * 1000},
            "waiting work",
            WARNING,
            "the oldest could have run 5 min ago",
        ),
        ({"used_up": (UsedUp(words="5 a day", drops=True),)}, "budgets", WARNING, "used up: 5 a day"),
        ({"held": 2}, "burst guard", WARNING, "holds 2 enrichments, at most as many credits"),
        ({"broken": (BROKEN,)}, "timeouts", WARNING, "not called, because calls keep timing out: Pitch"),
        ({"dead_letters": 1}, "dead letters", WARNING, "1 enrichment ended without an answer"),
        ({"quarantined": 3}, "quarantine", WARNING, "3 deliveries could not be read"),
    ],
)
def test_what_keeps_work_from_being_done_is_named(seen, check, state, words):
    found = work_findings(replace(QUIET, **seen))
    one = finding_of(found, check)
    assert (one.state, one.finding, bool(one.fix)) == (state, words, state is not OK)
    assert {other.state for other in found if other is not one} == {OK}


@pytest.mark.parametrize(
    ("rate", "limit", "parked", "words"),
    [
        (None, None, 0, "nothing learned from Close yet"),
        (4.26, None, 0, "about 4.3 calls a second"),
        (1000.2, 2000.0, 12.4, "about 1000 calls a second (its limit: 2000); no call for 12 s more"),
    ],
)
def test_the_pace_is_told(rate, limit, parked, words):
    found = pace_finding(rate_per_second=rate, limit=limit, parked_seconds=parked)
    assert (found.state, found.finding[: len(words)]) == (OK, words)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-1, "0 s"), (90, "90 s"), (120, "2 min"), (7200, "2 h"), (3 * 86_400, "3 days")],
)
def test_a_length_of_time_is_said_as_people_say_it(seconds, words):
    assert span(seconds) == words


URL = "https://enrich.example.com/webhooks/close"
TAKEN = Answered(status=200, body=b'{"status": "ignored"}')
REFUSED = Answered(status=401, body=b'{"error": "the signature matches no key"}')
AWAY = Answered(failure="Connection refused")


@pytest.mark.parametrize(
    ("genuine", "forged", "expected"),
    [
        pytest.param(TAKEN, REFUSED, {"public address": OK, "signature": OK}, id="as it should be"),
        pytest.param(replace(TAKEN, status=202), REFUSED, {"public address": OK, "signature": OK}, id="202"),
        pytest.param(TAKEN, TAKEN, {"public address": OK, "signature": PROBLEM}, id="takes a forgery"),
        pytest.param(TAKEN, AWAY, {"public address": OK, "signature": PROBLEM}, id="gone in between"),
        pytest.param(None, REFUSED, {"public address": OK, "signature": NOT_CHECKED}, id="no key here"),
        pytest.param(None, AWAY, {"public address": WARNING}, id="nobody there, no key"),
        pytest.param(AWAY, AWAY, {"public address": WARNING}, id="nobody there"),
        pytest.param(
            Answered(failure="expired", untrusted=True), AWAY, {"public address": PROBLEM}, id="certificate"
        ),
        pytest.param(REFUSED, REFUSED, {"public address": PROBLEM}, id="does not know our key"),
        pytest.param(
            replace(REFUSED, status=503), REFUSED, {"public address": PROBLEM}, id="takes nothing now"
        ),
        pytest.param(Answered(status=301), REFUSED, {"public address": PROBLEM}, id="redirects"),
        pytest.param(Answered(status=404), REFUSED, {"public address": PROBLEM}, id="another path"),
        pytest.param(Answered(status=200, body=b"<html>"), REFUSED, {"public address": PROBLEM}, id="a page"),
        pytest.param(Answered(status=200, body=b"[1]"), REFUSED, {"public address": PROBLEM}, id="a list"),
        pytest.param(None, TAKEN, {"public address": PROBLEM}, id="takes a forgery, no key here"),
        pytest.param(Answered(status=200, body=b"[" * 5000), REFUSED, {"public address": PROBLEM}, id="deep"),
    ],
)
def test_only_a_receiver_that_takes_what_is_genuine_and_nothing_else_is_in_order(genuine, forged, expected):
    found = address_findings(genuine, forged, address=URL)
    assert states(found) == expected
    assert finding_of(found, "public address").finding.startswith(URL)
    assert all(one.fix for one in found if one.state in {WARNING, PROBLEM})


ME = {
    "organizations": [{"id": "orga_1", "name": "Brindlemoor\x1b Joinery"}],
    "memberships": [
        {"organization_id": "orga_1", "permissions_granted": ["manage_organization", "ai_enrich"]}
    ],
}
TWO = {"organizations": [{"id": "orga_1"}, {"id": "orga_2"}, {}]}
KEYS_OWN = ("API key", "organization", "admin", "ai_enrich")


@pytest.mark.parametrize(
    ("me", "organization_id", "expected"),
    [
        pytest.param(ME, None, (OK, OK, OK, OK), id="an admin's"),
        pytest.param(ME, "orga_1", (OK, OK, OK, OK), id="the organization known by its fields"),
        pytest.param(
            ME | {"memberships": [{"organization_id": "orga_1", "permissions_granted": []}]},
            None,
            (OK, OK, WARNING, WARNING),
            id="may do little",
        ),
        pytest.param(
            ME | {"memberships": [{"organization_id": "orga_1"}]},
            None,
            (OK, OK, NOT_CHECKED, NOT_CHECKED),
            id="no permissions shown",
        ),
        pytest.param(
            ME | {"memberships": [{"organization_id": "orga_9", "permissions_granted": []}, 7]},
            None,
            (OK, OK, NOT_CHECKED, NOT_CHECKED),
            id="a member elsewhere",
        ),
        pytest.param(TWO, None, (OK, NOT_CHECKED, NOT_CHECKED, NOT_CHECKED), id="several organizations"),
        pytest.param(TWO, "orga_2", (OK, OK, NOT_CHECKED, NOT_CHECKED), id="one of several"),
        pytest.param({}, None, (OK, NOT_CHECKED, NOT_CHECKED, NOT_CHECKED), id="nothing shown"),
        pytest.param({"organizations": 5}, None, (OK, NOT_CHECKED, NOT_CHECKED, NOT_CHECKED), id="a number"),
    ],
)
def test_what_a_key_may_do_is_told_as_far_as_close_shows_it(me, organization_id, expected):
    found = key_findings(me, organization_id=organization_id)
    assert states(found) == dict(zip(KEYS_OWN, expected, strict=True))
    assert "\x1b" not in json.dumps([one.finding for one in found], ensure_ascii=False)


@pytest.mark.parametrize(
    ("status", "state"),
    [(401, PROBLEM), (403, PROBLEM), (None, PROBLEM), (429, NOT_CHECKED), (500, NOT_CHECKED)],
)
def test_a_key_that_close_refuses_is_a_problem_and_a_busy_close_is_none(status, state):
    (found,) = key_findings(Trouble(reason="Close says no", status=status), organization_id=None)
    assert (found.check, found.state) == ("API key", state)
    assert "Close says no" in found.finding


@pytest.mark.parametrize(
    ("date", "state", "words"),
    [
        (formatdate(NOW_SECONDS, usegmt=True), OK, "within 30 s"),
        (formatdate(NOW_SECONDS - SKEW_SECONDS, usegmt=True), OK, "within 30 s"),
        (formatdate(NOW_SECONDS - 40, usegmt=True), WARNING, "40 s ahead of Close's"),
        (formatdate(NOW_SECONDS + 40, usegmt=True), WARNING, "40 s behind Close's"),
        (None, NOT_CHECKED, "did not tell"),
        ("yesterday", NOT_CHECKED, "did not tell"),
        ("Mon, 99 Nov 2026 17:00:00 GMT", NOT_CHECKED, "did not tell"),
    ],
)
def test_a_clock_that_is_off_is_a_warning(date, state, words):
    found = clock_finding(date, now_seconds=NOW_SECONDS)
    assert found.state is state
    assert words in found.finding


PITCH = Rule(name="Pitch", object_type=ObjectType.LEAD, field="Pitch")
BOUND = BoundRule(rule=PITCH, field_id="cf_1", field_name="Pitch", triggers=())


@pytest.mark.parametrize(
    ("bindings", "state", "words"),
    [
        (None, NOT_CHECKED, "could not be read"),
        (Bindings(bound=(BOUND,)), OK, "1 rule has its field in Close"),
        (Bindings(bound=(BOUND, BOUND)), OK, "2 rules have theirs in Close"),
        (Bindings(bound=(BOUND,), warnings=("twice",)), WARNING, "twice"),
        (
            Bindings(unbound=(UnboundRule(rule=PITCH, problem="no such field"),)),
            PROBLEM,
            "rule Pitch cannot run: no such field",
        ),
    ],
)
def test_a_rule_without_its_field_is_a_problem(bindings, state, words):
    found = fields_finding(bindings)
    assert found.state is state
    assert words in found.finding


LEAD = Interest(object_type="lead", action="created")
NARROW = replace(LEAD, extra_filter={"type": "non_null"})
ONE = Subscription(id="whsub_a", url=URL, events=(LEAD,), delivered=1)
FAILED = Failed(at="2026-10-14T09:30", how="503")
NEXT = Subscription(id="whsub_b", url=f"{URL}?rotation=1", events=(LEAD,), delivered=2)


@pytest.mark.parametrize(
    ("listed", "facts", "state", "words"),
    [
        pytest.param([ONE], {}, OK, "whsub_a is active, 1 delivery has succeeded", id="in order"),
        pytest.param(
            [replace(ONE, delivered=2)], {"keyed": None}, OK, "2 deliveries have", id="keys by hand"
        ),
        pytest.param(Trouble(reason="Close is away"), {}, NOT_CHECKED, "Close is away", id="not to be had"),
        pytest.param([ONE], {"url": None}, NOT_CHECKED, "PUBLIC_URL is not set", id="no address"),
        pytest.param([], {}, PROBLEM, "none delivers to PUBLIC_URL", id="none"),
        pytest.param([replace(ONE, url="https://b.example")], {}, PROBLEM, "none delivers", id="elsewhere"),
        pytest.param([replace(ONE, status="paused")], {}, PROBLEM, "Close delivers nothing", id="paused"),
        pytest.param(
            [replace(ONE, status="paused")],
            {"left_paused": ["whsub_a"]},
            WARNING,
            "by a person",
            id="by a person",
        ),
        pytest.param([replace(ONE, failing_buckets=7)], {}, PROBLEM, "for about 7 h", id="failing"),
        pytest.param(
            [ONE], {"keyed": ["whsub_z"]}, PROBLEM, "key that is not known", id="its key is not known"
        ),
        pytest.param([replace(ONE, events=())], {}, PROBLEM, "does not deliver lead.created", id="an event"),
        pytest.param([replace(ONE, events=(NARROW,))], {}, WARNING, "holds back some of", id="a filter"),
        pytest.param(
            [ONE, replace(ONE, id="whsub_0")], {}, WARNING, "whsub_0 delivers here as well", id="twice"
        ),
        pytest.param([ONE, NEXT], {}, OK, "whsub_b replaces whsub_a", id="a rotation"),
        pytest.param(
            [replace(ONE, failed=FAILED, succeeded_at="2026-10-14T10:00")],
            {},
            OK,
            "1 delivery has succeeded; the last failure was 503 at 2026-10-14T09:30",
            id="a failure that is over",
        ),
        pytest.param(
            [replace(ONE, failed=FAILED, succeeded_at="2026-10-14T09:00")],
            {},
            WARNING,
            "its newest delivery failed; the last failure was 503 at 2026-10-14T09:30",
            id="a failure just now",
        ),
    ],
)
def test_the_first_thing_wrong_with_the_subscription_is_told(listed, facts, state, words):
    known = {"url": URL, "needed": (LEAD,), "left_paused": (), "keyed": ["whsub_a", "whsub_b"]}
    found = subscription_finding(listed, **known | facts)
    assert found.state is state
    assert words in found.finding
    assert bool(found.fix) is (state in {WARNING, PROBLEM})


@pytest.mark.parametrize(
    ("learned", "named", "state", "words"),
    [
        (0, 0, PROBLEM, "none is known: deliveries are answered 503"),
        (2, 0, OK, "2 learned"),
        (1, 1, OK, "1 learned, 1 in CLOSE_SIGNATURE_KEYS"),
        (0, 1, OK, "1 in CLOSE_SIGNATURE_KEYS"),
    ],
)
def test_without_any_signature_key_nothing_can_be_accepted(learned, named, state, words):
    found = key_known_finding(learned=learned, named=named)
    assert (found.state, found.finding) == (state, words)
