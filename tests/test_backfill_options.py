"""What the options of `backfill` mean, and what is said about wrong ones."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace

import pytest
from click.testing import CliRunner
from receiver_box import rulebook

from service.brakes import Halt
from service.cli.backfill_order import Wish, order_or_exit
from service.cli.backfill_price import Ceiling, Price, duration, gap_lines, price_lines
from service.cli.backfill_view import ended_lines, hindrance
from service.cli.main import main
from service.knowledge import Knowledge
from service.rules import ObjectType
from service.schema import CustomField, Schema
from workers.backfill_match import RuleTally
from workers.backfill_run import Run, Search
from workers.backfill_walk import FIRST_SECOND, SearchWalk
from workers.backfill_watch import Progress

NOW = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
RULES = """
version: 1
rules:
  - {name: Industry, object: lead, field: Industry}
  - {name: Seniority, object: contact, field: Seniority}
  - {name: Sleeping, object: lead, field: Segment, enabled: false}
  - {name: Lost, object: lead, field: Nonesuch}
"""
FIELDS = {ObjectType.LEAD: ("Industry", "Segment"), ObjectType.CONTACT: ("Seniority",)}
KNOWLEDGE = Knowledge.of(
    rulebook(RULES),
    {
        one: Schema(
            object_type=one,
            organization_id="orga_1",
            fields=tuple(CustomField(id=f"cf_{name}", name=name, type="text") for name in names),
        )
        for one, names in FIELDS.items()
    },
)


def order(**wish):
    """The order."""
    return order_or_exit(Wish(**{"rules": ("Industry",), **wish}), KNOWLEDGE, now=NOW, zone=dt.UTC)


def refused(capsys, **wish):
    """What is said about a wrong wish."""
    with pytest.raises(SystemExit, match="2"):
        order(**wish)
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("since", "second"),
    [
        (None, FIRST_SECOND),
        ("2026-11-01", int(dt.datetime(2026, 11, 1, tzinfo=dt.UTC).timestamp())),
        ("90d", int((NOW - dt.timedelta(days=90)).timestamp())),
        ("36h", int((NOW - dt.timedelta(hours=36)).timestamp())),
        ("99999d", FIRST_SECOND),
        ("1999-01-01", FIRST_SECOND),
    ],
)
def test_since_is_a_day_or_an_age(since, second):
    assert order(since=since).since_second == second


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"rules": ("Industri",)}, "--rule Industri: there is no such rule; did you mean 'Industry'?"),
        ({"rules": ("zzz",)}, "there is no such rule; there are Industry, Seniority, Sleeping, Lost"),
        ({"rules": ("Sleeping",)}, "--rule Sleeping: the rule is disabled"),
        ({"rules": ("Lost",)}, "--rule Lost: the rule cannot run: "),
        ({"rules": None}, "--rule Lost: the rule cannot run: "),
        ({"since": "soon"}, "--since soon: expected a day or an age, such as 2026-01-31 or 90d"),
        ({"since": "90 days"}, "did you mean 90d?"),
        ({"since": "0"}, "--since 0: expected"),
        ({"since": "2027-01-01"}, "--since 2027-01-01 is in the future"),
        ({"where": "lead.url = 1"}, "--where:1:10: "),
        ({"where": 'lead.urll != ""'}, "did you mean 'url'?\n    lead.urll"),
        ({"where": 'lead.custom["industry"] != ""'}, "did you mean 'Industry'?"),
        ({"where": 'lead.custom["Nonsuch"] != ""'}, "'Nonsuch' is no custom field of leads in Close"),
        (
            {"rules": ("Industry", "Seniority"), "where": 'lead.url != ""'},
            "these rules fill leads and contacts: use two backfills",
        ),
    ],
)
def test_what_is_wrong_is_named_with_the_nearest_right_thing(capsys, wish, words):
    assert words in refused(capsys, **wish)


def test_all_problems_are_named_at_once(capsys):
    told = refused(capsys, rules=("Industri", "Sleeping"), since="soon")
    assert [line.split(":")[0] for line in told.splitlines()] == [
        "--rule Industri",
        "--rule Sleeping",
        "--since soon",
    ]


def test_a_condition_and_a_query_are_read(tmp_path):
    file = tmp_path / "smart-view.json"
    file.write_text(json.dumps({"query": {"type": "match_all"}}))
    found = order(where='lead.custom["Industry"] == ""', query=file, limit=7)
    assert (found.query, found.limit) == ({"type": "match_all"}, 7)
    assert found.where.source == 'lead.custom["Industry"] == ""'


def test_a_query_that_cannot_be_read_is_named(capsys, tmp_path):
    assert f"--query {tmp_path / 'x'}: cannot be read: No such file" in refused(capsys, query=tmp_path / "x")
    (tmp_path / "y").write_text("{}")
    assert "expected what" in refused(capsys, query=tmp_path / "y")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "say what to fill"),
        (["--all", "--status"], "say what to fill"),
        (["--all", "--rule", "x"], "--rule and --all both say which rules"),
        (["--rule", "x", "--limit", "0"], "--limit"),
    ],
)
def test_options_that_contradict_each_other_are_refused(arguments, words):
    done = CliRunner().invoke(main, ["backfill", *arguments])
    assert done.exit_code == 2
    assert words in done.stderr


# What is said

RUN = Run(
    id="2026-11-23-k3f9a",
    order="o",
    organization_id="orga_1",
    rules=("Industry",),
    fields=("cf_1",),
    started_ms=0,
    searches=(Search(object_type="lead", walk=SearchWalk(until=5)),),
    limit=3,
    tallies=(RuleTally(searched=9, matched=5, wanted=3, later=1),),
)


def test_the_price_says_what_stands_in_the_way():
    ceilings = (
        Ceiling(words="2 credits a day for all rules", left=1, wanted=3, drops=False),
        Ceiling(words="9 credits a month for rule Industry", left=0, wanted=3, drops=True),
        Ceiling(words="99 credits a month for all rules", left=99, wanted=3, drops=False),
    )
    lines = price_lines(RUN, Price(credits_at_most=3, ceilings=ceilings, calls_per_second=0.5))
    assert lines == [
        "1 of them are judged when the rules before them have ended, and may not be wanted then.",
        "The search ended at --limit 3: newer records were not looked at.",
        "At the pace of 0.5 calls a second it takes at least 6 seconds.",
        "Left of the budget of 2 credits a day for all rules: 1 credit; the rest waits for the next.",
        "Left of the budget of 9 credits a month for rule Industry: 0 credits; the rest will be dropped.",
        "Left of the budget of 99 credits a month for all rules: 99 credits.",
    ]


def test_what_the_search_could_not_show_is_told():
    walk = SearchWalk(until=5, skipped=(1_791_970_212,))
    moment = "2026-10-14T09:30:12Z"
    run = replace(RUN, searches=(Search(object_type="lead", walk=walk),), unreadable=1)
    assert gap_lines(run) == [
        f"More records were created at {moment} than Close's search shows: run it once more afterwards.",
        "1 record of the search could not be read.",
    ]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "1 second"),
        (59, "59 seconds"),
        (60, "1 minute"),
        (1251, "21 minutes"),
        (7200, "2 hours"),
        (400_000, "5 days"),
    ],
)
def test_lengths_of_time_are_told_roughly(seconds, words):
    assert duration(seconds) == words


HALT = Halt(reason="the plan is used up", kind="plan_limit", since_ms=0)
WAITING = Progress(total=5, waits="waits for the budget")


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"halt": HALT}, "All calls are halted: the plan is used up."),
        ({"workers": []}, "No worker is running"),
        ({"progress": WAITING, "stuck": True}, "Nothing ends at present: waits for the budget."),
        ({"progress": WAITING}, ""),
        ({"stuck": True}, ""),
    ],
)
def test_what_keeps_it_from_going_on_is_told(facts, words):
    usual = {"halt": None, "workers": ["w"], "progress": Progress(total=5), "stuck": False}
    assert hindrance(**{**usual, **facts}).startswith(words)
    assert bool(hindrance(**{**usual, **facts})) is bool(words)


def test_the_end_says_what_came_of_it_and_what_needs_a_person():
    run = replace(RUN, outcomes={"filled": 1200, "dead": 2, "held": 1}, calls=1201, elsewhere=4)
    assert ended_lines(run) == [
        "Backfill 2026-11-23-k3f9a has ended: 2 dead, 1,200 filled, 1 held.",
        "Spent 1,201 of at most 3 credits.",
        "4 had been planned elsewhere before it came to them.",
        "3 need a person: close-enrich dead list",
    ]
