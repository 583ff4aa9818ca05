"""From an API key to a first rules file: what is written, asked and refused."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stack_parts import PROJECT

from service.rules import ObjectType
from service.rules_file import load_rules
from service.schema import CustomField, Schema
from service.settings import Settings, load_settings
from service.starter_rules import Pick, picks_of, starter_rules, starter_settings

NAMES = st.text(min_size=1, max_size=80).filter(lambda name: name.strip() == name)


@given(
    st.lists(
        st.tuples(st.sampled_from(list(ObjectType)), NAMES, st.sampled_from(["text", "choices"])),
        min_size=1,
        max_size=8,
    ),
    st.text(),
)
def test_whatever_fields_are_called_the_file_has_a_rule_for_each(fields, organization):
    picks = [
        Pick(object_type=kind, field=CustomField(id=f"cf_{number}", name=name, type=of_type, choices=("a",)))
        for number, (kind, name, of_type) in enumerate(fields)
    ]
    loaded = load_rules(starter_rules(picks, organization=organization, per_day=7), source="rules.yaml")
    assert loaded.problems == ()
    rules = loaded.rulebook.rules
    assert [rule.object_type for rule in rules] == [pick.object_type for pick in picks]
    assert all(
        rule.field in {pick.field.name, pick.field.id} for rule, pick in zip(rules, picks, strict=True)
    )
    assert loaded.rulebook.budget.per_day == 7


def test_only_fields_that_close_can_fill_may_be_picked():
    types = ("text", "choices", "number", "date", "datetime", "user", "contact", "hidden", "textarea", "new")
    fields = tuple(CustomField(id=f"cf_{one}", name=one, type=one) for one in types)
    schema = Schema(object_type=ObjectType.LEAD, organization_id="orga_1", fields=fields)
    assert [pick.label for pick in picks_of([schema])] == [
        "lead:text",
        "lead:choices",
        "lead:number",
        "lead:date",
    ]


def test_settings_survive_the_shell():
    values = {"CLOSE_API_KEY": "api_1.2", "RULES_FILE": "o'ur rules $HOME.yaml", "REDIS_URL": None}
    text = starter_settings(values)
    shown = subprocess.run(
        ["sh", "-c", f'{text}\nprintf \'%s|%s|%s\' "$CLOSE_API_KEY" "$RULES_FILE" "$REDIS_URL"'],
        capture_output=True,
        text=True,
        check=True,
        env={},
    )
    assert shown.stdout == "api_1.2|o'ur rules $HOME.yaml|"
    assert "# REDIS_URL=\n" in text


@pytest.fixture
def run(cli, close, tmp_path):
    """Run `init` in a directory of its own, with the sandbox as Close."""

    def init(*arguments, says=None, **settings):
        directory = ("--directory", str(tmp_path))
        return cli(
            "init", *directory, *arguments, says=says, **{**close.settings, "REDIS_URL": "", **settings}
        )

    return init


def test_named_fields_become_rules_and_settings(run, tmp_path):
    result = run("--field", "lead:Industry", "--field", "contact:Seniority", "--per-day", "9")
    assert result.exit_code == 0, result.stderr
    loaded = load_rules((tmp_path / "rules.yaml").read_bytes(), source="rules.yaml")
    assert [(rule.name, str(rule.object_type)) for rule in loaded.rulebook.rules] == [
        ("Industry", "lead"),
        ("Seniority", "contact"),
    ]
    lines = (tmp_path / ".env").read_text().splitlines()
    settings = load_settings(
        dict(one.split("=", 1) for one in lines if one[0] != "#"), needs=("CLOSE_API_KEY",)
    )
    assert isinstance(settings, Settings)
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
    assert "Wrote rules.yaml with 2 rules for " in result.stdout


def test_all_fields_and_json(run):
    told = json.loads(run("--all-fields", "--json").stdout)
    listed = json.loads(run("--list", "--json").stdout)
    assert told["fields"] == [one["label"] for one in listed]
    assert len(told["written"]) == 2


def test_a_key_is_asked_for_and_not_shown(run, close, tmp_path):
    key = close.settings["CLOSE_API_KEY"]
    result = run("--all-fields", says=f"{key}\n", CLOSE_API_KEY="")
    assert result.exit_code == 0, result.stderr
    assert key in (tmp_path / ".env").read_text()
    assert key not in result.stdout + result.stderr


def test_what_is_there_is_not_written_over_unasked(run, tmp_path):
    (tmp_path / "rules.yaml").write_text("mine")
    refused = run("--all-fields")
    assert (refused.exit_code, refused.stderr) == (
        2,
        f"{tmp_path}/rules.yaml is there already: --force writes anew\n",
    )
    assert (tmp_path / "rules.yaml").read_text() == "mine"
    assert run("--all-fields", "--force").exit_code == 0
    assert (tmp_path / "rules.yaml").read_text() != "mine"


@pytest.mark.parametrize(
    ("arguments", "settings", "told"),
    [
        (
            ("--field", "lead:Industy"),
            {},
            (2, "--field lead:Industy: no such field that can be enriched; did you"),
        ),
        (
            ("--field", "Industry"),
            {},
            (2, "--field Industry: no such field that can be enriched; did you mean lead"),
        ),
        ((), {}, (2, "there is no terminal to ask at: add --field (lead:")),
        (("--all-fields",), {"CLOSE_API_KEY": ""}, (2, "CLOSE_API_KEY is not set, and there is no terminal")),
        (("--all-fields",), {"CLOSE_API_KEY": "api_wrong"}, (1, "Close refuses this API key")),
        (("--all-fields",), {"CLOSE_API_URL": "http://127.0.0.1:1"}, (1, "Close does not answer: connect")),
        (("--all-fields", "--public-url", "ftp://x"), {}, (2, "--public-url: expected an https:// URL")),
    ],
)
def test_what_stands_in_the_way_is_explained_and_nothing_written(run, tmp_path, arguments, settings, told):
    result = run(*arguments, **settings)
    assert (result.exit_code, result.stderr[: len(told[1])]) == told
    assert list(tmp_path.iterdir()) == []


def test_fields_are_picked_with_arrow_keys_and_space(close, tmp_path):
    settings = {**close.settings, "PATH": os.environ["PATH"], "HOME": str(tmp_path), "TERM": "xterm"}
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "service.cli.main", "init", "--directory", str(tmp_path)],
        env=settings,
        cwd=PROJECT,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        shown = _read_until(ours, b"shall be filled?")
        os.write(ours, b" \x1b[B\x1b[B \r")
        shown += _read_until(ours, b"close-enrich up")
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    loaded = load_rules((tmp_path / "rules.yaml").read_bytes(), source="rules.yaml")
    assert len(loaded.rulebook.rules) == 2


def _read_until(descriptor, wanted, *, seconds=30.0):
    """What a terminal shows, up to some words."""
    shown, deadline = b"", time.monotonic() + seconds
    while wanted not in shown:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise TimeoutError(shown.decode(errors="replace"))
        shown += os.read(descriptor, 65536)
    return shown
