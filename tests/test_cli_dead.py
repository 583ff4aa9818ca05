"""The commands for what needs a person: `dead`, `quarantine` and `check`."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from service import jobs, keys
from service.cli.main import main
from service.enrichment import Entry, State
from service.quarantine import MOST_BODY_BYTES, quarantine

BODY = b'{"name": "Marisol Venn\x1b[2J"}'
PERSONAL = "The body may hold personal data: mind where this is kept.\n"


@pytest.fixture
def letters(ask):
    """Three dead letters, the newest first: two dead ones of rule Industry, a held one of rule Pitch."""

    async def make(box):
        entries = []
        two_days_ago_ms = await box.now_ms() - 2 * 24 * 3_600_000
        for number, (state, rule, reason) in enumerate(
            [
                (State.HELD, "Pitch", "a call may have run"),
                (State.DEAD, "Industry", "Close timed out"),
                (State.DEAD, "Industry", "5 of 5 attempts failed"),
            ]
        ):
            entry = await box.plan(object_id=f"lead_{number}", rule=rule)
            await box.settle(await box.calling(entry.id), state, reason=reason)
            await box.redis.hset(keys.entry(entry.id), "ended_ms", two_days_ago_ms + number)
            await box.redis.zadd(keys.ATTENTION, {entry.id: two_days_ago_ms + number})
            entries.insert(0, await box.entry(entry.id))
        for queue in jobs.QUEUES:
            await box.redis.delete(jobs.queue_key(queue), *await box.redis.keys("rq:job:*"))
        return entries

    return ask(make)


def printed(done):
    assert (done.exit_code, done.stderr) == (0, "")
    return json.loads(done.stdout)


def states(ask, letters):
    async def read(box):
        return [(await box.entry(entry.id)).state for entry in letters]

    return ask(read)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (
            "dead list",
            ["--rule", "--reason", "--state", "--older", "--newer", "--object", "--limit", "--json"],
        ),
        ("dead show", ["ID", "--json"]),
        ("dead retry", ["[ID]...", "--rule", "--all", "--yes", "--json", "Example:"]),
        ("dead drop", ["[ID]...", "--state", "--all", "--yes", "--json", "Example:"]),
        ("quarantine show", ["ID", "--json", "personal data"]),
        ("quarantine retry", ["[ID]...", "--all", "--yes", "--json"]),
        ("quarantine drop", ["[ID]...", "--all", "--yes", "--json"]),
        ("check", ["--repair", "--json"]),
    ],
)
def test_help_names_what_a_command_takes(cli, command, words):
    done = cli(*command.split(), "--help")
    assert done.exit_code == 0
    assert [word for word in words if word not in done.stdout] == []


# dead list, dead show


def test_nothing_dead_is_said_so(cli):
    assert cli("dead", "list").stdout == "There are no dead letters.\n"


def test_the_list_for_people_has_id_record_state_and_reason(cli, letters):
    done = cli("dead", "list")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    for line, entry in zip(lines[1:], letters, strict=True):
        for words in (entry.id, entry.object_id, entry.field_name, str(entry.state), entry.reason):
            assert words in line


def test_the_list_as_json_goes_on_where_the_page_before_ended(cli, letters):
    first = printed(cli("dead", "list", "--limit", "2", "--json"))
    second = printed(cli("dead", "list", "--json", "--after", first["next"]))
    assert [one["id"] for one in first["dead_letters"] + second["dead_letters"]] == [
        one.id for one in letters
    ]
    assert (first["all"], second["next"]) == (3, None)
    assert set(first["dead_letters"][0]) == set(Entry.__slots__)
    assert f"--after {first['next']}" in cli("dead", "list", "--limit", "2").stdout


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        (["--rule", "Industry"], [0, 1]),
        (["--reason", "TIMED"], [1]),
        (["--state", "held"], [2]),
        (["--object", "lead_0"], [2]),
        (["--older", "1d"], [0, 1, 2]),
        (["--newer", "1d"], []),
        (["--rule", "Pitch", "--state", "dead"], []),
    ],
)
def test_filters_choose(cli, letters, options, shown):
    found = printed(cli("dead", "list", "--json", *options))
    assert [one["id"] for one in found["dead_letters"]] == [letters[number].id for number in shown]


@pytest.mark.usefixtures("letters")
def test_filters_that_choose_none_are_told_from_an_empty_list(cli):
    assert cli("dead", "list", "--rule", "None").stdout == "None of the 3 is meant.\n"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["list", "--older", "3 days"],
            "expected a duration such as 90m, 12h or 3d, not '3 days'; did you mean '3d'?",
        ),
        (["list", "--newer", "soon"], "not 'soon'\n"),
        (["list", "--after", "there"], "--after takes what the list before has printed"),
        (["list", "--state", "filled"], "'filled' is not one of"),
        (["retry"], "say which to retry: ids, or filters, or --all"),
        (["drop", "--all", "--rule", "Industry"], "say which to drop: ids, or filters, or --all"),
        (["retry", "a" * 20, "--all"], "say which to retry"),
    ],
)
def test_wrong_input_says_what_was_expected(cli, options, words):
    done = cli("dead", *options)
    assert done.exit_code == 2
    assert words in done.stderr


def test_show_tells_the_story(cli, letters):
    done = cli("dead", "show", letters[0].id)
    assert done.exit_code == 0
    assert "5 of 5 attempts failed" in done.stdout


# dead retry, dead drop


def test_a_bulk_retry_shows_its_price_and_asks(cli, ask, letters):
    done = cli("dead", "retry", "--rule", "Industry", says="y\n")
    assert done.exit_code == 0
    assert "credits at most" in done.stdout
    assert "Retry 2 dead letters, for at most 2 credits?" in done.stderr
    assert done.stdout.endswith("Retried 2 dead letters.\n")
    assert states(ask, letters) == [State.PLANNED, State.PLANNED, State.HELD]


@pytest.mark.parametrize(
    ("says", "refusal"), [("n\n", (1, "Nothing was changed.")), (None, (2, "add --yes to retry"))]
)
def test_without_a_yes_nothing_is_retried(cli, ask, letters, says, refusal):
    done = cli("dead", "retry", "--all", says=says)
    code, words = refusal
    assert done.exit_code == code
    assert words in done.stderr
    assert states(ask, letters) == [entry.state for entry in letters]


def test_ids_are_retried_as_json(cli, ask, letters):
    found = printed(cli("dead", "retry", letters[2].id, letters[2].id, "--yes", "--json"))
    assert found == {
        "found": [{"rule": "Pitch", "state": "held", "count": 1, "credits_at_most": 1}],
        "retried": 1,
    }
    assert states(ask, letters) == [State.DEAD, State.DEAD, State.PLANNED]


def test_an_id_that_is_no_dead_letter_stops_all(cli, ask, letters):
    done = cli("dead", "retry", letters[0].id, "nonesuch", "--yes")
    assert done.exit_code == 1
    assert "not a dead letter, or not any more: nonesuch" in done.stderr
    assert states(ask, letters) == [entry.state for entry in letters]


def test_a_limit_takes_the_newest(cli, ask, letters):
    done = cli("dead", "retry", "--all", "--limit", "1", "--yes")
    assert done.stdout.endswith("Retried 1 dead letter.\n")
    assert states(ask, letters) == [State.PLANNED, State.DEAD, State.HELD]


def test_drop_has_no_price_and_leaves_the_state(cli, ask, letters):
    done = cli("dead", "drop", "--older", "1d", says="y\n")
    assert done.exit_code == 0
    assert "credit" not in done.stdout + done.stderr
    assert states(ask, letters) == [entry.state for entry in letters]
    assert cli("dead", "list").stdout == "There are no dead letters.\n"
    assert "dropped by a person" in cli("show", letters[0].id).stdout


def test_nothing_to_act_on_is_said_and_not_asked_about(cli):
    assert cli("dead", "retry", "--all").stdout == "There are no such dead letters.\n"
    assert printed(cli("dead", "drop", "--all", "--json")) == {"found": [], "dropped": 0}


# quarantine


@pytest.fixture
def kept(ask):
    """Two bodies in quarantine: a whole one, and one that was cut."""

    async def keep(box):
        return [
            await quarantine(box.redis, body=body, reason="odd")
            for body in (BODY, b"x" * (MOST_BODY_BYTES + 1))
        ]

    return ask(keep)


def backlog(ask):
    return ask(lambda box: box.redis.lrange(keys.BACKLOG, 0, -1))


def test_the_quarantine_lists_bodies_only_when_asked_and_nothing_that_moves_the_cursor(cli, kept):
    without, with_bodies = cli("quarantine", "list").stdout, cli("quarantine", "list", "--bodies").stdout
    assert all(one in without for one in kept)
    assert "Marisol" not in without
    assert "Marisol" in with_bodies
    assert "\x1b" not in with_bodies
    assert [one["id"] for one in printed(cli("quarantine", "list", "--limit", "1", "--json"))] == [kept[1]]


def test_an_empty_quarantine_is_said_so(cli):
    assert cli("quarantine", "list").stdout == "The quarantine is empty.\n"


def test_show_prints_the_body_with_a_warning(cli, kept):
    done = cli("quarantine", "show", kept[0])
    as_json = json.loads(cli("quarantine", "show", kept[0], "--json").stdout)
    assert (done.exit_code, done.stderr) == (0, PERSONAL)
    assert "Marisol Venn" in done.stdout
    assert "\x1b" not in done.stdout
    assert (as_json["body"], as_json["whole"]) == (BODY.decode(), True)
    assert "Only its first 65536 bytes were kept" in cli("quarantine", "show", kept[1]).stdout


def test_what_is_not_in_quarantine_cannot_be_shown(cli):
    done = cli("quarantine", "show", "1-0")
    assert (done.exit_code, done.stderr) == (1, "1-0 is not in quarantine, or not any more\n")


def test_whole_bodies_go_to_web_and_cut_ones_are_named(cli, ask, kept):
    done = cli("quarantine", "retry", "--all", says="y\n")
    assert done.exit_code == 1
    assert "Handed 1 delivery to web" in done.stdout
    assert kept[1] in done.stderr
    assert backlog(ask) == [BODY]
    assert [one["id"] for one in printed(cli("quarantine", "list", "--json"))] == [kept[1]]


def test_a_retry_by_id_as_json(cli, ask, kept):
    assert printed(cli("quarantine", "retry", kept[0], "--yes", "--json")) == {
        "retried": [kept[0]],
        "gone": [],
        "cut": [],
    }
    done = cli("quarantine", "retry", kept[0], "--yes")
    assert (done.exit_code, done.stderr) == (1, f"Not in quarantine, or not any more: {kept[0]}\n")
    assert backlog(ask) == [BODY]


def test_dropped_bodies_are_gone_for_good(cli, ask, kept):
    assert printed(cli("quarantine", "drop", kept[0], "--yes", "--json")) == {"dropped": 1}
    again = cli("quarantine", "drop", kept[0], "--yes")
    assert (again.exit_code, again.stderr) == (1, "1 were not in quarantine, or not any more.\n")
    assert cli("quarantine", "drop", "--all", says="y\n").stdout == "Deleted 1 delivery.\n"
    assert ask(lambda box: box.redis.xlen(keys.QUARANTINE)) == 0


@pytest.mark.parametrize("verb", ["retry", "drop"])
def test_without_a_yes_the_quarantine_stays(cli, ask, kept, verb):
    assert cli("quarantine", verb, "--all", says="n\n").exit_code == 1
    assert cli("quarantine", verb, kept[0]).exit_code == 2
    assert ask(lambda box: box.redis.xlen(keys.QUARANTINE)) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["retry"], "say which to retry: ids, or --all"),
        (["drop", "1-0", "--all"], "say which to drop: ids, or --all"),
        (["show", "-1"], "No such option"),
        (["show", "one"], "'one' is not an id such as 1791970212000-0"),
    ],
)
def test_wrong_quarantine_input_says_what_was_expected(cli, options, words):
    done = cli("quarantine", *options)
    assert done.exit_code == 2
    assert words in done.stderr


# check


@pytest.mark.usefixtures("letters")
def test_a_check_that_finds_nothing_says_at_what_it_looked(cli):
    assert cli("check").stdout == "Looked at 3 entries and 0 jobs: all fits together.\n"
    assert printed(cli("check", "--json")) == {"clean": True, "entries": 3, "jobs": 0, "found": []}


def test_a_check_says_what_it_found_and_repairs_it_when_asked(cli, ask, letters):
    ask(lambda box: box.redis.zadd(keys.ACTIVE, {"lost": 1}))
    found = cli("check")
    assert found.exit_code == 1
    assert found.stdout.splitlines()[1:] == [
        "1: ids in an index have no entry",
        "    lost",
        "1 left as found. close-enrich check --repair puts right what it can.",
    ]
    mended = cli("check", "--repair")
    assert (mended.exit_code, mended.stdout.splitlines()[1]) == (
        0,
        "1: ids in an index have no entry; 1 repaired",
    )
    assert cli("check").exit_code == 0
    assert len(letters) == 3


def test_what_a_check_cannot_repair_is_left_to_a_person(cli, ask):
    ask(lambda box: box.redis.rpush(jobs.queue_key(jobs.LIVE_QUEUE), *(f"odd {n}" for n in range(12))))
    done = cli("check", "--repair")
    as_json = json.loads(cli("check", "--repair", "--json").stdout)
    assert done.exit_code == 1
    assert done.stdout.endswith("12 left as found. A person has to look.\n")
    assert ", …" in done.stdout
    (found,) = as_json["found"]
    assert (as_json["clean"], found["kind"], found["count"], found["repaired"]) == (
        False,
        "job_foreign",
        12,
        0,
    )
    assert len(found["examples"]) == 10


@pytest.mark.parametrize(
    "command", ["dead list", "dead retry --all", "quarantine list", "quarantine drop 1-0 --yes", "check"]
)
def test_a_redis_that_is_not_there_is_said_so(cli, monkeypatch, command):
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1")
    environ = {"REDIS_URL": "redis://127.0.0.1:1"}
    done = CliRunner().invoke(main, command.split(), env=environ, prog_name=cli.__name__)
    assert (done.exit_code, done.stderr) == (1, "Redis does not answer at REDIS_URL (ConnectionError)\n")
