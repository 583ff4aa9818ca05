"""The command line: what it says, how it exits, and that it cleans up after itself."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner
from stack import lively_world, running
from stack_parts import PROJECT, Processes
from waiting import wait_until

from service.cli.main import main
from service.enrichment import Entry, State
from service.sandbox.delivery import delivery_headers
from service.settings import SETTINGS

RULES = """
version: 1
defaults: {settle: 0s}
rules:
  - {name: Industry, object: lead, field: Industry}
  - {name: Pitch, object: lead, field: Pitch, settle: 1h}
"""
BROKEN_RULES = """
version: 1
rules:
  - {name: Industry, object: leed, field: Industry}
  - {name: Pitch, object: lead, feild: Pitch}
  - {name: Pitch, object: lead, field: Pitch, settle: soon}
"""
API_KEY = "api_7secretsecret.secret"
SIGNATURE_KEY = "5ec4e7" * 11
PASSWORD = "hunter2hunter2"
SECRETS = (API_KEY, SIGNATURE_KEY, PASSWORD)


def cli(*arguments, environ=None, **settings):
    """Run one command to its end, with no other settings than these."""
    inherited = {"PATH": os.environ["PATH"], "NO_COLOR": "1", "COLUMNS": "100"}
    return subprocess.run(
        [sys.executable, "-m", "service.cli.main", *arguments],
        env={**inherited, **(environ or {}), **settings},
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


@pytest.fixture
def in_process(monkeypatch, untouched_logging):  # noqa: ARG001  what it does is wanted
    """Run a command in this process, which is quicker."""
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(f"{name}_FILE", raising=False)

    def invoke(*arguments, **settings):
        environ = {"NO_COLOR": "1", "COLUMNS": "100", **settings}
        return CliRunner().invoke(main, arguments, env=environ, prog_name="close-enrich")

    return invoke


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ([], ["web", "worker", "demo", "up", "status", "show", "rules", "quarantine", "sandbox"]),
        (["web"], ["REDIS_URL", "CLOSE_SIGNATURE_KEYS"]),
        (["worker"], ["REDIS_URL", "CLOSE_API_KEY"]),
        (["demo"], ["--leads", "--once", "--per-second", "Example:"]),
        (["up"], ["--data-dir", "REDIS_URL"]),
        (["sandbox"], ["--latency", "--rate", "--credits"]),
        (["status"], ["--json"]),
        (["cost"], ["--by", "--days", "--since", "--json", "Example:"]),
        (["halt"], ["--reason", "--json"]),
        (["resume"], ["--json"]),
        (["release"], ["--limit", "--rule", "--dry-run", "--yes", "--json", "Example:"]),
        (["show"], ["--json", "OBJECT_ID", "Example:"]),
        (["rules", "check"], ["[PATH]", "--offline", "--strict", "--json", "Example:"]),
        (["rules", "schema"], ["yaml-language-server", "Example:"]),
        (["quarantine", "list"], ["--json", "--bodies"]),
    ],
    ids=lambda one: " ".join(one) or "close-enrich",
)
def test_help_names_what_a_command_takes(in_process, command, words):
    done = in_process(*command, "--help")

    assert done.exit_code == 0
    assert [word for word in words if word not in done.stdout] == []


@pytest.mark.parametrize(
    ("command", "settings", "named"),
    [
        pytest.param(["web"], {}, ["CLOSE_SIGNATURE_KEYS", "REDIS_URL"], id="web"),
        pytest.param(["worker"], {}, ["CLOSE_API_KEY", "REDIS_URL"], id="worker"),
        pytest.param(["up"], {}, ["CLOSE_API_KEY", "CLOSE_SIGNATURE_KEYS"], id="up"),
        pytest.param(["status"], {}, ["REDIS_URL"], id="status"),
        pytest.param(["show", "lead_x"], {}, ["REDIS_URL"], id="show"),
        pytest.param(["cost"], {}, ["REDIS_URL"], id="cost"),
        pytest.param(["halt"], {}, ["REDIS_URL"], id="halt"),
        pytest.param(["resume"], {}, ["REDIS_URL"], id="resume"),
        pytest.param(["release", "--yes"], {}, ["REDIS_URL"], id="release"),
        pytest.param(["quarantine", "list"], {}, ["REDIS_URL"], id="quarantine list"),
        pytest.param(
            ["web"],
            {
                "CLOSE_SIGNATURE_KEYS": f"{SIGNATURE_KEY},{PASSWORD}",
                "REDIS_URL": f"htp://:{PASSWORD}@127.0.0.1",
                "PORT": "99999",
            },
            ["CLOSE_SIGNATURE_KEYS", "PORT", "REDIS_URL"],
            id="web, all of them wrong",
        ),
        pytest.param(
            ["worker"],
            {"CLOSE_API_KEY": f"{API_KEY} {PASSWORD}", "REDIS_URL": PASSWORD, "SHUTDOWN_GRACE": "long"},
            ["CLOSE_API_KEY", "REDIS_URL", "SHUTDOWN_GRACE"],
            id="worker, all of them wrong",
        ),
    ],
)
def test_settings_that_are_missing_or_wrong_are_all_named_at_once_without_a_secret(
    in_process, command, settings, named
):
    done = in_process(*command, **settings)

    assert done.exit_code == 2
    assert isinstance(done.exception, SystemExit)
    assert sorted(re.findall(r"^  ([A-Z_]+): ", done.stderr, re.MULTILINE)) == named
    assert [secret for secret in SECRETS if secret in done.stdout + done.stderr] == []


@pytest.mark.parametrize("command", ["web", "worker", "up", "rules check"])
def test_every_mistake_in_a_rules_file_is_named_with_its_line_and_the_nearest_name(tmp_path, command):
    path = tmp_path / "rules.yaml"
    path.write_text(BROKEN_RULES)
    done = cli(
        *command.split(),
        *([str(path)] if command == "rules check" else []),
        RULES_FILE=str(path),
        CLOSE_API_KEY=API_KEY,
        CLOSE_API_URL="http://127.0.0.1:9/api/v1",
        CLOSE_SIGNATURE_KEYS=SIGNATURE_KEY,
        REDIS_URL="unix:///nowhere/redis.sock",
    )

    assert done.returncode == 2
    assert {int(line) for line in re.findall(rf"^{path}:(\d+):", done.stderr, re.MULTILINE)} == {4, 5, 6}
    assert "did you mean 'lead'?" in done.stderr
    assert "did you mean 'field'?" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_rules_file_that_is_not_there_is_named(tmp_path):
    done = cli("worker", CLOSE_API_KEY=API_KEY, REDIS_URL="redis://x", RULES_FILE=str(tmp_path / "none.yaml"))

    assert (done.returncode, done.stderr.splitlines()) == (
        2,
        [f"{tmp_path}/none.yaml: the rules file cannot be read: No such file or directory (see RULES_FILE)"],
    )


def test_the_shipped_rules_have_no_mistakes(in_process):
    done = in_process("rules", "check", str(PROJECT / "deploy" / "rules.example.yaml"))

    assert (done.exit_code, done.stderr) == (0, "")
    assert "no mistakes" in done.stdout


@pytest.mark.parametrize("command", ["status", "show lead_x", "show lead_x --json", "quarantine list --json"])
def test_a_redis_that_does_not_answer_is_said_so_in_one_line(in_process, command):
    done = in_process(*command.split(), REDIS_URL=f"redis://:{PASSWORD}@127.0.0.1:1")

    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == "Redis does not answer at REDIS_URL (ConnectionError)\n"


def test_demo_once_asks_for_a_number_of_leads(in_process):
    done = in_process("demo", "--once")

    assert done.exit_code == 2
    assert "--leads" in done.stderr


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """A service with one lead, one enrichment of it filled and one waiting, and one body in quarantine."""
    with running(tmp_path_factory.mktemp("cli"), rules=RULES) as stack:
        stack.lead_id = stack.add_lead()["id"]
        stack.ended(stack.lead_id, "Industry")
        body = b'{"event": "not an object"}'
        (subscription,) = stack.world.subscriptions.values()
        headers = delivery_headers(signature_key=subscription.signature_key, timestamp=1, body=body)
        assert stack.deliver(body, headers) == 202
        yield stack


def test_status_as_json_has_the_counts_queues_workers_and_halt(in_process, stack):
    done = in_process("status", "--json", REDIS_URL=stack.server.url)
    found = json.loads(done.stdout)

    assert (done.exit_code, done.stderr) == (0, "")
    keys = ["states", "queues", "workers", "halted", "burst_guard", "dead_letters", "quarantined", "breakers"]
    assert list(found) == [*keys, "rules", "budgets", "redis_problems"]
    assert (found["dead_letters"], found["quarantined"]) == (0, 1)
    assert list(found["states"]) == [state.value for state in State]
    assert {state: count for state, count in found["states"].items() if count} == {"waiting": 1, "filled": 1}
    assert found["queues"] == {
        "enrich": {"queued": 0, "scheduled": 1},
        "enrich-bulk": {"queued": 0, "scheduled": 0},
    }
    assert len(found["workers"]) == 1
    assert found["halted"] is None


def test_status_for_people_tells_the_same(in_process, stack):
    done = in_process("status", REDIS_URL=stack.server.url)

    assert done.exit_code == 0
    assert re.search(r"filled +1 ", done.stdout)
    assert "Workers alive: 1" in done.stdout
    words = " ".join(done.stdout.split())
    assert "1 signed delivery could not be read: close-enrich quarantine list" in words


def test_show_as_json_has_every_attribute_of_an_entry_and_its_story(in_process, stack):
    done = in_process("show", stack.lead_id, "--json", REDIS_URL=stack.server.url)
    found = {entry["rule"]: entry for entry in json.loads(done.stdout)}

    assert done.exit_code == 0
    assert set(found) == {"Industry", "Pitch"}
    assert [set(entry) for entry in found.values()] == [{*Entry.__slots__, "story"}] * 2
    assert found["Industry"]["value"] == stack.value(stack.lead_id, "Industry")
    # a worker that has just started may wait a moment for Close's fields first
    assert [fact["state"] for fact in found["Industry"]["story"]][-2:] == ["calling", "filled"]


def test_show_tells_the_story_of_a_record_and_of_one_enrichment(in_process, stack):
    entry = stack.entries(stack.lead_id)["Industry"]
    of_record = in_process("show", stack.lead_id, REDIS_URL=stack.server.url)
    of_enrichment = in_process("show", entry.id, REDIS_URL=stack.server.url)

    assert (of_record.exit_code, of_enrichment.exit_code) == (0, 0)
    for words in ("Industry", entry.value, "filled", "by rule Industry"):
        assert words in of_record.stdout
        assert words in of_enrichment.stdout
    assert "Pitch" in of_record.stdout
    assert "Pitch" not in of_enrichment.stdout


@pytest.mark.parametrize(("flags", "printed"), [([], ""), (["--json"], "[]\n")])
def test_show_of_what_nobody_knows_exits_1(in_process, stack, flags, printed):
    done = in_process("show", "lead_nobody", *flags, REDIS_URL=stack.server.url)

    assert (done.exit_code, done.stdout) == (1, printed)
    assert "nothing is known of lead_nobody" in done.stderr


def test_quarantine_lists_bodies_only_when_asked(in_process, stack):
    done = in_process("quarantine", "list", "--json", REDIS_URL=stack.server.url)
    (without,) = json.loads(done.stdout)
    (with_body,) = json.loads(
        in_process("quarantine", "list", "--json", "--bodies", REDIS_URL=stack.server.url).stdout
    )
    for_people = in_process("quarantine", "list", REDIS_URL=stack.server.url)

    assert list(without) == ["id", "received_at", "reason", "size_bytes"]
    assert with_body == {**without, "body": '{"event": "not an object"}'}
    assert without["reason"] in for_people.stdout
    assert "not an object" not in for_people.stdout


@pytest.fixture
def processes(tmp_path):
    """Commands that run for a while, with a temporary directory of their own to look into."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    started = Processes(tmp_path, {"TMPDIR": str(temporary)})
    yield started
    started.close()


