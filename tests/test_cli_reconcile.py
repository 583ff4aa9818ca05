"""`close-enrich reconcile`, and workers that do the same by themselves."""

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

pytestmark = pytest.mark.slow

RULES = """
version: 1
defaults: {settle: 0s}
budget: {burst: {most: 4, within: 1h, then: hold}}
rules:
  - {name: Industry, object: lead, field: Industry}
  - {name: Seniority, object: contact, field: Seniority}
"""
ONE_RULE = """
version: 1
defaults: {settle: 0s}
rules:
  - {name: Industry, object: lead, field: Industry}
"""


def command(stack, *arguments, **settings):
    """Run `reconcile` to its end beside a stack."""
    environ = {**stack.processes.environ, "LOG_LEVEL": "warning", "NO_COLOR": "1", "COLUMNS": "100"}
    return subprocess.run(
        [sys.executable, "-m", "service.cli.main", "reconcile", *arguments],
        env={**environ, **settings},
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


@pytest.fixture
def in_process(monkeypatch, untouched_logging):  # noqa: ARG001  what it does is wanted
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(f"{name}_FILE", raising=False)

    def invoke(*arguments, **settings):
        return CliRunner().invoke(main, ["reconcile", *arguments], env=settings)

    return invoke


@pytest.mark.parametrize(
    ("since", "words"),
    [
        ("3", "did you mean 3s?"),
        ("3 days", "did you mean 3d?"),
        ("soon", "such as 90m, 12h or 3d"),
        ("0", "such as 90m, 12h or 3d"),
        ("31d", "goes back 30d"),
    ],
)
def test_a_time_that_is_none_is_named_with_the_nearest_one(in_process, since, words):
    done = in_process("--since", since)
    assert done.exit_code == 2
    assert f"--since {since}: " in done.stderr
    assert words in done.stderr


def test_settings_that_are_missing_are_named(in_process):
    done = in_process()
    assert done.exit_code == 2
    assert "CLOSE_API_KEY" in done.stderr
    assert "REDIS_URL" in done.stderr


def test_a_redis_that_is_away_is_said_at_once(in_process, tmp_path):
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)
    done = in_process(
        REDIS_URL=f"unix://{tmp_path}/none.sock", CLOSE_API_KEY="api_1.secret", RULES_FILE=str(rules)
    )
    assert done.exit_code == 1
    assert "Redis does not answer" in done.stderr


def test_what_was_missed_is_shown_first_and_planned_then_with_its_price(tmp_path):
    with running(tmp_path, rules=RULES, web=False, workers=0) as stack:
        leads = [stack.add_lead(contacts=[{"name": "Ines Tarnow"}]) for _ in range(3)]

        dry = command(stack, "--since", "1h", "--dry-run")
        assert (dry.returncode, dry.stderr) == (0, "")
        assert "Would plan 6, for at most 6 credits. Nothing was planned." in dry.stdout
        assert stack.counts() == {}

        done = command(stack, "--since", "1h", "--json")
        assert done.returncode == 0
        found = json.loads(done.stdout)
        numbers = {
            "unreadable": 0,
            "credits_at_most": 3,
            "events": 3,
            "matched": 3,
            "missed": 3,
            "planned": 3,
        }
        assert [(one["type"], one["problem"]) for one in found["types"]] == [
            ("lead.created", None),
            ("contact.created", None),
        ]
        assert [one.items() >= numbers.items() for one in found["types"]] == [True, True]
        assert found["complete"] is True
        assert found["total"]["credits_at_most"] == 6
        assert found["total"]["held"] == 2
        assert stack.counts() == {"planned": 4, "waiting": 2}
        assert stack.entries(leads[0]["id"])["Industry"].queue == "enrich-bulk"
        assert "events were missed" in done.stderr

        again = command(stack, "--since", "1h")
        assert (again.returncode, again.stderr) == (0, "")
        assert "Nothing was missed." in again.stdout


def test_what_the_burst_guard_holds_is_said_with_what_to_do(tmp_path):
    with running(tmp_path, rules=RULES, web=False, workers=0) as stack:
        for _ in range(5):
            stack.add_lead()
        done = command(stack)
        assert (
            "Planned 5, for at most 5 credits; the burst guard holds 1: close-enrich release." in done.stdout
        )


def test_without_close_and_without_knowing_its_fields_nothing_can_be_planned(tmp_path):
    with running(tmp_path, rules=ONE_RULE, web=False, workers=0) as stack:
        done = command(stack, CLOSE_API_KEY="api_wrong.key")
        assert (done.returncode, done.stdout) == (1, "")
        assert "Close's custom fields are not known" in done.stderr


def test_a_log_that_cannot_be_walked_is_named_with_the_reason_and_the_exit_code_is_1(tmp_path):
    with running(tmp_path, rules=ONE_RULE, web=False, workers=0) as stack:
        stack.add_lead()
        assert command(stack, "--dry-run").returncode == 0
        refused = command(stack, CLOSE_API_KEY="api_wrong.key")
        assert refused.returncode == 1
        assert "lead.created was not walked to its end: Close refused the API key (401)" in refused.stderr
        assert "Nothing was missed in what could be read.\n" in refused.stdout


def test_workers_find_by_themselves_what_was_never_delivered(tmp_path):
    with running(
        tmp_path, rules=ONE_RULE, web=False, workers=2, RECONCILE_EVERY="1s", LOG_LEVEL="info"
    ) as stack:
        lead = stack.add_lead()
        entry = stack.ended(lead["id"], "Industry")["Industry"]
        assert (entry.state, entry.calls) == (State.FILLED, 1)
        assert len(stack.calls()) == 1


def test_workers_leave_the_log_alone_where_that_is_off(tmp_path):
    with running(tmp_path, rules=ONE_RULE, web=False, RECONCILE_EVERY="off") as stack:
        lead = stack.add_lead()
        assert command(stack, "--since", "1h").returncode == 0
        stack.ended(lead["id"], "Industry")
        assert stack.redis.keys("enrich:reconciled*") == []
