"""The enrichment history as rows: what is in them, and that a spreadsheet takes none for a formula."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.enrichment import State
from service.export import COLUMNS, csv_header, csv_line, jsonl_line

EMPTY_ROW = dict.fromkeys(COLUMNS)


def read_back(line):
    (row,) = csv.DictReader(io.StringIO(csv_header() + line))
    return row


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("Logistics", "Logistics"),
        ("two\nlines, and a comma", "two\nlines, and a comma"),
        ('=HYPERLINK("http://x")', '\'=HYPERLINK("http://x")'),
        ("+49 30", "'+49 30"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        (-12.5, "-12.5"),
        (0, "0"),
        (True, "true"),
        (["a", "b"], '["a","b"]'),
        (None, ""),
    ],
)
def test_a_cell_shows_its_value_and_is_never_a_formula(value, cell):
    assert read_back(csv_line({**EMPTY_ROW, "value": value}))["value"] == cell


@given(st.text())
def test_no_text_becomes_a_formula_or_another_row(text):
    cell = read_back(csv_line({**EMPTY_ROW, "reason": text}))["reason"]
    assert cell in (text, f"'{text}")
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))


def test_a_line_of_json_keeps_a_value_as_it_is():
    row = {**EMPTY_ROW, "value": ["=1", 2, {"a": None}]}
    assert json.loads(jsonl_line(row)) == row


@pytest.fixture
def three(ask):
    """A filled one, an empty one and one that waits."""

    async def make(box):
        asked = await box.plan(object_id="lead_1")
        await box.settle(await box.calling(asked.id), value="Logistics", confidence="high")
        await box.finished(State.EMPTY, object_id="lead_2")
        await box.plan(object_id="lead_3")

    return ask(make)


@pytest.mark.usefixtures("three")
def test_every_enrichment_is_one_row(cli):
    result = cli("export")
    rows = {row["state"]: row for row in csv.DictReader(io.StringIO(result.stdout))}
    assert (result.exit_code, set(rows)) == (0, {"filled", "empty", "planned"})
    assert tuple(rows["filled"]) == COLUMNS
    filled = rows["filled"]
    assert (filled["object_id"], filled["value"], filled["credits"]) == ("lead_1", "Logistics", "1")
    assert filled["ended_at"].endswith("+00:00")
    assert rows["planned"]["ended_at"] == ""


def test_more_than_one_scan_of_enrichments_is_written_once_each(cli, ask):
    async def make(box):
        for number in range(1_100):
            await box.plan(object_id=f"lead_{number}")

    ask(make)
    rows = [json.loads(line) for line in cli("export", "--format", "jsonl").stdout.splitlines()]
    assert sorted(row["object_id"] for row in rows) == sorted(f"lead_{number}" for number in range(1_100))


@pytest.mark.usefixtures("three")
def test_states_and_days_choose(cli):
    chosen = cli("export", "--format", "jsonl", "--state", "empty", "--state", "filled", "--since", "1h")
    assert {json.loads(line)["state"] for line in chosen.stdout.splitlines()} == {"empty", "filled"}
    assert cli("export", "--format", "jsonl", "--since", "2999-01-01").stdout == ""


@pytest.mark.usefixtures("three")
def test_a_file_is_written_and_the_count_told(cli, tmp_path):
    path = tmp_path / "out.csv"
    result = cli("export", "-o", str(path))
    assert (result.stdout, result.stderr) == ("", f"3 enrichments written to {path}\n")
    assert len(path.read_text().splitlines()) == 4
    assert [one.name for one in tmp_path.iterdir()] == ["out.csv"]


@pytest.mark.usefixtures("three")
def test_a_file_that_was_there_is_replaced_and_stays_as_private_as_it_was(cli, tmp_path):
    path, link = tmp_path / "out.csv", tmp_path / "link.csv"
    path.write_text("old")
    path.chmod(0o600)
    link.symlink_to(path)
    assert cli("export", "-o", str(link)).exit_code == 0
    assert link.is_symlink()
    assert len(path.read_text().splitlines()) == 4
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_was_there_stays_where_redis_does_not_answer(cli, tmp_path):
    path = tmp_path / "out.csv"
    path.write_text("old")
    result = cli("export", "-o", str(path), REDIS_URL="redis://127.0.0.1:1")
    assert result.exit_code == 1
    assert result.stderr.startswith("Redis does not answer at REDIS_URL")
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("out.csv", "old")]


@pytest.mark.usefixtures("three")
def test_one_row_is_told_as_one(cli, tmp_path):
    path = tmp_path / "out.csv"
    result = cli("export", "--state", "empty", "-o", str(path))
    assert result.stderr == f"1 enrichment written to {path}\n"


@pytest.mark.usefixtures("three")
def test_a_device_is_written_to_and_not_replaced(cli):
    assert cli("export", "-o", "/dev/null").exit_code == 0
    assert Path("/dev/null").is_char_device()


@pytest.mark.usefixtures("three")
def test_a_full_disk_is_not_taken_for_redis(cli):
    result = cli("export", "-o", "/dev/full")
    assert (result.exit_code, result.stderr) == (1, "cannot write the output: No space left on device\n")


def test_a_file_that_cannot_be_made_is_named(cli, tmp_path):
    path = tmp_path / "nowhere" / "out.csv"
    result = cli("export", "-o", str(path))
    assert (result.exit_code, result.stderr) == (2, f"-o {path}: No such file or directory\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--state", "full"), "--state full: expected one of planned, waiting, calling, filled"),
        (("--since", "7 days"), "--since 7 days: expected how long ago, such as 90m, 12h or 7d, or a day"),
        (("--since", "2026-02-30"), "--since 2026-02-30: there is no such day"),
        (("--since", "999999999d"), "--since 999999999d: that is before all time"),
    ],
)
def test_a_wrong_choice_is_named(cli, arguments, message):
    result = cli("export", *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(message)