@pytest.mark.slow
def test_demo_once_ends_well_and_leaves_no_process_or_file(processes, tmp_path):
    processes.start("demo", "demo", "--leads", "5", "--per-second", "50", "--once")

    assert processes.wait("demo", seconds=180) == 0, processes.log("demo")
    assert re.search(r"filled +\d+ ", processes.log("demo"))
    assert "5 leads" in processes.log("demo")
    assert re.search(r"Cost: \d+ calls, \d+ paid; saved \d+ by skipping", processes.log("demo"))
    assert processes.left() == []
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "moment"), [(signal.SIGTERM, "while it starts"), (signal.SIGINT, "while it runs")]
)
def test_demo_cleans_up_when_it_is_stopped(processes, tmp_path, number, moment):
    processes.start("demo", "demo")
    if moment == "while it starts":
        wait_until(lambda: len(processes.left()) > 2, seconds=60)
    else:
        wait_until(lambda: " credits spent" in processes.log("demo"), seconds=60)
    processes.send("demo", number)

    assert processes.wait("demo") == 0, processes.log("demo")
    assert processes.left() == []
    assert list((tmp_path / "tmp").iterdir()) == []
    assert "Traceback" not in processes.log("demo")


def up(stack, data_dir):
    """Start `up` with a Redis of its own; what it printed for `REDIS_URL`."""
    already = len(stack.processes.log("up"))
    stack.processes.start("up", "up", "--data-dir", str(data_dir), REDIS_URL="")
    found = wait_until(
        lambda: re.search(r"REDIS_URL=(\S+) close-enrich status", stack.processes.log("up")[already:]),
        seconds=60,
    )
    stack.wait_ready("web")
    return found[1]


