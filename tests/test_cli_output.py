"""What commands print, and where: nothing is torn apart that somebody searches for or copies."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from stack_parts import PROJECT

from service.doctor import Finding
from service.doctor import State as Found
from service.enrichment import State

LEAD = "lead_M3mBxgm1KvKx5ghAbbnJlL43xA40w7S3sc5EdurJySW"
REASON = "Close answered 400 to 5 of 5 attempts: " + "the field cannot be enriched, " * 4 + "it says"


@pytest.fixture
def letter(ask):
    """A dead letter whose record has an id as long as Close's are, and a long reason."""

    async def make(box):
        entry = await box.plan(object_id=LEAD, rule="Industry")
        await box.settle(await box.calling(entry.id), State.DEAD, reason=REASON)
        return await box.entry(entry.id)

    return ask(make)


def test_a_pipe_gets_each_dead_letter_whole_on_one_line(cli, letter):
    (line,) = [line for line in cli("dead", "list", COLUMNS=None).stdout.splitlines() if LEAD in line]
    assert [words for words in (letter.id, REASON, letter.field_name) if words not in line] == []


@pytest.mark.parametrize("columns", ["80", "40"])
def test_a_narrow_terminal_gets_ids_whole_and_the_reason_below(cli, letter, columns):
    lines = cli("dead", "list", COLUMNS=columns).stdout.splitlines()
    assert lines[0] == f"{letter.id}  {LEAD}  dead"
    assert lines[1].endswith(f"{letter.field_name}: {REASON}")


def test_a_pipe_gets_a_story_unfolded(cli, letter):
    lines = cli("show", letter.id, COLUMNS=None).stdout.splitlines()
    assert any(REASON in line for line in lines)


@pytest.mark.parametrize(
    "address",
    [f"https://app.close.com/lead/{LEAD}/", f" https://app.close.com/lead/{LEAD}/#activity ", f" {LEAD}"],
)
def test_show_takes_what_people_paste(cli, letter, address):
    assert cli("show", address).stdout == cli("show", letter.object_id).stdout


@pytest.mark.parametrize("command", [["show"], ["dead", "show"]], ids=" ".join)
def test_show_asks_what_is_meant_where_nothing_is_said(cli, command):
    result = cli(*command, " ")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("say what to show: lead_…")


def test_a_pipe_gets_warnings_of_the_status_unfolded(cli):
    reason = "the CRM is being cleaned up, " * 9 + "until Monday"
    cli("halt", "--reason", reason)
    assert reason in cli("status", COLUMNS=None).stdout


def test_a_pipe_gets_what_the_doctor_advises_unfolded(cli, monkeypatch):
    advice = "do this: " + "close-enrich webhook ensure " * 9

    async def examine(_settings):
        return [Finding(check="subscription", state=Found.WARNING, finding="none", fix=advice.strip())]

    monkeypatch.setattr("service.cli.doctor_looks.examine", examine)
    assert advice.strip() in cli("doctor", COLUMNS=None).stdout


# output that cannot be written


def started(*command, stdout, **settings):
    return subprocess.Popen(
        [sys.executable, "-m", "service.cli.main", *command],
        env={"PATH": os.environ["PATH"], "NO_COLOR": "1", **settings},
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    "command", [["status"], ["status", "--json"], ["export"], ["rules", "schema"], ["--help"]], ids=" ".join
)
def test_output_that_cannot_be_written_is_named_without_a_traceback(redis_url, command):
    with Path("/dev/full").open("w") as full, started(*command, stdout=full, REDIS_URL=redis_url) as process:
        _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (1, "cannot write the output: No space left on device\n")


@pytest.mark.parametrize("command", [["status"], ["export"], ["rules", "schema"]], ids=" ".join)
def test_a_command_whose_reader_has_gone_ends_silently(redis_url, command):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe, started(*command, stdout=pipe, REDIS_URL=redis_url) as process:
        _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (1, "")
