"""The commands about money: `cost`, `halt`, `resume`, `release`, and what `status` says about it all."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import pty
import re
import subprocess
import sys
import zoneinfo
from types import SimpleNamespace

import pytest
from ledger_box import event, wanted
from money_box import zone_where_it_is_noon
from stack_parts import PROJECT

from service import jobs, keys
from service.brakes import PERSON, Halt
from service.costs import METRICS
from service.enrichment import State
from service.rules import Burst

BUDGETS = """
version: 1
budget: {per_day: 20, on_exhausted: drop, burst: {most: 5, within: 1m}}
rules:
  - {name: Industry, object: lead, field: Industry, budget: {per_month: 100}}
  - {name: Pitch, object: lead, field: Pitch}
"""
ZONE = zone_where_it_is_noon()
BREAKER = {"name": "Pitch", "rule": "Pitch", "timeouts": 5, "until_ms": 1_791_970_212_000}


@pytest.fixture
def cli(cli, redis_url, tmp_path):
    """Run a command to its end; where a text as `says` is typed, in a process at a real terminal."""
    in_process = cli

    def run(*arguments, says=None, **settings):
        settings = {"RULES_FILE": str(tmp_path / "rules.yaml"), "COLUMNS": "120", **settings}
        if says is None:
            return in_process(*arguments, **settings)
        with contextlib.ExitStack() as cleanup:
            ours, stdin = pty.openpty()
            cleanup.callback(os.close, ours)
            cleanup.callback(os.close, stdin)
            os.write(ours, says.encode())
            done = subprocess.run(
                [sys.executable, "-m", "service.cli.main", *arguments],
                env={"PATH": os.environ["PATH"], "NO_COLOR": "1", "REDIS_URL": redis_url, **settings},
                cwd=PROJECT,
                stdin=stdin,
                capture_output=True,
                text=True,
                timeout=180,
                check=False,
            )
        return SimpleNamespace(exit_code=done.returncode, stdout=done.stdout, stderr=done.stderr)

    return run


@pytest.fixture
def holding(ask):
    """Three enrichments of rule Industry held by the burst guard, two of rule Pitch."""

    async def hold(box):
        for at, rule in enumerate(("Industry", "Pitch", "Industry", "Pitch", "Industry")):
            item = wanted(object_id=f"lead_{at}", rule=rule)
            (one,) = await box.accepter.accept(
                event(object_id=f"lead_{at}"), [item], burst=Burst(most=0, within_seconds=60)
            )
            await box.redis.zadd(keys.HELD, {one.enrichment: 1_000 + at})

    ask(hold)


def printed(done):
    assert (done.exit_code, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_halt_stops_calls_and_resume_lets_them_leave_again_and_both_say_when_it_was_so_already(cli, ask):
    first = cli("halt", "--reason", "the bill is too high")
    halt = ask(lambda box: box.ledger.brakes.halted())
    again = cli("halt", "--reason", "another")
    resumed = cli("resume")

    assert (halt.reason, halt.kind) == ("the bill is too high", PERSON)
    assert first.stdout.startswith("Halted: no call leaves until `close-enrich resume`.")
    assert re.fullmatch(r"Halted already since 20\S+ \S+ UTC: the bill is too high\n", again.stdout)
    assert re.fullmatch(r"Calls leave again\. Halted since 20.* UTC: the bill is too high\n", resumed.stdout)
    assert ask(lambda box: box.ledger.brakes.halted()) is None
    assert cli("resume").stdout == "Calls were not halted; nothing has changed.\n"
    assert {done.exit_code for done in (first, again, resumed)} == {0}


def test_halt_and_resume_as_json(cli):
    first, again = printed(cli("halt", "--json")), printed(cli("halt", "--json", "--reason", "another"))
    resumed, not_halted = printed(cli("resume", "--json")), printed(cli("resume", "--json"))

    since_ms = first["halted"]["since_ms"]
    halted = {"reason": "a person halted it", "kind": "person", "since_ms": since_ms}
    assert first == {"changed": True, "halted": halted}
    assert again == {"changed": False, "halted": halted}
    assert resumed == {"changed": True, "was_halted": halted}
    assert not_halted == {"changed": False, "was_halted": None}


def test_a_persons_halt_replaces_an_automatic_one(cli, ask):
    ask(lambda box: box.ledger.brakes.halt(reason="Close refused the API key", kind="key"))

    assert printed(cli("halt", "--json"))["changed"] is True
    halt = ask(lambda box: box.ledger.brakes.halted())
    assert halt == Halt(reason="a person halted it", kind=PERSON, since_ms=halt.since_ms)


@pytest.mark.usefixtures("holding")
def test_release_shows_the_price_and_asks_before_it_lets_go(cli, ask):
    declined = cli("release", says="n\n")
    assert declined.exit_code == 1
    assert "Nothing was released." in declined.stderr
    assert ask(lambda box: box.queued()) == []

    agreed = cli("release", "--limit", "4", says="y\n")

    assert agreed.exit_code == 0
    assert "Release 4, for at most 4 credits?" in agreed.stderr
    assert re.search(r"Industry +3 +3 +1970-01-01 00:00:01\.0", agreed.stdout)
    assert re.search(r"Pitch +2 +2 +1970-01-01 00:00:01\.0", agreed.stdout)
    assert agreed.stdout.endswith("Released 4; 1 still held.\n")
    assert len(ask(lambda box: box.queued())) == 4


@pytest.mark.usefixtures("holding")
def test_release_with_nobody_to_ask_releases_nothing(cli, ask):
    done = cli("release", "--rule", "Pitch")

    assert done.exit_code == 2
    assert done.stderr == (
        "releasing 2 costs at most 2 credits, and there is no terminal to ask at: "
        "add --yes to release, or --dry-run to look\n"
    )
    assert ask(lambda box: box.queued()) == []


@pytest.mark.usefixtures("holding")
def test_release_of_one_rule_in_part_as_json(cli, ask):
    looked = printed(cli("release", "--rule", "Industry", "--limit", "1", "--dry-run", "--json"))
    released = printed(cli("release", "--rule", "Industry", "--limit", "1", "--yes", "--json"))

    held = [{"rule": "Industry", "held": 3, "credits_at_most": 3, "oldest_ms": 1_000}]
    assert looked == {"held": held, "dry_run": True, "released": 0, "left": 5}
    assert released == {"held": held, "dry_run": False, "released": 1, "left": 4}
    assert len(ask(lambda box: box.queued())) == 1


@pytest.mark.usefixtures("holding")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--dry-run"], "Would release 5, for at most 5 credits. Nothing was released."),
        (["--dry-run", "--limit", "1"], "Would release 1, for at most 1 credit. Nothing was released."),
        (
            ["--rule", "Industri"],
            "The burst guard holds nothing of rule 'Industri'; did you mean 'Industry'?",
        ),
        (["--rule", "Seniority"], "The burst guard holds nothing of rule 'Seniority'"),
    ],
)
def test_where_nothing_is_to_be_released_nobody_is_asked(cli, ask, arguments, said):
    done = cli("release", *arguments)

    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.endswith(f"{said}\n")
    assert ask(lambda box: box.queued()) == []


def test_a_rules_name_is_printed_as_it_is(cli, ask):
    async def hold(box):
        item = wanted(rule="Pitch [red]")
        await box.accepter.accept(event(), [item], burst=Burst(most=0, within_seconds=60))

    ask(hold)

    assert "Pitch [red]" in cli("release", "--dry-run").stdout


def test_release_of_nothing(cli):
    assert cli("release").stdout == "The burst guard holds nothing.\n"
    assert printed(cli("release", "--yes", "--json")) == {
        "held": [],
        "dry_run": False,
        "released": 0,
        "left": 0,
    }


@pytest.fixture
def spending(ask):
    """One field found and one wanted again today; one empty yesterday, one call that did not run."""

    async def spend(box):
        today = dt.datetime.now(zoneinfo.ZoneInfo(ZONE)).date()
        for day, name, count in (
            (today, "Industry\tIndustry\tcalls", 3),
            (today, "Industry\tIndustry\tunpaid", 1),
            (today, "Industry\tIndustry\tfound", 2),
            (today, "Industry\tIndustry\tduplicates", 4),
            (today, "Pitch\tElevator pitch\tskipped", 7),
            (today - dt.timedelta(days=1), "Pitch\tElevator pitch\tcalls", 5),
            (today - dt.timedelta(days=1), "Pitch\tElevator pitch\tempty", 4),
            (today - dt.timedelta(days=1), "Pitch\tElevator pitch\tconfirmed", 1),
        ):
            await box.redis.hset(keys.cost(day.isoformat()), name, count)
        return today

    return ask(spend)


def counts(**changed):
    return {**dict.fromkeys(METRICS, 0), **changed}


@pytest.mark.parametrize(
    ("by", "names"),
    [
        ("rule", ["Pitch", "Industry"]),
        ("field", ["Elevator pitch", "Industry"]),
    ],
)
def test_cost_by_rule_and_field_as_json(cli, spending, by, names):
    found = printed(cli("cost", "--by", by, "--json", BUDGET_TIMEZONE=ZONE))

    pitch = counts(calls=5, paid=5, empty=4, skipped=7, confirmed=1)
    industry = counts(calls=3, paid=2, found=2, duplicates=4)
    assert list(found) == ["by", "since", "until", "timezone", "lines", "total", "budgets"]
    assert found["by"] == by
    assert found["since"] == (spending - dt.timedelta(days=29)).isoformat()
    assert (found["until"], found["timezone"]) == (spending.isoformat(), ZONE)
    assert found["lines"] == [{by: names[0], **pitch}, {by: names[1], **industry}]
    assert found["total"] == counts(calls=8, paid=7, found=2, empty=4, skipped=7, confirmed=1, duplicates=4)
    assert found["budgets"] is None


@pytest.mark.parametrize("which", ["--days", "--since"])
def test_cost_of_some_days(cli, spending, which):
    days = {"--days": "1", "--since": spending.isoformat()}
    found = printed(cli("cost", "--by", "day", which, days[which], "--json", BUDGET_TIMEZONE=ZONE))

    assert [line["day"] for line in found["lines"]] == [spending.isoformat()]
    assert found["total"]["calls"] == 3


def test_cost_by_day_is_in_order_and_goes_by_the_time_zone_of_budgets(cli, spending):
    zone = "Pacific/Kiritimati"
    before = dt.datetime.now(zoneinfo.ZoneInfo(zone)).date()
    found = printed(cli("cost", "--by", "day", "--json", BUDGET_TIMEZONE=zone))
    after = dt.datetime.now(zoneinfo.ZoneInfo(zone)).date()

    yesterday = spending - dt.timedelta(days=1)
    assert [line["day"] for line in found["lines"]] == [yesterday.isoformat(), spending.isoformat()]
    assert found["timezone"] == zone
    assert found["until"] in {before.isoformat(), after.isoformat()}


@pytest.mark.usefixtures("spending")
def test_cost_for_people_has_totals(cli):
    done = cli("cost", BUDGET_TIMEZONE=ZONE)

    assert done.exit_code == 0
    for heading in ("calls", "paid", "found", "empty", "skipping", "reading back", "dedupe"):
        assert heading in done.stdout
    assert re.search(r"Industry +3 +2 +2 +0 +0 +0 +4 *\n", done.stdout)
    assert re.search(r"total +8 +7 +2 +4 +7 +1 +4 *\n", done.stdout)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--since", "2099-01-01"], r"--since 2099-01-01 is in the future; today is 20"),
        (["--since", "2020-01-01"], r"--since 2020-01-01 is too long ago: prices are kept for 400 days"),
        (["--since", "yesterday"], r"does not match the format '%Y-%m-%d'"),
        (["--days", "401"], r"1<=x<=400"),
        (["--days", "3", "--since", "2026-01-01"], r"give one of them"),
        (["--by", "person"], r"'person' is not one of 'rule', 'field', 'day'"),
    ],
)
def test_a_wrong_span_or_column_is_told_with_what_was_expected(cli, arguments, said):
    done = cli("cost", *arguments)

    assert (done.exit_code, done.stdout) == (2, "")
    assert re.search(said, done.stderr)


def test_budgets_are_shown_with_what_is_spent_of_them(cli, ask, tmp_path):
    (tmp_path / "rules.yaml").write_text(BUDGETS)
    zone = zoneinfo.ZoneInfo(ZONE)
    now = dt.datetime.now(zone)

    async def spend(box):
        await box.redis.set(keys.spent("all", now.strftime("%Y-%m-%d")), 20)
        await box.redis.set(keys.spent("rule:Industry", now.strftime("%Y-%m")), 30)

    ask(spend)
    of_all, of_rule = printed(cli("status", "--json", BUDGET_TIMEZONE=ZONE))["budgets"]
    for_people = cli("cost", BUDGET_TIMEZONE=ZONE).stdout

    tomorrow = dt.datetime.combine(now.date() + dt.timedelta(days=1), dt.time(), zone)
    assert of_all == {
        "budget": "20 credits a day for all rules",
        "limit": 20,
        "spent": 20,
        "left": 0,
        "on_exhausted": "drop",
        "ends_ms": round(tomorrow.timestamp() * 1000),
    }
    assert (of_rule["budget"], of_rule["spent"], of_rule["left"]) == (
        "100 credits a month for rule Industry",
        30,
        70,
    )
    assert re.search(r"20 credits a day for all rules +20 +0 +20", for_people)
    assert re.search(
        r"100 credits a month for rule Industry +30 +70 +20", cli("status", BUDGET_TIMEZONE=ZONE).stdout
    )


@pytest.mark.parametrize("content", ["version: 2\n", "version: 1\nrules: []\n"])
def test_without_usable_rules_or_budgets_there_is_nothing_to_compare(cli, tmp_path, content):
    (tmp_path / "rules.yaml").write_text(content)

    assert printed(cli("status", "--json"))["budgets"] == ([] if "rules" in content else None)
    assert "Budgets" not in cli("status").stdout


@pytest.mark.usefixtures("holding")
def test_status_tells_what_keeps_calls_from_leaving(cli, ask):
    async def trouble(box):
        await box.ledger.brakes.halt(reason="Close refused the API key (401)", kind="key")
        await box.redis.sadd(keys.BREAKERS, "cf_pitch")
        await box.redis.hset(keys.breaker("cf_pitch"), mapping=BREAKER)

    ask(trouble)
    found = printed(cli("status", "--json"))
    for_people = " ".join(cli("status").stdout.split())

    assert found["states"][State.WAITING] == 5
    assert found["queues"][jobs.LIVE_QUEUE] == {"queued": 0, "scheduled": 0}
    assert (found["halted"]["kind"], found["halted"]["reason"]) == ("key", "Close refused the API key (401)")
    assert found["burst_guard"] == {"held": 5, "credits_at_most": 5}
    (breaker,) = found["breakers"]
    assert breaker == {
        "field": "Pitch",
        "field_id": "cf_pitch",
        "rule": "Pitch",
        "timeouts": 5,
        "until_ms": 1_791_970_212_000,
        "hint": breaker["hint"],
    }
    assert breaker["hint"] in for_people
    assert "Simplify the field's guidance in Close" in breaker["hint"]
    assert "The burst guard holds 5, at most as many credits: close-enrich release" in for_people
    assert "UTC, by itself; a call is tried every few minutes: Close refused the API key" in for_people


def test_status_says_that_a_person_has_halted_calls(cli):
    cli("halt", "--reason", "lunch")

    assert "UTC, by a person: lunch" in " ".join(cli("status").stdout.split())
