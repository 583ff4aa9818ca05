"""`close-enrich rules explain` and `rules plan`: from a file in this process, and beside a whole sandbox."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner
from stack import running
from stack_parts import PROJECT

from service.cli.main import main
from service.enrichment import State
from service.settings import SETTINGS

SIZE = "cf_9hWfpU3HBGeya7iAhKQq2Zy15NdWAoVTECHuzfkkMjL"
RULES = f"""
version: 1
budget: {{per_day: 100}}
defaults: {{settle: 0s}}
rules:
  - name: Industry
    object: lead
    field: Industry
    when: lead.url != "" && lead.status_label == "Potential"
  - {{name: Size, object: lead, field: {SIZE}, settle: 20s, when: 'lead.custom["Industry"] != ""'}}
  - {{name: Seniority, object: contact, field: Seniority, budget: {{per_day: 2}}}}
"""
STRICTER = RULES.replace('lead.url != ""', 'lead.url.startsWith("https://acme")')
EVENT = {
    "id": "ev_1",
    "organization_id": "orga_1",
    "object_type": "lead",
    "object_id": "lead_1",
    "lead_id": "lead_1",
    "action": "created",
    "date_created": "2026-11-20T10:00:00.000000",
    "date_updated": "2026-11-20T10:00:00.000000",
    "data": {"id": "lead_1", "url": "https://brindlemoor.example", "status_label": "Potential"},
}


@pytest.fixture
def in_process(monkeypatch, tmp_path, untouched_logging):  # noqa: ARG001  what it does is wanted
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(f"{name}_FILE", raising=False)
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)

    def invoke(*arguments, stdin=None, **settings):
        environ = {"RULES_FILE": str(rules), "NO_COLOR": "1", **settings}
        return CliRunner().invoke(main, ["rules", *arguments], env=environ, input=stdin)

    return invoke


def beside(stack, *arguments, code=0, **settings):
    """Run `rules …` to its end beside a stack."""
    environ = {**stack.processes.environ, "LOG_LEVEL": "warning", "NO_COLOR": "1", "COLUMNS": "100"}
    done = subprocess.run(
        [sys.executable, "-m", "service.cli.main", "rules", *arguments],
        env={**environ, **settings},
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.parametrize("body", [EVENT, {"event": EVENT, "subscription_id": "whsub_1"}])
def test_an_event_in_a_file_is_explained_without_close(in_process, tmp_path, body):
    path = tmp_path / "event.json"
    path.write_text(json.dumps(body))
    from_file = in_process("explain", str(path))
    assert from_file.exit_code == 0, from_file.output
    assert "1 of 3 rules would ask Close, for at most 2 credits." in from_file.stdout
    assert "Industry: Close would be asked\n" in from_file.stdout
    assert '  when    true   lead.url != ""\n' in from_file.stdout
    assert '  saw     lead.url = "https://brindlemoor.example"\n' in from_file.stdout
    assert "Size: cannot be told: it takes Close's custom fields to know" in from_file.stdout
    assert "Seniority: not called: the rule is for contacts" in from_file.stdout
    assert in_process("explain", "-", stdin=json.dumps(body)).stdout == from_file.stdout


@pytest.mark.parametrize(
    ("arguments", "stdin", "words"),
    [
        (("explain", "nothing.json"), None, "nothing.json: cannot be read: No such file or directory"),
        (("explain", "-"), "{", "stdin: not JSON"),
        (("explain", "-"), "[1]", "stdin: not an event of Close"),
        (("explain", "-"), '{"event": {"id": "ev_1"}}', "stdin: not an event of Close"),
        (("explain", "ev_1"), None, "ev_1 is read from Close, and CLOSE_API_KEY is not set"),
        (("explain", "-", "--rules", "none.yaml"), "{}", "none.yaml: the rules file cannot be read"),
        (("plan",), None, "CLOSE_API_KEY: not set"),
    ],
)
def test_wrong_input_is_named_with_what_was_expected(in_process, arguments, stdin, words):
    done = in_process(*arguments, stdin=stdin)
    assert (done.exit_code, done.stdout) == (2, "")
    assert words in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--since", "soon"), "expected how long ago"),
        (("--since", "31d"), "goes back 30d"),
        (("--since", "2999-01-01"), "not into the future"),
        (("--diff", "none.yaml"), "none.yaml: the rules file cannot be read"),
    ],
)
def test_a_plan_of_nothing_sensible_is_refused(in_process, arguments, words):
    done = in_process("plan", *arguments, CLOSE_API_KEY="api_1.secret")
    assert done.exit_code == 2
    assert words in done.stderr


def test_a_close_that_does_not_answer_is_named(in_process, redis_url):
    settings = {
        "CLOSE_API_KEY": "api_1.secret",
        "CLOSE_API_URL": "http://127.0.0.1:9",
        "REDIS_URL": redis_url,
    }
    for arguments in (("plan",), ("explain", "lead_1")):
        done = in_process(*arguments, **settings)
        assert done.exit_code == 1
        assert "Close could not be reached" in done.stderr


@pytest.mark.slow
def test_a_record_and_an_event_are_explained_beside_a_running_service(tmp_path):
    with running(tmp_path, rules=RULES) as stack:
        lead = stack.add_lead(contacts=[{"name": "Ines Tarnow"}])
        assert stack.ended(lead["id"], "Industry")["Industry"].state is State.FILLED

        told = beside(stack, "explain", lead["id"]).stdout
        assert f"{lead['id']}, as if it had just been created" in told
        assert "Industry: not called: the ledger has the field already" in told
        assert "ledger  filled on 20" in told
        assert "by rule Industry, for 1 credit" in told
        # the contact's field may be charged to the same budget
        assert "left of 100 credits a day for all rules" in told
        assert 'lead.custom["Industry"] = ' in told

        (created,) = [
            one.event
            for one in stack.in_sandbox(lambda world: list(world.journal.newest_first()))
            if one.event["object_id"] == lead["id"] and one.event["action"] == "created"
        ]
        found = json.loads(beside(stack, "explain", created["id"], "--json").stdout)
        assert (found["event_id"], found["type"]) == (created["id"], "lead.created")
        outcomes = {one["rule"]: one["outcome"] for one in found["rules"]}
        assert outcomes["Industry"] == "recorded"
        assert outcomes["Seniority"] == "other_event"

        contact = lead["contact_ids"][0]
        without_redis = json.loads(beside(stack, "explain", contact, "--json", REDIS_URL="").stdout)
        (seniority,) = [one for one in without_redis["rules"] if one["rule"] == "Seniority"]
        assert seniority["recorded"] is None
        assert [one["spent"] for one in seniority["budgets"]] == [None, None]

        away = beside(stack, "explain", contact, REDIS_URL=f"unix://{tmp_path}/none.sock")
        assert "Redis does not answer" in away.stderr
        gone = beside(stack, "explain", "lead_gone", code=1)
        assert "lead_gone: Close does not know this record or field (404)" in gone.stderr


@pytest.mark.slow
def test_a_week_of_events_is_counted_priced_and_compared(tmp_path):
    with running(tmp_path, rules=RULES, web=False, workers=0) as stack:
        for number in range(3):
            stack.add_lead(contacts=[{"name": "Ines Tarnow"}], url="https://acme.example" if number else "")
        new, old = tmp_path / "new.yaml", tmp_path / "old.yaml"
        new.write_text(STRICTER)
        old.write_text(RULES.replace('lead.url != "" && ', ""))

        told = beside(stack, "plan", "--since", "7d").stdout
        assert "Industry, not wanted: 1 the condition is not met" in told
        assert "At most 5 credits: about 0.7 a day, 21 in 30 days." in told
        assert "Budget of 2 credits a day for rule Seniority: would have been reached on 1 of " in told
        assert "judged on a fresh read" in told
        assert stack.counts() == {}

        arguments = ("plan", "--rules", str(new), "--diff", str(old), "--limit", "0")
        both = beside(stack, *arguments, REDIS_URL="").stdout
        assert "Only the old rules would enrich 1 field:" in both
        assert "  and 1 more: --limit 1" in both
        assert "Only the new rules" not in both

        found = json.loads(beside(stack, *arguments[:-1], "5", "--json").stdout)
        assert (found["complete"], found["credits_at_most"], found["fields"]) == (True, 5, 5)
        assert found["diff"]["old"]["credits_at_most"] == 6
        assert [one["rule"] for one in found["diff"]["only_old"]] == ["Industry"]
        assert (found["diff"]["only_new"], found["diff"]["only_old_count"]) == ([], 1)

        refused = beside(stack, "plan", CLOSE_API_KEY="api_wrong.key", code=1)
        assert "Close's custom fields of leads: Close refused the API key (401)" in refused.stderr
        away = beside(stack, "plan", REDIS_URL=f"unix://{tmp_path}/none.sock", code=1)
        assert "Redis does not answer at REDIS_URL" in away.stderr