@pytest.mark.slow
def test_up_keeps_what_it_accepted_over_a_restart(tmp_path):
    with running(tmp_path, rules=RULES, web=False, workers=0) as stack:
        url = up(stack, tmp_path / "data")
        lead_id = stack.add_lead()["id"]
        wait_until(lambda: stack.value(lead_id, "Industry"))
        stack.processes.send("up", signal.SIGTERM)
        assert stack.processes.wait("up") == 0
        assert stack.processes.left() == []

        url = up(stack, tmp_path / "data")
        found = {
            entry["rule"]: entry["state"]
            for entry in json.loads(cli("show", lead_id, "--json", REDIS_URL=url).stdout)
        }
        another = stack.add_lead()["id"]
        wait_until(lambda: stack.value(another, "Industry"))
        stack.processes.send("up", signal.SIGINT)

        assert found == {"Industry": "filled", "Pitch": "waiting"}
        assert stack.processes.wait("up") == 0
        assert stack.processes.left() == []
        assert len(stack.calls(lead_id)) == 1


@pytest.mark.slow
def test_up_ends_when_a_part_of_it_ends(tmp_path):
    with running(tmp_path, rules=RULES, world=lively_world(), workers=0) as stack:
        # the port is taken by the stack's own web
        stack.processes.start("up", "up", "--data-dir", str(tmp_path / "data"), REDIS_URL="")

        assert stack.processes.wait("up") == 1
        assert "stopped: web ended with exit code" in stack.processes.log("up")
        assert stack.processes.left() == [stack.processes.pid("web")]
