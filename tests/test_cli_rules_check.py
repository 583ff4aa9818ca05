"""`rules check` and `rules schema` as a person runs them: with Close, without, and when it is away."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from service.cli.main import main
from service.rules_schema import rules_schema_text
from service.settings import SETTINGS

EXAMPLE = Path(__file__).parent.parent / "deploy" / "rules.example.yaml"
GOOD = """version: 1
rules:
  - name: Industry
    object: lead
    field: Industry
    when: lead.custom["Employee count"] > 10
  - name: Seniority
    object: contact
    field: Seniority
    enabled: false
"""
DOUBTFUL = GOOD.replace("enabled: false", "sample: 0%")
MISFIT = GOOD.replace("field: Industry", "field: Industri").replace("> 10", '> "10"')
BROKEN = GOOD.replace("object: lead", "object: leed")


@pytest.fixture
def check(tmp_path, monkeypatch):
    """Write rules, check them, and return the exit code and what was printed and complained."""
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(f"{name}_FILE", raising=False)
    # it would outlive the command, which here does not end its process
    monkeypatch.setattr("service.log.configure_logging", lambda **_: None)
    monkeypatch.chdir(tmp_path)

    def run(text, *options, path="rules.yaml", **settings):
        Path("rules.yaml").write_text(text)
        arguments = ["rules", "check", *([path] if path else []), *options]
        done = CliRunner().invoke(main, arguments, env=settings, prog_name="close-enrich")
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.stdout, done.stderr

    return run


NOT_ASKED = "Not compared with Close's custom fields: "


def test_without_a_key_the_file_is_checked_and_what_was_not_is_said(check):
    assert check(GOOD) == (
        0,
        f"rules.yaml: 2 rules, 1 enabled, no mistakes\n{NOT_ASKED}CLOSE_API_KEY is not set.\n",
        "",
    )


@pytest.mark.parametrize(
    "text", ["version: 1\nrules: []\n", "", "version: [1\n"], ids=["none", "empty", "broken"]
)
def test_a_file_without_a_rule_to_compare_is_not_taken_for_a_missing_key(check, text):
    _, said, complained = check(text, CLOSE_API_KEY="api_x.y", CLOSE_API_URL="http://127.0.0.1:9/api/v1")
    assert f"{NOT_ASKED}there is no rule that could be.\n" in said + complained
    assert "not set" not in said + complained


def test_a_single_rule_is_told_as_one(check):
    one = GOOD.partition("  - name: Seniority")[0]
    assert check(one, "--offline")[1].startswith("rules.yaml: 1 rule, 1 enabled, no mistakes\n")


def test_offline_never_asks_and_reads_no_settings(check):
    said = f"rules.yaml: 2 rules, 1 enabled, no mistakes\n{NOT_ASKED}--offline.\n"
    assert check(GOOD, "--offline", CLOSE_API_KEY="bad key", PORT="many") == (0, said, "")


def test_the_file_is_that_of_the_settings_by_default(check):
    code, said, _ = check(GOOD, "--offline", path=None, RULES_FILE="./rules.yaml")
    assert (code, said.splitlines()[0]) == (0, "rules.yaml: 2 rules, 1 enabled, no mistakes")
    gone = "gone.yaml: the rules file cannot be read: No such file or directory"
    assert check(GOOD, path=None, RULES_FILE="gone.yaml") == (2, "", f"{gone} (see RULES_FILE)\n")


@pytest.mark.parametrize(
    "command",
    [
        ["check", "gone.yaml"],
        ["plan", "--rules", "gone.yaml"],
        ["plan", "--diff", "gone.yaml"],
        ["explain", "lead_1", "--rules", "gone.yaml"],
    ],
    ids=" ".join,
)
def test_no_setting_is_blamed_for_a_missing_file_that_somebody_typed(cli, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rules.yaml").write_text(GOOD)
    result = cli("rules", *command, CLOSE_API_KEY="api_x.y", CLOSE_API_URL="http://127.0.0.1:9/api/v1")
    gone = "gone.yaml: the rules file cannot be read: No such file or directory\n"
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", gone)


def test_with_close_the_rules_are_compared_with_its_fields(check, close):
    said = "rules.yaml: 2 rules, 1 enabled, no mistakes, all fit Close's custom fields\n"
    assert check(GOOD, **close.settings) == (0, said, "")
    code, said, complained = check(MISFIT, **close.settings)
    assert (code, said) == (2, "")
    assert complained.splitlines() == [
        (
            "rules.yaml:5:12: rules[0].field: 'Industri' is no custom field of leads in Close; "
            "did you mean 'Industry'?"
        ),
        "        field: Industri",
        "               ^",
        "",
        (
            'rules.yaml:6:41: rules[0].when: the condition compares lead.custom["Employee count"], which is '
            """a number, with "10", which is text; did you mean '10'?"""
        ),
        '        when: lead.custom["Employee count"] > "10"',
        "                                            ^",
        "",
        "rules.yaml: 2 problems",
    ]


def test_warnings_do_not_fail_unless_they_are_to(check):
    code, said, complained = check(DOUBTFUL)
    assert (code, said.splitlines()[0]) == (0, "rules.yaml: 2 rules, 2 enabled, no mistakes (1 warning)")
    assert complained.startswith("rules.yaml:10:13: warning: rules[1].sample: takes no record at all")
    code, said, complained = check(DOUBTFUL, "--strict")
    assert (code, said) == (2, "")
    assert complained.splitlines()[-2:] == [
        "rules.yaml: 1 warning",
        f"{NOT_ASKED}CLOSE_API_KEY is not set.",
    ]


def test_a_close_that_does_not_answer_is_no_mistake_of_the_rules_but_no_success_either(check):
    nowhere = {"CLOSE_API_KEY": "api_x.y", "CLOSE_API_URL": "http://127.0.0.1:9/api/v1"}
    unanswered = f"{NOT_ASKED}Close does not answer (connect).\n"
    assert check(GOOD, **nowhere) == (1, "rules.yaml: 2 rules, 1 enabled, no mistakes\n", unanswered)
    code, _, complained = check(BROKEN, **nowhere)
    assert code == 2
    assert complained.endswith(f"rules.yaml: 1 problem\n{unanswered}")


def test_a_refused_key_is_said_without_showing_it(check, close):
    code, said, complained = check(GOOD, **{**close.settings, "CLOSE_API_KEY": "api_secret.secret"})
    assert (code, complained) == (1, f"{NOT_ASKED}Close refuses CLOSE_API_KEY (401).\n")
    assert "secret" not in said


def test_as_json_there_is_a_list_and_nothing_else_on_stdout(check, close):
    code, said, complained = check(MISFIT, "--json", **close.settings)
    assert (code, complained) == (2, "")
    first, second = json.loads(said)
    assert first == {
        "path": "rules.yaml",
        "line": 5,
        "column": 12,
        "where": "rules[0].field",
        "message": "'Industri' is no custom field of leads in Close",
        "suggestion": "Industry",
        "severity": "error",
    }
    assert (second["line"], second["column"], second["suggestion"]) == (6, 41, "10")
    assert check(GOOD, "--json") == (0, "[]\n", f"{NOT_ASKED}CLOSE_API_KEY is not set.\n")


def test_settings_that_cannot_be_used_are_named(check):
    code, _, complained = check(GOOD, CLOSE_API_KEY="bad key")
    assert code == 2
    assert "CLOSE_API_KEY: " in complained


def test_the_schema_is_printed_as_it_is_kept():
    done = CliRunner().invoke(main, ["rules", "schema"])
    assert (done.exit_code, done.stdout) == (0, rules_schema_text())


def test_the_example_is_in_order(check):
    assert check(EXAMPLE.read_text(), "--offline")[0] == 0
